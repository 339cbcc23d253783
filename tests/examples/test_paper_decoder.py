"""The decoder of Figures 7 and 8: what a reconstruction is, what h0 and a memory learn, and that training resumes."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from pcgraph import SGD, data
from pcgraph.testing import reference
from tests import ROOT

sys.path.append(str(ROOT / "examples" / "paper"))

import decoder
import fig7
from decoder import Problem, Setting


@pytest.fixture(scope="module")
def problem():
    def draw(seed, count):
        images = torch.rand(count, 36, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return data.Images(images.float(), [0, 1] * (count // 2))

    return Problem(draw(0, 60), draw(1, 20), draw(2, 20), latent=16, width=12, batch=20)


def started(setting, problem):
    """A network and an initializer that has seen a batch, as a memory must before it recalls."""
    net, init, optimizer = decoder.make(setting, problem, 0)
    result = net.infer({"x": problem.train.images[:20]}, init=init, steps=setting.steps, optimizer=SGD(lr=0.1))
    result.backward()
    return net, init, optimizer


@pytest.mark.parametrize("method", ["Zero", "Normal", "Forward(roots=Zero)", "Forward(roots=Normal)"])
def test_h0_knows_nothing_of_the_image_before_the_fourth_step(problem, method):
    """Four maps lie between h0 and the image, and an error moves one a step: T = 3 makes the same of all images."""
    net, init, _ = started(Setting(method, 3), problem)
    x, other = problem.test.images[:4], problem.validation.images[:4]
    found, instead = (decoder.reconstruct(net, init, images, (3, 4), 0.1) for images in (x, other))
    assert torch.equal(found[3][0], instead[3][0])
    assert not torch.equal(found[4][0], instead[4][0])
    assert not torch.equal(found[3][1], instead[3][1])


def test_a_memory_knows_the_image_before_any_step(problem):
    """It reads the image itself, which is what the paper gains at T = 3."""
    net, init, _ = started(Setting("Forward(roots=Memory)", 3), problem)
    found = decoder.reconstruct(net, init, problem.test.images, (3,), 0.1)[3][0]
    assert float(found.std(0).max()) > 1e-4


@pytest.mark.parametrize(("maps", "steps", "learns"), [(4, 3, False), (4, 4, True), (3, 3, True)])
def test_when_a_memory_of_h0_learns(problem, maps, steps, learns):
    """Its loss is the distance that h0 has moved, so that it has no gradient while the error has not come to h0."""
    net, init, _ = started(Setting("Forward(roots=Memory)", steps, maps), problem)
    init.zero_grad()
    net.infer({"x": problem.train.images[20:40]}, init=init, steps=steps, optimizer=SGD(lr=0.1)).backward()
    largest = max(float(p.grad.abs().max()) for p in init.parameters())
    assert (largest > 0) == learns


def test_a_reconstruction_is_that_of_the_slow_reference(problem):
    """Clamp the image, infer from zero, forward h0."""
    net, init, _ = started(Setting("Zero", 20), problem)
    net.double()
    x = problem.test.images[:5].double()
    zeros = {v: torch.zeros(5, *net.structure.shape(v), dtype=torch.float64) for v in net.graph if v != "x"}
    for steps, (image, _) in decoder.reconstruct(net, init, x, (3, 20), 0.1).items():
        states = reference.infer(net, {"x": x}, zeros, steps, lambda v, h, g, t: h - 0.1 * g).states
        slow = reference.sweep(net, states, ["h1", "h2", "h3", "x"])["x"]
        torch.testing.assert_close(image, slow, rtol=1e-10, atol=1e-12)


def test_an_error_is_the_mean_over_images_and_pixels(problem, monkeypatch):
    """However the images are cut into batches, the last smaller than the others."""
    net, init, _ = started(Setting("Forward(roots=Memory)", 3), problem)
    monkeypatch.setattr(decoder, "BATCH", 7)
    x = problem.test.images
    found = decoder.errors(net, init, x, (3, 6), (0.05, 0.1))
    assert sorted(found) == [(3, 0.05), (3, 0.1), (6, 0.05), (6, 0.1)]
    for (steps, alpha), (forwarded, local) in found.items():
        image, mu = decoder.reconstruct(net, init, x, (steps,), alpha)[steps]
        assert forwarded == pytest.approx(float((image - x).square().mean()), rel=1e-5)
        assert local == pytest.approx(float((mu - x).square().mean()), rel=1e-5)


@pytest.mark.parametrize("method", ["Forward(roots=Memory)", "Normal"])
def test_a_training_that_goes_on_is_the_one_that_was_not_stopped(problem, method, tmp_path):
    """Stages of Figure 7 are stations of one run."""
    setting = Setting(method, 5)
    whole = decoder.train(setting, problem, 0, 3, tmp_path / "whole")
    decoder.train(setting, problem, 0, 1, tmp_path / "parts")
    parts = decoder.train(setting, problem, 0, 3, tmp_path / "parts")
    assert parts.curve == whole.curve
    assert len(whole.curve) == 3
    for a, b in zip([*whole.net.parameters(), *whole.init.parameters()],
                    [*parts.net.parameters(), *parts.init.parameters()], strict=True):  # fmt: skip
        assert torch.equal(a, b)


def test_the_network_that_counts_is_that_of_the_best_epoch(problem, tmp_path):
    """A run that falls over late is not judged by its ruin."""
    run = decoder.train(Setting("Zero", 5, lr=0.3), problem, 0, 6, tmp_path)
    assert run.curve.index(min(run.curve)) < len(run.curve) - 1
    found = decoder.errors(run.net, run.init, problem.validation.images, (5,), decoder.STABLE)
    assert min(both[0] for both in found.values()) == pytest.approx(min(run.curve), rel=1e-6)


def test_a_training_that_diverges_says_so_and_has_no_errors(problem):
    """A cell of the figure then says "diverged" and no number."""
    run = decoder.train(Setting("Zero", 20, alpha=1e4), problem, 0, 1)
    assert run.outcome == "diverged"
    assert [(r["t_eval"], r["test"], r["outcome"]) for r in fig7.evaluate(run, problem, (3, 20))] == [
        (3, "", "diverged"), (20, "", "diverged"),
    ]  # fmt: skip


def test_an_evaluation_that_diverges_is_infinitely_bad(problem):
    """So that no rate is chosen at which the states explode."""
    net, init, _ = started(Setting("Zero", 20), problem)
    found = decoder.errors(net, init, problem.test.images, (20,), (0.1, 1e6))
    assert found[20, 1e6] == (math.inf, math.inf)
    assert math.isfinite(found[20, 0.1][0])


def test_rates_are_chosen_one_coordinate_after_the_other():
    """Each value once, from the best of what came before."""
    trials = fig7.Trials((("alpha", (0.05, 0.1)), ("activation", ("gelu", "tanh")), ("lr", (5e-4, 1e-4))), 1.0, 1)
    asked, found, base = [], {}, Setting("Zero", 3)
    for setting in fig7.candidates(base, trials, found):
        asked.append((setting.alpha, setting.activation, setting.lr))
        found[setting] = abs(setting.alpha - 0.1) + (setting.activation != "tanh") + setting.lr
    assert asked == [(0.05, "gelu", 5e-4), (0.1, "gelu", 5e-4), (0.1, "tanh", 5e-4), (0.1, "tanh", 1e-4)]
    assert list(fig7.candidates(base, trials, found)) == []


def test_the_claim_comes_first_and_every_job_once_a_stage():
    """Whoever stops early has what the paper claims; whoever does not has the whole grid at the paper's length."""
    jobs = list(fig7.FULL.jobs((0, 1, 2)))
    assert {(cell.method, cell.t_train) for cell, _, _ in jobs[:6]} == {("Forward(roots=Memory)", 3), ("Zero", 20)}
    for maps in (3, 4):
        cells = fig7.FULL.grid(maps)
        assert {(cell, seed, epochs) for cell in cells for seed in (0, 1, 2) for epochs in (2, 4, 8, 16)} <= set(jobs)
        assert {(c.method, c.t_train) for c in cells} >= {
            (m, t) for m in ("Zero", "Normal", "Forward(roots=Memory)") for t in (3, 5, 10, 20)
        }
        assert len(set(cells)) == len(cells) == 18
