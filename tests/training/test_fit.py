"""fit and evaluate. Oracles: the same loop written by hand, closed forms, plain torch."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
import time
import types
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pcgraph
from pcgraph.errors import ClampError, ConfigError, DataError, Diverged, InvalidInitializer, PCGraphWarning
from pcgraph.plan import Plan, make_plan
from pcgraph.testing.strategies import Problem, digraphs, problems
from pcgraph.training import (
    CollapseDetector,
    EarlyStopping,
    EpochRecord,
    Evaluation,
    History,
    StepRecord,
    evaluate,
    fit,
)
from pcgraph.training.batches import check_names, read_batch
from pcgraph.training.gradients import unreached
from tests import builders

GENERATOR = torch.Generator().manual_seed(5)
X, LABELS = torch.randn(24, 4, generator=GENERATOR), torch.arange(24) % 3
Y = torch.eye(3)[LABELS]
BATCHES = [(X[i : i + 6], Y[i : i + 6]) for i in range(0, 24, 6)]
chain = partial(builders.chain, 4, 6, 3, seed=0)


def train(net: pcgraph.PCNetwork, loader: Any = BATCHES, **more: Any) -> History:
    settings: dict[str, Any] = {
        "init": pcgraph.Forward(), "steps": 2, "state_optimizer": pcgraph.SGD(lr=0.1), "progress": False,
    }  # fmt: skip
    settings |= more
    if "optimizer" not in settings:
        settings["optimizer"] = torch.optim.AdamW(net.parameters(), lr=0.01)
    return fit(net, loader, **settings)


def parameters(net: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def test_no_module_of_the_room_leans_on_a_later_one() -> None:
    """Under TYPE_CHECKING as little as elsewhere: each can then be read with those before it alone."""
    listed = re.search(r"later one: ([\w, \n]+)\.", pcgraph.training.__doc__)[1].replace("\n", " ").split(", ")
    room = Path(pcgraph.training.__file__).parent
    assert {path.stem for path in room.glob("*.py")} == {"__init__", *listed}
    for i, name in enumerate(listed):
        imported = set(
            re.findall(r"pcgraph\.training\.(\w+) import", (room / f"{name}.py").read_text(encoding="utf-8"))
        )
        assert imported <= set(listed[:i]), (name, imported)


# -- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clamp", "batch", "labels"),
    [
        (("x", "y"), (X, Y), False),
        (("x", "y"), [X, Y], False),
        (("x", "y"), (X, LABELS), False),
        (("x", "y"), (X, LABELS.int()), False),
        (("x", "y"), (X, Y, LABELS), True),
        (("x", "y"), (X.double(), Y.half()), False),
        (("y", None, "x"), (Y, "unused", X), False),
        (("x", "y", "labels"), (X, Y, LABELS), True),
        (("x", "y"), {"y": LABELS, "x": X}, False),
        ("x", {"y": LABELS, "x": X, "labels": LABELS}, True),
        (("x", "y"), (X.numpy(), LABELS.numpy()), False),
    ],
)
def test_every_form_of_a_batch_means_the_same(clamp: Any, batch: Any, labels: bool) -> None:
    """A user's loader, whatever it yields, is read as it was meant."""
    net = chain()
    found = read_batch(net, batch, check_names(net, clamp, "clamp"))
    assert found.clamps.keys() == {"x", "y"}
    assert torch.equal(found.clamps["x"], X)
    assert torch.equal(found.clamps["y"], Y)
    assert (found.labels is not None and torch.equal(found.labels, LABELS)) if labels else found.labels is None
    assert found.size == 24


