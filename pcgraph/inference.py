"""Inference: a plan run on a batch (paper, Eq 3 with its sign and transpose corrected).

    h_u <- h_u - lr * ( 1[u in V_E] * dE_u/dh_u  -  sum_{v in ch(u)} J_uv^T s_v )        u free, all at once
    s_v  = sigma_v'(a_v) * (-dE_v/dmu_v)                                                 for the Gaussian: precision * e_v

The energy is summed over a sample's neurons and not averaged over the batch, so that a rate means the same for every
batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcgraph.clamps import Clamps, Masked
from pcgraph.errors import ConfigError, Diverged
from pcgraph.initializers import Block, Context, Initializer, require
from pcgraph.kernels import Step, Workspace, bind, take
from pcgraph.network import Network
from pcgraph.optimizers import SGD, StateOptimizer
from pcgraph.plan import Plan, Request, make_plan
from pcgraph.plan.operations import Rows, Write, numbers
from pcgraph.topology import Report, check

__all__ = ["Inference", "Planner", "Settings", "run"]

Node = Hashable


class Planner:
    """Reports and plans of one network, each made once.

    The cache is bounded: the oldest plan goes when `size` is reached.
    """

    def __init__(self, net: Network, size: int = 64) -> None:
        self.net = net
        self.size = size
        self.reports: dict[Any, Report] = {}
        self.plans: dict[Any, tuple[Initializer, Plan]] = {}

    def report(self, clamped: frozenset[int], masked: frozenset[int]) -> Report:
        """The topology report for these clamps."""
        key = (clamped, masked)
        if key not in self.reports:
            names = self.net.structure.nodes
            given: dict[Node, Any] = {names[i]: None for i in clamped}
            given.update({names[i]: _PARTIAL for i in masked})
            self.reports[key] = check(self.net.graph, given, repair=False)
            self._trim(self.reports)
        return self.reports[key]

    def plan(
        self, clamped: frozenset[int], masked: frozenset[int], init: Initializer, steps: int,
        optimizer: StateOptimizer | None = None, context: Context | None = None, only: frozenset[int] | None = None,
        pins: tuple[tuple[str, str], ...] = (),
    ) -> Plan:  # fmt: skip
        """The plan for these clamps and this initializer.

        Raises
        ------
        InvalidInitializer
            The initializer does not hold for the graph and the clamps.
        """
        fixes_zero, stateless = _promises(optimizer)
        device = self.net.device.type
        key = (clamped, masked, id(init), init.ready(context) if isinstance(init, Initializer) else None, steps,
               fixes_zero, stateless, only, device, pins)  # fmt: skip
        if key not in self.plans:
            report = self.report(clamped, masked)
            require(init, report)
            request = Request(
                clamped, masked, init.layout(report, context), steps, fixes_zero, stateless, only, device, pins
            )
            self.plans[key] = (init, make_plan(self.net.structure, request))
            self._trim(self.plans)
        return self.plans[key][1]

    def _trim(self, cache: dict[Any, Any]) -> None:
        while len(cache) > self.size:
            del cache[next(iter(cache))]


class _Partial:
    mask = True


_PARTIAL = _Partial()


def _promises(optimizer: StateOptimizer | None) -> tuple[bool, bool]:
    if optimizer is None:
        return True, True
    return bool(optimizer.fixes_zero), type(optimizer) is SGD and optimizer.momentum == 0


class Settings:
    """How to run a plan, beyond the plan itself.

    Attributes
    ----------
    trace : bool
        Keep the energy per sample at every step.
    check : bool
        Look whether the energy is finite at the end, which on a GPU waits for the device.
    """

    def __init__(self, *, trace: bool = False, check: bool = True) -> None:
        self.trace = trace
        self.check = check


class _Program:
    """A plan bound to a workspace: lists of functions of no arguments."""

    def __init__(self, ws: Workspace, optimizer: StateOptimizer | None) -> None:
        plan = ws.plan
        self.ws = ws
        self.prologue: list[Any] = []
        for op in plan.prologue:
            self.prologue.append(op if isinstance(op, Write) else bind(ws, [op])[0])
        self.stages = [
            (bind(ws, stage.forward), bind(ws, stage.errors), bind(ws, [*stage.zero, *stage.pull]),
             [_move(ws, group, where) for group, where in stage.moves])
            for stage in plan.stages
        ]  # fmt: skip
        self.final = ([], []) if plan.final is None else (bind(ws, plan.final.forward), bind(ws, plan.final.errors))


def _move(ws: Workspace, group: int, where: Rows) -> tuple[int, Tensor | slice, tuple[int, ...]]:
    start = ws.plan.structure.groups[group].start
    return group, ws.index(where), tuple((start + numbers(where)).tolist())


class Inference:
    """The outcome of an inference. Everything is computed when it is first asked for.

    Attributes
    ----------
    states, predictions, errors : mapping
        Node -> (batch, *shape): h, mu and e = h - mu at the final states. Nodes without an energy predict nothing:
        their error is zero and their prediction their state.
    trace : Tensor or None, shape (steps + 1, batch)
        The energy before each step and after the last, if it was asked for.
    plan : Plan
    """

    def __init__(
        self, ws: Workspace, clamps: Clamps, init: Initializer, labels: Tensor | None, trace: Tensor | None
    ) -> None:
        self.plan = ws.plan
        self.clamps, self.init, self.labels, self.trace = clamps, init, labels, trace
        self._ws = ws
        self.states = NodeTensors(self.plan, ws.h)
        self.predictions = NodeTensors(self.plan, ws.m, self._prediction)
        self.errors = NodeTensors(self.plan, ws.e, self._error)

    @property
    def batch(self) -> int:
        """Samples."""
        return self.clamps.batch

    def _may_err(self, i: int) -> bool:
        return bool(self.plan.flow.error(self.plan.steps)[i])

    def _prediction(self, i: int) -> Tensor:
        if not self._may_err(i):
            return self.states.numbered(i)
        g, p = self.plan.structure.place(i)
        return self._ws.m[g][p].view(self.batch, *self.plan.structure.groups[g].shape)

    def _error(self, i: int) -> Tensor:
        if not self._may_err(i):
            return torch.zeros_like(self.states.numbered(i))
        return self.states.numbered(i) - self._prediction(i)

    def run_energies(self) -> Iterator[tuple[int, Rows, Tensor]]:
        """(run, rows, energies of shape (nodes, batch)) for the nodes whose error may differ from zero."""
        final = self.plan.final
        for op in final.errors if final else ():
            yield op.run, op.rows, _energy(self._ws, op.run, op.rows)

    @property
    def energy(self) -> Tensor:
        """F per sample, shape (batch,) (paper, Eq 1)."""
        return _total(self._ws)

    @property
    def node_energy(self) -> dict[Node, Tensor]:
        """Node -> its energy per sample, shape (batch,); nodes without an energy are left out."""
        s = self.plan.structure
        zero = torch.zeros(self.batch, dtype=self._ws.dtype, device=self._ws.device)
        result = {s.nodes[i]: zero for i in np.flatnonzero(s.has_energy)}
        for run, where, energies in self.run_energies():
            start = s.groups[s.runs[run].group].start
            for k, position in enumerate(numbers(where)):
                result[s.nodes[start + int(position)]] = energies[k]
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch={self.batch}, steps={self.plan.steps}, energy={self.energy.mean():.6g})"


class NodeTensors(Mapping[Node, Tensor]):
    """Node -> tensor, over the buffers of a workspace."""

    def __init__(self, plan: Plan, buffers: list[Tensor], read: Callable[[int], Tensor] | None = None) -> None:
        self._structure, self._buffers = plan.structure, buffers
        self._read = read or self.numbered

    def numbered(self, i: int) -> Tensor:
        """The tensor of the node with canonical number `i`, as a view."""
        g, p = self._structure.place(i)
        buffer = self._buffers[g]
        return buffer[p].view(buffer.shape[1], *self._structure.groups[g].shape)

    def __getitem__(self, node: Node) -> Tensor:
        if node not in self._structure.number:
            raise KeyError(node)
        return self._read(self._structure.number[node])

    def __iter__(self) -> Iterator[Node]:
        return iter(self._structure.nodes)

    def __len__(self) -> int:
        return len(self._structure.nodes)


def _energy(ws: Workspace, which: int, where: Rows) -> Tensor:
    run = ws.plan.structure.runs[which]
    index = ws.index(where)
    h, mu = take(ws.h[run.group], index), take(ws.m[run.group], index)
    if run.gaussian:
        energy = (h - mu).square_().sum(2).mul_(0.5)
        if run.precision is not None:
            energy *= torch.from_numpy(run.precision[numbers(where) - run.start]).to(energy).unsqueeze(1)
        return energy
    shape = ws.plan.structure.groups[run.group].shape
    with torch.no_grad():
        return ws.net.energy_of(which).energy(h.reshape(-1, *shape), mu.reshape(-1, *shape)).view(h.shape[:2])


def _total(ws: Workspace, errors: Any = None) -> Tensor:
    total = torch.zeros(ws.batch, dtype=ws.dtype, device=ws.device)
    final = ws.plan.final
    for op in (final.errors if final else ()) if errors is None else errors:
        total += _energy(ws, op.run, op.rows).sum(0)
    return total


@torch.no_grad()
def run(
    ws: Workspace, program: _Program, clamps: Clamps, optimizer: StateOptimizer | None, context: Context,
    settings: Settings,
) -> Tensor | None:  # fmt: skip
    """Run the bound plan; afterwards the workspace holds the final states. Returns the trace, if asked for.

    Raises
    ------
    Diverged
        The energy is not finite at the end.
    """
    trace = _run(ws, program, clamps, optimizer, context, settings.trace)
    if settings.check and ws.plan.final is not None and not bool(torch.isfinite(_total(ws).sum())):
        raise _diagnose(ws, program, clamps, optimizer, context)
    return trace


def _run(
    ws: Workspace, program: _Program, clamps: Clamps, optimizer: StateOptimizer | None, context: Context, trace: bool,
    watch: Callable[[int], None] | None = None,
) -> Tensor | None:  # fmt: skip
    plan = ws.plan
    for step in ws.refresh:
        step()
    for i, value in clamps.values.items():
        g, p = plan.structure.place(i)
        ws.h[g][p].copy_(value.reshape(ws.batch, -1))
    masks = [_mask(ws, i, *pair) for i, pair in clamps.masked.items()]
    _start(ws, program, masks, context)
    energies: list[Tensor] = []
    memories: dict[tuple[int, int], dict[str, Any]] = {}
    for t in range(plan.steps):
        forward, errors, pull, moves = program.stages[min(t, len(program.stages) - 1)]
        if t:
            _each(forward)
        _each(errors)
        if trace:
            energies.append(_total(ws, plan.stage(t).errors))
        if watch is not None:
            watch(t)
        _each(pull)
        for e, _, _, free in masks:
            e.mul_(free)
        assert optimizer is not None
        for k, (group, where, nodes) in enumerate(moves):
            memory = memories.setdefault((group, k), {}) if len(moves) else {}
            if not memory or (isinstance(memory["lr"], Tensor) and memory["lr"].shape[0] != len(nodes)):
                memory["lr"] = _rates(ws, optimizer, nodes)
            memory["step"] = t
            _step(ws, optimizer, group, where, memory)
    if plan.steps:
        _each(program.final[0])
    _each(program.final[1])
    if trace:
        energies.append(_total(ws))
    return torch.stack(energies) if trace else None


def _each(steps: list[Step]) -> None:
    for step in steps:
        step()


def _step(ws: Workspace, optimizer: StateOptimizer, group: int, where: Tensor | slice, memory: dict[str, Any]) -> None:
    if isinstance(where, slice):
        optimizer.step(ws.h[group][where], ws.e[group][where], memory)
    else:
        states = ws.h[group].index_select(0, where)
        optimizer.step(states, ws.e[group].index_select(0, where), memory)
        ws.h[group].index_copy_(0, where, states)


def _rates(ws: Workspace, optimizer: StateOptimizer, nodes: tuple[int, ...]) -> float | Tensor:
    if isinstance(optimizer.lr, float):
        return optimizer.lr
    rates = [optimizer.rate(ws.plan.structure.nodes[i]) for i in nodes]
    if len(set(rates)) == 1:
        return rates[0]
    return torch.tensor(rates, dtype=ws.dtype, device=ws.device).view(-1, 1, 1)


def _mask(ws: Workspace, i: int, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(error rows, values, mask, 1 where free) of a partly clamped node."""
    g, p = ws.plan.structure.place(i)
    e = ws.e[g][p] if len(ws.e[g]) else ws.empty(ws.batch, ws.h[g].shape[2])
    flat = mask.reshape(ws.batch, -1)
    ws.cache[("masked", i)] = (ws.h[g][p], values.reshape(ws.batch, -1), flat)
    return e, values, flat, (~flat).to(ws.dtype)


