"""muPC's factors. Oracles: the paper's table, brute force over paths, the variance of signals, and backpropagation."""

from __future__ import annotations

import itertools
import math

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, graphs
from pcgraph import transforms as T
from pcgraph.errors import ConfigError, GraphError
from pcgraph.scaling import mupc
from pcgraph.testing.strategies import dags
from tests.builders import clamps_of, double


def factors(graph: nx.DiGraph) -> dict[tuple, float]:
    rows = graph.edges(keys=True, data="scale") if graph.is_multigraph() else graph.edges(data="scale")
    return {tuple(row[:-1]): row[-1] for row in rows}


@pytest.mark.parametrize(("width", "blocks"), [(16, 1), (64, 8), (512, 64)])
def test_one_map_a_block_has_the_factors_of_the_paper(width, blocks):
    """Innocenti et al., Table 1: 1/sqrt(N0), then 1/sqrt(N L) beside a skip of 1, and 1/N at the end."""
    graph = mupc(graphs.residual(784, width, 10, blocks=blocks, inner=0, activation="relu"))
    for u, v, data in graph.edges(data=True):
        expected = {"x": 784**-0.5, f"r{blocks}": 1 / width}.get(u, (width * blocks) ** -0.5)
        if data.get("transform") == "identity":
            expected = 1.0
        assert data["scale"] == pytest.approx(expected, rel=1e-12), (u, v)
        assert data.get("init") == (None if data.get("transform") == "identity" else "normal")
    assert all(graph.nodes[v]["bias"] is False for v in graph if v != "x")
    net = PCNetwork(graph)
    assert not list(net.biases)


def test_two_maps_a_block_divide_where_they_join_the_stream():
    """The depth's share stands behind the activation: before it, relu apart, it would make every block linear."""
    found = factors(mupc(graphs.residual(784, 64, 10, blocks=9, inner=32)))
    assert found["r3", "m4"] == pytest.approx(64**-0.5)
    assert found["m4", "r4"] == pytest.approx((32 * 9) ** -0.5)
    assert found["r3", "r4"] == 1.0


def test_a_chain_has_no_stream_to_divide():
    found = factors(mupc(graphs.chain([100, 64, 32, 10])))
    assert list(found.values()) == pytest.approx([0.1, 1 / 8, 1 / 32])
    assert list(factors(mupc(graphs.chain([100, 10]))).values()) == pytest.approx([0.1])
    assert list(factors(mupc(graphs.chain([100, 64, 10]), gain=2**0.5)).values()) == pytest.approx(
        [0.1 * 2**0.5, 2**0.5 / 64]
    )


def test_terms_that_merge_share():
    """FabricPC's rule for K terms: 1/sqrt(n K)."""
    found = factors(mupc(graphs.skip([100, 64, 32, 16, 10], span=2)))
    assert found["x", "h2"] == pytest.approx((100 * 2) ** -0.5)
    assert found["h1", "h2"] == pytest.approx((64 * 2) ** -0.5)
    assert found["h3", "y"] == pytest.approx(1 / (16 * 2**0.5))


def test_the_deepest_of_several_skips_is_the_stream_and_the_others_are_terms():
    graph = nx.DiGraph()
    graph.add_nodes_from(["x", "a", "b", "c", "y"], shape=4)
    graph.add_edges_from([("x", "a"), ("a", "b"), ("b", "c"), ("c", "y")])
    graph.add_node("d", shape=4)
    for u, v in (("a", "c"), ("b", "d"), ("a", "d")):
        graph.add_edge(u, v, transform="identity")
    graph.add_edge("c", "d")
    graph.add_edge("d", "y")
    found = factors(mupc(graph))
    assert found["a", "c"] == 1.0
    assert found["b", "d"] == 1.0
    assert found["a", "d"] == pytest.approx((2 * 2) ** -0.5)  # K = 2 terms beside the stream, L = 2 streams on a path
    assert found["c", "d"] == pytest.approx((4 * 2 * 2) ** -0.5)


def test_edges_without_weights_are_terms_and_no_stream_unless_they_jump():
    graph = nx.DiGraph()
    graph.add_nodes_from("xabcy", shape=4)
    graph.add_edges_from([("x", "a"), ("x", "b"), ("c", "y")])
    graph.add_edge("a", "c", transform="identity")
    graph.add_edge("b", "c", transform="identity")
    found = factors(mupc(graph))
    assert found["a", "c"] == found["b", "c"] == pytest.approx(2**-0.5)
    graph.add_edge("x", "c", transform="identity", activation="tanh")
    found = factors(mupc(graph))
    assert found["x", "c"] == pytest.approx(3**-0.5)
    del graph.edges["x", "c"]["activation"]
    found = factors(mupc(graph))
    assert found["x", "c"] == 1.0
    assert found["a", "c"] == pytest.approx(2**-0.5)


