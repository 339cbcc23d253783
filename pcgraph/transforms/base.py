"""Every transform is one of these; Linear and Identity, which need no module of their own, are here too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.registry import Named

__all__ = ["Identity", "Linear", "Shape", "Transform", "holds", "uniform_", "vjp"]

Shape = tuple[int, ...]


class Transform(Named):
    """Every transform extends this class. Write :meth:`output_shape` and :meth:`forward`.

    Two methods may be added for speed; without one, autograd on this one edge does its work:

    * ``pullback(g, x)``, the vector-Jacobian product of `g`, shape (batch, *output_shape), with the transform at `x`:
      a tensor of the shape of `x`;
    * ``weight_grad(g, x)``, the gradient of ``(g * forward(x)).sum()`` for every parameter: a dict from the names of
      ``named_parameters()`` to tensors.

    Each sample is transformed by itself, and the same state always gives the same result: an edge is evaluated again
    in every inference step, and the energy that inference descends must not change between two steps.
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape, without the batch, of what :meth:`forward` makes of an input of `input_shape`.

        Raises
        ------
        GraphError
            The transform does not take this shape.
        """
        raise TypeError(f"{type(self).__name__} must define output_shape(input_shape)")

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, *input_shape) to (batch, *output_shape)."""
        raise TypeError(f"{type(self).__name__} must define forward(x)")

    def fits(self, source_shape: Shape, target_shape: Shape) -> Shape | None:
        """Return None if the transform leads from one shape to the other, else the shape that it leads to."""
        shape = tuple(self.output_shape(source_shape))
        return None if shape == tuple(target_shape) else shape

    def entries(self, source_shape: Shape, target_shape: Shape) -> Tensor | None:
        """Return the stored entries as (source neuron, target neuron), shape (2, entries); None means every pair."""
        return None

    def fan_in(self, input_shape: Shape) -> int:
        """Count the neurons of the source that reach one of the target through a weight; 0 where there is none."""
        return 0

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        """Draw the transform's own parameters anew; a network calls this with a generator made from its seed.

        The default leaves them as they are: a transform that does not define this keeps the values it came with.

        Parameters
        ----------
        generator : torch.Generator, optional
            On the CPU. None: one with a fixed seed, so that declaring a transform leaves the global generator alone.
        fan_in : int, optional
            Neurons that reach the target over all of its edges; None: over this edge alone.
        """


class Linear(Transform):
    """A dense matrix leads from all neurons of the source to all neurons of the target, ``W h``.

    It has no bias of its own: the bias belongs to the node. Shapes of several dimensions are flattened.
    """

    def fits(self, source_shape: Shape, target_shape: Shape) -> Shape | None:
        return None

    def fan_in(self, input_shape: Shape) -> int:
        return math.prod(input_shape)


class Identity(Transform):
    """The edge hands on the source's state as it is. Source and target have the same shape."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def pullback(self, g: Tensor, x: Tensor) -> Tensor:
        """Return `g` itself."""
        return g

    def entries(self, source_shape: Shape, target_shape: Shape) -> Tensor | None:
        return torch.arange(math.prod(source_shape), device="cpu").expand(2, -1)


@torch.no_grad()
def uniform_(parameter: Tensor, bound: float | Tensor, generator: torch.Generator) -> None:
    """Fill with U(-bound, bound), drawn in float32 on the CPU: a seed means the same on every device and dtype."""
    draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float32, device="cpu")
    parameter.copy_((2 * draw - 1) * bound)


def holds(module: nn.Module, name: str) -> bool:
    """Tell whether `name` is a parameter, or None, and nothing that pruning or a parametrization computes."""
    return name in module._parameters


def vjp(transform: nn.Module, g: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Take both vector-Jacobian products of `transform` at `x` by autograd: of the input, and of parameters by name.

    Parameters
    ----------
    g : Tensor, shape (batch, *output_shape)
    x : Tensor, shape (batch, *input_shape)
    """
    named = dict(transform.named_parameters())
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        y = transform(leaf)
        wanted: Mapping[str, Tensor] = {"": leaf, **{name: p for name, p in named.items() if p.requires_grad}}
        grads: Any = [None] * len(wanted)
        if y.requires_grad:
            grads = torch.autograd.grad(y, list(wanted.values()), g, allow_unused=True)
    found = {k: torch.zeros_like(t) if d is None else d for (k, t), d in zip(wanted.items(), grads)}
    back = found.pop("")
    return back, {name: found.get(name, torch.zeros_like(p)) for name, p in named.items()}
