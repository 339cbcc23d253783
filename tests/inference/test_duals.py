"""Dual variables against the slow reference in float64, and their limits: backpropagation, also through cycles."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import LBFGS, SGD, Adam, Duals, Errors, Forward, Normal, PCNetwork, Zero
from pcgraph.errors import ConfigError
from pcgraph.learning import backprop
from pcgraph.plan import verify
from pcgraph.testing import reference
from pcgraph.testing.strategies import cyclic_digraphs, dags, digraphs, problems
from tests.builders import assert_equal_to_reference, chain, clamps_of, double, reference_step

SMOOTH = ("identity", "tanh", "gelu", "sigmoid")
GRAPHS = {
    "any": digraphs(max_nodes=6, activations=SMOOTH, priors=True, slots=True),
    "parallel": digraphs(max_nodes=6, activations=SMOOTH, priors=True, parallel=True, slots=True),
    "ring": cyclic_digraphs(max_nodes=6, activations=SMOOTH, parallel=True, slots=True),
}
OPTIMIZERS = (SGD(0.05), SGD(0.05, momentum=0.7), Adam(0.02, eps=1e-3))
INITS = (Zero, lambda: Normal(std=0.3), lambda: Forward(fallback=Zero()))
ROUGH = {"rtol": 1e-8, "atol": 1e-10}


# -- against the reference --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@pytest.mark.parametrize("kind", GRAPHS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_network_equals_the_reference(kind, data):
    """States, duals, energies, errors and gradients, with slots, partial clamps and priors; and the plan is proved."""
    p = data.draw(problems(graphs=GRAPHS[kind], clamps="some", rich=True, masks=True))
    init = data.draw(st.sampled_from(INITS))()
    optimizer, steps = data.draw(st.sampled_from(OPTIMIZERS)), data.draw(st.integers(0, 7))
    duals = Duals(data.draw(st.sampled_from((0.1, 0.4))), data.draw(st.sampled_from((None, 0.3, 1.5))))
    net = p.network()
    clamps = p.clamps(net)
    verify(net.plan(p.clamped - p.masked, masked=p.masked, init=init, steps=steps, optimizer=optimizer, duals=duals))
    assert_equal_to_reference(net, clamps, init, steps, optimizer, tolerance=ROUGH, duals=duals)


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(deadline=None, max_examples=40)
@given(
    p=problems(graphs=dags(max_nodes=6, activations=SMOOTH, parallel=True, priors=True, slots=True), clamps="some"),
    steps=st.integers(0, 5), optimizer=st.sampled_from(OPTIMIZERS),
)  # fmt: skip
def test_in_error_coordinates_too(p, steps, optimizer):
    """There the gradient for an error gains its dual, and nothing else does: it drops out of what is sent on."""
    net, kw = p.network(), {"coordinates": Errors(), "duals": Duals(0.2)}
    init = Forward(fallback=Normal(std=0.3))
    verify(net.plan(p.clamped, init=init, steps=steps, optimizer=optimizer, **kw))
    assert_equal_to_reference(net, p.clamps(net), init, steps, optimizer, tolerance=ROUGH, **kw)


@pytest.mark.parametrize("stop", [None, 0.4])
@pytest.mark.parametrize("sizes", [(4, 5, 5, 5, 5, 3), (70, 70, 70, 70, 70, 3)])
@pytest.mark.parametrize("kernel", ["dense", "batched"])
def test_chains_by_every_kernel(stop, sizes, kernel):
    """Large groups keep the slope of a prediction that holds still; the dual is added before it."""
    net = chain(*sizes, dtype=torch.float64)
    kw = {"duals": Duals(0.5, stop), "kernels": {b.name: kernel for b in net.structure.buckets}}
    for steps in (1, 2, 12):
        assert_equal_to_reference(net, clamps_of(net), Forward(), steps, SGD(0.2), tolerance=ROUGH, **kw)


def test_precision_is_the_weight_of_the_penalty():
    """rho of the augmented Lagrangian, by node or for one run."""
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    kw = {"duals": Duals(0.3), "precision": {"h1": 2.0, "h2": 0.5}}
    assert_equal_to_reference(net, clamps_of(net), Forward(), 8, SGD(0.1), tolerance=ROUGH, **kw)


# -- what it is for ---------------------------------------------------------------------------------------------------


def gradients(net: PCNetwork) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    return found


@pytest.mark.parametrize("graph", ["chain", "residual", "skip"])
def test_where_it_has_settled_it_is_backpropagation(graph):
    """h = mu everywhere, and each dual is what backpropagation sends to its node: L is stationary in h."""
    made = {
        "chain": pcgraph.graphs.chain([4, 5, 5, 5, 3], activation="tanh"),
        "residual": pcgraph.scaling.mupc(pcgraph.graphs.residual(4, 5, 3, blocks=2, inner=0, activation="tanh")),
        "skip": pcgraph.graphs.skip([4, 5, 5, 3], activation="tanh"),
    }[graph]
    net = PCNetwork(made, dtype=torch.float64)
    clamps = clamps_of(net)
    kw = {"init": Forward(), "optimizer": SGD(0.1), "duals": Duals(0.1), "steps": 20_000}
    kw["precision"] = {v: 2.0 for v in net.graph if v not in clamps}  # above the curvature of duals times predictions
    result = net.infer(clamps, tolerance=1e-11, **kw)
    assert result.converged.all()
    assert (result.steps < 20_000).all()
    result.backward()
    local = gradients(net)
    backprop(net, {"x": clamps["x"]}, {"y": clamps["y"]})
    for name, gradient in gradients(net).items():
        torch.testing.assert_close(local[name], gradient, rtol=1e-6, atol=1e-9)


def ring(strength: float = 0.4) -> PCNetwork:
    """x → a ⇄ b → y with weak weights, so that h = mu has one solution."""
    graph = nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")])
    nx.set_node_attributes(graph, 4, "shape")
    nx.set_node_attributes(graph, {"a": "tanh", "b": "tanh"}, "activation")
    net = PCNetwork(graph, dtype=torch.float64)
    with torch.no_grad():
        for weight in net.weights.values():
            weight.mul_(strength)
    return net


def test_on_a_cycle_it_is_the_gradient_through_the_fixed_point():
    """Almeida and Pineda's gradient, here by unrolling the cycle until nothing changes any more."""
    net = ring()
    clamps = clamps_of(net)
    result = net.infer(
        clamps, init=Zero(), optimizer=SGD(0.2), duals=Duals(0.2), steps=20_000, tolerance=1e-12
    )  # fmt: skip
    assert result.converged.all()
    assert all(float(result.errors[v].abs().max()) < 1e-11 for v in ("a", "b"))
    result.backward()
    local = gradients(net)
    states = {"x": clamps["x"], "b": torch.zeros_like(clamps["x"])}
    for _ in range(200):
        states["a"] = net.differentiable_prediction("a", states)
        states["b"] = net.differentiable_prediction("b", states)
    loss = 0.5 * (clamps["y"] - net.differentiable_prediction("y", states)).square().sum(1).mean()
    loss.backward()
    for name, gradient in gradients(net).items():
        torch.testing.assert_close(local[name], gradient, rtol=1e-7, atol=1e-10)


