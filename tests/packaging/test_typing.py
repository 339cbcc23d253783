"""Somebody who checks types strictly has no errors in right code, and has them in wrong code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests import ROOT
from tests.packaging import user

WRONG = """
import torch
import pcgraph

net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 2]), seed="zero")  # wrong
answer: int = net.predict({"x": torch.zeros(1, 3)}, "y")  # wrong
pcgraph.check(net, {"x"}).orders  # wrong
pcgraph.check(net, {"training": {"x", "y"}, "test": {"x"}}).order  # wrong
pcgraph.checks(net, {"x"})  # wrong
net.infer({"x": torch.zeros(1, 3)}, tracing=True, init=pcgraph.Forward(), steps=2)  # wrong
fine: torch.Tensor = net.weight("x", "y")
"""


def test_right_code_is_free_of_errors_and_wrong_code_is_not(tmp_path: Path) -> None:
    """As a user runs it: mypy --strict with no settings of ours, so that py.typed has to keep its word."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG, encoding="utf-8")
    right = Path(user.__file__)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", right, wrong,
         f"--cache-dir={ROOT / '.mypy_cache' / 'user'}", "--no-error-summary", "--hide-error-context"],
        cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    found = {int(line) for line in re.findall(r"wrong\.py:(\d+): error", done.stdout)}
    assert found == {i for i, line in enumerate(WRONG.split("\n"), 1) if line.endswith("# wrong")}, done.stdout
    assert "user.py" not in done.stdout, done.stdout


def test_the_script_that_is_checked_runs(tmp_path: Path) -> None:
    """Types that hold for code that does not run prove nothing."""
    assert 0.0 <= user.main(tmp_path) <= 1.0
