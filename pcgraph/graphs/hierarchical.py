"""Declare hierarchies whose groups are predicted from below and from above, by two errors and not by one sum.

What comes from below is a group's main prediction, which a sweep follows; what comes from above, and from the group
itself, are slots, with a precision each (:mod:`pcgraph.network.slots`):

    F = sum_l p/2 ||h_l - f(W_l h_{l-1})||^2 + sum_l q/2 ||h_l - f(V_l h_{l+1})||^2

A small q lets feedback learn without disturbing recognition; ``infer(precision=...)`` asks with more of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx

from pcgraph.arguments import require_flag, require_number
from pcgraph.errors import GraphError
from pcgraph.graphs.layered import ActivationSpec, Size, chain, sizes_in_one

__all__ = ["bidirectional", "cortex"]

AREAS = ("V1", "V2", "V4", "IT")


@sizes_in_one
def bidirectional(
    sizes: Sequence[Size], *, precision: float = 1.0, feedback: float = 0.001, inside: bool = False,
    tied: bool = False, activation: ActivationSpec = "gelu", output_activation: ActivationSpec = "identity",
) -> nx.DiGraph:  # fmt: skip
    """Declare a chain that predicts both ways: ``x -> h1 -> ... -> y``, and back into a slot ``"down"`` of each group.

    Recognition (x known) and generation (y known) are then one network with one energy.

    Parameters
    ----------
    sizes : sequence of int or tuple
        Shapes of the groups, input first; at least two.
    precision, feedback : float
        Of the predictions from below, and of those from above.
    inside : bool
        Let predictions be ``W f(h)`` and ``V f(h)``, the activation on the edges out of hidden groups, as the paper
        has it, and not ``f(W h)`` and ``f(V h)``.
    tied : bool
        Let what comes from above come through the transposes ``W^T`` of the weights from below, and not through weights
        V of its own.
    activation, output_activation : str or callable
        Of the hidden groups, and of ``y``. What is predicted of ``x`` is linear.

    References
    ----------
    G. Oliviers, M. Tang, R. Bogacz, "Bidirectional predictive coding", arXiv 2505.23415, 2025.

    Examples
    --------
    >>> graph = bidirectional([784, 256, 10])
    >>> list(graph.edges(data="slot"))
    [('x', 'h1', None), ('h1', 'y', None), ('h1', 'x', 'down'), ('y', 'h1', 'down')]
    >>> graph.nodes["h1"]["slots"]
    {'down': {'precision': 0.001, 'activation': 'gelu'}}
    """
    inside, precision = require_flag(inside, "inside"), require_number(precision, "precision", above=0)
    tied = require_flag(tied, "tied")
    outside: ActivationSpec = "identity" if inside else activation
    graph = chain(sizes, activation=outside, output_activation=output_activation)
    names = list(graph)
    if precision != 1.0:
        for v in names[1:]:
            graph.nodes[v]["precision"] = precision
    _feed_back(graph, names, require_number(feedback, "feedback", above=0), outside)
    for low, high in zip(names, names[1:]) if tied else ():
        graph.edges[low, high]["share"] = graph.edges[high, low]["share"] = f"{low} to {high}"
        graph.edges[high, low]["transpose"] = True
    if inside:
        for u, _, data in graph.edges(data=True):
            if u not in (names[0], names[-1]):
                data["activation"] = activation
    return graph


@sizes_in_one
def cortex(
    sizes: Sequence[Size] | Mapping[str, Size] = (784, 128, 96, 64, 48, 10), *, feedback: float | None = 0.001,
    lateral: float | None = 0.001, activation: ActivationSpec = "tanh",
) -> nx.DiGraph:  # fmt: skip
    """Declare a visual hierarchy, image to class, with feedback and lateral edges as predictions of their own.

    ::

        image -> V1 -> V2 -> V4 -> IT -> class        main predictions
        image <- V1 <- V2 <- V4 <- IT <- class        slots "down"
                 V1    V2    V4    IT                  slots "lateral", each from the area itself

    Main predictions make no cycle: a sweep recognises, and an inference with ``image`` free or known in part fills it
    in from above.

    Parameters
    ----------
    sizes : sequence or mapping from names
        Shapes, the image first and the class last, with at least one area between. A sequence has up to four areas,
        which are called as above.
    feedback, lateral : float or None
        Precisions of the slots; None for no such edges.
    activation : str or callable
        Of the areas and of what is predicted of them. Image and class are linear.

    Examples
    --------
    >>> graph = cortex([784, 64, 10])
    >>> list(graph)
    ['image', 'V1', 'class']
    >>> list(graph.in_edges("V1", data="slot"))
    [('image', 'V1', None), ('class', 'V1', 'down'), ('V1', 'V1', 'lateral')]
    """
    named = dict(sizes) if isinstance(sizes, Mapping) else _named(sizes)
    if len(named) < 3:
        raise GraphError(
            f"a cortex has an image, areas and a class, three sizes or more (found {sizes!r})", found=sizes
        )
    plain = chain(list(named.values()), activation=activation)
    graph = nx.relabel_nodes(plain, dict(zip(plain, named)))
    names = list(graph)
    if feedback is not None:
        _feed_back(graph, names, require_number(feedback, "feedback", above=0), activation)
    if lateral is not None:
        for v in names[1:-1]:
            slot = {"precision": require_number(lateral, "lateral", above=0), "activation": activation}
            graph.nodes[v].setdefault("slots", {})["lateral"] = slot
            graph.add_edge(v, v, slot="lateral")
    return graph


def _named(sizes: Sequence[Size]) -> dict[str, Size]:
    areas = len(sizes) - 2
    if areas > len(AREAS):
        raise GraphError(
            f"{areas} areas need names of yours: give a mapping from names to sizes (names are known of {len(AREAS)}: "
            f"{', '.join(AREAS)})",
            found=sizes,
        )
    return dict(zip(["image", *AREAS[: max(areas, 0)], "class"], sizes))


def _feed_back(graph: nx.DiGraph, names: Sequence[str], precision: float, activation: ActivationSpec) -> None:
    """Let each group predict the one before it, in a slot."""
    for low, high in zip(names, names[1:]):
        slot: dict[str, Any] = {"precision": precision}
        if activation != "identity" and low != names[0]:
            slot["activation"] = activation
        graph.nodes[low]["slots"] = {"down": slot}
        graph.add_edge(high, low, slot="down")
