"""Tell notebooks how reports, plans and results are drawn; imported for the first picture."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

import networkx as nx
import numpy as np

from pcgraph import notebook
from pcgraph.drawing import results
from pcgraph.drawing.hover import draw_svg, energies_of
from pcgraph.drawing.style import PAPER, pyplot
from pcgraph.errors import PCGraphError
from pcgraph.learning import InferenceResult
from pcgraph.network import MAIN
from pcgraph.plan import Plan
from pcgraph.topology import Report, check_phase

__all__: list[str] = []

DRAWN = 500
"""Graphs with more nodes than this are not drawn unasked."""


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight", facecolor=PAPER)
    pyplot().close(figure)
    return file.getvalue()


def _has_pyplot() -> bool:
    try:
        pyplot()
    except PCGraphError:
        return False
    return True


def _report(report: Report) -> str:
    if report.level != "groups" or len(report.nodes) > DRAWN:
        return ""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(report.nodes)
    own, fed = set(report.main_edges), Counter((u, v) for u, v, _ in report.slot_edges)
    for edge, count in zip(report.edges, report.multiplicity):
        graph.add_edges_from([edge] * max(1, count - fed[edge]) if edge in own else [])
    _add_slots(graph, report.slot_edges)
    return draw_svg(graph, report).shown()


def _plan(plan: Plan) -> str:
    if len(plan.structure.nodes) > DRAWN:
        return ""
    graph, report = _declared(plan)
    return draw_svg(graph, report, title="").shown()


def _declared(plan: Plan) -> tuple[nx.MultiDiGraph, Report]:
    """Make a graph of what was declared out of a plan, with its report."""
    s = plan.structure
    graph = nx.MultiDiGraph()
    for i in np.argsort(s.rank[: len(s.declared)]).tolist():
        prior = {"prior": 0.0} if i in s.priors else {}
        graph.add_node(s.nodes[i], shape=s.groups[int(s.group_of[i])].shape, **prior)
    edges = [(*s.edge(e)[:2], s.slot_name(e)) for e in np.flatnonzero(~s.is_tie).tolist()]
    graph.add_edges_from((u, v) for u, v, slot in edges if slot == MAIN)
    _add_slots(graph, [edge for edge in edges if edge[2] != MAIN])
    clamped = [s.nodes[i] for i in np.flatnonzero(~plan.free[: len(s.declared)])]
    return graph, check_phase(graph, clamped, repair=False)


def _add_slots(graph: nx.MultiDiGraph, edges: Iterable[tuple[Hashable, Hashable, str]]) -> None:
    """Add edges that feed slots, and the slots."""
    for u, v, slot in edges:
        graph.nodes[v].setdefault("slots", {})[slot] = {}
        graph.add_edge(u, v, slot=slot)


def _result(result: InferenceResult) -> str:
    graph = ""
    if len(result.plan.structure.nodes) <= DRAWN:
        energies, elsewhere = energies_of(result)
        graph = draw_svg(*_declared(result.plan), energies=energies, title="", elsewhere=elsewhere).shown()
    if result.trace is None or len(result.trace) < 2 or not _has_pyplot():
        return graph
    if result.node_trace is None:
        return graph + notebook.image(_png(results.trace(result).figure), "energy over the inference steps")
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    results.trace(result, ax=left)
    results.energy(result, ax=right)
    return graph + notebook.image(_png(figure), "energy over the inference steps, in all and by node")


notebook.draws(Report, _report)
notebook.draws(Plan, _plan)
notebook.draws(InferenceResult, _result)
