"""Where plain predictive coding falls behind, and what helps: deep residual nets, a convolutional net, late collapses.

    python examples/depth.py --out runs/depth                       # the table of docs/depth.md; resumes where it ended
    python examples/depth.py --out runs/depth --works "32 blocks"   # some of them
    python examples/depth.py --quick                                # digits, small networks, one seed: seconds

Every finished run is a row of ``depth.csv``: what was trained, how, and the accuracy on unseen images after each epoch.
All methods of one work have the same network, batches and optimizer of the weights.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import networkx as nx
import torch
from rows import arguments, run, swept_accuracy
from rows import learn as learn_epochs
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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
    validation: int = 0
    """Images that are kept from training, on which epochs and methods are chosen."""
    averaged: float = 0.0
    """How much of the running average of the weights stays in a step; 0 for none."""
    cosine: bool = False
    """The rate of the weights rises in the first epoch and falls to zero in the last, instead of staying."""


class Local(NamedTuple):
    """Inference from a forward sweep, or from `init`, and local gradients."""

    steps: int
    optimizer: SGD
    init: Any
    settings: dict[str, Any]
    restored: bool = False
    """Whether gradients are brought to backpropagation's size where errors have gone a known part of their way."""

    def __call__(self, net: PCNetwork, clamps: Clamps) -> InferenceResult:
        result = net.infer(clamps, init=self.init, steps=self.steps, optimizer=self.optimizer, **self.settings)
        result.backward()
        if self.restored:
            self._restore(net)
        return result

    def _restore(self, net: PCNetwork) -> None:
        """Divide by the part of its way that a free error has gone; that of the target is there from the beginning."""
        part = 1 - (1 - self.optimizer.lr.rate) ** self.steps
        for parameter in net.parameters():
            parameter.grad.div_(part)
        for u, v in net.graph.in_edges("y"):
            net.edge(u, v).grad.mul_(part)
        if net.graph.nodes["y"].get("bias", True):
            net.node("y").grad.mul_(part)

    @property
    def reach(self) -> float | None:
        """How much of its stiffest way inference goes, by the curvature that the rate has followed."""
        rate = self.optimizer.lr
        if not isinstance(rate, Following) or rate.curvature is None:
            return None
        return round(1 - (1 - rate.rate * rate.curvature) ** self.steps, 3)


def local(
    steps: int, optimizer: Callable[[], SGD], init: Any = Forward, restored: bool = False, **settings: Any
) -> Callable[[], Learn]:
    """How to make one."""
    return lambda: Local(steps, optimizer(), init(), settings, restored)


def near(steps: int, product: float) -> Callable[[], Learn]:
    """Error coordinates that go a small way: the rate times the curvature stays at this product.

    What comes back is a known part of backpropagation's gradients, and is brought to their size: Adam's eps makes a
    difference between small and large.
    """
    return local(steps, lambda: SGD(lr=Following(at_most=1.0, cap=product)), restored=True, coordinates=Errors())


def matched(steps: int, rate: float) -> Callable[[], Learn]:
    """States and duals whose rates fit each other: each node hands on in its first step what has arrived, and stops.

    The step moves the state by rate times what arrives, s, so that its residual is that and its dual (1 / rate - 1)
    times that: with the precision 1 they send on s, neither less nor more. A stop well above 1 / dual ends it there.
    """
    dual = 1 / rate - 1
    return local(steps, steady(rate, False), duals=Duals(dual, stop=0.5))


def backprop() -> Learn:
    """The baseline, on the same graph."""

    def learn(net: PCNetwork, clamps: Clamps) -> None:
        learning.backprop(net, {"x": clamps["x"]}, {"y": clamps["y"]})

    return learn


def papers(shape: tuple[int, ...], quick: bool, activation: str = "relu") -> nx.DiGraph:
    """The paper's classifier."""
    return graphs.chain([shape[0], *[64 if quick else 512] * 4, 10], activation=activation)


def leaky(shape: tuple[int, ...], quick: bool) -> nx.DiGraph:
    """The same with the activation that Average was given by validation."""
    return papers(shape, quick, "leaky_relu")


def by_class() -> Average:
    """The paper's initializer, with its first three maps swept."""
    return Average(by="y", forward_depth=3)


def steady(rate: float, follow: bool) -> Callable[[], SGD]:
    """Descent at this rate, or below it where the curvature asks for that."""
    return lambda: SGD(lr=Following(at_most=rate) if follow else rate)


def falling(steps: int, rate: float) -> dict[str, Callable[[], Learn]]:
    """A setting that falls over with a constant rate, and what helps: a rate that follows, small penalties."""
    return {
        "backprop": backprop,
        "constant rate": local(steps, steady(rate, False), by_class),
        "following rate": local(steps, steady(rate, True), by_class),
        "following rate up to 0.05, penalties of 0.4": local(
            steps, steady(0.05, True), by_class, precision={f"h{i}": 0.4 for i in range(1, 5)}
        ),
    }


