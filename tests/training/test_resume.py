"""Runs that are stopped, killed or broken off, and go on. Oracle: the same run, never stopped, to the last bit."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import pcgraph
from pcgraph.data import Images, StreamAligned
from pcgraph.errors import CheckpointError, ConfigError, DataError, PCGraphWarning
from pcgraph.training import EarlyStopping, History
from tests import ROOT, builders
from tests.builders import timeless

GENERATOR = torch.Generator().manual_seed(5)
X, LABELS = torch.randn(36, 4, generator=GENERATOR), torch.arange(36) % 3
IMAGES = Images(X, LABELS)
ONE_HOT = torch.eye(3)[LABELS]


class Setting:
    """A run, made anew as a script makes it anew when it is started again."""

    def __init__(self, init: str = "average", loader: str = "batches", several: bool = False) -> None:
        self.net = builders.chain(4, 6, 5, 3, seed=0)
        self.init = self._init(init)
        self.optimizer = torch.optim.AdamW([*self.net.parameters(), *self.init.parameters()], lr=0.02)
        steps = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, gamma=0.7)
        warm = torch.optim.lr_scheduler.LinearLR(self.optimizer, total_iters=2)
        self.scheduler: Any = [steps, warm] if several else steps
        self.loader = LOADERS[loader]()

    def _init(self, name: str) -> pcgraph.Initializer:
        return {
            "forward": lambda: pcgraph.Forward(),
            "normal": lambda: pcgraph.Normal(std=0.3),
            "null": lambda: pcgraph.Null(first=pcgraph.Normal(std=0.1)),
            "average": lambda: pcgraph.Average(by="y", forward_depth=1),
            "memory": lambda: pcgraph.Memory(self.net, patterns=4, heads=2, embed_dim=8, beta=2.0),
        }[name]()

    def fit(self, **more: Any) -> History:
        settings: dict[str, Any] = {
            "init": self.init, "steps": 3, "optimizer": self.optimizer, "state_optimizer": pcgraph.SGD(lr=0.1),
            "epochs": 3, "scheduler": self.scheduler, "validate": IMAGES.batches(10, seed=9), "progress": False,
            "measure_every": 2,
        }  # fmt: skip
        if "resume" in more:
            settings["checkpoint"] = more["resume"]
        torch.manual_seed(99 if "resume" in more else 11)
        return pcgraph.fit(self.net, self.loader, **(settings | more))

    def numbers(self) -> dict[str, Tensor]:
        found = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        found |= {f"init.{k}": v for k, v in self.init.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        return found


class Augmented(TensorDataset):
    """Throws dice for every sample, as augmentation does."""

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        x, y = super().__getitem__(i)
        return x + 0.1 * torch.randn(4), y


def plain() -> TensorDataset:
    return TensorDataset(X, LABELS)


LOADERS: dict[str, Callable[[], Any]] = {
    "batches": lambda: IMAGES.batches(6, seed=3),
    "stream": lambda: IMAGES.batches(6, seed=3, stream_aligned=True),
    "list": lambda: [(X[i : i + 6], ONE_HOT[i : i + 6]) for i in range(0, 36, 6)],
    "global": lambda: DataLoader(plain(), 6, shuffle=True),
    "own": lambda: DataLoader(plain(), 6, shuffle=True, generator=torch.Generator().manual_seed(4)),
    "sampler": lambda: DataLoader(plain(), batch_sampler=StreamAligned(LABELS, 6, seed=2)),
    "dice": lambda: DataLoader(Augmented(X, LABELS), 6, shuffle=True),
    "workers": lambda: DataLoader(Augmented(X, LABELS), 6, shuffle=True, num_workers=2),
}


def same(a: Setting, b: Setting) -> bool:
    return builders.same(a.numbers(), b.numbers())


class Boom(Exception):
    """A user's callback goes wrong."""


def broken_off(folder: Path, at: int, **settings: Any) -> Setting:
    """A run with a callback that raises after step `at`."""

    def callback(record: Any) -> None:
        if record.kind == "step" and record.step == at:
            raise Boom

    run = Setting(**settings)
    with pytest.raises(Boom) as caught:
        run.fit(checkpoint=folder, callbacks=callback)
    assert f"as it was after training step {at}" in caught.value.__notes__[0]
    assert caught.value.history.stopped == "Boom: "
    return run


