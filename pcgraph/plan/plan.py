"""A plan holds everything that will be computed, in order, and nothing that need not be."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pcgraph.arguments import require_count, require_instance
from pcgraph.initializers import Initializer, Layout
from pcgraph.network import Cut, Piece, Structure
from pcgraph.plan import explain
from pcgraph.plan.compile import Compiler, Stage
from pcgraph.plan.exchange import Exchanges
from pcgraph.plan.flow import Flow, Mask
from pcgraph.plan.operations import Index, Learn, Measure, Operation, Propagate, Pull
from pcgraph.plan.products import Products, joint_products, products_of
from pcgraph.plan.ranks import Machine, Ranks
from pcgraph.plan.request import Request
from pcgraph.plan.smm import SMM, count

__all__ = ["Lowering", "Matmuls", "Phase", "Plan", "make_plan"]

Phase = Literal["initialize", "step", "finish", "learn"]


class Lowering(Protocol):
    """A lowering tells of a plan what only a backend knows, before the backend lowers it."""

    def describe(self, plan: Plan) -> tuple[str, ...]:
        """Return lines for :meth:`Plan.explain`: which kernels compute what."""

    def memory(self, plan: Plan, batch: int) -> int:
        """Estimate the bytes that a run needs beside the parameters."""


@dataclass(frozen=True)
class Matmuls:
    """A run multiplies weights with batches of states so many times; each edge counts as one product.

    Attributes
    ----------
    init, forward, backward, weights : int
        Products in the initialization; on what has moved; of errors back to their sources; for the weight gradients.
    """

    init: int
    forward: int
    backward: int
    weights: int

    @property
    def total(self) -> int:
        """Return the sum of all four."""
        return self.init + self.forward + self.backward + self.weights


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan says what to run for one structure, set of clamps, initializer and number of steps. It never changes.

    It holds names, numbers and steps; no weights, no data and no device. Make one with ``net.plan(...)``.

    Attributes
    ----------
    structure : Structure
    request : Request
        What the plan was asked for.
    layout : Layout
        What the initializer gives and sweeps.
    flow : Flow
        Which errors may differ from zero, and which states move, at each step.
    initializers : tuple of Initializer
        The initializers that write states, in the order in which the plan numbers them.
    prologue : tuple of Operation
        The initialization.
    begin : Propagate
        What comes in before the first step, of nodes that are not exact.
    measure : Measure or None
        The nodes whose variable is the error, where inference moves errors (``coordinates=Errors()``).
    stages : tuple of Stage
        The distinct steps; the last one repeats.
    final : Stage
        What is computed after the last step: what moved in it is propagated, and errors are taken.
    learn : Learn
        The edges and nodes whose parameters get gradients.
    level : ndarray of int64, shape (edges,)
        The first step before which each edge's product is computed anew.
    free, exact : ndarray of bool, shape (nodes,)
        Nodes that are not wholly clamped; nodes that begin with exactly zero error.
    sweep_depth, waves : int
        Products on the longest path that a sweep takes, and the waves that it takes.
    cut : Cut or None
        Which rank owns each node, where the plan is for several ranks.
    part : Piece or None
        Which nodes these are of the whole, where the plan is that of one rank among several.
    """

    structure: Structure
    request: Request
    layout: Layout
    flow: Flow
    initializers: tuple[Initializer, ...]
    prologue: tuple[Operation, ...]
    begin: Propagate
    measure: Measure | None
    stages: tuple[Stage, ...]
    final: Stage
    learn: Learn
    level: Index
    free: Mask
    exact: Mask
    sweep_depth: int
    waves: int
    lowering: Lowering | None = None
    cut: Cut | None = None
    part: Piece | None = None

    @property
    def steps(self) -> int:
        """Return the number of inference steps, T."""
        return self.request.steps

    @property
    def duals(self) -> Index:
        """Return the numbers of the nodes with a dual."""
        return self.final.shift.nodes

    @cached_property
    def scheduled(self) -> Index:
        """Return the numbers of the nodes and slots whose precision is another in each step."""
        return np.array([i for i, value in self.request.precision if isinstance(value, tuple)], dtype=np.int64)

    def precisions(self, t: int) -> tuple[NDArray[np.float64] | None, ...]:
        """Return for each segment the precisions of its nodes in step `t` of this run, or None where all are 1."""
        key = t if len(self.scheduled) else 0
        if key not in self._precisions:
            self._precisions[key] = self._precisions_at(t)
        return self._precisions[key]

    @cached_property
    def _precisions(self) -> dict[int, tuple[NDArray[np.float64] | None, ...]]:
        return {}

    def _precisions_at(self, t: int) -> tuple[NDArray[np.float64] | None, ...]:
        s = self.structure
        found = [segment.precision for segment in s.segments]
        for i, given in self.request.precision:
            value = given[t] if isinstance(given, tuple) else given
            k, segment = int(s.segment_of[i]), s.segments[int(s.segment_of[i])]
            own = found[k]
            if own is None or own is segment.precision:
                own = found[k] = np.ones(segment.stop - segment.start) if own is None else own.copy()
            own[i - s.nodes_of(segment).start] = value
        return tuple(found)

    def stage(self, t: int) -> Stage:
        """Return what step `t` runs, or for t = `steps` what is computed after the last one."""
        return self.final if t == self.steps else self.stages[min(t, len(self.stages) - 1)]

    def timeline(self, distinct: bool = False) -> Iterator[tuple[int, Phase, Operation]]:
        """Yield every operation of a run in order, as (step, phase, operation).

        Everything that interprets a plan walks along here: its proof, its counts and its explanation.

        Parameters
        ----------
        distinct : bool
            Whether steps that repeat are left out: :meth:`repeats` says how often each of those that are left is run.
        """
        for operation in self.prologue:
            yield 0, "initialize", operation
        yield 0, "initialize", self.begin
        if self.measure is not None:
            yield 0, "initialize", self.measure
        for t in range(min(self.steps, len(self.stages)) if distinct else self.steps):
            for operation in self.stage(t).operations():
                yield t, "step", operation
        for operation in self.final.evaluation():
            yield self.steps, "finish", operation
        yield self.steps, "learn", self.learn

    def repeats(self, t: int) -> int:
        """Tell how many steps are like step `t`, itself and later ones: 1 but for the last distinct one."""
        return self.steps - t if t == len(self.stages) - 1 else 1

    def span(self, t: int) -> str:
        """Name step `t` and those that are like it."""
        return f"step {t}" if self.repeats(t) == 1 else f"steps {t} to {t + self.repeats(t) - 1}"

    # -- counting -----------------------------------------------------------------------------------------------------

    @cached_property
    def _visits(self) -> dict[str, Index]:
        """Count how often each edge is multiplied, shape (edges,): to initialize, forward, back and to learn."""
        kinds = ("init", "forward", "backward", "weights")
        total = {kind: np.zeros(len(self.structure.source), dtype=np.int64) for kind in kinds}
        for t, phase, operation in self.timeline(distinct=True):
            times = self.repeats(t) if phase == "step" else 1
            if isinstance(operation, Propagate):
                total["init" if phase == "initialize" else "forward"][operation.edges] += times
            elif isinstance(operation, Pull):
                total["backward"][operation.edges] += times
            elif isinstance(operation, Learn):
                total["weights"][operation.edges] += 1
        return total

    @cached_property
    def matmuls(self) -> Matmuls:
        """Count the products that the whole run needs, weight gradients included."""
        return Matmuls(**{kind: self.products(visits) for kind, visits in self._visits.items()})

    def products(self, edges: Index) -> int:
        """Count the products for edges that are visited so often, shape (edges,); identities multiply nothing."""
        multiply = (b for b in self.structure.buckets if b.multiplies)
        return sum(int(edges[bucket.start : bucket.stop].sum()) for bucket in multiply)

    @cached_property
    def smm(self) -> SMM:
        """Count the sequential matrix multiplications of one weight update (paper, Eq 5 and 6)."""
        return count(self)

    def flops(self, batch: int) -> int:
        """Count the floating-point operations in matrix products for one batch, weight gradients included.

        A module on an edge, and a combine with all edges into its node, is run once on tensors without data, and
        counted as torch counts it. What cannot be run so is in :attr:`uncounted`, and missing here.
        """
        batch, total = require_count(batch, "batch", least=1), 0
        modules = self._modules(batch)
        for b, bucket in enumerate(self.structure.buckets):
            init, forward, backward, weights = (
                int(visits[bucket.start : bucket.stop].sum()) for visits in self._visits.values()
            )
            total += 2 * batch * bucket.entries(self.structure.groups) * (init + forward + backward + weights)
            known = modules.get(b)
            if known is not None:
                total += (init + forward) * known.forward + backward * known.pull + weights * known.weights
        return total

    @cached_property
    def uncounted(self) -> tuple[str, ...]:
        """Return the names of buckets of modules, and of joint edges, whose products :meth:`flops` does not know."""
        known = self._modules(1)
        return tuple(self.structure.buckets[b].name for b in sorted(known) if known[b] is None)

    def _modules(self, batch: int) -> dict[int, Products | None]:
        """Count what an edge does of each bucket of modules, or of joint edges; None where that is not known."""
        s = self.structure
        found: dict[int, Products | None] = {}
        for b, bucket in enumerate(s.buckets):
            if bucket.kind == "module":
                shapes = s.groups[bucket.source_group].shape, s.groups[bucket.target_group].shape
                found[b] = products_of(bucket.transform, *shapes, batch)
        for i, edges in s.joint.items():
            each = joint_products(s.joint_prediction(i), s.groups[int(s.group_of[i])].shape, batch)
            found |= {int(s.bucket_of[e]): None if each is None else each[k] for k, e in enumerate(edges)}
        return found

    def memory(self, batch: int) -> int:
        """Estimate the bytes that a run needs on the device beside the parameters; the backend does, from shapes.

        The optimizer's own state is not counted.
        """
        assert self.lowering is not None
        return self.lowering.memory(self, require_count(batch, "batch", least=1))

    # -- over several ranks -------------------------------------------------------------------------------------------

    def across(self, partition: Mapping[Hashable, int]) -> Plan:
        """Return this plan with what the ranks of a partition exchange; no process is started for it.

        Raises
        ------
        ConfigError
            The partition is none of this graph.
        """
        cut = Cut.make(self.structure, partition)
        return make_plan(self.structure, self.request, self.layout, self.lowering, cut)

    # -- for people ---------------------------------------------------------------------------------------------------

    def explain(
        self, partition: Mapping[Hashable, int] | None = None, *, batch: int = 1, machine: Machine | None = None
    ) -> str:
        """Say in words what the plan does: kernels by bucket, initialization, distinct steps, products.

        Parameters
        ----------
        partition : mapping, optional
            Node -> rank: what each rank would compute, hold and send, and how well that would go; no process is
            started for it. A plan of a network with a partition tells so of its own.
        batch : int
            For how many samples the ranks are counted.
        machine : Machine, optional
            What the model of time knows of the ranks' computers; a guess if None.

        Raises
        ------
        ConfigError
            The partition is none of this graph.
        """
        require_count(batch, "batch", least=1)
        if machine is not None:
            require_instance(machine, "machine", Machine, "pcgraph.plan.Machine()")
        cut = self if partition is None else self.across(partition)
        if cut.cut is None:
            return explain.text(self)
        lines = Ranks(cut, batch).lines(Machine() if machine is None else machine)
        return "\n".join([explain.text(self), *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        """Show in a notebook what each step computes, what all of it costs, and the graph."""
        return explain.html(self)

    def __repr__(self) -> str:
        return f"Plan({len(self.structure.declared)} nodes, steps={self.steps}, {self.matmuls.total} products)"


def make_plan(
    structure: Structure, request: Request, layout: Layout, lowering: Lowering | None = None, cut: Cut | None = None
) -> Plan:
    """Compile a plan.

    Parameters
    ----------
    structure : Structure
    request : Request
    layout : Layout
        What the initializer gives and sweeps, for the request's clamps.
    lowering : Lowering, optional
        Whom the plan asks about memory and kernels.
    cut : Cut, optional
        Which rank owns each node; the plan then says what ranks exchange.

    Raises
    ------
    InvalidInitializer
        The layout leaves a free node without a value, or sweeps a cycle.
    """
    found = Compiler(structure, request, layout)
    steps = found if cut is None else Exchanges(found, cut)
    return Plan(
        structure, request, layout, found.flow, tuple(found.initializers), steps.prologue, found.begin, found.measure,
        steps.stages, steps.final, found.learn, found.level, found.free, found.exact, found.sweep_depth, found.waves,
        lowering, cut,
    )  # fmt: skip
