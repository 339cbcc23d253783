"""The backend on torch chooses here which buffers and which program a run gets."""

from __future__ import annotations

import math

from pcgraph import energies
from pcgraph.backends.base import Backend
from pcgraph.backends.running import Program
from pcgraph.backends.torch.kernels import Kernel, chosen
from pcgraph.backends.torch.lowering import kept, lower
from pcgraph.backends.torch.program import TorchProgram
from pcgraph.backends.torch.workspace import Workspace
from pcgraph.backends.traits import traits_of
from pcgraph.network import Network
from pcgraph.plan import Plan

__all__ = ["TorchBackend"]

#: Workspaces that wait for the next run; one that somebody reads from is his own.
IDLE = 2
#: Of those that somebody reads from, the latest, which wait again once nobody does: what is bound to them is not lost.
TAKEN = 4
#: Programs that stay bound to a workspace, at least; there are as many as there are nodes, for relaxations in parts.
PROGRAMS = 64


class TorchBackend(Backend):
    """This backend computes dense, batched and sparse products, and modules, on whatever device torch has.

    All plans of a network with one batch size share buffers and bound calls.
    """

    name = "torch"
    moves_errors = True
    combines = True
    moves_duals = True
    moves_precisions = True
    exchanges = True
    pins_kernels = True

    def __init__(self) -> None:
        self._spaces: list[tuple[Workspace, dict[Plan, TorchProgram]]] = []

    def kernels(self, plan: Plan, network: Network) -> tuple[Kernel, ...]:
        """Choose the kernel of each bucket, by the written rule and the plan's pins."""
        return chosen(plan.structure, traits_of(network.device.type), dict(plan.request.pins))

    def check(self, plan: Plan, network: Network) -> None:
        self.kernels(plan, network)

    def lower(self, plan: Plan, network: Network, batch: int) -> Program:
        """Return a program on a workspace that nobody reads from, if possible one on which the plan was bound before.

        A workspace whose network was moved, or whose torch switches were thrown, is replaced.
        """
        usable = [s for s in self._spaces if s[0].net is network and s[0].batch == batch and not s[0].taken]
        usable.sort(key=lambda space: plan not in space[1])  # one on which the plan was bound before, if there is one
        found = next((space for space in usable if not space[0].stale), None)
        if found is None:
            self._spaces = [space for space in self._spaces if not space[0].stale]
            found = Workspace(network, batch), {}
        others = [space for space in self._spaces if space is not found]
        idle = [space for space in others if not space[0].taken]
        taken = [space for space in others if space[0].taken]
        self._spaces = [found, *idle[: IDLE - 1], *taken[:TAKEN]]
        ws, programs = found
        if plan not in programs:
            programs[plan] = self.bind(plan, ws)
            while len(programs) > max(PROGRAMS, len(plan.structure.nodes)):
                del programs[next(iter(programs))]
        programs[plan] = programs.pop(plan)
        return programs[plan]

    def bind(self, plan: Plan, ws: Workspace) -> TorchProgram:
        """Make the program of a plan on a workspace."""
        kernels = self.kernels(plan, ws.net)
        return TorchProgram(plan, ws, lower(plan, kernels, ws.traits), kernels)

    def obstacle(self, plan: Plan, network: Network) -> str | None:
        if not all(kernel.capturable for kernel in self.kernels(plan, network)):
            return "a module on an edge may decide by what it computes"
        segments = plan.structure.segments
        own = {type(s.energy) for s in segments if s.energy is not None and not s.gaussian}
        foreign = [kind.__name__ for kind in own if not kind.__module__.startswith(energies.__name__)]
        if foreign:
            return f"{foreign[0]} may decide by what it computes"
        sigmas = [s.activation for s in segments] + [bucket.phi for bucket in plan.structure.buckets]
        own_sigma = next((sigma for sigma in sigmas if not sigma.named), None)
        if own_sigma is not None:
            return f"the activation {own_sigma.name!r} may decide by what it computes"
        return None

    def describe(self, plan: Plan, network: Network) -> tuple[str, ...]:
        lines = ["buckets:"]
        for bucket, kernel in zip(plan.structure.buckets, self.kernels(plan, network)):
            if bucket.kind == "tie":
                continue
            edges = f"{bucket.count} {'edge' if bucket.count == 1 else 'edges'}"
            scaled = "" if bucket.scale == 1.0 else f", times {bucket.scale:g}"
            lines.append(f"  {bucket.name}: {edges}, {kernel.name}{scaled}")
        return tuple(lines)

    def memory(self, plan: Plan, network: Network, batch: int) -> int:
        """Estimate the bytes of buffers, of what kernels keep and hold, and of gradients, from shapes, in float32.

        What a module on an edge keeps for autograd is counted by running it once on tensors without data.
        """
        s, kernels = plan.structure, self.kernels(plan, network)
        per_sample = sum(g.size * g.count * 5 for g in s.groups)
        per_sample += sum(2 * s.groups[int(g)].size for g in s.group_of[plan.duals])
        per_sample += kept(plan, kernels, traits_of(network.device.type))
        widest = parameters = 0
        for bucket, kernel in zip(s.buckets, kernels):
            lasting, passing = kernel.memory(s, bucket)
            per_sample, widest = per_sample + lasting, max(widest, passing)
            if bucket.kind == "module":
                parameters += sum(p.numel() for p in bucket.transform.parameters())
        rows = {bucket.name: bucket.rows for bucket in s.buckets}
        copied = ((b.scale != 1.0) * rows[b.packed or b.name] * b.entries(s.groups) for b in s.buckets)
        parameters += sum(copied) + sum(b.rows * b.entries(s.groups) for b in s.buckets)  # scaled, and gradients
        parameters += sum(len(nodes) * math.prod(s.bias_shape(int(nodes[0]))) for _, nodes in s.bias_packs())
        return 4 * (batch * (per_sample + widest) + parameters)
