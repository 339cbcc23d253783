"""How weights are drawn. Oracles: the moments of the distributions, torch's initializers, and the draws before."""

from __future__ import annotations

import hashlib
import math

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import PCNetwork
from pcgraph import transforms as T
from pcgraph.errors import GraphError
from pcgraph.network import INITS


def wide(init, sizes=(60, 80, 50), **edge):
    graph = pcgraph.graphs.chain(list(sizes))
    graph.edges["x", "h1"].update(init=init, **edge)
    return graph


def digest(net: PCNetwork) -> str:
    found = hashlib.sha256()
    for name, parameter in net.named_parameters():
        found.update(name.encode() + parameter.detach().numpy().tobytes())
    return found.hexdigest()[:16]


def mixed() -> nx.DiGraph:
    """Groups, biases, shared weights, stored entries and a convolution: all that is drawn."""
    graph = pcgraph.graphs.chain([5, 4, 4, 3], activation="tanh")
    graph.add_edge("h1", "h1", share="s")
    graph.add_edge("h2", "h2", share="s")
    graph.add_edge("h2", "h1", transform=T.SparseLinear(density=0.5))
    graph.add_node("image", shape=(1, 4, 4))
    graph.add_node("map", shape=(2, 3, 3))
    graph.add_edge("image", "map", transform=T.Conv2d(1, 2, 2))
    graph.add_edge("map", "y")
    return graph


def test_without_an_init_the_draws_are_those_of_all_versions_before():
    """A seed in a paper, or in a test, must go on to mean the same network."""
    assert digest(PCNetwork(mixed(), seed=3)) == "6cb6ab47cf9e3276"


@pytest.mark.parametrize(
    "init", [*INITS, lambda tensor, generator, fan_in: tensor.fill_(0.1)], ids=lambda i: str(i)[:9]
)
def test_an_init_of_one_edge_leaves_all_others_as_they_were(init):
    plain = PCNetwork(mixed(), seed=3)
    graph = mixed()
    graph.edges["h1", "h2"]["init"] = init
    net = PCNetwork(graph, seed=3)
    differ = [
        e for e in graph.edges if e not in (("image", "map"),) and not torch.equal(net.weight(*e), plain.weight(*e))
    ]
    assert differ == [("h1", "h2")]
    assert all(torch.equal(net.bias(v), plain.bias(v)) for v in ("h1", "h2", "y", "map"))
    assert torch.equal(net.transform("image", "map").weight, plain.transform("image", "map").weight)


def test_each_name_draws_what_it_says():
    n, m = 60, 80

    def weight(init):
        return PCNetwork(wide(init), seed=1, dtype=torch.float64).weight("x", "h1")

    w = weight("normal")
    assert abs(float(w.mean())) < 4 / math.sqrt(n * m)
    assert abs(float(w.var()) - 1) < 4 * math.sqrt(2 / (n * m))
    for init, bound in (("kaiming_uniform", n**-0.5), ("xavier_uniform", math.sqrt(6 / (n + m)))):
        w = weight(init)
        assert 0.99 * bound < float(w.abs().max()) <= bound * (1 + 1e-6)
        assert abs(float(w.var()) / (bound**2 / 3) - 1) < 4 * math.sqrt(0.8 / (n * m))
    w = weight("orthogonal")
    torch.testing.assert_close(w.t() @ w, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-6)
    assert float(w.std()) > 0.5 / math.sqrt(m)
    assert not weight("zeros").any()


@pytest.mark.parametrize("init", INITS)
def test_the_seed_says_what_is_drawn(init):
    """The same on every run and in every dtype; another seed, another draw. The global generator stays where it is."""
    before = torch.get_rng_state()
    one, two, other = (PCNetwork(wide(init), seed=s).weight("x", "h1") for s in (1, 1, 2))
    double = PCNetwork(wide(init), seed=1, dtype=torch.float64).weight("x", "h1")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two)
    assert torch.equal(double.float(), one)
    assert torch.equal(one, other) == (init == "zeros")


def test_a_function_gets_the_tensor_the_generator_and_the_fan_in():
    seen = []

    def init(tensor, generator, fan_in):
        seen.append((tuple(tensor.shape), fan_in))
        tensor.copy_(torch.rand(tensor.shape, generator=generator) / fan_in)

    graph = pcgraph.graphs.chain([3, 4, 2])
    graph.add_edge("x", "y", init=init)
    graph.edges["h1", "y"]["init"] = init
    graph.add_edge("h1", "h1", init=init, transform=T.SparseLinear(mask=torch.eye(4, dtype=torch.bool)))
    nets = [PCNetwork(graph, seed=s) for s in (0, 0, 1)]
    assert sorted(seen[:3]) == [((2, 3), 7), ((2, 4), 7), ((4,), 4)]
    weights = [net.weight("x", "y") for net in nets]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert 0 <= float(weights[0].min()) <= float(weights[0].max()) <= 1 / 7


