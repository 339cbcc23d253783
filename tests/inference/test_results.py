"""A result says what the run found, whatever happens afterwards; and what was used can be copied and sent."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import pcgraph
from pcgraph import SGD, Equilibrium, Forward, PCNetwork, Zero
from pcgraph.errors import ConfigError
from tests.builders import chain, clamps_of, double


def pair(batch=4):
    return {"x": double(batch, 3), "y": double(batch, 2, seed=1)}


def with_learned_precision() -> PCNetwork:
    graph = pcgraph.graphs.chain([3, 4, 2], activation="tanh")
    graph.nodes["y"]["energy"] = pcgraph.energies.LearnedPrecision(2.0)
    return PCNetwork(graph, seed=0, dtype=torch.float64)


def test_the_energy_is_that_of_the_run_or_is_refused_after_an_optimizer_step():
    """Old predictions with new precisions are the energy of nothing."""
    net = with_learned_precision()
    kw = {"init": Forward(), "steps": 3, "optimizer": SGD(0.1)}
    expected = net.infer(pair(), **kw).energy.clone()
    result = net.infer(pair(), **kw)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    result.backward()
    optimizer.step()
    try:
        found = result.energy
    except ConfigError:
        return
    torch.testing.assert_close(found, expected)


def test_modules_learn_nothing_of_weights_that_have_moved_since():
    """A gradient of old errors and new weights is the gradient of nothing; and nothing of it stays behind."""
    graph = pcgraph.graphs.chain([3, 4, 2], activation="tanh")
    graph.edges["x", "h1"]["transform"] = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4)
    )
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    kw = {"init": Forward(), "steps": 3, "optimizer": SGD(0.1)}
    first, second = net.infer(pair(), **kw), net.infer(pair(), **kw)
    first.backward()
    torch.optim.SGD(net.parameters(), lr=0.5).step()
    before = [p.grad.clone() for p in net.parameters()]
    with pytest.raises(ConfigError, match="the weights have moved since this inference"):
        second.backward()
    assert all(map(torch.equal, before, (p.grad for p in net.parameters())))
    net.infer(pair(), **kw).backward()


@pytest.mark.parametrize("when", ["before anything was read", "after"])
def test_what_is_written_into_the_callers_clamps_is_not_learned(when):
    """A loader that fills the same tensor for each batch must not change the batch before."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2], activation="tanh"), seed=0, dtype=torch.float64)
    kw = {"init": Forward(), "steps": 3, "optimizer": SGD(0.1)}
    net.infer(pair(), **kw).backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    clamps = pair()
    result = net.infer(clamps, **kw)
    if when == "after":
        assert result.energy.shape == (4,)
    for value in clamps.values():
        value.fill_(100.0)
    result.backward()
    for p, grad in zip(net.parameters(), expected):
        torch.testing.assert_close(p.grad, grad)


def test_what_is_written_into_the_callers_labels_is_not_learned():
    """Means would be those of other classes."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2], activation="tanh"), seed=0, dtype=torch.float64)
    found = []
    for later in (False, True):
        init, labels = pcgraph.Average(by=None, classes=2), torch.tensor([0, 1, 1, 0])
        result = net.infer(pair(), init=init, labels=labels, steps=2, optimizer=SGD(0.1))
        if later:
            labels.zero_()
        result.backward()
        found.append({name: value.clone() for name, value in init.named_buffers()})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_a_backward_that_fails_halfway_can_be_called_again():
    """It leaves no gradient behind, and is not taken for done."""

    class Fails(pcgraph.energies.LearnedPrecision):
        fails = True

        def energy(self, h, mu):
            if torch.is_grad_enabled() and self.fails:
                raise ArithmeticError("halfway")
            return super().energy(h, mu)

    graph = pcgraph.graphs.chain([3, 4, 2], activation="tanh")
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    graph.nodes["y"]["energy"] = Fails(2.0)
    Fails.fails = False
    net = PCNetwork(graph, seed=0, dtype=torch.float64)
    kw = {"init": Forward(), "steps": 3, "optimizer": SGD(0.1)}
    net.infer(pair(), **kw).backward()
    expected = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    result = net.infer(pair(), **kw)
    Fails.fails = True
    with pytest.raises(ArithmeticError, match="halfway"):
        result.backward()
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())
    Fails.fails = False
    result.backward()
    for p, grad in zip(net.parameters(), expected):
        torch.testing.assert_close(p.grad, grad)


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda init: pickle.loads(pickle.dumps(init))], ids=["copy", "pickle"]
)
def test_an_equilibrium_that_was_used_can_be_sent_and_holds_no_batch(again):
    net = PCNetwork(pcgraph.graphs.lateral([3, 4, 2], activation="tanh"), seed=0, dtype=torch.float64)
    init = Equilibrium(release="y", steps=20)
    kw = {"steps": 2, "optimizer": SGD(0.1)}
    first = net.infer(pair(), init=init, **kw)
    states = {v: h.clone() for v, h in first.states.items()}
    assert len(pickle.dumps(init)) < 20_000 + len(pickle.dumps(Zero()))
    large = net.infer(pair(5000), init=init, **kw)
    assert large.energy.shape == (5000,)
    assert len(pickle.dumps(init)) < 40_000
    second = net.infer(pair(), init=again(init), **kw)
    for v, h in second.states.items():
        torch.testing.assert_close(h, states[v])


def test_a_result_of_before_a_conversion_is_refused():
    """Its buffers have another type than the weights: torch's own error came from the middle of the gradients."""
    net = chain(4, 5, 3)
    result = net.infer(clamps_of(net), init=Forward(), steps=3, optimizer=SGD(0.1))
    net.double()
    with pytest.raises(ConfigError, match="converted or moved since this inference, from torch.float32 on cpu"):
        result.backward()
    net.float()
    result.backward()
