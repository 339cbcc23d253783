"""How the kernels move states: what is kept of nodes from step to step, and where it lies."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcgraph.backends.motion import Motion
from pcgraph.backends.settings import keep
from pcgraph.backends.triton.tables import ADAM, MOMENTUM, NESTEROV, NONE, PLAIN, Places
from pcgraph.optimizers import SGD, Adam
from pcgraph.plan import Plan
from pcgraph.plan.operations import Index

__all__ = ["Descent", "Descents"]


@dataclass(frozen=True, eq=False)
class Descent:
    """States move along their gradients in this way.

    Attributes
    ----------
    kind : int
        ``PLAIN`` or another kind of descent.
    moments : Tensor, shape (1 or 2, neurons)
        What is kept of all nodes that ever move, from step to step.
    numbers : Tensor, shape (5,)
        The numbers of this kind of descent; see the kernel.
    """

    kind: int
    moments: Tensor
    numbers: Tensor


class Descents:
    """Each step of a program gets its descent here, where the kernels know how its optimizer moves states.

    Parameters
    ----------
    places : Places
    plan : Plan
    moved : sequence of ndarray of int64
        The nodes that move in any step.

    Attributes
    ----------
    neurons : int
        How many numbers are kept of all nodes that ever move, for the batch.
    spots : ndarray of int64, shape (nodes, 2)
        Where what is kept of each node lies, counted from the beginning of one tensor for all; and where it stands
        which of its neurons are free, an offset as others.
    """

    def __init__(self, places: Places, plan: Plan, moved: Sequence[Index]) -> None:
        self.places, self.plan, ws = places, plan, places.ws
        self._numbers: dict[tuple[float, ...], Tensor] = {}
        self._rates: dict[tuple[object, ...], list[Tensor]] = {}
        nodes = np.unique(np.concatenate(moved)) if moved else np.zeros(0, dtype=np.int64)
        ends = np.cumsum(places.size[nodes] * ws.batch)
        self.neurons = int(ends[-1]) if len(ends) else 0
        self.spots = np.full((len(plan.structure.nodes), 2), NONE)
        self.spots[nodes, 0] = ends - places.size[nodes] * ws.batch
        self._free: dict[int, Tensor] = {}
        masked = np.array(sorted(plan.request.masked), dtype=np.int64)
        if len(masked):
            key, sizes = ("free", masked.tobytes()), places.size[masked] * ws.batch
            if key not in ws.cache:
                ws.cache[key] = ws.empty(int(sizes.sum()))
            self._free = dict(zip(masked.tolist(), ws.cache[key].split(sizes.tolist())))
            self.spots[masked, 1] = places.offsets(np.array([free.data_ptr() for free in self._free.values()]))

    def free(self, masks: Iterable[tuple[int, Tensor]]) -> None:
        """Take what the batch leaves free of each node that is clamped in part."""
        for i, mask in masks:
            self._free[i].view(mask.shape).copy_(mask)

    def of(self, t: int, motion: Motion) -> Descent | None:
        """Return how the kernels move states in step `t`; None where they do not know how."""
        optimizer, ws = motion.optimizer, self.places.ws
        if type(optimizer) is SGD:
            kind = PLAIN if optimizer.stateless else NESTEROV if optimizer.nesterov else MOMENTUM
            numbers: tuple[float, ...] = (optimizer.momentum,)
        elif type(optimizer) is Adam:
            kind, (first, second), now = ADAM, optimizer.betas, motion.first_step + t + 1
            numbers = (first, second, optimizer.eps, 1 - first**now, (1 - second**now) ** 0.5)
        else:
            return None
        if kind == PLAIN:
            return Descent(kind, self.places.anchor.view(1, -1), self.places.anchor)
        if numbers not in self._numbers:
            while len(self._numbers) > ws.traits.rate_sets * (self.plan.steps + 1):
                del self._numbers[next(iter(self._numbers))]
            self._numbers[numbers] = torch.tensor(numbers, dtype=ws.dtype, device=ws.device)
        memory = motion.memories.setdefault(("fused", self.spots[:, 0].tobytes()), {})
        if "moments" not in memory:
            rows = 2 if kind == ADAM else 1
            memory["moments"] = torch.zeros(rows, self.neurons, dtype=ws.dtype, device=ws.device)
        return Descent(kind, memory["moments"], keep(self._numbers[numbers]))

    def rates(
        self, stage: Hashable, rates: Sequence[tuple[float | Tensor, int]], places: Sequence[Index]
    ) -> list[Tensor]:  # fmt: skip
        """Lay out rates for the launches of a stage, which take the nodes in another order.

        Parameters
        ----------
        stage : hashable
        rates : sequence of (float or Tensor, int)
            One rate for so many nodes, or one for each of them.
        places : sequence of ndarray of int64
            For each launch, the places of its nodes among all of these.
        """
        ws = self.places.ws
        key = (stage, *(r if isinstance(r, float) else r.data_ptr() for r, _ in rates))
        if key not in self._rates:
            while len(self._rates) > ws.traits.rate_sets * (self.plan.steps + 1):
                del self._rates[next(iter(self._rates))]
            each = [
                torch.full((count,), r, dtype=ws.dtype, device=ws.device) if isinstance(r, float) else r.flatten()
                for r, count in rates
            ]
            whole = torch.cat(each) if each else ws.empty(0)
            self._rates[key] = [whole[ws.index(place)] for place in places]
        return [keep(rates) for rates in self._rates[key]]
