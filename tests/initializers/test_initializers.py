"""Every initializer against what it is meant to do: reductions, worked examples, Eq 7 to 10, and drawn graphs."""

from __future__ import annotations

import itertools
from functools import partial

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

import pcgraph
from pcgraph import (
    SGD,
    Average,
    Equilibrium,
    Forward,
    InvalidInitializer,
    Memory,
    Normal,
    Null,
    PCNetwork,
    PerNode,
    Zero,
)
from pcgraph.errors import ClampError, ConfigError, GraphError
from pcgraph.inference import planner
from pcgraph.plan import make_plan
from pcgraph.testing import reference
from pcgraph.testing.strategies import digraphs, problems
from tests import builders
from tests.builders import double
from tests.builders import initial_states as start

chain = partial(builders.chain, 3, 4, 4, 4, 2, dtype=torch.float64)


def classes(labels, count, device="cpu"):
    return one_hot(torch.tensor(labels, device=device), count).to(device).double()


def learn(net, clamps, init, steps=3, **kw):
    """One inference from which the initializer remembers; returns the final states."""
    result = net.infer(clamps, init=init, steps=steps, optimizer=SGD(0.1), **kw)
    states = {v: h.clone() for v, h in result.states.items()}
    result.backward()
    net.zero_grad()
    return states


def same(a, b):
    assert a.keys() == b.keys()
    for v in a:
        assert torch.equal(a[v], b[v]), v


def data(labels=(0, 1, 1, 0), seed=0, device="cpu"):
    return {"x": double(len(labels), 3, seed=seed, device=device), "y": classes(labels, 2, device=device)}


# -- reductions, exactly ----------------------------------------------------------------------------------------------


def test_average_as_deep_as_the_graph_is_forward(device):
    """m at least the longest depth leaves nothing for the means."""
    net, average = chain(device=device), Average(forward_depth=4)
    learn(net, data(device=device), average)
    same(start(net, data(seed=5, device=device), average), start(net, data(seed=5, device=device), Forward()))


def test_average_on_a_first_batch_is_its_otherwise(device):
    """Before anything was seen there are no means."""
    net = chain(device=device)
    for otherwise in (Zero(), Normal(seed=3), Forward()):
        same(start(net, data(device=device), Average(otherwise=otherwise)), start(net, data(device=device), otherwise))
    same(start(net, data(device=device), Average()), start(net, data(device=device), Forward()))


@pytest.mark.parametrize("fallback", [Zero(), Normal()], ids=repr)
def test_forward_with_a_fallback_is_forward_where_that_holds(device, fallback):
    """On an acyclic graph with clamped roots nothing is left for the fallback."""
    net = chain(device=device)
    same(start(net, data(device=device), Forward(fallback=fallback)), start(net, data(device=device), Forward()))
    same(start(net, data(device=device), Forward(roots=fallback)), start(net, data(device=device), Forward()))


def test_equilibrium_on_a_dag_is_forward_and_its_exact_fixed_point(device):
    """The free phase of an acyclic network ends where the sweep is: energy zero, nothing moves."""
    net, init = chain(device=device), Equilibrium(release="y")
    same(start(net, data(device=device), init), start(net, data(device=device), Forward()))
    assert init.residual == 0.0
    free = {"x": data(device=device)["x"]}
    swept = start(net, free, Forward())
    settled = net.infer(free, init=Forward(), steps=20, optimizer=SGD(0.1))
    same(swept, dict(settled.states))
    assert torch.equal(settled.energy, torch.zeros(4, dtype=torch.float64, device=device))


@pytest.mark.parametrize("default", [Zero(), Normal(seed=2), Forward(), Forward(fallback=Zero())], ids=repr)
def test_per_node_with_nothing_named_is_its_default(device, default):
    """Naming no node changes nothing."""
    net = chain(device=device)
    same(start(net, data(device=device), PerNode({}, default=default)), start(net, data(device=device), default))


def test_memory_without_sharpness_retrieves_the_mean_of_its_patterns(device):
    """At beta = 0 every pattern weighs the same."""
    net = chain(device=device)
    memory = Memory(net, patterns=5, heads=2, embed_dim=6, beta=0.0)
    learn(net, data(device=device), memory)
    with torch.no_grad():
        for values in memory.values:
            values.copy_(double(*values.shape, seed=int(values.numel()), device=device))
    states = start(net, data(seed=9, device=device), memory)
    for node, values in zip(memory.nodes, memory.values):
        torch.testing.assert_close(states[node], values.mean(0).expand(4, -1)[:, : states[node].shape[1]])