def test_a_tensor_alone_and_a_masked_one_are_batches() -> None:
    net = chain()
    assert torch.equal(read_batch(net, X, check_names(net, "x", "clamp")).clamps["x"], X)
    masked = read_batch(net, {"x": pcgraph.Masked(X.double(), X > 0)}, ("x",)).clamps["x"]
    assert masked.values.dtype == torch.float32
    assert torch.equal(masked.mask, X > 0)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ((X, LABELS + 1), "label 3 is out of range: 'y' has 3 neurons, so classes are 0 to 2"),
        ((X, LABELS - 1), "label -1 is out of range"),
        (X, r"one entry for each of \('x', 'y'\) \(found one Tensor\)"),
        ((X,), r"one entry for each of \('x', 'y'\).*found 1 entries"),
        ((X, Y, Y), "found 3 entries"),
        ((X, Y, LABELS, LABELS), "found 4 entries"),
        (3, r"a tuple of tensors or a mapping node -> tensor \(found int\)"),
        ((X, [0, 1]), r"a tensor for 'y' \(found list\)"),
        ({"x": X, "z": Y}, "no node 'z'"),
        ({"labels": LABELS}, "clamps no node"),
        ({"x": X, "labels": Y}, r"labels are whole numbers of shape \(batch,\)"),
        ((X.view(24, 2, 2), Y), r"needs shape \(batch, 4\).*reshape"),
        ((X.int(), Y), "needs dtype"),
        ((X, Y[:5]), "one batch size"),
        ((X * math.nan, Y), "must be finite"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(batch: Any, says: str) -> None:
    """Before anything is learned from it."""
    net = chain()
    before = parameters(net)
    with pytest.raises(ClampError, match=says):
        train(net, [batch])
    assert all(map(torch.equal, before, parameters(net)))


@pytest.mark.parametrize("clamp", [("x", "x"), (None,), ()])
def test_names_that_name_nothing_are_refused(clamp: Any) -> None:
    with pytest.raises(ConfigError, match="clamp= names one node for each entry"):
        train(chain(), clamp=clamp)


def test_a_node_called_labels_is_a_node() -> None:
    graph = pcgraph.graphs.chain([4, 3])
    net = pcgraph.PCNetwork(nx.relabel_nodes(graph, {"y": "labels"}))
    found = read_batch(net, (X, LABELS), check_names(net, ("x", "labels"), "clamp"))
    assert found.labels is None
    assert torch.equal(found.clamps["labels"], Y)


def test_labels_reach_the_initializer() -> None:
    """Average(by=None) knows the classes from nowhere else."""
    net, init = chain(), pcgraph.Average(by=None, classes=3)
    train(net, [(X, Y, LABELS)], init=init)
    assert torch.equal(init.recall("seen"), torch.ones(3, dtype=torch.bool))  # type: ignore[arg-type]


# -- fit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1, "amsgrad": True}])
def test_fit_is_the_loop_that_one_writes_by_hand(settings: dict[str, Any]) -> None:
    """Measuring, validating and watching change nothing of what is learned."""
    one, two = chain(), chain()
    history = train(
        one, epochs=3, validate=BATCHES, measure_every=1,
        optimizer=torch.optim.AdamW(one.parameters(), lr=0.01, **settings),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(two.parameters(), lr=0.01, **settings)
    init, state, energies, accuracies = pcgraph.Forward(), pcgraph.SGD(lr=0.1), [], []
    for _ in range(3):
        for x, y in BATCHES:
            accuracies.append(float((two.predict({"x": x}, "y").argmax(1) == y.argmax(1)).float().mean()))
            result = two.infer({"x": x, "y": y}, init=init, steps=2, optimizer=state)
            energies.append(float(result.energy.mean()))
            optimizer.zero_grad()
            result.backward()
            optimizer.step()
    assert all(map(torch.equal, parameters(one), parameters(two)))
    assert [r.energy for r in history.steps] == energies
    assert [r.accuracy for r in history.steps] == pytest.approx(accuracies)
    assert [r.energy for r in history] == pytest.approx([math.fsum(energies[i : i + 4]) / 4 for i in (0, 4, 8)])
    assert [(r.epoch, r.step, r.samples) for r in history] == [(1, 4, 24), (2, 8, 24), (3, 12, 24)]
    assert history.stopped == "finished"


def test_measuring_costs_nothing_in_the_steps_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's step is all that a step may cost but for the first, every eighth and the last of an epoch."""
    net, calls = chain(), []
    real = net.predict
    monkeypatch.setattr(net, "predict", lambda *a, **k: calls.append(1) or real(*a, **k))
    history = train(net, BATCHES * 10, epochs=2, measure_every=8)
    first = [1, 9, 17, 25, 33, 40]
    assert [r.step for r in history.steps] == [*first, *(40 + step for step in first)]
    assert len(calls) == 12


@pytest.mark.parametrize(
    ("batches", "steps"), [(1, [1]), (4, [1, 2, 3, 4]), (11, [1, 3, 5, 7, 9, 11]), (20, [1, 5, 9, 13, 17, 20])]
)
def test_a_short_epoch_is_measured_often_enough(batches: int, steps: list[int]) -> None:
    """Two looks at an epoch of twenty steps would be no mean, and would miss what it came to."""
    assert [r.step for r in train(chain(), (BATCHES * 5)[:batches]).steps] == steps


def test_a_stream_without_a_length_is_measured_as_asked_and_has_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """A DataLoader over an IterableDataset has a __len__ that raises."""

    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter([(X[i], Y[i]) for i in range(24)])

    history = train(chain(), DataLoader(Stream(), 3), measure_every=3, progress=True)
    assert [r.step for r in history.steps] == [1, 4, 7]
    assert "epoch 1/1: 8batch" in capsys.readouterr().err


def test_no_accuracy_is_told_where_there_is_none() -> None:
    """Of a generative model, of a target that is no class, of a graph without a sweep."""
    decoder = pcgraph.PCNetwork(pcgraph.graphs.decoder([2, 5, 4]))
    history = train(decoder, [X], clamp="x", init=pcgraph.Forward(roots=pcgraph.Zero()))
    assert [r.accuracy for r in history.steps] == [None]
    assert [r.accuracy for r in train(chain(), [(X, torch.randn(24, 3))]).steps] == [None]
    graph = pcgraph.graphs.chain([4, 6, 3])
    graph.add_edge("h1", "h1")
    history = train(pcgraph.PCNetwork(graph), init=pcgraph.Zero())
    assert [r.accuracy for r in history.steps] == [None] * 4
    assert history.epochs[0].energy is not None


def test_what_the_initializer_learns_is_trained_along() -> None:
    net = pcgraph.PCNetwork(pcgraph.graphs.decoder([2, 5, 4]))
    memory = pcgraph.Memory(net, nodes=["h0"], patterns=4, heads=2, embed_dim=8, beta=2.0)
    optimizer = torch.optim.AdamW([*net.parameters(), *memory.parameters()], lr=0.01)
    before = parameters(memory)
    train(net, [X] * 3, clamp="x", init=pcgraph.Forward(roots=memory), optimizer=optimizer)
    assert not any(map(torch.equal, before, parameters(memory)))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"optimizer": pcgraph.SGD(lr=0.1)}, ConfigError, "one of torch.optim .*goes to state_optimizer="),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, ConfigError, "none of the network's parameters"),
        ({"state_optimizer": None}, ConfigError, "2 inference steps need .* state_optimizer=pcgraph.*found None"),
        ({"state_optimizer": torch.optim.SGD([torch.zeros(1)])}, ConfigError, "state_optimizer=.*torch.optim.SGD"),
        ({"scheduler": 0.1}, ConfigError, r"scheduler= is one of torch\.optim\.lr_scheduler.*found 0\.1"),
        ({"loader": (X, Y)}, ClampError, r"found one Tensor\).*\[\(x, y\)\] is a loader"),
        ({"epochs": 0}, ConfigError, "epochs must be a positive integer"),
        ({"epochs": True}, ConfigError, "epochs must be a positive integer"),
        ({"measure_every": 0}, ConfigError, "measure_every must be a positive integer"),
        ({"steps": -1}, ConfigError, "steps must be an integer that is not negative"),
        ({"clamp": ("x", "why")}, ClampError, "no node 'why'"),
        ({"predict": "z"}, Exception, "no node 'z'"),
        ({"init": "forward"}, InvalidInitializer, "needs a pcgraph initializer"),
        ({"scheduler_each": "day"}, ConfigError, "scheduler_each must be 'epoch' or 'step'"),
        ({"log": "log.txt"}, ConfigError, r"ends in \.csv or \.jsonl"),
        ({"loader": []}, ConfigError, "the loader is empty"),
        ({"loader": iter(BATCHES), "epochs": 2}, ConfigError, r"2 epochs need a loader .*found a list_iterator"),
        ({"clamp": "x", "loader": [X], "validate": [X]}, ConfigError, "needs to know what to predict"),
        ({"early_stopping": EarlyStopping(metric="loss")}, ConfigError, r"metric 'loss' \(found accuracy, energy\)"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        train(chain(), **{"epochs": 2 if "early_stopping" in settings else 1, **settings})


def test_a_generator_is_good_for_one_epoch() -> None:
    assert len(train(chain(), iter(BATCHES))) == 1


def test_a_batch_of_another_size_under_null_is_refused_and_the_run_is_saved(tmp_path: Path) -> None:
    """Null has no slots for it; what was learned before is not lost."""
    one, two = chain(), chain()
    with pytest.raises(ConfigError, match=r"every batch needs its size 6 \(found 4\)") as caught:
        train(one, [*BATCHES, (X[:4], Y[:4])], init=pcgraph.Null(first=pcgraph.Zero()), checkpoint=tmp_path)
    assert "after training step 4" in caught.value.__notes__[0]
    train(two, init=pcgraph.Null(first=pcgraph.Zero()))
    assert all(map(torch.equal, parameters(one), parameters(two)))
    assert all(map(torch.equal, parameters(pcgraph.load(tmp_path).net), parameters(two)))


def test_a_run_that_diverges_leaves_all_as_it_was_before_that_step(tmp_path: Path) -> None:
    """Parameters, optimizer, initializer; the history tells, the error is ours."""
    one, two = chain(), chain()
    inits = [pcgraph.Average(by="y"), pcgraph.Average(by="y")]
    optimizers = [torch.optim.AdamW(net.parameters(), lr=0.01) for net in (one, two)]
    huge = [*BATCHES, (X[:6] * 1e30, Y[:6] * 1e30)]
    with pytest.raises(Diverged, match="no longer finite") as caught:
        train(one, huge, init=inits[0], optimizer=optimizers[0], checkpoint=tmp_path)
    history = caught.value.history  # type: ignore[attr-defined]
    assert history.stopped.startswith("Diverged: the energy is no longer finite")
    assert len(history.steps) == 4
    train(two, init=inits[1], optimizer=optimizers[1])
    assert all(map(torch.equal, parameters(one), parameters(two)))
    assert all(torch.equal(a, b) for a, b in zip(inits[0].state_dict().values(), inits[1].state_dict().values()))
    states = [o.state_dict()["state"] for o in optimizers]
    assert all(torch.equal(states[0][i][k], states[1][i][k]) for i in states[1] for k in states[1][i])
    assert pcgraph.load(tmp_path).step == 4


def test_without_checks_a_diverged_run_is_seen_at_the_next_measurement() -> None:
    huge = [*BATCHES, *[(X[:6] * 1e30, Y[:6] * 1e30)] * 16]
    with pytest.raises(Diverged, match="in training step 9;.*check=True"):
        train(chain(), huge * 2, check=False, measure_every=8)


# -- callbacks, progress, logs ----------------------------------------------------------------------------------------


def test_callbacks_get_a_record_a_step_and_epoch() -> None:
    told: list[Any] = []
    energies: list[float] = []

    def look(record: Any) -> None:
        told.append(record)
        if record.kind == "step":
            energies.append(float(record.result.energy.mean()))

    history = train(chain(), BATCHES * 4, epochs=2, callbacks=[look], measure_every=3)
    assert [r.kind for r in told] == (["step"] * 16 + ["epoch"]) * 2
    assert [r.step for r in told if isinstance(r, StepRecord)] == list(range(1, 33))
    assert [r.energy is not None for r in told[:5]] == [True, False, False, True, False]
    assert [r for r in told if isinstance(r, EpochRecord)] == history.epochs
    assert energies[0] == told[0].energy
    assert all(r.result is None for r in history.steps)
    with pytest.raises(AttributeError):
        told[0].energy = 3


def test_nothing_of_a_step_lives_longer_than_the_step() -> None:
    """Its states, and with them the engine's buffers, would be held for the whole of the next."""
    results: list[weakref.ref[Any]] = []
    batches: list[weakref.ref[Any]] = []

    def drawn() -> Iterator[Any]:
        for x, y in BATCHES:
            assert not [ref for ref in (*results, *batches) if ref() is not None]
            item = {"x": x.clone(), "y": y}
            batches.append(weakref.ref(item["x"]))
            yield item
            del item

    def look(record: Any) -> None:
        if record.kind == "step":
            results.append(weakref.ref(record.result))

    train(chain(), drawn(), callbacks=look)
    assert len(results) == len(batches) == 4


@pytest.mark.parametrize(("at", "epochs"), [("step", 0), ("epoch", 1)])
def test_a_callback_may_end_the_run(at: str, epochs: int) -> None:
    history = train(chain(), epochs=3, callbacks=lambda record: record.kind == at)
    assert (history.stopped, len(history)) == ("callback", epochs)


def test_a_callback_that_returns_something_else_does_not_end_the_run() -> None:
    assert train(chain(), callbacks=lambda record: 1).stopped == "finished"


def test_the_bar_shows_energy_accuracy_and_speed(capsys: pytest.CaptureFixture[str]) -> None:
    train(chain(), epochs=2, validate=BATCHES, progress=True)
    shown = capsys.readouterr().err
    for wanted in ("epoch 1/2", "epoch 2/2", "4/4", "batch", "energy=", "accuracy=", "val accuracy="):
        assert wanted in shown
    train(chain(), epochs=2, validate=BATCHES)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_log_has_what_the_history_has(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "deep" / f"log.{kind}"
    values = iter([{"accuracy": 0.5}, {"accuracy": 0.6, "other, one": 2.0}])
    history = train(chain(), epochs=2, validate=lambda net: next(values), log=path)
    text = path.read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines())) if kind == "csv" else [json.loads(r) for r in text.splitlines()]
    assert [r["kind"] for r in rows] == ["step", "step", "step", "step", "epoch"] * 2
    steps = [r for r in rows if r["kind"] == "step"]
    assert [float(r["energy"]) for r in steps] == [r.energy for r in history.steps]
    assert [int(r["step"]) for r in steps] == list(range(1, 9))
    epochs = [r for r in rows if r["kind"] == "epoch"]
    assert [float(r["validation_accuracy"]) for r in epochs] == [0.5, 0.6]
    assert float(epochs[1]["validation_other, one"]) == 2.0
    assert not epochs[0].get("validation_other, one")
    train(chain(), log=path)
    assert len(path.read_text(encoding="utf-8").splitlines()) == (6 if kind == "csv" else 5)


