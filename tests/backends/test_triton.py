"""The fused kernels, by Triton's interpreter where there is no GPU, against the reference and torch's backend."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import SGD, Adam, Average, Following, Forward, Normal, PCNetwork, Zero
from pcgraph.activations import ACTIVATIONS
from pcgraph.errors import ConfigError
from pcgraph.testing import conformance

pytest.importorskip("triton")

from pcgraph.backends.triton import (
    availability,
    choices,
    gradients,
    kernels,
    launches,
    learning,
    listing,
    means,
    tables,
)
from pcgraph.backends.triton import backend as backends
from pcgraph.backends.triton.choices import Tile
from pcgraph.backends.triton.program import TritonProgram

ON_A_CARD = torch.cuda.is_available()
DEVICE, DTYPE, FAR = ("cuda", torch.float32, 2e-4) if ON_A_CARD else ("cpu", torch.float64, 1e-10)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    """The kernels are compiled on a card and interpreted elsewhere; conftest chooses before they are imported."""
    if ON_A_CARD:
        monkeypatch.setattr(torch.backends.cuda.matmul, "fp32_precision", "ieee")
    else:
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def noted(monkeypatch):
    """Return a function of (kind of launch, what to note): a list that grows by what is noted of each that is made.

    ``note(launch, *arguments)`` gets what the launch was made of.
    """

    def note_of(kind, note):
        found, original = [], kind.__init__

        def made(self, *arguments):
            original(self, *arguments)
            found.append(note(self, *arguments))

        monkeypatch.setattr(kind, "__init__", made)
        return found

    return note_of


def even(launch, *_):
    return launch.options["EVEN"]


def test_reports_tell_the_interpreter_from_a_card(record_property):
    kind = type(kernels.predict).__name__
    record_property("kernels", kind)
    assert kind == ("JITFunction" if ON_A_CARD else "InterpretedFunction")


@pytest.mark.skipif(ON_A_CARD, reason="the checks are in float64, which the kernels compute by the interpreter alone")
def test_conformance():
    refused = (
        "error coordinates", "error coordinates on a cycle", "slots and error coordinates",
        "precisions of each step and error coordinates",
    )  # fmt: skip
    assert conformance.check_backend("triton") == refused


def mixed(phi=None) -> nx.MultiDiGraph:
    """Sizes that are multiples of four and others, a self-loop, a cycle, parallel edges, identities, a skip."""
    graph = nx.MultiDiGraph()
    for v, n, sigma in (("x", 20, None), ("a", 32, "tanh"), ("b", 32, "gelu"), ("c", 17, "silu"), ("y", 10, None)):
        graph.add_node(v, shape=n, activation=sigma)
    for u, v in (("x", "a"), ("a", "b"), ("a", "b"), ("b", "b"), ("c", "a"), ("b", "c"), ("c", "y"), ("x", "y")):
        graph.add_edge(u, v, activation=phi)
    graph.add_edge("a", "b", transform="identity", activation=phi)
    return graph


def neurons(count=14, edges=50, seed=0) -> nx.DiGraph:
    rng, graph = np.random.default_rng(seed), nx.DiGraph()
    graph.add_nodes_from(range(count), shape=1, activation="tanh")
    for v in range(0, count, 2):
        graph.nodes[v]["activation"] = "relu"
    graph.add_edges_from(zip(rng.integers(0, count, edges).tolist(), rng.integers(0, count, edges).tolist()))
    return nx.relabel_nodes(graph, {0: "x", 1: "y"})


def run(graph, backend, *, init=None, steps=3, optimizer=None, batch=5, seed=0, partly=False, **keywords):
    """States, energies and gradients of two runs, of which the second adds to the gradients of the first."""
    net = PCNetwork(graph, seed=0, backend=backend, dtype=DTYPE, device=DEVICE)
    generator = torch.Generator().manual_seed(seed)
    clamps = {
        v: torch.randn(batch, *net.structure.shape(v), generator=generator, dtype=torch.float64).to(DEVICE, net.dtype)
        for v in ("x", "y")
    }  # fmt: skip
    for v in list(clamps if partly else ()):
        known = torch.rand(clamps[v].shape, generator=generator) < 0.5
        clamps[v] = pcgraph.Masked(clamps[v], known.to(DEVICE))
    found = []
    for t in (steps, steps + 2):
        result = net.infer(
            clamps, init=init or Zero(), steps=t, optimizer=optimizer or SGD(lr=0.05), **keywords
        )  # fmt: skip
        result.accumulate()
        found += [result.states[v].clone() for v in graph] + [result.predictions[v].clone() for v in graph]
        found += [result.energy.clone(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]
    return found


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        assert float((a - b).abs().max()) <= FAR * (1 + float(b.abs().max()))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_named_activation_on_nodes_and_edges(name):
    assert choices.ACTIVATIONS.index(name) >= 0
    graph = mixed(name)
    for v in "abc":
        graph.nodes[v]["activation"] = name
    same(run(graph, "triton"), run(graph, "torch"))


@pytest.mark.parametrize("energy", [*choices.ENERGIES, pcgraph.energies.LearnedPrecision], ids=lambda e: e.__name__)
def test_every_named_energy(energy):
    """On small nodes, also in tiles that stand upright for one whose neurons do not fit, and on single neurons."""
    for wide in (False, True):
        graph = mixed()
        if wide:
            graph.add_node("wide", shape=40)
            graph.add_edge("a", "wide")
        for v in ("b", "c", "y", *(("wide",) if wide else ())):
            graph.nodes[v]["energy"] = energy()
        same(run(graph, "triton", steps=1), run(graph, "torch", steps=1))
    if energy not in (pcgraph.energies.CrossEntropy, pcgraph.energies.KL):
        graph = neurons()
        graph.nodes["y"]["energy"] = graph.nodes[3]["energy"] = energy()
        same(run(graph, "triton", steps=1), run(graph, "torch", steps=1))


@pytest.mark.parametrize("heavy", [float("inf"), 400.0, 0.0])
def test_what_is_left_to_cublas(monkeypatch, heavy):
    chosen = dataclasses.replace(backends.TRITON, fused_edge=heavy)
    monkeypatch.setattr(backends, "TRITON", chosen)
    same(run(mixed("relu"), "triton"), run(mixed("relu"), "torch"))


def test_nodes_whose_products_are_left_to_cublas_have_a_launch_of_their_own(monkeypatch, noted):
    edges, found = noted(launches.Predict, lambda launch, *_: launch.options["EDGES"]), []
    wanted = run(mixed("relu"), "torch")
    for plain in (2**20, 0):
        chosen = dataclasses.replace(backends.TRITON, fused_edge=400.0, plain_numbers=plain)
        monkeypatch.setattr(backends, "TRITON", chosen)
        edges.clear()
        same(run(mixed("relu"), "triton"), wanted)
        found.append(list(edges))
    assert found[1].count(False) > found[0].count(False)
    assert found[1].count(True) == found[0].count(True)


@pytest.mark.parametrize(
    "tile",
    [Tile(16, 32, 32, 4, 3), Tile(32, 16, 16, 4, 3), Tile(64, 64, 64, 4, 3), Tile(16, 32, 16, 4, 3, upright=True)],
    ids=lambda t: f"{t.inner}{' upright' * t.upright}",
)
def test_tiles_of_any_size(monkeypatch, tile):
    monkeypatch.setattr(tables, "tile_for", lambda *_: tile)
    same(run(mixed(), "triton", batch=19), run(mixed(), "torch", batch=19))


def test_groups_that_are_wider_than_a_tile():
    """Their tiles stand upright, and those that learn are twice as wide as they are high."""
    graph = nx.DiGraph()
    for v, n, sigma in (("x", 70, None), ("a", 130, "tanh"), ("b", 66, "gelu"), ("y", 10, None)):
        graph.add_node(v, shape=n, activation=sigma)
    graph.add_edges_from([("x", "a"), ("a", "b"), ("b", "y"), ("b", "a")], activation="tanh")
    sizes = np.array([graph.nodes[v]["shape"] for v in graph])
    tiles = [choices.tile_for(backends.TRITON, sizes, 19, back=back) for back in (False, True)]
    assert all(tile.upright for tile in tiles)
    assert choices.learning_tile(sizes, sizes).neurons == 128
    same(run(graph, "triton", batch=19), run(graph, "torch", batch=19))


@pytest.mark.parametrize("tile", [Tile(16, 32, 16, 4, 3), Tile(32, 16, 32, 4, 3)], ids=lambda t: f"{t.samples}")
def test_weights_are_learnt_in_tiles_of_any_size(monkeypatch, tile):
    monkeypatch.setattr(gradients, "learning_tile", lambda *_: tile)
    same(run(mixed("relu"), "triton", batch=19), run(mixed("relu"), "torch", batch=19))


def test_rows_that_lie_evenly_are_told_from_others(noted):
    """Where some do, four numbers at a time are read of these alone: others would be read from beside them."""
    found = noted(launches._Tiled, even)
    for size, wanted in ((None, 2), (12, 1), (9, 0)):
        graph = mixed()
        for v in () if size is None else graph:
            graph.nodes[v]["shape"] = size
        found.clear()
        same(run(graph, "triton"), run(graph, "torch"))
        assert wanted in found


OPTIMIZERS = {
    "rates": lambda v: SGD({v: 0.1, None: 0.05}),
    "following": lambda v: SGD(Following(at_most=0.05)),
    "momentum": lambda v: SGD(0.05, momentum=0.8),
    "nesterov": lambda v: SGD({v: 0.1, None: 0.05}, momentum=0.8, nesterov=True),
    "Adam": lambda v: Adam(lr=0.02),
    "Adam, rates": lambda v: Adam(lr={v: 0.02, None: 0.01}, betas=(0.8, 0.9), eps=1e-4),
}


@pytest.mark.parametrize(("graph", "node"), [(mixed, "a"), (neurons, 2)], ids=["groups", "scalars"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_descent_is_fused(monkeypatch, name, graph, node):
    """States move in the launch that completes their gradients, also where some of their neurons are clamped."""
    keywords = {"init": Forward(fallback=Zero()), "partly": True, "steps": 1}
    wanted = run(graph(), "torch", optimizer=OPTIMIZERS[name](node), **keywords)
    monkeypatch.setattr(backends.TorchProgram, "move", None)
    same(run(graph(), "triton", optimizer=OPTIMIZERS[name](node), **keywords), wanted)


@pytest.mark.parametrize("name", ["momentum", "nesterov", "Adam, rates"])
def test_what_descent_keeps_goes_from_run_to_run(name):
    """The weights move after every step of one inference."""
    found = []
    for backend in ("triton", "torch"):
        net = PCNetwork(mixed(), seed=0, backend=backend, dtype=DTYPE, device=DEVICE)
        generator = torch.Generator().manual_seed(0)
        clamps = {
            v: torch.randn(4, n, generator=generator, dtype=torch.float64).to(DEVICE, DTYPE)
            for v, n in (("x", 20), ("y", 10))
        }
        weights = torch.optim.SGD(net.parameters(), lr=0.01)
        result = pcgraph.learning.incremental(
            net, clamps, init=Zero(), steps=3, optimizer=OPTIMIZERS[name]("a"), weights=weights
        )
        found.append([*(result.states[v].clone() for v in "abc"), *(p.detach().clone() for p in net.parameters())])
    same(*found)


@pytest.mark.parametrize(("rows", "edges"), [(1, 8), (4, 2)])
def test_scalar_neurons(monkeypatch, rows, edges):
    monkeypatch.setattr(
        backends, "TRITON", dataclasses.replace(backends.TRITON, scalar_rows=rows, scalar_edges_at_once=edges)
    )
    same(run(neurons(), "triton"), run(neurons(), "torch"))


@pytest.mark.parametrize(("graph", "node"), [(mixed, "a"), (neurons, 5)], ids=["groups", "scalars"])
def test_duals_and_precisions_of_a_run(graph, node):
    keywords = {"duals": pcgraph.Duals(rate=0.3), "precision": {node: 2.5}}
    same(run(graph(), "triton", **keywords), run(graph(), "torch", **keywords))


def test_a_step_without_stopped_nodes_reads_sums_that_are_of_now(monkeypatch):
    """A node of which all parents have stopped is compared with what came in last, long after the first step."""
    graph, fewer, hold = nx.DiGraph(), [], TritonProgram.hold
    for node in ("x", "p", "z", "c1", "c2", "c3", "y"):
        graph.add_node(node, shape=6, activation="tanh")
    for edge in (("x", "p"), ("p", "z"), ("p", "c1"), ("c1", "c2"), ("c2", "c3"), ("c3", "y")):
        graph.add_edge(*edge)

    def held(self, *arguments):
        hold(self, *arguments)
        fewer.append(len(self._fewer))

    monkeypatch.setattr(TritonProgram, "hold", held)
    generator = torch.Generator().manual_seed(0)
    clamps = {v: torch.randn(3, 6, generator=generator).to(DTYPE).to(DEVICE) for v in ("x", "y", "z")}
    for steps in (8, 16):
        found = []
        for backend in ("torch", "triton"):
            net = PCNetwork(graph, backend=backend, dtype=DTYPE, device=DEVICE, seed=0)
            result = net.infer(clamps, init=Forward(), steps=steps, optimizer=SGD(0.2),
                               duals=pcgraph.Duals(0.5, stop=0.8))  # fmt: skip
            found.append(dict(result.states))
        for node, states in found[0].items():
            torch.testing.assert_close(found[1][node], states, rtol=FAR, atol=FAR)
    assert max(fewer) > 0


def test_rates_of_scalars_and_of_groups_in_one_step():
    """A step moves groups in one launch and scalars in another, each at the rates of its own nodes."""
    graph = nx.compose(mixed(), nx.MultiDiGraph(nx.relabel_nodes(neurons(), {"x": "u", "y": "v"})))
    optimizer = SGD(lr={**{v: 0.01 + 0.01 * k for k, v in enumerate(graph)}})
    keywords = {"init": Normal(std=1.0, seed=3), "optimizer": optimizer}
    same(run(graph, "triton", **keywords), run(graph, "torch", **keywords))


def test_scalars_that_share_weights_and_learn_in_part(monkeypatch):
    """The gradients of all weights and biases of single neurons take one launch, whoever shares them."""
    graph = neurons(count=20, edges=150)
    for k, (u, v) in enumerate(graph.edges):
        graph.edges[u, v].update({"share": f"s{k % 4}"} if k % 3 == 0 else {"scale": 0.5} if k % 3 == 1 else {})
    for v in (3, 4, 5):
        graph.nodes[v]["bias"] = False
    same(run(graph, "triton"), run(graph, "torch"))
    for k, (u, v) in enumerate(graph.edges):
        graph.edges[u, v]["trainable"] = graph.edges[u, v].get("share") != "s0" and k % 3 != 2
    same(run(graph, "triton"), run(graph, "torch"))
    wanted = run(graph, "torch")
    monkeypatch.setattr(learning, "learn", None)
    monkeypatch.setattr(torch.sparse, "sampled_addmm", None)
    same(run(graph, "triton"), wanted)


def scattered() -> nx.DiGraph:
    """Groups with stored entries alone, of different sizes, shared, scaled and round a cycle, and single neurons."""
    graph, sparse = nx.DiGraph(), pcgraph.transforms.SparseLinear
    for v, n in (("x", 12), ("a", 9), ("b", 9), ("y", 5)):
        graph.add_node(v, shape=n, activation="tanh")
    graph.nodes["b"].update(activation="relu", bias=False)
    graph.add_edge("x", "a", transform=sparse(density=0.4, seed=1))
    same_entries = sparse(density=0.3, seed=2)
    graph.add_edge("a", "b", transform=same_entries, share="w")
    graph.add_edge("b", "a", transform=same_entries, share="w")
    graph.add_edge("b", "b", transform=same_entries)
    graph.add_edge("a", "a", transform=sparse(density=0.2, seed=3), scale=0.5)
    graph.add_edge("b", "y", transform=sparse(density=0.5, seed=4))
    return graph


SETTINGS = {
    "plain": {}, "a sweep": {"init": Forward(fallback=Zero())}, "in part": {"partly": True, "steps": 1},
    "rates": {"optimizer": SGD({"a": 0.1, None: 0.05})}, "Adam": {"optimizer": Adam(lr=0.02)},
    "duals": {"duals": pcgraph.Duals(rate=0.3), "precision": {"a": 2.5}}, "one sample": {"batch": 1},
    "samples by four": {"batch": 8}, "samples in two pieces": {"batch": 36, "steps": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_stored_entries_between_groups(monkeypatch, name):
    """All of it is fused, biases too: torch multiplies no matrix of stored entries, and no tile of a matrix learns."""
    wanted = run(scattered(), "torch", **SETTINGS[name])
    monkeypatch.setattr(learning, "learn", None)
    for product in ("mm", "addmm"):
        monkeypatch.setattr(torch, product, None)
    monkeypatch.setattr(torch.sparse, "sampled_addmm", None)
    same(run(scattered(), "triton", **SETTINGS[name]), wanted)


@pytest.mark.parametrize("graph", [scattered, neurons], ids=["groups", "scalars"])
@pytest.mark.parametrize("batch", [5, 8])
def test_offsets_of_neurons_that_lie_far_apart(monkeypatch, graph, batch):
    """Where buffers lie too far apart for 32 bits, offsets have 64; biases have none of a state in either."""
    wanted = run(graph(), "torch", batch=batch)
    monkeypatch.setattr(tables.Places, "narrow", lambda self, offsets: offsets)
    same(run(graph(), "triton", batch=batch), wanted)


@pytest.mark.parametrize("far", [2**31 - 8, 2**31 - 9, -(2**31), 1 - 2**31])
def test_offsets_are_narrow_where_all_samples_fit(far):
    """Sums of offsets and samples have as many bits as the offsets."""
    offsets = np.array([0, tables.NONE, far])
    found = tables.Places.narrow(SimpleNamespace(batch=8), offsets)
    fits = far + 8 < 2**31 and far > tables.FEW
    assert found.dtype == (np.int32 if fits else np.int64)
    assert found.tolist() == [0, tables.FEW if fits else tables.NONE, far]


def test_weights_are_copied_once_a_run_and_as_they_are_then(monkeypatch):
    """What comes in reads weights where they lie, in their order; what is pulled back reads one copy, in its own."""
    graph, sparse = nx.DiGraph(), pcgraph.transforms.SparseLinear
    for v, n in (("x", 12), ("h", 30)):
        graph.add_node(v, shape=n, activation="tanh")
        graph.add_edge(v, "h", transform=sparse(density=0.4, seed=1))
    x, found, copied = torch.randn(8, 12, dtype=torch.float64).to(DEVICE, DTYPE), [], []
    gather = torch.index_select
    monkeypatch.setattr(torch, "index_select", lambda *a, **k: copied.append(1) or gather(*a, **k))
    for backend in ("torch", "triton"):
        net = PCNetwork(graph, seed=0, backend=backend, dtype=DTYPE, device=DEVICE)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(4):
            copied.clear()
            optimizer.zero_grad()
            net.infer({"x": x}, init=Forward(fallback=Zero()), steps=3, optimizer=SGD(0.1)).backward()
            optimizer.step()
        found.append([p.detach().clone() for p in net.parameters()])
    assert len(copied) == 1
    same(*found)


@pytest.mark.parametrize("size", [28, 27])
def test_neurons_of_groups_that_lie_evenly_or_not(noted, size):
    """Numbers of neurons are read four at a time where all nodes of a launch admit it, also in several pieces."""
    graph, sparse = nx.DiGraph(), pcgraph.transforms.SparseLinear
    for v, n in (("x", 12), ("h", 32), ("k", size), ("y", 8)):
        graph.add_node(v, shape=n, activation="tanh")
    for u, v in (("x", "h"), ("h", "h"), ("h", "k"), ("k", "y"), ("k", "h")):
        graph.add_edge(u, v, transform=sparse(density=0.3, seed=1))
    made = noted(launches._Scalars, even)
    same(run(graph, "triton", batch=8), run(graph, "torch", batch=8))
    assert set(made) == ({True} if size == 28 else {False, True})


def test_weights_that_edges_share_have_a_launch_of_their_own(monkeypatch):
    """Where each weight has one edge, nothing is looked up of which edges are whose."""
    made = []
    numbers = gradients._Numbers

    def counted(whole, begun, once):
        made.append((once, sorted(part.factor for _, part in begun)))
        return numbers(whole, begun, once)

    monkeypatch.setattr(gradients, "_Numbers", counted)
    run(scattered(), "triton", steps=1)
    # Edges with the same entries are one parameter; two groups have biases.
    assert made == 2 * [(True, [0.5, 1.0, 1.0, 1.0, 1.0]), (False, [1.0])]


def test_scalar_neurons_beside_groups_are_left_to_torch():
    graph = neurons()
    graph.add_node("g", shape=4, activation="tanh")
    graph.add_edge("g", 5)
    graph.add_edge(6, "g")
    same(run(graph, "triton"), run(graph, "torch"))


def test_a_sweep_takes_a_launch_a_wave_and_a_step_two(monkeypatch):
    count = {"predict": 0, "pull": 0, "learn": 0}

    def counted(name, kernel):
        class Counted:
            def __getitem__(self, grid):
                count[name] += 1
                return kernel[grid]

        return Counted()

    for module, name in ((kernels, "predict"), (kernels, "pull"), (learning, "learn")):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    graph = pcgraph.graphs.chain([6, 8, 8, 8, 4], activation="tanh")
    net = PCNetwork(graph, backend="triton", dtype=DTYPE, device=DEVICE)
    x, y = torch.randn(3, 6).to(net.dtype).to(DEVICE), torch.randn(3, 4).to(net.dtype).to(DEVICE)
    result = net.infer({"x": x, "y": y}, init=Forward(), steps=3, optimizer=SGD(0.1))
    assert count == {"predict": 4 + 3 + 1, "pull": 3, "learn": 0}
    result.backward()
    assert count["learn"] == 1


@pytest.mark.parametrize("heavy", [2.0**40, 40.0])
def test_what_comes_in_is_kept_for_a_later_stage_that_reads_it_alone(monkeypatch, noted, heavy):
    """Average computes the first errors from sums of the initialization; no step after that reads an old sum."""
    chosen = dataclasses.replace(backends.TRITON, fused_edge=heavy, plain_numbers=0)
    monkeypatch.setattr(backends, "TRITON", chosen)
    flags = noted(launches.Predict, lambda launch, places, nodes, given, *_: given.copy())
    found, x, y = [], torch.randn(6, 6).to(DTYPE).to(DEVICE), torch.eye(4).to(DTYPE).to(DEVICE)[torch.arange(6) % 4]
    for backend in ("torch", "triton"):
        net = PCNetwork(pcgraph.graphs.chain([6, 8, 8, 8, 4]), backend=backend, dtype=DTYPE, device=DEVICE, seed=0)
        init = Average()
        for _ in range(3):
            result = net.infer({"x": x, "y": y}, init=init, steps=4, optimizer=SGD(0.1))
            result.backward()
        found.append(result.states)
    for node, states in found[0].items():
        torch.testing.assert_close(found[1][node], states, rtol=FAR, atol=FAR)
    flags.clear()
    net.infer({"x": x[:5], "y": y[:5]}, init=init, steps=4, optimizer=SGD(0.1))
    begun = [given for given in flags if not (given & tables.COMPARE).any()]
    assert all((given & tables.KEEP).all() for given in begun)
    compared = [given for given in flags if (given & tables.COMPARE).any()]
    assert len(compared) >= 2
    assert not any((given & tables.KEEP).any() for given in compared)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_drawn_graphs(data):
    count = data.draw(st.integers(2, 6))
    names = ["x", "y", *range(count)]
    graph = nx.DiGraph()
    for v in names:
        graph.add_node(
            v, shape=data.draw(st.integers(1, 40)), activation=data.draw(st.sampled_from(["tanh", "relu", "identity"])),
            precision=data.draw(st.sampled_from([1.0, 0.5])), bias=data.draw(st.booleans()),
        )  # fmt: skip
    pairs = [(u, v) for u in names for v in names if v != "x" and u != "y"]
    edges = data.draw(st.lists(st.sampled_from(pairs), min_size=2, max_size=3 * count, unique=True))
    graph.add_edges_from(edges)
    for u, v in edges:
        graph.edges[u, v]["trainable"] = data.draw(st.booleans())
    steps = data.draw(st.integers(0, 4))
    init = Forward(fallback=Zero())
    same(run(graph, "triton", init=init, steps=steps), run(graph, "torch", init=init, steps=steps))


def test_biases_that_neurons_share():
    """Beside nodes of the same shape with a bias for each neuron, and with none."""
    graph = nx.DiGraph()
    graph.add_nodes_from([("x", {"shape": 4}), ("y", {"shape": (3, 4)})], activation="tanh")
    for v, bias in (("a", (3, 1)), ("b", (1, 4)), ("c", True), ("d", False), ("e", (3, 1))):
        graph.add_node(v, shape=(3, 4), activation="tanh", bias=bias)
    nx.add_cycle(graph, "abcde")
    graph.add_edge("x", "a")
    graph.add_edges_from((v, "y") for v in "bde")
    same(run(graph, "triton"), run(graph, "torch"))


def test_gradients_are_added_to_whatever_is_there():
    net = PCNetwork(mixed(), backend="triton", dtype=DTYPE, device=DEVICE)
    clamps = {v: torch.randn(5, n).to(net.dtype).to(DEVICE) for v, n in (("x", 20), ("y", 10))}
    result = net.infer(clamps, init=Zero(), steps=2, optimizer=SGD(0.1))
    result.accumulate()
    once = [p.grad.clone() for p in net.parameters()]
    result.accumulate()
    same([p.grad for p in net.parameters()], [2 * g for g in once])
    first, *_, last = net.parameters()
    for count, replaced in ((3, last), (4, first)):
        replaced.grad = replaced.grad.clone()
        result.accumulate()
        same([p.grad for p in net.parameters()], [count * g for g in once])
    first.grad = None
    result.accumulate()
    same([p.grad for p in net.parameters()], [(1 if p is first else 5) * g for p, g in zip(net.parameters(), once)])
    first.requires_grad_(False)
    net.zero_grad()
    result.accumulate()
    assert first.grad is None
    same([p.grad for p in net.parameters() if p is not first], once[1:])


@pytest.mark.skipif(ON_A_CARD, reason="tables of CUDA cards")
def test_autocast_reads_weights_in_half_precision():
    net = PCNetwork(mixed(), backend="triton", dtype=torch.float32)
    clamps = {v: torch.randn(5, n) for v, n in (("x", 20), ("y", 10))}
    whole = net.infer(clamps, init=Zero(), steps=3, optimizer=SGD(0.1))
    states = {v: h.clone() for v, h in whole.states.items()}
    with torch.autocast("cpu", dtype=torch.float16):  # the interpreter multiplies bfloat16 wrongly
        result = net.infer(clamps, init=Zero(), steps=3, optimizer=SGD(0.1))
        result.backward()
    assert all(result.states[v].dtype == torch.float32 for v in net.graph)
    differ = max(float((result.states[v] - states[v]).abs().max()) for v in "abc")
    assert 1e-6 < differ < 0.01


@pytest.mark.gpu
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize(
    ("graph", "keywords"),
    [
        (mixed, {}), (lambda: mixed("relu"), {"batch": 70}), (mixed, {"optimizer": Adam(lr=0.02)}), (neurons, {}),
        (lambda: pcgraph.graphs.chain([784, 256, 256, 10], activation="gelu"), {"init": Forward(), "batch": 64}),
        (lambda: pcgraph.graphs.random_groups(30, 32, 4, seed=0), {"batch": 64}),
    ],
    ids=["mixed", "edge activations", "Adam", "neurons", "chain", "groups"],
)  # fmt: skip
def test_compiled_for_a_card(monkeypatch, graph, keywords, tf32):
    monkeypatch.setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32" if tf32 else "ieee")
    one, other = run(graph(), "triton", **keywords), run(graph(), "torch", **keywords)
    for a, b in zip(one, other):
        assert float((a - b).abs().max()) <= (2e-2 if tf32 else 1e-4) * (1e-2 + float(b.abs().max()))


@pytest.mark.gpu
def test_a_training_step_is_recorded(monkeypatch):
    """The recording computes what ordinary steps do."""
    x, y = torch.randn(32, 12, device="cuda"), torch.randn(32, 4, device="cuda")
    found = []
    for recorded in (False, True):
        net = PCNetwork(pcgraph.graphs.chain([12, 32, 32, 4], activation="tanh"), backend="triton", device="cuda")
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, capturable=True)

        def learn(clamps, net=net, optimizer=optimizer):
            optimizer.zero_grad()
            result = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1), check=False)
            result.backward()
            optimizer.step()
            return result

        step = pcgraph.inference.Recorder(learn) if recorded else learn
        for _ in range(8):
            step({"x": x, "y": y})
        found.append([p.detach().clone() for p in net.parameters()])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# -- what it does not do ----------------------------------------------------------------------------------------------


def test_a_pinned_backend_says_what_it_cannot_do(monkeypatch):
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]), backend="triton", device=DEVICE)
    clamps = {"x": torch.randn(2, 3).to(DEVICE), "y": torch.randn(2, 2).to(DEVICE)}
    with pytest.raises(ConfigError, match="error coordinates move along waves"):
        net.infer(clamps, init=Forward(), steps=1, optimizer=SGD(0.1), coordinates=pcgraph.Errors())
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    net = net.to("cpu")
    clamps = {v: c.cpu() for v, c in clamps.items()}
    with pytest.raises(ConfigError, match="the network is on 'cpu'"):
        net.infer(clamps, init=Forward(), steps=1, optimizer=SGD(0.1))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(availability, "_installed", lambda: False)
    with pytest.raises(ConfigError, match=r"the package triton is not installed \(pip install triton\)"):
        net.infer(clamps, init=Forward(), steps=1, optimizer=SGD(0.1))


def test_auto_never_interprets():
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    clamps = {"x": torch.randn(2, 3), "y": torch.randn(2, 2)}
    program = net.infer(clamps, init=Forward(), steps=1, optimizer=SGD(0.1))._program
    assert type(program).__name__ == "TorchProgram"


def test_explain_says_what_runs_beside_the_kernels():
    graph = mixed()
    graph.add_node("d", shape=4, activation=torch.sin, energy=pcgraph.energies.LearnedPrecision())
    graph.add_edge("a", "d", transform=torch.nn.Linear(32, 4, bias=False))
    text = PCNetwork(graph, backend="triton", device=DEVICE).plan(["x", "y"], init=Zero(), steps=2).explain()
    assert "backend: fused kernels, two launches a step" in text
    assert "32_to_32: 3 edges, batched, fused" in text
    assert "beside the fused kernels: module edges" in text
    assert "activations that run beside them: sin" in text
    assert "energies that run beside them: LearnedPrecision" in text


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("graph", [mixed, lambda: pcgraph.graphs.chain([6, 40, 70, 4], activation="tanh")])
def test_explain_lists_as_many_tiles_as_the_launches_have(monkeypatch, graph, heavy):
    """In each step, of predictions and of moves; nothing is run for it."""
    if heavy:
        chosen = dataclasses.replace(backends.TRITON, fused_edge=400.0, plain_numbers=0)
        monkeypatch.setattr(backends, "TRITON", chosen)
    net = PCNetwork(graph(), backend="triton", dtype=DTYPE, device=DEVICE)
    plan = net.plan(["x", "y"], init=Zero(), steps=4, optimizer=SGD(0.1))
    program = net._planner.program(plan, listing.BATCH)
    lines = [line.strip() for line in plan.explain().splitlines()]
    for t, stage in enumerate(program._stages):
        ahead, moved = (
            sum(math.prod(launch.grid) for launch in part)
            for part in (stage.predict, [launch for _, launch in stage.release])
        )
        assert f"{plan.span(t)}: {ahead} of predictions, {moved} of moves" in lines
    assert any(line.startswith("at the end: ") for line in lines)


def test_explain_counts_single_neurons():
    graph = nx.gnp_random_graph(20, 0.3, seed=0, directed=True)
    nx.set_node_attributes(graph, 1, "shape")
    plan = PCNetwork(graph, backend="triton", device=DEVICE).plan([0], init=Zero(), steps=2, optimizer=SGD(0.1))
    compared, moved = len(plan.stage(1).compare.nodes), len(plan.stage(1).move.nodes)
    wanted = f"step 1: 0 of predictions and {compared} single neurons, 0 of moves and {moved} single neurons"
    assert wanted in plan.explain()


def test_memory_counts_what_stored_entries_take():
    """A bound network holds weights and offsets in the order of both launches, and states side by side."""
    nets = [PCNetwork(scattered(), seed=0, backend=backend, device=DEVICE) for backend in ("triton", "torch")]
    few, many = (
        [net.plan({"x", "y"}, init=Zero(), steps=1).memory(batch) for net in nets] for batch in (1, 101)
    )  # fmt: skip
    entries = sum(
        b.count * b.entries(nets[0].structure.groups) for b in nets[0].structure.buckets if b.kind == "sparse"
    )
    sizes = sum(g.size * g.count for g in nets[0].structure.groups if g.size > 1)
    assert few[0] - few[1] >= 28 * entries
    assert 0 < (many[0] - many[1]) - (few[0] - few[1]) <= 100 * 8 * sizes


def test_a_row_of_one_class_counts_once_whatever_it_says():
    """On a card nobody looks whether rows are of ones, since that waits: a class is a class."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 9, 5, generator=generator, dtype=torch.float64).to(DEVICE, DTYPE)
    onehot = torch.eye(3)[torch.arange(9) % 2].to(DEVICE, DTYPE)
    kept = torch.full((2, 3, 5), 7.0, device=DEVICE, dtype=DTYPE)
    means.class_means(states, onehot * (1 + torch.arange(9, device=DEVICE)[:, None] // 2), kept)
    wanted = torch.stack([states[:, 0::2].mean(1), states[:, 1::2].mean(1), torch.full_like(kept[:, 0], 7.0)], 1)
    torch.testing.assert_close(kept, wanted)


def test_class_means_are_taken_in_one_launch(monkeypatch):
    """Sums by class are those of torch, a class without a sample keeps its mean, and the last batch is smaller."""
    found = []
    for backend in ("triton", "torch"):
        net = PCNetwork(mixed(), seed=0, backend=backend, dtype=DTYPE, device=DEVICE)
        init, generator = Average(), torch.Generator().manual_seed(0)
        for seed, batch in enumerate((23, 23, 7)):
            labels = torch.arange(batch) % (10 if seed == 0 else 6)
            clamps = {
                "x": torch.randn(batch, 20, generator=generator, dtype=torch.float64).to(DEVICE, DTYPE),
                "y": torch.eye(10, dtype=DTYPE, device=DEVICE)[labels.to(DEVICE)]
                * (1 + torch.arange(batch, device=DEVICE)[:, None] // 7),  # a class is where a row is not zero
            }
            result = net.infer(clamps, init=init, steps=2, optimizer=SGD(0.05))
            with monkeypatch.context() as patch:
                if backend == "triton" and seed > 0:
                    patch.setattr(torch.Tensor, "index_add_", None)  # what torch sums by
                result.remember()
        found.append([*(kept.double() for kept in init.buffers()), *(result.states[v].clone() for v in "abc")])
    same(*found)
