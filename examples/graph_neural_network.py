"""A graph neural network that learns by predictive coding: layers of torch_geometric as edges, against backprop.

Run ``python examples/graph_neural_network.py [--quick] [--out FOLDER]``; it takes some minutes on one core.

The graph is Zachary's karate club, 34 members who split into two clubs. Of four members it is known which club they
joined; the network is to tell it of the others, from who knew whom. The node ``y`` has a row for every member, and an
energy that counts the known rows alone. Backprop gets the same layers with the same first weights, and the same loss.

Two things widen the distance to backprop, and are measured, too. One is a larger rate of the states: the further they
move, the less the weights learn what backprop would teach them. The other is to clamp the known rows and to leave the
rest free (``pcgraph.Masked``) instead of an energy of one's own: a free row starts at its prediction and lags behind
when that moves, so that the network also learns to stand by its first guess.
"""

import argparse
import copy
import csv
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx
import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg

import pcgraph
from pcgraph.drawing import style
from pcgraph.transforms import GraphLayer

KARATE = nx.karate_club_graph()
EDGE_INDEX = torch.tensor([edge for u, v in KARATE.edges for edge in ((u, v), (v, u))]).t()
CLUB = torch.tensor([int(club == "Officer") for _, club in KARATE.nodes(data="club")])
X, Y = torch.eye(34)[None], torch.eye(2)[CLUB][None]  # a batch of one graph; members have no features but who they are
HIDDEN = 16
LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "GCNConv": pyg.GCNConv,
    "SAGEConv": pyg.SAGEConv,
    "GATConv": pyg.GATConv,
    "GINConv": lambda inputs, outputs: pyg.GINConv(nn.Linear(inputs, outputs)),
}


class KnownRows(pcgraph.energies.Energy):
    """Half the squared error of the rows that say something; a row of zeros says nothing and costs nothing."""

    zero_at_prediction = True

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return 0.5 * ((h - mu) * h.any(-1, keepdim=True)).flatten(1).square().sum(1)


def declare(first: nn.Module, second: nn.Module) -> nx.DiGraph:
    """A chain x -> h -> y with a layer of torch_geometric on each edge. Layers bring a bias; nodes need none."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(34, 34))
    graph.add_node("h", shape=(34, HIDDEN), activation="tanh", bias=False)
    graph.add_node("y", shape=(34, 2), bias=False)
    graph.add_edge("x", "h", transform=GraphLayer(first, EDGE_INDEX))
    graph.add_edge("h", "y", transform=GraphLayer(second, EDGE_INDEX))
    return graph


def known_members(split: int) -> Tensor:
    """Which members' club is known, shape (34,): two of either club, drawn by the number of the split."""
    generator = torch.Generator().manual_seed(split)
    known = torch.zeros(34, dtype=torch.bool)
    for club in (0, 1):
        members = (club == CLUB).nonzero().flatten()
        known[members[torch.randperm(len(members), generator=generator)[:2]]] = True
    return known


def predictive_coding(layers: list[nn.Module], known: Tensor, epochs: int, rate: float = 0.02) -> Tensor:
    """What the network answers for every member, shape (34, 2), after learning from the known ones."""
    graph = declare(*layers)
    graph.nodes["y"]["energy"] = KnownRows()
    return train(pcgraph.PCNetwork(graph), Y * known[:, None], epochs, rate)


def larger_rate(layers: list[nn.Module], known: Tensor, epochs: int) -> Tensor:
    """The same with states that move five times as far."""
    return predictive_coding(layers, known, epochs, rate=0.1)


def free_rows(layers: list[nn.Module], known: Tensor, epochs: int) -> Tensor:
    """The same with the usual energy, and the rows that are not known free."""
    y = pcgraph.Masked(Y, known[None, :, None].expand_as(Y))
    return train(pcgraph.PCNetwork(declare(*layers)), y, epochs, rate=0.1)


def train(net: pcgraph.PCNetwork, y: Tensor | pcgraph.Masked, epochs: int, rate: float) -> Tensor:
    weights = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(epochs):
        weights.zero_grad()
        net.infer({"x": X, "y": y}, init=pcgraph.Forward(), steps=10, optimizer=pcgraph.SGD(lr=rate)).backward()
        weights.step()
    return net.predict({"x": X}, "y")[0]


def backprop(layers: list[nn.Module], known: Tensor, epochs: int) -> Tensor:
    """The same by torch_geometric and autograd alone."""
    first, second = layers
    weights = torch.optim.AdamW([*first.parameters(), *second.parameters()], lr=0.01)
    for _ in range(epochs):
        weights.zero_grad()
        answer = second(first(X[0], EDGE_INDEX).tanh(), EDGE_INDEX)
        (0.5 * (answer - Y[0])[known].square().sum()).backward()
        weights.step()
    return second(first(X[0], EDGE_INDEX).tanh(), EDGE_INDEX).detach()


