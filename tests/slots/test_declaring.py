"""Slots are declared: read, kept, copied, named, asked for, and refused where something is wrong with them."""

from __future__ import annotations

import copy

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import PCNetwork
from pcgraph.errors import GraphError
from pcgraph.network import Slot

AREA = {"precision": 0.1, "activation": "tanh", "bias": False}


def hierarchy(multi: bool = True) -> nx.DiGraph:
    """Two areas between an image and a class, each area with feedback in a slot; parallel edges if `multi`."""
    graph = nx.MultiDiGraph() if multi else nx.DiGraph()
    graph.add_node("image", shape=6, slots={"down": {"precision": 0.5}})
    graph.add_node("V1", shape=4, activation="tanh", slots={"down": {**AREA}})
    graph.add_node("V2", shape=4, activation="tanh", slots={"down": {}, "self": {"energy": "laplace"}})
    graph.add_node("class", shape=3)
    nx.add_path(graph, ["image", "V1", "V2", "class"])
    for high, low in (("class", "V2"), ("V2", "V1"), ("V1", "image")):
        graph.add_edge(high, low, slot="down")
    graph.add_edge("V2", "V2", slot="self")
    if multi:
        graph.add_edge("V1", "V2", slot="down", activation="relu")
    return graph


def test_a_network_has_the_declared_nodes_and_their_slots_behind_them():
    """What counts or names nodes need not know of slots; plans and backends find them as nodes of their own."""
    s = PCNetwork(hierarchy()).structure
    assert set(s.declared) == {"image", "V1", "V2", "class"}
    assert s.nodes[: len(s.declared)] == s.declared
    assert set(s.nodes[len(s.declared) :]) == {("image", "down"), ("V1", "down"), ("V2", "down"), ("V2", "self")}
    assert all(isinstance(v, Slot) for v in s.nodes[len(s.declared) :])
    assert s.edge_count == 8
    assert sum(s.is_tie) == 4
    assert {s.edge(i) for i in range(len(s.source)) if not s.is_tie[i]} == set(hierarchy().edges(keys=True))
    for slot, i in s.slots.items():
        assert s.nodes[s.owner[i]] == slot.node
        assert s.groups[int(s.group_of[i])].shape == s.shape(slot.node)
    assert "4 nodes, 4 slots, 8 edges" in repr(PCNetwork(hierarchy()))


def test_weights_and_biases_are_asked_for_by_key_or_slot():
    """Two edges from one node to another, one into each prediction, are two weights."""
    net = PCNetwork(hierarchy(), seed=3)
    main, down = net.weight("V1", "V2", slot="main"), net.weight("V1", "V2", slot="down")
    assert main.shape == down.shape == (4, 4)
    assert not torch.equal(main, down)
    assert torch.equal(net.weight("V1", "V2", 1), down)
    assert net.weight("V2", "V1", slot="down").shape == net.weight("V2", "V1").shape == (4, 4)
    assert net.transform("V1", "V2", slot="down") is net.transform("V1", "V2", 1)
    net.weight("V1", "V2", slot="down").zero_()
    assert not net.weight("V1", "V2", 1).any()
    assert not torch.equal(net.bias("V2"), net.bias("V2", slot="down"))
    with pytest.raises(GraphError, match="slot 'down' of node 'V1' has no bias"):
        net.bias("V1", slot="down")
    with pytest.raises(GraphError, match="give the key, one of 0, 1, or the slot, one of 'down', 'main'"):
        net.weight("V1", "V2")
    with pytest.raises(GraphError, match="no edge 'V2' -> 'V1' into the main prediction"):
        net.weight("V2", "V1", slot="main")
    with pytest.raises(GraphError, match="no slot 'dwn': did you mean 'down'"):
        net.bias("V1", slot="dwn")


def test_main_is_the_prediction_of_edges_that_say_nothing():
    graph = hierarchy()
    graph.edges["image", "V1", 0]["slot"] = "main"
    ours, theirs = (PCNetwork(g).state_dict() for g in (graph, hierarchy()))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_graph_without_parallel_edges_needs_no_keys():
    net = PCNetwork(hierarchy(multi=False))
    assert net.weight("V2", "V2").shape == (4, 4)
    assert {b.name for b in net.structure.buckets if b.kind == "linear"} == {
        "linear_6_to_4", "linear_4_to_4", "linear_4_to_3", "linear_3_to_4_slots", "linear_4_to_4_slots",
        "linear_4_to_6_slots",
    }  # fmt: skip


def test_slots_draw_their_weights_by_their_own_fan_in():
    """A slot is a prediction of its own: how many neurons feed the main one means nothing for it."""
    graph = nx.DiGraph()
    graph.add_nodes_from([("x", {"shape": 400}), ("y", {"shape": 4})])
    graph.add_node("h", shape=50, slots={"down": {}})
    graph.add_edge("x", "h")
    graph.add_edge("y", "h", slot="down")
    net = PCNetwork(graph, seed=0)
    assert net.weight("x", "h").abs().max() <= 1 / 20
    assert 0.4 < net.weight("y", "h").abs().max() <= 0.5
    assert 0.3 < net.bias("h", slot="down").abs().max() <= 0.5


