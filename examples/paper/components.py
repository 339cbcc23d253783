"""Many small trainings at once are one graph: seeds and settings as disjoint components, batched by the engine.

    python examples/paper/components.py --full
    python examples/paper/components.py --quick          # narrow networks, for the tests

Components that no edge joins do not feel each other, so that one graph of K chains trains K networks. Each has its own
weights, its own order of the data and its own state rate; its nodes may have activations of their own. What they share
is the number of steps, the initializer and the optimizer of the weights with its learning rate, since the weights of
all components lie in the same few tensors.

The speed is measured step against step, one after the other and together in turn, on the same batches: the median over
the steps of each, the first two not counted. The agreement is measured in float64 after five updates: one batched
product and many single ones may round differently. Measure on an idle machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import torch
from common import Store, arguments, save, table, versions
from torch import Tensor

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, data
from pcgraph.drawing.style import SMALL, look
from pcgraph.initializers import Initializer

Batch = tuple[Tensor, Tensor]


@dataclass
class Training:
    """A network with all that a step of its training needs."""

    net: PCNetwork
    init: Initializer
    weights: torch.optim.Optimizer
    states: SGD
    steps: int

    @classmethod
    def of(cls, net: PCNetwork, states: SGD, steps: int, lr: float) -> Training:
        """With forward initialization, and AdamW on the weights."""
        return cls(net, Forward(), torch.optim.AdamW(net.parameters(), lr=lr), states, steps)

    def step(self, clamps: Mapping[Hashable, Tensor]) -> None:
        """One step of training."""
        self.weights.zero_grad()
        found = self.net.infer(clamps, init=self.init, steps=self.steps, optimizer=self.states)
        found.backward()
        self.weights.step()


def join(nets: Sequence[PCNetwork]) -> PCNetwork:
    """One network whose components are copies of `nets`: node v of the k-th is (k, v)."""
    parts = [nx.relabel_nodes(net.graph, {v: (k, v) for v in net.graph}) for k, net in enumerate(nets)]
    joined = PCNetwork(nx.union_all(parts), dtype=nets[0].dtype, device=nets[0].device)
    with torch.no_grad():
        for k, net in enumerate(nets):
            for u, v in net.graph.edges:
                joined.weight((k, u), (k, v)).copy_(net.weight(u, v))
            for v in net.graph:
                if net.graph.in_degree(v):
                    joined.bias((k, v)).copy_(net.bias(v))
    return joined


def clamps_of(batches: Sequence[Batch]) -> dict[Hashable, Tensor]:
    """The clamps of all components, from the batch of each."""
    return {(k, name): value for k, batch in enumerate(batches) for name, value in zip("xy", batch, strict=True)}


def difference(joined: PCNetwork, nets: Sequence[PCNetwork]) -> float:
    """The largest difference between a weight of a component and that of the network by itself."""
    edges = ((k, net, u, v) for k, net in enumerate(nets) for u, v in net.graph.edges)
    return max(float((joined.weight((k, u), (k, v)) - net.weight(u, v)).abs().max()) for k, net, u, v in edges)


@dataclass(frozen=True)
class Work:
    """One row: a data set, the width of three hidden groups, how many networks, and the training of each."""

    task: str
    width: int
    nets: int
    batch: int
    updates: int
    steps: int = 5
    lr: float = 1e-3
    alpha: float = 0.05

    def begin(self, dtype: torch.dtype) -> tuple[list[Training], Training, list[list[Batch]]]:
        """The trainings one by one, the same as one graph, and the batches of each update."""
        images = data.load(self.task, dtype=dtype)
        sizes = [images.shape[0], self.width, self.width, self.width, 10]
        graph = pcgraph.graphs.chain(sizes, activation="relu")
        nets = [PCNetwork(graph, seed=k, dtype=dtype) for k in range(self.nets)]
        alone = [Training.of(net, SGD(lr=self.alpha), self.steps, self.lr) for net in nets]
        together = Training.of(join(nets), SGD(lr=self.alpha), self.steps, self.lr)
        orders = [iter(images.batches(self.batch, seed=k)) for k in range(self.nets)]
        return alone, together, [[next(order) for order in orders] for _ in range(self.updates)]


def seconds(work: Work) -> tuple[float, float]:
    """Median seconds of an update of all networks: one after the other, and together; the first two are not counted."""
    alone, together, updates = work.begin(torch.float32)
    taken: tuple[list[float], list[float]] = ([], [])
    for batches in updates:
        begun = time.perf_counter()
        for training, (x, y) in zip(alone, batches, strict=True):
            training.step({"x": x, "y": y})
        between = time.perf_counter()
        together.step(clamps_of(batches))
        taken[0].append(between - begun)
        taken[1].append(time.perf_counter() - between)
    return statistics.median(taken[0][2:]), statistics.median(taken[1][2:])


def agreement(work: Work) -> float:
    """The largest difference of a weight after all updates, in float64."""
    alone, together, updates = work.begin(torch.float64)
    for batches in updates:
        for training, (x, y) in zip(alone, batches, strict=True):
            training.step({"x": x, "y": y})
        together.step(clamps_of(batches))
    return difference(together.net, [training.net for training in alone])


def measured(work: Work) -> dict[str, object]:
    """One row: seconds of an update of all networks, and how far the components are from the networks alone."""
    alone, together = seconds(work)
    few = replace(work, updates=min(work.updates, 5))
    return {
        "task": work.task, "width": work.width, "nets": work.nets, "batch": work.batch, "steps": work.steps,
        "updates": work.updates, "ms_alone": f"{1e3 * alone:.2f}", "ms_together": f"{1e3 * together:.2f}",
        "faster": f"{alone / together:.2f}", "difference": f"{agreement(few):.1e}", "agreement_updates": few.updates,
    }  # fmt: skip


# -- a small search as one graph --------------------------------------------------------------------------------------


def search(epochs: int, seeds: int, rates: Sequence[float], activations: Sequence[str], width: int = 32) -> list[dict]:
    """Seeds, state rates and activations on digits, trained one after the other and as one graph.

    A row for each: its test accuracy both ways, the seconds of all both ways, and the largest difference of a weight.
    """
    train, test = data.load("digits"), data.load("digits", "test")
    grid = [(seed, rate, sigma) for seed in range(seeds) for rate in rates for sigma in activations]
    nets = [
        PCNetwork(pcgraph.graphs.chain([64, width, width, 10], activation=sigma), seed=seed) for seed, _, sigma in grid
    ]
    rate_of = {(k, v): rate for k, (_, rate, _) in enumerate(grid) for v in nets[k].graph}
    joined = Training.of(join(nets), SGD(lr=rate_of), 5, 3e-3)
    begun = time.perf_counter()
    for net, (seed, rate, _) in zip(nets, grid, strict=True):
        alone, batches = Training.of(net, SGD(lr=rate), 5, 3e-3), train.batches(50, seed=seed, drop_last=True)
        for _ in range(epochs):
            for x, y in batches:
                alone.step({"x": x, "y": y})
    between = time.perf_counter()
    orders = {seed: train.batches(50, seed=seed, drop_last=True) for seed in range(seeds)}
    for _ in range(epochs):
        for batches_of in zip(*orders.values(), strict=True):
            by_seed = dict(zip(orders, batches_of, strict=True))
            joined.step(clamps_of([by_seed[seed] for seed, _, _ in grid]))
    taken = between - begun, time.perf_counter() - between
    everywhere = {(k, "x"): test.images for k in range(len(grid))}
    apart = f"{difference(joined.net, nets):.1e}"
    return [
        {
            "seed": seed, "alpha": rate, "activation": sigma,
            "accuracy_alone": f"{accuracy(net.predict({'x': test.images}, 'y'), test):.2f}",
            "accuracy_together": f"{accuracy(joined.net.predict(everywhere, (k, 'y')), test):.2f}",
            "seconds_alone": f"{taken[0]:.2f}", "seconds_together": f"{taken[1]:.2f}", "difference": apart,
            "epochs": epochs, "width": width,
        }
        for k, (net, (seed, rate, sigma)) in enumerate(zip(nets, grid, strict=True))
    ]  # fmt: skip


def accuracy(predictions: Tensor, images: data.Images) -> float:
    """In percent."""
    return 100 * float((predictions.argmax(1) == images.labels).float().mean())


# -- the tables and the picture ---------------------------------------------------------------------------------------


FULL = tuple(
    Work(task, width, nets, batch, updates)
    for task, width, batch, updates, counts in (
        ("digits", 8, 50, 25, (3, 12, 48)), ("digits", 32, 50, 25, (3, 12, 48)), ("digits", 128, 50, 25, (3, 12)),
        ("fashion-mnist", 32, 200, 20, (3, 12)), ("fashion-mnist", 128, 200, 12, (3, 12)),
        ("fashion-mnist", 512, 200, 8, (3,)),
    )
    for nets in counts
)  # fmt: skip
QUICK = (Work("digits", 8, 3, 50, 6), Work("digits", 32, 6, 50, 6))


def speed_table(rows: list[dict[str, str]]) -> str:
    """Milliseconds of an update of all networks, and how far the components are from the networks alone."""
    header = [
        "data", "hidden width", "batch", "networks", "one after the other", "one graph", "faster by",
        "largest difference of a weight",
    ]  # fmt: skip
    return table(header, (
        [r["task"], r["width"], r["batch"], r["nets"], f"{r['ms_alone']} ms", f"{r['ms_together']} ms",
         f"{r['faster']} ×", r["difference"]]
        for r in rows
    ))  # fmt: skip


def search_table(rows: list[dict[str, str]]) -> str:
    """The small search both ways."""
    same = sum(r["accuracy_alone"] == r["accuracy_together"] for r in rows)
    gap = max(abs(float(r["accuracy_alone"]) - float(r["accuracy_together"])) for r in rows)
    best = max(rows, key=lambda r: float(r["accuracy_alone"]))
    header = ["", "one after the other", "one graph"]
    return table(header, [
        [f"seconds, {len(rows)} networks, {best['epochs']} epochs", best["seconds_alone"], best["seconds_together"]],
        [f"test accuracy (%) of {best['activation']}, α = {best['alpha']}, seed {best['seed']}",
         best["accuracy_alone"], best["accuracy_together"]],
        ["networks with the same test accuracy", "", f"{same} of {len(rows)}"],
        ["largest difference of a test accuracy", "", f"{gap:.2f}"],
    ])  # fmt: skip


def draw(path: Path, rows: list[dict[str, str]]) -> None:
    """How much faster one graph is, over the number of networks."""
    figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for i, (task, width) in enumerate(dict.fromkeys((r["task"], r["width"]) for r in rows)):
        found = [r for r in rows if (r["task"], r["width"]) == (task, width)]
        ax.plot([int(r["nets"]) for r in found], [float(r["faster"]) for r in found], ms=5, **look(i), alpha=0.9,
                label=f"{task}, width {width}")  # fmt: skip
    ax.axhline(1, color="0.5", lw=0.8)
    ax.set(xlabel="networks", ylabel="faster than one after the other", xscale="log", yscale="log")
    counts = sorted({int(r["nets"]) for r in rows})
    ax.set_xticks(counts, [str(n) for n in counts])
    top = max(float(r["faster"]) for r in rows)
    ticks = [t for t in (0.5, 1, 2, 4, 8, 16, 32) if t <= 2 * top]
    ax.set_yticks(ticks, [f"{t:g}×" for t in ticks])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=SMALL)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measure what is missing, write the tables and the picture."""
    args = arguments(__doc__, "components")
    where = versions() | {"threads": torch.get_num_threads()}
    speeds = Store(args.out / "components_speed.csv", ["task", "width", "nets", "batch"])
    for work in QUICK if args.quick else FULL:
        if not speeds.find(task=work.task, width=work.width, nets=work.nets, batch=work.batch):
            begun = time.perf_counter()
            row = measured(work)
            speeds.add(row | {"wall": f"{time.perf_counter() - begun:.1f}"} | where)
    searched = Store(args.out / "components_search.csv", ["seed", "alpha", "activation"])
    if not searched.rows:
        rows = search(2 if args.quick else 10, len(args.seeds), (0.01, 0.05, 0.1), ("relu", "tanh"))
        searched.add(*(row | where for row in rows))
    save(args.out, "components_speed", speed_table(speeds.rows), speeds.rows)
    save(args.out, "components_search", search_table(searched.rows), searched.rows)
    draw(args.out / "components.png", speeds.rows)


if __name__ == "__main__":
    main()
