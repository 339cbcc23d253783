"""The SVG of a declaration: what lies under the pointer is said as the checker, the network and the result have it."""

import xml.etree.ElementTree as ET
from collections import Counter

import networkx as nx
import pytest
import torch
from hypothesis import given, settings

import pcgraph
from pcgraph import drawing
from pcgraph.drawing.style import BLUE, PAPER, RED
from pcgraph.errors import ConfigError
from pcgraph.graphs import chain, cortex, figure_9
from pcgraph.testing.strategies import problems
from pcgraph.topology import check_phase

SVG = "{http://www.w3.org/2000/svg}"


def parts(page, kind):
    """The groups of a kind: what each tells, with its shape."""
    found = ET.fromstring(str(page)).iter(f"{SVG}g")
    return [(g.find(f"{SVG}title").text, g) for g in found if g.get("class") == kind]


def told(page, kind):
    return [text for text, _ in parts(page, kind)]


def cortical():
    net = pcgraph.PCNetwork(cortex([6, 5, 4, 3]), seed=0)
    values = {"image": torch.ones(2, 6), "class": torch.ones(2, 3)}
    return net, net.infer(values, init=pcgraph.Forward(), steps=3, optimizer=pcgraph.SGD(lr=0.1), trace="nodes")


@settings(max_examples=40, deadline=None)
@given(problems())
def test_every_node_and_edge_of_anything_is_there_once(p):
    """A node or an edge that is left out, or drawn without saying what it is, makes the picture lie."""
    report = check_phase(p.graph, p.clamped)
    page = drawing.svg(p.graph, p.clamped)
    nodes = dict(zip(drawing.layout(p.graph, report)[1], parts(page, "node"), strict=True))
    assert len(parts(page, "edge")) == p.graph.number_of_edges()
    for v, (text, group) in nodes.items():
        shape = next(each for each in group if each.get("class") == "shape")
        fixed = v in report.clamped - report.partial
        assert shape.tag == SVG + ("rect" if fixed else "circle")
        assert shape.get("fill") == (BLUE if fixed else PAPER)
        bad = v in report.free_roots or v in (report.cycle or ())
        assert (shape.get("stroke") == RED) == bad
        assert ("a sweep reaches it" in text) == (v in report.forward_reachable)
        assert ("a root without a value; clamp" in text) == (v in report.free_roots and v not in (report.cycle or ()))


def test_the_verdict_of_each_node_is_said():
    texts = {text.split(":")[0]: text for text in told(drawing.svg(figure_9("bottom"), {0}), "node")}
    assert "clamped" in texts["0"]
    assert "free: on the cycle 2 → 4 → 3 → 1 → 2, which no clamp cuts" in texts["2"]
    assert "no sweep reaches it" in texts["5"]
    texts = told(drawing.svg(chain([3, 4, 2]), {"y"}), "node")
    assert any("x: 3 neurons" in text and "a root without a value" in text for text in texts)


def test_roles_and_combines_are_told_and_written():
    graph = nx.DiGraph()
    graph.add_nodes_from(["a", "b"], shape=3)
    graph.add_node("y", shape=3, combine=("gate", {}), precision=0.5)
    graph.add_edge("a", "y", role="gate")
    graph.add_edge("b", "y", role="value")
    page = drawing.svg(graph, {"a", "b"})
    assert any("combine gate, precision 0.5" in text for text in told(page, "node"))
    written = {next(iter(g.iter(f"{SVG}text"))).text for _, g in parts(page, "edge")}
    assert written == {"gate", "value"}
    assert {text.splitlines()[1] for text in told(page, "edge")} == {"role gate", "role value"}


def test_the_weights_of_a_network_are_told():
    """Whoever looks for a dead or an exploded edge reads it off the picture."""
    net = pcgraph.PCNetwork(chain([3, 4, 2], activation="tanh"), seed=0)
    net.weight("x", "h1").copy_(torch.arange(12.0).view(4, 3))
    page = drawing.svg(net, {"x", "y"})
    (text,) = (text for text in told(page, "edge") if text.startswith("x → h1"))
    rms = float(torch.arange(12.0).square().mean().sqrt())
    assert text.splitlines()[1:] == ["Linear", f"4×3 weights: rms {rms:.3g}, from 0 to 11"]
    (text,) = (text for text in told(page, "node") if text.startswith("h1"))
    assert "activation tanh" in text
    assert "bias: rms" in text


