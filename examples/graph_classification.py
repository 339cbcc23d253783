"""Graphs of different sizes are told apart by predictive coding, and by backpropagation of the same network.

    python examples/graph_classification.py [--quick] [--out runs/graph_classification] [--seeds 0 1 2]

The graphs are made here: cycles, trees, stars, small worlds (Watts and Strogatz), lattices and complete bipartite
graphs of 8 to 20 vertices, each with some of its edges led elsewhere, so that no single number gives a family away. A
vertex has no features but a constant: all there is to see is who is joined to whom.

Edges are a value of the network, and no part of it: a batch of torch_geometric's loader is padded to 20 vertices, and
torch_geometric's dense layers are the combines of the nodes h1 and h2, whose states inference moves; a readout makes
one row of a graph. Both ways to learn start from the same weights and see the same batches. It takes a minute or two.

Reference: K. Xu et al., "How Powerful are Graph Neural Networks?", 2019, for GIN; P. Battaglia et al., "Relational
inductive biases, deep learning, and graph networks", 2018, for readouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import torch
from rows import Store, arguments, run, spread
from torch import nn
from torch_geometric import nn as layers
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.utils import from_networkx

import pcgraph
from pcgraph import drawing
from pcgraph.drawing import style

LEAST, MOST, WIDTH, EPOCHS, REWIRED = 8, 20, 32, 20, 0.1
GIVEN = ("x", "adj", "mask")
FAMILIES: dict[str, Callable[[int, int], nx.Graph]] = {
    "cycle": lambda n, seed: nx.cycle_graph(n),
    "tree": lambda n, seed: nx.random_labeled_tree(n, seed=seed),
    "star": lambda n, seed: nx.star_graph(n - 1),
    "small world": lambda n, seed: nx.watts_strogatz_graph(n, 4, 0.3, seed=seed),
    "lattice": lambda n, seed: nx.convert_node_labels_to_integers(nx.grid_2d_graph(2, n // 2)),
    "bipartite": lambda n, seed: nx.complete_bipartite_graph(3, n - 3),
}
LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "GIN": lambda i, o: layers.DenseGINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))),
    "Graph": lambda i, o: layers.DenseGraphConv(i, o),
}
RULES = ("predictive coding", "backprop")


def rewired(graph: nx.Graph, generator: torch.Generator) -> nx.Graph:
    """A tenth of the edges, one at least, lead elsewhere."""
    found, vertices = nx.Graph(graph), graph.number_of_nodes()
    for i, (u, v) in enumerate(graph.edges):
        if torch.rand((), generator=generator) < REWIRED or i == 0:
            other = int(torch.randint(vertices, (), generator=generator))
            if other != u and not found.has_edge(u, other):
                found.remove_edge(u, v)
                found.add_edge(u, other)
    return found


def make(count: int, seed: int) -> list[Data]:
    """As many graphs of each family, of sizes that are drawn."""
    generator, made = torch.Generator().manual_seed(seed), []
    for i in range(count):
        for label, family in enumerate(FAMILIES.values()):
            size = int(torch.randint(LEAST, MOST + 1, (), generator=generator))
            graph = rewired(family(size, seed * count + i), generator)
            edges = from_networkx(graph).edge_index
            made.append(Data(x=torch.ones(len(graph), 1), y=torch.tensor([label]), edge_index=edges))
    return made


def declare(layer: str) -> nx.DiGraph:
    """``x, adj, mask -> h1 -> h2 -> r -> y``: two layers of messages, a readout, and classes."""
    graph = nx.DiGraph()
    for name, shape in {"x": (MOST, 1), "adj": (MOST, MOST), "mask": MOST}.items():
        graph.add_node(name, shape=shape)
    for before, name, features in (("x", "h1", 1), ("h1", "h2", WIDTH)):
        combine = LAYERS[layer](features, WIDTH)
        graph.add_node(name, shape=(MOST, WIDTH), activation="relu", bias=False, combine=combine)
        graph.add_edge(before, name, role="x")
        graph.add_edges_from((part, name, {"role": part}) for part in ("adj", "mask"))
    graph.add_node("r", shape=WIDTH, bias=False, combine="readout")
    graph.add_edge("h2", "r", role="x")
    graph.add_edge("mask", "r", role="mask")
    graph.add_node("y", shape=len(FAMILIES), energy="cross_entropy")
    graph.add_edge("r", "y")
    return graph


def way(rule: str) -> dict[str, Any]:
    """What fit is told for it. A rate that follows the curvature remembers it: each run has one of its own."""
    if rule == "backprop":
        return {"rule": pcgraph.learning.Backprop()}
    rate = pcgraph.Following(0.1)  # sums over neighbours let the curvature grow with the weights
    return {"init": pcgraph.Forward(), "steps": 8, "state_optimizer": pcgraph.SGD(lr=rate)}


def train(layer: str, rule: str, seed: int, seen: list[Data], unseen: list[Data], epochs: int) -> dict[str, object]:
    """A row: how many of the unseen graphs are told after each epoch, in percent."""
    torch.manual_seed(seed)
    net = pcgraph.PCNetwork(declare(layer), seed=seed)
    batches = DataLoader(seen, batch_size=50, shuffle=True, generator=torch.Generator().manual_seed(seed))
    history = pcgraph.fit(
        net, batches, clamp=(*GIVEN, "y"), epochs=epochs, progress=False, **way(rule),
        optimizer=torch.optim.AdamW(net.parameters(), lr=5e-3), validate=DataLoader(unseen, batch_size=300),
    )  # fmt: skip
    told = {f"epoch {i}": round(100 * value, 2) for i, value in enumerate(history.values("accuracy"), 1)}
    return {"layer": layer, "rule": rule, "seed": seed, **told}


def by_epoch(rows: Sequence[dict[str, str]], layer: str, rule: str) -> list[list[float]]:
    """For each epoch, the accuracies of all seeds."""
    columns = [name for name in rows[0] if name.startswith("epoch ")]
    return [[float(row[name]) for row in rows if row["layer"] == layer and row["rule"] == rule] for name in columns]


def table(rows: Sequence[dict[str, str]]) -> str:
    """Accuracies after the last epoch, mean ± standard deviation over the seeds, as Markdown."""
    lines = ["| layer | " + " | ".join(f"{rule} (%)" for rule in RULES) + " |", "|---|---|---|"]
    for layer in dict.fromkeys(row["layer"] for row in rows):
        lines.append(f"| {layer} | " + " | ".join(spread(by_epoch(rows, layer, rule)[-1]) for rule in RULES) + " |")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]], path: Path) -> None:
    """The network, a graph of each family, and how each way to learn fares."""
    figure = plt.figure(figsize=(8, 9), layout="constrained")
    upper, middle, lower = figure.subfigures(3, 1, height_ratios=(4, 2, 5))
    drawing.graph(declare("GIN"), {*GIVEN, "y"}, ax=upper.subplots(), title="")
    for ax, (name, data) in zip(middle.subplots(1, len(FAMILIES)), zip(FAMILIES, make(1, 3))):
        drawn = nx.Graph(data.edge_index.t().tolist())
        nx.draw(drawn, nx.kamada_kawai_layout(drawn), ax=ax, node_size=14, width=0.8, node_color=style.look(0)["color"])
        ax.set_title(name, fontsize=9)
    axes = lower.subplots(1, len(LAYERS), sharey=True)
    for ax, layer in zip(axes, LAYERS):
        for k, rule in enumerate(RULES):
            runs = list(zip(*by_epoch(rows, layer, rule)))
            for i, accuracies in enumerate(runs):
                epochs = range(1, len(accuracies) + 1)
                ax.plot(epochs, accuracies, **style.look(k), markersize=3, linewidth=1, label=None if i else rule)
        ax.set(xlabel="epoch", title=f"layers: {layer}")
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("unseen graphs told (%), a line a seed")
    axes[-1].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "graph_classification")
    each, epochs = (10, 2) if args.quick else (100, EPOCHS)
    seen, unseen = make(each, 1), make(each // 2, 2)
    wanted = [{"layer": layer, "rule": rule, "seed": seed} for seed in args.seeds for layer in LAYERS for rule in RULES]
    run(
        args, "graph_classification", wanted, lambda **one: train(**one, seen=seen, unseen=unseen, epochs=epochs), table
    )
    rows = Store(args.out / "graph_classification.csv", ["layer", "rule", "seed"]).rows
    picture(rows, args.out / "graph_classification.png")


if __name__ == "__main__":
    main()
