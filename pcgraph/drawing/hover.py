"""Draw a declaration as SVG for a notebook or a page: what lies under the pointer says what it is.

Nothing but SVG and a little CSS: no script, and no matplotlib. What is told stands in ``<title>`` elements, which
browsers show as tooltips and screen readers read.
"""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch

from pcgraph.arguments import require_path, require_text
from pcgraph.drawing.declaration import LABELLED, LARGE, headline, named, neurons, roles_of
from pcgraph.drawing.placing import bend, fanned, layout, main_edges, signs
from pcgraph.drawing.style import BLUE, GREEN, GREY, INK, PAPER, RED, short_name
from pcgraph.errors import ConfigError
from pcgraph.learning import InferenceResult
from pcgraph.network import Network
from pcgraph.serialization.files import write_whole
from pcgraph.topology import Report, check_phase
from pcgraph.topology.arguments import declared_graph, feeds_main
from pcgraph.topology.witness import listing, name

__all__ = ["Svg", "draw_svg", "energies_of", "svg"]

Node = Hashable
Point = tuple[float, float]

TEXT, MARGIN = "#444444", 34.0
#: Cividis at even distances: even in lightness, and the same to colour-blind readers.
AMOUNTS = ("#00224E", "#123570", "#3B496C", "#575D6D", "#707173", "#8A8678", "#A59C74", "#C3B369", "#E1CC55", "#FEE838")
DECADES = 4
"""So many powers of ten below the largest energy have a colour of their own."""
CSS = (
    ".pcg text{font:12px system-ui,sans-serif;fill:#222}.pcg .small{font-size:10.5px;fill:#444}"
    ".pcg .hit{stroke:#000;stroke-opacity:0;stroke-width:11;fill:none}"
    ".pcg g.edge:hover .line{stroke-width:3}.pcg g.node:hover .shape,.pcg g.slot:hover .shape{stroke-width:3.5}"
)


