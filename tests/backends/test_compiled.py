"""The fused kernels are compiled for cards, where there is none; see :mod:`tests.backends.compiled`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("triton")


def told(*cases: str) -> str:
    """Compile the cases whose names have one of these parts, or all, by a process that does not interpret."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.backends.compiled", *cases], capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout


def test_every_kernel_is_one_that_a_card_can_run() -> None:
    """The interpreter runs what the compiler refuses: then all numbers are right here, and there are none on a card."""
    found = told("neurons", "Adam of groups")
    kernels = {"predict", "predict_scalars", "pull", "pull_scalars", "learn", "learn_scalars"}
    assert set(re.findall(r"^(\w+) sm_90 ", found, re.M)) == kernels


@pytest.mark.slow
def test_all_that_a_card_is_asked_for_compiles_and_keeps_in_registers() -> None:
    """What a thread holds goes to memory and back where there is no room for it, in every turn of a loop."""
    found = told()
    spilled = {card: [int(n) for n in re.findall(rf" sm_{card} .* (\d+) spilled", found)] for card in (80, 90)}
    assert len(spilled[80]) == len(spilled[90]) > 60
    assert max(spilled[90]) == 0
    assert max(spilled[80]) < 256
