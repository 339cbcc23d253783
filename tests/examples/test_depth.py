"""The script on depth runs on digits, by every kind of method, and its rows have what the table needs."""

from __future__ import annotations

import pytest

from tests.builders import script


@pytest.mark.parametrize(
    ("work", "method"),
    [("32 blocks", "backprop"), ("32 blocks", "PC-ALM, nodes stop"), ("128 blocks", "states")],
)
def test_each_kind_of_method_gives_a_row(work: str, method: str) -> None:
    """Eight blocks and one epoch: better than chance, with the first block's gradient beside backpropagation's."""
    depth = script("depth")
    (row,) = depth.train(work, method, 0, True)
    assert row["outcome"] == "ok"
    assert float(row["accuracy"]) > 20
    if method == "backprop":
        assert (row["cosine"], row["size"]) == (1.0, 1.0)
    else:
        assert 0 < row["moves"] < 1
    line = depth.table([row]).splitlines()[-1]
    assert line.startswith(f"| {work} | {method} | 1 | {float(row['accuracy']):.2f} |")
    assert line.count("|") == depth.table([row]).splitlines()[0].count("|")


def test_a_node_that_hands_on_in_one_step_moves_once_and_sends_what_backpropagation_sends() -> None:
    """Nine free nodes move in one step each of the 33."""
    (row,) = script("depth").train("32 blocks", "PC-ALM, a step a node", 0, True)
    assert row["moves"] == round(1 / 33, 3)
    assert row["cosine"] > 0.99
    assert 0.8 < row["size"] < 1


def test_every_work_has_a_method_to_compare_with() -> None:
    depth = script("depth")
    assert {next(iter(work.methods)) for work in depth.WORKS.values()} == {"backprop"}
    assert depth.convolutional((784,), False).nodes["conv4"]["shape"] == (64, 1, 1)
