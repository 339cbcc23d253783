"""Plans: proved on symbols, counted against what really runs, and SMM counted by hand."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.nn import SAGEConv

import pcgraph
from pcgraph import SGD, Adam, Average, Errors, Forward, Memory, Normal, PCNetwork, Zero
from pcgraph import transforms as T
from pcgraph.backends import traits_of
from pcgraph.backends.torch import lowering
from pcgraph.backends.torch.calls import Send, numbers
from pcgraph.backends.torch.kernels import choose
from pcgraph.backends.torch.lowering import lower
from pcgraph.errors import ConfigError
from pcgraph.network import adjacency
from pcgraph.plan import compile as compiling
from pcgraph.plan import smm, verify
from pcgraph.plan.products import Products, products_of
from pcgraph.testing.strategies import digraphs, problems
from tests.builders import chain

MLP = [784, 512, 512, 512, 512, 10]


@settings(max_examples=150, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=8, max_size=2, parallel=True, priors=True)),
    init=st.sampled_from([Zero(), Normal(), Forward(fallback=Zero()), Forward(fallback=Normal())]),
    steps=st.integers(0, 7),
    optimizer=st.sampled_from([SGD(0.1), SGD(0.1, 0.9), Adam(0.1)]),
    partly=st.booleans(),
)
def test_every_plan_is_proved(problem, init, steps, optimizer, partly):
    """Each error used rests on current states, each one left out is zero by definition, and nothing is added twice."""
    net = PCNetwork(problem.graph)
    masked = sorted(problem.clamped, key=str)[:1] if partly else []
    clamped = set(problem.clamped) - set(masked)
    assert verify(net.plan(clamped, masked=masked, init=init, steps=steps, optimizer=optimizer))


def test_errors_spread_and_states_move_as_by_hand():
    """Beside the path from x to the clamped y hang two free nodes, z and w: each step reaches one edge further."""
    graph = nx.DiGraph([("x", "h"), ("h", "y"), ("h", "z"), ("z", "w")])
    nx.set_node_attributes(graph, 2, "shape")
    plan = PCNetwork(graph).plan({"x", "y"}, init=Forward(), steps=9)
    assert verify(plan)

    def named(mask):
        return {plan.structure.nodes[i] for i in np.flatnonzero(mask)}

    everything = {"h", "y", "z", "w"}
    assert [named(plan.flow.error(t)) for t in range(10)] == [{"y"}, {"h", "y", "z"}, *[everything] * 8]
    assert [named(plan.flow.move(t)) for t in range(9)] == [{"h"}, {"h", "z"}, *[everything - {"y"}] * 7]


@pytest.mark.parametrize(("steps", "gflop"), [(2, 0.91), (3, 1.44), (5, 2.86), (7, 4.13)])
def test_the_products_of_the_papers_network(steps, gflop):
    """784-512x4-10, batch 200, forward initialization: the needed products alone, as counted by hand from the rule."""
    net = PCNetwork(pcgraph.graphs.chain(MLP))
    assert round(net.plan({"x", "y"}, init=Forward(), steps=steps).flops(200) / 1e9, 2) == gflop


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 9])
@pytest.mark.parametrize("init", [Zero(), Normal(), Forward()], ids=repr)
@pytest.mark.parametrize("kernel", ["dense", "batched"])
def test_what_runs_is_what_was_announced(steps, init, kernel):
    """Floating-point operations as torch counts them equal the plan's, weight gradients included."""
    net = chain(6, 8, 8, 8, 8, 3)
    pins = {b.name: kernel for b in net.structure.buckets}
    clamps = {"x": torch.randn(5, 6), "y": torch.randn(5, 3)}
    plan = net.plan(clamps, init=init, steps=steps, kernels=pins)
    with FlopCounterMode(display=False) as counter:
        net.infer(clamps, init=init, steps=steps, optimizer=SGD(0.1), kernels=pins).backward()
    assert counter.get_total_flops() == plan.flops(5)


