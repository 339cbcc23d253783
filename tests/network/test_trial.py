"""What users bring is tried when it is declared: one table of kinds, on nodes and on edges."""

from __future__ import annotations

import copy
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import pcgraph
from pcgraph import SGD, Forward, GraphError, PCNetwork
from pcgraph import transforms as T
from pcgraph.activations import Activation
from pcgraph.energies import Energy
from tests.builders import assert_equal_to_reference, clamps_of, double


def declared(*, node=None, edge=None, transform=None, energy=None, shape=(4,), out=None):
    """x -> h -> y, with something at h or on the edge into it."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=shape)
    graph.add_node("h", shape=out or shape, activation=node, energy=energy)
    graph.add_node("y", shape=3)
    graph.add_edge("x", "h", activation=edge, transform=transform)
    graph.add_edge("h", "y")
    return graph


def learn(net, shape=(4,)):
    clamps = {"x": torch.randn(5, *shape).to(net.dtype), "y": torch.ones(5, 3).to(net.dtype)}
    result = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(lr=0.02))
    result.backward()
    assert torch.equal(result.states["x"].reshape(clamps["x"].shape), clamps["x"])
    return result


class Buffered:
    """Returns the same tensor each time, with other numbers in it."""

    def __call__(self, a):
        if not torch.is_grad_enabled():
            self.result = getattr(self, "result", torch.zeros(0)).resize_(a.shape)
            return self.result.copy_(a.tanh())
        return a.tanh()


class Counting:
    calls = 0

    def __call__(self, a):
        self.calls += 1
        return a * self.calls


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        return a.sign()

    @staticmethod
    def backward(ctx, g):
        return g


class Clipped(torch.autograd.Function):
    """The identity, with a smaller gradient."""

    @staticmethod
    def forward(ctx, a):
        return a.clone()

    @staticmethod
    def backward(ctx, g):
        return 0.1 * g


class Failing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        return a.clone()

    @staticmethod
    def backward(ctx, g):
        raise ValueError("it went wrong")


def raising(error):
    def fails(a):
        raise error

    return fails


GENERATOR, SAMPLED = torch.Generator(), torch.randn(4)
IN_PLACE, DRAWS, VARIES = "changes it in place", "draws at random", "gives another one each time"
MIXES, SLOPE = "depends on the others of the batch", "torch finds no way back"
PART = "a part of it is hidden from torch"
CHANGES, SHAPE = "changes itself when it is evaluated", "must preserve the shape"

#: (what, what the refusal says); each is tried as the activation of a node and of an edge.
REFUSED = {
    "torch.relu_": (torch.relu_, IN_PLACE),
    "nn.ReLU(inplace)": (nn.ReLU(inplace=True), IN_PLACE),
    "in place, unseen by autograd": (lambda a: a.data.relu_(), IN_PLACE),
    "in place and copied": (lambda a: a.mul_(2).clone(), IN_PLACE),
    "in place, nothing changed": (lambda a: a.add_(0), IN_PLACE),
    "dropout": (nn.Dropout(0.5), DRAWS),
    "dropout of little": (nn.Dropout(1e-4), DRAWS),
    "functional dropout": (lambda a: F.dropout(a, 1e-4), DRAWS),
    "RReLU": (nn.RReLU(), DRAWS),
    "a seed set anew": (lambda a: torch.manual_seed(0) and a + torch.randn_like(a), DRAWS),
    "NumPy's noise": (lambda a: a + float(np.random.randn()), VARIES),
    "noise of its own": (lambda a: a + torch.randn(a.shape, generator=GENERATOR), VARIES),
    "a counter": (Counting(), VARIES),
    "noise by sample": (lambda a: a + torch.randn(a.shape, generator=torch.Generator().manual_seed(1)), MIXES),
    "batch normalisation": (nn.BatchNorm1d(4, affine=False), CHANGES),
    "without running statistics": (nn.BatchNorm1d(4, affine=False, track_running_stats=False), "a batch of 1, 4"),
    "softmax over the batch": (nn.Softmax(dim=0), MIXES),
    "centred over the batch": (lambda a: a - a.mean(0), MIXES),
    "cumulated over the batch": (lambda a: a.cumsum(0), MIXES),
    "the batch turned round": (lambda a: a.flip(0), MIXES),
    "divided by the batch": (lambda a: a / len(a), MIXES),
    "one tensor again and again": (Buffered(), "writes again into what it has returned"),
    "detached": (lambda a: a.detach().tanh(), SLOPE),
    "without gradient": (torch.no_grad()(torch.tanh), SLOPE),
    "NumPy, detached": (lambda a: torch.from_numpy(np.tanh(a.detach().numpy())), SLOPE),
    "NumPy": (lambda a: torch.from_numpy(np.tanh(a.numpy())), r"Can't call numpy\(\)"),
    "without a derivative": (torch.detach_copy, "cannot be differentiated: derivative for"),
    "with a derivative that fails": (Failing.apply, "cannot be differentiated: it went wrong"),
    "partly detached": (lambda a: a * a.detach().sigmoid(), PART),
    "a term detached": (lambda a: a.tanh() + a.detach(), PART),
    "half of the neurons detached": (lambda a: torch.cat([a[:, :2].detach(), a[:, 2:]], 1).tanh(), PART),
    "a norm detached": (lambda a: a / a.detach().norm(dim=1, keepdim=True), PART),
    "partly by NumPy": (lambda a: a + torch.from_numpy(np.sin(a.detach().numpy())), PART),
    "in place where it is large": (lambda a: a.clamp_(max=5.0) if a.max() > 5 else a.tanh(), IN_PLACE),
    "in place where it is small": (lambda a: a.zero_() if a.abs().max() < 0.1 else a.tanh(), IN_PLACE),
    "in place where it is negative": (
        lambda a: a.clone().copy_(a.clamp_(min=-20)) if a.min() < -20 else a.tanh(),
        IN_PLACE,
    ),
    "a sum": (lambda a: a.sum(-1), SHAPE),
    "one neuron": (lambda a: a.sum(-1, keepdim=True), SHAPE),
    "one sample squeezed": (torch.squeeze, SHAPE),
    "a tuple": (lambda a: (a,), SHAPE),
    "nothing": (lambda a: None, SHAPE),
    "a number": (lambda a: 1.0, SHAPE),
    "an array": (lambda a: a.numpy(), SHAPE),
    "a class": (nn.ReLU, r"write ReLU\(\)"),
    "truth": (lambda a: a > 0, "torch.bool"),
    "double": (lambda a: a.double(), "torch.float64"),
    "half": (lambda a: a.half(), "torch.float16"),
    "complex": (lambda a: a + 0j, "torch.complex64"),
    "integers": (lambda a: a.int(), "torch.int32"),
    "sparse": (lambda a: a.to_sparse(), "a dense tensor"),
    "elsewhere": (lambda a: a.to("meta"), "a dense tensor on"),
    "two arguments": (lambda a, b: a, "missing 1 required positional argument"),
    "KeyError": (raising(KeyError("lost")), "does not take a tensor .*lost"),
    "StopIteration": (raising(StopIteration()), "StopIteration"),
    "AssertionError": (raising(AssertionError()), "AssertionError"),
    "RecursionError": (raising(RecursionError("deep")), "deep"),
    "MemoryError": (raising(MemoryError("full")), "full"),
    "an error of ours": (raising(pcgraph.ClampError("clamped")), "clamped"),
}
ADMITTED = {
    "its argument": lambda a: a,
    "a view of it": lambda a: a.view_as(a),
    "a transposed result": lambda a: a.t().contiguous().t(),
    "one value for all": lambda a: a[:, :1].expand(a.shape),
    "a constant": torch.ones_like,
    "a constant that is a view": lambda a: torch.zeros((), dtype=a.dtype).expand_as(a),
    "a step": lambda a: (a > 0.3).to(a.dtype),
    "signs": torch.sign,
    "rounded": torch.round,
    "straight through": StraightThrough.apply,
    "straight through by detach": lambda a: a + (a.sign() - a).detach(),
    "rounded straight through": lambda a: a + ((a * 4).round() / 4 - a).detach(),
    "a gradient of its own": Clipped.apply,
    "kinks everywhere": lambda a: (a * 50).sin().abs(),
    "steep": lambda a: (200 * a).tanh(),
    "far from zero": lambda a: 1e5 + a.tanh(),
    "hard": F.hardtanh,
    "the largest alone": lambda a: a * (a == a.amax(1, keepdim=True)),
    "shrunk": F.softshrink,
    "softmax of a sample": nn.Softmax(dim=1),
    "sorted": lambda a: a.sort(-1).values,
    "a norm of the sample": nn.LayerNorm(4, elementwise_affine=False),
    "dropout in evaluation": nn.Dropout(0.5).eval(),
    "batch normalisation in evaluation": nn.BatchNorm1d(4, affine=False).eval(),
    "defined for probabilities": lambda a: torch.logit(a.clamp(0.1, 0.9)),
    "sampled once": lambda a: a * SAMPLED.to(a),
}


@pytest.mark.parametrize("place", ["node", "edge"])
@pytest.mark.parametrize(("what", "words"), REFUSED.values(), ids=REFUSED)
def test_what_no_activation_may_do_is_refused_when_declared(place, what, words):
    """Found in a run, it would be a raw error of torch at best, and a wrong number at worst."""
    where = {"node": "h", "edge": ("x", "h")}[place]
    state = torch.get_rng_state()
    with pytest.raises(GraphError, match=words) as caught:
        PCNetwork(declared(**{place: copy.deepcopy(what)}))
    assert torch.equal(torch.get_rng_state(), state)
    assert caught.value.where == where
    assert str(caught.value).startswith({"node": "node 'h': ", "edge": "edge 'x' -> 'h': "}[place])


@pytest.mark.parametrize("place", ["node", "edge"])
@pytest.mark.parametrize("what", ADMITTED.values(), ids=ADMITTED)
def test_what_an_activation_may_do_is_admitted_and_learns(place, what):
    """A trial that refuses what works stands in the way."""
    state = torch.get_rng_state()
    net = PCNetwork(declared(**{place: what}))
    assert torch.equal(torch.get_rng_state(), state)
    learn(net)


@pytest.mark.parametrize("place", ["node", "edge"])
@pytest.mark.parametrize("what", ADMITTED.values(), ids=ADMITTED)
def test_what_an_activation_may_do_is_computed_as_autograd_does(place, what):
    """States, energies and gradients of the slow reference; a constant, a step and a gradient of its own among them."""
    wide = copy.deepcopy(what).double() if isinstance(what, nn.Module) else what
    net = PCNetwork(declared(**{place: wide}), seed=1, dtype=torch.float64)
    assert_equal_to_reference(net, clamps_of(net), Forward(), 3, SGD(lr=0.02), tolerance={"rtol": 1e-8, "atol": 1e-10})


@pytest.mark.parametrize("place", ["node", "edge"])
@pytest.mark.parametrize("what", [lambda a: a, lambda a: a.view_as(a), lambda a: a.t().contiguous().t()])
def test_an_activation_that_returns_its_argument_is_the_identity(place, what):
    """What the engine writes into a result must not reach the state that it is a view of."""
    torch.manual_seed(0)
    results = []
    for given in (torch.clone, what):
        torch.manual_seed(0)
        net = PCNetwork(declared(**{place: given}), dtype=torch.float64)
        result = learn(net)
        results.append((result.energy, [p.grad for p in net.parameters()]))
    torch.testing.assert_close(results[0], results[1])


def test_a_trial_leaves_no_trace_in_a_module():
    """Buffers and parameters of what was declared, and torch's generator, are as before."""
    norm = T.Module(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), evaluation=True)
    graph = declared(transform=norm)
    before = copy.deepcopy(norm.state_dict())
    net = PCNetwork(graph)
    after = net.transform("x", "h").state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_each_thing_is_tried_once():
    """Ten thousand nodes with one activation of the user's cost one trial."""
    calls = []

    def counted(a):
        calls.append(a.shape)
        return a.tanh()

    graph = nx.DiGraph()
    graph.add_nodes_from(range(50), shape=3, activation=counted)
    graph.add_edges_from(((i, i + 1) for i in range(49)), activation=counted)
    PCNetwork(graph)
    few = len(calls)
    graph.add_nodes_from(range(50, 100), shape=3, activation=counted, precision=2.0)
    graph.add_edges_from(((i, i + 1) for i in range(49, 99)), activation=counted, note="other")
    calls.clear()
    PCNetwork(graph)
    assert len(calls) == few


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_trial_is_of_the_networks_type(dtype):
    """A matrix of the network's own type is no mistake, and one of another is."""
    matrix = torch.eye(4, dtype=dtype)
    learn(PCNetwork(declared(node=lambda a: (a @ matrix).tanh()), dtype=dtype))
    other = torch.float32 if dtype != torch.float32 else torch.float64
    with pytest.raises(GraphError, match="does not take a tensor"):
        PCNetwork(declared(node=lambda a: (a @ matrix.to(other)).tanh()), dtype=dtype)


