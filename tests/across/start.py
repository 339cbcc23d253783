"""Processes are started here as torchrun starts them, all on this machine, and none is left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from tests import ROOT

__all__ = ["run", "started"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def started(module: str, processes: int, *arguments: str) -> Iterator[list[tuple[subprocess.Popen[str], IO[str]]]]:
    """Start ``python -m module arguments`` in so many processes, each with the file of its output; end them at last."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as files:
        found = []
        for rank in range(processes):
            file = files.enter_context(open(Path(folder) / str(rank), "w+"))
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, text=True,
                env={
                    **os.environ, "RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank),
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": str(ROOT),
                },
            )  # fmt: skip
            found.append((process, file))
        try:
            yield found
        finally:
            for process, _ in found:
                process.kill()
                process.wait()


def run(module: str, processes: int, *arguments: str, seconds: float = 120) -> list[tuple[int, str]]:
    """Run ``python -m module arguments`` in so many processes; return the exit status and the output of each."""
    with started(module, processes, *arguments) as found:
        with suppress(subprocess.TimeoutExpired):
            for process, _ in found:
                process.wait(seconds)
        for process, _ in found:
            process.kill()
            process.wait()
        for _, file in found:
            file.seek(0)
        return [(process.returncode, file.read()) for process, file in found]
