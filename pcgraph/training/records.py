"""A run tells of itself by one record a step or epoch, and by the history of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pcgraph.arguments import is_number, require_count, shown
from pcgraph.learning import InferenceResult

__all__ = ["EpochRecord", "History", "StepRecord", "is_larger_better", "metric_of"]

T = TypeVar("T")


@dataclass(frozen=True)
class StepRecord:
    """Tells of one training step, after the parameters have moved.

    Attributes
    ----------
    epoch : int
        From 1, as the bar, the log and checkpoints count.
    step : int
        Steps since the run began, this one included.
    samples : int
        In this batch.
    energy : float or None
        Mean per sample at the final states of the inference; None in steps that are not measured.
    accuracy : float or None
        Of the prediction by a sweep, before this step's update, from 0 to 1. None in steps that are not measured, and
        where there is no sweep or no class.
    lr : float
        Rate of the optimizer's first group.
    seconds : float
        Since the beginning of the run, pauses between resumed parts left out.
    curvature : float or None
        The largest curvature of the energy where inference began, over this batch; None in steps that did not look,
        see ``curvature_every=`` of :func:`pcgraph.fit`.
    reach : float or None
        ``f = 1 - (1 - rate * curvature)**T``: how far inference goes along that direction. Near 0 weights learn what
        backpropagation teaches; at 1 inference has arrived; far from both it swings.
    result : InferenceResult or None
        States and errors of this step, for callbacks; a history does not keep them.
    """

    epoch: int
    step: int
    samples: int
    energy: float | None
    accuracy: float | None
    lr: float
    seconds: float
    curvature: float | None = None
    reach: float | None = None
    result: InferenceResult | None = field(default=None, repr=False, compare=False)

    kind = "step"

    def as_dict(self) -> dict[str, Any]:
        """Give everything but the result, for a log."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "result"}}


@dataclass(frozen=True)
class EpochRecord:
    """Tells of one epoch, after validation.

    Attributes
    ----------
    epoch : int
        From 1.
    step : int
        Steps since the run began.
    samples : int
        Seen in this epoch.
    energy, accuracy : float or None
        Means over the measured steps of this epoch, see :class:`StepRecord`.
    lr : float
    seconds : float
        Since the beginning of the run.
    validation : dict
        Name -> number, from ``validate=``; empty without it.
    fell : bool
        The run has fallen over: it is far worse than it was before, see :class:`pcgraph.training.CollapseDetector`.
    curvature, reach : float or None
        The last of this epoch, see :class:`StepRecord`.
    """

    epoch: int
    step: int
    samples: int
    energy: float | None
    accuracy: float | None
    lr: float
    seconds: float
    validation: Mapping[str, float] = field(default_factory=dict)
    fell: bool = False
    curvature: float | None = None
    reach: float | None = None

    kind = "epoch"

    def as_dict(self) -> dict[str, Any]:
        """Give everything, for a log; the names of validation's numbers begin with ``validation_``."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "validation"}
        return {"kind": self.kind, **plain, **{f"validation_{k}": v for k, v in self.validation.items()}}

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch}"]
        parts += [f"energy {self.energy:.4g}"] if self.energy is not None else []
        parts += [f"accuracy {self.accuracy:.2%}"] if self.accuracy is not None else []
        parts += [f"validation {k} {v:.4g}" for k, v in self.validation.items()]
        return ", ".join(parts)


@dataclass
class History:
    """Keeps the records of a run.

    Attributes
    ----------
    epochs : list of EpochRecord
    steps : list of StepRecord
        The measured ones.
    stopped : str
        Why the run ended: ``"finished"``, ``"early stopping"``, ``"callback"``, ``"interrupted"``, or the error.
    warnings : list of str
        What was warned of.
    """

    epochs: list[EpochRecord] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    stopped: str = ""
    warnings: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """Say it in short, since a prompt shows it wherever ``fit(...)`` stands by itself."""
        last = f"; {self.epochs[-1]}" if self.epochs else ""
        count = f"{len(self.epochs)} epoch{'' if len(self.epochs) == 1 else 's'}"
        return f"History({count}, {self.stopped or 'still running'}{last})"

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self.epochs)

    def __len__(self) -> int:
        return len(self.epochs)

    def values(self, metric: str) -> list[float]:
        """Give one number an epoch: a name of validation's numbers, or ``"energy"`` or ``"accuracy"`` of training.

        Validation's numbers come first where both have the name; epochs without it are left out.
        """
        found = (metric_of(record, metric) for record in self.epochs)
        return [value for value in found if value is not None]

    def best(self, metric: str = "accuracy", *, largest: bool | None = None) -> EpochRecord | None:
        """Find the first epoch with the best value, or None if there is none.

        Parameters
        ----------
        metric : str
            As in :meth:`values`.
        largest : bool, optional
            Whether larger is better; by default for accuracies alone.
        """
        sign = 1.0 if (is_larger_better(metric) if largest is None else largest) else -1.0
        best: EpochRecord | None = None
        top = -float("inf")
        for record in self.epochs:
            value = metric_of(record, metric)
            if value is not None and sign * value > top:
                best, top = record, sign * value
        return best

    def rows(self) -> list[dict[str, Any]]:
        """Give all records as a log has them, in the order in which they were made."""
        made: list[StepRecord | EpochRecord] = [*self.steps, *self.epochs]
        records = sorted(made, key=lambda r: (r.epoch, r.kind == "epoch"))
        return [record.as_dict() for record in records]

    def state_dict(self) -> dict[str, Any]:
        """Give all of it as plain data."""
        return {
            "first_epoch": 1,
            "epochs": [_plain(r) for r in self.epochs],
            "steps": [_plain(r) for r in self.steps],
            "stopped": self.stopped,
            "warnings": list(self.warnings),
        }

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> History:
        """Read what :meth:`state_dict` gave, as the history of a run that goes on.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is malformed.
        """
        warnings = list(state["warnings"])
        if not all(isinstance(text, str) for text in warnings):
            raise TypeError("a warning is a text")
        late = 1 - require_count(state.get("first_epoch", 0), "first_epoch", most=1)  # it was counted from 0 once
        epochs = [_read(EpochRecord, plain, late) for plain in state["epochs"]]
        steps = [_read(StepRecord, plain, late) for plain in state["steps"]]
        return cls(epochs, steps, "", warnings)


def _read(kind: type[T], plain: Mapping[str, Any], late: int) -> T:
    """Make a record of what :func:`_plain` gave, with the epoch so much later."""
    record = kind(**{**plain, "epoch": plain["epoch"] + late})
    numbers = {**plain, **plain.get("validation", {})}
    for name, value in numbers.items():
        optional = value is None and name in ("energy", "accuracy", "curvature", "reach")
        if name != "validation" and not (optional or is_number(value) or (name == "fell" and isinstance(value, bool))):
            raise TypeError(f"{name} is no number (found {shown(value)})")
    return record


def _plain(record: StepRecord | EpochRecord) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name != "result"}


def metric_of(record: EpochRecord, metric: str) -> float | None:
    """Look up a number of a record by name: validation's if it has one of this name, else training's."""
    if metric in record.validation:
        return record.validation[metric]
    return {"energy": record.energy, "accuracy": record.accuracy}.get(metric)


def is_larger_better(metric: str) -> bool:
    """Say whether this is a metric of which more is better: one with ``accuracy`` in its name."""
    return "accuracy" in metric