def test_declared_slots_are_copied():
    """The caller's dictionaries and modules stay his: what he changes later changes no network."""
    graph = hierarchy()
    shared = {"down": {"energy": "learned_precision"}}
    own = pcgraph.energies.LearnedPrecision(2.0)
    graph.nodes["image"]["slots"] = graph.nodes["V1"]["slots"] = shared
    graph.nodes["V2"]["slots"] = {"down": {"energy": own}, "self": {"energy": own}}
    net = PCNetwork(graph)
    shared["down"]["energy"] = "gaussian"
    assert net.graph.nodes["V1"]["slots"]["down"]["energy"] == "learned_precision"
    energy = {v: net.node_energy(i) for v, i in net.structure.slots.items()}
    assert energy["image", "down"] is not energy["V1", "down"]  # made from a name, for each slot anew
    assert energy["V2", "down"] is energy["V2", "self"] is not own  # one that is given stays one, and is a copy
    twin = copy.deepcopy(net)
    assert twin.graph.nodes["V2"]["slots"]["down"]["energy"] is not net.graph.nodes["V2"]["slots"]["down"]["energy"]
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_a_root_may_have_slots_alone():
    """It then has no main prediction and no main energy, or that of its prior."""
    net = PCNetwork(hierarchy(), dtype=torch.float64)
    i = net.structure.number["image"]
    assert net.structure.is_root[i]
    assert not net.structure.has_energy[i]
    graph = hierarchy()
    graph.nodes["image"]["prior"] = 0.5
    assert PCNetwork(graph).structure.has_energy[PCNetwork(graph).structure.number["image"]]


@pytest.mark.parametrize(
    ("slots", "edge", "says"),
    [
        ({"down": {"shape": 3}}, {"slot": "down"}, r"slot 'down' of node 'b' says 'shape'.*shape of its node"),
        ({"down": {"prior": 3}}, {"slot": "down"}, r"has a prior, which is its prediction, and is fed by an edge"),
        ({"down": {"precison": 3}}, {"slot": "down"}, r"says 'precison'.*did you mean 'precision'"),
        ({"down": {"note": 3}}, {"slot": "down"}, r"a slot has activation, bias, energy, precision"),
        (
            {"down": {"precision": -1}},
            {"slot": "down"},
            r"slot 'down' of node 'b': a precision must be a posit",
        ),
        ({"down": {"activation": "tahn"}}, {"slot": "down"}, r"slot 'down' of node 'b'.*tanh"),
        ({"down": {"bias": 1}}, {"slot": "down"}, r"slot 'down' of node 'b' needs a bias that is True"),
        ({"down": {"bias": torch.ones(3)}}, {"slot": "down"}, r"slot .down. of node .b. needs a bias that is True"),
        ({"down": {"energy": "laplace", "precision": 2.0}}, {"slot": "down"}, r"precision belongs to the Gaussian"),
        (
            {"down": {"activation": lambda x: x[:, :1]}},
            {"slot": "down"},
            r"slot 'down' of node 'b'.*preserve the sh",
        ),
        (["down"], {"slot": "down"}, r"declares its slots as slots=\{'down'"),
        ({"down": 0.1}, {"slot": "down"}, r"each slot by a name and what it says of it"),
        ({1: {}}, {"slot": 1}, r"each slot by a name"),
        ({"main": {}}, {"slot": "main"}, r"which is the name of the prediction that the node itself declares"),
        ({"down": {}}, {}, r"slot 'down' of node 'b' is fed by no edge: say slot='down' on an edge into 'b'"),
        ({"down": {}}, {"slot": "donw"}, r"edge 'a' -> 'b' feeds the slot 'donw'.*did you mean 'down'"),
        (None, {"slot": "down"}, r"node 'b' has no slots; declare it: slots=\{'down': dict"),
        ({"down": {}}, {"slot": 3}, r"a slot goes by a name"),
        ({"down": {}}, {"slots": "down"}, r"attribute 'slots', which belongs to a node"),
    ],
)
def test_a_wrong_declaration_is_named(slots, edge, says):
    """With the node or edge, what is wrong and what to do, before anything is made."""
    graph = nx.DiGraph()
    graph.add_node("a", shape=2)
    graph.add_node("b", shape=2, slots=slots)
    graph.add_edge("a", "b", **edge)
    with pytest.raises(GraphError, match=says):
        PCNetwork(graph)


def test_a_misspelt_attribute_of_a_node_is_found():
    graph = nx.DiGraph()
    graph.add_node("a", shape=2, slot={"down": {}})
    with pytest.raises(GraphError, match="'slot', which belongs to an edge"):
        PCNetwork(graph)


def test_no_node_may_go_by_the_name_of_a_slot():
    """``errors["b", "down"]`` means one thing."""
    graph = nx.DiGraph()
    graph.add_nodes_from([("a", {"shape": 2}), (("b", "down"), {"shape": 2})])
    graph.add_node("b", shape=2, slots={"down": {}})
    graph.add_edge("a", "b", slot="down")
    with pytest.raises(GraphError, match=r"there is a node \('b', 'down'\), by which the slot"):
        PCNetwork(graph)
