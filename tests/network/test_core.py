"""One trip through the core: the paper's chain written independently, exactness, invariances, and bad input."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref

import networkx as nx
import pytest
import torch

import pcgraph
from pcgraph import SGD, ClampError, Diverged, Forward, GraphError, Masked, Normal, PCNetwork, Zero
from pcgraph.errors import ConfigError
from tests.builders import double

# -- the paper, layer by layer ----------------------------------------------------------------------------------------


def paper_step(weights, biases, x, y, alpha, steps):
    """Eq 1 to 4 on a chain with tanh and a linear output, from forward initialization; returns gradients."""
    sigma = [torch.tanh] * (len(weights) - 1) + [lambda a: a]
    slope = [lambda a: 1 - torch.tanh(a) ** 2] * (len(weights) - 1) + [torch.ones_like]
    h = [x]
    for w, b, s in zip(weights[:-1], biases, sigma):
        h.append(s(h[-1] @ w.t() + b))
    h.append(y)
    for _ in range(steps + 1):
        a = [h[i] @ w.t() + b for i, (w, b) in enumerate(zip(weights, biases))]
        e = [h[i + 1] - s(z) for i, (s, z) in enumerate(zip(sigma, a))]
        d = [ds(z) * err for ds, z, err in zip(slope, a, e)]
        if _ == steps:
            break
        h = [x] + [h[i] - alpha * (e[i - 1] - d[i] @ weights[i]) for i in range(1, len(weights))] + [y]
    n = len(x)
    return [-(di.t() @ hi) / n for di, hi in zip(d, h)], [-di.sum(0) / n for di in d]


def test_a_chain_trains_as_the_paper_says():
    """50 training steps with Adam equal an implementation that knows layers only."""
    sizes, names = [5, 7, 6, 7, 3], ["x", "h1", "h2", "h3", "y"]
    net = PCNetwork(pcgraph.graphs.chain(sizes, activation="tanh"), seed=3, dtype=torch.float64)
    weights = [net.weight(u, v).clone().requires_grad_() for u, v in zip(names, names[1:])]
    biases = [net.bias(v).clone().requires_grad_() for v in names[1:]]
    ours = torch.optim.Adam(net.parameters(), lr=1e-2)
    theirs = torch.optim.Adam([*weights, *biases], lr=1e-2)
    for step in range(50):
        x, y = double(8, 5, seed=2 * step), double(8, 3, seed=2 * step + 1)
        ours.zero_grad()
        net.infer({"x": x, "y": y}, init=Forward(), steps=5, optimizer=SGD(0.1)).backward()
        ours.step()
        with torch.no_grad():
            gw, gb = paper_step(weights, biases, x, y, 0.1, 5)
        for parameter, grad in zip([*weights, *biases], [*gw, *gb]):
            parameter.grad = grad
        theirs.step()
    for (u, v), w in zip(zip(names, names[1:]), weights):
        torch.testing.assert_close(net.weight(u, v), w.detach(), rtol=1e-9, atol=1e-12)
    for v, b in zip(names[1:], biases):
        torch.testing.assert_close(net.bias(v), b.detach(), rtol=1e-9, atol=1e-12)


def test_a_sweep_leaves_exactly_no_error():
    """After strict Forward every free error is 0.0, not nearly."""
    graph = pcgraph.graphs.chain([20, 33, 33, 33, 4])
    graph.add_edges_from([("x", "h3"), ("h1", "h3"), ("h1", "y")])
    net = PCNetwork(graph)
    x, y = torch.randn(17, 20), torch.randn(17, 4)
    result = net.infer({"x": x, "y": y}, init=Forward(), steps=0)
    for v in ("h1", "h2", "h3"):
        assert torch.equal(result.errors[v], torch.zeros(17, 33))
    assert (result.node_energy["h2"] == 0).all()
    assert (result.node_energy["y"] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predict_is_the_feed_forward_pass_bit_for_bit(dtype):
    """The same products in the same order as plain torch: on a chain, and on a graph with a skip edge."""
    net = PCNetwork(pcgraph.graphs.chain([30, 40, 40, 40, 5]), seed=1, dtype=dtype)
    x = torch.randn(23, 30, dtype=dtype)
    h = x
    for u, v in [("x", "h1"), ("h1", "h2"), ("h2", "h3")]:
        h = torch.nn.functional.gelu(torch.nn.functional.linear(h, net.weight(u, v), net.bias(v)))
    assert torch.equal(net.predict({"x": x}, "y"), torch.nn.functional.linear(h, net.weight("h3", "y"), net.bias("y")))
    graph = pcgraph.graphs.chain([30, 40, 5], activation="tanh")
    graph.add_edge("x", "y")
    net = PCNetwork(graph, dtype=dtype)
    h = torch.tanh(torch.addmm(net.bias("h1"), x, net.weight("x", "h1").t()))
    by_source = sorted([("x", x), ("h1", h)], key=lambda p: net.structure.edge_number(p[0], "y"))
    y = torch.addmm(net.bias("y"), by_source[0][1], net.weight(by_source[0][0], "y").t())
    y = torch.addmm(y, by_source[1][1], net.weight(by_source[1][0], "y").t())
    assert torch.equal(net.predict({"x": x}, "y"), y)


def test_predict_computes_ancestors_only():
    """A query about an early layer does not run the rest."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 4, 2]), dtype=torch.float64)
    x = double(5, 3)
    net.predict({"x": x}, "h1")
    (plan,) = net._planner.parts.values()
    assert plan.matmuls.total == 1


