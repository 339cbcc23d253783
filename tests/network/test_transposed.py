"""Feedback through the transpose of the weight that feeds forward: ``share=`` with ``transpose=True``."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import networkx as nx
import pytest
import torch
from torch import nn

import pcgraph
from pcgraph import SGD, Forward, Normal, PCNetwork, Zero
from pcgraph.errors import ConfigError, GraphError
from pcgraph.testing import reference
from tests.builders import assert_equal_to_reference, clamps_of, double, initial_states, reference_step


def feedback(**settings: Any) -> nx.DiGraph:
    """x -> h1 -> h2 -> y, and from h2 to h1 through the transpose of what leads from h1 to h2."""
    graph = pcgraph.graphs.chain([3, 4, 5, 2], activation="tanh")
    graph.edges["h1", "h2"]["share"] = "w"
    graph.add_edge("h2", "h1", share="w", transpose=True, **settings)
    return graph


def tied_autoencoder() -> nx.DiGraph:
    graph = pcgraph.graphs.chain([6, 4, 3, 4, 6], activation="tanh")
    graph.edges["x", "h1"]["share"] = graph.edges["h3", "y"]["share"] = "outer"
    graph.edges["h1", "h2"]["share"] = graph.edges["h2", "h3"]["share"] = ("inner", 1)
    graph.edges["h3", "y"]["transpose"] = graph.edges["h2", "h3"]["transpose"] = True
    return graph


def test_the_gradient_is_that_of_both_edges() -> None:
    """By hand, at the final states: dF/dW is -(s_h2 h1^T) of the edge, and -(h2 s_h1^T) of its transpose."""
    net = PCNetwork(feedback(scale=0.5), dtype=torch.float64)
    clamps = clamps_of(net)
    result = net.infer(clamps, init=Normal(std=0.5), steps=3, optimizer=SGD(lr=0.1))
    result.backward()
    h1, h2 = result.states["h1"], result.states["h2"]
    s1, s2 = (result.errors[v] * (1 - result.predictions[v] ** 2) for v in ("h1", "h2"))
    expected = -(s2.t() @ h1 + 0.5 * h2.t() @ s1) / len(h1)
    torch.testing.assert_close(net.weight("h1", "h2").grad, expected)
    torch.testing.assert_close(net.weight("h2", "h1").grad, expected.t())
    assert net.weight("h2", "h1").shape == (4, 5)
    assert len(list(net.weights)) == 3


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("settings", [{}, {"activation": "sigmoid"}, {"scale": -2.0}], ids=str)
def test_feedback_equals_the_reference(steps: int, settings: dict[str, Any]) -> None:
    net = PCNetwork(feedback(**settings), dtype=torch.float64)
    for init in (Normal(std=0.5), Forward(fallback=Zero())):
        assert_equal_to_reference(net, clamps_of(net), init, steps, SGD(lr=0.05))


def test_the_reference_transposes_by_itself() -> None:
    """What it computes is what a graph without sharing computes that has both matrices."""
    net = PCNetwork(feedback(), dtype=torch.float64)
    plain = feedback()
    del plain.edges["h1", "h2"]["share"], plain.edges["h2", "h1"]["share"], plain.edges["h2", "h1"]["transpose"]
    twin = PCNetwork(plain, dtype=torch.float64)
    twin.load_from(net)
    assert torch.equal(twin.weight("h2", "h1"), net.weight("h1", "h2").t())
    clamps = clamps_of(net)
    start = initial_states(net, clamps, Normal(std=0.5))
    one, two = (reference.infer(n, clamps, start, 4, reference_step(SGD(0.1))) for n in (net, twin))
    for v in start:
        torch.testing.assert_close(one.states[v], two.states[v])


@pytest.mark.parametrize("kernel", ["dense", "batched", "sparse"])
def test_every_kernel(kernel: str) -> None:
    """Many equal edges, in an order of their weights that is not their own, and one weight twice."""
    size = 1 if kernel == "sparse" else 3
    graph = nx.gnm_random_graph(9, 30, seed=3, directed=True)
    nx.set_node_attributes(graph, size, "shape")
    nx.set_node_attributes(graph, "tanh", "activation")
    edges = sorted(graph.edges)
    for k, edge in enumerate(edges[:14]):
        graph.edges[edge]["share"] = k
    for k, edge in enumerate(edges[14:]):
        graph.edges[edge].update(share=(7 * k) % 13, transpose=True)
    net = PCNetwork(graph, dtype=torch.float64)
    pins = {b.name: kernel for b in net.structure.buckets}
    clamps = {0: double(3, size), 8: double(3, size, seed=1)}
    for steps in (1, 3):
        assert_equal_to_reference(net, clamps, Normal(std=0.5), steps, SGD(lr=0.05), kernels=pins)
    text = net.plan(clamped=clamps, init=Zero(), steps=1, kernels=pins).explain()
    kinds = [line.strip() for line in text.splitlines() if "16 edges" in line]
    assert kinds == [f"transposed_{size}_to_{size}: 16 edges, {kernel}"]


def test_edges_that_are_alike_transpose_weights_that_do_not_lie_together() -> None:
    """The weights of other activations and scales lie in other tensors, at the same rows as these."""
    graph = pcgraph.graphs.chain([4, 4, 4, 4, 2], activation="tanh")
    graph.edges["h1", "h2"].update(share="one", activation="sigmoid")
    graph.edges["h2", "h3"].update(share="two", scale=0.5)
    graph.add_edge("h2", "h1", share="one", transpose=True)
    graph.add_edge("h3", "h2", share="two", transpose=True)
    net = PCNetwork(graph, dtype=torch.float64)
    for forth, back in ((("h1", "h2"), ("h2", "h1")), (("h2", "h3"), ("h3", "h2"))):
        assert torch.equal(net.weight(*back), net.weight(*forth).t())
    assert_equal_to_reference(net, clamps_of(net), Normal(std=0.5), 3, SGD(lr=0.1))


def test_a_tied_autoencoder_is_a_sweep_and_a_module() -> None:
    net = PCNetwork(tied_autoencoder(), dtype=torch.float64)
    assert_equal_to_reference(net, clamps_of(net), Forward(), 5, SGD(lr=0.1))
    x = double(3, 6)
    torch.testing.assert_close(net.as_module("x", "y")(x), net.predict({"x": x}, "y"))
    assert sum(p.numel() for p in net.parameters() if p.dim() == 3) == 6 * 4 + 4 * 3
    assert "transposed" in str(net.summary())


def test_training_keeps_them_tied() -> None:
    net = PCNetwork(tied_autoencoder())
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    first = (net.predict({"x": x}, "y") - x).square().mean()
    for _ in range(60):
        optimizer.zero_grad()
        net.infer({"x": x, "y": x}, init=Forward(), steps=5, optimizer=SGD(lr=0.1)).backward()
        optimizer.step()
    assert (net.predict({"x": x}, "y") - x).square().mean() < 0.8 * first
    assert torch.equal(net.weight("h3", "y"), net.weight("x", "h1").t())


def test_handles_write_freeze_and_group() -> None:
    net = PCNetwork(feedback())
    edge, turned = net.edge("h1", "h2"), net.edge("h2", "h1")
    turned.weight[0, 1] = 7.0
    assert edge.weight[1, 0] == 7.0
    assert edge.place == turned.place
    turned.freeze()
    assert edge.frozen
    assert net.frozen_edges == {edge.number, turned.number}
    plan = net.plan(clamped={"x", "y"}, init=Normal(), steps=3)
    assert {edge.number, turned.number}.isdisjoint(plan.learn.edges.tolist())
    edge.unfreeze()
    assert not turned.frozen
    with pytest.raises(GraphError, match="shares with edge 'h1' -> 'h2'"):
        net.parameter_groups({("h1", "h2"): {"lr": 1.0}, ("h2", "h1"): {"lr": 2.0}})
    with pytest.raises(GraphError, match="initialize that edge"):
        turned.initialize()
    twin = copy.deepcopy({"net": net, "weight": turned.weight})
    twin["weight"].fill_(3.0)
    assert bool((twin["net"].weight("h1", "h2") == 3.0).all())


def test_an_optimizer_takes_the_transposed_view() -> None:
    """It moves the one weight by the gradient of both edges, as an optimizer of the packed tensor does."""
    nets = [PCNetwork(feedback(), dtype=torch.float64) for _ in range(2)]
    own = [nets[0].weight("h2", "h1"), nets[1].get_parameter(nets[1].edge("h1", "h2").place[0])]
    for net, parameter in zip(nets, own):
        net.infer(clamps_of(net), init=Normal(std=0.5), steps=3, optimizer=SGD(lr=0.1)).backward()
        torch.optim.Adam([parameter], lr=0.1).step()
    torch.testing.assert_close(nets[0].weight("h1", "h2"), nets[1].weight("h1", "h2"))
    assert not torch.equal(nets[0].weight("h1", "h2"), PCNetwork(feedback(), dtype=torch.float64).weight("h1", "h2"))


def test_files_and_checkpoints(tmp_path: Any) -> None:
    net = PCNetwork(tied_autoencoder())
    pcgraph.save(tmp_path / "run", net)
    found = pcgraph.load(tmp_path / "run").net
    assert found.graph.edges["h3", "y"] == {"share": "outer", "transpose": True}
    x = torch.randn(2, 6)
    assert torch.equal(found.predict({"x": x}, "y"), net.predict({"x": x}, "y"))
    assert len(list(found.parameters())) == len(list(net.parameters()))
    untied = tied_autoencoder()
    for _, _, data in untied.edges(data=True):
        data.clear()
    carried = net.load_from(PCNetwork(untied, seed=1))
    assert carried.different.keys() == {("h2", "h3"), ("h3", "y")}
    assert "shares its weight with edge 'x' -> 'h1' here, and has another there" in carried.different["h3", "y"]


def test_checks_plans_and_pictures_know_it(tmp_path: Any) -> None:
    """A transposed edge closes a cycle as any other, is counted, and is named by what it is."""
    net = PCNetwork(feedback())
    report = pcgraph.check(net, {"x", "y"})
    assert set(report.cycle) == {"h1", "h2"}
    plan = net.plan(clamped={"x", "y"}, init=Normal(), steps=3)
    pcgraph.plan.verify(plan)
    plain = feedback()
    del plain.edges["h2", "h1"]["share"], plain.edges["h2", "h1"]["transpose"]
    assert plan.flops(7) == PCNetwork(plain).plan(clamped={"x", "y"}, init=Normal(), steps=3).flops(7)
    from pcgraph import drawing

    assert "the transpose of a weight that it shares" in str(drawing.svg(net))
    assert net.to_data().edge_weight.numel() == 3 * 4 + 2 * 4 * 5 + 5 * 2


def test_muPC_scales_both_ways() -> None:
    graph = pcgraph.scaling.mupc(tied_autoencoder())
    assert graph.edges["h3", "y"]["scale"] != graph.edges["x", "h1"]["scale"]
    net = PCNetwork(graph, dtype=torch.float64)
    assert_equal_to_reference(net, clamps_of(net), Forward(), 4, SGD(lr=0.1))


def test_a_convolution_and_its_transpose_share_a_parameter(tmp_path: Any) -> None:
    """torch's own way of tying: both edges' gradients meet in the one parameter; a file would hold two, and says so."""
    conv, back = nn.Conv2d(1, 3, 3, bias=False), nn.ConvTranspose2d(3, 1, 3, bias=False)
    back.weight = conv.weight
    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, 5, 5), slots={"down": {}})
    graph.add_node("h", shape=(3, 3, 3), activation="tanh")
    graph.add_node("y", shape=2)
    graph.add_edge("x", "h", transform=conv)
    graph.add_edge("h", "x", transform=back, slot="down")
    graph.add_edge("h", "y")
    net = PCNetwork(graph, dtype=torch.float64)
    assert_equal_to_reference(net, clamps_of(net), Forward(), 4, SGD(lr=0.1))
    assert net.transform("x", "h").module.weight is net.transform("h", "x").module.weight
    with pytest.raises(GraphError, match="have one parameter, 'weight', and cannot be saved"):
        pcgraph.serialization.write_graph(tmp_path / "graph.json", graph)
    with pytest.warns(pcgraph.errors.PCGraphWarning, match="the graph is not in the checkpoint"):
        pcgraph.save(tmp_path / "run", net)
    before = conv.weight.clone()
    with torch.no_grad():
        net.transform("x", "h").module.weight.zero_()
    pcgraph.load(tmp_path / "run").restore(net=net)
    torch.testing.assert_close(net.transform("h", "x").module.weight, before.double())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.edges["h2", "h1"].pop("share"), "needs share="),
        (lambda g: g.edges["h1", "h2"].pop("share"), "no edge has the weight 'w' as it is"),
        (lambda g: g.edges["h1", "h2"].update(transpose=True), "no edge has the weight 'w' as it is"),
        (lambda g: g.edges["h2", "h1"].update(transpose="yes"), "needs transpose=True or transpose=False"),
        (lambda g: g.edges["h2", "h1"].update(trainable=False), "trainable on one of its edges"),
        (lambda g: g.edges["h2", "h1"].update(init="normal"), "transpose of another edge's, which says it"),
        (lambda g: g.edges["h2", "h1"].update(transform=nn.Linear(5, 4)), "conv_transpose.weight = conv.weight"),
        (lambda g: g.edges["h2", "h1"].update(transform=pcgraph.transforms.SparseLinear(density=0.5)), "found sparse"),
        (lambda g: g.add_edge("y", "x", share="w", transpose=True), "leads from 5 neurons to 4; the edge leads from 2"),
        (lambda g: g.edges["h1", "h2"].update(transform=nn.Linear(4, 5)), "is no dense weight but a Module's"),
    ],
)
def test_what_cannot_be_transposed_is_refused(change: Any, message: str) -> None:
    graph = feedback()
    change(graph)
    with pytest.raises(GraphError, match=message):
        PCNetwork(graph)


def test_a_tied_weight_lies_on_one_rank() -> None:
    net = PCNetwork(feedback())
    plan = net.plan(clamped={"x", "y"}, init=Normal(), steps=3)
    with pytest.raises(ConfigError, match="they share a weight: a weight is on one rank"):
        plan.across({"x": 0, "h1": 0, "h2": 1, "y": 1})
    assert plan.across({"x": 0, "h1": 0, "h2": 0, "y": 1}).cut.parts == 2


def test_half_precision_and_onednn_read_the_transpose() -> None:
    net = PCNetwork(feedback())
    clamps = clamps_of(net)
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = net.infer(clamps, init=Normal(std=0.5), steps=3, optimizer=SGD(lr=0.1))
        half.backward()
        gradient = net.weight("h2", "h1").grad.clone()
    net.zero_grad()
    full = net.infer(clamps, init=Normal(std=0.5), steps=3, optimizer=SGD(lr=0.1))
    full.backward()
    torch.testing.assert_close(half.states["h1"], full.states["h1"], rtol=0.05, atol=0.05)
    torch.testing.assert_close(gradient, net.weight("h2", "h1").grad, rtol=0.1, atol=0.1)
