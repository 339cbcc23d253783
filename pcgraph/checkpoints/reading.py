"""Reading checkpoints: whole, or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pcgraph.checkpoints.generators import set_generators
from pcgraph.checkpoints.writing import FORMAT, MANIFEST, NAME, VERSION, digest, numbered
from pcgraph.errors import CheckpointError, GraphError
from pcgraph.initializers import Initializer
from pcgraph.model import PCNetwork
from pcgraph.serialization import decode, graph_from_data, graph_to_data

__all__ = ["Checkpoint", "exists", "load"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that was read and found whole.

    Attributes
    ----------
    path : Path
    step, epoch : int
    extra : object
        What was given to :func:`save`.
    """

    path: Path
    step: int
    epoch: int
    _graph: dict[str, Any] = field(repr=False)
    _data: dict[str, Any] = field(repr=False)
    _tensors: dict[str, dict[str, Tensor]] = field(repr=False)

    @property
    def parts(self) -> frozenset[str]:
        """What is in it: "network", "optimizer", "initializer", ..."""
        return frozenset(self._data) - {"facts"}

    @cached_property
    def net(self) -> PCNetwork:
        """The network as it was, on the CPU.

        Raises
        ------
        CheckpointError
            Its graph could not be saved.
        """
        if "unsaved" in self._graph:
            raise CheckpointError(
                f"the graph is not in the checkpoint {self.path}: {self._graph['unsaved']} Make the network with the "
                "same code, and call restore(net=...).",
                path=self.path / "graph.json",
            )
        try:
            net = PCNetwork(graph_from_data(self._graph), dtype=getattr(torch, self._data["facts"]["dtype"]))
        except GraphError as error:
            raise CheckpointError(
                f"the graph of the checkpoint {self.path} cannot be made: {error}", path=self.path / "graph.json"
            ) from error
        self.restore(net=net)
        return net

    @property
    def extra(self) -> Any:
        """What was given to :func:`save`."""
        return self.state("extra")

    def state(self, part: str) -> Any:
        """The state of one part, as its ``state_dict()`` was.

        Raises
        ------
        CheckpointError
            It is not in the checkpoint.
        """
        if part not in self.parts:
            raise CheckpointError(
                f"the checkpoint {self.path} has no {part} (found {', '.join(sorted(self.parts))})", path=self.path
            )
        return decode(self._data[part]["state"], self._tensors.get(part, {}))

    def restore(
        self, *, net: PCNetwork | None = None, optimizer: Any = None, initializer: Initializer | None = None,
        loader: Any = None, scheduler: Any = None, generators: bool = False,
    ) -> None:  # fmt: skip
        """Put what was saved into these objects.

        Parameters
        ----------
        net, optimizer, initializer, loader, scheduler
            Made as those that were saved.
        generators : bool
            Also put the global random generators of torch, NumPy and Python where they were.

        Raises
        ------
        CheckpointError
            One of them was not saved, or does not fit what was saved.
        """
        if net is not None:
            self._check_graph(net)
            self._give("network", net)
            net.train(self._data["facts"]["training"])
        given = {"optimizer": optimizer, "initializer": initializer, "loader": loader, "scheduler": scheduler}
        for name, part in given.items():
            if part is not None:
                self._give(name, part)
        if generators:
            set_generators(self.state("generators"), "cpu" if net is None else net.device)

    def _give(self, name: str, part: Any) -> None:
        state = self.state(name)
        saved = self._data[name].get("class", type(part).__name__)
        try:
            if saved != type(part).__name__:
                raise TypeError(f"it is the state of a {saved}, not of a {type(part).__name__}")
            part.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise CheckpointError(
                f"the {name} of the checkpoint {self.path} does not fit: {error}", path=self.path / "state.json"
            ) from error

    def _check_graph(self, net: PCNetwork) -> None:
        if "unsaved" in self._graph:
            return
        try:
            other = _declared(graph_to_data(net.graph))
        except GraphError as error:
            raise CheckpointError(
                f"the checkpoint {self.path} is of another graph: {error}", path=self.path / "graph.json"
            ) from error
        mine = _declared(self._graph)
        if other != mine:
            raise CheckpointError(
                f"the checkpoint {self.path} is of another graph: {_difference(mine, other)}",
                path=self.path / "graph.json",
            )


