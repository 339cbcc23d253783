"""What the tests of examples share."""

import pytest

from tests.readable import alike_in_grey, check, too_small


@pytest.fixture(autouse=True)
def _readable(monkeypatch):
    """Whatever picture an example draws can be read on a page, also in grey."""
    check(monkeypatch, too_small, alike_in_grey)
