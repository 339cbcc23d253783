"""Graphs of different sizes in one batch are padded: rows of zeros, no edges, and a mask of the vertices that exist.

The edges of a graph are then no part of the network, but a value of its node ``"adj"``, which a layer takes by its
role: torch_geometric's dense layers, ``forward(x, adj, mask)``, are combines as they stand. A layer makes rows zero
that the mask leaves out, and what is predicted there is the same whatever the weights are: a state that starts there
has no error, moves nothing and teaches nothing. So a graph in a batch has the states and gradients that it has alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pcgraph.arguments import count_vertices, read_edge_index, read_numbers, require_instance, shown
from pcgraph.clamps import Masked
from pcgraph.errors import ClampError
from pcgraph.network import Network
from pcgraph.pyg.reading import is_data, one_hot, read_mask, require_entry

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

__all__ = ["padded"]

Node = Hashable
OWN = ("adj", "mask")


def padded(
    data: Data | Batch, net: Network, *, names: Iterable[Node] | None = None, mask: str | Tensor | None = None,
    still: Iterable[Node] = (),
) -> dict[Node, Tensor | Masked]:  # fmt: skip
    """Read graphs of any sizes as clamps of a network that takes their edges as a value.

    Parameters
    ----------
    data : torch_geometric.data.Data or Batch
        Each graph is a sample. An entry ``edge_weight``, (edges,), is what the adjacency holds instead of ones;
        parallel edges add up.
    net : Network
        With nodes ``"adj"`` of shape (N, N), where N is at least the number of vertices of the largest graph,
        ``"mask"`` of shape (N,), and one for each entry that is read: of shape (N, ...) for what belongs to vertices,
        of any other for what belongs to a whole graph.
    names : iterable of nodes, optional
        What is read. The default is ``"adj"``, ``"mask"``, and ``"x"`` and ``"y"`` as far as network and graphs have
        them.
    mask : str or Tensor of bool, shape (vertices,), optional
        The vertices whose ``y`` is known, as for :func:`pcgraph.pyg.clamps`; rows of the others are zero, which
        :class:`KnownRows` leaves out, as it does padded rows.
    still : iterable of nodes, optional
        Free nodes of shape (N, ...) that are held at rows which are padded, where nothing but bias and activation
        predicts them. Where states start from a sweep they stay there by themselves; started elsewhere, as by
        ``Normal``, they would have an energy of their own, though no influence.

    Returns
    -------
    dict
        Node -> Tensor of the network's dtype on its device: ``"adj"`` is ``[graph, v, u]``, the weight of u -> v;
        ``"mask"`` is 1 where a graph has a vertex. Of `still` node -> :class:`pcgraph.Masked`.

    Raises
    ------
    ClampError
        A graph has more than N vertices, an entry is missing or has no row for each vertex or graph, or the network
        lacks a node.

    References
    ----------
    torch_geometric's ``to_dense_batch`` and ``to_dense_adj``, of which the latter has rows for sources.

    Examples
    --------
    >>> import networkx as nx, pcgraph
    >>> from torch_geometric.data import Batch, Data
    >>> from torch_geometric.nn import DenseSAGEConv
    >>> graph = nx.DiGraph()
    >>> graph.add_nodes_from([("x", {"shape": (3, 2)}), ("adj", {"shape": (3, 3)}), ("mask", {"shape": 3})])
    >>> graph.add_node("h", shape=(3, 4), activation="relu", bias=False, combine=DenseSAGEConv(2, 4))
    >>> graph.add_edges_from([(role, "h", {"role": role}) for role in ("x", "adj", "mask")])
    >>> net = pcgraph.PCNetwork(graph)
    >>> one = Data(x=torch.ones(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]))
    >>> two = Data(x=torch.ones(2, 2), edge_index=torch.tensor([[0], [1]]))
    >>> known = padded(Batch.from_data_list([one, two]), net)
    >>> known["mask"].tolist(), known["adj"][1].tolist()
    ([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> net.predict(known, "h").shape
    torch.Size([2, 3, 4])
    """
    require_instance(net, "net", Network, "pcgraph.PCNetwork(graph)")
    if not is_data(data) or hasattr(data, "node_types"):
        raise ClampError(f"padded reads a Data or a Batch of torch_geometric (found {shown(data)})")
    held = _nodes(still, "still")
    rows = _Rows(data, _most(net))
    if names is None:
        names = [*OWN, *(n for n in ("x", "y") if n in net.structure.number and getattr(data, n, None) is not None)]
    found: dict[Node, Tensor | Masked] = {}
    for name in _nodes(names, "names"):
        shape = net.structure.shape(net.structure.nodes[net.structure.require_node(name, ClampError)])
        if name == "adj":
            value = rows.adjacency()
        elif name == "mask":
            value = rows.there
        else:
            value = _entry(data, rows, name, shape, mask if name == "y" else None)
        found[name] = value.to(net.device, net.dtype)
    for node in held:
        found[node] = _held(net, node, ~rows.there.to(net.device))
    return found


def _nodes(value: Any, key: str) -> tuple[Node, ...]:
    """Read several nodes."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ClampError(f"{key}= names several nodes, as in ('x', 'y') (found {shown(value)})")
    return tuple(value)


def _most(net: Network) -> int:
    """Return how many vertices a graph of this network may have."""
    shapes = []
    for name in OWN:
        net.structure.require_node(name, ClampError)
        shapes.append(net.structure.shape(name))
    adjacency, there = shapes
    if len(adjacency) != 2 or adjacency != there * 2:
        raise ClampError(
            f"graphs that are padded need nodes 'adj' of shape (N, N) and 'mask' of shape (N,) (found {adjacency} and "
            f"{there})",
            node="adj",
        )
    return there[0]


class _Rows:
    """Where the vertices of a batch lie, once it is padded.

    Attributes
    ----------
    there : Tensor of bool, shape (graphs, N)
    """

    def __init__(self, data: Any, most: int) -> None:
        self.data, self.most = data, most
        vertices = count_vertices(data, ClampError)
        index = getattr(data, "batch", None)
        self.index = torch.zeros(vertices, dtype=torch.long, device="cpu") if index is None else index
        self.graphs = 1 if index is None else int(data.num_graphs)
        self.sizes = self.index.bincount(minlength=self.graphs)
        if not vertices or int(self.sizes.max()) > most:
            raise ClampError(
                f"the network takes graphs of 1 to {most} vertices (found one of {int(self.sizes.max())}): declare the "
                "nodes for the largest",
                node="adj",
            )
        first = self.sizes.cumsum(0) - self.sizes
        self.place = torch.arange(vertices, device=self.index.device) - first[self.index]
        self.there = torch.arange(most, device=self.index.device) < self.sizes.unsqueeze(1)

    def pad(self, value: Tensor) -> Tensor:
        """Return (graphs, N, ...) of (vertices, ...), zero where there is no vertex."""
        found = value.new_zeros(self.graphs, self.most, *value.shape[1:])
        found[self.index, self.place] = value
        return found

    def adjacency(self) -> Tensor:
        """Return (graphs, N, N), of each graph row v and column u the weight of its edge u -> v."""
        index = read_edge_index(require_entry(self.data, "edge_index"), refuse=ClampError)
        weight = self.data.edge_weight if "edge_weight" in self.data else None
        if weight is None:
            weight = torch.ones(index.shape[1], device=index.device)
        if not isinstance(weight, Tensor) or weight.shape != (index.shape[1],):
            raise ClampError(f"edge_weight has one number for each of {index.shape[1]} edges (found {shown(weight)})")
        weight = read_numbers(weight, "edge_weight", refuse=ClampError)
        if index.numel() and int(index.max()) >= len(self.index):
            raise ClampError(
                f"edge_index names vertices from 0 to {len(self.index) - 1} (found {int(index.max())})", node="adj"
            )
        of, to = index
        found = weight.new_zeros(self.graphs, self.most, self.most)
        return found.index_put((self.index[to], self.place[to], self.place[of]), weight, accumulate=True)


def _entry(data: Any, rows: _Rows, name: Any, shape: tuple[int, ...], mask: str | Tensor | None) -> Tensor:
    """Return one entry as the node of its name takes it, (graphs, *shape); classes become one-hot rows."""
    value = require_entry(data, name)
    per_vertex = len(shape) > 1 and shape[0] == rows.most
    count = len(rows.index) if per_vertex else rows.graphs
    if len(value) != count:
        raise ClampError(
            f"{name!r} needs a row for each of {count} {'vertices' if per_vertex else 'graphs'}, since the node has "
            f"shape {shape} (found shape {tuple(value.shape)})",
            node=name,
        )
    if not value.is_floating_point() and value.dim() == 1 and shape[-1] > 1:
        value = one_hot(value, shape[-1])
    if mask is not None:
        if not per_vertex:
            raise ClampError("mask= says which vertices are known, and y has no row for each vertex", node=name)
        known = read_mask(data, mask, 1)[0].to(value.device)
        value = torch.where(known.view(-1, *[1] * (value.dim() - 1)), value, 0.0)  # may be NaN there
    return rows.pad(value) if per_vertex else value


def _held(net: Network, node: Node, padding: Tensor) -> Masked:
    """Clamp rows that are padded to what is predicted there."""
    s = net.structure
    i = s.require_node(node, ClampError)
    shape = s.shape(node)
    if len(shape) < 2 or shape[0] != padding.shape[1]:
        raise ClampError(f"still= names nodes of shape ({padding.shape[1]}, ...) (found {node!r}: {shape})", node=node)
    nothing = s.segments[s.segment_of[i]].activation(net.constant_input(i).detach().view(1, *shape))
    size = (len(padding), *shape)
    return Masked(nothing.expand(size), padding.view(*padding.shape, *[1] * (len(shape) - 1)).expand(size))
