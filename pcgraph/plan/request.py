"""A request says what a plan is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pcgraph.arguments import shown
from pcgraph.errors import ConfigError
from pcgraph.optimizers import StateOptimizer
from pcgraph.solvers import Solver

__all__ = ["Precision", "Request"]

#: (canonical number, precision in this run, or one for each step and one for the end), sorted.
Precision = tuple[tuple[int, float | tuple[float, ...]], ...]


@dataclass(frozen=True)
class Request:
    """A request says what a plan is asked for, beside the initializer's layout. Two equal requests get the same plan.

    Attributes
    ----------
    clamped, masked : frozenset of int
        Canonical numbers of the nodes that are known wholly, and in part.
    steps : int
        The number of inference steps, T.
    fixes_zero, stateless : bool
        What the state optimizer promises: a zero gradient moves nothing; nothing is remembered between steps.
    nudged : frozenset of int
        Free nodes that a cost pulls at from outside.
    all_move : bool
        Whether every free node is handed to the state optimizer in every step, if only with a zero gradient, so that
        what it remembers can be carried on to another run.
    only : frozenset of int or None
        The free nodes that matter; None for all. The others and their energies do not exist for the run.
    kept : frozenset of int or None
        None where inference moves states. In error coordinates, the free nodes of which the state is moved; of the
        others that have a main prediction, the error is.
    precision : tuple of (int, float or tuple of float)
        Nodes and slots whose Gaussian energy has another precision in this run than was declared: one for all of it,
        or one for each step and one for the end.
    duals : float or None
        The rate of dual variables, where there are any.
    frozen_edges, frozen_biases : frozenset of int
        Edges, and nodes, whose weight or bias does not learn although it was declared to.
    pins : tuple of (bucket name, kernel)
        What the backend is told to use; a plan does not look at it.
    """

    clamped: frozenset[int]
    masked: frozenset[int] = frozenset()
    steps: int = 0
    fixes_zero: bool = True
    stateless: bool = True
    nudged: frozenset[int] = frozenset()
    all_move: bool = False
    only: frozenset[int] | None = None
    kept: frozenset[int] | None = None
    precision: Precision = ()
    duals: float | None = None
    frozen_edges: frozenset[int] = frozenset()
    frozen_biases: frozenset[int] = frozenset()
    pins: tuple[tuple[str, str], ...] = ()

    @classmethod
    def make(
        cls, clamped: frozenset[int], masked: frozenset[int], steps: int, optimizer: StateOptimizer | Solver | None, *,
        nudged: frozenset[int] = frozenset(), all_move: bool = False, only: frozenset[int] | None = None,
        kept: frozenset[int] | None = None, precision: Precision = (),
        duals: float | None = None, frozen_edges: frozenset[int] = frozenset(),
        frozen_biases: frozenset[int] = frozenset(), pins: Mapping[str, str] | None = None,
    ) -> Request:  # fmt: skip
        """Make a request with the promises of `optimizer`; without one, or without steps, those of plain descent.

        Raises
        ------
        ConfigError
            `pins` is no mapping from names to names.
        """
        moves = optimizer if steps else None
        return cls(
            clamped, masked, steps,
            moves is None or bool(moves.fixes_zero), moves is None or bool(moves.stateless),
            nudged, all_move, only, kept, precision, duals, frozen_edges, frozen_biases,
            _read_pins(pins),
        )  # fmt: skip


def _read_pins(pins: Any) -> tuple[tuple[str, str], ...]:
    if pins is None:
        return ()
    if not isinstance(pins, Mapping) or not all(isinstance(part, str) for pair in pins.items() for part in pair):
        raise ConfigError(
            f"kernels= is a mapping from the name of a bucket to that of a kernel (found {shown(pins)})", key="kernels"
        )
    return tuple(sorted(pins.items()))
