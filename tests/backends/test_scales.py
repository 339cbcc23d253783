"""A scale on an edge multiplies all that it sends. Oracles: the slow reference, and the weights times the factor."""

from __future__ import annotations

import itertools
from dataclasses import replace

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import SGD, Forward, Normal, PCNetwork, Zero
from pcgraph import transforms as T
from pcgraph.errors import GraphError
from pcgraph.testing import conformance, reference
from pcgraph.testing.strategies import Problem, digraphs, problems
from tests.backends.test_engine import INITIALIZERS, OPTIMIZERS, check_a_plan, everything
from tests.builders import EXACT, assert_equal_to_reference, clamps_of, double

#: A float that is 1 is no scale; others shrink towards a half.
SCALES = st.lists(st.sampled_from([0.5, 1.0, -1.5, 2.0, -1.0]), min_size=1, max_size=4)


def scaled(graph: nx.DiGraph, scales: list[float]) -> nx.DiGraph:
    """The graph with these factors on its edges, in turn; edges that share a weight have the first."""
    for scale, (_, _, data) in zip(itertools.cycle(scales), graph.edges(data=True)):
        data["scale"] = scales[0] if "share" in data else scale
    return graph


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(max_examples=100, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=6, activations=("identity", "tanh", "gelu"), parallel=True)),
    scales=SCALES,
    name=INITIALIZERS,
    steps=st.integers(0, 5),
    optimizer=OPTIMIZERS,
    kernel=st.sampled_from([None, "dense", "batched"]),
)
def test_every_plan_with_scales_equals_the_reference(problem, scales, name, steps, optimizer, kernel):
    """If this fails, a deep network with factors on its edges trains on wrong states or gradients."""
    check_a_plan(replace(problem, graph=scaled(problem.graph, scales)), name, steps, optimizer, kernel)


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@settings(max_examples=40, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=6, max_size=1, activations=("tanh", "identity"), parallel=True)),
    scales=SCALES,
    steps=st.integers(0, 4),
    kernel=st.sampled_from(["sparse", "dense", "batched"]),
)
def test_single_neurons_with_scales_equal_the_reference(problem, scales, steps, kernel):
    """The CSR matrices have scaled values, and their gradients the factor once more."""
    check_a_plan(replace(problem, graph=scaled(problem.graph, scales)), "normal", steps, SGD(lr=0.05), kernel)


@pytest.mark.filterwarnings("ignore:there is nothing to learn from")
@pytest.mark.parametrize("count", [2, 5, 40])
def test_more_parallel_edges_than_places_of_the_matrix(count):
    """torch.sparse.sampled_addmm refuses such a matrix."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from("xhy", shape=1, activation="tanh")
    graph.add_edges_from([("x", "h"), ("h", "y"), *[("h", "h"), ("x", "y")] * count])
    check_a_plan(Problem(scaled(graph, [0.5, -0.3]), frozenset("xy"), 0), "normal", 3, SGD(lr=0.05), "sparse")


def entries() -> nx.DiGraph:
    graph = pcgraph.graphs.chain([4, 6, 6, 3], activation="tanh")
    graph.edges["x", "h1"]["transform"] = T.SparseLinear(density=0.4)
    graph.add_edge("h2", "h2", transform=T.SparseLinear(density=0.3), activation="gelu")
    return graph


def modules() -> nx.DiGraph:
    """One with a pullback of its own, one by autograd, and one on two edges with two scales."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=(1, 4, 4))
    graph.add_nodes_from(["a", "b"], shape=(2, 3, 3), activation="tanh")
    graph.add_node("y", shape=4)
    shared = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(18, 4))
    graph.add_edge("x", "a", transform=T.Conv2d(1, 2, 2))
    graph.add_edge("x", "b", transform=torch.nn.Conv2d(1, 2, 2), activation="gelu")
    graph.add_edge("a", "y", transform=shared)
    graph.add_edge("b", "y", transform=shared)
    graph.add_edge("a", "b", transform="identity", activation="sigmoid")
    return graph


@pytest.mark.parametrize("scales", [[0.5], [-1.5, 0.25, 1.0]], ids=str)
@pytest.mark.parametrize("make", [everything, entries, modules])
@pytest.mark.parametrize("init", [Zero(), Normal(std=0.4), Forward(fallback=Zero())], ids=repr)
def test_every_kind_of_edge_has_scales(make, scales, init):
    """Shared and fixed weights, edge activations, stored entries, modules with and without a pullback."""
    net = PCNetwork(scaled(make(), scales), seed=1, dtype=torch.float64)
    for steps in (0, 1, 4):
        assert_equal_to_reference(net, clamps_of(net), init, steps, SGD(0.05))


@pytest.mark.parametrize("make", [everything, entries, modules])
def test_a_scale_of_one_is_none(make):
    """It costs nothing and changes no bit: the same structure, names and states."""
    graph = make()
    plain, one = PCNetwork(graph, seed=1), PCNetwork(scaled(graph.copy(), [1.0]), seed=1)
    assert [b.name for b in plain.structure.buckets] == [b.name for b in one.structure.buckets]
    results = [net.infer(clamps_of(net), init=Zero(), steps=3, optimizer=SGD(0.1)) for net in (plain, one)]
    for v in plain.graph:
        assert torch.equal(results[0].states[v], results[1].states[v])


