"""The picture must say what the report says: columns are depths, squares are clamps, red is what forbids a sweep."""

import math

import matplotlib
import networkx as nx
import pytest
from hypothesis import given, settings

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.text import Annotation

import pcgraph
from pcgraph import drawing
from pcgraph.drawing.declaration import COUNTED
from pcgraph.drawing.style import GREEN, RED
from pcgraph.errors import ClampError
from pcgraph.graphs import chain, figure_9
from pcgraph.testing.strategies import digraphs, problems
from pcgraph.topology import check_phase


def marks(ax):
    """Nodes by position: marker and colour of the border."""
    return {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])): (line.get_marker(), line.get_markeredgecolor())
        for line in ax.lines
    }


def arrows(ax):
    return [t.arrow_patch for t in ax.texts if isinstance(t, Annotation) and t.arrow_patch is not None]


def red(patch):
    return matplotlib.colors.same_color(patch.get_edgecolor(), RED)


def test_columns_are_depths_and_clamps_are_squares():
    graph = figure_9("top")
    report = check_phase(graph, {0})
    columns, place = drawing.layout(graph, report)
    assert {v: x for v, (x, _) in place.items()} == report.depth
    assert {c: set(nodes) for c, nodes in columns.items()} == {0: {0}, 1: {1}, 2: {2, 3}, 3: {4}, 4: {5}}
    ax = drawing.graph(graph, {0})
    found = marks(ax)
    assert {v: found[place[v]][0] for v in graph} == {0: "s", 1: "o", 2: "o", 3: "o", 4: "o", 5: "o"}
    assert not any(colour == RED for _, colour in found.values())
    assert not any(map(red, arrows(ax)))
    assert len(arrows(ax)) == graph.number_of_edges()
    assert ax.get_title() == "Forward() is possible: 1, then 2, then 3, then 4, then 5"


def test_the_cycle_is_red_and_nothing_else():
    graph = figure_9("bottom")
    ax = drawing.graph(graph, {0})
    _, place = drawing.layout(graph, check_phase(graph, {0}))
    found = marks(ax)
    assert {v for v in graph if found[place[v]][1] == RED} == {1, 2, 3, 4}
    assert sum(map(red, arrows(ax))) == 4
    assert [place[v][0] for v in (0, 1, 2, 4, 3, 5)] == [0, 1, 2, 3, 4, 4]


def test_unknown_roots_are_red_and_cut_edges_dashed():
    graph = figure_9("top")
    ax = drawing.graph(graph, {1})
    _, place = drawing.layout(graph, check_phase(graph, {1}))
    found = marks(ax)
    assert {v for v in graph if found[place[v]][1] == RED} == {0}
    dashed = [p for p in arrows(ax) if p.get_linestyle() not in ("-", "solid")]
    assert len(dashed) == 1
    assert "root 0" in ax.get_title()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_legend_explains_the_signs_that_are_there():
    assert legend(drawing.graph(figure_9("top"), {0})) == ["clamped", "free"]
    assert legend(drawing.graph(figure_9("bottom"), {0})) == ["clamped", "free", "cycle, or root without a value"]
    assert legend(drawing.graph(chain([4, 3, 2]), {"x", "y"})) == ["clamped", "free", "not needed by a free value"]


def test_neurons_are_counted_where_there_is_room():
    graph = chain([4, 1, (2, 5)])
    texts = {t.get_text() for t in drawing.graph(graph, {"x", "y"}).texts}
    assert {"x", "4 neurons", "h1", "1 neuron", "y", "2×5"} <= texts
    for unlike in (figure_9(), chain([4] * (COUNTED + 1))):
        assert not any("neuron" in t.get_text() for t in drawing.graph(unlike, ()).texts)


def test_the_title_says_which_forward_is_possible():
    graph = nx.DiGraph([("x", "h"), ("h", "y"), ("y", "h")])
    assert drawing.graph(graph, {"x", "y"}).get_title() == "Forward(fallback=…) is possible: h"
    assert drawing.graph(graph, {"x"}).get_title() == "Forward() is not possible: free cycle h → y → h"


