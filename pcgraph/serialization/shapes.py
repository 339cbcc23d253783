"""Read shapes, which people write in several ways."""

from __future__ import annotations

import re
from typing import Any

from pcgraph.errors import GraphError

__all__ = ["read_shape"]


def read_shape(value: Any) -> Any:
    """Read a shape from a number, a list or text: ``784``, ``[1, 28, 28]``, ``"784"``, ``"28x28"``, ``"(1, 28, 28)"``.

    Whether the sizes are positive is for the network to check.

    Examples
    --------
    >>> read_shape("28x28"), read_shape("784"), read_shape("[1, 28, 28]")
    ((28, 28), 784, (1, 28, 28))
    """
    if isinstance(value, list) and all(isinstance(size, int | float) for size in value):
        return tuple(value)
    if value is None or isinstance(value, int | float):
        return value
    text = value.strip() if isinstance(value, str) else ""
    listed = text[:1] + text[-1:] in ("[]", "()")
    parts = re.split(r"[x×,]", text[1:-1].strip().rstrip(",") if listed else text)
    if not all(re.fullmatch(r"\s*\d+\s*", part) for part in parts):
        raise GraphError(f'a shape is written as 784, "28x28" or "[1, 28, 28]" (found {value!r})', found=value)
    sizes = tuple(int(part) for part in parts)
    return sizes[0] if len(sizes) == 1 and not listed else sizes
