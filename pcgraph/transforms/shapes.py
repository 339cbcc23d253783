"""Flatten, Reshape and Activate have no weights and keep the number of neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph import activations
from pcgraph.arguments import LARGEST, is_integer, shown
from pcgraph.errors import GraphError
from pcgraph.transforms.base import Shape, Transform

__all__ = ["Activate", "Flatten", "Reshape"]


class _Rearranged(Transform):
    """The edge hands on the same numbers in the same order under another shape."""

    def pullback(self, g: Tensor, x: Tensor) -> Tensor:
        """Return `g` in the shape of `x`."""
        return g.reshape(x.shape)

    def entries(self, source_shape: Shape, target_shape: Shape) -> Tensor | None:
        return torch.arange(math.prod(source_shape), device="cpu").expand(2, -1)


class Flatten(_Rearranged):
    """The edge lays all neurons out in one dimension.

    A :class:`~pcgraph.transforms.Linear` edge flattens by itself; this is for edges that keep the values.

    Examples
    --------
    >>> Flatten().output_shape((3, 4, 5))
    (60,)
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Reshape(_Rearranged):
    """The edge gives the state another shape with as many neurons.

    Parameters
    ----------
    shape : int, or tuple or list of int
        Without the batch; one of them may be -1.

    Examples
    --------
    >>> Reshape((3, -1)).output_shape((12,))
    (3, 4)
    """

    def __init__(self, shape: int | Sequence[int]) -> None:
        super().__init__()
        sizes = shape if isinstance(shape, tuple | list) else (shape,)
        self.shape = tuple(int(i) for i in sizes if is_integer(i) and (0 < int(i) < LARGEST or int(i) == -1))
        if not sizes or len(self.shape) < len(sizes) or self.shape.count(-1) > 1:
            raise GraphError(
                f"Reshape needs positive sizes, of which one may be -1 (found {shown(shape)})", found=shape
            )

    def output_shape(self, input_shape: Shape) -> Shape:
        size, known = math.prod(input_shape), math.prod(i for i in self.shape if i != -1)
        if size % known or (-1 not in self.shape and size != known):
            raise GraphError(
                f"{self} takes no state of shape {tuple(input_shape)}: it has {size} neurons", found=tuple(input_shape)
            )
        return tuple(size // known if i == -1 else i for i in self.shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}

    def extra_repr(self) -> str:
        return str(self.shape)


class Activate(Transform):
    """An activation can be a step of a :class:`~pcgraph.transforms.Sequence`, where it comes between others.

    Parameters
    ----------
    activation : str or callable
        A name of :data:`pcgraph.activations.ACTIVATIONS`, or a callable that preserves shapes.

    Examples
    --------
    >>> Activate("relu")(torch.tensor([[-1.0, 2.0]]))
    tensor([[0., 2.]])
    """

    def __init__(self, activation: str | Any) -> None:
        super().__init__()
        self.activation = activations.get(activation)

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x)

    def pullback(self, g: Tensor, x: Tensor) -> Tensor:
        """Return the activation's own pullback."""
        return self.activation.pullback(g, x)

    def config(self) -> dict[str, Any]:
        if isinstance(self.activation.function, nn.Module):
            return {"activation": self.activation.function}
        if not self.activation.named:
            raise GraphError(
                f"Activate({self.activation.name}) cannot be saved: it holds a Python callable; use a named one",
                found=self.activation,
            )
        return {"activation": self.activation.name}

    def extra_repr(self) -> str:
        return repr(self.activation.name)
