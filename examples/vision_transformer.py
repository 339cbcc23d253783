"""A block of a Vision Transformer learns Fashion-MNIST by predictive coding, and by backpropagation of the same graph.

    python examples/vision_transformer.py [--quick] [--out runs/vision_transformer] [--seeds 0 1 2]

An image is cut into sixteen patches, and each patch is a row of the node x. A dense map of every row makes it a token
of the node e, whose bias tells the places apart; then comes a block of ``graphs.transformer``, in which every token
looks at all others; and the mean of the tokens says the class. The states of inference are what such a block computes:
tokens, what attention found, its sum with what went by, the layer between, and the sum again.

All ways to learn start from the same weights and see the same batches. It takes some minutes a run on one core; a
script that was stopped goes on with the runs that are missing.

Reference: A. Dosovitskiy et al., "An image is worth 16x16 words", 2020. Here the class is read from the mean of the
tokens, and not from a token of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import torch
from rows import Store, arguments, run, spread
from torch import Tensor, nn

import pcgraph
from pcgraph import data, drawing, transforms
from pcgraph.drawing import style

RULES = ("predictive coding, states", "predictive coding, errors", "backprop")
EPOCHS, WIDTH, HEADS = 5, 32, 4


def way(rule: str) -> dict[str, Any]:
    """What fit is told for it. A rate that follows the curvature remembers it: each run has one of its own."""
    if rule == "backprop":
        return {"rule": pcgraph.learning.Backprop()}
    inference = {"init": pcgraph.Forward(), "steps": 5}
    if rule == "predictive coding, states":
        return inference | {"state_optimizer": pcgraph.SGD(lr=pcgraph.Following(0.1))}
    return inference | {"state_optimizer": pcgraph.SGD(lr=1e-3), "coordinates": pcgraph.Errors()}


class Mean(nn.Module):
    """The mean of all rows."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows.mean(1)


def declare(patches: int, pixels: int, classes: int = 10) -> nx.MultiDiGraph:
    """``x -> e -> a1, r1, m1, h1 -> y``: the block of a transformer, between patches and classes."""
    graph = pcgraph.graphs.transformer(classes, patches, width=WIDTH, heads=HEADS, causal=False)
    graph.remove_nodes_from(["x", "y"])  # which hold and predict the tokens of a text
    graph.add_node("x", shape=(patches, pixels))
    graph.add_node("y", shape=classes, energy="cross_entropy")
    graph.add_edge("x", "e", transform=transforms.RowLinear(pixels, WIDTH))
    told = transforms.RowLinear(WIDTH, classes, normalize=True)
    graph.add_edge("h1", "y", transform=transforms.Sequence([told, Mean()]))
    return graph


def cut(images: Tensor, side: int) -> Tensor:
    """Square patches, row by row: (images, pixels) to (images, patches, pixels of a patch)."""
    whole = round(images.shape[1] ** 0.5)
    parts = images.view(-1, whole // side, side, whole // side, side)
    return parts.transpose(2, 3).reshape(len(images), -1, side * side)


def load(quick: bool) -> tuple[data.Images, data.Images]:
    """Images to learn from, a third of Fashion-MNIST's, and test images, all cut into 16 patches; or digits."""
    name, part, side = ("digits", 1.0, 2) if quick else ("fashion-mnist", 1 / 3, 7)
    sets = data.load(name, fraction=part), data.load(name, "test")
    seen, unseen = (data.Images(cut(each.images, side), each.labels, each.classes, name=name) for each in sets)
    return seen, unseen


def train(rule: str, seed: int, seen: data.Images, unseen: data.Images, epochs: int = EPOCHS) -> dict[str, object]:
    """A row: how many of the test images are told after each epoch, in percent."""
    net = pcgraph.PCNetwork(declare(*seen.shape, len(seen.classes)), seed=seed)
    history = pcgraph.fit(
        net, seen.batches(100, seed=seed), clamp=("x", "y"), epochs=epochs, progress=False, **way(rule),
        optimizer=torch.optim.AdamW(net.parameters(), lr=2e-3), validate=unseen.batches(1000, shuffle=False),
    )  # fmt: skip
    told = {f"epoch {i}": round(100 * value, 2) for i, value in enumerate(history.values("accuracy"), 1)}
    return {"data": seen.name, "rule": rule, "seed": seed, **told}


def by_epoch(rows: Sequence[dict[str, str]], rule: str) -> list[list[float]]:
    """For each epoch, the accuracies of all seeds."""
    columns = [name for name in rows[0] if name.startswith("epoch ")]
    return [[float(row[name]) for row in rows if row["rule"] == rule] for name in columns]


def table(rows: Sequence[dict[str, str]]) -> str:
    """Accuracies after the first and the last epoch, mean ± standard deviation over the seeds, as Markdown."""
    found = {rule: by_epoch(rows, rule) for rule in RULES}
    last = max(map(len, found.values()))
    lines = [f"| test accuracy (%) | after 1 epoch | after {last} epochs |", "|---|---|---|"]
    lines += [f"| {rule} | {spread(each[0])} | {spread(each[-1])} |" for rule, each in found.items() if each[0]]
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]], graph: nx.MultiDiGraph, path: Path) -> None:
    """The graph, and how each way to learn fares on it, a line a seed."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 7), height_ratios=(2, 3), layout="constrained")
    drawing.graph(graph, {"x", "y"}, ax=upper, title="")
    for k, rule in enumerate(RULES):
        runs = list(zip(*by_epoch(rows, rule)))
        for i, accuracies in enumerate(runs):
            epochs = range(1, len(accuracies) + 1)
            lower.plot(epochs, accuracies, **style.look(k), markersize=5, linewidth=1.2, label=None if i else rule)
    lower.set(xlabel="epoch", ylabel="test images told (%), a line a seed")
    lower.xaxis.get_major_locator().set_params(integer=True)
    lower.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "vision_transformer")
    sets = load(args.quick)
    wanted = [{"rule": rule, "seed": seed} for seed in args.seeds for rule in RULES]
    epochs = 2 if args.quick else EPOCHS
    run(args, "vision_transformer", wanted, lambda rule, seed: train(rule, seed, *sets, epochs), table)
    rows = Store(args.out / "vision_transformer.csv", ["rule", "seed"]).rows
    picture(rows, declare(*sets[0].shape), args.out / "vision_transformer.png")


if __name__ == "__main__":
    main()
