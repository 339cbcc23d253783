"""Edges share weights by a key: each uses a row of a packed parameter, a transposed edge that of another bucket.

A transposed edge v -> u sends ``W^T phi(h_v)``, where an edge u -> v with its key sends ``W phi(h_u)``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from pcgraph.errors import GraphError
from pcgraph.network.adjacency import Index
from pcgraph.network.declaration import Edges, show
from pcgraph.network.inits import Init
from pcgraph.network.parts import Bucket, Group

__all__ = ["Shares", "apart", "require_transposed"]


def apart(label: Index, edges: Edges, where: Callable[[int], tuple[Any, ...]]) -> Index:
    """Give transposed edges labels behind all others, by what they do and by what those do whose weights they use.

    Parameters
    ----------
    label : ndarray of int64, shape (edges,)
        Edges of one label lie in one bucket.
    edges : Edges
    where : callable
        It names an edge by its number in `edges`.

    Raises
    ------
    GraphError
        A transposed edge has no other edge with its key.
    """
    turned = np.array([spec.kind == "transposed" for spec in edges.specs], dtype=bool)[edges.which]
    if not turned.any():
        return label
    owner = {key: i for i, key in reversed(edges.shared.items()) if not turned[i]}
    mine, label = np.flatnonzero(turned), label.copy()
    for i in mine.tolist():
        if edges.shared[i] not in owner:
            raise GraphError(
                f"{show(where(i))} has transpose=True, and no edge has the weight {edges.shared[i]!r} as it is: give "
                "share= with this key, and no transpose=, to the edge whose weight it transposes",
                where=where(i),
                found=edges.shared[i],
            )
    pairs = np.stack([label[mine], label[[owner[edges.shared[i]] for i in mine.tolist()]]])
    label[mine] = label.max() + 1 + np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
    return label


class Shares:
    """Keys are given rows of parameters, bucket by bucket; transposed buckets come behind those whose rows they use.

    Parameters
    ----------
    keys : mapping
        Canonical number of an edge -> its key.
    inits : mapping
        Canonical number of an edge -> how its weight is drawn, where it says so.
    edge : callable
        It names the edge with a canonical number.
    """

    def __init__(
        self, keys: Mapping[int, Hashable], inits: Mapping[int, Init], edge: Callable[[int], tuple[Any, ...]]
    ) -> None:  # fmt: skip
        self.keys, self.inits, self.edge = keys, inits, edge
        self._bucket: dict[Hashable, int] = {}
        self._row: dict[Hashable, int] = {}
        self._first: dict[Hashable, int] = {}

    def rows(self, b: int, start: int, stop: int) -> tuple[Index | None, int]:
        """Return which row each edge of a bucket uses (None where edge i uses row i), and how many rows there are.

        Raises
        ------
        GraphError
            Edges of one key differ in what they do, or in how their weight is drawn.
        """
        keys = [self.keys.get(i) for i in range(start, stop)] if self.keys else []
        if all(key is None for key in keys):
            return None, stop - start
        weight, rows = [], 0
        for i, key in enumerate(keys, start):
            first = i if key is None else self._first.setdefault(key, i)
            if first == i:
                if key is not None:
                    self._bucket[key], self._row[key] = b, rows
                weight.append(rows)
                rows += 1
                continue
            if self._bucket[key] != b:
                raise self._unlike(i)
            if self.inits and self.inits.get(i) != self.inits.get(first):
                where = self.edge(i)
                raise GraphError(
                    f"{show(where)} shares the weight {key!r} with {show(self.edge(first))}, which has another init; "
                    "one weight is drawn in one way: give both the same",
                    where=where,
                    found=self.inits.get(i),
                )
            weight.append(self._row[key])
        return np.array(weight, dtype=np.int64), rows

    def _unlike(self, i: int) -> GraphError:
        where, key = self.edge(i), self.keys[i]
        return GraphError(
            f"{show(where)} shares the weight {key!r} with an edge of another transform, shape, activation, "
            "scale or trainability, or into another kind of prediction (main, or slot); edges that share a "
            "weight must agree in all of them",
            where=where,
            found=key,
        )

    def owner(self, start: int, stop: int) -> tuple[int, Index]:
        """Return the bucket whose rows the edges of a transposed one use, and which."""
        keys = [self.keys[i] for i in range(start, stop)]
        return self._bucket[keys[0]], np.array([self._row[key] for key in keys], dtype=np.int64)


def require_transposed(where: tuple[Any, ...], own: Bucket, owner: Bucket, groups: tuple[Group, ...]) -> None:
    """Refuse a transposed edge for which the weight has another shape, or learns where the edge does not.

    Parameters
    ----------
    where : tuple
        The edge.
    own, owner : Bucket
        Its own bucket, and the one whose rows it uses.
    groups : tuple of Group

    Raises
    ------
    GraphError
        With what is wrong.
    """
    problem = None
    needed = groups[own.source_group].size, groups[own.target_group].size
    found = groups[owner.target_group].size, groups[owner.source_group].size
    if owner.kind != "linear":
        problem = f"is no dense weight but a {type(owner.transform).__name__}'s"
    elif needed != found:
        problem = (
            f"has the shape {found}, which transposed leads from {found[0]} neurons to {found[1]}; the edge leads from "
            f"{needed[0]} to {needed[1]}"
        )
    elif own.trainable != owner.trainable:
        problem = "is trainable on one of its edges and not on this, or the other way: say the same on both"
    if problem is not None:
        raise GraphError(f"{show(where)} has transpose=True, and the weight that it transposes {problem}", where=where)
