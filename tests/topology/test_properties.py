"""The nine properties of the checker, each by Hypothesis against brute force or numbers, beside fixed examples."""

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pcgraph.graphs import figure_9
from pcgraph.testing.strategies import cyclic_digraphs, dags, digraphs, problem, problems
from pcgraph.topology import (
    Budget,
    FreeCycle,
    FreeRoot,
    GraphCycle,
    GraphOrder,
    NotSupplied,
    Repair,
    Sweep,
    SweepOrder,
    UnclampedRoot,
    check,
    verify,
)
from tests.topology.oracle import (
    Numbers,
    can_be_swept,
    clamp_cut,
    is_repair,
    longest_path_depth,
    small_problems,
    some_order_works,
    subsets,
    unknown_roots,
)

SMOOTH = ("identity", "tanh", "sigmoid")  # strictly increasing: a flat piece of relu would hide what is read
SCALAR = {"max_size": 1, "activations": SMOOTH, "priors": True}
ANY = problems(graphs=digraphs(max_nodes=7, priors=True))
MULTI = problems(graphs=digraphs(max_nodes=6, parallel=True, priors=True))
MANY = settings(deadline=None, max_examples=150)
SOME = settings(deadline=None, max_examples=50)

chain = problem({0: {}, 1: {}, 2: {}}, [(0, 1), (1, 2)], clamped=[0, 2])
loop = problem({0: {}, 1: {}}, [(0, 1), (1, 1)], clamped=[0])
feedback_cut = problem({0: {}, 1: {}, 2: {}}, [(0, 1), (1, 2), (2, 1)], clamped=[0, 2])
feedback = problem({0: {}, 1: {}, 2: {}}, [(0, 1), (1, 2), (2, 1)], clamped=[0])
decoder = problem({0: {}, 1: {}}, [(0, 1)], clamped=[1])
prior = problem({0: {"prior": 0.5}, 1: {}}, [(0, 1)], clamped=[])
useless = problem({0: {}, 1: {}, 2: {}}, [(0, 1)], clamped=[0])
chord = problem({i: {} for i in range(5)}, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (2, 0)])
aside = problem({0: {}, 1: {}, 2: {}}, [(0, 1), (2, 2)], clamped=[0])
behind = problem({0: {}, 1: {}, 2: {}}, [(0, 0), (0, 1), (1, 2)], clamped=[1])


class TestSufficient:
    """Property 1. If it fails, a user's sweep leaves errors that were promised to be zero."""

    @SOME
    @given(problems(graphs=dags(priors=False), clamps="roots"))
    @example(chain)
    def test_acyclic_with_clamped_roots_sweeps_to_zero_in_every_order(self, p):
        report = check(p.graph, p.clamped)
        assert report.proposition_3_2
        assert report.theorem_1
        numbers = Numbers(p.graph, p.clamped, p.seed)
        orders = itertools.islice(nx.all_topological_sorts(p.graph.subgraph(p.free)), 24)
        for order in [report.order, *orders]:
            assert numbers.works(order), order

    @SOME
    @given(problems(graphs=digraphs(priors=True), clamps="sweepable"))
    @example(feedback_cut)
    def test_cut_cycles_and_known_roots_sweep_to_zero(self, p):
        report = check(p.graph, p.clamped)
        assert sorted(report.order) == sorted(p.free)
        assert Numbers(p.graph, p.clamped, p.seed).works(report.order)


class TestNecessary:
    """Property 2. If it fails, a user is refused a sweep that exists."""

    @SOME
    @given(problems(graphs=cyclic_digraphs(max_nodes=6, **SCALAR)))
    @example(loop)
    @example(feedback)
    def test_no_order_works_on_a_free_cycle_or_an_unknown_root(self, p):
        cycle = not nx.is_directed_acyclic_graph(p.graph.subgraph(p.free))
        assume(cycle or unknown_roots(p.graph, p.clamped))
        assert not check(p.graph, p.clamped).theorem_1
        assert not some_order_works(p.graph, p.clamped, p.seed)

    @pytest.mark.parametrize("p", [loop, feedback, decoder])
    def test_six_free_nodes_behind_the_fault(self, p):
        graph = p.graph.copy()
        nx.add_path(graph, [1, *range(10, 10 + 6 - len(p.free))])
        clamped = set(p.clamped) - ({1} if p is decoder else set())
        assert not check(graph, clamped).theorem_1
        assert not some_order_works(graph, clamped)


