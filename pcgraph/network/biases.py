"""Read the node attributes ``bias`` (one for each neuron, none, or one that neurons share) and ``prior``.

What treats all places of an image, or all vertices of a graph, alike no longer does so once each neuron has a bias of
its own: a network of graph layers then learns the labels of its vertices by heart. ``bias="channel"`` is one for each
channel, or feature, and any shape that broadcasts to the node's is taken.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch

from pcgraph.arguments import read_numbers, require_shape, shown
from pcgraph.errors import GraphError
from pcgraph.network.slots import called

__all__ = ["by_channel", "read_bias", "read_prior"]

Node = Hashable
Shape = tuple[int, ...]


def by_channel(shape: Shape) -> Shape | None:
    """Return the shape of a bias for each channel of (channels, height, width), or each feature of (rows, features).

    None for other shapes, which have no channels.
    """
    return {1: shape, 2: (1, *shape[1:]), 3: (shape[0], 1, 1)}.get(len(shape))


def read_bias(value: Any, node: Node, shape: Shape) -> Shape | bool:
    """Read what a node, or a slot, says of its bias: whether there is one, or the shape of one that neurons share.

    Raises
    ------
    GraphError
        It is none of them.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    text = f"{called(node)} needs a bias that is True, False, 'channel' or a shape that broadcasts to {shape}"
    own: Any = value
    if isinstance(value, str) and value == "channel":
        own = by_channel(shape)
        if own is None:
            raise GraphError(
                f"{called(node)} has bias='channel' and the shape {shape}: channels are those of (channels, height, "
                "width), or the features of (rows, features); say the shape of the bias itself",
                where=node, found=value,
            )  # fmt: skip
    if not isinstance(own, tuple | list) or len(own) != len(shape):
        raise GraphError(f"{text} (found {shown(value)})", where=node, found=value)
    own = require_shape(
        own, f"the bias of {called(node)}", refuse=lambda said: GraphError(said, where=node, found=value)
    )
    if any(n not in (1, m) for n, m in zip(own, shape)):
        raise GraphError(f"{text} (found {shown(value)})", where=node, found=value)
    return True if own == shape else own


def read_prior(value: Any, node: Node, shape: Shape) -> torch.Tensor:
    """Read what a root, or a slot, says of its prior: numbers that broadcast to its shape, in float64.

    Raises
    ------
    GraphError
        They do not, or are not finite.
    """
    read = read_numbers(
        value, f"the prior of {called(node)}", dtype=torch.float64,
        refuse=lambda text: GraphError(text, where=node, found=value),
    )  # fmt: skip
    try:
        prior = read.to(torch.float64).expand(shape).clone()
    except RuntimeError:
        raise GraphError(
            f"the prior of {called(node)} must broadcast to its shape {shape} (found shape {tuple(read.shape)})",
            where=node,
            found=value,
        ) from None
    if not torch.isfinite(prior).all():
        raise GraphError(f"the prior of {called(node)} must be finite", where=node, found=value)
    return prior
