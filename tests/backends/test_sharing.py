"""Plans of one network run on the same buffers and share what is bound to them: none may notice another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import pcgraph
from pcgraph import (
    LBFGS,
    SGD,
    Adam,
    Equilibrium,
    Errors,
    Forward,
    InferenceResult,
    Initializer,
    Masked,
    Normal,
    PCNetwork,
    Zero,
)
from pcgraph.backends import traits
from pcgraph.backends.torch import onednn, workspace
from pcgraph.errors import Diverged
from pcgraph.optimizers import StateOptimizer
from pcgraph.testing.strategies import digraphs, problems
from pcgraph.transforms import SparseLinear
from tests.builders import chain, double

BATCH = 2


# -- one run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """All that makes a plan, and a seed for what is given: nodes are named by their places in the declaration."""

    known: frozenset[int]
    partly: frozenset[int]
    init: str
    steps: int
    optimizer: StateOptimizer
    kernel: str | None
    coordinates: Errors | None
    tolerance: float | None
    trace: bool
    seed: int

    def clamps(self, net: PCNetwork, factor: float = 1.0) -> dict[Any, Any]:
        """At least one node is known wholly, since that says how many samples there are."""
        nodes = list(net.graph)
        values = [factor * double(BATCH, *net.structure.shape(v), seed=self.seed + i) for i, v in enumerate(nodes)]
        whole = {i % len(nodes) for i in self.known} or {0}
        partly = {i % len(nodes) for i in self.partly if self.coordinates is None} - whole
        return {nodes[i]: Masked(values[i], values[i] > 0) if i in partly else values[i] for i in whole | partly}

    def initializer(self, net: PCNetwork) -> Initializer:
        """A new one every time: those that lay out the same share a plan."""
        if self.init == "states":
            shapes = {v: net.structure.shape(v) for v in net.graph}
            return net.carry_on({v: double(BATCH, *shapes[v], seed=-self.seed - i) for i, v in enumerate(shapes)})
        if self.init == "equilibrium":
            return Equilibrium(release=list(self.clamps(net))[1:], steps=3)
        return {
            "zero": lambda: Zero(), "normal": lambda: Normal(std=0.3),
            "forward": lambda: Forward(fallback=Zero()),
            "from draws": lambda: Forward(roots=Normal(), fallback=Normal()),
        }[self.init]()  # fmt: skip

    def kernels(self, net: PCNetwork) -> dict[str, str]:
        """The kernel for every bucket that can have it."""
        groups = net.structure.groups
        linear = [b for b in net.structure.buckets if b.kind == "linear"]
        if self.kernel == "sparse":  # which torch has for as many entries as a matrix has places
            ends = [(groups[b.source_group], groups[b.target_group]) for b in linear]
            linear = [b for b, (a, z) in zip(linear, ends) if a.size == z.size == 1 and b.count <= a.count * z.count]
        return {} if self.kernel is None else {b.name: self.kernel for b in linear}

    def on(self, net: PCNetwork, factor: float = 1.0, *, check: bool = True) -> InferenceResult:
        """Run it, with values so many times as large."""
        return net.infer(
            self.clamps(net, factor), init=self.initializer(net), steps=self.steps, optimizer=self.optimizer,
            trace=self.trace, kernels=self.kernels(net), check=check, coordinates=self.coordinates,
            tolerance=self.tolerance,
        )  # fmt: skip


RUNS = st.builds(
    Run,
    known=st.frozensets(st.integers(0, 7), max_size=4),
    partly=st.frozensets(st.integers(0, 7), max_size=1),
    init=st.sampled_from(["zero", "normal", "forward", "from draws", "states", "equilibrium"]),
    steps=st.integers(0, 5),
    optimizer=st.sampled_from([SGD(0.07), SGD({0: 0.1, None: 0.03}), SGD(0.05, 0.8), Adam(0.02), LBFGS()]),
    kernel=st.sampled_from([None, "dense", "batched", "sparse"]),
    coordinates=st.sampled_from([None, None, Errors(keep="repair")]),
    tolerance=st.sampled_from([None, None, 0.3, 1e9]),
    trace=st.booleans(),
    seed=st.integers(0, 100),
)


# -- what is compared -------------------------------------------------------------------------------------------------


def seen(result: InferenceResult) -> dict[str, torch.Tensor]:
    """All that can be asked of a result."""
    once = {name: getattr(result, name) for name in ("energy", "trace", "steps", "converged", "failed")}
    found = {name: x for name, x in once.items() if x is not None}
    kinds = {"h": result.states, "mu": result.predictions, "e": result.errors, "E": result.node_energy}
    return {**found, **{f"{kind} of {v}": x for kind, values in kinds.items() for v, x in values.items()}}


def learned(net: PCNetwork, result: InferenceResult) -> dict[str, torch.Tensor]:
    """The gradients that a result gives."""
    net.zero_grad()
    result.accumulate()
    return {name: p.grad.clone() for name, p in net.named_parameters()}


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")


# -- one after the other ----------------------------------------------------------------------------------------------


def star(size: int) -> nx.DiGraph:
    """A node that predicts forty others of its shape."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["x", "u", *range(40)], shape=size, activation="tanh")
    graph.add_edges_from([("x", "u"), *(("u", i) for i in range(40))])
    return graph


