"""Precisions that are others in each step, against the slow reference in float64."""

from __future__ import annotations

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import LBFGS, SGD, Adam, Duals, Equilibrium, Errors, Following, Forward, Normal, PCNetwork, Zero, schedules
from pcgraph.errors import ClampError, ConfigError, GraphError
from pcgraph.testing.strategies import dags, digraphs, problems
from tests.builders import assert_equal_to_reference, chain, clamps_of

SMOOTH = ("identity", "tanh", "gelu", "sigmoid")
OPTIMIZERS = (SGD(0.05), SGD(0.05, momentum=0.7), Adam(0.02, eps=1e-3))
ROUGH = {"rtol": 1e-8, "atol": 1e-10}


def drawn(data, net, steps):
    """Some nodes and slots with a Gaussian energy have a schedule, others a number, others what was declared."""
    s = net.structure
    known = [
        v for v in (*s.declared, *s.slots)
        if s.segments[int(s.segment_of[s.slots.get(v, s.number.get(v, 0))])].gaussian
    ]  # fmt: skip
    positive = st.floats(0.01, 2.0)
    kinds = st.one_of(st.none(), positive, st.lists(positive, min_size=steps + 1, max_size=steps + 1))
    found = {v: data.draw(kinds) for v in known}
    return {v: p for v, p in found.items() if p is not None}


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_network_equals_the_reference(data):
    """States, energies of every step and gradients, with slots, partial clamps, and with duals."""
    graphs = digraphs(max_nodes=6, activations=SMOOTH, priors=True, parallel=True, slots=True)
    p = data.draw(problems(graphs=graphs, clamps="some", rich=True, masks=True))
    init = data.draw(st.sampled_from((Zero(), Normal(std=0.3), Forward(fallback=Zero()))))
    optimizer, steps = data.draw(st.sampled_from(OPTIMIZERS)), data.draw(st.integers(0, 6))
    net = p.network()
    duals = data.draw(st.sampled_from((None, Duals(0.2))))
    kw = {"precision": drawn(data, net, steps), "duals": duals}
    assert_equal_to_reference(net, p.clamps(net), init, steps, optimizer, tolerance=ROUGH, **kw)


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(deadline=None, max_examples=30)
@given(data=st.data(), p=problems(graphs=dags(max_nodes=6, activations=SMOOTH, slots=True), clamps="some"))
def test_in_error_coordinates_too(data, p):
    net, steps = p.network(), data.draw(st.integers(0, 5))
    kw = {"precision": drawn(data, net, steps), "coordinates": Errors()}
    assert_equal_to_reference(net, p.clamps(net), Normal(std=0.3), steps, SGD(0.03), tolerance=ROUGH, **kw)


@pytest.mark.parametrize("sizes", [(4, 5, 5, 5, 3), (70, 70, 70, 70, 3)])
@pytest.mark.parametrize("make", [schedules.spiking, schedules.decaying])
def test_shipped_schedules_on_chains(sizes, make):
    """Large groups keep the slope of a prediction that holds still, and are weighed anew in each step all the same."""
    net = chain(*sizes, dtype=torch.float64)
    kw = {"precision": make(net.graph, {"x"}, 6)}
    assert_equal_to_reference(net, clamps_of(net), Forward(), 6, SGD(0.1), tolerance=ROUGH, **kw)


def test_a_schedule_of_equal_numbers_is_a_number():
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    kw = {"init": Forward(), "steps": 4, "optimizer": SGD(0.1), "trace": True}
    one = net.infer(clamps_of(net), precision={"h1": 0.3, "y": 2.0}, **kw)
    other = net.infer(clamps_of(net), precision={"h1": [0.3] * 5, "y": (2.0,) * 5}, **kw)
    torch.testing.assert_close(one.trace, other.trace)
    torch.testing.assert_close(one.states["h2"], other.states["h2"])


