"""Duals are read here, and refused where another axis leaves no room for them."""

from __future__ import annotations

from pcgraph.arguments import shown
from pcgraph.coordinates import Errors
from pcgraph.duals import Duals
from pcgraph.errors import ConfigError
from pcgraph.optimizers import StateOptimizer
from pcgraph.solvers import Solver

__all__ = ["read_duals"]


def read_duals(
    duals: Duals | None, optimizer: StateOptimizer | Solver | None, coordinates: Errors | None
) -> float | None:  # fmt: skip
    """Return the rate of the duals; refuse what they do not go with.

    Raises
    ------
    ConfigError
        It is none of :class:`Duals`; or a solver moves the states; or nodes are to stop in error coordinates.
    """
    if duals is None:
        return None
    if not isinstance(duals, Duals):
        raise ConfigError(f"duals= is None or pcgraph.Duals(rate=...) (found {shown(duals)})", key="duals")
    if isinstance(optimizer, Solver):
        raise ConfigError(
            f"{optimizer!r} remembers the energy of earlier steps, and duals change in every step what is minimised: "
            "take a state optimizer, as in optimizer=pcgraph.SGD(lr=0.1), or leave out duals=",
            key="duals",
        )
    if duals.stop is not None and coordinates is not None:
        raise ConfigError(
            f"{duals!r} with {coordinates!r}: the state of a node that has stopped by its error still follows its "
            "parents, so that nothing can be left out: leave out stop=, or coordinates=",
            key="duals",
        )
    return duals.rate
