"""Draw pictures by matplotlib (the extra ``plot``): PNG, SVG or PDF, as the suffix of the path says.

Colours are those of Okabe and Ito, and cividis for amounts: colour-blind people can read them, and so can readers of
a grey print.
"""

from pcgraph.drawing.curves import learning_curve
from pcgraph.drawing.declaration import graph, layout
from pcgraph.drawing.dynamics import animate, errors, phase, trajectories
from pcgraph.drawing.results import energy, images, trace

__all__ = [
    "animate", "energy", "errors", "graph", "images", "layout", "learning_curve", "phase", "trace", "trajectories",
]  # fmt: skip
