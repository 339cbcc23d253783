"""The benchmark of a GPU does what its rows say, as far as a CPU can show it. What it takes is not tested."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch

import pcgraph
from benchmarks import gpu, gpu_work
from benchmarks.gpu_work import Size
from pcgraph import Forward, PCNetwork
from tests.replayed import Replayed, stand_in

DRY = Size.dry("cpu")


@pytest.fixture(autouse=True)
def switches():
    """Sections set torch's precision."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.filterwarnings("ignore:gradients are below the optimizer's eps")
def test_all_sections_run_small(tmp_path):
    """What has never run would fail on a card that is there for minutes."""
    result = gpu.main(["--dry", "--device", "cpu", "--out", str(tmp_path / "gpu.json")])
    assert result["errors"] == {}
    assert {row["section"] for row in result["rows"]} == set(gpu.SECTIONS)
    # An inference step is the difference of two runs, which elsewhere's work can turn where both are small.
    assert all(row["seconds"] > 0 for row in result["rows"] if "an inference step" not in row["work"])
    assert all(math.isfinite(row["seconds"]) for row in result["rows"])
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8")) == result
    assert "not measured" not in gpu.table(result)


def test_a_section_that_fails_or_lasts_leaves_the_others_alone(tmp_path, monkeypatch):
    """Its error is in the result, with all rows from before it."""

    def fails(size):
        yield gpu.limited("fine", 1.0, 2.0)
        raise ValueError("broken")

    def lasts(size):
        time.sleep(20)
        yield gpu.limited("late", 1.0, 2.0)

    def works(size):
        yield gpu.row("a step", 3.0, "another", 2.0, 1.0)

    sections = {"fails": (fails, 9.0), "lasts": (lasts, 0.2), "works": (works, 9.0)}
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    result = gpu.main(["--dry", "--device", "cpu", "--out", str(tmp_path / "gpu.json")])
    assert [(row["section"], row["ratio"]) for row in result["rows"]] == [("fails", 0.5), ("works", 1.5)]
    assert "ValueError: broken" in result["errors"]["fails"]
    assert "OutOfTime: more than 0.2 s" in result["errors"]["lasts"]


def test_the_time_for_all_sections_is_kept(tmp_path):
    """What comes too late is not run, and said not to be."""
    result = gpu.main(["chains", "--dry", "--device", "cpu", "--seconds", "0", "--out", str(tmp_path / "gpu.json")])
    assert result["rows"] == []
    assert "not run: the time for all sections is over" in result["errors"]["chains"]


@pytest.mark.parametrize("make", ["pcgraph", "backpropagation"])
def test_a_step_is_one_recording_that_trains(monkeypatch, make):
    """Else a row would time a step that moves nothing, or one that is started by hand."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # an interpreted launch is no operation of torch

    def step():
        torch.manual_seed(0)
        if make == "backpropagation":
            return gpu_work.backprop(DRY, DRY.chain, DRY.batch, compiled=False)
        return gpu_work.chain(DRY, DRY.chain, DRY.batch, gpu_work.forward, 2)[0]

    def told(found):
        return found.energy if make == "pcgraph" else found.detach()

    plain = step()
    stand_in(monkeypatch)
    monkeypatch.setattr(Size, "records", True)
    recorded = step()
    for _ in range(3):
        assert torch.equal(told(recorded()), told(plain()))
    assert [made.log for made in Replayed.made] == [["warm"] * 3 + ["record"] + ["replay"] * 5]


def test_the_model_of_the_time_by_hand():
    """T = 1 from a sweep on 3-4-2 with both ends clamped: y's error is sent to h, and h moves."""
    net, b = PCNetwork(pcgraph.graphs.chain([3, 4, 2])), 5
    plan = net.plan({"x", "y"}, init=Forward(), steps=1)
    x, h, y, first, second = 3 * b, 4 * b, 2 * b, 12, 8
    parameters = 12 + 8 + 4 + 2
    swept = x + first + h + second  # both products, before the first step
    step = 3 * y + (second + y) + 3 * h  # compare y, pull h, move h
    final = (second + h) + 3 * (h + y)  # h has moved: y's prediction; h has an error now
    learned = first + second + x + h + y
    numbers = swept + step + final + learned + 7 * parameters
    launches = 2 + 2 + 2 + 1
    assert gpu_work.modelled(plan, net, b) == pytest.approx(
        launches * 2.5e-6 + 4 * numbers / 3e12 + plan.flops(b) / 300e12, rel=1e-12
    )
