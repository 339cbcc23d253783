"""The engine against the slow reference, in float64, on graphs drawn by Hypothesis and on fixed ones."""

from __future__ import annotations

import itertools
from dataclasses import replace

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import SGD, Adam, Forward, Masked, Normal, PCNetwork, Zero
from pcgraph import transforms as T
from pcgraph.backends import traits
from pcgraph.backends.torch.lowering import lower
from pcgraph.initializers import Given, Layout, Swept
from pcgraph.testing import reference
from pcgraph.testing.strategies import digraphs, problems
from tests.builders import EXACT, assert_equal_to_reference, clamps_of, double, initial_states

#: The usual eps, 1e-8, makes a step of 1e-9 of a gradient of 1e-17, by which one way of summing differs from another at
#: a node that was swept, and the next steps make more of it.
ADAM = Adam(lr=0.02, eps=1e-3)
OPTIMIZERS = st.sampled_from(
    [
        SGD(lr=0.07), SGD(lr={1: 0.1, 2: 0.01, None: 0.03}), SGD(lr=0.05, momentum=0.8),
        SGD(lr=0.05, momentum=0.8, nesterov=True), ADAM,
    ]
)  # fmt: skip
INITIALIZERS = st.sampled_from(["zero", "normal", "forward"])


def initializer(name):
    return {"zero": Zero(), "normal": Normal(std=0.3), "forward": Forward(fallback=Zero())}[name]


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(max_examples=120, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=7, activations=("identity", "tanh", "gelu", "sigmoid"))),
    name=INITIALIZERS,
    steps=st.integers(0, 6),
    optimizer=OPTIMIZERS,
    kernel=st.sampled_from([None, "dense", "batched"]),
    wide=st.sampled_from([1, traits.CPU.lasting_slope]),
)
def test_every_plan_equals_the_reference(device, problem, name, steps, optimizer, kernel, wide):
    """If this fails, some graph trains on wrong states or gradients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traits, "CPU", replace(traits.CPU, lasting_slope=wide))
        check_a_plan(problem, name, steps, optimizer, kernel, device=device)


@pytest.mark.parametrize("activation", pcgraph.activations.ACTIVATIONS)
@pytest.mark.parametrize("steps", [3, 4, 5, 9])
def test_what_is_kept_of_a_first_layer_is_what_it_would_be(device, activation, steps):
    """Its input never changes, so that its prediction and slope are computed once: as the reference does each time."""
    graph = pcgraph.graphs.chain([3, traits.CPU.lasting_slope, 4, 3, 2], activation=activation)
    graph.nodes["h1"]["precision"] = 0.7
    net = PCNetwork(graph, seed=1, dtype=torch.float64, device=device)
    clamps = {"x": double(4, 3, device=device), "y": double(4, 2, seed=1, device=device)}
    for init in (Forward(), Zero(), Normal(std=0.3)):
        plan = net.plan(clamps, init=init, steps=steps)
        calls = lower(plan, net.backend.kernels(plan, net), traits.CPU)
        slopes = {call.slope for stage in (*calls.stages, calls.final) for call in stage.errors} - {None}
        reached = steps > 3 or not isinstance(init, Forward)
        assert slopes == ({"keep", "use"} if reached and activation != "identity" else set())
        assert_equal_to_reference(net, clamps, init, steps, SGD(lr=0.05))


def check_a_plan(problem, name, steps, optimizer, kernel, device="cpu"):
    net = PCNetwork(problem.graph, seed=problem.seed, dtype=torch.float64, device=device)
    clamps = {
        v: double(2, *net.structure.shape(v), seed=i, device=device)
        for i, v in enumerate(sorted(problem.clamped, key=str))
    }
    if not clamps:
        clamps = {next(iter(net.graph)): double(2, *net.structure.shape(next(iter(net.graph))), device=device)}
    if isinstance(optimizer.lr, dict):  # a rate for a node that is not there is refused
        optimizer = SGD(lr={v: lr for v, lr in optimizer.lr.items() if v is None or v in problem.graph})
    pins = {} if kernel is None else {b.name: kernel for b in net.structure.buckets if b.kind == "linear"}
    assert_equal_to_reference(net, clamps, initializer(name), steps, optimizer, kernels=pins)


ACTIVATIONS = [*pcgraph.activations.ACTIVATIONS, torch.sin, torch.nn.Softmax(dim=-1)]


def name_of(activation):
    """The same in every process: an address in a test's name would tell workers apart."""
    return activation if isinstance(activation, str) else getattr(activation, "__name__", type(activation).__name__)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=name_of)
