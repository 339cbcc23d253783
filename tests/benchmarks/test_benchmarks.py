"""The benchmarks say what they have measured. What it took is not tested."""

from __future__ import annotations

from benchmarks import __main__ as benchmarks
from benchmarks import groups


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
