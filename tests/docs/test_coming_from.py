"""What docs/coming_from.md says of others' models, against the same models by hand: plain torch, float64, autograd."""

from __future__ import annotations

import networkx as nx
import pytest
import torch

from pcgraph import SGD, Forward, Normal, PCNetwork, States
from tests.builders import EXACT, clamps_of, double, initial_states
from tests.docs.test_docs import DOCS, blocks, run_python

RATE = 0.1


@pytest.fixture(scope="module")
def page():
    """The names that the page's code defines."""
    names = {"__name__": "document"}
    path = DOCS / "coming_from.md"
    for block in blocks(path):
        if block.language == "python":
            run_python(path, block, names)
    return names


def assert_by_hand(net, clamps, init, predictions, weights, steps=4):
    """States and gradients of `net` are those of the energy that ``predictions(states) -> {node: mu}`` has.

    `weights` are pairs: one of the network's parameters, and the tensor of the hand-written model that it stands for.
    """
    h = {v: state.clone() for v, state in initial_states(net, clamps, init).items()}
    result = net.infer(clamps, init=init, steps=steps, optimizer=SGD(lr=RATE))
    net.zero_grad()
    result.backward()

    def energy():
        return sum(0.5 * (h[v] - mu).square().flatten(1).sum(1) for v, mu in predictions(h).items())

    free = [v for v in net.graph if v not in clamps]
    for _ in range(steps):
        h.update({v: h[v].detach().requires_grad_() for v in free})
        gradients = torch.autograd.grad(energy().sum(), [h[v] for v in free])
        h.update({v: h[v].detach() - RATE * g for v, g in zip(free, gradients, strict=True)})
    for v in free:
        torch.testing.assert_close(result.states[v], h[v], **EXACT)
    torch.testing.assert_close(result.energy, energy().detach(), **EXACT)
    by_hand = torch.autograd.grad(energy().mean(), [weight for _, weight in weights])
    for (ours, _), gradient in zip(weights, by_hand, strict=True):
        torch.testing.assert_close(ours.grad.reshape(gradient.shape), gradient, **EXACT)


def leaf(tensor):
    return tensor.detach().clone().requires_grad_()


class Packed:
    """A slice of a packed parameter, by edge or node, that has its part of the gradient."""

    def __init__(self, net, *edge):
        i = net.structure.edge_number(*edge)
        bucket = net.structure.buckets[int(net.structure.bucket_of[i])]
        self.parameter, self.place = net.weights[bucket.name], i - bucket.start

    @property
    def grad(self):
        return self.parameter.grad[self.place]


@pytest.mark.parametrize("act", ["tanh", "gelu_tanh"])
@pytest.mark.parametrize("skips", [False, True])
def test_jpc_make_mlp(page, act, skips):
    """Layers are W z, W phi(z), W phi(z); with skip_model each but the first and the last adds z itself."""
    graph = nx.MultiDiGraph(page["mlp"])
    for u, v, key in [("h1", "h2", 0), ("h2", "y", 0)]:
        graph.edges[u, v, key]["activation"] = act
    if skips:
        graph.add_edge("h1", "h2", transform="identity")
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    phi = {"tanh": torch.tanh, "gelu_tanh": lambda a: torch.nn.functional.gelu(a, approximate="tanh")}[act]
    edges = [("x", "h1", 0), ("h1", "h2", 0), ("h2", "y", 0)]
    w1, w2, w3 = (leaf(net.weight(*edge)) for edge in edges)

    def predictions(h):
        skip = h["h1"] if skips else 0
        return {"h1": h["x"] @ w1.T, "h2": phi(h["h1"]) @ w2.T + skip, "y": phi(h["h2"]) @ w3.T}

    weights = [(Packed(net, *edge), w) for edge, w in zip(edges, (w1, w2, w3), strict=True)]
    for init in (Forward(), Normal(std=0.5, seed=1)):
        assert_by_hand(net, clamps_of(net), init, predictions, weights)


def test_jpc_first_make_mlp(page):
    """phi(W z + b), and a linear output: a chain as it stands."""
    net = page["pcgraph"].graphs.chain([8, 16, 3], activation="tanh")
    net = PCNetwork(net, seed=0, dtype=torch.float64)
    w1, w2 = (leaf(net.weight(*edge)) for edge in (("x", "h1"), ("h1", "y")))
    b1, b2 = (net.bias(v).detach() for v in ("h1", "y"))
    weights = [(Packed(net, "x", "h1"), w1), (Packed(net, "h1", "y"), w2)]

    def predictions(h):
        return {"h1": torch.tanh(h["x"] @ w1.T + b1), "y": h["h1"] @ w2.T + b2}

    assert_by_hand(net, clamps_of(net), Normal(std=0.5, seed=1), predictions, weights)


def test_fabricpc_linear_residual(page):
    """sigma(W x + b) + x; the node's own activation would stand around the sum."""
    net = PCNetwork(page["residual"], seed=0, dtype=torch.float64)
    linear = net.transform("x", "h", 0).module[0]
    w, b, v = leaf(linear.weight), leaf(linear.bias), leaf(net.weight("h", "y", 0))

    def predictions(h):
        return {"h": torch.tanh(h["x"] @ w.T + b) + h["x"], "y": h["h"] @ v.T + net.bias("y").detach()}

    weights = [(linear.weight, w), (linear.bias, b), (Packed(net, "h", "y", 0), v)]
    for init in (Forward(), Normal(std=0.5, seed=1)):
        assert_by_hand(net, clamps_of(net), init, predictions, weights)


