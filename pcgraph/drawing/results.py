"""Draw what inference found: the energy of each node at each step, its mean over the steps, and states as images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from pcgraph.arguments import read_numbers, require_shape, shown
from pcgraph.drawing.style import (
    GREY,
    MAP,
    PALE,
    PAPER,
    SMALL,
    as_it_is,
    pyplot,
    require_picture,
    save,
    short_name,
    whole_numbers,
)
from pcgraph.errors import ConfigError
from pcgraph.learning import InferenceResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["energy", "images", "laid_out", "limits_of", "trace"]

NAMED = 60
"""Only some rows of a heat map bear their names where there are more nodes than this."""
DECADES = 6
"""So many powers of ten below the largest energy are told apart."""
ACROSS = 20
"""A row shows no more images than this."""


def energy(result: InferenceResult, path: str | Path | None = None, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the energy of every node at every step as a heat map: where the error is, and how it spreads.

    Rows are the nodes that have an energy, in the order of their declaration; columns are the steps, the last one
    the final states. Colours are means over the batch on a logarithmic scale, six powers of ten deep; exact zeros are
    hatched, and so is what has no logarithm: the label says which.

    Parameters
    ----------
    result : InferenceResult
        Of ``net.infer(..., trace="nodes")``.
    path : str or Path, optional
        Write the picture here; the suffix says in which format.
    ax : matplotlib Axes, optional
        Draw into this one.
    title : str

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ConfigError
        The result keeps no energies by node.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 4, 2]))
    >>> clamps = {"x": torch.ones(1, 3), "y": torch.ones(1, 2)}
    >>> run = {"init": pcgraph.Forward(), "steps": 5, "optimizer": pcgraph.SGD(lr=0.1)}
    >>> axes = energy(net.infer(clamps, **run, trace="nodes"))
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['h1', 'h2', 'y']
    """
    require_picture(path, title, ax)
    _check(result)
    if result.node_trace is None:
        raise ConfigError('the result keeps no energy by node and step; run net.infer(..., trace="nodes")', key="trace")
    from matplotlib.colors import LogNorm

    nodes = list(result.node_trace)
    if not nodes:
        raise ConfigError("there is nothing to draw: no node has an energy", key="trace")
    values = np.stack([steps.mean(1).cpu().numpy() for steps in result.node_trace.values()])
    if ax is None:
        high = min(12.0, max(2.2, 0.28 * len(nodes) + 1.0))
        _, ax = pyplot().subplots(
            figsize=(min(11.0, max(5.0, 0.12 * values.shape[1] + 2.5)), high), layout="constrained"
        )
    finite = np.isfinite(values)
    top = max(float(values.max(where=finite, initial=0.0)), 1e-30)
    shown = np.ma.masked_where(~finite | (values <= 0.0), values)
    colours = pyplot().get_cmap(MAP).with_extremes(bad=(0.0, 0.0, 0.0, 0.0))
    ax.patch.set(
        facecolor=PAPER, edgecolor=GREY, hatch="////"
    )  # what is masked shows it, and no amount looks so in grey
    norm = LogNorm(top / 10**DECADES, top, clip=True)
    image = ax.imshow(shown, aspect="auto", cmap=colours, norm=norm, interpolation="nearest")
    every = max(1, math.ceil(len(nodes) / NAMED))
    ax.set_yticks(range(0, len(nodes), every), [as_it_is(short_name(v)) for v in nodes[::every]], fontsize=SMALL)
    whole_numbers(ax.xaxis)
    kinds = (("exactly zero", values == 0.0), ("negative", values < 0.0), ("not finite", ~finite))
    hatched = " or ".join(kind for kind, where in kinds if bool(where.any()))
    ax.set(xlabel=f"inference steps taken{'; hatched: ' * bool(hatched)}{hatched}", title=title)
    ax.figure.colorbar(image, ax=ax, fraction=0.06, pad=0.02).set_label("energy a sample")
    save(ax.figure, path)
    return ax


def _check(result: object) -> None:
    if not isinstance(result, InferenceResult):
        raise ConfigError(f"this draws what net.infer(...) returns (found {type(result).__name__})", key="result")


