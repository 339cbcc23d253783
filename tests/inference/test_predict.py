"""A sweep predicts wherever the ancestors of what is asked can be swept (Theorem 1), and nowhere else."""

from __future__ import annotations

from collections.abc import Hashable

import networkx as nx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph import PCNetwork
from pcgraph.errors import InvalidInitializer
from pcgraph.testing import reference
from pcgraph.testing.strategies import Problem, problems
from tests.builders import EXACT, clamps_of

Node = Hashable


def swept(graph: nx.DiGraph, clamped: frozenset[Node], node: Node) -> list[Node] | None:
    """The order in which the ancestors of a node can be swept, by NetworkX alone; None where they cannot."""
    cut = nx.DiGraph()
    cut.add_nodes_from(graph)
    cut.add_edges_from((u, v) for u, v in graph.edges() if v not in clamped)
    needed = nx.ancestors(cut, node) | {node}
    free = cut.subgraph(needed - clamped)
    roots = [v for v in free if not graph.in_degree(v) and graph.nodes[v].get("prior") is None]
    if roots or not nx.is_directed_acyclic_graph(free):
        return None
    return list(nx.topological_sort(free))


def made(edges: str, shape: int = 2) -> nx.DiGraph:
    graph = nx.DiGraph(pair.split(">") for pair in edges.split())
    nx.set_node_attributes(graph, shape, "shape")
    nx.set_node_attributes(graph, "tanh", "activation")
    return graph


CUT = made("x>h1 h1>h2 h2>h1 h1>y")  # a cycle that a clamp on h2 cuts
LONE = made("x>y")
LONE.add_node("z", shape=2)  # which no edge touches
ASIDE = made("x>h1 h1>y y>z z>w w>z")  # a cycle behind what is asked


@settings(max_examples=60, deadline=None)
@given(problem=problems(), pick=st.integers(0, 100))
@example(problem=Problem(CUT, frozenset({"x", "h2"}), 0), pick=2)
@example(problem=Problem(CUT, frozenset({"x"}), 0), pick=2)
@example(problem=Problem(LONE, frozenset({"x"}), 0), pick=1)
@example(problem=Problem(ASIDE, frozenset({"x"}), 0), pick=1)
def test_predict_and_evaluate_sweep_what_can_be_swept(problem: Problem, pick: int) -> None:
    """They refused sweeps that exist, and recommended a call whose answer is another."""
    graph, clamped = problem.graph, frozenset(problem.clamped)
    free = [v for v in graph if v not in clamped]
    if not free or not clamped:
        return
    node = free[pick % len(free)]
    net = PCNetwork(graph, seed=problem.seed, dtype=torch.float64)
    clamps, order = clamps_of(net, nodes=[v for v in graph if v in clamped]), swept(graph, clamped, node)
    batch = [{**clamps, node: torch.zeros(3, *net.structure.shape(node), dtype=torch.float64)}]
    if order is None:
        with pytest.raises(InvalidInitializer):
            net.predict(clamps, node)
        with pytest.raises(InvalidInitializer):
            pcgraph.evaluate(net, batch, given=list(clamps), predict=node)
        with pytest.raises(InvalidInitializer):
            net.as_module(list(clamps), node)
        return
    start = {v: torch.zeros(3, *net.structure.shape(v), dtype=torch.float64) for v in graph} | clamps
    expected = reference.sweep(net, start, order)[node]
    found = net.predict(clamps, node)
    torch.testing.assert_close(found, expected, **EXACT)
    error = pcgraph.evaluate(net, batch, given=list(clamps), predict=node).squared_error
    assert error == pytest.approx(float(expected.square().flatten(1).sum(1).mean()), rel=1e-6, abs=1e-12)