RING = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
MODULES = {
    "convolution": ((2, 6, 6), lambda: T.Conv2d(2, 3, 3, stride=2, padding=1)),
    "convolution of the same size": ((2, 6, 6), lambda: T.Conv2d(2, 3, 3, padding="same")),
    "convolution around the edges": ((2, 6, 6), lambda: T.Conv2d(2, 3, 3, padding=1, padding_mode="circular")),
    "transposed convolution": ((2, 5, 5), lambda: T.ConvTranspose2d(2, 3, 4, stride=2, padding=1)),
    "convolution of torch": ((2, 9), lambda: nn.Conv1d(2, 4, 3)),
    "pooling": ((2, 6, 6), lambda: T.MaxPool2d(2)),
    "mask": ((6,), lambda: T.MaskedLinear(torch.ones(4, 6).tril())),
    "sequence": ((2, 6, 6), lambda: T.Sequence([T.Conv2d(2, 3, 3), T.Activate("gelu"), T.Conv2d(3, 2, 2)])),
    "linear inside": ((2, 6), lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 4))),
    "graph layer": ((4, 3), lambda: T.GraphLayer(SAGEConv(3, 2), RING)),
}


class Untracked:
    """In the place of what tells torch's counter which module an operation is of, and does not bear autograd.grad."""

    parents = frozenset({"Global"})

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def assert_counted(net, clamps, init):
    """Assert that torch counts as many products in a run and its gradients as the plan has announced."""
    plan = net.plan(clamps, init=init, steps=3)
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    with counter:
        net.infer(clamps, init=init, steps=3, optimizer=SGD(0.01)).backward()
    assert plan.uncounted == ()
    assert counter.get_total_flops() == plan.flops(5)
    assert "without" not in plan.explain()


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("init", [Normal(), Forward()], ids=["normal", "forward"])
@pytest.mark.parametrize("name", MODULES)
def test_what_modules_run_is_what_was_announced(name, init, trainable):
    """They were left out, and with them nearly all that a network of images computes."""
    shape, make = MODULES[name]
    graph = nx.DiGraph()
    graph.add_node("x", shape=shape)
    graph.add_node("h", shape=shape, activation="tanh")
    graph.add_node("m", shape=T.get(make()).output_shape(shape), activation="tanh")
    graph.add_node("y", shape=3)
    graph.add_edge("h", "m", transform=make(), trainable=trainable)
    graph.add_edges_from([("x", "h"), ("m", "y")])
    net = PCNetwork(graph, dtype=torch.float64)
    clamps = {v: torch.randn(5, *net.structure.shape(v), dtype=torch.float64) for v in ("x", "y")}
    assert_counted(net, clamps, init)


def attending() -> nx.DiGraph:
    """An attention in a cycle, with weights of its own on two of its edges, and a gate that is one parent twice."""
    graph = nx.DiGraph()
    for v in ("x", "q", "k", "v", "a", "g"):
        graph.add_node(v, shape=(3, 4), activation="tanh")
    graph.add_node("y", shape=2)
    graph.nodes["a"]["combine"], graph.nodes["g"]["combine"] = "attention", "gate"
    graph.add_edges_from([("x", "q"), ("x", "k"), ("x", "v"), ("g", "y")])
    graph.add_edge("q", "a", role="query", transform=nn.Linear(4, 4, bias=False))
    graph.add_edge("k", "a", role="key", scale=0.5)
    graph.add_edge("v", "a", role="value", transform=nn.Linear(4, 4, bias=False), activation="sigmoid")
    graph.add_edge("a", "g", role=("gate", "value"))
    return graph


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("init", [Normal(), Forward()], ids=["normal", "forward"])
@pytest.mark.parametrize(
    "make",
    [attending, lambda: pcgraph.graphs.transformer(5, 4, width=8)],
    ids=["attention", "transformer"],
)
def test_what_joint_predictions_run_is_what_was_announced(make, init, frozen):
    """A transformer's attention was left out, and explain() said so."""
    net = PCNetwork(make(), dtype=torch.float64)
    clamps = {v: torch.randn(5, *net.structure.shape(v), dtype=torch.float64) for v in ("x", "y")}
    if net.structure.tokens:
        clamps["x"] = torch.arange(20).reshape(5, 4) % 5
    if frozen:
        for module in net.edge_modules.values():
            module.requires_grad_(False)
    assert_counted(net, clamps, init)


