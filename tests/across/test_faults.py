"""Checkpoints that ranks write together, where one of them fails, is killed, or a file is damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import pcgraph
from pcgraph.checkpoints import writing
from pcgraph.checkpoints.writing import MANIFEST, NAME
from pcgraph.errors import CheckpointError
from tests import ROOT
from tests.across import restarted
from tests.across.start import free_port
from tests.across.training import Run, groups
from tests.ranks import Ranks

# -- a rank that cannot write -----------------------------------------------------------------------------------------


def full(folder: Path, victim: int) -> Any:
    """Save once, and once more while the disk of one rank is full; then once more."""
    groups(2)
    if torch.distributed.get_rank() > 1:
        return None
    run = Run("sgd", 2, groups(2))
    first = pcgraph.save(folder, run.net, optimizer=run.optimizer)
    real = writing._write

    def write(path: Path, data: bytes) -> None:
        if run.net.rank == victim:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    writing._write = write
    try:
        pcgraph.save(folder, run.net, optimizer=run.optimizer)
    except CheckpointError as error:
        said = str(error)
    finally:
        writing._write = real
    run.net.group.barrier()  # what the first had begun, it removes
    left = sorted(path.name for path in folder.iterdir())
    run.net.group.barrier()
    return first.name, said, left, pcgraph.save(folder, run.net, optimizer=run.optimizer).name


def test_a_rank_without_room_is_told_on_all_ranks_and_what_was_before_stays(ranks: Ranks, tmp_path: Path) -> None:
    for victim in (0, 1):
        for rank, (first, said, left, last) in enumerate(ranks.run(full, tmp_path / str(victim), victim)[:2]):
            assert "No space left on device" in said
            assert (rank == victim) or f"rank {victim}: " in said
            assert [name for name in left if name != ".lock"] == [first]
            assert (first, last) == ("checkpoint-000000", "checkpoint-000001")


# -- a file that is damaged -------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a file, and sign the manifest anew, as whoever means harm would."""
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors))
    manifest = json.loads((path.parent / MANIFEST).read_text(encoding="utf-8"))
    data = path.read_bytes()
    manifest["files"][path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["sha256"] = writing.digest(manifest)
    (path.parent / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def test_damaged_files_of_ranks_are_refused(tmp_path: Path) -> None:
    """If it fails, a damaged checkpoint is trained on."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 4, 2]), partition={"x": 0, "h1": 0, "h2": 0, "y": 0})
    path = pcgraph.save(tmp_path, net)
    part = path / "network_0.safetensors"
    good, manifest, weight = part.read_bytes(), (path / MANIFEST).read_bytes(), "weights.linear_4_to_4"

    def refused(words: str) -> None:
        with pytest.raises(CheckpointError, match=words):
            pcgraph.load(tmp_path)
        part.write_bytes(good)
        (path / MANIFEST).write_bytes(manifest)

    part.write_bytes(good[:-1])
    refused("network_0.safetensors: it is truncated")
    part.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused("network_0.safetensors: it was altered")
    part.unlink()
    refused("network_0.safetensors: it is missing")
    rewritten(part, lambda t: t.update({f"{weight}:rows": torch.tensor([1])}))
    refused("rows of its files do not make a whole")
    rewritten(part, lambda t: t.update({"biases.bias_4:rows": torch.tensor([0, 0])}))
    refused("rows of its files do not make a whole")
    rewritten(part, lambda t: t.pop(weight))
    with pytest.raises(CheckpointError, match="linear_4_to_4"):
        pcgraph.load(tmp_path).restore(net=net)
    with pytest.raises(CheckpointError, match="has 36 weights, and the checkpoint has 30 numbers"):
        pcgraph.load(tmp_path).net  # noqa: B018


# -- ranks that are killed --------------------------------------------------------------------------------------------


def complete(folder: Path) -> list[int]:
    names = [NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.exists() else []
    return sorted(int(match[1]) for match in names if match)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_kills_at_random_moments_lose_no_checkpoint(tmp_path: Path, count: int) -> None:
    """If it fails, a run that is killed while it saves loses what it had saved."""
    chance, saved = random.Random(count), tmp_path / "checkpoints"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.across.restarted", "torch._dynamo"])
    for _ in range(12):
        before, port = complete(saved), free_port()
        ranks = [
            context.Process(target=restarted.child, args=(rank, count, port, tmp_path, -1, 0, 10_000), daemon=True)
            for rank in range(count)
        ]
        for process in ranks:
            process.start()
        begun = time.monotonic()
        while complete(saved) == before and time.monotonic() < begun + 120:
            time.sleep(0.02)
        time.sleep(chance.random() / 2)
        known = complete(saved)
        ranks[chance.randrange(count)].kill()
        for process in ranks:
            process.join(120)
            assert process.exitcode, "a rank went on without one that is dead"
        after = complete(saved)
        assert known != before, "nothing was saved"
        assert after[-1] >= known[-1], "a checkpoint that was complete is gone"
        for number in after:
            checkpoint, again = pcgraph.load(saved / f"checkpoint-{number:06d}"), Run("adamw, average")
            checkpoint.restore(net=again.net, optimizer=again.optimizer, initializer=again.init)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "victim", "step"), [(2, 0, 3), (2, 1, 6), (4, 3, 1)])
def test_torchrun_goes_on_with_a_network_over_ranks(tmp_path: Path, count: int, victim: int, step: int) -> None:
    """torchrun starts all ranks again, which go on from the last checkpoint, and end on the same bits."""
    found = []
    for name, at in (("whole", 0), ("killed", step)):
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count),
             "--max-restarts", "1", "-m", "tests.across.restarted", str(folder), str(victim), str(at), "2"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, check=True, timeout=300, cwd=ROOT,
            capture_output=True,
        )  # fmt: skip
        found.append([torch.load(folder / f"{rank}.pt") for rank in range(count)])
    for whole, killed in zip(*found):
        assert whole.keys() == killed.keys()
        assert all(torch.equal(killed[key][1], value) for key, (_, value) in whole.items() if key[:4] != "init")
