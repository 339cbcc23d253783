"""Networks over ranks train as one process does, and are saved by all of them and read by any number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pcgraph
from tests.across.training import (
    CASES,
    Run,
    alone,
    compare,
    evaluated,
    judged,
    meshed,
    refused,
    same_numbers,
    trained,
)
from tests.ranks import Ranks

pytestmark = pytest.mark.filterwarnings("ignore::pcgraph.errors.PCGraphWarning")


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


@pytest.mark.parametrize(
    ("case", "over"),
    [("adamw, average", (4, 2, 1, 0)), ("accumulate", (2, 0)), ("adam", (4,)), ("null", (2,)), ("memory", (4, 0)),
     ("separate", (4, 1)), ("many apart", (2, 0)), ("adafactor", (2, 0)), ("average, rich", (4, 2, 0))],
)  # fmt: skip
def test_a_run_of_four_ranks_goes_on_on_any_number(
    ranks: Ranks, case: str, over: tuple[int, ...], tmp_path: Path
) -> None:
    """If it fails, a checkpoint binds its run to the number of processes that wrote it, or loses what they kept."""
    one = alone(case)
    whole = together(ranks, 4, case) if 4 in over else []
    for parts in over:
        folder = tmp_path / str(parts)
        stopped = together(ranks, 4, case, folder, 6)  # in the middle of the second epoch
        assert stopped[0]["stopped"] == "callback"
        if parts > 1:
            for rank, found in enumerate(together(ranks, parts, case, folder)):
                compare(found, whole[rank] if parts == 4 else one, exact=parts == 4)
        else:
            compare(alone(case, folder, parts=parts), one)


@pytest.mark.slow
def test_what_four_ranks_have_saved_eight_go_on_with_and_the_other_way(tmp_path: Path) -> None:
    """If it fails, a run cannot grow with the machine that it gets."""
    one = alone("long")
    with Ranks(8) as eight:
        for before, after in ((4, 8), (8, 4), (8, 2), (2, 8), (8, 8)):
            folder = tmp_path / f"{before} {after}"
            together(eight, before, "long", folder, 6)
            for found in together(eight, after, "long", folder):
                compare(found, one)
        alone("long", tmp_path / "alone", 6)
        for found in together(eight, 8, "long", tmp_path / "alone"):
            compare(found, one)
        together(eight, 8, "long", tmp_path / "eight", 6)
    compare(alone("long", tmp_path / "eight"), one)


@pytest.mark.parametrize("case", ["adamw, average", "accumulate", "many apart", "average of the weights"])
def test_a_run_of_one_process_goes_on_on_several(ranks: Ranks, case: str, tmp_path: Path) -> None:
    one = alone(case)
    for parts in (2, 4):
        folder = tmp_path / str(parts)
        alone(case, folder, 6)
        for found in together(ranks, parts, case, folder):
            compare(found, one)


def test_what_ranks_have_saved_is_read_by_one_process(ranks: Ranks, tmp_path: Path) -> None:
    """If it fails, nobody can use on a laptop what a cluster has trained."""
    for case in ("adam", "scheduler"):
        together(ranks, 4, case, tmp_path / case)
        one, again, checkpoint = Run(case), Run(case), pcgraph.load(tmp_path / case)
        one.fit()
        checkpoint.restore(net=again.net, optimizer=again.optimizer, initializer=again.init)
        for name, (_, tensor) in one.tensors().items():
            torch.testing.assert_close(again.tensors()[name][1], tensor, rtol=1e-12, atol=1e-14)
    x = one.loader[0][0]
    torch.testing.assert_close(checkpoint.net.predict({"x": x}, "y"), one.net.predict({"x": x}, "y"))
    assert (checkpoint.net.partition, checkpoint.step) == (None, 8)


# -- two dimensions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "given"), [("adamw, average", "net"), ("clip", "mesh"), ("null", "data")])
def test_two_by_two_ranks_learn_what_one_process_does(ranks: Ranks, case: str, given: str) -> None:
    """If it fails, whoever cuts a network and its batches as well trains another one."""
    one = Run(case)
    told = one.told(one.fit())
    for found, numbers in ranks.run(meshed, case, None, None, given):
        compare(found, told)
        same_numbers(numbers, judged(one))


def test_a_run_on_a_mesh_goes_on_on_a_mesh_and_alone(ranks: Ranks, tmp_path: Path) -> None:
    case, one = "accumulate", alone("accumulate")
    whole = ranks.run(meshed, case)
    for parts in ("mesh", "alone"):
        assert all(found["stopped"] == "callback" for found, _ in ranks.run(meshed, case, tmp_path / parts, 6))
    for (found, _), (before, _) in zip(ranks.run(meshed, case, tmp_path / "mesh"), whole):
        compare(found, before, exact=True)
    compare(alone(case, tmp_path / "alone"), one)


@pytest.mark.parametrize(("parts", "shared"), [(2, False), (4, False), (2, True), (4, True)])
def test_metrics_over_ranks_are_those_of_one_process(ranks: Ranks, parts: int, shared: bool) -> None:
    """If it fails, a metric counts a part of the samples, or each of them once a rank."""
    expected = judged(Run("sgd"))
    for found in ranks.run(evaluated, parts, shared)[:parts]:
        same_numbers(found, expected)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("one dimension", "needs as many processes (found 4)"),
        ("three dimensions", "found 3 of 2 x 2 x 1 processes, called 'data', 'partition', 'more'"),
        ("other names", "found 2 of 2 x 2 processes, called 'dp', 'tp'"),
        ("another size", "found 2 of 1 x 4 processes, called 'data', 'partition', of which 4"),
        ("without a partition", "DeviceMesh of one dimension (found 2 of 2 x 2 processes"),
        ("another mesh", "found group=2 of 2 x 2 processes, without names"),
        ("pcgraph", "version of pcgraph (found 9.0 on ranks 0, 1, and 9.1 on ranks 2, 3)"),
        ("torch", "version of torch (found 9.0 on ranks 0, 1, and 9.1 on ranks 2, 3)"),
    ],
)
def test_what_does_not_fit_is_refused_on_all_ranks(ranks: Ranks, what: str, said: str) -> None:
    for text in ranks.run(refused, what):
        assert said in text, text
