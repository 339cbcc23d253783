"""When to stop a run that does not get better."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pcgraph.errors import ConfigError
from pcgraph.training.records import EpochRecord, is_larger_better, metric_of

__all__ = ["EarlyStopping"]


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
