"""The state of a run says where it stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pcgraph.arguments import is_number, require_count
from pcgraph.training.collapse import CollapseDetector
from pcgraph.training.records import History

__all__ = ["TrainingState"]


@dataclass
class TrainingState:
    """Holds all that evolves in a run, beside the network and what else was given to ``fit``.

    Attributes
    ----------
    epoch, batch, step : int
        Epochs done, batches of this epoch done, steps done.
    samples : int
        Seen in this epoch so far.
    energies, accuracies : list of float
        Measured in this epoch so far.
    seconds_before : float
        Taken by the parts of the run before this one.
    history : History
    collapse : CollapseDetector
    exact : bool
        Whether no batch was drawn that was not trained on.
    before_validation : dict or None
        What the validation at hand may move, as it was before: the random generators, and its own loader.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    samples: int = 0
    energies: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds_before: float = 0.0
    history: History = field(default_factory=History)
    collapse: CollapseDetector = field(default_factory=CollapseDetector)
    exact: bool = True
    before_validation: dict[str, Any] | None = None
    _began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Count the seconds since the beginning of the run, pauses between resumed parts left out."""
        return self.seconds_before + time.perf_counter() - self._began

    @classmethod
    def read(cls, epoch: int, step: int, saved: Mapping[str, Any]) -> TrainingState:
        """Read what :meth:`state_dict` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is malformed.
        """
        numbers = [*saved["energies"], *saved["accuracies"], saved["seconds"], *saved["watch"].values()]
        if not all(is_number(value) or isinstance(value, bool) for value in numbers):
            raise TypeError("its measurements are no numbers")
        return cls(
            epoch=epoch, step=step, batch=require_count(saved["batch"], "batch"),
            samples=require_count(saved["samples"], "samples", most=2**63 - 1),
            energies=list(saved["energies"]), accuracies=list(saved["accuracies"]), seconds_before=saved["seconds"],
            history=History.read(saved["history"]), collapse=CollapseDetector(**saved["watch"]),
        )  # fmt: skip

    def become(self, other: TrainingState) -> None:
        """Take over all that `other` holds; the clock goes on."""
        vars(self).update({**vars(other), "_began": self._began})

    def count_step(self, samples: int, energy: float | None, accuracy: float | None) -> None:
        """Count one step, and what was measured in it."""
        self.step, self.batch, self.samples = self.step + 1, self.batch + 1, self.samples + samples
        self.energies += [] if energy is None else [energy]
        self.accuracies += [] if accuracy is None else [accuracy]

    def count_epoch(self) -> None:
        """Count one epoch, and begin the next."""
        self.epoch, self.batch, self.samples, self.energies, self.accuracies = self.epoch + 1, 0, 0, [], []
        self.exact = True

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run goes on from, as plain data; epoch and step stand in the checkpoint itself."""
        return {
            "batch": self.batch, "samples": self.samples, "energies": self.energies, "accuracies": self.accuracies,
            "seconds": self.seconds, "history": self.history.state_dict(), "watch": self.collapse.state_dict(),
        }  # fmt: skip
