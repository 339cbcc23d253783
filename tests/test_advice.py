"""What is advised can be run: on every graph, in training and in use; and it is what the tables of runs say."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import ClampError, Equilibrium, Errors, Following, Forward, Masked, PCNetwork, advise, graphs
from pcgraph.learning import Nudged, Standard
from pcgraph.testing.strategies import cyclic_digraphs, digraphs, problems
from tests.builders import double

SMOOTH = ("identity", "tanh", "gelu")
GRAPHS = {
    "any": digraphs(max_nodes=6, activations=SMOOTH, priors=True, slots=True),
    "ring": cyclic_digraphs(max_nodes=6, activations=SMOOTH, parallel=True, slots=True),
}


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@pytest.mark.parametrize("kind", GRAPHS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_is_advised_runs_on_any_graph(kind, data):
    """An advice that is refused is worse than none: the kind of graph decides, and partial clamps, and leaks."""
    p = data.draw(problems(graphs=GRAPHS[kind], clamps="some", masks=True))
    net = p.network()
    clamps = p.clamps(net)
    advice = advise(net, clamps)
    if isinstance(advice.rule, Standard):
        result = net.infer(clamps, **advice.infer)
        assert result.plan.steps == advice.steps
        assert torch.isfinite(result.energy).all()
    else:
        target = target_of(net, {v: c for v, c in clamps.items() if not isinstance(c, Masked)})
        report = pcgraph.check(p.graph, clamps)
        assert target in {leak.nodes[0] for leak in report.leaks} or any(len(part) > 1 for part in report.components)
    names = [choice.what for choice in advice.choices]
    assert names[:4] == ["initializer", "coordinates", "solver", "steps"]
    assert all(choice.reason for choice in advice.choices)
    for choice in advice.choices:
        assert choice.value in str(advice)


def target_of(net, clamps):
    entered = {v for _, v, slot in net.graph.edges(data="slot") if slot is None}
    return [v for v in clamps if v in entered][-1]


@pytest.mark.parametrize(
    ("graph", "clamps"),
    [
        (lambda: graphs.chain([4, 5, 5, 3], activation="tanh"), {}),
        (lambda: graphs.cortex({"x": 4, "a": 5, "b": 5, "y": 3}), {}),
        (lambda: graphs.cortex({"x": 4, "a": 5, "b": 5, "y": 3}), {"x": "half"}),
        (lambda: graphs.lateral([4, 5, 5, 3], activation="tanh"), {}),
        (lambda: graphs.lateral([4, 5, 5, 3], activation="tanh", feedback=True), {}),
        (lambda: nx.relabel_nodes(graphs.decoder([3, 5, 4], activation="tanh"), {"x": "y", "h1": "x"}), {}),
    ],
)
def test_fit_and_predict_take_what_is_advised(graph, clamps):
    """One call to choose, and the choice goes as it is into training and use."""
    net = PCNetwork(graph(), seed=0)
    x, y = double(12, *net.structure.shape("x")).float(), torch.eye(12, net.structure.shape("y")[0])
    given = {"x": Masked(x, torch.arange(x.shape[1]) < 2) if clamps else x}
    advice = advise(net, {**given, "y": y})
    assert "on this batch it is" in str(advice)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    history = pcgraph.fit(net, [{**given, "y": y}] * 3, optimizer=optimizer, predict="y", progress=False, **advice.fit)
    assert history.stopped == "finished"
    assert net.predict(given, "y", **advice.predict).shape == y.shape


def table(graph, clamped, **kw):
    advice = advise(PCNetwork(graph), clamped, **kw)
    return advice, {choice.what: choice for choice in advice.choices}


def test_a_hierarchy_moves_errors_and_is_swept():
    advice, rows = table(graphs.cortex([6, 5, 4, 3]), {"image", "class"})
    assert isinstance(advice.init, Forward)
    assert advice.coordinates == Errors()
    assert advice.steps == 5
    assert isinstance(advice.optimizer.lr, Following)
    assert advice.rule == Standard()
    assert advice.predict == {}
    assert rows["to ask"].value == "net.predict(given, 'class')"
    assert "rule" not in rows
    assert advice.warnings == ()


def test_a_target_that_leaks_pulls_and_is_not_fixed():
    """A label that comes round is copied, and nothing is learned of the image."""
    graph = nx.DiGraph()
    graph.add_nodes_from([("image", {"shape": 4}), ("V1", {"shape": 3}), ("class", {"shape": 2})])
    nx.add_path(graph, ["image", "V1", "class"])
    graph.add_edge("class", "V1")
    advice, rows = table(graph, {"image", "class"})
    assert advice.rule == Nudged(strength=0.1)
    assert (advice.steps, advice.optimizer.momentum) == (60, 0.8)
    assert advice.coordinates is None
    assert "leak class → V1 → class" in rows["rule"].reason
    assert "slot" in rows["rule"].reason
    assert "leak" in " ".join(str(advice).split())
    assert advice.predict["steps"] == advice.steps
    assert repr(advice.predict["optimizer"]) == repr(advice.optimizer)
    assert "tolerance" not in advice.predict


def test_feedback_among_free_nodes_pulls_where_the_target_is_far():
    """Where all of them predict the target, each hears of it at once, and it is fixed."""
    graph = nx.DiGraph()
    graph.add_nodes_from("xaby", shape=3)
    graph.add_edges_from([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")])
    advice, rows = table(graph, {"x", "y"})
    assert advice.rule == Nudged(strength=0.1)
    assert "a, b predict each other" in rows["rule"].reason
    graph.add_edge("a", "y")
    advice, rows = table(graph, {"x", "y"})
    assert advice.rule == Standard()
    assert isinstance(advice.init, Equilibrium)


def test_a_cycle_beside_the_target_is_settled_first():
    advice, rows = table(graphs.lateral([4, 3, 3, 2]), {"x", "y"})
    assert isinstance(advice.init, Equilibrium)
    assert advice.init.release == ("y",)
    assert "h1" in rows["initializer"].reason
    assert rows["coordinates"].value == "states"
    assert advice.predict["tolerance"] > 0


def test_what_is_known_in_part_keeps_its_state_and_is_asked_with_more_feedback():
    net = PCNetwork(graphs.cortex([6, 5, 4, 3]))
    clamps = {"image": Masked(torch.zeros(2, 6), torch.arange(6) < 3), "class": torch.eye(2, 3)}
    advice = advise(net, clamps)
    assert advice.coordinates == Errors(keep={"image"})
    assert advice.predict["precision"]["V1", "down"] == 0.1
    strong = advise(PCNetwork(graphs.cortex([6, 5, 4, 3], feedback=0.5, lateral=None)), clamps)
    assert "precision" not in strong.predict


def test_the_curvature_is_that_of_the_batch():
    net = PCNetwork(graphs.chain([4, 5, 5, 3], activation="tanh"), seed=0)
    with torch.no_grad():
        net.weight("h2", "y").mul_(30)
    clamps = {"x": double(6, 4).float(), "y": double(6, 3, seed=1).float()}
    advice = advise(net, clamps)
    true = float(net.curvature(clamps, init=Forward(), coordinates=Errors(), iterations=200).max())
    said = next(c.reason for c in advice.choices if c.what == "solver")
    found = float(said.split("on this batch it is ")[1].split(",")[0])
    assert found == pytest.approx(true, rel=0.05)
    assert float(said.split("the rate ")[1].split(",")[0]) == pytest.approx(1.2 / true, rel=0.06)


def test_it_shows_itself():
    advice, _ = table(graphs.chain([4, 3, 2]), {"x", "y"})
    assert repr(advice).startswith("<Advice: initializer Forward(), ")
    assert "<table>" in advice._repr_html_()
    assert "Errors()" in advice._repr_html_()
    assert max(map(len, str(advice).splitlines())) <= 110


@pytest.mark.parametrize(
    ("clamps", "predict", "says"),
    [({"x", "z"}, None, "no node is named 'z'"), ({"x"}, "y", "target 'y' is not among the clamps"),
     ({"x", "y"}, "q", "no node 'q'")],
)  # fmt: skip
def test_what_cannot_be_advised_is_refused(clamps, predict, says):
    with pytest.raises(ClampError, match=says):
        advise(PCNetwork(graphs.chain([4, 3, 2])), clamps, predict=predict)
    with pytest.raises(pcgraph.ConfigError, match="net must be a PCNetwork"):
        advise(graphs.chain([4, 3, 2]), {"x"})
