"""A prior on any node: a slot that no edge feeds, whose prediction is a constant."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import SGD, Errors, Forward, Normal, PCNetwork, Zero
from pcgraph.errors import GraphError
from pcgraph.topology import verify
from pcgraph.topology.witness import FreeRoot
from tests.builders import EXACT, assert_equal_to_reference, clamps_of, double


def decayed(prior: Any = 0.0, **said: Any) -> nx.DiGraph:
    """x -> h1 -> h2 -> y, with a prior on the hidden h1 and one on h2."""
    graph = pcgraph.graphs.chain([3, 4, 4, 2], activation="tanh")
    graph.nodes["h1"]["slots"] = {"decay": {"prior": prior, **said}}
    graph.nodes["h2"]["slots"] = {"pull": {"prior": [0.1, -0.2, 0.3, 0.0], "precision": 2.0}}
    return graph


@pytest.mark.parametrize("said", [{"precision": 0.3}, {"energy": "laplace"}, {"energy": "huber"}], ids=str)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_it_equals_the_reference(said: dict[str, Any], steps: int) -> None:
    net = PCNetwork(decayed(**said), dtype=torch.float64)
    for init in (Forward(), Normal(std=0.5)):
        assert_equal_to_reference(net, clamps_of(net), init, steps, SGD(lr=0.1))


def test_the_energy_and_the_rest_are_those_of_the_formula() -> None:
    """One linear node between a constant and its prediction rests at their weighted mean; its energy is a sum."""
    graph = pcgraph.graphs.chain([3, 3], activation="identity")
    graph.nodes["y"].update(precision=2.0, slots={"decay": {"prior": 1.0, "precision": 0.5}})
    net = PCNetwork(graph, dtype=torch.float64)
    x = double(5, 3)
    result = net.infer({"x": x}, init=Forward(), steps=200, optimizer=SGD(lr=0.2))
    mu = x @ net.weight("x", "y").t() + net.bias("y")
    h = (2.0 * mu + 0.5 * 1.0) / 2.5
    torch.testing.assert_close(result.states["y"], h, **EXACT)
    torch.testing.assert_close(result.errors["y", "decay"], h - 1.0, **EXACT)
    torch.testing.assert_close(result.node_energy["y", "decay"], 0.25 * (h - 1).square().sum(1), **EXACT)
    torch.testing.assert_close(result.predictions["y", "decay"], torch.ones(5, 3, dtype=torch.float64))
    assert net.node("y", slot="decay").count == 0


def test_it_is_a_clamped_constant_before_a_slot() -> None:
    """The same net with an edge of its own into the slot, from a node that is clamped to the constant."""
    net = PCNetwork(decayed(precision=0.3), dtype=torch.float64)
    graph = decayed(precision=0.3)
    del graph.nodes["h1"]["slots"]["decay"]["prior"]
    graph.nodes["h1"]["slots"]["decay"]["bias"] = False
    graph.add_node("zero", shape=4)
    graph.add_edge("zero", "h1", slot="decay", transform="identity")
    twin = PCNetwork(graph, dtype=torch.float64)
    twin.load_from(net)
    clamps = clamps_of(net)
    found = [
        n.infer(c, init=Forward(), steps=6, optimizer=SGD(lr=0.1))
        for n, c in ((net, clamps), (twin, clamps | {"zero": torch.zeros(3, 4, dtype=torch.float64)}))
    ]
    for v in net.graph:
        torch.testing.assert_close(found[0].states[v], found[1].states[v], **EXACT)


def test_plans_reports_and_files_know_it(tmp_path: Any) -> None:
    net = PCNetwork(decayed(precision=0.3), dtype=torch.float64)
    report = pcgraph.check(net, {"x", "y"})
    assert report.verdict(Forward()).valid
    assert report.error_coordinates().valid
    assert verify(net.graph, {"x", "y"}, report.verdict(Forward()).witness)
    plan = net.plan(clamped={"x", "y"}, init=Forward(), steps=3)
    pcgraph.plan.verify(plan)
    assert "slots, which begin with an error: " in plan.explain()
    pcgraph.serialization.write_graph(tmp_path / "graph.json", net.graph)
    found = pcgraph.serialization.read_graph(tmp_path / "graph.json")
    assert found.nodes["h2"]["slots"] == net.graph.nodes["h2"]["slots"]
    assert "prior 0\nprecision 0.3" in str(pcgraph.drawing.svg(net))
    x = {"x": double(2, 3)}
    kwargs = {"init": Forward(), "steps": 5, "optimizer": SGD(lr=0.1)}
    weaker = net.infer(x, precision={("h1", "decay"): 1e-9, ("h2", "pull"): 1e-9}, **kwargs).states["h1"]
    torch.testing.assert_close(weaker, net.as_module("x", "h1")(x["x"]).detach(), rtol=1e-6, atol=1e-6)


def test_error_coordinates_find_the_same_rest() -> None:
    net = PCNetwork(decayed(precision=0.3), dtype=torch.float64)
    clamps = clamps_of(net)
    rests = [
        net.infer(clamps, init=Forward(), steps=3000, optimizer=SGD(lr=0.1), coordinates=c).states["h1"]
        for c in (None, Errors())
    ]
    torch.testing.assert_close(rests[0], rests[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("level", ["groups", "neurons"])
def test_a_lonely_root_with_a_prior_slot_has_no_known_value(level: Any) -> None:
    """An error depends on it, so that a sweep does not know where to begin; without the slot it does not matter."""
    graph = pcgraph.graphs.chain([2, 2])
    graph.add_node("alone", shape=2)
    assert not pcgraph.check(graph, {"x"}, level=level).free_roots
    graph.nodes["alone"]["slots"] = {"decay": {"prior": 1.0}}
    roots = pcgraph.check(graph, {"x"}, level=level).free_roots
    assert [str(root) for root in roots] == (["alone"] if level == "groups" else ["alone[0]", "alone[1]"])
    assert all(verify(graph, {"x"}, FreeRoot(root), level=level) for root in roots)
    del graph.nodes["alone"]["slots"]
    assert not any(verify(graph, {"x"}, FreeRoot(root), level=level) for root in roots)
    graph.nodes["alone"]["slots"] = {"decay": {"prior": 1.0}}
    net = PCNetwork(graph, dtype=torch.float64)
    assert_equal_to_reference(net, {"x": double(3, 2)}, Forward(roots=Zero()), 4, SGD(lr=0.1))


def test_advice_does_not_ask_a_decay_with_the_weight_of_feedback() -> None:
    """Where an image is known in part, feedback is asked with more; a decay towards zero fills in nothing."""
    graph = pcgraph.graphs.cortex([8, 6, 4, 2])
    graph.nodes["V1"]["slots"]["decay"] = {"prior": 0.0, "precision": 0.001}
    image = pcgraph.Masked(torch.zeros(2, 8), torch.arange(8) < 4)
    advice = pcgraph.advise(PCNetwork(graph), {"image": image, "class": torch.eye(2)})
    asked = advice.predict["precision"]
    assert ("V1", "down") in asked
    assert ("V1", "decay") not in asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.nodes["h1"].update(prior=0.0), r"beside others it is a slot: slots=\{'decay'"),
        (lambda g: g.add_edge("y", "h1", slot="decay"), "has a prior, which is its prediction, and is fed by an edge"),
        (lambda g: g.nodes["h1"]["slots"]["decay"].update(bias=True), "has a prior, .* and says 'bias'"),
        (lambda g: g.nodes["h1"]["slots"]["decay"].update(activation="tanh"), "and says 'activation'"),
        (lambda g: g.nodes["h1"]["slots"]["decay"].update(prior=None), "is fed by no edge: .* give it a prior"),
        (lambda g: g.nodes["h1"]["slots"]["decay"].update(prior="zero"), "the prior of slot 'decay' of node 'h1'"),
        (lambda g: g.nodes["h1"]["slots"]["decay"].update(prior=[1.0, 2.0]), "must broadcast to its shape"),
        (lambda g: g.nodes["h1"]["slots"]["decay"].update(prior=float("nan")), "finite"),
    ],
)
def test_what_is_no_prior_is_refused(change: Any, message: str) -> None:
    graph = decayed()
    change(graph)
    with pytest.raises(GraphError, match=message):
        PCNetwork(graph)
