"""The kernels of inference, in Triton: two launches a step.

Those of single neurons are in :mod:`pcgraph.backends.triton.scalars`, those that learn in
:mod:`pcgraph.backends.triton.learning`.

    predict   A = B + sum of phi(H_source) W^T over a node's edges, and then its errors, or its state if it is swept
    pull      G = E - sum of phi'(H) * (S_target W) over the edges that leave a node, and then its move

One program computes one tile, some samples by some neurons of one node: it walks the edges of the node, adds up in
registers, and ends with whatever is done to a neuron. Nothing is gathered, no sum takes a second pass, and nothing is
atomic, so that the same numbers come out each time. Tables say which program does what, so that nodes of all sizes and
wirings run in one launch. Every address is an offset, in numbers, from one of two tensors: `P` for what has the dtype
of the states, `W` for weights.

This module is imported where the first program is made: it needs the package ``triton``. Where the environment said
``TRITON_INTERPRET=1`` before that, the kernels run on the CPU, by Triton's interpreter.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# fmt: off
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from pcgraph.backends.triton import tables
from pcgraph.backends.triton.functions import errors, sigma

__all__ = ["direction", "predict", "pull", "ready", "whole"]

_NONE = tl.constexpr(tables.NONE)
_NODE = tl.constexpr(len(tables.NODE))
_EDGE = tl.constexpr(len(tables.EDGE))
#: A tile is the number of its node in the launch, its first neuron, the node's row, and the row of its first edge.
_TILE = tl.constexpr(2 + len(tables.NODE) + len(tables.EDGE))
_COMPARE, _SWEEP, _KEEP, _OWN = (tl.constexpr(flag) for flag in (tables.COMPARE, tables.SWEEP, tables.KEEP, tables.OWN))
_ENERGY, _EVENLY = tl.constexpr(tables.ENERGY), tl.constexpr(tables.EVENLY)
_MOMENTUM, _NESTEROV, _ADAM = (tl.constexpr(kind) for kind in (tables.MOMENTUM, tables.NESTEROV, tables.ADAM))
_COPY, _UNALIGNED = tl.constexpr(tables.COPY), tl.constexpr(tables.UNALIGNED)


@triton.jit
def whole(number, ALIGN: tl.constexpr):
    """Return the number itself, which is a multiple of `ALIGN`, written so that the compiler sees it.

    ``tl.multiple_of`` would say it of every use of the number, those elsewhere included.
    """
    return number // ALIGN * ALIGN


@triton.jit
def ready(EARLY: tl.constexpr):
    """Wait until all that ran before has been written; the next launch may look up its tables from here on.

    Where `EARLY` is true a launch begins before the one ahead of it has ended: what comes above this, in any kernel,
    may read tables alone, which nothing writes.
    """
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def _edge(row):
    """Look an edge up: where its other end lies, how wide that is, its weight, its activation, and its kind."""
    return tl.load(row), tl.load(row + 1).to(tl.int32), tl.load(row + 2), tl.load(row + 3), tl.load(row + 4)


@triton.jit
def _samples(x, UPRIGHT: tl.constexpr):
    """Lay numbers along the side of a tile that has samples: the first, or where it stands `UPRIGHT` the second."""
    return x[None, :] if UPRIGHT else x[:, None]


@triton.jit
def _neurons(x, UPRIGHT: tl.constexpr):
    """Lay numbers along the side of a tile that has neurons."""
    return x[:, None] if UPRIGHT else x[None, :]


@triton.jit
def _slice(acc, x, w, at, width, down, mm, mn, code,
           BACK: tl.constexpr, UPRIGHT: tl.constexpr, PHI: tl.constexpr, DOT: tl.constexpr):
    """Add what the summed indices `at`, of `width` in all, contribute to one edge's product."""
    mk = at < width
    a = tl.load(x + _neurons(at, UPRIGHT), mask=mm & _neurons(mk, UPRIGHT), other=0.0)
    b = tl.load(w + _samples(at, UPRIGHT) * down, mask=_samples(mk, UPRIGHT) & mn, other=0.0)
    if PHI:
        a, _ = sigma(a, code, PHI)
    if UPRIGHT:
        if BACK:
            # Tensor cores take weights that lie the other way from registers alone. The compiler leaves there what
            # has been computed, and would write what has been loaded to shared memory number by number.
            b += 0.0
        acc = tl.dot(b, a.to(b.dtype), acc, input_precision=DOT, out_dtype=acc.dtype)
    else:
        acc = tl.dot(a.to(b.dtype), b, acc, input_precision=DOT, out_dtype=acc.dtype)
    return acc


