"""Table 3: seconds of training to the best accuracy that Forward and Average share.

    python examples/paper/table3.py --full         # reads Table 1's rows; trains what is missing there
    python examples/paper/table3.py --quick        # digits and a small network, for the tests

The best shared accuracy of a seed is the smaller of both methods' best test accuracies. Seconds are those of training
without evaluation: the weight updates up to the end of the first epoch that reaches it, times the median seconds of an
update, which are measured for all settings in turn, with one thread, so that other programs disturb all alike. The
paper's seconds are those of a GPU: only their ratio can be compared.

Two readings are given. With the settings of Table 1 each method has one setting, that which validation chose for its
accuracy. The paper's table belongs to its Figure 6, which looks at every trained setting: there each method has the
setting that reaches the accuracy first, whichever that is for a seed. Data sets whose files are not on this machine are
left out.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from classifier import Records, make, sets, update_of
from common import MISSING, NOT_RUN, Store, arguments, available, mean_of, save, table, versions
from fig6 import setting_of, whole_runs
from search import FULL, QUICK, Search, search_for
from table1 import go, runs_of

from pcgraph.drawing.style import look

__all__ = ["READINGS", "draw", "make_table", "reached"]

PAPER = {"mnist": (4.71, 1.38), "kmnist": (2.82, 0.66), "fashion-mnist": (4.42, 2.19)}
"""Seconds of Forward and of Average."""
PAIR = ("Forward", "Average")
READINGS = ("Table 1", "the quickest")
"""Whose settings: those of Table 1, or of all that were trained those that reach the accuracy first."""
WARM, TIMED = 10, 60
"""Updates of each setting that are not counted, and that are."""


@dataclass(frozen=True)
class Point:
    """Where a run reaches an accuracy: its row, the epoch, and the seconds of training until then, where known."""

    row: dict[str, str]
    epoch: int
    seconds: float | None

    @property
    def shown(self) -> str:
        """Epochs, and the steps of inference."""
        return f"{self.epoch} (T = {self.row['steps']})"


def reached(curve: list[dict], target: float) -> dict | None:
    """The first point of a curve that reaches an accuracy."""
    return next((point for point in curve if float(point["test"]) >= target), None)


def rows_of(reading: str, search: Search, method: str, seed: int, records: Records) -> list[dict[str, str]]:
    """The finished runs on all of the data that a reading looks at."""
    if reading == READINGS[0]:
        return records.finished(runs_of(search, method, 1.0, (seed,), records))
    return [r for r in whole_runs(search, records) if r["method"] == method and r["seed"] == str(seed)]


def shared(reading: str, search: Search, seed: int, records: Records, folder: Path) -> tuple[float, list[Point]] | None:
    """The best shared accuracy of a seed, and where each method reaches it first; None while a method has no run."""
    rows = [rows_of(reading, search, method, seed, records) for method in PAIR]
    curves = [[(row, curve) for row in each if (curve := records.curve(row["run"]))] for each in rows]
    if not all(curves):
        return None
    target = min(max(float(p["test"]) for _, curve in each for p in curve) for each in curves)
    first = []
    for each in curves:
        points = [
            Point(row, int(at["epoch"]), seconds(row, int(at["epoch"]), folder))
            for row, curve in each if (at := reached(curve, target)) is not None
        ]  # fmt: skip
        first.append(min(points, key=lambda p: float("inf") if p.seconds is None else p.seconds))
    return target, first


KEY = ("dataset", "method", "activation", "steps", "depth")
"""What the time of an update depends on."""


def paces(folder: Path) -> Store:
    """The measured milliseconds of an update."""
    return Store(folder / "table3_pace.csv", KEY)


def seconds(row: dict[str, str], epochs: int, folder: Path) -> float | None:
    """Of the first epochs of a run; None where the pace of its setting is not measured."""
    pace = paces(folder).find(**{k: row[k] for k in KEY})
    return None if pace is None else epochs * (int(row["images"]) // int(row["batch"])) * float(pace["ms"]) / 1e3


def timed(search: Search, records: Records) -> list[dict[str, str]]:
    """A run on all of the data for every pace that is needed."""
    rows = [r for r in whole_runs(search, records) if r["method"] in PAIR]
    return list({tuple(r[k] for k in KEY): r for r in reversed(rows)}.values())


def measure(search: Search, rows: list[dict[str, str]]) -> list[dict]:
    """A pace for each of the runs: the median milliseconds of an update, measured in turn."""
    runs = [search.runs(setting_of(row), search.rungs[-1], (0,))[0] for row in rows]
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
        {k: row[k] for k in KEY}
        | {"ms": f"{1e3 * statistics.median(times[WARM:]):.3f}", "updates": TIMED, **versions()}
        for row, times in zip(rows, taken, strict=True)
    ]  # fmt: skip


def make_table(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> str:
    """Mean ± standard error over seeds."""
    records = Records(folder, "classifier")
    header = [
        "data", "paper: seconds", "paper: ratio", "settings", "best shared accuracy", "Forward: epochs by seed",
        "Average: epochs by seed", "Forward: seconds", "Average: seconds", "ratio",
    ]  # fmt: skip
    rows = []
    for dataset in ["digits"] if quick else PAPER:
        search = QUICK if quick else search_for(dataset)
        paper = PAPER.get(dataset)
        start = [dataset, f"{paper[0]} / {paper[1]}" if paper else "–", f"{paper[1] / paper[0]:.2f}" if paper else "–"]
        if not records.runs.where(dataset=dataset):
            rows.append([*start, NOT_RUN, *[""] * 6])
            continue
        for reading in READINGS:
            found = [s for seed in seeds if (s := shared(reading, search, seed, records, folder)) is not None]
            if not found:
                rows.append([*start, reading, MISSING, *[""] * 5])
                continue
            epochs = [", ".join(points[k].shown for _, points in found) for k in range(2)]
            both = [[p.seconds for p in points] for _, points in found]
            known = [[t for t in each if t is not None] for each in zip(*both, strict=True)]
            ratios = [average / forward for forward, average in both if average is not None and forward is not None]
            times = [mean_of(each, 1) for each in known]
            rows.append([*start, reading, mean_of([t for t, _ in found]), *epochs, *times, mean_of(ratios)])
    return table(header, rows)


def draw(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Test accuracy over seconds of training, a line for each seed and method; a panel for each reading."""
    records, search = Records(folder, "classifier"), QUICK if quick else FULL
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    best = 0.0
    for axes, reading in zip(panels, READINGS, strict=True):
        for seed in seeds:
            found = shared(reading, search, seed, records, folder)
            for k, point in enumerate(found[1] if found else []):
                curve = records.curve(point.row["run"])
                x = [seconds(point.row, int(p["epoch"]), folder) or 0.0 for p in curve]
                y = [float(p["test"]) for p in curve]
                own = look(k + 1) | {"marker": None}
                axes.plot(x, y, **own, alpha=0.8, lw=1.3, label=PAIR[k] if seed == seeds[0] else None)
                axes.plot(x[point.epoch - 1], y[point.epoch - 1], ms=6, **look(k + 1))
                best = max(best, *y)
        axes.set(xlabel="seconds of training", title=f"settings: {reading}")
        if axes.lines:
            axes.legend(frameon=False, loc="lower right")
    panels[0].set(ylabel="test accuracy (%)", ylim=(best - (60 if quick else 6), best + (5 if quick else 0.5)))
    figure.savefig(folder / "table3.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Train and time what is missing, write the table and the picture."""
    args = arguments(__doc__, "table3", processes={"type": int, "default": 1, "help": "trainings at once"})
    records = Records(args.out, "classifier")
    searches = [QUICK] if args.quick else [search_for(dataset) for dataset in PAPER if available(dataset)]
    for search in searches:
        go(search, (1.0,), args.seeds, records, args.processes)
        rows = timed(search, records)
        if any(seconds(row, 1, args.out) is None for row in rows):
            paces(args.out).add(*measure(search, rows))
    looked_at = [r for s in searches for r in whole_runs(s, records) if r["method"] in PAIR]
    save(args.out, "table3", make_table(args.out, args.quick, args.seeds), looked_at)
    draw(args.out, args.quick, args.seeds)


if __name__ == "__main__":
    main()
