"""Inference: a plan run on a batch (paper, Eq 3 with its sign and transpose corrected).

    h_u <- h_u - lr * ( 1[u in V_E] * dE_u/dh_u  -  sum_{v in ch(u)} J_uv^T s_v )   u free, all at once
    s_v  = sigma_v'(a_v) * (-dE_v/dmu_v)                   for the Gaussian -dE/dmu = precision * e_v

The energy is summed over a sample's neurons and not averaged over the batch, so that a rate means the same for every
batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pcgraph.clamps import Clamps
from pcgraph.errors import Diverged
from pcgraph.inference.capturable import capturing
from pcgraph.inference.capture import Recorder, keep
from pcgraph.inference.result import energy_by_node, total_energy
from pcgraph.initializers import Block, Context
from pcgraph.kernels import Step, Workspace, bind
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Plan
from pcgraph.plan.operations import Rows, Write, numbers

__all__ = ["Program", "Settings", "run", "run_unchecked"]

#: So many clamped nodes of one group are copied one by one.
FEW = 4
#: So many sets of different rates of the same nodes stay on the device, the latest.
SETS = 8
#: The labels among the inputs of a recording, which otherwise go by the numbers of nodes.
LABELS = -1


@dataclass
class Settings:
    """How to run a plan, beyond the plan itself.

    Attributes
    ----------
    trace : bool or "nodes"
        Keep the energy per sample at every step; with "nodes", that of each node.
    check : bool
        Look whether the energy is finite at the end, which on a GPU waits for the device.
    nudges : dict
        Canonical number of a free node -> (target (batch, *shape), strength): the cost
        ``strength / 2 * ||h - target||^2`` is added to what its state descends.
    memories : dict
        What the state optimizer keeps from step to step.
    first_step : int
        Steps that were taken before this run, by the same optimizer.
    all_move : bool
        Whether `memories` must fit other runs of the same network as well.
    capture : bool or "auto"
        Whether to record the run and replay it; see :mod:`pcgraph.inference.capture`.
    """

    trace: bool | Literal["nodes"] = False
    check: bool = True
    nudges: dict[int, tuple[Tensor, float]] = field(default_factory=dict)
    memories: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    first_step: int = 0
    all_move: bool = False
    capture: bool | str = False

    def pulls(self, ws: Workspace) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """(states, gradients, target, strength) of each nudged node."""
        for i, (target, strength) in self.nudges.items():
            g, p = ws.plan.structure.place(i)
            yield ws.h[g][p], ws.e[g][p], target.reshape(ws.batch, -1), strength


class Program:
    """A plan bound to a workspace: lists of functions of no arguments."""

    def __init__(self, ws: Workspace) -> None:
        plan = ws.plan
        self.ws = ws
        self.prologue: list[Any] = []
        for op in plan.prologue:
            self.prologue.append(op if isinstance(op, Write) else bind(ws, [op])[0])
        self.stages = [
            (bind(ws, stage.forward), bind(ws, stage.errors), bind(ws, [*stage.zero, *stage.pull, *stage.hold]),
             [_move(ws, group, where) for group, where in stage.moves])
            for stage in plan.stages
        ]  # fmt: skip
        self.final = (bind(ws, plan.final.forward), bind(ws, plan.final.errors))
        #: The errors at the end, flat; empty where squares of them do not say what the energy is.
        self.squared: list[Tensor] = []
        for op in plan.final.errors:
            run = plan.structure.runs[op.run]
            if not run.gaussian or not isinstance(op.rows, slice):
                self.squared.clear()
                break
            self.squared.append(ws.e[run.group][op.rows].view(-1))


@dataclass(frozen=True, eq=False)
class _Move:
    """States that the optimizer moves: views of them and of their gradients, or their row numbers in a group."""

    group: int
    nodes: tuple[int, ...]
    views: tuple[Tensor, Tensor] | None
    where: Tensor | None

    def step(self, ws: Workspace, optimizer: StateOptimizer, memory: dict[str, Any]) -> None:
        """Move them; those that do not lie beside each other are gathered, and put back."""
        if self.views is not None:
            optimizer.step(*self.views, memory)
            return
        assert self.where is not None
        states = ws.h[self.group].index_select(0, self.where)
        optimizer.step(states, ws.e[self.group].index_select(0, self.where), memory)
        ws.h[self.group].index_copy_(0, self.where, states)


def _move(ws: Workspace, group: int, rows: Rows) -> _Move:
    nodes = tuple((ws.plan.structure.groups[group].start + numbers(rows)).tolist())
    where = ws.index(rows)
    if isinstance(where, slice):
        return _Move(group, nodes, (ws.h[group][where], ws.e[group][where]), None)
    return _Move(group, nodes, None, where)


@torch.no_grad()
def run(
    ws: Workspace, clamps: Clamps, optimizer: StateOptimizer | None, context: Context,
    settings: Settings,
) -> Tensor | None:  # fmt: skip
    """Run the bound plan; afterwards the workspace holds the final states. Returns the trace, if asked for.

    Raises
    ------
    Diverged
        The energy is not finite at the end.
    """
    trace = None
    if capturing(ws.plan, clamps, optimizer, settings):
        _recorded(ws, clamps, optimizer, context, settings)
    else:
        trace = run_unchecked(ws, clamps, optimizer, context, settings)
    if settings.check and not _is_finite(ws):
        raise _diagnose(ws, clamps, optimizer, context, settings)
    return trace


def _recorded(
    ws: Workspace, clamps: Clamps, optimizer: StateOptimizer | None, context: Context, settings: Settings
) -> None:
    """Run by a recording that belongs to the workspace, and to what Python decides: see :func:`_decided`."""
    names, bare = ws.plan.structure.nodes, replace(context, clamps={}, labels=None)

    def now(inputs: Mapping[int, Tensor]) -> None:
        values = {i: value for i, value in inputs.items() if i != LABELS}
        same = replace(bare, clamps={names[i]: value for i, value in values.items()}, labels=inputs.get(LABELS))
        run_unchecked(ws, Clamps(ws.batch, values, {}), optimizer, same, Settings(check=False))

    key = _decided(ws.plan, optimizer)
    if ws.recording is None or ws.recording[0] != key:
        ws.recording = (key, Recorder(now))
    recorder: Recorder[None] = ws.recording[1]
    recorder.function = now  # until it is recorded, with the optimizer of this call: that of another may have changed
    labels = {} if context.labels is None else {LABELS: context.labels}
    recorder({**clamps.values, **labels})


def _decided(plan: Plan, optimizer: StateOptimizer | None) -> tuple[object, ...]:
    """What a recording holds beside the parameters: the optimizer's settings, and where initializers keep tensors."""
    kept = (
        (name, tensor.data_ptr())
        for initializer in plan.initializers
        for name, tensor in (*initializer.named_buffers(), *initializer.named_parameters())
    )
    return (type(optimizer), "" if optimizer is None else repr(vars(optimizer)), *kept)


