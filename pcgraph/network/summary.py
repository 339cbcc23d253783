"""A network in a table: a line for each node and each edge, with what it computes and what of it learns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pcgraph.network.declaration import show
from pcgraph.network.handles import EdgeHandle, NodeHandle, handles_of
from pcgraph.network.network import Network
from pcgraph.network.places import whole_parameters
from pcgraph.network.slots import MAIN, called

__all__ = ["Summary", "summarize"]

Row = tuple[str, ...]
NODES: Row = ("node", "shape", "activation", "energy", "parameters", "")
EDGES: Row = ("edge", "transform", "activation", "weight", "parameters", "")


@dataclass(frozen=True)
class Summary:
    """This is a network in words: ``print(net.summary())``.

    Attributes
    ----------
    nodes, edges : tuple of tuple of str
        A row each, under the names NODES and EDGES of this module.
    more : str
        What is not shown, or nothing. Of a network that is cut over ranks, each shows what it holds.
    total : str
        How many parameters there are, and how many of them learn.
    """

    nodes: tuple[Row, ...]
    edges: tuple[Row, ...]
    more: str
    total: str

    def __str__(self) -> str:
        """Write both tables and the sums."""
        blocks = [_table(NODES, self.nodes), _table(EDGES, self.edges) if self.edges else "", self.more, self.total]
        return "\n\n".join(block for block in blocks if block)


def summarize(net: Network, most: int) -> Summary:
    """Describe the first `most` nodes and edges; see :meth:`pcgraph.PCNetwork.summary`."""
    whole = list(handles_of(net))
    every = [who for who in whole if who.here]
    nodes = [who for who in every if isinstance(who, NodeHandle)]
    edges = [who for who in every if isinstance(who, EdgeHandle)]
    hidden = [
        f"{len(all_) - most} more {what}" for all_, what in ((nodes, "nodes"), (edges, "edges")) if len(all_) > most
    ]
    more = [f"and {' and '.join(hidden)}: summary(most=...) shows them"] if hidden else []
    if len(every) < len(whole):
        away = [who for who in whole if not who.here]
        count = sum(isinstance(who, NodeHandle) for who in away)
        more.append(f"and {count} nodes and {len(away) - count} edges on other ranks, which show them")
    learns = sum(p.numel() for p in net.parameters() if p.requires_grad)
    for packed in (net.own.weights, net.own.biases):
        for name, mask in packed.frozen_rows.items():
            if packed[name].requires_grad:
                learns -= int(mask.sum()) * packed[name][0].numel()
    total = sum(p.numel() for p in net.parameters())
    return Summary(
        tuple(_of_node(who) for who in nodes[:most]),
        tuple(_of_edge(who) for who in edges[:most]),
        "\n".join(more),
        f"{total:,} parameters{_of_whole(net, len(every) < len(whole))}, of which {learns:,} learn",
    )


def _of_whole(net: Network, cut: bool) -> str:
    if not cut:
        return ""
    count = sum(math.prod(shape) for shape in whole_parameters(net.structure).values())
    return f" on rank {net.rank}, of {count:,} on all ranks"


def _of_node(who: NodeHandle) -> Row:
    energy = who.energy
    name = repr(who.node) if who.slot == MAIN else called(who.net.structure.nodes[who.number])
    precision = getattr(energy, "precision", 1.0)
    one = isinstance(precision, float) and precision != 1.0  # by neuron, the name of the energy says so
    said = "" if energy is None else type(energy).__name__ + (f" x {precision:g}" if one else "")
    root = bool(who.net.structure.is_root[who.number])
    shape = "x".join(map(str, who.shape))
    return name, shape, "" if root else who.activation.name, said, f"{who.count:,}" if who.count else "", _state(who)


def _of_edge(who: EdgeHandle) -> Row:
    place, s = who.place, who.net.structure
    bucket = s.buckets[int(s.bucket_of[who.number])]
    weight = "" if place is None or place[1] is None else "x".join(map(str, who.weight.shape))
    notes = [_state(who)] if _state(who) else []
    if bucket.kind == "transposed":
        notes.append("transposed")
    elif bucket.weight is not None and int((bucket.weight == bucket.row(who.number)).sum()) > 1:
        notes.append("shared")
    notes += [] if who.scale == 1.0 else [f"scale {who.scale:g}"]
    notes += [] if who.slot == MAIN else [f"into {who.slot!r}"]
    phi = "" if who.activation.is_identity else who.activation.name
    name = show(who.where).removeprefix("edge ")
    return name, who.transform_name, phi, weight, f"{who.count:,}" if who.count else "", ", ".join(notes)


def _state(who: NodeHandle | EdgeHandle) -> str:
    return "frozen" if who.count and who.frozen else ""


def _table(head: Row, rows: tuple[Row, ...]) -> str:
    """Write rows below each other, as wide as the widest cell of each column."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (head, *rows)]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])
