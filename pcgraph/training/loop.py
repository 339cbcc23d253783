"""The training loop.

One step is: read a batch, let the rule take its gradients, step the optimizer. Everything else (measuring, logging,
checkpoints) happens between steps or every few steps, so that a step costs what the engine costs.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pcgraph.checkpoints import generators_state, set_generators
from pcgraph.errors import CheckpointError, ConfigError, Diverged, InvalidInitializer, PCGraphWarning
from pcgraph.learning import InferenceResult, TrainingStep
from pcgraph.model import PCNetwork
from pcgraph.training import settings as arguments
from pcgraph.training.batches import Batch, read_batch
from pcgraph.training.gradients import Gradients
from pcgraph.training.interrupt import Interrupts
from pcgraph.training.keeper import Keeper
from pcgraph.training.logs import Progress, open_log
from pcgraph.training.measure import Evaluation, correct, evaluate
from pcgraph.training.position import Position, has_state, length_of
from pcgraph.training.records import EpochRecord, History, StepRecord, metric_of
from pcgraph.training.replay import Replay
from pcgraph.training.settings import Names, Settings
from pcgraph.training.watch import FELL_ADVICE, Watch

__all__ = ["Run"]

MEASURED = 5  # times an epoch at least, where its length is known
RISE = 2.0  # times the energy at the start, beyond which inference is not lowering it
INCREASED = "inference increased the energy"
Node = Hashable


class Run:
    """All that a run consists of, and where it stands.

    Attributes
    ----------
    epoch, batch, step : int
        Epochs done, batches of this epoch done, steps done.
    samples, energies, accuracies
        Of this epoch so far.
    consistent : bool
        Whether parameters, optimizer and initializer are those of one moment: not in the middle of an update.
    exact : bool
        Whether no batch was drawn that was not trained on.
    pending : dict or None
        What the validation at hand may move: the random generators, and its own loader.
    """

    def __init__(self, net: PCNetwork, loader: Iterable[Any], settings: Settings) -> None:
        s = settings
        self.net, self.loader, self.settings = net, loader, settings
        self.init, self.optimizer, self.epochs = s.init, s.optimizer, s.epochs
        self.names = Names.of(net, s.clamp, s.predict)
        arguments.check(net, loader, settings, self.names)
        self.schedulers = arguments.schedulers_of(s.scheduler, s.scheduler_each)
        self.callbacks = (s.callbacks,) if callable(s.callbacks) else tuple(s.callbacks)
        self.history, self.watch = History(), Watch()
        self.epoch = self.batch = self.step = self.samples = 0
        self.energies: list[float] = []
        self.accuracies: list[float] = []
        self.before, self.began = 0.0, time.perf_counter()
        self.consistent = self.exact = True
        self.pending: dict[str, Any] | None = None
        self.length = length_of(loader)
        self.measure_every = min(s.measure_every, max(1, (self.length or MEASURED * s.measure_every) // MEASURED))
        self.tells_accuracy = self.names.target is not None
        self.gradients = Gradients(net, s.optimizer)
        self.measured = self.updated = self.told_rising = False
        held = [p for group in s.optimizer.param_groups for p in group["params"]]
        self.trained = list({id(p): p for p in (*net.parameters(), *held)}.values())
        self.replay = Replay(self)
        self.interrupts = Interrupts()
        self.position = Position(loader, net.device)
        self.keeper = Keeper(self, s.checkpoint, s.checkpoint_every)
        self.progress = Progress(s.progress, s.epochs)
        self.logs = open_log(s.log, s.tensorboard)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def go(self) -> History:
        """Train to the end, or to wherever the run is stopped."""
        resume = self.settings.resume
        if resume is not None:
            self.keeper.restore(resume)
            self.told_rising = any(text.startswith(INCREASED) for text in self.history.warnings)
        for text in arguments.doubts(self.settings, self.epoch, self._is_enough()):
            self._warn(text, stacklevel=4)
        for log in self.logs:
            log.begin(self.history.rows())
        self.began = time.perf_counter()
        try:
            with self.interrupts:
                self.keeper.save()
                while self.epoch < self.epochs and not self.history.stopped:
                    if self._is_enough():
                        self.history.stopped = "early stopping"
                        break
                    self._one_epoch()
                self.history.stopped = self.history.stopped or "finished"
                self.keeper.save()
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self.replay.forget()
            self.progress.finish(None)
            for log in self.logs:
                log.close()
        return self.history

    def _is_enough(self) -> bool:
        at_boundary = self.batch == 0 and bool(self.history.epochs)
        stopping = self.settings.early_stopping
        return at_boundary and stopping is not None and stopping.done(self.history.epochs)

    def _failed(self, error: BaseException) -> None:
        """Keep what there is; the error goes on to the caller."""
        self.history.stopped = f"{type(error).__name__}: {error}"
        error.history = self.history  # type: ignore[attr-defined]
        if self.keeper.folder is None or isinstance(error, CheckpointError):
            return
        if not self.consistent:
            error.add_note(f"It came in the middle of an update; the last checkpoint is in {self.keeper.folder}.")
            return
        try:
            self.keeper.save()
        except CheckpointError as second:
            error.add_note(f"The run could not be saved: {second}")
        else:
            error.add_note(
                f"The run is saved in {self.keeper.folder}, as it was after training step {self.step}; "
                "fit(..., resume=...) goes on from there."
            )

    def _one_epoch(self) -> None:
        self.progress.start(self.epoch, self.loader, self.batch)
        batches = self.position.begin()
        while True:
            self.exact = False
            try:
                item = next(batches)
            except StopIteration:
                break
            except Exception:
                if self.interrupts.asked:  # Ctrl-C ends the processes of a DataLoader, too
                    self.history.stopped = "interrupted"
                    return
                raise
            record = self._step(item)
            self.exact = True
            self.progress.step(record if record.energy is not None else None)
            if record.energy is not None:
                self._record(record)
            if self._call(record) or self.interrupts.asked:
                self.history.stopped = "interrupted" if self.interrupts.asked else "callback"
                return
            del record, item  # its states, and with them the engine's buffers, are free again
            self.keeper.after_step()
        if self.batch == 0:
            raise ConfigError(
                "there is nothing to train on: the loader is empty"
                + (", or can be gone through only once" if self.epoch else ""),
                key="loader",
            )
        self._end_epoch()

    # -- one step ---------------------------------------------------------------------------------------------------

    def _step(self, item: Any) -> StepRecord:
        self.measured = self._is_measured()
        batch = read_batch(self.net, item, self.names.all)
        accuracy = self._accuracy(batch) if self.measured and self.tells_accuracy else None
        told = self.measured or bool(self.callbacks)  # a rate in a tensor of the device would be waited for
        lr = float(self.optimizer.param_groups[0]["lr"]) if told else math.nan
        result, energy = self._learn(batch)
        if self.settings.scheduler_each == "step":
            for scheduler in self.schedulers:
                scheduler.step()
        self.step, self.batch, self.samples = self.step + 1, self.batch + 1, self.samples + batch.size
        self.consistent = True
        for text in (*self._rise(result), *self.gradients.said(self.step)):
            self._warn(text)
        if energy is not None:
            self.energies.append(energy)
        if accuracy is not None:
            self.accuracies.append(accuracy)
        looked_at = result if self.callbacks else None
        return StepRecord(self.epoch, self.step, batch.size, energy, accuracy, lr, self.seconds(), looked_at)

    def _is_measured(self) -> bool:
        return self.batch % self.measure_every == 0 or self.batch + 1 == self.length

    def _learn(self, batch: Batch) -> tuple[InferenceResult | None, float | None]:
        """Let the rule learn from a batch; returns its inference, and the energy if this step is measured."""
        s = self.settings
        replayed = None if self.measured else self.replay(batch)
        if replayed is not None:
            return replayed, None
        self.updated = False
        self.clear()
        task = TrainingStep(
            self.net, batch.clamps, batch.labels, self.names.target, s.init, s.steps, s.state_optimizer,  # type: ignore[arg-type]
            s.check, self.measured and not self.told_rising, self.clear, self._update, self.changing,
            s.capture,  # type: ignore[arg-type]
        )  # fmt: skip
        keeps = has_state(s.rule)
        if keeps and not getattr(s.rule, "infers", True):
            self.changing()  # no inference of its says so
        found = s.rule(task)
        if keeps:
            self.changing()
        self._check_found(found, batch)
        energy = self._energy(found) if self.measured else None
        result = found if isinstance(found, InferenceResult) else None
        if self.measured and self.step and result is not None:
            self.gradients.see_plan(result.plan)
        if not self.updated:
            self._update()
        return result, energy

    def _check_found(self, found: Any, batch: Batch) -> None:
        """Before the weights move: what the rule returned can be measured and is finite, and there are gradients."""
        name = arguments.rule_name(self.settings.rule)
        if not isinstance(found, InferenceResult):
            if not isinstance(found, Tensor) or found.shape != (batch.size,):
                kind = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
                raise ConfigError(
                    f"the rule {name} must return the result of an inference, or an energy per sample, shape "
                    f"({batch.size},) (found {kind})",
                    key="rule",
                )
            if self.settings.check and not bool(torch.isfinite(found).all()):
                raise Diverged(
                    f"the energy is no longer finite in training step {self.step + 1}: use a smaller learning rate",
                    step=self.settings.steps or 0, node=None, largest=math.nan,
                )  # fmt: skip
        if not self.updated and all(p.grad is None for p in self.trained):
            raise ConfigError(
                f"the rule {name} left no gradients: call result.backward() in it, or step.update() if it moves the "
                "weights itself",
                key="rule",
            )

    def clear(self) -> None:
        """Take all gradients away."""
        for parameter in self.trained:
            parameter.grad = None

    def changing(self) -> None:
        """From now on, parameters, optimizer and initializer are of no one moment."""
        self.consistent = False

    def _update(self) -> None:
        """Move the weights by their gradients."""
        if self.measured:
            self.gradients.look()
        self.consistent, self.updated = False, True
        self.optimizer.step()

    def _accuracy(self, batch: Batch) -> float | None:
        """Of a sweep from everything but the target, or None where there is none."""
        target = batch.clamps.get(self.names.target)
        given = {name: value for name, value in batch.clamps.items() if name != self.names.target}
        if not isinstance(target, torch.Tensor) or not given:
            return None
        try:
            prediction = self.net.predict(given, self.names.target)
        except InvalidInitializer:
            self.tells_accuracy = False
            return None
        if prediction.shape != target.shape:  # the rule is about to say what is wrong with it
            return None
        hits, classes = torch.stack(correct(target, prediction)).tolist()
        return hits / batch.size if classes == batch.size else None

    def _energy(self, found: InferenceResult | Tensor) -> float:
        energy = float((found if isinstance(found, Tensor) else found.energy).mean())
        if not math.isfinite(energy):
            raise Diverged(
                f"the energy is no longer finite in training step {self.step + 1}; it was not looked at in every step "
                "(check=False), so parameters may be damaged since the last measured one. Use a smaller state rate or "
                "learning rate, and check=True to stop before that.",
                step=self.settings.steps or 0, node=None, largest=math.nan,
            )  # fmt: skip
        return energy

    def _rise(self, result: InferenceResult | None) -> tuple[str, ...]:
        """What to say once a run where inference, which is to lower the energy, multiplied it."""
        if result is None or result.trace is None or self.told_rising:
            return ()
        first, last = (float(energy) for energy in result.trace[[0, -1]].mean(1))
        if not 0 < RISE * first < last:
            return ()
        self.told_rising = True
        return (
            f"{INCREASED} ×{last / first:.3g} (from {first:.4g} to {last:.4g}, training step {self.step}): "
            f"{self.settings.state_optimizer!r} is above the safe rate; see pcgraph.safe_rate",
        )

    # -- one epoch --------------------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self.pending = {"generators": generators_state(self.net.device), "validation": self.validation_state()}
        validation = self._validate()
        if self.interrupts.asked:
            set_generators(self.pending["generators"], self.net.device)
            self.history.stopped = "interrupted"
            return
        energy = _mean(self.energies)
        accuracy = _mean(self.accuracies)
        lr = float(self.optimizer.param_groups[0]["lr"])
        record = EpochRecord(self.epoch, self.step, self.samples, energy, accuracy, lr, self.seconds(), validation)
        self._schedule(record)
        self.pending = None
        trouble = self.watch.see(self.epoch, validation.get("accuracy", accuracy), energy)
        record = replace(record, fell=self.watch.fallen)
        self._record(record)
        self.epoch, self.batch, self.samples, self.energies, self.accuracies = self.epoch + 1, 0, 0, [], []
        self.exact = True
        self.keeper.after_epoch(record)
        self.progress.finish(record)
        if trouble:
            self._warn(f"the run has fallen over: {trouble}. {FELL_ADVICE}")
        if self._call(record):
            self.history.stopped = "callback"

    def _validate(self) -> dict[str, float]:
        if self.settings.validate is None:
            return {}
        if callable(self.settings.validate):
            found = self.settings.validate(self.net)
        else:
            found = evaluate(
                self.net, self.settings.validate, given=self.names.given, predict=self.names.target,
                stop=lambda: self.interrupts.asked,
            )  # fmt: skip
        if isinstance(found, Evaluation):
            found = {k: v for k, v in found.as_dict().items() if k != "samples"}
        if isinstance(found, Mapping):
            return {str(name): float(value) for name, value in found.items()}
        return {getattr(self.settings.validate, "__name__", "value").replace("<lambda>", "value"): float(found)}

    def validation_state(self) -> Any:
        """Where validation's own loader stands, if it says so."""
        validate: Any = self.settings.validate
        return validate.state_dict() if has_state(validate) else None

    def _schedule(self, record: EpochRecord) -> None:
        if self.settings.scheduler_each == "step":
            return
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(self._followed(record))
            else:
                scheduler.step()

    def _followed(self, record: EpochRecord) -> float:
        stopping = self.settings.early_stopping
        name = self.settings.metric or (stopping.metric if stopping else "energy")
        value = metric_of(record, name)
        if value is None:
            raise ConfigError(f"the scheduler needs the metric {name!r}, which this run does not measure", key="metric")
        return value

    # -- telling ----------------------------------------------------------------------------------------------------

    def _record(self, record: StepRecord | EpochRecord) -> None:
        """Into the history and the logs, before the checkpoint that knows of it."""
        if isinstance(record, StepRecord):
            self.history.steps.append(replace(record, result=None))
        else:
            self.history.epochs.append(record)
        row = record.as_dict()
        for log in self.logs:
            log.write(row)

    def _call(self, record: StepRecord | EpochRecord) -> bool:
        """Tell the callbacks; returns whether one of them wants the run to stop."""
        answers = [callback(record) for callback in self.callbacks]
        return any(answer is True for answer in answers)

    def _warn(self, text: str, stacklevel: int = 6) -> None:
        if text not in self.history.warnings:
            self.history.warnings.append(text)
        warnings.warn(text, PCGraphWarning, stacklevel=stacklevel)

    def seconds(self) -> float:
        """Since the beginning of the run, pauses between resumed parts left out."""
        return self.before + time.perf_counter() - self.began


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
