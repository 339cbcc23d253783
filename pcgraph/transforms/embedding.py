"""Tokens become rows of features, and what is done to each row alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.arguments import require_count, require_flag, require_room
from pcgraph.errors import GraphError
from pcgraph.transforms.base import Shape, Transform, uniform_

__all__ = ["Embedding", "RowLinear"]


class Embedding(Transform):
    """Each neuron of the source holds the number of a token, and becomes that row of a table.

    A node all of whose edges are embeddings is clamped to whole numbers, in any dtype; they are looked at before
    anything runs. The target has the shape of the source and one dimension more, and its bias, one for each neuron, is
    a learned code of positions. Nothing is sent back: a token does not move. The state of one that is not clamped is
    read as the nearest token.

    Parameters
    ----------
    tokens : int
        Rows of the table.
    features : int
        Columns of it. They are drawn from N(0, 1) by the network's seed, as those of ``nn.Embedding``.

    Examples
    --------
    >>> Embedding(26, 8).output_shape((5,))
    (5, 8)
    """

    def __init__(self, tokens: int, features: int) -> None:
        super().__init__()
        self.tokens = require_count(tokens, "tokens", least=1, refuse=GraphError)
        self.features = require_count(features, "features", least=1, refuse=GraphError)
        size = torch.get_default_dtype().itemsize * self.tokens * self.features
        require_room(size, "the table of an embedding", "tokens", refuse=GraphError)
        self.weight = nn.Parameter(torch.empty(self.tokens, self.features, device="cpu"))
        self.reset_parameters()

    def output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.features)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[x.detach().round().clamp(0, self.tokens - 1).long()]

    def pullback(self, g: Tensor, x: Tensor) -> Tensor:
        """Return zero: a small change of a token changes nothing."""
        return torch.zeros_like(x)

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        with torch.no_grad():
            self.weight.copy_(torch.randn(self.weight.shape, generator=generator, dtype=torch.float32, device="cpu"))

    def config(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "features": self.features}

    def extra_repr(self) -> str:
        return f"{self.tokens}, {self.features}"


class RowLinear(Transform):
    """Each row of (rows, features) goes through one dense map: ``W h``, or ``W n(h)`` with n a layer normalisation.

    As ``nn.Linear``, without its bias, which belongs to the node, and drawn from the network's seed. The normalisation
    takes the mean and the variance of a row, and has a factor for each feature.

    Parameters
    ----------
    in_features, out_features : int
    normalize : bool

    Examples
    --------
    >>> RowLinear(8, 3).output_shape((5, 8))
    (5, 3)
    """

    factors: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, normalize: bool = False) -> None:
        super().__init__()
        self.in_features = require_count(in_features, "in_features", least=1, refuse=GraphError)
        self.out_features = require_count(out_features, "out_features", least=1, refuse=GraphError)
        self.normalize = require_flag(normalize, "normalize", refuse=GraphError)
        size = torch.get_default_dtype().itemsize * self.in_features * self.out_features
        require_room(size, "the weight of a RowLinear", "in_features", refuse=GraphError)
        self.weight = nn.Parameter(torch.empty(self.out_features, self.in_features, device="cpu"))
        factors = nn.Parameter(torch.ones(self.in_features, device="cpu")) if self.normalize else None
        self.register_parameter("factors", factors)
        self.reset_parameters()

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or input_shape[-1] != self.in_features:
            raise GraphError(
                f"{self} takes rows of {self.in_features} features (found a state of shape {tuple(input_shape)})",
                found=tuple(input_shape),
            )
        return (*input_shape[:-1], self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        if self.factors is not None:
            x = nn.functional.layer_norm(x, (self.in_features,), self.factors)
        return nn.functional.linear(x, self.weight)

    def fan_in(self, input_shape: Shape) -> int:
        return self.in_features

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        uniform_(self.weight, (fan_in or self.in_features) ** -0.5, generator)
        if self.factors is not None:
            with torch.no_grad():
                self.factors.fill_(1.0)

    def config(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "normalize": self.normalize}

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ", normalize=True" * self.normalize
