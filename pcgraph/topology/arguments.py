"""Read what :func:`pcgraph.check` is given: the graph, the clamps, the phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from torch import nn

from pcgraph.arguments import shown
from pcgraph.errors import ClampError, GraphError, nearest
from pcgraph.network.slots import declared_slots, fed_slot

Entries = Callable[[Hashable, Hashable, Hashable], Any]
Masks = dict[Hashable, Any]
"""Each clamped node with the mask of a partial clamp, or None where the clamp is whole."""

COLLECTIONS = (set, frozenset, list, tuple, Mapping)
KNOWN_SHOWN = 10


def declared_graph(graph_or_net: Any) -> nx.DiGraph:
    """Return the NetworkX graph behind a declaration or a network, checked to be directed and not empty."""
    graph = graph_or_net if isinstance(graph_or_net, nx.Graph) else getattr(graph_or_net, "graph", None)
    if not isinstance(graph, nx.Graph):
        raise GraphError(
            f"check() needs an nx.DiGraph, an nx.MultiDiGraph or a network (got {type(graph_or_net).__name__})",
            found=graph_or_net,
        )
    if not graph.is_directed():
        raise GraphError(
            f"predictions have a direction: needs an nx.DiGraph or nx.MultiDiGraph (got {type(graph).__name__}). "
            "Use graph.to_directed() if every edge predicts both ways.",
            found=graph,
        )
    if len(graph) == 0:
        raise GraphError("the graph has no nodes: there is nothing to check. Add some with graph.add_node.")
    return graph


def phases(graph: nx.DiGraph, clamped: Any) -> dict[Hashable, Any] | None:
    """Return the clamps by phase, or None if `clamped` is of one phase.

    A mapping is a table of phases exactly when none of its keys is a node and each of its values is a set, a
    list, a tuple or a mapping of nodes.
    """
    if not isinstance(clamped, Mapping) or not clamped:
        return None
    if not all(isinstance(value, COLLECTIONS) for value in clamped.values()):
        return None
    both = [key for key in clamped if key in graph]
    if not both:
        return dict(clamped)
    sets = [key for key, value in clamped.items() if isinstance(value, set | frozenset | Mapping)]
    if sets:
        raise ClampError(
            f"clamped is read as phases, since {sets[0]!r} is given a set of nodes, but {both[0]!r} is also the name "
            "of a node. Name the phase otherwise.",
            node=both[0],
        )
    return None


def masks(graph: nx.DiGraph, clamped: Any, phase: Hashable | None = None) -> Masks:
    """Return the clamped nodes, each with the mask of a partial clamp or None."""
    where = "" if phase is None else f" in phase {phase!r}"
    if isinstance(clamped, str | bytes) or not isinstance(clamped, Iterable):
        raise ClampError(
            f"clamped{where} must be a collection of nodes, such as {{'x'}} (got {shown(clamped)})", node=None
        )
    if not isinstance(clamped, Mapping):
        return {_known(graph, node, where): None for node in clamped}
    found = {_known(graph, node, where): getattr(value, "mask", None) for node, value in clamped.items()}
    for node, value in clamped.items():
        if value is None:
            raise ClampError(
                f"a clamp needs a value (got None for {node!r}{where}): leave {node!r} out where it is free, or give "
                f"the clamped nodes as a set, such as {{{node!r}}}",
                node=node,
            )
    return found


def _known(graph: nx.DiGraph, node: Any, where: str) -> Hashable:
    try:
        found = node in graph.nodes
        hash(node)
    except TypeError:
        raise ClampError(f"a node's name is hashable (got {shown(node)} as a clamp{where})", node=None) from None
    if found:
        return node  # type: ignore[no-any-return]
    by_text = {str(known).casefold(): known for known in reversed(list(graph.nodes))}
    guess = nearest(str(node).casefold(), by_text) if isinstance(node, str | int) else None
    nodes = list(graph.nodes)
    known = ", ".join(map(repr, nodes[:KNOWN_SHOWN])) + (", …" if len(nodes) > KNOWN_SHOWN else "")
    hint = f": did you mean {by_text[guess]!r}?" if guess is not None else "."
    raise ClampError(f"no node is named {shown(node)} (clamped{where}){hint} Nodes: {known}.", node=node)


def has_slots(graph: nx.DiGraph) -> bool:
    """Tell whether some node declares further predictions, so that edges need not feed the main one.

    Raises
    ------
    GraphError
        A node declares them as a network would not read them, or an edge feeds one that its target does not declare.
    """
    declared = [slot for v, data in graph.nodes(data=True) if "slots" in data for slot, _ in declared_slots(v, data)]
    number = {slot: i for i, slot in enumerate(declared)}
    keyed = graph.is_multigraph()
    for u, readers in graph.adjacency():
        for v, between in readers.items():
            for key, data in between.items() if keyed else ((None, between),):
                if "slot" in data and not feeds_main(data):
                    fed_slot((u, v, key)[: 2 + keyed], data["slot"], number, graph.nodes[v].get("slots"))
    return bool(declared)


def biased_by_place(graph: nx.DiGraph) -> tuple[Hashable, ...]:
    """Find images behind convolutions alone that say nothing of their bias: each place of them has one of its own."""
    found = []
    for v, data in graph.nodes(data=True):
        shape = data.get("shape")
        if not isinstance(shape, tuple | list) or len(shape) != 3 or "bias" in data:
            continue
        into = [said.get("transform") for _, _, said in graph.in_edges(v, data=True) if feeds_main(said)]
        if into and all(map(_convolves, into)):
            found.append(v)
    return tuple(found)


def _convolves(transform: Any) -> bool:
    if isinstance(transform, tuple | list) and transform:
        transform = transform[0]
    if isinstance(transform, str):
        return transform in ("conv2d", "conv_transpose2d")
    return isinstance(getattr(transform, "module", transform), nn.Conv2d | nn.ConvTranspose2d)


def feeds_main(data: Mapping[str, Any]) -> bool:
    """Tell whether an edge with these attributes feeds the main prediction of its target."""
    slot = data.get("slot")
    return slot is None or (isinstance(slot, str) and slot == "main")


def size(graph: nx.DiGraph, node: Hashable) -> int:
    """Count the neurons of a group."""
    shape = graph.nodes[node].get("shape")
    try:
        found = math.prod(shape) if isinstance(shape, Iterable) else int(shape)
    except (TypeError, ValueError):
        found = 0
    if found < 1:
        raise GraphError(
            f'level="neurons" needs the shape of every node: node {node!r} has shape {shape!r}', where=node, found=shape
        )
    return found


def shape_of(graph: nx.DiGraph, node: Hashable) -> tuple[int, ...]:
    """Return a group's shape as a tuple."""
    shape = graph.nodes[node]["shape"]
    return tuple(shape) if isinstance(shape, Iterable) else (int(shape),)


