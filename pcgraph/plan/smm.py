"""Sequential matrix multiplications: how long a plan takes where everything that can run at once does.

The paper counts, for one weight update (Eq 5, 6 and Section 4.1): 2T for the inference steps, L more for a forward
sweep of the whole network, m for a sweep of the first m layers, 3 for a memory (query, key and value), none for class
means. Backpropagation needs 2L - 1. Both counts end with the last error; the weight gradients, one product more, all
run at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcgraph.plan.operations import Activate, Forward, Pull, Restore, Save, Write, numbers

__all__ = ["SMM", "count"]


@dataclass(frozen=True)
class SMM:
    """Sequential matrix multiplications of one weight update.

    Attributes
    ----------
    paper : int
        The paper's count for the method. On a graph that is no chain L is the longest path of the sweep, with one
        more product where it goes on to a clamped target.
    critical_path : int
        The longest chain of products, each of which needs the one before, in what the plan really runs.
    """

    paper: int
    critical_path: int

    def __str__(self) -> str:
        return f"{self.paper} by the paper's count, {self.critical_path} on the critical path of this plan"


def count(plan: Any) -> SMM:
    """Both counts for a plan."""
    return SMM(2 * plan.steps + _initialization(plan), _critical_path(plan))


def _initialization(plan: Any) -> int:
    """What the paper adds for the initializer."""
    given = [plan.initializers[o.initializer] for o in plan.prologue if isinstance(o, Write) and o.initializer >= 0]
    recalled = max((init.products for init in given), default=0)
    swept = plan.sweep_depth
    if swept and bool((plan.exact == plan.free).all()):
        s = plan.structure
        onward = bool((~plan.free[s.target] & plan.free[s.source]).any())
        swept += onward
    return int(recalled + swept)


def _critical_path(plan: Any) -> int:
    s = plan.structure
    count = len(s.nodes)
    clock = {name: np.zeros(count, dtype=np.int64) for name in "HAES"}
    base: dict[Any, Any] = {}

    def nodes(group: int, which: Any) -> Any:
        return s.groups[group].start + numbers(which)

    def apply(op: Any) -> None:
        if isinstance(op, Write):
            products = plan.initializers[op.initializer].products if op.initializer >= 0 else 0
            clock["H"][nodes(op.group, op.rows)] = products
        elif isinstance(op, Save):
            base[op.base, tuple(numbers(op.at))] = clock["A"][nodes(op.group, op.rows)].copy()
        elif isinstance(op, Restore):
            which = nodes(op.group, op.rows)
            clock["A"][which] = _kept(base, op)
        elif isinstance(op, Forward):
            edges = numbers(op.edges)
            cost = 0 if s.buckets[op.bucket].kind == "identity" else 1
            if op.fresh:
                clock["A"][s.target[edges]] = 0
            np.maximum.at(clock["A"], s.target[edges], clock["H"][s.source[edges]] + cost)
        elif isinstance(op, Activate):
            which = nodes(s.runs[op.run].group, op.rows)
            clock["H"][which] = clock["A"][which]
        elif hasattr(op, "rows") and not hasattr(op, "run"):
            clock["A"][nodes(op.group, op.rows)] = 0

    def errors(stage: Any) -> None:
        for op in stage.errors:
            which = nodes(s.runs[op.run].group, op.rows)
            clock["E"][which] = clock["S"][which] = np.maximum(clock["H"][which], clock["A"][which])

    for op in plan.prologue:
        apply(op)
    for t in range(plan.steps):
        stage = plan.stage(t)
        for op in stage.forward if t else ():
            apply(op)
        errors(stage)
        for op in stage.zero:
            clock["E"][nodes(op.group, op.rows)] = 0
        for op in stage.pull:
            assert isinstance(op, Pull)
            edges = numbers(op.edges)
            cost = 0 if s.buckets[op.bucket].kind == "identity" else 1
            if op.fresh:
                clock["E"][s.source[edges]] = 0
            np.maximum.at(clock["E"], s.source[edges], clock["S"][s.target[edges]] + cost)
        for group, where in stage.moves:
            which = nodes(group, where)
            clock["H"][which] = np.maximum(clock["H"][which], clock["E"][which])
    for op in plan.final.forward if plan.steps else ():
        apply(op)
    errors(plan.final)
    alive = [int(clock["E"][nodes(s.runs[op.run].group, op.rows)].max()) for op in plan.final.errors]
    return max([*alive, int(clock["H"].max())])


def _kept(base: dict[Any, Any], op: Restore) -> Any:
    """The clocks of the restored rows; a base is kept in pieces, one a sweep wave."""
    wanted = numbers(op.at)
    found = np.zeros(len(wanted), dtype=np.int64)
    for (key, at), values in base.items():
        if key == op.base:
            where = {int(row): k for k, row in enumerate(at)}
            for k, row in enumerate(wanted):
                if int(row) in where:
                    found[k] = values[where[int(row)]]
    return found
