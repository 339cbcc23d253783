"""A copy of a network is that network: subclasses, attributes, parts, what is frozen, and nothing in common."""

from __future__ import annotations

import copy
import pickle

import networkx as nx
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pcgraph
from pcgraph import SGD, Forward, PCNetwork
from pcgraph.energies import LearnedPrecision
from tests.builders import double


class Chain(PCNetwork):
    """A constructor of its own, a part of its own, and a plain attribute."""

    def __init__(self, sizes):
        super().__init__(pcgraph.graphs.chain(sizes, activation="tanh"), seed=3, dtype=torch.float64)
        self.sizes = sizes
        self.head = nn.Linear(sizes[-1], 2).double()
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))


class Named:
    """A node name that is equal to itself alone."""


def rich():
    """Every kind of edge and energy, one module on two edges, one frozen edge, names that are objects."""
    a, b, c = Named(), Named(), Named()
    graph = nx.MultiDiGraph()
    graph.add_node(a, shape=3)
    graph.add_node(b, shape=3, activation="tanh", energy=LearnedPrecision(2.0))
    graph.add_node(c, shape=3, energy="laplace")
    layer, sparse = nn.Linear(3, 3), pcgraph.transforms.SparseLinear(density=0.5)
    graph.add_edge(a, b, transform=layer)
    graph.add_edge(b, c, transform=layer)
    graph.add_edge(a, b, activation="relu", trainable=False)
    graph.add_edge(a, c, transform=sparse)
    graph.add_edge(a, c, transform="identity")
    return PCNetwork(graph, dtype=torch.float64), (a, b, c)


def learn(net, clamps):
    net.zero_grad()
    result = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(lr=0.05))
    result.backward()
    return result.energy, {n: p.grad for n, p in net.named_parameters() if p.grad is not None}


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda net: pickle.loads(pickle.dumps(net))}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_subclass_with_a_constructor_of_its_own_is_copied_whole(copied):
    """deepcopy called the subclass's constructor with the base class's arguments."""
    net = Chain([5, 4, 3])
    net.seen += 7
    net.note = ["kept"]
    twin = copied(net)
    assert type(twin) is Chain
    assert twin.sizes == [5, 4, 3]
    assert twin.note == ["kept"]
    assert twin.note is not net.note
    assert twin.seen == 7
    assert all(torch.equal(a, b) for a, b in zip(twin.state_dict().values(), net.state_dict().values()))
    assert list(twin.state_dict()) == list(net.state_dict())
    clamps = {"x": double(6, 5), "y": double(6, 3, seed=1)}
    torch.testing.assert_close(learn(twin, clamps), learn(net, clamps), rtol=0, atol=0)


def test_a_copy_shares_no_parameter_and_all_names():
    """What is learned by one of them must not reach the other."""
    net, (a, b, c) = rich()
    net.weights.requires_grad_(False)
    net.transform(b, c).eval()
    clamps = {a: double(4, 3), c: double(4, 3, seed=1)}
    before = learn(net, clamps)
    twin = copy.deepcopy(net)
    assert twin.structure.nodes == net.structure.nodes
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in net.parameters()]
    assert [m.training for m in twin.modules()] == [m.training for m in net.modules()]
    torch.testing.assert_close(learn(twin, clamps), before, rtol=0, atol=0)
    held = {id(p) for p in net.parameters()} | {p.data_ptr() for p in net.parameters()}
    assert not any(id(p) in held or p.data_ptr() in held for p in twin.parameters())
    for bucket in twin.structure.buckets:
        if bucket.kind == "module":
            assert twin.edge_modules[bucket.name] is bucket.transform
    assert twin.transform(a, b, 0).module is twin.transform(b, c).module is twin.graph.edges[a, b, 0]["transform"]
    assert twin.transform(a, b, 0).module is not net.transform(a, b, 0).module
    energy = twin.node_energy(twin.structure.number[b])
    assert any(energy is part for part in twin.energies.values())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(learn(net, clamps), before, rtol=0, atol=0)
    with pytest.raises(nx.NetworkXError):
        twin.graph.add_node("new")


def test_what_refers_to_the_network_refers_to_the_copy():
    """An optimizer that is copied along moves the copy; a part that knows its network knows the copy."""
    net = Chain([5, 4, 3])
    net.owner = [net]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    twin, moved = copy.deepcopy((net, optimizer))
    assert twin.owner[0] is twin
    assert {id(p) for p in moved.param_groups[0]["params"]} == {id(p) for p in twin.parameters()}


def test_averages_of_weights_follow_the_network():
    """AveragedModel copies a network, and keeps an average of what it is shown."""
    net = Chain([5, 4, 3])
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    average.update_parameters(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(2.0)
    average.update_parameters(net)
    for name, parameter in average.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), start[name] + 1.0)
    x = double(2, 5)
    assert not torch.equal(average.module.predict({"x": x}, "y"), net.predict({"x": x}, "y"))


def test_the_same_declaration_and_seed_give_the_same_weights():
    """To the last bit, however often and in whatever type it was declared; another seed gives others."""
    graph = pcgraph.graphs.random_groups(12, 4, degree=3)
    one, two = PCNetwork(graph, seed=5), PCNetwork(graph.copy(), seed=5)
    wide, other = PCNetwork(graph, seed=5, dtype=torch.float64), PCNetwork(graph, seed=6)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
        assert torch.equal(value.double(), wide.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])
