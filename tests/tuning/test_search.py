"""Searches: what they find, how they go on, several processes on one storage. Oracles: functions with a known best."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

import pcgraph
from pcgraph import drawing, search
from pcgraph.errors import ConfigError, Diverged, GraphError
from pcgraph.tuning import Progress
from pcgraph.tuning.space import read_storage
from tests import ROOT

SPACE = {"rate": {"low": 1e-4, "high": 1.0, "log": True}, "width": [2, 4, 8], "depth": {"low": 1, "high": 5}}


def bowl(settings: dict[str, Any], progress: Progress) -> float:
    """Largest, at 0, where the rate is 0.01, the width 4 and the depth 2."""
    return -abs(math.log10(settings["rate"]) + 2) - abs(settings["width"] - 4) - abs(settings["depth"] - 2)


def find(train: Any = bowl, space: Any = SPACE, **more: Any) -> Any:
    return search(train, space, **{"trials": 10, "progress": False, **more})


# -- what is found ----------------------------------------------------------------------------------------------------


def test_it_comes_near_the_best_there_is() -> None:
    found = find(trials=60)
    assert found.value > -0.3
    assert (found.best["width"], found.best["depth"]) == (4, 2)
    assert 0.005 < found.best["rate"] < 0.02
    assert found.value == max(t.value for t in found.trials) == found.ranked[0].value


def test_two_searches_of_one_seed_are_one() -> None:
    assert find() == find()
    assert find() != find(seed=1)


def test_smaller_is_better_where_it_is_said_or_known() -> None:
    def error(settings: dict[str, Any], progress: Progress) -> float:
        return -bowl(settings, progress)

    assert find(error, metric="squared_error").value == min(t.value for t in find(error, metric="squared_error").trials)
    assert find(error, largest=False) == find(error, largest=False, metric="accuracy")


def test_a_space_is_what_it_says() -> None:
    """A whole number that came as 3.0, or a choice that came as its text, would fail in the user's own code."""
    space = {
        **SPACE, "step": {"low": 10, "high": 50, "step": 20}, "part": {"low": 0, "high": 1.0}, "flag": [True, False],
        "own": optuna.distributions.FloatDistribution(2.0, 3.0), "none": [None, "a"],
    }  # fmt: skip
    for trial in find(space=space, trials=30).trials:
        s = trial.settings
        assert 1e-4 <= s["rate"] <= 1
        assert type(s["depth"]) is int
        assert s["step"] in (10, 30, 50)
        assert type(s["part"]) is float
        assert type(s["flag"]) is bool
        assert 2 <= s["own"] <= 3
        assert s["none"] in (None, "a")


def test_trials_that_go_badly_are_pruned() -> None:
    """That is what makes a search affordable; one that prunes the good ones is worse than none."""

    def train(settings: dict[str, Any], progress: Progress) -> float:
        for epoch in range(1, settings["epochs"] + 1):
            if progress.tell(settings["good"] * epoch, epoch):
                return math.nan
        return float(settings["good"] * epoch)

    found = search(train, {"good": {"low": 0, "high": 1000}}, trials=30, epochs=6, progress=False)
    pruned = [t for t in found.trials if t.state == "pruned"]
    assert len(pruned) >= 5
    assert all(len(t.curve) < 6 and t.value is None for t in pruned)
    assert all(len(t.curve) == 6 for t in found.trials if t.state == "complete")
    assert max(t.settings["good"] for t in found.trials) == found.best["good"]
    never = search(
        train, {"good": [1, 2, 3, 4]}, trials=9, epochs=6, progress=False, pruner=optuna.pruners.NopPruner()
    )  # fmt: skip
    assert {t.state for t in never.trials} == {"complete"}


