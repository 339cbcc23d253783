"""torch's default device says where a network without a device lies, and nothing else.

Oracle: the same calls with the CPU for a default. On ``meta`` tensors have no values, so that one which the library
makes on the default device by mistake lies beside a network on the CPU, and the run fails: that is found without a GPU.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import pcgraph
from pcgraph import SGD, Adam, Average, Equilibrium, Forward, Masked, Memory, Normal, Null, PCNetwork, PerNode, Zero
from pcgraph import transforms as T
from pcgraph.data import Images
from pcgraph.serialization import read_graph, write_graph
from pcgraph.testing import conformance
from pcgraph.testing.strategies import problems
from tests.builders import double


@pytest.fixture
def elsewhere():
    """torch's default device is one on which nothing has a value."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def varied() -> nx.DiGraph:
    """Named transforms, energies, priors, slots, shared weights, stored entries, a cycle: whatever is made by name."""
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=(1, 4, 4))
    graph.add_node("c", shape=(2, 2, 2), activation="tanh", energy="learned_precision")
    graph.add_node("h", shape=4, activation="gelu", slots={"down": {"precision": 0.5}})
    graph.add_node("k", shape=4, activation="tanh", energy=("laplace", {"scale": 2.0}))
    graph.add_node("y", shape=3)
    graph.add_node("p", shape=3, prior=[0.1, 0.2, 0.3])
    graph.add_edge("x", "c", transform=("conv2d", {"in_channels": 1, "out_channels": 2, "kernel_size": 3}))
    graph.add_edge("c", "h", transform=("sparse_linear", {"density": 0.5}))
    graph.add_edge("h", "k", share="one", init="orthogonal")
    graph.add_edge("k", "h", share="one", init="orthogonal")
    graph.add_edge("y", "h", slot="down")
    graph.add_edge("h", "k", transform=("masked_linear", {"mask": np.eye(4, dtype=int).tolist()}))
    graph.add_edge("k", "k", transform="identity", scale=0.1)
    graph.add_edge("k", "y", activation="sigmoid")
    graph.add_edge("p", "y")
    return graph


def chain(**settings) -> PCNetwork:
    return PCNetwork(pcgraph.graphs.chain([4, 5, 5, 3], activation="tanh"), seed=1, device="cpu", **settings)


def batch(count: int = 6, seed: int = 0) -> dict:
    with torch.device("cpu"):
        x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
        return {"x": x, "y": torch.eye(3)[torch.arange(count) % 3]}


def flat(found) -> list:
    """All numbers of a nest of mappings, sequences and tensors."""
    if isinstance(found, dict):
        return [value for v in found.values() for value in flat(v)]
    if isinstance(found, list | tuple):
        return [value for v in found for value in flat(v)]
    assert not isinstance(found, torch.Tensor) or found.device.type == "cpu"
    return [found.detach().clone() if isinstance(found, torch.Tensor) else found]


def learned(net: PCNetwork, init, clamps, **how) -> list:
    """States, energy and gradients of two inferences of which the initializer and the network learn."""
    seen = []
    for _ in range(2):
        net.zero_grad()
        result = net.infer(clamps, init=init, **{"steps": 3, "optimizer": SGD(0.1), "trace": True, **how})
        result.backward()
        seen += flat([dict(result.states), result.trace, result.node_energy, [p.grad for p in net.parameters()]])
    return seen


INITIALIZERS = {
    "zero": lambda net: Zero(), "normal": lambda net: Normal(seed=2), "forward": lambda net: Forward(),
    "average": lambda net: Average(forward_depth=1), "null": lambda net: Null(),
    "memory": lambda net: Memory(net, patterns=3, heads=1, embed_dim=4),
    "equilibrium": lambda net: Equilibrium(release="y", steps=5),
    "per node": lambda net: PerNode({"h1": Normal()}, default=Forward()),
}  # fmt: skip
INFERENCES = {
    "momentum": {"optimizer": SGD(0.1, momentum=0.5)}, "Adam": {"optimizer": Adam(0.05)},
    "a rate for each node": {"optimizer": SGD({"h1": 0.1, None: 0.05})},
    "L-BFGS": {"optimizer": pcgraph.LBFGS()}, "Anderson": {"optimizer": pcgraph.Anderson(0.1, ridge=0.1)},
    "a tolerance": {"tolerance": 1e-2}, "nodes": {"trace": "nodes"}, "errors": {"coordinates": pcgraph.Errors()},
    "precision": {"precision": {"h1": 0.3}},
}  # fmt: skip


def initialized(name):
    net = chain()
    init = INITIALIZERS[name](net)
    return [learned(net, init, batch()), flat(dict(init.state_dict())), net.state_dict()]


