"""Run the demo: declare a network, ask what it admits, train it on real images, draw it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import networkx as nx
import torch
import typer
from rich.console import Console

from pcgraph import data, drawing
from pcgraph.cli.train import require_out
from pcgraph.initializers import Forward
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD
from pcgraph.topology import check
from pcgraph.training import evaluate, fit

__all__ = ["demo"]


def declare() -> nx.DiGraph:
    """Declare a network with a skip connection: images of 8 x 8 in, ten classes out."""
    graph = nx.DiGraph(name="digits")
    graph.add_node("x", shape=64)
    graph.add_node("h1", shape=128, activation="relu")
    graph.add_node("h2", shape=128, activation="relu")
    graph.add_node("y", shape=10)
    graph.add_edges_from([("x", "h1"), ("h1", "h2"), ("h2", "y"), ("h1", "y")])
    return graph


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Three epochs instead of ten.")] = False,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the pictures go.")] = Path("runs/demo"),
) -> None:
    """Declare a small network, check it, train it on the digits of scikit-learn, and draw what happened."""
    train, test = data.load("digits"), data.load("digits", "test")
    require_out(out)
    out.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)

    console.rule("1. Declare: a NetworkX graph of neuron groups", align="left")
    graph = declare()
    for node, shape in graph.nodes(data="shape"):
        parents = ", ".join(graph.predecessors(node))
        console.print(f"  {node}: {shape} neurons" + (f", predicted from {parents}" if parents else ", given"))

    console.print()
    console.rule("2. Check: which initial states it admits, in training and at test time", align="left")
    console.print(check(graph, clamped={"training": {"x", "y"}, "test": {"x"}}))

    console.rule("3. Train by predictive coding, starting from a forward sweep", align="left")
    torch.set_num_threads(1)  # products this small only wait for one another
    net = PCNetwork(graph, seed=0)
    unseen = test.batches(len(test), shuffle=False)
    history = fit(
        net,
        train.batches(50, seed=0),
        clamp=("x", "y"),
        init=Forward(),
        steps=5,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3),
        state_optimizer=SGD(lr=0.01),
        epochs=3 if quick else 10,
        validate=unseen,
        measure_every=5,
        progress=True,
    )
    result = evaluate(net, unseen, given="x", predict="y")
    console.print(f"\nTest accuracy: [bold]{result.accuracy:.1%}[/] of {result.samples} images not trained on.")

    drawing.graph(graph, {"x", "y"}, out / "graph.png")
    drawing.learning_curve(history, out / "learning.png", title="Digits", judged="test")
    console.print(f"Pictures: {out / 'graph.png'} and {out / 'learning.png'}")
