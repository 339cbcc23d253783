"""Two memories that complete images from their upper halves, with and without noise; how many they hold.

Run ``python examples/associative_memory.py [--quick] [--out FOLDER]``. It stores images of Fashion-MNIST, five minutes
on one core; where the files are not at hand, digits.

In the first memory all pixels predict all pixels, by one edge from the image to itself. In the second, image and hidden
neurons predict each other. Storing is learning with the image clamped. Recalling is inference with its upper half
clamped (``pcgraph.Masked``), from zero: every prediction lies on a cycle, and nothing can be swept.

The energy of the first is quadratic, |(I - W) x - b|^2 / 2. Learned to the end it is zero on the flat through all
stored images. To recall is to find the one point of it (if it is one) that has the given upper half. That is a
least-squares problem, so that the states at which inference ends can be compared with its solution.
"""

import argparse
import csv
import os
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import networkx as nx
import torch
from torch import Tensor

import pcgraph
from pcgraph import data, drawing
from pcgraph.drawing import style

START = pcgraph.Forward(fallback=pcgraph.Zero())
NOISE = (0.0, 0.1)  # standard deviations, of what is added to the pixels of a cue
RECALLED = 0.01  # an image counts as recalled if the mean squared error of its missing half is below this
ENOUGH = 0.02  # energy a sample at which learning ends
MEMORIES = ("one group", "with hidden")


def declare(memory: str, pixels: int) -> nx.DiGraph:
    if memory == "one group":
        return pcgraph.graphs.fully_connected({"image": pixels}, self_loops=True)
    graph = pcgraph.graphs.fully_connected({"image": pixels, "hidden": 512})
    graph.nodes["hidden"]["activation"] = "relu"
    return graph


def is_stored(record: pcgraph.training.StepRecord | pcgraph.training.EpochRecord) -> bool:
    """``fit`` ends when a callback answers True: here where more learning would hardly lower the energy."""
    return record.kind == "epoch" and record.energy is not None and record.energy < ENOUGH


def store(memory: str, images: Tensor, epochs: int) -> pcgraph.PCNetwork:
    """Learn the images, all of them in one batch, for so many epochs or until they are stored."""
    net = pcgraph.PCNetwork(declare(memory, images.shape[1]), seed=0)
    pcgraph.fit(
        net, [(images,)], clamp="image", init=START, steps=0 if memory == "one group" else 10, epochs=epochs,
        optimizer=torch.optim.Adam(net.parameters(), lr=1e-3), state_optimizer=pcgraph.SGD(lr=0.1),
        callbacks=is_stored, measure_every=1, progress=False,
    )  # fmt: skip
    return net


def upper_half(pixels: int) -> Tensor:
    return torch.arange(pixels) < pixels // 2


def recall(net: pcgraph.PCNetwork, cues: Tensor, steps: int) -> Tensor:
    """Images whose upper halves are those of the cues."""
    known = {"image": pcgraph.Masked(cues, upper_half(cues.shape[1]))}
    return net.predict(known, "image", init=START, steps=steps, optimizer=pcgraph.SGD(lr=0.1, momentum=0.97))


def solved(net: pcgraph.PCNetwork, cues: Tensor) -> Tensor:
    """What the memory of one group would recall after infinitely many steps, by least squares in float64."""
    upper = upper_half(cues.shape[1])
    away = torch.eye(cues.shape[1], dtype=torch.float64) - net.weight("image", "image").double()
    rest = net.bias("image").double() - cues[:, upper].double() @ away[:, upper].t()
    lower = torch.linalg.lstsq(away[:, ~upper], rest.t()).solution.t()
    return torch.cat([cues[:, upper], lower.to(cues.dtype)], 1)


def on_the_flat(stored: Tensor, cues: Tensor) -> Tensor:
    """The point of the flat through the stored images whose upper half is nearest to that of the cue, in float64.

    It is what the memory of one group would recall if it had learned to the end.
    """
    upper, mean = upper_half(stored.shape[1]), stored.double().mean(0)
    spanned = stored.double() - mean
    parts = torch.linalg.lstsq(spanned[:, upper].t(), (cues.double() - mean)[:, upper].t(), driver="gelsd").solution
    return (mean + parts.t() @ spanned).to(stored.dtype)


def noisy(images: Tensor, noise: float) -> Tensor:
    return images + noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def measure(net: pcgraph.PCNetwork, memory: str, stored: Tensor, others: Tensor, noise: float, steps: int) -> dict:
    """Mean squared errors of the missing half and of the whole image; of images never stored, for comparison."""
    lower = ~upper_half(stored.shape[1])
    cues = noisy(stored, noise)
    found = recall(net, cues, steps)
    errors = (found - stored)[:, lower].square().mean(1)
    strange = (recall(net, noisy(others, noise), steps) - others)[:, lower].square().mean().item()
    row = {
        "missing_half": errors.mean().item(),
        "whole_image": (found - stored).square().mean().item(),
        "recalled": 100 * (errors < RECALLED).float().mean().item(),
        "never_stored": strange,
        "mean_image": (stored.mean(0) - stored)[:, lower].square().mean().item(),
    }
    if memory == "one group":
        row["from_solution"] = (found - solved(net, cues))[:, lower].square().mean().item()
        row["learned_to_the_end"] = (on_the_flat(stored, cues) - stored)[:, lower].square().mean().item()
    return {key: float(f"{value:.3g}") for key, value in row.items()}