def test_fit_tells_the_search_of_its_epochs_and_ends_when_pruned() -> None:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
    batches = [(x, torch.arange(24) % 3)]

    def train(settings: dict[str, Any], progress: Progress) -> Any:
        net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 6, 3], activation="tanh"), seed=settings["seed"])
        return pcgraph.fit(
            net, batches, init=pcgraph.Forward(), steps=2, state_optimizer=pcgraph.SGD(lr=0.1), validate=batches,
            optimizer=torch.optim.SGD(net.parameters(), lr=settings["rate"]), epochs=settings["epochs"],
            progress=False, callbacks=progress,
        )  # fmt: skip

    found = search(
        train, {"rate": [1e-6, 0.3]}, trials=8, epochs=4, metric="squared_error", finalists=1, final_epochs=6, seeds=2,
        pruner=optuna.pruners.ThresholdPruner(upper=1.0, n_warmup_steps=3), progress=False,
    )  # fmt: skip
    assert found.best == {"rate": 0.3}
    by_rate = {rate: [t for t in found.trials if t.settings["rate"] == rate] for rate in (1e-6, 0.3)}
    assert all(t.state == "pruned" and len(t.curve) < 4 for t in by_rate[1e-6])
    assert all(t.state == "complete" and len(t.curve) == 4 for t in by_rate[0.3])
    assert all(t.value == t.curve[4] for t in by_rate[0.3])
    assert len(found.finalists[0].values) == 2


# -- two stages -------------------------------------------------------------------------------------------------------


def test_finalists_are_run_longer_with_seeds_of_their_own() -> None:
    """The best of many trials is partly the luckiest: another seed tells, and the first one does not count."""
    seen: list[tuple[int, int, bool]] = []

    def lucky(settings: dict[str, Any], progress: Progress) -> float:
        seen.append((settings["seed"], settings["epochs"], progress.final))
        progress.note("test", settings["seed"])
        luck = 10.0 if settings["a"] == 3 and settings["seed"] == 7 else 0.0
        return settings["a"] + luck if settings["a"] < 5 else 4.5

    found = search(
        lucky, {"a": [0, 1, 2, 3, 5]}, trials=25, epochs=2, finalists=2, seeds=3, final_epochs=9, seed=7, progress=False
    )
    assert seen[:25] == [(7, 2, False)] * 25
    assert sorted(seen[25:]) == [(s, 9, True) for s in (8, 8, 9, 9, 10, 10)]
    assert found.ranked[0].settings == {"a": 3}
    assert found.best == {"a": 5}
    assert found.value == 4.5
    assert found.finalists[0].values == {8: 4.5, 9: 4.5, 10: 4.5}
    assert found.finalists[0].noted("test") == 9
    assert [f.settings["a"] for f in found.finalists] == [5, 3]


def test_a_finalist_that_diverges_is_not_the_best() -> None:
    def train(settings: dict[str, Any], progress: Progress) -> float:
        if progress.final and settings["a"] == 2:
            raise Diverged("no longer finite", step=1, node=None, largest=math.nan)
        return float(settings["a"])

    found = search(train, {"a": [0, 1, 2]}, trials=12, finalists=2, seeds=2, progress=False)
    assert found.best == {"a": 1}
    assert found.finalists[-1].values == {1: None, 2: None}


# -- what ends a trial ------------------------------------------------------------------------------------------------


def test_settings_that_diverge_or_are_refused_do_not_end_the_search() -> None:
    def train(settings: dict[str, Any], progress: Progress) -> float:
        if settings["a"] == 0:
            raise Diverged("no longer finite", step=1, node=None, largest=math.nan)
        if settings["a"] == 1:
            raise GraphError("no such graph", found=None)
        return float(settings["a"])

    found = search(train, {"a": [0, 1, 2]}, trials=12, progress=False)
    assert len(found.trials) == 12
    whys = {t.settings["a"]: (t.state, t.why) for t in found.trials}
    assert whys == {0: ("pruned", "diverged"), 1: ("failed", "GraphError: no such graph"), 2: ("complete", "")}
    assert "GraphError: no such graph" in str(found)


def test_a_search_in_which_all_is_refused_says_why() -> None:
    def train(settings: dict[str, Any], progress: Progress) -> float:
        raise GraphError("no such graph", found=None)

    with pytest.raises(GraphError, match="no such graph"):
        find(train)


def test_an_error_of_the_users_own_ends_the_search_and_does_not_count(tmp_path: Path) -> None:
    """Ctrl-C as well: the same call then goes on as if that trial had not been begun."""
    calls: list[int] = []

    def train(settings: dict[str, Any], progress: Progress) -> float:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return bowl(settings, progress)

    with pytest.raises(KeyboardInterrupt):
        find(train, storage=tmp_path / "s.db")
    found = find(train, storage=tmp_path / "s.db")
    assert Counter(t.state for t in found.trials) == {"complete": 10, "failed": 1}


