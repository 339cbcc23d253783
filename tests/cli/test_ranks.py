"""The command trains on the processes that torchrun starts as it does on one."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pcgraph
from tests import ROOT
from tests.across.start import run

WAYS = ("train", "--graph", "64-16-10", "--fraction", "0.2", "--epochs", "2", "--batch-size", "50")


def told(folder: Path) -> list[float]:
    rows = csv.DictReader((folder / "log.csv").read_text(encoding="utf-8").splitlines())
    return [float(row["energy"]) for row in rows if row["kind"] == "epoch"]


def test_two_processes_train_from_the_command_line_as_one_does(tmp_path: Path) -> None:
    """If it fails, ``torchrun -m pcgraph.cli train`` trains two networks, or another one."""
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run(
        [sys.executable, "-m", "pcgraph.cli", *WAYS, "--out", str(one)], cwd=ROOT, capture_output=True, check=True
    )  # fmt: skip
    (first, said), (second, silent) = run("pcgraph.cli", 2, *WAYS, "--out", str(two))
    assert (first, second) == (0, 0), said + silent
    assert "Test accuracy after epoch 2" in said
    assert "Test accuracy" not in silent
    assert told(two) == pytest.approx(told(one), rel=1e-5)
    found, wanted = (pcgraph.load(folder / "checkpoint").net.state_dict() for folder in (two, one))
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