class TestTheorem1:
    """Property 3: both ways at once."""

    @MANY
    @given(problems(graphs=digraphs(max_nodes=6, **SCALAR)))
    @example(chain)
    @example(loop)
    @example(feedback_cut)
    @example(feedback)
    @example(decoder)
    @example(prior)
    @example(useless)
    @example(behind)
    def test_some_order_works_exactly_when_check_says_so(self, p):
        report = check(p.graph, p.clamped)
        assert report.theorem_1 == some_order_works(p.graph, p.clamped, p.seed)
        assert (report.order is not None) == report.theorem_1

    @MANY
    @given(problems(graphs=digraphs(priors=True), clamps="roots") | ANY)
    @example(chain)
    @example(useless)
    def test_the_printed_proposition_is_what_is_printed_and_implies_theorem_1(self, p):
        report = check(p.graph, p.clamped)
        roots = {v for v in p.graph if p.graph.in_degree(v) == 0}
        assert report.proposition_3_2 == (nx.is_directed_acyclic_graph(p.graph) and roots <= p.clamped)
        assert report.verdicts["forward"].valid == report.proposition_3_2
        assert not report.proposition_3_2 or report.theorem_1


class TestFigure9:
    """Property 4: the paper's own graphs, all weights 1/2, no bias, linear; energies by hand."""

    def numbers(self, which, clamped):
        numbers = Numbers(figure_9(which, activation="identity"), clamped)
        numbers.bias = {v: np.zeros(1) for v in range(6)}
        numbers.weights = {v: [(u, np.full((1, 1), 0.5)) for u, _ in into] for v, into in numbers.weights.items()}
        numbers.values = {v: np.zeros(1) for v in range(6)}
        return numbers

    def energy(self, numbers, states):
        return sum(0.5 * float(e @ e) for e in numbers.errors(states).values())

    def test_top_with_the_input_at_the_root(self):
        report = check(figure_9("top"), {0})
        assert report.proposition_3_2
        assert report.order == (1, 2, 3, 4, 5)
        assert report.depth == {0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 5: 4}
        numbers = self.numbers("top", {0})
        numbers.values[0][:] = 1
        states = numbers.sweep(report.order)
        # h1 = 1/2, h2 = h3 = 1/4, h4 = (h2 + h3 + h0)/2 = 3/4, h5 = 3/8
        assert [float(states[v][0]) for v in range(6)] == [1, 0.5, 0.25, 0.25, 0.75, 0.375]
        assert self.energy(numbers, states) == 0

    def test_top_with_the_input_at_an_inner_node_is_acyclic_and_not_enough(self):
        report = check(figure_9("top"), {1})
        assert nx.is_directed_acyclic_graph(figure_9("top"))
        assert not report.proposition_3_2
        assert not report.theorem_1
        assert report.free_roots == (0,)
        assert report.forward_reachable == {2, 3}
        assert report.verdicts["forward"].witness == UnclampedRoot(0)
        numbers = self.numbers("top", {1})
        numbers.values[1][:] = 1
        states = numbers.start() | {0: np.zeros(1)}
        states |= {2: np.full(1, 0.5), 3: np.full(1, 0.5), 4: np.full(1, 0.5), 5: np.full(1, 0.25)}
        # whatever is guessed for h0, here 0, the clamped h1 = 1 keeps the error 1 - h0/2
        assert self.energy(numbers, states) == 0.5

    def test_bottom_has_no_sweep_and_yet_a_state_without_error(self):
        report = check(figure_9("bottom"), {0})
        assert not report.proposition_3_2
        assert not report.theorem_1
        assert set(report.cycle) == {1, 2, 3, 4}
        assert report.cycle_is_shortest
        assert report.forward_reachable == frozenset()
        assert report.repair == {1}
        assert report.repair_is_minimal
        numbers = self.numbers("bottom", {0})
        numbers.values[0][:] = 1
        states = numbers.sweep([1, 2, 4, 3, 5])
        # h1 = 1/2 (h3 still 0), h2 = 1/4, h4 = 1/8 + 1/2 = 5/8, h3 = h5 = 5/16; then e1 = 1/2 - 1/2 - 5/32
        assert float(numbers.errors(states)[1][0]) == -5 / 32
        assert self.energy(numbers, states) == 0.5 * (5 / 32) ** 2
        # the fixed point: h1 = 1/2 + h3/2 and h3 = h1/8 + 1/4, so h1 = h4 = 2/3, h2 = h3 = h5 = 1/3
        rest = {v: np.full(1, x) for v, x in enumerate([1, 2 / 3, 1 / 3, 1 / 3, 2 / 3, 1 / 3])}
        assert self.energy(numbers, rest) < 1e-30

    def test_both_have_the_same_undirected_graph(self):
        top, bottom = figure_9("top").to_undirected(), figure_9("bottom").to_undirected()
        assert {frozenset(e) for e in top.edges} == {frozenset(e) for e in bottom.edges}


