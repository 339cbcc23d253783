"""The largest curvature of the energy for what inference moves says which rates are stable.

Descent with the rate a multiplies a deviation along an eigenvector of the Hessian by ``1 - a * eigenvalue`` in every
step: it shrinks for a below 2 / eigenvalue and grows beyond. The largest eigenvalue is found by power iteration; a
product with the Hessian is a central difference of two gradients.
"""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pcgraph.backends import Motion, keep
from pcgraph.inference.planner import Planner, Prepared
from pcgraph.inference.relax import relaxed
from pcgraph.inference.run import hold
from pcgraph.network import Network

__all__ = ["largest_curvature"]

#: The last draw of a network's first direction, which looks of a run begin with again and again.
_draws: WeakKeyDictionary[Network, tuple[object, Tensor]] = WeakKeyDictionary()

#: Length of the finite difference, relative to the largest variable, by the precision of the states.
SHIFT = {torch.float64: 1e-5, torch.float32: 1e-2}


@torch.no_grad()
def largest_curvature(
    planner: Planner, prepared: Prepared, iterations: int, direction: Tensor | None, seed: int, settled: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Find the largest curvature where inference begins, for each sample, since samples do not couple.

    Parameters
    ----------
    planner : Planner
    prepared : Prepared
        A run of two steps of an optimizer that promises nothing, so that its second step computes everything.
    iterations : int
        Of the power iteration, each with two gradients; at most.
    direction : Tensor or None, shape (batch, variables)
        Where it begins; a draw from `seed` if None or of another shape. On a network that is cut over ranks, all of
        them have the whole of it.
    seed : int
    settled : float
        It ends where the largest of all samples has changed by no more than this part of it.

    Returns
    -------
    curvature : Tensor, shape (batch,)
    direction : Tensor, shape (batch, variables)
        Where it ended, to begin there the next time.
    """
    clamps, context = prepared.clamps, prepared.context
    context = replace(context, relaxed=relaxed(planner, prepared.plan, context))
    program, motion = planner.program(prepared.plan, clamps.batch), Motion()
    program.start(clamps, context)
    program.evaluate(0)
    begun = program.rows(1, "variable").clone()
    part, (own, width) = context.part, program.columns(1)
    if direction is None or direction.shape != (len(begun), width) or direction.dtype != begun.dtype:
        direction = _drawn(planner.net, len(begun) if part is None else part.total, width, seed).to(begun.dtype)
        direction = direction if part is None else direction[part.rows]
    columns = None if own is None else torch.from_numpy(own).to(begun.device)
    direction = direction if columns is None else direction[:, columns]
    largest = begun.abs().max() if begun.numel() else begun.new_zeros(())
    largest = program.largest(largest if part is None else part.largest(largest))
    shift = SHIFT.get(begun.dtype, 1e-2) * largest.clamp(min=1.0)  # a number of the device's: nothing waits for it

    def gradient(variables: Tensor) -> Tensor:
        program.assign(1, variables)
        program.evaluate(1)
        program.pull(1, motion)
        return program.rows(1, "gradient").clone()

    def length(variables: Tensor) -> Tensor:
        return program.summed(variables.square().sum(1)).sqrt()

    curvature = begun.new_zeros(clamps.batch)
    for _ in range(iterations):
        direction = direction / length(direction).unsqueeze(1).clamp(min=torch.finfo(begun.dtype).tiny)
        above, below = gradient(begun + shift * direction), gradient(begun - shift * direction)
        direction = (above - below) / (2 * shift)
        before, curvature = curvature, length(direction)
        if settled and float((curvature.amax() - before.amax()).abs()) <= settled * float(curvature.amax()):
            break
    hold(program)
    if columns is not None:
        direction = program.summed(direction.new_zeros(len(begun), width).index_copy_(1, columns, direction))
    return curvature, direction


def _drawn(network: Network, rows: int, width: int, seed: int) -> Tensor:
    """Draw a first direction, (rows, width), the same on all devices; where it was the last one, it is there."""
    key = (rows, width, seed, network.device)
    kept = _draws.get(network)
    if kept is None or kept[0] != key:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(rows, width, generator=generator, dtype=torch.float32, device="cpu")
        _draws[network] = kept = (key, drawn.to(network.device))
    return keep(kept[1])
