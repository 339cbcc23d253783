"""Layered graphs are chains and what grows on them: skips, residual streams, lateral edges, Figure 9 of the paper."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, ParamSpec

import networkx as nx
import numpy as np
from torch import Tensor

from pcgraph.arguments import is_integer, require_choice, require_count, require_flag, require_room, shown
from pcgraph.errors import GraphError

__all__ = ["ActivationSpec", "Size", "chain", "decoder", "figure_9", "lateral", "residual", "skip"]

Size = int | tuple[int, ...]
ActivationSpec = str | Callable[..., Any]
P = ParamSpec("P")
#: So many bytes a node and an edge of NetworkX take at least, with their dictionaries.
NODE, EDGE = 500, 300


def sizes_in_one(make: Callable[P, nx.DiGraph]) -> Callable[P, nx.DiGraph]:
    """Refuse sizes that are given one by one, and say what the call should be."""
    kinds = [parameter.kind for parameter in inspect.signature(make).parameters.values()]
    most = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)

    @functools.wraps(make)
    def checked(*given: P.args, **keywords: P.kwargs) -> nx.DiGraph:
        listed = given[0] if given else keywords.get("sizes", ())
        sizes = [value for value in given if _is_size(value)]
        if given and (isinstance(given[0], Integral) or len(sizes) == len(given) > most):
            raise GraphError(
                f"{make.__name__} takes its sizes as one list, as in {make.__name__}({sizes!r}) "
                f"(found {', '.join(map(shown, given))})",
                found=given,
            )
        if isinstance(listed, str | bytes) or not isinstance(listed, Sequence | Mapping | np.ndarray | Tensor):
            raise GraphError(
                f"{make.__name__} takes its sizes as a list, as in {make.__name__}([784, 128, 10]) "
                f"(found {shown(listed)})",
                found=listed,
            )
        return make(*given, **keywords)

    return checked


def require_graph(nodes: int, edges: float, key: str) -> None:
    """Refuse a graph for which there is no memory, before any of it is made."""
    require_room(nodes * NODE + int(edges * EDGE), "the graph", key, refuse=GraphError)


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) or (isinstance(value, tuple) and all(isinstance(n, Integral) for n in value))


def _path(names: Sequence[str], sizes: Sequence[Size], activations: Sequence[ActivationSpec]) -> nx.DiGraph:
    graph = nx.DiGraph()
    for name, size, activation in zip(names, sizes, activations, strict=True):
        graph.add_node(name, shape=size)
        if activation != "identity":
            graph.nodes[name]["activation"] = activation
    nx.add_path(graph, names)
    return graph


@sizes_in_one
def chain(
    sizes: Sequence[Size], *, activation: ActivationSpec = "gelu", output_activation: ActivationSpec = "identity"
) -> nx.DiGraph:
    """Declare a feed-forward chain ``x -> h1 -> ... -> y``.

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
        raise GraphError(f"a chain needs at least two sizes (found {shown(sizes)})", found=sizes)
    hidden = len(sizes) - 2
    names = ["x", *(f"h{i + 1}" for i in range(hidden)), "y"]
    return _path(names, sizes, ["identity", *[activation] * hidden, output_activation])


