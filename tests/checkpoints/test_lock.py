"""Two processes with one folder: one writes, the other is told; what a dead one left behind is taken over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import pcgraph
from pcgraph.checkpoints import FolderLock, reading
from pcgraph.checkpoints.lock import LOCK
from pcgraph.errors import CheckpointError, ConfigError

RUN = """
import sys, time
import torch, pcgraph
torch.set_num_threads(1)
x, y = torch.randn(6, 4), torch.eye(3)[torch.arange(6) % 3]
net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 3]))

def slowly(record):
    print("stepped", flush=True)
    time.sleep(float(sys.argv[2]))

pcgraph.fit(net, [(x, y)] * 3, init=pcgraph.Forward(), steps=2, state_optimizer=pcgraph.SGD(lr=0.1), epochs=1000,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.01), progress=False, checkpoint=sys.argv[1],
            checkpoint_every=1, callbacks=slowly)
"""

SAVES = """
import sys
import torch, pcgraph
torch.set_num_threads(1)
net, refused = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 3]), seed=int(sys.argv[2])), 0
print("ready", flush=True)
sys.stdin.readline()
for step in range(40):
    try:
        pcgraph.save(sys.argv[1], net, step=step)
    except pcgraph.errors.CheckpointError as error:
        assert "is being written to by" in str(error), error
        refused += 1
print("saved", 40 - refused)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def train(folder: Path, **more: object) -> object:
    x, y = torch.randn(6, 4), torch.eye(3)[torch.arange(6) % 3]
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 3]))
    return pcgraph.fit(
        net, [(x, y)] * 3, init=pcgraph.Forward(), steps=2, state_optimizer=pcgraph.SGD(lr=0.1), progress=False,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.01), checkpoint=folder, **more,
    )  # fmt: skip


def test_a_second_run_in_a_folder_is_refused_and_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    """Its checkpoints would be deleted under its feet, and those of both mixed."""
    running = start(RUN, tmp_path, 0.01)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "stepped\n"
        for resume in (None, tmp_path):
            before = (tmp_path / "log.csv").exists()
            says = rf"is being written to by process {running.pid} on .*: two runs in one folder.*folder of its own"
            with pytest.raises(CheckpointError, match=says) as caught:
                train(tmp_path, resume=resume, log=tmp_path / "log.csv")
            assert caught.value.path == tmp_path
            assert (tmp_path / "log.csv").exists() == before
        with pytest.raises(CheckpointError, match="is being written to by process"):
            pcgraph.save(tmp_path, pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3])))
        assert pcgraph.load(tmp_path).step >= 0
        for _ in range(5):  # it has not been disturbed
            assert running.stdout.readline() == "stepped\n"
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert (tmp_path / LOCK).exists()
    step = pcgraph.load(tmp_path).step
    assert len(train(tmp_path, resume=tmp_path, epochs=pcgraph.load(tmp_path).epoch + 2)) >= 1  # type: ignore[arg-type]
    assert pcgraph.load(tmp_path).step > step
    assert not (tmp_path / LOCK).exists()


def test_many_saves_of_two_processes_leave_whole_checkpoints(tmp_path: Path) -> None:
    """Each is written or refused; none dies of a file that the other has swept away."""
    both = [start(SAVES, tmp_path, seed) for seed in (1, 2)]
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    told = [one.communicate("\n", timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    saved = sum(int(text.split()[-1]) for text in told)
    last = pcgraph.load(tmp_path)
    assert saved >= 40
    assert int(last.path.name.split("-")[1]) == saved - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{n:06d}" for n in (saved - 2, saved - 1)]


def test_another_thread_is_refused_and_the_same_one_enters_again(tmp_path: Path) -> None:
    """fit holds the folder, and saves into it; a thread beside it does not."""
    caught: list[BaseException] = []

    def enter() -> None:
        try:
            with FolderLock(tmp_path):
                caught.append(AssertionError("it was let in"))
        except CheckpointError as error:
            caught.append(error)

    with FolderLock(tmp_path), FolderLock(tmp_path / "." / ".." / tmp_path.name):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert (tmp_path / LOCK).exists()
    assert "by another thread of this process" in str(caught[0])
    with FolderLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_does_not_hold_what_its_parent_holds(tmp_path: Path) -> None:
    """The workers of a DataLoader outlive a killed run for a moment; the script that begins again has not to wait."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        with FolderLock(tmp_path):
            if os.fork() == 0:
                os.write(write, b"x")
                time.sleep(3)
                os._exit(0)
            os.read(read, 1)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    with FolderLock(tmp_path):
        pass


def test_a_fork_is_refused_while_its_parent_holds_the_folder(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        assert not is_let_in(tmp_path)
    assert not (tmp_path / LOCK).exists()


def test_a_fork_that_unwinds_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    """A child that ends by an exception leaves every ``with`` that its parent has entered."""
    child = 1
    try:
        with FolderLock(tmp_path):
            child = os.fork()
            if child == 0:
                raise KeyboardInterrupt
            os.waitpid(child, 0)
            assert (tmp_path / LOCK).exists()
            assert not is_let_in(tmp_path)
    finally:
        if child == 0:
            os._exit(0)


def is_let_in(folder: Path) -> bool:
    """Ask whether another process may write into a folder."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with FolderLock(folder):
                code = 0
        except CheckpointError as error:
            code = 3 if "is being written to by process" in str(error) else 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 3)
    return code == 0


@pytest.mark.parametrize("meanwhile", ["copied", "read", "removed"])
def test_what_happens_to_the_folder_meanwhile_does_not_let_others_in(tmp_path: Path, meanwhile: str) -> None:
    """A run is backed up, or its folder is cleared, while it trains: the next save finds it still alone there."""
    folder = tmp_path / "run"
    with FolderLock(folder):
        if meanwhile == "copied":  # some locks go when the process closes any copy of the file
            shutil.copytree(folder, tmp_path / "copy")
        elif meanwhile == "read":
            (folder / LOCK).read_bytes()
        else:
            shutil.rmtree(folder)
            pcgraph.save(folder, pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3])))
        assert not is_let_in(folder)
        pcgraph.save(folder, pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3])))
    assert is_let_in(folder)


