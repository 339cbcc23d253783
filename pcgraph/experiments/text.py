"""Read what a person types on a command line: nodes, numbers, and ``NAME:option=value,option=value``.

The signs that separate, ``, : = +``, are a part of a node's name where a backslash stands before them: ``x\\,y`` is the
one node ``x,y``. A backslash itself is then written twice; before any other letter it is an ordinary sign.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import networkx as nx

from pcgraph.errors import ConfigError, unknown_name

__all__ = [
    "LARGEST",
    "as_typed",
    "class_named",
    "name_and_options",
    "node_named",
    "nodes_named",
    "plain_value",
    "split_at",
]

LARGEST, LARGEST_FLOAT = 2**62, 3.4e38
"""No number on a command line is larger: torch can still add to such an integer, and float32 hold such a number."""

SEPARATORS = ",:=+\\"


def split_at(separator: str, text: str, most: int = -1) -> list[str]:
    """Split `text` at a sign that no backslash precedes, at most so often; spaces around the parts are cut off.

    >>> split_at(",", r"a, b\\,c")
    ['a', 'b\\\\,c']
    """
    parts = [""]
    for sign in re.findall(r"\\.|.", text, re.DOTALL):
        if sign == separator and most != len(parts) - 1:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def as_typed(name: object) -> str:
    r"""Write a node's name as it is typed where several may stand.

    >>> print(as_typed("x,y"))
    x\,y
    """
    return re.sub(f"([{re.escape(SEPARATORS)}])", r"\\\1", str(name))


def unescaped(text: str) -> str:
    """Take away the backslashes before separators."""
    return re.sub(rf"\\([{re.escape(SEPARATORS)}])", r"\1", text)


def node_named(graph: nx.DiGraph, text: str) -> Hashable:
    """Find the node that a person calls `text`: the string itself, or one whose ``str`` it is; else return the text."""
    if text in graph:
        return text
    return next((node for node in graph if str(node) == text), text)


def nodes_named(graph: nx.DiGraph, text: str, separator: str = ",") -> list[Hashable]:
    """Find the nodes that a person has joined by a separator.

    Raises
    ------
    ConfigError
        A part is no node, while the whole text is one: its name holds the separator, which needs a backslash.
    """
    nodes = [node_named(graph, unescaped(part)) for part in split_at(separator, text) if part]
    if not all(node in graph for node in nodes) and node_named(graph, text) in graph:
        raise ConfigError(
            f"{separator!r} joins nodes, and not all of {', '.join(map(repr, nodes))} are nodes of the graph: for the "
            f"node {text!r} write {as_typed(text)}",
            key="node",
        )
    return nodes


def name_and_options(text: str, what: str, key: str) -> tuple[str, dict[str, str]]:
    """Split ``"normal:std=0.1,seed=3"`` into its name and its options.

    Parameters
    ----------
    text : str
    what, key : str
        What the text describes, in words and as an option of the command, for the messages.

    Raises
    ------
    ConfigError
        An option without a value, or given twice.
    """
    name, *rest = split_at(":", text, 1)
    options: dict[str, str] = {}
    for item in split_at(",", rest[0]) if rest else ():
        option, *value = split_at("=", item, 1)
        if not option or not value or not value[0]:
            raise ConfigError(f"options of the {what} are written NAME:option=value,… (found {text!r})", key=key)
        option = option.replace("-", "_")
        if option in options:
            raise ConfigError(f"the option {option!r} stands twice in {text!r}", key=key)
        options[option] = value[0]
    return name.lower().replace("_", "-"), options


def class_named(
    text: str, what: str, key: str, known: Mapping[str, Callable[..., Any]], read: Callable[[set[str], str, str], Any]
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """Find what the name in ``NAME:option=value,…`` stands for, and read the options that it is made with.

    Parameters
    ----------
    text, what, key
        As for :func:`name_and_options`.
    known : mapping
        Name -> class.
    read : callable
        Called with the types of an option, the option, and its text; returns its value.

    Returns
    -------
    str
        The name, which is among the known ones.
    dict
        Option -> value.

    Raises
    ------
    ConfigError
        An unknown name or option, with the nearest one.
    """
    name, options = name_and_options(text, what, key)
    if name not in known:
        raise ConfigError(unknown_name(what, name, known), key=key)
    types = option_types(name, options, known[name])
    return name, {option: read(types[option], option, value) for option, value in options.items()}


def option_types(name: str, options: Iterable[str], kind: Callable[..., Any]) -> dict[str, set[str]]:
    """Read the types of what a class takes from its signature, and refuse an option that it does not take.

    Raises
    ------
    ConfigError
        An unknown option; the message offers the nearest.
    """
    known = {
        k: set(str(p.annotation).split(" | ")) for k, p in inspect.signature(kind).parameters.items()
        if k != "net" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }  # fmt: skip
    for key in options:
        if key not in known:
            none = f"{name} takes no options (found {key!r})"
            raise ConfigError(unknown_name(f"option of {name}", key, known) if known else none, key=key)
    return known


def plain_value(kinds: set[str], key: str, text: str) -> Any:
    """Read a value of one of these types, given by their names.

    Raises
    ------
    ConfigError
        The text is nothing of the kind, or no text can be.

    Examples
    --------
    >>> plain_value({"float"}, "std", "0.1"), plain_value({"int", "None"}, "classes", "none")
    (0.1, None)
    """
    if "None" in kinds and text.lower() == "none":
        return None
    if "bool" in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kinds & {"int", "float"}:
        return _number(key, text, whole="float" not in kinds)
    if any(kind == "str" or kind.startswith("Literal[") for kind in kinds):
        return unescaped(text)
    needed = "true or false" if "bool" in kinds else "nothing that can be written on a command line; leave it out"
    raise ConfigError(f"{key} is {needed} (found {text!r})", key=key)


def _number(key: str, text: str, whole: bool) -> int | float:
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not abs(number) <= (LARGEST if whole else LARGEST_FLOAT):
        needed = f"a whole number, at most {LARGEST}" if whole else f"a number, at most {LARGEST_FLOAT:g}"
        raise ConfigError(f"{key} is {needed} (found {text!r})", key=key)
    return number
