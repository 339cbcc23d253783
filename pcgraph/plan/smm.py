"""Sequential matrix multiplications say how long a plan takes where everything that can run at once does.

The paper counts, for one weight update (Eq 5, 6 and Section 4.1): 2T for the inference steps, L more for a forward
sweep of the whole network, m for a sweep of the first m layers, 3 for a memory (query, key and value), none for class
means. Backpropagation needs 2L - 1. Both counts end with the last error; the weight gradients, one product more, all
run at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcgraph.plan.operations import (
    Activate,
    Compare,
    Index,
    Measure,
    Move,
    Offset,
    Operation,
    Propagate,
    Pull,
    Relay,
    Write,
)

__all__ = ["SMM", "count"]

# A plan is Any here, since it counts with this module, which comes before it.


@dataclass(frozen=True)
class SMM:
    """One weight update takes so many sequential matrix multiplications.

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
    """Count both for a plan."""
    return SMM(2 * plan.steps + _initialization(plan), _critical_path(plan))


def _initialization(plan: Any) -> int:
    """Return what the paper adds for the initializer."""
    given = [plan.initializers[o.source] for o in plan.prologue if isinstance(o, Write) and o.source >= 0]
    recalled = max((init.products for init in given), default=0)
    swept = plan.sweep_depth
    if swept and bool((plan.exact == plan.free).all()):
        s = plan.structure
        onward = bool((~plan.free[s.target] & plan.free[s.source]).any())
        swept += onward
    return int(recalled + swept)


class _Clock:
    """A clock knows when the latest value of everything is there, counted in products that have to be waited for."""

    def __init__(self, plan: Any) -> None:
        self.plan, s = plan, plan.structure
        self.source, self.target = s.source, s.target
        self.cost = np.ones(len(s.source), dtype=np.int64)
        for bucket in s.buckets:
            if bucket.kind == "identity":
                self.cost[bucket.start : bucket.stop] = 0
        self.state, self.total, self.gradient, self.signal = (np.zeros(len(s.nodes), dtype=np.int64) for _ in range(4))
        #: Of the errors that are variables.
        self.variable = np.zeros(len(s.nodes), dtype=np.int64)
        self.product = np.zeros(len(s.source), dtype=np.int64)

    def tick(self, op: Operation) -> None:
        """Let an operation happen: what it writes is there once all that it reads is there, and a product later."""
        if isinstance(op, Write):
            self.state[op.nodes] = self.plan.initializers[op.source].products if op.source >= 0 else 0
        elif isinstance(op, Propagate):
            self.product[op.edges] = self.state[self.source[op.edges]] + self.cost[op.edges]
            incoming = self.plan.structure.by_target.edges(op.nodes)
            self.total[op.nodes] = 0
            np.maximum.at(self.total, self.target[incoming], self.product[incoming])
        elif isinstance(op, Activate | Offset):
            self.state[op.nodes] = np.maximum(self.total[op.nodes], self.variable[op.nodes])
        elif isinstance(op, Measure):
            self.variable[op.nodes] = np.maximum(self.state[op.nodes], self.total[op.nodes])
        elif isinstance(op, Relay):
            self.signal[op.nodes] = np.maximum(self.signal[op.nodes], self.gradient[op.nodes])
        elif isinstance(op, Compare):
            self.gradient[:] = 0
            self.gradient[op.nodes] = np.maximum(self.state[op.nodes], self.total[op.nodes])
            self.signal[op.nodes] = self.gradient[op.nodes]
        elif isinstance(op, Pull):
            arrived = self.signal[self.target[op.edges]] + self.cost[op.edges]
            np.maximum.at(self.gradient, self.source[op.edges], arrived)
        elif isinstance(op, Move):
            moved = self.variable if self.plan.measure is not None else self.state
            for kind in (self.state, moved):
                kind[op.nodes] = np.maximum(kind[op.nodes], self.gradient[op.nodes])

    def latest(self, nodes: Index) -> int:
        """Return when all states, and the gradients of these nodes, are there."""
        return max(int(self.state.max()), int(self.gradient[nodes].max(initial=0)))


def _critical_path(plan: Any) -> int:
    clock = _Clock(plan)
    for _, _, operation in plan.timeline():
        clock.tick(operation)
    return clock.latest(plan.final.compare.nodes)
