"""Which runs can be recorded and replayed: all that varies from run to run comes in through tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pcgraph import energies
from pcgraph.clamps import Clamps
from pcgraph.errors import ConfigError
from pcgraph.optimizers import SGD, Adam, StateOptimizer
from pcgraph.plan import Plan

if TYPE_CHECKING:
    from pcgraph.inference.run import Settings

__all__ = ["capturing", "obstacle", "obstacle_in", "refuse", "require_mode", "wrong_device"]


def obstacle(plan: Plan, clamps: Clamps, optimizer: StateOptimizer | None, settings: Settings) -> str | None:
    """Why a run cannot be recorded, if it cannot."""
    if clamps.masked:
        return "a clamp is partial"
    if settings.trace or settings.nudges or settings.all_move:
        return "a trace, nudges and incremental learning need the host in every step"
    return obstacle_in(plan, optimizer)


def obstacle_in(plan: Plan, optimizer: StateOptimizer | None) -> str | None:
    """Why no run of this plan can be recorded, if none can."""
    elsewhere = wrong_device(plan.request.device)
    if elsewhere is not None:
        return elsewhere
    if optimizer is not None and type(optimizer) not in (SGD, Adam):
        return f"{type(optimizer).__name__} may decide by what it computes"
    for initializer in plan.initializers:
        if not initializer.capturable:
            return f"{type(initializer).__name__} does not promise to do the same work for every batch"
    if "module" in plan.kernels:
        return "a module on an edge may decide by what it computes"
    own = {type(run.energy) for run in plan.structure.runs if run.energy is not None and not run.gaussian}
    foreign = [kind.__name__ for kind in own if kind.__module__ != energies.__name__]
    if foreign:
        return f"{foreign[0]} may decide by what it computes"
    sigmas = [run.activation for run in plan.structure.runs] + [bucket.phi for bucket in plan.structure.buckets]
    own_sigma = next((sigma for sigma in sigmas if not sigma.named), None)
    if own_sigma is not None:
        return f"the activation {own_sigma.name!r} may decide by what it computes"
    return None


def wrong_device(device: str) -> str | None:
    """Why nothing can be recorded on this type of device, if nothing can."""
    return None if device == "cuda" else f"the network is on {device!r}, and only CUDA records"


def require_mode(capture: object) -> None:
    """Refuse what is no value of ``capture=``."""
    if capture not in (True, False, "auto"):
        raise ConfigError(f"capture is True, False or 'auto' (found {capture!r})", key="capture")


def refuse(reason: str) -> ConfigError:
    """What ``capture=True`` says where it cannot be done."""
    return ConfigError(f"this run cannot be captured: {reason}; capture='auto' captures what it can", key="capture")


def capturing(plan: Plan, clamps: Clamps, optimizer: StateOptimizer | None, settings: Settings) -> bool:
    """Whether to record this run.

    Raises
    ------
    ConfigError
        ``capture=True`` where it cannot be done.
    """
    require_mode(settings.capture)
    if not settings.capture:
        return False
    reason = obstacle(plan, clamps, optimizer, settings)
    if reason is not None:
        if settings.capture == "auto":
            return False
        raise refuse(reason)
    # Inside of a recording of the caller's there is nothing more to record.
    return not torch.cuda.is_current_stream_capturing()
