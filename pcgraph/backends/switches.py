"""What is bound or recorded holds for as long as torch's switches stand, and what it reads must stay where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["autocast_of", "keep", "keeping", "switches"]

#: What the recordings under way read, for each of them.
_under_way: list[list[Tensor]] = []


def keep(tensor: Tensor) -> Tensor:
    """Return a tensor from a cache that may drop it; a recording under way keeps it as long as itself."""
    if _under_way:
        _under_way[-1].append(tensor)
    return tensor


@contextmanager
def keeping(kept: list[Tensor]) -> Iterator[None]:
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
        torch.backends.mkldnn.enabled, torch.are_deterministic_algorithms_enabled(), autocast_of(device),
        torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]
    )  # fmt: skip


def autocast_of(device: torch.device) -> torch.dtype | None:
    """Return the dtype of ``torch.autocast`` for a device; None where it is off."""
    on = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else None
