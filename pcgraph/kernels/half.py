"""Dense products under ``torch.autocast``: factors in autocast's dtype, what they are added to in the states' own.

Weights are cast once a run, states and signals in every product. Its result is rounded to autocast's dtype, as torch's
own is; what is added up or scaled after that is in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcgraph.kernels.workspace import Workspace

__all__ = ["forward", "learn", "product", "pull"]


def _cast(ws: Workspace, name: str, x: Tensor) -> Tensor:
    """`x` in autocast's dtype, transposed in memory if `x` is."""
    if x.dtype == ws.half:
        return x
    if x.is_contiguous():
        return ws.scratch(name, *x.shape, dtype=ws.half).copy_(x)
    return ws.scratch(name, *x.mT.shape, dtype=ws.half).copy_(x.mT).mT


def product(ws: Workspace, x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """``x y``, one product or one of each pair, written to `out` or to scratch."""
    x, y = _cast(ws, "left", x), _cast(ws, "right", y)
    shape = *x.shape[:-1], y.shape[-1]
    narrow = ws.scratch("product", *shape, dtype=ws.half)
    (torch.mm if x.dim() == 2 else torch.bmm)(x, y, out=narrow)
    return (ws.scratch("product", *shape) if out is None else out).copy_(narrow)


def forward(ws: Workspace, a: Tensor, x: Tensor, w: Tensor, bias: Tensor | None, fresh: bool) -> Tensor:
    """``a += x w``; where `a` is fresh, bias and product are written."""
    if not fresh:
        return a.add_(product(ws, x, w))
    product(ws, x, w, a)
    return a if bias is None else a.add_(bias)


def pull(ws: Workspace, e: Tensor, s: Tensor, w: Tensor, fresh: bool) -> Tensor:
    """``e -= s w``; where `e` is fresh, the negated product is written."""
    return product(ws, s, w, e).neg_() if fresh else e.sub_(product(ws, s, w))


def learn(ws: Workspace, grad: Tensor, s: Tensor, x: Tensor, scale: float, beta: float) -> Tensor:
    """``grad -= scale * s x``; where `beta` is 0, it is written."""
    return grad.add_(product(ws, s, x), alpha=-scale) if beta else product(ws, s, x, grad).mul_(-scale)
