"""A checkpoint keeps a network, and all that a run needs to go on to the last bit, on disk.

A folder holds the last few checkpoints, each a folder of its own: ``checkpoint-000007`` with

* ``graph.json``: the declaration (:mod:`pcgraph.serialization`);
* ``network.safetensors``, ``optimizer.safetensors``, ...: tensors, under the names of ``state_dict()``;
* ``state.json``: everything that is no tensor;
* ``manifest.json``: format, version, step, and size and SHA-256 of every file.

Of a network that is cut over ranks, each rank writes files of its own, ``network_0.safetensors`` and so on, in which
its rows of the tensors lie, and beside each tensor which rows of the whole these are. Nothing else in a checkpoint
knows of the partition, so that any number of ranks, or one process, reads it.

What is loaded is loaded whole or not at all, and into the nodes and edges that it was saved from, by name: a network
whose nodes were declared in another order is refused. One process at a time writes into a folder.

There is no pickle. A checkpoint is written under a temporary name, flushed to the disk and renamed; only then is the
oldest removed. So at any moment, whatever happens, the last complete checkpoint is there.
"""

from pcgraph.checkpoints.checkpoint import Checkpoint
from pcgraph.checkpoints.generators import check_generators, generators_state, set_generators
from pcgraph.checkpoints.lock import FolderLock
from pcgraph.checkpoints.reading import exists, load
from pcgraph.checkpoints.saving import save, write
from pcgraph.checkpoints.transaction import Transaction
from pcgraph.checkpoints.writing import VERSION

__all__ = [
    "VERSION", "Checkpoint", "FolderLock", "Transaction", "check_generators", "exists", "generators_state", "load",
    "save", "set_generators", "write",
]  # fmt: skip
