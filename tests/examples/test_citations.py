"""The citation graph: what it is made of, that the example runs, and that its table is of committed rows."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

from tests import ROOT
from tests.builders import script

ROWS = ROOT / "docs" / "figures" / "examples" / "citations.csv"


def test_it_runs_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    example = script("citations")
    monkeypatch.setattr(sys, "argv", ["citations", "--quick", "--out", str(tmp_path)])
    monkeypatch.setattr(example, "LAYERS", {"GCNConv": example.LAYERS["GCNConv"]})
    example.main()
    assert "| GCNConv |" in capsys.readouterr().out
    assert (tmp_path / "citations.csv").exists()
    assert (tmp_path / "citations_published.csv").exists()


def test_the_authors_network_is_one_network_however_it_is_written() -> None:
    """A sweep through states, with one module on four edges, and its parts one after the other; and what it learns."""
    example = script("citations")
    data = example.split(example.citation_graph(), 0, most=True)
    torch.manual_seed(0)
    parts = example.published(data)
    net = example.published_network(parts, data)
    answer = example.published_answer(parts, data)
    torch.testing.assert_close(net.predict({"x": data.x[None]}, "y")[0], answer, rtol=1e-4, atol=1e-5)
    assert {p.numel() for p in net.parameters()} == {p.numel() for part in parts for p in part.parameters()}
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for part in parts for p in part.parameters())
    assert data.train_mask.sum() == 315
    assert not (
        data.train_mask & data.val_mask | data.train_mask & data.test_mask | data.val_mask & data.test_mask
    ).any()


def test_no_document_says_its_class_by_name_and_no_split_overlaps() -> None:
    """A word that is the class would make the task one of reading a label."""
    example = script("citations")
    data = example.citation_graph()
    assert data.num_nodes > 300
    sums = data.x.sum(1)
    assert ((sums - 1).abs() < 1e-5)[sums > 0].all()
    assert (sums > 0).float().mean() > 0.95
    assert not {"polys", "poly", "physics", "core", "matrices"} & set(data.words)
    assert data.y.bincount().min() > example.KNOWN
    cut = example.split(data, 0)
    assert cut.train_mask.sum() == example.CLASSES * example.KNOWN
    masks = torch.stack([cut.train_mask, cut.val_mask, cut.test_mask]).int()
    assert (masks.sum(0) == 1).all()
    assert not torch.equal(example.split(data, 1).train_mask, cut.train_mask)


def test_the_table_of_the_authors_settings_is_made_of_committed_rows() -> None:
    example = script("citations")
    rows = example.Store(ROWS.with_name("citations_published.csv"), []).rows
    names = ("two layers", "the authors' code", "the authors' code, states at 0.01")
    assert {(row["set-up"], row["split"]) for row in rows} == {(name, split) for name in names for split in "012"}
    assert example.published_table(rows) in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


def test_the_table_in_the_text_is_made_of_committed_rows_and_within_three_points_of_backprop() -> None:
    with ROWS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    example = script("citations")
    assert example.table(rows) in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for layer in example.LAYERS:
        gaps = [float(r["predictive_coding"]) - float(r["backprop"]) for r in rows if r["layer"] == layer]
        assert len(gaps) == 5
        assert abs(sum(gaps) / 5) < 3
