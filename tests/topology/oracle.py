"""Independent answers for the tests of the checker: brute force, and numbers. Nothing here knows pcgraph.topology.

A *one-pass assignment* visits the free nodes once, in some order, and sets each to its prediction from what the others
are at that moment. Nodes not visited yet hold an arbitrary guess; a root without a prior holds NaN, since nothing says
what it is. It works if every free node with an energy then has error exactly zero and every prediction is a number.
"""

from __future__ import annotations

import math
from itertools import chain, combinations, permutations, product

import networkx as nx
import numpy as np

SIGMA = {"identity": lambda a: a, "tanh": np.tanh, "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
         "relu": lambda a: np.maximum(a, 0), "gelu": lambda a: a * (1 + np.tanh(a)) / 2}  # fmt: skip


class Numbers:
    """Generic weights, biases and clamped values for a graph, in float64."""

    def __init__(self, graph, clamped, seed=0):
        rng = np.random.default_rng(seed)
        self.graph, self.clamped = graph, set(clamped)
        self.bias = {v: rng.normal(size=self.size(v)) for v in graph}
        edges = graph.edges(keys=True) if graph.is_multigraph() else graph.edges()
        self.weights = {}
        for edge in edges:
            u, v = edge[:2]
            shape = self.size(v), self.size(u)
            weight = rng.uniform(0.3, 1.0, shape) * rng.choice([-1, 1], shape)
            self.weights.setdefault(v, []).append((u, weight))
        self.values = {v: rng.normal(size=self.size(v)) for v in graph}

    def size(self, v):
        return self.graph.nodes[v].get("shape", 1)

    def start(self):
        states = {v: value.copy() for v, value in self.values.items()}
        for v in self.graph:
            if v not in self.clamped and self.graph.in_degree(v) == 0:
                prior = self.graph.nodes[v].get("prior")
                states[v][:] = math.nan if prior is None else prior
        return states

    def prediction(self, states, v):
        total = self.bias[v] + sum(weight @ states[u] for u, weight in self.weights[v])
        return SIGMA[self.graph.nodes[v].get("activation", "identity")](total)

    def sweep(self, order):
        states = self.start()
        for v in order:
            if self.graph.in_degree(v):
                states[v] = self.prediction(states, v)
        return states

    def errors(self, states):
        return {v: states[v] - self.prediction(states, v) for v in self.graph if self.graph.in_degree(v)}

    def works(self, order):
        """Whether this one-pass assignment leaves every free error at zero and every error a number."""
        errors = self.errors(self.sweep(order))
        numbers = all(np.isfinite(e).all() for e in errors.values())
        return numbers and all((e == 0).all() for v, e in errors.items() if v not in self.clamped)


def some_order_works(graph, clamped, seed=0):
    """Brute force over every order of the free nodes that have anything to compute."""
    numbers = Numbers(graph, clamped, seed)
    computed = [v for v in graph if v not in clamped and graph.in_degree(v)]
    return any(numbers.works(order) for order in permutations(computed))


def subsets(items):
    """All subsets, the smallest first."""
    items = list(items)
    return map(set, chain.from_iterable(combinations(items, k) for k in range(len(items) + 1)))


def small_problems(nodes):
    """Every digraph of so many nodes, loops included, with every set of clamps."""
    pairs = list(product(range(nodes), repeat=2))
    for edges in subsets(pairs):
        graph = nx.DiGraph()
        graph.add_nodes_from(range(nodes))
        graph.add_edges_from(edges)
        for clamped in subsets(range(nodes)):
            yield graph, clamped


def unknown_roots(graph, clamped):
    """Free roots without a prior that predict something, straight from the definition."""
    return {
        v
        for v in graph
        if v not in clamped
        and graph.in_degree(v) == 0
        and graph.out_degree(v) > 0
        and graph.nodes[v].get("prior") is None
    }


def can_be_swept(graph, clamped, chosen, initialised=()):
    """Whether exactly these nodes can be swept: what they read is known or among them, and they have no cycle."""
    known = set(clamped) | set(initialised) | set(chosen)
    if chosen & unknown_roots(graph, clamped):
        return False
    if any(u not in known for v in chosen for u in graph.predecessors(v)):
        return False
    return nx.is_directed_acyclic_graph(graph.subgraph(chosen))


def is_repair(graph, clamped, chosen):
    """Whether giving these nodes a value leaves no free cycle and no unknown root."""
    rest = [v for v in graph if v not in clamped and v not in chosen]
    return unknown_roots(graph, clamped) <= set(chosen) and nx.is_directed_acyclic_graph(graph.subgraph(rest))


def clamp_cut(graph, clamped):
    """The graph without the edges into clamped nodes."""
    cut = nx.DiGraph()
    cut.add_nodes_from(graph)
    cut.add_edges_from((u, v) for u, v in graph.edges() if v not in clamped)
    return cut


def longest_path_depth(graph, clamped):
    """Depth by following every path backwards; infinite where one of them never ends."""
    cut = clamp_cut(graph, clamped)

    def depth(v, path):
        if v in path:
            return math.inf
        return max((1 + depth(u, {*path, v}) for u in cut.predecessors(v)), default=0)

    return {v: depth(v, frozenset()) for v in graph}
