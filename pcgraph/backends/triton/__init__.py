"""Fused kernels for NVIDIA GPUs, in Triton, behind the same seam as everything else."""

from pcgraph.backends.triton.backend import TritonBackend
from pcgraph.backends.triton.optimizer import FusedAdamW

__all__ = ["FusedAdamW", "TritonBackend"]
