"""A step of AdamW for all parameters of a group in one launch, or in one for each: kernel, and where they lie."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from pcgraph.backends.triton.choices import early
from pcgraph.backends.triton.kernels import ready

__all__ = ["AdamWStep", "one_by_one"]

#: Columns of the table: a piece of a parameter, of its gradient, of both moments, its step, and how long the piece is.
_ROW = tl.constexpr(6)


@triton.jit
def adamw(
    P, G, M, V, S, table, lr, first, second, log_first, log_second, eps, decay,
    RATE: tl.constexpr, TABLE: tl.constexpr, EVEN: tl.constexpr, EARLY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Move one piece of one parameter, and its moments. Without a `TABLE` there is one, of `table` numbers."""
    if TABLE:
        row = table + tl.program_id(0) * _ROW
        p, g, m, v, s, count = (
            tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
        )  # fmt: skip
        if EVEN:
            p, g, m, v = p // 4 * 4, g // 4 * 4, m // 4 * 4, v // 4 * 4
    else:
        p = tl.program_id(0).to(tl.int64) * BLOCK
        g, m, v, s, count = p, p, p, p * 0, tl.minimum(table - p, BLOCK)
    at = tl.arange(0, BLOCK)
    ok = at < count
    ready(EARLY)
    rate = tl.load(lr) if RATE else lr
    step = tl.load(S + s).to(tl.float64)
    grad, x = tl.load(G + g + at, mask=ok, other=0.0), tl.load(P + p + at, mask=ok, other=0.0)
    mean, square = tl.load(M + m + at, mask=ok, other=0.0), tl.load(V + v + at, mask=ok, other=0.0)
    # 1 - beta^step, of which float32 would lose half in the first steps.
    of_mean = (1.0 - tl.exp2(step * log_first)).to(x.dtype)
    of_square = tl.sqrt(1.0 - tl.exp2(step * log_second)).to(x.dtype)
    x -= rate * decay * x
    mean += (1.0 - first) * (grad - mean)
    square = second * square + (1.0 - second) * grad * grad
    x -= rate / of_mean * (mean / (tl.sqrt(square) / of_square + eps))
    tl.store(P + p + at, x, mask=ok)
    tl.store(M + m + at, mean, mask=ok)
    tl.store(V + v + at, square, mask=ok)


class AdamWStep:
    """This is the launch for parameters, gradients and moments that lie as they do, relative to the first of each.

    Parameters
    ----------
    columns : sequence of list of Tensor
        Parameters, gradients, first and second moments, and numbers of steps.
    """

    #: A program moves so many numbers, four a thread: a card is full with a million.
    BLOCK = 512

    def __init__(self, columns: Sequence[list[Tensor]]) -> None:
        device, rows = columns[0][0].device, []
        apart = [[(t.data_ptr() - column[0].data_ptr()) // t.element_size() for t in column] for column in columns]
        for parameter, *offsets in zip(columns[0], *apart):
            count = parameter.numel()
            at = np.arange(0, count, self.BLOCK)
            each = [offset + at for offset in offsets[:4]]
            rows.append(np.stack([*each, np.full_like(at, offsets[4]), (count - at).clip(max=self.BLOCK)], 1))
        self.table = torch.from_numpy(np.concatenate(rows)).to(device)
        even = all(offset % 4 == 0 for offsets in apart[:4] for offset in offsets)
        self.options = {"EVEN": even, **early(device), "BLOCK": self.BLOCK, "num_warps": 4}

    def __call__(self, columns: Sequence[list[Tensor]], group: dict[str, Any]) -> None:
        """Launch it, after each number of steps has risen by one."""
        _launch([column[0] for column in columns], len(self.table), self.table, group, TABLE=True, **self.options)


def one_by_one(columns: Sequence[list[Tensor]], group: dict[str, Any]) -> None:
    """Launch it for each parameter alone: these may lie anywhere, also in a recording that is being made."""
    for lie in zip(*columns):
        count = lie[0].numel()
        options = {"EVEN": False, **early(lie[0].device), "BLOCK": AdamWStep.BLOCK, "num_warps": 4}
        _launch(lie, -(-count // AdamWStep.BLOCK), count, group, TABLE=False, **options)


def _launch(
    first_of: Sequence[Tensor], programs: int, table: Tensor | int, group: dict[str, Any], **options: Any
) -> None:
    first, second = group["betas"]
    adamw[(programs,)](
        *first_of, table, group["lr"], first, second, _log2(first), _log2(second), group["eps"],
        group["weight_decay"], RATE=isinstance(group["lr"], Tensor), **options,
    )  # fmt: skip


def _log2(beta: float) -> float:
    return math.log2(beta) if beta > 0 else -math.inf