# -- Zero, Normal, Null ------------------------------------------------------------------------------------------------


def test_zero_and_normal_have_the_moments_they_name(device):
    """std is the standard deviation: the paper's N(a, b) has a variance."""
    net = PCNetwork(pcgraph.graphs.chain([3, 400, 400, 2]), device=device)
    clamps = {"x": torch.zeros(200, 3, device=device), "y": torch.zeros(200, 2, device=device)}
    assert all((start(net, clamps, Zero())[v] == 0).all() for v in ("h1", "h2"))
    states = start(net, clamps, Normal(mean=0.5, std=2.0))
    for v in ("h1", "h2"):
        assert abs(states[v].mean() - 0.5) < 0.05
        assert abs(states[v].std() - 2.0) < 0.05
    assert not torch.equal(states["h1"], states["h2"])


def test_normal_draws_anew_after_learning_and_not_before(device):
    """The same batch twice without learning starts the same; evaluation disturbs no draw."""
    net, init = chain(device=device), Normal(seed=4)
    first = start(net, data(device=device), init)
    same(first, start(net, data(device=device), init))
    learn(net, data(device=device), init)
    assert not torch.equal(first["h1"], start(net, data(device=device), init)["h1"])
    assert not torch.equal(first["h1"], start(net, data(device=device), Normal(seed=5))["h1"])


def test_initializers_leave_the_global_generator_alone(device):
    """A run that draws must not change what the user's own code draws next."""
    torch.manual_seed(7)
    expected = torch.rand(3, device=device)
    torch.manual_seed(7)
    net = chain(device=device)
    start(net, data(device=device), Normal())
    Memory(net)
    assert torch.equal(torch.rand(3, device=device), expected)


def test_null_keeps_the_final_states_slot_by_slot(device):
    """Bit-equal to the previous batch's end, whatever was evaluated in between."""
    net, null = chain(device=device), Null(first=Forward())
    same(start(net, data(device=device), null), start(net, data(device=device), Forward()))
    final = learn(net, data(device=device), null)
    net.infer({"x": double(9, 3, seed=8, device=device)}, init=Forward(), steps=0)
    net.predict({"x": double(11, 3, seed=8, device=device)}, "y")
    begun = start(net, data(seed=3, device=device), null)
    for v in ("h1", "h2", "h3"):
        assert torch.equal(begun[v], final[v])


def test_null_refuses_another_batch_size_and_says_so(device):
    """Slots cannot be taken over from a batch of another size."""
    net, null = chain(device=device), Null(first=Zero())
    learn(net, data(device=device), null)
    with pytest.raises(ConfigError, match=r"every batch needs its size 4 \(found 2\)"):
        start(net, data((0, 1), device=device), null)
    null.forget()
    same(start(net, data((0, 1), device=device), null), start(net, data((0, 1), device=device), Zero()))


# -- Average -----------------------------------------------------------------------------------------------------------


