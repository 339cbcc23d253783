"""Searches for settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna

import pcgraph
from pcgraph import drawing, tuning
from pcgraph.errors import ConfigError, DataError
from tests.bad_calls.kinds import NO_NUMBER, NONE, Argument

INF = float("inf")
#: What is no number at all; NaN and infinity are measured, and tell nothing.
KINDS_OF_NUMBER = (
    "text",
    "bytes",
    "list",
    "dict",
    "bool",
    "numpy bool",
    "complex",
    "object",
    "tensor of two",
    "array of two",
    "meta",
    "sparse",
)


def searched(train: Any = lambda settings, progress: 0.5, space: Any = None, **changed: Any) -> Any:
    """A search of one trial."""
    chosen = {"a": [1, 2]} if space is None else space
    return pcgraph.search(train, chosen, **{"trials": 1, "progress": False, **changed})


FOUND = searched()
TUNING = [
    Argument("search(train=)", lambda v: searched(v), "anything",
             bad={"none": None, "number": 3, "class": dict, "returns none": lambda s, p: None,
                  "returns text": lambda s, p: "good"}, good={"function": lambda s, p: 1, "beyond floats": lambda s, p: -(10**400)}),
    *(Argument(f"search(train=) that {doing}", lambda v, does=does: searched(lambda s, p: does(p, v) or 0.5), "anything",
               bad={**{k: NO_NUMBER[k] for k in KINDS_OF_NUMBER}, **NONE, **bad}, good=good)
      for doing, does, bad, good in (
          ("tells a value", lambda p, v: p.tell(v, 1) and None, {}, {"numpy": np.float32(1), "nan": float("nan")}),
          ("tells of an epoch", lambda p, v: p.tell(1.0, v) and None, {"fraction": 1.5, "negative": -1, "huge": 10**30},
           {"numpy": np.int64(1)}),
          ("notes a value", lambda p, v: p.note("a", v), {}, {"numpy": np.float32(1), "nan": float("nan")}))),
    Argument("search(train=) that notes a name", lambda v: searched(lambda s, p: p.note(v, 1.0) or 0.5), "text", bad=NONE, good={"name": "a"}),
    Argument("search(train=) of settings", lambda v: pcgraph.search(v, trials=1, progress=False), "anything",
             bad={"no file": "none.toml", "empty": {}, "no space": {"data": "digits"}, "misspelt": {"dat": "digits", "space": {"lr": [1e-3]}},
                  "no name": {3: 4, "space": {"lr": [1e-3]}}, "no name in the space": {"space": {3: [1e-3]}},
                  "bad value": {"data": "digits", "space": {"lr": [-1.0]}}, "fixed": {"space": {"epochs": [1]}},
                  "search": {"space": {"lr": [1e-3]}, "search": {"trails": 3}}}),
    Argument("search(space=)", lambda v: pcgraph.search(lambda s, p: 0.5, v, trials=1, progress=False), "anything",
             bad={"none": None, "empty": {}, "list": ["a"], "text": "a", "no name": {3: [1]}, "epochs": {"epochs": [1]},
                  "no values": {"a": []}, "twice": {"a": [1, 1]}, "text for values": {"a": "bc"}, "number": {"a": 3},
                  "objects": {"a": [object()]}, "misspelt": {"a": {"low": 1, "hihg": 2}}, "no high": {"a": {"low": 1}},
                  "upside down": {"a": {"low": 2, "high": 1}}, "text for low": {"a": {"low": "1", "high": 2}},
                  "log of 0": {"a": {"low": 0, "high": 1, "log": True}}, "log is 1": {"a": {"low": 1, "high": 2, "log": 1}},
                  "step of 0": {"a": {"low": 0, "high": 1, "step": 0}}, "endless step": {"a": {"low": 0, "high": 1, "step": INF}},
                  "no least": {"a": {"low": -INF, "high": 1}}, "no most": {"a": {"low": 0.0, "high": INF}}, "nan": {"a": {"low": 0.0, "high": -INF * 0}},
                  "huge": {"a": {"low": 10**400, "high": 10**401}}, "up to a huge one": {"a": {"low": 0.0, "high": 10**400}},
                  "huge value": {"a": [10**400]}, "nan among values": {"a": [1.0, -INF * 0]}, "surrogate": {"a": ["\udcff"]},
                  "name with a NUL": {"a\0": [1]}, "generator": {"a": (i for i in [1])}, "numpy twice": {"a": [np.int64(1), 1]}},
             good={"one value": {"a": [1]}, "numpy": {"a": [np.int64(1), np.float32(0.5), np.True_]}, "no clipping": {"a": [INF, 1.0]},
                   "numpy ends": {"a": {"low": np.int64(1), "high": np.int64(3), "log": np.False_}}, "one point": {"a": {"low": 1, "high": 1}},
                   "of optuna": {"a": optuna.distributions.FloatDistribution(0, 1)}}),
    *(Argument(f"search({key}=)", lambda v, key=key: searched(**{key: v}), "optional positive count")
      for key in ("epochs", "seeds", "final_epochs")),
    Argument("search(trials=)", lambda v: pcgraph.search(lambda s, p: 0.5, {"a": [1, 2]}, trials=v, progress=False),
             "optional positive count"),
    Argument("search(finalists=)", lambda v: searched(finalists=v), "count", takes=("none",), good=NONE),
    Argument("search(seed=)", lambda v: searched(seed=v), "count"),
    Argument("search(metric=)", lambda v: searched(metric=v), "text", bad=NONE, good={"one": "f1"}),
    Argument("search(largest=)", lambda v: searched(largest=v), "flag", takes=("none",), good=NONE),
    Argument("search(storage=)", lambda v: searched(storage=v), "path",
             bad={"suffix": "a.txt", "no suffix": "trials", "url of nothing": "nothing://a"}, good=NONE),
    Argument("search(name=)", lambda v: searched(name=v), "text", bad={"surrogate": "\udcff", "nul": "a\0"}, good={"one": "widths", **NONE}),
    Argument("search(sampler=)", lambda v: searched(sampler=v), "anything",
             bad={"text": "tpe", "class": optuna.samplers.TPESampler, "pruner": optuna.pruners.NopPruner()},
             good={"one": optuna.samplers.RandomSampler(seed=0), "none": None}),
    Argument("search(pruner=)", lambda v: searched(pruner=v), "anything",
             bad={"text": "median", "class": optuna.pruners.NopPruner}, good={"one": optuna.pruners.NopPruner(), "none": None}),
    Argument("search(timeout=)", lambda v: searched(timeout=v), "positive number", takes=("none",), good=NONE),
    Argument("search(retry=)", lambda v: searched(retry=v), "flag"),
    Argument("search(progress=)", lambda v: searched(progress=v), "flag"),
    Argument("drawing.search(found=)", drawing.search, "anything", bad={"none": None, "text": "found", "class": tuning.SearchResult},
             good={"one": FOUND}),
    Argument("drawing.search(path=)", lambda v: drawing.search(FOUND, v), "path", (ConfigError, DataError),
             bad={"no suffix": "picture"}, good=NONE),
    Argument("drawing.search(title=)", lambda v: drawing.search(FOUND, title=v), "text", good={"one": "widths"}),
    Argument("SearchResult.write(folder=)", FOUND.write, "path", (ConfigError, DataError), bad=NONE),
]  # fmt: skip
