"""Graphs as files. Oracle: a comparison of graphs that knows nothing of the format, and NetworkX's own reader."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pcgraph
from pcgraph import energies, transforms
from pcgraph.errors import DataError, GraphError
from pcgraph.network import INITS
from pcgraph.serialization import decode, encode, graph_from_data, graph_to_data, read_graph, read_shape, write_graph
from pcgraph.serialization.values import Unsaveable

# -- an independent comparison ----------------------------------------------------------------------------------------


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, down to the bit; modules by class and settings."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, nn.Module):
        return bool(a.config() == b.config())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def same_graph(a: nx.DiGraph, b: nx.DiGraph) -> bool:
    """Same kind, same nodes and edges in the same order, same attributes, same instances shared."""
    edges = [g.edges(keys=True, data=True) if g.is_multigraph() else g.edges(data=True) for g in (a, b)]
    rows = [[*g.nodes(data=True), *e] for g, e in zip((a, b), edges)]
    return type(a) is type(b) and same(a.graph, b.graph) and same(*rows) and shared(a) == shared(b)


def shared(graph: nx.DiGraph) -> list[int]:
    """For each attribute that is a module, which of them it is the same as."""
    parts = [d for _, d in graph.nodes(data=True)]
    parts += [said for d in parts if isinstance(d.get("slots"), dict) for said in d["slots"].values()]
    values = [v for part in parts if isinstance(part, dict) for v in part.values()]
    values += [v for *_, d in graph.edges(data=True) for v in d.values()]
    first: dict[int, int] = {}
    return [first.setdefault(id(v), i) for i, v in enumerate(values) if isinstance(v, nn.Module)]


def through_text(graph: nx.DiGraph) -> nx.DiGraph:
    return graph_from_data(json.loads(json.dumps(graph_to_data(graph), allow_nan=False)))


# -- drawn graphs -----------------------------------------------------------------------------------------------------

names = st.recursive(
    st.one_of(st.text(max_size=4), st.integers(-9, 9)),
    lambda inner: st.lists(inner, max_size=2).map(tuple),
    max_leaves=3,
)
numbers = st.one_of(st.booleans(), st.integers(), st.floats(width=64))
tensors = st.builds(
    lambda values, dtype: torch.tensor(values, dtype=torch.float64).to(dtype),
    st.lists(st.floats(-1e3, 1e3), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bfloat16]),
)  # fmt: skip
values = st.recursive(
    st.one_of(st.none(), numbers, st.text(max_size=3), tensors),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.just("$tuple"), st.integers(0, 3)), inner, max_size=3),
    ),
    max_leaves=5,
)
ENERGIES: list[Callable[[], Any]] = [
    lambda: "cross_entropy", lambda: energies.Laplace(scale=0.5), lambda: energies.Gaussian(precision=2.5),
]  # fmt: skip
TRANSFORMS: list[Callable[[], Any]] = [
    lambda: "identity", lambda: ("reshape", {"shape": (2, 2)}), lambda: transforms.Conv2d(1, 2, 3, padding=1),
    lambda: transforms.MaskedLinear([[1, 0], [1, 1]]), transforms.Flatten,
]  # fmt: skip
slot_attributes = st.fixed_dictionaries(
    {},
    optional={
        "activation": st.sampled_from(["relu", "tanh", None]), "bias": st.booleans(),
        "energy": st.sampled_from(ENERGIES), "precision": st.floats(0.1, 10),
    },
)  # fmt: skip
node_attributes = st.fixed_dictionaries(
    {"shape": st.one_of(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple))},
    optional={
        "activation": st.sampled_from(["relu", "tanh", None]), "bias": st.booleans(),
        "energy": st.sampled_from(ENERGIES),
        "precision": st.floats(0.1, 10), "prior": st.one_of(st.floats(-1, 1), tensors), "note": values,
        "slots": st.none() | st.dictionaries(st.sampled_from(["down", "name", "config", "instance"]), slot_attributes),
    },
)  # fmt: skip
edge_attributes = st.fixed_dictionaries(
    {},
    optional={
        "transform": st.sampled_from(TRANSFORMS), "activation": st.sampled_from(["gelu", "relu"]),
        "trainable": st.booleans(), "share": names, "weight": values, "scale": st.floats(-3, -0.1),
        "init": st.sampled_from(list(INITS)), "slot": st.sampled_from(["main", "down"]),
    },
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> nx.DiGraph:
    """Any declaration by name, some modules standing in several places."""
    graph = draw(st.sampled_from([nx.DiGraph, nx.MultiDiGraph]))(note=draw(values))
    made: dict[Any, Any] = {}

    def fixed(data: dict[str, Any]) -> dict[str, Any]:
        """Turn makers into objects, of which about every second one is shared."""
        result = {}
        for key, value in data.items():
            if callable(value):
                value = made.setdefault(value, value()) if draw(st.booleans()) else value()
            if key == "slots" and value is not None:
                value = {name: fixed(said) for name, said in value.items()}
            result[key] = value
        return result

    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        graph.add_node(name, **fixed(draw(node_attributes)))
    nodes = list(graph)
    ends = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes))
    for (u, v), data in draw(st.lists(st.tuples(ends, edge_attributes), max_size=5)):
        if graph.is_multigraph():
            graph.add_edge(u, v, draw(names), **fixed(data))
        else:
            graph.add_edge(u, v, **fixed(data))
    return graph


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_every_graph_by_name_comes_back_as_it_was(graph: nx.DiGraph) -> None:
    """A user's saved declaration would mean another network."""
    assert same_graph(through_text(graph), graph)


