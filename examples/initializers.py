"""Test accuracy for every initializer over the number of inference steps: the shape of the paper's Figure 2 (right).

    python examples/initializers.py --out runs/initializers          # all cells; resumes where it was stopped
    python examples/initializers.py --quick                          # digits, a smaller network, two columns

One network (784-512x4-10), one seed, one fixed setting of rates; batches are stream-aligned for all, so that the
initializers see the same data in the same order. Every finished cell is a row of ``initializers.csv``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch
from rows import arguments, learn, run, swept_accuracy
from torch import Tensor

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
    states, begun = SGD(lr=args.state_lr), time.perf_counter()

    def update(clamps: dict[str, Tensor]) -> None:
        net.infer(clamps, init=init, steps=steps, optimizer=states).backward()

    outcome = learn(net, batches, update, optimizer, args.epochs)
    return {
        "initializer": name, "steps": steps, "accuracy": swept_accuracy(net, test_set), "outcome": outcome,
        "seconds": round(time.perf_counter() - begun, 1), "activation": args.activation, "lr": args.lr,
        "state_lr": args.state_lr, "epochs": args.epochs, "seed": args.seed, "torch": torch.__version__,
    }  # fmt: skip


def table(rows: Sequence[dict]) -> str:
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
    args = arguments(
        __doc__, "initializers", epochs={"type": int, "default": 3}, activation={"default": "gelu"},
        lr={"type": float, "default": 3e-4}, state_lr={"type": float, "default": 0.1},
        seed={"type": int, "default": 0}, only={"nargs": "*", "help": "initializers to run"},
        steps={"nargs": "*", "type": int, "default": list(STEPS)},
    )  # fmt: skip
    if args.quick:
        args.epochs, args.steps, args.lr = 3, args.steps[:2], 3e-3
    name = "digits" if args.quick else "fashion-mnist"
    sets = data.load(name, "train"), data.load(name, "test")
    wanted = [{"initializer": one, "steps": steps} for steps in args.steps for one in args.only or ROWS]
    run(args, "initializers", wanted, lambda initializer, steps: train(initializer, steps, args, *sets), table)


if __name__ == "__main__":
    main()
