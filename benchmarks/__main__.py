"""Measure the engine, as ratios in one run: ``make bench``, or ``python -m benchmarks --help``.

Peers are optional, each in a virtual environment of its own that is named on the command line. What is compared runs
in turn, each in its own process (:mod:`benchmarks.turns`); figures are medians. The result is JSON, and a Markdown
table made of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

import torch

import pcgraph
from benchmarks import groups
from benchmarks.turns import Contestant, here, in_turn, ratio

HERE = Path(__file__).parent
LIMITS = {
    "fabricpc": {2: 0.42, 3: 0.55, 5: 0.75, 20: 0.95},
    "deepity": {2: 0.35, 3: 0.40, 5: 0.55, 20: 0.80},
    "backprop": {2: 0.70, 3: 1.05, 5: 1.9},
    "limit": {5: 1.2},
}


def peers(args: argparse.Namespace, names: list[str], work: dict[str, Any]) -> dict[str, Contestant]:
    """The peers whose interpreters were named, each at this work."""
    known = {name: getattr(args, name) for name in names}
    return {n: Contestant(p, str(HERE / "peers" / f"{n}.py"), json.dumps(work)) for n, p in known.items() if p}


def row(
    work: str, against: str, ratio: float | None = None, at_most: float | None = None, ours: float | None = None,
    theirs: float | None = None,
) -> dict:  # fmt: skip
    """One line of the table; seconds are kept beside the ratio. Without them it was not measured."""
    return {"work": work, "against": against, "ratio": ratio, "at_most": at_most, "seconds": ours, "other": theirs}


def against(
    ours: list[float], others: dict[str, list[float]], work: str, limits: dict[str, float | None]
) -> list[dict]:
    """A row for each of the others."""
    mine = statistics.median(ours)
    return [row(work, o, ratio(ours, s), limits.get(o), mine, statistics.median(s)) for o, s in others.items()]


def chains(args: argparse.Namespace) -> list[dict]:
    """The paper's network against peers, backpropagation and the limit."""
    rows = []
    name = "-".join(map(str, args.sizes))
    for steps in args.steps:
        work = {"work": "mlp", "sizes": args.sizes, "batch": args.batch, "steps": steps, "rate": 0.1}
        shared = {"sizes": args.sizes, "batch": args.batch}
        entries = {
            "pcgraph": here("mlp.ours", steps=steps, **shared),
            **peers(args, ["fabricpc", "deepity"], work),
            "backprop": here("mlp.backprop", **shared),
            "limit": here("mlp.limit", steps=steps, **shared),
        }
        times = in_turn({name: (c, "step") for name, c in entries.items()}, args.rounds, args.each)
        for contestant in entries.values():
            contestant.close()
        limits = {other: LIMITS[other].get(steps) for other in LIMITS}
        rows += against(times.pop("pcgraph"), times, f"{name}, batch {args.batch}, T={steps}", limits)
        print(*rows[-len(times) :], sep="\n", flush=True)
    return rows


def inferences(args: argparse.Namespace) -> list[dict]:
    """Error coordinates against backpropagation, and duals against states alone, on the paper's network."""
    rows = []
    for steps in args.steps:
        shared = {"sizes": args.sizes, "batch": args.batch}
        entries = {
            kind: here("mlp.ours", steps=steps, inference=kind, **shared) for kind in ("states", "errors", "duals")
        }
        entries["backprop"] = here("mlp.backprop", **shared)
        times = in_turn({name: (c, "step") for name, c in entries.items()}, args.rounds, args.each)
        for contestant in entries.values():
            contestant.close()
        name = f"{'-'.join(map(str, args.sizes))}, batch {args.batch}, T={steps}"
        for kind, other, limit in (("errors", "backprop", steps + 1.2), ("duals", "states", 1.25)):
            rows += against(times[kind], {other: times[other]}, f"{name}, {kind}: a training step", {other: limit})
    print(*rows, sep="\n", flush=True)
    return rows


