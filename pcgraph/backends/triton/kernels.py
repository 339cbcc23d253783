"""The kernels of the fused backend, in Triton: two launches an inference step, and one for all weight gradients.

    predict   A = B + sum of phi(H_source) W^T over a node's edges, and then its errors, or its state if it is swept
    pull      G = E - sum of phi'(H) * (S_target W) over the edges that leave a node, and then its move
    learn     G = scale * sum of S_target^T phi(H_source) over the edges that share a weight, and sums of S for biases

One program computes one tile, some samples by some neurons of one node: it walks the edges of the node, adds up in
registers, and ends with whatever is done to a neuron. Nothing is gathered, no sum takes a second pass, and nothing is
atomic, so that the same numbers come out each time. Tables say which program does what, so that nodes of all sizes and
wirings run in one launch. Every address is an offset, in numbers, from one of two tensors: `P` for what has the dtype of
the states, `W` for weights.

This module is imported where the first program is made: it needs the package ``triton``. Where the environment said
``TRITON_INTERPRET=1`` before that, the kernels run on the CPU, by Triton's interpreter.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "ACTIVATIONS", "COMPARE", "COPY", "DENSE", "EDGE", "KEEP", "NODE", "NONE", "OWN", "ROW", "SWEEP", "UNALIGNED", "learn",
    "predict", "pull",
]  # fmt: skip

#: The activations that the kernels know, by their number.
ACTIVATIONS = (
    "identity", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "elu", "silu", "hardtanh", "softplus",
)  # fmt: skip
#: Columns of the table of nodes. Offsets are `NONE` for what is not there; `flags` says what the launch does at the node.
NODE = ("size", "h", "a", "m", "e", "s", "start", "bias", "sigma", "flags", "low", "high")
#: Columns of the table of edges, those of a node beside each other: `far` is the state, or the signal, at the other end.
EDGE = ("far", "width", "weight", "phi", "kind")
#: Columns of the table of weights: how large one is, and which edges share it; of a bias, the one node.
ROW = ("out", "in", "low", "high", "phi", "bias")
#: Flags of nodes: errors and signals are taken; the state becomes the prediction; what comes in is kept; the gradient
#: begins with the node's own error.
COMPARE, SWEEP, KEEP, OWN = 1, 2, 4, 8
#: Kinds of edges: a product of which all rows begin where the card likes it; the identity; any other product.
DENSE, COPY, UNALIGNED = 0, 1, 2
#: The offset of what is not there; any other may be negative.
NONE = -(2**62)

_NONE = tl.constexpr(NONE)
_NODE = tl.constexpr(len(NODE))
_EDGE = tl.constexpr(len(EDGE))
_ROW = tl.constexpr(len(ROW))
_COMPARE, _SWEEP, _KEEP, _OWN = (tl.constexpr(flag) for flag in (COMPARE, SWEEP, KEEP, OWN))
_COPY, _UNALIGNED = tl.constexpr(COPY), tl.constexpr(UNALIGNED)


@triton.jit
def _tanh(a):
    z = tl.exp(-2.0 * tl.abs(a))
    t = (1.0 - z) / (1.0 + z)
    return tl.where(a < 0, -t, t)


@triton.jit
def _sigma(a, code):
    """The activation with this number."""
    m = a
    if code == 1:
        m = tl.maximum(a, 0.0)
    elif code == 2:
        m = tl.where(a > 0, a, 0.01 * a)
    elif code == 3:
        m = _tanh(a)
    elif code == 4:
        m = 1.0 / (1.0 + tl.exp(-a))
    elif code == 5:
        m = 0.5 * a * (1.0 + tl.erf(a * 0.7071067811865476))
    elif code == 6:
        m = 0.5 * a * (1.0 + _tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)))
    elif code == 7:
        m = tl.where(a > 0, a, tl.exp(tl.minimum(a, 0.0)) - 1.0)
    elif code == 8:
        m = a / (1.0 + tl.exp(-a))
    elif code == 9:
        m = tl.minimum(tl.maximum(a, -1.0), 1.0)
    elif code == 10:
        m = tl.where(a > 20.0, a, tl.log(1.0 + tl.exp(tl.minimum(a, 20.0))))
    return m


@triton.jit
def _slope(a, code):
    """The derivative of the activation with this number."""
    d = a * 0.0 + 1.0
    if code == 1:
        d = tl.where(a > 0, d, 0.0)
    elif code == 2:
        d = tl.where(a > 0, d, 0.01)
    elif code == 3:
        t = _tanh(a)
        d = 1.0 - t * t
    elif code == 4:
        t = 1.0 / (1.0 + tl.exp(-a))
        d = t * (1.0 - t)
    elif code == 5:
        d = 0.5 * (1.0 + tl.erf(a * 0.7071067811865476)) + a * tl.exp(-0.5 * a * a) * 0.3989422804014327
    elif code == 6:
        t = _tanh(0.7978845608028654 * (a + 0.044715 * a * a * a))
        d = 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * a * a)
    elif code == 7:
        d = tl.where(a > 0, d, tl.exp(tl.minimum(a, 0.0)))
    elif code == 8:
        t = 1.0 / (1.0 + tl.exp(-a))
        d = t * (1.0 + a * (1.0 - t))
    elif code == 9:
        d = tl.where((a > -1.0) & (a < 1.0), d, 0.0)
    elif code == 10:
        d = tl.where(a > 20.0, d, 1.0 / (1.0 + tl.exp(-tl.minimum(a, 20.0))))
    return d


@triton.jit
def _whole(number, ALIGN: tl.constexpr):
    """The number itself, which is a multiple of `ALIGN`, written so that the compiler sees it.

    ``tl.multiple_of`` would say it of every use of the number, those elsewhere included.
    """
    return number // ALIGN * ALIGN


@triton.jit
def _product(acc, P, W, far, weight, width, across, rm, rn, mm, mn, code,
             BACK: tl.constexpr, PHI: tl.constexpr, SINGLE: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """Add one edge's product: X W^T with W of (neurons, width), or where `BACK` is true X W with W of (width, across)."""
    rk = tl.arange(0, BK)
    x = P + far + rm[:, None] * width
    if BACK:
        w = W + weight + rn[None, :]
    else:
        w = W + weight + rn[None, :] * width
    if SINGLE:
        mk = rk < width
        a = tl.load(x + rk[None, :], mask=mm[:, None] & mk[None, :], other=0.0)
        if BACK:
            b = tl.load(w + rk[:, None] * across, mask=mk[:, None] & mn[None, :], other=0.0)
        else:
            b = tl.load(w + rk[:, None], mask=mk[:, None] & mn[None, :], other=0.0)
        if PHI:
            a = _sigma(a, code)
        acc = tl.dot(a.to(b.dtype), b, acc, input_precision=DOT, out_dtype=acc.dtype)
    else:
        for k in range(0, width, BK):
            at = k + rk
            mk = at < width
            a = tl.load(x + at[None, :], mask=mm[:, None] & mk[None, :], other=0.0)
            if BACK:
                b = tl.load(w + at[:, None] * across, mask=mk[:, None] & mn[None, :], other=0.0)
            else:
                b = tl.load(w + at[:, None], mask=mk[:, None] & mn[None, :], other=0.0)
            if PHI:
                a = _sigma(a, code)
            acc = tl.dot(a.to(b.dtype), b, acc, input_precision=DOT, out_dtype=acc.dtype)
    return acc


