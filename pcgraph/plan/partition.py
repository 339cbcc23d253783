"""A graph is cut over ranks so that each has as much to do, and little crosses the cut.

The graph is that of the groups of neurons, and METIS cuts it (Karypis and Kumar 1998, by way of pymetis): a node weighs
what its rank has to compute, or to hold, for it and for the edges into it; two neighbours are joined by the neurons
whose states, and what comes back to them, would be sent in each step. What METIS finds is refined by what crosses
exactly (:mod:`pcgraph.plan.refinement`).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

import networkx as nx
import numpy as np

from pcgraph.arguments import require_choice, require_count
from pcgraph.errors import ConfigError
from pcgraph.network import Partition, Structure
from pcgraph.network.adjacency import Index
from pcgraph.plan.refinement import refined

__all__ = ["partition", "weights_of"]

Node = Hashable
#: Operations of a neuron in a step beside all products: its sum, prediction, error, signal and move.
ELEMENTWISE = 16


def partition(
    graph: nx.DiGraph, parts: int, balance: Literal["flops", "memory"] = "flops", *,
    by: Literal["metis", "layers"] = "metis",
) -> Partition:  # fmt: skip
    """Cut a graph into parts, one for each rank.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
        A declaration of a network. A node attribute ``rank`` pins its node to that rank.
    parts : int
        How many ranks there are.
    balance : {"flops", "memory"}
        What is to be as much for all ranks: products and elementwise work of a step, or weights and states.
    by : {"metis", "layers"}
        METIS cuts any graph, and needs pymetis (``pip install 'pcgraph[parts]'``). "layers" gives each rank
        neighbouring layers, by depth: a pipeline, in which a rank talks to two others.

    Returns
    -------
    Partition
        The same for the same declaration, on every rank.

    Raises
    ------
    ConfigError
        There are more ranks than nodes, a pin is no rank, or pymetis is missing.

    Examples
    --------
    >>> import pcgraph
    >>> halves = partition(pcgraph.graphs.chain([8, 8, 8, 8]), 2, by="layers")
    >>> [halves[node] for node in ("x", "h1", "h2", "y")]
    [0, 0, 1, 1]
    """
    parts = require_count(parts, "parts", least=1)
    require_choice(balance, "balance", ("flops", "memory"))
    require_choice(by, "by", ("metis", "layers"))
    s = Structure(graph)
    if parts > len(s.declared):
        raise ConfigError(
            f"a partition needs a node for every rank (found {len(s.declared)} nodes for {parts} ranks): take fewer "
            "ranks",
            key="parts",
        )
    pins = _pins(graph, s, parts)
    weight = np.maximum(weights_of(s, balance), 1)
    if parts == 1:
        found = np.zeros(len(s.declared), dtype=np.int64)
    else:
        found = _by_layers(s, weight, parts) if by == "layers" else _by_metis(s, weight, parts)
    found = _pinned(found, pins, weight, parts)
    _fill(found, pins, weight, parts)
    if by == "metis":
        size = np.array([group.size for group in s.groups])[s.group_of][: len(s.declared)]
        found = refined(found, s.owner[s.source], s.owner[s.target], size, weight, parts, pins)
    ranks = dict(zip(s.declared, found.tolist()))
    return Partition({node: ranks[node] for node in graph}, parts)


def weights_of(structure: Structure, balance: str) -> Index:
    """Return what a rank has to do in a step (operations a sample), or to hold (numbers), for each node.

    Slots count for their node. Shape (declared nodes,).
    """
    s = structure
    own = np.array([group.size for group in s.groups])[s.group_of]
    total = own * (ELEMENTWISE if balance == "flops" else 5)
    for bucket in s.buckets:
        entries = bucket.entries(s.groups)
        if bucket.kind in ("module", "joint"):
            entries = sum(p.numel() for p in bucket.transform.parameters())
        # Forward and back in every step; a weight, and its gradient.
        np.add.at(total, s.target[bucket.start : bucket.stop], (4 if balance == "flops" else 2) * entries)
    found: Index = np.bincount(s.owner, weights=total, minlength=len(s.declared))[: len(s.declared)].astype(np.int64)
    return found


def _pins(graph: nx.DiGraph, s: Structure, parts: int) -> dict[int, int]:
    pins = {}
    for node, rank in graph.nodes(data="rank"):
        if rank is not None:
            pins[s.number[node]] = require_count(rank, f"the rank of node {node!r}", most=parts - 1)
    return pins


def _by_layers(s: Structure, weight: Index, parts: int) -> Index:
    """Give each rank neighbours in topological order, so that the heaviest rank is as light as can be."""
    order = np.argsort(s.rank[: len(s.declared)], kind="stable")
    ends = np.cumsum(weight[order])
    low, high = int(weight.max()), int(ends[-1])
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled(ends, middle)) <= parts else (middle + 1, high)
    found = np.zeros(len(order), dtype=np.int64)
    starts = _filled(ends, low)
    found[order] = np.searchsorted(starts, np.arange(len(order)), side="right") - 1
    return found


def _filled(ends: Index, most: int) -> list[int]:
    """Return where parts of at most so much begin, each as full as can be; `ends` are the sums up to each node."""
    starts, done = [0], 0
    while (stop := int(np.searchsorted(ends, done + most, side="right"))) < len(ends):
        starts.append(stop)
        done = int(ends[stop - 1])
    return starts


def _by_metis(s: Structure, weight: Index, parts: int) -> Index:
    try:
        import pymetis
    except ImportError:
        raise ConfigError(
            "METIS cuts the graph, and pymetis is not installed: pip install 'pcgraph[parts]'; or take by='layers', or "
            "give the rank of each node",
            key="by",
        ) from None
    starts, neighbours, sizes = _undirected(s)
    # METIS adds up weights in 32 bits.
    scale = max(1.0, float(weight.sum()) / 2**30)
    scaled = np.maximum((weight / scale).astype(np.int64), 1)
    edges = np.maximum((sizes / max(1.0, float(sizes.sum()) / 2**30)).astype(np.int64), 1)
    _, found = pymetis.part_graph(
        parts, pymetis.CSRAdjacency(starts.tolist(), neighbours.tolist()), vweights=scaled.tolist(),
        eweights=edges.tolist(),
    )  # fmt: skip
    return np.array(found, dtype=np.int64)


def _undirected(s: Structure) -> tuple[Index, Index, Index]:
    """Return neighbours in rows, and the neurons whose states cross between two if they are apart."""
    u, v = s.owner[s.source], s.owner[s.target]
    apart = u != v
    u, v = u[apart], v[apart]
    size = np.array([group.size for group in s.groups])[s.group_of[u]]
    count = len(s.declared)
    label, inverse = np.unique(np.concatenate([u * count + v, v * count + u]), return_inverse=True)
    sizes = np.bincount(inverse, weights=np.concatenate([size, size]), minlength=len(label)).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(np.bincount(label // count, minlength=count))])
    return starts, label % count, sizes


def _pinned(found: Index, pins: dict[int, int], weight: Index, parts: int) -> Index:
    """Name the parts so that most of what is pinned lies right, and then move the rest of it."""
    if not pins:
        return found
    agree = np.zeros((parts, parts))
    for i, rank in pins.items():
        agree[found[i], rank] += weight[i]
    name = np.full(parts, -1)
    for flat in np.argsort(-agree, axis=None, kind="stable").tolist():
        part, rank = divmod(flat, parts)
        if name[part] < 0 and rank not in name:
            name[part] = rank
    found = name[found]
    found[list(pins)] = list(pins.values())
    return found


def _fill(found: Index, pins: dict[int, int], weight: Index, parts: int) -> None:
    """Give a rank without a node the heaviest free one of the heaviest rank that can spare it."""
    for rank in range(parts):
        counts = np.bincount(found, minlength=parts)
        if counts[rank]:
            continue
        load = np.bincount(found, weights=weight, minlength=parts)
        spare = [i for i in range(len(found)) if i not in pins and counts[found[i]] > 1]
        if not spare:
            raise ConfigError(
                f"rank {rank} of {parts} would own no node, since all that could be moved is pinned by rank=: take "
                "fewer ranks, or pin fewer nodes",
                key="parts",
            )
        found[max(spare, key=lambda i: (load[found[i]], weight[i], -i))] = rank
