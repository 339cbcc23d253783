"""Write graphs: turn a declaration into node-link data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from torch import nn

from pcgraph import energies, transforms
from pcgraph.activations import Activation
from pcgraph.energies import Energy
from pcgraph.errors import GraphError
from pcgraph.serialization.files import write_whole
from pcgraph.serialization.values import Unsaveable, encode, kind_of
from pcgraph.transforms import Transform

__all__ = ["RESERVED", "VERSION", "edges_of", "graph_to_data", "show", "write_graph"]

VERSION = 1
RESERVED = ("id", "source", "target", "key")


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
        {"id": _encode_name(v, f"the name of node {v!r}", v), **writer.attributes(data, f"node {v!r}", v)}
        for v, data in graph.nodes(data=True)
    ]
    edges = [{**writer.ends(where), **writer.attributes(data, show(where), where)} for where, data in edges_of(graph)]
    return {
        "format": "pcgraph.graph", "version": VERSION, "directed": True, "multigraph": graph.is_multigraph(),
        "graph": writer.attributes(graph.graph, "the graph", None), "nodes": nodes, "edges": edges,
    }  # fmt: skip


def write_graph(path: str | Path, graph: nx.DiGraph) -> None:
    """Write a declaration as node-link JSON.

    Raises
    ------
    GraphError
        See :func:`graph_to_data`; nothing is written then.
    DataError
        The file cannot be written; what was there before is still there.
    """
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
    if isinstance(name, tuple) and type(name) is tuple:
        return [_encode_name(part, what, where) for part in name]
    if isinstance(name, np.generic):
        name = name.item()
    if type(name) in (str, bool, int) or name is None or (type(name) is float and math.isfinite(name)):
        return name
    raise GraphError(
        f"{what} cannot be saved: it is a {kind_of(name)}; use strings, numbers or tuples of them "
        "(nx.relabel_nodes gives nodes other names)",
        where=where,
        found=name,
    )


class _Writer:
    """Writes attributes, and knows the modules that stand in several places."""

    def __init__(self, graph: nx.DiGraph) -> None:
        values = [v for _, data in graph.nodes(data=True) for v in data.values()]
        values += [v for _, data in edges_of(graph) for v in data.values()]
        times = Counter(id(v) for v in values if isinstance(v, nn.Module))
        shared = [i for i, count in times.items() if count > 1]
        self.instances = {i: k for k, i in enumerate(shared)}

    def ends(self, where: tuple[Any, ...]) -> dict[str, Any]:
        text = show(where)
        names = {"source": where[0], "target": where[1], **({"key": where[2]} if len(where) == 3 else {})}
        return {k: _encode_name(v, f"the {k} of {text}", where) for k, v in names.items()}

    def attributes(self, data: Mapping[Any, Any], what: str, where: Any) -> dict[str, Any]:
        result = {}
        for key, value in data.items():
            text = f"the attribute {key!r} of {what}"
            if type(key) is not str or key in RESERVED or key.startswith("$"):
                raise GraphError(f"{text} cannot be saved under this name: rename it", where=where, found=key)
            result[key] = self._attribute(key, value, text, where)
        return result

    def _attribute(self, key: str, value: Any, text: str, where: Any) -> Any:
        try:
            if isinstance(value, Activation):
                if not value.named:
                    raise Unsaveable(key, value.function)
                return value.name
            if isinstance(value, nn.Module):
                return self._module(value)
            if key == "shape" and isinstance(value, tuple | list):
                return [encode(size, key) for size in value]
            if key == "share":
                return _encode_name(value, text, where)
            return encode(value, key)
        except Unsaveable as error:
            raise GraphError(f"{text} cannot be saved: {error}. {_advice(key)}", where=where, found=value) from error
        except GraphError as error:
            if error.where is not None:
                raise
            raise GraphError(f"{text} cannot be saved: {error}", where=where, found=value) from error

    def _module(self, value: nn.Module) -> dict[str, Any]:
        if isinstance(value, Energy):
            name, config = energies.name_of(value), value.config()
        elif isinstance(value, Transform):
            name, config = transforms.name_of(value), value.config()
        else:
            raise GraphError(
                f"it is a {kind_of(value)}, which says nothing of how it was made; wrap it in a Transform with a "
                "config(), and register that in pcgraph.transforms.TRANSFORMS"
            )
        number = self.instances.get(id(value))
        made = {"name": name, "config": encode(config, "config")}
        return made if number is None else {**made, "instance": number}


def _advice(key: str) -> str:
    if key == "activation":
        return "Use one of the names of pcgraph.activations.ACTIVATIONS."
    if key == "init":
        return (
            "Use one of the names of pcgraph.network.INITS; a function of your own gets one by "
            "pcgraph.network.INITS['mine'] = function."
        )
    if key in ("transform", "energy"):
        return f"Use a name, or a class of your own that is registered in pcgraph.{key.replace('y', 'ie')}s."
    return "Use numbers, strings, lists, tuples, mappings or tensors."
