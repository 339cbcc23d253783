"""Langevin dynamics: descent with noise, against the reference and against the distribution that it samples."""

from __future__ import annotations

import pytest
import torch

import pcgraph
from pcgraph import SGD, Forward, Langevin, Masked, Zero
from pcgraph.errors import ConfigError
from pcgraph.testing import reference
from tests.builders import EXACT, chain, clamps_of, double


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_it_is_the_references_step_with_the_same_noise(temperature, steps):
    """Groups of one node each are moved one after the other, so that the draws can be made beforehand."""
    net = chain(4, 5, 6, 3, dtype=torch.float64)
    clamps = clamps_of(net)
    start = dict(net.infer(clamps, init=Forward(), steps=0).states)
    order = [net.structure.nodes[g.start] for g in net.structure.groups if net.structure.nodes[g.start] in ("h1", "h2")]
    generator = torch.Generator().manual_seed(3)
    noise = [
        {v: torch.randn(1, 3, *net.structure.shape(v), dtype=torch.float64, generator=generator)[0] for v in order}
        for _ in range(steps)
    ]
    size = (2 * 0.05 * temperature) ** 0.5
    expected = reference.infer(
        net, clamps, start, steps, lambda v, h, g, t: h - 0.05 * g + size * noise[t][v]
    )  # fmt: skip
    optimizer = Langevin(0.05, temperature, torch.Generator().manual_seed(3))
    result = net.infer(clamps, init=Forward(), steps=steps, optimizer=optimizer)
    for v in net.graph:
        torch.testing.assert_close(result.states[v], expected.states[v], **EXACT)


def test_without_noise_it_is_plain_descent_by_node():
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    rates = {"h1": 0.1, None: 0.02}
    one, two = (
        net.infer(clamps_of(net), init=Forward(), steps=5, optimizer=how).states
        for how in (Langevin(rates, temperature=0), SGD(rates))
    )
    for v in net.graph:
        torch.testing.assert_close(one[v], two[v], **EXACT)


def test_it_samples_the_gaussian_that_the_energy_says():
    """One linear node between two clamps: the states have the posterior's mean and variance, at any temperature."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([1, 1, 1]), dtype=torch.float64)
    with torch.no_grad():
        net.weight("h1", "y").fill_(1.5)
    clamps = {"x": torch.ones(20_000, 1, dtype=torch.float64), "y": torch.full((20_000, 1), 2.0, dtype=torch.float64)}
    precision = 1 + 1.5**2
    mu = net.predict({"x": clamps["x"][:1]}, "h1")
    mean = float((mu + 1.5 * (2.0 - net.bias("y"))) / precision)
    optimizer = Langevin(0.01, 0.5, torch.Generator().manual_seed(0))
    found = net.infer(clamps, init=Zero(), steps=400, optimizer=optimizer).states["h1"]
    assert float(found.mean()) == pytest.approx(mean, abs=0.01)
    assert float(found.var()) == pytest.approx(0.5 / precision, rel=0.05)


def test_known_neurons_are_not_shaken_and_torchs_generator_is_the_default():
    net = chain(4, 5, 5, 3)
    values = double(3, 5).float()
    clamps = {**clamps_of(net), "h1": Masked(values, values > 0)}
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(net.infer(clamps, init=Zero(), steps=3, optimizer=Langevin(0.1)).states["h1"])
    assert torch.equal(*found)
    assert torch.equal(found[0][values > 0], values[values > 0])
    assert not torch.equal(found[0][values <= 0], torch.zeros_like(found[0])[values <= 0])


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"generator": 3}, {"lr": 0}])
def test_settings_that_are_none_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Langevin(**{"lr": 0.1, **bad})
