"""What oneDNN computes: exact where float32 can be, chosen by the written rule, given up at torch's switch."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, Zero
from pcgraph.backends import traits
from pcgraph.backends.torch import onednn
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

    plain = onednn.linear
    monkeypatch.setattr(traits, "CPU", replace(traits.CPU, onednn_product=1))
    monkeypatch.setattr(onednn, "_is_faster", lambda: True)
    monkeypatch.setattr(onednn, "linear", counted)
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
    ("device", "dtype", "fast", "enabled", "expected"),
    [
        ("cpu", torch.float32, True, True, True),
        ("cpu", torch.float64, True, True, False),
        ("cuda", torch.float32, True, True, False),
        ("cpu", torch.float32, False, True, False),
        ("cpu", torch.float32, True, False, False),
    ],
)
def test_the_rule(monkeypatch, device, dtype, fast, enabled, expected):
    """float32, on a CPU, a processor where it pays, and not switched off."""
    monkeypatch.setattr(onednn, "_is_faster", lambda: fast)
    with torch.backends.mkldnn.flags(enabled=enabled):
        assert onednn.serves(torch.device(device), dtype) is expected


def test_small_products_stay_with_torch(monkeypatch):
    """A call costs more: a network of small groups must not pay for it."""
    monkeypatch.setattr(onednn, "_is_faster", lambda: True)
    monkeypatch.setattr(onednn, "linear", lambda *a: pytest.fail("a small product went to oneDNN"))
    net = PCNetwork(pcgraph.graphs.chain([64, 64, 10]))
    clamps = {"x": torch.randn(100, 64), "y": torch.randn(100, 10)}
    net.infer(clamps, init=Forward(), steps=2, optimizer=SGD(0.1)).accumulate()


@pytest.mark.parametrize("listed", ["vendor_id\t: AuthenticAMD\n", "vendor_id\t: GenuineIntel\n"])
def test_whose_processor_it_is(monkeypatch, listed):
    """MKL holds back on processors that Intel has not made, and only there."""
    monkeypatch.setattr("pathlib.Path.exists", lambda self: True)
    monkeypatch.setattr("pathlib.Path.read_text", lambda self, **kw: listed)
    assert onednn._by_intel() is ("Intel" in listed)


def test_a_prediction_is_torchs_own_pass(everything_by_onednn):
    """predict() equals the feed-forward pass in plain torch to the last bit, whatever trains the network."""
    net = PCNetwork(pcgraph.graphs.chain([300, 300, 10], activation="tanh"), seed=0)
    x = torch.randn(400, 300)
    h = torch.tanh(torch.nn.functional.linear(x, net.weight("x", "h1"), net.bias("h1")))
    assert torch.equal(net.predict({"x": x}, "y"), torch.nn.functional.linear(h, net.weight("h1", "y"), net.bias("y")))
    assert not everything_by_onednn


# -- tanh -------------------------------------------------------------------------------------------------------------


@needs_onednn
def test_tanh_is_accurate_over_the_whole_line():
    """Relatively within 1e-7 of the value wherever float32 has one, signed zeros and infinities included."""
    size = 10.0 ** torch.linspace(-37, 2, 600_001, dtype=torch.float64)
    x = torch.cat([size, -size]).float()
    exact = torch.tanh(x.double())
    found = onednn._tanh(x, torch.empty_like(x)).double()
    assert float(((found - exact) / exact).abs().max()) < 1e-7
    edge = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan")])
    found = onednn._tanh(edge, torch.empty_like(edge))
    assert torch.equal(found[:4], torch.tanh(edge)[:4])
    assert torch.equal(found.signbit()[:2], edge.signbit()[:2])
    assert bool(found[4].isnan())


@needs_onednn
@pytest.mark.parametrize("order", [range(12), [7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6]], ids=["in order", "scattered"])
def test_a_sweep_by_onednn_leaves_exactly_no_error(monkeypatch, everything_by_onednn, order):
    """Whichever nodes are computed together, and how many: what was swept must have no error at all."""
    monkeypatch.setattr(traits, "CPU", replace(traits.CPU, onednn_tanh=1))
    graph = nx.DiGraph()
    graph.add_node("x", shape=6)
    graph.add_nodes_from(order, shape=6, activation="tanh")
    graph.add_edges_from([("x", 0), ("x", 5), *((i, i + 1) for i in range(11) if i != 4), (0, 7), (3, 9), (5, 11)])
    net = PCNetwork(graph, seed=0)
    clamps = {"x": torch.randn(7, 6)}
    result = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1))
    assert all(float(result.errors[v].abs().max()) == 0 for v in net.graph)
    wide = network("dag", None)
    assert float(wide.infer({"x": torch.randn(7, 5)}, init=Forward(), steps=2, optimizer=SGD(0.1)).energy.sum()) == 0


@needs_onednn
def test_tanh_by_onednn_trains_as_torchs(monkeypatch, everything_by_onednn):
    """A cyclic net of tanh groups has the states and gradients of the float64 reference, to float32's rounding."""
    monkeypatch.setattr(traits, "CPU", replace(traits.CPU, onednn_tanh=1, onednn_piece=50))
    net = PCNetwork(pcgraph.graphs.random_groups(12, 8, 3, seed=0), seed=0)
    clamps = {v: torch.randn(5, *net.structure.shape(v)) for v in ("x", "y")}
    kw = {"init": Zero(), "optimizer": SGD(0.1)}
    start = {v: h.double() for v, h in net.infer(clamps, steps=0, **kw).states.items()}
    result = net.infer(clamps, steps=6, **kw)
    result.accumulate()
    wide = PCNetwork(net.graph, seed=0).double()
    wide.load_state_dict({k: p.double() for k, p in net.state_dict().items()})
    double = {v: c.double() for v, c in clamps.items()}
    expected = reference.infer(wide, double, start, 6, lambda v, h, g, t: h - 0.1 * g)
    for v in net.graph:
        torch.testing.assert_close(result.states[v].double(), expected.states[v], rtol=1e-5, atol=1e-6)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), expected.gradients[name], rtol=1e-4, atol=1e-6)
