"""load_state_dict takes all of a state or nothing of it: torch's own stops halfway, with half of another network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import pcgraph
from pcgraph import Forward, Normal, Null, PerNode, Zero
from pcgraph.serialization import encode

CLAMPS = {"x": torch.ones(6, 4), "y": torch.eye(3)[torch.arange(6) % 3]}


def network(seed: int = 0) -> pcgraph.PCNetwork:
    graph = pcgraph.graphs.chain([4, 5, 5, 3], activation="tanh")
    graph.edges["x", "h1"]["transform"] = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
    graph.nodes["h2"]["energy"] = pcgraph.energies.LearnedPrecision(2.0)
    torch.manual_seed(seed)
    return pcgraph.PCNetwork(graph, seed=seed)


def learned(init: pcgraph.Initializer, net: pcgraph.PCNetwork) -> pcgraph.Initializer:
    net.infer(CLAMPS, init=init, steps=1, optimizer=pcgraph.SGD(lr=0.01)).backward()
    return init


MADE: dict[str, Callable[[int], nn.Module]] = {
    "network": network,
    "Null": lambda seed: learned(Null(first=Normal(seed=seed)), network(seed)),
    "Average": lambda seed: learned(pcgraph.Average(otherwise=Normal(seed=seed)), network(seed)),
    "Memory": lambda seed: pcgraph.Memory(network(seed), patterns=2, heads=1, embed_dim=2, seed=seed),
    "Amortized": lambda seed: pcgraph.Amortized(network(seed), "x", seed=seed),
    "PerNode": lambda seed: learned(PerNode({"h1": Zero()}, default=Normal(seed=seed)), network(seed)),
    "Forward": lambda seed: learned(Forward(fallback=Null(first=Normal())), network(seed)),
}
BAD: dict[str, Callable[[dict[str, Any]], object]] = {
    "the last has another shape": lambda state: state.update({list(state)[-1]: torch.ones(2, 3, 4, 5)}),
    "the last is missing": lambda state: state.popitem(),
    "one more": lambda state: state.update(more=torch.ones(2)),
    "no tensor": lambda state: state.update({list(state)[-1]: "text"}),
}


def as_it_is(module: nn.Module) -> Any:
    return encode([dict(module.state_dict()), [p.requires_grad for p in module.parameters()], module.training])


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", MADE)
def test_what_does_not_fit_leaves_all_as_it_was(kind: str, bad: str, assign: bool) -> None:
    module, other = MADE[kind](0), MADE[kind](1)
    state = dict(other.state_dict())
    if bad == "the last is missing" and kind in ("Null", "Average", "Forward"):
        state.clear()  # what they remember comes and goes; the last entry is that of a part
    BAD[bad](state) if state else state.update(more=torch.ones(2))
    before, tensors = as_it_is(module), [id(t) for t in (*module.parameters(), *module.buffers())]
    with pytest.raises((RuntimeError, pcgraph.PCGraphError, TypeError)):
        module.load_state_dict(state, assign=assign)
    assert as_it_is(module) == before
    assert [id(t) for t in (*module.parameters(), *module.buffers())] == tensors


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", MADE)
def test_what_fits_is_taken(kind: str, assign: bool) -> None:
    module, other = MADE[kind](0), MADE[kind](1)
    assert as_it_is(module) != as_it_is(other) or kind in ("Forward", "PerNode")
    module.load_state_dict(other.state_dict(), assign=assign)
    assert as_it_is(module) == as_it_is(other)


def test_a_count_that_is_none_leaves_all_as_it_was() -> None:
    """What a module keeps beside tensors is read last."""
    init = MADE["PerNode"](0)
    state = dict(init.state_dict())
    key = next(key for key in state if key.endswith("_extra_state"))
    state = {name: torch.zeros_like(value) for name, value in state.items()} | {key: torch.tensor(-1)}
    before = as_it_is(init)
    with pytest.raises(pcgraph.PCGraphError, match="Normal has observed"):
        init.load_state_dict(state)
    assert as_it_is(init) == before
