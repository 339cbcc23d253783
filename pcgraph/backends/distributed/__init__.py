"""The backend over several ranks: a program over the programs of a partition."""

from pcgraph.backends.distributed.backend import DistributedBackend

__all__ = ["DistributedBackend"]
