"""Say that something goes away: by which version, and what to use instead.

What users call keeps working, with a warning, for one minor version at least before it is removed (docs/releasing.md).
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pcgraph.errors import PCGraphDeprecated

__all__ = ["DEPRECATED", "deprecated", "renamed"]

P = ParamSpec("P")
R = TypeVar("R")

DEPRECATED: dict[str, str] = {}
"""What goes away -> the version in which it is gone; a test fails once that version is there."""


def deprecated(since: str, gone: str, instead: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function, or the ``__init__`` of a class: it warns when it is called.

    Parameters
    ----------
    since, gone : str
        Versions: from which it warns, and in which it is removed.
    instead : str
        What to use instead, as a user writes it.

    Examples
    --------
    >>> @deprecated(since="0.2.0", gone="0.4.0", instead="pcgraph.check(graph, clamped)")
    ... def examine(graph):
    ...     return graph
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     _ = examine(3)
    >>> print(told[0].message)
    examine is deprecated since 0.2.0 and is gone in 0.4.0; use pcgraph.check(graph, clamped)
    """
    _require_versions(since, gone)

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        what = function.__qualname__.removesuffix(".__init__")
        DEPRECATED[f"{function.__module__}.{function.__qualname__}"] = gone
        text = f"{what} is deprecated since {since} and is gone in {gone}; use {instead}"

        @functools.wraps(function)
        def warning(*given: P.args, **named: P.kwargs) -> R:
            warnings.warn(text, PCGraphDeprecated, stacklevel=2)
            return function(*given, **named)

        note = f"\n\n    .. deprecated:: {since}\n       It is gone in {gone}; use {instead}.\n    "
        warning.__doc__ = (function.__doc__ or "").rstrip() + note
        return warning

    return mark


def renamed(since: str, gone: str, **names: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Let a function take arguments by their old names, too, with a warning: ``@renamed("0.2.0", "0.4.0", old="new")``.

    Raises
    ------
    TypeError
        On a call that gives both the old and the new name.

    Examples
    --------
    >>> @renamed("0.2.0", "0.4.0", rate="lr")
    ... def move(lr):
    ...     return lr
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     print(move(rate=0.1))
    0.1
    >>> print(told[0].message)
    move(rate=) is deprecated since 0.2.0 and is gone in 0.4.0; use lr=
    """
    _require_versions(since, gone)

    def mark(function: Callable[..., R]) -> Callable[..., R]:
        for old in names:
            DEPRECATED[f"{function.__module__}.{function.__qualname__}({old}=)"] = gone

        @functools.wraps(function)
        def warning(*given: Any, **named: Any) -> R:
            for old, new in names.items():
                if old in named:
                    who = f"{function.__qualname__}({old}=)"
                    if new in named:
                        raise TypeError(f"{who} is the old name of {new}=: give {new}= alone")
                    text = f"{who} is deprecated since {since} and is gone in {gone}; use {new}="
                    warnings.warn(text, PCGraphDeprecated, stacklevel=2)
                    named[new] = named.pop(old)
            return function(*given, **named)

        return warning

    return mark


def _require_versions(since: str, gone: str) -> None:
    """Hold the promise of one minor version with a warning at least."""
    found = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version) for version in (since, gone)]
    if None in found:
        raise ValueError(f"versions have three numbers, as in 0.2.0 (found {since!r} and {gone!r})")
    first, last = ((int(each[1]), int(each[2])) for each in found if each is not None)
    if not first < last:
        raise ValueError(f"there must be a minor version that warns before it is gone (found {since} and {gone})")
