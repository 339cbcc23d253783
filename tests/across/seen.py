"""What is looked at, measured and combined over the ranks, on graphs made for it."""

from __future__ import annotations

import copy
import re
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor

import pcgraph
from pcgraph import SGD, Average, Forward, Normal, PCNetwork, States, Zero
from pcgraph.processes import Group
from tests.across.equal import EXACT, compare_results, same_weights, split

Pair = tuple[PCNetwork, PCNetwork]


def pair(graph: nx.DiGraph, group: Group, seed: int = 1) -> Pair:
    """One network over the ranks, and the same in one process."""
    return (
        PCNetwork(graph, seed=seed, dtype=torch.float64, partition=split(graph, group.size, seed), group=group),
        PCNetwork(graph, seed=seed, dtype=torch.float64),
    )


def drawn(net: PCNetwork, *nodes: Any) -> dict[Any, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {v: torch.randn(3, *net.structure.shape(v), generator=generator, dtype=torch.float64) for v in nodes}


def ring() -> nx.DiGraph:
    """A chain with a way back in its middle, and a node of another shape."""
    graph = pcgraph.graphs.chain([3, 4, 5, 4, 2], activation="tanh")
    graph.add_edge("h3", "h1")
    graph.nodes["h2"]["shape"] = (5,)
    return graph


def attentive() -> nx.DiGraph:
    """A node that attends to two others, and one that is a gate of two."""
    graph = nx.DiGraph()
    for v, shape in {"x": (3, 4), "a": (3, 4), "q": (2, 4), "v": (2, 4), "g": 8, "w": 8, "y": 2}.items():
        graph.add_node(v, shape=shape, activation="identity" if v in "xy" else "tanh")
    graph.nodes["v"]["combine"] = pcgraph.combines.Attention(heads=1)
    graph.nodes["w"]["combine"] = pcgraph.combines.Gate()
    torch.manual_seed(0)  # a module keeps the weights that it was made with
    linear = torch.nn.Linear(4, 4, bias=False)
    graph.add_edge("a", "v", role=("key", "value"), transform=linear)
    graph.add_edge("q", "v", role="query")
    graph.add_edge("g", "w", role="gate")
    graph.add_edge("v", "w", role="value", transform=torch.nn.Flatten())
    graph.add_edges_from([("x", "a"), ("x", "q"), ("a", "g"), ("w", "y")])
    return graph


def curvatures(group: Group) -> None:
    """The power iteration begins with the same draw, whoever has which of it."""
    net, one = pair(ring(), group)
    clamps = drawn(one, "x", "y")
    for how in ({"init": Normal()}, {"init": Zero(), "precision": {"h2": 3.0}}):
        found, wanted = (n.curvature(clamps, iterations=6, **how) for n in (net, one))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0.0)  # a difference of gradients, by 1e-5


def watched(group: Group) -> None:
    """A callback sees this rank's nodes, and the energy of all, whether or not all ranks look at it."""
    net, one = pair(ring(), group)
    clamps = drawn(one, "x", "y")
    seen: dict[PCNetwork, list[Tensor]] = {net: [], one: []}

    def see(n: PCNetwork) -> Any:
        def look(step: Any) -> None:
            assert set(step.states) == {v for v in n.graph if n.holds(v)}
            if n is one or group.rank == 0:
                seen[n].append(step.energy)

        return look

    for n in (net, one):
        n.infer(clamps, init=Normal(), steps=3, optimizer=SGD(0.1), callback=see(n))
    if group.rank == 0:
        torch.testing.assert_close(torch.stack(seen[net]), torch.stack(seen[one]), **EXACT)
    results = [n.infer(clamps, init=Zero(), steps=2, optimizer=SGD(0.1), trace="nodes") for n in (net, one)]
    assert set(results[0].node_trace) == set(results[1].node_trace)
    for v, energies in results[0].node_trace.items():
        torch.testing.assert_close(energies, results[1].node_trace[v], **EXACT)


def precisions(group: Group) -> None:
    """Precisions of a run, and of each step, count where their node is."""
    net, one = pair(ring(), group)
    clamps = drawn(one, "x", "y")
    for precision in ({"h1": 0.3, "y": 2.0}, {"h2": [1.0, 0.5, 0.2, 2.0], "y": 0.5}):
        how = {"init": Normal(), "steps": 3, "optimizer": SGD(0.1), "precision": precision}
        compare_results(*(n.infer(clamps, **how) for n in (net, one)))


def going_on(group: Group) -> None:
    """Inference goes on where it ended, each rank with its own states."""
    net, one = pair(ring(), group)
    clamps = drawn(one, "x", "y")
    how = {"steps": 2, "optimizer": SGD(0.1)}
    begun = [n.infer(clamps, init=Zero(), **how) for n in (net, one)]
    ended = [n.infer(clamps, init=States(result.states), **how) for n, result in zip((net, one), begun)]
    compare_results(*ended)
    whole = one.infer(clamps, init=Zero(), steps=4, optimizer=SGD(0.1))
    torch.testing.assert_close(ended[0].energy, whole.energy, **EXACT)


