"""Write what a site of several versions needs: ``python docs/versions.py SITE``, where SITE has a folder for each.

``versions.json`` lists them, the newest first, for the menu of the pages; ``index.html`` leads to the newest that was
released, or to ``dev`` where none was.
"""

import json
import re
import sys
from pathlib import Path


def versions(site: Path) -> list[str]:
    """Return "dev" if it is there, then the released versions, the newest first."""
    found = [path.parent.name for path in site.glob("*/index.html")]
    numbers = sorted((name for name in found if re.fullmatch(r"\d+(\.\d+)*", name)), key=key, reverse=True)
    return ["dev"] * ("dev" in found) + numbers


def key(version: str) -> tuple[int, ...]:
    """Order 0.10.0 behind 0.9.0."""
    return tuple(map(int, version.split(".")))


def write(site: Path) -> None:
    """Write both files."""
    listed = versions(site)
    newest = next((version for version in listed if version != "dev"), "dev")
    (site / ".nojekyll").touch()  # folders with an underscore are pages, too
    (site / "versions.json").write_text(json.dumps(listed) + "\n", encoding="utf-8")
    page = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={newest}/index.html">\n'
    (site / "index.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
