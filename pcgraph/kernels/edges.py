"""How a bucket of like edges is computed: forward, back to the sources, and for the weights.

    forward   A[target] += W phi(H[source])
    pull      E[source] -= phi'(H[source]) * (W^T S[target])
    weights   dF/dW      = -S[target] phi(H[source])^T, averaged over the batch      (paper, Eq 4, sign corrected)

A kernel binds an operation of the plan to a workspace once; what it returns runs without looking anything up.

Under ``torch.autocast`` the factors of each product are in autocast's dtype: see :mod:`pcgraph.kernels.half`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pcgraph.kernels import half
from pcgraph.kernels.onednn import ENOUGH, linear
from pcgraph.kernels.sums import adder
from pcgraph.kernels.workspace import Step, Workspace
from pcgraph.network import Bucket
from pcgraph.plan.operations import Forward, Index, Pull, numbers, rows

__all__ = [
    "Edges",
    "batched_forward",
    "batched_pull",
    "batched_weights",
    "dense_forward",
    "dense_pull",
    "dense_weights",
]

#: Bytes of gathered states that a batched product handles at a time: smaller pieces lose more in calls than they gain
#: in caches, and much larger ones the reverse.
CHUNK = 8 * 2**20
#: Adds a weight gradient, scaled, to a tensor; or writes it where the last argument, beta, is 0.
Learn = Callable[[Tensor, float, float], None]


class Edges:
    """Some edges of a bucket, seen from a workspace: rows of their sources, targets and weights."""

    def __init__(self, ws: Workspace, call: Forward | Pull, edges: Index | None = None) -> None:
        s = ws.plan.structure
        self.bucket: Bucket = s.buckets[call.bucket]
        which = numbers(call.edges) if edges is None else edges
        self.count = len(which)
        self.source = s.position[s.source[which]]
        self.target = s.position[s.target[which]]
        local = which - self.bucket.start
        self.row = local if self.bucket.weight is None else self.bucket.weight[local]
        self.source_group, self.target_group = self.bucket.source_group, self.bucket.target_group

    def weight(self, ws: Workspace) -> Tensor:
        """(edges, out, in): a view where the rows are neighbours, else a copy that is refreshed for every run."""
        packed = ws.packed(self.bucket.name)
        where = rows(self.row) if (np.diff(self.row) > 0).all() else self.row
        if isinstance(where, slice):
            return packed[where]
        index = ws.index(where)
        assert isinstance(index, Tensor)
        copy = packed.new_empty(len(where), *packed.shape[1:])
        ws.refresh.append(lambda: torch.index_select(packed, 0, index, out=copy))
        ws.refresh[-1]()
        return copy


# -- one product an edge ----------------------------------------------------------------------------------------------


def dense_forward(ws: Workspace, call: Forward) -> Step:
    """One product for one edge; the bias folded in where the target is fresh."""
    edge = Edges(ws, call)
    h, a = ws.h[edge.source_group][int(edge.source[0])], ws.a[edge.target_group][int(edge.target[0])]
    w, phi = edge.weight(ws)[0].t(), edge.bucket.phi
    biases = ws.bias(edge.target_group, slice(int(edge.target[0]), int(edge.target[0]) + 1)) if call.fresh else None
    bias = None if biases is None else biases[0, 0]

    def source() -> Tensor:
        return h if phi.is_identity else _apply(ws, edge.bucket, phi, h)

    if ws.half is not None:
        return lambda: half.forward(ws, a, source(), w, bias, call.fresh)
    if _by_onednn(ws, w):
        weight = w.t()
        if call.fresh:
            return lambda: a.copy_(linear(source(), weight, bias))
        return lambda: a.add_(linear(source(), weight))
    if not call.fresh:
        return lambda: torch.addmm(a, source(), w, out=a)
    if bias is None:
        return lambda: torch.mm(source(), w, out=a)
    return lambda: torch.addmm(bias, source(), w, out=a)


def dense_pull(ws: Workspace, call: Pull) -> Step:
    """One transposed product for one edge, straight into the gradient of the source."""
    edge = Edges(ws, call)
    h, e = ws.h[edge.source_group][int(edge.source[0])], ws.e[edge.source_group][int(edge.source[0])]
    s, w, phi = ws.s[edge.target_group][int(edge.target[0])], edge.weight(ws)[0], edge.bucket.phi
    onednn = _by_onednn(ws, w)
    if phi.is_identity:
        if ws.half is not None:
            return lambda: half.pull(ws, e, s, w, call.fresh)
        if onednn:
            return (lambda: torch.neg(linear(s, w.t()), out=e)) if call.fresh else (lambda: e.sub_(linear(s, w.t())))
        return lambda: torch.addmm(e, s, w, beta=0 if call.fresh else 1, alpha=-1, out=e)

    def run() -> None:
        if ws.half is not None:
            back = half.product(ws, s, w)
        else:
            back = linear(s, w.t()) if onednn else torch.mm(s, w, out=ws.scratch("back", *e.shape))
        back = _pull_phi(ws, edge.bucket, back, h)
        if call.fresh:
            torch.neg(back, out=e)
        else:
            e.sub_(back)

    return run


def dense_weights(ws: Workspace, call: Pull) -> Learn:
    """One outer product for one edge."""
    edge = Edges(ws, call)
    h = ws.h[edge.source_group][int(edge.source[0])]
    s, phi, row = ws.s[edge.target_group][int(edge.target[0])].t(), edge.bucket.phi, int(edge.row[0])

    def run(grad: Tensor, scale: float, beta: float) -> None:
        x = h if phi.is_identity else _apply(ws, edge.bucket, phi, h)
        if ws.half is not None:
            half.learn(ws, grad[row], s, x, scale, beta)
        else:
            torch.addmm(grad[row], s, x, beta=beta, alpha=-scale, out=grad[row])

    return run


def _by_onednn(ws: Workspace, weight: Tensor) -> bool:
    return ws.onednn and ws.batch * weight.numel() >= ENOUGH


# -- many edges in one batched product --------------------------------------------------------------------------------


def _chunks(ws: Workspace, call: Forward | Pull) -> list[Edges]:
    """The edges of a call in pieces whose gathered states fit the cache."""
    bucket = ws.plan.structure.buckets[call.bucket]
    groups = ws.plan.structure.groups
    width = max(groups[bucket.source_group].size, groups[bucket.target_group].size)
    item = ws.batch * width * torch.empty((), dtype=ws.dtype).element_size()
    which = numbers(call.edges)
    pieces = max(1, round(len(which) * item / CHUNK)) if ws.device.type == "cpu" else 1
    return [Edges(ws, call, part) for part in np.array_split(which, pieces)]


def _ascending(values: Index) -> bool:
    return bool((np.diff(values) > 0).all())


def _gather(ws: Workspace, buffer: Tensor, positions: Index, name: str) -> Callable[[], Tensor]:
    """Rows of a buffer: a slice where they are neighbours, else copied into scratch."""
    where = rows(positions) if _ascending(positions) else positions
    if isinstance(where, slice):
        view = buffer[where]
        return lambda: view
    index = ws.index(where)
    shape = (len(positions), *buffer.shape[1:])
    return lambda: torch.index_select(buffer, 0, index, out=ws.scratch(name, *shape))  # type: ignore[arg-type]


def batched_forward(ws: Workspace, call: Forward) -> Step:
    """Gather the sources, one batched product, and a sum over each target's fan-in."""
    steps = [_batched_forward(ws, call, edges) for edges in _chunks(ws, call)]
    return steps[0] if len(steps) == 1 else lambda: _each(steps)