def test_modules_without_weights_and_stored_entries_have_their_share():
    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, 4, 4))
    graph.add_node("p", shape=(1, 2, 2))
    graph.add_node("h", shape=8, activation="tanh")
    graph.add_node("y", shape=3)
    graph.add_edge("x", "p", transform=T.MaxPool2d(2))
    graph.add_edge("p", "h")
    graph.add_edge("h", "y", transform=T.SparseLinear(density=0.5))
    scaled = mupc(graph)
    assert factors(scaled) == pytest.approx({("x", "p"): 1.0, ("p", "h"): 0.5, ("h", "y"): 0.25})
    net = PCNetwork(scaled)
    assert net.infer(clamps_of(net), init=Forward(), steps=2, optimizer=SGD(0.1)).energy.isfinite().all()


def slow_factor(graph: nx.MultiDiGraph, edge: tuple) -> float:
    """By brute force: all paths, without a thought for their number."""

    def plain(e):
        return graph.edges[e].get("transform") == "identity" and "activation" not in graph.edges[e]

    def stream(v):
        found = []
        for e in graph.in_edges(v, keys=True):
            rest = graph.copy()
            rest.remove_edge(*e)
            if plain(e) and nx.has_path(rest, e[0], v):
                found.append(e)
        longest = {e: len(nx.dag_longest_path(graph.subgraph(nx.ancestors(graph, e[0]) | {e[0]}))) for e in found}
        return max(found, key=longest.get) if found else None

    streams = {v: stream(v) for v in graph}
    joins = {v for v in graph if streams[v]}
    simple = nx.DiGraph(graph)
    ends = itertools.product(graph, graph)
    paths = (path for a, b in ends for path in ([[a]] if a == b else nx.all_simple_paths(simple, a, b)))
    blocks = max(1, *(len(joins & set(path)) for path in paths))
    u, v, _ = edge
    if streams[v] == edge:
        return 1.0
    terms = graph.in_degree(v) - (v in joins)
    share = terms * (blocks if v in joins else 1)
    if graph.edges[edge].get("transform") == "identity":
        return share**-0.5
    n = graph.nodes[u]["shape"]
    return (n * share) ** -0.5 / (n**0.5 if graph.in_degree(u) and not graph.out_degree(v) else 1)


