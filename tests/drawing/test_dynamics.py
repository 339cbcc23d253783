"""Pictures of inference on its way: they must hold the numbers that they say they hold."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
from PIL import Image

import pcgraph
from pcgraph import SGD, Forward, PCNetwork, Trace, drawing
from pcgraph.errors import ConfigError, DataError
from tests.builders import clamps_of


def result(**more):
    net = PCNetwork(pcgraph.graphs.chain([4, 12, 9, 2], activation="tanh"), dtype=torch.float64)
    return net.infer(clamps_of(net, 3), init=Forward(), steps=6, optimizer=SGD(0.3), **{"trace": "states", **more})


def test_a_trajectory_is_a_neuron_over_the_steps():
    found = result(trace=Trace(["h1"], every=4))
    ax = drawing.trajectories(found, "h1", neurons=[3, 11], sample=2)
    for line, i in zip(ax.lines, (3, 11), strict=True):
        assert line.get_xdata().tolist() == [0, 4, 6]
        np.testing.assert_array_equal(line.get_ydata(), found.state_trace["h1"][:, 2, i])
    ax = drawing.trajectories(found, "h1", kind="errors")
    assert len(ax.lines) == 7
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), found.error_trace["h1"][:, 0, 0])


def test_a_phase_plot_has_a_line_a_sample_from_start_to_end():
    found = result()
    ax = drawing.phase(found, ("h1", 2), ("h2", 5), samples=2)
    assert len(ax.lines) == 6
    way, start, end = ax.lines[3:6]
    np.testing.assert_array_equal(way.get_xdata(), found.state_trace["h1"][:, 1, 2])
    np.testing.assert_array_equal(way.get_ydata(), found.state_trace["h2"][:, 1, 5])
    assert [start.get_xdata()[0], end.get_xdata()[0]] == [way.get_xdata()[0], way.get_xdata()[-1]]


def test_errors_over_time_are_those_of_nodes_or_of_neurons():
    found = result()
    rows = drawing.errors(found).images[0].get_array()
    expected = [e.flatten(1).square().mean(1).sqrt() for e in found.error_trace.values()]
    np.testing.assert_allclose(rows, torch.stack(expected))
    ax = drawing.errors(found, node="h2", sample=1)
    np.testing.assert_allclose(ax.images[0].get_array(), found.error_trace["h2"][:, 1].t())
    low, high = ax.images[0].get_clim()
    assert low == -high


def test_a_film_has_a_frame_a_step(tmp_path):
    path = tmp_path / "deep" / "h2.gif"
    assert drawing.animate(result(), "h2", path, seconds=1.4, title="h2") is None
    with Image.open(path) as film:
        assert film.n_frames == 7
        assert film.info["duration"] == 200
        frames = []
        for k in range(7):
            film.seek(k)
            frames.append(np.asarray(film.convert("L"), dtype=float))
    assert all(np.abs(a - b).max() > 0 for a, b in zip(frames, frames[1:]))


@pytest.mark.parametrize("name", ["trajectories", "phase", "errors"])
def test_pictures_are_written(name, tmp_path):
    arguments = {"trajectories": ("h1",), "phase": (("h1", 0), ("h1", 1)), "errors": ()}[name]
    getattr(drawing, name)(result(), *arguments, path=tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r, p: drawing.trajectories(r, "h9"), "node 'h9' was not kept; those that were: 'x', 'h1'"),
        (lambda r, p: drawing.trajectories(r, []), "was not kept"),
        (lambda r, p: drawing.trajectories(r, "h1", neurons=[12]), "a neuron must be"),
        (lambda r, p: drawing.trajectories(r, "h1", neurons=3), "neurons are numbers"),
        (lambda r, p: drawing.trajectories(r, "h1", neurons=[]), "at least one"),
        (lambda r, p: drawing.trajectories(r, "h1", sample=3), "sample must be"),
        (lambda r, p: drawing.trajectories(r, "h1", kind="energy"), "kind must be"),
        (lambda r, p: drawing.phase(r, "h1", ("h1", 0)), "x is a node and the number of a neuron"),
        (lambda r, p: drawing.phase(r, ("h1", 0), ("h1", 12)), "the neuron in y must be"),
        (lambda r, p: drawing.errors(r, node="q"), "was not kept"),
        (lambda r, p: drawing.animate(r, "h2", p / "a.mp4"), "suffix .gif"),
        (lambda r, p: drawing.animate(r, "h2", p / "a.gif", shape=(2, 2)), "no image of shape"),
        (lambda r, p: drawing.animate(r, "h2", p / "a.gif", seconds=0), "seconds must be"),
        (lambda r, p: drawing.errors(3), "what net.infer"),
    ],
)
def test_what_cannot_be_drawn_is_named(make, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        make(result(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_result_that_kept_no_states_says_what_to_ask_for():
    for draw in (lambda r: drawing.errors(r), lambda r: drawing.phase(r, ("h1", 0), ("h1", 1))):
        with pytest.raises(ConfigError, match='trace="states"'):
            draw(result(trace="nodes"))


def test_a_film_that_cannot_be_written_costs_nothing(tmp_path):
    (tmp_path / "a.gif").mkdir()
    with pytest.raises(DataError):
        drawing.animate(result(), "h2", tmp_path / "a.gif")
