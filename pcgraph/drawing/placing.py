"""Place the nodes of a declaration, and bend its edges round them; every kind of picture is laid out so."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Set
from dataclasses import dataclass

import networkx as nx

from pcgraph.topology import Report, check_phase
from pcgraph.topology.arguments import feeds_main

__all__ = [
    "HIGH", "WIDE", "Box", "Signs", "bend", "box", "clearest", "fanned", "heights", "is_target", "layout", "main_edges",
    "middle", "signs",
]  # fmt: skip

Node = Hashable
Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in inches."""
APART = 0.08
"""Texts side by side keep this distance, in inches."""

WIDE, HIGH = 1.05, 0.9
"""So many inches lie from column to column and from row to row."""
ROUNDS = 8
TALL = 30
"""A column of more nodes than this is folded into several, side by side."""
FIRST_SLOT = 30.0
"""The first slot of a node stands so many degrees from the right, where what feeds it back mostly comes from."""
FOLD = 0.36
"""The parts of a folded column stand so far apart, where 1 is the distance from column to column."""


def layout(declared: nx.DiGraph, report: Report) -> tuple[dict[int, list[Node]], dict[Node, Point]]:
    """Place each node: return the nodes of each column from top to bottom, and their positions.

    Parameters
    ----------
    declared : nx.DiGraph
        The declaration.
    report : Report
        Its report, of groups.
    """
    column = _columns(declared, main_edges(declared), report)
    columns: dict[int, list[Node]] = defaultdict(list)
    for v in declared:
        columns[column[v]].append(v)
    ordered = {c: columns[c] for c in sorted(columns)}
    _uncross(declared, ordered, column)
    place: dict[Node, Point] = {}
    x = 0.0
    for c, nodes in ordered.items():
        folds = math.ceil(len(nodes) / TALL)
        width = FOLD * (folds - 1)
        x += width / 2 + (1.0 if c else 0.0)
        for i, v in enumerate(nodes):
            place[v] = (x + FOLD * (i % folds) - width / 2, ((len(nodes) - 1) / 2 - i) / folds)
        x += width / 2
    return ordered, place


def main_edges(declared: nx.DiGraph) -> nx.DiGraph:
    """Return the graph without the edges that feed slots, which no sweep follows."""
    main = nx.DiGraph()
    main.add_nodes_from(declared)
    main.add_edges_from((u, v) for u, v, data in declared.edges(data=True) if feeds_main(data))
    return main


def _columns(declared: nx.DiGraph, main: nx.DiGraph, report: Report) -> dict[Node, int]:
    """Choose a column for each node: its depth, or where it has none, its layer of the condensation behind those."""
    column = {v: int(d) for v, d in report.depth.items() if math.isfinite(d)}
    cut = nx.DiGraph()
    cut.add_nodes_from(declared)
    cut.add_edges_from((u, v) for u, v in main.edges() if v not in report.clamped or v in report.partial)
    for part in check_phase(cut, (), repair=False).components:
        if not column.keys() & part:
            before = [column[u] for v in part for u in cut.predecessors(v) if u in column]
            start = 1 + max(before, default=0)
            inside = cut.subgraph(part)
            column |= {v: start + step for v, step in _unrolled(inside, declared, cut, column).items()}
    for v in declared:
        if is_target(v, main, report.clamped - report.partial):
            column[v] = 1 + max(column[u] for u in main.predecessors(v))
    used = {c: i for i, c in enumerate(sorted(set(column.values())))}
    return {v: used[c] for v, c in column.items()}


def _unrolled(piece: nx.DiGraph, declared: nx.DiGraph, cut: nx.DiGraph, column: dict[Node, int]) -> dict[Node, int]:
    """Count steps from where a component is entered, breadth first: a cycle then runs to the right and once back."""
    order = [v for v in declared if v in piece]
    entered = [v for v in order if any(u in column for u in cut.predecessors(v))] or order
    step = {entered[0]: 0}
    queue = list(step)
    for u in queue:
        for v in piece.successors(u):
            if v not in step:
                step[v] = step[u] + 1
                queue.append(v)
    return step


def _uncross(declared: nx.DiGraph, columns: dict[int, list[Node]], column: dict[Node, int]) -> None:
    """Order each column by the mean height of the neighbours in the others, to and fro (Sugiyama 1981)."""

    def heights() -> dict[Node, float]:
        return {v: (len(nodes) - 1) / 2 - i for nodes in columns.values() for i, v in enumerate(nodes)}

    for turn in range(ROUNDS):
        forwards = turn % 2 == 0
        for c in sorted(columns, reverse=not forwards):
            height = heights()

            def mean(v: Node, forwards: bool = forwards, c: int = c, height: dict[Node, float] = height) -> float:
                near = [*declared.predecessors(v), *declared.successors(v)]
                beside = [height[u] for u in near if (column[u] < c if forwards else column[u] > c)]
                return sum(beside) / len(beside) if beside else height[v]

            columns[c].sort(key=mean, reverse=True)


