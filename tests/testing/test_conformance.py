"""The checks for users' own classes: they pass what is right, and each planted fault is found and named."""

from __future__ import annotations

import re
import runpy

import pytest
import torch
from torch import nn

import pcgraph
from pcgraph import SGD, Adam, Forward, Normal, Zero
from pcgraph import initializers as I
from pcgraph import transforms as T
from pcgraph.energies import Energy
from pcgraph.errors import BrokenPromise, PCGraphError
from pcgraph.optimizers import StateOptimizer
from pcgraph.testing import conformance
from pcgraph.topology import Verdict
from tests import ROOT
from tests.builders import chain, double


def fault(match):
    return pytest.raises(BrokenPromise, match=match)


# -- transforms ---------------------------------------------------------------------------------------------------


class Scale(T.Transform):
    """y = w * x, right in every way; each fault below changes one thing."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.5, -0.5, 2.0]))

    def output_shape(self, input_shape):
        return tuple(input_shape)

    def forward(self, x):
        return self.w * x

    def pullback(self, g, x):
        return self.w.detach() * g

    def weight_grad(self, g, x):
        return {"w": (g * x).sum(0)}

    def entries(self, source_shape, target_shape):
        return torch.arange(3).expand(2, 3)

    def fan_in(self, input_shape):
        return 1

    def reset_parameters(self, generator=None, fan_in=None):
        self.w.data.copy_(torch.rand(3, generator=generator))


class Counting(Scale):
    n = 0

    def forward(self, x):
        self.n += 1
        return self.w * x * self.n


def faulty(**methods):
    return type("Faulty", (Scale,), methods)()


def in_place(self, x):
    return x.mul_(2) * self.w


TRANSFORMS = [
    (faulty(output_shape=lambda self, s: 3), "output_shape returns a tuple"),
    (faulty(output_shape=lambda self, s: (4,)), "an output of shape"),
    (faulty(forward=lambda self, x: (x,)), "an output of shape"),
    (faulty(forward=in_place), "leave its input as it is"),
    (faulty(forward=lambda self, x: self.w * x + 0 * torch.rand(())), "global generator"),
    (Counting(), "the same result for the same input"),
    (faulty(forward=lambda self, x: self.w * (x - x.mean(0))), "each sample by itself"),
    (faulty(forward=lambda self, x: (self.w * x).detach() + 0 * x), "derivative by its input"),
    (faulty(forward=lambda self, x: self.w.detach() * x), "derivative by w"),
    (faulty(pullback=lambda self, g, x: g), "pullback"),
    (faulty(pullback=lambda self, g, x: self.w.detach() * g.mul_(1.5)), "pullback|as they are"),
    (faulty(weight_grad=lambda self, g, x: {"w": (g * x).mean(0)}), "weight_grad.*is the gradient"),
    (faulty(weight_grad=lambda self, g, x: (g * x).sum(0)), "weight_grad.*is a dict"),
    (faulty(weight_grad=lambda self, g, x: {"v": (g * x).sum(0)}), "weight_grad.*is a dict"),
    (faulty(entries=lambda self, s, t: torch.tensor([[0, 1], [0, 1]])), "no neuron outside entries"),
    (faulty(entries=lambda self, s, t: torch.tensor([[0, 1, 3], [0, 1, 2]])), "sources below 3"),
    (faulty(fan_in=lambda self, s: 0.5), "fan_in is a count"),
    (faulty(reset_parameters=lambda self: None), "reset_parameters"),
    (faulty(reset_parameters=lambda self, g=None, n=None: self.w.data.normal_()), "global generator"),
]


def test_a_right_transform_passes(device):
    conformance.check_transform(Scale(), 3, device=device)
    conformance.check_transform(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), 3, device=device)
    conformance.check_transform("identity", (2, 2), device=device)
    conformance.check_transform("linear", (2, 2), device=device)


@pytest.mark.parametrize(("transform", "words"), TRANSFORMS, ids=[w for _, w in TRANSFORMS])
def test_a_fault_in_a_transform_is_found(device, transform, words):
    with fault(words):
        conformance.check_transform(transform, 3, device=device)


def test_a_transform_that_forgets_an_argument_in_its_config_is_found():
    class Power(T.Transform):
        def __init__(self, exponent=2.0):
            super().__init__()
            self.exponent = exponent

        output_shape = Scale.output_shape

        def forward(self, x):
            return x.abs() ** self.exponent

        def config(self):
            return {}

    T.TRANSFORMS["power"] = Power
    try:
        conformance.check_transform(Power(2.0), 3)
        with fault("config"):
            conformance.check_transform(Power(3.0), 3)
        del Power.config
        with fault("config"):
            conformance.check_transform(Power(2.0), 3)
    finally:
        del T.TRANSFORMS["power"]


# -- energies -----------------------------------------------------------------------------------------------------


class Quartic(Energy):
    zero_at_prediction = True

    def energy(self, h, mu):
        return (h - mu).pow(4).flatten(1).sum(1)

    def error(self, h, mu):
        e = 4 * (h - mu) ** 3
        return e, e


def bad_energy(**methods):
    return type("Faulty", (Quartic,), {"zero_at_prediction": True, **methods})()


ENERGIES = [
    (bad_energy(energy=lambda self, h, mu: (h - mu).pow(4).sum()), "one energy a sample"),
    (bad_energy(energy=lambda self, h, mu: (h - mu - h.mean(0)).pow(4).sum(1)), "each sample by itself"),
    (bad_energy(energy=lambda self, h, mu: (h - mu).pow(4).sum(1) * (1 + 0 * torch.rand(()))), "global generator"),
    (bad_energy(energy=lambda self, h, mu: h.sub_(mu).pow(4).sum(1)), "same energy|as they are"),
    (bad_energy(error=lambda self, h, mu: ((h - mu) ** 3, 4 * (h - mu) ** 3)), "dE/dh"),
    (bad_energy(error=lambda self, h, mu: (4 * (h - mu) ** 3, -4 * (h - mu) ** 3)), "-dE/dmu"),
    (bad_energy(error=lambda self, h, mu: (h[:1], mu[:1])), "two tensors"),
    (bad_energy(energy=lambda self, h, mu: (h - mu).pow(4).sum(1) + 1), "zero_at_prediction.*the energy"),
    (
        bad_energy(energy=lambda self, h, mu: (h - mu).pow(4).sum(1) + mu.sum(1) - h.sum(1), error=Energy.error),
        "zero_at_prediction.*dE/dh",
    ),
]


def test_a_right_energy_passes(device):
    conformance.check_energy(Quartic(), 3, device=device)
    conformance.check_energy(Quartic(), (2, 2), device=device)


@pytest.mark.parametrize(("energy", "words"), ENERGIES, ids=[w for _, w in ENERGIES])
def test_a_fault_in_an_energy_is_found(device, energy, words):
    with fault(words):
        conformance.check_energy(energy, 3, device=device)


# -- state optimizers ---------------------------------------------------------------------------------------------


def mover(step, **attributes):
    return type("Faulty", (StateOptimizer,), {"step": step, "fixes_zero": True, **attributes})(0.1)


def remembers_itself(self, state, grad, memory):
    self.n = getattr(self, "n", 0) + 1
    state.sub_(grad, alpha=0.1 / self.n)


OPTIMIZERS = [
    (mover(lambda self, s, g, m: s - 0.1 * g), "move the state in place"),
    (mover(lambda self, s, g, m: s.mul_(0.9).sub_(m["lr"] * g)), "fixes_zero"),
    (mover(lambda self, s, g, m: s.sub_(m["lr"] * g + 0.01)), "fixes_zero"),
    (mover(remembers_itself), "fresh memory"),
    (mover(lambda self, s, g, m: s.sub_(g * m["lr"] / g.norm().clamp(min=1e-9))), "where it would go alone"),
    (mover(lambda self, s, g, m: s.sub_(g * m["lr"] / g.norm(dim=1, keepdim=True).clamp(min=1e-9))), "a sample goes"),
    (mover(lambda self, s, g, m: s.sub_(g, alpha=0.1)), "half the rate"),
    (mover(lambda self, s, g, m: s.sub_(g, alpha=float(torch.as_tensor(m["lr"]).mean()))), "tensor of shape"),
    (mover(lambda self, s, g, m: s.sub_(m["lr"] * g + 0 * torch.rand(()))), "global generator"),
    (mover(lambda self, s, g, m: s.sub_(m["lr"] * g / 0)), "finite"),
]


@pytest.mark.parametrize(
    "optimizer",
    [SGD(0.1), SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9, nesterov=True), SGD({"y": 0.1, None: 0.2}), Adam(0.1)],
    ids=repr,
)
def test_a_right_state_optimizer_passes(device, optimizer):
    conformance.check_state_optimizer(optimizer, device=device)


def test_decay_passes_where_it_does_not_promise_to_stand_still(device):
    step = lambda self, s, g, m: s.mul_(0.9).sub_(m["lr"] * g)  # noqa: E731
    conformance.check_state_optimizer(mover(step, fixes_zero=False), device=device)


@pytest.mark.parametrize(("optimizer", "words"), OPTIMIZERS, ids=[w for _, w in OPTIMIZERS])
def test_a_fault_in_a_state_optimizer_is_found(device, optimizer, words):
    with fault(words):
        conformance.check_state_optimizer(optimizer, device=device)


# -- initializers -------------------------------------------------------------------------------------------------


class Constant(I.Initializer):
    """Every free state starts at a constant that it learns from what it sees."""

    def __init__(self):
        super().__init__()
        self.register_buffer("value", torch.tensor(0.25, dtype=torch.float64))

    def requirement(self, report):
        return report.verdicts["zero"]

    def init(self, block, out, context):
        out.fill_(float(self.value))

    def observe(self, result):
        self.value += 0.5


class Unsaved(Constant):
    seen = 0

    def init(self, block, out, context):
        out.fill_(self.seen)

    def observe(self, result):
        self.seen += 1


class Forgetful(Constant):
    calls = 0

    def init(self, block, out, context):
        self.calls += 1
        out.fill_(self.calls)


def starter(**methods):
    return type("Faulty", (Constant,), methods)()


def refuses_in_vain(self, report):
    return Verdict(False, "", None, "", "Faulty()")


INITIALIZERS = [
    (starter(requirement=lambda self, report: True), "returns a Verdict"),
    (starter(requirement=refuses_in_vain), "a reason and a remedy"),
    (starter(init=lambda self, b, out, c: out[..., :-1].zero_()), "finite|writes every entry|same states"),
    (starter(init=lambda self, b, out, c: out.fill_(torch.nan)), "finite"),
    (starter(init=lambda self, b, out, c: out.normal_()), "global generator"),
    (starter(init=lambda self, b, out, c: out.fill_(1.0), writes_zeros=True), "writes_zeros|same states in the engine"),
    (starter(layout=lambda self, report, context=None: I.Layout(())), "a value for every free node"),
    (Forgetful(), "the same states for the same batch"),
    (Unsaved(), "state_dict"),
]


def classifier(device="cpu"):
    net = chain(3, 4, 4, 2, dtype=torch.float64, device=device)
    x = double(3, 3, device=device)
    return net, {"x": x, "y": torch.eye(2, dtype=torch.float64, device=device)[torch.tensor([0, 1, 1], device=device)]}


@pytest.mark.parametrize(
    "initializer",
    [
        Constant(), Zero(), Normal(0.1, 0.5), Forward(), Forward(fallback=Zero()), Forward(roots=Normal()),
        I.Null(first=Normal()), I.Average(), I.Average(forward_depth=1, otherwise=Zero()),
        I.PerNode({"h1": Normal()}, default=Zero()),
    ],
    ids=lambda i: type(i).__name__,
)  # fmt: skip
def test_a_right_initializer_passes(device, initializer):
    if isinstance(initializer, I.PerNode):
        conformance.check_initializer(initializer, *classifier(device=device), device=device)
    else:
        conformance.check_initializer(initializer, device=device)


def test_a_right_memory_passes(device):
    net, clamps = classifier(device=device)
    conformance.check_initializer(I.Memory(net, patterns=4, heads=2, embed_dim=8), net, clamps, device=device)


@pytest.mark.parametrize(("initializer", "words"), INITIALIZERS, ids=[w for _, w in INITIALIZERS])
def test_a_fault_in_an_initializer_is_found(device, initializer, words):
    with fault(words):
        conformance.check_initializer(initializer, device=device)


# -- what is said -------------------------------------------------------------------------------------------------


def test_a_broken_promise_says_what_was_promised_what_was_found_and_what_to_do(device):
    """It is an AssertionError, so that pytest shows a failure, and one of ours, to be caught with the rest."""
    with pytest.raises(AssertionError) as caught:
        conformance.check_transform(faulty(fan_in=lambda self, s: 0.5), 3, device=device)
    error = caught.value
    assert isinstance(error, PCGraphError)
    assert error.found == "0.5"
    assert str(error) == f"Faulty promises {error.promised} (found {error.found}); {error.remedy}"


@pytest.mark.parametrize(
    ("check", "thing"),
    [
        (lambda x: conformance.check_energy(x, 3), "gaussian"),
        (conformance.check_initializer, pcgraph.Zero),
        (conformance.check_state_optimizer, torch.optim.SGD),
    ],
)
def test_something_else_altogether_is_said_to_be_so(check, thing):
    with fault("derive it from"):
        check(thing)


def test_the_example_passes_its_own_checks_and_learns(tmp_path, capsys, monkeypatch):
    """It is what a reader will copy."""
    path = ROOT / "examples" / "your_own_edge.py"
    monkeypatch.setattr("sys.argv", [str(path), "--quick", "--out", str(tmp_path)])
    registered = dict(T.TRANSFORMS)
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        T.TRANSFORMS.clear()
        T.TRANSFORMS.update(registered)
    said = capsys.readouterr().out
    assert "Hasty promises that pullback(g, x)" in said
    shares = [float(share) for share in re.findall(r"([\d.]+)% of unseen digits", said)]
    assert len(shares) == 2
    assert min(shares) > 80
    assert (tmp_path / "your_own_edge.png").stat().st_size > 10_000
