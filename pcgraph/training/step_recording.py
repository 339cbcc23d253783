"""The training step is recorded, for runs that can have a recording of it, and replayed.

What is recorded is all of :class:`pcgraph.learning.Standard`: initialization, inference, weight gradients, what the
initializer remembers, and the optimizer's step. With ``check=False`` it is one CUDA graph. With ``check=True`` it is
two, inference and what follows it, and the host looks at the energy between them: a step that diverges has then moved
nothing, as without a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pcgraph.clamps import Clamps, Masked
from pcgraph.inference import Recorder, capturable
from pcgraph.initializers import Initializer
from pcgraph.learning import InferenceResult, Standard
from pcgraph.model import PCNetwork
from pcgraph.optimizers import Following
from pcgraph.training.batches import Batch
from pcgraph.training.fit_arguments import rule_name
from pcgraph.training.options import FitOptions

__all__ = ["StepRecording"]

T = TypeVar("T")
#: Of clamps and labels.
Measure = Callable[[Mapping[Hashable, Any], Tensor | None], Any]

#: The labels among the inputs of a recording, which otherwise go by the names of nodes.
LABELS = object()
#: Settings of an optimizer that are what they are, and no tensor.
PLAIN = (bool, int, float, type(None))


class StepRecording:
    """Learns from batches by recordings of the whole step, as far as there are any.

    Parameters
    ----------
    net : PCNetwork
    options : FitOptions
    trained : sequence of Parameter
        All parameters whose gradients a step leaves.
    clear, changing : callable
        What :class:`~pcgraph.learning.TrainingStep` calls so.

    Attributes
    ----------
    undisturbed : bool
        Whether nothing of the user's runs between steps, so that what was decided holds until :meth:`look_again`.

    Raises
    ------
    ConfigError
        ``capture=True``, and no step of the run can be recorded.
    """

    def __init__(
        self, net: PCNetwork, options: FitOptions, trained: Sequence[nn.Parameter], *, clear: Callable[[], None],
        changing: Callable[[], None],
    ) -> None:  # fmt: skip
        self.net, self.options, self.trained = net, options, trained
        self._clear, self._changing = clear, changing
        self.undisturbed = False
        reason = _obstacle(net, options) if options.capture else None
        if reason is None and options.everyone is not None:
            reason = "several processes wait for each other in the middle of a step: leave capture= out"
        if reason is not None and options.capture is True:
            raise capturable.refuse(reason)
        self.possible = bool(options.capture) and reason is None
        parts = () if options.init is None else options.init.modules()
        #: Where the initializer's tensors are, as it makes and replaces them.
        self._held: list[dict[str, Any]] = [held for part in parts for held in (part._parameters, part._buffers)]
        self._key: object = None
        self._known = False
        self._parts: list[Recorder[None]] = []
        self._asides: dict[str, Recorder[Any]] = {}
        self._result: InferenceResult | None = None
        self._gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch) -> InferenceResult | None:
        """Learn from a batch, or return None where that is to be done without a recording; nothing has changed then.

        The result is that of the recording, with the states of this batch until the next.

        Raises
        ------
        ClampError
            A clamp is not finite, with ``check=True``.
        ConfigError
            ``capture=True``, and the step cannot be recorded.
        """
        inputs = self._inputs(batch)
        if inputs is None:
            self.look_again()
            return None
        if not self._parts[0].fits(inputs):
            if not self._parts[0].outnumbered(inputs):
                self.look_again()  # a step without the recording may put what it moves in another place
                return None
            self._begin(self._key)  # a resumed epoch may begin with its last, smaller batch
        first, *rest = self._parts
        if self.options.check:
            Clamps.check(self.net, batch.clamps)
        rate = getattr(self.options.state_optimizer, "lr", None)
        if not isinstance(rate, Following):
            return self._run(inputs, first, rest)
        s = self.options
        self.net.follow(
            batch.clamps, s.state_optimizer, init=s.init, labels=batch.labels,  # type: ignore[arg-type]
            coordinates=s.descent.coordinates, precision=s.descent.precision,
        )  # fmt: skip
        with rate.held():
            return self._run(inputs, first, rest)

    def _run(
        self, inputs: dict[Any, Any], first: Recorder[None], rest: Sequence[Recorder[None]]
    ) -> InferenceResult | None:  # fmt: skip
        if first.recorded and not rest:
            self._changing()
        first(inputs)
        if rest:
            assert self._result is not None
            if not bool(torch.isfinite(self._result.energy).all()):
                self.look_again()
                return None  # what runs it again says where it broke
            self._changing()
            rest[0]({})
        for parameter, gradient in zip(self.trained, self._gradients):
            if parameter.grad is not gradient:  # a step without the recording may have left another
                parameter.grad = gradient
        return self._result

    def forget(self) -> None:
        """Let go of the recordings and of the memory that they use."""
        self._key, self._parts, self._result, self._gradients, self._asides = None, [], None, [], {}

    def look_again(self) -> None:
        """Note that what was decided may have changed; without a word it is looked at before each step.

        See :attr:`undisturbed`.
        """
        self._known = False

    # -- what is measured beside a step -------------------------------------------------------------------------------

    def beside(self, name: str, measure: Measure, batch: Batch) -> Any:
        """Measure something of a batch that belongs to no step, by a recording of its own; None where there is none.

        It lives as long as the recordings of the step, and comes after them: these take the buffers that they ran on.

        Parameters
        ----------
        name : str
            By which it is known from call to call.
        measure : callable
            ``measure(clamps, labels)``. It neither moves anything nor looks at values; whatever holds what it has
            computed, a result of inference, say, is kept if it is returned.
        batch : Batch
        """
        inputs = self._inputs(batch) if self._recorded else None
        if inputs is None or not self._recorded or not self._parts[0].fits(inputs):
            return None
        return self._aside(name, lambda now: measure(_clamps(now), now.get(LABELS)))(inputs)

    def begun(self, batch: Batch) -> Tensor | None:
        """Compute the energy from which inference starts, (batch,), where that is a recording."""
        s = self.options

        def start(clamps: Mapping[Hashable, Any], labels: Tensor | None) -> tuple[InferenceResult, Tensor]:
            result = self.net.infer(
                clamps, init=s.init, steps=0, labels=labels, check=False, **s.descent.at_the_start,  # type: ignore[arg-type]
            )  # fmt: skip
            return result, result.energy

        found = self.beside("begun", start, batch)
        return None if found is None else found[1]

    def energy(self) -> Tensor | None:
        """Compute the energy of the states that a replay has left, (batch,), where that is a recording."""
        result = self._result
        if result is None or not self._recorded:
            return None
        found: Tensor = self._aside("energy", lambda _: result.energy)({})
        return found

    def _aside(self, name: str, function: Callable[[Mapping[Any, Tensor]], Any]) -> Recorder[Any]:
        if name not in self._asides:
            self._asides[name] = _Aside(function)
        return self._asides[name]

    @property
    def _recorded(self) -> bool:
        return bool(self._parts) and self._parts[-1].recorded

    # -- what decides -------------------------------------------------------------------------------------------------

    def _inputs(self, batch: Batch) -> dict[Any, Any] | None:
        """Return what a recording takes of a batch; None where there is none of such batches, or of this run."""
        if not self.possible or any(isinstance(value, Masked) for value in batch.clamps.values()):
            return None
        if not self._is_ready(batch.clamps):
            return None
        return dict(batch.clamps) if batch.labels is None else {**batch.clamps, LABELS: batch.labels}

    def _is_ready(self, clamps: Mapping[Hashable, Any]) -> bool:
        """Say whether there are recorders of what is decided now."""
        if self._known and self._recorded:
            return True
        key = self._decided()
        if key == self._key:
            self._known = self.undisturbed
            return True
        s = self.options
        axes = {key: value for key, value in s.descent.settings.items() if key != "tolerance"}
        plan = self.net.plan(clamps, init=s.init, steps=s.steps, optimizer=s.state_optimizer, **axes)  # type: ignore[arg-type]
        reason = capturable.obstacle_in(self.net.backend, self.net, plan, s.state_optimizer) or _observing(s.init)
        if reason is not None:
            self.forget()  # what there was no longer holds
            if s.capture is True:
                raise capturable.refuse(reason)
            return False
        self._begin(key)
        return True

    def _begin(self, key: object) -> None:
        self.forget()
        self._key = key
        both = (self._infer, self._learn) if self.options.check else (self._both,)
        self._parts = [_Part(part) for part in both]

    def _decided(self) -> tuple[object, ...]:
        """Give what a recording holds beside its inputs: settings, torch's too, and where all lies that it moves."""
        s, net = self.options, self.net
        kept = chain.from_iterable(map(dict.values, (*s.optimizer.state.values(), *self._held)))
        held = [tensor for tensor in kept if isinstance(tensor, Tensor)]
        groups = s.optimizer.param_groups
        settings = [self._marks(value) for group in groups for name, value in group.items() if name != "params"]
        return (
            net.backend.settings(net),
            [*map(Tensor.data_ptr, self.trained), *map(Tensor.data_ptr, held)],
            [parameter.requires_grad for parameter in self.trained],
            net.frozen_edges,
            net.frozen_biases,
            settings,
            repr(None if s.state_optimizer is None else vars(s.state_optimizer)),
        )

    def _marks(self, value: Any) -> object:
        """Tell a tensor of the device, which is read where it lies, from a number, which the recording holds."""
        if type(value) in PLAIN:
            return value
        if isinstance(value, tuple | list):
            return [self._marks(part) for part in value]
        if not isinstance(value, Tensor):
            return value
        return ("at", value.data_ptr()) if value.device == self.net.device else float(value)

    # -- what is recorded ---------------------------------------------------------------------------------------------

    def _infer(self, inputs: Mapping[Any, Tensor]) -> None:
        s = self.options
        self._result = None  # its buffers, which have run before, are then the ones that are taken
        self._result = self.net.infer(
            _clamps(inputs), init=s.init, steps=s.steps,  # type: ignore[arg-type]
            optimizer=s.state_optimizer, labels=inputs.get(LABELS), check=False, **s.descent.settings,
        )  # fmt: skip

    def _learn(self, inputs: Mapping[Any, Tensor]) -> None:
        assert self._result is not None
        self._changing()
        self._clear()
        self._result.accumulate()
        self._result.remember()
        self._gradients = [parameter.grad for parameter in self.trained]
        self.options.optimizer.step()

    def _both(self, inputs: Mapping[Any, Tensor]) -> None:
        self._infer(inputs)
        self._learn(inputs)


