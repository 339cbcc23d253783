"""The graph of a network is what it was made of, and stays that: no attribute is set there without an effect."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from torch import nn

import pcgraph
from pcgraph.errors import GraphError
from pcgraph.network import require_as_made


def declared(multi: bool = False) -> nx.DiGraph:
    graph = pcgraph.graphs.chain([4, 5, 3], activation="tanh")
    graph.nodes["h1"]["slots"] = {"down": {"precision": 0.1}}
    graph.add_edge("y", "h1", slot="down")
    return nx.MultiDiGraph(graph) if multi else graph


def network(multi: bool = False) -> pcgraph.PCNetwork:
    return pcgraph.PCNetwork(declared(multi), seed=0)


def edge_of(graph: nx.DiGraph) -> dict[str, Any]:
    found: dict[str, Any] = graph["x"]["h1"][0] if graph.is_multigraph() else graph["x"]["h1"]
    return found


CHANGES: dict[str, Callable[[nx.DiGraph], object]] = {
    "a node's attribute": lambda g: g.nodes["h1"].__setitem__("activation", "relu"),
    "update": lambda g: g.nodes["h1"].update(activation="relu"),
    "or": lambda g: g.nodes["h1"].__ior__({"activation": "relu"}),
    "setdefault": lambda g: g.nodes["h1"].setdefault("bias", False),
    "pop": lambda g: g.nodes["h1"].pop("activation"),
    "popitem": lambda g: g.nodes["h1"].popitem(),
    "del": lambda g: g.nodes["h1"].__delitem__("activation"),
    "clear": lambda g: g.nodes["h1"].clear(),
    "an edge's attribute": lambda g: edge_of(g).__setitem__("scale", 2.0),
    "a slot": lambda g: g.nodes["h1"]["slots"].__setitem__("up", {}),
    "a slot's attribute": lambda g: g.nodes["h1"]["slots"]["down"].__setitem__("precision", 5.0),
    "NetworkX, nodes": lambda g: nx.set_node_attributes(g, {"h1": "relu"}, "activation"),
    "NetworkX, edges": lambda g: nx.set_edge_attributes(g, 2.0, "scale"),
}


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("again", [lambda net: net, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("name", CHANGES)
def test_an_attribute_cannot_be_changed_there(name: str, again: Callable[[Any], Any], multi: bool) -> None:
    """It would change no prediction, and the checkpoint would be of a network that never was."""
    net = again(network(multi))
    before = nx.node_link_data(net.graph, edges="edges")
    with pytest.raises(GraphError, match=r"change a copy, graph = net\.graph\.copy\(\)"):
        CHANGES[name](net.graph)
    assert nx.node_link_data(net.graph, edges="edges") == before


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("copied", [nx.DiGraph.copy, copy.deepcopy, lambda g: type(g)(g), nx.DiGraph.reverse])
def test_a_copy_of_it_is_a_graph_like_any_other(copied: Callable[[Any], nx.DiGraph], multi: bool) -> None:
    net = network(multi)
    twin = copied(net.graph)
    if nx.is_frozen(twin):  # as deepcopy keeps it
        twin = twin.copy()
    twin.nodes["y"]["activation"] = "relu"
    nx.set_edge_attributes(twin, True, "trainable")
    assert net.graph.nodes["y"].get("activation") in (None, "identity")
    assert not any("trainable" in data for _, _, data in net.graph.edges(data=True))


def test_the_callers_graph_stays_open(tmp_path: Path) -> None:
    graph = declared()
    net = pcgraph.PCNetwork(graph)
    graph.nodes["h1"]["activation"] = "relu"
    assert net.graph.nodes["h1"]["activation"] == "tanh"
    pcgraph.save(tmp_path, net)
    assert pcgraph.load(tmp_path).net.graph.nodes["h1"] == net.graph.nodes["h1"]


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
NAME = "linear_4_to_5"
CHANGED: dict[str, Callable[[pcgraph.PCNetwork], object]] = {
    "a tensor of another shape": lambda net: net.weights.__setitem__(NAME, torch.ones(2)),
    "a parameter of another shape": lambda net: net.weights.__setitem__(NAME, nn.Parameter(torch.ones(1, 2, 2))),
    "data of another shape": lambda net: setattr(net.weights[NAME], "data", torch.ones(1, 2, 2)),
    "data of another type": lambda net: setattr(net.weights[NAME], "data", net.weights[NAME].data.double()),
    "weights alone in another type": lambda net: net.weights.half(),
    "biases alone in another type": lambda net: net.biases.double(),
}


@pytest.mark.parametrize("name", CHANGED)
def test_who_put_another_tensor_in_a_parameters_place_is_told_so(name: str) -> None:
    """Torch says that two matrices do not fit, somewhere in the engine."""
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 3], activation="tanh"), seed=0)
    require_as_made(net)
    CHANGED[name](net)
    with pytest.raises(GraphError, match=r"the parameter (weights|biases)\.\w+ was made with shape \("):
        net.infer({"x": X}, init=pcgraph.Forward(), steps=1, optimizer=pcgraph.SGD(lr=0.1))
