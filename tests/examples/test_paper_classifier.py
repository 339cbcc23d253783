"""The scripts of the paper's classifier: quick runs, resuming, and documents that say what the committed rows say."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import subprocess
import sys
from dataclasses import replace

import pooch
import pytest

from pcgraph.data import sources
from tests import ROOT

SCRIPTS = ROOT / "examples" / "paper"
FIGURES = ROOT / "docs" / "figures" / "paper"


@pytest.fixture(autouse=True, scope="module")
def _scripts_import_one_another():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield


def module(name):
    return importlib.import_module(name)


def run(name, out):
    """The script as its user starts it."""
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), "--quick", "--out", str(out), "--seeds", "0"]
    found = subprocess.run(command, cwd=out, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "Agg"})
    assert found.returncode == 0, found.stderr
    return found.stdout


def main_of(name, out, size="--quick"):
    """The script in this process, which has imported torch already."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [name, size, "--out", str(out), "--seeds", "0"])
        module(name).main()
    return printed.getvalue()


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Every script once, in one folder; what one has trained, the next takes over."""
    out = tmp_path_factory.mktemp("paper")
    return out, {name: main_of(name, out) for name in ("search", "table1", "table3", "fig6")}


def test_the_quick_scripts_write_tables_and_pictures_without_a_gap(quick):
    """Whoever tries a script gets its table and its picture, with a figure in every cell."""
    out, printed = quick
    for name, text in printed.items():
        written = (out / f"{name}.md").read_text(encoding="utf-8")
        assert written.strip() in text
        assert "missing" not in written
        assert "not run" not in written
    for name in ("table1", "table3", "fig6"):
        assert (out / f"{name}.png").stat().st_size > 5000


def test_a_second_run_trains_nothing_and_says_the_same(quick):
    """Who starts a stopped script again waits only for what is missing."""
    out, printed = quick
    before = (out / "classifier_runs.csv").read_bytes()
    assert run("table1", out) in printed["table1"]
    assert (out / "classifier_runs.csv").read_bytes() == before


def test_the_digits_are_learned_by_all_three_methods(quick):
    """A sign error in a method would show as chance."""
    rows = module("classifier").Records(quick[0], "classifier").runs.where(fraction=1.0, epochs=12)
    assert {r["method"] for r in rows} == {"backprop", "Forward", "Average"}
    assert all(float(r["test_by_test"]) > 60 for r in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fig2", "fig5"])
def test_the_scripts_over_T_run_on_digits(name, tmp_path):
    """Their cells are many: minutes rather than seconds."""
    run(name, tmp_path)
    text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    assert "missing" not in text
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_a_torn_run_is_trained_again(tmp_path):
    """A curve without its row is what a killed process leaves."""
    classifier, grid = module("classifier"), module("grid")
    images = {"dataset": "digits", "width": 8, "batch": 50, "validation": 100}
    once = classifier.Run(grid.Setting("Forward", "relu", 1e-3, 0.1, 2), 0, epochs=2, **images)
    records = classifier.Records(tmp_path, "classifier")
    row, curve = classifier.train(once)
    records.curves.add(*curve[:1])
    assert records.row(once) is None
    classifier.work([once], records)
    again = classifier.Records(tmp_path, "classifier")
    assert [p["test"] for p in again.curve(once)] == [p["test"] for p in curve]
    assert again.row(once)["test_by_test"] == row["test_by_test"]


def test_runs_in_several_processes_are_those_of_one(tmp_path):
    """--processes changes how long it takes, and nothing else."""
    classifier, grid = module("classifier"), module("grid")
    images = {"dataset": "digits", "width": 8, "batch": 50, "validation": 100}
    runs = [classifier.Run(grid.Setting("backprop", "relu", lr), 0, epochs=1, **images) for lr in (1e-3, 3e-3)]
    found = []
    for processes in (1, 2):
        records = classifier.Records(tmp_path / str(processes), "classifier")
        classifier.work(runs, records, processes)
        found.append([records.row(r)["test_by_test"] for r in runs])
    assert found[0] == found[1]


def test_the_best_epoch_is_the_first_of_the_best():
    """By hand."""
    best = module("classifier").best
    points = [(1, "80.0", "70.0"), (2, "90.0", "71.0"), (3, "90.0", "72.0")]
    curve = [dict(zip(("epoch", "validation", "test"), point)) for point in points]
    found = best(curve)
    assert (found["epoch_by_validation"], found["test_by_validation"]) == (2, "71.0")
    assert (found["epoch_by_test"], found["test_by_test"]) == (3, "72.0")
    assert set(best([]).values()) == {""}


def test_differences_and_their_errors_are_those_of_the_formula():
    """Ours 1, 2, 3 against 1.5 ± 0.3 of three seeds: 0.5 ± sqrt(1/3 + 0.09/3)."""
    assert module("table1").difference([1.0, 2.0, 3.0], (1.5, 0.3)) == f"+0.50 ± {math.sqrt(1 / 3 + 0.03):.2f}"
    assert module("table1").difference([1.0], (1.5, 0.3)) == "missing"


def test_halving_keeps_the_best_on_validation_images_and_drops_what_collapses(tmp_path):
    """A run with one good epoch before it falls over does not go on; neither does one that diverged."""
    classifier, search = module("classifier"), module("search")
    rungs = (search.Rung(3, 2, 100, 0.5), search.Rung(1, 3, 100))
    small = replace(search.QUICK, rungs=rungs)
    settings = small.first("Forward")
    records = classifier.Records(tmp_path, "classifier")
    curves = {0: [90.0, 20.0], 1: [70.0, 80.0], 2: [95.0]}
    for k, setting in enumerate(settings):
        (one,) = small.runs(setting, rungs[0])
        note(records, one, curves[k], "ok" if len(curves[k]) == 2 else "diverged")
    assert small.ranked(settings, rungs[0], records) == [settings[1], settings[0]]
    assert search.chosen(small, "Forward", records) == settings[1]


def note(records, one, accuracies, outcome="ok"):
    """A run's row and curve, as if it had been trained."""
    points = [{"run": one.name, "epoch": e + 1, "validation": v, "test": v} for e, v in enumerate(accuracies)]
    best = {f"test_by_{by}": max(accuracies) for by in ("validation", "test")} | {"epoch_by_validation": 1}
    records.add({"run": one.name, "outcome": outcome} | one.columns | best, points)