def classes(group: Group) -> None:
    """Means of classes that a one-hot clamp tells."""
    net, one = pair(pcgraph.graphs.chain([3, 4, 5, 4, 2], activation="tanh"), group)
    inits = Average(forward_depth=1), Average(forward_depth=1)
    for labels in ([0, 0, 0], [0, 1, 0], [1, 0, 1]):
        clamps = {**drawn(one, "x"), "y": torch.eye(2, dtype=torch.float64)[labels]}
        for n, init in zip((net, one), inits):
            n.zero_grad()
            n.infer(clamps, init=init, steps=2, optimizer=SGD(0.1)).backward()
        same_weights(net, one, gradients=True)


class Halves(pcgraph.initializers.Initializer):
    """An initializer of a user's own, which remembers half of the last state of each node."""

    across = "nodes"

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[Any, Tensor] = {}

    def requirement(self, report: Any) -> Any:
        return report.verdicts["zero"]

    def init(self, block: Any, out: Tensor, context: Any) -> None:
        for node, rows in zip(block.nodes, out):
            rows.copy_(self.kept.get(node, torch.ones_like(rows)))

    def observe(self, result: Any) -> None:
        self.kept = {v: 0.5 * state for v, state in result.states.items()}


class Signs(pcgraph.optimizers.StateOptimizer):
    """A state optimizer of a user's own, which moves everything."""

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> None:
        state.mul_(0.9).sub_(grad.tanh() * memory["lr"])


def own_classes(group: Group) -> None:
    """Classes of a user's own are computed by parts as the library's are."""
    net, one = pair(ring(), group)
    clamps = drawn(one, "x", "y")
    inits = Halves(), Halves()
    for _ in range(2):
        how = {"steps": 3, "optimizer": Signs({"h1": 0.2, None: 0.1})}
        results = [n.infer(clamps, init=init, **how) for n, init in zip((net, one), inits)]
        compare_results(*results)
        for result in results:
            result.backward()
        del results, result


def shaken(group: Group) -> None:
    """Noise stays that of one process where a rank had nothing to move for a while."""
    net, one = pair(pcgraph.graphs.chain([3, 4, 4, 2], activation="tanh"), group)
    generators = [torch.Generator().manual_seed(3) for _ in (net, one)]
    own = [v for v in net.graph if net.partition[v] == 0]
    for known in ({"x", "y", *own}, {"x", "y"}):  # first all of the first rank's nodes
        how = {"init": Zero(), "steps": 2}
        clamps = drawn(one, *sorted(known))
        if len(clamps) == len(net.graph):
            continue
        results = [
            n.infer(clamps, optimizer=pcgraph.Langevin(0.1, generator=g), **how) for n, g in zip((net, one), generators)
        ]
        compare_results(*results)
        del results


def combined(group: Group) -> None:
    """Several parents make one prediction, from wherever they are."""
    for seed in range(3):
        net, one = pair(attentive(), group, seed)
        clamps = drawn(one, "x", "y")
        for how in ({"init": Forward()}, {"init": Normal()}):
            results = [n.infer(clamps, steps=3, optimizer=SGD(0.1), **how) for n in (net, one)]
            compare_results(*results)
            for n, result in zip((net, one), results):
                n.zero_grad()
                result.backward()
            same_weights(net, one, gradients=True)
            if net.holds("v"):
                own, other = (n.own.transform("a", "v").module.weight for n in (net, one))
                torch.testing.assert_close(own, other, **EXACT)
                torch.testing.assert_close(own.grad, other.grad, **EXACT)
            del results, result


def many() -> nx.DiGraph:
    """Edges of three kinds, of which each rank has some."""
    graph = nx.DiGraph()
    for v in ("x", "a", "b", "c", "d", "y"):
        graph.add_node(v, shape=3, activation="identity" if v in "xy" else "tanh")
    for v in ("p", "q", "r", "s"):
        graph.add_node(v, shape=1)
    nx.add_path(graph, ["x", "a", "b", "c", "d", "y"])
    nx.add_path(graph, ["p", "q", "r", "s"])
    graph.add_edges_from([("x", "b"), ("a", "c"), ("b", "d"), ("d", "p"), ("p", "s")])
    return graph