@pytest.mark.parametrize("wrong", [lambda t, g, n: None, lambda t, g, n: t.mul_(0.1)])
def test_a_function_fills_all_of_the_tensor(wrong):
    """What it left out was whatever memory held."""
    graph = pcgraph.graphs.chain([4, 5, 3])
    net = PCNetwork(graph, seed=0)
    before = net.weight("x", "h1").detach().clone()
    with pytest.raises(GraphError, match="finite"):
        net.edge("x", "h1").initialize(wrong)
    torch.testing.assert_close(net.weight("x", "h1").detach(), before, rtol=0, atol=0)
    graph.edges["x", "h1"]["init"] = wrong
    with pytest.raises(GraphError, match="finite"):
        PCNetwork(graph, seed=0)


def test_initializers_of_torch_fit_with_a_line():
    graph = wide(lambda tensor, generator, fan_in: torch.nn.init.trunc_normal_(tensor, std=0.02, generator=generator))
    assert 0.01 < float(PCNetwork(graph).weight("x", "h1").std()) < 0.03


def test_many_edges_of_one_name_are_drawn_at_once_and_each_its_own():
    graph = nx.complete_graph(30, nx.DiGraph)
    nx.set_node_attributes(graph, 1, "shape")
    nx.set_edge_attributes(graph, "normal", "init")
    graph.edges[3, 4]["init"] = "zeros"
    net = PCNetwork(graph)
    weights = torch.stack([net.weight(*edge).flatten() for edge in graph.edges])
    assert int((weights == 0).sum()) == 1
    assert len(weights.unique()) == 870
    assert abs(float(weights.var()) - 1) < 4 * math.sqrt(2 / 870)


def test_a_shared_weight_is_drawn_once_and_in_one_way():
    graph = mixed()
    calls = []

    def init(tensor, generator, fan_in):
        calls.append(fan_in)
        tensor.fill_(7.0)

    for v in ("h1", "h2"):
        graph.edges[v, v]["init"] = init
    net = PCNetwork(graph)
    assert len(calls) == 1
    assert (net.weight("h1", "h1") == 7).all()
    assert (net.weight("h2", "h2") == 7).all()
    del graph.edges["h2", "h2"]["init"]
    with pytest.raises(GraphError, match="shares the weight 's' with .*another init.*give both the same"):
        PCNetwork(graph)


def test_an_init_changes_neither_names_nor_layout():
    plain, net = PCNetwork(mixed()), PCNetwork(mixed())
    graph = mixed()
    graph.edges["x", "h1"]["init"] = "zeros"
    net = PCNetwork(graph)
    assert [(n, p.shape) for n, p in net.named_parameters()] == [(n, p.shape) for n, p in plain.named_parameters()]


@pytest.mark.parametrize(
    ("edge", "attributes", "says"),
    [
        (("x", "h1"), {"init": "normel"}, "unknown init 'normel': did you mean 'normal'"),
        (("x", "h1"), {"init": 3}, "one of 'kaiming_uniform'.*a function"),
        (("x", "h1"), {"init": torch.nn.Linear}, "one of 'kaiming_uniform'.*a function"),
        (("x", "h1"), {"initt": "normal"}, "nearly 'init'"),
        (("h2", "h1"), {"init": "orthogonal"}, "stored entries alone: use 'normal'"),
        (("h2", "h1"), {"init": "xavier_uniform"}, "stored entries alone"),
        (("image", "map"), {"init": "normal"}, "its transform draws its own: remove it"),
        (("h1", "h1"), {"init": "normal", "transform": "identity", "share": None}, "hands its source's state on"),
        (("x", "h1"), {"init": torch.nn.init.xavier_normal_}, r"fails on \(tensor of shape \(4, 5\), generator"),
        (("x", "h1"), {"init": lambda w, g, n: w * 0}, "must fill its tensor in place.*another Tensor"),
        (("x", "h1"), {"init": lambda w, g, n: w.fill_(math.nan)}, "must leave finite weights"),
    ],
)  # fmt: skip
def test_what_is_no_init_is_refused(edge, attributes, says):
    """Before there is a network, with the edge and what to do."""
    graph = mixed()
    graph.edges[edge].update(attributes)
    with pytest.raises(GraphError, match=says) as caught:
        PCNetwork(graph)
    assert caught.value.where[:2] == edge


def test_copies_and_files_have_the_weights_that_were_drawn():
    net = PCNetwork(wide("orthogonal"), seed=4)
    twin = PCNetwork(net.graph, seed=5)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin.weight("x", "h1"), net.weight("x", "h1"))


def test_a_name_of_ones_own(monkeypatch):
    monkeypatch.setitem(INITS, "tenth", lambda tensor, generator, fan_in: tensor.fill_(0.1))
    assert (PCNetwork(wide("tenth")).weight("x", "h1") == 0.1).all()
