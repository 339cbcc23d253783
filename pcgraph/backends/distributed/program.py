"""One rank's program runs its part of a plan, and between two of its operations exchanges with the other ranks.

    h of a ghost  <-  h of its node                              after the node has moved
    g of a node   +=  g of its ghosts                            before the node moves

What is said of all nodes together, the energy of a sample say, is added up over the ranks, in the same order on each:
all ranks know the same number, to the last bit, and decide the same by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pcgraph.backends.motion import Motion, Noise
from pcgraph.backends.running import Kind, Program, Which
from pcgraph.clamps import Clamps
from pcgraph.errors import ConfigError
from pcgraph.initializers import Block, Context, Initializer, blocks
from pcgraph.network import Network, Piece
from pcgraph.optimizers import StateOptimizer, in_place
from pcgraph.plan import Exchange, Plan
from pcgraph.plan.operations import NONE, Index, Write
from pcgraph.processes import Group

__all__ = ["RankProgram"]


@dataclass(frozen=True, eq=False)
class _Route:
    """An exchange goes this way on one rank: which nodes go out and come in, and how many numbers to and from each.

    Nodes are in parts of one shape, in the order of the message.
    """

    out: list[slice | Index]
    out_counts: list[int]
    into: list[slice | Index]
    into_counts: list[int]


class RankProgram(Program):
    """This program is one rank's part of a plan for several.

    What it is asked and tells is in numbers of the whole network, of which it holds its own nodes.

    Parameters
    ----------
    plan : Plan
        Across ranks.
    network : Network
        The whole one; its parameters are those of this rank.
    inner : Program
        Of the rank's own plan and network.
    part : Piece
    group : Group or None
        The ranks, or None if there is one alone.
    """

    def __init__(self, plan: Plan, network: Network, inner: Program, part: Piece, group: Group | None) -> None:
        super().__init__(plan, network, inner.batch)
        self.inner, self.part, self.group = inner, part, group
        inner.trader = self._trade
        self._routes: dict[int, tuple[Exchange, _Route]] = {}
        self._clamps: dict[int, Tensor] = {}
        self._total: Tensor | None = None
        self._writes = [op for op in plan.prologue if isinstance(op, Write) and op.source >= 0]

    # -- running ------------------------------------------------------------------------------------------------------

    def start(self, clamps: Clamps, context: Context) -> None:
        local, owner, rank = self.part.local, self.part.cut.owner, self.part.rank
        self._clamps, self._total = dict(clamps.values), None
        own = Clamps(
            clamps.batch,
            {int(local[i]): value for i, value in clamps.values.items() if local[i] >= 0},
            {int(local[i]): pair for i, pair in clamps.masked.items() if owner[i] == rank},
        )
        self._own_clamps = own
        sources = tuple(_Here(op, context.sources[op.source], context, self.part) for op in self._writes)
        self.inner.trader = self._trade  # another plan of this rank may have had the inner program
        self.inner.start(own, replace(context, sources=cast("tuple[Initializer, ...]", sources)))

    def evaluate(self, t: int) -> None:
        self._total = None
        self.inner.evaluate(t)

    def pull(self, t: int, motion: Motion) -> None:
        self.inner.pull(t, self._own(t, motion))

    def move(self, t: int, motion: Motion) -> None:
        own = self._own(t, motion)
        self.inner.move(t, own)
        self._draw_along(t, own)

    def step(self, t: int, motion: Motion) -> None:
        self._total = None
        own = self._own(t, motion)
        self.inner.step(t, own)
        self._draw_along(t, own)

    def _draw_along(self, t: int, motion: Motion) -> None:
        """Where nothing moves here, draw what the others draw: a generator is to be in one place on all ranks."""
        optimizer = motion.optimizer
        if len(self.inner.plan.stage(t).move.nodes) or not isinstance(optimizer, StateOptimizer):
            return
        if not optimizer.fixes_zero and motion.noise is not None:
            nothing = torch.empty(0, self.batch, 1, dtype=self.network.dtype, device=self.network.device)
            memory = {"lr": 1.0, "step": motion.first_step + t, "noise": partial(motion.noise.of, NONE)}
            optimizer.step(nothing, nothing.clone(), memory)

    def _own(self, t: int, motion: Motion) -> Motion:
        """Return what of a motion is this rank's; it remembers in the same place."""
        own = {int(self.part.local[i]): nudge for i, nudge in motion.nudges.items() if self.holds(i)}
        moved = self.plan.stage(t).move.nodes
        noise = Noise(self.plan.structure, moved, self.batch, motion.part, self.part.nodes)
        return replace(motion, nudges=own, noise=noise)

    def finish(self) -> None:
        """Bring the errors up to date, and the energy, so that nobody waits for others when it is read."""
        self._total = None
        self.inner.finish()
        self._total = self.energy()

    # -- exchanging ---------------------------------------------------------------------------------------------------

    def _trade(self, op: Exchange) -> None:
        assert self.group is not None
        if id(op) not in self._routes:
            self._routes[id(op)] = op, self._route(op)
        route = self._routes[id(op)][1]
        kind: Kind = "state" if op.kind == "state" else "gradient"
        pieces = [self.inner.read(part, kind).reshape(-1) for part in route.out]
        like = torch.empty(0, dtype=self.network.dtype, device=self.network.device)
        sent = torch.cat(pieces) if pieces else like
        received = self.group.swap(sent, route.out_counts, route.into_counts)
        s, done = self.part.structure, 0
        for part in route.into:
            first, count = (part.start, part.stop - part.start) if isinstance(part, slice) else (part[0], len(part))
            group = s.groups[int(s.group_of[first])]
            numbers = count * self.batch * group.size
            values = received[done : done + numbers].view(count, self.batch, *group.shape)
            done += numbers
            if op.kind == "state":
                self.inner.write(part, values)
            else:
                self.inner.add(part, values)

    def _route(self, op: Exchange) -> _Route:
        """Sort by rank, and among those by shape, which all ranks do alike: messages are in numbers of the whole."""
        out, into = op.sender == self.part.rank, op.receiver == self.part.rank
        return _Route(
            *self._pieces(op.nodes[out], op.receiver[out]), *self._pieces(op.nodes[into], op.sender[into])
        )  # fmt: skip

    def _pieces(self, nodes: Index, peers: Index) -> tuple[list[slice | Index], list[int]]:
        cut, s = self.part.cut, self.part.structure
        whole = self.part.nodes[nodes]
        groups = cut.structure.group_of[whole]
        order = np.lexsort((whole, groups, peers))
        label = peers[order] * len(cut.structure.groups) + groups[order]
        found = [p for p in np.split(nodes[order], np.flatnonzero(np.diff(label)) + 1) if len(p)]
        size = np.array([group.size for group in s.groups])[s.group_of[nodes]] if len(nodes) else np.zeros(0)
        counts = np.bincount(peers, weights=size * self.batch, minlength=cut.parts).astype(int)
        return [_neighbours(part) for part in found], counts.tolist()

    def summed(self, tensor: Tensor) -> Tensor:
        return tensor if self.group is None else self.group.sum(tensor.clone())

    def largest(self, tensor: Tensor) -> Tensor:
        return tensor if self.group is None else self.group.largest(tensor.clone())

    # -- reading ------------------------------------------------------------------------------------------------------

    def holds(self, i: int) -> bool:
        return bool(self.part.cut.owner[i] == self.part.rank)

    def read(self, which: Which, kind: Kind) -> Tensor:
        if isinstance(which, int):
            if kind == "state" and which in self._clamps:
                return self._clamps[which]
            self._require(np.array([which]))
            return self.inner.read(int(self.part.local[which]), kind)
        numbers = np.arange(which.start, which.stop) if isinstance(which, slice) else which
        if kind == "state" and not all(map(self.holds, numbers.tolist())):
            return self._some(numbers)
        self._require(numbers)
        return self.inner.read(self.part.local[numbers], kind)

    def _some(self, numbers: Index) -> Tensor:
        """Return the states of nodes of one shape, zero where another rank holds the node."""
        s = self.plan.structure
        shape = s.groups[int(s.group_of[numbers[0]])].shape
        found = torch.zeros(
            len(numbers), self.batch, *shape, dtype=self.network.dtype, device=self.network.device
        )  # fmt: skip
        for k, i in enumerate(numbers.tolist()):
            if self.holds(i):
                found[k] = self.inner.read(int(self.part.local[i]), "state")
        return found

    def _require(self, numbers: Index) -> None:
        away = numbers[self.part.cut.owner[numbers] != self.part.rank]
        if len(away):
            raise ConfigError(
                f"the node {self.plan.structure.nodes[int(away[0])]!r} is on rank {self.part.cut.owner[away[0]]}, and "
                f"this is rank {self.part.rank}, which holds its own nodes alone",
                key="partition",
            )

    def write(self, which: Which, values: Tensor) -> None:
        numbers = np.array([which]) if isinstance(which, int) else which
        numbers = np.arange(numbers.start, numbers.stop) if isinstance(numbers, slice) else numbers
        self._require(numbers)
        self.inner.write(self.part.local[numbers], values)

    def node_energies(self, t: int | None = None) -> Iterator[tuple[Index, Tensor]]:
        """Yield the energies of this rank's nodes alone."""
        for numbers, energies in self.inner.node_energies(t):
            yield self.part.nodes[numbers], energies

    def energy(self, t: int | None = None) -> Tensor:
        """Sum the energies over all nodes of all ranks; at the end of a run that is done already."""
        if self._total is not None and t is None:
            return self._total.clone()
        return self.summed(self.inner.energy(t))

    def finite(self) -> bool:
        return bool(torch.isfinite(self.energy()).all())

    def residual(self, t: int, clamps: Clamps) -> Tensor:
        return self.largest(self.inner.residual(t, self._own_clamps))

    def settled(self, ratio: float, clamps: Clamps) -> Tensor:
        """Tell it of the nodes of all ranks, which decide together what is left to do."""
        own = self.inner.settled(ratio, self._own_clamps)
        found = torch.zeros(len(self.plan.structure.nodes), self.batch, dtype=torch.uint8, device=own.device)
        found[torch.from_numpy(self.part.nodes).to(own.device)] = own.to(torch.uint8)  # a ghost has no dual here
        return self.largest(found).to(torch.bool)

    def gradients(self, scale: float) -> None:
        self.inner.gradients(scale)

    # -- this rank's variables ----------------------------------------------------------------------------------------

    def rows(self, t: int, kind: Kind) -> Tensor:
        """Read the nodes of this rank that stage `t` moves."""
        return self.inner.rows(t, kind)

    def assign(self, t: int, rows: Tensor) -> None:
        self.inner.assign(t, rows)

    def per_variable(self, t: int, nodes: Tensor) -> Tensor:
        return self.inner.per_variable(t, nodes[torch.from_numpy(self.part.nodes).to(nodes.device)])

    def columns(self, t: int) -> tuple[Index | None, int]:
        s, width = self.plan.structure, 0
        first = np.full(len(s.nodes), -1, dtype=np.int64)
        size = np.array([group.size for group in s.groups])[s.group_of]
        for part in self._variables(t):
            first[part] = width + np.concatenate([[0], np.cumsum(size[part])[:-1]])
            width += int(size[part].sum())
        own = [self.part.nodes[i] for part in self.inner._variables(t) for i in part.tolist()]
        found = [np.arange(first[i], first[i] + size[i]) for i in own]
        return (np.concatenate(found) if found else NONE), width

    def hold(self, held: Tensor) -> None:
        self.inner.hold(held[torch.from_numpy(self.part.nodes).to(held.device)])

    # -- sharing ------------------------------------------------------------------------------------------------------

    @property
    def taken(self) -> bool:
        return self.inner.taken

    def lend(self, reader: object) -> None:
        self.inner.lend(reader)


