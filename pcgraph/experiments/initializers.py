"""Make an initializer of a line of text: ``NAME`` or ``NAME:option=value,option=value``.

>>> make_initializer("normal:std=0.1,seed=3").std
0.1
>>> type(make_initializer("forward:fallback=zero").fallback).__name__
'Zero'
"""

from __future__ import annotations

from functools import partial
from typing import Any

import networkx as nx

from pcgraph.errors import ConfigError, unknown_name
from pcgraph.experiments.machine import within_memory
from pcgraph.experiments.text import class_named, name_and_options, nodes_named, plain_value
from pcgraph.initializers import Amortized, Average, Equilibrium, Forward, Initializer, Memory, Normal, Null, Zero
from pcgraph.model import PCNetwork
from pcgraph.topology import Report, Verdict

__all__ = ["INITIALIZERS", "make_initializer", "verdict_on"]

INITIALIZERS: dict[str, type[Initializer]] = {
    "zero": Zero,
    "normal": Normal,
    "null": Null,
    "forward": Forward,
    "average": Average,
    "memory": Memory,
    "equilibrium": Equilibrium,
    "amortized": Amortized,
}
"""The command line knows initializers by these names."""

NEEDED: dict[type[Initializer], tuple[str, str]] = {
    Equilibrium: ("release", "the targets that its first phase releases, as in equilibrium:release=y"),
    Amortized: ("given", "the clamped node from which it guesses, as in amortized:given=x"),
}
"""What an initializer cannot do without, by the name of the option."""


def make_initializer(text: str, on: PCNetwork | nx.DiGraph | None = None) -> Initializer:
    """Make the initializer that `text` describes.

    Parameters
    ----------
    text : str
        A name, and options of the class of that name. An initializer among the options is named only; several nodes
        are joined by ``+``.
    on : PCNetwork or nx.DiGraph, optional
        The network, which Memory and Amortized take, or the graph; node names are looked up in it.

    Raises
    ------
    ConfigError
        An unknown name or option, with the nearest one, or a value that the class refuses.
    """
    name, arguments = class_named(text, "initializer", "init", INITIALIZERS, partial(_value, on))
    kind = INITIALIZERS[name]
    if kind in (Memory, Amortized):
        if not isinstance(on, PCNetwork):
            raise ConfigError(f"{name} is made for a network; here there is only a graph", key="init")
        arguments["net"] = on
    needed, what = NEEDED.get(kind, ("", ""))
    if needed and needed not in arguments:
        raise ConfigError(f"{name} needs {what}", key=needed)
    with within_memory(f"the initializer {text}", "init"):
        return kind(**arguments)


def _value(on: PCNetwork | nx.DiGraph | None, types: set[str], key: str, text: str) -> Any:
    if "Initializer" in types:
        return make_initializer(text, on)
    if not types & {"Node", "Iterable[Node]"}:
        return plain_value(types, key, text)
    graph = on.graph if isinstance(on, PCNetwork) else nx.DiGraph() if on is None else on
    nodes = nodes_named(graph, text, "+")
    if "None" in types and nodes == ["none"] and "none" not in graph:
        return None
    strange = [node for node in nodes if on is not None and node not in graph]
    if strange:
        raise ConfigError(f"{key}: {unknown_name('node', strange[0], map(str, graph))}", key=key)
    if not nodes or ("Node" in types and len(nodes) != 1):
        needed = "one node" if "Node" in types else "a node, or several joined by +"
        raise ConfigError(f"{key} is {needed} (found {text!r})", key=key)
    return nodes[0] if "Node" in types else nodes


def verdict_on(text: str, report: Report, graph: nx.DiGraph) -> Verdict:
    """Give the verdict on the initializer that `text` describes, from a graph alone."""
    name, options = name_and_options(text, "initializer", "init")
    if name == "memory" and not options:
        return report.verdicts["memory"]
    if name in ("memory", "amortized"):
        return report.verdict(make_initializer(text, PCNetwork(graph)))
    return report.verdict(make_initializer(text, graph))
