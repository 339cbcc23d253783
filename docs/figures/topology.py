"""Draw the pictures of docs/topology.md: ``python docs/figures/topology.py``."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx

from pcgraph import drawing
from pcgraph.graphs import chain, figure_9

HERE = Path(__file__).parent

drawing.graph(figure_9("top"), {0}, HERE / "figure-9-top.png")
drawing.graph(figure_9("bottom"), {0}, HERE / "figure-9-bottom.png")
drawing.graph(figure_9("top"), {1}, HERE / "figure-9-inner.png")

feedback = chain([4, 3, 3, 2])
feedback.add_edge("y", "h1")
figure, axes = plt.subplots(1, 2, figsize=(9, 3.0), layout="constrained")
for ax, (phase, clamped) in zip(axes, {"training": {"x", "y"}, "test": {"x"}}.items(), strict=True):
    drawing.graph(feedback, clamped, ax=ax, title=phase)
figure.savefig(HERE / "feedback.png", dpi=150)

large = nx.gnp_random_graph(200, 0.008, seed=3, directed=True)
ax = drawing.graph(large, [v for v in large if not large.in_degree(v)][:12])
ax.figure.savefig(HERE / "two-hundred.png", dpi=100)
