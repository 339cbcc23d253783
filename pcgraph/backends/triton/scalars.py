"""The kernels of inference for single neurons, in Triton, and for groups between which there are stored entries alone.

    predict_scalars, pull_scalars    what `predict` and `pull` of :mod:`pcgraph.backends.triton.kernels` do
    turn                             H, or S, copied to where the samples of a neuron lie side by side

One program has some neurons by some samples: it walks the entries of each neuron, which are stored in its order, and
reads the samples at their other ends in one piece. Where nodes have more than one neuron, those of a program are of one
node. Addresses are offsets as in that room.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# fmt: off
from __future__ import annotations

import triton
import triton.language as tl

from pcgraph.backends.triton import tables
from pcgraph.backends.triton.functions import sigma
from pcgraph.backends.triton.kernels import direction, ready, whole

__all__ = ["predict_scalars", "pull_scalars", "turn"]

_NONE = tl.constexpr(tables.NONE)
_NODE = tl.constexpr(len(tables.NODE))
_COMPARE, _SWEEP, _KEEP, _OWN = (tl.constexpr(flag) for flag in (tables.COMPARE, tables.SWEEP, tables.KEEP, tables.OWN))


@triton.jit
def _neuron(nodes, tiles, ends, count, WIDE: tl.constexpr, EVEN: tl.constexpr, BR: tl.constexpr):
    """Look the neurons of a program up: their node and its row, and the number, place and entries of each.

    Where all nodes have one neuron each, there are as many nodes. Elsewhere those of a program are of one node, so that
    they lie side by side, and whatever is known of the node is one number; `EVEN` says that all begins at multiples of
    four numbers.
    """
    step = tl.arange(0, BR)
    if WIDE:
        tile = tiles + 3 * tl.program_id(0)
        owner, first, begin = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
        row, entry = nodes + owner * _NODE, begin + step
        size = tl.load(row)
        if EVEN:
            first, size = whole(first, 4), whole(size, 4)
        within = first + step
        live = within < size
        low = tl.load(ends + entry, mask=live, other=0)
        high = tl.load(ends + entry + 1, mask=live, other=0)
    else:
        entry = tl.program_id(0) * BR + step
        owner, row, within, size, live = entry, nodes + entry * _NODE, entry * 0, 1, entry < count
        low = tl.load(row + 10, mask=live, other=0).to(tl.int32)
        high = tl.load(row + 11, mask=live, other=0).to(tl.int32)
    return owner, row, entry, within, size, live, low, high


@triton.jit
def _fact(at, live, other, WIDE: tl.constexpr):
    """Load what is known of the node of each neuron, or of the one that all are of."""
    if WIDE:
        found = tl.load(at)
    else:
        found = tl.load(at, mask=live, other=other)
    return found


@triton.jit
def _offset(at, live, other, WIDE: tl.constexpr, EVEN: tl.constexpr):
    """Load where something of the nodes of neurons lies."""
    found = _fact(at, live, other, WIDE)
    if EVEN:
        found = whole(found, 4)
    return found


@triton.jit
def _down(x, WIDE: tl.constexpr):
    """Lay what is known of nodes along the neurons of a tile."""
    return x if WIDE else x[:, None]


@triton.jit
def _only(mask, which, WIDE: tl.constexpr):
    """Restrict the mask of a tile to some nodes."""
    return tl.where(_down(which, WIDE), mask, False)


@triton.jit
def _tile(P, x, sample, WIDE: tl.constexpr):
    """Return where the numbers of a tile lie that begin at `x`, or at those of each neuron."""
    return P + (_down(x, WIDE) + sample)


@triton.jit
def _entry(W, edges, low, high, i, BE: tl.constexpr):
    """Look some entries of each neuron up, from the one of this number: where the other ends lie, and the weights."""
    at = low[None, :] + i + tl.arange(0, BE)[:, None]
    there = at < high[None, :]
    return there, tl.load(edges + at, mask=there, other=0), tl.load(W + at, mask=there, other=0.0)


@triton.jit
def _scalars(acc, P, W, edges, low, high, rb, mb, BE: tl.constexpr, ALIGN: tl.constexpr):
    """Add what the entries of some neurons carry, (neurons, samples): weights lie in the order of the entries.

    Samples lie side by side at the other end of each, from a multiple of `ALIGN` numbers on. Some entries of each
    neuron come first, so that a warp adds up those of its neurons in registers; the next ones are looked up meanwhile.
    """
    there, far, weight = _entry(W, edges, low, high, 0, BE)
    for i in range(0, tl.max(high - low), BE):
        there_, far_, weight_ = _entry(W, edges, low, high, i + BE, BE)
        x = tl.load(P + (whole(far, ALIGN)[:, :, None] + rb[None, None, :]),
                    mask=there[:, :, None] & mb[None, None, :], other=0.0)
        acc += tl.sum(weight[:, :, None] * x, 0)
        there, far, weight = there_, far_, weight_
    return acc


@triton.jit(do_not_specialize=["count", "batch", "code", "show"])
def predict_scalars(P, W, nodes, tiles, ends, edges, precisions, duals, count, batch, code, show,
                    DUAL: tl.constexpr, KNOWN: tl.constexpr, PRECISE: tl.constexpr, WIDE: tl.constexpr,
                    EVEN: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr, EARLY: tl.constexpr,
                    BR: tl.constexpr, BE: tl.constexpr, BB: tl.constexpr):
    """Compute what comes into some neurons, their errors or states: all have one activation."""
    rb = tl.program_id(1) * BB + tl.arange(0, BB)
    owner, row, _, within, size, live, low, high = _neuron(nodes, tiles, ends, count, WIDE, EVEN, BR)
    mb = rb < whole(batch, ALIGN)
    sample, there = rb[None, :] * size + within[:, None], live[:, None] & mb[None, :]
    start, bias = _offset(row + 6, live, _NONE, WIDE, EVEN), _fact(row + 7, live, _NONE, WIDE)
    flags = _fact(row + 9, live, 0, WIDE)
    a, h = _offset(row + 2, live, 0, WIDE, EVEN), _offset(row + 1, live, 0, WIDE, EVEN)
    ready(EARLY)
    acc = _scalars(tl.zeros((BR, BB), ACC), P, W, edges, low, high, rb, mb, BE, ALIGN)
    acc += tl.load(_tile(P, start, sample, WIDE), mask=_only(there, start != _NONE, WIDE), other=0.0)
    acc += tl.load(P + (bias + within), mask=tl.where(bias != _NONE, live, False), other=0.0)[:, None]
    tl.store(_tile(P, a, sample, WIDE), acc, mask=_only(there, (flags & _KEEP) != 0, WIDE))
    mu, rise = sigma(acc, code, KNOWN)
    tl.store(_tile(P, h, sample, WIDE), mu, mask=_only(there, (flags & _SWEEP) != 0, WIDE))
    ok = _only(there, (flags & _COMPARE) != 0, WIDE)
    error = tl.load(_tile(P, h, sample, WIDE), mask=ok, other=0.0) - mu
    residual = error
    if PRECISE:
        error *= _down(_fact(precisions + owner, live, 1.0, WIDE), WIDE)
    if DUAL:
        dual, rate = _fact(duals + 2 * owner, live, _NONE, WIDE), _fact(duals + 2 * owner + 1, live, 0, WIDE)
        shifts = _only(ok, dual != _NONE, WIDE)
        shift = residual * tl.load(_tile(P, rate, sample, WIDE), mask=shifts, other=0.0)
        shift += tl.load(_tile(P, dual, sample, WIDE), mask=shifts, other=0.0)
        tl.store(_tile(P, dual, sample, WIDE), shift, mask=shifts)
        error += shift
    e, s = _offset(row + 4, live, 0, WIDE, EVEN), _offset(row + 5, live, 0, WIDE, EVEN)
    tl.store(_tile(P, e, sample, WIDE), error, mask=ok)
    tl.store(_tile(P, s, sample, WIDE), error * rise, mask=ok)
    if show:
        tl.store(_tile(P, _offset(row + 3, live, 0, WIDE, EVEN), sample, WIDE), mu, mask=ok)


@triton.jit(do_not_specialize=["count", "batch", "kept"])
def pull_scalars(P, W, nodes, tiles, ends, edges, rates, moments, kept, numbers, spots, count, batch,
                 MOVE: tl.constexpr, ALL: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
                 EVEN: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr, EARLY: tl.constexpr,
                 BR: tl.constexpr, BE: tl.constexpr, BB: tl.constexpr):
    """Compute the gradients of some neurons: these move along them, or they are written."""
    rb = tl.program_id(1) * BB + tl.arange(0, BB)
    owner, row, entry, within, size, live, low, high = _neuron(nodes, tiles, ends, count, WIDE, EVEN, BR)
    mb = rb < whole(batch, ALIGN)
    sample, ok = rb[None, :] * size + within[:, None], live[:, None] & mb[None, :]
    flags, e = _fact(row + 9, live, 0, WIDE), _offset(row + 4, live, 0, WIDE, EVEN)
    ready(EARLY)
    gradient = -_scalars(tl.zeros((BR, BB), ACC), P, W, edges, low, high, rb, mb, BE, ALIGN)
    gradient += tl.load(_tile(P, e, sample, WIDE), mask=_only(ok, (flags & _OWN) != 0, WIDE), other=0.0)
    if MOVE != 0:
        if MASKED:
            spot = _fact(spots + 2 * owner + 1, live, _NONE, WIDE)
            gradient *= tl.load(_tile(P, spot, sample, WIDE), mask=_only(ok, spot != _NONE, WIDE), other=1.0)
        h = _tile(P, _offset(row + 1, live, 0, WIDE, EVEN), sample, WIDE)
        rate = tl.load(rates + entry * (0 if ALL else 1), mask=live, other=0.0)
        mean = _tile(moments, _fact(spots + 2 * owner, live, 0, WIDE), sample, WIDE)
        way = direction(gradient, mean, mean + kept, ok, numbers, MOVE)
        tl.store(h, tl.load(h, mask=ok, other=0.0) - rate[:, None] * way, mask=ok)
    else:
        tl.store(_tile(P, e, sample, WIDE), gradient, mask=ok)


@triton.jit(do_not_specialize=["batch", "size"])
def turn(P, T, batch, size, EARLY: tl.constexpr, BN: tl.constexpr, BB: tl.constexpr):
    """Copy some neurons of a node of so many, where their samples come to lie side by side."""
    node = tl.program_id(1).to(tl.int64) * size * batch
    rn, rb = tl.program_id(0) * BN + tl.arange(0, BN), tl.program_id(2) * BB + tl.arange(0, BB)
    mn, mb = rn < size, rb < batch
    ready(EARLY)
    x = tl.load(P + node + rb[:, None].to(tl.int64) * size + rn[None, :], mask=mb[:, None] & mn[None, :], other=0.0)
    tl.store(T + node + rn[:, None].to(tl.int64) * batch + rb[None, :], tl.trans(x), mask=mn[:, None] & mb[None, :])