def test_predict_says_so_where_there_is_no_sweep():
    """Nobody gets an iterative answer without asking for one."""
    net = PCNetwork(pcgraph.graphs.decoder([2, 3, 4]), dtype=torch.float64)
    with pytest.raises(pcgraph.InvalidInitializer, match="h0"):
        net.predict({"x": double(3, 4)}, "h0")
    with pytest.raises(ConfigError, match="both init= and steps="):
        net.predict({"x": double(3, 4)}, "h0", init=Zero())
    answer = net.predict({"x": double(3, 4)}, "h0", init=Zero(), steps=4, optimizer=SGD(0.1))
    assert answer.shape == (3, 2)
    assert (answer != 0).any()


# -- invariances ------------------------------------------------------------------------------------------------------


def messy(order, names):
    graph = nx.DiGraph()
    shapes = {"x": 3, "a": 4, "b": 4, "c": 4, "y": 2}
    edges = [("x", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "y"), ("x", "c"), ("b", "b"), ("y", "b")]
    for v in order(list(shapes)):
        graph.add_node(names[v], shape=shapes[v], activation="tanh" if v in "abc" else "identity")
    graph.add_edges_from((names[u], names[v]) for u, v in order(edges))
    return graph


def test_order_of_declaration_and_names_change_nothing():
    """The same network, built in another order under other names, gives the same numbers."""
    results = []
    for order, names in [
        (list, {v: v for v in "xabcy"}),
        (lambda items: items[::-1], {v: ("node", i) for i, v in enumerate("xabcy")}),
        (lambda items: items[2:] + items[:2], {"x": "y", "a": 1, "b": 2.5, "c": "x", "y": frozenset({"y"})}),
    ]:
        net = PCNetwork(messy(order, names), dtype=torch.float64)
        for k, (u, v) in enumerate(messy(list, {v: v for v in "xabcy"}).edges):
            net.weight(names[u], names[v]).copy_(double(*net.weight(names[u], names[v]).shape, seed=k) / 2)
        for k, v in enumerate("abcy"):
            net.bias(names[v]).copy_(double(*net.bias(names[v]).shape, seed=50 + k))
        clamps = {names["y"]: double(6, 2, seed=91), names["x"]: double(6, 3, seed=90)}
        result = net.infer(clamps, init=Forward(fallback=Zero()), steps=7, optimizer=SGD(0.05))
        states = {v: result.states[names[v]].clone() for v in "xabcy"}
        result.backward()
        i = net.structure.edge_number(names["b"], names["c"])
        bucket = net.structure.buckets[net.structure.bucket_of[i]]
        results.append((states, net.weights[bucket.name].grad[i - bucket.start].clone(), result.energy))
    for states, gradient, energy in results[1:]:
        for v in states:
            torch.testing.assert_close(states[v], results[0][0][v], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(energy, results[0][2], rtol=1e-12, atol=1e-14)


def test_samples_do_not_know_of_each_other():
    """States of a sample are those of a batch of one; so the rate means the same for every batch size."""
    net = PCNetwork(messy(list, {v: v for v in "xabcy"}), dtype=torch.float64)
    x, y = double(6, 3), double(6, 2, seed=1)
    whole = net.infer({"x": x, "y": y}, init=Zero(), steps=5, optimizer=SGD(0.05)).states
    for i in range(6):
        alone = net.infer({"x": x[i : i + 1], "y": y[i : i + 1]}, init=Zero(), steps=5, optimizer=SGD(0.05)).states
        for v in "abc":
            torch.testing.assert_close(alone[v][0], whole[v][i], rtol=1e-12, atol=1e-14)


def run_twice(seed):
    net = PCNetwork(pcgraph.graphs.chain([6, 8, 8, 3]), seed=seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    init = Normal(std=0.1, seed=seed)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(9, 6, generator=generator), torch.randn(9, 3, generator=generator)
        optimizer.zero_grad()
        net.infer({"x": x, "y": y}, init=init, steps=4, optimizer=SGD(0.1)).backward()
        optimizer.step()
    return net.state_dict()


def test_the_same_seed_gives_the_same_bits():
    """Twice the same run, and a global generator that was neither read nor moved."""
    torch.manual_seed(1)
    first = run_twice(0)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    second = run_twice(0)
    assert torch.equal(before, torch.random.get_rng_state())
    for name in first:
        assert torch.equal(first[name], second[name])
    assert not all(torch.equal(first[n], t) for n, t in run_twice(1).items())


def test_a_result_keeps_its_values_while_others_run():
    """Buffers are used again only when nobody looks into them."""
    net = PCNetwork(pcgraph.graphs.chain([6, 8, 8, 3]), dtype=torch.float64)
    clamps = {"x": double(4, 6), "y": double(4, 3, seed=1)}
    view = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1)).states["h1"]
    kept = view.clone()
    held = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1))
    for seed in range(5):
        net.infer({"x": double(4, 6, seed=seed + 7), "y": clamps["y"]}, init=Zero(), steps=3, optimizer=SGD(0.1))
        net.infer({"x": double(4, 6, seed=seed + 7), "y": clamps["y"]}, init=Forward(), steps=3, optimizer=SGD(0.1))
    assert torch.equal(view, kept)
    assert torch.equal(held.states["h1"], kept)


