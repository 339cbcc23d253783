"""States kept on the way, and callbacks: they must be what runs of so many steps end with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pcgraph
from pcgraph import SGD, Duals, Errors, Forward, Masked, Normal, PCNetwork, Trace
from pcgraph.errors import ConfigError, GraphError, PCGraphError
from pcgraph.inference import InferenceStep
from tests.builders import chain, clamps_of

STEPS = 7
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def net_of() -> PCNetwork:
    return chain(4, 3, 3, 2, dtype=torch.float64, seed=1)


def run(net: PCNetwork, steps: int = STEPS, **more: Any) -> Any:
    how = {"init": Normal(std=0.5, seed=3) if more.pop("drawn", False) else Forward(), "optimizer": SGD(0.1), **more}
    return net.infer(clamps_of(net, 5), steps=steps, **how)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"coordinates": Errors()},
        {"optimizer": SGD(0.05, momentum=0.9)},
        {"optimizer": pcgraph.LBFGS()},
        {"duals": Duals(rate=0.1)},
        {"precision": {"h1": [1.0 + 0.1 * t for t in range(STEPS + 1)]}},
    ],
    ids=["states", "errors", "momentum", "solver", "duals", "schedule"],
)
def test_what_is_kept_is_what_runs_of_so_many_steps_end_with(more: dict[str, Any]) -> None:
    """A picture of other numbers would show a dynamics that is none of the network's."""
    net = net_of()
    traced = run(net, trace="states", **more)
    plain = run(net, **more)
    assert traced.trace_steps == tuple(range(STEPS + 1))
    assert list(traced.state_trace) == list(traced.error_trace) == list(net.graph)
    for v in net.graph:
        torch.testing.assert_close(traced.state_trace[v][-1], plain.states[v], **CLOSE)
        torch.testing.assert_close(traced.error_trace[v][-1], plain.errors[v], **CLOSE)
    if set(more) & {"optimizer", "precision"} and "momentum" not in repr(more):
        return  # a solver chooses where to end, and a schedule is of one length
    for t in (0, 1, 4):
        stopped = run(net, t, **more)
        for v in net.graph:
            torch.testing.assert_close(traced.state_trace[v][t], stopped.states[v], **CLOSE)
            torch.testing.assert_close(traced.error_trace[v][t], stopped.errors[v], **CLOSE)
        torch.testing.assert_close(traced.trace[t], stopped.energy, **CLOSE)


def test_a_choice_of_nodes_every_so_many_steps() -> None:
    net = net_of()
    whole, some = run(net, trace="states"), run(net, trace=Trace(["h2", "x"], every=3))
    assert some.trace_steps == (0, 3, 6, 7)
    assert list(some.state_trace) == ["h2", "x"]
    for v in ("h2", "x"):
        assert torch.equal(some.state_trace[v], whole.state_trace[v][[0, 3, 6, 7]])
        assert torch.equal(some.error_trace[v], whole.error_trace[v][[0, 3, 6, 7]])
    assert torch.equal(some.trace, whole.trace)
    assert list(some.node_trace) == ["h1", "h2", "y"]
    exact = run(net, 6, trace=Trace(every=3))
    assert exact.trace_steps == (0, 3, 6)
    assert run(net, 0, trace="states").trace_steps == (0,)
    plain = run(net, trace=True)
    assert (plain.state_trace, plain.error_trace, plain.trace_steps) == (None, None, ())


def test_a_run_that_converges_is_kept_to_its_end() -> None:
    result = run(net_of(), 500, tolerance=1e-3, trace=Trace(every=10), drawn=True)
    taken = int(result.steps.max())
    assert 10 < taken < 500
    assert result.trace_steps == (*range(0, taken, 10), taken)
    assert torch.equal(result.state_trace["h1"][-1], result.states["h1"])
    assert result.trace.shape == (taken + 1, 5)  # the end was there twice
    assert torch.equal(result.trace[-1], result.energy)


def test_a_partial_clamp_is_kept_as_it_is() -> None:
    net = net_of()
    mask = torch.tensor([[True, True, False, False]]).expand(5, -1)
    clamps = {**clamps_of(net, 5), "x": Masked(clamps_of(net, 5)["x"], mask)}
    result = net.infer(clamps, init=Forward(roots=pcgraph.Zero()), steps=4, optimizer=SGD(0.1), trace="states")
    known = result.state_trace["x"][:, mask]
    assert torch.equal(known, known[:1].expand_as(known))


def test_a_callback_sees_every_step_and_changes_nothing() -> None:
    """It is called before the first step and after each, and may run the network itself."""
    net = net_of()
    seen: list[tuple[int, int, torch.Tensor, torch.Tensor]] = []

    def look(step: InferenceStep) -> str:
        net.predict({"x": torch.ones(5, 4, dtype=torch.float64)}, "y")
        step.states["h1"].zero_()
        seen.append((step.step, step.steps, step.energy, step.errors["h2"]))
        return "ignored"

    result, plain = run(net, callback=look), run(net, trace="states")
    assert [(s, n) for s, n, _, _ in seen] == [(t, STEPS) for t in range(STEPS + 1)]
    for t, (_, _, energy, error) in enumerate(seen):
        torch.testing.assert_close(energy, plain.trace[t], **CLOSE)
        torch.testing.assert_close(error, plain.error_trace["h2"][t], **CLOSE)
    assert torch.equal(result.states["h1"], plain.states["h1"])
    assert result.trace is None


def test_an_error_in_a_callback_comes_out_and_the_network_goes_on() -> None:
    net = net_of()

    def fail(step: InferenceStep) -> None:
        if step.step == 3:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(net, callback=fail)
    assert torch.equal(run(net).states["h1"], run(net_of()).states["h1"])


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"trace": "state"}, ConfigError, "'states'"),
        ({"trace": Trace}, ConfigError, r"write trace=pcgraph.Trace\(\)"),
        ({"trace": Trace(["h7"])}, GraphError, "no node 'h7'"),
        ({"callback": 3}, ConfigError, "callback is a function"),
        ({"callback": dict}, ConfigError, "callback is a function"),
    ],
)
def test_what_cannot_be_watched_is_refused(more: dict[str, Any], error: type[PCGraphError], message: str) -> None:
    with pytest.raises(error, match=message):
        run(net_of(), **more)


@pytest.mark.parametrize("make", [lambda: Trace(every=0), lambda: Trace(3), lambda: Trace(["x", "x"])])
def test_a_trace_that_is_none(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()
