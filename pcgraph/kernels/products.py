"""Which library multiplies two matrices: torch's BLAS, or oneDNN where the BLAS leaves half of the processor idle.

torch's BLAS on x86 is Intel's MKL, which keeps to AVX2 on other makers' processors; oneDNN, which torch carries for
its convolutions, uses their AVX-512 units. So a float32 product goes to oneDNN if all of this holds:

    the device is a CPU with AVX-512 that Intel has not made, and torch's BLAS is MKL;
    batch * in * out >= ENOUGH, since a call costs more there;
    torch.backends.mkldnn is enabled: ``torch.backends.mkldnn.flags(enabled=False)`` pins everything to the BLAS.

oneDNN's products come in a tensor of their own, whose memory the next product uses again.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["ENOUGH", "linear", "uses_onednn"]

#: Multiplications from which on a product is worth oneDNN's call.
ENOUGH = 2**22


@cache
def _onednn_is_faster() -> bool:
    """Whether this processor multiplies faster with oneDNN than with torch's BLAS."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return not _by_intel()


def _by_intel() -> bool:
    listed = Path("/proc/cpuinfo")
    text = listed.read_text(errors="replace") if listed.exists() else platform.processor()
    return "GenuineIntel" in text


def uses_onednn(device: torch.device, dtype: torch.dtype, multiplications: int) -> bool:
    """Whether a product of so many multiplications goes to oneDNN: the rule above."""
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and multiplications >= ENOUGH
        and bool(torch.backends.mkldnn.enabled)
        and _onednn_is_faster()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x weight^T + bias`` by oneDNN, in a new tensor.

    `x` (rows, in) is contiguous; `weight` (out, in) may have any strides.
    """
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