@pytest.mark.parametrize("name", ["\ud800", "a\x0bb", "\u2028", "a\r", 'a,\n"b', "\x00", ""])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_log_takes_a_metric_of_any_name(tmp_path: Path, kind: str, name: str) -> None:
    """A run must not be lost for what one of its numbers is called."""
    path = tmp_path / f"log.{kind}"
    values = iter([{"accuracy": 0.5}, {name: 2.0}, {name: 3.0}, {"last": 1.0}])
    train(chain(), epochs=4, validate=lambda net: next(values), log=path)
    with open(path, encoding="utf-8", errors="surrogatepass", newline="") as stream:
        rows = list(csv.DictReader(stream)) if kind == "csv" else [json.loads(line) for line in stream]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [float(row.get(f"validation_{name}") or 0) for row in epochs] == [0, 2.0, 3.0, 0]
    assert [float(row.get("validation_last") or 0) for row in epochs] == [0, 0, 0, 1.0]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_resumed_log_is_that_of_a_run_never_stopped(tmp_path: Path, kind: str) -> None:
    """Rows after the checkpoint, and one that was cut off, are made again and come once."""
    logs = [tmp_path / f"{name}.{kind}" for name in "ab"]
    train(chain(), epochs=3, log=logs[0], measure_every=1)
    part = {"log": logs[1], "measure_every": 1, "checkpoint": tmp_path / "c"}
    train(chain(), epochs=1, **part)
    logs[1].write_text(
        logs[1].read_text(encoding="utf-8") + logs[1].read_text(encoding="utf-8").splitlines()[-1] + "\nstep,1",
        encoding="utf-8",
    )
    train(chain(), epochs=3, resume=tmp_path / "c", **part)

    def timeless(path: Path) -> list[Any]:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = list(csv.DictReader(lines)) if kind == "csv" else [json.loads(line) for line in lines]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in found]

    assert timeless(logs[0]) == timeless(logs[1])


