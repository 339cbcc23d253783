"""The table of thresholds says of each what it is and where it comes from."""

from __future__ import annotations

import re
from dataclasses import fields

from pcgraph.backends import Traits
from tests import ROOT


def test_every_threshold_says_where_it_comes_from():
    """Whoever tunes another machine must know which numbers were measured, and where, and which were guessed."""
    entries = re.split(r"\n    (?=\w[\w, ]* : )", Traits.__doc__.split("----------\n")[1])
    pairs = (entry.split(" : ", 1) for entry in entries)
    said = {name.strip(): text for names, text in pairs for name in names.split(",")}
    assert set(said) == {field.name for field in fields(Traits)}
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for text in said.values():
        (source,) = re.findall(r"\[(.+?)\]", text, re.DOTALL)
        sections = re.findall(r'"((?:What|On) .+?)"', re.sub(r"\s+", " ", source))
        assert sections or re.match(r"By\s+hand", source)
        assert all(f"## {section}\n" in page for section in sections)
