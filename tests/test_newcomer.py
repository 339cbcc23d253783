"""The likeliest mistakes of somebody who has just begun, and whether the message says what to do."""

from __future__ import annotations

import copy
import pickle

import networkx as nx
import pytest
import torch
from torch.nn.functional import one_hot
from torch_geometric.nn import GCNConv

import pcgraph
from pcgraph import Average, Forward, Memory, Null, PCNetwork, Zero
from pcgraph.errors import ClampError, ConfigError, GraphError, InvalidInitializer, PCGraphWarning

X, LABELS = torch.zeros(5, 6), torch.arange(5) % 3
Y = one_hot(LABELS, 3).float()
RUN = {"init": Forward(), "steps": 2, "optimizer": pcgraph.SGD(lr=0.1)}


def net(hidden: int = 4) -> PCNetwork:
    return PCNetwork(pcgraph.graphs.chain([6, hidden, 3], activation="relu"))


def declared(activation: object = "relu", edges=(("x", "h"), ("h", "y"))) -> PCNetwork:
    graph = nx.DiGraph()
    graph.add_node("x", shape=6)
    graph.add_node("h", shape=4, activation=activation)
    graph.add_node("y", shape=3)
    graph.add_edges_from(edges)
    return PCNetwork(graph)


def graph_layer() -> PCNetwork:
    graph = nx.DiGraph()
    graph.add_node("x", shape=(4, 3))
    graph.add_node("y", shape=(4, 2))
    graph.add_edge("x", "y", transform=GCNConv(3, 2))
    return PCNetwork(graph)


def fit(network: PCNetwork, loader: object, **changed: object) -> object:
    weights = torch.optim.AdamW(network.parameters())
    settings = {"init": Forward(), "steps": 2, "optimizer": weights, "state_optimizer": pcgraph.SGD(lr=0.1)}
    return pcgraph.fit(network, loader, progress=False, **{**settings, **changed})


