"""Table 1: test accuracy of backpropagation, Forward and Average, on fractions of the training data.

    python examples/paper/table1.py --full --processes 2       # searches settings first (search.py); resumes
    python examples/paper/table1.py --quick                    # digits and a small network, for the tests

Settings are chosen by search.py for each fraction. Two figures are given. "By validation" chooses both, setting and
epoch, on 2000 images that are kept from training, so that "100 %" is 58000 images. "By test" is the paper's way: of the
settings that search.py has trained with three seeds, the one with the highest test accuracy, trained again on the whole
training set, 60000 images, and each seed at its best epoch; it is a little too high, since the test set has chosen it.
Standard errors are over seeds. The paper prints ± without saying what it is: for the difference's error it is taken as
the standard deviation over its three seeds. Data sets whose files are not on this machine are left out.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
from classifier import Records, Run, work
from common import MISSING, NOT_RUN, arguments, available, mean_error, percent, save, table
from grid import METHODS, MLP, Setting
from search import FULL, QUICK, Search, chosen, search_for

from pcgraph.drawing.style import SMALL, look

__all__ = ["PAPER", "draw", "make_table", "runs_of"]

PAPER: dict[str, dict[float, tuple[tuple[float, float], ...]]] = {
    "mnist": {
        1.0: ((98.32, 0.05), (98.26, 0.15), (98.73, 0.07)),
        0.5: ((97.61, 0.28), (97.84, 0.29), (98.41, 0.08)),
        0.25: ((96.79, 0.12), (97.09, 0.09), (97.70, 0.09)),
    },
    "fashion-mnist": {
        1.0: ((89.55, 0.16), (88.50, 0.47), (89.80, 0.20)),
        0.5: ((88.09, 0.10), (87.81, 0.26), (88.88, 0.13)),
        0.25: ((86.58, 0.20), (86.55, 0.57), (87.64, 0.17)),
    },
    "kmnist": {
        1.0: ((92.38, 0.08), (92.13, 0.38), (93.37, 0.29)),
        0.5: ((89.86, 0.52), (90.13, 0.33), (91.87, 0.20)),
        0.25: ((87.18, 0.20), (87.66, 0.24), (89.45, 0.29)),
    },
    "cifar10": {
        1.0: ((75.82, 0.19), (66.72, 1.53), (75.41, 0.39)),
        0.5: ((70.67, 0.28), (64.25, 1.92), (71.37, 0.65)),
        0.25: ((64.41, 0.44), (63.83, 0.77), (66.13, 0.28)),
    },
}
"""Data set, fraction: mean and ± of each of METHODS."""


def runs_of(search: Search, method: str, fraction: float, seeds: tuple[int, ...], records: Records) -> list[Run]:
    """The runs of a cell, with the setting that is best on validation images; none where no setting is chosen yet."""
    search = replace(search, fraction=fraction)
    setting = chosen(search, method, records)
    return [] if setting is None else search.runs(setting, search.rungs[-1], seeds)


def runs_by_test(search: Search, method: str, fraction: float, seeds: tuple[int, ...], records: Records) -> list[Run]:
    """The runs on the whole training set, with the setting of the last rung that is best on test images.

    That is the one whose best test accuracies are highest, in the mean over the seeds. None where the last rung is not
    complete.
    """
    search = replace(search, fraction=fraction)
    at, settings = search.reached(method, records)
    if at + 1 < len(search.rungs):
        return []

    def tested(setting: Setting) -> float:
        rows = records.finished(search.runs(setting, search.rungs[-1]))
        return statistics.mean(float(row["test_by_test"]) for row in rows)

    top = max(settings, key=tested)
    return [replace(run, validation=0) for run in search.runs(top, search.rungs[-1], seeds)]


def go(search: Search, fractions: tuple[float, ...], seeds: tuple[int, ...], records: Records, processes: int) -> None:
    """Search, then train what is missing, the largest fraction first."""
    for fraction in fractions:
        for method in reversed(METHODS):
            replace(search, fraction=fraction).go(method, records, processes)
    for runs in (runs_of, runs_by_test):
        work((r for f in fractions for m in METHODS for r in runs(search, m, f, seeds, records)), records, processes)


def difference(ours: list[float], paper: tuple[float, float]) -> str:
    """Ours less the paper's, and the standard error of that."""
    if len(ours) < 2:
        return MISSING
    mean, error = mean_error(ours)
    return f"{mean - paper[0]:+.2f} ± {math.hypot(error, paper[1] / math.sqrt(3)):.2f}"