def test_average_by_hand_unbalanced_absent_and_unseen(device):
    """Three classes; the first batch has one of class 0 and three of class 1, the second class 1 alone."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=1)
    graph.add_node("h", shape=2)
    graph.add_node("y", shape=3)
    nx.add_path(graph, ["x", "h", "y"])
    net, init = PCNetwork(graph, dtype=torch.float64, device=device), Average(otherwise=Zero())

    def clamps(labels, seed):
        return {"x": double(len(labels), 1, seed=seed, device=device), "y": classes(labels, 3, device=device)}

    first = learn(net, clamps([0, 1, 1, 1], 0), init)["h"]
    begun = start(net, clamps([1, 2, 0, 1], 1), init)["h"]
    mean1 = (first[1] + first[2] + first[3]) / 3
    expected = torch.stack([mean1, torch.zeros(2, device=device).double(), first[0], mean1])
    torch.testing.assert_close(begun, expected, rtol=0, atol=1e-15)
    second = learn(net, clamps([1, 1], 2), init)["h"]
    begun = start(net, clamps([0, 1, 2], 3), init)["h"]
    expected = torch.stack([first[0], (second[0] + second[1]) / 2, torch.zeros(2, device=device).double()])
    torch.testing.assert_close(begun, expected, rtol=0, atol=1e-15)


def test_average_is_equation_7_on_balanced_streams_to_the_last_bit(device):
    """Sub-minibatches of n/C samples in class order: C/n times the sum over the class, for every slot."""
    net, init = chain(device=device), Average()
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    final = learn(net, data(labels, device=device), init)
    begun = start(net, data(labels, seed=4, device=device), init)
    for v in ("h1", "h2", "h3"):
        for i, label in enumerate(labels):
            total = torch.zeros(final[v].shape[1], dtype=torch.float64, device=device)
            for j in [j for j, other in enumerate(labels) if other == label]:
                total = total + final[v][j]
            assert torch.equal(begun[v][i], total / 4)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_average_sweeps_the_first_layers(device, depth):
    """Eq 10: layers up to m are predictions, the others class means."""
    net, init = chain(device=device), Average(forward_depth=depth)
    final = learn(net, data(device=device), init)
    begun = start(net, data(seed=4, device=device), init)
    mu = reference.predictions(net, begun)
    for layer, v in enumerate(["h1", "h2", "h3"], start=1):
        if layer <= depth:
            torch.testing.assert_close(begun[v], mu[v], rtol=0, atol=1e-15)
        else:
            torch.testing.assert_close(begun[v][0], (final[v][0] + final[v][3]) / 2, rtol=0, atol=1e-15)


def test_average_depth_is_the_longest_path(device):
    """A skip edge must not make a deep node count as a first layer."""
    graph = pcgraph.graphs.chain([3, 4, 4, 4, 2], activation="tanh")
    graph.add_edge("x", "h3")
    net, init = PCNetwork(graph, dtype=torch.float64, device=device), Average(forward_depth=1)
    final = learn(net, data(device=device), init)
    begun = start(net, data(seed=4, device=device), init)
    torch.testing.assert_close(begun["h3"][1], (final["h3"][1] + final["h3"][2]) / 2, rtol=0, atol=1e-15)


def test_permuting_samples_inside_a_class_changes_no_mean(device):
    """The mean of a class knows no order."""
    order = [3, 2, 1, 0]
    banks = []
    for permutation in ([0, 1, 2, 3], order):
        net, init = chain(device=device), Average()
        clamps = {k: v[torch.tensor(permutation, device=device)] for k, v in data((0, 1, 1, 0), device=device).items()}
        learn(net, clamps, init)
        banks.append(start(net, data(seed=4, device=device), init))
    for v in banks[0]:
        torch.testing.assert_close(banks[0][v], banks[1][v], rtol=1e-13, atol=1e-15)


def test_average_takes_labels_where_no_clamp_is_one_hot(device):
    """A regression target says no class; labels= does."""
    net, init = chain(device=device), Average(by=None, classes=3)
    clamps = {"x": double(3, 3, device=device), "y": double(3, 2, seed=1, device=device)}
    with pytest.raises(InvalidInitializer, match="labels="):
        start(net, clamps, init)
    labels = torch.tensor([2, 0, 2], device=device)
    final = learn(net, clamps, init, labels=labels)
    begun = start(net, clamps, init, labels=torch.tensor([2, 2, 0], device=device))
    torch.testing.assert_close(begun["h2"][0], (final["h2"][0] + final["h2"][2]) / 2, rtol=0, atol=1e-15)
    with pytest.raises(ClampError, match="one-hot"):
        start(net, clamps, Average())
    with pytest.raises(ConfigError, match="0 to 2"):
        start(net, clamps, init, labels=torch.tensor([0, 3, 1], device=device))


# -- Memory ------------------------------------------------------------------------------------------------------------


def independent_read(memory, i, observations, values):
    """Eq 8 with heads, written as loops."""
    q = observations @ memory.query[i] + memory.query_bias[i]
    width = memory.key.shape[2] // memory.heads
    slices = values.shape[1] // memory.heads
    columns = []
    for head in range(memory.heads):
        part = slice(head * width, (head + 1) * width)
        attention = torch.softmax(memory.beta * q[:, part] @ memory.key[i][:, part].t(), 1)
        columns.append(attention @ values[:, head * slices : (head + 1) * slices])
    return torch.cat(columns, 1), q


@pytest.mark.parametrize("beta", [1.0, 200.0, 500.0])
def test_memory_starts_at_the_ridge_fit_of_the_forward_states(device, beta):
    """Finite at any sharpness, and no worse than the least-squares solution of the same ridge problem."""
    net = builders.chain(3, 5, 6, 2, dtype=torch.float64, device=device)
    memory = Memory(net, patterns=7, heads=3, embed_dim=6, beta=beta, ridge=1e-4)
    clamps = {"x": double(30, 3, device=device), "y": double(30, 2, seed=1, device=device)}
    swept = start(net, clamps, Forward())
    begun = start(net, clamps, memory)
    observations = torch.cat([clamps[v] for v in memory.observed], 1)
    for i, node in enumerate(memory.nodes):
        attention = memory.attention(observations)[i].detach()
        padded = torch.zeros(30, 6, dtype=torch.float64, device=device)
        padded[:, : swept[node].shape[1]] = swept[node]
        columns = []
        for head in range(3):
            a, y = attention[:, head], padded[:, 2 * head : 2 * head + 2]
            root = (1e-4 * 30) ** 0.5
            tall = torch.cat([a, root * torch.eye(7, dtype=torch.float64, device=device)])
            wide = torch.cat([y, torch.zeros(7, 2, dtype=torch.float64, device=device)])
            solution = torch.linalg.lstsq(tall.cpu(), wide.cpu(), driver="gelsd").solution  # a GPU has no such driver
            columns.append(a @ solution.to(device))
        expected = torch.cat(columns, 1)[:, : swept[node].shape[1]]
        assert torch.isfinite(begun[node]).all()
        torch.testing.assert_close(begun[node], expected, rtol=1e-7, atol=1e-9)


def test_memory_retrieves_equation_8_and_learns_equation_9(device):
    """Retrieval and gradients equal an independent loop under autograd, for every parameter."""
    net = builders.chain(3, 5, 6, 2, dtype=torch.float64, device=device)
    memory = Memory(net, patterns=7, heads=2, embed_dim=6, beta=3.0, seed=1)
    clamps = {"x": double(6, 3, device=device), "y": double(6, 2, seed=1, device=device)}
    learn(net, clamps, memory)
    memory.zero_grad()
    result = net.infer(clamps, init=memory, steps=3, optimizer=SGD(0.1))
    final = {v: h.clone() for v, h in result.states.items()}
    begun = start(net, clamps, memory)
    result.backward()
    observations = torch.cat([clamps[v] for v in memory.observed], 1)
    loss = 0.0
    for i, node in enumerate(memory.nodes):
        read, _ = independent_read(memory, i, observations, memory.values[i])
        torch.testing.assert_close(begun[node], read[:, : final[node].shape[1]].detach(), rtol=1e-12, atol=1e-14)
        loss = loss + (read[:, : final[node].shape[1]] - final[node]).square().sum()
    parameters = list(memory.parameters())
    for parameter, expected in zip(parameters, torch.autograd.grad(loss / 6, parameters)):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-13)


def test_forward_from_a_memory_of_the_root(device):
    """C.2: the memory for h0, then the sweep; the sweep's nodes have exactly no error."""
    net = PCNetwork(pcgraph.graphs.decoder([4, 5, 6], activation="tanh"), dtype=torch.float64, device=device)
    memory = Memory(net, nodes=["h0"], patterns=6, heads=2, embed_dim=4)
    init = Forward(roots=memory)
    clamps = {"x": double(5, 6, device=device)}
    with pytest.raises(InvalidInitializer, match="h0"):
        start(net, clamps, Forward())
    result = net.infer(clamps, init=init, steps=0)
    assert torch.equal(result.errors["h1"], torch.zeros(5, 5, dtype=torch.float64, device=device))
    assert (result.states["h0"] != 0).any()
    learn(net, clamps, init)
    assert all(p.grad is not None for p in memory.parameters())


