"""Generators: what each graph is, what it computes, and the way to and from torch_geometric."""

from __future__ import annotations

import json

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx, to_dense_adj

import pcgraph
from pcgraph import SGD, Forward, GraphError, Normal, PCNetwork, graphs, pyg
from pcgraph import transforms as T
from pcgraph.errors import ConfigError
from tests import ROOT
from tests.builders import EXACT, double
from tests.slots.builders import helpers

EVERY = {
    "chain": lambda: graphs.chain([4, 3, 3, 2]),
    "decoder": lambda: graphs.decoder([2, 3, 4]),
    "figure 9": lambda: graphs.figure_9("bottom"),
    "skip": lambda: graphs.skip([4, 3, 3, 2]),
    "residual": lambda: graphs.residual(4, 3, 2),
    "lateral": lambda: graphs.lateral([4, 3, 2], feedback=True),
    "bidirectional": lambda: graphs.bidirectional([4, 3, 3, 2], feedback=0.1),
    "bidirectional, tied": lambda: graphs.bidirectional([4, 3, 3, 2], tied=True),
    "cortex": lambda: graphs.cortex([4, 3, 3, 2]),
    "fully connected": lambda: graphs.fully_connected({"a": 3, "b": (2, 2)}, self_loops=True, activation="tanh"),
    "random groups": lambda: graphs.random_groups(6, 3, 2),
    "assemblies": lambda: graphs.assemblies([6, 5], 0.5, 0.2),
    "alexnet": lambda: graphs.alexnet(hidden=16),
    "vgg5": lambda: graphs.vgg5(input_shape=(1, 16, 16)),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_generator_gives_a_declaration_that_is_data_and_runs(name):
    """It can be written to a file, made into a network, inferred and learned from, and is the same every time."""
    graph = EVERY[name]()
    data = nx.node_link_data(graph, edges="edges")
    json.dumps(data)
    assert data == nx.node_link_data(EVERY[name](), edges="edges")
    before = torch.random.get_rng_state()
    net = PCNetwork(graph, dtype=torch.float64)
    assert torch.equal(before, torch.random.get_rng_state())
    v = list(graph)[-1]
    result = net.infer({v: double(2, *net.structure.shape(v))}, init=Normal(std=0.1), steps=2, optimizer=SGD(lr=0.01))
    result.backward()
    assert torch.isfinite(result.energy).all()


def test_every_generator_has_its_picture():
    """The reference shows it below the first lines; a generator without one breaks the build of the pages."""
    pictures = ROOT / "docs" / "figures" / "graphs"
    assert {path.stem for path in pictures.glob("*.png")} == set(graphs.__all__)


# -- layered ------------------------------------------------------------------------------------------------------


def test_skip_edges_reach_span_further():
    graph = graphs.skip([1, 2, 3, 4, 5], span=3)
    assert set(graph.edges) - set(graphs.chain([1, 2, 3, 4, 5]).edges) == {("x", "h3"), ("h1", "y")}


def test_a_residual_block_adds_to_what_it_was_given():
    """r1 = r0 + W2 act(W1 r0 + b1) + b2, computed here by hand."""
    net = PCNetwork(graphs.residual(4, 3, 2, blocks=2, inner=5, activation="tanh"), dtype=torch.float64)
    x = double(6, 4)
    r = x @ net.weight("x", "r0").t() + net.bias("r0")
    for i in (1, 2):
        m = torch.tanh(r @ net.weight(f"r{i - 1}", f"m{i}").t() + net.bias(f"m{i}"))
        assert m.shape == (6, 5)
        r = r + m @ net.weight(f"m{i}", f"r{i}").t() + net.bias(f"r{i}")
    y = r @ net.weight("r2", "y").t() + net.bias("y")
    torch.testing.assert_close(net.predict({"x": x}, "y"), y, **EXACT)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_bidirectional_energy_is_the_formula(inside, tied):
    """Both sums of squares, written out by hand; the paper has the activation on what predicts."""
    graph = graphs.bidirectional(
        [4, 3, 5, 2], precision=0.7, feedback=0.2, inside=inside, tied=tied, activation="tanh",
        output_activation="sigmoid",
    )  # fmt: skip
    net = PCNetwork(graph, seed=2, dtype=torch.float64)
    h = {v: double(6, *net.structure.shape(v), seed=i) for i, v in enumerate(graph)}
    found = net.infer({"x": h["x"], "y": h["y"]}, init=net.carry_on(h), steps=0)
    names, tanh, total = list(graph), torch.tanh, torch.zeros(6, dtype=torch.float64)
    for slot, precision, pairs in (
        ("main", 0.7, zip(names, names[1:])), ("down", 0.2, zip(names[1:], names)),
    ):  # fmt: skip
        for u, v in pairs:
            hidden = v.startswith("h")
            sent = tanh(h[u]) if inside and u.startswith("h") else h[u]
            weight = net.weight(v, u) if tied and slot == "down" else net.weight(u, v, slot=slot).t()
            total_in = sent @ weight + net.bias(v, slot=None if slot == "main" else slot)
            mu = tanh(total_in) if hidden and not inside else torch.sigmoid(total_in) if v == "y" else total_in
            total += precision / 2 * (h[v] - mu).square().sum(1)
    torch.testing.assert_close(found.energy, total, **EXACT)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_bidirectional_is_what_helpers_clamped_to_zero_give(steps):
    """Without slots it takes a node for each prediction from above, whose own is the group less what comes down."""
    graph = graphs.bidirectional([4, 3, 5, 2], feedback=0.3, inside=True, activation="tanh")
    net = PCNetwork(graph, seed=1, dtype=torch.float64)
    twin, extra = helpers(graph)
    nx.set_node_attributes(twin, dict.fromkeys(extra, 0.3), "precision")
    other = PCNetwork(twin, dtype=torch.float64)
    with torch.no_grad():
        for u, v, slot in graph.edges(data="slot"):
            there = net.weight(u, v, slot=slot or "main")
            other.weight(u, v if slot is None else ("slot", v, slot), 0).copy_(there if slot is None else -there)
        for v in graph:
            if net.bias_place(v) is not None:
                other.bias(v).copy_(net.bias(v))
        for _, v, slot in extra:
            other.bias(("slot", v, slot)).copy_(-net.bias(v, slot=slot))
    clamps = {"x": double(6, 4), "y": double(6, 2, seed=1)}
    zeros = {v: torch.zeros(6, *other.structure.shape(v), dtype=torch.float64) for v in extra}
    how = {"init": Forward(), "steps": steps, "optimizer": SGD(lr=0.1)}
    one, two = net.infer(clamps, **how), other.infer({**clamps, **zeros}, **how)
    for v in graph:
        torch.testing.assert_close(one.states[v], two.states[v], rtol=0, atol=1e-14)
    torch.testing.assert_close(one.energy, two.energy, rtol=1e-14, atol=1e-14)
    one.backward()
    two.backward()
    for u, v, slot in graph.edges(data="slot"):
        mine, theirs = (
            n.weights[n.structure.buckets[int(n.structure.bucket_of[e])].name].grad[
                e - n.structure.buckets[int(n.structure.bucket_of[e])].start
            ]
            for n, e in (
                (net, net.structure.edge_number(u, v, slot=slot or "main")),
                (other, other.structure.edge_number(u, v if slot is None else ("slot", v, slot), 0)),
            )
        )
        torch.testing.assert_close(mine, theirs if slot is None else -theirs, rtol=1e-12, atol=1e-15)


def test_a_cortex_is_swept_from_image_to_class_whatever_comes_down():
    """Feedback and lateral edges are slots: no cycle of main predictions, no label that leaks."""
    graph = graphs.cortex()
    report = pcgraph.check(graph, {"image", "class"})
    assert report.order == ("V1", "V2", "V4", "IT")
    assert report.leaks == ()
    assert {(u, v) for u, v, slot in graph.edges(data="slot") if slot == "lateral"} == {
        (v, v) for v in ("V1", "V2", "V4", "IT")
    }  # fmt: skip
    assert nx.get_node_attributes(graph, "shape") == dict(
        zip(("image", "V1", "V2", "V4", "IT", "class"), (784, 128, 96, 64, 48, 10))
    )
    plain = graphs.cortex({"a": 3, "b": 2, "c": 1}, feedback=None, lateral=None)
    assert list(plain.edges(data=True)) == [("a", "b", {}), ("b", "c", {})]
    assert not any("slots" in data for _, data in plain.nodes(data=True))


def test_lateral_and_feedback_edges_are_cycles_that_the_checker_sees():
    graph = graphs.lateral([4, 3, 3, 2], feedback=True)
    assert set(nx.selfloop_edges(graph)) == {("h1", "h1"), ("h2", "h2")}
    assert graph.has_edge("h2", "h1")
    assert graph.has_edge("y", "h2")
    assert not graph.has_edge("h1", "x")
    assert not pcgraph.check(graph, {"x", "y"}).verdicts["forward"].valid


def test_fully_connected_has_every_ordered_pair():
    graph = graphs.fully_connected([2, 3, 4, 5])
    assert set(graph.edges) == {(u, v) for u in range(4) for v in range(4) if u != v}
    assert graphs.fully_connected([3], self_loops=True).number_of_edges() == 1
    assert [graph.nodes[i]["shape"] for i in graph] == [2, 3, 4, 5]


# -- at random ----------------------------------------------------------------------------------------------------


def test_random_groups_have_their_degree_and_depend_on_the_seed():
    """Benchmarks of several libraries must run the same graph."""
    made = [graphs.random_groups(20, 8, 3, seed=seed) for seed in (1, 1, 2)]
    graph = made[0]
    for g in range(20):
        others = {v for v in graph.successors(g) if v != "y"}
        assert len(others) == 3
        assert g not in others
    assert graph.out_degree("x") == graph.in_degree("y") == 3
    assert graph.in_degree("x") == graph.out_degree("y") == 0
    assert not nx.is_directed_acyclic_graph(graph)
    assert list(made[0].edges) == list(made[1].edges)
    assert set(made[0].edges) != set(made[2].edges)


def test_random_groups_are_drawn_by_the_published_rule():
    """For every group `degree` of the others, then the groups that x feeds, then those that y reads."""
    rng = np.random.default_rng(7)
    expected = []
    for i in range(12):
        expected += [(i, int(j + (j >= i))) for j in rng.choice(11, size=4, replace=False)]
    expected += [("x", int(j)) for j in rng.choice(12, size=4, replace=False)]
    expected += [(int(j), "y") for j in rng.choice(12, size=4, replace=False)]
    assert set(graphs.random_groups(12, 8, 4, seed=7).edges) == set(expected)


def test_assemblies_have_the_densities_that_were_asked_for():
    sizes, within, between = [150, 250], 0.2, 0.02
    graph = graphs.assemblies(sizes, within, between, seed=3)
    block = np.array([b for _, b in graph.nodes(data="block")])
    assert (np.bincount(block) == sizes).all()
    assert nx.number_of_selfloops(graph) == 0
    same = sum(block[u] == block[v] for u, v in graph.edges)
    pairs = 150 * 149 + 250 * 249
    for count, n, p in ((same, pairs, within), (graph.number_of_edges() - same, 2 * 150 * 250, between)):
        assert abs(count - n * p) < 5 * np.sqrt(n * p * (1 - p))
    assert set(graph.edges) != {(v, u) for u, v in graph.edges}


def test_assemblies_of_probability_one_and_zero_are_complete_and_apart():
    graph = graphs.assemblies([3, 4], 1.0, 0.0)
    assert sorted(map(sorted, nx.strongly_connected_components(graph))) == [[0, 1, 2], [3, 4, 5, 6]]
    assert graph.number_of_edges() == 3 * 2 + 4 * 3


# -- convolutional ------------------------------------------------------------------------------------------------


def torch_alexnet(net, hidden):
    """PCX's AlexNet in plain torch, with the weights of `net`."""
    pool = nn.MaxPool2d(2)
    own = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2, 1), nn.GELU(), pool, nn.Conv2d(64, 192, 3, 1, 1), nn.GELU(), pool,
        nn.Conv2d(192, 384, 3, 1, 1), nn.GELU(), nn.Conv2d(384, 256, 3, 1, 1), nn.GELU(),
        nn.Conv2d(256, 256, 3, 1, 1), nn.GELU(), pool, nn.Flatten(), nn.Linear(1024, hidden), nn.GELU(),
        nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 10),
    ).double()  # fmt: skip
    path = ["x", "conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "y"]
    layers = [layer for layer in own if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer, edge in zip(layers, nx.utils.pairwise(path), strict=True):
        if isinstance(layer, nn.Conv2d):
            conv = next(m for m in net.transform(*edge).modules() if isinstance(m, nn.Conv2d))
            layer.load_state_dict(conv.state_dict())
        else:
            layer.weight.data.copy_(net.weight(*edge))
            layer.bias.data.copy_(net.bias(edge[1]))
    return own


def test_alexnet_is_alexnet():
    """Accuracies on CIFAR10 are compared with a paper's: it must be that network."""
    net = PCNetwork(graphs.alexnet(hidden=32), dtype=torch.float64)
    own = torch_alexnet(net, 32)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in own.parameters())
    x = double(2, 3, 32, 32)
    torch.testing.assert_close(net.predict({"x": x}, "y"), own(x).detach(), **EXACT)
    shapes = dict(graphs.alexnet().nodes(data="shape"))
    assert shapes["conv5"] == (256, 2, 2)
    assert shapes["fc1"] == shapes["fc2"] == 4096


def test_vgg5_is_vgg5():
    net = PCNetwork(graphs.vgg5(classes=7, activation="relu"), dtype=torch.float64)
    h = x = double(1, 3, 32, 32)
    path = ["x", "conv1", "conv2", "conv3", "conv4"]
    for edge in nx.utils.pairwise(path):
        conv = net.transform(*edge).parts[0]
        h = nn.functional.conv2d(h, conv.weight, conv.bias, padding=1).relu()
        h = nn.functional.max_pool2d(h, 2)
    y = h.flatten(1) @ net.weight("conv4", "y").t() + net.bias("y")
    torch.testing.assert_close(net.predict({"x": x}, "y"), y.detach(), **EXACT)
    assert [net.structure.shape(v)[0] for v in path[1:]] == [128, 256, 512, 512]


def test_the_shapes_written_in_the_graph_are_those_of_the_transforms():
    for shape in [(3, 32, 32), (1, 32, 32), (3, 40, 64), (3, 33, 47)]:
        for make in (graphs.alexnet, graphs.vgg5):
            graph = make(input_shape=shape)
            for u, v, spec in graph.edges(data="transform"):
                if spec is not None:
                    assert T.get(spec).output_shape(graph.nodes[u]["shape"]) == graph.nodes[v]["shape"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: graphs.chain([3]), "at least two sizes"),
        (lambda: graphs.decoder([3]), "at least two sizes"),
        (lambda: graphs.skip([3, 3, 3], span=1), "at least 2 layers"),
        (lambda: graphs.skip([3, 3, 3], span=3), "at most 2"),
        (lambda: graphs.residual(3, 3, 3, blocks=0), "blocks must be a positive integer"),
        (lambda: graphs.lateral([3, 3]), "three sizes"),
        (lambda: graphs.fully_connected([3]), "two groups"),
        (lambda: graphs.bidirectional([3]), "at least two sizes"),
        (lambda: graphs.bidirectional([3, 2], feedback=0.0), "feedback must be"),
        (lambda: graphs.cortex([3, 2]), "three sizes or more"),
        (lambda: graphs.cortex([9, 8, 7, 6, 5, 4, 3]), "5 areas need names of yours"),
        (lambda: graphs.cortex(lateral=-1.0), "lateral must be"),
        (lambda: graphs.random_groups(4, 3, 4), "1 to 3"),
        (lambda: graphs.random_groups(4, 3, 0), "1 to 3"),
        (lambda: graphs.assemblies([]), "positive numbers"),
        (lambda: graphs.assemblies([3, 0]), "positive numbers"),
        (lambda: graphs.assemblies([3], within=1.5), r"within must be in \[0, 1\]"),
        (lambda: graphs.alexnet(input_shape=(3, 8, 8)), "too small .* 'conv5'"),
        (lambda: graphs.vgg5(input_shape=(3, 15, 32)), "too small .* 'conv4'"),
        (lambda: graphs.vgg5(input_shape=784), "channels, height, width"),
        (lambda: graphs.figure_9("left"), "'top' or 'bottom'"),
        (lambda: pyg.from_data(Data(num_nodes=3)), "needs an edge_index"),
        (lambda: pyg.from_data(Data(edge_index=torch.tensor([[0], [3]]), num_nodes=3)), "from 0 to 2"),
        (lambda: pyg.to_data(PCNetwork(graphs.vgg5(input_shape=(1, 16, 16)))), "use level='groups'"),
        (lambda: pyg.to_data(PCNetwork(graphs.chain([1, 1])), "edges"), "'neurons' or 'groups'"),
    ],
)
def test_bad_input_is_refused_in_words(make, words):
    with pytest.raises((GraphError, ConfigError), match=words):
        make()


