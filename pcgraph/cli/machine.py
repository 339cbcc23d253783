"""Ask the machine whether it can do what is wanted, before it is asked to do it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import networkx as nx
import torch

from pcgraph.arguments import memory_of
from pcgraph.errors import ConfigError

__all__ = ["require_device", "require_memory", "within_memory"]

COPIES = 4
"""Training holds a weight so many times: itself, its gradient, and two running means of AdamW."""


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


def require_memory(graph: nx.DiGraph, device: str, what: str) -> None:
    """Refuse a declaration whose dense weights alone are larger than the memory, before any is made.

    Raises
    ------
    ConfigError
    """
    memory = memory_of(device)
    sizes = {v: _neurons(shape) for v, shape in graph.nodes(data="shape")}
    dense = ((u, v) for u, v, data in graph.edges(data=True) if not data.keys() & {"transform", "share"})
    weights = sum(sizes[u] * sizes[v] for u, v in dense) + sum(sizes.values())
    needed = COPIES * weights * torch.get_default_dtype().itemsize
    if memory is not None and needed > memory:
        raise ConfigError(
            f"{what} has {weights:.3g} weights: to train them takes {needed / 2**30:.3g} GiB, and there are "
            f"{memory / 2**30:.3g} GiB; take smaller groups",
            key="graph",
        )


def _neurons(shape: object) -> int:
    """Count the neurons of a shape; none where it is malformed, which the network refuses by its name."""
    sizes = shape if isinstance(shape, tuple) else (shape,)
    return math.prod(sizes) if all(isinstance(n, int) and n > 0 for n in sizes) else 0


@contextmanager
def within_memory(what: str, key: str) -> Iterator[None]:
    """Turn the many ways in which torch says that something is too large into one error that names it.

    Raises
    ------
    ConfigError
    """
    try:
        yield
    except (MemoryError, RuntimeError, OverflowError) as problem:
        reason = str(problem)
        of_memory = isinstance(problem, MemoryError | OverflowError | torch.OutOfMemoryError)
        if not of_memory and "can't allocate memory" not in reason and "Storage size calculation" not in reason:
            raise
        raise ConfigError(f"{what} does not fit into the memory: {reason.splitlines()[0]}", key=key) from problem
