"""Dense edges are computed here: forward, back to the sources, and for the weights.

    forward   A[target] += c W phi(H[source])
    pull      E[source] -= phi'(H[source]) * (c W^T S[target])
    weights   dF/dW      = -c S[target] phi(H[source])^T, averaged over the batch    (paper, Eq 4, sign corrected)
              dF/dW      = -c phi(H[source]) S[target]^T for an edge whose weight is W^T

c is the scale of the bucket's edges: products read weights that are multiplied by it once a run.

A call is bound to a workspace once; what is bound runs without looking anything up and decides nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pcgraph.backends.torch.calls import Send, SendBack, numbers, rows
from pcgraph.backends.torch.products import Factor, Learn, products
from pcgraph.backends.torch.sums import adder
from pcgraph.backends.torch.workspace import Step, Workspace
from pcgraph.network import Bucket
from pcgraph.plan.operations import Index

__all__ = [
    "EdgeRows", "batched_forward", "batched_pull", "batched_weights", "carried", "dense_forward", "dense_pull",
    "dense_weights", "pulled",
]  # fmt: skip


class EdgeRows:
    """Edges of one bucket look up, for a workspace, the rows of their sources, targets and weights."""

    def __init__(self, ws: Workspace, call: Send | SendBack, edges: Index | None = None) -> None:
        s = ws.structure
        self.bucket: Bucket = s.buckets[call.bucket]
        which = numbers(call.edges) if edges is None else edges
        self.count = len(which)
        self.source = s.position[s.source[which]]
        self.target = s.position[s.target[which]]
        local = which - self.bucket.start
        self.row = local if self.bucket.weight is None else self.bucket.weight[local]
        self.source_group, self.target_group = self.bucket.source_group, self.bucket.target_group

    def weight(self, ws: Workspace) -> Tensor:
        """Return (edges, out, in): a view where the rows are neighbours, else a copy, refreshed for every run."""
        found = self._rows(ws)
        return found.mT if self.transposed else found

    @property
    def transposed(self) -> bool:
        """Each edge multiplies by the transpose of its row."""
        return self.bucket.kind == "transposed"

    def _rows(self, ws: Workspace) -> Tensor:
        packed = ws.packed(self.bucket)
        where = rows(self.row)
        if isinstance(where, slice):
            return packed[where]
        index = ws.index(where)
        assert isinstance(index, Tensor)
        copy = packed.new_empty(len(where), *packed.shape[1:])
        ws.refreshed(lambda: torch.index_select(packed, 0, index, out=copy))
        return copy


# -- activations on edges ---------------------------------------------------------------------------------------------


def carried(ws: Workspace, bucket: Bucket, states: Factor) -> Factor:
    """Return a function that gives phi(h), in the shape of h."""
    if bucket.phi.is_identity:
        return states
    phi, shape = bucket.phi, ws.structure.groups[bucket.source_group].shape

    def run() -> Tensor:
        x = states()
        return phi(x.reshape(-1, *shape)).reshape(x.shape)

    return run


def pulled(ws: Workspace, bucket: Bucket, back: Factor, states: Factor) -> Factor:
    """Return a function that sends what comes back through phi: ``phi'(h) * back``."""
    if bucket.phi.is_identity:
        return back
    phi, shape = bucket.phi, ws.structure.groups[bucket.source_group].shape

    def run() -> Tensor:
        signal, x = back(), states()
        return phi.pullback(signal.reshape(-1, *shape), x.reshape(-1, *shape)).reshape(x.shape)

    return run


# -- one product an edge ----------------------------------------------------------------------------------------------


def dense_forward(ws: Workspace, call: Send) -> Step:
    """Bind one product for one edge; the bias is folded in where the target is fresh."""
    edge = EdgeRows(ws, call)
    h, a = ws.h(edge.source_group)[int(edge.source[0])], ws.a(edge.target_group)[int(edge.target[0])]
    weight, target = edge.weight(ws)[0], int(edge.target[0])
    biases = ws.bias(edge.target_group, slice(target, target + 1)) if call.fresh and not call.bare else None
    bias = None if biases is None else biases[0, 0]
    return products(ws, weight).forward(a, carried(ws, edge.bucket, lambda: h), weight.t(), bias, call.fresh)


def dense_pull(ws: Workspace, call: SendBack) -> Step:
    """Bind one transposed product for one edge, straight into the gradient of the source."""
    edge = EdgeRows(ws, call)
    h, e = ws.h(edge.source_group)[int(edge.source[0])], ws.e(edge.source_group)[int(edge.source[0])]
    s, weight = ws.s(edge.target_group)[int(edge.target[0])], edge.weight(ws)[0]
    way = products(ws, weight)
    if edge.bucket.phi.is_identity:
        return way.pull(e, lambda: s, weight, call.fresh)
    back = pulled(ws, edge.bucket, way.product(lambda: s, lambda: weight), lambda: h)
    if call.fresh:
        return lambda: torch.neg(back(), out=e)
    return lambda: e.sub_(back())