MISTAKES = {
    "an image that is not flat": (
        lambda: net().infer({"x": X.view(5, 2, 3), "y": Y}, **RUN),
        ClampError, r"'x' needs shape \(batch, 6\) \(found \(5, 2, 3\)\); x.reshape\(-1, 6\) has it",
    ),
    "one sample without a batch": (
        lambda: net().infer({"x": X[0], "y": Y[0]}, **RUN), ClampError, r"of one sample: x.unsqueeze\(0\)",
    ),
    "labels as numbers": (
        lambda: net().infer({"x": X, "y": LABELS}, **RUN), ClampError, r"of classes: .*one_hot\(y, 3\)",
    ),
    "a wrong name": (
        lambda: net().infer({"image": X, "y": Y}, **RUN), ClampError, "no node 'image' in the graph .found '.*'h1', '",
    ),
    "a tensor instead of named clamps": (
        lambda: net().infer(X, **RUN), ClampError, r"a mapping node -> tensor, as in \{'x': x\} \(found Tensor\)",
    ),
    "the same to predict": (
        lambda: net().predict(X, "y"), ClampError, r"a mapping node -> tensor, as in \{'x': x\} \(found Tensor\)",
    ),
    "the target forgotten": (
        lambda: net().infer({"x": X}, **RUN).backward(), PCGraphWarning, r"clamped: 'x'\); clamp the target as well",
    ),
    "the input forgotten": (
        lambda: net().infer({"y": Y}, **RUN), InvalidInitializer, "found x.*Clamp x",
    ),
    "no optimizer for the states": (
        lambda: net().infer({"x": X, "y": Y}, init=Forward(), steps=2),
        ConfigError, r"need a state optimizer, as in optimizer=pcgraph.SGD\(lr=0.1\)",
    ),
    "torch's optimizer for the states": (
        lambda: net().infer({"x": X, "y": Y}, init=Forward(), steps=2, optimizer=torch.optim.SGD([X], lr=0.1)),
        ConfigError, "states need one of pcgraph's",
    ),
    "the two optimizers exchanged": (
        lambda: fit(net(), [(X, Y)], optimizer=pcgraph.SGD(lr=0.1)), ConfigError, "goes to state_optimizer=",
    ),
    "a data set instead of batches": (
        lambda: fit(net(), [(X[0], Y[0])]), ClampError, r"of a data set: images.batches\(50\)",
    ),
    "a class instead of an initializer": (
        lambda: net().infer({"x": X, "y": Y}, init=Forward, steps=0),
        InvalidInitializer, r"as in init=pcgraph.Forward\(\)",
    ),
    "forward on a cycle": (
        lambda: declared(edges=[("x", "h"), ("h", "h"), ("h", "y")]).infer({"x": X, "y": Y}, **RUN),
        InvalidInitializer, r"found the cycle h → h.*Forward\(fallback=Zero\(\)\)",
    ),
    "an activation by the name of its class": (
        lambda: declared(activation="ReLU"), GraphError, "unknown activation 'ReLU': did you mean 'relu'",
    ),
    "an activation's class": (
        lambda: declared(activation=torch.nn.ReLU), GraphError, r"write ReLU\(\)",
    ),
    "a misspelt node in an edge": (
        lambda: declared(edges=[("x", "h_"), ("h", "y")]), GraphError, "'h_' needs a shape .*did an edge mean 'h'",
    ),
    "edges the wrong way round": (
        lambda: declared(edges=[("y", "h"), ("h", "x")]).predict({"x": X}, "y"),
        InvalidInitializer, r"needs a clamp on every root \(found y\)",
    ),
    "a graph layer without its graph": (
        lambda: graph_layer(), GraphError, r"missing .*'edge_index'. Layers of .*GraphLayer\(layer, edge_index\)",
    ),
    "a weight the wrong way round": (
        lambda: net().weight("h1", "x"), GraphError, "no edge 'h1' -> 'x': it goes the other way, 'x' -> 'h1'",
    ),
    "backward twice": (
        lambda: [r.backward() for r in [net().infer({"x": X, "y": Y}, **RUN)] * 2], ConfigError, "already called",
    ),
    "a network that is called": (
        lambda: net()(X), TypeError, r"net.infer\(clamps, ...\) to run it, net.predict\(clamps, node\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("slip", "kind", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_slip_is_answered_with_what_to_do(slip, kind, message) -> None:
    """If it fails, a newcomer reads a message from deep inside, or none at all."""
    with pytest.raises(kind, match=message):
        slip()


@pytest.mark.parametrize("make", [lambda n: Average(by="y"), lambda n: Memory(n, heads=2, embed_dim=4)])
def test_two_networks_of_other_shapes_cannot_share_what_remembers(make) -> None:
    """The second network would start from states that belong to the first."""
    one, other = net(4), net(8)
    init = make(one)
    one.infer({"x": X, "y": Y}, init=init, steps=1, optimizer=pcgraph.SGD(lr=0.1)).backward()
    with pytest.raises(ConfigError, match="belongs to another network.*(its|of its) own"):
        other.infer({"x": X, "y": Y}, init=init, steps=1, optimizer=pcgraph.SGD(lr=0.1))


@pytest.mark.parametrize("make", [lambda: Average(by="y"), Null])
def test_two_networks_of_one_shape_that_share_what_remembers_are_noticed(make) -> None:
    """Each would start from the other's states, and nothing would show it but the accuracy."""
    init, run = make(), {"steps": 1, "optimizer": pcgraph.SGD(lr=0.1)}
    one, other = net(), net()
    one.infer({"x": X, "y": Y}, init=init, **run).backward()
    one.infer({"x": X, "y": Y}, init=copy.deepcopy(init), **run).backward()
    with pytest.warns(PCGraphWarning, match="states of another network"):
        other.infer({"x": X, "y": Y}, init=init, **run).backward()
    init.forget()
    one.infer({"x": X, "y": Y}, init=pickle.loads(pickle.dumps(init)), **run).backward()


def test_a_target_that_is_only_predicted_still_learns_from_other_errors() -> None:
    """The warning is for the case in which no gradient can arise, and for no other."""
    network = net()
    network.infer({"x": X}, init=Zero(), steps=1, optimizer=pcgraph.SGD(lr=0.1)).backward()
    assert network.bias("y").abs().sum() > 0


def test_fit_at_a_prompt_answers_in_a_line() -> None:
    """A prompt that shows what fit returns must not bury the reader under every measured step."""
    images = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    said = repr(fit(net(), [(images, Y)] * 30, epochs=2))
    assert said.startswith("History(2 epochs, finished; epoch 2, energy ")
    assert len(said) < 200
