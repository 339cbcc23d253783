"""Nodes lie in memory by shape, then by what is computed for them, and then topologically; slots lie behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcgraph.energies import Gaussian
from pcgraph.network.adjacency import Adjacency, Index, components
from pcgraph.network.declaration import Edges, Nodes, NodeSpec, Shape
from pcgraph.transforms import GraphLayer

__all__ = ["NodeOrder", "by_graph_layers", "order_nodes"]


@dataclass
class NodeOrder:
    """The canonical order of the nodes says where each lies in memory.

    Attributes
    ----------
    declared : ndarray of int64, shape (nodes,)
        Canonical number -> number in the order of declaration.
    rank : ndarray of int64, shape (nodes,)
        Canonical number -> place in a topological order of the components.
    is_root : ndarray of bool, shape (nodes,)
        By canonical number: whether no edge leads to the node.
    groups : list of (shape, start, stop)
        Canonical numbers of the nodes of each shape; then those of the slots of each shape.
    segments : list of (start, stop)
        Canonical numbers of neighbours of one shape for which the same is computed.
    """

    declared: Index
    rank: Index
    is_root: NDArray[np.bool_]
    groups: list[tuple[Shape, int, int]]
    segments: list[tuple[int, int]]


def order_nodes(nodes: Nodes, source: Index, target: Index) -> NodeOrder:
    """Put nodes of one shape side by side; among them those with one energy and activation; among these by depth.

    Slots come behind all nodes, so that what names and counts nodes need not know of them.

    Parameters
    ----------
    nodes : Nodes
    source, target : ndarray of int64, shape (edges,)
        Nodes are counted as they were declared, and slots behind them.
    """
    count, slots = len(nodes.names), len(nodes.owners)
    by_rank = np.argsort(_depths(source, target, count), kind="stable")
    root = np.bincount(target, minlength=count)[by_rank] == 0
    which = nodes.which[by_rank]
    shapes = sorted({spec.shape for spec in nodes.specs})
    place = {shape: i for i, shape in enumerate(shapes)}
    shape_of = np.array([place[spec.shape] for spec in nodes.specs])[which] + len(shapes) * (by_rank >= count - slots)
    kinds = _kinds(nodes.specs, which, root)
    order = np.lexsort((*kinds, shape_of))
    labels = np.stack([shape_of, *kinds])[:, order]
    return NodeOrder(
        declared=by_rank[order],
        rank=order.astype(np.int64),
        is_root=root[order],
        groups=[(shapes[labels[0, start] % len(shapes)], start, stop) for start, stop in _stretches(labels[:1])],
        segments=_stretches(labels),
    )


def by_graph_layers(edges: Edges, count: int) -> NDArray[np.bool_]:
    """Mark the nodes into which layers lead that treat all vertices of a graph alike, and nothing else."""
    layer = np.array([isinstance(spec.transform, GraphLayer) for spec in edges.specs], dtype=bool)
    fed = np.bincount(edges.target, minlength=count)
    found: NDArray[np.bool_] = (fed > 0) & (np.bincount(edges.target[layer[edges.which]], minlength=count) == fed)
    return found


def _stretches(labels: Index) -> list[tuple[int, int]]:
    """Return where neighbouring columns are equal, from and to; of as many stretches as there are."""
    starts = np.flatnonzero(np.r_[True, (labels[:, 1:] != labels[:, :-1]).any(0)]).tolist()
    return list(zip(starts, [*starts[1:], labels.shape[1]]))


def _kinds(specs: list[NodeSpec], which: Index, root: NDArray[np.bool_]) -> tuple[Index, Index, Index]:
    """Say what is computed for each node, as keys to sort by, the last first: silent roots, then roots, then the rest.

    Kinds are numbered as the nodes, in topological order, bring them.
    """
    numbers: dict[object, int] = {}
    both, first, inverse = np.unique(2 * which + root, return_index=True, return_inverse=True)
    kind, loud = np.zeros(len(both), dtype=np.int64), np.zeros(len(both), dtype=np.int64)
    for i in np.argsort(first).tolist():
        spec, is_root = specs[both[i] // 2], both[i] % 2
        loud[i] = not (is_root and spec.prior is None)
        energy = "gaussian" if type(spec.energy) is Gaussian else id(spec.energy)
        sigma = spec.activation
        activation = None if is_root else sigma.name if sigma.named else id(sigma.function)
        kind[i] = numbers.setdefault((activation, energy if loud[i] else None), len(numbers))
    return kind[inverse], 1 - both[inverse] % 2, loud[inverse]


def _depths(source: Index, target: Index, count: int) -> Index:
    """Find the longest path to each node in the graph of components, so that nodes swept together are neighbours."""
    by_source = Adjacency(source, count)
    which = np.zeros(count, dtype=np.int64)
    parts = components(by_source.start.tolist(), target[by_source.order].tolist())
    which[[v for part in parts for v in part]] = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    a, z = which[source], which[target]
    between = np.flatnonzero(a != z)
    between = between[np.argsort(a[between], kind="stable")]
    depth = [0] * len(parts)
    for u, v in zip(a[between].tolist(), z[between].tolist()):
        if depth[v] <= depth[u]:
            depth[v] = depth[u] + 1
    return np.array(depth, dtype=np.int64)[which]
