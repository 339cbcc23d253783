"""``fit`` learns over ranks what it does in one process, whatever the rule, the initializer and what moves states."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.across.fitted import CASES, compare, fitted
from tests.ranks import Ranks

pytestmark = pytest.mark.filterwarnings("ignore::pcgraph.errors.PCGraphWarning")


@pytest.mark.parametrize("case", CASES)
def test_fit_learns_over_ranks_what_it_does_in_one_process(ranks: Ranks, case: str) -> None:
    """If it fails, a rule or a start works on small networks and not on large ones."""
    one = fitted(case, 0)
    for found in ranks.run(fitted, case, 2)[:2]:
        compare(found, one)


@pytest.mark.parametrize("case", ["memory", pytest.param("following", marks=pytest.mark.slow)])
def test_what_is_learned_and_followed_goes_on_on_another_number_of_ranks(
    ranks: Ranks, case: str, tmp_path: Path
) -> None:
    one = fitted(case, 0)
    ranks.run(fitted, case, 4, tmp_path, 3)
    for found in ranks.run(fitted, case, 2, tmp_path)[:2]:
        compare(found, one)
    fitted(case, 0, tmp_path / "alone", 3)
    for found in ranks.run(fitted, case, 4, tmp_path / "alone"):
        compare(found, one)
