"""A classifier that is given skip, feedback and lateral edges, one by one: what it then admits, and what it learns.

Run ``python examples/skip_and_lateral.py [--quick] [--out FOLDER]``. It trains on Fashion-MNIST, half an hour on one
core; where the files are not at hand, on digits, in some minutes.

Each new edge may change the verdicts, and learning changes with them. With y clamped in training, the cycle
h2 → y → h2 becomes a memory: it explains whatever label it holds, and the image is hardly asked. At test time y starts
at zero and the network finds no reason to move it towards the right label. Nudging compares two phases in both of which
y is free, and does not fall into this.
"""

import argparse
import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import torch

import pcgraph
from pcgraph import data, drawing
from pcgraph.drawing import style

PHASES = {"training": {"x", "y"}, "test": {"x"}}
EDGES = {  # added in this order
    "chain": None,
    "+ skip x → h2": ("x", "h2"),
    "+ feedback y → h2": ("y", "h2"),
    "+ lateral h2 → h2": ("h2", "h2"),
    "+ feedback h2 → h1": ("h2", "h1"),
}
RULES = ("clamped", "nudged")
INFERENCE = {
    "init": pcgraph.Forward(fallback=pcgraph.Zero()),  # sweeps what can be swept, and the rest starts at zero
    "steps": 20,
    "optimizer": pcgraph.SGD(lr=0.2),
}


def stages(pixels: int) -> Iterator[tuple[str, nx.DiGraph]]:
    """The chain, and the graph after each new edge."""
    graph = pcgraph.graphs.chain([pixels, 128, 128, 10], activation="tanh")
    for name, edge in EDGES.items():
        if edge is not None:
            graph.add_edge(*edge)
        yield name, graph.copy()


def check(graph: nx.DiGraph) -> pcgraph.topology.PhaseReport:
    return pcgraph.check(graph, clamped=PHASES)


def show_changes(before: pcgraph.topology.PhaseReport, after: pcgraph.topology.PhaseReport) -> None:
    """Print what has changed in the check table."""
    changed = [
        f"  {phase}: {new.initializer} {new.reason}"
        for phase in PHASES
        for old, new in zip(before[phase].verdicts.values(), after[phase].verdicts.values())
        if (old.valid, old.reason) != (new.valid, new.reason)
    ]
    print("\n".join(changed) or "  nothing changes in the table")


def train(graph: nx.DiGraph, rule: str, seed: int, epochs: int, images: data.Images) -> pcgraph.PCNetwork:
    """Learn with y clamped, or with y free and nudged towards the label and away from it."""
    net = pcgraph.PCNetwork(graph, seed=seed)
    weights = torch.optim.AdamW(net.parameters(), lr=1e-3)
    batches = images.batches(200 if len(images) > 10_000 else 50, seed=seed)
    for _ in range(epochs):
        for x, y in batches:
            weights.zero_grad()
            if rule == "clamped":
                net.infer({"x": x, "y": y}, **INFERENCE).backward()
            else:
                pcgraph.learning.nudged(net, {"x": x}, {"y": y}, strength=0.5, **INFERENCE)
            weights.step()
    return net


def measure(net: pcgraph.PCNetwork, images: data.Images) -> dict[str, float]:
    """Accuracy; and how often y still says a wrong label that it was set to, 100 steps after it was released."""
    found = pcgraph.evaluate(net, images.batches(min(1000, len(images)), shuffle=False), **INFERENCE)
    x, y = next(iter(images.batches(min(1000, len(images)), shuffle=False)))
    wrong = y.roll(1, dims=1)
    told = net.infer({"x": x, "y": wrong}, **INFERENCE).states
    released = net.infer({"x": x}, **INFERENCE | {"init": net.carry_on(told), "steps": 100}).states["y"]
    held = (released.argmax(1) == wrong.argmax(1)).float().mean().item()
    return {"accuracy": round(100 * found.accuracy, 2), "held": round(100 * held, 1)}


def table(rows: list[dict]) -> str:
    """Mean accuracy over the seeds, with the lowest and the highest, as Markdown."""
    lines = [
        "| graph | clamped: accuracy (%) | wrong label held (%) | nudged: accuracy (%) | wrong label held (%) |",
        "|---|---|---|---|---|",
    ]
    for name in EDGES:
        cells = [name]
        for rule in RULES:
            found = [row for row in rows if (row["graph"], row["rule"]) == (name, rule)]
            accuracy = [float(row["accuracy"]) for row in found]
            held = sum(float(row["held"]) for row in found) / len(found)
            mean = sum(accuracy) / len(accuracy)
            cells += [f"{mean:.1f} ({min(accuracy):.1f} to {max(accuracy):.1f})", f"{held:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(rows: list[dict], pixels: int, path: Path) -> None:
    """The five graphs as they are at test time, and beside each what it learned."""
    figure, axes = plt.subplots(len(EDGES), 2, figsize=(9, 12), width_ratios=(3, 2), layout="constrained")
    for (name, graph), (left, right) in zip(stages(pixels), axes):
        drawing.graph(graph, PHASES["test"], ax=left, title="")
        left.set_title(name, loc="left")
        left.get_legend().set_visible(left is axes[-1, 0])
        for height, rule in enumerate(RULES):
            found = [float(row["accuracy"]) for row in rows if (row["graph"], row["rule"]) == (name, rule)]
            right.plot(found, [-height] * len(found), **style.look(height) | {"linestyle": "none"})
        right.axvline(10, color="grey", linewidth=0.8, linestyle=":")
        right.set(xlim=(0, 100), ylim=(-1.6, 0.6))
        right.set_yticks((0, -1), [f"y {rule}\nin training" for rule in RULES])
        right.spines[["top", "right", "left"]].set_visible(False)
    right.set_xlabel("test accuracy (%), a mark a seed;\ndotted: chance")
    figure.savefig(path, dpi=110)


def images(quick: bool) -> tuple[data.Images, data.Images]:
    """Fashion-MNIST where its files are at hand, or else digits; nothing is downloaded."""
    folder = os.environ.get("PCGRAPH_DATA", "/usr/share/datasets")
    if not quick:
        try:
            return data.load("fashion-mnist", root=folder), data.load("fashion-mnist", "test", root=folder)
        except pcgraph.errors.DataError:
            print(f"Fashion-MNIST is not in {folder} (PCGRAPH_DATA names another folder): this trains on digits.")
    return data.load("digits"), data.load("digits", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits, one seed and two epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/skip_and_lateral"), help="where picture and rows go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    seen, unseen = images(options.quick)
    seeds = 1 if options.quick else 3
    epochs = 2 if options.quick else 4 if seen.name == "fashion-mnist" else 15

    rows, before = [], None
    for name, graph in stages(seen.shape[0]):
        report = check(graph)
        print(f"\n{name}")
        if before is None:
            print(report)
        else:
            show_changes(before, report)
        before = report
        for rule in RULES:
            for seed in range(seeds):
                begun = time.perf_counter()
                net = train(graph, rule, seed, epochs, seen)
                row = {"data": seen.name, "graph": name, "rule": rule, "seed": seed, "epochs": epochs}
                row |= {"seconds": round(time.perf_counter() - begun, 1)} | measure(net, unseen)
                rows.append(row)
                print(f"  {rule}, seed {seed}: {row['accuracy']} %", flush=True)

    with (options.out / "skip_and_lateral.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"\n{table(rows)}")
    picture(rows, seen.shape[0], options.out / "skip_and_lateral.png")
    print(f"Picture: {options.out / 'skip_and_lateral.png'}")


if __name__ == "__main__":
    main()