class _Part(Recorder[T]):
    """It holds for what :meth:`StepRecording._decided` says, torch's switches among it, and does not look again."""

    def switches(self, inputs: Mapping[Any, Tensor]) -> object:
        return ()


class _Aside(_Part[T]):
    """It moves nothing, so that it may run once more right before it is recorded: on the buffers of that run."""

    WARM = 1

    def __call__(self, inputs: Mapping[Any, Tensor]) -> T:
        if not self.recorded:
            super().__call__(inputs)
        return super().__call__(inputs)


def _clamps(inputs: Mapping[Any, Tensor]) -> dict[Hashable, Tensor]:
    return {name: value for name, value in inputs.items() if name is not LABELS}


# -- what stands in the way -------------------------------------------------------------------------------------------


def _obstacle(net: PCNetwork, options: FitOptions) -> str | None:
    """Say why no step of a run can be recorded as a whole, if none can."""
    elsewhere = capturable.wrong_device(net.device.type)
    if elsewhere is not None:
        return elsewhere
    if type(options.rule) is not Standard:
        return f"a step is recorded with the rule Standard (found {rule_name(options.rule)})"
    duals = options.descent.duals
    if options.descent.tolerance is not None or (duals is not None and duals.stop is not None):
        return "the host looks in every step at a tolerance, or where nodes stop: leave tolerance= and stop= out"
    if options.accumulate > 1 or options.clip is not None or options.ema is not None:
        return "a step is recorded with one update a batch: leave accumulate=, clip= and ema= out"
    if options.callbacks:
        return "callbacks get the result of every step, and replays have one for all: leave callbacks= out"
    if options.scheduler_each == "step" and options.schedulers:
        reason = _scheduling(net, options)
        if reason is not None:
            return reason
    return _moving(net.device, options.optimizer)


