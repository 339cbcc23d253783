"""Write graphs: turn a declaration into node-link data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import networkx as nx
import numpy as np
from torch import nn

from pcgraph import combines, energies, transforms
from pcgraph.activations import ACTIVATIONS, Activation
from pcgraph.combines import Combine
from pcgraph.energies import Energy
from pcgraph.errors import DataError, GraphError
from pcgraph.serialization.files import write_whole
from pcgraph.serialization.shapes import read_shape
from pcgraph.serialization.values import Unsaveable, encode
from pcgraph.transforms import GraphLayer, Transform

__all__ = ["MEANT", "RESERVED", "VERSION", "Kind", "edges_of", "graph_to_data", "show", "write_graph"]

VERSION = 1

Kind = Literal["node", "slot", "edge", "edge of a multigraph", "graph"]

MEANT: Mapping[Kind, frozenset[str]] = {
    "node": frozenset({"shape", "activation", "energy", "slots", "combine"}),
    "slot": frozenset({"activation", "energy"}),
    "edge": frozenset({"transform", "activation", "share"}),
    "edge of a multigraph": frozenset({"transform", "activation", "share"}),
    "graph": frozenset(),
}
"""Attributes that mean something to a network, and are written in a way of their own; all others are plain values."""

RESERVED: Mapping[Kind, tuple[str, ...]] = {
    "node": ("id",), "slot": (), "edge": ("source", "target"), "edge of a multigraph": ("source", "target", "key"),
    "graph": (),
}  # fmt: skip
"""Attributes that would be taken for what a row of the file is of."""


def graph_to_data(graph: nx.DiGraph) -> dict[str, Any]:
    """Turn a declaration into node-link data that JSON can hold.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph

    Raises
    ------
    GraphError
        Something in it has no name; the message says which attribute of which node or edge, and what to do.

    Examples
    --------
    >>> import pcgraph
    >>> graph_to_data(pcgraph.graphs.chain([4, 2]))["nodes"]
    [{'id': 'x', 'shape': 4}, {'id': 'y', 'shape': 2}]
    """
    if not isinstance(graph, nx.Graph) or not graph.is_directed():
        raise GraphError(f"a network is declared as nx.DiGraph or nx.MultiDiGraph (found {type(graph).__name__})")
    writer = _Writer(graph)
    nodes = [
        {"id": _encode_name(v, f"the name of node {v!r}", v), **writer.attributes(data, f"node {v!r}", v, "node")}
        for v, data in graph.nodes(data=True)
    ]
    edges = [
        {**writer.ends(where), **writer.attributes(data, show(where), where, writer.edge)}
        for where, data in edges_of(graph)
    ]
    return {
        "format": "pcgraph.graph", "version": VERSION, "directed": True, "multigraph": graph.is_multigraph(),
        "graph": writer.attributes(graph.graph, "the graph", None, "graph"), "nodes": nodes, "edges": edges,
    }  # fmt: skip


def write_graph(path: str | Path, graph: nx.DiGraph) -> None:
    """Write a declaration as node-link JSON.

    Parameters
    ----------
    path : str or Path
        Ends in ``.json``, by which :func:`read_graph` knows what it reads.
    graph : nx.DiGraph or nx.MultiDiGraph

    Raises
    ------
    GraphError
        See :func:`graph_to_data`; nothing is written then.
    DataError
        The file has another ending, or cannot be written; what was there before is still there.
    """
    if isinstance(path, str | Path) and Path(path).suffix != ".json":
        raise DataError(f"cannot write the graph {path}: a graph is written as JSON, to a file .json", path=path)
    text = json.dumps(graph_to_data(graph), indent=1, allow_nan=False) + "\n"
    write_whole(path, text.encode(), "the graph")


def edges_of(graph: nx.DiGraph) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Go through the edges as ``((u, v), attributes)``, or ``((u, v, key), attributes)`` of a multigraph."""
    rows = graph.edges(keys=True, data=True) if graph.is_multigraph() else graph.edges(data=True)
    for row in rows:
        yield tuple(row[:-1]), row[-1]