def _neighbours(part: Index) -> slice | Index:
    """Return numbers as a slice where they come one after the other."""
    return slice(int(part[0]), int(part[-1]) + 1) if (np.diff(part) == 1).all() else part


class _Here:
    """An initializer writes the nodes of one rank, in blocks of the whole network.

    One that writes by blocks writes whole ones, of which what lies here is kept: a draw is of a block, and must be the
    same on any rank.
    """

    def __init__(self, op: Write, source: Initializer, context: Context, part: Piece) -> None:
        self.op, self.source, self.context, self.part = op, source, context, part

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        numbers = self.part.nodes[block.number : block.number + len(block.nodes)]
        if type(self.source).writes_zeros:
            out.zero_()
            return
        for whole in blocks(self.part.cut.structure, self.op.nodes):
            stop = whole.number + len(whole.nodes)
            wanted = np.flatnonzero((numbers >= whole.number) & (numbers < stop))
            if len(wanted):
                self._write(whole, numbers[wanted] - whole.number, torch.from_numpy(wanted), out)

    def _write(self, whole: Block, rows: Index, wanted: Tensor, out: Tensor) -> None:
        if self.source.across == "nodes":
            for k, row in zip(wanted.tolist(), rows.tolist()):
                number, start = whole.number + row, whole.start + row
                one = Block((whole.nodes[row],), whole.shape, whole.group, start, start + 1, number)
                states = out[k : k + 1]
                in_place(self.source.init, states, one, states, self.context)
            return
        states, where = out.new_zeros(len(whole.nodes), *out.shape[1:]), torch.from_numpy(rows).to(out.device)
        states[where] = out[wanted.to(out.device)]  # what was there before may be left in part
        in_place(self.source.init, states, whole, states, self.context)
        out[wanted.to(out.device)] = states[where]
