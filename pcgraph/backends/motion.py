"""What evolves in a run lies apart from what was asked for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcgraph.network import Structure
from pcgraph.network.adjacency import Index
from pcgraph.optimizers import StateOptimizer
from pcgraph.processes import Part
from pcgraph.solvers import Solver

__all__ = ["Motion", "Noise"]


@dataclass(eq=False)
class Motion:
    """A motion holds what evolves in a run beside the states themselves, and what moves them.

    Attributes
    ----------
    optimizer : StateOptimizer, Solver or None
        A backend meets the first alone: what a solver proposes is written by :meth:`Program.write`.
    first_step : int
        Steps that were taken before this run, by the same optimizer.
    nudges : mapping
        Canonical number of a free node -> (target (batch, *shape), strength): the cost
        ``strength / 2 * ||h - target||^2`` is added to what its state descends.
    memories : dict
        What the optimizer keeps from step to step, under keys of the backend's choosing.
    part : Part or None
        Which rows of a batch the run has, where processes share it.
    noise : Noise or None
        That of the step at hand, where ranks share the network; a program makes its own otherwise. The optimizer gets
        it as ``memory["noise"]``.
    """

    optimizer: StateOptimizer | Solver | None = None
    first_step: int = 0
    nudges: Mapping[int, tuple[Tensor, float]] = field(default_factory=dict)
    memories: dict[Hashable, dict[str, Any]] = field(default_factory=dict)
    part: Part | None = None
    noise: Noise | None = None


class Noise:
    """Standard normal noise of one step is drawn at once for all nodes of a shape that move in it.

    So it depends neither on the pieces in which a backend moves them, nor on which process has which nodes and samples.

    Parameters
    ----------
    structure : Structure
        Of the whole network.
    nodes : ndarray of int
        Those that move in the step.
    batch : int
    part : Part or None
        Which rows of a batch are taken.
    numbers : ndarray of int or None
        Number in a rank's own network -> that of the whole; None where there is no other.
    """

    def __init__(
        self, structure: Structure, nodes: Index, batch: int, part: Part | None, numbers: Index | None = None
    ) -> None:
        self.structure, self.nodes, self.numbers = structure, nodes, numbers
        self.rows, self.part = batch if part is None else part.total, part
        self._drawn: dict[int, Tensor] = {}

    def of(self, nodes: Index, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Return the noise of some nodes of one shape, (nodes, batch, size), in the dtype and on the device of `like`.

        What is asked for first draws that of all nodes.
        """
        s = self.structure
        if not self._drawn:
            for g in np.unique(s.group_of[self.nodes]).tolist():
                shape = (int((s.group_of[self.nodes] == g).sum()), self.rows, s.groups[g].size)
                self._drawn[g] = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
        if not len(nodes):
            return torch.zeros_like(like)
        nodes = nodes if self.numbers is None else self.numbers[nodes]
        g = int(s.group_of[nodes[0]])
        members = self.nodes[s.group_of[self.nodes] == g]
        found = self._drawn[g][torch.from_numpy(np.searchsorted(members, nodes)).to(like.device)]
        return found if self.part is None else found[:, self.part.rows]
