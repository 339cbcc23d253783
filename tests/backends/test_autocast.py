"""Products under torch.autocast: half precision in the factors of dense products, and nowhere else."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pcgraph
from pcgraph import SGD, Forward, Normal, PCNetwork, Zero
from pcgraph.testing import reference
from pcgraph.transforms import SparseLinear
from tests.builders import double

aten = torch.ops.aten
#: A value rounded to bfloat16 is off by at most 2**-9 of it; sums of products somewhat more.
CLOSE = {"rtol": 0.03, "atol": 0.03}


def autocast(enabled=True, dtype=torch.bfloat16):
    return torch.autocast("cpu", dtype=dtype, enabled=enabled)


class Products(TorchDispatchMode):
    """The dtypes of the factors of dense products, and casts of weights."""

    DENSE = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)

    def __init__(self, *weights):
        super().__init__()
        self.dtypes: list = []
        self.shapes = {w.shape for w in weights}
        self.casts = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        packet = function.overloadpacket
        if packet in self.DENSE and all(x.layout == torch.strided for x in args if isinstance(x, torch.Tensor)):
            self.dtypes += [x.dtype for x in args[-2:]]
        if packet is aten.copy_ and args[0].dtype != args[1].dtype and args[1].shape in self.shapes:
            self.casts += 1
        return function(*args, **(kwargs or {}))


def wired(phi: str | None = None, cyclic: bool = True) -> nx.DiGraph:
    """Equal groups with fan-ins, fan-outs, a shared weight and a chain of neighbours."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=6)
    graph.add_nodes_from("abcd", shape=5, activation="tanh")
    graph.add_node("y", shape=3)
    graph.add_edges_from(["xa", "ab", "bc", "cd", "ac", "ad", "dy", "ay"])
    if cyclic:
        graph.add_edges_from(["da", "bb"])
    for edge in ("ab", "cd"):
        graph.edges[tuple(edge)]["share"] = "same"
    if phi:
        nx.set_edge_attributes(graph, phi, "activation")
    return graph


CLAMPS = {"x": double(8, 6).float(), "y": double(8, 3, seed=1).float()}


@pytest.mark.parametrize("kernel", ["dense", "batched"])
@pytest.mark.parametrize("phi", [None, "sigmoid"])
@pytest.mark.parametrize("steps", [1, 4])
def test_products_are_in_half_precision_and_states_are_not(kernel, phi, steps):
    """Near the float64 reference, but not what float32 gives: and every product has two factors in bfloat16."""
    net = PCNetwork(wired(phi), seed=0)
    kw = {"init": Normal(std=0.5), "steps": steps, "optimizer": SGD(0.1)}
    kw["kernels"] = {b.name: kernel for b in net.structure.buckets}
    found = []
    for half in (False, True):
        for _ in range(2):
            torch.manual_seed(0)
            net.zero_grad()
            with autocast(half), Products() as products:
                start = {v: h.clone() for v, h in net.infer(CLAMPS, **{**kw, "steps": 0}).states.items()}
                torch.manual_seed(0)
                result = net.infer(CLAMPS, **kw)
                result.accumulate()
                result.accumulate()
            assert set(products.dtypes) == {torch.bfloat16 if half else torch.float32}
        found.append({**result.states, "energy": result.energy, **{n: p.grad for n, p in net.named_parameters()}})
    wide = PCNetwork(wired(phi), seed=0).double()
    begin = {v: h.double() for v, h in start.items()}
    clamps = {v: c.double() for v, c in CLAMPS.items()}
    expected = reference.infer(wide, clamps, begin, steps, lambda v, h, g, t: h - 0.1 * g)
    exact = {**expected.states, "energy": expected.trace[-1], **{n: 2 * g for n, g in expected.gradients.items()}}
    for name, value in exact.items():
        assert found[1][name].dtype == torch.float32
        torch.testing.assert_close(found[1][name].double(), value, **CLOSE)
    assert any(not torch.equal(found[0][name], found[1][name]) for name in net.graph)
    assert all(not torch.equal(found[0][n], found[1][n]) for n, _ in net.named_parameters() if n.startswith("weights"))


@pytest.mark.parametrize("kernel", ["dense", "batched"])
@pytest.mark.parametrize("phi", [None, "relu"])
@pytest.mark.parametrize("init", [Zero(), Forward(fallback=Zero())], ids=repr)
def test_whole_numbers_come_out_exactly(kernel, phi, init):
    """Small whole numbers leave no room to round, in bfloat16 either: a wrong sign, row or scale shows at once."""

    def whole(*shape, seed):
        return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float()

    graph = wired(phi)
    nx.set_node_attributes(graph, "relu", "activation")
    net = PCNetwork(graph)
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(whole(*parameter.shape, seed=i))
    clamps = {"x": whole(8, 6, seed=9), "y": whole(8, 3, seed=8)}
    kw = {"init": init, "optimizer": SGD(0.25), "kernels": {b.name: kernel for b in net.structure.buckets}}
    found = []
    for half in (False, True):
        for steps in (0, 1):
            net.zero_grad()
            with autocast(half):
                result = net.infer(clamps, steps=steps, **kw)
                for _ in range(2):
                    result.accumulate()
                found += [*result.states.values(), result.energy, *(p.grad for p in net.parameters())]
    half = len(found) // 2
    for one, other in zip(found[:half], found[half:]):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kernel", ["dense", "batched"])
