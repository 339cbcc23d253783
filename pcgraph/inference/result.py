"""What an inference leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcgraph import notebook
from pcgraph.clamps import Clamps
from pcgraph.initializers import Initializer
from pcgraph.kernels import Workspace, take
from pcgraph.plan.operations import Rows, numbers

__all__ = ["Inference", "NodeTensors", "energy_by_node", "node_energies", "state_of", "total_energy"]

Node = Hashable

SHOWN = 20
"""So many nodes a notebook's table has."""


class Inference:
    """The outcome of an inference. Everything is computed when it is first asked for.

    Attributes
    ----------
    states, predictions, errors : mapping
        Node -> (batch, *shape): h, mu and e = h - mu at the final states. Nodes without an energy predict nothing:
        their error is zero and their prediction their state.
    trace : Tensor or None, shape (steps + 1, batch)
        The energy before each step and after the last, if it was asked for.
    node_trace : dict or None
        Node -> (steps + 1, batch): the same for each node with an energy, in the order of the declaration, if
        ``trace="nodes"`` asked for it.
    plan : Plan
    """

    def __init__(
        self, ws: Workspace, clamps: Clamps, init: Initializer, labels: Tensor | None, trace: Tensor | None,
        release: Callable[[Workspace], None],
    ) -> None:  # fmt: skip
        self.plan = ws.plan
        self.clamps, self.init, self.labels = clamps, init, labels
        self.trace = trace
        self.node_trace: dict[Node, Tensor] | None = None
        if trace is not None and trace.dim() == 3:
            self.trace, self.node_trace = trace.sum(1), self._by_name(ws, trace)
        self._lease, self._ws = Lease(ws, release), ws
        self.states = NodeTensors(self._lease, state_of)
        self.predictions = NodeTensors(self._lease, _prediction)
        self.errors = NodeTensors(self._lease, _error)

    @staticmethod
    def _by_name(ws: Workspace, trace: Tensor) -> dict[Node, Tensor]:
        s = ws.plan.structure
        numbered = ((v, s.number[v]) for v in ws.net.graph)
        return {v: trace[:, i] for v, i in numbered if s.has_energy[i]}

    def peek(self, node: Node) -> Tensor:
        """The state of a node as a view that is valid until the network runs again; for initializers."""
        return state_of(self._ws, self.plan.structure.number[node])

    @property
    def batch(self) -> int:
        """Samples."""
        return self.clamps.batch

    @property
    def clamped_values(self) -> dict[Node, Tensor]:
        """Fully clamped node -> its value, (batch, *shape)."""
        return {self.plan.structure.nodes[i]: value for i, value in self.clamps.values.items()}

    @property
    def free_nodes(self) -> frozenset[Node]:
        """The nodes that were free, partly clamped ones included."""
        return frozenset(self.plan.structure.nodes[i] for i in np.flatnonzero(self.plan.free))

    def group_states(self, *, free_only: bool = False) -> Iterator[tuple[str, Tensor]]:
        """(name of a group, its states (nodes, batch, size)), for all groups or those with a free node.

        The states are views that are valid until the network runs again.
        """
        for group, states in zip(self.plan.structure.groups, self._ws.h):
            if not free_only or self.plan.free[group.start : group.start + group.count].any():
                yield group.name, states

    def run_energies(self) -> Iterator[tuple[int, Rows, Tensor]]:
        """(run, rows, energies of shape (nodes, batch)) for the nodes whose error may differ from zero."""
        for op in self.plan.final.errors:
            yield op.run, op.rows, node_energies(self._ws, op.run, op.rows)

    @property
    def energy(self) -> Tensor:
        """F per sample, shape (batch,) (paper, Eq 1)."""
        return total_energy(self._ws)

    @property
    def node_energy(self) -> dict[Node, Tensor]:
        """Node -> its energy per sample, shape (batch,); nodes without an energy are left out."""
        s = self.plan.structure
        zero = torch.zeros(self.batch, dtype=self._ws.dtype, device=self._ws.device)
        result = {s.nodes[i]: zero for i in np.flatnonzero(s.has_energy)}
        for run, where, energies in self.run_energies():
            start = s.groups[s.runs[run].group].start
            for k, position in enumerate(numbers(where)):
                result[s.nodes[start + int(position)]] = energies[k]
        return result

    def _repr_html_(self) -> str:
        """For a notebook: the nodes with the largest energies, and the energy over the steps if it was traced."""
        s = self.plan.structure
        energies = energy_by_node(self._ws).mean(1).cpu()
        energies[torch.from_numpy(~s.has_energy)] = -1.0
        rows = []
        for i in energies.sort(descending=True, stable=True).indices[:SHOWN].tolist():
            v, energy = s.nodes[i], float(energies[i])
            partly = "partly clamped" if i in self.clamps.masked else "free"
            size = float(state_of(self._ws, i).square().mean().sqrt())
            shape = "×".join(map(str, s.shape(v)))
            kind = partly if self.plan.free[i] else "clamped"
            rows.append((str(v), shape, kind, f"{energy:.4g}" if s.has_energy[i] else "none", f"{size:.4g}"))
        more = f"; the {SHOWN} nodes with the largest energies" if len(s.nodes) > SHOWN else ""
        title = f"{self!r}{more}"
        columns = ("node", "shape", "", "mean energy", "root mean square of the state")
        return notebook.table(title, columns, rows) + notebook.picture(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch={self.batch}, steps={self.plan.steps}, energy={self.energy.mean():.6g})"


