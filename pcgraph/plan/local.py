"""The plan of one rank is what the plan across ranks does on its nodes and edges, in the numbers of its own network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pcgraph.network import Piece
from pcgraph.plan.compile import Stage
from pcgraph.plan.flow import Flow, Mask
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
from pcgraph.plan.request import Request

__all__ = ["local_plan"]


def local_plan(plan: Plan, part: Piece) -> Plan:
    """Return what one rank does of a plan.

    Its writes are numbered: each has an initializer of its own in the plan's, which is that of the whole.

    Parameters
    ----------
    plan : Plan
        Of the whole network, with a cut.
    part : Piece
        Of the same cut.
    """
    return _Local(plan, part).made()


class _Local:
    def __init__(self, plan: Plan, part: Piece) -> None:
        self.plan, self.part = plan, part

    def made(self) -> Plan:
        plan, part = self.plan, self.part
        writes = [op for op in plan.prologue if isinstance(op, Write) and op.source >= 0]
        prologue = (self.operation(op, writes) for op in plan.prologue)
        measure = None if plan.measure is None else Measure(self.nodes(plan.measure.nodes))
        return Plan(
            part.structure, self.request(), plan.layout, self.flow(),
            tuple(plan.initializers[op.source] for op in writes),
            tuple(op for op in prologue if op is not None),
            Propagate(self.edges(plan.begin.edges), self.nodes(plan.begin.nodes)), measure,
            tuple(self.stage(stage) for stage in plan.stages), self.stage(plan.final),
            Learn(self.edges(plan.learn.edges), self.nodes(plan.learn.nodes)),
            plan.level[part.edges], plan.free[part.nodes], plan.exact[part.nodes] & part.own,
            plan.sweep_depth, plan.waves, part=part,
        )  # fmt: skip

    # -- numbers ------------------------------------------------------------------------------------------------------

    def here(self, nodes: Index) -> Index:
        """Return the numbers here of nodes of the whole, ghosts included, sorted."""
        found = self.part.local[nodes]
        return np.sort(found[found >= 0])

    def nodes(self, nodes: Index) -> Index:
        """Return the numbers here of those that this rank owns, sorted."""
        found = self.here(nodes)
        return found[self.part.own[found]]

    def edges(self, edges: Index) -> Index:
        found = self.part.local_edge[edges]
        return np.sort(found[found >= 0])

    def named(self, nodes: frozenset[int]) -> frozenset[int]:
        return frozenset(self.nodes(np.array(sorted(nodes), dtype=np.int64)).tolist())

    # -- operations ---------------------------------------------------------------------------------------------------

    def operation(self, op: Operation, writes: list[Write]) -> Operation | None:
        """Return an operation of the prologue; None where nothing of it is here."""
        if isinstance(op, Exchange):
            return self.exchange(op)
        found: Operation
        if isinstance(op, Write):
            source = next((k for k, other in enumerate(writes) if other is op), op.source)
            zeros = op.source < 0 or self.plan.initializers[op.source].writes_zeros
            found = Write(source, self.here(op.nodes) if zeros else self.nodes(op.nodes))
        elif isinstance(op, Propagate):
            found = Propagate(self.edges(op.edges), self.nodes(op.nodes))
        else:
            assert isinstance(op, Activate)
            found = Activate(self.nodes(op.nodes))
        return found if len(found.nodes) else None

    def exchange(self, op: Exchange) -> Exchange:
        rank = self.part.rank
        mine = (op.sender == rank) | (op.receiver == rank)
        return Exchange(
            op.kind, self.part.local[op.nodes[mine]], op.sender[mine], op.receiver[mine], joint=not op.idle
        )  # fmt: skip

    def stage(self, stage: Stage) -> Stage:
        return Stage(
            Propagate(self.edges(stage.propagate.edges), self.nodes(stage.propagate.nodes)),
            Compare(self.nodes(stage.compare.nodes)),
            Pull(self.edges(stage.pull.edges)),
            Move(self.nodes(stage.move.nodes)),
            tuple(
                (Propagate(self.edges(p.edges), self.nodes(p.nodes)), Offset(self.nodes(o.nodes)))
                for p, o in stage.offsets
            ),
            tuple((Relay(self.nodes(r.nodes)), Pull(self.edges(p.edges))) for r, p in stage.relays),
            Shift(self.nodes(stage.shift.nodes)),
            tuple(map(self.exchange, stage.states)),
            tuple(map(self.exchange, stage.signals)),
        )

    # -- what the plan was asked for ----------------------------------------------------------------------------------

    def request(self) -> Request:
        r = self.plan.request
        local = self.part.local
        clamped = self.here(np.array(sorted(r.clamped), dtype=np.int64)) if r.clamped else NONE
        return replace(
            r,
            clamped=frozenset(clamped.tolist()),
            masked=self.named(r.masked),
            nudged=self.named(r.nudged),
            only=None if r.only is None else self.named(r.only),
            kept=None if r.kept is None else self.named(r.kept),
            frozen_edges=frozenset(self.edges(np.array(sorted(r.frozen_edges), dtype=np.int64)).tolist()),
            frozen_biases=self.named(r.frozen_biases),
            precision=tuple(sorted((int(local[i]), value) for i, value in r.precision if self._owns(i))),
            pins=self.pins(dict(r.pins)),
        )

    def pins(self, kernels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Pin the buckets here by the names that those of the whole have in which their edges lie."""
        named = {bucket.name: self.part.weight_rows(bucket)[0].name for bucket in self.part.structure.buckets}
        return tuple(sorted((own, kernels[whole]) for own, whole in named.items() if whole in kernels))

    def _owns(self, i: int) -> bool:
        return self.part.cut.owner[i] == self.part.rank  # type: ignore[no-any-return]

    def flow(self) -> Flow:
        """Return the flow here: a ghost has no error."""
        flow, part = self.plan.flow, self.part

        def errors(mask: Mask) -> Mask:
            return mask[part.nodes] & part.own

        return Flow(flow.steps, tuple(map(errors, flow.errors)), tuple(mask[part.nodes] for mask in flow.moves))
