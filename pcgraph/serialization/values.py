"""Turn plain values, containers and tensors into JSON data, and back.

What :func:`encode` writes, :func:`decode` reads as it was; whatever would come back as something else, or not at all,
is refused when it is written.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcgraph.serialization.torch_modules import arguments_of, make_module

__all__ = ["DEEPEST", "Tensors", "Unsaveable", "decode", "encode", "kind_of"]

Tensors = dict[str, Tensor]

DEEPEST = 100
"""Containers are nested no deeper than this: files are read by recursion."""

LONGEST = 4000
"""Integers have no more digits than this: Python reads no longer ones."""

RESERVED_BY_SAFETENSORS = "__metadata__"

_brief = reprlib.Repr()
_brief.maxother = _brief.maxstring = 200


class Unsaveable(ValueError):
    """A value cannot be written to a file; ``where`` is the path to it, ``found`` the value."""

    def __init__(self, where: str, found: Any, why: str = "") -> None:
        where = where if len(where) <= 100 else f"{where[:50]}…{where[-49:]}"
        kind = "a Python function" if callable(found) and not isinstance(found, nn.Module) else f"a {kind_of(found)}"
        super().__init__(f"{where} is {why or kind} ({_in_brief(found)})")
        self.where, self.found = where, found


def _in_brief(value: Any) -> str:
    """Write a value on one short line, also where its own text is endless or cannot be made."""
    try:
        return " ".join(_brief.repr(value).split())
    except (ValueError, TypeError, AttributeError, RuntimeError):
        return f"a {kind_of(value)}"


def kind_of(value: Any) -> str:
    """Name the class of a value, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def encode(value: Any, where: str = "value", tensors: Tensors | None = None, *, modules: bool = False) -> Any:
    """Turn a value into JSON data.

    Parameters
    ----------
    value : object
        None, bools, numbers, strings, lists, tuples, mappings, tensors and arrays, nested.
    where : str
        What the value is called in an error, and the name of its tensors.
    tensors : dict, optional
        Where tensors are put; without it they are written out.
    modules : bool
        Write modules of ``torch.nn`` by class and arguments, without what they have learned.

    Raises
    ------
    Unsaveable
        Something else is in it.

    Examples
    --------
    >>> encode({"a": (1, 2.5), 3: float("inf")})
    {'$map': [['a', {'$tuple': [1, 2.5]}], [3, {'$float': 'inf'}]]}
    """
    return _Encoder(tensors, modules).encode(value, where)


class _Encoder:
    """Encodes one value, and knows how deep in it the encoding is."""

    def __init__(self, tensors: Tensors | None, modules: bool) -> None:
        self.tensors, self.modules = tensors, modules
        self.depth = 0

    def encode(self, value: Any, where: str) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unsaveable(where, value, f"nested more than {DEEPEST} deep")
        try:
            return self._encode(value.item() if isinstance(value, np.generic) else value, where)
        finally:
            self.depth -= 1

    def _encode(self, value: Any, where: str) -> Any:
        if value is None or type(value) is bool:
            return value
        if type(value) is int:
            return _checked_integer(value, where)
        if type(value) is str:
            return _checked_text(value, where)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        if isinstance(value, list):
            return [self.encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, tuple):
            return {"$tuple": [self.encode(item, f"{where}[{i}]") for i, item in enumerate(value)]}
        if isinstance(value, Tensor | np.ndarray):
            return self._tensor(value, where)
        if isinstance(value, Mapping):
            return self._mapping(value, where)
        if self.modules and isinstance(value, nn.Module):
            return self._module(value, where)
        raise Unsaveable(where, value)

    def _tensor(self, value: Tensor | np.ndarray[Any, Any], where: str) -> Any:
        tag, tensor = "$array" if isinstance(value, np.ndarray) else "$tensor", _as_plain_tensor(value, where)
        if self.tensors is not None:
            name = where.encode("utf-8", "backslashreplace").decode()
            while name in self.tensors or name == RESERVED_BY_SAFETENSORS:
                name += "_"
            self.tensors[name] = tensor
            return {tag: name}
        items = tensor.double() if tensor.is_floating_point() else tensor
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {tag: _Encoder(None, False).encode(items.tolist(), where), "dtype": dtype, "shape": list(tensor.shape)}

    def _mapping(self, value: Mapping[Any, Any], where: str) -> Any:
        items = [(key, self.encode(item, f"{where}.{key}")) for key, item in value.items()]
        if type(value) is not Counter and all(type(key) is str and not key.startswith("$") for key, _ in items):
            return {_checked_text(key, f"a key of {where}"): item for key, item in items}
        inline = _Encoder(None, False)
        pairs = [[inline.encode(key, f"a key of {where}"), item] for key, item in items]
        return {"$counter" if type(value) is Counter else "$map": pairs}

    def _module(self, value: nn.Module, where: str) -> Any:
        if type(value) is nn.Sequential:
            parts = {name: self.encode(part, f"{where}.{name}") for name, part in value.named_children()}
            return {"$torch": "Sequential", "parts": parts}
        arguments = arguments_of(value)
        if arguments is None:
            raise Unsaveable(where, value)
        return {"$torch": type(value).__name__, "config": self.encode(arguments, where)}


