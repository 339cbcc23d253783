"""Say in words what the facts and the verdicts are: as the rows of a table, in one line, and as plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from pcgraph.topology.cautions import cautions
from pcgraph.topology.facts import Facts
from pcgraph.topology.render import Sheet
from pcgraph.topology.witness import Verdict, listing, name, told

__all__ = ["as_dict", "headline", "in_brief", "phase_sheet", "sheet"]

Verdicts = Mapping[str, Verdict]

COLUMNS = ("initializer", "valid", "why", "witness", "remedy")
WIDTHS = (0, 0, 5, 4, 5)
REPAIR_EDGES = 5_000
"""Up to so many edges a printed report searches for a repair of its own accord."""


def headline(facts: Facts) -> str:
    """Say in a line what was checked."""
    return f"{_size(facts)}; clamped: {_clamps(facts)}; {len(facts.free)} free"


def _clamps(facts: Facts) -> str:
    return told(*sorted(facts.clamped, key=name)) or "nothing"


def _size(facts: Facts) -> str:
    what = "neurons" if facts.level == "neurons" else "nodes"
    return f"{len(facts.nodes)} {what}, {facts.edge_count} edges"


def _initializers(verdicts: Verdicts) -> dict[str, Verdict]:
    """Leave out the verdict on coordinates, which is about what moves and not about where it starts."""
    return {key: verdict for key, verdict in verdicts.items() if key != "errors"}


def in_brief(verdicts: Verdicts) -> str:
    """Say in a line which initializers do not hold."""
    refused = [verdict.initializer for verdict in _initializers(verdicts).values() if not verdict.valid]
    return f"all hold but {', '.join(refused)}" if refused else "every initializer holds"


def sheet(facts: Facts, verdicts: Verdicts) -> Sheet:
    """Compose the table of one report: a row for each initializer, and the facts of the graph below it."""
    notes = [("Proposition 3.2", _proposition(verdicts)), ("Theorem 1", _theorem(facts))]
    notes.append(("error coordinates", verdicts["errors"].message))
    if not facts.theorem_1 and _repair_shown(facts):
        repair = facts.repair or frozenset()
        how = "smallest" if facts.repair_is_minimal else "greedy, perhaps not smallest"
        notes.append(("repair", f"give a value to {told(*sorted(repair, key=name))} ({how})"))
    notes += [("warning", text) for text in cautions(facts)]
    return Sheet(headline(facts), COLUMNS, WIDTHS, tuple(map(_row, _initializers(verdicts).values())), tuple(notes))


def _row(verdict: Verdict) -> tuple[str, ...]:
    witness = "" if verdict.witness is None else str(verdict.witness)
    return verdict.initializer, "yes" if verdict.valid else "no", verdict.reason, witness, verdict.remedy


def _proposition(verdicts: Verdicts) -> str:
    verdict = verdicts["forward"]
    return "holds: acyclic, every root clamped" if verdict.valid else f"does not hold: {verdict.witness}"


def _theorem(facts: Facts) -> str:
    sweep = facts.sweep()
    if sweep.complete:
        order = f"in the order {listing(sweep.order)}" if len(sweep.order) > 1 else told(*sweep.order)
        return f"a sweep exists: {order or 'no node is free'}"
    roots = f"; no value for {told(*facts.free_roots)}" if facts.free_roots and facts.cycle else ""
    swept = f"; {len(sweep.order)} of {len(facts.free)} free nodes can be swept"
    return f"no sweep exists: {sweep.witness}{roots}{swept}"


def _repair_shown(facts: Facts) -> bool:
    if facts.budget is None:
        return False
    return "repair_witness" in vars(facts) or facts.edge_count <= REPAIR_EDGES


def phase_sheet(phases: Mapping[Hashable, tuple[Facts, Verdicts]]) -> Sheet:
    """Compose the table of several phases: a row for each fact and initializer, a column for each phase."""
    each = list(phases.values())
    rows = [
        ["clamped", *(_clamps(facts) for facts, _ in each)],
        ["Proposition 3.2", *(_proposition(verdicts) for _, verdicts in each)],
        ["Theorem 1", *(_theorem(facts) for facts, _ in each)],
        ["error coordinates", *(verdicts["errors"].message for _, verdicts in each)],
    ]
    for key, verdict in _initializers(each[0][1]).items():
        rows.append([verdict.initializer, *(_in_short(verdicts[key]) for _, verdicts in each)])
    always = frozenset.intersection(*(facts.clamped - facts.partial for facts, _ in each))
    warnings = ["; ".join(cautions(facts, always)) for facts, _ in each]
    if any(warnings):
        rows.append(["warnings", *warnings])
    columns = ("", *map(name, phases))
    return Sheet(_size(each[0][0]), columns, (0, *[1] * len(phases)), tuple(map(tuple, rows)))


def _in_short(verdict: Verdict) -> str:
    """Say whether an initializer holds, on what condition, and what to do where it does not."""
    return f"yes. {verdict.remedy}".removesuffix(". ") if verdict.valid else f"no: {verdict.reason}. {verdict.remedy}"


def as_dict(facts: Facts, verdicts: Verdicts) -> dict[str, Any]:
    """Return a report as values that ``json.dumps`` takes."""
    return {
        "level": facts.level,
        "nodes": len(facts.nodes),
        "edges": facts.edge_count,
        "clamped": _names(sorted(facts.clamped, key=name)),
        "partly_clamped": _names(sorted(facts.partial, key=name)),
        "proposition_3_2": facts.proposition_3_2,
        "theorem_1": facts.theorem_1,
        "order": _names(facts.order),
        "cycle": _names(facts.cycle),
        "cycle_is_shortest": facts.cycle_is_shortest,
        "graph_cycle": _names(facts.graph_cycle),
        "free_roots": _names(facts.free_roots),
        "isolated": _names(facts.isolated),
        "forward_reachable": _names(sorted(facts.forward_reachable, key=name)),
        "components": [_names(sorted(part, key=name)) for part in facts.components],
        "depth": {name(v): None if math.isinf(d) else d for v, d in facts.depth.items()},
        "repair": None if facts.repair is None else _names(sorted(facts.repair, key=name)),
        "repair_is_minimal": facts.repair_is_minimal,
        "leaks": [_names(leak.nodes) for leak in facts.leaks] if facts.leaks_sought else None,
        "warnings": list(cautions(facts)),
        "verdicts": {key: _verdict(verdict) for key, verdict in verdicts.items()},
    }


def _names(nodes: Sequence[Hashable] | None) -> list[Any] | None:
    """Write nodes as JSON: a tuple is one name, not a list of names."""
    return None if nodes is None else [v if isinstance(v, int | str) else name(v) for v in nodes]


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "initializer": verdict.initializer,
        "valid": verdict.valid,
        "reason": verdict.reason,
        "witness": None if verdict.witness is None else _claim(verdict.witness),
        "remedy": verdict.remedy,
    }


def _claim(claim: Any) -> dict[str, Any]:
    """Write a witness as its class and its fields; the nodes in them by name."""
    found: dict[str, Any] = {"kind": type(claim).__name__, "text": str(claim)}
    for item in dataclasses.fields(claim):
        value = getattr(claim, item.name)
        if isinstance(value, frozenset):
            value = sorted(value, key=name)
        if isinstance(value, list) or (isinstance(value, tuple) and item.name in ("nodes", "order")):
            found[item.name] = _names(value)
        elif dataclasses.is_dataclass(value) and item.name == "witness":
            found[item.name] = _claim(value)
        elif value is None or isinstance(value, bool | int | str):
            found[item.name] = value
        else:
            found[item.name] = name(value)
    return found