def _start(ws: Workspace, program: _Program, masks: list[Any], context: Context) -> None:
    """Initialise: writes and sweeps in the plan's order, partly clamped neurons put back after each."""
    plan = ws.plan
    held = [ws.cache[key] for key in ws.cache if isinstance(key, tuple) and key[0] == "masked"] if masks else []
    for op in program.prologue:
        if isinstance(op, Write):
            _write(ws, op, context)
        else:
            op()
        for h, values, mask in held:
            torch.where(mask, values, h, out=h)
    assert plan.initializers is not None


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
    ws: Workspace, program: _Program, clamps: Clamps, optimizer: StateOptimizer | None, context: Context
) -> Diverged:
    """Run again, watching every step, and say where it broke."""
    found: list[int] = []

    def watch(t: int) -> None:
        if not found and not bool(torch.isfinite(_total(ws, ws.plan.stage(t).errors).sum())):
            found.append(t)
            raise _Found

    try:
        _run(ws, program, clamps, optimizer, context, False, watch)
    except _Found:
        pass
    step = found[0] if found else ws.plan.steps
    s = ws.plan.structure
    worst, largest = 0, -1.0
    for i in range(len(s.nodes)):
        g, p = s.place(i)
        size = float(ws.h[g][p].abs().max())
        size = size if size == size else float("inf")
        if size > largest:
            worst, largest = i, size
    node = s.nodes[worst]
    advice = "use a smaller state rate" if step else "the weights or the initial states are too large"
    rate = f" (now {optimizer!r})" if optimizer is not None and step else ""
    return Diverged(
        f"the energy is no longer finite at inference step {step} of {ws.plan.steps}: the largest state, {largest:.3g}, is "
        f"in node {node!r}; {advice}{rate}, fewer steps, or a smaller learning rate of the weights. "
        "No parameter was changed.",
        step=step,
        node=node,
        largest=largest,
    )


