"""Compute the facts of one graph under one set of clamps, each when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pcgraph.arguments import read_names
from pcgraph.errors import ConfigError, GraphError
from pcgraph.topology.adjacency import Flags, reach
from pcgraph.topology.cutgraph import CutGraph
from pcgraph.topology.cycles import Found, shortest_cycle
from pcgraph.topology.repair import Budget, feedback_vertex_set
from pcgraph.topology.witness import (
    FreeCycle,
    FreeRoot,
    GraphCycle,
    GraphOrder,
    Leak,
    NotSupplied,
    Repair,
    Sweep,
    UnclampedRoot,
)

__all__ = ["Facts"]

Node = Hashable

LEAK_VISITS = 20_000_000
"""A report looks for leaks of its own accord where suspects × (nodes + edges) is at most this: a few seconds."""


@dataclass(frozen=True, eq=False)
class Facts:
    """Hold what is true of a graph and its clamps; a :class:`~pcgraph.topology.Report` adds verdicts to it.

    Facts about sweeps are about main predictions: edges that feed slots do not count. Where they do, it is said.

    Attributes
    ----------
    clamped, partial, budget, by_place
        As in a report.
    """

    clamped: frozenset[Node]
    partial: frozenset[Node]
    budget: Budget | None
    _graph: CutGraph = field(repr=False)
    by_place: tuple[Node, ...] = ()

    @property
    def level(self) -> str:
        """Nodes are "groups" or "neurons"."""
        return self._graph.level

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes stand here in the order of declaration."""
        return tuple(self._graph.names)

    @property
    def edges(self) -> tuple[tuple[Node, Node], ...]:
        """Each pair of groups (source, target) with an edge, into a slot or not, stands once, for a report of groups.

        Raises
        ------
        ConfigError
            It is a report of neurons.
        """
        return self._pairs(self._graph.whole)

    @property
    def main_edges(self) -> tuple[tuple[Node, Node], ...]:
        """The same of edges that feed main predictions alone."""
        return self._pairs(self._graph)

    @property
    def slot_edges(self) -> tuple[tuple[Node, Node, str], ...]:
        """Each (source, target, slot) with an edge stands once, for a report of groups."""
        return self._graph.fed

    def _pairs(self, graph: CutGraph) -> tuple[tuple[Node, Node], ...]:
        if self.level != "groups":
            raise ConfigError("only a report of groups lists its edges (found one of neurons)", key="level")
        ends = zip(graph.source.tolist(), graph.target.tolist())
        return tuple((self.nodes[u], self.nodes[v]) for u, v in ends)

    @property
    def multiplicity(self) -> tuple[int, ...]:
        """Each of :attr:`edges` stands for so many parallel edges of the declaration."""
        parallel = self._graph.whole.parallel
        return (1,) * len(self.edges) if parallel is None else tuple(parallel.tolist())

    @cached_property
    def edge_count(self) -> int:
        """There are so many edges between nodes (of neurons: stored entries, and the ends of dense edges).

        Those that feed slots count.
        """
        return len(self._graph.whole.source)

    @property
    def has_slots(self) -> bool:
        """Some node has further predictions beside its main one."""
        return self._graph.full is not None

    @cached_property
    def free(self) -> tuple[Node, ...]:
        """These nodes have no clamp; they stand in the order of declaration."""
        return self._named(~self._graph.clamped)

    @cached_property
    def free_roots(self) -> tuple[Node, ...]:
        """These roots have no known value: they are free, without a prior, and some error depends on them."""
        return self._named(self._graph.unknown)

    @cached_property
    def unclamped_roots(self) -> tuple[Node, ...]:
        """These nodes without a main prediction are not clamped, whatever else is known of them."""
        return self._named(self._graph.root & ~self._graph.clamped)

    @cached_property
    def isolated(self) -> tuple[Node, ...]:
        """These nodes have no edge: they are valid, and useless."""
        return self._named(self._graph.isolated)

    @cached_property
    def theorem_1(self) -> bool:
        """A sweep exists exactly where this is true: no cycle of free nodes, and no free root without a known value."""
        return self.sweep().complete

    @cached_property
    def order(self) -> tuple[Node, ...] | None:
        """The free sweep takes this order; None if there is no sweep."""
        return self.sweep().order if self.theorem_1 else None

    @cached_property
    def forward_reachable(self) -> frozenset[Node]:
        """No larger set of free nodes than this one can be swept."""
        return frozenset(self.sweep().order)

    @cached_property
    def proposition_3_2(self) -> bool:
        """This is the condition of Proposition 3.2 as printed: the graph is acyclic, and every root is clamped.

        It is about all edges, those that feed slots among them.
        """
        return isinstance(self.claim(slots=True), GraphOrder)

    @cached_property
    def graph_order(self) -> tuple[Node, ...]:
        """The whole graph has this topological order; it is empty if the graph has a cycle."""
        graph = self._graph.whole
        return graph.called(graph.uncut) if len(graph.uncut) == graph.vertices else ()

    def claim(self, slots: bool) -> GraphOrder | GraphCycle | UnclampedRoot:
        """Show that Proposition 3.2 holds, or a cycle or a root that is not clamped.

        Parameters
        ----------
        slots : bool
            Whether edges that feed slots count: they do in the proposition as printed. Without them it is the condition
            on main predictions.
        """
        graph = self._graph.whole if slots else self._graph
        said = slots or not self.has_slots
        cycle = self._graph_cycle if slots else self._main_cycle
        if cycle is not None:
            return GraphCycle(graph.called(cycle.vertices), said)
        roots = np.flatnonzero(graph.root & ~graph.clamped)
        if len(roots):
            return UnclampedRoot(graph.called(roots[:1].tolist())[0], said)
        return GraphOrder(graph.called(graph.uncut), said)

    @cached_property
    def cycle(self) -> list[Node] | None:
        """This is one shortest cycle of free nodes, or None. See :attr:`cycle_is_shortest`."""
        found = self._free_cycle
        return None if found is None else list(self._graph.called(found.vertices))

    @property
    def cycle_is_shortest(self) -> bool | None:
        """Tell whether `cycle` is proved to be a shortest one: it always is where V·E is at most two million.

        On larger graphs the search has an allowance linear in the graph, and nearly always ends within it. None
        where there is no cycle.
        """
        return None if self._free_cycle is None else self._free_cycle.shortest

    @cached_property
    def graph_cycle(self) -> list[Node] | None:
        """This is one cycle of the whole graph, whatever is clamped (the free one, if there is one), or None.

        Edges that feed slots count; one without them is found first.
        """
        found = self._graph_cycle
        return None if found is None else list(self._graph.whole.called(found.vertices))

    @cached_property
    def components(self) -> tuple[frozenset[Node], ...]:
        """The strongly connected components stand here, each after all that its main predictions read from."""
        parts = map(self._graph.called, self._graph.components())
        return tuple(frozenset(part) for part in parts if part)

    @cached_property
    def depth(self) -> dict[Node, float]:
        """Each node has this longest path from the sources of the clamp-cut graph; ``inf`` on or after a free cycle."""
        depth, reached = self._depths
        return {v: d if ok else math.inf for v, d, ok in zip(self._graph.names, depth, reached.tolist())}

    @cached_property
    def _depths(self) -> tuple[list[int], Flags]:
        """Return each vertex's depth, and which vertices no free cycle precedes."""
        graph = self._graph
        reached = graph.clamped | graph.unknown
        order, depth = graph.sweep(reached)
        reached[order] = True
        return depth, reached

    @cached_property
    def _free_cycle(self) -> Found | None:
        graph = self._graph
        return self._cycle_among(~self._depths[1] & ~graph.clamped)

    @cached_property
    def _main_cycle(self) -> Found | None:
        if self._free_cycle is not None:
            return self._free_cycle
        return self._uncut_cycle(self._graph)

    @cached_property
    def _graph_cycle(self) -> Found | None:
        if self._main_cycle is not None or not self.has_slots:
            return self._main_cycle
        return self._uncut_cycle(self._graph.whole)

    def _uncut_cycle(self, graph: CutGraph) -> Found | None:
        left = np.ones(graph.vertices, dtype=bool)
        left[graph.uncut] = False
        return self._cycle_among(left, graph)

    def _cycle_among(self, vertices: Flags, graph: CutGraph | None = None) -> Found | None:
        graph = self._graph if graph is None else graph
        source, target = graph.edges_among(vertices)
        return shortest_cycle(source, target, graph.vertices, graph.count)

    def _named(self, flags: Flags) -> tuple[Node, ...]:
        return self._graph.called(np.flatnonzero(flags).tolist())

    def ancestors(self, node: Node) -> frozenset[Node]:
        """Find the free nodes on which the value of `node` depends, itself among them if it is free.

        These are the free nodes from which a path of free nodes leads to it: a clamp cuts what lies behind it off.
        ``sweep(among=ancestors(node))`` says whether a sweep gives that one value, and why not. (Of a root that nothing
        reads it says yes, since no energy contains it.)

        Parameters
        ----------
        node : node
            In a report of neurons, a group stands for all of its neurons.

        Examples
        --------
        >>> import networkx as nx
        >>> from pcgraph import check
        >>> graph = nx.DiGraph([("x", "h"), ("h", "y"), ("y", "z"), ("z", "z")])     # z predicts itself
        >>> report = check(graph, {"x"})
        >>> report.theorem_1, sorted(report.ancestors("y"))
        (False, ['h', 'y'])
        >>> report.sweep(among=report.ancestors("y")).order
        ('h', 'y')
        """
        free = ~self._graph.clamped
        return frozenset(self._named(reach(self._graph.find([node]) & free, self._graph.incoming, among=free)))

    def sweep(self, initialised: Iterable[Node] = (), among: Iterable[Node] | None = None) -> Sweep:
        """Find the unique largest set of free nodes that can be swept.

        Parameters
        ----------
        initialised : iterable of node
            Free nodes whose value another initializer supplies. They are not swept.
        among : iterable of node, optional
            Sweep only these; the default is every free node.

        Returns
        -------
        Sweep
            The nodes swept in an order, those asked for that cannot be, and why.
        """
        given = read_names(initialised, "initialised", refuse=GraphError)
        asked = None if among is None else frozenset(read_names(among, "among", refuse=GraphError))
        if not given and asked is None:
            return self._full_sweep
        return self._sweep(given, asked)

    @cached_property
    def _full_sweep(self) -> Sweep:
        return self._sweep((), None)

    def _sweep(self, initialised: tuple[Node, ...], among: frozenset[Node] | None) -> Sweep:
        graph = self._graph
        supplied = graph.find(initialised) & ~graph.clamped
        asked = None if among is None else graph.find(among) & ~graph.clamped
        given = graph.clamped | supplied
        order, _ = graph.sweep(given, asked)
        known = given.copy()
        known[order] = True
        blocked = ~known if asked is None else ~known & asked
        blocked[graph.count :] = False
        return Sweep(
            order=graph.called(order),
            blocked=frozenset(self._named(blocked)),
            initialised=frozenset(self._named(supplied)),
            among=None if asked is None else frozenset(self._named(asked)),
            witness=self._why(blocked, known, asked) if blocked.any() else None,
        )

    def _why(self, blocked: Flags, known: Flags, asked: Flags | None) -> FreeCycle | FreeRoot | NotSupplied:
        """Give one concrete reason: a shortest cycle of blocked nodes, else a root, else an edge from outside."""
        graph = self._graph
        if asked is None and (self._free_cycle is None or blocked[self._free_cycle.vertices].all()):
            found = self._free_cycle
        else:
            hubs = ~known
            hubs[: graph.count] = blocked[: graph.count]
            found = self._cycle_among(hubs)
        if found is not None:
            return FreeCycle(graph.called(found.vertices))
        roots = np.flatnonzero(blocked & graph.unknown)
        if len(roots):
            return FreeRoot(*graph.called(roots[:1].tolist()))
        return NotSupplied(*graph.called(self._outside_edge(blocked, known)))

    def _outside_edge(self, blocked: Flags, known: Flags) -> tuple[int, int]:
        """Find a blocked node and a free one that it reads, which was not asked for."""
        graph = self._graph
        outside = ~known & ~blocked
        outside[graph.count :] = False
        edges = outside[graph.source] & blocked[graph.target]
        if edges.any():
            at = int(np.flatnonzero(edges)[0])
            return int(graph.target[at]), int(graph.source[at])
        into = outside[graph.source] & (graph.target >= graph.count)
        hubs = graph.target[into]
        out_of = np.isin(graph.source, hubs) & blocked[graph.target]
        at = int(np.flatnonzero(out_of)[0])
        hub = int(graph.source[at])
        parent = graph.source[into][hubs == hub][0]
        return int(graph.target[at]), int(parent)

    @cached_property
    def repair_witness(self) -> Repair | None:
        """This is the repair with the sweep that it makes possible, for ``verify``; None if no search was allowed."""
        return None if self.budget is None else self.repaired(self.budget)

    def repaired(self, budget: Budget) -> Repair:
        """Search for a smallest repair within the budget."""
        graph = self._graph
        left = ~self._depths[1] & ~graph.clamped
        source, target = graph.edges_among(left)
        hubs = frozenset(range(graph.count, graph.vertices))
        edges = zip(source.tolist(), target.tolist())
        chosen, exact = feedback_vertex_set(np.flatnonzero(left).tolist(), edges, hubs, budget)
        nodes = (*self.free_roots, *graph.called(sorted(chosen)))
        return Repair(frozenset(nodes), self.sweep(nodes).order, exact)

    @property
    def repair(self) -> frozenset[Node] | None:
        """Give these nodes a value (by a clamp, or another initializer), and a sweep exists; no smaller set is known.

        Empty where one exists already; None if ``check(repair=False)``.
        """
        return None if self.repair_witness is None else self.repair_witness.nodes

    @property
    def repair_is_minimal(self) -> bool | None:
        """True: it is proved smallest. False: the budget ended, and it is the greedy one. None: none was searched."""
        return None if self.repair_witness is None else self.repair_witness.minimal

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """Each of these clamped nodes predicts itself through free nodes: a path that does so stands for each.

        While such a node is clamped, its value comes round to its own prediction, and weights learn to carry it
        there. Where it is free (a target at test time), that value is missing. Each such node costs a walk through
        the free nodes.
        """
        graph = self._graph
        paths = map(graph.way_back, np.flatnonzero(graph.suspects).tolist())
        return tuple(Leak(graph.called(path)) for path in paths if path is not None)

    @property
    def leaks_sought(self) -> bool:
        """A report looks for leaks of its own accord, unless many suspects in a large graph would make that slow."""
        graph = self._graph
        return int(graph.suspects.sum()) * (graph.vertices + len(graph.source)) <= LEAK_VISITS

    @cached_property
    def a_clamp(self) -> Node | None:
        """This node, if any, is the first that is clamped."""
        return next(iter(self._named(self._graph.clamped)), None)

    @cached_property
    def a_target(self) -> Node | None:
        """This node, if any, is the first that is clamped and has a main prediction."""
        return next(iter(self._named(self._graph.clamped & ~self._graph.root)), None)

    @cached_property
    def without_data(self) -> list[tuple[Node, ...]]:
        """These parts of the graph, of more than one node each, are connected to no clamped node."""
        graph = self._graph.whole
        parts = map(graph.called, graph.apart_from(graph.clamped))
        return [part for part in parts if len(part) > 1]
