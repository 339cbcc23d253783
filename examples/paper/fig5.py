"""Figure 5: test accuracy over the number of inference steps T that are used in training, for fractions of the data.

    python examples/paper/fig5.py --full --processes 2         # resumes where it was stopped
    python examples/paper/fig5.py --quick                      # digits and a small network, for the tests

The paper takes the best of its whole grid for every T. Here the settings are those that search.py chose for a method
and a fraction, with another T: what the figure shows is the effect of T alone. Accuracies are those on the test set
after the epoch that is best on the validation images. The runs at the chosen T are those of Table 1.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
from classifier import Records, Run, work
from common import MISSING, arguments, percent, save, table
from grid import MLP
from search import FULL, QUICK, Search
from table1 import go, runs_of

from pcgraph.drawing.style import SMALL, look

__all__ = ["draw", "make_table"]

METHODS = ("Forward", "Average")
FRACTIONS = (1.0, 0.5, 0.25)


def cell(
    search: Search, method: str, fraction: float, steps: int, seeds: tuple[int, ...], records: Records
) -> list[Run]:
    """The trainings of one point; none while no setting is chosen."""
    runs = runs_of(search, method, fraction, seeds, records)
    return [replace(run, setting=replace(run.setting, steps=steps)) for run in runs]


def jobs(search: Search, seeds: tuple[int, ...], records: Records) -> Iterator[list[Run]]:
    """What is trained, the first seed of every point before the others, and small fractions before large ones."""
    for some in (seeds[:1], seeds[1:]):
        for fraction in reversed(MLP.fractions):
            yield [r for t in MLP.steps for m in METHODS for r in cell(search, m, fraction, t, some, records)]


def accuracies(runs: list[Run], records: Records) -> list[float]:
    """Test accuracies after the best epoch by validation, of the runs that are there and did not diverge."""
    return [float(row["test_by_validation"]) for row in records.finished(runs) if row["outcome"] == "ok"]


def make_table(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> str:
    """Mean ± standard error over seeds."""
    search, records = QUICK if quick else FULL, Records(folder, "classifier")
    rows = []
    for method in METHODS:
        for fraction in MLP.fractions:
            points = [accuracies(cell(search, method, fraction, t, seeds, records), records) for t in MLP.steps]
            rows.append([method, f"{fraction:.0%}", *(percent(p, len(seeds)) if p else MISSING for p in points)])
    return table(["initialization", "training data", *(f"T = {t}" for t in MLP.steps)], rows)


def draw(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Accuracy over T: a panel for each method, a line for each fraction; bars are standard deviations."""
    search, records = QUICK if quick else FULL, Records(folder, "classifier")
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axes, method in zip(panels, METHODS, strict=True):
        for k, fraction in enumerate(FRACTIONS):
            points = {t: accuracies(cell(search, method, fraction, t, seeds, records), records) for t in MLP.steps}
            found = {t: p for t, p in points.items() if p}
            means = [statistics.mean(p) for p in found.values()]
            spread = [statistics.stdev(p) if len(p) > 1 else 0.0 for p in found.values()]
            label = f"{fraction:.0%} of the data"
            axes.errorbar(list(found), means, spread, ms=4, capsize=2, **look(k), label=label)
        axes.set(title=method, xlabel="inference steps T in training", xticks=MLP.steps)
        axes.legend(frameon=False, fontsize=SMALL, loc="lower right")
    panels[0].set_ylabel("test accuracy (%)")
    figure.savefig(folder / "fig5.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Train what is missing, write the table and the picture."""
    args = arguments(__doc__, "fig5", processes={"type": int, "default": 1, "help": "trainings at once"})
    search, records = QUICK if args.quick else FULL, Records(args.out, "classifier")
    go(search, MLP.fractions, args.seeds, records, args.processes)
    for runs in jobs(search, args.seeds, records):
        work(runs, records, args.processes)
    rows = records.finished(run for runs in jobs(search, args.seeds, records) for run in runs)
    save(args.out, "fig5", make_table(args.out, args.quick, args.seeds), rows)
    draw(args.out, args.quick, args.seeds)


if __name__ == "__main__":
    main()
