"""The benchmarks' contestants do what their rows say. What they take is not tested."""

from __future__ import annotations

import argparse

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import groups, mlp
from tests.replayed import Replayed, stand_in

SIZES, BATCH = [5, 6, 6, 3], 12


def losses(step, count=3):
    return [float(step().detach()) for _ in range(count)]


@pytest.mark.parametrize("init", ["forward", "average"])
def test_the_captured_step_is_the_step(monkeypatch, init):
    """The whole step lies in one recording, and what it computes is what ``ours`` does."""
    plain = mlp.captured(SIZES, BATCH, 3, device="cpu", init=init)["host"]
    stand_in(monkeypatch)
    waited = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    both = mlp.captured(SIZES, BATCH, 3, device="cpu", init=init)
    for i in range(6):
        found = (both["host"] if i % 2 else both["step"])()
        assert torch.equal(found.energy, plain().energy)
    assert [made.log for made in Replayed.made] == [["warm"] * 3 + ["record"] + ["replay"] * 3]
    assert len(waited) == 3, "the host's part is not to wait"


def test_backpropagation_is_compiled_as_the_row_says(monkeypatch):
    """The row names the mode; the loss is that of the eager contestant."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, mode: asked.append(mode) or function)
    found = []
    for make in (mlp.backprop, mlp.compiled):
        torch.manual_seed(0)
        found.append(losses(make(SIZES, BATCH, device="cpu")))
    assert asked == ["reduce-overhead"]
    assert found[0] == found[1]


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


def test_without_a_gpu_its_rows_are_not_measured(monkeypatch):
    """They stand in the table, with what is asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = benchmarks.captured(argparse.Namespace(batch=200, rounds=1, each=1))
    assert [(row["ratio"], row["at_most"]) for row in rows] == [(None, 1.0), (None, None), (None, 0.6), (None, None)]


@pytest.mark.slow  # compiles, for about a minute
def test_the_contestants_of_the_gpu_run_on_a_cpu(monkeypatch):
    """Each in its process, by the inductor; there is no graph to capture into, and the figures mean nothing."""
    monkeypatch.setattr(benchmarks, "CAPTURED", [("small", SIZES, 2, "average", 0.6)])
    rows = benchmarks.captured(argparse.Namespace(batch=BATCH, rounds=1, each=2), device="cpu")
    assert [(row["work"], row["against"]) for row in rows] == [
        ("GPU: small, batch 12, T=2, captured", "backprop, compiled"),
        ("GPU: small, batch 12, T=2, captured: the host's part", "the step"),
    ]
    assert all(row["ratio"] > 0 and row["seconds"] > 0 and row["other"] > 0 for row in rows)


@pytest.mark.slow
def test_compiled_backpropagation_computes_what_eager_does():
    """Otherwise the row compares two different works."""
    found = []
    for make in (mlp.backprop, mlp.compiled):
        torch.manual_seed(0)
        found.append(losses(make(SIZES, BATCH, device="cpu")))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
