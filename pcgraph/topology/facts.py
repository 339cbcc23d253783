"""The facts of one graph under one set of clamps, each computed when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pcgraph.errors import ConfigError
from pcgraph.topology.cycles import Found, shortest_cycle
from pcgraph.topology.repair import Budget, feedback_vertex_set
from pcgraph.topology.structure import Flags, Structure
from pcgraph.topology.witness import FreeCycle, FreeRoot, NotSupplied, Repair, Sweep, listing

__all__ = ["Facts"]

Node = Hashable


@dataclass(frozen=True, eq=False)
class Facts:
    """Hold what is true of a graph and its clamps; a :class:`~pcgraph.topology.Report` adds verdicts to it.

    Attributes
    ----------
    clamped, partial, budget
        As in a report.
    """

    clamped: frozenset[Node]
    partial: frozenset[Node]
    budget: Budget | None
    _structure: Structure = field(repr=False)

    @property
    def level(self) -> str:
        """Whether nodes are groups or neurons."""
        return self._structure.level

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in the order of declaration."""
        return tuple(self._structure.names)

    @property
    def edges(self) -> tuple[tuple[Node, Node], ...]:
        """The pairs of groups (source, target) with an edge, each once; for a report of groups.

        Raises
        ------
        ConfigError
            It is a report of neurons.
        """
        if self.level != "groups":
            raise ConfigError("only a report of groups lists its edges (found one of neurons)", key="level")
        ends = zip(self._structure.source.tolist(), self._structure.target.tolist())
        return tuple((self.nodes[u], self.nodes[v]) for u, v in ends)

    @cached_property
    def edge_count(self) -> int:
        """Edges between nodes (at the level of neurons: stored entries, and the ends of dense edges)."""
        return len(self._structure.source)

    @cached_property
    def free(self) -> tuple[Node, ...]:
        """The nodes without a clamp, in the order of declaration."""
        return self._named(~self._structure.clamped)

    @cached_property
    def free_roots(self) -> tuple[Node, ...]:
        """Roots with no known value: free, without a prior, and read by something."""
        return self._named(self._structure.unknown)

    @cached_property
    def unclamped_roots(self) -> tuple[Node, ...]:
        """Roots that are not clamped, whatever else is known of them."""
        return self._named(self._structure.root & ~self._structure.clamped)

    @cached_property
    def isolated(self) -> tuple[Node, ...]:
        """Nodes without any edge: valid, and useless."""
        return self._named(self._structure.isolated)

    @cached_property
    def theorem_1(self) -> bool:
        """Whether a sweep exists: no cycle of free nodes, and no free root without a known value."""
        return self.sweep().complete

    @cached_property
    def order(self) -> tuple[Node, ...] | None:
        """An order of the free sweep, or None if there is no sweep."""
        return self.sweep().order if self.theorem_1 else None

    @cached_property
    def forward_reachable(self) -> frozenset[Node]:
        """The largest set of free nodes that can be swept."""
        return frozenset(self.sweep().order)

    @cached_property
    def proposition_3_2(self) -> bool:
        """The condition of Proposition 3.2 as printed: the graph is acyclic, and every root is clamped."""
        return not self.unclamped_roots and self._graph_cycle is None

    @cached_property
    def graph_order(self) -> tuple[Node, ...]:
        """A topological order of the whole graph; empty if it has a cycle."""
        order = self._whole_order
        return self._structure.called(order) if len(order) == self._structure.vertices else ()

    @cached_property
    def cycle(self) -> list[Node] | None:
        """One shortest cycle of free nodes, or None. See :attr:`cycle_is_shortest`."""
        found = self._free_cycle
        return None if found is None else list(self._structure.called(found.vertices))

    @property
    def cycle_is_shortest(self) -> bool | None:
        """Whether `cycle` is proved to be a shortest one: always where V·E is at most two million.

        On larger graphs the search has an allowance linear in the graph, and nearly always ends within it. None
        where there is no cycle.
        """
        return None if self._free_cycle is None else self._free_cycle.shortest

    @cached_property
    def graph_cycle(self) -> list[Node] | None:
        """One cycle of the whole graph, whatever is clamped (the free one, if there is one), or None."""
        found = self._graph_cycle
        return None if found is None else list(self._structure.called(found.vertices))

    @cached_property
    def components(self) -> tuple[frozenset[Node], ...]:
        """The strongly connected components of the graph, each after all that it reads from."""
        parts = map(self._structure.called, self._structure.components())
        return tuple(frozenset(part) for part in parts if part)

    @cached_property
    def depth(self) -> dict[Node, float]:
        """Each node's longest path from the sources of the clamp-cut graph; ``inf`` on or after a free cycle."""
        depth, reached = self._depths
        return {v: d if ok else math.inf for v, d, ok in zip(self._structure.names, depth, reached.tolist())}

    @cached_property
    def _depths(self) -> tuple[list[int], Flags]:
        return self._structure.depths()

    @cached_property
    def _free_cycle(self) -> Found | None:
        structure = self._structure
        return self._cycle_among(~self._depths[1] & ~structure.clamped)

    @cached_property
    def _whole_order(self) -> list[int]:
        roots = self._structure.root
        return np.flatnonzero(roots).tolist() + self._structure.sweep(roots)

    @cached_property
    def _graph_cycle(self) -> Found | None:
        if self._free_cycle is not None:
            return self._free_cycle
        left = np.ones(self._structure.vertices, dtype=bool)
        left[self._whole_order] = False
        return self._cycle_among(left)

    def _cycle_among(self, vertices: Flags) -> Found | None:
        source, target = self._structure.edges_among(vertices)
        return shortest_cycle(source, target, self._structure.vertices, self._structure.count)

    def _named(self, flags: Flags) -> tuple[Node, ...]:
        return self._structure.called(np.flatnonzero(flags).tolist())

    def sweep(self, initialised: Iterable[Node] = (), among: Iterable[Node] | None = None) -> Sweep:
        """The unique largest set of free nodes that can be swept.

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
        given, asked = tuple(initialised), None if among is None else frozenset(among)
        if not given and asked is None:
            return self._full_sweep
        return self._sweep(given, asked)

    @cached_property
    def _full_sweep(self) -> Sweep:
        return self._sweep((), None)

    def _sweep(self, initialised: tuple[Node, ...], among: frozenset[Node] | None) -> Sweep:
        structure = self._structure
        supplied = structure.find(initialised) & ~structure.clamped
        asked = None if among is None else structure.find(among) & ~structure.clamped
        given = structure.clamped | supplied
        order = structure.sweep(given, asked)
        known = given.copy()
        known[order] = True
        blocked = ~known if asked is None else ~known & asked
        blocked[structure.count :] = False
        return Sweep(
            order=structure.called(order),
            blocked=frozenset(self._named(blocked)),
            initialised=frozenset(self._named(supplied)),
            among=None if asked is None else frozenset(self._named(asked)),
            witness=self._why(blocked, known, asked) if blocked.any() else None,
        )

    def _why(self, blocked: Flags, known: Flags, asked: Flags | None) -> FreeCycle | FreeRoot | NotSupplied:
        """One concrete reason: a shortest cycle of blocked nodes, else a root, else an edge from outside."""
        structure = self._structure
        if asked is None and (self._free_cycle is None or blocked[self._free_cycle.vertices].all()):
            found = self._free_cycle
        else:
            hubs = ~known
            hubs[: structure.count] = blocked[: structure.count]
            found = self._cycle_among(hubs)
        if found is not None:
            return FreeCycle(structure.called(found.vertices))
        roots = np.flatnonzero(blocked & structure.unknown)
        if len(roots):
            return FreeRoot(*structure.called(roots[:1].tolist()))
        return NotSupplied(*structure.called(self._outside_edge(blocked, known)))

    def _outside_edge(self, blocked: Flags, known: Flags) -> tuple[int, int]:
        """A blocked node and a free one that it reads, which was not asked for."""
        structure = self._structure
        outside = ~known & ~blocked
        outside[structure.count :] = False
        edges = outside[structure.source] & blocked[structure.target]
        if edges.any():
            at = int(np.flatnonzero(edges)[0])
            return int(structure.target[at]), int(structure.source[at])
        into = outside[structure.source] & (structure.target >= structure.count)
        hubs = structure.target[into]
        out_of = np.isin(structure.source, hubs) & blocked[structure.target]
        at = int(np.flatnonzero(out_of)[0])
        hub = int(structure.source[at])
        parent = structure.source[into][hubs == hub][0]
        return int(structure.target[at]), int(parent)

    @cached_property
    def repair_witness(self) -> Repair | None:
        """The repair with the sweep that it makes possible, for ``verify``; None if no search was allowed."""
        if self.budget is None:
            return None
        structure = self._structure
        left = ~self._depths[1] & ~structure.clamped
        source, target = structure.edges_among(left)
        hubs = frozenset(range(structure.count, structure.vertices))
        edges = zip(source.tolist(), target.tolist())
        chosen, exact = feedback_vertex_set(np.flatnonzero(left).tolist(), edges, hubs, self.budget)
        nodes = (*self.free_roots, *structure.called(sorted(chosen)))
        return Repair(frozenset(nodes), self.sweep(nodes).order, exact)

    @property
    def repair(self) -> frozenset[Node] | None:
        """The smallest set of nodes to give a value (by a clamp, or another initializer) so that a sweep exists.

        Empty where one exists already; None if ``check(repair=False)``.
        """
        return None if self.repair_witness is None else self.repair_witness.nodes

    @property
    def repair_is_minimal(self) -> bool | None:
        """True: proved smallest. False: the budget ended, and this is the greedy answer. None: not searched."""
        return None if self.repair_witness is None else self.repair_witness.minimal

    @cached_property
    def a_clamp(self) -> Node | None:
        """The first clamped node, if any."""
        return next(iter(self._named(self._structure.clamped)), None)

    @cached_property
    def a_target(self) -> Node | None:
        """The first clamped node that something predicts, if any."""
        return next(iter(self._named(self._structure.clamped & ~self._structure.root)), None)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed, but probably not what was meant."""
        found = []
        if self.isolated:
            found.append(f"useless: no edge touches {listing(self.isolated)}")
        if not self.clamped:
            found.append("nothing is clamped: no state depends on any data")
        else:
            found += [
                f"independent of the data: no clamped node is connected to {listing(part)}" for part in self._dataless
            ]
        if self.partial:
            parts = listing(sorted(self.partial, key=str))
            found.append(
                f"partly clamped, so partly free: {parts}"
                + ("; counted as free at the level of groups" if self.level == "groups" else "")
            )
        return tuple(found)

    @cached_property
    def _dataless(self) -> list[tuple[Node, ...]]:
        structure = self._structure
        parts = map(structure.called, structure.without(structure.clamped))
        return [part for part in parts if len(part) > 1]
