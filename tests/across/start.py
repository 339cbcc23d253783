"""Processes are started here as torchrun starts them, all on this machine, and none is left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import ROOT

__all__ = ["free_port", "run"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run(module: str, processes: int, *arguments: str, seconds: float = 120) -> list[tuple[int, str]]:
    """Run ``python -m module arguments`` in so many processes; return the exit status and the output of each."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        files = [open(Path(folder) / str(rank), "w+", encoding="utf-8") for rank in range(processes)]  # noqa: SIM115
        started = [
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT, stdout=files[rank], stderr=subprocess.STDOUT,
                env={
                    **os.environ, "RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank),
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": str(ROOT),
                },
            )
            for rank in range(processes)
        ]  # fmt: skip
        try:
            for process in started:
                process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            for process in started:
                process.kill()
                process.wait()
        found = []
        for process, file in zip(started, files):
            file.seek(0)
            found.append((process.returncode, file.read()))
            file.close()
        return found
