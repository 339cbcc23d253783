"""Describe modules of ``torch.nn`` by class and arguments, and make them again.

Most of torch's modules keep each argument of their constructor as an attribute. Whether that holds of one at hand is
not believed but tried: the description is used only where the module that it makes is the same.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["arguments_of", "make_module"]

NOT_SAID = {"self", "args", "kwargs", "device", "dtype", "min_value", "max_value"}
"""The network says on which device and of which dtype its parameters are; the last two are Hardtanh's old names."""


def arguments_of(module: nn.Module) -> dict[str, Any] | None:
    """Find the arguments that make a module like this one; None where it is more than its class and arguments say.

    Examples
    --------
    >>> arguments_of(nn.Linear(3, 2, bias=False))
    {'in_features': 3, 'out_features': 2, 'bias': False}
    """
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind or module._forward_hooks or module._forward_pre_hooks:
        return None
    arguments = {}
    for name in inspect.signature(kind.__init__).parameters:
        if name not in NOT_SAID and not name.startswith("_"):
            value = getattr(module, name, inspect.Parameter.empty)
            if value is inspect.Parameter.empty:
                return None
            arguments[name] = value is not None if name == "bias" and not isinstance(value, bool) else value
    return arguments if _makes_the_same(module, arguments) else None


def _makes_the_same(module: nn.Module, arguments: dict[str, Any]) -> bool:
    try:
        with torch.device("meta"):
            made = type(module)(**arguments)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return False
    return repr(made) == repr(module) and _outline(made) == _outline(module)


def _outline(module: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Name the parameters and buffers of a module, and what can be seen of them without their values."""
    tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: (tensor.shape, tensor.requires_grad) for name, tensor in tensors.items()}


def make_module(name: Any, arguments: Mapping[str, Any], parts: Mapping[str, Any]) -> nn.Module:
    """Make a module of ``torch.nn``. Its values are drawn, but torch's global generator is not moved.

    Parameters
    ----------
    name : str
        Of its class.
    arguments : mapping
        For its constructor.
    parts : mapping
        Name -> module, of a ``Sequential``.

    Raises
    ------
    TypeError, ValueError
        There is no such class, or it does not take these arguments.
    """
    kind = getattr(nn, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"torch.nn has no module {name!r}")
    if kind is nn.Sequential:
        return nn.Sequential(OrderedDict(parts))
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(0)
        return kind(**arguments)
