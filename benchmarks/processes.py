"""Measure data parallel training on 1 and 2 processes of one thread each: ``python -m benchmarks.processes``.

The network is the paper's, 784-512x4-10 with gelu, at batch 400, with 5 and 20 inference steps; data are random.
It prints seconds a training step, the median over rounds of several steps, and how many times faster two processes are.
It means something on a machine with two idle cores at least.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

import pcgraph
from pcgraph import processes

BATCH, STEPS, ROUND, ROUNDS, WARM = 400, (5, 20), 10, 6, 5


def measured(steps: int) -> float:
    """Train, and return the median of the seconds that a step takes, over rounds of steps."""
    torch.set_num_threads(1)
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([784, 512, 512, 512, 512, 10], activation="gelu"), seed=0)
    x = torch.randn(BATCH, 784, generator=torch.Generator().manual_seed(0))
    y = torch.arange(BATCH) % 10
    times: list[float] = []

    def note(record: Any) -> None:
        if record.kind == "step":
            times.append(time.perf_counter())

    pcgraph.fit(
        net, [(x, y)] * (WARM + ROUND * ROUNDS + 1), init=pcgraph.Forward(), steps=steps,
        state_optimizer=pcgraph.SGD(lr=0.01), optimizer=torch.optim.AdamW(net.parameters(), lr=0.0001, fused=True),
        callbacks=note, progress=False, curvature_every=0, measure_every=1000,
    )  # fmt: skip
    ends = times[WARM::ROUND]
    return statistics.median((b - a) / ROUND for a, b in zip(ends, ends[1:]))


def main() -> None:
    """Measure one process, then two, in turn and twice, and print the better of each."""
    for steps in STEPS:
        found: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(2):
            for count in found:
                command = [
                    sys.executable,
                    "-m",
                    "torch.distributed.run",
                    "--standalone",
                    "--nproc-per-node",
                    str(count),
                ]
                answer = subprocess.run(
                    [*command, __file__, "rank", str(steps)], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
                    capture_output=True, text=True,
                )  # fmt: skip
                found[count].append(float(json.loads(answer.stdout.strip().splitlines()[-1])))
        one, two = (min(seconds) for seconds in found.values())
        print(
            f"{steps} inference steps: one process {one * 1e3:.1f} ms a training step, two {two * 1e3:.1f} ms: "
            f"{one / two:.2f} times as fast"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        with processes.started():
            seconds = measured(int(sys.argv[2]))
            if int(os.environ.get("RANK", 0)) == 0:
                print(json.dumps(seconds))
    else:
        main()
