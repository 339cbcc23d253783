"""What each rank of a partition computes, holds and sends is counted from the plan, and put into a model of time.

The model is that of a machine whose ranks are alike: so many operations a second each, so many bytes a second into or
out of a rank, and so long until a message is under way. A step takes as long as the rank with the most to do, and each
exchange as long as the rank that sends or receives the most; nothing overlaps. It is a model and no measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pcgraph.arguments import require_count, require_number
from pcgraph.network.adjacency import Index
from pcgraph.plan.operations import Exchange, Learn, Propagate, Pull

__all__ = ["Machine", "Ranks"]

# A plan is Any here, since it explains itself with this module, which comes before it.


@dataclass(frozen=True)
class Machine:
    """A machine is what the model of time knows of the computers that ranks run on.

    Parameters
    ----------
    flops : float
        Floating-point operations a second, of one rank.
    bandwidth : float
        Bytes a second that one rank sends, or receives.
    latency : float
        Seconds until a message is under way.
    """

    flops: float = 2e10
    bandwidth: float = 1e9
    latency: float = 5e-5

    def __post_init__(self) -> None:
        require_number(self.flops, "flops", above=0)
        require_number(self.bandwidth, "bandwidth", above=0)
        require_number(self.latency, "latency", least=0)

    def __str__(self) -> str:
        return (
            f"{self.flops / 1e9:.3g} GFLOP/s and {self.bandwidth / 1e9:.3g} GB/s a rank, {self.latency * 1e6:.3g} µs a "
            "message"
        )


class Ranks:
    """The ranks of a plan with a cut, as they are expected to be.

    Parameters
    ----------
    plan : Plan
    batch : int
    itemsize : int
        Bytes of a number.
    """

    def __init__(self, plan: Any, batch: int = 1, itemsize: int = 4) -> None:
        self.plan, self.cut = plan, plan.cut
        self.batch, self.itemsize = require_count(batch, "batch", least=1), itemsize
        s = plan.structure
        self.size: Index = np.array([group.size for group in s.groups])[s.group_of]
        self._entries = np.zeros(len(s.source), dtype=np.int64)
        modules = plan._modules(1)
        for b, bucket in enumerate(s.buckets):
            known = modules.get(b)
            entries = bucket.entries(s.groups) if known is None else known.forward // 2
            self._entries[bucket.start : bucket.stop] = entries

    @property
    def nodes(self) -> Index:
        """Count the declared nodes of each rank."""
        return self._sum(self.cut.owner[: len(self.plan.structure.declared)])

    @cached_property
    def products(self) -> Index:
        """Count the products of each rank in the whole run."""
        s, total = self.plan.structure, np.zeros(self.cut.parts, dtype=np.int64)
        visits = sum(self.plan._visits.values())
        for bucket in s.buckets:
            if bucket.multiplies:
                own = slice(bucket.start, bucket.stop)
                total += self._sum(self.cut.edge_owner[own], visits[own])
        return total

    @cached_property
    def flops(self) -> Index:
        """Count the floating-point operations of each rank in matrix products of the whole run."""
        visits: Index = sum(self.plan._visits.values())
        found: Index = 2 * self.batch * self._sum(self.cut.edge_owner, visits * self._entries)
        return found

    @cached_property
    def memory(self) -> Index:
        """Estimate the bytes of each rank: weights and their gradients, and five numbers a neuron, ghosts' too."""
        s, cut = self.plan.structure, self.cut
        weights = np.zeros(cut.parts, dtype=np.int64)
        for bucket in s.buckets:
            if bucket.kind == "transposed":  # its weights are another's
                continue
            first = slice(bucket.start, bucket.stop)
            rows = np.arange(bucket.count) if bucket.weight is None else np.unique(bucket.weight, return_index=True)[1]
            if bucket.kind in ("module", "joint"):
                each = sum(p.numel() for p in bucket.transform.parameters())
            else:
                each = bucket.entries(s.groups)
            weights += self._sum(cut.edge_owner[first][rows]) * each
        weights += self._sum(cut.owner[s.has_bias], self.size[s.has_bias])
        states = self._sum(cut.owner, self.size) + self._sum(cut.ghost_rank, self.size[cut.ghost_node])
        found: Index = self.itemsize * (2 * weights + 5 * self.batch * states)
        return found

    def sent(self, op: Exchange) -> tuple[Index, Index, Index]:
        """Return what an exchange is for each rank: bytes out, bytes in, and messages out."""
        bytes_of = self.batch * self.itemsize * self.size[op.nodes]
        pairs = np.unique(op.sender * self.cut.parts + op.receiver)
        return self._sum(op.sender, bytes_of), self._sum(op.receiver, bytes_of), self._sum(pairs // self.cut.parts)

    @cached_property
    def a_step(self) -> tuple[Index, Index]:
        """Return the bytes that each rank sends, and receives, in the last distinct step, which repeats."""
        out, into = np.zeros((2, self.cut.parts), dtype=np.int64)
        last = len(self.plan.stages) - 1
        for t, phase, op in self.plan.timeline(distinct=True):
            if isinstance(op, Exchange) and phase == "step" and t == last:
                sent, received, _ = self.sent(op)
                out, into = out + sent, into + received
        return out, into

    def seconds(self, machine: Machine) -> tuple[float, float]:
        """Return how long a run takes on one rank, and on all, by the model."""
        alone = together = 0.0
        for times, op in self._weighted():
            if isinstance(op, Exchange):
                out, into, messages = self.sent(op)
                if messages.any():
                    took = np.maximum(out, into) / machine.bandwidth + messages * machine.latency
                    together += times * float(took.max())
            else:
                work = 2 * self.batch * self._sum(self.cut.edge_owner[op.edges], self._entries[op.edges])
                alone += times * float(work.sum()) / machine.flops
                together += times * float(work.max()) / machine.flops
        return alone, together

    def efficiency(self, machine: Machine) -> float:
        """Return what part of the ranks' time is of use, by the model: 1 where P ranks are P times as quick as one."""
        alone, together = self.seconds(machine)
        return alone / (self.cut.parts * together) if together else 1.0

    def lines(self, machine: Machine) -> Iterator[str]:
        """Yield the ranks in words."""
        out, into = self.a_step
        yield f"over {self.cut.parts} ranks, for a batch of {self.batch} of {8 * self.itemsize} bits:"
        for r in range(self.cut.parts):
            yield (
                f"  rank {r}: {self.nodes[r]} {'node' if self.nodes[r] == 1 else 'nodes'}, {self.products[r]} products "
                f"({self.flops[r] / 1e6:.3g} MFLOP), {_bytes(self.memory[r])}; sends {_bytes(out[r])} and receives "
                f"{_bytes(into[r])} a step"
            )
        alone, together = self.seconds(machine)
        yield f"  by a model of {machine}: {alone * 1e3:.3g} ms alone, {together * 1e3:.3g} ms together,"
        yield f"  an efficiency of {100 * self.efficiency(machine):.0f} %"

    def _weighted(self) -> Iterator[tuple[int, Any]]:
        for t, phase, op in self.plan.timeline(distinct=True):
            if isinstance(op, Exchange | Propagate | Pull | Learn):
                yield self.plan.repeats(t) if phase == "step" else 1, op

    def _sum(self, ranks: Index, weights: Any = None) -> Index:
        """Add up by rank."""
        total = np.zeros(self.cut.parts, dtype=np.int64)
        np.add.at(total, ranks, 1 if weights is None else weights)
        return total


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
