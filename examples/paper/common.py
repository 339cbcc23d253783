"""What the scripts of this folder share: arguments, resumable CSV files, clocks, versions and Markdown tables.

A :class:`Store` is a CSV file with a row for everything that is finished. A script asks it what is there, runs what is
missing, and adds a row as soon as one is known, so that a run that was stopped goes on where it stood. Tables and
pictures are made of the rows alone.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import pcgraph
from pcgraph.data.sources import CATALOGUE, is_here

sys.path.append(str(Path(__file__).resolve().parents[1]))

from rows import Store

__all__ = [
    "FIGURES", "MISSING", "NOT_RUN", "Clock", "Store", "arguments", "available", "mean_error", "mean_of",
    "percent", "provenance", "save", "table", "versions",
]  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures" / "paper"
"""Where the committed rows and pictures are."""
NOT_RUN = "not run: data not available here"
MISSING = "missing"


def arguments(doc: str | None, name: str, **more: dict[str, Any]) -> argparse.Namespace:
    """The command line of a script, read; torch is set to one thread unless ``--threads`` says otherwise.

    Parameters
    ----------
    doc : str
        The script's docstring.
    name : str
        The folder of a quick run, under ``runs/paper/``. A full one writes to ``docs/figures/paper``.
    **more : dict
        Further options: name -> what ``add_argument`` takes.

    Returns
    -------
    argparse.Namespace
        ``quick``, ``full``, ``out`` (an existing folder), ``seeds``, ``threads``, and the further options.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--quick", action="store_true", help="digits and a small network: well under a minute")
    which.add_argument("--full", action="store_true", help="the figures of docs/paper.md; resumes")
    parser.add_argument("--out", type=Path, default=None, help="the folder of the rows, tables and pictures")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="default: 0 1 2, and with --quick: 0 1")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    for option, settings in more.items():
        parser.add_argument(f"--{option.replace('_', '-')}", **settings)
    args = parser.parse_args()
    args.seeds = tuple(args.seeds) if args.seeds else ((0, 1) if args.quick else (0, 1, 2))
    args.out = args.out or (Path("runs") / "paper" / name if args.quick else FIGURES)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    return args


class Clock:
    """Wall and processor seconds since it was made, without what was spent while it was stopped.

    Examples
    --------
    >>> clock = Clock()
    >>> clock.stop()
    >>> clock.wall < 1 and clock.processor < 1
    True
    """

    def __init__(self) -> None:
        self.wall = self.processor = 0.0
        self.start()

    def start(self) -> None:
        """Go on."""
        self._begun = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Add the time since the start."""
        self.wall += time.perf_counter() - self._begun[0]
        self.processor += time.process_time() - self._begun[1]


def versions() -> dict[str, str]:
    """What a row should say about where it was measured: versions, and the processor's name."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    return {
        "torch": torch.__version__, "pcgraph": pcgraph.__version__, "python": platform.python_version(), "cpu": cpu,
    }  # fmt: skip


def available(name: str) -> bool:
    """Return whether a data set's files are on this machine, and print what is left out where they are not.

    No mirror is asked: a script that is started again and again would ask for the same files each time.
    """
    source = CATALOGUE[name]
    here = all(is_here(source, split) for split in source.counts)
    if not here:
        print(f"{name} is left out: its files are not on this machine. pcgraph.data.load fetches them, a split a call.")
    return here


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (sample standard deviation over the square root of the number; nan for one value)."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error


def mean_of(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard error of the mean as text; "missing" for no values."""
    if not values:
        return MISSING
    mean, error = mean_error(values)
    return f"{mean:.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def percent(values: Sequence[float], wanted: int) -> str:
    """Mean ± standard error, and how many of the wanted seeds there are where some are missing."""
    return mean_of(values) + (f" ({len(values)} of {wanted} seeds)" if 0 < len(values) < wanted else "")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


SETTINGS = (
    "dataset", "width", "batch", "normalize", "images", "epochs", "activation", "lr", "alpha", "steps", "t_train",
    "depth", "maps", "threads",
)  # fmt: skip
"""Columns that say how something was trained or measured."""


def provenance(rows: Sequence[Mapping[str, str]]) -> str:
    """What the rows of a table say of their settings, seeds, versions, processor, and hours, where they have it.

    Examples
    --------
    >>> where = {"torch": "2.13.0", "pcgraph": "0.1.0", "python": "3.11.7", "cpu": "any"}
    >>> print(provenance([where | {"lr": "0.1", "seed": str(s), "wall": "1800", "processor": "1700"} for s in (1, 0)]))
    2 rows: lr 0.1; seed 0, 1; torch 2.13.0, pcgraph 0.1.0, python 3.11.7, cpu any; 1.0 h (0.9 h of CPU).
    """

    def values(column: str, joint: str) -> str:
        found = {row[column] for row in rows if row.get(column)}
        return f"{column} {joint.join(sorted(found, key=_by_number))}" if found else ""

    settings = [values(column, ", ") for column in (*SETTINGS, "seed")]
    where = [values(column, " and ") for column in ("torch", "pcgraph", "python", "cpu")]
    parts = [*filter(None, settings), ", ".join(filter(None, where)), _hours(rows)]
    return f"{len(rows)} rows: " + "; ".join(filter(None, parts)) + "."


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _hours(rows: Sequence[Mapping[str, str]]) -> str:
    """Wall time and that of the processor, of the rows that have it."""
    known = {k: [float(row[k]) / 3600 for row in rows if row.get(k)] for k in ("wall", "processor")}
    wall, processor = (f"{sum(hours):.1f} h" for hours in known.values())
    lacking = len(rows) - len(known["wall"])
    of_cpu = f" ({processor} of CPU)" if known["processor"] else ""
    return f"{wall}{of_cpu}" + (f", {lacking} rows without" if lacking else "") if known["wall"] else ""


def save(folder: Path, name: str, text: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table with what :func:`provenance` says of its rows beside them, and print it."""
    text += "\n\n" + provenance(rows)
    (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)
