"""Plans of one network run on the same buffers and share what is bound to them: none may notice another."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import SGD, Adam, Equilibrium, Forward, InferenceResult, Initializer, Masked, Normal, PCNetwork, Zero
from pcgraph.backends import traits
from pcgraph.errors import Diverged
from pcgraph.optimizers import StateOptimizer
from pcgraph.testing.strategies import digraphs, problems
from pcgraph.transforms import SparseLinear
from tests.builders import double

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
    trace: bool
    seed: int

    def clamps(self, net: PCNetwork, factor: float = 1.0) -> dict[Any, Any]:
        """At least one node is known wholly, since that says how many samples there are."""
        nodes = list(net.graph)
        values = [factor * double(BATCH, *net.structure.shape(v), seed=self.seed + i) for i, v in enumerate(nodes)]
        whole = {i % len(nodes) for i in self.known} or {0}
        partly = {i % len(nodes) for i in self.partly} - whole
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
        s = net.structure
        scalar = {b.name for b in s.buckets if s.groups[b.source_group].size == s.groups[b.target_group].size == 1}
        names = [b.name for b in s.buckets if b.kind == "linear" and (self.kernel != "sparse" or b.name in scalar)]
        return {} if self.kernel is None else dict.fromkeys(names, self.kernel)

    def on(self, net: PCNetwork, factor: float = 1.0, *, check: bool = True) -> InferenceResult:
        """Run it, with values so many times as large."""
        return net.infer(
            self.clamps(net, factor), init=self.initializer(net), steps=self.steps, optimizer=self.optimizer,
            trace=self.trace, kernels=self.kernels(net), check=check,
        )  # fmt: skip


RUNS = st.builds(
    Run,
    known=st.frozensets(st.integers(0, 7), max_size=4),
    partly=st.frozensets(st.integers(0, 7), max_size=1),
    init=st.sampled_from(["zero", "normal", "forward", "from draws", "states", "equilibrium"]),
    steps=st.integers(0, 5),
    optimizer=st.sampled_from([SGD(0.07), SGD({1: 0.1, 2: 0.01, None: 0.03}), SGD(0.05, 0.8), Adam(0.02)]),
    kernel=st.sampled_from([None, "dense", "batched", "sparse"]),
    trace=st.booleans(),
    seed=st.integers(0, 100),
)


# -- what is compared -------------------------------------------------------------------------------------------------


def seen(result: InferenceResult) -> dict[str, torch.Tensor]:
    """All that can be asked of a result."""
    found = {"energy": result.energy} if result.trace is None else {"energy": result.energy, "trace": result.trace}
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
    if what == "what was kept is dropped":
        kept.clear()
    elif what == "other weights":
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(-0.7)
    elif what == "predict":
        clamps = {v: h for v, h in run.clamps(net).items() if not isinstance(h, Masked)}
        for v in [v for v in net.graph if v not in clamps][-1:]:
            with suppress(pcgraph.InvalidInitializer):
                net.predict(clamps, v)
    elif what == "diverge":
        with suppress(Diverged):
            replace(run, optimizer=SGD(1e100), steps=3).on(net, 1e200)
    elif what == "not a number":
        run.on(net, float("nan"), check=False).accumulate()


#: What may happen after a run.
AFTER = st.sampled_from(
    ["nothing", "keep", "what was kept is dropped", "other weights", "predict", "diverge", "not a number"]
)


@settings(max_examples=100, deadline=None)
@given(
    problem=problems(graphs=digraphs(max_nodes=8, max_size=2, parallel=True, priors=True)),
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
            few = replace(traits.CPU, widen=3.0, pieces=1, lasting_slope=1, few_clamps=1, scalar_edges=1, spare_rows=1)
            patch.setattr(traits, "CPU", few)
        net, kept = network(), []
        for which, after in story:
            run, fresh = runs[which % len(runs)], network()
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