def mask_of(graph: nx.DiGraph, node: Hashable, mask: Any) -> NDArray[np.bool_]:
    """Mark the neurons that a partial clamp fixes in every sample, flattened."""
    array = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask, dtype=bool)
    neurons = size(graph, node)
    if (
        array.size == 0
        or array.size % neurons
        or array.shape[array.ndim - len(shape_of(graph, node)) :] != shape_of(graph, node)
    ):
        raise ClampError(
            f"the mask of {node!r} must have shape {shape_of(graph, node)}, or a batch of it (found {array.shape})",
            node=node,
        )
    return np.asarray(array.reshape(-1, neurons).all(axis=0))


def entries_of(graph_or_net: Any, graph: nx.DiGraph) -> Entries:
    """Return a function of (source, target, key) that gives the stored entries of an edge, None where it is dense."""
    lookup = getattr(graph_or_net, "transform", None) if graph_or_net is not graph else None

    def joint(u: Hashable, v: Hashable, key: Hashable) -> bool:
        data = graph.edges[(u, v, key) if graph.is_multigraph() else (u, v)]
        return graph.nodes[v].get("combine") is not None and data.get("slot") in (None, "main")

    def declared(u: Hashable, v: Hashable, key: Hashable) -> Any:
        data = graph.edges[(u, v, key) if graph.is_multigraph() else (u, v)]
        return data.get("transform")

    def entries(u: Hashable, v: Hashable, key: Hashable) -> NDArray[np.int64] | None:
        if joint(u, v, key):
            return None
        if lookup is not None:
            transform = lookup(u, v, key) if graph.is_multigraph() else lookup(u, v)
        else:
            transform = declared(u, v, key)
        m, n = size(graph, u), size(graph, v)
        if transform == "identity" if isinstance(transform, str) else False:
            return np.stack([np.arange(min(m, n))] * 2)
        if not hasattr(transform, "entries"):
            return None
        found = transform.entries(shape_of(graph, u), shape_of(graph, v))
        if found is None:
            return None
        array = np.asarray(found.cpu() if hasattr(found, "cpu") else found).astype(np.int64)
        if (
            array.ndim != 2
            or len(array) != 2
            or (array.size and (array.min() < 0 or array[0].max() >= m or array[1].max() >= n))
        ):
            raise GraphError(
                f"the entries of {u!r} → {v!r} must be a (2, entries) array of source neurons below {m} and target "
                f"neurons below {n}",
                where=(u, v),
                found=array,
            )
        return array

    return entries
