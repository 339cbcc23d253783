"""The backend on torch computes on CPUs and GPUs."""

from pcgraph.backends.torch.backend import TorchBackend

__all__ = ["TorchBackend"]