@pytest.mark.parametrize(
    ("make", "call"),
    [
        (lambda: graphs.chain(64, 32, 10), "chain([64, 32, 10])"),
        (lambda: graphs.chain(64), "chain([64])"),
        (lambda: graphs.chain((1, 8, 8), 10, activation="relu"), "chain([(1, 8, 8), 10])"),
        (lambda: graphs.decoder(2, 3, 4), "decoder([2, 3, 4])"),
        (lambda: graphs.skip(4, 3, 2, span=2), "skip([4, 3, 2])"),
        (lambda: graphs.lateral(4, 3, 2), "lateral([4, 3, 2])"),
        (lambda: graphs.fully_connected(4, 3), "fully_connected([4, 3])"),
        (lambda: graphs.bidirectional(4, 3, 2), "bidirectional([4, 3, 2])"),
        (lambda: graphs.cortex(4, 3, 2), "cortex([4, 3, 2])"),
        (lambda: graphs.assemblies(20, 30), "assemblies([20, 30])"),
        (lambda: graphs.assemblies(20, 0.5), "assemblies([20])"),
    ],
)
def test_sizes_one_by_one_are_refused_with_the_call_that_was_meant(make, call):
    with pytest.raises(GraphError, match="one list") as refused:
        make()
    assert call in str(refused.value)