def test_memory_refuses_what_it_cannot_observe(device):
    """An observation that is not clamped is named before anything runs."""
    net = PCNetwork(pcgraph.graphs.decoder([4, 5, 6]), dtype=torch.float64, device=device)
    with pytest.raises(InvalidInitializer, match="'h0'"):
        start(net, {"x": double(5, 6, device=device)}, Memory(net))
    with pytest.raises(ConfigError, match="divisible"):
        Memory(net, nodes=["h0"], heads=3, embed_dim=8)


# -- Equilibrium, PerNode ----------------------------------------------------------------------------------------------


def loop(device="cpu"):
    graph = pcgraph.graphs.chain([3, 4, 4, 2], activation="tanh")
    graph.add_edge("h2", "h1")
    graph.add_edge("y", "h2")
    return PCNetwork(graph, seed=1, dtype=torch.float64, device=device)


def test_equilibrium_on_a_cycle_settles_before_it_sees_the_target(device):
    """With the target released, no gradient is left above the tolerance, and the target's value plays no part."""
    net = loop(device=device)
    init = Equilibrium(release="y", steps=3000, tolerance=1e-8)
    clamps = data(device=device)
    states = start(net, clamps, init)
    assert 0 < init.residual <= 1e-8
    other = start(net, {**clamps, "y": classes([1, 0, 0, 1], 2, device=device)}, init)
    for v in ("h1", "h2"):
        assert torch.equal(states[v], other[v])
    mu = reference.predictions(net, {**states, "y": _released(net, states)})
    for v in ("h1", "h2"):
        torch.testing.assert_close(states[v], mu[v], rtol=0, atol=1e-6)