def test_a_target_stands_right_and_a_loop_is_drawn():
    graph = chain([4, 3, 2])
    graph.add_edge("h1", "h1")
    _, place = drawing.layout(graph, check_phase(graph, {"x", "y"}))
    assert [place[v][0] for v in ("x", "h1", "y")] == [0, 1, 2]
    ax = drawing.graph(graph, {"x", "y"})
    assert len(arrows(ax)) == 3
    assert sum(map(red, arrows(ax))) == 1


@pytest.mark.parametrize("times", [1, 2, 5])
def test_parallel_edges_are_drawn_side_by_side(times):
    """Whoever counts the arrows counts the weights; two edges under one arrow would be taken for one."""
    graph = nx.MultiDiGraph()
    for edge in (("x", "h"), ("h", "y"), ("y", "h"), ("h", "h"), ("x", "y")):
        graph.add_edges_from([edge] * times)
    ax = drawing.graph(graph, {"x", "y"})
    ax.figure.canvas.draw()
    assert len(arrows(ax)) == 5 * times
    assert len({patch.get_path().vertices.round(1).tobytes() for patch in arrows(ax)}) == 5 * times


def test_a_column_of_clamps_that_predict_is_no_target():
    """An input into which feedback runs is still an input, of depth 0; only what predicts nothing is a target."""
    graph = chain([4, 3, 2])
    graph.add_edge("h1", "x")
    texts = [t.get_text() for t in drawing.graph(graph, {"x", "y"}).texts]
    assert texts.count("target") == 1
    assert {"0", "1"} <= set(texts)
    looped = chain([4, 3, 2])
    looped.add_edge("y", "y")
    assert "target" not in [t.get_text() for t in drawing.graph(looped, {"x", "y"}).texts]


NAMES = ["$x$", "$\\frac{", "a$b", "$", "\\$", "\udcff", "a\nb", "\x1b", "☃"]


def test_names_are_drawn_as_they_are(tmp_path):
    """A dollar is a dollar, and not the beginning of a formula that matplotlib then cannot read."""
    graph = nx.DiGraph()
    nx.add_path(graph, NAMES, **{})
    nx.set_node_attributes(graph, 1, "shape")
    for ending in ("svg", "png"):
        drawing.graph(graph, {"$x$"}, tmp_path / f"g.{ending}")
    ax = drawing.graph(nx.relabel_nodes(graph, {"\udcff": "?"}), {"$x$"})
    drawn = [t._preprocess_math(t.get_text()) for t in ax.texts if t.get_text() not in ("", "depth")]
    assert {name for name, _ in drawn} >= set(NAMES) - {"\udcff"}
    assert not any(math for _, math in drawn)


@settings(deadline=None, max_examples=60)
@given(problems(graphs=digraphs(priors=True)))
def test_layout_of_anything(p):
    """No two nodes on one spot; finite depths in order; every edge of a sweep goes to the right."""
    report = check_phase(p.graph, p.clamped)
    columns, place = drawing.layout(p.graph, report)
    assert len(set(place.values())) == len(p.graph)
    assert [v for nodes in columns.values() for v in nodes] == sorted(
        p.graph, key=lambda v: (place[v][0], -place[v][1])
    )
    assert list(columns) == list(range(len(columns)))
    for u, v in p.graph.edges():
        if v not in p.clamped and math.isfinite(report.depth[v]) and u not in p.clamped:
            assert place[u][0] < place[v][0]


@pytest.mark.parametrize("nodes", [1, 5, 200])
def test_every_size_has_every_name(tmp_path, nodes):
    graph = nx.gnp_random_graph(nodes, 3 / max(nodes, 2), seed=1, directed=True)
    ax = drawing.graph(graph, {0}, tmp_path / "graph.svg", title="")
    assert {t.get_text() for t in ax.texts} >= set(map(str, graph))
    assert (tmp_path / "graph.svg").stat().st_size > 500
    assert ax.get_title() == ""


def test_given_axes_are_used_and_clamps_are_checked():
    _, axes = plt.subplots(1, 2)
    assert drawing.graph(figure_9(), {0}, ax=axes[1]) is axes[1]
    assert not axes[0].lines
    with pytest.raises(ClampError):
        drawing.graph(figure_9(), {"no"})


