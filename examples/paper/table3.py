"""Table 3: seconds of training to the best accuracy that Forward and Average share.

    python examples/paper/table3.py --full         # reads Table 1's rows; trains what is missing there
    python examples/paper/table3.py --quick        # digits and a small network, for the tests

The best shared accuracy of a seed is the smaller of both methods' best test accuracies. Seconds are those of training
without evaluation: the weight updates up to the end of the first epoch that reaches it, times the median seconds of an
update, which are measured for both methods in turn, with one thread, so that other programs disturb both alike. The
paper's seconds are those of a GPU: only their ratio can be compared.
"""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path

import matplotlib.pyplot as plt
from classifier import Records, Run, make, sets, update_of
from common import MISSING, NOT_RUN, Store, arguments, available, mean_of, save, table, versions
from search import FULL, QUICK, Search, search_for
from table1 import go, runs_of

__all__ = ["draw", "make_table", "reached"]

PAPER = {"mnist": (4.71, 1.38), "kmnist": (2.82, 0.66), "fashion-mnist": (4.42, 2.19)}
"""Seconds of Forward and of Average."""
PAIR = ("Forward", "Average")
WARM, TIMED = 20, 120
"""Updates of each method that are not counted, and that are."""


def curves(search: Search, fraction: float, seeds: tuple[int, ...], records: Records) -> dict[int, list[list[dict]]]:
    """Seed to the curves of both methods, where both are there."""
    found: dict[int, list[list[dict]]] = {}
    for seed in seeds:
        runs = [r for m in PAIR for r in runs_of(search, m, fraction, (seed,), records)]
        both = [records.curve(r) for r in runs]
        if len(both) == 2 and all(both):
            found[seed] = both
    return found


def reached(curve: list[dict], target: float) -> dict | None:
    """The first point of a curve that reaches an accuracy."""
    return next((point for point in curve if float(point["test"]) >= target), None)


def shared(both: list[list[dict]]) -> tuple[float, list[dict]]:
    """The best shared accuracy, and where each curve reaches it."""
    target = min(max(float(point["test"]) for point in curve) for curve in both)
    return target, [point for curve in both if (point := reached(curve, target)) is not None]


def measure(runs: list[Run]) -> list[dict]:
    """A row for each of the trainings: the median milliseconds of an update, measured in turn."""
    images = sets(runs[0])[0]
    batches = itertools.cycle(list(itertools.islice(images.batches(runs[0].batch, seed=0, stream_aligned=True), 20)))
    updates = [update_of(make(run, images), run) for run in runs]
    taken: list[list[float]] = [[] for _ in runs]
    for x, y in itertools.islice(batches, WARM + TIMED):
        for update, times in zip(updates, taken, strict=True):
            begun = time.perf_counter()
            update(x, y)
            times.append(time.perf_counter() - begun)
    return [
        {"dataset": run.dataset, "method": run.setting.method, "run": run.name,
         "ms": f"{1e3 * statistics.median(times[WARM:]):.3f}", "updates": TIMED, **versions()}
        for run, times in zip(runs, taken, strict=True)
    ]  # fmt: skip


def paces(folder: Path) -> Store:
    """The measured milliseconds of an update."""
    return Store(folder / "table3_pace.csv", ["dataset", "method"])


def seconds(point: dict, search: Search, method: str, records: Records, folder: Path) -> float | None:
    """Of training up to a point of a curve; None where the pace of the chosen setting is not measured."""
    row, pace = records.runs.find(run=point["run"]), paces(folder).find(dataset=search.dataset, method=method)
    first = runs_of(search, method, 1.0, (0,), records)
    if row is None or pace is None or pace["run"] != first[0].name:
        return None
    return int(point["epoch"]) * (int(row["images"]) // int(row["batch"])) * float(pace["ms"]) / 1e3


def make_table(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> str:
    """Mean ± standard error over seeds."""
    records = Records(folder, "classifier")
    header = [
        "data", "paper: seconds", "paper: ratio", "best shared accuracy", "epochs (Forward / Average, by seed)",
        "Forward: seconds", "Average: seconds", "ratio",
    ]  # fmt: skip
    rows = []
    for dataset in ["digits"] if quick else PAPER:
        search = QUICK if quick else search_for(dataset)
        paper = PAPER.get(dataset)
        start = [dataset, f"{paper[0]} / {paper[1]}" if paper else "–", f"{paper[1] / paper[0]:.2f}" if paper else "–"]
        found = curves(search, 1.0, seeds, records)
        if not found:
            rows.append([*start, NOT_RUN if not records.runs.where(dataset=dataset) else MISSING, *[""] * 4])
            continue
        points = [shared(both) for both in found.values()]
        epochs = ", ".join(" / ".join(p["epoch"] for p in pair) for _, pair in points)
        taken = [[seconds(p[k], search, PAIR[k], records, folder) for _, p in points] for k in range(2)]
        known = [[s for s in each if s is not None] for each in taken]
        ratios = [a / f for f, a in zip(*taken, strict=True) if a is not None and f is not None]
        shown = [mean_of(values, 1) for values in known]
        rows.append([*start, mean_of([t for t, _ in points]), epochs, *shown, mean_of(ratios)])
    return table(header, rows)


def draw(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Test accuracy over seconds of training, a line for each seed and method."""
    records, search = Records(folder, "classifier"), QUICK if quick else FULL
    found = curves(search, 1.0, seeds, records)
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for n, both in enumerate(found.values()):
        for k, curve in enumerate(both):
            x = [seconds(point, search, PAIR[k], records, folder) or 0.0 for point in curve]
            y = [float(point["test"]) for point in curve]
            axes.plot(x, y, color=f"C{k + 1}", alpha=0.8, lw=1.3, label=PAIR[k] if n == 0 else None)
            point = shared(both)[1][k]
            axes.plot(x[int(point["epoch"]) - 1], float(point["test"]), "o", color=f"C{k + 1}", ms=6)
    axes.set(xlabel="seconds of training", ylabel="test accuracy (%)")
    if found:
        best = max(float(p["test"]) for both in found.values() for c in both for p in c)
        axes.set_ylim(best - (60 if quick else 6), best + (5 if quick else 0.5))
        axes.legend(frameon=False, loc="lower right")
    axes.set_title("First epoch at the best shared accuracy of a seed (dots)", fontsize=10)
    figure.savefig(folder / "table3.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Train and time what is missing, write the table and the picture."""
    args = arguments(__doc__, "table3", processes={"type": int, "default": 1, "help": "trainings at once"})
    records = Records(args.out, "classifier")
    searches = [QUICK] if args.quick else [search_for(dataset) for dataset in PAPER if available(dataset)]
    for search in searches:
        go(search, (1.0,), args.seeds, records, args.processes)
        runs = [run for m in PAIR for run in runs_of(search, m, 1.0, (0,), records)]
        if any(paces(args.out).find(run=run.name) is None for run in runs):
            paces(args.out).add(*measure(runs))
    runs = [run for s in searches for m in PAIR for run in runs_of(s, m, 1.0, args.seeds, records)]
    save(args.out, "table3", make_table(args.out, args.quick, args.seeds), records.finished(runs))
    draw(args.out, args.quick, args.seeds)


if __name__ == "__main__":
    main()
