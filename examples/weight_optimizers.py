"""Which optimizer of the weights: AdamW with decay where it is wanted, Muon on matrices, and either in half precision.

    python examples/weight_optimizers.py [--quick] [--out runs/weight_optimizers] [--seeds 0 1 2]

Weights of like edges lie in one tensor. What moves each number by itself (AdamW) takes them so;
``net.parameter_groups`` gives biases a decay of their own, namely none; and Muon, which makes each step of a matrix
orthogonal, takes the weight of each edge by its handle, ``net.edge(u, v).weight``, a view of two dimensions.
``autocast=torch.bfloat16`` has the dense products of training in half precision; states, energies and weights stay in
float32.

Each has the best of six rates on a fifth of the training images. It takes a minute or two on one core, and downloads
nothing.

Reference for Muon: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from rows import Store, arguments, mean_and_range, run, swept_accuracy

import pcgraph
from pcgraph import data
from pcgraph.drawing import style

EPOCHS = (1, 2, 5, 10)
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
DECAY = 0.1


def all_alike(net: pcgraph.PCNetwork, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=DECAY)


def no_decay_of_biases(net: pcgraph.PCNetwork, rate: float) -> torch.optim.Optimizer:
    groups = net.parameter_groups({node: {"weight_decay": 0.0} for node in net.nodes() if node.count})
    return torch.optim.AdamW(groups, lr=rate, weight_decay=DECAY)


def weights_alone(net: pcgraph.PCNetwork, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW([edge.weight for edge in net.edges()], lr=rate, weight_decay=DECAY)


def muon(net: pcgraph.PCNetwork, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Muon([edge.weight for edge in net.edges()], lr=rate, weight_decay=DECAY)


OPTIMIZERS: dict[str, Callable[[pcgraph.PCNetwork, float], torch.optim.Optimizer]] = {
    "AdamW": all_alike,
    "AdamW, biases without decay": no_decay_of_biases,
    "AdamW, weights alone": weights_alone,
    "Muon, weights alone": muon,
}
PRECISIONS: dict[str, Any] = {"float32": None, "bfloat16": torch.bfloat16}


def train(optimizer: str, precision: str, rate: float, seed: int, images: data.Images, judged: data.Images,
          epochs: int) -> dict[str, float]:  # fmt: skip
    """Accuracy on `judged`, in percent, by epoch."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([64, 128, 128, 10], activation="relu"), seed=seed)
    found: dict[str, float] = {}

    def judge(record: Any) -> None:
        if record.kind == "epoch" and record.epoch in EPOCHS:
            found[f"told_{record.epoch}"] = swept_accuracy(net, judged)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pcgraph.errors.PCGraphWarning)  # of rates that are too large, as some here are
        pcgraph.fit(
            net, images.batches(50, seed=seed), init=pcgraph.Forward(), steps=5, state_optimizer=pcgraph.SGD(lr=0.1),
            optimizer=OPTIMIZERS[optimizer](net, rate), autocast=PRECISIONS[precision], epochs=epochs, callbacks=judge,
            progress=False,
        )  # fmt: skip
    return found


@functools.cache
def best_rate(optimizer: str, precision: str, epochs: int, rates: tuple[float, ...]) -> float:
    """Of what is tried, the one that tells most of the held-out images."""
    images, held_out = data.load("digits").split(0.2, seed=0)
    told = {rate: train(optimizer, precision, rate, 0, images, held_out, epochs) for rate in rates}
    return max(told, key=lambda rate: told[rate][f"told_{epochs}"])


def measured(optimizer: str, precision: str, seed: int, quick: bool) -> dict[str, object]:
    """What it tells of the test images, having learned from all others with the rate that was best."""
    epochs = 1 if quick else EPOCHS[-1]
    rate = best_rate(optimizer, precision, epochs, RATES[2:3] if quick else RATES)
    told = train(optimizer, precision, rate, seed, data.load("digits"), data.load("digits", "test"), epochs)
    return {"optimizer": optimizer, "precision": precision, "seed": seed, "rate": rate, **told}


def table(rows: Sequence[dict[str, str]]) -> str:
    """Means over the seeds with the lowest and the highest, as Markdown."""
    epochs = [e for e in EPOCHS if any(row.get(f"told_{e}") for row in rows)]
    lines = ["| optimizer | precision | rate | " + " | ".join(f"epoch {e}" for e in epochs) + " |",
             "|---" * (3 + len(epochs)) + "|"]  # fmt: skip
    for optimizer in OPTIMIZERS:
        for precision in PRECISIONS:
            some = [row for row in rows if (row["optimizer"], row["precision"]) == (optimizer, precision)]
            cells = [optimizer, precision, f"{float(some[0]['rate']):g}"]
            lines.append(f"| {' | '.join([*cells, *(mean_and_range(some, f'told_{e}') for e in epochs)])} |")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]], path: Path) -> None:
    """Accuracy by epoch, a line an optimizer, float32 and bfloat16 side by side."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained", sharey=True)
    for ax, precision in zip(axes, PRECISIONS):
        for k, optimizer in enumerate(OPTIMIZERS):
            some = [row for row in rows if (row["optimizer"], row["precision"]) == (optimizer, precision)]
            epochs = [e for e in EPOCHS if some[0].get(f"told_{e}")]
            means = [fmean(float(row[f"told_{e}"]) for row in some) for e in epochs]
            ax.plot(range(len(epochs)), means, label=optimizer, **style.look(k))
        ax.set_xticks(range(len(epochs)), epochs)
        ax.set(xlabel="epochs", title=precision)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test digits told (%)")
    axes[1].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "weight_optimizers")
    wanted = [{"optimizer": optimizer, "precision": precision, "seed": seed}
              for optimizer in OPTIMIZERS for precision in PRECISIONS for seed in args.seeds]  # fmt: skip

    def one(optimizer: str, precision: str, seed: int) -> dict[str, object]:
        return measured(optimizer, precision, seed, args.quick)

    run(args, "weight_optimizers", wanted, one, table)
    rows = Store(args.out / "weight_optimizers.csv", list(wanted[0])).rows
    picture(rows, args.out / "weight_optimizers.png")


if __name__ == "__main__":
    main()