def loops(*sizes, device="cpu"):
    """A chain in which each group but the ends also predicts itself."""
    return PCNetwork(pcgraph.graphs.lateral(sizes, activation="tanh"), seed=1, dtype=torch.float64, device=device)


def test_the_phases_of_equilibrium_are_compiled_once(device, monkeypatch):
    """They were compiled anew for each cycle and each batch, which took longer than the batch itself."""
    compiled = []

    def counted(structure, request, *rest):
        compiled.append(request)
        return make_plan(structure, request, *rest)

    monkeypatch.setattr(planner, "make_plan", counted)
    net, init = loops(3, 4, 5, 4, 2, device=device), Equilibrium(release="y", steps=20)
    first = start(net, data(device=device), init)
    many = len(compiled)
    assert 3 < many <= 6  # three cycles, y behind them, and the clamped phase
    again, other = (
        start(net, data(device=device), init),
        start(net, {k: v[:2] for k, v in data(device=device).items()}, init),
    )
    assert len(compiled) == many
    same(first, again)
    for v, h in other.items():
        torch.testing.assert_close(h, first[v][:2])


def test_what_equilibrium_keeps_of_its_phases_is_bounded(device):
    """Clamps that differ from call to call make other plans, the oldest of which go."""
    net = loops(3, *[2] * 10, 2, device=device)
    hidden = list(net.graph)[1:-1]
    for some in itertools.islice(itertools.combinations(hidden, 2), 30):
        clamps = {**data(device=device), **{v: torch.zeros(4, 2, dtype=torch.float64, device=device) for v in some}}
        start(net, clamps, Equilibrium(release="y", steps=2))
    assert len(net._planner.parts) == net._planner.size


def rings(device="cpu"):
    """Two cycles of one shape whose nodes lie in turn, and a target that both predict; without biases."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=3)
    graph.add_nodes_from("abcd", shape=4, activation="tanh", bias=False)
    graph.add_node("y", shape=2, bias=False)
    for u, v in ("ac", "bd"):
        graph.add_edges_from([("x", u), (u, v), (v, u), (v, "y")])
    return PCNetwork(graph, seed=1, dtype=torch.float64, device=device)


def test_a_part_of_the_free_phase_stays_as_it_settled(device):
    """What comes after it is relaxed in the same memory, and its neighbours there are cleared."""
    net = rings(device=device)
    states = start(net, data(device=device), Equilibrium(release="y", steps=3000, tolerance=1e-8))
    mu = reference.predictions(net, states)
    for v in "abcd":
        torch.testing.assert_close(states[v], mu[v], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_free_phase_ends_at_its_tolerance_and_tells_the_largest_gradient(device, sign):
    """Of all parts and of either sign. With a tolerance that anything meets, nothing moves away from zero."""
    net, init = rings(device=device), Equilibrium(release="y", steps=50, tolerance=1e9)
    clamps = {**data(device=device), "x": sign * data(device=device)["x"]}
    states = start(net, clamps, init)
    assert all((states[v] == 0).all() for v in "abcd")
    zero = {v: states[v].requires_grad_() for v in "abcd"}
    mu = reference.predictions(net, {**states, **zero})
    energy = sum(0.5 * (zero[v] - mu[v]).square().sum() for v in "abcd")
    gradients = torch.cat(torch.autograd.grad(energy, list(zero.values())))
    assert init.residual == pytest.approx(float(gradients.abs().max()), rel=1e-12)
    assert float(gradients.abs().max()) > 1.01 * min(float(gradients.max()), float(-gradients.min()))


def _released(net, states):
    """The target's own settled value: here it is its prediction, since nothing else holds it."""
    y = torch.zeros(4, 2, dtype=net.dtype, device=net.device)
    for _ in range(500):
        y = reference.predictions(net, {**states, "y": y})["y"]
    return y


