"""What a network asks of the machine is refused before it is asked for, where the machine cannot give it."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from pcgraph.arguments import gibibytes, shown
from pcgraph.errors import ConfigError, OutOfMemory, said_by

__all__ = ["TYPES", "require_bytes", "require_place", "require_type"]

#: What states and parameters may be: sums of products are taken in them.
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def require_place(dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    """Return an empty tensor of this type on this device; torch's defaults stand for None.

    Raises
    ------
    ConfigError
        Networks do not compute in this type, or the device cannot be used.
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    require_type(dtype)
    device = torch.get_default_device() if device is None else device
    try:
        return torch.empty(0, dtype=dtype, device=device)
    except Exception as error:  # each kind of device has errors of its own
        raise ConfigError(f"device {shown(device)} cannot be used: {said_by(error)}", key="device") from error


def require_type(dtype: torch.dtype) -> None:
    """Refuse a type in which networks do not compute: complex numbers, integers, eight bits.

    Raises
    ------
    ConfigError
    """
    if dtype not in TYPES:
        raise ConfigError(f"dtype must be one of {', '.join(map(str, TYPES))} (found {shown(dtype)})", key="dtype")


def require_bytes(
    needed: int, what: str, instead: str = "take smaller groups, or SparseLinear where few weights exist"
) -> None:
    """Refuse what alone is larger than the memory in which every network is built.

    Raises
    ------
    OutOfMemory
    """
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise OutOfMemory(
            f"{what} would take {gibibytes(needed)} GiB, and this machine has {memory / 2**30:.3g} GiB; {instead}",
            estimate=needed,
        )
