"""A run that does not get better is stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pcgraph.arguments import require_count, require_flag, require_instance, require_number
from pcgraph.errors import ConfigError
from pcgraph.training.records import EpochRecord, is_larger_better, metric_of

__all__ = ["EarlyStopping"]


@dataclass(frozen=True)
class EarlyStopping:
    """Stops a run when a metric has not improved for some epochs.

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
        require_count(self.patience, "patience", least=1)
        require_instance(self.metric, "metric", str, "'accuracy'")
        require_number(self.change, "change", least=0)
        if self.largest is not None:
            require_flag(self.largest, "largest")

    def done(self, epochs: list[EpochRecord]) -> bool:
        """Say whether to stop after these epochs.

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
