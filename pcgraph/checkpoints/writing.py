"""Writing checkpoints: all or nothing."""

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

import safetensors.torch
import torch
from torch import Tensor

from pcgraph.checkpoints.generators import generators_state
from pcgraph.errors import CheckpointError, ConfigError, GraphError, PCGraphWarning
from pcgraph.initializers import Initializer
from pcgraph.model import PCNetwork
from pcgraph.serialization import Unsaveable, encode, graph_to_data

__all__ = ["FORMAT", "MANIFEST", "NAME", "VERSION", "digest", "numbered", "save"]

FORMAT, VERSION = "pcgraph.checkpoint", 1
MANIFEST = "manifest.json"
NAME = re.compile(r"checkpoint-(\d{6,})")
INCOMING, OUTGOING = ".incoming-", ".outgoing-"


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
        It cannot be written (a full disk, a read-only folder); `path` is the file. The checkpoints before it are
        untouched.
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
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise ConfigError(f"keep is a positive integer (found {keep!r})", key="keep")
    parts = {"optimizer": optimizer, "initializer": initializer, "loader": loader, "scheduler": scheduler}
    sections = {name: _state_of(name, part) for name, part in parts.items() if part is not None}
    sections["network"] = {"state": dict(net.state_dict())}
    sections["generators"] = {"state": generators_state(net.device)}
    sections["extra"] = {"state": extra}
    facts = {"dtype": str(net.dtype).removeprefix("torch."), "training": net.training}
    files = _files(_graph_data(net), sections, facts)
    return _write_all(Path(folder), files, {"step": step, "epoch": epoch}, keep)


def _state_of(name: str, part: Any) -> dict[str, Any]:
    if not callable(getattr(part, "state_dict", None)):
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
    """The contents of all files but the manifest."""
    files = {"graph.json": _json(graph)}
    data: dict[str, Any] = {"facts": facts}
    for name, section in sections.items():
        tensors: dict[str, Tensor] = {}
        try:
            state = _encode_state(section["state"], tensors)
        except Unsaveable as error:
            raise ConfigError(f"the {name} cannot be saved: {error}", key=name) from error
        data[name] = {**section, "state": state}
        if tensors:
            files[f"{name}.safetensors"] = safetensors.torch.save(_own(tensors))
    return {**files, "state.json": _json(data)}


def _encode_state(state: Any, tensors: dict[str, Tensor]) -> Any:
    """Tensors of a flat ``state_dict()`` keep its names, so that the file is of use by itself."""
    if isinstance(state, Mapping) and all(type(key) is str and not key.startswith("$") for key in state):
        return {key: encode(value, key, tensors) for key, value in state.items()}
    return encode(state, "state", tensors)


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two in one memory."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
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
    """Of a manifest without its own digest."""
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
    os.rename(made, final)
    return final


def numbered(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
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
