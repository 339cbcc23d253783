"""Check a witness again, from the graph alone.

Nothing here is shared with the code that finds witnesses, not even the reading of the graph: whoever doubts
:func:`pcgraph.check` reads this file and Theorem 1. Every check is one pass over nodes and edges (on the level of
neurons: over neurons, stored entries and, for a dense edge, its two ends).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from pcgraph.arguments import read_names, require_choice, shown
from pcgraph.errors import ClampError, ConfigError, GraphError
from pcgraph.topology import witness as claims

__all__ = ["verify"]

NEVER = np.iinfo(np.int64).max


def verify(graph_or_net: Any, clamped: Iterable[Hashable], witness: object, *, level: str = "groups") -> bool:
    """Tell whether a witness shows what it claims, for this graph and these clamps.

    Parameters
    ----------
    graph_or_net : nx.DiGraph, nx.MultiDiGraph or network
        The declaration.
    clamped : iterable of node, or mapping from node
        As given to :func:`pcgraph.check`, of one phase.
    witness : object
        Of a verdict, a sweep or a repair. Of a repair its sufficiency is checked; that it is smallest is not (no
        short proof of that is known).
    level : {"groups", "neurons"}
        Of the report that the witness is from.

    Returns
    -------
    bool

    Raises
    ------
    ConfigError
        If `witness` is none of the classes of :mod:`pcgraph.topology.witness`, or `level` is no level.
    GraphError, ClampError
        If the graph is no declaration, or a clamp names no node of it.

    Examples
    --------
    >>> graph = nx.DiGraph([("x", "h"), ("h", "h"), ("h", "y")])
    >>> verify(graph, {"x", "y"}, claims.FreeCycle(("h",)))
    True
    >>> verify(graph, {"x", "y"}, claims.SweepOrder(("h",)))
    False
    """
    declared = _Declaration(graph_or_net, clamped, level)
    match witness:
        case claims.FreeCycle(nodes):
            return declared.cycle(nodes, free=True)
        case claims.GraphCycle(nodes, slots):
            return declared.cycle(nodes, free=False, slots=slots)
        case claims.FreeRoot(node):
            return declared.free_root(node)
        case claims.UnclampedRoot(node, slots):
            return declared.has(node) and declared.is_root(node, slots) and not declared.is_clamped(node)
        case claims.GraphOrder(nodes, slots):
            return declared.graph_order(nodes, slots)
        case claims.SweepOrder(nodes):
            return declared.sweep(nodes, (), (), None)
        case claims.Sweep(order, blocked, initialised, among, found):
            holds = declared.sweep(order, blocked, initialised, among)
            return holds and (found is None) == (not blocked) and (found is None or declared.blocks(found, witness))
        case claims.Repair(nodes, order):
            return declared.sweep(order, (), nodes, None)
        case claims.NotSupplied(node, parent):
            return (
                declared.has(node)
                and declared.has(parent)
                and not declared.is_clamped(parent)
                and declared.edge(parent, node)
            )
        case claims.Leak(nodes):
            return declared.leak(nodes)
        case claims.ErrorCoordinates(order, kept):
            return declared.error_coordinates(order, kept)
        case claims.Clamped(node, target):
            return declared.has(node) and declared.is_clamped(node) and not (target and declared.is_root(node))
        case claims.Nothing(target):
            return declared.nothing(target)
    raise ConfigError(
        f"verify() knows the claims of pcgraph.topology.witness, as verdict.witness is one (found {shown(witness)})",
        key="witness",
    )


Place = tuple[Hashable, int]


class _Declaration:
    """Read the graph group by group. On the level of groups every group has one member and every edge is dense.

    Edges that feed slots count where `slots` is true; a sweep, and whatever rests on one, knows none.
    """

    def __init__(self, graph_or_net: Any, clamped: Iterable[Hashable], level: str) -> None:
        require_choice(level, "level", ("groups", "neurons"))
        self.net = graph_or_net
        graph = graph_or_net if isinstance(graph_or_net, nx.Graph) else getattr(graph_or_net, "graph", None)
        if not isinstance(graph, nx.DiGraph) or not len(graph):
            raise GraphError(
                f"verify() needs an nx.DiGraph with nodes, or a network (found {shown(graph_or_net)})",
                found=graph_or_net,
            )
        self.graph: nx.DiGraph = graph
        self.neurons = level == "neurons"
        self.shape = {v: self._shape(v) for v in self.graph.nodes}
        keyed = self.graph.is_multigraph()
        #: All edges, and those that feed main predictions.
        self.every: list[tuple[Any, ...]] = list(self.graph.edges(keys=True) if keyed else self.graph.edges())
        self.main = [edge for edge in self.every if not self._feeds_slot(edge)]
        self.entered = {slots: {edge[1] for edge in self.edges(slots)} for slots in (False, True)}
        self.clamped = {v: np.zeros(math.prod(shape), dtype=bool) for v, shape in self.shape.items()}
        if isinstance(clamped, str):
            raise ClampError(f"clamped is a collection of nodes (found {clamped!r})", node=None)
        for v in read_names(clamped, "clamped", refuse=ClampError):
            if v not in self.clamped:
                raise ClampError(f"a clamp names a node of the graph (found {shown(v)})", node=v)
            self.clamped[v][:] = self._clamped_part(v, clamped)

    def _feeds_slot(self, edge: tuple[Any, ...]) -> bool:
        """Tell whether an edge feeds a slot, which its target then declares."""
        slot, slots = self.graph.edges[edge].get("slot"), self.graph.nodes[edge[1]].get("slots")
        if not isinstance(slots, Mapping | None) or not all(
            isinstance(said, Mapping) for said in (slots or {}).values()
        ):
            raise GraphError(f"node {edge[1]!r} declares slots by a mapping from names (found {slots!r})", found=slots)
        if slot in (None, "main"):
            return False
        if not isinstance(slot, str) or slot not in (slots or {}):
            raise GraphError(f"an edge feeds a slot that its target {edge[1]!r} declares (found {slot!r})", found=slot)
        return True

    def _shape(self, v: Hashable) -> tuple[int, ...]:
        if not self.neurons:
            return (1,)
        shape = self.graph.nodes[v]["shape"]
        return tuple(shape) if isinstance(shape, Iterable) else (int(shape),)

    def _clamped_part(self, v: Hashable, clamped: Iterable[Hashable]) -> Any:
        value = clamped[v] if isinstance(clamped, Mapping) else True
        if value is None:
            raise ClampError(f"a clamp needs a value (got None for {v!r}): leave it out where it is free", node=v)
        mask = getattr(value, "mask", None)
        if mask is None:
            return True
        if not self.neurons:
            return False
        mask = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask, dtype=bool)
        return mask.reshape(-1, math.prod(self.shape[v])).all(axis=0)

    def place(self, node: Any) -> Place:
        if self.neurons:
            return (node.node, node.index) if isinstance(node, claims.Neuron) else (None, -1)
        return (node, 0)

    def has(self, node: Hashable) -> bool:
        group, i = self.place(node)
        return group in self.shape and 0 <= i < len(self.clamped[group])

    def is_clamped(self, node: Hashable) -> bool:
        group, i = self.place(node)
        return bool(self.clamped[group][i])

    def is_root(self, node: Hashable, slots: bool = False) -> bool:
        return self.place(node)[0] not in self.entered[slots]

    def entries(self, edge: tuple[Any, ...]) -> NDArray[np.int64] | None:
        """Return the stored entries of one edge; None: every pair."""
        if not self.neurons:
            return None
        u, v = edge[:2]
        if self.graph.nodes[v].get("combine") is not None and self.graph.edges[edge].get("slot") in (None, "main"):
            return None
        transform = self.graph.edges[edge].get("transform")
        if self.net is not self.graph:
            s = getattr(self.net, "structure", None)  # which knows what is declared on other ranks, too
            transform = self.net.transform(*edge) if s is None else s.transform(s.edge_number(*edge))
        if isinstance(transform, str) and transform == "identity":
            return np.vstack([np.arange(math.prod(self.shape[u]))] * 2)
        stored = transform.entries(self.shape[u], self.shape[v]) if hasattr(transform, "entries") else None
        if stored is None:
            return None
        return np.asarray(stored.cpu() if hasattr(stored, "cpu") else stored, dtype=np.int64)

    def edges(self, slots: bool = False) -> list[tuple[Any, ...]]:
        return self.every if slots else self.main

    def reads(self) -> dict[Hashable, NDArray[np.bool_]]:
        """Mark the neurons that something reads, a slot among them, and those that have a slot of their own."""
        read = {v: np.zeros_like(flags) for v, flags in self.clamped.items()}
        for edge in self.edges(slots=True):
            stored = self.entries(edge)
            read[edge[0]][... if stored is None else stored[0]] = True
        for edge in self.every:
            if self.graph.edges[edge].get("slot") not in (None, "main"):
                read[edge[1]][...] = True
        for v, data in self.graph.nodes(data=True):
            if any(said.get("prior") is not None for said in (data.get("slots") or {}).values()):
                read[v][...] = True
        return read

    def free_root(self, node: Hashable) -> bool:
        if not self.has(node) or self.is_clamped(node) or not self.is_root(node):
            return False
        group, i = self.place(node)
        return self.graph.nodes[group].get("prior") is None and bool(self.reads()[group][i])

    def edge(self, a: Hashable, b: Hashable) -> bool:
        return self.path([(self.place(a), self.place(b))])

    def path(self, steps: list[tuple[Place, Place]], slots: bool = False) -> bool:
        """Tell whether each step is an edge."""
        wanted: dict[tuple[Hashable, Hashable], set[tuple[int, int]]] = {}
        for (u, i), (v, j) in steps:
            wanted.setdefault((u, v), set()).add((i, j))
        for edge in self.edges(slots):
            pairs = wanted.get((edge[0], edge[1]))
            if pairs:
                stored = self.entries(edge)
                pairs -= pairs.copy() if stored is None else set(zip(*stored.tolist()))
        return not any(wanted.values())

    def cycle(self, nodes: Collection[Hashable], *, free: bool, slots: bool = False) -> bool:
        nodes = list(nodes)
        if not nodes or not all(map(self.has, nodes)) or len(set(nodes)) < len(nodes):
            return False
        if free and any(map(self.is_clamped, nodes)):
            return False
        places = list(map(self.place, nodes))
        return self.path(list(zip(places, places[1:] + places[:1])), slots)

    def leak(self, nodes: Collection[Hashable]) -> bool:
        """Tell whether the first of the nodes, and no other, is clamped on this cycle."""
        return self.cycle(nodes, free=False) and list(map(self.is_clamped, nodes)) == [
            True,
            *[False] * (len(nodes) - 1),
        ]

    def flags(self, nodes: Iterable[Hashable]) -> dict[Hashable, NDArray[np.bool_]]:
        found = {v: np.zeros_like(flags) for v, flags in self.clamped.items()}
        for node in nodes:
            group, i = self.place(node)
            found[group][i] = True
        return found

    def positions(self, order: Collection[Hashable]) -> dict[Hashable, NDArray[np.int64]] | None:
        """Return each node's place in the order, `NEVER` for the others; None where the order repeats a node."""
        position = {v: np.full(len(flags), NEVER) for v, flags in self.clamped.items()}
        for k, node in enumerate(order):
            if not self.has(node):
                return None
            group, i = self.place(node)
            if position[group][i] != NEVER:
                return None
            position[group][i] = k
        return position

    def graph_order(self, order: Collection[Hashable], slots: bool) -> bool:
        position = self.positions(order)
        if position is None or any((at == NEVER).any() for at in position.values()):
            return False
        for v in self.graph.nodes:
            if v not in self.entered[slots] and not self.clamped[v].all():
                return False
        return self.ascends(position, position, slots)

    def ascends(self, ready: dict[Hashable, Any], position: dict[Hashable, Any], slots: bool = False) -> bool:
        """Tell whether all that each neuron in the order reads is ready before its turn."""
        last = {v: int(at.max()) for v, at in ready.items()}
        first = {v: int(at.min()) for v, at in position.items()}
        for edge in self.edges(slots):
            u, v = edge[:2]
            stored = self.entries(edge)
            if stored is None:
                if first[v] != NEVER and last[u] >= first[v]:
                    return False
            else:
                turns = position[v][stored[1]]
                if ((turns != NEVER) & (ready[u][stored[0]] >= turns)).any():
                    return False
        return True

    def sweep(
        self,
        order: Collection[Hashable],
        blocked: Collection[Hashable],
        initialised: Collection[Hashable],
        among: Collection[Hashable] | None,
    ) -> bool:
        """Tell whether `order` sweeps, with `initialised` given, all that was asked for but the `blocked`.

        None of the blocked can be computed first: each is a root without a value, or reads one that is blocked or
        was not asked for. So no larger set can be swept.
        """
        position = self.positions(order)
        given = [*blocked, *initialised, *(() if among is None else among)]
        if position is None or not all(map(self.has, given)):
            return False
        stuck, supplied = self.flags(blocked), self.flags(initialised)
        asked = None if among is None else self.flags(among)
        read = self.reads()
        known: dict[Hashable, NDArray[np.bool_]] = {}
        ready: dict[Hashable, NDArray[np.int64]] = {}
        for v, clamped in self.clamped.items():
            known[v] = clamped | supplied[v]
            swept = position[v] != NEVER
            wanted = ~known[v] if asked is None else ~known[v] & asked[v]
            if (swept & stuck[v]).any() or ((swept | stuck[v]) != wanted).any():
                return False
            ready[v] = np.where(known[v], -1, position[v])
            if v not in self.entered[False]:
                unknown = read[v] & (self.graph.nodes[v].get("prior") is None)
                if (swept & unknown).any():
                    return False
                stuck[v] &= ~unknown
        if not self.ascends(ready, position):
            return False
        return self.all_stuck(stuck, {v: at == NEVER for v, at in ready.items()})

    def error_coordinates(self, order: Collection[Hashable], kept: Collection[Hashable]) -> bool:
        """Tell whether each node of the order has a prediction, which its clamped, kept and earlier parents give.

        Every neuron must be one of three: clamped, kept, or in the order.
        """
        position = self.positions(order)
        if position is None or not all(map(self.has, kept)):
            return False
        states = self.flags(kept)
        ready: dict[Hashable, NDArray[np.int64]] = {}
        for v, clamped in self.clamped.items():
            errors = position[v] != NEVER
            if (clamped.astype(int) + states[v] + errors != 1).any():
                return False
            if errors.any() and v not in self.entered[False]:
                return False
            ready[v] = np.where(errors, position[v], -1)
        return self.ascends(ready, position)

    def all_stuck(self, stuck: dict[Hashable, Any], missing: dict[Hashable, Any]) -> bool:
        """Tell whether each of the stuck reads something that never becomes known."""
        some = {v for v, flags in missing.items() if flags.any()}
        for edge in self.edges():
            u, v = edge[:2]
            stored = self.entries(edge)
            if stored is not None:
                stuck[v][stored[1][missing[u][stored[0]]]] = False
            elif u in some:
                stuck[v][:] = False
        return not any(flags.any() for flags in stuck.values())

    def blocks(self, found: Any, sweep: claims.Sweep) -> bool:
        """Tell whether the sweep's own witness is about nodes it calls blocked."""
        match found:
            case claims.FreeCycle(nodes):
                return set(nodes) <= sweep.blocked and self.cycle(nodes, free=True)
            case claims.FreeRoot(node):
                return node in sweep.blocked and self.free_root(node)
            case claims.NotSupplied(node, parent):
                if node not in sweep.blocked or sweep.among is None or not self.has(parent):
                    return False
                outside = parent not in sweep.among and parent not in sweep.initialised
                return outside and not self.is_clamped(parent) and self.edge(parent, node)
        return False

    def nothing(self, target: bool) -> bool:
        groups = [v for v, flags in self.clamped.items() if flags.any()]
        return all(target and v not in self.entered[False] for v in groups)
