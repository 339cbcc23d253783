"""Turn plain values, containers and tensors into JSON data, and back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Tensors", "Unsaveable", "decode", "encode", "kind_of"]

Tensors = dict[str, Tensor]


class Unsaveable(ValueError):
    """A value cannot be written to a file; ``where`` is the path to it, ``found`` the value."""

    def __init__(self, where: str, found: Any) -> None:
        kind = "a Python function" if callable(found) and not isinstance(found, nn.Module) else f"a {kind_of(found)}"
        super().__init__(f"{where} is {kind} ({found!r})")
        self.where, self.found = where, found


def kind_of(value: Any) -> str:
    """Name the class of a value, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def encode(value: Any, where: str = "value", tensors: Tensors | None = None) -> Any:
    """Turn a value into JSON data.

    Parameters
    ----------
    value : object
        None, bools, numbers, strings, lists, tuples, mappings, tensors and arrays, nested.
    where : str
        What the value is called in an error, and the name of its tensors.
    tensors : dict, optional
        Where tensors are put; without it they are written out.

    Raises
    ------
    Unsaveable
        Something else is in it.

    Examples
    --------
    >>> encode({"a": (1, 2.5), 3: float("inf")})
    {'$map': [['a', {'$tuple': [1, 2.5]}], [3, {'$float': 'inf'}]]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, list):
        return [encode(item, f"{where}[{i}]", tensors) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": [encode(item, f"{where}[{i}]", tensors) for i, item in enumerate(value)]}
    if isinstance(value, Tensor | np.ndarray):
        return _encode_tensor(value, where, tensors)
    if isinstance(value, Mapping):
        return _encode_mapping(value, where, tensors)
    raise Unsaveable(where, value)


def _encode_tensor(value: Tensor | np.ndarray[Any, Any], where: str, tensors: Tensors | None) -> Any:
    name = "$array" if isinstance(value, np.ndarray) else "$tensor"
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        raise Unsaveable(where, value)
    try:
        tensor = _from_numpy(value) if isinstance(value, np.ndarray) else value.detach()
    except TypeError:
        raise Unsaveable(where, value) from None
    plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)
    if not plain or tensor.is_complex():
        raise Unsaveable(where, value)
    if tensors is not None:
        file = _free_name(where, tensors)
        tensors[file] = tensor
        return {name: file}
    items = tensor.double() if tensor.dtype in (torch.bfloat16, torch.float16, torch.float32) else tensor
    return {name: encode(items.tolist(), where), "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape)}  # fmt: skip


def _from_numpy(value: np.ndarray[Any, Any]) -> Tensor:
    """Copy an array into a tensor, from whatever order of bytes and of axes it has."""
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))


def _free_name(where: str, tensors: Tensors) -> str:
    """Find a name that is not taken, and that a file of tensors can hold: UTF-8, and not the one of its metadata."""
    name = where.encode("utf-8", "backslashreplace").decode()
    while name in tensors or name == "__metadata__":
        name += "_"
    return name


def _encode_mapping(value: Mapping[Any, Any], where: str, tensors: Tensors | None) -> Any:
    items = [(key, encode(item, f"{where}.{key}", tensors)) for key, item in value.items()]
    if isinstance(value, Counter):
        return {"$counter": [[encode(key, f"a key of {where}"), item] for key, item in items]}
    if all(type(key) is str and not key.startswith("$") for key, _ in items):
        return dict(items)
    return {"$map": [[encode(key, f"a key of {where}"), item] for key, item in items]}


def decode(data: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """Turn JSON data back into the value: the inverse of :func:`encode`.

    Raises
    ------
    KeyError, TypeError, ValueError
        It is not what :func:`encode` writes.

    Examples
    --------
    >>> decode({"a": {"$tuple": [1, {"$float": "nan"}]}})
    {'a': (1, nan)}
    """
    if isinstance(data, list):
        return [decode(item, tensors) for item in data]
    if not isinstance(data, Mapping):
        return data
    tag = next(iter(data), None)
    if not (isinstance(tag, str) and tag.startswith("$")):
        return {key: decode(item, tensors) for key, item in data.items()}
    value = data[tag]
    if tag in ("$tuple", "$map", "$counter") and not isinstance(value, list):
        raise ValueError(f"a {tag} is a list")
    if tag == "$tuple":
        return tuple(decode(item, tensors) for item in value)
    if tag == "$float":
        return float(value)
    if tag == "$map":
        return {decode(key): decode(item, tensors) for key, item in value}
    if tag == "$counter":
        return Counter({decode(key): decode(item, tensors) for key, item in value})
    if tag in ("$tensor", "$array"):
        tensor = _decode_tensor(data, tag, tensors)
        return tensor.numpy() if tag == "$array" else tensor
    raise ValueError(f"an unknown tag {tag!r}")


def _decode_tensor(data: Mapping[str, Any], tag: str, tensors: Mapping[str, Tensor] | None) -> Tensor:
    if isinstance(data[tag], str):
        if tensors is None:
            raise ValueError(f"the tensor {data[tag]!r} is in no file")
        return tensors[data[tag]]
    dtype = getattr(torch, data["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no dtype is called {data['dtype']!r}")
    exact = torch.float64 if dtype.is_floating_point else dtype
    return torch.tensor(decode(data[tag]), dtype=exact).to(dtype).reshape(data["shape"])
