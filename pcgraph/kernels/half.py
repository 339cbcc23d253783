"""Dense products under ``torch.autocast``: factors in autocast's dtype, what they are added to in the states' own.

Weights are cast once a run, states and signals in every product. Its result is rounded to autocast's dtype, as torch's
own is; what is added up or scaled after that is in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pcgraph.kernels.workspace import Workspace

__all__ = ["back", "learn", "product", "put", "widened"]


def _cast(ws: Workspace, name: str, x: Tensor) -> Tensor:
    """`x` in autocast's dtype, transposed in memory if `x` is."""
    if x.dtype == ws.half:
        return x
    if x.is_contiguous():
        return ws.scratch(name, *x.shape, dtype=ws.half).copy_(x)
    return ws.scratch(name, *x.mT.shape, dtype=ws.half).copy_(x.mT).mT


def product(ws: Workspace, x: Tensor, y: Tensor) -> Tensor:
    """``x y`` in autocast's dtype, one product or one of each pair, in scratch."""
    x, y = _cast(ws, "left", x), _cast(ws, "right", y)
    out = ws.scratch("product", *x.shape[:-1], y.shape[-1], dtype=ws.half)
    return torch.mm(x, y, out=out) if x.dim() == 2 else torch.bmm(x, y, out=out)


def widened(ws: Workspace, x: Tensor, y: Tensor) -> Tensor:
    """The same in the states' dtype."""
    narrow = product(ws, x, y)
    return ws.scratch("product", *narrow.shape).copy_(narrow)


def put(a: Tensor, product: Tensor, fresh: bool, bias: Tensor | None) -> Tensor:
    """Write bias and product to `a` where it is fresh, else add the product."""
    if not fresh:
        return a.add_(product)
    return a.copy_(product) if bias is None else torch.add(product, bias, out=a)


def back(e: Tensor, product: Tensor, fresh: bool) -> Tensor:
    """Write the negated product to `e` where it is fresh, else subtract it."""
    return e.copy_(product).neg_() if fresh else e.sub_(product)


def learn(grad: Tensor, product: Tensor, scale: float, beta: float) -> None:
    """Add the product, scaled, to a gradient; or write it there where `beta` is 0."""
    if beta:
        grad.add_(product, alpha=-scale)
    else:
        grad.copy_(product).mul_(-scale)
