"""The files of a checkpoint are made and written; it gets its name when all of them are there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pcgraph.errors import CheckpointError, ConfigError
from pcgraph.serialization import encode
from pcgraph.serialization.files import patiently

__all__ = [
    "FORMAT", "MANIFEST", "NAME", "VERSION", "Incoming", "digest", "files_of", "numbered", "state_of",
    "tensors_file",
]  # fmt: skip

FORMAT, VERSION = "pcgraph.checkpoint", 2
MANIFEST = "manifest.json"
NAME = re.compile(r"checkpoint-(\d{6,})")
INCOMING, OUTGOING = ".incoming-", ".outgoing-"
DEEPEST = 100
"""Levels of lists and mappings that a state may have."""


def state_of(name: str, part: Any) -> dict[str, Any]:
    if isinstance(part, type) or not callable(getattr(part, "state_dict", None)):
        raise ConfigError(f"the {name} cannot be saved: a {type(part).__name__} has no state_dict()", key=name)
    return {"class": type(part).__name__, "state": part.state_dict()}


def files_of(
    graph: dict[str, Any], sections: Mapping[str, dict[str, Any]], facts: dict[str, Any],
    elsewhere: Mapping[str, frozenset[str]] | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """Make the contents of all files but the manifest, without the tensors that are written `elsewhere`."""
    files, texts = {"graph.json": _json(graph)}, [f'"facts": {json.dumps(facts)}']
    for name, section in sections.items():
        tensors: dict[str, Tensor] = {}
        try:
            state = _encode_state(section["state"], tensors)
            if _depth(state) > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} deep")
            texts.append(f'"{name}": {json.dumps({**section, "state": state}, allow_nan=False)}')
            here = {key: t for key, t in tensors.items() if key not in (elsewhere or {}).get(name, ())}
            if here:
                files[f"{name}.safetensors"] = tensors_file(here)
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


def tensors_file(tensors: dict[str, Tensor]) -> bytes:
    """Make the contents of a file of tensors."""
    return safetensors.torch.save(_own(tensors))


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


class Incoming:
    """A checkpoint comes into being under a temporary name, and gets its own when it is complete.

    Parameters
    ----------
    folder : Path
        Of the checkpoints; it is made if need be.
    name : str, optional
        That of an incoming checkpoint which another process has begun, and this one writes into.

    Raises
    ------
    CheckpointError
        It cannot be written; those before it are untouched. This holds for all that it does.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        self.folder, self.name = folder, name or f"{INCOMING}{os.getpid()}-{secrets.token_hex(4)}"
        self.before, self.path = numbered(folder), folder / self.name
        if name is None:
            with self._refusing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _sweep(folder)
                self.path.mkdir()
        elif not self.path.is_dir():
            raise CheckpointError(
                f"the checkpoint cannot be written to {folder}: this process does not see there what rank 0 has begun. "
                "Give a folder that all ranks share.",
                path=folder,
            )

    def write(self, files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
        """Write files, and return what the manifest says of them."""
        for name, data in files.items():
            with self._refusing(self.folder / name):
                _write(self.path / name, data)
        return {n: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()}

    def complete(self, listed: Mapping[str, Any], facts: Mapping[str, Any], keep: int) -> Path:
        """Write the manifest of all `listed` files, give the checkpoint its name, and remove the oldest."""
        self.write({MANIFEST: _manifest(listed, facts)})
        with self._refusing(self.folder):
            _flush(self.path)
            final = _rename(self.folder, self.path)
            _flush(self.folder)
        _prune(self.folder, keep)
        return final

    def drop(self) -> None:
        """Remove it, where it was not completed."""
        shutil.rmtree(self.path, ignore_errors=True)

    @contextmanager
    def _refusing(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            still = f" The checkpoint before it, {self.before[-1]}, is untouched." if self.before else ""
            raise CheckpointError(
                f"the checkpoint cannot be written to {folder}: {error.strerror or error}. Free some space, or give a "
                f"folder that can be written to.{still}",
                path=folder,
            ) from error


def _manifest(listed: Mapping[str, Any], facts: Mapping[str, Any]) -> bytes:
    version = VERSION if "ranks" in facts else 1  # of one process, older versions read it as well
    manifest = {"format": FORMAT, "version": version, "torch": torch.__version__, **facts, "files": dict(listed)}
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