def rivals() -> dict[str, Callable[[], Learn]]:
    """What backpropagation, error coordinates and the paper's initializer make of the same schedule."""
    return {
        "backprop": backprop,
        "errors, T = 5": local(5, steady(0.005, True), coordinates=Errors()),
        "errors, T = 5, up to 0.001": local(5, steady(0.001, True), coordinates=Errors()),
        "errors, T = 5, f = 0.1": near(5, 0.02),
        "errors, T = 5, f = 0.01": near(5, 0.002),
        "Average, T = 7": local(7, steady(0.01, True), by_class),
        "Average, T = 7, up to 0.03": local(7, steady(0.03, True), by_class),
    }


def residual(blocks: int, penalty: float = 1.0) -> Callable[[tuple[int, ...], bool], nx.DiGraph]:
    """A residual net of width 32 with muPC's factors, one map a block; `penalty` is the precision of what is free."""

    def make(shape: tuple[int, ...], quick: bool) -> nx.DiGraph:
        count = 8 if quick else blocks
        graph = scaling.mupc(graphs.residual(shape[0], 32, 10, blocks=count, inner=0, activation="relu"))
        for v in graph.nodes - {"x", "y"}:
            graph.nodes[v]["precision"] = penalty
        return graph

    return make


def deep(blocks: int, rate: float) -> dict[str, Callable[[], Learn]]:
    """Twice as many steps as there are blocks, by states alone and with duals."""
    steps = 2 * blocks
    return {
        "backprop": backprop,
        "states": local(steps, steady(0.3, False)),
        "errors, T = 5, f = 0.01": near(5, 0.002),
        "PC-ALM": local(steps, steady(0.3, False), duals=Duals(rate)),
        "PC-ALM, nodes stop": local(steps, steady(0.3, False), duals=Duals(rate, stop=0.1)),
        "PC-ALM, duals at 0.5, nodes stop": local(steps, steady(0.3, False), duals=Duals(0.5, stop=0.1)),
        "PC-ALM, a step a node": matched(blocks + 1, 0.1),
    }