def test_a_combine_that_needs_data_is_named_as_not_counted():
    class Deciding(nn.Module):
        def forward(self, one):
            return one if bool(one.sum() > 0) else 2 * one

    graph = pcgraph.graphs.chain([3, 3])
    graph.nodes["y"]["combine"], graph.edges["x", "y"]["role"] = Deciding(), "one"
    plan = PCNetwork(graph).plan({"x", "y"}, init=Forward(), steps=2)
    assert plan.uncounted == ("joint_3_to_3",)
    assert "without the modules of joint_3_to_3" in plan.explain()


def test_the_groups_of_a_convolution_are_apart():
    """2 x 7 x 7 x 9 entries of each of 3 groups' 2 x 2 channels: as many forward, back, and for the weights."""
    found = products_of(T.Conv2d(6, 6, 3, padding=1, groups=3), (6, 7, 7), (6, 7, 7), 4)
    assert found == Products(*[4 * 2 * 7 * 7 * 9 * 3 * 4] * 3)


def test_a_module_that_needs_data_is_named_as_not_counted():
    """Its products are unknown before it runs; a sum without them must not pass for the whole."""

    class Deciding(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else super().forward(-x)

    graph = pcgraph.graphs.chain([4, 4, 3])
    graph.edges["x", "h1"]["transform"] = Deciding(4, 4)
    plan = PCNetwork(graph).plan({"x", "y"}, init=Forward(), steps=2)
    assert plan.uncounted == ("module_4_to_4",)
    assert plan.explain().endswith("MFLOP a sample, without the modules of module_4_to_4")
    assert plan.flops(1) == 6 * 2 * 12, "h1 -> y: forward before and after each step, back in each, and its weights"


class Refuses(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        if x.device.type == "meta":
            raise self.error("not without data")
        return x


@pytest.mark.parametrize("error", [AssertionError, IndexError, KeyError, AttributeError, RuntimeError])
def test_whatever_a_module_raises_without_data_it_is_not_counted(error):
    """print(plan.explain()) is for people, and must not fail by a module that inference runs."""
    graph = pcgraph.graphs.chain([4, 4, 3])
    graph.edges["x", "h1"]["transform"] = Refuses(error)
    plan = PCNetwork(graph).plan({"x", "y"}, init=Forward(), steps=2)
    assert plan.uncounted == ("module_4_to_4",)
    assert "without the modules of module_4_to_4" in plan.explain()
    assert plan.memory(2) > 0


class Caches(nn.Linear):
    """Keeps a tensor for as long as the batch has one size."""

    scale = None

    def forward(self, x):
        if self.scale is None or len(self.scale) != len(x):
            self.scale = torch.full((len(x), 1), 0.5, dtype=x.dtype, device=x.device)
        return super().forward(x) * self.scale


@pytest.mark.parametrize("ask", [lambda plan: plan.flops(5), lambda plan: plan.memory(5), lambda plan: plan.explain()])
def test_counting_leaves_nothing_behind_in_a_module(ask):
    """A plan that is looked at must not change what runs after it."""
    graph = pcgraph.graphs.chain([4, 4, 3])
    graph.edges["x", "h1"]["transform"] = Caches(4, 4)
    net = PCNetwork(graph)
    for batch in (1, 5):
        ask(net.plan({"x", "y"}, init=Forward(), steps=2))
        clamps = {"x": torch.ones(batch, 4), "y": torch.ones(batch, 3)}
        net.infer(clamps, init=Forward(), steps=2, optimizer=SGD(0.1)).backward()


def test_a_plan_for_a_thousand_steps_is_as_short_as_one_for_ten():
    """Distinct steps are a prologue; then one repeats."""
    net = chain(6, 8, 8, 8, 8, 3)
    ten, thousand = (net.plan({"x", "y"}, init=Forward(), steps=t) for t in (10, 1000))
    assert len(ten.stages) == len(thousand.stages) == 5
    assert thousand.matmuls.backward > 90 * ten.matmuls.backward
    assert verify(thousand)


@pytest.mark.parametrize("coordinates", [None, Errors()], ids=repr)
def test_explaining_costs_no_more_for_a_million_steps(monkeypatch, coordinates):
    """Who tries a large T first looks at the plan, and must not wait for it as for the run."""
    tick, ticks, spent, texts = smm._Clock.tick, [], [], []
    monkeypatch.setattr(smm._Clock, "tick", lambda self, op: (ticks.append(op), tick(self, op)))
    net = chain(6, 8, 8, 8, 8, 3)
    for steps in (100, 1_000_000):
        plan = net.plan({"x", "y"}, init=Forward(), steps=steps, coordinates=coordinates)
        ticks.clear()
        texts.append(plan.explain())
        spent.append(len(ticks))
        assert f"to {steps - 1}: " in texts[-1]  # what repeats is one line
    assert spent[0] == spent[1] < 200
    assert texts[0].count("\n") == texts[1].count("\n")


@settings(max_examples=60, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=8, max_size=2, parallel=True, priors=True)),
    init=st.sampled_from([Zero(), Forward(fallback=Zero())]),
    steps=st.integers(1, 40),
    coordinates=st.sampled_from([None, Errors(keep="repair")]),
    optimizer=st.sampled_from([SGD(0.1), Adam(0.1)]),
)
def test_the_critical_path_is_that_of_every_single_step(problem, init, steps, coordinates, optimizer):
    """What goes on for ever is found early, and is the same as if each step had been walked through."""
    net = PCNetwork(problem.graph)
    plan = net.plan(problem.clamped, init=init, steps=steps, coordinates=coordinates, optimizer=optimizer)
    clock = smm._Clock(plan)
    for _, _, operation in plan.timeline():
        clock.tick(operation)
    assert plan.smm.critical_path == clock.latest(plan.final.compare.nodes)


