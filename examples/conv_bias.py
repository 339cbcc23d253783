"""The bias of a node behind a convolution: one a neuron, one a channel, or none beside the convolution's own.

    python examples/conv_bias.py --out runs/conv_bias        # Fashion-MNIST, three seeds; resumes where it was stopped
    python examples/conv_bias.py --quick                     # digits, one seed

A convolution treats all places of an image alike; with a bias for each neuron of the node behind it, the node does not.
One network of two convolutions by 2 with a dense output, gelu, forward initialization, T = 5, on the first images of
the training set. It is asked for the test images as they are, and moved to the left by some pixels, which it has never
seen. Every finished run is a row of ``conv_bias.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import networkx as nx
import torch
from rows import accuracy, arguments, run, spread

import pcgraph
from pcgraph import data

BIASES: dict[str, bool | str] = {"a neuron": True, "a channel": "channel", "the convolution's own": False}


def declare(bias: bool | str, size: int, channels: Sequence[int]) -> nx.DiGraph:
    """Two convolutions of 3 x 3 and stride 2 lead from x to h1 and h2, and a dense edge to y."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, size, size))
    last, before = "x", 1
    for name, count in zip(("h1", "h2"), channels):
        size = (size + 1) // 2
        graph.add_node(name, shape=(count, size, size), activation="gelu", bias=bias)
        graph.add_edge(last, name, transform=pcgraph.transforms.Conv2d(before, count, 3, stride=2, padding=1))
        last, before = name, count
    graph.add_node("y", shape=10)
    graph.add_edge(last, "y")
    return graph


def train(bias: str, seed: int, args: argparse.Namespace, train_set: data.Images, test_set: data.Images) -> dict:
    """One run: the test accuracies after the last epoch, in percent."""
    size = round(train_set.images.shape[1] ** 0.5) if train_set.images.dim() == 2 else train_set.images.shape[-1]
    net = pcgraph.PCNetwork(declare(BIASES[bias], size, (8, 16) if args.quick else (16, 32)), seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr)
    images, labels = train_set.images[: args.images].reshape(-1, 1, size, size), train_set.labels[: args.images]
    rng = torch.Generator().manual_seed(seed)
    for _ in range(args.epochs):
        for rows in torch.randperm(len(images), generator=rng).split(100):
            optimizer.zero_grad()
            clamps = {"x": images[rows], "y": torch.nn.functional.one_hot(labels[rows], 10).to(images.dtype)}
            net.infer(
                clamps, init=pcgraph.Forward(), steps=5, optimizer=pcgraph.SGD(lr=args.state_lr)
            ).backward()  # fmt: skip
            optimizer.step()
    x = test_set.images.reshape(-1, 1, size, size)
    moved = torch.nn.functional.pad(x[..., args.shift :], (0, args.shift), value=float(x.min()))
    found = [torch.cat([net.predict({"x": part}, "y") for part in some.split(1000)]) for some in (x, moved)]
    return {
        "bias": bias, "seed": seed, "accuracy": accuracy(found[0], test_set.labels),
        "moved": accuracy(found[1], test_set.labels), "images": len(images), "epochs": args.epochs, "lr": args.lr,
        "state_lr": args.state_lr, "shift": args.shift, "torch": torch.__version__,
    }  # fmt: skip


def table(rows: Sequence[dict]) -> str:
    """Mean and standard deviation over the seeds, a kind of bias a line."""
    lines = ["| bias | test accuracy | of moved images | seeds |", "|---|---|---|---|"]
    for bias in BIASES:
        own = [r for r in rows if r["bias"] == bias]
        if own:
            plain, moved = (spread([float(r[key]) for r in own]) for key in ("accuracy", "moved"))
            lines.append(f"| {bias} | {plain} | {moved} | {len(own)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, write the table."""
    args = arguments(
        __doc__, "conv_bias", epochs={"type": int, "default": 3}, images={"type": int, "default": 10000},
        lr={"type": float, "default": 1e-3}, state_lr={"type": float, "default": 0.05},
        shift={"type": int, "default": 2},
    )  # fmt: skip
    name = "digits" if args.quick else "fashion-mnist"
    args.shift = 1 if args.quick else args.shift
    sets = data.load(name, "train"), data.load(name, "test")
    wanted = [{"bias": bias, "seed": seed} for seed in args.seeds for bias in BIASES]
    run(args, "conv_bias", wanted, lambda bias, seed: train(bias, seed, args, *sets), table)


if __name__ == "__main__":
    main()
