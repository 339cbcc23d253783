"""Backends compute plans: the seam stands here, and what lies behind it.

A backend of your own is a subclass of :class:`Backend`. Put it into :data:`BACKENDS` to ask for it by name.
"""

from __future__ import annotations

from pcgraph.backends.base import Backend
from pcgraph.backends.distributed import DistributedBackend
from pcgraph.backends.motion import Motion
from pcgraph.backends.running import Kind, Program, Which
from pcgraph.backends.settings import keep, keeping, switches
from pcgraph.backends.torch import TorchBackend
from pcgraph.backends.traits import Traits, traits_of
from pcgraph.backends.triton import FusedAdamW, TritonBackend
from pcgraph.errors import ConfigError, unknown_name

__all__ = [
    "BACKENDS", "Backend", "DistributedBackend", "FusedAdamW", "Kind", "Motion", "Program", "TorchBackend", "Traits",
    "TritonBackend", "Which", "get", "keep", "keeping", "switches", "traits_of",
]  # fmt: skip

#: Name -> class. "auto" takes the quickest one here that can compute the network.
BACKENDS: dict[str, type[Backend]] = {"torch": TorchBackend, "triton": TritonBackend}


def get(spec: str | Backend) -> Backend:
    """Return the backend that `spec` is, or a new one that it names.

    Raises
    ------
    ConfigError
        An unknown name, or something that is neither a name nor a backend.
    """
    if isinstance(spec, Backend):
        return spec
    if not isinstance(spec, str):
        made = f"; a class makes an object: write {spec.__name__}()" if isinstance(spec, type) else ""
        raise ConfigError(f"backend= is a name or a Backend (found {spec!r}){made}", key="backend")
    if spec == "auto":
        return TritonBackend(strict=False)
    if spec not in BACKENDS:
        raise ConfigError(unknown_name("backend", spec, ("auto", *BACKENDS)), key="backend")
    return BACKENDS[spec]()
