"""A graph with two kinds of vertices and four relations: relations as terms of one sum, and as errors of their own.

    python examples/heterogeneous.py [--quick] [--out runs/heterogeneous] [--seeds 0 1 2 3 4]

The documents are those of ``citations.py``, modules of SymPy, which comes with torch. Here each citation has a
direction, and what a module imports is a vertex too: 200 names, which are told apart by who takes them alone. So there
are HeteroData of torch_geometric: documents cite documents and are cited by them, documents take names, and names are
taken by documents. ``pcgraph.pyg.from_hetero`` makes networks of them:

* ``sums``: every relation has a weight of its own, and what comes in is added up, as in R-GCN;
* ``slots``: a document is predicted by its own words, and by each relation with an error of its own; the answer is then
  found by inference, since a sweep reads the main predictions alone;
* ``words``: no relations, to see what they are worth.

The seed draws the split: twenty known documents a class, a hundred that choose the epoch, the rest is the test. It
takes some minutes on one core and downloads nothing.

Reference: M. Schlichtkrull et al., "Modeling Relational Data with Graph Convolutional Networks", 2018, Eq. 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from citations import CLASSES, citation_graph, documents, read, split
from rows import Store, arguments, run, spread
from torch import Tensor
from torch_geometric.data import Data, HeteroData

import pcgraph
from pcgraph.drawing import style
from pcgraph.learning import Backprop
from pcgraph.pyg import KnownRows, accuracy, clamps, from_hetero

NAMES = 200
NETWORKS = {"words": ("standard", "backprop"), "sums": ("standard", "backprop"), "slots": ("standard",)}
RULES = {"standard": "predictive coding", "backprop": "backprop"}
MOVE = pcgraph.SGD(lr=0.05)


def relations(x: Tensor) -> HeteroData:
    """Documents, of features `x`, and the names that they import; a relation for each way to read a line of imports."""
    paths, _ = documents()
    place = {name: i for i, name in enumerate(paths)}
    cited = {name: read(path, name)[1] for name, path in paths.items()}
    taken = {name: {each.rpartition(".")[2] for each in found if each not in place} for name, found in cited.items()}
    known = [name for name, _ in Counter(each for found in taken.values() for each in sorted(found)).most_common(NAMES)]
    cites = [
        (i, place[other]) for name, i in place.items() for other in cited[name] if other in place and other != name
    ]
    takes = [(i, known.index(each)) for name, i in place.items() for each in taken[name] if each in known]
    data = HeteroData()
    data["document"].x, data["name"].x = x, torch.eye(len(known))
    for source, to, there, back, pairs in (
        ("document", "document", "cites", "cited by", sorted(cites)),
        ("document", "name", "takes", "taken by", sorted(takes)),
    ):
        edge_index = torch.tensor(pairs).t()
        data[source, there, to].edge_index, data[to, back, source].edge_index = edge_index, edge_index.flip(0)
    return data


def declare(data: HeteroData, network: str) -> Any:
    """The network of a kind."""
    if network == "words":
        data = HeteroData({"document": {"x": data["document"].x}})
    relations = "slots" if network == "slots" else "buckets"
    return from_hetero(
        data, "document", CLASSES, activation="relu", relations=relations, precision=0.3, energy=KnownRows()
    )


def measured(data: HeteroData, whole: Data, network: str, rule: str, seed: int, epochs: int) -> dict[str, object]:
    """Test accuracy at the epoch that judges best, in percent."""
    cut = split(whole, seed)
    net = pcgraph.PCNetwork(declare(data, network), seed=seed)
    given = {node: value for node, value in clamps(data).items() if node in net.graph}
    known = {**given, "y": clamps(cut, mask="train_mask", classes=CLASSES)["y"]}
    found: list[dict[str, float]] = []

    def judge(net: pcgraph.PCNetwork) -> dict[str, float]:
        told = answer(net, given, network)
        found.append({name: accuracy(told, cut, f"{name}_mask") for name in ("val", "test")})
        return found[-1]

    how = {"init": pcgraph.Forward(), "steps": 10, "state_optimizer": MOVE}
    pcgraph.fit(
        net, [known], epochs=epochs, validate=judge, progress=False,
        optimizer=torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=5e-4),
        **({"rule": Backprop(), "predict": "y"} if rule == "backprop" else how),
    )  # fmt: skip
    best = max(found, key=lambda each: each["val"])
    return {"network": network, "rule": rule, "seed": seed, "told": round(100 * best["test"], 2)}


def answer(net: pcgraph.PCNetwork, given: dict[Any, Tensor], network: str) -> Tensor:
    """By a sweep; with slots by inference from it."""
    if network == "slots":
        return net.predict(given, "y", init=pcgraph.Forward(), steps=30, optimizer=pcgraph.SGD(lr=0.2))
    return net.predict(given, "y")


def table(rows: Sequence[dict[str, str]]) -> str:
    """Means over the splits, and their standard deviations, as Markdown."""
    lines = ["| network | predictive coding (%) | backprop (%) |", "|---|---|---|"]
    for network in NETWORKS:
        cells = []
        for rule in RULES:
            found = [float(row["told"]) for row in rows if (row["network"], row["rule"]) == (network, rule)]
            cells.append(spread(found) if found else "–")
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]], path: Path) -> None:
    """A mark a split: documents told, by network and rule."""
    figure, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    for k, (rule, label) in enumerate(RULES.items()):
        some = [row for row in rows if row["rule"] == rule]
        at = [list(NETWORKS).index(row["network"]) + 0.2 * k - 0.1 for row in some]
        ax.plot(at, [float(row["told"]) for row in some], **style.look(k) | {"linestyle": "none"}, label=label)
    ax.set_xticks(range(len(NETWORKS)), list(NETWORKS))
    ax.set(ylabel="test documents told (%)", xlim=(-0.5, len(NETWORKS) - 0.5))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "heterogeneous")
    whole, epochs = citation_graph(), 5 if args.quick else 100
    data = relations(whole.x)
    print(", ".join(f"{data[kind].num_edges} {' '.join(kind)}" for kind in data.edge_types))
    wanted = [{"network": network, "rule": rule, "seed": seed}
              for network, rules in NETWORKS.items() for rule in rules for seed in args.seeds]  # fmt: skip

    def one(network: str, rule: str, seed: int) -> dict[str, object]:
        return measured(data, whole, network, rule, seed, epochs)

    run(args, "heterogeneous", wanted, one, table)
    picture(Store(args.out / "heterogeneous.csv", list(wanted[0])).rows, args.out / "heterogeneous.png")


if __name__ == "__main__":
    main()
