"""What is bound or recorded holds for as long as torch's switches stand, and what it reads must stay where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

__all__ = ["autocast_of", "keep", "keeping", "switches"]

T = TypeVar("T")

# Looked up once, since switches are read before every replay.
_MKLDNN, _MKLDNN_PRODUCTS = torch.backends.mkldnn, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
_CUBLAS = torch.backends.cuda.matmul

#: What the recordings under way read, for each of them.
_under_way: list[list[object]] = []


def keep(thing: T) -> T:
    """Return what a cache may drop, or who holds buffers; a recording under way keeps it for as long as itself."""
    if _under_way:
        _under_way[-1].append(thing)
    return thing


@contextmanager
def keeping(kept: list[object]) -> Iterator[None]:
    """Add to `kept`, while a recording is made, what it reads of a backend's caches: replays read it where it lies."""
    _under_way.append(kept)
    try:
        yield
    finally:
        _under_way.pop()


def switches(device: torch.device) -> tuple[object, ...]:
    """Return what torch has been told about how to compute.

    What is bound, or recorded, holds for these settings alone.
    """
    return (
        _MKLDNN.enabled, torch.are_deterministic_algorithms_enabled(), autocast_of(device), _CUBLAS.fp32_precision,
        _MKLDNN_PRODUCTS.fp32_precision,
    )  # fmt: skip


def autocast_of(device: torch.device) -> torch.dtype | None:
    """Return the dtype of ``torch.autocast`` for a device; None where it is off."""
    kind = device.type
    return torch.get_autocast_dtype(kind) if _casts(kind) and torch.is_autocast_enabled(kind) else None


#: Whether ``torch.autocast`` knows a type of device.
_casts = cache(torch.amp.is_autocast_available)
