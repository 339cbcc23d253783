"""Precisions that are others in each inference step, by the depth of a node: they say when an error counts.

From forward initialization an error needs a step for each edge on its way, and shrinks on it. A schedule gives each
node its weight when the error arrives (Qi et al. 2025, arXiv 2506.23800): with N the length of the longest path, a
node that lies i edges from the inputs hears of the target in step ``t = N - i``.

    spiking     1 in that step, low in every other
    decaying    low before it, 1 in it, then decay times less with every step, never below low

The weights learn at precision 1. What these functions return is a mapping node -> precisions, to be changed by hand and
given as ``net.infer(..., precision=...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

import networkx as nx

from pcgraph.arguments import read_names, require_count, require_number, require_room
from pcgraph.errors import ClampError, GraphError
from pcgraph.topology import check
from pcgraph.topology.arguments import declared_graph

__all__ = ["decaying", "spiking"]

Node = Hashable
Schedule = dict[Node, tuple[float, ...]]


def spiking(graph: nx.DiGraph, inputs: Iterable[Node], steps: int, *, low: float = 1e-3) -> Schedule:
    """Give each node its whole precision in the one step in which the error arrives, and else next to none.

    Parameters
    ----------
    graph : nx.DiGraph, nx.MultiDiGraph or PCNetwork
        Acyclic; a network will do.
    inputs : iterable of node
        Where depth is counted from; they get no precision.
    steps : int
        Of the inference, at least the length of the longest path, so that every node has its turn.
    low : float
        Between 0 and 1.

    Returns
    -------
    dict
        Node with incoming edges -> `steps` + 1 precisions.

    Raises
    ------
    GraphError
        There is a cycle, which has no depth.
    ConfigError
        A number is none; or the steps do not suffice.

    Examples
    --------
    >>> import pcgraph
    >>> graph = pcgraph.graphs.chain([2, 3, 3, 1])
    >>> spiking(graph, {"x"}, steps=3)
    {'h1': (0.001, 0.001, 1.0, 1.0), 'h2': (0.001, 1.0, 0.001, 1.0), 'y': (1.0, 0.001, 0.001, 1.0)}
    """
    low = require_number(low, "low", above=0, most=1)
    return _schedule(graph, inputs, steps, lambda late: 1.0 if late == 0 else low)


def decaying(
    graph: nx.DiGraph, inputs: Iterable[Node], steps: int, *, decay: float = 0.5, low: float = 1e-3
) -> Schedule:  # fmt: skip
    """Give each node its whole precision when the error arrives, and less with every step after it.

    Parameters
    ----------
    graph, inputs, steps, low
        As for :func:`spiking`, and so are results and errors.
    decay : float
        Between 0 and 1.

    Examples
    --------
    >>> import pcgraph
    >>> decaying(pcgraph.graphs.chain([2, 3, 1]), {"x"}, steps=3)
    {'h1': (0.001, 1.0, 0.5, 1.0), 'y': (1.0, 0.5, 0.25, 1.0)}
    """
    low = require_number(low, "low", above=0, most=1)
    decay = require_number(decay, "decay", above=0, below=1)
    return _schedule(graph, inputs, steps, lambda late: low if late < 0 else max(low, decay**late))


def _schedule(graph: nx.DiGraph, inputs: Iterable[Node], steps: int, weight: Callable[[int], float]) -> Schedule:
    """Give each predicted node ``weight(t - arrival)`` for each step, and 1 for the end."""
    if isinstance(inputs, str):
        raise ClampError(f"inputs is a collection of nodes, as in {{{inputs!r}}} (found {inputs!r})")
    known = frozenset(read_names(inputs, "inputs", refuse=ClampError))
    report = check(graph, known, repair=False)  # refuses nodes that are not there
    graph = declared_graph(graph)
    if report.graph_cycle is not None:
        path = " → ".join(map(repr, [*report.graph_cycle, report.graph_cycle[0]]))
        raise GraphError(
            f"a schedule goes by depth, and the cycle {path} has none: give precision= a sequence for each node",
            where=tuple(report.graph_cycle),
            found=report.graph_cycle,
        )
    depth: dict[Node, int] = {}
    for v in nx.topological_sort(graph):
        depth[v] = 1 + max((depth[u] for u in graph.predecessors(v)), default=-1)
    longest = max(depth.values())
    steps = require_count(steps, "steps", least=max(longest, 1))
    predicted = [v for v in graph if graph.in_degree(v) and v not in known]
    require_room(8 * steps * len(predicted), f"a schedule of {steps} steps", "steps")
    return {v: (*(weight(t - longest + depth[v]) for t in range(steps)), 1.0) for v in predicted}