def test_weights_are_cast_once_a_run(kernel):
    """The steps of a run share one copy, and the next run has the weights of its own time."""
    net = PCNetwork(pcgraph.graphs.chain([4, 5, 5, 5, 3]), seed=0)
    clamps = {"x": torch.randn(8, 4), "y": torch.randn(8, 3)}
    kw = {"init": Forward(), "steps": 6, "optimizer": SGD(0.1)}
    kw["kernels"] = {b.name: kernel for b in net.structure.buckets}
    with autocast():
        net.infer(clamps, **kw).accumulate()
        with Products(*net.weights.values()) as products:
            first = net.infer(clamps, **kw).energy.clone()
        assert products.casts == len(net.weights)
        with torch.no_grad():
            for weight in net.weights.values():
                weight.mul_(0.5)
        second = net.infer(clamps, **kw).energy.clone()
    with autocast():
        fresh = PCNetwork(pcgraph.graphs.chain([4, 5, 5, 5, 3]), seed=0)
        with torch.no_grad():
            for weight in fresh.weights.values():
                weight.mul_(0.5)
        assert torch.equal(second, fresh.infer(clamps, **kw).energy)
    assert not torch.equal(first, second)


def test_a_kept_workspace_follows_autocast():
    """Buffers that are used again must not keep the precision of the run before, nor the dtype of another."""
    net = PCNetwork(wired(), seed=0)
    kw = {"init": Zero(), "steps": 3, "optimizer": SGD(0.1)}

    def run(*context):
        with autocast(*context):
            result = net.infer(CLAMPS, **kw)
            net.zero_grad()
            result.accumulate()
            return torch.cat([result.energy, *(p.grad.flatten() for p in net.parameters())])

    plain, half, other = run(False), run(), run(True, torch.float16)
    assert torch.equal(run(False), plain)
    assert torch.equal(run(), half)
    assert not torch.equal(plain, half)
    assert not torch.equal(half, other)
    torch.testing.assert_close(plain, other, rtol=0.01, atol=0.01)


def test_learning_outside_of_the_context_is_the_same():
    """As with autograd, backward() runs in the precision of what came before it, wherever it is called."""
    net = PCNetwork(wired(), seed=0)
    grads = []
    for inside in (True, False):
        net.zero_grad()
        with autocast():
            result = net.infer(CLAMPS, init=Zero(), steps=3, optimizer=SGD(0.1))
            if inside:
                result.accumulate()
        if not inside:
            result.accumulate()
        grads.append([p.grad for p in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads))


def test_a_prediction_is_that_of_torch_under_autocast():
    """What is predicted under autocast is within its precision of the float32 pass, and is no float32 pass."""
    net = PCNetwork(pcgraph.graphs.chain([8, 8, 8, 4], activation="gelu"), seed=0)
    x = torch.randn(16, 8)
    plain = net.predict({"x": x}, "y")
    with autocast():
        half = net.predict({"x": x}, "y")
    assert half.dtype == torch.float32
    assert not torch.equal(plain, half)
    torch.testing.assert_close(half, plain, **CLOSE)


def test_stored_entries_stay_in_the_states_dtype():
    """CSR products, single neurons' and SparseLinear's, are the same under autocast to the last bit."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(12), shape=1, activation="tanh")
    graph.add_edges_from((u, (3 * u + k) % 12) for u in range(12) for k in range(4))
    graph.add_nodes_from("ab", shape=6, activation="tanh")
    graph.add_edge("a", "b", transform=SparseLinear(density=0.5))
    graph.add_edge("b", "a", transform=SparseLinear(density=0.5))
    net = PCNetwork(graph, seed=0)
    clamps = {0: torch.randn(4, 1), "a": torch.randn(4, 6)}
    found = []
    for half in (False, True):
        net.zero_grad()
        with autocast(half):
            result = net.infer(clamps, init=Normal(std=0), steps=3, optimizer=SGD(0.1))
            result.accumulate()
        found.append([*result.states.values(), *(p.grad for p in net.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found))


def test_other_states_than_float32_are_left_alone():
    """A network in float64 was asked to be exact."""
    net = PCNetwork(wired(), seed=0, dtype=torch.float64)
    clamps = {v: c.double() for v, c in CLAMPS.items()}
    energies = []
    for half in (False, True):
        with autocast(half):
            energies.append(net.infer(clamps, init=Zero(), steps=3, optimizer=SGD(0.1)).energy)
    assert torch.equal(*energies)
