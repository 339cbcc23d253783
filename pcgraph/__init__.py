"""pcgraph: predictive coding networks on arbitrary graphs.

Declare a network as a NetworkX directed graph of neuron groups; ask which state initializers it admits; compile graph,
clamps and initializer into a plan that computes only what is needed; run inference and local learning with it.
"""

import importlib
from typing import TYPE_CHECKING

from pcgraph import (
    activations,
    combines,
    energies,
    errors,
    graphs,
    learning,
    notebook,
    optimizers,
    processes,
    pyg,
    scaling,
    schedules,
    topology,
    transforms,
)
from pcgraph.advice import advise
from pcgraph.checkpoints import load, save
from pcgraph.clamps import Masked
from pcgraph.coordinates import Errors
from pcgraph.duals import Duals
from pcgraph.errors import ClampError, ConfigError, Diverged, GraphError, InvalidInitializer, PCGraphError
from pcgraph.inference import Trace
from pcgraph.initializers import (
    Amortized,
    Average,
    Equilibrium,
    Forward,
    Initializer,
    Memory,
    Normal,
    Null,
    PerNode,
    States,
    Zero,
)
from pcgraph.learning import InferenceResult
from pcgraph.model import PCNetwork
from pcgraph.network import Partition
from pcgraph.optimizers import SGD, Adam, Following, Langevin
from pcgraph.plan import Plan, partition
from pcgraph.rates import safe_rate
from pcgraph.solvers import LBFGS, Anderson, Momentum
from pcgraph.topology import check
from pcgraph.training import evaluate, fit
from pcgraph.tuning.search import search

if TYPE_CHECKING:
    from types import ModuleType

    from pcgraph import data, drawing, estimators, testing
    from pcgraph.estimators import PCClassifier as PCClassifier
    from pcgraph.estimators import PCRegressor as PCRegressor

__version__ = "0.1.0"

__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "Amortized",
    "Anderson",
    "Average",
    "ClampError",
    "ConfigError",
    "Diverged",
    "Duals",
    "Equilibrium",
    "Errors",
    "Following",
    "Forward",
    "GraphError",
    "InferenceResult",
    "Initializer",
    "InvalidInitializer",
    "Langevin",
    "Masked",
    "Memory",
    "Momentum",
    "Normal",
    "Null",
    "PCGraphError",
    "PCNetwork",
    "Partition",
    "PerNode",
    "Plan",
    "States",
    "Trace",
    "Zero",
    "activations",
    "advise",
    "check",
    "combines",
    "data",
    "drawing",
    "energies",
    "errors",
    "estimators",
    "evaluate",
    "fit",
    "graphs",
    "learning",
    "load",
    "optimizers",
    "partition",
    "processes",
    "pyg",
    "safe_rate",
    "save",
    "scaling",
    "schedules",
    "search",
    "testing",
    "topology",
    "transforms",
]

LATER = frozenset({"data", "drawing", "estimators", "testing"})
"""Rooms that no network needs: each is imported when it is first asked for."""

ESTIMATORS = frozenset({"PCClassifier", "PCRegressor"})
"""What is asked of the room of estimators, which brings scikit-learn."""

if not TYPE_CHECKING:  # a type checker would otherwise take every misspelt name for a room

    def __getattr__(name: str) -> "ModuleType | type":
        if name in LATER:
            return importlib.import_module(f"{__name__}.{name}")
        if name in ESTIMATORS:
            return getattr(importlib.import_module(f"{__name__}.estimators"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER, *ESTIMATORS})


notebook.painted_by("pcgraph.drawing.painters")
