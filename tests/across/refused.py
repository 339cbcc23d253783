"""What is asked of a network over the ranks: predictions, and what is refused on all ranks before anything runs."""

from __future__ import annotations

import copy
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
    refused("has one way to compute", lambda: infer(kernels={"linear_3_to_4": "dense"}))
    refused(
        "looks at a tensor as a whole",
        lambda: pcgraph.fit(
            net,
            [(clamps["x"], clamps["y"])],
            init=Zero(),
            steps=1,
            state_optimizer=SGD(0.1),
            optimizer=torch.optim.Adafactor(net.parameters(), 0.1),
        ),
    )
    refused("summary does not know", net.summary)
    for name, call in {
        "edge": lambda: net.edge("x", "h1"), "node": lambda: net.node("y"), "edges": net.edges, "nodes": net.nodes,
        "parameter_groups": lambda: net.parameter_groups({("x", "h1"): {"lr": 0.1}}),
    }.items():  # fmt: skip
        refused(f"{name} does not know", call)
    refused("load_from does not know", lambda: net.load_from(PCNetwork(graph, dtype=torch.float64)))
    refused("as_module does not know", lambda: net.as_module(["x"], ["y"]))
    refused("copying does not know", lambda: copy.deepcopy(net))
    here = next(v for v, r in partition.items() if r == group.rank)
    away = next(v for v, r in partition.items() if r != group.rank)
    result = infer()
    assert set(result.states) == {v for v, r in partition.items() if r == group.rank}
    assert here in result.states
    assert away not in result.states
    refused("on another rank", lambda: result.states[away], KeyError)
    into = next((u, v) for u, v in graph.edges if partition[v] != group.rank)
    refused("on rank", lambda: net.weight(*into))
    refused("needs as many processes", lambda: PCNetwork(graph, partition=dict.fromkeys(graph, 0) | {"y": 1, "h1": 2}))
    refused("group", lambda: PCNetwork(graph, partition=partition, group=False))
    refused("seed", lambda: PCNetwork(graph, seed=group.rank, partition=partition))
    other = pcgraph.graphs.chain([3, 4 + group.rank, 5, 4, 2])
    refused("graph", lambda: PCNetwork(other, partition=partition))
    nameless = nx.relabel_nodes(graph, {"h1": object()})
    owners = {v: partition.get(v, partition["h1"]) if isinstance(v, str) else partition["h1"] for v in nameless}
    refused("name", lambda: PCNetwork(nameless, partition=owners))