@pytest.mark.parametrize("init", ["forward", "normal", "null", "average", "memory"])
def test_every_initializer_goes_on_as_if_nothing_had_been(tmp_path: Path, init: str) -> None:
    """A callback that raises costs nothing: the run is saved, and resumed to the same bits."""
    whole, again = Setting(init), Setting(init)
    expected = whole.fit()
    broken_off(tmp_path, 9, init=init)
    found = again.fit(checkpoint=tmp_path, resume=tmp_path)
    assert same(whole, again)
    assert timeless(found) == timeless(expected)


@pytest.mark.parametrize("at", [1, 8, 12])
@pytest.mark.parametrize("loader", [name for name in LOADERS if name != "workers"])
def test_every_loader_goes_on_as_if_nothing_had_been(tmp_path: Path, loader: str, at: int) -> None:
    """Otherwise samples come twice or never, or with other dice. Step 12 is the last of the second epoch."""
    whole, again = Setting(loader=loader), Setting(loader=loader)
    expected = whole.fit()
    broken_off(tmp_path, at, loader=loader)
    found = again.fit(resume=tmp_path)
    assert same(whole, again)
    assert timeless(found) == timeless(expected)


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 12])
def test_a_loader_with_processes_goes_on_as_if_nothing_had_been(tmp_path: Path, at: int) -> None:
    whole, again = Setting(loader="workers"), Setting(loader="workers")
    whole.fit()
    broken_off(tmp_path, at, loader="workers")
    again.fit(resume=tmp_path)
    assert same(whole, again)


def test_a_loader_that_was_looked_into_before_is_resumed_rightly(tmp_path: Path) -> None:
    """Peeking at the first batch is what every notebook does."""
    for name in ("batches", "sampler"):
        whole, part, again = (Setting(loader=name) for _ in range(3))
        for run in (whole, part, again):
            next(iter(run.loader))
        whole.fit()
        part.fit(checkpoint=tmp_path / name, callbacks=lambda record: record.step == 8)
        again.fit(resume=tmp_path / name)
        assert same(whole, again), name


def test_several_schedulers_go_on(tmp_path: Path) -> None:
    whole, again = Setting(several=True), Setting(several=True)
    whole.fit(scheduler_each="step")
    part = Setting(several=True)
    part.fit(scheduler_each="step", checkpoint=tmp_path, callbacks=lambda record: record.step == 8)
    again.fit(scheduler_each="step", resume=tmp_path)
    assert same(whole, again)
    with pytest.raises(CheckpointError, match="other schedulers"):
        Setting().fit(resume=tmp_path)


def test_a_finished_run_goes_on_to_more_epochs(tmp_path: Path) -> None:
    whole, first, second = Setting(), Setting(), Setting()
    expected = whole.fit(epochs=4)
    first.fit(epochs=2, checkpoint=tmp_path)
    found = second.fit(epochs=4, checkpoint=tmp_path, resume=tmp_path)
    assert same(whole, second)
    assert timeless(found) == timeless(expected)
    third = Setting()
    says = r"nothing is left to do.* has 4 epochs, and epochs=4.*give epochs=5 or more"
    with pytest.warns(PCGraphWarning, match=says):
        again = third.fit(epochs=4, resume=tmp_path)
    assert timeless(again)[:3] == timeless(expected)[:3]
    assert same(whole, third)


def test_a_resumed_run_that_is_not_saved_is_told(tmp_path: Path) -> None:
    """Whoever kills it again begins where he began before, and wonders."""
    Setting().fit(epochs=1, checkpoint=tmp_path)
    says = r"resumed from .*nothing more of it will be saved: give checkpoint="
    with pytest.warns(PCGraphWarning, match=says) as told:
        history = Setting().fit(epochs=2, resume=tmp_path, checkpoint=None)
    assert [str(w.message) for w in told] == history.warnings
    assert told[0].filename == __file__
    assert pcgraph.load(tmp_path).epoch == 1


def test_an_initializer_that_the_optimizer_does_not_hold_is_told(tmp_path: Path) -> None:
    """Its memory would stay at its first fit for the whole run. In the history once, however often it is resumed."""
    run = Setting("memory")
    run.optimizer = torch.optim.AdamW(run.net.parameters(), lr=0.02)
    says = r"does not hold the parameters of Memory \(query, query_bias, key and 2 more\).*\[\*net\.parameters\(\)"
    with pytest.warns(PCGraphWarning, match=says):
        run.fit(epochs=1, checkpoint=tmp_path, scheduler=())
    run = Setting("memory")
    run.optimizer = torch.optim.AdamW(run.net.parameters(), lr=0.02)
    with pytest.warns(PCGraphWarning, match=says):
        history = run.fit(epochs=2, resume=tmp_path, scheduler=())
    assert len(history.warnings) == 1


