"""Trains on the ranks of torchrun, one of which kills itself in a step of the first start; a test runs this."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import pcgraph
from pcgraph import processes


def main(folder: Path, victim: int, step: int) -> None:
    def die(record: Any) -> None:
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if first and torch.distributed.get_rank() == victim and record.kind == "step" and record.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    net = pcgraph.PCNetwork(pcgraph.graphs.chain([5, 7, 3]), seed=0)
    generator = torch.Generator().manual_seed(0)
    loader = [(torch.randn(9, 5, generator=generator), torch.arange(9) % 3) for _ in range(5)]
    saved = folder / "checkpoints"
    pcgraph.fit(
        net, loader, init=pcgraph.Average(), steps=3, state_optimizer=pcgraph.SGD(lr=0.1), epochs=4,
        optimizer=torch.optim.AdamW(net.parameters(), lr=0.01), checkpoint=saved, checkpoint_every=2,
        resume=saved if pcgraph.checkpoints.exists(saved) else None, callbacks=die, progress=False,
    )  # fmt: skip
    torch.save(net.state_dict(), folder / f"{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    with processes.started():
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