def test_constraints_without_a_solution_are_told():
    """h = 1 + h has none: the dual grows without end, and the sample does not converge."""
    graph = nx.DiGraph([("a", "a"), ("a", "y")])
    nx.set_node_attributes(graph, 1, "shape")
    nx.set_edge_attributes(graph, "identity", "transform")
    net = PCNetwork(graph, dtype=torch.float64)
    with torch.no_grad():
        net.bias("a").fill_(1.0)
    kw = {"init": Zero(), "optimizer": SGD(0.1), "duals": Duals(0.2), "tolerance": 1e-6}
    found = [net.infer({"y": double(2, 1)}, steps=steps, **kw) for steps in (200, 400)]
    assert not any(result.converged.any() for result in found)
    assert float(found[1].duals["a"].abs().min()) > 1.5 * float(found[0].duals["a"].abs().max())


def test_the_target_may_cost_instead_of_being_fixed():
    """A nudged output that is free has a dual too: then lambda is the nudge's own gradient, and learning backprop's."""
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    clamps = clamps_of(net)
    target, strength = clamps.pop("y"), 0.5
    motion = pcgraph.backends.Motion(SGD(0.2), nudges={net.structure.number["y"]: (target, strength)})
    options = pcgraph.inference.Options(tolerance=1e-11)
    result = net.run(
        clamps, init=Forward(), steps=20_000, labels=None, motion=motion, options=options, duals=Duals(0.2)
    )  # fmt: skip
    assert result.converged.all()
    result.accumulate()
    local = gradients(net)
    backprop(net, clamps, {"y": target})
    for name, gradient in gradients(net).items():
        torch.testing.assert_close(local[name], strength * gradient, rtol=1e-6, atol=1e-9)