def test_a_list_of_sizes_may_be_a_tuple_and_what_follows_it_is_no_size():
    assert list(graphs.chain((4, 3, 2))) == list(graphs.chain([4, 3, 2]))
    assert graphs.assemblies((2, 2), 1, 0).number_of_edges() == 4


# -- torch_geometric ----------------------------------------------------------------------------------------------


def test_a_graph_of_torch_geometric_becomes_a_declaration():
    karate = nx.karate_club_graph()
    assert pyg.from_data is graphs.from_data
    graph = graphs.from_data(from_networkx(karate), shape=3, activation="tanh", bias=False)
    assert set(graph.edges) == {e for u, v in karate.edges for e in ((u, v), (v, u))}
    assert graph.nodes[33] == {"shape": 3, "activation": "tanh", "bias": False}
    assert not graph.is_multigraph()
    PCNetwork(graph)


def test_isolated_vertices_and_double_edges_are_kept():
    data = Data(edge_index=torch.tensor([[0, 0, 1], [1, 1, 1]]), num_nodes=4)
    graph = pyg.from_data(data)
    assert graph.number_of_nodes() == 4
    assert graph.number_of_edges(0, 1) == 2
    assert graph.has_edge(1, 1)


def linear_graph():
    """Dense, identity, masked and shared edges of linear nodes, declared out of topological order."""
    graph = nx.DiGraph()
    graph.add_node("y", shape=(2, 2))
    graph.add_node("m", shape=3)
    graph.add_node("x", shape=3)
    graph.add_edge("x", "m", transform="identity")
    graph.add_edge("m", "y")
    graph.add_edge("x", "y", transform=T.MaskedLinear([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]], (2, 2)))
    return graph


