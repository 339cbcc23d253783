"""Where plain predictive coding falls behind, and what helps: deep residual nets, a convolutional net, late collapses.

    python examples/depth.py --out runs/depth                       # the table of docs/depth.md; resumes where it ended
    python examples/depth.py --out runs/depth --works "32 blocks"   # some of them
    python examples/depth.py --quick                                # digits, small networks, one seed: seconds

Every finished run is a row of ``depth.csv``: what was trained, how, and the accuracy on unseen images after each epoch.
All methods of one work have the same network, batches and optimizer of the weights.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

import pcgraph
from pcgraph import (
    SGD,
    Average,
    Duals,
    Errors,
    Following,
    Forward,
    InferenceResult,
    PCNetwork,
    data,
    graphs,
    learning,
    scaling,
)

Clamps = dict[str, Tensor]
Learn = Callable[[PCNetwork, Clamps], InferenceResult | None]


class Work(NamedTuple):
    """A network, what it sees and how its weights move; and the methods by name, each made anew for a run."""

    graph: Callable[[tuple[int, ...], bool], nx.DiGraph]
    methods: dict[str, Callable[[], Learn]]
    rate: float
    batch: int
    epochs: int
    images: dict[str, Any]
    aligned: bool = False
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    first: tuple[Any, ...] = ()
    """The edge (source, target, key) whose gradient is compared with backpropagation's."""


def local(steps: int, optimizer: Any, init: Any = None, **settings: Any) -> Callable[[], Learn]:
    """Inference from a forward sweep, or from `init`, and local gradients."""

    def make() -> Learn:
        start, states = Forward() if init is None else init(), optimizer()

        def learn(net: PCNetwork, clamps: Clamps) -> InferenceResult:
            result = net.infer(clamps, init=start, steps=steps, optimizer=states, **settings)
            result.backward()
            return result

        return learn

    return make


def backprop() -> Learn:
    """The baseline, on the same graph."""

    def learn(net: PCNetwork, clamps: Clamps) -> None:
        learning.backprop(net, {"x": clamps["x"]}, {"y": clamps["y"]})

    return learn


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


def residual(blocks: int) -> Callable[[tuple[int, ...], bool], nx.DiGraph]:
    """A residual net of width 32 with muPC's factors, one map a block."""

    def make(shape: tuple[int, ...], quick: bool) -> nx.DiGraph:
        count = 8 if quick else blocks
        return scaling.mupc(graphs.residual(shape[0], 32, 10, blocks=count, inner=0, activation="relu"))

    return make


def deep(blocks: int, rate: float) -> dict[str, Callable[[], Learn]]:
    """Twice as many steps as there are blocks, by states alone and with duals."""
    steps = 2 * blocks
    return {
        "backprop": backprop,
        "states": local(steps, steady(0.3, False)),
        "PC-ALM": local(steps, steady(0.3, False), duals=Duals(rate)),
        "PC-ALM, nodes stop": local(steps, steady(0.3, False), duals=Duals(rate, stop=0.1)),
        "PC-ALM, duals at 0.5, nodes stop": local(steps, steady(0.3, False), duals=Duals(0.5, stop=0.1)),
    }


def convolutional(shape: tuple[int, ...], quick: bool) -> nx.DiGraph:
    """VGG-5 with an eighth of its channels: four pooled convolutions and a linear output."""
    side = round(shape[0] ** 0.5)
    graph, last, channels, sizes = nx.DiGraph(), "x", 1, (16, 32, 64, 64)
    graph.add_node("x", shape=(1, side, side))
    for i, count in enumerate(sizes[:2] if quick else sizes, 1):
        side //= 2
        conv = ("conv2d", {"in_channels": channels, "out_channels": count, "kernel_size": 3, "padding": 1})
        parts = [conv, ("activate", {"activation": "gelu"}), ("max_pool2d", {"kernel_size": 2})]
        graph.add_node(f"conv{i}", shape=(count, side, side), bias=False)
        graph.add_edge(last, f"conv{i}", transform=("sequence", {"parts": parts}))
        last, channels = f"conv{i}", count
    graph.add_node("y", shape=10)
    graph.add_edge(last, "y")
    return graph


