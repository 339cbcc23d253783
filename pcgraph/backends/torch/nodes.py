"""Whatever is done for every node of a segment at once is here: activations, errors, signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcgraph.activations import Activation
from pcgraph.backends.torch import onednn
from pcgraph.backends.torch.calls import (
    ActivateRows,
    BeginDuals,
    Call,
    CompareRows,
    Fill,
    MeasureRows,
    OffsetRows,
    RelayRows,
    Restore,
    Save,
    ZeroGradient,
    ZeroSignal,
    numbers,
)
from pcgraph.backends.torch.workspace import Step, Workspace, reader, writer
from pcgraph.network import Segment

__all__ = ["BIND"]


def fill(ws: Workspace, call: Fill) -> Step:
    """Bind A[rows] = bias; roots with a prior get the prior."""
    a, index = ws.a(call.group), ws.index(call.rows)
    start, known = ws.structure.groups[call.group].start, ws.structure.priors
    priors = {}
    if known:
        priors = {k: known[start + int(i)] for k, i in enumerate(numbers(call.rows)) if start + int(i) in known}
    value = ws.bias(call.group, call.rows)
    if priors:
        value = _with_priors(ws, value, priors, len(numbers(call.rows)), a.shape[2])
    if isinstance(index, slice):
        view = a[index]
        if value is None:
            return lambda: view.zero_()
        return lambda: view.copy_(value)
    if value is None:
        return lambda: a.index_fill_(0, index, 0.0)
    return lambda: a.index_copy_(0, index, value.expand(len(index), *a.shape[1:]))


def _with_priors(ws: Workspace, bias: Tensor | None, priors: dict[int, Tensor], count: int, size: int) -> Tensor:
    """Return biases for some rows and priors for others; they are made again for every run, since biases learn."""
    rows = ws.empty(count, 1, size).zero_()
    which = torch.tensor(list(priors), device=ws.device)
    fixed = torch.stack([prior.flatten() for prior in priors.values()]).to(rows).unsqueeze(1)

    if bias is not None:
        ws.refreshed(lambda: rows.copy_(bias))
    ws.refreshed(lambda: rows.index_copy_(0, which, fixed))
    return rows


def save(ws: Workspace, call: Save) -> Step:
    """Bind copying A[rows] to rows `at` of the base."""
    base, a, where, at = ws.base(call.base, call.size), ws.a(call.group), ws.index(call.rows), ws.index(call.at)
    read, write = reader(a, where), writer(base, at)
    return lambda: write(read())


def restore(ws: Workspace, call: Restore) -> Step:
    """Bind copying rows `at` of the base to A[rows]."""
    base, a, where, at = ws.base(call.base, call.size), ws.a(call.group), ws.index(call.rows), ws.index(call.at)
    read, write = reader(base, at), writer(a, where)
    return lambda: write(read())


def zero_gradient(ws: Workspace, call: ZeroGradient) -> Step:
    """Bind E[rows] = 0."""
    return _zero(ws.e(call.group), ws.index(call.rows))


def zero_signal(ws: Workspace, call: ZeroSignal) -> Step:
    """Bind S[rows] = 0."""
    return _zero(ws.s(call.group), ws.index(call.rows))


def begin_duals(ws: Workspace, call: BeginDuals) -> Step:
    """Bind L[rows] = 0 and R[rows] = rate."""
    zero, rates, where = _zero(ws.dual(call.group), ws.index(call.rows)), ws.r(call.group), ws.index(call.rows)

    def run() -> None:
        zero()
        rates[where] = call.rate

    return run


def _zero(buffer: Tensor, where: Tensor | slice) -> Step:
    if isinstance(where, slice):
        view = buffer[where]
        return lambda: view.zero_()
    return lambda: buffer.index_fill_(0, where, 0.0)


def activate(ws: Workspace, call: ActivateRows) -> Step:
    """Bind H[rows] = σ(A[rows])."""
    segment = ws.structure.segments[call.segment]
    h, a, sigma = ws.h(segment.group), ws.a(segment.group), _activation(ws, segment)
    where, shape = ws.index(call.rows), ws.structure.groups[segment.group].shape
    if isinstance(where, slice):
        source, target = a[where].view(-1, *shape), h[where].view(-1, *shape)
        return lambda: sigma(source, out=target)

    read = reader(a, where)

    def gathered() -> None:
        some = read().view(-1, *shape)
        h.index_copy_(0, where, sigma(some, out=some).view(-1, *h.shape[1:]))

    return gathered


def offset(ws: Workspace, call: OffsetRows) -> Step:
    """Bind H[rows] = σ(A[rows]) + X[rows]."""
    h, x, where, predict = _predicted(ws, call)
    error, write = reader(x, where), writer(h, where)
    return lambda: write(predict() + error())


def measure(ws: Workspace, call: MeasureRows) -> Step:
    """Bind X[rows] = H[rows] - σ(A[rows])."""
    h, x, where, predict = _predicted(ws, call)
    state, write = reader(h, where), writer(x, where)
    return lambda: write(state() - predict())


def _predicted(
    ws: Workspace, call: OffsetRows | MeasureRows
) -> tuple[Tensor, Tensor, Tensor | slice, Callable[[], Tensor]]:
    segment = ws.structure.segments[call.segment]
    h, a, sigma = ws.h(segment.group), ws.a(segment.group), _activation(ws, segment)
    where, shape = ws.index(call.rows), ws.structure.groups[segment.group].shape

    into = reader(a, where)
    return h, ws.x(segment.group), where, lambda: sigma(into().view(-1, *shape)).view(-1, *h.shape[1:])


def relay(ws: Workspace, call: RelayRows) -> Step:
    """Bind S[rows] -= σ'(A[rows]) ⊙ E[rows]."""
    segment = ws.structure.segments[call.segment]
    g, where, shape = segment.group, ws.index(call.rows), ws.structure.groups[segment.group].shape
    s, sigma = ws.s(g), _activation(ws, segment)
    back, into, mu, signal = (reader(t, where) for t in (ws.e(g), ws.a(g), ws.m(g), s))
    write = writer(s, where)
    if sigma.is_identity:
        return lambda: write(signal() - back())

    def curved() -> None:
        sent = sigma.pullback(back().view(-1, *shape), into().view(-1, *shape), mu=mu().view(-1, *shape))
        write(signal() - sent.view(-1, *s.shape[1:]))

    return curved