@pytest.mark.parametrize("cyclic", [False, True])
def test_every_activation_on_dags_and_cycles(device, activation, cyclic):
    """Weight gradients and state updates equal autograd for every activation, self-loops, parallel edges included."""
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=3)
    for name in "abc":
        graph.add_node(name, shape=4, activation=activation)
    graph.add_node("y", shape=2)
    graph.add_edges_from([("x", "a"), ("a", "b"), ("b", "c"), ("a", "c"), ("c", "y"), ("b", "c"), ("x", "y")])
    if cyclic:
        graph.add_edges_from([("c", "a"), ("b", "b"), ("b", "b")])
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    clamps = {"x": double(3, 3, device=device), "y": double(3, 2, seed=1, device=device)}
    for init in (Normal(std=0.5), Forward(fallback=Zero())):
        for steps in (1, 4):
            assert_equal_to_reference(net, clamps, init, steps, SGD(lr=0.05))


def everything() -> nx.MultiDiGraph:
    """A graph with most of what can be declared."""
    graph = nx.MultiDiGraph()
    for name in "abcdef":
        graph.add_node(name, shape=3, activation="gelu")
    graph.add_node("x", shape=4)
    graph.add_node("p", shape=(3,), prior=0.5, precision=3.0)
    graph.add_node("y", shape=2, precision=2.0)
    graph.nodes["d"]["precision"] = 0.5
    graph.nodes["e"]["bias"] = False
    for u, v in ["xa", "ab", "bc", "ca", "cd", "de", "ef", "fy", "aa", "bd", "bd", "xf", "af", "pf", "pa"]:
        graph.add_edge(u, v)
    graph.add_edge("d", "a", activation="tanh")
    graph.add_edge("a", "f", transform="identity", activation="sigmoid")
    graph.add_edge("b", "f", transform=torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh()))
    graph.add_edge("e", "c", share="s")
    graph.add_edge("f", "c", share="s")
    graph.add_edge("f", "d", trainable=False)
    return graph


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 9])
@pytest.mark.parametrize(
    "init", [Zero(), Normal(std=0.4), Forward(fallback=Zero()), Forward(fallback=Normal())], ids=repr
)
@pytest.mark.parametrize("optimizer", [SGD(0.05), SGD({"a": 0.1, None: 0.02}), SGD(0.03, 0.9), ADAM], ids=repr)
def test_a_graph_with_everything(device, steps, init, optimizer):
    """Priors, precisions, shared and fixed weights, edge activations, modules: alone each is easy to get right."""
    net = PCNetwork(everything(), seed=1, dtype=torch.float64, device=device)
    clamps = {"x": double(3, 4, device=device), "y": double(3, 2, seed=1, device=device)}
    assert_equal_to_reference(net, clamps, init, steps, optimizer)
    clamps["b"] = double(3, 3, seed=2, device=device)
    assert_equal_to_reference(net, clamps, init, steps, optimizer)
    clamps["d"] = Masked(double(3, 3, seed=3, device=device), double(3, 3, seed=4, device=device) > 0)
    clamps["p"] = Masked(double(3, 3, seed=5, device=device), double(3, seed=6, device=device) > 0)
    assert_equal_to_reference(net, clamps, init, steps, optimizer)


@pytest.mark.parametrize("steps", [2, 4, 6])
@pytest.mark.parametrize("kernel", ["batched", "dense"])
@pytest.mark.parametrize("optimizer", [SGD(0.05), SGD(0.05, 0.8), ADAM], ids=repr)
def test_the_error_spreads_a_step_at_a_time(device, steps, kernel, optimizer):
    """Parents that begin to move one after the other: what is kept of the slow ones must not be counted twice, and a
    node that moves late must move at all, whatever the optimizer remembers."""
    graph = pcgraph.graphs.chain([3, 3, 3, 3, 3, 3, 3], activation="tanh")
    graph.add_edges_from([("h1", "h3"), ("h2", "h4"), ("h1", "h4"), ("h3", "h5")])
    net = PCNetwork(graph, seed=1, dtype=torch.float64, device=device)
    clamps = {"x": double(4, 3, device=device), "y": double(4, 3, seed=1, device=device)}
    pins = {b.name: kernel for b in net.structure.buckets}
    assert_equal_to_reference(net, clamps, Forward(), steps, optimizer, kernels=pins)


