"""The connectome example: what it draws has the size that it says, and what it writes it reads again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT
from tests.across.start import run
from tests.builders import script

connectome = script("connectome")


def test_a_drawn_connectome_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    region, pre, post, count = connectome.generate(500, 4000, 80_000, 6)
    assert len(region) == 500
    assert set(region) == set(range(6))
    assert len(set(zip(pre.tolist(), post.tolist()))) == len(pre) == 4000
    assert count.sum() == 80_000
    assert count.min() >= 1
    assert (region[pre] == region[post]).mean() > 0.7
    degree = np.bincount(pre, minlength=500)
    assert degree.max() > 5 * degree.mean()
    graph = connectome.declare(region, pre, post)
    shapes = {v: (data["shape"],) for v, data in graph.nodes(data=True)}
    stored = [data["transform"].entries(shapes[u], shapes[v]) for u, v, data in graph.edges(data=True)]
    assert sum(entries.shape[1] for entries in stored) == 4000
    connectome.write(tmp_path, region, pre, post, count)
    again = connectome.read(tmp_path)
    assert all(np.array_equal(one, two) for one, two in zip((region, pre, post, count), again))


def test_a_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    connectome.write(tmp_path, *connectome.generate(20, 40, 100, 3))
    (tmp_path / "connections.csv").write_text("from,to,count\n0,1,3\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="needs the columns pre,post,count"):
        connectome.read(tmp_path)


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """The energies of all updates, as they are printed, agree to the rounding of float32."""
    connectome.write(tmp_path, *connectome.generate(200, 2000, 9000, 5))
    asked = ["--read", str(tmp_path), "--updates", "2", "--steps", "4"]
    path = ROOT / "examples" / "connectome.py"
    one = subprocess.run([sys.executable, str(path), *asked], cwd=ROOT, capture_output=True, text=True, check=True)
    two = run("examples.connectome", 2, *asked)
    assert [status for status, _ in two] == [0, 0], two
    assert energies(one.stdout) == pytest.approx(energies(two[0][1]), rel=1e-5)


def energies(text: str) -> list[float]:
    found = [float(line.split("energy ")[1].split()[0]) for line in text.splitlines() if line.startswith("update")]
    assert len(found) == 2
    return found