@triton.jit
def _product(acc, P, W, far, weight, width, down, across, rm, rn, mm, mn, code,
             BACK: tl.constexpr, UPRIGHT: tl.constexpr, PHI: tl.constexpr, SINGLE: tl.constexpr, BK: tl.constexpr,
             DOT: tl.constexpr, STAGES: tl.constexpr = None):
    """Add one edge's product, of samples x width with width x neurons: weights lie `down` and `across` apart."""
    rk = tl.arange(0, BK)
    x = P + far + rm * width
    w = W + weight + rn * across
    if SINGLE:
        acc = _slice(acc, x, w, rk, width, down, mm, mn, code, BACK, UPRIGHT, PHI, DOT)
    else:
        for k in tl.range(0, width, BK, num_stages=STAGES):
            acc = _slice(acc, x, w, k + rk, width, down, mm, mn, code, BACK, UPRIGHT, PHI, DOT)
    return acc


@triton.jit
def _edges(acc, P, W, far, width, weight, code, kind, edges, low, high, own, across, rm, rn, mm, mn,
           BACK: tl.constexpr, UPRIGHT: tl.constexpr, PHI: tl.constexpr, SINGLE: tl.constexpr, MIXED: tl.constexpr,
           COPIES: tl.constexpr, ALIGN: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """Add what the edges of a node carry to one tile of it: forward, or where `BACK` is true back to the source.

    The first edge has been looked up; each of the others is while the one before it is computed. Backward,
    `own` is where the node's states lie, at which the activation of an edge is differentiated. `PHI` holds the bits of
    the edges' activations. Edges whose rows begin anywhere are few and narrow: their loads are not made ahead, so that
    they need no shared memory of their own.
    """
    for i in range(low, high):
        far_, width_, weight_, code_, kind_ = _edge(edges + (i + 1) * _EDGE)
        if BACK and PHI != 0:
            part = acc * 0.0
        else:
            part = acc
        if COPIES and kind == _COPY:
            x = tl.load(P + far + rm * width + rn, mask=mm & mn, other=0.0)
            if PHI != 0 and not BACK:
                x, _ = sigma(x, code, PHI)
            part += x
        elif MIXED and kind == _UNALIGNED:
            if BACK:
                part = _product(part, P, W, far, weight, width, across, 1, rm, rn, mm, mn, code,
                                True, UPRIGHT, 0, SINGLE, BK, DOT, 1)
            else:
                part = _product(part, P, W, far, weight, width, 1, width, rm, rn, mm, mn, code,
                                False, UPRIGHT, PHI, SINGLE, BK, DOT, 1)
        else:
            broad = whole(width, ALIGN)
            if BACK:
                own_width = whole(across, ALIGN)
                part = _product(part, P, W, whole(far, ALIGN), whole(weight, ALIGN), broad, own_width, 1,
                                rm, rn, mm, rn < own_width, code, True, UPRIGHT, 0, SINGLE, BK, DOT)
            else:
                part = _product(part, P, W, whole(far, ALIGN), whole(weight, ALIGN), broad, 1, broad,
                                rm, rn, mm, mn, code, False, UPRIGHT, PHI, SINGLE, BK, DOT)
        if BACK and PHI != 0:
            h = tl.load(P + own + rm * across + rn, mask=mm & mn, other=0.0)
            _, rise = sigma(h, code, PHI)
            acc += part * rise
        else:
            acc = part
        far, width, weight, code, kind = far_, width_, weight_, code_, kind_
    return acc


@triton.jit
def _place(offset, size, rm, rn, EVEN: tl.constexpr):
    """Return where the numbers of a tile lie that begins at this offset, of which it is known whether it is `EVEN`."""
    if EVEN:
        offset, size = whole(offset, 4), whole(size, 4)
    return offset + rm * size + rn


@triton.jit
def _there(size, rm, rn, rows, EVEN: tl.constexpr):
    """Tell which numbers of a tile are there: of so many samples, and of a node of so many neurons."""
    if EVEN:
        size = whole(size, 4)
    return (rm < rows) & (rn < size)


@triton.jit
def _states(P, own, size, rm, rn, rows, even, EVEN: tl.constexpr):
    """Load a tile of states. `EVEN` is 1 where all nodes of a launch are `even`, 2 where some are, and 0 elsewhere."""
    if EVEN == 2:
        if even:
            h = tl.load(P + _place(own, size, rm, rn, True), mask=_there(size, rm, rn, rows, True), other=0.0)
        else:
            h = tl.load(P + _place(own, size, rm, rn, False), mask=_there(size, rm, rn, rows, False), other=0.0)
    else:
        h = tl.load(P + _place(own, size, rm, rn, EVEN), mask=_there(size, rm, rn, rows, EVEN), other=0.0)
    return h


@triton.jit
def _predicted(P, acc, h, row, entry, size, start, code, flags, rm, rn, batch, show, precisions, duals, facts,
               UPRIGHT: tl.constexpr, DUAL: tl.constexpr, ENERGIES: tl.constexpr, KNOWN: tl.constexpr,
               PRECISE: tl.constexpr, EVEN: tl.constexpr):
    """End one tile: with what comes into it kept, with its states, or with its errors."""
    own, ok = tl.load(row + 1), _there(size, rm, rn, batch, EVEN)
    if start != _NONE:
        acc += tl.load(P + _place(start, size, rm, rn, EVEN), mask=ok, other=0.0)
    if flags & _KEEP:
        tl.store(P + _place(tl.load(row + 2), size, rm, rn, EVEN), acc, mask=ok)
    mu, rise = sigma(acc, code, KNOWN)
    if flags & _SWEEP:
        tl.store(P + _place(own, size, rm, rn, EVEN), mu, mask=ok)
    elif flags & _COMPARE:
        residual = h - mu
        error, sent = errors(h, mu, flags >> _ENERGY, facts + 2 * entry, rn < size, 0 if UPRIGHT else 1, ENERGIES)
        if PRECISE:
            precision = tl.load(precisions + entry)
            error *= precision
            sent *= precision
        if DUAL:
            dual, rate = tl.load(duals + 2 * entry), tl.load(duals + 2 * entry + 1)
            place = _place(0, size, rm, rn, EVEN)
            shifts = _there(size, rm, rn, tl.where(dual != _NONE, batch, 0), EVEN)
            shift = residual * tl.load(P + rate + place, mask=shifts, other=0.0)
            shift += tl.load(P + dual + place, mask=shifts, other=0.0)
            tl.store(P + dual + place, shift, mask=shifts)
            error += shift
            sent += shift
        tl.store(P + _place(tl.load(row + 4), size, rm, rn, EVEN), error, mask=ok)
        tl.store(P + _place(tl.load(row + 5), size, rm, rn, EVEN), sent * rise, mask=ok)
        if show:
            tl.store(P + _place(tl.load(row + 3), size, rm, rn, EVEN), mu, mask=ok)


@triton.jit(do_not_specialize=["batch", "show"])
def predict(P, W, tiles, edges, batch, show, precisions, duals, facts,
            EDGES: tl.constexpr, DUAL: tl.constexpr, ENERGIES: tl.constexpr, KNOWN: tl.constexpr,
            PHI: tl.constexpr, SINGLE: tl.constexpr, MIXED: tl.constexpr, COPIES: tl.constexpr,
            EVEN: tl.constexpr, UPRIGHT: tl.constexpr, PRECISE: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr,
            EARLY: tl.constexpr,
            BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """Compute one tile of what comes into one node, and of its errors, or of its state.

    `EDGES` says whether anything is added up, `KNOWN` holds the bits of the nodes' activations, and `show` says whether
    predictions are written.
    """
    tile = tiles + tl.program_id(0) * _TILE
    row = tile + 2
    entry, first, size = tl.load(tile), tl.load(tile + 1).to(tl.int32), tl.load(row).to(tl.int32)
    own, start, bias, code = tl.load(row + 1), tl.load(row + 6), tl.load(row + 7), tl.load(row + 8)
    flags, low, high = tl.load(row + 9), tl.load(row + 10).to(tl.int32), tl.load(row + 11).to(tl.int32)
    far, width, weight, phi, kind = _edge(row + _NODE)
    rm = _samples(tl.program_id(1) * BM + tl.arange(0, BM), UPRIGHT)
    rn = _neurons(whole(first, 4) + tl.arange(0, BN), UPRIGHT)
    mm, mn = rm < batch, rn < size
    compared, biased = tl.where((flags & _COMPARE) != 0, batch, 0), tl.where(bias != _NONE, size, 0)
    even = (flags & _EVENLY) != 0
    ready(EARLY)
    h = _states(P, own, size, rm, rn, compared, even, EVEN)
    begin = tl.load(P + bias + rn, mask=rn < biased, other=0.0)
    acc = tl.zeros((BN, BM) if UPRIGHT else (BM, BN), ACC)
    if EDGES:
        acc = _edges(acc, P, W, far, width, weight, phi, kind, edges, low, high, 0, size, rm, rn, mm, mn,
                     False, UPRIGHT, PHI, SINGLE, MIXED, COPIES, ALIGN, BK, DOT)
    acc += begin
    if EVEN == 2:
        if even:
            _predicted(P, acc, h, row, entry, size, start, code, flags, rm, rn, batch, show, precisions, duals, facts,
                       UPRIGHT, DUAL, ENERGIES, KNOWN, PRECISE, True)
        else:
            _predicted(P, acc, h, row, entry, size, start, code, flags, rm, rn, batch, show, precisions, duals, facts,
                       UPRIGHT, DUAL, ENERGIES, KNOWN, PRECISE, False)
    else:
        _predicted(P, acc, h, row, entry, size, start, code, flags, rm, rn, batch, show, precisions, duals, facts,
                   UPRIGHT, DUAL, ENERGIES, KNOWN, PRECISE, EVEN)


@triton.jit
def direction(gradient, mean, square, ok, numbers, MOVE: tl.constexpr):
    """Return the direction in which a state moves at its rate, and bring what is kept from step to step up to date.

    `mean` and `square` are the places of what is kept. `numbers` holds the momentum, or Adam's first beta; its second
    one; eps; and what both moments are divided by in this step.
    """
    way = gradient
    if MOVE == _MOMENTUM or MOVE == _NESTEROV:  # noqa: SIM109 (Triton knows no `in`)
        momentum = tl.load(numbers)
        kept = tl.load(mean, mask=ok, other=0.0) * momentum + gradient
        tl.store(mean, kept, mask=ok)
        way = kept
        if MOVE == _NESTEROV:
            way = gradient + momentum * kept
    if MOVE == _ADAM:
        first, second, eps = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
        kept = tl.load(mean, mask=ok, other=0.0)
        kept += (1.0 - first) * (gradient - kept)
        tl.store(mean, kept, mask=ok)
        size = tl.load(square, mask=ok, other=0.0) * second + (1.0 - second) * gradient * gradient
        tl.store(square, size, mask=ok)
        way = kept / tl.load(numbers + 3) / (tl.sqrt(size) / tl.load(numbers + 4) + eps)
    return way


@triton.jit
def _moved(P, gradient, h, own, mine, entry, size, rm, rn, batch, rate, moments, kept, numbers, spots,
           MOVE: tl.constexpr, MASKED: tl.constexpr, EVEN: tl.constexpr):
    """End one tile: move its states along their gradients, or write these."""
    ok, place = _there(size, rm, rn, batch, EVEN), _place(0, size, rm, rn, EVEN)
    if MOVE != 0:
        if MASKED:
            spot = tl.load(spots + 2 * entry + 1)
            known = _there(size, rm, rn, tl.where(spot != _NONE, batch, 0), EVEN)
            gradient *= tl.load(P + spot + place, mask=known, other=1.0)
        mean = moments + tl.load(spots + 2 * entry) + place
        way = direction(gradient, mean, mean + kept, ok, numbers, MOVE)
        tl.store(P + _place(own, size, rm, rn, EVEN), h - rate * way, mask=ok)
    else:
        tl.store(P + _place(mine, size, rm, rn, EVEN), gradient, mask=ok)


@triton.jit(do_not_specialize=["batch", "kept"])
def pull(P, W, tiles, edges, batch, rates, moments, kept, numbers, spots,
         EDGES: tl.constexpr, MOVE: tl.constexpr, ALL: tl.constexpr, MASKED: tl.constexpr,
         UPRIGHT: tl.constexpr, PHI: tl.constexpr, SINGLE: tl.constexpr, MIXED: tl.constexpr,
         COPIES: tl.constexpr, EVEN: tl.constexpr, ALIGN: tl.constexpr, ACC: tl.constexpr,
         EARLY: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr):
    """Compute one tile of the gradient of one node's state, which moves along it if `MOVE` is true, or is written."""
    tile = tiles + tl.program_id(0) * _TILE
    row = tile + 2
    entry, first, size = tl.load(tile), tl.load(tile + 1).to(tl.int32), tl.load(row).to(tl.int32)
    own, mine, flags = tl.load(row + 1), tl.load(row + 4), tl.load(row + 9)
    low, high = tl.load(row + 10).to(tl.int32), tl.load(row + 11).to(tl.int32)
    far, width, weight, phi, kind = _edge(row + _NODE)
    rm = _samples(tl.program_id(1) * BM + tl.arange(0, BM), UPRIGHT)
    rn = _neurons(whole(first, 4) + tl.arange(0, BN), UPRIGHT)
    mm, mn = rm < batch, rn < size
    owned, even = tl.where((flags & _OWN) != 0, batch, 0), (flags & _EVENLY) != 0
    ready(EARLY)
    acc = tl.zeros((BN, BM) if UPRIGHT else (BM, BN), ACC)
    h, rate = acc, 0.0
    gradient = _states(P, mine, size, rm, rn, owned, even, EVEN)
    if MOVE != 0:
        h = _states(P, own, size, rm, rn, batch, even, EVEN)
        rate = tl.load(rates if ALL else rates + entry)
    if EDGES:
        acc = _edges(acc, P, W, far, width, weight, phi, kind, edges, low, high, own, size, rm, rn, mm, mn,
                     True, UPRIGHT, PHI, SINGLE, MIXED, COPIES, ALIGN, BK, DOT)
    gradient -= acc
    if EVEN == 2:
        if even:
            _moved(P, gradient, h, own, mine, entry, size, rm, rn, batch, rate, moments, kept, numbers, spots,
                   MOVE, MASKED, True)
        else:
            _moved(P, gradient, h, own, mine, entry, size, rm, rn, batch, rate, moments, kept, numbers, spots,
                   MOVE, MASKED, False)
    else:
        _moved(P, gradient, h, own, mine, entry, size, rm, rn, batch, rate, moments, kept, numbers, spots,
               MOVE, MASKED, EVEN)
