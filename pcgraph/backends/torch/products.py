"""Dense products are computed in three ways, one of which is chosen when an operation is bound.

    Plain     torch's own, straight into the result
    OneDNN    large products forward and back, where oneDNN is faster (:mod:`pcgraph.backends.torch.onednn`)
    Half      under ``torch.autocast``: factors in autocast's dtype, what they are added to in the states' own

Factors are given as functions of no arguments, since they may have to be gathered first. All work on one product,
(batch, in) with (in, out), or on as many as there are edges, (edges, batch, in) with (edges, in, out).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pcgraph.backends.torch import onednn
from pcgraph.backends.torch.calls import Rows
from pcgraph.backends.torch.workspace import Step, Workspace

__all__ = ["Factor", "Half", "Learn", "OneDNN", "Plain", "products"]

Factor = Callable[[], Tensor]
#: Adds a weight gradient, scaled, to a tensor; or writes it where the last argument, beta, is 0.
Learn = Callable[[Tensor, float, float], object]


class Plain:
    """These products are torch's own."""

    def __init__(self, ws: Workspace, dim: int) -> None:
        self.ws = ws
        self.mm: Callable[..., Tensor] = torch.mm if dim == 2 else torch.bmm
        self.addmm: Callable[..., Tensor] = torch.addmm if dim == 2 else torch.baddbmm

    def forward(self, out: Tensor, x: Factor, w: Tensor, bias: Tensor | None, fresh: bool) -> Step:
        """Bind ``out += x w``; where `out` is fresh, bias and product are written."""
        mm, addmm = self.mm, self.addmm
        if not fresh:
            return lambda: addmm(out, x(), w, out=out)
        if bias is None:
            return lambda: mm(x(), w, out=out)
        return lambda: addmm(bias, x(), w, out=out)

    def pull(self, out: Tensor, s: Factor, w: Tensor, fresh: bool) -> Step:
        """Bind ``out -= s w``; where `out` is fresh, the negated product is written."""
        addmm, beta = self.addmm, 0 if fresh else 1
        return lambda: addmm(out, s(), w, beta=beta, alpha=-1, out=out)

    def product(self, x: Factor, w: Factor) -> Factor:
        """Bind ``x w``, which comes in scratch."""
        ws, mm = self.ws, self.mm

        def run() -> Tensor:
            left, right = x(), w()
            return mm(left, right, out=ws.scratch("product", *left.shape[:-1], right.shape[-1]))

        return run

    def learn(self, where: Rows | int | Tensor, s: Factor, x: Factor) -> Learn:
        """Bind ``grad[where] -= scale * s x``; where beta is 0, it is written."""
        addmm = self.addmm

        def run(grad: Tensor, scale: float, beta: float) -> None:
            addmm(grad[where], s(), x(), beta=beta, alpha=-scale, out=grad[where])

        return run


class OneDNN(Plain):
    """oneDNN computes products forward and back.

    Weight gradients, which reduce over the batch, are faster as they are.
    """

    def forward(self, out: Tensor, x: Factor, w: Tensor, bias: Tensor | None, fresh: bool) -> Step:
        weight = w.t()
        if fresh:
            return lambda: out.copy_(onednn.linear(x(), weight, bias))
        return lambda: out.add_(onednn.linear(x(), weight))

    def pull(self, out: Tensor, s: Factor, w: Tensor, fresh: bool) -> Step:
        weight = w.t()
        if fresh:
            return lambda: torch.neg(onednn.linear(s(), weight), out=out)
        return lambda: out.sub_(onednn.linear(s(), weight))

    def product(self, x: Factor, w: Factor) -> Factor:
        return lambda: onednn.linear(x(), w().t())


class Half(Plain):
    """Factors are cast to autocast's dtype.

    Weights are cast once a run, states and signals in every product. Its result is rounded to autocast's dtype, as
    torch's own is; what is added up or scaled after that is in float32.
    """

    def _cast(self, name: str, x: Tensor) -> Tensor:
        """Return `x` in autocast's dtype, transposed in memory if `x` is."""
        ws = self.ws
        if x.dtype == ws.half:
            return x
        if x.is_contiguous():
            return ws.scratch(name, *x.shape, dtype=ws.half).copy_(x)
        return ws.scratch(name, *x.mT.shape, dtype=ws.half).copy_(x.mT).mT

    def _into(self, x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
        x, y = self._cast("left", x), self._cast("right", y)
        shape = *x.shape[:-1], y.shape[-1]
        narrow = self.ws.scratch("product", *shape, dtype=self.ws.half)
        self.mm(x, y, out=narrow)
        return (self.ws.scratch("product", *shape) if out is None else out).copy_(narrow)

    def forward(self, out: Tensor, x: Factor, w: Tensor, bias: Tensor | None, fresh: bool) -> Step:
        if not fresh:
            return lambda: out.add_(self._into(x(), w))
        if bias is None:
            return lambda: self._into(x(), w, out)
        return lambda: self._into(x(), w, out).add_(bias)

    def pull(self, out: Tensor, s: Factor, w: Tensor, fresh: bool) -> Step:
        if fresh:
            return lambda: self._into(s(), w, out).neg_()
        return lambda: out.sub_(self._into(s(), w))

    def product(self, x: Factor, w: Factor) -> Factor:
        return lambda: self._into(x(), w())

    def learn(self, where: Rows | int | Tensor, s: Factor, x: Factor) -> Learn:
        def run(grad: Tensor, scale: float, beta: float) -> None:
            if beta:
                grad[where].add_(self._into(s(), x()), alpha=-scale)
            else:
                self._into(s(), x(), grad[where]).mul_(-scale)

        return run


def products(ws: Workspace, weight: Tensor) -> Plain:
    """Choose how products with this weight, (out, in) or (edges, out, in), are computed."""
    if ws.half is not None:
        return Half(ws, weight.dim())
    large = weight.dim() == 2 and ws.batch * weight.numel() >= ws.traits.onednn_product
    return (OneDNN if ws.onednn and large else Plain)(ws, weight.dim())
