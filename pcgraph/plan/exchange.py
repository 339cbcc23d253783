"""Over several ranks a plan is the same, with exchanges between its operations: this is where they are worked out.

An edge is computed on the rank of its target. So before edges are propagated, the ghosts that they read get the
states that have changed since they got them last; and before what has come back to a node is used, its owner gets what
edges of other ranks have sent back to it. With ``D_t`` the nodes that move in step t and ``owner`` the rank of each
node, that is before step t + 1

    states    {(u, r)  :  u in D_t, r owns a child of u, r != owner(u)}
    signals   {(u, r)  :  u free, r owns a child of u with an error, r != owner(u)}      before they move

and nothing else: clamps are known to every rank, and zeros are written where they are needed. One vector goes back for
all edges of a rank from one source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from pcgraph.network import Cut
from pcgraph.plan.compile import Stage
from pcgraph.plan.flow import Mask, mask_of
from pcgraph.plan.operations import Activate, Exchange, Index, Operation, Propagate, Pull, Write

__all__ = ["Exchanges"]


class Exchanges:
    """Exchanges are put between the operations of what a compiler has found.

    Parameters
    ----------
    found : Compiler
        It has compiled the plan for one process.
    cut : Cut

    Attributes
    ----------
    prologue, stages, final
        Those of the compiler, with exchanges.
    """

    def __init__(self, found: Any, cut: Cut) -> None:
        self.cut, self.s = cut, found.structure
        #: Ghosts that do not have the present state of their node; and those with something for its owner.
        self.late = np.zeros(len(cut.ghost_node), dtype=bool)
        self.full = self.late.copy()
        self.late[found.free[cut.ghost_node]] = True
        self.prologue = tuple(self._prologue(found))
        self.stages = tuple(self._stage(found, stage, t) for t, stage in enumerate(found.stages))
        if len(found.stages):
            last = found.request.steps - 1
            self._moved(found, found.flow.move(last))
        self.final = self._stage(found, found.final, None)

    def _prologue(self, found: Any) -> Iterable[Operation]:
        begun = []
        for op in (*found.prologue, found.begin):
            if isinstance(op, Write):
                zeros = op.source < 0 or found.initializers[op.source].writes_zeros
                known = mask_of(len(self.s.nodes), op.nodes[~found.masked[op.nodes]] if zeros else [])
                self._changed(mask_of(len(self.s.nodes), op.nodes))
                self.late &= ~known[self.cut.ghost_node]
            elif isinstance(op, Activate):
                self._changed(mask_of(len(self.s.nodes), op.nodes))
            elif isinstance(op, Propagate):
                needed = self._states(op)
                if len(needed.nodes):
                    begun.append(needed)
            begun.append(op)
        return begun[:-1]  # the begin of a plan stands alone

    def _stage(self, found: Any, stage: Stage, t: int | None) -> Stage:
        if t:
            self._moved(found, found.flow.move(t - 1))
        states = []
        for propagate, offset in stage.offsets:
            states.append(self._states(propagate))
            self._changed(mask_of(len(self.s.nodes), offset.nodes))
        states.append(self._states(stage.propagate))
        if t is None:
            return replace(stage, states=tuple(states))
        signals = []
        self._pull(stage.pull)
        for relay, pull in stage.relays:
            signals.append(self._signals(mask_of(len(self.s.nodes), relay.nodes)))
            self._pull(pull)
        signals.append(self._signals(np.ones(len(self.s.nodes), dtype=bool)))
        return replace(stage, states=tuple(states), signals=tuple(signals))

    def _changed(self, nodes: Mask) -> None:
        self.late |= nodes[self.cut.ghost_node]

    def _moved(self, found: Any, nodes: Mask) -> None:
        """Let states move; that of a node whose variable is its error changes with its offset."""
        by_state = nodes.copy()
        if found.measure is not None:
            by_state[found.measure.nodes] = False
        self._changed(by_state)

    def _states(self, op: Propagate) -> Exchange:
        """Return what must be sent before these edges are propagated."""
        ghosts = self.cut.ghost_of[op.edges]
        needed = np.unique(ghosts[ghosts >= 0])
        needed = needed[self.late[needed]]
        self.late[needed] = False
        nodes, away = self.cut.ghost_node[needed], self.cut.ghost_rank[needed]
        return Exchange("state", nodes, self.cut.owner[nodes], away)

    def _pull(self, op: Pull) -> None:
        ghosts = self.cut.ghost_of[op.edges]
        self.full[ghosts[ghosts >= 0]] = True

    def _signals(self, wanted: Mask) -> Exchange:
        """Return what must be sent before the gradients of these nodes are used."""
        sent: Index = np.flatnonzero(self.full & wanted[self.cut.ghost_node])
        self.full[sent] = False
        nodes, away = self.cut.ghost_node[sent], self.cut.ghost_rank[sent]
        return Exchange("signal", nodes, away, self.cut.owner[nodes])