def test_a_result_colours_and_tells_the_energies():
    net, result = cortical()
    page = drawing.svg(net, result=result)
    energies = {v: float(e.mean()) for v, e in result.node_energy.items()}
    for v in ("V1", "V2", "class"):
        (text,) = (text for text in told(page, "node") if text.startswith(f"{v}:"))
        assert f"energy {energies[v]:.4g} a sample, {energies[v] / sum(energies.values()):.0%} of all" in text
    slots = told(page, "slot")
    assert len(slots) == 5
    assert any(text.startswith("V1, slot down") and f"energy {energies['V1', 'down']:.4g}" in text for text in slots)
    (image,) = (text for text in told(page, "node") if text.startswith("image:"))
    assert "no energy: nothing predicts it" in image
    fills = {text.split(":")[0]: group.find(".//*[@class='shape']").get("fill") for text, group in parts(page, "node")}
    largest = max(("V1", "V2", "class"), key=energies.get)
    assert fills[largest] == "#FEE838"
    assert fills["image"] == PAPER


@pytest.mark.parametrize("of", ["report", "plan"])
def test_notebooks_draw_slots_and_not_what_makes_them_work(of):
    """A report has no declaration, and a plan has slots as nodes: both are drawn as they were declared."""
    net, result = cortical()
    page = (pcgraph.check(net, {"image", "class"}) if of == "report" else result.plan)._repr_html_()
    page = page[page.index("<svg") : page.index("</svg>") + 6]
    assert Counter(len(parts(page, kind)) for kind in ("node", "slot", "edge")) == Counter([4, 5, 8])


def test_parallel_edges_and_loops_have_lines_of_their_own():
    """Two edges under one line would be taken for one."""
    graph = nx.MultiDiGraph([("x", "h"), ("h", "y"), ("y", "h"), ("h", "h"), ("x", "y")] * 3)
    lines = [group.find(".//*[@class='line']").get("d") for _, group in parts(drawing.svg(graph, {"x"}), "edge")]
    assert len(set(lines)) == len(lines) == 15


@pytest.mark.parametrize("name", ["<b>&\"'</b>", "a\x00b", "\ud800", "$x_1$", "]]>", "日本"])
def test_names_are_shown_and_break_nothing(name, tmp_path):
    graph = nx.DiGraph([(name, "y")])
    page = drawing.svg(graph, {name}, tmp_path / "graph.svg")
    assert len(parts(page, "node")) == 2
    assert ET.parse(tmp_path / "graph.svg").getroot().tag == f"{SVG}svg"


def test_nothing_is_loaded_and_nothing_runs():
    """The picture is to be shown where scripts are forbidden and there is no network."""
    net, result = cortical()
    text = str(drawing.svg(net, result=result))
    assert "<script" not in text
    assert text.count("http") == 1  # the name of the language
    assert all(not key.startswith("on") for each in ET.fromstring(text).iter() for key in each.attrib)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": "graph.png"}, ConfigError, "ends with .svg"),
        ({"path": 3}, ConfigError, "path"),
        ({"title": 3}, ConfigError, "title"),
        ({"result": 3}, ConfigError, r"result must be what net.infer\(...\) returns"),
        ({"path": "graph.svg/x\x00.svg"}, ConfigError, "path"),
    ],
)
def test_bad_calls_are_refused(arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        drawing.svg(chain([3, 2]), {"x"}, **arguments)
    assert not list(tmp_path.glob("*.png"))


def test_a_result_of_another_graph_is_refused():
    _, result = cortical()
    with pytest.raises(ConfigError, match="of another graph"):
        drawing.svg(chain([3, 2]), result=result)
