"""Whatever a callable of a user's raises when it is declared, the error is ours, names the place, and has one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pcgraph
from pcgraph import GraphError, PCNetwork
from pcgraph import transforms as T
from pcgraph.combines import Combine
from pcgraph.energies import Energy

RAISED = [
    KeyError("lost"), ZeroDivisionError("lost"), AttributeError("lost"), AssertionError("lost"), StopIteration("lost"),
    NotImplementedError("lost"), OSError("lost"), MemoryError("lost"), RecursionError("lost"), Exception("lost"),
    TypeError("lost"), ValueError("it was\n\n  lost"), UnicodeDecodeError("utf8", b"a", 0, 1, "lost"),
]  # fmt: skip


class Raising(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, *given: Any) -> Any:
        raise self.error


class Own(T.Transform):
    def __init__(self, error: Exception, in_shape: bool) -> None:
        super().__init__()
        self.error, self.in_shape = error, in_shape

    def output_shape(self, input_shape: Any) -> Any:
        if self.in_shape:
            raise self.error
        return input_shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise self.error


class Joining(Combine):
    roles = ("one", "two")

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, one: Any, two: Any) -> Any:
        raise self.error


class Scored(Energy):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def energy(self, h: Any, mu: Any) -> Any:
        raise self.error


def on_edge(**said: Any) -> Any:
    graph = pcgraph.graphs.chain([(3, 3), (3, 3)])
    graph.edges["x", "y"].update(said)
    return PCNetwork(graph)


def on_line(**said: Any) -> Any:
    graph = pcgraph.graphs.chain([3, 3])
    graph.edges["x", "y"].update(said)
    return PCNetwork(graph)


def on_node(**said: Any) -> Any:
    graph = pcgraph.graphs.chain([3, 3])
    graph.nodes["y"].update(said)
    return PCNetwork(graph)


def on_slot(**said: Any) -> Any:
    graph = pcgraph.graphs.chain([3, 3, 3])
    graph.nodes["h1"]["slots"] = {"down": said}
    graph.add_edge("y", "h1", slot="down")
    return PCNetwork(graph)


def joined(error: Exception) -> Any:
    graph = pcgraph.graphs.chain([3, 3])
    graph.add_node("z", shape=3)
    graph.nodes["y"]["combine"] = Joining(error)
    graph.edges["x", "y"]["role"] = "one"
    graph.add_edge("z", "y", role="two")
    return PCNetwork(graph)


RING = torch.tensor([[0, 1, 2], [1, 2, 0]])
PLACES = {
    "activation of a node": lambda error: on_node(activation=Raising(error)),
    "activation of a slot": lambda error: on_slot(activation=Raising(error)),
    "activation of an edge": lambda error: on_line(activation=Raising(error)),
    "energy of a node": lambda error: on_node(energy=Scored(error)),
    "energy of a slot": lambda error: on_slot(energy=Scored(error)),
    "module": lambda error: on_line(transform=Raising(error)),
    "forward of a transform": lambda error: on_line(transform=Own(error, in_shape=False)),
    "output_shape of a transform": lambda error: on_line(transform=Own(error, in_shape=True)),
    "layer of a graph": lambda error: on_edge(transform=T.GraphLayer(Raising(error), RING)),
    "combine": joined,
    "init of an edge": lambda error: on_line(init=Raising(error)),
    "init in a handle of an edge": lambda error: on_line().edge("x", "y").initialize(Raising(error)),
    "init in a handle of a node": lambda error: on_line().node("y").initialize(Raising(error)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_it_becomes_an_error_of_ours(place: str, error: Exception) -> None:
    """Else somebody's slip in a function ends far from it, and nothing says which node or edge it belongs to."""
    with pytest.raises(GraphError, match="lost") as caught:
        PLACES[place](error)
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fill",
    [lambda w, g, n: w.resize_(2, 2).zero_() and None, lambda w, g, n: w.set_(torch.ones_like(w).storage()) and None],
    ids=["resized", "replaced"],
)  # fmt: skip
def test_an_init_fills_the_tensor_that_it_is_given(fill: Any) -> None:
    """A weight that lies elsewhere is never seen by the network: it would keep what it had, without a word."""
    for place in (lambda: on_line(init=fill), lambda: on_line().edge("x", "y").initialize(fill),
                  lambda: on_line().node("y").initialize(fill)):  # fmt: skip
        with pytest.raises(GraphError, match="neither resize nor replace|fails on"):
            place()
