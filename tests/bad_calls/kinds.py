"""The kinds of arguments, with the values that are bad for any of a kind, and those that are good."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import networkx as nx
import numpy as np
import torch

import pcgraph
from pcgraph.errors import ConfigError

__all__ = ["KINDS", "NONE", "NO_GRAPH", "NO_INITIALIZER", "NO_OBJECT", "NO_SHAPE", "Argument", "Kind"]

Errors = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Kind:
    """What is bad in the place of an argument of this kind, and what is good, by name."""

    bad: Mapping[str, Any]
    good: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Argument:
    """One argument of one public call.

    Attributes
    ----------
    name : str
        As in ``"SGD(lr=)"``.
    call : callable
        Makes the call with this value in the argument's place.
    kind : str
        A key of KINDS.
    error : type or tuple of types
        What a bad value is refused with.
    bad : mapping
        Values that are bad here besides.
    takes : tuple of str
        Names of values that are bad for the kind, and taken here.
    good : mapping
        Values that are taken besides.
    refuses : tuple of str
        Names of values that are good for the kind, and bad here.
    only_good : tuple of str or None
        Names of the good values that are tried; None for all.
    """

    name: str
    call: Callable[[Any], Any]
    kind: str
    error: type[Exception] | Errors = ConfigError
    bad: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    good: Mapping[str, Any] = field(default_factory=dict)
    refuses: tuple[str, ...] = ()
    only_good: tuple[str, ...] | None = None

    def bad_values(self) -> Iterable[tuple[str, Any]]:
        return ((n, v) for n, v in {**KINDS[self.kind].bad, **self.bad}.items() if n not in self.takes)

    def good_values(self) -> Iterable[tuple[str, Any]]:
        good = {**KINDS[self.kind].good, **self.good}
        chosen = good if self.only_good is None else self.only_good
        return ((n, v) for n, v in good.items() if n in chosen and n not in self.refuses)


class Broken:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise ValueError("no repr")


NO_NUMBER: dict[str, Any] = {
    "text": "1", "empty text": "", "bytes": b"1", "list": [1], "empty list": [], "dict": {}, "bool": True,
    "numpy bool": np.True_, "complex": 1j, "object": object(), "no repr": Broken(), "class": float, "function": len,
    "tensor of two": torch.ones(2), "array of two": np.ones(2), "tensor of bool": torch.tensor(True), "nan": math.nan,
    "infinity": math.inf, "minus infinity": -math.inf, "numpy nan": np.float64("nan"),
    "tensor of nan": torch.tensor(math.nan),
    "date": np.datetime64("2020-01-01"), "sparse": torch.tensor(1.0).to_sparse(), "meta": torch.tensor(1.0,
    device="meta"),
    "complex tensor": torch.tensor(1j),
}  # fmt: skip
NONE = {"none": None}
NO_COUNT = {
    **NO_NUMBER, "fraction": 1.5, "whole float": 2.0, "numpy float": np.float32(2),
    "tensor of float": torch.tensor(2.0),
    "huge": 10**30, "very huge": 10**5000, "minus huge": -(10**30), "negative": -1, "rational": Fraction(1, 2),
    "uint64": np.uint64(2**64 - 1),
}  # fmt: skip
COUNTS = {
    "int": 2, "numpy": np.int64(2), "small numpy": np.uint8(2), "tensor": torch.tensor(2), "array": np.array(2),
}  # fmt: skip
HALVES = {
    "float": 0.5, "float32": np.float32(0.5), "float16": np.float16(0.5), "float64": np.float64(0.5),
    "tensor": torch.tensor(0.5), "array": np.array(0.5), "rational": Fraction(1, 2),
}  # fmt: skip
NO_OBJECT: dict[str, Any] = {
    "text": "zero", "number": 3, "float": 0.1, "list": [], "dict": {}, "function": len, "bool": True,
    "tensor": torch.ones(2),
    "object": object(), "no repr": Broken(), "module": torch.nn.Linear(2, 2), "class of nothing": object,
}  # fmt: skip
NO_INITIALIZER = {
    **NO_OBJECT, "class": pcgraph.Zero, "class of Forward": pcgraph.Forward, "state optimizer": pcgraph.SGD(lr=0.1),
    "rule": pcgraph.learning.Standard(), "list of them": [pcgraph.Zero()], "its state": pcgraph.Normal().state_dict(),
}  # fmt: skip
NO_PATH = {
    "number": 3, "float": 0.5, "bool": True, "list": ["a"], "bytes": b"a", "empty": "", "nul": "a\0b",
    "object": object(),
    "open file": len,
}  # fmt: skip
NO_FLAG = {"none": None, "number": 1, "zero": 0, "text": "yes", "float": 1.0, "list": [], "tensor": torch.tensor(True)}
NO_NODE = {"unknown": "nowhere", "number": 7, "list": ["x"], "dict": {}, "float": 0.5, "tuple": ("x", "y", "z")}
NO_LOADER = {
    "none": None,
    "number": 3,
    "text": "train",
    "bytes": b"x",
    "dict": {"x": torch.ones(1, 4)},
    "function": len,
}
NO_FUNCTION = {
    "number": 3, "text": "print", "tensor": torch.ones(2), "of nothing": lambda: None, "of two": lambda a, b: None,
    "class": dict, "list with a number": [3], "list with a class": [dict], "module": torch,
}  # fmt: skip
NO_GRAPH = {
    "none": None, "number": 3, "text": "graph.json", "list": [("x", "y")], "dict": {"x": ["y"]}, "function": len,
    "class": nx.DiGraph, "module": torch.nn.Linear(2, 2), "object": object(), "undirected": nx.path_graph(2),
    "empty": nx.DiGraph(), "without shapes": nx.DiGraph([("x", "y")]), "array": np.eye(2), "tensor": torch.eye(2),
}  # fmt: skip
NO_SHAPE = {
    **{k: v for k, v in NO_COUNT.items() if k not in ("list",)}, "zero": 0, "empty tuple": (), "tuple with zero": (2, 0),
    "tuple with text": (2, "2"), "tuple with a float": (2, 2.0), "tuple with a bool": (2, True), "nested": ((2, 2),),
    "beyond memory": 2**40, "tuple beyond memory": (2**20, 2**20), "none": None, "set": {2},
}  # fmt: skip

KINDS: dict[str, Kind] = {
    "count": Kind({**NO_COUNT, **NONE}, {"zero": 0, **COUNTS}),
    "positive count": Kind({**NO_COUNT, **NONE, "zero": 0, "numpy zero": np.int64(0)}, COUNTS),
    "optional positive count": Kind({**NO_COUNT, "zero": 0}, {**COUNTS, "none": None}),
    "seed": Kind({**{k: v for k, v in NO_COUNT.items() if k not in ("negative", "uint64")}, **NONE},
                 {**COUNTS, "zero": 0, "negative": -1}),
    "number": Kind({**NO_NUMBER, **NONE, "very huge": 10**5000}, {**HALVES, "negative": -1, "zero": 0, **COUNTS}),
    "positive number": Kind({**NO_NUMBER, **NONE, "zero": 0.0, "negative": -0.5, "very huge": 10**5000}, {**HALVES,
    **COUNTS}),
    "number from 0": Kind({**NO_NUMBER, **NONE, "negative": -0.5}, {**HALVES, "zero": 0}),
    "part": Kind({**NO_NUMBER, **NONE, "negative": -0.5, "one": 1.0, "two": 2}, {**HALVES, "zero": 0}),
    "flag": Kind(NO_FLAG, {"true": True, "false": False, "numpy": np.True_}),
    "initializer": Kind(NO_INITIALIZER, {"one": pcgraph.Zero(), "nested": pcgraph.Forward(fallback=pcgraph.Normal())}),
    "path": Kind(NO_PATH),
    "graph": Kind(NO_GRAPH, {"one": pcgraph.graphs.chain([4, 3])}),
    "shape": Kind(NO_SHAPE, {**COUNTS, "tuple": (2,), "list": [2], "size": torch.Size([2]), "numpy in a tuple": (np.int64(2),)}),
    "node": Kind(NO_NODE),
    "loader": Kind(NO_LOADER),
    "function": Kind(NO_FUNCTION),
    "choice": Kind({"other": "sometimes", "number": 1, "bool": True, "none": None, "list": ["epoch"],
    "tensor": torch.ones(2)}),
    "text": Kind({"number": 3, "list": ["a"], "bool": True, "class": str, "bytes": b"a"}),
    "anything": Kind({}),
}  # fmt: skip
