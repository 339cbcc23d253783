"""Ask the machine whether it can do what is wanted, before it is asked to do it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pcgraph.errors import ConfigError

__all__ = ["require_device", "within_memory"]


TOO_LARGE = (MemoryError, OverflowError, torch.OutOfMemoryError)
SAID = ("can't allocate memory", "Storage size calculation", "array is too big")
"""What errors of no kind of their own say where something is too large."""


def require_device(name: str) -> None:
    """Refuse a device that does not exist, or that holds no numbers (``meta``).

    Raises
    ------
    ConfigError
    """
    try:
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as problem:
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise ConfigError(f"--device {name!r} cannot be used: {reason}", key="device") from problem


@contextmanager
def within_memory(what: str, key: str) -> Iterator[None]:
    """Turn the many ways in which torch and NumPy say that something is too large into one error that names it.

    Raises
    ------
    ConfigError
    """
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError, ValueError) as problem:
        reason = str(problem)
        if not isinstance(problem, TOO_LARGE) and not any(words in reason for words in SAID):
            raise
        raise ConfigError(f"{what} does not fit into the memory: {reason.splitlines()[0]}", key=key) from problem