def _is_finite(ws: Workspace) -> bool:
    """Whether the energy is finite, from the squared errors: one pass, nothing allocated."""
    squared = ws.program.squared
    if squared and math.isfinite(float(sum(torch.dot(e, e) for e in squared))):
        return True
    return bool(torch.isfinite(total_energy(ws)).all())


def run_unchecked(
    ws: Workspace, clamps: Clamps, optimizer: StateOptimizer | None, context: Context, settings: Settings,
    watch: Callable[[int], bool] | None = None,
) -> Tensor | None:  # fmt: skip
    plan, program = ws.plan, ws.program
    for step in ws.refresh:
        step()
    ws.masked = []
    masks = [_mask(ws, i, *pair) for i, pair in clamps.masked.items()]
    _start(ws, clamps, masks, context)
    energies: list[Tensor] = []
    measure = energy_by_node if settings.trace == "nodes" else total_energy
    memories = settings.memories
    rates: dict[_Move, float | Tensor] = {}
    for t in range(plan.steps):
        forward, errors, pull, moves = program.stages[min(t, len(program.stages) - 1)]
        _each(forward)
        _each(errors)
        if settings.trace:
            energies.append(measure(ws, plan.stage(t).errors))
        _each(pull)
        for h, e, target, strength in settings.pulls(ws):
            e.add_(h - target, alpha=strength)
        for e, _, _, free in masks:
            e.mul_(free)
        if watch is not None and watch(t):
            break
        assert optimizer is not None
        for k, move in enumerate(moves):
            if move not in rates:
                rates[move] = _rates(ws, optimizer, move)
            memory = memories.setdefault((move.group, k), {})
            memory["lr"], memory["step"] = rates[move], settings.first_step + t
            move.step(ws, optimizer, memory)
        if masks and not optimizer.fixes_zero:
            _hold(ws)
    if plan.steps:
        _each(program.final[0])
    _each(program.final[1])
    if settings.trace:
        energies.append(measure(ws))
    return torch.stack(energies) if settings.trace else None


def _each(steps: list[Step]) -> None:
    for step in steps:
        step()


