"""Graphs with vertices and edges of several kinds become networks: a node a kind, an edge a relation.

For each kind t of vertices, with the relations r into it (R-GCN's layer):

    μ_t = σ( W_t x_t + Σ_r A_r x_s W_r )        A_r[v, u] = 1 / (edges of r into v)

With ``relations="slots"`` each relation is a prediction of its own, with an error of its own, and no term of one sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from torch import Tensor, nn

from pcgraph.arguments import read_edge_index, require_choice, require_count, shown
from pcgraph.errors import GraphError
from pcgraph.pyg.reading import is_data
from pcgraph.transforms import Transform

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

__all__ = ["Relation", "from_hetero"]


class Relation(Transform):
    """Vertices of one kind reach those of another: the mean over the edges into each, of ``W x_u``.

    Maps (batch, sources, in) to (batch, targets, out). It has no bias: the bias belongs to the node.

    Parameters
    ----------
    edge_index : Tensor of whole numbers, shape (2, edges)
        Sources in the first row, targets in the second.
    targets : int
        Vertices of the target's kind.
    inputs, outputs : int
        Features of a vertex, before and after.

    References
    ----------
    M. Schlichtkrull et al., "Modeling Relational Data with Graph Convolutional Networks", 2018, Eq. 2.

    Examples
    --------
    >>> Relation(torch.tensor([[0, 1, 1], [0, 0, 2]]), targets=3, inputs=4, outputs=2).output_shape((2, 4))
    (3, 2)
    """

    edge_index: Tensor
    share: Tensor

    def __init__(self, edge_index: Tensor, targets: int, inputs: int, outputs: int) -> None:
        super().__init__()
        index = read_edge_index(edge_index, refuse=GraphError)
        self.targets = require_count(targets, "targets", least=1)
        inputs, outputs = require_count(inputs, "inputs", least=1), require_count(outputs, "outputs", least=1)
        if index.numel() and int(index[1].max()) >= self.targets:
            raise GraphError(
                f"the edge_index names targets from 0 to {self.targets - 1} (found {int(index[1].max())})",
                found=edge_index,
            )
        self.weight = nn.Parameter(torch.empty(outputs, inputs, device="cpu"))
        self.register_buffer("edge_index", index.clone(), persistent=False)
        counts = index[1].long().bincount(minlength=self.targets).clamp(min=1)
        self.register_buffer("share", counts.reciprocal().to(torch.float32), persistent=False)
        self._sources = int(index[0].max()) + 1 if index.numel() else 0
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        """Draw the weights from U(-b, b) with b = 1 / sqrt(inputs)."""
        draw = torch.Generator().manual_seed(0) if generator is None else generator
        with torch.no_grad():
            values = torch.rand(self.weight.shape, generator=draw, dtype=torch.float32, device="cpu")
            self.weight.copy_((2 * values - 1) / self.weight.shape[1] ** 0.5)

    def output_shape(self, input_shape: Any) -> Any:
        """Return (targets, outputs).

        Raises
        ------
        GraphError
            The source has too few vertices, or another number of features.
        """
        shape = tuple(input_shape)
        if len(shape) != 2 or shape[0] < self._sources or shape[1] != self.weight.shape[1]:
            raise GraphError(
                f"a relation of {self._sources} sources needs a state of shape (vertices, {self.weight.shape[1]}) "
                f"(found {shape})",
                found=shape,
            )
        return self.targets, self.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Transform the rows, and average them along the edges."""
        rows = (x @ self.weight.T)[:, self.edge_index[0]]
        found = rows.new_zeros(len(x), self.targets, rows.shape[2])
        found = found.index_add(1, self.edge_index[1], rows)
        return found * self.share.to(found.dtype).unsqueeze(1)

    def config(self) -> dict[str, Any]:
        """Return what the relation is made of.

        Raises
        ------
        GraphError
            Always: a file of a graph does not hold the edges.
        """
        raise GraphError(
            "a Relation cannot be saved with the graph: build the graph anew in code and load the weights", found=self
        )


