"""Learning rules against backpropagation, closed forms and the slow reference, in float64."""

from __future__ import annotations

from functools import partial

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import SGD, Adam, Average, Forward, Null, PCNetwork, States, Zero, learning
from pcgraph.backends import Motion
from pcgraph.errors import ClampError, ConfigError
from pcgraph.inference import Options
from pcgraph.testing import reference
from tests import builders
from tests.builders import double, initial_states, reference_step

NAMES = ["x", "h1", "h2", "h3", "y"]
chain = partial(builders.chain, 4, 6, 6, 6, 3, dtype=torch.float64)


def batch(seed=0, device="cpu"):
    return {"x": double(7, 4, seed=seed, device=device)}, {"y": double(7, 3, seed=seed + 100, device=device)}


def gradient(net, u, v):
    i = net.structure.edge_number(u, v)
    bucket = net.structure.buckets[int(net.structure.bucket_of[i])]
    return net.weights[bucket.name].grad[i - bucket.start]


def plain(net):
    """The same chain in plain torch; returns its modules by edge."""
    layers = []
    for u, v in zip(NAMES, NAMES[1:]):
        layer = torch.nn.Linear(*net.weight(u, v).shape[::-1]).to(net.device, net.dtype)
        layer.weight.data.copy_(net.weight(u, v))
        layer.bias.data.copy_(net.bias(v))
        layers += [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def test_backprop_is_torchs(device):
    """Ten training steps of the declared graph equal the same network in plain torch."""
    net = chain(device=device)
    model = plain(net)
    ours, theirs = (torch.optim.Adam(m.parameters(), lr=1e-2) for m in (net, model))
    for step in range(10):
        inputs, targets = batch(step, device=device)
        ours.zero_grad()
        loss = learning.backprop(net, inputs, targets)
        theirs.zero_grad()
        expected = 0.5 * (model(inputs["x"]) - targets["y"]).square().sum(1)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-14)
        expected.mean().backward()
        ours.step()
        theirs.step()
    for k, (u, v) in enumerate(zip(NAMES, NAMES[1:])):
        torch.testing.assert_close(net.weight(u, v), model[2 * k].weight.data, rtol=1e-9, atol=1e-12)


def test_a_convolutional_graph_under_backprop_is_the_same_net_in_plain_torch(device):
    """Convolution and pooling edges, ten steps, to rounding."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, 8, 8))
    graph.add_node("c", shape=(3, 8, 8), activation="relu", bias=False)
    graph.add_node("p", shape=(3, 4, 4), bias=False)
    graph.add_node("y", shape=5)
    graph.add_edge("x", "c", transform=pcgraph.transforms.Conv2d(1, 3, 3, padding=1))
    graph.add_edge("c", "p", transform=pcgraph.transforms.MaxPool2d(2))
    graph.add_edge("p", "y")
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    conv, dense = torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Linear(48, 5)
    model = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), dense)
    model.to(device, torch.float64)
    edge = dict(net.transform("x", "c").named_parameters())
    conv.load_state_dict({name: value.detach() for name, value in edge.items()})
    dense.weight.data.copy_(net.weight("p", "y"))
    dense.bias.data.copy_(net.bias("y"))
    ours, theirs = (torch.optim.SGD(m.parameters(), lr=0.05) for m in (net, model))
    for step in range(10):
        x, y = double(6, 1, 8, 8, seed=step, device=device), double(6, 5, seed=step + 50, device=device)
        ours.zero_grad()
        learning.backprop(net, {"x": x}, {"y": y})
        ours.step()
        theirs.zero_grad()
        (0.5 * (model(x) - y).square().sum(1)).mean().backward()
        theirs.step()
    torch.testing.assert_close(net.weight("p", "y"), dense.weight.data, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(dict(net.transform("x", "c").named_parameters())["weight"].data, conv.weight.data)


def test_backprop_exists_where_proposition_3_2_holds(device):
    """A cycle has no feed-forward pass, and is named."""
    graph = pcgraph.graphs.chain([4, 6, 3])
    graph.add_edge("y", "h1")
    with pytest.raises(pcgraph.InvalidInitializer, match="cycle"):
        learning.backprop(
            PCNetwork(graph, dtype=torch.float64, device=device),
            *({"x": double(2, 4, device=device)}, {"y": double(2, 3, device=device)}),
        )


@pytest.mark.parametrize("rate", [0.5, 0.01])
def test_the_first_error_to_arrive_is_backprops(device, rate):
    """W_l first gets a gradient at t = L - l; divided by rate^(L - l) it is backpropagation's."""
    net = chain(seed=3, device=device)
    inputs, targets = batch(device=device)
    learning.backprop(net, inputs, targets)
    expected = {v: gradient(net, u, v).clone() for u, v in zip(NAMES, NAMES[1:])}
    edges = list(zip(NAMES, NAMES[1:]))
    for t, (u, v) in enumerate(reversed(edges)):
        net.zero_grad()
        net.infer({**inputs, **targets}, init=Forward(), steps=t, optimizer=SGD(rate)).backward()
        torch.testing.assert_close(gradient(net, u, v) / rate**t, expected[v], rtol=1e-6, atol=0)
        for earlier_u, earlier_v in edges[: len(edges) - 1 - t]:
            assert (gradient(net, earlier_u, earlier_v) == 0).all()


