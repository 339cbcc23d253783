"""The launches that learn: gradients of matrices and biases in tiles, and of single entries number by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcgraph.backends.settings import keep
from pcgraph.backends.torch.calls import Rows, SendBack, numbers
from pcgraph.backends.triton import learning
from pcgraph.backends.triton.choices import Tile, learning_tile, precision_of
from pcgraph.backends.triton.launches import LANGUAGE, turns
from pcgraph.backends.triton.tables import BIAS, DENSE, EDGE, FEW, NONE, UNALIGNED, Places, Turned, sorted_keys
from pcgraph.network import Bucket
from pcgraph.plan.operations import Index

__all__ = ["Learning"]


class _Part(NamedTuple):
    """This is a parameter that the kernels learn: the factor of its gradients, and what they are sums of.

    Tiles have a row for each gradient in the table of weights. Weights of single entries, and biases of nodes of one
    neuron, have the ends of each among `edges`, of shape (numbers + 1,), and the offsets of signals and states there,
    where samples lie side by side once what is `turned` has been transposed; `once` says whether none has several.
    """

    parameter: nn.Parameter
    factor: float
    rows: Index | None
    ends: Index | None = None
    edges: Index | None = None
    turned: Turned = ()
    once: bool = False


class Learning:
    """This is the launch that computes the gradients of weights and biases, and those for single neurons.

    Gradients that are made anew are views of one tensor, so that where they lie is known before there are any.

    Parameters
    ----------
    places : Places
    calls : sequence of SendBack
        Edges of buckets that the kernels learn.
    biases : sequence of (group, rows)
    """

    def __init__(
        self, places: Places, calls: Sequence[SendBack], biases: Sequence[tuple[int, Rows]]
    ) -> None:  # fmt: skip
        self.places, self.ws, self.batch = places, places.ws, places.ws.batch
        net, s = self.ws.net, self.ws.structure
        by_bucket: dict[int, list[Index]] = {b: [] for b in places.buckets}
        for call in calls:
            by_bucket[call.bucket].append(numbers(call.edges))
        self.parts: list[_Part] = []
        self._edges: list[Index] = [np.zeros((0, len(EDGE)), dtype=np.int64)]
        self._first = 0
        for b, found in by_bucket.items():
            bucket = s.buckets[b]
            which = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
            weight, alone = net.weights[bucket.name], bool(places.scalar[bucket.start])
            if alone:
                edge, source, target, place = places.entries(which)
                signal, sent = places.side_by_side("s", s.target, which, edge, target)
                state, read = places.side_by_side("h", s.source, which, edge, source)
                self.parts.append(_of_scalars(weight, bucket.scale, place, signal, state, (*sent, *read)))
            else:
                self.parts.append(_Part(weight, bucket.scale, self._of_weights(bucket, which)))
        for group, rows in biases:
            bias, nodes = net.biases[f"bias_{s.groups[group].name}"], s.groups[group].start + numbers(rows)
            if bias[0].numel() == 1:
                signal = places.offsets(places.s[nodes])
                self.parts.append(_of_scalars(bias, 1.0, net.bias_row[nodes], signal, np.full(len(nodes), NONE)))
            elif places.alone[nodes].all():
                owner, within = places.neurons(nodes)
                keys, edge = net.bias_row[nodes][owner] * bias[0].numel() + within, nodes[owner]
                signal, turned = places.side_by_side("s", np.arange(len(places.size)), nodes, edge, within)
                self.parts.append(_of_scalars(bias, 1.0, keys, signal, np.full(len(keys), NONE), turned))
            else:
                self.parts.append(_Part(bias, 1.0, self._of_biases(bias, nodes)))
        self.edges = places.on_device(np.concatenate(self._edges))
        self._bound: dict[tuple[int, ...], _Bound] = {}

    def _rows(self, keys: Index, count: int, signal: Index, state: Index, row: Sequence[int]) -> Index:
        """Return a table of `count` gradients, and keep the edges of each: those whose key is its number."""
        order = np.argsort(keys, kind="stable")
        ends = self._first + np.searchsorted(keys[order], np.arange(count + 1))
        self._first += len(keys)
        none = np.zeros(len(keys), dtype=np.int64)
        places = [self.places.offsets(where[order]) for where in (signal, state)]
        self._edges.append(np.stack([places[0], none, places[1], none, none], 1))
        table = np.tile(np.array(row, dtype=np.int64), (count, 1))
        table[:, 2], table[:, 3] = ends[:-1], ends[1:]
        align = self.places.align(self.places.anchor)
        if row[5] == DENSE:
            odd = (places[0] % align != 0) | (places[1] % align != 0)
            if row[0] % align or row[1] % align or odd.any():
                table[:, 5] = UNALIGNED
        return table

    def _of_weights(self, bucket: Bucket, edges: Index) -> Index:
        places, s = self.places, self.ws.structure
        out, width = s.groups[bucket.target_group].size, s.groups[bucket.source_group].size
        row = (out, width, 0, 0, int(places.phi[bucket.start]), DENSE)
        return self._rows(places.row[edges], bucket.rows, places.s[s.target[edges]], places.h[s.source[edges]], row)

    def _of_biases(self, parameter: nn.Parameter, nodes: Index) -> Index:
        signals = self.places.s[nodes]
        row = (parameter[0].numel(), 1, 0, 0, 0, BIAS)
        return self._rows(self.ws.net.bias_row[nodes], len(parameter), signals, signals, row)

    def __call__(self, scale: float) -> None:
        """Add the gradients times `scale` to those of the parameters that learn."""
        which = tuple(i for i, part in enumerate(self.parts) if part.parameter.requires_grad and len(part.parameter))
        if not which:
            return
        if which not in self._bound:
            self._bound[which] = _Bound(self, which)
        self._bound[which].run(scale)


def _of_scalars(
    parameter: nn.Parameter, factor: float, keys: Index, signal: Index, state: Index, turned: Turned = ()
) -> _Part:
    """Return the part of gradients of one number each: sums over the entries whose key is its place."""
    keys, order = sorted_keys(keys)
    ends = np.searchsorted(keys, np.arange(parameter.numel() + 1))
    once = bool((np.diff(ends) <= 1).all())
    return _Part(parameter, factor, None, ends, np.stack([signal[order], state[order]], 1), turned, once)


class _Bound:
    """These are the launches for one choice of the parameters that learn."""

    #: Gradients begin at multiples of so many numbers.
    ALIGN = 128

    def __init__(self, whole: Learning, which: Sequence[int]) -> None:
        self.whole = whole
        parts = [whole.parts[i] for i in which]
        self.parameters = [part.parameter for part in parts]
        rounded = [-(-p.numel() // self.ALIGN) * self.ALIGN for p in self.parameters]
        self.starts = np.cumsum([0, *rounded])
        begun = list(zip(self.starts[:-1].tolist(), parts))
        self.launches: list[_Tiles | _Numbers] = []
        if tiled := [(start, part) for start, part in begun if part.rows is not None]:
            self.launches.append(_Tiles(whole, tiled))
        for once in (True, False):
            if alone := [(start, part) for start, part in begun if part.rows is None and part.once == once]:
                self.launches.append(_Numbers(whole, alone, once))

    def run(self, scale: float) -> None:
        """Launch it: into gradients of its own, or into new ones that are added to what is there."""
        fresh = all(p.grad is None for p in self.parameters)
        own = None if fresh else self._together()
        flat = own
        if flat is None:
            flat = torch.empty(int(self.starts[-1]), dtype=self.whole.ws.dtype, device=self.whole.ws.device)
        for launch in self.launches:
            launch(flat, scale, add=own is not None)
        if own is not None:
            return
        for parameter, start in zip(self.parameters, self.starts[:-1].tolist()):
            part = flat[start : start + parameter.numel()].view(parameter.shape)
            if parameter.grad is None:
                parameter.grad = part
            else:
                parameter.grad.add_(part)

    def _together(self) -> Tensor | None:
        """Return the tensor of which all gradients are still views, in their places, or None."""
        first = self.parameters[0].grad
        if first is None or first._base is None or first._base.dim() != 1 or len(first._base) != self.starts[-1]:
            return None
        base, item = first._base, first.element_size()
        for parameter, start in zip(self.parameters, self.starts[:-1].tolist()):
            grad = parameter.grad
            if grad is None or grad.data_ptr() != base.data_ptr() + start * item or not grad.is_contiguous():
                return None
        return base


class _Factors:
    """Both launches that learn have this: what the sum of each gradient, or of some, is multiplied by."""

    def __init__(self, places: Places, factors: NDArray[np.float64]) -> None:
        self.factors, self.places = factors, places
        self._scaled: dict[float, Tensor] = {}

    def scaled(self, scale: float) -> Tensor:
        """Return the factors for a mean, or whatever `scale` makes of the sum."""
        if scale not in self._scaled:
            while len(self._scaled) >= self.places.traits.rate_sets:
                del self._scaled[next(iter(self._scaled))]
            made = torch.from_numpy(-scale * self.factors).to(self.places.ws.dtype)
            self._scaled[scale] = made.to(self.places.ws.device)
        return keep(self._scaled[scale])


class _Tiles:
    """This launch computes the gradients of matrices, and of the biases of groups."""

    def __init__(self, whole: Learning, begun: Sequence[tuple[int, _Part]]) -> None:
        self.whole, places = whole, whole.places
        where = [start + np.arange(len(part.parameter)) * part.parameter[0].numel() for start, part in begun]
        self.places = places.on_device(np.concatenate(where))
        self.factors = _Factors(places, np.repeat([p.factor for _, p in begun], [len(p.parameter) for _, p in begun]))
        table = np.concatenate([part.rows for _, part in begun if part.rows is not None])
        precision = precision_of(places.ws.dtype)
        tile = learning_tile(table[:, 0], table[:, 1], precision == "tf32x3")
        tiles = _tiles(table[:, 0], table[:, 1], tile)
        self.grid, self.tables = (len(tiles),), [places.on_device(t) for t in (tiles, table)]
        half = places.ws.half
        self.options = {
            "PHI": places.phis, "HALF": None if half is None else LANGUAGE[half],
            "MIXED": bool((table[:, 5] == UNALIGNED).any()), "ALIGN": places.align(places.anchor),
            "ACC": LANGUAGE[places.ws.dtype], "BM": tile.samples, "BN": tile.neurons, "BK": tile.inner,
            "DOT": precision, "num_warps": tile.warps, "num_stages": tile.stages, **places.early,
        }  # fmt: skip

    def __call__(self, flat: Tensor, scale: float, add: bool) -> None:
        learning.learn[self.grid](
            self.whole.places.anchor, flat, *self.tables, self.whole.edges, self.places,
            self.factors.scaled(scale), self.whole.batch, ADD=add, **self.options,
        )  # fmt: skip


class _Numbers:
    """This launch computes the gradients of weights of single entries, and of biases of single neurons.

    Parameters
    ----------
    whole : Learning
    begun : sequence of (int, _Part)
    once : bool
        Whether none of the weights has several edges; which edge is whose needs no table then.
    """

    def __init__(self, whole: Learning, begun: Sequence[tuple[int, _Part]], once: bool) -> None:
        self.whole, places, t = whole, whole.places, whole.places.traits
        block, edges, first = _Bound.ALIGN, [np.zeros((0, 2), dtype=np.int64)], 0
        ends, blocks = [np.zeros(1, dtype=np.int64)], [-(-part.parameter.numel() // block) for _, part in begun]
        for full, (_, part) in zip(blocks, begun):
            assert part.ends is not None
            assert part.edges is not None
            # What fills the last block has no edges.
            each = np.append(part.ends[1:], np.repeat(part.ends[-1:], full * block - part.parameter.numel()))
            if once:
                spread = np.full((full * block, 2), NONE)
                spread[np.flatnonzero(np.diff(each, prepend=0))] = part.edges
            ends.append(each + first)
            edges.append(spread if once else part.edges)
            first += len(part.edges)
        unique = {(id(buffer), id(copy)): (buffer, copy) for _, part in begun for buffer, copy in part.turned}
        self.turns = turns(places, tuple(unique.values()))
        together = np.concatenate(edges)
        offsets = places.narrow(together)
        self.count = sum(blocks) * block
        bounds = np.zeros(1, dtype=np.int32) if once else np.concatenate(ends).astype(np.int32)
        where = np.concatenate([start + np.arange(n) * block for n, (start, _) in zip(blocks, begun)])
        self.tables = [places.on_device(each) for each in (bounds, offsets, where)]
        self.factors = _Factors(places, np.repeat([part.factor for _, part in begun], blocks))
        samples = min(32, 1 << (whole.batch - 1).bit_length())
        several = 1 if once else t.scalar_edges_at_once
        rows = max(1, t.scalar_learning // (several * samples))
        self.grid = (-(-self.count // rows),)
        self.options = {
            "ONCE": once, "NONE": FEW if offsets.dtype == np.int32 else NONE, "ALIGN": places.alike(together),
            "ACC": LANGUAGE[places.ws.dtype], "BR": rows, "BE": several, "BB": samples, "BLOCK": block,
            "num_warps": t.scalar_warps, **places.early,
        }  # fmt: skip

    def __call__(self, flat: Tensor, scale: float, add: bool) -> None:
        for turn in self.turns:
            turn()
        learning.learn_scalars[self.grid](
            self.whole.places.anchor, flat, *self.tables, self.factors.scaled(scale), self.count, self.whole.batch,
            ADD=add, **self.options,
        )  # fmt: skip


def _tiles(out: Index, width: Index, tile: Tile) -> Index:
    """Return (entry, first row, first column) for the tiles of matrices of so many numbers, shape (tiles, 3)."""
    down, across = -(-out // tile.samples), -(-width // tile.neurons)
    count = down * across
    entry = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([entry, within // across[entry] * tile.samples, within % across[entry] * tile.neurons], 1)
