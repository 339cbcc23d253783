"""Draw what a search has tried, setting by setting, and how its finalists did."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcgraph.arguments import require_instance
from pcgraph.drawing.style import (
    COLOURS,
    GREY,
    INK,
    RED,
    SMALL,
    as_it_is,
    plain_decimals,
    pyplot,
    require_picture,
    save,
    whole_numbers,
)
from pcgraph.errors import ConfigError
from pcgraph.tuning import SearchResult
from pcgraph.tuning.results import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["search"]

COLUMNS = 3
FEW = 6
"""So many whole numbers have a tick each, and no tick lies between them."""
SPAN = 8
"""Settings that differ by more than this factor are on a logarithmic axis."""


def search(found: SearchResult, path: str | Path | None = None, *, title: str = "") -> Figure:
    """Draw a search: its trials one after the other, the value over each setting, and the finalists over seeds.

    Parameters
    ----------
    found : pcgraph.tuning.SearchResult
        What :func:`pcgraph.search` returns.
    path : str or Path, optional
        Write the picture here; the suffix says in which format.
    title : str
        Above the picture; the name of the search by default.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        No trial is complete, so that there is nothing to draw.
    """
    require_instance(found, "found", SearchResult, "pcgraph.search(...)")
    require_picture(path, title)
    if not found.ranked:
        raise ConfigError("there is nothing to draw: the search has no complete trial", key="found")
    settings = list({key: None for trial in found.trials for key in trial.settings})
    panels = 1 + len(settings) + bool(found.finalists)
    columns = min(COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure: Figure
    figure, grid = pyplot().subplots(
        rows, columns, figsize=(3.6 * columns, 3.0 * rows), layout="constrained", squeeze=False
    )
    axes = list(grid.flat)
    _over_time(axes[0], found)
    for ax, setting in zip(axes[1:], settings):
        _over_setting(ax, found, setting)
    if found.finalists:
        _finalists(axes[panels - 1], found)
    for ax in axes[:panels]:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    for ax in axes[panels:]:
        ax.set_axis_off()
    figure.suptitle(as_it_is(title or found.name))
    save(figure, path)
    return figure


def _over_time(ax: Any, found: SearchResult) -> None:
    """Draw the value of each trial, where it was pruned, and the best so far."""
    done = sorted(found.ranked, key=lambda trial: trial.number)
    values = [trial.value for trial in done if trial.value is not None]
    better = max if found.largest else min
    best = [better(values[: i + 1]) for i in range(len(values))]
    numbers = [trial.number for trial in done]
    ax.step(numbers, best, where="post", color=INK, label="best so far")
    ax.plot(numbers, values, "o", markersize=4, color=COLOURS[0], label="complete")
    pruned = [(t.number, t.curve[max(t.curve)]) for t in found.trials if t.state == "pruned" and t.curve]
    if pruned:
        ax.plot(*zip(*pruned), "x", markersize=5, color=GREY, label="pruned, last value")
    ax.set(xlabel="trial", ylabel=as_it_is(found.metric), title="trials")
    ax.legend(frameon=False, fontsize=SMALL)
    whole_numbers(ax.xaxis)


def _over_setting(ax: Any, found: SearchResult, setting: str) -> None:
    """Draw the value over one setting, by name or by number.

    An axis of numbers is logarithmic where they span much, and few whole ones have a tick each.
    """
    shown = [t for t in found.ranked if setting in t.settings]
    values = [t.settings[setting] for t in shown]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numbers:
        places: list[Any] = values
        different = sorted(set(values))
        if all(isinstance(v, int) for v in different) and len(different) <= FEW:
            ax.set_xticks(different)
        elif values and min(values) > 0 and max(values) > SPAN * min(values):
            ax.set_xscale("log")
            plain_decimals(ax.xaxis, values)
    else:
        names = sorted({written(v) for v in values})
        places = [names.index(written(v)) for v in values]
        ax.set_xticks(range(len(names)), [as_it_is(name) for name in names], rotation=20, ha="right", fontsize=SMALL)
        ax.set_xlim(-0.5, len(names) - 0.5)
    ax.plot(places, [t.value for t in shown], "o", markersize=4, color=COLOURS[0], alpha=0.7)
    ax.plot(places[:1], [t.value for t in shown[:1]], "o", markersize=9, fillstyle="none", color=RED)
    ax.set(xlabel=as_it_is(setting), ylabel=as_it_is(found.metric), title=as_it_is(setting))


def _finalists(ax: Any, found: SearchResult) -> None:
    """Draw a dot a seed and a bar at the mean, the best finalist first."""
    for i, finalist in enumerate(found.finalists):
        values = [v for v in finalist.values.values() if v is not None]
        ax.plot([i + 1] * len(values), values, "o", markersize=4, color=COLOURS[0], alpha=0.7)
        ax.plot(i + 1, finalist.mean, "_", markersize=16, markeredgewidth=2.5, color=RED)
    ax.set(xlabel="finalist", ylabel=as_it_is(found.metric), title="finalists: a dot a seed, a bar the mean")
    ax.title.set_fontsize(SMALL)
    ax.set_xlim(0.5, len(found.finalists) + 0.5)
    whole_numbers(ax.xaxis)
