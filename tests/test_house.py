"""The house rules: which room may import which, and what an installation is held to."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import pcgraph
from tests import ROOT

PACKAGE = ROOT / "pcgraph"

ROOMS = (
    "errors", "deprecation", "arguments", "processes", "notebook", "activations", "registry", "transforms", "energies",
    "combines", "graphs", "network", "clamps", "optimizers", "solvers", "topology", "coordinates", "duals", "scaling",
    "schedules", "pyg", "sweeps", "initializers", "plan", "backends", "inference", "ranks", "model", "learning",
    "rates", "advice", "serialization", "checkpoints", "training", "estimators", "data", "experiments", "tuning",
    "drawing", "cli", "testing",
)  # fmt: skip
"""A room imports only rooms before it, for types too. ``testing`` is last, and may import all but the command.

Of ``backends`` it imports what the package itself names: the seam, and nothing that lies behind it.
"""

EXTRAS = {
    "pooch": "an installation may lack it (the extra data)",
    "sklearn": "an installation may lack it (the extra data)",
    "matplotlib": "an installation may lack it (the extra plot)",
    "PIL": "it comes with matplotlib (the extra plot)",
    "hypothesis": "an installation may lack it (the extra testing)",
    "torch.utils.tensorboard": "an installation may lack it, and only one who logs to it needs it",
    "optuna": "an installation may lack it, and only a search needs it",
    "sqlalchemy": "it comes with optuna, and only a search needs it",
    "triton": "only machines with a GPU have it",
    "pymetis": "an installation may lack it (the extra parts)",
    "pcgraph.tuning.settings": "it brings images, and only a search over the settings of pcgraph train needs it",
    "pcgraph.backends.triton.program": "it brings triton, and only a network that is computed by it needs it",
    "pcgraph.backends.triton.adamw": "it brings triton, and only a step by it needs it",
    "torch.utils.flop_counter": "it brings triton, where there is one, and only a count of products needs it",
    "torch.distributed": "only a network that is cut over processes needs it; not every build of torch has it",
    "torch_geometric": "it brings torch._dynamo and sympy, over a second, and only a conversion needs it",
}
"""What may be imported inside a function, and why: what an installation may lack, and what is heavy and rarely used."""

LEAVES = {"testing", "cli"}
"""Rooms that no other room imports."""


# -- the order of rooms -----------------------------------------------------------------------------------------------


def imported(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> Iterator[str]:
    """The modules of pcgraph that one import statement names; ``pcgraph`` alone is the package as a whole."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "pcgraph")
        return
    parts = node.module.split(".") if node.module else []
    if node.level:
        base = module.split(".") if is_package else module.split(".")[:-1]
        parts = [*base[: len(base) - node.level + 1], *parts]
    if parts[:1] == ["pcgraph"]:
        origin = ".".join(parts)
        known, names = dict(modules()), [a.name for a in node.names if a.name != "__version__"]
        yield from {f"{origin}.{name}" if f"{origin}.{name}" in known else origin: None for name in names}


