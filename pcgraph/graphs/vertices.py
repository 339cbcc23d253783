"""Make a declaration of a graph of torch_geometric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
from torch import Tensor

from pcgraph.arguments import count_vertices, read_edge_index, shown
from pcgraph.errors import GraphError
from pcgraph.graphs.layered import require_graph

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["from_data"]


def from_data(
    data: Data, *, shape: int | tuple[int, ...] | None = None, activation: Any = None, **attributes: Any
) -> nx.DiGraph:  # fmt: skip
    """Declare a node for every vertex of `data` and an edge for every column of its ``edge_index``.

    Parameters
    ----------
    data : torch_geometric.data.Data
        Its ``edge_index`` is read, and of ``x`` the shape. Undirected graphs hold each edge both ways there, and so
        does the result. :func:`pcgraph.pyg.clamps` reads the values of ``x``, and masks.
    shape : int or tuple, optional
        The shape of every node; by default that of a row of ``x`` where there is one, and else 1.
    activation : str or callable, optional
        The activation of every node; the identity by default.
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
    >>> import torch
    >>> from torch_geometric.data import Data
    >>> ring = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 0]]), num_nodes=3)
    >>> graph = from_data(ring, shape=16, activation="tanh")
    >>> list(graph.edges), graph.nodes[0]
    ([(0, 1), (1, 2), (2, 0)], {'shape': 16, 'activation': 'tanh'})
    """
    index = getattr(data, "edge_index", None)
    if index is None:
        raise GraphError(f"the data needs an edge_index, shape (2, edges) (found {shown(data)})", found=data)
    edges = [tuple(edge) for edge in read_edge_index(index, refuse=GraphError).t().tolist()]
    vertices = count_vertices(data, GraphError)
    require_graph(vertices, len(edges), "num_nodes")
    wrong = next((e for e in edges if not all(0 <= v < vertices for v in e)), None)
    if wrong is not None:
        raise GraphError(
            f"the edge_index names vertices from 0 to {vertices - 1} (found the edge {wrong})", found=wrong
        )
    if shape is None:
        x = getattr(data, "x", None)
        rows = tuple(x.shape[1:]) if isinstance(x, Tensor) and x.dim() else ()
        shape = rows or 1
    graph: nx.DiGraph = nx.DiGraph() if len(set(edges)) == len(edges) else nx.MultiDiGraph()
    if activation is not None:
        attributes["activation"] = activation
    graph.add_nodes_from(range(vertices), shape=shape, **attributes)
    graph.add_edges_from(edges)
    return graph
