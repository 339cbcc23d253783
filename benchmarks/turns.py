"""Contestants that run in turn: each in a process of its own, with caches and threads of its own.

A process builds its work, prints one line of JSON (``{"first": seconds}`` or ``{}``), and then answers each line
``name count`` on its standard input with a list of seconds: the named step, run so often. Blocks of a few steps
alternate between the contestants, so that a machine that drifts touches all alike, and each runs as it does in a
training: its own weights and buffers in the cache, and nobody else's.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Contestant", "here", "in_turn", "ratio", "serve"]

ROOT = Path(__file__).parent.parent
#: Steps at the start of a block that are not counted: the caches hold what the last contestant left.
WARM = 2


class Contestant:
    """A process that serves named steps."""

    def __init__(self, *command: str) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it lives as long as the process)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=ROOT
        )
        self.ready: dict[str, Any] = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"{self.process.args} ended:\n{self.errors.read()[-2000:]}")
        return json.loads(line)

    def run(self, name: str, count: int) -> list[float]:
        """Seconds of `count` steps after a few that are not counted."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {count + WARM}\n")
        self.process.stdin.flush()
        return self._answer()[WARM:]  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def here(call: str, **keywords: Any) -> Contestant:
    """A contestant from this folder: ``here("mlp.ours", steps=5)`` serves what ``mlp.ours(steps=5)`` makes."""
    return Contestant(sys.executable, "-m", "benchmarks.turns", call, json.dumps(keywords))


def in_turn(entries: dict[str, tuple[Contestant, str]], rounds: int, each: int) -> dict[str, list[float]]:
    """Entry -> median seconds of a step in each round."""
    found: dict[str, list[float]] = {name: [] for name in entries}
    for i in range(rounds + 1):
        for name, (contestant, step) in entries.items():
            seconds = statistics.median(contestant.run(step, each))
            if i:
                found[name].append(seconds)
    return found


def ratio(one: list[float], other: list[float]) -> float:
    """The median over the rounds of what the two took in the same round."""
    return statistics.median(a / b for a, b in zip(one, other))


def serve(steps: dict[str, Callable[[], object]], ready: dict[str, Any]) -> None:
    """Answer requests until there are no more."""
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        name, count = line.split()
        times = []
        for _ in range(int(count)):
            begun = time.perf_counter()
            steps[name]()
            times.append(time.perf_counter() - begun)
        print(json.dumps(times), flush=True)


def _main() -> None:
    from benchmarks import groups, mlp

    module, name = sys.argv[1].split(".")
    made = getattr({"groups": groups, "mlp": mlp}[module], name)(**json.loads(sys.argv[2]))
    steps, ready = made if isinstance(made, tuple) else (made, {})
    serve(steps if isinstance(steps, dict) else {"step": steps}, ready)


if __name__ == "__main__":
    _main()
