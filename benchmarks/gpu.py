"""Measure whole training steps on one GPU: ``benchmarks/gpu.sh``, or ``python -m benchmarks.gpu --help``.

A training step is all of it: initialization, T inference steps, weight gradients, AdamW; pcgraph's is replayed as one
CUDA graph, and so is that of backpropagation in plain torch, eager and compiled, of which the better one counts. Both
copy a batch in before each step. What is compared runs in turn in one process, and a figure is the median of blocks.
pcgraph's optimizer is its FusedAdamW, backpropagation's torch's fused AdamW; a row tells what pcgraph takes with that.
A section that fails leaves its error, and the others go on. ``--dry`` runs all of it small, on the CPU as
well, where nothing is recorded: that shows that it works, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_work as work
from benchmarks.gpu_work import Size

Row = dict[str, Any]
Step = Callable[[], object]

#: About so many seconds one block of steps takes.
BLOCK = 0.02


class OutOfTime(Exception):
    """A section took longer than it may."""


def medians(z: Size, steps: dict[str, Step]) -> dict[str, float]:
    """Seconds of each step: blocks in turn, each with one wait for the device at its end."""
    counts = {name: max(1, min(50, round(BLOCK / _block(step, 1, z.device)))) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(z.blocks):
        for name, step in steps.items():
            times[name].append(_block(step, counts[name], z.device))
    return {name: statistics.median(found) for name, found in times.items()}


def _block(step: Step, count: int, device: str) -> float:
    _wait(device)
    begun = time.perf_counter()
    for _ in range(count):
        step()
    _wait(device)
    return (time.perf_counter() - begun) / count


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def row(
    name: str, seconds: float, against: str, other: float | None, at_most: float | None, **more: Any
) -> Row:  # fmt: skip
    """One line of the table: what took so long, and what it is held against."""
    ratio = None if other is None else seconds / other
    return {"work": name, "seconds": seconds, "against": against, "other": other, "ratio": ratio, "at_most": at_most,
            **more}  # fmt: skip


def limited(name: str, seconds: float, limit: float, **more: Any) -> Row:
    """A line held against a number of seconds."""
    shown = f"{limit * 1e3:g} ms" if limit < 1 else f"{limit:g} s"
    return row(name, seconds, shown, limit, 1.0, **more)


# -- sections ---------------------------------------------------------------------------------------------------------

ASKED_FORWARD = {2: 0.75, 3: 0.85, 5: 1.0, 7: 1.3}
ASKED_AVERAGE = {3: 0.9, 7: 1.35}
BACKPROP = "backpropagation"


def _against_backprop(
    z: Size, sizes: Sequence[int], batch: int, wanted: list[tuple[str, Any, int, float]], swapped: bool = False
) -> Iterator[Row]:
    """Rows of training steps on a chain: (name, initializer, T, what is asked for).

    `swapped` adds what pcgraph takes with the optimizer of the other.
    """
    steps: dict[str, Step] = dict(work.backprops(z, sizes, batch))
    rivals, models = list(steps), {}
    if swapped:
        first, init, t, _ = wanted[1]
        theirs = f"{first}, with torch's AdamW"
        steps[theirs] = work.chain(z, sizes, batch, init, t, own=False)[0]
    for name, init, t, _ in wanted:
        steps[name], models[name] = work.chain(z, sizes, batch, init, t)
    found = medians(z, steps)
    best = min(rivals, key=found.__getitem__)
    for name, _, _, at_most in wanted:
        yield row(name, found[name], f"{BACKPROP}, {best}", found[best], at_most, model=models[name])
    if swapped:
        yield row(theirs, found[theirs], f"{BACKPROP}, {best}", found[best], None)


def chains(z: Size) -> Iterator[Row]:
    """The paper's network, TF32."""
    torch.set_float32_matmul_precision("high")
    name = "-".join(map(str, z.chain))
    wanted = [(f"{name}, Forward, T={t}, TF32", work.forward, t, asked) for t, asked in ASKED_FORWARD.items()]
    wanted += [(f"{name}, Average m=3, T={t}, TF32", work.average_3, t, asked) for t, asked in ASKED_AVERAGE.items()]
    yield from _against_backprop(z, z.chain, z.batch, wanted, swapped=True)


def fp32(z: Size) -> Iterator[Row]:
    """The paper's network in full precision."""
    torch.set_float32_matmul_precision("highest")
    name = f"{'-'.join(map(str, z.chain))}, Forward, T=3, FP32"
    yield from _against_backprop(z, z.chain, z.batch, [(name, work.forward, 3, 1.3)])


