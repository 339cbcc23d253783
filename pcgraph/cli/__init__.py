"""Run the ``pcgraph`` command: check a graph file, draw it, train a network, search for settings, run the demo.

Exit codes: 0 done; 1 (``check`` only) the initializer that was asked about does not exist for the graph; 2 the input
or a setting is wrong, said in one message; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Hashable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import networkx as nx
import typer
from rich.console import Console
from typer.core import TyperGroup

from pcgraph import __version__, drawing
from pcgraph.cli.demo import demo
from pcgraph.cli.searching import search
from pcgraph.cli.train import train, wide_console
from pcgraph.errors import ConfigError, PCGraphError
from pcgraph.experiments.initializers import verdict_on
from pcgraph.experiments.machine import within_memory
from pcgraph.experiments.text import as_typed, nodes_named, split_at, unescaped
from pcgraph.serialization import read_graph
from pcgraph.topology import Budget, PhaseReport, Report, check_phase, check_phases

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """Runs commands, and turns an expected error into one message without a traceback.

    Whatever the operating system refuses is expected, too; a broken pipe is left to typer, which ends quietly.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (PCGraphError, OSError) as problem:
            Console(stderr=True).print("[bold red]error:[/] ", end="")
            for text in (str(problem), *getattr(problem, "__notes__", ())):
                Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from problem


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pcgraph {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version, and stop.")
    ] = False,
) -> None:
    """Predictive coding networks on arbitrary graphs."""


class Level(StrEnum):
    """Says what a node of a report is."""

    groups = "groups"
    neurons = "neurons"


GraphFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A graph: node-link JSON (.json) or GraphML (.graphml).")
]
Clamps = Annotated[
    list[str],
    typer.Option(
        "--clamp",
        "-c",
        default_factory=list,
        show_default=False,
        metavar="NODE",
        help=r"A clamped node; repeat it, or join by commas (write \, in a name).",
    ),
]


@app.command()
def check(
    file: GraphFile,
    clamp: Clamps,
    phase: Annotated[
        list[str],
        typer.Option(
            default_factory=list,
            show_default=False,
            metavar="NAME=NODE,…",
            help="The clamped nodes of one phase; repeat it to compare.",
        ),
    ],
    init: Annotated[str, typer.Option(metavar="NAME[:option=value,…]", help="What the exit code says.")] = "forward",
    level: Annotated[Level, typer.Option(help="Neurons: expand sparse and masked edges.")] = Level.groups,
    repair: Annotated[
        bool, typer.Option("--repair", help="Propose nodes to give a value, for a sweep to exist.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="With --repair: how long to look for a smallest one. [10]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say which state initializers a graph and its clamps admit.

    Exits 1 where forward initialization (or what --init names) does not exist, in any of the phases.
    """
    if seconds is not None and not 0 <= seconds < math.inf:
        raise ConfigError(f"--seconds is a number that is not negative (found {seconds})", key="seconds")
    if seconds is not None and not repair:
        raise ConfigError("--seconds is how long to look for a repair: give --repair too", key="seconds")
    graph = read_graph(file)
    budget: Budget | bool = Budget(seconds=10.0 if seconds is None else seconds) if repair else False
    found: Report | PhaseReport
    if phase and clamp:
        raise ConfigError("give --clamp or --phase, not both", key="phase")
    with within_memory(f"{file} by {level.value}", "level"):
        if phase:
            found = check_phases(graph, _phases(graph, phase), level=level.value, repair=budget)
            reports = dict(found)
        else:
            found = check_phase(graph, _clamped(graph, clamp), level=level.value, repair=budget)
            reports = {None: found}
    verdicts = {str(name): verdict_on(init, report, graph) for name, report in reports.items()}
    valid = all(verdict.valid for verdict in verdicts.values())
    if as_json:
        typer.echo(json.dumps({**found.to_dict(), "asked": init, "valid": valid}, indent=2, ensure_ascii=False))
    else:
        proposals = [_proposal(name, report) for name, report in reports.items()] if repair else []  # before the table
        console = wide_console()
        console.print(found)
        for text in filter(None, proposals):
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    if not valid:
        raise typer.Exit(1)


def _clamped(graph: nx.DiGraph, texts: list[str]) -> list[Hashable]:
    return [node for text in texts for node in nodes_named(graph, text)]


def _phases(graph: nx.DiGraph, texts: list[str]) -> dict[Hashable, list[Hashable]]:
    """Read the phases, each written ``NAME=NODE,NODE,…``."""
    phases: dict[Hashable, list[Hashable]] = {}
    for text in texts:
        name, *nodes = split_at("=", text, 1)
        name = unescaped(name)
        if not nodes or not name:
            raise ConfigError(f"a phase is written NAME=NODE,NODE,… (found {text!r})", key="phase")
        if name in phases:
            raise ConfigError(f"the phase {name!r} stands twice: give each another name", key="phase")
        phases[name] = nodes_named(graph, nodes[0])
    return phases


def _proposal(phase: object, report: Report) -> str:
    """Say which nodes to give a value; empty where the report's own table says so once this has looked for it."""
    where = "" if phase is None else f" for {phase}"
    nodes = ", ".join(sorted(map(as_typed, report.repair or ())))
    if not nodes:
        return f"Repair{where}: none is needed, a sweep exists."
    if phase is None:
        return ""
    how = "no smaller set will do" if report.repair_is_minimal else "found greedily; a smaller set may exist"
    return f"Repair{where}: clamp or otherwise initialise {nodes} ({how})."


@app.command()
def draw(
    file: GraphFile,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PICTURE", help="The suffix says the format.")],
    clamp: Clamps,
) -> None:
    """Draw a graph: clamped nodes square, free cycles and roots without a value in red, depths as columns."""
    graph = read_graph(file)
    drawing.graph(graph, _clamped(graph, clamp), out)
    wide_console().print(f"Wrote {out}", markup=False, highlight=False, soft_wrap=True)


app.command()(train)
app.command()(search)
app.command()(demo)


def main() -> None:
    """Run the ``pcgraph`` script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign shows its number
    app()