def test_a_log_that_cannot_be_written_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    net = chain()
    before = parameters(net)
    with pytest.raises(DataError, match="the log .* cannot be written"):
        train(net, log=tmp_path / "file" / "log.csv")
    assert all(map(torch.equal, before, parameters(net)))


def test_tensorboard_gets_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0, 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    history = train(chain(), tensorboard=tmp_path, validate=lambda net: 0.5)
    assert ("step/energy", history.steps[0].energy, 1) in written
    assert ("epoch/validation_value", 0.5, 4) in written
    assert written[-1][0] == "closed"


def test_without_tensorboard_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        train(chain(), tensorboard=tmp_path)


# -- schedulers, early stopping, warnings -----------------------------------------------------------------------------


def test_schedulers_step_when_they_should() -> None:
    net = chain()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    history = train(net, epochs=3, optimizer=optimizer, scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5))
    assert [r.lr for r in history] == [1.0, 0.5, 0.25]
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    halving = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    history = train(net, optimizer=optimizer, scheduler=[halving], scheduler_each="step", measure_every=1)
    assert [r.lr for r in history.steps] == [1.0, 0.5, 0.25, 0.125]
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(ConfigError, match="ReduceLROnPlateau follows the epochs"):
        train(net, optimizer=optimizer, scheduler=plateau, scheduler_each="step")