def show(where: tuple[Any, ...]) -> str:
    """Name an edge in words."""
    key = f" (key {where[2]!r})" if len(where) == 3 else ""
    return f"edge {where[0]!r} -> {where[1]!r}{key}"


def _encode_name(name: Any, what: str, where: Any) -> Any:
    """Encode a node's name or an edge's key: a str, bool, int, finite float, None or a tuple of them."""
    try:
        return _plain_name(name)
    except Unsaveable as error:
        raise GraphError(
            f"{what} cannot be saved: {error}; use strings, numbers or tuples of them (nx.relabel_nodes gives nodes "
            "other names).",
            where=where,
            found=name,
        ) from error


def _plain_name(name: Any) -> Any:
    if type(name) is tuple:
        return [_plain_name(part) for part in name]
    if isinstance(name, np.generic):
        name = name.item()
    if type(name) in (str, bool, int) or name is None or (type(name) is float and math.isfinite(name)):
        return encode(name, "it")
    raise Unsaveable("it", name)


class _Writer:
    """Writes attributes, and knows the modules that stand in several places."""

    def __init__(self, graph: nx.DiGraph) -> None:
        values = [v for _, data in graph.nodes(data=True) for part in (data, *_slots(data)) for v in part.values()]
        values += [v for _, data in edges_of(graph) for v in data.values()]
        times = Counter(id(v) for v in values if isinstance(v, nn.Module))
        shared = [i for i, count in times.items() if count > 1]
        self.instances = {i: k for k, i in enumerate(shared)}
        _require_own_parameters([v for v in values if isinstance(v, nn.Module)])
        self.edge: Kind = "edge of a multigraph" if graph.is_multigraph() else "edge"

    def ends(self, where: tuple[Any, ...]) -> dict[str, Any]:
        text = show(where)
        names = {"source": where[0], "target": where[1], **({"key": where[2]} if len(where) == 3 else {})}
        return {k: _encode_name(v, f"the {k} of {text}", where) for k, v in names.items()}

    def attributes(self, data: Mapping[Any, Any], what: str, where: Any, kind: Kind) -> dict[str, Any]:
        result = {}
        for key, value in data.items():
            text = f"the attribute {key!r} of {what}"
            if type(key) is not str or key in RESERVED[kind] or key.startswith("$"):
                raise GraphError(f"{text} cannot be saved under this name: rename it.", where=where, found=key)
            if key == "slots" and kind == "node" and isinstance(value, Mapping):
                result[key] = self._slots(value, what, where)
                continue
            try:
                encode(key, "its name")
                result[key] = self._attribute(key, value, kind)
            except (Unsaveable, GraphError) as error:
                raise GraphError(
                    f"{text} cannot be saved: {error}. {_remedy(key, value, kind)}", where=where, found=value
                ) from error
        return result

    def _slots(self, slots: Mapping[Any, Any], what: str, where: Any) -> dict[str, Any]:
        for name, said in slots.items():
            if type(name) is not str or name.startswith("$") or not isinstance(said, Mapping):
                raise GraphError(
                    f"the attribute 'slots' of {what} cannot be saved: it needs a mapping for each slot, by a name "
                    f"that does not begin with $ (found {name!r}: {said!r}).",
                    where=where,
                    found=slots,
                )
            try:
                encode(name, "its name")
            except Unsaveable as error:
                raise GraphError(f"a slot of {what} cannot be saved: {error}.", where=where, found=name) from error
        return {name: self.attributes(said, f"slot {name!r} of {what}", where, "slot") for name, said in slots.items()}

    def _attribute(self, key: str, value: Any, kind: Kind) -> Any:
        if key not in MEANT[kind]:
            return encode(value, key)
        if key == "shape":
            return _encode_shape(value)
        if key == "share":
            return _plain_name(value)
        if key == "activation" and callable(value):
            name = _activation_name(value)
            if name is not None:
                return name
            value = value.function if isinstance(value, Activation) else value
        if isinstance(value, nn.Module):
            return self._module(key, value)
        if isinstance(value, Mapping):  # which would otherwise be read as such a module
            raise Unsaveable(key, value)
        return encode(value, key, modules=True)

    def _module(self, key: str, value: nn.Module) -> dict[str, Any]:
        if isinstance(value, Energy | Transform | Combine):
            try:
                name = _name(value)
            except GraphError as error:
                raise Unsaveable(key, value) from error
            made = {"name": name, "config": encode(value.config(), "config", modules=True)}
        else:
            made = encode(value, key, modules=True)
        number = self.instances.get(id(value))
        return made if number is None else {**made, "instance": number}