def deep(z: Size) -> Iterator[Row]:
    """32 layers of 512."""
    torch.set_float32_matmul_precision("high")
    name = f"{z.layers} layers of {z.deep}, Average, T=5, TF32"
    yield from _against_backprop(z, [z.deep] * z.layers + [10], z.batch, [(name, work.average, 5, 0.6)])


def wide(z: Size) -> Iterator[Row]:
    """32 layers of 2048."""
    torch.set_float32_matmul_precision("high")
    name = f"{z.layers} layers of {z.wide}, Average, T=5, TF32"
    yield from _against_backprop(z, [z.wide] * z.layers + [10], z.wide_batch, [(name, work.average, 5, 2.0)])


def groups(z: Size) -> Iterator[Row]:
    """Random wiring with cycles, groups of 32."""
    torch.set_float32_matmul_precision("high")
    for count, limit in zip(z.groups, (0.20e-3, 0.80e-3, 6.0e-3)):
        step, model, first = work.groups(z, count)
        name = f"{count:,} groups of 32, T=20, batch 64, TF32"
        yield limited(name, medians(z, {"": step})[""], limit, model=model)
        yield row(f"{count:,} groups: graph to first step", first, "", None, None)
        work.forget(z)


def fit(z: Size) -> Iterator[Row]:
    """A whole training with evaluation, beside the time of as many recorded steps."""
    torch.set_float32_matmul_precision("high")
    training, testing, drawn = work.images(z)
    seconds, history = work.fitted(z, training, testing)
    accuracy = [round(float(value), 4) for value in history.values("accuracy")]
    name = f"{'drawn images of the size of Fashion-MNIST' if drawn else 'Fashion-MNIST'}, Average m=3, T=7, TF32, "
    name += f"{len(history)} epochs with evaluation"
    yield limited(name, seconds, 2.5, accuracy=None if drawn else accuracy)
    step = work.chain(z, z.chain, z.batch, work.average_3, 7, "leaky_relu")[0]
    recorded = medians(z, {"": step})[""] * history.epochs[-1].step
    yield row("the same", seconds, "its steps alone, recorded", recorded, 1.15)


def neurons(z: Size) -> Iterator[Row]:
    """Scattered neurons: an inference step against two products of their matrix."""
    torch.set_float32_matmul_precision("highest")
    short, long, between, products, first = work.neurons(z)
    found = medians(z, {"short": short, "long": long, "products": products})
    step, name = (found["long"] - found["short"]) / between, f"{z.neurons[0]:,} neurons, {z.neurons[1]:,} edges"
    yield row(f"{name}, batch 32: an inference step", step, "two CSR products", found["products"], 0.4)
    yield limited(f"{name}: graph to first step", first, 6.0)


def large(z: Size) -> Iterator[Row]:
    """One group of very many neurons with stored entries."""
    torch.set_float32_matmul_precision("highest")
    step, first = work.large(z)
    name = f"{z.large[0]:,} neurons in one group, {z.large[1]:,} entries"
    yield limited(f"{name}, batch 8, T=3", medians(z, {"": step})[""], 3e-3)
    yield limited(f"{name}: graph to first step", first, 8.0)


#: Section -> (what it measures, the seconds that it may take).
SECTIONS: dict[str, tuple[Callable[[Size], Iterator[Row]], float]] = {
    "chains": (chains, 45), "fp32": (fp32, 25), "deep": (deep, 45), "wide": (wide, 45), "groups": (groups, 45),
    "fit": (fit, 30), "neurons": (neurons, 45), "large": (large, 60),
}  # fmt: skip


