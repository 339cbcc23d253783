"""Graphs of torch_geometric as clamps and declarations. Oracles: torch_geometric's own layers and batches, a loop."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv

import pcgraph
from pcgraph import ClampError, Forward, GraphError, PCNetwork
from pcgraph.pyg import KnownRows, Relation, accuracy, clamps, from_data, from_hetero
from pcgraph.testing import reference
from pcgraph.transforms import GraphLayer
from tests.builders import EXACT, double

RING = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
MASK = torch.tensor([True, False, True, False])
DATA = Data(x=double(4, 3), y=torch.tensor([0, 2, 1, 2]), edge_index=RING, train_mask=MASK)


def layered(energy: Any = None, features: int = 3, index: Tensor = RING, vertices: int = 4) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_node("x", shape=(vertices, features))
    graph.add_node("h", shape=(vertices, 5), activation="tanh", bias=False)
    graph.add_node("y", shape=(vertices, 3), bias=False, **({} if energy is None else {"energy": energy}))
    torch.manual_seed(0)
    graph.add_edge("x", "h", transform=GraphLayer(GCNConv(features, 5), index))
    graph.add_edge("h", "y", transform=GraphLayer(GCNConv(5, 3), index))
    return graph


# -- clamps -----------------------------------------------------------------------------------------------------------


def test_a_graph_is_read_by_layers() -> None:
    found = clamps(DATA)
    assert torch.equal(found["x"], DATA.x[None])
    assert torch.equal(found["y"], torch.eye(3)[DATA.y][None])
    assert torch.equal(clamps(DATA, mask="train_mask")["y"], found["y"] * MASK[None, :, None])
    assert torch.equal(clamps(DATA, mask=MASK)["y"], clamps(DATA, mask="train_mask")["y"])
    assert clamps(DATA, classes=5)["y"].shape == (1, 4, 5)
    assert list(clamps(DATA, names=("y",))) == ["y"]


def test_a_graph_is_read_by_vertices() -> None:
    """The graph is the network then: its shape is that of a row, what is known is clamped, all else inferred."""
    graph = from_data(DATA, activation="tanh")
    assert graph.nodes[0] == {"shape": (3,), "activation": "tanh"}
    assert from_data(Data(edge_index=RING, num_nodes=4)).nodes[0]["shape"] == 1
    known = clamps(DATA, by="vertices", mask="train_mask")
    assert list(known) == [0, 2]
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    states = net.infer(known, init=pcgraph.Zero(), steps=3, optimizer=pcgraph.SGD(lr=0.1)).states
    assert torch.equal(states[0], DATA.x[:1])
    assert states[1].any()


def test_rows_that_are_not_known_cost_and_teach_nothing() -> None:
    """The gradient is that of torch_geometric's layers with the squared error of the known rows alone."""
    net = PCNetwork(layered(KnownRows()), dtype=torch.float64)
    first, second = net.transform("x", "h").layer, net.transform("h", "y").layer
    known = {k: v.double() for k, v in clamps(DATA, mask="train_mask").items()}
    net.infer(known, init=Forward(), steps=0).backward()
    found = dict(second.named_parameters())
    h = first(DATA.x, RING).tanh().detach()
    error = 0.5 * (second(h, RING) - torch.eye(3, dtype=torch.float64)[DATA.y])[MASK].square().sum()
    expected = torch.autograd.grad(error, list(found.values()))
    for parameter, gradient in zip(found.values(), expected):
        torch.testing.assert_close(parameter.grad, gradient, **EXACT)


def test_values_that_are_not_known_may_be_nan() -> None:
    """That is what a table writes where it has nothing, and NaN times nothing is NaN."""
    data = Data(x=torch.ones(3, 2), y=torch.tensor([[1.0], [torch.nan], [2.0]]), edge_index=torch.tensor([[0], [1]]))
    known = clamps(data, mask=torch.tensor([True, False, True]))
    assert known["y"].tolist() == [[[1.0], [0.0], [2.0]]]


