"""Activations and energies by name, in Triton: what the kernels do to one neuron, and its derivatives."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# fmt: off
from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["errors", "sigma"]


@triton.jit
def _tanh(a):
    z = tl.exp(-2.0 * tl.abs(a))
    t = (1.0 - z) / (1.0 + z)
    return tl.where(a < 0, -t, t)


@triton.jit
def sigma(a, code, KNOWN: tl.constexpr):
    """Compute the activation with this number, one of those that have a bit in `KNOWN`, and its derivative at `a`."""
    m, d = a, a * 0.0 + 1.0
    if KNOWN & 2:
        if code == 1:
            m, d = tl.maximum(a, 0.0), tl.where(a > 0, d, 0.0)
    if KNOWN & 4:
        if code == 2:
            m, d = tl.where(a > 0, a, 0.01 * a), tl.where(a > 0, d, 0.01)
    if KNOWN & 8:
        if code == 3:
            m = _tanh(a)
            d = 1.0 - m * m
    if KNOWN & 16:
        if code == 4:
            m = 1.0 / (1.0 + tl.exp(-a))
            d = m * (1.0 - m)
    if KNOWN & 32:
        if code == 5:
            t = 0.5 * (1.0 + tl.erf(a * 0.7071067811865476))
            m, d = a * t, t + a * tl.exp(-0.5 * a * a) * 0.3989422804014327
    if KNOWN & 64:
        if code == 6:
            t = _tanh(0.7978845608028654 * (a + 0.044715 * a * a * a))
            m = 0.5 * a * (1.0 + t)
            d = 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * a * a)
    if KNOWN & 128:
        if code == 7:
            z = tl.exp(tl.minimum(a, 0.0))
            m, d = tl.where(a > 0, a, z - 1.0), tl.where(a > 0, d, z)
    if KNOWN & 256:
        if code == 8:
            t = 1.0 / (1.0 + tl.exp(-a))
            m, d = a * t, t * (1.0 + a * (1.0 - t))
    if KNOWN & 512:
        if code == 9:
            m, d = tl.minimum(tl.maximum(a, -1.0), 1.0), tl.where((a > -1.0) & (a < 1.0), d, 0.0)
    if KNOWN & 1024:
        if code == 10:
            z = tl.exp(tl.minimum(a, 20.0))
            m, d = tl.where(a > 20.0, a, tl.log(1.0 + z)), tl.where(a > 20.0, d, z / (1.0 + z))
    return m, d


@triton.jit
def _logs(x, mn, SIDE: tl.constexpr):
    """Compute the logarithm of the softmax along one side of a tile, of which the neurons `mn` are there."""
    x = tl.where(mn, x, -1e30)
    x -= tl.max(x, SIDE, keep_dims=True)
    return x - tl.log(tl.sum(tl.exp(x), SIDE, keep_dims=True))


@triton.jit
def errors(h, mu, code, facts, mn, SIDE: tl.constexpr, ENERGIES: tl.constexpr):
    """Compute dE/dh and -dE/dmu of the energy with this number, one of those whose bits are set in `ENERGIES`.

    `SIDE` is the side of the tile that has neurons, and `mn` says which of them are there.
    """
    own = h - mu
    sent = own
    if ENERGIES & 2:
        if code == 1:
            one = own * 0.0 + 1.0 / tl.load(facts)
            own = tl.where(own > 0, one, tl.where(own < 0, -one, own * 0.0))
            sent = own
    if ENERGIES & 4:
        if code == 2:
            most = own * 0.0 + tl.load(facts)
            own = tl.minimum(tl.maximum(own, -most), most)
            sent = own
    if ENERGIES & 8:
        if code == 3:
            own = tl.load(facts) * own / (tl.load(facts + 1) + own * own)
            sent = own
    if ENERGIES & 16:
        if code == 4:
            own, sent = -mu, h - 1.0 / (1.0 + tl.exp(-mu))
    if ENERGIES & 32:
        if code == 5:
            own, sent = -mu, h - tl.exp(mu)
    if ENERGIES & 64:
        if code == 6:
            own = own * 0.0
            sent = own
    if ENERGIES & 128:
        if code == 7:
            logs = _logs(mu, mn, SIDE)
            own = tl.where(mn, -logs, 0.0 * mu)
            sent = h - tl.sum(h, SIDE, keep_dims=True) * tl.exp(logs)
    if ENERGIES & 256:
        if code == 8:
            ours, theirs = _logs(h, mn, SIDE), _logs(mu, mn, SIDE)
            shares = tl.exp(ours)
            apart = tl.where(mn, ours - theirs, 0.0 * mu)
            own = shares * (apart - tl.sum(shares * apart, SIDE, keep_dims=True))
            sent = shares - tl.exp(theirs)
    return own, sent
