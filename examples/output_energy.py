"""Squared error or cross entropy at the output: test accuracy on Fashion-MNIST with each.

    python examples/output_energy.py --out runs/output_energy        # three seeds; resumes where it was stopped
    python examples/output_energy.py --quick                         # digits, one seed

One network (784-512x4-10, relu), forward initialization, T = 5. Only the energy of ``y`` differs, and the rate of the
weights is that of the other. Every finished run is a row of ``output_energy.csv``.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

import torch

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
    right = (net.predict({"x": test_set.images}, "y").argmax(1) == test_set.labels).float().mean()
    return {
        "energy": energy, "seed": seed, "accuracy": round(100 * float(right), 2), "epochs": len(history.epochs),
        "lr": args.lr, "state_lr": args.state_lr, "torch": torch.__version__,
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """Mean and standard deviation over the seeds, an energy a line."""
    lines = ["| energy of y | test accuracy | seeds |", "|---|---|---|"]
    for energy in ENERGIES:
        found = [float(r["accuracy"]) for r in rows if r["energy"] == energy]
        if found:
            spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
            lines.append(f"| {energy} | {statistics.mean(found):.2f}{spread} | {len(found)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/output_energy"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--state-lr", type=float, default=0.05)
    args = parser.parse_args()
    name = "digits" if args.quick else "fashion-mnist"
    train_set, test_set = data.load(name, "train"), data.load(name, "test")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "output_energy.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(r["energy"], int(r["seed"])) for r in rows}
    for seed in range(1 if args.quick else 3):
        for energy in ENERGIES:
            if (energy, seed) in done:
                continue
            row = train(energy, seed, args, train_set, test_set)
            print(row, flush=True)
            rows.append(row)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row))
                writer.writeheader()
                writer.writerows(rows)
    text = table(rows)
    (args.out / "output_energy.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
