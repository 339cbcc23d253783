"""Make an initializer of a line of text: ``NAME`` or ``NAME:option=value,option=value``.

>>> make_initializer("normal:std=0.1,seed=3").std
0.1
>>> type(make_initializer("forward:fallback=zero").fallback).__name__
'Zero'
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import networkx as nx

from pcgraph.errors import ConfigError, unknown_name
from pcgraph.initializers import Average, Equilibrium, Forward, Initializer, Memory, Normal, Null, Zero
from pcgraph.model import PCNetwork
from pcgraph.topology import Report, Verdict

__all__ = [
    "INITIALIZERS",
    "literal",
    "make_initializer",
    "name_and_options",
    "node_named",
    "nodes_named",
    "require_known_options",
    "verdict_on",
]

INITIALIZERS: dict[str, type[Initializer]] = {
    "zero": Zero,
    "normal": Normal,
    "null": Null,
    "forward": Forward,
    "average": Average,
    "memory": Memory,
    "equilibrium": Equilibrium,
}
"""The command line knows initializers by these names."""

NODES = {"by", "nodes", "observed", "release"}
"""The value of these options is a node, or several joined by ``+``."""


def node_named(graph: nx.DiGraph, text: str) -> Hashable:
    """Find the node that a person calls `text`: the string itself, or one whose ``str`` it is; else return the text."""
    if text in graph:
        return text
    return next((node for node in graph if str(node) == text), text)


def name_and_options(text: str, what: str = "initializer", key: str = "init") -> tuple[str, dict[str, str]]:
    """Split ``"normal:std=0.1,seed=3"`` into its name and its options.

    Parameters
    ----------
    text : str
    what, key : str
        What it describes, in words and as a setting, for the messages.

    Raises
    ------
    ConfigError
        An option without a value, or given twice.
    """
    name, colon, rest = text.strip().partition(":")
    options: dict[str, str] = {}
    for item in rest.split(",") if colon else ():
        option, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not option or not value:
            raise ConfigError(f"options of the {what} are written NAME:option=value,… (found {text!r})", key=key)
        option = option.replace("-", "_")
        if option in options:
            raise ConfigError(f"the option {option!r} stands twice in {text!r}", key=key)
        options[option] = value
    return name.strip().lower().replace("_", "-"), options


def make_initializer(text: str, net: PCNetwork | None = None) -> Initializer:
    """Make the initializer that `text` describes.

    Parameters
    ----------
    text : str
        A name, and options of the class of that name. An initializer among the options is named only.
    net : PCNetwork, optional
        For Memory, which takes the network, and for node names that are no strings.

    Raises
    ------
    ConfigError
        An unknown name or option, with the nearest one, or a value that the class refuses.
    """
    name, options = name_and_options(text)
    if name not in INITIALIZERS:
        raise ConfigError(unknown_name("initializer", name, INITIALIZERS), key="init")
    kind = INITIALIZERS[name]
    require_known_options(name, options, kind)
    arguments = {key: _value(kind, key, value, net) for key, value in options.items()}
    if kind is Memory:
        if net is None:
            raise ConfigError("memory is made for a network; here there is only a graph", key="init")
        arguments["net"] = net
    if kind is Equilibrium and "release" not in arguments:
        raise ConfigError(
            "equilibrium needs the targets that its first phase releases, as in equilibrium:release=y", key="release"
        )
    try:
        return kind(**arguments)
    except TypeError as problem:
        raise ConfigError(f"cannot make the initializer {text!r}: {problem}", key="init") from problem


def require_known_options(name: str, options: Iterable[str], kind: Callable[..., Any]) -> None:
    """Refuse an option that the class does not take, with the nearest that it does."""
    known = [parameter for parameter in inspect.signature(kind).parameters if parameter != "net"]
    for key in options:
        if key not in known:
            none = f"{name} takes no options (found {key!r})"
            raise ConfigError(unknown_name(f"option of {name}", key, known) if known else none, key=key)


def literal(text: str) -> Any:
    """Read a number, or whatever else Python reads in `text`; else return the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _value(kind: type[Initializer], key: str, text: str, net: PCNetwork | None) -> Any:
    if key in NODES:
        names = [node_named(net.graph, part) if net is not None else part for part in text.split("+")]
        return names[0] if key == "by" else names
    if "Initializer" in str(inspect.signature(kind).parameters[key].annotation):
        return make_initializer(text, net)
    return literal(text)


def verdict_on(text: str, report: Report) -> Verdict:
    """Give the verdict on the initializer that `text` describes, from a graph alone."""
    name, options = name_and_options(text)
    if name == "memory" and not options:
        return report.verdicts["memory"]
    return report.verdict(make_initializer(text))


def nodes_named(nodes: Iterable[str], graph: nx.DiGraph) -> list[Hashable]:
    """Find the nodes that a person called so, several joined by commas."""
    return [node_named(graph, part.strip()) for text in nodes for part in text.split(",") if part.strip()]
