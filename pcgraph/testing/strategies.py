"""Hypothesis strategies for declarations: graphs that shrink to the smallest one that still shows the fault.

Every strategy draws one list of records, a record a node, in which edges are offsets to other records. An offset that
points outside is dropped, so that every draw is valid and none is filtered away; deleting an offset shrinks a graph by
an edge. A node that no edge touches any more goes by itself, unless its record says that it may be lonely: so a node
in the middle disappears without the offsets across it having to change. Nodes are called 0, 1, 2, ...

They need the extra ``testing`` (``pip install pcgraph[testing]``).

Examples
--------
>>> from hypothesis import given
>>> @given(problems(graphs=cyclic_digraphs(max_nodes=5)))
... def test_my_engine(problem):
...     ...  # problem.graph, problem.clamped, problem.seed
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import networkx as nx
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from pcgraph.clamps import Masked
from pcgraph.model import PCNetwork

__all__ = ["ACTIVATIONS", "Problem", "cyclic_digraphs", "dags", "digraphs", "problem", "problems"]

ACTIVATIONS = ("identity", "tanh", "relu", "sigmoid", "gelu")
"""The activations drawn unless told otherwise; a draw shrinks towards the first."""

Clamping = Literal["any", "some", "roots", "sweepable"]
#: What is declared of a node or an edge beside the rest; a draw shrinks towards nothing.
NODE_MARKS: tuple[dict[str, Any], ...] = (
    {}, {"precision": 0.5}, {"bias": False}, {"energy": "learned_precision"}, {"shape": "matrix"},
)  # fmt: skip
EDGE_MARKS: tuple[dict[str, Any], ...] = (
    {}, {"activation": "tanh"}, {"activation": "sigmoid"}, {"trainable": False}, {"transform": "identity"},
)  # fmt: skip
#: The slots drawn, and what they are declared as.
SLOTS: dict[str, dict[str, Any]] = {"s": {}, "t": {"precision": 0.5, "activation": "tanh", "bias": False}}


class Record(NamedTuple):
    """A record is what is drawn for a node."""

    size: int
    activation: str
    prior: bool
    lonely: bool
    offsets: list[int]
    slots: tuple[tuple[int, str], ...]


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem is a declaration, its clamps and a seed for the weights; its ``repr`` is the call that makes it again.

    Attributes
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
    clamped : frozenset of node
        Nodes with a clamp, those with a partial one included.
    seed : int
        For the weights and the data.
    masked : frozenset of node
        Those of which some neurons are clamped.
    """

    graph: nx.DiGraph
    clamped: frozenset[Hashable]
    seed: int
    masked: frozenset[Hashable] = frozenset()

    def network(self, **settings: Any) -> PCNetwork:
        """Make the network, in float64 unless told otherwise."""
        return PCNetwork(self.graph, seed=self.seed, **{"dtype": torch.float64, **settings})

    def clamps(self, net: PCNetwork, batch: int = 2) -> dict[Hashable, Tensor | Masked]:
        """Draw a value for every clamped node from the seed: (batch, *shape), or a :class:`pcgraph.Masked`."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn: dict[Hashable, Tensor | Masked] = {}
        for v in self.graph:
            shape = (batch, *net.structure.shape(v))
            values, coins = (
                torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") for _ in range(2)
            )
            if v in self.clamped:
                known = values.to(dtype=net.dtype, device=net.device)
                drawn[v] = Masked(known, (coins > 0).to(net.device)) if v in self.masked else known
        return drawn

    @property
    def free(self) -> list[Hashable]:
        """Return the nodes without a clamp."""
        return [v for v in self.graph if v not in self.clamped]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        nodes = dict(self.graph.nodes(data=True))
        clamped = [v for v in self.graph if v in self.clamped]
        multi = ", multigraph=True" if self.graph.is_multigraph() else ""
        masked = f", masked={[v for v in self.graph if v in self.masked]!r}" if self.masked else ""
        edges = [(u, v, data) if data else (u, v) for u, v, data in self.graph.edges(data=True)]
        return f"problem({nodes!r}, {edges!r}, clamped={clamped!r}, seed={self.seed}{masked}{multi})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Hypothesis and IPython print this, and not the fields."""
        printer.text(repr(self))


