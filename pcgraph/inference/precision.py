"""Precisions for one run are read here: how much each error counts in it, whatever was declared."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from pcgraph.arguments import require_number, shown
from pcgraph.errors import ConfigError, GraphError
from pcgraph.network import Structure
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Precision
from pcgraph.solvers import Solver

__all__ = ["read_precision"]

Node = Hashable


def read_precision(
    structure: Structure, given: Mapping[Node, Any] | None, steps: int | None = None,
    optimizer: StateOptimizer | Solver | None = None,
) -> Precision:  # fmt: skip
    """Turn (node, or (node, slot) -> precision, or several) into (canonical number, precision or precisions), sorted.

    Parameters
    ----------
    structure : Structure
    given : mapping or None
    steps : int or None
        A schedule has so many precisions and one more; for None, only the largest of its precisions is asked for.
    optimizer : StateOptimizer, Solver or None
        What moves the states by them.

    Raises
    ------
    ConfigError
        It is no mapping, names no node or slot, or one whose energy has no precision; a precision is not positive; a
        schedule has more or fewer of them than there are steps, and an end; or a solver is to follow one.
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
    read = tuple((i, _weight(name, value, steps)) for i, (name, value) in sorted(found.items()))
    if isinstance(optimizer, Solver) and any(isinstance(value, tuple) for _, value in read):
        raise ConfigError(
            f"{optimizer!r} remembers the energy of earlier steps, and a schedule changes the energy in each: take a "
            "state optimizer, as in optimizer=pcgraph.SGD(lr=0.1), or one number a node in precision=",
            key="precision",
        )
    return read


def _weight(name: Any, value: Any, steps: int | None) -> float | tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return require_number(value, f"the precision of {name!r}", above=0)
    each = tuple(require_number(v, f"precision {t} of {name!r}", above=0) for t, v in enumerate(value))
    if steps is None and each:
        return max(each)
    if len(each) != (steps or 0) + 1:
        raise ConfigError(
            f"the schedule of {name!r} has {len(each)} precisions for {steps} steps: give {(steps or 0) + 1}, one for "
            "each step and one for the errors at the end, from which weights learn",
            key="precision",
        )
    return each


def _number(structure: Structure, name: Any) -> int:
    try:
        if name in structure.slots:
            return structure.slots[name]
        if isinstance(name, tuple) and len(name) == 2 and name not in structure.number and name[0] in structure.number:
            return structure.require_prediction(name[0], name[1])
        return structure.require_node(name)
    except (GraphError, TypeError) as error:
        raise ConfigError(f"precision= names {name!r}: {error}", key="precision") from error
