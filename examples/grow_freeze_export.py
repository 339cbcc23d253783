"""Grow a trained network by a layer, freeze what it has learned, train the rest at rates of its own, watch, and export.

Run with ``python examples/grow_freeze_export.py [--quick] [--out FOLDER]``. The images are the digits of 8 x 8 that
come with scikit-learn; nothing is downloaded. It takes some seconds.
"""

import argparse
from pathlib import Path

import torch

import pcgraph
from pcgraph import data, drawing


def train(net, optimizer, images, epochs, quick):
    """Train by predictive coding on the digits."""
    pcgraph.fit(
        net,
        images.batches(50, seed=0),
        init=pcgraph.Forward(),
        steps=5,
        state_optimizer=pcgraph.SGD(lr=0.1),
        optimizer=optimizer,
        epochs=1 if quick else epochs,
        progress=False,
    )


def accuracy(net, test):
    """Tell how many unseen digits are told."""
    return float((net.predict({"x": test.images}, "y").argmax(1) == test.labels).float().mean())


def main() -> None:
    """Train, grow, freeze, train on, and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    seen, unseen = data.load("digits"), data.load("digits", "test")

    small = pcgraph.PCNetwork(pcgraph.graphs.chain([64, 64, 64, 10], activation="relu"), seed=0)
    train(small, torch.optim.AdamW(small.parameters(), lr=1e-3), seen, 8, options.quick)
    print(f"small: {accuracy(small, unseen):.1%}")

    # One layer more. What has a counterpart is carried over; x -> h1 and h1 -> h2 are not to change any more.
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([64, 64, 64, 64, 10], activation="relu"), seed=1)
    print(net.load_from(small))
    net.edge("h2", "h3").initialize("orthogonal", seed=1)  # the layer that is new
    for part in (net.edge("x", "h1"), net.edge("h1", "h2"), net.node("h1"), net.node("h2")):
        part.freeze()
    kept = net.edge("h1", "h2").weight.clone()

    # h1 -> h2 and h2 -> h3 lie in one tensor. The output gets a rate of its own, and biases do not decay.
    settings = {("h3", "y"): {"lr": 3e-3}, **{node: {"weight_decay": 0.0} for node in net.nodes() if node.count}}
    optimizer = torch.optim.AdamW(net.parameter_groups(settings), lr=1e-3, weight_decay=0.1)
    train(net, optimizer, seen, 8, options.quick)
    print(net.summary())
    print(f"grown: {accuracy(net, unseen):.1%}; frozen weights unchanged: {torch.equal(kept, net.weight('h1', 'h2'))}")

    # How does inference bring the error of a wrong label to the hidden layers?
    wrong = unseen.one_hot()[:8].roll(1, dims=1)

    def tell(step):
        if step.step % 10 == 0:
            print(f"after {step.step} steps: energy {step.energy.mean():.3f}")

    result = net.infer(
        {"x": unseen.images[:8], "y": wrong}, init=pcgraph.Forward(), steps=30, optimizer=pcgraph.SGD(lr=0.1),
        trace=pcgraph.Trace(["h1", "h2", "h3", "y"], every=2),
        callback=tell,
    )  # fmt: skip
    drawing.errors(result, options.out / "grow_freeze_export.png", title="Errors, with wrong labels")
    drawing.trajectories(result, "h3", options.out / "grow_freeze_export_h3.png")
    drawing.animate(result, "h3", options.out / "grow_freeze_export.gif", kind="errors")

    # A plain module, for whatever runs torch.export's programs; and how much each pixel counts for the answer.
    module = net.as_module("x", "y")
    exported = torch.export.export(
        module, (unseen.images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module()  # fmt: skip
    print(
        "exported module agrees:",
        torch.allclose(exported(unseen.images), net.predict({"x": unseen.images}, "y"), atol=1e-5),
    )
    pixels = unseen.images[:8].clone().requires_grad_()
    module(pixels).amax(1).sum().backward()
    drawing.images(
        {"digit": unseen.images[:8], "saliency": pixels.grad.abs()}, options.out / "saliency.png", limits="rows"
    )


if __name__ == "__main__":
    main()