def trace(result: InferenceResult, path: str | Path | None = None, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the energy over the inference steps: its mean over the batch, and from the lowest to the highest sample.

    Parameters
    ----------
    result : InferenceResult
        Of ``net.infer(..., trace=True)``, or with ``trace="nodes"``.
    path, ax, title
        As in :func:`energy`.

    Raises
    ------
    ConfigError
        The result keeps no trace.
    """
    require_picture(path, title, ax)
    _check(result)
    if result.trace is None:
        raise ConfigError("the result keeps no trace; run net.infer(..., trace=True)", key="trace")
    if ax is None:
        _, ax = pyplot().subplots(figsize=(5, 2.8), layout="constrained")
    values = result.trace.detach().cpu()
    steps = range(len(values))
    if values.shape[1] > 1:
        ax.fill_between(
            steps, values.min(1).values.numpy(), values.max(1).values.numpy(), color=PALE, label="lowest to highest"
        )
    ax.plot(steps, values.mean(1).numpy(), color="#0072B2", label="mean of the batch")
    ax.set(xlabel="inference steps taken", ylabel="energy a sample", title=title)
    whole_numbers(ax.xaxis)
    ax.legend(frameon=False, fontsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    save(ax.figure, path)
    return ax


def images(
    values: Tensor | Mapping[str, Tensor], path: str | Path | None = None, *, shape: Sequence[int] | None = None,
    limits: tuple[float, float] | Literal["rows"] | None = None, title: str = "",
) -> Figure:  # fmt: skip
    """Draw states as images, one row a name: what was given, what inference made of it, the originals.

    Parameters
    ----------
    values : Tensor or array, or mapping from names
        Each (images, *shape), with the same number of images; at most the first twenty are drawn. A node's states,
        predictions or errors, or rows of a weight. NaN is pale blue: no value.
    path : str or Path, optional
        Write the picture here; the suffix says in which format.
    shape : sequence of int, optional
        (height, width), or (channels, height, width) with one or three channels. By default the values' own, and flat
        ones are laid out as nearly square as their number allows.
    limits : (float, float) or "rows", optional
        Values drawn white and black (channels: dark and bright). By default 0 and 1 where all values lie there, and
        otherwise the lowest and the highest of all rows, so that they can be compared; with "rows" those of each row,
        which are then written beside its name.
    title : str

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        A shape that is no image, rows of different lengths, or limits that are none.

    Examples
    --------
    >>> figure = images({"cue": torch.rand(5, 64), "original": torch.rand(5, 64)})
    >>> len(figure.axes), figure.axes[0].images[0].get_array().shape
    (10, (8, 8))
    """
    require_picture(path, title)
    rows = dict(values) if isinstance(values, Mapping) else {"": values}
    pictures = {name: laid_out(row, shape) for name, row in rows.items()}
    counts = sorted({len(row) for row in pictures.values()})
    if len(counts) != 1 or counts[0] == 0:
        raise ConfigError(f"every row needs the same number of images, at least one (found {counts})", key="values")
    across = min(counts[0], ACROSS)
    figure, axes = pyplot().subplots(
        len(rows), across, figsize=(0.75 * across + 1.2, 0.8 * len(rows) + 0.3), layout="constrained", squeeze=False
    )
    low, high, by_row = *limits_of(pictures.values(), limits), isinstance(limits, str)
    for line, (label, row) in zip(axes, pictures.items()):
        if by_row:
            low, high = limits_of([row], limits)
        for ax, picture in zip(line, row):
            bright = picture.ndim == 3
            shown = np.clip((picture - low) / ((high - low) or 1.0), 0, 1) if bright else picture
            ax.imshow(np.ma.masked_invalid(shown), cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
            ax.set(xticks=[], yticks=[], facecolor=PALE)
            for side in ax.spines.values():
                side.set_color(GREY)
        label = as_it_is(str(label)) + (f"\n{low:.3g} to {high:.3g}" if by_row else "")
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=SMALL)
    figure.suptitle(title)
    figure.set_facecolor(PAPER)
    save(figure, path)
    return figure  # type: ignore[no-any-return]


def laid_out(values: Tensor, shape: Sequence[int] | None) -> np.ndarray[Any, Any]:
    """Lay values out as an array (images, height, width) or (images, height, width, 3)."""
    values = read_numbers(values, "values").detach().cpu()
    own = tuple(values.shape[1:]) if shape is None else require_shape(shape, "shape")
    if 0 in values.shape[1:]:
        raise ConfigError(f"images have pixels (found values of shape {tuple(values.shape)})", key="values")
    if len(own) == 1:
        height = next(h for h in range(math.isqrt(own[0]), 0, -1) if own[0] % h == 0)
        own = (height, own[0] // height)
    if len(own) == 3 and own[0] == 1:
        own = own[1:]
    if values.dim() < 2 or not (len(own) == 2 or (len(own) == 3 and own[0] == 3)):
        raise ConfigError(
            "an image has the shape (height, width), (1, height, width) or (3, height, width), and the images come "
            f"first (found values of shape {tuple(values.shape)}, to be drawn as {own})",
            key="shape",
        )
    if math.prod(own) != math.prod(values.shape[1:]):
        raise ConfigError(f"{math.prod(values.shape[1:])} values are no image of shape {own}", key="shape")
    laid = values.reshape(len(values), *own)
    return (laid.permute(0, 2, 3, 1) if len(own) == 3 else laid).to(torch.float64).numpy()


def limits_of(rows: Iterable[np.ndarray[Any, Any]], limits: Any) -> tuple[float, float]:
    """Find the values that are drawn white and black."""
    if limits is not None and not (isinstance(limits, str) and limits == "rows"):
        try:
            low, high = map(float, limits if isinstance(limits, Sequence | np.ndarray | Tensor) else ())
        except (TypeError, ValueError, OverflowError):
            low = high = math.nan
        if not -math.inf < low < high < math.inf:
            raise ConfigError(
                f"limits are two numbers, the lower one first, or 'rows' (found {shown(limits)})", key="limits"
            )
        return low, high
    known = np.concatenate([row[np.isfinite(row)] for row in rows])
    if not len(known) or (known.min() >= 0 and known.max() <= 1):
        return 0.0, 1.0
    return float(known.min()), float(known.max())
