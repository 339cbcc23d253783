"""A node for every vertex: known labels spread over a graph by inference alone, with nothing to learn.

    python examples/label_propagation.py [--quick] [--out runs/label_propagation]

``graphs.from_data`` makes a network with a node for each member of Zachary's karate club, and an edge for each
acquaintance. Edges hand their source on as it is, scaled so that each member is predicted by the mean of those whom it
knows. Four members are clamped to the club that they joined, drawn as in ``graph_neural_network.py``; inference finds
the others, on a graph that is all cycles.

    F = sum over v of 1/2 ||h_v - mean of h_u over the neighbours u||^2

If the known members count as well (``all``), that is a least-squares problem of its own; where their energy is ``zero``
(``free``), its minimum is zero, and every free member is the mean of its neighbours: the harmonic function of label
propagation. ``exact`` solves the linear equations of that.

It takes some seconds and downloads nothing.

Reference: X. Zhu, Z. Ghahramani, J. Lafferty, "Semi-Supervised Learning Using Gaussian Fields and Harmonic Functions",
2003, Eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import torch
from graph_neural_network import CLUB, EDGE_INDEX, KARATE, known_members
from rows import Store, arguments, mean_and_range, run
from torch import Tensor
from torch_geometric.data import Data

import pcgraph
from pcgraph import pyg
from pcgraph.drawing import style

WAYS = {"all": "all members", "free": "free members", "exact": "harmonic function, solved"}


def club(known: Tensor) -> Data:
    return Data(x=torch.eye(2, dtype=torch.float64)[CLUB], y=CLUB, edge_index=EDGE_INDEX, known=known)


def declare(data: Data, way: str) -> nx.DiGraph:
    """Each member is predicted by the mean of its neighbours."""
    graph = pcgraph.graphs.from_data(data, bias=False)
    for v, d in graph.nodes(data=True):
        d["energy"] = "zero" if way == "free" and data.known[v] else "gaussian"
    for _, v, d in graph.edges(data=True):
        d.update(transform="identity", scale=1 / graph.in_degree(v))
    return graph


def inferred(data: Data, way: str) -> Tensor:
    """What each member is, (34, 2): the known ones clamped, the others from zero."""
    net = pcgraph.PCNetwork(declare(data, way), dtype=torch.float64)
    known = pyg.clamps(data, by="vertices", mask="known")
    found = net.infer(known, init=pcgraph.Zero(), steps=200, optimizer=pcgraph.LBFGS())
    return torch.cat([found.states[v] for v in range(len(CLUB))])


def exact(data: Data) -> Tensor:
    """The harmonic function, by linear equations."""
    means = torch.zeros(len(CLUB), len(CLUB), dtype=torch.float64)
    means[data.edge_index[1], data.edge_index[0]] = 1.0
    means /= means.sum(1, keepdim=True)
    free, found = ~data.known, data.x.clone()
    left = torch.eye(int(free.sum()), dtype=torch.float64) - means[free][:, free]
    found[free] = torch.linalg.solve(left, means[free][:, data.known] @ data.x[data.known])
    return found


def answer(data: Data, way: str) -> Tensor:
    return exact(data) if way == "exact" else inferred(data, way)


def measured(way: str, split: int) -> dict[str, object]:
    """Percent of the members who are not known, and how far the answers are from the harmonic function at most."""
    data = club(known_members(split))
    found = answer(data, way)
    right = (found.argmax(1) == CLUB)[~data.known].double().mean()
    far = (found - exact(data)).abs().max()
    return {"way": way, "split": split, "told": round(100 * float(right), 2), "off": f"{float(far):.1e}"}


def table(rows: Sequence[dict[str, str]]) -> str:
    """Means over the splits with the lowest and the highest, as Markdown."""
    lines = ["| energies of | members told (%) | off the harmonic function, at most |", "|---|---|---|"]
    for way, name in WAYS.items():
        some = [row for row in rows if row["way"] == way]
        far = max(float(row["off"]) for row in some)
        lines.append(f"| {name} | {mean_and_range(some, 'told')} | {f'{far:.1e}' if far else 0} |")
    return "\n".join(lines)


def picture(path: Path, split: int) -> None:
    """Whom each member is taken to belong to, on the graph, for one split."""
    data = club(known_members(split))
    place = nx.spring_layout(KARATE, seed=1)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for ax, way in zip(axes, ("all", "free")):
        found = inferred(data, way)
        nx.draw_networkx_edges(KARATE, place, ax=ax, edge_color=style.GREY, width=0.5)
        for mark, shown in (("s", data.known), ("o", ~data.known)):
            members = shown.nonzero().flatten().tolist()
            drawn = nx.draw_networkx_nodes(
                KARATE, place, members, ax=ax, node_shape=mark, node_size=140, vmin=0, vmax=1, cmap=style.MAP,
                node_color=found[members, 1].tolist(), edgecolors=style.INK,
            )  # fmt: skip
        wrong = (found.argmax(1) != CLUB).nonzero().flatten().tolist()
        across, up = zip(*(place[member] for member in wrong)) if wrong else ((), ())
        ax.plot(across, up, "X", color=style.RED, markeredgecolor="white", markersize=10)
        ax.set_title(f"energies of {WAYS[way]}")
        ax.axis("off")
    figure.colorbar(drawn, ax=axes, label="0 for one club, 1 for the other", shrink=0.8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "label_propagation", splits={"type": int, "default": 30})
    splits = range(100, 100 + (2 if args.quick else args.splits))
    wanted = [{"way": way, "split": split} for way in WAYS for split in splits]
    run(args, "label_propagation", wanted, measured, table)
    told = {row["split"]: row for row in Store(args.out / "label_propagation.csv", ["way", "split"]).where(way="free")}
    print(f"Picture of split {min(told)}: {args.out / 'label_propagation.png'}")
    picture(args.out / "label_propagation.png", int(min(told)))


if __name__ == "__main__":
    main()