@pytest.mark.parametrize(("sign", "order"), [("centred", 2), ("positive", 1), ("negative", 1)])
def test_nudging_goes_to_backprop(device, sign, order):
    """As the nudge vanishes the gradient is backpropagation's; the centred error shrinks with the square."""
    net = chain(seed=2, device=device)
    inputs, targets = batch(device=device)
    learning.backprop(net, inputs, targets)
    expected = {name: p.grad.clone() for name, p in net.named_parameters()}
    scale = max(float(g.abs().max()) for g in expected.values())
    errors = []
    for strength in (1e-2, 1e-3):
        net.zero_grad()
        learning.nudged(net, inputs, targets, strength=strength, sign=sign, steps=400, optimizer=SGD(0.3))
        errors.append(max(float((p.grad - expected[n]).abs().max()) for n, p in net.named_parameters()) / scale)
    assert errors[1] < 2 * errors[0] / 10**order + 1e-9
    if sign == "centred":
        net.zero_grad()
        learning.nudged(net, inputs, targets, strength=1e-5, sign=sign, steps=800, optimizer=SGD(0.3))
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-6, atol=1e-9)


def test_nudging_says_what_it_needs(device):
    """A clamped target cannot be nudged, and a strength is positive."""
    net = chain(device=device)
    inputs, targets = batch(device=device)
    kw = {"steps": 3, "optimizer": SGD(0.1)}
    with pytest.raises(ClampError, match="clamped and nudged"):
        learning.nudged(net, {**inputs, **targets}, targets, **kw)
    with pytest.raises(ConfigError, match="positive"):
        learning.nudged(net, inputs, targets, strength=0.0, **kw)
    with pytest.raises(ConfigError, match="centred"):
        learning.nudged(net, inputs, targets, sign="both", **kw)


@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, 0.8), Adam(0.05)], ids=repr)
@pytest.mark.parametrize("init", [Zero(), Forward(fallback=Zero())], ids=repr)
def test_incremental_learning_equals_the_loop_that_it_says(device, optimizer, init):
    """A state step, then a weight step at the new states, over and over; the state optimizer keeps its memory."""
    graph = pcgraph.graphs.chain([4, 6, 6, 3], activation="tanh")
    graph.add_edge("h2", "h1") if isinstance(init, Zero) else graph.add_edge("x", "h2")
    net, other = (PCNetwork(graph, seed=1, dtype=torch.float64, device=device) for _ in range(2))
    inputs, targets = batch(device=device)
    clamps = {**inputs, **targets}
    weights = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9)
    begun = initial_states(net, clamps, init)
    result = learning.incremental(net, clamps, init=init, steps=5, optimizer=optimizer, weights=weights)
    theirs = torch.optim.SGD(other.parameters(), lr=1e-2, momentum=0.9)
    states = begun
    step = reference_step(optimizer)
    for t in range(5):
        states = reference.infer(other, clamps, states, 1, lambda v, h, g, _, t=t: step(v, h, g, t)).states
        for name, grad in reference.weight_gradients(other, states).items():
            dict(other.named_parameters())[name].grad = grad
        theirs.step()
    # Adam divides by its eps where a gradient is nothing but rounding.
    noise = 1e-8 if isinstance(optimizer, Adam) else 1e-12
    for v in other.graph:
        torch.testing.assert_close(result.states[v], states[v], rtol=1e-9, atol=noise)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter, dict(other.named_parameters())[name], rtol=1e-9, atol=noise)


