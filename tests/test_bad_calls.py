"""Every public argument with every bad kind of value: refused by an error of ours that says what was found.

The table is ``tests/bad_calls``; a new argument needs a row there and nothing here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from pcgraph.errors import PCGraphError
from tests.bad_calls import ARGUMENTS, Argument
from tests.bad_calls.public import EXEMPT, public_arguments, reason

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
    assert len(BAD) >= 5000


COVERED = {name.groups() for argument in ARGUMENTS if (name := re.match(r"([\w.]+)\((\w*)", argument.name))}


def test_every_public_argument_has_a_row_or_a_reason_to_have_none() -> None:
    """An argument that nobody looks at ends in somebody else's error, or is dropped without a word."""
    wanted = {(name, key) for name, key in public_arguments() if not reason(name, key)}
    assert not {f"{name}({key}=)" for name, key in wanted - COVERED}


def test_no_row_and_no_reason_is_of_what_is_gone() -> None:
    """A row under a name that nothing has covers nothing."""
    known = set(public_arguments())
    names = {name for name, _ in known}
    declared = {"node", "edge"}
    assert not {name for name, key in COVERED if name not in declared and name not in names}
    keys = {*names, *(f"{name}({key}" for name, key in known), *(f"{name}(*" for name in names)}
    # what takes nothing has no arguments to be found by
    assert not {each for each in EXEMPT if each not in keys and "(" in each}
