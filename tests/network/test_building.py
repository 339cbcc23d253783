"""From a graph to a network: the copy, the order, the look-ups, and how the work grows."""

from __future__ import annotations

import sys

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pcgraph
from pcgraph import GraphError, PCNetwork
from pcgraph.energies import Laplace, LearnedPrecision
from pcgraph.network.adjacency import Adjacency, components
from pcgraph.network.copying import copy_graph, pairs_of
from pcgraph.testing.strategies import digraphs


def random_graph(nodes, edges, seed=0, kind=nx.DiGraph):
    """Scalar neurons; nodes are added in an order that the edges do not keep."""
    rng = np.random.default_rng(seed)
    graph = kind()
    graph.add_nodes_from(rng.permutation(nodes).tolist(), shape=1, activation="tanh")
    while graph.number_of_edges() < edges:
        ends = rng.integers(0, nodes, (2, edges - graph.number_of_edges()))
        graph.add_edges_from(zip(*ends.tolist()))
    return graph


# -- the copy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiDiGraph])
@pytest.mark.parametrize("seed", range(5))
def test_a_copy_is_what_networkx_would_make(kind, seed):
    """Neighbours come in another order, or an edge's two dictionaries are two: reports and drawings would differ."""
    graph = random_graph(12, 40, seed, kind)
    graph.name = "named"
    for i, edge in enumerate(list(graph.edges)[::3]):
        graph.edges[edge].update(trainable=False, note=i)
    twin, expected = copy_graph(graph, {}), kind()
    expected.graph.update(graph.graph)
    expected.add_nodes_from(graph.nodes(data=True))
    keys = {"keys": True} if graph.is_multigraph() else {}
    expected.add_edges_from(graph.edges(data=True, **keys))
    assert type(twin) is kind
    assert twin.graph == expected.graph
    assert list(twin.nodes(data=True)) == list(expected.nodes(data=True))
    assert list(twin.edges(data=True, **keys)) == list(expected.edges(data=True, **keys))
    for node in graph:
        assert list(twin.pred[node]) == list(expected.pred[node])
        for parent in twin.pred[node]:
            assert twin._pred[node][parent] is twin._succ[parent][node]
            assert twin._succ[parent][node] is not graph._succ[parent][node]


def test_a_copy_of_a_view_and_of_a_grown_copy():
    """A subgraph view declares a network as a graph does, and a copy can be grown like any graph."""
    graph = random_graph(12, 40)
    view = nx.subgraph_view(graph, filter_node=lambda n: n % 3, filter_edge=lambda u, v: (u + v) % 4)
    twin = copy_graph(view, {})
    assert set(twin.edges) == set(view.edges)
    twin.add_edge("new", 1)
    twin.remove_node(2)
    assert nx.utils.graphs_equal(twin, nx.DiGraph(twin))


def test_one_module_on_two_edges_is_copied_once():
    """A module that two edges hold is one set of parameters, in the copy as in the graph."""
    layer = torch.nn.Linear(1, 1)
    graph = random_graph(5, 4)
    for edge in list(graph.edges)[:2]:
        graph.edges[edge]["transform"] = layer
    twin = copy_graph(graph, {})
    (a, b) = (twin.edges[edge]["transform"] for edge in list(graph.edges)[:2])
    assert a is b
    assert a is not layer


# -- numbers ----------------------------------------------------------------------------------------------------------


@given(
    ends=st.lists(st.integers(0, 6), max_size=30),
    nodes=st.lists(st.integers(0, 6), unique=True),
    count=st.sampled_from([7, 100]),
)
def test_edges_at_nodes_are_those_that_a_search_finds(ends, nodes, count):
    """Few of many nodes are looked up, and many of few are searched for; both say the same."""
    by_end = Adjacency(np.array(ends, dtype=np.int64), count)
    for node in range(7):
        assert by_end.at(node).tolist() == [i for i, end in enumerate(ends) if end == node]
    assert by_end.degree.tolist() == [ends.count(node) for node in range(count)]
    found = by_end.edges(np.array(nodes, dtype=np.int64))
    assert found.tolist() == [i for i, end in enumerate(ends) if end in nodes]


