"""Find a minimum feedback vertex set: the fewest nodes that meet every free cycle.

NP-hard (Karp 1972). The reductions are those of Levy and Low (1988): a vertex with a loop is in every solution; one
without an edge in or out is in no minimum; one with a single edge in (or out) may be merged with that neighbour, since
every cycle through it passes there too. What remains is split into strongly connected components, and each is searched
by branch and bound: a vertex is either taken, or passed over and bridged. Vertex-disjoint cycles are the lower bound.
Beyond the budget the greedy answer stands, and is said to be one.

A hub (the middle of a dense edge between groups of neurons) can be bridged but not taken.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import networkx as nx

from pcgraph.arguments import require_count, require_number

__all__ = ["Budget", "feedback_vertex_set"]


@dataclass(frozen=True)
class Budget:
    """Limit the exact search for a smallest repair; whichever limit is met first ends it.

    Attributes
    ----------
    seconds : float or None
        Wall-clock time; None: no limit.
    nodes : int or None
        Nodes of the search tree. With ``seconds=None`` the answer is the same on every machine.
    """

    seconds: float | None = 2.0
    nodes: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None:
            require_number(self.seconds, "seconds", least=0)
        if self.nodes is not None:
            require_count(self.nodes, "nodes")


@dataclass
class _Clock:
    budget: Budget
    start: float = field(default_factory=time.monotonic)
    nodes: int = 0

    def over(self) -> bool:
        limit, seconds = self.budget.nodes, self.budget.seconds
        if limit is not None and self.nodes >= limit:
            return True
        return seconds is not None and time.monotonic() - self.start >= seconds


class _Impossible(Exception):
    """Raised where too many vertices have been passed over: what is left has no solution."""


class _Shrinking:
    """Hold a digraph that shrinks: successors and predecessors of each vertex, and what may not be taken."""

    def __init__(self, after: dict[int, set[int]], before: dict[int, set[int]], fixed: frozenset[int]) -> None:
        self.after = after
        self.before = before
        self.fixed = fixed

    @classmethod
    def of(cls, vertices: Iterable[int], edges: Iterable[tuple[int, int]], fixed: frozenset[int]) -> _Shrinking:
        after: dict[int, set[int]] = {v: set() for v in vertices}
        before: dict[int, set[int]] = {v: set() for v in after}
        for u, v in edges:
            after[u].add(v)
            before[v].add(u)
        return cls(after, before, fixed)

    def copy(self) -> _Shrinking:
        return _Shrinking(
            {v: set(s) for v, s in self.after.items()}, {v: set(s) for v, s in self.before.items()}, self.fixed
        )

    def remove(self, v: int) -> set[int]:
        """Delete a vertex, and return its neighbours."""
        after, before = self.after.pop(v) - {v}, self.before.pop(v) - {v}
        for w in after:
            self.before[w].discard(v)
        for w in before:
            self.after[w].discard(v)
        return after | before

    def bridge(self, v: int) -> set[int]:
        """Delete a vertex, join what it joined, and return its neighbours."""
        after, before = self.after[v], self.before[v]
        touched = self.remove(v)
        for u in before:
            self.after[u] |= after
        for w in after:
            self.before[w] |= before
        return touched

    def reduce(self, dirty: Iterable[int]) -> list[int]:
        """Apply the reductions around `dirty` vertices until none applies, and return the vertices forced.

        Raises _Impossible where a cycle is left of which no vertex may be taken.
        """
        taken: list[int] = []
        queue = list(dirty)
        while queue:
            v = queue.pop()
            if v not in self.after:
                continue
            if v in self.after[v]:
                if v in self.fixed:
                    raise _Impossible
                taken.append(v)
                queue.extend(self.remove(v))
            elif not self.after[v] or not self.before[v]:
                queue.extend(self.remove(v))
            elif self.merges(v):
                queue.extend(self.bridge(v))
        return taken

    def merges(self, v: int) -> bool:
        """Tell whether some single neighbour of `v`, itself free to be taken, lies on every cycle through `v`."""
        for side in (self.after[v], self.before[v]):
            if len(side) == 1 and (v in self.fixed or next(iter(side)) not in self.fixed):
                return True
        return v in self.fixed and len(self.after[v]) * len(self.before[v]) <= 4

    def components(self) -> list[_Shrinking]:
        """Split off the strongly connected parts, without the edges between them and without vertices on no cycle."""
        graph = nx.DiGraph()
        graph.add_nodes_from(sorted(self.after))
        graph.add_edges_from((u, v) for u in self.after for v in sorted(self.after[u]))
        parts = [set(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]
        return [
            _Shrinking(
                {v: self.after[v] & p for v in sorted(p)}, {v: self.before[v] & p for v in sorted(p)}, self.fixed
            )
            for p in sorted(parts, key=min)
        ]

    def choice(self) -> int:
        """Choose the vertex through which most paths of two edges go."""
        choices = [v for v in self.after if v not in self.fixed]
        if not choices:
            raise _Impossible
        return max(choices, key=lambda v: (len(self.after[v]) * len(self.before[v]), -v))

    def bound(self, clock: _Clock, enough: int) -> int:
        """Count cycles that share no vertex which may be taken: no solution is smaller. (It ends at `enough`.)"""
        rest = self.copy()
        found = len(rest.reduce(sorted(rest.after)))
        while rest.after and found < enough and not clock.over():
            touched: set[int] = set()
            for v in _short_cycle(rest):
                if v not in rest.fixed:
                    touched |= rest.remove(v)
            found += 1 + len(rest.reduce(sorted(v for v in touched if v in rest.after)))
        return found


def _short_cycle(rest: _Shrinking) -> list[int]:
    """Find a shortest cycle through the vertex of least degree. (In a reduced graph all have edges both ways.)"""
    while True:
        s = min(rest.after, key=lambda v: (len(rest.after[v]) + len(rest.before[v]), v))
        parent = {s: s}
        frontier = [s]
        for u in frontier:
            for v in rest.after[u]:
                if v == s:
                    cycle = [u]
                    while u != s:
                        u = parent[u]
                        cycle.append(u)
                    return cycle
                if v not in parent:
                    parent[v] = u
                    frontier.append(v)
        rest.remove(s)


def feedback_vertex_set(
    vertices: Iterable[int], edges: Iterable[tuple[int, int]], fixed: frozenset[int], budget: Budget
) -> tuple[set[int], bool]:
    """Find a set of vertices that meets every cycle, and tell whether it is proved to be a smallest one.

    Parameters
    ----------
    vertices, edges
        The digraph.
    fixed : frozenset of int
        Vertices that may not be taken; none of them has a loop, and no two are neighbours.
    budget : Budget
        Of the exact search.
    """
    whole = _Shrinking.of(vertices, edges, fixed)
    clock = _Clock(budget)
    chosen = set(whole.reduce(sorted(whole.after)))
    exact = True
    for part in whole.components():
        forced = part.reduce(sorted(part.after))
        chosen.update(forced)
        for piece in part.components():
            found, proved = _search(piece, clock)
            chosen |= found
            exact = exact and proved
    return chosen, exact


def _greedy(whole: _Shrinking) -> set[int]:
    """Take the busiest vertex, reduce, repeat; then put back whatever turned out not to be needed."""
    rest = whole.copy()
    taken = rest.reduce(sorted(rest.after))
    heap = [(-len(rest.after[v]) * len(rest.before[v]), v) for v in rest.after if v not in rest.fixed]
    heapq.heapify(heap)
    while rest.after:
        weight, v = heapq.heappop(heap)
        if v not in rest.after:
            continue
        now = -len(rest.after[v]) * len(rest.before[v])
        if now != weight:
            heapq.heappush(heap, (now, v))
            continue
        taken.append(v)
        taken += rest.reduce(rest.remove(v))
    return _without_excess(whole, taken)


def _without_excess(whole: _Shrinking, taken: list[int]) -> set[int]:
    """Drop each vertex that no cycle needs, the last taken first; a try costs one look at the graph."""
    solution = set(taken)
    edges = sum(map(len, whole.after.values()))
    if edges * len(taken) > 20_000_000:
        return solution
    for v in reversed(taken):
        if not _on_cycle(whole, v, solution - {v}):
            solution.discard(v)
    return solution


def _on_cycle(whole: _Shrinking, v: int, without: set[int]) -> bool:
    seen: set[int] = set()
    stack = [v]
    while stack:
        for w in whole.after[stack.pop()]:
            if w == v:
                return True
            if w not in seen and w not in without:
                seen.add(w)
                stack.append(w)
    return False


def _search(whole: _Shrinking, clock: _Clock) -> tuple[set[int], bool]:
    """Branch and bound within one component, depth first on a stack of its own (a chain of choices may be long)."""
    best = _greedy(whole)
    stack: list[tuple[_Shrinking, frozenset[int]]] = [(whole, frozenset())]
    while stack:
        if clock.over():
            return best, False
        clock.nodes += 1
        here, taken = stack.pop()
        if not here.after:
            if len(taken) < len(best):
                best = set(taken)
            continue
        try:
            if len(taken) + here.bound(clock, len(best) - len(taken)) >= len(best):
                continue
            v = here.choice()
        except _Impossible:
            continue
        for take in (False, True):
            rest = here.copy()
            more = taken | {v} if take else taken
            try:
                more = more.union(rest.reduce(sorted(rest.remove(v) if take else rest.bridge(v))))
                rest = _joined(rest.components(), rest.fixed)
                more = more.union(rest.reduce(sorted(rest.after)))
            except _Impossible:
                continue
            if len(more) < len(best):
                stack.append((rest, more))
    return best, True


def _joined(parts: list[_Shrinking], fixed: frozenset[int]) -> _Shrinking:
    after = {v: s for part in parts for v, s in part.after.items()}
    before = {v: s for part in parts for v, s in part.before.items()}
    return _Shrinking(after, before, fixed)
