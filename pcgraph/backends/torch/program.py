"""A plan on torch is lists of functions of no arguments, which work on the buffers of a workspace."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import zip_longest
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pcgraph.backends.motion import Motion, Noise
from pcgraph.backends.running import Kind, Program, Which
from pcgraph.backends.settings import keep
from pcgraph.backends.torch import nodes, onednn
from pcgraph.backends.torch.calls import Call, Give, MoveRows, Send, SendBack, Trade, mark, numbers, rows
from pcgraph.backends.torch.gradients import Gradient, bias_gradient
from pcgraph.backends.torch.kernels import Kernel
from pcgraph.backends.torch.lowering import Calls, Lowered, lower_stage
from pcgraph.backends.torch.workspace import Bound, Step, Workspace
from pcgraph.clamps import Clamps
from pcgraph.initializers import Block, Context, is_ours
from pcgraph.optimizers import Following, StateOptimizer, in_place
from pcgraph.plan import Plan
from pcgraph.plan.operations import Write

__all__ = ["TorchProgram"]

T = TypeVar("T")

#: So many steps are kept of those without nodes that have stopped.
FEWER = 256


@dataclass(frozen=True, eq=False)
class Given:
    """An initializer writes these states: a view of them, and what the initializer is told of them."""

    write: Write
    block: Block
    out: Tensor


@dataclass(frozen=True, eq=False)
class Move:
    """The optimizer moves these states: views of them and of their gradients, or their row numbers in a group."""

    group: int
    nodes: np.ndarray[Any, np.dtype[np.int64]]
    states: Tensor
    gradients: Tensor
    where: Tensor | None

    def step(self, optimizer: StateOptimizer, memory: dict[str, Any]) -> None:
        """Move them; those that do not lie beside each other are gathered, and put back."""
        if self.where is None:
            in_place(optimizer.step, self.states, self.states, self.gradients, memory)
            return
        states = self.states.index_select(0, self.where)
        in_place(optimizer.step, states, states, self.gradients.index_select(0, self.where), memory)
        self.states.index_copy_(0, self.where, states)


@dataclass(frozen=True, eq=False)
class _Mask:
    """A partly clamped node keeps its known values, and is free elsewhere.

    `h` and `e` are views of its states and gradients, `mask` is true where `values` holds, `free` is 1 where it does
    not.
    """

    h: Tensor
    e: Tensor
    values: Tensor
    mask: Tensor
    free: Tensor


@dataclass(frozen=True, eq=False)
class Stage:
    """One step runs these functions, part by part."""

    forward: list[Step]
    errors: list[Step]
    clear: list[Step]
    pull: list[Step]
    moves: list[Move]


class TorchProgram(Program):
    """This program is a plan bound to a workspace, which other programs of the same network may share."""

    def __init__(self, plan: Plan, ws: Workspace, lowered: Lowered, kernels: Sequence[Kernel]) -> None:
        super().__init__(plan, ws.net, ws.batch)
        self.ws, self.kernels = ws, kernels
        #: Parts of the graph alone are computed as torch's own feed-forward pass would, to the last bit.
        self._onednn = plan.request.only is None and onednn.serves(ws.device, ws.dtype)
        self._bounds: list[Bound[Any]] = []
        self._lowered = lowered
        self._prologue = self._begin(lowered.prologue)
        self._stages = [self._stage(calls) for calls in lowered.stages]
        self._final = self._stage(lowered.final)
        #: What takes the place of the first errors at the end, while the last step is before one of these.
        self._early = [
            (begun, self._bind(replace(call, slope=None))) for begun, call in zip(lowered.begun, lowered.final.errors)
        ]
        self._refresh = list(dict.fromkeys(step for bound in self._bounds for step in bound.refresh))
        self._learn: list[Gradient] | None = None
        #: What the first of these gradients, each alone, belong to.
        self._packed: list[nn.Parameter | None] = []
        self._squared = self._errors_flat()
        self._now, self._last = plan.steps, -1
        self._masks: list[_Mask] = []
        self._rates: dict[Move, float | Tensor] = {}
        #: Whether nodes have stopped in every sample; and steps without what serves these alone, by step and nodes.
        self._stopped = np.zeros(len(plan.structure.nodes), dtype=bool)
        self._held: list[tuple[Tensor, Tensor]] = []
        self._fewer: dict[tuple[int, bytes], tuple[Stage, list[Step]]] = {}
        self._refreshed: set[tuple[int, bytes]] = set()
        self._rate_sets: dict[Move, dict[tuple[float, ...], Tensor]] = {}

    # -- binding ------------------------------------------------------------------------------------------------------

    def _begin(self, prologue: Iterable[Call]) -> list[Given | Step]:
        return [self._give(call) if isinstance(call, Give) else self._bind(call) for call in prologue]

    def _stage(self, calls: Calls) -> Stage:
        forward, errors, clear, pull = map(self._all, (calls.forward, calls.errors, calls.clear, calls.pull))
        return Stage(forward, errors, clear, pull, [self._move(call) for call in calls.moves])

    def _all(self, calls: Iterable[Call]) -> list[Step]:
        return [self._bind(call) for call in calls]

    def _bind(self, call: Call) -> Step:
        if isinstance(call, Send | SendBack):
            kernel = self.kernels[call.bucket]
            bind: Callable[[Workspace, Any], Step] = kernel.forward if isinstance(call, Send) else kernel.pull
            return self._keep((call.key, kernel.name), lambda: bind(self.ws, call))
        if isinstance(call, Trade):
            return partial(self.trade, call.exchange)
        return self._keep(call.key, lambda: nodes.BIND[type(call)](self.ws, call))

    def _keep(self, key: Hashable, bind: Callable[[], T]) -> T:
        """Return what `bind` makes, or what it made for another program on this workspace."""
        self.ws.onednn = self._onednn
        bound = self.ws.bound((key, self._onednn), bind)
        self._bounds.append(bound)
        return bound.run

    def _give(self, call: Give) -> Given:
        s = self.plan.structure
        group, out = s.groups[call.group], self.ws.h(call.group)[call.rows]
        first, stop = group.start + call.rows.start, group.start + call.rows.stop
        block = Block(s.nodes[first:stop], group.shape, group.name, call.rows.start, call.rows.stop, first)
        write, shape = Write(call.source, np.arange(first, stop)), (stop - first, self.batch, *group.shape)
        return Given(write, block, out.view(shape))

    def _move(self, call: MoveRows) -> Move:
        where = self.ws.index(call.rows)
        h, e = (self.ws.x if call.errors else self.ws.h)(call.group), self.ws.e(call.group)
        members = self.plan.structure.groups[call.group].start + numbers(call.rows)
        if isinstance(where, slice):
            return Move(call.group, members, h[where], e[where], None)
        return Move(call.group, members, h, e, where)

    def _errors_flat(self) -> list[Tensor]:
        """Return the errors at the end, flat.

        There are none where their squares do not say what the energy is.
        """
        found = []
        for call in self._lowered.final.errors:
            segment = self.plan.structure.segments[call.segment]
            if not segment.gaussian or not isinstance(call.rows, slice):
                return []
            found.append(self.ws.e(segment.group)[call.rows].view(-1))
        return found

    def _gradients(self) -> list[Gradient]:
        """Return what computes gradients; it is bound when somebody first learns."""
        if self._learn is not None:
            return self._learn
        ws = self.ws
        by_bucket: dict[int, list[SendBack]] = {b: [] for b in self._learned()}
        for call in self._lowered.weights:
            by_bucket.setdefault(call.bucket, []).append(call)
        self._learn = [self._learner(b, calls) for b, calls in by_bucket.items()]
        names = [self.plan.structure.buckets[b].packed for b in by_bucket]
        self._packed = [None if name is None else ws.net.weights[name] for name in names]
        self._learn += [
            self._keep(("bias", group, mark(which)), partial(bias_gradient, ws, group, which))
            for group, which in self._lowered.biases
        ]
        self._refresh = list(dict.fromkeys(step for bound in self._bounds for step in bound.refresh))
        return self._learn

    def _learned(self) -> list[int]:
        """Return the buckets with packed weights, which get a gradient even where no call adds to it."""
        return [b for b, bucket in enumerate(self.plan.structure.buckets) if bucket.name in self.ws.net.weights]

    def _learner(self, b: int, calls: list[SendBack]) -> Gradient:
        bucket, kernel = self.plan.structure.buckets[b], self.kernels[b]
        bind = kernel.weights
        assert bind is not None
        key = ("learn", b, kernel.name, *(call.key for call in calls))
        return self._keep(key, lambda: bind(self.ws, bucket, calls))

    # -- running ------------------------------------------------------------------------------------------------------

    def start(self, clamps: Clamps, context: Context) -> None:
        """Put a batch into the buffers, and run what comes before the first step.

        Initializers whose writes come first write before the clamps do, since they may write over clamped rows.
        """
        for step in self._refresh:
            step()
        self._masks = [self._mask(i, *pair) for i, pair in clamps.masked.items()]
        self._rates = {}
        self._last = -1
        self._stopped[:] = False
        self._held = []
        self._refreshed.clear()
        fixed = False
        for item in self._prologue:
            if isinstance(item, Given) and item.write.source >= 0 and not is_ours(context.sources[item.write.source]):
                item.out.fill_(math.nan)  # what a user's class leaves out would be states of the batch before
        for item in self._prologue:
            if isinstance(item, Given):
                self.initialize(item.write, item.block, item.out, context)
            else:
                if not fixed:
                    self._fix(clamps)
                    fixed = True
                item()
            if self._masks:
                self._hold()
        if not fixed:
            self._fix(clamps)
        if len(self.plan.duals):
            for i, known in zip(clamps.masked, self._masks):
                g, p = self.plan.structure.place(i)
                self.ws.r(g)[p].mul_(known.free)

    def hold(self, held: Tensor) -> None:
        s = self.plan.structure
        self._held = []
        for g in np.unique(s.group_of[self.plan.stages[-1].move.nodes]).tolist():
            group = s.groups[g]
            own = held[group.start : group.start + group.count].unsqueeze(2)
            self.ws.r(g).masked_fill_(own, 0.0)
            self._held.append((self.ws.e(g), own))
        self._stopped[self.plan.duals] = held.all(1).cpu().numpy()[self.plan.duals]

    def _stage_at(self, t: int) -> Stage:
        """Return step `t`, without what serves nodes alone that have stopped in every sample."""
        t = min(t, len(self._stages) - 1)
        if not self._held:
            return self._stages[t]
        key = t, self._stopped.tobytes()
        if key not in self._fewer:
            stage = self.plan.stage(t).without(self._stopped, self.plan.structure)
            calls = lower_stage(self.plan, self.kernels, self.ws.traits, stage, t)
            bounds, self._bounds = self._bounds, []
            found = self._stage(calls)
            self._fewer[key] = found, list(dict.fromkeys(step for bound in self._bounds for step in bound.refresh))
            self._bounds = bounds
            if len(self._fewer) > FEWER:
                del self._fewer[next(iter(self._fewer))]
        elif key not in self._refreshed:
            for step in self._fewer[key][1]:
                step()
        self._refreshed.add(key)
        return self._fewer[key][0]

    def evaluate(self, t: int) -> None:
        stage = self._stage_at(t)
        self._weigh(t)
        for step in stage.forward:
            step()
        for step in stage.errors:
            step()
        self._now = self._last = t

    def pull(self, t: int, motion: Motion) -> None:
        stage = self._stage_at(t)
        for step in stage.clear:
            step()
        if self.plan.measure is not None:  # what pulls at a state goes on to its parents
            self._nudge(motion)
        for step in stage.pull:
            step()
        if self.plan.measure is None:
            self._nudge(motion)
        for known in self._masks:
            known.e.mul_(known.free)
        for gradients, held in self._held:
            gradients.masked_fill_(held, 0.0)

    def _nudge(self, motion: Motion) -> None:
        for i, (target, strength) in motion.nudges.items():
            g, p = self.plan.structure.place(i)
            self.ws.e(g)[p].add_(self.ws.h(g)[p] - target.reshape(self.batch, -1), alpha=strength)

    def move(self, t: int, motion: Motion) -> None:
        optimizer = motion.optimizer
        assert isinstance(optimizer, StateOptimizer)
        noise = motion.noise
        if noise is None:
            noise = Noise(self.plan.structure, self.plan.stage(t).move.nodes, self.batch, motion.part)
        for k, move in enumerate(self._stages[min(t, len(self._stages) - 1)].moves):
            memory = motion.memories.setdefault((move.group, k), {})
            if move not in self._rates:
                self._rates[move] = self._rate(move, optimizer)
            memory["lr"], memory["step"] = self._rates[move], motion.first_step + t
            memory["noise"] = partial(noise.of, move.nodes)
            move.step(optimizer, memory)
            del memory["noise"]  # it is good for this step alone
        if self._masks and not optimizer.fixes_zero:
            self._hold()

    def _weigh(self, t: int) -> None:
        """Bring the precisions that are others in each step to those of step `t`."""
        for g, table in self._schedules:
            self.ws.p(g).copy_(table[t])

    @cached_property
    def _schedules(self) -> list[tuple[int, Tensor]]:
        """Return (group, precisions (steps + 1, nodes, 1, 1)) where they are others in each step."""
        s, steps = self.plan.structure, self.plan.steps
        found = []
        for g in np.unique(s.group_of[self.plan.scheduled]).tolist():
            table = np.ones((steps + 1, s.groups[g].count))
            for k, segment in enumerate(s.segments):
                for t in range(steps + 1 if segment.group == g else 0):
                    own = self.plan.precisions(t)[k]
                    table[t, segment.start : segment.stop] = 1.0 if own is None else own
            made = torch.from_numpy(table).to(dtype=self.ws.dtype, device=self.ws.device)
            found.append((g, made.view(steps + 1, -1, 1, 1)))
        return found

    def finish(self) -> None:
        self._weigh(self.plan.steps)
        for step in self._final.forward:
            step()
        for k, step in enumerate(self._final.errors):
            if k < len(self._early) and self._last < self._early[k][0]:
                step = self._early[k][1]
            step()
        self._now = self.plan.steps

    def _mask(self, i: int, values: Tensor, mask: Tensor) -> _Mask:
        g, p = self.plan.structure.place(i)
        flat = mask.reshape(self.batch, -1)
        return _Mask(
            self.ws.h(g)[p], self.ws.e(g)[p], values.reshape(self.batch, -1), flat, (~flat).to(self.ws.dtype)
        )  # fmt: skip

    def _hold(self) -> None:
        """Put the known neurons of partly clamped nodes back to their values."""
        for known in self._masks:
            torch.where(known.mask, known.values, known.h, out=known.h)

    def _fix(self, clamps: Clamps) -> None:
        """Put the clamped values in their places, those of one group together where they are many."""
        by_group: dict[int, list[tuple[int, Tensor]]] = {}
        for i, value in clamps.values.items():
            g, p = self.plan.structure.place(i)
            by_group.setdefault(g, []).append((p, value.reshape(self.batch, -1)))
        few: list[tuple[Tensor, Tensor]] = []
        for g, placed in by_group.items():
            h = self.ws.h(g)
            if len(placed) <= self.ws.traits.few_clamps:
                few += [(h[p], value) for p, value in placed]
            else:
                rows = [p for p, _ in placed]
                where = self.ws.constant(("clamped", *rows), partial(torch.tensor, rows))
                h.index_copy_(0, where, torch.stack([value for _, value in placed]))
        small = [(row, value) for row, value in few if row.numel() <= self.ws.traits.small_clamp]
        if len(small) > 1:  # one kernel on a GPU
            torch._foreach_copy_([row for row, _ in small], [value for _, value in small])
            few = [(row, value) for row, value in few if row.numel() > self.ws.traits.small_clamp]
        for row, value in few:
            row.copy_(value)

    def _rate(self, move: Move, optimizer: StateOptimizer) -> float | Tensor:
        if isinstance(optimizer.lr, Following):
            return optimizer.lr.on(self.ws.dtype, self.ws.device)
        if not isinstance(optimizer.lr, dict):
            return optimizer.rate(None)
        free, names = self.plan.free, self.plan.structure.nodes
        known = {i: optimizer.rate(names[i]) for i in move.nodes.tolist() if free[i]}
        some = next(iter(known.values()))
        rates = tuple(known.get(i, some) for i in move.nodes.tolist())
        if len(set(rates)) == 1:
            return rates[0]
        kept = self._rate_sets.setdefault(move, {})
        tensor = kept.pop(rates, None)
        if tensor is None:
            tensor = torch.tensor(rates, dtype=self.ws.dtype, device=self.ws.device).view(-1, 1, 1)
        kept[rates] = keep(tensor)
        if len(kept) > self.ws.traits.rate_sets:
            del kept[next(iter(kept))]
        return tensor

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, which: Which, kind: Kind) -> Tensor:
        g, where = self._place(which)
        shape = (self.batch, *self.plan.structure.groups[g].shape)
        shape = shape if isinstance(which, int) else (-1, *shape)
        if kind == "variable" and self._moves_errors(which):
            return self.ws.x(g)[where].view(shape)
        if kind == "dual":
            return self.ws.dual(g)[where].view(shape)
        if kind == "gradient":
            return self.ws.e(g)[where].view(shape)
        if kind in ("state", "variable"):
            return self.ws.h(g)[where].view(shape)
        compared = self.plan.flow.error(self._now)[which]
        if np.all(compared):
            return self.ws.m(g)[where].view(shape)
        states = self.ws.h(g)[where]
        if np.any(compared):
            mask = torch.from_numpy(compared).to(self.ws.device).view(-1, 1, 1)
            states = torch.where(mask, self.ws.m(g)[where], states)
        return states.view(shape)

    def _place(self, which: Which) -> tuple[int, Any]:
        """Find the group of some nodes, and where they lie in its buffers."""
        g = int(self.plan.structure.group_of[_first(which)])
        start = self.plan.structure.groups[g].start
        if isinstance(which, int):
            return g, which - start
        if isinstance(which, slice):
            return g, slice(which.start - start, which.stop - start)
        at = rows(which - start)
        if isinstance(at, slice):
            return g, at
        return g, self.ws.constant(("read", at.tobytes()), lambda: torch.from_numpy(at))

    def _moves_errors(self, which: Which) -> bool:
        measure = self.plan.measure
        return measure is not None and bool(np.isin(_first(which), measure.nodes))

    def write(self, which: Which, values: Tensor) -> None:
        g, where = self._place(which)
        buffer = self.ws.x(g) if self._moves_errors(which) else self.ws.h(g)
        buffer[where] = values.reshape(-1, *buffer.shape[1:])

    def add(self, which: Which, values: Tensor) -> None:
        g, where = self._place(which)
        own = self.ws.e(g)
        own[where] += values.reshape(-1, *own.shape[1:])

    def finite(self) -> bool:
        """Tell whether the energy is finite.

        Where possible the squared errors say it, in one pass that allocates nothing.
        """
        if self._squared and math.isfinite(float(sum(torch.dot(e, e) for e in self._squared))):
            return True
        return super().finite()

    def gradients(self, scale: float) -> None:
        for _ in self.gradients_in_turn(scale):
            pass

    def gradients_in_turn(self, scale: float) -> Iterator[nn.Parameter]:
        for add, parameter in zip_longest(self._gradients(), self._packed):
            add(scale)
            if parameter is not None and parameter.grad is not None:
                yield parameter
        self.energy_gradients(scale)

    # -- sharing ------------------------------------------------------------------------------------------------------

    @property
    def taken(self) -> bool:
        return self.ws.taken

    def lend(self, reader: object) -> None:
        self.ws.reader = weakref.ref(reader)

    @property
    def recorded(self) -> bool:
        return self.ws.recorded

    @recorded.setter
    def recorded(self, value: bool) -> None:
        self.ws.recorded = value


def _first(which: Which) -> int:
    return which if isinstance(which, int) else int(which.start if isinstance(which, slice) else which[0])