def cells(rows: dict[str, list[dict]], seeds: int, paper: tuple[float, float] | None) -> list[str]:
    """What the table says of one method and fraction; `rows` are those chosen by test, and by validation."""
    shown = []
    for by, some in rows.items():
        ok = [float(r[f"test_by_{by}"]) for r in some if r["outcome"] == "ok"]
        fell = len(some) - len(ok)
        shown += [percent(ok, seeds) + (f", {fell} diverged" if fell else ""), difference(ok, paper) if paper else "–"]
    epochs = " ".join(r["epoch_by_validation"] for r in rows["validation"] if r["outcome"] == "ok") or "–"
    return [*shown, epochs]


Rows = dict[tuple[float, str], dict[str, list[dict]]]


def rows_of(dataset: str, quick: bool, seeds: tuple[int, ...], records: Records) -> Rows:
    """Fraction and method to the finished runs of a cell, chosen "by test" and "by validation"."""
    search = QUICK if quick else search_for(dataset)
    return {
        (f, m): {
            "test": records.finished(runs_by_test(search, m, f, seeds, records)),
            "validation": records.finished(runs_of(search, m, f, seeds, records)),
        }
        for f in MLP.fractions for m in METHODS
    }  # fmt: skip


def make_table(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> str:
    """The table, from the rows in a folder; the paper's data sets that have none are "not run"."""
    records = Records(folder, "classifier")
    header = [
        "data", "fraction", "method", "paper", "by test", "− paper", "by validation", "− paper",
        "epochs (by validation)",
    ]  # fmt: skip
    lines: list[list[str]] = []
    for dataset in ["digits"] if quick else list(PAPER):
        ran = bool(records.runs.where(dataset=dataset))
        for (fraction, method), rows in rows_of(dataset, quick, seeds, records).items():
            paper = None if quick else PAPER[dataset][fraction][METHODS.index(method)]
            start = [dataset, f"{fraction:.0%}", method, f"{paper[0]:.2f} ± {paper[1]:.2f}" if paper else "–"]
            lines.append([*start, *(cells(rows, len(seeds), paper) if ran else [NOT_RUN, *[""] * 4])])
    return table(header, lines)


def draw(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Ours and the paper's accuracies, by fraction; bars are standard deviations over seeds."""
    dataset = (QUICK if quick else FULL).dataset
    figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    for (fraction, method), rows in rows_of(dataset, quick, seeds, Records(folder, "classifier")).items():
        k = METHODS.index(method)
        at, first = MLP.fractions.index(fraction) + 0.28 * (k - 1), fraction == MLP.fractions[0]
        for key, shift, fill in (("validation", 0.0, look(k)["color"]), ("test", 0.07, "white")):
            values = [float(r[f"test_by_{key}"]) for r in rows[key] if r["outcome"] == "ok"]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                label = f"{method}, by {key}" if first else None
                mean, colour = statistics.mean(values), look(k)["color"]
                axes.errorbar(at + shift, mean, spread, fmt=look(k)["marker"], color=colour, mfc=fill, label=label)
        if not quick:
            paper = PAPER[dataset][fraction][k]
            label = f"{method}, the paper" if first else None
            axes.errorbar(at - 0.07, *paper, fmt="x", color=look(k)["color"], label=label)
    axes.set(ylabel="test accuracy (%)", xlabel="training data", title=dataset)
    axes.set_xticks(range(len(MLP.fractions)), [f"{f:.0%}" for f in MLP.fractions])
    if axes.containers:
        figure.legend(frameon=False, fontsize=SMALL, ncols=3, loc="outside lower center")
    figure.savefig(folder / "table1.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Run what is missing, write the table."""
    args = arguments(__doc__, "table1", processes={"type": int, "default": 1, "help": "trainings at once"})
    records = Records(args.out, "classifier")
    if args.quick:
        go(QUICK, MLP.fractions, args.seeds, records, args.processes)
    else:
        for dataset in sorted(PAPER, key=lambda name: name != FULL.dataset):
            if available(dataset):
                go(search_for(dataset), MLP.fractions, args.seeds, records, args.processes)
    datasets = [QUICK.dataset] if args.quick else list(PAPER)
    found = [rows_of(d, args.quick, args.seeds, records) for d in datasets]
    rows = {row["run"]: row for each in found for cell in each.values() for some in cell.values() for row in some}
    save(args.out, "table1", make_table(args.out, args.quick, args.seeds), list(rows.values()))
    draw(args.out, args.quick, args.seeds)


if __name__ == "__main__":
    main()
