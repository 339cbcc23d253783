"""Nodes that are no sums: declared, checked, computed as the slow reference does, saved and refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import networkx as nx
import pytest
import torch
from torch import nn

import pcgraph
from pcgraph import SGD, Adam, Errors, Forward, GraphError, Masked, Normal, PCNetwork, Zero, combines, serialization
from pcgraph.duals import Duals
from pcgraph.learning import Backprop
from pcgraph.plan import verify
from tests.builders import EXACT, assert_equal_to_reference, double


class Mixed(nn.Module):
    """A combine with a parameter of its own, whose parts have shapes of their own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1)))

    def forward(self, one, other):
        return torch.einsum("bi,bj,ijk->bk", one, other, self.weight)


def attending(cyclic=False, multi=False):
    """x -> q, k, v -> attention -> y, with a module on one edge, a factor and an activation on others; or a cycle."""
    graph = nx.MultiDiGraph() if multi else nx.DiGraph()
    graph.add_node("x", shape=6)
    for v in ("q", "k", "v"):
        graph.add_node(v, shape=(3, 4), activation="tanh")
    graph.add_node("a", shape=(3, 4), activation="tanh", combine=("attention", {"heads": 2, "causal": True}))
    graph.add_node("y", shape=2)
    nx.add_star(graph, ["x", "q", "k", "v"])
    graph.add_edge("q", "a", role="query", transform=nn.Linear(4, 4, bias=False))
    graph.add_edge("k", "a", role="key", scale=-0.7)
    graph.add_edge("v", "a", role="value", activation="sigmoid")
    graph.add_edge("a", "y")
    if cyclic:
        graph.add_edge("a", "q")
    return graph


def bilinear():
    graph = nx.DiGraph()
    graph.add_node("x", shape=3)
    graph.add_node("h", shape=4, activation="tanh")
    graph.add_node("m", shape=2, activation="gelu", bias=False, combine=Mixed())
    graph.add_node("y", shape=2, combine="gate")
    graph.add_edge("x", "h")
    graph.add_edge("x", "m", role="one")
    graph.add_edge("h", "m", role="other")
    graph.add_edge("m", "y", role=("gate", "value"))
    return graph


GRAPHS = {
    "attention": attending, "attention in a cycle": lambda: attending(cyclic=True),
    "parallel": lambda: attending(multi=True), "bilinear": bilinear,
}  # fmt: skip
RUNS = {
    "from a draw": ({"init": Normal(std=0.4)}, SGD(0.05)),
    "from a sweep": ({"init": Forward(fallback=Zero())}, SGD(0.05, momentum=0.5)),
    "Adam": ({"init": Normal(std=0.4)}, Adam(0.02, eps=1e-3)),
    "duals": ({"init": Normal(std=0.4), "duals": Duals(0.1)}, SGD(0.05)),
    "duals that stop": ({"init": Normal(std=0.4), "duals": Duals(0.5, stop=0.7)}, SGD(0.05)),
}


def clamps_of(net, device):
    ends = {v: double(3, *net.structure.shape(v), seed=i, device=device) for i, v in enumerate(("x", "y"))}
    return ends


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", GRAPHS)
def test_states_and_gradients_equal_the_reference(device, kind, run):
    net = PCNetwork(GRAPHS[kind](), seed=1, dtype=torch.float64, device=device)
    settings, optimizer = RUNS[run]
    init = settings["init"]
    verify(net.plan({"x", "y"}, init=init, steps=5, optimizer=optimizer, duals=settings.get("duals")))
    rest = {k: v for k, v in settings.items() if k != "init"}
    assert_equal_to_reference(net, clamps_of(net, device), init, 5, optimizer, **rest)


@pytest.mark.parametrize("coordinates", [None, Errors()])
@pytest.mark.parametrize("kind", ["attention", "bilinear"])
def test_partial_clamps_clamped_parents_and_error_coordinates(device, kind, coordinates):
    """A clamped parent is read and not pulled; a part that is known stays; errors go through the whole combine."""
    net = PCNetwork(GRAPHS[kind](), seed=1, dtype=torch.float64, device=device)
    clamps = clamps_of(net, device)
    middle = "k" if kind == "attention" else "h"
    shape = net.structure.shape(middle)
    mask = double(3, *shape, seed=4, device=device) > 0
    more = {} if coordinates is None else {"coordinates": coordinates}
    for known in ({}, {middle: double(3, *shape, seed=5, device=device)}):
        assert_equal_to_reference(net, clamps | known, Normal(std=0.4), 4, SGD(0.05), **more)
    if coordinates is None:
        given = {middle: Masked(double(3, *shape, seed=5, device=device), mask)}
        assert_equal_to_reference(net, clamps | given, Normal(std=0.4), 4, SGD(0.05))