def witnesses(report):
    """Everything of a report that claims to show something."""
    found = [v.witness for v in report.verdicts.values() if v.witness is not None]
    found += [report.sweep(), report.repair_witness]
    found += [FreeCycle(tuple(report.cycle))] if report.cycle else []
    found += [GraphCycle(tuple(report.graph_cycle))] if report.graph_cycle else []
    return [*found, *report.leaks, *map(FreeRoot, report.free_roots)]


class TestWitnesses:
    """Property 5. If it fails, a verdict cannot be trusted, or a wrong one passes for proved."""

    @MANY
    @given(ANY | MULTI, st.data())
    @example(useless, None)
    @example(behind, None)
    @example(chord, None)
    def test_every_witness_passes(self, p, data):
        report = check(p.graph, p.clamped)
        for witness in witnesses(report):
            assert verify(p.graph, p.clamped, witness), witness
        if data is not None:
            nodes = st.frozensets(st.sampled_from(list(p.graph)))
            sweep = report.sweep(data.draw(nodes), data.draw(nodes))
            assert verify(p.graph, p.clamped, sweep), sweep

    @MANY
    @given(ANY)
    @example(feedback)
    @example(chain)
    def test_a_witness_with_a_node_dropped_fails(self, p):
        report = check(p.graph, p.clamped)
        for witness in witnesses(report):
            if isinstance(witness, FreeCycle | GraphCycle | SweepOrder | GraphOrder):
                for i in range(len(witness.nodes)):
                    less = type(witness)(witness.nodes[:i] + witness.nodes[i + 1 :])
                    assert not verify(p.graph, p.clamped, less), less

    @MANY
    @given(ANY)
    @example(chain)
    @example(problem({i: {} for i in range(3)}, [(0, 1), (1, 2), (2, 0)]))
    def test_a_witness_with_two_nodes_swapped_fails(self, p):
        report = check(p.graph, p.clamped)
        for witness in witnesses(report):
            if not isinstance(witness, FreeCycle | GraphCycle | SweepOrder | GraphOrder):
                continue
            cyclic, nodes = isinstance(witness, FreeCycle | GraphCycle), witness.nodes
            for i, j in itertools.combinations(range(len(nodes)), 2):
                swapped = list(nodes)
                swapped[i], swapped[j] = swapped[j], swapped[i]
                # a shortest cycle has no chord; two nodes of an order may change places unless an edge joins them
                if len(nodes) > 2 if cyclic else p.graph.has_edge(nodes[i], nodes[j]):
                    assert not verify(p.graph, p.clamped, type(witness)(tuple(swapped)))

    @SOME
    @given(ANY)
    @example(decoder)
    @example(prior)
    @example(aside)
    def test_false_claims_fail(self, p):
        report = check(p.graph, p.clamped)
        for v in p.graph:
            known = v in p.clamped or p.graph.in_degree(v) or "prior" in p.graph.nodes[v] or not p.graph.out_degree(v)
            assert verify(p.graph, p.clamped, FreeRoot(v)) == (not known)
            clamped = v in p.clamped
            assert verify(p.graph, p.clamped, UnclampedRoot(v)) == (not clamped and p.graph.in_degree(v) == 0)
        sweep = report.sweep()
        if sweep.blocked:
            fewer = frozenset(list(sweep.blocked)[1:])
            assert not verify(p.graph, p.clamped, Sweep(sweep.order, fewer, witness=sweep.witness))
            assert not verify(p.graph, p.clamped, Sweep((*sweep.order, *sweep.blocked)))
            assert not verify(p.graph, p.clamped, SweepOrder((*sweep.order, *sweep.blocked)))
            assert not verify(p.graph, p.clamped, Repair(frozenset(), (*sweep.order, *sweep.blocked), True))
        if sweep.order:
            lazy = Sweep(sweep.order[:-1], sweep.blocked | {sweep.order[-1]}, witness=sweep.witness)
            assert not verify(p.graph, p.clamped, lazy), "a smaller sweep passes for the largest"


