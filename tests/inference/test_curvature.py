"""The curvature of the energy, and rates that follow it: against Hessians by autograd in float64."""

from __future__ import annotations

import pytest
import torch

import pcgraph
from pcgraph import SGD, Adam, Duals, Errors, Following, Forward, Masked, Normal, PCNetwork
from pcgraph.errors import ConfigError
from tests.builders import chain, clamps_of, double


def energies(net, clamps, errors):
    """The energy of one sample as a function of h1 and h2, or of their errors."""

    def energy(flat, i):
        x, y = clamps["x"][i], clamps["y"][i]
        first, second = flat[:5], flat[5:]
        mu1 = torch.tanh(net.weight("x", "h1") @ x + net.bias("h1"))
        h1 = mu1 + first if errors else first
        mu2 = torch.tanh(net.weight("h1", "h2") @ h1 + net.bias("h2"))
        h2 = mu2 + second if errors else second
        out = net.weight("h2", "y") @ h2 + net.bias("y")
        return sum(0.5 * (a - b).square().sum() for a, b in ((h1, mu1), (h2, mu2), (y, out)))

    return energy


@pytest.mark.parametrize("errors", [False, True])
def test_it_is_the_largest_eigenvalue_of_the_hessian(errors):
    """For states and for errors, each sample by itself; a wrong one would call unstable rates safe."""
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    clamps = clamps_of(net)
    coordinates = Errors() if errors else None
    begun = net.infer(clamps, init=Normal(std=0.5), steps=0)
    kind = begun.errors if errors else begun.states
    found = net.curvature(clamps, init=Normal(std=0.5), coordinates=coordinates, iterations=400)
    for i in range(3):
        flat = torch.cat([kind["h1"][i], kind["h2"][i]])
        hessian = torch.autograd.functional.hessian(lambda f, i=i: energies(net, clamps, errors)(f, i), flat)
        expected = torch.linalg.eigvalsh(hessian).abs().max()
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-6)


def test_neurons_that_are_fixed_do_not_count():
    """The curvature for the free ones alone."""
    net = PCNetwork(pcgraph.graphs.chain([2, 3, 2], activation="identity"), seed=0, dtype=torch.float64)
    values = double(1, 3)
    mask = torch.tensor([[True, False, True]])
    clamps = {**clamps_of(net, batch=1), "h1": Masked(values, mask)}
    found = net.curvature(clamps, init=pcgraph.Zero(), iterations=50)
    expected = 1 + net.weight("h1", "y")[:, 1].square().sum()
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "way",
    [{}, {"coordinates": Errors()}, {"duals": Duals(0.2)}, {"coordinates": Errors(), "duals": Duals(0.2)}],
    ids=repr,
)
def test_a_rate_is_held_below_what_the_curvature_allows(way):
    """At most what was asked for, and never more than cap / curvature; measured now and then, for what is moved."""
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    clamps = clamps_of(net)
    true = float(net.curvature(clamps, init=Forward(), coordinates=way.get("coordinates"), iterations=300).max())
    for at_most in (0.01, 50.0):
        rate = Following(at_most, every=3)
        optimizer, kw = SGD(lr=rate), {"init": Forward(), "steps": 4, **way}
        for _ in range(7):
            result = net.infer(clamps, optimizer=optimizer, **kw)
        assert rate.rate == pytest.approx(min(at_most, 1.2 / true), rel=0.02)
        assert rate.curvature == pytest.approx(true, rel=0.02)
        same = net.infer(clamps, optimizer=SGD(lr=rate.rate), **kw)
        torch.testing.assert_close(result.states["h1"], same.states["h1"])


def test_inference_that_would_swing_descends():
    """With weights ten times as large, the rate asked for makes the energy rise, and the one that follows does not."""
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        net.weight("h2", "y").mul_(10)
    kw = {"init": Forward(), "steps": 20, "trace": True, "check": False}
    plain = net.infer(clamps_of(net), optimizer=SGD(lr=0.3), **kw).trace.sum(1)
    held = net.infer(clamps_of(net), optimizer=SGD(lr=Following(0.3)), **kw).trace.sum(1)
    assert not plain[-1] < plain[0]
    assert (held[1:] <= held[:-1] * (1 + 1e-9)).all()


def test_a_training_run_keeps_its_rate_in_step():
    """fit takes such a rate as any other; it is measured once in so many batches and not in each."""
    net = chain(4, 6, 3)
    rate = Following(1.5, every=4)
    batches = [(double(8, 4, seed=i).float(), torch.eye(3)[torch.arange(8) % 3]) for i in range(6)]
    history = pcgraph.fit(
        net, batches, init=Forward(), steps=3, state_optimizer=Adam(lr=rate), epochs=2, progress=False,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
    )  # fmt: skip
    assert history.epochs[-1].step == 12
    assert 0 < rate.rate <= 1.5
    assert rate.rate * rate.curvature <= 1.2 + 1e-6


def test_it_follows_a_curvature_that_grows_over_other_batches():
    """A direction that two iterations keep from batch to batch told a tenth of the curvature."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([20, 64, 64, 64, 5], activation="tanh"), seed=0)
    rate, init = Following(1.0, every=10), pcgraph.Average(by="y", forward_depth=2)
    for k in range(41):
        x, y = double(40, 20, seed=k).float(), torch.eye(5)[torch.arange(40) % 5]
        result = net.infer({"x": x, "y": y}, init=init, steps=3, optimizer=SGD(lr=rate))
        if k % 10 == 0 and k:  # Average has its means from the second batch on
            true = float(net.curvature({"x": x[:16], "y": y[:16]}, init=init, iterations=200).max())
            assert rate.curvature == pytest.approx(true, rel=0.1), k
        result.backward()
        with torch.no_grad():
            for weight in net.weights.values():
                weight.mul_(1.03).add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(k)))
        net.zero_grad()


def test_what_starts_from_given_states_is_measured_there():
    """Incremental learning carries states on; the measurement takes the first samples of them."""
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    clamps = clamps_of(net, batch=6)
    rate = Following(1.0, samples=2)
    states = {v: double(6, 5, seed=i) for i, v in enumerate(("h1", "h2"))}
    net.infer(clamps, init=net.carry_on(states), steps=1, optimizer=SGD(lr=rate))
    few = net.carry_on({v: h[:2] for v, h in states.items()})
    true = net.curvature({v: h[:2] for v, h in clamps.items()}, init=few, iterations=300).max()
    assert rate.curvature == pytest.approx(float(true), rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [({"at_most": 0}, "at_most"), ({"at_most": 1.0, "cap": 2.0}, "cap"), ({"at_most": 1.0, "every": 0}, "every"),
     ({"at_most": "high"}, "at_most"), ({"at_most": 1.0, "iterations": 0}, "iterations")],
)  # fmt: skip
def test_what_is_no_such_rate_is_refused(arguments, key):
    with pytest.raises(ConfigError) as caught:
        Following(**arguments)
    assert caught.value.key == key
