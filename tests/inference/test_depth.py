"""Depth without data: how many gradients inference needs where an error has far to go."""

from __future__ import annotations

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import LBFGS, SGD, Errors, Forward, PCNetwork, Zero
from tests.builders import double


def line(depth: int, *back: tuple[int, int], gain: float, activation: str = "tanh", width: int = 16) -> PCNetwork:
    """0 → 1 → ... → depth, and edges back; `gain` is what the default weights are multiplied by."""
    graph = nx.DiGraph()
    for i in range(depth + 1):
        graph.add_node(i, shape=width, activation=activation if 0 < i < depth else "identity")
    nx.add_path(graph, range(depth + 1))
    graph.add_edges_from(back)
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    with torch.no_grad():
        for weight in net.weights.values():
            weight.mul_(gain)
    return net


def clamps(net: PCNetwork, depth: int) -> dict[int, torch.Tensor]:
    return {v: double(4, *net.structure.shape(v), seed=v) for v in (0, depth)}


def test_forty_nodes_with_two_edges_back_in_35_gradients():
    """To a thousandth of the gap at first; plain descent, at a rate near its limit, has not come that far in 700."""
    net = line(40, (13, 5), (30, 22), gain=1.65)
    known = clamps(net, 40)

    def traced(steps, **how):
        return net.infer(known, init=Zero(), steps=steps, trace=True, **how).trace

    solved = traced(100, optimizer=LBFGS(), coordinates=Errors(keep="repair"))
    least, allowed = solved[-1], 1e-3 * (solved[0] - solved[-1])
    assert (solved[35] - least < allowed).all()
    plain = traced(700, optimizer=SGD(0.2 / 1.65**2))
    assert (plain[700] - least > allowed).any()


def test_a_linear_chain_of_depth_20_to_a_millionth_in_40_gradients():
    """Of the equilibrium energy in closed form, with weights that keep the size of what they send."""
    net = line(20, activation="identity", gain=1.73)
    known = clamps(net, 20)
    miss, spread = known[0], torch.zeros(16, 16, dtype=torch.float64)
    for i in range(20):  # y - mu is the sum of what the errors of all layers become on their way
        weight = net.weight(i, i + 1)
        miss = miss @ weight.t() + net.bias(i + 1)
        spread = weight @ spread @ weight.t() + torch.eye(16, dtype=torch.float64)
    miss = known[20] - miss
    least = 0.5 * (miss * torch.linalg.solve(spread, miss.t()).t()).sum(1)
    found = net.infer(known, init=Forward(), steps=40, optimizer=LBFGS(), coordinates=Errors()).energy
    torch.testing.assert_close(found, least, rtol=1e-6, atol=0)
    plain = net.infer(known, init=Forward(), steps=500, optimizer=SGD(0.3 / 1.73**2)).energy
    assert (plain > 1.01 * least).all()


@pytest.mark.parametrize("solver", [LBFGS(), pcgraph.Anderson(lr=0.2), pcgraph.Momentum(lr=0.1)])
def test_every_solver_beats_plain_descent_on_a_deep_chain(solver):
    net = line(20, gain=1.5)
    known = clamps(net, 20)
    plain = net.infer(known, init=Forward(), steps=40, optimizer=SGD(0.1)).energy
    assert (net.infer(known, init=Forward(), steps=40, optimizer=solver).energy < plain).all()
