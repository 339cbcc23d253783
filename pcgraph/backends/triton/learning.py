"""The kernels that learn, in Triton: one launch for all weight gradients, and others for those of single neurons.

    learn     G = scale * sum of S_target^T phi(H_source) over the edges that share a weight, and sums of S for biases

One program computes one tile of a gradient, or some gradients of one number each: it walks the edges that share a
weight, and the samples of each, and adds up in registers. Where none is shared, the i-th number has the i-th edge.
Addresses are offsets as in :mod:`pcgraph.backends.triton.kernels`, from `P` for signals and states and from `G` for
gradients.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# fmt: off
from __future__ import annotations

import triton
import triton.language as tl

from pcgraph.backends.triton import tables
from pcgraph.backends.triton.functions import sigma
from pcgraph.backends.triton.kernels import ready, whole

__all__ = ["learn", "learn_scalars"]

_EDGE, _ROW = tl.constexpr(len(tables.EDGE)), tl.constexpr(len(tables.ROW))
_UNALIGNED, _BIAS = tl.constexpr(tables.UNALIGNED), tl.constexpr(tables.BIAS)


@triton.jit(do_not_specialize=["count", "batch"])
def learn_scalars(P, G, ends, edges, places, factors, count, batch,
                  ONCE: tl.constexpr, NONE: tl.constexpr, ALIGN: tl.constexpr,
                  ADD: tl.constexpr, ACC: tl.constexpr, EARLY: tl.constexpr,
                  BR: tl.constexpr, BE: tl.constexpr, BB: tl.constexpr, BLOCK: tl.constexpr):
    """Compute the gradients of some weights of one number each, summed over the edges that share it, or of biases.

    `edges` holds the offsets of signal and state of each edge, where samples lie side by side, from multiples of
    `ALIGN` on, or `NONE`: of a bias the signal alone, in the place of an edge. Where each weight has one edge at most,
    `ONCE`, that of weight i is the i-th. Gradients lie in blocks of `BLOCK`, which have a place and a factor each.
    """
    entry = tl.program_id(0) * BR + tl.arange(0, BR)
    live, rb = entry < count, tl.arange(0, BB)
    block = entry // BLOCK
    where = G + tl.load(places + block, mask=live, other=0) + entry % BLOCK
    total = tl.zeros((BR,), ACC)
    if ONCE:
        signal = tl.load(edges + 2 * entry.to(tl.int64), mask=live, other=NONE)
        state = tl.load(edges + 2 * entry.to(tl.int64) + 1, mask=live, other=NONE)
        ready(EARLY)
        for b in range(0, batch, BB):
            sample = (b + rb)[None, :]
            mb = sample < whole(batch, ALIGN)
            s = tl.load(P + (whole(signal, ALIGN)[:, None] + sample), mask=(signal != NONE)[:, None] & mb, other=0.0)
            h = tl.load(P + (whole(state, ALIGN)[:, None] + sample), mask=(state != NONE)[:, None] & mb, other=1.0)
            total += tl.sum(s * h, 1)
    else:
        low = tl.load(ends + entry, mask=live, other=0)
        high = tl.load(ends + entry + 1, mask=live, other=0)
        re = tl.arange(0, BE)
        ready(EARLY)
        for i in range(0, tl.max(high - low), BE):
            at = low[None, :] + i + re[:, None]
            there = at < high[None, :]
            signal = tl.load(edges + 2 * at.to(tl.int64), mask=there, other=NONE)
            state = tl.load(edges + 2 * at.to(tl.int64) + 1, mask=there, other=NONE)
            for b in range(0, batch, BB):
                sample = (b + rb)[None, None, :]
                mb = sample < whole(batch, ALIGN)
                s = tl.load(P + (whole(signal, ALIGN)[:, :, None] + sample), mask=there[:, :, None] & mb, other=0.0)
                h = tl.load(P + (whole(state, ALIGN)[:, :, None] + sample),
                            mask=(state != NONE)[:, :, None] & mb, other=1.0)
                total += tl.sum(tl.sum(s * h, 2), 0)
    total *= tl.load(factors + block, mask=live, other=0.0)
    if ADD:
        total += tl.load(where, mask=live, other=0.0)
    tl.store(where, total, mask=live)


@triton.jit(do_not_specialize=["batch"])
def learn(P, G, tiles, rows, edges, places, factors, batch,
          ADD: tl.constexpr, PHI: tl.constexpr, HALF: tl.constexpr, MIXED: tl.constexpr, ALIGN: tl.constexpr,
          ACC: tl.constexpr, EARLY: tl.constexpr,
          BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """Compute one tile of the gradient of one weight, summed over the edges that share it, or some of one bias.

    `places` says where each gradient lies from `G`, and `factors` what the sum is multiplied by. It is written, or
    where `ADD` is true added to what is there.
    """
    tile = tl.program_id(0)
    entry = tl.load(tiles + 3 * tile)
    first, second = tl.load(tiles + 3 * tile + 1).to(tl.int32), tl.load(tiles + 3 * tile + 2).to(tl.int32)
    row = rows + entry * _ROW
    out, width = tl.load(row).to(tl.int32), tl.load(row + 1).to(tl.int32)
    low, high = tl.load(row + 2).to(tl.int32), tl.load(row + 3).to(tl.int32)
    kind, place = tl.load(row + 5), tl.load(places + entry)
    ready(EARLY)
    factor = tl.load(factors + entry)
    ro = first + tl.arange(0, BM)
    mo = ro < out
    if kind == _BIAS:
        total = tl.zeros((BM,), ACC)
        rb = tl.arange(0, BK)
        for i in range(low, high):
            signal = P + tl.load(edges + i * _EDGE)
            for b in range(0, batch, BK):
                mb = (b + rb) < batch
                total += tl.sum(tl.load(signal + (b + rb)[:, None] * out + ro[None, :],
                                        mask=mb[:, None] & mo[None, :], other=0.0), 0)
        total *= factor
        if ADD:
            total += tl.load(G + place + ro, mask=mo, other=0.0)
        tl.store(G + place + ro, total, mask=mo)
    elif MIXED and kind == _UNALIGNED:
        _weight(P, G, edges, low, high, out, width, first, second, place, factor, tl.load(row + 4), batch,
                1, ADD, PHI, HALF, ACC, BM, BN, BK, DOT, 1)
    else:
        _weight(P, G, edges, low, high, out, width, first, second, place, factor, tl.load(row + 4), batch,
                ALIGN, ADD, PHI, HALF, ACC, BM, BN, BK, DOT)


@triton.jit
def _weight(P, G, edges, low, high, out, width, first, second, place, factor, code, batch,
            ALIGN: tl.constexpr, ADD: tl.constexpr, PHI: tl.constexpr, HALF: tl.constexpr, ACC: tl.constexpr,
            BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr, STAGES: tl.constexpr = None):
    """Sum S^T phi(H) over the batch and over edges, and write it or add it."""
    out, width, place = whole(out, ALIGN), whole(width, ALIGN), whole(place, ALIGN)
    ro, ri, rb = first + tl.arange(0, BM), second + tl.arange(0, BN), tl.arange(0, BK)
    mo, mi = ro < out, ri < width
    acc = tl.zeros((BM, BN), ACC)
    for i in range(low, high):
        s = P + whole(tl.load(edges + i * _EDGE), ALIGN)
        h = P + whole(tl.load(edges + i * _EDGE + 2), ALIGN)
        for b in tl.range(0, batch, BK, num_stages=STAGES):
            at = b + rb
            mb = at < batch
            x = tl.load(s + at[None, :] * out + ro[:, None], mask=mo[:, None] & mb[None, :], other=0.0)
            y = tl.load(h + at[:, None] * width + ri[None, :], mask=mb[:, None] & mi[None, :], other=0.0)
            if PHI != 0:
                y, _ = sigma(y, code, PHI)
            if HALF is not None:
                x, y = x.to(HALF), y.to(HALF)
            acc = tl.dot(x, y, acc, input_precision=DOT, out_dtype=acc.dtype)
    acc *= factor
    where = G + place + ro[:, None] * width + ri[None, :]
    ok = mo[:, None] & mi[None, :]
    if ADD:
        acc += tl.load(where, mask=ok, other=0.0)
    tl.store(where, acc, mask=ok)
