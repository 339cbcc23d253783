"""Small calls that the tables make with a value in the place of an argument."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

import pcgraph

__all__ = ["BATCH", "BATCHES", "LABELS", "X", "Y", "fitted", "infer", "net", "small_memory"]

X, LABELS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
Y = torch.eye(3)[LABELS]
BATCH = {"x": X, "y": Y}
BATCHES = [(X, Y), (X, Y)]


def net() -> pcgraph.PCNetwork:
    return pcgraph.PCNetwork(pcgraph.graphs.chain([4, 5, 3], activation="tanh"), seed=0)


def small_memory(**changed: Any) -> pcgraph.Memory:
    return pcgraph.Memory(net(), **{"patterns": 2, "heads": 1, "embed_dim": 2, **changed})


def infer(clamps: Any = None, **changed: Any) -> Any:
    chosen = {"init": pcgraph.Forward(), "steps": 2, "optimizer": pcgraph.SGD(lr=0.1), **changed}
    return net().infer(BATCH if clamps is None else clamps, **chosen)


def fitted(loader: Any = BATCHES, network: Any = None, **changed: Any) -> Any:
    """fit on a small network; whatever is refused has trained and written nothing."""
    with tempfile.TemporaryDirectory() as folder:
        own = net() if network is None else network
        chosen: dict[str, Any] = {
            "init": pcgraph.Forward(), "steps": 2, "state_optimizer": pcgraph.SGD(lr=0.1), "progress": False,
            "checkpoint": Path(folder) / "c", **changed,
        }  # fmt: skip
        if "optimizer" not in changed and isinstance(own, torch.nn.Module):
            chosen["optimizer"] = torch.optim.AdamW(own.parameters(), lr=0.01)
        before = [p.detach().clone() for p in own.parameters()] if isinstance(own, torch.nn.Module) else []
        try:
            return pcgraph.fit(own, loader, **chosen)
        except BaseException:
            if not all(map(torch.equal, before, own.parameters() if before else [])):
                raise RuntimeError("it has trained before it refused") from None
            raise
