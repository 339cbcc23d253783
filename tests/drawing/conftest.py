"""What the tests of pictures share."""

import matplotlib.pyplot as plt
import pytest

from tests.readable import alike_in_grey, check


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def _told_apart(monkeypatch):
    """Lines of every picture are told apart in grey; how large it is, its user says."""
    check(monkeypatch, alike_in_grey)
