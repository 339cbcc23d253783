"""Ready-made declarations are functions that return an ``nx.DiGraph``, in NetworkX's manner.

A graph is data: change it, join it to another with ``nx.compose``, add nodes and edges of your own, and then make a
network of it.
"""

from pcgraph.graphs.attentive import transformer
from pcgraph.graphs.convolutional import alexnet, vgg5
from pcgraph.graphs.hierarchical import bidirectional, cortex
from pcgraph.graphs.layered import chain, decoder, figure_9, lateral, residual, skip
from pcgraph.graphs.recurrent import assemblies, fully_connected, random_groups
from pcgraph.graphs.vertices import from_data

__all__ = [
    "alexnet",
    "assemblies",
    "bidirectional",
    "chain",
    "cortex",
    "decoder",
    "figure_9",
    "from_data",
    "fully_connected",
    "lateral",
    "random_groups",
    "residual",
    "skip",
    "transformer",
    "vgg5",
]