RULES = (predictive_coding, larger_rate, free_rows, backprop)


def compare(name: str, split: int, epochs: int = 100) -> tuple[dict, Tensor]:
    """Accuracies on the members whose club was not known, in percent; and what predictive coding answers."""
    torch.manual_seed(split)
    layers = [LAYERS[name](34, HIDDEN), LAYERS[name](HIDDEN, 2)]
    known = known_members(split)
    answers = {learn.__name__: learn(copy.deepcopy(layers), known, epochs) for learn in RULES}
    right = {rule: (answer.argmax(1) == CLUB)[~known].float().mean() for rule, answer in answers.items()}
    row: dict = {"layer": name, "split": split}
    row |= {rule: round(100 * part.item(), 2) for rule, part in right.items()}
    return row, answers["predictive_coding"]


def table(rows: list[dict]) -> str:
    """Means over the splits, and the distance to backprop with its standard error, as Markdown."""
    lines = [
        "| layer | backprop (%) | predictive coding (%) | difference (points) | rate 0.1 (%) | and free rows (%) |",
        "|---|---|---|---|---|---|",
    ]
    for name in LAYERS:
        pc, larger, free, bp = (
            torch.tensor([float(row[rule.__name__]) for row in rows if row["layer"] == name]) for rule in RULES
        )
        gap = f"{(pc - bp).mean():+.1f} ± {(pc - bp).std() / len(pc) ** 0.5:.1f}"
        means = [f"{accuracy.mean():.1f}" for accuracy in (bp, pc, larger, free)]
        lines.append(f"| {name} | " + " | ".join([*means[:2], gap, *means[2:]]) + " |")
    return "\n".join(lines)


def picture(rows: list[dict], answer: Tensor, known: Tensor, path: Path) -> None:
    """What one network answers, on the graph; and every split of every layer, for each way to learn."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 9), height_ratios=(5, 4), layout="constrained")
    place = nx.spring_layout(KARATE, seed=1)
    nx.draw_networkx_edges(KARATE, place, ax=upper, edge_color="lightgrey")
    for shape, shown in (("s", known), ("o", ~known)):
        members = shown.nonzero().flatten().tolist()
        drawn = nx.draw_networkx_nodes(
            KARATE, place, members, ax=upper, node_shape=shape, node_color=answer[members, 1].tolist(), vmin=0, vmax=1,
            cmap=style.MAP, edgecolors=style.INK,
        )  # fmt: skip
    wrong = (answer.argmax(1) != CLUB).nonzero().flatten().tolist()
    across, up = zip(*(place[member] for member in wrong)) if wrong else ((), ())
    upper.plot(across, up, "X", color=style.RED, markeredgecolor="white", markersize=11)
    figure.colorbar(drawn, ax=upper, label="answer: 0 for one club, 1 for the other", shrink=0.7)
    upper.set_title("one split: squares were known, crosses are wrong")
    upper.axis("off")
    for i, rule in enumerate(RULES):
        own = style.look(i) | {"linestyle": "none"}
        for j, name in enumerate(LAYERS):
            found = torch.tensor([float(row[rule.__name__]) for row in rows if row["layer"] == name])
            at = j + 0.2 * (i - 1.5)
            lower.plot([at] * len(found), found, **own, markersize=5, alpha=0.2)
            lower.plot(at, found.mean(), "_", color="white", markersize=17, markeredgewidth=6)
            lower.plot(at, found.mean(), "_", color=style.INK, markersize=15, markeredgewidth=3)
        lower.plot([], [], **own, label=rule.__name__.replace("_", " "))
    lower.set_xticks(range(len(LAYERS)), list(LAYERS))
    lower.set(ylabel="accuracy on members not known (%)", title="a mark a split, a bar the mean")
    lower.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two splits and twenty epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/graph_neural_network"), help="where picture and rows go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    count, epochs = (2, 20) if options.quick else (30, 100)
    splits = range(100, 100 + count)  # settings were tried on others, from 0 on
    done = {(name, split): compare(name, split, epochs) for name in LAYERS for split in splits}
    rows = [row for row, _ in done.values()]
    with (options.out / "graph_neural_network.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))
    picture(rows, done["GCNConv", 100][1], known_members(100), options.out / "graph_neural_network.png")
    print(f"Picture: {options.out / 'graph_neural_network.png'}")


if __name__ == "__main__":
    main()
