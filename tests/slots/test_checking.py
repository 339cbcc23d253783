"""The checker on graphs with slots: sweeps know main predictions alone, and Proposition 3.2 as printed all edges."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings

from pcgraph import PCNetwork
from pcgraph.testing.strategies import cyclic_digraphs, digraphs, problems
from pcgraph.topology import (
    FreeRoot,
    GraphCycle,
    GraphOrder,
    Neuron,
    SweepOrder,
    UnclampedRoot,
    check,
    verify,
)
from tests.slots.builders import helpers
from tests.slots.test_declaring import hierarchy

MANY = settings(deadline=None, max_examples=150)
SLOTTED = problems(graphs=digraphs(max_nodes=6, priors=True, slots=True))
PARALLEL = problems(graphs=cyclic_digraphs(max_nodes=6, priors=True, parallel=True, slots=True))


def test_feedback_in_slots_leaves_a_sweep():
    """That is what slots are for: a hierarchy with all its feedback trains from a forward sweep."""
    report = check(hierarchy(), {"image", "class"})
    assert report.order == ("V1", "V2")
    assert not report.proposition_3_2
    assert report.graph_cycle == ["V2"]
    assert report.cycle is None
    assert report.verdicts["forward"].valid
    assert report.verdicts["forward"].witness == GraphOrder(("image", "V1", "V2", "class"), slots=False)
    assert report.verdicts["errors"].valid
    assert report.leaks == ()
    said = " ".join(str(report).split())
    assert "Proposition 3.2: does not hold: cycle V2 → V2 (all edges); of main predictions alone it holds" in said
    plain = hierarchy()
    nx.set_edge_attributes(plain, None, "slot")
    assert check(plain, {"image"}).cycle == ["V2"]


def test_a_node_with_slots_alone_is_a_root_without_a_value():
    """Its slot says what its state should be near, and not what it is: a sweep cannot start there."""
    report = check(hierarchy(), {"class"})
    assert report.free_roots == ("image",)
    assert report.sweep().witness == FreeRoot("image")
    assert report.verdicts["forward"].witness == UnclampedRoot("image", slots=False)
    assert report.claim(slots=True) == GraphCycle(("V2",))
    assert verify(hierarchy(), {"class"}, FreeRoot("image"))
    assert verify(hierarchy(), {"class"}, UnclampedRoot("image", slots=False))
    assert not verify(hierarchy(), {"class"}, UnclampedRoot("image"))
    graph = hierarchy()
    graph.nodes["image"]["prior"] = 0.0
    assert check(graph, {"class"}).order == ("image", "V1", "V2")
    lonely = nx.DiGraph([("a", "b", {"slot": "s"})])
    lonely.nodes["b"]["slots"] = {"s": {}}
    report = check(lonely, {"a"})  # nothing reads b, and its slot has an error all the same
    assert report.free_roots == ("b",)
    assert report.isolated == ()
    assert report.warnings == ()
    assert report.theorem_1 is False


def test_the_printed_proposition_counts_slots_where_there_is_no_cycle():
    graph = nx.DiGraph([("a", "b"), ("a", "c", {"slot": "s"}), ("c", "d")])
    graph.nodes["c"]["slots"] = {"s": {}}
    report = check(graph, {"a"})
    assert report.proposition_3_2  # c is no root of the graph of all edges
    assert report.claim(slots=True) == GraphOrder(("a", "b", "c", "d"))
    assert not report.verdicts["forward"].valid
    assert report.verdicts["forward"].witness == UnclampedRoot("c", slots=False)


@MANY
@given(SLOTTED)
def test_sweeps_are_those_of_the_same_energy_without_slots(p):
    """Each slot as a clamped node that reads its owner: then there is nothing but Theorem 1 as it was."""
    twin, nodes = helpers(p.graph)
    report, other = check(p.graph, p.clamped), check(twin, p.clamped | nodes)
    assert report.theorem_1 == other.theorem_1
    assert report.free_roots == other.free_roots
    assert report.forward_reachable == other.forward_reachable
    assert (report.cycle is None) == (other.cycle is None)
    assert report.cycle is None or len(report.cycle) == len(other.cycle)
    assert len(report.repair) == len(other.repair)
    assert {leak.nodes[0] for leak in report.leaks} == {leak.nodes[0] for leak in other.leaks}
    assert {v: d for v, d in other.depth.items() if v not in nodes} == report.depth
    assert report.isolated == other.isolated
    assert report.verdicts["errors"].valid == other.verdicts["errors"].valid
    for v in p.graph:
        assert report.ancestors(v) == other.ancestors(v)
    roots = {v for v in p.graph if p.graph.in_degree(v) == 0}
    assert report.proposition_3_2 == (nx.is_directed_acyclic_graph(p.graph) and roots <= p.clamped)


@MANY
@given(PARALLEL)
def test_every_witness_is_checked_again(p):
    """By code of its own, which reads slots of its own."""
    report = check(p.graph, p.clamped)
    found = [verdict.witness for verdict in report.verdicts.values() if verdict.witness is not None]
    claims = [report.claim(slots=True), report.claim(slots=False), report.sweep(), report.repair_witness, *report.leaks]
    for witness in (*found, *claims):
        assert verify(p.graph, p.clamped, witness), witness
    main = report.claim(slots=False)
    assert isinstance(main, GraphOrder) == report.verdicts["forward"].valid


@settings(deadline=None, max_examples=60)
@given(problems(graphs=digraphs(max_nodes=5, priors=True, slots=True)))
def test_neurons_are_checked_as_groups_are_where_every_edge_is_dense(p):
    groups, neurons = check(p.graph, p.clamped), check(p.graph, p.clamped, level="neurons")
    assert groups.theorem_1 == neurons.theorem_1
    assert groups.proposition_3_2 == neurons.proposition_3_2
    sizes = {v: p.graph.nodes[v]["shape"] for v in p.graph}
    assert set(neurons.free_roots) == {Neuron(v, i) for v in groups.free_roots for i in range(sizes[v])}
    for verdict in neurons.verdicts.values():
        assert verdict.witness is None or verify(p.graph, p.clamped, verdict.witness, level="neurons")


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (GraphOrder(("image", "V1", "V2", "class"), slots=False), True),
        (GraphOrder(("image", "V1", "V2", "class")), False),
        (GraphOrder(("image", "V2", "V1", "class"), slots=False), False),
        (GraphCycle(("V1", "V2")), True),
        (GraphCycle(("V1", "V2"), slots=False), False),
        (SweepOrder(("V1", "V2")), True),
        (SweepOrder(("V2", "V1")), False),
    ],
)
def test_false_claims_are_refused(claim, holds):
    assert verify(hierarchy(), {"image", "class"}, claim) is holds
    assert verify(PCNetwork(hierarchy()), {"image", "class"}, claim) is holds
