"""pcgraph: predictive coding networks on arbitrary graphs.

Declare a network as a NetworkX directed graph of neuron groups; ask which state initializers it admits; compile graph,
clamps and initializer into a plan that computes only what is needed; run inference and local learning with it.
"""

from pcgraph import activations, drawing, energies, errors, graphs, learning, optimizers, pyg, topology, transforms
from pcgraph.checkpoints import load, save
from pcgraph.clamps import Masked
from pcgraph.errors import ClampError, ConfigError, Diverged, GraphError, InvalidInitializer, PCGraphError
from pcgraph.initializers import Average, Equilibrium, Forward, Initializer, Memory, Normal, Null, PerNode, States, Zero
from pcgraph.learning import InferenceResult
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD, Adam
from pcgraph.plan import Plan
from pcgraph.rates import safe_rate
from pcgraph.topology import check
from pcgraph.training import evaluate, fit

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "Average",
    "ClampError",
    "ConfigError",
    "Diverged",
    "Equilibrium",
    "Forward",
    "GraphError",
    "InferenceResult",
    "Initializer",
    "InvalidInitializer",
    "Masked",
    "Memory",
    "Normal",
    "Null",
    "PCGraphError",
    "PCNetwork",
    "PerNode",
    "Plan",
    "States",
    "Zero",
    "activations",
    "check",
    "drawing",
    "energies",
    "errors",
    "evaluate",
    "fit",
    "graphs",
    "learning",
    "load",
    "optimizers",
    "pyg",
    "safe_rate",
    "save",
    "topology",
    "transforms",
]
