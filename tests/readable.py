"""What makes a picture hard to read on a page, or in grey, and how a folder of tests refuses to write such a one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = ["alike_in_grey", "check", "too_small"]

PAGE = 9.0
"""A page shows a picture at most so many inches wide; what is wider is made smaller, with all that is written in it."""
SMALLEST = 7.0
APART = 0.3
"""Lines that differ in neither dash nor mark need so much between their lightness, of 1, to be told apart in grey."""


def lightness(colour: object) -> float:
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def too_small(figure: Figure) -> list[str]:
    """What is written smaller than is read, on the page."""
    scale = min(1.0, PAGE / figure.get_figwidth())
    written = (text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip())
    return [f"{text.get_text()!r}: {text.get_fontsize() * scale:.1f} points" for text in written
            if text.get_fontsize() * scale < SMALLEST]  # fmt: skip


def alike_in_grey(figure: Figure) -> list[str]:
    """Pairs of labelled lines that a grey print does not tell apart."""
    found = []
    for ax in figure.axes:
        lines = [line for line in ax.lines if line.get_visible() and not str(line.get_label()).startswith("_")]
        for one, other in itertools.combinations(lines, 2):
            signs = [(line.get_marker(), str(line._unscaled_dash_pattern), line.get_fillstyle(), line.get_linewidth(),
                      line.get_markerfacecolor() == "white") for line in (one, other)]  # fmt: skip
            near = abs(lightness(one.get_color()) - lightness(other.get_color())) < APART
            if signs[0] == signs[1] and near:
                found.append(f"{one.get_label()!r} and {other.get_label()!r}")
    return found


def check(monkeypatch: pytest.MonkeyPatch, *faults: Callable[[Figure], list[str]]) -> None:
    """Refuse a figure with such faults where it is written."""
    write = Figure.savefig

    def checked(figure: Figure, *args: object, **kwargs: object) -> None:
        write(figure, *args, **kwargs)
        for fault in faults:
            assert not fault(figure), fault(figure)

    monkeypatch.setattr(Figure, "savefig", checked)