def ladders(size: int) -> nx.DiGraph:
    """Two chains of like nodes behind one input, in which every second node is skipped as well."""
    graph = nx.DiGraph()
    for side in (1, 2):
        names = ["x", *(f"h{i} of {side}" for i in range(6)), f"y{side}"]
        graph.add_nodes_from(names, shape=size, activation="tanh")
        graph.add_edges_from([*zip(names, names[1:]), *zip(names[1:], names[3:])])
    return graph


LEAVES, TENTH, ODD, EVEN = (
    ["x", *chosen] for chosen in (range(40), range(0, 40, 10), range(1, 40, 2), range(0, 40, 2))
)
ONE, TWO = ["x", "y1"], ["x", "y1", "y2"]
#: Two runs of one network: (known nodes, initializer, steps, rate, kernel) of each.
PAIRS = {
    "signals that stay zero": (
        star, (LEAVES, Zero(), 3, 0.05), (["x", *(i for i in range(40) if i % 10)], Forward(), 0, 0.05)
    ),
    "signals that come late": (star, (TENTH, Zero(), 3, 0.05), ([*LEAVES[:20], *LEAVES[21:]], Forward(), 3, 0.05)),
    "other rows of the same number": (star, (ODD, Forward(), 2, 0.05), (EVEN, Forward(), 2, 0.05)),
    "another rate": (star, (LEAVES, Forward(), 3, 0.05), (LEAVES, Forward(), 3, 0.01)),
    "another kernel": (star, (LEAVES, Forward(), 3, 0.05, "dense"), (LEAVES, Forward(), 3, 0.05, "batched")),
    "more steps": (ladders, (ONE, Forward(), 3, 0.05), (ONE, Forward(), 5, 0.05)),
    "more is kept": (ladders, (ONE, Forward(), 5, 0.05, "dense"), (TWO, Forward(), 5, 0.05, "dense")),
    "less is kept": (ladders, (TWO, Forward(), 5, 0.05, "dense"), (ONE, Forward(), 5, 0.05, "dense")),
}  # fmt: skip


def computed(
    net: PCNetwork, known: list[Any], init: Initializer, steps: int, rate: float, kernel: str | None = None
) -> dict[str, torch.Tensor]:
    """All that a run computes."""
    clamps = {v: double(3, *net.structure.shape(v), seed=net.structure.number[v]).to(net.dtype) for v in known}
    pins = {} if kernel is None else {b.name: kernel for b in net.structure.buckets}
    result = net.infer(clamps, init=init, steps=steps, optimizer=SGD(rate), kernels=pins)
    return {**seen(result), **learned(net, result)}


def move(net: PCNetwork) -> None:
    """Give the network other weights, in their places."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(-0.9)


@pytest.mark.parametrize("size", [4, 1])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_second_run_is_as_if_it_were_the_first(pair, size):
    """The weights have moved in between, and what both plans have in common is bound once."""
    make, first, second = PAIRS[pair]
    net, fresh = (PCNetwork(make(size), seed=1, dtype=torch.float64) for _ in range(2))
    computed(net, *first)
    move(net)
    move(fresh)
    assert_same_bits(computed(net, *second), computed(fresh, *second))


class Started(TorchDispatchMode):
    """Counts torch's operations by name."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.names[function.name()] += 1
        return function(*arguments, **(keywords or {}))


