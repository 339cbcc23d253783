"""Transforms: against torch's own layers, against the slow reference in float64, and against what they promise."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import time

import networkx as nx
import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, GraphConv, SAGEConv

import pcgraph
from pcgraph import SGD, Adam, Forward, GraphError, Normal, PCNetwork, Zero, learning
from pcgraph import transforms as T
from pcgraph.testing import conformance
from tests.builders import EXACT, assert_equal_to_reference, clamps_of

KARATE = nx.karate_club_graph()
EDGE_INDEX = torch.tensor([e for u, v in KARATE.edges for e in ((u, v), (v, u))]).t()


def edge_graph(transform, shape, out, **attributes):
    """x -> a -> [transform] -> b -> y with a and b free."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=3)
    graph.add_node("a", shape=shape, activation="tanh")
    graph.add_node("b", shape=out, activation="tanh")
    graph.add_node("y", shape=2)
    nx.add_path(graph, ["x", "a", "b", "y"])
    graph.edges["a", "b"].update(transform=transform, **attributes)
    return graph


ALL = [
    (T.Conv2d(2, 3, 3), (2, 6, 6)),
    (T.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), (2, 7, 5)),
    (T.Conv2d(2, 4, 3, padding="same", dilation=2, groups=2), (2, 6, 6)),
    (T.Conv2d(2, 4, (3, 1), padding=(1, 0), padding_mode="circular"), (2, 6, 6)),
    (T.ConvTranspose2d(2, 3, 4, stride=2, padding=1), (2, 4, 4)),
    (T.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2), (2, 4, 4)),
    (T.MaxPool2d(2), (2, 4, 4)),
    (T.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), (1, 6, 6)),
    (T.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 5, 5)),
    (T.Upsample(scale_factor=2), (1, 3, 3)),
    (T.Upsample(size=(5, 7), mode="bilinear", align_corners=True), (1, 3, 3)),
    (T.Flatten(), (2, 3)),
    (T.Reshape((3, -1)), (2, 6)),
    (T.Activate("gelu"), (4,)),
    (T.Identity(), (2, 3)),
    (T.MaskedLinear([[1, 1, 0], [0, 0, 1]]), (3,)),
    (T.MaskedLinear(torch.eye(6, 8) + torch.eye(6, 8).roll(1, 1), (2, 3)), (2, 4)),
    (T.Sequence([T.Conv2d(1, 2, 3), T.Activate("tanh"), T.MaxPool2d(2), T.Conv2d(2, 2, 1)]), (1, 6, 6)),
    (T.Module(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4))), (3,)),
    (T.Module(nn.GRUCell(3, 3)), (3,)),
    (T.GraphLayer(GCNConv(3, 2), EDGE_INDEX), (34, 3)),
]
IDS = [f"{type(t).__name__}-{i}" for i, (t, _) in enumerate(ALL)]


@pytest.mark.parametrize(("transform", "shape"), ALL, ids=IDS)
def test_it_keeps_what_transforms_promise(device, transform, shape):
    """Shapes, determinism, independence of samples, derivatives, pullback, weight_grad, entries, config; the engine."""
    if isinstance(transform, T.GraphLayer) and torch.device(device).type == "cuda":
        pytest.skip("torch_geometric adds up by atomics on a GPU: twice the same holds on a CPU alone")
    conformance.check_transform(transform, shape, device=device)


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@pytest.mark.parametrize("init", [Zero(), Normal(std=0.5), Forward()], ids=lambda i: type(i).__name__)
@pytest.mark.parametrize(("transform", "shape"), ALL, ids=IDS)
def test_states_and_weights_equal_the_reference(device, transform, shape, init):
    """A wrong pullback or gradient would train another network than the one that was declared."""
    net = PCNetwork(
        edge_graph(transform, shape, transform.output_shape(shape)), dtype=torch.float64, seed=1, device=device
    )
    assert_equal_to_reference(net, clamps_of(net), init, 4, SGD(lr=0.1))
    assert_equal_to_reference(net, clamps_of(net, nodes=("x",)), init, 4, SGD(lr=0.1))


