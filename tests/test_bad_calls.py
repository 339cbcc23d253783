"""Every public argument with every bad kind of value: refused by an error of ours that says what was found.

The table is ``tests/bad_calls``; a new argument needs a row there and nothing here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from pcgraph.errors import PCGraphError
from tests.bad_calls import ARGUMENTS, Argument

BAD = [(argument, name, value) for argument in ARGUMENTS for name, value in argument.bad_values()]
GOOD = [(argument, name, value) for argument in ARGUMENTS for name, value in argument.good_values()]


def ids(rows: list[tuple[Argument, str, Any]]) -> list[str]:
    return [f"{argument.name} {name}" for argument, name, _ in rows]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What torch says of sparse, nested and complex tensors is no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize(("argument", "name", "value"), BAD, ids=ids(BAD))
def test_a_bad_value_is_refused_by_an_error_of_ours(argument: Argument, name: str, value: Any) -> None:
    """Python's or torch's own error comes from somewhere inside, and says nothing of what was given."""
    with pytest.raises(BaseException) as caught:  # which one it is, is what is tested
        argument.call(value)
    error = caught.value
    assert isinstance(error, PCGraphError), f"{type(error).__name__}: {error}"
    assert isinstance(error, argument.error), f"{type(error).__name__}: {error}"
    assert str(error)
    assert "\n" not in str(error).strip()


@pytest.mark.parametrize(("argument", "name", "value"), GOOD, ids=ids(GOOD))
def test_a_good_value_is_taken(argument: Argument, name: str, value: Any) -> None:
    """A check that refuses NumPy's numbers, or None where it means the default, is a fault as well."""
    argument.call(value)


def test_every_row_has_a_name_of_its_own() -> None:
    names = [argument.name for argument in ARGUMENTS]
    assert len(names) == len(set(names))


def test_there_are_enough_of_them() -> None:
    assert len(BAD) >= 800
