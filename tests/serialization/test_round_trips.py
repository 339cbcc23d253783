"""What one public call writes another reads as it was, or the first refuses it: graphs, values, modules, GraphML."""

from __future__ import annotations

import enum
import json
import warnings
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune
from torch_geometric.nn import GCNConv

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, activations, energies, transforms
from pcgraph.errors import DataError, GraphError
from pcgraph.serialization import decode, encode, graph_from_data, graph_to_data, read_graph, read_shape, write_graph
from pcgraph.serialization.values import DEEPEST, Unsaveable
from tests.serialization.test_serialization import same, same_graph

# -- any value --------------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "a b")
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
    torch.complex64,
]  # fmt: skip


class Colour(enum.IntEnum):
    red = 1


class Name(enum.StrEnum):
    red = "red"


def deep(levels: int) -> list[Any]:
    return [] if levels == 0 else [deep(levels - 1)]


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


ODD = [
    "\ud800", "\ud83d\ude00", "a\udcff", "\0", 10**3000, -(10**3999), 2**64, -0.0, float("-inf"), b"x", {1},
    frozenset("a"), object(), print, Colour.red, Name.red, 1j, slice(1), Pair(1, 2), OrderedDict(b=1, a=2), range(3),
    deep(DEEPEST - 2), deep(DEEPEST + 5), deep(500), endless(), np.float32(0.1), np.int8(3), np.bool_(True),
    np.str_("s"), np.datetime64("2020-01-01"), np.complex64(1), np.array([1, 2], dtype=">i4"),
    np.arange(6.0).reshape(2, 3)[::-1, ::-2], np.array(3.5), np.array(["a"]), np.zeros((2, 0)),
    np.ma.masked_array([1, 2], [True, False]), np.array([(1, 2)], dtype=[("a", "i4"), ("b", "f4")]),
    np.float16([1.5]), np.longdouble([1.5]), torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"),
    torch.tensor(3.0), torch.zeros(0, 3), torch.eye(3)[1:].t(), nn.Parameter(torch.ones(2)),
    torch.nn.UninitializedParameter(), nn.Linear(2, 2), nn.ReLU(),
    torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.strided), Counter("aab"), torch.float32,
    torch.device("cpu"),
]  # fmt: skip
odd = st.sampled_from(ODD)
tensors = st.builds(
    lambda values, dtype: torch.tensor(values, dtype=torch.float64).to(dtype),
    st.lists(st.floats(0, 200), max_size=3), st.sampled_from(DTYPES),
)  # fmt: skip
texts = st.text(max_size=4) | st.sampled_from(
    ["$tuple", "$torch", "$map", "name", "instance", "config", "__metadata__"]
)
keys = (
    texts | st.integers(-2, 2) | st.floats(allow_nan=False) | st.booleans() | st.tuples(st.integers(0, 1)) | st.none()
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | tensors | odd,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


def trial(expected: type[Exception], call: Callable[[], Any]) -> tuple[str, Any]:
    """What a call says where it refuses, and what it returns where it does not."""
    try:
        return "", call()
    except expected as refusal:
        return str(refusal), None


def plain(value: Any) -> Any:
    """What a value is after all: the names of its fields, its order of bytes and its strides do not count."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
    if isinstance(value, Tensor):
        return value.detach().float() if value.dtype in (torch.float8_e4m3fn, torch.float8_e5m2) else value.detach()
    if isinstance(value, Mapping) and type(value) is not Counter:
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(plain, value))
    return value


@settings(max_examples=400, deadline=None)
@given(anything, st.booleans())
def test_any_value_comes_back_or_is_refused(value: Any, apart: bool) -> None:
    """Beside its tensors, or with them written out; through the text of a file in either case."""
    found: dict[str, Tensor] | None = {} if apart else None
    refusal, data = trial(Unsaveable, lambda: encode(value, "value", found))
    if refusal:
        assert len(refusal) < 1000
        assert "\n" not in refusal
        return
    back = decode(json.loads(json.dumps(data, allow_nan=False)), found)
    assert same(plain(back), plain(value))


def test_what_is_refused_is_named_in_few_words() -> None:
    for value, says in (
        (endless(), "nested more than 100 deep"), ("\ud83d\ude00", "two halves of one sign"),
        (10**4500, "more than 4000 digits"), ({10**4500}, "value is a set"),
        ({"a": {"\ud83d\ude00": 1}}, "a key of value.a is text with the two halves"),
        (torch.zeros(2, device="meta"), "Tensor"),
    ):  # fmt: skip
        with pytest.raises(Unsaveable, match=says):
            encode(value)


# -- any graph --------------------------------------------------------------------------------------------------------

TAKEN = [
    "node_for_adding", "nodes_for_adding", "u_of_edge", "v_of_edge", "u_for_edge", "v_for_edge", "ebunch_to_add",
    "key", "id", "source", "target", "name", "self", "attr", "incoming_graph_data", "instance", "config",
    "node_default", "edge_default", "nodes", "edges", "multigraph", "directed", "format", "version", "weight",
    "label",
]  # fmt: skip
MEANT = [
    "shape",
    "activation",
    "energy",
    "precision",
    "prior",
    "bias",
    "transform",
    "share",
    "trainable",
    "slots",
    "slot",
]
attributes = st.dictionaries(st.sampled_from(TAKEN + MEANT) | texts | st.just(3), anything, max_size=3)
nodes = st.text(max_size=2) | st.integers(-1, 1) | st.tuples(st.text(max_size=1), st.booleans()) | st.sampled_from(
    ["\ud800", "\ud83d\ude00", "$x", 0.5, float("nan"), frozenset("a"), (), ("\udcff",), np.int64(7), b"x"]
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> nx.DiGraph:
    graph = draw(st.sampled_from([nx.DiGraph, nx.MultiDiGraph]))()
    graph.graph.update(draw(attributes))
    for node in draw(st.lists(nodes, min_size=1, max_size=3)):
        graph.add_node(node)
        graph.nodes[node].update(draw(attributes))
    ends = st.sampled_from(list(graph))
    for u, v in draw(st.lists(st.tuples(ends, ends), max_size=3)):
        where = (u, v, draw(nodes)) if graph.is_multigraph() else (u, v)
        graph.add_edge(*where)
        graph.edges[where].update(draw(attributes))
    return graph


def as_read(graph: nx.DiGraph) -> nx.DiGraph:
    """What reading makes of it besides: shapes are tuples, or read from text, and numbers are Python's."""
    again = type(graph)()
    again.graph.update(plain(graph.graph))
    for node, data in graph.nodes(data=True):
        again.add_node(plain(node))
        again.nodes[plain(node)].update(shaped(plain(data)))
    for *where, data in graph.edges(keys=True, data=True) if graph.is_multigraph() else graph.edges(data=True):
        again.add_edge(*map(plain, where))
        again.edges[tuple(map(plain, where))].update(plain(data))
    return again


def shaped(data: dict[str, Any]) -> dict[str, Any]:
    if "shape" in data:
        shape = data["shape"]
        data = {**data, "shape": tuple(shape) if isinstance(shape, list | tuple) else read_shape(shape)}
    return data


@pytest.mark.parametrize("value", [(), (1, "a"), None, 3, {}])
def test_slots_that_are_no_mapping_come_back_and_are_refused_by_a_network(tmp_path: Path, value: Any) -> None:
    """A tuple is written as a mapping of one entry, and was read as a slot of that name."""
    graph = nx.DiGraph()
    graph.add_node("a", shape=2, slots=value)
    write_graph(tmp_path / "g.json", graph)
    back = read_graph(tmp_path / "g.json")
    assert back.nodes["a"]["slots"] == value
    if value not in (None, {}):
        with pytest.raises(GraphError, match="slots"):
            pcgraph.PCNetwork(back)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graphs())
