"""Do learning rates carry over to wider and deeper networks? Test accuracy by rate, with muPC's factors and without.

    python examples/scaling.py --out runs/scaling          # the table of docs/api/scaling.md; resumes where it ended
    python examples/scaling.py --quick                     # digits, small networks, one seed: seconds

Residual networks with one map a block learn by predictive coding, one epoch on a part of Fashion-MNIST: as many
inference steps as blocks from a forward sweep, and Adam for the weights. Everything but the rate is the same for all
sizes. Every finished run is a row of ``scaling.csv``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from rows import arguments, learn, run, swept_accuracy
from torch import Tensor

from pcgraph import SGD, Forward, PCNetwork, data, graphs, scaling

KINDS = {"muPC": scaling.mupc, "default": lambda graph: graph}
RATES = {"muPC": (0.01, 0.03, 0.1, 0.3), "default": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)}
SIZES = ((64, 8), (256, 32), (512, 64))
STATE_RATE, BATCH = 0.3, 64


def train(
    kind: str, size: tuple[int, int], lr: float, seed: int, train_set: data.Images, test_set: data.Images
) -> dict[str, Any]:
    """One run: the test accuracy after one epoch, in percent."""
    width, blocks = size
    graph = graphs.residual(train_set.shape[0], width, 10, blocks=blocks, inner=0, activation="relu")
    net = PCNetwork(KINDS[kind](graph), seed=seed)
    init, states, optimizer = Forward(), SGD(lr=STATE_RATE), torch.optim.Adam(net.parameters(), lr=lr)
    begun = time.perf_counter()

    def update(clamps: dict[str, Tensor]) -> None:
        net.infer(clamps, init=init, steps=blocks, optimizer=states).backward()

    outcome = learn(net, train_set.batches(BATCH, seed=seed), update, optimizer)
    return {
        "kind": kind, "width": width, "blocks": blocks, "lr": lr, "seed": seed,
        "accuracy": swept_accuracy(net, test_set), "outcome": outcome,
        "seconds": round(time.perf_counter() - begun, 1), "images": len(train_set), "torch": torch.__version__,
    }  # fmt: skip


def best(rows: Sequence[dict], kind: str, size: tuple[int, int]) -> float:
    """The rate with the best mean accuracy."""
    found = {lr: accuracies(rows, kind, size, lr) for lr in RATES[kind]}
    return max((lr for lr in found if found[lr]), key=lambda lr: statistics.mean(found[lr]))


def accuracies(rows: Sequence[dict], kind: str, size: tuple[int, int], lr: float) -> list[float]:
    """Of all seeds."""
    return [
        float(r["accuracy"])
        for r in rows
        if (r["kind"], int(r["width"]), int(r["blocks"]), float(r["lr"])) == (kind, *size, lr)
    ]


def table(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table, a network a line: the mean over the seeds, and the best of the line in bold."""
    rates = sorted({float(r["lr"]) for r in rows})
    lines = [
        "| weights | width, blocks | " + " | ".join(f"{lr:g}" for lr in rates) + " |",
        "|---|---|" + "---|" * len(rates),
    ]
    for kind in KINDS:
        sizes = {(int(r["width"]), int(r["blocks"])) for r in rows if r["kind"] == kind}
        for size in sorted(sizes):
            cells = []
            for lr in rates:
                found = accuracies(rows, kind, size, lr)
                text = f"{statistics.mean(found):.1f}" if found else "–"
                cells.append(f"**{text}**" if found and lr == best(rows, kind, size) else text)
            lines.append(f"| {kind} | {size[0]}, {size[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def part(images: data.Images, count: int) -> data.Images:
    """The first so many of a fixed shuffle."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    return images.take(chosen)


def main() -> None:
    """Run what is missing, write the table."""
    args = arguments(
        __doc__, "scaling", images={"type": int, "default": 3000},
        kinds={"nargs": "+", "choices": KINDS, "default": list(KINDS)},
    )  # fmt: skip
    name, sizes = ("digits", ((16, 4), (64, 16))) if args.quick else ("fashion-mnist", SIZES)
    sets = part(data.load(name, "train"), args.images), data.load(name, "test")
    wanted = [
        {"kind": kind, "width": width, "blocks": blocks, "lr": lr, "seed": seed}
        for width, blocks in sizes for seed in args.seeds for kind in args.kinds for lr in RATES[kind]
    ]  # fmt: skip
    run(
        args, "scaling", wanted,
        lambda kind, width, blocks, lr, seed: train(kind, (width, blocks), lr, seed, *sets), table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
