"""The training loop goes through epochs and steps.

One step is: read a batch, let the rule take its gradients, step the optimizer. Everything else (measuring, logging,
checkpoints) happens between steps or every few steps, so that a step costs what the engine costs.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pcgraph.checkpoints import set_generators
from pcgraph.errors import CheckpointError, ConfigError, Diverged, InvalidInitializer
from pcgraph.model import PCNetwork
from pcgraph.processes import Group
from pcgraph.topology import check_phase
from pcgraph.training.batches import Batch, mark, read_batch, take
from pcgraph.training.checkpointing import Checkpointing
from pcgraph.training.collapse import ADVICE, AT_CHANCE, at_chance
from pcgraph.training.evaluation import correct, evaluate, numbers_of
from pcgraph.training.gradients import GradientMonitor
from pcgraph.training.interrupts import Interrupts
from pcgraph.training.learner import Learner
from pcgraph.training.loader_position import LoaderPosition, length_of
from pcgraph.training.options import FitOptions, doubts
from pcgraph.training.ranks import facts, held_facts, level
from pcgraph.training.records import EpochRecord, History, StepRecord, metric_of
from pcgraph.training.stability import PASSED, Seen, StabilityMonitor
from pcgraph.training.state import TrainingState
from pcgraph.training.telling import Telling

__all__ = ["Trainer"]

MEASURED = 5  # times an epoch at least, where its length is known
LOOKED = 4  # times an epoch at least, for what is to be warned of: it takes more than a step
RISE = 2.0  # times the energy at the start, beyond which inference is not lowering it
TRAINING = ("energy", "accuracy")
INCREASED = "inference increased the energy"
INTERRUPTED = "interrupted"
END = object()
Node = Hashable


class Trainer:
    """Trains a network: all parts of a run, and the loop over epochs and steps.

    Parameters
    ----------
    net : PCNetwork
    loader : iterable
        Of batches.
    options : FitOptions
    """

    def __init__(self, net: PCNetwork, loader: Iterable[Any], options: FitOptions) -> None:
        self.group, self.everyone, self.given = options.group, options.everyone, options
        if self.everyone is not None and not self.everyone.leads:  # one rank shows
            options = replace(options, progress=False, log=None, tensorboard=None)
        if self.group is not None and not self.group.leads:  # and of those that hold the same, one writes
            options = replace(options, checkpoint=None, checkpoint_every=None)
        self.net, self.loader, self.options = net, loader, options
        self.state = TrainingState()
        self.gradients = GradientMonitor(net, options.optimizer, options.state_optimizer)
        self.learner = Learner(net, options, self.gradients, self.group)
        self.stability = StabilityMonitor(net, options, self.learner.recording)
        parts = (loader, getattr(loader, "order", None), getattr(loader, "data", None))
        own = all(type(part).__module__.startswith("pcgraph.data.") for part in parts)
        self.learner.recording.undisturbed = own and options.scheduler_each != "step"
        self.position = LoaderPosition(loader, net.device)
        self.checkpoints = Checkpointing(net, options, self.state, self.position, self.gradients, self.learner.updates)
        self.interrupts = Interrupts()
        self.telling = Telling(options, self.everyone, self.state)
        self.length, most = length_of(loader), options.measure_every
        self.measure_every = min(most, max(1, (self.length or MEASURED * most) // MEASURED))
        few = max(1, (self.length or 0) // self.measure_every // LOOKED)
        #: Steps between those that are looked at more closely; all of them are measured.
        self.look_every = few * self.measure_every
        shape = () if options.layout.target is None else net.structure.shape(options.layout.target)
        self.classes = shape[0] if len(shape) == 1 else 0
        self.tells_accuracy = options.layout.target is not None
        #: Of predictions: where the step alone cannot be recorded, they still can.
        self.capture: Literal["auto", False] = "auto" if options.capture else False

    @property
    def history(self) -> History:
        """Give the records so far."""
        return self.state.history

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Train to the end, or to wherever the run is stopped."""
        with self.checkpoints, self.options.precision_of(self.net):
            self._begin()
            with self._ended_well(), self.interrupts:
                self._save()
                while self.state.epoch < self.options.epochs and not self.history.stopped:
                    if self._is_enough():
                        self.history.stopped = "early stopping"
                        break
                    self._one_epoch()
                self.history.stopped = self.history.stopped or "finished"
                self._save()
                if self.history.stopped == INTERRUPTED and self.options.on_interrupt == "raise":
                    raise KeyboardInterrupt
        return self.history

    def _begin(self) -> None:
        """Go on where a checkpoint was written, say what is doubtful, and begin the logs."""
        if self.options.resume is not None:
            self.checkpoints.restore(self.options.resume)
        if self.everyone is not None:
            alike = facts(self.net, self.loader, self.given, self.state)
            held = held_facts(self.net, self.given)  # by those that hold the same
            self.everyone.agree({**alike, **({} if self.net.group is not None else held)})
            if self.group is not None and self.net.group is not None:
                self.group.agree(held)
        for text in doubts(self.given, self.state.epoch, self._is_enough()):
            self.telling.warn(text)
        self.telling.begin()

    def _one_epoch(self) -> None:
        self.telling.begin_epoch(self.loader)
        self.learner.recording.look_again()  # after schedulers, validation and callbacks
        batches = self.position.begin()
        while self._one_step(batches):
            if self.checkpoints.is_due():
                self._save()
        if self.history.stopped:
            return
        if self.state.batch == 0:
            raise ConfigError(
                "there is nothing to train on: the loader is empty"
                + (", or can be gone through only once" if self.state.epoch else ""),
                key="loader",
            )
        self._end_epoch()

    def _one_step(self, batches: Iterator[Any]) -> bool:
        """Draw a batch, learn from it and tell of it; False where the epoch is over or the run is to stop.

        Whatever a step leaves behind, its states and with them the engine's buffers, is free again when this returns.
        """
        state = self.state
        state.exact = False
        item = self._draw(batches)
        if self.everyone is None and item is END:
            return False
        batch = None if item is END else read_batch(
            self.net, item, self.options.layout.entries, check=self.options.check
        )  # fmt: skip
        if self.everyone is not None:
            batch = self._shared(batch, self.everyone)
        if batch is None:
            return False
        measured = state.batch % self.measure_every == 0 or state.batch + 1 == self.length
        looked = measured and state.batch % self.look_every == 0
        if measured:
            self.learner.recording.look_again()
        hits = self._hits(batch) if measured else None
        trace = looked and not self.telling.has_told(INCREASED)
        seen = self.stability.look(batch, state.step, self.history.steps) if looked else None
        result, energy, rise = self.learner.learn(
            batch, step=state.step + 1, measured=measured, looked=looked, trace=trace
        )
        # What lies on the device is read when the step has been started, and where it is told of alone.
        accuracy = None if hits is None else _accuracy(self._summed(hits), batch.total)
        told = measured or bool(self.options.callbacks)
        lr = float(self.options.optimizer.param_groups[0]["lr"]) if told else math.nan
        if self.learner.moved:
            self._schedule_step()
        state.count_step(batch.total, energy, accuracy)
        self.learner.consistent = True
        if looked:
            seen = self.stability.after() if seen is None else seen
            if self.net.group is not None:
                self.gradients.share(self.net.group)
            self._warn_of(seen, rise)
        state.exact = True
        if not told:
            return self._tell_step(None)
        looked_at = result if self.options.callbacks else None
        return self._tell_step(
            StepRecord(
                state.epoch + 1,
                state.step,
                batch.total,
                energy,
                accuracy,
                lr,
                state.seconds,
                seen.curvature if seen else None,
                seen.reach if seen else None,
                looked_at,
            )
        )

    def _draw(self, batches: Iterator[Any]) -> Any:
        """Draw the next batch, or return END."""
        try:
            return next(batches, END)
        except Exception:
            if not self.interrupts.asked:
                raise
            self.history.stopped = INTERRUPTED  # Ctrl-C ends the processes of a DataLoader, too
            return END

    def _shared(self, batch: Batch | None, group: Group) -> Batch | None:
        """Take this rank's part of a batch; None where the epoch is over, or the run is to stop, on all ranks.

        Raises
        ------
        ConfigError
            The ranks have drawn different batches.
        """
        group.step = self.state.step + 1
        size = 0 if batch is None else batch.size
        looked = batch is not None and (self.options.check or self.net.device.type == "cpu")
        own = [float(self._asked()), size, mark(batch) if batch is not None and looked else 0.0]
        found = group.gather_numbers(own)
        if bool(found[:, 0].any()):
            self.history.stopped = INTERRUPTED
            return None
        other = (found[:, 1:] != found[0, 1:]).any(1).nonzero().flatten().tolist()
        if other:
            rank, sizes = other[0], [int(n) for n in found[:, 1].tolist()]
            what = f"{sizes[0]} samples on rank 0, {sizes[rank]} on rank {rank}"
            if sizes[0] == sizes[rank]:
                what = f"other samples, or another order, on rank {rank} than on rank 0"
            raise ConfigError(
                f"all ranks draw the same, whole batches, and each takes its part of them (found {what}, training step "
                f"{group.step}): seed the loader's generator alike on all ranks, and leave out a DistributedSampler",
                key="loader",
            )
        return batch if batch is None or self.group is None else take(batch, self.group)

    def _asked(self) -> bool:
        """Say whether this process was told to stop."""
        return self.interrupts.asked or self.history.stopped == INTERRUPTED

    def _summed(self, counts: torch.Tensor) -> list[float]:
        """Add up counts over all ranks; a batch of which a rank has no sample of its own counts nothing there."""
        if self.group is None:
            return counts.tolist()
        found: list[float] = self.group.gather_numbers(counts.tolist()).sum(0).tolist()
        return found

    def _tell_step(self, record: StepRecord | None) -> bool:
        """Tell of a step, as far as there is a record of it; False: the run is to stop."""
        if self.telling.step(record):
            self.history.stopped = "callback"
        if self.interrupts.asked and self.everyone is None:  # ranks stop together, before the next step
            self.history.stopped = INTERRUPTED
        return not self.history.stopped

    def _end_epoch(self) -> None:
        """Validate, step the schedulers, tell of the epoch, and save."""
        state = self.state
        if self.learner.flush():
            self._schedule_step()
        self.learner.require_finite(state.step)
        before = state.before_validation = self.checkpoints.taken_down()
        validation, count = self._validate()
        asked = self.interrupts.asked
        if self.everyone is not None:
            validation, count = self.everyone.gather_data([validation, count])[0]
            (asked,) = self.everyone.any(asked)
        level(self.net, self.options.init, self.group)
        if asked:
            set_generators(before["generators"], self.net.device)
            self.history.stopped = INTERRUPTED
            return
        energy, accuracy = _mean(state.energies), _mean(state.accuracies)
        lr = float(self.options.optimizer.param_groups[0]["lr"])
        record = EpochRecord(
            state.epoch + 1, state.step, state.samples, energy, accuracy, lr, state.seconds, validation
        )  # fmt: skip
        self._require_metrics(record)
        self._schedule(record)
        state.before_validation = None
        measured, of = (validation["accuracy"], count) if "accuracy" in validation else (accuracy, record.samples)
        trouble = state.collapse.see(record.epoch, measured, energy, of)
        seen = next((r for r in reversed(self.history.steps) if r.curvature is not None), None)
        record = replace(record, fell=state.collapse.fallen)
        if seen is not None and seen.epoch == record.epoch:
            record = replace(record, curvature=seen.curvature, reach=seen.reach)
        self.telling.record(record)
        state.count_epoch()
        self.checkpoints.after_epoch(record)
        self.telling.end_epoch(record)
        if trouble:
            self.telling.warn(f"the run has fallen over: {trouble}. {self.stability.too_fast or ADVICE}")
        if not self.telling.has_told(AT_CHANCE):
            for text in at_chance(self.history.epochs, self.classes, self._leaks):
                self.telling.warn(text)
        if self.telling.call(record):
            self.history.stopped = "callback"

    # -- how it ends ------------------------------------------------------------------------------------------------

    @contextmanager
    def _ended_well(self) -> Iterator[None]:
        """Keep what there is, whatever ends the run; an error goes on to the caller."""
        try:
            yield
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self.learner.recording.forget()
            self.telling.close()

    def _failed(self, error: BaseException) -> None:
        folder = self.checkpoints.folder
        told = INTERRUPTED if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        self.history.stopped = told
        error.history = self.history  # type: ignore[attr-defined]
        if folder is None or isinstance(error, CheckpointError):
            return
        if self.net.group is not None:  # to save takes all ranks, and this error may be of one
            error.add_note(f"The last checkpoint is in {folder}.")
            return
        if not self.learner.consistent:
            error.add_note(f"It came in the middle of an update; the last checkpoint is in {folder}.")
            return
        try:
            self._save()
        except (CheckpointError, Diverged) as second:
            error.add_note(f"The run could not be saved: {second}")
        else:
            error.add_note(
                f"The run is saved in {folder}, as it was after training step {self.state.step}; "
                "fit(..., resume=...) goes on from there."
            )

    def _save(self) -> None:
        """Save the run as it is, unless an update has damaged it: the checkpoints before are better."""
        if self.checkpoints.folder is not None:
            self.learner.require_finite(self.state.step)
            self.checkpoints.save()

    def _is_enough(self) -> bool:
        """Say whether early stopping ends the run here, between two epochs."""
        at_boundary = self.state.batch == 0 and bool(self.history.epochs)
        stopping = self.options.early_stopping
        return at_boundary and stopping is not None and stopping.done(self.history.epochs)

    # -- measuring --------------------------------------------------------------------------------------------------

    def _hits(self, batch: Batch) -> torch.Tensor | None:
        """Count what a sweep from everything but the target gets right, and the classes; None where there is none."""
        node = self.options.layout.target
        target = batch.clamps.get(node)
        given = {name: value for name, value in batch.clamps.items() if name not in self.options.layout.targets}
        if not self.tells_accuracy or not isinstance(target, torch.Tensor) or not given:
            return None

        def count(clamps: Mapping[Node, Any], labels: torch.Tensor | None, **how: Any) -> torch.Tensor | None:
            prediction = self.net.predict({name: clamps[name] for name in given}, node, **how)
            if prediction.shape != target.shape:  # the rule is about to say what is wrong with it
                return None
            return torch.stack(correct(clamps[node], prediction))

        try:
            counts: torch.Tensor | None = self.learner.recording.beside("hits", partial(count, check=False), batch)
            if counts is None:
                counts = count(batch.clamps, None, check=self.options.check, capture=self.capture)
        except InvalidInitializer:
            self.tells_accuracy = False
            return None
        alone = batch.part is not None and not batch.part.count
        return counts * 0 if alone and counts is not None else counts

    def _warn_of(self, seen: Seen | None, rise: tuple[float, float] | None) -> None:
        """Warn of what a closer look at a step has shown."""
        for text in (*self._rise(rise), *self.gradients.said(self.state.step)):
            self.telling.warn(text)
        if seen and not self.telling.has_told(PASSED) and not self.telling.has_told(INCREASED):
            for text in self.stability.said(self.state.step):
                self.telling.warn(text)

    def _rise(self, energies: tuple[float, float] | None) -> tuple[str, ...]:
        """Say once a run where inference, which is to lower the energy, multiplied it."""
        first, last = energies or (0.0, 0.0)
        if not 0 < RISE * first < last:
            return ()
        return (
            f"{INCREASED} ×{last / first:.3g} (from {first:.4g} to {last:.4g}, training step {self.state.step}): "
            f"{self.options.state_optimizer!r} is above the safe rate; see pcgraph.safe_rate"
            + (f". {self.stability.too_fast.capitalize()}" if self.stability.too_fast else ""),
        )

    def _validate(self) -> tuple[dict[str, float], int | None]:
        """Measure what is asked for, by name; and say on how many samples, where that is known."""
        validate, layout = self.options.validate, self.options.layout
        if validate is None:
            return {}, None
        if callable(validate):
            found = validate(self.options.judged(self.net))
        else:
            found = evaluate(
                self.options.judged(self.net), validate, given=layout.given or None,
                predict=_one_or_all(layout.targets), stop=lambda: self.interrupts.asked, check=self.options.check,
                capture=self.capture, group=False if self.group is None else self.group,
            )  # fmt: skip
        return numbers_of(found, getattr(validate, "__name__", "value").replace("<lambda>", "value"))

    def _schedule_step(self) -> None:
        """Step the schedulers that follow the updates of the weights."""
        if self.options.scheduler_each == "step":
            for scheduler in self.options.schedulers:
                scheduler.step()

    def _schedule(self, record: EpochRecord) -> None:
        if self.options.scheduler_each == "step":
            return
        for scheduler in self.options.schedulers:
            if isinstance(scheduler, ReduceLROnPlateau):
                value = metric_of(record, self.options.followed or "energy")
                assert value is not None
                scheduler.step(value)
            else:
                scheduler.step()

    def _require_metrics(self, record: EpochRecord) -> None:
        """Refuse a name that this run does not measure: only a validation's own function tells what it measures."""
        plateau = any(isinstance(scheduler, ReduceLROnPlateau) for scheduler in self.options.schedulers)
        stopping = self.options.early_stopping
        asked = {"metric=": self.options.metric, "early stopping": stopping.metric if stopping else None}
        if plateau:
            asked["the scheduler"] = self.options.followed or "energy"
        for who, name in asked.items():
            if name is not None and metric_of(record, name) is None:
                known = sorted({*record.validation, *(n for n in TRAINING if metric_of(record, n) is not None)})
                raise ConfigError(f"{who} needs the metric {name!r} (found {', '.join(known) or 'none'})", key="metric")

    def _leaks(self) -> list[str]:
        """Name the clamped nodes that help to predict themselves, as far as what is trained on tells."""
        layout = self.options.layout
        known = {v for v in (*layout.given, *layout.targets) if v in self.net.graph}
        leaks = check_phase(self.net.graph, known, repair=False).leaks
        return [str(leak) for leak in leaks if leak.nodes[0] in layout.targets]


def _accuracy(counted: list[float], samples: int) -> float | None:
    """Turn hits and classes into an accuracy; None where not every target is a class."""
    hits, classes = counted
    return hits / samples if classes == samples else None


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _one_or_all(targets: tuple[Node, ...]) -> Any:
    """Give one target as itself, and several as the list that evaluate takes."""
    return targets[0] if len(targets) == 1 else list(targets)
