"""The level of neurons, against the same graph with every neuron and every dense edge written out."""

from itertools import permutations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pcgraph import PCNetwork
from pcgraph.errors import ClampError, GraphError
from pcgraph.testing.strategies import digraphs, problem, problems
from pcgraph.topology import Budget, FreeCycle, Neuron, NotSupplied, SweepOrder, check, verify
from pcgraph.transforms import MaskedLinear, SparseLinear

SOME = settings(deadline=None, max_examples=60)


class Stored:
    """A sparse transform, as far as the checker looks at it."""

    def __init__(self, pairs):
        self.pairs = pairs

    def entries(self, source_shape, target_shape):
        return torch.tensor(self.pairs, dtype=torch.int64).reshape(-1, 2).T


class Dense:
    def entries(self, source_shape, target_shape):
        return None


class Masked:
    def __init__(self, mask):
        self.mask = mask


def triangular(n):
    return Stored([(i, j) for i in range(n) for j in range(i + 1, n)])


def written_out(graph, clamped):
    """Neurons as nodes, every pair as an edge; a neuron that only its bias predicts has a known value."""
    flat = nx.DiGraph()
    for v, data in graph.nodes(data=True):
        for i in range(data["shape"]):
            flat.add_node((v, i), **({"prior": 0.0} if graph.in_degree(v) or "prior" in data else {}))
    for u, v, data in graph.edges(data=True):
        transform = data.get("transform")
        m, n = graph.nodes[u]["shape"], graph.nodes[v]["shape"]
        pairs = transform.pairs if isinstance(transform, Stored) else [(i, j) for i in range(m) for j in range(n)]
        if transform == "identity":
            pairs = [(i, i) for i in range(min(m, n))]
        flat.add_edges_from(((u, i), (v, j)) for i, j in pairs)
    fixed = set()
    for v in clamped:
        mask = getattr(clamped[v], "mask", None) if isinstance(clamped, dict) else None
        size = graph.nodes[v]["shape"]
        fixed |= {(v, i) for i in range(size) if mask is None or mask[i]}
    return flat, fixed


@st.composite
def sparse_problems(draw):
    """Problems in which some edges store only some entries, and some clamps hold only some neurons."""
    p = draw(problems(graphs=digraphs(max_nodes=5, priors=True, activations=["identity"])))
    for u, v, data in p.graph.edges(data=True):
        m, n = p.graph.nodes[u]["shape"], p.graph.nodes[v]["shape"]
        pairs = st.lists(st.tuples(st.integers(0, m - 1), st.integers(0, n - 1)), max_size=4)
        transform = draw(st.one_of(st.none(), st.just("linear"), st.builds(Stored, pairs)))
        if transform is not None:
            data["transform"] = transform
    clamped = {}
    for v in p.graph:
        if v in p.clamped:
            size = p.graph.nodes[v]["shape"]
            mask = draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size))
            clamped[v] = object() if mask is None else Masked(np.array(mask))
    return p.graph, clamped


def plain(nodes):
    return {(v.node, v.index) for v in nodes}


class TestAgainstTheGraphWrittenOut:
    @settings(deadline=None, max_examples=150)
    @given(sparse_problems())
    def test_every_fact_is_the_same(self, pair):
        graph, clamped = pair
        report = check(graph, clamped, level="neurons", repair=Budget(seconds=None))
        flat, fixed = written_out(graph, clamped)
        other = check(flat, fixed, repair=Budget(seconds=None))
        assert report.theorem_1 == other.theorem_1
        assert (report.cycle and len(report.cycle)) == (other.cycle and len(other.cycle))
        assert (report.graph_cycle is None) == (other.graph_cycle is None)
        assert {(v.node, v.index): d for v, d in report.depth.items()} == other.depth
        assert plain(report.forward_reachable) == other.forward_reachable
        assert plain(report.free_roots) == set(other.free_roots)
        assert plain(leak.nodes[0] for leak in report.leaks) == {leak.nodes[0] for leak in other.leaks}
        assert report.verdicts["errors"].valid == other.verdicts["errors"].valid
        assert set(map(frozenset, map(plain, report.components))) == set(other.components)
        assert len(report.repair) == len(other.repair)
        assert report.repair_is_minimal
        assert check(flat, fixed | plain(report.repair)).theorem_1

    @settings(deadline=None, max_examples=150)
    @given(sparse_problems(), st.data())
    def test_every_witness_passes_verify(self, pair, data):
        graph, clamped = pair
        report = check(graph, clamped, level="neurons")
        witnesses = [v.witness for v in report.verdicts.values() if v.witness is not None]
        some = st.frozensets(st.sampled_from(report.nodes))
        witnesses.append(report.sweep(data.draw(some), data.draw(some)))
        witnesses += [*report.leaks, report.error_coordinates(data.draw(some)).witness]
        for witness in [*witnesses, report.repair_witness]:
            assert verify(graph, clamped, witness, level="neurons"), witness

    @SOME
    @given(problems(graphs=digraphs(max_nodes=6, max_size=1, priors=True)))
    @example(problem({0: {"shape": 1}, 1: {"shape": 1}}, [(0, 1), (1, 1)], clamped=[0]))
    def test_single_dense_neurons_are_their_groups(self, p):
        groups, neurons = check(p.graph, p.clamped), check(p.graph, p.clamped, level="neurons")
        assert neurons.theorem_1 == groups.theorem_1
        assert neurons.proposition_3_2 == groups.proposition_3_2
        assert {v.node: d for v, d in neurons.depth.items()} == groups.depth
        assert (neurons.cycle and [v.node for v in neurons.cycle]) == (groups.cycle or None) or len(
            neurons.cycle
        ) == len(groups.cycle)


