"""A program is a plan that is ready to run: what inference and learning know of how anything is computed."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pcgraph.backends.motion import Motion
from pcgraph.backends.traits import traits_of
from pcgraph.clamps import Clamps
from pcgraph.energies import Energy, Gaussian
from pcgraph.errors import ConfigError
from pcgraph.initializers import Block, Context
from pcgraph.network import Network
from pcgraph.optimizers import in_place
from pcgraph.plan import Plan, Stage
from pcgraph.plan.operations import Exchange, Index, Move, Write

__all__ = ["Kind", "Program", "Which"]

#: What can be read of a node: its state h, its prediction mu, the variable that inference moves (the state, or in error
#: coordinates the error), the gradient of the energy for that variable, or the dual.
Kind = Literal["state", "prediction", "gradient", "variable", "dual"]
#: Canonical numbers of nodes of one shape: one of them, or neighbours as a slice, or any as an array.
Which = int | slice | Index


class Program(ABC):
    """A program is a plan that is ready to run on one network, on batches of one size.

    A run is :meth:`start`, then :meth:`step` for each t below ``plan.steps``, then :meth:`finish`; after that the
    program is read from, and asked for energies and gradients. Write the seven abstract methods: all others have
    defaults on top of them. :func:`pcgraph.testing.conformance.check_backend` tests what they do.

    Parameters
    ----------
    plan : Plan
    network : Network
    batch : int
        How many samples a batch has.

    Attributes
    ----------
    recording : object
        What :mod:`pcgraph.inference` keeps with the program if it records runs; a backend leaves it alone.
    """

    recording: Any = None
    #: Whether a recording has been made of a run, which then needs every address that the run has used.
    recorded = False
    #: What runs the exchanges of a plan that is that of one rank; see :meth:`trade`.
    trader: Callable[[Exchange], None] | None = None
    #: Weak reference to whoever still reads what the last run left behind.
    _reader: weakref.ref[Any] | None = None

    def __init__(self, plan: Plan, network: Network, batch: int) -> None:
        self.plan, self.network, self.batch = plan, network, batch
        self._compared: dict[Stage, tuple[tuple[int, slice | Index], ...]] = {}
        self._moved_parts: dict[Move, list[Index]] = {}
        #: Precisions where they are read, by segment, step, and which nodes.
        self._precision_of: dict[tuple[object, ...], Tensor] = {}

    # -- running ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, clamps: Clamps, context: Context) -> None:
        """Put clamped values in their places, and run the plan's ``prologue`` and ``begin``.

        Whatever was read of an earlier run may change from here on. The neurons that a partial clamp fixes have their
        values whenever anything reads them.

        Parameters
        ----------
        clamps : Clamps
            The clamped values by canonical number of the node, checked already.
        context : Context
            What initializers may look at; hand it to :meth:`initialize`.
        """

    @abstractmethod
    def evaluate(self, t: int) -> None:
        """Bring predictions, errors and signals up to date: ``propagate`` and ``compare`` of stage `t`.

        Stage 0 has nothing to propagate. ``t = plan.steps`` is the final stage.
        """

    @abstractmethod
    def pull(self, t: int, motion: Motion) -> None:
        """Complete the gradients of the states: ``pull`` of stage `t`, nudges, and zero where a clamp is partial."""

    @abstractmethod
    def move(self, t: int, motion: Motion) -> None:
        """Let the optimizer move the nodes of stage `t` along their gradients, all from the same old states."""

    def step(self, t: int, motion: Motion) -> None:
        """Take inference step `t` (paper, Eq 3): evaluate, pull and move.

        A backend that fuses the three overrides this.
        """
        self.evaluate(t)
        self.pull(t, motion)
        self.move(t, motion)

    @abstractmethod
    def finish(self) -> None:
        """Run the plan's ``final`` stage: the errors at the final states."""

    def class_means(self, group: int, onehot: Tensor, means: Tensor) -> bool:
        """Bring means of a group's states by class up to date in place, where the backend has one call for all of it.

        Parameters
        ----------
        group : int
        onehot : Tensor, shape (batch, classes)
        means : Tensor, shape (nodes, classes, size)
            Those of a class without a sample stay as they are.

        Returns
        -------
        bool
            False where the backend has no such call; nothing has changed then.
        """
        return False

    # -- reading ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, which: Which, kind: Kind) -> Tensor:
        """Return the present values of one node, (batch, *shape), or of several of one shape, (nodes, batch, *shape).

        It may be a view of what the program works on: it is to be read only, and before the program goes on. A node
        that was not compared last is at its prediction. Gradients are there after :meth:`pull`, for nodes that move.

        Parameters
        ----------
        which : int, slice or ndarray of int
            Canonical numbers.
        kind : {"state", "prediction", "gradient", "variable", "dual"}
            h, mu, or the gradient of the energy for h. The variable is another than h in error coordinates alone, and
            there are duals where the plan has them.
        """

    def write(self, which: Which, values: Tensor) -> None:
        """Set the variables of one node, (batch, *shape), or of several of one kind, (nodes, batch, *shape).

        Solvers and tolerances need it; a program that does not define it is refused there.

        Raises
        ------
        ConfigError
            The program does not define it.
        """
        raise ConfigError(
            f"{type(self).__name__} does not let its variables be set: use a state optimizer, and no tolerance=",
            key="optimizer",
        )

    def add(self, which: Which, values: Tensor) -> None:
        """Add to the gradients of several nodes of one shape, (nodes, batch, *shape), each named once.

        Only a program that takes part in an exchange is asked.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no part in exchanges")

    def trade(self, exchange: Exchange) -> None:
        """Run an exchange of the plan: :attr:`trader` does, who has made the plan of one rank."""
        assert self.trader is not None
        self.trader(exchange)

    def holds(self, i: int) -> bool:
        """Tell whether node `i` is computed here: where ranks share a network, some are not."""
        return True

    def summed(self, tensor: Tensor) -> Tensor:
        """Add up, over the ranks that share the network, what each has computed of its own nodes."""
        return tensor

    def largest(self, tensor: Tensor) -> Tensor:
        """Take the largest over the ranks that share the network."""
        return tensor

    def columns(self, t: int) -> tuple[Index | None, int]:
        """Say which columns of the rows of the whole network :meth:`rows` has (None: all), and how many there are."""
        s = self.plan.structure
        return None, int(sum(s.groups[int(s.group_of[i])].size for i in self.plan.stage(t).move.nodes))

    def hold(self, held: Tensor) -> None:
        """Keep duals from moving, and gradients at zero after :meth:`pull`, until the end of the run.

        A program without duals is never asked. It may compute no more of what serves nodes alone that are held for
        every sample.

        Parameters
        ----------
        held : Tensor of bool, shape (nodes, batch)
            By canonical number. What was held stays so.
        """
        raise NotImplementedError(f"{type(self).__name__} has no duals")

    def gradients_in_turn(self, scale: float) -> Iterator[nn.Parameter]:
        """Do what :meth:`gradients` does, and yield the parameters whose gradients are complete already.

        One that is never yielded is complete at the end. So gradients can travel while the next are computed.
        """
        self.gradients(scale)
        yield from ()

    @abstractmethod
    def gradients(self, scale: float) -> None:
        """Add `scale` times the local gradients (paper, Eq 4) to the ``.grad`` of the network's parameters.

        The gradients are those of the energy summed over the batch, at the present states: the plan's ``learn``. An
        energy's own parameters are dealt with by :meth:`energy_gradients`.
        """

    def node_energies(self, t: int | None = None) -> Iterator[tuple[Index, Tensor]]:
        """Yield (nodes, energies (nodes, batch)) for the nodes that stage `t` compares, by default the last stage.

        Each node with an error comes once; the energy of all others is zero. They are E_v of the paper's Eq 1.
        """
        for k, which in self.compared_segments(t):
            h, mu = self.read(which, "state"), self.read(which, "prediction")
            numbers = np.arange(which.start, which.stop) if isinstance(which, slice) else which
            with torch.no_grad():
                yield numbers, self._energy(k, numbers, h, mu, self.plan.steps if t is None else t)

    def _energy(self, k: int, numbers: Index, h: Tensor, mu: Tensor, t: int) -> Tensor:
        segment = self.plan.structure.segments[k]
        h, mu = h.to(self.energy_dtype), mu.to(self.energy_dtype)
        if not segment.gaussian:
            energy = self.network.energy_of(k)
            return energy.per_sample(h.flatten(0, 1), mu.flatten(0, 1)).view(h.shape[:2])
        energies: Tensor = (h - mu).flatten(2).square_().sum(2).mul_(0.5)
        precision = self.plan.precisions(t)[k]
        if precision is None:
            return energies
        key = (k, t, int(numbers[0]), len(numbers), energies.device, energies.dtype)
        if key not in self._precision_of:
            first = self.plan.structure.nodes_of(segment).start
            self._precision_of[key] = torch.from_numpy(precision[numbers - first]).to(energies).unsqueeze(1)
        return energies.mul_(self._precision_of[key])

    def node_energy(self, i: int, t: int | None = None) -> Energy:
        """Return the energy of the node with canonical number `i` in this run: the network's, or another precision.

        For a schedule it is that of step `t`, by default of the end.
        """
        asked = dict(self.plan.request.precision).get(i)
        if asked is None:
            return self.network.node_energy(i)
        return Gaussian(asked[self.plan.steps if t is None else t] if isinstance(asked, tuple) else asked)

    def compared_segments(self, t: int | None = None) -> tuple[tuple[int, slice | Index], ...]:
        """Return (number of a segment, nodes) for the nodes that stage `t` compares, by default the last stage."""
        stage = self.plan.stage(self.plan.steps if t is None else t)
        if stage not in self._compared:
            self._compared[stage] = tuple(self._by_segment(stage.compare.nodes))
        return self._compared[stage]

    def _by_segment(self, nodes: Index) -> Iterator[tuple[int, slice | Index]]:
        s = self.plan.structure
        cuts = np.flatnonzero(np.diff(s.segment_of[nodes])) + 1
        for members in np.split(nodes, cuts) if len(nodes) else ():
            k, parts = int(s.segment_of[members[0]]), np.split(members, np.flatnonzero(np.diff(members) > 1) + 1)
            if len(parts) > traits_of(self.network.device.type).pieces:
                yield k, members
            else:
                yield from ((k, slice(int(part[0]), int(part[-1]) + 1)) for part in parts)

    @property
    def energy_dtype(self) -> torch.dtype:
        """Energies have this dtype: sums of squares of half precision leave its range, and are taken in float32."""
        own = self.network.dtype
        return torch.float32 if own in (torch.float16, torch.bfloat16) else own

    def energy(self, t: int | None = None) -> Tensor:
        """Sum the energies to F per sample, shape (batch,) (paper, Eq 1), at stage `t`, by default the last."""
        total = torch.zeros(self.batch, dtype=self.energy_dtype, device=self.network.device)
        for _, energies in self.node_energies(t):
            total += energies.sum(0)
        return total

    def finite(self) -> bool:
        """Tell whether the energy is finite for every sample; on a GPU this waits for the device."""
        return bool(torch.isfinite(self.energy()).all())

    def residual(self, t: int, clamps: Clamps) -> Tensor:
        """Return the largest gradient of a neuron in each sample, (batch,), among what stage `t` moves.

        It is there after :meth:`pull`. The gradient for a dual is the error of its node.
        """
        largest = torch.zeros(self.batch, dtype=self.network.dtype, device=self.network.device)
        for part in self._variables(t):
            found = self.read(part, "gradient").abs().transpose(0, 1).flatten(1).amax(1)
            torch.maximum(largest, found, out=largest)
        for same in self._dual_parts:
            torch.maximum(largest, self._missed(same, clamps).abs().flatten(2).amax((0, 2)), out=largest)
        return largest

    def settled(self, ratio: float, clamps: Clamps) -> Tensor:
        """Tell for which samples each node's residual is at most `ratio` times its dual in norm: (nodes, batch).

        A dual that is lost in the last digits of the state is none yet: a sweep that rounds leaves such residuals.
        """
        shape = len(self.plan.structure.nodes), self.batch
        found = torch.zeros(shape, dtype=torch.bool, device=self.network.device)
        for part in self._dual_parts:
            size = self.read(part, "dual").flatten(2).norm(dim=2)
            left = self._missed(part, clamps).flatten(2).norm(dim=2)
            rounding = 64 * torch.finfo(size.dtype).eps * self.read(part, "state").flatten(2).norm(dim=2)
            where = part if isinstance(part, slice) else torch.from_numpy(part).to(found.device)
            found[where] = (left <= ratio * size) & (size > rounding)
        return found

    @cached_property
    def _dual_parts(self) -> list[slice | Index]:
        """Return the nodes with a dual, in parts of one shape."""
        parts = self._alike(self.plan.duals)
        return [slice(int(p[0]), int(p[-1]) + 1) if p[-1] - p[0] + 1 == len(p) else p for p in parts]

    def _missed(self, part: slice | Index, clamps: Clamps) -> Tensor:
        """Return ``h - mu`` of nodes of one shape, (nodes, batch, *shape), zero at neurons that are known."""
        residual = self.read(part, "state") - self.read(part, "prediction")
        numbers = range(part.start, part.stop) if isinstance(part, slice) else part.tolist()
        for k, i in enumerate(numbers if clamps.masked else ()):
            if i in clamps.masked:
                residual[k].masked_fill_(clamps.masked[i][1], 0.0)
        return residual

    def rows(self, t: int, kind: Kind) -> Tensor:
        """Read all nodes that stage `t` moves, a row for each sample: (batch, variables)."""
        kind = "state" if kind == "variable" and self.plan.measure is None else kind
        parts = [self.read(part, kind).transpose(0, 1).flatten(1) for part in self._variables(t)]
        nothing = torch.zeros(self.batch, 0, dtype=self.network.dtype, device=self.network.device)
        return torch.cat(parts, 1) if parts else nothing

    def assign(self, t: int, rows: Tensor) -> None:
        """Set the variables of all nodes that stage `t` moves, given as :meth:`rows` gives them."""
        s, start = self.plan.structure, 0
        for part in self._variables(t):
            group, count = s.groups[int(s.group_of[part[0]])], len(part)
            values = rows[:, start : start + count * group.size].reshape(self.batch, count, *group.shape)
            self.write(part, values.transpose(0, 1))
            start += count * group.size

    def per_variable(self, t: int, nodes: Tensor) -> Tensor:
        """Spread what is said of each node and sample, (nodes, batch), over :meth:`rows`: (batch, variables)."""
        groups = self.plan.structure
        parts = [
            nodes[torch.from_numpy(part).to(nodes.device)]
            .t()
            .repeat_interleave(groups.groups[int(groups.group_of[part[0]])].size, 1)
            for part in self._variables(t)
        ]
        return torch.cat(parts, 1) if parts else nodes.new_zeros(self.batch, 0)

    def _variables(self, t: int) -> list[Index]:
        """Return the nodes that stage `t` moves, in parts of one shape and one kind of variable."""
        move = self.plan.stage(t).move
        if move not in self._moved_parts:
            self._moved_parts[move] = self._alike(move.nodes)
        return self._moved_parts[move]

    def _alike(self, nodes: Index) -> list[Index]:
        """Cut nodes in parts of one shape and one kind of variable."""
        s = self.plan.structure
        if not len(nodes):
            return []
        label = s.group_of[nodes] * 2
        if self.plan.measure is not None:
            label = label + np.isin(nodes, self.plan.measure.nodes)
        order = np.argsort(label, kind="stable")
        return np.split(nodes[order], np.flatnonzero(np.diff(label[order])) + 1)

    def energy_gradients(self, scale: float) -> None:
        """Add `scale` times the gradients of the energies' own parameters (a learned precision, say), by autograd."""
        for k, which in self.compared_segments():
            if self.plan.structure.segments[k].gaussian:
                continue
            energy = self.network.energy_of(k)
            parameters = [p for p in energy.parameters() if p.requires_grad]
            if not parameters:
                continue
            h, mu = self.read(which, "state").flatten(0, 1), self.read(which, "prediction").flatten(0, 1)
            with torch.enable_grad():
                total = energy.energy(h, mu).sum() * scale
                grads = torch.autograd.grad(total, parameters, allow_unused=True)
            for parameter, grad in zip(parameters, grads):
                if grad is not None:
                    parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)

    # -- what else inference asks -------------------------------------------------------------------------------------

    def initialize(self, write: Write, block: Block, out: Tensor, context: Context) -> None:
        """Let the initializer of a write operation fill `out`, (nodes, batch, *shape), for one block of its nodes."""
        if write.source < 0:
            out.zero_()
        else:
            in_place(context.sources[write.source].init, out, block, out, context)

    @property
    def taken(self) -> bool:
        """Tell whether somebody still reads what the last run left behind, so that the program must not run again."""
        return self._reader is not None and self._reader() is not None

    def lend(self, reader: object) -> None:
        """Leave what the program holds alone for as long as `reader` lives."""
        self._reader = weakref.ref(reader)
