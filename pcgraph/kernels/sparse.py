"""Scalar edges of any number as one CSR matrix, both ways, with the weight gradient at the stored entries only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pcgraph.kernels.edges import Edges, Learn
from pcgraph.kernels.workspace import Step, Workspace
from pcgraph.plan.operations import Forward, Index, Pull

__all__ = ["scalar_forward", "scalar_pull", "scalar_weights"]


class _Matrix:
    """A CSR matrix whose values are looked up in a packed parameter."""

    def __init__(self, ws: Workspace, edges: Edges, rows: Index, columns: Index, shape: tuple[int, int]) -> None:
        order = np.lexsort((columns, rows))
        pointer = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
        packed = ws.net.weights[edges.bucket.name].detach().view(-1)
        row = edges.row[order]
        if (np.diff(row) == 1).all():
            self.values = packed[int(row[0]) : int(row[-1]) + 1]
        else:
            self.values = ws.empty(len(row))
            index = torch.from_numpy(row).to(ws.device)
            ws.refresh.append(lambda: torch.index_select(packed, 0, index, out=self.values))
            ws.refresh[-1]()
        self.row = torch.from_numpy(row).to(ws.device)
        self.contiguous = bool((np.diff(row) == 1).all())
        self.matrix = torch.sparse_csr_tensor(
            torch.from_numpy(pointer).to(ws.device), torch.from_numpy(columns[order]).to(ws.device), self.values,
            size=shape, check_invariants=False,
        )  # fmt: skip


def _flat(buffer: Tensor) -> Tensor:
    return buffer.view(buffer.shape[0], buffer.shape[1])


def _phi(edges: Edges, h: Tensor) -> Tensor:
    phi = edges.bucket.phi
    return h if phi.is_identity else phi(h.reshape(-1, 1)).view(h.shape)


def scalar_forward(ws: Workspace, call: Forward) -> Step:
    """``A += W phi(H)`` with one CSR product."""
    edges = Edges(ws, call)
    h, a = _flat(ws.h[edges.source_group]), _flat(ws.a[edges.target_group])
    matrix = _Matrix(ws, edges, edges.target, edges.source, (a.shape[0], h.shape[0])).matrix
    return lambda: torch.addmm(a, matrix, _phi(edges, h), out=a)


def scalar_pull(ws: Workspace, call: Pull) -> Step:
    """``E -= phi'(H) * (W^T S)`` with the transposed matrix, stored by rows as well."""
    edges = Edges(ws, call)
    h, e = _flat(ws.h[edges.source_group]), _flat(ws.e[edges.source_group])
    s = _flat(ws.s[edges.target_group])
    matrix = _Matrix(ws, edges, edges.source, edges.target, (e.shape[0], s.shape[0])).matrix
    phi = edges.bucket.phi
    if phi.is_identity:
        return lambda: torch.addmm(e, matrix, s, alpha=-1, out=e)

    def run() -> None:
        back = torch.sparse.mm(matrix, s)
        e.sub_(phi.pullback(back.view(-1, 1), h.reshape(-1, 1)).view(e.shape))

    return run


def scalar_weights(ws: Workspace, call: Pull) -> Learn:
    """``-S phi(H)^T`` at the stored entries: nothing of size targets x sources is made."""
    edges = Edges(ws, call)
    h, s = _flat(ws.h[edges.source_group]), _flat(ws.s[edges.target_group])
    pattern = _Matrix(ws, edges, edges.target, edges.source, (s.shape[0], h.shape[0]))

    def run(grad: Tensor, scale: float, beta: float) -> None:
        flat = grad.view(-1)
        if not beta:
            flat.index_fill_(0, pattern.row, 0.0)
        if ws.device.type == "cuda" or ws.dtype in (torch.float32, torch.float64):
            product = torch.sparse.sampled_addmm(pattern.matrix, s, _phi(edges, h).t(), beta=0.0, alpha=-scale)
            flat.index_add_(0, pattern.row, product.values())
        else:
            x = _phi(edges, h)
            source, target = torch.from_numpy(edges.source), torch.from_numpy(edges.target)
            values = (s[target.to(ws.device)] * x[source.to(ws.device)]).sum(1)
            flat.index_add_(0, torch.from_numpy(edges.row).to(ws.device), values, alpha=-scale)

    return run
