"""The command, as a person or a script uses it: what it prints, and what it exits with."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

import pcgraph
from pcgraph import drawing
from pcgraph.checkpoints import FolderLock
from pcgraph.cli import app
from pcgraph.data import sources
from pcgraph.errors import ConfigError
from pcgraph.experiments.experiment import prepare
from pcgraph.experiments.initializers import make_initializer
from pcgraph.experiments.options import Options, options_from, sizes_of
from pcgraph.experiments.rules import make_rule
from pcgraph.learning import TrainingStep
from pcgraph.training import EpochRecord, History


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


def saved(graph: nx.DiGraph, path: Path) -> Path:
    """Write a graph with NetworkX alone, as a user without pcgraph would."""
    if path.suffix == ".graphml":
        nx.write_graphml(graph, path)
    else:
        path.write_text(json.dumps(nx.node_link_data(graph, edges="edges")), encoding="utf-8")
    return path


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    graph = nx.DiGraph()
    nx.add_path(graph, ["x", "h", "y"], **{})
    nx.set_node_attributes(graph, 3, "shape")
    return saved(graph, tmp_path / "chain.json")


@pytest.fixture
def cycle(tmp_path: Path) -> Path:
    """x -> a -> b -> y, and b -> a: a cycle that no clamp on the ends cuts."""
    graph = nx.DiGraph([("x", "a"), ("a", "b"), ("b", "y"), ("b", "a")])
    nx.set_node_attributes(graph, 3, "shape")
    return saved(graph, tmp_path / "cycle.json")


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_exits_0_where_forward_initialization_exists(chain: Path) -> None:
    done = run("check", chain, "--clamp", "x", "--clamp", "y")
    assert done.exit_code == 0
    assert "Proposition 3.2" in done.output
    assert "holds: acyclic, every root clamped" in done.output


def test_check_exits_1_and_shows_the_cycle(cycle: Path) -> None:
    """A script that goes on regardless would train from states that do not exist."""
    done = run("check", cycle, "--clamp", "x,y")
    assert done.exit_code == 1
    assert "a → b → a" in done.output


def test_check_exits_1_for_an_unclamped_root(chain: Path) -> None:
    done = run("check", chain, "--clamp", "y")
    assert done.exit_code == 1
    assert "x" in done.output


def test_check_reads_graphml(tmp_path: Path) -> None:
    graph = nx.DiGraph([("x", "h"), ("h", "y")])
    nx.set_node_attributes(graph, 3, "shape")
    assert run("check", saved(graph, tmp_path / "g.graphml"), "--clamp", "x").exit_code == 0
    graph.add_edge("y", "h")
    assert run("check", saved(graph, tmp_path / "g.graphml"), "--clamp", "x").exit_code == 1


def test_check_finds_nodes_that_are_numbers(tmp_path: Path) -> None:
    """A shell knows only text, and Figure 9 has nodes 0 to 5."""
    file = saved(pcgraph.graphs.figure_9("top"), tmp_path / "figure9.json")
    assert run("check", file, "--clamp", "0").exit_code == 0
    assert run("check", file, "--clamp", "1").exit_code == 1


def test_check_prints_json_for_scripts(cycle: Path) -> None:
    done = run("check", cycle, "--clamp", "x", "--clamp", "y", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert found["valid"] is False
    assert found["asked"] == "forward"
    assert sorted(found["cycle"]) == ["a", "b"]
    assert found["verdicts"]["zero"]["valid"] is True
    assert found["repair"] is None


def test_check_proposes_a_repair_that_works(cycle: Path) -> None:
    found = json.loads(run("check", cycle, "--clamp", "x,y", "--json", "--repair").stdout)
    assert found["repair_is_minimal"] is True
    assert len(found["repair"]) == 1
    clamps = ",".join(["x", "y", *found["repair"]])
    assert json.loads(run("check", cycle, "--clamp", clamps, "--json").stdout)["theorem_1"] is True
    shown = " ".join(run("check", cycle, "--clamp", "x,y", "--repair").output.split())
    assert f"repair: give a value to {found['repair'][0]} (smallest)" in shown
    shown = run("check", cycle, "--phase", "train=x,y", "--phase", "test=x", "--repair").output
    assert f"Repair for test: clamp or otherwise initialise {found['repair'][0]} (no smaller set will do)" in shown


def test_check_says_that_no_repair_is_needed(chain: Path) -> None:
    assert "none is needed" in run("check", chain, "--clamp", "x", "--repair").output


def test_check_compares_phases(tmp_path: Path) -> None:
    """Feedback from the target is cut while it is clamped, and not at test time: Average and sweeps differ by phase."""
    graph = nx.DiGraph([("x", "h"), ("h", "y"), ("y", "h")])
    file = saved(graph, tmp_path / "feedback.json")
    phases = ("--phase", "train=x,y", "--phase", "test=x")
    found = json.loads(run("check", file, *phases, "--json").stdout)["phases"]
    assert (found["train"]["theorem_1"], found["test"]["theorem_1"]) == (True, False)
    assert run("check", file, *phases).exit_code == 1
    assert run("check", file, *phases, "--init", "forward:fallback=zero").exit_code == 0


def test_check_answers_for_another_initializer(cycle: Path) -> None:
    assert run("check", cycle, "--clamp", "x,y", "--init", "zero").exit_code == 0
    assert run("check", cycle, "--clamp", "x,y", "--init", "average").exit_code == 0
    assert run("check", cycle, "--clamp", "x", "--init", "average").exit_code == 1
    assert run("check", cycle, "--clamp", "x", "--init", "memory").exit_code == 0


def test_check_on_the_level_of_neurons(tmp_path: Path) -> None:
    """Dense edges are as cyclic between neurons as between groups."""
    graph = nx.DiGraph([("x", "h"), ("h", "h"), ("h", "y")])
    nx.set_node_attributes(graph, 2, "shape")
    done = run("check", saved(graph, tmp_path / "loop.json"), "--clamp", "x", "--level", "neurons", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["level"] == "neurons"


# -- bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_message_without_a_traceback(chain: Path, tmp_path: Path) -> None:
    """Whatever is wrong with what a user typed, they read a sentence about it and a script sees exit code 2."""
    broken = tmp_path / "broken.json"
    broken.write_text('{"nodes": [', encoding="utf-8")
    undirected = saved(nx.Graph([("x", "y")]), tmp_path / "undirected.json")
    for arguments, said in (
        (("check", chain, "--clamp", "z"), "no node is named 'z'"),
        (("check", chain, "--clamp", "x", "--phase", "train=x"), "--clamp or --phase"),
        (("check", chain, "--phase", "x"), "NAME=NODE"),
        (("check", chain, "--clamp", "x", "--init", "forwrad"), "did you mean 'forward'?"),
        (("check", tmp_path / "missing.json", "--clamp", "x"), "missing.json"),
        (("check", broken, "--clamp", "x"), "broken.json"),
        (("check", undirected, "--clamp", "x"), "irect"),
        (("draw", chain, "--clamp", "z", "--out", tmp_path / "g.png"), "no node is named 'z'"),
        (("draw", chain, "--clamp", "x", "--out", tmp_path / "g.picture"), "picture"),
        (("draw", chain, "--clamp", "x", "--out", chain / "g.png"), "cannot write the picture"),
        (("train", "--data", "digitz"), "did you mean 'digits'?"),
        (("train", "--init", "forward:fallbak=zero"), "did you mean 'fallback'?"),
        (("train", "--init", "normal:std=-1"), "std"),
        (("train", "--init", "normal:std"), "NAME:option=value"),
        (("train", "--init", "memory:heads=7"), "heads"),
        (("train", "--init", "equilibrium"), "release"),
        (("train", "--graph", "alexnett"), "did you mean 'alexnet'?"),
        (("train", "--graph", "64-32-9"), "(10,)"),
        (("train", "--graph", "65-32-10"), "(64,)"),
        (("train", "--graph", tmp_path / "none.json"), "none.json"),
        (("train", "--input", "image"), "--input"),
        (("train", "--target", "x"), "two nodes"),
        (("train", "--epochs", "0"), "--epochs is at least 1"),
        (("train", "--steps", "-1"), "--steps is not negative"),
        (("train", "--lr", "0"), "--lr is a positive number"),
        (("train", "--validation", "1"), "--validation"),
        (("train", "--activation", "rellu"), "did you mean 'relu'?"),
        (("train", "--device", "gpuu"), "--device"),
        (("train", "--resume", tmp_path / "nothing"), "settings.toml"),
        (("train", "--resume", tmp_path, "--out", tmp_path), "--resume"),
        (("train", "--resume", tmp_path, "--config", tmp_path), "leave out --config"),
        (("train", "--resume", tmp_path, "--rule", "nudged", "--lr", "1"), "leave out --rule, --lr (what may change"),
        (("train", "--rule", "standard:x=1"), "standard takes no options (found 'x')"),
        (("train", "--rule", "nudgd"), "did you mean 'nudged'?"),
        (("train", "--rule", "nudged:strenght=1"), "did you mean 'strength'?"),
        (("train", "--rule", "nudged:strength=-1"), "strength must be a positive number"),
        (("train", "--rule", "nudged:strength"), "options of the rule are written NAME:option=value"),
        (("train", "--rule", "nudged", "--init", "average"), "needs the class of every sample"),
        (("train", "--rule", "backprop", "--init", "zero", "--steps", "3"), "no inference (found --init, --steps)"),
        (("train", "--rule", "incremental", "--steps", "0"), "at least one of --steps"),
        (("train", "--fraction", "0"), "--fraction"),
        (("train", "--init", "null:first=zero"), "found 37 of 1437 images left for the last one"),
    ):
        done = run(*arguments)
        text = " ".join(done.output.split())
        assert done.exit_code == 2, (arguments, text, done.exception)
        assert said in text, (arguments, text)
        assert "Traceback" not in text
        assert text.startswith("error:"), (arguments, text)


def test_an_unwritable_folder_is_said_before_training(tmp_path: Path) -> None:
    """A run of hours must not find out at its end that it has nowhere to go."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = run("train", "--epochs", 1, "--out", tmp_path / "file")
    assert done.exit_code == 2
    assert "file" in done.output


