"""Transforms by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pcgraph.errors import GraphError
from pcgraph.named import Named
from pcgraph.transforms.base import Identity, Linear, Transform
from pcgraph.transforms.images import AvgPool2d, Conv2d, ConvTranspose2d, MaxPool2d, Upsample
from pcgraph.transforms.masked import MaskedLinear
from pcgraph.transforms.modules import Module
from pcgraph.transforms.shapes import Activate, Flatten, Reshape
from pcgraph.transforms.sparse import SparseLinear

__all__ = ["TRANSFORMS", "from_config", "get", "name_of"]

#: The transforms that have a name. Add your own class, with a ``config()``, and graphs with it can be saved.
TRANSFORMS: dict[str, type[Transform]] = {
    "linear": Linear,
    "identity": Identity,
    "conv2d": Conv2d,
    "conv_transpose2d": ConvTranspose2d,
    "max_pool2d": MaxPool2d,
    "avg_pool2d": AvgPool2d,
    "upsample": Upsample,
    "flatten": Flatten,
    "reshape": Reshape,
    "activate": Activate,
    "masked_linear": MaskedLinear,
    "sparse_linear": SparseLinear,
    "module": Module,
}
_NAMED = Named("transform", "pcgraph.transforms.TRANSFORMS", TRANSFORMS)


def from_config(name: str, config: Mapping[str, Any]) -> Transform:
    """The transform with this name and these arguments: the inverse of ``name_of(t), t.config()``.

    Raises
    ------
    GraphError
        An unknown name, or arguments that the class does not take.

    Examples
    --------
    >>> from_config("max_pool2d", {"kernel_size": 2}).output_shape((1, 4, 4))
    (1, 2, 2)
    """
    return _NAMED.make(name, config)


def name_of(transform: Transform) -> str:
    """The name under which the transform's class is registered.

    Raises
    ------
    GraphError
        It has none.

    Examples
    --------
    >>> name_of(Flatten())
    'flatten'
    """
    return _NAMED.name_of(transform)


def get(spec: str | nn.Module | Sequence[Any] | None) -> Transform:
    """The transform that `spec` names or is.

    Parameters
    ----------
    spec : None, str, pair or nn.Module
        None is :class:`Linear`; a name of :data:`TRANSFORMS` for one that needs no arguments; ``(name, arguments)``,
        such as ``("max_pool2d", {"kernel_size": 2})``, which keeps a declaration pure data; or an instance.

    Raises
    ------
    GraphError
        An unknown name, wrong or missing arguments, or something that is no ``nn.Module``.

    Examples
    --------
    >>> get("identity")
    Identity()
    """
    if spec is None:
        return Linear()
    if isinstance(spec, str):
        kind = _NAMED.kind(spec)
        needed = [
            n for n, p in inspect.signature(kind.__init__).parameters.items()
            if n != "self" and p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ]  # fmt: skip
        if needed:
            raise GraphError(
                f"the transform {spec!r} needs {', '.join(needed)}: give an instance, as in "
                f"transform=pcgraph.transforms.{kind.__name__}(...)",
                found=spec,
            )
        return kind()
    if isinstance(spec, tuple | list) and len(spec) == 2 and isinstance(spec[0], str) and isinstance(spec[1], Mapping):
        return from_config(*spec)
    if isinstance(spec, Transform):
        return spec
    if isinstance(spec, nn.Module):
        return Module(spec)
    raise GraphError(
        "a transform is a name, a pair (name, arguments), a pcgraph.transforms.Transform or an nn.Module instance "
        f"(found {spec!r})",
        found=spec,
    )
