"""Watching a run: when to stop, and when it falls over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pcgraph.errors import ConfigError
from pcgraph.training.records import EpochRecord, is_larger_better, metric_of

__all__ = ["FELL_ADVICE", "EarlyStopping", "Watch"]


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a metric has not improved for some epochs.

    Parameters
    ----------
    patience : int
        Epochs without improvement that are borne; at least 1.
    metric : str
        A name of validation's numbers, or training's ``"energy"`` or ``"accuracy"``.
    change : float
        What counts as an improvement: more than this.
    largest : bool, optional
        Whether larger is better; by default for accuracies alone.
    """

    patience: int = 5
    metric: str = "accuracy"
    change: float = 0.0
    largest: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise ConfigError(f"patience is a positive integer (found {self.patience!r})", key="patience")
        if not (self.change >= 0 and math.isfinite(self.change)):
            raise ConfigError(f"change is a number that is not negative (found {self.change!r})", key="change")

    def done(self, epochs: list[EpochRecord]) -> bool:
        """Whether to stop after these epochs.

        Raises
        ------
        ConfigError
            The last of them has no such metric.
        """
        last = epochs[-1]
        if metric_of(last, self.metric) is None:
            known = sorted({*last.validation, *(n for n in ("energy", "accuracy") if metric_of(last, n) is not None)})
            raise ConfigError(
                f"early stopping needs the metric {self.metric!r} (found {', '.join(known) or 'none'}): give "
                "validate=, or name another metric",
                key="metric",
            )
        larger = is_larger_better(self.metric) if self.largest is None else self.largest
        best, since = -math.inf, 0
        for record in epochs:
            value = metric_of(record, self.metric)
            value = -math.inf if value is None or math.isnan(value) else value if larger else -value
            best, since = (value, 0) if value > best + self.change or best == -math.inf else (best, since + 1)
        return since >= self.patience


@dataclass
class Watch:
    """Notice a run that falls over late.

    Early layers receive errors of the order of the state rate to the power of their distance from the target; Adam
    scales them up to full steps, noise included. Such a run can learn for many epochs and then collapse.

    It has fallen over when the part of wrong answers exceeds ``1.4 * (the lowest so far) + 0.02``, or, without an
    accuracy, when the energy exceeds twice the lowest so far.
    """

    error: float = math.inf
    energy: float = math.inf
    fallen: bool = field(default=False)

    def see(self, epoch: int, accuracy: float | None, energy: float | None) -> str:
        """Take in one epoch, counted from 0; returns what happened where a run that stood fell over, else nothing.

        `fallen` says whether this epoch is that of a run that has fallen over, told or not.
        """
        said = ""
        if accuracy is not None:
            if 1 - accuracy > 1.4 * self.error + 0.02:
                said = f"the accuracy fell to {accuracy:.2%} in epoch {epoch + 1}, from {1 - self.error:.2%} before"
            self.error = min(self.error, 1 - accuracy)
        elif energy is not None and energy > 2 * self.energy > 0:
            said = f"the energy rose to {energy:.4g} in epoch {epoch + 1}, from {self.energy:.4g} before"
        if energy is not None:
            self.energy = min(self.energy, energy)
        told, self.fallen = self.fallen, bool(said)
        return "" if told else said

    def state_dict(self) -> dict[str, Any]:
        return {"error": self.error, "energy": self.energy, "fallen": self.fallen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.error, self.energy, self.fallen = state["error"], state["energy"], state["fallen"]


FELL_ADVICE = (
    "Runs fall over when the optimizer scales tiny gradients of early layers up to full steps. Use a smaller or a "
    "decaying learning rate (scheduler=), a smaller state rate with a relu-like activation, a larger eps in Adam, or "
    "end before (early_stopping=)."
)