def test_depth_is_the_longest_path():
    """A skip connection does not make a node less deep; what lies deepest has the error first."""
    graph = nx.DiGraph([("x", "a"), ("a", "b"), ("b", "y"), ("x", "y")])
    found = schedules.spiking(graph_with_shapes(graph), ("x",), 4, low=0.1)
    assert found == {"a": (0.1, 0.1, 1, 0.1, 1), "b": (0.1, 1, 0.1, 0.1, 1), "y": (1, 0.1, 0.1, 0.1, 1)}


def graph_with_shapes(graph):
    nx.set_node_attributes(graph, 2, "shape")
    return graph


def test_a_relaxation_before_the_first_step_has_its_precisions():
    net = PCNetwork(
        graph_with_shapes(nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")])), dtype=torch.float64
    )  # fmt: skip
    init, clamps = Equilibrium(release="y", steps=30), clamps_of(net)
    first = net.infer(clamps, init=init, steps=0, precision={"a": 0.3}).states["a"]
    kw = {"steps": 2, "optimizer": SGD(1e-12)}
    found = net.infer(clamps, init=init, precision={"a": [0.3, 5.0, 7.0]}, **kw).states["a"]
    torch.testing.assert_close(found, first)


def test_a_rate_that_follows_reckons_with_the_largest_precision():
    net = chain(4, 5, 5, 3, dtype=torch.float64)
    rate, spikes = Following(10.0, samples=3), schedules.spiking(net.graph, {"x"}, 4)
    net.infer(clamps_of(net), init=Forward(), steps=4, optimizer=SGD(lr=rate), precision=spikes)
    assert rate.curvature == pytest.approx(float(net.curvature(clamps_of(net), init=Forward()).max()), rel=0.05)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"h1": [1.0, 1.0, 1.0]}, r"'h1' has 3 precisions for 3 steps: give 4"),
        ({"h1": []}, "has 0 precisions"),
        ({"h1": "high"}, "precision of 'h1'"),
        ({"h1": [1.0, 0.0, 1.0, 1.0]}, "precision 1 of 'h1'"),
        ({"x": [1.0] * 4}, "no energy"),
        ({"h9": [1.0] * 4}, "names 'h9'"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(given, message):
    net = chain(4, 5, 3)
    with pytest.raises(ConfigError, match=message):
        net.infer(clamps_of(net), init=Forward(), steps=3, optimizer=SGD(0.1), precision=given)


def test_a_solver_and_a_backend_that_know_one_energy_refuse_them():
    net = chain(4, 5, 3)
    kw = {"init": Forward(), "steps": 1, "precision": {"h1": [1.0, 0.5]}}
    with pytest.raises(ConfigError, match=r"LBFGS.*a schedule changes the energy"):
        net.infer(clamps_of(net), optimizer=LBFGS(), **kw)

    class Plain(pcgraph.backends.Backend):
        name = "plain"

        def lower(self, plan, network, batch):
            raise AssertionError("nothing is to run")

    other = PCNetwork(pcgraph.graphs.chain([4, 5, 3]), backend=Plain())
    with pytest.raises(ConfigError, match=r"'plain' has one precision a node"):
        other.infer(clamps_of(net), optimizer=SGD(0.1), **kw)


def test_what_has_no_depth_or_too_few_steps_is_refused():
    ring = graph_with_shapes(nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a")]))
    with pytest.raises(GraphError, match=r"cycle 'a' → 'b' → 'a' has none|cycle 'b' → 'a' → 'b' has none"):
        schedules.spiking(ring, {"x"}, 5)
    line = pcgraph.graphs.chain([2, 2, 2, 2])
    with pytest.raises(ConfigError, match="steps"):
        schedules.spiking(line, {"x"}, 2)
    with pytest.raises(ConfigError, match="low"):
        schedules.spiking(line, {"x"}, 3, low=0)
    with pytest.raises(ConfigError, match="decay"):
        schedules.decaying(line, {"x"}, 3, decay=1.5)
    with pytest.raises(ClampError, match="collection"):
        schedules.spiking(line, "x", 3)