def _batched_forward(ws: Workspace, call: Forward, edges: Edges) -> Step:
    a, phi, bucket = ws.a[edges.target_group], edges.bucket.phi, edges.bucket
    w = edges.weight(ws).transpose(1, 2)
    states = _gather(ws, ws.h[edges.source_group], edges.source, "source")

    def source() -> Tensor:
        return states() if phi.is_identity else _apply(ws, bucket, phi, states())

    target = rows(edges.target) if _ascending(edges.target) else edges.target
    if isinstance(target, slice):
        out = a[target]
        bias = ws.bias(edges.target_group, target) if call.fresh else None
        if ws.half is not None:
            return lambda: half.forward(ws, out, source(), w, bias, call.fresh)
        if not call.fresh:
            return lambda: torch.baddbmm(out, source(), w, out=out)
        if bias is None:
            return lambda: torch.bmm(source(), w, out=out)
        constant = bias
        return lambda: torch.baddbmm(constant, source(), w, out=out)
    if not call.fresh:
        add = adder(ws, edges.target)
        return lambda: add(a, _product(ws, source(), w), 1.0)
    index = ws.index(target)
    assert isinstance(index, Tensor)
    bias = ws.bias(edges.target_group, target)

    def run() -> None:
        product = _product(ws, source(), w)
        a.index_copy_(0, index, product if bias is None else product.add_(bias))

    return run


