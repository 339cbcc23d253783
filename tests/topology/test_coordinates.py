"""Error coordinates: for which graphs, clamps and kept states they exist, by brute force and by numbers."""

from itertools import count, permutations

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pcgraph.errors import ConfigError, GraphError, InvalidInitializer
from pcgraph.graphs import chain, decoder, figure_9
from pcgraph.testing.strategies import digraphs, problem, problems
from pcgraph.topology import Budget, ErrorCoordinates, FreeCycle, Neuron, check, verify
from tests.topology.oracle import Numbers, small_problems, subsets

SMOOTH = ("identity", "tanh", "sigmoid")
SCALAR = problems(graphs=digraphs(max_nodes=6, max_size=1, activations=SMOOTH, priors=True))
loop = problem({0: {}, 1: {}, 2: {}}, [(0, 1), (1, 2), (2, 1)], clamped=[0])


def roots(graph, clamped):
    """The free nodes without a prediction: they have no error that could take the place of their state."""
    return {v for v in graph if v not in clamped and graph.in_degree(v) == 0}


def exist(graph, clamped, kept):
    """Whether some order of the nodes whose variable is the error has every prediction known in its turn."""
    rest = {*graph} - {*clamped} - {*kept} - roots(graph, clamped)

    def works(order):
        return all(u not in rest or u in order[:i] for i, v in enumerate(order) for u in graph.predecessors(v))

    return any(map(works, permutations(rest)))


def restored(numbers, order, errors):
    """States from errors along an order: h = mu + error; the states of the others are given."""
    states = {v: value.copy() for v, value in numbers.values.items()}
    for v in order:
        states[v] = numbers.prediction(states, v) + errors[v]
    return states


def round_trip(graph, clamped, order, seed):
    """Whether the errors of the restored states are those that they were restored from: the energy is the same."""
    numbers = Numbers(graph, clamped, seed)
    errors = {v: np.random.default_rng(seed).normal(size=numbers.size(v)) for v in order}
    found = numbers.errors(restored(numbers, order, errors))
    return all(np.allclose(found[v], errors[v], rtol=0, atol=1e-12) for v in order)


class TestExistence:
    """If it fails, inference in errors is refused where it is sound, or runs where it is not."""

    def test_on_all_digraphs_of_three_nodes_with_every_set_kept(self):
        for graph, clamped in small_problems(3):
            report = check(graph, clamped, repair=False)
            free = {*graph} - clamped
            for kept in subsets(free):
                verdict = report.error_coordinates(kept)
                assert verdict.valid == exist(graph, clamped, kept)
                assert verify(graph, clamped, verdict.witness), verdict
                if verdict.valid:
                    assert verdict.witness.kept == kept | roots(graph, clamped)
                    assert {*verdict.witness.order} == free - verdict.witness.kept
                else:
                    assert kept.isdisjoint(verdict.witness.nodes), "the cycle is of nodes that are not kept"
            assert report.verdicts["errors"] == report.error_coordinates()

    @settings(deadline=None, max_examples=100)
    @given(SCALAR, st.data())
    @example(loop, None)
    def test_the_states_have_the_errors_that_they_are_restored_from(self, p, data):
        kept = frozenset({1}) if data is None else data.draw(st.frozensets(st.sampled_from(list(p.graph)))) - p.clamped
        verdict = check(p.graph, p.clamped).error_coordinates(kept)
        if verdict.valid:
            assert round_trip(p.graph, p.clamped, verdict.witness.order, p.seed)
            assert verify(p.graph, p.clamped, verdict.witness)
        else:
            rest = [v for v in p.free if v not in kept and p.graph.in_degree(v)]
            assert not any(round_trip(p.graph, p.clamped, order, p.seed) for order in permutations(rest))

    @settings(deadline=None, max_examples=100)
    @given(SCALAR)
    @example(loop)
    def test_repair_keeps_as_few_as_can_be(self, p):
        free_roots = roots(p.graph, p.clamped)
        fewest = next(s for s in subsets(p.free) if exist(p.graph, p.clamped, s))
        for report in (check(p.graph, p.clamped, repair=Budget(seconds=None)), check(p.graph, p.clamped, repair=False)):
            verdict = report.error_coordinates(keep="repair")
            assert verdict.valid
            assert verify(p.graph, p.clamped, verdict.witness)
            assert len(verdict.witness.kept) == len(fewest | free_roots)
            assert report.error_coordinates(verdict.witness.kept).witness == verdict.witness


