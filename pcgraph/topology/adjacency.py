"""Look edges up by their source, and walk along them. Every traversal of the room stands on these functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adjacency", "Flags", "Index", "by_source", "reach", "walk"]

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]
Adjacency = tuple[list[int], list[int]]
"""Starts and neighbours: those of vertex v are ``neighbours[starts[v] : starts[v + 1]]``. (In Python, a loop over a
flat list is faster than one over an array.)"""


def by_source(source: Index, target: Index, vertices: int) -> Adjacency:
    """Sort edges by their source; call it with the ends exchanged to sort them by their target."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=vertices))])
    return starts.tolist(), target[np.argsort(source, kind="stable")].tolist()


def walk(
    seeds: Iterable[int], *ways: Adjacency, among: Flags | None = None, until: Collection[int] = ()
) -> dict[int, int]:
    """Walk breadth first from the seeds along any of the `ways`, to every vertex that can be reached.

    Parameters
    ----------
    seeds : iterable of int
    ways : Adjacency
        One for paths along the edges, the one by target for paths against them, both for either.
    among : ndarray of bool, ``(vertices,)``, optional
        No path enters another vertex.
    until : collection of int
        The walk ends when it comes to one of these.

    Returns
    -------
    dict from vertex to the vertex before it
        In the order of the walk; of a seed it is the seed itself.
    """
    closed = [False] * (len(ways[0][0]) - 1) if among is None else (~among).tolist()
    before = {v: v for v in seeds}
    for v in before:
        closed[v] = True
    queue = list(before)
    for u in queue:
        for starts, neighbours in ways:
            for v in neighbours[starts[u] : starts[u + 1]]:
                if not closed[v]:
                    closed[v] = True
                    before[v] = u
                    queue.append(v)
                    if v in until:
                        return before
    return before


def reach(seeds: Flags, *ways: Adjacency, among: Flags | None = None) -> Flags:
    """Mark all vertices that :func:`walk` comes to, the seeds among them."""
    found = np.zeros(len(seeds), dtype=bool)
    found[list(walk(np.flatnonzero(seeds).tolist(), *ways, among=among))] = True
    return found
