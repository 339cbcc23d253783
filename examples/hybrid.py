"""Hybrid predictive coding: fast by a learned guess, slow by inference, and both by one network.

    python examples/hybrid.py [--quick] [--out runs/hybrid] [--seeds 0 1 2]

A generative network h0 -> h1 -> h2 -> x predicts images of digits from their labels. Whoever asks it for a label goes
the other way: x is clamped, h0 is free, and inference searches. From zero that takes many steps.
:class:`pcgraph.Amortized` is a feed-forward net from x back to h2, h1 and h0 that learns from the states which
inference has found, and from the labels; its guess is where inference starts. Asked after 0, 1, 3, ... steps, the label
tells what the guess knows and what the steps add.

The same is trained without a guess, from the sweep of h0, and asked from zero.

A. Tschantz, B. Millidge, A. K. Seth, C. L. Buckley, "Hybrid predictive coding: Inferring, fast and slow", PLOS
Computational Biology, 2023. It takes some minutes on one core, and downloads nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from rows import Store, accuracy, arguments, mean_and_range, run

import pcgraph
from pcgraph import data
from pcgraph.drawing import style

STEPS = (0, 1, 3, 10, 30, 100, 300)
STARTS = {"guess": "from the guess", "zero": "from zero"}


def trained(start: str, seed: int, epochs: int) -> tuple[pcgraph.PCNetwork, pcgraph.Initializer]:
    """The network and what it is asked from; labels and images are clamped in training."""
    images = data.load("digits", normalize="unit")
    graph = pcgraph.graphs.decoder([10, 64, 64, 64], activation="tanh")
    net = pcgraph.PCNetwork(graph, seed=seed)
    guess = pcgraph.Amortized(net, given="x", seed=seed)
    init = guess if start == "guess" else pcgraph.Forward()
    known = [*net.parameters(), *(guess.parameters() if start == "guess" else ())]
    pcgraph.fit(
        net, images.batches(50, seed=seed), clamp=("x", "h0"), init=init, steps=20, epochs=epochs, progress=False,
        state_optimizer=pcgraph.SGD(lr=0.05), optimizer=torch.optim.Adam(known, lr=1e-3),
    )  # fmt: skip
    return net, guess if start == "guess" else pcgraph.Zero()


def measured(start: str, seed: int, epochs: int) -> dict[str, object]:
    """Labels told, in percent, and the energy a sample, on unseen images after so many steps."""
    net, init = trained(start, seed, epochs)
    unseen = data.load("digits", "test", normalize="unit")
    row: dict[str, object] = {"start": start, "seed": seed}
    for steps in STEPS:
        result = net.infer({"x": unseen.images}, init=init, steps=steps, optimizer=pcgraph.SGD(lr=0.05))
        row[f"told_{steps}"] = accuracy(result.states["h0"], unseen.labels)
        row[f"energy_{steps}"] = round(float(result.energy.mean()), 3)
    return row


def table(rows: Sequence[dict[str, str]]) -> str:
    """Means over the seeds, of labels with the lowest and the highest, as Markdown."""
    lines = ["| asked | " + " | ".join(f"T = {steps}" for steps in STEPS) + " |", "|---" * (len(STEPS) + 1) + "|"]
    for start, name in STARTS.items():
        found = [row for row in rows if row["start"] == start]
        told = [mean_and_range(found, f"told_{steps}") for steps in STEPS]
        energy = [f"{fmean(float(row[f'energy_{steps}']) for row in found):.2f}" for steps in STEPS]
        lines.append(f"| {name}: labels told (%) | " + " | ".join(told) + " |")
        lines.append(f"| {name}: energy | " + " | ".join(energy) + " |")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Labels told and energy by inference steps, a line a start."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    for ax, column, label in ((axes[0], "told", "unseen labels told (%)"), (axes[1], "energy", "energy a sample")):
        for k, (start, name) in enumerate(STARTS.items()):
            found = [row for row in rows if row["start"] == start]
            means = [fmean(float(row[f"{column}_{steps}"]) for row in found) for steps in STEPS]
            ax.plot(range(len(STEPS)), means, label=name, **style.look(k))
        ax.set_xticks(range(len(STEPS)), STEPS)
        ax.set(xlabel="inference steps", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].set_yscale("log")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "hybrid")
    wanted = [{"start": start, "seed": seed} for seed in args.seeds for start in STARTS]
    run(args, "hybrid", wanted, functools.partial(measured, epochs=1 if args.quick else 15), table)
    picture(Store(args.out / "hybrid.csv", ["start", "seed"]).rows, args.out / "hybrid.png")


if __name__ == "__main__":
    main()
