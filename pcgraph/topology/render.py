"""A report as plain text, as a rich table, as HTML and as plain values."""

from __future__ import annotations

import dataclasses
import html
import io
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import ASCII, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pcgraph import notebook
from pcgraph.topology.witness import Verdict, listing, name

if TYPE_CHECKING:
    from pcgraph.topology.report import PhaseReport, Report

WIDTH = 120
REPAIR_EDGES = 5_000
"""Up to so many edges a printed report searches for a repair of its own accord."""

COLUMNS = ("initializer", "valid", "why", "witness", "remedy")
RATIOS = {"why": 5, "witness": 4, "remedy": 5}


def _names(nodes: Sequence[Hashable] | None) -> list[Any] | None:
    """Nodes as JSON: a tuple is one name, not a list of names."""
    return None if nodes is None else [v if isinstance(v, int | str) else name(v) for v in nodes]


def as_dict(report: Report) -> dict[str, Any]:
    """The report as values that ``json.dumps`` takes."""
    return {
        "level": report.level,
        "nodes": len(report.nodes),
        "edges": report.edge_count,
        "clamped": _names(sorted(report.clamped, key=name)),
        "partly_clamped": _names(sorted(report.partial, key=name)),
        "proposition_3_2": report.proposition_3_2,
        "theorem_1": report.theorem_1,
        "order": _names(report.order),
        "cycle": _names(report.cycle),
        "cycle_is_shortest": report.cycle_is_shortest,
        "graph_cycle": _names(report.graph_cycle),
        "free_roots": _names(report.free_roots),
        "isolated": _names(report.isolated),
        "forward_reachable": _names(sorted(report.forward_reachable, key=name)),
        "components": [_names(sorted(part, key=name)) for part in report.components],
        "depth": {name(v): None if math.isinf(d) else d for v, d in report.depth.items()},
        "repair": None if report.repair is None else _names(sorted(report.repair, key=name)),
        "repair_is_minimal": report.repair_is_minimal,
        "warnings": list(report.warnings),
        "verdicts": {key: _verdict(verdict) for key, verdict in report.verdicts.items()},
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "initializer": verdict.initializer,
        "valid": verdict.valid,
        "reason": verdict.reason,
        "witness": None if verdict.witness is None else _claim(verdict.witness),
        "remedy": verdict.remedy,
    }


def _claim(claim: Any) -> dict[str, Any]:
    """A witness as its class and its fields; the nodes in them by name."""
    found: dict[str, Any] = {"kind": type(claim).__name__, "text": str(claim)}
    for item in dataclasses.fields(claim):
        value = getattr(claim, item.name)
        if isinstance(value, frozenset):
            value = sorted(value, key=name)
        if isinstance(value, list) or (isinstance(value, tuple) and item.name in ("nodes", "order")):
            found[item.name] = _names(value)
        elif dataclasses.is_dataclass(value) and item.name == "witness":
            found[item.name] = _claim(value)
        elif value is None or isinstance(value, bool | int | str):
            found[item.name] = value
        else:
            found[item.name] = name(value)
    return found


def headline(report: Report) -> str:
    """What was checked, in a line."""
    what = "neurons" if report.level == "neurons" else "nodes"
    clamps = listing(sorted(report.clamped, key=name)) or "nothing"
    return f"{len(report.nodes)} {what}, {report.edge_count} edges; clamped: {clamps}; {len(report.free)} free"


def in_brief(report: Report) -> str:
    """Which initializers do not hold, in a line."""
    refused = [verdict.initializer for verdict in report.verdicts.values() if not verdict.valid]
    return f"all hold but {', '.join(refused)}" if refused else "every initializer holds"


def facts(report: Report) -> list[tuple[str, str]]:
    """The graph's own facts, each with its label."""
    found = [("Proposition 3.2", _proposition(report)), ("Theorem 1", _theorem(report))]
    if not report.theorem_1 and _repair_shown(report):
        repair = report.repair or frozenset()
        how = "smallest" if report.repair_is_minimal else "greedy, perhaps not smallest"
        found.append(("repair", f"give a value to {listing(sorted(repair, key=name))} ({how})"))
    found += [("warning", text) for text in report.warnings]
    return found


def _proposition(report: Report) -> str:
    verdict = report.verdicts["forward"]
    return "holds: acyclic, every root clamped" if verdict.valid else f"does not hold: {verdict.witness}"


def _theorem(report: Report) -> str:
    sweep = report.sweep()
    if sweep.complete:
        order = f"{'in the order ' if len(sweep.order) > 1 else ''}{listing(sweep.order)}"
        return f"a sweep exists: {order if sweep.order else 'no node is free'}"
    roots = f"; no value for {listing(report.free_roots)}" if report.free_roots and report.cycle else ""
    swept = f"; {len(sweep.order)} of {len(report.free)} free nodes can be swept"
    return f"no sweep exists: {sweep.witness}{roots}{swept}"


