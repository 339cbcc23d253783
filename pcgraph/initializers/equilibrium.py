"""Equilibrium settles without the targets first, and starts the clamped phase from there (paper, end of Section 3.1).

The energy is minimised twice, as in equilibrium propagation: once with the targets released, once with them fixed.
Where a sweep exists with the targets released, it is the exact fixed point of the first phase and is taken. Elsewhere
the free graph is settled component by component in condensation order: whatever can be swept is swept, and each cycle
runs until its states stop moving, everything before it being fixed and nothing behind it pulling on it. Slots, through
which what lies behind does pull, are no part of the first phase: it settles main predictions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from torch import Tensor

from pcgraph.arguments import read_names, require_count, require_number, shown
from pcgraph.errors import ConfigError
from pcgraph.initializers.base import Block, Context, Given, Initializer, Layout, Relaxation, Swept
from pcgraph.optimizers import SGD, StateOptimizer
from pcgraph.solvers import Solver
from pcgraph.topology import Report, Verdict, check

__all__ = ["Equilibrium"]

Node = Hashable


class Equilibrium(Initializer):
    """Equilibrium puts a free phase before the clamped one. Every graph admits it.

    Parameters
    ----------
    release : iterable of nodes
        The targets, which the first phase does not see.
    steps : int
        The largest number of steps for each cyclic component of the free graph.
    optimizer : StateOptimizer or Solver, optional
        What moves states in the first phase; the default is ``SGD(lr=0.1)``.
    tolerance : float
        A component has settled when no neuron's gradient of the energy is larger than this.

    Attributes
    ----------
    residual : float
        The largest gradient left by the last free phase; 0 where a sweep was taken.
    """

    across = "nodes"

    def __init__(
        self, release: Iterable[Node], steps: int = 200, optimizer: StateOptimizer | Solver | None = None, *,
        tolerance: float = 1e-4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.release = read_names(release, "release")
        self.steps = require_count(steps, "steps", least=1)
        self.tolerance = require_number(tolerance, "tolerance", above=0)
        self.products = 2 * self.steps
        given = SGD(lr=0.1) if optimizer is None else optimizer
        if not isinstance(given, StateOptimizer | Solver):
            raise ConfigError(
                f"optimizer must be a state optimizer or a solver, as in optimizer=pcgraph.SGD(lr=0.1) "
                f"(found {shown(given)})",
                key="optimizer",
            )
        self.optimizer = given
        self.residual = 0.0

    def requirement(self, report: Report) -> Verdict:
        known = set(report.nodes)
        for node in self.release:
            if node not in known:
                return Verdict(
                    False, f"releases the node {node!r}, which the graph does not have", None,
                    f"Name nodes of the graph: {', '.join(map(repr, report.nodes[:8]))}.", "Equilibrium(…)",
                )  # fmt: skip
        return report.verdicts["equilibrium"]

    def layout(self, report: Report, context: Context | None = None) -> Layout:
        """Return a sweep, if one passes through no released node; else what the free phase settles."""
        if context is None:
            return super().layout(report)
        graph = context.network.graph
        targets = set(self.release) & report.clamped
        structure = context.network.structure
        if not report.partial and not any(structure.feeds_main(structure.number[v]) for v in targets):
            order = check(graph, report.clamped - targets, repair=False).order
            if order is not None:
                return Layout((Swept(tuple(v for v in order if v not in targets)),))
        return self.settled(report, context)

    def settled(self, report: Report, context: Context | None) -> Layout:
        """Lay out the free phase, component by component, whether or not a sweep would do."""
        after = () if context is None else tuple(self._relaxations(report, context))
        return Layout((Given(self, report.free, after),))

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        relaxed = context.relaxed[self]
        self.residual = relaxed.residual
        for k, node in enumerate(block.nodes):
            out[k].copy_(relaxed.states[node])

    def _relaxations(self, report: Report, context: Context) -> Iterator[Relaxation]:
        """Yield one relaxation for each cycle in condensation order, and one sweep for all that lies between two."""
        release = frozenset(self.release)
        known = set(report.clamped - report.partial - release)
        free = check(context.network.graph, known, repair=False)
        swept: list[Node] = []  # known as soon as somebody asks
        for component in free.components:
            todo = [v for v in component if v not in known]
            if not todo:
                continue
            before = [v for v in free.free if v in known] + swept
            if len(free.sweep(initialised=before, among=todo).order) == len(todo):
                swept += todo
                continue
            if swept:
                yield Relaxation(tuple(swept), 0, None, self.tolerance, release)
            yield Relaxation(tuple(todo), self.steps, self.optimizer, self.tolerance, release)
            known.update(swept, todo)
            swept = []
        if swept:
            yield Relaxation(tuple(swept), 0, None, self.tolerance, release)

    def extra_repr(self) -> str:
        return f"release={self.release!r}, steps={self.steps}, tolerance={self.tolerance:g}"

    @property
    def plan_key(self) -> Hashable:
        return (type(self), id(self), self.release, self.steps, self.tolerance, id(self.optimizer))

    def ready(self, context: Context | None) -> object:
        self.residual = 0.0
        return None
