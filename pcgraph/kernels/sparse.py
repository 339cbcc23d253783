"""Stored entries only: scalar edges of any number as one CSR matrix, and SparseLinear edges as one matrix each.

Both directions have a matrix of their own, stored by rows, since a product with a transposed CSR matrix cannot be
spread over rows. Weight gradients are taken at the stored entries; nothing of size targets x sources is ever made.

Products are those of torch's CSR matrices. On a CPU these sum each row in order; cuSPARSE may add in any, so that under
``torch.use_deterministic_algorithms`` other devices use :func:`pcgraph.kernels.sums.bags`. Autocast leaves all this
alone: there are no CSR products in half precision on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pcgraph.kernels.edges import Edges, Learn
from pcgraph.kernels.sums import adder, bags, csr, pointers
from pcgraph.kernels.workspace import Step, Workspace
from pcgraph.plan.operations import Forward, Index, Pull, rows

__all__ = [
    "entries_forward",
    "entries_pull",
    "entries_weights",
    "scalar_forward",
    "scalar_pull",
    "scalar_weights",
]


class _Matrix:
    """A CSR matrix whose values are looked up in packed weights.

    Parameters
    ----------
    ws : Workspace
    packed : Tensor, shape (weights,)
        The weights, as a view of the parameter.
    at : ndarray
        Where in `packed` the value of each entry lies.
    row, column : ndarray
        Where in the matrix each entry lies.
    shape : (int, int)
    """

    def __init__(
        self, ws: Workspace, packed: Tensor, at: Index, row: Index, column: Index, shape: tuple[int, int]
    ) -> None:
        order = np.lexsort((column, row))
        self.at = at[order]
        if (np.diff(self.at) == 1).all():
            self.values = packed[int(self.at[0]) : int(self.at[-1]) + 1]
        else:
            index = torch.from_numpy(self.at).to(ws.device)
            values = self.values = ws.empty(len(at))
            ws.refresh.append(lambda: torch.index_select(packed, 0, index, out=values))
            ws.refresh[-1]()
        self.pointer, self.columns = pointers(row, shape[0]), column[order]
        self.matrix = csr(ws, self.pointer, self.columns, self.values, shape)

    def product(self, ws: Workspace) -> Callable[[Tensor], Tensor]:
        """The product with a dense matrix, in scratch."""
        if _summed_by_rows(ws):
            matrix = self.matrix
            # Autocast leaves alone what writes into a tensor.
            return lambda dense: torch.mm(matrix, dense, out=ws.scratch("sparse", len(matrix), dense.shape[1]))
        return bags(ws, self.pointer, self.columns, self.values)

    def added(self, ws: Workspace, out: Tensor, alpha: float) -> Callable[[Tensor], object]:
        """Adds `alpha` times the product with a dense matrix to `out`."""
        if _summed_by_rows(ws):
            matrix = self.matrix
            return lambda dense: torch.addmm(out, matrix, dense, alpha=alpha, out=out)
        product = self.product(ws)
        return lambda dense: out.add_(product(dense), alpha=alpha)

    def learner(self, ws: Workspace) -> Callable[[Tensor, Tensor, Tensor, float, float], None]:
        """A function of (grad, s, x, scale, beta): ``grad[at] += -scale * (s x^T)``; written where beta is 0.

        `s` is (rows, batch), `x` (columns, batch).
        """
        matrix, where = self.matrix, rows(self.at) if (np.diff(self.at) > 0).all() else self.at
        put = _into_slice(where) if isinstance(where, slice) else _into_places(ws, where)

        def learn(grad: Tensor, s: Tensor, x: Tensor, scale: float, beta: float) -> None:
            put(grad, torch.sparse.sampled_addmm(matrix, s, x.t(), beta=0.0, alpha=-scale).values(), beta)

        return learn


def _into_slice(where: slice) -> Callable[[Tensor, Tensor, float], object]:
    return lambda grad, new, beta: grad[where].add_(new) if beta else grad[where].copy_(new)


def _into_places(ws: Workspace, where: Index) -> Callable[[Tensor, Tensor, float], object]:
    index, add = torch.from_numpy(where).to(ws.device), adder(ws, where)
    return lambda grad, new, beta: add(grad, new, 1.0) if beta else grad.index_copy_(0, index, new)


def _summed_by_rows(ws: Workspace) -> bool:
    return ws.device.type == "cpu" or not ws.deterministic


def _flat(buffer: Tensor) -> Tensor:
    return buffer.view(buffer.shape[0], buffer.shape[1])


def _phi(edges: Edges, h: Tensor) -> Tensor:
    phi = edges.bucket.phi
    return h if phi.is_identity else phi(h.reshape(-1, 1)).view(h.shape)


def _scalar(ws: Workspace, edges: Edges, forward: bool, shape: tuple[int, int]) -> _Matrix:
    packed = ws.net.weights[edges.bucket.name].detach().view(-1)
    ends = (edges.target, edges.source) if forward else (edges.source, edges.target)
    return _Matrix(ws, packed, edges.row, *ends, shape)


def scalar_forward(ws: Workspace, call: Forward) -> Step:
    """``A += W phi(H)`` with one CSR product."""
    edges = Edges(ws, call)
    h, a = _flat(ws.h[edges.source_group]), _flat(ws.a[edges.target_group])
    add = _scalar(ws, edges, True, (a.shape[0], h.shape[0])).added(ws, a, 1.0)
    return lambda: add(_phi(edges, h))


def scalar_pull(ws: Workspace, call: Pull) -> Step:
    """``E -= phi'(H) * (W^T S)`` with the transposed matrix."""
    edges = Edges(ws, call)
    h, e = _flat(ws.h[edges.source_group]), _flat(ws.e[edges.source_group])
    s = _flat(ws.s[edges.target_group])
    matrix = _scalar(ws, edges, False, (e.shape[0], s.shape[0]))
    phi = edges.bucket.phi
    if phi.is_identity:
        add = matrix.added(ws, e, -1.0)
        return lambda: add(s)
    product = matrix.product(ws)

    def run() -> None:
        back = product(s)
        e.sub_(phi.pullback(back.view(-1, 1), h.reshape(-1, 1)).view(e.shape))

    return run


