"""Measure the engine, as ratios in one run: ``make bench``, or ``python -m benchmarks --help``.

Peers are optional, each in a virtual environment of its own that is named on the command line. What is compared runs
in turn, before and after each other; figures are medians. The result is JSON, and a Markdown table made of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import pcgraph
from benchmarks import groups, mlp

HERE = Path(__file__).parent
LIMITS = {
    "fabricpc": {2: 0.42, 3: 0.55, 5: 0.75, 20: 0.95},
    "deepity": {2: 0.35, 3: 0.40, 5: 0.55, 20: 0.80},
    "backprop": {2: 0.70, 3: 1.05, 5: 1.9},
    "limit": {5: 1.2},
}


def peer(name: str, python: str | None, work: dict[str, Any]) -> dict[str, float] | None:
    """Run a peer's script under its own interpreter; None where there is none."""
    if python is None:
        return None
    done = subprocess.run(
        [python, str(HERE / "peers" / f"{name}.py"), json.dumps(work)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def row(work: str, against: str, ratio: float | None, at_most: float | None, ours: float, theirs: float | None) -> dict:
    """One line of the table; seconds are kept beside the ratio."""
    return {"work": work, "against": against, "ratio": ratio, "at_most": at_most, "seconds": ours, "other": theirs}


def chains(args: argparse.Namespace) -> list[dict]:
    """The paper's network against peers, backpropagation and the limit."""
    rows = []
    name = "-".join(map(str, args.sizes))
    for steps in args.steps:
        work = {"work": "mlp", "sizes": args.sizes, "batch": args.batch, "steps": steps, "rate": 0.1,
                "rounds": args.rounds}  # fmt: skip
        here = f"{name}, batch {args.batch}, T={steps}"
        before = mlp.run(args.sizes, args.batch, steps, count=args.rounds)
        others = {p: peer(p, getattr(args, p), work) for p in ("fabricpc", "deepity")}
        after = mlp.run(args.sizes, args.batch, steps, count=args.rounds)
        ours = statistics.mean([before["pcgraph"], after["pcgraph"]])
        for p, seconds in others.items():
            if seconds is not None:
                rows.append(row(here, p, ours / seconds["step"], LIMITS[p].get(steps), ours, seconds["step"]))
        for other in ("backprop", "limit"):
            ratio = statistics.mean([r["pcgraph"] / r[other] for r in (before, after)])
            rows.append(row(here, other, ratio, LIMITS[other].get(steps), ours, after[other]))
        print(*rows[-4:], sep="\n", flush=True)
    return rows


def isolated(call: str) -> dict[str, float]:
    """One measurement of :mod:`benchmarks.groups` in a process of its own, so that its peak memory is its own."""
    code = f"import json; from benchmarks import groups; print(json.dumps(groups.{call}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=HERE.parent)
    if done.returncode:
        raise RuntimeError(f"{call} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def random_groups(args: argparse.Namespace) -> list[dict]:
    """Random wiring with cycles."""
    graph = pcgraph.graphs.random_groups(128, 32, 4, seed=0)
    edges = [[-1 if u == "x" else u, 128 if v == "y" else v] for u, v in graph.edges]
    work = {"work": "groups", "count": 128, "size": 32, "edges": edges, "batch": 64, "steps": 20, "rate": 0.05,
            "rounds": 15}  # fmt: skip
    ours = isolated("random_groups(128)")
    fabric = peer("fabricpc", args.fabricpc, work)
    rows = []
    if fabric is not None:
        rows.append(row("128 groups of 32, T=20, batch 64: a step", "fabricpc", ours["step"] / fabric["step"], 0.45,
                        ours["step"], fabric["step"]))  # fmt: skip
    rows.append(row("128 groups: graph to first step", "1 s", ours["first"], 1.0, ours["first"],
                    fabric["first"] if fabric else None))  # fmt: skip
    many = isolated("random_groups(1024)")
    rows.append(row("1,024 groups: graph to first step", "4 s", many["first"] / 4, 1.0, many["first"], 4.0))
    huge = isolated("random_groups(10000, batch=16)")
    gb = huge["peak_gb"]
    rows.append(row("10,000 groups, batch 16: peak memory in GB", "6 GB", gb / 6, 1.0, gb, 6.0))
    print(*rows, sep="\n", flush=True)
    return rows


def sparse() -> list[dict]:
    """Neurons and stored entries."""
    dense = isolated("against_dense()")
    rows = [row("2,000 neurons, 1 % random edges, cyclic: a training step", "dense masked matrix",
                dense["pcgraph"] / dense["dense"], 0.05, dense["pcgraph"], dense["dense"])]  # fmt: skip
    many = isolated("neurons()")
    rows.append(row("100,000 neurons, 1,000,000 edges, batch 32: an inference step", "two CSR products",
                    many["step"] / many["two_products"], 1.5, many["step"], many["two_products"]))  # fmt: skip
    large = isolated("large()")
    rows.append(row("1,000,000 neurons, 10,000,000 entries, batch 8: a training step, peak memory in GB", "20 GB",
                    large["peak_gb"] / 20, 1.0, large["peak_gb"], 20.0))  # fmt: skip
    print(*rows, sep="\n", flush=True)
    return rows


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
        met = "" if r["at_most"] is None or r["ratio"] <= r["at_most"] else " (not reached)"
        lines.append(f"| {r['work']} | {r['against']} | {r['ratio']:.2f} | {asked}{met} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[784, 512, 512, 512, 512, 10])
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 3, 5, 20])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--fabricpc", help="the Python of an environment with fabricpc==0.6.0")
    parser.add_argument("--deepity", help="the Python of an environment with pydeepity==0.1.0a3")
    parser.add_argument("--only", choices=["chains", "groups", "sparse", "plan"], nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"))
    args = parser.parse_args()
    parts = args.only or ["chains", "groups", "sparse", "plan"]
    rows: list[dict] = []
    if "chains" in parts:
        rows += chains(args)
    if "groups" in parts:
        rows += random_groups(args)
    if "sparse" in parts:
        rows += sparse()
    if "plan" in parts:
        cold = groups.cold_plan(args.sizes)["plan"]
        rows.append(row("plan for the chain, cold", "20 ms", cold / 0.02, 1.0, cold, 0.02))
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
        "torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
