"""Attributes in the wrong place, names of parameters, and parameters that are to stay what they are."""

from __future__ import annotations

import copy
import pickle
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import pcgraph
from pcgraph import SGD, Forward, GraphError, PCNetwork
from pcgraph.errors import OutOfMemory
from pcgraph.network.declaration import EDGE_ATTRIBUTES, NODE_ATTRIBUTES
from tests.builders import double

VALUES = {
    "shape": 3, "bias": False, "energy": "laplace", "precision": 2.0, "prior": 0.0, "transform": "identity",
    "trainable": False, "share": "one", "transpose": True, "scale": 0.5, "init": "normal", "slot": "s",
    "slots": {"s": {}}, "combine": "product", "role": "left",
}  # fmt: skip


def pair(node=None, edge=None, kind=nx.DiGraph):
    graph = kind()
    graph.add_node(("x", 1), shape=3)
    graph.add_node("{y}", shape=3, **(node or {}))
    graph.add_edge(("x", 1), "{y}", **(edge or {}))
    return graph


# -- attributes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiDiGraph])
@pytest.mark.parametrize("name", [n for n in NODE_ATTRIBUTES if n not in EDGE_ATTRIBUTES])
def test_what_belongs_to_a_node_is_refused_on_an_edge(kind, name):
    """``bias=False`` on an edge left the bias where it was, without a word."""
    with pytest.raises(GraphError, match=rf"belongs to a node: write graph.nodes\['{{y}}'\]\['{name}'\]") as caught:
        PCNetwork(pair(edge={name: VALUES[name]}, kind=kind))
    assert caught.value.where[:2] == (("x", 1), "{y}")
    assert caught.value.found == name


@pytest.mark.parametrize("name", [n for n in EDGE_ATTRIBUTES if n not in NODE_ATTRIBUTES])
def test_what_belongs_to_an_edge_is_refused_on_a_node(name):
    """``trainable=False`` on a node froze nothing."""
    for node in (("x", 1), "{y}"):
        graph = pair()
        graph.nodes[node][name] = VALUES[name]
        with pytest.raises(GraphError, match=rf"belongs to an edge: write graph.edges\[u, v\]\['{name}'\]") as caught:
            PCNetwork(graph)
        assert caught.value.where == node
        assert str(caught.value).startswith(f"node {node!r} ")


def test_metadata_is_kept_and_ignored():
    graph = pair(node={"colour": "red"}, edge={"weight": 0.5, "label": "a"})
    graph.nodes["{y}"][7] = 8
    net = PCNetwork(graph)
    assert net.graph.nodes["{y}"]["colour"] == "red"
    assert net.graph.edges[("x", 1), "{y}"]["weight"] == 0.5


@pytest.mark.parametrize("name", [float("nan"), np.float32("nan"), complex("nan")], ids=["float", "NumPy", "complex"])
def test_a_name_that_nobody_can_look_up_is_refused(name):
    """NaN is equal to nothing, so that no clamp, file or question could name the node."""
    graph = pcgraph.graphs.chain([3, 2])
    graph.add_node(name, shape=3)
    with pytest.raises(GraphError, match="equals itself"):
        pcgraph.PCNetwork(graph)


@pytest.mark.parametrize("prior", ["relu", [1, "a"], object(), {"a": 1}])
def test_a_prior_that_is_no_number_is_refused_in_words(prior):
    graph = pair()
    graph.nodes[("x", 1)]["prior"] = prior
    with pytest.raises(GraphError, match="the prior of node"):
        PCNetwork(graph)


# -- names of parameters ----------------------------------------------------------------------------------------------


def called(name):
    def function(a):
        return a.tanh()

    function.__name__ = name
    return function


