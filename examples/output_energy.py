"""Squared error or cross entropy at the output: test accuracy on Fashion-MNIST with each.

    python examples/output_energy.py --out runs/output_energy        # three seeds; resumes where it was stopped
    python examples/output_energy.py --quick                         # digits, one seed

One network (784-512x4-10, relu), forward initialization, T = 5. Only the energy of ``y`` differs, and the rate of the
weights is that of the other. Every finished run is a row of ``output_energy.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from rows import arguments, run, spread, swept_accuracy

import pcgraph
from pcgraph import data

ENERGIES = {"squared error": "gaussian", "cross entropy": "cross_entropy"}


def train(energy: str, seed: int, args: argparse.Namespace, train_set: data.Images, test_set: data.Images) -> dict:
    """One run: the test accuracy after the last epoch, in percent."""
    hidden = [64] * 2 if args.quick else [512] * 4
    graph = pcgraph.graphs.chain([train_set.shape[0], *hidden, 10], activation="relu")
    graph.nodes["y"]["energy"] = ENERGIES[energy]
    net = pcgraph.PCNetwork(graph, seed=seed)
    history = pcgraph.fit(
        net, train_set.batches(50 if args.quick else 200, seed=seed), init=pcgraph.Forward(), steps=5,
        optimizer=torch.optim.AdamW(net.parameters(), lr=args.lr), state_optimizer=pcgraph.SGD(lr=args.state_lr),
        epochs=args.epochs, progress=False,
    )  # fmt: skip
    return {
        "energy": energy, "seed": seed, "accuracy": swept_accuracy(net, test_set), "epochs": len(history.epochs),
        "lr": args.lr, "state_lr": args.state_lr, "torch": torch.__version__,
    }  # fmt: skip


def table(rows: Sequence[dict]) -> str:
    """Mean and standard deviation over the seeds, an energy a line."""
    lines = ["| energy of y | test accuracy | seeds |", "|---|---|---|"]
    for energy in ENERGIES:
        found = [float(r["accuracy"]) for r in rows if r["energy"] == energy]
        if found:
            lines.append(f"| {energy} | {spread(found)} | {len(found)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the table."""
    args = arguments(
        __doc__, "output_energy", epochs={"type": int, "default": 3}, lr={"type": float, "default": 5e-4},
        state_lr={"type": float, "default": 0.05},
    )  # fmt: skip
    name = "digits" if args.quick else "fashion-mnist"
    sets = data.load(name, "train"), data.load(name, "test")
    wanted = [{"energy": energy, "seed": seed} for seed in args.seeds for energy in ENERGIES]
    run(args, "output_energy", wanted, lambda energy, seed: train(energy, seed, args, *sets), table)


if __name__ == "__main__":
    main()
