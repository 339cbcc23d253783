"""What docs/topology.md shows is what happens."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "topology.md"


def test_the_examples_of_the_page():
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried > 20
    assert not failed


def test_its_pictures_exist():
    named = [part.split(")")[0] for part in PAGE.read_text(encoding="utf-8").split("](")[1:]]
    assert len(named) == 5
    assert all((PAGE.parent / picture).is_file() for picture in named)
