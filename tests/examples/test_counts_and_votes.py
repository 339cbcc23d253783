"""Counts of spikes and votes on classes: what is simulated, that it runs, and that its tables are of its rows."""

from __future__ import annotations

import csv

import pytest
import torch

from tests import ROOT
from tests.builders import quick_example, script

ROWS = ROOT / "docs" / "figures" / "examples" / "counts_and_votes.csv"


def committed():
    with ROWS.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_runs_quickly_and_leaves_tables_and_picture(tmp_path, monkeypatch, capsys):
    quick_example("counts_and_votes", tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "| poisson |" in said
    assert "| kl |" in said
    assert (tmp_path / "counts_and_votes.png").read_bytes().startswith(b"\x89PNG")


def test_who_knows_the_rates_finds_the_direction_of_many_spikes():
    """The best decoder is the measure of the others: with the rates themselves for counts it is right to its grid."""
    example = script("counts_and_votes")
    directions = torch.tensor([0.1, 1.0, 3.0, 6.2])
    assert example.rates(directions).max() <= 3
    found = example.best_guess(1000 * example.rates(directions) / 1000)
    assert example.degrees_off(directions, found).max() <= 0.051
    assert example.degrees_off(torch.tensor([0.0]), torch.tensor([[0.0, 1.0]])).item() == pytest.approx(90)
    off = example.degrees_off(torch.tensor([6.2]), example.pointing(torch.tensor([0.1])))
    assert off.item() == pytest.approx((0.1 + 2 * torch.pi - 6.2) * 180 / torch.pi, abs=1e-3)


def test_annotators_are_right_as_often_as_they_say_and_err_towards_the_next_digit():
    example = script("counts_and_votes")
    labels = torch.arange(10).repeat(2000)
    for right, vote in zip(example.RIGHT, example.votes(labels, 0), strict=True):
        rest = 1 - right
        assert (vote == labels).float().mean().item() == pytest.approx(right + rest * 0.03, abs=0.02)
        assert (vote == (labels + 1) % 10).float().mean().item() == pytest.approx(rest * 0.73, abs=0.02)


def test_the_tables_in_the_text_are_made_of_committed_rows_and_show_what_it_says():
    """Poisson finds the rates better than the usual energy, and KL more digits, for every seed."""
    example, rows = script("counts_and_votes"), committed()
    text = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert all(part in text for part in example.table(rows).split("\n\n"))
    apart = {(row["energy"], row["seed"]): float(row["rates_apart"]) for row in rows if row["what"] == "spikes"}
    seeds = {seed for _, seed in apart}
    assert len(seeds) == 2
    assert all(apart["poisson", seed] < apart["gaussian", seed] for seed in seeds)
    told = {(row["energy"], row["seed"]): float(row["told"]) for row in rows if row["what"] == "votes"}
    assert all(told["kl", seed] > told["gaussian", seed] for seed in seeds)