UNIT = {"normalize": "unit"}
WORKS = {
    "state rate 0.05": Work(papers, falling(7, 0.05), 3e-4, 200, 16, UNIT, True, torch.optim.AdamW),
    "learning rate 1e-3": Work(papers, falling(7, 0.01), 1e-3, 200, 16, UNIT, True, torch.optim.AdamW),
    "T = 6, half the data": Work(
        papers, falling(6, 0.03), 3e-4, 200, 16, {**UNIT, "fraction": 0.5}, True, torch.optim.AdamW
    ),
    "32 blocks": Work(residual(32), deep(32, 0.3), 1e-2, 64, 1, {}, first=("r0", "r1", 1)),
    "128 blocks": Work(residual(128), deep(128, 0.5), 1e-2, 64, 1, {}, first=("r0", "r1", 1)),
    "convolutions": Work(
        convolutional,
        {
            "backprop": backprop,
            "errors, T = 5": local(5, steady(0.1, True), coordinates=Errors()),
            "PC-ALM, T = 10": local(10, steady(0.2, True), duals=Duals(0.5)),
        },
        1e-3, 128, 3, {},
    ),
}  # fmt: skip


def alignment(net: PCNetwork, learn: Learn, clamps: Clamps, edge: tuple[Any, ...]) -> tuple[float, float]:
    """Cosine of an edge's gradient to backpropagation's, and its size beside that."""
    weight, found = net.weight(*edge), []
    packed = next(p for p in net.weights.values() if p.shape[1:] == weight.shape)
    row = (weight.data_ptr() - packed.data_ptr()) // (weight.numel() * weight.element_size())
    for method in (learn, backprop()):
        net.zero_grad()
        method(net, clamps)
        found.append(packed.grad[row].flatten().clone())
    net.zero_grad()
    size = float(found[0].norm() / found[1].norm())
    return round(float(torch.nn.functional.cosine_similarity(*found, 0)), 3), float(f"{size:.2g}")


def train(work: str, method: str, seed: int, quick: bool) -> dict[str, Any]:
    """One run: the test accuracy after each epoch, in percent."""
    w = WORKS[work]
    name, settings = ("digits", {}) if quick else ("fashion-mnist", w.images)
    train_set = data.load(name, "train", **settings)
    test_set = data.load(name, "test", **{key: value for key, value in settings.items() if key != "fraction"})
    net = PCNetwork(w.graph(train_set.shape, quick), seed=seed)
    shape = (-1, *net.structure.shape("x"))
    optimizer, learn = w.optimizer(net.parameters(), lr=w.rate), w.methods[method]()
    batches = train_set.batches(50 if quick else w.batch, seed=seed, stream_aligned=w.aligned)
    found, outcome, moves, steps = [], "ok", 0, 0
    for _ in range(w.epochs):
        try:
            for x, y in batches:
                optimizer.zero_grad()
                result = learn(net, {"x": x.reshape(shape), "y": y})
                optimizer.step()
                if result is not None:
                    moves, steps = moves + result.moves, steps + result.plan.steps * len(result.free_nodes)
        except pcgraph.Diverged:
            outcome = "diverged"
            break
        right = net.predict({"x": test_set.images.reshape(shape)}, "y").argmax(1) == test_set.labels
        found.append(round(100 * float(right.float().mean()), 2))
        print(work, method, seed, found[-1], flush=True)
    cosine: Any = ""
    size: Any = ""
    if w.first and outcome == "ok":
        x, y = next(iter(train_set.batches(w.batch, shuffle=False)))
        cosine, size = alignment(net, learn, {"x": x.reshape(shape), "y": y}, w.first)
    return {
        "work": work, "method": method, "seed": seed, "images": len(train_set), "outcome": outcome,
        "accuracy": " ".join(map(str, found)), "moves": round(moves / steps, 3) if steps else "", "cosine": cosine,
        "size": size, "torch": torch.__version__,
    }  # fmt: skip


def table(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table, a method a line: means over the seeds, in the order of the works."""
    lines = [
        "| work | method | seeds | best epoch | last epoch | states moved | first block: cosine, size |",
        "|---|---|---|---|---|---|---|",
    ]
    for work, method in dict.fromkeys((r["work"], r["method"]) for r in rows):
        own = [r for r in rows if (r["work"], r["method"]) == (work, method)]
        curves = [[float(a) for a in r["accuracy"].split()] for r in own]
        best, last = (statistics.mean(pick(c) for c in curves) for pick in (max, lambda c: c[-1]))
        moves, cosine, size = (
            [float(r[key]) for r in own if r[key] != ""] for key in ("moves", "cosine", "size")
        )  # fmt: skip
        moved = f"{statistics.mean(moves):.2f}" if moves else "–"
        first = f"{statistics.mean(cosine):.2f}, {statistics.mean(size):.1e}" if cosine else "–"
        lines.append(f"| {work} | {method} | {len(own)} | {best:.2f} | {last:.2f} | {moved} | {first} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the table."""
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
    (args.out / "depth.md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