@given(values)
@settings(max_examples=150, deadline=None)
def test_every_plain_value_comes_back_as_it_was(value: Any) -> None:
    """An optimizer's or scheduler's state would be restored as something else."""
    assert same(decode(json.loads(json.dumps(encode(value), allow_nan=False))), value)
    kept: dict[str, Tensor] = {}
    assert same(decode(json.loads(json.dumps(encode(value, "v", kept), allow_nan=False)), kept), value)


def test_tensors_of_like_names_are_not_mixed_up() -> None:
    kept: dict[str, Tensor] = {}
    value = {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}}
    assert same(decode(encode(value, "v", kept), kept), value)


def test_counters_stay_counters() -> None:
    """MultiStepLR keeps its milestones in one."""
    back = decode(encode({"milestones": Counter({3: 2})}))
    assert type(back["milestones"]) is Counter
    assert back["milestones"][3] == 2


@pytest.mark.parametrize("value", [lambda: 0, {1, 2}, b"x", 1j, torch.zeros(2).to_sparse(), np.array([None])])
def test_what_no_file_can_hold_is_named(value: Any) -> None:
    with pytest.raises(Unsaveable, match=r"^s\.a\[1\] is a "):
        encode({"a": [0, value]}, "s")


# -- networks ---------------------------------------------------------------------------------------------------------