class Lease:
    """Holds a workspace for a result and all that reads from it; hands it back when the last of them is gone."""

    def __init__(self, ws: Workspace, release: Callable[[Workspace], None]) -> None:
        self.ws, self._release = ws, release

    def __del__(self) -> None:
        self._release(self.ws)


class NodeTensors(Mapping[Node, Tensor]):
    """Node -> tensor, over the buffers of a workspace, which is not used again once somebody has looked."""

    def __init__(self, lease: Lease, read: Callable[[Workspace, int], Tensor]) -> None:
        self._lease, self._ws, self._read = lease, lease.ws, read

    def __getitem__(self, node: Node) -> Tensor:
        number = self._ws.plan.structure.number
        if node not in number:
            raise KeyError(f"there is no node {node!r}; nodes: {', '.join(map(repr, list(number)[:12]))}")
        if self._ws.recording is not None:
            return self._read(self._ws, number[node]).clone()
        self._ws.escaped = True
        return self._read(self._ws, number[node])

    def __iter__(self) -> Iterator[Node]:
        return iter(self._ws.plan.structure.nodes)

    def __len__(self) -> int:
        return len(self._ws.plan.structure.nodes)


def _view(ws: Workspace, buffers: list[Tensor], i: int) -> Tensor:
    g, p = ws.plan.structure.place(i)
    return buffers[g][p].view(ws.batch, *ws.plan.structure.groups[g].shape)


def state_of(ws: Workspace, i: int) -> Tensor:
    """The state of the node with canonical number `i`, (batch, *shape), as a view of the buffer."""
    return _view(ws, ws.h, i)


def _prediction(ws: Workspace, i: int) -> Tensor:
    return _view(ws, ws.m if ws.plan.flow.error(ws.plan.steps)[i] else ws.h, i)


def _error(ws: Workspace, i: int) -> Tensor:
    state = state_of(ws, i)
    return state - _prediction(ws, i) if ws.plan.flow.error(ws.plan.steps)[i] else torch.zeros_like(state)


def node_energies(ws: Workspace, which: int, where: Rows) -> Tensor:
    run = ws.plan.structure.runs[which]
    index = ws.index(where)
    h, mu = take(ws.h[run.group], index), take(ws.m[run.group], index)
    if run.gaussian:
        energy = (h - mu).square_().sum(2).mul_(0.5)
        if run.precision is not None:
            energy *= torch.from_numpy(run.precision[numbers(where) - run.start]).to(energy).unsqueeze(1)
        return energy
    shape = ws.plan.structure.groups[run.group].shape
    with torch.no_grad():
        return ws.net.energy_of(which).per_sample(h.reshape(-1, *shape), mu.reshape(-1, *shape)).view(h.shape[:2])


def total_energy(ws: Workspace, errors: Any = None) -> Tensor:
    total = torch.zeros(ws.batch, dtype=ws.dtype, device=ws.device)
    for op in ws.plan.final.errors if errors is None else errors:
        total += node_energies(ws, op.run, op.rows).sum(0)
    return total


def energy_by_node(ws: Workspace, errors: Any = None) -> Tensor:
    """The energy of each node, (nodes, batch), by canonical number."""
    s = ws.plan.structure
    energies = torch.zeros(len(s.nodes), ws.batch, dtype=ws.dtype, device=ws.device)
    for op in ws.plan.final.errors if errors is None else errors:
        start = s.groups[s.runs[op.run].group].start
        where = torch.from_numpy(start + numbers(op.rows)).to(ws.device)
        energies.index_copy_(0, where, node_energies(ws, op.run, op.rows))
    return energies
