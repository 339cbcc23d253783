"""Transforms are declared and saved by these names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pcgraph.registry import Registry
from pcgraph.transforms.base import Identity, Linear, Transform
from pcgraph.transforms.embedding import Embedding, RowLinear
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
    "embedding": Embedding,
    "flatten": Flatten,
    "reshape": Reshape,
    "row_linear": RowLinear,
    "activate": Activate,
    "masked_linear": MaskedLinear,
    "sparse_linear": SparseLinear,
    "module": Module,
}
_REGISTRY = Registry(
    "transform", Transform, "pcgraph.transforms.TRANSFORMS", TRANSFORMS,
    ", a pcgraph.transforms.Transform or an nn.Module instance",
)  # fmt: skip


def from_config(name: str, config: Mapping[str, Any]) -> Transform:
    """Make the transform with this name and these arguments: the inverse of ``name_of(t), t.config()``.

    Raises
    ------
    GraphError
        The name is unknown, or the class does not take these arguments.

    Examples
    --------
    >>> from_config("max_pool2d", {"kernel_size": 2}).output_shape((1, 4, 4))
    (1, 2, 2)
    """
    return _REGISTRY.make(name, config)


def name_of(transform: Transform) -> str:
    """Return the name under which the transform's class is registered.

    Raises
    ------
    GraphError
        It has none.

    Examples
    --------
    >>> name_of(Flatten())
    'flatten'
    """
    return _REGISTRY.name_of(transform)


def get(spec: str | nn.Module | Sequence[Any] | None) -> Transform:
    """Return the transform that `spec` names or is.

    Parameters
    ----------
    spec : None, str, pair or nn.Module
        None is :class:`Linear`; a name of :data:`TRANSFORMS` for one that needs no arguments; ``(name, arguments)``,
        such as ``("max_pool2d", {"kernel_size": 2})``, which keeps a declaration pure data; or an instance.

    Raises
    ------
    GraphError
        The name is unknown, arguments are wrong or missing, or `spec` is no ``nn.Module``.

    Examples
    --------
    >>> get("identity")
    Identity()
    """
    if spec is None:
        return Linear()
    if isinstance(spec, nn.Module) and not isinstance(spec, Transform):
        return Module(spec)
    return _REGISTRY.get(spec)
