"""What every rank of a test runs: many networks over the ranks, each held against the same network in one process.

``python -m tests.across.equal first count`` under the environment that torchrun sets.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import networkx as nx
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed

import pcgraph
from pcgraph import SGD, Adam, Average, Duals, Errors, Forward, Masked, Normal, Null, PCNetwork, Zero
from pcgraph.plan import verify
from pcgraph.processes import Group
from pcgraph.testing.strategies import Problem, digraphs, problems

EXACT = {"rtol": 1e-12, "atol": 1e-13}
#: Name -> what to run; initializers are made anew for each network, since some remember.
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "zero": lambda: {"init": Zero(), "optimizer": SGD(0.1)},
    "normal": lambda: {"init": Normal(seed=3), "optimizer": SGD(0.1, momentum=0.5)},
    "forward": lambda: {"init": Forward(fallback=Normal(), roots=Normal()), "optimizer": SGD(0.1)},
    "null": lambda: {"init": Null(first=Forward(fallback=Zero())), "optimizer": SGD(0.1)},
    "average": lambda: {"init": Average(by=None, classes=2), "optimizer": SGD(0.1)},
    "adam": lambda: {"init": Zero(), "optimizer": Adam(0.1)},
    "errors": lambda: {"init": Forward(fallback=Normal(), roots=Normal()), "optimizer": SGD(0.1),
                       "coordinates": Errors(keep="repair")},
    "duals": lambda: {"init": Normal(), "optimizer": SGD(0.1), "duals": Duals(0.1)},
    "tolerance": lambda: {"init": Normal(), "optimizer": SGD(0.1), "tolerance": 0.05, "trace": True},
}  # fmt: skip


def drawn(count: int, parts: int) -> list[tuple[Problem, int]]:
    """Draw problems with enough nodes, the same in every process: nothing runs while they are drawn."""
    found: list[tuple[Problem, int]] = []

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        problems(graphs=digraphs(min_nodes=parts, max_nodes=7, slots=True), clamps="some", masks=True, rich=True),
        st.integers(0, 4),
    )
    def draw(problem: Problem, steps: int) -> None:
        if len(problem.graph) >= parts:
            found.append((problem, steps))

    draw()
    return found


def split(graph: nx.DiGraph, parts: int, seed: int) -> dict[Any, int]:
    """Give each rank some node, and the others by lot."""
    generator = torch.Generator().manual_seed(seed)
    nodes = list(graph)
    order = torch.randperm(len(nodes), generator=generator).tolist()
    lots = torch.randint(parts, (len(nodes),), generator=generator).tolist()
    return {nodes[i]: (k if k < parts else lots[i]) for k, i in enumerate(order)}


def compare(name: str, problem: Problem, steps: int, group: Group) -> None:
    """Run two batches of learning on both, and compare everything that this rank has."""
    partition = split(problem.graph, group.size, problem.seed)
    net, one = (
        PCNetwork(problem.graph, seed=problem.seed, dtype=torch.float64, **more)
        for more in ({"partition": partition, "group": group}, {})
    )
    same_weights(net, one)
    what, alone = KINDS[name](), KINDS[name]()
    if "coordinates" in what and problem.masked:
        del what["coordinates"], alone["coordinates"]
    labels = torch.tensor([0, 1, 0]) if name == "average" else None
    optimizers = [torch.optim.Adam(n.parameters(), 0.05) for n in (net, one) if list(n.parameters())]
    for batch in range(2):
        clamps = values(one, problem, batch)
        results = [
            n.infer(clamps, steps=steps, labels=labels, **how) for n, how in ((net, what), (one, alone))
        ]  # fmt: skip
        assert verify(results[0].plan)
        compare_results(*results)
        for n, result in zip((net, one), results):
            n.zero_grad()
            result.accumulate()
            result.remember()
        same_weights(net, one, gradients=True)
        for optimizer in optimizers:
            optimizer.step()
        same_weights(net, one)
        del results


def compare_results(ours: Any, theirs: Any) -> None:
    for kind in ("states", "predictions", "errors", "duals"):
        for node, found in getattr(ours, kind).items():
            torch.testing.assert_close(found, getattr(theirs, kind)[node], **EXACT)
    torch.testing.assert_close(ours.energy, theirs.energy, **EXACT)
    for node, found in ours.node_energy.items():
        torch.testing.assert_close(found, theirs.node_energy[node], **EXACT)
    if theirs.trace is not None:
        torch.testing.assert_close(ours.trace, theirs.trace, **EXACT)
        assert torch.equal(ours.steps, theirs.steps)
        assert torch.equal(ours.converged, theirs.converged)


def values(net: PCNetwork, problem: Problem, batch: int) -> dict[Any, Any]:
    generator = torch.Generator().manual_seed(1000 * batch + problem.seed)
    found: dict[Any, Any] = {}
    for node in sorted(problem.clamped):
        value = torch.randn(3, *net.structure.shape(node), generator=generator, dtype=torch.float64)
        mask = torch.rand(value.shape, generator=generator) < 0.5
        found[node] = Masked(value, mask) if node in problem.masked else value
    return found


def parameters(net: PCNetwork) -> dict[Any, Tensor]:
    """Each weight, bias and other parameter that this process has, and its gradient, by edge or node."""
    found: dict[Any, Tensor] = {}
    own, s = net.own, net.own.structure
    for b in s.buckets:
        for e in range(b.start, b.stop):
            key = (*s.edge(e), s.slot_name(e))
            row = e - b.start if b.weight is None else int(b.weight[e - b.start])
            if b.name in own.weights:
                found[key] = both(own.weights[b.name], row)
    for i in range(len(s.nodes)):
        if own.bias_row[i] >= 0:
            group = s.groups[int(s.group_of[i])].name
            found["bias", s.nodes[i]] = both(own.biases[f"bias_{group}"], int(own.bias_row[i]))
        segment = s.segments[int(s.segment_of[i])]
        if segment.energy is not None and not segment.gaussian:
            for name, parameter in own.energy_of(int(s.segment_of[i])).named_parameters():
                found["energy", s.nodes[i], name] = both(parameter, ...)
    return found


def both(parameter: Tensor, row: Any) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return torch.stack([parameter.detach()[row], gradient[row]])


def same_weights(net: PCNetwork, one: PCNetwork, gradients: bool = False) -> None:
    ours, theirs = parameters(net), parameters(one)
    for key, found in ours.items():
        which = slice(0, 2 if gradients else 1)
        torch.testing.assert_close(
            found[which], theirs[key][which], **EXACT, msg=lambda text, key=key: f"{key}: {text}"
        )


def main(first: int, count: int) -> None:
    distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    group = Group(timeout=20)
    names = list(KINDS)
    done = 0
    with group.telling():
        for k, (problem, steps) in enumerate(drawn(count, group.size)):
            name = names[(first + k) % len(names)]
            try:
                compare(name, problem, steps, group)
            except Exception as error:
                error.add_note(
                    f"{name}, {steps} steps, case {k}: {problem!r}, {split(problem.graph, group.size, problem.seed)}"
                )
                raise
            done += 1
        predictions(group)
        refusals(group)
    print(f"rank {group.rank}: {done} networks are the same")
    group.barrier()  # the first keeps the store, and goes last
    del group
    distributed.destroy_process_group()


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

    refused("LBFGS", lambda: infer(optimizer=pcgraph.LBFGS()))
    refused("Langevin", lambda: infer(optimizer=pcgraph.Langevin(0.1)))
    refused("Memory does not start states", lambda: infer(init=pcgraph.Memory(net, heads=1)))
    refused("trace='nodes'", lambda: infer(trace="nodes"))
    refused("duals that stop", lambda: infer(duals=Duals(0.1, stop=0.1)))
    refused("has one way to compute", lambda: infer(kernels={"linear_3_to_4": "dense"}))
    refused("curvature", lambda: net.curvature(clamps, init=Zero()))
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


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
