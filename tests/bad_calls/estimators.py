"""The estimators, whose settings are looked at when they are fitted, and the schedules of precisions."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import torch

import pcgraph
from pcgraph import estimators, schedules
from pcgraph.errors import ClampError, ConfigError, GraphError, InvalidInitializer, OutOfMemory
from tests.bad_calls.kinds import NO_INITIALIZER, NO_OBJECT, NONE, Argument

ROWS = np.random.default_rng(0).normal(size=(6, 4))
CLASSES = np.arange(6) % 3
MADE = {"PCClassifier": (estimators.PCClassifier, CLASSES), "PCRegressor": (estimators.PCRegressor, ROWS[:, :3])}


def fitted(name: str, key: str, value: Any) -> Any:
    """An estimator after one epoch; whatever is refused has no network."""
    kind, target = MADE[name]
    model = kind(**{"epochs": 1, "steps": 1, "hidden": (3,), key: value})
    try:
        return model.fit(ROWS, target)
    except BaseException:
        if hasattr(model, "net_"):
            raise RuntimeError("it has kept a network that it refused") from None
        raise


GRAPH = pcgraph.graphs.chain([4, 3])
NO_SIZES = {
    "number in a text": "3", "zero": 0, "zero among them": (3, 0), "text among them": ("3",), "float": 2.0, "bool": True,
    "negative": -1, "none": None, "beyond memory": 2**40, "dict": {}, "object": object(), "array": np.ones(2),
}  # fmt: skip
NO_NAME = {"none": None, "list": ["x"], "dict": {}, "set": set(), "of a hidden node": "h1", "array": np.ones(2)}
NO_SEED = {
    "text": "0", "float": 0.5, "bool": True, "numpy bool": np.True_, "negative": -1, "huge": 2**40, "list": [],
    "dict": {}, "object": object(), "generator": torch.Generator(), "class": np.random.RandomState, "nan": float("nan"),
}  # fmt: skip
SETTINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("graph", "graph", {"error": (GraphError, ConfigError), "takes": ("none",),
                        "bad": {"of other inputs": pcgraph.graphs.chain([5, 3])}, "good": NONE}),
    ("hidden", "anything", {"error": (GraphError, OutOfMemory), "bad": NO_SIZES, "good": {"one": 3, "list": [3, 3], "none of them": ()}}),
    ("activation", "anything", {"error": GraphError, "bad": {"number": 3, "text": "rleu", "list": [], "class": torch.nn.ReLU},
                                "good": {"name": "tanh", "function": torch.sin}}),
    ("input", "anything", {"bad": {**NO_NAME, "the target": "y"}, "good": {"text": "image", "number": 7, "tuple": ("a", 1)}}),
    ("target", "anything", {"bad": {**NO_NAME, "the input": "x"}, "good": {"text": "class", "number": 7, "tuple": ("a", 1)}}),
    ("init", "anything", {"error": (ConfigError, InvalidInitializer), "bad": NO_INITIALIZER,
                          "good": {"one": pcgraph.Zero(), "none": None}}),
    ("steps", "count", {}),
    *((key, "positive number", {}) for key in ("state_lr", "lr")),
    ("state_optimizer", "anything", {"bad": {**NO_OBJECT, "class": pcgraph.SGD, "initializer": pcgraph.Zero()},
                                     "good": {"sgd": pcgraph.SGD(lr=0.1), "solver": pcgraph.LBFGS(), "none": None}}),
    ("rule", "anything", {"bad": {k: v for k, v in NO_OBJECT.items() if k not in ("function", "module")},
                          "good": {"one": pcgraph.learning.Backprop(), "none": None}}),
    ("optimizer", "function", {"bad": {"of torch": torch.optim.SGD([torch.ones(1)], lr=0.1)},
                               "good": {"class": torch.optim.SGD, "none": None}}),
    *((key, "positive count", {}) for key in ("epochs", "batch_size")),
    ("clip", "positive number", {"takes": ("none",), "good": NONE}),
    ("dtype", "choice", {"bad": {"torch's": torch.float32}, "good": {"double": "float64"}}),
    ("device", "anything", {"bad": {"unknown": "gpu", "number": 99, "list": ["cpu"], "object": object()}, "good": {"cpu": "cpu"}}),
    ("random_state", "anything", {"bad": NO_SEED, "good": {
        "int": 3, "numpy": np.int64(3), "tensor": torch.tensor(3), "state": np.random.RandomState(0), "none": None}}),
    ("progress", "flag", {"only_good": ("false",)}),
]  # fmt: skip
CHAIN = pcgraph.graphs.chain([3, 3, 2])
NO_INPUTS = {
    "text": "x", "number": 3, "none": None, "unknown": ["nowhere"], "unhashable": [["x"]], "dict in it": [{}], "function": len,
    "bytes": b"x", "object": object(), "float": 0.5,
}  # fmt: skip
ESTIMATORS = [
    *(Argument(f"estimators.{name}({key}=)", lambda v, name=name, key=key: fitted(name, key, v), kind, **more)
      for name in MADE for key, kind, more in SETTINGS),
    *(row for name, make in (("spiking", schedules.spiking), ("decaying", schedules.decaying)) for row in (
        Argument(f"schedules.{name}(graph=)", lambda v, make=make: make(v, ["x"], 3), "graph", GraphError,
                 takes=("without shapes",), good={"net": pcgraph.PCNetwork(CHAIN)}, bad={"cyclic": nx.DiGraph([("x", "y"), ("y", "x")])}),
        Argument(f"schedules.{name}(inputs=)", lambda v, make=make: make(CHAIN, v, 3), "anything", (ClampError, GraphError),
                 bad=NO_INPUTS, good={"set": {"x"}, "list": ["x"], "none of them": ()}),
        Argument(f"schedules.{name}(steps=)", lambda v, make=make: make(CHAIN, ["x"], v), "positive count",
                 bad={"too few": 1}),
        Argument(f"schedules.{name}(low=)", lambda v, make=make: make(CHAIN, ["x"], 3, low=v), "positive number",
                 bad={"two": 2}, only_good=("float", "float32")),
    )),
    Argument("schedules.decaying(decay=)", lambda v: schedules.decaying(CHAIN, ["x"], 3, decay=v), "positive number",
             bad={"one": 1.0}, only_good=("float", "float32")),
]  # fmt: skip
