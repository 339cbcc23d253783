"""Checkpoints are read from their files whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from pcgraph.arguments import require_count, require_flag, require_path, shown
from pcgraph.checkpoints.checkpoint import Checkpoint
from pcgraph.checkpoints.cutting import ROWS, Pieces
from pcgraph.checkpoints.fits import MALFORMED
from pcgraph.checkpoints.writing import FORMAT, MANIFEST, NAME, VERSION, digest, numbered
from pcgraph.errors import CheckpointError

__all__ = ["exists", "load"]

#: What a file of a checkpoint is called.
FILE = re.compile(r"[A-Za-z0-9_]{1,80}\.(json|safetensors)")
#: What one rank's file of a section is called, in a checkpoint of several.
OF_A_RANK = re.compile(r"([a-z]+)_\d{1,7}\.safetensors")
#: The largest step, epoch and size of a file; and that of a manifest.
LARGEST, LONGEST = 2**63 - 1, 2**24
#: So much of a file is read at once.
CHUNK = 2**22


def exists(folder: str | Path) -> bool:
    """Say whether there is a checkpoint in `folder`, whole or not."""
    folder = require_path(folder, "folder")
    return (folder / MANIFEST).exists() or bool(numbered(folder))


def load(folder: str | Path) -> Checkpoint:
    """Read the last checkpoint in `folder`, or the one that `folder` is, and check every byte of it.

    Raises
    ------
    CheckpointError
        There is none; a file is missing, truncated or altered; or a newer pcgraph wrote it. The message says which file
        and why, and which checkpoint is there before it.

    Examples
    --------
    ::

        checkpoint = pcgraph.load("runs/a")
        net = checkpoint.net
        optimizer = torch.optim.AdamW(net.parameters())
        checkpoint.restore(optimizer=optimizer, initializer=init)
    """
    folder = require_path(folder, "folder")
    if (folder / MANIFEST).exists() or NAME.fullmatch(folder.name):
        return _read(folder)
    while True:
        found = numbered(folder)
        if not found:
            what = "there is no checkpoint in it" if folder.is_dir() else "there is no such folder"
            raise CheckpointError(f"no checkpoint can be read from {folder}: {what}", path=folder)
        try:
            return _read(found[-1])
        except CheckpointError as error:
            if not found[-1].exists():
                continue  # a run that goes on has written others, and removed this one while it was being read
            if len(found) > 1:
                raise CheckpointError(
                    f"{error} The one before it is still there: pcgraph.load({str(found[-2])!r}).", path=error.path
                ) from error
            raise


def _read(path: Path) -> Checkpoint:
    manifest = _read_manifest(path)
    listed = manifest["files"]
    own = {name: match[1] for name in listed if "ranks" in manifest and (match := OF_A_RANK.fullmatch(name))}
    files = {name: _read_file(path, name, facts) for name, facts in listed.items() if name not in own}
    for name in own:
        _check_file(path, name, listed[name])
    current = path
    try:
        current = path / "graph.json"
        graph = _mapping(_parse(files["graph.json"]), "it")
        current = path / "state.json"
        data = _read_data(_parse(files["state.json"]))
        tensors = {}
        for name in files:
            if name.endswith(".safetensors"):
                current = path / name
                tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(files[name])
        pieces: dict[str, dict[str, list[tuple[torch.Tensor | None, torch.Tensor]]]] = {}
        for name, part in own.items():
            current = path / name
            found = safetensors.torch.load_file(current)  # it stays in the file until it is asked for
            for key in [key for key in found if not key.endswith(ROWS)]:
                pieces.setdefault(part, {}).setdefault(key, []).append((found.get(key + ROWS), found[key]))
        joined = {part: {key: Pieces(parts) for key, parts in each.items()} for part, each in pieces.items()}
    except (*MALFORMED, safetensors.SafetensorError) as error:
        raise _refused(current, f"it is malformed ({error})") from error
    for part, each in tensors.items():
        joined.setdefault(part, {}).update({key: Pieces([(None, tensor)]) for key, tensor in each.items()})
    return Checkpoint(path, manifest["step"], manifest["epoch"], graph, data, joined)


def _refused(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint {path.parent} is refused because of {path.name}: {why}.", path=path)


# -- what the files hold ----------------------------------------------------------------------------------------------


def _parse(text: bytes) -> Any:
    """Read JSON as it is written: bare NaN and Infinity never are."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _mapping(value: Any, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is an object (found {shown(value)})")
    return dict(value)