def _activation(ws: Workspace, segment: Segment) -> Activation:
    """Return σ as it is computed for a segment.

    It is the same for all its nodes, whichever are computed, so that a swept state has no error at all.
    """
    values = (segment.stop - segment.start) * ws.batch * ws.structure.groups[segment.group].size
    return onednn.activation(segment.activation, values) if ws.onednn else segment.activation


@dataclass(frozen=True)
class _Rows:
    """A comparison works on these rows of H, A, M, E and S, and where there are duals of L and R.

    Each is (nodes, batch, size).
    """

    h: Tensor
    a: Tensor
    m: Tensor
    e: Tensor
    s: Tensor
    dual: Tensor | None = None
    r: Tensor | None = None

    def shaped(self, shape: tuple[int, ...]) -> _Rows:
        """View all samples of all rows as one batch."""
        own = (self.h, self.a, self.m, self.e, self.s, self.dual, self.r)
        return _Rows(*(None if t is None else t.view(-1, *shape) for t in own))  # type: ignore[arg-type]

    def shifted(self, residual: Tensor) -> Tensor:
        """Let the duals rise by a residual, and return them."""
        assert self.dual is not None
        assert self.r is not None
        return self.dual.addcmul_(residual, self.r)


def compare(ws: Workspace, call: CompareRows) -> Step:
    """Bind M = σ(A), E = dF/dH of the node's own energy, and S = σ'(A) ⊙ (-dF/dM).

    σ'(A) is kept where A does not change.
    """
    segment = ws.structure.segments[call.segment]
    where = ws.index(call.rows)
    precision = None
    if call.precision is not None:
        precision = torch.from_numpy(call.precision).to(dtype=ws.dtype, device=ws.device).view(-1, 1, 1)
    g = segment.group
    if call.scheduled:
        precision = ws.p(g)[where] if isinstance(where, slice) else ws.empty(len(where), 1, 1)
    buffers = [ws.h(g), ws.a(g), ws.m(g), ws.e(g), ws.s(g), *((ws.dual(g), ws.r(g)) if call.dual else ())]
    if isinstance(where, slice):
        return _compare(ws, call, _Rows(*(b[where] for b in buffers)), precision)
    rows = _Rows(*(torch.empty_like(reader(b, where)()) for b in buffers))
    inner = _compare(ws, call, rows, precision)
    results = [(buffers[3], rows.e), (buffers[4], rows.s)]
    if buffers[2] is not buffers[1]:
        results.append((buffers[2], rows.m))
    read = [(buffers[0], rows.h), (buffers[1], rows.a)]
    if call.scheduled and precision is not None:
        read.append((ws.p(g), precision))
    if rows.dual is not None and rows.r is not None:
        results.append((buffers[5], rows.dual))
        read += [(buffers[5], rows.dual), (buffers[6], rows.r)]

    def gathered() -> None:
        for buffer, found in read:
            torch.index_select(buffer, 0, where, out=found)
        inner()
        for buffer, found in results:
            buffer.index_copy_(0, where, found)

    return gathered


