"""Ten thousand neurons in assemblies learn digits: what sparsity and recurrence do to accuracy and cost.

Run ``python examples/assemblies.py [--quick] [--out FOLDER]``; it takes some ten minutes on one core.

Every neuron is a node of its own. Five assemblies are drawn as a stochastic block model; each neuron of the first sees
eight random pixels, and the ten class neurons see the whole last one. How recurrent the network is depends on which of
the drawn edges are kept: those from one assembly to a later one ("none"), also those within an assembly ("within"), or
all of them ("feedback"). pcgraph computes all these edges as one sparse matrix.
"""

import argparse
import csv
import time
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import torch
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

import pcgraph
from pcgraph import data
from pcgraph.drawing import style

ASSEMBLIES, PIXELS_SEEN, WITHIN = 5, 8, 4  # inside an assembly edges are four times as likely as from one to another
PIXELS, CLASSES = [("pixel", i) for i in range(64)], [("class", i) for i in range(10)]
BETWEEN = (0.0003, 0.001, 0.003)
KEPT = {"none": 1, "within": 0, "feedback": -ASSEMBLIES}  # the least number of assemblies that an edge leads onwards
INIT = pcgraph.Forward(roots=pcgraph.Zero(), fallback=pcgraph.Zero())  # sweeps what it can; the rest starts at zero
STATES = pcgraph.SGD(lr=0.2)


def declare(neurons: int, between: float, recurrence: str, seed: int) -> nx.DiGraph:
    """A network of so many neurons, pixels and classes included."""
    share, rest = divmod(neurons - len(PIXELS) - len(CLASSES), ASSEMBLIES)
    sizes = [share] * (ASSEMBLIES - 1) + [share + rest]
    graph = pcgraph.graphs.assemblies(sizes, WITHIN * between, between, seed=seed, activation="tanh")
    block = dict(graph.nodes(data="block"))
    graph.remove_edges_from([(u, v) for u, v in graph.edges if block[v] - block[u] < KEPT[recurrence]])
    graph.add_nodes_from(PIXELS + CLASSES, shape=1)
    rng = np.random.default_rng(seed)
    for v in block:
        if block[v] == 0:
            graph.add_edges_from((PIXELS[i], v) for i in rng.choice(64, PIXELS_SEEN, replace=False))
        if block[v] == ASSEMBLIES - 1:
            graph.add_edges_from((v, c) for c in CLASSES)
    return graph


def clamp(nodes: list, values: Tensor) -> dict:
    """A column of values for each of these neurons."""
    return dict(zip(nodes, values.split(1, dim=1)))


def accuracy(net: pcgraph.PCNetwork, images: data.Images, steps: int) -> float:
    result = net.infer(clamp(PIXELS, images.images), init=INIT, steps=steps, optimizer=STATES)
    answers = torch.cat([result.states[c] for c in CLASSES], 1).argmax(1)
    return 100 * (answers == images.labels).float().mean().item()


def train(graph: nx.DiGraph, seed: int, epochs: int) -> dict:
    """Train on digits; what it cost and how good it is."""
    seen, unseen = data.load("digits"), data.load("digits", "test")
    net = pcgraph.PCNetwork(graph, seed=seed)
    weights = torch.optim.AdamW(net.parameters(), lr=5e-4)
    batches, begun = seen.batches(50, seed=seed), time.perf_counter()
    for _ in range(epochs):
        for x, y in batches:
            weights.zero_grad()
            clamps = clamp(PIXELS, x) | clamp(CLASSES, y)
            net.infer(clamps, init=INIT, steps=10, optimizer=STATES).backward()
            weights.step()
    seconds = (time.perf_counter() - begun) / epochs
    plan = net.plan({*PIXELS, *CLASSES}, init=INIT, steps=10)
    settled = 0 if nx.is_directed_acyclic_graph(graph) else 20  # without cycles the sweep is the answer
    return {
        "accuracy": round(accuracy(net, unseen, steps=settled), 2),
        "mflop": round(plan.flops(batch=1) / 1e6, 2),
        "seconds_an_epoch": round(seconds, 2),
    }