class TestOneNode:
    """Property 9: Theorem 1 for one node. If it fails, `predict` refuses a sweep that exists, or runs none."""

    def test_on_all_digraphs_of_three_nodes(self):
        for graph, clamped in small_problems(3):
            report = check(graph, clamped, repair=False)
            cut = clamp_cut(graph, clamped)
            for v in graph:
                ancestors = report.ancestors(v)
                assert ancestors == ({v} | nx.ancestors(cut, v) if v not in clamped else set()) - clamped
                sweep = report.sweep(among=ancestors)
                assert sweep.complete == can_be_swept(graph, clamped, set(ancestors))
                assert verify(graph, clamped, sweep)
                assert (
                    set(sweep.order) == ancestors if sweep.complete else isinstance(sweep.witness, FreeCycle | FreeRoot)
                )

    @MANY
    @given(problems(graphs=digraphs(max_nodes=6, **SCALAR)), st.data())
    @example(feedback, None)
    @example(behind, None)
    @example(decoder, None)
    def test_some_order_gives_the_node_exactly_when_its_ancestors_can_be_swept(self, p, data):
        report = check(p.graph, p.clamped)
        for node in p.graph if data is None else [data.draw(st.sampled_from(list(p.graph)))]:
            ancestors = report.ancestors(node)
            read = {u for v in ancestors for u in p.graph.predecessors(v)}
            part = p.graph.subgraph(ancestors | read)
            sweep = report.sweep(among=ancestors)
            valueless = node in unknown_roots(p.graph, p.clamped)
            assert sweep.complete == (some_order_works(part, p.clamped & set(part), p.seed) and not valueless)
            if sweep.complete:
                swept = Numbers(p.graph, p.clamped, p.seed).sweep(sweep.order)
                inner = Numbers(p.graph, p.clamped, p.seed)
                assert all((swept[v] == inner.prediction(swept, v)).all() for v in ancestors if p.graph.in_degree(v))


class TestLargestAndSmallest:
    """Property 6. If it fails, too little is swept, or a user clamps more than is needed."""

    @SOME
    @given(ANY)
    @example(behind)
    @example(useless)
    def test_forward_reachable_is_the_largest_sweepable_set(self, p):
        possible = [s for s in subsets(p.free) if can_be_swept(p.graph, p.clamped, s)]
        largest = max(possible, key=len)
        assert all(s <= largest for s in possible), "the largest set is unique"
        assert check(p.graph, p.clamped).forward_reachable == largest

    @SOME
    @given(problems(graphs=digraphs(max_nodes=6, priors=True)), st.data())
    def test_sweep_is_the_largest_among_those_asked_for(self, p, data):
        nodes = st.frozensets(st.sampled_from(list(p.graph)))
        initialised, among = data.draw(nodes, "initialised"), data.draw(nodes, "among")
        asked = [v for v in p.free if v in among and v not in initialised]
        possible = [s for s in subsets(asked) if can_be_swept(p.graph, p.clamped, s, initialised)]
        sweep = check(p.graph, p.clamped).sweep(initialised, among)
        assert set(sweep.order) == max(possible, key=len)
        assert sweep.blocked == set(asked) - set(sweep.order)
        assert sweep.complete == (sweep.witness is None)

    @MANY
    @given(problems(graphs=digraphs(max_nodes=7, priors=True)) | problems(graphs=cyclic_digraphs(max_nodes=7)))
    def test_repair_is_the_smallest_one(self, p):
        report = check(p.graph, p.clamped, repair=Budget(seconds=None))
        smallest = next(s for s in subsets(p.free) if is_repair(p.graph, p.clamped, s))
        assert is_repair(p.graph, p.clamped, report.repair)
        assert report.repair_is_minimal
        assert len(report.repair) == len(smallest)
        assert check(p.graph, p.clamped | report.repair).theorem_1

    @MANY
    @given(problems(graphs=cyclic_digraphs(max_nodes=8, max_parents=5)), st.integers(0, 3))
    def test_repair_within_any_budget_is_sufficient(self, p, nodes):
        report = check(p.graph, p.clamped, repair=Budget(seconds=None, nodes=nodes))
        assert is_repair(p.graph, p.clamped, report.repair)
        smallest = next(s for s in subsets(p.free) if is_repair(p.graph, p.clamped, s))
        assert not report.repair_is_minimal or len(report.repair) == len(smallest)


def facts(report, name=lambda v: v):
    """What must not depend on names, insertion order or duplicate edges."""
    return {
        "valid": {key: v.valid for key, v in report.verdicts.items()},
        "facts": (report.proposition_3_2, report.theorem_1, report.repair_is_minimal, len(report.repair)),
        "lengths": [None if c is None else len(c) for c in (report.cycle, report.graph_cycle, report.order)],
        "sets": [frozenset(map(name, s)) for s in (report.free_roots, report.isolated, report.forward_reachable)],
        "depth": {name(v): d for v, d in report.depth.items()},
        "components": {frozenset(map(name, part)) for part in report.components},
    }