def is_extra(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether all that one import statement names lies in the packages that may be imported late."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        names = [] if node.level else [f"{node.module}.{alias.name}" for alias in node.names]
    return bool(names) and all(any(f"{name}.".startswith(f"{extra}.") for extra in EXTRAS) for name in names)


def misplaced(source: str, module: str, is_package: bool = False) -> list[str]:
    """What is wrong with the imports of one module, in words."""
    room = module.split(".")[1]
    found = []
    tree = ast.parse(source)
    for outer in ast.walk(tree):
        if not isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for node in ast.walk(outer):
            if isinstance(node, ast.Import | ast.ImportFrom) and not is_extra(node):
                found.append(f"{module}:{node.lineno} imports inside a function")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for name in imported(node, module, is_package):
            other = name.split(".")[1] if "." in name else ""
            if other == room:
                continue
            if room not in ROOMS or other not in ("", *ROOMS):
                found.append(f"{module}:{node.lineno} imports {other} from {room}: one of them is no room")
            elif other == "":
                found.append(f"{module}:{node.lineno} imports from the package as a whole, not from a room")
            elif name.startswith("pcgraph.backends."):
                found.append(f"{module}:{node.lineno} imports {name}, which lies behind the seam")
            elif other in LEAVES or (room != "testing" and ROOMS.index(other) > ROOMS.index(room)):
                found.append(f"{module}:{node.lineno} imports {other}, which does not come before {room}")
    return sorted(set(found))


@functools.cache
def modules() -> tuple[tuple[str, Path], ...]:
    """Every module of the package but the package itself, by its dotted name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "pcgraph":
            found.append((name, path))
    return tuple(found)


def test_every_room_imports_only_rooms_before_it() -> None:
    """If it fails, two rooms have begun to lean on each other, and neither can be read or replaced alone."""
    wrong = [w for name, path in modules() for w in misplaced(path.read_text(), name, path.name == "__init__.py")]
    assert not wrong, "\n".join(wrong)


def leaning(sources: dict[str, tuple[str, bool]]) -> nx.DiGraph:
    """Which module imports which, for types too; `sources` are the text of each, and whether it is a package.

    That a module needs its package's ``__init__`` to have been run is no import of it: only what is named counts.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(sources)
    for module, (source, is_package) in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                graph.add_edges_from((module, other) for other in imported(node, module, is_package))
    return graph


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """The sets of modules that lean on each other, one way round or another."""
    loops = set(nx.nodes_with_selfloops(graph))
    return sorted(sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1 or c & loops)


def test_no_modules_import_each_other() -> None:
    """If it fails, modules of one room can only be read, tested or replaced together, though they look apart."""
    graph = leaning({name: (path.read_text(), path.name == "__init__.py") for name, path in modules()})
    assert not circles(graph)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("from pcgraph.topology import report", "from pcgraph.topology import render", True),
        ("from . import report", "if TYPE_CHECKING:\n    from pcgraph.topology.render import Sheet", True),
        ("import pcgraph.topology.report", "def f():\n    from .render import Sheet", True),
        ("from .report import Report", "from pcgraph.topology.witness import Verdict", False),
        ("from pcgraph.topology.render import Sheet", "", True),
    ],
)
def test_a_circle_is_found(first: str, second: str, expected: bool) -> None:
    room = "pcgraph.topology"
    graph = leaning({f"{room}.render": (first, False), f"{room}.report": (second, False)})
    assert bool(circles(graph)) == expected


def test_a_module_that_imports_from_its_own_package_is_in_a_circle() -> None:
    room = {"pcgraph.topology": ("from .render import Sheet", True), "pcgraph.topology.render": ("", False)}
    assert not circles(leaning(room))
    room["pcgraph.topology.render"] = ("from pcgraph.topology import Verdict", False)
    assert circles(leaning(room)) == [sorted(room)]


def test_the_list_of_rooms_is_the_package() -> None:
    """A room that is not in the order would escape the test above."""
    assert {name.split(".")[1] for name, _ in modules()} == set(ROOMS)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from pcgraph.model import PCNetwork", "pcgraph.topology.report"),
        ("import pcgraph.training", "pcgraph.plan.compile"),
        ("from pcgraph import network", "pcgraph.graphs"),
        ("from pcgraph import PCNetwork", "pcgraph.training"),
        ("from ..model import PCNetwork", "pcgraph.topology.report"),
        ("from pcgraph.backends.torch import TorchBackend", "pcgraph.training.loop"),
        ("from pcgraph.backends import torch", "pcgraph.testing.conformance"),
        ("from .. import inference", "pcgraph.plan.compile"),
        ("from pcgraph.testing import reference", "pcgraph.model"),
        ("from pcgraph.cli import main", "pcgraph.testing.conformance"),
        ("def f():\n    from pcgraph.errors import DataError", "pcgraph.model"),
        ("def f():\n    import json", "pcgraph.model"),
        ("def f():\n    import optuna, json", "pcgraph.model"),
        ("def f():\n    from torch import fx", "pcgraph.model"),
        ("if TYPE_CHECKING:\n    from pcgraph.testing import reference", "pcgraph.network.network"),
        ("if TYPE_CHECKING:\n    from pcgraph.model import PCNetwork", "pcgraph.network.network"),
        ("if not TYPE_CHECKING_OFF:\n    from pcgraph.model import PCNetwork", "pcgraph.network.network"),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    from pcgraph.model import PCNetwork", "pcgraph.network.network"),
    ],
)
def test_a_misplaced_import_is_found(source: str, module: str) -> None:
    assert len(misplaced(source, module)) == 1


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from pcgraph.errors import DataError", "pcgraph.model"),
        ("from ..errors import DataError", "pcgraph.data.images"),
        ("from . import render", "pcgraph.topology.report"),
        ("from pcgraph import activations, energies", "pcgraph.network.structure"),
        ("from pcgraph import __version__", "pcgraph.cli"),
        ("def f():\n    import matplotlib.pyplot as plt", "pcgraph.drawing"),
        ("def f():\n    from torch import distributed", "pcgraph.plan"),
        ("def f():\n    from torch.distributed import init_process_group", "pcgraph.plan"),
        ("from pcgraph.model import PCNetwork", "pcgraph.testing.reference"),
        ("if TYPE_CHECKING:\n    from pcgraph.network import Network", "pcgraph.model"),
        ("from pcgraph.backends import Backend, Program", "pcgraph.inference.run"),
    ],
)
def test_a_well_placed_import_is_not(source: str, module: str) -> None:
    assert misplaced(source, module) == []