def test_any_graph_comes_back_or_is_refused(tmp_path: Path, graph: nx.DiGraph) -> None:
    """Whatever its nodes, keys and attributes are called and hold; nothing is written of what is refused."""
    path = tmp_path / "g.json"
    path.unlink(missing_ok=True)
    refusal, _ = trial(GraphError, lambda: write_graph(path, graph))
    if refusal:
        assert refusal.endswith(".")
        assert not path.exists()
        return
    back, expected = as_read(read_graph(path)), as_read(graph)
    assert same_graph(back, expected), (nx.node_link_data(back), nx.node_link_data(expected))


@pytest.mark.parametrize("name", [*TAKEN, *MEANT])
@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiDiGraph])
def test_every_name_of_an_attribute_comes_back_or_is_refused(tmp_path: Path, name: str, kind: type[nx.DiGraph]) -> None:
    """NetworkX's own parameters among them, which attributes of that name once ran into."""
    for place in ("graph", "node", "edge"):
        graph = kind()
        graph.add_nodes_from("ab", shape=2)
        graph.add_edge("a", "b")
        data = {"graph": graph.graph, "node": graph.nodes["a"], "edge": next(iter(graph.edges(data=True)))[-1]}[place]
        data[name] = 1
        if name in {"node": ["id"], "edge": ["source", "target", *["key"] * graph.is_multigraph()]}.get(place, []):
            with pytest.raises(GraphError, match="cannot be saved under this name: rename it"):
                write_graph(tmp_path / "g.json", graph)
            continue
        write_graph(tmp_path / "g.json", graph)
        assert same_graph(read_graph(tmp_path / "g.json"), graph)


