"""The benchmarks say what they have measured. What it took is not tested."""

from __future__ import annotations

from benchmarks import __main__ as benchmarks


def test_what_was_not_measured_is_said_to_be_so():
    """A row without a ratio neither reaches nor misses what was asked for."""
    rows = [benchmarks.row("a step", "another", None, 0.6), benchmarks.row("a step", "another", 0.7, 0.6, 7.0, 10.0)]
    facts = {"machine": "m", "python": "3", "torch": "2", "threads": 1, "rows": rows}
    last = benchmarks.table(facts).splitlines()[-2:]
    assert last == ["| a step | another | not measured | 0.6 |", "| a step | another | 0.70 | 0.6 (not reached) |"]
