"""Draw how inference moves: neurons over the steps, one against another, errors over time, and states as a film."""

from __future__ import annotations

import io
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from pcgraph.arguments import require_choice, require_count, require_number, require_path, shown
from pcgraph.drawing.results import laid_out, limits_of
from pcgraph.drawing.style import (
    COLOURS,
    GREY,
    INK,
    MAP,
    PAPER,
    SMALL,
    as_it_is,
    look,
    pyplot,
    require_picture,
    save,
    short_name,
)  # fmt: skip
from pcgraph.errors import ConfigError
from pcgraph.learning import InferenceResult
from pcgraph.serialization.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["animate", "errors", "phase", "trajectories"]

Node = Hashable
Kind = Literal["states", "errors"]
KINDS = ("states", "errors")
LINES = len(COLOURS)
"""So many neurons are drawn unless others are asked for: each in a colour of its own."""
ACROSS = 10
"""So many samples a film shows side by side."""
LONGEST = 600.0
"""So many seconds a film lasts at most: of each frame a file holds hundredths of them in 16 bits."""


def _kept(result: Any, kind: Any = "states") -> dict[Node, Tensor]:
    """Return what a result has kept on the way, or refuse it."""
    if not isinstance(result, InferenceResult):
        raise ConfigError(f"this draws what net.infer(...) returns (found {shown(result)})", key="result")
    require_choice(kind, "kind", KINDS)
    found = result.state_trace if kind == "states" else result.error_trace
    if found is None:
        raise ConfigError('the result keeps no states of its steps; run net.infer(..., trace="states")', key="trace")
    return found


def _of_node(kept: dict[Node, Tensor], node: Any) -> Tensor:
    """Return what was kept of one node, (kept, batch, *shape)."""
    if not isinstance(node, Hashable) or node not in kept:
        raise ConfigError(
            f"node {shown(node)} was not kept; those that were: {', '.join(map(repr, list(kept)[:12])) or 'none'}",
            key="node",
        )
    return kept[node]


def _index(value: Any, key: str, count: int) -> int:
    return require_count(value, key, most=count - 1)


def trajectories(
    result: InferenceResult, node: Node, path: str | Path | None = None, *, neurons: Iterable[int] | None = None,
    sample: int = 0, kind: Kind = "states", ax: Axes | None = None, title: str = "",
) -> Axes:  # fmt: skip
    """Draw neurons of a node over the inference steps, a line each.

    Parameters
    ----------
    result : InferenceResult
        Of ``net.infer(..., trace="states")``, or with a :class:`pcgraph.Trace`.
    node : node
    path : str or Path, optional
        Write the picture here; the suffix says in which format.
    neurons : iterable of int, optional
        Which of them, counted in the flattened state; by default the first seven.
    sample : int
        Of the batch.
    kind : {"states", "errors"}
    ax : matplotlib Axes, optional
        Draw into this one.
    title : str

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ConfigError
        The result keeps no states, or not of this node; or there is no such neuron or sample.
    """
    require_picture(path, title, ax)
    values = _of_node(_kept(result, kind), node).flatten(2)
    chosen = values[:, _index(sample, "sample", values.shape[1])].detach().cpu().double().numpy()
    which = _neurons(neurons, chosen.shape[1])
    if ax is None:
        _, ax = pyplot().subplots(figsize=(5, 3.2), layout="constrained")
    for k, i in enumerate(which):
        ax.plot(result.trace_steps, chosen[:, i], **look(k), label=str(i), linewidth=1.2, markersize=4, markevery=0.1)
    ax.set(xlabel="inference steps taken", ylabel=f"{kind} of {as_it_is(short_name(node))}", title=title)
    if len(which) <= LINES:
        ax.legend(
            frameon=False,
            fontsize=SMALL,
            title="neuron",
            title_fontsize=SMALL,
            loc="center left",
            bbox_to_anchor=(1, 0.5),
        )
    _finish(ax, path)
    return ax