def table(rows: list[dict]) -> str:
    """One row a number of stored images: errors of the missing half, whole images, and how many are recalled."""
    lines = [
        "| stored | memory | missing half | whole image | recalled (%) | with noise: missing half | recalled (%) |",
        "|---|---|---|---|---|---|---|",
    ]
    for stored, memory in dict.fromkeys((row["stored"], row["memory"]) for row in rows):
        clean, noise = (
            next(r for r in rows if (r["stored"], r["memory"], float(r["noise"])) == (stored, memory, n)) for n in NOISE
        )
        errors = f"{float(clean['missing_half']):.4f} | {float(clean['whole_image']):.4f}"
        lines.append(
            f"| {stored} | {memory} | {errors} | {float(clean['recalled']):.0f} | "
            f"{float(noise['missing_half']):.4f} | {float(noise['recalled']):.0f} |"
        )
    return "\n".join(lines)


def completions(nets: dict[str, pcgraph.PCNetwork], images: Tensor, steps: int, path: Path) -> None:
    """Cues, what either memory makes of them, and the originals."""
    unknown = ~upper_half(images.shape[1])
    rows = {}
    for noise in NOISE:
        cues = noisy(images, noise)
        rows["cue" if noise == 0 else "cue with noise"] = cues.masked_fill(unknown, float("nan"))
        for memory, net in nets.items():
            rows[memory + " " * (noise > 0)] = recall(net, cues, steps)
    drawing.images({**rows, "original": images}, path, limits=(0, 1))


def capacity(rows: list[dict], path: Path) -> None:
    """How many images are recalled, and with which error, against the number stored."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for i, memory in enumerate(MEMORIES):
        for j, noise in enumerate(NOISE):
            own = style.look(2 * i + j) | {"markersize": 5}
            mine = [row for row in rows if (row["memory"], row["noise"]) == (memory, noise)]
            label = memory + ("" if noise == 0 else f", noise {noise:g}")
            at = [row["stored"] for row in mine]
            left.plot(at, [row["recalled"] * row["stored"] / 100 for row in mine], **own, label=label)
            right.plot(at, [row["missing_half"] for row in mine], **own)
    left.plot(at, at, ":", color="grey", label="all")
    left.set(xlabel="images stored", ylabel="images recalled")
    left.legend(frameon=False, fontsize=style.SMALL)
    right.axhline(RECALLED, color="grey", linewidth=0.8, linestyle=":")
    right.set(xlabel="images stored", ylabel="mean squared error, missing half", yscale="log")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def load(quick: bool) -> data.Images:
    """Fashion-MNIST where its files are at hand, or else digits; nothing is downloaded. Pixels from 0 to 1."""
    folder = os.environ.get("PCGRAPH_DATA", "/usr/share/datasets")
    if not quick:
        try:
            return data.load("fashion-mnist", root=folder, normalize="unit")
        except pcgraph.errors.DataError:
            print(f"Fashion-MNIST is not in {folder} (PCGRAPH_DATA names another folder): this stores digits.")
    return data.load("digits", normalize="unit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few digits, stored in fifty epochs instead of 500")
    parser.add_argument("--out", type=Path, default=Path("runs/associative_memory"), help="where pictures and rows go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    source = load(options.quick)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    images = source.images.flatten(1)[order]
    counts, epochs, steps = ((8, 16), 50, 100) if options.quick else ((25, 50, 100, 200, 400), 500, 600)
    shown = counts[len(counts) // 2]
    rows, nets = [], {}
    for stored in counts:
        for memory in MEMORIES:
            begun = time.perf_counter()
            net = store(memory, images[:stored], epochs)
            seconds = round(time.perf_counter() - begun, 1)
            for noise in NOISE:
                found = measure(net, memory, images[:stored], images[-200:], noise, steps)
                rows.append({"data": source.name, "stored": stored, "memory": memory, "noise": noise, **found})
                print(f"{stored} images, {memory}, stored in {seconds} s, noise {noise:g}: {found}", flush=True)
            if stored == shown:
                nets[memory] = net

    keys = list(dict.fromkeys(key for row in rows for key in row))
    with (options.out / "associative_memory.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))
    completions(nets, images[: min(shown, 10)], steps, options.out / "associative_memory.png")
    capacity(rows, options.out / "associative_memory_recall.png")
    print(f"Pictures: {options.out / 'associative_memory.png'} and associative_memory_recall.png beside it")


if __name__ == "__main__":
    main()
