"""Check which initial states a graph and its clamps admit, with a witness for every answer.

Let C be the clamped nodes and U the free ones. A *sweep* computes every free value once, in some order, from values
already known.

*Proposition 3.2, as printed*: if forward initialization is possible, the graph is acyclic and every root is clamped.

*Theorem 1*: a sweep exists **if and only if** the graph induced by U has no cycle and every free root has a known value
(a prior, or another initializer). *Proof.* If both hold, a topological order of U is a sweep: what a node reads is
clamped, initialised or before it. Conversely, take the node of a free cycle that is computed first: it reads its
predecessor on the cycle, which is not known yet. And a free root without a value reads nothing that could give it one.

The sweep leaves every free error at exactly zero, since each free value *is* its prediction. Clamped nodes keep theirs.

:func:`check` answers for a graph; :func:`verify` re-checks an answer, and shares no code with `check`.

References
----------
Pinchetti, Frieder, Lukasiewicz, Salvatori: Faster Predictive Coding Networks via Better Initialization.
Proposition 3.2, Appendix B and Figure 9.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Set
from typing import Any, Literal, overload

from pcgraph.arguments import require_choice, require_flag, shown
from pcgraph.errors import ConfigError
from pcgraph.topology import arguments
from pcgraph.topology.cutgraph import of_groups, of_neurons
from pcgraph.topology.repair import Budget
from pcgraph.topology.report import PhaseReport, Report
from pcgraph.topology.verify import verify
from pcgraph.topology.witness import (
    Clamped,
    ErrorCoordinates,
    FreeCycle,
    FreeRoot,
    GraphCycle,
    GraphOrder,
    Leak,
    Neuron,
    Nothing,
    NotSupplied,
    Repair,
    Sweep,
    SweepOrder,
    UnclampedRoot,
    Verdict,
)

__all__ = [
    "Budget",
    "Clamped",
    "ErrorCoordinates",
    "FreeCycle",
    "FreeRoot",
    "GraphCycle",
    "GraphOrder",
    "Leak",
    "Neuron",
    "NotSupplied",
    "Nothing",
    "PhaseReport",
    "Repair",
    "Report",
    "Sweep",
    "SweepOrder",
    "UnclampedRoot",
    "Verdict",
    "check",
    "check_phase",
    "check_phases",
    "verify",
]

Level = Literal["groups", "neurons"]


@overload
def check(
    graph_or_net: Any, clamped: Mapping[Any, Set[Any] | list[Any] | tuple[Any, ...] | Mapping[Any, Any]], *,
    level: Level = ..., repair: bool | Budget = ...,
) -> PhaseReport: ...  # fmt: skip
@overload
def check(
    graph_or_net: Any, clamped: Iterable[Hashable] | Mapping[Any, Any] = ..., *,
    level: Level = ..., repair: bool | Budget = ...,
) -> Report: ...  # fmt: skip
def check(
    graph_or_net: Any,
    clamped: Iterable[Hashable] | Mapping[Any, Any] = (),
    *,
    level: Level = "groups",
    repair: bool | Budget = True,
) -> Report | PhaseReport:
    """Say which initial states this graph and these clamps admit.

    Parameters
    ----------
    graph_or_net : nx.DiGraph, nx.MultiDiGraph or PCNetwork
        The declaration. A root with the attribute ``prior`` has a known value.
    clamped : iterable of node, mapping from node, or mapping from phase
        The clamped nodes. In a mapping from node it does not matter what the values are, except that None is none,
        and is refused, and that one with an attribute ``mask`` clamps only some of the neurons: on the level of
        groups such a node is free. A mapping is one *from phase* exactly when none of its keys is a node and all its
        values are sets, lists, tuples or mappings.
    level : {"groups", "neurons"}
        On the level of neurons the stored entries of sparse and masked transforms are the edges; a dense edge stays
        one step from all to all. Nodes in the report are then :class:`Neuron`.
    repair : bool or Budget
        False: search for no repair. A budget: how long the search for a smallest one may take. It starts when
        ``report.repair`` is first read.

    Returns
    -------
    Report or PhaseReport
        For phases, a mapping from phase to report.

    Raises
    ------
    GraphError
        If the graph is undirected or empty, or for neurons lacks shapes.
    ClampError
        If a clamp names no node (with the nearest name), or its value is None.

    Examples
    --------
    >>> import networkx as nx
    >>> graph = nx.DiGraph([("x", "h"), ("h", "y"), ("y", "h")])
    >>> report = check(graph, {"x", "y"})
    >>> report.proposition_3_2, report.theorem_1, report.order
    (False, True, ('h',))
    >>> check(graph, {"x"}).cycle
    ['h', 'y']
    >>> both = check(graph, {"train": {"x", "y"}, "test": {"x"}})
    >>> {phase: report.theorem_1 for phase, report in both.items()}
    {'train': True, 'test': False}
    """
    graph = arguments.declared_graph(graph_or_net)
    phases = arguments.phases(graph, clamped)
    if phases is None:
        return _check_one(graph_or_net, graph, arguments.masks(graph, clamped), level, repair)
    return check_phases(graph_or_net, phases, level=level, repair=repair)


def check_phases(
    graph_or_net: Any, phases: Mapping[Hashable, Any], *, level: Level = "groups", repair: bool | Budget = True
) -> PhaseReport:
    """Do as :func:`check` does, for several phases, whatever their names.

    Parameters
    ----------
    graph_or_net, level, repair
        As in :func:`check`.
    phases : mapping from hashable to clamps
        The clamped nodes of each phase.

    Examples
    --------
    >>> import networkx as nx
    >>> reports = check_phases(nx.DiGraph([("x", "y")]), {"x": ["x"], "none": []})
    >>> {phase: report.theorem_1 for phase, report in reports.items()}
    {'x': True, 'none': False}
    """
    graph = arguments.declared_graph(graph_or_net)
    if not isinstance(phases, Mapping):
        raise ConfigError(f"phases are a mapping from a name to clamped nodes (found {shown(phases)})", key="phases")
    masks = {phase: arguments.masks(graph, nodes, phase) for phase, nodes in phases.items()}
    return PhaseReport({p: _check_one(graph_or_net, graph, nodes, level, repair) for p, nodes in masks.items()})


def check_phase(
    graph_or_net: Any,
    clamped: Iterable[Hashable] | Mapping[Hashable, Any] = (),
    *,
    level: Level = "groups",
    repair: bool | Budget = True,
) -> Report:
    """Do as :func:`check` does, for the clamps of one phase, whatever a mapping's values look like.

    Parameters
    ----------
    graph_or_net, clamped, level, repair
        As in :func:`check`, except that a mapping is never read as a table of phases.

    Examples
    --------
    >>> import networkx as nx
    >>> check_phase(nx.DiGraph([("x", "y")]), {"x": [0.5, 1.0]}).order
    ('y',)
    """
    graph = arguments.declared_graph(graph_or_net)
    return _check_one(graph_or_net, graph, arguments.masks(graph, clamped), level, repair)


def _check_one(graph_or_net: Any, graph: Any, masks: arguments.Masks, level: Level, repair: bool | Budget) -> Report:
    require_choice(level, "level", ("groups", "neurons"))
    if not isinstance(repair, Budget):
        require_flag(repair, "repair")
    if level == "groups":
        cut = of_groups(graph, masks)
    else:
        cut = of_neurons(graph, masks, arguments.entries_of(graph_or_net, graph))
    budget = repair if isinstance(repair, Budget) else Budget() if repair else None
    partial = frozenset(node for node, mask in masks.items() if mask is not None)
    by_place = arguments.biased_by_place(graph)
    return Report(clamped=frozenset(masks), partial=partial, budget=budget, _graph=cut, by_place=by_place)