def _clear(start: Point, stop: Point, rad: float, others: list[Point]) -> bool:
    """Say whether matplotlib's arc of this curvature (a quadratic Bézier curve) keeps clear of the other nodes."""
    (x, y), (x2, y2) = ((p[0] * WIDE, p[1] * HIGH) for p in (start, stop))
    middle = (x + x2) / 2 + rad * (y2 - y), (y + y2) / 2 - rad * (x2 - x)
    for i in range(1, 24):
        t = i / 24
        px = (1 - t) ** 2 * x + 2 * t * (1 - t) * middle[0] + t * t * x2
        py = (1 - t) ** 2 * y + 2 * t * (1 - t) * middle[1] + t * t * y2
        if any(math.hypot(px - a * WIDE, py - b * HIGH) < 0.28 for a, b in others):
            return False
    return True


def is_target(v: Node, main: nx.DiGraph, fixed: Set[Node]) -> bool:
    """Say whether a node is clamped and predicted, and predicts nothing; an input that is predicted is an input."""
    return v in fixed and bool(main.in_degree(v)) and not main.out_degree(v)


def fanned(first: float, i: int, length: float) -> float:
    """Bend the i-th of several parallel edges: ever further out, or to both sides of one that is straight."""
    apart = 0.17 / max(1.0, length)
    return first + math.copysign(apart * i, first) if first else apart * ((i + 1) // 2) * (1 if i % 2 else -1)


def bend(declared: nx.DiGraph, u: Node, v: Node, place: dict[Node, Point]) -> float:
    """Find the least curvature with which an edge meets no other node, bowed apart from an edge the other way."""
    (x, y), (x2, y2) = place[u], place[v]
    both = declared.has_edge(v, u)
    outwards = -1 if y + y2 >= 0 else 1
    sizes = [0.2, 0.32, 0.45, 0.6] if both or x2 <= x else [0.0, 0.15, 0.28, 0.42, 0.56]
    signs = [1] if both or x2 <= x else [outwards, -outwards]
    tries = [sign * size for size in sizes for sign in signs]
    others = [p for w, p in place.items() if w not in (u, v)]
    return next((rad for rad in tries if _clear((x, y), (x2, y2), rad, others)), tries[-1])


def middle(start: Point, stop: Point, rad: float, t: float = 0.5) -> Point:
    """Return the middle of matplotlib's arc of this curvature, or the place at another part of the way."""
    (x, y), (x2, y2) = start, stop
    out = 2 * t * (1 - t) * rad
    across, down = out * (y2 - y) * HIGH / WIDE, out * (x2 - x) * WIDE / HIGH
    return x + t * (x2 - x) + across, y + t * (y2 - y) - down


def box(text: str, at: Point, size: float, below: float | None = None) -> Box:
    """Estimate what a text of this size takes: around a place, or from so many points below it downwards."""
    lines = text.split("\n")
    wide, high = 0.62 * size * max(map(len, lines)) / 72, 1.25 * size * len(lines) / 72
    x, top = at[0] * WIDE, at[1] * HIGH + (high / 2 if below is None else -below / 72)
    return x - wide / 2, top - high, x + wide / 2, top


def clearest(start: Point, stop: Point, rad: float, text: str, size: float, taken: list[Box]) -> Point:
    """Return the place on an arc where a text covers the least of what is taken, the nearest to its middle."""
    tries = [middle(start, stop, rad, t) for t in (0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.26, 0.74)]
    return min(tries, key=lambda at: round(sum(_shared(box(text, at, size), other) for other in taken), 6))


def _shared(one: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    wide = min(one[2], other[2]) - max(one[0], other[0]) + APART
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def heights(place: dict[Node, Point], bends: dict[tuple[Node, Node], float]) -> tuple[float, float]:
    """Return the lowest and the highest place that a node takes, or an edge that is bent so."""
    reached = [y for _, y in place.values()]
    reached += [middle(place[u], place[v], rad)[1] for (u, v), rad in bends.items()]
    return min(reached), max(reached)


@dataclass(frozen=True)
class Signs:
    """Says what is drawn in another way than the rest: what is fixed, what forbids a sweep, and where slots stand.

    Attributes
    ----------
    fixed : set of node
        Clamped, and not in part.
    bad_nodes, bad_edges : set
        On the free cycle, or a root without a value.
    angle : dict
        (node, slot) -> degrees from the right at which the slot stands on the rim of its node.
    """

    fixed: frozenset[Node]
    bad_nodes: frozenset[Node]
    bad_edges: frozenset[tuple[Node, Node]]
    angle: dict[tuple[Node, str], float]


def signs(declared: nx.DiGraph, report: Report) -> Signs:
    """Find what stands out in a declaration with this report."""
    cycle = report.cycle or []
    angle = {
        (v, slot): FIRST_SLOT + min(60.0, 240.0 / len(slots)) * i
        for v, slots in declared.nodes(data="slots")
        for i, slot in enumerate(slots or ())
    }
    bad = frozenset({*cycle, *report.free_roots})
    return Signs(report.clamped - report.partial, bad, frozenset(zip(cycle, cycle[1:] + cycle[:1])), angle)