def test_a_plateau_is_that_of_the_metric() -> None:
    values = iter([0.5, 0.6, 0.5, 0.6, 0.5])
    net = chain()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, factor=0.5)
    settings: dict[str, Any] = {"optimizer": optimizer, "scheduler": plateau, "epochs": 5}
    history = train(net, validate=lambda net: {"accuracy": next(values)}, metric="accuracy", **settings)
    assert [r.lr for r in history] == [1.0, 1.0, 1.0, 0.5, 0.25]
    with pytest.raises(ConfigError, match="needs the metric 'loss'"):
        train(net, metric="loss", **settings)


@pytest.mark.parametrize(
    ("values", "settings", "epochs"),
    [
        ([0.1, 0.2, 0.2, 0.1, 0.9, 0.9], {"patience": 2}, 4),
        ([0.1, 0.2, 0.1, 0.3, 0.3, 0.3], {"patience": 2}, 6),
        ([0.5, 0.4, 0.3, 0.3, 0.3, 0.1], {"patience": 2, "largest": False}, 5),
        ([0.5, 0.58, 0.62, 0.7, 0.73, 0.8], {"patience": 2, "change": 0.1}, 6),
        ([0.5, 0.52, 0.54, 0.56, 0.58, 0.9], {"patience": 2, "change": 0.1}, 3),
        ([math.nan, math.nan, 0.1, 0.2, 0.3, 0.4], {"patience": 3}, 6),
    ],
)
def test_early_stopping_bears_as_many_epochs_as_it_should(
    values: list[float], settings: dict[str, Any], epochs: int
) -> None:
    told = iter(values)
    stopping = EarlyStopping(metric="score", **({"largest": True} | settings))
    history = train(chain(), epochs=6, validate=lambda net: {"score": next(told)}, early_stopping=stopping)
    assert len(history) == epochs
    assert history.stopped == ("finished" if epochs == 6 else "early stopping")


@pytest.mark.parametrize(("key", "value"), [("patience", 0), ("patience", 1.5), ("change", -1.0), ("change", math.nan)])
def test_early_stopping_without_sense_is_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        EarlyStopping(**{key: value})  # type: ignore[arg-type]


def test_a_run_that_falls_over_is_told_with_advice() -> None:
    """The accuracies are of two such runs, and of one that is merely noisy."""
    bad = iter([0.80, 0.85, 0.8819, 0.809])
    with pytest.warns(PCGraphWarning, match=r"fell to 80\.90% in epoch 4, from 88\.19%.*smaller or a decaying") as told:
        history = train(chain(), epochs=4, validate=lambda net: {"accuracy": next(bad)})
    assert [r.fell for r in history] == [False, False, False, True]
    assert history.warnings == [str(told[0].message)]
    assert told[0].filename == __file__
    noisy = iter([0.80, 0.85, 0.83, 0.86, 0.84, 0.88, 0.87])
    assert not any(r.fell for r in train(chain(), epochs=7, validate=lambda net: {"accuracy": next(noisy)}))


def test_a_run_that_lies_is_told_once_and_again_when_it_has_stood_up_and_falls_over_again() -> None:
    """A warning for each of the epochs that a run lies would bury what else is said."""
    values = [0.85, 0.88, 0.5, 0.4, 0.3, 0.88, 0.87, 0.2, 0.1]
    told = iter(values)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = train(chain(), epochs=len(values), validate=lambda net: {"accuracy": next(told)})
    assert [r.fell for r in history] == [value <= 0.5 for value in values]
    said = [str(warning.message) for warning in caught if "fallen over" in str(warning.message)]
    assert said == history.warnings
    assert ["epoch 3," in said[0], "epoch 8," in said[1], len(said)] == [True, True, 2]


def test_a_state_rate_above_the_safe_one_is_told_once() -> None:
    """Training on states that ran away from the energy's minimum is silent nonsense."""
    with pytest.warns(PCGraphWarning, match=r"inference increased the energy ×.*lr=5.*pcgraph\.safe_rate") as told:
        history = train(chain(), steps=5, state_optimizer=pcgraph.SGD(lr=5.0), epochs=2, measure_every=1)
    assert len(told) == len(history.warnings) == 1
    assert told[0].filename == __file__
    assert not train(chain(), steps=5, measure_every=1).warnings


def test_a_validation_without_a_sweep_is_refused_before_the_first_step() -> None:
    """It would otherwise cost a whole epoch to learn it."""
    graph = pcgraph.graphs.chain([4, 6, 3])
    graph.add_edge("h1", "h1")
    net = pcgraph.PCNetwork(graph, seed=0)
    before = parameters(net)
    with pytest.raises(InvalidInitializer, match=r"validation on a loader .*h1 → h1.*init= and steps="):
        train(net, init=pcgraph.Zero(), validate=BATCHES)
    assert all(map(torch.equal, before, parameters(net)))


def test_people_count_epochs_from_one() -> None:
    """The bar, the command and checkpoints do; a record that is printed would otherwise name another epoch."""
    told: list[tuple[str, int]] = []
    history = train(
        chain(),
        BATCHES[:2],
        epochs=2,
        measure_every=1,
        callbacks=lambda record: told.append((record.kind, record.epoch)),
    )
    assert [str(record).split(",")[0] for record in history] == ["epoch 1", "epoch 2"]
    assert [record.epoch for record in history.steps] == [1, 1, 2, 2]
    assert told == [(kind, epoch) for epoch in (1, 2) for kind in ("step", "step", "epoch")]


