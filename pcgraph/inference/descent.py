"""A descent is the loop over a program: initialise, go downhill step by step, and keep what was seen on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcgraph.backends import Motion, Program
from pcgraph.clamps import Clamps
from pcgraph.inference.options import Options
from pcgraph.inference.watching import NOTHING_KEPT, Keeper, Traces
from pcgraph.initializers import Context
from pcgraph.solvers import Solver

__all__ = ["Descent", "descend", "energy_by_node"]


@dataclass(eq=False)
class Descent:
    """A descent keeps what a run has seen.

    Attributes
    ----------
    trace : Tensor or None
        The energy before each step and after the last, (steps + 1, batch), or of each node (steps + 1, nodes, batch);
        fewer steps are taken where all samples have reached the tolerance.
    steps : Tensor or None, shape (batch,)
        After how many steps each sample had converged; None where there was no tolerance.
    converged, failed : Tensor or None, shape (batch,)
        Which samples have reached the tolerance; for which a solver found no way on.
    residual : Tensor or None, shape (batch,)
        The largest gradient of a neuron that was seen last.
    kept : tuple
        States and errors by node, (kept, batch, *shape), and after which steps they were kept; or nothing.
    moved : int or None
        How many states were moved in all steps together, counting those that moved in some sample; None where no
        node stops.
    """

    trace: Tensor | None = None
    steps: Tensor | None = None
    converged: Tensor | None = None
    failed: Tensor | None = None
    residual: Tensor | None = None
    moved: int | None = None
    kept: Traces = NOTHING_KEPT


def descend(program: Program, clamps: Clamps, context: Context, motion: Motion, options: Options) -> Descent:
    """Initialise, take the steps, and bring the errors up to date.

    Returns
    -------
    Descent
        What was seen; a run that is not looked at step by step has seen nothing.
    """
    program.start(clamps, context)
    plain = not options.trace and options.tolerance is None and options.stop is None and options.callback is None
    if plain and not isinstance(motion.optimizer, Solver):
        for t in range(program.plan.steps):
            program.step(t, motion)
        program.finish()
        return Descent()
    return _Watched(program, clamps, motion, options).run()


class _Watched:
    """A watched run is looked at in every step."""

    def __init__(self, program: Program, clamps: Clamps, motion: Motion, options: Options) -> None:
        self.program, self.clamps, self.motion, self.options = program, clamps, motion, options
        self.solver = motion.optimizer if isinstance(motion.optimizer, Solver) else None
        device = program.network.device
        self.active = torch.ones(program.batch, dtype=torch.bool, device=device)
        self.steps = torch.zeros(program.batch, dtype=torch.long, device=device)
        self.found = Descent()
        #: (nodes, batch): those that have stopped by themselves; None where none does.
        self.stopped: Tensor | None = None
        #: Nodes that do not move for any sample any more.
        self.resting = np.zeros(len(program.plan.structure.nodes), dtype=bool)
        if options.stop is not None:
            shape = len(program.plan.structure.nodes), program.batch
            self.stopped, self.found.moved = torch.zeros(shape, dtype=torch.bool, device=device), 0

    def run(self) -> Descent:
        program, options, energies = self.program, self.options, []
        keeper, taken = Keeper(program, options.states, options.callback), program.plan.steps
        for t in range(program.plan.steps):
            program.evaluate(t)
            if options.trace:
                energies.append(self._measured(t))
            keeper.see(t, t)
            if self.stopped is not None and options.stop is not None and t:
                found = self.stopped | program.settled(options.stop, self.clamps)
                if not torch.equal(found, self.stopped):
                    self.stopped = found
                    self._hold()
            program.pull(t, self.motion)
            if options.tolerance is not None:
                self.found.residual = program.residual(t, self.clamps)
                self.active &= self.found.residual > options.tolerance
                if len(program.plan.duals):
                    self._hold()
                if not self.active.any():
                    taken = t
                    break
            self.steps += self.active
            self._move(t)
        program.finish()
        self._finish()
        keeper.see(taken, None)
        self.found.kept = keeper.kept
        if options.trace:
            del energies[taken:]  # a run that has converged ends where it was looked at last
            energies.append(self._measured(None))
            found = torch.stack(energies)
            self.found.trace = program.summed(found) if options.trace == "nodes" else found
        if options.tolerance is not None:
            self.found.steps, self.found.converged = self.steps, ~self.active
        return self.found

    def _measured(self, t: int | None) -> Tensor:
        """Return the energy of the samples, or of all nodes."""
        return energy_by_node(self.program, t) if self.options.trace == "nodes" else self.program.energy(t)

    def _hold(self) -> None:
        """Keep the duals of samples that have converged, and of nodes that have stopped."""
        held = ~self.active.expand(len(self.program.plan.structure.nodes), -1)
        held = held if self.stopped is None else held | self.stopped
        self.program.hold(held)
        self.resting = held.all(1).cpu().numpy()

    def _move(self, t: int) -> None:
        """Move all samples but those that have converged, which stay where they are, whatever the others do."""
        program = self.program
        if self.stopped is not None:
            self._move_going(t, ~self.stopped & self.active)
            return
        resting = self.options.tolerance is not None and not bool(self.active.all())
        if self.solver is None:
            before = program.rows(t, "variable").clone() if resting else None
            program.move(t, self.motion)
            if before is not None:
                program.assign(t, torch.where(self.active.unsqueeze(1), program.rows(t, "variable"), before))
            return
        memory = self.motion.memories.setdefault("solver", {})
        memory["energy"], memory["step"], memory["sum"] = self._cost(t), self.motion.first_step + t, program.summed
        before, wide = program.rows(t, "variable").clone(), program.energy_dtype
        # Curvature from differences of half precision would be rounding, and torch solves no equations in it.
        after = self.solver.propose(before.to(wide), program.rows(t, "gradient").to(wide), memory).to(before.dtype)
        program.assign(t, torch.where(self.active.unsqueeze(1), after, before) if resting else after)

    def _move_going(self, t: int, going: Tensor) -> None:
        """Move the nodes of samples that are `going`, (nodes, batch), and no others."""
        program, optimizer = self.program, self.motion.optimizer
        assert optimizer is not None
        assert self.found.moved is not None
        self.found.moved += int((~self.resting[program.plan.stage(t).move.nodes]).sum())
        if optimizer.fixes_zero and optimizer.stateless:  # without a gradient nothing moves
            program.move(t, self.motion)
            return
        before = program.rows(t, "variable").clone()
        program.move(t, self.motion)
        after = program.rows(t, "variable")
        program.assign(t, torch.where(program.per_variable(t, going), after, before))

    def _finish(self) -> None:
        """Let the solver choose where to end, now that the energy of what it proposed last is known."""
        if self.solver is None or not self.program.plan.steps:
            return
        last, memory = self.program.plan.steps - 1, self.motion.memories.setdefault("solver", {})
        proposed = self.program.rows(last, "variable").clone()
        chosen = self.solver.finish(proposed.to(self.program.energy_dtype), self._cost(None), memory).to(proposed.dtype)
        differs = (chosen != proposed).any(1, keepdim=True).to(torch.uint8)
        if self.program.largest(differs).any():  # on any rank
            self.program.assign(last, torch.where(self.active.unsqueeze(1), chosen, proposed))
            self.program.finish()
        self.found.failed = self.solver.failed(memory)

    def _cost(self, t: int | None) -> Tensor:
        """Compute what is minimised, (batch,): the energy, and what nudges add to it."""
        cost = self.program.energy(t)
        if not self.motion.nudges:
            return cost
        pulled = torch.zeros_like(cost)
        for i, (target, strength) in self.motion.nudges.items():
            if self.program.holds(i):
                miss = self.program.read(i, "state") - target
                pulled += 0.5 * strength * miss.flatten(1).square().sum(1)
        return cost + self.program.summed(pulled)


def energy_by_node(program: Program, t: int | None = None) -> Tensor:
    """Compute the energy of each node, (nodes, batch), by canonical number; zero where it is not compared."""
    net = program.network
    shape = len(program.plan.structure.nodes), program.batch
    energies = torch.zeros(shape, dtype=program.energy_dtype, device=net.device)
    for numbers, found in program.node_energies(t):
        energies.index_copy_(0, torch.from_numpy(numbers).to(net.device), found)
    return energies