# -- an Activation of one's own ---------------------------------------------------------------------------------------


def doubled(a, out):
    return torch.mul(a, 2, out=out)


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        (Activation("twice", lambda a: a + 1, at_zero=0.0), "must be 0.0 at zero"),
        (Activation("twice", lambda a: a * 3, doubled), "what its function gives"),
        (Activation("twice", lambda a: a * 2, lambda a, out: out.copy_(a.mul_(2))), "changes another argument"),
        (Activation("twice", lambda a: a * 2, doubled, lambda g, a, mu, out: out.copy_(g.mul_(2))), "changes another"),
    ],
    ids=["at_zero", "another function", "writes into a", "writes into g"],
)
def test_what_an_activation_says_of_itself_is_tried(activation, words):
    with pytest.raises(GraphError, match=words):
        PCNetwork(declared(edge=activation))


def test_an_activation_that_keeps_its_word_is_admitted():
    kept = Activation("twice", lambda a: a * 2, doubled, lambda g, a, mu, out: torch.mul(g, 2, out=out), 0.0)
    learn(PCNetwork(declared(edge=kept, node=kept)))


# -- transforms -------------------------------------------------------------------------------------------------------


class Own(T.Transform):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def output_shape(self, input_shape):
        return input_shape

    def forward(self, x):
        return self.function(x)


