"""Networks over ranks train as one process does, and are saved by all of them and read by any number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pcgraph
from tests.across.training import CASES, Run, alone, compare, trained
from tests.ranks import Ranks

pytestmark = pytest.mark.filterwarnings("ignore::pcgraph.errors.PCGraphWarning")


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with Ranks(4) as started:
        yield started


def together(ranks: Ranks, parts: int, *arguments: Any, **more: Any) -> list[Any]:
    """Train on some ranks, and return what each of them has."""
    found = ranks.run(_call, trained, (arguments[0], parts, *arguments[1:]), more)[:parts]
    assert [each["rank"] for each in found] == list(range(parts))
    return found


def _call(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return function(*arguments, **keywords)


@pytest.mark.parametrize("parts", [2, 4])
def test_ranks_learn_what_one_process_does(ranks: Ranks, parts: int) -> None:
    """If it fails, whoever cuts a network trains another one."""
    for case in CASES:
        one = alone(case)
        for found in together(ranks, parts, case):
            compare(found, one)


@pytest.mark.parametrize("case", ["adamw, average", "null", "accumulate", "adam"])
def test_a_run_of_four_ranks_goes_on_on_any_number(ranks: Ranks, case: str, tmp_path: Path) -> None:
    """If it fails, a checkpoint binds its run to the number of processes that wrote it, or loses what they kept."""
    one = alone(case)
    whole = together(ranks, 4, case)
    for parts in (4, 2, 1, 0):
        folder = tmp_path / str(parts)
        stopped = together(ranks, 4, case, folder, 6)  # in the middle of the second epoch
        assert stopped[0]["stopped"] == "callback"
        if parts > 1:
            for rank, found in enumerate(together(ranks, parts, case, folder)):
                compare(found, whole[rank] if parts == 4 else one, exact=parts == 4)
        else:
            compare(alone(case, folder, parts=parts), one)


@pytest.mark.parametrize("case", ["adamw, average", "accumulate", "adam"])
def test_a_run_of_one_process_goes_on_on_several(ranks: Ranks, case: str, tmp_path: Path) -> None:
    one = alone(case)
    for parts in (2, 4):
        folder = tmp_path / str(parts)
        alone(case, folder, 6)
        for found in together(ranks, parts, case, folder):
            compare(found, one)


def test_what_ranks_have_saved_is_read_by_one_process(ranks: Ranks, tmp_path: Path) -> None:
    """If it fails, nobody can use on a laptop what a cluster has trained."""
    together(ranks, 4, "adam", tmp_path)
    checkpoint = pcgraph.load(tmp_path)
    one = Run("adam")
    one.fit()
    net = checkpoint.net if "unsaved" not in checkpoint._graph else Run("adam").net
    again = Run("adam")
    checkpoint.restore(net=again.net, optimizer=again.optimizer, initializer=again.init)
    assert net.partition is None
    for name, (_, tensor) in one.tensors().items():
        torch.testing.assert_close(again.tensors()[name][1], tensor, rtol=1e-12, atol=1e-14)
