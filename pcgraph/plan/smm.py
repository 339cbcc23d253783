"""Sequential matrix multiplications say how long a plan takes where everything that can run at once does.

The paper counts, for one weight update (Eq 5, 6 and Section 4.1): 2T for the inference steps, L more for a forward
sweep of the whole network, m for a sweep of the first m layers, 3 for a memory (query, key and value), none for class
means. Backpropagation needs 2L - 1. Both counts end with the last error; the weight gradients, one product more, all
run at once.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        onward = bool((~plan.free[s.target] & plan.free[s.source] & (s.target < len(s.declared))).any())
        swept += onward
    return int(recalled + swept)


class _Clock:
    """A clock knows when the latest value of everything is there, counted in products that have to be waited for."""

    def __init__(self, plan: Any, waits: bool = True) -> None:
        self.plan, s = plan, plan.structure
        self.source, self.target = s.source, s.target
        self.cost = np.zeros(len(s.source), dtype=np.int64)
        for bucket in s.buckets:
            self.cost[bucket.start : bucket.stop] = waits and bucket.multiplies
        count = len(s.nodes)
        self.times = np.zeros(5 * count + len(s.source), dtype=np.int64)
        self.product = self.times[5 * count :]
        #: Views of the times; the last are those of the errors that are variables.
        self.state, self.total, self.gradient, self.signal, self.variable = self.times[: 5 * count].reshape(5, count)

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

    def repeat(self, step: Sequence[Operation], times: int) -> None:
        """Let a step happen so often, in as much work as it takes until all is later by the same from step to step.

        That goes on for ever where each time has grown twice by the same, and none that it rests on has grown by more:
        a time is the largest of some others of the step before and what lies between, and the one that was the largest
        then remains it.
        """
        before, growth = self.times.copy(), None
        for done in range(1, times + 1):
            for operation in step:
                self.tick(operation)
            grown = self.times - before
            if growth is not None and (grown == growth).all() and self._outgrown(step, grown):
                self.times += (times - done) * grown
                return
            before, growth = self.times.copy(), grown

    def _outgrown(self, step: Sequence[Operation], grown: Index) -> bool:
        """Tell whether each time grows by at least as much as all that it rests on: by no more than that, hence."""
        rates = _Clock(self.plan, waits=False)
        rates.times[:] = grown
        for operation in step:
            rates.tick(operation)
        return bool((rates.times == grown).all())

    def latest(self, nodes: Index) -> int:
        """Return when all states, and the gradients of these nodes, are there."""
        return max(int(self.state.max()), int(self.gradient[nodes].max(initial=0)))


def _critical_path(plan: Any) -> int:
    clock = _Clock(plan)
    step: list[Operation] = []
    for t, phase, operation in plan.timeline(distinct=True):
        clock.tick(operation)
        if phase == "step":
            step.append(operation)
            if isinstance(operation, Move):
                clock.repeat(step, plan.repeats(t) - 1)
                step = []
    return clock.latest(plan.final.compare.nodes)