def test_a_prediction_is_what_torch_makes_of_it(device):
    """Three parents, by hand: torch's own attention."""
    net = PCNetwork(attending(), seed=1, dtype=torch.float64, device=device)
    x = double(3, 6, device=device)
    q, k, v = ((x @ net.weight("x", n).t()).view(3, 3, 4).add(net.bias(n)).tanh() for n in "qkv")
    q, k, v = net.transform("q", "a")(q), -0.7 * k, v.sigmoid()
    q, k, v = (t.unflatten(2, (2, 2)).transpose(1, 2) for t in (q, k, v))
    made = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    torch.testing.assert_close(net.predict({"x": x}, "a"), (made + net.bias("a")).tanh().detach(), **EXACT)


def test_backpropagation_of_the_same_graph(device):
    """The rule that differentiates predictions knows combines as well."""
    net = PCNetwork(bilinear(), seed=1, dtype=torch.float64, device=device)
    clamps = clamps_of(net, device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    data = [(clamps["x"], clamps["y"])]
    pcgraph.fit(net, data, optimizer=optimizer, epochs=1, rule=Backprop())
    found = {name: p.grad.clone() for name, p in net.named_parameters()}
    h = (clamps["x"] @ net.weights["linear_3_to_4"][0].t() + net.biases["bias_4"][0]).tanh()
    m = nn.functional.gelu(net.combine("m")(clamps["x"], h))
    y = m.sigmoid() * m + net.biases["bias_2"][0]
    loss = 0.5 * (clamps["y"] - y).square().sum(1).mean()
    wanted = torch.autograd.grad(loss, list(net.parameters()))
    for (name, _), grad in zip(net.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(found[name], grad, **EXACT, msg=lambda m, n=name: f"{n}: {m}")


def test_it_learns_what_no_sum_can(device):
    """The product of two inputs, which a linear net cannot make."""
    graph = nx.DiGraph()
    for v in ("x", "z"):
        graph.add_node(v, shape=1)
    graph.add_node("y", shape=1, combine="product")
    for v, role in (("x", "one"), ("z", "other")):
        graph.add_edge(v, "y", role=role, transform=nn.Linear(1, 1, bias=False))
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    x, z = double(200, 1, device=device), double(200, 1, seed=1, device=device)
    for _ in range(200):
        optimizer.zero_grad()
        net.infer({"x": x, "z": z, "y": 3 * x * z}, init=Forward(), steps=0).backward()
        optimizer.step()
    torch.testing.assert_close(net.predict({"x": x, "z": z}, "y"), 3 * x * z, rtol=0.05, atol=0.05)


def test_copies_own_their_combine(device):
    """A deep copy trains by itself, and edges of one node go on sharing its combine."""
    net = PCNetwork(bilinear(), dtype=torch.float64, device=device)
    twin = copy.deepcopy(net)
    assert twin.combine("m") is not net.combine("m")
    with torch.no_grad():
        twin.combine("m").weight.zero_()
    x = double(3, 3, device=device)
    assert not bool(twin.predict({"x": x}, "m").any())
    assert bool(net.predict({"x": x}, "m").any())
    assert sum(p is twin.combine("m").weight for p in twin.parameters()) == 1


def test_a_graph_with_combines_is_saved_and_read_again(tmp_path):
    graph = attending()
    graph.add_node("z", shape=(3, 4), combine=combines.Gate())
    graph.add_edge("a", "z", role=("gate", "value"))
    serialization.write_graph(tmp_path / "graph.json", graph)
    again = PCNetwork(serialization.read_graph(tmp_path / "graph.json"), seed=2)
    assert again.combine("a").config() == {"heads": 2, "causal": True}
    assert type(again.combine("z")) is combines.Gate
    net = PCNetwork(graph, seed=2)
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 6)
    torch.testing.assert_close(again.predict({"x": x}, "z"), net.predict({"x": x}, "z"))


def test_each_neuron_may_depend_on_all_of_its_parents():
    """On the level of neurons a combine is dense, whatever its edges are: a shorter witness would be wrong."""
    report = pcgraph.check(attending(cyclic=True), {"x", "y"}, level="neurons")
    assert report.cycle is not None


class Drawing(nn.Module):
    def forward(self, one, two):
        return one * torch.rand_like(one) + two


class Across(nn.Module):
    def forward(self, one, two):
        return one - two.mean(0)


class Made(nn.Module):
    def __init__(self, function, layer=None):
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, one, two):
        return self.function(one, two)


