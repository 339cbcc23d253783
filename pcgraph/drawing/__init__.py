"""Pictures, by matplotlib (the extra ``plot``): PNG, SVG or PDF, as the suffix of the path says.

Colours are those of Okabe and Ito, and cividis for amounts: readable for colour-blind people, and in grey.
"""

from pcgraph.drawing.curves import learning_curve
from pcgraph.drawing.declaration import graph, layout
from pcgraph.drawing.fields import energy, images, trace

__all__ = ["energy", "graph", "images", "layout", "learning_curve", "trace"]
