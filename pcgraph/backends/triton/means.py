"""Means of states by class, in one launch for a group: what an average initializer remembers of a batch."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcgraph.backends.triton.choices import early
from pcgraph.backends.triton.kernels import ready

__all__ = ["class_means"]


@triton.jit(do_not_specialize=["batch", "classes"])
def means_of(
    H, Y, M, batch, size, classes,
    DOT: tl.constexpr, EARLY: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, BB: tl.constexpr,
):  # fmt: skip
    """Bring some means of one node up to date: those of classes that the batch has."""
    node = tl.program_id(1).to(tl.int64)
    rn, rc = tl.program_id(0) * BN + tl.arange(0, BN), tl.program_id(2) * BC + tl.arange(0, BC)
    mn, mc, rb = rn < size, rc < classes, tl.arange(0, BB)
    ready(EARLY)
    sums = tl.zeros((BC, BN), M.dtype.element_ty)
    told = tl.zeros((BC, BB), M.dtype.element_ty)
    states = H + node * batch * size + rn[None, :]
    for b in range(0, batch, BB):
        mb = (b + rb) < batch
        y = tl.load(Y + (b + rb)[None, :] * classes + rc[:, None], mask=mc[:, None] & mb[None, :], other=0.0)
        y = tl.where(y > 0, 1.0, 0.0).to(y.dtype)
        h = tl.load(states + (b + rb)[:, None] * size, mask=mb[:, None] & mn[None, :], other=0.0)
        sums = tl.dot(y, h, sums, input_precision=DOT, out_dtype=sums.dtype)
        told += y
    count = tl.sum(told, 1)
    where, ok = M + node * classes * size + rc[:, None] * size + rn[None, :], mc[:, None] & mn[None, :]
    kept = tl.load(where, mask=ok, other=0.0)
    mean = tl.where(count[:, None] > 0, sums / tl.maximum(count, 1.0)[:, None], kept)
    tl.store(where, mean, mask=ok)


def class_means(states: Tensor, onehot: Tensor, means: Tensor) -> None:
    """Launch it for states (nodes, batch, size), classes (batch, classes), and means (nodes, classes, size).

    A state is the sum of three numbers in TF32, and 0 and 1 are such: sums are as exact as those of float32.
    """
    (nodes, batch, size), classes = states.shape, onehot.shape[1]
    side = min(64, max(16, 1 << (classes - 1).bit_length()))
    means_of[(-(-size // 32), nodes, -(-classes // side))](
        states, onehot, means, batch, size, classes, DOT="tf32x3" if states.dtype == torch.float32 else "ieee",
        BC=side, BN=32, BB=64, num_warps=4, **early(states.device),
    )  # fmt: skip