def test_incremental_learning_lets_the_initializer_remember_once(device):
    """The final states, not those of every step."""
    net = chain(device=device)
    inputs, targets = batch(device=device)
    null = Null(first=Forward())
    weights = torch.optim.SGD(net.parameters(), lr=1e-2)
    result = learning.incremental(net, {**inputs, **targets}, init=null, steps=4, optimizer=SGD(0.1), weights=weights)
    final = {v: result.states[v].clone() for v in ("h1", "h2", "h3")}
    begun = net.infer({**inputs, **targets}, init=null, steps=0).states
    for v, h in final.items():
        assert torch.equal(begun[v], h)


def test_states_continue_where_an_inference_ended(device):
    """3 and 4 steps are 7."""
    net = chain(device=device)
    clamps = {**batch(device=device)[0], **batch(device=device)[1]}
    three = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1)).states
    more = net.infer(clamps, init=States(three), steps=4, optimizer=SGD(0.1)).states
    seven = net.infer(clamps, init=Forward(), steps=7, optimizer=SGD(0.1)).states
    for v in NAMES:
        torch.testing.assert_close(more[v], seven[v], rtol=1e-12, atol=1e-14)
    with pytest.raises(pcgraph.InvalidInitializer, match="'h1'"):
        net.infer(clamps, init=States({"h2": three["h2"]}), steps=0)


def test_what_is_carried_on_is_a_value_of_its_own():
    """Two continuations of one network, held at once and used in any order, do not see each other's states."""
    net = builders.chain(3, 5, 5, 2, dtype=torch.float64)
    clamps = {"x": double(4, 3), "y": double(4, 2, seed=1)}
    found = [net.infer(clamps, init=Zero(), steps=steps, optimizer=SGD(0.1)).states for steps in (2, 5)]
    first, second = (net.carry_on(dict(states)) for states in found)
    assert first is not second
    pcgraph.safe_rate(net, clamps, init=second)
    for init, states in ((second, found[1]), (first, found[0]), (second, found[1])):
        result = net.infer(clamps, init=init, steps=0)
        for v in ("h1", "h2"):
            assert torch.equal(result.states[v], states[v])
    assert net.plan(clamps, init=first, steps=3) is net.plan(clamps, init=second, steps=3)


@pytest.mark.parametrize("cyclic", [False, True])
def test_a_safe_rate_is_two_over_the_largest_eigenvalue(device, cyclic):
    """On linear graphs the Hessian is known; above the bound inference diverges, below it converges."""
    graph = pcgraph.graphs.chain([3, 5, 5, 2], activation="identity")
    if cyclic:
        graph.add_edge("h2", "h1")
        graph.add_edge("h1", "h1")
    net = PCNetwork(graph, seed=1, dtype=torch.float64, device=device)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2.5)
    clamps = {"x": double(4, 3, device=device), "y": double(4, 2, seed=1, device=device)}

    def energy(free):
        h1, h2 = free[:5], free[5:]
        return reference.energy(net, {"x": clamps["x"][:1], "h1": h1[None], "h2": h2[None], "y": clamps["y"][:1]})[0]

    hessian = torch.autograd.functional.hessian(energy, torch.zeros(10, dtype=torch.float64, device=device))
    expected = 2 / float(torch.linalg.eigvalsh(hessian)[-1])
    rate = pcgraph.safe_rate(net, clamps, init=Zero(), margin=1.0, iterations=300)
    assert rate == pytest.approx(expected, rel=1e-4)
    net.infer(clamps, init=Zero(), steps=3000, optimizer=SGD(0.98 * rate))
    with pytest.raises(pcgraph.Diverged):
        net.infer(clamps, init=Zero(), steps=60000, optimizer=SGD(1.05 * rate))


