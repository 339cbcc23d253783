"""The edge attribute ``init`` says how the weights of an edge are drawn, by name or by a function.

A function fills a tensor in place, from the generator that it is given:

    init(tensor, generator, fan_in)

``tensor`` is the weight of one edge, (neurons of the target, neurons of the source), or the stored entries of a
``SparseLinear`` edge, (entries,); ``fan_in`` the number of neurons that reach one of the target over all of its edges.
Edges that declare nothing are drawn as ``nn.Linear`` is, before all others, so that an ``init`` on one edge leaves the
weights of the rest as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.arguments import shown
from pcgraph.errors import GraphError, unknown_name
from pcgraph.transforms.base import uniform_

__all__ = ["BATCHED", "INITS", "Fill", "Init", "read_init"]

Fill = Callable[[Tensor, torch.Generator, int], object]
Init = str | Fill


def kaiming_uniform(tensor: Tensor, generator: torch.Generator, fan_in: int) -> None:
    """Draw as ``nn.Linear`` does: U(-1/sqrt(n), 1/sqrt(n)), n the `fan_in`."""
    uniform_(tensor, fan_in**-0.5, generator)


def normal(tensor: Tensor, generator: torch.Generator, fan_in: int) -> None:
    """Draw N(0, 1), whatever the size: a ``scale`` on the edge says how large what it sends is."""
    tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float32, device="cpu"))


def xavier_uniform(tensor: Tensor, generator: torch.Generator, fan_in: int) -> None:
    """Draw U(-a, a) with a = sqrt(6 / (n + m)), n the `fan_in` and m the neurons of the target."""
    uniform_(tensor, math.sqrt(6 / (fan_in + tensor.shape[-2])), generator)


def orthogonal(tensor: Tensor, generator: torch.Generator, fan_in: int) -> None:
    """Draw an orthogonal matrix, or rows or columns of one where the two ends differ in size."""
    square = torch.empty(tensor.shape, dtype=torch.float64, device="cpu")
    tensor.copy_(nn.init.orthogonal_(square, generator=generator))


def zeros(tensor: Tensor, generator: torch.Generator, fan_in: int) -> None:
    """Start at zero: the edge sends nothing until it has learned."""
    tensor.zero_()


#: The ways of drawing weights that have a name. A graph with one of these can be saved.
INITS: dict[str, Fill] = {
    "kaiming_uniform": kaiming_uniform,
    "normal": normal,
    "xavier_uniform": xavier_uniform,
    "orthogonal": orthogonal,
    "zeros": zeros,
}
#: They take many weights of one fan-in at once, (edges, out, in).
BATCHED: tuple[Fill, ...] = (kaiming_uniform, normal, xavier_uniform, zeros)
#: Kinds of edges that have no weight of their own to draw -> why.
WITHOUT = {
    "identity": "its transform hands its source's state on and has none",
    "transposed": "its weight is the transpose of another edge's, which says it",
}
#: They need the matrix, and not its stored entries alone.
DENSE: tuple[Fill, ...] = (xavier_uniform, orthogonal)


def read_init(value: Any, kind: str, where: tuple[Any, ...], text: str) -> Init | None:
    """Read what an edge says of its weights; `text` names the edge.

    Raises
    ------
    GraphError
        It is no known name and no function, or the edge has no weights that a network draws.
    """
    if value is None:
        return None
    if isinstance(value, str) and value not in INITS:
        raise GraphError(f"{text}: {unknown_name('init', value, INITS)}", where=where, found=value)
    if not isinstance(value, str) and (not callable(value) or isinstance(value, type)):
        raise GraphError(
            f"{text} needs an init that is one of {', '.join(map(repr, INITS))}, or a function "
            f"(tensor, generator, fan_in) that fills the tensor in place (found {shown(value)})",
            where=where,
            found=value,
        )
    if kind not in ("linear", "sparse"):
        why = WITHOUT.get(kind, "its transform draws its own")
        raise GraphError(
            f"{text} has an init, which says how a network draws weights, but {why}: remove it"
            + ("" if kind in WITHOUT else ", or set the weights of the module before it is declared"),
            where=where,
            found=value,
        )
    if kind == "sparse" and isinstance(value, str) and INITS[value] in DENSE:
        raise GraphError(
            f"{text}: the init {value!r} is of a whole matrix, and this edge has stored entries alone: use 'normal', "
            "or a function that fills a tensor of shape (entries,)",
            where=where,
            found=value,
        )
    return value
