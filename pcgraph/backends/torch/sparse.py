"""Only stored entries are multiplied here: scalar edges as one CSR matrix, and SparseLinear edges as one each.

Both directions have a matrix of their own, stored by rows, since a product with a transposed CSR matrix cannot be
spread over rows. Weight gradients are taken at the stored entries; nothing of size targets x sources is ever made.

Products are those of torch's CSR matrices. On a CPU these sum each row in order; cuSPARSE may add in any, so that under
``torch.use_deterministic_algorithms`` other devices use :func:`pcgraph.backends.torch.sums.bags`. There are no CSR
products in half precision on a CPU, which uses these as well then, and nowhere a sampled one: the weights of a network
in half precision learn by products in float32. Autocast leaves all this alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pcgraph.backends.torch.calls import Send, SendBack, mark, rows
from pcgraph.backends.torch.edges import EdgeRows, carried, pulled
from pcgraph.backends.torch.products import Factor, Learn
from pcgraph.backends.torch.sums import adder, bags, csr, pointers
from pcgraph.backends.torch.workspace import Step, Workspace
from pcgraph.plan.operations import Index

__all__ = [
    "entries_forward",
    "entries_pull",
    "entries_weights",
    "scalar_forward",
    "scalar_pull",
    "scalar_weights",
]

HALVES = (torch.float16, torch.bfloat16)


class _Matrix:
    """A CSR matrix takes its values from packed weights.

    Parameters
    ----------
    ws : Workspace
    packed : Tensor, shape (weights,)
        The weights, as a view of :meth:`Workspace.weights`.
    at : ndarray
        Where in `packed` the value of each entry lies.
    row, column : ndarray
        Where in the matrix each entry lies.
    shape : (int, int)
    """

    def __init__(
        self, ws: Workspace, packed: Tensor, at: Index, row: Index, column: Index, shape: tuple[int, int]
    ) -> None:
        order = _by_row(row, column)
        self.at = at[order]
        if (np.diff(self.at) == 1).all():
            self.values = packed[int(self.at[0]) : int(self.at[-1]) + 1]
        else:
            index = torch.from_numpy(self.at).to(ws.device)
            values = self.values = ws.empty(len(at))
            ws.refreshed(lambda: torch.index_select(packed, 0, index, out=values))
        self.pointer, self.columns = pointers(row, shape[0]), column[order]
        self.matrix = csr(ws, self.pointer, self.columns, self.values, shape)

    def product(self, ws: Workspace) -> Callable[[Tensor], Tensor]:
        """Return a function that multiplies with a dense matrix, in scratch."""
        if _summed_by_rows(ws):
            matrix = self.matrix
            # Autocast leaves alone what writes into a tensor.
            return lambda dense: torch.mm(matrix, dense, out=ws.scratch("sparse", len(matrix), dense.shape[1]))
        return bags(ws, self.pointer, self.columns, self.values)

    def added(self, ws: Workspace, out: Tensor, alpha: float) -> Callable[[Tensor], object]:
        """Return a function that adds `alpha` times the product with a dense matrix to `out`."""
        if _summed_by_rows(ws):
            matrix = self.matrix
            return lambda dense: torch.addmm(out, matrix, dense, alpha=alpha, out=out)
        product = self.product(ws)
        return lambda dense: out.add_(product(dense), alpha=alpha)

    def learner(self, ws: Workspace) -> Callable[[Tensor, Tensor, Tensor, float, float], object]:
        """Return a function of (grad, s, x, scale, beta): ``grad[at] -= scale * (s x^T)``; beta = 0 writes instead.

        `s` is (rows, batch), `x` (columns, batch).
        """
        matrix, where = self.matrix, rows(self.at)
        put = _into_slice(where) if isinstance(where, slice) else _into_places(ws, where)
        if ws.dtype in HALVES:
            ones, shape = torch.ones_like(self.values, dtype=torch.float32), (matrix.shape[0], matrix.shape[1])
            matrix = csr(ws, self.pointer, self.columns, ones, shape)

        if len(self.columns) > matrix.numel():  # so many parallel edges are more than sampled_addmm can take
            row = np.repeat(np.arange(len(matrix)), np.diff(self.pointer))
            places = torch.from_numpy(row * matrix.shape[1] + self.columns).to(ws.device)
            return lambda grad, s, x, scale, beta: put(
                grad, torch.mm(s, x.t()).flatten().index_select(0, places).mul_(-scale), beta
            )

        def learn(grad: Tensor, s: Tensor, x: Tensor, scale: float, beta: float) -> None:
            s, x = s.to(matrix.dtype), x.to(matrix.dtype)
            product = torch.sparse.sampled_addmm(matrix, s, x.t(), beta=0.0, alpha=-scale)
            put(grad, product.values().to(grad.dtype), beta)

        return learn


def _by_row(row: Index, column: Index) -> Index | slice:
    """Return the order of the entries of a CSR matrix. Edges come sorted by target and then by source, or nearly so."""

    def sorted_by_both(order: Index | slice) -> bool:
        r, c = np.diff(row[order]), np.diff(column[order])
        return bool(((r > 0) | ((r == 0) & (c >= 0))).all())

    if sorted_by_both(slice(None)):
        return slice(None)
    order: Index = np.argsort(row, kind="stable")
    return order if sorted_by_both(order) else np.lexsort((column, row))


def _into_slice(where: slice) -> Callable[[Tensor, Tensor, float], object]:
    return lambda grad, new, beta: grad[where].add_(new) if beta else grad[where].copy_(new)


def _into_places(ws: Workspace, where: Index) -> Callable[[Tensor, Tensor, float], object]:
    index, add = torch.from_numpy(where).to(ws.device), adder(ws, where)
    return lambda grad, new, beta: add(grad, new, 1.0) if beta else grad.index_copy_(0, index, new)


def _summed_by_rows(ws: Workspace) -> bool:
    return ws.dtype not in HALVES if ws.device.type == "cpu" else not ws.deterministic


def _flat(buffer: Tensor) -> Tensor:
    return buffer.view(buffer.shape[0], buffer.shape[1])


def _scalar(ws: Workspace, call: Send | SendBack, edges: EdgeRows, forward: bool) -> _Matrix:
    """Return the matrix of all edges of a call, from sources to targets or transposed; it is made once."""
    groups = ws.structure.groups
    source, target = groups[edges.source_group].count, groups[edges.target_group].count

    def make() -> _Matrix:
        packed = ws.weights(edges.bucket).view(-1)
        if forward:
            return _Matrix(ws, packed, edges.row, edges.target, edges.source, (target, source))
        return _Matrix(ws, packed, edges.row, edges.source, edges.target, (source, target))

    matrix: _Matrix = ws.bound(("matrix", call.bucket, mark(call.edges), forward), make).run
    return matrix


def scalar_forward(ws: Workspace, call: Send) -> Step:
    """Bind ``A += W phi(H)``: one CSR product."""
    edges = EdgeRows(ws, call)
    h, a = _flat(ws.h(edges.source_group)), _flat(ws.a(edges.target_group))
    add = _scalar(ws, call, edges, True).added(ws, a, 1.0)
    source = carried(ws, edges.bucket, lambda: h)
    return lambda: add(source())


def scalar_pull(ws: Workspace, call: SendBack) -> Step:
    """Bind ``E -= phi'(H) * (W^T S)``: one product with the transposed matrix."""
    edges = EdgeRows(ws, call)
    h, e = _flat(ws.h(edges.source_group)), _flat(ws.e(edges.source_group))
    s = _flat(ws.s(edges.target_group))
    matrix = _scalar(ws, call, edges, False)
    if edges.bucket.phi.is_identity:
        add = matrix.added(ws, e, -1.0)
        return lambda: add(s)
    product = matrix.product(ws)
    back = pulled(ws, edges.bucket, lambda: product(s), lambda: h)
    return lambda: e.sub_(back())


