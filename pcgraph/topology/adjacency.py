"""Look edges up by their source, and walk along them. Every traversal of the room stands on these two functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adjacency", "Flags", "Index", "by_source", "reach"]

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]
Adjacency = tuple[list[int], list[int]]
"""Starts and neighbours: those of vertex v are ``neighbours[starts[v] : starts[v + 1]]``. (In Python, a loop over a
flat list is faster than one over an array.)"""


def by_source(source: Index, target: Index, vertices: int) -> Adjacency:
    """Sort edges by their source; call it with the ends exchanged to sort them by their target."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=vertices))])
    return starts.tolist(), target[np.argsort(source, kind="stable")].tolist()


def reach(seeds: Flags, *ways: Adjacency, among: Flags | None = None) -> Flags:
    """Find all vertices that a path along any of the `ways` leads to from the seeds, which are counted in.

    Parameters
    ----------
    seeds : ndarray of bool, ``(vertices,)``
    ways : Adjacency
        One for paths along the edges, the one by target for paths against them, both for either.
    among : ndarray of bool, ``(vertices,)``, optional
        No path enters another vertex.
    """
    closed = (seeds if among is None else seeds | ~among).tolist()
    queue = np.flatnonzero(seeds).tolist()
    for u in queue:
        for starts, neighbours in ways:
            for v in neighbours[starts[u] : starts[u + 1]]:
                if not closed[v]:
                    closed[v] = True
                    queue.append(v)
    found = np.zeros(len(seeds), dtype=bool)
    found[queue] = True
    return found