@pytest.mark.parametrize("kind", ["shared", "module", "convolution"])
def test_autocast_leaves_states_energies_and_gradients_in_float32(device, kind):
    """A training loop under autocast computes what it does without, but for the precision of products."""
    graph = pcgraph.graphs.chain([8, 8, 8, 8], activation="tanh")
    if kind == "shared":
        for edge in (("x", "h1"), ("h1", "h2")):
            graph.edges[edge]["share"] = "same"
    elif kind == "module":
        graph.edges["x", "h1"]["transform"] = torch.nn.Linear(8, 8)
        graph.edges["h1", "h2"]["transform"] = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    else:
        graph.nodes["x"]["shape"] = (2, 4, 4)
        graph.nodes["h1"]["shape"] = (2, 4, 4)
        graph.edges["x", "h1"]["transform"] = pcgraph.transforms.Conv2d(2, 2, 3, padding=1)
        graph.edges["h1", "h2"]["transform"] = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32, 8))
    net = PCNetwork(graph, seed=0, device=device)
    clamps = {v: double(6, *net.structure.shape(v), seed=i, device=device).float() for i, v in enumerate(("x", "y"))}
    found = []
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            result = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1))
            result.backward()
        found.append([*result.states.values(), result.energy, *(p.grad for p in net.parameters())])
    for one, other in zip(*found):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, one, rtol=0.1, atol=0.05)


class Decay(pcgraph.optimizers.StateOptimizer):
    """Moves a state even where its gradient is zero, and says so."""

    momentum, nesterov = 0.0, False

    def step(self, state, grad, memory):
        state.mul_(0.9).sub_(grad, alpha=memory["lr"])


