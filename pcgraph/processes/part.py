"""Each rank takes a part of every batch."""

from __future__ import annotations

import torch
from torch import Tensor

from pcgraph.processes.group import Group

__all__ = ["Part"]


class Part:
    """A part is the rows of a batch that one rank computes: neighbours, as many as the others' or one more.

    A rank that is left without a row runs along on the first row of the batch, and that row does not count.

    Parameters
    ----------
    group : Group
    total : int
        Rows of the whole batch.

    Attributes
    ----------
    start, stop : int
        The rows, of the whole batch.
    counts : tuple of int
        How many rows of each rank count.
    rows : slice
        What to take of a tensor (total, ...): at least one row.
    weight : float
        The part of the whole batch that this one is.
    """

    def __init__(self, group: Group, total: int) -> None:
        self.group, self.total = group, total
        each, more = divmod(total, group.size)
        self.counts = tuple(each + (rank < more) for rank in range(group.size))
        self.start = sum(self.counts[: group.rank])
        self.stop = self.start + self.counts[group.rank]
        self.rows = slice(self.start, self.stop) if self.counts[group.rank] else slice(0, min(total, 1))

    @property
    def count(self) -> int:
        """How many rows of this rank count."""
        return self.stop - self.start

    @property
    def weight(self) -> float:
        return self.count / self.total if self.total else 0.0

    def join(self, tensor: Tensor) -> Tensor:
        """Put the rows of all ranks together: of (rows, ...) make (total, ...)."""
        return self.group.gather_rows(tensor, self.counts)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up over the ranks, where a rank without rows has added up nothing."""
        return self.group.sum(tensor.clone() if self.count else torch.zeros_like(tensor))

    def largest(self, tensor: Tensor) -> Tensor:
        """Take the largest over the ranks."""
        return self.group.largest(tensor.clone())

    def mean(self, *values: Tensor) -> list[float]:
        """Average each of some tensors (rows,) over the whole batch."""
        sums = [float(value[: self.count].sum(dtype=torch.float64)) for value in values]
        return [sum(each) / self.total for each in self.group.gather_numbers(sums).T.tolist()]

    def first(self, tensor: Tensor, count: int) -> Tensor:
        """Give every rank the first `count` rows of the whole batch."""
        counts, left = [], count
        for each in self.counts:
            counts.append(min(each, left))
            left -= counts[-1]
        return self.group.gather_rows(tensor, counts)
