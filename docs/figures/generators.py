"""Draw a picture of each ready-made graph, for the reference: ``python docs/figures/generators.py``."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import torch
from torch_geometric.data import Data

from pcgraph import drawing, graphs
from pcgraph.drawing.style import COLOURS, GREY, INK

HERE = Path(__file__).parent / "graphs"

CALLS = {
    "chain": ("chain([784, 512, 512, 10])", {"x", "y"}),
    "decoder": ("decoder([64, 256, 256, 784])", {"x"}),
    "skip": ("skip([784, 512, 512, 512, 10])", {"x", "y"}),
    "residual": ("residual(784, 256, 10, blocks=2)", {"x", "y"}),
    "lateral": ("lateral([784, 512, 512, 10], feedback=True)", {"x", "y"}),
    "bidirectional": ("bidirectional([784, 256, 64, 10])", {"x", "y"}),
    "cortex": ("cortex([784, 128, 96, 64, 48, 10])", {"image", "class"}),
    "fully_connected": ('fully_connected({"image": 784, "hidden": 256, "label": 10}, self_loops=True)', {"image"}),
    "random_groups": ("random_groups(16, 32, degree=2)", {"x", "y"}),
    "transformer": ("transformer(39, 64, width=48)", {"x", "y"}),
    "alexnet": ("alexnet()", {"x", "y"}),
    "vgg5": ("vgg5()", {"x", "y"}),
    "from_data": ("from_data(Data(edge_index=..., num_nodes=6), shape=16)", {0}),
}
"""Generator -> how it is called for its picture, and what is clamped there."""


def plain(name: str) -> None:
    call, clamped = CALLS[name]
    if name == "from_data":
        grid = nx.convert_node_labels_to_integers(nx.grid_2d_graph(2, 3)).to_directed()
        index = torch.tensor(list(grid.edges)).t()
        graph = graphs.from_data(Data(edge_index=index, num_nodes=6), shape=16)
    else:
        graph = eval(call, vars(graphs))
    drawing.graph(graph, clamped, HERE / f"{name}.png", title=call)


def figure_9() -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, which in zip(axes, ("top", "bottom"), strict=True):
        drawing.graph(graphs.figure_9(which), {0}, ax=ax, title=f'figure_9("{which}")')
    figure.savefig(HERE / "figure_9.png", dpi=150)
    plt.close(figure)


def assemblies() -> None:
    """Each assembly a circle of neurons; beside it the edges as a matrix."""
    graph = graphs.assemblies([14, 14, 14], within=0.25, between=0.015)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    place = {}
    for v, block in graph.nodes(data="block"):
        angle, turn = 2 * np.pi * block / 3 + np.pi / 2, 2 * np.pi * v / 14
        place[v] = 2.1 * np.array([np.cos(angle), np.sin(angle)]) + np.array([np.cos(turn), np.sin(turn)])
    block = dict(graph.nodes(data="block"))
    inside = [block[u] == block[v] for u, v in graph.edges]
    nx.draw_networkx(
        graph, place, ax=left, node_size=45, arrowsize=6, with_labels=False, width=0.8,
        node_color=[COLOURS[block[v]] for v in graph], edge_color=[GREY if same else INK for same in inside],
    )  # fmt: skip
    left.axis("off")
    left.set_title("assemblies([14, 14, 14], within=0.25, between=0.015)", fontsize=10)
    right.spy(nx.to_numpy_array(graph, weight=None), markersize=3, color=INK)
    right.set(xlabel="target neuron", ylabel="source neuron")
    right.xaxis.tick_bottom()
    figure.savefig(HERE / "assemblies.png", dpi=130)
    plt.close(figure)


HERE.mkdir(exist_ok=True)
for each in sys.argv[1:] or CALLS:
    plain(each)
figure_9()
assemblies()