@given(graph=digraphs())
def test_components_are_those_of_networkx_in_a_topological_order(graph):
    """Nodes swept together lie side by side only if depths are counted along this order."""
    source, target = pairs_of(graph)
    by_source = Adjacency(source, len(graph))
    found = components(by_source.start.tolist(), target[by_source.order].tolist())
    names = list(graph)
    assert {frozenset(names[v] for v in part) for part in found} == set(
        map(frozenset, nx.strongly_connected_components(graph))
    )
    place = {v: i for i, part in enumerate(found) for v in part}
    assert all(place[u] <= place[v] for u, v in zip(source.tolist(), target.tolist()))


@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiDiGraph])
@pytest.mark.parametrize("seed", range(4))
def test_every_edge_is_found_by_its_name(kind, seed):
    graph = random_graph(8, 30, seed, kind)
    structure = PCNetwork(graph).structure
    edges = [structure.edge(i) for i in range(graph.number_of_edges())]
    assert set(edges) == set(graph.edges)
    for i, edge in enumerate(edges):
        assert structure.edge_number(*edge) == i
        assert (structure.nodes[structure.source[i]], structure.nodes[structure.target[i]]) == edge[:2]


def test_looking_up_an_edge_of_a_hub_does_not_look_at_all_of_its_edges():
    """100,000 weights read by name must not cost 100,000 searches through 100,000 edges."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(1000), shape=1)
    graph.add_edges_from((0, i) for i in range(1, 1000))
    structure = PCNetwork(graph).structure
    assert structure.edge_number(0, 7) >= 0
    looked = []

    class Watched(np.ndarray):
        def __getitem__(self, index):
            looked.append(np.size(index))
            return np.asarray(self)[index]

    structure.source, structure.target = structure.source.view(Watched), structure.target.view(Watched)
    structure.edge_number(0, 7)
    assert max(looked) == 1


@pytest.mark.parametrize("seed", range(4))
def test_every_node_knows_its_segment(seed):
    graph = random_graph(20, 40, seed)
    for i, node in enumerate(graph):
        graph.nodes[node].update(shape=1 + i % 3, activation=("tanh", "relu")[i % 2], bias=bool(i % 5))
    structure = PCNetwork(graph).structure
    for i in range(len(structure.nodes)):
        group, position = structure.place(i)
        segment = structure.segments[structure.segment_of[i]]
        assert segment.group == group
        assert segment.start <= position < segment.stop


# -- what is said once, and what is not -------------------------------------------------------------------------------


def test_energies_made_from_a_name_belong_to_one_node_each():
    """Nodes that learn a precision learn one each, unless they were given the same object."""
    graph = pcgraph.graphs.chain([3, 3, 3, 3])
    nx.set_node_attributes(graph, "learned_precision", "energy")
    assert len(PCNetwork(graph).energies) == 3
    nx.set_node_attributes(graph, LearnedPrecision(), "energy")
    assert sum(isinstance(e, LearnedPrecision) for e in set(PCNetwork(graph).energies.values())) == 1


def test_transforms_made_from_a_name_belong_to_one_edge_each():
    """Edges that are declared in one call with the same arguments still have weights of their own."""
    graph = nx.DiGraph()
    graph.add_nodes_from("abc", shape=(2, 3, 3))
    graph.add_edges_from(
        [("a", "b"), ("b", "c")],
        transform=("conv2d", {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 1}),
    )
    net = PCNetwork(graph)
    assert net.transform("a", "b") is not net.transform("b", "c")
    assert not torch.equal(net.transform("a", "b").weight, net.transform("b", "c").weight)


def test_equal_attributes_of_other_types_are_read_each():
    """True == 1, and one of them is no shape."""
    graph = nx.DiGraph()
    graph.add_node("a", shape=1)
    graph.add_node("b", shape=True)
    with pytest.raises(GraphError, match="the shape of node 'b' must be"):
        PCNetwork(graph)
    graph.nodes["b"]["shape"] = 1
    graph.nodes["a"]["bias"], graph.nodes["b"]["bias"] = True, 1
    with pytest.raises(GraphError, match="node 'b' needs a bias that is True"):
        PCNetwork(graph)


def test_the_caller_may_go_on_with_the_graph():
    """What is written into the graph afterwards, attributes of edges included, does not reach the network."""
    graph = random_graph(6, 12)
    net = PCNetwork(graph)
    edge = next(iter(graph.edges))
    graph.edges[edge]["transform"] = "nonsense"
    graph.nodes[edge[0]]["shape"] = "nonsense"
    assert net.graph.edges[edge] == {}
    assert net.graph.nodes[edge[0]]["shape"] == 1


# -- how the work grows -----------------------------------------------------------------------------------------------


def events(work):
    """How many calls, of Python functions and of built-in ones, `work` makes."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("attributes", [{}, {"trainable": False, "share": "one", "note": 7}], ids=["plain", "said"])
