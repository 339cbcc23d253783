"""How much sooner two processes are done than one: 512 groups of 64 neurons, cut in two by METIS.

    python -m benchmarks.ranks                  # both, with one thread each, and the ratio

Each update is an inference of 20 steps at batch 32 and its weight gradients; the best of several is taken.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time

import torch

import pcgraph

GROUPS, SIZE, DEGREE, BATCH, STEPS, UPDATES = 512, 64, 4, 32, 20, 10


def update_seconds() -> float:
    """Time one update, on as many processes as there are."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    graph = pcgraph.graphs.random_groups(GROUPS, SIZE, DEGREE, seed=0)
    net = pcgraph.PCNetwork(graph, seed=0, partition=pcgraph.partition(graph, ranks) if ranks > 1 else None)
    draw = torch.Generator().manual_seed(0)
    clamps = {v: torch.randn(BATCH, *net.structure.shape(v), generator=draw) for v in ("x", "y")}
    took = []
    for _ in range(UPDATES):
        began = time.perf_counter()
        net.zero_grad()
        net.infer(clamps, init=pcgraph.Zero(), steps=STEPS, optimizer=pcgraph.SGD(0.05)).backward()
        took.append(time.perf_counter() - began)
    return min(took)


def child() -> None:
    if int(os.environ["WORLD_SIZE"]) > 1:
        torch.distributed.init_process_group("gloo")
    seconds = update_seconds()
    if os.environ["RANK"] == "0":
        print(seconds)


def run(processes: int) -> float:
    """Start processes as torchrun does, and return what the first says."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--child"], stdout=subprocess.PIPE, text=True,
            env={**common, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(processes)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process has failed")
    return float(said[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().child:
        child()
        return
    one, two = run(1), run(2)
    print(f"one process {one * 1e3:.1f} ms an update, two {two * 1e3:.1f} ms: {one / two:.2f} times as quick")


if __name__ == "__main__":
    main()
