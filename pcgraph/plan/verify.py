"""A plan is proved: the proof walks along it on symbols, and holds every step against the slow rule.

States are replaced by version numbers, and every product by the version of the source that it was made from. What the
plan would compute is then known exactly, without a number: each error that is used must rest on the present state of
every parent, and each error or move that is left out must be one that the definition makes zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcgraph.plan.flow import Mask, mask_of
from pcgraph.plan.operations import (
    NONE,
    Activate,
    Compare,
    Exchange,
    Index,
    Learn,
    Measure,
    Move,
    Offset,
    Operation,
    Propagate,
    Pull,
    Relay,
    Shift,
    Write,
)
from pcgraph.plan.plan import Plan

__all__ = ["verify"]

#: The version of a product that was never made.
NEVER_MADE = -1


class _Wrong(Exception):
    pass


def verify(plan: Plan) -> bool:
    """Prove a plan, or say where it is wrong.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    bool
        True. The work grows with edges x steps: it is for tests and for doubts, not for every run.

    Raises
    ------
    AssertionError
        The plan is wrong; the message names the operation and the node at fault.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 4, 2]))
    >>> verify(net.plan({"x", "y"}, init=pcgraph.Forward(), steps=5))
    True
    """
    proof = _Proof(plan)
    for t, phase, operation in plan.timeline():
        try:
            proof.apply(operation)
        except _Wrong as error:
            where = f"at step {t}" if phase == "step" else {"initialize": "at the start"}.get(phase, "at the end")
            raise AssertionError(f"{plan!r}: {type(operation).__name__} {where} {error}") from None
    return True


@dataclass
class _Step:
    """A step remembers what has happened in it: nodes compared, edges pulled."""

    compared: Mask
    pulled: Mask
    relayed: Mask
    shifted: Mask


class _Proof:
    """A proof keeps symbols in the place of numbers, and knows what each operation may do to them."""

    def __init__(self, plan: Plan) -> None:
        self.plan, s = plan, plan.structure
        count = len(s.nodes)
        self.s = s
        self.version = np.zeros(count, dtype=np.int64)
        self.zero, self.predicted, self.begun = (np.zeros(count, dtype=bool) for _ in range(3))
        self.product = np.full(len(s.source), NEVER_MADE)
        self.linear = np.concatenate([np.full(b.count, b.keeps_zero) for b in s.buckets] or [np.zeros(0, dtype=bool)])
        only = plan.request.only
        inside = np.ones(count, dtype=bool) if only is None else mask_of(count, only)
        self.alive = s.has_energy & inside
        self.free = inside & ~mask_of(count, plan.request.clamped)
        self.free[len(s.declared) :] = False  # a slot has the state of its node
        #: Nodes that have a state, and those of which the error is what should move.
        self.known = ~self.free
        self.by_error = np.zeros(count, dtype=bool)
        if plan.request.kept is not None:
            self.by_error = self.free & self.alive & ~s.is_root & ~mask_of(count, plan.request.kept)
        self.learns = np.concatenate([np.full(b.count, b.learns) for b in s.buckets] or [np.zeros(0, dtype=bool)])
        self.learns[list(plan.request.frozen_edges)] = False
        self.biased = s.has_bias & ~mask_of(count, plan.request.frozen_biases)
        self.masked = mask_of(count, plan.request.masked)
        self.vanishes = np.ones(count, dtype=bool)
        for segment in s.segments:
            self.vanishes[s.nodes_of(segment)] = segment.energy is None or segment.energy.zero_at_prediction
        self.pushed = np.zeros(count, dtype=bool)
        #: Nodes whose variable is the error; those whose error has moved since; and what their states rest on.
        self.offset, self.due = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        self.seen = self.product.copy()
        #: Nodes that have a dual from the second step on.
        self.dual = plan.free & self.alive & (np.bincount(s.target, minlength=count) > 0)
        self.dual &= plan.request.duals is not None
        self.moves = 0
        cut = plan.cut
        #: For several ranks: the version of the source that each edge sees, by way of a ghost where it lies elsewhere;
        #: ghosts of which nothing has been read since they got it; and the edges whose pull has not reached the owner.
        self.ghost_of = np.full(len(s.source), -1) if cut is None else cut.ghost_of
        self.ghost = np.zeros(0 if cut is None else len(cut.ghost_node), dtype=np.int64)
        self.unread = np.zeros(len(self.ghost), dtype=bool)
        self.away = np.zeros(len(s.source), dtype=bool)
        self.sent_back = self.unread.copy()
        self.step = self._fresh_step()

    def _fresh_step(self) -> _Step:
        count, edges = len(self.version), len(self.product)
        compared, relayed, shifted = (np.zeros(count, dtype=bool) for _ in range(3))
        return _Step(compared, np.zeros(edges, dtype=bool), relayed, shifted)

    def apply(self, op: Operation) -> None:
        """Let an operation act on the symbols, or raise what is wrong with it."""
        self._once(op)
        if isinstance(op, Write):
            self._give(op.nodes)
            zeros = op.source < 0 or self.plan.initializers[op.source].writes_zeros
            self.zero[op.nodes] = zeros & ~self.masked[op.nodes]
            self._zero_ghosts(op.nodes[self.zero[op.nodes]])
        elif isinstance(op, Exchange):
            self._exchange(op)
        elif isinstance(op, Propagate):
            self._propagate(op)
        elif isinstance(op, Activate):
            self._up_to_date(op.nodes, "sweeps")
            self._give(op.nodes)
            self.predicted[op.nodes] = ~self.masked[op.nodes]
        elif isinstance(op, Compare):
            self._compare(op)
        elif isinstance(op, Shift):
            self._shift(op)
        elif isinstance(op, Pull):
            self._pull(op)
        elif isinstance(op, Relay):
            self._relay(op)
        elif isinstance(op, Measure):
            self._measure(op)
        elif isinstance(op, Offset):
            self._up_to_date(op.nodes, "takes the state of")
            self._give(op.nodes)
            self._state_by_error(op.nodes)
        elif isinstance(op, Move):
            self._move(op)
        elif isinstance(op, Learn):
            self._learn(op)

    def _name(self, nodes: Index) -> str:
        return repr(self.s.nodes[int(nodes[0])])

    def _edge(self, edges: Index) -> str:
        return str(self.s.edge(int(edges[0])))

    def _once(self, op: Operation) -> None:
        """Refuse an operation that names a node or an edge twice; a node may go to several ranks."""
        for kind, name in () if isinstance(op, Exchange) else (("nodes", self._name), ("edges", self._edge)):
            named = np.sort(getattr(op, kind, NONE))
            twice = named[1:][named[1:] == named[:-1]]
            if len(twice):
                raise _Wrong(f"names {name(twice)} twice")

    def _give(self, nodes: Index) -> None:
        """Let something other than a move set these states."""
        known = nodes[~self.free[nodes]]
        if len(known):
            raise _Wrong(f"sets the state of {self._name(known)}, which is not free")
        self._touch(nodes)
        self.known[nodes] = True

    def _touch(self, nodes: Index) -> None:
        """Change these states: they no longer equal their predictions, nor do those of their children."""
        self.version[nodes] += 1
        self.zero[nodes] = self.predicted[nodes] = False
        self.predicted[self.s.target[self.s.by_source.edges(np.unique(nodes))]] = False

    def _propagate(self, op: Propagate) -> None:
        outside = op.edges[~np.isin(self.s.target[op.edges], op.nodes)]
        if len(outside):
            raise _Wrong(f"adds the product of {self._edge(outside)} to a sum that it does not name")
        unknown = op.edges[~self.known[self.s.source[op.edges]]]
        if len(unknown):
            raise _Wrong(f"multiplies along {self._edge(unknown)}, whose source has no state yet")
        for i, edges in self.s.joint.items():
            if 0 < np.isin(edges, op.edges).sum() < len(edges):
                raise _Wrong(f"makes a part of what {self._name(np.array([i]))} combines, and not all of it")
        self.product[op.edges] = self._seen(op.edges)
        ghosts = self.ghost_of[op.edges]
        self.unread[ghosts[ghosts >= 0]] = False
        self.begun[op.nodes] = True

    # -- several ranks ------------------------------------------------------------------------------------------------

    def _seen(self, edges: Index) -> Index:
        """Return the version of its source that each edge sees on its rank."""
        ghosts = self.ghost_of[edges]
        found: Index = self.version[self.s.source[edges]]
        found[ghosts >= 0] = self.ghost[ghosts[ghosts >= 0]]
        return found

    def _zero_ghosts(self, nodes: Index) -> None:
        """Let every rank write zeros itself."""
        cut = self.plan.cut
        if cut is not None:
            own = np.flatnonzero(np.isin(cut.ghost_node, nodes))
            self.ghost[own] = self.version[cut.ghost_node[own]]

    def _exchange(self, op: Exchange) -> None:
        cut = self.plan.cut
        if cut is None:
            raise _Wrong("sends something to another rank, of which there is none")
        away = op.receiver if op.kind == "state" else op.sender
        home = op.sender if op.kind == "state" else op.receiver
        ghosts = cut.number_of(op.nodes, away)
        wrong = op.nodes[(ghosts < 0) | (home != cut.owner[op.nodes])]
        if len(wrong):
            raise _Wrong(f"sends {self._name(wrong)} between ranks of which one does not own it, or the other reads it")
        if len(np.unique(ghosts)) < len(ghosts):
            raise _Wrong("sends something to one rank twice")
        if op.kind == "state":
            self._send_states(op.nodes, ghosts)
        else:
            self._send_signals(op.nodes, ghosts)

    def _send_states(self, nodes: Index, ghosts: Index) -> None:
        unknown = nodes[~self.known[nodes]]
        if len(unknown):
            raise _Wrong(f"sends the state of {self._name(unknown)}, which has none yet")
        again = nodes[self.ghost[ghosts] == self.version[nodes]]
        if len(again):
            raise _Wrong(f"sends the state of {self._name(again)} to a rank that has it")
        self._all_read(ghosts)
        self.ghost[ghosts] = self.version[nodes]
        self.unread[ghosts] = True

    def _all_read(self, ghosts: Index) -> None:
        """Refuse that the state of one of these ghosts was sent, and then read by nothing."""
        cut = self.plan.cut
        unread = ghosts[self.unread[ghosts]]
        if cut is not None and len(unread):
            raise _Wrong(f"sent the state of {self._name(cut.ghost_node[unread])} before, and nothing has read it")

    def _send_signals(self, nodes: Index, ghosts: Index) -> None:
        waiting = np.zeros(len(self.ghost), dtype=bool)
        waiting[self.ghost_of[self.away]] = True
        empty = nodes[~waiting[ghosts]]
        if len(empty):
            raise _Wrong(f"sends back to {self._name(empty)} where nothing has come back")
        twice = nodes[self.sent_back[ghosts]]
        if len(twice):
            raise _Wrong(f"sends back to {self._name(twice)} from one rank again")
        self.sent_back[ghosts] = True
        delivered = np.zeros(len(self.ghost) + 1, dtype=bool)
        delivered[ghosts] = True
        self.away &= ~delivered[self.ghost_of]

    def _up_to_date(self, nodes: Index, what: str) -> None:
        """Refuse nodes whose sum is not the one over all parents' present states."""
        missing = nodes[~self.begun[nodes]]
        if len(missing):
            raise _Wrong(f"{what} {self._name(missing)} before anything has come into it")
        edges = self.s.by_target.edges(np.unique(nodes))
        source = self.s.source[edges]
        silent = (self.product[edges] == NEVER_MADE) & self.zero[source] & self.linear[edges]
        late = edges[(self.product[edges] != self.version[source]) & ~silent]
        if len(late):
            raise _Wrong(f"{what} {self._name(self.s.target[late])} by a product of {self._edge(late)} out of date")

    def _measure(self, op: Measure) -> None:
        self._up_to_date(op.nodes, "measures")
        self.offset[op.nodes] = True
        wrong = np.flatnonzero(self.offset & ~self.by_error)
        if len(wrong):
            raise _Wrong(f"makes the error of {self._name(wrong)} its variable, whose state is to be moved")
        self._state_by_error(op.nodes)

    def _compare(self, op: Compare) -> None:
        self.step = self._fresh_step()
        self.sent_back[:] = False
        unknown = np.flatnonzero(~self.known)
        if len(unknown):
            raise _Wrong(f"takes errors before {self._name(unknown)} has a state")
        without = op.nodes[~self.alive[op.nodes]]
        if len(without):
            raise _Wrong(f"takes the error of {self._name(without)}, which has no energy here")
        compared = self.step.compared
        changed = np.zeros(len(self.version), dtype=bool)
        changed[self.s.target[self.seen != self.product]] = True
        late = np.flatnonzero(self.offset & (self.due | changed))
        if len(late):
            raise _Wrong(f"takes the error of {self._name(late)}, whose state is not its prediction plus its error")
        compared[op.nodes] = True
        self._up_to_date(op.nodes, "takes the error of")
        left = np.flatnonzero(self.alive & ~compared & ~(self.predicted & self.vanishes))
        if len(left):
            raise _Wrong(f"leaves out the error of {self._name(left)}, which need not be zero")

    def _shift(self, op: Shift) -> None:
        if not self.moves or not (self.dual & self.step.compared)[op.nodes].all() or self.step.shifted[op.nodes].any():
            raise _Wrong(f"moves a dual among those of {self._name(op.nodes)} that is not there, or moves it twice")
        self.step.shifted[op.nodes] = True

    def _shifted(self) -> None:
        """Refuse to use errors without the duals that belong to them."""
        left = np.flatnonzero(self.dual & self.step.compared & ~self.step.shifted)
        if self.moves and len(left):
            raise _Wrong(f"uses the error of {self._name(left)} without its dual")

    def _state_by_error(self, nodes: Index) -> None:
        """Make these states their predictions plus their errors."""
        edges = self.s.by_target.edges(np.unique(nodes))
        self.seen[edges] = self.product[edges]
        self.due[nodes] = False

    def _needed(self) -> Mask:
        needed: Mask = self.step.compared[self.s.target] & self.free[self.s.source]
        return needed

    def _pull(self, op: Pull) -> None:
        self._shifted()
        twice = op.edges[self.step.pulled[op.edges]]
        if len(twice):
            raise _Wrong(f"sends an error back along {self._edge(twice)} again")
        self.step.pulled[op.edges] = True
        self.away[op.edges[self.ghost_of[op.edges] >= 0]] = True
        early = op.edges[self.offset[self.s.target[op.edges]] & ~self.step.relayed[self.s.target[op.edges]]]
        if len(early):
            raise _Wrong(f"sends back along {self._edge(early)} before all has come back to its target")
        wrong = np.flatnonzero(self.step.pulled & ~self.step.compared[self.s.target])
        if len(wrong):
            raise _Wrong(f"sends an error that was not taken back along {self._edge(wrong)}")

    def _relay(self, op: Relay) -> None:
        outside = op.nodes[~self.offset[op.nodes]]
        if len(outside):
            raise _Wrong(f"sends on what comes back to {self._name(outside)}, whose variable is its state")
        twice = op.nodes[self.step.relayed[op.nodes]]
        if len(twice):
            raise _Wrong(f"sends on what comes back to {self._name(twice)} again")
        self._complete(self.s.by_source.edges(np.unique(op.nodes)))
        self.step.relayed[op.nodes] = True

    def _complete(self, edges: Index) -> None:
        """Refuse where some of these edges have not sent back an error that they should have."""
        missing = edges[(self._needed() & ~self.step.pulled)[edges]]
        if len(missing):
            raise _Wrong(f"does not send the error of {self._edge(missing)} back")
        late = edges[self.away[edges]]
        if len(late):
            raise _Wrong(f"does not send what came back along {self._edge(late)} to the rank of its source")

    def _move(self, op: Move) -> None:
        self._complete(np.arange(len(self.product)))
        free, request = self.free, self.plan.request
        reached = self.step.compared & free
        reached[self.s.source[self._needed()]] = True
        reached[[v for v in request.nudged if free[v]]] = True
        self.pushed |= reached
        owed = free.copy() if not request.fixes_zero else reached if request.stateless else self.pushed
        moved = mask_of(len(free), op.nodes)
        if (moved & ~free).any():
            raise _Wrong(f"moves {self._name(np.flatnonzero(moved & ~free))}, which is not free")
        if (owed & ~moved).any():
            raise _Wrong(f"does not move {self._name(np.flatnonzero(owed & ~moved))}")
        states = np.flatnonzero(moved & self.by_error & ~self.offset)
        if len(states):
            raise _Wrong(f"moves the state of {self._name(states)}, whose error is its variable")
        self.moves += 1
        self._touch(np.flatnonzero(owed & ~self.offset))
        self.due |= owed & self.offset

    def _learn(self, op: Learn) -> None:
        self._shifted()
        s, compared = self.s, self.step.compared
        owing, biased = self.learns & compared[s.target], self.biased & compared
        edges, nodes = op.edges[~owing[op.edges]], op.nodes[~biased[op.nodes]]
        if len(edges):
            why = "target has no error" if self.learns[edges[0]] else "weight is fixed"
            raise _Wrong(f"learns from {self._edge(edges)}, whose {why}")
        if len(nodes):
            why = "has no error" if self.biased[nodes[0]] else "has no bias, or a frozen one"
            raise _Wrong(f"learns the bias of {self._name(nodes)}, which {why}")
        self._all_read(np.arange(len(self.ghost)))
        owing[op.edges] = biased[op.nodes] = False
        if owing.any():
            raise _Wrong(f"does not learn from {self._edge(np.flatnonzero(owing))}")
        if biased.any():
            raise _Wrong(f"does not learn the bias of {self._name(np.flatnonzero(biased))}")
