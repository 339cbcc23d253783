"""Nothing is summed by atomics: rows that go to one place are added in one order, whichever way they are added."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pcgraph
from pcgraph import SGD, Adam, Average, Forward, Memory, Normal, Null, PCNetwork, Zero
from pcgraph.backends.torch import sums
from pcgraph.backends.torch.workspace import Workspace
from pcgraph.transforms import SparseLinear
from tests.backends.test_engine import everything
from tests.builders import assert_equal_to_reference, double

aten = torch.ops.aten


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def as_elsewhere(monkeypatch):
    """What other devices than a CPU do, on a CPU."""
    monkeypatch.setattr("pcgraph.backends.torch.sums._by_csr", lambda ws: False)
    monkeypatch.setattr("pcgraph.backends.torch.sparse._summed_by_rows", lambda ws: False)


class Atomics(TorchDispatchMode):
    """Refuses what a GPU does by atomics: adding to one place from several."""

    ADDING = (aten.scatter_add, aten.scatter_add_, aten.scatter_reduce, aten.index_reduce, aten.index_reduce_)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = function.overloadpacket
        assert packet not in self.ADDING, f"{packet} adds in any order"
        if packet in (aten.index_add, aten.index_add_):
            assert len(args[2].unique()) == len(args[2]), "index_add to places that repeat"
        if packet in (aten.index_put, aten.index_put_):
            assert not (args[3] if len(args) > 3 else kwargs.get("accumulate")), "index_put accumulates"
        return function(*args, **kwargs)


def sprawling() -> nx.MultiDiGraph:
    """Fan-ins and fan-outs of every kind of edge: dense, identity, module, stored entries, single neurons, shared."""
    graph = everything()
    rng = np.random.default_rng(0)
    for i in range(5):
        graph.add_edge("abcde"[i], "f", transform="identity")
        graph.add_edge("x", "abcde"[i])
    graph.add_edge("a", "e", transform=SparseLinear(density=0.5))
    graph.add_edge("b", "e", transform=SparseLinear(density=0.5))
    graph.add_nodes_from((("n", i) for i in range(12)), shape=1, activation="tanh")
    for i, (u, v) in enumerate(sorted({tuple(p) for p in rng.integers(0, 12, (60, 2)).tolist()})):
        graph.add_edge(("n", u), ("n", v), **({"share": "one"} if i % 7 == 0 else {}))
    graph.add_edge(("n", 0), "y")
    return graph


CLAMPS = {"x": double(3, 4), "y": double(3, 2, seed=1)}
LABELS = torch.tensor([1, 0, 1])


def trained(init, optimizer, dtype=torch.float64, steps=3, rounds=4):
    """Parameters and states after a few training steps, with both ways of learning into a gradient."""
    torch.manual_seed(0)
    net = PCNetwork(sprawling(), seed=1, dtype=dtype)
    init = init(net)
    weights = torch.optim.SGD([*net.parameters(), *init.parameters()], 0.01)
    clamps = {v: h.to(dtype) for v, h in CLAMPS.items()}
    for i in range(rounds):
        weights.zero_grad(set_to_none=i % 2 == 0)
        result = net.infer(clamps, init=init, steps=steps, optimizer=optimizer, labels=LABELS)
        result.backward()
        weights.step()
    return [*net.parameters(), *result.states.values(), result.energy]


INITIALIZERS = {
    "zero": lambda net: Zero(),
    "forward": lambda net: Forward(fallback=Normal(std=0.3)),
    "null": lambda net: Null(first=Zero()),
    "average": lambda net: Average(by="y", otherwise=Zero()),
    "memory": lambda net: Memory(net, observed=["x", "y"], patterns=4, heads=2, embed_dim=4),
}


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_training_step_adds_in_one_order(name, where, request):
    """With torch's switch on, whole steps run without an error, and nothing in them is for atomics to decide."""
    if where == "elsewhere":
        request.getfixturevalue("as_elsewhere")
    with Atomics():
        trained(INITIALIZERS[name], SGD(0.05))


