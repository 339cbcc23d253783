"""To and from ``torch_geometric.data.Data``.

A graph of torch_geometric has numbered vertices and an ``edge_index``. It becomes a declaration with a node for every
vertex (:func:`from_data`); and a network becomes one with a vertex for every neuron and an edge for every weight, or
with a vertex for every group (:func:`to_data`).
"""

from __future__ import annotations

from typing import Any, Literal

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import Data

from pcgraph.errors import ConfigError, GraphError
from pcgraph.network import Bucket, Network
from pcgraph.transforms import Identity, Linear, MaskedLinear, SparseLinear

__all__ = ["from_data", "to_data"]


def from_data(data: Data, *, shape: int | tuple[int, ...] = 1, activation: Any = None, **attributes: Any) -> nx.DiGraph:
    """A declaration with a node for every vertex of `data` and an edge for every column of its ``edge_index``.

    Parameters
    ----------
    data : torch_geometric.data.Data
        Its ``edge_index`` alone is read. Undirected graphs hold each edge both ways there, and so does the result.
    shape : int or tuple
        Of every node.
    activation : str or callable, optional
        Of every node.
    **attributes
        Further attributes of every node, such as ``bias=False``.

    Returns
    -------
    nx.DiGraph
        With the nodes 0, 1, ...; an ``nx.MultiDiGraph`` where `data` holds an edge twice.

    Raises
    ------
    GraphError
        There is no ``edge_index``, or it is malformed.

    Examples
    --------
    >>> ring = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]), num_nodes=3)
    >>> graph = from_data(ring, shape=16, activation="tanh")
    >>> list(graph.edges), graph.nodes[0]
    ([(0, 1), (1, 2), (2, 0)], {'shape': 16, 'activation': 'tanh'})
    """
    index = getattr(data, "edge_index", None)
    if not isinstance(index, Tensor) or index.dim() != 2 or index.shape[0] != 2:
        found = None if index is None else tuple(index.shape)
        raise GraphError(f"the data needs an edge_index of shape (2, edges) (found {found})", found=found)
    edges = [tuple(edge) for edge in index.as_subclass(Tensor).t().tolist()]
    vertices = int(data.num_nodes or 0)
    wrong = next((e for e in edges if not all(0 <= v < vertices for v in e)), None)
    if wrong is not None:
        raise GraphError(
            f"the edge_index names vertices from 0 to {vertices - 1} (found the edge {wrong})", found=wrong
        )
    graph: nx.DiGraph = nx.DiGraph() if len(set(edges)) == len(edges) else nx.MultiDiGraph()
    if activation is not None:
        attributes["activation"] = activation
    graph.add_nodes_from(range(vertices), shape=shape, **attributes)
    graph.add_edges_from(edges)
    return graph


def to_data(net: Network, level: Literal["neurons", "groups"] = "neurons") -> Data:
    """The network as a graph of torch_geometric.

    Parameters
    ----------
    net : Network
    level : {"neurons", "groups"}
        A vertex for every neuron, with an edge for every weight; or a vertex for every node of the declaration.

    Returns
    -------
    torch_geometric.data.Data
        ``edge_index``; ``num_nodes``; ``names``, the declared nodes in the order of their numbers; ``group``, shape
        (vertices,), the number of the declared node that a vertex belongs to; and by neuron also ``edge_weight``, shape
        (edges,), and ``bias``, shape (vertices,), zero where there is none. Vertices follow the declaration's order.

    Raises
    ------
    GraphError
        By neuron, where an edge has no weight for each pair of neurons, such as a convolution.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 2]))
    >>> to_data(net)
    Data(edge_index=[2, 6], num_nodes=5, edge_weight=[6], bias=[5], group=[5], names=[2])
    >>> to_data(net, "groups").edge_index.tolist()
    [[0], [1]]
    """
    if level not in ("neurons", "groups"):
        raise ConfigError(f"level is 'neurons' or 'groups' (found {level!r})", key="level")
    names = list(net.graph)
    place = {name: i for i, name in enumerate(names)}
    s = net.structure
    if level == "groups":
        pairs = [[place[e[0]], place[e[1]]] for e in net.graph.edges]
        index = torch.tensor(pairs, dtype=torch.long, device=net.device).reshape(-1, 2).t().contiguous()
        return Data(edge_index=index, num_nodes=len(names), group=torch.arange(len(names)), names=names)
    sizes = torch.tensor([s.groups[int(s.group_of[s.number[n]])].size for n in names])
    first = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    columns, weights = [torch.zeros(2, 0, dtype=torch.long)], [torch.zeros(0, dtype=net.dtype)]
    for bucket in s.buckets:
        for i in range(bucket.start, bucket.stop):
            u, v = s.edge(i)[:2]
            entries, values = _entries(net, bucket, i)
            columns.append(entries + torch.stack([first[place[u]], first[place[v]]]).unsqueeze(1))
            weights.append(values)
    bias = torch.zeros(int(first[-1]), dtype=net.dtype)
    for name in names:
        if net.bias_place(name) is not None:
            start = int(first[place[name]])
            bias[start : start + int(sizes[place[name]])] = net.bias(name).flatten().cpu()
    return Data(
        edge_index=torch.cat(columns, 1).to(net.device), num_nodes=int(first[-1]),
        edge_weight=torch.cat(weights).to(net.device), bias=bias.to(net.device),
        group=torch.repeat_interleave(torch.arange(len(names)), sizes).to(net.device), names=names,
    )  # fmt: skip


def _entries(net: Network, bucket: Bucket, i: int) -> tuple[Tensor, Tensor]:
    """(source neuron, target neuron) and weight of every connection of one edge, on the CPU."""
    s, edge = net.structure, net.structure.edge(i)
    source, target = s.shape(edge[0]), s.shape(edge[1])
    transform = bucket.transform
    entries = transform.entries(source, target)
    if isinstance(transform, Linear):
        weight = net.weight(*edge).cpu()
        to, of = torch.meshgrid(torch.arange(weight.shape[0]), torch.arange(weight.shape[1]), indexing="ij")
        return torch.stack([of.flatten(), to.flatten()]), weight.flatten()
    if isinstance(transform, Identity) and entries is not None:
        return entries, torch.ones(entries.shape[1], dtype=net.dtype)
    if isinstance(transform, SparseLinear) and entries is not None:
        return entries, net.weight(*edge).cpu()
    if isinstance(transform, MaskedLinear) and entries is not None:
        entries = entries.cpu()
        return entries, transform.weight.detach().cpu()[entries[1], entries[0]]
    raise GraphError(
        f"the edge {edge[0]!r} -> {edge[1]!r} is a {type(transform).__name__}, which has no weight for each pair of "
        "neurons; use level='groups'",
        where=edge,
    )