def test_factors_stand_on_their_edges():
    """Of what an edge sends, where it is not 1: near its own arc, parallel edges and loops included."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("abc", shape=1)
    for u, v, scale in [("a", "b", 0.5), ("a", "b", -2.0), ("b", "b", 0.125), ("b", "c", 1.0), ("a", "c", None)]:
        graph.add_edge(u, v, **({} if scale is None else {"scale": scale}))
    ax = drawing.graph(graph, {"a"})
    _, place = drawing.layout(graph, check_phase(graph, {"a"}))
    found = {t.get_text(): t.xy for t in ax.texts if t.get_text().startswith("×")}
    assert set(found) == {"×0.5", "×-2", "×0.125"}
    assert found["×0.125"] == place["b"]
    assert found["×0.5"] != found["×-2"]
    for text in ("×0.5", "×-2"):
        assert place["a"][0] < found[text][0] < place["b"][0]
    graph.add_nodes_from(range(100), shape=1)
    assert not any(t.get_text().startswith("×") for t in drawing.graph(graph, {"a"}).texts)


def test_roles_stand_on_their_edges():
    """Which parent is the key and which the value decides what a joint prediction is; parallel edges have one each."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(["a", "b", "y"], shape=(2, 4))
    graph.nodes["b"]["combine"], graph.nodes["y"]["combine"] = "attention", ("gate", {})
    for role in ("query", "key", "value"):
        graph.add_edge("a", "b", role=role, **({"scale": 0.5} if role == "key" else {}))
    graph.add_edge("b", "y", role=("gate", "value"))
    ax = drawing.graph(graph, {"a"})
    place = drawing.layout(graph, check_phase(graph, {"a"}))[1]
    found = {t.get_text(): t.xy for t in ax.texts if isinstance(t, Annotation)}
    written = ["query", "×0.5\nkey", "value"]
    assert {*written, "gate\nvalue"} <= found.keys()
    assert len({found[text] for text in written}) == 3
    assert all(place["a"][0] < found[text][0] < place["b"][0] for text in written)
    assert "2×4\nattention" in found
    assert "2×4\ngate" in found
    graph.add_nodes_from(range(100), shape=1)
    assert "query" not in {t.get_text() for t in drawing.graph(graph, {"a"}).texts}


