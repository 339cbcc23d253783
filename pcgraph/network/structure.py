"""A structure says who is connected to whom, and in which order it all lies in memory; it is validated and frozen.

Nodes of one shape form a *group*: their states lie side by side in one tensor ``(nodes, batch, *shape)``. Edges
that do the same between the same two groups form a *bucket*: their weights lie side by side in one tensor
``(edges, out, in)``. Inside a group nodes are sorted by what is computed for them (activation, energy) and then
topologically, so that neighbouring layers of a chain are slices of one buffer; inside a bucket edges are sorted by
target, then source, so that a bucket of scalar edges is a CSR matrix as it stands.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray

from pcgraph import activations
from pcgraph.activations import Activation
from pcgraph.energies import Energy, Gaussian
from pcgraph.errors import ClampError, GraphError, nearest
from pcgraph.network.adjacency import Adjacency, Index
from pcgraph.network.copying import pairs_of
from pcgraph.network.declaration import Edges, EdgeSpec, Nodes, NodeSpec, read_edges, read_nodes, show
from pcgraph.network.inits import Init
from pcgraph.network.layout import NodeOrder, order_nodes
from pcgraph.network.trial import Trial
from pcgraph.transforms import Transform

__all__ = ["Bucket", "Group", "Segment", "Structure"]

Node = Hashable
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Nodes of one shape lie side by side: they have the canonical numbers `start` to `start + count - 1`."""

    shape: Shape
    start: int
    count: int

    @cached_property
    def size(self) -> int:
        """One node has so many neurons."""
        return math.prod(self.shape)

    @cached_property
    def name(self) -> str:
        """The shape is written so in a parameter's name, as in ``bias_28x28``."""
        return "x".join(map(str, self.shape))


@dataclass(frozen=True, eq=False)
class Segment:
    """For these neighbours in a group the same elementwise work is done.

    `start` and `stop` are positions in the group. `energy` is None for roots without a prior.
    """

    group: int
    start: int
    stop: int
    activation: Activation
    energy: Energy | None
    precision: NDArray[np.float64] | None
    is_root: bool

    @property
    def gaussian(self) -> bool:
        """The energy is the default one, whose precisions are kept in `precision`."""
        return type(self.energy) is Gaussian


@dataclass(frozen=True, eq=False)
class Bucket:
    """Edges that do the same lie side by side: they have the canonical numbers `start` to `stop - 1`.

    Attributes
    ----------
    kind : {"linear", "sparse", "identity", "module"}
    name : str
        Of its parameter, or of its module, in the network.
    source_group, target_group : int
    phi : Activation
        What the edge does to the source's state first.
    transform : Transform
    trainable : bool
    weight : ndarray or None
        Which row of the parameter each edge uses; None where edge i uses row i.
    rows : int
        Rows of the parameter.
    scale : float
        The factor of all that the edges send.
    """

    kind: str
    name: str
    source_group: int
    target_group: int
    start: int
    stop: int
    phi: Activation
    transform: Transform
    trainable: bool
    weight: Index | None
    rows: int
    scale: float = 1.0

    @property
    def count(self) -> int:
        """The bucket holds so many edges."""
        return self.stop - self.start

    @property
    def keeps_zero(self) -> bool:
        """A source that is zero adds nothing to its targets."""
        return self.kind != "module" and self.phi.at_zero == 0.0

    @property
    def learns(self) -> bool:
        """These edges have weights that are declared trainable."""
        return self.trainable and self.kind != "identity"

    def entries(self, groups: tuple[Group, ...]) -> int:
        """Count the weights of one edge that the network keeps."""
        a, z = groups[self.source_group], groups[self.target_group]
        if self.kind == "linear":
            return a.size * z.size
        return self.pattern(groups).shape[1] if self.kind == "sparse" else 0

    def pattern(self, groups: tuple[Group, ...]) -> torch.Tensor:
        """Return the stored entries of a sparse edge, shape (2, entries), by target and then by source."""
        stored = self.transform.entries(groups[self.source_group].shape, groups[self.target_group].shape)
        assert stored is not None
        return stored


