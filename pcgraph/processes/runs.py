"""Who shares a run: what was given as ``group=``, what this process has, and the processes that torchrun starts."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import torch

from pcgraph.arguments import shown
from pcgraph.errors import ConfigError
from pcgraph.processes.group import TIMEOUT, Group, first_line, initialised, started_by_torchrun
from pcgraph.processes.mesh import Mesh, is_mesh

__all__ = ["asked", "at_hand", "read_group", "started", "telling"]

#: The group of the run that is at hand: False where it is one process by itself, None where there is no run.
_at_hand: ContextVar[Group | bool | None] = ContextVar("group", default=None)


@contextmanager
def at_hand(group: Group | None) -> Iterator[None]:
    """Let what is called in this block with ``group=None`` take this group; None is this process alone."""
    token = _at_hand.set(False if group is None else group)
    try:
        yield
    finally:
        _at_hand.reset(token)


def asked(group: Any) -> Any:
    """Return the argument ``group=`` as it was given, or what the run at hand has where it is None."""
    return _at_hand.get() if group is None else group


def read_group(group: Any) -> Group | None:
    """Read the argument ``group=``: what was given, or what this process has; None for a process alone.

    Parameters
    ----------
    group : Group, ProcessGroup, DeviceMesh, False or None
        None: that of the run at hand; else all ranks, where there is a process group. False: this process alone,
        whatever there is. A mesh has one dimension.

    Raises
    ------
    ConfigError
        It is none of these; or torchrun has started several processes, and they have no process group.
    """
    group = asked(group)
    if group is False:
        return None
    if isinstance(group, Group):
        return group if group.size > 1 else None
    if group is None:
        if initialised():
            return read_group(Group())
        count = started_by_torchrun()
        if count > 1:
            raise ConfigError(
                f"torchrun has started {count} processes, and they have no process group (found none that is "
                "initialised): call torch.distributed.init_process_group() first, or give group=False to let each "
                "process work alone",
                key="group",
            )
        return None
    if initialised():
        from torch.distributed import ProcessGroup

        if isinstance(group, ProcessGroup):
            return read_group(Group(group))
        if is_mesh(group):
            if group.ndim != 1:
                raise ConfigError(
                    f"processes that share batches are a DeviceMesh of one dimension (found {Mesh.told(group)}): give "
                    'one axis of it, as in group=mesh["data"]; a network that is cut over the other axis is '
                    "PCNetwork(graph, partition=..., group=mesh)",
                    key="group",
                )
            return read_group(Group(group.get_group()))
    raise ConfigError(
        "group= is a pcgraph.processes.Group, or a process group or DeviceMesh of torch.distributed (found "
        f"{shown(group)}); None takes all ranks, and False this process alone",
        key="group",
    )


@contextmanager
def telling(group: Group | None) -> Iterator[None]:
    """Tell the other ranks, if there are any, of an error that leaves this block; see :meth:`Group.telling`."""
    with nullcontext() if group is None else group.telling():
        yield


@contextmanager
def started(device: torch.device | str = "cpu", *, timeout: float = TIMEOUT) -> Iterator[Group | None]:
    """Make a process group of the processes that torchrun has started, and take it down again.

    Each start by ``torchrun --max-restarts`` has keys of its own in torchrun's store, where torch itself would find
    addresses of processes that are dead.

    Parameters
    ----------
    device : torch.device or str
        What networks are on: NCCL joins processes on GPUs, gloo all others.
    timeout : float
        As for :class:`Group`.

    Yields
    ------
    Group or None
        None where there is one process.

    Raises
    ------
    ConfigError
        The other processes do not come.
    """
    if initialised() or started_by_torchrun() == 1:
        yield read_group(None)
        return
    from torch import distributed

    gpu = torch.device(device).type == "cuda"
    try:
        wait = timedelta(seconds=timeout)
        store, rank, size = next(distributed.rendezvous("env://", timeout=wait))  # type: ignore[attr-defined]
        own = distributed.PrefixStore(  # type: ignore[attr-defined]
            f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store
        )
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo", store=own, rank=rank, world_size=size, timeout=wait
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the {started_by_torchrun()} processes that torchrun has started do not find each other: "
            f"{first_line(error)}",
            key="group",
        ) from error
    try:
        group = Group(timeout=timeout)
        yield group
        group.barrier()  # the first may keep the store, and goes last
        del group
    finally:
        gc.collect()  # a network is part of a cycle, and its group is to end here, not when the interpreter does
        distributed.destroy_process_group()