def test_a_folder_that_was_removed_and_taken_by_another_run_is_not_written_into(tmp_path: Path) -> None:
    folder, before = tmp_path / "run", tmp_path / "before"
    with FolderLock(folder):
        folder.rename(before)
        read, write = os.pipe()
        other = os.fork()
        if other == 0:
            with FolderLock(folder):
                os.write(write, b"x")
                time.sleep(100)
        try:
            os.read(read, 1)
            with pytest.raises(CheckpointError, match=f"is being written to by process {other}"):
                pcgraph.save(folder, pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3])))
        finally:
            os.kill(other, signal.SIGKILL)
            os.waitpid(other, 0)
    assert (folder / LOCK).exists()  # it is not this one's to remove


def test_nothing_is_written_into_what_a_link_leads_to(tmp_path: Path) -> None:
    theirs, folder = tmp_path / "theirs", tmp_path / "run"
    theirs.write_text("theirs", encoding="utf-8")
    folder.mkdir()
    (folder / LOCK).symlink_to(theirs)
    with pytest.raises(CheckpointError, match="cannot be written to"):
        pcgraph.save(folder, pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3])))
    assert theirs.read_text(encoding="utf-8") == "theirs"


def test_a_run_stays_in_its_folder_when_the_process_goes_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its checkpoints lie in two places, one of them without a lock."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    monkeypatch.chdir(one)
    train(Path("run"), log="log.csv", epochs=2, callbacks=lambda record: os.chdir(two))
    assert list(two.iterdir()) == []
    assert sorted(path.name for path in one.iterdir()) == ["log.csv", "run"]
    assert pcgraph.load(one / "run").epoch == 2
    assert not (one / "run" / LOCK).exists()


def test_where_the_process_has_no_folder_relative_paths_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="relative to the folder of the process, which is gone"):
        train(Path("run"))
    with pytest.raises(CheckpointError, match="cannot be written to run: No such file"):
        pcgraph.save("run", pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3])))
    train(tmp_path / "run")


def test_who_reads_beside_a_run_always_finds_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run removes its older checkpoints, and may do so while they are being read: each read here finds one gone."""
    net, step = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3])), 0
    pcgraph.save(tmp_path, net, keep=1)
    read = reading._read_file

    def too_late(folder: Path, name: str, facts: dict[str, Any]) -> bytes:
        nonlocal step
        if step < 3:
            step += 1
            pcgraph.save(tmp_path, net, step=step, keep=1)
        return read(folder, name, facts)

    monkeypatch.setattr(reading, "_read_file", too_late)
    assert pcgraph.load(tmp_path).step == 3
    assert step == 3


def test_where_there_are_no_locks_checkpoints_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, and on some network file systems."""

    def unsupported(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3]))
    with monkeypatch.context() as patched:
        patched.setattr("pcgraph.checkpoints.lock.fcntl.flock", unsupported)
        pcgraph.save(tmp_path / "network", net)
    with monkeypatch.context() as patched:
        patched.setattr("pcgraph.checkpoints.lock.fcntl", None)
        pcgraph.save(tmp_path / "windows", net)
    assert pcgraph.load(tmp_path / "network").step == pcgraph.load(tmp_path / "windows").step == 0


def test_a_run_that_is_refused_lets_go_of_the_folder(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(ConfigError, match="holds the checkpoints of another run"):
        train(tmp_path)
    assert not (tmp_path / LOCK).exists()
    with FolderLock(tmp_path):
        pass