@pytest.mark.parametrize("seed", range(3))
def test_a_safe_rate_looks_ahead_of_the_kinks(device, seed):
    """Behind the kink of a relu the curvature is larger than where inference starts: the local bound is unsafe."""
    sizes = [6, 20, 20, 20, 3]
    net = PCNetwork(pcgraph.graphs.chain(sizes, activation="relu"), seed=seed, dtype=torch.float64, device=device)
    clamps = {"x": 3 * double(5, 6, device=device, seed=seed), "y": 10 * double(5, 3, device=device, seed=seed + 1)}

    def rises(rate):
        trace = net.infer(clamps, init=Forward(), steps=10, optimizer=SGD(rate), trace=True, check=False).trace
        return bool((trace[1:] > trace[:-1] * (1 + 1e-9)).any())

    local = pcgraph.safe_rate(net, clamps, init=Forward(), margin=0.99, ahead=0)
    tried = pcgraph.safe_rate(net, clamps, init=Forward(), margin=0.99)
    assert rises(local)
    assert not rises(tried)
    assert rises(2 * tried)  # it is halved no more than it must be


def test_average_works_under_every_rule(device):
    """Means are remembered from a rule of several phases as well."""
    net = chain(device=device)
    labels = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 2, 0], device=device), 3).double()
    clamps = {**batch(device=device)[0], "y": labels}
    average = Average()
    weights = torch.optim.SGD(net.parameters(), lr=1e-2)
    learning.incremental(net, clamps, init=average, steps=3, optimizer=SGD(0.1), weights=weights)
    assert bool(average.recall("seen").all())


def test_a_nudge_alone_moves_a_node(device):
    """A free root that nothing else pulls at must follow its target, and no more than its own cost says."""
    graph = nx.DiGraph([("z", "m"), ("q", "m")])
    nx.set_node_attributes(graph, 2, "shape")
    net = PCNetwork(graph, dtype=torch.float64, device=device)
    motion = Motion(
        SGD(0.5), nudges={net.structure.number["z"]: (torch.ones(3, 2, dtype=torch.float64, device=device), 1.0)}
    )
    kw = {"init": Forward(roots=Zero()), "labels": None, "motion": motion, "options": Options()}
    for _ in range(2):
        z = net.run({"q": double(3, 2, device=device)}, steps=1, **kw).states["z"].clone()
        assert torch.equal(z, torch.full((3, 2), 0.5, dtype=torch.float64, device=device))


def test_targets_are_checked_as_clamps_are(device):
    """Another batch size, or a partial target, must not broadcast or vanish."""
    net = chain(device=device)
    inputs, _ = batch(device=device)
    kw = {"steps": 3, "optimizer": SGD(0.1)}
    with pytest.raises(ClampError, match="one batch size"):
        learning.nudged(net, inputs, {"y": double(2, 3, device=device)}, **kw)
    partial = pcgraph.Masked(double(7, 3, device=device), torch.tensor([True, False, True], device=device))
    with pytest.raises(ClampError, match="partial clamp of 'y'"):
        learning.nudged(net, inputs, {"y": partial}, **kw)
    with pytest.raises(ClampError, match="partial clamp of 'y'"):
        learning.backprop(net, inputs, {"y": partial})


def test_incremental_results_have_learned_already(device):
    """A backward() on top would count the last step twice."""
    net = chain(device=device)
    inputs, targets = batch(device=device)
    weights = torch.optim.SGD(net.parameters(), lr=1e-2)
    result = learning.incremental(net, {**inputs, **targets}, init=Zero(), steps=2, optimizer=SGD(0.1), weights=weights)
    with pytest.raises(ConfigError, match="already called"):
        result.backward()
