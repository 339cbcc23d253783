"""Warn of what a graph and its clamps allow, but what was probably not meant."""

from __future__ import annotations

from collections.abc import Collection, Hashable

from pcgraph.topology.facts import Facts
from pcgraph.topology.witness import Neuron, name, told

__all__ = ["cautions"]

LEAKS_SHOWN = 3


def cautions(facts: Facts, staying: Collection[Hashable] = ()) -> tuple[str, ...]:
    """Put the warnings in words; a group that stays clamped in every phase does no harm by a leak."""
    found = []
    if facts.isolated:
        found.append(f"useless: no edge touches {told(*facts.isolated)}")
    if not facts.clamped:
        found.append("nothing is clamped: no state depends on any data")
    else:
        alone = (told(*part) for part in facts.without_data)
        found += [f"independent of the data: no clamped node is connected to {part}" for part in alone]
    found += _leaks(facts, staying)
    if facts.by_place:
        found.append(
            f"a bias for each place of an image: {told(*facts.by_place)}, behind convolutions, which treat all places "
            "alike; say bias='channel', or bias=False where they have their own, or bias=True if it is meant"
        )
    if facts.partial:
        parts = told(*sorted(facts.partial, key=name))
        counted = "; counted as free at the level of groups" if facts.level == "groups" else ""
        found.append(f"partly clamped, so partly free: {parts}{counted}")
    return tuple(found)


def _leaks(facts: Facts, staying: Collection[Hashable]) -> list[str]:
    if not facts.leaks_sought:
        return []
    neurons = facts.level == "neurons"
    firsts = [(leak.nodes[0], str(leak)) for leak in facts.leaks]
    harmful = [text for v, text in firsts if (v.node if neurons and isinstance(v, Neuron) else v) not in staying]
    if not harmful:
        return []
    more = [f"and {len(harmful) - LEAKS_SHOWN} more"] if len(harmful) > LEAKS_SHOWN else []
    return [
        f"{'; '.join([*harmful[:LEAKS_SHOWN], *more])}: a clamped node helps to predict itself, and no longer does "
        "where it is free, as a target is at test time. Put its feedback into a slot of its own, or learn with Nudged()"
    ]