def problem(
    nodes: Mapping[Hashable, Mapping[str, Any]],
    edges: Iterable[tuple[Any, ...]],
    *,
    clamped: Iterable[Hashable] = (),
    seed: int = 0,
    masked: Iterable[Hashable] = (),
    multigraph: bool = False,
) -> Problem:
    """Make a :class:`Problem` from plain values, as a falsifying example prints it.

    Parameters
    ----------
    nodes : mapping from node to attributes
        In the order of declaration.
    edges : iterable of (source, target) or (source, target, attributes)
        In a multigraph, parallel edges are given several times.
    clamped : iterable of node
        Which nodes have a known value.
    seed : int
        For the weights.
    masked : iterable of node
        Which of the clamped are so in part.
    multigraph : bool
        Whether the graph is an ``nx.MultiDiGraph``.

    Examples
    --------
    >>> problem({0: {"shape": 1}, 1: {"shape": 2}}, [(0, 1)], clamped=[0], seed=7)
    problem({0: {'shape': 1}, 1: {'shape': 2}}, [(0, 1)], clamped=[0], seed=7)
    """
    graph = nx.MultiDiGraph() if multigraph else nx.DiGraph()
    graph.add_nodes_from((node, dict(data)) for node, data in nodes.items())
    graph.add_edges_from(edges)
    return Problem(graph, frozenset(clamped), seed, frozenset(masked))


def dags(
    *,
    min_nodes: int = 1,
    max_nodes: int = 8,
    max_parents: int = 3,
    max_size: int = 3,
    activations: Sequence[str] = ACTIVATIONS,
    parallel: bool = False,
    priors: bool = False,
    slots: bool = False,
) -> SearchStrategy[nx.DiGraph]:
    """Draw acyclic declarations; node i reads nodes before it.

    Parameters
    ----------
    min_nodes, max_nodes : int
        Bounds of the number of nodes.
    max_parents : int
        The most edges into one node.
    max_size : int
        The largest ``shape``; the smallest is 1.
    activations : sequence of str
        Drawn from this; ``"identity"`` is left undeclared, since it is the default.
    parallel : bool
        Draw an ``nx.MultiDiGraph``, in which the same edge may occur several times.
    priors : bool
        Give some roots a ``prior``.
    slots : bool
        Give some nodes slots, each fed by any nodes: it is the graph of main predictions that is acyclic.
    """
    offsets = _lists(st.integers(1, max(max_nodes - 1, 1)), max_parents, parallel)
    records = _records(offsets, max_size, activations, priors, max_nodes if slots else 0)
    return st.lists(records, min_size=min_nodes, max_size=max_nodes).map(
        lambda drawn: _backwards(drawn, parallel, min_nodes)
    )


def digraphs(
    *,
    min_nodes: int = 1,
    max_nodes: int = 8,
    max_parents: int = 3,
    max_size: int = 3,
    activations: Sequence[str] = ACTIVATIONS,
    self_loops: bool = True,
    parallel: bool = False,
    priors: bool = False,
    slots: bool = False,
) -> SearchStrategy[nx.DiGraph]:
    """Draw any declaration: a node reads any other, and itself if `self_loops`.

    Offsets shrink towards 1, the edge from the node before: what shrinks away first is loops and feedback.

    Parameters
    ----------
    min_nodes, max_nodes, max_parents, max_size, activations, parallel, priors, slots
        As in :func:`dags`.
    self_loops : bool
        Whether a node may read itself.
    """
    reach = range(1, max(max_nodes, 2))
    offsets = [*reach, *(-i for i in reach), *([0] if self_loops else [])]
    into = _lists(st.sampled_from(offsets), max_parents, parallel)
    records = _records(into, max_size, activations, priors, max_nodes if slots else 0)
    return st.lists(records, min_size=min_nodes, max_size=max_nodes).map(
        lambda drawn: _backwards(drawn, parallel, min_nodes)
    )


