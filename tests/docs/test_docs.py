"""The documentation is run: what a reader copies works, and prints what the page says.

Each page is one program in an empty folder. ``python`` blocks run in order and share their names, an ``output`` block
is compared with what the block before it printed, and commands run in their place. What cannot run says so in its
first line, and is counted here.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import math
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pcgraph
import pcgraph.cli
from tests import ROOT
from tests.test_house import ROOMS

DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]

NOT_RUN = {
    "README.md": 1,
    "CONTRIBUTING.md": 1,
    "docs/tutorial.md": 1,
    "docs/notebooks/index.md": 1,
    "docs/releasing.md": 1,
    "docs/processes.md": 1,
}
"""How many blocks of each page say that the tests do not run them. They install packages, or build a release."""

RUN = {"python", "pycon", "bash", "console"}
SHOWN = {"output", "text", "bibtex", ""}
"""Languages of blocks: those that are run, and those that show something."""

FENCE = re.compile(r"^( *)(`{3,}|:{3,})([^\n`]*)\n(.*?)^\1\2[ ]*$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"# not run by the tests: \w+")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?")


@dataclass(frozen=True)
class Block:
    """A fenced block: the line on which its text starts, its language and its text."""

    line: int
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.language in RUN and not MARK.match(self.text)


def blocks(path: Path) -> list[Block]:
    """The blocks of a page, those in list items included."""
    text = path.read_text(encoding="utf-8")
    found = []
    for m in FENCE.finditer(text):
        language = (m[3].strip().split() or [""])[0]
        found.append(Block(text[: m.start(4)].count("\n") + 1, language, textwrap.dedent(m[4])))
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# -- running a page ---------------------------------------------------------------------------------------------------


@pytest.fixture
def as_before() -> Iterator[None]:
    """What a page adds to a table of names (activations, transforms, backends) is gone for other tests."""
    modules = [module for key, module in sys.modules.items() if key.partition(".")[0] == "pcgraph"]
    named = [t for module in modules for key, t in vars(module).items() if key.isupper() and type(t) is dict]
    tables = {id(table): table for table in named}
    kept = {key: dict(table) for key, table in tables.items()}
    yield
    for key, table in tables.items():
        for added in table.keys() - kept[key].keys():
            del table[added]


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("path", PAGES, ids=name)
def test_the_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader copies works, in the order of the page, and prints what stands there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, object] = {"__name__": "document"}
    printed = ""
    for block in blocks(path):
        if block.language == "output":
            assert agrees(block.text, printed), f"{name(path)}:{block.line} says\n{block.text}found\n{printed}"
        elif block.is_run and block.language in ("bash", "console"):
            for line in commands(block):
                run_command(line)
        elif block.is_run:
            printed = run_python(path, block, names)


def run_python(path: Path, block: Block, names: dict[str, object]) -> str:
    """Run a block, plain or as a doctest, and return what it printed."""
    if not block.text.lstrip().startswith(">>>"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("\n" * (block.line - 1) + block.text, str(path), "exec"), names)
        return out.getvalue()
    parsed = doctest.DocTestParser().get_doctest(block.text, names, path.name, str(path), block.line)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(parsed, clear_globs=False)
    assert runner.failures == 0, f"{name(path)}:{block.line}"
    names.update(parsed.globs)
    return ""


def agrees(said: str, printed: str) -> bool:
    """Whether a page tells what was printed: ``...`` is anything; counts are exact, measured numbers nearly so.

    Measured are numbers with a decimal point, an exponent or a percent sign; machines differ in them.
    """
    pattern, place = "", 0
    said, printed = " ".join(said.split()), " ".join(printed.split())
    for m in re.finditer(NUMBER.pattern + r"|\.\.\.", said):
        pattern += re.escape(said[place : m.start()]) + (".*?" if m[0] == "..." else f"({NUMBER.pattern})")
        place = m.end()
    found = re.fullmatch(pattern + re.escape(said[place:]), printed)
    wanted = [m[0] for m in NUMBER.finditer(said)]
    return found is not None and all(near(w, f) for w, f in zip(wanted, found.groups(), strict=True))


def near(said: str, found: str) -> bool:
    if not re.search(r"[.e%]", said):
        return said == found
    return math.isclose(float(said.rstrip("%")), float(found.rstrip("%")), rel_tol=0.3)


@pytest.mark.parametrize(
    ("said", "printed", "agree"),
    [
        ("accuracy 96.7%", "accuracy 95.1%\n", True),
        ("accuracy 96.7%", "accuracy 9.5%\n", False),
        ("(360 samples)", "(361 samples)", False),
        ("['h1', 'y']", "['h2', 'y']", False),
        ("seconds 1.2, ...", "seconds 1.3, and so on", True),
        ("True", "True False", False),
        ("-0.5", "0.5", False),
        ("0e+00 3e-06", "0e+00 2.5e-06", True),
        ("3e-06", "3e-04", False),
    ],
)
def test_outputs_are_compared_with_care(said: str, printed: str, agree: bool) -> None:
    """A comparison that lets everything pass would leave wrong figures in the pages."""
    assert agrees(said, printed) is agree


# -- commands ---------------------------------------------------------------------------------------------------------


def commands(block: Block) -> list[str]:
    """The command lines of a block, continued ones joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if shlex.split(line, comments=True)]


