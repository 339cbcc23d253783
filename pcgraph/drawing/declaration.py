"""Draw a declaration as a picture: columns are depths, and what forbids a sweep is red."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import torch

from pcgraph.arguments import is_number, shown
from pcgraph.drawing.placing import (
    HIGH,
    WIDE,
    Box,
    bend,
    box,
    clearest,
    fanned,
    heights,
    is_target,
    layout,
    main_edges,
    signs,
)  # fmt: skip
from pcgraph.drawing.style import (
    BLUE,
    DIM,
    GREEN,
    GREY,
    INK,
    PAPER,
    RED,
    SMALL,
    as_it_is,
    pyplot,
    require_picture,
    save,
    short_name,
)  # fmt: skip
from pcgraph.topology import Report, check_phase
from pcgraph.topology.arguments import declared_graph, feeds_main
from pcgraph.topology.witness import listing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "graph", "headline", "neurons"]

Node = Hashable
Point = tuple[float, float]

LARGE = 60
"""Nodes are drawn small where there are more of them than this."""
LABELLED = 250
"""Only clamped and offending nodes bear a name where there are more nodes than this."""
COUNTED = 30
"""The number of neurons stands under each name where there are no more nodes than this."""


def graph(
    graph_or_net: Any,
    clamped: Iterable[Node] | None = None,
    path: str | Path | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw a declaration: columns are depths, clamped nodes are squares, what forbids a sweep is red.

    Columns go from left to right by the longest path in the clamp-cut graph. Behind the nodes of finite depth the
    strongly connected components with a cycle, and what comes after them, follow in the order of the condensation. A
    clamped node that predicts nothing stands right of what predicts it. Edges into clamped nodes are dashed, since a
    sweep does not use them; the offending cycle and the roots without a value are red. Parallel edges lie side by
    side; on up to 60 nodes an edge bears its scale, where that is not 1, and the role that it plays in a joint
    prediction. A slot is a diamond on the rim of its node, on up to 60 nodes with its name, and the edges that feed it
    end there; columns follow main predictions alone. Below a node that combines stands how. A legend
    says so, of what there is. Up to 30 nodes bear the number of their neurons, unless each has one.

    Parameters
    ----------
    graph_or_net : nx.DiGraph, nx.MultiDiGraph or PCNetwork
        The declaration.
    clamped : iterable of node, optional
        The clamped nodes; the default is none.
    path : str or Path, optional
        Write the picture here; the suffix says in which format.
    ax : matplotlib Axes, optional
        Draw into this one; the default is a new figure of a fitting size.
    title : str, optional
        Above the picture; the default says whether forward initialization is possible. An empty one is left out.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> from pcgraph.graphs import figure_9
    >>> axes = graph(figure_9("bottom"), {0})
    >>> axes.get_title()
    'Forward() is not possible: free cycle 1 → 2 → 4 → 3 → 1'
    """
    require_picture(path, title, ax)
    declared = declared_graph(graph_or_net)
    ax = draw(declared, check_phase(declared, () if clamped is None else clamped, repair=False), ax, title)
    save(ax.figure, path)
    return ax


