"""A declaration is copied, and its edges numbered, in a few passes over NetworkX's dictionaries."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain, islice
from typing import Any

import networkx as nx
import numpy as np
from torch import Tensor, nn

from pcgraph.errors import GraphError
from pcgraph.network.adjacency import Adjacency, Index

__all__ = ["copy_graph", "copy_module", "keep_computed", "pairs_of"]


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


def copy_graph(graph: nx.DiGraph, memo: dict[int, Any], pairs: tuple[Index, Index] | None = None) -> nx.DiGraph:
    """Copy a declaration with modules of its own; one that stands on several edges stays one.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
    memo : dict
        What :func:`copy.deepcopy` has copied already, by identity.
    pairs : pair of ndarray, optional
        What :func:`pairs_of` says of the graph, where it is known.
    """

    def own(data: Mapping[str, Any]) -> dict[str, Any]:
        return {k: copy_module(v, memo) if isinstance(v, nn.Module) else v for k, v in data.items()}

    source, target = pairs_of(graph) if pairs is None else pairs
    twin: nx.DiGraph = nx.MultiDiGraph() if graph.is_multigraph() else nx.DiGraph()
    twin.graph.update(graph.graph)
    twin.add_nodes_from((node, own(data)) for node, data in graph.nodes(data=True))
    between = (entry for _, row in graph.adjacency() for entry in row.values())
    if graph.is_multigraph():
        entries = [{key: own(data) for key, data in parallel.items()} for parallel in between]
    else:
        entries = [own(data) if data else {} for data in between]
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
