"""A launch is a kernel with its tables, bound to a workspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcgraph.backends.base import keep
from pcgraph.backends.torch.calls import Rows, SendBack, numbers
from pcgraph.backends.torch.workspace import Workspace
from pcgraph.backends.triton.tables import Places, Tile, tile_for
from pcgraph.plan.operations import Index

__all__ = ["Learning", "Predict", "Pull", "precision_of"]


def precision_of(ws: Workspace) -> str:
    """Return how float32 products are taken: in TF32 where torch's switches allow it, else as they are."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"  # type: ignore[attr-defined]


def _language(dtype: torch.dtype) -> Any:
    import triton.language as tl

    return {torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16,
            torch.float16: tl.float16}[dtype]  # fmt: skip


def _size(tile: Tile) -> dict[str, int]:
    return {
        "BM": tile.samples, "BN": tile.neurons, "BK": tile.inner, "num_warps": tile.warps, "num_stages": tile.stages
    }  # fmt: skip


class Predict:
    """What comes into nodes, and their errors or states, in one launch.

    Parameters
    ----------
    places : Places
    nodes : ndarray of int64
    flags : ndarray of int64
        What is done at each node.
    start : ndarray of int64
        The address at which each sum begins, or -1 where it begins with the bias.
    edges : ndarray of int64
        What is added up.
    precisions : ndarray of float64 or None
        Of the nodes.
    """

    def __init__(
        self, places: Places, nodes: Index, flags: Index, start: Index, edges: Index,
        precisions: NDArray[np.float64] | None,
    ) -> None:  # fmt: skip
        ws = places.ws
        self.weights, edge_table, ends, facts = places.edge_table(nodes, edges, False)
        deepest = facts.pop("deepest")
        tile = tile_for(places.traits, int(places.size[nodes].max()), deepest, ws.batch)
        tiles = places.tiles(places.size[nodes], tile.neurons)
        sigmas = np.unique(places.sigma[nodes])
        self.anchor, self.batch = places.anchor, ws.batch
        self.tables = [
            places.on_device(t) for t in (tiles, places.node_table(nodes, flags, start, ends), edge_table)
        ]
        self.precisions = places.anchor
        if precisions is not None:
            self.precisions = places.on_device(precisions).to(ws.dtype)
        self.grid = (len(tiles), -(-ws.batch // tile.samples))
        self.options = {
            **facts, **_size(tile), "EVEN": places.even(nodes), "SIGMA": int(max(sigmas[0], 0)) if len(sigmas) == 1 else -1,
            "SINGLE": deepest <= tile.inner, "PRECISE": precisions is not None, "ACC": _language(ws.dtype),
            "DOT": precision_of(ws),
        }  # fmt: skip

    def __call__(self, show: bool) -> None:
        """Launch it; `show` says whether predictions are written too."""
        from pcgraph.backends.triton.kernels import predict

        predict[self.grid](self.anchor, self.weights, *self.tables, self.precisions, self.batch, SHOW=show, **self.options)


class Pull:
    """The gradients of nodes, and their moves, in one launch."""

    def __init__(self, places: Places, nodes: Index, flags: Index, edges: Index) -> None:
        ws = places.ws
        self.nodes = nodes
        self.weights, edge_table, ends, facts = places.edge_table(nodes, edges, True)
        deepest = facts.pop("deepest")
        tile = tile_for(places.traits, int(places.size[nodes].max()), deepest, ws.batch)
        tiles = places.tiles(places.size[nodes], tile.neurons)
        self.anchor, self.batch = places.anchor, ws.batch
        none = np.full(len(nodes), -1)
        self.tables = [places.on_device(t) for t in (tiles, places.node_table(nodes, flags, none, ends), edge_table)]
        self.grid = (len(tiles), -(-ws.batch // tile.samples))
        self.options = {
            **facts, **_size(tile), "EVEN": places.even(nodes), "SINGLE": deepest <= tile.inner, "ACC": _language(ws.dtype), "DOT": precision_of(ws)
        }  # fmt: skip

    def __call__(self, rates: Tensor | None) -> None:
        """Launch it: the states move by these rates, (nodes,), or without them the gradients are written."""
        from pcgraph.backends.triton.kernels import pull

        given = self.anchor if rates is None else rates
        pull[self.grid](self.anchor, self.weights, *self.tables, given, self.batch, MOVE=rates is not None, **self.options)


class Learning:
    """The gradients of weights and biases in one launch.

    Parameters
    ----------
    places : Places
    calls : sequence of SendBack
        Edges of buckets that are fused.
    biases : sequence of (group, rows)
    """

    def __init__(
        self, places: Places, calls: Sequence[SendBack], biases: Sequence[tuple[int, Rows]]
    ) -> None:  # fmt: skip
        self.places, self.ws, self.batch = places, places.ws, places.ws.batch
        net, s = self.ws.net, self.ws.structure
        by_bucket: dict[int, list[Index]] = {b: [] for b in places.buckets if s.buckets[b].kind == "linear"}
        for call in calls:
            by_bucket[call.bucket].append(numbers(call.edges))
        #: Each parameter, its rows in the table, and the factor of its gradients.
        self.parts: list[tuple[nn.Parameter, slice, float]] = []
        rows, edges = [], [np.zeros((0, 5), dtype=np.int64)]
        self.first = self.count = 0
        for b, found in by_bucket.items():
            bucket, parameter = s.buckets[b], net.weights[s.buckets[b].name]
            which = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
            table, edge = self._of_weights(bucket, which)
            self._add(parameter, table, bucket.scale)
            rows.append(table)
            edges.append(edge)
        for group, which_rows in biases:
            parameter = net.biases[f"bias_{s.groups[group].name}"]
            table, edge = self._of_biases(group, s.groups[group].start + numbers(which_rows))
            self._add(parameter, table, 1.0)
            rows.append(table)
            edges.append(edge)
        self.rows, self.edges = (np.concatenate(rows) if rows else np.zeros((0, 6), dtype=np.int64)), np.concatenate(edges)
        self._bound: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def _add(self, parameter: nn.Parameter, table: Index, factor: float) -> None:
        self.parts.append((parameter, slice(self.count, self.count + len(table)), factor))
        self.count += len(table)

    def _of_weights(self, bucket: Any, edges: Index) -> tuple[Index, Index]:
        places, s = self.places, self.ws.structure
        edges = edges[np.argsort(places.row[edges], kind="stable")]
        ends = self.first + np.searchsorted(places.row[edges], np.arange(bucket.rows + 1))
        self.first += len(edges)
        out, width = s.groups[bucket.target_group].size, s.groups[bucket.source_group].size
        one = np.ones(bucket.rows, dtype=np.int64)
        rows = np.stack([one * out, one * width, ends[:-1], ends[1:], one * places.phi[bucket.start], one * 0], 1)
        signal, state = places.offsets(places.s[s.target[edges]]), places.offsets(places.h[s.source[edges]])
        none = np.zeros(len(edges), dtype=np.int64)
        return rows, np.stack([signal, none, state, none, none], 1)

    def _of_biases(self, group: int, nodes: Index) -> tuple[Index, Index]:
        """Return a row for each row of the parameter: those of nodes that do not learn have no edge."""
        places, size = self.places, self.ws.structure.groups[group].size
        own = self.ws.net.bias_row[nodes]
        order = np.argsort(own, kind="stable")
        count = len(self.ws.net.biases[f"bias_{self.ws.structure.groups[group].name}"])
        ends = self.first + np.searchsorted(own[order], np.arange(count + 1))
        self.first += len(nodes)
        one = np.ones(count, dtype=np.int64)
        rows = np.stack([one * size, one * 0, ends[:-1], ends[1:], one * 0, one], 1)
        none = np.zeros(len(nodes), dtype=np.int64)
        return rows, np.stack([places.offsets(places.s[nodes[order]]), none, none, none, none], 1)

    def __call__(self, scale: float) -> None:
        """Add the gradients times `scale` to those of the parameters that learn."""
        learning, fresh = [], []
        for parameter, which, factor in self.parts:
            if parameter.requires_grad and which.stop > which.start:
                fresh.append(parameter.grad is None)
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                learning.append((parameter, which, factor))
        if not learning:
            return
        key = (scale, *((p.data_ptr(), p.grad.data_ptr(), new) for (p, *_), new in zip(learning, fresh)))  # type: ignore[union-attr]
        if key not in self._bound:
            while len(self._bound) >= self.places.traits.rate_sets:
                del self._bound[next(iter(self._bound))]
            self._bound[key] = self._bind(learning, fresh, scale)
        from pcgraph.backends.triton.kernels import learn

        grid, tables, options = self._bound[key]
        learn[grid](self.places.anchor, *map(keep, tables), self.batch, **options)

    def _bind(
        self, learning: Sequence[tuple[nn.Parameter, slice, float]], fresh: Sequence[bool], scale: float
    ) -> tuple[tuple[int], tuple[Tensor, ...], dict[str, Any]]:  # fmt: skip
        places, ws = self.places, self.ws
        entries, where, factors = [], [], []
        for (parameter, which, factor), new in zip(learning, fresh):
            assert parameter.grad is not None
            count, numel = which.stop - which.start, parameter.grad[0].numel()
            address = parameter.grad.data_ptr() + np.arange(count) * (numel * places.item)
            where.append(np.stack([(address - places.anchor.data_ptr()) // places.item, np.full(count, not new)], 1))
            factors.append(np.full(count, -scale * factor))
            entries.append(np.arange(which.start, which.stop))
        rows, edges, entry = self.rows, self.edges, np.concatenate(entries)
        out, width = rows[entry, 0], rows[entry, 1]
        deep = int(max(out.max(), width.max()))
        side = 32 if deep <= 32 else (128 if deep >= places.traits.large_tile else 64)
        down = -(-out // side)
        tiles = _tiles(down, np.maximum(1, -(-width // side)), side)
        fits = (rows[entry][:, :2] % places.align(places.anchor) == 0).all() and (
            edges[:, [0, 2]] % places.align(places.anchor) == 0
        ).all()
        options = {
            "PHI": bool((rows[entry, 4] != 0).any()), "HALF": None if ws.half is None else _language(ws.half),
            "MIXED": not fits, "ALIGN": places.align(places.anchor), "ACC": _language(ws.dtype),
            "BM": side, "BN": side, "BK": 32, "DOT": precision_of(ws), "num_warps": 8 if side == 128 else 4,
        }  # fmt: skip
        tables = tiles, rows[entry], edges, np.concatenate(where)
        factor = torch.from_numpy(np.concatenate(factors)).to(ws.dtype).to(ws.device)
        return (len(tiles),), (*map(places.on_device, tables), factor), options


def _tiles(down: Index, across: Index, side: int) -> Index:
    """Return (entry, first row, first column) for the tiles of matrices of so many tiles, shape (tiles, 3)."""
    count = down * across
    entry = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([entry, within // across[entry] * side, within % across[entry] * side], 1)
