"""The rows of a state belong to named nodes and edges, and this module says to which.

A network's tensors are packed: row i of a weight belongs to the i-th edge of its bucket, in an order that depends on
the order in which nodes and edges were declared. The names of the tensors say nothing of it, and neither do their
shapes. So a checkpoint keeps a digest of the names that own the rows of each tensor, and what is restored into another
order is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from pcgraph.initializers import Initializer
from pcgraph.model import PCNetwork
from pcgraph.network import MAIN, ParameterView, Slot, Structure
from pcgraph.network.joint import Joint

__all__ = ["initializer_parts", "named_parameters", "row_owners"]

#: A structure never changes, so that its digests are made once and not with every checkpoint.
_known: WeakKeyDictionary[Structure, dict[str, str]] = WeakKeyDictionary()
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def row_owners(structure: Structure) -> dict[str, str]:
    """Digest, for each packed tensor of a network and each group of its nodes, who owns the rows and what they do.

    Parameters
    ----------
    structure : Structure

    Returns
    -------
    dict
        The name of a bucket of edges, or ``"group_"`` and the name of a group of nodes -> digest. Two networks with the
        same digests have the same rows in the same places.
    """
    found = _known.get(structure)
    if found is None:
        found = _known[structure] = {**_of_groups(structure), **_of_buckets(structure)}
    return dict(found)


def _of_groups(structure: Structure) -> dict[str, str]:
    lines: dict[int, list[str]] = {g: [] for g in range(len(structure.groups))}
    for run in structure.segments:
        energy = None if run.energy is None else type(run.energy).__name__
        precision = None if run.precision is None else run.precision.tolist()
        lines[run.group].append(f"{run.start}:{run.stop} {run.activation.label} {energy} {precision}")
    for i, node in enumerate(structure.nodes):
        lines[int(structure.group_of[i])].append(
            f"{_name(node)} {structure.shared_biases.get(i, bool(structure.has_bias[i]))}"
        )
    return {f"group_{group.name}": _digest(lines[g]) for g, group in enumerate(structure.groups)}


def _of_buckets(structure: Structure) -> dict[str, str]:
    found = {}
    for bucket in structure.buckets:
        does = f"{bucket.kind} {type(bucket.transform).__name__} {bucket.phi.label} {bucket.trainable}"
        if isinstance(bucket.transform, Joint):
            joint = bucket.transform
            does += f" {type(joint.inner).__name__} {type(joint.combine).__name__} as {', '.join(joint.roles)}"
        does += "" if bucket.lender is None else f" of {bucket.lender}"
        does += "" if bucket.scale == 1.0 else f" times {bucket.scale!r}"
        rows = range(bucket.count) if bucket.weight is None else bucket.weight.tolist()
        edges = (_owner(structure, i) for i in range(bucket.start, bucket.stop))
        found[bucket.name] = _digest([does, *(f"{row} {_name(edge)}" for row, edge in zip(rows, edges))])
    return found


def _owner(structure: Structure, i: int) -> tuple[Any, ...]:
    """Name an edge, and the slot that it feeds if it feeds one."""
    slot = structure.slot_name(i)
    return structure.edge(i) if slot == MAIN else (*structure.edge(i), Slot(structure.edge(i)[1], slot))


def _name(name: Hashable) -> str:
    """Write a name as text that is the same in every process."""
    if isinstance(name, np.generic):
        name = name.item()
    if isinstance(name, tuple):
        return f"({', '.join(map(_name, name))})"
    if isinstance(name, frozenset):
        return f"{{{', '.join(sorted(map(_name, name)))}}}"
    return ADDRESS.sub("", repr(name))


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def named_parameters(
    optimizer: torch.optim.Optimizer, net: PCNetwork | None, initializer: Initializer | None
) -> list[dict[str, Any]]:
    """List what an optimizer moves, in its order: the name of each here, its shape, and what is kept of it."""
    owners = [(prefix, part) for prefix, part in (("net", net), ("initializer", initializer)) if part is not None]
    names = {id(p): f"{prefix}.{name}" for prefix, part in owners for name, p in part.named_parameters()}
    held = (p for group in optimizer.param_groups for p in group["params"])
    return [
        {
            "name": p.label if isinstance(p, ParameterView) else names.get(id(p)),
            "shape": list(p.shape),
            "keeps": sorted(map(str, optimizer.state.get(p, {}))),
        }
        for p in held
    ]


def initializer_parts(initializer: Initializer) -> dict[str, str]:
    """List an initializer and its parts by path: the class of each, and whose states it keeps where it says so."""
    parts = {name: part for name, part in initializer.named_modules() if isinstance(part, Initializer)}
    return {name: f"{type(part).__name__}({_keeps(part)})" for name, part in parts.items()}


def _keeps(part: Initializer) -> str:
    keeps = getattr(part, "keeps", None)
    return ", ".join(map(_name, keeps())) if callable(keeps) else ""
