"""Networks in half precision: every kind of edge and everything that moves states comes near what float64 gives."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor

import pcgraph
from pcgraph import SGD, Adam, Anderson, Forward, Masked, Momentum, Normal, PCNetwork
from pcgraph.transforms import SparseLinear
from tests.builders import chain, clamps_of

#: What is lost of an energy of size 1, about.
LOST = {torch.bfloat16: 0.05, torch.float16: 0.005}
halves = pytest.mark.parametrize("dtype", list(LOST))


def narrow(clamps: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {v: value.to(dtype) for v, value in clamps.items()}


def near(one: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    assert bool(torch.isfinite(one).all())
    scale = float(exact.abs().max())
    assert float((one.double() - exact).abs().max()) < LOST[dtype] * max(scale, 1e-3)


def both(graph: nx.DiGraph, dtype: torch.dtype) -> tuple[PCNetwork, PCNetwork]:
    """The network in half precision, and the same numbers in float64."""
    net, exact = PCNetwork(graph, dtype=dtype), PCNetwork(graph, dtype=torch.float64)
    exact.load_from(net)
    return net, exact


def neurons() -> nx.DiGraph:
    graph = nx.relabel_nodes(nx.gnm_random_graph(12, 50, seed=1, directed=True), {0: "x", 11: "y"})
    nx.set_node_attributes(graph, 1, "shape")
    nx.set_node_attributes(graph, "tanh", "activation")
    return graph


def entries(activation: str | None = None) -> nx.DiGraph:
    graph = nx.DiGraph()
    for v, shape in {"x": 4, "a": 6, "y": 3}.items():
        graph.add_node(v, shape=shape, activation="tanh")
    graph.add_edge("x", "a", transform=SparseLinear(density=0.6))
    graph.add_edge("a", "y", transform=SparseLinear(density=0.8), activation=activation)
    return graph


@halves
@pytest.mark.parametrize("graph", [neurons(), entries(), entries("sigmoid")], ids=["neurons", "entries", "activated"])
def test_stored_entries_are_multiplied_in_half_precision(graph: nx.DiGraph, dtype: torch.dtype) -> None:
    """A CPU has no CSR product of it, and no library a sampled one: torch's own error came from the middle of a run."""
    net, exact = both(graph, dtype)
    found = []
    for one, clamps in ((net, narrow(clamps_of(net), dtype)), (exact, clamps_of(exact))):
        for steps in (3, 4):  # gradients are written first, and then added to
            result = one.infer(clamps, init=Normal(std=0.3), steps=steps, optimizer=SGD(0.1))
            result.backward()
        found.append((result.energy, *(p.grad for p in one.parameters())))
    for half, wide in zip(*found):
        near(half, wide, dtype)


@halves
@pytest.mark.parametrize("energy", ["gaussian", "laplace", "huber"])
def test_an_energy_is_larger_than_the_largest_half(energy: str, dtype: torch.dtype) -> None:
    """A sum over 20,000 neurons passes 65504 where each of them is small: it was inf, and the run was given up."""
    graph = pcgraph.graphs.chain([2, 20_000])
    graph.nodes["y"]["energy"] = energy
    net, exact = both(graph, dtype)
    clamps = {"x": torch.zeros(3, 2, dtype=torch.float64), "y": torch.full((3, 20_000), 4.0, dtype=torch.float64)}
    found = []
    for one, given in ((net, narrow(clamps, dtype)), (exact, clamps)):
        result = one.infer(given, init=Forward(), steps=1, optimizer=SGD(0.1), trace=True)
        result.backward()
        assert result.trace is not None
        found.append((result.energy, result.node_energy["y"], result.trace[-1], *(p.grad for p in one.parameters())))
    assert float(found[1][0].min()) > 65504
    for half, wide in zip(*found):
        near(half, wide, dtype)


@halves
@pytest.mark.parametrize(
    "mover", [pcgraph.LBFGS(), Anderson(0.1), Momentum(0.1), Adam(0.1)], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("how", [{}, {"tolerance": 0.05}, {"coordinates": pcgraph.Errors()}], ids=str)
def test_solvers_and_adam_move_states_in_half_precision(mover: Any, how: dict[str, Any], dtype: torch.dtype) -> None:
    """Solvers raised torch's own errors; in float16 Adam divided by an eps that is zero there."""
    net, exact = both(pcgraph.graphs.chain([4, 5, 5, 3], activation="tanh"), dtype)
    clamps = clamps_of(exact)
    half, wide = (
        one.infer(given, init=Forward(), steps=12, optimizer=mover, **how).energy
        for one, given in ((net, narrow(clamps, dtype)), (exact, clamps))
    )
    near(half, wide, dtype)


@halves
def test_a_safe_rate_is_found_of_a_copy_in_float32(dtype: torch.dtype) -> None:
    """Of rises that are rounding alone, the rate was halved a hundred times over."""
    net, exact = both(pcgraph.graphs.chain([4, 20, 20, 3], activation="tanh"), dtype)
    clamps = clamps_of(exact)
    clamps["y"] = Masked(clamps["y"], torch.tensor([True, True, False]).expand(3, -1))  # type: ignore[assignment]
    given = {"x": clamps["x"].to(dtype), "y": Masked(clamps["y"].values.to(dtype), clamps["y"].mask)}
    expected = pcgraph.safe_rate(exact, clamps, init=Normal(std=0.3))
    assert pcgraph.safe_rate(net, given, init=Normal(std=0.3)) == pytest.approx(expected, rel=0.05)
    assert net.dtype == dtype
    with pytest.raises(pcgraph.errors.ClampError, match="dtype|float"):
        pcgraph.safe_rate(chain(4, 3, dtype=dtype), clamps_of(exact, nodes=("x",)), init=Forward())
