"""Read graphs: node-link JSON and GraphML."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx
from torch import nn

from pcgraph import combines, energies, transforms
from pcgraph.arguments import require_path
from pcgraph.errors import DataError, GraphError
from pcgraph.serialization.shapes import read_shape
from pcgraph.serialization.values import decode
from pcgraph.serialization.writing import MEANT, RESERVED, VERSION, Kind, edges_of, show

__all__ = ["graph_from_data", "read_graph"]


def _decode_name(data: Any) -> Any:
    return tuple(_decode_name(part) for part in data) if isinstance(data, list) else data


def graph_from_data(data: Any) -> nx.DiGraph:
    """Make the graph that node-link data declares: the inverse of :func:`graph_to_data`, and more liberal.

    Parameters
    ----------
    data : dict
        With ``"nodes"`` (each with ``"id"``) and ``"edges"`` (or ``"links"``, each with ``"source"`` and
        ``"target"``). It is directed unless it says otherwise.

    Returns
    -------
    nx.DiGraph or nx.MultiDiGraph
        An ``nx.Graph`` if the data says that it is undirected, which :class:`pcgraph.PCNetwork` refuses.

    Raises
    ------
    GraphError
        The data is malformed; the message says where.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("nodes"), list):
        raise GraphError('node-link data has a list "nodes", as written by nx.node_link_data (found none)')
    version = data.get("version", VERSION) if data.get("format") == "pcgraph.graph" else VERSION
    if not isinstance(version, int) or version > VERSION:
        raise GraphError(f"it was written by a newer pcgraph (format {version!r}; this one reads up to {VERSION})")
    edges = data.get("edges", data.get("links", []))
    if not isinstance(edges, list):
        raise GraphError(f'"edges" is a list (found {type(edges).__name__})')
    multi, directed = bool(data.get("multigraph", False)), bool(data.get("directed", True))
    kind = (nx.MultiDiGraph if multi else nx.DiGraph) if directed else (nx.MultiGraph if multi else nx.Graph)
    reader = _Reader()
    graph = kind()
    graph.graph.update(reader.attributes(_mapping(data.get("graph", {}), "the graph"), "the graph", None, "graph"))
    for i, row in enumerate(data["nodes"]):
        _read_node(graph, reader, _mapping(row, f"nodes[{i}]"), i)
    for i, row in enumerate(edges):
        _read_edge(graph, reader, _mapping(row, f"edges[{i}]"), i)
    return graph


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise GraphError(f"{what} is an object (found {value!r})", found=value)
    return value


def _read_node(graph: nx.DiGraph, reader: _Reader, row: Mapping[str, Any], i: int) -> None:
    if "id" not in row:
        raise GraphError(f'nodes[{i}] needs an "id" (found {", ".join(row) or "nothing"})', found=row)
    node = _hashable(row["id"], f'the "id" of nodes[{i}]')
    if node in graph:
        raise GraphError(f"node {node!r} is declared twice (again in nodes[{i}])", where=node)
    rest = {k: v for k, v in row.items() if k != "id"}
    graph.add_node(node)
    graph.nodes[node].update(reader.attributes(rest, f"node {node!r}", node, "node"))


def _read_edge(graph: nx.DiGraph, reader: _Reader, row: Mapping[str, Any], i: int) -> None:
    for end in ("source", "target"):
        if end not in row:
            found = ", ".join(row) or "nothing"
            raise GraphError(f'edges[{i}] needs a "source" and a "target" (found {found})', found=row)
        if _hashable(row[end], f"the {end} of edges[{i}]") not in graph:
            raise GraphError(f"edges[{i}] has the {end} {row[end]!r}, which is no node", found=row[end])
    u, v = _decode_name(row["source"]), _decode_name(row["target"])
    where: tuple[Any, ...] = (u, v)
    kind: Kind = "edge"
    if graph.is_multigraph():
        key = _hashable(row["key"], f"the key of edges[{i}]") if "key" in row else graph.new_edge_key(u, v)
        where, kind = (u, v, key), "edge of a multigraph"
    if graph.has_edge(*where):
        need = "" if graph.is_multigraph() else '; parallel edges need "multigraph": true'
        raise GraphError(f"the {show(where)} comes twice (again in edges[{i}]){need}", where=where)
    rest = {k: v for k, v in row.items() if k not in RESERVED[kind]}
    graph.add_edge(*where)
    graph.edges[where].update(reader.attributes(rest, show(where), where, kind))


def _hashable(data: Any, what: str) -> Any:
    name = _decode_name(data)
    try:
        hash(name)
    except TypeError:
        raise GraphError(f"{what} is a string, a number or a list of them (found {data!r})", found=data) from None
    return name