@sizes_in_one
def decoder(
    sizes: Sequence[Size], *, activation: ActivationSpec = "gelu", output_activation: ActivationSpec = "identity"
) -> nx.DiGraph:
    """Declare a generative chain ``h0 -> h1 -> ... -> x`` whose only observed group is its end (paper, Section 5.2).

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
        raise GraphError(f"a decoder needs at least two sizes (found {shown(sizes)})", found=sizes)
    hidden = len(sizes) - 2
    names = [*(f"h{i}" for i in range(hidden + 1)), "x"]
    return _path(names, sizes, ["identity", *[activation] * hidden, output_activation])


@sizes_in_one
def skip(
    sizes: Sequence[Size], *, span: int = 2, activation: ActivationSpec = "gelu",
    output_activation: ActivationSpec = "identity",
) -> nx.DiGraph:  # fmt: skip
    """Declare a chain with an additional edge from every group to the one `span` further on.

    ::

        x -> h1 -> h2 -> y
        x -------> h2
             h1 -------> y

    Parameters
    ----------
    sizes : sequence of int or tuple
        Shapes of the groups, input first; more than `span`.
    span : int
        How far a skip edge reaches, at least 2.
    activation, output_activation : str or callable
        Of the hidden groups, and of ``y``.

    Examples
    --------
    >>> list(skip([784, 512, 512, 10]).edges)
    [('x', 'h1'), ('x', 'h2'), ('h1', 'h2'), ('h1', 'y'), ('h2', 'y')]
    """
    if not is_integer(span) or not 2 <= span < len(sizes):
        raise GraphError(
            f"a skip edge spans at least 2 layers and at most {len(sizes) - 1}, the depth of {len(sizes)} groups "
            f"(found {shown(span)})",
            found=span,
        )
    graph = chain(sizes, activation=activation, output_activation=output_activation)
    names = list(graph)
    graph.add_edges_from(zip(names, names[int(span) :]))
    return graph


def residual(
    input_size: Size, width: int, output_size: Size, *, blocks: int = 2, inner: int | None = None,
    activation: ActivationSpec = "gelu", output_activation: ActivationSpec = "identity",
) -> nx.DiGraph:  # fmt: skip
    """Declare a stream of groups that each hand their state on and add what a hidden group makes of it.

    ::

        x -> r0 ============> r1 ============> r2 -> y        ===  identity
               `--> m1 --'      `--> m2 --'

    The prediction of ``r1`` is ``r0 + W m1 + b``, and that of ``m1`` is ``activation(W r0 + b)``. With ``inner=0`` a
    block is one map: the prediction of ``r1`` is ``r0 + W activation(r0) + b``, by two parallel edges, and that of
    ``y`` is ``W activation(r2) + b``.

    Parameters
    ----------
    input_size, output_size : int or tuple
        Shapes of ``x`` and ``y``.
    width : int
        Neurons of each group in the stream.
    blocks : int
        At least 1.
    inner : int, optional
        Neurons of the hidden group of a block; as many as `width` if None, and 0 for no such group.
    activation, output_activation : str or callable
        Of the hidden groups, and of ``y``. The stream is linear.

    Returns
    -------
    nx.DiGraph
        Or an ``nx.MultiDiGraph`` with ``inner=0``.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2015.

    Examples
    --------
    >>> graph = residual(784, 256, 10, blocks=1)
    >>> list(graph.edges(data="transform"))
    [('x', 'r0', None), ('r0', 'm1', None), ('r0', 'r1', 'identity'), ('m1', 'r1', None), ('r1', 'y', None)]
    """
    blocks = require_count(blocks, "blocks", least=1, refuse=GraphError)
    inner = None if inner is None else require_count(inner, "inner", refuse=GraphError)
    require_graph(2 * blocks, 3 * blocks, "blocks")
    graph = _path(["x", "r0"], [input_size, width], ["identity", "identity"])
    if inner == 0:
        graph = nx.MultiDiGraph(graph)
    for i in range(1, blocks + 1):
        before, middle, after = f"r{i - 1}", f"m{i}", f"r{i}"
        if inner == 0:
            graph.add_node(after, shape=width)
            graph.add_edge(before, after, transform="identity")
            graph.add_edge(before, after, activation=activation)
            continue
        graph.add_node(middle, shape=width if inner is None else inner, activation=activation)
        graph.add_node(after, shape=width)
        graph.add_edge(before, middle)
        graph.add_edge(before, after, transform="identity")
        graph.add_edge(middle, after)
    graph.add_node("y", shape=output_size)
    if output_activation != "identity":
        graph.nodes["y"]["activation"] = output_activation
    graph.add_edge(f"r{blocks}", "y", **({"activation": activation} if inner == 0 else {}))
    return graph


@sizes_in_one
def lateral(
    sizes: Sequence[Size], *, feedback: bool = False, activation: ActivationSpec = "gelu",
    output_activation: ActivationSpec = "identity",
) -> nx.DiGraph:  # fmt: skip
    """Declare a chain whose hidden groups also predict themselves, by an edge from the group to the same group.

    Every self-loop is a cycle of a free node, so a topological sweep of the whole graph does not exist: use
    ``Forward(fallback=...)`` or an initializer that does not sweep.

    Parameters
    ----------
    sizes : sequence of int or tuple
        Shapes of the groups, input first; at least three.
    feedback : bool
        Also an edge from every hidden group, and from ``y``, back to the hidden group before it.
    activation, output_activation : str or callable
        Of the hidden groups, and of ``y``.

    Examples
    --------
    >>> list(lateral([784, 512, 10]).edges)
    [('x', 'h1'), ('h1', 'y'), ('h1', 'h1')]
    >>> list(lateral([784, 512, 10], feedback=True).in_edges("h1"))
    [('x', 'h1'), ('h1', 'h1'), ('y', 'h1')]
    """
    if len(sizes) < 3:
        raise GraphError(f"lateral edges need a hidden group, three sizes or more (found {shown(sizes)})", found=sizes)
    feedback = require_flag(feedback, "feedback", refuse=GraphError)
    graph = chain(sizes, activation=activation, output_activation=output_activation)
    names = list(graph)
    graph.add_edges_from((name, name) for name in names[1:-1])
    if feedback:
        graph.add_edges_from(zip(names[2:], names[1:]))
    return graph


def figure_9(which: str = "top", *, activation: ActivationSpec = "tanh") -> nx.DiGraph:
    """Declare one of the two graphs of Figure 9: single neurons 0 to 5, the input at 0.

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
    require_choice(which, "which", edges, refuse=GraphError)
    graph = nx.DiGraph(name=f"figure 9, {which}")
    graph.add_node(0, shape=1)
    graph.add_nodes_from(range(1, 6), shape=1, activation=activation)
    graph.add_edges_from(edges[which])
    return graph