@dataclass(frozen=True)
class Svg:
    """A picture as SVG; a notebook shows it where a cell ends with one, and ``str`` is its text."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Svg: {len(self.text)} characters>"

    def shown(self) -> str:
        """Return it as a part of a page, which scrolls where the page is narrow."""
        return f'<div style="overflow-x:auto">{self.text}</div>'

    def _repr_html_(self) -> str:
        return self.shown()


def svg(
    graph_or_net: Any, clamped: Iterable[Node] | None = None, path: str | Path | None = None, *,
    result: InferenceResult | None = None, title: str | None = None,
) -> Svg:  # fmt: skip
    """Draw a declaration as SVG: rest the pointer on a node, a slot or an edge, and it says what it is.

    The layout and the signs are those of :func:`graph`. A node tells its shape, what was declared for it, and what the
    checker says of it; an edge its transform and, of a network, the size of its weights. With a result nodes and
    slots have the colour of their mean energy, on a logarithmic scale, and tell it; white ones have none, or none left,
    or are computed on another rank.

    Parameters
    ----------
    graph_or_net : nx.DiGraph, nx.MultiDiGraph or PCNetwork
        The declaration.
    clamped : iterable of node, optional
        The clamped nodes; by default those of the result, or none.
    path : str or Path, optional
        Write the picture here; it ends with .svg.
    result : InferenceResult, optional
        What ``net.infer(...)`` returned.
    title : str, optional
        Above the picture; the default says whether forward initialization is possible. An empty one is left out.

    Returns
    -------
    Svg
        Its ``str`` is the SVG; a notebook shows it.

    Raises
    ------
    GraphError, ClampError, ConfigError
        The graph, the clamps, the result or the path is none; or the result is of another graph.

    Examples
    --------
    >>> from pcgraph.graphs import figure_9
    >>> picture = svg(figure_9("bottom"), {0})
    >>> "free: on the cycle 1 → 2 → 4 → 3 → 1" in str(picture)
    True
    """
    if path is not None:
        require_path(path, "path")
        if Path(path).suffix.lower() != ".svg":
            raise ConfigError(f"this picture is SVG: its path ends with .svg (found {Path(path).name!r})", key="path")
    if title is not None:
        require_text(title, "title")
    declared = declared_graph(graph_or_net)
    energies, elsewhere = None, frozenset[Hashable]()
    if result is not None:
        _require_of(result, declared)
        energies, elsewhere = energies_of(result)
        clamped = list(result.clamped_values) if clamped is None else clamped
    report = check_phase(declared, () if clamped is None else clamped, repair=False)
    picture = draw_svg(
        declared, report, graph_or_net if isinstance(graph_or_net, Network) else None, energies, title, elsewhere
    )
    if path is not None:
        write_whole(path, picture.text.encode(), "the picture")
    return picture


def draw_svg(
    declared: nx.DiGraph, report: Report, net: Network | None = None, energies: Mapping[Hashable, float] | None = None,
    title: str | None = None, elsewhere: frozenset[Hashable] = frozenset(),
) -> Svg:  # fmt: skip
    """Draw a declaration whose report, of groups, is at hand; see :func:`svg`."""
    return Svg(_Drawing(declared, report, net, energies, elsewhere).text(headline(report) if title is None else title))


def energies_of(result: InferenceResult) -> tuple[dict[Hashable, float], frozenset[Hashable]]:
    """Take the mean energies of a result, and the nodes and slots whose energy another rank has."""
    energies, s = result.node_energy, result.plan.structure
    elsewhere = frozenset(s.nodes[int(i)] for i in np.flatnonzero(s.has_energy)) - energies.keys()
    return {v: float(energy.mean()) for v, energy in energies.items()}, elsewhere


def _require_of(result: Any, declared: nx.DiGraph) -> None:
    """Refuse what is no result, or one of another graph."""
    if not isinstance(result, InferenceResult):
        raise ConfigError(
            f"result must be what net.infer(...) returns, such as svg(net, result=result) (found "
            f"{type(result).__name__})", key="result",
        )  # fmt: skip
    if set(result.plan.structure.declared) != set(declared):
        raise ConfigError("the result is of another graph: draw the network that it is of", key="result")


def _clean(text: str) -> str:
    """Escape a text for SVG, which has no place for control characters and lone surrogates."""
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return html.escape(shown)


def _amount(value: float, top: float) -> tuple[str, str]:
    """Choose the colour of an energy, and that of the text on it."""
    if not value > 0.0 or not top > 0.0:
        return PAPER, INK
    share = 1.0 if not math.isfinite(value) else 1.0 + math.log10(value / top) / DECADES
    step = round(max(0.0, min(1.0, share)) * (len(AMOUNTS) - 1))
    return AMOUNTS[step], PAPER if step < 5 else INK


class _Drawing:
    """Writes one declaration as SVG."""

    def __init__(
        self, declared: nx.DiGraph, report: Report, net: Network | None, energies: Mapping[Hashable, float] | None,
        elsewhere: frozenset[Hashable],
    ) -> None:  # fmt: skip
        self.declared, self.report, self.net, self.energies = declared, report, net, energies
        self.elsewhere = elsewhere
        self.main, self.signs = main_edges(declared), signs(declared, report)
        _, place = layout(declared, report)
        self.grid = place
        self.full = len(place) <= LARGE
        self.radius = 17.0 if self.full else 7.0
        across, down = (112.0, 84.0) if self.full else (52.0, 30.0)
        left, top = min(x for x, _ in place.values()), max(y for _, y in place.values())
        over = 46.0 if self.full else 30.0  # bowed edges, loops, the title
        self.place = {
            v: (MARGIN + 10 + across * (x - left), MARGIN + over + down * (top - y)) for v, (x, y) in place.items()
        }
        self.width = max(6.0 * len(self.signs_there()) + 24, max(x for x, _ in self.place.values()) + MARGIN + 30)
        self.height = max(y for _, y in self.place.values()) + over + 44
        known = [e for e in (energies or {}).values() if math.isfinite(e)]
        self.top = max(known, default=0.0)
        self.arrow = {colour: f"pcg-{colour[1:]}" for colour in (GREY, RED, GREEN)}

    def text(self, title: str) -> str:
        self.width = max(self.width, min(6.6 * len(title), 640.0) + 24)
        body = [*self.edges(), *(self.node(v) for v in self.place), *self.slots(), *self.legend()]
        heads = "".join(
            f'<marker id="{key}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto" '
            f'markerUnits="userSpaceOnUse"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
            for colour, key in self.arrow.items()
        )
        head = f'<text x="12" y="20">{_clean(title)}</text>' if title else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="pcg" role="img" width="{self.width:.0f}" '
            f'height="{self.height:.0f}" viewBox="0 0 {self.width:.0f} {self.height:.0f}">'
            f"<title>{_clean(title or 'a predictive coding network')}</title><style>{CSS}</style><defs>{heads}</defs>"
            f'<rect width="100%" height="100%" fill="{PAPER}" rx="4"/>{head}{"".join(body)}</svg>'
        )

    # -- nodes and slots ----------------------------------------------------------------------------------------------

    def node(self, v: Node) -> str:
        (x, y), r, fixed = self.place[v], self.radius, v in self.signs.fixed
        bad = v in self.signs.bad_nodes
        fill, ink = BLUE if fixed else PAPER, INK
        if self.energies is not None:
            fill, ink = _amount(self.energies.get(v, 0.0), self.top)
        looks = f'class="shape" fill="{fill}" stroke="{RED if bad else INK}" stroke-width="{2.6 if bad else 1.1}"'
        side = 1.8 * r
        shape = (
            f'<rect x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}" {looks}/>'
            if fixed
            else f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {looks}/>'
        )
        label = ""
        if len(self.place) <= LABELLED or bad or fixed:
            label = _clean(short_name(v))
            inside = self.full and len(short_name(v)) <= 3
            down = 4.0 if inside else r + 13
            colour = ink if inside else INK
            kind = "" if self.full else ' class="small"'
            label = (
                f'<text{kind} x="{x:.1f}" y="{y + down:.1f}" text-anchor="middle" style="fill:{colour}">{label}</text>'
            )
        told = "\n".join(self.of_node(v))
        return f'<g class="node"><title>{_clean(told)}</title>{shape}{label}</g>'

    def of_node(self, v: Node) -> list[str]:
        """Say what is known of a node: what was declared, what the checker says, what inference has left."""
        data = self.declared.nodes[v]
        shape = data.get("shape")
        lines = [name(v) + ("" if shape is None else f": {neurons(shape)}")]
        keys = ("activation", "energy", "combine", "precision", "prior")
        declared = [f"{key} {named(data[key])}" for key in keys if data.get(key) is not None]
        lines += [", ".join(declared)] * bool(declared)
        lines.append(self.verdict(v))
        if self.net is not None and self.net.holds(v) and self.net.bias_place(v):
            lines.append(f"bias: {_size(self.net.bias(v))}")
        return lines + self.energy(v)

    def verdict(self, v: Node) -> str:
        report, depth = self.report, self.report.depth[v]
        if v in self.signs.fixed:
            return "clamped"
        part = "partly clamped" if v in report.clamped else "free"
        if report.cycle and v in report.cycle:
            at = report.cycle.index(v)
            round_ = [*report.cycle[at:], *report.cycle[: at + 1]]
            return f"{part}: on the cycle {listing(round_, ' → ', 8)}, which no clamp cuts"
        if v in report.free_roots:
            return f"{part}: a root without a value; clamp it, or start it by Forward(roots=…)"
        if v in report.forward_reachable:
            return f"{part}: a sweep reaches it, at depth {depth:g}"
        if not math.isfinite(depth):
            return f"{part}: no sweep reaches it; it is on a free cycle, or behind one"
        return f"{part}: no sweep sets it" + ("; it is behind a root without a value" if report.free_roots else "")

    def energy(self, v: Hashable) -> list[str]:
        if self.energies is None:
            return []
        if v in self.elsewhere:
            return ["its energy is known on the rank that has it"]
        if v not in self.energies:
            return ["no energy: nothing predicts it"]
        total = sum(self.energies.values())
        whole = total > 0 and math.isfinite(total) and not self.elsewhere
        share = f", {self.energies[v] / total:.0%} of all" if whole else ""
        return [f"energy {self.energies[v]:.4g} a sample{share}"]

    def rim(self, v: Node, slot: str, out: float = 0.0) -> Point:
        """Return where a slot stands on the rim of its node, or so far outside of it."""
        angle = math.radians(self.signs.angle[v, slot])
        (x, y), r = self.place[v], self.radius + out
        return x + r * math.cos(angle), y - r * math.sin(angle)

    def slots(self) -> Iterable[str]:
        for v, slot in self.signs.angle:
            (x, y), s = self.rim(v, slot), 0.38 * self.radius
            fill = GREEN if self.energies is None else _amount(self.energies.get((v, slot), 0.0), self.top)[0]
            declared = self.declared.nodes[v]["slots"][slot]
            parts = declared.items() if isinstance(declared, Mapping) else ()
            told = [f"{name(v)}, slot {slot}: a further prediction", *(f"{key} {named(each)}" for key, each in parts)]
            told += self.energy((v, slot))
            tip = _clean("\n".join(map(str, told)))
            yield (
                f'<g class="slot"><title>{tip}</title><path class="shape" d="M{x - s:.1f} {y:.1f}L{x:.1f} {y - s:.1f}'
                f'L{x + s:.1f} {y:.1f}L{x:.1f} {y + s:.1f}z" fill="{fill}" stroke="{INK}" stroke-width="0.8"/></g>'
            )

    # -- edges --------------------------------------------------------------------------------------------------------

    def edges(self) -> Iterable[str]:
        between: dict[tuple[Node, Node], list[tuple[Any, dict[str, Any]]]] = defaultdict(list)
        if self.declared.is_multigraph():
            for u, v, key, data in self.declared.edges(keys=True, data=True):
                between[u, v].append((key, data))
        else:
            for u, v, data in self.declared.edges(data=True):
                between[u, v].append((None, data))
        for (u, v), parallel in between.items():
            first = bend(self.declared, u, v, self.grid) if u != v and self.full else 0.0 if u == v else 0.12
            length = math.dist(self.grid[u], self.grid[v])
            for i, (key, data) in enumerate(parallel):
                yield self.edge(u, v, key, data, i, fanned(first, i, length))

    def edge(self, u: Node, v: Node, key: Any, data: dict[str, Any], i: int, rad: float) -> str:
        slot = None if feeds_main(data) else data["slot"]
        bad = slot is None and (u, v) in self.signs.bad_edges
        cut = slot is None and v in self.signs.fixed
        colour = RED if bad else GREY if slot is None else GREEN
        dash = ' stroke-dasharray="5 4"' if cut else ""
        d = self.loop(v, slot, i) if u == v else self.curve(u, v, slot, rad)
        width = 2.2 if bad else 1.2 if self.full else 0.6
        told = _clean("\n".join(self.of_edge(u, v, key, data, slot, bad, cut)))
        return (
            f'<g class="edge"><title>{told}</title><path class="hit" d="{d}"/><path class="line" d="{d}" fill="none" '
            f'stroke="{colour}" stroke-width="{width}"{dash} marker-end="url(#{self.arrow[colour]})"/>'
            f"{self.role(u, v, data, rad)}</g>"
        )

    def role(self, u: Node, v: Node, data: dict[str, Any], rad: float) -> str:
        """Write the role that an edge plays in a joint prediction onto it."""
        if not (self.full and u != v and roles_of(data)):
            return ""
        (x, y), (x2, y2) = self.place[u], self.place[v]
        at = (x + x2) / 2 - rad / 2 * (y2 - y), (y + y2) / 2 + rad / 2 * (x2 - x) + 3
        text = _clean(", ".join(roles_of(data)))
        halo = f"paint-order:stroke;stroke:{PAPER};stroke-width:4px"
        return f'<text class="small" x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="middle" style="{halo}">{text}</text>'

    def curve(self, u: Node, v: Node, slot: str | None, rad: float) -> str:
        (x, y), (x2, y2) = self.place[u], self.place[v] if slot is None else self.rim(v, slot)
        middle = (x + x2) / 2 - rad * (y2 - y), (y + y2) / 2 + rad * (x2 - x)
        start = _towards((x, y), middle, self.radius)
        stop = _towards((x2, y2), middle, self.radius + 1 if slot is None else 0.4 * self.radius)
        return "M{:.1f} {:.1f}Q{:.1f} {:.1f} {:.1f} {:.1f}".format(*start, *middle, *stop)

    def loop(self, v: Node, slot: str | None, i: int) -> str:
        (x, y), r = self.place[v], self.radius
        out = (1.0 + 0.5 * i) * r
        start, stop = (x - 0.6 * r, y - 0.85 * r), (x + 0.6 * r, y - 0.85 * r)
        if slot is not None:
            stop = self.rim(v, slot, 0.4 * r)
        c, c2 = (start[0] - 0.5 * out, start[1] - 1.5 * out), (stop[0] + 0.5 * out, stop[1] - 1.5 * out)
        return "M{:.1f} {:.1f}C{:.1f} {:.1f} {:.1f} {:.1f} {:.1f} {:.1f}".format(*start, *c, *c2, *stop)

    def of_edge(
        self, u: Node, v: Node, key: Any, data: dict[str, Any], slot: str | None, bad: bool, cut: bool
    ) -> list[str]:
        """Say what is known of an edge."""
        lines = [f"{name(u)} → {name(v)}" + ("" if slot is None else f", slot {slot}")]
        lines += [f"role {', '.join(roles_of(data))}"] * bool(roles_of(data))
        transform = data.get("transform")
        if self.net is not None:
            s = self.net.structure
            transform = s.transform(s.edge_number(u, v, key, "main" if slot is None else slot))
        lines += [named(transform)] * (transform is not None)
        scale, activation = data.get("scale"), data.get("activation")
        lines += [f"scale {scale}"] * (scale is not None and scale != 1)
        lines += [f"activation {named(activation)} on what it sends"] * (activation is not None)
        if self.net is not None:
            lines += self.weights(u, v, key, slot)
        lines += ["frozen"] * (data.get("trainable") is False)
        if data.get("share") is not None:
            lines += ["the transpose of a weight that it shares" if data.get("transpose") else "shares its weight"]
        lines += ["on the cycle that no clamp cuts"] * bad + ["not needed by a free value: its target is clamped"] * cut
        return lines

    def weights(self, u: Node, v: Node, key: Any, slot: str | None) -> list[str]:
        """Say how large the weights of an edge are, where it has some."""
        assert self.net is not None
        number = self.net.structure.edge_number(u, v, key, "main" if slot is None else slot)
        bucket = self.net.structure.buckets[int(self.net.structure.bucket_of[number])]
        if bucket.packed is None:
            return []
        if not self.net.holds(v):
            return [f"weights on rank {self.net.rank_of(v)}"]
        weight = self.net.weight(u, v, key, slot="main" if slot is None else slot)
        return [f"{'×'.join(map(str, weight.shape))} weights: {_size(weight)}"]

    # -- legend -------------------------------------------------------------------------------------------------------

    def signs_there(self) -> str:
        """Say what the signs mean that are on this picture."""
        s = self.signs
        parts = [("▢ clamped", bool(s.fixed)), ("◯ free", bool(self.place.keys() - s.fixed))]
        parts += [("red: cycle, or root without a value", bool(s.bad_nodes)), ("◆ slot", bool(s.angle))]
        parts += [("dashed: not needed by a free value", any(v in s.fixed for _, v in self.main.edges()))]
        return " · ".join(text for text, there in parts if there)

    def legend(self) -> Iterable[str]:
        y = self.height - 30
        yield f'<text class="small" x="12" y="{y:.0f}">{self.signs_there()}</text>'
        if self.energies is not None and self.top > 0:
            at = 122
            shades = "".join(
                f'<rect x="{at + 9 * i}" y="{y + 8:.0f}" width="9" height="9" fill="{shade}"/>'
                for i, shade in enumerate(AMOUNTS)
            )
            low, after = self.top / 10**DECADES, at + 9 * len(AMOUNTS) + 6
            yield (
                f'<text class="small" x="{at - 6}" y="{y + 16:.0f}" text-anchor="end">energy ≤ {low:.1e}</text>{shades}'
                f'<text class="small" x="{after}" y="{y + 16:.0f}">{self.top:.3g} a sample</text>'
            )


def _towards(start: Point, stop: Point, distance: float) -> Point:
    """Return the point so far from one towards another."""
    length = math.dist(start, stop) or 1.0
    part = distance / length
    return start[0] + (stop[0] - start[0]) * part, start[1] + (stop[1] - start[1]) * part


def _size(values: torch.Tensor) -> str:
    """Say how large numbers are: their root mean square, the lowest and the highest."""
    if values.numel() == 0:
        return "none"
    plain = values.detach().double()
    low, high = plain.aminmax()
    return f"rms {float(plain.square().mean().sqrt()):.3g}, from {float(low):.3g} to {float(high):.3g}"
