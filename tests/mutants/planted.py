"""Faults planted in a copy of the package, to see that the tests notice.

A mutant is one replacement in one file. :func:`survives` copies the package and the tests to a fresh folder, plants
it there, and runs the named tests on the copy; the working tree is never touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

#: That a test fails is all that is asked: looking for the smallest example takes longer than everything else.
UNSHRUNK = "--hypothesis-profile=unshrunk"


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file` (below the package), `old` becomes `new`; `tests` must then fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def plant(self, package: Path) -> None:
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        found = text.count(self.old)
        if found != 1:
            raise LookupError(f"mutant {self.name!r}: expected its text once in {self.file} (found it {found} times)")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def copied(folder: Path) -> Path:
    """Copy package and tests into `folder`; returns the package's copy."""
    skip = shutil.ignore_patterns("__pycache__", ".hypothesis", ".pytest_cache")
    for part in ("pcgraph", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder / "pcgraph"


def survives(mutant: Mutant | None, folder: Path, tests: tuple[str, ...] = ()) -> tuple[bool, str]:
    """Whether the tests pass with the mutant planted (None: with no fault), and what pytest printed."""
    package = copied(folder)
    if mutant is not None:
        mutant.plant(package)
        tests = mutant.tests
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        UNSHRUNK,
        *tests,
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    printed = done.stdout + done.stderr
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests did not run (pytest ended with {done.returncode}):\n{printed}")
    return done.returncode == 0, printed


def assert_can_be_planted(mutant: Mutant, folder: Path) -> None:
    """A mutant whose text is gone tests nothing, and one that is no Python is killed by nothing but its syntax."""
    planted = folder / mutant.file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text((ROOT / "pcgraph" / mutant.file).read_text(encoding="utf-8"), encoding="utf-8")
    mutant.plant(folder)
    compile(planted.read_text(encoding="utf-8"), mutant.file, "exec")
