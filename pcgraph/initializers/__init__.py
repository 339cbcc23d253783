"""State initializers: where the free states start (paper, Sections 3 and 4)."""

from pcgraph.initializers.base import Block, Context, Given, Initializer, Layout, Swept, require
from pcgraph.initializers.basic import Normal, Zero
from pcgraph.initializers.forward import Forward

__all__ = ["Block", "Context", "Forward", "Given", "Initializer", "Layout", "Normal", "Swept", "Zero", "require"]
