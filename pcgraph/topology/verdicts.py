"""One verdict for each way to initialise: what the graph and the clamps must have for it, and what to do if not.

=========================  ==========================================================================================
Forward()                  Proposition 3.2 as printed: the graph is acyclic, and every root is clamped
Forward(roots=...)         Theorem 1, the unknown roots supplied: no cycle of free nodes
Forward(fallback=...)      nothing: the largest sweepable set is swept, the fallback initialises the rest
Average(by=...)            a clamped target: the means are of classes, and at test time there is no class
Memory(...)                a clamped node, to recall from
Zero, Normal, Null,        nothing
Equilibrium, PerNode
=========================  ==========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pcgraph.topology.witness import (
    Clamped,
    FreeCycle,
    GraphCycle,
    GraphOrder,
    Nothing,
    SweepOrder,
    UnclampedRoot,
    Verdict,
    listing,
    name,
)

if TYPE_CHECKING:
    from pcgraph.topology.report import Report

__all__ = ["all_verdicts"]


def all_verdicts(report: Report) -> dict[str, Verdict]:
    """A verdict for each initializer in its plainest form, by name."""
    return {
        "zero": _anything("Zero()", "holds on any graph"),
        "normal": _anything("Normal()", "holds on any graph"),
        "null": _anything(
            "Null()", "holds on any graph", "The first batch has no batch before it: Null(first=…) initialises that."
        ),
        "forward": forward(report),
        "forward(roots)": forward_roots(report),
        "forward(fallback)": forward_fallback(report),
        "average": average(report),
        "memory": memory(report),
        "equilibrium": equilibrium(report),
        "per-node": per_node(report),
    }


def _anything(initializer: str, reason: str, remedy: str = "") -> Verdict:
    return Verdict(True, reason, None, remedy, initializer)


def forward(report: Report) -> Verdict:
    """Proposition 3.2, the printed condition: it looks at the whole graph, so that it holds in every phase."""
    who = "Forward()"
    if report.proposition_3_2:
        return Verdict(True, "holds: acyclic, and every root is clamped", GraphOrder(report.graph_order), "", who)
    if report.graph_cycle is not None:
        cycle = GraphCycle(tuple(report.graph_cycle))
        reason = f"needs a directed acyclic graph (found the {cycle})"
        if report.cycle is not None:
            return Verdict(False, reason, cycle, _sweep_the_rest(report), who)
        return Verdict(False, reason, cycle, _cut(report), who)
    root = report.unclamped_roots[0]
    found = f"found {listing([*map(name, report.unclamped_roots)])}"
    reason = f"needs a clamp on every root ({found})"
    return Verdict(False, reason, UnclampedRoot(root), _root_remedy(report), who)


def _sweep_the_rest(report: Report) -> str:
    roots = " and every root has a value" if report.free_roots else ""
    return (
        "Use Forward(fallback=Zero()), which sweeps what can be swept: "
        f"here it sweeps {len(report.sweep().order)} of {len(report.free)} free nodes, "
        f"and all of them once every free cycle holds a clamp{roots}."
    )


def _break(cycle: FreeCycle) -> str:
    which = f"Clamp {name(cycle.nodes[0])}" if len(cycle.nodes) == 1 else "Clamp one of them"
    return f"{which} (report.repair names a smallest set for all cycles), or use Forward(fallback=Zero())."


def _cut(report: Report) -> str:
    if report.theorem_1:
        return (
            "These clamps cut every cycle, so a sweep exists all the same (Theorem 1): use Forward(fallback=Zero()), "
            "which then sweeps every free node and falls back on none."
        )
    return (
        "These clamps cut every cycle; what is missing is a value for "
        f"{listing(report.free_roots)}: use Forward(roots=Zero())."
    )


def _root_remedy(report: Report) -> str:
    if report.free_roots:
        return f"Clamp {listing(report.free_roots)}, or use Forward(roots=Zero())."
    if all(root in report.isolated for root in report.unclamped_roots):
        return "Nothing reads it: remove it from the graph, or use Forward(fallback=Zero())."
    return "Its prior is a known value, so a sweep exists (Theorem 1): use Forward(fallback=Zero())."


def forward_roots(report: Report) -> Verdict:
    """Theorem 1 where another initializer supplies the unknown roots."""
    who = "Forward(roots=…)"
    if report.cycle is not None:
        cycle = FreeCycle(tuple(report.cycle))
        return Verdict(False, f"needs every cycle cut by a clamp (found the {cycle})", cycle, _break(cycle), who)
    if report.order is not None:
        return Verdict(True, "holds: no free cycle, and no root lacks a value", SweepOrder(report.order), "", who)
    sweep = report.sweep(initialised=report.free_roots)
    return Verdict(True, f"holds: no free cycle; roots= initialises {listing(report.free_roots)}", sweep, "", who)


def forward_fallback(report: Report) -> Verdict:
    """Theorem 1 on the largest set that can be swept."""
    who = "Forward(fallback=…)"
    if report.order is not None:
        note = "a sweep exists (Theorem 1)" if report.order else "no node is free"
        return Verdict(True, f"holds: {note}, the fallback is not needed", SweepOrder(report.order), "", who)
    sweep = report.sweep()
    swept, free = len(sweep.order), len(report.free)
    return Verdict(
        True, f"holds: sweeps {swept} of {free} free nodes, the fallback initialises {free - swept}", sweep, "", who
    )


def average(report: Report) -> Verdict:
    """Class means (Eq 7, 10): any graph, but a class for every sample."""
    who = "Average(by=…)"
    target = report.a_target
    if target is None:
        return Verdict(
            False,
            "needs the class of every sample, known in training only (found no clamped target)",
            Nothing(target=True),
            "Clamp the target, or use Forward() or Zero() at test time.",
            who,
        )
    remedy = f"If {name(target)} is one-hot, as Average(by={target!r}); else with the classes given as labels=."
    return Verdict(True, "holds on any graph, in training", Clamped(target, target=True), remedy, who)


def memory(report: Report) -> Verdict:
    """An associative memory (Eq 8): it recalls what belongs to something observed."""
    who = "Memory(…)"
    if report.a_clamp is None:
        return Verdict(False, "needs a clamped node to recall from (found none)", Nothing(), "Clamp a node.", who)
    return Verdict(True, "holds on any graph with a clamped node", Clamped(report.a_clamp), "", who)


def equilibrium(report: Report) -> Verdict:
    """Two phases (Section 3.1), the first with the targets released."""
    who = "Equilibrium(…)"
    if report.a_target is None:
        note = "No target is clamped, so there is none to release: its first phase is ordinary inference."
        return Verdict(True, "holds on any graph", Nothing(target=True), note, who)
    target = Clamped(report.a_target, target=True)
    if len(report.clamped) > 1:
        return Verdict(True, "holds on any graph; targets are released first", target, "", who)
    note = f"The only clamp is {name(next(iter(report.clamped)))}: were it released, no data would be left."
    return Verdict(True, "holds on any graph, but needs a clamp that stays", target, note, who)


def per_node(report: Report) -> Verdict:
    """Judged by its parts; what can be said beforehand is how far a sweep can reach."""
    sweep = report.sweep()
    reach = f"Forward can be the part for at most {len(sweep.order)} of the {len(report.free)} free nodes."
    return Verdict(True, "holds on any graph if its parts do", sweep, reach, "PerNode({…})")
