"""The graph as numbers: groups or neurons, edges as two arrays, and Kahn's algorithm on them.

NetworkX has topological orders and components, but of a graph as it stands. Here the edges into known nodes are cut,
roots without a value block, and on the level of neurons a dense edge is one vertex between two groups (a *hub*) so
that it costs m + n and not m·n. That one loop is written here, on flat lists, for graphs of millions of edges; the
rest (components) is asked of NetworkX.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from pcgraph.errors import GraphError, nearest
from pcgraph.topology import arguments
from pcgraph.topology.witness import Neuron

__all__ = ["Structure", "of_groups", "of_neurons"]

Index = NDArray[np.int64]
Flags = NDArray[np.bool_]
Node = Hashable


@dataclass(frozen=True, eq=False)
class Structure:
    """Vertices 0 to ``count - 1`` are nodes (groups or neurons); those from `count` on are hubs.

    Attributes
    ----------
    groups : list of node
        The nodes of the declaration.
    offsets : ndarray
        Vertices ``offsets[g]`` to ``offsets[g + 1] - 1`` belong to group g.
    level : {"groups", "neurons"}
    vertices : int
    source, target : ndarray
        The edges; none is given twice on the level of groups.
    clamped, root, prior : ndarray of bool, ``(vertices,)``
        Has a clamped value; belongs to a group that no edge enters; is such a root with a prior.
    """

    groups: list[Node]
    offsets: Index
    level: str
    vertices: int
    source: Index
    target: Index
    clamped: Flags
    root: Flags
    prior: Flags

    @property
    def count(self) -> int:
        """Vertices that are nodes."""
        return int(self.offsets[-1])

    @cached_property
    def names(self) -> list[Node]:
        """What each vertex (but no hub) is called in a report."""
        if self.level == "groups":
            return self.groups
        sizes = np.diff(self.offsets).tolist()
        return [Neuron(group, i) for group, size in zip(self.groups, sizes) for i in range(size)]

    @cached_property
    def group_index(self) -> dict[Node, int]:
        """The number of each group."""
        return {group: g for g, group in enumerate(self.groups)}

    def find(self, nodes: Iterable[Node]) -> Flags:
        """The vertices of the named nodes; on the level of neurons, a group stands for all of its neurons."""
        found = np.zeros(self.vertices, dtype=bool)
        for node in nodes:
            if isinstance(node, Neuron) and self.level == "neurons":
                start, stop = self.span(node.node)
                if not 0 <= node.index < stop - start:
                    raise GraphError(f"{node.node!r} has {stop - start} neurons (got neuron {node.index})", where=node)
                found[start + node.index] = True
            else:
                found[slice(*self.span(node))] = True
        return found

    def span(self, group: Node) -> tuple[int, int]:
        """The vertices of a group, from and to."""
        g = self.group_index.get(group)
        if g is None:
            guess = nearest(str(group), map(str, self.groups))
            hint = f": did you mean {guess}?" if guess else ""
            raise GraphError(f"no node is named {group!r}{hint}", where=group)
        return int(self.offsets[g]), int(self.offsets[g + 1])

    def called(self, vertices: Iterable[int]) -> tuple[Node, ...]:
        """Names of vertices, hubs left out."""
        names, count = self.names, self.count
        return tuple(names[v] for v in vertices if v < count)

    @cached_property
    def in_degree(self) -> Index:
        """Edges into each vertex."""
        return np.bincount(self.target, minlength=self.vertices)

    @cached_property
    def out_degree(self) -> Index:
        """Edges out of each vertex."""
        return np.bincount(self.source, minlength=self.vertices)

    @cached_property
    def unknown(self) -> Flags:
        """Free roots without a prior that something reads: no order can give them a value."""
        return np.asarray(self.root & ~self.clamped & ~self.prior & (self.out_degree > 0))

    @cached_property
    def isolated(self) -> Flags:
        """Roots that nothing reads."""
        return np.asarray(self.root & (self.out_degree == 0))

    @cached_property
    def outgoing(self) -> tuple[list[int], list[int]]:
        """Edges by source, as (start of each vertex's targets, targets)."""
        starts = np.concatenate([[0], np.cumsum(self.out_degree)])
        return starts.tolist(), self.target[np.argsort(self.source, kind="stable")].tolist()

    @cached_property
    def incoming(self) -> tuple[list[int], list[int]]:
        """Edges by target, as (start of each vertex's sources, sources)."""
        starts = np.concatenate([[0], np.cumsum(self.in_degree)])
        return starts.tolist(), self.source[np.argsort(self.target, kind="stable")].tolist()

    def sweep(self, given: Flags, asked: Flags | None = None) -> list[int]:
        """The largest set of vertices that can be computed from `given` ones, in an order (Kahn's algorithm).

        A vertex is computed when all it reads is given or computed. Roots without a known value never are; nor
        is what was not `asked` for.
        """
        count_down = self.in_degree.copy()
        count_down[self.unknown] += 1
        if asked is not None:
            count_down[: self.count][~asked[: self.count]] += 1
        count_down[given] = -1
        queue = np.flatnonzero(given).tolist()
        first = len(queue)
        queue += np.flatnonzero(count_down == 0).tolist()
        missing = count_down.tolist()
        starts, targets = self.outgoing
        for u in queue:
            for v in targets[starts[u] : starts[u + 1]]:
                left = missing[v] - 1
                missing[v] = left
                if left == 0:
                    queue.append(v)
        return queue[first:]

    def depths(self) -> tuple[list[int], Flags]:
        """The longest path to each vertex in the clamp-cut graph, and which vertices no free cycle precedes.

        A hub costs nothing, so that a dense edge is one step.
        """
        sources = self.clamped | self.unknown
        order = self.sweep(sources)
        reached = sources.copy()
        reached[order] = True
        depth = [0] * self.vertices
        starts, targets = self.outgoing
        cut, count = sources.tolist(), self.count
        for u in chain(np.flatnonzero(sources).tolist(), order):
            here = depth[u]
            for v in targets[starts[u] : starts[u + 1]]:
                there = here + (v < count)
                if there > depth[v] and not cut[v]:
                    depth[v] = there
        return depth, reached

    def edges_among(self, kept: Flags) -> tuple[Index, Index]:
        """The edges between vertices of `kept`."""
        both = kept[self.source] & kept[self.target]
        return self.source[both], self.target[both]

    def without(self, seeds: Flags) -> list[list[int]]:
        """The weakly connected parts that hold none of the `seeds`."""
        reached = seeds.tolist()
        queue = np.flatnonzero(seeds).tolist()
        for u in queue:
            for starts, neighbours in (self.outgoing, self.incoming):
                for v in neighbours[starts[u] : starts[u + 1]]:
                    if not reached[v]:
                        reached[v] = True
                        queue.append(v)
        rest = nx.DiGraph()
        left = ~np.array(reached, dtype=bool)
        rest.add_nodes_from(np.flatnonzero(left).tolist())
        rest.add_edges_from(zip(*(ends.tolist() for ends in self.edges_among(left))))
        return [sorted(part) for part in nx.weakly_connected_components(rest)]

    def components(self) -> list[list[int]]:
        """The strongly connected components, each after all that has an edge into it (Tarjan 1972, on a stack).

        A component is complete only after everything it leads to, so the reverse of that order is a topological one;
        starting from the last vertex keeps unrelated components in the order of declaration. (NetworkX gives the
        components without the order, and takes several times as long.)
        """
        starts, targets = self.outgoing
        place, low = [0] * self.vertices, [0] * self.vertices
        following = starts[:-1].copy()
        open_: list[int] = []
        found: list[list[int]] = []
        clock = 0
        for first in range(self.vertices - 1, -1, -1):
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
                        low[w] = place[w] = self.vertices + 1
                    del open_[at:]
        return found[::-1]


def _next_child(
    v: int, following: list[int], starts: list[int], targets: list[int], place: list[int], low: list[int]
) -> int:
    """The next vertex not yet seen that `v` leads to, or -1; of those seen and still open, `low` takes note."""
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


def of_groups(graph: nx.DiGraph, clamps: arguments.Clamps) -> Structure:
    """Every node of the declaration is one vertex; a partly clamped one is free, since some of its neurons are."""
    groups = list(graph.nodes)
    index = {node: g for g, node in enumerate(groups)}
    counts = np.fromiter((len(readers) for _, readers in graph.adjacency()), dtype=np.int64, count=len(groups))
    readers = chain.from_iterable(readers for _, readers in graph.adjacency())
    target = np.fromiter(map(index.__getitem__, readers), dtype=np.int64, count=int(counts.sum()))
    clamped = np.zeros(len(groups), dtype=bool)
    clamped[[index[node] for node, mask in clamps.items() if mask is None]] = True
    root = np.bincount(target, minlength=len(groups)) == 0
    return Structure(
        groups=groups,
        offsets=np.arange(len(groups) + 1),
        level="groups",
        vertices=len(groups),
        source=np.repeat(np.arange(len(groups)), counts),
        target=target,
        clamped=clamped,
        root=root,
        prior=root & _has_prior(graph),
    )


def of_neurons(graph: nx.DiGraph, clamps: arguments.Clamps, entries: arguments.Entries) -> Structure:
    """Every neuron is one vertex; all dense edges into a group share one hub.

    A neuron that no stored entry enters, in a group that an edge enters, is no root: it is predicted by its bias.
    """
    groups = list(graph.nodes)
    index = {node: g for g, node in enumerate(groups)}
    sizes = np.array([arguments.size(graph, node) for node in groups], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    span = [np.arange(a, b) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist())]
    sources: list[Index] = []
    targets: list[Index] = []
    hubs: dict[int, int] = {}
    dense: set[tuple[int, int]] = set()
    for u, v, key in _edges(graph):
        g, h = index[u], index[v]
        stored = entries(u, v, key)
        if stored is not None:
            sources.append(stored[0] + offsets[g])
            targets.append(stored[1] + offsets[h])
        elif (g, h) not in dense:
            dense.add((g, h))
            hub = hubs.setdefault(h, int(offsets[-1]) + len(hubs))
            sources.append(span[g])
            targets.append(np.full(len(span[g]), hub))
    for h, hub in hubs.items():
        sources.append(np.full(len(span[h]), hub))
        targets.append(span[h])
    vertices = int(offsets[-1]) + len(hubs)
    clamped = np.zeros(vertices, dtype=bool)
    for node, mask in clamps.items():
        clamped[span[index[node]]] = True if mask is None else arguments.mask_of(graph, node, mask)

    def per_group(flags: Flags) -> Flags:
        return np.concatenate([np.repeat(flags, sizes), np.zeros(len(hubs), dtype=bool)])

    root = np.array([graph.in_degree(node) == 0 for node in groups], dtype=bool)
    empty = np.zeros(0, dtype=np.int64)
    return Structure(
        groups=groups,
        offsets=offsets,
        level="neurons",
        vertices=vertices,
        source=np.concatenate([empty, *sources]),
        target=np.concatenate([empty, *targets]),
        clamped=clamped,
        root=per_group(root),
        prior=per_group(root & _has_prior(graph)),
    )


def _has_prior(graph: nx.DiGraph) -> Flags:
    return np.array([data.get("prior") is not None for _, data in graph.nodes(data=True)], dtype=bool)


def _edges(graph: nx.DiGraph) -> Iterable[tuple[Node, Node, Node]]:
    if graph.is_multigraph():
        return graph.edges(keys=True)  # type: ignore[no-any-return]
    return ((u, v, None) for u, v in graph.edges())