def inferred(name):
    return learned(chain(), Forward(), batch(), **INFERENCES[name])


def various():
    """A graph of everything: built, checked, planned, run, with a partial clamp as well."""
    net = PCNetwork(varied(), seed=1, device="cpu")
    x = double(3, 1, 4, 4, device="cpu").float()
    clamps = {"x": Masked(x, x > 0), "y": double(3, 3, seed=1, device="cpu").float()}
    init = Forward(roots=Normal(), fallback=Zero())
    report, plan = pcgraph.check(net.graph, {"x", "y"}), net.plan({"x", "y"}, init=init, steps=2)
    assert report.order is None
    return [learned(net, init, clamps), net.state_dict(), plan.explain(), plan.flops(3), plan.memory(3)]


def asked():
    """What a network and its room can be asked, beside inference."""
    net, clamps = chain(), batch()
    return [
        net.predict({"x": clamps["x"]}, "y"), net.curvature(clamps, init=Forward()),
        pcgraph.safe_rate(net, clamps, init=Forward()), dict(net.to_data("groups")), dict(net.to_data()),
        net.infer(clamps, init=net.carry_on(dict(net.infer(clamps, init=Zero(), steps=0).states)), steps=0).energy,
        pcgraph.topology.verify(net.graph, {"x"}, pcgraph.check(net.graph, {"x"}).verdicts["forward"].witness),
    ]  # fmt: skip


def by_rules():
    """Each learning rule, with what it moves."""
    seen = []
    for rule in (
        pcgraph.learning.Standard(), pcgraph.learning.Incremental(), pcgraph.learning.Nudged(strength=0.1),
        pcgraph.learning.Backprop(),
    ):  # fmt: skip
        net, infers = chain(), not isinstance(rule, pcgraph.learning.Backprop)
        how = {"init": Forward(), "steps": 3, "state_optimizer": SGD(0.1)} if infers else {}
        moves = torch.optim.Adam(net.parameters(), 0.01)
        pcgraph.fit(net, [batch(), batch(seed=1)], optimizer=moves, rule=rule, progress=False, **how)
        seen.append(net.state_dict())
    return seen


def trained(folder):
    """A training from images, evaluated, saved, resumed, loaded."""
    pixels = double(30, 4, seed=3, device="cpu").float()
    images = Images(pixels, torch.from_numpy(np.arange(30) % 3), ["a", "b", "c"])
    loader = images.batches(6, seed=1, stream_aligned=True)

    def run(**more):
        net, init = chain(), Average()
        moves = torch.optim.AdamW(net.parameters(), 0.01)
        history = pcgraph.fit(
            net, loader, init=init, steps=2, optimizer=moves, state_optimizer=SGD(0.1), progress=False,
            checkpoint=folder, validate=images.batches(10, shuffle=False), **more,
        )  # fmt: skip
        return net, init, history

    run(epochs=1)
    net, init, history = run(epochs=3, resume=folder)
    found = pcgraph.evaluate(net, [(np.asarray(pixels), np.arange(30) % 3)])
    twin = pcgraph.load(folder).net
    write_graph(folder / "graph.json", net.graph)
    again = PCNetwork(read_graph(folder / "graph.json"), device="cpu")
    numbers = [(record.energy, record.accuracy, dict(record.validation)) for record in history]
    return [net.state_dict(), dict(init.state_dict()), numbers, found.as_dict(), twin.state_dict(), again.state_dict()]


def declared_elsewhere():
    """Modules, indices and masks that were made on the CPU."""
    with torch.device("cpu"):
        from torch_geometric.nn import GCNConv

        torch.manual_seed(0)
        index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        modules = T.GraphLayer(GCNConv(2, 2), index), nn.Sequential(nn.Flatten(), nn.Linear(8, 4)), nn.Tanh()
        entries = T.SparseLinear(edge_index=index)
    graph = nx.DiGraph()
    graph.add_node("x", shape=(4, 2))
    graph.add_node("g", shape=(4, 2), activation=torch.sin)
    graph.add_nodes_from("hky", shape=4)
    graph.add_edge("x", "g", transform=modules[0])
    graph.add_edge("g", "h", transform=modules[1])
    graph.add_edge("h", "k", transform=modules[2])
    graph.add_edge("k", "y", transform=entries)
    return graph


def ran_elsewhere():
    net = PCNetwork(declared_elsewhere(), device="cpu")
    clamps = {"x": double(3, 4, 2, device="cpu").float(), "y": double(3, 4, seed=1, device="cpu").float()}
    return learned(net, Forward(), clamps)


JOURNEYS = {
    **{f"from {name}": lambda name=name: initialized(name) for name in INITIALIZERS},
    **{f"by {name}": lambda name=name: inferred(name) for name in INFERENCES},
    "various": various, "asked": asked, "rules": by_rules, "declared elsewhere": ran_elsewhere,
}  # fmt: skip


