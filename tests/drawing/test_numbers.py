"""Pictures of numbers, and what a notebook shows: they must hold the numbers that they say they hold."""

from __future__ import annotations

import base64
import builtins
import io
import re
import resource
from html.parser import HTMLParser

import matplotlib
import networkx as nx
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import pcgraph
from pcgraph import SGD, Forward, Masked, PCNetwork, Zero, drawing, graphs
from pcgraph.drawing.hover import draw_svg
from pcgraph.errors import ConfigError, DataError
from pcgraph.training import EpochRecord, History
from tests.builders import clamps_of

START = Forward(fallback=Zero())


def feedback(dtype=torch.float64):
    graph = graphs.chain([4, 3, 3, 2], activation="tanh")
    graph.add_edge("y", "h2")
    return PCNetwork(graph, dtype=dtype)


def run(net, steps=6, **more):
    return net.infer(clamps_of(net, batch=5), init=START, steps=steps, optimizer=SGD(lr=0.1), **more)


# -- energies by node and step --------------------------------------------------------------------------------------


def test_the_trace_by_node_is_the_energy_after_so_many_steps():
    """A heat map of other numbers would send its reader to the wrong node."""
    net = feedback()
    traced = run(net, trace="nodes")
    assert list(traced.node_trace) == ["h1", "h2", "y"]
    for t in range(7):
        stopped = run(net, steps=t)
        for node, energy in stopped.node_energy.items():
            torch.testing.assert_close(traced.node_trace[node][t], energy, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(traced.trace[t], stopped.energy, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(traced.trace, run(net, trace=True).trace, rtol=1e-12, atol=1e-14)


def test_a_trace_of_nothing_known_is_refused():
    with pytest.raises(ConfigError, match="trace must be False, True, 'nodes' or 'states'"):
        run(feedback(), trace="node")


def test_the_heat_map_has_a_row_a_node_and_a_column_a_step():
    result = run(feedback(), trace="nodes")
    ax = drawing.energy(result)
    shown = ax.images[0].get_array()
    expected = np.stack([energy.mean(1).numpy() for energy in result.node_trace.values()])
    assert np.array_equal(shown.mask, expected == 0)
    assert np.allclose(shown.filled(0), expected)
    assert shown.mask[0, 0], "a swept node starts at exactly zero, and is hatched"
    assert ax.get_xlabel().endswith("hatched: exactly zero")
    assert ax.patch.get_hatch(), "in a grey print a grey cell would be an amount like any other"
    assert ax.images[0].get_cmap()(np.ma.masked)[3] == 0, "and the hatches are seen through it"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["h1", "h2", "y"]
    with pytest.raises(ConfigError, match='trace="nodes"'):
        drawing.energy(run(feedback(), trace=True))


def test_energies_that_are_not_finite_are_drawn_too():
    """A run that diverged unnoticed is what such a picture is looked at for."""
    net = feedback(torch.float32)
    clamps = {"x": torch.ones(3, 4), "y": torch.ones(3, 2)}
    result = net.infer(clamps, init=START, steps=40, optimizer=SGD(lr=1e9), trace="nodes", check=False)
    values = np.stack([v.mean(1).numpy() for v in result.node_trace.values()])
    assert not np.isfinite(values).all()
    ax = drawing.energy(result)
    drawn = ax.images[0].get_array()
    assert np.array_equal(np.ma.getmaskarray(drawn), ~(np.isfinite(values) & (values > 0)))
    assert ax.get_xlabel().endswith("not finite")
    assert ax.images[0].norm.vmax == values[np.isfinite(values)].max()
    assert "<img" in result._repr_html_()


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("groups", [5, 500])
def test_five_and_five_hundred_nodes_make_a_picture_of_a_sensible_size(groups, suffix, tmp_path):
    """At 500 nodes a column of names, or of nodes, must not be yards high."""
    graph = graphs.random_groups(groups, 2, 3)
    net = PCNetwork(graph)
    result = net.infer({"x": torch.ones(1, 2), "y": torch.ones(1, 2)}, init=START, steps=3,
                       optimizer=SGD(lr=0.05), trace="nodes")  # fmt: skip
    ax = drawing.energy(result, tmp_path / f"energy.{suffix}")
    assert 3 <= len(ax.get_yticks()) <= 63
    for axes in (ax, drawing.graph(graph, {"x"}, tmp_path / f"graph.{suffix}")):
        width, height = axes.figure.get_size_inches()
        assert 2 < width < 18
        assert 2 < height < 18
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    assert all((tmp_path / f"{name}.{suffix}").read_bytes().startswith(start) for name in ("energy", "graph"))


def test_no_two_of_five_hundred_nodes_lie_on_each_other():
    graph = graphs.random_groups(500, 2, 3)
    _, place = drawing.layout(graph, pcgraph.check(graph, {"x"}))
    spots = np.array(list(place.values()))
    apart = np.abs(spots[:, None] - spots[None]) + 9 * np.eye(len(spots))[..., None]
    assert (apart.max(2) > 0.1).all()


def test_the_trace_shows_mean_and_range():
    result = run(feedback(), trace=True)
    ax = drawing.trace(result, title="energy")
    assert np.allclose(ax.lines[0].get_ydata(), result.trace.mean(1))
    outline = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert outline.min() == pytest.approx(float(result.trace.min()))
    assert outline.max() == pytest.approx(float(result.trace.max()))
    with pytest.raises(ConfigError, match="trace=True"):
        drawing.trace(run(feedback()))


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (lambda: drawing.learning_curve([0.3, 0.2]), "what fit.*returns.*found list"),
        (lambda: drawing.learning_curve({"a": [0.3, 0.2]}), "mapping name -> that .found list"),
        (lambda: drawing.energy(feedback()), "what net.infer.*returns .found PCNetwork"),
        (lambda: drawing.trace(torch.zeros(3)), "what net.infer.*returns .found Tensor"),
    ],
)
def test_the_wrong_thing_to_draw_is_named(slip, message):
    """Otherwise a newcomer reads of an attribute that some object lacks."""
    with pytest.raises(ConfigError, match=message):
        slip()