def table(rows: list[dict]) -> str:
    """Means over the seeds as Markdown."""
    lines = [
        "| between assemblies | recurrence | edges | accuracy (%) | MFLOP a sample | seconds an epoch |",
        "|---|---|---|---|---|---|",
    ]
    for between, recurrence in dict.fromkeys((float(row["between"]), row["recurrence"]) for row in rows):
        found = [row for row in rows if (float(row["between"]), row["recurrence"]) == (between, recurrence)]
        edges, mflop, seconds = (
            sum(float(row[key]) for row in found) / len(found) for key in ("edges", "mflop", "seconds_an_epoch")
        )
        right = [float(row["accuracy"]) for row in found]
        shown = f"{sum(right) / len(right):.1f} ({min(right):.1f} to {max(right):.1f})"
        lines.append(f"| {between:.2%} | {recurrence} | {edges:,.0f} | {shown} | {mflop:.1f} | {seconds:.1f} |")
    return "\n".join(lines)


def picture(graph: nx.DiGraph, rows: list[dict], path: Path) -> None:
    """Which neuron predicts which, in a small network of the same kind; and accuracy and cost over the edges."""
    figure, axes = plt.subplot_mosaic("mr;mc", figsize=(9, 6.4), width_ratios=(5, 4), layout="constrained")
    left, middle, right = axes["m"], axes["r"], axes["c"]
    place = {v: i for i, v in enumerate([*PIXELS, *(v for v in graph if isinstance(v, int)), *CLASSES])}
    edges = np.array([(place[u], place[v]) for u, v in graph.edges]).T
    left.plot(*edges, ",", color=style.INK)
    left.set(xlabel="from neuron", ylabel="to neuron", title=f"the same at {len(graph)} neurons,\nwith feedback")
    left.invert_yaxis()
    left.set_aspect("equal")
    for i, recurrence in enumerate(KEPT):
        own = style.look(i) | {"linestyle": "none"}
        found = [row for row in rows if row["recurrence"] == recurrence]
        at = [float(row["edges"]) / 1000 for row in found]
        middle.plot(at, [float(row["accuracy"]) for row in found], **own)
        right.plot(at, [float(row["mflop"]) for row in found], **own, label=recurrence)
    middle.set(xscale="log", ylabel="unseen digits told (%)", title="accuracy, one mark a seed")
    right.set(xscale="log", yscale="log", ylabel="MFLOP a sample", title="cost in training")
    right.legend(title="recurrence", frameon=False)
    for axis in (middle.xaxis, right.xaxis, right.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    for ax in (middle, right):
        ax.set_xlabel("edges (thousands)")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a thousand neurons, one density, one seed, two epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/assemblies"), help="where picture and rows go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    neurons, densities, seeds, epochs = (1000, (0.01,), 1, 2) if options.quick else (10_000, BETWEEN, 3, 10)

    rows = []
    for between in densities:
        for recurrence in KEPT:
            for seed in range(seeds):
                graph = declare(neurons, between, recurrence, seed)
                if seed == 0:
                    report = pcgraph.check(graph, clamped=PIXELS, repair=False)
                    print(f"\n{between:.2%} of the edges between assemblies, recurrence {recurrence}")
                    print(f"  Forward(roots=Zero()) {report.verdicts['forward(roots)'].reason}", flush=True)
                row = {"neurons": len(graph), "edges": graph.number_of_edges(), "between": between}
                row |= {"recurrence": recurrence, "seed": seed, "epochs": epochs} | train(graph, seed, epochs)
                rows.append(row)
                print(f"  seed {seed}: {row['accuracy']} %, {row['seconds_an_epoch']} s an epoch", flush=True)
    with (options.out / "assemblies.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{table(rows)}")
    picture(declare(1000, 0.01, "feedback", 0), rows, options.out / "assemblies.png")
    print(f"Picture: {options.out / 'assemblies.png'}")


if __name__ == "__main__":
    main()