class TestExamples:
    def test_a_strictly_triangular_self_connection_is_acyclic(self):
        graph = nx.DiGraph()
        graph.add_node("x", shape=2)
        graph.add_node("h", shape=4)
        graph.add_edge("x", "h")
        graph.add_edge("h", "h", transform=triangular(4))
        groups, neurons = check(graph, {"x"}), check(graph, {"x"}, level="neurons")
        assert groups.cycle == ["h"]
        assert not groups.proposition_3_2
        assert neurons.proposition_3_2
        assert neurons.order == tuple(Neuron("h", i) for i in range(4))
        assert neurons.depth[Neuron("h", 3)] == 4
        assert verify(graph, {"x"}, SweepOrder(neurons.order), level="neurons")
        backwards = SweepOrder(neurons.order[::-1])
        assert not verify(graph, {"x"}, backwards, level="neurons")

    def test_a_dense_self_connection_is_a_loop_of_one_neuron(self):
        graph = nx.DiGraph([("x", "h"), ("h", "h")])
        nx.set_node_attributes(graph, {"x": 1, "h": (2, 3)}, "shape")
        graph.edges["h", "h"]["transform"] = Dense()
        report = check(graph, {"x"}, level="neurons")
        assert report.cycle == [Neuron("h", 0)]
        assert len(report.repair) == 6
        assert report.repair_is_minimal
        assert verify(graph, {"x"}, FreeCycle((Neuron("h", 0),)), level="neurons")
        assert str(Neuron("h", 0)) == "h[0]"

    def test_a_loop_is_shorter_than_a_pair_declared_before_it(self):
        graph = nx.DiGraph()
        graph.add_nodes_from("abc", shape=1)
        graph.add_edge("a", "b", transform=Stored([(0, 0)]))
        graph.add_edge("b", "a", transform=Stored([(0, 0)]))
        graph.add_edge("c", "c")
        assert check(graph, (), level="neurons").cycle == [Neuron("c", 0)]

    def test_two_dense_groups_that_predict_each_other(self):
        graph = nx.DiGraph([("a", "b"), ("b", "a")])
        nx.set_node_attributes(graph, {"a": 40, "b": 50}, "shape")
        report = check(graph, (), level="neurons")
        assert len(report.cycle) == 2
        assert len(report.repair) == 40
        assert report.repair_is_minimal

    @pytest.mark.parametrize(
        ("edges", "smallest"),
        [
            (permutations(range(3), 2), 6),
            (permutations(range(4), 2), 9),
            ([(0, 2), (1, 0), (1, 2), (2, 0), (2, 1)], 3),
        ],
    )
    def test_of_dense_groups_in_a_cycle_one_is_taken_whole(self, edges, smallest):
        """The search passes over neurons here, but never takes a hub: what is left of a cycle of two would stay."""
        graph = nx.DiGraph(edges)
        nx.set_node_attributes(graph, 3, "shape")
        report = check(graph, (), level="neurons", repair=Budget(seconds=None, nodes=20_000))
        assert report.repair_is_minimal
        assert len(report.repair) == smallest
        assert report.sweep(initialised=report.repair).complete

    def test_identity_is_diagonal(self):
        graph = nx.DiGraph()
        graph.add_nodes_from("ab", shape=3)
        graph.add_edge("a", "b", transform="identity")
        graph.add_edge("b", "a", transform=Stored([(0, 1), (1, 2)]))
        report = check(graph, (), level="neurons")
        assert report.cycle is None
        assert report.depth[Neuron("b", 2)] == 5
        graph.edges["b", "a"]["transform"] = Stored([(0, 1), (1, 0)])
        assert len(check(graph, (), level="neurons").cycle) == 4

    def test_parallel_edges_add_their_entries(self):
        graph = nx.MultiDiGraph()
        graph.add_nodes_from("ab", shape=2)
        graph.add_edge("a", "b", transform=Stored([(0, 0)]))
        graph.add_edge("a", "b", transform=Stored([(0, 1)]))
        graph.add_edge("b", "a", transform=Stored([(1, 0)]))
        report = check(graph, (), level="neurons")
        assert set(report.cycle) == {Neuron("a", 0), Neuron("b", 1)}
        assert verify(graph, (), report.verdicts["forward"].witness, level="neurons")
        assert not verify(graph, (), FreeCycle((Neuron("a", 0), Neuron("b", 0))), level="neurons")

    def test_a_network_says_what_its_edges_store(self):
        class Net:
            graph = nx.MultiDiGraph([("h", "h"), ("x", "h")])

            def transform(self, u, v, key=None):
                return triangular(3) if u == v else Dense()

        nx.set_node_attributes(Net.graph, {"x": 1, "h": 3}, "shape")
        report = check(Net(), {"x"}, level="neurons")
        assert report.theorem_1
        assert verify(Net(), {"x"}, SweepOrder(report.order), level="neurons")

    @pytest.mark.parametrize(
        "transform",
        [SparseLinear(torch.triu_indices(4, 4, 1)), MaskedLinear(torch.ones(4, 4, dtype=torch.bool).tril(-1))],
    )
    def test_true_transforms_in_a_true_network(self, transform):
        """Entries are (source, target) and a mask is (target, source): read the other way, the loop would be there."""
        graph = nx.DiGraph()
        graph.add_node("x", shape=2)
        graph.add_node("h", shape=4, activation="tanh")
        graph.add_node("i", shape=4)
        graph.add_edge("x", "h")
        graph.add_edge("h", "h", transform=transform)
        graph.add_edge("h", "i", transform="identity")
        net = PCNetwork(graph, seed=0)
        assert check(net, {"x"}).cycle == ["h"]
        report = check(net, {"x"}, level="neurons")
        assert [v for v in report.order if v.node == "h"] == [Neuron("h", i) for i in range(4)]
        assert report.depth[Neuron("i", 3)] == 5
        for declared in (net, graph):
            assert verify(declared, {"x"}, SweepOrder(report.order), level="neurons")

    @pytest.mark.parametrize("mask", [[True, False], [[True, False], [True, True]], torch.tensor([True, False])])
    def test_a_partial_clamp_fixes_what_every_sample_fixes(self, mask):
        graph = nx.DiGraph([("x", "h")])
        nx.set_node_attributes(graph, 2, "shape")
        clamped = {"x": Masked(mask)}
        report = check(graph, clamped, level="neurons")
        assert report.free_roots == (Neuron("x", 1),)
        assert verify(graph, clamped, report.sweep(), level="neurons")

    def test_a_group_stands_for_its_neurons(self):
        graph = nx.DiGraph([("x", "h"), ("h", "g")])
        nx.set_node_attributes(graph, 2, "shape")
        report = check(graph, {"x"}, level="neurons")
        assert report.sweep(among=["h"]).order == (Neuron("h", 0), Neuron("h", 1))
        outside = report.sweep(among=[Neuron("g", 1)])
        assert outside.witness == NotSupplied(Neuron("g", 1), Neuron("h", 0))
        assert verify(graph, {"x"}, outside, level="neurons")

    def test_a_tuple_is_no_neuron(self):
        graph = nx.DiGraph([("x", ("x", 0))])
        nx.set_node_attributes(graph, 1, "shape")
        assert check(graph, {"x"}, level="neurons").order == (Neuron(("x", 0), 0),)