def scalar_weights(ws: Workspace, call: SendBack) -> Learn:
    """Bind the weight gradient ``-S phi(H)^T`` at the stored entries."""
    edges = EdgeRows(ws, call)
    h, s = _flat(ws.h(edges.source_group)), _flat(ws.s(edges.target_group))
    learn, source = _scalar(ws, call, edges, True).learner(ws), carried(ws, edges.bucket, lambda: h)
    return lambda grad, scale, beta: learn(grad.view(-1), s, source(), scale, beta)


# -- one edge with stored entries between two groups ------------------------------------------------------------------


class _Entries:
    """The edges of a call know their row of the weights, their matrix, and the buffers at their ends."""

    def __init__(self, ws: Workspace, call: Send | SendBack) -> None:
        edges = EdgeRows(ws, call)
        self.bucket, groups = edges.bucket, ws.structure.groups
        self.ends = list(zip(edges.row.tolist(), edges.source.tolist(), edges.target.tolist()))
        self.pattern: tuple[Index, Index] = tuple(edges.bucket.pattern(groups).numpy())
        self.sizes = groups[edges.source_group].size, groups[edges.target_group].size

    def matrix(self, ws: Workspace, row: int, forward: bool) -> _Matrix:
        """Return the matrix of one edge, which all that is bound to the edge shares."""

        def make() -> _Matrix:
            packed, (source, target) = ws.weights(self.bucket)[row], self.pattern
            a, z = self.sizes
            ends, shape = ((target, source), (z, a)) if forward else ((source, target), (a, z))
            return _Matrix(ws, packed, np.arange(len(source)), *ends, shape)

        matrix: _Matrix = ws.bound(("matrix", self.bucket.name, row, forward), make).run
        return matrix