def test_with_an_activation_on_the_edge_adam_and_two_edges_of_one_module(device):
    """One module on two edges is one set of parameters, and both edges teach it."""
    conv = T.Conv2d(2, 2, 3, padding=1)
    graph = edge_graph(conv, (2, 4, 4), (2, 4, 4), activation="sigmoid")
    graph.add_node("c", shape=(2, 4, 4))
    graph.add_edge("b", "c", transform=conv, activation="sigmoid")
    graph.add_edge("c", "y")
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    assert sum(p.numel() for n, p in net.named_parameters() if "edge_modules" in n) == 2 * 2 * 9 + 2
    assert_equal_to_reference(net, clamps_of(net), Normal(std=0.3), 4, Adam(lr=0.05))


class PullbackAlone(T.Transform):
    """y = tanh(x * w); the pullback is given, the weight gradient is autograd's."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, x):
        return torch.tanh(x * self.w)

    def pullback(self, g, x):
        type(self).calls += 1
        return g * (1 - torch.tanh(x * self.w) ** 2) * self.w


class WeightGradAlone(PullbackAlone):
    pullback = None

    def weight_grad(self, g, x):
        type(self).calls += 1
        return {"w": (g * (1 - torch.tanh(x * self.w) ** 2) * x).sum(0).detach()}


@pytest.mark.parametrize("kind", [PullbackAlone, WeightGradAlone])
def test_either_optional_method_may_stand_alone(device, kind):
    """It is used (and so must be right), and autograd does the other."""
    kind.calls = 0
    conformance.check_transform(kind(), 3, device=device)
    net = PCNetwork(edge_graph(kind(), (3,), (3,)), dtype=torch.float64, device=device)
    before = kind.calls
    assert_equal_to_reference(net, clamps_of(net), Normal(), 4, SGD(lr=0.1))
    assert kind.calls > before


def test_the_graph_of_autograd_is_not_kept_where_a_pullback_exists(device):
    """Otherwise every convolution would hold its activations twice."""
    net = PCNetwork(edge_graph(T.Conv2d(1, 1, 3), (1, 5, 5), (1, 3, 3)), dtype=torch.float64, device=device)
    result = net.infer(clamps_of(net), init=Normal(), steps=2, optimizer=SGD(lr=0.1))
    assert result._program.ws.cache["module"] == {}


# -- against torch ------------------------------------------------------------------------------------------------


def conv_net(activation="relu"):
    """conv, pool, strided conv, dense; node activations, so that every state lies where plain torch has a tensor."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, 8, 8))
    graph.add_node("c", shape=(3, 8, 8), activation=activation, bias=False)
    graph.add_node("p", shape=(3, 4, 4), bias=False)
    graph.add_node("d", shape=(4, 2, 2), activation=activation, bias=False)
    graph.add_node("y", shape=5)
    graph.add_edge("x", "c", transform=T.Conv2d(1, 3, 3, padding=1))
    graph.add_edge("c", "p", transform=T.MaxPool2d(2))
    graph.add_edge("p", "d", transform=T.Conv2d(3, 4, 3, stride=2, padding=1))
    graph.add_edge("d", "y")
    return graph


def plain(net):
    """The same net in plain torch, with the same weights."""
    own = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 5),
    ).to(net.device, torch.float64)  # fmt: skip
    own[0].load_state_dict(net.transform("x", "c").state_dict())
    own[3].load_state_dict(net.transform("p", "d").state_dict())
    with torch.no_grad():
        own[6].weight.copy_(net.weight("d", "y"))
        own[6].bias.copy_(net.bias("y"))
    return own


