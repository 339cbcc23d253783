"""The site of several versions, and the workflow that publishes it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import yaml

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
    assert json.loads((tmp_path / "versions.json").read_text()) == listed
    assert f"url={first}/index.html" in (tmp_path / "index.html").read_text()


def test_the_workflow_builds_always_and_publishes_only_what_was_pushed() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "docs.yml").read_text())
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    assert any("make docs" in step.get("run", "") for step in build["steps"])
    assert workflow["permissions"] == {"contents": "read"}
    assert publish["if"] == "github.event_name == 'push'"
    assert publish["permissions"] == {"contents": "write"}
    assert any("docs/versions.py" in step.get("run", "") for step in publish["steps"])
