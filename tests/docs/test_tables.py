"""Tables in the documents are those that the committed rows make."""

from __future__ import annotations

import csv
import json

from benchmarks import __main__ as benchmarks
from benchmarks import gpu
from tests import ROOT
from tests.builders import script

GRAPHS = ("chain", "feedback in slots", "all to all")


def test_the_table_of_initializers_is_made_of_its_rows():
    """A figure in the text that no run produced would mislead whoever chooses by it."""
    rows = list(csv.DictReader((ROOT / "docs" / "figures" / "initializers.csv").open()))
    assert script("initializers").table(rows) in (ROOT / "docs" / "initializers.md").read_text()


def test_the_table_of_output_energies_is_made_of_its_rows():
    """What the text says of both energies is what three seeds gave."""
    rows = list(csv.DictReader((ROOT / "docs" / "figures" / "output_energy.csv").open()))
    assert script("output_energy").table(rows) in (ROOT / "docs" / "training.md").read_text()


def test_the_table_of_the_bench_is_made_of_its_rows():
    """Ratios in the text are those that one run of the bench measured."""
    rows = json.loads((ROOT / "docs" / "figures" / "bench.json").read_text())
    assert benchmarks.table(rows) in (ROOT / "docs" / "performance.md").read_text()


def test_the_table_of_a_gpu_is_made_of_its_rows():
    """What no committed run has measured stands there as not measured."""
    run = ROOT / "docs" / "figures" / "gpu.json"
    rows = json.loads(run.read_text()) if run.exists() else {}
    assert gpu.table(rows) in (ROOT / "docs" / "performance.md").read_text()


def test_the_table_of_settings_is_made_of_its_rows():
    """Whoever takes the advice takes it for what three seeds gave."""
    rows = list(csv.DictReader((ROOT / "docs" / "figures" / "cortex.csv").open()))
    assert script("cortex").table(rows) in (ROOT / "docs" / "advice.md").read_text()
    advised = {graph: {r["seed"] for r in rows if (r["graph"], r["setting"]) == (graph, "advise")} for graph in GRAPHS}
    assert all(seeds == {"0", "1", "2"} for seeds in advised.values())
