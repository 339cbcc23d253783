"""Partitions, and plans over several ranks: pure arithmetic, for which no process is started."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import pcgraph
from pcgraph import SGD, Adam, Duals, Errors, Forward, Normal, Partition, PCNetwork, Zero
from pcgraph.errors import ConfigError
from pcgraph.plan import Exchange, Machine, Plan, Ranks, verify
from pcgraph.testing.strategies import digraphs, problems

# -- cutting a graph --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(problems(graphs=digraphs(max_nodes=8)), st.integers(1, 4), st.sampled_from(("flops", "memory")), st.booleans())
def test_every_rank_gets_nodes_and_every_pin_is_kept(problem, parts, balance, by_layers) -> None:
    """Without it a rank would have nothing to do, or a node would not be where its user has put it."""
    graph = problem.graph
    assume(len(graph) >= parts)
    pinned = list(graph)[problem.seed % len(graph)]
    graph.nodes[pinned]["rank"] = problem.seed % parts
    found = pcgraph.partition(graph, parts, balance, by="layers" if by_layers else "metis")
    assert list(found) == list(graph)
    assert found.parts == parts
    assert set(found.values()) == set(range(parts))
    assert found[pinned] == problem.seed % parts
    assert dict(pcgraph.partition(graph, parts, balance, by="layers" if by_layers else "metis")) == dict(found)


def test_communities_are_not_cut_apart() -> None:
    """METIS finds what hangs together: 4 groups of 12 nodes, with one edge from each to the next."""
    graph = nx.DiGraph()
    for c in range(4):
        nodes = [(c, i) for i in range(12)]
        graph.add_nodes_from(nodes, shape=8)
        graph.add_edges_from((u, v) for u in nodes for v in nodes if u < v)
    graph.add_edges_from(((c, 11), (c + 1, 0)) for c in range(3))
    found = pcgraph.partition(graph, 4)
    assert sum(found[u] != found[v] for u, v in graph.edges) == 3
    assert pcgraph.partition(graph, 4, by="layers")[0, 0] == 0


def test_layers_are_cut_into_a_pipeline() -> None:
    graph = pcgraph.graphs.chain([16] * 9)
    found = pcgraph.partition(graph, 3, by="layers")
    assert [found[node] for node in graph] == sorted(found.values())
    assert max(np.bincount(list(found.values()))) == 3


TWO: dict[Hashable, int] = {"x": 0, "h1": 0, "h2": 1, "y": 1}
SHARED = pcgraph.graphs.chain([4, 4, 4, 4])
for edge in (("x", "h1"), ("h2", "y")):
    SHARED.edges[edge]["share"] = "w"


def gated(inner: nn.Module | None, combine: nn.Module) -> nx.DiGraph:
    """Two nodes, h1 and y, that combine what they get by one module, or by edges with one."""
    graph = pcgraph.graphs.chain([4, 4, 4, 4])
    for v, source in (("h1", "x"), ("y", "h2")):
        graph.nodes[v]["combine"] = combine
        graph.edges[source, v].update(role=("gate", "value"), **({} if inner is None else {"transform": inner}))
    return graph


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, gate: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return gate.sigmoid() * self.weight * value


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pcgraph.partition(pcgraph.graphs.chain([2, 2]), 3), r"found 2 nodes for 3 ranks"),
        (lambda: pcgraph.partition(pcgraph.graphs.chain([2, 2]), 2, "time"), "balance"),
        (lambda: pcgraph.partition(pcgraph.graphs.chain([2, 2]), 2, by="hand"), "by"),
        (lambda: pcgraph.partition(pcgraph.graphs.chain([2, 2]), 0), "parts"),
        (lambda: Partition({"x": 0, "y": 2}), "3 ranks"),
        (lambda: Partition({"x": 0, "y": 0, "z": 2}), r"found none for rank 1 of 3"),
        (lambda: Partition({"x": 0, "y": 0, "z": 4}, parts=2), r"found 4 for 'z'"),
        (lambda: Partition({"x": -1}), "the rank of 'x'"),
        (lambda: Partition({"x": True}), "the rank of 'x'"),
        (lambda: Partition(["x"]), "maps each node"),
        (lambda: cut({**TWO, "hh1": 1}), "names the node .hh1.*; did you mean .h1."),
        (lambda: cut({"x": 0, "h1": 0, "y": 1}), "has no rank for the node 'h2'"),
        (lambda: cut(TWO, SHARED), "share a weight"),
        (lambda: cut(TWO, gated(None, Weighted())), "share a weight"),
        (lambda: cut(TWO, gated(nn.Linear(4, 4, bias=False), pcgraph.combines.Gate())), "share a weight"),
        (lambda: plan_of(PCNetwork(pcgraph.graphs.chain([4, 4, 4, 4]))).explain(TWO, machine=3), "machine"),
        (lambda: Machine(flops=0), "flops"),
        (lambda: Machine(latency=-1), "latency"),
    ],
)
def test_what_is_no_partition_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_pins_that_leave_a_rank_empty_are_refused() -> None:
    graph = pcgraph.graphs.chain([2, 2, 2])
    nx.set_node_attributes(graph, 0, "rank")
    with pytest.raises(ConfigError, match="rank 1 of 2 would own no node"):
        pcgraph.partition(graph, 2)


def cut(partition: dict[Hashable, int], graph: nx.DiGraph | None = None) -> Plan:
    net = PCNetwork(pcgraph.graphs.chain([4, 4, 4, 4]) if graph is None else graph)
    return plan_of(net).across(partition)


def plan_of(net: PCNetwork, init: Any = None, steps: int = 4, **keywords: Any) -> Plan:
    return net.plan({"x", "y"}, init=init or Forward(), steps=steps, **keywords)


# -- what is exchanged ------------------------------------------------------------------------------------------------

SETTINGS: tuple[dict[str, Any], ...] = (
    {"init": Zero(), "optimizer": SGD(0.1)},
    {"init": Normal(), "optimizer": SGD(0.1)},
    {"init": Forward(fallback=Normal(), roots=Normal()), "optimizer": SGD(0.1)},
    {"init": Zero(), "optimizer": Adam(0.1)},
    {"init": Normal(), "optimizer": SGD(0.1), "coordinates": Errors(keep="repair")},
    {"init": Zero(), "optimizer": SGD(0.1), "duals": Duals(0.1)},
)


@settings(max_examples=60, deadline=None)
@given(
    problems(graphs=digraphs(max_nodes=5, slots=True), clamps="some", masks=True, rich=True),
    st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(0, 4), st.sampled_from(SETTINGS),
)  # fmt: skip
def test_what_is_exchanged_is_enough_and_no_more(problem, ranks, steps, kind) -> None:
    """A plan over ranks is proved like any other; and each message that is left out, or sent again, is missed."""
    graph = problem.graph
    net = PCNetwork(graph, seed=problem.seed)
    assume("coordinates" not in kind or not problem.masked)
    used = sorted({ranks[k] for k in range(len(graph))})
    partition = {node: used.index(ranks[k]) for k, node in enumerate(graph)}
    whole = net.plan(problem.clamped - problem.masked, masked=problem.masked, steps=steps, **kind)
    plan = whole.across(partition)
    assert verify(plan)
    assert plan.matmuls == whole.matmuls
    for forged, what in forgeries(plan):
        assert refused(forged), what


def refused(plan: Plan) -> bool:
    try:
        return not verify(plan)
    except AssertionError:
        return True


def forgeries(plan: Plan) -> Iterator[tuple[Plan, str]]:
    """Every plan with one message too few, or one too many."""
    for k, op in enumerate(plan.prologue):
        if isinstance(op, Exchange):
            for other, what in changed(plan, op):
                yield replace(plan, prologue=(*plan.prologue[:k], other, *plan.prologue[k + 1 :])), what
    for t, stage in enumerate((*plan.stages, plan.final)):
        for field in ("states", "signals"):
            ops = getattr(stage, field)
            for k, op in enumerate(ops):
                for other, what in changed(plan, op):
                    spoilt = replace(stage, **{field: (*ops[:k], other, *ops[k + 1 :])})
                    if t == len(plan.stages):
                        yield replace(plan, final=spoilt), what
                    else:
                        yield replace(plan, stages=(*plan.stages[:t], spoilt, *plan.stages[t + 1 :])), what


def changed(plan: Plan, op: Exchange) -> Iterator[tuple[Exchange, str]]:
    for k in range(len(op.nodes)):
        keep = np.arange(len(op.nodes)) != k
        yield only(op, keep), f"without {k} of {op}"
    assert plan.cut is not None
    there = {(int(n), int(r)) for n, r in zip(op.nodes, op.receiver if op.kind == "state" else op.sender)}
    for node in range(len(plan.structure.declared)):
        for rank in range(plan.cut.parts):
            home = int(plan.cut.owner[node])
            if rank != home and (node, rank) not in there:
                ends = (home, rank) if op.kind == "state" else (rank, home)
                nodes = np.append(op.nodes, node)
                more = Exchange(op.kind, nodes, np.append(op.sender, ends[0]), np.append(op.receiver, ends[1]))
                yield more, f"with {node} to {rank} more in {op}"


def only(op: Exchange, keep: np.ndarray) -> Exchange:
    return Exchange(op.kind, op.nodes[keep], op.sender[keep], op.receiver[keep])


def exchanges(plan: Plan) -> list[tuple[int, str, str, list[Any]]]:
    names = plan.structure.nodes
    return [
        (t, phase, op.kind, [names[i] for i in op.nodes])
        for t, phase, op in plan.timeline()
        if isinstance(op, Exchange) and len(op.nodes)
    ]


def test_a_chain_cut_in_two_sends_one_state_on_and_one_signal_back() -> None:
    """After a sweep the error of y reaches the cut in the second step; until then nothing is sent."""
    assert exchanges(cut(TWO)) == [
        (0, "initialize", "state", ["h1"]),
        (1, "step", "signal", ["h1"]),
        (2, "step", "state", ["h1"]), (2, "step", "signal", ["h1"]),
        (3, "step", "state", ["h1"]), (3, "step", "signal", ["h1"]),
        (4, "finish", "state", ["h1"]),
    ]  # fmt: skip


def test_clamps_and_zeros_are_never_sent() -> None:
    graph = nx.DiGraph([("x", "h"), ("x", "y"), ("h", "y")])
    nx.set_node_attributes(graph, 3, "shape")
    plan = plan_of(PCNetwork(graph), Zero(), steps=1).across({"x": 0, "h": 0, "y": 1})
    assert exchanges(plan) == [(0, "step", "signal", ["h"]), (1, "finish", "state", ["h"])]


def test_a_plan_for_one_process_sends_nothing_and_one_that_does_is_refused() -> None:
    plan = cut(TWO)
    with pytest.raises(AssertionError, match="sends something to another rank, of which there is none"):
        verify(replace(plan, cut=None))


# -- what the ranks are told to expect --------------------------------------------------------------------------------


def test_a_plan_tells_what_each_rank_computes_holds_and_sends() -> None:
    net = PCNetwork(pcgraph.graphs.chain([4, 5, 6, 3]))
    plan = plan_of(net, Zero())
    text = plan.explain(TWO, batch=10)
    ranks = Ranks(plan.across(TWO), 10)
    assert ranks.products.sum() == plan.matmuls.total
    assert ranks.flops.sum() == plan.flops(10)
    assert ranks.nodes.tolist() == [2, 2]
    # h1, of five neurons, goes on and comes back in each step
    assert [part.tolist() for part in ranks.a_step] == [[200, 200], [200, 200]]
    weights = [4 * 5 + 5, 5 * 6 + 6 + 6 * 3 + 3]
    states = [4 + 5, 6 + 3 + 5]
    assert ranks.memory.tolist() == [4 * (2 * w + 50 * n) for w, n in zip(weights, states)]
    assert "rank 0: 2 nodes" in text
    assert "sends 200 bytes and receives 200 bytes a step" in text
    assert "by a model of 20 GFLOP/s" in text
    assert plan.explain() in text


def test_the_model_knows_its_limits() -> None:
    """With messages for nothing, halves of equal work are twice as quick; with slow ones all is lost."""
    graph = nx.DiGraph()
    for k in range(2):
        graph.add_nodes_from([(k, i) for i in range(3)], shape=64)
        nx.add_path(graph, [(k, i) for i in range(3)])
    graph.add_edge((0, 0), (1, 1))
    graph.add_edge((1, 0), (0, 1))
    plan = PCNetwork(graph).plan({(0, 2), (1, 2)}, init=Zero(), steps=50)
    ranks = Ranks(plan.across({node: node[0] for node in graph}))
    assert ranks.efficiency(Machine(1e9, 1e30, 0)) == pytest.approx(1.0)
    assert ranks.efficiency(Machine(1e9, 1e9, 1.0)) < 1e-3
    alone, together = ranks.seconds(Machine(1e9, 1e30, 0))
    assert alone == pytest.approx(plan.flops(1) / 1e9)
    assert together == pytest.approx(alone / 2)


# -- why a plan is refused --------------------------------------------------------------------------------------------

REASONS = (
    "sends something to one rank twice", "between ranks of which one does not own it", "which has none yet",
    "to a rank that has it", "before, and nothing has read it", "where nothing has come back", "from one rank again",
    "does not send what came back",
)  # fmt: skip


def more_forgeries(plan: Plan) -> Iterator[Plan]:
    """Plans with a message twice in one exchange, an exchange twice, earlier, or taken from another place."""
    yield replace(plan, prologue=(*plan.prologue, *plan.prologue))
    found = [op for _, _, op in plan.timeline() if isinstance(op, Exchange) and len(op.nodes)]
    for op in found:
        twice = Exchange(op.kind, *(np.repeat(part, 2) for part in (op.nodes, op.sender, op.receiver)))
        ends = Exchange(op.kind, op.nodes, op.receiver, op.sender)
        for other in (op, twice, ends):
            if op.kind == "state":
                yield replace(plan, prologue=(other, *plan.prologue))
                yield replace(plan, prologue=(*plan.prologue, other))
            for t, stage in enumerate(plan.stages):
                field = f"{op.kind}s"
                for ops in ((*getattr(stage, field), other), (other,), ()):
                    yield replace(
                        plan, stages=(*plan.stages[:t], replace(stage, **{field: ops}), *plan.stages[t + 1 :])
                    )
            if op.kind == "state":
                yield replace(plan, final=replace(plan.final, states=(*plan.final.states, other)))
                yield replace(plan, final=replace(plan.final, states=()))


WIDE = nx.DiGraph([("x", "a"), ("a", "b"), ("a", "c"), ("b", "c"), ("c", "y"), ("a", "y")])
nx.set_node_attributes(WIDE, 3, "shape")


def test_each_reason_is_given() -> None:
    ring = nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y"), ("a", "y"), ("x", "y")])
    nx.set_node_attributes(ring, 3, "shape")
    said: set[str] = set()
    for plan in (
        cut(TWO),
        plan_of(PCNetwork(ring), Zero(), steps=3).across({"x": 0, "a": 0, "b": 1, "y": 1}),
        plan_of(PCNetwork(ring), Normal(), steps=2).across({"x": 1, "a": 0, "b": 1, "y": 0}),
        plan_of(PCNetwork(ring), Normal(), steps=3, coordinates=Errors(keep="repair"), optimizer=SGD(0.1)).across(
            {"x": 1, "a": 0, "b": 1, "y": 0}
        ),
        plan_of(PCNetwork(WIDE), Forward(), steps=4, coordinates=Errors(), optimizer=SGD(0.1)).across(
            {"x": 0, "a": 0, "b": 1, "c": 1, "y": 1}
        ),
    ):
        for forged in (*(forged for forged, _ in forgeries(plan)), *more_forgeries(plan)):
            try:
                verify(forged)
            except AssertionError as error:
                said |= {reason for reason in REASONS if reason in str(error)}
    assert said == set(REASONS)
