"""Where plain predictive coding falls behind, and what helps: deep residual nets, a convolutional net, late collapses.

    python examples/depth.py --out runs/depth                          # every row; resumes where it was stopped
    python examples/depth.py --out runs/depth --works "32 blocks"      # some of them
    python examples/depth.py --quick                                   # digits, small networks, one seed: seconds

Every finished run is a row of ``depth.csv``: what was trained, how, and the accuracy on unseen images after each epoch.
All methods of one work have the same network, batches and optimizer of the weights.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch import Tensor

import pcgraph
from pcgraph import SGD, Average, Following, Forward, PCNetwork, data, graphs, learning

Clamps = dict[str, Tensor]
Learn = Callable[[PCNetwork, Clamps], Any]


@dataclass(frozen=True)
class Work:
    """A network, what it sees and how its weights move; and the methods by name, each made anew for a run."""

    graph: Callable[[tuple[int, ...], bool], nx.DiGraph]
    methods: dict[str, Callable[[], Learn]]
    rate: float
    batch: int
    epochs: int
    images: dict[str, Any]
    aligned: bool = False
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam


def local(steps: int, optimizer: Any, init: Any = None, **settings: Any) -> Callable[[], Learn]:
    """Inference from a forward sweep, or from `init`, and local gradients."""

    def make() -> Learn:
        start, states = Forward() if init is None else init(), optimizer()
        return lambda net, clamps: net.infer(clamps, init=start, steps=steps, optimizer=states, **settings).backward()

    return make


def backprop() -> Learn:
    """The baseline, on the same graph."""
    return lambda net, clamps: learning.backprop(net, {"x": clamps["x"]}, {"y": clamps["y"]})


def papers(shape: tuple[int, ...], quick: bool) -> nx.DiGraph:
    """The paper's classifier."""
    return graphs.chain([shape[0], *[64 if quick else 512] * 4, 10], activation="relu")


def by_class() -> Average:
    """The paper's initializer, with its first three maps swept."""
    return Average(by="y", forward_depth=3)


def steady(rate: float, follow: bool) -> Callable[[], SGD]:
    """Descent at this rate, or below it where the curvature asks for that."""
    return lambda: SGD(lr=Following(at_most=rate) if follow else rate)


def falling(steps: int, rate: float) -> dict[str, Callable[[], Learn]]:
    """A setting that falls over with a constant rate, and the same with one that follows the curvature."""
    return {
        "constant rate": local(steps, steady(rate, False), by_class),
        "following rate": local(steps, steady(rate, True), by_class),
    }


UNIT = {"normalize": "unit"}
WORKS = {
    "state rate 0.05": Work(papers, falling(7, 0.05), 3e-4, 200, 16, UNIT, True, torch.optim.AdamW),
    "learning rate 1e-3": Work(papers, falling(7, 0.01), 1e-3, 200, 16, UNIT, True, torch.optim.AdamW),
    "T = 6, half the data": Work(
        papers, falling(6, 0.03), 3e-4, 200, 16, {**UNIT, "fraction": 0.5}, True, torch.optim.AdamW
    ),
}  # fmt: skip


def train(work: str, method: str, seed: int, quick: bool) -> dict[str, Any]:
    """One run: the test accuracy after each epoch, in percent."""
    w, name = WORKS[work], "digits" if quick else "fashion-mnist"
    settings = {k: v for k, v in w.images.items() if not quick or k != "normalize"}
    train_set, test_set = data.load(name, "train", **settings), data.load(name, "test", **{k: v for k, v in settings.items() if k == "normalize"})
    net = PCNetwork(w.graph(train_set.shape, quick), seed=seed)
    optimizer, learn = w.optimizer(net.parameters(), lr=w.rate), w.methods[method]()
    batches = train_set.batches(50 if quick else w.batch, seed=seed, stream_aligned=w.aligned)
    found, outcome = [], "ok"
    for _ in range(w.epochs):
        try:
            for x, y in batches:
                optimizer.zero_grad()
                learn(net, {"x": x, "y": y})
                optimizer.step()
        except pcgraph.Diverged:
            outcome = "diverged"
            break
        right = net.predict({"x": test_set.images}, "y").argmax(1) == test_set.labels
        found.append(round(100 * float(right.float().mean()), 2))
        print(work, method, seed, found[-1], flush=True)
    return {
        "work": work, "method": method, "seed": seed, "images": len(train_set), "outcome": outcome,
        "accuracy": " ".join(map(str, found)), "torch": torch.__version__,
    }  # fmt: skip


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/depth"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "depth.csv"
    rows: list[dict] = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(r["work"], r["method"], int(r["seed"])) for r in rows}
    for work in args.works:
        for seed in args.seeds[:1] if args.quick else args.seeds:
            for method in args.methods or WORKS[work].methods:
                if (work, method, seed) in done:
                    continue
                rows.append(train(work, method, seed, args.quick))
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