def test_what_is_not_measured_or_returned_is_said_by_the_first_trial(tmp_path: Path) -> None:
    """A misspelt metric is so in every trial: all of them were trained before it was said."""
    called = []

    def train(settings: dict[str, Any], progress: Progress) -> Any:
        called.append(settings)
        net = pcgraph.PCNetwork(pcgraph.graphs.chain([2, 2]))
        return pcgraph.fit(
            net, [(torch.ones(2, 2), torch.ones(2, 2))], init=pcgraph.Forward(), steps=0, callbacks=progress,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1), progress=False,
        )  # fmt: skip

    with pytest.raises(ConfigError, match="train returns a number, or the history of fit"):
        find(lambda settings, progress: called.append(settings))
    assert len(called) == 1
    with pytest.raises(ConfigError, match="does not measure 'acuracy'"):
        find(train, metric="acuracy", storage=tmp_path / "s.db")
    assert len(called) == 2
    with pytest.raises(ConfigError, match=r"train= is called with settings and a progress, and .*takes \(settings\)"):
        find(lambda settings: 1.0)


# -- one storage, called again and by several -------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["s.db", "s.journal"])
def test_a_search_goes_on_where_it_was(tmp_path: Path, file: str) -> None:
    first = find(storage=tmp_path / file, trials=4)
    again = find(storage=tmp_path / file, trials=4)
    assert again == first
    more = find(storage=str(tmp_path / file), trials=9, finalists=2, seeds=2)
    assert more.trials[:4] == first.trials
    assert len(more.trials) == 9
    assert len({tuple(t.settings.values()) for t in more.trials}) >= 8  # what it draws is not what it drew before
    assert (
        find(lambda s, p: pytest.fail("all is known"), storage=tmp_path / file, trials=9, finalists=2, seeds=2) == more
    )


def test_another_search_under_the_name_is_refused(tmp_path: Path) -> None:
    """Trials of another space, or measured by another number, cannot be ranked with these."""
    find(storage=tmp_path / "s.db", trials=1)
    for other in ({"space": {**SPACE, "width": [2, 4]}}, {"metric": "f1", "largest": True}):
        with pytest.raises(ConfigError, match="the storage holds a search 'search' with another"):
            find(storage=tmp_path / "s.db", **other)
    assert len(find(storage=tmp_path / "s.db", name="another", trials=2).trials) == 2


SCRIPT = """
import sys, time
import pcgraph
def train(settings, progress):
    time.sleep(0.02)
    progress.note("test", settings["seed"])
    return -abs(settings["a"] - 0.3)
found = pcgraph.search(
    train, {"a": {"low": 0.0, "high": 1.0}}, trials=12, finalists=2, seeds=3, storage=sys.argv[1], progress=False
)
print(len(found.trials))
"""


