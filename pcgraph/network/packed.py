"""Packed parameters are read and written where they lie: none of them may be computed from others."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor, nn

from pcgraph.errors import GraphError

__all__ = ["Packed"]


def _refuse(name: str) -> NoReturn:
    raise GraphError(
        f"the parameter {name!r} holds the weights of all edges of a kind, or the biases of all nodes of a shape, and "
        "its gradient is written into it: it cannot be taken away, nor be computed from others, as parametrizations, "
        "weight_norm and pruning ask for. Let the edge have a module of its own instead, as in "
        "transform=nn.utils.parametrizations.weight_norm(nn.Linear(4, 3, bias=False)); for a weight of which only a "
        "part exists there are SparseLinear and MaskedLinear",
        found=name,
    )


class _Kept(dict[str, Any]):
    """A module holds its parameters here, of which none can be taken away."""

    def __delitem__(self, name: str) -> None:
        _refuse(name)


class Packed(nn.ParameterDict):
    """In this ParameterDict every parameter stays what it is, a leaf that an optimizer moves.

    A parameter may be set anew, as in ``net.weights[name] = nn.Parameter(...)``. torch's parametrizations and pruning
    take a parameter away and put a tensor in its place that is computed before each forward call; the network would go
    on with that tensor, and whatever it is computed from would never learn. They are refused when they are asked for.

    Examples
    --------
    >>> import torch
    >>> packed = Packed({"weight": torch.zeros(2, 3)})
    >>> nn.utils.parametrizations.weight_norm(packed, "weight")
    Traceback (most recent call last):
    ...
    pcgraph.errors.GraphError: the parameter 'weight' holds the weights of all edges of a kind, ...
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self.__dict__["_parameters"] = _Kept()
        if parameters is not None:
            self.update(parameters)

    def __delitem__(self, key: str) -> None:
        _refuse(key)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Take a parameter that the dictionary names; pruning and weight_norm bring others, with a suffix."""
        if name not in self._keys:
            _refuse(next((key for key in self._keys if name.startswith(key)), name))
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Take no buffer."""
        _refuse(name)
