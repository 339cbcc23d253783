"""Examples of ways out of the library, energies, kinds of vertices, and optimizers of the weights."""

from __future__ import annotations

import csv

import pytest
import torch

import pcgraph
from tests import ROOT
from tests.builders import EXACT, quick_example, script

ROWS = ROOT / "docs" / "figures" / "examples"
NAMES = ("out_of_the_library", "noisy_pixels", "heterogeneous", "weight_optimizers", "same_digit", "label_propagation")


def committed(name):
    with (ROWS / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_and_leaves_a_picture(name, tmp_path, monkeypatch):
    quick_example(name, tmp_path, monkeypatch)
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_in_the_text_are_made_of_committed_rows(name):
    text = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert all(part in text for part in script(name).table(committed(name)).split("\n\n"))


# -- out of the library -----------------------------------------------------------------------------------------------


def test_every_way_out_computes_what_the_engine_does():
    """As the text says of three networks; of the digits, none is told otherwise."""
    rows = [row for row in committed("out_of_the_library") if row["rule"] == "standard"]
    ways = script("out_of_the_library").WAYS
    assert len(rows) == 3
    assert all(float(row[way]) < 1e-4 for row in rows for way in ways)


def test_predictive_coding_is_fooled_a_little_less_as_the_text_says():
    told = {(row["rule"], row["seed"]): row for row in committed("out_of_the_library")}
    for seed in "012":
        pc, bp = told["standard", seed], told["backprop", seed]
        assert all(float(pc[f"told_{e}"]) > float(bp[f"told_{e}"]) for e in ("0.1", "0.15"))
        assert abs(float(pc["told_0"]) - float(bp["told_0"])) < 1


def test_an_attack_stays_as_near_as_it_says_and_only_makes_the_answer_worse():
    """A pixel moved too far would be another image; a step down the loss would be no attack."""
    example = script("out_of_the_library")
    net = example.train("standard", 0, 1)
    images = torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    module = net.as_module("x", "y")
    labels = module(images).argmax(1)
    found = example.attacked(module, images, labels, 0.1)
    assert (found - images).abs().max() <= 0.1 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    loss = torch.nn.functional.cross_entropy
    assert loss(module(found), labels) > loss(module(images), labels)
    assert torch.equal(example.attacked(module, images, labels, 0.0), images)


def test_what_counts_in_a_digit_is_the_gradient_of_its_largest_logit():
    example = script("out_of_the_library")
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([64, 8, 10], activation="tanh"), seed=0, dtype=torch.float64)
    module = net.as_module("x", "y")
    images = torch.rand(3, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = example.saliency(module, images)
    for image, expected in zip(images, found, strict=True):
        with torch.no_grad():
            k = int(module(image).argmax())
            steps = 1e-6 * torch.eye(64, dtype=torch.float64)
            slope = (module(image + steps)[:, k] - module(image - steps)[:, k]) / 2e-6
        torch.testing.assert_close(expected, slope.abs(), rtol=1e-5, atol=1e-8)


# -- noisy pixels -----------------------------------------------------------------------------------------------------


def test_the_decoder_is_the_encoder_turned_round_and_the_first_code_is_free_of_its_error():
    """Else the table would compare other networks than the text describes."""
    example = script("noisy_pixels")
    net = pcgraph.PCNetwork(example.declare("huber", example.PRIOR), seed=0, dtype=torch.float64)
    assert torch.equal(net.weight("z", "x"), net.weight("x", "z").t())
    x = torch.rand(4, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = net.infer({"x": x}, init=pcgraph.Forward(), steps=3, optimizer=example.MOVE)
    start = net.infer({"x": x}, init=pcgraph.Forward(), steps=0).states["z"]
    torch.testing.assert_close(start, x @ net.weight("x", "z").t(), **EXACT)
    assert result.errors["z"].abs().max() > 1e-3
    assert result.node_energy["z"].abs().max() == 0
    drawn = 0.5 * example.PRIOR * result.states["z"].square().sum(1)
    torch.testing.assert_close(result.node_energy["z", "prior"], drawn, **EXACT)


def test_images_are_spoiled_as_often_and_as_much_as_it_says():
    example = script("noisy_pixels")
    images = torch.full((4000, 64), 0.5)
    broken = example.spoil(images, "broken", 0)
    assert (broken != images).float().mean().item() == pytest.approx(example.BROKEN, abs=0.005)
    assert broken.min() >= -1.5
    assert broken.max() <= 2.5
    found = (example.spoil(images, "noisy", 0) - images).std(0)
    torch.testing.assert_close(found, example.NOISE, rtol=0.06, atol=0)


def test_the_energy_of_what_happens_restores_best():
    """What the text says, of every seed."""
    found = {
        (row["spoiled"], row["energy"], float(row["prior"]), row["seed"]): row for row in committed("noisy_pixels")
    }
    prior = script("noisy_pixels").PRIOR
    seeds = {key[3] for key in found}
    assert len(seeds) == 3

    def error(how, energy, seed):
        return float(found[how, energy, prior, seed]["inferred"])

    for seed in seeds:
        assert (
            error("broken", "student_t", seed) < error("broken", "huber", seed) < error("broken", "gaussian", seed) / 2
        )
        others = [error("noisy", energy, seed) for energy in ("gaussian", "huber", "student_t")]
        assert error("noisy", "by pixel", seed) < min(others) / 2
        pca = found["broken", "gaussian", 0.0, seed]
        assert float(pca["at_once"]) == pytest.approx(float(pca["inferred"]), rel=0.05)


# -- kinds of vertices ------------------------------------------------------------------------------------------------


def test_documents_and_names_are_related_both_ways():
    """A relation without its way back would leave half of the imports unread."""
    example = script("heterogeneous")
    whole = example.citation_graph()
    data = example.relations(whole.x)
    there, back = data["document", "takes", "name"].edge_index, data["name", "taken by", "document"].edge_index
    assert torch.equal(there.flip(0), back)
    assert data["document"].num_nodes == whole.num_nodes
    assert data["name"].num_nodes == example.NAMES
    cited = data["document", "cites", "document"].edge_index
    both = torch.cat([cited, cited.flip(0)], 1).unique(dim=1)
    assert torch.equal(both, whole.edge_index.unique(dim=1))
    assert set(pcgraph.PCNetwork(example.declare(data, "slots")).structure.slots) == {
        (("h", to), f"{source} {name} {to}") for source, name, to in data.edge_types
    }


def test_relations_help_as_the_text_says():
    rows = committed("heterogeneous")
    told = {(row["network"], row["rule"], row["seed"]): float(row["told"]) for row in rows}
    seeds = {seed for _, _, seed in told}
    assert len(seeds) == 5
    mean = {key: sum(told[*key, seed] for seed in seeds) / 5 for key in {(n, r) for n, r, _ in told}}
    for network in ("sums", "slots"):
        assert 3 < mean[network, "standard"] - mean["words", "standard"] < 4
        assert all(told[network, "standard", seed] > told["words", "standard", seed] for seed in seeds)
    assert abs(mean["sums", "standard"] - mean["sums", "backprop"]) < 1


# -- optimizers of the weights ----------------------------------------------------------------------------------------


def test_each_optimizer_decays_and_moves_what_it_says():
    example = script("weight_optimizers")
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([64, 8, 8, 10]), seed=0)
    of = {name: make(net, 0.01).param_groups for name, make in example.OPTIMIZERS.items()}
    counted = {name: sum(p.numel() for g in groups for p in g["params"]) for name, groups in of.items()}
    weights, biases = 64 * 8 + 8 * 8 + 8 * 10, 8 + 8 + 10
    assert counted == {"AdamW": weights + biases, "AdamW, biases without decay": weights + biases,
                       "AdamW, weights alone": weights, "Muon, weights alone": weights}  # fmt: skip
    spared = [g for g in of["AdamW, biases without decay"] if g["weight_decay"] == 0]
    assert sum(p.numel() for g in spared for p in g["params"]) == biases
    assert all(p.dim() == 2 for g in of["Muon, weights alone"] for p in g["params"])


def test_half_precision_and_muon_learn_as_well_as_the_text_says():
    rows = committed("weight_optimizers")
    assert len(rows) == 4 * 2 * 3
    assert all(float(row["told_10"]) > 98.5 for row in rows)
    assert len({row["told_1"] for row in rows}) > 5


# -- products ---------------------------------------------------------------------------------------------------------


def test_half_of_the_pairs_are_of_one_digit_and_none_is_an_image_twice():
    """Else the network could compare pixels, or guess."""
    example = script("same_digit")
    images = pcgraph.data.load("digits", "test")
    pairs = example.pairs(images, 400, 0)
    assert pairs["same"].mean().item() == 0.5
    assert (pairs["left"] != pairs["right"]).any(1).all()


def test_products_tell_what_sums_cannot_as_the_text_says():
    told = {(row["kind"], row["seed"]): float(row["told"]) for row in committed("same_digit")}
    for seed in "012":
        assert abs(told["sum", seed] - 50) < 3
        assert told["product", seed] > told["sum, tanh", seed] + 5
        assert told["sum, tanh", seed] > told["gate", seed] > told["sum", seed] + 10


# -- a node a vertex --------------------------------------------------------------------------------------------------


def test_inference_solves_the_linear_equations_that_the_text_names():
    """With all energies least squares, with those of the free members alone the harmonic function; in float64."""
    example = script("label_propagation")
    data = example.club(example.known_members(100))
    mean = torch.zeros(34, 34, dtype=torch.float64)
    mean[data.edge_index[1], data.edge_index[0]] = 1.0
    error = torch.eye(34, dtype=torch.float64) - mean / mean.sum(1, keepdim=True)
    free = ~data.known
    solved = torch.linalg.lstsq(error[:, free], -error[:, data.known] @ data.x[data.known]).solution
    torch.testing.assert_close(example.inferred(data, "all")[free], solved, rtol=0, atol=1e-8)
    torch.testing.assert_close(example.inferred(data, "free"), example.exact(data), rtol=0, atol=1e-8)
    assert torch.equal(example.inferred(data, "all")[data.known], data.x[data.known])


def test_members_whose_error_counts_are_told_better_as_the_text_says():
    told = {(row["way"], row["split"]): float(row["told"]) for row in committed("label_propagation")}
    splits = {split for _, split in told}
    assert len(splits) == 30
    gains = [told["all", split] - told["free", split] for split in splits]
    assert sum(gains) / 30 > 15
    assert all(told["free", split] == told["exact", split] for split in splits)