def started(work: Callable[[], object]) -> Counter[str]:
    """What is started by some work that was done before, so that nothing is bound any more."""
    work()
    with Started() as found:
        work()
    return found.names


@pytest.mark.parametrize("order", [("dense", "batched"), ("batched", "dense")])
def test_a_pin_is_obeyed_whatever_ran_before(order):
    """One edge alone is the same call for either kernel, and must not be computed by the other one's."""
    net, fresh = (PCNetwork(pcgraph.graphs.chain([4, 4, 3, 2]), seed=1, dtype=torch.float64) for _ in range(2))
    first, second = ((["x", "y"], Zero(), 3, 0.05, kernel) for kernel in order)
    computed(net, *first)
    assert started(lambda: computed(net, *second)) == started(lambda: computed(fresh, *second))
    assert started(lambda: computed(net, *second)) != started(lambda: computed(net, *first))


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN")
def test_a_prediction_is_torchs_own_after_an_inference_by_onednn(monkeypatch):
    """A sweep of the whole graph and one for a prediction are the same calls, by different libraries."""
    monkeypatch.setattr(traits, "CPU", replace(traits.CPU, onednn_product=1))
    monkeypatch.setattr(onednn, "_is_faster", lambda: True)
    net = PCNetwork(pcgraph.graphs.chain([5, 4, 3], activation="tanh"), seed=1)
    clamps = {"x": double(2, 5).float()}

    def by_onednn(work):
        return any("linear_pointwise" in name for name in started(work))

    for _ in range(2):
        assert by_onednn(lambda: net.infer(clamps, init=Forward(), steps=0))
        assert not by_onednn(lambda: net.predict(clamps, "y"))


@pytest.fixture
def bound(monkeypatch) -> list[type]:
    """What is bound from here on."""
    found: list[type] = []

    class Counted(workspace.Bound):
        def __init__(self, run, *rest):
            super().__init__(run, *rest)
            found.append(type(run))

    monkeypatch.setattr(workspace, "Bound", Counted)
    return found


def test_a_prediction_beside_an_inference_binds_what_it_alone_does(bound):
    """The sweep is the same; only the state of y is new, which was clamped."""
    net = chain(*[4] * 12, dtype=torch.float64)
    clamps = {"x": double(3, 4), "y": double(3, 4, seed=1)}
    net.infer(clamps, init=Forward(), steps=20, optimizer=SGD(0.05))
    before = len(bound)
    net.predict({"x": clamps["x"]}, "y")
    assert before > 40
    assert len(bound) - before == 1


def test_plans_lie_in_the_same_buffers_and_bind_what_they_share_once(bound):
    """Memory does not grow with the number of plans, and a plan of more steps has nothing to bind."""
    net = PCNetwork(ladders(4), seed=1, dtype=torch.float64)
    clamps, kw = {v: double(3, 4) for v in TWO}, {"init": Forward(), "optimizer": SGD(0.05)}
    places, counts = set(), []
    for steps in (9, 10, 200, 0):
        result = net.infer(clamps, steps=steps, **kw)
        places.add(result.peek("h3 of 1").data_ptr())
        counts.append(len(bound))
        del result
    assert len(places) == 1
    assert counts[0] == counts[1] == counts[2] > 20


# -- in any order -----------------------------------------------------------------------------------------------------


def decorated(graph: nx.DiGraph, kind: str) -> nx.DiGraph:
    """The declaration with more on its edges, and precisions on its nodes."""
    graph = graph.copy()
    for i, v in enumerate(graph):
        graph.nodes[v]["precision"] = 0.5 + i
    for i, (u, v, data) in enumerate(graph.edges(data=True)):
        shapes = graph.nodes[u]["shape"], graph.nodes[v]["shape"]
        if kind == "shared":
            data["share"] = str(shapes)
        elif kind == "curved":
            data["activation"] = ("sigmoid", "tanh", "identity")[i % 3]
        elif kind == "stored entries":
            data["transform"] = SparseLinear(density=0.6)
        elif kind == "modules" and i % 2:
            data["transform"] = torch.nn.Sequential(torch.nn.Linear(*shapes), torch.nn.Tanh())
    return graph


