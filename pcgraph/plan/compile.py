"""Structure, clamps, layout and steps are compiled here: which operation follows which, on which nodes and edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pcgraph.errors import InvalidInitializer
from pcgraph.initializers import Given, Initializer, Layout
from pcgraph.network import Structure
from pcgraph.network.adjacency import distinct
from pcgraph.plan.flow import NEVER, Flow, Mask, flow, mask_of
from pcgraph.plan.operations import (
    NONE,
    NOTHING,
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
from pcgraph.plan.request import Request

__all__ = ["Compiler", "Stage"]


#: There are no duals.
NO_SHIFT = Shift(NONE)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage is one inference step: what has moved is propagated, errors are taken and sent back, and states move.

    With duals, errors are shifted by them before they are sent back. In error coordinates, nodes get their states wave
    by wave first (`offsets`), and what comes back to them goes on to their parents wave by wave at the end (`relays`).
    Over several ranks there is an exchange of `states` before each propagation, and of `signals` before each relay and
    at the end.
    """

    propagate: Propagate
    compare: Compare
    pull: Pull
    move: Move
    offsets: tuple[tuple[Propagate, Offset], ...] = ()
    relays: tuple[tuple[Relay, Pull], ...] = ()
    shift: Shift = NO_SHIFT
    states: tuple[Exchange, ...] = ()
    signals: tuple[Exchange, ...] = ()

    def evaluation(self) -> Iterator[Operation]:
        """Yield what brings predictions and errors up to date, in order."""
        for k, pair in enumerate(self.offsets):
            yield from self.states[k : k + 1]
            yield from pair
        yield from self.states[len(self.offsets) :]
        yield self.propagate
        yield self.compare
        if len(self.shift.nodes):
            yield self.shift

    def descent(self) -> Iterator[Operation]:
        """Yield what completes the gradients, in order."""
        yield self.pull
        for k, pair in enumerate(self.relays):
            yield from self.signals[k : k + 1]
            yield from pair
        yield from self.signals[len(self.relays) :]

    def operations(self) -> Iterator[Operation]:
        """Yield everything, the move last."""
        yield from self.evaluation()
        yield from self.descent()
        yield self.move

    def without(self, stopped: Mask, structure: Structure) -> Stage:
        """Return what is left to compute of a stage once some states hold still for every sample.

        What would be sent back to them is left out, and so is what comes into nodes that read none but them.
        """
        edges = self.propagate.edges
        still = edges[~stopped[structure.source[edges]]]
        into = distinct(structure.target[still], len(structure.nodes))
        anew = edges[np.isin(structure.target[edges], into)]
        pull = self.pull.edges[~stopped[structure.source[self.pull.edges]]]
        return replace(self, propagate=Propagate(anew, into), pull=Pull(pull))

    @property
    def forward_edges(self) -> Index:
        """Return the edges whose products are computed anew."""
        return np.concatenate([*(p.edges for p, _ in self.offsets), self.propagate.edges])