def _neurons(neurons: Any, count: int) -> list[int]:
    if neurons is None:
        return list(range(min(LINES, count)))
    if isinstance(neurons, str) or not isinstance(neurons, Iterable):
        raise ConfigError(f"neurons are numbers, as in neurons=[0, 3] (found {shown(neurons)})", key="neurons")
    found = [_index(i, "a neuron", count) for i in neurons]
    if not found:
        raise ConfigError("neurons names at least one (found none)", key="neurons")
    return found


def phase(
    result: InferenceResult, x: tuple[Node, int], y: tuple[Node, int], path: str | Path | None = None, *,
    samples: int = 20, ax: Axes | None = None, title: str = "",
) -> Axes:  # fmt: skip
    """Draw the way of two neurons through their plane, a line for each sample: where they start, and where they end.

    Parameters
    ----------
    result : InferenceResult
        As for :func:`trajectories`.
    x, y : (node, int)
        A neuron each, counted in the flattened state.
    path, ax, title
        As for :func:`trajectories`.
    samples : int
        So many of the batch at most.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ConfigError
        As for :func:`trajectories`.
    """
    require_picture(path, title, ax)
    kept, samples = _kept(result), require_count(samples, "samples", least=1)
    (across, x_label), (up, y_label) = (_neuron(kept, each, key) for each, key in ((x, "x"), (y, "y")))
    if ax is None:
        _, ax = pyplot().subplots(figsize=(4.2, 4), layout="constrained")
    for k in range(min(samples, across.shape[1])):
        colour = COLOURS[k % len(COLOURS)]
        ax.plot(across[:, k], up[:, k], color=colour, linewidth=1)
        ax.plot(across[0, k], up[0, k], "o", color=colour, fillstyle="none", markersize=5)
        ax.plot(across[-1, k], up[-1, k], "o", color=colour, markersize=5)
    ends = [
        pyplot().Line2D([], [], marker="o", linestyle="", color=INK, fillstyle=fill, label=label)
        for fill, label in (("none", "start"), ("full", "end"))
    ]
    ax.legend(handles=ends, frameon=False, fontsize=SMALL)
    ax.set(xlabel=x_label, ylabel=y_label, title=title)
    _finish(ax, path)
    return ax


def _neuron(kept: dict[Node, Tensor], which: Any, key: str) -> tuple[Any, str]:
    if not isinstance(which, tuple) or len(which) != 2:
        raise ConfigError(
            f"{key} is a node and the number of a neuron, as in ('h1', 0) (found {shown(which)})", key=key
        )
    node, i = which
    values = _of_node(kept, node).flatten(2)
    i = _index(i, f"the neuron in {key}", values.shape[2])
    return values[:, :, i].detach().cpu().double().numpy(), f"{as_it_is(short_name(node))}, neuron {i}"


