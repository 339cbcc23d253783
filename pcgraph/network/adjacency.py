"""Arrays of edges tell which are at a node, and which nodes are strongly connected.

NetworkX has both, with a step of Python and an object or two for each edge; a network of a million scalar edges asks
for them in arrays.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Adjacency", "Index", "components", "distinct"]

Index = NDArray[np.int64]
#: Nodes that are more than this part of all are looked for among all edges: that costs less than sorting the answer.
MANY = 0.125


def distinct(numbers: Index, count: int) -> Index:
    """Return the different ones of many numbers below `count`, sorted; ``np.unique`` sorts or hashes, and is slower.

    Examples
    --------
    >>> distinct(np.array([3, 1, 3]), 5)
    array([1, 3])
    """
    found = np.zeros(count, dtype=bool)
    found[numbers] = True
    return np.flatnonzero(found)


class Adjacency:
    """Edges are sorted here by one of their ends, so that those at a node are found without a look at the rest.

    Parameters
    ----------
    ends : ndarray of int64, shape (edges,)
        The node at that end of each edge.
    nodes : int
        How many nodes there are.

    Attributes
    ----------
    order : ndarray of int64, shape (edges,)
        Edge numbers sorted by node; those of one node ascend.
    start : ndarray of int64, shape (nodes + 1,)
        The edges of node i are ``order[start[i] : start[i + 1]]``.

    Examples
    --------
    >>> by_end = Adjacency(np.array([2, 0, 2]), 3)
    >>> by_end.at(2), by_end.edges(np.array([0, 2])), by_end.degree
    (array([0, 2]), array([0, 1, 2]), array([1, 0, 2]))
    """

    def __init__(self, ends: Index, nodes: int) -> None:
        self.ends = ends
        # torch sorts integers by radix, several times as fast as NumPy's stable sort.
        self.order: Index = torch.sort(torch.from_numpy(ends), stable=True).indices.numpy()
        self.start: Index = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=nodes))]).astype(np.int64)

    @property
    def degree(self) -> Index:
        """Each node has so many edges, shape (nodes,)."""
        return np.diff(self.start)

    def at(self, node: int) -> Index:
        """Return the numbers of the edges at one node, ascending."""
        return self.order[self.start[node] : self.start[node + 1]]

    def edges(self, nodes: Index) -> Index:
        """Return the numbers of the edges at these nodes, ascending; the work grows with the answer alone."""
        if len(nodes) == 1:
            return self.at(int(nodes[0]))
        if len(nodes) > MANY * (len(self.start) - 1):
            wanted = np.zeros(len(self.start) - 1, dtype=bool)
            wanted[nodes] = True
            return np.flatnonzero(wanted[self.ends])
        first = self.start[nodes]
        counts = self.start[nodes + 1] - first
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.sort(self.order[np.repeat(first, counts) + offsets])


def components(starts: list[int], targets: list[int]) -> list[list[int]]:
    """Find the strongly connected components, each after all that lead into it (Tarjan 1972, on a stack).

    Tarjan's algorithm completes a component only after everything that it leads to, so that the reverse of that order
    is a topological one. NetworkX's components come in the same order, and take several times as long.

    Parameters
    ----------
    starts, targets : list of int
        Vertex v leads to ``targets[starts[v] : starts[v + 1]]``.

    Returns
    -------
    list of list of int
        The vertices of each component, ascending. Unrelated components keep the order of their vertices.

    References
    ----------
    R. Tarjan, "Depth-first search and linear graph algorithms", SIAM Journal on Computing 1, 1972.

    Examples
    --------
    >>> components([0, 1, 2, 4, 4], [1, 2, 1, 3])  # 0 -> 1 <-> 2 -> 3
    [[0], [1, 2], [3]]
    """
    vertices = len(starts) - 1
    place, low = [0] * vertices, [0] * vertices
    following = starts[:-1]
    open_: list[int] = []
    found: list[list[int]] = []
    clock = 0
    for first in range(vertices - 1, -1, -1):
        path = [] if place[first] else [first]
        while path:
            v = path[-1]
            if not place[v]:
                clock += 1
                place[v] = low[v] = clock
                open_.append(v)
            child = _next_child(v, following, starts, targets, place, low)
            if child >= 0:
                path.append(child)
                continue
            path.pop()
            if path and low[v] < low[path[-1]]:
                low[path[-1]] = low[v]
            if low[v] == place[v]:
                at = len(open_) - 1
                while open_[at] != v:
                    at -= 1
                found.append(sorted(open_[at:]))
                for w in open_[at:]:
                    low[w] = place[w] = vertices + 1
                del open_[at:]
    return found[::-1]


def _next_child(
    v: int, following: list[int], starts: list[int], targets: list[int], place: list[int], low: list[int]
) -> int:
    """Return the next vertex not yet seen that `v` leads to, or -1; of those seen and still open, `low` takes note."""
    at, stop = following[v], starts[v + 1]
    while at < stop:
        w = targets[at]
        at += 1
        if not place[w]:
            following[v] = at
            return w
        if place[w] < low[v]:
            low[v] = place[w]
    following[v] = at
    return -1