def _rates(ws: Workspace, optimizer: StateOptimizer, move: _Move) -> float | Tensor:
    if isinstance(optimizer.lr, float):
        return optimizer.lr
    free = ws.plan.free
    known = {i: optimizer.rate(ws.plan.structure.nodes[i]) for i in move.nodes if free[i]}
    some = next(iter(known.values()))
    rates = tuple(known.get(i, some) for i in move.nodes)
    if len(set(rates)) == 1:
        return rates[0]
    kept: dict[tuple[float, ...], Tensor] = ws.cache.setdefault(("rates", move), {})
    tensor = kept.pop(rates, None)
    if tensor is None:
        tensor = torch.tensor(rates, dtype=ws.dtype).view(-1, 1, 1).to(ws.device)
    kept[rates] = keep(tensor)
    if len(kept) > SETS:
        del kept[next(iter(kept))]
    return tensor


def _mask(ws: Workspace, i: int, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(error rows, values, mask, 1 where free) of a partly clamped node."""
    g, p = ws.plan.structure.place(i)
    e = ws.e[g][p]
    flat = mask.reshape(ws.batch, -1)
    ws.masked.append((ws.h[g][p], values.reshape(ws.batch, -1), flat))
    return e, values, flat, (~flat).to(ws.dtype)


def _start(ws: Workspace, clamps: Clamps, masks: list[Any], context: Context) -> None:
    """Initialise: writes and sweeps in the plan's order, partly clamped neurons put back after each."""
    fixed = False
    for op in ws.program.prologue:
        if not fixed and not isinstance(op, Write):
            _fix(ws, clamps)
            fixed = True
        if isinstance(op, Write):
            _write(ws, op, context)
        else:
            op()
        if masks:
            _hold(ws)
    if not fixed:
        _fix(ws, clamps)


def _hold(ws: Workspace) -> None:
    """Put the known neurons of partly clamped nodes back to their values."""
    for h, values, mask in ws.masked:
        torch.where(mask, values, h, out=h)


def _fix(ws: Workspace, clamps: Clamps) -> None:
    """Put the clamped values in their places, those of one group together where they are many."""
    by_group: dict[int, list[tuple[int, Tensor]]] = {}
    for i, value in clamps.values.items():
        g, p = ws.plan.structure.place(i)
        by_group.setdefault(g, []).append((p, value.reshape(ws.batch, -1)))
    for g, placed in by_group.items():
        if len(placed) <= FEW:
            for p, value in placed:
                ws.h[g][p].copy_(value)
        else:
            rows = [p for p, _ in placed]
            where = ws.constant(("clamped", *rows), lambda rows=rows: torch.tensor(rows))  # type: ignore[misc]
            ws.h[g].index_copy_(0, where, torch.stack([value for _, value in placed]))


def _write(ws: Workspace, op: Write, context: Context) -> None:
    s = ws.plan.structure
    group, out = s.groups[op.group], ws.h[op.group][op.rows]
    if op.initializer < 0:
        out.zero_()
        return
    first = group.start + op.rows.start
    nodes = s.nodes[first : group.start + op.rows.stop]
    block = Block(nodes, group.shape, group.name, op.rows.start, op.rows.stop, first)
    ws.plan.initializers[op.initializer].init(block, out.view(len(nodes), ws.batch, *group.shape), context)


def _diagnose(
    ws: Workspace, clamps: Clamps, optimizer: StateOptimizer | None, context: Context, settings: Settings
) -> Diverged:
    """Run again, watching every step, and say where it broke."""
    found: list[int] = []

    def watch(t: int) -> bool:
        if not bool(torch.isfinite(total_energy(ws, ws.plan.stage(t).errors).sum())):
            found.append(t)
        return bool(found)

    again = Settings(nudges=settings.nudges, first_step=settings.first_step, all_move=settings.all_move)
    run_unchecked(ws, clamps, optimizer, context, again, watch)
    step = settings.first_step + (found[0] if found else ws.plan.steps)
    s = ws.plan.structure
    worst, largest = 0, -1.0
    for i in range(len(s.nodes)):
        g, p = s.place(i)
        size = float(ws.h[g][p].abs().max())
        size = size if size == size else float("inf")
        if size > largest:
            worst, largest = i, size
    node = s.nodes[worst]
    advice = "the weights, the clamps or the initial states are too large; use a smaller learning rate of the weights"
    if optimizer is not None and step:
        advice = f"use a smaller state rate (now {optimizer!r}), fewer steps, or a smaller learning rate of the weights"
    return Diverged(
        f"the energy is no longer finite at inference step {step} of {settings.first_step + ws.plan.steps}: the "
        f"largest state, {largest:.3g}, is in node {node!r}; {advice}. This run changed no parameter.",
        step=step,
        node=node,
        largest=largest,
    )
