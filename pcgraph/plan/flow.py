"""Set arithmetic says which states move, and which errors may differ from zero, in each inference step.

With ``Z_t`` the nodes whose error may be non-zero before step t, ``D_t`` the nodes whose state moves in step t, ``U``
the free nodes and ``V_E`` the nodes with an energy:

    Z_0     = V_E without the nodes that were swept and left alone
    D_t     = (Z_t & U) | (pa(Z_t) & U)
    Z_{t+1} = Z_t | (D_t & V_E) | ch(D_t)

Both grow monotonically, so that after at most as many distinct steps as the graph has levels one steady step repeats.
The rule needs two promises: an energy's errors vanish at the prediction (else its node is in Z from the start), and
the state optimizer does not move a state whose gradient was always zero (else every free node is in every D).

A slot is a node in V_E and not in U, and its tie an edge into it like any other: no sweep writes a slot, so that it is
in Z_0, and whatever moves its node makes its error anew.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcgraph.network import Structure

__all__ = ["NEVER", "Flow", "Mask", "arrivals", "flow", "mask_of"]

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
#: The step at which nothing happens.
NEVER = np.iinfo(np.int64).max


def mask_of(count: int, members: Index | Collection[int]) -> Mask:
    """Return a mask over `count` nodes or edges that is true for the members."""
    found = np.zeros(count, dtype=bool)
    found[members if isinstance(members, np.ndarray) else list(members)] = True
    return found


@dataclass(frozen=True, eq=False)
class Flow:
    """A flow says for each step which errors may differ from zero and which states move.

    Attributes
    ----------
    steps : int
        The number of inference steps, T.
    errors : tuple of ndarray of bool, each of shape (nodes,)
        ``errors[t]`` is Z_t for t = 0..k; Z_t for a later t is the last entry.
    moves : tuple of ndarray of bool, each of shape (nodes,)
        ``moves[t]`` is D_t for t = 0..k-1; D_t for a later t is the last entry.
    """

    steps: int
    errors: tuple[Mask, ...]
    moves: tuple[Mask, ...]

    def error(self, t: int) -> Mask:
        """Return Z_t as a mask over the nodes, for t from 0 to `steps`."""
        return self.errors[min(t, len(self.errors) - 1)]

    def move(self, t: int) -> Mask:
        """Return D_t as a mask over the nodes, for t from 0 to `steps` - 1."""
        return self.moves[min(t, len(self.moves) - 1)]


def flow(
    structure: Structure, has_energy: Mask, free: Mask, exact: Mask, pulled: Mask, steps: int, fixes_zero: bool
) -> Flow:
    """Iterate the rule above until it repeats or `steps` are done.

    Parameters
    ----------
    structure : Structure
    has_energy : ndarray of bool, shape (nodes,)
        V_E.
    free : ndarray of bool, shape (nodes,)
        U; partly clamped nodes are in it.
    exact : ndarray of bool, shape (nodes,)
        Nodes whose error is exactly zero after the initialization.
    pulled : ndarray of bool, shape (nodes,)
        Free nodes that something outside of the energy pulls at in every step.
    steps : int
    fixes_zero : bool
        What the state optimizer promises: a zero gradient moves nothing.

    Returns
    -------
    Flow
    """
    source, target = structure.source, structure.target
    z = has_energy & ~exact
    errors: list[Mask] = [z]
    moves: list[Mask] = []
    for _ in range(steps):
        if fixes_zero:
            d = z & free
            d[source[z[target]]] = True
            d &= free
            d |= pulled
        else:
            d = free.copy()
        grown = z | (d & has_energy)
        grown[target[d[source]]] = True
        grown &= has_energy
        steady = bool(moves) and bool((d == moves[-1]).all()) and bool((grown == z).all())
        if steady:
            break
        moves.append(d)
        errors.append(grown)
        z = grown
    return Flow(steps, tuple(errors), tuple(moves))


def arrivals(structure: Structure, has_energy: Mask, free: Mask, exact: Mask, pulled: Mask, fixes_zero: bool) -> Index:
    """Find the first t for which each node is in Z_t, `NEVER` for one that is in none; shape (nodes,).

    That is :func:`flow` for any number of steps, by a search that looks at each edge twice. The arguments are its own.
    """
    source, target = structure.source, structure.target
    by_source, by_target = structure.by_source, structure.by_target
    first = np.where(has_energy & ~exact, 0, NEVER)
    still = free.copy()
    new, moving, t = np.flatnonzero(first == 0), np.flatnonzero(pulled if fixes_zero else free), 0
    while len(new) or len(moving):
        moving = np.concatenate([moving, new, source[by_target.edges(new)]])
        moving = np.unique(moving[still[moving]])
        still[moving] = False
        new = np.concatenate([moving, target[by_source.edges(moving)]])
        new = np.unique(new[has_energy[new] & (first[new] == NEVER)])
        moving, t = new[:0], t + 1
        first[new] = t
    return first
