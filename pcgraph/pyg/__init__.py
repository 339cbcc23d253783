"""Graphs of torch_geometric become declarations and clamps, and networks become graphs of torch_geometric.

Two ways lead from a graph to a network. A declaration may have a node for every vertex (:func:`from_data`), so that the
graph *is* the network; or a node for a whole layer, whose shape is (vertices, features), with layers of torch_geometric
on the edges (:class:`pcgraph.transforms.GraphLayer`), or relations of several kinds (:func:`from_hetero`).
:func:`clamps` reads values and masks for either; :func:`to_data` leads back. A network may also take the edges of a
graph as a value: :func:`padded` reads batches of graphs of different sizes for it.
"""

from pcgraph.graphs import from_data
from pcgraph.pyg.padding import padded
from pcgraph.pyg.reading import KnownRows, accuracy, clamps, is_data
from pcgraph.pyg.relations import Relation, from_hetero
from pcgraph.pyg.writing import to_data

__all__ = ["KnownRows", "Relation", "accuracy", "clamps", "from_data", "from_hetero", "is_data", "padded", "to_data"]
