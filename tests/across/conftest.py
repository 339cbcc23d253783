"""Four ranks that all tests of networks over several share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ranks import Ranks


@pytest.fixture(scope="package")
def ranks() -> Iterator[Ranks]:
    with Ranks(4) as started:
        yield started