class _Found(Exception):  # noqa: N818
    pass


def prepare(
    net: Network, planner: Planner, clamps: Mapping[Node, Tensor | Masked], init: Initializer, steps: int,
    optimizer: StateOptimizer | None, labels: Tensor | None, *, finite: bool = True,
    pins: tuple[tuple[str, str], ...] = (),
) -> tuple[Plan, Clamps, Context]:  # fmt: skip
    """Check everything that can be checked before anything runs, and compile.

    Raises
    ------
    ConfigError
        Negative steps, or steps without a state optimizer.
    ClampError, InvalidInitializer
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ConfigError(f"steps must be an integer that is not negative (found {steps!r})", key="steps")
    if steps and not isinstance(optimizer, StateOptimizer):
        raise ConfigError(
            f"{steps} inference steps need a state optimizer, as in optimizer=pcgraph.SGD(lr=0.1) (found {optimizer!r})",
            key="optimizer",
        )
    checked = Clamps.check(net, clamps, finite=finite)
    names = net.structure.nodes
    context = Context(checked.batch, {names[i]: v for i, v in checked.values.items()}, labels, net, None)
    plan = planner.plan(
        checked.clamped, frozenset(checked.masked), init, steps, optimizer if steps else None, context, pins=pins
    )
    return plan, checked, context
