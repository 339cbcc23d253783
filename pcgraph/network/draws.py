"""All weights and biases of a network are drawn here, from its seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcgraph.errors import GraphError, said_by
from pcgraph.network.inits import BATCHED, INITS, Init
from pcgraph.network.structure import Structure

__all__ = ["draw_parameters", "fill_weight"]


@torch.no_grad()
def draw_parameters(
    structure: Structure, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor], seed: int
) -> None:
    """Draw what is packed and let the transforms draw their own, all on the CPU.

    What declares nothing is Kaiming-uniform as in ``nn.Linear``: U(-1/sqrt(n), 1/sqrt(n)), n the neurons that reach the
    target. A bias whose node no drawn weight reaches starts at zero. Transforms draw their own parameters, or keep
    them. Edges with an ``init`` come last, so that all others are what they would be without.

    Parameters
    ----------
    structure : Structure
    weights : mapping
        Name of a bucket -> (rows, out, in), or (rows, entries).
    biases : mapping
        Their names in the structure -> (nodes with a bias, *shape).
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    s = structure
    bound = torch.from_numpy((s.fan_in > 0) / np.sqrt(np.maximum(s.fan_in, 1)))
    for bucket in s.buckets:
        if bucket.kind in ("linear", "sparse"):
            limit = bound[torch.from_numpy(s.target[bucket.start : bucket.stop])]
            if bucket.weight is not None:
                rows = torch.from_numpy(bucket.weight)
                limit = limit.new_empty(bucket.rows).index_copy_(0, rows, limit)
            _uniform(weights[bucket.name], limit, generator)
    for name, own in s.bias_packs():
        _uniform(biases[name], bound[torch.from_numpy(own)], generator)
    for bucket in s.buckets:
        if bucket.kind in ("module", "joint"):
            bucket.transform.reset_parameters(generator, int(s.fan_in[s.target[bucket.start : bucket.stop]].max()))
    _draw_declared(structure, weights, generator)


def _uniform(packed: Tensor, limit: Tensor, generator: torch.Generator) -> None:
    """Fill each row with U(-limit, limit), with a limit of its own."""
    draw = torch.rand(packed.shape, generator=generator, dtype=torch.float32, device="cpu")
    packed.copy_((2 * draw - 1) * limit.to(torch.float32).view(-1, *[1] * (packed.dim() - 1)))


def _draw_declared(s: Structure, weights: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """Draw the weights of all edges that say how, in the order in which they lie in memory."""
    for name, rows, first in _stretches(s):
        init, fan_in = s.inits[first], int(s.fan_in[s.target[first]])
        tensor = weights[name][rows]
        batched = isinstance(init, str) and INITS[init] in BATCHED
        for part in (tensor,) if batched else tensor:
            fill_weight(init, part, generator, fan_in, s.edge(first))


def _stretches(s: Structure) -> Iterator[tuple[str, slice, int]]:
    """Yield (bucket, rows, first edge) for neighbouring rows that are drawn alike; each row once."""
    drawn: set[tuple[str, int]] = set()
    found: list[tuple[str, int, int, int]] = []
    last: tuple[str, Init, int] | None = None
    for e in sorted(s.inits):
        bucket = s.buckets[int(s.bucket_of[e])]
        row = bucket.row(e)
        if (bucket.name, row) in drawn:
            continue
        drawn.add((bucket.name, row))
        alike = (bucket.name, s.inits[e], int(s.fan_in[s.target[e]]))
        if isinstance(s.inits[e], str) and alike == last and row == found[-1][2]:
            found[-1] = (*found[-1][:2], row + 1, found[-1][3])
        else:
            found.append((bucket.name, row, row + 1, e))
        last = alike
    yield from ((name, slice(begin, end), first) for name, begin, end, first in found)


def fill_weight(init: Init, tensor: Tensor, generator: torch.Generator, fan_in: int, edge: Any) -> None:
    """Fill a tensor as an init says, by name or by a function, which is looked after.

    Raises
    ------
    GraphError
        The function fails, returns another tensor, or leaves numbers that are not finite; `edge` is named.
    """
    if isinstance(init, str):
        INITS[init](tensor, generator, fan_in)
        return
    here = tensor.detach()  # an alias, which stays where the function leads the tensor elsewhere
    text = f"the init of the edge {edge[0]!r} -> {edge[1]!r}" if isinstance(edge, tuple) else f"the init of {edge}"
    tensor.fill_(math.nan)  # what the function leaves out is seen below, and is no memory of something else
    try:
        returned = init(tensor, generator, fan_in)
    except Exception as error:  # a function of somebody's own may raise what it likes
        raise GraphError(
            f"{text} fails on (tensor of shape {tuple(tensor.shape)}, generator, fan_in={fan_in}): {said_by(error)}",
            where=edge,
            found=init,
        ) from error
    if tensor.shape != here.shape or tensor.data_ptr() != here.data_ptr():
        raise GraphError(
            f"{text} must fill its tensor of shape {tuple(here.shape)}, and neither resize nor replace it",
            where=edge,
            found=init,
        )
    if returned is not None and returned is not tensor:
        raise GraphError(
            f"{text} must fill its tensor in place, as nn.init does (found another {type(returned).__name__} returned)",
            where=edge,
            found=init,
        )
    if not bool(torch.isfinite(tensor).all()):
        raise GraphError(f"{text} must leave finite weights (found NaN or infinity)", where=edge, found=init)