def test_a_rising_energy_is_a_fall_where_there_is_no_accuracy() -> None:
    watch = CollapseDetector()
    assert [bool(watch.see(0, None, energy)) for energy in (4.0, 2.0, 3.9, 4.1)] == [False, False, False, True]
    watch = CollapseDetector()
    assert [bool(watch.see(0, 0.9, energy)) for energy in (4.0, 2.0, 30.0)] == [False] * 3


def test_what_chance_does_to_few_samples_is_no_fall() -> None:
    """One wrong answer of six, after an epoch without one, says nothing of the run; that all are wrong does."""
    for samples, accuracy, fell in ((6, 5 / 6, False), (6000, 5 / 6, True), (6, 0.0, True)):
        watch = CollapseDetector()
        assert not watch.see(1, 1.0, None, samples)
        assert bool(watch.see(2, accuracy, None, samples)) is fell


def test_gradients_below_eps_are_told() -> None:
    """From forward initialization they scale like the state rate to the power of the distance from the target."""
    sizes, double = (4, 6, 6, 6, 3), torch.float64  # in float32 a state does not move by so little at all
    net = builders.chain(*sizes, seed=0, dtype=double)
    settings: dict[str, Any] = {"steps": 4, "state_optimizer": pcgraph.SGD(lr=1e-3), "epochs": 2}
    with pytest.warns(PCGraphWarning, match=r"eps=1e-08, so that .* hardly learn: 'x' -> 'h1' \(") as told:
        history = train(net, **settings)
    assert len(told) == len(history.warnings) == 1
    advice = r"larger state rate.*more inference steps.*smaller eps .* can be better or worse"
    assert re.search(advice, history.warnings[0])
    net = builders.chain(*sizes, seed=0, dtype=double)
    assert train(net, optimizer=torch.optim.AdamW(net.parameters(), eps=1e-30), **settings).warnings == []
    assert train(net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), **settings).warnings == []


def test_a_state_that_rounding_keeps_in_its_place_is_told() -> None:
    """The gradient is then exactly zero in float32, and no smaller eps would help, and no other optimizer."""
    settings: dict[str, Any] = {"steps": 4, "state_optimizer": pcgraph.SGD(lr=1e-4), "epochs": 2}
    for optimizer in (partial(torch.optim.AdamW, eps=1e-30), partial(torch.optim.SGD, lr=0.1)):
        net = builders.chain(4, 6, 6, 6, 3, seed=0)
        says = r"node 'h1' gets no signal: .* from step 3 on, .* of 'x' -> 'h1' .*float32.*dtype=torch\.float64"
        with pytest.warns(PCGraphWarning, match=says) as told:
            train(net, optimizer=optimizer(net.parameters()), **settings)
        assert len(told) == 1


def test_weights_that_no_error_reaches_are_told_with_the_steps_that_it_takes() -> None:
    """From a sweep the error moves one edge a step: with fewer the first layers never learn, and nothing shows it."""
    sizes = (4, 6, 6, 6, 3)
    net, before = builders.chain(*sizes, seed=0), parameters(builders.chain(*sizes, seed=0))
    sgd = {"optimizer": torch.optim.SGD(net.parameters(), lr=0.1)}
    says = r"1 inference step brings no error to the weights of 'x' -> 'h1', 'h1' -> 'h2'.*give steps=3 or more"
    with pytest.warns(PCGraphWarning, match=says) as told:
        history = train(net, steps=1, epochs=2, **sgd)
    assert len(told) == len(history.warnings) == 1
    assert torch.equal(net.weight("x", "h1"), builders.chain(*sizes, seed=0).weight("x", "h1"))
    assert not all(map(torch.equal, before, parameters(net)))
    assert train(builders.chain(*sizes, seed=0), steps=3).warnings == []
    for init in (pcgraph.Zero(), pcgraph.Average(by="y")):  # Average begins by a sweep, in the first batch alone
        assert train(builders.chain(*sizes, seed=0), steps=1, init=init).warnings == []


def unreached_by_a_longer_plan(net: pcgraph.PCNetwork, plan: Plan) -> tuple[list[str], int]:
    """The definition: which weights a plan of as many more steps as there are nodes reaches, and since when."""
    s = plan.structure
    longer = make_plan(s, replace(plan.request, steps=plan.steps + len(s.nodes)), plan.layout)
    now, then = ({int(e) for e in p.learn.edges} for p in (plan, longer))
    late = sorted(then - now)
    needed = [next(t for t, z in enumerate(longer.flow.errors) if z[s.target[e]]) for e in late]
    return ["{!r} -> {!r}".format(*s.edge(e)[:2]) for e in late], max(needed, default=plan.steps)


@settings(max_examples=100, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=8, max_size=2, parallel=True, priors=True)),
    init=st.sampled_from([pcgraph.Zero(), pcgraph.Forward(fallback=pcgraph.Zero())]),
    steps=st.integers(0, 4),
    fixes_zero=st.booleans(),
    drawn=st.sets(st.integers(0, 7)),
    narrow=st.booleans(),
)
def test_what_no_error_reaches_is_what_a_longer_plan_reaches(
    problem: Problem, init: Any, steps: int, fixes_zero: bool, drawn: set[int], narrow: bool
) -> None:
    """Also where something pulls from outside, where only some nodes matter, and for optimizers that move anything."""
    net = pcgraph.PCNetwork(problem.graph)
    first = net.plan(problem.clamped, init=init, steps=steps)
    request = first.request
    some = frozenset(i for i in drawn if i < len(net.structure.nodes))
    free = some - request.clamped
    changed: dict[str, Any] = {"only": free} if narrow else {"nudged": free}
    plan = make_plan(net.structure, replace(request, fixes_zero=fixes_zero, **changed), first.layout)
    assert unreached(net, plan) == unreached_by_a_longer_plan(net, plan)


