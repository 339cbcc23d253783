"""Graphs of different sizes in one batch. Oracles: each graph alone, torch_geometric's sparse layers, the reference."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg_nn
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

import pcgraph
from pcgraph import SGD, Adam, ClampError, Errors, Forward, GraphError, Masked, Normal, PCNetwork, Zero
from pcgraph.initializers import Initializer
from pcgraph.pyg import KnownRows, padded
from tests.builders import EXACT, assert_equal_to_reference, double

F, D, C = 3, 4, 2
LAYERS = {
    "GCN": lambda i, o: pyg_nn.DenseGCNConv(i, o),
    "SAGE": lambda i, o: pyg_nn.DenseSAGEConv(i, o),
    "GIN": lambda i, o: pyg_nn.DenseGINConv(nn.Sequential(nn.Linear(i, o), nn.Tanh(), nn.Linear(o, o)), train_eps=True),
    "Graph": lambda i, o: pyg_nn.DenseGraphConv(i, o),
    "GAT": lambda i, o: pyg_nn.DenseGATConv(i, o, heads=2, concat=False),
}


def graphs(*sizes: int) -> list[Data]:
    """Directed graphs with weights on their edges, one of them without any edge, and a class each."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for i, n in enumerate(sizes):
        pairs = (torch.rand(n, n, generator=generator) < 0.4 * (i != 1)).nonzero().t()
        off = pairs[:, pairs[0] != pairs[1]]
        made.append(
            Data(
                x=torch.randn(n, F, generator=generator, dtype=torch.float64), y=torch.tensor([i % C]), edge_index=off,
                edge_weight=0.5 + torch.rand(off.shape[1], generator=generator, dtype=torch.float64),
            )
        )  # fmt: skip
    return made


SIZES = (3, 2, 5, 1)


def declared(layers: tuple[nn.Module, nn.Module], most: int, activation: str = "tanh", **more: Any) -> PCNetwork:
    """x -> h1 -> h2 -> readout -> y, all layers with adj and mask."""
    graph = nx.DiGraph()
    for name, shape in {"x": (most, F), "adj": (most, most), "mask": most}.items():
        graph.add_node(name, shape=shape)
    for name, layer in zip(("h1", "h2"), layers):
        graph.add_node(name, shape=(most, D), activation=activation, bias=False, combine=layer)
    graph.add_node("r", shape=D, bias=False, combine=("readout", {"reduce": more.pop("reduce", "mean")}))
    graph.add_node("y", shape=C, **more)
    graph.add_edges_from((u, v, {"role": "x"}) for u, v in (("x", "h1"), ("h1", "h2"), ("h2", "r")))
    graph.add_edges_from((name, v, {"role": name}) for v in ("h1", "h2") for name in ("adj", "mask"))
    graph.add_edge("mask", "r", role="mask")
    graph.add_edge("r", "y")
    return PCNetwork(graph, seed=0, dtype=torch.float64)


def both(kind: str, most: int, **more: Any) -> PCNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return declared((LAYERS[kind](F, D).double(), LAYERS[kind](D, D).double()), most, **more)


class ByPlace(Initializer):
    """States that depend on sample, row and column alone, and not on how many rows there are."""

    requirement = Zero.requirement

    def __init__(self, sample: int = 0) -> None:
        super().__init__()
        self.sample = sample

    def init(self, block: Any, out: Tensor, context: Any) -> None:
        total = torch.zeros(())  # out: (nodes, batch, *shape)
        for k, n in enumerate(out.shape[1:]):
            places = torch.arange(n) + (self.sample if k == 0 else 0)
            total = total.unsqueeze(-1) + (0.9, 0.5, 0.3)[k] * places
        out.copy_(0.5 * total.sin())


RUNS: dict[str, dict[str, Any]] = {
    "a sweep": {"init": Forward(), "optimizer": SGD(0.1)},
    "a sweep, Adam": {"init": Forward(), "optimizer": Adam(0.02, eps=1e-3)},
    "zeros": {"init": Zero(), "optimizer": SGD(0.1, momentum=0.5)},
    "errors": {"init": Forward(), "optimizer": SGD(0.1), "coordinates": Errors()},
    "a tolerance": {"init": Forward(), "optimizer": SGD(0.1), "tolerance": 0.02},
    "a solver": {"init": Forward(), "optimizer": pcgraph.LBFGS(history=3)},
}


