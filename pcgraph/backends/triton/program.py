"""A program of fused launches: what the kernels know is computed by them, and all else beside them as torch does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pcgraph.backends.motion import Motion
from pcgraph.backends.torch.calls import (
    ActivateRows,
    Call,
    CompareRows,
    Fill,
    Give,
    Restore,
    Rows,
    Save,
    Send,
    SendBack,
    ZeroGradient,
    numbers,
)  # fmt: skip
from pcgraph.backends.torch.gradients import Gradient
from pcgraph.backends.torch.kernels import Kernel
from pcgraph.backends.torch.lowering import Calls, Lowered
from pcgraph.backends.torch.program import Given, Stage, TorchProgram
from pcgraph.backends.torch.workspace import Step, Workspace
from pcgraph.backends.traits import Traits
from pcgraph.backends.triton.descent import Descents
from pcgraph.backends.triton.gradients import Learning
from pcgraph.backends.triton.launches import Predict, PredictScalars, Pull, PullScalars
from pcgraph.backends.triton.means import class_means
from pcgraph.backends.triton.tables import (
    BARE,
    COMPARE,
    ENERGY,
    KEEP,
    OWN,
    SHIFT,
    SWEEP,
    Places,
)  # fmt: skip
from pcgraph.clamps import Clamps
from pcgraph.initializers import Context
from pcgraph.optimizers import Following
from pcgraph.plan import Plan
from pcgraph.plan.flow import Mask
from pcgraph.plan.operations import Index

__all__ = ["TritonProgram"]


@dataclass(frozen=True, eq=False)
class Fused(Stage):
    """A stage with its launches apart: what comes before each, and the launch."""

    before: list[Step]
    predict: list[Predict | PredictScalars]
    back: list[Step]
    release: list[tuple[Index, Pull | PullScalars]]


class TritonProgram(TorchProgram):
    """This program is a plan bound to a workspace, in fused launches as far as the kernels know what it asks for."""

    def __init__(
        self, plan: Plan, ws: Workspace, lowered: Lowered, kernels: Sequence[Kernel], traits: Traits
    ) -> None:  # fmt: skip
        self.plan, self.ws = plan, ws
        key = ("places", *(kernel.name for kernel in kernels))
        if key not in ws.cache:
            ws.cache[key] = Places(ws, tuple(kernels), traits)
        self.places: Places = ws.cache[key]
        self.count = len(plan.structure.nodes)
        #: For each stage, the last one too, the nodes whose incoming sum it or a later one reads as it is in memory.
        self.kept = self._kept(lowered)
        self.duals = self._duals()
        #: The step whose precisions count.
        self._t = 0
        moved = [self._nodes(call.group, call.rows) for stage in lowered.stages for call in stage.moves]
        self.descents = Descents(self.places, plan, moved)
        super().__init__(plan, ws, lowered, kernels)

    # -- which nodes --------------------------------------------------------------------------------------------------

    def _nodes(self, group: int, rows: Rows) -> Index:
        return self.plan.structure.groups[group].start + numbers(rows)

    def _segment_nodes(self, call: CompareRows | ActivateRows) -> Index:
        return self._nodes(self.plan.structure.segments[call.segment].group, call.rows)

    def _own(self, call: CompareRows | ActivateRows) -> bool:
        """Tell whether the kernels do what is done at these nodes."""
        nodes = self._segment_nodes(call)[:1]
        priced = isinstance(call, ActivateRows) or bool((self.places.energy[nodes] >= 0).all())
        return priced and bool((self.places.sigma[nodes] >= 0).all())

    def _kept(self, lowered: Lowered) -> list[tuple[Calls, Mask]]:
        """Find for each stage the nodes whose incoming sum must be in memory from there on.

        That is where a stage reads it as an earlier one left it, or where torch does. A stage may run several times,
        and the last one after any. With duals any sum may be read so: where nodes have stopped, a stage goes without
        what comes from them.
        """
        found, later = [], np.full(self.count, len(self.plan.duals) > 0)
        for stage in (lowered.final, *reversed(lowered.stages)):
            fresh = np.zeros(self.count, dtype=bool)
            for call in stage.forward:
                if isinstance(call, Send):
                    fresh[self.plan.structure.target[numbers(call.edges)]] = True
                elif isinstance(call, Fill | Restore):
                    fresh[self._nodes(call.group, call.rows)] = True
            later = later.copy()
            for errors in stage.errors:
                nodes = self._segment_nodes(errors)
                later[nodes] |= ~fresh[nodes] | (not self._own(errors))
            found.append((stage, later))
        return found[::-1]

    def _duals(self) -> Index:
        """Find where the dual of each node lies, and its rate: addresses, or -1."""
        s, found = self.plan.structure, np.full((self.count, 2), -1)
        for g in np.unique(s.group_of[self.plan.duals]).tolist():
            own = self.plan.duals[s.group_of[self.plan.duals] == g]
            for column, buffer in enumerate((self.ws.dual(g), self.ws.r(g))):
                found[own, column] = self.places.address(s.position[own], buffer)
        return found

    # -- binding ------------------------------------------------------------------------------------------------------

    def _launch(self, kind: type[Any], *tables: Any) -> Any:
        """Bind a launch; one that another program has bound to this workspace serves this one too."""
        key = (kind.__name__, *(None if t is None else (len(t), t.tobytes()) for t in tables))
        return self._keep(key, lambda: kind(self.places, *tables))

    def _forward(
        self, calls: Iterable[Call], flags: Index, kept: Mask, precisions: NDArray[np.float64] | None = None,
        start: Index | None = None, keep: Index | None = None,
    ) -> tuple[list[Step], list[Predict | PredictScalars]]:  # fmt: skip
        """Bind what comes into nodes: first what torch does, then one launch for all else.

        Parameters
        ----------
        calls : iterable of Call
        flags : ndarray of int64, shape (nodes,)
            What the launch does at each node; nodes that get something are in it as well.
        kept : ndarray of bool, shape (nodes,)
            Where what comes in must be in memory afterwards.
        precisions : ndarray of float64, shape (1 or steps + 1, nodes), optional
        start, keep : ndarray of int64, shape (nodes,), optional
            Addresses at which sums have begun, or -1; and where they are kept, if not among what comes in.
        """
        s, places = self.plan.structure, self.places
        started = np.zeros(self.count, dtype=bool) if start is None else start != -1
        start = np.full(self.count, -1) if start is None else start.copy()
        keep = places.a if keep is None else keep
        touched, beside = flags != 0, np.zeros(self.count, dtype=bool)
        steps: list[Step] = []
        given: list[Fill | Restore] = []
        edges: list[Index] = []
        others: list[Send] = []
        for call in calls:
            if isinstance(call, Send) and self.kernels[call.bucket].adds:
                some = numbers(call.edges)
                touched[s.target[some]] = True
                if places.fused[some[0]]:
                    edges.append(some)
                else:
                    others.append(call)
                    beside[s.target[some]] = True
            elif isinstance(call, Restore | Fill) and type(call) is not Save:
                given.append(call)
                touched[self._nodes(call.group, call.rows)] = True
            else:
                steps.append(self._bind(call))
        for i in s.priors:
            beside[i] |= touched[i]
        others, fresh = self._freshened(others, given, touched)
        begun = fresh | started
        for call in given:
            nodes = self._nodes(call.group, call.rows)
            begun[nodes] = True
            steps += self._some(call, beside[nodes] & ~fresh[nodes])
            if isinstance(call, Restore):
                address = places.address(call.at, self.ws.base(call.base, call.size))
                start[nodes[~beside[nodes]]] = address[~beside[nodes]]
        steps += [self._bind(call) for call in others]
        every = np.concatenate(edges) if edges else np.zeros(0, dtype=np.int64)
        # A sum that no call begins goes on from what is there.
        there = beside | (touched & ~begun)
        start[there] = places.a[there]
        flags = np.where(fresh, flags | BARE, flags)
        flags = np.where(touched & ((flags & (COMPARE | SWEEP)) == 0), flags | KEEP, flags)
        flags = np.where(touched & kept & ~(there & ~fresh & self._bare(s.target[every])), flags | KEEP, flags)
        busy = touched & ~(there & ~fresh & self._bare(s.target[every]) & (flags == KEEP))
        launches: list[Predict | PredictScalars] = []
        for kind, nodes in self._kinds(np.flatnonzero(busy), self._bare(s.target[every])):
            own = None if precisions is None or (precisions[:, nodes] == 1.0).all() else precisions[:, nodes]
            duals = np.where((flags[nodes] & SHIFT)[:, None] != 0, self.duals[nodes], -1)
            mine = every[np.isin(s.target[every], nodes)]
            which = PredictScalars if kind >= 0 else Predict
            launches.append(self._launch(which, nodes, flags[nodes], start[nodes], keep[nodes], mine, own, duals))
        return steps, launches

    def _freshened(
        self, sends: list[Send], given: Sequence[Fill | Restore], touched: Mask
    ) -> tuple[list[Send], Mask]:  # fmt: skip
        """Let the first product into nodes that begin with a bias be written, not added; the launch adds the bias.

        Returns
        -------
        list of Send
        ndarray of bool
            The nodes into which one is written.
        """
        s, filled = self.plan.structure, np.zeros(self.count, dtype=bool)
        for fill in given:
            if type(fill) is Fill:
                filled[self._nodes(fill.group, fill.rows)] = True
        filled[list(s.priors)] = False
        fresh, seen = np.zeros(self.count, dtype=bool), np.zeros(self.count, dtype=bool)
        result: list[Send] = []
        for call in sends:
            targets = s.target[numbers(call.edges)]
            dense = self.kernels[call.bucket].name in ("dense", "batched")
            first = dense and filled[targets].all() and not seen[targets].any() and (np.diff(targets) > 0).all()
            seen[targets] = True
            if first:
                fresh[targets] = True
                call = replace(call, fresh=True, bare=True)
            result.append(call)
        return result, fresh

    def _kinds(self, nodes: Index, bare: Mask, by_sigma: bool = True) -> Iterator[tuple[int, Index]]:
        """Split nodes by launch: -1 those that are tiled, and from 0 on those whose neurons go one by one.

        The latter are apart by activation, and by whether a node has one neuron. Those that are tiled and `bare` of
        edges have a launch of their own, -2, if they are many: it multiplies nothing, so that a card holds more of its
        programs at a time.
        """
        places = self.places
        each = 2 * (places.sigma[nodes].clip(0) if by_sigma else 0) + (places.size[nodes] != 1)
        kind = np.where(places.alone[nodes], each, -1)
        plain = (kind == -1) & bare[nodes]
        if places.size[nodes[plain]].sum() * places.batch >= places.traits.plain_numbers:
            kind[plain] = -2
        for k in np.unique(kind):
            yield int(k), nodes[kind == k]

    def _bare(self, met: Index) -> Mask:
        """Return the nodes that are none of those which some edges meet."""
        bare = np.ones(self.count, dtype=bool)
        bare[met] = False
        return bare

    def _some(self, call: Any, which: Mask) -> list[Step]:
        """Bind a call for some of its rows."""
        if which.all():
            return [self._bind(call)]
        if not which.any():
            return []
        some = replace(call, rows=numbers(call.rows)[which])
        return [self._bind(replace(some, at=numbers(call.at)[which]) if isinstance(call, Restore) else some)]

    def _begin(self, prologue: Iterable[Call]) -> list[Given | Step]:
        """Bind the initialization, a launch for each wave of a sweep."""
        done: list[Given | Step] = []
        wave: list[Call] = []
        swept: list[ActivateRows] = []

        def flush() -> None:
            if wave or swept:
                done.extend(self._wave(wave, swept))
                wave.clear()
                swept.clear()

        for call in prologue:
            if isinstance(call, ActivateRows):
                swept.append(call)
                continue
            if swept or not isinstance(call, Fill | Save | Send):
                flush()
            if isinstance(call, Fill | Save | Send):
                wave.append(call)
            else:
                done.append(self._give(call) if isinstance(call, Give) else self._bind(call))
        flush()
        return done

    def _wave(self, calls: list[Call], swept: list[ActivateRows]) -> list[Step]:
        """Bind one wave: its sums, and the states that become their activations.

        What is kept of a sum is written by a launch of its own, straight to where it is kept.
        """
        s, saved, kept = self.plan.structure, np.zeros(self.count, dtype=bool), self.kept[0][1]
        flags, start = np.zeros(self.count, dtype=np.int64), np.full(self.count, -1)
        for call in calls:
            if isinstance(call, Save):
                saved[self._nodes(call.group, call.rows)] = True
        aside = [call for call in calls if isinstance(call, Send) and not self.places.fused[numbers(call.edges)[0]]]
        if any(saved[s.target[numbers(call.edges)]].any() for call in aside):
            return [self._bind(call) for call in (*calls, *swept)]
        steps: list[Step] = []
        parts: list[tuple[list[Call], list[Save]]] = [([], [])]
        for call in calls:
            if isinstance(call, Save):
                parts[-1][1].append(call)
            else:
                if parts[-1][1]:
                    parts.append(([], []))
                parts[-1][0].append(call)
        for call in swept:
            flags[self._segment_nodes(call)] = SWEEP if self._own(call) else KEEP
        if parts[-1][1]:
            parts.append(([], []))
        for sums, saves in parts:
            keep, mine = self.places.a.copy(), flags if not saves else np.zeros(self.count, dtype=np.int64)
            for save in saves:
                nodes = self._nodes(save.group, save.rows)
                keep[nodes], mine[nodes] = self.places.address(save.at, self.ws.base(save.base, save.size)), KEEP
            if saves is parts[-1][1]:
                mine = np.where((start != -1) & kept, mine | KEEP, mine)
            before, launches = self._forward(sums, mine, kept, start=start, keep=keep)
            steps += [*before, *(partial(launch, show=False) for launch in launches)]
            for save in saves:
                nodes = self._nodes(save.group, save.rows)
                start[nodes] = keep[nodes]
        return steps + [self._bind(call) for call in swept if not self._own(call)]

    def _stage(self, calls: Calls) -> Fused:
        s = self.plan.structure
        flags, precisions = np.zeros(self.count, dtype=np.int64), self._precisions(calls)
        compared = np.zeros(self.count, dtype=bool)
        beside = [call for call in calls.errors if not self._own(call)]
        for call in calls.errors:
            nodes = self._segment_nodes(call)
            compared[nodes] = True
            fused = COMPARE | (SHIFT if call.dual else 0) | (self.places.energy[nodes] << ENERGY)
            flags[nodes] = fused if self._own(call) else KEEP
        # A stage without what serves stopped nodes is none of these.
        kept = next((mask for stage, mask in self.kept if stage is calls), self.kept[0][1])
        before, predict = self._forward(calls.forward, flags, kept, precisions)
        forward: list[Step] = [*before, *(self._shown(launch) for launch in predict)]
        errors = self._all(beside)

        mixed = np.zeros(self.count, dtype=bool)
        others: list[Call] = []
        edges: list[Index] = []
        for back in calls.pull:
            if isinstance(back, SendBack) and self.places.fused[numbers(back.edges)[0]]:
                edges.append(numbers(back.edges))
                continue
            others.append(back)
            if isinstance(back, SendBack):
                mixed[s.source[numbers(back.edges)]] = True
        clear = [step for call in calls.clear for step in self._clear(call, mixed)]
        moved = [self._nodes(call.group, call.rows) for call in calls.moves]
        nodes = np.concatenate(moved) if moved else np.zeros(0, dtype=np.int64)
        every = np.concatenate(edges) if edges else np.zeros(0, dtype=np.int64)
        aside = self._all(others)
        release: list[tuple[Index, Pull | PullScalars]] = []
        own = np.where(compared | mixed, OWN, 0)
        place = np.zeros(self.count, dtype=np.int64)
        place[nodes] = np.arange(len(nodes))
        for kind, some in self._kinds(nodes, self._bare(s.source[every]), by_sigma=False):
            mine = every[np.isin(s.source[every], some)]
            launch = self._launch(PullScalars if kind >= 0 else Pull, some, own[some], mine, self.descents.spots[some])
            release.append((place[some][self.places.neurons(some)[0]] if kind >= 0 else place[some], launch))
        pulled: list[Step] = [*aside, *(partial(launch, None) for _, launch in release)]
        moves = [self._move(call) for call in calls.moves]
        return Fused(forward, errors, clear, pulled, moves, before, predict, aside, release)

    def _shown(self, launch: Predict | PredictScalars) -> Step:
        return lambda: launch(show=True, t=self._t)

    def _precisions(self, calls: Calls) -> NDArray[np.float64]:
        """Return how much the error of each node counts, (1, nodes), or where that changes (steps + 1, nodes)."""
        scheduled = [call for call in calls.errors if call.scheduled]
        found = np.ones((self.plan.steps + 1 if scheduled else 1, self.count))
        for call in calls.errors:
            if call.precision is not None:
                found[:, self._segment_nodes(call)] = call.precision
        for call in scheduled:
            segment = self.plan.structure.segments[call.segment]
            for t, row in enumerate(found):
                own = self.plan.precisions(t)[call.segment]
                row[self._segment_nodes(call)] = 1.0 if own is None else own[numbers(call.rows) - segment.start]
        return found

    def _weigh(self, t: int) -> None:
        super()._weigh(t)
        self._t = t

    def _clear(self, call: Call, mixed: Mask) -> list[Step]:
        assert isinstance(call, ZeroGradient)
        return self._some(call, mixed[self._nodes(call.group, call.rows)])

    # -- running ------------------------------------------------------------------------------------------------------

    def step(self, t: int, motion: Motion) -> None:
        """Take a step in two launches, where nothing moves states but a descent that the kernels know."""
        stage = self._stages[min(t, len(self._stages) - 1)]
        assert isinstance(stage, Fused)
        self._weigh(t)
        for step in stage.before:
            step()
        for predict in stage.predict:
            predict(show=False, t=t)
        for step in stage.errors:
            step()
        self._now = self._last = t
        descent = None if motion.nudges else self.descents.of(t, motion)
        if descent is None:
            self.pull(t, motion)
            self.move(t, motion)
            return
        for step in (*stage.clear, *stage.back):
            step()
        for rates, (_, release) in zip(self._rates_of(stage, motion.optimizer), stage.release):
            release(descent, rates)

    def start(self, clamps: Clamps, context: Context) -> None:
        super().start(clamps, context)
        self.descents.free((i, known.free) for i, known in zip(clamps.masked, self._masks))

    def _rates_of(self, stage: Fused, optimizer: Any) -> list[Tensor]:
        """Return the rates of the nodes of each launch, or one for all where it follows the curvature."""
        if isinstance(optimizer.lr, Following):
            return [optimizer.lr.on(self.ws.dtype, self.ws.device)] * len(stage.release)
        for move in stage.moves:
            if move not in self._rates:
                self._rates[move] = self._rate(move, optimizer)
        rates = [(self._rates[move], len(move.nodes)) for move in stage.moves]
        return self.descents.rates(stage, rates, [place for place, _ in stage.release])

    def _learned(self) -> list[int]:
        return [b for b in super()._learned() if b not in self.places.buckets]

    def class_means(self, group: int, onehot: Tensor, means: Tensor) -> bool:
        states = self.ws.h(group)
        alike = all(t.dtype == states.dtype and t.device == states.device for t in (onehot, means))
        if not alike or not onehot.is_contiguous() or not means.is_contiguous():
            return False
        class_means(states, onehot, means)
        return True

    # -- learning -----------------------------------------------------------------------------------------------------

    def _gradients(self) -> list[Gradient]:
        if self._learn is None:
            fused = set(self.places.buckets)
            whole = self._lowered
            mine = [call for call in whole.weights if call.bucket in fused]
            shared = list(self.plan.structure.shared_biases)
            alone: list[list[tuple[int, Rows]]] = [[], []]
            for g, rows in whole.biases:
                few = np.isin(self._nodes(g, rows), shared)
                for part, which in zip(alone, (~few, few)):
                    part += [(g, numbers(rows)[which])] if which.any() else []
            weights = tuple(call for call in whole.weights if call.bucket not in fused)
            self._lowered = replace(whole, weights=weights, biases=tuple(alone[1]))
            super()._gradients()
            self._lowered = whole
            assert self._learn is not None
            self._learn.append(self._keep(
                ("learn", id(self)), lambda: Learning(self.places, mine, alone[0])
            ))  # fmt: skip
        return self._learn