def test_accuracy_counts_the_rows_of_a_mask() -> None:
    answer = torch.eye(3)[torch.tensor([[0, 0, 1, 0]])]
    assert accuracy(answer, DATA, "train_mask") == 1
    assert accuracy(answer, DATA) == 0.5
    with pytest.raises(ClampError, match="no vertex"):
        accuracy(answer, DATA, torch.zeros(4, dtype=torch.bool))


# -- batches of graphs ------------------------------------------------------------------------------------------------


def signals(count: int = 7) -> list[Data]:
    """Values on one graph: what sensors tell, sample by sample; the class belongs to the whole graph."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(count):
        edges = RING[:, torch.randperm(4, generator=generator)]  # the order of edges says nothing
        made.append(Data(x=torch.randn(4, 3, generator=generator), y=torch.tensor([i % 3]), edge_index=edges))
    return made


def test_fit_and_evaluate_take_what_the_loader_of_torch_geometric_yields() -> None:
    """A batch is read graph by graph: as if its samples had been stacked by hand."""
    graph = layered()
    graph.remove_node("y")
    graph.add_node("y", shape=3)
    graph.add_edge("h", "y")
    nets = [PCNetwork(graph, seed=0) for _ in range(2)]
    data = signals()
    x, y = torch.stack([d.x for d in data]), torch.cat([d.y for d in data])
    by_hand = [(x[i : i + 3], y[i : i + 3]) for i in (0, 3, 6)]
    for net, loader in zip(nets, (DataLoader(data, batch_size=3), by_hand)):
        pcgraph.fit(
            net, loader, init=Forward(), steps=3, state_optimizer=pcgraph.SGD(lr=0.1), epochs=2, progress=False,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1), validate=loader,
        )  # fmt: skip
    assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))
    assert pcgraph.evaluate(nets[0], DataLoader(data, batch_size=2)).samples == 7


def test_one_graph_is_a_batch_of_one() -> None:
    net = PCNetwork(layered(KnownRows()), seed=0)
    history = pcgraph.fit(
        net, [DATA], init=Forward(), steps=3, state_optimizer=pcgraph.SGD(lr=0.1), epochs=3, progress=False,
        optimizer=torch.optim.Adam(net.parameters(), lr=0.05),
    )  # fmt: skip
    assert history.epochs[-1].energy < history.epochs[0].energy


@pytest.mark.parametrize(
    "other",
    [
        Data(x=torch.ones(5, 3), y=torch.tensor([0]), edge_index=RING),
        Data(x=torch.ones(4, 3), y=torch.tensor([0]), edge_index=RING.flip(0)),
        Data(x=torch.ones(4, 3), y=torch.tensor([0]), edge_index=RING[:, :3]),
    ],
    ids=["vertices", "edges", "fewer"],
)
def test_graphs_that_differ_are_refused(other: Data) -> None:
    """A layer would pass messages along the edges of another graph, and nobody would see it."""
    batch = Batch.from_data_list([signals(1)[0], other])
    with pytest.raises(ClampError, match="the same vertices and edges"):
        clamps(batch)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: clamps({"x": 1}), "a graph of torch_geometric"),
        (lambda: clamps(DATA, mask="trian_mask"), "no mask 'trian_mask' \\(found train_mask\\)"),
        (lambda: clamps(DATA, mask=torch.ones(4)), "a mask is of bool"),
        (lambda: clamps(DATA, mask=torch.ones(3, dtype=torch.bool)), "a mask is of bool, shape \\(4,\\)"),
        (lambda: clamps(DATA, classes=2), "classes are 0 to 1 \\(found 2\\)"),
        (lambda: clamps(DATA, names=("x", "z")), "no tensor 'z'"),
        (lambda: clamps(Data(edge_index=RING, num_nodes=4), by="vertices"), "no tensor 'x'"),
        (lambda: clamps(Data(x=torch.ones(4, 2), y=torch.ones(3), edge_index=RING)), "a row for each of 4 vertices"),
        (lambda: accuracy(torch.ones(1, 3, 3), DATA), "an answer has shape"),
        (lambda: accuracy(torch.ones(1, 4, 3), "data"), "a graph of torch_geometric"),
        (lambda: clamps(HETERO, mask="train_mask"), "HeteroData"),
    ],
)
def test_what_cannot_be_read_is_said(call: Any, said: str) -> None:
    with pytest.raises(ClampError, match=said):
        call()


# -- several kinds ----------------------------------------------------------------------------------------------------

HETERO = HeteroData()
HETERO["author"].x, HETERO["paper"].x = double(3, 2, seed=1), double(4, 5, seed=2)
HETERO["author", "writes", "paper"].edge_index = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 3]])
HETERO["paper", "cites", "paper"].edge_index = torch.tensor([[0, 1, 2], [1, 2, 1]])
HETERO["paper", "by", "author"].edge_index = torch.tensor([[0, 1], [0, 2]])


def test_a_relation_is_the_mean_over_edges_one_by_one() -> None:
    relation = Relation(HETERO["author", "writes", "paper"].edge_index, 4, 2, 3).double()
    x = double(2, 3, 2, seed=3)
    expected = torch.zeros(2, 4, 3, dtype=torch.float64)
    for v, sources in {0: [0], 1: [0, 1], 3: [2]}.items():
        for u in sources:
            expected[:, v] += x[:, u] @ relation.weight.T / len(sources)
    torch.testing.assert_close(relation(x), expected, **EXACT)


@pytest.mark.parametrize("relations", ["buckets", "slots"])
def test_a_graph_of_several_kinds_infers_and_learns_as_the_reference(relations: str) -> None:
    graph = from_hetero(HETERO, "paper", classes=2, hidden=3, relations=relations, precision=0.5)
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    known = {**clamps(HETERO), "y": torch.eye(2, dtype=torch.float64)[torch.tensor([0, 1, 1, 0])][None]}
    result = net.infer(known, init=Forward(), steps=4, optimizer=pcgraph.SGD(lr=0.1))
    start = {v: h.clone() for v, h in net.infer(known, init=Forward(), steps=0).states.items()}
    expected = reference.infer(net, known, start, 4, lambda node, h, g, t: h - 0.1 * g)
    for node in net.graph:
        torch.testing.assert_close(result.states[node], expected.states[node], **EXACT)
    result.backward()
    edge = ("x", "author"), ("h", "paper"), "author writes paper"
    assert net.transform(*edge).weight.grad.any()


def test_slots_are_errors_of_their_own_and_buckets_one_sum() -> None:
    by_slot = PCNetwork(from_hetero(HETERO, "paper", 2, relations="slots"), seed=0, dtype=torch.float64)
    by_sum = PCNetwork(from_hetero(HETERO, "paper", 2), seed=0, dtype=torch.float64)
    assert len(by_slot.structure.slots) == 3
    assert not by_sum.structure.slots
    h = by_sum.predict(clamps(HETERO), ("h", "paper"))
    own = by_slot.predict(clamps(HETERO), ("h", "paper"))
    parts = [
        by_sum.transform(("x", s), ("h", "paper"), f"{s} {r} paper")(HETERO[s].x[None])
        for s, r in (("author", "writes"), ("paper", "cites"))
    ]
    assert not torch.allclose(h, own)
    torch.testing.assert_close(h.atanh(), own.atanh() + sum(parts), rtol=1e-8, atol=1e-10)


def test_a_graph_of_several_kinds_that_lacks_something_is_refused() -> None:
    bare = HeteroData()
    bare["author"].num_nodes = 3
    with pytest.raises(GraphError, match="the vertices 'author' need features x"):
        from_hetero(bare, "author", 2)
    for arguments in ((DATA, "paper", 2), (HETERO, "papers", 2)):
        with pytest.raises(GraphError):
            from_hetero(*arguments)
    with pytest.raises(GraphError):
        from_hetero(HETERO, "paper", 2, relations="sum")
    with pytest.raises(GraphError, match="targets from 0 to 1"):
        Relation(torch.tensor([[0], [2]]), 2, 3, 3)
    with pytest.raises(GraphError, match="needs a state of shape"):
        Relation(torch.tensor([[2], [0]]), 2, 3, 3).output_shape((2, 3))