def happen(what: str, net: PCNetwork, run: Run, kept: list[Any]) -> None:
    """Let something happen to a network."""
    whole = {v: h for v, h in run.clamps(net).items() if not isinstance(h, Masked)}
    free = [v for v in net.graph if v not in whole][-1:]
    if what == "what was kept is dropped":
        kept.clear()
    elif what == "another dtype":
        net.float().double()
    elif what == "another batch":
        net.infer({v: torch.cat([h, h]) for v, h in whole.items()}, init=Zero(), steps=2, optimizer=SGD(0.1))
    elif what == "predict":
        for v in free:
            with suppress(pcgraph.InvalidInitializer):
                net.predict(whole, v)
    elif what == "nudge":
        for v in free:
            target = double(BATCH, *net.structure.shape(v))
            pcgraph.learning.nudged(net, whole, {v: target}, init=Zero(), steps=2, optimizer=SGD(0.05))
    elif what == "diverge":
        with suppress(Diverged):
            replace(run, optimizer=SGD(1e100), steps=3).on(net, 1e200)
    elif what == "not a number":
        run.on(net, float("nan"), check=False).accumulate()


def fan(size: int, leaves: int, loop: bool) -> nx.DiGraph:
    """A small star, for what is done to neighbours between those that are needed."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(leaves + 2), shape=size, activation="tanh")
    graph.add_edges_from([(0, 1), *((1, i) for i in range(2, leaves + 2)), *([(1, 1)] if loop else [])])
    return graph


GRAPHS = st.one_of(
    *(digraphs(max_nodes=8, max_size=size, parallel=True, priors=True) for size in (1, 2)),
    st.builds(fan, st.integers(1, 2), st.integers(3, 6), st.booleans()),
)
#: What may happen after a run.
AFTER = st.sampled_from(
    ["nothing", "keep", "what was kept is dropped", "another dtype", "another batch", "predict", "nudge", "diverge",
     "not a number"]
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    problem=problems(graphs=GRAPHS),
    kind=st.sampled_from(["plain", "shared", "curved", "stored entries", "modules"]),
    runs=st.lists(RUNS, min_size=2, max_size=3),
    story=st.lists(st.tuples(st.integers(0, 2), AFTER), min_size=2, max_size=6),
    small=st.booleans(),
)
def test_a_run_leaves_nothing_behind(problem, kind, runs, story, small):
    """A network that has run other plans, has been asked and has diverged computes what a fresh one would, bit by bit.

    Where `small`, what a device does to many rows and edges is done to few: they are widened, gathered, stacked.
    """
    graph = decorated(problem.graph, kind)

    def network() -> PCNetwork:
        return PCNetwork(graph, seed=problem.seed, dtype=torch.float64)

    with pytest.MonkeyPatch.context() as patch:
        if small:
            few = replace(traits.CPU, widen=3.0, pieces=1, lasting_slope=1, few_clamps=1, spare_rows=1)
            patch.setattr(traits, "CPU", few)
        net, kept = network(), []
        for which, after in story:
            run, fresh = runs[which % len(runs)], network()
            move(net)
            fresh.load_state_dict(net.state_dict())
            result, alone = run.on(net), run.on(fresh)
            expected = seen(alone)
            assert_same_bits(seen(result), expected)
            assert_same_bits(learned(net, result), learned(fresh, alone))
            if after == "keep":
                kept.append((result, expected))
            del result
            happen(after, net, run, kept)
        for result, expected in kept:
            assert_same_bits(seen(result), expected)


@pytest.mark.parametrize("least", [0, 50, 2**14], ids=["alone", "one of them alone", "together"])
def test_clamps_are_copied_together_or_alone(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    monkeypatch.setattr(traits, "CPU", replace(traits.CPU, small_clamp=least))
    net = PCNetwork(pcgraph.graphs.chain([12, 6, 4]), seed=0)
    clamps = {"x": torch.randn(5, 12), "y": torch.randn(5, 4)}
    for some in (clamps, {"x": clamps["x"]}):
        result = net.infer(some, init=pcgraph.Forward(), steps=0)
        for node, value in some.items():
            assert torch.equal(result.states[node], value)
