"""Draw how training went: energy and accuracy over epochs, seconds or sequential matrix multiplications."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcgraph.arguments import require_choice, require_count, require_text
from pcgraph.drawing.style import (
    BLUE,
    INK,
    RED,
    SMALL,
    as_it_is,
    look,
    plain_decimals,
    pyplot,
    require_picture,
    save,
    whole_numbers,
)
from pcgraph.errors import ConfigError
from pcgraph.training import EpochRecord, History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["learning_curve"]

AXES = {"epochs": "epoch", "seconds": "seconds of training", "smm": "sequential matrix multiplications"}


def learning_curve(
    history: History | Mapping[str, History], path: str | Path | None = None, *, title: str = "",
    judged: str = "validation", over: str = "epochs", smm: int | Mapping[str, int] | None = None,
) -> Figure:  # fmt: skip
    """Draw how a run went, or several: its energy, and its accuracies.

    Parameters
    ----------
    history : pcgraph.training.History, or mapping from names
        What ``fit`` returns. Of several, each has a colour, and only the accuracy of validation is shown (that of
        training where a run has no other).
    path : str or Path, optional
        Write the picture here; the suffix says in which format.
    title : str
        Above the picture.
    judged : str
        What ``validate=`` measured on, for the legend.
    over : {"epochs", "seconds", "smm"}
        What the runs are laid out along: epochs, the seconds since they began, or sequential matrix multiplications.
    smm : int, or mapping from names, optional
        Sequential matrix multiplications of one weight update, as ``plan.smm.paper`` or ``plan.smm.critical_path`` of
        :class:`~pcgraph.Plan` counts them; needed by ``over="smm"``.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        No epoch was measured, so that there is nothing to draw; `over` is no such name; or `smm` is missing.

    Examples
    --------
    >>> from pcgraph.training import EpochRecord, History
    >>> history = History([EpochRecord(i + 1, 10 * i + 10, 500, 1 / (i + 1), 0.9, 1e-3, float(i)) for i in range(3)])
    >>> figure = learning_curve({"one": history, "two": history}, over="smm", smm={"one": 10, "two": 25})
    >>> figure.axes[0].lines[1].get_xdata().tolist()
    [250, 500, 750]
    """
    runs = dict(history) if isinstance(history, Mapping) else {"": history}
    require_picture(path, title)
    require_text(judged, "judged")
    require_choice(over, "over", AXES)
    for run in runs.values():
        if not isinstance(run, History):
            raise ConfigError(
                f"a learning curve is drawn of what fit(...) returns, or of a mapping name -> that (found "
                f"{type(run).__name__})",
                key="history",
            )
    measured = {name: [record for record in run.epochs if record.energy is not None] for name, run in runs.items()}
    empty = [name for name, records in measured.items() if not records]
    if empty or not measured:
        which = f" of {empty[0]!r}" if empty and empty[0] else ""
        raise ConfigError(f"there is nothing to draw: the history{which} has no measured epoch", key="history")
    several = isinstance(history, Mapping)
    judged_too = any(r.accuracy is not None or "accuracy" in r.validation for rs in measured.values() for r in rs)
    figure: Figure
    figure, axes = pyplot().subplots(
        1, 1 + judged_too, figsize=(9 if judged_too else 5, 3.6), layout="constrained", squeeze=False
    )
    left, right = axes[0, 0], axes[0, -1]
    for i, (name, records) in enumerate(measured.items()):
        at = _places(records, over, smm[name] if isinstance(smm, Mapping) and name in smm else smm)
        own = look(i) | {"markersize": 4} | ({} if several else {"color": INK})
        left.plot(at, [r.energy for r in records], **own, label=as_it_is(name) or None)
        if judged_too:
            _accuracies(right, at, records, name, own if several else None, judged)
            right.set(xlabel=AXES[over], ylabel="accuracy (%)", title="accuracy")
    if several:
        left.legend(frameon=False, fontsize=SMALL)
    left.set(xlabel=AXES[over], ylabel="energy a sample, after inference", yscale="log", title="energy in training")
    plain_decimals(left.yaxis, [r.energy for records in measured.values() for r in records if r.energy is not None])
    if judged_too:
        right.legend(frameon=False, loc="best", fontsize=SMALL)
    for ax in axes[0]:
        if over == "epochs":
            whole_numbers(ax.xaxis)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    figure.suptitle(title)
    save(figure, path)
    return figure


def _places(records: list[EpochRecord], over: str, smm: Any) -> list[float]:
    """Say where each epoch stands on the horizontal axis."""
    if over == "epochs":
        return [record.epoch for record in records]
    if over == "seconds":
        return [record.seconds for record in records]
    each = require_count(smm, "smm, the products of one update, as net.plan(...).smm.paper says,", least=1)
    return [record.step * each for record in records]


def _accuracies(
    ax: Any, at: list[float], records: list[EpochRecord], name: str, own: dict[str, Any] | None, judged: str
) -> None:
    """Draw both accuracies of a single run; of several, where each has one look, draw the one that matters."""
    found = [
        ("training (sampled batches)", [record.accuracy for record in records], look(1) | {"color": BLUE}),
        (judged, [record.validation.get("accuracy") for record in records], look(0) | {"color": RED}),
    ]
    shown = [(label, [(x, 100 * y) for x, y in zip(at, values) if y is not None], one) for label, values, one in found]
    shown = [each for each in shown if each[1]]
    for label, points, one in shown if own is None else shown[-1:]:
        who = label if own is None else f"{name}, {label}"
        last = f"{as_it_is(who)}, {points[-1][1]:.1f} % at the end"
        ax.plot(*zip(*points), **(own or one | {"markersize": 4}), label=last)
