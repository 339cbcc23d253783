"""A declaration is copied, and its edges numbered, in a few passes over NetworkX's dictionaries."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain, islice
from typing import Any, NoReturn

import networkx as nx
import numpy as np
from torch import Tensor, nn

from pcgraph.errors import GraphError
from pcgraph.network.adjacency import Adjacency, Index

__all__ = ["copy_graph", "copy_module", "declared_graph", "keep_computed", "pairs_of"]


class _Declared(dict[str, Any]):
    """What a network's node or edge was declared with: it can be read and copied, and not changed."""

    __slots__ = ()

    def _refuse(self, *args: Any, **named: Any) -> NoReturn:
        raise GraphError(
            "the graph of a network is what it was made of: a change there would change no weight and no prediction; "
            "change a copy, graph = net.graph.copy(), and make a network of that",
            found=args[0] if args else named,
        )

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


_NOTHING = _Declared()


def pairs_of(graph: nx.DiGraph) -> tuple[Index, Index]:
    """Number the two ends of every pair of nodes with an edge, or with parallel ones, in the order of the edges.

    Returns
    -------
    source, target : ndarray of int64, shape (pairs,)
        Nodes are counted in the order in which they were declared.
    """
    number = {node: i for i, node in enumerate(graph)}
    rows = list(graph.adjacency())
    counts = np.fromiter((len(row) for _, row in rows), dtype=np.int64, count=len(rows))
    source = np.fromiter((number[node] for node, _ in rows), dtype=np.int64, count=len(rows))
    ends = chain.from_iterable(row for _, row in rows)
    target = np.fromiter(map(number.__getitem__, ends), dtype=np.int64, count=int(counts.sum()))
    return np.repeat(source, counts), target


def declared_graph(graph: nx.DiGraph, memo: dict[int, Any], pairs: tuple[Index, Index] | None = None) -> nx.DiGraph:
    """Copy a declaration for a network to keep: nothing of the copy can be changed but the modules that it holds.

    The parameters are those of :func:`copy_graph`.
    """
    return nx.freeze(copy_graph(graph, memo, pairs, _Declared))


def copy_graph(
    graph: nx.DiGraph, memo: dict[int, Any], pairs: tuple[Index, Index] | None = None, kind: type[dict[str, Any]] = dict
) -> nx.DiGraph:
    """Copy a declaration with modules of its own; one that stands on several edges stays one.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
    memo : dict
        What :func:`copy.deepcopy` has copied already, by identity.
    pairs : pair of ndarray, optional
        What :func:`pairs_of` says of the graph, where it is known.
    kind : type
        Of the attributes of a node or edge.
    """

    def own(data: Mapping[str, Any]) -> dict[str, Any]:
        found = {k: copy_module(v, memo) if isinstance(v, nn.Module) else v for k, v in data.items()}
        if "slots" in found and isinstance(found["slots"], Mapping):
            slots = found["slots"].items()
            found["slots"] = kind({k: own(said) if isinstance(said, Mapping) else said for k, said in slots})
        return found if kind is dict else kind(found)

    source, target = pairs_of(graph) if pairs is None else pairs
    twin: nx.DiGraph = nx.MultiDiGraph() if graph.is_multigraph() else nx.DiGraph()
    twin.graph.update(graph.graph)
    twin.add_nodes_from(graph)
    twin._node.update((node, own(data)) for node, data in graph.nodes(data=True))
    between = (entry for _, row in graph.adjacency() for entry in row.values())
    if graph.is_multigraph():
        entries = [{key: own(data) for key, data in parallel.items()} for parallel in between]
    else:
        entries = [own(data) if data else {} if kind is dict else _NOTHING for data in between]
    _put_edges(twin, graph, entries, source, target)
    return twin


def keep_computed(module: nn.Module, memo: dict[int, Any]) -> None:
    """Let a copy keep the tensors that layers computed and hold, such as a pruned weight, which torch does not copy."""
    for layer in module.modules():
        computed = (value for value in vars(layer).values() if isinstance(value, Tensor) and not value.is_leaf)
        memo.update({id(value): value.detach().clone() for value in computed})


def copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy a module.

    Raises
    ------
    GraphError
        It holds something that cannot be copied.
    """
    keep_computed(module, memo)
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise GraphError(
            f"a network has modules of its own, but this {type(module).__name__} cannot be copied: {error}; "
            "copy.deepcopy(module) must be possible",
            found=module,
        ) from error


def _put_edges(
    twin: nx.DiGraph, graph: nx.DiGraph, entries: list[dict[Any, Any]], source: Index, target: Index
) -> None:
    """Fill in what ``add_edges_from`` would, by node instead of by edge.

    NetworkX keeps an edge's dictionary twice, by source and by target. Its own loop looks up four dictionaries for
    each edge, at four times the cost.
    """
    names, following = list(graph), iter(entries)
    for node, row in graph.adjacency():
        twin._adj[node].update(zip(row, following))
    by_target = Adjacency(target, len(names))
    incoming = zip(
        map(names.__getitem__, source[by_target.order].tolist()), map(entries.__getitem__, by_target.order.tolist())
    )
    for node, count in zip(names, by_target.degree.tolist()):
        twin._pred[node].update(islice(incoming, count))
