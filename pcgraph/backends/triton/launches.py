"""A launch is a kernel with its tables, bound to a workspace."""

from __future__ import annotations

import numpy as np
import torch
import triton.language as language
from numpy.typing import NDArray
from torch import Tensor

from pcgraph.backends.triton import kernels, scalars
from pcgraph.backends.triton.choices import Tile, precision_of
from pcgraph.backends.triton.descent import Descent
from pcgraph.backends.triton.tables import EVENLY, NODE, NONE, Places, Turned
from pcgraph.plan.operations import Index

__all__ = ["LANGUAGE", "Predict", "PredictScalars", "Pull", "PullScalars", "turns"]

LANGUAGE = {
    torch.float32: language.float32, torch.float64: language.float64, torch.bfloat16: language.bfloat16,
    torch.float16: language.float16,
}  # fmt: skip


def _size(tile: Tile) -> dict[str, int]:
    return {
        "UPRIGHT": tile.upright, "BM": tile.samples, "BN": tile.neurons, "BK": tile.inner, "num_warps": tile.warps,
        "num_stages": tile.stages,
    }  # fmt: skip


class _Tiled:
    """All launches over tiles of nodes have this in common: tables, the grid, and what is compiled in."""

    def __init__(
        self, places: Places, nodes: Index, flags: Index, start: Index, keep: Index, edges: Index, back: bool
    ) -> None:  # fmt: skip
        ws = places.ws
        tile = places.plain if not len(edges) else places.back if back else places.tile
        self.anchor, self.batch = places.anchor, ws.batch
        self.weights, edge_table, ends, facts = places.edge_table(nodes, edges, back)
        table = places.node_table(nodes, flags, start, keep, ends)
        tiles = places.tiles(table, edge_table, tile.neurons)
        self.tables = [places.on_device(tiles), places.on_device(edge_table)]
        self.grid = (len(tiles), -(-ws.batch // tile.samples))
        even = table[:, NODE.index("flags")] & EVENLY != 0
        self.options = {
            "EDGES": len(edges) > 0,
            "SINGLE": places.widest <= tile.inner,
            "EVEN": 1 if even.all() else 2 if even.any() else 0,
            **facts,
            **_size(tile),
            "ACC": LANGUAGE[ws.dtype],
            "DOT": precision_of(ws.dtype),
            **places.early,
        }


class Predict(_Tiled):
    """This launch computes what comes into nodes, and their errors or states.

    Parameters
    ----------
    places : Places
    nodes : ndarray of int64
    flags : ndarray of int64
        What is done at each node.
    start : ndarray of int64
        The address at which each sum begins, or -1 where it begins with the bias.
    keep : ndarray of int64
        The address at which each sum is kept, where it is.
    edges : ndarray of int64
        What is added up.
    precisions : ndarray of float64, shape (1 or steps + 1, nodes), or None
        Of the nodes, in each step; None where all are 1.
    duals : ndarray of int64, shape (nodes, 2)
        The address of each dual and of its rate, or -1.
    """

    def __init__(
        self, places: Places, nodes: Index, flags: Index, start: Index, keep: Index, edges: Index,
        precisions: NDArray[np.float64] | None, duals: Index,
    ) -> None:  # fmt: skip
        super().__init__(places, nodes, flags, start, keep, edges, False)
        self.error = _Error(places, precisions, duals)
        self.facts = places.on_device(places.facts[nodes]).to(places.ws.dtype)
        self.options |= {"KNOWN": places.sigmas, "ENERGIES": places.energies, **self.error.kind}

    def __call__(self, show: bool, t: int = 0) -> None:
        """Launch it; `show` says whether predictions are written too, and `t` which precisions count."""
        kernels.predict[self.grid](
            self.anchor, self.weights, *self.tables, self.batch, int(show), *self.error.tensors(t), self.facts,
            **self.options,
        )  # fmt: skip


class Pull(_Tiled):
    """This launch computes the gradients of nodes, and moves them."""

    def __init__(self, places: Places, nodes: Index, flags: Index, edges: Index, spots: Index) -> None:
        super().__init__(places, nodes, flags, np.full(len(nodes), -1), places.a[nodes], edges, True)
        self.moving = _Moving(places, spots)

    def __call__(self, descent: Descent | None, rates: Tensor | None = None) -> None:
        """Launch it: the states move at these rates, (nodes,) or one for all, or else the gradients are written."""
        kernels.pull[self.grid](
            self.anchor, self.weights, *self.tables, self.batch, *self.moving.tensors(descent, rates),
            **self.moving.kind(descent, rates), **self.options,
        )  # fmt: skip


class _Error:
    """Both kernels that take errors take this: how much each counts, and the duals that are added to them."""

    def __init__(self, places: Places, precisions: NDArray[np.float64] | None, duals: Index) -> None:
        self.precisions = [places.anchor]
        if precisions is not None:
            self.precisions = list(places.on_device(precisions).to(places.ws.dtype))
        self.duals = places.on_device(places.offsets(duals))
        self.kind = {"PRECISE": precisions is not None, "DUAL": bool((duals != -1).any())}

    def tensors(self, t: int) -> tuple[Tensor, Tensor]:
        """Return the precisions of step `t`, and where the duals lie."""
        return self.precisions[min(t, len(self.precisions) - 1)], self.duals


class _Moving:
    """Both kernels that move states take this: where what is kept of a node lies, and which neurons are free.

    Parameters
    ----------
    places : Places
    spots : ndarray of int64, shape (nodes, 2)
        See :class:`~pcgraph.backends.triton.descent.Descents`.
    """

    def __init__(self, places: Places, spots: Index) -> None:
        self.anchor, self.spots = places.anchor, places.on_device(spots)
        self.masked = bool((spots[:, 1] != NONE).any())

    def tensors(self, descent: Descent | None, rates: Tensor | None) -> tuple[Tensor, Tensor, int, Tensor, Tensor]:
        """Return rates, moments, how far the second ones lie from the first, numbers, and where all lies."""
        if descent is None or rates is None:
            return self.anchor, self.anchor, 0, self.anchor, self.spots
        apart = (len(descent.moments) - 1) * descent.moments.shape[1]
        return rates, descent.moments, apart, descent.numbers, self.spots

    def kind(self, descent: Descent | None, rates: Tensor | None) -> dict[str, int | bool]:
        """Return what is compiled in."""
        move = 0 if descent is None else descent.kind
        return {"MOVE": move, "ALL": rates is not None and rates.dim() == 0, "MASKED": self.masked}


class _Turn:
    """This launch copies a buffer of a group, (nodes, batch, size), to where samples lie side by side."""

    def __init__(self, places: Places, buffer: Tensor, copy: Tensor) -> None:
        count, batch, size = buffer.shape
        samples = min(32, 1 << (batch - 1).bit_length())
        self.arguments = buffer, copy, batch, size
        self.grid = (-(-size // 128), count, -(-batch // samples))
        self.options = {"BN": 128, "BB": samples, "num_warps": 4, **places.early}

    def __call__(self) -> None:
        scalars.turn[self.grid](*self.arguments, **self.options)


def turns(places: Places, turned: Turned) -> list[_Turn]:
    """Bind what is transposed before a launch: neurons that are read are whole sectors of memory then."""
    return [_Turn(places, buffer, copy) for buffer, copy in turned]


class _Scalars:
    """All launches over single neurons have this in common."""

    def __init__(
        self, places: Places, nodes: Index, flags: Index, start: Index, keep: Index, edges: Index, back: bool
    ) -> None:  # fmt: skip
        ws, t = places.ws, places.traits
        self.anchor, self.batch, self.count = places.anchor, ws.batch, int(places.size[nodes].sum())
        found = places.scattered(nodes, edges, back)
        self.turns, self.weights = turns(places, found.turned), found.weights
        samples = min(32, 1 << (ws.batch - 1).bit_length())
        rows, several = t.scalar_rows * (32 // samples), max(2, t.scalar_edges_at_once * samples // 32)
        own, none = found.ends, np.zeros(len(nodes) + 1, dtype=np.int64)
        table = places.node_table(nodes, flags, start, keep, none if found.wide else own)
        # Where nodes have one neuron each, their table says where entries end, and a program has some of its rows.
        tiles = _pieces(places.size[nodes], rows) if found.wide else np.zeros((1, 3), dtype=np.int64)
        parts = (table, tiles.astype(np.int32), (own if found.wide else none).astype(np.int32))
        self.tables = [*(places.on_device(part) for part in parts), found.far]
        even = bool((table[:, NODE.index("flags")] & EVENLY != 0).all())
        programs = len(tiles) if found.wide else -(-self.count // rows)
        self.grid = (programs, -(-ws.batch // samples))
        self.options = {
            "WIDE": found.wide, "EVEN": found.wide and even and rows % 4 == 0, "ALIGN": found.align,
            "ACC": LANGUAGE[ws.dtype], "BR": rows, "BE": several, "BB": samples,
            "num_warps": t.scalar_warps, **places.early,
        }  # fmt: skip


def _pieces(size: Index, rows: int) -> Index:
    """Return (node, first neuron there, its number among those of all) for pieces of so many neurons of nodes."""
    count = -(-size // rows)
    node = np.repeat(np.arange(len(size)), count)
    first = (np.arange(len(node)) - np.repeat(np.cumsum(count) - count, count)) * rows
    return np.stack([node, first, (np.cumsum(size) - size)[node] + first], 1)


class PredictScalars(_Scalars):
    """This launch does what :class:`Predict` does, for single neurons that have one activation."""

    def __init__(
        self, places: Places, nodes: Index, flags: Index, start: Index, keep: Index, edges: Index,
        precisions: NDArray[np.float64] | None, duals: Index,
    ) -> None:  # fmt: skip
        super().__init__(places, nodes, flags, start, keep, edges, False)
        self.error = _Error(places, precisions, duals)
        self.code = int(max(places.sigma[nodes[0]], 0))
        self.options |= {"KNOWN": places.sigmas, **self.error.kind}

    def __call__(self, show: bool, t: int = 0) -> None:
        """Launch it; `show` says whether predictions are written too, and `t` which precisions count."""
        for turn in self.turns:
            turn()
        scalars.predict_scalars[self.grid](
            self.anchor, self.weights, *self.tables, *self.error.tensors(t), self.count, self.batch, self.code,
            int(show), **self.options,
        )  # fmt: skip


class PullScalars(_Scalars):
    """This launch does what :class:`Pull` does, for single neurons."""

    def __init__(self, places: Places, nodes: Index, flags: Index, edges: Index, spots: Index) -> None:
        super().__init__(places, nodes, flags, np.full(len(nodes), -1), places.a[nodes], edges, True)
        self.moving = _Moving(places, spots)

    def __call__(self, descent: Descent | None, rates: Tensor | None = None) -> None:
        """Launch it: the states move at these rates, (neurons,) or one for all, or else the gradients are written."""
        for turn in self.turns:
            turn()
        scalars.pull_scalars[self.grid](
            self.anchor, self.weights, *self.tables, *self.moving.tensors(descent, rates), self.count, self.batch,
            **self.moving.kind(descent, rates), **self.options,
        )  # fmt: skip
