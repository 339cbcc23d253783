"""The operations that a plan is made of. They say what, and on which rows; the kernels know how.

Every group of nodes of one shape has the buffers H (states), A (what comes in), M (predictions), E (errors; during a
step also the gradient of the states) and S (signals: the errors behind the activation), each (nodes, batch, size).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Activate", "Errors", "Fill", "Forward", "Operation", "Pull", "Restore", "Rows", "Save", "Write", "ZeroGradient",
    "edge_rows", "rows",
]  # fmt: skip

Index = NDArray[np.int64]
#: Rows of a buffer: a slice where they are neighbours, else their numbers.
Rows = slice | Index


def rows(numbers: Index) -> Rows:
    """Sorted row numbers as a slice if they are neighbours."""
    if len(numbers) and numbers[-1] - numbers[0] + 1 == len(numbers):
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers


def numbers(which: Rows) -> Index:
    """The row numbers again."""
    return np.arange(which.start, which.stop) if isinstance(which, slice) else which


def edge_rows(which: Rows, offset: int) -> Rows:
    """The same edges counted from `offset`."""
    if isinstance(which, slice):
        return slice(which.start - offset, which.stop - offset)
    return which - offset


@dataclass(frozen=True, eq=False)
class Write:
    """H[rows] from an initializer (its index in the plan's list)."""

    initializer: int
    group: int
    rows: slice


@dataclass(frozen=True, eq=False)
class Fill:
    """A[rows] = bias, or the prior of a root; zero where there is neither."""

    group: int
    rows: Rows


@dataclass(frozen=True, eq=False)
class Save:
    """Keep A[rows] as rows `at` of a base: what the edges that have not moved yet contribute."""

    base: tuple[int, int]
    group: int
    rows: Rows
    at: Rows


@dataclass(frozen=True, eq=False)
class Restore:
    """A[rows] = rows `at` of a base."""

    base: tuple[int, int]
    group: int
    rows: Rows
    at: Rows


@dataclass(frozen=True, eq=False)
class Forward:
    """Add the products of these edges of a bucket to the A of their targets.

    `fresh`: the targets' A is still undefined, and bias plus product is to be written.
    """

    bucket: int
    kernel: str
    edges: Rows
    fresh: bool


@dataclass(frozen=True, eq=False)
class Activate:
    """H[rows] = σ(A[rows]): these nodes of a run are swept."""

    run: int
    rows: Rows


@dataclass(frozen=True, eq=False)
class Errors:
    """M = σ(A), E = dF/dh and S = the error behind the activation, on these rows of a run.

    `slope`: "keep" leaves σ'(A) in the place of A, which nothing changes or reads any more; "use" takes it from there,
    and M as it is.
    """

    run: int
    rows: Rows
    slope: Literal["keep", "use"] | None = None


@dataclass(frozen=True, eq=False)
class ZeroGradient:
    """E[rows] = 0: these nodes move by their children's errors alone."""

    group: int
    rows: Rows


@dataclass(frozen=True, eq=False)
class Pull:
    """Subtract from the E of their sources what these edges pass back from the S of their targets.

    `fresh`: the source's E is still undefined, and what is passed back, negated, is to be written.
    """

    bucket: int
    kernel: str
    edges: Rows
    fresh: bool = False


Operation = Any
