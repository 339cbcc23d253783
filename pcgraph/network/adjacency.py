"""Edges by one of their ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adjacency"]

Index = NDArray[np.int64]
#: Nodes that are more than this part of all are looked for among all edges: that costs less than sorting the answer.
MANY = 0.125


class Adjacency:
    """The edges at each node, as a CSR list.

    Parameters
    ----------
    ends : ndarray of int64, shape (edges,)
        The node at which each edge is looked for.
    nodes : int
        How many there are.

    Examples
    --------
    >>> Adjacency(np.array([2, 0, 2]), 3).edges(np.array([2]))
    array([0, 2])
    """

    def __init__(self, ends: Index, nodes: int) -> None:
        self.ends = ends
        self.order = np.argsort(ends, kind="stable")
        self.start = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=nodes))]).astype(np.int64)

    def edges(self, nodes: Index) -> Index:
        """Return the numbers of the edges at these distinct nodes, sorted. The work grows with the answer alone."""
        if len(nodes) == 1:
            return self.order[self.start[nodes[0]] : self.start[nodes[0] + 1]]
        if len(nodes) > MANY * (len(self.start) - 1):
            wanted = np.zeros(len(self.start) - 1, dtype=bool)
            wanted[nodes] = True
            return np.flatnonzero(wanted[self.ends])
        first = self.start[nodes]
        counts = self.start[nodes + 1] - first
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.sort(self.order[np.repeat(first, counts) + offsets])