# -- the run ----------------------------------------------------------------------------------------------------------


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, as soon as it comes back to Python."""

    def stop(*_: object) -> None:
        raise OutOfTime(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(section: str, size: Size, left: float, result: dict[str, Any]) -> bool:
    """Run one section into the result; tell whether the process can go on: a GPU that has failed fails at all."""
    function, seconds = SECTIONS[section]
    begun = time.perf_counter()
    try:
        if left < 1:
            raise OutOfTime("not run: the time for all sections is over")
        work.forget(size)  # what a section that failed has left, too
        with at_most(min(seconds, left)):
            for found in function(size):
                result["rows"].append({"section": section, **found})
                print(line(result["rows"][-1]), flush=True)
    except Exception as error:
        result["errors"][section] = "".join(traceback.format_exception(error)[-6:])[-3000:]
        print(f"FAILED {section}: {type(error).__name__}: {str(error)[:600]}", flush=True)
        return "CUDA error" not in str(error)
    finally:
        result["took"][section] = round(time.perf_counter() - begun, 2)
    return True


def line(found: Row) -> str:
    """One row for a terminal."""
    ratio = "" if found["ratio"] is None else f", {found['ratio']:.2f} of {found['against']}"
    asked = "" if found["at_most"] is None else f" (asked: at most {found['at_most']:g})"
    model = f", model {found['model'] * 1e6:.0f} us" if found.get("model") else ""
    return f"{found['section']}: {found['work']}: {found['seconds'] * 1e6:,.1f} us{ratio}{asked}{model}"


def header(device: str, dry: bool) -> dict[str, Any]:
    """What the figures were measured on."""
    try:
        import triton
    except ImportError:
        triton = None
    return {
        "card": platform.machine() if device == "cpu" else torch.cuda.get_device_name(), "dry": dry,
        "torch": torch.__version__, "triton": None if triton is None else triton.__version__,
        "python": platform.python_version(), "tier": "", "rows": [], "errors": {}, "took": {},
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure the sections, and write after each what there is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--dry", action="store_true", help="small, to show that it works")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs") / "gpu.json")
    parser.add_argument("--seconds", type=float, default=150.0, help="all sections together")
    parser.add_argument("--tier", type=Path, help="what the tests said: its last line goes into the result")
    parser.add_argument("--compile", action="store_true", help="only compile what is compiled, into the caches")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print a result as docs/performance.md has it")
    parser.add_argument("--go-on", action="store_true", help="add to the result that is there")
    args = parser.parse_args(arguments)
    unknown = set(args.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if args.table is not None:
        found: dict[str, Any] = json.loads(args.table.read_text(encoding="utf-8"))
        print(table(found))
        return found
    if args.device == "cpu" and not args.dry:
        parser.error("there is no GPU: --dry shows on a CPU that all of it works")
    size = Size.dry(args.device) if args.dry else Size(args.device)
    if args.compile:
        return work.compile_all(size)
    result = json.loads(args.out.read_text(encoding="utf-8")) if args.go_on else header(args.device, args.dry)
    if args.tier is not None and args.tier.exists():
        result["tier"] = (args.tier.read_text(encoding="utf-8").strip().splitlines() or [""])[-1].strip("= ")
    wanted, end = args.sections or list(SECTIONS), time.monotonic() + args.seconds
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for i, section in enumerate(wanted):
        fine = measure(section, size, end - time.monotonic(), result)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        rest = wanted[i + 1 :]
        if not fine and rest:  # in a process of its own, since this one's GPU fails at all that follows
            again = [*rest, "--go-on", "--device", args.device, "--out", str(args.out)]
            again += ["--seconds", str(end - time.monotonic()), *(["--dry"] if args.dry else [])]
            os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *again])
    print(f"{args.out}: {len(result['rows'])} rows, {len(result['errors'])} sections failed")
    return result


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown, each beside what a model of the time says; what has no row was not measured."""
    lines = [
        f"{result['card']}, torch {result['torch']}, triton {result['triton']}." if result else "No run yet.",
        "",
        "| work | takes | model | against | ratio | asked: at most |",
        "|---|---|---|---|---|---|",
    ]
    rows = result.get("rows", [])
    for found in rows:
        asked = "–" if found["at_most"] is None else f"{found['at_most']:g}"
        met = None in (found["at_most"], found["ratio"]) or found["ratio"] <= found["at_most"]
        ratio = "–" if found["ratio"] is None else f"{found['ratio']:.2f}"
        model = shown(found["model"]) if found.get("model") else "–"
        against = found["against"] or "–"
        asked += "" if met else " (not reached)"
        lines.append(f"| {found['work']} | {shown(found['seconds'])} | {model} | {against} | {ratio} | {asked} |")
    for section, (function, _) in SECTIONS.items():
        if not any(found["section"] == section for found in rows):
            lines.append(f"| {(function.__doc__ or section).rstrip('.')} | not measured | – | – | – | – |")
    return "\n".join(lines)


def shown(seconds: float) -> str:
    """Seconds as a table has them."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


if __name__ == "__main__":
    main()
