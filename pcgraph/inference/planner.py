"""A planner makes the reports, plans and programs of one network once each, and checks all before anything runs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcgraph.arguments import shown
from pcgraph.backends import Backend, Program
from pcgraph.clamps import Clamps
from pcgraph.coordinates import Errors
from pcgraph.errors import ConfigError, InvalidInitializer
from pcgraph.initializers import Context, Given, Initializer, Layout, Relaxation, Swept, Zero, require
from pcgraph.network import Cut, Network
from pcgraph.plan import Plan, Precision, Request, make_plan
from pcgraph.processes import Part
from pcgraph.topology import Report, check

__all__ = ["Planner", "Prepared"]

Node = Hashable


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared run has passed every check: this is what will be computed, and on what."""

    plan: Plan
    clamps: Clamps
    context: Context


@dataclass(frozen=True, eq=False)
class _Told:
    """The backend tells this about plans, on the network as it is then."""

    backend: Backend
    network: Network

    def describe(self, plan: Plan) -> tuple[str, ...]:
        return self.backend.describe(plan, self.network)

    def memory(self, plan: Plan, batch: int) -> int:
        return self.backend.memory(plan, self.network, batch)


class Planner:
    """A planner has the reports and plans of one network, each made once, and programs for them.

    The caches are bounded: the oldest plan goes when `size` is reached.
    """

    def __init__(self, net: Network, backend: Backend, size: int = 64, cut: Cut | None = None) -> None:
        self.net, self.backend, self.size, self.cut = net, backend, size, cut
        self.reports: dict[Any, Report] = {}
        self.admitted: dict[Any, Initializer] = {}
        self.plans: dict[Any, tuple[Initializer, Plan]] = {}
        self.parts: dict[Any, Plan] = {}
        self.keeping: dict[Any, frozenset[int]] = {}
        self._zero, self._told = Zero(), _Told(backend, net)
        #: Which rows of a batch this process computes; None where it computes all of them.
        self.rows: Part | None = None

    def report(self, clamped: frozenset[int], masked: frozenset[int]) -> Report:
        """Return the topology report for these clamps."""
        key = (clamped, masked)
        if key not in self.reports:
            names = self.net.structure.nodes
            given: dict[Node, Any] = {names[i]: True for i in clamped}
            given.update({names[i]: _Partial for i in masked})
            self.reports[key] = check(self.net.graph, given, repair=False)
            self._trim(self.reports)
        return self.reports[key]

    @contextmanager
    def taking(self, part: Part | None) -> Iterator[None]:
        """Take the batches of this block for a part of larger ones; None: all that there are."""
        before, self.rows = self.rows, part
        try:
            yield
        finally:
            self.rows = before

    def kept(
        self, coordinates: Errors | None, clamped: frozenset[int], masked: frozenset[int]
    ) -> frozenset[int] | None:
        """Find the nodes whose states are moved in these coordinates; None where all are."""
        if coordinates is None:
            return None
        if not isinstance(coordinates, Errors):
            raise ConfigError(
                f"coordinates= is None or pcgraph.Errors(...) (found {shown(coordinates)})", key="coordinates"
            )
        key = (coordinates, clamped, masked)
        if key not in self.keeping:
            number = self.net.structure.number
            self.keeping[key] = frozenset(number[v] for v in coordinates.kept(self.report(clamped, masked)))
            self._trim(self.keeping)
        return self.keeping[key]

    def plan(self, request: Request, init: Initializer, context: Context | None = None) -> Plan:
        """Return the plan for a request and an initializer.

        Raises
        ------
        InvalidInitializer
            The initializer does not hold for the graph and the clamps.
        """
        return self._plan(request, init, context)[1]

    def _plan(self, request: Request, init: Initializer, context: Context | None) -> tuple[Initializer, Plan]:
        """Return the plan, and the initializer that it was made for, which lays out the same as `init`."""
        context = Context(0, {}, None, self.net) if context is None else context
        who = (request.clamped, request.masked, getattr(init, "plan_key", None))
        if who not in self.admitted:
            require(init, self.report(request.clamped, request.masked))
            self.admitted[who] = init
            self._trim(self.admitted)
        key = (who, _sharing(init), init.ready(context), request, self.net.device.type)
        if key not in self.plans:
            layout = init.layout(self.report(request.clamped, request.masked), context)
            self.plans[key] = (init, self._make(request, layout))
            self._trim(self.plans)
        self.plans[key] = self.plans.pop(key)
        return self.plans[key]

    def _make(self, request: Request, layout: Layout) -> Plan:
        plan = make_plan(self.net.structure, request, layout, self._told, self.cut)
        self.backend.check(plan, self.net)
        return plan

    def part(
        self, known: frozenset[int], relaxation: Relaxation, precision: Precision = ()
    ) -> Plan:  # fmt: skip
        """Return the plan by which some nodes are relaxed before an initialization.

        There may be one for each component of the graph, so as many as there are nodes are kept.
        """
        nodes = relaxation.nodes
        only = frozenset(self.net.structure.number[v] for v in nodes)
        request = Request.make(
            known, frozenset(), relaxation.steps, relaxation.optimizer, only=only, precision=precision
        )  # fmt: skip
        key = (request, self.net.device.type)
        plan = self.parts.pop(key, None)
        if plan is None:
            plan = self._make(request, Layout((Given(self._zero, nodes) if relaxation.steps else Swept(nodes),)))
        self.parts[key] = plan
        self._trim(self.parts, max(self.size, len(self.net.structure.nodes)))
        return plan

    def prediction(self, clamped: frozenset[int], masked: frozenset[int], target: int) -> Plan:
        """Return the plan of a sweep over the ancestors of a node.

        Raises
        ------
        InvalidInitializer
            They cannot be swept for these clamps (Theorem 1), with a way to predict by inference.
        """
        key = ("prediction", clamped, masked, target, self.net.device.type)
        if key not in self.parts:
            names, report = self.net.structure.nodes, self.report(clamped, masked)
            ancestors = self._ancestors(target, clamped)
            sweep = report.sweep(among=[names[i] for i in ancestors])
            if sweep.witness is not None or not self.net.structure.has_energy[target]:  # nothing predicts a lone node
                verdict, node = report.verdicts["forward"], names[target]
                raise InvalidInitializer(
                    f"no sweep gives {node!r}, which {verdict.reason}: predict by inference, as in net.predict(clamps, "
                    f"{node!r}, init=pcgraph.Forward(fallback=pcgraph.Zero()), steps=50, "
                    "optimizer=pcgraph.SGD(lr=0.1))",
                    verdict=verdict,
                )
            request = Request.make(clamped, masked, 0, None, only=ancestors)
            self.parts[key] = self._make(request, Layout((Swept(sweep.order),)))
            self._trim(self.parts)
        return self.parts[key]

    def _ancestors(self, node: int, clamped: frozenset[int]) -> frozenset[int]:
        """Find the node itself and all that it depends on, as far as clamped nodes."""
        s = self.net.structure
        found, stack = {node}, [node]
        while stack:
            i = stack.pop()
            if i not in clamped:
                new = set(s.source[s.by_target.edges(np.array([i]))].tolist()) - found
                found |= new
                stack += new
        return frozenset(found - clamped)

    def prepare(self, request: Request, clamps: Clamps, init: Initializer, labels: Tensor | None) -> Prepared:
        """Check an initializer against checked clamps, and compile.

        Raises
        ------
        InvalidInitializer
            The initializer does not hold for the graph and the clamps.
        """
        context = self._context(clamps, labels)
        first, plan = self._plan(request, init, context)
        return Prepared(plan, clamps, replace(context, sources=_swapped(plan.initializers, first, init)))

    def prepared(self, plan: Plan, clamps: Clamps) -> Prepared:
        """Prepare a run of a plan in which no initializer takes part."""
        return Prepared(plan, clamps, self._context(clamps, None))

    def _context(self, clamps: Clamps, labels: Tensor | None) -> Context:
        names = self.net.structure.nodes
        values = {names[i]: v for i, v in clamps.values.items()}
        return Context(clamps.batch, values, labels, self.net, part=self.rows)

    def program(self, plan: Plan, batch: int) -> Program:
        """Return a program for `plan` that nobody reads from."""
        with torch.inference_mode(False):
            return self.backend.lower(plan, self.net, batch)

    def _trim(self, cache: dict[Any, Any], size: int | None = None) -> None:
        while len(cache) > (self.size if size is None else size):
            del cache[next(iter(cache))]


class _Partial:
    mask = True


def _sharing(init: Initializer) -> tuple[tuple[int, ...], ...]:
    """Tell which parts of an initializer are one object: for each, the places of its own parts among all."""
    parts = init.all_parts()
    place = {id(part): i for i, part in enumerate(parts)}
    return tuple(tuple(place[id(own)] for own in part.parts()) for part in parts)


def _swapped(sources: tuple[Initializer, ...], first: Initializer, now: Initializer) -> tuple[Initializer, ...]:
    """Return the initializers of a plan that was made for `first`, with those of `now`, which lays out the same."""
    if first is now:
        return sources
    pairs = {id(a): b for a, b in zip(first.all_parts(), now.all_parts(), strict=True)}
    return tuple(pairs.get(id(source), source) for source in sources)