def assert_each_as_alone(kind: str, run: dict[str, Any], *, still: tuple[str, ...] = (), **more: Any) -> None:
    """States, errors and energies of each graph, and the mean of the gradients, are those that the graph has alone."""
    data = graphs(*SIZES)
    net = both(kind, 6, **more)
    known = padded(Batch.from_data_list(data), net, still=still)
    result = net.infer(known, steps=6, **run)
    result.backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters()}
    expected = {name: torch.zeros_like(g) for name, g in found.items()}
    for i, one in enumerate(data):
        n = one.num_nodes
        alone = both(kind, n, **more)
        own = {**run, "init": ByPlace(i)} if isinstance(run["init"], ByPlace) else run
        single = alone.infer(padded(one, alone), steps=6, **own)
        single.backward()
        for v in ("h1", "h2", "r", "y"):
            for name in ("states", "errors", "predictions"):
                value, wanted = getattr(result, name)[v][i], getattr(single, name)[v][0]
                torch.testing.assert_close(value[:n] if v[0] == "h" else value, wanted, **EXACT)
                if name == "errors" and v[0] == "h":
                    assert not value[n:].any(), v
            torch.testing.assert_close(result.node_energy[v][i], single.node_energy[v][0], **EXACT)
        torch.testing.assert_close(result.energy[i], single.energy[0], **EXACT)
        for name, p in zip(expected, alone.parameters(), strict=True):
            if p.grad is not None:
                expected[name] += p.grad / len(data)
    assert any(g.abs().max() > 1e-4 for g in expected.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], **EXACT, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_graph_in_a_batch_is_as_it_is_alone(kind: str, run: str) -> None:
    """Else what a graph learns, and what it costs, would depend on the largest of its batch."""
    assert_each_as_alone(kind, RUNS[run])


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_each_readout_sees_the_vertices_that_are_there(reduce: str) -> None:
    assert_each_as_alone("GCN", RUNS["a sweep"], reduce=reduce)


def test_an_activation_that_is_not_zero_at_zero_changes_nothing() -> None:
    """A padded row has a state then, with no error and no influence."""
    assert_each_as_alone("SAGE", RUNS["a sweep"], activation="sigmoid")


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_rows_that_are_held_have_no_energy_wherever_states_start(activation: str) -> None:
    run = {"init": ByPlace(), "optimizer": SGD(0.1)}
    assert_each_as_alone("SAGE", run, still=("h1", "h2"), activation=activation)
    with pytest.raises(AssertionError):
        assert_each_as_alone("SAGE", run, activation=activation)


@pytest.mark.parametrize("still", [(), ("h1", "h2")])
@pytest.mark.parametrize("kind", ["GCN", "GAT"])
def test_it_is_what_the_reference_does(kind: str, still: tuple[str, ...]) -> None:
    net = both(kind, 6)
    known = padded(Batch.from_data_list(graphs(*SIZES)), net, still=still)
    assert_equal_to_reference(net, known, Normal(std=0.4) if still else Forward(), 4, SGD(0.05))


SPARSE = {
    "GCN": (pyg_nn.GCNConv, {"lin.weight": "lin.weight", "bias": "bias"}),
    "SAGE": (
        pyg_nn.SAGEConv,
        {"lin_l.weight": "lin_rel.weight", "lin_r.weight": "lin_root.weight", "lin_l.bias": "lin_root.bias"},
    ),
    "Graph": (pyg_nn.GraphConv, {name: name for name in ("lin_rel.weight", "lin_rel.bias", "lin_root.weight")}),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPARSE)
