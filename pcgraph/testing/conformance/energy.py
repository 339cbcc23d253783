"""Check an energy."""

from __future__ import annotations

import copy

import networkx as nx
import torch
from torch import Tensor, nn

from pcgraph.energies import Energy
from pcgraph.errors import GraphError
from pcgraph.testing.conformance.promises import BATCH, Draws, broken, derivative, far, in_network, unmoved
from pcgraph.transforms.base import vjp

__all__ = ["check_energy"]


def check_energy(
    energy: Energy, shape: int | tuple[int, ...], *, unit: bool = False, seed: int = 0,
    device: torch.device | str | None = None,
) -> None:  # fmt: skip
    """Test an energy.

    Parameters
    ----------
    energy : Energy
        A copy is tested, in float64.
    shape : int or tuple
        Of a node that it is for.
    unit : bool
        Draw states between 0 and 1 instead of from a normal distribution, for energies of probabilities.
    seed : int
        Of the values drawn.
    device : torch.device or str, optional
        Where all is computed; torch's default device if None.

    Raises
    ------
    BrokenPromise

    Examples
    --------
    >>> from pcgraph.energies import Bernoulli
    >>> check_energy(Bernoulli(), 4, unit=True)
    """
    if not isinstance(energy, Energy):
        raise broken(energy, "to be an Energy", type(energy).__name__, "derive it from pcgraph.energies.Energy")
    draw = Draws(seed, device)
    tested = copy.deepcopy(energy).double().to(draw.device)
    full = (shape,) if isinstance(shape, int) else tuple(shape)
    h, mu = draw((BATCH, *full)), draw((BATCH, *full))
    h = h.sigmoid() if unit else h
    _energy_values(tested, h, mu)
    _energy_derivatives(tested, h, mu, draw)
    _energy_at_prediction(tested, h)
    graph = nx.DiGraph()
    graph.add_node("x", shape=2)
    graph.add_node("v", shape=full, energy=tested)
    graph.add_node("y", shape=2, activation="tanh")
    nx.add_path(graph, ["x", "v", "y"])
    in_network(tested, graph, draw)


def _energy_values(tested: Energy, h: Tensor, mu: Tensor) -> None:
    kept = h.clone(), mu.clone()
    with torch.no_grad():
        try:
            value = unmoved(tested, "energy", lambda: tested.per_sample(h, mu))
        except GraphError as error:
            raise broken(tested, "one energy a sample", str(error), "sum over the neurons alone") from error
        if not torch.equal(value, tested.energy(h, mu)):
            raise broken(tested, "the same energy for the same h and mu", "two different ones", "remove what draws")
        for i in range(BATCH):
            if far(tested.energy(h[i : i + 1], mu[i : i + 1]), value[i : i + 1]):
                raise broken(
                    tested, "an energy of each sample by itself", f"another of sample {i} alone than in a batch",
                    "use no statistics over the batch",
                )  # fmt: skip
        tested.error(h, mu)
    if not (torch.equal(h, kept[0]) and torch.equal(mu, kept[1])):
        raise broken(tested, "to leave h and mu as they are", "that one was changed", "avoid operations in place")


def _energy_derivatives(tested: Energy, h: Tensor, mu: Tensor, draw: Draws) -> None:
    own, sent = tested.error(h, mu)
    if own.shape != h.shape or sent.shape != mu.shape:
        raise broken(
            tested, f"that error returns two tensors of shape {tuple(h.shape)}",
            f"{tuple(own.shape)}, {tuple(sent.shape)}", "return (dE/dh, -dE/dmu)",
        )  # fmt: skip
    own, sent = own.detach().clone(), sent.detach().clone()

    def value() -> Tensor:
        return tested.energy(h, mu).sum()

    remedy = "correct error(), or leave it out and let autograd do it"
    derivative(tested, "that error()[0] is dE/dh", value, h, own, draw, remedy)
    derivative(tested, "that error()[1] is -dE/dmu", value, mu, -sent, draw, remedy)
    _, grads = vjp(_OfParameters(tested, h, mu), h.new_ones(BATCH), h.new_zeros(BATCH))
    for name, parameter in tested.named_parameters():
        what, given = f"that autograd gives the derivative by {name}", grads[f"tested.{name}"]
        derivative(tested, what, value, parameter, given, draw, "use differentiable operations, without detach()")


class _OfParameters(nn.Module):
    """This module is the energy as a function of its own parameters, at fixed h and mu."""

    def __init__(self, tested: Energy, h: Tensor, mu: Tensor) -> None:
        super().__init__()
        self.tested, self.h, self.mu = tested, h, mu

    def forward(self, x: Tensor) -> Tensor:
        return self.tested.energy(self.h, self.mu) + 0 * x


def _energy_at_prediction(tested: Energy, h: Tensor) -> None:
    if not tested.zero_at_prediction:
        return
    _, grads = vjp(_OfParameters(tested, h, h), h.new_ones(BATCH), h.new_zeros(BATCH))
    own, sent = tested.error(h, h.clone())
    with torch.no_grad():
        parts = {"the energy": tested.energy(h, h.clone()), "dE/dh": own, "dE/dmu": sent}
    parts |= {f"the gradient of {name.removeprefix('tested.')}": g for name, g in grads.items()}
    for name, value in parts.items():
        if bool((value != 0).any()):
            raise broken(
                tested, f"zero_at_prediction: that {name} is zero where h == mu", f"{float(value.abs().max()):.3g}",
                "set zero_at_prediction = False, its default: plans would skip nodes that must not be skipped",
            )  # fmt: skip
