"""Show reports, plans and results in a notebook: as a table, and as a picture where one can be drawn.

Pictures are drawn by a later room, which says here how: what is shown does not import what draws it, and that room is
loaded for the first picture alone.
"""

from __future__ import annotations

import base64
import html
import importlib
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["draws", "image", "painted_by", "picture", "table"]

STYLE = "text-align:left;vertical-align:top;padding:0.25em 0.75em"
BADGE = "border-radius:0.3em;padding:0 0.4em;color:#ffffff;background:"
SHADES = {"yes": "#0072b2", "no": "#b84c00;font-weight:bold"}
"""A cell that says so bears a badge, on a ground of its own: no colour of a text is read well on white and on black."""

_painters: dict[type, Callable[[Any], str]] = {}
_unloaded: set[str] = set()


def painted_by(module: str) -> None:
    """Name a module that calls :func:`draws` when it is imported, which is done for the first picture."""
    _unloaded.add(module)


def draws(kind: type, painter: Callable[[Any], str]) -> None:
    """Let `painter` draw values of this class: as HTML, or as an empty text where there is nothing to draw."""
    _painters[kind] = painter


def picture(value: Any) -> str:
    """Return the picture of a value as HTML, or an empty text where nobody can draw it."""
    while _unloaded:
        importlib.import_module(_unloaded.pop())
    painter = next((_painters[kind] for kind in type(value).__mro__ if kind in _painters), None)
    return "" if painter is None else painter(value)


def image(png: bytes, alt: str) -> str:
    """Write a PNG as an ``<img>``; `alt` says what is on it to whoever does not see it."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<p><img style="max-width:100%" alt="{html.escape(alt)}" src="{source}"></p>'


def table(title: str, columns: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Write an HTML table in which every text is escaped; a cell that says yes or no bears a badge."""
    head = _row(columns, "th")
    lines = "".join(_row(row, "td") for row in body)
    caption = f'<caption style="text-align:left">{html.escape(title)}</caption>'
    return f"<table>{caption}<thead>{head}</thead><tbody>{lines}</tbody></table>"


def _row(cells: Sequence[str], tag: str) -> str:
    def cell(text: str) -> str:
        said = html.escape(text)
        if tag == "td" and text in SHADES:
            said = f'<span style="{BADGE}{SHADES[text]}">{said}</span>'
        return f'<{tag} style="{STYLE}">{said}</{tag}>'

    return f"<tr>{''.join(map(cell, cells))}</tr>"
