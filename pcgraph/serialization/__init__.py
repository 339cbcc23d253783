"""Write graphs as node-link JSON, and read them from node-link JSON and GraphML.

Everything is written by name. A node-link file is NetworkX's own format (``nx.node_link_data(graph, edges="edges")``)
with these conventions, so that NetworkX reads it too:

* node names are strings, numbers or (nested) tuples of them; tuples are written as lists;
* shapes are numbers or lists; on reading, ``"28x28"``, ``"[1, 28, 28]"`` and ``"784"`` as well;
* activations, energies and transforms are names; an energy or a transform with settings is
  ``{"name": ..., "config": {...}}``, from its ``config()``, and its class is one of ``pcgraph.energies.ENERGIES`` or
  ``pcgraph.transforms.TRANSFORMS``; one instance that stands in several places has the same ``"instance"`` there;
* a tuple, a tensor, a number that is not finite, or a mapping with keys that are no strings, as metadata, is
  ``{"$tuple": [...]}``, ``{"$tensor": ...}``, ``{"$float": "nan"}`` or ``{"$map": [[key, value], ...]}``.

A file says how modules are made, not what they have learned: parameters are in a checkpoint.
"""

from pcgraph.serialization.reading import graph_from_data, read_graph
from pcgraph.serialization.shapes import read_shape
from pcgraph.serialization.values import Unsaveable, decode, encode
from pcgraph.serialization.writing import VERSION, graph_to_data, write_graph

__all__ = [
    "VERSION",
    "Unsaveable",
    "decode",
    "encode",
    "graph_from_data",
    "graph_to_data",
    "read_graph",
    "read_shape",
    "write_graph",
]
