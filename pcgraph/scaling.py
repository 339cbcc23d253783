"""Factors on edges let one learning rate serve networks of any width and depth.

With weights drawn from N(0, 1), which is the size that an update of Adam has too, the factor of an edge alone says how
large what it sends is:

    a = gain / sqrt(n K L)      a map into an inner node: n neurons of its source, K terms that merge, L blocks
    a = gain / (n sqrt(K L))    a map from an inner node into one that nothing reads
    1                           the stream that a residual block hands on

L counts where a term is added to a stream, and is 1 everywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import networkx as nx

from pcgraph import transforms
from pcgraph.arguments import require_number
from pcgraph.errors import GraphError
from pcgraph.network import Structure
from pcgraph.network.copying import copy_graph
from pcgraph.network.declaration import show
from pcgraph.topology import check
from pcgraph.transforms import Identity, Linear, SparseLinear

__all__ = ["mupc"]

Node = Hashable
#: (source, target, key or None, attributes)
Edge = tuple[Node, Node, Hashable, dict[str, Any]]


def mupc(graph: nx.DiGraph, *, gain: float = 1.0) -> nx.DiGraph:
    """Copy a declaration with muPC's weights N(0, 1), a factor on every edge, and no biases.

    An identity edge is the *stream* of its target if its source also reaches the target another way; of several such
    edges the one from the deepest source is. All other edges into the target are terms, K of them, that are added to
    it. L is the largest number of nodes with a stream on one path: of ``graphs.residual``, its blocks.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
        Acyclic. It is not changed.
    gain : float
        Of every map, positive.

    Returns
    -------
    nx.DiGraph or nx.MultiDiGraph
        With ``scale`` on the edges, ``init="normal"`` on those with weights, and ``bias=False`` on the nodes.

    Raises
    ------
    GraphError
        There is a cycle, which has no depth; an edge has a scale, an init or weights of its own; or edges that share a
        weight would need different factors.

    Notes
    -----
    A map from a root into a node that nothing reads has 1 / sqrt(n K): n is then the size of the data, which does not
    grow with the network.

    References
    ----------
    F. Innocenti, E. M. Achour, C. L. Buckley, "muPC: Scaling Predictive Coding to 100+ Layer Networks" (NeurIPS 2025),
    Table 1; for K terms the rule of FabricPC.

    Examples
    --------
    >>> import pcgraph
    >>> scaled = mupc(pcgraph.graphs.residual(784, 64, 10, blocks=4))
    >>> [(u, v, round(1 / a**2)) for u, v, a in scaled.edges(data="scale") if v in ("r0", "m1", "r1", "y")]
    [('x', 'r0', 784), ('r0', 'm1', 64), ('r0', 'r1', 1), ('m1', 'r1', 256), ('r4', 'y', 4096)]
    """
    gain = require_number(gain, "gain", above=0)
    structure = Structure(graph)
    cycle = check(graph, (), repair=False).graph_cycle
    if cycle is not None:
        path = " → ".join(map(repr, [*cycle, cycle[0]]))
        raise GraphError(
            f"muPC's factors come from the depth of a graph, and the cycle {path} has none: scale the graph without "
            "one of its edges, and give that edge a scale and an init of your own",
            where=tuple(cycle),
            found=cycle,
        )
    twin = copy_graph(graph, {})
    edges = _edges(twin)
    into: dict[Node, list[Edge]] = {v: [] for v in twin}
    for edge in edges:
        _require_plain(edge)
        into[edge[1]].append(edge)
    depth = _depths(twin)
    streams = {v: stream for v in twin if (stream := _stream(v, into, depth)) is not None}
    blocks = max(1, _most_on_a_path(twin, set(streams)))
    for v, data in twin.nodes(data=True):
        terms = [edge for edge in into[v] if edge is not streams.get(v)]
        share = len(terms) * (blocks if v in streams else 1)
        for u, _, _, attributes in into[v]:
            attributes["scale"] = 1.0
            if not any(attributes is edge[3] for edge in terms):
                continue
            fan_in = _fan_in(attributes, structure.shape(u), structure.shape(v))
            width = fan_in if fan_in and not twin.out_degree(v) and twin.in_degree(u) else 1
            attributes["scale"] = (gain if fan_in else 1.0) / math.sqrt(max(fan_in, 1) * width * share)
            if fan_in and not attributes.get("transpose"):
                attributes["init"] = "normal"
        if into[v]:
            data["bias"] = False
    Structure(twin)  # refuses one weight with two factors
    return twin


def _edges(graph: nx.DiGraph) -> list[Edge]:
    if graph.is_multigraph():
        return list(graph.edges(keys=True, data=True))
    return [(u, v, None, data) for u, v, data in graph.edges(data=True)]


def _where(edge: Edge) -> tuple[Any, ...]:
    return edge[:2] if edge[2] is None else edge[:3]


def _require_plain(edge: Edge) -> None:
    """Refuse an edge that says already what muPC says, or whose weights muPC cannot draw."""
    where, data = _where(edge), edge[3]
    for key in ("scale", "init"):
        if data.get(key) is not None:
            raise GraphError(
                f"{show(where)} has the {key} {data[key]!r}, and muPC would overwrite it: remove it, or change it "
                "afterwards",
                where=where,
                found=data[key],
            )
    transform = transforms.get(data.get("transform"))
    if not isinstance(transform, Linear | SparseLinear) and any(True for _ in transform.parameters()):
        raise GraphError(
            f"{show(where)} is a {type(transform).__name__}, which draws its own weights, and muPC's are N(0, 1): use "
            "linear, sparse_linear or identity edges, or give this one a scale by hand after the rest",
            where=where,
            found=transform,
        )


def _fan_in(attributes: dict[str, Any], source: tuple[int, ...], target: tuple[int, ...]) -> int:
    """Count the neurons that reach one of the target through weights, on average; 0 where the edge has none."""
    transform = transforms.get(attributes.get("transform"))
    if isinstance(transform, SparseLinear):
        return -(-transform.entries(source, target).shape[1] // math.prod(target))
    return math.prod(source) if isinstance(transform, Linear) else 0


def _depths(graph: nx.DiGraph) -> dict[Node, int]:
    """Give each node the length of the longest path to it."""
    depth: dict[Node, int] = {}
    for v in nx.topological_sort(graph):
        depth[v] = 1 + max((depth[u] for u in graph.predecessors(v)), default=-1)
    return depth


def _stream(v: Node, into: dict[Node, list[Edge]], depth: dict[Node, int]) -> Edge | None:
    """Find the identity edge that hands a state on beside what is made of it; the deepest one of several."""
    found: Edge | None = None
    for edge in into[v]:
        data = edge[3]
        plain = data.get("activation") in (None, "identity")
        if not plain or not isinstance(transforms.get(data.get("transform")), Identity):
            continue
        if found is not None and depth[edge[0]] <= depth[found[0]]:
            continue
        others = [other[0] for other in into[v] if other is not edge]
        if _reaches(edge[0], others, into, depth):
            found = edge
    return found


def _reaches(u: Node, ends: list[Node], into: dict[Node, list[Edge]], depth: dict[Node, int]) -> bool:
    """Say whether a path leads from `u` to one of `ends`, or `u` is one: a search backwards, no further than `u`."""
    seen, waiting = set(ends), list(ends)
    while waiting:
        v = waiting.pop()
        if v == u:
            return True
        before = {edge[0] for edge in into[v] if depth[edge[0]] >= depth[u]} - seen
        seen |= before
        waiting += before
    return False


def _most_on_a_path(graph: nx.DiGraph, wanted: set[Node]) -> int:
    most: dict[Node, int] = {}
    for v in nx.topological_sort(graph):
        most[v] = (v in wanted) + max((most[u] for u in graph.predecessors(v)), default=0)
    return max(most.values())
