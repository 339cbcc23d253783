"""One cyclic network over image and label, trained once, asked three ways.

Run ``python examples/query_any_way.py [--quick] [--out FOLDER]``. The images are the digits of 8 x 8 that come with
scikit-learn; nothing is downloaded. It takes about a minute on one core.

Image, hidden neurons and label all predict one another. What is known is clamped, inference finds the rest: the label
of an image, an image of a label, the lower half of an image from its upper half. In training the clamps cut every
cycle. In every question they leave one, so that no sweep answers it, and no network that only runs forward.

How strongly the weights decay is chosen on a fifth of the training images; the networks that are then measured on the
test images have learned from all of them.

In the manner of T. Salvatori, L. Pinchetti, B. Millidge, Y. Song, T. Bao, R. Bogacz, T. Lukasiewicz, "Learning on
Arbitrary Graph Topologies via Predictive Coding", 2022.
"""

import argparse
import csv
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import networkx as nx
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import pcgraph
from pcgraph import data

UPPER = torch.arange(64) < 32
DECAYS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0)
START = pcgraph.Forward(fallback=pcgraph.Zero())  # sweeps what can be swept, and the rest starts at zero
MOVE = pcgraph.SGD(lr=0.1, momentum=0.9)
QUESTIONS = {
    "training": {"image", "label"},
    "label?": {"image"},
    "image?": {"label"},
    "lower half?": {"image": pcgraph.Masked(torch.zeros(1, 64), UPPER)},
}


def declare() -> nx.DiGraph:
    graph = pcgraph.graphs.fully_connected({"image": 64, "hidden": 64, "label": 10})
    graph.nodes["hidden"]["activation"] = "tanh"
    return graph


def train(images: data.Images, decay: float, seed: int, epochs: int) -> pcgraph.PCNetwork:
    """Image and label clamped, the hidden neurons free."""
    net = pcgraph.PCNetwork(declare(), seed=seed)
    pcgraph.fit(
        net, images.batches(50, seed=seed), clamp=("image", "label"), init=START, steps=10, epochs=epochs,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=decay), state_optimizer=pcgraph.SGD(lr=0.1),
        progress=False,
    )  # fmt: skip
    return net


def label_of(net: pcgraph.PCNetwork, images: Tensor, steps: int) -> Tensor:
    return net.predict({"image": images}, "label", init=START, steps=steps, optimizer=MOVE)


def image_of(net: pcgraph.PCNetwork, labels: Tensor, steps: int) -> Tensor:
    """An image for every label, each found from a random state of its own."""
    noise = pcgraph.Forward(fallback=pcgraph.Normal(std=0.3))
    clamps = {"label": torch.eye(10)[labels]}
    return net.predict(clamps, "image", init=noise, steps=steps, optimizer=MOVE)


def completed(net: pcgraph.PCNetwork, images: Tensor, steps: int) -> Tensor:
    """The images, the lower half found from the upper one. The label is free, too."""
    clamps = {"image": pcgraph.Masked(images, UPPER)}
    return net.predict(clamps, "image", init=START, steps=steps, optimizer=MOVE)


def measure(net: pcgraph.PCNetwork, train: data.Images, test: data.Images, steps: int) -> dict[str, float]:
    """How well the three questions are answered; the judge of images is a linear classifier of the originals."""
    judge = LogisticRegression(max_iter=2000).fit(train.images.numpy(), train.labels.numpy())
    asked = torch.arange(10).repeat(20)
    drawn = image_of(net, asked, steps)
    lower = (completed(net, test.images, steps) - test.images)[:, ~UPPER]
    plain = (train.images.mean(0) - test.images)[:, ~UPPER]
    right = label_of(net, test.images, steps).argmax(1) == test.labels
    return {
        "label_from_image": round(100 * right.float().mean().item(), 2),
        "image_recognised": round(100 * float((judge.predict(drawn.numpy()) == asked.numpy()).mean()), 2),
        "judge_on_originals": round(100 * judge.score(test.images.numpy(), test.labels.numpy()), 2),
        "spread_of_one_label": round(drawn.view(20, 10, 64).std(0).mean().item(), 4),
        "half_error": round(lower.square().mean().item(), 4),
        "mean_image_error": round(plain.square().mean().item(), 4),
    }