def test_the_script_itself_runs(cycle: Path) -> None:
    """What pip installs is the same command."""
    done = subprocess.run(
        [sys.executable, "-c", "from pcgraph.cli import main; main()", "check", str(cycle), "--clamp", "q"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no node is named 'q'")


# -- draw -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_draw_writes_a_picture(cycle: Path, tmp_path: Path, ending: str) -> None:
    picture = tmp_path / f"graph.{ending}"
    done = run("draw", cycle, "--clamp", "x", "--clamp", "y", "--out", picture)
    assert done.exit_code == 0, done.output
    start = picture.read_bytes()[:8]
    assert start == b"\x89PNG\r\n\x1a\n" if ending == "png" else start.startswith(b"<?xml")


# -- settings ---------------------------------------------------------------------------------------------------------


def test_the_command_line_goes_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('data = "FashionMNIST"\nstate-lr = 0.03\nlr = 1\nbatch_size = 100\n', encoding="utf-8")
    found = options_from({"lr": 0.002, "steps": None, "epochs": 3}, file)
    assert (found.data, found.graph) == ("fashion-mnist", "784-512x4-10")
    assert (found.state_lr, found.lr, found.batch_size, found.epochs, found.steps) == (0.03, 0.002, 100, 3, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stat-lr = 0.1", "did you mean 'state-lr'?"),
        ('steps = "five"', "steps is a whole number"),
        ("steps = 5.5", "steps is a whole number"),
        ("steps = true", "steps is a whole number"),
        ('lr = "fast"', "lr is a number"),
        ("stream-aligned = 1", "stream-aligned is true or false"),
        ("data = 3", "data is text"),
        ("lr = 1\nlr = 2", "is not TOML"),
        ("state-lr = 1\nstate_lr = 2", "stands twice"),
    ],
)
def test_a_wrong_setting_in_a_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    """A misspelt setting that is passed over leads to a week of experiments with the default."""
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        options_from({}, file)
    assert run("train", "--config", file, "--dry-run").exit_code == 2


def test_sizes_are_read_as_the_paper_writes_them() -> None:
    assert sizes_of("784-512x4-10") == [784, 512, 512, 512, 512, 10]
    assert sizes_of("2-1") == [2, 1]
    for text in ("784", "784-", "graph-1.json", "a-b", "-3-4", "784-512x-10"):
        assert sizes_of(text) is None


def test_initializers_are_made_with_their_options() -> None:
    made = make_initializer("forward:roots=zero,fallback=normal")
    assert isinstance(made.roots, pcgraph.Zero)
    assert isinstance(made.fallback, pcgraph.Normal)
    made = make_initializer("Average:forward-depth=2, by=label")
    assert (made.forward_depth, made.by) == (2, "label")
    assert make_initializer("normal:mean=-1,std=0.5").mean == -1


# -- train ------------------------------------------------------------------------------------------------------------


def test_dry_run_prints_what_it_would_do_and_trains_nothing(tmp_path: Path) -> None:
    done = run("train", "--data", "digits", "--dry-run", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "Proposition 3.2" in done.output
    assert "5 inference steps" in done.output
    weights = 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert f"parameters: {weights:,}" in done.output
    assert not (tmp_path / "run").exists()


def test_another_run_in_the_folder_is_left_as_it_was(tmp_path: Path) -> None:
    """Settings overwritten by a refused command would make the run in the folder impossible to resume."""
    assert run("train", "--fraction", "0.1", "--epochs", "1", "--out", tmp_path).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run("train", "--fraction", "0.1", "--graph", "64-7-10", "--out", tmp_path)
    assert done.exit_code == 2
    assert f"--resume {tmp_path}" in done.output
    assert "another --out" in done.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_came_first_keeps_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that start together both find the folder free; the second must not leave its settings for the first."""
    command = import_module("pcgraph.cli.train")
    ways, read = ("train", "--fraction", "0.1", "--epochs", "1", "--out", tmp_path / "run"), command.load_splits

    def slowly(experiment: Any) -> Any:
        monkeypatch.setattr(command, "load_splits", read)
        assert run(*ways).exit_code == 0
        return read(experiment)

    monkeypatch.setattr(command, "load_splits", slowly)
    done = run(*ways, "--graph", "64-7-10")
    assert done.exit_code == 2
    assert "holds another run" in done.output
    assert options_from({}, tmp_path / "run" / "settings.toml").graph == Options.graph
    assert run("train", "--resume", tmp_path / "run", "--epochs", 2).exit_code == 0


def test_a_run_that_goes_on_elsewhere_keeps_its_settings(tmp_path: Path) -> None:
    """--resume of a run that another process trains is refused, and changes nothing of it."""
    folder = tmp_path / "run"
    assert run("train", "--fraction", "0.1", "--epochs", "1", "--out", folder).exit_code == 0
    read, write = os.pipe()
    other = os.fork()
    if other == 0:
        with FolderLock(folder / "checkpoint"):
            os.write(write, b"x")
            time.sleep(100)
    try:
        os.read(read, 1)
        done = run("train", "--resume", folder, "--epochs", 7)
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    assert done.exit_code == 2
    assert f"is being written to by process {other}" in " ".join(done.output.split())
    assert options_from({}, folder / "settings.toml").epochs == 1


def test_dry_run_says_which_images_judge_and_which_batch_the_plan_is_of() -> None:
    alone = run("train", "--dry-run").output
    assert "for the test, which judge the epochs too (see --validation)" in alone
    assert "first batch" not in alone
    split = run("train", "--dry-run", "--validation", "0.2", "--init", "average").output
    assert "to judge epochs" in split
    assert "The plan is that of the first batch, before there are means" in split


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set on this machine, and no network."""
    monkeypatch.delenv("PCGRAPH_DATA", raising=False)
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "none")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    for name in ("mnist", "cifar10"):
        monkeypatch.setitem(sources.CATALOGUE, name, replace(sources.CATALOGUE[name], mirrors=("http://127.0.0.1:9/",)))


@pytest.mark.parametrize(
    ("name", "images", "weights"),
    [
        ("mnist", "54000 images for training, 6000 to judge epochs, 10000 for the test",
         785 * 512 + 3 * 513 * 512 + 513 * 10),
        ("cifar10", "45000 images for training, 5000 to judge epochs, 10000 for the test",
         sum(p.numel() for p in pcgraph.PCNetwork(pcgraph.graphs.alexnet(activation="relu")).parameters())),
    ],
)  # fmt: skip
def test_a_dry_run_needs_no_data(nowhere: None, name: str, images: str, weights: int) -> None:
    """Whether a network fits into memory is asked before 170 MB are fetched."""
    done = run("train", "--data", name, "--validation", 0.1, "--dry-run")
    assert done.exit_code == 0, done.output
    for said in (
        "Proposition 3.2", "Plan for", "sequential matrix multiplications:", f"data: {name}, {images}",
        f"{name} is not on this machine yet", f"parameters: {weights:,}", "GFLOP", "MiB",
    ):  # fmt: skip
        assert said in done.output
    assert "without the modules" not in done.output
    done = run("train", "--data", name)
    assert done.exit_code == 2
    assert f"Put the files into $PCGRAPH_DATA/{name}" in done.output
    assert run("train", "--data", name, "--dry-run", "--input", "imag").exit_code == 2


@pytest.mark.parametrize("text", ["standard", "incremental", "nudged", "nudged:sign=positive"])
def test_a_dry_run_counts_what_the_rule_does(text: str) -> None:
    """All the plans that a batch takes; torch's own counter, beside one batch, is the oracle."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([64, 128, 128, 10], activation="relu"), seed=0)
    weights = torch.optim.SGD(net.parameters(), lr=1e-3)
    clamps = {"x": torch.randn(50, 64), "y": torch.eye(10)[torch.arange(50) % 10]}
    step = TrainingStep(
        net, clamps, None, ("y",), pcgraph.Forward(), 5, pcgraph.SGD(lr=0.01), True, False, weights.zero_grad,
        weights.step, lambda: None,
    )  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        make_rule(text)(step)
    said = run("train", "--rule", text, "--dry-run").output
    assert f"batch of 50: {counter.get_total_flops() / 1e9:.3g} GFLOP" in said
    assert ("It runs twice a batch" in said) is text.startswith("nudged")
    assert ("The weights move after each" in said) is (text == "incremental")


def test_a_dry_run_of_backprop_has_no_plan() -> None:
    said = run("train", "--rule", "backprop", "--dry-run").output
    assert "no inference, and so no plan" in said
    assert "sequential matrix multiplications: 5 by the paper's count" in said  # 2L - 1


@pytest.mark.parametrize("rule", ["standard", "incremental", "nudged:sign=positive,strength=0.05", "backprop"])
def test_every_rule_trains_and_goes_on(tmp_path: Path, rule: str) -> None:
    """Its settings are kept with the run, so that --resume goes on with the same rule."""
    ways = ("train", "--rule", rule, "--fraction", 0.5)
    assert run(*ways, "--epochs", 3, "--out", tmp_path / "whole").exit_code == 0
    assert run(*ways, "--epochs", 2, "--out", tmp_path / "part").exit_code == 0
    done = run("train", "--resume", tmp_path / "part", "--epochs", 3)
    assert done.exit_code == 0, done.output
    logs = [(tmp_path / name / "log.csv").read_text(encoding="utf-8").splitlines() for name in ("whole", "part")]
    seconds = logs[0][0].split(",").index("seconds")
    whole, part = ([[v for i, v in enumerate(line.split(",")) if i != seconds] for line in log] for log in logs)
    assert part == whole
    accuracy = float(done.output.split("after epoch 3: ")[1].split("%")[0])
    assert accuracy > 85, done.output


def test_training_learns_and_leaves_a_run_behind(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = run("train", "--data", "digits", "--epochs", 3, "--validation", 0.2, "--out", folder)
    assert done.exit_code == 0, done.output
    assert "Test accuracy after epoch 3: 9" in done.output
    assert "by validation" in done.output
    assert {"settings.toml", "checkpoint", "log.csv", "learning.png"} <= {p.name for p in folder.iterdir()}
    assert (folder / "learning.png").read_bytes().startswith(b"\x89PNG")
    kept = options_from({}, folder / "settings.toml")
    assert (kept.data, kept.epochs, kept.validation) == ("digits", 3, 0.2)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path: Path) -> None:
    def log(seed: int, name: str) -> list[str]:
        assert run("train", "--epochs", 1, "--seed", seed, "--out", tmp_path / name).exit_code == 0
        lines = (tmp_path / name / "log.csv").read_text(encoding="utf-8").splitlines()
        seconds = lines[0].split(",").index("seconds")
        return [",".join(v for i, v in enumerate(line.split(",")) if i != seconds) for line in lines]

    first = log(0, "a")
    assert log(0, "b") == first
    assert log(1, "c") != first


def test_a_run_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Three epochs and two more are five."""
    assert run("train", "--epochs", 5, "--out", tmp_path / "whole").exit_code == 0
    assert run("train", "--epochs", 3, "--out", tmp_path / "part").exit_code == 0
    done = run("train", "--resume", tmp_path / "part", "--epochs", 5)
    assert done.exit_code == 0, done.output

    def epochs(name: str) -> list[tuple[str, str]]:
        lines = [line.split(",") for line in (tmp_path / name / "log.csv").read_text(encoding="utf-8").splitlines()]
        energy = lines[0].index("energy")
        return [(line[1], line[energy]) for line in lines if line[0] == "epoch"]

    assert len(epochs("whole")) == 5
    assert epochs("part") == epochs("whole")
    assert options_from({}, tmp_path / "part" / "settings.toml").epochs == 5  # for whoever has to resume it once more


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_saves_the_run_and_says_how_to_go_on(tmp_path: Path) -> None:
    """Whoever stops a run loses nothing, and a script sees that it was stopped."""
    folder = tmp_path / "run"
    command = "from pcgraph.cli import main; main()", "train", "--epochs", "100000", "--out", str(folder)
    running = subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    log, until = folder / "log.csv", time.monotonic() + 120
    try:
        while not (log.exists() and "\nepoch," in log.read_text(encoding="utf-8")):
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=60)[0].decode()
    finally:
        running.kill()
    assert running.returncode == 130
    assert f"pcgraph train --resume {folder}" in said
    epochs = log.read_text(encoding="utf-8").count("\nepoch,")
    done = run("train", "--resume", folder, "--epochs", epochs + 1)
    assert done.exit_code == 0, done.output
    assert log.read_text(encoding="utf-8").count("\nepoch,") == epochs + 1


