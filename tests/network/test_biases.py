"""Biases that neurons share: against the slow reference, and against what sharing is for."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from torch import nn

import pcgraph
from pcgraph import SGD, GraphError, Normal, PCNetwork, serialization, transforms
from tests.builders import EXACT, assert_equal_to_reference, double


def declared(bias="channel", **transform):
    """x -> a -> b -> y: images of two channels; `b` has its own bias beside `a`, of one shape, which has `bias`."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, 4, 4))
    graph.add_node("a", shape=(2, 4, 4), activation="tanh", bias=bias)
    graph.add_node("b", shape=(2, 4, 4), activation="tanh")
    graph.add_node("c", shape=(2, 4, 4), bias=False)
    graph.add_node("y", shape=3)
    graph.add_edge("x", "a", transform=transforms.Conv2d(1, 2, 3, padding=1, bias=False))
    graph.add_edge("a", "b", transform=transforms.Conv2d(2, 2, 3, padding=1, bias=False))
    nx.add_path(graph, ["b", "c", "y"])
    return graph


@pytest.mark.parametrize("bias", ["channel", (2, 1, 1), (1, 4, 1), (1, 1, 1), True])
def test_a_shared_bias_equals_the_reference(device, bias):
    """Beside a node of the same shape with a bias by neuron, and one with none."""
    net = PCNetwork(declared(bias), seed=1, dtype=torch.float64, device=device)
    given = {"x": double(3, 1, 4, 4, device=device), "y": double(3, 3, seed=1, device=device)}
    assert_equal_to_reference(net, given, Normal(std=0.3), 4, SGD(lr=0.05))
    shape = {"channel": (2, 1, 1), True: (2, 4, 4)}.get(bias, bias)
    assert net.bias("a").shape == shape
    net.bias("a").fill_(0.25)  # a view
    assert bool((net.constant_input(net.structure.number["a"]) == 0.25).all())


def test_it_is_the_bias_of_a_convolution(device):
    """torch's layer with a bias, and a node with one by channel, predict the same."""
    layer = nn.Conv2d(1, 2, 3, padding=1).to(device, torch.float64)
    graph = pcgraph.graphs.chain([(1, 4, 4), (2, 4, 4)])
    graph.nodes["y"]["bias"] = "channel"
    graph.edges["x", "y"]["transform"] = transforms.Conv2d(1, 2, 3, padding=1, bias=False)
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    with torch.no_grad():
        net.transform("x", "y").weight.copy_(layer.weight)
        net.bias("y").copy_(layer.bias.view(2, 1, 1))
        x = double(3, 1, 4, 4, device=device)
        torch.testing.assert_close(net.predict({"x": x}, "y"), layer(x), **EXACT)


class Mean(nn.Module):
    """Every vertex gets the sum over those that point to it, times a weight: a graph layer of five lines."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))

    def forward(self, x, edge_index):
        return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]]) @ self.weight


def by_layer(**attributes):
    graph = nx.DiGraph()
    graph.add_node("x", shape=(4, 3))
    graph.add_node("y", shape=(4, 2), **attributes)
    graph.add_edge("x", "y", transform=transforms.GraphLayer(Mean(), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])))
    return graph


def test_a_node_behind_graph_layers_alone_treats_all_vertices_alike():
    """A bias by neuron would tell vertices apart that the layer cannot, and learn their labels by heart."""
    net = PCNetwork(by_layer())
    assert net.bias("y").shape == (1, 2)
    turned = torch.randn(2, 4, 3)
    y = net.predict({"x": turned}, "y")
    torch.testing.assert_close(net.predict({"x": turned.roll(1, 1)}, "y"), y.roll(1, 1))
    assert PCNetwork(by_layer(bias=True)).bias("y").shape == (4, 2)
    mixed = by_layer()
    mixed.add_node("z", shape=5)
    mixed.add_edge("z", "y")
    assert PCNetwork(mixed).bias("y").shape == (4, 2)


def test_the_seed_draws_other_biases_as_before():
    """A node that shares its bias leaves the weights of the rest of the network alone."""
    one, two = PCNetwork(declared(True), seed=3), PCNetwork(declared("channel"), seed=3)
    torch.testing.assert_close(one.weight("b", "c"), two.weight("b", "c"))


@pytest.mark.parametrize("bias", ["chanel", (2, 2, 1), (2,), 3, None, [1.0, 1.0, 1.0], (0, 1, 1)])
def test_a_bias_that_fits_no_neurons_is_refused(bias):
    with pytest.raises(GraphError, match="node 'a'"):
        PCNetwork(declared(bias))


def test_channels_need_a_shape_that_has_them():
    graph = pcgraph.graphs.chain([3, (2, 2, 2, 2)])
    graph.nodes["y"]["bias"] = "channel"
    with pytest.raises(GraphError, match=r"say the shape of the bias itself"):
        PCNetwork(graph)


def test_it_is_saved_and_read_again(tmp_path):
    graph = pcgraph.graphs.chain([3, (2, 2, 2)])
    graph.nodes["y"]["bias"] = "channel"
    graph.add_node("z", shape=(2, 2, 2), bias=(1, 2, 1))
    graph.add_edge("x", "z")
    serialization.write_graph(tmp_path / "graph.json", graph)
    again = PCNetwork(serialization.read_graph(tmp_path / "graph.json"))
    assert again.bias("y").shape == (2, 1, 1)
    assert again.bias("z").shape == (1, 2, 1)
