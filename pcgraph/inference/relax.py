"""Parts of the network are relaxed by themselves before an initialization, for initializers that ask for it."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from pcgraph.backends import Motion
from pcgraph.clamps import Clamps
from pcgraph.inference.descent import descend
from pcgraph.inference.options import Options
from pcgraph.inference.planner import Planner
from pcgraph.initializers import Context, Given, Initializer, Relaxation, Relaxed
from pcgraph.plan import Plan, Precision

__all__ = ["relaxed"]

Node = Hashable


def relaxed(planner: Planner, plan: Plan, context: Context) -> dict[Initializer, Relaxed]:
    """Run all relaxations that a plan's layout asks for, in order; each initializer sees its own alone."""
    wanted: dict[Initializer, tuple[Relaxation, ...]] = {}
    for action in plan.layout.actions:
        if isinstance(action, Given) and action.after:
            wanted[action.source] = action.after
    # A relaxation comes before the first step, whose precisions it has.
    precision = tuple((i, p[0] if isinstance(p, tuple) else p) for i, p in plan.request.precision)
    return {source: _relax_all(planner, after, context, precision) for source, after in wanted.items()}


def _relax_all(
    planner: Planner, after: tuple[Relaxation, ...], context: Context, precision: Precision
) -> Relaxed:  # fmt: skip
    known = {v: h for v, h in context.clamps.items() if v not in after[0].release}
    settled: frozenset[Node] = frozenset(known)
    residual = 0.0
    for relaxation in after:
        states, left = _relax(planner, relaxation, settled, known, context, precision)
        known.update(states)
        known.update(context.network.spread(states, relaxation.nodes, context.batch))
        settled = settled.union(relaxation.nodes)
        residual = max(residual, left)
    if context.part is not None:
        left_anywhere = torch.tensor([residual], dtype=torch.float64, device=context.network.device)
        residual = float(context.part.largest(left_anywhere))
    return Relaxed(known, residual)


def _relax(
    planner: Planner, relaxation: Relaxation, settled: frozenset[Node], known: dict[Node, Tensor], context: Context,
    precision: Precision,
) -> tuple[dict[Node, Tensor], float]:  # fmt: skip
    """Relax some nodes given all that they read, as if nothing read them.

    Parameters
    ----------
    settled : frozenset of nodes
        Clamps, and what was relaxed before.
    known : dict
        Their states, (batch, *shape), as far as this process has or reads them.

    Returns
    -------
    dict
        Node -> its state, (batch, *shape), of those that are computed here.
    float
        The largest gradient that is left.
    """
    number = context.network.structure.number
    numbered = {number[v]: h for v, h in known.items()}
    plan = planner.part(frozenset(number[v] for v in settled), relaxation, precision)
    program = planner.program(plan, context.batch)
    own = Context(context.batch, dict(known), None, context.network, plan.initializers)
    options = Options(check=False, tolerance=relaxation.tolerance)
    seen = descend(program, Clamps(context.batch, numbered, {}), own, Motion(relaxation.optimizer), options)
    left = 0.0 if seen.residual is None else float(seen.residual.max())
    here = [v for v in relaxation.nodes if program.holds(number[v])]
    return {v: program.read(number[v], "state").clone() for v in here}, left
