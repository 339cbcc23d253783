"""The backend on torch computes on CPUs and GPUs."""

from pcgraph.backends.torch.backend import TorchBackend
from pcgraph.backends.torch.workspace import switches

__all__ = ["TorchBackend", "switches"]
