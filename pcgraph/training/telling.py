"""A run tells of itself: to its bar, history and logs, to callbacks, and by warnings."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pcgraph.errors import PCGraphWarning
from pcgraph.processes import Group
from pcgraph.training.logs import ProgressBar, open_log
from pcgraph.training.options import FitOptions
from pcgraph.training.records import EpochRecord, History, StepRecord
from pcgraph.training.state import TrainingState

__all__ = ["Telling"]


class Telling:
    """Tells all who are to know of a run what happens in it.

    Parameters
    ----------
    options : FitOptions
    everyone : Group or None
        All processes of the run; callbacks of any may stop it, and the leading one warns.
    state : TrainingState
        It has the history.
    """

    def __init__(self, options: FitOptions, everyone: Group | None, state: TrainingState) -> None:
        self.options, self.everyone, self.state = options, everyone, state
        self.bar = ProgressBar(options.progress, options.epochs)
        self.logs = open_log(options.log, options.tensorboard)

    @property
    def history(self) -> History:
        """Give the records so far."""
        return self.state.history

    def begin(self) -> None:
        """Begin the logs, with what a resumed run has told before."""
        for log in self.logs:
            log.begin(self.history.rows())

    def begin_epoch(self, loader: Iterable[Any]) -> None:
        """Begin the bar of an epoch, or of the rest of a resumed one."""
        self.bar.start(self.state.epoch, loader, self.state.batch)

    def step(self, record: StepRecord | None) -> bool:
        """Tell of a step, as far as there is a record of it; returns whether a callback wants the run to stop."""
        measured = record if record is not None and record.energy is not None else None
        self.bar.step(measured)
        if measured is not None:
            self.record(measured)
        return record is not None and self.call(record)

    def record(self, record: StepRecord | EpochRecord) -> None:
        """Write into the history and the logs, before the checkpoint that knows of it."""
        if isinstance(record, StepRecord):
            self.history.steps.append(replace(record, result=None))
        else:
            self.history.epochs.append(record)
        row = record.as_dict()
        for log in self.logs:
            log.write(row)

    def end_epoch(self, record: EpochRecord) -> None:
        """End the bar of an epoch with its numbers."""
        self.bar.finish(record)

    def call(self, record: StepRecord | EpochRecord) -> bool:
        """Tell the callbacks; returns whether one of them wants the run to stop."""
        answers = [callback(record) for callback in self.options.callbacks]
        found = any(answer is True for answer in answers)
        return found if self.everyone is None or not self.options.callbacks else self.everyone.any(found)[0]

    def warn(self, text: str) -> None:
        """Warn in the name of whoever called ``fit``."""
        if text not in self.history.warnings:
            self.history.warnings.append(text)
        if self.everyone is not None and not self.everyone.leads:
            return
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pcgraph.training"):
            level, frame = level + 1, frame.f_back
        warnings.warn(text, PCGraphWarning, stacklevel=level)

    def has_told(self, beginning: str) -> bool:
        """Say whether a warning that begins so was given."""
        return any(text.startswith(beginning) for text in self.history.warnings)

    def close(self) -> None:
        """End the bar and the logs."""
        self.bar.finish(None)
        for log in self.logs:
            log.close()