def _checked_integer(value: int, where: str) -> int:
    if abs(value).bit_length() > LONGEST * math.log2(10):
        raise Unsaveable(where, value.bit_length(), f"a number of more than {LONGEST} digits; its length in bits")
    return value


def _checked_text(value: str, where: str) -> str:
    """Refuse the two halves of one sign (surrogates), which JSON would give back as that sign."""
    if re.search("[\ud800-\udbff][\udc00-\udfff]", value):
        raise Unsaveable(where, value, "text with the two halves of one sign apart, which would come back as that sign")
    return value


def _as_plain_tensor(value: Tensor | np.ndarray[Any, Any], where: str) -> Tensor:
    """Refuse whatever is more, or less, than numbers in a rectangle."""
    if isinstance(value, np.ndarray):
        if type(value) not in (np.ndarray, np.memmap) or value.dtype.hasobject:
            raise Unsaveable(where, value)
        try:
            tensor = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
        except (TypeError, ValueError):
            raise Unsaveable(where, value) from None
    else:
        tensor = value
    plain = tensor.layout == torch.strided and not tensor.is_nested and tensor.device.type != "meta"
    if not plain or nn.parameter.is_lazy(tensor) or tensor.is_complex() or tensor.is_quantized:
        raise Unsaveable(where, value)
    return tensor.detach().as_subclass(Tensor)


def decode(data: Any, tensors: Mapping[str, Tensor] | None = None, *, modules: bool = False) -> Any:
    """Turn JSON data back into the value: the inverse of :func:`encode`.

    Raises
    ------
    KeyError, TypeError, ValueError, RuntimeError, OverflowError
        It is not what :func:`encode` writes.

    Examples
    --------
    >>> decode({"a": {"$tuple": [1, {"$float": "nan"}]}})
    {'a': (1, nan)}
    """

    def inner(item: Any) -> Any:
        return decode(item, tensors, modules=modules)

    if isinstance(data, list):
        return [inner(item) for item in data]
    if not isinstance(data, Mapping):
        return data
    tag = next(iter(data), None)
    if not (isinstance(tag, str) and tag.startswith("$")):
        return {key: inner(item) for key, item in data.items()}
    value = data[tag]
    if tag in ("$tuple", "$map", "$counter") and not isinstance(value, list):
        raise ValueError(f"a {tag} is a list (found {value!r})")
    if tag == "$tuple":
        return tuple(inner(item) for item in value)
    if tag == "$float":
        return float(value)
    if tag in ("$map", "$counter"):
        made = {decode(key): inner(item) for key, item in value}
        return Counter(made) if tag == "$counter" else made
    if tag in ("$tensor", "$array"):
        tensor = _decode_tensor(data, tag, tensors)
        return tensor.numpy() if tag == "$array" else tensor
    if tag == "$torch" and modules:
        return make_module(value, inner(data.get("config", {})), inner(data.get("parts", {})))
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
    return torch.tensor(decode(data[tag]), dtype=exact, device="cpu").to(dtype).reshape(data["shape"])