class Compiler:
    """A compiler makes one plan; what it finds is in its attributes, which :class:`~pcgraph.plan.Plan` describes."""

    def __init__(self, structure: Structure, request: Request, layout: Layout) -> None:
        self.structure, self.request = structure, request
        count = len(structure.nodes)
        self.masked = mask_of(count, request.masked)
        only = np.ones(count, dtype=bool) if request.only is None else mask_of(count, request.only)
        self.free = ~mask_of(count, request.clamped) & only
        self.free[len(structure.declared) :] = False  # a slot's state is its node's, by its tie
        self.alive = structure.has_energy & only
        self.initializers: list[Initializer] = []
        self.sweep_depth = 0
        self.waves = 0
        actions = self._actions(layout)
        self._settle(actions)
        pulled = mask_of(count, request.nudged) & self.free
        self.error_waves = () if request.kept is None else tuple(self._error_waves(request.kept))
        if request.kept is None:
            self.flow = flow(
                structure, self.alive, self.free, self.exact, pulled, request.steps, request.fixes_zero
            )  # fmt: skip
        else:
            # An error reaches everything within one step, backwards and forwards.
            self.flow = Flow(request.steps, (self.alive,), (self.free,) if request.steps else ())
        #: The nodes with a dual.
        self.dual = self.free & self.alive & ~structure.is_root & (request.duals is not None)
        self.level = self._levels()
        self.silent = self._provably_zero()
        self.prologue = tuple(self._prologue(actions))
        self.begin = self._propagate(np.flatnonzero(self.alive & ~self.exact))
        self.measure = None if request.kept is None else Measure(np.sort(np.concatenate([NONE, *self.error_waves])))
        self.stages, self.final = self._stages()
        self.learn = self._learn(self.flow.error(request.steps))

    # -- what the initialization leaves behind ----------------------------------------------------------------------

    def _actions(self, layout: Layout) -> list[tuple[int | None, Index]]:
        """Return (initializer number or None for a sweep, nodes) in order, with the free nodes that matter alone."""
        s = self.structure
        result: list[tuple[int | None, Index]] = []
        for action in layout.actions:
            nodes = np.array([s.number[n] for n in action.nodes], dtype=np.int64)
            nodes = nodes[self.free[nodes]]
            which = None
            if isinstance(action, Given):
                if not any(i is action.source for i in self.initializers):
                    self.initializers.append(action.source)
                which = next(k for k, i in enumerate(self.initializers) if i is action.source)
            if len(nodes):
                result.append((which, nodes))
        priors = np.array([i for i in s.priors if self.free[i]], dtype=np.int64)
        named = np.concatenate([nodes for _, nodes in result]) if result else NONE
        priors = np.sort(np.setdiff1d(priors, named))
        return [(None, priors), *result] if len(priors) else result

    def _settle(self, actions: Sequence[tuple[int | None, Index]]) -> None:
        """Find `exact`, what is swept and left alone, and `zero`, what only initializers of zeros ever write."""
        s = self.structure
        count = len(s.nodes)
        written = np.full(count, -1)
        swept, self.zero = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        first = np.full(count, True)
        for position, (which, nodes) in enumerate(actions):
            swept[nodes] = which is None
            zeros = which is not None and self.initializers[which].writes_zeros
            self.zero[nodes] = zeros & (first[nodes] | self.zero[nodes])
            first[nodes] = False
            written[nodes] = position
        missing = self.free & (written < 0)
        if missing.any():
            names = [s.nodes[i] for i in np.flatnonzero(missing)[:5]]
            raise InvalidInitializer(
                f"the initializer leaves {int(missing.sum())} free nodes without a value ({', '.join(map(repr, names))}"
                f"{', ...' if missing.sum() > 5 else ''}); its layout must name every free node"
            )
        late = np.zeros(count, dtype=bool)
        late[s.target[written[s.source] > written[s.target]]] = True
        self.exact = swept & ~late & ~self.masked & self._vanishing() & self.alive
        self.exact[list(self.request.nudged)] = False
        self.zero &= ~self.masked

    def _vanishing(self) -> Mask:
        """Return a mask of the nodes whose energy promises to vanish at the prediction."""
        s = self.structure
        result = np.ones(len(s.nodes), dtype=bool)
        for segment in s.segments:
            if segment.energy is not None and not segment.energy.zero_at_prediction:
                result[s.nodes_of(segment)] = False
        return result

    def _levels(self) -> Index:
        """Return the first step before which each edge's product is computed anew: after its source's first move."""
        first = np.full(len(self.structure.nodes), NEVER)
        for t in range(len(self.flow.moves) - 1, -1, -1):
            first[self.flow.moves[t]] = t + 1
        level: Index = first[self.structure.source]
        for edges in self.structure.joint.values():  # a joint prediction is made anew as a whole
            level[list(edges)] = level[list(edges)].min()
        level[~self.alive[self.structure.target]] = NEVER
        return level

    def _provably_zero(self) -> Mask:
        """Return a mask of the edges that carry nothing before the first move: a zero state through a linear map."""
        result = self.zero[self.structure.source]
        for bucket in self.structure.buckets:
            if not bucket.keeps_zero:
                result[bucket.start : bucket.stop] = False
        return result

    # -- emitting ---------------------------------------------------------------------------------------------------

    def _prologue(self, actions: Sequence[tuple[int | None, Index]]) -> Iterator[Operation]:
        for which, nodes in actions:
            if which is None:
                yield from self._sweep(nodes)
            else:
                yield Write(which, np.unique(nodes))

    def _error_waves(self, kept: frozenset[int]) -> Iterator[Index]:
        """Yield the nodes whose variable is their error, in waves: all that one reads is known before it."""
        s = self.structure
        moved = self.free & self.alive & ~s.is_root & ~mask_of(len(s.nodes), kept)
        missing = np.bincount(s.target[moved[s.source]], minlength=len(s.nodes))
        frontier, done = np.flatnonzero(moved & (missing == 0)), 0
        while len(frontier):
            yield frontier
            done += len(frontier)
            children = s.target[s.by_source.edges(frontier)]
            np.subtract.at(missing, children, 1)
            children = distinct(children, len(s.nodes))
            frontier = children[(missing[children] == 0) & moved[children]]
        if done != int(moved.sum()):
            raise InvalidInitializer("error coordinates need a node of every free cycle among those that are kept")

    def _propagate(self, nodes: Index) -> Propagate:
        """Propagate all that comes into nodes, sorted by number, but what is provably zero."""
        edges = self.structure.by_target.edges(nodes)
        return Propagate(edges[~self.silent[edges]], nodes)

    def _sweep(self, nodes: Index) -> Iterator[Operation]:
        """Yield operations wave by wave: the swept parents of a wave's nodes all lie in earlier waves."""
        s = self.structure
        pending = mask_of(len(s.nodes), nodes)
        missing = np.bincount(s.target[pending[s.source]], minlength=len(s.nodes))
        frontier = np.sort(nodes[missing[nodes] == 0])
        done = depth = 0
        while len(frontier):
            done += len(frontier)
            predicted = s.has_energy[frontier]
            depth += bool((~s.is_root[frontier]).any())
            if not predicted.all():
                yield Write(NOTHING, frontier[~predicted])
            if predicted.any():
                yield self._propagate(frontier[predicted])
                yield Activate(frontier[predicted])
            self.waves += 1
            children = s.target[s.by_source.edges(frontier)]
            np.subtract.at(missing, children, 1)
            children = np.unique(children)
            frontier = children[(missing[children] == 0) & pending[children]]
        self.sweep_depth = max(self.sweep_depth, depth)
        if done != len(nodes):
            raise InvalidInitializer("the initializer's layout sweeps nodes that lie on a cycle of swept nodes")

    def _stages(self) -> tuple[tuple[Stage, ...], Stage]:
        steps = self.request.steps
        stages = tuple(self._stage(t) for t in range(min(steps, len(self.flow.moves) + 1)))
        return stages, self._stage(steps, final=True)

    def _stage(self, t: int, final: bool = False) -> Stage:
        s, moved = self.structure, self.flow
        z = moved.error(t)
        edges = np.flatnonzero(self.level <= t) if t else NONE
        propagate = Propagate(edges, distinct(s.target[edges], len(s.nodes)))
        compare = Compare(np.flatnonzero(z))
        shift = Shift(np.flatnonzero(z & self.dual) if t else NONE)
        offsets: tuple[tuple[Propagate, Offset], ...] = ()
        if self.error_waves:
            offset = np.zeros(len(s.nodes), dtype=bool)
            offset[np.concatenate(self.error_waves)] = True
            propagate = Propagate(edges[~offset[s.target[edges]]], propagate.nodes[~offset[propagate.nodes]])
            if t:
                offsets = tuple((self._into(wave, edges), Offset(wave)) for wave in self.error_waves)
        if final:
            return Stage(propagate, compare, Pull(NONE), Move(NONE), offsets, shift=shift)
        pull = np.flatnonzero(z[s.target] & self.free[s.source])
        relays: tuple[tuple[Relay, Pull], ...] = ()
        if self.error_waves:
            relays = tuple(
                (Relay(wave), Pull(self._into(wave, pull).edges)) for wave in reversed(self.error_waves)
            )  # fmt: skip
            pull = pull[~offset[s.target[pull]]]
        r = self.request
        move = self.free if r.all_move else moved.move(t) if r.stateless else moved.moves[-1]
        return Stage(propagate, compare, Pull(pull), Move(np.flatnonzero(move)), offsets, relays, shift)

    def _into(self, nodes: Index, among: Index) -> Propagate:
        """Return those of some edges, sorted, that lead into nodes."""
        edges = self.structure.by_target.edges(nodes)
        return Propagate(edges[np.isin(edges, among, assume_unique=True)], nodes)

    def _learn(self, z: Mask) -> Learn:
        s = self.structure
        trainable = np.zeros(len(s.source), dtype=bool)
        for bucket in s.buckets:
            trainable[bucket.start : bucket.stop] = bucket.learns
        trainable[list(self.request.frozen_edges)] = False
        biased = s.has_bias & ~mask_of(len(s.nodes), self.request.frozen_biases)
        return Learn(np.flatnonzero(z[s.target] & trainable), np.flatnonzero(z & biased))