def test_an_optimizer_that_moves_zero_gradients_is_believed(device):
    """A user's optimizer without promises costs speed and never the answer."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 4, 4, 2], activation="tanh"), dtype=torch.float64, device=device)
    clamps = {"x": double(3, 3, device=device), "y": double(3, 2, seed=1, device=device)}
    start = initial_states(net, clamps, Forward())
    result = net.infer(clamps, init=Forward(), steps=3, optimizer=Decay(0.1))
    expected = reference.infer(net, clamps, start, 3, lambda v, h, g, t: 0.9 * h - 0.1 * g)
    result.backward()
    for v in net.graph:
        torch.testing.assert_close(result.states[v], expected.states[v], **EXACT)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected.gradients[name], **EXACT)


class Quartic(pcgraph.energies.Energy):
    """An energy without promises, and none of its derivatives written."""

    def energy(self, h, mu):
        return ((h - mu).flatten(1) ** 4).sum(1) + (h * mu).flatten(1).sum(1)


def test_an_energy_without_promises_is_never_skipped(device):
    """Its errors do not vanish at the prediction, so that every node with it counts from the first step."""
    graph = pcgraph.graphs.chain([3, 4, 4, 2], activation="tanh")
    graph.nodes["h1"]["energy"] = Quartic()
    graph.nodes["y"]["energy"] = Quartic()
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    clamps = {"x": double(3, 3, device=device), "y": double(3, 2, seed=1, device=device)}
    for steps in (0, 1, 3):
        start = initial_states(net, clamps, Forward())
        result = net.infer(clamps, init=Forward(), steps=steps, optimizer=SGD(0.1), trace=True)
        expected = reference.infer(net, clamps, start, steps, lambda v, h, g, t: h - 0.1 * g)
        for v in net.graph:
            torch.testing.assert_close(result.states[v], expected.states[v], **EXACT)
        torch.testing.assert_close(result.trace, torch.stack(expected.trace), **EXACT)


@pytest.mark.parametrize("edges", [40, 400])
def test_scalar_edges_as_a_csr_matrix(device, edges):
    """Graphs of single neurons take the sparse kernel, parallel edges and self-loops included."""
    graph = nx.gnm_random_graph(20, edges, seed=3, directed=True) if edges < 380 else nx.complete_graph(20, nx.DiGraph)
    graph = nx.MultiDiGraph(graph)
    graph.add_edges_from([(0, 0), (1, 2), (1, 2), (5, 5)])
    nx.set_node_attributes(graph, 1, "shape")
    nx.set_node_attributes(graph, "tanh", "activation")
    graph.add_edge(3, 4, activation="sigmoid")
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    clamps = {0: double(5, 1, device=device), 7: double(5, 1, seed=1, device=device)}
    plan = net.plan(clamps, init=Zero(), steps=3)
    assert "sparse" in {kernel.name for kernel in net.backend.kernels(plan, net)}
    for init in (Zero(), Normal(std=0.3), Forward(fallback=Zero())):
        for optimizer in (SGD(0.05), ADAM):
            assert_equal_to_reference(net, clamps, init, 4, optimizer)


def test_a_masked_clamp_fixes_what_it_masks_and_frees_the_rest(device):
    """Half an image is known: those pixels must never move, and the others must."""
    net = PCNetwork(pcgraph.graphs.chain([6, 5, 4], activation="tanh"), dtype=torch.float64, device=device)
    mask = torch.tensor([True, False, True, False, True, False], device=device)
    values = double(3, 6, device=device)
    clamps = {"x": Masked(values, mask), "y": double(3, 4, seed=1, device=device)}
    result = assert_equal_to_reference(net, clamps, Zero(), 5, SGD(0.1))
    assert torch.equal(result.states["x"][:, mask], values[:, mask])
    assert (result.states["x"][:, ~mask] != 0).all()


def test_float32_follows_float64(device):
    """The precision that people train in agrees with the one that is proved."""
    graph = pcgraph.graphs.chain([20, 30, 30, 30, 5])
    x, y = double(16, 20, device=device), double(16, 5, seed=1, device=device)
    results = []
    for dtype in (torch.float64, torch.float32):
        net = PCNetwork(graph, seed=3, dtype=dtype, device=device)
        result = net.infer({"x": x.to(dtype), "y": y.to(dtype)}, init=Forward(), steps=6, optimizer=SGD(0.1))
        result.backward()
        results.append({**dict(result.states), **{n: p.grad for n, p in net.named_parameters()}})
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key].double(), value, rtol=1e-4, atol=1e-6)


def sparse_graph() -> nx.MultiDiGraph:
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=5)
    graph.add_node("h", shape=(2, 4), activation="tanh")
    graph.add_node("g", shape=8, activation="gelu")
    graph.add_node("y", shape=3)
    again = pcgraph.transforms.SparseLinear(density=0.3, seed=2)
    mask = torch.rand(8, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    graph.add_edge("x", "h", transform=pcgraph.transforms.SparseLinear(mask=mask))
    graph.add_edge("h", "h", transform=again)
    graph.add_edge("h", "g", transform=again, activation="sigmoid")
    graph.add_edge("g", "g", transform=pcgraph.transforms.SparseLinear(torch.tensor([[0, 1, 7], [3, 3, 0]])))
    graph.add_edge("g", "h", transform=again, trainable=False)
    graph.add_edge("g", "y")
    graph.add_edge("h", "y", transform=pcgraph.transforms.SparseLinear(density=1.0))
    return graph


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([[0, 1, 0], [2, 1, 2]], r"the entry 0 -> 2 twice .*give each pair once"),
        ([[0, -1], [0, 1]], "a negative neuron"),
        ([[], []], "at least one entry"),
        ([[0, 4], [0, 0]], r"the source neuron 4, but the source has 4 neurons \(0 to 3\)"),
        ([[0, 0], [0, 3]], r"the target neuron 3, but the target has 3 neurons \(0 to 2\)"),
        ([0, 1], r"integers of shape \(2, entries\)"),
    ],
)
def test_entries_that_are_none(device, entries, message):
    """A wrong list of entries is refused where it is declared, and the message says which entry."""

    def declared():
        graph = nx.DiGraph()
        graph.add_node("x", shape=4)
        graph.add_node("y", shape=3)
        graph.add_edge(
            "x", "y", transform=pcgraph.transforms.SparseLinear(torch.tensor(entries, dtype=torch.int64, device=device))
        )
        return PCNetwork(graph, device=device)

    with pytest.raises(pcgraph.GraphError, match=message):
        declared()


@pytest.mark.parametrize("init", [Zero(), Forward(fallback=Normal(std=0.3))], ids=repr)
@pytest.mark.parametrize("optimizer", [SGD(0.05), ADAM], ids=repr)
def test_stored_entries_between_groups(device, init, optimizer):
    """SparseLinear edges, loops and shared patterns included, both ways and in their gradients."""
    net = PCNetwork(sparse_graph(), dtype=torch.float64, device=device)
    clamps = {"x": double(3, 5, device=device), "y": double(3, 3, seed=1, device=device)}
    for steps in (0, 1, 4):
        assert_equal_to_reference(net, clamps, init, steps, optimizer)


@pytest.mark.parametrize("kernel", ["batched", "dense"])
def test_rates_follow_their_nodes_as_the_error_spreads(device, kernel):
    """The states that move grow in number from step to step; each keeps the rate of its own node."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 4, 4, 2], activation="tanh"), dtype=torch.float64, device=device)
    clamps = {"x": double(3, 3, device=device), "y": double(3, 2, seed=1, device=device)}
    pins = {b.name: kernel for b in net.structure.buckets}
    assert_equal_to_reference(net, clamps, Forward(), 4, SGD({"h3": 0.1, None: 0.01}), kernels=pins)