class Gated(nn.Module):
    """Zero at first, so that what it does shows only after it has learned."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return self.gate * (x - x.mean(0))


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x.tanh()


class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    @torch.no_grad()
    def forward(self, x):
        return self.layer(x)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 3)

    def forward(self, x):
        return self.table(x.long()).flatten(1)


class Remembering(nn.Module):
    """Keeps what it computed, as attention layers keep their weights."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        self.last = self.layer(x)
        return self.last


def encoder(**keywords):
    return nn.TransformerEncoderLayer(4, 1, 8, **keywords)


@pytest.mark.parametrize(
    ("transform", "shape", "out", "words"),
    [
        (nn.FractionalMaxPool2d(2, output_size=2), (1, 4, 4), (1, 2, 2), DRAWS),
        (encoder(dropout=0.0), (3, 4), None, MIXES),
        (parametrizations.spectral_norm(nn.Linear(4, 4)), (4,), None, CHANGES),
        (nn.Softmax(dim=0), (4,), None, MIXES),
        (Gated(), (4,), None, MIXES),
        (Counted(), (4,), None, CHANGES),
        (Blind(), (4,), None, SLOPE),
        (Own(lambda x: F.dropout(x, 1e-4)), (4,), None, DRAWS),
        (Own(lambda x: x.relu_()), (4,), None, IN_PLACE),
        (Own(lambda x: x - x.mean(0)), (4,), None, MIXES),
        (Own(lambda x: x[:1]), (4,), None, r"must lead to the shape \(2, 4\) \(found \(1, 4\)\)"),
        (Own(lambda x: x > 0), (4,), None, "torch.bool"),
        (Own(lambda x: {}["lost"]), (4,), None, "does not take a tensor .*lost"),
        (T.Sequence([nn.Linear(4, 4), T.Activate(lambda a: a - a.mean(0))]), (4,), None, MIXES),
        (T.Activate(lambda a: F.dropout(a, 1e-4)), (4,), None, DRAWS),
    ],
)
def test_what_no_transform_may_do_is_refused_when_declared(transform, shape, out, words):
    with pytest.raises(GraphError, match=words) as caught:
        PCNetwork(declared(transform=transform, shape=shape, out=out))
    assert caught.value.where == ("x", "h")


