"""``pcgraph search``: a file of settings, a space over them, and what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import pcgraph
from pcgraph.cli import app
from pcgraph.errors import ConfigError, DataError
from pcgraph.experiments.options import read_config

BASE = {"data": "digits", "fraction": 0.2, "graph": "64-16-10", "epochs": 2, "batch_size": 20}
SPACE = {"lr": {"low": 1e-4, "high": 1e-1, "log": True}, "rule": ["standard", "backprop"], "steps": [2, 4]}


def written(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {written(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def file(folder: Path, base: dict[str, Any], space: dict[str, Any], search: dict[str, Any]) -> Path:
    lines = [f"{k} = {written(v)}" for k, v in base.items()]
    for name, table in (("space", space), ("search", search)):
        lines += [f"[{name}]", *(f"{k} = {written(v)}" for k, v in table.items())]
    path = folder / "digits.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["search", *map(str, arguments)], catch_exceptions=False)


def test_it_searches_goes_on_and_writes_what_train_reads(tmp_path: Path) -> None:
    """Rules without inference take part although the space has settings that they have no use for."""
    path = file(tmp_path, BASE, SPACE, {"trials": 4, "epochs": 1, "finalists": 1, "seeds": 2})
    done = run(path, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "4 trials" in done.output
    assert "test_accuracy" in done.output
    again = run(path, "--out", tmp_path / "out", "--trials", 6)
    assert again.exit_code == 0, again.output
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").open(encoding="utf-8")))
    assert len(rows) == 6
    assert len({row["lr"] for row in rows}) == 6
    assert (tmp_path / "out" / "search.png").stat().st_size > 1000
    best = json.loads((tmp_path / "out" / "best.json").read_text(encoding="utf-8"))
    settings = read_config(tmp_path / "out" / "best.toml")
    assert (settings["lr"], settings["rule"]) == (best["lr"], best["rule"])
    assert settings["validation"] == 0.2
    assert settings["epochs"] == 2
    trained = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "out" / "best.toml"), "--epochs", "1"])
    assert trained.exit_code == 0, trained.output


def test_python_and_the_command_search_alike(tmp_path: Path) -> None:
    """One file is one search, whoever calls it; what is given in the call goes over its table."""
    path = file(tmp_path, BASE, {"lr": [1e-3, 1e-2]}, {"trials": 3, "epochs": 1, "storage": str(tmp_path / "py.db")})
    mapping = {**BASE, "space": {"lr": [1e-3, 1e-2]}, "search": {"trials": 9, "epochs": 1, "finalists": 1}}
    found = pcgraph.search(path, progress=False)
    same = pcgraph.search(mapping, trials=3, finalists=0, progress=False)
    done = run(path, "--out", tmp_path / "out", "--storage", tmp_path / "cli.db")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "out" / "trials.csv").open(encoding="utf-8")))
    values = [[trial.value for trial in each.trials] for each in (found, same)]
    assert values[0] == values[1] == [float(row["value"]) for row in rows]
    assert (tmp_path / "py.db").exists()
    with pytest.raises(ConfigError, match="the space stands in the settings"):
        pcgraph.search(mapping, {"lr": [1.0]})


def test_the_test_set_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice by the test set makes its accuracy a promise that new images do not keep."""
    seen: list[int] = []

    def judged(experiment: Any, images: Any, net: Any) -> dict[str, float]:
        seen.append(len(images))
        return {"accuracy": 0.5}

    monkeypatch.setattr("pcgraph.tuning.settings._judged", judged)
    path = file(tmp_path, BASE, {"lr": [0.1, 0.01]}, {"trials": 2, "finalists": 1, "seeds": 1})
    assert run(path, "--out", tmp_path / "out").exit_code == 0
    held_back, test = seen[0], seen[-1]
    assert held_back != test
    assert seen == [held_back] * 6 + [test]


def test_data_that_cannot_be_read_are_said_once_and_not_by_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def nowhere(experiment: Any) -> None:
        said.append(experiment.options.data)
        raise DataError("it is nowhere")

    monkeypatch.setattr("pcgraph.tuning.settings.load_splits", nowhere)
    done = run(file(tmp_path, BASE, {"lr": [0.1, 0.2]}, {"trials": 2}), "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "it is nowhere" in done.output
    assert said == ["digits"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("base", "space", "search", "said"),
    [
        ({"validation": 0.0}, {"lr": [0.1]}, {}, "would choose by the test set"),
        ({}, {}, {}, "a space maps settings"),
        ({}, {"lr": [0.1], "sedes": [1]}, {}, "seed"),
        ({}, {"seed": [1, 2]}, {}, "seed is not searched for"),
        ({}, {"lr": [0.1, -1.0]}, {}, "--lr is a positive number"),
        ({}, {"lr": [0.1, "fast"]}, {}, "lr is a number"),
        ({}, {"steps": {"low": 0.5, "high": 2}}, {}, "steps is a whole number"),
        ({}, {"rule": ["standard", "standart"]}, {}, "did you mean 'standard'"),
        ({}, {"init": ["forward", "averge"]}, {}, "average"),
        ({}, {"epochs": [1, 2]}, {}, "epochs is not searched for"),
        ({"lr": 0.1}, {"lr": [0.1]}, {}, "stands in [space] and outside of it"),
        ({"lrr": 0.1}, {"steps": [1]}, {}, "did you mean 'lr'"),
        ({}, {"lr": [0.1]}, {"trails": 3}, "did you mean 'trials'"),
        ({}, {"lr": [0.1]}, {"trials": 0}, "trials"),
        ({}, {"state-lr": [0.1], "state_lr": [0.2]}, {}, "'state_lr' stands twice in [space]"),
        ({"out": "runs/a"}, {"lr": [0.1]}, {}, "out is of one run"),
        ({"test_steps": 5}, {"lr": [0.1]}, {}, "without --test-init a sweep answers"),
        ({}, {"lr": [0.1]}, {"storage": "trials.txt"}, "storage= is a file ending in"),
        ({"graph": None}, {"graph": ["64-16-10", "64-16-9"]}, {}, "shape"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: Any, space: Any, search: Any, said: str
) -> None:
    """A space with one impossible value would otherwise fail when it is drawn, hours later."""
    monkeypatch.setattr("pcgraph.tuning.settings.fit", lambda *args, **named: pytest.fail("it has begun"))
    fixed = {key: value for key, value in (BASE | base).items() if value is not None}
    done = run(file(tmp_path, fixed, space, search), "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out" / "report.md").exists()
