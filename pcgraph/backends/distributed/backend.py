"""A rank lowers its own part of a plan by the backend of one process, and exchanges with the others what they share."""

from __future__ import annotations

from collections import OrderedDict

from pcgraph.backends.base import Backend, Program
from pcgraph.backends.distributed.program import RankProgram
from pcgraph.errors import ConfigError
from pcgraph.initializers import Average, Forward, Given, Initializer, Normal, Null, PerNode, States, Zero
from pcgraph.network import Network, Piece
from pcgraph.plan import Plan, local_plan
from pcgraph.processes import Group

__all__ = ["DistributedBackend"]

#: Initializers of which a rank can compute its own nodes, and nothing else than these.
BY_NODE = (Zero, Normal, Forward, States, Null, Average, PerNode)
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
        self.moves_precisions = inner.moves_precisions
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
            if isinstance(action, Given):
                self._require_by_node(action.source)
                if action.after:
                    raise self._refuse(f"{type(action.source).__name__}, which relaxes parts of the graph before,")
        self.inner.check(self.local(plan), self.network)

    def _require_by_node(self, initializer: Initializer) -> None:
        if type(initializer) not in BY_NODE:
            raise self._refuse(f"{type(initializer).__name__}")

    def _refuse(self, who: str) -> ConfigError:
        known = ", ".join(kind.__name__ for kind in BY_NODE)
        return ConfigError(
            f"{who} does not start states on several ranks yet: take one of {known}, or no partition", key="init"
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
