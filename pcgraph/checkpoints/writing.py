"""Checkpoints are written whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pcgraph.arguments import require_count, require_instance, require_path
from pcgraph.checkpoints.generators import generators_state
from pcgraph.checkpoints.lock import FolderLock
from pcgraph.checkpoints.owners import initializer_parts, named_parameters, row_owners
from pcgraph.errors import CheckpointError, ConfigError, GraphError, PCGraphWarning
from pcgraph.initializers import Initializer
from pcgraph.model import PCNetwork
from pcgraph.serialization import encode, graph_to_data
from pcgraph.serialization.files import patiently

__all__ = ["FORMAT", "MANIFEST", "NAME", "VERSION", "digest", "numbered", "save"]

FORMAT, VERSION = "pcgraph.checkpoint", 1
MANIFEST = "manifest.json"
NAME = re.compile(r"checkpoint-(\d{6,})")
INCOMING, OUTGOING = ".incoming-", ".outgoing-"
DEEPEST = 100
"""Levels of lists and mappings that a state may have."""


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
    net.require_one_process("save", "net.state_dict() has the parameters of this rank; keep one file for each")
    if initializer is not None:
        require_instance(initializer, "initializer", Initializer, "pcgraph.Null()")
    keep = require_count(keep, "keep", least=1)
    counts = {"step": require_count(step, "step", most=2**63 - 1), "epoch": require_count(epoch, "epoch")}
    folder = require_path(folder, "folder")
    sections = {
        name: _state_of(name, part)
        for name, part in (
            ("optimizer", optimizer), ("initializer", initializer), ("loader", loader), ("scheduler", scheduler)
        )
        if part is not None
    }  # fmt: skip
    if isinstance(optimizer, torch.optim.Optimizer):
        sections["optimizer"]["parameters"] = named_parameters(optimizer, net, initializer)
    if isinstance(initializer, Initializer):
        sections["initializer"]["parts"] = initializer_parts(initializer)
    sections["network"] = {"state": dict(net.state_dict())}
    sections["generators"] = {"state": generators_state(net.device)}
    sections["extra"] = {"state": extra}
    facts = {
        "dtype": str(net.dtype).removeprefix("torch."), "training": net.training, "rows": row_owners(net.structure)
    }  # fmt: skip
    files = _files(_graph_data(net), sections, facts)
    with FolderLock(folder):
        return _write_all(folder, files, counts, keep)


def _state_of(name: str, part: Any) -> dict[str, Any]:
    if isinstance(part, type) or not callable(getattr(part, "state_dict", None)):
        raise ConfigError(f"the {name} cannot be saved: a {type(part).__name__} has no state_dict()", key=name)
    return {"class": type(part).__name__, "state": part.state_dict()}


def _graph_data(net: PCNetwork) -> dict[str, Any]:
    try:
        return graph_to_data(net.graph)
    except GraphError as error:
        warnings.warn(
            f"the graph is not in the checkpoint: {error} The parameters are, and load(folder).restore(net=...) puts "
            "them into a network that the same code has made.",
            PCGraphWarning,
            stacklevel=3,
        )
        return {"unsaved": str(error)}


def _files(graph: dict[str, Any], sections: dict[str, dict[str, Any]], facts: dict[str, Any]) -> dict[str, bytes]:
    """Make the contents of all files but the manifest."""
    files, texts = {"graph.json": _json(graph)}, [f'"facts": {json.dumps(facts)}']
    for name, section in sections.items():
        tensors: dict[str, Tensor] = {}
        try:
            state = _encode_state(section["state"], tensors)
            if _depth(state) > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} deep")
            texts.append(f'"{name}": {json.dumps({**section, "state": state}, allow_nan=False)}')
            if tensors:
                files[f"{name}.safetensors"] = safetensors.torch.save(_own(tensors))
        except (ValueError, TypeError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            raise ConfigError(f"the {name} cannot be saved: {error}", key=name) from error
    return {**files, "state.json": ("{" + ", ".join(texts) + "}\n").encode()}


def _depth(data: Any) -> int:
    """Measure how deep lists and objects are nested, which is how deep the reader has to go down."""
    depth, level = 0, [data]
    while level:
        level = [
            part for item in level if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
        ]  # fmt: skip
        depth += 1
    return depth


def _encode_state(state: Any, tensors: dict[str, Tensor]) -> Any:
    """Encode a state; tensors of a flat ``state_dict()`` keep its names, so that the file is of use by itself."""
    if isinstance(state, Mapping) and all(type(key) is str and not key.startswith("$") for key in state):
        return {key: encode(value, key, tensors) for key, value in state.items()}
    return encode(state, "state", tensors)


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, contiguous, no two in one memory."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().resolve_neg().contiguous()
        if here.data_ptr() in seen or here.untyped_storage().nbytes() != here.nbytes:
            here = here.clone()
        seen.add(here.data_ptr())
        result[name] = here
    return result


def _json(data: Any) -> bytes:
    return (json.dumps(data, allow_nan=False) + "\n").encode()


def _write_all(folder: Path, files: dict[str, bytes], facts: dict[str, Any], keep: int) -> Path:
    current, before = folder, numbered(folder)
    incoming: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        made = folder / f"{INCOMING}{os.getpid()}-{secrets.token_hex(4)}"
        made.mkdir()
        incoming = made
        for name, data in {**files, MANIFEST: _manifest(files, facts)}.items():
            current = made / name
            _write(current, data)
        current = folder
        _flush(made)
        final = _rename(folder, made)
        incoming = None
        _flush(folder)
    except OSError as error:
        still = f" The checkpoint before it, {before[-1]}, is untouched." if before else ""
        where = folder / current.name if current != folder else folder
        raise CheckpointError(
            f"the checkpoint cannot be written to {where}: {error.strerror or error}. Free some space, or give a "
            f"folder that can be written to.{still}",
            path=where,
        ) from error
    finally:
        if incoming is not None:
            shutil.rmtree(incoming, ignore_errors=True)
    _prune(folder, keep)
    return final


def _manifest(files: dict[str, bytes], facts: dict[str, Any]) -> bytes:
    listed = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    manifest = {"format": FORMAT, "version": VERSION, "torch": torch.__version__, **facts, "files": listed}
    return (json.dumps({**manifest, "sha256": digest(manifest)}, indent=1) + "\n").encode()


def digest(manifest: dict[str, Any]) -> str:
    """Digest a manifest without its own digest."""
    plain = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush(folder: Path) -> None:
    """Flush a folder's own entries, where the system has that."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _rename(folder: Path, made: Path) -> Path:
    taken = numbered(folder)
    number = int(taken[-1].name.split("-")[1]) + 1 if taken else 0
    final = folder / f"checkpoint-{number:06d}"
    patiently(lambda: os.rename(made, final))
    return final


def numbered(folder: Path) -> list[Path]:
    """List the complete checkpoints, oldest first."""
    try:
        found = [(int(match[1]), path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    except OSError:
        return []
    return [path for _, path in sorted(found)]


def _prune(folder: Path, keep: int) -> None:
    """Rename before removing: what has the name of a checkpoint is always whole."""
    for path in numbered(folder)[:-keep]:
        away = folder / f"{OUTGOING}{path.name}-{secrets.token_hex(4)}"
        try:
            os.rename(path, away)
        except OSError:
            continue
        shutil.rmtree(away, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what an interrupted save or removal has left."""
    for path in folder.iterdir():
        if path.name.startswith((INCOMING, OUTGOING)):
            shutil.rmtree(path, ignore_errors=True)
