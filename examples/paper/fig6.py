"""Figure 6: learning curves over sequential matrix multiplications (SMMs), and SMMs to a relative test error.

    python examples/paper/fig6.py --full         # reads Table 1's rows; trains what is missing there
    python examples/paper/fig6.py --quick        # digits and a small network, for the tests

The SMMs of a weight update are the paper's count, taken from the plan that the engine runs (``plan.smm``); those of
backpropagation are 2 L - 1. Left: the runs of Table 1 on all of the data, mean of the seeds. Right: for each test
error, relative to the lowest of all methods, the fewest SMMs at which any run of a method that was trained here on all
of the data is at or below it.
"""

from __future__ import annotations

import math
import statistics
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from classifier import Records, Run, initializer, make
from common import MISSING, NOT_RUN, arguments, save, table
from grid import METHODS, Setting
from matplotlib.ticker import NullFormatter
from search import FULL, QUICK, Search
from table1 import go, runs_of

from pcgraph import SGD, data
from pcgraph.drawing.style import SMALL, look

__all__ = ["draw", "make_table", "per_update", "to_error"]

ERRORS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.0)
"""How much more than the lowest error, as a part of it."""


@cache
def per_update(setting: Setting) -> int:
    """SMMs of one weight update of a five-layer network, once the initializer remembers a batch."""
    images = data.Images(torch.zeros(10, 4), list(range(10)))
    run = Run(setting, 0, width=4)
    net = make(run, images)
    if setting.method == "backprop":
        return 2 * net.graph.number_of_edges() - 1
    init, states = initializer(setting, 0), SGD(lr=setting.alpha)
    clamps = {"x": images.images, "y": images.one_hot()}
    for _ in range(2):
        result = net.infer(clamps, init=init, steps=setting.steps, optimizer=states)
        result.backward()
    return int(result.plan.smm.paper)


def setting_of(row: dict[str, str]) -> Setting:
    """The setting of a row."""
    return Setting(
        row["method"], row["activation"], float(row["lr"]), float(row["alpha"]), int(row["steps"]), int(row["depth"])
    )


def over_smm(row: dict[str, str], records: Records) -> list[tuple[int, float]]:
    """(SMMs so far, test error in percent) after every epoch of a run."""
    each = per_update(setting_of(row)) * (int(row["images"]) // int(row["batch"]))
    return [(each * int(p["epoch"]), 100 - float(p["test"])) for p in records.curve(row["run"])]


def whole_runs(search: Search, records: Records) -> list[dict[str, str]]:
    """The runs on all of the data, with the epochs of the last rung."""
    return records.runs.where(dataset=search.dataset, fraction=1.0, epochs=search.rungs[-1].epochs)


def to_error(search: Search, records: Records) -> tuple[float, dict[str, list[tuple[int, float]]]]:
    """The lowest test error, and by method the (SMMs, error) of all runs on all of the data, fewest SMMs first."""
    rows = whole_runs(search, records)
    found = {
        m: sorted(point for row in rows if row["method"] == m for point in over_smm(row, records)) for m in METHODS
    }
    return min((error for points in found.values() for _, error in points), default=math.nan), found


def make_table(folder: Path, quick: bool = False) -> str:
    """SMMs to a relative error, in thousands."""
    records, search = Records(folder, "classifier"), QUICK if quick else FULL
    lowest, found = to_error(search, records)
    header = ["relative error", "test accuracy", *METHODS, "Forward / Average"]
    if math.isnan(lowest):
        return table(header, [[NOT_RUN, *[""] * (len(header) - 1)]])
    rows = []
    for relative in ERRORS:
        limit = lowest * (1 + relative)
        first = [next((smm for smm, error in found[m] if error <= limit + 1e-9), None) for m in METHODS]
        cells = [f"{smm / 1000:.1f}" if smm is not None else ("not reached" if found[m] else MISSING)
                 for m, smm in zip(METHODS, first, strict=True)]  # fmt: skip
        _, forward, average = first
        ratio = f"{forward / average:.2f}" if forward and average else "–"
        rows.append([f"{relative:.0%}", f"{100 - limit:.2f}", *cells, ratio])
    return table(header, rows)


def draw(folder: Path, quick: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Both panels."""
    records, search = Records(folder, "classifier"), QUICK if quick else FULL
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    lowest, found = to_error(search, records)
    for k, method in enumerate(METHODS):
        rows = records.finished(runs_of(search, method, 1.0, seeds, records))
        points = [over_smm(r, records) for r in rows if r["outcome"] == "ok"]
        if points:
            smm = [p[0] / 1e3 for p in points[0]]
            means = [statistics.mean(100 - e for _, e in at) for at in zip(*points, strict=True)]
            label = f"{method} ({per_update(setting_of(rows[0]))} SMMs an update)"
            left.plot(smm, means, ms=4, **look(k), label=label)
        best, steps = math.inf, []
        for count, error in found[method]:
            if error < best:
                best = error
                steps.append((count / 1e3, error / lowest - 1))
        if steps:
            right.step(*zip(*steps, strict=True), where="post", **look(k) | {"marker": None}, label=method)
    if found and not quick and not math.isnan(lowest):
        left.set_ylim(82, 100 - lowest + 0.5)
    left.set(xlabel="SMMs (thousands)", ylabel="test accuracy (%)")
    right.set(xlabel="SMMs (thousands)", ylabel="relative test error", xscale="log")
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter(NullFormatter())
    for axes in (left, right):
        if axes.lines:
            axes.legend(frameon=False, fontsize=SMALL)
    figure.savefig(folder / "fig6.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Train what is missing, write the table and the picture."""
    args = arguments(__doc__, "fig6", processes={"type": int, "default": 1, "help": "trainings at once"})
    search, records = QUICK if args.quick else FULL, Records(args.out, "classifier")
    go(search, (1.0,), args.seeds, records, args.processes)
    save(args.out, "fig6", make_table(args.out, args.quick), whole_runs(search, records))
    draw(args.out, args.quick, args.seeds)


if __name__ == "__main__":
    main()