@pytest.mark.parametrize("file", ["s.db", "s.journal"])
def test_several_processes_share_one_search(tmp_path: Path, file: str) -> None:
    """No trial is lost, none is counted twice, and each run of a finalist is made once."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / file)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    trains = lambda settings, progress: pytest.fail("all is known")  # noqa: E731
    found = search(
        trains, {"a": {"low": 0.0, "high": 1.0}}, trials=12, finalists=2, seeds=3, storage=tmp_path / file,
        progress=False,
    )  # fmt: skip
    assert 12 <= len(found.trials) <= 14
    assert {t.state for t in found.trials} == {"complete"}
    assert [t.number for t in found.trials] == list(range(len(found.trials)))
    assert len({t.settings["a"] for t in found.trials}) == len(found.trials)
    assert found.unfinished == 0
    assert all(f.values.keys() == {1, 2, 3} for f in found.finalists)
    storage = pcgraph.tuning.space.read_storage(tmp_path / file)
    runs = optuna.load_study(study_name="search, finalists over 1 epochs", storage=storage).trials
    made = Counter(json.dumps(t.user_attrs["job"]) for t in runs if t.state.name == "COMPLETE")
    assert set(made.values()) == {1}


def test_a_run_that_a_killed_process_has_left_is_run_again_when_asked(tmp_path: Path) -> None:
    """It could as well be under way on another machine, which nobody here can see: so it is not taken away unasked."""
    dying = SCRIPT.replace("time.sleep(0.02)", "import os, signal\n    progress.final and os.kill(os.getpid(), 9)")
    killed = subprocess.run([sys.executable, "-c", dying, str(tmp_path / "s.db")], cwd=ROOT, check=False)
    assert killed.returncode == -9
    asked = {"trials": 12, "finalists": 2, "seeds": 3, "storage": tmp_path / "s.db", "progress": False}
    space = {"a": {"low": 0.0, "high": 1.0}}
    found = search(lambda s, p: -abs(s["a"] - 0.3), space, **asked)
    assert found.unfinished == 1
    assert len(found.finalists) == 1
    assert "1 runs of finalists are not finished" in str(found)
    found = search(lambda s, p: -abs(s["a"] - 0.3), space, retry=True, **asked)
    assert found.unfinished == 0
    assert len(found.finalists) == 2


# -- the report -------------------------------------------------------------------------------------------------------


def test_report_tables_and_picture_hold_what_was_found(tmp_path: Path) -> None:
    def train(settings: dict[str, Any], progress: Progress) -> float:
        progress.tell(bowl(settings, progress) - 1, 1)
        progress.note("test_accuracy", 0.25 * settings["seed"])
        return bowl(settings, progress)

    found = find(train, trials=14, finalists=2, seeds=3, name="a $b$")
    found.write(tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").open(encoding="utf-8")))
    assert [float(r["value"]) for r in rows if r["value"]] == [t.value for t in found.trials if t.value is not None]
    runs = list(csv.DictReader((tmp_path / "out" / "finalists.csv").open(encoding="utf-8")))
    assert [float(r["value"]) for r in runs] == [v for f in found.finalists for v in f.values.values()]
    assert json.loads((tmp_path / "out" / "best.json").read_text(encoding="utf-8")) == found.best
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert report == str(found)
    assert "14 trials" in report
    assert "| 0.5 |" in report  # the mean over seeds 1, 2, 3 of what was noted
    figure = drawing.search(found, tmp_path / "out" / "search.png")
    assert (tmp_path / "out" / "search.png").stat().st_size > 1000
    titles = [ax.get_title() for ax in figure.axes if ax.axison]
    assert titles[:4] == ["trials", "rate", "width", "depth"]
    assert figure.axes[1].get_xscale() == "log"
    for ax, setting in zip(figure.axes[2:4], ("width", "depth"), strict=True):
        assert set(ax.get_xticks()) == {trial.settings[setting] for trial in found.ranked}
    best_so_far = figure.axes[0].lines[0].get_ydata()
    assert best_so_far[-1] == found.ranked[0].value
    assert (best_so_far[1:] >= best_so_far[:-1]).all()


def test_there_is_nothing_to_draw_of_a_search_without_a_complete_trial() -> None:
    found = find(trials=1, timeout=1e-9)
    assert found.trials == ()
    with pytest.raises(ConfigError, match="nothing to draw"):
        drawing.search(found)
    with pytest.raises(ConfigError, match="no complete trial"):
        found.best  # noqa: B018


@pytest.mark.parametrize("folder", ["a?b", "c%20d", "e#f", "{g}", "h&i=1"])
def test_a_database_lies_in_the_folder_that_was_named(folder, tmp_path):
    """What has a meaning in URLs has none in the name of a folder: "a?b" was written to as "a"."""
    read_storage(tmp_path / folder / "search.db")
    assert [path.name for path in tmp_path.iterdir()] == [folder]
    assert (tmp_path / folder / "search.db").exists()


def test_a_journal_needs_no_symbolic_links_on_windows(tmp_path, monkeypatch):
    """Windows makes them for administrators alone, and Optuna's own lock is one."""
    monkeypatch.setattr("pcgraph.tuning.space.LOCKS_BY_OPENING", True)

    def refused(*args, **kwargs):
        raise OSError(1314, "a required privilege is not held by the client")

    monkeypatch.setattr("os.symlink", refused)
    storage = read_storage(tmp_path / "search.journal")
    storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "s")
    assert [study.study_name for study in storage.get_all_studies()] == ["s"]
