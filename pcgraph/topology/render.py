"""Print a table as plain text, as a rich table and as HTML. What it says is composed by ``wording``."""

from __future__ import annotations

import html
import io
from dataclasses import dataclass

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pcgraph import notebook

__all__ = ["Sheet", "as_html", "as_rich", "as_text"]

WIDTH = 120


@dataclass(frozen=True)
class Sheet:
    """Hold a table with notes below it, whatever it is printed on.

    Attributes
    ----------
    title : str
    columns : tuple of str
        The header.
    widths : tuple of int
        How the columns share the width; a column of width 0 is as wide as its text.
    rows : tuple of tuple of str
        The cells.
    notes : tuple of (label, text)
    """

    title: str
    columns: tuple[str, ...]
    widths: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, str], ...] = ()


def as_rich(sheet: Sheet, *, ascii_only: bool = False) -> Table:
    """Return a table for a terminal; good answers are green, bad ones red."""
    table = Table(
        title=Text(sheet.title), box=ASCII if ascii_only else SIMPLE_HEAD, title_justify="left",
        caption_justify="left", title_style="bold", caption_style="", show_lines=ascii_only, expand=True,
    )  # fmt: skip
    for column, width in zip(sheet.columns, sheet.widths):
        table.add_column(Text(column), ratio=width or None, no_wrap=not width)
    for row in sheet.rows:
        table.add_row(*map(_cell, row))
    if sheet.notes:
        table.caption = Text("\n").join(_note(label, text) for label, text in sheet.notes)
    return table


def _cell(text: str) -> Text:
    good = text == "yes" or text.startswith("yes.")
    bad = text == "no" or text.startswith(("no:", "does not hold", "no sweep"))
    return Text(text, style="green" if good else "bold red" if bad else "")


def _note(label: str, text: str) -> Text:
    return Text.assemble((f"{label}: ", "bold yellow" if label == "warning" else "bold"), text)


def as_text(sheet: Sheet) -> str:
    """Return the table in plain characters, for terminals and logs."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_jupyter=False, _environ={})
    with console.capture() as captured:
        console.print(as_rich(sheet, ascii_only=True))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def as_html(sheet: Sheet) -> str:
    """Return the table for a notebook; every name is escaped."""
    notes = "".join(f"<li><b>{html.escape(label)}</b>: {html.escape(text)}</li>" for label, text in sheet.notes)
    return notebook.table(sheet.title, sheet.columns, sheet.rows) + (f"<ul>{notes}</ul>" if notes else "")