def test_a_graph_from_a_file_is_trained(tmp_path: Path) -> None:
    graph = pcgraph.graphs.chain([64, 32, 10], activation="relu")
    graph = nx.relabel_nodes(graph, {"x": "image", "y": "digit"})
    file = saved(graph, tmp_path / "g.json")
    done = run("train", "--graph", file, "--input", "image", "--target", "digit", "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert "Test accuracy after epoch 2" in done.output


def test_a_cyclic_graph_needs_a_way_to_answer(tmp_path: Path) -> None:
    """Nobody gets an answer by iteration without having said so."""
    graph = pcgraph.graphs.chain([64, 32, 10], activation="tanh")
    graph.add_edge("h1", "h1")
    file = saved(graph, tmp_path / "loop.json")
    ways = ("train", "--graph", file, "--epochs", 1, "--init", "forward:fallback=zero")
    done = run(*ways)
    assert done.exit_code == 2
    assert "--test-init" in done.output
    done = run(*ways, "--test-init", "forward:fallback=zero", "--test-steps", 10, "--state-lr", 0.1)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "init",
    ["zero", "normal:std=0.1", "null:first=zero", "average:forward_depth=1", "memory:patterns=8,heads=4,embed_dim=8",
     "equilibrium:release=y,steps=5", "forward:roots=zero", "amortized:given=x,activation=gelu"],
)  # fmt: skip
def test_every_initializer_can_be_named(init: str) -> None:
    """Null needs equal batches: 1437 digits in batches of 479."""
    done = run("train", "--init", init, "--epochs", 1, "--batch-size", 479, "--steps", 2)
    assert done.exit_code == 0, done.output


