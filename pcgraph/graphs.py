"""Ready-made declarations: functions that return an ``nx.DiGraph``, in NetworkX's manner.

They know nothing of torch: a graph is data, and so are the names of activations in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx

from pcgraph.errors import GraphError

__all__ = ["chain", "decoder", "figure_9"]

Size = int | tuple[int, ...]
ActivationSpec = str | Callable[..., Any]


def _path(names: Sequence[str], sizes: Sequence[Size], activations: Sequence[ActivationSpec]) -> nx.DiGraph:
    graph = nx.DiGraph()
    for name, size, activation in zip(names, sizes, activations, strict=True):
        graph.add_node(name, shape=size)
        if activation != "identity":
            graph.nodes[name]["activation"] = activation
    nx.add_path(graph, names)
    return graph


def chain(
    sizes: Sequence[Size], *, activation: ActivationSpec = "gelu", output_activation: ActivationSpec = "identity"
) -> nx.DiGraph:
    """A feed-forward chain ``x -> h1 -> ... -> y``.

    Parameters
    ----------
    sizes : sequence of int or tuple
        Shapes of the groups, input first; at least two.
    activation : str or callable
        Of the hidden groups.
    output_activation : str or callable
        Of ``y``; linear unless told otherwise.

    Returns
    -------
    nx.DiGraph
        Nodes ``"x"``, ``"h1"``, ..., ``"y"``.

    Examples
    --------
    >>> list(chain([784, 512, 10]).edges)
    [('x', 'h1'), ('h1', 'y')]
    """
    if len(sizes) < 2:
        raise GraphError(f"a chain needs at least two sizes (found {list(sizes)!r})", found=sizes)
    hidden = len(sizes) - 2
    names = ["x", *(f"h{i + 1}" for i in range(hidden)), "y"]
    return _path(names, sizes, ["identity", *[activation] * hidden, output_activation])


def decoder(
    sizes: Sequence[Size], *, activation: ActivationSpec = "gelu", output_activation: ActivationSpec = "identity"
) -> nx.DiGraph:
    """A generative chain ``h0 -> h1 -> ... -> x`` whose only observed group is its end (paper, Section 5.2).

    ``h0`` is a root without a known value: strict forward initialization does not exist for it.

    Parameters
    ----------
    sizes : sequence of int or tuple
        Shapes of the groups, the latent ``h0`` first, the image ``x`` last; at least two.
    activation, output_activation : str or callable
        Of the hidden groups, and of ``x``.

    Examples
    --------
    >>> list(decoder([64, 256, 256, 256, 784]).nodes)
    ['h0', 'h1', 'h2', 'h3', 'x']
    """
    if len(sizes) < 2:
        raise GraphError(f"a decoder needs at least two sizes (found {list(sizes)!r})", found=sizes)
    hidden = len(sizes) - 2
    names = [*(f"h{i}" for i in range(hidden + 1)), "x"]
    return _path(names, sizes, ["identity", *[activation] * hidden, output_activation])


def figure_9(which: str = "top", *, activation: ActivationSpec = "tanh") -> nx.DiGraph:
    """One of the two graphs of Figure 9: single neurons 0 to 5, the input at 0.

    Parameters
    ----------
    which : {"top", "bottom"}
        The acyclic graph, or the one of the same undirected edges with the cycle 1 -> 2 -> 4 -> 3 -> 1. (The
        appendix's proof goes from 2 to 3 directly, an edge that the figure does not have.)
    activation : str or callable
        Of every neuron but the input.

    Examples
    --------
    >>> import networkx as nx
    >>> nx.is_directed_acyclic_graph(figure_9("top")), nx.find_cycle(figure_9("bottom"))
    (True, [(1, 2), (2, 4), (4, 3), (3, 1)])
    """
    edges = {
        "top": [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (0, 4), (4, 5)],
        "bottom": [(0, 1), (1, 2), (2, 4), (4, 3), (3, 1), (0, 4), (4, 5)],
    }
    if which not in edges:
        raise GraphError(f"figure 9 has two graphs, 'top' and 'bottom' (found {which!r})", found=which)
    graph = nx.DiGraph(name=f"figure 9, {which}")
    graph.add_node(0, shape=1)
    graph.add_nodes_from(range(1, 6), shape=1, activation=activation)
    graph.add_edges_from(edges[which])
    return graph