def cyclic_digraphs(
    *,
    max_nodes: int = 8,
    max_ring: int = 4,
    max_parents: int = 3,
    max_size: int = 3,
    activations: Sequence[str] = ACTIVATIONS,
    self_loops: bool = True,
    parallel: bool = False,
    priors: bool = False,
    slots: bool = False,
) -> SearchStrategy[nx.DiGraph]:
    """Draw declarations with a cycle: a ring, nodes that feed it, and nodes that read it or whatever is there.

    Parameters
    ----------
    max_nodes, max_parents, max_size, activations, parallel, priors, slots
        As in :func:`dags`; at least as many nodes as the smallest ring has.
    max_ring : int
        The most nodes in the ring; the fewest are 2, or 1 (a self-loop) if `self_loops`.
    self_loops : bool
        Whether a node may read itself.
    """
    smallest = 1 if self_loops else 2
    ring = min(max_ring, max_nodes)
    if ring < smallest:
        raise ValueError(f"a cycle needs {smallest} nodes (max_nodes={max_nodes}, max_ring={max_ring})")
    offsets = _lists(st.integers(1, max(max_nodes - 1, 1)), max_parents, parallel)
    record = _records(offsets, max_size, activations, priors, max_nodes if slots else 0)
    rest = st.lists(st.tuples(st.booleans(), record), max_size=max_nodes - smallest)
    reach = st.integers(0, max_nodes - 1)
    drawn = st.tuples(
        st.lists(record, min_size=smallest, max_size=ring), rest, st.lists(st.tuples(reach, reach), max_size=2)
    )
    return drawn.map(lambda parts: _around_ring(*parts, max_nodes, self_loops, parallel))


def problems(
    *,
    graphs: SearchStrategy[nx.DiGraph] | None = None,
    clamps: Clamping = "any",
    max_seed: int = 1000,
    rich: bool = False,
    masks: bool = False,
) -> SearchStrategy[Problem]:
    """Draw a declaration, clamps and a seed, as one value that prints as the code which makes it.

    Parameters
    ----------
    graphs : strategy, optional
        Draws the declaration; default: :func:`digraphs`.
    clamps : {"any", "some", "roots", "sweepable"}
        Any set of nodes; one that is not empty, as inference needs it; one with all roots in it; one with which a
        sweep exists (all roots, and of every cycle one node at least).
    max_seed : int
        The largest seed.
    rich : bool
        Declare more of nodes and edges: precisions, learned precisions, no bias, shapes of two dimensions, activations
        on edges, identity edges where the shapes agree, edges that do not learn.
    masks : bool
        Clamp some nodes in part.
    """
    must: Callable[[nx.DiGraph], set[int]] = {"any": _none, "some": _first, "roots": _roots, "sweepable": _sweepable}[
        clamps
    ]

    def with_clamps(graph: nx.DiGraph) -> SearchStrategy[Problem]:
        needed = must(graph)
        more = st.frozensets(st.sampled_from(list(graph)))
        partly = more if masks else st.just(frozenset())
        marks = st.sampled_from(NODE_MARKS), st.sampled_from(EDGE_MARKS)
        counts = (len(graph), graph.number_of_edges()) if rich else (0, 0)
        drawn = st.tuples(
            more,
            st.integers(0, max_seed),
            partly,
            *(st.lists(m, min_size=n, max_size=n) for m, n in zip(marks, counts)),
        )
        return drawn.map(lambda parts: made(graph, needed, *parts))

    def made(
        graph: nx.DiGraph, needed: set[int], more: frozenset[Any], seed: int, partly: frozenset[Any],
        nodes: list[dict[str, Any]], edges: list[dict[str, Any]],
    ) -> Problem:  # fmt: skip
        known = (more or frozenset(needed)) if clamps == "some" else more | needed
        return Problem(_marked(graph, nodes, edges), frozenset(known), seed, partly & frozenset(known))

    return (digraphs() if graphs is None else graphs).flatmap(with_clamps)


def _lists(offsets: SearchStrategy[int], most: int, parallel: bool) -> SearchStrategy[list[int]]:
    return st.lists(offsets, max_size=most, unique=not parallel)


def _records(
    offsets: SearchStrategy[list[int]], max_size: int, activations: Sequence[str], priors: bool, reach: int
) -> SearchStrategy[Record]:
    """Draw records whose slots, if `reach` is not zero, are fed by nodes that far away."""
    prior = st.booleans() if priors else st.just(False)
    parts = [st.integers(1, max_size), st.sampled_from(list(activations)), prior, st.booleans(), offsets]
    if reach:
        where = st.sampled_from([offset for i in range(1, max(reach, 2)) for offset in (-i, i)] + [0])
        parts.append(st.lists(st.tuples(where, st.sampled_from(list(SLOTS))), max_size=2).map(tuple))
        return st.builds(Record, *parts)
    return st.builds(_without_slots, *parts)


def _without_slots(size: int, activation: str, prior: bool, lonely: bool, offsets: list[int]) -> Record:
    return Record(size, activation, prior, lonely, offsets, ())


