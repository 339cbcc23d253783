"""The strategies users test with: every draw is what its name says, and a failing one shrinks to the bone."""

import networkx as nx
import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, settings

import pcgraph
from pcgraph.testing import strategies
from pcgraph.testing.strategies import cyclic_digraphs, dags, digraphs, problems

FEW = settings(deadline=None, max_examples=60)
HUNT = settings(
    deadline=None, max_examples=3000, database=None, derandomize=True, suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)  # fmt: skip


def smallest(strategy, wanted):
    """The value that Hypothesis shows for a fault seen exactly in `wanted` ones."""
    return find(strategy, wanted, settings=HUNT)


class TestWhatIsDrawn:
    @FEW
    @given(dags(min_nodes=2, max_nodes=6, max_parents=2, max_size=4, activations=["relu"]))
    def test_dags_are_acyclic_and_within_bounds(self, graph):
        assert nx.is_directed_acyclic_graph(graph)
        assert type(graph) is nx.DiGraph
        assert list(graph) == list(range(len(graph)))
        assert 2 <= len(graph) <= 6
        assert all(d <= 2 for _, d in graph.in_degree())
        assert all(1 <= data["shape"] <= 4 and data["activation"] == "relu" for _, data in graph.nodes(data=True))
        assert not any("prior" in data for _, data in graph.nodes(data=True))

    @FEW
    @given(cyclic_digraphs(max_nodes=5), cyclic_digraphs(max_nodes=2, self_loops=False))
    def test_cyclic_ones_have_a_cycle(self, loops, plain):
        assert not nx.is_directed_acyclic_graph(loops)
        assert len(loops) <= 5
        assert not nx.is_directed_acyclic_graph(plain)
        assert nx.number_of_selfloops(plain) == 0

    @FEW
    @given(digraphs(self_loops=False, max_nodes=5), digraphs(parallel=True, priors=True))
    def test_loops_parallel_edges_and_priors_only_where_asked_for(self, plain, multi):
        assert nx.number_of_selfloops(plain) == 0
        assert isinstance(multi, nx.MultiDiGraph)
        for v, data in multi.nodes(data=True):
            assert "prior" not in data or multi.in_degree(v) == 0

    @FEW
    @given(problems(graphs=dags() | digraphs() | cyclic_digraphs(), clamps="sweepable"))
    def test_sweepable_clamps_cut_every_cycle_and_hold_every_root(self, p):
        assert p.clamped >= {v for v in p.graph if p.graph.in_degree(v) == 0}
        assert nx.is_directed_acyclic_graph(p.graph.subgraph(p.free))

    @FEW
    @given(problems(clamps="roots", max_seed=3))
    def test_root_clamps_and_seeds(self, p):
        assert p.clamped >= {v for v in p.graph if p.graph.in_degree(v) == 0}
        assert 0 <= p.seed <= 3

    @FEW
    @given(problems(graphs=digraphs(priors=True, parallel=True), clamps="some", rich=True, masks=True))
    def test_whatever_is_drawn_can_be_run(self, p):
        """What infer refuses tests nothing: something is clamped, and has a value of its shape."""
        assert p.clamped
        assert p.masked <= p.clamped
        net = p.network()
        clamps = p.clamps(net)
        assert clamps.keys() == p.clamped
        result = net.infer(clamps, init=pcgraph.Zero(), steps=2, optimizer=pcgraph.SGD(0.05))
        assert torch.isfinite(result.energy).all()
        for v, clamp in clamps.items():
            if v in p.masked:
                assert torch.equal(result.states[v][clamp.mask], clamp.values[clamp.mask])
            else:
                assert torch.equal(result.states[v], clamp)

    @pytest.mark.parametrize(
        ("wanted", "seen"),
        [
            (lambda p: any("energy" in d for _, d in p.graph.nodes(data=True)), "'energy': 'learned_precision'"),
            (lambda p: any("transform" in d for *_, d in p.graph.edges(data=True)), "'transform': 'identity'"),
            (lambda p: bool(p.masked), "masked=[0]"),
        ],
    )
    def test_what_is_rich_shrinks_to_the_one_mark_that_matters(self, wanted, seen):
        found = repr(smallest(problems(clamps="some", rich=True, masks=True), wanted))
        assert seen in found
        assert len(found) < 120

    @FEW
    @given(problems(graphs=digraphs(priors=True)) | problems(graphs=digraphs(parallel=True), rich=True, masks=True))
    def test_repr_is_the_code_that_makes_it(self, p):
        again = eval(repr(p), vars(strategies))
        assert again == p
        assert hash(again) == hash(p)
        assert type(again.graph) is type(p.graph)
        assert list(again.graph.nodes(data=True)) == list(p.graph.nodes(data=True))
        assert list(again.graph.edges(data=True)) == list(p.graph.edges(data=True))

    @pytest.mark.parametrize(
        "wanted",
        [
            lambda g: nx.number_of_selfloops(g) > 0,
            lambda g: any(len(c) >= 4 for c in nx.simple_cycles(g)),
            lambda g: len(g) > 1 and nx.number_weakly_connected_components(g) > 1,
            lambda g: nx.is_directed_acyclic_graph(g) and g.number_of_edges() > 3,
            lambda g: sum(len(c) > 1 for c in nx.strongly_connected_components(g)) > 1,
        ],
    )
    def test_digraphs_reach_every_corner(self, wanted):
        assert wanted(smallest(digraphs(max_nodes=6), wanted))

    def test_a_ring_needs_room(self):
        with pytest.raises(ValueError, match="2 nodes"):
            cyclic_digraphs(max_nodes=1, self_loops=False)


