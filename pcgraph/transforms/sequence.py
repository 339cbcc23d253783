"""Several transforms make one edge."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as SequenceABC
from typing import Any, cast

import torch
from torch import Tensor, nn

from pcgraph.arguments import shown
from pcgraph.errors import GraphError
from pcgraph.transforms.base import Linear, Shape, Transform
from pcgraph.transforms.registry import get, name_of

__all__ = ["Sequence"]


class Sequence(Transform):
    """Several transforms, one after the other, make one edge: no state lies between them.

    ``Sequence([Conv2d(...), Activate("gelu"), MaxPool2d(2)])`` is a block whose state is that after the pooling.

    Parameters
    ----------
    parts : iterable
        At least one, each whatever an edge's ``transform`` may be. A dense ``Linear`` cannot be one of them,
        since its weight lies in the network: use ``nn.Linear``.

    Examples
    --------
    >>> from pcgraph.transforms import Activate, Conv2d, MaxPool2d
    >>> Sequence([Conv2d(3, 64, 3, padding=1), Activate("gelu"), MaxPool2d(2)]).output_shape((3, 32, 32))
    (64, 16, 16)
    """

    def __init__(self, parts: Iterable[Transform | nn.Module | str | SequenceABC[Any]]) -> None:
        super().__init__()
        if isinstance(parts, str | dict) or not isinstance(parts, Iterable):
            raise GraphError(f"the parts of a Sequence are a list of transforms (found {shown(parts)})", found=parts)
        parts = list(parts)
        made = [get(part) for part in parts]
        if not made or any(isinstance(p, Linear) for p in made):
            raise GraphError(
                "a Sequence needs at least one part, and none that is Linear, whose weight lies in the network "
                f"(found {shown(parts)}); nn.Linear has its own",
                found=parts,
            )
        self.parts = nn.ModuleList(made)

    def _transforms(self) -> list[Transform]:
        return cast(list[Transform], list(self.parts))

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        for part in self._transforms():
            shape = tuple(part.output_shape(shape))
        return shape

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def fan_in(self, input_shape: Shape) -> int:
        """Return that of the last part with weights, whose result reaches the target."""
        found, shape = 0, tuple(input_shape)
        for part in self._transforms():
            found = part.fan_in(shape) or found
            shape = tuple(part.output_shape(shape))
        return found

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        """Draw each part in turn; `fan_in` is for the last one with weights, whose result reaches the target."""
        weighted = [part for part in self._transforms() if any(True for _ in part.parameters())]
        for part in weighted:
            part.reset_parameters(generator, fan_in if part is weighted[-1] else None)

    def config(self) -> dict[str, Any]:
        return {"parts": [[name_of(part), part.config()] for part in self._transforms()]}
