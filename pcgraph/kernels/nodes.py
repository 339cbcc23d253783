"""What is done for every node of a run at once: activations, errors, signals."""

from __future__ import annotations

import torch
from torch import Tensor

from pcgraph.activations import Activation
from pcgraph.kernels import onednn
from pcgraph.kernels.workspace import Step, Workspace, take
from pcgraph.network import Run
from pcgraph.plan.operations import Activate, Errors, Fill, Restore, Save, ZeroGradient, numbers

__all__ = ["activate", "errors", "fill", "restore", "save", "zero_gradient"]


def fill(ws: Workspace, op: Fill) -> Step:
    """A[rows] = bias; for roots with a prior, the prior."""
    a, index = ws.a[op.group], ws.index(op.rows)
    start = ws.plan.structure.groups[op.group].start
    known = ws.plan.structure.priors
    priors = {k: known[start + int(i)] for k, i in enumerate(numbers(op.rows)) if start + int(i) in known}
    value = ws.bias(op.group, op.rows)
    if priors:
        value = _with_priors(ws, value, priors, len(numbers(op.rows)), a.shape[2])
    if isinstance(index, slice):
        view = a[index]
        if value is None:
            return lambda: view.zero_()
        return lambda: view.copy_(value)
    if value is None:
        return lambda: a.index_fill_(0, index, 0.0)
    return lambda: a.index_copy_(0, index, value.expand(len(index), *a.shape[1:]))


def _with_priors(ws: Workspace, bias: Tensor | None, priors: dict[int, Tensor], count: int, size: int) -> Tensor:
    """Biases of some rows, priors of others; made again for every run, since biases learn."""
    rows = ws.empty(count, 1, size).zero_()
    which = torch.tensor(list(priors), device=ws.device)
    fixed = torch.stack([prior.flatten() for prior in priors.values()]).to(rows).unsqueeze(1)

    def fill_in() -> None:
        if bias is not None:
            rows.copy_(bias)
        rows.index_copy_(0, which, fixed)

    ws.refresh.append(fill_in)
    fill_in()
    return rows


def save(ws: Workspace, op: Save) -> Step:
    """Rows `at` of the base = A[rows]."""
    base, a, where, at = ws.base[op.base], ws.a[op.group], ws.index(op.rows), ws.index(op.at)
    return lambda: _put(base, at, take(a, where))


def restore(ws: Workspace, op: Restore) -> Step:
    """A[rows] = rows `at` of the base."""
    base, a, where, at = ws.base[op.base], ws.a[op.group], ws.index(op.rows), ws.index(op.at)
    return lambda: _put(a, where, take(base, at))


def _put(buffer: Tensor, where: Tensor | slice, value: Tensor) -> None:
    if isinstance(where, slice):
        buffer[where].copy_(value)
    else:
        buffer.index_copy_(0, where, value)


def zero_gradient(ws: Workspace, op: ZeroGradient) -> Step:
    """E[rows] = 0."""
    e, where = ws.e[op.group], ws.index(op.rows)
    if isinstance(where, slice):
        view = e[where]
        return lambda: view.zero_()
    return lambda: e.index_fill_(0, where, 0.0)


def activate(ws: Workspace, op: Activate) -> Step:
    """H[rows] = σ(A[rows])."""
    run = ws.plan.structure.runs[op.run]
    h, a, sigma = ws.h[run.group], ws.a[run.group], _activation(ws, run)
    where, shape = ws.index(op.rows), ws.plan.structure.groups[run.group].shape
    if isinstance(where, slice):
        source, target = a[where].view(-1, *shape), h[where].view(-1, *shape)
        return lambda: sigma(source, out=target)

    def gathered() -> None:
        some = take(a, where).view(-1, *shape)
        h.index_copy_(0, where, sigma(some, out=some).view(-1, *h.shape[1:]))

    return gathered


def _activation(ws: Workspace, run: Run) -> Activation:
    """The same for all nodes of a run, whichever of them are computed, so that a swept state has no error at all."""
    values = (run.stop - run.start) * ws.batch * ws.h[run.group].shape[2]
    return onednn.activation(run.activation, values) if ws.onednn else run.activation


def errors(ws: Workspace, op: Errors) -> Step:
    """M = σ(A); E = dF/dH of the node's own energy; S = σ'(A) ⊙ (-dF/dM), with σ'(A) kept where A does not change."""
    run = ws.plan.structure.runs[op.run]
    group = ws.plan.structure.groups[run.group]
    where = ws.index(op.rows)
    precision = None
    if run.precision is not None:
        precision = torch.from_numpy(run.precision[numbers(op.rows) - run.start]).to(ws.h[0]).view(-1, 1, 1)
    buffers = [ws.h[run.group], ws.a[run.group], ws.m[run.group], ws.e[run.group], ws.s[run.group]]
    if isinstance(where, slice):
        return _errors(ws, op, [b[where] for b in buffers], group.shape, precision)
    h, a, m, e, s = rows = [torch.empty_like(take(b, where)) for b in buffers]
    inner = _errors(ws, op, rows, group.shape, precision)

    def gathered() -> None:
        torch.index_select(buffers[0], 0, where, out=h)
        torch.index_select(buffers[1], 0, where, out=a)
        inner()
        if buffers[2] is not buffers[1]:
            buffers[2].index_copy_(0, where, m)
        buffers[3].index_copy_(0, where, e)
        buffers[4].index_copy_(0, where, s)

    return gathered


def _errors(ws: Workspace, op: Errors, buffers: list[Tensor], shape: tuple[int, ...], precision: Tensor | None) -> Step:
    h, a, m, e, s = buffers
    run = ws.plan.structure.runs[op.run]
    sigma, energy = _activation(ws, run), run.energy
    assert energy is not None
    flat = tuple(t.view(-1, *shape) for t in (h, a, m, e, s))

    def predict() -> Tensor:
        if sigma.is_identity:
            if ws.m[run.group] is not ws.a[run.group]:
                m.copy_(a)
            return a
        sigma(flat[1], out=flat[2])
        return m

    def miss(mu: Tensor) -> None:
        torch.sub(h, mu, out=e)
        if precision is not None:
            e.mul_(precision)

    def gaussian() -> None:
        miss(predict())
        if sigma.is_identity:
            s.copy_(e)
        else:
            sigma.pullback(flat[3], flat[1], out=flat[4], mu=flat[2])

    def general() -> None:
        own, sent = ws.net.energy_of(op.run).error(flat[0], predict().view(flat[0].shape))
        flat[3].copy_(own)
        if sigma.is_identity:
            flat[4].copy_(sent)
        else:
            sigma.pullback(sent, flat[1], out=flat[4], mu=flat[2])

    def keep() -> None:
        miss(predict())
        sigma.pullback(flat[4].fill_(1.0), flat[1], out=flat[1], mu=flat[2])
        torch.mul(e, a, out=s)

    def use() -> None:
        miss(m)
        torch.mul(e, a, out=s)

    if op.slope is not None:
        return keep if op.slope == "keep" else use
    return gaussian if run.gaussian else general