def graphs_of_a_batch(combine="attention"):
    """A value and a mask for two joint predictions, of which the first says in a long word how it combines."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["x", "adj", "mask", "h", "r"], shape=(6, 6))
    graph.add_node("h", shape=(6, 16), combine=(combine, {}))
    graph.add_node("r", shape=16, combine=("readout", {}))
    graph.add_edges_from((role, "h", {"role": role}) for role in ("x", "adj", "mask"))
    graph.add_edges_from([("h", "r", {"role": "x"}), ("mask", "r", {"role": "mask"})])
    return graph


@pytest.mark.parametrize("combine", ["readout", "DenseGraphConvolution"])
def test_no_role_is_hidden_behind_what_stands_below_a_node(combine):
    """A picture of a graph network that does not say what its mask is for."""
    graph = graphs_of_a_batch(combine)
    ax = drawing.graph(graph, {"x", "adj", "mask"})
    ax.figure.canvas.draw()
    texts = [t for t in ax.texts if isinstance(t, Annotation) and t.get_text() and t.arrow_patch is None]
    extents = [t.get_window_extent() for t in texts]
    roles = [i for i, t in enumerate(texts) if t.get_text() in ("x", "adj", "mask") and t.get_fontsize() < 10]
    assert len(roles) == 5
    for i in roles:
        hidden = [t.get_text() for k, t in enumerate(texts) if k != i and extents[i].overlaps(extents[k])]
        assert not hidden, (texts[i].get_text(), hidden)


def feedback():
    """An image, two areas and a class, with feedback and a loop in slots, and a slot beside a main parallel edge."""
    graph = nx.MultiDiGraph()
    nx.add_path(graph, ["image", "V1", "V2", "class"])
    for high, low in (("class", "V2"), ("V2", "V1"), ("V1", "image")):
        graph.nodes[low]["slots"] = {"down": {}}
        graph.add_edge(high, low, slot="down")
    graph.nodes["V2"]["slots"]["self"] = {}
    graph.add_edge("V2", "V2", slot="self")
    graph.add_edge("V1", "V2", slot="down")
    return graph


def ends(ax):
    """Where each arrow points, in pixels, with its colour."""
    ax.figure.canvas.draw()
    drawn = [t for t in ax.texts if isinstance(t, Annotation) and t.arrow_patch is not None]
    return [
        (t._get_xy(ax.figure.canvas.get_renderer(), t.xy, t.xycoords), t.arrow_patch.get_edgecolor()) for t in drawn
    ]


def test_slots_stand_on_the_rim_and_their_edges_end_there():
    """Whoever looks at a hierarchy sees which of its predictions an edge feeds."""
    graph = feedback()
    ax = drawing.graph(graph, {"image", "class"})
    _, place = drawing.layout(graph, check_phase(graph, {"image", "class"}))
    assert [place[v][0] for v in graph] == [0, 1, 2, 3], "slots neither move a target nor make a cycle"
    arrowheads = ends(ax)
    spots = {v: ax.transData.transform(place[v]) for v in graph}
    slots = [line for line in ax.lines if line.get_marker() == "D"]
    at = [tuple(line.get_transform().transform(line.get_xydata())[0]) for line in slots]
    assert len(slots) == len(set(at)) == 4
    green = [xy for xy, colour in arrowheads if matplotlib.colors.same_color(colour, GREEN)]
    assert len(green) == 5
    assert len(arrowheads) == graph.number_of_edges() == 8
    for xy in green:
        assert min(math.dist(xy, slot) for slot in at) < 1e-6
        assert min(math.dist(xy, spot) for spot in spots.values()) > 5
    grey = [xy for xy, colour in arrowheads if not matplotlib.colors.same_color(colour, GREEN)]
    assert sorted(tuple(xy) for xy in grey) == sorted(tuple(spots[v]) for v in ("V1", "V2", "class"))
    texts = [t.get_text() for t in ax.texts]
    assert texts.count("down") == 3
    assert texts.count("self") == 1
    assert texts.count("target") == 1
    assert "slot: a further prediction" in legend(ax)
    assert not any(map(red, arrows(ax)))
    assert "slot: a further prediction" not in legend(drawing.graph(chain([4, 3, 2]), {"x", "y"}))


def test_a_cycle_through_a_slot_is_not_red_and_one_beside_it_is():
    graph = feedback()
    graph.add_edge("V2", "V1")
    ax = drawing.graph(graph, {"image", "class"})
    assert sum(map(red, arrows(ax))) == 2
    assert len([a for a in arrows(ax) if matplotlib.colors.same_color(a.get_edgecolor(), GREEN)]) == 5


def test_energies_of_slots_are_named_by_node_and_slot():
    graph = feedback()
    nx.set_node_attributes(graph, 2, "shape")
    net = pcgraph.PCNetwork(graph)
    values = {v: torch.ones(1, 2) for v in ("image", "class")}
    result = net.infer(values, init=pcgraph.Forward(), steps=2, optimizer=pcgraph.SGD(0.1), trace="nodes")
    labels = [label.get_text() for label in drawing.energy(result).get_yticklabels()]
    assert labels[:3] == ["V1", "V2", "class"]
    assert set(labels[3:]) == {"V1 (down)", "V2 (down)", "V2 (self)", "image (down)"}


@pytest.mark.parametrize("nodes", [3, 80, 300])
def test_slots_are_there_on_pictures_of_every_size(tmp_path, nodes):
    graph = nx.path_graph(nodes, create_using=nx.DiGraph)
    for v in range(1, nodes):
        graph.nodes[v - 1]["slots"] = {"down": {}}
        graph.add_edge(v, v - 1, slot="down")
    ax = drawing.graph(graph, {0}, tmp_path / "graph.svg")
    assert len([line for line in ax.lines if line.get_marker() == "D"]) == nodes - 1
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8").count("#009e73") >= 2 * (nodes - 1)
