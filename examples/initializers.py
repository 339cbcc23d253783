"""Test accuracy for every initializer over the number of inference steps: the shape of the paper's Figure 2 (right).

    python examples/initializers.py --out runs/initializers          # all cells; resumes where it was stopped
    python examples/initializers.py --quick                          # digits, a smaller network, two columns

One network (784-512x4-10), one seed, one fixed setting of rates; batches are stream-aligned for all, so that the
initializers see the same data in the same order. Every finished cell is a row of ``initializers.csv``.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch

import pcgraph
from pcgraph import SGD, Average, Forward, Normal, Null, PCNetwork, Zero, data

ROWS = {
    "Normal": lambda: Normal(std=0.1),
    "Zero": lambda: Zero(),
    "Null": lambda: Null(first=Forward()),
    "Forward": lambda: Forward(),
    "Average m=1": lambda: Average(by="y", forward_depth=1),
    "Average m=2": lambda: Average(by="y", forward_depth=2),
    "Average m=3": lambda: Average(by="y", forward_depth=3),
}
STEPS = (3, 5, 10, 25)


def train(name: str, steps: int, args: argparse.Namespace, train_set: data.Images, test_set: data.Images) -> dict:
    """One cell of the table: the test accuracy after the last epoch, in percent."""
    hidden = [512] * 4 if not args.quick else [64] * 4
    graph = pcgraph.graphs.chain([train_set.shape[0], *hidden, 10], activation=args.activation)
    net = PCNetwork(graph, seed=args.seed)
    init, optimizer = ROWS[name](), torch.optim.AdamW(net.parameters(), lr=args.lr)
    batches = train_set.batches(50 if args.quick else 200, seed=args.seed, stream_aligned=True)
    state_optimizer, begun, outcome = SGD(lr=args.state_lr), time.perf_counter(), "ok"
    for _ in range(args.epochs):
        for x, y in batches:
            optimizer.zero_grad()
            try:
                net.infer({"x": x, "y": y}, init=init, steps=steps, optimizer=state_optimizer).backward()
            except pcgraph.Diverged:
                outcome = "diverged"
                break
            optimizer.step()
    right = (net.predict({"x": test_set.images}, "y").argmax(1) == test_set.labels).float().mean()
    return {
        "initializer": name, "steps": steps, "accuracy": round(100 * float(right), 2), "outcome": outcome,
        "seconds": round(time.perf_counter() - begun, 1), "activation": args.activation, "lr": args.lr,
        "state_lr": args.state_lr, "epochs": args.epochs, "seed": args.seed, "torch": torch.__version__,
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table, an initializer a line."""
    steps = sorted({int(r["steps"]) for r in rows})
    lines = ["| initializer | " + " | ".join(f"T={t}" for t in steps) + " |", "|---|" + "---|" * len(steps)]
    for name in ROWS:
        cells = {int(r["steps"]): r for r in rows if r["initializer"] == name}
        if cells:
            shown = (f"{float(cells[t]['accuracy']):.2f}" if t in cells else "–" for t in steps)
            lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/initializers"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--activation", default="gelu")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--state-lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=None, help="initializers to run")
    parser.add_argument("--steps", nargs="*", type=int, default=list(STEPS))
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.steps, args.lr = 3, args.steps[:2], 3e-3
    name = "digits" if args.quick else "fashion-mnist"
    train_set, test_set = data.load(name, "train"), data.load(name, "test")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "initializers.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(r["initializer"], int(r["steps"])) for r in rows}
    for steps in args.steps:
        for initializer in args.only or ROWS:
            if (initializer, steps) in done:
                continue
            row = train(initializer, steps, args, train_set, test_set)
            print(row, flush=True)
            rows.append(row)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row))
                writer.writeheader()
                writer.writerows(rows)
    text = table(rows)
    (args.out / "initializers.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
