"""Energies: against torch's losses and closed forms, against the slow reference, and against what they promise."""

from __future__ import annotations

import copy
import math

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pcgraph import SGD, Forward, GraphError, Normal, PCNetwork, energies, initializers
from pcgraph.energies import (
    KL,
    Bernoulli,
    CrossEntropy,
    DiagonalGaussian,
    Energy,
    Gaussian,
    Huber,
    Laplace,
    LearnedPrecision,
    Poisson,
    StudentT,
)
from pcgraph.errors import BrokenPromise
from pcgraph.testing import conformance
from tests.builders import EXACT, assert_equal_to_reference, double

ALL = [
    Gaussian(2.0), LearnedPrecision(3.0), LearnedPrecision(0.5, 4), LearnedPrecision(2.0, (4,)), CrossEntropy(),
    Bernoulli(), Laplace(), Laplace(2.0), DiagonalGaussian([0.5, 1.0, 2.0, 4.0]), Huber(), Huber(0.3), StudentT(),
    StudentT(1.0, 0.5), KL(), Poisson(), energies.Zero(),
]  # fmt: skip
IDS = [f"{type(e).__name__}-{i}" for i, e in enumerate(ALL)]


def declared(middle=None, last=None, **attributes):
    """x -> a -> v -> y, with an energy at v, which is free, or at y, which is clamped."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=3)
    graph.add_node("a", shape=3, activation="tanh")
    graph.add_node("v", shape=4, activation="tanh", **({"energy": middle} if middle is not None else {}), **attributes)
    graph.add_node("y", shape=4, **({"energy": last} if last is not None else {}))
    nx.add_path(graph, ["x", "a", "v", "y"])
    return graph


def clamps(batch=3, device="cpu"):
    onehot = torch.eye(4, dtype=torch.float64, device=device)[torch.arange(batch, device=device) % 4]
    return {"x": double(batch, 3, seed=1, device=device), "y": onehot}


# -- what each one is ---------------------------------------------------------------------------------------------


def test_each_is_the_loss_of_that_name_in_torch(device):
    h, mu = double(5, 4, seed=1, device=device).softmax(1), double(5, 4, seed=2, device=device)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(Gaussian(2.0).energy(h, mu), F.mse_loss(mu, h, reduction="none").sum(1), **close)
    torch.testing.assert_close(CrossEntropy().energy(h, mu), F.cross_entropy(mu, h, reduction="none"), **close)
    binary = F.binary_cross_entropy_with_logits(mu, h, reduction="none").sum(1)
    torch.testing.assert_close(Bernoulli().energy(h, mu), binary, **close)
    torch.testing.assert_close(Laplace(0.5).energy(h, mu), 2 * F.l1_loss(mu, h, reduction="none").sum(1), **close)
    torch.testing.assert_close(
        Huber(0.5).energy(h, mu), F.huber_loss(mu, h, reduction="none", delta=0.5).sum(1), **close
    )
    torch.testing.assert_close(Poisson().energy(h, mu), F.poisson_nll_loss(mu, h, reduction="none").sum(1), **close)
    apart = F.kl_div(mu.log_softmax(1), h.softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(KL().energy(h, mu), apart, **close)
    by_neuron = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64, device=device)
    spread = F.gaussian_nll_loss(mu, h, (1 / by_neuron).expand_as(h), reduction="none").sum(1)
    own = DiagonalGaussian(by_neuron).to(h).energy(h, mu) - 0.5 * by_neuron.log().sum()
    torch.testing.assert_close(own, spread, **close)
    tails = torch.distributions.StudentT(3.0, mu, torch.full_like(mu, 0.5))
    most = torch.distributions.StudentT(3.0, h, torch.full_like(mu, 0.5))
    far = (most.log_prob(h) - tails.log_prob(h)).sum(1)
    torch.testing.assert_close(StudentT(3.0, 0.5).energy(h, mu), far, **close)
    assert not bool(energies.Zero().energy(h, mu).any())
    normal = F.gaussian_nll_loss(mu, h, torch.full_like(h, 1 / 3), reduction="none", full=True).sum(1)
    constant = 0.5 * 4 * math.log(2 * math.pi)
    torch.testing.assert_close(LearnedPrecision(3.0).to(h).energy(h, mu) + constant, normal, rtol=1e-6, atol=1e-6)


def test_logits_of_any_size_stay_finite():
    """A confident network must not end in nan."""
    mu = torch.tensor([[1e4, -1e4]])
    for energy in (CrossEntropy(), Bernoulli()):
        for h in (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])):
            assert torch.isfinite(energy.energy(h, mu)).all()
            assert all(torch.isfinite(part).all() for part in energy.error(h, mu))
        assert energy.energy(torch.tensor([[1.0, 0.0]]), mu).item() == 0.0


def test_a_node_of_several_dimensions_is_one_softmax(device):
    h, mu = double(3, 2, 2, seed=1, device=device).flatten(1).softmax(1), double(3, 2, 2, seed=2, device=device)
    expected = F.cross_entropy(mu.flatten(1), h, reduction="none")
    torch.testing.assert_close(CrossEntropy().energy(h.view(3, 2, 2), mu), expected)
    own, sent = CrossEntropy().error(h.view(3, 2, 2), mu)
    torch.testing.assert_close(sent.flatten(1), h - mu.flatten(1).softmax(1))
    assert own.shape == (3, 2, 2)


@pytest.mark.parametrize("energy", ALL, ids=IDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_keeps_what_energies_promise(device, energy, seed):
    """error() against finite differences, zero_at_prediction, independence of samples, the engine in a network."""
    conformance.check_energy(energy, 4, seed=seed, device=device)
    conformance.check_energy(energy, 4, unit=True, seed=seed, device=device)


@pytest.mark.parametrize("energy", ALL, ids=IDS)
def test_its_error_in_closed_form_is_that_of_autograd(device, energy):
    energy = copy.deepcopy(energy).to(device, torch.float64)
    h, mu = double(5, 4, seed=1, device=device), double(5, 4, seed=2, device=device)
    for given, derived in zip(energy.error(h, mu), Energy.error(energy, h, mu)):
        torch.testing.assert_close(given.detach(), derived, **EXACT)


# -- zero_at_prediction -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("energy", ALL, ids=IDS)
def test_zero_at_prediction_is_true_exactly_where_everything_vanishes(device, energy):
    """Said too often it gives wrong states; said too rarely it costs speed."""
    energy = copy.deepcopy(energy).to(device, torch.float64)
    vanish = []
    for seed in range(5):
        h = double(5, 4, seed=seed, device=device)
        parts = [energy.energy(h, h), *Energy.error(energy, h, h)]
        parameters = list(energy.parameters())
        parts += torch.autograd.grad(energy.energy(h, h).sum(), parameters) if parameters else []
        vanish.append(all(bool((part.abs() < 1e-14).all()) for part in parts))  # autograd rounds
    assert energy.zero_at_prediction == all(vanish)


class LyingEntropy(CrossEntropy):
    zero_at_prediction = True


class LyingPrecision(LearnedPrecision):
    zero_at_prediction = True


@pytest.mark.parametrize("kind", [CrossEntropy, LearnedPrecision])
def test_the_promise_is_needed(device, kind):
    """From a sweep the engine skips a node that promises it, and the answer is wrong if the promise is."""
    net = PCNetwork(declared(kind(2.0) if kind is LearnedPrecision else kind()), dtype=torch.float64, device=device)
    assert_equal_to_reference(net, clamps(device=device), Forward(), 1, SGD(lr=0.05))
    lying = LyingPrecision(2.0) if kind is LearnedPrecision else LyingEntropy()
    net = PCNetwork(declared(lying), dtype=torch.float64, device=device)
    with pytest.raises(AssertionError):
        assert_equal_to_reference(net, clamps(device=device), Forward(), 1, SGD(lr=0.05))
    with pytest.raises(BrokenPromise, match="zero_at_prediction"):
        conformance.check_energy(lying, 4, device=device)


# -- in the engine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", [initializers.Zero(), Normal(std=0.4), Forward()], ids=lambda i: type(i).__name__)
@pytest.mark.parametrize("energy", ALL, ids=IDS)
def test_free_and_clamped_nodes_equal_the_reference(device, energy, init):
    """From Forward the Laplace node would sit on its kink, where rounding decides the sign: it is left out there."""
    assert_equal_to_reference(
        PCNetwork(declared(last=energy), dtype=torch.float64, device=device),
        clamps(device=device),
        init,
        4,
        SGD(lr=0.05),
    )
    if not (isinstance(energy, Laplace) and isinstance(init, Forward)):
        assert_equal_to_reference(
            PCNetwork(declared(energy), dtype=torch.float64, device=device),
            clamps(device=device),
            init,
            4,
            SGD(lr=0.05),
        )


@pytest.mark.parametrize("name", sorted(energies.ENERGIES))
def test_energies_by_name_equal_the_reference(device, name):
    """Also after their parameters have changed: the reference must not fall back to a fresh energy."""
    net = PCNetwork(declared(last=name), dtype=torch.float64, device=device)
    for parameter in net.energies.parameters():
        parameter.data += 0.7
    assert_equal_to_reference(net, clamps(device=device), Normal(), 4, SGD(lr=0.05))


def test_a_free_node_in_prediction_is_at_its_logits(device):
    net = PCNetwork(declared(last="cross_entropy"), dtype=torch.float64, device=device)
    given = clamps(device=device)
    y = net.predict({"x": given["x"]}, "y")
    a = torch.tanh(given["x"] @ net.weight("x", "a").t() + net.bias("a"))
    v = torch.tanh(a @ net.weight("a", "v").t() + net.bias("v"))
    torch.testing.assert_close(y, v @ net.weight("v", "y").t() + net.bias("y"), **EXACT)


def test_one_energy_on_two_nodes_learns_from_both(device):
    shared = LearnedPrecision(2.0)
    graph = declared(shared, shared)
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    assert len(list(net.energies.parameters())) == 1
    result = assert_equal_to_reference(net, clamps(device=device), Normal(std=0.3), 4, SGD(lr=0.05))
    (parameter,) = net.energies.parameters()
    squares = sum((result.errors[v] ** 2).sum(1).mean() for v in "vy")
    torch.testing.assert_close(parameter.grad, 0.5 * (2.0 * squares - 8), rtol=1e-6, atol=1e-8)


# -- learned precision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [None, 4])
def test_a_learned_precision_finds_the_inverse_of_the_mean_squared_error(device, shape):
    """Without the log-determinant it would go to zero."""
    energy = LearnedPrecision(1.0, shape).to(device, torch.float64)
    e = double(200, 4, seed=3, device=device) * torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64, device=device)
    optimizer = torch.optim.LBFGS(energy.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = energy.energy(e, torch.zeros_like(e)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    mean = e.square().mean() if shape is None else e.square().mean(0)
    torch.testing.assert_close(energy.precision, 1 / mean, rtol=1e-5, atol=1e-8)


def test_exp_minus_energy_has_the_same_integral_for_every_precision():
    """That is what makes it a likelihood: no precision is favoured before there are data."""
    h = torch.linspace(-40, 40, 200_001, dtype=torch.float64).unsqueeze(1)
    for precision in (0.1, 1.0, 30.0):
        density = torch.exp(-LearnedPrecision(precision).double().energy(h, torch.zeros_like(h))).detach()
        assert torch.trapezoid(density, h[:, 0]).item() == pytest.approx(math.sqrt(2 * math.pi), rel=1e-6)


def test_training_a_network_trains_its_precision(device):
    """A noisy output learns how noisy it is, where no state has moved to explain the noise away (T = 0)."""
    net = PCNetwork(declared(last=LearnedPrecision(1.0)), seed=0, dtype=torch.float64, device=device)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(300):
        x = torch.randn(64, 3, generator=generator, dtype=torch.float64).to(device)
        y = 0.2 * torch.randn(64, 4, generator=generator, dtype=torch.float64).to(device)
        optimizer.zero_grad()
        net.infer({"x": x, "y": y}, init=Forward(), steps=0).backward()
        optimizer.step()
    (log_precision,) = net.energies.parameters()
    assert log_precision.exp().item() == pytest.approx(1 / 0.2**2, rel=0.15)


# -- a user's own -------------------------------------------------------------------------------------------------


class Cosh(Energy):
    """log cosh: squared near zero, absolute far away."""

    zero_at_prediction = True

    def energy(self, h, mu):
        return torch.log(torch.cosh(h - mu)).flatten(1).sum(1)


def test_ones_own_energy_takes_ten_lines(device):
    conformance.check_energy(Cosh(), (2, 2), device=device)
    for init in (initializers.Zero(), Normal(), Forward()):
        assert_equal_to_reference(
            PCNetwork(declared(Cosh(), Cosh()), dtype=torch.float64, device=device),
            clamps(device=device),
            init,
            4,
            SGD(lr=0.05),
        )


class Bad(Energy):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def energy(self, h, mu):
        return self.value(h, mu)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (lambda h, mu: (h - mu).square().sum(), r"\(\)"),
        (lambda h, mu: (h - mu).square(), r"\(2, 4\)"),
        (lambda h, mu: (h - mu).square().sum(0), r"\(4,\)"),
        (lambda h, mu: 1.0, "float"),
    ],
)
def test_an_energy_of_the_wrong_shape_is_refused_in_words(value, found):
    with pytest.raises(GraphError, match=rf"node 'v'.* one number for each sample, shape \(2,\) \(found {found}"):
        PCNetwork(declared(Bad(value)), dtype=torch.float64)


def test_a_constant_energy_pulls_nothing(device):
    energy = Bad(lambda h, mu: torch.zeros(len(h), dtype=h.dtype, device=device))
    assert all(not bool(part.any()) for part in energy.error(double(2, 3, device=device), double(2, 3, device=device)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gaussian(0), "a precision must be a positive number"),
        (lambda: Gaussian(float("nan")), "a precision must be a positive number"),
        (lambda: LearnedPrecision(-1.0), "a precision must be a positive number"),
        (lambda: Laplace(True), "a scale must be a positive number"),
        (lambda: LearnedPrecision(1.0, 3).energy(torch.zeros(2, 4), torch.zeros(2, 4)), r"found \(4,\)"),
        (lambda: energies.get("laplas"), "did you mean 'laplace'"),
        (lambda: energies.get(3), r"a name, a pair \(name, arguments\) or a pcgraph.energies.Energy"),
        (lambda: energies.get("laplace", 2.0), "precision belongs to the Gaussian"),
        (lambda: energies.get(Laplace(), 2.0), "precision belongs to the Gaussian"),
        (lambda: energies.from_config("laplace", {"width": 1}), "width"),
        (lambda: energies.name_of(Cosh()), "register its class"),
        (lambda: Bad(None).config(), "cannot be saved"),
        (lambda: PCNetwork(declared(attributes="x", energy="gausian")), "gaussian"),
    ],
)
def test_bad_input_is_refused_in_words(make, words):
    with pytest.raises((GraphError, TypeError), match=words):
        make()


@pytest.mark.parametrize("energy", ALL, ids=IDS)
def test_it_is_made_again_from_its_name_and_config(energy):
    twin = energies.from_config(energies.name_of(energy), energy.config())
    twin.load_state_dict(energy.state_dict())
    h, mu = double(3, 4, seed=1), double(3, 4, seed=2)
    assert type(twin) is type(energy)
    torch.testing.assert_close(twin.double().energy(h, mu), energy.double().energy(h, mu), **EXACT)


def test_parameters_of_an_energy_are_the_networks(device):
    net = PCNetwork(declared(last="learned_precision"), device=device)
    assert isinstance(net.energies, nn.ModuleDict)
    assert any("log_precision" in name for name, _ in net.named_parameters())
    assert any("log_precision" in key for key in net.state_dict())


def test_a_declaration_names_an_energy_with_its_arguments(device):
    """A graph stays pure data, as it does with transforms."""
    net = PCNetwork(declared(last=("laplace", {"scale": 2.0})), device=device)
    assert net.node_energy(net.structure.number["y"]).scale == 2.0
    with pytest.raises(GraphError, match=r"node 'y': the energy 'laplace' is made with \(scale"):
        PCNetwork(declared(last=("laplace", {"width": 2.0})), device=device)


@pytest.mark.parametrize("number", [np.float32(2), np.float64(2), np.int64(2), 2])
def test_a_precision_may_be_any_real_number(device, number):
    """Numbers that NumPy computed are numbers."""
    net = PCNetwork(declared(precision=number), device=device)
    assert net.node_energy(net.structure.number["v"]).precision == 2.0
    assert Laplace(number).scale == LearnedPrecision(number).precision == 2.0


@pytest.mark.parametrize("precision", [[0.5, 1.0, 2.0, 4.0], np.array([3.0]), torch.tensor([1.0, 2.0, 1.0, 0.1])])
def test_a_precision_by_neuron_equals_the_reference(device, precision):
    """How sure a node is may differ by neuron; the default energy with a number is another program."""
    net = PCNetwork(declared(precision=precision), dtype=torch.float64, device=device)
    result = assert_equal_to_reference(net, clamps(device=device), Normal(std=0.3), 4, SGD(lr=0.05))
    weights = torch.as_tensor(precision, dtype=torch.float64, device=device)
    expected = 0.5 * (weights * result.errors["v"].square()).sum(1)
    torch.testing.assert_close(result.node_energy["v"], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "precision", [[1.0, 2.0], np.ones((2, 4)), [1.0, -1.0, 1.0, 1.0], [], [1.0, math.nan, 1.0, 1.0]]
)
def test_a_precision_that_does_not_fit_the_node_is_refused_where_it_is_declared(precision):
    with pytest.raises(GraphError, match=r"node 'v'.*a precision by neuron must"):
        PCNetwork(declared(precision=precision))


def test_a_learned_precision_of_another_shape_is_refused_where_it_is_declared():
    with pytest.raises(GraphError, match=r"node 'v'.*needs a node of that shape"):
        PCNetwork(declared(LearnedPrecision(1.0, 3)))


def test_heavy_tails_let_go_of_an_outlier(device):
    """What they are for: one wild target must not drag the prediction of a constant away from all others."""
    target = torch.tensor([0.0, 0.1, -0.1, 0.05, 100.0], dtype=torch.float64, device=device).unsqueeze(1)
    fitted = {}
    for energy in (Gaussian(), Huber(0.5), StudentT(2.0, 0.1)):
        mu = torch.zeros(1, 1, dtype=torch.float64, device=device, requires_grad=True)
        optimizer = torch.optim.LBFGS([mu], max_iter=200, line_search_fn="strong_wolfe")

        def closure(energy=energy, mu=mu, optimizer=optimizer):
            optimizer.zero_grad()
            loss = energy.energy(target, mu.expand_as(target)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        fitted[type(energy)] = abs(mu.item())
    assert fitted[Gaussian] > 20
    assert fitted[Huber] < 0.3
    assert fitted[StudentT] < 0.05