def errors(
    result: InferenceResult, path: str | Path | None = None, *, node: Node | None = None, sample: int | None = None,
    ax: Axes | None = None, title: str = "",
) -> Axes:  # fmt: skip
    """Draw errors over the inference steps as a heat map: a row for each node, or for each neuron of one.

    Parameters
    ----------
    result : InferenceResult
        As for :func:`trajectories`.
    path, ax, title
        As for :func:`trajectories`.
    node : node, optional
        Its neurons' errors, h - mu, signed; without one, the root mean square of each node's error.
    sample : int, optional
        Of the batch; without one, the mean of neurons' errors, and the root mean square of nodes', over it.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ConfigError
        As for :func:`trajectories`.
    """
    require_picture(path, title, ax)
    kept = {v: e.detach().cpu().double() for v, e in _kept(result, "errors").items()}
    if sample is not None and kept:
        k = _index(sample, "sample", next(iter(kept.values())).shape[1])
        kept = {v: e[:, k : k + 1] for v, e in kept.items()}
    if node is None:
        rows = np.stack([e.flatten(1).square().mean(1).sqrt().numpy() for e in kept.values()])
        low, high, colours, label = 0.0, float(rows.max()) or 1.0, MAP, "RMS error"
    else:
        rows = _of_node(kept, node).flatten(2).mean(1).t().numpy()
        high = float(np.abs(rows).max()) or 1.0
        low, colours, label = -high, "RdBu_r", f"error of {as_it_is(short_name(node))}"
    if ax is None:
        _, ax = pyplot().subplots(figsize=(6, min(12.0, max(2.2, 0.28 * len(rows) + 1.0))), layout="constrained")
    image = ax.imshow(rows, aspect="auto", cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    if node is None:
        ax.set_yticks(range(len(kept)), [as_it_is(short_name(v)) for v in kept], fontsize=SMALL)
    else:
        ax.set_ylabel("neuron")
    steps, every = result.trace_steps, max(1, len(result.trace_steps) // 8)
    ax.set_xticks(range(0, len(steps), every), [str(step) for step in steps[::every]])
    ax.set(xlabel="inference steps taken", title=title)
    ax.figure.colorbar(image, ax=ax, fraction=0.06, pad=0.02).set_label(label)
    save(ax.figure, path)
    return ax


def animate(
    result: InferenceResult, node: Node, path: str | Path, *, kind: Kind = "states", shape: Sequence[int] | None = None,
    seconds: float = 4.0, title: str = "",
) -> None:  # fmt: skip
    """Write a film of a node's states, or errors, as images: one frame for each step that was kept.

    Parameters
    ----------
    result : InferenceResult
        As for :func:`trajectories`.
    node : node
    path : str or Path
        A file with the suffix .gif.
    kind : {"states", "errors"}
    shape : sequence of int, optional
        As for :func:`images`.
    seconds : float
        How long the film is.
    title : str
        Above it, before the number of steps.

    Raises
    ------
    ConfigError
        As for :func:`trajectories`; or the suffix is another, or the states are no images of this shape.
    DataError
        The file cannot be written; what was there before is still there.
    """
    require_picture(path, title)
    seconds, file = require_number(seconds, "seconds", above=0, most=LONGEST), require_path(path, "path")
    if file.suffix.lower() != ".gif":
        raise ConfigError(f"a film has the suffix .gif (found {file.name!r})", key="path")
    values = _of_node(_kept(result, kind), node)[:, :ACROSS]
    frames = [laid_out(each, shape) for each in values]
    low, high = limits_of(frames, None)
    plt = pyplot()
    from PIL import Image

    across = frames[0].shape[0]
    figure, axes = plt.subplots(1, across, figsize=(1.1 * across + 0.6, 1.9), layout="constrained", squeeze=False)
    drawn = []
    for ax, picture in zip(axes[0], frames[0]):
        drawn.append(
            ax.imshow(_scaled(picture, low, high), cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
        )
        ax.set(xticks=[], yticks=[])
        for side in ax.spines.values():
            side.set_color(GREY)
    figure.set_facecolor(PAPER)
    film = []
    for step, pictures in zip(result.trace_steps, frames):
        for image, picture in zip(drawn, pictures):
            image.set_data(_scaled(picture, low, high))
        figure.suptitle(f"{title + ', ' * bool(title)}after {step} steps", fontsize=SMALL)
        figure.canvas.draw()
        film.append(_frame(figure, Image))
    plt.close(figure)
    whole = io.BytesIO()
    pause = max(20, round(1000 * seconds / len(film)))
    film[0].save(whole, format="GIF", save_all=True, append_images=film[1:], duration=pause, loop=0)
    write_whole(file, whole.getvalue(), "the film")


def _scaled(picture: Any, low: float, high: float) -> Any:
    return np.clip((picture - low) / ((high - low) or 1.0), 0, 1) if picture.ndim == 3 else picture


def _frame(figure: Any, image: Any) -> Any:
    """Return what a figure shows as an image of Pillow's."""
    shown_now = io.BytesIO()
    figure.savefig(shown_now, format="png", dpi=100, facecolor=PAPER)
    return image.open(shown_now).convert("RGB").quantize(64)


def _finish(ax: Axes, path: str | Path | None) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25)
    save(ax.figure, path)