def test_a_guess_that_is_learned_is_trained_from_a_file_and_asked_at_test(tmp_path: Path) -> None:
    """A test that started from an untrained guess would say nothing of hybrid predictive coding."""
    said = 'init = "amortized:given=x"\ntest_init = "amortized:given=x"\ntest_steps = 2\nepochs = 1\nsteps = 2\n'
    (tmp_path / "run.toml").write_text(said + 'graph = "64-8-10"\nbatch_size = 200\n', encoding="utf-8")
    done = run("train", "--config", tmp_path / "run.toml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    for init, same in (
        ("amortized:given=x", True),
        ("memory:observed=x,patterns=8,heads=4", True),
        ("null:first=zero", False),
    ):
        made = prepare(Options(graph="64-8-10", init=init, test_init=init, batch_size=479))
        assert (made.test_init is made.init) == same


@pytest.mark.slow
def test_the_papers_network_on_files_of_cifar10_from_a_dry_run_to_a_resumed_run(tmp_path: Path) -> None:
    """Files of the real size in the exact format, found where a user puts them; the classes differ in their colours."""
    folder, generator = tmp_path / "data" / "cifar10", np.random.default_rng(0)
    folder.mkdir(parents=True)
    labels = np.arange(10_000, dtype=np.uint8) % 10
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        pixels = generator.integers(0, 156, (10_000, 3, 1024), dtype=np.uint8)
        pixels += (np.stack([labels % 3, labels % 4, labels % 5], 1) * 24)[..., None].astype(np.uint8)
        np.concatenate([labels[:, None], pixels.reshape(10_000, 3072)], 1).tofile(folder / name)
        assert (folder / name).stat().st_size == 30_730_000

    def command(*arguments: Any) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from pcgraph.cli import main; main()", "train", *map(str, arguments)],
            capture_output=True, text=True, env={**os.environ, "PCGRAPH_DATA": str(tmp_path / "data")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    ways = ("--data", "cifar10", "--fraction", 0.004, "--batch-size", 20, "--state-lr", 0.1, "--epochs", 1)
    said = command(*ways, "--dry-run")
    assert "data: cifar10, 200 images for training, 10000 for the test" in said
    assert "not on this machine" not in said
    said = command(*ways, "--out", tmp_path / "run")
    assert "Test accuracy after epoch 1" in said
    said = command("--resume", tmp_path / "run", "--epochs", 2)
    assert "Test accuracy after epoch 2" in said
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").read_text(encoding="utf-8").splitlines()))
    energies = [float(row["energy"]) for row in rows if row["kind"] == "epoch"]
    assert len(energies) == 2
    assert energies[1] < energies[0]


# -- the learning curve -----------------------------------------------------------------------------------------------


def test_the_learning_curve_shows_the_numbers_of_the_run(tmp_path: Path) -> None:
    """Each epoch's energy and accuracies are on the picture, and the last accuracies in words."""
    records = [
        EpochRecord(i + 1, 10 * i, 100, energy=1 / (i + 1), accuracy=0.5 + i / 10, lr=1e-3, seconds=i,
                    validation={"accuracy": 0.4 + i / 10})
        for i in range(3)
    ]  # fmt: skip
    figure = drawing.learning_curve(History(records), tmp_path / "curve.svg", judged="test")
    energy, accuracy = figure.axes
    assert energy.lines[0].get_xydata().tolist() == [[1, 1], [2, 1 / 2], [3, 1 / 3]]
    assert accuracy.lines[0].get_ydata().tolist() == pytest.approx([50, 60, 70])
    assert accuracy.lines[1].get_ydata().tolist() == pytest.approx([40, 50, 60])
    figure.canvas.draw()
    ticks = [text.get_text() for text in energy.get_yticklabels()]
    assert {"0.5", "1"} <= set(ticks)
    assert not any("10^" in text for text in ticks)
    legend = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert legend == ["training (sampled batches), 70.0 % at the end", "test, 60.0 % at the end"]
    assert (tmp_path / "curve.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_a_learning_curve_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to draw"):
        drawing.learning_curve(History())
