"""Report on one graph under one set of clamps, and on several phases side by side.

A report is :class:`~pcgraph.topology.facts.Facts` with a verdict for each initializer, and it can be printed.
"""

from __future__ import annotations

import html
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rich.table import Table

from pcgraph import notebook
from pcgraph.arguments import shown
from pcgraph.errors import ConfigError
from pcgraph.topology import render, wording
from pcgraph.topology.cautions import cautions
from pcgraph.topology.facts import Facts
from pcgraph.topology.verdicts import all_verdicts, error_coordinates
from pcgraph.topology.witness import Verdict, name

__all__ = ["PhaseReport", "Report"]


@dataclass(frozen=True, eq=False)
class Report(Facts):
    """Say what a graph and its clamps admit. Every fact is computed when it is first asked for, then kept.

    All of it is linear in nodes and edges, except :attr:`repair`. The graph was copied into numbers by
    :func:`pcgraph.check`, so that changing it afterwards changes no report.

    Attributes
    ----------
    clamped : frozenset of node
        Groups with a clamp, partial ones included.
    partial : frozenset of node
        Those of which only some neurons are clamped.
    level : {"groups", "neurons"}
        What "node" means below: a group, or a :class:`~pcgraph.topology.Neuron`.
    budget : Budget or None
        Of the search for a repair; None: none is searched.
    by_place : tuple of node
        Groups behind convolutions alone that say nothing of their bias, and so have one for each place of an image.
    """

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Every initializer, in its plainest form, has a verdict here; so have error coordinates, as "errors"."""
        return all_verdicts(self)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """These texts name what is allowed, but probably not what was meant."""
        return cautions(self)

    def verdict(self, initializer: Any) -> Verdict:
        """Judge one configured initializer: this is what its ``requirement(report)`` answers."""
        if isinstance(initializer, type) or not callable(getattr(initializer, "requirement", None)):
            raise ConfigError(
                f"a verdict is of an initializer, as in report.verdict(pcgraph.Forward()) (found {shown(initializer)})",
                key="initializer",
            )
        found = initializer.requirement(self)
        if not isinstance(found, Verdict):
            raise ConfigError(
                f"{type(initializer).__name__}.requirement must return a Verdict, one of report.verdicts or its own "
                f"(found {shown(found)})",
                key="initializer",
            )
        return found

    def error_coordinates(self, keep: Iterable[Hashable] | Literal["repair"] = ()) -> Verdict:
        """Judge error coordinates, in which inference moves errors instead of states.

        The variable of a free node is its error, h = mu + error, where mu is known in its turn; of a free root, and of
        what is kept, it is the state. They exist exactly where the other free nodes have no cycle. The energy is the
        same function in these coordinates.

        Parameters
        ----------
        keep : iterable of node, or "repair"
            Nodes of which the state is kept. "repair": as few as :attr:`repair` finds; a report without a budget
            searches for them with one that is the same on every machine.

        Returns
        -------
        Verdict
            Its witness is an :class:`~pcgraph.topology.ErrorCoordinates`, or a cycle of nodes of which none is kept.

        Examples
        --------
        >>> import networkx as nx
        >>> from pcgraph import check
        >>> report = check(nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")]), {"x", "y"})
        >>> print(report.error_coordinates().message)
        Errors() needs a clamp on every cycle (found the free cycle a → b → a). Use Errors(keep="repair"), which ...
        >>> print(report.error_coordinates(keep="repair").witness)
        order b; states of a
        """
        return error_coordinates(self, keep)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, ready for ``json.dumps``. An infinite depth is None."""
        return wording.as_dict(self, self.verdicts)

    def __repr__(self) -> str:
        return f"<Report: {wording.headline(self)}; {wording.in_brief(self.verdicts)}>"

    def __str__(self) -> str:
        return render.as_text(self._sheet)

    def __rich__(self) -> Table:
        return render.as_rich(self._sheet)

    def _repr_html_(self) -> str:
        return render.as_html(self._sheet) + notebook.picture(self)

    @property
    def _sheet(self) -> render.Sheet:
        return wording.sheet(self, self.verdicts)


class PhaseReport(Mapping[Hashable, Report]):
    """Hold one report a phase, printed as one table with a column a phase.

    A feedback edge from the target is cut while the target is clamped, and is not at test time: what holds in
    training need not hold then.
    """

    def __init__(self, reports: Mapping[Hashable, Report]) -> None:
        self._reports = dict(reports)

    def __getitem__(self, phase: Hashable) -> Report:
        return self._reports[phase]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)

    def to_dict(self) -> dict[str, Any]:
        """Return each phase's report as plain values, by the phase's name."""
        return {"phases": {str(phase): report.to_dict() for phase, report in self.items()}}

    def __str__(self) -> str:
        return render.as_text(self._sheet)

    def __repr__(self) -> str:
        phases = (f"{phase!r}: {wording.in_brief(report.verdicts)}" for phase, report in self.items())
        return f"<PhaseReport: {'; '.join(phases)}>"

    def __rich__(self) -> Table:
        return render.as_rich(self._sheet)

    def _repr_html_(self) -> str:
        pictures = (f"<p>{html.escape(name(phase))}</p>{notebook.picture(r)}" for phase, r in self.items())
        return render.as_html(self._sheet) + "".join(pictures)

    @property
    def _sheet(self) -> render.Sheet:
        return wording.phase_sheet({phase: (report, report.verdicts) for phase, report in self.items()})