def _upright(ws: Workspace, name: str, x: Tensor) -> Tensor:
    """Copy (batch, size) to (size, batch) in memory, which is what a CSR product wants."""
    return ws.scratch(name, x.shape[1], x.shape[0]).copy_(x.t())


def entries_forward(ws: Workspace, call: Send) -> Step:
    """Bind ``A[target] += phi(H[source]) W^T``, an edge after the other."""
    on = _Entries(ws, call)
    h, a = ws.h(on.bucket.source_group), ws.a(on.bucket.target_group)
    parts = [
        (on.matrix(ws, row, True).product(ws), carried(ws, on.bucket, lambda x=h[source]: x), a[target])  # type: ignore[misc]
        for row, source, target in on.ends
    ]

    def run() -> None:
        for product, states, into in parts:
            into.add_(product(_upright(ws, "upright", states())).t())

    return run


def entries_pull(ws: Workspace, call: SendBack) -> Step:
    """Bind ``E[source] -= phi'(H[source]) * (S[target] W)``, an edge after the other."""
    on = _Entries(ws, call)
    h, e, s = ws.h(on.bucket.source_group), ws.e(on.bucket.source_group), ws.s(on.bucket.target_group)

    def part(row: int, source: int, target: int) -> tuple[Tensor, Factor]:
        product, states, signal = on.matrix(ws, row, False).product(ws), h[source], s[target]
        back = pulled(ws, on.bucket, lambda: product(_upright(ws, "upright", signal)).t(), lambda: states)
        return e[source], back

    parts = [part(*ends) for ends in on.ends]

    def run() -> None:
        for into, back in parts:
            into.sub_(back())

    return run


def entries_weights(ws: Workspace, call: SendBack) -> Learn:
    """Bind the weight gradients ``-S[target]^T phi(H[source])`` at the stored entries of each edge."""
    on = _Entries(ws, call)
    h, s = ws.h(on.bucket.source_group), ws.s(on.bucket.target_group)
    parts = [
        (row, on.matrix(ws, row, True).learner(ws), carried(ws, on.bucket, lambda x=h[source]: x), s[target])  # type: ignore[misc]
        for row, source, target in on.ends
    ]

    def run(grad: Tensor, scale: float, beta: float) -> None:
        for row, learn, states, sent in parts:
            signal, state = _upright(ws, "upright", sent), _upright(ws, "upright2", states())
            learn(grad[row], signal, state, scale, beta)

    return run
