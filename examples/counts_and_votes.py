"""Energies beyond the Gaussian: Poisson for the spikes of neurons, and KL for a class that nobody has told for sure.

    python examples/counts_and_votes.py [--quick] [--out runs/counts_and_votes] [--seeds 0 1 2]

**Spikes.** Thirty simulated neurons prefer a direction each, and answer a stimulus with a few spikes, drawn from a
Poisson distribution. A network x -> h -> y predicts the counts from the direction, with the energy ``poisson`` at y,
whose predictions are logarithms of rates, or with the usual one. Then it is asked the other way: y is clamped to counts
that it has not seen, and inference finds the direction x that explains them best.

**Votes.** Three annotators label digits; the first is right in 70 % of the cases, the others less often, and where one
errs it mostly takes the digit for the one after it. What class an image has nobody says: it is the free node c, which
holds a distribution over classes as logits, predicted by the image and predicting each vote. With the energy ``kl`` an
error of c is a difference between distributions; with the usual one it is a difference between logits.

It takes a minute or two on one core, and downloads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx as nx
import torch
from rows import Store, accuracy, arguments, run, spread
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, TensorDataset

import pcgraph
from pcgraph import data, transforms
from pcgraph.drawing import style

NEURONS, TRIALS = 30, 1000
RIGHT = (0.7, 0.5, 0.4)
"""How often each annotator tells the truth."""


# -- spikes --------------------------------------------------------------------------------------------------------


def rates(direction: Tensor) -> Tensor:
    """Of all neurons, (trials, neurons): at most 3 spikes a trial, at its preferred direction."""
    preferred = torch.arange(NEURONS) * 2 * math.pi / NEURONS
    return 3 * (2 * ((direction[:, None] - preferred).cos() - 1)).exp()


def pointing(direction: Tensor) -> Tensor:
    return torch.stack([direction.cos(), direction.sin()], 1)


def degrees_off(direction: Tensor, found: Tensor) -> Tensor:
    """Between a direction and one found, from 0 to 180."""
    apart = direction - torch.atan2(found[:, 1], found[:, 0])
    return torch.atan2(apart.sin(), apart.cos()).abs() * 180 / math.pi


def best_guess(counts: Tensor) -> Tensor:
    """The most likely of 3600 directions, of who knows the rates: no decoder does better but by luck."""
    tried = torch.arange(3600) * 2 * math.pi / 3600
    known = rates(tried)
    return pointing(tried)[(counts @ known.log().T - known.sum(1)).argmax(1)]


def spikes(energy: str, seed: int, epochs: int) -> dict[str, float]:
    """How far the rates that a network learns are from the true ones, and the directions that it finds for counts."""
    generator = torch.Generator().manual_seed(seed)
    seen, unseen = (torch.rand(n, generator=generator) * 2 * math.pi for n in (TRIALS, 500))
    counts, others = (torch.poisson(rates(each), generator=generator) for each in (seen, unseen))
    graph = pcgraph.graphs.chain([2, 32, NEURONS], activation="tanh")
    graph.nodes["y"]["energy"] = energy
    net = pcgraph.PCNetwork(graph, seed=seed)
    batches = DataLoader(TensorDataset(pointing(seen), counts), 50, shuffle=True, generator=generator)
    pcgraph.fit(
        net, batches, init=pcgraph.Forward(), steps=5, state_optimizer=pcgraph.SGD(lr=0.002), epochs=epochs,
        optimizer=torch.optim.Adam(net.parameters(), lr=5e-3), progress=False,
    )  # fmt: skip
    told = net.predict({"x": pointing(unseen)}, "y")
    learned = told.exp() if energy == "poisson" else told.clamp(min=0.01)  # a rate cannot be negative
    apart = rates(unseen) * (rates(unseen) / learned).log() - rates(unseen) + learned
    found = net.predict(
        {"y": others}, "x", init=pcgraph.Forward(roots=pcgraph.Zero()), steps=500, optimizer=pcgraph.SGD(lr=0.02)
    )
    return {
        "rates_apart": round(apart.sum(1).mean().item(), 4),
        "degrees": round(degrees_off(unseen, found).mean().item(), 2),
        "best_degrees": round(degrees_off(unseen, best_guess(others)).mean().item(), 2),
    }


# -- votes ---------------------------------------------------------------------------------------------------------


def votes(labels: Tensor, seed: int) -> list[Tensor]:
    """What each annotator says, (images,): the truth, else mostly the digit after it, else any."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for right in RIGHT:
        says, which = (torch.rand(len(labels), generator=generator) for _ in range(2))
        wrong = torch.where(which < 0.7, (labels + 1) % 10, torch.randint(10, labels.shape, generator=generator))
        found.append(torch.where(says < right, labels, wrong))
    return found


