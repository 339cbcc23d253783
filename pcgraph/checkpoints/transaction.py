"""States are loaded into all of several objects, or into none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcgraph.checkpoints.fits import require_fit
from pcgraph.network import kept

__all__ = ["Transaction"]


class Transaction:
    """Remembers what was loaded into, and puts all of it back where an error leaves the ``with`` block.

    Examples
    --------
    >>> one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> before = one.weight.clone()
    >>> try:
    ...     with Transaction() as transaction:
    ...         transaction.load(one, nn.Linear(2, 2).state_dict())
    ...         transaction.load(two, {"weight": torch.zeros(3, 3)})
    ... except RuntimeError:
    ...     print(torch.equal(one.weight, before))
    True
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for put_back in reversed(self._undo):
                put_back()

    def load(self, part: Any, state: Any) -> None:
        """Call ``part.load_state_dict(state)``; `part` is as it was if this or anything later fails.

        Raises
        ------
        ArithmeticError, LookupError, RuntimeError, TypeError, ValueError
            Or whatever else `part` raises.
        """
        require_fit(part, state)
        self.before(part)
        part.load_state_dict(state)

    def before(self, part: Any) -> None:
        """Take `part` down as it is, to be put back where anything later fails."""
        if isinstance(part, nn.Module):
            self.on_error(kept(part))
        elif isinstance(part, torch.optim.Optimizer):
            self.on_error(_optimizer(part))
        else:
            self.on_error(_other(part))

    def on_error(self, put_back: Callable[[], object]) -> None:
        """Call `put_back` where anything later fails."""
        self._undo.append(put_back)


def _optimizer(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Keep its attributes: loading gives it other ones, and changes none of them in place."""
    before = dict(vars(optimizer))

    def put_back() -> None:
        vars(optimizer).clear()
        vars(optimizer).update(before)

    return put_back


def _other(part: Any) -> Callable[[], None]:
    """Keep what it tells of itself, and load that again if it is no longer so."""
    before = copy.deepcopy(part.state_dict())

    def put_back() -> None:
        if not _same(part.state_dict(), before):
            part.load_state_dict(before)

    return put_back


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(two, Tensor):
        return isinstance(one, Tensor) and isinstance(two, Tensor) and one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return np.array_equal(one, two)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(_same, one, two))
    return bool(one == two)