def test_a_network_of_the_file_is_the_network(tmp_path: Path) -> None:
    """Parameters are packed in the order of the graph: a file that loses it would load weights into other edges."""
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=(1, 4, 4))
    graph.add_node(("h", 1), shape=(2, 4, 4), activation="relu", bias=False)
    graph.add_node(("h", 2), shape=(2, 4, 4), activation="tanh", bias=False, energy=energies.Laplace(scale=2.0))
    graph.add_node("y", shape=3, energy="cross_entropy")
    graph.add_node("z", shape=3, prior=torch.tensor([0.5, 0.25, -1.0]))
    conv = transforms.Conv2d(1, 2, 3, padding=1)
    graph.add_edge("x", ("h", 1), "a", transform=conv)
    graph.add_edge("x", ("h", 2), transform=conv)
    graph.add_edge(("h", 1), "y", share="w")
    graph.add_edge(("h", 2), "y", share="w")
    graph.add_edge("z", "y", transform="identity")
    down = {"down": {"energy": energies.Laplace(scale=3.0), "activation": torch.tanh}, "side": {"precision": 0.25}}
    graph.nodes["z"]["slots"] = down
    graph.add_edge("y", "z", slot="down")
    graph.add_edge("y", "z", slot="side", transform="identity")
    write_graph(tmp_path / "g.json", graph)
    one, two = pcgraph.PCNetwork(graph, seed=3), pcgraph.PCNetwork(read_graph(tmp_path / "g.json"), seed=3)
    assert one.structure.nodes == two.structure.nodes
    assert list(one.state_dict()) == list(two.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    assert sum(p.numel() for p in two.parameters()) == (9 * 2 + 2) + 32 * 3 + 3 + 3 * 3 + 2 * 3


def test_networkx_reads_what_is_written(tmp_path: Path) -> None:
    graph = pcgraph.graphs.chain([4, (2, 3), 2], activation="relu")
    graph.add_node((0, "t"), shape=2)
    graph.add_edge("x", (0, "t"))
    write_graph(tmp_path / "g.json", graph)
    other = nx.node_link_graph(json.loads((tmp_path / "g.json").read_text(encoding="utf-8")), edges="edges")
    assert list(other) == list(graph)
    assert list(other.edges) == list(graph.edges)
    assert other.nodes["h1"]["shape"] == [2, 3]


@pytest.mark.parametrize("edges", ["edges", "links"])
def test_what_networkx_writes_is_read(tmp_path: Path, edges: str) -> None:
    graph = pcgraph.graphs.chain([4, 3, 2], activation="relu")
    (tmp_path / "g.json").write_text(json.dumps(nx.node_link_data(graph, edges=edges)), encoding="utf-8")
    assert same_graph(read_graph(tmp_path / "g.json"), graph)


def test_shapes_in_lists_are_read_as_tuples() -> None:
    graph = nx.DiGraph()
    graph.add_node("a", shape=[2, 3])
    assert through_text(graph).nodes["a"]["shape"] == (2, 3)


def test_numpy_names_are_numbers() -> None:
    graph = nx.DiGraph()
    graph.add_node(np.int64(3), shape=1)
    assert list(through_text(graph)) == [3]


# -- what cannot be saved ---------------------------------------------------------------------------------------------


class Named(nn.Module):
    """A module that says nothing of how it was made."""


class Unregistered(energies.Energy):
    """An energy without a name."""


class Takes(transforms.Transform):
    """A transform with an argument and no config()."""

    def __init__(self, size: int) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("activation", torch.sin, "a Python function"),
        ("activation", lambda a: a, "<lambda>"),
        ("activation", pcgraph.activations.get(torch.sin), "a Python function"),
        ("energy", Unregistered(), "ENERGIES"),
        ("note", {"deep": [1, print]}, r"note\.deep\[1\]"),
        ("note", object(), "a object"),
        ("id", 3, "rename"),
        (5, 3, "rename"),
    ],
)
def test_the_attribute_of_the_node_that_cannot_be_saved_is_named(key: Any, value: Any, says: str) -> None:
    graph = nx.DiGraph()
    graph.add_node("fine", shape=1, activation="relu")
    graph.add_node("culprit", shape=1)
    graph.nodes["culprit"][key] = value
    with pytest.raises(GraphError, match=says) as caught:
        graph_to_data(graph)
    assert f"the attribute {key!r} of node 'culprit'" in str(caught.value)
    assert caught.value.where == "culprit"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Named(), "a .*Named"),
        (nn.Sequential(nn.ReLU(), Named()), "a .*Named"),
        (Takes(2), "TRANSFORMS"),
        (len, "function"),
    ],
)
def test_the_attribute_of_the_edge_that_cannot_be_saved_is_named(value: Any, says: str) -> None:
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("ab", shape=2)
    graph.add_edge("a", "b", "k", transform=value)
    with pytest.raises(GraphError, match=says) as caught:
        graph_to_data(graph)
    assert "the attribute 'transform' of edge 'a' -> 'b' (key 'k')" in str(caught.value)
    assert caught.value.where == ("a", "b", "k")


def test_an_init_is_saved_by_name_alone() -> None:
    """A function in a file would be code; a name of one's own is none."""
    graph = nx.DiGraph()
    graph.add_nodes_from("ab", shape=2)
    graph.add_edge("a", "b", init=nn.init.zeros_, scale=0.25)
    with pytest.raises(GraphError, match=r"'init' of edge 'a' -> 'b' cannot be saved: .* function .*INITS\['mine'\]"):
        graph_to_data(graph)
    graph.edges["a", "b"]["init"] = "zeros"
    assert through_text(graph).edges["a", "b"] == {"init": "zeros", "scale": 0.25}


def test_a_registered_class_without_config_is_named() -> None:
    transforms.TRANSFORMS["takes"] = Takes
    try:
        graph = nx.DiGraph()
        graph.add_nodes_from("ab", shape=2)
        graph.add_edge("a", "b", transform=Takes(2))
        with pytest.raises(GraphError, match=r"'transform' of edge 'a' -> 'b'.*defines no config\(\)"):
            graph_to_data(graph)
    finally:
        del transforms.TRANSFORMS["takes"]


@pytest.mark.parametrize("name", [frozenset("a"), object(), float("nan"), ("a", frozenset())])
def test_a_name_that_cannot_be_saved_is_named(name: Any) -> None:
    graph = nx.DiGraph()
    graph.add_node(name, shape=1)
    with pytest.raises(GraphError, match=r"the name of node .* cannot be saved"):
        graph_to_data(graph)


def test_an_undirected_graph_is_not_written() -> None:
    with pytest.raises(GraphError, match=r"nx\.DiGraph .*found Graph"):
        graph_to_data(nx.Graph())


def test_nothing_is_written_of_a_graph_that_cannot_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    write_graph(path, pcgraph.graphs.chain([2, 2]))
    before = path.read_bytes()
    with pytest.raises(GraphError):
        write_graph(path, pcgraph.graphs.chain([2, 2, 2], activation=torch.sin))
    assert path.read_bytes() == before


