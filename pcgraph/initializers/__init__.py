"""State initializers say where the free states start (paper, Sections 3 and 4)."""

from pcgraph.initializers.amortized import Amortized
from pcgraph.initializers.average import Average
from pcgraph.initializers.base import (
    Block,
    Context,
    Given,
    Initializer,
    Layout,
    Relaxation,
    Relaxed,
    Swept,
    blocks,
    is_ours,
    require,
    require_initializer,
)
from pcgraph.initializers.basic import Normal, States, Zero
from pcgraph.initializers.equilibrium import Equilibrium
from pcgraph.initializers.forward import Forward
from pcgraph.initializers.memory import Memory
from pcgraph.initializers.per_node import PerNode
from pcgraph.initializers.remember import Null

__all__ = [
    "Amortized",
    "Average",
    "Block",
    "Context",
    "Equilibrium",
    "Forward",
    "Given",
    "Initializer",
    "Layout",
    "Memory",
    "Normal",
    "Null",
    "PerNode",
    "Relaxation",
    "Relaxed",
    "States",
    "Swept",
    "Zero",
    "blocks",
    "is_ours",
    "require",
    "require_initializer",
]