def test_a_folder_for_the_picture_is_made(tmp_path):
    drawing.graph(feedback(), {"x"}, tmp_path / "new" / "graph.png")
    drawing.images(np.zeros((2, 9)), tmp_path / "other" / "images.svg")
    assert (tmp_path / "new" / "graph.png").exists()
    assert (tmp_path / "other" / "images.svg").exists()


# -- images ---------------------------------------------------------------------------------------------------------


def test_states_are_laid_out_as_images_row_by_row(tmp_path):
    cue, colour = torch.rand(3, 12), torch.rand(3, 3, 2, 2)
    cue[:, 6:] = float("nan")
    figure = drawing.images({"cue": cue, "colour": colour}, tmp_path / "images.png")
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (3, 4)
    assert np.allclose(shown.compressed(), cue[0, :6])
    assert shown.mask.sum() == 6
    assert np.allclose(figure.axes[4].images[0].get_array(), colour[1].permute(1, 2, 0))
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["cue", "colour"]
    tall = drawing.images(torch.randn(30, 1, 6, 2), shape=(4, 3))
    assert len(tall.axes) == 20
    assert tall.axes[0].images[0].get_array().shape == (4, 3)


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        (torch.rand(3, 2, 4, 4), None, r"values of shape \(3, 2, 4, 4\)"),
        (torch.rand(3, 10), (3, 3), "10 values are no image of shape"),
        (torch.rand(10), None, "the images come first"),
        (torch.rand(0, 4), None, "at least one"),
        ({"a": torch.rand(2, 4), "b": torch.rand(3, 4)}, None, r"found \[2, 3\]"),
    ],
)
def test_what_is_no_image_is_refused(values, shape, message):
    with pytest.raises(ConfigError, match=message):
        drawing.images(values, shape=shape)


