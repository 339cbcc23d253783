"""From structure + clamps + initializer + steps to a plan: which operation follows which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pcgraph.errors import InvalidInitializer
from pcgraph.initializers import Given, Initializer, Layout
from pcgraph.network import Structure
from pcgraph.plan import operations
from pcgraph.plan.choice import check_pins, choose
from pcgraph.plan.flow import NEVER, Adjacency, Flow, Mask, flow
from pcgraph.plan.operations import (
    Activate,
    Errors,
    Fill,
    Forward,
    Index,
    Operation,
    Pull,
    Restore,
    Rows,
    Save,
    Write,
    ZeroGradient,
    rows,
)  # fmt: skip

__all__ = ["Request", "Stage", "compile_plan"]

#: The number of no initializer: a swept root without a prior, which nothing reads, is zero.
NOTHING = -1
#: A bucket's edges are widened to the neighbours between them where that adds at most a quarter.
WIDEN = 1.25
#: Nodes that are more than this part of all are looked for among all edges.
MANY = 0.125
#: Rows of a run that fall into more pieces than this are gathered instead.
PIECES = 4
#: Nodes of fewer neurons are too small for predictions that do not change to be worth an operation of their own.
WIDE = 256


@dataclass(frozen=True)
class Request:
    """What a plan is for.

    Attributes
    ----------
    clamped, masked : frozenset of int
        Canonical numbers of the nodes that are known wholly, and in part.
    layout : Layout
    steps : int
    fixes_zero, stateless : bool
        Of the state optimizer: a zero gradient moves nothing; nothing is remembered between steps.
    nudged : frozenset of int
        Free nodes that a cost pulls at from outside.
    all_move : bool
        Hand every free node to the state optimizer in every step, if only with a zero gradient, so that what it
        remembers can be carried on to another run.
    only : frozenset of int or None
        Free nodes that matter; None for all. The others and their energies do not exist for the run.
    device : str
    pins : tuple of (bucket name, kernel)
    """

    clamped: frozenset[int]
    masked: frozenset[int]
    layout: Layout
    steps: int
    fixes_zero: bool = True
    stateless: bool = True
    nudged: frozenset[int] = frozenset()
    all_move: bool = False
    only: frozenset[int] | None = None
    device: str = "cpu"
    pins: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Stage:
    """One inference step: `forward` on what has moved, `errors`, then gradients and the move itself.

    `zero` clears the gradient of nodes that have none of their own before their children's is added (`pull`), unless
    the first of these writes it; `hold` clears that of nodes which lie between those that move, so that all of them can
    move as one slice.
    """

    forward: tuple[Operation, ...]
    errors: tuple[Errors, ...]
    zero: tuple[ZeroGradient, ...] = ()
    pull: tuple[Pull, ...] = ()
    hold: tuple[ZeroGradient, ...] = ()
    moves: tuple[tuple[int, Rows], ...] = ()


@dataclass
class Parts:
    """What the compiler hands to the plan."""

    flow: Flow
    initializers: tuple[Initializer, ...] = ()
    prologue: tuple[Operation, ...] = ()
    stages: tuple[Stage, ...] = ()
    final: Stage = field(default_factory=lambda: Stage((), ()))
    weights: tuple[Pull, ...] = ()
    biases: tuple[tuple[int, Rows], ...] = ()
    bases: dict[tuple[int, int], Index] = field(default_factory=dict)
    kernels: tuple[str, ...] = ()
    free: Mask = field(default_factory=lambda: np.zeros(0, dtype=bool))
    exact: Mask = field(default_factory=lambda: np.zeros(0, dtype=bool))
    waves: int = 0
    sweep_depth: int = 0


class _Compiler:
    def __init__(self, structure: Structure, request: Request) -> None:
        self.s, self.r = structure, request
        n = len(structure.nodes)
        clamped = np.zeros(n, dtype=bool)
        clamped[list(request.clamped)] = True
        self.masked = np.zeros(n, dtype=bool)
        self.masked[list(request.masked)] = True
        self.only = np.ones(n, dtype=bool)
        if request.only is not None:
            self.only[:] = False
            self.only[list(request.only)] = True
        self.free = ~clamped & self.only
        self.alive = structure.has_energy & self.only
        pins = dict(request.pins)
        check_pins(structure, pins)
        self.kernels = tuple(choose(structure, b, request.device, pins) for b in structure.buckets)
        self.vanishes = np.ones(n, dtype=bool)
        for run in structure.runs:
            if run.energy is not None and not run.energy.zero_at_prediction:
                start = structure.groups[run.group].start
                self.vanishes[start + run.start : start + run.stop] = False
        self.by_target = Adjacency(structure.target, n)
        self.by_source = Adjacency(structure.source, n)
        self.run_of = np.repeat(np.arange(len(structure.runs)), [run.stop - run.start for run in structure.runs])
        self.initializers: list[Initializer] = []
        self.waves = 0
        self.sweep_depth = 0

    # -- what the initialization leaves behind ----------------------------------------------------------------------

    def actions(self) -> list[tuple[int | None, Index]]:
        """(initializer index or None for a sweep, canonical numbers) in order, free relevant nodes only."""
        result: list[tuple[int | None, Index]] = []
        for action in self.r.layout.actions:
            numbers = np.array([self.s.number[n] for n in action.nodes], dtype=np.int64)
            numbers = numbers[self.free[numbers]] if len(numbers) else numbers
            which = None
            if isinstance(action, Given):
                if not any(i is action.source for i in self.initializers):
                    self.initializers.append(action.source)
                which = next(k for k, i in enumerate(self.initializers) if i is action.source)
            if len(numbers):
                result.append((which, numbers))
        priors = np.array([i for i in self.s.priors if self.free[i]], dtype=np.int64)
        named = np.concatenate([numbers for _, numbers in result]) if result else priors[:0]
        priors = np.sort(np.setdiff1d(priors, named))
        return [(None, priors), *result] if len(priors) else result

    def outcome(self, actions: Sequence[tuple[int | None, Index]]) -> None:
        """`exact`: swept and left alone; `zero`: only ever written by an initializer of zeros."""
        n = len(self.s.nodes)
        written = np.full(n, -1)
        swept, self.zero = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        first = np.full(n, True)
        for position, (which, numbers) in enumerate(actions):
            swept[numbers] = which is None
            zeros = which is not None and self.initializers[which].writes_zeros
            self.zero[numbers] = zeros & (first[numbers] | self.zero[numbers])
            first[numbers] = False
            written[numbers] = position
        missing = self.free & (written < 0)
        if missing.any():
            names = [self.s.nodes[i] for i in np.flatnonzero(missing)[:5]]
            raise InvalidInitializer(
                f"the initializer leaves {int(missing.sum())} free nodes without a value ({', '.join(map(repr, names))}"
                f"{', ...' if missing.sum() > 5 else ''}); its layout must name every free node"
            )
        late = np.zeros(n, dtype=bool)
        np.logical_or.at(late, self.s.target, written[self.s.source] > written[self.s.target])
        self.exact = swept & ~late & ~self.masked & self.vanishes & self.alive
        self.exact[list(self.r.nudged)] = False
        self.zero &= ~self.masked

    def levels(self, moved: Flow) -> None:
        """`level[e]`: the first step before which edge e is computed anew."""
        first = np.full(len(self.s.nodes), NEVER)
        for t in range(len(moved.moves) - 1, -1, -1):
            first[moved.moves[t]] = t + 1
        self.level: Index = first[self.s.source]
        for bucket, kernel in zip(self.s.buckets, self.kernels):
            if kernel in ("batched", "sparse"):
                level = self.level[bucket.start : bucket.stop]
                for t in np.unique(level[level != NEVER]):
                    hit = np.flatnonzero(level <= t)
                    low, high = int(hit[0]), int(hit[-1]) + 1
                    if len(hit) * WIDEN >= high - low:
                        np.minimum(level[low:high], t, out=level[low:high])

    def constants(self, moved: Flow) -> Iterator[tuple[int, Index, int]]:
        """(run, nodes, t): nodes of a run beside each other whose input never changes, and whose errors begin at `t`.

        Their prediction and its derivative are computed once.
        """
        s, last = self.s, len(moved.moves)
        fixed = moved.error(last) & ~s.is_root
        fixed[s.target[self.level != NEVER]] = False
        for i, run in enumerate(s.runs):
            start, size = s.groups[run.group].start, s.groups[run.group].size
            nodes = np.flatnonzero(fixed[start + run.start : start + run.stop]) + start + run.start
            sigma = run.activation
            if not len(nodes) or size < WIDE or not run.gaussian or not sigma.named or sigma.is_identity:
                continue
            begun = [int(moved.error(t)[nodes].sum()) for t in range(last + 1)]
            at = next(t for t in range(last + 1) if begun[t])
            if begun[at] == len(nodes) == nodes[-1] - nodes[0] + 1 and at < self.r.steps:
                yield i, nodes, at

    def provably_zero(self) -> Mask:
        """Edges that carry nothing before the first move: a zero state through a linear map."""
        result = self.zero[self.s.source]
        for bucket in self.s.buckets:
            if bucket.kind == "module" or bucket.phi.at_zero != 0.0:
                result[bucket.start : bucket.stop] = False
        return result

    def plan_bases(self) -> dict[tuple[int, int], Index]:
        """Which nodes need, at which level, a copy of what their slower edges contribute."""
        s, level = self.s, self.level
        highest = np.full(len(s.nodes), -1)
        np.maximum.at(highest, s.target[~self.silent], level[~self.silent])
        self.based: dict[int, Mask] = {}
        bases: dict[tuple[int, int], Index] = {}
        for t in np.unique(level[level != NEVER]):
            mask = np.zeros(len(s.nodes), dtype=bool)
            mask[s.target[level == t]] = True
            mask &= highest > t
            if mask.any():
                self.based[int(t)] = mask
                bases.update(((int(t), g), where) for g, where in self.by_group(np.flatnonzero(mask)))
        self.bases = bases
        return bases

    # -- emitting ---------------------------------------------------------------------------------------------------

    def by_group(self, nodes: Index) -> Iterator[tuple[int, Index]]:
        """(group, positions) of nodes, sorted by number."""
        group_of, position = self.s.group_of[nodes], self.s.position[nodes]
        for part in _alike(group_of):
            yield int(group_of[part.start]), position[part]

    def copies(self, kind: type[Save] | type[Restore], t: int, nodes: Index) -> Iterator[Operation]:
        for g, where in self.by_group(nodes):
            yield kind((t, g), g, rows(where), rows(np.searchsorted(self.bases[t, g], where)))

    def products(self, edges: Index, filled: Mask) -> Iterator[Operation]:
        """Forward operations for `edges` (sorted); marks their targets as filled."""
        s = self.s
        for same in _alike(s.bucket_of[edges]):
            part = edges[same]
            b = int(s.bucket_of[part[0]])
            kernel = self.kernels[b]
            if kernel == "dense":
                for e in part:
                    v = s.target[e]
                    yield Forward(b, kernel, slice(int(e), int(e) + 1), not filled[v])
                    filled[v] = True
                continue
            targets = s.target[part]
            empty = ~filled[targets]
            fresh = kernel == "batched" and bool(empty.all()) and bool((np.diff(targets) > 0).all())
            if not fresh and empty.any():
                for g, where in self.by_group(np.unique(targets[empty])):
                    yield Fill(g, rows(where))
            filled[targets] = True
            yield Forward(b, kernel, rows(part), fresh)

    def accumulate(self, nodes: Index, keep: bool, filled: Mask) -> Iterator[Operation]:
        """Everything that comes into `nodes` before the first move; slowest edges first, so that bases can be kept."""
        s = self.s
        if len(nodes) > MANY * len(s.nodes):
            wanted = np.zeros(len(s.nodes), dtype=bool)
            wanted[nodes] = True
            edges = np.flatnonzero(wanted[s.target])
        else:
            edges = self.by_target.edges(nodes)
        level = self.level[edges] if keep else np.full(len(edges), NEVER)
        for t in np.unique(level)[::-1]:
            if t != NEVER and int(t) in self.based:
                yield from self.copies(Save, int(t), nodes[self.based[int(t)][nodes]])
            part = edges[(level == t) & ~self.silent[edges]]
            yield from self.products(part, filled)
        for g, where in self.by_group(nodes[~filled[nodes]]):
            yield Fill(g, rows(where))

    def sweep(self, numbers: Index) -> Iterator[Operation]:
        """Waves of nodes whose swept parents all lie in earlier waves."""
        s = self.s
        pending = np.zeros(len(s.nodes), dtype=bool)
        pending[numbers] = True
        missing = np.bincount(s.target[pending[s.source]], minlength=len(s.nodes))
        frontier = np.sort(numbers[missing[numbers] == 0])
        filled = np.zeros(len(s.nodes), dtype=bool)
        done = depth = 0
        while len(frontier):
            self.waves += 1
            depth += bool((~s.is_root[frontier]).any())
            done += len(frontier)
            predicted, exact = s.has_energy[frontier], self.exact[frontier]
            yield from self.writes(NOTHING, frontier[~predicted])
            yield from self.accumulate(frontier[predicted & exact], True, filled)
            yield from self.accumulate(frontier[predicted & ~exact], False, filled)
            for which, where in self.pieces(frontier[predicted]):
                yield Activate(which, where)
            children = s.target[self.by_source.edges(frontier)]
            np.subtract.at(missing, children, 1)
            children = np.unique(children)
            frontier = children[(missing[children] == 0) & pending[children]]
        self.sweep_depth = max(self.sweep_depth, depth)
        if done != len(numbers):
            raise InvalidInitializer("the initializer's layout sweeps nodes that lie on a cycle of swept nodes")

    def pieces(self, nodes: Index) -> Iterator[tuple[int, Rows]]:
        """(run, rows) that cover nodes, sorted by number: slices where few suffice, else row numbers."""
        run_of, position = self.run_of[nodes], self.s.position[nodes]
        for same in _alike(run_of):
            where = position[same]
            parts = np.split(where, np.flatnonzero(np.diff(where) > 1) + 1)
            for part in parts if len(parts) <= PIECES else [where]:
                yield int(run_of[same.start]), rows(part)

    def moves(self, mask: Mask) -> tuple[tuple[tuple[int, Rows], ...], tuple[ZeroGradient, ...]]:
        """Rows that cover the nodes in the mask, and those among them that are not to move."""
        moves: list[tuple[int, Rows]] = []
        hold: list[ZeroGradient] = []
        for g, where in self.by_group(np.flatnonzero(mask)):
            parts = np.split(where, np.flatnonzero(np.diff(where) > 1) + 1)
            width = int(where[-1] - where[0]) + 1
            if len(parts) <= PIECES:
                moves += [(g, rows(part)) for part in parts]
            elif self.r.fixes_zero and width <= WIDEN * len(where):
                moves.append((g, slice(int(where[0]), int(where[-1]) + 1)))
                hold.append(ZeroGradient(g, np.setdiff1d(np.arange(where[0], where[-1] + 1), where)))
            else:
                moves.append((g, where))
        return tuple(moves), tuple(hold)

    def calls(self, edges: Mask, harmless: Mask) -> Iterator[Pull]:
        """Pull operations for the edges in the mask, and for `harmless` ones where that makes them neighbours."""
        for b, (bucket, kernel) in enumerate(zip(self.s.buckets, self.kernels)):
            hit = np.flatnonzero(edges[bucket.start : bucket.stop]) + bucket.start
            if not len(hit):
                continue
            if kernel in ("dense", "module", "entries"):
                yield from (Pull(b, kernel, slice(int(e), int(e) + 1)) for e in hit)
                continue
            low, high = int(hit[0]), int(hit[-1]) + 1
            wide = kernel in ("batched", "sparse") and len(hit) * WIDEN >= high - low
            wide = wide and bool((edges | harmless)[low:high].all())
            yield Pull(b, kernel, slice(low, high) if wide else rows(hit))

    def freshened(self, calls: Iterator[Pull], empty: Mask) -> tuple[Pull, ...]:
        """The calls, the first one into an `empty` gradient writing it where its kernel can; marks those as filled."""
        untouched, result = empty.copy(), []
        for call in calls:
            sources = self.s.source[operations.numbers(call.edges)]
            fresh = call.kernel == "dense" and bool(untouched[sources].all())
            if fresh:
                empty[sources] = False
            untouched[sources] = False
            result.append(replace(call, fresh=fresh))
        return tuple(result)

    # -- stages -----------------------------------------------------------------------------------------------------

    def forward(self, t: int) -> tuple[Operation, ...]:
        """What is computed anew before step `t` (or, for t == steps, after the last one)."""
        s = self.s
        edges = np.flatnonzero(self.level <= t)
        top = np.full(len(s.nodes), -1)
        np.maximum.at(top, s.target[edges], self.level[edges])
        filled = np.zeros(len(s.nodes), dtype=bool)
        result: list[Operation] = []
        for level, based in self.based.items():
            mask = based & (top == level)
            if mask.any():
                result += self.copies(Restore, level, np.flatnonzero(mask))
                filled |= mask
        result += self.products(edges, filled)
        return tuple(result)

    def stage(self, moved: Flow, t: int, last: bool) -> Stage:
        z = moved.error(t)
        changing, kept = z.copy(), []
        for i, nodes, begun in self.fixed:
            if t >= begun:
                changing[nodes] = False
                kept.append(Errors(i, rows(self.s.position[nodes]), "keep" if t == begun else "use"))
        errors = (*kept, *(Errors(i, where) for i, where in self.pieces(np.flatnonzero(changing))))
        forward = self.forward(t) if t else ()
        if last:
            return Stage(forward, errors)
        d = self.free if self.r.all_move else moved.move(t) if self.r.stateless else moved.moves[-1]
        # An edge more does no harm where its signal is up to date, or never anything but zero.
        harmless = (z | ~moved.errors[-1])[self.s.target]
        empty = d & ~z
        pull = self.freshened(self.calls(z[self.s.target] & self.free[self.s.source], harmless), empty)
        zero = tuple(ZeroGradient(g, where) for g, where in self.by_group_rows(empty))
        moves, hold = self.moves(d)
        return Stage(forward, errors, zero, pull, hold, moves)

    def by_group_rows(self, mask: Mask) -> Iterator[tuple[int, Rows]]:
        return ((g, rows(where)) for g, where in self.by_group(np.flatnonzero(mask)))

    def compile(self) -> Parts:
        s, r = self.s, self.r
        actions = self.actions()
        self.outcome(actions)
        steps = r.steps
        pulled = np.zeros(len(s.nodes), dtype=bool)
        pulled[list(r.nudged)] = True
        moved = flow(s, self.alive, self.free, self.exact, pulled & self.free, steps, r.fixes_zero)
        self.levels(moved)
        self.fixed = tuple(self.constants(moved))
        self.silent = self.provably_zero()
        parts = Parts(moved, bases=self.plan_bases(), kernels=self.kernels, free=self.free, exact=self.exact)
        prologue: list[Operation] = []
        swept = False
        for which, numbers in actions:
            if which is None:
                before = len(prologue)
                prologue += self.sweep(numbers)
                swept = swept or not all(isinstance(op, Write) for op in prologue[before:])
            else:
                prologue += self.writes(which, np.unique(numbers), first=not swept)
        late = np.flatnonzero(self.alive & ~self.exact)
        prologue += self.accumulate(late, True, np.zeros(len(s.nodes), dtype=bool))
        # The step that is repeated keeps no slopes.
        last = max([len(moved.moves), *(begun + 1 for _, _, begun in self.fixed)])
        parts.stages = tuple(self.stage(moved, t, False) for t in range(min(steps, last + 1)))
        parts.final = self.stage(moved, min(steps, last), True)
        self.learn(parts, moved.error(steps))
        parts.prologue = tuple(prologue)
        parts.initializers = tuple(self.initializers)
        parts.waves, parts.sweep_depth = self.waves, self.sweep_depth
        return parts

    def writes(self, which: int, nodes: Index, first: bool = False) -> Iterator[Write]:
        """Write operations on nodes, sorted by number.

        The first ones come before the clamps, so that zeros may be written over clamped nodes in between.
        """
        for g, where in self.by_group(nodes):
            if first and self.initializers[which].writes_zeros:
                start = self.s.groups[g].start
                between = ~self.free[start + where[0] : start + where[-1] + 1]
                between[where - where[0]] = True
                where = np.flatnonzero(between) + where[0]
            for part in np.split(where, np.flatnonzero(np.diff(where) > 1) + 1):
                yield Write(which, g, slice(int(part[0]), int(part[-1]) + 1))

    def learn(self, parts: Parts, z: Mask) -> None:
        trainable = np.zeros(len(self.s.source), dtype=bool)
        for bucket in self.s.buckets:
            trainable[bucket.start : bucket.stop] = bucket.trainable and bucket.kind != "identity"
        parts.weights = tuple(self.calls(z[self.s.target] & trainable, np.ones(len(trainable), dtype=bool)))
        parts.biases = tuple(self.by_group_rows(z & self.s.has_bias))


def _alike(labels: Index) -> Iterator[slice]:
    """Neighbours with the same label."""
    if len(labels):
        cuts = np.flatnonzero(np.diff(labels)) + 1
        starts = [0, *cuts.tolist()]
        yield from map(slice, starts, [*starts[1:], len(labels)])


def compile_plan(structure: Structure, request: Request) -> Parts:
    """Run the compiler."""
    return _Compiler(structure, request).compile()


def pins_of(pins: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """A hashable form of pins."""
    return tuple(sorted((pins or {}).items()))
