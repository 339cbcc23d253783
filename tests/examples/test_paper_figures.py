"""The scripts of Figures 7, 8, 9 and of components: each runs with ``--quick``; closed forms of what they argue."""

from __future__ import annotations

import sys

import networkx as nx
import numpy as np
import pytest
import torch

from pcgraph import SGD, PCNetwork, graphs
from tests import ROOT

sys.path.append(str(ROOT / "examples" / "paper"))

import components
import fig7
import fig8
import fig9
from common import FIGURES, Store


def quick(module, folder, monkeypatch, *more):
    monkeypatch.setattr(sys, "argv", [module.__name__, "--quick", "--out", str(folder), *more])
    module.main()


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


# -- each runs, and goes on from where it was -------------------------------------------------------------------------


def test_figure_8_trains_and_figure_7_goes_on_from_there(tmp_path, monkeypatch):
    """What is finished is never done again: the second script finds every row, and leaves it as it is."""
    quick(fig8, tmp_path, monkeypatch)
    assert is_picture(tmp_path / "fig8_3.png")
    rows = (tmp_path / "fig7_errors.csv").read_bytes()
    quick(fig7, tmp_path, monkeypatch, "--seeds", "0")
    rivals = (tmp_path / "fig7_rivals.md").read_bytes()
    assert b"| Zero | 3 | 20 | 0.1 | 0.0003 | 2 |" in rivals
    monkeypatch.setattr(fig7, "train", None)
    quick(fig7, tmp_path, monkeypatch, "--seeds", "0")
    assert (tmp_path / "fig7_errors.csv").read_bytes() == rows
    assert (tmp_path / "fig7_rivals.md").read_bytes() == rivals
    assert is_picture(tmp_path / "fig7.png")
    assert "missing" not in (tmp_path / "fig7_grid_3.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", [fig9, components])
def test_the_others_run_and_do_nothing_twice(module, tmp_path, monkeypatch):
    """A second start finds the rows of the first."""
    quick(module, tmp_path, monkeypatch)
    rows = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    assert len(rows) == 2
    assert is_picture(tmp_path / f"{module.__name__}.png")
    monkeypatch.setattr(module, "numbers" if module is fig9 else "measured", None)
    quick(module, tmp_path, monkeypatch)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == rows


# -- Figure 9, in closed form -----------------------------------------------------------------------------------------


def test_a_lap_moves_the_value_by_what_the_cycle_brings_back():
    """With weights 1/2 and the identity: from 1/2 by 5/32, and at last to 2/3."""
    case = fig9.Case("bottom", "identity", 0.5)
    values = fig9.laps(case, case.weights(1))[:, 0]
    assert values[0] == 0.5
    assert values[1] - values[0] == 5 / 32
    assert values[-1] == pytest.approx(2 / 3, abs=1e-12)


def test_no_order_sweeps_the_cycle_and_two_sweep_the_other_graph():
    """Nodes 2 and 3 of the upper graph can be swept in either order; a unit at zero can cut the cycle."""
    for case, orders, draws in ((fig9.Case("top", "tanh"), 2, 40), (fig9.Case("bottom", "tanh"), 0, 0)):
        good = fig9.sweeps(case, case.weights(40))
        assert good.shape == (120, 40)
        assert (int(good.all(1).sum()), int(good.any(0).sum())) == (orders, draws)
    silent = fig9.Case("bottom", "relu", -1.0)
    assert fig9.sweeps(silent, silent.weights(1)).any()


def test_inference_finds_the_state_that_no_sweep_finds():
    """Where I - A is invertible, a state without error exists on the cycle, and the energy goes to zero."""
    case = fig9.Case("bottom", "identity", 0.5)
    assert fig9.energies(case, case.weights(1), (3000,))[0, 0] < 1e-20


def test_where_no_state_is_without_error_the_energy_stays_at_its_bound():
    """Weights 1 and relu: the errors on the cycle add up to 2 or more, so that half of four quarters is the least."""
    case = fig9.Case("bottom", "relu", 1.0)
    energy = fig9.energies(case, case.weights(1), (100, 3000))[:, 0]
    assert (energy > 0.5 - 1e-12).all()
    assert energy[-1] == pytest.approx(0.5, abs=1e-6)


def test_draws_are_components_that_do_not_feel_each_other():
    """The energy of a draw among others is that of the draw by itself."""
    case = fig9.Case("bottom", "tanh")
    weights = case.weights(4)
    together = fig9.energies(case, weights, (0, 7))
    for d in range(4):
        alone = fig9.energies(case, {edge: values[d : d + 1] for edge, values in weights.items()}, (0, 7))
        np.testing.assert_allclose(together[:, d : d + 1], alone, rtol=1e-12)


# -- components -------------------------------------------------------------------------------------------------------


def test_components_train_as_the_networks_do_alone():
    """With weights, data, state rates and activations of their own, in float64."""
    nets = [
        PCNetwork(graphs.chain([6, 5, 4, 3], activation=sigma), seed=k, dtype=torch.float64)
        for k, sigma in enumerate(("relu", "tanh", "relu", "gelu"))
    ]
    rates = (0.02, 0.1, 0.3, 0.05)
    joined = components.join(nets)
    assert components.difference(joined, nets) == 0
    assert nx.number_weakly_connected_components(joined.graph) == 4
    rate_of = {(k, v): rates[k] for k, net in enumerate(nets) for v in net.graph}
    together = components.Training.of(joined, SGD(lr=rate_of), 5, 1e-2)
    alone = [components.Training.of(net, SGD(lr=rate), 5, 1e-2) for net, rate in zip(nets, rates, strict=True)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        batches = [tuple(torch.randn(7, n, generator=generator, dtype=torch.float64) for n in (6, 3)) for _ in nets]
        for training, (x, y) in zip(alone, batches, strict=True):
            training.step({"x": x, "y": y})
        together.step(components.clamps_of(batches))
    assert components.difference(joined, nets) < 1e-12
    alone[0].step({"x": batches[0][0], "y": batches[0][1]})
    assert components.difference(joined, nets) > 1e-4


# -- the text ---------------------------------------------------------------------------------------------------------


def tables():
    records, plan = fig7.Records(FIGURES), fig7.FULL
    yield "fig7 claim", fig7.claim_table(records, plan)
    yield "fig7 rivals", fig7.rival_table(records)
    yield "fig7 three maps", fig7.grid_table(records, plan, 3)
    yield "fig7 four maps", fig7.grid_table(records, plan, 4)
    yield "fig7 known", fig7.known_table(records)
    yield "fig7 rates", fig7.rate_table(records)
    yield "fig7 updates", fig7.update_table(records)
    for maps in (3, 4):
        yield f"fig8 {maps}", fig8.error_table(Store(FIGURES / "fig8.csv", []), plan, maps)
    yield "fig9 checks", fig9.check_table(Store(FIGURES / "fig9_checks.csv", []).rows)
    yield "fig9 numbers", fig9.number_table(Store(FIGURES / "fig9_numbers.csv", []).rows)
    yield "components speed", components.speed_table(Store(FIGURES / "components_speed.csv", []).rows)
    yield "components search", components.search_table(Store(FIGURES / "components_search.csv", []).rows)


@pytest.mark.parametrize(("name", "text"), [pytest.param(*found, id=found[0]) for found in tables()])
def test_the_tables_in_the_text_are_made_of_committed_rows(name, text):
    """A figure in the text that no run produced would mislead whoever relies on it."""
    assert text in (ROOT / "docs" / "paper.md").read_text(encoding="utf-8"), name
