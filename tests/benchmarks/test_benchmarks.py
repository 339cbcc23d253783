"""The benchmarks say what they have measured. What it took is not tested."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import axes, groups


def test_scattered_neurons_tell_what_the_first_run_and_another_length_take():
    """The rows on building and on another T read these."""
    runs, told = groups.neurons(40, 60, 3)
    assert {"first", "new", "again"} == set(told)
    assert 0 < told["new"] < told["first"]
    result = runs[f"T={groups.LENGTHS[0]}"]()
    assert result.energy.shape == (3,)
    assert runs["product"]().shape == (40, 3)


def test_what_was_not_measured_is_said_to_be_so():
    """A row without a ratio neither reaches nor misses what was asked for."""
    rows = [benchmarks.row("a step", "another", None, 0.6), benchmarks.row("a step", "another", 0.7, 0.6, 7.0, 10.0)]
    facts = {"machine": "m", "python": "3", "torch": "2", "threads": 1, "rows": rows}
    last = benchmarks.table(facts).splitlines()[-2:]
    assert last == ["| a step | another | not measured | 0.6 |", "| a step | another | 0.70 | 0.6 (not reached) |"]


def test_each_way_of_inference_takes_its_turn(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("SIZES", (6, 5, 4)), ("BATCH", 7), ("STEPS", (1, 2)), ("BLOCK", 1), ("ROUNDS", 1)):
        monkeypatch.setattr(axes, name, value)
    found = axes.measured()
    assert set(found) == {"backpropagation", *(f"{name}, {steps}" for name in axes.WAYS for steps in (1, 2))}
    assert all(seconds > 0 for seconds in found.values())
