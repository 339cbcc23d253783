"""Networks with slots compute what the slow reference does, and their plans are proved."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import SGD, Adam, Errors, Forward, Memory, Normal, Null, PCNetwork, PerNode, Zero
from pcgraph.clamps import Masked
from pcgraph.plan import verify
from pcgraph.testing import reference
from pcgraph.testing.strategies import cyclic_digraphs, dags, digraphs, problems
from tests.builders import EXACT, assert_equal_to_reference, double
from tests.slots.builders import helpers
from tests.slots.test_declaring import hierarchy

SMOOTH = ("identity", "tanh", "gelu", "sigmoid")
GRAPHS = {
    "any": digraphs(max_nodes=6, activations=SMOOTH, priors=True, slots=True),
    "parallel": digraphs(max_nodes=6, activations=SMOOTH, priors=True, parallel=True, slots=True),
    "ring": cyclic_digraphs(max_nodes=6, activations=SMOOTH, parallel=True, slots=True),
    "scalar": digraphs(max_nodes=6, max_size=1, activations=("tanh", "identity"), parallel=True, slots=True),
}
OPTIMIZERS = (SGD(0.05), SGD(0.05, momentum=0.7), SGD(0.05, momentum=0.7, nesterov=True), Adam(0.02, eps=1e-3))
INITS = (
    Zero, lambda: Normal(std=0.3), lambda: Forward(fallback=Zero()), lambda: Forward(fallback=Normal(std=0.3)),
    lambda: Null(first=Zero()), lambda: PerNode({0: Zero()}, Normal(std=0.2)),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@pytest.mark.parametrize("kind", GRAPHS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_network_equals_the_reference(kind, data):
    """States, energies by node and slot, predictions, errors and gradients; and the plan is proved."""
    masks = kind != "scalar"
    p = data.draw(problems(graphs=GRAPHS[kind], clamps="some", rich=True, masks=masks))
    init = data.draw(st.sampled_from(INITS))()
    optimizer, steps = data.draw(st.sampled_from(OPTIMIZERS)), data.draw(st.integers(0, 7))
    net = p.network()
    clamps = p.clamps(net)
    verify(net.plan(p.clamped - p.masked, masked=p.masked, init=init, steps=steps, optimizer=optimizer))
    result = assert_equal_to_reference(net, clamps, init, steps, optimizer)
    assert set(result.states) == set(net.graph)
    assert set(result.node_energy) == set(reference.predictions(net, result.states))


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(deadline=None, max_examples=60)
@given(
    p=problems(graphs=dags(max_nodes=6, activations=SMOOTH, parallel=True, priors=True, slots=True), clamps="some"),
    steps=st.integers(0, 5), momentum=st.booleans(),
)  # fmt: skip
def test_errors_can_be_moved_where_main_predictions_have_no_cycle(p, steps, momentum):
    """A slot's own pull is part of what comes back to a node and goes on to its parents."""
    net = p.network()
    optimizer = SGD(0.03, momentum=0.5 if momentum else 0.0)
    init = Forward(fallback=Normal(std=0.3))
    verify(net.plan(p.clamped, init=init, steps=steps, optimizer=optimizer, coordinates=Errors()))
    assert_equal_to_reference(net, p.clamps(net), init, steps, optimizer, coordinates=Errors())


@settings(deadline=None, max_examples=30)
@given(p=problems(graphs=GRAPHS["ring"], clamps="some"), steps=st.integers(0, 4))
def test_errors_can_be_moved_round_cycles_too(p, steps):
    net, init, optimizer = p.network(), Normal(std=0.3), SGD(0.03)
    verify(net.plan(p.clamped, init=init, steps=steps, optimizer=optimizer, coordinates=Errors(keep="repair")))
    net.infer(p.clamps(net), init=init, steps=steps, optimizer=optimizer, coordinates=Errors(keep="repair"))


def test_initializers_that_remember_know_no_slots(device):
    """Average, Null and Memory keep states of nodes; a slot has none."""
    net = PCNetwork(hierarchy(), seed=1, dtype=torch.float64, device=device)
    clamps = {
        "image": double(6, 6, device=device),
        "class": torch.eye(3, dtype=torch.float64, device=device).repeat(2, 1),
    }
    for init in (pcgraph.Average(by="class"), Null(), Memory(net, patterns=4, heads=2, embed_dim=4)):
        if isinstance(init, Memory):
            assert set(init.observed) == {"image", "class"}
        for _ in range(2):
            net.zero_grad()
            assert_equal_to_reference(net, clamps, init, 3, SGD(0.05))
        assert "slots" not in "".join(init.state_dict())


