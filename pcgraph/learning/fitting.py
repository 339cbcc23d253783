""":func:`pcgraph.fit` takes a learning rule as one of these: ``fit(..., rule=Nudged(strength=0.05))``.

A rule is any function of a :class:`TrainingStep`. It leaves gradients, means over the batch, in ``.grad`` of the
parameters, and returns what is to be measured: the result of an inference, or an energy per sample. ``fit`` clears the
gradients before it and moves the weights after it. A rule that moves them itself, several times a batch, calls
``step.clear()`` and ``step.update()``, and ``fit`` then does no more.

A rule of your own, here one that learns from the signs of the gradients alone:

>>> def signs(step):
...     result = step.infer()
...     result.backward()
...     step.average()  # over the ranks, where several processes share the batch
...     for parameter in step.net.parameters():
...         parameter.grad.sign_()
...     return result

A rule without inference has ``infers = False``, and one that keeps something from batch to batch has ``state_dict()``
and ``load_state_dict()``, for checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from pcgraph.clamps import Masked
from pcgraph.coordinates import Errors
from pcgraph.duals import Duals
from pcgraph.errors import ClampError, ConfigError
from pcgraph.inference import InferenceResult
from pcgraph.initializers import Initializer
from pcgraph.learning.backward import fixed_predictions, forward_update, zero_divergence
from pcgraph.learning.rules import backprop, phases, require_nudge, walk
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.solvers import Solver

__all__ = [
    "ZIL",
    "Backprop",
    "FixedPredictions",
    "ForwardUpdate",
    "Incremental",
    "Nudged",
    "Rule",
    "Standard",
    "TrainingStep",
]

Node = Hashable


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """A training step is one batch to learn from, as a rule gets it.

    Attributes
    ----------
    net : PCNetwork
    clamps : dict
        Node -> Tensor (batch, *shape), or :class:`pcgraph.Masked`: all that the batch gives, the target with it.
    labels : Tensor or None, shape (batch,)
        The classes, where the batch has them.
    predicted : tuple of nodes
        Those that are to be predicted from the others.
    init : Initializer
    steps : int
    state_optimizer : StateOptimizer, Solver or None
    check : bool
        Whether to look if the energy is finite.
    trace : bool
        Whether the energy of every inference step is asked for.
    clear : callable
        Clears all gradients.
    update : callable
        Moves the weights by their gradients.
    changing : callable
        Says that parameters, or what the initializer remembers, begin to change. :meth:`infer` says it at its end and
        `update` at its beginning; an error before that leaves the run where it was, whole, and it is saved so. A rule
        that keeps something itself says it before that changes. For a rule with ``state_dict()`` ``fit`` says it where
        the rule has ``infers = False``, before it is called, and at the latest when it returns.
    capture : bool or "auto"
        As for ``net.infer``; a step that is traced is not captured.
    coordinates, tolerance, duals, precision
        As for ``net.infer``.
    average : callable
        Averages the gradients over the ranks, where several processes share the batch. ``fit`` does so before the
        weights move, once for each update; a rule that makes something else of gradients calls it before.
    ready : callable or None
        For ``result.backward(ready=step.ready)``, after which the rule does not touch the gradients: each then travels
        to the other ranks while the next are computed.
    """

    net: PCNetwork
    clamps: dict[Node, Tensor | Masked]
    labels: Tensor | None
    predicted: tuple[Node, ...]
    init: Initializer
    steps: int
    state_optimizer: StateOptimizer | Solver | None
    check: bool
    trace: bool
    clear: Callable[[], None]
    update: Callable[[], None]
    changing: Callable[[], None]
    capture: bool | Literal["auto"] = False
    coordinates: Errors | None = None
    tolerance: float | None = None
    duals: Duals | None = None
    precision: Mapping[Node, float | Sequence[float]] | None = None
    average: Callable[[], None] = lambda: None
    ready: Callable[[nn.Parameter], None] | None = None

    @property
    def inputs(self) -> dict[Node, Tensor | Masked]:
        """Return the clamps without the targets."""
        return {node: value for node, value in self.clamps.items() if node not in self.predicted}

    @property
    def targets(self) -> dict[Node, Tensor]:
        """Map each node that is to be predicted to its value.

        Raises
        ------
        ConfigError
            No node is the target.
        ClampError
            The batch has no value for one, or knows it in part only.
        """
        if not self.predicted:
            raise ConfigError(
                "this rule learns to predict a node from the others, and there is none to predict: name two nodes "
                "in clamp=, the last of which is the target, or give predict=",
                key="predict",
            )
        values: dict[Node, Tensor] = {}
        for node in self.predicted:
            value = self.clamps.get(node)
            if not isinstance(value, Tensor):
                found = "a partial clamp" if isinstance(value, Masked) else "none"
                raise ClampError(f"this rule needs whole targets of {node!r} (found {found})", node=node)
            values[node] = value
        return values

    def infer(self) -> InferenceResult:
        """Run inference on all clamps, with the settings of the run."""
        result = self.net.infer(
            self.clamps, init=self.init, steps=self.steps, optimizer=self.state_optimizer, labels=self.labels,
            check=self.check, trace=self.trace, capture=False if self.trace else self.capture,
            coordinates=self.coordinates, tolerance=self.tolerance, duals=self.duals, precision=self.precision,
        )  # fmt: skip
        self.changing()
        return result


Rule = Callable[[TrainingStep], InferenceResult | Tensor]
"""What learns from a batch; see the top of this module."""


@dataclass(frozen=True)
class Standard:
    """Predictive coding runs inference, then takes one step of the weights at the final states (paper, Eq 3 and 4)."""

    def __call__(self, step: TrainingStep) -> InferenceResult:
        """Learn from one batch."""
        result = step.infer()
        result.backward(ready=step.ready)
        return result


@dataclass(frozen=True)
class Incremental:
    """This rule takes a step of the weights after every inference step; see :func:`incremental`.

    A batch takes `steps` updates of the weights, so their rate is to be smaller than with :class:`Standard`.
    """

    def __call__(self, step: TrainingStep) -> InferenceResult:
        """Learn from one batch."""
        return walk(
            step.net, step.clamps, init=step.init, steps=step.steps, optimizer=step.state_optimizer,
            labels=step.labels, check=step.check, trace=step.trace, clear=step.clear, move=step.update,
        )  # fmt: skip


@dataclass(frozen=True)
class Nudged:
    """This rule lets the target pull at the output instead of fixing it; see :func:`nudged`. It measures the cost.

    Parameters
    ----------
    strength : float
        How strong the pull is, positive.
    sign : {"centred", "positive", "negative"}

    Notes
    -----
    The target is free. So the initializer has to hold without a clamp on it: ``Average`` needs the classes as labels
    (``by=None``).
    """

    strength: float = 0.1
    sign: Literal["positive", "negative", "centred"] = "centred"

    def __post_init__(self) -> None:
        require_nudge(self.strength, self.sign)

    def __call__(self, step: TrainingStep) -> Tensor:
        """Learn from one batch."""
        cost, result = phases(
            step.net, step.inputs, step.targets, strength=self.strength, sign=self.sign, init=step.init,
            steps=step.steps, optimizer=step.state_optimizer, labels=step.labels, check=step.check,
        )  # fmt: skip
        step.changing()
        result.remember()
        return cost


@dataclass(frozen=True)
class _Direct:
    """This rule goes from inputs and targets to gradients at once, without an inference that ``fit`` would see."""

    infers = False
    _learn: ClassVar[Callable[..., Tensor]]

    def __call__(self, step: TrainingStep) -> Tensor:
        """Learn from one batch."""
        return type(self)._learn(step.net, step.inputs, step.targets, check=step.check)


@dataclass(frozen=True)
class Backprop(_Direct):
    """This rule backpropagates through the same graph, as the baseline; see :func:`backprop`. There is no inference."""

    _learn = staticmethod(backprop)


@dataclass(frozen=True)
class ForwardUpdate:
    """This rule learns between swept sources and inferred targets; see :func:`forward_update`.

    It needs a sweep for the clamps, whatever the initializer.
    """

    def __call__(self, step: TrainingStep) -> InferenceResult:
        """Learn from one batch."""
        result = step.infer()
        forward_update(step.net, step.clamps, result)
        return result


@dataclass(frozen=True)
class ZIL(_Direct):
    """This rule lets each node learn when the error arrives; see :func:`zero_divergence`. Its inference is its own."""

    _learn = staticmethod(zero_divergence)


@dataclass(frozen=True)
class FixedPredictions:
    """This rule keeps predictions and their derivatives as swept; see :func:`fixed_predictions`.

    It takes ``init=pcgraph.Forward()``, since that sweep is what it keeps.
    """

    def __call__(self, step: TrainingStep) -> Tensor:
        """Learn from one batch."""
        inputs: Any = step.inputs
        optimizer: Any = step.state_optimizer
        energy = fixed_predictions(
            step.net, inputs, step.targets, steps=step.steps, optimizer=optimizer, check=step.check
        )  # fmt: skip
        step.changing()
        return energy
