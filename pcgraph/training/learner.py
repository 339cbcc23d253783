"""A batch is learned from: the rule takes gradients, which are checked, and the optimizer moves the weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcgraph.errors import ConfigError, Diverged
from pcgraph.inference.run import of_half_precision
from pcgraph.learning import InferenceResult, TrainingStep
from pcgraph.model import PCNetwork
from pcgraph.network.packed import whole
from pcgraph.processes import Group, Part
from pcgraph.training.batches import Batch
from pcgraph.training.fit_arguments import rule_name
from pcgraph.training.gradients import GradientMonitor
from pcgraph.training.loader_position import has_state
from pcgraph.training.options import FitOptions
from pcgraph.training.ranks import Averaging
from pcgraph.training.step_recording import StepRecording
from pcgraph.training.updates import Updates

__all__ = ["Learned", "Learner"]


class Learned(NamedTuple):
    """Holds what a batch has left behind.

    Attributes
    ----------
    result : InferenceResult or None
        Of the rule's inference, where it has one.
    energy : float or None
        Mean over the batch; None in steps that are not measured.
    rise : (float, float) or None
        Mean energies before the first inference step and after the last, where they were asked for.
    """

    result: InferenceResult | None
    energy: float | None
    rise: tuple[float, float] | None = None


class Learner:
    """Learns from one batch after another, by the rule of the run.

    Attributes
    ----------
    consistent : bool
        Whether parameters, optimizer and initializer are those of one moment: not in the middle of an update.
    moved : bool
        Whether the last batch, or what was flushed since, has moved the weights.
    """

    def __init__(
        self, net: PCNetwork, options: FitOptions, gradients: GradientMonitor, group: Group | None = None
    ) -> None:  # fmt: skip
        self.net, self.options, self.gradients = net, options, gradients
        held = [whole(p) for group in options.optimizer.param_groups for p in group["params"]]
        self.trained = list({id(p): p for p in (*net.parameters(), *held)}.values())
        self.updates = Updates(
            net, options.optimizer, self.trained, accumulate=options.accumulate, clip=options.clip, ema=options.ema
        )
        self.recording = StepRecording(net, options, self.trained, clear=self._clear, changing=self._changing)
        self.averaging = None if group is None else Averaging(group, self.trained)
        self._part: Part | None = None
        self.consistent = self.moved = True
        self._updated = self._looked = False

    def learn(self, batch: Batch, *, step: int, measured: bool, looked: bool, trace: bool) -> Learned:
        """Let the rule learn from a batch, and move the weights.

        Parameters
        ----------
        batch : Batch
        step : int
            The number of this step, from 1.
        measured : bool
            Whether the energy is asked for.
        looked : bool
            Whether the gradients are looked at.
        trace : bool
            Whether the energy before the first inference step is asked for, too.

        Raises
        ------
        ConfigError
            The rule returned nothing that can be measured, or left no gradients.
        Diverged
            The energy is not finite.
        """
        self._looked, self._updated, self.moved, self._part = looked, False, True, batch.part
        begun = self.recording.begun(batch) if trace else None
        # The first step tells an initializer what it remembers, without which no recording could be made.
        replayed = None if step == 1 else self.recording(batch)
        if replayed is not None:
            if looked:
                self._look(replayed, step)
            if not measured:
                return Learned(replayed, None)
            energies = self.recording.energy()
            last = self._energy(replayed if energies is None else energies, batch, step)
            return Learned(replayed, last, None if begun is None else (float(begun.mean()), last))
        self._clear()
        with self.net.computing(batch.part):
            found = self._apply_rule(batch, trace)
        self._check_found(found, batch, step)
        energy = self._energy(found, batch, step) if measured else None
        result = found if isinstance(found, InferenceResult) else None
        if looked and result is not None:
            self._see_plan(result, step)
        if not self._updated:
            self._average()
            self.moved = self.updates.take(batch.total)
            if self.moved:
                self._move()
        if result is None or result.trace is None:
            return Learned(result, energy)
        first, last = batch.means(result.trace[0], result.trace[-1])
        return Learned(result, energy, (first, last))

    def _look(self, replayed: InferenceResult, step: int) -> None:
        """Look at the gradients that a replay has left."""
        self._see_plan(replayed, step)
        self.gradients.look()

    def _see_plan(self, result: InferenceResult, step: int) -> None:
        if step > 1:  # what begins by a sweep in the first batch alone is let be
            self.gradients.see_plan(result.plan)

    def _apply_rule(self, batch: Batch, trace: bool) -> InferenceResult | Tensor:
        o = self.options
        task = TrainingStep(
            self.net, batch.clamps, batch.labels, o.layout.targets, o.init, o.steps, o.state_optimizer,  # type: ignore[arg-type]
            o.check, trace, self._clear, self._update, self._changing, o.capture, **o.descent.settings,  # type: ignore[arg-type]
            average=self._average, ready=None if self.averaging is None else self.averaging.ready,
        )  # fmt: skip
        keeps = has_state(o.rule)
        if keeps and not getattr(o.rule, "infers", True):
            self._changing()  # no inference of its says so
        found = o.rule(task)
        if keeps:
            self._changing()
        return found

    def _check_found(self, found: Any, batch: Batch, step: int) -> None:
        """Refuse, before the weights move, what cannot be measured or is not finite, or has left no gradients."""
        name = rule_name(self.options.rule)
        if not isinstance(found, InferenceResult):
            if not isinstance(found, Tensor) or found.shape != (batch.size,):
                kind = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
                raise ConfigError(
                    f"the rule {name} must return the result of an inference, or an energy per sample, shape "
                    f"({batch.size},) (found {kind})",
                    key="rule",
                )
            if self.options.check and not bool(torch.isfinite(found).all()):
                raise self._diverged(step, ": use a smaller learning rate")
        learns = self.net.group is None or any(p.requires_grad for p in self.trained)  # of ranks, some may have nothing
        if not self._updated and learns and all(p.grad is None for p in self.trained):
            raise ConfigError(
                f"the rule {name} left no gradients: call result.backward() in it, or step.update() if it moves the "
                "weights itself",
                key="rule",
            )

    def _energy(self, found: InferenceResult | Tensor, batch: Batch, step: int) -> float:
        (energy,) = batch.means(found if isinstance(found, Tensor) else found.energy)
        if not math.isfinite(energy):
            raise self._diverged(
                step,
                "; it was not looked at in every step (check=False), so parameters may be damaged since the last "
                "measured one. Use a smaller state rate or learning rate, and check=True to stop before that.",
            )
        return energy

    def _diverged(self, step: int, advice: str) -> Diverged:
        return Diverged(
            f"the energy is no longer finite in training step {step}{advice}{of_half_precision(self.net.dtype)}",
            step=self.options.steps or 0, node=None, largest=math.nan,
        )  # fmt: skip

    def require_finite(self, step: int) -> None:
        """Refuse weights that an update has left infinite or NaN, so that they are neither kept nor taken for trained.

        Raises
        ------
        Diverged
        """
        names = {id(p): f" ({name})" for name, p in self.net.named_parameters()}
        learned = (p for p in self.trained if p.requires_grad)
        wrong = [names.get(id(p), "") for p in learned if not bool(torch.isfinite(p).all())]
        if self.net.group is not None:  # the ranks that hold it together end together
            wrong = [name for theirs in self.net.group.gather_data(wrong) for name in theirs]
        if wrong and self.options.check:
            raise Diverged(
                f"the weights are no longer finite after training step {step}{wrong[0]}: use a "
                f"smaller learning rate{of_half_precision(self.net.dtype)}",
                step=self.options.steps or 0, node=None, largest=math.nan,
            )  # fmt: skip

    # -- what a rule may call ---------------------------------------------------------------------------------------

    def _clear(self) -> None:
        """Take all gradients away."""
        for parameter in self.trained:
            parameter.grad = None
        if self.averaging is not None:
            self.averaging.begin(self._part)

    def _average(self) -> None:
        """Average the gradients over all ranks."""
        if self.averaging is not None:
            self.averaging.finish()

    def _changing(self) -> None:
        """Note that from now on parameters, optimizer and initializer are of no one moment."""
        self.consistent = False

    def _update(self) -> None:
        """Move the weights by their gradients, averaged over the samples of all ranks, in the name of the rule."""
        if self.options.accumulate > 1:
            raise ConfigError(
                f"the rule {rule_name(self.options.rule)} moves the weights itself, so that no gradients are left to "
                "accumulate: take accumulate=1",
                key="accumulate",
            )
        self._average()
        self._move()

    def _move(self) -> None:
        if self._looked:
            self.gradients.look()
        self.consistent, self._updated = False, True
        self.updates.shorten()
        self.updates.step()

    def flush(self) -> bool:
        """Move the weights by what is held of batches too few for an update; returns whether there were any."""
        due = self.updates.gather()
        if due:
            self._move()
            self.consistent = True
        return due
