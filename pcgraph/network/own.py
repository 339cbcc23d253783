"""A rank holds its own nodes, the edges into them, and ghosts of what these read elsewhere: a network of its own.

A ghost is a root without an energy: it has a state, and nothing is computed for it but what comes back to it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pcgraph.network.adjacency import Index
from pcgraph.network.cut import Cut
from pcgraph.network.draws import draw_parameters
from pcgraph.network.network import Network
from pcgraph.network.parts import Bucket
from pcgraph.network.structure import Structure

__all__ = ["Piece", "make_part"]

Node = Hashable


class Piece:
    """A part says which node and edge of the whole each of a rank's own network is.

    Attributes
    ----------
    cut : Cut
    rank : int
    structure : Structure
        That of the rank's own network.
    nodes, edges : ndarray of int64
        Its canonical number -> that of the whole.
    local, local_edge : ndarray of int64
        The other way; -1 for what is not here.
    own : ndarray of bool, shape (nodes of the part,)
        Those that are no ghosts.
    """

    def __init__(self, cut: Cut, rank: int, structure: Structure) -> None:
        self.cut, self.rank, self.structure = cut, rank, structure
        s = cut.structure
        number = {**s.number, **s.slots}
        self.nodes: Index = np.array([number[v] for v in structure.nodes], dtype=np.int64)
        # Edges of the part are some of the whole, declared in the same order; the ties come last in both.
        declared = np.sort(s._declared_position[cut.edge_owner == rank])
        canonical = np.argsort(s._declared_position)
        self.edges: Index = canonical[declared[structure._declared_position]]
        self.local = _turned(self.nodes, len(s.nodes))
        self.local_edge = _turned(self.edges, len(s.source))
        self.own: NDArray[np.bool_] = cut.owner[self.nodes] == rank

    def weight_rows(self, bucket: Bucket) -> tuple[Bucket, Index]:
        """Return the bucket of the whole in which a bucket's edges lie, and which row of its weight each row is."""
        s, edges = self.cut.structure, self.edges[bucket.start : bucket.stop]
        whole = s.buckets[int(s.bucket_of[edges[0]])]
        rows: Index = np.empty(bucket.rows, dtype=np.int64)
        own = np.arange(bucket.count) if bucket.weight is None else bucket.weight
        rows[own] = edges - whole.start if whole.weight is None else whole.weight[edges - whole.start]
        return whole, rows

    def bias_rows(self, nodes: Index) -> tuple[str, Index]:
        """Return the packed bias of the whole in which those of one packed tensor here lie, and its rows."""
        s, there = self.cut.structure, self.nodes[nodes]
        name = s.bias_name(int(there[0]))
        return name, np.searchsorted(dict(s.bias_packs())[name], there)


def _turned(numbers: Index, count: int) -> Index:
    found = np.full(count, -1, dtype=np.int64)
    found[numbers] = np.arange(len(numbers))
    return found


def part_graph(graph: nx.DiGraph, cut: Cut, rank: int) -> nx.DiGraph:
    """Return the declaration of a rank's own network, in the order of the whole."""
    owner = dict(zip(cut.structure.declared, cut.owner.tolist()))
    part: nx.DiGraph = nx.MultiDiGraph() if graph.is_multigraph() else nx.DiGraph()
    keys: dict[str, Any] = {"keys": True} if graph.is_multigraph() else {}
    edges = [edge for edge in graph.edges(data=True, **keys) if owner[edge[1]] == rank]
    here = {v for v, r in owner.items() if r == rank} | {edge[0] for edge in edges}
    for node, data in graph.nodes(data=True):
        if node in here:
            part.add_node(node, **(data if owner[node] == rank else {"shape": data["shape"]}))
    part.add_edges_from(edges)
    return part


def make_part(graph: nx.DiGraph, cut: Cut, rank: int, seed: int, like: torch.Tensor) -> tuple[Network, Piece]:
    """Make the network of one rank, with the weights that it would have in one process.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
        The whole declaration, with modules of the network's own.
    cut : Cut
    rank : int
    seed : int
        It draws the weights of the whole; those of other ranks are drawn and dropped, bucket by bucket.
    like : Tensor
        States have its type and lie on its device.
    """
    network = Network(part_graph(graph, cut, rank), seed=seed, dtype=torch.get_default_dtype(), device="cpu")
    part = Piece(cut, rank, network.structure)
    _draw(network, part, seed)
    network.to(dtype=like.dtype, device=like.device)
    return network, part


@torch.no_grad()
def _draw(network: Network, part: Piece, seed: int) -> None:
    """Draw as one process does, and keep the rows of the part."""
    s, drawn = part.cut.structure, _Drawn(part.cut.structure)
    draw_parameters(s, drawn, drawn, seed)
    for bucket in network.structure.buckets:
        if bucket.name in network.weights:
            there, rows = part.weight_rows(bucket)
            network.weights[bucket.name].copy_(drawn[there.name][torch.from_numpy(rows)])
    for own, nodes in network.structure.bias_packs():
        name, rows = part.bias_rows(nodes)
        network.biases[own].copy_(drawn[name][torch.from_numpy(rows)])
    for bucket in network.structure.buckets:
        if bucket.kind in ("module", "joint"):
            edge = int(part.edges[bucket.start])
            _take(bucket.transform, s.buckets[int(s.bucket_of[edge])].transform)


def _take(own: nn.Module, drawn: nn.Module) -> None:
    """Give a copy of a module the values that the whole network has drawn for it."""
    own.load_state_dict(drawn.state_dict())


class _Drawn(dict[str, torch.Tensor]):
    """Packed weights and biases of a whole structure come into being when they are first asked for."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        s = structure
        self._shapes: dict[str, tuple[int, ...]] = {}
        for bucket in s.buckets:
            a, z = s.groups[bucket.source_group], s.groups[bucket.target_group]
            if bucket.kind in ("linear", "sparse"):
                shape = (z.size, a.size) if bucket.kind == "linear" else (bucket.entries(s.groups),)
                self._shapes[bucket.name] = (bucket.rows, *shape)
        for name, nodes in s.bias_packs():
            self._shapes[name] = (len(nodes), *s.bias_shape(int(nodes[0])))

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def __missing__(self, name: str) -> torch.Tensor:
        self[name] = torch.empty(self._shapes[name], device="cpu")
        return self[name]
