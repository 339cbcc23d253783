"""Graphs of several families: that they differ in size and are told apart by no number, and what is in the table."""

from __future__ import annotations

import csv
from pathlib import Path

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch

import pcgraph
from pcgraph.pyg import padded
from tests import ROOT
from tests.builders import EXACT, quick_example, script

ROWS = ROOT / "docs" / "figures" / "examples" / "graph_classification.csv"


def test_it_runs_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    example = quick_example("graph_classification", tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert all(f"| {layer} |" in said for layer in example.LAYERS)
    assert (tmp_path / "graph_classification.png").read_bytes().startswith(b"\x89PNG")


def test_no_count_gives_a_family_away_and_no_unseen_graph_is_a_seen_one() -> None:
    """A classifier could then do without messages, or remember."""
    example = script("graph_classification")
    seen, unseen = example.make(30, 1), example.make(15, 2)
    for of in (lambda d: d.num_nodes, lambda d: d.num_edges):
        found = [{of(d) for d in seen if int(d.y) == label} for label in range(len(example.FAMILIES))]
        assert all(any(a & b for b in found if b is not a) for a in found)
    assert all(example.LEAST <= d.num_nodes <= example.MOST for d in seen)
    assert len({d.num_nodes for d in seen}) == example.MOST - example.LEAST + 1
    assert all((d.x == 1).all() for d in seen)
    same = {nx.weisfeiler_lehman_graph_hash(nx.Graph(d.edge_index.t().tolist())) for d in seen}
    apart = [nx.weisfeiler_lehman_graph_hash(nx.Graph(d.edge_index.t().tolist())) not in same for d in unseen]
    assert sum(apart) > 0.5 * len(apart)


def test_padding_says_nothing() -> None:
    """In a batch with larger graphs a graph gets the answer that it gets alone."""
    example = script("graph_classification")
    net = pcgraph.PCNetwork(example.declare("GIN"), seed=0, dtype=torch.float64)
    data = example.make(2, 5)
    together = net.predict(padded(Batch.from_data_list(data), net, names=example.GIVEN), "y")
    alone = torch.cat([net.predict(padded(one, net, names=example.GIVEN), "y") for one in data])
    torch.testing.assert_close(together, alone, **EXACT)
    assert together.std(0).min() > 0


def test_the_table_in_the_text_is_made_of_committed_rows() -> None:
    with ROWS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["seed"] for row in rows}) == 3
    assert script("graph_classification").table(rows) in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
