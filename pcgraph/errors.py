"""Every exception and warning of pcgraph is defined here.

A message says what was needed, what was found and what to do; the exception carries the same facts as
data, so that a program need not parse the sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable
from typing import Any

__all__ = [
    "BrokenPromise",
    "CheckpointError",
    "ClampError",
    "ConfigError",
    "DataError",
    "Diverged",
    "GraphError",
    "InvalidInitializer",
    "OutOfMemory",
    "PCGraphDeprecated",
    "PCGraphError",
    "PCGraphWarning",
    "RankFailed",
]


class PCGraphError(Exception):
    """Every error that pcgraph raises on purpose derives from this class.

    Attributes
    ----------
    history : History or None
        Of one that ended a :func:`pcgraph.fit`: what the run was until then.
    """

    history: Any = None


class PCGraphWarning(UserWarning):
    """Something is allowed, but probably not what was meant."""


class PCGraphDeprecated(PCGraphWarning, FutureWarning):
    """Something that is called goes away; the message says when, and what to use instead."""


class GraphError(PCGraphError, ValueError):
    """The declaration of a network is wrong.

    Attributes
    ----------
    where : hashable or tuple or None
        The node, or the edge as ``(source, target)`` (``(source, target, key)`` in a multigraph).
    found : object
        The offending value.
    """

    def __init__(self, message: str, *, where: Hashable | None = None, found: Any = None) -> None:
        super().__init__(message)
        self.where = where
        self.found = found


class ClampError(PCGraphError, ValueError):
    """A clamp does not fit the network.

    Attributes
    ----------
    node : hashable or None
        The clamped node.
    """

    def __init__(self, message: str, *, node: Hashable | None = None) -> None:
        super().__init__(message)
        self.node = node


class InvalidInitializer(PCGraphError, ValueError):
    """This graph and these clamps do not admit an initializer.

    Attributes
    ----------
    verdict : pcgraph.topology.Verdict
        The verdict, with its reason and its remedy.
    witness : object
        What shows it: a directed cycle of nodes, or a root without a known value. The same object as
        ``verdict.witness``; :func:`pcgraph.topology.verify` re-checks it.
    """

    def __init__(self, message: str, *, verdict: Any = None) -> None:
        super().__init__(message)
        self.verdict = verdict
        self.witness = getattr(verdict, "witness", None)


class Diverged(PCGraphError, ArithmeticError):
    """The energy stopped being finite.

    Attributes
    ----------
    step : int
        The inference step after which it was seen.
    node : hashable
        The node with the first non-finite or, failing that, the largest state.
    largest : float
        The largest absolute value of its state (``nan`` or ``inf`` where it is no longer finite).
    """

    def __init__(self, message: str, *, step: int, node: Hashable, largest: float) -> None:
        super().__init__(message)
        self.step = step
        self.node = node
        self.largest = largest


class OutOfMemory(PCGraphError, MemoryError):
    """The device ran out of memory; ``estimate`` is the plan's own estimate in bytes."""

    def __init__(self, message: str, *, estimate: int) -> None:
        super().__init__(message)
        self.estimate = estimate


class DataError(PCGraphError, ValueError):
    """A file of data, a graph or a picture cannot be read or written as asked; ``path`` names it where there is one."""

    def __init__(self, message: str, *, path: Any = None) -> None:
        super().__init__(message)
        self.path = path


class CheckpointError(PCGraphError, OSError):
    """A checkpoint cannot be written or read; ``path`` is the file."""

    def __init__(self, message: str, *, path: Any = None) -> None:
        super().__init__(message)
        self.path = path


class ConfigError(PCGraphError, ValueError):
    """A setting is unknown or has a value that it cannot have; ``key`` names it."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class RankFailed(PCGraphError, RuntimeError):
    """Another process of a run has failed, has died or hangs, so that this one cannot go on.

    Attributes
    ----------
    ranks : tuple of int
        Those that are lost; empty where nobody can tell.
    step : int or None
        The training step, if there was one.
    """

    def __init__(self, message: str, *, ranks: tuple[int, ...] = (), step: int | None = None) -> None:
        super().__init__(message)
        self.ranks = ranks
        self.step = step


class BrokenPromise(PCGraphError, AssertionError):
    """A class does not do what it promises, as :mod:`pcgraph.testing.conformance` has found.

    Attributes
    ----------
    promised, found, remedy : str
    """

    def __init__(self, message: str, *, promised: str = "", found: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.promised = promised
        self.found = found
        self.remedy = remedy


def said_by(error: BaseException) -> str:
    r"""Give what somebody else's error says in one line, for a message of ours; the name of its class if it is silent.

    Examples
    --------
    >>> said_by(ValueError("two\n  lines")), said_by(StopIteration())
    ('two lines', 'StopIteration')
    """
    return " ".join(str(error).split()) or type(error).__name__


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Find the known name that is most like `name`, in any case of letters, or None if none is alike.

    Examples
    --------
    >>> nearest("activaton", ["shape", "activation"])
    'activation'
    >>> nearest("ReLU", ["relu", "tanh"])
    'relu'
    """
    plain = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), list(plain), n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def unknown_name(kind: str, name: Any, known: Iterable[str]) -> str:
    """Say that `name` is no known `kind`, with the nearest one or the whole list.

    Examples
    --------
    >>> unknown_name("activation", "rellu", ["relu", "tanh"])
    "unknown activation 'rellu': did you mean 'relu'? Known: relu, tanh."
    """
    known = sorted(known)
    guess = nearest(name, known) if isinstance(name, str) else None
    hint = f": did you mean {guess!r}?" if guess else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}."