# -- malformed files --------------------------------------------------------------------------------------------------

A, B = {"id": "a", "shape": 1}, {"id": "b", "shape": 1}
AB = {"source": "a", "target": "b"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], '"nodes"'),
        ({"nodes": 3}, '"nodes"'),
        ({"nodes": [A], "edges": 3}, '"edges" is a list'),
        ({"nodes": [3]}, r"nodes\[0\] is an object"),
        ({"nodes": [{"shape": 3}]}, r'nodes\[0\] needs an "id"'),
        ({"nodes": [{"id": {}}]}, r'the "id" of nodes\[0\]'),
        ({"nodes": [A, A]}, r"'a' is declared twice \(again in nodes\[1\]\)"),
        ({"nodes": [A], "edges": [{"source": "a"}]}, r'edges\[0\] needs a "source" and a "target"'),
        ({"nodes": [A], "edges": [AB]}, r"edges\[0\] has the target 'b', which is no node"),
        ({"nodes": [A, B], "edges": [AB, AB]}, r"comes twice .*multigraph"),
        ({"nodes": [A, B], "multigraph": True, "edges": [{**AB, "key": 1}] * 2}, "comes twice"),
        ({"nodes": [{**A, "energy": {"name": "laplas"}}]}, "'energy' of node 'a' .*did you mean 'laplace'"),
        ({"nodes": [{**A, "energy": {"name": "laplace", "config": {"size": 1}}}]}, "'energy' of node 'a'"),
        ({"nodes": [{**A, "prior": {"$tensor": [1], "dtype": "float3", "shape": [1]}}]}, "float3"),
        ({"nodes": [{**A, "note": {"$what": 1}}]}, "unknown tag"),
        ({"nodes": [{**A, "shape": "28 by 28"}]}, 'written as 784, "28x28"'),
        ({"nodes": [A], "format": "pcgraph.graph", "version": 2}, "newer pcgraph .*format 2"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(tmp_path: Path, data: Any, says: str) -> None:
    path = tmp_path / "g.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DataError, match=says) as caught:
        read_graph(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("g.json", "{", "is no JSON: .*line 1"),
        ("g.json", "\xff", "no JSON"),
        ("g.graphml", "<graphml", "malformed"),
        ("g.graphml", "<a/>", "malformed"),
        ("g.txt", "", r"\.json .*\.graphml"),
    ],
)
def test_what_is_no_graph_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_graph(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match=r"g\.json is malformed"):
        read_graph(tmp_path / "g.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read: No such file"):
        read_graph(tmp_path / "nowhere.json")


def test_an_undirected_file_is_refused_by_the_network(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"directed": False, "nodes": [A, B], "edges": [AB]}), encoding="utf-8")
    with pytest.raises(GraphError, match="found Graph"):
        pcgraph.PCNetwork(read_graph(tmp_path / "g.json"))


# -- GraphML and shapes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape"),
    [("784", 784), ("28x28", (28, 28)), (" 1 × 28 × 28 ", (1, 28, 28)), ("[1, 28, 28]", (1, 28, 28)), ("(3,)", (3,)),
     ("3,4", (3, 4)), ("[7]", (7,)), ([2, 3], (2, 3)), (5, 5)],
)  # fmt: skip
def test_shapes_are_read_from_text(text: Any, shape: Any) -> None:
    found = read_shape(text)
    assert (found, type(found)) == (shape, type(shape))


@pytest.mark.parametrize("text", ["", "x", "28x", "-3", "2.5", "[1, 2", "28 28", "[]"])
def test_other_texts_are_no_shapes(text: str) -> None:
    with pytest.raises(GraphError, match="a shape is written as"):
        read_shape(text)


