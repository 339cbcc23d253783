"""Whether Triton's kernels can run is asked here: by the backend, and by what else has kernels of its own."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch

__all__ = ["unusable"]


def unusable(device: torch.device, dtype: torch.dtype, asked: bool) -> str | None:
    """Say why Triton's kernels cannot run on this device; return None where they can.

    The interpreter, which is slow, is used where the backend was `asked` for by name.
    """
    interpreted = asked and os.environ.get("TRITON_INTERPRET") == "1"
    if interpreted and device.type != "cpu":
        return "TRITON_INTERPRET=1 runs on tensors of the CPU alone"
    if not interpreted and device.type != "cuda":
        return f"the network is on {device.type!r}, and fused kernels run on CUDA (or by TRITON_INTERPRET=1)"
    if not _installed():
        return "the package triton is not installed (pip install triton)"
    if interpreted:
        return None
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "the card is older than compute capability 8.0"
    if dtype != torch.float32:
        return f"the network is in {dtype}, and fused kernels compute in float32"
    return None


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None