def test_per_node_gives_each_node_its_own(device):
    """Zero here, a draw there, and a sweep from both."""
    net = chain(device=device)
    init = PerNode({"h1": Zero(), "h2": Normal(seed=1), "h3": Forward()}, default=Zero())
    states = start(net, data(device=device), init)
    assert (states["h1"] == 0).all()
    assert (states["h2"] != 0).all()
    mu = reference.predictions(net, states)
    torch.testing.assert_close(states["h3"], mu["h3"], rtol=0, atol=1e-15)


def test_per_node_refuses_a_sweep_that_reads_what_is_not_there(device):
    """Two swept nodes on one cycle: neither can be first, and the cycle is named."""
    net = loop(device=device)
    with pytest.raises(InvalidInitializer) as caught:
        start(net, data(device=device), PerNode({"h1": Forward(), "h2": Forward()}, default=Zero()))
    assert set(caught.value.witness.nodes) == {"h1", "h2"}
    start(net, data(device=device), PerNode({"h1": Forward()}, default=Zero()))
    with pytest.raises(GraphError, match="'nobody'"):
        start(net, data(device=device), PerNode({"nobody": Zero()}, default=Zero()))


# -- any initializer, any graph ----------------------------------------------------------------------------------------

NAMES = ["zero", "normal", "null", "forward", "roots", "fallback", "average", "memory", "equilibrium", "per-node"]


def make(name, net, clamped):
    target = next((v for v in net.graph if v in clamped), None)
    if name == "memory":
        observed = sorted(clamped, key=str)[:1]
        nodes = [v for v in net.graph if v not in clamped]
        return Memory(net, nodes=nodes, observed=observed, patterns=3, heads=2, embed_dim=4)
    return {
        "zero": lambda: Zero(),
        "normal": lambda: Normal(std=0.1),
        "null": lambda: Null(first=Forward(fallback=Zero())),
        "forward": lambda: Forward(),
        "roots": lambda: Forward(roots=Normal()),
        "fallback": lambda: Forward(fallback=Normal()),
        "average": lambda: Average(by=None, classes=2, forward_depth=1),
        "equilibrium": lambda: Equilibrium(release=[] if target is None else [target], steps=5, optimizer=SGD(0.01)),
        "per-node": lambda: PerNode({v: Forward() for v in list(net.graph)[:2]}, default=Normal(std=0.1)),
    }[name]()


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(max_examples=150, deadline=None)
@given(problem=problems(graphs=digraphs(max_nodes=6, activations=("tanh", "sigmoid"))), name=st.sampled_from(NAMES))
def test_valid_runs_and_invalid_is_refused_with_the_same_witness(problem, name):
    """The report's word holds: what it admits runs, finite and the same twice; what it refuses never starts."""
    net = PCNetwork(problem.graph, seed=problem.seed, dtype=torch.float64)
    clamped = problem.clamped or {next(iter(net.graph))}
    if name == "memory" and len(clamped) == len(net.graph):
        return
    clamps = {v: double(4, *net.structure.shape(v), seed=i) for i, v in enumerate(sorted(clamped, key=str))}
    verdict = pcgraph.check(net, clamped).verdict(make(name, net, clamped))
    labels = torch.tensor([0, 1, 0, 1]) if name == "average" else None
    if not verdict.valid:
        with pytest.raises(InvalidInitializer) as caught:
            net.infer(clamps, init=make(name, net, clamped), steps=2, optimizer=SGD(0.01), labels=labels)
        assert caught.value.witness == verdict.witness
        if verdict.witness is not None:
            assert pcgraph.topology.verify(net, clamped, verdict.witness)
        return
    runs = []
    for _ in range(2):
        init = make(name, net, clamped)
        states = []
        for _ in range(3):
            states.append(learn(net, clamps, init, steps=2, labels=labels))
        runs.append(states)
    for first, second in zip(*runs):
        same(first, second)
        assert all(torch.isfinite(h).all() for h in first.values())


