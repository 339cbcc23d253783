"""A dense weight may be masked: only some of its entries exist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.arguments import read_numbers, require_shape
from pcgraph.errors import GraphError
from pcgraph.transforms.base import Shape, Transform, holds, uniform_, vjp

__all__ = ["MaskedLinear"]


class MaskedLinear(Transform):
    """A dense matrix is zero outside a fixed mask, and stays so: ``(W * mask) h``.

    It computes the whole product, and so suits masks that are far from empty; for few entries among many,
    ``SparseLinear`` stores and computes only what is there.

    Parameters
    ----------
    mask : array of 0 and 1 or bool, shape (target neurons, source neurons)
        Oriented as a weight: a row for every neuron of the target.
    output_shape : sequence of int, optional
        Shape of the target; ``(target neurons,)`` if None.

    Attributes
    ----------
    weight : Parameter, shape (target neurons, source neurons)
        Zero outside the mask, and its gradient too.

    Examples
    --------
    >>> local = MaskedLinear([[1, 1, 0], [0, 1, 1]])
    >>> local.entries((3,), (2,)).tolist()
    [[0, 1, 1, 2], [0, 0, 1, 1]]
    """

    mask: Tensor

    def __init__(self, mask: Any, output_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        given = read_numbers(mask, "a mask", refuse=GraphError)
        if given.dim() != 2 or not ((given == 0) | (given == 1)).all():
            raise GraphError(
                "a mask is a matrix of 0 and 1 with a row for every target neuron and a column for every source neuron "
                f"(found shape {tuple(given.shape)}{'' if given.dim() != 2 else ' with other values'})",
                found=mask,
            )
        if not given.any():
            raise GraphError(f"a mask needs at least one entry (found none in shape {tuple(given.shape)})", found=mask)
        self._shape = (
            (given.shape[0],)
            if output_shape is None
            else require_shape(output_shape, "output_shape", refuse=GraphError)
        )
        if math.prod(self._shape) != given.shape[0]:
            raise GraphError(
                f"the mask has {given.shape[0]} rows, but the target shape {self._shape} has {math.prod(self._shape)} "
                "neurons; they must be equal",
                found=self._shape,
            )
        self.register_buffer("mask", given.detach().bool().clone(), persistent=False)
        self.weight = nn.Parameter(torch.zeros(given.shape, device=given.device))
        self.reset_parameters()

    def output_shape(self, input_shape: Shape) -> Shape:
        if math.prod(input_shape) != self.mask.shape[1]:
            raise GraphError(
                f"the mask has {self.mask.shape[1]} columns, one for each source neuron, but the source's shape "
                f"{tuple(input_shape)} has {math.prod(input_shape)} neurons",
                found=tuple(input_shape),
            )
        return self._shape

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ (self.weight * self.mask).t()).reshape(-1, *self._shape)

    @torch.no_grad()
    def pullback(self, g: Tensor, x: Tensor) -> Tensor:
        """Return ``(W * mask)^T g`` in the shape of `x`."""
        return (g.flatten(1) @ (self.weight * self.mask)).reshape(x.shape)

    @torch.no_grad()
    def weight_grad(self, g: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Return ``(g^T x) * mask``, summed over the batch."""
        if not holds(self, "weight"):
            return vjp(self, g, x)[1]
        return {"weight": (g.flatten(1).t() @ x.flatten(1)) * self.mask}

    def entries(self, source_shape: Shape, target_shape: Shape) -> Tensor | None:
        return self.mask.nonzero().t().flip(0)

    def fan_in(self, input_shape: Shape) -> int:
        """Return that of the target neuron with the most entries."""
        return int(self.mask.sum(1).max())

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        """Draw Kaiming-uniform by row: U(-1/sqrt(n), 1/sqrt(n)), n the neurons that reach this row's neuron."""
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        rows = self.mask.sum(1, keepdim=True).cpu()
        others = 0 if fan_in is None else max(fan_in - int(rows.max()), 0)
        uniform_(self.weight, (rows + others).clamp(min=1).float().rsqrt(), generator)
        self.weight.mul_(self.mask)

    def config(self) -> dict[str, Any]:
        return {"mask": self.mask.int().tolist(), "output_shape": list(self._shape)}

    def extra_repr(self) -> str:
        return f"{self.mask.shape[1]} -> {self._shape}, {int(self.mask.sum())} entries"
