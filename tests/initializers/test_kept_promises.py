"""What a user's initializer or state optimizer does not do as it should is said, and no number comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pcgraph
from pcgraph.errors import ConfigError, Diverged
from pcgraph.initializers import Initializer
from pcgraph.optimizers import StateOptimizer

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
CLAMPS = {"x": X, "y": torch.eye(3)[torch.arange(6) % 3]}


class Own(Initializer):
    """Writes by a function, and answers with something."""

    def __init__(self, write: Callable[[Tensor], object] = lambda out: None, verdict: Any = "zero") -> None:
        super().__init__()
        self.write, self.verdict = write, verdict

    def requirement(self, report: pcgraph.topology.Report) -> Any:
        return report.verdicts[self.verdict] if self.verdict == "zero" else self.verdict

    def init(self, block: Any, out: Tensor, context: Any) -> Any:
        return self.write(out)


class Moves(StateOptimizer):
    def __init__(self, move: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__(lr=0.1)
        self.move = move

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> Any:
        return self.move(state, grad)


def used() -> pcgraph.PCNetwork:
    """A network whose buffers hold the states of a batch before."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 3], activation="tanh"), seed=0)
    net.infer(CLAMPS, init=pcgraph.Forward(), steps=2, optimizer=pcgraph.SGD(lr=0.1))
    return net


def infer(**given: Any) -> Any:
    return used().infer(CLAMPS, **{"init": pcgraph.Zero(), "steps": 2, "optimizer": pcgraph.SGD(lr=0.1), **given})


def only_some(out: Tensor) -> None:
    out[..., :2] = 0.0


@pytest.mark.parametrize("write", [lambda out: None, only_some], ids=["nothing", "only some"])
@pytest.mark.parametrize("around", [lambda own: own, lambda own: pcgraph.PerNode({"h1": own}, default=pcgraph.Zero())])
def test_an_initializer_that_leaves_states_as_they_were_is_told_so(
    write: Callable[[Tensor], object], around: Callable[[Initializer], Initializer]
) -> None:
    """Else a run begins at the states of the batch before, and nobody sees it."""
    with pytest.raises(Diverged, match=r"Own\.init leaves some entries of out as they were"):
        infer(init=around(Own(write)))


def test_an_initializer_that_returns_the_states_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"Own\.init works in place.*found a Tensor of shape \(1, 6, 5\)"):
        infer(init=Own(torch.zeros_like))


def test_what_was_written_may_be_returned() -> None:
    """As torch's own functions in place do."""
    found = infer(init=Own(lambda out: out.zero_()), steps=0).states["h1"]
    assert torch.equal(found, torch.zeros(6, 5))
    moved = infer(optimizer=Moves(lambda state, grad: state.sub_(grad, alpha=0.1)))
    expected = infer()
    assert torch.equal(moved.states["h1"], expected.states["h1"])
    assert torch.equal(infer(init=pcgraph.Normal(seed=1)).states["h1"], infer(init=Sub(seed=1)).states["h1"])


class Sub(pcgraph.Normal):
    """A user's class that changes nothing."""


@pytest.mark.parametrize("shape", [[4, 5, 3], [4, 5, 5, 5, 3]])
def test_an_optimizer_that_returns_the_states_is_told_so(shape: list[int]) -> None:
    """They would never move."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain(shape, activation="tanh"), seed=0)
    with pytest.raises(ConfigError, match=r"Moves\.step works in place, and what it returns would be dropped"):
        net.infer(CLAMPS, init=pcgraph.Zero(), steps=2, optimizer=Moves(lambda state, grad: state - 0.1 * grad))


@pytest.mark.parametrize("answer", [None, True, "valid", 1.0])
@pytest.mark.parametrize(
    "around",
    [
        lambda own: own,
        lambda own: pcgraph.Forward(roots=own),
        lambda own: pcgraph.Forward(fallback=own),
        lambda own: pcgraph.PerNode({"h1": own}, default=pcgraph.Zero()),
        lambda own: pcgraph.PerNode({"h1": pcgraph.Zero()}, default=own),
        lambda own: pcgraph.Null(first=own),
        lambda own: pcgraph.Average(otherwise=own),
    ],
)
def test_a_requirement_is_answered_by_a_verdict(answer: Any, around: Callable[[Initializer], Initializer]) -> None:
    """Whoever asks: inference, a plan, a report, and an initializer of which it is a part."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 6, 3]), seed=0)
    init = around(Own(lambda out: out.zero_(), answer))
    asking = (
        lambda: net.infer(CLAMPS, init=init, steps=2, optimizer=pcgraph.SGD(lr=0.1)),
        lambda: net.plan(clamped=set(CLAMPS), init=init, steps=2),
        lambda: pcgraph.check(net, clamped=set(CLAMPS)).verdict(init),
    )
    for ask in asking:
        with pytest.raises(ConfigError, match=r"Own\.requirement must return a Verdict"):
            ask()
