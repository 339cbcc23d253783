"""What is relaxed before an initialization: parts of the network by themselves, for initializers that ask for it."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from pcgraph.backends import Motion
from pcgraph.clamps import Clamps
from pcgraph.inference.planner import Planner
from pcgraph.initializers import Context, Given, Initializer, Layout, Relaxation, Relaxed

__all__ = ["relaxed"]

Node = Hashable


def relaxed(planner: Planner, layout: Layout, context: Context) -> dict[Initializer, Relaxed]:
    """Run all relaxations that a layout asks for, in order; each initializer sees its own alone."""
    wanted: dict[Initializer, tuple[Relaxation, ...]] = {}
    for action in layout.actions:
        if isinstance(action, Given) and action.after:
            wanted[action.source] = action.after
    return {source: _relax_all(planner, after, context) for source, after in wanted.items()}


def _relax_all(planner: Planner, after: tuple[Relaxation, ...], context: Context) -> Relaxed:
    known = {v: h for v, h in context.clamps.items() if v not in after[0].release}
    residual = 0.0
    for relaxation in after:
        states, left = _relax(planner, relaxation, known, context)
        known.update(states)
        residual = max(residual, left)
    return Relaxed(known, residual)


def _relax(
    planner: Planner, relaxation: Relaxation, known: dict[Node, Tensor], context: Context
) -> tuple[dict[Node, Tensor], float]:
    """Relax some nodes given all that they read, as if nothing read them: their states, and the largest gradient."""
    number = context.network.structure.number
    numbered = {number[v]: h for v, h in known.items()}
    plan = planner.part(frozenset(numbered), relaxation)
    program = planner.program(plan, context.batch)
    motion, residual = Motion(relaxation.optimizer), 0.0
    own = Context(context.batch, dict(known), None, context.network, plan.initializers)
    program.start(Clamps(context.batch, numbered, {}), own)
    for t in range(plan.steps):
        program.evaluate(t)
        program.pull(t, motion)
        residual = program.residual(t)
        if residual <= relaxation.tolerance:
            break
        program.move(t, motion)
    return {v: program.read(number[v], "state").clone() for v in relaxation.nodes}, residual
