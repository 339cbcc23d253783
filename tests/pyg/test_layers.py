"""torch_geometric, there and back: its layers as edges of a network, its indices as sparse weights."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric import nn as pyg_nn
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx, sort_edge_index

import pcgraph
from pcgraph import SGD, Forward, GraphError, PCNetwork, pyg
from pcgraph.transforms import GraphLayer, SparseLinear
from tests.builders import EXACT

EDGE_INDEX = sort_edge_index(from_networkx(nx.karate_club_graph()).edge_index, sort_by_row=False)
EDGE_ATTR = torch.randn(EDGE_INDEX.shape[1], 2, generator=torch.Generator().manual_seed(0))
DEGREES = torch.bincount(torch.bincount(EDGE_INDEX[1]))

PLAIN = {
    "GCNConv": lambda: pyg_nn.GCNConv(5, 3),
    "SAGEConv": lambda: pyg_nn.SAGEConv(5, 3),
    "SAGEConv by LSTM": lambda: pyg_nn.SAGEConv(5, 3, aggr="lstm"),
    "GATConv": lambda: pyg_nn.GATConv(5, 3, heads=2),
    "GATv2Conv": lambda: pyg_nn.GATv2Conv(5, 3),
    "GINConv": lambda: pyg_nn.GINConv(nn.Linear(5, 3), train_eps=True),
    "TAGConv": lambda: pyg_nn.TAGConv(5, 3),
    "ChebConv": lambda: pyg_nn.ChebConv(5, 3, K=3),
    "ARMAConv": lambda: pyg_nn.ARMAConv(5, 3),
    "TransformerConv": lambda: pyg_nn.TransformerConv(5, 3),
    "EdgeConv": lambda: pyg_nn.EdgeConv(nn.Linear(10, 3)),
    "ClusterGCNConv": lambda: pyg_nn.ClusterGCNConv(5, 3),
    "PNAConv": lambda: pyg_nn.PNAConv(5, 3, ["mean", "max"], ["identity", "amplification"], DEGREES),
    "GatedGraphConv": lambda: pyg_nn.GatedGraphConv(5, 2),
    "a model": lambda: pyg_nn.models.GCN(5, 4, 2, 3),
    "attention over all vertices": lambda: pyg_nn.GPSConv(5, pyg_nn.GCNConv(5, 5), norm=None),
}
WITH_EDGE_ATTR = {
    "GINEConv": lambda: pyg_nn.GINEConv(nn.Linear(5, 3), edge_dim=2),
    "NNConv": lambda: pyg_nn.NNConv(5, 3, nn.Linear(2, 15)),
    "CGConv": lambda: pyg_nn.CGConv(5, 2),
    "GATConv": lambda: pyg_nn.GATConv(5, 3, edge_dim=2),
}
CASES = [
    *(pytest.param(make, {}, id=name) for name, make in PLAIN.items()),
    *(pytest.param(make, {"edge_attr": EDGE_ATTR}, id=f"{name}, edge_attr") for name, make in WITH_EDGE_ATTR.items()),
]


def built(make):
    """The layer in float64, with the same values in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double()


@pytest.mark.parametrize(("make", "data"), CASES)
def test_a_layer_is_an_edge(device, make, data):
    """Predictions and weight gradients are the layer's own on each graph of a batch; else papers' layers learn wrongly.

    Both ends are clamped, so that the gradient is that of half the squared error, averaged over the batch.
    """
    layer = built(make)
    own = {name: value.double() for name, value in data.items()}
    out = layer(torch.zeros(34, 5, dtype=torch.float64), EDGE_INDEX, **own).shape[1]
    graph = nx.DiGraph()
    graph.add_node("x", shape=(34, 5))
    graph.add_node("y", shape=(34, out), bias=False)
    graph.add_edge("x", "y", transform=GraphLayer(layer, EDGE_INDEX, **data))
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 34, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 34, out, generator=generator, dtype=torch.float64)
    expected = torch.stack([layer(one, EDGE_INDEX, **own) for one in x])
    torch.testing.assert_close(net.predict({"x": x.to(device)}, "y").cpu(), expected.detach(), **EXACT)
    (0.5 * (expected - y).square().sum() / 3).backward()
    clamps = {"x": x.to(device), "y": y.to(device)}
    net.infer(clamps, init=Forward(), steps=1, optimizer=SGD(lr=0.1)).backward()
    learned = dict(net.transform("x", "y").layer.named_parameters())
    for name, parameter in layer.named_parameters():
        unused = torch.zeros_like(parameter)
        torch.testing.assert_close(
            learned[name].grad.cpu(), unused if parameter.grad is None else parameter.grad, **EXACT
        )


def test_a_layer_with_batch_statistics_is_refused_by_name():
    """A silent batch norm would change the energy between two steps."""
    layer = pyg_nn.GINConv(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)))
    with pytest.raises(GraphError, match="GINConv must transform each sample by itself"):
        GraphLayer(layer, EDGE_INDEX)


def test_an_edge_index_of_torch_geometric_is_taken_as_it_is(device):
    """Sorted, undirected or with its own size: the entries are the same, for a layer and for a sparse weight."""
    ours = EdgeIndex(EDGE_INDEX, sparse_size=(34, 34), sort_order="col", is_undirected=True)
    layer = built(PLAIN["GCNConv"])
    x = torch.randn(2, 34, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    layers = [GraphLayer(layer, index).to(device) for index in (ours, EDGE_INDEX)]
    torch.testing.assert_close(layers[0](x), layers[1](x), **EXACT)

    graph = nx.DiGraph()
    graph.add_node("x", shape=34)
    graph.add_node("y", shape=34)
    graph.add_edge("x", "y", transform=SparseLinear(ours))
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    assert net.weight("x", "y").shape == (EDGE_INDEX.shape[1],)
    back = net.to_data()
    pairs = {(int(u), int(v) - 34) for u, v in back.edge_index.t()}
    assert pairs == set(map(tuple, EDGE_INDEX.t().tolist()))
    matrix = torch.zeros(34, 34, dtype=torch.float64, device=device)
    matrix[back.edge_index[1] - 34, back.edge_index[0]] = back.edge_weight
    x = x[..., 0]
    torch.testing.assert_close(net.predict({"x": x}, "y"), x @ matrix.t() + net.bias("y"), **EXACT)


def test_a_sparse_network_comes_back_from_its_neuron_graph(device):
    """to_data, then from_data with a vertex for every neuron: with the weights copied, it is the same network."""
    graph = pcgraph.graphs.chain([4, 6, 3], activation="identity")
    graph.edges["x", "h1"]["transform"] = SparseLinear(density=0.4, seed=1)
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    data = net.to_data()
    assert isinstance(data, Data)
    assert torch.equal(data.edge_index, pyg.to_data(net).edge_index)
    single = PCNetwork(pyg.from_data(data), dtype=torch.float64, device=device)
    for (u, v), weight in zip(data.edge_index.t().tolist(), data.edge_weight):
        single.weight(u, v).copy_(weight)
    for v in range(4, 13):
        single.bias(v).copy_(data.bias[v])
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    roots = Forward(roots=pcgraph.Zero())
    states = single.infer({v: x[:, v : v + 1] for v in range(4)}, init=roots, steps=0).states
    torch.testing.assert_close(torch.cat([states[v] for v in (10, 11, 12)], 1), net.predict({"x": x}, "y"), **EXACT)
    groups = net.to_data("groups")
    assert groups.num_nodes == 3
    assert groups.edge_index.tolist() == [[0, 1], [1, 2]]
