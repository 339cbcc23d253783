"""Inference over the ranks on many networks, each held against the same network in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

import pcgraph
from pcgraph import (
    LBFGS,
    SGD,
    Adam,
    Amortized,
    Anderson,
    Average,
    Duals,
    Equilibrium,
    Errors,
    Following,
    Forward,
    Langevin,
    Masked,
    Memory,
    Momentum,
    Normal,
    Null,
    PCNetwork,
    PerNode,
    Trace,
    Zero,
)
from pcgraph.plan import verify
from pcgraph.processes import Group
from pcgraph.testing.strategies import Problem, digraphs, problems

EXACT = {"rtol": 1e-12, "atol": 1e-13}
Kind = Callable[[PCNetwork, Problem], dict[str, Any]]


def observed(problem: Problem) -> list[Any]:
    """Name what is known wholly: initializers that start from something read it."""
    return [v for v in sorted(problem.clamped) if v not in problem.masked]


def recalled(net: PCNetwork, problem: Problem) -> pcgraph.initializers.Initializer:
    """A small memory of whatever is not observed; zero where nothing is, or everything."""
    known = observed(problem)
    rest = [v for v in net.graph if v not in known]
    if not known or not rest:
        return Zero()
    return Memory(net, rest, observed=known, patterns=3, heads=2, embed_dim=4, beta=2.0, ridge=1.0)


def guessed(net: PCNetwork, problem: Problem) -> pcgraph.initializers.Initializer:
    known = [v for v in observed(problem) if net.graph.degree(v)]
    near = known and any(u != known[0] for u in (*net.graph.pred[known[0]], *net.graph.succ[known[0]]))
    return Amortized(net, known[0]) if near else Zero()


def by_node(net: PCNetwork, problem: Problem) -> pcgraph.initializers.Initializer:
    some = iter((Normal(seed=2), recalled(net, problem), Zero(), Null(first=Zero())))
    return PerNode(dict(zip(sorted(net.graph), some)), default=Forward(fallback=Normal()))


#: Name -> what to run on a network; initializers are made anew for each, since some remember.
KINDS: dict[str, Kind] = {
    "zero": lambda net, problem: {"init": Zero(), "optimizer": SGD(0.1)},
    "normal": lambda net, problem: {"init": Normal(seed=3), "optimizer": SGD(0.1, momentum=0.5)},
    "forward": lambda net, problem: {"init": Forward(fallback=Normal(), roots=Normal()), "optimizer": SGD(0.1)},
    "null": lambda net, problem: {"init": Null(first=Forward(fallback=Zero())), "optimizer": SGD(0.1)},
    "average": lambda net, problem: {"init": Average(by=None, classes=2), "optimizer": SGD(0.1)},
    "adam": lambda net, problem: {"init": Zero(), "optimizer": Adam(0.1)},
    "errors": lambda net, problem: {"init": Forward(fallback=Normal(), roots=Normal()), "optimizer": SGD(0.1),
                                    "coordinates": Errors(keep="repair")},
    "duals": lambda net, problem: {"init": Normal(), "optimizer": SGD(0.1), "duals": Duals(0.1)},
    "tolerance": lambda net, problem: {"init": Normal(), "optimizer": SGD(0.1), "tolerance": 0.05, "trace": True},
    "lbfgs": lambda net, problem: {"init": Normal(), "optimizer": LBFGS(history=2)},
    "anderson": lambda net, problem: {"init": Zero(), "optimizer": Anderson(0.1, ridge=1e-3), "tolerance": 0.05},
    "momentum": lambda net, problem: {
        "init": Normal(), "optimizer": Momentum(0.1), "coordinates": Errors(keep="repair")},
    "memory": lambda net, problem: {"init": recalled(net, problem), "optimizer": SGD(0.1)},
    "amortized": lambda net, problem: {"init": guessed(net, problem), "optimizer": SGD(0.1)},
    "equilibrium": lambda net, problem: {
        "init": Equilibrium(sorted(problem.clamped)[:1], 5), "optimizer": SGD(0.1)},
    "settled": lambda net, problem: {
        "init": Equilibrium(sorted(problem.clamped)[:1], 4, LBFGS()), "optimizer": SGD(0.1)},
    "by node": lambda net, problem: {"init": by_node(net, problem), "optimizer": SGD(0.1)},
    "swept average": lambda net, problem: {
        "init": Average(by=None, classes=3, forward_depth=1, otherwise=Normal()), "optimizer": SGD(0.1)},
    "duals that stop": lambda net, problem: {"init": Normal(), "optimizer": SGD(0.1), "duals": Duals(0.2, stop=0.8)},
    "duals with a tolerance": lambda net, problem: {
        "init": Normal(), "optimizer": Adam(0.1), "duals": Duals(0.2, stop=0.8), "tolerance": 0.3},
    "following": lambda net, problem: {"init": Normal(), "optimizer": SGD(Following(0.3, samples=2, iterations=4))},
    "langevin": lambda net, problem: {
        "init": Zero(), "optimizer": Langevin(0.1, 0.5, torch.Generator().manual_seed(problem.seed))},
    "traced": lambda net, problem: {"init": Normal(), "optimizer": SGD(0.1), "trace": Trace(every=2)},
}  # fmt: skip


def inferred(parts: int) -> SearchStrategy[tuple[Problem, int]]:
    graphs = digraphs(min_nodes=parts, max_nodes=7, slots=True)
    return st.tuples(problems(graphs=graphs, clamps="some", masks=True, rich=True), st.integers(0, 4))


def drawn(count: int, parts: int, cases: SearchStrategy[tuple[Problem, int]]) -> list[tuple[Problem, int]]:
    """Draw problems with enough nodes, the same in every process: nothing runs while they are drawn."""
    found: list[tuple[Problem, int]] = []

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases)
    def draw(case: tuple[Problem, int]) -> None:
        if len(case[0].graph) >= parts:
            found.append(case)

    draw()
    return found


def split(graph: nx.DiGraph, parts: int, seed: int) -> dict[Any, int]:
    """Give each rank some node, and the others by lot."""
    generator = torch.Generator().manual_seed(seed)
    nodes = list(graph)
    order = torch.randperm(len(nodes), generator=generator).tolist()
    lots = torch.randint(parts, (len(nodes),), generator=generator).tolist()
    return {nodes[i]: (k if k < parts else lots[i]) for k, i in enumerate(order)}


def compare(name: str, problem: Problem, steps: int, group: Group) -> None:
    """Run two batches of learning on both, and compare everything that this rank has."""
    partition = split(problem.graph, group.size, problem.seed)
    net, one = (
        PCNetwork(problem.graph, seed=problem.seed, dtype=torch.float64, **more)
        for more in ({"partition": partition, "group": group}, {})
    )
    same_weights(net, one)
    what, alone = (KINDS[name](n, problem) for n in (net, one))
    if "coordinates" in what and problem.masked:
        del what["coordinates"], alone["coordinates"]
    learning = [[*n.parameters(), *how["init"].parameters()] for n, how in ((net, what), (one, alone))]
    optimizers = [torch.optim.Adam(parameters, 0.05) for parameters in learning if parameters]
    for batch in range(2):
        clamps = values(one, problem, batch)
        labels = torch.tensor([0, 1 + (name == "swept average") * batch, 0]) if "average" in name else None
        results = [
            n.infer(clamps, steps=steps, labels=labels, **how) for n, how in ((net, what), (one, alone))
        ]  # fmt: skip
        assert verify(results[0].plan)
        compare_results(*results)
        for n, result in zip((net, one), results):
            n.zero_grad()
            result.accumulate()
            result.remember()
        same_weights(net, one, gradients=True)
        same_learned(what["init"], alone["init"])
        for optimizer in optimizers:
            optimizer.step()
        same_weights(net, one)
        del results


def compare_results(ours: Any, theirs: Any) -> None:
    for kind in ("states", "predictions", "errors", "duals"):
        for node, found in getattr(ours, kind).items():
            torch.testing.assert_close(found, getattr(theirs, kind)[node], **EXACT)
    torch.testing.assert_close(ours.energy, theirs.energy, **EXACT)
    for node, found in ours.node_energy.items():
        torch.testing.assert_close(found, theirs.node_energy[node], **EXACT)
    if theirs.trace is not None:
        torch.testing.assert_close(ours.trace, theirs.trace, **EXACT)
    if theirs.steps is not None:
        assert torch.equal(ours.steps, theirs.steps)
        assert torch.equal(ours.converged, theirs.converged)
    if theirs.state_trace is not None:
        compare_traces(ours, theirs)
    assert ours.moves == theirs.moves
    if theirs.failed is not None:
        assert torch.equal(ours.failed, theirs.failed)


def compare_traces(ours: Any, theirs: Any) -> None:
    """Energies are known on all ranks; states and errors where they are computed."""
    assert set(ours.node_trace) == set(theirs.node_trace)
    assert set(ours.state_trace) == set(ours.states)
    assert ours.trace_steps == theirs.trace_steps
    for kind in ("node_trace", "state_trace", "error_trace"):
        for node, found in getattr(ours, kind).items():
            torch.testing.assert_close(found, getattr(theirs, kind)[node], **EXACT)


def same_learned(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """What an initializer learns is the same on all ranks."""
    for (name, found), wanted in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, **EXACT, msg=lambda text, name=name: f"{name}: {text}")
        torch.testing.assert_close(found.grad, wanted.grad, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


def values(net: PCNetwork, problem: Problem, batch: int) -> dict[Any, Any]:
    generator = torch.Generator().manual_seed(1000 * batch + problem.seed)
    found: dict[Any, Any] = {}
    for node in sorted(problem.clamped):
        value = torch.randn(3, *net.structure.shape(node), generator=generator, dtype=torch.float64)
        mask = torch.rand(value.shape, generator=generator) < 0.5
        found[node] = Masked(value, mask) if node in problem.masked else value
    return found


def parameters(net: PCNetwork) -> dict[Any, Tensor]:
    """Each weight, bias and other parameter that this process has, and its gradient, by edge or node."""
    found: dict[Any, Tensor] = {}
    own, s = net.own, net.own.structure
    for b in s.buckets:
        for e in range(b.start, b.stop):
            key = (*s.edge(e), s.slot_name(e))
            row = e - b.start if b.weight is None else int(b.weight[e - b.start])
            if b.name in own.weights:
                found[key] = both(own.weights[b.name], row)
    for i in range(len(s.nodes)):
        if own.bias_row[i] >= 0:
            group = s.groups[int(s.group_of[i])].name
            found["bias", s.nodes[i]] = both(own.biases[f"bias_{group}"], int(own.bias_row[i]))
        segment = s.segments[int(s.segment_of[i])]
        if segment.energy is not None and not segment.gaussian:
            for name, parameter in own.energy_of(int(s.segment_of[i])).named_parameters():
                found["energy", s.nodes[i], name] = both(parameter, ...)
    return found


def both(parameter: Tensor, row: Any) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return torch.stack([parameter.detach()[row], gradient[row]])


def same_weights(net: PCNetwork, one: PCNetwork, gradients: bool = False) -> None:
    ours, theirs = parameters(net), parameters(one)
    for key, found in ours.items():
        which = slice(0, 2 if gradients else 1)
        torch.testing.assert_close(
            found[which], theirs[key][which], **EXACT, msg=lambda text, key=key: f"{key}: {text}"
        )


def main(first: int, count: int, group: Group) -> int:
    """Hold so many cases against one process; return how many."""
    names, cases = list(KINDS), drawn(count, group.size, inferred(group.size))
    for k, (problem, steps) in enumerate(cases):
        name = names[(first + k) % len(names)]
        try:
            compare(name, problem, steps, group)
        except Exception as error:
            error.add_note(
                f"{name}, {steps} steps, case {k}: {problem!r}, {split(problem.graph, group.size, problem.seed)}"
            )
            raise
    return len(cases)