def test_graphml_declares_the_same_network(tmp_path: Path) -> None:
    plain = nx.DiGraph()
    plain.add_node("x", shape="1x4x4")
    plain.add_node("h", shape="[2, 4, 4]", activation="relu", bias="false", precision=2.0)
    plain.add_node("y", shape="10", energy='{"name": "laplace", "config": {"scale": 2.0}}')
    plain.add_node("z", shape=10, prior="[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]")
    conv = json.dumps({"name": "conv2d", "config": transforms.Conv2d(1, 2, 3, padding=1).config()})
    plain.add_edge("x", "h", transform=conv)
    plain.add_edge("h", "y", trainable="False", scale="-0.5", init="zeros")
    plain.add_edge("z", "y", transform="identity", activation="tanh")
    plain.nodes["h"]["slots"] = '{"down": {"bias": false, "energy": "laplace"}}'
    plain.nodes["x"]["slots"] = '{"down": {"energy": {"name": "laplace", "config": {"scale": 4.0}}}}'
    plain.add_edge("y", "h", slot="down")
    plain.add_edge("z", "x", slot="down")
    nx.write_graphml(plain, tmp_path / "g.graphml")

    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, 4, 4))
    graph.add_node("h", shape=(2, 4, 4), activation="relu", bias=False, precision=2.0)
    graph.add_node("y", shape=10, energy=energies.Laplace(scale=2.0))
    graph.add_node("z", shape=10, prior=list(range(10)))
    graph.add_edge("x", "h", transform=transforms.Conv2d(1, 2, 3, padding=1))
    graph.add_edge("h", "y", trainable=False, scale=-0.5, init="zeros")
    graph.add_edge("z", "y", transform="identity", activation="tanh")
    graph.nodes["h"]["slots"] = {"down": {"bias": False, "energy": "laplace"}}
    graph.nodes["x"]["slots"] = {"down": {"energy": energies.Laplace(scale=4.0)}}
    graph.add_edge("y", "h", slot="down")
    graph.add_edge("z", "x", slot="down")

    read = read_graph(tmp_path / "g.graphml")
    assert same_graph(read, graph)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    init = pcgraph.Forward(roots=pcgraph.Zero())
    found = [pcgraph.PCNetwork(g, seed=0).infer({"x": x}, init=init, steps=0).states["y"] for g in (read, graph)]
    assert torch.equal(*found)


def test_parallel_edges_in_graphml(tmp_path: Path) -> None:
    plain = nx.MultiDiGraph()
    plain.add_nodes_from("ab", shape=2)
    plain.add_edge("a", "b")
    plain.add_edge("a", "b", activation="relu")
    nx.write_graphml(plain, tmp_path / "g.graphml")
    read = read_graph(tmp_path / "g.graphml")
    assert read.number_of_edges("a", "b") == 2
    assert sum(p.numel() for p in pcgraph.PCNetwork(read).parameters()) == 2 * 4 + 2


def test_defaults_of_graphml_hold_where_nothing_else_is_said(tmp_path: Path) -> None:
    """yEd and other editors write them; NetworkX leaves them to the reader."""
    (tmp_path / "g.graphml").write_text(
        """<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
        <key id="s" for="node" attr.name="shape" attr.type="string"><default>2x2</default></key>
        <key id="t" for="edge" attr.name="trainable" attr.type="boolean"><default>false</default></key>
        <graph edgedefault="directed"><node id="a"/><node id="b"><data key="s">3</data></node>
        <edge source="a" target="b"/></graph></graphml>""",
        encoding="utf-8",
    )
    graph = read_graph(tmp_path / "g.graphml")
    assert dict(graph.nodes(data="shape")) == {"a": (2, 2), "b": 3}
    assert graph.edges["a", "b"]["trainable"] is False


def test_a_wrong_value_in_graphml_is_named(tmp_path: Path) -> None:
    plain = nx.DiGraph()
    plain.add_node("a", shape="many")
    nx.write_graphml(plain, tmp_path / "g.graphml")
    with pytest.raises(DataError, match="'shape' of node 'a'"):
        read_graph(tmp_path / "g.graphml")


@pytest.mark.parametrize(
    ("slots", "says"),
    [
        ({"down": {"energy": object()}}, "attribute 'energy' of slot 'down' of node 'h' cannot be saved"),
        ({"down": {"activation": lambda x: x}}, r"ACTIVATIONS\['mine'\]"),
        ({"$down": {}}, r"begin with \$"),
        ({3: {}}, "a mapping for each slot"),
        ({"down": 0.5}, "a mapping for each slot"),
    ],
)
def test_what_cannot_be_saved_of_a_slot_is_named(slots: Any, says: str) -> None:
    """With the slot, and not as an attribute of its node that is somewhere in a mapping."""
    graph = nx.DiGraph()
    graph.add_node("h", shape=2, slots=slots)
    with pytest.raises(GraphError, match=says):
        graph_to_data(graph)


def test_a_malformed_slot_in_a_file_is_named() -> None:
    rows = {"nodes": [{"id": "h", "shape": 2, "slots": {"down": 3}}]}
    with pytest.raises(GraphError, match="slot 'down' of node 'h' is an object"):
        graph_from_data(rows)
    rows["nodes"][0]["slots"] = {"down": {"energy": {"name": "laplce", "config": {}}}}
    with pytest.raises(GraphError, match="attribute 'energy' of slot 'down' of node 'h' cannot be read"):
        graph_from_data(rows)
