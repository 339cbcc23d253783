"""fit: the training loop.

One step is: read a batch, infer, take the local gradients, step the optimizer. Everything else (measuring, logging,
checkpoints) happens between steps or every few steps, so that a step costs what the engine costs.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pcgraph.errors import ConfigError, Diverged, InvalidInitializer, PCGraphWarning
from pcgraph.initializers import Initializer
from pcgraph.learning import InferenceResult
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.training.batches import LABELS, Batch, check_names, read_batch
from pcgraph.training.interrupt import Interrupts
from pcgraph.training.logs import Progress, open_log
from pcgraph.training.measure import Evaluation, correct, evaluate
from pcgraph.training.records import EpochRecord, History, StepRecord, metric_of
from pcgraph.training.watch import FELL_ADVICE, EarlyStopping, Watch, small_gradients

__all__ = ["fit"]

Node = Hashable
Scheduler = LRScheduler | ReduceLROnPlateau
Callback = Callable[[Any], Any]
Validate = Callable[[PCNetwork], Evaluation | Mapping[str, float] | float] | Iterable[Any]


def fit(
    net: PCNetwork, loader: Iterable[Any], *, clamp: Node | Sequence[Node | None] = ("x", "y"), init: Initializer,
    steps: int, optimizer: torch.optim.Optimizer, state_optimizer: StateOptimizer | None = None, epochs: int = 1,
    predict: Node | None = None, validate: Validate | None = None, scheduler: Scheduler | Sequence[Scheduler] = (),
    scheduler_each: str = "epoch", early_stopping: EarlyStopping | None = None, metric: str | None = None,
    callbacks: Callback | Sequence[Callback] = (), progress: bool = True, log: str | Path | None = None,
    tensorboard: str | Path | None = None, measure_every: int = 20, check: bool = True,
) -> History:  # fmt: skip
    """Train a network."""
    run = _Run(
        net, loader, clamp=clamp, init=init, steps=steps, optimizer=optimizer, state_optimizer=state_optimizer,
        epochs=epochs, predict=predict, validate=validate, scheduler=scheduler, scheduler_each=scheduler_each,
        early_stopping=early_stopping, metric=metric, callbacks=callbacks, progress=progress, log=log,
        tensorboard=tensorboard, measure_every=measure_every, check=check,
    )  # fmt: skip
    return run.go()


class _Run:
    """All that a run consists of, and where it stands."""

    def __init__(
        self, net: PCNetwork, loader: Iterable[Any], *, clamp: Any, init: Initializer, steps: int,
        optimizer: torch.optim.Optimizer, state_optimizer: StateOptimizer | None, epochs: int, predict: Node | None,
        validate: Validate | None, scheduler: Any, scheduler_each: str, early_stopping: EarlyStopping | None,
        metric: str | None, callbacks: Any, progress: bool, log: Any, tensorboard: Any, measure_every: int, check: bool,
    ) -> None:  # fmt: skip
        self.net, self.loader, self.init, self.steps = net, loader, init, steps
        self.optimizer, self.state_optimizer, self.check = optimizer, state_optimizer, check
        self.names = check_names(net, clamp, "clamp")
        self.predict = self._target(predict)
        self.epochs = _positive("epochs", epochs)
        self.measure_every = _positive("measure_every", measure_every)
        self.validate, self.early_stopping, self.metric = validate, early_stopping, metric
        self.schedulers = _schedulers(scheduler, scheduler_each)
        self.each_step = scheduler_each == "step"
        self.callbacks = (callbacks,) if callable(callbacks) else tuple(callbacks)
        self._check()
        self.history = History()
        self.watch = Watch()
        self.epoch = self.batch = self.step = 0
        self.samples, self.energies, self.accuracies = 0, [], []
        self.before, self.began = 0.0, time.perf_counter()
        self.consistent = True
        self.tells_accuracy = self.predict is not None
        self.looks_at_eps = any(group.get("eps") for group in optimizer.param_groups)
        known = {id(p) for p in net.parameters()}
        self.own = [p for p in net.parameters() if p.requires_grad]
        self.others = [p for g in optimizer.param_groups for p in g["params"] if id(p) not in known]
        self.interrupts = Interrupts()
        self.progress = Progress(progress, epochs)
        self.logs = open_log(log, tensorboard)

    samples: int
    energies: list[float]
    accuracies: list[float]

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
        if self.validate is not None and not callable(self.validate) and self.predict is None:
            raise ConfigError(
                "validation on a loader needs to know what to predict: give predict=, or a function of the network",
                key="validate",
            )

    # -- the loop ---------------------------------------------------------------------------------------------------

    def go(self) -> History:
        """Train to the end, or to wherever the run is stopped."""
        self.began = time.perf_counter()
        try:
            with self.interrupts:
                while self.epoch < self.epochs and not self.history.stopped:
                    if self._is_enough():
                        self.history.stopped = "early stopping"
                        break
                    self._one_epoch()
                self.history.stopped = self.history.stopped or "finished"
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
        return at_boundary and self.early_stopping is not None and self.early_stopping.done(self.history.epochs)

    def _failed(self, error: BaseException) -> None:
        self.history.stopped = f"{type(error).__name__}: {error}"
        error.history = self.history  # type: ignore[attr-defined]

    def _one_epoch(self) -> None:
        self.progress.start(self.epoch, self.loader, self.batch)
        for item in self.loader:
            record = self._step(item)
            self.progress.step(record if record.energy is not None else None)
            if self._tell(record) or self.interrupts.asked:
                self.history.stopped = "interrupted" if self.interrupts.asked else "callback"
                return
        if self.batch == 0:
            raise ConfigError("there is nothing to train on: the loader is empty", key="loader")
        self._end_epoch()

    # -- one step ---------------------------------------------------------------------------------------------------

    def _step(self, item: Any) -> StepRecord:
        measured = self.batch % self.measure_every == 0
        batch = read_batch(self.net, item, self.names)
        accuracy = self._accuracy(batch) if measured and self.tells_accuracy else None
        result = self.net.infer(
            batch.clamps, init=self.init, steps=self.steps, optimizer=self.state_optimizer, labels=batch.labels,
            check=self.check,
        )  # fmt: skip
        energy = self._energy(result) if measured else None
        self.consistent = False
        self._zero_grad()
        result.backward()
        if measured and self.looks_at_eps:
            self._look_at_eps()
        lr = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        if self.each_step:
            for scheduler in self.schedulers:
                scheduler.step()
        self.step, self.batch, self.samples = self.step + 1, self.batch + 1, self.samples + batch.size
        self.consistent = True
        if energy is not None:
            self.energies.append(energy)
        if accuracy is not None:
            self.accuracies.append(accuracy)
        return StepRecord(self.epoch, self.step, batch.size, energy, accuracy, lr, self._seconds(), result)

    def _zero_grad(self) -> None:
        """Zeros in place for the network, whose parameters get a gradient in every step; none for all others."""
        gradients = [p.grad for p in self.own if p.grad is not None]
        if gradients:
            torch._foreach_zero_(gradients)
        for parameter in self.others:
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

    def _look_at_eps(self) -> None:
        found = small_gradients(self.net, self.optimizer)
        if found:
            self.looks_at_eps = False
            where = ", ".join(f"{name} ({rms:.1e})" for name, rms, _ in found[:3])
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            self._warn(
                f"gradients are below the optimizer's eps={found[0][2]:g}, so that these parameters hardly learn: "
                f"{where}{more} (root mean square, training step {self.step}). Give the optimizer a smaller eps "
                "(torch.optim.AdamW(..., eps=1e-12)), or inference more steps or a larger state rate."
            )

    # -- one epoch --------------------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        validation = self._validate()
        if self.interrupts.asked:
            self.history.stopped = "interrupted"
            return
        energy = _mean(self.energies)
        accuracy = _mean(self.accuracies)
        lr = float(self.optimizer.param_groups[0]["lr"])
        trouble = self.watch.see(self.epoch, validation.get("accuracy", accuracy), energy)
        record = EpochRecord(
            self.epoch, self.step, self.samples, energy, accuracy, lr, self._seconds(), validation, bool(trouble)
        )
        self.history.epochs.append(record)
        self._schedule(record)
        self.epoch, self.batch, self.samples, self.energies, self.accuracies = self.epoch + 1, 0, 0, [], []
        self.progress.finish(record)
        if trouble:
            self._warn(f"the run has fallen over: {trouble}. {FELL_ADVICE}")
        if self._tell(record):
            self.history.stopped = "callback"

    def _validate(self) -> dict[str, float]:
        if self.validate is None:
            return {}
        if callable(self.validate):
            found = self.validate(self.net)
        else:
            given = tuple(None if n == self.predict or self._says_class(n) else n for n in self.names)
            order = tuple(n for n in given if n is not None)
            found = evaluate(
                self.net, self.validate, given=order, predict=self.predict, stop=lambda: self.interrupts.asked
            )
        if isinstance(found, Evaluation):
            found = {k: v for k, v in found.as_dict().items() if k != "samples"}
        if isinstance(found, Mapping):
            return {str(name): float(value) for name, value in found.items()}
        return {getattr(self.validate, "__name__", "value").replace("<lambda>", "value"): float(found)}

    def _schedule(self, record: EpochRecord) -> None:
        if self.each_step:
            return
        for scheduler in self.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(self._followed(record))
            else:
                scheduler.step()

    def _followed(self, record: EpochRecord) -> float:
        name = self.metric or (self.early_stopping.metric if self.early_stopping else None) or "energy"
        value = metric_of(record, name)
        if value is None:
            raise ConfigError(f"the scheduler needs the metric {name!r}, which this run does not measure", key="metric")
        return value

    # -- telling ----------------------------------------------------------------------------------------------------

    def _tell(self, record: StepRecord | EpochRecord) -> bool:
        """Into the history, the logs, the callbacks; returns whether a callback wants the run to stop."""
        if isinstance(record, EpochRecord) or record.energy is not None:
            row = record.as_dict()
            for log in self.logs:
                log.write(row)
            if isinstance(record, StepRecord):
                kept = {k: v for k, v in row.items() if k != "kind"}
                self.history.steps.append(StepRecord(**kept))
        wanted = [callback(record) for callback in self.callbacks]
        return any(answer is True for answer in wanted)

    def _warn(self, text: str) -> None:
        self.history.warnings.append(text)
        warnings.warn(text, PCGraphWarning, stacklevel=6)

    def _seconds(self) -> float:
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