def run_command(line: str) -> None:
    """Run a line of a shell as far as a test can: an installation, say, has no place here and must be marked."""
    words = shlex.split(line, comments=True)
    program, arguments = words[0], words[1:]
    if program == "pcgraph":
        done = CliRunner().invoke(pcgraph.cli.app, arguments)
        allowed = (0, 1) if arguments[:1] == ["check"] else (0,)
        assert done.exit_code in allowed, f"{line}: {done.output} {done.exception}"
        assert "exits 1:" not in line or done.exit_code == 1, line
        assert "exits 0:" not in line or done.exit_code == 0, line
    elif program in ("printf", "ls", "cat"):
        subprocess.run(["bash", "-c", line], check=True, capture_output=True)
    elif program == "make":
        targets = [word for word in arguments if "=" not in word]
        known = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
        assert set(targets) <= set(known), line
    elif program.endswith("python") and arguments[:1] == ["-m"]:
        check_module(arguments, line)
    elif program.endswith("python"):
        source = (ROOT / arguments[0]).read_text(encoding="utf-8")
        options = [word for word in arguments[1:] if word.startswith("--")]
        assert all(f'"{option}"' in source for option in options), line
    else:
        assert os.access(ROOT / program, os.X_OK), f"{line}: mark the block as not run by the tests"


def check_module(arguments: list[str], line: str) -> None:
    """``python -m pytest`` with a marker that exists, and files that do."""
    assert arguments[1] == "pytest", f"{line}: mark the block as not run by the tests"
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"][
        "markers"
    ]
    if "-m" in arguments[2:]:
        marker = arguments[arguments.index("-m", 2) + 1]
        assert any(each.startswith(f"{marker}:") for each in known), line
    assert all((ROOT / word).exists() for word in arguments if word.endswith(".py")), line


# -- nothing is left out ----------------------------------------------------------------------------------------------


def test_no_page_is_left_out() -> None:
    """A page that is not in the list, or a block in a language that the list does not know, would never be run."""
    ignored = {".venv", "_build", "node_modules", ".pytest_cache"}
    everywhere = {p for p in ROOT.rglob("*.md") if not ignored & set(p.relative_to(ROOT).parts)}
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0:
        everywhere = {ROOT / line for line in tracked.stdout.splitlines()} & everywhere
    assert everywhere <= set(PAGES)
    for path in PAGES:
        for block in blocks(path):
            known = block.language in RUN | SHOWN or block.language.startswith("{")
            assert known, f"{name(path)}:{block.line} is in an unknown language, {block.language!r}"


def test_what_is_not_run_is_marked_and_counted() -> None:
    """Each block that the tests leave out is one that nobody has tried; a new one is to be seen in review."""
    marked = Counter(name(p) for p in PAGES for b in blocks(p) if b.language in RUN and not b.is_run)
    assert marked == NOT_RUN
    assert sum(b.is_run for p in PAGES for b in blocks(p)) > 50


def test_every_fence_is_found() -> None:
    """A fence that the pattern misses is a block that is not run."""
    for path in PAGES:
        opened = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r" *(```|:::)", line)]
        inside = sum(len(re.findall(r"^ *(?:```|:::)", b.text, re.MULTILINE)) for b in blocks(path))
        assert len(opened) == 2 * len(blocks(path)) + inside, name(path)