def _repair_shown(report: Report) -> bool:
    if report.budget is None:
        return False
    return "repair_witness" in vars(report) or report.edge_count <= REPAIR_EDGES


def rows(report: Report) -> list[tuple[str, ...]]:
    """The table's cells, a row for each initializer."""
    return [
        (
            verdict.initializer,
            "yes" if verdict.valid else "no",
            verdict.reason,
            "" if verdict.witness is None else str(verdict.witness),
            verdict.remedy,
        )
        for verdict in report.verdicts.values()
    ]


def _table(title: str, columns: Sequence[str], *, ascii_only: bool) -> Table:
    table = Table(
        title=Text(title), box=ASCII if ascii_only else SIMPLE_HEAD, title_justify="left", caption_justify="left",
        title_style="bold", caption_style="", show_lines=ascii_only, expand=True,
    )  # fmt: skip
    for column in columns:
        table.add_column(Text(column), ratio=RATIOS.get(column), no_wrap=column in ("initializer", "valid"))
    return table


def _cell(text: str, column: str) -> Text:
    style = {"yes": "green", "no": "bold red"}.get(text, "") if column not in ("why", "witness", "remedy") else ""
    return Text(text, style=style)


def as_rich(report: Report, *, ascii_only: bool = False) -> Table:
    """A table: initializer, valid, why, witness, remedy; the graph's own facts below it."""
    table = _table(headline(report), COLUMNS, ascii_only=ascii_only)
    for row in rows(report):
        table.add_row(*(_cell(text, column) for text, column in zip(row, COLUMNS)))
    table.caption = Text("\n").join(_fact(label, text) for label, text in facts(report))
    return table


def _fact(label: str, text: str) -> Text:
    return Text.assemble((f"{label}: ", "bold yellow" if label == "warning" else "bold"), text)


def _printed(table: Table) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_jupyter=False, _environ={})
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def as_text(report: Report) -> str:
    """The table in plain characters, for terminals and logs."""
    return _printed(as_rich(report, ascii_only=True))


def _html_facts(report: Report) -> str:
    items = (f"<li><b>{html.escape(label)}</b>: {html.escape(text)}</li>" for label, text in facts(report))
    return f"<ul>{''.join(items)}</ul>"


def as_html(report: Report) -> str:
    """The table and the drawing for a notebook; every name is escaped."""
    return notebook.table(headline(report), COLUMNS, rows(report)) + _html_facts(report) + notebook.picture(report)


def _phase_rows(reports: PhaseReport) -> list[list[str]]:
    """A row for each fact and initializer, a column for each phase; a remedy where something does not hold."""
    each = list(reports.values())
    first = each[0]
    found = [["clamped", *(listing(sorted(r.clamped, key=name)) or "nothing" for r in each)]]
    for label in ("Proposition 3.2", "Theorem 1"):
        found.append([label, *(dict(facts(r))[label] for r in each)])
    for key, verdict in first.verdicts.items():
        found.append([verdict.initializer, *(_in_short(r.verdicts[key]) for r in each)])
    if any(r.warnings for r in each):
        found.append(["warnings", *("; ".join(r.warnings) for r in each)])
    return found


def _in_short(verdict: Verdict) -> str:
    return "yes" if verdict.valid else f"no: {verdict.reason}. {verdict.remedy}"


def phases_as_rich(reports: PhaseReport, *, ascii_only: bool = False) -> Table:
    """One table with a column a phase."""
    columns = ["", *map(name, reports)]
    report = next(iter(reports.values()))
    title = f"{len(report.nodes)} {'neurons' if report.level == 'neurons' else 'nodes'}, {report.edge_count} edges"
    table = _table(title, columns, ascii_only=ascii_only)
    for column in table.columns[1:]:
        column.ratio = 1
    for row in _phase_rows(reports):
        table.add_row(*(_phase_cell(text) for text in row))
    return table


def _phase_cell(text: str) -> Text:
    bad = text.startswith(("no:", "does not hold", "no sweep"))
    return Text(text, style="green" if text == "yes" else "red" if bad else "")


def phases_as_text(reports: PhaseReport) -> str:
    """The phases' table in plain characters."""
    return _printed(phases_as_rich(reports, ascii_only=True))


def phases_as_html(reports: PhaseReport) -> str:
    """The phases' table and drawings for a notebook."""
    pictures = "".join(f"<p>{html.escape(name(phase))}</p>{notebook.picture(r)}" for phase, r in reports.items())
    return notebook.table("", ["", *map(name, reports)], _phase_rows(reports)) + pictures