def test_buffers_follow_replaced_parameters():
    """After .to() or an assignment the plan's views must be taken anew."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    x = torch.randn(5, 3)
    first = net.predict({"x": x}, "y")
    net.double()
    torch.testing.assert_close(net.predict({"x": x.double()}, "y").float(), first)
    net.float()
    for parameter in net.parameters():
        parameter.data = parameter.data * 2
    doubled = net.predict({"x": x}, "y")
    assert not torch.allclose(doubled, first)


# -- parameters -------------------------------------------------------------------------------------------------------


def test_like_edges_lie_in_one_tensor_and_weights_are_views():
    """Few large parameters; writing into a view changes the network."""
    net = PCNetwork(pcgraph.graphs.chain([784, 512, 512, 512, 512, 10]))
    assert {tuple(p.shape) for p in net.weights.values()} == {(3, 512, 512), (1, 512, 784), (1, 10, 512)}
    net.weight("h1", "h2").fill_(0.25)
    net.bias("h2").fill_(0.0)
    x = torch.randn(2, 784)
    h1 = net.predict({"x": x}, "h1")
    expected = torch.nn.functional.gelu(0.25 * h1.sum(1, keepdim=True)).expand(-1, 512)
    torch.testing.assert_close(net.predict({"x": x}, "h2"), expected, rtol=1e-4, atol=1e-4)
    bound = 1 / math.sqrt(784)
    weight = net.weight("x", "h1")
    assert weight.abs().max() <= bound
    assert abs(weight.std() - bound / math.sqrt(3)) < 0.01 * bound


def test_state_dict_and_copies():
    """A reloaded network and a deep copy predict the same; a copy learns by itself."""
    net = PCNetwork(messy(list, {v: v for v in "xabcy"}), seed=4, dtype=torch.float64)
    clamps = {"x": double(3, 3), "y": double(3, 2, seed=1)}
    other = PCNetwork(messy(list, {v: v for v in "xabcy"}), seed=5, dtype=torch.float64)
    other.load_state_dict(net.state_dict())
    twin = copy.deepcopy(net)
    expected = net.infer(clamps, init=Zero(), steps=3, optimizer=SGD(0.1)).energy
    for n in (other, twin):
        assert torch.equal(n.infer(clamps, init=Zero(), steps=3, optimizer=SGD(0.1)).energy, expected)
    twin.weight("x", "a").zero_()
    assert (net.weight("x", "a") != 0).any()


def test_the_callers_graph_is_left_alone():
    """Training changes neither the graph nor a module on it."""
    graph = pcgraph.graphs.chain([3, 4, 2])
    layer = torch.nn.Linear(3, 4)
    graph.add_edge("x", "h1", transform=layer)
    before = layer.weight.clone()
    net = PCNetwork(graph)
    graph.remove_node("h1")
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    net.infer({"x": torch.randn(4, 3), "y": torch.randn(4, 2)}, init=Forward(), steps=3, optimizer=SGD(0.5)).backward()
    optimizer.step()
    assert torch.equal(layer.weight, before)
    assert not torch.equal(net.transform("x", "h1").module.weight, before)
    with pytest.raises(nx.NetworkXError):
        net.graph.add_node("z")


# -- bad input --------------------------------------------------------------------------------------------------------


def node(**attributes):
    graph = nx.DiGraph()
    graph.add_node("x", shape=3)
    graph.add_node("h", **{"shape": 4, **attributes})
    graph.add_edge("x", "h")
    return graph


def edge(**attributes):
    graph = node()
    graph.add_edge("x", "h", **attributes)
    return graph


def without_shape():
    graph = nx.DiGraph()
    graph.add_node("lonely")
    return graph


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_shape, r"node 'lonely' needs a shape \(found none\)"),
        (lambda: node(shape=0), r"positive integer .* \(found 0\)"),
        (lambda: node(shape=(3, -1)), r"\(found \(3, -1\)\)"),
        (lambda: node(shape=2.5), r"\(found 2.5\)"),
        (lambda: node(shape=True), r"\(found True\)"),
        (lambda: node(activaton="relu"), r"'activaton', which is nearly 'activation'"),
        (lambda: edge(transfrom="identity"), r"edge 'x' -> 'h' has the attribute 'transfrom'.*'transform'"),
        (lambda: node(activation="rellu"), r"node 'h': unknown activation 'rellu': did you mean 'relu'"),
        (lambda: node(activation=3), r"a name or a callable \(found 3\)"),
        (lambda: edge(transform="lineer"), r"edge 'x' -> 'h': unknown transform 'lineer': did you mean 'linear'"),
        (lambda: edge(transform="identity"), r"leads from shape \(3,\) to \(3,\), but 'h' has shape \(4,\)"),
        (lambda: edge(transform=torch.nn.Linear(3, 5)), r"leads from shape \(3,\) to \(5,\)"),
        (lambda: edge(transform=torch.nn.Linear(2, 4)), r"shape \(3,\)"),
        (lambda: edge(trainable="no"), r"trainable=True or trainable=False \(found 'no'\)"),
        (lambda: node(precision=-1.0), r"positive number \(found -1.0\)"),
        (lambda: node(energy="gausian"), r"did you mean 'gaussian'"),
        (lambda: node(prior=0.0), r"has a prior and incoming edges"),
        (lambda: nx.DiGraph(), r"found an empty graph"),
        (lambda: nx.Graph([(1, 2)]), r"found Graph"),
    ],
)
def test_a_wrong_declaration_is_named(make, message):
    """Each message says where, what was found, and what to do; nothing was computed."""
    with pytest.raises(GraphError, match=message):
        PCNetwork(make())


def test_metadata_is_ignored():
    """Attributes of other tools, weights of NetworkX among them, are nobody's error."""
    graph = node(pos=(0, 1), label="hidden", color="red")
    graph.edges["x", "h"]["weight"] = 3.0
    assert PCNetwork(graph).graph.nodes["h"]["color"] == "red"