def _declared(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the network is made of, by name, without metadata and in order."""
    known = ("shape", "activation", "bias", "energy", "precision", "prior", "transform", "trainable", "share")
    found: dict[str, dict[str, Any]] = {}
    for row in data["nodes"]:
        found[f"node {json.dumps(row['id'])}"] = {k: row[k] for k in known if k in row}
    for row in data["edges"]:
        name = f"edge {json.dumps(row['source'])} -> {json.dumps(row['target'])} {json.dumps(row.get('key', ''))}"
        found[name] = {k: row[k] for k in known if k in row}
    return found


def _difference(saved: dict[str, Any], given: dict[str, Any]) -> str:
    for name in saved:
        if name not in given:
            return f"the network lacks the {name}"
        if saved[name] != given[name]:
            return f"the {name} has {given[name]}, and had {saved[name]} when it was saved"
    more = [name for name in given if name not in saved]
    return f"the network has the {more[0]} besides" if more else "its nodes or edges come in another order"


def exists(folder: str | Path) -> bool:
    """Whether there is a checkpoint in `folder`, whole or not."""
    return (Path(folder) / MANIFEST).exists() or bool(numbered(Path(folder)))


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
    folder = Path(folder)
    if (folder / MANIFEST).exists() or NAME.fullmatch(folder.name):
        return _read(folder)
    found = numbered(folder)
    if not found:
        what = "there is no checkpoint in it" if folder.is_dir() else "there is no such folder"
        raise CheckpointError(f"no checkpoint can be read from {folder}: {what}", path=folder)
    try:
        return _read(found[-1])
    except CheckpointError as error:
        if len(found) > 1:
            raise CheckpointError(
                f"{error} The one before it is still there: pcgraph.load({str(found[-2])!r}).", path=error.path
            ) from error
        raise


def _read(path: Path) -> Checkpoint:
    manifest = _read_manifest(path)
    files = {name: _read_file(path / name, facts) for name, facts in manifest["files"].items()}
    current = path
    try:
        current = path / "graph.json"
        graph = json.loads(files["graph.json"])
        current = path / "state.json"
        data = json.loads(files["state.json"])
        tensors = {}
        for name in files:
            if name.endswith(".safetensors"):
                current = path / name
                tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(files[name])
    except (ValueError, KeyError, safetensors.SafetensorError) as error:
        raise _refused(current, f"it is malformed ({error})") from error
    return Checkpoint(path, manifest["step"], manifest["epoch"], graph, data, tensors)


def _refused(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint {path.parent} is refused because of {path.name}: {why}.", path=path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused(path, "it is missing" if isinstance(error, FileNotFoundError) else str(error)) from error


def _read_manifest(path: Path) -> dict[str, Any]:
    where = path / MANIFEST
    try:
        manifest = json.loads(_bytes(where))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ValueError("this is none of pcgraph's")
        version = manifest["version"]
        if isinstance(version, int) and version > VERSION:
            raise _refused(
                where, f"a newer pcgraph wrote it, in format {version}, and this one reads up to {VERSION}; upgrade"
            )
        if manifest.get("sha256") != digest(manifest):
            raise ValueError("its SHA-256 differs: it was altered")
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise _refused(where, f"it is no whole manifest ({error})") from error
    return manifest


def _read_file(path: Path, facts: dict[str, Any]) -> bytes:
    data = _bytes(path)
    if len(data) < facts["bytes"]:
        raise _refused(path, f"it is truncated ({len(data)} of {facts['bytes']} bytes)")
    if len(data) != facts["bytes"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise _refused(path, "it was altered: its SHA-256 is not the one in the manifest")
    return data
