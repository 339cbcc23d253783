"""Named activations. Oracle: torch's own functions, and autograd in float64."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch.nn import functional as F

from pcgraph import activations
from tests.builders import double

FUNCTIONS = {
    "identity": lambda a: a * 1,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "gelu_tanh": lambda a: F.gelu(a, approximate="tanh"),
    "elu": F.elu,
    "silu": F.silu,
    "hardtanh": F.hardtanh,
    "softplus": F.softplus,
}


def test_every_name_has_its_function_here():
    """One that is compared with nothing could be anything."""
    assert FUNCTIONS.keys() == activations.ACTIVATIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_derivatives_are_torchs(name):
    """States would move along other gradients than those of the energy."""
    activation, a, g = activations.get(name), 3 * double(40, 7), double(40, 7, seed=1)
    leaf = a.clone().requires_grad_()
    expected = FUNCTIONS[name](leaf)
    (back,) = torch.autograd.grad(expected, leaf, g)
    exact = {"rtol": 1e-13, "atol": 1e-15}
    torch.testing.assert_close(activation(a), expected.detach(), **exact)
    torch.testing.assert_close(activation(a, out=torch.empty_like(a)), expected.detach(), **exact)
    torch.testing.assert_close(activation.pullback(g, a), back, **exact)
    torch.testing.assert_close(activation.pullback(own := g.clone(), a, out=own), back, **exact)  # in place
    if activation.at_zero is not None:
        assert float(activation(torch.zeros(1))) == activation.at_zero


def test_gelu_by_tanh_is_the_formula_that_jax_has():
    """jax.nn.gelu(approximate=True), its default, written out; the form with erf is off by up to 5e-4."""
    a = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    written = 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))
    torch.testing.assert_close(activations.get("gelu_tanh")(a), written, rtol=1e-13, atol=1e-15)
    assert 4e-4 < float((activations.get("gelu")(a) - written).abs().max()) < 5e-4


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_copy_is_still_the_named_one(name):
    """A copied network would lose its fused kernels, and could not be saved."""
    activation = activations.get(name)
    assert pickle.loads(pickle.dumps(activation)) is copy.deepcopy(activation) is activation