def _moving(device: torch.device, optimizer: torch.optim.Optimizer) -> str | None:
    """Say why the optimizer's step cannot be recorded, if it cannot."""
    name = type(optimizer).__name__
    groups = optimizer.param_groups
    if type(optimizer) is not torch.optim.SGD and not all(group.get("capturable") for group in groups):
        return f"the optimizer needs capturable=True, or to be SGD (found {name} without it)"
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return f"the optimizer's step has hooks, which no replay would call: take them off {name}"
    for rate in (group["lr"] for group in groups if isinstance(group["lr"], Tensor)):
        if rate.device != device:
            return f"a learning rate in a tensor needs to be on {device}, as the network is (found {rate.device})"
        if type(optimizer) is torch.optim.SGD and not all(group["fused"] for group in groups):
            return "SGD with a learning rate in a tensor needs fused=True, or reads it on the host"
    return None


def _scheduling(net: PCNetwork, options: FitOptions) -> str | None:
    """Say why the schedulers would leave every recording out of date with the next step, if they would."""
    if not all(isinstance(group["lr"], Tensor) for group in options.optimizer.param_groups):
        return (
            "a scheduler moves the learning rate in every step, and a number is a part of the recording: give "
            f"lr=torch.tensor(..., device={str(net.device)!r}), or scheduler_each='epoch'"
        )
    if any(getattr(scheduler, "cycle_momentum", False) for scheduler in options.schedulers):
        return "a scheduler moves the momentum, a number, in every step: give it cycle_momentum=False"
    return None


def _observing(init: Initializer | None) -> str | None:
    """Say why what the initializer or one of its parts remembers cannot be recorded, if it cannot."""
    waiting = [] if init is None else [init]
    while waiting:
        part = waiting.pop()
        if not part.capturable and type(part).observe is not Initializer.observe:
            return f"{type(part).__name__} does not promise to remember by the same work for every batch"
        waiting += part.parts()
    return None
