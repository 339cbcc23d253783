"""A run can be recorded and replayed if all that varies from run to run comes in through tensors."""

from __future__ import annotations

import torch

from pcgraph.arguments import require_choice
from pcgraph.backends import Backend, Motion
from pcgraph.clamps import Clamps
from pcgraph.errors import ConfigError
from pcgraph.inference.options import Options
from pcgraph.network import Network
from pcgraph.optimizers import SGD, Adam, StateOptimizer
from pcgraph.plan import Plan
from pcgraph.solvers import Solver

__all__ = ["capturing", "obstacle", "obstacle_in", "refuse", "require_mode", "wrong_device"]


def obstacle(
    backend: Backend, network: Network, plan: Plan, clamps: Clamps, motion: Motion, options: Options
) -> str | None:  # fmt: skip
    """Say why a run cannot be recorded; return None if it can."""
    if clamps.masked:
        return "a clamp is partial"
    if options.tolerance is not None or options.stop is not None:
        return "a tolerance, or where nodes stop, is looked at by the host in every step"
    if options.callback is not None:
        return "a callback is called by the host in every step"
    if options.trace or motion.nudges or plan.request.all_move:
        return "a trace, nudges and incremental learning need the host in every step"
    return obstacle_in(backend, network, plan, motion.optimizer)


def obstacle_in(
    backend: Backend, network: Network, plan: Plan, optimizer: StateOptimizer | Solver | None
) -> str | None:
    """Say why no run of this plan can be recorded; return None if some can."""
    elsewhere = wrong_device(network.device.type)
    if elsewhere is not None:
        return elsewhere
    if optimizer is not None and type(optimizer) not in (SGD, Adam):
        return f"{type(optimizer).__name__} may decide by what it computes"
    for initializer in plan.initializers:
        if not initializer.capturable:
            return f"{type(initializer).__name__} does not promise to do the same work for every batch"
    return backend.obstacle(plan, network)


def wrong_device(device: str) -> str | None:
    """Say why nothing can be recorded on this type of device; return None if something can."""
    return None if device == "cuda" else f"the network is on {device!r}, and only CUDA records"


def require_mode(capture: object) -> None:
    """Refuse what is no value of ``capture=``.

    Raises
    ------
    ConfigError
        It is neither True nor False nor "auto".
    """
    require_choice(capture, "capture", (True, False, "auto"))


def refuse(reason: str) -> ConfigError:
    """Make the error of ``capture=True`` where it cannot be done."""
    return ConfigError(f"this run cannot be captured: {reason}; capture='auto' captures what it can", key="capture")


def capturing(
    backend: Backend, network: Network, plan: Plan, clamps: Clamps, motion: Motion, options: Options
) -> bool:  # fmt: skip
    """Decide whether to record this run.

    Raises
    ------
    ConfigError
        ``capture=True`` where it cannot be done.
    """
    require_mode(options.capture)
    if not options.capture:
        return False
    reason = obstacle(backend, network, plan, clamps, motion, options)
    if reason is not None:
        if options.capture == "auto":
            return False
        raise refuse(reason)
    # Inside of a recording of the caller's there is nothing more to record.
    return not torch.cuda.is_current_stream_capturing()