def yielding(blocks: int) -> dict[str, Callable[[], Learn]]:
    """Duals with slower states: what arrives first at a block points most nearly the right way.

    The gradients of early blocks are then a ten-thousandth of backpropagation's, which Adam's eps must not outweigh.
    """
    duals = Duals(0.8, stop=0.1)
    return {"backprop": backprop, "PC-ALM, nodes stop": local(2 * blocks, steady(0.2, False), duals=duals)}


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
    "state rate 0.05": Work(papers, falling(7, 0.05), 3e-4, 200, 16, UNIT, True, torch.optim.AdamW, averaged=0.999),
    "learning rate 1e-3": Work(
        papers,
        {**falling(7, 0.01), "following rate up to 0.05": local(7, steady(0.05, True), by_class)},
        1e-3, 200, 16, UNIT, True, torch.optim.AdamW, averaged=0.999,
    ),
    "T = 6, half the data": Work(
        papers, falling(6, 0.03), 3e-4, 200, 16, {**UNIT, "fraction": 0.5}, True, torch.optim.AdamW, averaged=0.998
    ),
    "constant rates": Work(
        leaky, rivals(), 3e-4, 200, 16, UNIT, True, torch.optim.AdamW, validation=2000, averaged=0.999
    ),
    "cosine from 5e-4": Work(leaky, rivals(), 5e-4, 200, 16, UNIT, True, torch.optim.AdamW, cosine=True),
    "32 blocks": Work(residual(32), deep(32, 0.3), 1e-2, 64, 1, {}, first=("r0", "r1", 1)),
    "32 blocks, penalties of 0.25, eps of 1e-10": Work(
        residual(32, 0.25), yielding(32), 1e-2, 64, 1, {}, optimizer=partial(torch.optim.Adam, eps=1e-10),
        first=("r0", "r1", 1),
    ),
    "128 blocks": Work(residual(128), deep(128, 0.5), 1e-2, 64, 1, {}, first=("r0", "r1", 1)),
    "convolutions": Work(
        convolutional,
        {
            "backprop": backprop,
            "errors, T = 5": local(5, steady(0.01, True), coordinates=Errors()),
            "errors, T = 5, up to 0.001": local(5, steady(0.001, True), coordinates=Errors()),
            "errors, T = 5, up to 0.1": local(5, steady(0.1, True), coordinates=Errors()),
            "PC-ALM, T = 10": local(10, steady(0.05, True), duals=Duals(1.0)),
            "PC-ALM, T = 10, up to 0.2": local(10, steady(0.2, True), duals=Duals(0.5)),
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


def train(work: str, method: str, seed: int, quick: bool) -> list[dict[str, Any]]:
    """One run, a row, and a row more for the average of its weights: accuracy after each epoch, in percent."""
    w = WORKS[work]
    name, settings = ("digits", {}) if quick else ("fashion-mnist", w.images)
    train_set, held = data.load(name, "train", **settings), None
    test_set = data.load(name, "test", **{key: value for key, value in settings.items() if key != "fraction"})
    if w.validation:
        train_set, held = train_set.split(200 if quick else w.validation, seed=0)
    net = PCNetwork(w.graph(train_set.shape, quick), seed=seed)
    learn = w.methods[method]()
    optimizer = w.optimizer(net.parameters(), lr=w.rate)
    batches = train_set.batches(50 if quick else w.batch, seed=seed, stream_aligned=w.aligned)
    epochs = 1 if quick else w.epochs
    nets = {method: net}
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(w.averaged)) if w.averaged else None
    if average is not None:
        nets[f"{method}, weights averaged"] = average.module
    warm, whole = len(batches), len(batches) * epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: min(1, (k + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1, k / whole))) if w.cosine else 1.0,
    )
    found: dict[str, dict[str, list[float]]] = {name: {"validation": [], "accuracy": []} for name in nets}
    moves, steps = 0, 0

    def update(clamps: Clamps) -> None:
        nonlocal moves, steps
        result = learn(net, clamps)
        if result is not None:
            moves, steps = moves + result.moves, steps + result.plan.steps * len(result.free_nodes)

    def stepped() -> None:
        scheduler.step()
        if average is not None:
            average.update_parameters(net)

    def measure() -> None:
        for name, one in nets.items():
            found[name]["accuracy"].append(swept_accuracy(one, test_set))
            if held is not None:
                found[name]["validation"].append(swept_accuracy(one, held))
            print(work, name, seed, {k: v[-1:] for k, v in found[name].items()}, flush=True)

    outcome = learn_epochs(net, batches, update, optimizer, epochs, stepped, measure)
    reach = learn.reach if isinstance(learn, Local) and learn.reach is not None else ""
    cosine: Any = ""
    size: Any = ""
    if w.first and outcome == "ok":
        x, y = next(iter(train_set.batches(w.batch, shuffle=False)))
        cosine, size = alignment(net, learn, {"x": x, "y": y}, w.first)
    return [
        {
            "work": work, "method": name, "seed": seed, "images": len(train_set), "outcome": outcome,
            **{k: " ".join(map(str, curve)) for k, curve in found[name].items()},
            "moves": round(moves / steps, 3) if steps else "", "cosine": cosine, "size": size, "reach": reach,
            "torch": torch.__version__,
        }
        for name in nets
    ]  # fmt: skip


def curve(row: dict, column: str = "accuracy") -> list[float]:
    """The accuracies after the epochs."""
    return [float(a) for a in (row.get(column) or "").split()]


def chosen(row: dict) -> float | None:
    """The test accuracy after the epoch that is best on validation images; None where there are none."""
    held = curve(row, "validation")
    return curve(row)[held.index(max(held))] if held else None


def table(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table, a method a line: means over the seeds, in the order of the works."""
    lines = [
        "| work | method | seeds | best epoch | by validation | last epoch | moved | f | first block |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    works = list(WORKS)
    names = dict.fromkeys((r["work"], r["method"]) for r in rows)
    for work, method in sorted(names, key=lambda name: works.index(name[0])):
        own = [r for r in rows if (r["work"], r["method"]) == (work, method)]
        best, last = (statistics.mean(pick(curve(r)) for r in own) for pick in (max, lambda c: c[-1]))
        held = [a for r in own if (a := chosen(r)) is not None]
        moves, reach, cosine, size = (
            [float(r[key]) for r in own if r.get(key)] for key in ("moves", "reach", "cosine", "size")
        )  # fmt: skip
        cells = (
            work, method, len(own), f"{best:.2f}", f"{statistics.mean(held):.2f}" if held else "–", f"{last:.2f}",
            f"{statistics.mean(moves):.2f}" if moves else "–", f"{statistics.mean(reach):.2f}" if reach else "–",
            f"{statistics.mean(cosine):.2f}, {statistics.mean(size):.1e}" if cosine else "–",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the table."""
    args = arguments(
        __doc__, "depth", works={"nargs": "+", "choices": WORKS, "default": list(WORKS)}, methods={"nargs": "+"},
    )  # fmt: skip
    wanted = [
        {"work": work, "method": method, "seed": seed}
        for work in args.works for seed in args.seeds for method in WORKS[work].methods
        if method in (args.methods or [method])
    ]  # fmt: skip
    run(args, "depth", wanted, lambda work, method, seed: train(work, method, seed, args.quick), table)


if __name__ == "__main__":
    main()
