"""Products by oneDNN: exact where float32 can be, chosen by the written rule, given up when torch's switch says so."""

from __future__ import annotations

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, Zero
from pcgraph.kernels import products
from pcgraph.testing import reference

needs_onednn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch has no oneDNN",
)


@pytest.fixture
def everything_by_onednn(monkeypatch):
    """Every dense product on a CPU, however small; counted."""
    calls = []

    def counted(x, weight, bias=None):
        calls.append((tuple(x.shape), tuple(weight.shape)))
        return plain(x, weight, bias)

    plain = products.linear
    monkeypatch.setattr(products, "ENOUGH", 1)
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: True)
    monkeypatch.setattr("pcgraph.kernels.edges.linear", counted)
    return calls


def whole_numbers(*shape, seed, low=-1, high=2):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).float()


def network(kind: str, phi: str | None) -> PCNetwork:
    """Whole weights; two edges into one node, one weight used twice, parallel ways back."""
    graph = nx.DiGraph()
    for name, shape in (("x", 5), ("a", 4), ("b", 4), ("c", 4), ("y", 3)):
        graph.add_node(name, shape=shape, activation="identity" if name == "y" else "relu")
    edges = [("x", "a"), ("a", "b"), ("b", "c"), ("a", "c"), ("c", "y"), ("b", "y")]
    graph.add_edges_from(edges + ([("c", "a"), ("b", "b")] if kind == "cyclic" else []))
    if phi:
        nx.set_edge_attributes(graph, phi, "activation")
    if kind == "shared":
        for edge in (("a", "b"), ("b", "c")):
            graph.edges[edge]["share"] = "same"
    net = PCNetwork(graph)
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(whole_numbers(*parameter.shape, seed=i))
    return net


@needs_onednn
@pytest.mark.parametrize("kind", ["dag", "cyclic", "shared"])
@pytest.mark.parametrize("phi", [None, "relu"])
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_whole_numbers_come_out_exactly(everything_by_onednn, kind, phi, steps):
    """Small whole numbers and a rate of 1/4 leave float32 no room to round: every state and gradient must be exact."""
    net, wide = network(kind, phi), network(kind, phi).double()
    clamps = {"x": whole_numbers(8, 5, seed=9), "y": whole_numbers(8, 3, seed=8)}
    init = Zero() if kind == "cyclic" else Forward()
    pins = {b.name: "dense" for b in net.structure.buckets}
    kw = {"init": init, "steps": steps, "optimizer": SGD(0.25), "kernels": pins}
    start = {v: h.double() for v, h in net.infer(clamps, **{**kw, "steps": 0}).states.items()}
    double = {v: c.double() for v, c in clamps.items()}
    expected = reference.infer(wide, double, start, steps, lambda v, h, g, t: h - 0.25 * g)
    for factor in (1, 2):
        result = net.infer(clamps, **kw)
        result.accumulate()
        for v in net.graph:
            assert torch.equal(result.states[v].double(), expected.states[v]), v
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter.grad.double(), factor * expected.gradients[name]), name
    assert everything_by_onednn


@needs_onednn
def test_the_papers_network_is_the_same_by_either_library(everything_by_onednn):
    """Rounding apart, a step at full size gives the same states and gradients whichever library multiplies."""
    net = PCNetwork(pcgraph.graphs.chain([784, 512, 512, 10], activation="gelu"), seed=0)
    clamps = {"x": torch.randn(200, 784), "y": torch.eye(10).repeat(20, 1)}
    found = []
    for enabled in (True, False):
        net.zero_grad()
        with torch.backends.mkldnn.flags(enabled=enabled):
            before = len(everything_by_onednn)
            result = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1))
            result.backward()
            assert (len(everything_by_onednn) > before) == enabled
        found.append([*result.states.values(), *(p.grad for p in net.parameters())])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_kept_workspace_follows_torchs_switch(everything_by_onednn):
    """Buffers that are used again must not keep the library of the run before."""
    net = PCNetwork(pcgraph.graphs.chain([6, 5, 4]))
    clamps = {"x": torch.randn(8, 6), "y": torch.randn(8, 4)}
    for enabled in (True, False, True):
        before = len(everything_by_onednn)
        with torch.backends.mkldnn.flags(enabled=enabled):
            net.infer(clamps, init=Forward(), steps=1, optimizer=SGD(0.1)).accumulate()
        assert (len(everything_by_onednn) > before) == enabled


@pytest.mark.parametrize(
    ("device", "dtype", "count", "fast", "enabled", "expected"),
    [
        ("cpu", torch.float32, products.ENOUGH, True, True, True),
        ("cpu", torch.float32, products.ENOUGH - 1, True, True, False),
        ("cpu", torch.float64, products.ENOUGH, True, True, False),
        ("cuda", torch.float32, products.ENOUGH, True, True, False),
        ("cpu", torch.float32, products.ENOUGH, False, True, False),
        ("cpu", torch.float32, products.ENOUGH, True, False, False),
    ],
)
def test_the_rule(monkeypatch, device, dtype, count, fast, enabled, expected):
    """float32, on a CPU, large, a processor where it pays, and not switched off."""
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: fast)
    with torch.backends.mkldnn.flags(enabled=enabled):
        assert products.uses_onednn(torch.device(device), dtype, count) is expected


@pytest.mark.parametrize("listed", ["vendor_id\t: AuthenticAMD\n", "vendor_id\t: GenuineIntel\n"])
def test_whose_processor_it_is(monkeypatch, listed):
    """MKL holds back on processors that Intel has not made, and only there."""
    monkeypatch.setattr("pathlib.Path.exists", lambda self: True)
    monkeypatch.setattr("pathlib.Path.read_text", lambda self, **kw: listed)
    assert products._by_intel() is ("Intel" in listed)