@triton.jit
def _edges(acc, P, W, edges, low, high, own, across, rm, rn, mm, mn,
           BACK: tl.constexpr, PHI: tl.constexpr, SINGLE: tl.constexpr, MIXED: tl.constexpr, COPIES: tl.constexpr,
           ALIGN: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """Add what the edges of a node carry to one tile of it: forward, or where `BACK` is true back to the source.

    Backward, `own` is where the node's states lie, at which the activation of an edge is differentiated.
    """
    ok = mm[:, None] & mn[None, :]
    for i in range(low, high):
        row = edges + i * _EDGE
        far, width, weight = tl.load(row), tl.load(row + 1), tl.load(row + 2)
        code, kind = tl.load(row + 3), tl.load(row + 4)
        if BACK and PHI:
            part = acc * 0.0
        else:
            part = acc
        if COPIES and kind == _COPY:
            x = tl.load(P + far + rm[:, None] * width + rn[None, :], mask=ok, other=0.0)
            if PHI and not BACK:
                x = _sigma(x, code)
            part += x
        elif MIXED and kind == _UNALIGNED:
            part = _product(part, P, W, far, weight, width, across, rm, rn, mm, mn, code,
                            BACK, PHI and not BACK, SINGLE, BK, DOT)
        else:
            part = _product(part, P, W, _whole(far, ALIGN), _whole(weight, ALIGN), _whole(width, ALIGN),
                            _whole(across, ALIGN), rm, rn, mm, mn, code, BACK, PHI and not BACK, SINGLE, BK, DOT)
        if BACK and PHI:
            h = tl.load(P + own + rm[:, None] * across + rn[None, :], mask=ok, other=0.0)
            acc += part * _slope(h, code)
        else:
            acc = part
    return acc


@triton.jit
def _at(cell, EVEN: tl.constexpr):
    """An offset of a table, of which it is known whether it is a multiple of four."""
    offset = tl.load(cell)
    if EVEN:
        offset = _whole(offset, 4)
    return offset


@triton.jit
def predict(P, W, tiles, nodes, edges, precisions, batch,
            SIGMA: tl.constexpr, PHI: tl.constexpr, SINGLE: tl.constexpr, MIXED: tl.constexpr, COPIES: tl.constexpr,
            EVEN: tl.constexpr, PRECISE: tl.constexpr, SHOW: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr,
            BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """One tile of what comes into one node, and of its errors, or of its state.

    `SIGMA` is the activation where all nodes have the same, else -1. `SHOW` says whether predictions are written.
    """
    tile = tl.program_id(0)
    entry, first = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    row = nodes + entry * _NODE
    size, start, bias = tl.load(row), tl.load(row + 6), tl.load(row + 7)
    flags, low, high = tl.load(row + 9), tl.load(row + 10), tl.load(row + 11)
    code = tl.load(row + 8) if SIGMA < 0 else SIGMA
    if EVEN:
        size, first = _whole(size, 4), _whole(first, 4)
    rm, rn = tl.program_id(1) * BM + tl.arange(0, BM), first + tl.arange(0, BN)
    mm, mn = rm < batch, rn < size
    ok = mm[:, None] & mn[None, :]
    place = rm[:, None] * size + rn[None, :]
    acc = tl.zeros((BM, BN), ACC)
    acc = _edges(acc, P, W, edges, low, high, 0, size, rm, rn, mm, mn,
                 False, PHI, SINGLE, MIXED, COPIES, ALIGN, BK, DOT)
    if start != _NONE:
        acc += tl.load(P + start + place, mask=ok, other=0.0)
    elif bias != _NONE:
        acc += tl.load(P + bias + rn, mask=mn, other=0.0)[None, :]
    if flags & _KEEP:
        tl.store(P + _at(row + 2, EVEN) + place, acc, mask=ok)
    if flags & _SWEEP:
        tl.store(P + _at(row + 1, EVEN) + place, _sigma(acc, code), mask=ok)
    elif flags & _COMPARE:
        mu = _sigma(acc, code)
        error = tl.load(P + _at(row + 1, EVEN) + place, mask=ok, other=0.0) - mu
        if PRECISE:
            error *= tl.load(precisions + entry)
        tl.store(P + _at(row + 4, EVEN) + place, error, mask=ok)
        tl.store(P + _at(row + 5, EVEN) + place, error * _slope(acc, code), mask=ok)
        if SHOW:
            tl.store(P + _at(row + 3, EVEN) + place, mu, mask=ok)


@triton.jit
def pull(P, W, tiles, nodes, edges, rates, batch,
         MOVE: tl.constexpr, EVEN: tl.constexpr, PHI: tl.constexpr, SINGLE: tl.constexpr, MIXED: tl.constexpr, COPIES: tl.constexpr,
         ALIGN: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
         DOT: tl.constexpr):
    """One tile of the gradient of one node's state, which moves along it where `MOVE` is true, or is written."""
    tile = tl.program_id(0)
    entry, first = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    row = nodes + entry * _NODE
    size, own, place_e = tl.load(row), _at(row + 1, EVEN), _at(row + 4, EVEN)
    flags, low, high = tl.load(row + 9), tl.load(row + 10), tl.load(row + 11)
    if EVEN:
        size, first = _whole(size, 4), _whole(first, 4)
    rm, rn = tl.program_id(1) * BM + tl.arange(0, BM), first + tl.arange(0, BN)
    mm, mn = rm < batch, rn < size
    ok = mm[:, None] & mn[None, :]
    place = rm[:, None] * size + rn[None, :]
    acc = tl.zeros((BM, BN), ACC)
    acc = _edges(acc, P, W, edges, low, high, own, size, rm, rn, mm, mn,
                 True, PHI, SINGLE, MIXED, COPIES, ALIGN, BK, DOT)
    gradient = -acc
    if flags & _OWN:
        gradient += tl.load(P + place_e + place, mask=ok, other=0.0)
    if MOVE:
        h = tl.load(P + own + place, mask=ok, other=0.0)
        tl.store(P + own + place, h - tl.load(rates + entry) * gradient, mask=ok)
    else:
        tl.store(P + place_e + place, gradient, mask=ok)


@triton.jit
def learn(P, tiles, rows, edges, places, factors, batch,
          PHI: tl.constexpr, HALF: tl.constexpr, MIXED: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr,
          BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """One tile of the gradient of one weight, summed over the edges that share it, or some neurons' of one bias.

    `places` says where a gradient lies and whether it is added to what is there; `factors` what the sum is multiplied
    by.
    """
    tile = tl.program_id(0)
    entry, first, second = tl.load(tiles + 3 * tile), tl.load(tiles + 3 * tile + 1), tl.load(tiles + 3 * tile + 2)
    row = rows + entry * _ROW
    out, width, low, high = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    place, adds = P + tl.load(places + 2 * entry), tl.load(places + 2 * entry + 1)
    factor = tl.load(factors + entry)
    ro, rb = first + tl.arange(0, BM), tl.arange(0, BK)
    mo = ro < out
    if tl.load(row + 5):
        total = tl.zeros((BM,), ACC)
        for i in range(low, high):
            signal = P + tl.load(edges + i * _EDGE)
            for b in range(0, batch, BK):
                mb = (b + rb) < batch
                total += tl.sum(tl.load(signal + (b + rb)[:, None] * out + ro[None, :],
                                        mask=mb[:, None] & mo[None, :], other=0.0), 0)
        total *= factor
        if adds:
            total += tl.load(place + ro, mask=mo, other=0.0)
        tl.store(place + ro, total, mask=mo)
    else:
        ri = second + tl.arange(0, BN)
        mi = ri < width
        code = tl.load(row + 4)
        acc = tl.zeros((BM, BN), ACC)
        for i in range(low, high):
            signal, state = tl.load(edges + i * _EDGE), tl.load(edges + i * _EDGE + 2)
            if MIXED:
                acc = _outer(acc, P + signal, P + state, out, width, ro, ri, mo, mi, batch, code, PHI, HALF, BK, DOT)
            else:
                acc = _outer(acc, P + _whole(signal, ALIGN), P + _whole(state, ALIGN), _whole(out, ALIGN),
                             _whole(width, ALIGN), ro, ri, mo, mi, batch, code, PHI, HALF, BK, DOT)
        acc *= factor
        at = place + ro[:, None] * width + ri[None, :]
        ok = mo[:, None] & mi[None, :]
        if adds:
            acc += tl.load(at, mask=ok, other=0.0)
        tl.store(at, acc, mask=ok)


@triton.jit
def _outer(acc, s, h, out, width, ro, ri, mo, mi, batch, code,
           PHI: tl.constexpr, HALF: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """Add S^T phi(H), summed over the batch."""
    rb = tl.arange(0, BK)
    for b in range(0, batch, BK):
        at = b + rb
        mb = at < batch
        x = tl.load(s + at[None, :] * out + ro[:, None], mask=mo[:, None] & mb[None, :], other=0.0)
        y = tl.load(h + at[:, None] * width + ri[None, :], mask=mb[:, None] & mi[None, :], other=0.0)
        if PHI:
            y = _sigma(y, code)
        if HALF is not None:
            x, y = x.to(HALF), y.to(HALF)
        acc = tl.dot(x, y, acc, input_precision=DOT, out_dtype=acc.dtype)
    return acc