def test_a_scale_is_the_same_as_other_weights():
    """Outside of our code: the network whose weights are multiplied, and whose gradients are those times the factor."""
    graph = pcgraph.graphs.chain([3, 4, 4, 2], activation="tanh")
    plain = PCNetwork(graph, seed=2, dtype=torch.float64)
    factors = {("x", "h1"): 0.5, ("h1", "h2"): -2.0, ("h2", "y"): 3.0}
    nx.set_edge_attributes(graph, factors, "scale")
    net = PCNetwork(graph, seed=5, dtype=torch.float64)
    for edge, factor in factors.items():
        net.weight(*edge).copy_(plain.weight(*edge) / factor)
    for v in ("h1", "h2", "y"):
        net.bias(v).copy_(plain.bias(v))
    clamps = clamps_of(net)
    kw = {"init": Forward(), "steps": 4, "optimizer": SGD(0.1)}
    for one in (plain, net):
        one.infer(clamps, **kw).backward()
    for (u, v), factor in factors.items():
        gradients = []
        for one in (plain, net):
            e = one.structure.edge_number(u, v)
            bucket = one.structure.buckets[int(one.structure.bucket_of[e])]
            gradients.append(one.weights[bucket.name].grad[e - bucket.start])
        torch.testing.assert_close(gradients[1], factor * gradients[0], **EXACT)
    torch.testing.assert_close(net.predict({"x": clamps["x"]}, "y"), plain.predict({"x": clamps["x"]}, "y"), **EXACT)


@pytest.mark.parametrize("kernel", ["dense", "batched"])
def test_scaled_weights_follow_the_parameters(kernel):
    """The copy is made anew in every run: weights that have learned, were loaded or written to are seen at once."""
    net = PCNetwork(scaled(pcgraph.graphs.chain([3, 4, 4, 4, 2]), [0.5, 2.0]), dtype=torch.float64)
    pins = {b.name: kernel for b in net.structure.buckets}
    clamps = clamps_of(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        start = {v: h.clone() for v, h in net.infer(clamps, init=Forward(), steps=0, kernels=pins).states.items()}
        result = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1), kernels=pins)
        expected = reference.infer(net, clamps, start, 3, lambda v, h, g, t: h - 0.1 * g)
        for v in net.graph:
            torch.testing.assert_close(result.states[v], expected.states[v], **EXACT)
        optimizer.zero_grad()
        result.backward()
        optimizer.step()
        del result


@pytest.mark.parametrize("kernel", ["dense", "batched"])
def test_whole_numbers_with_scales_come_out_exactly_under_autocast(kernel):
    """In bfloat16 there is no room to round: a factor that is lost, or is there twice, shows at once."""

    def whole(*shape, seed):
        return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float()

    net = PCNetwork(scaled(pcgraph.graphs.chain([4, 3, 3, 3], activation="relu"), [2.0, -1.0, 0.5]))
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(whole(*parameter.shape, seed=i))
    clamps = {"x": whole(8, 4, seed=9), "y": whole(8, 3, seed=8)}
    kw = {
        "init": Forward(),
        "steps": 1,
        "optimizer": SGD(0.5),
        "kernels": {b.name: kernel for b in net.structure.buckets},
    }
    found = []
    for half in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            result = net.infer(clamps, **kw)
            result.accumulate()
        found.append([*(h.clone() for h in result.states.values()), *(p.grad for p in net.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found))


def test_backends_are_held_to_scales():
    """A backend that forgets them is told so by the checks."""
    names = conformance.check_backend("torch")
    assert names == ()


def test_a_plan_says_the_scale_and_counts_its_copy():
    plain, net = (PCNetwork(scaled(pcgraph.graphs.chain([30, 40, 40, 2]), [s])) for s in (1.0, 0.125))
    plans = [one.plan({"x", "y"}, init=Forward(), steps=2) for one in (plain, net)]
    assert "linear_30_to_40_times_0_125: 1 edge, dense, times 0.125" in plans[1].explain()
    assert "times" not in plans[0].explain()
    assert plans[1].memory(5) - plans[0].memory(5) == 4 * sum(w.numel() for w in net.weights.values())


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0, "must not be zero.*remove the edge"), (-0.0, "must not be zero"), (float("nan"), "finite"),
        (float("inf"), "finite"), ("half", "'half'"), (True, "True"), ([0.5], "0.5"), (torch.ones(2), "Tensor"),
    ],
)  # fmt: skip
def test_what_is_no_scale_is_refused(value, says):
    graph = pcgraph.graphs.chain([2, 3, 2])
    graph.edges["h1", "y"]["scale"] = value
    with pytest.raises(GraphError, match=says) as caught:
        PCNetwork(graph)
    assert caught.value.where == ("h1", "y")


def test_a_slip_of_the_pen_and_two_scales_of_one_weight_are_refused():
    graph = pcgraph.graphs.chain([3, 3, 3])
    graph.edges["h1", "y"]["scal"] = 2.0
    with pytest.raises(GraphError, match="nearly 'scale'"):
        PCNetwork(graph)
    graph = pcgraph.graphs.chain([3, 3, 3])
    nx.set_edge_attributes(graph, "w", "share")
    graph.edges["h1", "y"]["scale"] = 2.0
    with pytest.raises(GraphError, match="shares the weight 'w' with an edge of another .*scale"):
        PCNetwork(graph)


def test_numpy_and_tensors_are_numbers():
    graph = pcgraph.graphs.chain([2, 3, 2])
    graph.edges["x", "h1"]["scale"] = torch.tensor(0.5)
    graph.edges["h1", "y"]["scale"] = double(1)[0].numpy()
    s = PCNetwork(graph).structure
    assert {type(b.scale) for b in s.buckets} == {float}


def test_the_graph_of_neurons_has_the_weights_that_are_felt():
    pytest.importorskip("torch_geometric")
    net = PCNetwork(scaled(pcgraph.graphs.chain([2, 3]), [-2.0]))
    data = net.to_data()
    assert torch.equal(data.edge_weight, -2.0 * net.weight("x", "y").flatten())
