"""A rank lowers its own part of a plan by the backend of one process, and exchanges with the others what they share."""

from __future__ import annotations

from collections import OrderedDict

from pcgraph.arguments import shown
from pcgraph.backends.base import Backend
from pcgraph.backends.distributed.program import RankProgram
from pcgraph.backends.running import Program
from pcgraph.errors import ConfigError
from pcgraph.initializers import Given
from pcgraph.network import Network, Piece
from pcgraph.plan import Plan, local_plan
from pcgraph.processes import Group
from pcgraph.solvers import Solver

__all__ = ["DistributedBackend"]

#: Plans of this rank that are kept.
KEPT = 64


class DistributedBackend(Backend):
    """This backend computes one rank's part of a network, together with the other ranks of a group.

    Parameters
    ----------
    inner : Backend
        It computes the part.
    part : Piece
    network : Network
        The rank's own.
    group : Group or None
        None for a partition over one rank.
    """

    name = "distributed"

    def __init__(self, inner: Backend, part: Piece, network: Network, group: Group | None) -> None:
        if not inner.exchanges:
            raise ConfigError(
                f"the backend {inner.name!r} takes no part in exchanges between ranks: leave out partition=, or take "
                "backend='torch'",
                key="backend",
            )
        self.inner, self.part, self.network, self.group = inner, part, network, group
        self.moves_errors, self.moves_duals = inner.moves_errors, inner.moves_duals
        self.moves_precisions, self.combines = inner.moves_precisions, inner.combines
        self.pins_kernels = inner.pins_kernels
        self._plans: OrderedDict[Plan, Plan] = OrderedDict()

    def local(self, plan: Plan) -> Plan:
        """Return the plan of this rank."""
        if plan not in self._plans:
            self._plans[plan] = local_plan(plan, self.part)
            while len(self._plans) > KEPT:
                self._plans.popitem(last=False)
        return self._plans[plan]

    def check(self, plan: Plan, network: Network) -> None:
        super().check(plan, network)
        for action in plan.layout.actions:
            if not isinstance(action, Given):
                continue
            for relaxation in action.after:
                self.require_by_parts(relaxation.optimizer)
            if action.source.across is None:
                name = type(action.source).__name__
                raise ConfigError(
                    f"{name} does not start states on several ranks (found across = None): say in its class how "
                    'ranks let it write, as in across = "nodes" if it writes each node by itself, or use no partition',
                    key="init",
                )
        if plan.request.pins:  # by the names of the whole, which are right or wrong on all ranks
            self.inner.check(plan, network)
        self.inner.check(self.local(plan), self.network)

    @staticmethod
    def require_by_parts(optimizer: object) -> None:
        """Refuse what cannot move the variables of one rank alone, before anything runs.

        Raises
        ------
        ConfigError
        """
        if isinstance(optimizer, Solver) and not optimizer.sums:
            raise ConfigError(
                f"{shown(optimizer)} sees the variables of one rank alone: let it add up by memory['sum'] what it adds "
                "up over variables, and say sums = True in its class; or take no partition",
                key="optimizer",
            )

    def lower(self, plan: Plan, network: Network, batch: int) -> Program:
        inner = self.inner.lower(self.local(plan), self.network, batch)
        return RankProgram(plan, network, inner, self.part, self.group)

    def obstacle(self, plan: Plan, network: Network) -> str | None:
        return "ranks wait for each other in every step"

    def describe(self, plan: Plan, network: Network) -> tuple[str, ...]:
        rank, parts = self.part.rank, self.part.cut.parts
        return (f"rank {rank} of {parts}:", *self.inner.describe(self.local(plan), self.network))

    def memory(self, plan: Plan, network: Network, batch: int) -> int:
        """Estimate the bytes of this rank."""
        return self.inner.memory(self.local(plan), self.network, batch)