def test_the_pages_link_to_files_that_exist() -> None:
    for path in PAGES:
        text = FENCE.sub("", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), f"{name(path)} links to {target}"


def test_the_pages_name_files_that_exist() -> None:
    """Whoever follows a page into the code must find it there, wherever it has been moved since."""
    folders = ("benchmarks", "docs", "examples", "pcgraph", "tests")
    files = [f"/{name(p)}" for folder in folders for p in (ROOT / folder).rglob("*.py")]
    for path in PAGES:
        for file in re.findall(r"`([\w/]+\.py)`", FENCE.sub("", path.read_text(encoding="utf-8"))):
            assert any(known.endswith(f"/{file}") for known in files), f"{name(path)} names {file}"


def test_the_table_of_rooms_is_the_house() -> None:
    """A newcomer reads the order of the rooms in the table."""
    table = (DOCS / "architecture.md").read_text(encoding="utf-8").split("| room |")[1].split("\n\n")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == ROOMS


def toctrees(path: Path) -> set[str]:
    """What the toctrees of a page name, patterns resolved."""
    entries = [e for b in blocks(path) if b.language == "{toctree}" for e in b.text.split() if not e.startswith(":")]
    pages = [p.relative_to(path.parent).with_suffix("").as_posix() for p in path.parent.rglob("*.md")]
    return {page for page in pages for entry in entries if fnmatch(page, entry)}


def test_every_page_is_in_a_table_of_contents() -> None:
    """A page that no toctree names is in no menu, and `make docs` fails on it."""
    named = toctrees(DOCS / "index.md") | {f"api/{page}" for page in toctrees(DOCS / "api" / "index.md")}
    figures = DOCS / "figures"  # tables beside their rows, which conf.py leaves out
    found = (p for p in PAGES if DOCS in p.parents and figures not in p.parents)
    pages = {p.relative_to(DOCS).with_suffix("").as_posix() for p in found}
    assert pages - {"index"} <= named


def documented() -> set[str]:
    """The public names that the API pages document, with their modules."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in (DOCS / "api").glob("*.md"))
    found: set[str] = set()
    for module, options in re.findall(r"automodule:: (\S+)\n((?:   .*\n)*)", text):
        listed = vars(__import__(module, fromlist=["*"])).get("__all__", [])
        left = re.search(r":exclude-members: (.*)", options)
        found |= {f"{module}.{n}" for n in set(listed) - set(left[1].split(", ") if left else [])} | {module}
    for explicit in re.findall(r"(?:autoclass|autofunction|autodata|py:data):: (\S+)", text):
        found.add(explicit if explicit.startswith("pcgraph.") else f"pcgraph.{explicit}")
    return found


def test_every_public_name_is_in_the_reference() -> None:
    """A name that the reference lacks is one that nobody finds."""
    found = documented()
    rooms = ("graphs", "activations", "transforms", "energies", "topology", "initializers", "optimizers", "learning",
             "training", "checkpoints", "data", "drawing", "serialization", "pyg", "errors", "backends",
             "solvers", "coordinates")  # fmt: skip
    for room in rooms:
        module = __import__(f"pcgraph.{room}", fromlist=["*"])
        for each in module.__all__:
            elsewhere = {("transforms", "Shape"), ("learning", "InferenceResult"), ("backends", "FusedAdamW")}
            hidden = (room, each) in elsewhere
            assert {f"pcgraph.{room}.{each}", f"pcgraph.{each}"} & found or hidden, f"pcgraph.{room}.{each}"
    for each in pcgraph.__all__:
        is_room = isinstance(getattr(pcgraph, each), types.ModuleType)
        if not is_room:
            homes = {n for n in found if n.endswith(f".{each}")}
            assert homes, f"pcgraph.{each}"


@pytest.mark.parametrize("path", sorted({*(DOCS / "api").glob("*.md")} - {DOCS / "api" / "index.md"}), ids=name)
def test_no_page_of_the_reference_is_a_bare_list(path: Path) -> None:
    """Whoever opens it for the first time is told what these things are for before they are listed."""
    before = path.read_text(encoding="utf-8").split("```{eval-rst}")[0]
    prose = FENCE.sub("", before)
    assert len(prose.split()) >= 30, prose


def test_the_citation_names_this_version_and_the_paper() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {pcgraph.__version__}\n" in text
    assert "Faster Predictive Coding Networks via Better Initialization" in text