NAN = float("nan")


@pytest.mark.parametrize(
    ("clamps", "message"),
    [
        ({}, "nothing is clamped"),
        ({"X": torch.zeros(2, 3)}, r"no node 'X'"),
        ({"x": torch.zeros(2, 4)}, r"'x' needs shape \(batch, 3\) \(found \(2, 4\)\)"),
        ({"x": torch.zeros(3)}, r"needs shape \(batch, 3\) \(found \(3,\)\)"),
        ({"x": torch.zeros(2, 3, 1)}, r"x.reshape\(-1, 3\) has it"),
        ({"x": torch.zeros(2, 3).double()}, r"needs dtype torch.float32 \(found torch.float64\)"),
        ({"x": torch.zeros(2, 3), "y": torch.zeros(2, 2, dtype=torch.int64)}, r"one_hot"),
        ({"x": torch.zeros(2, 3, device="meta")}, r"needs to be on cpu.*\(found meta\)"),
        ({"x": torch.zeros(2, 3), "y": torch.zeros(3, 2)}, r"one batch size \(found 2 for 'x' and 3 for 'y'\)"),
        ({"x": torch.tensor([[0.0, NAN, 0.0]])}, r"must be finite \(found 1 values"),
        ({"x": torch.tensor([[0.0, float("inf"), NAN]])}, r"found 2 values"),
        ({"x": torch.zeros(0, 3)}, "the batch is empty"),
        ({"x": [[1.0, 2.0, 3.0]]}, r"must be a torch.Tensor .*found list"),
        ({"x": Masked(torch.zeros(2, 3), torch.zeros(2, 3))}, r"needs to be of bool"),
        ({"x": Masked(torch.zeros(2, 3), torch.zeros(2, dtype=torch.bool))}, r"needs shape \(2, 3\) or \(3,\)"),
    ],
)
def test_a_wrong_clamp_is_named(clamps, message):
    """Before anything is computed, with the node and what to do."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    with pytest.raises(ClampError, match=message):
        net.infer(clamps, init=Zero(), steps=1, optimizer=SGD(0.1))


@pytest.mark.parametrize("steps", [-1, 2.0, True, None])
def test_steps_are_counted(steps):
    """A number of steps is an integer that is not negative."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    with pytest.raises(ConfigError, match="steps must be an integer"):
        net.infer({"x": torch.zeros(1, 3)}, init=Zero(), steps=steps, optimizer=SGD(0.1))