# -- modules of torch -------------------------------------------------------------------------------------------------

TORCH: dict[str, tuple[nn.Module, Any, Any]] = {
    "Conv2d": (nn.Conv2d(1, 2, 3, padding="same", bias=False), (1, 4, 4), (2, 4, 4)),
    "Conv1d": (nn.Conv1d(2, 4, 3, stride=2, groups=2), (2, 7), (4, 3)),
    "ConvTranspose2d": (nn.ConvTranspose2d(1, 2, 3), (1, 2, 2), (2, 4, 4)),
    "Linear": (nn.Linear(3, 2), 3, 2),
    "LayerNorm": (nn.LayerNorm(3, bias=False), 3, 3),
    "GroupNorm": (nn.GroupNorm(2, 4), (4, 2), (4, 2)),
    "MaxPool2d": (nn.MaxPool2d(2, stride=1), (1, 3, 3), (1, 2, 2)),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d((2, None)), (1, 4, 3), (1, 2, 3)),
    "Upsample": (nn.Upsample(scale_factor=2), (1, 2, 2), (1, 4, 4)),
    "Flatten": (nn.Flatten(), (2, 3), 6),
    "Unflatten": (nn.Unflatten(1, (2, 3)), 6, (2, 3)),
    "LeakyReLU": (nn.LeakyReLU(0.3), 3, 3),
    "Sequential": (nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.GELU("tanh")), nn.Linear(4, 2)), 3, 2),
    "evaluated": (transforms.Module(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), evaluation=True), 3, 2),
    "in a sequence": (
        transforms.Sequence([nn.Conv2d(1, 2, 3), "flatten", transforms.Activate(nn.ELU(0.5))]),
        (1, 3, 3),
        2,
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_module_of_torch_is_saved_with_the_network(tmp_path: Path, name: str) -> None:
    """The documented route: `transform=nn.Conv2d(...)`, saved and loaded, is the same network with the same weights."""
    module, source, target = TORCH[name]
    graph = nx.DiGraph()
    graph.add_node("x", shape=source)
    graph.add_node("y", shape=target)
    graph.add_edge("x", "y", transform=module)
    net = PCNetwork(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pcgraph.save(tmp_path, net)
    before = torch.random.get_rng_state()
    again = pcgraph.load(tmp_path).net
    assert torch.equal(torch.random.get_rng_state(), before)
    x = torch.randn(5, *net.structure.shape("x"))
    assert torch.equal(again.predict({"x": x}, "y"), net.predict({"x": x}, "y"))
    assert same(graph_to_data(again.graph), graph_to_data(net.graph))


@pytest.mark.parametrize(
    "module", [nn.ReLU(), nn.GELU("tanh"), nn.ELU(0.5), nn.Softplus(2), nn.Hardtanh(-2, 3), nn.Softmax(-1)]
)
def test_a_module_of_torch_as_activation_is_saved_with_the_network(tmp_path: Path, module: nn.Module) -> None:
    graph = pcgraph.graphs.chain([3, 4, 2], activation=module)
    graph.edges["x", "h1"]["activation"] = module
    net = PCNetwork(graph)
    pcgraph.save(tmp_path, net)
    again = pcgraph.load(tmp_path).net
    clamps = {"x": torch.randn(5, 3), "y": torch.randn(5, 2)}
    run = {"init": Forward(), "steps": 3, "optimizer": SGD(lr=0.1)}
    assert torch.equal(again.infer(clamps, **run).states["h1"], net.infer(clamps, **run).states["h1"])


@pytest.mark.parametrize("name", [name for name in activations.ACTIVATIONS if name != "identity"])
def test_the_function_of_a_named_activation_is_saved_by_its_name(name: str) -> None:
    function = activations.ACTIVATIONS[name].function
    data = graph_to_data(pcgraph.graphs.chain([3, 4, 2], activation=function))
    assert data["nodes"][1]["activation"] == name


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.Linear(3, 2), "weight", amount=2)


def frozen() -> nn.Module:
    module = nn.Linear(3, 2)
    module.weight.requires_grad_(False)
    return module


def changed() -> nn.Module:
    module = nn.Linear(3, 2)
    module.in_features = 4
    return module


class Own(nn.Linear):
    """A class of the user's."""


MORE = {
    "pruned": pruned, "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), "frozen": frozen,
    "changed": changed, "own": lambda: Own(3, 2), "part": lambda: nn.Sequential(nn.ReLU(), Own(3, 2)),
    "lazy": lambda: nn.LazyLinear(2),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_a_module_that_is_more_than_its_class_and_arguments_is_refused(name: str) -> None:
    """What would come back without its mask, its norm, its frozen part or its own code must not seem to be saved."""
    graph = nx.DiGraph()
    graph.add_nodes_from("ab", shape=2)
    graph.add_edge("a", "b", transform=MORE[name]())
    with pytest.raises(GraphError, match=r"'transform' of edge 'a' -> 'b' cannot be saved: transform.*TRANSFORMS"):
        graph_to_data(graph)


def test_learned_modules_are_no_plain_values(tmp_path: Path) -> None:
    """Without its weights a module in `extra`, or in an attribute of the user's, would be another one."""
    with pytest.raises(pcgraph.ConfigError, match="the extra cannot be saved"):
        pcgraph.save(tmp_path, PCNetwork(pcgraph.graphs.chain([2, 2])), extra={"probe": nn.Linear(2, 2)})
    graph = pcgraph.graphs.chain([2, 2])
    graph.nodes["x"]["probe"] = nn.Linear(2, 2)
    with pytest.raises(GraphError, match="'probe' of node 'x' cannot be saved"):
        graph_to_data(graph)


def test_a_file_names_no_class_but_torchs_modules() -> None:
    for name in ("Parameter", "functional", "Module.forward", "zzz", 3, None, "modules"):
        data = {"nodes": [{"id": "a"}, {"id": "b"}],
                "edges": [{"source": "a", "target": "b", "transform": {"$torch": name, "config": {}}}]}  # fmt: skip
        with pytest.raises(GraphError, match="has no module"):
            graph_from_data(data)


# -- remedies ---------------------------------------------------------------------------------------------------------


class Doubled(transforms.Transform):
    """A transform with an argument, first without config() and a name, as a user writes it."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = times

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def forward(self, x: Tensor) -> Tensor:
        return x * self.times


class Remedied(Doubled):
    """What the message says to make of it."""

    def config(self) -> dict[str, Any]:
        return {"times": self.times}


class Cubed(energies.Energy):
    """An energy of the user's."""

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return (h - mu).abs().pow(3).flatten(1).sum(1)


def test_the_remedy_for_a_transform_is_one_that_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = pcgraph.graphs.chain([2, 2])
    graph.edges["x", "y"]["transform"] = Doubled(3.0)
    with pytest.raises(GraphError) as caught:
        write_graph(tmp_path / "g.json", graph)
    said = str(caught.value)
    assert "Give it a config() that returns the arguments of its class, and register the class" in said
    assert "pcgraph.transforms.TRANSFORMS['my_transform'] = Doubled" in said
    monkeypatch.setitem(transforms.TRANSFORMS, "my_transform", Remedied)
    graph.edges["x", "y"]["transform"] = Remedied(3.0)
    write_graph(tmp_path / "g.json", graph)
    assert read_graph(tmp_path / "g.json").edges["x", "y"]["transform"].times == 3.0


def test_the_remedy_for_an_energy_is_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = pcgraph.graphs.chain([2, 2])
    graph.nodes["y"]["energy"] = Cubed()
    with pytest.raises(GraphError, match=r"pcgraph\.energies\.ENERGIES\['my_energy'\] = Cubed"):
        graph_to_data(graph)
    monkeypatch.setitem(energies.ENERGIES, "my_energy", Cubed)
    assert isinstance(graph_from_data(graph_to_data(graph)).nodes["y"]["energy"], Cubed)


def test_the_remedy_for_an_activation_is_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = pcgraph.graphs.chain([2, 2, 2], activation=torch.sin)
    with pytest.raises(GraphError, match=r"ACTIVATIONS\['mine'\] = Activation\('mine', function\)"):
        graph_to_data(graph)
    monkeypatch.setitem(activations.ACTIVATIONS, "mine", activations.Activation("mine", torch.sin))
    graph.nodes["h1"]["activation"] = "mine"
    net = PCNetwork(graph_from_data(graph_to_data(graph)))
    expected = torch.sin(net.weight("x", "h1").sum(1) + net.bias("h1"))
    assert torch.allclose(net.predict({"x": torch.ones(1, 2)}, "h1")[0], expected)


def test_the_remedy_for_a_graph_layer_is_one_that_works(tmp_path: Path) -> None:
    def net() -> PCNetwork:
        graph = pcgraph.graphs.chain([(3, 2), (3, 2)])
        ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
        graph.edges["x", "y"]["transform"] = transforms.GraphLayer(GCNConv(2, 2), ring)
        return PCNetwork(graph)

    saved, again = net(), net()
    with pytest.warns(pcgraph.errors.PCGraphWarning, match=r"pcgraph\.load\(folder\)\.restore\(net=net\)\."):
        pcgraph.save(tmp_path, saved)
    pcgraph.load(tmp_path).restore(net=again)
    x = torch.randn(4, 3, 2)
    assert torch.equal(again.predict({"x": x}, "y"), saved.predict({"x": x}, "y"))


def test_what_the_checkpoint_says_is_made_of_whole_sentences(tmp_path: Path) -> None:
    net = PCNetwork(pcgraph.graphs.chain([2, 2, 2], activation=torch.sin))
    with pytest.warns(pcgraph.errors.PCGraphWarning, match=r"declare it by that name\. The parameters are"):
        pcgraph.save(tmp_path, net)
    with pytest.raises(pcgraph.errors.CheckpointError, match=r"by that name\. Make the network"):
        _ = pcgraph.load(tmp_path).net


# -- GraphML ----------------------------------------------------------------------------------------------------------

xml_text = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=4)
xml_values = st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False) | xml_text
xml_names = st.sampled_from(["id", "key", "source", "target", "weight", "label", "note"])