class Structure:
    """A structure is all of a network but its numbers. It is built once and never changed.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
        The declaration; it is read, not kept.
    pairs : pair of ndarray, optional
        What :func:`pcgraph.network.copying.pairs_of` says of the graph, where it is known.
    like : Tensor, optional
        States will have its type and lie on its device; what is a user's own is tried on such.

    Attributes
    ----------
    nodes : tuple
        Node names in canonical order.
    groups : tuple of Group
    segments : tuple of Segment
    buckets : tuple of Bucket
    source, target : ndarray of int64, shape (edges,)
        Canonical numbers of each edge's ends, edges in canonical order.
    has_energy : ndarray of bool, shape (nodes,)
        V_E: nodes with a parent, and roots with a prior.
    priors : dict
        Canonical number of a root with a prior -> its value.
    inits : dict
        Canonical number of an edge that says how its weights are drawn -> how.
    """

    def __init__(
        self, graph: nx.DiGraph, pairs: tuple[Index, Index] | None = None, like: torch.Tensor | None = None
    ) -> None:
        if not isinstance(graph, nx.Graph) or not graph.is_directed():
            raise GraphError(
                f"a network is declared as nx.DiGraph or nx.MultiDiGraph (found {type(graph).__name__}); "
                + (
                    "for an undirected graph say which way predictions go, or use graph.to_directed() for both"
                    if isinstance(graph, nx.Graph)
                    else "pcgraph.graphs.chain([784, 512, 10]) makes one from sizes"
                ),
                found=type(graph).__name__,
            )
        if len(graph) == 0:
            raise GraphError("a network needs at least one node (found an empty graph)")
        pairs = pairs_of(graph) if pairs is None else pairs
        trial = Trial(torch.empty(0) if like is None else like)
        nodes = read_nodes(graph, trial)
        order = order_nodes(nodes, *pairs)
        self._lay_out_nodes(nodes, order)
        self._lay_out_edges(read_edges(graph, pairs), np.argsort(order.declared), trial)

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _lay_out_nodes(self, nodes: Nodes, order: NodeOrder) -> None:
        which, specs = nodes.which[order.declared], nodes.specs
        self.nodes: tuple[Node, ...] = tuple(nodes.names[i] for i in order.declared.tolist())
        self.number: dict[Node, int] = {node: i for i, node in enumerate(self.nodes)}
        self.groups: tuple[Group, ...] = tuple(Group(shape, start, stop - start) for shape, start, stop in order.groups)
        counts = [g.count for g in self.groups]
        self.rank, self.is_root = order.rank, order.is_root
        self.group_of: Index = np.repeat(np.arange(len(counts)), counts)
        self.position: Index = np.concatenate([np.arange(count) for count in counts])
        prior = np.array([spec.prior is not None for spec in specs])[which]
        self.priors: dict[int, torch.Tensor] = {i: specs[which[i]].prior for i in np.flatnonzero(prior).tolist()}
        for i in np.flatnonzero(prior & ~self.is_root).tolist():
            raise GraphError(
                f"node {self.nodes[i]!r} has a prior and incoming edges: a prior is the prediction of a root; "
                "remove it, or remove the edges",
                where=self.nodes[i],
            )
        self.has_energy: NDArray[np.bool_] = ~self.is_root | prior
        self.has_bias: NDArray[np.bool_] = np.array([spec.bias for spec in specs])[which] & ~self.is_root
        precision = np.array([spec.precision for spec in specs])[which]
        self.segments: tuple[Segment, ...] = tuple(
            self._segment(specs[which[start]], start, precision[start:stop]) for start, stop in order.segments
        )

    def _segment(self, spec: NodeSpec, first: int, precision: NDArray[np.float64]) -> Segment:
        root = bool(self.is_root[first])
        group, start = self.place(first)
        return Segment(
            group, start, start + len(precision),
            activations.get(None) if root else spec.activation,
            spec.energy if self.has_energy[first] else None,
            None if (precision == 1.0).all() else precision,
            root,
        )  # fmt: skip

    # -- edges ----------------------------------------------------------------------------------------------------

    def _lay_out_edges(self, edges: Edges, canonical: Index, trial: Trial) -> None:
        src, dst, count = canonical[edges.source], canonical[edges.target], len(self.groups)
        label = (edges.which * count + self.group_of[src]) * count + self.group_of[dst]
        order = np.lexsort((src, dst, label))
        self.source: Index = src[order]
        self.target: Index = dst[order]
        self._declared_position: Index = order
        self._keys = edges.keys
        at = np.argsort(order) if edges.inits else order
        self.inits: dict[int, Init] = {int(at[i]): init for i, init in edges.inits.items()}
        starts = np.flatnonzero(np.diff(label[order], prepend=-1))
        stops = np.append(starts[1:], len(label))
        self.bucket_of: Index = np.repeat(np.arange(len(starts)), stops - starts)
        buckets: list[Bucket] = []
        names: dict[str, int] = {}
        seen_shares: dict[Hashable, int] = {}
        for b, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist())):
            spec = edges.specs[edges.which[order[start]]]
            buckets.append(self._bucket(spec, b, start, stop, edges.shared, seen_shares, names))
            self._try(buckets[-1], trial)
        self.buckets: tuple[Bucket, ...] = tuple(buckets)

    def _bucket(
        self, spec: EdgeSpec, b: int, start: int, stop: int,
        shared: dict[int, Hashable], seen_shares: dict[Hashable, int], names: dict[str, int],
    ) -> Bucket:  # fmt: skip
        source, target = int(self.group_of[self.source[start]]), int(self.group_of[self.target[start]])
        a, z = self.groups[source], self.groups[target]
        try:
            found = spec.transform.fits(a.shape, z.shape)
        except GraphError as error:
            raise GraphError(f"{show(self.edge(start))}: {error}", where=self.edge(start), found=error.found) from error
        if found is not None:
            where = self.edge(start)
            raise GraphError(
                f"{show(where)}: the transform {type(spec.transform).__name__} leads from shape {a.shape} to {found}, "
                f"but {where[1]!r} has shape {z.shape}; change the target's shape to {found}, or the transform",
                where=where,
                found=found,
            )
        weight, rows = None, stop - start
        if shared:
            keys = [shared.get(int(i)) for i in self._declared_position[start:stop]]
            weight, rows = self._share(keys, b, start, seen_shares)
        name = f"{spec.kind}_{a.name}_to_{z.name}"
        if not spec.phi.is_identity:
            name += f"_after_{spec.phi.name}"
        if not spec.trainable:
            name += "_fixed"
        if spec.scale != 1.0:
            name += f"_times_{spec.scale:g}"
        name = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
        return Bucket(
            spec.kind,
            _unused(name, names),
            source,
            target,
            start,
            stop,
            spec.phi,
            spec.transform,
            spec.trainable,
            weight,
            rows,
            spec.scale,
        )

    def _try(self, bucket: Bucket, trial: Trial) -> None:
        where = self.edge(bucket.start)
        shape, out_shape = self.groups[bucket.source_group].shape, self.groups[bucket.target_group].shape
        trial.activation(show(where), where, bucket.phi, shape)
        if bucket.kind == "module":
            trial.transform(show(where), where, bucket.transform, shape, out_shape)

    def _share(
        self, keys: list[Hashable | None], b: int, start: int, seen: dict[Hashable, int]
    ) -> tuple[Index | None, int]:
        if all(key is None for key in keys):
            return None, len(keys)
        row_of: dict[Hashable, int] = {}
        first: dict[Hashable, int] = {}
        weight, rows = [], 0
        for i, key in enumerate(keys):
            if key is not None and seen.setdefault(key, b) != b:
                where = self.edge(start + i)
                raise GraphError(
                    f"{show(where)} shares the weight {key!r} with an edge of another transform, shape, activation, "
                    "scale or trainability; edges that share a weight must agree in all of them",
                    where=where,
                    found=key,
                )
            if key is not None and self.inits.get(start + i) != self.inits.get(start + first.setdefault(key, i)):
                where = self.edge(start + i)
                raise GraphError(
                    f"{show(where)} shares the weight {key!r} with {show(self.edge(start + first[key]))}, which has "
                    "another init; one weight is drawn in one way: give both the same",
                    where=where,
                    found=self.inits.get(start + i),
                )
            if key is None or key not in row_of:
                weight.append(rows)
                if key is not None:
                    row_of[key] = rows
                rows += 1
            else:
                weight.append(row_of[key])
        return np.array(weight, dtype=np.int64), rows

    def with_modules_of(self, memo: dict[int, Any]) -> Structure:
        """Return the same structure with the modules that :func:`copy.deepcopy` has made, or makes, of its own."""
        twin = copy.copy(self)
        twin.buckets = tuple(replace(b, transform=copy.deepcopy(b.transform, memo)) for b in self.buckets)
        twin.segments = tuple(
            segment if segment.gaussian else replace(segment, energy=copy.deepcopy(segment.energy, memo))
            for segment in self.segments
        )
        return twin

    # -- look-ups -------------------------------------------------------------------------------------------------

    def edge(self, i: int) -> tuple[Any, ...]:
        """Return the declared edge ``(u, v)`` or ``(u, v, key)`` with canonical number `i`."""
        ends = (self.nodes[self.source[i]], self.nodes[self.target[i]])
        return ends if self._keys is None else (*ends, self._keys[self._declared_position[i]])

    def edge_number(self, u: Node, v: Node, key: Hashable | None = None) -> int:
        """Return the canonical number of an edge.

        Raises
        ------
        GraphError
            There is no such edge, or several parallel ones and no key.
        """
        for node in (u, v):
            self.require_node(node)
        found = self._between(u, v)
        if key is not None:
            found = np.array([i for i in found if self.edge(int(i))[2:] == (key,)], dtype=np.int64)
        if len(found) == 0:
            text = f" with key {key!r}" if key is not None else ""
            turned = len(self._between(v, u)) and key is None
            hint = f": it goes the other way, {v!r} -> {u!r}" if turned else ""
            raise GraphError(f"there is no edge {u!r} -> {v!r}{text}{hint}", where=(u, v))
        if len(found) > 1:
            keys = sorted(repr(self.edge(int(i))[2]) for i in found)
            raise GraphError(
                f"there are {len(found)} parallel edges {u!r} -> {v!r}: give the key, one of {', '.join(keys)}",
                where=(u, v),
            )
        return int(found[0])

    def _between(self, u: Node, v: Node) -> Index:
        """Return the canonical numbers of the edges from `u` to `v`, by a look at those of the end that has fewer."""
        out, into = self.by_source.at(self.number[u]), self.by_target.at(self.number[v])
        few = out if len(out) <= len(into) else into
        found: Index = few[(self.source[few] == self.number[u]) & (self.target[few] == self.number[v])]
        return found

    def require_node(self, node: Node, error: type[GraphError] | type[ClampError] = GraphError) -> int:
        """Return the canonical number of `node`; raise `error`, with the nearest name, if there is no such node."""
        try:
            return self.number[node]
        except (KeyError, TypeError):
            guess = nearest(node, [n for n in self.nodes if isinstance(n, str)]) if isinstance(node, str) else None
            some = ", ".join(map(repr, self.nodes[:12])) + (", …" if len(self.nodes) > 12 else "")
            hint = f"; did you mean {guess!r}?" if guess else f" (found {some})"
            raise error(f"there is no node {node!r} in the graph{hint}") from None

    def shape(self, node: Node) -> Shape:
        """Return the shape of a node's state, without the batch."""
        return self.groups[int(self.group_of[self.require_node(node)])].shape

    def place(self, i: int) -> tuple[int, int]:
        """Return group and position in it of the node with canonical number `i`."""
        return int(self.group_of[i]), int(self.position[i])

    @cached_property
    def by_source(self) -> Adjacency:
        """Edges are found here by the node that they come from."""
        return Adjacency(self.source, len(self.nodes))

    @cached_property
    def by_target(self) -> Adjacency:
        """Edges are found here by the node that they lead to."""
        return Adjacency(self.target, len(self.nodes))

    @cached_property
    def segment_of(self) -> Index:
        """Each node belongs to the segment with this number in `segments`, shape (nodes,)."""
        return np.repeat(np.arange(len(self.segments)), [segment.stop - segment.start for segment in self.segments])

    def nodes_of(self, segment: Segment) -> slice:
        """Return the canonical numbers of a segment's nodes."""
        start = self.groups[segment.group].start
        return slice(start + segment.start, start + segment.stop)

    @cached_property
    def fan_in(self) -> Index:
        """So many neurons reach one of each node through weighted edges (on average, if sparse), shape (nodes,)."""
        result = np.zeros(len(self.nodes), dtype=np.int64)
        for bucket in self.buckets:
            size = bucket.transform.fan_in(self.groups[bucket.source_group].shape)
            if bucket.kind == "sparse":
                size = -(-bucket.entries(self.groups) // self.groups[bucket.target_group].size)
            if size:
                np.add.at(result, self.target[bucket.start : bucket.stop], size)
        return result


def _unused(name: str, names: dict[str, int]) -> str:
    """Number a name that is taken: `names` counts how often each was asked for."""
    count = names.get(name, 0) + 1
    unused = name
    while count > 1 and (unused := f"{name}_{count}") in names:  # "f" for the second time, where one is called "f_2"
        count += 1
    names[name] = count
    names.setdefault(unused, 1)
    return unused
