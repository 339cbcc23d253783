"""The backend of fused kernels chooses here what it computes, and says what it leaves to torch."""

from __future__ import annotations

from dataclasses import replace

from pcgraph.backends.torch.backend import TorchBackend
from pcgraph.backends.torch.kernels import Kernel, chosen
from pcgraph.backends.torch.lowering import lower
from pcgraph.backends.torch.program import TorchProgram
from pcgraph.backends.torch.workspace import Workspace
from pcgraph.backends.traits import TRITON, traits_of
from pcgraph.backends.triton.availability import unusable
from pcgraph.backends.triton.choices import SCATTERED, aside, known, priced
from pcgraph.backends.triton.listing import tiles
from pcgraph.errors import ConfigError
from pcgraph.network import Network
from pcgraph.plan import Plan

__all__ = ["TritonBackend"]


class TritonBackend(TorchBackend):
    """This backend computes dense edges, activations, errors and moves in fused kernels, two launches a step.

    What the kernels do not know (modules, callables, energies of users' own, learned ones or such as sum over a large
    node, very large layers) runs beside them, as :class:`~pcgraph.backends.TorchBackend` runs it.

    Parameters
    ----------
    strict : bool
        Whether a network that cannot be computed so is refused; else all of it is left to torch.
    """

    name = "triton"

    def __init__(self, strict: bool = True) -> None:
        super().__init__()
        self.strict = strict

    def unfit(self, plan: Plan, network: Network) -> str | None:
        """Say why no fused kernel computes this plan; return None where they do."""
        reason = unusable(network.device, network.dtype, self.strict)
        if reason is None and plan.measure is not None:
            reason = "error coordinates move along waves, which are not fused"
        return reason

    def check(self, plan: Plan, network: Network) -> None:
        super().check(plan, network)
        reason = self.unfit(plan, network)
        if self.strict and reason is not None:
            raise ConfigError(f"backend='triton' cannot compute this: {reason}; backend='auto' can", key="backend")

    def kernels(self, plan: Plan, network: Network) -> tuple[Kernel, ...]:
        if self.unfit(plan, network) is not None:
            return super().kernels(plan, network)
        found = chosen(plan.structure, traits_of(network.device.type), dict(plan.request.pins))
        return tuple(replace(kernel, begins=False, writes=False, widens=False) for kernel in found)

    def bind(self, plan: Plan, ws: Workspace) -> TorchProgram:
        self.check(plan, ws.net)  # the network may have been moved since the plan was made
        if self.unfit(plan, ws.net) is not None:
            return super().bind(plan, ws)
        from pcgraph.backends.triton.program import TritonProgram

        kernels = self.kernels(plan, ws.net)
        return TritonProgram(plan, ws, lower(plan, kernels, TRITON), kernels, TRITON)

    def memory(self, plan: Plan, network: Network, batch: int) -> int:
        """Estimate what torch's programs take, and tables and copies of stored entries and their states."""
        found = super().memory(plan, network, batch)
        if self.unfit(plan, network) is not None:
            return found
        s, groups = plan.structure, set[int]()
        for bucket, kernel in zip(s.buckets, self.kernels(plan, network)):
            if kernel.name in SCATTERED and aside(bucket, kernel, s, TRITON) is None:
                # Weights and offsets of predictions and of moves, the order of one; both ends where they learn.
                found += bucket.count * bucket.entries(s.groups) * (2 * (4 + 4) + 4 + 2 * 4)
                groups |= {bucket.source_group, bucket.target_group}
        return found + sum(2 * 4 * batch * s.groups[g].size * s.groups[g].count for g in groups if s.groups[g].size > 1)

    def describe(self, plan: Plan, network: Network) -> tuple[str, ...]:
        reason = self.unfit(plan, network)
        if reason is not None:
            plain = network.device.type == "cpu"
            return (*(() if plain else (f"no fused kernels: {reason}",)), *super().describe(plan, network))
        lines, s = list(super().describe(plan, network)), plan.structure
        kernels = self.kernels(plan, network)
        at = 1
        for bucket, kernel in zip(s.buckets, kernels):
            if bucket.kind == "tie":
                continue
            beside = aside(bucket, kernel, s, TRITON)
            lines[at] += ", fused" if beside is None else f", beside the fused kernels: {beside}"
            at += 1
        odd = sorted({segment.activation.name for segment in s.segments if not segment.is_root and known(segment) < 0})
        own = sorted({type(x.energy).__name__ for x in s.segments if priced(x, s.groups[x.group].size) < 0})
        lines += [f"  activations that run beside them: {', '.join(odd)}"] if odd else []
        lines += [f"  energies that run beside them: {', '.join(own)}"] if own else []
        return ("backend: fused kernels, two launches a step", *lines, *tiles(plan, network, kernels, TRITON))
