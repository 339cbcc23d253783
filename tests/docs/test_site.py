"""The site of several versions, and the workflow that publishes it."""

from __future__ import annotations

import json
import re
import runpy
import types
from collections import Counter
from pathlib import Path

import pytest
import yaml

import pcgraph
from tests import ROOT

TOOL = runpy.run_path(str(ROOT / "docs" / "versions.py"))


@pytest.mark.parametrize(
    ("folders", "listed", "first"),
    [
        (["dev"], ["dev"], "dev"),
        (["0.9.0", "dev", "0.10.0", "0.2.1", "assets"], ["dev", "0.10.0", "0.9.0", "0.2.1"], "0.10.0"),
        (["1.0.0"], ["1.0.0"], "1.0.0"),
    ],
)
def test_versions_are_listed_the_newest_first(
    folders: list[str], listed: list[str], first: str, tmp_path: Path
) -> None:
    """Whoever opens the site sees the newest release, and finds the others."""
    for folder in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "index.html").touch()
    TOOL["write"](tmp_path)
    assert json.loads((tmp_path / "versions.json").read_text(encoding="utf-8")) == listed
    assert f"url={first}/index.html" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_workflow_builds_always_and_publishes_only_what_was_pushed() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "docs.yml").read_text(encoding="utf-8"))
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    assert any("make docs" in step.get("run", "") for step in build["steps"])
    assert workflow["permissions"] == {"contents": "read"}
    assert publish["if"] == "github.event_name == 'push'"
    assert publish["permissions"] == {"contents": "write"}
    assert any("docs/versions.py" in step.get("run", "") for step in publish["steps"])


def test_no_page_has_the_name_of_one_that_sphinx_makes() -> None:
    """A page search.md was written to search.html, where Sphinx put its own afterwards: nobody could read it."""
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    assert not {"search", "genindex", "py-modindex"} & {page.as_posix() for page in pages}


def test_every_page_stands_in_the_contents_once() -> None:
    """One that stands there twice, as a pattern of names let it, has two places in the menu, and neither is right."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    trees = re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    assert not [page for page, times in Counter(listed).items() if times > 1 or "*" in page]
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= set(listed)


def test_the_reference_begins_with_every_public_name() -> None:
    """Whoever looks for a name that the package has finds it in the first table, or in the room that it lies in."""
    text = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
    public = {name: getattr(pcgraph, name) for name in pcgraph.__all__}
    rooms = {name for name, found in public.items() if isinstance(found, types.ModuleType)}
    errors = {name for name in dir(pcgraph.errors) if name in public}
    assert public.keys() - rooms - errors == listed


def test_every_example_has_a_card_that_leads_to_it() -> None:
    """Readers choose in the gallery: an example that is not in it is not found, and a wrong link leads nowhere."""
    text = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    cards = re.findall(
        r"""^:::\{grid-item-card\} .+\n:img-top: (\S+)\n:img-alt: .+\n:link: "#(\S+)"\n.+\n:::$""", text, re.MULTILINE
    )
    assert len(cards) == text.count("{grid-item-card}")
    headings = re.findall(r"^## (.*`(\w+)\.py`)$", text, re.MULTILINE)
    ids = [re.sub("[^a-z0-9]+", "-", heading.lower()).strip("-") for heading, _ in headings]
    assert [link for _, link in cards] == ids
    assert [picture for picture, _ in cards] == [f"figures/examples/{name}.png" for _, name in headings]
    assert all((ROOT / "docs" / picture).exists() for picture, _ in cards)
    assert all((ROOT / "examples" / f"{name}.py").exists() for _, name in headings)