def _declare(records: Sequence[Record], edges: Iterable[tuple[int, int]], parallel: bool, least: int) -> nx.DiGraph:
    """Declare the nodes that have an edge or may be lonely, and the edges that lie inside; only a root has a prior."""
    inside = [(u, v) for u, v in edges if 0 <= u < len(records) and 0 <= v < len(records)]
    fed = [(i - o, i, slot) for i, r in enumerate(records) for o, slot in r.slots if 0 <= i - o < len(records)]
    if not parallel:  # then a pair of nodes has one edge
        fed = list({(u, v): (u, v, slot) for u, v, slot in fed if (u, v) not in set(inside)}.values())
    touched = {v for edge in (*inside, *fed) for v in edge[:2]}
    lonely = [i for i, record in enumerate(records) if i not in touched and not record.lonely]
    dropped = set(lonely[: max(len(records) - max(least, 1), 0)])
    number = {i: k for k, i in enumerate(i for i in range(len(records)) if i not in dropped)}
    graph = nx.MultiDiGraph() if parallel else nx.DiGraph()
    for i, k in number.items():
        activation = records[i].activation
        graph.add_node(k, shape=records[i].size, **({} if activation == "identity" else {"activation": activation}))
    graph.add_edges_from((number[u], number[v]) for u, v in inside)
    for i, k in number.items():
        if records[i].prior and graph.in_degree(k) == 0:
            graph.nodes[k]["prior"] = 0.5
    for u, v, slot in fed:
        graph.nodes[number[v]].setdefault("slots", {})[slot] = dict(SLOTS[slot])
        graph.add_edge(number[u], number[v], slot=slot)
    return graph


def _backwards(records: Sequence[Record], parallel: bool, least: int) -> nx.DiGraph:
    return _declare(records, ((i - offset, i) for i, r in enumerate(records) for offset in r.offsets), parallel, least)


def _around_ring(
    ring: list[Record],
    rest: list[tuple[bool, Record]],
    extra: list[tuple[int, int]],
    max_nodes: int,
    self_loops: bool,
    parallel: bool,
) -> nx.DiGraph:
    """Nodes before the ring are read by nodes after them, nodes after it read nodes before them."""
    rest = rest[: max_nodes - len(ring)]
    before = [record for early, record in rest if early]
    after = [record for early, record in rest if not early]
    start, stop = len(before), len(before) + len(ring)
    edges = [(i, i + 1) for i in range(start, stop - 1)] + [(stop - 1, start)]
    edges += [(i, i + offset) for i, record in enumerate(before) for offset in record.offsets if i + offset < stop]
    edges += [(i - offset, i) for i, record in enumerate(after, start=stop) for offset in record.offsets]
    edges += [(u, v) for u, v in extra if u != v or self_loops]
    return _declare([*before, *ring, *after], edges, parallel, len(ring))


def _marked(graph: nx.DiGraph, nodes: list[dict[str, Any]], edges: list[dict[str, Any]]) -> nx.DiGraph:
    """Declare more of a graph; a mark that does not fit is dropped."""
    graph = graph.copy()
    for (_, data), mark in zip(graph.nodes(data=True), nodes):
        data.update({**mark, "shape": (1, data["shape"])} if "shape" in mark else mark)
    for (u, v, data), mark in zip(graph.edges(data=True), edges):
        if mark.get("transform") != "identity" or graph.nodes[u]["shape"] == graph.nodes[v]["shape"]:
            data.update(mark)
    return graph


def _first(graph: nx.DiGraph) -> set[int]:
    return {next(iter(graph))}


def _none(graph: nx.DiGraph) -> set[int]:
    return set()


def _main(graph: nx.DiGraph) -> nx.DiGraph:
    """Return the graph without the edges that feed slots."""
    main = nx.DiGraph()
    main.add_nodes_from(graph)
    main.add_edges_from((u, v) for u, v, slot in graph.edges(data="slot") if slot is None)
    return main


def _roots(graph: nx.DiGraph) -> set[int]:
    main = _main(graph)
    return {v for v in main if main.in_degree(v) == 0}


def _sweepable(graph: nx.DiGraph) -> set[int]:
    chosen = _roots(graph)
    rest = _main(graph)
    while not nx.is_directed_acyclic_graph(rest):
        node = nx.find_cycle(rest)[0][0]
        chosen.add(node)
        rest.remove_node(node)
    return chosen
