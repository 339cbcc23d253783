"""Checkpoints: a network, and all that a run needs to go on to the last bit, on disk.

A folder holds the last few checkpoints, each a folder of its own: ``checkpoint-000007`` with

* ``graph.json``: the declaration (:mod:`pcgraph.serialization`);
* ``network.safetensors``, ``optimizer.safetensors``, ...: tensors, under the names of ``state_dict()``;
* ``state.json``: everything that is no tensor;
* ``manifest.json``: format, version, step, and size and SHA-256 of every file.

There is no pickle. A checkpoint is written under a temporary name, flushed to the disk and renamed; only then is the
oldest removed. So at any moment, whatever happens, the last complete checkpoint is there.
"""

from pcgraph.checkpoints.generators import generators_state, set_generators
from pcgraph.checkpoints.reading import Checkpoint, exists, load
from pcgraph.checkpoints.writing import VERSION, save

__all__ = ["VERSION", "Checkpoint", "exists", "generators_state", "load", "save", "set_generators"]