@pytest.mark.parametrize(
    ("transform", "shape", "out"),
    [
        (encoder(dropout=0.0, batch_first=True), (3, 4), None),
        (T.Module(encoder(dropout=0.1, batch_first=True), evaluation=True), (3, 4), None),
        (T.Module(parametrizations.spectral_norm(nn.Linear(4, 4)), evaluation=True), (4,), None),
        (parametrizations.orthogonal(nn.Linear(4, 4)), (4,), None),
        (nn.LazyLinear(4), (4,), None),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), (4,), None),
        (Own(torch.tanh), (4,), None),
        (Own(lambda x: x.double().tanh()), (4,), None),
        (Remembering(), (4,), None),
    ],
)
def test_what_a_transform_may_do_is_admitted_and_learns(transform, shape, out):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = PCNetwork(declared(transform=transform, shape=shape, out=out))
        learn(net, shape)
        learn(copy.deepcopy(net), shape)


def test_a_module_of_tokens_is_tried_on_tokens():
    """A table of ten rows has none for -1, and no slope in its argument."""
    net = PCNetwork(declared(transform=Tokens(), out=(12,)))
    x = torch.randint(0, 10, (5, 4)).float()
    net.infer({"x": x, "y": torch.ones(5, 3)}, init=Forward(), steps=3, optimizer=SGD(lr=0.02)).backward()
    assert net.transform("x", "h").module.table.weight.grad.any()