def test_steps_need_an_optimizer_and_an_initializer_is_one():
    """What is missing is named with an example."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    with pytest.raises(ConfigError, match="optimizer=pcgraph.SGD"):
        net.infer({"x": torch.zeros(1, 3)}, init=Zero(), steps=1)
    with pytest.raises(pcgraph.InvalidInitializer, match="pcgraph.Forward"):
        net.infer({"x": torch.zeros(1, 3)}, init="forward", steps=1, optimizer=SGD(0.1))
    with pytest.raises(ConfigError, match="positive number"):
        SGD(lr=-0.1)


def test_divergence_is_raised_with_the_step_and_leaves_parameters_alone():
    """A rate that is too large must not fill the weights with NaN."""
    net = PCNetwork(pcgraph.graphs.chain([3, 20, 20, 2], activation="relu"), seed=1)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(Diverged, match=r"inference step \d+ of 400.*smaller state rate") as caught:
        net.infer(
            {"x": torch.randn(5, 3), "y": torch.randn(5, 2)}, init=Forward(), steps=400, optimizer=SGD(lr=50.0)
        ).backward()
    assert 0 < caught.value.step <= 400
    assert caught.value.node in net.graph
    assert not caught.value.largest < 1e6
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None for p in net.parameters())


def test_backward_twice_is_refused():
    """Gradients would be counted double, and an initializer would remember a batch twice."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    result = net.infer({"x": torch.zeros(1, 3), "y": torch.zeros(1, 2)}, init=Zero(), steps=1, optimizer=SGD(0.1))
    result.backward()
    with pytest.raises(ConfigError, match="already called"):
        result.backward()