# -- what an import costs ---------------------------------------------------------------------------------------------

HEAVY = (
    "torch_geometric", "torch._dynamo", "torch._inductor", "sympy", "matplotlib", "hypothesis", "optuna", "triton",
    "sklearn", "pooch", "pandas", "tensorboard", "torch.utils.tensorboard", "typer", "pcgraph.cli", "pcgraph.data",
    "pcgraph.drawing", "pcgraph.estimators", "pcgraph.testing",
)  # fmt: skip


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "needed"),
    [("pcgraph", set()), ("pcgraph.cli", {"typer", "pcgraph.cli", "pcgraph.data", "pcgraph.drawing"})],
)
def test_an_import_loads_nothing_that_only_some_need(module: str, needed: set[str]) -> None:
    """Every script, every worker process and every `--help` would pay for it, seconds each time."""
    loaded = python(
        "import sys, torch, networkx, numpy; before = set(sys.modules)\n"
        f"import {module}; print(sorted(set({HEAVY}) & (set(sys.modules) - before)))"
    )
    assert set(ast.literal_eval(loaded)) == needed


def test_importing_the_package_takes_less_than_half_of_what_it_stands_on() -> None:
    """The limit is half a second beyond torch, networkx and numpy, which take some 1.2 s themselves."""
    code = (
        "from time import process_time as now; a = now(); import torch, networkx, numpy; b = now(); import pcgraph; "
        "print((now() - b) / (b - a))"
    )
    assert min(float(python(code)) for _ in range(3)) < 0.4


def test_rooms_that_load_late_are_there_all_the_same() -> None:
    """After `import pcgraph`, what the pages name is there: to be used, to be listed, and to be completed by Tab."""
    for place in ("data.load", "testing.reference.infer", "testing.conformance.check_energy",
                  "testing.strategies.problems", "drawing.graph", "pyg.to_data", "PCClassifier",
                  "PCRegressor"):  # fmt: skip
        assert python(f"import pcgraph; print(callable(pcgraph.{place}))") == "True"
    assert {"data", "drawing", "estimators", "testing", "pyg"} <= {*dir(pcgraph)} & {*pcgraph.__all__}
    assert {"conformance", "reference", "strategies"} <= set(dir(pcgraph.testing))
    with pytest.raises(AttributeError, match="module 'pcgraph' has no attribute 'date'"):
        pcgraph.date  # noqa: B018
    with pytest.raises(AttributeError, match="module 'pcgraph.testing' has no attribute 'references'"):
        pcgraph.testing.references  # noqa: B018


# -- what an installation is held to ----------------------------------------------------------------------------------


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if line and not line.startswith("#"))


def requirements() -> list[Requirement]:
    declared = project()
    listed = [*declared["dependencies"], *(r for group in declared["optional-dependencies"].values() for r in group)]
    return [r for r in map(Requirement, listed) if r.name != "pcgraph"]


def test_every_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    """A fresh installation must never pick a version of torch, or of anything, that the tests did not run with."""
    pinned = pins()
    for requirement in requirements():
        version = pinned.get(requirement.name.lower().replace("_", "-"))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert Version(version) in requirement.specifier, f"{requirement} does not allow the pinned {version}"