def test_early_stopping_counts_on(tmp_path: Path) -> None:
    """Its patience is that of the whole run, and a run that was stopped so stays stopped."""
    values = [0.5, 0.6, 0.6, 0.55, 0.6, 0.9]

    def fit(run: Setting, **more: Any) -> History:
        return run.fit(
            validate=lambda net: {"accuracy": values[len(seen)]}, early_stopping=EarlyStopping(patience=3), epochs=6,
            callbacks=lambda r: seen.append(r) if r.kind == "epoch" else None, **more,
        )  # fmt: skip

    seen: list[Any] = []
    assert (len(fit(Setting())), len(seen)) == (5, 5)
    seen.clear()
    Setting().fit(validate=lambda net: {"accuracy": values[len(seen)]}, epochs=3, checkpoint=tmp_path,
                  callbacks=lambda r: seen.append(r) if r.kind == "epoch" else None)  # fmt: skip
    resumed = fit(Setting(), checkpoint=tmp_path, resume=tmp_path)
    assert (len(resumed), resumed.stopped, len(seen)) == (5, "early stopping", 5)
    with pytest.warns(PCGraphWarning, match="nothing is left to do.* has 5 epochs, and early stopping has ended it"):
        again = fit(Setting(), resume=tmp_path)
    assert (len(again), again.stopped, len(seen)) == (5, "early stopping", 5)


