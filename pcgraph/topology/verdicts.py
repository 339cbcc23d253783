"""Judge each way to initialise: what the graph and the clamps must have for it, and what to do if not.

=========================  ==========================================================================================
Forward()                  Proposition 3.2: the graph of main predictions is acyclic, and every root is clamped
Forward(roots=...)         Theorem 1, the unknown roots supplied: no cycle of free nodes
Forward(fallback=...)      nothing: the largest sweepable set is swept, the fallback initialises the rest
Average(by=...)            a clamped target: the means are of classes, and at test time there is no class
Memory(...)                a clamped node, to recall from
Zero, Normal, Null,        nothing
Equilibrium, PerNode
=========================  ==========================================================================================

And one for error coordinates, in which inference moves the errors instead of the states: h_v = mu_v + error_v, one free
node after another. They exist exactly where Theorem 1 holds with every free root kept as a state; if further nodes
are kept, where those that are not have no cycle.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Literal

from pcgraph.arguments import read_names
from pcgraph.errors import ConfigError
from pcgraph.topology.facts import Facts
from pcgraph.topology.repair import Budget
from pcgraph.topology.witness import (
    Clamped,
    ErrorCoordinates,
    FreeCycle,
    GraphCycle,
    GraphOrder,
    Nothing,
    SweepOrder,
    Verdict,
    name,
    told,
)

__all__ = ["all_verdicts", "error_coordinates"]

Node = Hashable

KEPT_WORK = 200_000_000
"""Where the report has no budget, a search for nodes to keep ends at this divided by edges²: in about a second (what a
branch costs grows nearly so), and at the same place on every machine."""


def all_verdicts(facts: Facts) -> dict[str, Verdict]:
    """Return a verdict for each initializer in its plainest form, and for error coordinates, by name."""
    return {
        "zero": _anything("Zero()", "holds on any graph"),
        "normal": _anything("Normal()", "holds on any graph"),
        "null": _anything(
            "Null()", "holds on any graph", "It needs a batch before: Null(first=…) initialises the first one."
        ),
        "forward": forward(facts),
        "forward(roots)": forward_roots(facts),
        "forward(fallback)": forward_fallback(facts),
        "average": average(facts),
        "memory": memory(facts),
        "equilibrium": equilibrium(facts),
        "per-node": per_node(facts),
        "errors": error_coordinates(facts),
    }


def _anything(initializer: str, reason: str, remedy: str = "") -> Verdict:
    return Verdict(True, reason, None, remedy, initializer)


def forward(facts: Facts) -> Verdict:
    """Judge by Proposition 3.2, on main predictions: it looks at the whole graph, so that it holds in every phase."""
    who, claim = "Forward()", facts.claim(slots=False)
    if isinstance(claim, GraphOrder):
        apart = " (main predictions; slots are no part of a sweep)" if facts.has_slots else ""
        return Verdict(True, f"holds: acyclic, and every root is clamped{apart}", claim, "", who)
    if isinstance(claim, GraphCycle):
        reason = f"needs a directed acyclic graph (found the {claim})"
        if facts.cycle is not None:
            return Verdict(False, reason, claim, _sweep_the_rest(facts), who)
        return Verdict(False, reason, claim, _cut(facts), who)
    found = f"found {told(*facts.unclamped_roots)}"
    reason = f"needs a clamp on every root ({found})"
    return Verdict(False, reason, claim, _root_remedy(facts), who)


def _sweep_the_rest(facts: Facts) -> str:
    roots = " and every root has a value" if facts.free_roots else ""
    return (
        "Use Forward(fallback=Zero()), which sweeps what can be swept: "
        f"here it sweeps {len(facts.sweep().order)} of {len(facts.free)} free nodes, "
        f"and all of them once every free cycle holds a clamp{roots}."
    )


def _break(cycle: FreeCycle) -> str:
    which = f"Clamp {told(*cycle.nodes)}" if len(cycle.nodes) == 1 else "Clamp one of them"
    return f"{which} (report.repair names a smallest set for all cycles), or use Forward(fallback=Zero())."


def _cut(facts: Facts) -> str:
    if facts.theorem_1:
        return (
            "These clamps cut every cycle, so a sweep exists all the same (Theorem 1): use Forward(fallback=Zero()), "
            "which then sweeps every free node and falls back on none."
        )
    return (
        "These clamps cut every cycle; what is missing is a value for "
        f"{told(*facts.free_roots)}: use Forward(roots=Zero())."
    )


def _root_remedy(facts: Facts) -> str:
    if facts.free_roots:
        return f"Clamp {told(*facts.free_roots)}, or use Forward(roots=Zero())."
    if all(root in facts.isolated for root in facts.unclamped_roots):
        return "Nothing reads it: remove it from the graph, or use Forward(fallback=Zero())."
    return "Its prior is a known value, so a sweep exists (Theorem 1): use Forward(fallback=Zero())."


def forward_roots(facts: Facts) -> Verdict:
    """Judge by Theorem 1 where another initializer supplies the unknown roots."""
    who = "Forward(roots=…)"
    if facts.cycle is not None:
        cycle = FreeCycle(tuple(facts.cycle))
        return Verdict(False, f"needs every cycle cut by a clamp (found the {cycle})", cycle, _break(cycle), who)
    if facts.order is not None:
        return Verdict(True, "holds: no free cycle, and no root lacks a value", SweepOrder(facts.order), "", who)
    sweep = facts.sweep(initialised=facts.free_roots)
    return Verdict(True, f"holds: no free cycle; roots= initialises {told(*facts.free_roots)}", sweep, "", who)


def forward_fallback(facts: Facts) -> Verdict:
    """Judge by Theorem 1 on the largest set that can be swept."""
    who = "Forward(fallback=…)"
    if facts.order is not None:
        note = "a sweep exists (Theorem 1)" if facts.order else "no node is free"
        return Verdict(True, f"holds: {note}, the fallback is not needed", SweepOrder(facts.order), "", who)
    sweep = facts.sweep()
    swept, free = len(sweep.order), len(facts.free)
    return Verdict(
        True, f"holds: sweeps {swept} of {free} free nodes, the fallback initialises the others", sweep, "", who
    )


def average(facts: Facts) -> Verdict:
    """Judge class means (Eq 7, 10): they take any graph, but need a class for every sample."""
    who = "Average(by=…)"
    target = facts.a_target
    if target is None:
        return Verdict(
            False,
            "needs the class of every sample, known in training only (found no clamped target)",
            Nothing(target=True),
            "Clamp the target, or use Forward() or Zero() at test time.",
            who,
        )
    remedy = f"If {told(target)} is one-hot, as Average(by={target!r}); else with the classes given as labels=."
    return Verdict(True, "holds on any graph, in training", Clamped(target, target=True), remedy, who)


def memory(facts: Facts) -> Verdict:
    """Judge an associative memory (Eq 8): it recalls what belongs to something observed."""
    who = "Memory(…)"
    if facts.a_clamp is None:
        return Verdict(False, "needs a clamped node to recall from (found none)", Nothing(), "Clamp a node.", who)
    return Verdict(True, "holds on any graph with a clamped node", Clamped(facts.a_clamp), "", who)


def equilibrium(facts: Facts) -> Verdict:
    """Judge the two phases of Section 3.1, in the first of which the targets are released."""
    who = "Equilibrium(…)"
    if facts.a_target is None:
        note = "No target is clamped, so there is none to release: its first phase is ordinary inference."
        return Verdict(True, "holds on any graph", Nothing(target=True), note, who)
    target = Clamped(facts.a_target, target=True)
    if len(facts.clamped) > 1:
        return Verdict(True, "holds on any graph; targets are released first", target, "", who)
    note = f"The only clamp is {told(*facts.clamped)}: were it released, no data would be left."
    return Verdict(True, "holds on any graph, but needs a clamp that stays", target, note, who)


def per_node(facts: Facts) -> Verdict:
    """Judge what is left to the parts; what can be said beforehand is how far a sweep can reach."""
    sweep = facts.sweep()
    reach = f"Forward can be the part for at most {len(sweep.order)} of the {len(facts.free)} free nodes."
    return Verdict(True, "holds on any graph if its parts do", sweep, reach, "PerNode({…})")


def error_coordinates(facts: Facts, keep: Iterable[Node] | Literal["repair"] = ()) -> Verdict:
    """Judge by Theorem 1 with all free roots, and what else is kept, given: the other free nodes have no cycle."""
    repair = isinstance(keep, str) and keep == "repair"
    kept = _repair(facts) if repair else _collection(keep)
    who = 'Errors(keep="repair")' if repair else "Errors(keep={…})" if kept else "Errors()"
    sweep = facts.sweep(initialised=(*kept, *facts.unclamped_roots))
    if isinstance(sweep.witness, FreeCycle):
        reason = "needs a kept node" if kept else "needs a clamp"
        return Verdict(
            False,
            f"{reason} on every cycle (found the {sweep.witness})",
            sweep.witness,
            'Use Errors(keep="repair"), which keeps a smallest set of nodes that meets every cycle as states.',
            who,
        )
    states = told(*sorted(sweep.initialised, key=name))
    held = f"; of {states} the state is kept" if states else ""
    return Verdict(
        True,
        f"holds: no cycle of {'the other free nodes' if kept else 'free nodes'}{held}",
        ErrorCoordinates(sweep.order, sweep.initialised),
        "",
        who,
    )


def _repair(facts: Facts) -> frozenset[Node]:
    if facts.repair is not None:
        return facts.repair
    return facts.repaired(Budget(seconds=None, nodes=KEPT_WORK // (1 + facts.edge_count) ** 2)).nodes


def _collection(keep: object) -> frozenset[Node]:
    if isinstance(keep, str):
        raise ConfigError(
            f'keep must be a collection of nodes, such as {{{keep!r}}}, or "repair" (got {keep!r})', key="keep"
        )
    return frozenset(read_names(keep, "keep"))