def test_rows_of_images_are_drawn_on_one_scale():
    """A reconstruction that is half as bright must look so beside its original."""
    original = torch.randn(3, 16) * 4
    figure = drawing.images({"original": original, "half": original / 2})
    norms = {(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in figure.axes}
    assert norms == {(float(original.min()), float(original.max()))}
    colour = torch.randn(2, 3, 4, 4)
    figure = drawing.images({"original": colour, "half": colour / 2})
    whole, half = (figure.axes[i].images[0].get_array() for i in (0, 2))
    low, high = float(colour.min()), float(colour.max())
    assert np.allclose(half * (high - low) + low, (whole * (high - low) + low) / 2, atol=1e-5)


def test_rows_are_scaled_apart_where_asked_and_say_so():
    figure = drawing.images({"a": torch.arange(8.0).view(1, 8), "b": torch.ones(1, 8) * 3}, limits="rows")
    assert [ax.get_ylabel() for ax in figure.axes] == ["a\n0 to 7", "b\n3 to 3"]
    assert figure.axes[0].images[0].norm.vmax == 7


@pytest.mark.parametrize("limits", [(1, 0), (0, 0), (0,), 3, "row", (0, float("nan")), (0, float("inf")), ("a", "b")])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(ConfigError, match="limits are two numbers"):
        drawing.images(torch.rand(2, 4), limits=limits)


# -- files ------------------------------------------------------------------------------------------------------------

PICTURES = {
    "graph": lambda path: drawing.graph(graphs.chain([3, 2]), {"x"}, path),
    "energy": lambda path: drawing.energy(run(feedback(), trace="nodes"), path),
    "trace": lambda path: drawing.trace(run(feedback(), trace=True), path),
    "images": lambda path: drawing.images(torch.rand(2, 4), path),
    "learning_curve": lambda path: drawing.learning_curve(history(0.9, 1), path),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_full_disk_costs_no_picture(name, tmp_path):
    """Hours after it was started, a script must hear what is wrong, and find the picture that was there before."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write the picture .*picture\.png: File too large") as caught:
            PICTURES[name](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.path == path
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["picture.png"]
    PICTURES[name](path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("path", ["noext", "picture.pictures", "", ".png"])
def test_a_picture_is_never_written_under_another_name(name, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="the suffix of its format" if path else "path must be the path of a file"):
        PICTURES[name](path)
    assert not list(tmp_path.iterdir())


# -- learning curves --------------------------------------------------------------------------------------------------


def history(top, seconds):
    return History([
        EpochRecord(i + 1, 10 * (i + 1), 100, energy=1 / (i + 1), accuracy=0.5, lr=1e-3, seconds=seconds * (i + 1),
                    validation={"accuracy": top + i / 100})
        for i in range(3)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("over", "places"), [("epochs", [1, 2, 3]), ("seconds", [2.0, 4.0, 6.0]), ("smm", [70, 140, 210])]
)
def test_runs_are_compared_over_epochs_seconds_and_products(over, places):
    """A method that needs fewer epochs, each of them longer, must not seem the faster one."""
    runs = {"slow": history(0.9, 5.0), "fast": history(0.8, 2.0)}
    figure = drawing.learning_curve(runs, over=over, smm={"slow": 11, "fast": 7}, judged="test")
    energy, accuracy = figure.axes
    assert energy.lines[1].get_xdata().tolist() == places
    assert accuracy.lines[1].get_xdata().tolist() == places
    assert [line.get_ydata()[-1] for line in accuracy.lines] == pytest.approx([92, 82])
    legend = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert legend == ["slow, test, 92.0 % at the end", "fast, test, 82.0 % at the end"]
    assert energy.lines[0].get_color() != energy.lines[1].get_color()


def test_lines_can_be_told_apart_without_colours():
    """In a grey print, or to a colour-blind reader, two lines of one look are one run."""
    figure = drawing.learning_curve({f"run {i}": history(0.9, 1.0) for i in range(7)})
    for ax in figure.axes:
        assert len({(line.get_marker(), str(line.get_linestyle())) for line in ax.lines}) == len(ax.lines) == 7
    both = drawing.learning_curve(history(0.9, 1.0)).axes[1]
    assert len({line.get_marker() for line in both.lines}) == len(both.lines)


def luminance(colour):
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_what_is_written_is_dark_and_large_enough_to_be_read():
    """WCAG asks for a contrast of 4.5; below 6.5 points nobody reads a picture in a column of text."""
    ax = drawing.graph(graphs.chain([4, 5, 3]), {"x", "y"})
    texts = [t for t in (*ax.texts, *ax.get_legend().get_texts()) if t.get_text()]
    assert len(texts) > 12
    for text in texts:
        assert 1.05 / (luminance(text.get_color()) + 0.05) >= 4.5, text
        assert text.get_fontsize() >= 8, text


def test_a_scale_has_ticks_where_little_has_changed():
    """After one epoch energies lie so near to one another that powers of ten have no tick among them."""
    for energies in ([1.04, 0.96], [1.0], [0.5, 0.5], [3e-7, 2.9e-7], [2e6, 1e6]):
        records = [EpochRecord(i + 1, i + 1, 10, e, None, 1e-3, float(i)) for i, e in enumerate(energies)]
        figure = drawing.learning_curve(History(records))
        figure.canvas.draw()
        axis = figure.axes[0].yaxis
        low, high = sorted(axis.get_view_interval())
        labels = [t.get_text() for t in axis.get_ticklabels(which="both") if low <= t.get_position()[1] <= high]
        assert any(labels), energies
        assert len({t for t in labels if t}) == len([t for t in labels if t]), labels
        assert len([t for t in labels if t]) <= 8, labels


def test_a_run_without_accuracies_has_no_empty_panel():
    records = [EpochRecord(i + 1, i, 1, energy=1.0, accuracy=None, lr=1e-3, seconds=1.0) for i in range(2)]
    figure = drawing.learning_curve({"a": History(records)})
    assert len(figure.axes) == 1
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a"]


def test_a_curve_over_products_needs_their_number():
    with pytest.raises(ConfigError, match="smm, the products of one update"):
        drawing.learning_curve(history(0.9, 1.0), over="smm")
    with pytest.raises(ConfigError, match="over must be .*smm"):
        drawing.learning_curve(history(0.9, 1.0), over="minutes")
    with pytest.raises(ConfigError, match="of 'b' has no measured epoch"):
        drawing.learning_curve({"a": history(0.9, 1.0), "b": History()})


# -- notebooks ------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The texts and pictures of a page, and whether each tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.pictures, self.graphs = [], [], [], 0
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            head, _, body = dict(attributes)["src"].partition(",")
            assert head == "data:image/png;base64"
            self.pictures.append(plt.imread(io.BytesIO(base64.b64decode(body))))
        else:
            self.open.append(tag)
            self.graphs += tag == "svg"

    def handle_startendtag(self, tag, attributes):
        """A tag that closes itself, as those of SVG may."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def test_a_report_shows_its_table_and_its_graph():
    graph = nx.DiGraph([("<x>", "h"), ("h", "y"), ("y", "h")])
    page = Page(pcgraph.check(graph, {"<x>"})._repr_html_())
    assert {"Forward()", "no", "cycle h → y → h"} <= set(page.texts)
    assert page.graphs == 1
    phases = pcgraph.check(graph, {"training": {"<x>", "y"}, "test": {"<x>"}})
    assert Page(phases._repr_html_()).graphs == 2
    many = nx.gnp_random_graph(600, 0.002, directed=True, seed=0)
    assert not Page(pcgraph.check(many, {0})._repr_html_()).graphs


def test_what_a_table_says_in_colour_can_be_read_in_light_and_dark():
    """A page may be white or black, so that yes and no have a ground of their own, with a contrast of 4.5 (WCAG)."""
    shown = pcgraph.check(nx.DiGraph([("x", "h"), ("h", "h")]), {"x"})._repr_html_()
    badges = re.findall(r"color:(#\w+);background:(#\w+)[^>]*>(\w+)<", shown)
    assert {said for _, _, said in badges} == {"yes", "no"}
    for text, ground, _ in badges:
        bright, dark = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) > 4.5
    assert not re.findall(r"[;\"]color:", re.sub(r"color:#\w+;background:", "", shown.split("<svg")[0]))


def test_a_report_draws_parallel_edges_one_by_one(monkeypatch):
    """As one line they would look like one edge, and the plan's picture beside it shows more."""
    drawn = []
    look = "pcgraph.drawing.painters.draw_svg"
    monkeypatch.setattr(look, lambda graph, report: drawn.append(graph) or draw_svg(graph, report))
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=2)
    graph.add_node("y", shape=2, slots={"down": {}})
    graph.add_edges_from([("x", "y"), ("x", "y"), ("y", "y")])
    graph.add_edge("x", "y", slot="down")
    report = pcgraph.check(graph, {"x"})
    assert dict(zip(report.edges, report.multiplicity)) == {("x", "y"): 3, ("y", "y"): 1}
    assert Page(report._repr_html_()).graphs == 1
    assert drawn[0].number_of_edges("x", "y") == 3
    pcgraph.check(nx.DiGraph(graph), {"x"})._repr_html_()
    assert drawn[1].number_of_edges() == 2