@pytest.mark.parametrize(
    "add",
    [
        lambda x, i: x.index_add_(0, i, torch.ones(3)),
        lambda x, i: x.scatter_add_(0, i, torch.ones(3)),
        lambda x, i: x.index_put_((i,), torch.ones(3), accumulate=True),
    ],
)
def test_the_watch_sees_atomics(add):
    """Else the test above would pass whatever a step does."""
    with Atomics(), pytest.raises(AssertionError, match="any order|repeat|accumulates"):
        add(torch.zeros(3), torch.tensor([0, 1, 0]))


def test_class_means_do_not_depend_on_the_switch():
    """Sums in the order of the samples are the sums."""
    free = trained(INITIALIZERS["average"], SGD(0.05))
    torch.use_deterministic_algorithms(True)
    try:
        ordered = trained(INITIALIZERS["average"], SGD(0.05))
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(free, ordered):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("optimizer", [SGD(0.05), Adam(0.02)], ids=repr)
def test_two_runs_are_equal_to_the_last_bit(optimizer, where, request):
    """The same seeds, the same numbers, with several threads, too."""
    if where == "elsewhere":
        request.getfixturevalue("as_elsewhere")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        one, other = (trained(INITIALIZERS["average"], optimizer, torch.float32, rounds=2) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("kernel", ["batched", "dense"])
@pytest.mark.parametrize("init", [Zero(), Forward(fallback=Normal(std=0.3))], ids=repr)
def test_sums_equal_the_reference(init, kernel, where, request):
    """Every kind of fan-in and fan-out, summed by a CSR matrix of ones or by bags."""
    if where == "elsewhere":
        request.getfixturevalue("as_elsewhere")
    net = PCNetwork(sprawling(), seed=1, dtype=torch.float64)
    pins = {b.name: kernel for b in net.structure.buckets if b.kind == "linear" and b.count < 32}
    assert_equal_to_reference(net, CLAMPS, init, 3, SGD(0.05), kernels=pins)


def workspace(dtype=torch.float64) -> Workspace:
    net = PCNetwork(pcgraph.graphs.chain([2, 2]), dtype=dtype)
    return Workspace(net, 1)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("alpha", [1.0, -1.0, 0.5])
@pytest.mark.parametrize(
    "places",
    [[3, 1, 6], [2, 2, 2, 2], [1, 3, 2, 3, 1, 4], [9, 0, 9, 0], [5, 40, 5, 17, 40, 5], list(range(20, 0, -1)) * 3],
    ids=["different", "one", "near", "apart", "far", "descending"],
)
def test_rows_are_added_to_their_places(places, alpha, where, request):
    """Each row to its own place, and no other row is touched."""
    if where == "elsewhere":
        request.getfixturevalue("as_elsewhere")
    add = sums.adder(workspace(), np.array(places))
    for shape in ((41, 2, 3), (41,)):
        buffer, product = double(*shape, seed=2), double(len(places), *shape[1:], seed=3)
        expected = buffer.clone()
        for place, row in zip(places, product):
            expected[place] += alpha * row
        buffer[[i for i in range(41) if i not in places]] = torch.inf
        add(buffer, product.clone(), alpha)
        torch.testing.assert_close(buffer[places], expected[places], rtol=1e-14, atol=1e-14)
        assert buffer[[i for i in range(41) if i not in places]].isinf().all()


def test_other_dtypes_are_summed_too():
    """CSR matrices know two dtypes; states may have another."""
    add = sums.adder(workspace(torch.bfloat16), np.array([1, 0, 1]))
    buffer = torch.zeros(2, 3, dtype=torch.bfloat16)
    add(buffer, torch.ones(3, 3, dtype=torch.bfloat16), 1.0)
    assert buffer.tolist() == [[1.0] * 3, [2.0] * 3]


@pytest.mark.parametrize("where", ["deterministic", "autocast", "tf32"])
def test_what_is_bound_goes_stale_with_torchs_switches(where):
    """Buffers, and recordings on them, must not outlive the settings that they were made for."""
    ws, matmul = workspace(torch.float32), torch.backends.cuda.matmul
    before = matmul.fp32_precision
    assert not ws.stale
    try:
        if where == "deterministic":
            torch.use_deterministic_algorithms(True)
            assert ws.stale
        elif where == "tf32":
            matmul.fp32_precision = "tf32"
            assert ws.stale
        else:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert ws.stale
    finally:
        torch.use_deterministic_algorithms(False)
        matmul.fp32_precision = before
    assert not ws.stale