def choose(images: data.Images, epochs: int, steps: int) -> tuple[float, list[dict]]:
    """The weight decay whose worse answer of the two (labels, images) is best on images held out of training."""
    seen, held_out = images.split(0.2)
    rows = []
    for decay in DECAYS:
        found = measure(train(seen, decay, 0, epochs), seen, held_out, steps)
        rows.append({"split": "validation", "weight_decay": decay, "seed": 0, **found})
        print(f"weight decay {decay:g}, validation: {found}", flush=True)
    best = max(rows, key=lambda row: min(row["label_from_image"], row["image_recognised"]))
    return best["weight_decay"], rows


def table(rows: list[dict]) -> str:
    """One row a weight decay: what the validation images said, and means (lowest to highest) on the test images."""
    lines = [
        "| weight decay | judged on | label from image (%) | image from label recognised (%) | error of lower half |",
        "|---|---|---|---|---|",
    ]
    for split, decay in dict.fromkeys((row["split"], float(row["weight_decay"])) for row in rows):
        cells = [f"{decay:g}", split]
        for key, digits in (("label_from_image", 1), ("image_recognised", 1), ("half_error", 3)):
            found = [float(r[key]) for r in rows if (r["split"], float(r["weight_decay"])) == (split, decay)]
            spread = f" ({min(found):.{digits}f} to {max(found):.{digits}f})" if len(found) > 1 else ""
            cells.append(f"{sum(found) / len(found):.{digits}f}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(net: pcgraph.PCNetwork, test: data.Images, steps: int, path: Path) -> None:
    """The three questions, each with what is clamped above and what inference found below."""
    first = torch.stack([(test.labels == c).nonzero()[0, 0] for c in range(10)])
    images = test.images[first]
    labels = label_of(net, images, steps)
    halves = torch.where(UPPER, images, torch.full_like(images, float("nan")))
    rows = {
        "image, given": images, "label, found": labels,
        "label, given": torch.eye(10), "image, found": image_of(net, torch.arange(10), steps),
        "upper half, given": halves, "image, found ": completed(net, images, steps), "original": images,
    }  # fmt: skip
    figure, axes = plt.subplots(7, 10, figsize=(10, 7.6), layout="constrained")
    for (name, values), line in zip(rows.items(), axes):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for value, ax in zip(values, line):
            if value.numel() == 10:
                ax.bar(range(10), value, color=["#0072b2" if v == value.max() else "#b8b8b8" for v in value])
                ax.set(ylim=(-0.25, 1.25), box_aspect=1, xlabel=int(value.argmax()))
            else:
                ax.imshow(value.view(8, 8), cmap="gray_r", vmin=0, vmax=1)
                ax.set_facecolor("#cfe3f0")
            ax.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two epochs instead of twenty, and fewer networks")
    parser.add_argument("--out", type=Path, default=Path("runs/query_any_way"), help="where picture and figures go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # products this small only wait for one another
    seen, unseen = (data.load("digits", split, normalize="unit") for split in ("train", "test"))
    epochs, steps, seeds = (2, 50, 1) if options.quick else (20, 400, 5)
    for question, report in pcgraph.check(declare(), clamped=QUESTIONS).items():
        print(f"{question}: {'a sweep exists' if report.theorem_1 else f'no sweep, for the cycle {report.cycle}'}")

    chosen, rows = choose(seen, epochs, steps)
    for decay in dict.fromkeys((0.0, chosen)):
        for seed in range(seeds):
            begun = time.perf_counter()
            net = train(seen, decay, seed, epochs)
            found = measure(net, seen, unseen, steps)
            rows.append({"split": "test", "weight_decay": decay, "seed": seed, **found})
            print(f"weight decay {decay:g}, seed {seed}: {found}, {time.perf_counter() - begun:.1f} s", flush=True)
            if seed == 0 and decay == chosen:
                picture(net, unseen, steps, options.out / "query_any_way.png")
    with (options.out / "query_any_way.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))
    print(f"Picture: {options.out / 'query_any_way.png'}")


if __name__ == "__main__":
    main()
