"""A network that is cut over ranks is declared alike on all of them, and each makes its own part of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping
from typing import Any

import torch

from pcgraph.arguments import shown
from pcgraph.backends import Backend, TorchBackend
from pcgraph.backends import get as get_backend
from pcgraph.errors import ConfigError
from pcgraph.inference import Options
from pcgraph.network import Cut, Structure
from pcgraph.optimizers import SGD, Adam, Following
from pcgraph.processes import Group, initialised, read_group

__all__ = ["inner_backend", "read_ranks", "require_apart", "require_runs"]

Node = Hashable
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def read_ranks(structure: Structure, partition: Mapping[Node, int], group: Any) -> tuple[Cut, int, Group | None]:
    """Read ``partition=`` and ``group=``: who owns what, which rank this is, and the others.

    Raises
    ------
    ConfigError
        The partition is none of this graph, there are more or fewer processes than it has ranks, or none at all.
    """
    cut = Cut.make(structure, partition)
    if cut.parts == 1:
        return cut, 0, None
    if group is False or (group is None and not initialised()):
        raise ConfigError(
            f"a partition over {cut.parts} ranks needs as many processes (found no process group): start the script "
            f"with torchrun --nproc-per-node {cut.parts}, and call torch.distributed.init_process_group() first",
            key="partition",
        )
    ranks = read_group(group)
    size = 1 if ranks is None else ranks.size
    if ranks is None or size != cut.parts:
        raise ConfigError(
            f"a partition over {cut.parts} ranks needs as many processes (found {size}): cut the graph into {size} "
            "parts, or start other processes",
            key="partition",
        )
    return cut, ranks.rank, ranks


def require_apart(cut: Cut, group: Group, seed: int, like: torch.Tensor) -> None:
    """Refuse, on all ranks, what they have not declared alike.

    Raises
    ------
    ConfigError
        Names of nodes are told apart by their address alone, or the ranks differ in graph, partition, seed or dtype.
    """
    s = cut.structure
    names = [repr(node) for node in s.declared]
    nameless = next((name for name in names if ADDRESS.search(name)), None)
    group.agree({"names of nodes": "whole" if nameless is None else f"by value (found {nameless})"})
    if nameless is not None:
        raise ConfigError(
            f"ranks call a node by its name, and {nameless} is another one in each process: name nodes by strings, "
            "numbers or tuples of these",
            key="partition",
        )
    digest = hashlib.sha256()
    for part in (names, s.source.tolist(), s.target.tolist(), [b.name for b in s.buckets], [g.name for g in s.groups]):
        digest.update(repr(part).encode())
    group.agree({
        "graph (its nodes and edges, declared in the same order)": digest.hexdigest(),
        "partition": hashlib.sha256(repr(cut.owner.tolist()).encode()).hexdigest(),
        "seed": seed,
        "dtype": str(like.dtype),
        "version of torch": torch.__version__,
    })  # fmt: skip


def inner_backend(backend: str | Backend) -> Backend:
    """Return what computes one part: torch's own backend, unless another is asked for."""
    return TorchBackend() if backend == "auto" else get_backend(backend)


def require_runs(optimizer: object, options: Options, all_move: bool, nudged: bool) -> None:
    """Refuse what does not run over several ranks yet, before anything does.

    Raises
    ------
    ConfigError
    """
    why = None
    if optimizer is not None and type(optimizer) not in (SGD, Adam):
        why = f"optimizer={shown(optimizer)}: take pcgraph.SGD or pcgraph.Adam"
    elif isinstance(getattr(optimizer, "lr", None), Following):
        why = "a rate that follows the curvature: give a number"
    elif options.stop is not None:
        why = "duals that stop: leave out stop="
    elif options.trace == "nodes":
        why = "trace='nodes': trace=True adds up the energies of all ranks"
    elif options.states is not None or options.callback is not None:
        why = "states that are kept or shown on the way: read result.states at the end"
    elif all_move or nudged:
        why = "learning rules that carry on or nudge states: take the standard rule"
    if why is not None:
        raise ConfigError(f"a network over several ranks does not know {why}", key="partition")