def from_hetero(
    data: HeteroData, target: str, classes: int, *, hidden: int = 16, activation: Any = "tanh",
    relations: str = "buckets", precision: float = 1.0, energy: Any = None,
) -> nx.MultiDiGraph:  # fmt: skip
    """Declare a network of a graph with several kinds of vertices and edges.

    Each kind t with features has a node ``("x", t)``, and each kind a node ``("h", t)`` of shape (vertices, `hidden`)
    that its own features and the relations into it predict; ``"y"``, of shape (vertices, `classes`), is predicted from
    ``("h", target)``. No node has a bias: a bias of each vertex would remember vertices instead of learning from them.

    Parameters
    ----------
    data : torch_geometric.data.HeteroData
    target : str
        The kind of vertices that have classes.
    classes : int
    hidden : int
        Features of a vertex in the hidden layer.
    activation : str or callable
        Of the hidden layer.
    relations : {"buckets", "slots"}
        ``"buckets"``: every relation is an edge with a weight of its own, and what comes in is added up. ``"slots"``:
        every relation is a slot of the node it leads to, a prediction with an error of its own, and the vertex's own
        features give the main one.
    precision : float
        Of the slots.
    energy : str or Energy, optional
        Of ``"y"``, such as :class:`KnownRows`.

    Returns
    -------
    nx.MultiDiGraph
        The key of an edge is the name of the relation; ``"own"`` of that from a vertex's own features.

    Raises
    ------
    GraphError
        A kind of vertices has no features, there is no such target, or an ``edge_index`` is malformed.

    Examples
    --------
    >>> from torch_geometric.data import HeteroData
    >>> data = HeteroData()
    >>> data["author"].x, data["paper"].x = torch.ones(2, 3), torch.ones(4, 5)
    >>> data["author", "writes", "paper"].edge_index = torch.tensor([[0, 0, 1], [0, 1, 2]])
    >>> graph = from_hetero(data, "paper", classes=2)
    >>> list(graph.edges(keys=True))[1:3]
    [(('x', 'author'), ('h', 'paper'), 'author writes paper'), (('x', 'paper'), ('h', 'paper'), 'own')]
    """
    if not is_data(data) or not hasattr(data, "node_types"):
        raise GraphError(f"from_hetero reads torch_geometric's HeteroData (found {shown(data)})", found=data)
    require_choice(relations, "relations", ("buckets", "slots"), refuse=lambda text: GraphError(text, found=relations))
    classes, hidden = require_count(classes, "classes", least=1), require_count(hidden, "hidden", least=1)
    kinds = list(data.node_types)
    if target not in kinds:
        raise GraphError(f"target= is a kind of vertices: {', '.join(kinds)} (found {shown(target)})", found=target)
    sizes = {kind: _features(data, kind) for kind in kinds}
    into: dict[str, dict[str, Any]] = {kind: {} for kind in kinds}
    for source, relation, to in data.edge_types:
        name = f"{source} {relation} {to}"
        edge_index = getattr(data[source, relation, to], "edge_index", None)
        if not isinstance(edge_index, Tensor):
            raise GraphError(f"the relation {name!r} has no edge_index", found=(source, relation, to))
        into[to][name] = (source, edge_index)
    graph = nx.MultiDiGraph()
    for kind, (vertices, features) in sizes.items():
        graph.add_node(("x", kind), shape=(vertices, features))
        slot = {"bias": False, "precision": precision, "activation": activation}
        slots = {"slots": dict.fromkeys(into[kind], slot)} if relations == "slots" and into[kind] else {}
        graph.add_node(("h", kind), shape=(vertices, hidden), activation=activation, bias=False, **slots)
    graph.add_node("y", shape=(sizes[target][0], classes), bias=False, **({} if energy is None else {"energy": energy}))
    for kind, (vertices, features) in sizes.items():
        graph.add_edge(("x", kind), ("h", kind), "own", transform=_own(vertices, features, hidden))
        for name, (source, edge_index) in into[kind].items():
            transform = Relation(edge_index, vertices, sizes[source][1], hidden)
            slot = {"slot": name} if relations == "slots" else {}
            graph.add_edge(("x", source), ("h", kind), name, transform=transform, **slot)
    graph.add_edge(("h", target), "y", "own", transform=_own(sizes[target][0], hidden, classes))
    return graph


def _own(vertices: int, inputs: int, outputs: int) -> Relation:
    """Relate each vertex to itself."""
    return Relation(torch.arange(vertices, device="cpu").expand(2, -1), vertices, inputs, outputs)


def _features(data: Any, kind: str) -> tuple[int, int]:
    """Return (vertices, features) of a kind."""
    x = data[kind].x if "x" in data[kind] else None
    if not isinstance(x, Tensor) or x.dim() != 2:
        raise GraphError(
            f"the vertices {kind!r} need features x of shape (vertices, features) (found {shown(x)}): without any, "
            f"data[{kind!r}].x = torch.eye(n) tells them apart",
            found=kind,
        )
    return x.shape[0], x.shape[1]