@pytest.mark.parametrize("name", ["null", "normal", "average", "memory"])
def test_evaluation_never_teaches_and_memory_survives_a_reload(device, name):
    """Stop, reload, continue: as if never stopped, to the last bit; a pass without backward() changes nothing."""
    net = chain(device=device)

    def build():
        if name == "memory":
            return Memory(net, patterns=3, heads=2, embed_dim=4)
        return {"null": Null(first=Zero()), "normal": Normal(), "average": Average(forward_depth=1)}[name]

    init = build()
    learn(net, data(device=device), init)
    before = {k: v.clone() for k, v in init.state_dict().items()}
    net.infer(data(seed=7, device=device), init=init, steps=2, optimizer=SGD(0.1))
    for key, value in init.state_dict().items():
        assert torch.equal(before[key], value)
    again = build()
    again.load_state_dict(before)
    for seed in (1, 2):
        same(start(net, data(seed=seed, device=device), init), start(net, data(seed=seed, device=device), again))
        same(learn(net, data(seed=seed, device=device), init), learn(net, data(seed=seed, device=device), again))


def test_average_without_its_class_is_refused_before_it_looks():
    """At test time there is no label: that is said, and not found out by accident."""
    net = chain()
    average = Average()
    with pytest.raises(InvalidInitializer, match=r"found no clamp on 'y'.*Forward\(\) at test time"):
        start(net, {"x": double(4, 3)}, average)
    learn(net, data(), average)
    with pytest.raises(InvalidInitializer, match="found no clamp on 'y'"):
        start(net, {"x": double(4, 3)}, average)


class _Asks(pcgraph.initializers.Initializer):
    """It runs the network itself, and starts from half of what comes of it."""

    def __init__(self, net):
        super().__init__()
        object.__setattr__(self, "net", net)

    def requirement(self, report):
        return report.verdicts["zero"]

    def init(self, block, out, context):
        found = self.net.infer(context.clamps, init=Zero(), steps=3, optimizer=SGD(0.1))
        for k, v in enumerate(block.nodes):
            out[k] = found.states[v] / 2


def test_an_initializer_may_run_the_network(device):
    """What it leaves behind must not lie in the buffers of the run that it begins."""
    net, again = (builders.chain(3, 4, 5, 6, 2, dtype=torch.float64, device=device) for _ in range(2))
    clamps = {"x": double(5, 3, device=device), "y": double(5, 2, seed=1, device=device)}
    inner = net.infer(clamps, init=Zero(), steps=3, optimizer=SGD(0.1)).states
    known = pcgraph.States({v: inner[v] / 2 for v in ("h1", "h2", "h3")})
    expected = again.infer(clamps, init=known, steps=4, optimizer=SGD(0.1))
    for _ in range(2):
        result = net.infer(clamps, init=_Asks(net), steps=4, optimizer=SGD(0.1))
        for v in net.graph:
            assert torch.equal(result.states[v], expected.states[v])
        assert torch.equal(result.energy, expected.energy)


def test_parts_that_are_one_object_are_told_from_parts_that_are_two(device):
    """A plan made for the one does not serve the other, which is another number of initializers."""
    graph = nx.DiGraph([("a", "b"), ("b", "a"), ("x", "a"), ("r", "b")])
    nx.set_node_attributes(graph, 2, "shape")
    net, same, run = (
        PCNetwork(graph, seed=0, dtype=torch.float64, device=device),
        Zero(),
        {"steps": 1, "optimizer": SGD(0.1)},
    )
    for two in ((same, same), (Zero(), Zero()), (same, same), (Zero(), same)):
        init = {"init": Forward(*two), **run}
        result = net.infer({"x": double(3, 2, device=device)}, **init)
        alone = PCNetwork(graph, seed=0, dtype=torch.float64, device=device).infer(
            {"x": double(3, 2, device=device)}, **init
        )
        assert torch.equal(result.energy, alone.energy)


def test_equal_initializers_share_a_plan_and_others_do_not(device):
    """A new Forward() in every call must not compile anew; two Averages must not read each other's bank."""
    net = chain(device=device)
    plans = [net.plan({"x", "y"}, init=init, steps=2) for init in (Forward(), Forward(), Forward(fallback=Zero()))]
    assert plans[0] is plans[1]
    assert plans[0] is not plans[2]
    first, second = Average(), Average()
    learn(net, data(seed=1, device=device), first)
    learn(net, data(seed=2, device=device), second)
    assert not torch.equal(start(net, data(device=device), first)["h1"], start(net, data(device=device), second)["h1"])


