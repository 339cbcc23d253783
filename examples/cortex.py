"""Which setting learns on which graph, and what feedback buys: the tables of docs/advice.md.

    python examples/cortex.py --out runs/cortex          # all rows; resumes where it was stopped
    python examples/cortex.py --quick                    # digits, small groups, one seed: a minute

The groups of a visual hierarchy (image, V1, V2, V4, IT, class) as a chain; with feedback and self-loops as terms of one
sum; and with feedback and self-loops as predictions of their own, slots, which is ``pcgraph.graphs.cortex``. And ten
groups that all predict each other. Each learns 6,000 images of Fashion-MNIST by the setting that ``pcgraph.advise``
gives, and by others. The cortex is then asked for the class of images whose lower half is unknown, and for an image of
each class, which another classifier judges. Every finished run is a row of ``cortex.csv``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx
import torch
from rows import accuracy, arguments, mean_and_range, run

import pcgraph
from pcgraph import SGD, Equilibrium, Errors, Following, Forward, Masked, PCNetwork, Zero, advise, data, graphs
from pcgraph.learning import Nudged

SIZES = {"image": 784, "V1": 128, "V2": 96, "V4": 64, "IT": 48, "class": 10}
WEIGHTS_RATE, BATCH = 1e-3, 100
Run = tuple[PCNetwork, data.Images, data.Images]


def chain(sizes: dict[str, int]) -> nx.DiGraph:
    """The groups one after the other."""
    return graphs.cortex(sizes, feedback=None, lateral=None)


def sums(sizes: dict[str, int]) -> nx.DiGraph:
    """Feedback and self-loops as terms of the one prediction that each group has."""
    graph = chain(sizes)
    names = list(graph)
    graph.add_edges_from(zip(names[1:], names))
    graph.add_edges_from((v, v) for v in names[1:-1])
    return graph


def among_areas(sizes: dict[str, int]) -> nx.DiGraph:
    """Feedback among the hidden groups alone, in sums: a cycle, and no way back from the class."""
    graph = chain(sizes)
    names = list(graph)[1:-1]
    graph.add_edges_from(zip(names[1:], names))
    return graph


def all_to_all(sizes: dict[str, int]) -> nx.DiGraph:
    """Groups without layers, each of which predicts all others; the image reaches each, and each the class."""
    groups, size = (10, 64) if len(sizes) == len(SIZES) else (4, 16)
    graph = graphs.fully_connected(dict.fromkeys(range(groups), size), activation="tanh")
    graph.add_node("image", shape=sizes["image"])
    graph.add_node("class", shape=sizes["class"])
    graph.add_edges_from(("image", v) for v in range(groups))
    graph.add_edges_from((v, "class") for v in range(groups))
    return graph


GRAPHS: dict[str, Callable[[dict[str, int]], nx.DiGraph]] = {
    "chain": chain, "feedback in slots": graphs.cortex, "feedback in sums": sums, "all to all": all_to_all,
    "feedback among hidden groups": among_areas,
}  # fmt: skip
STATES = {"steps": 20, "state_optimizer": SGD(lr=0.1)}
SWEEP = {"init": Forward(fallback=Zero()), **STATES}
FEW = {"init": Forward(fallback=Zero()), "steps": 50, "optimizer": SGD(lr=0.1)}
"""How those are asked that learn the leaking graph by another setting than the advised one."""
SETTINGS: dict[str, Callable[[PCNetwork, dict[str, Any]], dict[str, Any]]] = {
    "advise": lambda net, batch: advise(net, batch).fit,
    "states": lambda net, batch: SWEEP,
    "Equilibrium": lambda net, batch: {**STATES, "init": Equilibrium(release="class", steps=30)},
    "hybrid coordinates": lambda net, batch: {
        "init": Equilibrium(release="class", steps=30),
        "steps": 5,
        "state_optimizer": SGD(lr=Following(0.05)),
        "coordinates": Errors(keep="repair"),
    },
    "Nudged(0.5), 20 steps": lambda net, batch: {
        **SWEEP,
        "state_optimizer": SGD(lr=Following(0.1)),
        "rule": Nudged(strength=0.5),
    },
}
EPOCHS = {"all to all": 12}
"""Ten, but for the graph that settles before every batch."""
RATES = {"all to all": 3e-3}
"""Of the weights, where it is not `WEIGHTS_RATE`: the best of four, 5e-4 to 3e-3, on 1,000 images held out."""
RUNS = [
    *((graph, "advise") for graph in GRAPHS),
    *((graph, "states") for graph in GRAPHS),
    ("feedback in sums", "Equilibrium"),
    ("feedback in sums", "Nudged(0.5), 20 steps"),
    ("feedback among hidden groups", "Equilibrium"),
    ("feedback among hidden groups", "hybrid coordinates"),
]


def train(graph: str, setting: str, seed: int, sets: tuple[data.Images, data.Images], quick: bool) -> PCNetwork:
    """Learn, with a rate of the weights that falls to zero along a cosine."""
    train_set, _ = sets
    sizes = SIZES if not quick else {"image": 64, "V1": 32, "V2": 16, "class": 10}
    net = PCNetwork(GRAPHS[graph](sizes), seed=seed)
    epochs = 3 if quick else EPOCHS.get(graph, 10)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5 * WEIGHTS_RATE if quick else RATES.get(graph, WEIGHTS_RATE))
    batches = train_set.batches(BATCH, seed=seed)
    first = dict(zip(("image", "class"), next(iter(train_set.batches(BATCH, seed=seed)))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pcgraph.errors.PCGraphWarning)
        pcgraph.fit(
            net, batches, clamp=("image", "class"), predict="class", optimizer=optimizer, epochs=epochs, progress=False,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs), **SETTINGS[setting](net, first),
        )  # fmt: skip
    return net


def recognised(net: PCNetwork, images: data.Images, how: dict[str, Any] | None = None) -> float:
    """The accuracy where nothing but the image is known: by what is advised, or by other inference."""
    how = advise(net, ["image", "class"]).predict if how is None else how
    answers = [net.predict({"image": x}, "class", **how) for x, _ in images.batches(500, shuffle=False)]
    return accuracy(torch.cat(answers), images.labels)


def occluded(net: PCNetwork, sets: tuple[data.Images, data.Images]) -> dict[str, float]:
    """The lower half is unknown: filled with the mean image and swept; and free, filled in by inference."""
    train_set, images = sets
    mask = torch.arange(images.images.shape[1]) < images.images.shape[1] // 2
    filled = torch.where(mask, images.images, train_set.images.mean(0))
    found = {"half, mean": accuracy(net.predict({"image": filled}, "class"), images.labels)}
    if any(slots for _, slots in net.graph.nodes(data="slots")):
        clamps = {"image": Masked(images.images, mask), "class": torch.eye(10)[images.labels]}
        how = advise(net, clamps, predict="class").predict
        answers = [
            net.predict({"image": Masked(x, mask)}, "class", **how) for x, _ in images.batches(500, shuffle=False)
        ]
        found["half, inferred"] = accuracy(torch.cat(answers), images.labels)
    return found


def generated(net: PCNetwork, judge: torch.nn.Module) -> float:
    """The part of the ten classes whose image, inferred from the class alone, is recognised by the judge."""
    result = net.infer({"class": torch.eye(10)}, init=Forward(roots=Zero()), steps=200, optimizer=pcgraph.LBFGS())
    images = result.states["image"]
    return accuracy(judge(images.clamp(0, 1)), torch.arange(10))


def judging(images: data.Images, seed: int) -> torch.nn.Module:
    """A classifier of another kind, trained by backpropagation on all images."""
    torch.manual_seed(seed)
    judge = torch.nn.Sequential(
        torch.nn.Linear(images.images.shape[1], 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
    )  # fmt: skip
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
    for epoch in range(4):
        for x, y in images.batches(100, seed=epoch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(judge(x), y).backward()
            optimizer.step()
    return judge


def row(graph: str, setting: str, seed: int, args: argparse.Namespace, sets: Any, judge: torch.nn.Module) -> dict:
    """One run, and all that is asked of it."""
    begun = time.perf_counter()
    net = train(graph, setting, seed, sets, args.quick)
    how = FEW if graph == "feedback in sums" and setting != "advise" else None
    found: dict[str, Any] = {"graph": graph, "setting": setting, "seed": seed, "clean": recognised(net, sets[1], how)}
    if graph == "chain" or (graph == "feedback in slots" and setting == "advise"):
        found |= occluded(net, sets)
    if graph == "feedback in slots" and setting == "advise":
        found["generated"] = generated(net, judge)
    return {**found, "seconds": round(time.perf_counter() - begun, 1), "torch": torch.__version__}


def table(rows: Sequence[dict]) -> str:
    """The rows as a Markdown table, a graph and a setting a line: means over the seeds."""
    shown = ("clean", "half, mean", "half, inferred", "generated")
    lines = [
        "| graph | setting | seeds | image known | lower half: the mean | lower half: inferred | image from class |",
        "|---|---|---|---|---|---|---|",
    ]
    for graph, setting in dict.fromkeys((r["graph"], r["setting"]) for r in rows):
        some = [r for r in rows if (r["graph"], r["setting"]) == (graph, setting)]
        cells = (graph, setting, str(len(some)), *(mean_and_range(some, column) for column in shown))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the table."""
    args = arguments(
        __doc__, "cortex", graphs={"nargs": "+", "choices": GRAPHS, "default": list(GRAPHS)}, settings={"nargs": "+"}
    )
    name, part = ("digits", 1.0) if args.quick else ("fashion-mnist", 0.1)
    sets = data.load(name, fraction=part), data.load(name, "test", fraction=part)
    judge = judging(data.load(name), 0)
    wanted = [
        {"graph": graph, "setting": setting, "seed": seed}
        for graph, setting in RUNS for seed in args.seeds
        if graph in args.graphs and setting in (args.settings or [setting])
    ]  # fmt: skip
    run(args, "cortex", wanted, lambda graph, setting, seed: row(graph, setting, seed, args, sets, judge), table)


if __name__ == "__main__":
    main()
