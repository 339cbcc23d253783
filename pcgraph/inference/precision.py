"""Precisions for one run are read here: how much each error counts in it, whatever was declared."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from pcgraph.arguments import require_number, shown
from pcgraph.errors import ConfigError, GraphError
from pcgraph.network import Structure

__all__ = ["read_precision"]

Node = Hashable


def read_precision(structure: Structure, given: Mapping[Node, float] | None) -> tuple[tuple[int, float], ...]:
    """Turn (node, or (node, slot) -> precision) into (canonical number, precision), sorted.

    Raises
    ------
    ConfigError
        It is no mapping, names no node or slot, or one whose energy has no precision; or a precision is not positive.
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"precision= is a mapping from a node, or a slot, as in precision={{('V1', 'down'): 0.1}} "
            f"(found {shown(given)})",
            key="precision",
        )
    found = {_number(structure, name): (name, value) for name, value in given.items()}
    for i, (name, _) in found.items():
        segment = structure.segments[int(structure.segment_of[i])]
        if not segment.gaussian:
            what = "no energy" if segment.energy is None else f"the energy {type(segment.energy).__name__}"
            raise ConfigError(
                f"precision= is that of a Gaussian energy, and {name!r} has {what}: leave it out", key="precision"
            )
    return tuple(
        (i, require_number(value, f"the precision of {name!r}", above=0)) for i, (name, value) in sorted(found.items())
    )


def _number(structure: Structure, name: Any) -> int:
    try:
        if name in structure.slots:
            return structure.slots[name]
        if isinstance(name, tuple) and len(name) == 2 and name not in structure.number and name[0] in structure.number:
            return structure.require_prediction(name[0], name[1])
        return structure.require_node(name)
    except (GraphError, TypeError) as error:
        raise ConfigError(f"precision= names {name!r}: {error}", key="precision") from error