class TestWitness:
    """If it fails, coordinates that compute something else pass for proved."""

    @settings(deadline=None, max_examples=100)
    @given(SCALAR)
    @example(loop)
    def test_one_tampered_with_fails(self, p):
        witness = check(p.graph, p.clamped).error_coordinates(keep="repair").witness
        order, kept = witness.order, witness.kept
        for v in order:
            less = tuple(u for u in order if u != v)
            assert not verify(p.graph, p.clamped, ErrorCoordinates(less, kept)), "a node without a variable"
            assert not verify(p.graph, p.clamped, ErrorCoordinates(order, kept | {v})), "a node with two"
            assert not verify(p.graph, p.clamped, ErrorCoordinates((*order, v), kept)), "a node twice"
        for v in kept:
            if p.graph.in_degree(v) == 0 or p.graph.has_edge(v, v):
                for i in range(len(order) + 1):
                    more = (*order[:i], v, *order[i:])
                    assert not verify(p.graph, p.clamped, ErrorCoordinates(more, kept - {v})), "no prediction in time"
        for v in p.clamped:
            assert not verify(p.graph, p.clamped, ErrorCoordinates(order, kept | {v}))
            assert not verify(p.graph, p.clamped, ErrorCoordinates((*order, v), kept))
        for i in range(len(order) - 1):
            swapped = (*order[:i], order[i + 1], order[i], *order[i + 2 :])
            edge = p.graph.has_edge(order[i], order[i + 1])
            assert verify(p.graph, p.clamped, ErrorCoordinates(swapped, kept)) != edge
        assert not verify(p.graph, p.clamped, ErrorCoordinates(order, kept | {"nowhere"}))
        assert not verify(p.graph, p.clamped, ErrorCoordinates((*order, "nowhere"), kept))


class TestVerdict:
    def test_a_chain(self):
        verdict = check(chain([4, 3, 3, 2]), {"x", "y"}).verdicts["errors"]
        assert verdict.witness == ErrorCoordinates(("h1", "h2"))
        assert verdict.message == "Errors() holds: no cycle of free nodes."
        assert str(verdict.witness) == "order h1, h2"
        assert str(check(chain([4, 2]), {"x", "y"}).verdicts["errors"].witness) == "no error"

    def test_a_root_keeps_its_state(self):
        verdict = check(decoder([2, 3, 4]), {"x"}).verdicts["errors"]
        assert verdict.witness == ErrorCoordinates(("h1",), frozenset({"h0"}))
        assert "of h0 the state is kept" in verdict.reason

    def test_a_cycle_is_refused_with_the_remedy_that_works(self):
        report = check(figure_9("bottom"), {0})
        verdict = report.verdicts["errors"]
        with pytest.raises(InvalidInitializer, match="found the free cycle 1 → 2 → 4 → 3 → 1") as caught:
            verdict.require()
        assert caught.value.witness == FreeCycle((1, 2, 4, 3))
        assert 'Use Errors(keep="repair")' in verdict.remedy
        hybrid = report.error_coordinates(keep="repair")
        assert hybrid.witness == ErrorCoordinates((2, 4, 3, 5), frozenset({1}))
        assert hybrid.initializer == 'Errors(keep="repair")'
        assert "of node 1 the state is kept" in hybrid.reason
        assert not report.error_coordinates(keep={5}).valid
        assert "needs a kept node on every cycle" in report.error_coordinates(keep={5}).reason
        assert "Errors() needs a clamp on every cycle" in " ".join(str(report).split())

    def test_what_is_clamped_need_not_be_kept(self):
        verdict = check(figure_9("bottom"), {0, 1}).error_coordinates(keep={0, 1, 2})
        assert verdict.witness == ErrorCoordinates((4, 3, 5), frozenset({2}))

    @pytest.mark.parametrize("keep", ["h", "greedy", b"x", 3, None])
    def test_keep_is_a_collection(self, keep):
        with pytest.raises(ConfigError, match=r'keep must be (a collection of nodes, .* or "repair"|names of nodes)'):
            check(figure_9("bottom"), {0}).error_coordinates(keep)

    def test_keep_names_nodes(self):
        with pytest.raises(GraphError, match="did you mean h1"):
            check(chain([4, 3, 2]), {"x"}).error_coordinates({"h11"})

    def test_neurons(self):
        graph = nx.DiGraph([("x", "h"), ("h", "h")])
        nx.set_node_attributes(graph, 3, "shape")
        report = check(graph, {"x"}, level="neurons")
        assert not report.verdicts["errors"].valid
        hybrid = report.error_coordinates(keep={"h"})
        assert hybrid.witness == ErrorCoordinates((), frozenset(Neuron("h", i) for i in range(3)))
        assert verify(graph, {"x"}, hybrid.witness, level="neurons")
        assert verify(graph, {"x"}, report.error_coordinates("repair").witness, level="neurons")

    def test_a_search_without_a_budget_is_the_same_on_every_machine(self, monkeypatch):
        """A run that is resumed elsewhere must move the same variables."""
        hours = count(step=3600.0)
        monkeypatch.setattr("time.monotonic", lambda: next(hours))
        for seed in range(40):
            graph = nx.gnp_random_graph(14, 0.22, seed=seed, directed=True)
            kept = check(graph, (), repair=False).error_coordinates("repair").witness.kept
            smallest = check(graph, (), repair=Budget(seconds=None)).repair
            assert len(kept) == len(smallest | roots(graph, ()))