def two(combine="product", one=None, two=None, **attributes):
    graph = nx.DiGraph()
    graph.add_node("a", shape=3)
    graph.add_node("b", shape=3)
    graph.add_node("y", shape=3, combine=combine, **attributes)
    graph.add_edge("a", "y", **({"role": "one"} if one is None else one))
    graph.add_edge("b", "y", **({"role": "two"} if two is None else two))
    return graph


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: two("prodct"), "did you mean 'product'"),
        (lambda: two(3), "a combine is a name"),
        (lambda: two(nn.ReLU), "a combine is a name"),
        (lambda: two("gate"), r"takes the roles \(gate.*found \['one', 'two'\]"),
        (lambda: two(one={}), "edge 'a' -> 'y' leads to a node with a combine, and needs a role"),
        (lambda: two(one={"role": 3}), "needs a role"),
        (lambda: two(one={"role": ("p", "p")}), "needs a role"),
        (lambda: two(one={"role": "two"}), "several edges play the role 'two'"),
        (lambda: two(one={"role": "one", "transform": "linear"}), "weights are not packed"),
        (lambda: two(one={"role": "one", "share": "w"}), "neither share= nor trainable=False"),
        (lambda: two(one={"role": "one", "trainable": False}), "neither share= nor trainable=False"),
        (lambda: two(one={"role": "one", "transform": nn.Linear(3, 2, bias=False)}), "node 'y'.*must match|size"),
        (lambda: wrong_shape(), r"node 'y' has shape \(4,\).*leads to \(3,\)"),
        (lambda: two(None), "its target combines nothing"),
        (lambda: alone(), "no edge to combine"),
        (lambda: two(Drawing()), "node 'y': the combine Drawing must.*draws at random"),
        (lambda: two(Across()), "node 'y': the combine Across must treat each sample by itself"),
        (lambda: two(Made(lambda a, b: a.add_(b))), "node 'y': the combine Made must leave its input as it is"),
        (lambda: two(Made(lambda a, b: (a, b))), "node 'y': the combine Made must return one tensor"),
        (lambda: two(Made(lambda a, b: a[:1])), r"node 'y': the combine Made must map \(batch"),
        (lambda: two(Made(torch.add, nn.BatchNorm1d(3))), r"the combine Made must.*use GroupNorm or LayerNorm$"),
        (lambda: two(Made(torch.add, nn.Dropout())), r"the combine Made must.*draws at random; remove it$"),
        (lambda: two(("attention", {"heads": 0})), "heads"),
        (lambda: with_slot(), "only the main prediction"),
    ],
)
def test_what_cannot_be_combined_is_refused_where_it_is_declared(make, words):
    with pytest.raises(GraphError, match=words):
        PCNetwork(make())


def wrong_shape():
    graph = two()
    graph.nodes["y"]["shape"] = 4
    return graph


def alone():
    graph = nx.DiGraph()
    graph.add_node("y", shape=3, combine="product")
    return graph


def with_slot():
    graph = two()
    graph.nodes["a"]["slots"] = {"down": {"combine": "product"}}
    graph.add_edge("y", "a", slot="down")
    return graph


def test_the_networks_own_words(device):
    net = PCNetwork(two(), device=device)
    with pytest.raises(GraphError, match="node 'a' has no combine"):
        net.combine("a")
    with pytest.raises(GraphError, match="adds nothing alone"):
        net.edge_product(0, torch.zeros(1, 3, device=device))
    assert "joint" in net.plan({"a", "b"}, init=Forward(), steps=1).explain()


def test_a_plain_module_of_the_sweep_combines_as_well(device):
    """net.as_module computes what predict does, and has the edges' own modules at hand."""
    net = PCNetwork(attending(), seed=1, dtype=torch.float64, device=device)
    x = double(3, 6, device=device)
    torch.testing.assert_close(net.as_module("x", "y")(x).detach(), net.predict({"x": x}, "y"), **EXACT)
    assert net.edge("q", "a").parameters()[0] is next(net.transform("q", "a").parameters())
    graph = pcgraph.graphs.chain([6, (2, 2, 2)])
    graph.nodes["y"]["bias"] = "channel"
    shared = PCNetwork(graph, seed=1, dtype=torch.float64, device=device)
    torch.testing.assert_close(shared.as_module("x", "y")(x).detach(), shared.predict({"x": x}, "y"), **EXACT)


def test_a_plan_that_makes_a_part_of_what_a_node_combines_is_refused():
    """Half of what is multiplied is no prediction, whatever else the plan does."""
    net = PCNetwork(bilinear(), dtype=torch.float64)
    plan = net.plan({"x", "y"}, init=Normal(std=0.4), steps=2, optimizer=SGD(0.05))
    edges = plan.begin.edges
    into = net.structure.joint[net.structure.number["m"]]
    less = replace(plan.begin, edges=edges[edges != into[0]])
    with pytest.raises(AssertionError, match="makes a part of what 'm' combines, and not all of it"):
        verify(replace(plan, begin=less))


def test_shapes_that_do_not_go_together_are_told_by_role():
    """Torch's error was about a tensor of all parents side by side, and a module that nobody has declared."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=4)
    graph.add_node("z", shape=3)
    graph.add_node("g", shape=3, combine="gate")
    graph.add_edge("x", "g", role="gate")
    graph.add_edge("z", "g", role="value")
    with pytest.raises(GraphError, match=r"node 'g': its combine Gate does not take .*\(gate \(4,\), value \(3,\)\)"):
        PCNetwork(graph)