def test_a_signal_reaches_the_first_block_of_a_deep_net():
    """Where plain states leave the first of 32 blocks a part in 10^6 of backprop's gradient, in T = 2L."""
    graph = pcgraph.scaling.mupc(pcgraph.graphs.residual(20, 16, 4, blocks=32, inner=0, activation="relu"))
    net = PCNetwork(graph, dtype=torch.float64)
    clamps = clamps_of(net, batch=16)
    backprop(net, {"x": clamps["x"]}, {"y": clamps["y"]})
    blocks = next(name for name, p in net.named_parameters() if p.shape == (32, 16, 16))
    wanted, found = gradients(net)[blocks][0], {}
    for duals in (None, Duals(0.5)):
        net.infer(clamps, init=Forward(), steps=64, optimizer=SGD(0.3), duals=duals).backward()
        found[duals is None] = gradients(net)[blocks][0]
    cosine = torch.nn.functional.cosine_similarity(found[False].flatten(), wanted.flatten(), 0)
    assert cosine > 0.8
    assert found[False].norm() > 1e-3 * wanted.norm()
    assert found[True].norm() < 1e-5 * wanted.norm()


# -- nodes that stop --------------------------------------------------------------------------------------------------


def deep(**settings):
    net = chain(6, *[8] * 10, 3, dtype=torch.float64)
    clamps = clamps_of(net, batch=4)
    return net, net.infer(clamps, init=Forward(), steps=40, optimizer=SGD(0.3), **settings), clamps


def test_nodes_that_have_settled_stop_and_are_skipped():
    """Fewer states move, and fewer products are computed; the answer is the reference's."""
    net, whole, clamps = deep(duals=Duals(0.5))
    _, fewer, _ = deep(duals=Duals(0.5, stop=0.2))
    assert fewer.moves < 0.9 * whole.moves
    expected = reference.infer(
        net, clamps, net.infer(clamps, init=Forward(), steps=0).states, 40, reference_step(SGD(0.3)), dual_rate=0.5,
        stop=0.2,
    )  # fmt: skip
    for v in net.graph:
        torch.testing.assert_close(fewer.states[v], expected.states[v], rtol=1e-9, atol=1e-11)


def test_what_nodes_that_stopped_need_is_not_computed():
    """The stage that is left has fewer edges: none comes in from, or is sent back to, a node that has stopped."""
    net, result, _ = deep(duals=Duals(0.5))
    plan, s = result.plan, net.structure
    stage, stopped = plan.stage(20), [s.number[v] for v in ("h8", "h9", "h10")]
    mask = torch.zeros(len(s.nodes), dtype=torch.bool).numpy()
    mask[stopped] = True
    left = stage.without(mask, s)
    for before, after in ((stage.propagate, left.propagate), (stage.pull, left.pull)):
        gone = {s.edge(int(e))[:2] for e in set(before.edges.tolist()) - set(after.edges.tolist())}
        assert gone == {("h8", "h9"), ("h9", "h10"), ("h10", "y")}


