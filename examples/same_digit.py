"""Do two images show the same digit? A node that multiplies its parents, or gates one by another, beside one that adds.

    python examples/same_digit.py [--quick] [--out runs/same_digit] [--seeds 0 1 2]

Two images predict a code each, through one weight that both edges share. The codes meet in a node, which predicts
whether the digits are the same:

* ``sum``: what codes send is added up, as in every node that declares nothing else; ``sum, tanh`` bends it;
* ``product``: it is multiplied, neuron by neuron (``combine="product"``);
* ``gate``: one code opens the way for the other (``combine="gate"``).

Pairs are drawn from the training images, half of them of one digit, and judged are pairs of test images. It takes a
minute or two on one core, and downloads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import torch
from rows import Store, arguments, mean_and_range, run
from torch import Tensor, nn

import pcgraph
from pcgraph import data, drawing
from pcgraph.drawing import style

CODE = 32
KINDS: dict[str, dict[str, Any]] = {
    "sum": {},
    "sum, tanh": {"activation": "tanh"},
    "product": {"combine": "product"},
    "gate": {"combine": "gate"},
}
ROLES = {"product": ("one", "other"), "gate": ("gate", "value")}


def declare(kind: str) -> nx.DiGraph:
    graph = nx.DiGraph()
    for image, code in (("left", "a"), ("right", "b")):
        graph.add_node(image, shape=64)
        graph.add_node(code, shape=CODE, activation="tanh")
        graph.add_edge(image, code, share="eye")
    graph.add_node("both", shape=CODE, **KINDS[kind])
    graph.add_node("same", shape=1, energy="bernoulli")
    for code, role in zip("ab", ROLES.get(kind, (None, None))):
        maps = {"transform": nn.Linear(CODE, CODE, bias=False), "role": role} if role else {}
        graph.add_edge(code, "both", **maps)
    graph.add_edge("both", "same")
    return graph


def pairs(images: data.Images, count: int, seed: int) -> dict[str, Tensor]:
    """So many pairs, of which every second shows one digit twice, in two images."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randint(len(images), (count,), generator=generator)
    right = left.clone()
    for k, i in enumerate(left.tolist()):
        alike = (images.labels == images.labels[i]) == (k % 2 == 0)
        alike[i] = False
        others = alike.nonzero().flatten()
        right[k] = others[torch.randint(len(others), (1,), generator=generator)]
    same = (images.labels[left] == images.labels[right]).float()[:, None]
    return {"left": images.images[left], "right": images.images[right], "same": same}


def measured(kind: str, seed: int, quick: bool) -> dict[str, object]:
    """Percent of unseen pairs that are judged rightly."""
    torch.manual_seed(seed)  # the maps of a combine are modules, which draw their own weights
    net = pcgraph.PCNetwork(declare(kind), seed=seed)
    seen = pairs(data.load("digits", normalize="unit"), 500 if quick else 5000, seed)
    order = torch.randperm(len(seen["same"]), generator=torch.Generator().manual_seed(seed)).split(50)
    pcgraph.fit(
        net, [{node: values[rows] for node, values in seen.items()} for rows in order], predict="same",
        init=pcgraph.Forward(), steps=8, state_optimizer=pcgraph.SGD(lr=pcgraph.Following(0.1)),
        optimizer=torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.1), epochs=2 if quick else 20,
        progress=False,
    )  # fmt: skip
    unseen = pairs(data.load("digits", "test", normalize="unit"), 2000, 100)
    told = net.predict({node: unseen[node] for node in ("left", "right")}, "same") > 0
    return {"kind": kind, "seed": seed, "told": round(100 * float((told == (unseen["same"] > 0)).float().mean()), 2)}


def table(rows: Sequence[dict[str, str]]) -> str:
    """Means over the seeds with the lowest and the highest, as Markdown."""
    lines = ["| the codes meet by | pairs judged rightly (%) |", "|---|---|"]
    for kind in KINDS:
        lines.append(f"| {kind} | {mean_and_range([row for row in rows if row['kind'] == kind], 'told')} |")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]], path: Path) -> None:
    """The graph that multiplies, and a mark a seed for what each tells."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", width_ratios=(5, 4))
    drawing.graph(declare("product"), {"left", "right", "same"}, ax=axes[0], title="product")
    for k, kind in enumerate(KINDS):
        found = [float(row["told"]) for row in rows if row["kind"] == kind]
        axes[1].plot([k] * len(found), found, **style.look(k) | {"linestyle": "none"})
    axes[1].axhline(50, color=style.INK, linewidth=1, linestyle=":")
    axes[1].annotate("chance", (len(KINDS) - 0.6, 50), (0, 3), textcoords="offset points", ha="right")
    axes[1].set_xticks(range(len(KINDS)), list(KINDS))
    axes[1].set(ylabel="pairs judged rightly (%)", xlim=(-0.5, len(KINDS) - 0.5), ylim=(45, 100))
    axes[1].spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "same_digit")
    wanted = [{"kind": kind, "seed": seed} for kind in KINDS for seed in args.seeds]

    def one(kind: str, seed: int) -> dict[str, object]:
        return measured(kind, seed, args.quick)

    run(args, "same_digit", wanted, one, table)
    picture(Store(args.out / "same_digit.csv", list(wanted[0])).rows, args.out / "same_digit.png")


if __name__ == "__main__":
    main()
