"""A transformer learns the characters of a text by predictive coding, and by backpropagation of the same graph.

The text is that of Python's own help, which ships with it (``pydoc_data.topics``). A causal transformer of one block
predicts the next character at each of 24 places; what counts is the perplexity on a part of the text that it has not
seen: the exponential of the mean negative log-likelihood of a character, so that a guess among all has their number.

    python examples/characters.py [--quick] [--out runs/characters]
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.nn.functional import one_hot

import pcgraph
from pcgraph.learning import Backprop

LENGTH, WIDTH, BATCH = 24, 32, 32
RULES = ("predictive coding", "backprop")


def text(characters: int = 60_000) -> str:
    """The first characters of Python's help, in lower case, with what is rare as a space."""
    whole = " ".join(" ".join(topics[name].lower().split()) for name in sorted(topics))[:characters]
    common = {c for c in set(whole) if whole.count(c) >= 50}
    return "".join(c if c in common else " " for c in whole)


def windows(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """All places and what follows them, (windows, LENGTH) each."""
    parts = numbers.unfold(0, LENGTH + 1, LENGTH)
    return parts[:, :-1], parts[:, 1:]


def perplexity(net: pcgraph.PCNetwork, x: Tensor, y: Tensor) -> float:
    logits = net.predict({"x": x}, "y")
    return math.exp(torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()))


def train(rule: str, seed: int, numbers: Tensor, tokens: int, steps: int, every: int) -> list[dict]:
    """A row for the untrained network, and for each `every` steps of training."""
    cut = len(numbers) * 9 // 10
    (x, y), unseen = windows(numbers[:cut]), windows(numbers[cut:])
    net = pcgraph.PCNetwork(pcgraph.graphs.transformer(tokens, LENGTH, width=WIDTH), seed=seed)
    how: dict = {"init": pcgraph.Forward(), "steps": 5, "state_optimizer": pcgraph.SGD(lr=pcgraph.Following(0.1))}
    if rule == "backprop":
        how = {"rule": Backprop()}
    rows = [{"rule": rule, "seed": seed, "step": 0, "perplexity": round(perplexity(net, *unseen), 3)}]
    optimizer, generator = torch.optim.Adam(net.parameters(), lr=3e-3), torch.Generator().manual_seed(seed)
    for step in range(every, steps + 1, every):
        picks = (torch.randint(len(x), (BATCH,), generator=generator) for _ in range(every))
        batches = [(x[i], one_hot(y[i], tokens).float()) for i in picks]
        pcgraph.fit(net, batches, optimizer=optimizer, epochs=1, progress=False, **how)
        rows.append({"rule": rule, "seed": seed, "step": step, "perplexity": round(perplexity(net, *unseen), 3)})
    return rows


def table(rows: list[dict]) -> str:
    """Perplexities at the end, a row each rule and a column each seed, as Markdown."""
    seeds = sorted({str(row["seed"]) for row in rows})
    last = max(int(row["step"]) for row in rows)
    head = f"| perplexity after {last} steps | " + " | ".join(f"seed {seed}" for seed in seeds) + " |"
    lines = [head, "|---" * (len(seeds) + 1) + "|"]
    for rule in RULES:
        at = {str(r["seed"]): float(r["perplexity"]) for r in rows if r["rule"] == rule and int(r["step"]) == last}
        lines.append(f"| {rule} | " + " | ".join(f"{at[seed]:.2f}" for seed in seeds) + " |")
    return "\n".join(lines)


def picture(rows: list[dict], tokens: int, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for rule, colour, dash in zip(RULES, ("#D55E00", "#0072B2"), ("-", "--")):
        for seed in sorted({row["seed"] for row in rows}):
            own = [row for row in rows if (row["rule"], row["seed"]) == (rule, seed)]
            label = rule if seed == 0 else None
            axes.plot([r["step"] for r in own], [r["perplexity"] for r in own], dash, color=colour, label=label)
    axes.axhline(tokens, color="grey", linewidth=1)
    place = {"xytext": (-4, -14), "textcoords": "offset points", "ha": "right", "color": "#555555"}
    axes.annotate("a guess among all characters", (max(row["step"] for row in rows), tokens), **place)
    axes.set(xlabel="steps of training", ylabel="perplexity on unseen text", yscale="log")
    axes.set_yticks([12, 15, 20, 30, 40, 50], [12, 15, 20, 30, 40, 50])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and twenty steps")
    parser.add_argument("--out", type=Path, default=Path("runs/characters"), help="where picture and rows go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    learned = text()
    letters = sorted(set(learned))
    numbers = torch.tensor([letters.index(c) for c in learned])
    seeds, steps, every = ((0,), 20, 10) if options.quick else ((0, 1), 200, 25)
    rows = [row for seed in seeds for rule in RULES for row in train(rule, seed, numbers, len(letters), steps, every)]
    with (options.out / "characters.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(letters)} characters")
    print(table(rows))
    picture(rows, len(letters), options.out / "characters.png")
    print(f"Picture: {options.out / 'characters.png'}")


if __name__ == "__main__":
    main()
