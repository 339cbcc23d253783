"""Declare transformers: blocks of attention and of two layers, each added to what goes by."""

from __future__ import annotations

import networkx as nx

from pcgraph.arguments import require_count, require_flag
from pcgraph.errors import GraphError
from pcgraph.graphs.layered import require_graph
from pcgraph.transforms import Embedding, RowLinear

__all__ = ["transformer"]


def transformer(
    tokens: int, length: int, *, width: int = 32, depth: int = 1, heads: int = 2, causal: bool = True
) -> nx.MultiDiGraph:
    """Declare a transformer ``x -> e -> (attention, two layers) * depth -> y`` that predicts a token at each place.

        a_i = attention(W_q n(h), W_k n(h), W_v n(h))        r_i = h + W_o a_i        n: layer normalisation
        m_i = gelu(W_1 n(r_i))                               h   = r_i + W_2 m_i

    The states of inference are e, and a_i, r_i, m_i and h_i of each block. Positions are told apart by the bias of e,
    which has one for each neuron; all other biases are one for each feature.

    Parameters
    ----------
    tokens : int
        How many there are.
    length : int
        Places of a text.
    width : int
        Features of each place; the layers m_i have four times as many.
    depth : int
        Blocks.
    heads : int
        It divides `width`.
    causal : bool
        Whether a place sees those up to itself alone, so that ``y`` may be trained to be the next token.

    Returns
    -------
    nx.MultiDiGraph
        Nodes ``"x"``, shape (length,), which holds numbers of tokens; ``"e"``; ``"a1"``, ``"r1"``, ``"m1"``, ``"h1"``,
        ...; and ``"y"``, shape (length, tokens), with a softmax for each place.

    References
    ----------
    A. Vaswani et al., "Attention is all you need", 2017; L. Pinchetti et al., "Predictive coding beyond Gaussian
    distributions", 2022, train one by predictive coding.

    Examples
    --------
    >>> list(transformer(26, 8, width=16))
    ['x', 'e', 'a1', 'r1', 'm1', 'h1', 'y']
    """
    tokens, length, width, depth, heads = (
        require_count(value, key, least=1, refuse=GraphError)
        for key, value in (("tokens", tokens), ("length", length), ("width", width), ("depth", depth), ("heads", heads))
    )
    causal = require_flag(causal, "causal", refuse=GraphError)
    if width % heads:
        raise GraphError(f"heads must divide width (found {heads} and {width})", found=heads)
    require_graph(4 * depth, 8 * depth, "depth")
    graph = nx.MultiDiGraph()
    graph.add_node("x", shape=length)
    graph.add_node("e", shape=(length, width))
    graph.add_edge("x", "e", transform=Embedding(tokens, width))
    attention = ("attention", {"heads": heads, "causal": causal})
    before = "e"
    for i in range(1, depth + 1):
        a, r, m, h = (f"{kind}{i}" for kind in "armh")
        for node, size in ((a, width), (r, width), (m, 4 * width), (h, width)):
            graph.add_node(node, shape=(length, size), bias="channel")
        graph.nodes[a].update(combine=attention, bias=False)
        graph.nodes[m]["activation"] = "gelu"
        for role in ("query", "key", "value"):
            graph.add_edge(before, a, key=role, role=role, transform=RowLinear(width, width, normalize=True))
        graph.add_edge(before, r, transform="identity")
        graph.add_edge(a, r, transform=RowLinear(width, width))
        graph.add_edge(r, m, transform=RowLinear(width, 4 * width, normalize=True))
        graph.add_edge(r, h, transform="identity")
        graph.add_edge(m, h, transform=RowLinear(4 * width, width))
        before = h
    graph.add_node("y", shape=(length, tokens), bias="channel", energy=("cross_entropy", {"by_row": True}))
    graph.add_edge(before, "y", transform=RowLinear(width, tokens, normalize=True))
    return graph
