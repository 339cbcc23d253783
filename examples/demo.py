"""Declare a network, ask what it admits, train it on real images, draw it.

Run with ``make demo``, or ``python examples/demo.py [--quick] [--out FOLDER]``. It uses what any program can use, and
takes some seconds on a laptop.
"""

import argparse
from pathlib import Path

import networkx as nx
import torch
from rich.console import Console

import pcgraph
from pcgraph import data, drawing


def declare() -> nx.DiGraph:
    """A network with a skip connection: images of 8 x 8 in, ten classes out."""
    graph = nx.DiGraph(name="digits")
    graph.add_node("x", shape=64)
    graph.add_node("h1", shape=128, activation="relu")
    graph.add_node("h2", shape=128, activation="relu")
    graph.add_node("y", shape=10)
    graph.add_edges_from([("x", "h1"), ("h1", "h2"), ("h2", "y"), ("h1", "y")])
    return graph


def main() -> None:
    parser = argparse.ArgumentParser(description="pcgraph in one go: declare, check, train, draw.")
    parser.add_argument("--quick", action="store_true", help="three epochs instead of ten")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where the pictures go [runs/demo]")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)

    console.rule("1. Declare: a NetworkX graph of neuron groups", align="left")
    graph = declare()
    for node, shape in graph.nodes(data="shape"):
        parents = ", ".join(graph.predecessors(node))
        console.print(f"  {node}: {shape} neurons" + (f", predicted from {parents}" if parents else ", given"))

    console.print()
    console.rule("2. Check: which initial states it admits, in training and at test time", align="left")
    console.print(pcgraph.check(graph, clamped={"training": {"x", "y"}, "test": {"x"}}))

    console.rule("3. Train by predictive coding, starting from a forward sweep", align="left")
    train, test = data.load("digits"), data.load("digits", "test")
    torch.set_num_threads(1)  # products this small only wait for one another
    net = pcgraph.PCNetwork(graph, seed=0)
    unseen = test.batches(len(test), shuffle=False)
    history = pcgraph.fit(
        net,
        train.batches(50, seed=0),
        clamp=("x", "y"),
        init=pcgraph.Forward(),
        steps=5,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-3),
        state_optimizer=pcgraph.SGD(lr=0.01),
        epochs=3 if options.quick else 10,
        validate=lambda net: {"accuracy": pcgraph.evaluate(net, unseen).accuracy},
        measure_every=5,
        progress=True,
    )
    result = pcgraph.evaluate(net, unseen, given="x", predict="y")
    console.print(f"\nTest accuracy: [bold]{result.accuracy:.1%}[/] of {result.samples} images not trained on.")

    drawing.graph(graph, {"x", "y"}, options.out / "graph.png")
    drawing.learning_curve(history, options.out / "learning.png", title="Digits", judged="test")
    console.print(f"Pictures: {options.out / 'graph.png'} and {options.out / 'learning.png'}")


if __name__ == "__main__":
    main()