def test_each_fraction_has_its_own_choice_and_by_test_may_choose_another(tmp_path):
    """What is best on a quarter need not be on all; what is best on test images need not be on validation images."""
    classifier, search, table1 = module("classifier"), module("search"), module("table1")
    last = search.Rung(2, 2, 100, seeds=(0, 1))
    small = replace(search.QUICK, rungs=(search.Rung(3, 2, 100, 0.5), last))
    settings = small.first("Forward")
    records = classifier.Records(tmp_path, "classifier")
    for k, setting in enumerate(settings):
        note(records, small.runs(setting, small.rungs[0])[0], [10.0, 30.0 - k])
    for fraction, ends in ((1.0, ((80.0, 80.0), (60.0, 90.0))), (0.25, ((50.0, 50.0), (60.0, 60.0)))):
        for setting, by_seed in zip(settings, ends, strict=False):
            for one, end in zip(replace(small, fraction=fraction).runs(setting, last), by_seed, strict=True):
                note(records, one, [end, end])
    assert [search.chosen(replace(small, fraction=f), "Forward", records) for f in (1.0, 0.25)] == settings[:2]
    records.add(records.row(small.runs(settings[1], last)[0]) | {"test_by_test": 99.0}, [])
    runs = table1.runs_by_test(small, "Forward", 1.0, (0, 1), records)
    assert runs == [replace(one, validation=0) for one in small.runs(settings[1], last)]
    assert [one.setting for one in table1.runs_of(small, "Forward", 1.0, (0, 1), records)] == [settings[0]] * 2


def test_a_run_without_a_validation_set_trains_on_everything(tmp_path):
    """The paper's way: all 1437 digits, and no epoch chosen by images that are not there."""
    classifier, grid = module("classifier"), module("grid")
    images = {"dataset": "digits", "width": 8, "batch": 50, "epochs": 2}
    one = classifier.Run(grid.Setting("backprop", "relu", 1e-3), 0, validation=0, **images)
    row, curve = classifier.train(one)
    assert row["images"] == 1437
    assert row["test_by_validation"] == ""
    assert [point["validation"] for point in curve] == ["", ""]
    assert float(row["test_by_test"]) == max(float(point["test"]) for point in curve)
    assert classifier.train(replace(one, validation=100))[0]["images"] == 1337


def test_a_data_set_that_is_not_here_is_said_to_be_not_run(tmp_path):
    """No figure stands where nothing was measured."""
    text = module("table1").make_table(tmp_path)
    lines = [line for line in text.splitlines() if line.startswith(("| mnist", "| kmnist", "| cifar10"))]
    assert len(lines) == 27
    assert all("not run: data not available here" in line for line in lines)


@pytest.mark.parametrize("name", ["table1", "table3"])
def test_a_data_set_that_is_not_here_is_asked_for_nowhere(name, tmp_path, monkeypatch):
    """A script that is started again and again would trouble the mirrors each time, and wait for them."""
    monkeypatch.setenv("PCGRAPH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(pooch, "retrieve", lambda address, **_: pytest.fail(f"asks for {address}"))
    printed = main_of(name, tmp_path / "out", "--full")
    for dataset in module(name).PAPER:
        assert f"{dataset} is left out: its files are not on this machine" in printed


def test_a_data_set_that_is_here_is_not_left_out(tmp_path, monkeypatch):
    """All of its files must be there, of both splits."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    monkeypatch.setenv("PCGRAPH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "system")
    available = module("common").available
    for name in sources.CATALOGUE["mnist"].sha256:
        assert not available("mnist")
        (folder / name).touch()
    assert available("mnist")
    assert available("digits")


@pytest.mark.parametrize("name", ["search_choice", "search", "table1", "table3", "fig2", "fig5", "fig6"])
def test_the_table_in_the_document_is_made_of_the_committed_rows(name):
    """A figure in docs/paper.md that no committed run produced would mislead whoever quotes it."""
    search, records = module("search"), module("classifier").Records(FIGURES, "classifier")
    made = {
        "search_choice": lambda: search.choice_table(search.FULL, records),
        "search": lambda: search.trial_table(search.FULL, records),
    }.get(name, lambda: module(name).make_table(FIGURES))()
    assert made in (FIGURES / "search.md" if name == "search" else ROOT / "docs" / "paper.md").read_text(
        encoding="utf-8"
    )
