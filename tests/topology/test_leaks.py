"""Where a clamped node predicts itself: against brute force, and by numbers that change or do not."""

from types import SimpleNamespace

import networkx as nx
import pytest
from hypothesis import example, given, settings

from pcgraph.graphs import chain
from pcgraph.testing.strategies import digraphs, problem, problems
from pcgraph.topology import Leak, Neuron, check, verify
from pcgraph.topology.facts import LEAK_VISITS
from tests.topology.oracle import Numbers, small_problems

SMOOTH = ("identity", "tanh", "sigmoid")


def brute_force(graph, clamped):
    """The clamped nodes on a cycle of which they alone are clamped."""
    return {v for v in clamped if any(v in c for c in nx.simple_cycles(graph.subgraph({*graph} - {*clamped} | {v})))}


def comes_round(graph, clamped, node, seed):
    """Whether the prediction of a clamped node changes with its value when every free value follows its own."""
    numbers = Numbers(graph, clamped, seed)
    found = []
    for value in (numbers.values[node], numbers.values[node] + 1):
        states = {**numbers.start(), node: value}
        for _ in graph:
            states |= {v: numbers.prediction(states, v) for v in graph if v not in clamped and graph.in_degree(v)}
        found.append(numbers.prediction(states, node))
    return bool((found[0] != found[1]).any())


class TestAgainstBruteForce:
    """If it fails, a label that leaks is passed over, or a harmless graph is warned of."""

    def test_on_all_digraphs_of_three_nodes(self):
        for graph, clamped in small_problems(3):
            report = check(graph, clamped, repair=False)
            assert {leak.nodes[0] for leak in report.leaks} == brute_force(graph, clamped)
            assert len({leak.nodes[0] for leak in report.leaks}) == len(report.leaks)
            assert all(verify(graph, clamped, leak) for leak in report.leaks)

    @settings(deadline=None, max_examples=150)
    @given(problems(graphs=digraphs(max_nodes=6, max_size=1, activations=SMOOTH, parallel=True)))
    @example(problem({0: {}, 1: {}, 2: {}}, [(0, 1), (1, 2), (2, 1)], clamped=[0, 2]))
    @example(problem({0: {}, 1: {}}, [(0, 1), (1, 0), (1, 1)], clamped=[0, 1]))
    def test_a_leak_is_a_value_that_comes_round(self, p):
        p.graph.add_nodes_from(p.graph, prior=0.0)
        leaks = {leak.nodes[0] for leak in check(p.graph, p.clamped).leaks}
        assert leaks == brute_force(p.graph, p.clamped)
        for v in p.clamped:
            if p.graph.in_degree(v):
                assert (v in leaks) == comes_round(p.graph, p.clamped, v, p.seed)

    @settings(deadline=None, max_examples=60)
    @given(problems(graphs=digraphs(max_nodes=6)))
    @example(problem({0: {}, 1: {}, 2: {}}, [(0, 1), (1, 2), (2, 1)], clamped=[0, 2]))
    def test_a_leak_tampered_with_fails(self, p):
        for leak in check(p.graph, p.clamped).leaks:
            turned = leak.nodes[1:] + leak.nodes[:1]
            for false in (leak.nodes[1:], turned if len(turned) > 1 else (), (*leak.nodes, leak.nodes[0])):
                assert not verify(p.graph, p.clamped, Leak(false))
            for v in leak.nodes[1:]:
                assert not verify(p.graph, p.clamped | {v}, leak), "it would be cut there"
            assert not verify(p.graph, p.clamped - {leak.nodes[0]}, leak)


def hierarchy():
    """image <-> V1 <-> class."""
    return nx.DiGraph([("image", "V1"), ("V1", "class"), ("class", "V1"), ("V1", "image")])


class TestWarning:
    """If it fails, a network that copies its label trains to chance, and nothing says so."""

    def test_the_path_and_the_remedies_are_named(self):
        report = check(hierarchy(), {"class", "image"})
        assert report.leaks == (Leak(("image", "V1")), Leak(("class", "V1")))
        (warning,) = report.warnings
        assert warning.startswith("leak image → V1 → image; leak class → V1 → class: ")
        assert "slot" in warning
        assert "Nudged()" in warning
        assert warning in " ".join(str(report).split())
        assert report.to_dict()["leaks"] == [["image", "V1"], ["class", "V1"]]

    def test_of_phases_only_what_is_released_is_warned_of(self):
        table = str(check(hierarchy(), {"train": {"image", "class"}, "test": {"image"}}))
        assert "leak class → V1" in table
        assert "leak image" not in table

    def test_a_partial_clamp_is_released_in_part(self):
        phases = {"train": {"image": 1.0, "class": 1.0}, "test": {"image": SimpleNamespace(mask=[True])}}
        assert "leak image → V1" in str(check(hierarchy(), phases))

    @pytest.mark.parametrize(
        "graph", [chain([4, 3, 2]), nx.DiGraph([("x", "h"), ("h", "y"), ("y", "y2"), ("y2", "x")])]
    )
    def test_a_graph_without_one(self, graph):
        assert check(graph, {"x", "y"}).leaks == ()
        assert check(graph, {"x", "y"}).warnings == ()

    def test_a_target_that_predicts_itself_at_once(self):
        graph = nx.DiGraph([("x", "y"), ("y", "y")])
        assert check(graph, {"x", "y"}).leaks == (Leak(("y",)),)
        assert check(graph, {"x"}).leaks == ()

    def test_few_of_many_are_named(self):
        graph = nx.DiGraph([(f"t{i}", "h") for i in range(9)] + [("h", f"t{i}") for i in range(9)])
        (warning,) = check(graph, {f"t{i}" for i in range(9)}).warnings
        assert "leak t2 → h → t2; and 6 more: " in warning

    def test_neurons(self):
        """Two dense edges lead round; a diagonal there and back leads each neuron to itself alone."""
        graph = hierarchy()
        nx.set_node_attributes(graph, 2, "shape")
        report = check(graph, {"image", "class"}, level="neurons")
        assert {leak.nodes[0] for leak in report.leaks} == {Neuron(v, i) for v in ("image", "class") for i in range(2)}
        assert all(verify(graph, {"image", "class"}, leak, level="neurons") for leak in report.leaks)
        phases = check(graph, {"train": {"image", "class"}, "test": {"image"}}, level="neurons")
        assert "leak class[0] → V1[0] → class[0]" in " ".join(str(phases).replace("|", " ").split())
        assert "leak image" not in str(phases)
        for u, v in [("class", "V1"), ("V1", "class")]:
            graph.edges[u, v]["transform"] = "identity"
        leaks = check(graph, {"class"}, level="neurons").leaks
        assert leaks == tuple(Leak((Neuron("class", i), Neuron("V1", i))) for i in range(2))

    def test_many_suspects_in_a_large_graph_are_left_alone(self):
        """Printing a report must not take a walk through a million edges for each of a thousand targets."""
        n = 5_000
        graph = nx.DiGraph([(v, "h") for v in range(n)] + [("h", v) for v in range(n)])
        report = check(graph, range(n))
        assert n * (n + graph.number_of_edges()) > LEAK_VISITS
        assert report.warnings == ()
        assert report.to_dict()["leaks"] is None
        few = check(graph, range(3))
        assert [leak.nodes for leak in few.leaks] == [(v, "h") for v in range(3)]
        assert len(few.warnings) == 1
