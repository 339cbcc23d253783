"""PerNode gives each node an initializer of its own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from torch import nn

from pcgraph.arguments import require_instance, shown
from pcgraph.errors import ConfigError, GraphError
from pcgraph.initializers.base import Context, Given, Initializer, Layout, Swept, only
from pcgraph.initializers.basic import Normal
from pcgraph.initializers.equilibrium import Equilibrium
from pcgraph.initializers.forward import Forward
from pcgraph.topology import Report, Verdict

__all__ = ["PerNode"]

Node = Hashable


class PerNode(Initializer):
    """Starts named nodes by initializers of their own, and the others by `default`.

    Nodes of ``Forward()``, and those that an ``Average`` sweeps, are swept last and together, from what the others
    have given.

    Parameters
    ----------
    nodes : mapping
        Node -> Initializer.
    default : Initializer
        For the free nodes that `nodes` does not name.

    Notes
    -----
    Refused, with the witness, where a swept node depends on one that has no value before it.
    """

    def __init__(self, nodes: Mapping[Node, Initializer], default: Initializer) -> None:
        super().__init__()
        if not isinstance(nodes, Mapping):
            raise ConfigError(
                f"PerNode takes a mapping node -> initializer, as in {{'h1': pcgraph.Zero()}} (found {shown(nodes)})",
                key="nodes",
            )
        for node, part in nodes.items():
            require_instance(part, f"the initializer of {node!r}", Initializer, "pcgraph.Zero()")
        self.default = require_instance(default, "default", Initializer, "pcgraph.Forward()")
        self.members = nn.ModuleList()
        self.of: dict[Node, Initializer] = dict(nodes)
        for part in self.of.values():
            if part is not default and not any(part is m for m in self.members):
                self.members.append(part)
        #: In a list, since a module assigned to a module becomes a part of it.
        self._noise = [Normal()]

    def _shares(self, report: Report) -> list[tuple[Initializer, tuple[Node, ...]]]:
        known = set(report.nodes)
        for node in self.of:
            if node not in known:
                raise GraphError(f"PerNode names the node {node!r}, which the graph does not have", where=node)
        return [(part, tuple(v for v in report.free if self.of.get(v, self.default) is part)) for part in self.parts()]

    def requirement(self, report: Report) -> Verdict:
        for part, nodes in self._shares(report):
            if nodes and not _plain_forward(part):
                verdict = report.verdict(part)
                if not verdict.valid:
                    return verdict
        if not self.of:
            return report.verdict(self.default)
        given, asked = self._split(self._actions(report, None))
        sweep = report.sweep(initialised=given, among=asked)
        if sweep.complete:
            return Verdict(True, "holds: every swept node has all it reads", sweep, "", "PerNode({…})")
        return Verdict(
            False,
            f"needs a value for all that its swept nodes read (found the {sweep.witness})",
            sweep.witness,
            "Give one of these nodes another initializer, or clamp it.",
            "PerNode({…})",
        )

    def layout(self, report: Report, context: Context | None = None) -> Layout:
        if not self.of:
            return self.default.layout(report, context)
        actions = self._actions(report, context)
        given, asked = self._split(actions)
        order = report.sweep(initialised=given, among=asked).order
        return Layout((*(a for a in actions if isinstance(a, Given)), Swept(order)))

    def _actions(self, report: Report, context: Context | None) -> list[Given | Swept]:
        """List what each part does to its own nodes; a sweep that its part overwrites later is a draw here."""
        result: list[Given | Swept] = []
        for part, nodes in self._shares(report):
            if _plain_forward(part):
                result.append(Swept(nodes))
                continue
            # Where a part could sweep or settle alone, it settles here: its sweep may need nodes of others.
            whole = part.settled if isinstance(part, Equilibrium) else part.layout
            own = only(whole(report, context), nodes)
            for i, action in enumerate(own):
                later = {v for after in own[i + 1 :] for v in after.nodes}
                again = tuple(v for v in action.nodes if v in later)
                if isinstance(action, Given):
                    result.append(action)
                    continue
                result.append(Given(self._noise[0], again))
                result.append(Swept(tuple(v for v in action.nodes if v not in later)))
        return [a for a in result if a.nodes]

    def _split(self, actions: list[Given | Swept]) -> tuple[frozenset[Node], frozenset[Node]]:
        given = frozenset(v for a in actions if isinstance(a, Given) for v in a.nodes)
        swept = frozenset(v for a in actions if isinstance(a, Swept) for v in a.nodes)
        return given - swept, swept

    def ready(self, context: Context | None) -> object:
        return tuple(part.ready(context) for part in self.parts())

    def keeps(self) -> tuple[Hashable, ...]:
        """Name the nodes of each member, in the order of the members."""
        return tuple(tuple(v for v, part in self.of.items() if part is member) for member in self.members)

    def extra_repr(self) -> str:
        return ", ".join(f"{v!r}: {type(part).__name__}" for v, part in self.of.items())

    def parts(self) -> tuple[Initializer, ...]:
        return (*(m for m in self.members if isinstance(m, Initializer)), self.default)


def _plain_forward(part: Initializer) -> bool:
    return isinstance(part, Forward) and not part.parts()
