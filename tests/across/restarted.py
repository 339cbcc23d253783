"""Trains a network over the ranks of torchrun, one of which may kill itself in the first start; a test runs this."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import pcgraph
from pcgraph import processes
from tests.across.training import Run


def main(folder: Path, victim: int, step: int, epochs: int) -> None:
    def die(record: Any) -> None:
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if first and torch.distributed.get_rank() == victim and record.kind == "step" and record.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    run, saved = Run("adamw, average", torch.distributed.get_world_size()), folder / "checkpoints"
    run.fit(
        epochs, checkpoint=saved, checkpoint_every=1, callbacks=die,
        resume=saved if pcgraph.checkpoints.exists(saved) else None,
    )  # fmt: skip
    torch.save(run.tensors(), folder / f"{torch.distributed.get_rank()}.pt")


def child(rank: int, size: int, port: int, *arguments: Any) -> None:
    """Do so as one of the processes that a test has started itself."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with processes.started(timeout=60):
        main(*arguments)


if __name__ == "__main__":
    with processes.started(timeout=30):
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
