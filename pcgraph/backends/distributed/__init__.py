"""The backend over several ranks: a program over the programs of a partition."""

from pcgraph.backends.distributed.backend import DistributedBackend, require_by_parts

__all__ = ["DistributedBackend", "require_by_parts"]
