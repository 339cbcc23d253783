"""A checkpoint of one process, or of all ranks of a network, is written whole, or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from pcgraph.arguments import require_count, require_instance, require_path
from pcgraph.checkpoints.cutting import averaged_section, gathered, moved_section, network_section, unite
from pcgraph.checkpoints.generators import generators_state
from pcgraph.checkpoints.lock import FolderLock
from pcgraph.checkpoints.owners import initializer_parts, named_parameters, row_owners
from pcgraph.checkpoints.writing import Incoming, files_of, state_of, tensors_file
from pcgraph.errors import CheckpointError, ConfigError, GraphError, PCGraphWarning
from pcgraph.initializers import Initializer
from pcgraph.initializers.remember import misfit
from pcgraph.model import PCNetwork
from pcgraph.processes import Group, telling
from pcgraph.serialization import graph_to_data

__all__ = ["save", "write"]


def save(
    folder: str | Path, net: PCNetwork, *, optimizer: Any = None, initializer: Initializer | None = None,
    loader: Any = None, scheduler: Any = None, step: int = 0, epoch: int = 0, extra: Any = None, keep: int = 2,
) -> Path:  # fmt: skip
    """Write a checkpoint into `folder`, beside the one before it.

    Parameters
    ----------
    folder : str or Path
        It is made if need be. Give each run its own.
    net : PCNetwork
        Of one that is cut over ranks, all ranks save together, each its own part; any number of processes reads it. On
        a mesh, one row of ranks does.
    optimizer : torch.optim.Optimizer, optional
    initializer : Initializer, optional
        What it remembers and what it has learned.
    loader : object, optional
        With ``state_dict()``, such as pcgraph's batches: where in the data it stands.
    scheduler : torch.optim.lr_scheduler.LRScheduler, optional
    step, epoch : int
    extra : object, optional
        Anything of numbers, strings, lists, tuples, mappings and tensors.
    keep : int
        How many checkpoints stay, this one included.

    Returns
    -------
    Path
        The checkpoint's own folder.

    Raises
    ------
    CheckpointError
        It cannot be written (a full disk, a read-only folder), or another process is writing into the folder; `path` is
        the file. The checkpoints before it are untouched.
    ConfigError
        Something in the states cannot be saved; the message names it.
    RankFailed
        Another rank has failed, has died, or has not come in time.

    Warns
    -----
    PCGraphWarning
        The graph holds something without a name, a Python function say. All else is saved, and
        :meth:`Checkpoint.restore` needs a network made by the same code.

    Examples
    --------
    >>> import tempfile
    >>> import pcgraph
    >>> net = PCNetwork(pcgraph.graphs.chain([4, 3, 2]), seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(folder, net, step=10)
    ...     again = pcgraph.checkpoints.load(folder).net
    >>> path.name, torch.equal(again.weight("x", "h1"), net.weight("x", "h1"))
    ('checkpoint-000000', True)
    """
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
    if initializer is not None:
        require_instance(initializer, "initializer", Initializer, "pcgraph.Null()")
        why = misfit(initializer, net.structure)
        if why:
            raise ConfigError(f"the initializer is not of this network: {why}", key="initializer")
    keep = require_count(keep, "keep", least=1)
    counts = {"step": require_count(step, "step", most=2**63 - 1), "epoch": require_count(epoch, "epoch")}
    folder = require_path(folder, "folder")
    given = {"optimizer": optimizer, "initializer": initializer, "loader": loader, "scheduler": scheduler}
    return write(folder, net, {k: part for k, part in given.items() if part is not None}, counts, extra, keep)


def write(
    folder: Path, net: PCNetwork, parts: dict[str, Any], counts: dict[str, int], extra: Any, keep: int
) -> Path:  # fmt: skip
    """Write a checkpoint of a network and of other parts, by name, as :func:`save` does."""
    facts = {
        "dtype": str(net.dtype).removeprefix("torch."), "training": net.training, "rows": row_owners(net.structure)
    }  # fmt: skip
    if net.places is not None:
        return _write_together(folder, net, parts, counts, extra, keep, facts)
    sections = _sections(net, parts, extra)
    for name, part in parts.items():
        if isinstance(part, torch.optim.Optimizer):
            sections[name]["parameters"] = named_parameters(part, net, parts.get("initializer"))
    sections["network"] = {"state": dict(net.state_dict())}
    files = files_of(_graph(net), sections, facts)
    with FolderLock(folder):
        incoming = Incoming(folder)
        try:
            return incoming.complete(incoming.write(files), counts, keep)
        finally:
            incoming.drop()


def _sections(net: PCNetwork, parts: Mapping[str, Any], extra: Any) -> dict[str, dict[str, Any]]:
    """Make the sections of all but the network."""
    sections = {name: state_of(name, part) for name, part in parts.items()}
    if "initializer" in parts:
        sections["initializer"]["parts"] = initializer_parts(parts["initializer"])
    return {**sections, "generators": {"state": generators_state(net.device)}, "extra": {"state": extra}}


def _graph(net: PCNetwork) -> dict[str, Any]:
    try:
        return graph_to_data(net.graph)
    except GraphError as error:
        warnings.warn(
            f"the graph is not in the checkpoint: {error} The parameters are, and load(folder).restore(net=...) puts "
            "them into a network that the same code has made.",
            PCGraphWarning,
            stacklevel=4,
        )
        return {"unsaved": str(error)}


# -- by several ranks -------------------------------------------------------------------------------------------------


def _write_together(
    folder: Path, net: PCNetwork, parts: dict[str, Any], counts: dict[str, int], extra: Any, keep: int,
    facts: dict[str, Any],
) -> Path:  # fmt: skip
    """Write a checkpoint by all ranks of a network: each its share, and the first all that there is once.

    The first rank begins it, all of them write and tell what they wrote, and only when everything is on the disk does
    the first give it its name. So a rank may be killed at any moment, and what was complete before is still there.
    """
    group, initializer = net.group, parts.get("initializer")
    leads = group is None or group.leads
    moved = {name: part for name, part in parts.items() if hasattr(part, "param_groups")}
    averages = {name: part for name, part in parts.items() if isinstance(part, AveragedModel)}
    with ExitStack() as stack:
        with telling(group):
            kept = None if initializer is None else unite(initializer, net)
            sections, shares = {}, {}
            sections["network"], shares["network"] = network_section(net, group)
            for name, part in moved.items():
                sections[name], shares[name] = moved_section(part, net, initializer, group)
            for name, part in averages.items():
                sections[name], shares[name] = averaged_section(part, group)

        def begin() -> list[Any]:
            if not leads:
                return []
            stack.enter_context(FolderLock(folder))
            incoming = Incoming(folder)
            stack.callback(incoming.drop)
            return [incoming.name]

        (name,), *_ = _together(group, begin)

        def write_own() -> dict[str, Any]:
            incoming = Incoming(folder, name)
            files = {
                f"{part}_{net.rank}.safetensors": tensors_file(share.file())
                for part, share in shares.items() if share.tensors
            }  # fmt: skip
            if leads:
                others = {name: part for name, part in parts.items() if name not in shares}
                whole = {**_sections(net, others, extra), **sections}
                if kept is not None:
                    whole["initializer"]["state"] = kept
                files |= files_of(_graph(net), whole, facts, {part: share.all for part, share in shares.items()})
            return incoming.write(files)

        written = _together(group, write_own)
        listed = {name: told for theirs in written for name, told in theirs.items()}

        def complete() -> str:
            told = {**counts, "ranks": 1 if group is None else group.size}
            return Incoming(folder, name).complete(listed, told, keep).name if leads else ""

        final: str = _together(group, complete)[0]
        return folder / final


def _together(group: Group | None, work: Callable[[], Any]) -> list[Any]:
    """Do some work on every rank, and give all of them what it returns, plain data, by rank.

    Raises
    ------
    CheckpointError, ConfigError
        It has raised that on some rank, and so it does on all of them.
    """
    mine: CheckpointError | ConfigError | None = None
    value = None
    try:
        value = work()
    except (CheckpointError, ConfigError) as error:
        mine = error
    said = None if mine is None else [isinstance(mine, CheckpointError), str(mine)]
    everyone = gathered(group, [said, value])
    if mine is not None:
        raise mine
    for rank, (told, _) in enumerate(everyone):
        if told is not None:
            text = f"rank {rank}: {told[1]}"
            raise CheckpointError(text, path=None) if told[0] else ConfigError(text, key="checkpoint")
    return [found for _, found in everyone]
