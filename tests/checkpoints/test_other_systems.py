"""What Windows and macOS do otherwise: other locks, no folders to flush, names that differ by case or hold a colon."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from types import SimpleNamespace

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph.checkpoints import FolderLock, lock
from pcgraph.errors import CheckpointError
from pcgraph.serialization import files, write_graph

NAMES = ("a:b", "A", "a", "con", "x/y", 'q"?*<>|', "..", "trailing. ", "é")


class Windows(SimpleNamespace):
    """Locks of bytes as Windows has them: held by an open file, refused to any other."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        super().__init__(held={})

    def locking(self, file: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        at = (os.fstat(file).st_ino, os.lseek(file, 0, os.SEEK_CUR))
        assert at[1] >= 200, "others could not read who holds the lock"
        holder = self.held.get(at)
        if holder is not None and holder != file:
            raise PermissionError(errno.EACCES, "Permission denied")
        self.held[at] = file


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    system = Windows()
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", system)
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)
    return system


def test_a_folder_is_guarded_on_windows_too(windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs in one folder would mix their checkpoints, whatever the system."""
    with FolderLock(tmp_path):
        monkeypatch.setattr(lock, "_held", {})  # as another process sees it
        with (
            pytest.raises(CheckpointError, match=rf"being written to by process {os.getpid()} on "),
            FolderLock(tmp_path),
        ):
            pass
        monkeypatch.undo()
    assert not (tmp_path / lock.LOCK).exists()


def test_without_any_locks_saving_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", None)
    pcgraph.save(tmp_path, pcgraph.PCNetwork(pcgraph.graphs.chain([2, 1])))
    assert pcgraph.load(tmp_path).net is not None


def test_a_checkpoint_is_written_and_read_as_windows_allows(windows: Windows, tmp_path: Path) -> None:
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 2]), seed=0)
    pcgraph.save(tmp_path / "run", net)
    assert torch.equal(pcgraph.load(tmp_path / "run").net.weight("x", "y"), net.weight("x", "y"))


@pytest.mark.parametrize("times", [1, 3])
def test_a_scanner_that_holds_a_new_file_is_waited_for(
    times: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Windows refuses to rename what a virus scanner looks at; a run of days must not end by that."""
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0, 0.0))
    refused = []

    def rename(source: str, target: str, real=os.rename) -> None:
        if len(refused) < times:
            refused.append(source)
            raise PermissionError(errno.EACCES, "Access is denied")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    pcgraph.save(tmp_path, pcgraph.PCNetwork(pcgraph.graphs.chain([2, 1])))
    assert len(refused) == times
    assert pcgraph.load(tmp_path).net is not None


def test_a_refusal_that_stays_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "PAUSES", (0.0, 0.0))
    tries = []

    def refuse() -> None:
        tries.append(1)
        raise PermissionError(errno.EACCES, "Access is denied")

    with pytest.raises(PermissionError):
        files.patiently(refuse)
    assert len(tries) == 3


def test_no_name_of_a_node_becomes_the_name_of_a_file(tmp_path: Path) -> None:
    """A colon opens a stream on Windows, `con` is a device, and `a` and `A` are one file on a Mac."""
    graph = nx.DiGraph()
    for i, node in enumerate(NAMES):
        graph.add_node(node, shape=2 + i)
    nx.add_path(graph, NAMES)
    net = pcgraph.PCNetwork(graph, seed=0)
    pcgraph.fit(
        net, [(torch.ones(2, 2), torch.ones(2, graph.nodes["é"]["shape"]))], clamp=(NAMES[0], "é"), epochs=1, steps=1,
        init=pcgraph.Forward(), state_optimizer=pcgraph.SGD(lr=0.1), log=tmp_path / "log.csv", progress=False,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1), checkpoint=tmp_path / "run",
    )  # fmt: skip
    write_graph(tmp_path / "graph.json", graph)
    found = [part for path in tmp_path.rglob("*") for part in path.relative_to(tmp_path).parts]
    assert any(name.startswith("checkpoint-") for name in found)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_.-]*[a-z0-9]", name) for name in found), found
    assert list(pcgraph.load(tmp_path / "run").net.graph) == list(graph)