def test_the_adjacency_leads_from_sources_to_targets(kind: str) -> None:
    """The sparse layer with the same weights gives each graph the same rows; messages against the edges would not."""
    net = both(kind, 6)
    dense = net.combine("h1")
    make, names = SPARSE[kind]
    sparse = make(F, D, aggr="mean").double() if kind == "SAGE" else make(F, D).double()
    own = dict(dense.named_parameters())
    sparse.load_state_dict({name: own[other].detach() for name, other in names.items()})
    data = graphs(*SIZES)
    if kind != "Graph":  # SAGEConv takes no weights, and GCNConv normalises a weighted loop otherwise
        for one in data:
            del one.edge_weight
    found = net.predict(padded(Batch.from_data_list(data), net, names=("x", "adj", "mask")), "h1")
    for i, one in enumerate(data):
        weight = {} if kind != "Graph" else {"edge_weight": one.edge_weight}
        expected = sparse(one.x, one.edge_index, **weight).tanh()
        torch.testing.assert_close(found[i, : one.num_nodes], expected.detach(), **EXACT)
        assert not found[i, one.num_nodes :].any()


def test_parallel_edges_add_up_and_graphs_need_no_edges() -> None:
    net = both("SAGE", 3)
    twice = Data(x=torch.ones(2, F), y=torch.tensor([0]), edge_index=torch.tensor([[0, 0], [1, 1]]))
    assert padded(twice, net)["adj"].tolist() == [[[0, 0, 0], [2, 0, 0], [0, 0, 0]]]
    none = Data(x=torch.ones(2, F), edge_index=torch.empty(2, 0, dtype=torch.long))
    assert list(padded(none, net)) == ["adj", "mask", "x"]
    assert not padded(none, net)["adj"].any()


# -- training ---------------------------------------------------------------------------------------------------------

NAMES = ("x", "adj", "mask", "y")


def test_fit_and_evaluate_take_the_loader_of_torch_geometric() -> None:
    """A batch is padded where "adj" is among the names: as if it had been read by hand."""
    data = graphs(3, 2, 5, 4, 3)
    nets = [both("GIN", 5) for _ in range(2)]
    loader = DataLoader(data, batch_size=2)
    by_hand = [padded(batch, nets[0]) for batch in loader]
    histories = [
        pcgraph.fit(
            net, batches, clamp=NAMES, init=Forward(), steps=3, state_optimizer=SGD(0.1), epochs=2, progress=False,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1), validate=batches,
        )
        for net, batches in zip(nets, (loader, by_hand))
    ]  # fmt: skip
    assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))
    assert histories[0].values("accuracy") == histories[1].values("accuracy")
    result = pcgraph.evaluate(nets[0], loader, given=NAMES[:3], predict="y")
    assert result.samples == 5
    answers = torch.cat([nets[0].predict(padded(one, nets[0], names=NAMES[:3]), "y").argmax(1) for one in data])
    assert result.accuracy == pytest.approx(float((answers == torch.cat([one.y for one in data])).double().mean()))


def test_vertices_of_a_mask_teach_and_padded_ones_do_not() -> None:
    """Of y for each vertex, rows that are not known or not there are zero, and KnownRows leaves them out."""
    edge, places = torch.tensor([[0], [1]]), [torch.arange(n) for n in (3, 2)]
    data = [Data(x=double(len(i), F), y=i % C, edge_index=edge, known=i != 1) for i in places]
    graph = nx.DiGraph(both("SAGE", 4).graph)
    graph.remove_node("r")
    graph.add_node("y", shape=(4, C), bias=False, energy=KnownRows())
    graph.add_edge("h2", "y", transform=pcgraph.transforms.RowLinear(D, C))
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    batch = Batch.from_data_list(data)
    known = padded(batch, net, mask="known")
    expected = torch.zeros(2, 4, C, dtype=torch.float64)
    for graph_, vertex, column in ((0, 0, 0), (0, 2, 0), (1, 0, 0)):
        expected[graph_, vertex, column] = 1
    assert torch.equal(known["y"], expected)
    net.infer(known, init=Forward(), steps=0).backward()
    h = net.predict({name: known[name] for name in NAMES[:3]}, "h2")
    edge = net.transform("h2", "y")
    error = 0.5 * (edge(h) - expected)[expected.any(2)].square().sum() / 2
    (gradient,) = torch.autograd.grad(error, [edge.weight])
    torch.testing.assert_close(edge.weight.grad, gradient, **EXACT)


# -- readout ----------------------------------------------------------------------------------------------------------