def test_look_ups_name_what_is_missing():
    """Asking for a weight or bias that is not there says what there is."""
    net = PCNetwork(messy(list, {v: v for v in "xabcy"}))
    with pytest.raises(GraphError, match="no edge 'x' -> 'b'"):
        net.weight("x", "b")
    with pytest.raises(GraphError, match="no node 'z'"):
        net.bias("z")
    with pytest.raises(GraphError, match="'x' has no bias"):
        net.bias("x")
    multi = nx.MultiDiGraph(pcgraph.graphs.chain([2, 2]))
    multi.add_edge("x", "y")
    with pytest.raises(GraphError, match="2 parallel edges"):
        PCNetwork(multi).weight("x", "y")
    assert PCNetwork(multi).weight("x", "y", key=1).shape == (2, 2)


def test_buffers_go_back_as_soon_as_a_result_is_gone():
    """No cycle keeps a result alive: memory must not wait for the garbage collector."""
    net = PCNetwork(pcgraph.graphs.chain([6, 8, 3]), dtype=torch.float64)
    clamps = {"x": double(4, 6), "y": double(4, 3, seed=1)}
    gc.disable()
    try:
        first = net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1))
        first.backward()
        buffers, alive = first.peek("h1").data_ptr(), weakref.ref(first)
        del first
        assert alive() is None
        assert net.infer(clamps, init=Forward(), steps=3, optimizer=SGD(0.1)).peek("h1").data_ptr() == buffers
    finally:
        gc.enable()


def test_mappings_and_answers_outlive_their_result():
    """`net.infer(...).states` and an iterative prediction are the user's; the next run must not write into them."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2], activation="tanh"), dtype=torch.float64)
    kw = {"init": Zero(), "steps": 2, "optimizer": SGD(0.1)}
    first = net.predict({"x": double(4, 3)}, "y", **kw)
    kept = first.clone()
    states = net.infer({"x": double(4, 3)}, **kw).states
    for seed in (5, 6):
        net.predict({"x": double(4, 3, seed=seed)}, "y", **kw)
        net.infer({"x": double(4, 3, seed=seed)}, **kw).accumulate()
    assert torch.equal(first, kept)
    assert torch.equal(states["y"], kept)


def test_inference_mode_leaves_no_trace():
    """Evaluation under torch.inference_mode() must not break the training step after it."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    clamps = {"x": torch.randn(4, 3), "y": torch.randn(4, 2)}
    with torch.inference_mode():
        net.predict({"x": clamps["x"]}, "y")
        net.infer(clamps, init=Forward(), steps=2, optimizer=SGD(0.1))
    net.predict({"x": clamps["x"]}, "y")
    net.infer(clamps, init=Forward(), steps=2, optimizer=SGD(0.1)).backward()


