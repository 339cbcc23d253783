"""Rules that send errors back through a sweep's predictions: against backpropagation, and against their definitions."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pcgraph
from pcgraph import LBFGS, SGD, Duals, Errors, Forward, Normal, PCNetwork, Zero, learning
from pcgraph.errors import ClampError, ConfigError, InvalidInitializer
from pcgraph.learning import ZIL, FixedPredictions, ForwardUpdate, backprop, fixed_predictions, zero_divergence
from pcgraph.testing import reference
from pcgraph.testing.strategies import dags, problems
from tests.builders import EXACT, chain, clamps_of, double


def gradients(net: PCNetwork) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    return found


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor], **tolerance: float) -> None:
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, two[name], **(tolerance or EXACT), msg=lambda m, n=name: f"{n}: {m}")


def branching() -> nx.DiGraph:
    """Two branches of one length, a target with another energy, a precision, and a module on an edge."""
    graph = nx.DiGraph()
    for name, shape in (("x", 4), ("a", 5), ("b", 6), ("c", 5), ("y", 3)):
        graph.add_node(name, shape=shape, activation="identity" if name == "y" else "tanh")
    graph.add_edges_from([("x", "a"), ("x", "b"), ("a", "c"), ("b", "c"), ("c", "y"), ("x", "c")])
    graph.nodes["a"]["precision"] = 2.5
    graph.nodes["y"]["energy"] = "cross_entropy"
    graph.edges["a", "c"]["transform"] = torch.nn.Linear(5, 5, bias=False)
    return graph


GRAPHS = {
    "chain": lambda: pcgraph.graphs.chain([4, 5, 6, 5, 3], activation="tanh"),
    "branching": branching,
    "chain of one map": lambda: pcgraph.graphs.chain([4, 3]),
}


def problem(graph: nx.DiGraph) -> tuple[PCNetwork, dict[str, Tensor], dict[str, Tensor]]:
    net = PCNetwork(graph, seed=1, dtype=torch.float64)
    clamps = clamps_of(net)
    if net.graph.nodes["y"].get("energy") is not None:
        clamps["y"] = torch.eye(3, dtype=torch.float64)
    return net, {"x": clamps["x"]}, {"y": clamps["y"]}


# -- they equal backpropagation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_zil_is_backpropagation(name):
    """To the last digits: in the step in which it arrives, the error of a node is what backpropagation sends to it."""
    net, x, y = problem(GRAPHS[name]())
    loss = zero_divergence(net, x, y)
    found = gradients(net)
    torch.testing.assert_close(loss, backprop(net, x, y))
    assert_same(found, gradients(net))


@pytest.mark.parametrize("rule", [backprop, zero_divergence])
def test_where_nothing_learns_the_loss_is_told_all_the_same(rule):
    graph = pcgraph.graphs.chain([3, 4, 2], activation="tanh")
    for _, _, edge in graph.edges(data=True):
        edge["trainable"] = False
    for v in ("h1", "y"):
        graph.nodes[v]["bias"] = False
    net, x, y = problem(graph)
    loss = rule(net, x, y)
    mu = net.predict(x, "y")
    torch.testing.assert_close(loss, 0.5 * (y["y"] - mu).square().sum(1))


@pytest.mark.parametrize("name", [*GRAPHS, "skip"])
def test_fixed_predictions_are_backpropagation(name):
    """With the rate 1 / precision after as many steps as the longest path has edges, also where paths differ."""
    graph = pcgraph.graphs.skip([4, 5, 5, 3], activation="tanh") if name == "skip" else GRAPHS[name]()
    net, x, y = problem(graph)
    fixed_predictions(net, x, y, steps=6, optimizer=SGD({**({"a": 0.4} if "a" in net.graph else {}), None: 1.0}))
    found = gradients(net)
    backprop(net, x, y)
    assert_same(found, gradients(net))


@settings(deadline=None, max_examples=25)
@given(p=problems(graphs=dags(max_nodes=6, parallel=True)), data=st.data())
def test_on_any_dag_each_is_backpropagation_or_refused(p, data):
    """Z-IL where all paths to the target have one length, fixed predictions everywhere."""
    net = PCNetwork(p.graph, seed=p.seed, dtype=torch.float64)
    roots = [v for v in net.graph if not net.graph.in_degree(v)]
    ends = [v for v in net.graph if net.graph.in_degree(v)]
    if not ends:
        return
    target = data.draw(st.sampled_from(ends))
    x, y = ({v: double(2, *net.structure.shape(v), seed=k) for k, v in enumerate(vs)} for vs in (roots, [target]))
    backprop(net, x, y)
    expected = gradients(net)
    fixed_predictions(net, x, y, steps=12, optimizer=SGD(1.0))
    assert_same(gradients(net), expected)
    lengths = {len(path) for v in net.graph for path in nx.all_simple_paths(nx.DiGraph(net.graph), v, target)}
    try:
        zero_divergence(net, x, y)
    except ConfigError:
        assert len(lengths) > 1
    else:
        assert_same(gradients(net), expected)


def test_fixed_predictions_descend_to_it_at_any_rate():
    net, x, y = problem(branching())
    for optimizer in (SGD(0.1), SGD(0.1, momentum=0.5)):
        fixed_predictions(net, x, y, steps=400, optimizer=optimizer)
        found = gradients(net)
        backprop(net, x, y)
        assert_same(found, gradients(net), rtol=1e-3, atol=1e-4)


def test_few_steps_of_fixed_predictions_are_their_definition():
    """Written out for a chain: h moves by its own error and the children's, through the Jacobians of the sweep."""
    net, x, y = problem(pcgraph.graphs.chain([4, 5, 5, 3], activation="tanh"))
    swept = net.infer(x, init=Forward(), steps=0).states
    mu = {v: swept[v] for v in ("h1", "h2", "y")}
    h = {"h1": mu["h1"], "h2": mu["h2"], "y": y["y"]}
    weights = {"h2": net.weight("h1", "h2"), "y": net.weight("h2", "y")}
    for _ in range(3):
        e = {v: h[v] - mu[v] for v in h}
        back = {"h1": (e["h2"] * (1 - mu["h2"] ** 2)) @ weights["h2"], "h2": e["y"] @ weights["y"]}
        h = {v: h[v] - 0.3 * (e[v] - back[v]) if v in back else h[v] for v in h}
    energy = sum(0.5 * (h[v] - mu[v]).square().sum(1) for v in h)
    torch.testing.assert_close(fixed_predictions(net, x, y, steps=3, optimizer=SGD(0.3)), energy.detach())
    found = gradients(net)
    signal = (h["h2"] - mu["h2"]) * (1 - mu["h2"] ** 2)
    expected = -(signal.t() @ mu["h1"]) / 3
    packed = next(g for name, g in found.items() if g.shape[-2:] == (5, 5))
    torch.testing.assert_close(packed.reshape(5, 5), expected.detach())