def _read_data(written: Any) -> dict[str, Any]:
    """Check what is no tensor, as far as it is not for the parts themselves to check."""
    data = _mapping(written, "it")
    facts = _mapping(data.get("facts"), '"facts"')
    dtype = getattr(torch, facts["dtype"], None) if isinstance(facts.get("dtype"), str) else None
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f'"dtype" is the name of one (found {shown(facts.get("dtype"))})')
    require_flag(facts.get("training"), '"training"')
    _texts(facts.get("rows", {}), '"rows"')
    for name, section in data.items():
        if name == "facts":
            continue
        if "state" not in _mapping(section, repr(name)):
            raise ValueError(f"{name!r} has no state")
        if not isinstance(section.get("class", ""), str):
            raise ValueError(f"the class of {name!r} is a name (found {shown(section['class'])})")
        _texts(section.get("parts", {}), '"parts"')
        for moved in section.get("parameters", []):
            _mapping(moved, "a parameter")
            lists = isinstance(moved["shape"], list) and isinstance(moved["keeps"], list)
            if not lists or not isinstance(moved["name"], str | None):
                raise ValueError(f"a parameter has a name, a shape and what is kept of it (found {shown(moved)})")
    return data


def _texts(value: Any, what: str) -> None:
    if not all(isinstance(text, str) for text in _mapping(value, what).values()):
        raise ValueError(f"{what} holds texts (found {shown(value)})")


# -- files ------------------------------------------------------------------------------------------------------------


def _bytes(path: Path, most: int) -> bytes:
    """Read a plain file that lies in its folder, and no more of it than is wanted."""
    try:
        if path.resolve().parent != path.parent.resolve():
            raise _refused(path, "it leads out of the folder")
        if not path.exists():
            raise _refused(path, "it is missing")
        if not path.is_file():
            raise _refused(path, "it is no plain file")
        with open(path, "rb") as stream:
            return stream.read(min(most, path.stat().st_size))  # room is made for as much as is asked for
    except CheckpointError:
        raise
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        raise _refused(path, str(error)) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    where = path / MANIFEST
    try:
        manifest = _mapping(_parse(_bytes(where, LONGEST)), "a manifest")
        if manifest.get("format") != FORMAT:
            raise ValueError("this is none of pcgraph's")
        version = manifest["version"]
        if isinstance(version, int) and version > VERSION:
            raise _refused(
                where, f"a newer pcgraph wrote it, in format {version}, and this one reads up to {VERSION}; upgrade"
            )
        if manifest.get("sha256") != digest(manifest):
            raise ValueError("its SHA-256 differs: it was altered")
        _check_manifest(manifest)
    except MALFORMED as error:
        raise _refused(where, f"it is no whole manifest ({error})") from error
    return manifest


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Refuse numbers that are no counts, and files outside of the folder or under no plain name, whoever signed it."""
    require_count(manifest["version"], "version", least=1)
    for key in ("step", "epoch"):
        require_count(manifest[key], key, most=LARGEST)
    files = _mapping(manifest["files"], '"files"')
    if "ranks" in manifest:
        require_count(manifest["ranks"], "ranks", least=1)
    missing = {"graph.json", "state.json"} - files.keys()
    if missing:
        raise ValueError(f"it does not name {sorted(missing)[0]}")
    for name, facts in files.items():
        if not FILE.fullmatch(name) or name == MANIFEST:
            raise ValueError(f"a checkpoint has no file {name!r}")
        require_count(_mapping(facts, f"what is said of {name}")["bytes"], "bytes", most=LARGEST)
        if not isinstance(facts["sha256"], str):
            raise ValueError(f"the SHA-256 of {name} is a text (found {shown(facts['sha256'])})")


def _check_file(folder: Path, name: str, facts: dict[str, Any]) -> None:
    """Check a file piece by piece, which may be larger than the memory."""
    path, done, found = folder / name, 0, hashlib.sha256()
    _bytes(path, 0)  # that it is a plain file of this folder
    try:
        with open(path, "rb") as stream:
            while piece := stream.read(CHUNK):
                found.update(piece)
                done += len(piece)
    except OSError as error:
        raise _refused(path, str(error)) from error
    _require_whole(path, done, found.hexdigest(), facts)


def _read_file(folder: Path, name: str, facts: dict[str, Any]) -> bytes:
    path = folder / name
    data = _bytes(path, facts["bytes"] + 1)
    _require_whole(path, len(data), hashlib.sha256(data).hexdigest(), facts)
    return data


def _require_whole(path: Path, size: int, found: str, facts: dict[str, Any]) -> None:
    if size < facts["bytes"]:
        raise _refused(path, f"it is truncated ({size} of {facts['bytes']} bytes)")
    if size != facts["bytes"] or found != facts["sha256"]:
        raise _refused(path, "it was altered: its SHA-256 is not the one in the manifest")
