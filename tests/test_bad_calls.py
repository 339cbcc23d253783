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


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What torch says of sparse, nested and complex tensors is no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def badly_refused(argument: Argument, value: Any) -> str | None:
    """Say what is wrong with how a bad value is refused; None if nothing is."""
    try:
        argument.call(value)
    except BaseException as error:  # which one it is, is what is tested
        if not isinstance(error, PCGraphError) or not isinstance(error, argument.error):
            return f"{type(error).__name__}: {error}"
        return None if str(error) and "\n" not in str(error).strip() else f"in {str(error)!r}"
    return "not at all"


@pytest.mark.parametrize("argument", ARGUMENTS, ids=lambda argument: argument.name)
def test_bad_values_are_refused_by_an_error_of_ours(argument: Argument) -> None:
    """Python's or torch's own error comes from somewhere inside, and says nothing of what was given."""
    found = {name: badly_refused(argument, value) for name, value in argument.bad_values()}
    assert {name: why for name, why in found.items() if why is not None} == {}


@pytest.mark.parametrize("argument", ARGUMENTS, ids=lambda argument: argument.name)
def test_good_values_are_taken(argument: Argument) -> None:
    """A check that refuses NumPy's numbers, or None where it means the default, is a fault as well."""
    wrong = {}
    for name, value in argument.good_values():
        try:
            argument.call(value)
        except Exception as error:
            wrong[name] = repr(error)
    assert wrong == {}


def test_every_row_has_a_name_of_its_own() -> None:
    names = [argument.name for argument in ARGUMENTS]
    assert len(names) == len(set(names))


def test_there_are_enough_of_them() -> None:
    assert sum(len(list(argument.bad_values())) for argument in ARGUMENTS) >= 11_000
    assert sum(len(list(argument.good_values())) for argument in ARGUMENTS) >= 2_000


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