def dense_weights(ws: Workspace, call: SendBack) -> Learn:
    """Bind one outer product for one edge."""
    edge = EdgeRows(ws, call)
    h = ws.h(edge.source_group)[int(edge.source[0])]
    s, row = ws.s(edge.target_group)[int(edge.target[0])], int(edge.row[0])
    way, states = products(ws, edge.weight(ws)[0]), carried(ws, edge.bucket, lambda: h)
    if edge.transposed:
        return way.learn(row, lambda: states().t(), lambda: s)
    signal = s.t()
    return way.learn(row, lambda: signal, states)


# -- many edges in one batched product --------------------------------------------------------------------------------


def _chunks(ws: Workspace, call: Send | SendBack) -> list[EdgeRows]:
    """Cut the edges of a call into pieces whose gathered states fit the cache."""
    bucket, groups = ws.structure.buckets[call.bucket], ws.structure.groups
    width = max(groups[bucket.source_group].size, groups[bucket.target_group].size)
    item = ws.batch * width * ws.dtype.itemsize
    which = numbers(call.edges)
    pieces = max(1, round(len(which) * item / ws.traits.chunk))
    return (
        [EdgeRows(ws, call, part) for part in np.array_split(which, pieces)]
        if pieces > 1
        else [EdgeRows(ws, call, which)]
    )


def _gather(ws: Workspace, buffer: Tensor, positions: Index, name: str) -> Factor:
    """Return a function that gives rows of a buffer: a slice where they are neighbours, else copied into scratch."""
    where = rows(positions)
    if isinstance(where, slice):
        view = buffer[where]
        return lambda: view
    index = ws.index(where)
    assert isinstance(index, Tensor)
    shape = (len(positions), *buffer.shape[1:])
    return lambda: torch.index_select(buffer, 0, index, out=ws.scratch(name, *shape))


def _all(steps: list[Step]) -> Step:
    if len(steps) == 1:
        return steps[0]

    def run() -> None:
        for step in steps:
            step()

    return run


def batched_forward(ws: Workspace, call: Send) -> Step:
    """Bind gathering the sources, one batched product, and a sum over each target's fan-in."""
    return _all([_batched_forward(ws, call, edges) for edges in _chunks(ws, call)])


def _batched_forward(ws: Workspace, call: Send, edges: EdgeRows) -> Step:
    a, weight = ws.a(edges.target_group), edges.weight(ws)
    way, w = products(ws, weight), weight.transpose(1, 2)
    source = carried(ws, edges.bucket, _gather(ws, ws.h(edges.source_group), edges.source, "source"))
    target = rows(edges.target)
    bias = ws.bias(edges.target_group, target) if call.fresh and not call.bare else None
    if isinstance(target, slice):
        return way.forward(a[target], source, w, bias, call.fresh)
    product = way.product(source, lambda: w)
    if not call.fresh:
        add = adder(ws, edges.target)
        return lambda: add(a, product(), 1.0)
    index = ws.index(target)
    assert isinstance(index, Tensor)
    if bias is None:
        return lambda: a.index_copy_(0, index, product())
    return lambda: a.index_copy_(0, index, product().add_(bias))


def batched_pull(ws: Workspace, call: SendBack) -> Step:
    """Bind gathering the targets' signals, one batched product, and a sum over each source's fan-out."""
    return _all([_batched_pull(ws, edges) for edges in _chunks(ws, call)])


def _batched_pull(ws: Workspace, edges: EdgeRows) -> Step:
    e, weight = ws.e(edges.source_group), edges.weight(ws)
    way = products(ws, weight)
    signals = _gather(ws, ws.s(edges.target_group), edges.target, "signal")
    source = rows(edges.source)
    if isinstance(source, slice) and edges.bucket.phi.is_identity:
        return way.pull(e[source], signals, weight, False)
    add = adder(ws, edges.source)
    states = _gather(ws, ws.h(edges.source_group), edges.source, "source")
    back = pulled(ws, edges.bucket, way.product(signals, lambda: weight), states)
    return lambda: add(e, back(), -1.0)


def batched_weights(ws: Workspace, call: SendBack) -> Learn:
    """Bind one batched outer product; edges that share a weight add up."""
    parts = [_batched_weights(ws, edges) for edges in _chunks(ws, call)]

    def run(grad: Tensor, scale: float, beta: float) -> None:
        for part in parts:
            part(grad, scale, beta)

    return run


def _batched_weights(ws: Workspace, edges: EdgeRows) -> Learn:
    signals = _gather(ws, ws.s(edges.target_group), edges.target, "signal")
    states = carried(ws, edges.bucket, _gather(ws, ws.h(edges.source_group), edges.source, "source"))
    way = products(ws, ws.packed(edges.bucket))

    left, right = (states, signals) if edges.transposed else (signals, states)

    def turned() -> Tensor:
        return left().transpose(1, 2)

    where = rows(edges.row)
    if isinstance(where, slice):
        return way.learn(where, turned, right)
    index, add, product = torch.from_numpy(edges.row).to(ws.device), adder(ws, edges.row), way.product(turned, right)

    def scattered(grad: Tensor, scale: float, beta: float) -> None:
        if beta:
            add(grad, product(), -scale)
        else:
            grad.index_copy_(0, index, product().mul_(-scale))

    return scattered