def test_a_clamped_sources_prediction_is_computed_once():
    """Every inference step after the first must leave x -> h1 alone."""
    net = chain(6, 8, 8, 3)
    plan = net.plan({"x", "y"}, init=Zero(), steps=50)
    first = net.structure.edge_number("x", "h1")
    assert all(first not in stage.propagate.edges for stage in (*plan.stages, plan.final))
    calls = lower(plan, net.backend.kernels(plan, net), traits_of("cpu"))
    sent = [call for stage in (*calls.stages, calls.final) for call in stage.forward if isinstance(call, Send)]
    assert sent
    assert all(first not in numbers(call.edges) for call in sent)


def test_momentum_and_adam_lose_nothing_and_unknown_optimizers_skip_nothing():
    """The promises decide: with them the same sets as plain SGD, without them every state moves at once."""

    class Mine(pcgraph.optimizers.StateOptimizer):
        def step(self, state, grad, memory):
            state.sub_(grad, alpha=memory["lr"])

    net = chain(6, 8, 8, 8, 8, 3)
    plain, adam, mine = (
        net.plan({"x", "y"}, init=Forward(), steps=3, optimizer=o) for o in (SGD(0.1), Adam(0.1), Mine(0.1))
    )
    assert plain.matmuls == adam.matmuls
    assert mine.matmuls.total > plain.matmuls.total
    assert mine.flow.moves[0].sum() == 4
    assert plain.flow.moves[0].sum() == 1


def test_kernels_are_chosen_by_the_written_rule():
    """Large edges alone, small ones batched, scalars as CSR; on a GPU equal edges are batched at any size."""

    def kernels(net, clamped):
        return sorted(k.name for k in net.backend.kernels(net.plan(clamped, init=Zero(), steps=1), net))

    assert set(kernels(PCNetwork(pcgraph.graphs.chain(MLP)), {"x", "y"})) == {"dense"}
    assert kernels(chain(6, 8, 8, 8, 3), {"x", "y"}) == ["batched", "dense", "dense"]
    scalars = nx.complete_graph(8, nx.DiGraph)
    nx.set_node_attributes(scalars, 1, "shape")
    assert kernels(PCNetwork(scalars), {0}) == ["sparse"]
    net = PCNetwork(pcgraph.graphs.chain(MLP))
    equal = next(b for b in net.structure.buckets if b.count == 3)
    assert choose(net.structure, equal, traits_of("cuda")).name == "batched"
    with pytest.raises(ConfigError, match="did you mean 'batched'"):
        net.plan({"x"}, init=Zero(), steps=1, kernels={equal.name: "batchd"})
    with pytest.raises(ConfigError, match="one neuron to one neuron"):
        net.plan({"x"}, init=Zero(), steps=1, kernels={equal.name: "sparse"})


