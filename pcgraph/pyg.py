"""Convert networks to ``torch_geometric.data.Data``, and make declarations from it.

A graph of torch_geometric has numbered vertices and an ``edge_index``. It becomes a declaration with a node for every
vertex by :func:`pcgraph.graphs.from_data`, which is also here; and a network becomes a graph with a vertex for every
neuron and an edge for every weight, or with a vertex for every group, by :func:`to_data`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from pcgraph.arguments import require_choice, require_instance
from pcgraph.errors import GraphError
from pcgraph.graphs import from_data
from pcgraph.network import Bucket, Network
from pcgraph.transforms import Identity, Linear, MaskedLinear, SparseLinear

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["from_data", "to_data"]


def to_data(net: Network, level: Literal["neurons", "groups"] = "neurons") -> Data:
    """Return the network as a graph of torch_geometric.

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
        (edges,), each times the ``scale`` of its edge, and ``bias``, shape (vertices,), zero where there is none.
        Vertices follow the declaration's order.

    Raises
    ------
    GraphError
        By neuron, where an edge has no weight for each pair of neurons, such as a convolution; or where a node has
        slots, since a vertex has one sum of what comes in.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 2]))
    >>> to_data(net)
    Data(edge_index=[2, 6], num_nodes=5, edge_weight=[6], bias=[5], group=[5], names=[2])
    >>> to_data(net, "groups").edge_index.tolist()
    [[0], [1]]
    """
    require_instance(net, "net", Network, "pcgraph.PCNetwork(graph)")
    require_choice(level, "level", ("neurons", "groups"))
    from torch_geometric.data import Data

    names = list(net.graph)
    place = {name: i for i, name in enumerate(names)}
    s = net.structure
    if level == "groups":
        pairs = [[place[e[0]], place[e[1]]] for e in net.graph.edges]
        index = torch.tensor(pairs, dtype=torch.long, device=net.device).reshape(-1, 2).t().contiguous()
        group = torch.arange(len(names), device=net.device)
        return Data(edge_index=index, num_nodes=len(names), group=group, names=names)
    for slot in s.slots:
        raise GraphError(
            f"by neuron, what feeds the {slot} would be added to the node's main prediction: use level='groups', or "
            "take the slots out of a copy of the graph",
            where=slot,
        )
    sizes = torch.tensor([s.groups[int(s.group_of[s.number[n]])].size for n in names], device="cpu")
    first = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    columns, weights = [sizes.new_zeros(2, 0)], [sizes.new_zeros(0, dtype=net.dtype)]
    for bucket in s.buckets:
        for i in range(bucket.start, bucket.stop):
            u, v = s.edge(i)[:2]
            entries, values = _entries(net, bucket, i)
            columns.append(entries + torch.stack([first[place[u]], first[place[v]]]).unsqueeze(1))
            weights.append(values * bucket.scale)
    bias = sizes.new_zeros(int(first[-1]), dtype=net.dtype)
    for name in names:
        if net.bias_place(name) is not None:
            start = int(first[place[name]])
            bias[start : start + int(sizes[place[name]])] = (
                net.bias(name).expand(net.structure.shape(name)).flatten().cpu()
            )
    return Data(
        edge_index=torch.cat(columns, 1).to(net.device), num_nodes=int(first[-1]),
        edge_weight=torch.cat(weights).to(net.device), bias=bias.to(net.device),
        group=torch.repeat_interleave(sizes).to(net.device), names=names,
    )  # fmt: skip


def _entries(net: Network, bucket: Bucket, i: int) -> tuple[Tensor, Tensor]:
    """List the (source neuron, target neuron) and the weight of every connection of one edge, on the CPU."""
    s, edge = net.structure, net.structure.edge(i)
    source, target = s.shape(edge[0]), s.shape(edge[1])
    transform = bucket.transform
    entries = transform.entries(source, target)
    if isinstance(transform, Linear):
        weight = net.weight(*edge).cpu()
        to, of = torch.from_numpy(np.indices(weight.shape)).flatten(1)
        return torch.stack([of, to]), weight.flatten()
    if isinstance(transform, Identity) and entries is not None:
        return entries, torch.ones(entries.shape[1], dtype=net.dtype, device="cpu")
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