def test_what_no_error_reaches_in_a_deep_chain_is_found_at_once() -> None:
    """By plans of as many steps as there are groups it took minutes of work for one warning."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([1] * 10_000))
    plan = net.plan({"x", "y"}, init=pcgraph.Forward(), steps=3)
    began = time.process_time()
    names, needed = unreached(net, plan)
    assert time.process_time() - began < 2.0
    assert (len(names), names[0], needed) == (9995, "'x' -> 'h1'", 9998)


def test_what_no_number_of_steps_would_reach_is_not_told() -> None:
    """A node that nothing is asked of has no error, and that is what was declared; frozen weights are not to learn."""
    graph = pcgraph.graphs.chain([4, 6, 6, 3], activation="tanh")
    graph.add_node("aside", shape=2)
    graph.add_edge("x", "aside")
    assert train(pcgraph.PCNetwork(graph, seed=0)).warnings == []
    graph.edges["x", "h1"]["trainable"] = False
    assert train(pcgraph.PCNetwork(graph, seed=0), steps=1).warnings == []


def test_the_best_epoch_is_found() -> None:
    history = History(epochs=[
        EpochRecord(i + 1, i, 1, energy, None, 0.1, 0.0, {"accuracy": accuracy})
        for i, (energy, accuracy) in enumerate([(3.0, 0.5), (1.0, 0.7), (2.0, 0.7)])
    ])  # fmt: skip
    assert history.best("accuracy") is history.epochs[1]
    assert history.best("energy") is history.epochs[1]
    assert history.best("accuracy", largest=False) is history.epochs[0]
    assert history.best("other") is None
    assert history.values("accuracy") == [0.5, 0.7, 0.7]


@pytest.mark.parametrize(
    ("validate", "found"),
    [
        (lambda net: 0.5, {"value": 0.5}),
        (lambda net: torch.tensor(0.5), {"value": 0.5}),
        (lambda net: {"a": 1, "b": np.float32(2)}, {"a": 1.0, "b": 2.0}),
        (lambda net: Evaluation(None, 2.0, 1.0, 3), {"squared_error": 2.0, "energy": 1.0}),
    ],
)
def test_validation_may_return_what_it_likes(validate: Any, found: dict[str, float]) -> None:
    assert train(chain(), validate=validate).epochs[0].validation == found


def test_validation_on_a_loader_is_evaluate() -> None:
    net = chain()
    record = train(net, validate=DataLoader(TensorDataset(X, LABELS), 5)).epochs[0]
    result = evaluate(net, BATCHES)
    assert record.validation["accuracy"] == result.accuracy
    assert record.validation["squared_error"] == pytest.approx(result.squared_error, rel=1e-6)


# -- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_is_the_formula() -> None:
    net = chain()
    prediction = net.predict({"x": X}, "y")
    found = evaluate(net, [(X[:5], LABELS[:5]), {"y": Y[5:], "x": X[5:]}])
    assert found.accuracy == float((prediction.argmax(1) == LABELS).double().mean())
    assert found.squared_error == pytest.approx(float((Y - prediction).square().sum(1).mean()), rel=1e-6)
    assert found.energy == pytest.approx(found.squared_error / 2, rel=1e-6)
    assert (found.samples, str(found).split(",")[0]) == (24, f"accuracy {found.accuracy:.2%}")


def test_the_energy_is_that_of_the_node() -> None:
    """Cross entropy, and a precision, against torch's own."""
    graph = pcgraph.graphs.chain([4, 6, 3])
    graph.nodes["y"]["energy"] = "cross_entropy"
    net = pcgraph.PCNetwork(graph)
    wanted = torch.nn.functional.cross_entropy(net.predict({"x": X}, "y"), LABELS)
    assert evaluate(net, BATCHES).energy == pytest.approx(float(wanted), rel=1e-5)
    graph = pcgraph.graphs.chain([4, 6, 3])
    graph.nodes["y"]["precision"] = 4.0
    found = evaluate(pcgraph.PCNetwork(graph), BATCHES)
    assert found.energy == pytest.approx(2 * found.squared_error, rel=1e-6)