def declare(energy: str) -> nx.DiGraph:
    """``x -> h -> c``, and c predicts each vote by a table of who confuses what; energy is that of c."""
    graph = pcgraph.graphs.chain([64, 64, 10], activation="relu")
    graph = nx.relabel_nodes(graph, {"y": "c", "h1": "h"})
    graph.nodes["c"]["energy"] = energy
    for k in range(len(RIGHT)):
        confuses = nn.Linear(10, 10, bias=False)
        nn.init.eye_(confuses.weight).data.mul_(3.0)  # to begin with, each is believed
        graph.add_node(f"vote {k}", shape=10, energy="cross_entropy")
        graph.add_edge("c", f"vote {k}", transform=transforms.Sequence([nn.Softmax(1), confuses]))
    return graph


def told(energy: str, seed: int, epochs: int) -> dict[str, float]:
    """How many unseen digits are told, in percent, by what was learned from the votes alone."""
    seen, unseen = data.load("digits"), data.load("digits", "test")
    said = torch.stack([one_hot(vote, 10).float() for vote in votes(seen.labels, seed)], 1)
    if energy == "majority":  # no c of its own: the shares of the votes are what is to be predicted
        graph, known = pcgraph.graphs.chain([64, 64, 10], activation="relu"), {"y": said.mean(1)}
        graph.nodes["y"]["energy"] = "cross_entropy"
    else:
        graph, known = declare(energy), {f"vote {k}": said[:, k] for k in range(len(RIGHT))}
    net = pcgraph.PCNetwork(graph, seed=seed)
    known = {"x": seen.images, **known}
    weights, order = torch.optim.Adam(net.parameters(), lr=1e-3), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        picks = torch.randperm(len(seen), generator=order).split(50)
        batches = [{node: values[i] for node, values in known.items()} for i in picks]
        pcgraph.fit(
            net, batches, init=pcgraph.Forward(), steps=10, state_optimizer=pcgraph.SGD(lr=0.4), optimizer=weights,
            epochs=1, progress=False,
        )  # fmt: skip
    answer = "y" if energy == "majority" else "c"
    return {"told": accuracy(net.predict({"x": unseen.images}, answer), unseen.labels)}


# -- both ----------------------------------------------------------------------------------------------------------

SPIKES, VOTES = ("poisson", "gaussian"), ("kl", "gaussian", "majority")
COLUMNS = {"rates_apart": "rates apart (nats)", "degrees": "direction off (°)", "best_degrees": "best decoder (°)"}


def table(rows: Sequence[dict[str, str]]) -> str:
    """Means over the seeds, and their standard deviations, as Markdown: spikes, and then votes."""
    lines = ["| energy of the counts | " + " | ".join(COLUMNS.values()) + " |", "|---|---|---|---|"]
    for energy in SPIKES:
        found = [row for row in rows if (row["what"], row["energy"]) == ("spikes", energy)]
        lines.append(f"| {energy} | " + " | ".join(spread([float(row[c]) for row in found]) for c in COLUMNS) + " |")
    lines += ["", "| energy of the class | unseen digits told (%) |", "|---|---|"]
    names = {"kl": "kl", "gaussian": "gaussian", "majority": "no such node: shares of the votes"}
    for energy, name in names.items():
        found = [row for row in rows if (row["what"], row["energy"]) == ("votes", energy)]
        lines.append(f"| {name} | {spread([float(row['told']) for row in found])} |")
    return "\n".join(lines)


def picture(rows: Sequence[dict[str, str]], path: Path) -> None:
    """A mark a seed: how far directions are off, and how many digits are told."""
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    for ax, what, energies, column, label in (
        (axes[0], "spikes", SPIKES, "degrees", "direction off (°)"),
        (axes[1], "votes", VOTES, "told", "unseen digits told (%)"),
    ):
        for k, energy in enumerate(energies):
            found = [float(row[column]) for row in rows if (row["what"], row["energy"]) == (what, energy)]
            ax.plot([k] * len(found), found, **style.look(k) | {"linestyle": "none"})
        ax.set_xticks(range(len(energies)), energies)
        ax.set(title=what, ylabel=label, xlim=(-0.5, len(energies) - 0.5))
        ax.spines[["top", "right"]].set_visible(False)
    best = [float(row["best_degrees"]) for row in rows if row["what"] == "spikes"]
    axes[0].axhline(sum(best) / len(best), color=style.INK, linewidth=1, linestyle=":")
    axes[0].annotate(
        "who knows the rates", (0.5, sum(best) / len(best)), (0, 3), textcoords="offset points", ha="center"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    args = arguments(__doc__, "counts_and_votes")
    kinds = {"spikes": (spikes, SPIKES, 4 if args.quick else 60), "votes": (told, VOTES, 2 if args.quick else 20)}
    wanted = [{"what": what, "energy": energy, "seed": seed}
              for what, (_, energies, _) in kinds.items() for energy in energies for seed in args.seeds]  # fmt: skip

    def measure(what: str, energy: str, seed: int) -> dict[str, object]:
        measured, _, epochs = kinds[what]
        return {"what": what, "energy": energy, "seed": seed, **measured(energy, seed, epochs)}

    run(args, "counts_and_votes", wanted, measure, table)
    rows = Store(args.out / "counts_and_votes.csv", list(wanted[0])).rows
    picture(rows, args.out / "counts_and_votes.png")


if __name__ == "__main__":
    main()
