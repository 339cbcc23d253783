"""Graph files that somebody else has written, or broken: read, made a network of and written again, or refused."""

from __future__ import annotations

import json
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph.energies import Laplace
from pcgraph.errors import DataError, PCGraphError
from pcgraph.serialization import graph_to_data, read_graph, write_graph
from pcgraph.transforms import Conv2d, MaskedLinear, Reshape, Sequence, SparseLinear

HUGE = 10**12
VALUES = [
    None, True, False, -1, 0, 1, HUGE, 10**400, 1.5, -0.5, 1e308, "", "text", "x", "../../etc/passwd", "\ud800", "tanh", "conv2d",
    [], {}, [[]], [2, 2], ["x", 1], {"$tuple": 3}, {"$float": "nan"}, {"$map": [1]}, {"$map": [[1, 2]]}, {"$tensor": "nowhere"},
    {"$tensor": [1.0], "dtype": "float7", "shape": [1]}, {"$tensor": [1.0], "dtype": "float32", "shape": [HUGE]},
    {"$tensor": [1.0], "dtype": "float32", "shape": [-1]}, {"$module": "Linear"}, {"$module": "os.system", "arguments": {}},
    {"$nothing": 1}, {"name": "conv2d", "config": {}}, {"name": "conv2d", "config": {"in_channels": HUGE}}, {"name": []},
    {"name": "sequence", "config": {"parts": []}}, {"name": "gaussian", "config": {"precision": "x"}}, {"instance": 0},
    {"name": "masked_linear", "config": {"mask": "x"}}, {"name": "sparse_linear", "config": {"density": 2}},
    {"name": "reshape", "config": {"shape": ["a"]}}, {"name": "activate", "config": {"activation": 3}}, {"a": {"b": []}},
    {"name": "laplace", "config": {"scale": HUGE}}, {"name": "linear", "config": 3}, [[[[[[[[[[[]]]]]]]]]]],
]  # fmt: skip


def rich() -> nx.MultiDiGraph:
    """A graph of everything that a file may hold."""
    graph = nx.MultiDiGraph(name="rich", note={"a": [1, (2, 3)], 4: None})
    graph.add_node("x", shape=(1, 4, 4), prior=0.5)
    graph.add_node("c", shape=(2, 2, 2), activation="relu", bias=False, energy=Laplace(2.0))
    graph.add_node(("h", 1), shape=6, activation=torch.nn.ELU(0.5), precision=2.0, slots={"down": {"precision": 0.1}})
    graph.add_node(3, shape=3, energy="cross_entropy", note=torch.ones(2))
    graph.add_edge("x", "c", transform=Conv2d(1, 2, 3, stride=2, padding=1))
    graph.add_edge("c", ("h", 1), share="w")
    graph.add_edge("c", ("h", 1), "second", share="w")
    graph.add_edge("c", ("h", 1), "sparse", transform=SparseLinear(density=0.5), trainable=False, scale=0.5)
    graph.add_edge(("h", 1), 3, transform=MaskedLinear(torch.ones(3, 6)))
    graph.add_edge(3, ("h", 1), slot="down", init="orthogonal")
    graph.add_edge("x", 3, transform=Sequence([Reshape((16,)), torch.nn.Linear(16, 3, bias=False)]))
    return graph


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def spoiled(data: Any, dice: random.Random) -> Any:
    """Put values into one to three places, or take something away, or say it twice."""
    data = json.loads(json.dumps(data))
    for _ in range(dice.randint(1, 3)):
        found = [place for place in places(data) if place and len(place) < 9]
        inner, (*path, last) = data, dice.choice(found)
        for key in path:
            inner = inner[key]
        kind = dice.random()
        if kind < 0.1:
            del inner[last]
        elif kind < 0.15 and isinstance(inner, list):
            inner.append(inner[last])
        elif kind < 0.25 and isinstance(inner, dict):
            inner[
                dice.choice(
                    ["shape", "energy", "transform", "activation", "share", "slot", "slots", "id", "", "$x", "init"]
                )
            ] = dice.choice(VALUES)
        else:
            inner[last] = dice.choice(VALUES)
    return data


def bent(text: str, dice: random.Random) -> bytes:
    """Cut a text off, or change, drop or double some of it."""
    data = bytearray(text.encode())
    if dice.random() < 0.2:
        return bytes(data[: dice.randrange(len(data))])
    for _ in range(dice.randint(1, 4)):
        i = dice.randrange(len(data))
        j = min(len(data), i + dice.randint(1, 12))
        part = dice.choice(
            [
                b"",
                bytes(data[i:j]) * 2,
                bytes([dice.randrange(256)]),
                b'"',
                b"&#0;",
                b"<",
                b"]]>",
                b"1e999",
                b"-",
                b"NaN",
            ]
        )
        data[i:j] = part
    return bytes(data)


def outcome(path: Path) -> str:
    """What becomes of a file; whatever else happens is a fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = read_graph(path)
        except DataError:
            return "refused when read"
        try:
            net = pcgraph.PCNetwork(graph)
        except PCGraphError:
            return "refused as a network"
        again = path.with_name("again.json")
        try:
            write_graph(again, net.graph)
        except PCGraphError:
            return "refused when written"
        assert graph_to_data(read_graph(again)) == graph_to_data(net.graph)
        return "as good as any"


def tried(count: int, folder: Path, seed: int) -> Counter[str]:
    found: Counter[str] = Counter()
    dice, data = random.Random(seed), graph_to_data(rich())
    xml = folder / "g.graphml"
    plain = nx.DiGraph()
    plain.add_node("x", shape="2x3", prior="0.5")
    plain.add_node(
        "y",
        shape=3,
        activation="tanh",
        bias=True,
        precision=0.5,
        energy='{"name": "laplace", "config": {"scale": 2.0}}',
    )
    plain.add_edge(
        "x", "y", transform='{"name": "sparse_linear", "config": {"density": 0.5}}', trainable=True, scale=2.0
    )
    nx.write_graphml(plain, xml)
    for kind, make in {
        ".json": lambda: json.dumps(spoiled(data, dice)).encode(), "bent.json": lambda: bent(json.dumps(data), dice),
        ".graphml": lambda: bent(xml.read_text(encoding="utf-8"), dice),
    }.items():  # fmt: skip
        for _ in range(count):
            path = folder / f"file{kind}"
            path.write_bytes(make())
            found[outcome(path)] += 1
    return found


def test_the_whole_file_is_taken(tmp_path: Path) -> None:
    """Else everything would be refused, and nothing tried."""
    write_graph(tmp_path / "g.json", rich())
    assert outcome(tmp_path / "g.json") == "as good as any"


def test_no_malformed_graph_file_ends_in_a_foreign_error(tmp_path: Path) -> None:
    """Whoever gets a file from elsewhere is told what is wrong with it."""
    found = tried(150, tmp_path, 0)
    assert all(found[each] >= 5 for each in ("refused when read", "refused as a network", "as good as any")), found


@pytest.mark.slow
def test_no_malformed_graph_file_of_many_does(tmp_path: Path) -> None:
    assert sum(tried(4000, tmp_path, 1).values()) == 12000
