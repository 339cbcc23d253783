"""The training step as a recording: which runs have one, and its replay.

What is recorded is all of :class:`pcgraph.learning.Standard`: initialization, inference, weight gradients, what the
initializer remembers, and the optimizer's step. With ``check=False`` it is one CUDA graph. With ``check=True`` it is
two, inference and what follows it, and the host looks at the energy between them: a step that diverges has then moved
nothing, as without a recording.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pcgraph.backends.torch import switches
from pcgraph.clamps import Clamps, Masked
from pcgraph.inference import Recorder, capturable
from pcgraph.initializers import Initializer
from pcgraph.learning import InferenceResult, Standard
from pcgraph.training.batches import Batch
from pcgraph.training.settings import rule_name

if TYPE_CHECKING:
    from pcgraph.training.loop import Run

__all__ = ["Replay"]

#: The labels among the inputs of a recording, which otherwise go by the names of nodes.
LABELS = object()


class Replay:
    """Learns from batches by recordings of the whole step, as far as there are any.

    Parameters
    ----------
    run : Run

    Raises
    ------
    ConfigError
        ``capture=True``, and no step of the run can be recorded.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.net, self.settings = run, run.net, run.settings
        reason = _obstacle(run) if self.settings.capture else None
        if reason is not None and self.settings.capture is True:
            raise capturable.refuse(reason)
        self.possible = bool(self.settings.capture) and reason is None
        self._key: object = None
        self._parts: list[Recorder[None]] = []
        self._result: InferenceResult | None = None
        self._gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch) -> InferenceResult | None:
        """Learn from a batch. None: it is to be done without a recording of the step, and nothing has changed.

        The result is that of the recording, with the states of this batch until the next.

        Raises
        ------
        ClampError
            A clamp is not finite, with ``check=True``.
        ConfigError
            ``capture=True``, and the step cannot be recorded.
        """
        if not self.possible or any(isinstance(value, Masked) for value in batch.clamps.values()):
            return None
        inputs: dict[Any, Any] = {**batch.clamps, **({} if batch.labels is None else {LABELS: batch.labels})}
        if not self._is_ready(batch.clamps) or not self._parts[0].fits(inputs):
            return None
        first, rest = self._parts[0], self._parts[1:]
        if self.settings.check:
            Clamps.check(self.net, batch.clamps)
        if first.recorded and not rest:
            self.run.changing()
        first(inputs)
        if rest:
            assert self._result is not None
            if not bool(torch.isfinite(self._result.energy).all()):
                return None  # what runs it again says where it broke
            self.run.changing()
            rest[0]({})
        for parameter, gradient in zip(self.run.trained, self._gradients):
            parameter.grad = gradient  # a step without the recording may have left another
        return self._result

    def forget(self) -> None:
        """Let go of the recordings and of the memory that they use."""
        self._key, self._parts, self._result, self._gradients = None, [], None, []

    def _is_ready(self, clamps: Mapping[Hashable, Any]) -> bool:
        """Whether there are recorders of what is decided now."""
        key = self._decided()
        if key == self._key:
            return True
        s = self.settings
        plan = self.net.plan(clamps, init=s.init, steps=s.steps, optimizer=s.state_optimizer)  # type: ignore[arg-type]
        reason = capturable.obstacle_in(self.net.backend, self.net, plan, s.state_optimizer) or _observing(s.init)
        if reason is not None:
            if s.capture is True:
                raise capturable.refuse(reason)
            return False
        self.forget()
        self._key = key
        self._parts = [Recorder(self._infer), Recorder(self._learn)] if s.check else [Recorder(self._both)]
        return True

    def _decided(self) -> tuple[object, ...]:
        """What a recording holds beside its inputs: settings, torch's too; and where all that it reads or moves is."""
        s = self.settings
        groups = s.optimizer.param_groups
        moved = [t for state in s.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        kept = [] if s.init is None else [*s.init.buffers(), *s.init.parameters()]
        return (
            *switches(self.net.device),
            *(tensor.data_ptr() for tensor in (*self.run.trained, *moved, *kept)),
            *(parameter.requires_grad for parameter in self.run.trained),
            *((name, *self._marks(value)) for group in groups for name, value in group.items() if name != "params"),
            repr(None if s.state_optimizer is None else vars(s.state_optimizer)),
        )

    def _marks(self, value: Any) -> Iterator[object]:
        """A tensor of the device is read where it lies; everything else is a number in the recording."""
        for part in value if isinstance(value, tuple | list) else (value,):
            on_device = isinstance(part, Tensor) and part.device == self.net.device
            yield part.data_ptr() if on_device else float(part) if isinstance(part, Tensor) else part

    # -- what is recorded ---------------------------------------------------------------------------------------------

    def _infer(self, inputs: Mapping[Any, Tensor]) -> None:
        s = self.settings
        self._result = None  # its buffers, which have run before, are then the ones that are taken
        self._result = self.net.infer(
            {name: value for name, value in inputs.items() if name is not LABELS}, init=s.init, steps=s.steps,  # type: ignore[arg-type]
            optimizer=s.state_optimizer, labels=inputs.get(LABELS), check=False,
        )  # fmt: skip

    def _learn(self, inputs: Mapping[Any, Tensor]) -> None:
        assert self._result is not None
        self.run.changing()
        self.run.clear()
        self._result.accumulate()
        self._result.remember()
        self._gradients = [parameter.grad for parameter in self.run.trained]
        self.settings.optimizer.step()

    def _both(self, inputs: Mapping[Any, Tensor]) -> None:
        self._infer(inputs)
        self._learn(inputs)


# -- what stands in the way -------------------------------------------------------------------------------------------


def _obstacle(run: Run) -> str | None:
    """Why no step of a run can be recorded as a whole, if none can."""
    elsewhere = capturable.wrong_device(run.net.device.type)
    if elsewhere is not None:
        return elsewhere
    if type(run.settings.rule) is not Standard:
        return f"a step is recorded with the rule Standard (found {rule_name(run.settings.rule)})"
    if run.callbacks:
        return "callbacks get the result of every step, and replays have one for all: leave callbacks= out"
    if run.settings.scheduler_each == "step" and run.schedulers:
        reason = _scheduling(run)
        if reason is not None:
            return reason
    return _moving(run.net.device, run.optimizer)


def _moving(device: torch.device, optimizer: torch.optim.Optimizer) -> str | None:
    """Why the optimizer's step cannot be recorded."""
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


def _scheduling(run: Run) -> str | None:
    """Why the schedulers would leave every recording out of date with the next step."""
    if not all(isinstance(group["lr"], Tensor) for group in run.optimizer.param_groups):
        return (
            "a scheduler moves the learning rate in every step, and a number is a part of the recording: give "
            f"lr=torch.tensor(..., device={str(run.net.device)!r}), or scheduler_each='epoch'"
        )
    if any(getattr(scheduler, "cycle_momentum", False) for scheduler in run.schedulers):
        return "a scheduler moves the momentum, a number, in every step: give it cycle_momentum=False"
    return None


def _observing(init: Initializer | None) -> str | None:
    """Why what the initializer remembers cannot be recorded, that of its parts included."""
    waiting = [] if init is None else [init]
    while waiting:
        part = waiting.pop()
        if not part.capturable and type(part).observe is not Initializer.observe:
            return f"{type(part).__name__} does not promise to remember by the same work for every batch"
        waiting += part.parts()
    return None
