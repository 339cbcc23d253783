"""A run that is tried tells, epoch by epoch, how it goes, and hears whether to go on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pcgraph.arguments import is_number, require_count, require_text, shown
from pcgraph.errors import ConfigError
from pcgraph.training import History
from pcgraph.training.records import metric_of

__all__ = ["Progress", "value_of"]


class Progress:
    """The function that trains gets it, and gives it to :func:`pcgraph.fit` as ``callbacks=``.

    After each epoch it tells the search the value of the metric, and ends the run where the search prunes it. A loop
    that does not use ``fit`` calls :meth:`tell`.

    Attributes
    ----------
    final : bool
        Whether this is the run of a finalist, which is not pruned.
    pruned : bool
        Whether the search has said to end.
    measured : dict
        What :meth:`note` was told.
    """

    def __init__(self, metric: str, tell: Callable[[float, int], bool], *, final: bool) -> None:
        self.metric, self.final = metric, final
        self.pruned = False
        self.measured: dict[str, float] = {}
        self._tell = tell

    def __call__(self, record: Any) -> bool:
        """Tell of a record of ``fit``; returns whether the run is to end."""
        if record.kind != "epoch":
            return False
        value = metric_of(record, self.metric)
        if value is None:
            raise _unmeasured(self.metric, record)
        return self.tell(value, record.epoch)

    def tell(self, value: float, epoch: int) -> bool:
        """Tell the value after so many epochs; returns whether the run is to end.

        A value that is not finite tells nothing.

        Raises
        ------
        ConfigError
            Its `key` is ``"train"``: the value is no number, or the epoch no count.
        """
        number, epoch = _number(value, "the value"), require_count(epoch, "epoch", refuse=_wrong)
        if math.isfinite(number):
            self.pruned = self._tell(number, epoch)
        return self.pruned

    def note(self, name: str, value: float) -> None:
        """Keep a number beside the value, for the report; nothing is chosen by it.

        Raises
        ------
        ConfigError
            Its `key` is ``"train"``: the name is no text, or the value no number.
        """
        self.measured[require_text(name, "name", refuse=_wrong)] = _number(value, f"what {name!r} is noted as")


def value_of(found: Any, metric: str) -> float:
    """Read what the function that trains returned: a number, or a history, whose last epoch counts.

    Raises
    ------
    ConfigError
    """
    if isinstance(found, History):
        if not found.epochs:
            raise ConfigError("the history that train returned has no epoch", key="train")
        value = metric_of(found.epochs[-1], metric)
        if value is None:
            raise _unmeasured(metric, found.epochs[-1])
        return value
    if not is_number(found):
        raise _wrong(f"train returns a number, or the history of fit (found {shown(found)})")
    return _number(found, "what train returns")


def _number(value: Any, what: str) -> float:
    """Read a number, NaN and infinity included; one beyond all floats is infinite."""
    if not is_number(value):
        raise _wrong(f"{what} is a number (found {shown(value)})")
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf if value > 0 else -math.inf


def _wrong(text: str) -> ConfigError:
    return ConfigError(text, key="train")


def _unmeasured(metric: str, record: Any) -> ConfigError:
    known = ", ".join(sorted({*record.validation, "energy", "accuracy"}))
    return ConfigError(f"the run does not measure {metric!r} (found {known}): give validate=, or metric=", key="metric")
