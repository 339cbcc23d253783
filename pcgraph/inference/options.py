"""Options say how a run is looked at and driven, beyond what it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pcgraph.inference.watching import InferenceStep, Trace

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Options are what the caller of a run chose, beyond the plan itself.

    Attributes
    ----------
    trace : bool or "nodes"
        Whether to keep the energy per sample at every step; with "nodes", that of each node.
    check : bool
        Whether to look if clamps and the final energy are finite, which on a GPU waits for the device.
    capture : bool or "auto"
        Whether to record the run and replay it; see :mod:`pcgraph.inference.capture`.
    tolerance : float or None
        A sample moves no more once no gradient of its neurons is larger.
    states : Trace or None
        Which states and errors to keep on the way.
    callback : callable or None
        What to call, with an :class:`InferenceStep`, after every step.
    stop : float or None
        A node of a sample moves no more once its residual is so small beside its dual.
    """

    trace: bool | Literal["nodes"] = False
    check: bool = True
    capture: bool | str = False
    tolerance: float | None = None
    stop: float | None = None
    states: Trace | None = None
    callback: Callable[[InferenceStep], Any] | None = None