def test_a_part_that_stands_twice_learns_once(device):
    """One memory for roots and for the rest: its gradient is counted once."""
    net = PCNetwork(pcgraph.graphs.decoder([4, 5, 6], activation="tanh"), dtype=torch.float64, device=device)
    grads = []
    for twice in (False, True):
        memory = Memory(net, nodes=["h0"], patterns=6, heads=2, embed_dim=4)
        init = Forward(roots=memory, fallback=memory if twice else None)
        net.infer({"x": double(5, 6, device=device)}, init=init, steps=2, optimizer=SGD(0.1)).backward()
        grads.append(memory.query.grad.clone())
    assert torch.equal(*grads)


def test_parts_inside_per_node_and_means_that_are_missing(device):
    """An equilibrium for one node; an average asked for a node that was always fixed."""
    net = chain(device=device)
    init = PerNode({"h1": Equilibrium(release="y", steps=5)}, default=Zero())
    states = start(net, data(device=device), init)
    assert (states["h1"] != 0).any()
    average = Average()
    clamps = {
        **data(device=device),
        "h1": double(4, 4, device=device),
        "h2": double(4, 4, device=device),
        "h3": double(4, 4, device=device),
    }
    learn(net, clamps, average, steps=0)
    with pytest.raises(ConfigError, match="no means for 'h1'"):
        start(net, data(device=device), average)


def test_nodes_without_a_memory_are_swept_after_it(device):
    """A memory for one layer: the others follow from what it recalls, in the first batch and after it."""
    net = chain(device=device)
    memory = Memory(net, nodes=["h2"], observed=["x", "y"], patterns=5, heads=2, embed_dim=4)
    for _ in range(2):
        states = start(net, data(device=device), memory)
        mu = reference.predictions(net, states)
        for v in ("h1", "h3"):
            torch.testing.assert_close(states[v], mu[v], rtol=0, atol=1e-15)
        assert not torch.allclose(states["h2"], mu["h2"])
        learn(net, data(device=device), memory)


# -- a network that is converted ---------------------------------------------------------------------------------------


REMEMBERING = {
    "Null": lambda net: Null(first=Zero()),
    "Average": lambda net: Average(by="y"),
    "Memory": lambda net: Memory(net, patterns=3, heads=2, embed_dim=4, beta=2.0),
    "PerNode": lambda net: PerNode({"h1": Null(first=Zero())}, default=Average()),
    "Normal": lambda net: Normal(),
}


@pytest.mark.parametrize("name", REMEMBERING)
@pytest.mark.parametrize("dtypes", [*itertools.permutations((torch.float32, torch.float64, torch.bfloat16), 2)])
def test_what_is_remembered_goes_along_with_the_network(device, name, dtypes):
    """net.double() in the midst of a run: the initializer goes on, or says what to do, and then goes on."""
    before, after = dtypes
    net = PCNetwork(pcgraph.graphs.chain((3, 4, 4, 2), activation="tanh"), dtype=before, device=device)
    init = REMEMBERING[name](net)

    def learn_in(dtype):
        clamps = {v: value.to(dtype) for v, value in data(device=device).items()}
        result = net.infer(clamps, init=init, steps=2, optimizer=SGD(0.1))
        result.backward()
        net.zero_grad()
        return result.states["h1"].dtype

    assert learn_in(before) == before
    net.to(after)
    if name == "Memory":
        with pytest.raises(
            ConfigError, match=rf"Memory is in {before} on {device}.*, and the network in {after}.*memory\.to"
        ):
            learn_in(after)
        init.to(after)
    assert learn_in(after) == after
    assert learn_in(after) == after


def test_states_take_over_no_momentum(device):
    """As States says: two runs in a row are one long one with plain SGD alone."""
    net, clamps = chain(device=device), data(device=device)

    def ends(optimizer):
        whole = net.infer(clamps, init=Forward(), steps=6, optimizer=optimizer).states["h1"].clone()
        half = net.infer(clamps, init=Forward(), steps=3, optimizer=optimizer)
        states = {v: h.clone() for v, h in half.states.items()}
        rest = net.infer(clamps, init=pcgraph.States(states), steps=3, optimizer=optimizer).states["h1"]
        return torch.allclose(whole, rest, rtol=1e-12, atol=0)

    assert ends(SGD(0.1))
    assert not ends(SGD(0.1, momentum=0.9))
    assert not ends(pcgraph.Adam(0.05))