def draw(declared: nx.DiGraph, report: Report, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw a declaration whose report, of groups, is at hand; see :func:`graph`."""
    columns, place = layout(declared, report)
    bends = {(u, v): _bent(declared, u, v, place) for u, v in dict.fromkeys(declared.edges()) if u != v}
    low, high = heights(place, bends)
    if ax is None:
        scale = 1.0 if len(declared) <= LARGE else 0.55
        xs = [x for x, _ in place.values()]
        across, down = max(xs) - min(xs) + 1, high - low + 1
        size = (max(3.2, scale * WIDE * across + 0.8), max(2.4, scale * HIGH * down + 1.3))
        _, ax = pyplot().subplots(figsize=size, layout="constrained")
    _Picture(ax, declared, report, place, bends).draw(columns, low, high)
    ax.set_title(as_it_is(headline(report)) if title is None else title, fontsize=11)
    return ax


def headline(report: Report) -> str:
    """Say whether forward initialization is possible, and why or in which order."""
    if report.order is None:
        return f"Forward() is not possible: {report.sweep().witness}"
    who = "Forward()" if report.proposition_3_2 else "Forward(fallback=…)"
    return f"{who} is possible: {listing(report.order, ', then ', 6) or 'no node is free'}"


def _bent(declared: nx.DiGraph, u: Node, v: Node, place: dict[Node, Point]) -> float:
    """Bend an edge round the other nodes; where there are many, only as much as tells its direction."""
    if len(place) <= LARGE:
        return bend(declared, u, v, place)
    x, x2 = place[u][0], place[v][0]
    return 0.25 if x2 <= x else -0.12 if abs(x2 - x) > 1 else 0.0


def _polar(radius: float, angle: float) -> tuple[float, float]:
    """Return what lies so far from the middle, at so many degrees from the right."""
    return radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))


def neurons(shape: Any) -> str:
    """Write the number of neurons of a group, or the shape of an image or a grid."""
    sizes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    return f"{'×'.join(map(shown, sizes))} neuron{'' if sizes == (1,) else 's'}"


def named(value: object) -> str:
    """Write what was declared as a person would: names and numbers as they stand, else the class or function."""
    if isinstance(value, tuple | list) and value and isinstance(value[0], str):
        value = value[0]  # of a name with arguments
    if isinstance(value, bool | list | tuple | torch.Tensor | np.ndarray):
        return shown(value)
    if is_number(value):
        return f"{value:g}"
    return value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)


def scale_of(data: Mapping[str, Any]) -> list[str]:
    """Write the factor of what an edge sends; nothing where it is 1."""
    scale = data.get("scale")
    if not is_number(scale):
        return [] if scale is None else [f"×{shown(scale)}"]
    return [] if scale == 1 else [f"×{scale:.3g}"]


def roles_of(data: Mapping[str, Any]) -> list[str]:
    """List the roles that an edge plays in a joint prediction."""
    role = data.get("role")
    if isinstance(role, list | tuple):
        return list(map(named, role))
    return [] if role is None else [named(role)]


class _Picture:
    """Draws one declaration into one axes."""

    def __init__(
        self, ax: Axes, declared: nx.DiGraph, report: Report, place: dict[Node, Point],
        bends: dict[tuple[Node, Node], float],
    ) -> None:  # fmt: skip
        self.ax = ax
        self.declared, self.main = declared, main_edges(declared)
        self.report = report
        self.place, self.bends = place, bends
        self.full = len(place) <= LARGE
        self.radius = 13.0 if self.full else 5.0 if len(place) <= LABELLED else 3.5
        found = signs(declared, report)
        self.bad_edges, self.bad_nodes, self.fixed, self.angle = (
            found.bad_edges,
            found.bad_nodes,
            found.fixed,
            found.angle,
        )
        shapes = [declared.nodes[v].get("shape") for v in declared]
        self.counted = len(shapes) <= COUNTED and any(shape not in (None, 1, (1,)) for shape in shapes)
        self.taken = [each for v in place for each in self.takes(v)] if self.full else []

    def draw(self, columns: dict[int, list[Node]], low: float, high: float) -> None:
        """Draw edges, nodes, slots and depths, between the lowest and the highest place that is taken."""
        between: dict[tuple[Node, Node], list[dict[str, Any]]] = defaultdict(list)
        for u, v, data in self.declared.edges(data=True):
            between[u, v].append(data)
        for (u, v), parallel in between.items():
            self.edges(u, v, parallel)
        self.nodes()
        self.slots()
        self.depths(columns, low - 0.75)
        xs = [x for x, _ in self.place.values()]
        self.ax.set_xlim(min(xs) - 0.75, max(xs) + 0.6)
        above = 0.65 if self.angle or nx.number_of_selfloops(self.declared) else 0.4
        self.ax.set_ylim(low - 1.15, high + above)
        self.ax.axis("off")
        self.legend()

    def legend(self) -> None:
        """Say what the signs mean that are on this picture."""
        round_, square = {"marker": "o", "linestyle": "none"}, {"marker": "s", "linestyle": "none"}
        signs: list[tuple[bool, str, dict[str, Any]]] = [
            (bool(self.fixed), "clamped", square | {"markerfacecolor": BLUE, "markeredgecolor": INK}),
            (bool(self.place.keys() - self.fixed - self.bad_nodes), "free",
             round_ | {"markerfacecolor": PAPER, "markeredgecolor": INK}),
            (bool(self.bad_nodes), "cycle, or root without a value",
             round_ | {"markerfacecolor": PAPER, "markeredgecolor": RED, "markeredgewidth": 2}),
            (any(v in self.fixed for _, v in self.main.edges()), "not needed by a free value",
             {"color": GREY, "linestyle": (0, (4, 3)), "linewidth": 0.9}),
            (bool(self.angle), "slot: a further prediction",
             {"color": GREEN, "linewidth": 0.9, "marker": "D", "markersize": 4, "markeredgecolor": INK}),
        ]  # fmt: skip
        shown = [_line()([], [], label=label, **style) for there, label, style in signs if there]
        width = self.ax.get_position().width * self.ax.figure.get_figure(root=True).get_figwidth()
        self.ax.legend(
            handles=shown, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(shown) if width > 5 else 2,
            fontsize=SMALL, frameon=False, handlelength=2.2, borderaxespad=0.2,
        )  # fmt: skip

    def nodes(self) -> None:
        for v, (x, y) in self.place.items():
            bad, fixed = v in self.bad_nodes, v in self.fixed
            self.ax.plot(
                [x], [y], marker="s" if fixed else "o", markersize=2 * self.radius * (0.9 if fixed else 1),
                markerfacecolor=BLUE if fixed else PAPER, markeredgecolor=RED if bad else INK,
                markeredgewidth=2.4 if bad else 1.0, zorder=3,
            )  # fmt: skip
            if len(self.place) <= LABELLED or bad or fixed:
                self.label(v, x, y, bad)

    def label(self, v: Node, x: float, y: float, bad: bool) -> None:
        text = short_name(v)
        inside = self.full and len(text) <= 3
        self.ax.annotate(
            as_it_is(text), (x, y), xytext=(0, 0 if inside else -self.radius - 2), textcoords="offset points",
            ha="center", va="center" if inside else "top", fontsize=11 if self.full else SMALL,
            color=RED if bad else INK, zorder=5 if bad else 4,
            bbox={"boxstyle": "square,pad=0.1", "color": PAPER, "alpha": 0.8 if bad and not inside else 0.0},
        )  # fmt: skip
        below = self.below(v)
        if below:
            self.ax.annotate(
                as_it_is(below), (x, y), xytext=(0, -self.radius - (3 if inside else 14)),
                textcoords="offset points", ha="center", va="top", fontsize=SMALL, color=INK, zorder=4,
                bbox={"boxstyle": "square,pad=0.05", "color": PAPER, "alpha": 0.8},
            )  # fmt: skip

    def below(self, v: Node) -> str:
        """Return what stands below the name of a node: its shape, and how it combines."""
        data, lines = self.declared.nodes[v], []
        if self.counted and data.get("shape") is not None:
            counted = neurons(data["shape"])
            lines = [counted.split()[0] if "×" in counted else counted]  # which is wide enough without a word
        lines += [named(data["combine"])] if self.full and data.get("combine") is not None else []
        return "\n".join(lines)

    def takes(self, v: Node) -> Iterable[Box]:
        """List what a node and the texts below it take."""
        at, text, r = self.place[v], short_name(v), self.radius / 72
        x, y = at[0] * WIDE, at[1] * HIGH
        yield x - r, y - r, x + r, y + r
        if len(text) > 3:
            yield box(text, at, 11, self.radius + 2)
        if self.below(v):
            yield box(self.below(v), at, SMALL, self.radius + (3 if len(text) <= 3 else 14))

    def slots(self) -> None:
        """Draw each slot on the rim of its node, and its name beside it."""
        for (v, slot), angle in self.angle.items():
            across, up = _polar(self.radius, angle)
            self.ax.plot(
                *([at] for at in self.place[v]), marker="D", markersize=0.6 * self.radius, markerfacecolor=GREEN,
                markeredgecolor=INK, markeredgewidth=0.6, zorder=4, transform=self.beside(across, up),
            )  # fmt: skip
            if self.full:
                self.ax.annotate(
                    as_it_is(short_name(slot)), self.place[v], xytext=_polar(self.radius + 6, angle),
                    textcoords="offset points", ha="left" if across > 1 else "right" if across < -1 else "center",
                    va="bottom" if up > 0 else "top", fontsize=SMALL, color=GREEN, zorder=4,
                )  # fmt: skip

    def beside(self, across: float, up: float) -> Any:
        """Return the coordinates of the data, moved by so many points."""
        return _offset_copy()(self.ax.transData, fig=self.ax.figure, x=across, y=up, units="points")

    def edges(self, u: Node, v: Node, parallel: list[dict[str, Any]]) -> None:
        """Draw each of the parallel edges from one node to another, bowed apart, with its scale and its role."""
        (x, y), (x2, y2) = self.place[u], self.place[v]
        first = self.bends.get((u, v), 0.0)
        for i, data in enumerate(parallel):
            slot, text = None if feeds_main(data) else data["slot"], "\n".join([*scale_of(data), *roles_of(data)])
            style, end = self.style(u, v, slot), self.end(v, slot)
            if u == v:
                self.loop(v, style, 1 + 0.6 * i, slot)
                self.written(text, x, y, 1.8 * self.radius * (1 + 0.6 * i))
                continue
            wide = 1.6 if len(parallel) > 1 and any(map(roles_of, parallel)) else 1.0  # room for what is written
            rad = first + wide * (fanned(first, i, math.hypot(x2 - x, y2 - y)) - first)
            apart = {"connectionstyle": f"arc3,rad={rad:.3f}"}
            self.ax.annotate(
                "", (x2, y2), xycoords=end, xytext=(x, y), textcoords="data", arrowprops=style | apart,
                zorder=2 if style["color"] == RED else 1,
            )  # fmt: skip
            if text and self.full:
                at = clearest((x, y), (x2, y2), rad, text, SMALL, self.taken)
                self.taken.append(box(text, at, SMALL))
                self.written(text, *at, 0.0)

    def style(self, u: Node, v: Node, slot: str | None) -> dict[str, Any]:
        """Choose what an edge looks like: what forbids a sweep is red, and what feeds a slot green."""
        bad, cut = slot is None and (u, v) in self.bad_edges, slot is None and v in self.fixed
        style = {
            "arrowstyle": "-|>", "color": RED if bad else GREY if slot is None else GREEN,
            "linewidth": 2.0 if bad else 0.9 if self.full else 0.5, "linestyle": (0, (4, 3)) if cut else "solid",
            "mutation_scale": 11 if self.full else 6, "shrinkA": self.radius,
            "shrinkB": self.radius + 1 if slot is None else 0.35 * self.radius,
        }  # fmt: skip
        return style if u == v else style | {"alpha": 1.0 if bad or self.full else 0.5}

    def end(self, v: Node, slot: str | None) -> Any:
        """Return the coordinates in which an edge ends at its node's place: that of the slot, or of the node."""
        return "data" if slot is None else self.beside(*_polar(self.radius, self.angle[v, slot]))

    def written(self, text: str, x: float, y: float, up: float) -> None:
        """Write onto an edge, so many points above a place: the factor of what it sends, or its role."""
        if text and self.full:
            self.ax.annotate(
                as_it_is(text), (x, y), xytext=(0, up), textcoords="offset points", ha="center", va="center",
                fontsize=SMALL, color=INK, zorder=4.5,
                bbox={"boxstyle": "square,pad=0.05", "color": PAPER, "alpha": 0.85},
            )  # fmt: skip

    def loop(self, v: Node, style: dict[str, Any], size: float, slot: str | None) -> None:
        """Draw a self-loop above the node, or out to its slot, in points, so that it is round at every scale."""
        out, up = 0.6 * self.radius * size, 0.8 * self.radius
        start, stop = self.beside(-out, up), self.beside(out, up)
        if slot is not None:
            start, stop = self.beside(*_polar(self.radius, self.angle[v, slot] + 75)), self.end(v, slot)
        loop = {**style, "shrinkA": 1, "shrinkB": 1, "connectionstyle": "arc3,rad=-1.7"}
        at = self.place[v]
        self.ax.annotate("", at, xycoords=stop, xytext=at, textcoords=start, arrowprops=loop, zorder=2)

    def depths(self, columns: dict[int, list[Node]], low: float) -> None:
        """Write below each column the depth that its free nodes share."""
        self.ax.text(
            min(x for x, _ in self.place.values()) - 0.5, low, "depth", ha="center", va="top", fontsize=SMALL, color=DIM
        )
        for nodes in columns.values():
            found = {self.report.depth[v] for v in nodes if v not in self.fixed} or {
                self.report.depth[v] for v in nodes
            }
            text = "∞" if math.inf in found else ", ".join(f"{d:g}" for d in sorted(found))
            cut = all(is_target(v, self.main, self.fixed) for v in nodes)
            xs = [self.place[v][0] for v in nodes]
            middle = (min(xs) + max(xs)) / 2
            self.ax.text(middle, low, "target" if cut else text, ha="center", va="top", fontsize=SMALL, color=DIM)


def _line() -> Any:
    from matplotlib.lines import Line2D

    return Line2D


def _offset_copy() -> Any:
    from matplotlib.transforms import offset_copy

    return offset_copy
