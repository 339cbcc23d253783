"""The examples on networks: each runs with ``--quick``, leaves a picture, and shows what the documents say of it."""

from __future__ import annotations

import csv
import sys

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import data
from pcgraph.data import sources
from tests import ROOT
from tests.builders import quick_example, script

ROWS = ROOT / "docs" / "figures" / "examples"
NAMES = ("classify", "skip_and_lateral", "associative_memory", "query_any_way", "assemblies", "graph_neural_network",
         "characters", "hybrid")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_and_leaves_a_picture(name, tmp_path, monkeypatch):
    """The first thing that a newcomer does is to run them."""
    quick_example(name, tmp_path, monkeypatch)
    picture = (tmp_path / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_a_network_is_grown_frozen_watched_and_exported(tmp_path, monkeypatch, capsys):
    """It shows single edges and nodes, traces of states, and the way out of the library."""
    quick_example("grow_freeze_export", tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "frozen weights unchanged: True" in said
    assert "exported module agrees: True" in said
    assert "after 30 steps" in said
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"grow_freeze_export.png", "grow_freeze_export_h3.png", "grow_freeze_export.gif", "saliency.png"}


def test_settings_are_searched_for_and_networks_compared(tmp_path, monkeypatch, capsys):
    """It shows a search, the options of fit, two targets with metrics, and an estimator in a grid search."""
    quick_example("search_and_compare", tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "best of 2" in said
    assert "digit: accuracy" in said
    assert "auroc" in said
    assert "by scikit-learn: {'activation': " in said
    assert "PCRegressor: R² " in said
    assert {"report.md", "search.db", "search.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_tables_in_the_text_are_made_of_committed_rows(name):
    """A figure in the text that no run produced would mislead whoever relies on it."""
    with (ROWS / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert script(name).table(rows) in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


def test_a_learned_guess_is_worth_a_hundred_steps():
    """What the text says of hybrid predictive coding, of every seed."""
    with (ROWS / "hybrid.csv").open(encoding="utf-8") as file:
        rows = {(row["start"], row["seed"]): row for row in csv.DictReader(file)}
    for seed in "012":
        guess, zero = rows["guess", seed], rows["zero", seed]
        assert float(guess["told_0"]) > 88
        assert float(zero["told_30"]) < 76
        assert float(guess["energy_0"]) < float(zero["energy_30"])
        assert float(guess["energy_300"]) < float(zero["energy_300"])


def test_the_classifier_tells_digits_apart(tmp_path, monkeypatch, capsys):
    """It is the first network that a newcomer trains; the text promises 98 %."""
    monkeypatch.setattr(sys, "argv", ["classify", "--out", str(tmp_path)])
    script("classify").main()
    said = capsys.readouterr().out
    assert float(said.split("Test accuracy: ")[1].split("%")[0]) >= 97


def test_without_fashion_mnist_the_examples_say_so_and_take_digits(tmp_path, monkeypatch, capsys):
    """Nothing is downloaded behind a reader's back, and nothing stops for want of files."""
    monkeypatch.setenv("PCGRAPH_DATA", str(tmp_path))
    seen, unseen = script("skip_and_lateral").images(quick=False)
    assert (seen.name, unseen.name) == ("digits", "digits")
    assert script("associative_memory").load(quick=False).name == "digits"
    assert capsys.readouterr().out.count(f"Fashion-MNIST is not in {tmp_path}") == 2


def test_each_new_edge_changes_the_check_table_as_the_text_says(capsys):
    """A skip edge changes nothing; feedback from y takes the sweep at test time; a lateral edge that in training."""
    example = script("skip_and_lateral")
    graphs = dict(example.stages(64))
    sweep = {
        name: [report.verdicts["forward(roots)"].valid for report in example.check(graph).values()]
        for name, graph in graphs.items()
    }
    assert list(sweep.values()) == [[True, True], [True, True], [True, False], [False, False], [False, False]]
    names = list(graphs)
    example.show_changes(example.check(graphs[names[0]]), example.check(graphs[names[1]]))
    assert "nothing changes" in capsys.readouterr().out
    example.show_changes(example.check(graphs[names[1]]), example.check(graphs[names[2]]))
    assert "test: Forward(roots=…) needs every cycle cut by a clamp" in capsys.readouterr().out


def test_a_cycle_through_y_holds_any_label_if_learned_with_y_clamped_and_none_if_nudged():
    """The finding of the example, on digits: who adds feedback to a classifier must know by which rule to train it."""
    example = script("skip_and_lateral")
    graph = dict(example.stages(64))["+ feedback y → h2"]
    seen, unseen = data.load("digits"), data.load("digits", "test")
    clamped, nudged = (example.measure(example.train(graph, rule, 0, 12, seen), unseen) for rule in example.RULES)
    assert clamped["held"] > 80
    assert clamped["accuracy"] < 50
    assert nudged["held"] < 10
    assert nudged["accuracy"] > 94


def test_a_hundred_images_are_completed_from_their_upper_halves():
    """Both memories, in the committed rows: below 0.01 over the missing half, and so over the whole image."""
    with (ROWS / "associative_memory.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["noise"] == "0.0" and int(row["stored"]) >= 100]
    for memory in script("associative_memory").MEMORIES:
        row = next(row for row in rows if row["memory"] == memory)
        assert (row["data"], row["stored"]) == ("fashion-mnist", "100")
        assert float(row["whole_image"]) < float(row["missing_half"]) < 0.01
        assert float(row["never_stored"]) > 0.05, "images that were never stored are not completed"


@pytest.mark.parametrize(("name", "reader"), [("skip_and_lateral", "images"), ("associative_memory", "load")])
def test_a_set_that_is_not_at_hand_is_asked_of_no_site(name, reader, tmp_path, monkeypatch, capsys):
    """Each run asked four mirrors, and waited for all of them where there is no network."""
    asked = []
    monkeypatch.setattr(sources, "_download", lambda *of: asked.append(of))
    monkeypatch.setenv("PCGRAPH_DATA", str(tmp_path))
    found = getattr(script(name), reader)(quick=False)
    one = found[0] if isinstance(found, tuple) else found
    assert (one.name, asked) == ("digits", [])
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.realdata
def test_a_hundred_images_are_stored_and_completed_anew():
    """The row above, run again, with another hundred images."""
    example = script("associative_memory")
    source = example.load(quick=False)
    if source.name != "fashion-mnist":
        pytest.skip("fashion-mnist is not at hand")
    stored, others = source.images[1000:1100], source.images[2000:2100]
    net = example.store("one group", stored, 500)
    found = example.measure(net, "one group", stored, others, 0.0, 600)
    assert found["missing_half"] < 0.01
    assert found["from_solution"] < 1e-6


def test_inference_ends_at_the_least_squares_solution():
    """The energy of one group is quadratic: what inference recalls can be computed, and must be the same."""
    example = script("associative_memory")
    images = example.load(quick=True).images[:8]
    net = example.store("one group", images, 300)
    cues = example.noisy(images, 0.1)
    found, exact = example.recall(net, cues, 1000), example.solved(net, cues)
    assert (found - exact).abs().max() < 1e-3
    assert torch.equal(found[:, :32], cues[:, :32])
    assert torch.allclose(example.on_the_flat(images, images), images, atol=1e-5)
    reports = [pcgraph.check(example.declare(memory, 64), {"image": pcgraph.Masked(cues, example.upper_half(64))})
               for memory in example.MEMORIES]  # fmt: skip
    assert not any(report.theorem_1 for report in reports)


def answers(split, decay):
    """The committed rows of one split and weight decay."""
    with (ROWS / "query_any_way.csv").open(encoding="utf-8") as file:
        return [r for r in csv.DictReader(file) if (r["split"], float(r["weight_decay"])) == (split, decay)]


def test_one_network_answers_labels_at_90_percent_and_images_at_80():
    """With the decay that the validation images chose, every network on record; and one anew."""
    example = script("query_any_way")
    tried = [row for decay in example.DECAYS for row in answers("validation", decay)]
    best = max(tried, key=lambda r: min(float(r["label_from_image"]), float(r["image_recognised"])))
    decay = float(best["weight_decay"])
    seen, unseen = (data.load("digits", split, normalize="unit") for split in ("train", "test"))
    anew = example.measure(example.train(seen, decay, 7, 20), seen, unseen, 400)
    rows = answers("test", decay)
    assert len(rows) == 5
    for row in (*rows, anew):
        assert float(row["label_from_image"]) >= 90
        assert float(row["image_recognised"]) >= 80
        assert float(row["half_error"]) < float(row["mean_image_error"])


def test_every_question_leaves_a_cycle_and_training_none():
    """Otherwise a network that only runs forward would have done."""
    example = script("query_any_way")
    reports = pcgraph.check(example.declare(), clamped=example.QUESTIONS)
    assert [report.theorem_1 for report in reports.values()] == [True, False, False, False]
    assert all(report.cycle for report in list(reports.values())[1:])


def test_the_graph_neural_network_is_within_two_points_of_backprop():
    """Over all committed splits, for every layer; and anew over six splits with GCNConv."""
    example = script("graph_neural_network")
    with (ROWS / "graph_neural_network.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows += [example.compare("GCNConv", split)[0] | {"layer": "GCNConv, anew"} for split in range(100, 106)]
    for layer in {row["layer"] for row in rows}:
        gaps = [float(r["predictive_coding"]) - float(r["backprop"]) for r in rows if r["layer"] == layer]
        assert len(gaps) == (6 if "anew" in layer else 30)
        assert sum(gaps) / len(gaps) > -2, layer


def test_known_rows_pull_and_the_others_cost_nothing():
    """An unknown member that pulled would teach the network its own guess."""
    example = script("graph_neural_network")
    energy = example.KnownRows()
    h, mu = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), torch.tensor([[[0.5, 0.5], [3.0, 4.0]]])
    assert energy.energy(h, mu).tolist() == [0.25]
    dh, dmu = energy.error(h, mu)
    assert torch.equal(dmu[0, 1], torch.zeros(2))
    assert torch.equal(dh[0, 1], torch.zeros(2))


def test_four_classes_of_ones_own_learn_what_the_text_says():
    """Who extends the library begins from this example."""
    net, accuracies = script("your_own_edge").train(own=True, epochs=15)
    assert sum(p.numel() for p in net.parameters()) == 2890
    assert accuracies[-1] >= 0.97


@pytest.mark.parametrize(("recurrence", "acyclic"), [("none", True), ("within", False), ("feedback", False)])
def test_assemblies_are_as_recurrent_as_they_say(recurrence, acyclic):
    """Each kind of edge is there if it is kept, about as often as its probability says."""
    example = script("assemblies")
    graph = example.declare(1003, 0.02, recurrence, seed=0)
    assert len(graph) == 1003
    assert nx.is_directed_acyclic_graph(graph) == acyclic
    block = nx.get_node_attributes(graph, "block")
    found = {-1: 0, 0: 0, 1: 0}
    for u, v in graph.edges:
        if u in block and v in block:
            found[(block[v] > block[u]) - (block[v] < block[u])] += 1
    size = (1003 - 74) / 5
    expected = {1: 10 * size**2 * 0.02, 0: 5 * size**2 * 0.08, -1: 10 * size**2 * 0.02}
    kept = {"none": {1}, "within": {0, 1}, "feedback": {-1, 0, 1}}[recurrence]
    for direction, count in found.items():
        assert count == pytest.approx(expected[direction], rel=0.1) if direction in kept else count == 0


def test_the_cortex_runs_and_writes_its_table(tmp_path, monkeypatch, capsys):
    """Each graph learns by the setting that is advised, and the hierarchy is asked for what is hidden."""
    monkeypatch.setattr(sys, "argv", ["cortex", "--quick", "--out", str(tmp_path)])
    example = script("cortex")
    monkeypatch.setattr(example, "RUNS", [(graph, "advise") for graph in example.GRAPHS])
    example.main()
    with (tmp_path / "cortex.csv").open(encoding="utf-8") as file:
        rows = {row["graph"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(example.GRAPHS)
    assert float(rows["chain"]["clean"]) > 85
    assert float(rows["feedback in slots"]["clean"]) > 85
    assert float(rows["feedback in slots"]["half, inferred"]) > 30
    assert (tmp_path / "cortex.md").read_text(encoding="utf-8").strip() in capsys.readouterr().out
