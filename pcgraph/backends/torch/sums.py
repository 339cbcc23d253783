"""Rows that go to the same place, such as a fan-in, are summed here: in the same order each time, never by atomics.

``index_add_`` is atomic on a GPU, so that two runs may differ in the last bits. Which rows go where is known when an
operation is bound; so they are sorted by their target once, and each target adds up its own:

    places all different       ``index_add_``, in which nothing meets     float32, float64 on a CPU  a product with a
CSR matrix of ones     everything else            ``torch.embedding_bag``

A CPU sums the rows of a CSR product in order; cuSPARSE may add in any.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pcgraph.backends.torch.workspace import Workspace
from pcgraph.plan.operations import Index

__all__ = ["Add", "adder", "bags", "csr", "pointers"]

#: ``add(buffer, product, alpha)`` adds the rows of a product, scaled, to those of a buffer; it may scale them in place.
Add = Callable[[Tensor, Tensor, float], object]


def csr(ws: Workspace, pointer: Index, columns: Index, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Make a CSR matrix on the device; the entries are sorted by row."""
    # MKL works with 32 bits, and would convert the indices in every call.
    narrow = np.int32 if max(len(columns), *shape) < 2**31 else np.int64
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(pointer.astype(narrow)).to(ws.device),
            torch.from_numpy(columns.astype(narrow)).to(ws.device), values,
            size=shape, device=ws.device, check_invariants=False,
        )  # fmt: skip


def pointers(places: Index, count: int) -> Index:
    """Return where the entries of each of `count` rows begin, and where the last ones end, shape (count + 1,)."""
    return np.concatenate([[0], np.cumsum(np.bincount(places, minlength=count))]).astype(np.int64)


def adder(ws: Workspace, places: Index) -> Add:
    """Return a function that adds row i of a product to row ``places[i]`` of a contiguous buffer."""
    distinct, local = np.unique(places, return_inverse=True)
    if len(distinct) == len(places):
        index = torch.from_numpy(places).to(ws.device)
        return lambda buffer, product, alpha: buffer.index_add_(0, index, _times(product, alpha))
    low, high = int(distinct[0]), int(distinct[-1]) + 1
    if high - low <= ws.traits.spare_rows * len(distinct):
        into = _into(ws, places - low, high - low)
        return lambda buffer, product, alpha: into(buffer[low:high], product, alpha)
    into, index = _into(ws, local.reshape(-1), len(distinct)), torch.from_numpy(distinct).to(ws.device)

    def gathered(buffer: Tensor, product: Tensor, alpha: float) -> None:
        sums = ws.scratch("sums", len(distinct), *buffer.shape[1:]).zero_()
        into(sums, product, alpha)
        buffer.index_add_(0, index, sums)

    return gathered


def _times(product: Tensor, alpha: float) -> Tensor:
    """Scale in place: on a CPU ``index_add_`` with an `alpha` is several times slower than without."""
    return product if alpha == 1.0 else product.contiguous().mul_(alpha)


def _by_csr(ws: Workspace) -> bool:
    return ws.traits.sums_by_csr and ws.dtype in (torch.float32, torch.float64)


def _into(ws: Workspace, places: Index, count: int) -> Add:
    order, pointer = np.argsort(places, kind="stable"), pointers(places, count)
    if _by_csr(ws):
        ones = torch.ones(len(order), dtype=ws.dtype, device=ws.device)
        matrix = csr(ws, pointer, order, ones, (count, len(order)))

        def multiply(view: Tensor, product: Tensor, alpha: float) -> None:
            flat = view.view(count, -1)
            torch.addmm(flat, matrix, _by_rows(product), alpha=alpha, out=flat)

        return multiply
    bag = bags(ws, pointer, order)
    return lambda view, product, alpha: view.view(count, -1).add_(bag(_by_rows(product)), alpha=alpha)


def _by_rows(product: Tensor) -> Tensor:
    """Return the product as a matrix; what an edge's own activation returns may be a view of any strides."""
    return product.contiguous().view(len(product), -1)


def bags(ws: Workspace, pointer: Index, columns: Index, values: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Return the product of a CSR matrix (of ones, without `values`) with a dense one; each row is summed in order."""
    index, begin = torch.from_numpy(columns).to(ws.device), torch.from_numpy(pointer[:-1]).to(ws.device)

    def multiply(dense: Tensor) -> Tensor:
        sums: Tensor = torch.embedding_bag(dense, index, begin, mode=0, per_sample_weights=values)[0]
        return sums

    return multiply