def _product(ws: Workspace, x: Tensor, y: Tensor) -> Tensor:
    """One product an edge, in scratch."""
    if ws.half is not None:
        return half.product(ws, x, y)
    return torch.bmm(x, y, out=ws.scratch("product", *x.shape[:-1], y.shape[-1]))


def batched_pull(ws: Workspace, call: Pull) -> Step:
    """Gather the targets' signals, one batched product, and a sum over each source's fan-out."""
    steps = [_batched_pull(ws, edges) for edges in _chunks(ws, call)]
    return steps[0] if len(steps) == 1 else lambda: _each(steps)


def _batched_pull(ws: Workspace, edges: Edges) -> Step:
    e, phi, bucket = ws.e[edges.source_group], edges.bucket.phi, edges.bucket
    w = edges.weight(ws)
    signals = _gather(ws, ws.s[edges.target_group], edges.target, "signal")
    source = rows(edges.source) if _ascending(edges.source) else edges.source
    if isinstance(source, slice) and phi.is_identity:
        out = e[source]
        if ws.half is not None:
            return lambda: half.pull(ws, out, signals(), w, False)
        return lambda: torch.baddbmm(out, signals(), w, alpha=-1, out=out)
    add = adder(ws, edges.source)
    states = _gather(ws, ws.h[edges.source_group], edges.source, "source")

    def run() -> None:
        back = _product(ws, signals(), w)
        if not phi.is_identity:
            back = _pull_phi(ws, bucket, back, states())
        add(e, back, -1.0)

    return run


def batched_weights(ws: Workspace, call: Pull) -> Learn:
    """One batched outer product; edges that share a weight add up."""
    parts = [_batched_weights(ws, edges) for edges in _chunks(ws, call)]

    def run(grad: Tensor, scale: float, beta: float) -> None:
        for part in parts:
            part(grad, scale, beta)

    return run


def _batched_weights(ws: Workspace, edges: Edges) -> Learn:
    phi, bucket = edges.bucket.phi, edges.bucket
    signals = _gather(ws, ws.s[edges.target_group], edges.target, "signal")
    states = _gather(ws, ws.h[edges.source_group], edges.source, "source")
    where = rows(edges.row) if _ascending(edges.row) else edges.row

    def factors() -> tuple[Tensor, Tensor]:
        x = states() if phi.is_identity else _apply(ws, bucket, phi, states())
        return signals().transpose(1, 2), x

    def neighbours(grad: Tensor, scale: float, beta: float) -> None:
        if ws.half is not None:
            half.learn(ws, grad[where], *factors(), scale, beta)
        else:
            torch.baddbmm(grad[where], *factors(), beta=beta, alpha=-scale, out=grad[where])

    if isinstance(where, slice):
        return neighbours
    index, add = torch.from_numpy(edges.row).to(ws.device), adder(ws, edges.row)

    def scattered(grad: Tensor, scale: float, beta: float) -> None:
        if beta:
            add(grad, _product(ws, *factors()), -scale)
        else:
            grad.index_copy_(0, index, _product(ws, *factors()).mul_(-scale))

    return scattered


def _each(steps: list[Step]) -> None:
    for step in steps:
        step()


# -- activations on edges ---------------------------------------------------------------------------------------------


def _shaped(ws: Workspace, bucket: Bucket, x: Tensor) -> Tensor:
    return x.reshape(-1, *ws.plan.structure.groups[bucket.source_group].shape)


def _apply(ws: Workspace, bucket: Bucket, phi: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return phi(_shaped(ws, bucket, x)).reshape(x.shape)


def _pull_phi(ws: Workspace, bucket: Bucket, back: Tensor, x: Tensor) -> Tensor:
    return bucket.phi.pullback(_shaped(ws, bucket, back), _shaped(ws, bucket, x)).reshape(x.shape)