@pytest.mark.parametrize("size", [4, 1])
def test_a_run_forgets_the_signals_of_the_one_before(device, size):
    """Edges that are computed without need, to make a slice, must not carry what an earlier run left behind."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=3)
    graph.add_node("u", shape=size, activation="tanh")
    graph.add_edge("x", "u")
    for i in range(40):
        graph.add_node(i, shape=size)
        graph.add_edge("u", i)
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    clamps = {
        "x": double(3, 3, device=device),
        **{i: double(3, size, seed=i, device=device) for i in range(40) if i % 10},
    }
    assert_equal_to_reference(net, clamps, Forward(), 3, SGD(0.05))
    assert_equal_to_reference(net, clamps, Zero(), 3, SGD(0.05))


def test_priors_beside_biases_that_learn(device):
    """Roots with a prior and hidden nodes of one shape are filled together; the biases are those of today."""
    graph = nx.DiGraph()
    graph.add_node("p", shape=3, prior=0.5)
    for v in "ab":
        graph.add_node(v, shape=3, activation="tanh")
    graph.add_node("y", shape=2)
    nx.add_path(graph, ["p", "a", "b", "y"])
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    for init in (Zero(), Normal(), Forward(fallback=Zero())):
        assert_equal_to_reference(net, {"y": double(4, 2, device=device)}, init, 3, SGD(0.1))


def test_masked_neurons_stay_under_any_optimizer(device):
    """An optimizer that moves states without a gradient must not move what is known."""
    net = PCNetwork(pcgraph.graphs.chain([6, 5, 4], activation="tanh"), dtype=torch.float64, device=device)
    mask = torch.tensor([True, False, True, False, True, False], device=device)
    clamps = {"x": Masked(double(3, 6, device=device), mask), "y": double(3, 4, seed=1, device=device)}
    states = net.infer(clamps, init=Normal(), steps=3, optimizer=Decay(0.1)).states
    assert torch.equal(states["x"][:, mask], clamps["x"].values[:, mask])
    assert (states["x"][:, ~mask] != 0).all()


def test_promises_are_not_inherited(device):
    """A user's subclass that does more than its parent is believed to have promised nothing."""

    class Noisy(SGD):
        def step(self, state, grad, memory):
            state.add_(0.01).sub_(grad, alpha=memory["lr"])

    class Cubic(pcgraph.energies.Gaussian):
        def energy(self, h, mu):
            return (h - mu).abs().pow(3).flatten(1).sum(1)

    graph = pcgraph.graphs.chain([3, 4, 4, 2], activation="tanh")
    graph.nodes["h1"]["energy"] = Cubic()
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    clamps = {"x": double(3, 3, device=device), "y": double(3, 2, seed=1, device=device)}
    start = initial_states(net, clamps, Forward())
    result = net.infer(clamps, init=Forward(), steps=2, optimizer=Noisy(0.1))
    expected = reference.infer(net, clamps, start, 2, lambda v, h, g, t: h + 0.01 - 0.1 * g)
    for v in net.graph:
        torch.testing.assert_close(result.states[v], expected.states[v], **EXACT)


def total(x):
    """The sum of a node's neurons for each of them: both ways a view of no memory of its own."""
    return x.flatten(1).sum(1).view(-1, 1, 1).expand_as(x)