def _compare(ws: Workspace, call: CompareRows, r: _Rows, precision: Tensor | None) -> Step:
    segment = ws.structure.segments[call.segment]
    shape = ws.structure.groups[segment.group].shape
    flat, sigma = r.shaped(shape), _activation(ws, segment)
    predict = _predict(r, flat, sigma, ws.m(segment.group) is ws.a(segment.group))
    if not segment.gaussian:
        return _general(ws, call, flat, sigma, predict)

    return _gaussian(call, r, flat, sigma, predict, _miss(r, precision))


def _predict(r: _Rows, flat: _Rows, sigma: Activation, same: bool) -> Callable[[], Tensor]:
    if not sigma.is_identity:
        return lambda: sigma(flat.a, out=flat.m).view(r.m.shape)
    if same:
        return lambda: r.a
    return lambda: r.m.copy_(r.a)


def _miss(r: _Rows, precision: Tensor | None) -> Callable[[Tensor], object]:
    """Return what writes the error of the Gaussian energy, and the dual with it, into E."""
    if r.dual is not None:
        return _miss_and_dual(r, precision)
    if precision is None:
        return lambda mu: torch.sub(r.h, mu, out=r.e)
    return lambda mu: torch.sub(r.h, mu, out=r.e).mul_(precision)


def _miss_and_dual(r: _Rows, precision: Tensor | None) -> Callable[[Tensor], object]:
    if precision is None:
        return lambda mu: r.e.add_(r.shifted(torch.sub(r.h, mu, out=r.e)))

    def weighed(mu: Tensor) -> None:
        dual = r.shifted(torch.sub(r.h, mu, out=r.e))
        r.e.mul_(precision).add_(dual)

    return weighed


def _gaussian(
    call: CompareRows, r: _Rows, flat: _Rows, sigma: Activation, predict: Callable[[], Tensor],
    miss: Callable[[Tensor], object],
) -> Step:  # fmt: skip
    def identity() -> None:
        miss(predict())
        r.s.copy_(r.e)

    def curved() -> None:
        miss(predict())
        sigma.pullback(flat.e, flat.a, out=flat.s, mu=flat.m)

    def keep() -> None:
        miss(predict())
        sigma.pullback(flat.s.fill_(1.0), flat.a, out=flat.a, mu=flat.m)
        torch.mul(r.e, r.a, out=r.s)

    def use() -> None:
        miss(r.m)
        torch.mul(r.e, r.a, out=r.s)

    if call.slope is not None:
        return keep if call.slope == "keep" else use
    return identity if sigma.is_identity else curved


def _general(
    ws: Workspace, call: CompareRows, flat: _Rows, sigma: Activation, predict: Callable[[], Tensor]
) -> Step:  # fmt: skip
    energy = ws.net.energy_of(call.segment)

    def alone() -> tuple[Tensor, Tensor]:
        return energy.error(flat.h, predict().view(flat.h.shape))

    def with_dual() -> tuple[Tensor, Tensor]:
        mu = predict().view(flat.h.shape)
        own, sent = energy.error(flat.h, mu)
        dual = flat.shifted(flat.h - mu)
        return own + dual, sent + dual

    errors = with_dual if call.dual else alone

    def identity() -> None:
        own, sent = errors()
        flat.e.copy_(own)
        flat.s.copy_(sent)

    def curved() -> None:
        own, sent = errors()
        flat.e.copy_(own)
        sigma.pullback(sent, flat.a, out=flat.s, mu=flat.m)

    return identity if sigma.is_identity else curved


#: What binds each kind of call on nodes.
BIND: dict[type[Call], Callable[[Workspace, Any], Step]] = {
    Fill: fill,
    Save: save,
    Restore: restore,
    ActivateRows: activate,
    CompareRows: compare,
    ZeroGradient: zero_gradient,
    ZeroSignal: zero_signal,
    BeginDuals: begin_duals,
    MeasureRows: measure,
    OffsetRows: offset,
    RelayRows: relay,
}