def test_explain_says_what_is_done():
    """The text names kernels, steps and products, for a person."""
    text = PCNetwork(pcgraph.graphs.chain(MLP)).plan({"x", "y"}, init=Forward(), steps=3).explain()
    for part in ("linear_512_to_512: 3 edges, dense", "step 0: 0 forward and 1 backward products, 1 state moves",
                 "weight gradients: 4 products", "11 by the paper's count"):  # fmt: skip
        assert part in text


# -- sequential matrix multiplications --------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
@pytest.mark.parametrize("layers", [2, 3, 5])
def test_smm_of_chains_is_equation_5_and_6(layers, steps):
    """2T for the steps, L more for a forward sweep, m for a sweep of m layers, nothing for means, 3 for a memory."""
    net = chain(*[4] * (layers + 1))
    both = {"x", "y"}
    assert net.plan(both, init=Zero(), steps=steps).smm.paper == 2 * steps
    assert net.plan(both, init=Forward(), steps=steps).smm.paper == 2 * steps + layers
    memory = Memory(net, patterns=2, heads=1, embed_dim=2)
    memory._fitted = True
    assert net.plan(both, init=memory, steps=steps).smm.paper == 2 * steps + 3
    data = {"x": torch.randn(4, 4), "y": torch.eye(4)}
    for m in range(layers - 1):
        average = Average(forward_depth=m)
        net.infer(data, init=average, steps=1, optimizer=SGD(0.1)).backward()
        assert net.plan(both, init=average, steps=steps).smm.paper == 2 * steps + m


def test_the_critical_path_counted_by_hand():
    """Each line is a path of products, each of which waits for the one before."""
    net = chain(4, 4, 4, 4)
    both = {"x", "y"}
    # x h1 h2 y swept: 3 products. Step 0: y pulls h2. Then once a step: h2 predicts y, y pulls h2. At the end: h2 -> y.
    assert net.plan(both, init=Forward(), steps=0).smm.critical_path == 3
    assert net.plan(both, init=Forward(), steps=1).smm.critical_path == 3 + 1 + 1
    assert net.plan(both, init=Forward(), steps=4).smm.critical_path == 3 + 2 * 4
    # From zero: x -> h1 is the only source that is not zero, and x does not move, so that nobody waits for h1's error
    # before the first move. Pull and predict, step by step.
    assert net.plan(both, init=Zero(), steps=0).smm.critical_path == 1
    assert net.plan(both, init=Zero(), steps=3).smm.critical_path == 2 * 3
    # A skip edge x -> y shortens nothing: the sweep through h1, h2 is the longest.
    graph = pcgraph.graphs.chain([4, 4, 4, 4])
    graph.add_edge("x", "y")
    skip = PCNetwork(graph).plan(both, init=Forward(), steps=2).smm
    assert (skip.paper, skip.critical_path) == (2 * 2 + 3, 3 + 2 * 2)
    # Identity edges multiply nothing.
    graph.edges["h1", "h2"]["transform"] = "identity"
    assert PCNetwork(graph).plan(both, init=Forward(), steps=2).smm.critical_path == 2 + 2 * 2


def test_smm_of_figure_9_and_a_cycle():
    """Top: 0 1 2 4 5, with 5 clamped: four products to sweep. Bottom: its cycle is not swept.

    From zero, 1 has an error after the product 0 -> 1; pulling it back to 3 is the second before the first move.
    """
    top = PCNetwork(pcgraph.graphs.figure_9("top"))
    smm = top.plan({0, 5}, init=Forward(), steps=3).smm
    assert (smm.paper, smm.critical_path) == (2 * 3 + 4, 4 + 2 * 3)
    bottom = PCNetwork(pcgraph.graphs.figure_9("bottom"))
    smm = bottom.plan({0, 5}, init=Forward(fallback=Zero()), steps=3).smm
    assert (smm.paper, smm.critical_path) == (2 * 3, 1 + 2 * 3)
    loop = nx.DiGraph([("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")])
    nx.set_node_attributes(loop, 3, "shape")
    smm = PCNetwork(loop).plan({"x", "y"}, init=Normal(), steps=3).smm
    assert (smm.paper, smm.critical_path) == (2 * 3, 1 + 2 * 3)


