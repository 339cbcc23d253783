"""The training loop.

One step is: read a batch, infer, take the local gradients, step the optimizer. Everything else (measuring, logging,
checkpoints) happens between steps or every few steps, so that a step costs what the engine costs.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pcgraph.checkpoints import generators_state, set_generators
from pcgraph.errors import CheckpointError, ConfigError, Diverged, InvalidInitializer, PCGraphWarning
from pcgraph.initializers import Forward, Initializer
from pcgraph.learning import InferenceResult
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.topology import check_phase
from pcgraph.training.batches import LABELS, Batch, check_names, read_batch
from pcgraph.training.interrupt import Interrupts
from pcgraph.training.keeper import Keeper
from pcgraph.training.logs import Progress, open_log
from pcgraph.training.measure import Evaluation, correct, evaluate
from pcgraph.training.position import Position, has_state
from pcgraph.training.records import EpochRecord, History, StepRecord, metric_of
from pcgraph.training.watch import FELL_ADVICE, EarlyStopping, Watch, small_gradients

__all__ = ["Run", "Settings"]

RISE = 2.0  # times the energy at the start, beyond which inference is not lowering it
INCREASED = "inference increased the energy"
Node = Hashable
Scheduler = LRScheduler | ReduceLROnPlateau
Callback = Callable[[Any], Any]
Validate = Callable[[PCNetwork], Evaluation | Mapping[str, float] | float] | Iterable[Any]


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`pcgraph.fit`, which says what they mean."""

    clamp: Any
    init: Initializer
    steps: int
    optimizer: torch.optim.Optimizer
    state_optimizer: StateOptimizer | None
    epochs: int
    predict: Node | None
    validate: Validate | None
    scheduler: Any
    scheduler_each: str
    early_stopping: EarlyStopping | None
    metric: str | None
    callbacks: Any
    checkpoint: str | Path | None
    checkpoint_every: int | None
    resume: str | Path | None
    progress: bool
    log: str | Path | None
    tensorboard: str | Path | None
    measure_every: int
    check: bool


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
        self.init, self.steps, self.optimizer = s.init, s.steps, s.optimizer
        self.names = check_names(net, s.clamp, "clamp")
        self.predict = self._target(s.predict)
        self.epochs = _positive("epochs", s.epochs)
        self.measure_every = _positive("measure_every", s.measure_every)
        self.schedulers = _schedulers(s.scheduler, s.scheduler_each)
        self.callbacks = (s.callbacks,) if callable(s.callbacks) else tuple(s.callbacks)
        self._check()
        self.history, self.watch = History(), Watch()
        self.epoch = self.batch = self.step = self.samples = 0
        self.energies: list[float] = []
        self.accuracies: list[float] = []
        self.before, self.began = 0.0, time.perf_counter()
        self.consistent = self.exact = True
        self.pending: dict[str, Any] | None = None
        self.tells_accuracy = self.predict is not None
        self.looks_at_eps = any(group.get("eps") for group in s.optimizer.param_groups)
        held = [p for group in s.optimizer.param_groups for p in group["params"]]
        self.trained = list({id(p): p for p in (*net.parameters(), *held)}.values())
        self.told_rising = False
        self.interrupts = Interrupts()
        self.position = Position(loader, net.device)
        self.keeper = Keeper(self, s.checkpoint, s.checkpoint_every)
        self.progress = Progress(s.progress, s.epochs)
        self.logs = open_log(s.log, s.tensorboard)

    def _target(self, predict: Node | None) -> Node | None:
        used = [name for name in self.names if name is not None and not self._says_class(name)]
        if predict is None:
            return used[-1] if len(used) > 1 else None
        self.net.structure.require_node(predict)
        return predict

    def _says_class(self, name: Node) -> bool:
        return name == LABELS and LABELS not in self.net.structure.number

    def _check(self) -> None:
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise ConfigError(
                f"optimizer= moves the weights and is one of torch.optim (found {self.optimizer!r}); the optimizer of "
                "the states goes to state_optimizer=",
                key="optimizer",
            )
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        own = [*self.net.parameters(), *(self.init.parameters() if isinstance(self.init, Initializer) else ())]
        if not any(id(p) in held for p in own):
            raise ConfigError(
                "the optimizer holds none of the network's parameters: make it of this network's net.parameters()",
                key="optimizer",
            )
        if self.epochs > 1 and iter(self.loader) is self.loader:
            raise ConfigError(
                f"{self.epochs} epochs need a loader that can be gone through again (found a "
                f"{type(self.loader).__name__}, which can be once): give a list or a DataLoader, or epochs=1",
                key="loader",
            )
        if self.settings.validate is not None and not callable(self.settings.validate) and self.predict is None:
            raise ConfigError(
                "validation on a loader needs to know what to predict: give predict=, or a function of the network",
                key="validate",
            )
        self._check_validation()

    def _check_validation(self) -> None:
        """Before an epoch is spent: validation on a loader is by a sweep, which the graph may not have."""
        if self.settings.validate is None or callable(self.settings.validate):
            return
        given = self._given()
        verdict = check_phase(self.net, given, repair=False).verdict(Forward())
        if given and not verdict.valid:
            names = ", ".join(repr(name) for name in given)
            raise InvalidInitializer(
                f"validation on a loader predicts {self.predict!r} by a sweep from {names}, and there is none: "
                f"{verdict.initializer} {verdict.reason}. Predicting needs init= and steps= there: "
                "validate=lambda net: pcgraph.evaluate(net, loader, init=..., steps=..., optimizer=...)",
                verdict=verdict,
            )

    def _given(self) -> tuple[Node, ...]:
        """What validation on a loader predicts from."""
        return tuple(n for n in self.names if n is not None and n != self.predict and not self._says_class(n))

    # -- the loop ---------------------------------------------------------------------------------------------------

    def go(self) -> History:
        """Train to the end, or to wherever the run is stopped."""
        resume = self.settings.resume
        if resume is not None:
            self.keeper.restore(resume)
            self.told_rising = any(text.startswith(INCREASED) for text in self.history.warnings)
        for log in self.logs:
            log.begin(len(self.history.steps) + len(self.history.epochs))
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
        measured = self.batch % self.measure_every == 0
        batch = read_batch(self.net, item, self.names)
        result = self.net.infer(
            batch.clamps, init=self.init, steps=self.steps, optimizer=self.settings.state_optimizer,
            labels=batch.labels, check=self.settings.check, trace=measured and not self.told_rising,
        )  # fmt: skip
        energy = self._energy(result) if measured else None
        accuracy = self._accuracy(batch) if measured and self.tells_accuracy else None
        self.consistent = False
        self._zero_grad()
        result.backward()
        vanishing = self._vanishing() if measured and self.looks_at_eps else ""
        lr = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        if (self.settings.scheduler_each == "step"):
            for scheduler in self.schedulers:
                scheduler.step()
        self.step, self.batch, self.samples = self.step + 1, self.batch + 1, self.samples + batch.size
        self.consistent = True
        risen = self._rise(result)
        if risen:
            self._warn(risen)
        if vanishing:
            self._warn(vanishing)
        if energy is not None:
            self.energies.append(energy)
        if accuracy is not None:
            self.accuracies.append(accuracy)
        looked_at = result if self.callbacks else None
        return StepRecord(self.epoch, self.step, batch.size, energy, accuracy, lr, self.seconds(), looked_at)

    def _zero_grad(self) -> None:
        for parameter in self.trained:
            parameter.grad = None

    def _accuracy(self, batch: Batch) -> float | None:
        """Of a sweep from everything but the target, or None where there is none."""
        target = batch.clamps.get(self.predict)
        given = {name: value for name, value in batch.clamps.items() if name != self.predict}
        if not isinstance(target, torch.Tensor) or not given:
            return None
        try:
            prediction = self.net.predict(given, self.predict)
        except InvalidInitializer:
            self.tells_accuracy = False
            return None
        hits, classes = torch.stack(correct(target, prediction)).tolist()
        return hits / batch.size if classes == batch.size else None

    def _energy(self, result: InferenceResult) -> float:
        energy = float(result.energy.mean())
        if not math.isfinite(energy):
            raise Diverged(
                f"the energy is no longer finite in training step {self.step}; it was not looked at in every step "
                "(check=False), so parameters may be damaged since the last measured one. Use a smaller state rate or "
                "learning rate, and check=True to stop before that.",
                step=self.steps, node=None, largest=math.nan,
            )  # fmt: skip
        return energy

    def _rise(self, result: InferenceResult) -> str:
        """What to say once a run where inference, which is to lower the energy, multiplied it."""
        if result.trace is None or self.told_rising:
            return ""
        first, last = (float(energy) for energy in result.trace[[0, -1]].mean(1))
        if not 0 < RISE * first < last:
            return ""
        self.told_rising = True
        return (
            f"{INCREASED} ×{last / first:.3g} (from {first:.4g} to {last:.4g}, training step {self.step}): "
            f"{self.settings.state_optimizer!r} is above the safe rate; see pcgraph.safe_rate"
        )

    def _vanishing(self) -> str:
        """What to say of gradients below the optimizer's eps, once a run."""
        found = small_gradients(self.net, self.optimizer)
        if not found:
            return ""
        self.looks_at_eps = False
        where = ", ".join(f"{name} ({rms:.1e})" for name, rms, _ in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return (
            f"gradients are below the optimizer's eps={found[0][2]:g}, so that these parameters hardly learn: "
            f"{where}{more} (root mean square, training step {self.step}). Give the optimizer a smaller eps "
            "(torch.optim.AdamW(..., eps=1e-12)), or inference more steps or a larger state rate."
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
        record = replace(record, fell=bool(trouble))
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
                self.net, self.settings.validate, given=self._given(), predict=self.predict,
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
        if (self.settings.scheduler_each == "step"):
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

    def _warn(self, text: str) -> None:
        self.history.warnings.append(text)
        warnings.warn(text, PCGraphWarning, stacklevel=6)

    def seconds(self) -> float:
        """Since the beginning of the run, pauses between resumed parts left out."""
        return self.before + time.perf_counter() - self.began


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _positive(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key} is a positive integer (found {value!r})", key=key)
    return value


def _schedulers(given: Any, each: str) -> tuple[Any, ...]:
    found = (given,) if isinstance(given, LRScheduler | ReduceLROnPlateau) else tuple(given or ())
    if each not in ("epoch", "step"):
        raise ConfigError(f"scheduler_each is 'epoch' or 'step' (found {each!r})", key="scheduler_each")
    if each == "step" and any(isinstance(s, ReduceLROnPlateau) for s in found):
        raise ConfigError("ReduceLROnPlateau follows the epochs: give scheduler_each='epoch'", key="scheduler_each")
    return found
