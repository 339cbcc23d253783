"""What a search has found is read, written down and drawn from these."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pcgraph.arguments import require_path
from pcgraph.errors import ConfigError
from pcgraph.serialization.files import write_whole

__all__ = ["Finalist", "SearchResult", "Trial", "written"]


def written(value: Any) -> str:
    """Write a setting for a table: numbers in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Trial:
    """This is one trial of the first stage.

    Attributes
    ----------
    number : int
    settings : dict
    value : float or None
        None where it did not end by itself.
    state : str
        ``"complete"``, ``"pruned"``, ``"failed"``, or ``"running"``.
    curve : dict
        Epoch -> value.
    why : str
        What ended it, where something did: ``"diverged"``, or the error that refused its settings.
    """

    number: int
    settings: Mapping[str, Any]
    value: float | None
    state: str
    curve: Mapping[int, float]
    why: str = ""


@dataclass(frozen=True)
class Finalist:
    """These settings were run again with several seeds.

    Attributes
    ----------
    settings : dict
    values : dict
        Seed -> value; None where the run diverged.
    measured : dict
        Seed -> what the run noted beside it, by name.
    """

    settings: Mapping[str, Any]
    values: Mapping[int, float | None]
    measured: Mapping[int, Mapping[str, float]]

    @property
    def mean(self) -> float:
        """Average over the seeds; NaN where a run diverged."""
        found = [v for v in self.values.values() if v is not None]
        return fmean(found) if len(found) == len(self.values) else math.nan

    @property
    def spread(self) -> float:
        """Give the standard deviation over the seeds; NaN of fewer than two, or where a run diverged."""
        found = [v for v in self.values.values() if v is not None]
        return stdev(found) if len(found) == len(self.values) > 1 else math.nan

    def noted(self, name: str) -> float:
        """Average what the runs noted under a name; NaN where one did not."""
        found = [each.get(name, math.nan) for each in self.measured.values()]
        return fmean(found) if found else math.nan


@dataclass(frozen=True)
class SearchResult:
    """Holds what a search has found, by all processes that took part.

    Attributes
    ----------
    name, metric : str
    largest : bool
        Whether more is better.
    trials : tuple of Trial
    finalists : tuple of Finalist
        The best first; those whose runs are all done.
    unfinished : int
        Runs of finalists that are under way in other processes, or were left by one that was killed; ``retry=True``
        runs those again.
    """

    name: str
    metric: str
    largest: bool
    trials: tuple[Trial, ...]
    finalists: tuple[Finalist, ...]
    unfinished: int = 0

    @property
    def ranked(self) -> list[Trial]:
        """List the trials that are complete, the best first."""
        done = [(t.value, t) for t in self.trials if t.value is not None and t.state == "complete"]
        sign = -1.0 if self.largest else 1.0
        return [trial for _, trial in sorted(done, key=lambda each: sign * each[0])]

    @property
    def best(self) -> dict[str, Any]:
        """Return the best settings: those of the best finalist, and without finalists of the best trial.

        Raises
        ------
        ConfigError
            No trial is complete.
        """
        finalists = [each for each in self.finalists if not math.isnan(each.mean)]
        if finalists:
            return dict(finalists[0].settings)
        if not self.ranked:
            raise ConfigError("the search has no complete trial: let it run longer", key="trials")
        return dict(self.ranked[0].settings)

    @property
    def value(self) -> float:
        """Return the value of the best settings: the mean over seeds, and without finalists that of the trial."""
        finalists = [each for each in self.finalists if not math.isnan(each.mean)]
        if finalists:
            return finalists[0].mean
        self.best  # noqa: B018  # refuses where there is none
        value = self.ranked[0].value
        assert value is not None
        return value

    def __str__(self) -> str:
        """Write the report as Markdown: how many trials there were, the best ten, the finalists."""
        counts = {state: sum(t.state == state for t in self.trials) for state in ("complete", "pruned", "failed")}
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        better = "larger" if self.largest else "smaller"
        lines = [f"# {self.name}: {len(self.trials)} trials ({said})", "", f"{self.metric}, {better} is better.", ""]
        lines += _table([{"trial": t.number, self.metric: t.value, **t.settings} for t in self.ranked[:10]])
        if self.finalists:
            lines += ["", "## Finalists", "", "Mean and standard deviation over seeds.", ""]
            lines += _table([self._row(each) for each in self.finalists])
        if self.unfinished:
            lines += ["", f"{self.unfinished} runs of finalists are not finished; retry=True runs lost ones again."]
        reasons = sorted({t.why for t in self.trials if t.why})
        lines += ["", "What ended trials early:", "", *(f"* {why}" for why in reasons)] if reasons else []
        return "\n".join(lines) + "\n"

    def _row(self, finalist: Finalist) -> dict[str, Any]:
        noted = sorted({name for each in finalist.measured.values() for name in each})
        own = {self.metric: finalist.mean, "±": finalist.spread, "seeds": len(finalist.values)}
        return {**own, **{name: finalist.noted(name) for name in noted}, **finalist.settings}

    def write(self, folder: str | Path) -> None:
        """Write ``report.md``, ``trials.csv``, ``finalists.csv`` and ``best.json`` into a folder, which is made.

        Raises
        ------
        ConfigError, DataError
            It is no path, or cannot be written to.
        """
        place = require_path(folder, "folder")
        settings = list({key: None for trial in self.trials for key in trial.settings})
        rows = [
            {"trial": t.number, "state": t.state, "value": t.value, **t.settings, "epochs": max(t.curve, default=0)}
            for t in self.trials
        ]
        runs = [
            {"seed": seed, "value": value, **each.measured[seed], **each.settings}
            for each in self.finalists
            for seed, value in each.values.items()
        ]
        files = {"report.md": str(self), "trials.csv": _csv(rows, ["trial", "state", "value", *settings, "epochs"])}
        if runs:
            files["finalists.csv"] = _csv(runs, list({key: None for row in runs for key in row}))
        if self.ranked:
            files["best.json"] = json.dumps(self.best, indent=2) + "\n"
        for name, text in files.items():
            write_whole(place / name, text.encode(), "the report")


def _csv(rows: list[dict[str, Any]], columns: list[str]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _table(rows: list[dict[str, Any]]) -> list[str]:
    columns = list({key: None for row in rows for key in row})
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)] if rows else ["None is complete."]
    return lines + ["| " + " | ".join(written(row.get(key, "")) for key in columns) + " |" for row in rows]