def masked():
    return T.MaskedLinear(torch.eye(4) + torch.ones(4, 4).tril(-2))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(lambda: nn.Linear(4, 4), (4,)), (masked, (4,)), (lambda: T.Conv2d(1, 1, 3, padding=1), (1, 4, 4))],
    ids=["nn.Linear", "MaskedLinear", "Conv2d"],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda m: parametrizations.weight_norm(m, "weight"),
        lambda m: prune.random_unstructured(m, "weight", amount=0.5),
        lambda m: nn.utils.parametrize.register_parametrization(m, "weight", nn.Tanh()),
    ],
    ids=["weight_norm", "prune", "tanh"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_the_weights_of_a_module_are_computed_from_learns(layer, shape, change, when):
    """Gradients of the original parameters are those of autograd, and the edge follows an optimizer's step."""
    torch.manual_seed(0)
    module = layer()
    if when == "before":
        change(module)
    net = PCNetwork(declared(transform=module, shape=shape), dtype=torch.float64)
    if when == "after":
        own = net.transform("x", "h")
        change(own.module if isinstance(own, T.Module) else own)
    x, target = double(5, *shape), double(5, *shape, seed=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        net.infer({"x": x, "h": target}, init=Forward(), steps=0).backward()
        edge = net.transform("x", "h")
        named = dict(edge.named_parameters())
        mu = edge(x) + net.biases["bias_" + "x".join(map(str, shape))][0]
        loss = 0.5 * (target - mu).square().flatten(1).sum(1).mean()
        for parameter, expected in zip(named.values(), torch.autograd.grad(loss, list(named.values()))):
            torch.testing.assert_close(parameter.grad, expected)
            assert parameter.grad.any()
        optimizer.step()


# -- energies ---------------------------------------------------------------------------------------------------------


class Scored(Energy):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def energy(self, h, mu):
        return self.function(h, mu)


def squared(h, mu):
    return (h - mu).square().flatten(1).sum(1)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda h, mu: squared(h.sub_(mu), 0), IN_PLACE),
        (lambda h, mu: squared(h, mu.mul_(2)), IN_PLACE),
        (lambda h, mu: squared(h - h.mean(0), mu), MIXES),
        (lambda h, mu: squared(F.dropout(h, 1e-4), mu), DRAWS),
        (lambda h, mu: squared(h, mu.detach()), SLOPE),
        (lambda h, mu: {}["lost"], "does not take a tensor .*lost"),
    ],
)
def test_what_no_energy_may_do_is_refused_when_declared(function, words):
    with pytest.raises(GraphError, match=words) as caught:
        PCNetwork(declared(energy=Scored(function)))
    assert caught.value.where == "h"


@pytest.mark.parametrize(
    "function",
    [
        squared,
        lambda h, mu: squared(h, 0),
        lambda h, mu: -torch.distributions.Beta(mu.sigmoid() + 1, torch.ones_like(mu)).log_prob(h).flatten(1).sum(1),
        lambda h, mu: -torch.distributions.Poisson(mu.exp()).log_prob(h).flatten(1).sum(1),
    ],
    ids=["squared", "of the state alone", "of probabilities", "of counts"],
)
def test_what_an_energy_may_do_is_admitted(function):
    PCNetwork(declared(energy=Scored(function)))