@pytest.mark.parametrize(
    "names", [("f", "f", "f_2"), ("f_2", "f", "f"), ("f", "f_2", "f", "f_2"), ("f-2", "f_2", "f 2")]
)
def test_every_bucket_has_a_parameter_of_its_own(names):
    """Two buckets of one name shared a parameter, and one of them learned for both."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=3)
    for i, name in enumerate(names):
        graph.add_node(i, shape=2)
        graph.add_edge("x", i, activation=called(name))
    net = PCNetwork(graph)
    assert len(net.weights) == len({bucket.name for bucket in net.structure.buckets}) == len(names)
    assert all(net.weights[b.name].shape[0] == b.rows for b in net.structure.buckets)


def test_names_of_many_buckets_are_found_at_once():
    graph = nx.DiGraph()
    graph.add_node("x", shape=1)
    for i in range(3000):
        graph.add_node(i, shape=1)
        graph.add_edge("x", i, activation=torch.tanh if i % 2 else (lambda a: a.sin()))
    names = [bucket.name for bucket in PCNetwork(graph).structure.buckets]
    assert len(set(names)) == len(names) == 1501


# -- frozen edges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True], ids=["nn.Module", "Transform"])
@pytest.mark.parametrize("fixed", [0, 1])
def test_a_module_that_learns_on_one_edge_cannot_be_fixed_on_another(wrapped, fixed):
    """It froze on both."""
    layer = nn.Linear(3, 3)
    layer = pcgraph.transforms.Module(layer) if wrapped else layer
    graph = pcgraph.graphs.chain([3, 3, 3])
    edges = list(graph.edges)
    for i, edge in enumerate(edges):
        graph.edges[edge].update(transform=layer, trainable=i != fixed)
    with pytest.raises(GraphError, match="shares its module with edge") as caught:
        PCNetwork(graph)
    assert caught.value.where == edges[fixed]
    graph.edges[edges[fixed]]["transform"] = copy.deepcopy(layer)
    net = PCNetwork(graph)
    learns = [all(p.requires_grad for p in net.transform(*edge).parameters()) for edge in edges]
    assert learns == [i != fixed for i in range(2)]


@pytest.mark.parametrize("transform", [None, "sparse", "module"])
def test_an_edge_that_is_declared_fixed_and_unfrozen_later_is_told(transform):
    """It got a gradient of zero."""
    graph = pcgraph.graphs.chain([3, 3, 3])
    graph.edges["x", "h1"]["trainable"] = False
    if transform:
        made = {"sparse": pcgraph.transforms.SparseLinear(density=0.5), "module": nn.Linear(3, 3)}[transform]
        graph.edges["x", "h1"]["transform"] = made
    net = PCNetwork(graph)
    net.check_parameters()
    net.requires_grad_(False)
    net.check_parameters()
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    with pytest.raises(GraphError, match="edge 'x' -> 'h1' has trainable=False, .* were unfrozen"):
        net.check_parameters()


@pytest.mark.parametrize("hook", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_that_only_autograd_would_call_is_told(hook):
    """Gradients are local and written, not accumulated: a hook that clips or masks them would do nothing."""
    net = PCNetwork(pcgraph.graphs.chain([3, 2]))
    handle = getattr(net.weights["linear_3_to_2"], hook)(lambda g: None)
    with pytest.raises(GraphError, match="'weights.linear_3_to_2' has a gradient hook"):
        net.check_parameters()
    handle.remove()
    net.check_parameters()


# -- packed parameters ------------------------------------------------------------------------------------------------

CHANGES = {
    "parametrize": lambda m, n: parametrize.register_parametrization(m, n, nn.Tanh()),
    "weight_norm": parametrizations.weight_norm,
    "weight_norm by hooks": nn.utils.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "spectral_norm by hooks": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "prune": lambda m, n: prune.l1_unstructured(m, n, amount=0.5),
    "prune with a mask": lambda m, n: prune.custom_from_mask(m, n, torch.ones_like(m[n])),
    "prune globally": lambda m, n: prune.global_unstructured([(m, n)], prune.L1Unstructured, amount=0.5),
    "pop": lambda m, n: m.pop(n),
    "del": lambda m, n: m.__delitem__(n),
    "delattr": delattr,
}


@pytest.mark.parametrize("kind", ["weights", "biases"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_packed_parameter_cannot_be_computed_from_another(kind, change):
    """It was accepted; the gradient was zero and the weights never moved. After the refusal all is as before."""
    net = PCNetwork(pcgraph.graphs.chain([5, 4, 3], activation="tanh"), dtype=torch.float64)
    packed = getattr(net, kind)
    name = next(iter(packed))
    clamps = {"x": double(6, 5), "y": double(6, 3, seed=1)}
    before = net.infer(clamps, init=Forward(), steps=2, optimizer=SGD(lr=0.1)).energy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(GraphError, match=f"'{name}' holds the weights"):
            change(packed, name)
    assert [n for n, _ in net.named_parameters()] == list(net.state_dict())
    result = net.infer(clamps, init=Forward(), steps=2, optimizer=SGD(lr=0.1))
    if change is not parametrizations.orthogonal:  # which makes the values orthogonal before it asks
        assert torch.equal(result.energy, before)
    result.backward()
    assert packed[name].grad.any()


def test_packed_parameters_can_be_set_copied_and_loaded():
    """What torch does with parameters otherwise goes on working."""
    net = PCNetwork(pcgraph.graphs.chain([5, 4, 3]))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with pytest.raises(GraphError):
            parametrizations.weight_norm(twin.weights, "linear_5_to_4")
    net.weights["linear_5_to_4"] = nn.Parameter(torch.zeros(1, 4, 5))
    net.load_state_dict({key: torch.ones_like(value) for key, value in net.state_dict().items()}, assign=True)
    net.to(torch.float64).requires_grad_(False)
    assert net.weights["linear_5_to_4"].sum() == 20


def test_the_remedy_works():
    graph = pcgraph.graphs.chain([4, 3])
    graph.edges["x", "y"]["transform"] = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3, bias=False))
    net = PCNetwork(graph)
    net.infer({"x": torch.randn(2, 4), "y": torch.ones(2, 3)}, init=Forward(), steps=0).backward()
    assert all(p.grad.any() for p in net.parameters())


# -- what is asked of the machine -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key"),
    [
        *(({"seed": seed}, "seed") for seed in (2**80, -(2**80), 1.5, None, "a", True, float("nan"), [1])),
        *(({"dtype": d}, "dtype") for d in (torch.complex64, torch.int32, torch.bool, torch.float8_e4m3fn, "double")),
        *(({"device": d}, "device") for d in ("cuda:9999", "nonsense", "cpu:x", 9999, 1.5, [], "xla")),
    ],
    ids=str,
)
def test_what_a_network_cannot_be_made_with_is_refused_by_name(given, key):
    """They ended in errors of torch, or, as complex numbers, were taken."""
    with pytest.raises(pcgraph.ConfigError, match=f"^{key} ") as caught:
        PCNetwork(pcgraph.graphs.chain([3, 2]), **given)
    assert caught.value.key == key


@pytest.mark.parametrize("seed", [np.int64(5), np.uint8(5), torch.tensor(5), 5])
def test_any_integer_is_a_seed(seed):
    expected = PCNetwork(pcgraph.graphs.chain([3, 2]), seed=5)
    assert torch.equal(PCNetwork(pcgraph.graphs.chain([3, 2]), seed=seed).weight("x", "y"), expected.weight("x", "y"))


@pytest.mark.parametrize("shape", [2**40, (2**20, 2**20), 10**30, (10**9, 10**9)], ids=str)
@pytest.mark.parametrize("activation", [None, torch.sin])
def test_a_group_that_no_memory_holds_is_refused_before_it_is_made(shape, activation):
    graph = nx.DiGraph()
    graph.add_node("x", shape=shape, activation=activation)
    with pytest.raises(OutOfMemory, match=r"one state of node 'x', .* would take .* GiB"):
        PCNetwork(graph)


def test_weights_that_no_memory_holds_are_refused_before_they_are_made():
    """Each state is small; together they have 10**12 weights."""
    with pytest.raises(OutOfMemory, match=r"1e\+12 weights would take 3.73e\+03 GiB") as caught:
        PCNetwork(pcgraph.graphs.chain([10**6, 10**6]))
    assert caught.value.estimate == 4 * 10**12


def test_a_seed_gives_weights_by_the_order_of_declaration_as_its_documentation_says() -> None:
    """Who changes the order and finds other numbers finds the reason where the seed is explained."""
    edges = [("x", "h"), ("x", "g"), ("h", "y"), ("g", "y")]
    nets = []
    for order in ("xhgy", "xghy"):
        graph = nx.DiGraph()
        graph.add_nodes_from(order, shape=3)
        graph.add_edges_from(edges)
        nets.append(PCNetwork(graph, seed=0))
    one, other = (torch.cat([net.weight(u, v).detach().flatten() for u, v in edges]) for net in nets)
    assert not torch.equal(one, other)
    assert torch.equal(one.sort().values, other.sort().values)  # the same numbers, on other edges
    said = " ".join((PCNetwork.__doc__ or "").split())
    assert "Nodes or edges declared in another order may get other weights from it" in said
