"""What ranks do together that share a network, one process does here alone: it has all of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from torch import Tensor

__all__ = ["Shareable"]

Node = Hashable


class Shareable:
    """One process holds all nodes; a network that is cut over ranks overrides what follows."""

    @property
    def rank(self) -> int:
        """Return the rank of this process among those that share the network; 0 where none do."""
        return 0

    def rank_of(self, v: Node) -> int:
        """Return the rank that computes a node, or a slot, and holds the edges into it; 0 where none share it."""
        return 0

    def holds(self, v: Node) -> bool:
        """Tell whether this process computes the node: of one that is cut over ranks, each computes its own."""
        return True

    def spread(self, values: Mapping[Node, Tensor], nodes: Iterable[Node], batch: int) -> dict[Node, Tensor]:
        """Give other ranks what they read of `nodes`; see :class:`~pcgraph.network.ghosts.Ghosts`."""
        return {}

    def collect(self, values: Mapping[Node, Tensor], nodes: Iterable[Node], batch: int) -> dict[Node, Tensor]:
        """Add up what several ranks have for `nodes`, each where it is computed."""
        return {v: values[v] for v in nodes if v in values}

    def gather(self, values: Mapping[Node, Tensor], shapes: Mapping[Node, tuple[int, ...]]) -> dict[Node, Tensor]:
        """Give every rank the values of all nodes of `shapes`."""
        return {v: values[v] for v in shapes}

    def summed(self, tensor: Tensor) -> Tensor:
        """Add up over the ranks that share the network."""
        return tensor

    def alike(self, tensor: Tensor) -> Tensor:
        """Return the first rank's of what all have computed, and rounding may have made different."""
        return tensor