def test_fabricpc_linear_maps_the_last_axis(page):
    """One weight and one bias for every place; a dense edge would mix the places."""
    net = PCNetwork(page["tokens"], seed=0, dtype=torch.float64)
    linear = net.transform("x", "h").module
    w, b, v = leaf(linear.weight), leaf(linear.bias), leaf(net.weight("h", "y"))

    def predictions(h):
        mu = torch.tanh(torch.einsum("bpf,gf->bpg", h["x"], w) + b)
        return {"h": mu, "y": h["h"].flatten(1) @ v.T + net.bias("y").detach()}

    weights = [(linear.weight, w), (linear.bias, b), (Packed(net, "h", "y"), v)]
    for init in (Forward(), Normal(std=0.5, seed=1)):
        assert_by_hand(net, clamps_of(net), init, predictions, weights)


def test_jpc_rates(page):
    """Its activities go down the mean of the batch's energies: a rate of 0.5 at batch 50 is 0.01 here."""
    assert "0.5 at\nbatch 50 there is a state rate of 0.01 here" in (DOCS / "coming_from.md").read_text(
        encoding="utf-8"
    )
    net = PCNetwork(page["mlp"], seed=0, dtype=torch.float64)
    clamps = {"x": double(50, 8, seed=1), "y": double(50, 3, seed=2)}
    w1, w2, w3 = (net.weight(*edge).detach() for edge in (("x", "h1"), ("h1", "h2"), ("h2", "y")))
    h = [state.clone() for state in (initial_states(net, clamps, Forward())[v] for v in ("h1", "h2"))]
    for _ in range(3):
        h = [state.requires_grad_() for state in h]
        errors = h[0] - clamps["x"] @ w1.T, h[1] - torch.tanh(h[0]) @ w2.T, clamps["y"] - torch.tanh(h[1]) @ w3.T
        energy = sum(0.5 * e.square().sum() for e in errors) / 50
        h = [(s - 0.5 * g).detach() for s, g in zip(h, torch.autograd.grad(energy, h), strict=True)]
    result = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(lr=0.01))
    for v, expected in zip(("h1", "h2"), h, strict=True):
        torch.testing.assert_close(result.states[v], expected, **EXACT)


def test_fabricpc_error_coordinates(page):
    """EPCInference: states are derived along the graph from the errors, which go down the energy as a whole."""
    net = PCNetwork(page["pcgraph"].graphs.chain([8, 6, 5, 3], activation="tanh"), seed=0, dtype=torch.float64)
    clamps, edges = clamps_of(net), [("x", "h1"), ("h1", "h2"), ("h2", "y")]
    weights = [(net.weight(*edge).detach(), net.bias(edge[1]).detach()) for edge in edges]

    def derived(errors):
        states = [clamps["x"]]
        for (w, b), e in zip(weights, errors):
            states.append(torch.tanh(states[-1] @ w.T + b) + e)
        return states[1:]

    errors = [torch.zeros_like(h) for h in derived([0.0, 0.0])]
    for _ in range(4):
        errors = [e.requires_grad_() for e in errors]
        last = clamps["y"] - derived(errors)[-1] @ weights[-1][0].T - weights[-1][1]
        energy = sum(0.5 * e.square().sum() for e in (*errors, last))
        errors = [(e - 0.1 * g).detach() for e, g in zip(errors, torch.autograd.grad(energy, errors), strict=True)]
    how = {"init": Forward(), "steps": 4, "optimizer": SGD(lr=RATE), "coordinates": page["pcgraph"].Errors()}
    result = net.infer(clamps, **how)
    for v, expected in zip(("h1", "h2"), derived(errors), strict=True):
        torch.testing.assert_close(result.states[v], expected, **EXACT)


@pytest.mark.parametrize("unroll", [1, 2])
def test_fabricpc_forward_start_on_a_cycle(page, unroll):
    """Each node once, from what its sources are then: a sees c as drawn, and c moves afterwards."""
    net = PCNetwork(page["loop"], seed=0, dtype=torch.float64)
    clamps = clamps_of(net)
    drawn = {v: double(3, 6, seed=i) for i, v in enumerate("abc")}

    def mu(v, *sources):
        return sum((s @ net.weight(u, v).T for u, s in sources), net.bias(v)).detach()

    a, b, c = (drawn[v] for v in "abc")
    for _ in range(unroll):
        a = mu("a", ("x", clamps["x"]), ("c", c))
        b = mu("b", ("a", a))
        c = mu("c", ("b", b))
    start = page["visited"](net, clamps, ["a", "b", "c"] * unroll, States(drawn))
    found = initial_states(net, clamps, start)
    for v, expected in zip("abc", (a, b, c), strict=True):
        torch.testing.assert_close(found[v], expected, **EXACT)
    errors = net.infer(clamps, init=start, steps=0).errors
    assert float(errors["a"].abs().max()) > 0.01
    assert max(float(errors[v].abs().max()) for v in "bc") < 1e-12
