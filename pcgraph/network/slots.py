"""Slots are further predictions of a node beside its main one, each with an error and an energy of its own.

    F = sum_v sum_s E_vs(h_v, mu_vs)        s: the main prediction, and each slot of v

A node declares them as ``slots={"down": dict(precision=0.001)}``, and edges say which of its predictions they feed, as
``slot="down"``. A slot with a ``prior`` is fed by no edge: mu_vs is that constant, as in a decay towards zero,
``slots={"decay": dict(prior=0.0, precision=0.01)}``. In a structure a slot is a node of its own behind all others: it
has the edges that feed it and one more, the *tie*, which makes its state that of its node.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from pcgraph.errors import GraphError, nearest

__all__ = ["MAIN", "SLOT_ATTRIBUTES", "Slot", "called", "declared_slots", "fed_slot"]

Node = Hashable

#: What the main prediction is called where a slot is asked for by name.
MAIN = "main"
#: What a slot may say of its prediction and its energy; its shape is its node's, and its value that of its edges.
SLOT_ATTRIBUTES = ("activation", "bias", "energy", "precision", "prior")
WHY_NOT = {
    "shape": "it has the shape of its node",
    "slots": "a slot has none of its own",
    "combine": "only the main prediction of a node may be a joint one",
}


class Slot(NamedTuple):
    """A slot goes by its node and its name; it equals the tuple of both.

    Examples
    --------
    >>> Slot("V1", "down") == ("V1", "down"), str(Slot("V1", "down"))
    (True, "slot 'down' of node 'V1'")
    """

    node: Hashable
    name: str

    def __str__(self) -> str:
        return f"slot {self.name!r} of node {self.node!r}"

    @property
    def short(self) -> str:
        """Name it where there is little room, as in ``V1 (down)``."""
        return f"{self.node} ({self.name})"


def called(node: Node) -> str:
    """Name a node, or a slot, in words."""
    return str(node) if isinstance(node, Slot) else f"node {node!r}"


def declared_slots(node: Node, attributes: Mapping[str, Any]) -> list[tuple[Slot, dict[str, Any]]]:
    """Return what a node declares of its slots: each with its attributes, and with the shape of the node.

    Raises
    ------
    GraphError
        It is no mapping from names to attributes; or an attribute is none that a slot can have.
    """
    slots = attributes["slots"]
    example = f"slots={{'down': dict(precision=0.1)}} (found {slots!r})"
    if slots is None:
        return []
    if not isinstance(slots, Mapping):
        raise GraphError(f"node {node!r} declares its slots as {example}", where=node, found=slots)
    for name, said in slots.items():
        if not isinstance(name, str) or not name or not isinstance(said, Mapping):
            raise GraphError(
                f"node {node!r} declares each slot by a name and what it says of it, as {example}",
                where=node,
                found=slots,
            )
        if name == MAIN:
            raise GraphError(
                f"node {node!r} has a slot {MAIN!r}, which is the name of the prediction that the node itself declares "
                "(activation, bias, energy, precision); call the slot otherwise",
                where=node,
                found=name,
            )
        for key in said:
            if key not in SLOT_ATTRIBUTES:
                _refuse(Slot(node, name), key)
        more = [key for key in ("activation", "bias") if not (said.get(key) is None or _is_false(said[key]))]
        if said.get("prior") is not None and more:
            slot = Slot(node, name)
            text = f"the {slot} has a prior, which is its prediction, and says {more[0]!r} of what edges would bring"
            raise GraphError(f"{text}: take one of the two out", where=slot, found=more[0])
    return [(Slot(node, name), {"shape": attributes.get("shape"), **said}) for name, said in slots.items()]


def _is_false(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) and not value


def _refuse(slot: Slot, key: Any) -> None:
    known = ", ".join(SLOT_ATTRIBUTES)
    meant = nearest(key, SLOT_ATTRIBUTES) if isinstance(key, str) else None
    why = WHY_NOT.get(key) if isinstance(key, str) else None
    hint = f": {why}" if why else f": did you mean {meant!r}?" if meant else ""
    raise GraphError(f"the {slot} says {key!r}, and a slot has {known}{hint}", where=slot, found=key)


def fed_slot(where: tuple[Any, ...], name: Any, number: Mapping[Any, int], slots: Mapping[str, Any] | None) -> int:
    """Return the number of the slot that an edge feeds.

    Parameters
    ----------
    where : tuple
        The edge.
    name : object
        What it says.
    number : mapping
        Slot -> number.
    slots : mapping or None
        Those that the edge's target declares.

    Raises
    ------
    GraphError
        The target declares no such slot; the message offers the nearest.
    """
    target, known = where[1], list(slots or ())
    if isinstance(name, str) and name in known:
        return number[target, name]
    meant = nearest(name, known) if isinstance(name, str) else None
    have = f"has {', '.join(map(repr, known))}" if known else "has no slots"
    hint = f"; did you mean {meant!r}?" if meant else f"; declare it: slots={{{name!r}: dict(...)}} on node {target!r}"
    if not isinstance(name, str):
        hint = f"; a slot goes by a name, and without one an edge feeds the {MAIN} prediction"
    key = f" (key {where[2]!r})" if len(where) == 3 else ""
    raise GraphError(
        f"edge {where[0]!r} -> {target!r}{key} feeds the slot {name!r}, and node {target!r} {have}{hint}",
        where=where,
        found=name,
    )
