"""Draw pictures by matplotlib (the extra ``plot``): PNG, SVG or PDF, as the suffix of the path says.

And, without matplotlib, a declaration as SVG that tells what lies under the pointer.

Colours are those of Okabe and Ito, and cividis for amounts: colour-blind people can read them, and so can readers of
a grey print.
"""

from pcgraph.drawing.curves import learning_curve
from pcgraph.drawing.declaration import graph
from pcgraph.drawing.hover import Svg, svg
from pcgraph.drawing.placing import layout
from pcgraph.drawing.results import energy, images, trace
from pcgraph.drawing.searches import search

__all__ = ["Svg", "energy", "graph", "images", "layout", "learning_curve", "search", "svg", "trace"]