def test_a_plan_shows_each_kind_of_step_and_its_graph():
    """The same numbers as explain() gives, which verify() proves elsewhere."""
    plan = feedback().plan({"x", "y"}, init=START, steps=9)
    page = Page(plan._repr_html_())
    for line in plan.explain().splitlines():
        if line.startswith("  step"):
            span, _, rest = line.strip().partition(": ")
            at = page.texts.index(span)
            numbers = [word for word in rest.split("(")[0].split() if word.isdigit()]
            assert [text.split()[0] for text in page.texts[at + 1 : at + 4]] == numbers
    assert str(plan.matmuls.weights) == page.texts[page.texts.index("weight gradients") + 1]
    assert page.graphs == 1


def test_a_result_shows_its_nodes_and_its_trace():
    net = feedback()
    result = run(net, trace="nodes")
    page = Page(result._repr_html_())
    at = page.texts.index("h1")
    assert page.texts[at + 1 : at + 4] == ["3", "free", f"{float(result.node_energy['h1'].mean()):.4g}"]
    assert page.texts[page.texts.index("x") + 2 :][:2] == ["clamped", "none"]
    assert (len(page.pictures), page.graphs) == (1, 1)
    untraced = Page(run(net)._repr_html_())
    assert (len(untraced.pictures), untraced.graphs) == (0, 1)
    half = {"x": Masked(torch.ones(1, 4, dtype=net.dtype), torch.tensor([True, True, False, False]))}
    partly = net.infer(half, init=START, steps=2, optimizer=SGD(lr=0.1), trace=True)
    assert "partly clamped" in Page(partly._repr_html_()).texts


def test_a_large_result_shows_its_largest_energies_only():
    net = PCNetwork(graphs.random_groups(200, 2, 3))
    result = net.infer({"x": torch.ones(1, 2), "y": torch.ones(1, 2)}, init=START, steps=3, optimizer=SGD(lr=0.05))
    page = result._repr_html_()
    assert page.count("<tr>") == 21
    largest = max(result.node_energy, key=lambda v: float(result.node_energy[v].mean()))
    assert f">{largest}<" in page.split("</tr>")[1]


def test_without_matplotlib_the_tables_and_graphs_are_shown(monkeypatch):
    """A notebook without the extra must not answer with a traceback."""
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    result = run(feedback(), trace=True)
    report = pcgraph.check(feedback(), {"x"})
    monkeypatch.setattr(builtins, "__import__", without)
    for value in (report, result.plan, result):
        page = value._repr_html_()
        assert not Page(page).pictures
        assert Page(page).graphs == 1
        assert "<table>" in page
