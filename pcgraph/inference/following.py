"""The curvature is measured where a batch begins, and a rate that follows it is brought up to date by that."""

from __future__ import annotations

import torch
from torch import Tensor

from pcgraph.backends import Motion
from pcgraph.clamps import Clamps
from pcgraph.coordinates import Errors
from pcgraph.inference.curvature import largest_curvature
from pcgraph.inference.options import Options
from pcgraph.inference.planner import Planner
from pcgraph.inference.run import run
from pcgraph.initializers import Initializer, States
from pcgraph.optimizers import Following, StateOptimizer
from pcgraph.plan import Precision, Request
from pcgraph.solvers import Solver

__all__ = ["curvature_at", "follow"]


def curvature_at(
    planner: Planner, checked: Clamps, init: Initializer, labels: Tensor | None, coordinates: Errors | None,
    weights: Precision, iterations: int, direction: Tensor | None, seed: int, settled: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Find the largest curvature of each sample where inference begins, and the direction in which it is found."""
    known, partly = checked.clamped, frozenset(checked.masked)
    kept = planner.kept(coordinates, known, partly)
    # Nothing is promised, so that the second step computes everything.
    request = Request(known, partly, steps=2, fixes_zero=False, kept=kept, precision=weights)
    prepared = planner.prepare(request, checked, init, labels)
    with torch.inference_mode(False):
        return largest_curvature(planner, prepared, iterations, direction, seed, settled)


def follow(
    planner: Planner, checked: Clamps, optimizer: StateOptimizer | Solver | None, init: Initializer,
    labels: Tensor | None, coordinates: Errors | None, weights: Precision,
) -> None:  # fmt: skip
    """Measure the curvature for a rate that follows it, at the states where the first samples of a batch begin."""
    rate = getattr(optimizer, "lr", None)
    if not isinstance(rate, Following):
        return
    if rate.due:
        few, begun = _begun(planner, checked, init, labels, weights, rate.samples)
        with planner.taking(None):  # every process looks at the same samples
            found = curvature_at(
                planner, few, begun, None, coordinates, weights, rate.iterations, rate.direction, 0, rate.settled
            )
        part = planner.rows
        # What is computed alike may differ in its last bits by where it lies in memory.
        rate.see(*(found if part is None else map(part.group.broadcast, found)))
    rate.ran()


def _begun(
    planner: Planner, checked: Clamps, init: Initializer, labels: Tensor | None, weights: Precision, most: int
) -> tuple[Clamps, States]:  # fmt: skip
    """Return the first samples of a batch, and the states where they begin."""
    part = planner.rows
    count = min(most, checked.batch if part is None else part.total)

    def first(rows: Tensor) -> Tensor:
        return rows[:count] if part is None else part.first(rows, count)

    request = Request.make(checked.clamped, frozenset(checked.masked), 0, None, precision=weights)
    prepared = planner.prepare(request, checked, init, labels)
    program, _ = run(planner, prepared, Motion(), Options(check=False))
    names = planner.net.structure.declared
    free = [i for i in range(len(names)) if i not in checked.values]
    here = [i for i in free if program.holds(i)]
    few = Clamps(
        count,
        {i: first(value) for i, value in checked.values.items()},
        {i: (first(value), first(mask)) for i, (value, mask) in checked.masked.items()},
    )
    begun = States({names[i]: first(program.read(i, "state")).clone() for i in here})
    begun.elsewhere = frozenset(names[i] for i in free).difference(begun.states)
    return few, begun
