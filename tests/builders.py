"""What the tests of several rooms build: small networks, numbers, files, and the comparison with the reference."""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pcgraph
from pcgraph import SGD, Initializer, PCNetwork
from pcgraph.energies import Gaussian
from pcgraph.optimizers import StateOptimizer
from pcgraph.testing import reference
from pcgraph.training import History
from tests import ROOT

sys.path.append(str(ROOT / "examples"))  # scripts import what they share from the folder that they lie in

#: How near two ways of computing the same in float64 must come.
EXACT = {"rtol": 1e-10, "atol": 1e-12}


# -- networks and numbers ---------------------------------------------------------------------------------------------


def chain(*sizes: int, **settings: Any) -> PCNetwork:
    """Build the network of a chain x, h1, ..., y with tanh between."""
    return PCNetwork(pcgraph.graphs.chain(sizes, activation="tanh"), **settings)


def double(*shape: int, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Draw standard normal numbers in float64, the same for the same seed on every device."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), device="cpu").to(
        device
    )


def clamps_of(net: PCNetwork, batch: int = 3, seed: int = 0, nodes: Iterable[Any] = ("x", "y")) -> dict[Any, Tensor]:
    """Draw standard normal values for `nodes`, in the dtype of the network."""
    generator = torch.Generator().manual_seed(seed)
    return {
        v: torch.randn(batch, *net.structure.shape(v), generator=generator, dtype=net.dtype, device="cpu").to(
            net.device
        )
        for v in nodes
    }


def initial_states(net: PCNetwork, clamps: dict[Any, Any], init: Initializer, **settings: Any) -> dict[Any, Tensor]:
    """Return copies of the states from which an inference starts; of a schedule, the first precisions count."""
    given = settings.get("precision") or {}
    settings |= {"precision": {v: p if isinstance(p, float) else p[0] for v, p in given.items()}}
    return {v: h.clone() for v, h in net.infer(clamps, init=init, steps=0, **settings).states.items()}


# -- against the reference --------------------------------------------------------------------------------------------


def reference_step(optimizer: StateOptimizer) -> Callable[[Any, Tensor, Tensor, int], Tensor]:
    """Return one node's step, written from the formulas and independent of the library's optimizers."""
    memory: dict = {}

    def sgd(v, h, g, t):
        if optimizer.momentum:
            m = memory[v] = optimizer.momentum * memory.get(v, torch.zeros_like(h)) + g
            g = g + optimizer.momentum * m if optimizer.nesterov else m
        return h - optimizer.rate(v) * g

    def adam(v, h, g, t):
        b1, b2 = optimizer.betas
        m, s = memory.get(v, (torch.zeros_like(h), torch.zeros_like(h)))
        m, s = b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g * g
        memory[v] = (m, s)
        mean, square = m / (1 - b1 ** (t + 1)), s / (1 - b2 ** (t + 1))
        return h - optimizer.rate(v) * mean / (square.sqrt() + optimizer.eps)

    return sgd if isinstance(optimizer, SGD) else adam


def warm(net, clamps, init, steps, optimizer, **settings) -> None:
    """Run twice with other weights and look into neither, so that the next run gets used buffers."""
    kept = {name: p.detach().clone() for name, p in net.named_parameters()}
    for factor in (0.5, -0.7):
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(factor)
        net.infer(clamps, init=init, steps=steps, optimizer=optimizer, trace=True, **settings).accumulate()
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(kept[name])
    net.zero_grad()


def assert_equal_to_reference(net, clamps, init, steps, optimizer, *, tolerance=EXACT, **settings):
    """Demand states, energies, errors, predictions and gradients of the slow reference; return the result."""
    coordinates, order = settings.get("coordinates"), ()
    if coordinates is not None:
        order = pcgraph.check(net.graph, clamps).error_coordinates(coordinates.keep).witness.order
    start = initial_states(net, clamps, init, **settings)
    warm(net, clamps, init, steps, optimizer, **settings)
    result = net.infer(clamps, init=init, steps=steps, optimizer=optimizer, trace=True, **settings)
    precision, duals = settings.get("precision"), settings.get("duals")
    rate, stop = (None, None) if duals is None else (duals.rate, duals.stop)
    step = reference_step(optimizer)
    expected = reference.infer(net, clamps, start, steps, step, order, precision, rate, stop)
    result.backward()
    for v in net.graph:
        torch.testing.assert_close(result.states[v], expected.states[v], **tolerance, msg=lambda m, v=v: f"{v}: {m}")
    torch.testing.assert_close(result.trace, torch.stack(expected.trace), **tolerance)
    torch.testing.assert_close(result.energy, expected.trace[-1], **tolerance)
    assert set(result.duals) <= set(expected.duals)
    for v, dual in expected.duals.items():
        found = result.duals[v] if v in result.duals else torch.zeros_like(dual)
        torch.testing.assert_close(found, dual, **tolerance, msg=lambda m, v=v: f"dual of {v}: {m}")
    by_node = sum(result.node_energy.values(), torch.zeros_like(result.energy))
    torch.testing.assert_close(by_node, expected.trace[-1], **tolerance)
    mu = reference.predictions(net, expected.states)
    for v in mu:
        h = expected.states[v[0] if v in net.structure.slots else v]
        torch.testing.assert_close(result.errors[v], h - mu[v], **tolerance)
        torch.testing.assert_close(result.predictions[v], mu[v], **tolerance)
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            gradient = expected.gradients[name]
            torch.testing.assert_close(parameter.grad, gradient, **tolerance, msg=lambda m, n=name: f"{n}: {m}")
    return result


# -- runs, files and scripts ------------------------------------------------------------------------------------------


class Learned(Gaussian):
    """A Gaussian energy with a learned precision."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def energy(self, h: torch.Tensor, mu: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.log.exp() * (h - mu).flatten(1).square().sum(1) - 0.5 * self.log * h[0].numel()

    def error(self, h: torch.Tensor, mu: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        e = self.log.exp() * (h - mu)
        return e, -e


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Say whether two mappings hold the same tensors under the same names, to the last bit."""
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def timeless(history: History) -> tuple[Any, ...]:
    """Return all of a history that must be equal where two runs are the same: everything but the seconds."""
    epochs, steps = ([replace(r, seconds=0.0) for r in kind] for kind in (history.epochs, history.steps))
    return epochs, steps, history.stopped, history.warnings


def idx(array: np.ndarray) -> bytes:
    """Write an array of bytes in the format of the MNIST files."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def script(name: str) -> ModuleType:
    """Import ``examples/<name>.py``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def quick_example(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run ``examples/<name>.py`` by its command for the shortest of trials, with all that it leaves in a folder."""
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(folder)])
    module = script(name)
    module.main()
    return module