@pytest.mark.parametrize("name", JOURNEYS)
def test_nothing_is_made_on_the_default_device(name, request):
    """A user whose default is a GPU runs a network on the CPU beside it, with the same numbers."""
    expected = flat(JOURNEYS[name]())
    request.getfixturevalue("elsewhere")
    assert_same(flat(JOURNEYS[name]()), expected)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        else:
            assert one == other


def test_a_training_makes_nothing_on_the_default_device(tmp_path, request):
    """Nor do batches, checkpoints, graphs that are saved, and evaluation."""
    expected = flat(trained(tmp_path / "one"))
    request.getfixturevalue("elsewhere")
    assert_same(flat(trained(tmp_path / "other")), expected)


def test_conformance_checks_make_nothing_on_the_default_device(elsewhere):
    """Users test their own classes wherever their default is."""
    conformance.check_backend("torch", device="cpu")
    conformance.check_energy(pcgraph.energies.Laplace(), 3, device="cpu")
    conformance.check_transform("linear", (2, 2), device="cpu")
    conformance.check_initializer(Average(), device="cpu")
    conformance.check_state_optimizer(SGD(0.1), device="cpu")


@settings(max_examples=10, deadline=None)
@given(problems())
def test_drawn_problems_lie_where_their_network_does(problem):
    torch.set_default_device("meta")
    try:
        net = problem.network(device="cpu")
        for value in problem.clamps(net).values():
            assert (
                {t.device.type for t in (value.values, value.mask)} == {"cpu"}
                if isinstance(value, Masked)
                else value.is_cpu
            )
    finally:
        torch.set_default_device(None)


# -- where the default is what computes -------------------------------------------------------------------------------


@pytest.fixture
def default(device):
    """torch's default is the device of the test."""
    torch.set_default_device(device)
    yield device
    torch.set_default_device(None)


def test_a_network_lies_on_the_default_device(device, default):
    """As torch's own modules do; CPU generators, indices and modules declared on the CPU serve it all the same."""
    net = PCNetwork(declared_elsewhere())
    assert {p.device for p in net.parameters()} == {default}
    clamps = {v: double(3, *net.structure.shape(v)).float().to(default) for v in "xy"}
    kept = net.infer(clamps, init=Normal(seed=1), steps=3, optimizer=SGD(0.1))
    kept.backward()
    plain = PCNetwork(declared_elsewhere(), device="cpu")
    on_cpu = {v: value.cpu() for v, value in clamps.items()}
    expected = plain.infer(on_cpu, init=Normal(seed=1), steps=3, optimizer=SGD(0.1))
    expected.backward()
    for v in net.graph:
        torch.testing.assert_close(kept.states[v].cpu(), expected.states[v], rtol=1e-4, atol=1e-5)
    for one, other in zip(net.parameters(), plain.parameters()):
        torch.testing.assert_close(one.grad.cpu(), other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_initializer_works_on_the_default_device(device, default, name):
    """What they draw comes from generators of the CPU, and is the same everywhere."""
    net = PCNetwork(pcgraph.graphs.chain([4, 5, 5, 3], activation="tanh"), seed=1)
    start = INITIALIZERS[name](net)
    found = net.infer({v: t.to(default) for v, t in batch().items()}, init=start, steps=0).states
    plain = chain()
    expected = plain.infer(batch(), init=INITIALIZERS[name](plain), steps=0).states
    for v in net.graph:
        torch.testing.assert_close(found[v].cpu(), expected[v], rtol=1e-4, atol=1e-5)


def test_conformance_checks_run_on_the_default_device(device, default):
    conformance.check_energy(pcgraph.energies.LearnedPrecision(2.0), 3)
    conformance.check_transform(T.Conv2d(1, 2, 2), (1, 3, 3))
    conformance.check_initializer(Forward(fallback=Zero()))
    conformance.check_state_optimizer(Adam(0.1))


def test_batches_from_the_host_train_on_the_default_device(device, default):
    """Loaders draw with generators of the CPU; batches are brought over."""
    net = PCNetwork(pcgraph.graphs.chain([4, 5, 3], activation="tanh"), seed=1)
    images = Images(batch(12)["x"], torch.from_numpy(np.arange(12) % 3), ["a", "b", "c"])
    history = pcgraph.fit(
        net, images.batches(4, seed=0), init=Average(), steps=2, optimizer=torch.optim.Adam(net.parameters(), 0.01),
        state_optimizer=SGD(0.1), epochs=3, validate=images.batches(6, shuffle=False), progress=False,
    )  # fmt: skip
    assert history.epochs[-1].energy < history.epochs[0].energy