def test_targets_never_leak_into_their_prediction() -> None:
    """On a graph with feedback from the target a clamp on it would tell the answer."""
    graph = pcgraph.graphs.chain([4, 6, 3], activation="tanh")
    graph.add_edge("y", "h1")
    net = pcgraph.PCNetwork(graph, seed=0)
    with pytest.raises(InvalidInitializer, match="y"):
        evaluate(net, BATCHES)
    settings: dict[str, Any] = {"init": pcgraph.Zero(), "steps": 7, "optimizer": pcgraph.SGD(lr=0.1)}
    found = evaluate(net, BATCHES, **settings)
    state = net.infer({"x": X}, **settings).states["y"]
    assert found.accuracy == float((state.argmax(1) == LABELS).double().mean())
    assert found.squared_error == pytest.approx(float((Y - state).square().sum(1).mean()), rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": {"h1": 4.0, "y": 0.25}, "optimizer": pcgraph.SGD(lr=0.1)},
        {"coordinates": pcgraph.Errors(), "optimizer": pcgraph.SGD(lr=0.1)},
        {"tolerance": 0.9, "optimizer": pcgraph.SGD(lr=0.1)},
        {"optimizer": pcgraph.LBFGS()},
    ],
)
def test_evaluation_asks_as_inference_does(settings: dict[str, Any]) -> None:
    """Whatever `infer` takes to ask a network, a whole set is asked by, batch after batch."""
    net, init = chain(), pcgraph.Normal(std=0.5)
    found = evaluate(net, BATCHES, init=init, steps=4, **settings)
    state = torch.cat([net.infer({"x": x}, init=init, steps=4, **settings).states["y"] for x, _ in BATCHES])
    assert found.squared_error == pytest.approx(float((Y - state).square().sum(1).mean()), rel=1e-5)
    plain = evaluate(net, BATCHES, init=init, steps=4, optimizer=pcgraph.SGD(lr=0.1))
    assert found.squared_error != pytest.approx(plain.squared_error, rel=1e-6)


@pytest.mark.parametrize("init", [pcgraph.Normal(), pcgraph.Null(first=pcgraph.Zero())])
def test_evaluation_teaches_nothing(init: pcgraph.Initializer) -> None:
    """Neither weights nor initializer, in or out of training."""
    net, twin = chain(), chain()
    evaluate(net, BATCHES, init=init, steps=2, optimizer=pcgraph.SGD(lr=0.1))
    again = evaluate(net, BATCHES, init=init, steps=2, optimizer=pcgraph.SGD(lr=0.1))
    assert again == evaluate(net, BATCHES, init=init, steps=2, optimizer=pcgraph.SGD(lr=0.1))
    fresh = type(init)(first=pcgraph.Zero()) if isinstance(init, pcgraph.Null) else pcgraph.Normal()
    assert [*init.state_dict()] == [*fresh.state_dict()]
    assert all(torch.equal(a, b) for a, b in zip(init.state_dict().values(), fresh.state_dict().values()))
    assert all(p.grad is None for p in net.parameters())
    assert all(map(torch.equal, parameters(net), parameters(twin)))


def test_evaluation_leaves_the_mode_as_it_was() -> None:
    net = chain()
    modes: list[bool] = []
    evaluate(net, (modes.append(net.training) or batch for batch in BATCHES))  # type: ignore[func-returns-value]
    assert modes == [False] * 4
    assert net.training
    with pytest.raises(ClampError):
        evaluate(net, [(X, LABELS + 9)])
    assert net.training


def test_targets_that_are_no_classes_have_no_accuracy() -> None:
    found = evaluate(chain(), [(X, Y * 2)])
    assert found.accuracy is None
    assert "accuracy" not in found.as_dict()
    assert str(found).startswith("squared error")


@pytest.mark.parametrize(
    ("loader", "settings", "error", "says"),
    [
        ([], {}, ConfigError, "the loader is empty"),
        ([(X, LABELS - 1)], {}, ClampError, "label -1 is out of range"),
        ([(X, Y[:, :2])], {}, ClampError, r"the targets of 'y' need shape \(batch, 3\)"),
        ([(X, Y[:3])], {}, ClampError, "the targets of 'y' need shape"),
        (TensorDataset(X, LABELS), {}, ClampError, r"found \(\)\); of a data set: images\.batches\(50\)"),
        ([{"x": X}], {}, ClampError, "targets of 'y' .found 'x'"),
        ([(X, Y)], {"predict": "x"}, ConfigError, "both given and predicted"),
        ([(X, Y)], {"predict": "z"}, ClampError, "no node 'z'"),
        ([(X, Y)], {"given": "z"}, ClampError, "no node 'z'"),
        ([(X, Y)], {"steps": 3}, ConfigError, "both init= and steps="),
        (
            [(X, Y)],
            {"precision": {"h1": 0.5}},
            ConfigError,
            "precision= is for inference, and without init=",
        ),
        ([(X, Y)], {"tolerance": 0.1}, ConfigError, "tolerance= is for inference"),
        ([(X, Y)], {"coordinates": pcgraph.Errors()}, ConfigError, "coordinates= is for inference"),
        ([(X, Y)], {"optimizer": 3}, ConfigError, "states are moved by a state optimizer"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    loader: Any, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        evaluate(chain(), loader, **settings)


# -- long runs --------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory that the process holds."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this system does not tell")


@pytest.mark.slow
def test_twenty_thousand_steps_take_no_more_memory(tmp_path: Path) -> None:
    """A week's run would end for want of it."""
    graph = pcgraph.graphs.chain([4, 6, 3], activation="tanh")
    graph.add_edge("y", "h1")
    graph.add_edge("h1", "h1")
    net = pcgraph.PCNetwork(graph, seed=0)
    sizes: list[int] = []

    def watch(record: Any) -> None:
        if record.kind == "step" and record.step % 1000 == 0:
            sizes.append(resident())

    init = pcgraph.Average(by="y", otherwise=pcgraph.Zero())
    history = train(net, BATCHES * 500, epochs=10, init=init, callbacks=watch, steps=3,
                    state_optimizer=pcgraph.SGD(lr=0.05), checkpoint=tmp_path, log=tmp_path / "log.csv")  # fmt: skip
    assert history.epochs[-1].step == 20_000
    assert max(sizes[2:]) <= 1.02 * sizes[2]
    planner = net._planner
    assert len(planner.plans) <= 3
    assert len(planner.reports) <= 3
    assert len(net.backend._spaces) <= 2
