"""Images whose pixels lie: energies for outliers, a precision for each pixel, a prior of the code, and tied feedback.

    python examples/noisy_pixels.py [--quick] [--out runs/noisy_pixels] [--seeds 1 2 3]

A dictionary of 16 atoms is learned from spoiled images of digits alone, and is then to restore others that it has not
seen. The code z predicts the image through the dictionary, as a slot of x; the image predicts the code through its
transpose, which is the same parameter. What the image says of the code costs nothing (the energy ``zero``): it is where
inference starts, and does not hold it there. A slot with a prior draws the code to zero.

    x -> z    z = D x                     the energy zero
    z -> x    x = D^T z + b               gaussian, huber, student_t, or gaussian with a precision for each pixel
              z = 0                       a prior of precision 0.3, or none

Images are spoiled in two ways: one pixel in ten is replaced by a number from -1.5 to 2.5, or each pixel has normal
noise of a standard deviation of its own, from 0.05 to 0.63, which is known. Outliers pull less by ``huber`` and
``student_t``, and a noisy pixel says less by its precision.

It takes a minute or two on one core, and downloads nothing.

Reference for what a linear network with tied weights learns: P. Baldi, K. Hornik, "Neural Networks and Principal
Component Analysis: Learning from Examples Without Local Minima", 1989.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import torch
from rows import Store, arguments, run
from torch import Tensor

import pcgraph
from pcgraph import data
from pcgraph.drawing import style

ATOMS, BROKEN, PRIOR = 16, 0.1, 0.3
NOISE = torch.logspace(-1.3, -0.2, 64)[torch.randperm(64, generator=torch.Generator().manual_seed(7))]
"""The standard deviation of the noise of each pixel."""
ENERGIES: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "by pixel": {"precision": 0.04 / NOISE**2},
    "huber": {"energy": ("huber", {"delta": 0.2})},
    "student_t": {"energy": ("student_t", {"dof": 2.0, "scale": 0.2})},
}
SPOILED = {"broken": ("gaussian", "huber", "student_t"), "noisy": tuple(ENERGIES)}
MOVE = pcgraph.SGD(lr=0.05, momentum=0.5)


def spoil(images: Tensor, how: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if how == "noisy":
        return images + NOISE * torch.randn(images.shape, generator=generator)
    broken = torch.rand(images.shape, generator=generator) < BROKEN
    return torch.where(broken, 4 * torch.rand(images.shape, generator=generator) - 1.5, images)


def declare(energy: str, prior: float) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_node("x", shape=64, slots={"decoded": ENERGIES[energy]})
    drawn = {"prior": {"prior": 0.0, "precision": prior}} if prior else {}
    graph.add_node("z", shape=ATOMS, bias=False, energy="zero", slots=drawn)
    graph.add_edge("x", "z", share="dictionary")
    graph.add_edge("z", "x", share="dictionary", transpose=True, slot="decoded")
    return graph


def train(energy: str, how: str, prior: float, seed: int, epochs: int) -> pcgraph.PCNetwork:
    """From spoiled images alone."""
    net = pcgraph.PCNetwork(declare(energy, prior), seed=seed)
    spoiled = spoil(data.load("digits", normalize="unit").images, how, seed)
    order = torch.Generator().manual_seed(seed)
    pcgraph.fit(
        net, [{"x": spoiled[rows]} for rows in torch.randperm(len(spoiled), generator=order).split(50)],
        init=pcgraph.Forward(), steps=20, state_optimizer=MOVE, optimizer=torch.optim.Adam(net.parameters(), lr=3e-3),
        epochs=epochs, progress=False,
    )  # fmt: skip
    return net


def restored(net: pcgraph.PCNetwork, images: Tensor, steps: int = 100) -> Tensor:
    """What the code says of the images where inference ends."""
    result = net.infer({"x": images}, init=pcgraph.Forward(), steps=steps, optimizer=MOVE)
    return result.predictions["x", "decoded"]


def measured(how: str, prior: float, energy: str, seed: int, epochs: int) -> dict[str, object]:
    """The mean square that pixels of restored images lie off the clean ones, at once and after inference."""
    clean = data.load("digits", "test", normalize="unit").images
    mean = spoil(data.load("digits", normalize="unit").images, how, seed).mean(0)
    given, net = spoil(clean, how, seed + 100), train(energy, how, prior, seed, epochs)
    found = {"at_once": restored(net, given, 0), "inferred": restored(net, given), "given": given, "mean": mean}
    errors = {name: round(float((each - clean).square().mean()), 4) for name, each in found.items()}
    return {"spoiled": how, "prior": prior, "energy": energy, "seed": seed, **errors}


def table(rows: Sequence[dict[str, str]]) -> str:
    """Errors of the restored images, means over the seeds, as Markdown."""
    lines = ["| images | energy of the pixels | without prior: at once | inferred | with: inferred | lowest–highest |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for how, energies in SPOILED.items():
        some = [row for row in rows if row["spoiled"] == how]
        for energy in energies:
            without, with_prior = (
                [row for row in some if (row["energy"], float(row["prior"])) == (energy, prior)]
                for prior in (0.0, PRIOR)
            )
            cells = [mean(without, "at_once"), mean(without, "inferred"), mean(with_prior, "inferred")]
            ends = [float(row["inferred"]) for row in with_prior]
            lines.append(f"| {how} | {energy} | {' | '.join(cells)} | {min(ends):.3f}–{max(ends):.3f} |")
        for name, column in (("as given", "given"), ("the mean image", "mean")):
            lines.append(f"| {how} | *{name}* | {mean(some, column)} | | | |")
    return "\n".join(lines)


def mean(rows: Sequence[dict[str, str]], column: str) -> str:
    return f"{fmean(float(row[column]) for row in rows):.3f}"


def picture(rows: Sequence[dict[str, str]], epochs: int, path: Path) -> None:
    """Errors by energy, a mark a seed; and broken images, with what two energies make of them."""
    figure = plt.figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(5, 6))
    ax = left.subplots()
    for k, how in enumerate(SPOILED):
        some = [row for row in rows if row["spoiled"] == how and float(row["prior"]) == PRIOR]
        at = [list(ENERGIES).index(row["energy"]) + 0.2 * k - 0.1 for row in some]
        ax.plot(at, [float(row["inferred"]) for row in some], **style.look(k) | {"linestyle": "none"}, label=how)
    ax.set_xticks(range(len(ENERGIES)), list(ENERGIES))
    ax.set(ylabel="error of restored images", ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower left")
    clean = data.load("digits", "test", normalize="unit").images[:7]
    given = spoil(clean, "broken", 101)
    shown = {"original": clean, "given": given}
    for energy in ("gaussian", "student_t"):
        shown[energy] = restored(train(energy, "broken", PRIOR, 1, epochs), given)
    for (name, images), line in zip(shown.items(), right.subplots(len(shown), len(clean))):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for image, cell in zip(images, line):
            cell.imshow(image.view(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "noisy_pixels")
    epochs = 1 if args.quick else 20
    wanted = [{"spoiled": how, "prior": prior, "energy": energy, "seed": seed}
              for how, energies in SPOILED.items() for prior in (0.0, PRIOR) for energy in energies
              for seed in args.seeds]  # fmt: skip

    def one(spoiled: str, prior: float, energy: str, seed: int) -> dict[str, object]:
        return measured(spoiled, prior, energy, seed, epochs)

    run(args, "noisy_pixels", wanted, one, table)
    picture(Store(args.out / "noisy_pixels.csv", list(wanted[0])).rows, epochs, args.out / "noisy_pixels.png")


if __name__ == "__main__":
    main()
