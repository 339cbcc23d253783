"""The kernels of inference, in Triton: two launches a step. :mod:`pcgraph.backends.triton.learning` has the others.

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

__all__ = ["predict", "predict_scalars", "pull", "pull_scalars", "ready", "turn", "whole"]

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
def _way(gradient, mean, square, ok, numbers, MOVE: tl.constexpr):
    """Return the way along which a state moves at its rate, and bring what is kept from step to step up to date.

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
        way = _way(gradient, mean, mean + kept, ok, numbers, MOVE)
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
        way = _way(gradient, mean, mean + kept, ok, numbers, MOVE)
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
