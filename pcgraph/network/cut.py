"""A cut structure says which rank owns each node, and which states are read on other ranks than their own.

An edge, its weight and its product belong to the rank of its target. A state that is read elsewhere has a copy there, a
*ghost*; what comes back to it along the edges of that rank is summed there, and sent to its owner.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from pcgraph.arguments import did_you_mean, require_count, shown
from pcgraph.errors import ConfigError
from pcgraph.network.adjacency import Index
from pcgraph.network.structure import Structure

__all__ = ["Cut", "Partition"]

Node = Hashable


class Partition(Mapping[Node, int]):
    """A partition maps every node of a graph to the rank that owns it. It never changes.

    Parameters
    ----------
    ranks : mapping
        Node -> rank, from 0 on.
    parts : int, optional
        How many ranks there are; the largest that is named, and one more, if None.

    Raises
    ------
    ConfigError
        A rank is no whole number from 0 to ``parts - 1``, or one of them owns no node.

    Examples
    --------
    >>> partition = Partition({"x": 0, "h": 0, "y": 1})
    >>> partition["y"], partition.parts
    (1, 2)
    """

    def __init__(self, ranks: Mapping[Node, int], parts: int | None = None) -> None:
        if not isinstance(ranks, Mapping) or not ranks:
            raise ConfigError(
                f"a partition maps each node to its rank, as in {{'x': 0, 'h': 0, 'y': 1}} (found {shown(ranks)})",
                key="partition",
            )
        self._ranks = {node: require_count(rank, f"the rank of {node!r}") for node, rank in ranks.items()}
        self.parts = 1 + max(self._ranks.values()) if parts is None else require_count(parts, "parts", least=1)
        if self.parts > len(self._ranks):
            raise ConfigError(
                f"a partition needs a node for every rank (found {len(self._ranks)} nodes for {self.parts} ranks): "
                "take fewer ranks",
                key="partition",
            )
        beyond = next((node for node, rank in self._ranks.items() if rank >= self.parts), None)
        if beyond is not None:
            raise ConfigError(
                f"a partition over {self.parts} ranks has ranks 0 to {self.parts - 1} (found {self._ranks[beyond]} for "
                f"{beyond!r})",
                key="partition",
            )
        empty = sorted(set(range(self.parts)) - set(self._ranks.values()))
        if empty:
            raise ConfigError(
                f"every rank of a partition owns a node (found none for rank {empty[0]} of {self.parts}): give it "
                "some, or take fewer ranks",
                key="partition",
            )

    def __getitem__(self, node: Node) -> int:
        return self._ranks[node]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._ranks)

    def __len__(self) -> int:
        return len(self._ranks)

    def __repr__(self) -> str:
        counts = np.bincount(list(self._ranks.values()), minlength=self.parts)
        more = "" if self.parts <= 8 else ", …"
        each = ", ".join(map(str, counts[:8].tolist())) + more
        return f"Partition({len(self)} nodes over {self.parts} ranks: {each})"


@dataclass(frozen=True, eq=False)
class Cut:
    """A cut is a structure with the rank of every node, in canonical numbers.

    Attributes
    ----------
    structure : Structure
    owner : ndarray of int64, shape (nodes,)
        The rank of each node; a slot is where its node is.
    parts : int
    """

    structure: Structure
    owner: Index
    parts: int

    @classmethod
    def make(cls, structure: Structure, partition: Any) -> Cut:
        """Read a partition, or a mapping from node to rank, for a structure.

        Raises
        ------
        ConfigError
            It names a node that the graph does not have, or lacks one; or cuts what ranks cannot share: one weight, or
            one module or energy with parameters, on edges or nodes of several ranks.
        """
        given = partition if isinstance(partition, Partition) else Partition(partition)
        unknown = next((node for node in given if node not in structure.number), None)
        if unknown is not None:
            raise ConfigError(
                f"the partition names the node {unknown!r}, which the graph does not have"
                f"{did_you_mean(unknown, structure.number)}",
                key="partition",
            )
        missing = next((node for node in structure.declared if node not in given), None)
        if missing is not None:
            raise ConfigError(
                f"the partition has no rank for the node {missing!r}: give every node one", key="partition"
            )  # fmt: skip
        own = np.array([given[node] for node in structure.declared], dtype=np.int64)
        cut = cls(structure, own[structure.owner], given.parts)
        cut._require_apart()
        return cut

    @property
    def edge_owner(self) -> Index:
        """Return the rank of each edge, that of its target; shape (edges,)."""
        found: Index = self.owner[self.structure.target]
        return found

    @cached_property
    def _pairs(self) -> tuple[Index, Index]:
        s = self.structure
        there = self.edge_owner
        label = s.source * self.parts + there
        away = self.owner[s.source] != there
        found, inverse = np.unique(label[away], return_inverse=True)
        of_edge = np.full(len(label), -1, dtype=np.int64)
        of_edge[away] = inverse
        return found, of_edge

    @property
    def ghost_node(self) -> Index:
        """Return the node of each ghost, sorted, shape (ghosts,)."""
        found: Index = self._pairs[0] // self.parts
        return found

    @property
    def ghost_rank(self) -> Index:
        """Return the rank on which each ghost lies, shape (ghosts,)."""
        found: Index = self._pairs[0] % self.parts
        return found

    @property
    def ghost_of(self) -> Index:
        """Return the ghost that each edge reads, -1 where its source is on its own rank; shape (edges,)."""
        return self._pairs[1]

    def number_of(self, nodes: Index, ranks: Index) -> Index:
        """Return the number of each ghost, given its node and rank; -1 where there is none."""
        label, known = nodes * self.parts + ranks, self._pairs[0]
        at = np.searchsorted(known, label)
        found: Index = np.where(known[np.minimum(at, len(known) - 1)] == label, at, -1) if len(known) else at * 0 - 1
        return found

    def _require_apart(self) -> None:
        """Refuse a cut through parameters that belong to edges or nodes of several ranks."""
        s, there = self.structure, self.edge_owner
        where: dict[object, tuple[int, str]] = {}

        def see(key: object, rank: int, text: str) -> None:
            first, other = where.setdefault(key, (rank, text))
            if first != rank:
                raise ConfigError(
                    f"{other} is on rank {first} and {text} on rank {rank}, and they share a weight: a weight is on "
                    "one rank; put both there, as the node attribute rank= does",
                    key="partition",
                )

        lent = {bucket.lender for bucket in s.buckets} - {None}
        for bucket in s.buckets:
            shares = bucket.weight is not None and (bucket.rows < bucket.count or bucket.packed in lent)
            module = isinstance(bucket.transform, nn.Module) and bucket.kind in ("module", "joint")
            for k in range(bucket.count) if shares or module else ():
                text = f"the edge {' -> '.join(map(repr, s.edge(bucket.start + k)[:2]))}"
                rank = int(there[bucket.start + k])
                if module:
                    for parameter in bucket.transform.parameters():
                        see(id(parameter), rank, text)
                elif bucket.weight is not None:
                    see((bucket.packed, int(bucket.weight[k])), rank, text)
        for segment in s.segments:
            parameters = [] if segment.energy is None else list(segment.energy.parameters())
            nodes = s.nodes_of(segment)
            for i in range(nodes.start, nodes.stop) if parameters else ():
                for parameter in parameters:
                    see(id(parameter), int(self.owner[i]), f"the node {s.nodes[i]!r}")
