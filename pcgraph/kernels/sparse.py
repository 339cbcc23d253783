"""Stored entries only: scalar edges of any number as one CSR matrix, and SparseLinear edges as one matrix each.

Both directions have a matrix of their own, stored by rows, since a product with a transposed CSR matrix cannot be
spread over rows. Weight gradients are taken at the stored entries; nothing of size targets x sources is ever made.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from pcgraph.kernels.edges import Edges, Learn
from pcgraph.kernels.workspace import Step, Workspace
from pcgraph.plan.operations import Forward, Index, Pull

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
    rows, columns : ndarray
        Where in the matrix each entry lies.
    shape : (int, int)
    """

    def __init__(
        self, ws: Workspace, packed: Tensor, at: Index, rows: Index, columns: Index, shape: tuple[int, int]
    ) -> None:
        order = np.lexsort((columns, rows))
        pointer = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
        # MKL works with 32 bits, and would convert the indices in every call.
        narrow = np.int32 if max(len(rows), *shape) < 2**31 else np.int64
        at = at[order]
        self.at = torch.from_numpy(at).to(ws.device)
        if (np.diff(at) == 1).all():
            self.values = packed[int(at[0]) : int(at[-1]) + 1]
        else:
            self.values = ws.empty(len(at))
            ws.refresh.append(lambda: torch.index_select(packed, 0, self.at, out=self.values))
            ws.refresh[-1]()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self.matrix = torch.sparse_csr_tensor(
                torch.from_numpy(pointer.astype(narrow)).to(ws.device),
                torch.from_numpy(columns[order].astype(narrow)).to(ws.device), self.values,
                size=shape, check_invariants=False,
            )  # fmt: skip

    def learn(self, grad: Tensor, s: Tensor, x: Tensor, scale: float, beta: float) -> None:
        """``grad[at] += -scale * (s x^T)`` at the entries; `s` (rows, batch), `x` (columns, batch)."""
        product = torch.sparse.sampled_addmm(self.matrix, s, x.t(), beta=0.0, alpha=-scale).values()
        if beta:
            grad.index_add_(0, self.at, product)
        else:
            grad.index_copy_(0, self.at, product)


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
    matrix = _scalar(ws, edges, True, (a.shape[0], h.shape[0])).matrix
    return lambda: torch.addmm(a, matrix, _phi(edges, h), out=a)


def scalar_pull(ws: Workspace, call: Pull) -> Step:
    """``E -= phi'(H) * (W^T S)`` with the transposed matrix."""
    edges = Edges(ws, call)
    h, e = _flat(ws.h[edges.source_group]), _flat(ws.e[edges.source_group])
    s = _flat(ws.s[edges.target_group])
    matrix = _scalar(ws, edges, False, (e.shape[0], s.shape[0])).matrix
    phi = edges.bucket.phi
    if phi.is_identity:
        return lambda: torch.addmm(e, matrix, s, alpha=-1, out=e)

    def run() -> None:
        back = torch.sparse.mm(matrix, s)
        e.sub_(phi.pullback(back.view(-1, 1), h.reshape(-1, 1)).view(e.shape))

    return run


def scalar_weights(ws: Workspace, call: Pull) -> Learn:
    """``-S phi(H)^T`` at the stored entries."""
    edges = Edges(ws, call)
    h, s = _flat(ws.h[edges.source_group]), _flat(ws.s[edges.target_group])
    matrix = _scalar(ws, edges, True, (s.shape[0], h.shape[0]))
    return lambda grad, scale, beta: matrix.learn(grad.view(-1), s, _phi(edges, h), scale, beta)


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
    phi, matrices = edges.bucket.phi, [_entries(ws, edges, k, True).matrix for k in range(edges.count)]

    def run() -> None:
        for matrix, source, target in zip(matrices, edges.source, edges.target):
            x = h[source] if phi.is_identity else phi(h[source].view(-1, *shape)).view(h.shape[1:])
            a[target].add_(torch.sparse.mm(matrix, _upright(ws, "upright", x)).t())

    return run


def entries_pull(ws: Workspace, call: Pull) -> Step:
    """``E[source] -= phi'(H[source]) * (S[target] W)``, an edge after the other."""
    edges = Edges(ws, call)
    h, e, s = ws.h[edges.source_group], ws.e[edges.source_group], ws.s[edges.target_group]
    shape = ws.plan.structure.groups[edges.source_group].shape
    phi, matrices = edges.bucket.phi, [_entries(ws, edges, k, False).matrix for k in range(edges.count)]

    def run() -> None:
        for matrix, source, target in zip(matrices, edges.source, edges.target):
            back = torch.sparse.mm(matrix, _upright(ws, "upright", s[target])).t()
            if not phi.is_identity:
                back = phi.pullback(back.reshape(-1, *shape), h[source].view(-1, *shape)).view(h.shape[1:])
            e[source].sub_(back)

    return run


def entries_weights(ws: Workspace, call: Pull) -> Learn:
    """``-S[target]^T phi(H[source])`` at the stored entries of each edge."""
    edges = Edges(ws, call)
    h, s = ws.h[edges.source_group], ws.s[edges.target_group]
    shape = ws.plan.structure.groups[edges.source_group].shape
    phi, matrices = edges.bucket.phi, [_entries(ws, edges, k, True) for k in range(edges.count)]

    def run(grad: Tensor, scale: float, beta: float) -> None:
        for matrix, row, source, target in zip(matrices, edges.row, edges.source, edges.target):
            x = h[source] if phi.is_identity else phi(h[source].view(-1, *shape)).view(h.shape[1:])
            signal, state = _upright(ws, "upright", s[target]), _upright(ws, "upright2", x)
            matrix.learn(grad[int(row)], signal, state, scale, beta)

    return run
