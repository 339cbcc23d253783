"""Before it is bound, a plan becomes calls on rows of the buffers of groups, and on edges of buckets.

Every group of nodes of one shape has the buffers H (states), A (what comes in), M (predictions), E (errors; during a
step also the gradient of the states) and S (signals: the errors behind the activation), each (nodes, batch, size); with
dual variables also L (duals) and R (how much of an error is added to a dual).
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pcgraph.plan.operations import Exchange, Index

__all__ = [
    "ActivateRows", "BeginDuals", "Call", "CompareRows", "Fill", "Give", "MeasureRows", "MoveRows", "OffsetRows",
    "RelayRows", "Restore", "Rows", "Save", "Send", "SendBack", "Trade", "ZeroGradient", "ZeroSignal", "mark",
    "numbers", "rows",
]  # fmt: skip

#: Rows of a buffer: a slice where they are neighbours, else their numbers.
Rows = slice | Index


def rows(numbers: Index) -> Rows:
    """Return row numbers as a slice if each is the next one of that before it, else as they are."""
    if len(numbers) and numbers[-1] - numbers[0] + 1 == len(numbers) and (np.diff(numbers) == 1).all():
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers


def numbers(which: Rows) -> Index:
    """Return rows as row numbers."""
    return np.arange(which.start, which.stop) if isinstance(which, slice) else which


@dataclass(frozen=True, eq=False)
class Call:
    """All calls derive from this one.

    `key` is equal for two that do the same, so that what is bound for one serves the other.
    """

    @property
    def key(self) -> Hashable:
        """Return the kind and all fields; numbers of rows by their digest."""
        return (type(self).__name__, *(mark(getattr(self, f.name)) for f in fields(self)))


def mark(value: Any) -> Hashable:
    """Return something hashable that is equal for equal values; rows are known by their digest."""
    if isinstance(value, slice):
        return (value.start, value.stop)
    if isinstance(value, np.ndarray):
        return (len(value), hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=16).digest())
    key: Hashable = value
    return key


@dataclass(frozen=True, eq=False)
class SegmentRows(Call):
    """Calls of this kind work on rows of one segment."""

    segment: int
    rows: Rows


@dataclass(frozen=True, eq=False)
class GroupRows(Call):
    """Calls of this kind work on rows of one group."""

    group: int
    rows: Rows


@dataclass(frozen=True, eq=False)
class Give(Call):
    """H[rows] comes from the plan's initializer of that number."""

    source: int
    group: int
    rows: slice


@dataclass(frozen=True, eq=False)
class Fill(GroupRows):
    """A[rows] becomes the bias, or the prior of a root; zero where there is neither."""


@dataclass(frozen=True, eq=False)
class Save(Call):
    """A[rows] is kept as rows `at` of a base: what the edges that have not moved yet contribute.

    A base belongs to a level and a group, and has `size` rows.
    """

    base: tuple[int, int]
    size: int
    group: int
    rows: Rows
    at: Rows


@dataclass(frozen=True, eq=False)
class Restore(Save):
    """A[rows] becomes rows `at` of a base again."""


@dataclass(frozen=True, eq=False)
class Send(Call):
    """These edges of a bucket add their products to the A of their targets.

    `fresh`: the targets' A is still undefined, and bias plus product is to be written; `bare`: without the bias.
    """

    bucket: int
    edges: Rows
    fresh: bool
    bare: bool = False


@dataclass(frozen=True, eq=False)
class ActivateRows(SegmentRows):
    """H[rows] becomes σ(A[rows]): these nodes of a segment are swept."""


@dataclass(frozen=True, eq=False)
class CompareRows(SegmentRows):
    """M = σ(A), E = dF/dh and S = the error behind the activation are computed on these rows of a segment.

    `slope`: "keep" leaves σ'(A) in the place of A, which nothing changes or reads any more; "use" takes it from there,
    and M as it is. `precision`: of each row; None where all are 1. `dual`: L[rows] gains R * (H - M), and is then
    added to E, and to the error behind S. `scheduled`: the precisions are P[rows], which are others in each step.
    """

    slope: Literal["keep", "use"] | None = None
    precision: NDArray[np.float64] | None = None
    dual: bool = False
    scheduled: bool = False


@dataclass(frozen=True, eq=False)
class ZeroGradient(GroupRows):
    """E[rows] becomes 0: these nodes move by their children's errors alone, or lie between those that move."""


@dataclass(frozen=True, eq=False)
class BeginDuals(GroupRows):
    """L[rows] becomes 0, and R[rows] the rate."""

    rate: float


@dataclass(frozen=True, eq=False)
class ZeroSignal(GroupRows):
    """S[rows] becomes 0 at the start: edges that are computed along with neighbours must carry nothing from there."""


@dataclass(frozen=True, eq=False)
class SendBack(Call):
    """These edges subtract what they pass back from the S of their targets from the E of their sources.

    `fresh`: the source's E is still undefined, and what is passed back, negated, is to be written.
    """

    bucket: int
    edges: Rows
    fresh: bool = False


@dataclass(frozen=True, eq=False)
class MeasureRows(SegmentRows):
    """X[rows] becomes H[rows] - σ(A[rows]): these nodes of a segment move by their errors, which begin so."""


@dataclass(frozen=True, eq=False)
class OffsetRows(SegmentRows):
    """H[rows] becomes σ(A[rows]) + X[rows]."""


@dataclass(frozen=True, eq=False)
class RelayRows(SegmentRows):
    """S[rows] loses σ'(A[rows]) ⊙ E[rows]: what has come back to these nodes goes on to their parents."""


@dataclass(frozen=True, eq=False)
class Trade(Call):
    """Ranks exchange states, or what has come back to ghosts: whoever runs the program does it."""

    exchange: Exchange


@dataclass(frozen=True, eq=False)
class MoveRows(GroupRows):
    """The optimizer moves H[rows] along E[rows], or X[rows] where the variable is the error."""

    errors: bool = False
