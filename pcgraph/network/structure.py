"""A structure says who is connected to whom, and in which order it all lies in memory; it is validated and frozen.

Nodes of one shape form a *group*: their states lie side by side in one tensor ``(nodes, batch, *shape)``. Edges
that do the same between the same two groups form a *bucket*: their weights lie side by side in one tensor
``(edges, out, in)``. Inside a group nodes are sorted by what is computed for them (activation, energy) and then
topologically, so that neighbouring layers of a chain are slices of one buffer; inside a bucket edges are sorted by
target, then source, so that a bucket of scalar edges is a CSR matrix as it stands.

A further prediction of a node, a slot, is a node of its own behind all others, in groups of slots. The edges that feed
it lead to it, and a *tie* from its node makes its state that of the node.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pcgraph import activations
from pcgraph.arguments import shown
from pcgraph.errors import ClampError, GraphError, nearest, said_by
from pcgraph.network.adjacency import Adjacency, Index
from pcgraph.network.biases import by_channel
from pcgraph.network.copying import pairs_of
from pcgraph.network.declaration import Edges, EdgeSpec, Nodes, NodeSpec, read_edges, read_nodes, show
from pcgraph.network.inits import Init
from pcgraph.network.joint import Joint, JointPrediction, try_joint
from pcgraph.network.layout import NodeOrder, by_graph_layers, order_nodes
from pcgraph.network.parts import Bucket, Group, Segment, unused_name
from pcgraph.network.sharing import Shares, apart, require_transposed
from pcgraph.network.slots import MAIN, Slot
from pcgraph.network.trial import Trial
from pcgraph.transforms import Embedding, Transform

__all__ = ["Structure"]

Node = Hashable
Shape = tuple[int, ...]


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
        Node names in canonical order; last the slots, each a :class:`~pcgraph.network.Slot`.
    declared : tuple
        Those that are no slots.
    slots : dict
        Slot -> canonical number.
    groups : tuple of Group
    segments : tuple of Segment
    buckets : tuple of Bucket
    source, target : ndarray of int64, shape (edges,)
        Canonical numbers of each edge's ends, edges in canonical order.
    is_tie : ndarray of bool, shape (edges,)
        Edges that hand the state of a node to one of its slots, and what pulls at the slot back to the node.
    has_energy : ndarray of bool, shape (nodes,)
        V_E: nodes with a parent, and roots with a prior; and all slots.
    has_bias : ndarray of bool, shape (nodes,)
    shared_biases : dict
        Canonical number of a node whose bias neurons share -> the shape of the bias, which broadcasts to the node's.
    priors : dict
        Canonical number of a root, or of a slot, with a prior -> its value.
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
        trial = Trial(torch.empty(0, device="cpu") if like is None else like)
        nodes = read_nodes(graph, trial)
        edges = read_edges(graph, pairs, nodes)
        order = order_nodes(nodes, *((edges.source, edges.target) if len(nodes.owners) else pairs))
        self._lay_out_nodes(nodes, order)
        self._find_biases(nodes, order, by_graph_layers(edges, len(nodes.names)))
        self._lay_out_edges(edges, np.argsort(order.declared), trial)

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _lay_out_nodes(self, nodes: Nodes, order: NodeOrder) -> None:
        which, specs = nodes.which[order.declared], nodes.specs
        self.nodes: tuple[Node, ...] = tuple(nodes.names[i] for i in order.declared.tolist())
        count = len(self.nodes) - len(nodes.owners)
        self.declared = self.nodes[:count]
        self.number: dict[Node, int] = {node: i for i, node in enumerate(self.declared)}
        self.slots: dict[Node, int] = {slot: i for i, slot in enumerate(self.nodes[count:], count)}
        self.groups: tuple[Group, ...] = tuple(
            Group(shape, start, stop - start, start >= count) for shape, start, stop in order.groups
        )
        counts = [g.count for g in self.groups]
        self.rank, self.is_root = order.rank, order.is_root
        self.group_of: Index = np.repeat(np.arange(len(counts)), counts)
        self.position: Index = np.concatenate([np.arange(count) for count in counts])
        self.has_bias: NDArray[np.bool_]
        self.shared_biases: dict[int, Shape] = {}
        prior = np.array([spec.prior is not None for spec in specs])[which]
        self.priors: dict[int, torch.Tensor] = {i: specs[which[i]].prior for i in np.flatnonzero(prior).tolist()}
        for i in np.flatnonzero((prior & ~self.is_root)[:count]).tolist():
            raise GraphError(
                f"node {self.nodes[i]!r} has a prior and incoming edges: a prior is the prediction of a root; beside "
                "others it is a slot: slots={'decay': {'prior': 0.0, 'precision': 0.1}}; or remove it, or the edges",
                where=self.nodes[i],
            )
        self.has_energy: NDArray[np.bool_] = ~self.is_root | prior
        precision = np.array([spec.precision for spec in specs])[which]
        self.segments: tuple[Segment, ...] = tuple(
            self._segment(specs[which[start]], start, precision[start:stop]) for start, stop in order.segments
        )

    def _find_biases(self, nodes: Nodes, order: NodeOrder, alike: NDArray[np.bool_]) -> None:
        which, alike = nodes.which[order.declared], alike[order.declared]
        said = [spec.bias for spec in nodes.specs]
        prior = np.array([spec.prior is not None for spec in nodes.specs])[which]
        self.has_bias = np.array([bias is not False for bias in said])[which] & ~self.is_root & ~prior
        few = [isinstance(bias, tuple) for bias in said]
        silent = np.array([bias is None for bias in said])[which] & alike
        for i in np.flatnonzero((np.array(few)[which] | silent) & self.has_bias).tolist():
            own, shape = said[which[i]], self.groups[int(self.group_of[i])].shape
            shared = own if isinstance(own, tuple) else by_channel(shape)
            if shared is not None and shared != shape:
                self.shared_biases[i] = shared

    def bias_packs(self) -> Iterator[tuple[str, Index]]:
        """Yield (name, nodes) of the tensors in which biases lie, by canonical number."""
        few = np.zeros(len(self.nodes), dtype=bool)
        few[list(self.shared_biases)] = True
        for group in self.groups:
            own = np.arange(group.start, group.start + group.count)
            own = own[self.has_bias[own] & ~few[own]]
            if len(own):
                yield f"bias_{group.name}", own
        names: dict[str, list[int]] = {}
        for i in sorted(self.shared_biases):
            names.setdefault(self.bias_name(i), []).append(i)
        yield from ((name, np.array(nodes)) for name, nodes in names.items())

    def bias_shape(self, i: int) -> Shape:
        """Return the shape of the bias of the node with canonical number `i`: its own, or one that broadcasts to it."""
        return self.shared_biases.get(i, self.groups[int(self.group_of[i])].shape)

    def bias_name(self, i: int) -> str:
        """Return the name of the packed tensor in which that bias lies."""
        name = f"bias_{self.groups[int(self.group_of[i])].name}"
        own = self.shared_biases.get(i)
        return name if own is None else f"{name}_by_{'x'.join(map(str, own))}"

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
        self._keys = edges.keys
        label = apart(
            (edges.which * count + self.group_of[src]) * count + self.group_of[dst], edges,
            lambda i: self._named(int(src[i]), int(dst[i]), edges.keys[i] if edges.keys else None),
        )  # fmt: skip
        order = np.lexsort((src, dst, label))
        self.source: Index = src[order]
        self.target: Index = dst[order]
        self._declared_position: Index = order
        self.is_tie: NDArray[np.bool_] = order >= len(order) - len(self.slots)
        at = np.argsort(order) if edges.inits or edges.shared else order
        self.inits: dict[int, Init] = {int(at[i]): init for i, init in edges.inits.items()}
        shares = Shares({int(at[i]): key for i, key in edges.shared.items()}, self.inits, self.edge)
        starts = np.flatnonzero(np.diff(label[order], prepend=-1))
        stops = np.append(starts[1:], len(label))
        self.bucket_of: Index = np.repeat(np.arange(len(starts)), stops - starts)
        buckets: list[Bucket] = []
        names: dict[str, int] = {}
        for b, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist())):
            spec = edges.specs[edges.which[order[start]]]
            weight: Index | None
            rows, owner = 0, None
            if spec.kind == "transposed":
                first, weight = shares.owner(start, stop)
                owner = buckets[first]
            else:
                weight, rows = shares.rows(b, start, stop)
            buckets.append(self._bucket(spec, start, stop, weight, rows, owner, names))
            self._try(buckets[-1], trial)
        self.buckets: tuple[Bucket, ...] = tuple(buckets)
        #: Canonical number of a node with a combine -> the numbers of the edges that play roles in it.
        self.joint: dict[int, tuple[int, ...]] = {}
        for bucket in self.buckets:
            if bucket.kind == "joint":
                i = int(self.target[bucket.start])
                self.joint[i] = (*self.joint.get(i, ()), bucket.start)
        predictions = [(i, self.joint_prediction(i)) for i in self.joint]
        for i, prediction in predictions:
            try_joint(self.nodes[i], self.groups[int(self.group_of[i])].shape, prediction, trial)

    def _bucket(
        self, spec: EdgeSpec, start: int, stop: int, weight: Index | None, rows: int, owner: Bucket | None,
        names: dict[str, int],
    ) -> Bucket:  # fmt: skip
        source, target = int(self.group_of[self.source[start]]), int(self.group_of[self.target[start]])
        a, z = self.groups[source], self.groups[target]
        try:
            found = spec.transform.fits(a.shape, z.shape)
        except GraphError as error:
            raise GraphError(f"{show(self.edge(start))}: {error}", where=self.edge(start), found=error.found) from error
        except Exception as error:  # a class of somebody's own may raise what it likes
            raise GraphError(
                f"{show(self.edge(start))}: output_shape({a.shape}) of the transform {type(spec.transform).__name__} "
                f"fails, and must return the shape that it leads to: {said_by(error)}",
                where=self.edge(start),
                found=spec.transform,
            ) from error
        if found is not None:
            where = self.edge(start)
            raise GraphError(
                f"{show(where)}: the transform {type(spec.transform).__name__} leads from shape {a.shape} to {found}, "
                f"but {where[1]!r} has shape {z.shape}; change the target's shape to {found}, or the transform",
                where=where,
                found=found,
            )
        name = f"{spec.kind}_{a.name}_to_{z.name}"
        if not spec.phi.is_identity:
            name += f"_after_{spec.phi.name}"
        if not spec.trainable:
            name += "_fixed"
        if spec.scale != 1.0:
            name += f"_times_{spec.scale:g}"
        name = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
        bucket = Bucket(
            spec.kind, unused_name(name, names), source, target, start, stop, spec.phi, spec.transform, spec.trainable,
            weight, rows, spec.scale, None if owner is None else owner.name,
        )  # fmt: skip
        if owner is not None:
            require_transposed(self.edge(start), bucket, owner, self.groups)
        return bucket

    def _try(self, bucket: Bucket, trial: Trial) -> None:
        where = self.edge(bucket.start)
        shape, out_shape = self.groups[bucket.source_group].shape, self.groups[bucket.target_group].shape
        trial.activation(show(where), where, bucket.phi, shape)
        if bucket.kind == "module":
            trial.transform(show(where), where, bucket.transform, shape, out_shape)

    @cached_property
    def tokens(self) -> dict[int, int]:
        """Map each node that embeddings alone read to how many tokens the smallest of them knows."""
        found: dict[int, int] = {}
        for bucket in self.buckets:
            known = bucket.transform.tokens if isinstance(bucket.transform, Embedding) else 0
            for i in self.source[bucket.start : bucket.stop].tolist() if known or found else ():
                found[i] = min(found.get(i, known), known)
        return {i: count for i, count in found.items() if count}

    def joint_prediction(self, i: int) -> JointPrediction:
        """Return what the edges into the node with canonical number `i` make together of their sources' states."""
        buckets = [self.buckets[int(self.bucket_of[e])] for e in self.joint[i]]
        shapes = [self.groups[b.source_group].shape for b in buckets]
        return JointPrediction([(cast(Joint, b.transform), b.phi, b.scale) for b in buckets], shapes)

    def transform(self, i: int) -> Transform:
        """Return the transform of the edge with canonical number `i`, as it was declared."""
        found = self.buckets[int(self.bucket_of[i])].transform
        return found.inner if isinstance(found, Joint) else found

    def combine(self, i: int) -> nn.Module:
        """Return the combine of the node with canonical number `i`, which has one."""
        return cast(Joint, self.joint_prediction(i).edges[0]).combine

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
        """Return the declared edge ``(u, v)`` or ``(u, v, key)`` with canonical number `i`; of a tie, node and slot."""
        if self.is_tie[i]:
            return self.nodes[self.source[i]], self.nodes[self.target[i]]
        key = None if self._keys is None else self._keys[self._declared_position[i]]
        return self._named(int(self.source[i]), int(self.target[i]), key)

    def _named(self, u: int, v: int, key: Hashable) -> tuple[Any, ...]:
        """Name an edge as the graph has it, by the canonical numbers of its ends."""
        target = self.nodes[v]
        ends = (self.nodes[u], target.node if isinstance(target, Slot) else target)
        return ends if self._keys is None else (*ends, key)

    def slot_name(self, i: int) -> str:
        """Return which of its target's predictions the edge with canonical number `i` feeds: a slot, or "main"."""
        v = self.nodes[self.target[i]]
        return v.name if isinstance(v, Slot) else MAIN

    def edge_number(self, u: Node, v: Node, key: Hashable | None = None, slot: str | None = None) -> int:
        """Return the canonical number of an edge.

        Parameters
        ----------
        u, v : node
        key : hashable, optional
            Which of several parallel edges.
        slot : str, optional
            Which prediction of `v` it feeds; "main" is the main one.

        Raises
        ------
        GraphError
            There is no such edge, or several parallel ones and neither key nor slot tells which.
        """
        self.require_node(u)
        self.require_prediction(v, slot)
        found = self._between(u, v)
        if key is not None:
            found = np.array([i for i in found if self.edge(int(i))[2:] == (key,)], dtype=np.int64)
        if slot is not None:
            found = np.array([i for i in found if self.slot_name(int(i)) == slot], dtype=np.int64)
        if len(found) == 0:
            text = f" with key {key!r}" if key is not None else ""
            text += f" into the {slot} prediction" if slot == MAIN else f" into the slot {slot!r}" if slot else ""
            turned = len(self._between(v, u)) and not text
            hint = f": it goes the other way, {v!r} -> {u!r}" if turned else ""
            raise GraphError(f"there is no edge {u!r} -> {v!r}{text}{hint}", where=(u, v))
        if len(found) > 1:
            keys = ", ".join(sorted(repr(self.edge(int(i))[2]) for i in found))
            slots = sorted({self.slot_name(int(i)) for i in found})
            also = f", or the slot, one of {', '.join(map(repr, slots))}" if len(slots) > 1 else ""
            raise GraphError(
                f"there are {len(found)} parallel edges {u!r} -> {v!r}: give the key, one of {keys}{also}",
                where=(u, v),
            )
        return int(found[0])

    def _between(self, u: Node, v: Node) -> Index:
        """Return the canonical numbers of the edges from `u` to `v`, by a look at those of the end that has fewer."""
        into = [self.number[v], *self.slots_of(v)]
        found: list[Index] = []
        out = self.by_source.at(self.number[u])
        for i in into:
            to = self.by_target.at(i)
            few = out if len(out) <= len(to) else to
            found.append(few[(self.source[few] == self.number[u]) & (self.target[few] == i)])
        every = np.concatenate(found)
        return every[~self.is_tie[every]]

    def feeds_main(self, i: int) -> bool:
        """Tell whether the node with canonical number `i` is read by some node's main prediction."""
        return bool((self.target[self.by_source.at(i)] < len(self.declared)).any())

    def slots_of(self, v: Node) -> list[int]:
        """Return the canonical numbers of a node's slots."""
        if not self.slots:
            return []
        out = self.by_source.at(self.require_node(v))
        return self.target[out[self.is_tie[out]]].tolist()  # type: ignore[no-any-return]

    def require_prediction(self, node: Node, slot: str | None = None) -> int:
        """Return the canonical number under which a node's main prediction (None, or "main"), or a slot of it, goes.

        A slot may be asked for as ``(node, slot)``, too, which is what results call it.

        Raises
        ------
        GraphError
            There is no such node, or no such slot; with the nearest name.
        """
        if slot is None and self._is_slot(node) and node not in self.number:
            return self.slots[node]
        i = self.require_node(node)
        if slot is None or slot == MAIN:
            return i
        if not isinstance(slot, str) or (node, slot) not in self.slots:
            known = [self.nodes[k].name for k in self.slots_of(node)]  # type: ignore[attr-defined]
            guess = nearest(slot, known) if isinstance(slot, str) else None
            have = ", ".join(map(repr, [*known, MAIN])) if known else "none"
            hint = f": did you mean {guess!r}?" if guess else f" (found {have})"
            raise GraphError(f"node {node!r} has no slot {shown(slot)}{hint}", where=node, found=slot)
        return self.slots[node, slot]

    def require_node(self, node: Node, error: type[GraphError] | type[ClampError] = GraphError) -> int:
        """Return the canonical number of `node`; raise `error`, with the nearest name, if there is no such node."""
        try:
            return self.number[node]
        except (KeyError, TypeError):
            guess = nearest(node, [n for n in self.nodes if isinstance(n, str)]) if isinstance(node, str) else None
            some = ", ".join(map(repr, self.declared[:12])) + (", …" if len(self.declared) > 12 else "")
            hint = f"; did you mean {guess!r}?" if guess else f" (found {some})"
            if isinstance(node, list):
                hint = ": name one node, and no list of them"
            elif self._is_slot(node):
                hint = f": it is a slot of {node[0]!r}, and has no state of its own"  # type: ignore[index]
            raise error(f"there is no node {shown(node)} in the graph{hint}") from None

    def _is_slot(self, node: Any) -> bool:
        try:
            return node in self.slots
        except TypeError:
            return False

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

    @property
    def edge_count(self) -> int:
        """So many edges are declared."""
        return len(self.source) - len(self.slots)

    @property
    def declared_edges(self) -> list[int]:
        """Return the canonical numbers of the edges in the order of the declaration, without ties."""
        order = np.argsort(self._declared_position)
        return order[: self.edge_count].tolist()  # type: ignore[no-any-return]

    @cached_property
    def owner(self) -> Index:
        """Say whose state each node has: its own, or if it is a slot its node's; canonical numbers, shape (nodes,)."""
        found: Index = np.arange(len(self.nodes))
        found[self.target[self.is_tie]] = self.source[self.is_tie]
        return found

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