def transposed(x):
    return x.transpose(1, 2)


@pytest.mark.parametrize("function", [total, transposed])
@pytest.mark.parametrize("kind", ["dense", "batched", "identity", "stored entries"])
def test_an_edge_activation_may_answer_with_a_view(device, kind, function):
    """A user's function, or its derivative, that expands or transposes must not be asked for a layout in memory."""
    transform = {"identity": T.Identity(), "stored entries": T.SparseLinear(density=0.6)}.get(kind, T.Linear())
    graph = nx.DiGraph()
    graph.add_nodes_from("abcdef", shape=(2, 2), activation="tanh")
    edges = [*itertools.product("ab", "cd"), *itertools.product("cd", "ef"), ("c", "c"), ("a", "f")]
    graph.add_edges_from(edges, activation=function, transform=transform)
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    pins = {b.name: kind for b in net.structure.buckets if b.kind == "linear"}
    clamps = {"a": double(3, 2, 2, device=device), "f": double(3, 2, 2, seed=1, device=device)}
    assert_equal_to_reference(net, clamps, Normal(std=0.3), 3, SGD(0.05), kernels=pins)


class Overwrites(pcgraph.Initializer):
    """Sweeps everything, and then puts something else into one node."""

    def requirement(self, report):
        return report.verdicts["zero"]

    def layout(self, report, context=None):
        return Layout((Swept(report.order), Given(self, ("h1",))))

    def init(self, block, out, context):
        out.fill_(0.3)


def test_a_sweep_whose_parent_is_written_over_is_not_exact(device):
    """Its children were swept from another value: their errors must not be taken for zero."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 4, 4, 2], activation="tanh"), dtype=torch.float64, device=device)
    clamps = {"x": double(3, 3, device=device), "y": double(3, 2, seed=1, device=device)}
    for steps in (0, 1, 3):
        assert_equal_to_reference(net, clamps, Overwrites(), steps, SGD(0.1))


class Late(pcgraph.Initializer):
    """Sweeps the first of three nodes that lie side by side, and begins with zeros in the two around the known one."""

    def requirement(self, report):
        return report.verdicts["zero"]

    def layout(self, report, context=None):
        return Layout((Swept(("a",)), Given(self.zero, ("b", "d"))))

    zero = Zero()


def test_zeros_after_a_sweep_spare_the_clamp_between_them(device):
    """Zeros may run over a clamped node before it gets its value, so that they are written at once, and not after."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=3)
    graph.add_nodes_from("abcde", shape=3, activation="tanh")
    graph.add_edges_from([("x", "a"), ("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")])
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    clamps = {
        "x": double(2, 3, device=device),
        "c": double(2, 3, seed=1, device=device),
        "e": double(2, 3, seed=2, device=device),
    }
    result = assert_equal_to_reference(net, clamps, Late(), 2, SGD(0.1))
    assert torch.equal(result.states["c"], clamps["c"])


@pytest.mark.parametrize("steps", range(5))
def test_energies_of_a_part_of_like_nodes_have_their_own_precisions(device, steps):
    """The error spreads from the last of them to the first, so that those in the middle are measured alone."""
    graph = pcgraph.graphs.chain([3] * 7, activation="identity")
    for i, v in enumerate(graph):
        graph.nodes[v]["precision"] = 1.0 + i
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    assert_equal_to_reference(
        net, {"x": double(2, 3, device=device), "y": double(2, 3, seed=1, device=device)}, Forward(), steps, SGD(0.05)
    )


@pytest.mark.parametrize("activation", ["tanh", "identity"])
def test_a_module_with_a_pullback_behind_an_edges_activation(activation):
    """What comes back to the source goes through the module, and through the edge's activation before it."""
    graph = nx.DiGraph()
    graph.add_nodes_from([("x", {"shape": (1, 4, 4)}), ("h", {"shape": (2, 4, 4)}), ("y", {"shape": (1, 2, 2)})])
    graph.add_edge("x", "h", transform=T.Conv2d(1, 2, 3, padding=1))
    graph.add_edge("h", "y", transform=T.Conv2d(2, 1, 3), activation=activation)
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    assert {bucket.kind for bucket in net.structure.buckets} == {"module"}
    assert_equal_to_reference(net, clamps_of(net), Normal(std=0.5), 3, SGD(0.1))