def test_every_installation_uses_the_pinned_versions() -> None:
    """A pip line without the constraints would install an untested torch."""
    files = [ROOT / "Makefile", ROOT / ".ci" / "run", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    files += (ROOT / ".github" / "workflows").glob("*.yml")
    lines = [(f.name, line) for f in files for line in f.read_text().splitlines() if "pip install" in line]
    assert any(name == "Makefile" for name, _ in lines)
    assert not [f"{name}: {line}" for name, line in lines if "-c constraints.txt" not in line]


def test_the_version_is_one() -> None:
    assert project()["version"] == pcgraph.__version__
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == pcgraph.__version__


# -- the commands -----------------------------------------------------------------------------------------------------

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_an_old_python_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """A newcomer with an old Python must be told so at once, not after a failed installation."""
    copy_of_what_make_reads(tmp_path)
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make(tmp_path, "demo", f"PYTHON={old}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Python 3.8.10" in done.stderr
    assert "PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_a_missing_python_is_said_to_be_missing(tmp_path: Path) -> None:
    copy_of_what_make_reads(tmp_path)
    done = make(tmp_path, "test", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer; 'no-such-python' is" in done.stderr


@needs_make
def test_nothing_is_installed_twice(tmp_path: Path) -> None:
    """`make demo` a second time goes straight to the demo, and a changed constraint installs again."""
    copy_of_what_make_reads(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / ".installed").touch()
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    assert "pip install" not in make(tmp_path, "-n", "demo").stdout
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert "pip install" in make(tmp_path, "-n", "demo").stdout


def copy_of_what_make_reads(folder: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run make as a user would, not as a part of another make."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_ci_runs_what_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    for command in ("make demo", "make test", "make docs"):
        assert command in (ROOT / "README.md").read_text()
        assert command in script


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert sys.version_info >= (3, 11)


MAKERS = {
    "arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "logspace", "normal", "ones", "rand",
    "randint", "randn", "randperm", "scalar_tensor", "sparse_coo_tensor", "sparse_csr_tensor", "tensor",
    "tril_indices", "triu_indices", "zeros",
}  # fmt: skip
"""torch's functions that make a tensor on torch's default device, unless they are told where."""


def makers_of_tensors(source: str) -> list[str]:
    """Find the calls that leave it to torch's default where a tensor lies."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"torch.{name}" for name in MAKERS}
        if not any(keyword.arg == "device" for keyword in node.keywords)
    ]


def test_every_tensor_is_made_on_a_named_device() -> None:
    """Where torch's default is a GPU, one that is not would lie beside a network on the CPU, or draw there."""
    assert makers_of_tensors("torch.zeros(3); torch.ones(2, device=d); torch.nn.init.zeros_(x)") == ["torch.zeros(3)"]
    found = {path: makers_of_tensors(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(PACKAGE)): calls for path, calls in found.items() if calls} == {}


# -- files ------------------------------------------------------------------------------------------------------------

TEXTS = {"open", "read_text", "write_text", "NamedTemporaryFile", "fdopen"}


def texts_without_encoding(source: str) -> list[str]:
    """Find the calls that leave it to the system by which encoding a file is read or written."""
    found = []
    for node in ast.walk(ast.parse(source)):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name.rpartition(".")[2] not in TEXTS or name in ("os.open", "gzip.open", "image.open", "tarfile.open"):
            continue
        said = {keyword.arg: keyword.value for keyword in node.keywords}
        words = [a.value for a in [*node.args, *said.values()] if isinstance(a, ast.Constant)]
        binary = any(isinstance(word, str) and re.fullmatch("[rwax]b[+]?", word) for word in words)
        if not (binary or "encoding" in said or None in said):
            found.append(ast.unparse(node))
    return found


def test_every_text_is_read_and_written_as_utf_8() -> None:
    """Windows takes another encoding where none is named: a table with a dash cannot be read, or not even written."""
    said = 'open(p); p.open("rb"); open(p, "w", **TEXT); p.read_text(); p.write_text(t, encoding="a"); os.open(p, 0)'
    assert texts_without_encoding(said) == ["open(p)", "p.read_text()"]
    folders = (PACKAGE, ROOT / "examples", ROOT / "benchmarks", ROOT / "docs")
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    found = {path: texts_without_encoding(path.read_text(encoding="utf-8")) for path in paths}
    assert {str(path.relative_to(ROOT)): calls for path, calls in found.items() if calls} == {}
