"""Figure 2: initializations over the number of inference steps T, and their learning curves.

    python examples/paper/fig2.py --full --processes 2         # resumes where it was stopped
    python examples/paper/fig2.py --quick                      # digits and a small network, for the tests

The paper repeats its whole grid for every initialization and T, with 16 epochs on all of the data. The budget here is
smaller, and the same for every cell: 4 epochs on a quarter of the data, the activation and learning rate of Forward's
best setting in search.py, and a state rate for each cell, chosen of three on the validation images with seed 0. So the
accuracies are below the paper's; what can be compared is their order, and how it changes with T.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
from classifier import Records, Run, work
from common import MISSING, arguments, mean_of, save, table
from fig6 import per_update
from grid import Setting

from pcgraph.drawing.style import SMALL, look

__all__ = ["FULL", "QUICK", "Cells", "draw", "make_table"]

METHODS = ("Zero", "Normal", "Null", "Forward", "Average")


@dataclass(frozen=True)
class Cells:
    """What is trained.

    Attributes
    ----------
    steps : tuple of int
        T, in the order of work.
    alphas : tuple of float
        State rates to choose from.
    base : Run
        What all runs share.
    """

    steps: tuple[int, ...]
    alphas: tuple[float, ...]
    base: Run

    def run(self, method: str, steps: int, alpha: float, seed: int) -> Run:
        """One training."""
        depth = 3 if method == "Average" else 0
        setting = replace(self.base.setting, method=method, steps=steps, alpha=alpha, depth=depth)
        return replace(self.base, setting=setting, seed=seed)

    def alpha(self, method: str, steps: int, records: Records) -> float | None:
        """The state rate that is best on the validation images after the last epoch; None while one is missing."""
        rows = {a: records.row(self.run(method, steps, a, 0)) for a in self.alphas}
        if any(row is None for row in rows.values()):
            return None
        last = {a: records.curve(self.run(method, steps, a, 0)) for a, row in rows.items() if row["outcome"] == "ok"}
        return max(last, key=lambda a: float(last[a][-1]["validation"]), default=None)

    def runs(self, method: str, steps: int, seeds: tuple[int, ...], records: Records) -> list[Run]:
        """The runs of a cell; none while its state rate is not chosen."""
        alpha = self.alpha(method, steps, records)
        return [] if alpha is None else [self.run(method, steps, alpha, seed) for seed in seeds]

    def final(self, method: str, steps: int, seeds: tuple[int, ...], records: Records) -> list[float]:
        """Test accuracies after the last epoch, of the seeds that are there."""
        curves = [records.curve(run) for run in self.runs(method, steps, seeds, records)]
        return [float(curve[-1]["test"]) for curve in curves if len(curve) == self.base.epochs]


FULL = Cells((5, 10, 25, 50, 100), (0.03, 0.1, 0.5), Run(Setting("Forward", "leaky_relu", 3e-4), 0, 4, 0.25))
QUICK = Cells(
    (5, 10), (0.03, 0.1, 0.5),
    Run(Setting("Forward", "relu", 5e-3), 0, 4, 1.0, validation=100, dataset="digits", width=32, batch=50),
)  # fmt: skip


def go(cells: Cells, seeds: tuple[int, ...], records: Records, processes: int) -> None:
    """Train what is missing, the small T first."""
    for steps in cells.steps:
        work((cells.run(m, steps, a, 0) for m in METHODS for a in cells.alphas), records, processes)
        work((run for m in METHODS for run in cells.runs(m, steps, seeds, records)), records, processes)


def make_table(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> str:
    """Test accuracy after the last epoch: mean ± standard error over seeds, and the state rate."""
    cells, records = QUICK if quick else FULL, Records(folder, "fig2")
    rows = []
    for method in METHODS:
        shown = []
        for steps in cells.steps:
            values = cells.final(method, steps, seeds, records)
            part = f", {len(values)} of {len(seeds)} seeds" if len(values) < len(seeds) else ""
            rate = cells.alpha(method, steps, records)
            shown.append(f"{mean_of(values)} (α {rate:g}{part})" if values else MISSING)
        rows.append([method, *shown])
    return table(["initialization", *(f"T = {t}" for t in cells.steps)], rows)


def draw(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Left: curves over epochs at each method's best T, with standard deviations. Right: accuracy over T."""
    cells, records = QUICK if quick else FULL, Records(folder, "fig2")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained")
    for k, method in enumerate(METHODS):
        found = {t: v for t in cells.steps if (v := cells.final(method, t, seeds, records))}
        if not found:
            continue
        spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in found.values()]
        means = [statistics.mean(v) for v in found.values()]
        right.errorbar(list(found), means, spread, ms=4, capsize=2, **look(k), label=method)
        top = max(found, key=lambda t: statistics.mean(found[t]))
        curves = [records.curve(run) for run in cells.runs(method, top, seeds, records)]
        points = list(zip(*([float(p["test"]) for p in c] for c in curves if c), strict=True))
        means = [statistics.mean(p) for p in points]
        spread = [statistics.stdev(p) if len(p) > 1 else 0.0 for p in points]
        smm = per_update(cells.run(method, top, cells.alphas[0], 0).setting)
        epochs = range(1, len(points) + 1)
        label = f"{method}, T = {top} ({smm} SMMs an update)"
        left.plot(epochs, means, ms=4, **look(k), label=label)
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        left.fill_between(epochs, low, high, color=look(k)["color"], alpha=0.15, lw=0)
    left.set(xlabel="epoch", ylabel="test accuracy (%)", xticks=range(1, cells.base.epochs + 1))
    right.set(xlabel="inference steps T", xscale="log", ylabel="test accuracy (%)")
    right.set_xticks(cells.steps, [str(t) for t in cells.steps])
    right.minorticks_off()
    for axes in (left, right):
        if axes.lines:
            axes.legend(frameon=False, fontsize=SMALL, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.savefig(folder / "fig2.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Train what is missing, write the table and the picture."""
    args = arguments(__doc__, "fig2", processes={"type": int, "default": 1, "help": "trainings at once"})
    records = Records(args.out, "fig2")
    go(QUICK if args.quick else FULL, args.seeds, records, args.processes)
    save(args.out, "fig2", make_table(args.out, args.quick, args.seeds), records.runs.rows)
    draw(args.out, args.quick, args.seeds)


if __name__ == "__main__":
    main()
