"""save, load and restore."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

import pcgraph
from pcgraph import checkpoints
from pcgraph.errors import CheckpointError, ConfigError
from tests.bad_calls.calls import net
from tests.bad_calls.kinds import NO_INITIALIZER, NONE, Argument

STEP = torch.optim.lr_scheduler.StepLR


def saved(folder: Any = None, network: Any = None, **changed: Any) -> Any:
    """save into a folder of no further use."""
    with tempfile.TemporaryDirectory() as own:
        return pcgraph.save(own if folder is None else folder, net() if network is None else network, **changed)


def restored(**changed: Any) -> Any:
    """Restore from a checkpoint of everything."""
    with tempfile.TemporaryDirectory() as folder:
        own = net()
        init, optimizer = pcgraph.Null(), torch.optim.AdamW(own.parameters())
        pcgraph.save(folder, own, initializer=init, optimizer=optimizer, scheduler=STEP(optimizer, 1))
        return pcgraph.load(folder).restore(**changed)


CHECKPOINTS = [
    Argument("save(folder)", lambda v: saved(v), "path"),
    Argument("save(net)", lambda v: saved(network=v), "anything",
             bad={"graph": pcgraph.graphs.chain([4, 3]), "module": torch.nn.Linear(2, 2), "class": pcgraph.PCNetwork,
             "text": "net"}),
    Argument("save(step=)", lambda v: saved(step=v), "count"),
    Argument("save(epoch=)", lambda v: saved(epoch=v), "count"),
    Argument("save(keep=)", lambda v: saved(keep=v), "positive count"),
    *(Argument(f"save({key}=)", lambda v, key=key: saved(**{key: v}), "anything",
               bad={"number": 3, "text": "adam", "list": [], "function": len, "class": torch.optim.SGD, "bool": True},
               good=NONE)
      for key in ("optimizer", "loader", "scheduler")),
    Argument("save(initializer=)", lambda v: saved(initializer=v), "initializer", good=NONE),
    Argument("save(extra=)", lambda v: saved(extra=v), "anything",
             bad={"function": len, "set": {1}, "object": object(), "class": dict, "module": torch, "complex": 1j}),
    Argument("load(folder)", pcgraph.load, "path", (ConfigError, CheckpointError), bad={"nowhere": "/nowhere",
             "file": __file__}),
    Argument("checkpoints.exists(folder)", checkpoints.exists, "path", good={"nowhere": "/nowhere", "path": Path("/")}),
    Argument("Checkpoint.restore(net=)", lambda v: restored(net=v), "anything",
             bad={"graph": pcgraph.graphs.chain([4, 3]), "text": "net", "class": pcgraph.PCNetwork,
             "module": torch.nn.Linear(2, 2)},
             good={"network": net(), "none": None}),
    Argument("Checkpoint.restore(initializer=)", lambda v: restored(initializer=v), "anything", (ConfigError, CheckpointError),
             bad={**NO_INITIALIZER, "another": pcgraph.Normal()}, good={"one": pcgraph.Null(), "none": None}),
    *(Argument(f"Checkpoint.restore({key}=)", lambda v, key=key: restored(**{key: v}), "anything", (ConfigError, CheckpointError),
               bad={"number": 3, "text": "adam", "list": [], "function": len, "class": torch.optim.AdamW, "bool": True,
                    "module": torch.nn.Linear(2, 2)}, good=NONE)
      for key in ("optimizer", "loader", "scheduler")),
    Argument("Checkpoint.restore(generators=)", lambda v: restored(generators=v), "flag"),
]  # fmt: skip