def _require_own_parameters(modules: list[nn.Module]) -> None:
    """Refuse two modules with one parameter, which would be read as two."""
    owner: dict[int, nn.Module] = {}
    for module in modules:
        for name, parameter in module.named_parameters():
            first = owner.setdefault(id(parameter), module)
            if first is not module:
                raise GraphError(
                    f"{type(first).__name__} and {type(module).__name__} in this graph have one parameter, {name!r}, "
                    "and cannot be saved: they would be read with one each. Save the network with pcgraph.save, and "
                    "put its weights into one that the same code has made, with pcgraph.load(folder).restore(net=net).",
                    found=name,
                )


def _name(value: Energy | Transform | Combine) -> str:
    if isinstance(value, Energy):
        return energies.name_of(value)
    return combines.name_of(value) if isinstance(value, Combine) else transforms.name_of(value)


def _slots(data: Mapping[Any, Any]) -> list[Mapping[Any, Any]]:
    """List what a node says of each of its slots."""
    slots = data.get("slots")
    return [said for said in slots.values() if isinstance(said, Mapping)] if isinstance(slots, Mapping) else []


def _encode_shape(value: Any) -> Any:
    """Encode a shape, and refuse what would be read as another, or as none."""
    encoded = [encode(size, "shape") for size in value] if isinstance(value, tuple | list) else encode(value, "shape")
    read_shape(encoded)
    return encoded


def _activation_name(value: Any) -> str | None:
    """Find the name of an activation, also where its function alone is given, such as ``torch.tanh``."""
    if isinstance(value, Activation):
        return value.name if value.named else None
    return next((name for name, known in ACTIVATIONS.items() if known.function is value), None)


def _remedy(key: str, value: Any, kind: Kind) -> str:
    """Say what to do about a value that cannot be written."""
    if key == "init" and kind.startswith("edge"):
        return (
            "Use one of the names of pcgraph.network.INITS; a function of your own gets one by "
            "pcgraph.network.INITS['mine'] = function."
        )
    if key not in MEANT[kind] or key in ("shape", "share"):
        return "Use numbers, strings, lists, tuples, mappings or tensors."
    name = type(value).__name__
    if isinstance(value, GraphLayer):
        return (
            "Save the network with pcgraph.save, and put its weights into one that the same code has made, with "
            "pcgraph.load(folder).restore(net=net)."
        )
    if key == "activation":
        return (
            "Use a name of pcgraph.activations.ACTIVATIONS or a module of torch.nn, or give it a name there, as in "
            "ACTIVATIONS['mine'] = Activation('mine', function), and declare it by that name."
        )
    kinds = {"energy": (Energy, "energies.ENERGIES"), "combine": (Combine, "combines.COMBINES")}
    kind_of_it, place = kinds.get(key, (Transform, "transforms.TRANSFORMS"))
    base, own = kind_of_it.__name__, isinstance(value, kind_of_it)
    make = "Give it" if own else f"Write it as a pcgraph {base} with"
    return (
        f"{make} a config() that returns the arguments of its class, and register the class where it is saved and "
        f"where it is loaded, as in pcgraph.{place}['my_{key}'] = {name if own else 'MyClass'}."
    )
