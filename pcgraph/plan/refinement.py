"""A cut is refined: nodes change ranks, one by one, while that lets fewer numbers cross between ranks in each step.

METIS counts the edges that are cut. What crosses is less: a state goes once to each rank that has some of its children,
however many, and what comes back is summed there and sent once. So the moves of Fiduccia and Mattheyses (1982) are made
here by that count: again and again the node whose move saves most changes its rank, also where it saves nothing, and
then the best of the cuts that were met is kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

import numpy as np

from pcgraph.network.adjacency import Index

__all__ = ["crossing", "refined"]

#: So many parents of nodes are looked at in all, which takes some seconds. Of a graph with as many edges times ranks
#: nothing is looked at: METIS's cut is left as it is.
LOOKS = 4_000_000
#: A pass ends after so many moves without a better cut.
PATIENCE = 100
#: A rank may have so many times the mean of what there is to do, or what the fullest has already.
UNEVEN = 1.005


def crossing(found: Index, source: Index, target: Index, size: Index) -> int:
    """Count the numbers that cross in each step, one way: of each state, once for every other rank that reads it.

    Parameters
    ----------
    found : ndarray of int64, shape (nodes,)
        The rank of each node.
    source, target : ndarray of int64, shape (edges,)
    size : ndarray of int64, shape (nodes,)
        The neurons of each node.
    """
    away = found[source] != found[target]
    pairs = np.unique(np.stack([source[away], found[target[away]]]), axis=1)
    return int(size[pairs[0]].sum())


def refined(
    found: Index, source: Index, target: Index, size: Index, weight: Index, parts: int, fixed: Collection[int] = ()
) -> Index:
    """Return a cut by which no more crosses than by the one found, and whose fullest rank has no more to do.

    It may have half a percent more than the mean.

    Parameters
    ----------
    found, source, target, size
        As for :func:`crossing`.
    weight : ndarray of int64, shape (nodes,)
        What each node costs its rank.
    parts : int
    fixed : collection of int
        Nodes that stay where they are.

    Returns
    -------
    ndarray of int64, shape (nodes,)
        The same for the same arguments.
    """
    count, apart = len(found), source != target
    label = np.unique(source[apart] * count + target[apart])
    if parts < 2 or (len(label) + count) * parts > LOOKS:
        return found
    cut = _Cut(found, label // count, label % count, size, weight, parts)
    while cut.improve(fixed):
        pass
    return np.array(cut.part, dtype=np.int64)


class _Cut:
    """A cut keeps for each node how many of its children every rank has.

    Edges are in order, none comes twice, and none is a loop.
    """

    def __init__(self, found: Index, u: Index, v: Index, size: Index, weight: Index, parts: int) -> None:
        count = len(found)
        self.children = _rows(u, v, count)
        order = np.argsort(v, kind="stable")
        self.parents = _rows(v[order], u[order], count)
        self.parts = parts
        self.size: list[int] = size.tolist()
        self.weight: list[int] = weight.tolist()
        self.part: list[int] = found.tolist()
        has = np.zeros((count, parts), dtype=np.int64)
        np.add.at(has, (u, found[v]), 1)
        self.has: list[list[int]] = has.tolist()
        self.looks = 0
        self.load: list[float] = np.bincount(found, weights=weight, minlength=parts).tolist()
        self.nodes: list[int] = np.bincount(found, minlength=parts).tolist()
        self.most: float = max(*self.load, UNEVEN * sum(self.load) / parts)
        self.slack: float = 2 * sum(self.load) / count

    def improve(self, fixed: Collection[int]) -> bool:
        """Move each node once at most, and go back to the best cut that was met; tell whether it is a better one.

        A rank that has got a node too many gives one away next.
        """
        free = [True] * len(self.part)
        for i in fixed:
            free[i] = False
        heaps: list[list[tuple[int, int, int]]] = [[] for _ in range(self.parts)]
        for i in range(len(free)):
            if free[i]:
                heaps[self.part[i]] += self._moves(i)
        for heap in heaps:
            heapq.heapify(heap)
        saved = best = kept = 0
        done: list[tuple[int, int, int]] = []  # a node, the rank that had it, and what its move saved
        while len(done) - kept <= PATIENCE and self.looks < LOOKS:
            over = [p for p, load in enumerate(self.load) if load > self.most]
            heap = min((heaps[p] for p in over or range(self.parts) if heaps[p]), default=[], key=lambda heap: heap[0])
            if heap:
                loss, i, to = heapq.heappop(heap)
                if not free[i] or to == self.part[i] or loss != -self._gain(i, to) or not self._fits(i, to):
                    continue  # what has changed since has moves of its own in a heap
                done.append((i, self.part[i], -loss))
                self._move(i, to)
                free[i], saved = False, saved - loss
                if saved > best and max(self.load) <= self.most:
                    best, kept = saved, len(done)
            elif over and len(done) > kept:  # what made the rank too full cannot be made good: it stays where it was
                i, origin, gain = done.pop()
                self._move(i, origin)
                saved -= gain
            else:
                break
            near = {*self.parents[i], *self.children[i]}
            near.update(j for u in self.parents[i] for j in self.children[u])
            for j in sorted(near):
                if free[j]:
                    for move in self._moves(j):
                        heapq.heappush(heaps[self.part[j]], move)
        for i, origin, _ in reversed(done[kept:]):
            self._move(i, origin)
        return best > 0

    def _moves(self, i: int) -> list[tuple[int, int, int]]:
        """Give (loss, node, rank) for every rank that has a neighbour of a node."""
        self.looks += len(self.children[i]) + len(self.parents[i])
        ranks = {self.part[j] for j in (*self.children[i], *self.parents[i])} - {self.part[i]}
        return [(-self._gain(i, to), i, to) for to in sorted(ranks)]

    def _gain(self, i: int, to: int) -> int:
        """Count the numbers that cross no more once a node has moved."""
        here = self.part[i]
        self.looks += len(self.parents[i])
        gain = self.size[i] * ((self.has[i][to] > 0) - (self.has[i][here] > 0))
        for u in self.parents[i]:
            if self.has[u][here] == 1 and self.part[u] != here:
                gain += self.size[u]
            if self.has[u][to] == 0 and self.part[u] != to:
                gain -= self.size[u]
        return gain

    def _fits(self, i: int, to: int) -> bool:
        """Tell whether a node may move: a rank may be too full on the way, but by no more than two usual nodes."""
        return self.load[to] + self.weight[i] <= self.most + self.slack and self.nodes[self.part[i]] > 1

    def _move(self, i: int, to: int) -> None:
        here = self.part[i]
        for u in self.parents[i]:
            self.has[u][here] -= 1
            self.has[u][to] += 1
        self.load[here] -= self.weight[i]
        self.load[to] += self.weight[i]
        self.nodes[here] -= 1
        self.nodes[to] += 1
        self.part[i] = to


def _rows(near: Index, far: Index, count: int) -> list[list[int]]:
    """Return for each node the nodes at the other ends of its edges, which come in the order of `near`."""
    ends = np.searchsorted(near, np.arange(1, count))
    return [part.tolist() for part in np.split(far, ends)]
