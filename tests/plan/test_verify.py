"""The proof of plans: whatever is taken out of a plan, or put into it, is refused, and in words that name it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import SGD, Duals, Errors, Forward, Normal, PCNetwork, Zero
from pcgraph.plan import Plan, verify
from pcgraph.plan.operations import (
    NONE,
    Activate,
    Compare,
    Index,
    Learn,
    Measure,
    Move,
    Propagate,
    Pull,
    Relay,
    Shift,
    Write,
)
from pcgraph.testing.strategies import digraphs, problems

# -- by hand ----------------------------------------------------------------------------------------------------------

#: The number of each node and of each edge of the chain x -> h1 -> h2 -> y, where the weight of h1 -> h2 is fixed.
GRAPH = pcgraph.graphs.chain([3, 4, 5, 2])
GRAPH.edges["h1", "h2"]["trainable"] = False
NET = PCNetwork(GRAPH)
NODE = NET.structure.number
EDGE = {pair: NET.structure.edge_number(*pair) for pair in [("x", "h1"), ("h1", "h2"), ("h2", "y")]}


def without(numbers: Index, number: int) -> Index:
    assert number in numbers
    return numbers[numbers != number]


def and_also(numbers: Index, number: int) -> Index:
    return np.sort([*numbers, number])


def step(plan: Plan, t: int, **parts: Any) -> Plan:
    """The plan with another stage at `t`."""
    stages = list(plan.stages)
    stages[t] = replace(stages[t], **parts)
    return replace(plan, stages=tuple(stages))


def an_edge_too_few(plan: Plan) -> Plan:
    op = plan.stages[1].propagate
    return step(plan, 1, propagate=Propagate(without(op.edges, EDGE["h1", "h2"]), op.nodes))


def an_edge_twice(plan: Plan) -> Plan:
    op = plan.stages[1].propagate
    return step(plan, 1, propagate=Propagate(and_also(op.edges, EDGE["h2", "y"]), op.nodes))


def a_sum_without_a_name(plan: Plan) -> Plan:
    op = plan.begin
    return replace(plan, begin=Propagate(op.edges, without(op.nodes, NODE["h1"])))


def nothing_comes_in(plan: Plan) -> Plan:
    return replace(plan, begin=Propagate(NONE, NONE))


def a_sweep_of_nothing(plan: Plan) -> Plan:
    return replace(plan, prologue=tuple(op for op in plan.prologue if isinstance(op, Activate)))


def a_sweep_in_the_wrong_order(plan: Plan) -> Plan:
    into = [op for op in plan.prologue if isinstance(op, Propagate)]
    return replace(plan, prologue=(*into, *(op for op in plan.prologue if isinstance(op, Activate))))


def a_compare_missing(plan: Plan) -> Plan:
    return step(plan, 0, compare=Compare(without(plan.stages[0].compare.nodes, NODE["h2"])))


def the_last_compare_missing(plan: Plan) -> Plan:
    return replace(plan, final=replace(plan.final, compare=Compare(without(plan.final.compare.nodes, NODE["y"]))))


def a_pull_missing(plan: Plan) -> Plan:
    return step(plan, 1, pull=Pull(without(plan.stages[1].pull.edges, EDGE["h2", "y"])))


def a_pull_twice(plan: Plan) -> Plan:
    return step(plan, 0, pull=Pull(and_also(plan.stages[0].pull.edges, EDGE["h1", "h2"])))


def a_pull_of_nothing(plan: Plan) -> Plan:
    """After a sweep the error of y is the only one; that of h2 has not been taken."""
    return step(plan, 0, pull=Pull(and_also(plan.stages[0].pull.edges, EDGE["h1", "h2"])))


def a_clamped_node_moves(plan: Plan) -> Plan:
    return step(plan, 0, move=Move(and_also(plan.stages[0].move.nodes, NODE["x"])))


def a_move_missing(plan: Plan) -> Plan:
    return step(plan, 1, move=Move(without(plan.stages[1].move.nodes, NODE["h1"])))


def an_edge_learns_twice(plan: Plan) -> Plan:
    return replace(plan, learn=Learn(and_also(plan.learn.edges, EDGE["h2", "y"]), plan.learn.nodes))


def an_edge_does_not_learn(plan: Plan) -> Plan:
    return replace(plan, learn=Learn(without(plan.learn.edges, EDGE["x", "h1"]), plan.learn.nodes))


def a_bias_does_not_learn(plan: Plan) -> Plan:
    return replace(plan, learn=Learn(plan.learn.edges, without(plan.learn.nodes, NODE["h2"])))


def the_state_of_an_error_is_old(plan: Plan) -> Plan:
    return step(plan, 1, offsets=plan.stages[1].offsets[:-1])


def an_error_goes_on_too_early(plan: Plan) -> Plan:
    (_, pull), *rest = plan.stages[0].relays
    return step(plan, 0, relays=((Relay(NONE), pull), *rest))


def a_state_is_sent_on(plan: Plan) -> Plan:
    ((relay, pull),) = plan.stages[0].relays
    return step(plan, 0, relays=((Relay(and_also(relay.nodes, NODE["h1"])), pull),))


def the_initial_states_missing(plan: Plan) -> Plan:
    return replace(plan, prologue=())


def a_clamped_node_is_written(plan: Plan) -> Plan:
    (op,) = plan.prologue
    return replace(plan, prologue=(Write(op.source, and_also(op.nodes, NODE["y"])),))


def a_node_is_compared_twice(plan: Plan) -> Plan:
    return step(plan, 0, compare=Compare(and_also(plan.stages[0].compare.nodes, NODE["h2"])))


def a_node_without_energy_is_compared(plan: Plan) -> Plan:
    return step(plan, 0, compare=Compare(and_also(plan.stages[0].compare.nodes, NODE["x"])))


def a_node_moves_twice(plan: Plan) -> Plan:
    return step(plan, 1, move=Move(and_also(plan.stages[1].move.nodes, NODE["h1"])))


def a_bias_learns_twice(plan: Plan) -> Plan:
    return replace(plan, learn=Learn(plan.learn.edges, and_also(plan.learn.nodes, NODE["y"])))


def a_fixed_edge_learns(plan: Plan) -> Plan:
    return replace(plan, learn=Learn(and_also(plan.learn.edges, EDGE["h1", "h2"]), plan.learn.nodes))


def an_edge_learns_from_nothing(plan: Plan) -> Plan:
    return replace(plan, learn=Learn(and_also(plan.learn.edges, EDGE["x", "h1"]), plan.learn.nodes))


def a_bias_learns_from_nothing(plan: Plan) -> Plan:
    return replace(plan, learn=Learn(plan.learn.edges, and_also(plan.learn.nodes, NODE["h1"])))


def a_bias_that_is_none_learns(plan: Plan) -> Plan:
    return replace(plan, learn=Learn(plan.learn.edges, and_also(plan.learn.nodes, NODE["x"])))


def a_pull_comes_again(plan: Plan) -> Plan:
    (relay, pull), *rest = plan.stages[0].relays
    return step(plan, 0, relays=((relay, Pull(and_also(pull.edges, EDGE["h2", "y"]))), *rest))


def a_relay_comes_again(plan: Plan) -> Plan:
    first, *rest = plan.stages[0].relays
    return step(plan, 0, relays=(first, (first[0], Pull(NONE)), *rest))


def a_kept_state_is_measured(plan: Plan) -> Plan:
    return replace(plan, measure=Measure(and_also(plan.measure.nodes, NODE["h1"])))


def states_move_where_errors_should(plan: Plan) -> Plan:
    return replace(plan, request=replace(plan.request, kept=frozenset()))


def the_free_nodes_are_forged(plan: Plan) -> Plan:
    """What a plan says of itself proves nothing: here that x is free, so that it may move."""
    forged = a_clamped_node_moves(plan)
    return replace(forged, free=forged.free | (np.arange(len(forged.free)) == NODE["x"]))


ZERO, NORMAL, FORWARD, ONCE = (
    {"init": Zero()}, {"init": Normal()}, {"init": Forward()}, {"init": Forward(), "steps": 1},
)  # fmt: skip
ERRORS, BOTH = ({"init": Zero(), "coordinates": errors} for errors in (Errors(), Errors({"h1"})))
#: A fault in a plan, the plan, and what is said of it.
SPOILT: list[tuple[Callable[[Plan], Plan], dict[str, Any], str]] = [
    (an_edge_too_few, ZERO, r"Compare at step 1 takes the error of 'h2' by a product of .*h1.*h2.* out of date"),
    (an_edge_twice, ZERO, r"Propagate at step 1 names \('h2', 'y'\) twice"),
    (a_sum_without_a_name, ZERO, r"Propagate at the start adds the product of .*x.*h1.* a sum that it does not name"),
    (nothing_comes_in, ZERO, r"Compare at step 0 takes the error of '\w+' before anything has come into it"),
    (a_sweep_of_nothing, FORWARD, r"Activate at the start sweeps 'h1' before anything has come into it"),
    (a_sweep_in_the_wrong_order, FORWARD, r"Propagate at the start multiplies along .*h1.*h2.*, whose source has no"),
    (a_compare_missing, ZERO, r"Compare at step 0 leaves out the error of 'h2', which need not be zero"),
    (the_last_compare_missing, ZERO, r"Compare at the end leaves out the error of 'y', which need not be zero"),
    (a_pull_missing, ZERO, r"Move at step 1 does not send the error of .*h2.*y.* back"),
    (a_pull_twice, ZERO, r"Pull at step 0 names .*h1.*h2.* twice"),
    (a_pull_of_nothing, FORWARD, r"Pull at step 0 sends an error that was not taken back along .*h1.*h2"),
    (a_clamped_node_moves, ZERO, r"Move at step 0 moves 'x', which is not free"),
    (a_move_missing, ZERO, r"Move at step 1 does not move 'h1'"),
    (an_edge_learns_twice, ZERO, r"Learn at the end names .*h2.*y.* twice"),
    (an_edge_does_not_learn, ZERO, r"Learn at the end does not learn from .*x.*h1"),
    (a_bias_does_not_learn, ZERO, r"Learn at the end does not learn the bias of 'h2'"),
    (the_state_of_an_error_is_old, ERRORS, r"Compare at step 1 takes the error of 'h2', whose state is not its predic"),
    (an_error_goes_on_too_early, ERRORS, r"Pull at step 0 sends back along .*h1.*h2.* before all has come back"),
    (a_state_is_sent_on, BOTH, r"Relay at step 0 sends on what comes back to 'h1', whose variable is its state"),
    (
        the_initial_states_missing,
        NORMAL,
        r"Propagate at the start multiplies along .*h[12].*, whose source has no state",
    ),
    (the_initial_states_missing, ZERO, r"Compare at step 0 takes errors before 'h[12]' has a state"),
    (a_clamped_node_is_written, ZERO, r"Write at the start sets the state of 'y', which is not free"),
    (a_node_is_compared_twice, ZERO, r"Compare at step 0 names 'h2' twice"),
    (a_node_without_energy_is_compared, ZERO, r"Compare at step 0 takes the error of 'x', which has no energy"),
    (a_node_moves_twice, ZERO, r"Move at step 1 names 'h1' twice"),
    (a_bias_learns_twice, ZERO, r"Learn at the end names 'y' twice"),
    (a_fixed_edge_learns, ZERO, r"Learn at the end learns from .*h1.*h2.*, whose weight is fixed"),
    (an_edge_learns_from_nothing, ONCE, r"Learn at the end learns from .*x.*h1.*, whose target has no error"),
    (a_bias_learns_from_nothing, ONCE, r"Learn at the end learns the bias of 'h1', which has no error"),
    (a_bias_that_is_none_learns, ZERO, r"Learn at the end learns the bias of 'x', which has no bias"),
    (a_pull_comes_again, ERRORS, r"Pull at step 0 sends an error back along .*h2.*y.* again"),
    (a_relay_comes_again, ERRORS, r"Relay at step 0 sends on what comes back to 'h2' again"),
    (a_kept_state_is_measured, BOTH, r"Measure at the start makes the error of 'h1' its variable"),
    (states_move_where_errors_should, ZERO, r"Move at step 0 moves the state of 'h1', whose error is its variable"),
    (the_free_nodes_are_forged, ZERO, r"Move at step 0 moves 'x', which is not free"),
]


@pytest.mark.parametrize(("spoil", "kind", "words"), SPOILT, ids=[spoil.__name__ for spoil, _, _ in SPOILT])
def test_a_spoilt_plan_is_refused(spoil, kind, words):
    """A proof that accepts anything proves nothing: each fault is named, with the operation and the node or edge."""
    plan = NET.plan({"x", "y"}, **{"steps": 4, **kind})
    assert verify(plan)
    with pytest.raises(AssertionError, match=words):
        verify(spoil(plan))


# -- by search --------------------------------------------------------------------------------------------------------


def shortened(plan: Plan) -> Iterator[Plan]:
    """The plan without one edge or node of one operation, in every way."""

    def fewer(op: Any) -> Iterator[Any]:
        sets = ("edges", "nodes") if isinstance(op, Learn) else ("edges",) if hasattr(op, "edges") else ("nodes",)
        for name in sets:
            for k in range(len(getattr(op, name))):
                yield replace(op, **{name: np.delete(getattr(op, name), k)})

    for k, op in enumerate(plan.prologue):
        if isinstance(op, Propagate | Write | Activate):
            yield from (replace(plan, prologue=(*plan.prologue[:k], o, *plan.prologue[k + 1 :])) for o in fewer(op))
    yield from (replace(plan, begin=op) for op in fewer(plan.begin))
    for t, stage in enumerate(plan.stages):
        for name in ("propagate", "compare", "pull", "move"):
            yield from (step(plan, t, **{name: op}) for op in fewer(getattr(stage, name)))
    for name in ("propagate", "compare"):
        for op in fewer(getattr(plan.final, name)):
            yield replace(plan, final=replace(plan.final, **{name: op}))
    yield from (replace(plan, learn=op) for op in fewer(plan.learn))


@settings(max_examples=60, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=6, max_size=2, parallel=True, priors=True)),
    init=st.sampled_from([Zero(), Normal(), Forward(fallback=Zero()), Forward(fallback=Normal())]),
    steps=st.integers(0, 4),
)
def test_nothing_can_be_left_out(problem, init, steps):
    """No plan holds a product, an error or a move that need not be there, and the proof misses whatever is not.

    (Where a clamp is partial a node is swept, and what comes into it is then computed again for its error.)
    """
    plan = PCNetwork(problem.graph).plan(problem.clamped, init=init, steps=steps, optimizer=SGD(0.1))
    for spoilt in shortened(plan):
        with pytest.raises(AssertionError):
            verify(spoilt)


# -- dual variables ---------------------------------------------------------------------------------------------------


def dual_plan() -> Plan:
    return NET.plan({"x", "y"}, init=Forward(), steps=3, optimizer=SGD(0.1), duals=Duals(0.2))


def no_shift(plan: Plan) -> Plan:
    return step(plan, 1, shift=Shift(NONE))


def no_shift_at_the_end(plan: Plan) -> Plan:
    return replace(plan, final=replace(plan.final, shift=Shift(NONE)))


def a_shift_of_a_clamped_node(plan: Plan) -> Plan:
    return step(plan, 1, shift=Shift(np.sort([*plan.stages[1].shift.nodes, NODE["y"]])))


def a_shift_before_anything_has_moved(plan: Plan) -> Plan:
    return step(plan, 0, shift=Shift(np.array([NODE["h2"]])))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_shift, "without its dual"),
        (no_shift_at_the_end, "without its dual"),
        (a_shift_of_a_clamped_node, "that is not there"),
        (a_shift_before_anything_has_moved, "that is not there"),
    ],
)
def test_a_plan_with_duals_is_proved_too(spoil: Callable[[Plan], Plan], said: str) -> None:
    """Each dual is moved once in every step but the first, before its error is used."""
    assert verify(dual_plan())
    with pytest.raises(AssertionError, match=said):
        verify(spoil(dual_plan()))


def test_errors_that_were_sent_back_are_not_shifted_any_more() -> None:
    """By hand, since a stage has the shift before its pulls."""
    plan = dual_plan()

    class Late(type(plan.stages[1])):  # type: ignore[misc]
        def operations(self):
            yield from (self.propagate, self.compare, self.shift, self.pull, self.shift, self.move)

    late = Late(**{name: getattr(plan.stages[1], name) for name in vars(plan.stages[1])})
    stages = list(plan.stages)
    stages[1] = late
    with pytest.raises(AssertionError, match="or moves it twice"):
        verify(replace(plan, stages=tuple(stages)))
