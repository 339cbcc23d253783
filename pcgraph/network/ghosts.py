"""What one rank has for a node of another travels here: states to its ghosts, and what comes back from them.

Plans have exchanges of their own. These are for what is done beside a plan, by learning rules and initializers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from pcgraph.network.adjacency import Index
from pcgraph.network.own import Piece
from pcgraph.processes import Group

__all__ = ["Ghosts"]

Node = Hashable


class Ghosts:
    """Ghosts are the nodes that a rank reads and does not own.

    All ranks call the same methods, for the same nodes, in the same order.

    Parameters
    ----------
    part : Piece
    group : Group
    like : Tensor
        Of the dtype and on the device of all that travels.
    """

    def __init__(self, part: Piece, group: Group, like: Tensor) -> None:
        self.part, self.group, self.like = part, group, like

    def spread(self, values: Mapping[Node, Tensor], nodes: Iterable[Node], batch: int) -> dict[Node, Tensor]:
        """Give the ghosts of `nodes` what their owners have.

        Parameters
        ----------
        values : mapping
            Node -> (batch, *shape), for the own ones of `nodes` at least.
        nodes : iterable of nodes
        batch : int

        Returns
        -------
        dict
            Ghost -> (batch, *shape), on this rank.
        """
        node, away = self._ghosts(nodes)
        return dict(self._travel(values, node, self.part.cut.owner[node], away, batch))

    def collect(self, values: Mapping[Node, Tensor], nodes: Iterable[Node], batch: int) -> dict[Node, Tensor]:
        """Give the owners of `nodes` the sum of what their ghosts have, and they themselves.

        Parameters
        ----------
        values : mapping
            Node -> (batch, *shape), of own nodes and ghosts; what is missing is zero.
        nodes : iterable of nodes
        batch : int

        Returns
        -------
        dict
            Own node -> (batch, *shape), where anybody may have had something.
        """
        nodes, rank = tuple(nodes), self.part.rank
        node, away = self._ghosts(nodes)
        number, owner = self.part.cut.structure.number, self.part.cut.owner
        total = {v: values[v] for v in nodes if v in values and owner[number[v]] == rank}
        for v, value in self._travel(values, node, away, owner[node], batch):
            total[v] = total[v] + value if v in total else value
        return total

    def _ghosts(self, nodes: Iterable[Node]) -> tuple[Index, Index]:
        """Return number and rank of the ghosts of some nodes."""
        cut = self.part.cut
        wanted = np.zeros(len(cut.structure.nodes), dtype=bool)
        wanted[[cut.structure.number[v] for v in nodes]] = True
        found = wanted[cut.ghost_node]
        return cut.ghost_node[found], cut.ghost_rank[found]

    def _travel(
        self, values: Mapping[Node, Tensor], node: Index, sender: Index, receiver: Index, batch: int
    ) -> list[tuple[Node, Tensor]]:
        """Send each of the nodes from one rank to another; return what has come here, in the order of the ranks."""
        if not len(node):
            return []
        s, rank = self.part.cut.structure, self.part.rank
        size = np.array([group.size for group in s.groups])[s.group_of] * batch
        out, into = (np.flatnonzero(who == rank) for who in (sender, receiver))
        out, into = out[np.argsort(receiver[out], kind="stable")], into[np.argsort(sender[into], kind="stable")]
        counts = [
            np.bincount(peer[which], weights=size[node[which]], minlength=self.group.size).astype(int).tolist()
            for peer, which in ((receiver, out), (sender, into))
        ]
        pieces = [self._flat(values, int(i), int(size[i])) for i in node[out]]
        sent = torch.cat(pieces) if pieces else self.like.new_empty(0)
        parts = torch.split(self.group.swap(sent, *counts), size[node[into]].tolist())
        return [
            (s.nodes[i], part.view(batch, *s.groups[int(s.group_of[i])].shape))
            for i, part in zip(node[into].tolist(), parts)
        ]

    def _flat(self, values: Mapping[Node, Tensor], i: int, size: int) -> Tensor:
        found = values.get(self.part.cut.structure.nodes[i])
        return self.like.new_zeros(size) if found is None else found.detach().to(self.like).reshape(-1)

    def gather(self, values: Mapping[Node, Tensor], shapes: Mapping[Node, tuple[int, ...]]) -> dict[Node, Tensor]:
        """Give all ranks what the owner of each node has.

        Parameters
        ----------
        values : mapping
            Node -> Tensor, for the own ones of `shapes` at least.
        shapes : mapping
            Node -> the shape of its tensor, the same on all ranks.

        Returns
        -------
        dict
            Node -> Tensor, in the order of `shapes`.
        """
        s, owner, rank = self.part.cut.structure, self.part.cut.owner, self.part.rank
        home = {v: int(owner[s.number[v]]) for v in shapes}
        size = {v: int(np.prod(shape, dtype=np.int64)) for v, shape in shapes.items()}
        by_rank = sorted(shapes, key=home.__getitem__)
        counts = [sum(size[v] for v in by_rank if home[v] == r) for r in range(self.group.size)]
        if not sum(counts):
            return {}
        mine = [values[v].detach().to(self.like).reshape(-1) for v in by_rank if home[v] == rank]
        rows = self.group.gather_rows(torch.cat(mine) if mine else self.like.new_empty(0), counts)
        found = dict(zip(by_rank, torch.split(rows, [size[v] for v in by_rank])))
        return {v: found[v].view(shape) for v, shape in shapes.items()}
