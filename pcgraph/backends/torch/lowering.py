"""A plan becomes calls: sets of nodes and edges become rows of groups and edges of buckets, in an order that is fast.

What is decided here is layout alone, by the thresholds of the device (:class:`~pcgraph.backends.Traits`): which edges
are computed along with their neighbours, where a sum begins with its bias, what slower edges contribute and is kept
(a *base*), which rows are slices, and where the derivative of a prediction that holds still is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pcgraph.backends.torch.calls import (
    ActivateRows,
    BeginDuals,
    Call,
    CompareRows,
    Fill,
    Give,
    MeasureRows,
    MoveRows,
    OffsetRows,
    RelayRows,
    Restore,
    Rows,
    Save,
    Send,
    SendBack,
    Trade,
    ZeroGradient,
    ZeroSignal,
    numbers,
    rows,
)
from pcgraph.backends.torch.kernels import Kernel
from pcgraph.backends.traits import Traits
from pcgraph.network.adjacency import distinct
from pcgraph.plan import NEVER, Plan, Stage
from pcgraph.plan.flow import Mask, mask_of
from pcgraph.plan.operations import Activate, Exchange, Index, Propagate, Pull, Relay, Write

__all__ = ["Calls", "Lowered", "kept", "lower", "lower_stage"]


@dataclass(frozen=True, eq=False)
class Calls:
    """One stage is these calls, sorted by the part of the program that runs them."""

    forward: tuple[Call, ...]
    errors: tuple[CompareRows, ...]
    clear: tuple[Call, ...] = ()
    pull: tuple[Call, ...] = ()
    moves: tuple[MoveRows, ...] = ()


@dataclass(frozen=True, eq=False)
class Lowered:
    """A lowered plan is all of its calls.

    Attributes
    ----------
    prologue : tuple of Call
    stages : tuple of Calls
    final : Calls
    weights : tuple of SendBack
        Whose weight gradients are computed.
    biases : tuple of (group, rows)
        The nodes whose bias gradients are computed.
    begun : tuple of int
        The first errors of `final` use slopes; from these steps on they are kept. A run may end before.
    """

    prologue: tuple[Call, ...]
    stages: tuple[Calls, ...]
    final: Calls
    weights: tuple[SendBack, ...]
    biases: tuple[tuple[int, Rows], ...]
    begun: tuple[int, ...]


class _Lowering:
    def __init__(self, plan: Plan, kernels: Sequence[Kernel], traits: Traits) -> None:
        self.plan, self.s, self.kernels, self.traits = plan, plan.structure, kernels, traits
        self.count = len(self.s.nodes)
        self.level = self._levels()
        #: The same for what is added to a sum; a tie adds nothing.
        self.adding = np.where(self.s.is_tie, NEVER, self.level) if self.s.slots else self.level
        self.ever = plan.flow.errors[-1]
        #: Nodes whose variable is their error, and whether there are none: then all is sent, and moves, at once.
        self.offset = np.zeros(self.count, dtype=bool)
        if plan.measure is not None:
            self.offset[plan.measure.nodes] = True
        self.at_once = not self.offset.any()
        #: Segments some node of which has another precision in each step.
        self.scheduled = frozenset(self.s.segment_of[plan.scheduled].tolist())
        self.quiet = np.zeros(self.count, dtype=bool)
        self.based, self.bases = self._plan_bases()
        self.lasting = self._lasting()

    # -- what is computed along, and what is kept ---------------------------------------------------------------------

    def _levels(self) -> Index:
        """Return the first step before which each edge is computed anew, where neighbours are computed along."""
        level = self.plan.level.copy()
        for bucket, kernel in zip(self.s.buckets, self.kernels):
            if kernel.widens:
                part = level[bucket.start : bucket.stop]
                for t in np.unique(part[part != NEVER]):
                    hit = np.flatnonzero(part <= t)
                    low, high = int(hit[0]), int(hit[-1]) + 1
                    if len(hit) * self.traits.widen >= high - low:
                        np.minimum(part[low:high], t, out=part[low:high])
        return level

    def _plan_bases(self) -> tuple[dict[int, Mask], dict[tuple[int, int], Index]]:
        """Find which nodes need, at which level, a copy of what their slower edges contribute."""
        s, level = self.s, self.adding
        heard = np.zeros(len(level), dtype=bool)
        for op in (*self.plan.prologue, self.plan.begin):
            if isinstance(op, Propagate):
                heard[op.edges] = True
        if s.slots:
            heard &= ~s.is_tie
        highest = np.full(self.count, -1)
        np.maximum.at(highest, s.target[heard], level[heard])
        based: dict[int, Mask] = {}
        bases: dict[tuple[int, int], Index] = {}
        for t in np.unique(level[level != NEVER]):
            mask = mask_of(self.count, s.target[level == t]) & (highest > t)
            if mask.any():
                based[int(t)] = mask
                bases.update(((int(t), g), where) for g, where in self.by_group(np.flatnonzero(mask)))
        return based, bases

    def _lasting(self) -> dict[int, tuple[slice, int]]:
        """Map segments to (nodes, step): neighbours whose input never changes, and when their errors begin.

        Their prediction and its derivative are computed once.
        """
        s, moved, last = self.s, self.plan.flow, len(self.plan.flow.moves)
        fixed = self.ever & ~s.is_root & self.at_once
        fixed[s.target[self.adding != NEVER]] = False
        found = {}
        for i, segment in enumerate(s.segments):
            sigma = segment.activation
            nodes = np.flatnonzero(fixed[s.nodes_of(segment)]) + s.nodes_of(segment).start
            small = s.groups[segment.group].size < self.traits.lasting_slope
            if not len(nodes) or small or not segment.gaussian or not sigma.named or sigma.is_identity:
                continue
            begun = [int(moved.error(t)[nodes].sum()) for t in range(last + 1)]
            at = next(t for t in range(last + 1) if begun[t])
            # Of a segment some nodes of which have a dual, there are no errors that are the same for all.
            has = np.isin(nodes, self.plan.duals)
            if has.any() and not has.all():
                continue
            if begun[at] == len(nodes) == nodes[-1] - nodes[0] + 1 and at < self.plan.steps:
                found[i] = (slice(int(nodes[0]), int(nodes[-1]) + 1), at)
        return found

    # -- rows ---------------------------------------------------------------------------------------------------------

    def by_group(self, nodes: Index) -> Iterator[tuple[int, Index]]:
        """Yield (group, positions) for nodes, sorted by number."""
        group_of, position = self.s.group_of[nodes], self.s.position[nodes]
        for part in _alike(group_of):
            yield int(group_of[part.start]), position[part]

    def by_group_rows(self, mask: Mask) -> Iterator[tuple[int, Rows]]:
        """Yield (group, rows) for the nodes in the mask."""
        return ((g, rows(where)) for g, where in self.by_group(np.flatnonzero(mask)))

    def pieces(self, nodes: Index) -> Iterator[tuple[int, Rows]]:
        """Yield (segment, rows) that cover nodes, sorted by number: slices where few suffice, else row numbers."""
        segment_of, position = self.s.segment_of[nodes], self.s.position[nodes]
        for same in _alike(segment_of):
            where = position[same]
            parts = _neighbours(where)
            for part in parts if len(parts) <= self.traits.pieces else [where]:
                yield int(segment_of[same.start]), rows(part)

    # -- forward ------------------------------------------------------------------------------------------------------

    def sends(self, edges: Index, filled: Mask) -> Iterator[Call]:
        """Yield forward calls for `edges` (sorted), and mark their targets as filled."""
        s = self.s
        for same in _alike(s.bucket_of[edges]):
            part = edges[same]
            b = int(s.bucket_of[part[0]])
            kernel = self.kernels[b]
            if not kernel.adds:
                yield Send(b, rows(part), False)
                continue
            for some in part.reshape(-1, 1) if kernel.forward_one_by_one else (part,):
                targets = s.target[some]
                empty = ~filled[targets]
                fresh = kernel.begins and bool(empty.all()) and bool((targets[1:] > targets[:-1]).all())
                if not fresh and empty.any():
                    some_empty = targets[empty]
                    few = np.unique(some_empty) if len(some_empty) < self.count else distinct(some_empty, self.count)
                    for g, where in self.by_group(few):
                        yield Fill(g, rows(where))
                filled[targets] = True
                yield Send(b, rows(some), fresh)

    def copies(self, kind: type[Save], t: int, nodes: Index) -> Iterator[Call]:
        """Yield calls that save, or restore, what comes into `nodes` from edges slower than level `t`."""
        for g, where in self.by_group(nodes):
            base = self.bases[t, g]
            yield kind((t, g), len(base), g, rows(where), rows(np.searchsorted(base, where)))

    def accumulate(self, edges: Index, nodes: Index, keep: bool, filled: Mask) -> Iterator[Call]:
        """Yield calls for all that comes into `nodes` before the first move.

        The slowest edges come first, so that bases can be kept.
        """
        level = self.level[edges] if keep else np.full(len(edges), NEVER)
        seen = self.level[self.s.by_target.edges(nodes)] if keep else level
        for t in np.unique(seen)[::-1]:
            if t != NEVER and int(t) in self.based:
                yield from self.copies(Save, int(t), nodes[self.based[int(t)][nodes]])
            yield from self.sends(edges[level == t], filled)
        for g, where in self.by_group(nodes[~filled[nodes]]):
            yield Fill(g, rows(where))

    def forward(self, t: int, among: Index | None = None) -> tuple[Call, ...]:
        """Return what is computed anew before step `t`, at all nodes or some.

        For t == steps it is what is computed anew after the last step.
        """
        s = self.s
        edges = np.flatnonzero(self.level <= t)
        if among is not None:
            edges = edges[np.isin(s.target[edges], among)]
        top = np.full(self.count, -1)
        adding = edges[self.adding[edges] <= t] if s.slots else edges
        np.maximum.at(top, s.target[adding], self.level[adding])
        filled = np.zeros(self.count, dtype=bool)
        result: list[Call] = []
        for level, based in self.based.items():
            mask = based & (top == level)
            if mask.any():
                result += self.copies(Restore, level, np.flatnonzero(mask))
                filled |= mask
        result += self.sends(edges, filled)
        return tuple(result)

    def prologue(self) -> Iterator[Call]:
        """Yield the calls of the initialization, and of what comes in before the first step."""
        exact, filled = self.plan.exact, np.zeros(self.count, dtype=bool)
        begun = False
        for op in self.plan.prologue:
            if isinstance(op, Write):
                yield from self.gives(op, first=not begun)
            elif isinstance(op, Exchange):
                begun = True
                yield from self.trades((op,))
            elif isinstance(op, Propagate):
                begun = True
                into = exact[self.s.target[op.edges]]
                for part in (True, False):
                    nodes = op.nodes[exact[op.nodes] == part]
                    if len(nodes):
                        filled[nodes] = False
                        yield from self.accumulate(op.edges[into == part], nodes, part, filled)
            elif isinstance(op, Activate):
                yield from (ActivateRows(which, where) for which, where in self.pieces(op.nodes))
        begin = self.plan.begin
        yield from self.accumulate(begin.edges, begin.nodes, True, np.zeros(self.count, dtype=bool))
        if self.plan.measure is not None:
            yield from (MeasureRows(which, where) for which, where in self.pieces(self.plan.measure.nodes))
        if self.plan.request.duals is not None:
            dual = self.by_group_rows(mask_of(self.count, self.plan.duals))
            yield from (BeginDuals(g, where, self.plan.request.duals) for g, where in dual)
        if self.quiet.any():
            yield from (ZeroSignal(g, where) for g, where in self.by_group_rows(self.quiet))

    def gives(self, op: Write, first: bool) -> Iterator[Give]:
        """Yield writes on neighbours.

        The first ones come before the clamps, so that zeros may be written over clamped nodes in between.
        """
        for g, where in self.by_group(op.nodes):
            if first and op.source >= 0 and self.plan.initializers[op.source].writes_zeros:
                start = self.s.groups[g].start
                between = ~self.plan.free[start + where[0] : start + where[-1] + 1]
                between[where - where[0]] = True
                where = np.flatnonzero(between) + where[0]
            for part in _neighbours(where):
                yield Give(op.source, g, slice(int(part[0]), int(part[-1]) + 1))

    # -- steps --------------------------------------------------------------------------------------------------------

    def stage(self, stage: Stage, t: int, final: bool = False) -> Calls:
        """Return the calls of step `t`, or of what follows the last one."""
        compared, shifted = mask_of(self.count, stage.compare.nodes), mask_of(self.count, stage.shift.nodes)
        changing, kept = compared.copy(), []
        for i, (nodes, begun) in self.lasting.items():
            if t >= begun:
                changing[nodes] = False
                start = self.s.groups[self.s.segments[i].group].start
                where = slice(nodes.start - start, nodes.stop - start)
                slope: Literal["keep", "use"] = "keep" if t == begun else "use"
                kept.append(self.errors(i, where, slope, bool(shifted[nodes].any())))
        parts = [(self.pieces(np.flatnonzero(changing & (shifted == dual))), dual) for dual in (False, True)]
        errors = (*kept, *(self.errors(i, where, None, dual) for found, dual in parts for i, where in found))
        forward = tuple(self.evaluation(stage, t)) if t else ()
        if final:
            return Calls(forward, errors)
        moved = mask_of(self.count, stage.move.nodes)
        # What comes back to a ghost begins with nothing, as what comes back to a node without an error.
        empty = (moved | self.returned(stage)) & ~compared
        # Where errors move, nudges come before what is sent back, so that it must not write over them.
        nudged = empty & mask_of(self.count, self.plan.request.nudged)
        if self.at_once:
            nudged[:] = False
        empty &= ~nudged
        untouched = empty.copy()
        back: list[Call] = []
        for op in stage.descent():
            if isinstance(op, Relay):
                back += (RelayRows(which, where) for which, where in self.pieces(op.nodes))
            elif isinstance(op, Exchange):
                back += self.trades((op,))
            elif isinstance(op, Pull):
                back += self.freshened(self.backs(mask_of(len(self.level), op.edges), compared), empty, untouched)
        zero = tuple(ZeroGradient(g, where) for g, where in self.by_group_rows(empty | nudged))
        moves, hold = self.moves(moved & ~self.offset)
        offsets, _ = self.moves(moved & self.offset, errors=True)
        return Calls(forward, errors, zero, (*back, *hold), moves + offsets)

    def errors(self, i: int, where: Rows, slope: Literal["keep", "use"] | None, dual: bool) -> CompareRows:
        """Return the call that takes the errors of these rows of segment `i`."""
        precision = self.plan.precisions(0)[i]
        if i in self.scheduled:
            return CompareRows(i, where, slope, None, dual, scheduled=True)
        if precision is not None:
            precision = precision[numbers(where) - self.s.segments[i].start]
        return CompareRows(i, where, slope, precision, dual)

    def evaluation(self, stage: Stage, t: int) -> Iterator[Call]:
        """Return what is computed anew before step `t`, nodes whose variable is their error wave by wave."""
        for k, (propagate, offset) in enumerate(stage.offsets):
            yield from self.trades(stage.states[k : k + 1])
            yield from self.forward(t, propagate.nodes)
            yield from (OffsetRows(which, where) for which, where in self.pieces(offset.nodes))
        yield from self.trades(stage.states[len(stage.offsets) :])
        whole = stage is self.plan.stage(t) and not stage.offsets
        yield from self.forward(t, None if whole else stage.propagate.nodes)

    def trades(self, exchanges: Iterable[Exchange]) -> Iterator[Trade]:
        """Yield exchanges in which some rank sends something."""
        return (Trade(op) for op in exchanges if not op.idle)

    def returned(self, stage: Stage) -> Mask:
        """Return a mask of the ghosts from which something goes back to their owners."""
        found, part = np.zeros(self.count, dtype=bool), self.plan.part
        if part is not None:
            for op in stage.signals:
                found[op.nodes[op.sender == part.rank]] = True
        return found

    def backs(self, edges: Mask, compared: Mask) -> Iterator[SendBack]:
        """Yield pull calls for the edges in the mask, and for others in between where that makes them neighbours.

        An edge more does no harm where its signal is up to date, or never anything but zero.
        """
        for b, (bucket, kernel) in enumerate(zip(self.s.buckets, self.kernels)):
            hit = np.flatnonzero(edges[bucket.start : bucket.stop]) + bucket.start
            if not len(hit):
                continue
            if kernel.pull_one_by_one:
                yield from (SendBack(b, slice(int(e), int(e) + 1)) for e in hit)
                continue
            low, high = int(hit[0]), int(hit[-1]) + 1
            if kernel.widens and len(hit) * self.traits.widen >= high - low:
                targets = self.s.target[low:high]
                harmless = edges[low:high] | (compared[targets] | ~self.ever[targets] if self.at_once else False)
                if harmless.all():
                    self.quiet[targets[~self.ever[targets]]] = True
                    yield SendBack(b, slice(low, high))
                    continue
            yield SendBack(b, rows(hit))

    def freshened(self, calls: Iterable[SendBack], empty: Mask, untouched: Mask) -> list[SendBack]:
        """Return the calls, of which the first into an `untouched` gradient writes it where its kernel can.

        What is written so need not be zeroed before, and is `empty` no more.
        """
        result = []
        for call in calls:
            sources = self.s.source[numbers(call.edges)]
            fresh = self.kernels[call.bucket].writes and bool(untouched[sources].all())
            if fresh:
                empty[sources] = False
            untouched[sources] = False
            result.append(replace(call, fresh=fresh) if fresh else call)
        return result

    def moves(self, mask: Mask, errors: bool = False) -> tuple[tuple[MoveRows, ...], list[ZeroGradient]]:
        """Return rows that cover the nodes in the mask, and those among them that are not to move."""
        moves: list[MoveRows] = []
        hold: list[ZeroGradient] = []
        for g, where in self.by_group(np.flatnonzero(mask)):
            parts = _neighbours(where)
            width = int(where[-1] - where[0]) + 1
            if len(parts) <= self.traits.pieces:
                moves += [MoveRows(g, rows(part), errors) for part in parts]
            elif self.at_once and self.plan.request.fixes_zero and width <= self.traits.widen * len(where):
                moves.append(MoveRows(g, slice(int(where[0]), int(where[-1]) + 1)))
                hold.append(ZeroGradient(g, np.setdiff1d(np.arange(where[0], where[-1] + 1), where)))
            else:
                moves.append(MoveRows(g, where, errors))
        return tuple(moves), hold

    def lower(self) -> Lowered:
        """Return all calls of the plan."""
        plan = self.plan
        # The step that is repeated keeps no slopes: it comes after the one that does.
        distinct = max([len(plan.stages), *(begun + 2 for _, begun in self.lasting.values())])
        stages = tuple(self.stage(plan.stage(t), t) for t in range(min(plan.steps, distinct)))
        final = self.stage(plan.final, plan.steps, final=True)
        learning = mask_of(len(self.level), plan.learn.edges)
        # A frozen edge between others has a signal as they have, and is not to learn along with them.
        weights = tuple(self.backs(learning, np.zeros(self.count, dtype=bool)))
        biases = tuple(self.by_group_rows(mask_of(self.count, plan.learn.nodes)))
        begun = tuple(begun for _, begun in self.lasting.values())
        return Lowered(tuple(self.prologue()), stages, final, weights, biases, begun)


def _alike(labels: Index) -> Iterator[slice]:
    """Yield slices of neighbours with the same label."""
    if len(labels):
        cuts = np.flatnonzero(np.diff(labels)) + 1
        starts = [0, *cuts.tolist()]
        yield from map(slice, starts, [*starts[1:], len(labels)])


def _neighbours(where: Index) -> list[Index]:
    """Split sorted row numbers into pieces without gaps."""
    return np.split(where, np.flatnonzero(np.diff(where) > 1) + 1)


def lower_stage(plan: Plan, kernels: Sequence[Kernel], traits: Traits, stage: Stage, t: int) -> Calls:
    """Write down the calls of another stage in the place of that of step `t`."""
    return _Lowering(plan, kernels, traits).stage(stage, t)


def kept(plan: Plan, kernels: Sequence[Kernel], traits: Traits) -> int:
    """Count the numbers a sample that are kept of what slower edges contribute."""
    bases = _Lowering(plan, kernels, traits).bases
    return sum(plan.structure.groups[g].size * len(where) for (_, g), where in bases.items())


def lower(plan: Plan, kernels: Sequence[Kernel], traits: Traits) -> Lowered:
    """Write down the calls for a plan, with a kernel for each bucket."""
    return _Lowering(plan, kernels, traits).lower()