def test_calls_grow_with_nodes_and_hardly_with_edges(attributes):
    """Building a million scalar edges takes seconds because Python does next to nothing for each."""

    def cost(nodes, edges):
        graph = random_graph(nodes, edges)
        for edge in graph.edges:
            graph.edges[edge].update(attributes)
        return events(lambda: PCNetwork(graph, dtype=torch.float32))

    small = cost(500, 4000)
    by_edge = (cost(500, 12000) - small) / 8000
    by_node = (cost(1500, 4000) - small) / 1000
    assert by_edge <= (16 if attributes else 3)
    assert by_node <= 40


@pytest.mark.parametrize("declared", [{}, {"precision": 2.0}, {"energy": "gaussian"}], ids=str)
def test_nodes_with_the_default_energy_need_no_module_each(declared, monkeypatch):
    """A module costs 50 microseconds, so that 100,000 of them took most of the time."""
    made = []
    init = torch.nn.Module.__init__
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda self, *a, **k: made.append(self) or init(self, *a, **k))

    def modules(nodes):
        graph = random_graph(nodes, 2 * nodes)
        nx.set_node_attributes(graph, {v: dict(declared) for v in graph})
        nx.set_edge_attributes(graph, {e: {"weight": i} for i, e in enumerate(graph.edges)})
        made.clear()
        PCNetwork(graph)
        return len(made)

    assert modules(300) == modules(100)


def test_the_entries_of_a_sparse_edge_are_sorted_and_distinct():
    """The weights of a seed lie at their entries in this order."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, 50, (400, 2)), axis=0)
    rng.shuffle(pairs)
    entries = pcgraph.transforms.SparseLinear(edge_index=torch.from_numpy(pairs.T.copy())).entries((50,), (50,))
    assert list(zip(*reversed(entries.tolist()))) == sorted((int(t), int(s)) for s, t in pairs)
    far = torch.from_numpy(pairs.T.copy()) * 2**40  # too far apart to be sorted as one number
    with pytest.raises(GraphError, match=r"names the source neuron \d{14}"):
        pcgraph.transforms.SparseLinear(edge_index=far).fits((50,), (50,))
    assert torch.equal(pcgraph.transforms.SparseLinear(edge_index=far).entries((50,), (50,)), entries * 2**40)
    drawn = pcgraph.transforms.SparseLinear(density=0.3, seed=1).entries((50,), (50,)).tolist()
    assert list(zip(*reversed(drawn))) == sorted(set(zip(*reversed(drawn))))
    assert len(drawn[0]) == 750


def test_a_named_energy_is_still_looked_at():
    graph = pcgraph.graphs.chain([2, 2])
    graph.nodes["y"].update(energy="laplace", precision=2.0)
    with pytest.raises(GraphError, match="precision belongs to the Gaussian"):
        PCNetwork(graph)
    graph.nodes["y"].update(energy=Laplace(2.0), precision=None)
    assert isinstance(PCNetwork(graph).node_energy(1), Laplace)
