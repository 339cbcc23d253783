"""The notebooks run, show again what is kept in them, and are written for people."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests import ROOT
from tests.docs.test_docs import agrees

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def shown(cell: Any) -> list[tuple[str, str]]:
    """What a cell shows: what it printed, or the kinds of what it ended with and drew."""
    outputs = cell.get("outputs", [])
    return [
        (output.name, output.text)
        if output.output_type == "stream"
        else (output.output_type, " ".join(sorted(output.data)))
        for output in outputs
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_shows_what_is_kept(path: Path) -> None:
    """Readers see the outputs that are kept: they must be what the code gives, on any machine."""
    kept, now = read(path), runpy.run_path(str(FOLDER / "run.py"))["executed"](path)
    for before, after in zip(kept.cells, now.cells, strict=True):
        assert len(shown(before)) == len(shown(after)), before.source
        for (kind, said), (found, printed) in zip(shown(before), shown(after), strict=True):
            assert kind == found, before.source
            assert agrees(said, printed), f"{path.name} keeps\n{said}found\n{printed}"


def test_there_are_six_and_the_page_lists_them() -> None:
    assert len(NOTEBOOKS) == 6
    page = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert all(path.stem in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_kept_whole_and_clean(path: Path) -> None:
    """Every cell has been run, once and in order; nothing tells of the machine; there is more to read than code."""
    notebook = read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert notebook.cells[0].source.startswith("# ")
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/tmp/|/home/|site-packages|Traceback", text)
    assert all(output.get("name") != "stderr" for cell in code for output in cell.outputs)
    assert len(text) < 200_000
    pairs = zip(notebook.cells, notebook.cells[1:])
    assert sum(a.cell_type == b.cell_type == "code" for a, b in pairs) <= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_links_to_pages_that_exist(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", cell.source):
                assert (FOLDER / target).exists(), target