def test_a_readout_is_the_pooling_of_torch_geometric() -> None:
    x, index = double(7, D), torch.tensor([0, 0, 0, 1, 2, 2, 2])
    rows, mask = torch.full((3, 5, D), 9.0, dtype=torch.float64), torch.zeros(3, 5, dtype=torch.float64)
    for i in range(3):
        rows[i, : int((index == i).sum())] = x[index == i]
        mask[i, : int((index == i).sum())] = 1
    pools = {"mean": pyg_nn.global_mean_pool, "sum": pyg_nn.global_add_pool, "max": pyg_nn.global_max_pool}
    for reduce, pool in pools.items():
        found = pcgraph.combines.Readout(reduce)(x=rows, mask=mask)
        torch.testing.assert_close(found, pool(x, index), **EXACT)
        assert not pcgraph.combines.Readout(reduce)(x=rows, mask=0 * mask).any()


def test_a_readout_that_does_not_fit_is_refused() -> None:
    with pytest.raises(GraphError, match="reduce must be 'mean', 'sum' or 'max'"):
        pcgraph.combines.Readout("average")
    with pytest.raises(GraphError, match="Readout needs x of shape"):
        pcgraph.combines.Readout()(x=torch.ones(1, 3, 2), mask=torch.ones(1, 2))


# -- refused ----------------------------------------------------------------------------------------------------------

ONE = graphs(3)[0]
HETERO = HeteroData()
HETERO["a"].x = torch.ones(2, F)


def without(**changed: Any) -> Data:
    """The first graph with other entries; None takes one away."""
    made = ONE.clone()
    for name, value in changed.items():
        if value is None:
            del made[name]
        else:
            made[name] = value
    return made


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: padded(graphs(7)[0], both("GCN", 6)), "graphs of 1 to 6 vertices \\(found one of 7\\)"),
        (lambda: padded({"x": 1}, both("GCN", 6)), "a Data or a Batch"),
        (lambda: padded(HETERO, both("GCN", 6)), "a Data or a Batch"),
        (lambda: padded(ONE, PCNetwork(pcgraph.graphs.chain([3, 2]))), "there is no node 'adj'"),
        (lambda: padded(ONE, both("GCN", 6), names=("z",)), "there is no node 'z'"),
        (lambda: padded(ONE, both("GCN", 6), names=("h1",)), "no tensor 'h1'"),
        (lambda: padded(ONE, both("GCN", 6), names="x"), "several nodes"),
        (lambda: padded(without(x=torch.ones(2, F)), both("GCN", 6)), "vertices from 0 to 1 \\(found 2\\)"),
        (lambda: padded(without(x=torch.ones(4, F), num_nodes=3), both("GCN", 6)), "'x' needs a row for each of 3"),
        (lambda: padded(without(y=torch.zeros(2)), both("GCN", 6)), "'y' needs a row for each of 1 graphs"),
        (lambda: padded(without(y=torch.tensor([C])), both("GCN", 6)), "classes are 0 to 1 \\(found 2\\)"),
        (lambda: padded(without(edge_weight=torch.ones(1)), both("GCN", 6)), "edge_weight has one number for each"),
        (lambda: padded(without(edge_index=None, edge_weight=None), both("GCN", 6)), "no tensor 'edge_index'"),
        (lambda: padded(ONE, both("GCN", 6), mask=torch.ones(3) > 0), "no row for each vertex"),
        (lambda: padded(ONE, both("GCN", 6), still=("r",)), "still= names nodes of shape \\(6, ...\\)"),
        (lambda: padded(ONE, both("GCN", 6), still="h1"), "several nodes"),
    ],
)
def test_what_cannot_be_padded_is_said(call: Any, said: str) -> None:
    with pytest.raises(ClampError, match=said):
        call()


def test_an_adjacency_of_another_shape_is_refused() -> None:
    graph = nx.DiGraph()
    graph.add_node("adj", shape=(3, 4))
    graph.add_node("mask", shape=3)
    with pytest.raises(ClampError, match="'adj' of shape \\(N, N\\) and 'mask' of shape \\(N,\\)"):
        padded(ONE, PCNetwork(graph))


def test_what_is_held_is_what_is_predicted_of_nothing() -> None:
    net = both("SAGE", 6, activation="sigmoid")
    held = padded(ONE, net, still=("h1",))["h1"]
    assert isinstance(held, Masked)
    assert held.mask[0, :, 0].tolist() == [False] * 3 + [True] * 3
    assert (held.values == 0.5).all()