@st.composite
def graphs_for_xml(draw: st.DrawFn) -> nx.DiGraph:
    graph = draw(st.sampled_from([nx.DiGraph, nx.MultiDiGraph]))()
    for node in draw(st.lists(xml_text, min_size=1, max_size=3, unique=True)):
        graph.add_node(node, shape=draw(st.sampled_from([3, "3", "2x2"])))
        graph.nodes[node].update(draw(st.dictionaries(xml_names, xml_values, max_size=2)))
    ends = st.sampled_from(list(graph))
    for i, (u, v) in enumerate(draw(st.lists(st.tuples(ends, ends), max_size=4))):
        where = (u, v, f"e{i}") if graph.is_multigraph() else (u, v)
        graph.add_edge(*where)
        if graph.is_multigraph() or draw(st.booleans()):
            graph.edges[where].update(draw(st.dictionaries(xml_names, xml_values, max_size=2)))
    return graph


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graphs_for_xml())
def test_whatever_is_read_from_graphml_is_written_and_read_again(tmp_path: Path, graph: nx.DiGraph) -> None:
    """yEd, Gephi and NetworkX itself give edges ids; igraph gives nodes an attribute of that name."""
    nx.write_graphml(graph, tmp_path / "g.graphml")
    read = read_graph(tmp_path / "g.graphml")
    assert list(read) == list(graph)
    assert sorted(read.edges()) == sorted(graph.edges())
    refusal, _ = trial(GraphError, lambda: write_graph(tmp_path / "g.json", read))
    if refusal:
        assert "rename it" in refusal
        reserved = {"source", "target", "key"} & {key for *_, data in read.edges(data=True) for key in data}
        assert reserved
        return
    assert same_graph(read_graph(tmp_path / "g.json"), read)


def test_a_network_from_graphml_with_ids_is_saved_whole(tmp_path: Path) -> None:
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("xy", shape=3)
    graph.add_edge("x", "y", key="e0")
    nx.write_graphml(graph, tmp_path / "g.graphml")
    net = PCNetwork(read_graph(tmp_path / "g.graphml"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pcgraph.save(tmp_path / "run", net)
    again = pcgraph.load(tmp_path / "run").net
    assert torch.equal(again.weight("x", "y"), net.weight("x", "y"))


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a\0b.json", "a" * 300 + ".json", "file/g.json", "folder.json", "g.graphml", "g", "g.JSON"]
)
def test_a_graph_that_cannot_be_written_is_one_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder.json").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="cannot write the graph"):  # what read_graph would not read included
        write_graph(tmp_path / path, pcgraph.graphs.chain([2, 2]))
    assert sorted(tmp_path.rglob("*")) == before
