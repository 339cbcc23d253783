"""The tables of fused launches say which program computes which tile of which node, and where its numbers lie."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcgraph.backends.torch.calls import Rows, numbers, rows
from pcgraph.backends.torch.kernels import Kernel
from pcgraph.backends.torch.workspace import Workspace
from pcgraph.backends.traits import Traits
from pcgraph.backends.triton.choices import (
    ENERGIES,
    division,
    early,
    known,
    number_of,
    plain_tile,
    precision_of,
    priced,
    tile_for,
)  # fmt: skip
from pcgraph.plan.operations import Index

__all__ = [
    "ADAM", "BARE", "BIAS", "COMPARE", "COPY", "DENSE", "EDGE", "ENERGY", "EVENLY", "FEW", "KEEP", "MOMENTUM",
    "NESTEROV", "NODE", "NONE", "OWN", "PLAIN", "ROW", "SHIFT", "SWEEP", "UNALIGNED", "Entries", "Places",
    "Scattered", "Turned", "sorted_keys",
]  # fmt: skip

#: Columns of the table of nodes. Offsets are `NONE` for what is not there; `flags` says what is done at the node.
NODE = ("size", "h", "a", "m", "e", "s", "start", "bias", "sigma", "flags", "low", "high")
#: Columns of the table of edges, those of a node beside each other: `far` is the state, or signal, at the other end.
EDGE = ("far", "width", "weight", "phi", "kind")
#: Columns of the table of weights: how large one is, and which edges share it; of a bias, the one node.
ROW = ("out", "in", "low", "high", "phi", "kind")
#: Kinds of edges and gradients: products whose rows begin where the card likes it; identities; other products; biases.
DENSE, COPY, UNALIGNED, BIAS = 0, 1, 2, 3
#: The offset of what is not there; any other may be negative.
NONE = -(2**62)
#: The same among offsets in int32.
FEW = -(2**31)
#: What a launch does at a node: errors and signals are taken; the state becomes the prediction; what comes in is kept;
#: the gradient begins with the node's own error; the sum begins elsewhere, without its bias; its dual rises. A node is
#: "evenly" where everything of it, and each of its rows, lies at a multiple of four numbers.
COMPARE, SWEEP, KEEP, OWN, BARE, SHIFT, EVENLY = 1, 2, 4, 8, 16, 32, 64
#: Above these bits of the flags stands the number of the node's energy.
ENERGY = 8
#: How states move: not at all, their gradients are written; or by descent of one of these kinds.
PLAIN, MOMENTUM, NESTEROV, ADAM = 1, 2, 3, 4


class Entries(NamedTuple):
    """These are the stored entries of some edges, from one neuron to another; an edge between scalars is one.

    Attributes
    ----------
    edge : ndarray of int64, shape (entries,)
        The number of each entry's edge.
    source, target : ndarray of int64, shape (entries,)
        The neurons within the nodes at its ends.
    weight : ndarray of int64, shape (entries,)
        Its place in the flat weights of its bucket.
    """

    edge: Index
    source: Index
    target: Index
    weight: Index


Turned = tuple[tuple[Tensor, Tensor], ...]


class Scattered(NamedTuple):
    """These are the entries at the neurons of some nodes, in the order of the neurons, as a launch takes them.

    Attributes
    ----------
    weights : Tensor, shape (entries,)
        The weights themselves where they lie in this order, or a copy, refreshed for every run.
    far : Tensor of int32 or int64, shape (entries,)
        The offset of the state, or of the signal, at the other end, where samples lie side by side.
    ends : ndarray of int64, shape (neurons + 1,)
        Where the entries of each neuron end.
    wide : bool
        Whether samples lie apart at some of these neurons.
    align : int
        A number of which the batch and all of `far` are multiples: 4, so that as many samples are read at once, or 1.
    turned : tuple of (Tensor, Tensor)
        What is transposed before the launch: a buffer, and where its samples come to lie side by side.
    """

    weights: Tensor
    far: Tensor
    ends: Index
    wide: bool
    align: int
    turned: Turned


class Places:
    """Where everything of a workspace lies: the addresses of nodes in its buffers, and of the weights of edges.

    Attributes
    ----------
    h, a, m, e, s, bias : ndarray of int64, shape (nodes,)
        Addresses in bytes; -1 for a bias that a node has not.
    size : ndarray of int64, shape (nodes,)
    sigma : ndarray of int64, shape (nodes,)
        The number of each node's activation, or -1.
    fused : ndarray of bool, shape (edges,)
        Whether the fused kernels compute the edge.
    """

    def __init__(self, ws: Workspace, kernels: tuple[Kernel, ...], traits: Traits) -> None:
        s, self.ws, self.traits = ws.structure, ws, traits
        self.batch, self.item = ws.batch, torch.finfo(ws.dtype).bits // 8
        self.size = np.array([g.size for g in s.groups], dtype=np.int64)[s.group_of]
        stride = s.position * self.size * (ws.batch * self.item)
        made = {"h": ws.h, "a": ws.a, "m": ws.m, "e": ws.e, "s": ws.s}
        self.h, self.a, self.m, self.e, self.s = (
            np.array([buffer(g).data_ptr() for g in range(len(s.groups))], dtype=np.int64)[s.group_of] + stride
            for buffer in made.values()
        )
        self.anchor: Tensor = min((b(g) for b in made.values() for g in range(len(s.groups))), key=Tensor.data_ptr)
        self.bias = self._biases()
        codes = np.array([known(segment) for segment in s.segments])
        self.sigma = codes[s.segment_of]
        #: Scalar edges go by the kernels for scattered neurons: between nodes of one, or of stored entries.
        self.fused, self.scalar, self.alone = division(s, kernels, traits)
        self.phi, self.copies = np.zeros(len(s.source), dtype=np.int64), np.zeros(len(s.source), dtype=bool)
        self.row = np.zeros(len(s.source), dtype=np.int64)
        self._scattered: dict[Any, Scattered] = {}
        #: Transposed copies of buffers.
        self._sides: dict[tuple[str, int], Tensor] = {}
        for bucket in s.buckets:
            part = slice(bucket.start, bucket.stop)
            if self.fused[part].any():
                self.phi[part], self.copies[part] = number_of(bucket.phi), bucket.kind == "identity"
                self.row[part] = np.arange(bucket.count) if bucket.weight is None else bucket.weight
        #: The buckets whose weights the kernels learn.
        self.buckets = [
            b for b in range(len(kernels))
            if s.buckets[b].kind in ("linear", "sparse") and self.fused[s.buckets[b].start]
        ]  # fmt: skip
        tiled = self.fused & ~self.scalar
        self.plain = plain_tile(self.size)
        exact = precision_of(ws.dtype) == "tf32x3"
        self.tile, self.back = (tile_for(traits, self.size[~self.alone], ws.batch, exact, b) for b in (False, True))
        #: The number of each node's energy, -1 where it is taken beside the kernels; and what they know of it.
        self.energy, self.facts = self._energies()
        ends = (self.size[end[tiled]].max(initial=1) for end in (s.source, s.target))
        #: The neurons of the widest node at either end of a fused edge.
        self.widest = int(max(ends))
        #: What lets a launch begin before the one ahead of it has ended, where the card knows how.
        self.early = early(ws.device) if traits.early else {"EARLY": False}
        self.sigmas, self.phis, self.energies = _bits(self.sigma), _bits(self.phi[tiled]), _bits(self.energy)

    def _energies(self) -> tuple[Index, NDArray[np.float64]]:
        s = self.ws.structure
        sizes = [s.groups[x.group].size for x in s.segments]
        codes = np.array([priced(x, size, min(32, self.tile.neurons)) for x, size in zip(s.segments, sizes)])
        none = (0.0, 0.0)
        facts = np.array([
            ENERGIES[type(x.energy)](x.energy) if code > 0 and x.energy is not None else none
            for x, code in zip(s.segments, codes)
        ]).reshape(-1, 2)  # fmt: skip
        found = codes[s.segment_of]
        found[self.alone & (found != 0)] = -1
        return found, facts[s.segment_of]

    def _biases(self) -> Index:
        s, found = self.ws.structure, np.full(len(self.size), -1, dtype=np.int64)
        for group in s.groups:
            name, which = f"bias_{group.name}", slice(group.start, group.start + group.count)
            if name in self.ws.net.biases:
                row = self.ws.net.bias_row[which]
                address = self.ws.net.biases[name].data_ptr() + row * (group.size * self.item)
                found[which] = np.where(row >= 0, address, -1)
        return found

    def offsets(self, addresses: Index) -> Index:
        """Return addresses as offsets from the anchor, in numbers; an address of -1 is none."""
        return np.where(addresses == -1, NONE, (addresses - self.anchor.data_ptr()) // self.item)

    # -- tables -------------------------------------------------------------------------------------------------------

    def tiles(self, nodes: Index, edges: Index, step: int) -> Index:
        """Return a row for each tile of some neurons, from the tables of nodes and of edges."""
        width = nodes[:, 0]
        count = -(-width // step)
        entry = np.repeat(np.arange(len(width)), count)
        within = np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)
        first = edges[nodes[:, 10].clip(max=len(edges) - 1)]
        return np.concatenate([np.stack([entry, within * step], 1), nodes[entry], first[entry]], 1)

    def weights(self, edges: Index) -> tuple[Tensor, Index]:
        """Return an anchor for the weights of edges, and their addresses; 0 for identities.

        What they are copied into where they are scaled or cast is bound with the caller.
        """
        s, found = self.ws.structure, np.zeros(len(edges), dtype=np.int64)
        bucket_of, anchors = s.bucket_of[edges], []
        for b in np.unique(bucket_of):
            bucket = s.buckets[b]
            if bucket.kind != "linear":
                continue
            packed, here = self.ws.packed(bucket), bucket_of == b
            found[here] = packed.data_ptr() + self.row[edges[here]] * (packed[0].numel() * packed.element_size())
            anchors.append(packed)
        return min(anchors, key=Tensor.data_ptr, default=self.anchor), found

    def sort(self, nodes: Index, edges: Index, back: bool) -> tuple[Index, Index]:
        """Return edges in the order of their targets, or sources, among `nodes`, and where each node's end."""
        near = (self.ws.structure.source if back else self.ws.structure.target)[edges]
        entry = np.full(len(self.size), -1)
        entry[nodes] = np.arange(len(nodes))
        order = np.argsort(entry[near], kind="stable")
        return edges[order], np.searchsorted(entry[near[order]], np.arange(len(nodes) + 1))

    def edge_table(self, nodes: Index, edges: Index, back: bool) -> tuple[Tensor, Index, Index, dict[str, Any]]:
        """Return (anchor of the weights, table of edges, ends (nodes + 1,), facts) for edges at nodes.

        Parameters
        ----------
        nodes : ndarray of int64
            Targets, or where `back` is true sources, in the order of the launch.
        edges : ndarray of int64
        """
        s = self.ws.structure
        near, far = (s.source, s.target) if back else (s.target, s.source)
        edges, ends = self.sort(nodes, edges, back)
        anchor, weight = self.weights(edges)
        width, across = self.size[far[edges]], self.size[near[edges]]
        place, copies = self.offsets((self.s if back else self.h)[far[edges]]), self.copies[edges]
        offset = np.where(copies, 0, (weight - anchor.data_ptr()) // anchor.element_size())
        align = self.align(anchor)
        fits = (place % align == 0) & (width % align == 0) & (offset % align == 0)
        if back:
            fits &= across % align == 0
        kind = np.where(copies, COPY, np.where(fits, DENSE, UNALIGNED))
        table = np.stack([place, width, offset, self.phi[edges], kind], 1)
        table = np.concatenate([table, np.zeros((1, 5), dtype=np.int64)])  # the row after the last is looked at
        facts: dict[str, Any] = {
            "PHI": self.phis, "MIXED": bool((kind == UNALIGNED).any()), "COPIES": bool(copies.any()), "ALIGN": align,
        }  # fmt: skip
        return anchor, table, ends, facts

    def neurons(self, nodes: Index) -> tuple[Index, Index]:
        """Return for each neuron of some nodes the place of its node among them, and its own within the node."""
        size = self.size[nodes]
        owner = np.repeat(np.arange(len(nodes)), size)
        return owner, np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size)

    def entries(self, edges: Index) -> Entries:
        """Return the stored entries of edges, edge by edge."""
        s, parts = self.ws.structure, []
        bucket_of = s.bucket_of[edges]
        for run in np.split(edges, np.flatnonzero(np.diff(bucket_of)) + 1) if len(edges) else ():
            bucket, row = s.buckets[int(s.bucket_of[run[0]])], self.row[run]
            if bucket.kind != "sparse":
                parts.append(Entries(run, np.zeros_like(run), np.zeros_like(run), row))
                continue
            source, target = bucket.pattern(s.groups).numpy()
            each = len(target)
            weight = (row[:, None] * each + np.arange(each)).ravel()
            parts.append(Entries(run.repeat(each), np.tile(source, len(run)), np.tile(target, len(run)), weight))
        if len(parts) == 1:
            return parts[0]
        none = np.zeros(0, dtype=np.int64)
        return (
            Entries(*(np.concatenate(column) for column in zip(*parts))) if parts else Entries(none, none, none, none)
        )

    def scattered(self, nodes: Index, edges: Index, back: bool) -> Scattered:
        """Return the entries at the neurons of targets, or where `back` is true of sources; launches share them."""
        key = (nodes.tobytes(), edges.tobytes(), back)
        if key not in self._scattered:
            self._scattered[key] = self._scatter(nodes, edges, back)
        return self._scattered[key]

    def _scatter(self, nodes: Index, edges: Index, back: bool) -> Scattered:
        s, found, size = self.ws.structure, self.entries(edges), self.size[nodes]
        near, neuron, far, other = s.target, found.target, s.source, found.source
        if back:
            near, neuron, far, other = far, other, near, neuron
        first = np.full(len(self.size), -1)
        first[nodes] = np.cumsum(size) - size
        row, order = sorted_keys(first[near][found.edge] + neuron)
        place, turned = self.side_by_side("s" if back else "h", far, edges, found.edge, other)
        align = self.alike(place)
        return Scattered(
            self.in_order(edges, found.edge, found.weight, order), self.on_device(self.narrow(place)[order]),
            np.searchsorted(row, np.arange(size.sum() + 1)), bool((size != 1).any()), align, turned,
        )  # fmt: skip

    def narrow(self, offsets: Index) -> NDArray[np.int32] | Index:
        """Return offsets of neurons, some of them `NONE`, as int32, of which `FEW` is none, where samples fit as well.

        They are most of what a launch over single entries reads in order.
        """
        there = offsets[offsets != NONE]
        if len(there) and not (there.min() > FEW and there.max() + self.batch < -FEW):
            return offsets
        return np.where(offsets == NONE, FEW, offsets).astype(np.int32)

    def alike(self, offsets: Index) -> int:
        """Return 4 where the batch and all offsets of neurons are multiples of it, so that samples lie evenly, or 1."""
        return 4 if self.batch % 4 == 0 and not (offsets % 4).any() else 1

    def side_by_side(
        self, name: str, ends: Index, edges: Index, edge: Index, neurons: Index
    ) -> tuple[Index, Turned]:  # fmt: skip
        """Return offsets of neurons' states ("h") or signals ("s"), whose samples lie side by side there.

        They lie so in the buffers of single neurons; of others there is a copy, which is to be transposed before.

        Parameters
        ----------
        name : str
        ends : ndarray of int64
            The node at the end in question of every edge of the network.
        edges : ndarray of int64
            Those that matter.
        edge, neurons : ndarray of int64, shape (entries,)
            The edge of each entry, one of these, and the neuron within the node.
        """
        s, base, turned = self.ws.structure, np.zeros(len(ends), dtype=np.int64), []
        nodes = ends[edges]
        base[edges], group_of = self.offsets({"h": self.h, "s": self.s}[name])[nodes], s.group_of[nodes]
        for g in np.unique(group_of[self.size[nodes] != 1]).tolist():
            buffer: Tensor = getattr(self.ws, name)(g)
            if (name, g) not in self._sides:
                self._sides[name, g] = self.ws.empty(buffer.shape[0], buffer.shape[2], self.batch)
            copy, here = self._sides[name, g], np.flatnonzero(group_of == g)
            begin = (copy.data_ptr() - self.anchor.data_ptr()) // self.item
            base[edges[here]] = begin + s.position[nodes[here]] * (buffer.shape[2] * self.batch)
            turned.append((buffer, copy))
        return base[edge] + neurons * self.batch, tuple(turned)

    def in_order(self, edges: Index, edge: Index, weight: Index, order: Index | slice) -> Tensor:
        """Return the weights of entries of some edges in this order: a view, or a copy, refreshed for every run."""
        s, ws = self.ws.structure, self.ws
        found = np.unique(s.bucket_of[edges])
        if not len(found):
            return self.anchor
        weight = weight[order]
        if len(found) == 1:
            packed = ws.weights(s.buckets[found[0]]).view(-1)
            run = rows(weight)
            if isinstance(run, slice):
                return packed[run]
            which = self.on_device(weight.astype(np.int32) if len(packed) < 2**31 else weight)
            copy = torch.empty(len(weight), dtype=ws.dtype, device=ws.device)
            ws.refreshed(partial(torch.index_select, packed, 0, which, out=copy))
            return copy
        bucket_of, copy = s.bucket_of[edge[order]], torch.empty(len(weight), dtype=ws.dtype, device=ws.device)
        for b in found:
            here = np.flatnonzero(bucket_of == b)
            which, to = self.on_device(weight[here]), self.on_device(here)
            ws.refreshed(partial(_put, copy, to, ws.weights(s.buckets[b]).view(-1), which))
        return copy

    def align(self, weights: Tensor) -> int:
        """So many numbers make the 16 bytes that the card loads at once."""
        return 16 // min(self.item, weights.element_size())

    def node_table(self, nodes: Index, flags: Index, start: Index, keep: Index, ends: Index) -> Index:
        """Return the table of nodes: a sum begins at the address `start`, or -1, and is kept at `keep`."""
        columns = (self.h[nodes], keep, self.m[nodes], self.e[nodes], self.s[nodes])
        where = [self.offsets(column) for column in columns]
        whole = np.stack([self.size[nodes], *where, self.offsets(start)]) % 4 == 0
        flags = flags | np.where(whole.all(0), EVENLY, 0)
        sigma = np.maximum(self.sigma[nodes], 0)
        # A sum that begins elsewhere has its bias there, unless it is said to be bare.
        bias = np.where((start != -1) & ((flags & BARE) == 0), -1, self._biases_of(nodes))
        rest = [self.offsets(start), self.offsets(bias), sigma, flags, ends[:-1], ends[1:]]
        return np.stack([self.size[nodes], *where, *rest], 1)

    def _biases_of(self, nodes: Index) -> Index:
        """Return the addresses of biases; of one that neurons share, that of a copy, refreshed for every run."""
        s, found = self.ws.structure, self.bias[nodes]
        for k in np.flatnonzero(np.isin(nodes, list(s.shared_biases))).tolist():
            g, p = s.place(int(nodes[k]))
            whole = self.ws.bias(g, np.array([p]))
            assert whole is not None
            found[k] = whole.data_ptr()
        return found

    def on_device(self, table: Index | np.ndarray[Any, Any]) -> Tensor:
        """Bring a table to the device."""
        return torch.from_numpy(np.ascontiguousarray(table)).to(self.ws.device)

    def address(self, call_rows: Rows, buffer: Tensor) -> Index:
        """Return the addresses of rows of a buffer."""
        return buffer.data_ptr() + numbers(call_rows) * (buffer[0].numel() * self.item)


def _bits(codes: Index) -> int:
    """Return the numbers of activations as bits; the identity needs none."""
    return sum(1 << int(code) for code in np.unique(codes) if code > 0)


def sorted_keys(keys: Index) -> tuple[Index, Index | slice]:
    """Return keys below 2^31 in order, and where each was: equal ones stay as they were. (Faster than argsort.)"""
    if (keys[1:] >= keys[:-1]).all():
        return keys, slice(None)
    both = (keys << 32) | np.arange(len(keys))
    both.sort()
    return both >> 32, both & (2**32 - 1)


def _put(copy: Tensor, to: Tensor, weight: Tensor, rows: Tensor) -> None:
    copy[to] = weight.index_select(0, rows)
