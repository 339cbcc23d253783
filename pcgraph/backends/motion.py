"""What evolves in a run lies apart from what was asked for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pcgraph.optimizers import StateOptimizer
from pcgraph.processes import Part
from pcgraph.solvers import Solver

__all__ = ["Motion"]


@dataclass(eq=False)
class Motion:
    """A motion holds what evolves in a run beside the states themselves, and what moves them.

    Attributes
    ----------
    optimizer : StateOptimizer, Solver or None
        A backend meets the first alone: what a solver proposes is written by :meth:`Program.write`.
    first_step : int
        Steps that were taken before this run, by the same optimizer.
    nudges : mapping
        Canonical number of a free node -> (target (batch, *shape), strength): the cost
        ``strength / 2 * ||h - target||^2`` is added to what its state descends.
    memories : dict
        What the optimizer keeps from step to step, under keys of the backend's choosing.
    part : Part or None
        Which rows of a batch the run has, where processes share it; the optimizer gets it as ``memory["part"]``.
    """

    optimizer: StateOptimizer | Solver | None = None
    first_step: int = 0
    nudges: Mapping[int, tuple[Tensor, float]] = field(default_factory=dict)
    memories: dict[Hashable, dict[str, Any]] = field(default_factory=dict)
    part: Part | None = None