@pytest.mark.parametrize("log", [None, "log.csv", "log.jsonl"])
def test_a_disk_that_fills_up_ends_the_run_and_leaves_what_was_saved(tmp_path: Path, log: str | None) -> None:
    """The error says which file; the checkpoint before it is whole, and the log is completed when the run goes on."""
    whole, part, again = Setting(), Setting(), Setting()
    whole_log, more = tmp_path / f"whole.{log}", {"log": tmp_path / log, "measure_every": 1} if log else {}
    expected = whole.fit(**{**more, "log": whole_log} if log else {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(record: Any) -> None:
        if record.kind == "step" and record.step == 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))

    try:
        with pytest.raises(DataError if log else CheckpointError, match="File too large") as caught:
            part.fit(checkpoint=tmp_path / "c", callbacks=fill, **more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if log:
        assert f"the log {tmp_path / log} cannot be written" in str(caught.value)
        assert "The run could not be saved" in caught.value.__notes__[0]
    assert pcgraph.load(tmp_path / "c").epoch == 1
    found = again.fit(checkpoint=tmp_path / "c", resume=tmp_path / "c", **more)
    assert same(whole, again)
    assert timeless(found) == timeless(expected)
    if log:
        assert rows(tmp_path / log) == rows(whole_log)


def rows(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text(encoding="utf-8").splitlines()
    found = list(csv.DictReader(lines)) if log.suffix == ".csv" else [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def default_sigint() -> Iterator[None]:
    """A background job ignores SIGINT, and so does what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(record: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_run_with_everything_saved(tmp_path: Path) -> None:
    """After the step at hand, not in the middle of an update."""
    whole, part, again = Setting(), Setting(), Setting()
    expected = whole.fit()
    with pytest.raises(KeyboardInterrupt) as caught:
        part.fit(checkpoint=tmp_path, callbacks=lambda r: press() if r.kind == "step" and r.step == 8 else None)
    history = caught.value.history  # type: ignore[attr-defined]
    assert "as it was after training step 8" in caught.value.__notes__[0]
    assert (history.stopped, pcgraph.load(tmp_path).step) == ("interrupted", 8)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    found = again.fit(resume=tmp_path)
    assert same(whole, again)
    assert timeless(found) == timeless(expected)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_validation_ends_the_run_before_it(tmp_path: Path) -> None:
    """Half a validation is none: it is done again, with the same dice."""

    class Pressing(TensorDataset):
        def __getitem__(self, i: int) -> tuple[Tensor, ...]:
            if pressing and len(pressing) == 20:
                press()
            pressing.append(i) if pressing else None
            x, y = super().__getitem__(i)
            return x + 0.01 * torch.randn(4), y

    pressing: list[int] = []
    whole, part, again = Setting("forward"), Setting("forward"), Setting("forward")
    expected = whole.fit(validate=DataLoader(Pressing(X, LABELS), 6, shuffle=True))
    pressing.append(0)
    history = part.fit(
        validate=DataLoader(Pressing(X, LABELS), 6, shuffle=True), checkpoint=tmp_path, on_interrupt="return"
    )
    assert (history.stopped, len(history)) == ("interrupted", 0)
    pressing.clear()
    found = again.fit(validate=DataLoader(Pressing(X, LABELS), 6, shuffle=True), resume=tmp_path)
    assert same(whole, again)
    assert timeless(found) == timeless(expected)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("how", ["raise", "return"])
def test_ctrl_c_ends_a_script_and_not_one_run_of_many(how: str) -> None:
    """A search over ten settings would otherwise have to be stopped ten times; who asks for it goes on."""
    runs: list[Setting] = []

    def script() -> None:
        for _ in range(3):
            runs.append(Setting())
            history = runs[-1].fit(callbacks=lambda r: press() if r.kind == "step" else None, on_interrupt=how)
            assert (history.stopped, len(history.steps)) == ("interrupted", 1)

    if how == "raise":
        with pytest.raises(KeyboardInterrupt):
            script()
    else:
        script()
    assert len(runs) == (1 if how == "raise" else 3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_ends_it_at_once() -> None:
    def twice(record: Any) -> None:
        press()
        press()

    with pytest.raises(KeyboardInterrupt):
        Setting().fit(callbacks=twice)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_tested_in_a_background_job_too() -> None:
    """A shell starts one with SIGINT ignored; the tests above must not fail there for that alone."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "ctrl_c_ends or ctrl_c_in_a"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert "5 passed" in done.stdout, done.stdout


def test_a_program_that_handles_ctrl_c_itself_keeps_its_handler() -> None:
    caught: list[int] = []
    old = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        history = Setting().fit(callbacks=lambda r: press() if r.kind == "step" and r.step == 2 else None)
    finally:
        signal.signal(signal.SIGINT, old)
    assert (history.stopped, caught) == ("finished", [signal.SIGINT])


# -- kill -9 ----------------------------------------------------------------------------------------------------------

KILLED = """
import hashlib, json, os, random, signal, sys, time
from pathlib import Path
import torch, safetensors.torch
import pcgraph
from pcgraph.data import Images

kills, seed, base = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])

def digest(net):
    return hashlib.sha256(safetensors.torch.save(net.state_dict())).hexdigest()

def train(folder, out, passed=None):
    generator = torch.Generator().manual_seed(5)
    images = Images(torch.randn(60, 6, generator=generator), torch.arange(60) % 3)
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([6, 16, 16, 3], activation="tanh"), seed=0)
    init = pcgraph.Average(by="y", otherwise=pcgraph.Normal())
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    history = pcgraph.fit(
        net, images.batches(6, seed=3), init=init, steps=3, optimizer=optimizer, state_optimizer=pcgraph.SGD(lr=0.1),
        epochs=2, validate=images.batches(20, seed=1), progress=False, log=folder.with_suffix(".csv"),
        measure_every=2 if passed is None else 1,
        callbacks=() if passed is None else lambda record: passed.setdefault(record.step, digest(net)) and None,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1), checkpoint=folder, checkpoint_every=3,
        resume=folder if pcgraph.checkpoints.exists(folder) else None)
    tensors = {**net.state_dict(), **{"init." + k: v.clone() for k, v in init.state_dict().items()}}
    for i, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{i}.{k}": v for k, v in state.items()})
    tensors["energies"] = torch.tensor([r.energy for r in history.steps], dtype=torch.float64)
    safetensors.torch.save_file(tensors, out)

def start(folder, out):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            train(folder, out)
            code = 0
        finally:
            os._exit(code)
    return pid

def rows(folder):  # the log without its seconds
    lines = [line.split(",") for line in folder.with_suffix(".csv").read_text().splitlines()]
    return [[v for k, v in zip(lines[0], line) if k != "seconds"] for line in lines]

def is_whole(path):  # read by hand, and not by what is tested
    manifest = json.loads((path / "manifest.json").read_text())
    return bool(manifest["files"]) and all(
        hashlib.sha256((path / name).read_bytes()).hexdigest() == facts["sha256"]
        for name, facts in manifest["files"].items())

def look(folder):  # whether it was killed while it wrote
    found = sorted(path for path in folder.glob("*") if path.name.startswith("checkpoint-"))
    assert all(map(is_whole, found)), "a half checkpoint has the name of a whole one"
    assert pcgraph.checkpoints.exists(folder) == bool(found)
    if found:
        newest = pcgraph.load(folder)
        assert newest.path == found[-1], "the newest is not the one that is loaded"
        assert digest(newest.net) == passed[newest.step], "it is not what the run had passed through"
    return any(path.name.startswith(".incoming") for path in folder.glob(".*"))

torch.set_num_threads(1)  # so that a fork has all threads there are
passed = {0: digest(pcgraph.PCNetwork(pcgraph.graphs.chain([6, 16, 16, 3], activation="tanh"), seed=0))}
train(base / "warm", base / "warm.out", passed)  # all that is imported late, once and not in every fork
begun = time.monotonic()
train(base / "whole", base / "whole.out")
lasts = time.monotonic() - begun
dice = random.Random(seed)
killed = writing = n = 0
while killed < kills:
    n += 1
    assert n < 20 * kills, "it is over before it can be killed"
    folder, out = base / f"run{n}", base / f"run{n}.out"
    for _ in range(dice.randint(1, 3)):  # what goes on is killed as well
        pid = start(folder, out)
        time.sleep(dice.random() * lasts * 0.9)
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        writing += folder.exists() and look(folder)
    if not out.exists():
        assert os.waitpid(start(folder, out), 0)[1] == 0, n
    assert out.read_bytes() == (base / "whole.out").read_bytes(), n
    assert rows(folder) == rows(base / "whole"), n
print(killed, writing)
"""


def kill(kills: int, seed: int, folder: Path) -> tuple[int, int]:
    """How many times a run was killed, and how many of these within the writing of a checkpoint.

    The script ends with an error if the newest whole checkpoint is not loaded, a half one is taken for a whole, or a
    run does not end as the one that was never killed.
    """
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(kills), str(seed), str(folder)],
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed, writing = map(int, done.stdout.split()[-2:])
    return killed, writing


def test_a_killed_run_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    """kill -9 at random moments, and again while it goes on."""
    assert kill(3, 0, tmp_path / "a")[0] >= 3


@pytest.mark.slow
def test_a_hundred_kills_are_survived(tmp_path: Path) -> None:
    """Many of them within the writing of a checkpoint, where a half one could be left."""
    killed, writing = kill(100, 1, tmp_path / "a")
    assert killed >= 100
    assert writing >= 10


# -- what cannot be resumed -------------------------------------------------------------------------------------------


def test_another_runs_checkpoints_are_not_overwritten(tmp_path: Path) -> None:
    """A script started twice by mistake would destroy a week's work."""
    Setting().fit(epochs=1, checkpoint=tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ConfigError, match="holds the checkpoints of another run: go on with it by resume="):
        Setting().fit(epochs=1, checkpoint=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        Setting().fit(resume=tmp_path / "nowhere")
    pcgraph.save(tmp_path, Setting().net)
    with pytest.raises(CheckpointError, match="was not written by fit"):
        Setting().fit(resume=tmp_path)
    with pytest.raises(ConfigError, match="checkpoint_every= needs checkpoint="):
        Setting().fit(checkpoint_every=3)
    with pytest.raises(ConfigError, match="checkpoint_every must be a positive integer"):
        Setting().fit(checkpoint=tmp_path / "a", checkpoint_every=0)


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    """The last but one is named, and can be gone on from instead."""
    whole = Setting()
    whole.fit()
    broken_off(tmp_path, 14)
    last = sorted(tmp_path.glob("checkpoint-*"))[-1]
    (last / "network.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"network\.safetensors: it is truncated .*The one before it") as caught:
        Setting().fit(resume=tmp_path)
    before = sorted(tmp_path.glob("checkpoint-*"))[-2]
    assert str(before) in str(caught.value)
    again = Setting()
    again.fit(resume=before, checkpoint=tmp_path / "again")
    assert same(whole, again)


def test_checkpoints_come_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step, every so many steps, after each epoch."""
    steps: list[int] = []
    real = pcgraph.training.checkpointing.write

    def spy(folder: Path, net: Any, parts: Any, counts: dict[str, int], *args: Any, **settings: Any) -> Any:
        if Path(folder).name != "best":
            steps.append(counts["step"])
        return real(folder, net, parts, counts, *args, **settings)

    monkeypatch.setattr(pcgraph.training.checkpointing, "write", spy)
    Setting().fit(checkpoint=tmp_path, checkpoint_every=4, epochs=2)
    assert steps == [0, 4, 6, 8, 12, 12]


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    values = iter([0.5, 0.9, 0.89])
    run = Setting("forward")
    after: list[dict[str, Tensor]] = []

    def remember(record: Any) -> None:
        if record.kind == "epoch":
            after.append({k: v.clone() for k, v in run.net.state_dict().items()})

    run.fit(validate=lambda net: {"accuracy": next(values)}, checkpoint=tmp_path, callbacks=remember)
    best = pcgraph.load(tmp_path / "best")
    assert (best.epoch, best.extra) == (2, {"metric": "accuracy", "value": 0.9})
    state = best.net.state_dict()
    assert all(torch.equal(state[k], after[1][k]) for k in state)
