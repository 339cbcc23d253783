"""What an edge does to the state of its source: ``f_uv`` in ``mu_v = sigma_v(b_v + sum_u f_uv(phi_uv(h_u)))``.

The weights of :class:`Linear` and :class:`SparseLinear` edges are not kept here: the network packs those of like
edges into one tensor (see :mod:`pcgraph.network`), and these classes only say what kind of edge it is. Any other
transform is an ``nn.Module`` that keeps its own parameters and is differentiated by autograd on its edge alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pcgraph.errors import GraphError, unknown_name

__all__ = ["TRANSFORMS", "Identity", "Linear", "Module", "Transform", "get"]

Shape = tuple[int, ...]


class Transform(nn.Module):
    """Base class of every transform. Write :meth:`output_shape` and :meth:`forward`.

    ``pullback(g, x)`` and ``weight_grad(g, x)`` may be added for speed: the vector-Jacobian products of `g`, shape
    (batch, *output_shape), with respect to the input and to the parameters. Without them autograd supplies both.
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape, without the batch, of what :meth:`forward` returns for an input of `input_shape`."""
        raise TypeError(f"{type(self).__name__} must define output_shape(input_shape)")

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, *input_shape) to (batch, *output_shape)."""
        raise TypeError(f"{type(self).__name__} must define forward(x)")

    def fits(self, source_shape: Shape, target_shape: Shape) -> Shape | None:
        """None if the transform leads from one shape to the other, else the shape that it leads to."""
        shape = tuple(self.output_shape(source_shape))
        return None if shape == tuple(target_shape) else shape

    def entries(self, source_shape: Shape, target_shape: Shape) -> Tensor | None:
        """The stored entries as (source neuron, target neuron), shape (2, entries); None: every pair."""
        return None


class Linear(Transform):
    """A dense matrix from all neurons of the source to all neurons of the target, ``W h``.

    It has no bias of its own: the bias belongs to the node. Shapes of several dimensions are flattened.
    """

    def fits(self, source_shape: Shape, target_shape: Shape) -> Shape | None:
        return None


class Identity(Transform):
    """The source's state as it is. Source and target have the same shape."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def entries(self, source_shape: Shape, target_shape: Shape) -> Tensor | None:
        return torch.arange(math.prod(source_shape)).expand(2, -1)


class Module(Transform):
    """Any ``nn.Module`` as an edge; its parameters become the network's.

    Parameters
    ----------
    module : nn.Module
        Maps (batch, *input_shape) to (batch, *output_shape), each sample by itself.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def output_shape(self, input_shape: Shape) -> Shape:
        parameter = next(self.module.parameters(), None)
        like = torch.empty(()) if parameter is None else parameter
        was_training = self.module.training
        try:
            with torch.no_grad():
                y = self.module.eval()(torch.zeros((1, *input_shape), dtype=like.dtype, device=like.device))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise GraphError(
                f"the module {type(self.module).__name__} takes no input of shape {tuple(input_shape)}: {error}",
                found=tuple(input_shape),
            ) from error
        finally:
            self.module.train(was_training)
        return tuple(y.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)  # type: ignore[no-any-return]


#: The transforms that have a name, each made without arguments.
TRANSFORMS: dict[str, Callable[[], Transform]] = {"linear": Linear, "identity": Identity}


def get(spec: str | nn.Module | None) -> Transform:
    """The transform that `spec` names or is; None is :class:`Linear`.

    Raises
    ------
    GraphError
        An unknown name, or something that is no ``nn.Module``.

    Examples
    --------
    >>> get("identity")
    Identity()
    """
    if spec is None:
        return Linear()
    if isinstance(spec, str):
        if spec not in TRANSFORMS:
            raise GraphError(unknown_name("transform", spec, TRANSFORMS), found=spec)
        return TRANSFORMS[spec]()
    if isinstance(spec, Transform):
        return spec
    if isinstance(spec, nn.Module):
        return Module(spec)
    raise GraphError(
        f"a transform is a name, a pcgraph.transforms.Transform or an nn.Module instance (found {spec!r})", found=spec
    )
