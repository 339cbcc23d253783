"""What is published: a wheel and a source distribution that hold what they must, install, and run."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import pcgraph
from tests import ROOT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


def test_the_wheel_is_the_package(built: Path) -> None:
    """A module that is left out is missed by whoever installs, and by no test in the repository."""
    (wheel,) = built.glob("*.whl")
    assert wheel.name == f"pcgraph-{pcgraph.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        head = next(name for name in names if name.endswith("METADATA"))
        about = archive.read(head).decode()
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "pcgraph").rglob("*") if p.suffix in (".py", ".typed")}
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert f"\nVersion: {pcgraph.__version__}\n" in about
    assert "Requires-Python: >=3.11" in about
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_has_the_tests_and_the_pages(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "constraints.txt", "Makefile", "tests/builders.py", "docs/conf.py"} <= names
    assert not [name for name in names if name.startswith((".venv", "runs/", "docs/_build", ".mypy_cache"))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_into_an_empty_environment_and_runs_the_demo(built: Path, kind: str, tmp_path: Path) -> None:
    """As a user gets it: nothing of the repository is on the path."""
    (package,) = built.glob(kind)
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    scripts = home / ("Scripts" if sys.platform == "win32" else "bin")
    install = ["-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{package}[data,plot]"]
    subprocess.run([scripts / "python", *install], cwd=tmp_path, check=True)

    def says(*command: object) -> str:
        done = subprocess.run([str(c) for c in command], cwd=tmp_path, env={"PATH": str(scripts)}, text=True,
                              check=True, stdout=subprocess.PIPE)  # fmt: skip
        return done.stdout

    where = says(scripts / "python", "-c", "import pcgraph; print(pcgraph.__file__)").strip()
    assert Path(where).is_relative_to(home)
    assert says(scripts / "pcgraph", "--version").strip() == f"pcgraph {pcgraph.__version__}"
    assert "Test accuracy:" in says(scripts / "pcgraph", "demo", "--quick", "--out", "demo")
    assert {p.name for p in (tmp_path / "demo").iterdir()} == {"graph.png", "learning.png"}
