"""oneDNN replaces torch's default kernels where those leave much of the processor idle.

On x86 torch's products are those of Intel's MKL, which keeps to AVX2 on other makers' processors; oneDNN, which torch
carries for its convolutions, uses their AVX-512 units, and its tanh is several times as fast as torch's. So a program
works with oneDNN if all of this holds:

    the device is a CPU with AVX-512 that Intel has not made, torch's BLAS is MKL, and states are float32;
    it runs an inference: a part of the graph alone, as for a prediction by a sweep, is computed as torch's own
    feed-forward pass would, to the last bit;
    torch.backends.mkldnn is enabled: ``torch.backends.mkldnn.flags(enabled=False)`` pins everything to torch's default.

A call costs more there, so only large work goes to it: products forward and back, and tanh, from the sizes on that
:class:`~pcgraph.backends.Traits` names. Results come in a tensor of their own, whose memory the next call uses again.
Weight gradients, which reduce over the batch, are faster with MKL and stay there.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pcgraph.activations import Activation, get
from pcgraph.backends.traits import traits_of

__all__ = ["activation", "linear", "serves"]


@cache
def _is_faster() -> bool:
    """Tell whether this processor computes faster with oneDNN than with torch's default."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):  # type: ignore[no-untyped-call]
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return not _by_intel()


def _by_intel() -> bool:
    listed = Path("/proc/cpuinfo")
    text = listed.read_text(errors="replace", encoding="utf-8") if listed.exists() else platform.processor()
    return "GenuineIntel" in text


def serves(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether oneDNN is to be used on this device for this dtype."""
    return device.type == "cpu" and dtype == torch.float32 and bool(torch.backends.mkldnn.enabled) and _is_faster()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x weight^T + bias`` in a new tensor; `x` (rows, in) is contiguous, `weight` (out, in) of any strides."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def activation(sigma: Activation, values: int) -> Activation:
    """Return `sigma`, or the same function by oneDNN where so many values are worth it."""
    return _TANH if sigma.named and sigma.name == "tanh" and values >= traits_of("cpu").onednn_tanh else sigma


def _tanh(a: Tensor, out: Tensor) -> Tensor:
    """Compute tanh piece by piece, within 1e-7 of the value, relatively."""
    source, target, size = a.view(-1), out.view(-1), traits_of("cpu").onednn_piece
    for start in range(0, len(source), size):
        piece = slice(start, start + size)
        target[piece].copy_(torch.tanh(source[piece].to_mkldnn()).to_dense())
    return out


_TANH = replace(get("tanh"), fused_forward=_tanh)