@pytest.mark.parametrize("size", [1, 3])
def test_learning_in_inference_mode_leaves_no_trace(size):
    """Local learning needs no autograd; what backward() made there must serve an ordinary run, too."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(6), shape=size, activation="tanh")
    graph.add_edges_from([(i, j) for i in range(6) for j in range(6) if (i + j) % 3], share="one")
    net = PCNetwork(graph, dtype=torch.float64)
    kernels = {b.name: "batched" for b in net.structure.buckets} if size > 1 else {}
    gradients = []
    for mode in (True, False):
        net.zero_grad()
        with torch.inference_mode(mode):
            net.infer({0: double(4, size)}, init=Zero(), steps=3, optimizer=SGD(0.1), kernels=kernels).backward()
        assert not any(p.grad.is_inference() for p in net.parameters())
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients))


def test_a_network_without_parameters_can_change_its_dtype():
    """Nothing of it moves in memory, and yet its buffers are of the wrong dtype then."""
    graph = nx.DiGraph()
    graph.add_nodes_from("xhy", shape=3, bias=False, activation="tanh")
    graph.add_edges_from(["xh", "hy"], transform=pcgraph.transforms.Identity())
    net = PCNetwork(graph)
    assert not list(net.parameters())
    for dtype in (torch.float32, torch.float64, torch.float32):
        net.to(dtype)
        clamps = {v: torch.ones(2, 3, dtype=dtype) for v in "xy"}
        assert net.infer(clamps, init=Zero(), steps=2, optimizer=SGD(0.1)).energy.dtype == dtype


@pytest.mark.parametrize("fixed", [{"transform": pcgraph.transforms.Identity()}, {"trainable": False}])
def test_biases_alone_can_learn(fixed):
    """Without weights to train there is an error all the same, and nobody is told that there is none."""
    graph = nx.DiGraph()
    graph.add_nodes_from("xhy", shape=3)
    graph.add_edges_from(["xh", "hy"], **fixed)
    net = PCNetwork(graph, dtype=torch.float64)
    result = net.infer({"x": double(2, 3), "y": double(2, 3, seed=1)}, init=Forward(), steps=2, optimizer=SGD(0.1))
    result.backward()
    for v in "hy":
        name, row = net.bias_place(v)
        torch.testing.assert_close(net.biases[name].grad[row], -result.errors[v].mean(0))
    with pytest.warns(pcgraph.errors.PCGraphWarning, match="nothing that is predicted is clamped"):
        net.infer({"x": double(2, 3)}, init=Forward(), steps=2, optimizer=SGD(0.1)).backward()


def test_weights_can_be_frozen_and_freed():
    """What is frozen at the moment of backward() gets no gradient; what is free gets all of it."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]), dtype=torch.float64)
    clamps = {"x": double(4, 3), "y": double(4, 2, seed=1)}
    kw = {"init": Forward(), "steps": 3, "optimizer": SGD(0.1)}
    net.infer(clamps, **kw).backward()
    expected = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    net.requires_grad_(False)
    net.infer(clamps, **kw).backward()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(True)
    net.infer(clamps, **kw).backward()
    for name, p in net.named_parameters():
        assert torch.equal(p.grad, expected[name])


def test_pickled_and_copied_networks_are_the_same():
    """Worker processes get a network by pickle; a frozen one stays frozen when copied."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]), dtype=torch.float64)
    net.weights.requires_grad_(False)
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert torch.equal(twin.predict({"x": double(4, 3)}, "y"), net.predict({"x": double(4, 3)}, "y"))
        assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in net.parameters()]


def test_looking_into_results_leaves_no_buffers_behind():
    """Twenty results that were looked into and dropped free their memory at once."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]), dtype=torch.float64)
    clamps = {"x": double(4, 3), "y": double(4, 2, seed=1)}
    gc.collect()
    gc.disable()
    try:
        alive = []
        for _ in range(20):
            result = net.infer(clamps, init=Forward(), steps=2, optimizer=SGD(0.1))
            assert result.states["h1"].shape == (4, 4)
            alive.append(result.peek("h1").data_ptr())
        del result
        assert len(set(alive)) <= 2
    finally:
        gc.enable()


def test_what_a_workspace_keeps_does_not_grow():
    """Nodes without a bias between others: each backward() must find its rows again, not list them anew."""
    graph = pcgraph.graphs.chain([3, 4, 4, 4, 4, 2])
    graph.nodes["h2"]["bias"] = False
    net = PCNetwork(graph, dtype=torch.float64)
    clamps = {"x": double(4, 3), "y": double(4, 2, seed=1)}
    sizes = []
    for _ in range(4):
        result = net.infer(clamps, init=Zero(), steps=3, optimizer=SGD(0.1))
        result.backward()
        ws = result._program.ws
        sizes.append((len(ws.cache), len(ws._bound), len(ws._scratch), len(result._program._refresh)))
        del result
    assert sizes[1] == sizes[3]