def test_memory_is_foreseen():
    """The estimate covers the buffers that a run makes, and is not wildly more."""
    net = PCNetwork(pcgraph.graphs.chain(MLP))
    plan = net.plan({"x", "y"}, init=Forward(), steps=3)
    buffers = 200 * (784 + 5 * (4 * 512 + 10))
    parameters = sum(p.numel() for p in net.parameters())
    assert 4 * (buffers + parameters) <= plan.memory(200) <= 1.3 * 4 * (buffers + parameters + 200 * 4 * 784)


def test_memory_of_modules_is_foreseen_in_either_precision():
    """What a module keeps is counted in numbers: a network in float64 has as many of them as one in float32."""

    def foreseen(dtype):
        graph = nx.DiGraph([("x", "y")])
        graph.add_node("x", shape=(3, 8, 8))
        graph.add_node("y", shape=(16, 6, 6))
        graph.edges["x", "y"]["transform"] = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Tanh())
        return PCNetwork(graph, dtype=dtype).plan({"x", "y"}, init=Forward(), steps=3).memory(10)

    assert foreseen(torch.float64) == foreseen(torch.float32)


class Allocations(TorchDispatchMode):
    """Counts results that lie in memory which none of the arguments had."""

    def __init__(self):
        super().__init__()
        self.count = 0

    @staticmethod
    def dense(values):
        return [t for t in tree_leaves(values) if isinstance(t, torch.Tensor) and t.layout == torch.strided]

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        known = {t.untyped_storage().data_ptr() for t in self.dense((arguments, keywords))}
        fresh = self.dense(result)
        self.count += any(t.untyped_storage().data_ptr() not in known and t.numel() > 1 for t in fresh)
        return result


def groups_net():
    return PCNetwork(pcgraph.graphs.random_groups(12, 8, 3, seed=0))


@pytest.mark.parametrize("make", [lambda: chain(6, 8, 8, 8, 8, 6), groups_net], ids=["chain", "groups"])
@pytest.mark.parametrize("kernel", ["dense", "batched"])
@pytest.mark.parametrize("optimizer", [SGD(0.01), SGD(0.01, 0.9), Adam(0.01)], ids=repr)
def test_a_step_allocates_nothing(make, kernel, optimizer):
    """Thirty steps more make no tensor more: memory does not grow with T, and no time goes into finding it."""
    net = make()
    pins = {b.name: kernel for b in net.structure.buckets}
    clamps = {v: torch.randn(5, *net.structure.shape(v)) for v in ("x", "y")}
    counts = []
    for steps in (10, 40):
        kw = {"init": Forward(fallback=Zero()), "steps": steps, "optimizer": optimizer, "kernels": pins}
        net.infer(clamps, **kw)
        with Allocations() as mode:
            net.infer(clamps, **kw)
        counts.append(mode.count)
    assert counts[0] == counts[1]


class _Counted:
    """numpy, with the elements of all arrays that go through its functions counted."""

    def __init__(self):
        self.elements = 0

    def __getattr__(self, name):
        function = getattr(np, name)
        if isinstance(function, type | np.ufunc) or not callable(function):
            return function

        def counted(*arguments, **keywords):
            result = function(*arguments, **keywords)
            self.elements += sum(a.size for a in (*arguments, result) if isinstance(a, np.ndarray))
            return result

        return counted


@pytest.mark.parametrize("span", [None, 2])
def test_the_work_of_compiling_grows_with_the_depth_and_not_with_its_square(monkeypatch, span):
    """A sweep has as many waves as a chain has groups: one look at all groups a wave makes deep graphs unusable."""
    work = []
    for depth in (200, 1600):
        sizes = [4] * depth
        net = PCNetwork(pcgraph.graphs.chain(sizes) if span is None else pcgraph.graphs.skip(sizes, span=span))
        counted = _Counted()
        for module in (compiling, lowering, adjacency):
            monkeypatch.setattr(module, "np", counted)
        plan = net.plan({"x", "y"}, init=Forward(), steps=3)
        lower(plan, net.backend.kernels(plan, net), traits_of("cpu"))
        monkeypatch.undo()
        assert plan.waves == depth - 2
        work.append(counted.elements)
    assert 6 * work[0] < work[1] < 10 * work[0]
