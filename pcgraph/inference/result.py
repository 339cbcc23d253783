"""A result is what an inference leaves behind, and the network learns from it: local gradients at the final states.

dF/dW_uv = -s_v phi_uv(h_u)^T        dF/db_v = -s_v        averaged over the batch      (paper, Eq 4, corrected)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pcgraph import notebook
from pcgraph.arguments import require_number, shown
from pcgraph.backends import Program
from pcgraph.clamps import Clamps
from pcgraph.errors import ConfigError, PCGraphWarning, said_by
from pcgraph.inference.descent import Descent, energy_by_node
from pcgraph.inference.reading import NodeTensors, Reader
from pcgraph.initializers import Initializer
from pcgraph.network import every_parameter
from pcgraph.processes import Part
from pcgraph.sweeps import eagerly

__all__ = ["InferenceResult"]

Node = Hashable

SHOWN = 20
"""So many nodes a notebook's table has."""


class InferenceResult:
    """A result says how an inference ended, and the network learns from it. All is computed when it is first asked for.

    Attributes
    ----------
    states, predictions, errors : mapping
        Node -> (batch, *shape): h, mu and e = h - mu at the final states. Nodes without an energy predict nothing:
        their error is zero and their prediction their state. A slot's prediction and error are there as
        ``errors["V1", "down"]``.
    trace : Tensor or None, shape (steps + 1, batch)
        The energy before each step and after the last, if it was asked for; of as many steps as were taken, where all
        samples have reached ``tolerance=``.
    node_trace : dict or None
        Node -> (steps + 1, batch): the same for each node with an energy, in the order of the declaration, then for
        each (node, slot), if ``trace="nodes"`` asked for it. It has those of all nodes, on a network that is cut over
        ranks on each rank.
    state_trace, error_trace : dict or None
        Node -> (kept, batch, *shape): states, and errors ``h - mu``, after ``trace_steps`` steps, of the nodes that
        ``trace="states"`` or :class:`pcgraph.Trace` asked for, as far as this rank has them.
    trace_steps : tuple of int
        After how many steps each of them was kept; the last is the end.
    duals : mapping
        Node -> (batch, *shape): the dual of each node that a residual has reached, where ``duals=`` was given; the
        others are zero still, as all are after no step.
    steps, converged : Tensor or None, shape (batch,)
        After how many steps each sample moved no more, and which have reached ``tolerance=``; None without one.
    failed : Tensor or None, shape (batch,)
        For which samples a solver found no way on; None where it cannot tell.
    plan : Plan
    learned : bool
        Whether the network has learned from this result.
    part : Part or None
        Which rows of a batch these samples are, where several processes share it.
    """

    learned = False

    def __init__(
        self, program: Program, clamps: Clamps, init: Initializer, labels: Tensor | None, seen: Descent,
        part: Part | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.part = program.plan, part
        self.init, self.labels = init, None if labels is None else labels.clone()
        #: By node, from the moment on in which the energies' own parameters may learn.
        self._energies: Tensor | None = None
        self._energy: Tensor | None = None
        self.trace = trace = seen.trace
        self.state_trace, self.error_trace, self.trace_steps = seen.kept
        self.steps, self.converged, self.failed = seen.steps, seen.converged, seen.failed
        self.node_trace: dict[Node, Tensor] | None = None
        if trace is not None and trace.dim() == 3:
            s = self.plan.structure
            numbered = (*((v, s.number[v]) for v in program.network.graph), *s.slots.items())
            self.trace, self.node_trace = trace.sum(1), {v: trace[:, i] for v, i in numbered if s.has_energy[i]}
        self._program, self._reader = program, Reader(program)
        self._place = program.network.dtype, program.network.device
        self._clamped, self._masked = tuple(clamps.values), frozenset(clamps.masked)
        self.states = NodeTensors(self._reader, "state")
        self.predictions = NodeTensors(self._reader, "prediction")
        self.errors = NodeTensors(self._reader, "error")
        self.duals = NodeTensors(self._reader, "dual")
        self._moved = seen.moved

    def peek(self, node: Node) -> Tensor:
        """Return the state of a node as a view that is valid until the network runs again; initializers use it."""
        return self._program.read(self.plan.structure.require_node(node), "state")

    def gathered(self, nodes: Iterable[Node]) -> dict[Node, Tensor]:
        """Return the states of some nodes, (batch, *shape), wherever they are computed.

        Where ranks share the network, all of them ask, for the same nodes.
        """
        s, own = self.plan.structure, {}
        shapes = {v: (self.batch, *s.shape(v)) for v in nodes}
        for v in shapes:
            if self._program.holds(s.number[v]):
                own[v] = self.peek(v)
        return self.gather(own, shapes)

    def gather(self, values: Mapping[Node, Tensor], shapes: Mapping[Node, tuple[int, ...]]) -> dict[Node, Tensor]:
        """Return the values of all nodes of `shapes`, given those of the nodes that are computed here."""
        return self._program.network.gather(values, shapes)

    def learn_from(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of a loss that all ranks have computed to those of parameters that all of them have."""
        learning = [p for p in parameters if p.requires_grad]
        grads = torch.autograd.grad(loss, learning, allow_unused=True) if learning else ()
        for parameter, found in zip(learning, grads):
            if found is not None:
                grad = self._program.network.alike(found)
                parameter.grad = grad.clone() if parameter.grad is None else parameter.grad.add_(grad)

    @property
    def batch(self) -> int:
        """Return the number of samples."""
        return self._program.batch

    @property
    def moves(self) -> int:
        """Count the states that were moved, all steps together.

        That is what the plan has, or fewer where nodes have stopped in every sample (``duals=Duals(..., stop=...)``).
        """
        if self._moved is not None:
            return self._moved
        distinct = range(min(self.plan.steps, len(self.plan.stages)))
        return sum(len(self.plan.stage(t).move.nodes) * self.plan.repeats(t) for t in distinct)

    @property
    def clamped_values(self) -> dict[Node, Tensor]:
        """Map each fully clamped node to the value that it was clamped to, (batch, *shape)."""
        return {self.plan.structure.nodes[i]: self._program.read(i, "state") for i in self._clamped}

    @property
    def free_nodes(self) -> frozenset[Node]:
        """Return the nodes that were free, partly clamped ones included."""
        return frozenset(self.plan.structure.nodes[i] for i in np.flatnonzero(self.plan.free))

    def group_states(self, *, free_only: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield (name of a group, its states (nodes, batch, size)), for all groups or those with a free node.

        The states are to be read only, and before the network runs again.
        """
        for group in self.plan.structure.groups:
            members = slice(group.start, group.start + group.count)
            if group.slots:
                continue
            if not free_only or self.plan.free[members].any():
                yield group.name, self._program.read(members, "state").flatten(2)

    def class_means(self, onehot: Tensor, means: Mapping[str, Tensor]) -> bool:
        """Bring means of states by class up to date in place, where the backend has a call for it.

        Parameters
        ----------
        onehot : Tensor, shape (batch, classes)
        means : mapping
            Name of a group -> means of its nodes, (nodes, classes, size); those of a class without a sample stay.

        Returns
        -------
        bool
            Whether it was done.
        """
        numbers = {group.name: g for g, group in enumerate(self.plan.structure.groups)}
        return all(self._program.class_means(numbers[name], onehot, kept) for name, kept in means.items())

    @property
    @eagerly
    def energy(self) -> Tensor:
        """Compute F per sample, shape (batch,) (paper, Eq 1)."""
        return self._program.energy() if self._energy is None else self._energy.clone()

    @property
    @eagerly
    def node_energy(self) -> dict[Node, Tensor]:
        """Map each node to the energy of its main prediction, and (node, slot) to that of a slot, shape (batch,).

        All of them add up to :attr:`energy`. Nodes without an energy are left out, and those of another rank.
        """
        s = self.plan.structure
        energies = energy_by_node(self._program) if self._energies is None else self._energies
        return {s.nodes[i]: energies[i] for i in np.flatnonzero(s.has_energy) if self._program.holds(int(i))}

    def _repr_html_(self) -> str:
        """Show in a notebook the nodes with the largest energies, and the energy over the steps if it was traced."""
        s = self.plan.structure
        energies = energy_by_node(self._program).mean(1).cpu()
        here = np.array([self._program.holds(i) for i in range(len(s.nodes))])
        energies[torch.from_numpy(~s.has_energy)] = -1.0
        energies[torch.from_numpy(~here)] = -2.0
        rows = []
        for i in energies.sort(descending=True, stable=True).indices[: min(SHOWN, int(here.sum()))].tolist():
            v, energy, own = s.nodes[i], float(energies[i]), int(s.owner[i])
            partly = "partly clamped" if own in self._masked else "free"
            size = float(self._program.read(i, "state").square().mean().sqrt())
            shape = "×".join(map(str, s.groups[int(s.group_of[i])].shape))
            kind = partly if self.plan.free[own] else "clamped"
            rows.append((str(v), shape, kind, f"{energy:.4g}" if s.has_energy[i] else "none", f"{size:.4g}"))
        more = f"; the {SHOWN} nodes with the largest energies" if len(s.nodes) > SHOWN else ""
        title = f"{self!r}{more}"
        columns = ("node", "shape", "", "mean energy", "root mean square of the state")
        return notebook.table(title, columns, rows) + notebook.picture(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch={self.batch}, steps={self.plan.steps}, energy={self.energy.mean():.6g})"

    # -- learning -----------------------------------------------------------------------------------------------------

    def accumulate(self, factor: float = 1.0, ready: Callable[[nn.Parameter], None] | None = None) -> None:
        """Add `factor` times the local gradients to the ``.grad`` of the network's parameters, and nothing else.

        `ready`, if given, is told of each parameter as soon as its gradient is complete, as far as the backend says so.
        """
        factor = require_number(factor, "factor")
        if ready is not None and not callable(ready):
            raise ConfigError(f"ready must be a function of a parameter (found {shown(ready)})", key="ready")
        net = self._program.network
        net.check_parameters()
        if (net.dtype, net.device) != self._place:
            raise ConfigError(
                f"the network was converted or moved since this inference, from {self._place[0]} on {self._place[1]} "
                f"to {net.dtype} on {net.device}: run net.infer(...) again"
            )
        asked = self.plan.request
        if (asked.frozen_edges, asked.frozen_biases) != (net.frozen_edges, net.frozen_biases):
            raise ConfigError(
                "weights or biases were frozen, or unfrozen, since this inference was planned: run net.infer(...) again"
            )
        with torch.inference_mode(False), torch.no_grad():  # what is made lazily here serves ordinary runs later on
            if self._energies is None and next(every_parameter(net.own.energies), None) is not None:
                self._energies, self._energy = energy_by_node(self._program), self._program.energy()
            # Classes of others may raise halfway: then it is as if nothing had been added.
            careful = len(net.own.edge_modules) or len(net.own.energies)
            before = [(p, None if p.grad is None else p.grad.clone()) for p in net.parameters()] if careful else []
            try:
                for parameter in self._program.gradients_in_turn(factor / self.batch):
                    if ready is not None:
                        ready(parameter)
            except Exception as error:
                for parameter, gradient in before:
                    parameter.grad = gradient
                if "modified by an inplace operation" in str(error):
                    raise ConfigError(
                        "the weights have moved since this inference, and gradients of modules would be of both: call "
                        f"backward() before the optimizer's step, or run net.infer(...) again ({said_by(error)})"
                    ) from error
                raise
            for parameter in every_parameter(net):
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def backward(self, ready: Callable[[nn.Parameter], None] | None = None) -> None:
        """Add the local gradients to the ``.grad`` of the network's parameters, and let the initializer remember.

        The energy is averaged over the batch here, as losses are. Edges that no error has reached get exactly zero.

        Parameters
        ----------
        ready : callable, optional
            Told of each parameter as soon as its gradient is complete, as far as the backend says so.

        Raises
        ------
        ConfigError
            It was called before on this result.

        Warns
        -----
        PCGraphWarning
            No error can have arisen: every gradient is zero.
        """
        if self.learned:
            raise ConfigError("backward() was already called on this result; run net.infer(...) again")
        if not len(self.plan.final.compare.nodes) and self.plan.structure.buckets:
            warnings.warn(
                "there is nothing to learn from: nothing that is predicted is clamped, so that every error is zero "
                f"(clamped: {', '.join(map(repr, self.clamped_values))}); clamp the target as well",
                PCGraphWarning,
                stacklevel=2,
            )
        self.accumulate(ready=ready)
        self.learned = True
        self.remember()

    def remember(self) -> None:
        """Let the initializer observe this result, with autograd on: it may learn by a loss of its own."""
        with torch.inference_mode(False), torch.enable_grad():
            self.init.learn(self)