def test_equilibrium_settles_main_predictions(device):
    """Its first phase is a sweep of main predictions, in which slots have no say; the second one has them."""
    net = PCNetwork(hierarchy(), seed=1, dtype=torch.float64, device=device)
    clamps = {"image": double(4, 6, device=device), "class": double(4, 3, seed=1, device=device)}
    init = pcgraph.Equilibrium(release="class")
    found = net.infer(clamps, init=init, steps=0).states
    swept = net.infer(clamps, init=Forward(), steps=0).states
    assert all(torch.equal(found[v], swept[v]) for v in net.graph)
    assert_equal_to_reference(net, clamps, init, 4, SGD(0.05))
    graph = hierarchy()
    graph.add_edge("V2", "V1")  # a cycle of main predictions: it is settled, and slots do not pull
    graph.nodes["V1"]["slots"]["down"]["precision"] = 1e6
    net = PCNetwork(graph, seed=1, dtype=torch.float64, device=device)
    states = net.infer(clamps, init=pcgraph.Equilibrium(release="class", steps=3000, tolerance=1e-9), steps=0).states
    mu = reference.predictions(net, {**{v: states[v] for v in net.graph}, "class": clamps["class"]})
    torch.testing.assert_close(states["V1"], mu["V1"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("coordinates", [None, Errors()])
def test_precisions_of_one_run(device, optimizer, coordinates):
    """Asked with more weight on feedback than it was trained with; what was declared holds again in the next run."""
    net = PCNetwork(hierarchy(), seed=1, dtype=torch.float64, device=device)
    clamps = {"image": double(4, 6, device=device), "class": double(4, 3, seed=1, device=device)}
    asked = {("V1", "down"): 2.0, ("image", "down"): 0.25, "V2": 3.0}
    how = {"init": Zero(), "steps": 5, "optimizer": optimizer, "coordinates": coordinates}
    before = net.infer(clamps, **how).energy
    for precision in (asked, {("V1", "down"): 0.1}, None, asked):
        net.zero_grad()
        result = assert_equal_to_reference(net, clamps, **how, precision=precision)
        torch.testing.assert_close(sum(result.node_energy.values()), result.energy)
    torch.testing.assert_close(net.infer(clamps, **how).energy, before, rtol=0, atol=0)
    graph = hierarchy()
    for v, slot in (("V1", "down"), ("image", "down")):
        graph.nodes[v]["slots"] = {**graph.nodes[v]["slots"]}
        graph.nodes[v]["slots"][slot] = {**graph.nodes[v]["slots"][slot], "precision": asked[v, slot]}
    graph.nodes["V2"]["precision"] = 3.0
    declared = PCNetwork(graph, dtype=torch.float64, device=device)
    declared.load_state_dict(net.state_dict())
    one, two = declared.infer(clamps, **how).energy, net.infer(clamps, **how, precision=asked).energy
    torch.testing.assert_close(one, two, **EXACT)
    pair = [n.curvature(clamps, init=Zero(), **k) for n, k in ((declared, {}), (net, {"precision": asked}))]
    torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-8)
    predicted = net.predict({"image": clamps["image"]}, "class", precision=asked, **how)
    torch.testing.assert_close(predicted, declared.predict({"image": clamps["image"]}, "class", **how), **EXACT)


@pytest.mark.parametrize(
    ("precision", "says"),
    [
        ({("V1", "dwn"): 1.0}, "no slot 'dwn': did you mean 'down'"),
        ({"V3": 1.0}, "no node 'V3'"),
        ({"image": 1.0}, "'image' has no energy"),
        ({("V2", "self"): 1.0}, "has the energy Laplace"),
        ({"V1": 0.0}, "the precision of 'V1' must be"),
        ({"V1": -1.0}, "the precision of 'V1' must be"),
        ({"V1": float("nan")}, "the precision of 'V1' must be"),
        (0.5, "precision= is a mapping"),
        ({("V1", 3): 1.0}, "names"),
    ],
)
def test_what_is_no_precision_is_refused_before_anything_runs(precision, says):
    net = PCNetwork(hierarchy())
    with pytest.raises(pcgraph.ConfigError, match=says):
        net.infer({"image": torch.zeros(1, 6)}, init=Zero(), steps=1, optimizer=SGD(0.1), precision=precision)
    with pytest.raises(pcgraph.ConfigError, match=says):
        net.plan({"image"}, init=Zero(), steps=1, precision=precision)


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(deadline=None, max_examples=40)
@given(p=problems(graphs=GRAPHS["parallel"], clamps="some"), steps=st.integers(0, 5))
def test_a_slot_is_a_clamped_node_that_reads_its_owner(device, p, steps):
    """Two ways to declare one energy: with slots, and with a node held at zero for each error of a linear slot."""
    graph = p.graph.copy()
    for v in graph:
        if "slots" in graph.nodes[v]:
            graph.nodes[v]["slots"] = {name: {"precision": 0.5} for name in graph.nodes[v]["slots"]}
    net = PCNetwork(graph, seed=p.seed, dtype=torch.float64, device=device)
    twin, extra = helpers(graph)
    for v in extra:
        twin.nodes[v]["precision"] = 0.5
    other = PCNetwork(twin, dtype=torch.float64, device=device)
    with torch.no_grad():
        for u, v, key, slot in graph.edges(keys=True, data="slot"):
            to, sign = (v, 1) if slot is None else (("slot", v, slot), -1)
            other.weight(u, to, key).copy_(sign * net.weight(u, v, key))
        for v, data in graph.nodes(data=True):
            if net.bias_place(v) is not None:
                other.bias(v).copy_(net.bias(v))
            for slot in data.get("slots", ()):
                other.bias(("slot", v, slot)).copy_(-net.bias(v, slot=slot))
    clamps = p.clamps(net)
    zeros = {v: torch.zeros(2, *other.structure.shape(v), dtype=torch.float64, device=device) for v in extra}
    start = {v: double(2, *net.structure.shape(v), seed=i, device=device) for i, v in enumerate(graph)}
    how = {"steps": steps, "optimizer": SGD(0.05)}
    one = net.infer(clamps, init=net.carry_on(start), **how)
    two = other.infer({**clamps, **zeros}, init=other.carry_on({**start, **zeros}), **how)
    for v in graph:
        torch.testing.assert_close(one.states[v], two.states[v], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.energy, two.energy, rtol=1e-12, atol=1e-12)


def test_nudges_and_incremental_learning_take_slots(device):
    net = PCNetwork(hierarchy(), seed=1, dtype=torch.float64, device=device)
    x, y = double(4, 6, device=device), double(4, 3, seed=1, device=device)
    how = {"init": Forward(), "steps": 4, "optimizer": SGD(0.05)}
    cost = pcgraph.learning.nudged(net, {"image": x}, {"class": y}, **how)
    assert torch.isfinite(cost).all()
    assert net.weight("V2", "V1").shape == (4, 4)
    weights = torch.optim.SGD(net.parameters(), lr=0.01)
    before = net.weight("V2", "V1").clone()
    pcgraph.learning.incremental(net, {"image": x, "class": y}, weights=weights, **how)
    assert not torch.equal(net.weight("V2", "V1"), before)


def test_a_masked_node_with_a_slot_is_filled_in_by_feedback(device):
    """That is what feedback is for: what is hidden moves towards what is predicted from above."""
    net = PCNetwork(hierarchy(), seed=1, dtype=torch.float64, device=device)
    x, mask = double(4, 6, device=device), torch.tensor([True] * 3 + [False] * 3, device=device)
    clamps = {"image": Masked(x, mask), "class": double(4, 3, seed=1, device=device)}
    init = Forward(roots=Zero())
    result = assert_equal_to_reference(net, clamps, init, 400, SGD(0.1))
    torch.testing.assert_close(result.states["image"][:, :3], x[:, :3], rtol=0, atol=0)
    assert result.states["image"][:, 3:].abs().min() > 1e-6
    more = net.infer(clamps, init=init, steps=400, optimizer=SGD(0.02), precision={("image", "down"): 20.0})
    assert more.errors["image", "down"][:, 3:].square().sum() < result.errors["image", "down"][:, 3:].square().sum()


def test_results_are_read_by_node_and_slot(device):
    net = PCNetwork(hierarchy(), seed=1, dtype=torch.float64, device=device)
    result = net.infer(
        {"image": double(4, 6, device=device)}, init=Forward(), steps=3, optimizer=SGD(0.05), trace="nodes"
    )  # fmt: skip
    assert list(result.errors) == list(result.states) == list(net.structure.declared)
    assert ("V1", "down") in result.node_energy
    assert list(result.node_trace)[:3] == ["V1", "V2", "class"]
    assert set(list(result.node_trace)[3:]) == {
        ("V1", "down"), ("V2", "down"), ("V2", "self"), ("image", "down"),
    }  # fmt: skip
    torch.testing.assert_close(result.errors["V1", "down"], result.states["V1"] - result.predictions["V1", "down"])
    with pytest.raises(KeyError, match="the state of 'V1' is that of its slots"):
        result.states["V1", "down"]
    with pytest.raises(KeyError, match="no node"):
        result.errors["V1", "dwn"]
    with pytest.raises(pcgraph.ClampError, match="no node"):
        net.infer({("V1", "down"): double(4, 4, device=device)}, init=Zero(), steps=0)


def test_explanations_name_slots_and_hide_what_makes_them_work(device):
    net = PCNetwork(hierarchy(), device=device)
    plan = net.plan({"image", "class"}, init=Forward(), steps=3)
    text = plan.explain()
    assert "Plan for 4 nodes and 8 edges" in text
    assert "slots, which begin with an error: " in text
    assert "V1 (down)" in text
    assert "V2→V1 (down)" in text
    assert "tie" not in text
    assert "Slot(" not in text
    assert plan.matmuls.init == 8  # each edge once: a tie multiplies nothing
    assert "4 nodes, 8 edges" in plan._repr_html_()


def test_slots_cost_nothing_where_there_are_none(device):
    """A network without slots has the plan, the layout and the calls that it had: no tie, no group, no copy."""
    s = PCNetwork(nx.DiGraph(pcgraph.graphs.chain([4, 3, 3, 2])), device=device).structure
    assert s.nodes is s.declared or s.nodes == s.declared
    assert not s.slots
    assert not s.is_tie.any()
    assert not any(group.slots for group in s.groups)