# -- forward update ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [{}, {"coordinates": Errors()}, {"duals": Duals(0.3)}, {"precision": {"h1": 0.3, "y": [1.0, 1.0, 0.5, 2.0]}}],
)
def test_weights_learn_between_swept_sources_and_inferred_targets(how):
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    clamps = clamps_of(net)
    result = net.infer(clamps, init=Normal(std=0.3), steps=3, optimizer=SGD(0.2), **how)
    learning.forward_update(net, clamps, result)
    found = gradients(net)
    swept = reference.sweep(net, {"x": clamps["x"], "y": clamps["y"]}, ["h1", "h2"])
    mu = reference.predictions(net, swept)
    asked = {"h1": 0.3, "y": 2.0} if "precision" in how else {}
    total = torch.zeros(3, dtype=torch.float64)
    for v, m in mu.items():
        h = result.states[v]
        total = total + asked.get(v, 1.0) * 0.5 * (h - m).square().sum(1)
        if v in result.duals:
            total = total - (result.duals[v] * m).sum(1)
    total.mean().backward()
    assert_same(found, gradients(net))
    with pytest.raises(ConfigError, match="already"):
        learning.forward_update(net, clamps, result)


def test_slots_learn_too():
    """Of a node with a slot, both predictions are those of swept sources."""
    graph = nx.MultiDiGraph()
    for v, shape in (("x", 3), ("a", 4), ("y", 2)):
        graph.add_node(v, shape=shape)
    graph.nodes["a"]["slots"] = {"down": {"precision": 0.5}}
    graph.add_edges_from([("x", "a"), ("a", "y")])
    graph.add_edge("y", "a", slot="down")
    net = PCNetwork(graph, dtype=torch.float64)
    clamps = clamps_of(net)
    result = net.infer(clamps, init=Zero(), steps=2, optimizer=SGD(0.1))
    learning.forward_update(net, clamps, result)
    found = gradients(net)
    swept = reference.sweep(net, clamps, ["a"])
    mu = reference.predictions(net, swept)
    factor = {("a", "down"): 0.5}
    total = sum(
        factor.get(v, 1.0) * 0.5 * (result.states[v if v in net.graph else v[0]] - m).square().sum(1)
        for v, m in mu.items()
    )  # fmt: skip
    total.mean().backward()
    assert_same(found, gradients(net))


# -- in fit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        (ForwardUpdate(), {"init": Forward(), "steps": 4, "state_optimizer": SGD(0.2), "duals": Duals(0.2)}),
        (ZIL(), {}),
        (FixedPredictions(), {"init": Forward(), "steps": 3, "state_optimizer": SGD(1.0)}),
    ],
)
def test_each_trains(rule, settings):
    net = PCNetwork(pcgraph.graphs.chain([4, 16, 16, 3], activation="tanh"), seed=0)
    x = double(30, 4).float()
    batches = [(x, torch.eye(3)[(x[:, 0] > 0).long() + (x[:, 1] > 1).long()])]
    kw = {"optimizer": torch.optim.Adam(net.parameters(), lr=0.01), "epochs": 40, "progress": False}
    history = pcgraph.fit(net, batches, rule=rule, **settings, **kw)
    assert history.epochs[-1].energy < 0.5 * history.epochs[0].energy
    assert history.epochs[-1].accuracy > 0.85