def scalar_weights(ws: Workspace, call: Pull) -> Learn:
    """``-S phi(H)^T`` at the stored entries."""
    edges = Edges(ws, call)
    h, s = _flat(ws.h[edges.source_group]), _flat(ws.s[edges.target_group])
    learn = _scalar(ws, edges, True, (s.shape[0], h.shape[0])).learner(ws)
    return lambda grad, scale, beta: learn(grad.view(-1), s, _phi(edges, h), scale, beta)


# -- one edge with stored entries between two groups ------------------------------------------------------------------


def _entries(ws: Workspace, edges: Edges, k: int, forward: bool) -> _Matrix:
    groups = ws.plan.structure.groups
    packed = ws.net.weights[edges.bucket.name].detach()[int(edges.row[k])]
    source, target = edges.bucket.pattern(groups).numpy()
    a, z = groups[edges.source_group].size, groups[edges.target_group].size
    at = np.arange(len(source))
    if forward:
        return _Matrix(ws, packed, at, target, source, (z, a))
    return _Matrix(ws, packed, at, source, target, (a, z))


def _upright(ws: Workspace, name: str, x: Tensor) -> Tensor:
    """(batch, size) as (size, batch) in memory, which is what a CSR product wants."""
    return ws.scratch(name, x.shape[1], x.shape[0]).copy_(x.t())


def entries_forward(ws: Workspace, call: Forward) -> Step:
    """``A[target] += phi(H[source]) W^T``, an edge after the other."""
    edges = Edges(ws, call)
    h, a, shape = ws.h[edges.source_group], ws.a[edges.target_group], ws.plan.structure.groups[edges.source_group].shape
    phi, products = edges.bucket.phi, [_entries(ws, edges, k, True).product(ws) for k in range(edges.count)]

    def run() -> None:
        for product, source, target in zip(products, edges.source, edges.target):
            x = h[source] if phi.is_identity else phi(h[source].view(-1, *shape)).reshape(h.shape[1:])
            a[target].add_(product(_upright(ws, "upright", x)).t())

    return run


def entries_pull(ws: Workspace, call: Pull) -> Step:
    """``E[source] -= phi'(H[source]) * (S[target] W)``, an edge after the other."""
    edges = Edges(ws, call)
    h, e, s = ws.h[edges.source_group], ws.e[edges.source_group], ws.s[edges.target_group]
    shape = ws.plan.structure.groups[edges.source_group].shape
    phi, products = edges.bucket.phi, [_entries(ws, edges, k, False).product(ws) for k in range(edges.count)]

    def run() -> None:
        for product, source, target in zip(products, edges.source, edges.target):
            back = product(_upright(ws, "upright", s[target])).t()
            if not phi.is_identity:
                back = phi.pullback(back.reshape(-1, *shape), h[source].view(-1, *shape)).reshape(h.shape[1:])
            e[source].sub_(back)

    return run


def entries_weights(ws: Workspace, call: Pull) -> Learn:
    """``-S[target]^T phi(H[source])`` at the stored entries of each edge."""
    edges = Edges(ws, call)
    h, s = ws.h[edges.source_group], ws.s[edges.target_group]
    shape = ws.plan.structure.groups[edges.source_group].shape
    phi, learners = edges.bucket.phi, [_entries(ws, edges, k, True).learner(ws) for k in range(edges.count)]

    def run(grad: Tensor, scale: float, beta: float) -> None:
        for learn, row, source, target in zip(learners, edges.row, edges.source, edges.target):
            x = h[source] if phi.is_identity else phi(h[source].view(-1, *shape)).reshape(h.shape[1:])
            signal, state = _upright(ws, "upright", s[target]), _upright(ws, "upright2", x)
            learn(grad[int(row)], signal, state, scale, beta)

    return run
