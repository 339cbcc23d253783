"""The block of a Vision Transformer: what its tokens are and see, that it runs, and that its table is of its rows."""

from __future__ import annotations

import csv
import sys

import torch

import pcgraph
from tests import ROOT
from tests.builders import script

ROWS = ROOT / "docs" / "figures" / "examples" / "vision_transformer.csv"


def committed():
    with ROWS.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_runs_quickly_and_leaves_table_and_picture(tmp_path, monkeypatch, capsys):
    example = script("vision_transformer")
    monkeypatch.setattr(sys, "argv", ["vision_transformer", "--quick", "--out", str(tmp_path)])
    monkeypatch.setattr(example, "WIDTH", 8)
    example.main()
    said = capsys.readouterr().out
    assert all(f"| {rule} |" in said for rule in example.RULES)
    assert (tmp_path / "vision_transformer.png").read_bytes().startswith(b"\x89PNG")


def test_a_patch_holds_its_own_pixels():
    """Patches that mix rows and columns would still be learned, less well, and nobody would notice."""
    image = torch.arange(64.0).view(1, 64)
    patches = script("vision_transformer").cut(image, 2)
    assert patches.shape == (1, 16, 4)
    assert patches[0, 0].tolist() == [0, 1, 8, 9]
    assert patches[0, 1].tolist() == [2, 3, 10, 11]
    assert patches[0, 5].tolist() == [18, 19, 26, 27]
    assert patches[0, 15].tolist() == [54, 55, 62, 63]


def test_every_token_sees_every_patch_and_their_places_differ():
    """A causal mask left over from texts would hide most of the image; without places, an image is a bag of patches."""
    net = pcgraph.PCNetwork(script("vision_transformer").declare(16, 4), seed=0, dtype=torch.float64)
    x = torch.randn(1, 16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[0, 15] += 1
    seen = (net.predict({"x": changed}, "a1") - net.predict({"x": x}, "a1")).abs().amax((0, 2))
    assert (seen > 0).all()
    assert not torch.allclose(net.predict({"x": x.flip(1)}, "y"), net.predict({"x": x}, "y"))


def test_in_error_coordinates_all_learn_as_by_backpropagation_and_in_states_the_first_map_gets_nothing():
    """This is what sets the two kinds of predictive coding apart: an error has five edges to go, in as many steps."""
    net = pcgraph.PCNetwork(script("vision_transformer").declare(16, 4), seed=0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 16, 4, dtype=torch.float64, generator=generator), torch.eye(10, dtype=torch.float64)[:6]

    def gradients(learn):
        net.zero_grad()
        learn()
        return {name: p.grad.flatten().clone() for name, p in net.named_parameters()}

    wanted = gradients(lambda: pcgraph.learning.backprop(net, {"x": x}, {"y": y}))
    how = {"init": pcgraph.Forward(), "steps": 5, "optimizer": pcgraph.SGD(lr=1e-6)}
    states, errors = (
        gradients(lambda each=each: net.infer({"x": x, "y": y}, **how, coordinates=each).backward())
        for each in (None, pcgraph.Errors())
    )
    for name, gradient in wanted.items():
        assert torch.cosine_similarity(errors[name], gradient, 0) > 0.9999, name
    first = next(name for name in wanted if "16x4_to" in name)
    assert states[first].norm() < 1e-9 * errors[first].norm()


def test_the_table_in_the_text_is_made_of_committed_rows():
    example = script("vision_transformer")
    rows = committed()
    assert {row["data"] for row in rows} == {"fashion-mnist"}
    assert example.table(rows) in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
