"""A request is read from what the caller chose for a run, and each choice refused that does not go with the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeGuard

import torch

from pcgraph.arguments import shown
from pcgraph.backends import DistributedBackend
from pcgraph.coordinates import Errors
from pcgraph.duals import Duals
from pcgraph.errors import ConfigError
from pcgraph.inference.planner import Planner
from pcgraph.inference.precision import read_precision
from pcgraph.network import Network
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Request
from pcgraph.solvers import Solver

__all__ = ["read_duals", "read_request", "require_optimizer"]

Node = Hashable


def read_request(
    planner: Planner, clamped: frozenset[int], masked: frozenset[int], steps: int,
    optimizer: StateOptimizer | Solver | None, *, coordinates: Errors | None,
    precision: Mapping[Node, float | Sequence[float]] | None, duals: Duals | None,
    kernels: Mapping[str, str] | None, nudged: frozenset[int] = frozenset(), all_move: bool = False,
    needed: bool = True,
) -> Request:  # fmt: skip
    """Make the request of a run of the planner's network.

    Parameters
    ----------
    planner : Planner
    clamped, masked : frozenset of int
        Canonical numbers of the nodes that are known wholly, and in part.
    steps : int
    optimizer, coordinates, precision, duals, kernels
        As for :meth:`pcgraph.PCNetwork.infer`.
    nudged, all_move
        As for :class:`pcgraph.plan.Request`.
    needed : bool
        Whether steps need an optimizer; what only plans them can go without.

    Raises
    ------
    ConfigError
        One of them is wrong, or does not go with another.
    """
    net = planner.net
    require_optimizer(net, steps if needed else 0, optimizer)
    if planner.cut is not None:
        DistributedBackend.require_by_parts(optimizer)
    return Request.make(
        clamped, masked, steps, optimizer, nudged=nudged, all_move=all_move,
        kept=planner.kept(coordinates, clamped, masked),
        precision=read_precision(net.structure, precision, steps, optimizer),
        duals=read_duals(duals, optimizer, coordinates), frozen_edges=net.frozen_edges,
        frozen_biases=net.frozen_biases, pins=kernels,
    )  # fmt: skip


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


def require_optimizer(
    net: Network, steps: int, optimizer: object, key: str = "optimizer"
) -> StateOptimizer | Solver | None:
    """Read what moves the states of a network; without steps it may be missing.

    Parameters
    ----------
    net : Network
    steps : int
    optimizer : object
    key : str
        What the argument is called.

    Raises
    ------
    ConfigError
        It is missing, or of another kind, or has rates for nodes that the network does not have.
    """
    if optimizer is None and not steps:
        return None
    if not isinstance(optimizer, StateOptimizer | Solver):
        who = f"{steps} inference steps need" if steps else "states are moved by"
        raise ConfigError(
            f"{who} a state optimizer, as in {key}=pcgraph.SGD(lr=0.1) (found {_brief(optimizer)})",
            key=key,
        )
    if isinstance(optimizer, StateOptimizer):
        optimizer.require_fit(net.structure.number, net.dtype)
    return optimizer


def _brief(optimizer: object) -> str:
    if isinstance(optimizer, torch.optim.Optimizer):
        return f"torch.optim.{type(optimizer).__name__}, which moves weights: states need one of pcgraph's"
    made = f"; write {optimizer.__name__}(...)" if _is_one_of_ours(optimizer) else ""
    return f"{shown(optimizer)}{made}"


def _is_one_of_ours(kind: object) -> TypeGuard[type]:
    return isinstance(kind, type) and issubclass(kind, StateOptimizer | Solver)
