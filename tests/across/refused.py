"""What is asked of a network over the ranks: predictions, and what is refused on all ranks before anything runs."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import networkx as nx
import torch
from torch import Tensor

import pcgraph
from pcgraph import SGD, PCNetwork, Zero
from pcgraph.processes import Group
from tests.across.equal import EXACT, split


class Alone(pcgraph.solvers.Solver):
    """A solver that does not say that it adds up over ranks."""

    def propose(self, variables: Tensor, gradient: Tensor, memory: dict[str, Any]) -> Tensor:
        return variables - 0.1 * gradient


class Unknown(pcgraph.initializers.Initializer):
    """An initializer that does not say how ranks let it write."""

    def requirement(self, report: Any) -> Any:
        return report.verdicts["zero"]

    def init(self, block: Any, out: Tensor, context: Any) -> None:
        out.zero_()


class Stuck(torch.nn.Linear):
    """A module that cannot leave the process in which it was made."""

    def __init__(self) -> None:
        super().__init__(4, 5)
        self.lock = threading.Lock()


def predictions(group: Group) -> None:
    """A sweep goes across ranks, and all know the answer, to the bit."""
    graph = pcgraph.graphs.chain([3, 4, 5, 4, 2], activation="tanh")
    partition = split(graph, group.size, 1)
    net, one = (
        PCNetwork(graph, seed=1, dtype=torch.float64, **more) for more in ({"partition": partition, "group": group}, {})
    )
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = net.predict({"x": x}, "y")
    torch.testing.assert_close(found, one.predict({"x": x}, "y"), **EXACT)
    assert all(torch.equal(found, other) for other in group.gather(found))
    settings = {"init": Zero(), "steps": 3, "optimizer": SGD(0.1)}
    torch.testing.assert_close(
        net.predict({"x": x}, "h2", **settings), one.predict({"x": x}, "h2", **settings), **EXACT
    )


def refusals(group: Group) -> None:
    """What does not work over ranks is refused on all of them, before anything runs, and the ranks go on."""
    graph = pcgraph.graphs.chain([3, 4, 5, 4, 2], activation="tanh")
    partition = {v: k % group.size for k, v in enumerate(graph)}
    net = PCNetwork(graph, dtype=torch.float64, partition=partition, group=group)
    clamps = {"x": torch.ones(2, 3, dtype=torch.float64), "y": torch.ones(2, 2, dtype=torch.float64)}

    def refused(words: str, call: Callable[[], object], kind: type[Exception] = pcgraph.ConfigError) -> None:
        try:
            call()
        except kind as error:
            said = str(error)
        else:
            raise AssertionError(f"not refused: {words}")
        assert words in said, f"{words!r} is not in {said}"

    def infer(**more: Any) -> Any:
        return net.infer(clamps, **{"init": Zero(), "steps": 2, "optimizer": SGD(0.1), **more})

    for other in (torch.ones(2 + group.rank, 3), torch.full((2, 3), 1.0 + group.rank)):
        batch = {"x": other.double(), "y": torch.ones(len(other), 2, dtype=torch.float64)}
        refused("the same batch", lambda batch=batch: net.infer(batch, init=Zero(), steps=0), pcgraph.ClampError)
    refused("sees the variables of one rank alone", lambda: infer(optimizer=Alone()))
    refused("Unknown does not start states", lambda: infer(init=Unknown()))
    for pins, words in (
        ({"linear_3_to_9": "dense"}, "linear_3_to_9"), ({"linear_3_to_4": "fast"}, "fast"),
        ({"linear_3_to_4": "sparse"}, "the sparse kernel needs"),
    ):  # fmt: skip
        refused(words, lambda pins=pins: infer(kernels=pins))

    def fitted(optimizer: torch.optim.Optimizer, **more: Any) -> Any:
        how = {"init": Zero(), "steps": 1, "state_optimizer": SGD(0.1), "optimizer": optimizer, **more}
        return pcgraph.fit(net, [(clamps["x"], clamps["y"])], **how)

    def some() -> list[Any]:
        """Give views of several rows, or of one in the shape of several."""
        own = net.own.weights
        return [own.view(name, slice(0, 1)) for name in own] or list(net.parameters())

    refused("looks at a tensor as a whole", lambda: fitted(torch.optim.Adafactor(net.parameters(), 0.1)))
    refused("looks at a tensor as a whole", lambda: fitted(torch.optim.Adafactor(some(), 0.1)))
    refused("separate=True", lambda: fitted(torch.optim.Adam(some()), checkpoint="nowhere"))
    settings = {("x", "h1"): {"lr": 0.1}, ("h1", "h2"): {"rate": 0.1}}
    refused("did you mean 'lr'", lambda: net.parameter_groups(settings))
    refused("no edge", lambda: net.edge("x", "y"), pcgraph.GraphError)
    whole = PCNetwork(graph, dtype=torch.float64)
    turned = {v: (r + 1) % group.size for v, r in partition.items()}
    otherwise = PCNetwork(graph, dtype=torch.float64, partition=turned, group=group)
    refused("lies on the rank that copies it", lambda: net.load_from(otherwise))
    refused("lies on the rank that copies it", lambda: whole.load_from(net))
    refused("as_module does not know", lambda: net.as_module(["x"], ["y"]))
    refused("pickle does not know", lambda: pickle.dumps(net))
    refused("cannot be captured", lambda: infer(capture=True))
    here = next(v for v, r in partition.items() if r == group.rank)
    away = next(v for v, r in partition.items() if r != group.rank)
    result = infer()
    assert set(result.states) == {v for v, r in partition.items() if r == group.rank}
    assert here in result.states
    assert away not in result.states
    refused("on another rank", lambda: result.states[away], KeyError)
    into = next((u, v) for u, v in graph.edges if partition[v] != group.rank)
    refused("on rank", lambda: net.weight(*into))
    odd = graph.copy()
    odd.edges["h1", "h2"]["transform"] = Stuck()
    refused("Stuck cannot be copied", lambda: PCNetwork(odd, partition=partition, group=group), pcgraph.GraphError)
    several: Callable[[Any], Any] = lambda owners: PCNetwork(graph, partition=owners, group=group)  # noqa: E731
    refused("names the node 'h9'", lambda: several({**partition, "h9": 0}))
    refused("has no rank for the node 'y'", lambda: several({v: r for v, r in partition.items() if v != "y"}))
    refused("found none for rank 0", lambda: several({v: r + 1 for v, r in partition.items()}))
    refused("needs as many processes", lambda: several({**dict.fromkeys(graph, 0), "y": 1, "h1": 2}))
    refused("5 nodes for 6 ranks", lambda: pcgraph.partition(graph, 6))
    refused("needs as many processes", lambda: PCNetwork(graph, partition=dict.fromkeys(graph, 0) | {"y": 1, "h1": 2}))
    refused("group", lambda: PCNetwork(graph, partition=partition, group=False))
    refused("seed", lambda: PCNetwork(graph, seed=group.rank, partition=partition))
    other = pcgraph.graphs.chain([3, 4 + group.rank, 5, 4, 2])
    refused("graph", lambda: PCNetwork(other, partition=partition))
    nameless = nx.relabel_nodes(graph, {"h1": object()})
    owners = {v: partition.get(v, partition["h1"]) if isinstance(v, str) else partition["h1"] for v in nameless}
    refused("name", lambda: PCNetwork(nameless, partition=owners))