def test_fit_takes_schedules_and_duals():
    """As a loop of one's own does, to the last bit."""
    nets = [PCNetwork(pcgraph.graphs.chain([4, 6, 6, 3], activation="tanh"), seed=0) for _ in range(2)]
    x, y = double(12, 4).float(), torch.eye(3)[torch.arange(12) % 3]
    how = {"duals": Duals(0.3), "precision": pcgraph.schedules.spiking(nets[0].graph, {"x"}, 4)}
    made = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets]
    pcgraph.fit(
        nets[0], [(x, y)], init=Forward(), steps=4, state_optimizer=SGD(0.2), optimizer=made[0], epochs=3,
        progress=False, **how,
    )  # fmt: skip
    for _ in range(3):
        made[1].zero_grad()
        nets[1].infer({"x": x, "y": y}, init=Forward(), steps=4, optimizer=SGD(0.2), **how).backward()
        made[1].step()
    for one, two in zip(nets[0].parameters(), nets[1].parameters()):
        assert torch.equal(one, two)


# -- bad input --------------------------------------------------------------------------------------------------------


def test_paths_of_two_lengths_are_refused_by_zil():
    net, x, y = problem(pcgraph.graphs.skip([4, 5, 5, 3], activation="tanh"))
    with pytest.raises(ConfigError, match=r"paths of one length.*found 'h1' at [12] and at [12].*identity nodes"):
        zero_divergence(net, x, y)


def test_what_has_no_sweep_or_another_energy_is_refused():
    ring = nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")])
    nx.set_node_attributes(ring, 3, "shape")
    net = PCNetwork(ring, dtype=torch.float64)
    x, y = ({v: double(2, 3)} for v in ("x", "y"))
    for rule in (zero_divergence, lambda *a: fixed_predictions(*a, steps=2, optimizer=SGD(1.0))):
        with pytest.raises(InvalidInitializer):
            rule(net, x, y)
        with pytest.raises(ClampError, match="batch size"):
            rule(net, x, {"y": double(3, 3)})
        with pytest.raises(ClampError, match="partial clamp of 'x'"):
            rule(net, {"x": pcgraph.Masked(double(2, 3), double(2, 3) > 0)}, y)
    graph = pcgraph.graphs.chain([3, 3, 3])
    graph.nodes["h1"]["energy"] = "laplace"
    with pytest.raises(ConfigError, match=r"Gaussian energies.*of 'h1'"):
        zero_divergence(PCNetwork(graph, dtype=torch.float64), x, y)
    graph = nx.MultiDiGraph(pcgraph.graphs.chain([3, 3, 3]))
    graph.nodes["h1"]["slots"] = {"down": {}}
    graph.add_edge("y", "h1", slot="down")
    with pytest.raises(ConfigError, match="is a slot"):
        zero_divergence(PCNetwork(graph, dtype=torch.float64), x, y)


def test_fixed_predictions_refuse_what_moves_by_the_energy():
    """A solver looks at the energy, and a following rate at its curvature; neither is that of fixed predictions."""
    net, x, y = problem(pcgraph.graphs.chain([4, 5, 3]))
    with pytest.raises(ConfigError, match="fixed predictions take a state optimizer"):
        fixed_predictions(net, x, y, steps=2, optimizer=LBFGS())
    with pytest.raises(ConfigError, match="give a number as the rate"):
        fixed_predictions(net, x, y, steps=2, optimizer=SGD(pcgraph.Following(0.1)))
    with pytest.raises(ConfigError, match="need a state optimizer"):
        fixed_predictions(net, x, y, steps=2, optimizer=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": ZIL(), "steps": 3}, "ZIL has no inference"),
        ({"rule": FixedPredictions(), "init": Zero(), "steps": 3, "state_optimizer": SGD(1.0)}, "of a sweep"),
        ({"rule": FixedPredictions(), "init": Forward(), "steps": 3, "state_optimizer": LBFGS()}, "without an energy"),
        ({"rule": learning.forward_update}, r"rule=pcgraph\.learning\.ForwardUpdate\(\)"),
        ({"rule": ZIL(), "duals": Duals(0.1)}, "leave out duals="),
        ({"init": Forward(), "steps": 3, "state_optimizer": LBFGS(), "duals": Duals(0.1)}, "duals change in"),
        ({"init": Forward(), "steps": 3, "state_optimizer": SGD(0.1), "precision": {"h1": [1.0]}}, "has 1 precisions"),
    ],
)  # fmt: skip
def test_fit_refuses_what_does_not_fit_before_it_runs(settings, message):
    net = chain(4, 5, 3)
    with pytest.raises(ConfigError, match=message):
        pcgraph.fit(
            net, [(double(2, 4).float(), double(2, 3).float())], progress=False,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1), **settings,
        )  # fmt: skip