def pinned(group: Group) -> None:
    """Kernels are pinned by the names that the buckets of the whole network have, wherever their edges lie."""
    net, one = pair(many(), group)
    clamps = drawn(one, "x", "y")
    for kernel, pins in {
        "dense": {"linear_3_to_3": "dense"}, "batched": {"linear_3_to_1": "batched", "linear_3_to_3": "batched"},
        "sparse": {"linear_1_to_1": "sparse", "linear_3_to_3": "dense"},
    }.items():  # fmt: skip
        results = [n.infer(clamps, init=Normal(), steps=3, optimizer=SGD(0.1), kernels=pins) for n in (net, one)]
        compare_results(*results)
        for n, result in zip((net, one), results):
            n.zero_grad()
            result.backward()
        same_weights(net, one, gradients=True)
        backend, local = net.backend, net.backend.local(results[0].plan)
        chosen = backend.inner.kernels(local, net.own)
        for bucket, found in zip(net.own.structure.buckets, chosen):
            there = one.edge(*net.own.structure.edge(bucket.start)).place[0].removeprefix("weights.")
            assert there not in pins or found.name == pins[there], (kernel, bucket.name, found.name)
        del results, result


def handled(group: Group) -> None:
    """Every rank has handles of all edges and nodes; those of others say what was declared, and who has the rest."""
    net, one = pair(attentive(), group)
    everything = zip((*net.edges(), *net.nodes()), (*one.edges(), *one.nodes()), strict=True)
    for found, wanted in everything:
        assert (found.name, found.count, found.number) == (wanted.name, wanted.count, wanted.number)
        assert found.here == net.holds(found.home)
        if not found.here:
            there = f"on rank {net.partition[found.home]}"
            assert there in repr(found)
            if found.count:
                with pytest.raises(pcgraph.ConfigError, match=f"{there}, and this is rank {net.rank}"):
                    found.parameters()
            found.freeze()
            continue
        for mine, its in zip(found.parameters(), wanted.parameters(), strict=True):
            torch.testing.assert_close(mine.detach(), its.detach(), **EXACT)
        if found.place is not None and found.place[1] is not None:
            packed = net.get_parameter(found.place[0])[found.place[1]]
            own = found.bias if found in net.nodes() else found.weight
            torch.testing.assert_close(packed.detach(), own.detach(), **EXACT)
        found.freeze()
        assert found.frozen or not found.count
    assert not any(p.requires_grad for p in net.parameters())
    for who in (*net.edges(), *net.nodes()):
        if who.count:
            who.unfreeze()
    for n in (net, one):
        for who in (n.node("a"), n.node("v", slot="main"), n.node("y")):
            who.initialize("normal", seed=2)
    same_weights(net, one)
    text = str(net.summary())
    rows = net.summary().nodes
    assert {row[0] for row in rows} == {repr(v) for v in net.graph if net.holds(v)}
    total = sum(p.numel() for p in one.parameters())
    assert f"{sum(p.numel() for p in net.parameters()):,} parameters on rank {net.rank}, of {total:,} on all" in text
    assert "edges on other ranks" in text


def carried(group: Group) -> None:
    """Each rank takes over what it holds, of a network of one process, or one that is cut alike; a copy is its own."""
    net, one = pair(ring(), group)
    graph = ring()
    graph.add_node("new", shape=2)
    graph.add_edge("y", "new")
    other = PCNetwork(graph, seed=9, dtype=torch.float64)
    told, expected = net.load_from(other), one.load_from(other)
    same_weights(net, one)
    assert set(told.edges) == {e for e in expected.edges if net.holds(e[1])}
    assert set(told.nodes) == {v for v in expected.nodes if net.holds(v)}
    assert (told.left, told.new) == (expected.left, ())
    twin = copy.deepcopy(net)
    again = PCNetwork(ring(), seed=5, dtype=torch.float64, partition=net.partition, group=group)
    assert not again.load_from(twin).different
    clamps = drawn(one, "x", "y")
    how = {"init": Zero(), "steps": 3, "optimizer": SGD(0.1)}
    wanted = one.infer(clamps, **how)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    for copied in (twin, again):
        compare_results(copied.infer(clamps, **how), wanted)


def pictured(group: Group) -> None:
    """A picture to look into is that of one process, where a rank tells the energies of its own nodes."""
    net, one = pair(ring(), group)
    clamps = drawn(one, "x", "y")
    results = [n.infer(clamps, init=Zero(), steps=3, optimizer=SGD(0.1)) for n in (net, one)]
    titles = [
        re.findall(r"<title>([^<]*)</title>", str(pcgraph.drawing.svg(n, result=result)))
        for n, result in zip((net, one), results)
    ]
    assert len(titles[0]) == len(titles[1])
    for own, title in zip(*titles):
        v = own.split(":")[0]
        if v in ring() and "a sample" in title:
            energy = title.split("\n")[-1].split(",")[0]
            last = energy if net.holds(v) else "its energy is known on the rank that has it"
            assert own.split("\n")[-1].split(",")[0] == last
    assert sum("a sample" in title for title in titles[1]) == 4


def main(group: Group) -> None:
    for part in (
        curvatures, watched, precisions, going_on, classes, own_classes, shaken, combined, pinned, handled, carried,
        pictured,
    ):  # fmt: skip
        part(group)
