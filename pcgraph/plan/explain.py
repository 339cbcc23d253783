"""A plan is explained to people: in words, and as a table for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pcgraph import notebook
from pcgraph.network import MAIN, Slot
from pcgraph.plan.operations import NONE, Activate, Index, Move, Propagate, Pull, Write

__all__ = ["html", "text"]

#: Up to so many edges, a plan is explained by their names.
SMALL = 20
#: So many nodes are named, and the rest counted.
NAMED = 8

# A plan is Any here, since it explains itself with this module, which comes before it.


def text(plan: Any) -> str:
    """Say what a plan does: kernels by bucket, initialization, distinct steps, products."""
    s = plan.structure
    lines = [
        f"Plan for {len(s.declared)} nodes and {s.edge_count} edges, {plan.steps} inference steps",
        f"  clamped: {_names(plan, _clamped(plan))}",
        f"  exact after initialization (error 0): {_names(plan, np.flatnonzero(plan.exact))}",
    ]
    if s.slots:
        lines.append(f"  slots, which begin with an error: {_names(plan, np.array(list(s.slots.values())))}")
    if len(plan.duals):
        lines.append(f"  duals, with the rate {plan.request.duals:g}: {_names(plan, plan.duals)}")
    if plan.lowering is not None:
        lines += [f"  {line}" for line in plan.lowering.describe(plan)]
    lines.append(f"  initialization: {_initialization(plan)}")
    for span, ahead, back, moved in _steps(plan):
        products = f"{_products(plan, ahead)} forward and {_products(plan, back)} backward products"
        lines.append(f"  {span}: {products}, {_moves(moved)}{_named(plan, ahead, back)}")
    if plan.steps:
        final = plan.final.forward_edges
        lines.append(f"  after the last step: {_products(plan, final)} forward products{_named(plan, final)}")
    lines.append(f"  weight gradients: {plan.matmuls.weights} products")
    lines.append(f"  sequential matrix multiplications: {plan.smm}")
    lines.append(f"  in all: {plan.matmuls.total} products, {_cost(plan)}")
    return "\n".join(lines)


def html(plan: Any) -> str:
    """Show what each step computes and what all of it costs as a table, and the graph as a picture."""
    rows = [("initialization", str(plan.matmuls.init), "", _initialization(plan))]
    rows += [
        (span, str(_products(plan, ahead)), str(_products(plan, back)), _moves(moved))
        for span, ahead, back, moved in _steps(plan)
    ]
    if plan.steps:
        rows.append(("after the last step", str(_products(plan, plan.final.forward_edges)), "", ""))
    rows.append(("weight gradients", "", str(plan.matmuls.weights), ""))
    title = (
        f"{len(plan.structure.declared)} nodes, {plan.structure.edge_count} edges, {plan.steps} inference steps; "
        f"clamped: {_names(plan, _clamped(plan))}; in all {plan.matmuls.total} products, "
        f"{_cost(plan)}; sequential matrix multiplications: {plan.smm}"
    )
    columns = ("", "forward products", "backward products", "")
    return notebook.table(title, columns, rows) + notebook.picture(plan)


def _steps(plan: Any) -> Iterator[tuple[str, Index, Index, int]]:
    """Yield which steps are alike, their edges forward and backward, and how many states move in each."""
    ahead, back = [NONE], [NONE]
    for t, phase, operation in plan.timeline(distinct=True):
        if phase == "step" and isinstance(operation, Propagate):
            ahead.append(operation.edges)
        elif phase == "step" and isinstance(operation, Pull):
            back.append(operation.edges)
        elif isinstance(operation, Move):
            yield plan.span(t), np.concatenate(ahead), np.concatenate(back), len(operation.nodes)
            ahead, back = [NONE], [NONE]


def _products(plan: Any, edges: Index) -> int:
    return int(plan.products(np.bincount(edges, minlength=len(plan.structure.source))))


def _cost(plan: Any) -> str:
    missing = f", without the modules of {', '.join(plan.uncounted)}" if plan.uncounted else ""
    return f"{plan.flops(1) / 1e6:.3g} MFLOP a sample{missing}"


def _initialization(plan: Any) -> str:
    writers = sorted({o.source for o in plan.prologue if isinstance(o, Write) and o.source >= 0})
    parts = [f"values from {', '.join(type(plan.initializers[i]).__name__ for i in writers)}"] if writers else []
    swept = [v for o in plan.prologue if isinstance(o, Activate) for v in o.nodes]
    if swept:
        waves = f"in {plan.waves} {'wave' if plan.waves == 1 else 'waves'}"
        parts.append(f"a sweep of {_names(plan, np.array(swept))}, {waves}")
    return "; ".join(parts) or "nothing is free"


def _named(plan: Any, forward: Index, back: Index | None = None) -> str:
    """Name the edges, on a graph small enough to be read."""
    s = plan.structure
    if s.edge_count > SMALL:
        return ""

    def names(edges: Index) -> str:
        return ", ".join(_edge(plan, int(e)) for e in np.sort(edges) if not s.is_tie[e]) or "none"

    said = f"forward {names(forward)}"
    return f" ({said})" if back is None else f" ({said}; back {names(back)})"


def _edge(plan: Any, e: int) -> str:
    u, v = plan.structure.edge(e)[:2]
    slot = plan.structure.slot_name(e)
    return f"{u}→{v}" + (f" ({slot})" if slot != MAIN else "")


def _clamped(plan: Any) -> Index:
    found: Index = np.flatnonzero(~plan.free[: len(plan.structure.declared)])
    return found


def _names(plan: Any, nodes: Index) -> str:
    known = (plan.structure.nodes[i] for i in nodes[:NAMED])
    names = [v.short if isinstance(v, Slot) else str(v) for v in known]
    more = len(nodes) - len(names)
    return (", ".join(names) or "none") + (f" and {more} more" if more > 0 else "")


def _moves(states: int) -> str:
    return f"{states} {'state moves' if states == 1 else 'states move'}"
