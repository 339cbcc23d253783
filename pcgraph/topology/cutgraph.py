"""Turn a declaration into numbers (groups or neurons, edges as two arrays) and cut it where it is clamped.

NetworkX has topological orders and components, but of a graph as it stands. Here the edges into known nodes are cut,
roots without a value block, and on the level of neurons a dense edge is one vertex between two groups (a *hub*) so
that it costs m + n and not m·n. Edges that feed slots are left out, since a sweep sets a node to its main prediction;
:attr:`CutGraph.whole` has them too. So Kahn's algorithm is written here, on flat lists, for graphs of millions of
edges; weakly connected components are asked of NetworkX.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import networkx as nx
import numpy as np

from pcgraph.arguments import shown
from pcgraph.errors import GraphError, nearest
from pcgraph.network.adjacency import components
from pcgraph.topology import arguments
from pcgraph.topology.adjacency import Adjacency, Flags, Index, by_source, reach, walk
from pcgraph.topology.witness import Neuron

__all__ = ["CutGraph", "of_groups", "of_neurons"]

Node = Hashable


@dataclass(frozen=True, eq=False)
class CutGraph:
    """Hold a declaration as numbers: vertices 0 to ``count - 1`` are nodes, those from `count` on are hubs.

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
    full : CutGraph or None
        The same with the edges that feed slots, where there are any.
    parallel : ndarray or None
        Of a multigraph, on the level of groups: so many edges of the declaration each edge stands for.
    fed : tuple of (source, target, slot)
        The edges that feed slots, each once, on the level of groups.
    held : ndarray of bool or None, ``(vertices,)``
        Belongs to a group with a slot that has a prior, so that it has an error of its own; None where none does.
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
    full: CutGraph | None = None
    parallel: Index | None = None
    fed: tuple[tuple[Node, Node, str], ...] = ()
    held: Flags | None = None

    @property
    def whole(self) -> CutGraph:
        """Return the graph of all edges, those that feed slots among them."""
        return self if self.full is None else self.full

    @property
    def count(self) -> int:
        """The vertices that are nodes number so many."""
        return int(self.offsets[-1])

    @cached_property
    def names(self) -> list[Node]:
        """A report calls the vertices so; a hub has no name."""
        if self.level == "groups":
            return self.groups
        sizes = np.diff(self.offsets).tolist()
        return [Neuron(group, i) for group, size in zip(self.groups, sizes) for i in range(size)]

    @cached_property
    def group_index(self) -> dict[Node, int]:
        """Each group has this number."""
        return {group: g for g, group in enumerate(self.groups)}

    def find(self, nodes: Iterable[Node]) -> Flags:
        """Mark the vertices of the named nodes; on the level of neurons, a group stands for all of its neurons."""
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
        """Return the first vertex of a group, and the one after its last."""
        g = self.group_index.get(group) if isinstance(group, Hashable) else None
        if g is None:
            guess = nearest(group, map(str, self.groups)) if isinstance(group, str) else None
            hint = f": did you mean {guess}?" if guess else ""
            raise GraphError(f"no node is named {shown(group)}{hint}", where=group)
        return int(self.offsets[g]), int(self.offsets[g + 1])

    def called(self, vertices: Iterable[int]) -> tuple[Node, ...]:
        """Name the vertices, and leave out the hubs."""
        names, count = self.names, self.count
        return tuple(names[v] for v in vertices if v < count)

    @cached_property
    def in_degree(self) -> Index:
        """So many edges enter each vertex."""
        return np.bincount(self.target, minlength=self.vertices)

    @cached_property
    def out_degree(self) -> Index:
        """So many edges leave each vertex."""
        return np.bincount(self.source, minlength=self.vertices)

    @cached_property
    def unknown(self) -> Flags:
        """These are free roots without a prior on which some error depends: no order can give them a value."""
        return np.asarray(self.root & ~self.clamped & ~self.prior & ~self.isolated)

    @cached_property
    def isolated(self) -> Flags:
        """These are roots that nothing reads, and that have no slot."""
        found = np.zeros(self.vertices, dtype=bool)
        found[: self.count] = (self.whole.root & (self.whole.out_degree == 0))[: self.count]
        return found if self.held is None else found & ~self.held

    @cached_property
    def outgoing(self) -> Adjacency:
        """Each vertex leads to these."""
        return by_source(self.source, self.target, self.vertices)

    @cached_property
    def incoming(self) -> Adjacency:
        """Each vertex reads these."""
        return by_source(self.target, self.source, self.vertices)

    def sweep(self, given: Flags, asked: Flags | None = None) -> tuple[list[int], list[int]]:
        """Compute as many vertices as can be from `given` ones (Kahn's algorithm).

        A vertex is computed when all it reads is given or computed. Roots without a known value never are; nor
        is what was not `asked` for.

        Returns
        -------
        order : list of int
            The vertices computed, each after all that it reads.
        depth : list of int, one for each vertex
            The longest path to it from what was given; it is right for those computed and given. A hub costs
            nothing, so that a dense edge is one step.
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
        depth = [0] * self.vertices
        starts, targets = self.outgoing
        count = self.count
        for u in queue:
            here = depth[u]
            for v in targets[starts[u] : starts[u + 1]]:
                left = missing[v] - 1
                missing[v] = left
                if left >= 0:
                    there = here + (v < count)
                    if there > depth[v]:
                        depth[v] = there
                    if left == 0:
                        queue.append(v)
        return queue[first:], depth

    @cached_property
    def uncut(self) -> list[int]:
        """Before every cycle of the whole graph, whatever is clamped, lie these vertices, in a topological order."""
        return np.flatnonzero(self.root).tolist() + self.sweep(self.root)[0]

    def edges_among(self, kept: Flags) -> tuple[Index, Index]:
        """Select the edges between vertices of `kept`."""
        both = kept[self.source] & kept[self.target]
        return self.source[both], self.target[both]

    def _networkx(self, kept: Flags) -> nx.DiGraph:
        """Hand the vertices of `kept` and their edges to NetworkX, the last vertex first."""
        graph = nx.DiGraph()
        graph.add_nodes_from(np.flatnonzero(kept)[::-1].tolist())
        graph.add_edges_from(zip(*(ends.tolist() for ends in self.edges_among(kept))))
        return graph

    @cached_property
    def suspects(self) -> Flags:
        """These clamped vertices may predict themselves through free ones; no other one does."""
        free, targets = ~self.clamped, self.clamped & (self.in_degree > 0)
        between = reach(targets, self.outgoing, among=free) & reach(targets, self.incoming, among=free)
        source, target = self.edges_among(between)
        out_of, into = (np.bincount(ends, minlength=self.vertices) > 0 for ends in (source, target))
        return np.asarray(targets & out_of & into)

    def way_back(self, v: int) -> list[int] | None:
        """Find a path from a vertex through free ones to one with an edge into it, if there is any."""
        starts, sources = self.incoming
        into = set(sources[starts[v] : starts[v + 1]])
        before = walk([v], self.outgoing, among=~self.clamped, until=into)
        last = v if v in into else next(reversed(before))
        if last not in into:
            return None
        path = [last]
        while path[-1] != v:
            path.append(before[path[-1]])
        return path[::-1]

    def apart_from(self, seeds: Flags) -> list[list[int]]:
        """List the weakly connected parts that hold none of the `seeds`."""
        rest = self._networkx(~reach(seeds, self.outgoing, self.incoming))
        return sorted(sorted(part) for part in nx.weakly_connected_components(rest))

    def components(self) -> list[list[int]]:
        """List the strongly connected components, each after all that has an edge into it.

        What lies before every cycle has components of one vertex, and comes first; unrelated ones of the rest keep
        the order of declaration.
        """
        alone = set(self.uncut)
        parts = components(*self.outgoing)
        return [*([v] for v in self.uncut), *(part for part in parts if part[0] not in alone)]


def of_groups(graph: nx.DiGraph, masks: arguments.Masks) -> CutGraph:
    """Make a vertex of every node; a partly clamped one is free, since some of its neurons are."""
    if not arguments.has_slots(graph):
        return _of_groups(graph, masks, [readers for _, readers in graph.adjacency()])
    keyed = graph.is_multigraph()

    def main(data: Mapping[Any, Any]) -> bool:
        return any(map(arguments.feeds_main, data.values())) if keyed else arguments.feeds_main(data)

    read = [[v for v, data in readers.items() if main(data)] for _, readers in graph.adjacency()]
    whole = _of_groups(graph, masks, [readers for _, readers in graph.adjacency()])
    into = ((*edge[:2], data["slot"]) for edge, data in _edges(graph) if not arguments.feeds_main(data))
    return replace(
        _of_groups(graph, masks, read), full=whole, fed=tuple(dict.fromkeys(into)), held=_has_prior_slot(graph)
    )  # fmt: skip


def _of_groups(graph: nx.DiGraph, masks: arguments.Masks, rows: Sequence[Collection[Node]]) -> CutGraph:
    """Make the graph in which each node, in order, is read by those in its row."""
    groups = list(graph.nodes)
    index = {node: g for g, node in enumerate(groups)}
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(groups))
    readers = chain.from_iterable(rows)
    target = np.fromiter(map(index.__getitem__, readers), dtype=np.int64, count=int(counts.sum()))
    clamped = np.zeros(len(groups), dtype=bool)
    clamped[[index[node] for node, mask in masks.items() if mask is None]] = True
    root = np.bincount(target, minlength=len(groups)) == 0
    parallel: Index | None = None
    if graph.is_multigraph():
        between = (len(graph.adj[u][v]) for u, row in zip(groups, rows) for v in row)
        parallel = np.fromiter(between, dtype=np.int64, count=len(target))
    return CutGraph(
        groups=groups,
        offsets=np.arange(len(groups) + 1),
        level="groups",
        vertices=len(groups),
        source=np.repeat(np.arange(len(groups)), counts),
        target=target,
        clamped=clamped,
        root=root,
        prior=root & _has_prior(graph),
        parallel=parallel,
    )


def of_neurons(graph: nx.DiGraph, masks: arguments.Masks, entries: arguments.Entries) -> CutGraph:
    """Make a vertex of every neuron; all dense edges into a group share one hub.

    A neuron that no stored entry enters, in a group that an edge enters, is no root: it is predicted by its bias.
    """
    edges = [(edge, arguments.feeds_main(data)) for edge, data in _edges(graph)]
    whole = _of_neurons(graph, masks, entries, [edge for edge, _ in edges])
    if not arguments.has_slots(graph):
        return whole
    found = _of_neurons(graph, masks, entries, [edge for edge, main in edges if main])
    held = np.zeros(found.vertices, dtype=bool)
    held[: found.count] = np.repeat(_has_prior_slot(graph), np.diff(found.offsets))
    return replace(found, full=whole, held=held)


def _of_neurons(
    graph: nx.DiGraph, masks: arguments.Masks, entries: arguments.Entries, edges: Sequence[tuple[Node, Node, Node]]
) -> CutGraph:
    groups = list(graph.nodes)
    index = {node: g for g, node in enumerate(groups)}
    sizes = np.array([arguments.size(graph, node) for node in groups], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    span = [np.arange(a, b) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist())]
    sources: list[Index] = []
    targets: list[Index] = []
    hubs: dict[int, int] = {}
    dense: set[tuple[int, int]] = set()
    for u, v, key in edges:
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
    for node, mask in masks.items():
        clamped[span[index[node]]] = True if mask is None else arguments.mask_of(graph, node, mask)

    def per_group(flags: Flags) -> Flags:
        return np.concatenate([np.repeat(flags, sizes), np.zeros(len(hubs), dtype=bool)])

    entered = {v for _, v, _ in edges}
    root = np.array([node not in entered for node in groups], dtype=bool)
    empty = np.zeros(0, dtype=np.int64)
    return CutGraph(
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


def _has_prior_slot(graph: nx.DiGraph) -> Flags:
    said = [data.get("slots") or {} for _, data in graph.nodes(data=True)]
    return np.array([any(slot.get("prior") is not None for slot in slots.values()) for slots in said], dtype=bool)


def _edges(graph: nx.DiGraph) -> Iterator[tuple[tuple[Node, Node, Node], Mapping[str, Any]]]:
    if graph.is_multigraph():
        yield from (((u, v, key), data) for u, v, key, data in graph.edges(keys=True, data=True))
    else:
        yield from (((u, v, None), data) for u, v, data in graph.edges(data=True))
