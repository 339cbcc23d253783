"""What the examples with many runs share: a file of rows that a stopped script goes on from, a training loop, a mean.

A :class:`Store` is a CSV file with a row for everything that is finished. A script asks it what is there, runs what is
missing, and adds a row as soon as one is known. Tables and pictures are made of the rows alone.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pcgraph
from pcgraph import PCNetwork, data

__all__ = ["Store", "accuracy", "arguments", "learn", "mean_and_range", "run", "spread", "swept_accuracy"]


@dataclass
class Store:
    """Rows of a CSV file, each known by some of its columns.

    Parameters
    ----------
    path : Path
        The file. It is made with the first row.
    key : sequence of str
        The columns that name a row: adding one with the same values again replaces it.

    Attributes
    ----------
    rows : list of dict
        Column to text, as in the file.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> Store(file, ["seed"]).add({"seed": 0, "accuracy": 89.5})
    >>> Store(file, ["seed"]).find(seed=0)["accuracy"]
    '89.5'
    """

    path: Path
    key: Sequence[str]
    rows: list[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def where(self, **values: object) -> list[dict[str, str]]:
        """The rows with these values."""
        wanted = {k: str(v) for k, v in values.items()}
        return [r for r in self.rows if all(r.get(k) == v for k, v in wanted.items())]

    def find(self, **values: object) -> dict[str, str] | None:
        """The row with these values; None if there is none."""
        found = self.where(**values)
        return found[0] if found else None

    def add(self, *rows: Mapping[str, object]) -> None:
        """Add finished rows, and write the file: a new one takes the old one's place at once, so that none is torn."""
        for row in rows:
            text = {k: str(v) for k, v in row.items()}
            same = [r for r in self.rows if all(r[k] == text[k] for k in self.key)]
            if same:
                self.rows[self.rows.index(same[0])] = text
            else:
                self.rows.append(text)
        columns = list(dict.fromkeys(k for r in self.rows for k in r))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(new, self.path)


def arguments(doc: str | None, name: str, **more: dict[str, Any]) -> argparse.Namespace:
    """The command line of a script, read: ``quick``, ``out`` (a folder, runs/`name`), ``seeds``, and `more`.

    Torch is set to one thread, so that rows are the same on machines with more.

    Parameters
    ----------
    doc : str
        The script's docstring.
    name : str
    **more : dict
        Further options: name -> what ``add_argument`` takes.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / name)
    parser.add_argument("--quick", action="store_true", help="digits, small networks, one seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for option, settings in more.items():
        parser.add_argument(f"--{option.replace('_', '-')}", **settings)
    args = parser.parse_args()
    args.seeds = args.seeds[:1] if args.quick else args.seeds
    torch.set_num_threads(1)
    return args


def run(
    args: argparse.Namespace, name: str, wanted: Iterable[Mapping[str, Any]],
    train: Callable[..., Mapping[str, object] | Sequence[Mapping[str, object]]],
    table: Callable[[Sequence[dict[str, str]]], str],
) -> None:  # fmt: skip
    """Run what is missing of `wanted`, each ``train(**one)`` a row or several; write rows and table, and print it.

    Parameters
    ----------
    args : Namespace
        Of :func:`arguments`.
    name : str
        Of the files: ``name.csv`` and ``name.md`` in ``args.out``.
    wanted : iterable of mappings
        Column -> value: what names a row.
    train : callable
    table : callable
    """
    wanted = list(wanted)
    store = Store(args.out / f"{name}.csv", list(wanted[0]))
    for one in wanted:
        if store.find(**one) is not None:
            continue
        found = train(**one)
        store.add(*([found] if isinstance(found, Mapping) else found))
        print({k: store.rows[-1][k] for k in [*one, *store.rows[-1]]}, flush=True)
    (args.out / f"{name}.md").write_text(table(store.rows) + "\n", encoding="utf-8")
    print(table(store.rows))


def learn(
    net: PCNetwork, batches: Iterable[tuple[Tensor, Tensor]], update: Callable[[dict[str, Tensor]], Any],
    optimizer: torch.optim.Optimizer, epochs: int = 1, each: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> str:  # fmt: skip
    """Train: `update` leaves a batch's gradients at the weights, `each` is called after a step, `after` after an epoch.

    Returns
    -------
    str
        "ok", or "diverged" where a state was no longer finite; nothing is learned from then on.
    """
    shape = (-1, *net.structure.shape("x"))
    try:
        for _ in range(epochs):
            for x, y in batches:
                optimizer.zero_grad()
                update({"x": x.reshape(shape), "y": y})
                optimizer.step()
                each()
            after()
    except pcgraph.Diverged:
        return "diverged"
    return "ok"


def accuracy(found: Tensor, labels: Tensor) -> float:
    """In percent."""
    return round(100 * float((found.argmax(1) == labels).float().mean()), 2)


def swept_accuracy(net: PCNetwork, images: data.Images) -> float:
    """Of predictions by a sweep from "x" to "y", in percent."""
    shape = (-1, *net.structure.shape("x"))
    return accuracy(net.predict({"x": images.images.reshape(shape)}, "y"), images.labels)


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; the value where there is one."""
    more = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{more}"


def mean_and_range(rows: Iterable[Mapping[str, Any]], column: str) -> str:
    """The mean of a column with the lowest and the highest, and a dash where no row has it."""
    found = [float(r[column]) for r in rows if r.get(column) not in (None, "")]
    return f"{statistics.mean(found):.1f} ({min(found):.1f}–{max(found):.1f})" if found else "–"