class TestInput:
    def graph(self, **attributes):
        graph = nx.DiGraph([("x", "h")])
        nx.set_node_attributes(graph, 2, "shape")
        graph.edges["x", "h"].update(attributes)
        return graph

    @pytest.mark.parametrize("shape", [None, "two", 0, (2, 0)])
    def test_shapes_are_needed(self, shape):
        graph = self.graph()
        graph.nodes["h"]["shape"] = shape
        with pytest.raises(GraphError, match="'h'") as caught:
            check(graph, {"x"}, level="neurons")
        assert caught.value.where == "h"
        assert check(graph, {"x"}).theorem_1, "groups need no shapes"

    @pytest.mark.parametrize("pairs", [[(2, 0)], [(0, 2)], [(-1, 0)]])
    def test_entries_outside(self, pairs):
        with pytest.raises(GraphError, match="entries"):
            check(self.graph(transform=Stored(pairs)), {"x"}, level="neurons")

    def test_mask_of_another_shape(self):
        with pytest.raises(ClampError, match="mask"):
            check(self.graph(), {"x": Masked([True, False, True])}, level="neurons")

    def test_unknown_neuron(self):
        report = check(self.graph(), {"x"}, level="neurons")
        with pytest.raises(GraphError, match="neuron"):
            report.sweep(initialised=[Neuron("h", 2)])


def test_dense_edges_cost_their_ends_and_sparse_ones_their_entries():
    graph = nx.DiGraph()
    graph.add_node("x", shape=300_000)
    graph.add_node("h", shape=300_000)
    graph.add_node("s", shape=1000)
    graph.add_edge("x", "h")
    graph.add_edge("h", "s", transform=Stored([(i, i % 1000) for i in range(0, 300_000, 7)]))
    report = check(graph, {"x"}, level="neurons")
    assert report.theorem_1
    assert report.edge_count == 300_000 * 2 + len(range(0, 300_000, 7))
