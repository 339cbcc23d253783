"""Reports and plans of one network, each made once; and the checks that come before anything runs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pcgraph.clamps import Clamps, Masked
from pcgraph.errors import ConfigError
from pcgraph.inference.run import Program
from pcgraph.inference.settle import settle, settling
from pcgraph.initializers import Context, Initializer, States, require
from pcgraph.kernels import Workspace
from pcgraph.network import Network
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Plan, Request, make_plan
from pcgraph.topology import Report, check

__all__ = ["Planner", "prepare"]

#: Workspaces kept for the next run of the same plan.
IDLE = 2

Node = Hashable


class Planner:
    """Reports and plans of one network, each made once.

    The cache is bounded: the oldest plan goes when `size` is reached.
    """

    def __init__(self, net: Network, size: int = 64) -> None:
        self.net = net
        self.size = size
        self.reports: dict[Any, Report] = {}
        self.admitted: dict[Any, Initializer] = {}
        self.plans: dict[Any, tuple[Initializer, Plan]] = {}
        self.parts: dict[Any, Plan] = {}
        self.idle: list[Workspace] = []
        self.carried = States({})

    def report(self, clamped: frozenset[int], masked: frozenset[int]) -> Report:
        """The topology report for these clamps."""
        key = (clamped, masked)
        if key not in self.reports:
            names = self.net.structure.nodes
            given: dict[Node, Any] = {names[i]: True for i in clamped}
            given.update({names[i]: _Partial for i in masked})
            self.reports[key] = check(self.net.graph, given, repair=False)
            self._trim(self.reports)
        return self.reports[key]

    def plan(
        self, clamped: frozenset[int], masked: frozenset[int], init: Initializer, steps: int,
        optimizer: StateOptimizer | None = None, context: Context | None = None, only: frozenset[int] | None = None,
        pins: tuple[tuple[str, str], ...] = (), nudged: frozenset[int] = frozenset(),
        all_move: bool = False,
    ) -> Plan:  # fmt: skip
        """The plan for these clamps and this initializer.

        Raises
        ------
        InvalidInitializer
            The initializer does not hold for the graph and the clamps.
        """
        fixes_zero = optimizer is None or bool(optimizer.fixes_zero)
        stateless = optimizer is None or bool(optimizer.stateless)
        context = Context(0, {}, None, self.net, None) if context is None else context
        device = self.net.device.type
        who = (clamped, masked, getattr(init, "plan_key", None))
        if who not in self.admitted:
            require(init, self.report(clamped, masked))
            self.admitted[who] = init
            self._trim(self.admitted)
        key = (who, init.ready(context), steps, fixes_zero, stateless, only, device, pins, nudged, all_move)
        if key not in self.plans:
            report = self.report(clamped, masked)
            request = Request(
                clamped, masked, init.layout(report, context), steps, fixes_zero, stateless, nudged, all_move, only,
                device, pins,
            )
            self.plans[key] = (init, make_plan(self.net.structure, request))
            self._trim(self.plans)
        self.plans[key] = self.plans.pop(key)
        return self.plans[key][1]

    def part(self, known: frozenset[int], nodes: frozenset[int], steps: int, optimizer: StateOptimizer | None) -> Plan:
        """The plan by which an initializer relaxes some nodes in a phase of its own.

        A phase may have one for each component of the graph, so as many as there are nodes are kept.
        """
        promises = None if optimizer is None else (bool(optimizer.fixes_zero), bool(optimizer.stateless))
        key = (known, nodes, steps, promises, self.net.device.type)
        plan = self.parts.pop(key, None)
        if plan is None:
            plan = make_plan(self.net.structure, settling(self.net, known, nodes, steps, optimizer))
        self.parts[key] = plan
        self._trim(self.parts, max(self.size, len(self.net.structure.nodes)))
        return plan

    def acquire(self, plan: Plan, batch: int) -> Workspace:
        """A workspace for `plan`: one that is idle, or a new one."""
        for i, ws in enumerate(self.idle):
            if ws.plan is plan and ws.batch == batch:
                del self.idle[i]
                if not ws.stale:
                    return ws
                break
        with torch.inference_mode(False):
            ws = Workspace(plan, self.net, batch)
            ws.program = Program(ws)
        return ws

    def release(self, ws: Workspace) -> None:
        """Take back a workspace that nobody looks into any more."""
        if ws.escaped:
            ws.unbind()
        else:
            self.idle = [*self.idle[1 - IDLE :], ws]

    def _trim(self, cache: dict[Any, Any], size: int | None = None) -> None:
        while len(cache) > (self.size if size is None else size):
            del cache[next(iter(cache))]


class _Partial:
    mask = True




def _brief(optimizer: object) -> str:
    if isinstance(optimizer, torch.optim.Optimizer):
        return f"torch.optim.{type(optimizer).__name__}, which moves weights: states need one of pcgraph's"
    return repr(optimizer)


def prepare(
    net: Network, planner: Planner, clamps: Mapping[Node, Tensor | Masked], init: Initializer, steps: int,
    optimizer: StateOptimizer | None, labels: Tensor | None, *, finite: bool = True,
    pins: tuple[tuple[str, str], ...] = (), nudged: frozenset[int] = frozenset(),
    all_move: bool = False,
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
            f"{steps} inference steps need a state optimizer, as in optimizer=pcgraph.SGD(lr=0.1) "
            f"(found {_brief(optimizer)})",
            key="optimizer",
        )
    checked = Clamps.check(net, clamps, finite=finite)
    names = net.structure.nodes
    context = Context(
        checked.batch, {names[i]: v for i, v in checked.values.items()}, labels, net,
        partial(settle, net, planner.part),
    )  # fmt: skip
    plan = planner.plan(
        checked.clamped, frozenset(checked.masked), init, steps, optimizer if steps else None, context, pins=pins,
        nudged=nudged, all_move=all_move,
    )
    return plan, checked, context