@settings(max_examples=150, deadline=None)
@given(
    dags(max_nodes=7, max_size=3, activations=("identity",), parallel=True),
    st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_every_factor_is_that_of_brute_force(graph, drawn):
    """Any acyclic graph, with identity edges wherever they fit."""
    for identity, (u, v, data) in zip(itertools.cycle(drawn), graph.edges(data=True)):
        if identity and graph.nodes[u]["shape"] == graph.nodes[v]["shape"]:
            data["transform"] = "identity"
    before = list(graph.edges(keys=True, data=True)), dict(graph.nodes(data=True))
    scaled = mupc(graph)
    assert (list(graph.edges(keys=True, data=True)), dict(graph.nodes(data=True))) == before
    for edge, factor in factors(scaled).items():
        assert factor == pytest.approx(slow_factor(graph, edge), rel=1e-12), edge
    PCNetwork(scaled)


@pytest.mark.parametrize("inner", [0, None])
@pytest.mark.parametrize("blocks", [2, 16, 128])
def test_signals_neither_vanish_nor_explode(inner, blocks):
    """The stream's mean square stays between 1 and e at any depth; with the default weights it does not."""
    x = {"x": double(64, 200)}
    net = PCNetwork(
        mupc(graphs.residual(200, 100, 10, blocks=blocks, inner=inner, activation="tanh")), dtype=torch.float64
    )
    states = net.infer(x, init=Forward(), steps=0).states
    first, last = (float(states[v].square().mean()) for v in ("r0", f"r{blocks}"))
    assert first == pytest.approx(1.0, rel=0.2)
    assert 1.0 < last / first < 1.2 * math.e


def test_predictive_coding_tends_to_backpropagation_as_the_width_grows():
    """Innocenti et al. 2026: at equilibrium, with depth fixed, the gradient goes to backpropagation's."""
    cosines = []
    for width in (8, 64, 512):
        net = PCNetwork(mupc(graphs.residual(20, width, 4, blocks=3, inner=0, activation="tanh")), dtype=torch.float64)
        clamps = {"x": double(6, 20), "y": double(6, 4, seed=1)}
        pcgraph.learning.backprop(net, {"x": clamps["x"]}, {"y": clamps["y"]})
        exact = torch.cat([p.grad.flatten() for p in net.parameters()])
        net.zero_grad()
        net.infer(clamps, init=Forward(), steps=300, optimizer=SGD(0.2)).backward()
        found = torch.cat([p.grad.flatten() for p in net.parameters()])
        cosines.append(float(torch.nn.functional.cosine_similarity(exact, found, dim=0)))
    misses = [1 - c for c in cosines]
    assert misses[0] > 3 * misses[1] > 9 * misses[2]
    assert misses[2] < 1e-3


def test_a_deep_residual_network_learns_at_the_rate_of_a_small_one():
    """Digits, one epoch: the rate that suits 4 blocks of 32 suits 32 blocks of 64; without factors it does not."""
    images = pcgraph.data.load("digits", "train")

    def learned(graph, lr):
        net = PCNetwork(graph, seed=0)
        optimizer = torch.optim.Adam(net.parameters(), lr=lr)
        blocks = sum(v.startswith("r") for v in graph) - 1
        energies = []
        for x, y in images.batches(64, seed=0):
            optimizer.zero_grad()
            result = net.infer({"x": x, "y": y}, init=Forward(), steps=blocks, optimizer=SGD(0.3))
            result.backward()
            optimizer.step()
            energies.append(float(result.energy.mean()))
        return sum(energies[-5:]) / 5

    small, deep = (graphs.residual(64, w, 10, blocks=b, inner=0, activation="relu") for w, b in ((32, 4), (64, 32)))
    assert learned(mupc(small), 0.1) < 0.3
    assert learned(mupc(deep), 0.1) < 0.25
    assert learned(small, 0.01) < 0.3
    assert learned(deep, 0.01) > 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: g.add_edge("h2", "h1"), r"the cycle 'h[12]' → 'h[12]' → 'h[12]' has none.*without one of its edges"),
        (lambda g: g.add_edge("h1", "h1"), "the cycle 'h1' → 'h1' has none"),
        (lambda g: g.edges["h1", "h2"].update(scale=2.0), r"'h1' -> 'h2' has the scale 2.0.*remove it"),
        (lambda g: g.edges["h1", "h2"].update(init="zeros"), r"has the init 'zeros'.*remove it"),
        (lambda g: g.edges["h1", "h2"].update(transform=torch.nn.Linear(5, 5)), "draws its own weights"),
        (lambda g: [g.edges[e].update(share="w") for e in (("h1", "h2"), ("h2", "y"))], "shares the weight 'w'.*scale"),
        (lambda g: g.edges["h1", "h2"].update(activation="rellu"), "did you mean 'relu'"),
    ],
)  # fmt: skip
def test_what_has_no_factors_is_refused_before_anything_is_made(change, says):
    graph = graphs.chain([3, 5, 5, 5])
    change(graph)
    before = {e: dict(d) for *e, d in ((u, v, d) for u, v, d in graph.edges(data=True)) for e in [tuple(e)]}
    with pytest.raises(GraphError, match=says):
        mupc(graph)
    assert before == {(u, v): d for u, v, d in graph.edges(data=True)}


@pytest.mark.parametrize("gain", [0, -1, float("nan"), "big"])
def test_a_gain_is_positive(gain):
    with pytest.raises(ConfigError, match="gain"):
        mupc(graphs.chain([2, 2]), gain=gain)


def test_weights_shared_by_blocks_and_scaled_networks_are_saved(tmp_path):
    graph = graphs.residual(3, 4, 2, blocks=3, inner=0)
    for u, _, data in graph.edges(data=True):
        if u in ("r0", "r1", "r2") and "transform" not in data:
            data["share"] = "block"
    net = PCNetwork(mupc(graph), seed=1)
    pcgraph.save(tmp_path, net)
    back = pcgraph.load(tmp_path).net
    assert factors(back.graph) == factors(net.graph)
    x = {"x": torch.ones(1, 3)}
    assert torch.equal(back.predict(x, "y"), net.predict(x, "y"))