def test_pins_and_names_that_mean_nothing_are_refused():
    """A pin of no bucket, and a string where a set of nodes is meant."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    with pytest.raises(ConfigError, match="unknown bucket 'nonsense'"):
        net.plan({"x"}, init=Zero(), steps=1, kernels={"nonsense": "dense"})
    with pytest.raises(ClampError, match="collections of nodes"):
        net.plan("xy", init=Zero(), steps=1)
    with pytest.raises(ClampError, match=r"needs shape \(batch, 3\) \(found \(\)\)"):
        net.infer({"x": torch.tensor(1.0)}, init=Zero(), steps=0)
    with pytest.raises(GraphError, match="no parameters"):
        PCNetwork(node(activation=torch.nn.PReLU()))


def test_energies_at_the_edge_of_the_range_are_no_divergence():
    """The batch's sum may overflow where no sample's energy does."""
    net = PCNetwork(pcgraph.graphs.chain([1, 1]))
    y = torch.full((64, 1), 1e19)
    result = net.infer({"x": torch.zeros(64, 1), "y": y}, init=Forward(), steps=0)
    assert torch.isfinite(result.energy).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda net, x, y: net.predict({"x": x, "y": y}, "y"), r"'y' is both clamped and asked for"),
        (lambda net, x, y: net(x), r"net.infer\(clamps"),
        (lambda net, x, y: net.infer({"x": x[0]}, init=Zero(), steps=0), r"x.unsqueeze\(0\)"),
        (lambda net, x, y: net.infer({"y": y.argmax(1)}, init=Zero(), steps=0), r"one_hot\(y, 2\)"),
        (
            lambda net, x, y: net.infer({"x": x.long().numpy()}, init=Zero(), steps=0),
            r"needs dtype .*found torch.int64",
        ),
        (
            lambda net, x, y: net.infer(
                {"x": x}, init=Zero(), steps=1, optimizer=torch.optim.SGD(net.parameters(), lr=0.1)
            ),
            r"torch.optim.SGD, which moves weights",
        ),
        (lambda net, x, y: net.infer({"x": x}, init=Zero(), steps=0).states["q"], r"no node 'q'; nodes: "),
        (lambda net, x, y: PCNetwork([3, 4, 2]), r"graphs.chain"),
        (lambda net, x, y: PCNetwork(node(activation=torch.nn.ReLU)), r"'ReLU' must preserve .* write ReLU\(\)"),
        (lambda net, x, y: PCNetwork(node(activation=lambda a: a.sum(-1))), r"must preserve the shape \(2, 4\)"),
    ],
)
def test_likely_slips_are_answered(wrong, message):
    """What people at home in torch and NetworkX type first, and what they are told."""
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    x, y = torch.randn(5, 3), torch.eye(2)[torch.tensor([0, 1, 0, 1, 1])]
    with pytest.raises((pcgraph.PCGraphError, TypeError, KeyError), match=message):
        wrong(net, x, y)


def test_prediction_without_a_sweep_says_how():
    """One message names the cycle and the call that works; the call works."""
    graph = pcgraph.graphs.chain([3, 4, 4, 2])
    graph.add_edge("h2", "h1")
    net = PCNetwork(graph)
    with pytest.raises(pcgraph.InvalidInitializer, match=r"no sweep gives 'y'.*h1.*steps=50.*SGD\(lr=0.1\)") as caught:
        net.predict({"x": torch.randn(5, 3)}, "y")
    assert set(caught.value.witness.nodes) == {"h1", "h2"}
    answer = net.predict({"x": torch.randn(5, 3)}, "y", init=Forward(fallback=Zero()), steps=50, optimizer=SGD(lr=0.1))
    assert answer.shape == (5, 2)


@pytest.mark.parametrize(
    "convert",
    [
        lambda net: net.to(torch.complex64),
        lambda net: net.to(torch.float8_e4m3fn),
        lambda net: net.to(device="cpu", dtype=torch.complex128),
        lambda net: net.type(torch.int32),
        lambda net: net.type(torch.bool),
    ],
    ids=["complex", "eight bits", "by name", "integers", "flags"],
)
def test_a_type_in_which_no_network_computes_is_refused_and_nothing_is_converted(convert):
    net = PCNetwork(pcgraph.graphs.chain([3, 4, 2]), seed=0)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ConfigError, match="dtype must be one of"):
        convert(net)
    assert net.dtype is torch.float32
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