def random_groups(args: argparse.Namespace) -> list[dict]:
    """Random wiring with cycles."""
    graph = pcgraph.graphs.random_groups(128, 32, 4, seed=0)
    edges = [[-1 if u == "x" else u, 128 if v == "y" else v] for u, v in graph.edges]
    work = {"work": "groups", "count": 128, "size": 32, "edges": edges, "batch": 64, "steps": 20, "rate": 0.05}
    ours, others = here("groups.random_groups", count=128), peers(args, ["fabricpc"], work)
    entries = {name: (c, "step") for name, c in {"pcgraph": ours, **others}.items()}
    times = in_turn(entries, args.rounds, max(2, args.each // 2))
    rows = against(times.pop("pcgraph"), times, "128 groups of 32, T=20, batch 64: a step", {"fabricpc": 0.45})
    first = others["fabricpc"].ready["first"] if others else None
    rows.append(row("128 groups: graph to first step", "1 s", ours.ready["first"], 1.0, ours.ready["first"], first))
    for contestant in (ours, *others.values()):
        contestant.close()
    many = alone("groups.random_groups", count=1024)
    rows.append(row("1,024 groups: graph to first step", "4 s", many["first"] / 4, 1.0, many["first"], 4.0))
    gb = alone("groups.random_groups", count=10000, batch=16)["peak_gb"]
    rows.append(row("10,000 groups, batch 16: peak memory in GB", "6 GB", gb / 6, 1.0, gb, 6.0))
    print(*rows, sep="\n", flush=True)
    return rows


def alone(call: str, **keywords: Any) -> dict[str, float]:
    """What a contestant knows once it is ready: its peak memory is its own."""
    contestant = here(call, **keywords)
    contestant.close()
    return contestant.ready


def against_dense(args: argparse.Namespace) -> list[dict]:
    """Scattered neurons against a dense matrix with a mask."""
    both = here("groups.against_dense")
    times = in_turn({name: (both, name) for name in ("pcgraph", "dense")}, args.rounds, max(2, args.each // 2))
    both.close()
    name, other = "2,000 neurons, 1 % random edges, cyclic: a training step", "dense masked matrix"
    rows = against(times["pcgraph"], {other: times["dense"]}, name, {other: 0.05})
    print(*rows, sep="\n", flush=True)
    return rows


def neurons(args: argparse.Namespace) -> list[dict]:
    """Many scattered neurons against two products of their matrix."""
    work = here("groups.neurons")
    short, long = (f"T={t}" for t in groups.LENGTHS)
    times = in_turn({name: (work, name) for name in (short, long, "product")}, args.rounds, 2)
    work.close()
    between = groups.LENGTHS[1] - groups.LENGTHS[0]
    steps = [(b - a) / between for a, b in zip(times[short], times[long])]
    products = [2 * seconds for seconds in times["product"]]
    name, other = "100,000 neurons, 1,000,000 edges, batch 32: an inference step", "two CSR products"
    rows = against(steps, {other: products}, name, {other: 1.5})
    first, new, again = (work.ready[key] for key in ("first", "new", "again"))
    rows.append(row("100,000 neurons, 1,000,000 edges: graph to first run", "6 s", first / 6, 1.0, first, 6.0))
    rows.append(row("100,000 neurons: a run of another T", "a run", new / again, None, new, again))
    print(*rows, sep="\n", flush=True)
    return rows


def large(args: argparse.Namespace) -> list[dict]:
    """A million neurons in one group, ten million entries."""
    ready = alone("groups.large")
    gb, first, name = ready["peak_gb"], ready["first"], "1,000,000 neurons, 10,000,000 entries, batch 8"
    return [
        row(f"{name}: a training step, peak memory in GB", "20 GB", gb / 20, 1.0, gb, 20.0),
        row(f"{name}: graph to first step", "8 s", first / 8, 1.0, first, 8.0),
    ]


def cold(args: argparse.Namespace) -> list[dict]:
    """The plan of a network that has none."""
    seconds = groups.cold_plan(args.sizes)
    return [row("plan for the chain, cold", "20 ms", seconds / 0.02, 1.0, seconds, 0.02)]


PARTS = {
    "chains": chains, "inferences": inferences, "groups": random_groups, "dense": against_dense, "neurons": neurons,
    "large": large, "plan": cold,
}  # fmt: skip


def table(result: dict) -> str:
    """The rows as Markdown."""
    lines = [
        f"{result['machine']}; Python {result['python']}, torch {result['torch']}, {result['threads']} threads.",
        "",
        "| work | against | ratio | asked: at most |",
        "|---|---|---|---|",
    ]
    for r in result["rows"]:
        asked = "–" if r["at_most"] is None else f"{r['at_most']:g}"
        met = "" if None in (r["at_most"], r["ratio"]) or r["ratio"] <= r["at_most"] else " (not reached)"
        found = "not measured" if r["ratio"] is None else f"{r['ratio']:.2f}"
        lines.append(f"| {r['work']} | {r['against']} | {found} | {asked}{met} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[784, 512, 512, 512, 512, 10])
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 3, 5, 20])
    parser.add_argument("--rounds", type=int, default=8, help="blocks of steps of each contestant, in turn")
    parser.add_argument("--each", type=int, default=8, help="steps of a block")
    parser.add_argument("--fabricpc", help="the Python of an environment with fabricpc==0.6.0")
    parser.add_argument("--deepity", help="the Python of an environment with pydeepity==0.1.0a3")
    parser.add_argument("--only", choices=PARTS, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"))
    args = parser.parse_args()
    rows = [found for part in args.only or PARTS for found in PARTS[part](args)]
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
        "torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
