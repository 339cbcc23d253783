"""Graphs without layers connect everything, or groups and neurons at random."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import networkx as nx
import numpy as np

from pcgraph.arguments import is_integer, require_count, require_flag, require_number, require_seed, shown
from pcgraph.errors import GraphError
from pcgraph.graphs.layered import ActivationSpec, Size, require_graph, sizes_in_one

__all__ = ["assemblies", "fully_connected", "random_groups"]


@sizes_in_one
def fully_connected(
    sizes: Sequence[Size] | Mapping[Hashable, Size],
    *,
    self_loops: bool = False,
    activation: ActivationSpec = "identity",
) -> nx.DiGraph:
    """Let every group predict every other one. Any of them can be clamped, and the rest asked for.

    Parameters
    ----------
    sizes : sequence, or mapping from names
        Shapes of the groups, at least two, or one with `self_loops`. Groups of a sequence are called 0, 1, ...
    self_loops : bool
        Each group also predicts itself.
    activation : str or callable
        Of every group.

    References
    ----------
    T. Salvatori, L. Pinchetti, B. Millidge, Y. Song, T. Bao, R. Bogacz, T. Lukasiewicz, "Learning on Arbitrary Graph
    Topologies via Predictive Coding", 2022.

    Examples
    --------
    >>> graph = fully_connected({"image": 784, "hidden": 256, "label": 10})
    >>> graph.number_of_edges(), graph.has_edge("label", "image")
    (6, True)
    """
    self_loops = require_flag(self_loops, "self_loops", refuse=GraphError)
    named = dict(sizes) if isinstance(sizes, Mapping) else dict(enumerate(sizes))
    if len(named) < (1 if self_loops else 2):
        raise GraphError(
            f"a fully connected graph needs two groups, or one with self_loops=True (found {len(named)})", found=sizes
        )
    if None in named:
        raise GraphError("None is no name of a node in NetworkX: give the group another", found=sizes)
    require_graph(len(named), len(named) ** 2, "sizes")
    graph = nx.complete_graph(list(named), create_using=nx.DiGraph)
    for name, size in named.items():
        graph.nodes[name]["shape"] = size
        if activation != "identity":
            graph.nodes[name]["activation"] = activation
        if self_loops:
            graph.add_edge(name, name)
    return graph


def random_groups(
    groups: int, size: Size, degree: int = 4, *, seed: int = 0, input_size: Size | None = None,
    output_size: Size | None = None, activation: ActivationSpec = "tanh",
) -> nx.DiGraph:  # fmt: skip
    """Let groups predict `degree` distinct others each at random, cycles and all, with an input and an output.

    ``"x"`` predicts `degree` of the groups, and `degree` of the groups predict ``"y"``. The edges depend on `groups`,
    `degree` and `seed` alone.

    Parameters
    ----------
    groups : int
        How many; they are called 0, 1, ...
    size : int or tuple
        Shape of each.
    degree : int
        Edges out of each group, fewer than `groups`.
    seed : int
    input_size, output_size : int or tuple, optional
        Shapes of ``"x"`` and ``"y"``; `size` if None.
    activation : str or callable
        Of the groups; ``"y"`` is linear.

    Examples
    --------
    >>> graph = random_groups(128, 32, degree=4, seed=0)
    >>> graph.number_of_nodes(), graph.number_of_edges(), graph.out_degree("x"), graph.in_degree("y")
    (130, 520, 4, 4)
    """
    groups = require_count(groups, "groups", least=2, refuse=GraphError)
    if not is_integer(degree) or not 1 <= degree < groups:
        raise GraphError(
            f"each of {groups} groups can predict from 1 to {groups - 1} distinct others "
            f"(found degree={shown(degree)})",
            found=degree,
        )
    degree, seed = int(degree), require_seed(seed, refuse=GraphError)
    require_graph(groups, groups * degree, "groups")
    rng = np.random.default_rng(seed % 2**64)
    graph = nx.DiGraph(name=f"random groups({groups}, degree {degree}, seed {seed})")
    graph.add_node("x", shape=size if input_size is None else input_size)
    graph.add_nodes_from(range(groups), shape=size, activation=activation)
    graph.add_node("y", shape=size if output_size is None else output_size)
    for g in range(groups):
        others = rng.choice(groups - 1, size=degree, replace=False)
        graph.add_edges_from((g, int(t) + int(t >= g)) for t in others)
    graph.add_edges_from(("x", int(t)) for t in rng.choice(groups, size=degree, replace=False))
    graph.add_edges_from((int(t), "y") for t in rng.choice(groups, size=degree, replace=False))
    return graph


@sizes_in_one
def assemblies(
    sizes: Sequence[int],
    within: float = 0.1,
    between: float = 0.01,
    *,
    seed: int = 0,
    activation: ActivationSpec = "tanh",
) -> nx.DiGraph:
    """Draw single neurons in assemblies: many edges inside one, few between two (a stochastic block model).

    Parameters
    ----------
    sizes : sequence of int
        Neurons in each assembly. They are called 0, 1, ..., those of the first assembly first; their attribute
        ``block`` is the number of the assembly.
    within, between : float
        Probabilities of a directed edge from one neuron to another of the same, and of another assembly.
    seed : int
    activation : str or callable
        Of every neuron.

    References
    ----------
    P. W. Holland, K. B. Laskey, S. Leinhardt, "Stochastic blockmodels: First steps", Social Networks 5, 1983.

    T. Salvatori et al., "Learning on Arbitrary Graph Topologies via Predictive Coding", 2022.

    Examples
    --------
    >>> graph = assemblies([20, 30], within=1.0, between=0.0)
    >>> graph.number_of_nodes(), graph.number_of_edges() == 20 * 19 + 30 * 29
    (50, True)
    """
    if not len(sizes) or not all(is_integer(n) and n >= 1 for n in sizes):
        raise GraphError(f"assemblies need positive numbers of neurons (found {shown(sizes)})", found=sizes)
    sizes, seed = [int(n) for n in sizes], require_seed(seed, refuse=GraphError)
    within = require_number(within, "within", least=0, most=1, refuse=GraphError)
    between = require_number(between, "between", least=0, most=1, refuse=GraphError)
    neurons = sum(sizes)
    require_graph(neurons, 0, "sizes")
    require_graph(neurons, within * sum(n * n for n in sizes) + between * neurons**2, "sizes")
    probabilities = np.where(np.eye(len(sizes), dtype=bool), within, between).tolist()
    drawn = nx.stochastic_block_model(list(sizes), probabilities, seed=seed, directed=True, selfloops=False)
    graph = nx.DiGraph(name=f"assemblies({list(sizes)}, {within:g}, {between:g}, seed {seed})")
    graph.add_nodes_from(((n, {"block": b}) for n, b in drawn.nodes(data="block")), shape=1, activation=activation)
    graph.add_edges_from(drawn.edges)
    return graph