def test_the_neuron_graph_holds_every_weight_at_its_place():
    """A network as one matrix over neurons: h = A h + b, iterated from the input, is the network's own prediction."""
    net = PCNetwork(linear_graph(), dtype=torch.float64)
    net.bias("m").copy_(torch.tensor([0.1, 0.2, 0.3]))
    data = pyg.to_data(net)
    assert data.num_nodes == 10
    assert data.edge_index.shape[1] == 3 + 12 + 5
    assert data.names == ["y", "m", "x"]
    assert data.group.tolist() == [0] * 4 + [1] * 3 + [2] * 3
    matrix = to_dense_adj(data.edge_index, edge_attr=data.edge_weight, max_num_nodes=10)[0].t()
    x = double(5, 3)
    h = torch.zeros(5, 10, dtype=torch.float64)
    for _ in range(3):
        h[:, 7:] = x
        h = h @ matrix.t() + data.bias
    torch.testing.assert_close(h[:, :4], net.predict({"x": x}, "y").flatten(1), **EXACT)
    data.validate(raise_on_error=True)


def test_the_graph_of_groups_comes_back():
    graph = graphs.random_groups(6, 3, 2)
    data = pyg.to_data(PCNetwork(graph), "groups")
    back = pyg.from_data(data, shape=3)
    assert {(data.names[u], data.names[v]) for u, v in back.edges} == set(graph.edges)


def test_a_network_of_one_neuron_a_vertex_comes_back():
    karate = pyg.from_data(from_networkx(nx.karate_club_graph()), activation="tanh")
    data = pyg.to_data(PCNetwork(karate))
    assert set(map(tuple, data.edge_index.t().tolist())) == set(karate.edges)


def test_a_sweep_of_a_chain_of_convolutions_has_no_error():
    net = PCNetwork(graphs.vgg5(input_shape=(1, 16, 16)))
    result = net.infer({"x": torch.zeros(1, 1, 16, 16)}, init=Forward(), steps=0)
    assert not result.energy.any()