class TestInvariance:
    """Property 7. If it fails, the answer depends on how the graph was typed."""

    @SOME
    @given(ANY, st.randoms(use_true_random=False))
    @example(feedback_cut, None)
    def test_names_and_insertion_order_change_nothing(self, p, random):
        pool = ["a", ("b", 1), 3.5, frozenset({1}), None.__class__, "1", 1, b"x"]
        nodes, edges = list(p.graph), list(p.graph.edges())
        if random is not None:
            for items in (pool, nodes, edges):
                random.shuffle(items)
        new = dict(zip(p.graph, pool))
        old = {n: v for v, n in new.items()}
        graph = nx.DiGraph()
        graph.add_nodes_from((new[v], p.graph.nodes[v]) for v in nodes)
        graph.add_edges_from((new[u], new[v]) for u, v in edges)
        before, after = check(p.graph, p.clamped), check(graph, {new[v] for v in p.clamped})
        assert facts(after, old.__getitem__) == facts(before)
        assert verify(graph, {new[v] for v in p.clamped}, after.sweep())

    @SOME
    @given(MULTI)
    def test_parallel_edges_change_nothing(self, p):
        assert facts(check(nx.DiGraph(p.graph), p.clamped)) == facts(check(p.graph, p.clamped))


class TestMonotony:
    """Property 8. If it fails, a user who knows more can do less."""

    @SOME
    @given(ANY)
    def test_one_more_clamp_never_takes_the_sweep_away(self, p):
        before = check(p.graph, p.clamped)
        for v in p.free:
            after = check(p.graph, p.clamped | {v})
            assert after.theorem_1 or not before.theorem_1
            assert before.forward_reachable - {v} <= after.forward_reachable

    def test_the_printed_proposition_is_not_about_clamps_but_about_the_graph(self):
        graph = figure_9("bottom")
        every = list(subsets(graph))
        assert not any(check(graph, clamped).proposition_3_2 for clamped in every)
        assert not check(graph, {0}).theorem_1
        assert check(graph, {0, 1}).theorem_1


def oriented(graph):
    """At most one edge between two nodes, so that every cycle has three nodes or more and must be searched for."""
    return nx.DiGraph((u, v) for u, v in graph.edges if u < v or not graph.has_edge(v, u)) if graph.edges else graph


class TestAgainstNetworkX:
    """The remaining facts, each against its definition."""

    @SOME
    @given(problems(graphs=digraphs(max_nodes=6, priors=True)))
    @example(feedback)
    @example(problem({i: {} for i in range(4)}, [(0, 1), (0, 2), (1, 2), (2, 3)], clamped=[0]))
    def test_depth_is_the_longest_path(self, p):
        assert check(p.graph, p.clamped).depth == longest_path_depth(p.graph, p.clamped)

    @MANY
    @given(ANY | problems(graphs=cyclic_digraphs(max_nodes=8)))
    def test_components_are_in_condensation_order(self, p):
        parts = check(p.graph, p.clamped).components
        assert set(parts) == set(map(frozenset, nx.strongly_connected_components(p.graph)))
        place = {v: i for i, part in enumerate(parts) for v in part}
        assert all(place[u] <= place[v] for u, v in p.graph.edges())

    @MANY
    @given(ANY | problems(graphs=digraphs(min_nodes=5, max_nodes=9, max_parents=3, self_loops=False).map(oriented)))
    @example(chord)
    @example(problem({i: {} for i in range(7)}, [*((i, (i + 1) % 7) for i in range(7)), (5, 1), (4, 2)]))
    def test_cycle_is_a_shortest_one(self, p):
        report = check(p.graph, p.clamped)
        lengths = [len(c) for c in nx.simple_cycles(p.graph.subgraph(p.free))]
        assert (report.cycle is None) == (not lengths)
        assert report.cycle is None or (len(report.cycle) == min(lengths) and report.cycle_is_shortest)
        assert (report.graph_cycle is None) == nx.is_directed_acyclic_graph(p.graph)

    @SOME
    @given(ANY)
    def test_a_blocked_sweep_names_the_kind_of_fault(self, p):
        report = check(p.graph, p.clamped)
        witness = report.sweep().witness
        expected = FreeCycle if report.cycle else FreeRoot if report.free_roots else type(None)
        assert isinstance(witness, expected)
        partial = report.sweep(among=p.free[:1])
        assert partial.witness is None or isinstance(partial.witness, FreeCycle | FreeRoot | NotSupplied)