class _Reader:
    """Reads attributes; one instance that stands in several places is made once."""

    def __init__(self) -> None:
        self.instances: dict[tuple[str, Any], Any] = {}

    def attributes(self, data: Mapping[str, Any], what: str, where: Any, kind: Kind) -> dict[str, Any]:
        result = {}
        for key, value in data.items():
            text = f"the attribute {key!r} of {what}"
            slots = key == "slots" and kind == "node" and isinstance(value, Mapping)
            if slots and not any(name.startswith("$") for name in value):  # else it is another value, as written
                result[key] = self._slots(value, what, where)
                continue
            try:
                result[key] = self._attribute(key, value) if key in MEANT[kind] else decode(value)
            except READING as error:
                raise GraphError(f"{text} cannot be read: {error}", where=where, found=value) from error
        return result

    def _slots(self, slots: Mapping[str, Any], what: str, where: Any) -> dict[str, Any]:
        result = {}
        for name, said in slots.items():
            text = f"slot {name!r} of {what}"
            result[name] = self.attributes(_mapping(said, text), text, where, "slot")
        return result

    def _attribute(self, key: str, value: Any) -> Any:
        if key == "shape":
            return read_shape(value)
        if key == "share":
            return _decode_name(value)
        if not isinstance(value, Mapping):
            return decode(value, modules=True)
        number = value.get("instance")
        if number is None or (key, number) not in self.instances:
            if "name" in value and key in MAKERS:
                made = MAKERS[key](value["name"], decode(value.get("config", {}), modules=True))
            else:
                made = decode({k: v for k, v in value.items() if k != "instance"}, modules=True)
            if number is None:
                return made
            self.instances[key, number] = made
        return self.instances[key, number]


READING = (GraphError, LookupError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError)
"""What goes wrong where data are not of the form that is written."""

MAKERS: dict[str, Callable[[str, dict[str, Any]], nn.Module]] = {
    "combine": combines.from_config,
    "energy": energies.from_config,
    "transform": transforms.from_config,
}


def read_graph(path: str | Path) -> nx.DiGraph:
    """Read a declaration from a file.

    Parameters
    ----------
    path : str or Path
        Node-link JSON (``.json``) or GraphML (``.graphml``, ``.xml``). GraphML holds plain values only: shapes may be
        text (see :func:`read_shape`); slots, a transform or an energy with settings, a prior of several numbers, or a
        nested value, are the JSON of them as text.

    Returns
    -------
    nx.DiGraph or nx.MultiDiGraph

    Raises
    ------
    DataError
        There is no such file, it cannot be read, or it is no graph; the message says where.
    """
    path = require_path(path, "path")
    try:
        if path.suffix == ".json":
            return graph_from_data(json.loads(path.read_text(encoding="utf-8")))
        if path.suffix in (".graphml", ".xml"):
            return _from_graphml(nx.read_graphml(path))
    except OSError as error:
        raise DataError(f"the graph {path} cannot be read: {error.strerror or error}", path=path) from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON: {error}", path=path) from error
    except GraphError as error:
        raise DataError(f"{path} is no graph that pcgraph can read: {error}", path=path) from error
    except (nx.NetworkXException, SyntaxError, *READING, RecursionError) as error:
        raise DataError(f"{path} is malformed: {type(error).__name__}: {error}", path=path) from error
    raise DataError(f"a graph is a .json (node-link) or .graphml file (found {path.name!r})", path=path)


def _from_graphml(graph: nx.DiGraph) -> nx.DiGraph:
    """Turn GraphML's plain values, and its defaults, into the attributes of a declaration."""
    reader = _Reader()
    by_node, by_edge = graph.graph.pop("node_default", {}), graph.graph.pop("edge_default", {})
    for node, data in graph.nodes(data=True):
        if "id" in data:  # igraph's own numbering, beside the name that every node of GraphML has
            data["graphml_id"] = data.pop("id")
        data.update(reader.attributes(_typed({**by_node, **data}), f"node {node!r}", node, "node"))
    if graph.is_directed():
        kind: Kind = "edge of a multigraph" if graph.is_multigraph() else "edge"
        for where, data in edges_of(graph):
            data.update(reader.attributes(_typed({**by_edge, **data}), show(where), where, kind))
    return graph


def _typed(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _from_text(key, value) if isinstance(value, str) else value for key, value in data.items()}


def _from_text(key: str, value: str) -> Any:
    if key == "bias" and value.lstrip()[:1] == "[":
        return json.loads(value)
    if key in ("bias", "trainable") and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if key in ("precision", "prior", "scale", "slots") or (key in MAKERS and value.lstrip()[:1] in ("{", "[")):
        return json.loads(value)
    return value