class TestShrinking:
    """What a user sees when a property fails: nothing that the failure does not need."""

    @pytest.mark.parametrize("strategy", [dags(), digraphs(), dags(parallel=True, priors=True)])
    def test_nothing_wanted(self, strategy):
        graph = smallest(strategy, lambda g: True)
        assert list(graph.nodes(data=True)) == [(0, {"shape": 1})]
        assert not graph.edges

    @pytest.mark.parametrize("strategy", [dags(), digraphs(self_loops=False)])
    def test_an_edge(self, strategy):
        graph = smallest(strategy, lambda g: g.number_of_edges() > 0)
        assert len(graph) == 2
        assert graph.number_of_edges() == 1

    @pytest.mark.parametrize("strategy", [dags(), digraphs()])
    def test_a_path_of_four(self, strategy):
        graph = smallest(strategy, lambda g: nx.is_directed_acyclic_graph(g) and nx.dag_longest_path_length(g) >= 4)
        assert nx.is_isomorphic(graph, nx.path_graph(5, create_using=nx.DiGraph))
        assert all(data == {"shape": 1} for _, data in graph.nodes(data=True))

    @pytest.mark.parametrize("strategy", [dags(), digraphs()])
    def test_two_nodes_without_an_edge(self, strategy):
        graph = smallest(strategy, lambda g: len(list(nx.isolates(g))) >= 2)
        assert len(graph) == 2
        assert not graph.edges

    def test_a_diamond(self):
        def two_ways(g):
            return any(len(list(nx.all_simple_paths(g, 0, v))) > 1 for v in g if v)

        graph = smallest(dags(), two_ways)
        assert len(graph) == 3
        assert graph.number_of_edges() == 3

    @pytest.mark.parametrize("length", [1, 2, 3, 4])
    @pytest.mark.parametrize("strategy", [cyclic_digraphs(), digraphs()])
    def test_a_cycle_and_nothing_else(self, length, strategy):
        graph = smallest(strategy, lambda g: any(len(c) == length for c in nx.simple_cycles(g)))
        assert len(graph) == length
        assert graph.number_of_edges() == length
        assert all(data == {"shape": 1} for _, data in graph.nodes(data=True))

    def test_a_node_before_and_one_after_the_ring(self):
        def between(g):
            on = {v for c in nx.simple_cycles(g) for v in c}
            return any(set(g.predecessors(v)) - on and set(g.successors(v)) - on for v in on)

        graph = smallest(cyclic_digraphs(), between)
        assert len(graph) == 3
        assert graph.number_of_edges() == 3

    def test_attributes(self):
        def wanted(g):
            return any(d["shape"] >= 3 and d.get("activation") == "relu" for _, d in g.nodes(data=True))

        assert list(smallest(digraphs(), wanted).nodes(data=True)) == [(0, {"shape": 3, "activation": "relu"})]

    def test_a_parallel_edge(self):
        graph = smallest(digraphs(parallel=True, self_loops=False), lambda g: g.number_of_edges() > len(set(g.edges())))
        assert sorted(graph.edges()) in ([(0, 1)] * 2, [(1, 0)] * 2)

    def test_a_problem(self):
        found = smallest(problems(), lambda p: any(p.graph.in_degree(v) for v in p.clamped))
        # a loop, or an edge: one clamped target, the seed zero
        assert repr(found) in (
            "problem({0: {'shape': 1}}, [(0, 0)], clamped=[0], seed=0)",
            "problem({0: {'shape': 1}, 1: {'shape': 1}}, [(0, 1)], clamped=[1], seed=0)",
            "problem({0: {'shape': 1}, 1: {'shape': 1}}, [(1, 0)], clamped=[0], seed=0)",
        )

    def test_a_failing_test_prints_the_code_that_makes_the_problem(self):
        @settings(database=None, derandomize=True, phases=tuple(Phase))
        @given(problems())
        def fails(p):
            assert len(p.graph) < 2

        with pytest.raises(AssertionError) as caught:
            fails()
        notes = "".join("".join(caught.value.__notes__).split())
        assert "p=problem({0:{'shape':1},1:{'shape':1}}," in notes
