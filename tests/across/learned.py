"""Learning rules over the ranks, each held against the same rule in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import torch
from hypothesis import strategies as st
from torch import Tensor

from pcgraph import LBFGS, SGD, Adam, Duals, Forward, Normal, PCNetwork, Zero, learning
from pcgraph.processes import Group
from pcgraph.testing.strategies import Problem, dags, problems
from tests.across.equal import EXACT, drawn, same_weights, split, values

Values = dict[Any, Tensor]


def direct(rule: Callable[..., Tensor], **more: Any) -> Callable[..., Any]:
    return lambda net, inputs, targets: rule(net, inputs, targets, **more)


def incremental(net: PCNetwork, inputs: Values, targets: Values) -> Any:
    weights = torch.optim.SGD([{"params": net.parameters()}], 0.05)
    return learning.incremental(
        net, {**inputs, **targets}, init=Normal(), steps=3, optimizer=Adam(0.1), weights=weights
    )  # fmt: skip


def nudged(init: Callable[[], Any], **more: Any) -> Callable[..., Any]:
    return lambda net, inputs, targets: learning.nudged(net, inputs, targets, steps=3, init=init(), **more)


def forward_update(net: PCNetwork, inputs: Values, targets: Values) -> Any:
    clamps = {**inputs, **targets}
    result = net.infer(clamps, init=Zero(), steps=2, optimizer=SGD(0.1), duals=Duals(0.1))
    learning.forward_update(net, clamps, result)
    return result


#: Name -> what learns from inputs and targets, and returns a result or what is measured of each sample.
RULES: dict[str, Callable[..., Any]] = {
    "backprop": direct(learning.backprop),
    "fixed predictions": direct(learning.fixed_predictions, steps=3, optimizer=SGD(0.5, momentum=0.5)),
    "incremental": incremental,
    "nudged": nudged(Forward, optimizer=SGD(0.1)),
    "nudged away": nudged(Normal, optimizer=LBFGS(), sign="negative"),
    "forward update": forward_update,
}


def learned(count: int, parts: int) -> list[tuple[Problem, int]]:
    """Draw acyclic graphs whose roots are known, the same in every process."""
    graphs = dags(min_nodes=parts, max_nodes=7)
    return drawn(count, parts, st.tuples(problems(graphs=graphs, clamps="roots", rich=True), st.just(0)))


def compare(name: str, problem: Problem, group: Group) -> None:
    """Learn two batches, from the roots to the leaves."""
    graph = problem.graph
    partition = split(graph, group.size, problem.seed)
    net, one = (
        PCNetwork(graph, seed=problem.seed, dtype=torch.float64, **more)
        for more in ({"partition": partition, "group": group}, {})
    )
    ends = [v for v in graph if graph.in_degree(v) and not graph.out_degree(v)]
    if ends:
        learn(RULES[name], net, one, problem, ends)


def learn(rule: Callable[..., Any], net: PCNetwork, one: PCNetwork, problem: Problem, ends: list[Any]) -> None:
    optimizers = [torch.optim.Adam(n.parameters(), 0.05) for n in (net, one) if list(n.parameters())]
    for batch in range(2):
        clamps = values(one, problem, batch)
        targets = values(one, Problem(problem.graph, frozenset(ends), problem.seed + 7), batch)
        inputs = {v: clamps[v] for v in one.graph if not one.graph.in_degree(v)}
        ours, theirs = (rule(n, inputs, targets) for n in (net, one))
        if isinstance(ours, Tensor):
            torch.testing.assert_close(ours, theirs, **EXACT)
        else:
            torch.testing.assert_close(ours.energy, theirs.energy, **EXACT)
        same_weights(net, one, gradients=True)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        same_weights(net, one)
        del ours, theirs


def zil(group: Group) -> None:
    """Each node learns in the step in which the error arrives at it, wherever that is."""
    graph = nx.DiGraph()
    for name, shape in (("x", 4), ("a", 5), ("b", 6), ("c", 5), ("y", 3)):
        graph.add_node(name, shape=shape, activation="identity" if name == "y" else "tanh")
    graph.add_edges_from([("x", "a"), ("x", "b"), ("a", "c"), ("b", "c"), ("c", "y"), ("x", "c")])
    graph.nodes["a"]["precision"], graph.nodes["y"]["energy"] = 2.5, "learned_precision"
    problem = Problem(graph, frozenset({"x"}), 0)
    for seed in range(3):
        partition = split(graph, group.size, seed)
        net, one = (
            PCNetwork(graph, seed=seed, dtype=torch.float64, **more)
            for more in ({"partition": partition, "group": group}, {})
        )
        learn(direct(learning.zero_divergence), net, one, problem, ["y"])


def main(first: int, count: int, group: Group) -> int:
    """Hold so many cases against one process; return how many."""
    names = list(RULES)
    for k, (problem, _) in enumerate(learned(count, group.size)):
        name = names[(first + k) % len(names)]
        try:
            compare(name, problem, group)
        except Exception as error:
            error.add_note(f"{name}, case {k}: {problem!r}, {split(problem.graph, group.size, problem.seed)}")
            raise
    zil(group)
    return count