def test_what_reads_a_node_that_goes_on_is_computed_from_all_its_parents():
    """A sum is made anew as a whole: the part of a parent that has stopped belongs to it."""
    graph = nx.DiGraph([("x", "a"), ("x", "b"), ("a", "c"), ("b", "c"), ("a", "d"), ("c", "y"), ("d", "y")])
    nx.set_node_attributes(graph, 4, "shape")
    nx.set_node_attributes(graph, dict.fromkeys("abcd", "tanh"), "activation")
    net = PCNetwork(graph, dtype=torch.float64)
    kw = {"init": Forward(), "optimizer": SGD(0.2), "duals": Duals(0.5, stop=0.5)}
    plan = net.plan({"x", "y"}, steps=9, **kw)
    s, stage = net.structure, plan.stage(5)
    mask = torch.zeros(len(s.nodes), dtype=torch.bool).numpy()
    mask[s.number["a"]] = True
    left = stage.without(mask, s)
    assert {s.edge(int(e))[:2] for e in left.propagate.edges} == {("a", "c"), ("b", "c"), ("c", "y"), ("d", "y")}
    assert {s.nodes[int(v)] for v in left.propagate.nodes} == {"c", "y"}
    assert ("a", "c") not in {s.edge(int(e))[:2] for e in left.pull.edges}
    assert_equal_to_reference(net, clamps_of(net), steps=12, tolerance=ROUGH, **kw)


def test_the_batch_does_not_change_a_samples_answer():
    """Neither where nodes stop nor with a tolerance: samples do not couple."""
    net = chain(6, *[8] * 6, 3, dtype=torch.float64)
    clamps = clamps_of(net, batch=5)
    kw = {"init": Forward(), "steps": 300, "optimizer": SGD(0.3)}
    for how in ({"duals": Duals(0.5, stop=0.1)}, {"duals": Duals(0.3), "tolerance": 1e-5}):
        together = net.infer(clamps, **kw, **how)
        for k in range(5):
            alone = net.infer({v: h[k : k + 1] for v, h in clamps.items()}, **kw, **how)
            for v in net.graph:
                torch.testing.assert_close(alone.states[v][0], together.states[v][k], rtol=1e-9, atol=1e-11)
            for v in alone.duals:
                torch.testing.assert_close(alone.duals[v][0], together.duals[v][k], rtol=1e-9, atol=1e-11)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"duals": 0.3}, r"pcgraph\.Duals\(rate=\.\.\.\) \(found 0\.3\)"),
        ({"duals": Duals(0.3), "optimizer": LBFGS()}, r"LBFGS.*duals change in every step.*SGD"),
        ({"duals": Duals(0.3, stop=0.1), "coordinates": Errors()}, r"follows its parents.*leave out stop="),
    ],
)
def test_what_duals_do_not_go_with_is_refused(settings, message):
    net = chain(4, 5, 3)
    kw = {"init": Forward(), "steps": 3, "optimizer": SGD(0.1), **settings}
    with pytest.raises(ConfigError, match=message):
        net.infer(clamps_of(net), **kw)
    with pytest.raises(ConfigError, match=message):
        net.plan({"x", "y"}, **kw)


@pytest.mark.parametrize("bad", [{"rate": 0}, {"rate": "fast"}, {"rate": 0.1, "stop": -1}, {"rate": float("nan")}])
def test_settings_that_are_none_are_refused(bad):
    with pytest.raises(ConfigError, match="rate|stop"):
        Duals(**bad)


def test_a_backend_without_duals_says_so():
    class Plain(pcgraph.backends.Backend):
        name = "plain"

        def lower(self, plan, network, batch):
            raise AssertionError("nothing is to run")

    net = PCNetwork(pcgraph.graphs.chain([3, 2]), backend=Plain())
    with pytest.raises(ConfigError, match=r"'plain' has no dual variables: leave out duals="):
        net.infer(clamps_of(net), init=Forward(), steps=1, optimizer=SGD(0.1), duals=Duals(0.1))


def test_a_result_without_duals_says_so():
    net = chain(3, 4, 2)
    result = net.infer(clamps_of(net), init=Forward(), steps=1, optimizer=SGD(0.1))
    assert len(result.duals) == 0
    with pytest.raises(KeyError, match="no dual"):
        result.duals["h1"]
