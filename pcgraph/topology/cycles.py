"""Find a shortest directed cycle, in linear time where that is possible and with the truth about it elsewhere.

Finding a shortest cycle of any digraph takes time V·E. Three things make it cheap on real graphs: loops and pairs are
found in one pass; a vertex whose cycles are known is removed, and what then lies on no cycle goes with it (so a ring of
any length takes two passes); and a search ends at the length of the best cycle so far. Beyond an allowance of edge
visits, linear in the graph, the shortest cycle found so far is returned, and said to be no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pcgraph.topology.adjacency import Index, by_source

__all__ = ["FREE_VISITS", "Found", "shortest_cycle"]

FREE_VISITS = 2_000_000
"""Every search may spend so many edge visits; wherever V·E is below it, the cycle is proved shortest."""
VISITS_PER_EDGE = 4


@dataclass(frozen=True)
class Found:
    """Hold a cycle, and whether it is proved to be a shortest one."""

    vertices: list[int]
    shortest: bool


def shortest_cycle(source: Index, target: Index, vertices: int, count: int, visits: int | None = None) -> Found | None:
    """Find a shortest cycle of the graph with these edges, or None if it has none.

    Parameters
    ----------
    source, target : ndarray
        The edges.
    vertices : int
        How many there are.
    count : int
        Vertices from here on are hubs: no two are neighbours, and they add nothing to the length of a cycle.
    visits : int, optional
        Allowance of edge visits.
    """
    if len(source) == 0:
        return None
    loops = source[source == target]
    if len(loops):
        return Found([int(loops[0])], True)
    core = _Core.of(source, target, vertices, count)
    if not any(core.alive):
        return None
    pair = _pair(source, target, vertices, count)
    if pair is not None:
        return Found(pair, True)
    return core.search(FREE_VISITS + VISITS_PER_EDGE * (vertices + len(source)) if visits is None else visits)


def _pair(source: Index, target: Index, vertices: int, count: int) -> list[int] | None:
    """Find a cycle of one neuron and its group's own hub, or else of two vertices."""
    up = np.sort((source * vertices + target)[source < target])
    down = np.sort((target * vertices + source)[source > target])
    if len(up) == 0 or len(down) == 0:
        return None
    at = np.minimum(np.searchsorted(down, up), len(down) - 1)
    low, high = np.divmod(up[down[at] == up], vertices)
    if len(low) == 0:
        return None
    alone = np.flatnonzero(high >= count)
    return [int(low[alone[0]])] if len(alone) else [int(low[0]), int(high[0])]


@dataclass
class _Core:
    """This is left of a graph when all that lies before or after every cycle is trimmed away, again and again."""

    after: list[list[int]]
    before: list[list[int]]
    into: list[int]
    out_of: list[int]
    count: int
    alive: list[bool]
    best: list[int] = field(default_factory=list)
    visits: int = 0

    @classmethod
    def of(cls, source: Index, target: Index, vertices: int, count: int) -> _Core:
        def lists(key: Index, value: Index) -> list[list[int]]:
            starts, neighbours = by_source(key, value, vertices)
            return [neighbours[start:stop] for start, stop in zip(starts, starts[1:])]

        after, before = lists(source, target), lists(target, source)
        core = cls(after, before, list(map(len, before)), list(map(len, after)), count, [True] * vertices)
        core.trim([v for v in range(vertices) if not core.into[v] or not core.out_of[v]])
        return core

    def trim(self, gone: list[int]) -> None:
        """Remove vertices, and whatever then has no edge in or none out."""
        for v in gone:
            self.alive[v] = False
        for v in gone:
            for neighbours, degree in ((self.after[v], self.into), (self.before[v], self.out_of)):
                for w in neighbours:
                    degree[w] -= 1
                    if degree[w] == 0 and self.alive[w]:
                        self.alive[w] = False
                        gone.append(w)

    def walk(self) -> list[int]:
        """Return some cycle: every vertex that is alive has an edge to another, so a walk must meet itself."""
        v = self.alive.index(True)
        place: dict[int, int] = {}
        while v not in place:
            place[v] = len(place)
            v = next(w for w in self.after[v] if self.alive[w])
        return [w for w in list(place)[place[v] :] if w < self.count]

    def search(self, allowance: int) -> Found:
        self.best = self.walk()
        for s in range(self.count):
            if not self.alive[s]:
                continue
            self.through(s, allowance)
            if self.visits > allowance:
                return Found(self.best, False)
            self.trim([s])
        return Found(self.best, True)

    def through(self, s: int, allowance: int) -> None:
        """Search breadth first from `s` back to it, and replace the best cycle by a shorter one through `s`."""
        parent = {s: -1}
        frontier, length = [s], 1
        while frontier and length < len(self.best) and self.visits <= allowance:
            following: list[int] = []
            stack = frontier[::-1]
            while stack:
                u = stack.pop()
                self.visits += len(self.after[u])
                for v in self.after[u]:
                    if v == s:
                        self.best = self.path(parent, u)
                        return
                    if not self.alive[v] or v in parent:
                        continue
                    parent[v] = u
                    (stack if v >= self.count else following).append(v)
            frontier, length = following, length + 1

    def path(self, parent: dict[int, int], v: int) -> list[int]:
        found = []
        while v >= 0:
            if v < self.count:
                found.append(v)
            v = parent[v]
        return found[::-1]