def test_a_declared_conv_net_is_that_net_in_plain_torch_for_ten_steps_of_backprop(device):
    """Baselines in papers compare the same network twice; it must be the same."""
    net = PCNetwork(conv_net(), dtype=torch.float64, seed=3, device=device)
    own = plain(net)
    ours, theirs = (torch.optim.AdamW(m.parameters(), lr=1e-2) for m in (net, own))
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        x = torch.randn(6, 1, 8, 8, generator=generator, dtype=torch.float64).to(device)
        y = torch.randn(6, 5, generator=generator, dtype=torch.float64).to(device)
        out = own(x)
        torch.testing.assert_close(net.predict({"x": x}, "y"), out.detach(), **EXACT)
        ours.zero_grad()
        theirs.zero_grad()
        learning.backprop(net, {"x": x}, {"y": y})
        (0.5 * (out - y).square().sum(1).mean()).backward()
        ours.step()
        theirs.step()
    for key in ("weight", "bias"):
        torch.testing.assert_close(getattr(net.transform("p", "d"), key), getattr(own[3], key), **EXACT)
    torch.testing.assert_close(net.weight("d", "y"), own[6].weight.detach(), **EXACT)


def test_one_step_of_pc_from_a_sweep_gives_the_last_convolution_the_gradient_of_backprop(device):
    """The error at y reaches d with the first step, scaled by the rate, and is what backprop sends there."""
    net = PCNetwork(conv_net(), dtype=torch.float64, seed=3, device=device)
    own = plain(net)
    clamps = clamps_of(net)
    alpha = 1e-6
    net.infer(clamps, init=Forward(), steps=1, optimizer=SGD(lr=alpha)).backward()
    (0.5 * (own(clamps["x"]) - clamps["y"]).square().sum(1).mean()).backward()
    torch.testing.assert_close(net.transform("p", "d").weight.grad / alpha, own[3].weight.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (T.Conv2d(2, 4, 3, 2, 1, 1, 2), nn.Conv2d(2, 4, 3, 2, 1, 1, 2), (2, 7, 7)),
        (T.ConvTranspose2d(2, 3, 4, 2, 1), nn.ConvTranspose2d(2, 3, 4, 2, 1), (2, 5, 5)),
        (T.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1), (2, 7, 7)),
        (T.AvgPool2d(2), nn.AvgPool2d(2), (2, 7, 7)),
        (T.Upsample(scale_factor=3, mode="bilinear"), nn.Upsample(scale_factor=3, mode="bilinear"), (2, 3, 3)),
        (T.Flatten(), nn.Flatten(), (2, 3, 3)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_the_layers_are_those_of_torch(ours, theirs, shape):
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    y = theirs(x)
    torch.testing.assert_close(ours(x), y)
    assert ours.output_shape(shape) == tuple(y.shape[1:])


# -- seeds and initial values -------------------------------------------------------------------------------------


def test_own_parameters_come_from_the_seed_of_the_network_and_no_other_generator(device):
    """A paper's seed must give the paper's weights, however the declaration was made and whatever was drawn before."""
    before = torch.random.get_rng_state()
    made = [PCNetwork(conv_net(), seed=seed, device=device) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [net.transform("x", "c").weight for net in made]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(made[0].transform("x", "c").weight[0], made[0].transform("p", "d").weight[0, :1])
    double = PCNetwork(conv_net(), seed=0, dtype=torch.float64, device=device)
    torch.testing.assert_close(double.transform("x", "c").weight.float(), weights[0], rtol=0, atol=0)


def test_own_parameters_are_drawn_kaiming_uniformly_as_torch_draws_them(device):
    """U(-1/sqrt(n), 1/sqrt(n)) with n the neurons that come in: the mean is 0 and the variance 1/(3n)."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(16, 4, 4))
    graph.add_node("y", shape=(512, 2, 2), bias=False)
    graph.add_edge("x", "y", transform=T.Conv2d(16, 512, 3))
    net = PCNetwork(graph, device=device)
    for p, name in ((net.transform("x", "y").weight, "weight"), (net.transform("x", "y").bias, "bias")):
        n = 16 * 9
        assert p.abs().max() <= n**-0.5
        assert p.abs().max() > 0.99 * n**-0.5, name
        assert p.var().item() == pytest.approx(1 / (3 * n), rel=0.1)


def test_two_edges_into_one_node_count_together(device):
    """Else the variance of a prediction would grow with the number of parents."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["u", "v"], shape=(4, 3, 3))
    graph.add_node("y", shape=(256, 1, 1))
    for u in "uv":
        graph.add_edge(u, "y", transform=T.Conv2d(4, 256, 3))
    net = PCNetwork(graph, device=device)
    bound = (2 * 36) ** -0.5
    for p in (net.transform("u", "y").weight, net.transform("v", "y").weight, net.bias("y")):
        assert 0.98 * bound < p.abs().max() <= bound


def test_in_a_sequence_only_the_last_weights_share_the_target_with_other_edges(device):
    """The first convolution's result reaches the second alone, so its own inputs count and no others."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["u", "v"], shape=(4, 5, 5))
    graph.add_node("y", shape=(256, 1, 1))
    for u in "uv":
        parts = [T.Conv2d(4, 64, 3), T.Activate("relu"), T.Conv2d(64, 256, 3)]
        graph.add_edge(u, "y", transform=T.Sequence(parts))
    first, _, second = PCNetwork(graph, device=device).transform("u", "y").parts
    for conv, n in ((first, 4 * 9), (second, 2 * 64 * 9)):
        assert 0.98 * n**-0.5 < conv.weight.abs().max() <= n**-0.5


def test_the_bias_of_a_node_that_no_drawn_weight_reaches_starts_at_zero(device):
    graph = nx.DiGraph()
    graph.add_nodes_from(["x", "y"], shape=(1, 2, 2))
    graph.add_edge("x", "y", transform="identity")
    assert not PCNetwork(graph, device=device).bias("y").any()


def test_a_users_module_keeps_its_values_and_what_it_has_frozen(device):
    """A pretrained layer must come through untouched."""
    layer = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    layer[0].requires_grad_(False)
    net = PCNetwork(edge_graph(layer, (3,), (3,)), device=device)
    inside = net.transform("a", "b").module
    assert inside is not layer
    for key, value in layer.state_dict().items():
        assert torch.equal(inside.state_dict()[key].cpu(), value)
    assert [p.requires_grad for p in inside.parameters()] == [False, False, True, True]
    fixed = PCNetwork(edge_graph(copy.deepcopy(layer), (3,), (3,), trainable=False), device=device)
    assert not any(p.requires_grad for p in fixed.transform("a", "b").parameters())


# -- modules that cannot be edges ---------------------------------------------------------------------------------


class Wrong(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Wrong(lambda x: x[:1]), "keep the batch first"),
        (Wrong(lambda x: x.sum(1)), "keep the batch first"),
        (Wrong(lambda x: x.t()), "keep the batch first"),
        (Wrong(lambda x: (x, x)), "must return one tensor"),
        (nn.LSTMCell(3, 3), "must return one tensor"),
        (nn.Linear(4, 3), "takes no input of shape"),
        (nn.ReLU(inplace=True), "use inplace=False"),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "mix the samples"),
        (nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), "draws at random"),
        (nn.RReLU(), "draws at random"),
        (nn.MultiheadAttention(3, 1, dropout=0.1), "draws at random"),
        (nn.Linear(3, 4), "leads from shape"),
        (lambda x: x, "an nn.Module instance"),
    ],
)
def test_a_module_that_cannot_be_an_edge_is_refused_when_declared(module, words):
    """Each of these would otherwise fail in the middle of training, or train something else without a word."""
    with pytest.raises(GraphError, match=words) as caught:
        PCNetwork(edge_graph(module, (3,), (3,)))
    assert "'a' -> 'b'" in str(caught.value)


def test_batch_norm_and_dropout_are_admitted_in_evaluation_mode(device):
    """Then they are fixed maps, and stay so when the network is put into training mode."""
    norm = nn.BatchNorm1d(3).double()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    edge = T.Module(nn.Sequential(norm, nn.Dropout(0.9)), evaluation=True)
    net = PCNetwork(edge_graph(edge, (3,), (3,)), dtype=torch.float64, device=device).train()
    conformance.check_transform(edge, 3, device=device)
    assert_equal_to_reference(net, clamps_of(net), Normal(), 4, SGD(lr=0.1))
    assert torch.equal(net.transform("a", "b").module[0].running_mean.cpu(), norm.running_mean)
    x = torch.zeros(1, 3, dtype=torch.float64, device=device)
    expected = -norm.running_mean / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(net.transform("a", "b")(x)[0].detach().cpu(), expected, **EXACT)


def test_an_activation_of_dropout_zero_is_no_dropout():
    assert T.Module(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.0))).output_shape((3,)) == (3,)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: T.Conv2d(3, 4, 3).output_shape((2, 8, 8)), "takes no state of shape"),
        (lambda: T.Conv2d(3, 4, 3).output_shape((3, 2, 2)), "takes no state of shape"),
        (lambda: T.Conv2d(3, 4, 3).output_shape((27,)), "channels, height, width"),
        (lambda: T.MaxPool2d(4).output_shape((1, 2, 2)), "takes no state of shape"),
        (lambda: T.Reshape((5, -1)).output_shape((12,)), "12 neurons"),
        (lambda: T.Reshape((-1, -1)), "may be -1"),
        (lambda: T.MaskedLinear(torch.zeros(2, 2)), "at least one entry"),
        (lambda: T.MaskedLinear(torch.ones(4)), "a matrix of 0 and 1"),
        (lambda: T.MaskedLinear([[1, 2]]), "a matrix of 0 and 1"),
        (lambda: T.MaskedLinear(torch.ones(4, 2), (3,)), "must be equal"),
        (lambda: T.MaskedLinear(torch.ones(4, 2)).output_shape((3,)), "2 columns"),
        (lambda: T.Sequence([]), "at least one part"),
        (lambda: T.Sequence(["linear"]), "none that is Linear"),
        (lambda: T.get("conv2d"), "needs in_channels, out_channels, kernel_size"),
        (lambda: T.get("con2d"), "did you mean 'conv2d'"),
        (lambda: T.get(("conv2d", {"in_channels": 1, "oops": 2})), "oops"),
        (lambda: T.name_of(PullbackAlone()), "register its class"),
        (lambda: T.Activate(torch.sin).config(), "cannot be saved"),
        (lambda: T.GraphLayer(GCNConv(3, 2, cached=True), EDGE_INDEX), "cached=False"),
        (lambda: T.GraphLayer(GATConv(3, 2, dropout=0.5), EDGE_INDEX), "draws at random"),
        (lambda: T.GraphLayer(GCNConv(3, 2), EDGE_INDEX.t()), "shape \\(2, edges\\)"),
        (lambda: T.GraphLayer(GCNConv(3, 2), EDGE_INDEX, edge_weight=torch.ones(3)), "one row for each"),
        (lambda: T.GraphLayer(GCNConv(3, 2), EDGE_INDEX).output_shape((33, 3)), "34 vertices"),
        (lambda: T.GraphLayer(GCNConv(3, 2), EDGE_INDEX).output_shape((34, 4)), "takes no state of shape"),
    ],
)
def test_bad_input_is_refused_in_words(make, words):
    with pytest.raises(GraphError, match=words):
        make()


# -- declarations as data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("transform", "shape"), ALL[:18], ids=IDS[:18])
def test_a_declaration_by_name_and_arguments_is_the_same_network(device, transform, shape):
    """A graph file must give the network that was saved, weights drawn from the seed included."""
    pair = (T.name_of(transform), transform.config())
    out = transform.output_shape(shape)
    one, two = (PCNetwork(edge_graph(t, shape, out), seed=5, device=device) for t in (transform, pair))
    assert one.state_dict().keys() == two.state_dict().keys()
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key


# -- masks --------------------------------------------------------------------------------------------------------


def test_a_masked_edge_is_a_dense_edge_with_zeros(device):
    """And it stays so through training: an optimizer with momentum and weight decay revives no entry."""
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)).to(device) < 0.5
    net = PCNetwork(edge_graph(T.MaskedLinear(mask), (5,), (4,)), dtype=torch.float64, device=device)
    dense = PCNetwork(edge_graph(None, (5,), (4,)), dtype=torch.float64, device=device)
    edge = net.transform("a", "b")
    assert bool((edge.weight[mask] != 0).all())
    for u, v in (("x", "a"), ("b", "y")):
        dense.weight(u, v).copy_(net.weight(u, v))
    for v in "aby":
        dense.bias(v).copy_(net.bias(v))
    dense.weight("a", "b").copy_(edge.weight.detach())
    clamps = clamps_of(net)
    results = [n.infer(clamps, init=Forward(), steps=3, optimizer=SGD(lr=0.1)) for n in (net, dense)]
    torch.testing.assert_close(results[0].states["a"], results[1].states["a"], **EXACT)
    results[1].backward()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(lr=0.1)).backward()
        assert not edge.weight.grad[~mask].any()
        optimizer.step()
    assert not edge.weight.detach()[~mask].any()
    assert {tuple(e) for e in edge.entries((5,), (4,)).t().tolist()} == {(j, i) for i, j in mask.nonzero().tolist()}


# -- layers of torch_geometric ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [GCNConv, GATConv, SAGEConv, GraphConv], ids=lambda k: k.__name__)
def test_graph_layers_on_the_karate_club_equal_the_reference(device, layer):
    graph = edge_graph(T.GraphLayer(layer(3, 2), EDGE_INDEX), (34, 3), (34, 2))
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    assert_equal_to_reference(net, clamps_of(net, batch=2), Normal(std=0.5), 4, SGD(lr=0.1))


def test_the_samples_of_a_batch_are_graphs_of_their_own():
    """Messages between samples would leak one graph's labels into another."""
    weights = torch.rand(EDGE_INDEX.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = GCNConv(4, 3).double()
    edge = T.GraphLayer(layer, EDGE_INDEX, edge_weight=weights)
    x = torch.randn(3, 34, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([layer(one, EDGE_INDEX, edge_weight=weights) for one in x])
    torch.testing.assert_close(edge(x), expected, **EXACT)
    torch.testing.assert_close(edge(x[:1]), expected[:1], **EXACT)


# -- at size ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_epoch_of_alexnet_on_images_of_cifar10s_shape(device):
    """Ten batches, every parameter learns, and the loss on what was seen falls."""
    net = PCNetwork(pcgraph.graphs.alexnet(hidden=512), seed=0, device=device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(10, 32, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(10, (10, 32), generator=generator).to(device)
    first = {name: p.detach().clone() for name, p in net.named_parameters()}
    targets = torch.eye(10, device=device)

    def loss():
        return sum((net.predict({"x": x}, "y") - targets[y]).square().mean() for x, y in zip(images, labels)).item()

    before, start = loss(), time.perf_counter()
    for x, y in zip(images, labels):
        optimizer.zero_grad()
        net.infer({"x": x, "y": targets[y]}, init=Forward(), steps=8, optimizer=SGD(lr=0.1)).backward()
        optimizer.step()
    assert loss() < before
    assert all(not torch.equal(p, first[name]) for name, p in net.named_parameters())
    assert time.perf_counter() - start < 600


MEMORY = """
import re, sys
from pathlib import Path
import torch, pcgraph
from pcgraph import SGD, Forward, PCNetwork

torch.set_num_threads(1)
batch = int(sys.argv[1])
net = PCNetwork(pcgraph.graphs.alexnet(hidden=512))
x, y = torch.randn(batch, 3, 32, 32), torch.eye(10)[torch.arange(batch) % 10]

def step(n):
    net.infer({"x": x[:n], "y": y[:n]}, init=Forward(), steps=8, optimizer=SGD(lr=0.05)).backward()

def held(what):
    return 1024 * int(re.search(rf"{what}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

step(2)  # what is loaded late is there before memory is looked at
net.zero_grad()
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = held("VmRSS")
step(batch)
print(net.plan({"x", "y"}, init=Forward(), steps=8).memory(batch), held("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("batch", [64, 200])
def test_the_memory_of_alexnet_is_foreseen(batch):
    """What a step takes, as the operating system counts it, is bounded by the plan's estimate, and not far below."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(batch)], capture_output=True, text=True, check=True)
    estimate, measured = map(int, done.stdout.split())
    assert 0.5 * estimate < measured <= estimate
