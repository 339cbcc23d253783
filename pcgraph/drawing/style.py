"""Hold the colours, and what every picture needs of matplotlib (the extra ``plot``)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from pcgraph.arguments import require_instance, require_path, require_text
from pcgraph.errors import ConfigError, PCGraphError
from pcgraph.network import Slot
from pcgraph.serialization.files import write_whole
from pcgraph.topology.witness import name

__all__ = [
    "BLUE",
    "COLOURS",
    "DASHES",
    "DIM",
    "GREEN",
    "GREY",
    "INK",
    "MAP",
    "MARKS",
    "PALE",
    "PAPER",
    "RED",
    "SMALL",
    "as_it_is",
    "look",
    "plain_decimals",
    "pyplot",
    "require_picture",
    "save",
    "short_name",
    "whole_numbers",
]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
RED, BLUE, GREEN, GREY, INK, PAPER = "#D55E00", "#56B4E9", "#009E73", "#9A9A9A", "#222222", "#FFFFFF"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
DIM = "#666666"
"""What is said beside the matter is written in this grey, which is still dark enough to be read."""
MARKS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
"""Lines that differ in colour differ in mark and dash as well, for a reader of a grey print."""
SMALL = 9.0
"""Nothing is written smaller than this, in points; a picture for a page is some 9 inches wide at most."""
MAP = "cividis"
"""Amounts are drawn in this map: it is even in lightness, and the same to colour-blind readers."""
PALE = "#CFE3F0"
"""Cells without a value have this colour."""


def pyplot() -> Any:
    """Return the module ``pyplot``, or raise an error that says how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise PCGraphError("pictures need matplotlib (not found): pip install pcgraph[plot]") from error
    return plt


def look(k: int) -> dict[str, Any]:
    """Give the k-th line of a picture a colour, a mark and dashes of its own: a grey print tells them apart, too."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKS[k % len(MARKS)],
        "linestyle": DASHES[k % len(DASHES)],
    }


def as_it_is(text: str) -> str:
    """Keep matplotlib from reading what stands between two dollars as mathematics, and from what it cannot draw."""
    return text.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def short_name(node: object) -> str:
    """Write the name of a node, or of a node and its slot, cut off where it is long."""
    text = node.short if isinstance(node, Slot) else name(node)
    return text if len(text) <= 16 else text[:15] + "…"


def require_picture(path: Any, title: Any, ax: Any = None) -> None:
    """Refuse what no picture is given: a path, a title or axes that are none.

    Raises
    ------
    ConfigError
    """
    if path is not None:
        require_path(path, "path")
    if title is not None:
        require_text(title, "title")
    if ax is not None:
        from matplotlib.axes import Axes

        require_instance(ax, "ax", Axes, "pyplot.subplots()[1]")
        if ax.name != "rectilinear":
            raise ConfigError(f"ax= is plain axes, with x and y (found a projection, {ax.name!r})", key="ax")


def save(figure: Any, path: str | Path | None) -> None:
    """Write a figure and close it, if there is a path; the suffix says in which format, and the folder is made.

    Raises
    ------
    ConfigError
        The suffix is missing, or no format of a picture.
    DataError
        The file cannot be written; what was there before is still there.
    """
    if path is None:
        return
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in figure.canvas.get_supported_filetypes() or kind == "pgf":  # which needs LaTeX
        raise ConfigError(
            f"a picture has the suffix of its format, such as .png, .svg or .pdf (found {Path(path).name!r})",
            key="path",
        )
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=150, bbox_inches="tight", facecolor=PAPER)
    pyplot().close(figure)
    write_whole(path, drawn.getvalue(), "the picture")


def plain_decimals(axis: Any, values: list[float]) -> None:
    """Put the ticks of a logarithmic axis at 1, 2 and 5, as decimals, where these are short."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if min(values) >= 1e-3 and max(values) < 1e5:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(lambda value, _: f"{value:.4g}" if value < 1e4 else f"{value:.0f}")
        axis.set_minor_formatter(NullFormatter())


def whole_numbers(axis: Any) -> None:
    """Put ticks at whole numbers alone."""
    axis.get_major_locator().set_params(integer=True)
