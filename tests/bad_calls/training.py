"""fit, evaluate and early stopping."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel
from torchmetrics import Accuracy

import pcgraph
from pcgraph import training
from pcgraph.errors import CheckpointError, ClampError, ConfigError, GraphError, InvalidInitializer
from tests.bad_calls.calls import BATCHES, X, fitted, net
from tests.bad_calls.kinds import NO_OBJECT, NONE, Argument
from tests.bad_calls.running import COORDINATES, NO_COORDINATES, NO_PRECISION, PRECISIONS, ZERO


def evaluated(**changed: Any) -> Any:
    """An evaluation by inference."""
    return pcgraph.evaluate(net(), BATCHES, **{**ZERO, **changed})


def weights() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(2))]


def made(optimizer: Callable[[list[Any]], Any]) -> Any:
    """fit with an optimizer that is made of the network's parameters."""
    own = net()
    return fitted(network=own, optimizer=optimizer(list(own.parameters())))


def scheduled(make: Callable[[Any], Any], **more: Any) -> Any:
    own = net()
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
    return fitted(network=own, optimizer=optimizer, scheduler=make(optimizer), **more)


def with_group(key: str, value: Any) -> Callable[[list[Any]], Any]:
    def make(parameters: list[Any]) -> Any:
        optimizer = torch.optim.AdamW(parameters, lr=0.01)
        optimizer.param_groups[0][key] = value
        return optimizer

    return make


class Metric:
    """Counts batches; no more is needed of a metric."""

    def reset(self) -> None:
        self.batches = 0

    def update(self, prediction: Any, target: Any) -> None:
        self.batches += 1

    def compute(self) -> int:
        return self.batches


def stopping(**changed: Any) -> Any:
    return training.EarlyStopping(**changed)


STEP = torch.optim.lr_scheduler.StepLR
TRAINING = [
    Argument("fit(net)", lambda v: fitted(network=v, optimizer=torch.optim.SGD(net().parameters(), lr=0.1)), "anything",
             bad={"graph": pcgraph.graphs.chain([4, 3]), "none": None, "module": torch.nn.Linear(4, 3),
             "class": pcgraph.PCNetwork}),
    Argument("fit(loader=)", lambda v: fitted(v), "loader", bad={"nothing": [], "numbers": [1, 2], "texts": ["a"],
             "tensor": X},
             error=(ConfigError, ClampError), good={"list": BATCHES, "tuple": (*BATCHES,), "once": iter(BATCHES)}),
    Argument("fit(clamp=)", lambda v: fitted(clamp=v), "node", (ConfigError, ClampError),
             bad={"twice": ("x", "x"), "nothing": (), "unknown among them": ("x", "nowhere"), "bool": True},
             takes=("list",), good={"names": ("x", "y"), "list": ["x", "y"], "none": None}),
    Argument("fit(predict=)", lambda v: fitted(predict=v), "node", (ClampError, ConfigError), takes=("list",),
             bad={"empty": [], "twice": ["y", "y"], "unknown among them": ["y", "nowhere"]},
             good={"name": "y", "list": ["y"], "none": None}),
    Argument("fit(clip=)", lambda v: fitted(clip=v), "positive number", takes=("none",), good=NONE),
    Argument("fit(accumulate=)", lambda v: fitted(accumulate=v), "positive count"),
    Argument("fit(ema=)", lambda v: fitted(ema=v), "anything",
             bad={**NO_OBJECT, "class": AveragedModel, "the network": net(), "of a layer": AveragedModel(torch.nn.Linear(4, 3)),
                  "of another": AveragedModel(pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3])))},
             good={"of a like network": AveragedModel(net()), "none": None}),
    Argument("fit(autocast=)", lambda v: fitted(autocast=v), "anything",
             bad={**NO_OBJECT, "float32": torch.float32, "name": "bfloat16"},
             good={"bfloat16": torch.bfloat16, "none": None}),
    Argument("fit(autocast=) in float64", lambda v: fitted(network=net().double(), autocast=v), "anything",
             bad={"bfloat16": torch.bfloat16}, good=NONE),
    Argument("fit(init=)", lambda v: fitted(init=v), "initializer", (InvalidInitializer, ConfigError), bad=NONE),
    Argument("fit(steps=)", lambda v: fitted(steps=v), "count", takes=("zero",)),
    Argument("fit(epochs=)", lambda v: fitted(epochs=v), "positive count"),
    Argument("fit(curvature_every=)", lambda v: fitted(curvature_every=v), "count"),
    Argument("fit(measure_every=)", lambda v: fitted(measure_every=v), "positive count"),
    Argument("fit(checkpoint_every=)", lambda v: fitted(checkpoint_every=v), "optional positive count"),
    Argument("fit(state_optimizer=)", lambda v: fitted(state_optimizer=v), "anything",
             bad={**NO_OBJECT, **NONE, "class": pcgraph.SGD, "torch's": torch.optim.SGD([torch.ones(1)]),
                  "beyond float32": pcgraph.SGD(1e39), "beyond it for a node": pcgraph.Adam({"h1": 1e39, None: 0.1})},
             good={"sgd": pcgraph.SGD(np.float32(0.1)), "adam": pcgraph.Adam()}),
    Argument("backends.FusedAdamW(params=)", training.FusedAdamW, "anything",
             bad={**NO_OBJECT, **NONE, "no tensors": [1, 2], "whole numbers": [torch.ones(2, dtype=torch.int64)],
                  "group without any": [{"lr": 0.1}], "empty": []},
             good={"parameters": [torch.nn.Parameter(torch.ones(2))], "tensor": [torch.ones(2, requires_grad=True)]}),
    Argument("backends.FusedAdamW(lr=)", lambda v: training.FusedAdamW(weights(), lr=v), "number from 0"),
    Argument("backends.FusedAdamW(betas=)", lambda v: training.FusedAdamW(weights(), betas=v), "anything",
             bad={"one": (0.9,), "number": 0.9, "text": "ab", "too large": (0.9, 1.0), "nan": (math.nan, 0.9), **NONE},
             good={"list": [0.9, 0.99], "zero": (0.0, 0.0)}),
    Argument("backends.FusedAdamW(eps=)", lambda v: training.FusedAdamW(weights(), eps=v), "positive number"),
    Argument("backends.FusedAdamW(weight_decay=)", lambda v: training.FusedAdamW(weights(), weight_decay=v), "number from 0"),
    Argument("fit(optimizer=)", lambda v: fitted(optimizer=v), "anything",
             bad={**NO_OBJECT, **NONE, "class": torch.optim.SGD, "ours": pcgraph.SGD(0.1),
             "of others": torch.optim.SGD([torch.ones(1)])}),
    Argument("fit(optimizer=) made", made, "anything",
             bad={"LBFGS": torch.optim.LBFGS, "SparseAdam": torch.optim.SparseAdam, "rate of nan": with_group("lr",
             math.nan),
                  "rate of infinity": with_group("lr", math.inf),
                  "beyond float32": with_group("lr", 1e39), "beyond it in the first step": with_group("lr", 1e38),
                  "decay of nan": with_group("weight_decay", math.nan),
                  "betas of nan": with_group("betas", (0.9, math.nan)), "tensor of nan": with_group("lr",
                  torch.tensor(math.nan))},
             good={name: getattr(torch.optim, name) for name in (
                 "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop",
                 "Rprop",
                 "SGD")}),
    Argument("fit(rule=)", lambda v: fitted(rule=v), "function",
             bad={"class of a rule": pcgraph.learning.Nudged, "name": "nudged",
             "function of it": pcgraph.learning.nudged,
                  "initializer": pcgraph.Zero()}, good={"rule": pcgraph.learning.Standard(), "none": None}),
    Argument("fit(validate=)", lambda v: fitted(validate=v), "function", (ConfigError, ClampError),
             takes=("tensor", "list with a number", "list with a class"),
             bad={"text": "test", "mapping": {"x": X}, "of two": lambda net, loader: 0.0, "class": training.Evaluation},
             good={"function": lambda net: 0.5, "loader": BATCHES, "none": None}),
    Argument("fit(validate=) once, in two epochs", lambda v: fitted(validate=v, epochs=2), "anything",
             bad={"iterator": iter(BATCHES), "generator": (batch for batch in BATCHES)}, good={"list": BATCHES}),
    Argument("fit(callbacks=)", lambda v: fitted(callbacks=v), "function",
             bad={"second": [lambda record: None, 3]}, good={"function": lambda record: None, "list": [print],
             "none of them": []}),
    Argument("fit(scheduler=)", lambda v: fitted(scheduler=v), "anything",
             bad={"class": STEP, "number": 0.1, "text": "step", "list of classes": [STEP], "function": len,
             "module": torch},
             good={"none": None, "none of them": []}),
    Argument("fit(scheduler=) made", scheduled, "anything",
             bad={"of another": lambda o: STEP(torch.optim.SGD([torch.ones(1)], lr=0.1), 1),
             "second of another": lambda o: [
                 STEP(o, 1), STEP(torch.optim.SGD([torch.ones(1)], lr=0.1), 1)]},
             good={"one": lambda o: STEP(o, 1), "two": lambda o: [STEP(o, 1), STEP(o, 2)],
                   "plateau": torch.optim.lr_scheduler.ReduceLROnPlateau}),
    Argument("fit(scheduler_each=)", lambda v: fitted(scheduler_each=v), "choice", good={"epoch": "epoch",
             "step": "step"}),
    Argument("fit(early_stopping=)", lambda v: fitted(early_stopping=v), "anything",
             bad={"number": 5, "text": "accuracy", "class": training.EarlyStopping, "dict": {"patience": 5},
             "bool": True,
                  "misspelt": stopping(metric="acuracy"), "of no validation": stopping(metric="squared_error")},
             good={"one": stopping(metric="energy"), "none": None}),
    Argument("fit(early_stopping=) with a loader", lambda v: fitted(early_stopping=v, validate=BATCHES), "anything",
             bad={"misspelt": stopping(metric="acuracy"), "foo": stopping(metric="foo")},
             good={"error": stopping(metric="squared_error")}),
    Argument("fit(metric=)", lambda v: fitted(metric=v), "text", bad={"misspelt": "acuracy", "foo": "foo",
             "validation's": "squared_error"},
             good={"energy": "energy", "none": None}),
    Argument("fit(metric=) with a loader", lambda v: fitted(metric=v, validate=BATCHES), "text",
             bad={"misspelt": "acuracy", "foo": "foo"}, good={"accuracy": "accuracy", "error": "squared_error"}),
    Argument("fit(checkpoint=)", lambda v: fitted(checkpoint=v), "path", good=NONE),
    Argument("fit(resume=)", lambda v: fitted(resume=v), "path", (ConfigError, CheckpointError),
             bad={"nowhere": "/nowhere/at/all", "a file": __file__}, good=NONE),
    Argument("fit(log=)", lambda v: fitted(log=v), "path", bad={"no suffix": "log", "another": "log.txt"}, good=NONE),
    Argument("fit(tensorboard=)", lambda v: fitted(tensorboard=v), "path", good=NONE),
    Argument("fit(on_interrupt=)", lambda v: fitted(on_interrupt=v), "choice", good={"raise": "raise",
             "return": "return"}),
    Argument("fit(progress=)", lambda v: fitted(progress=v), "flag"),
    Argument("fit(check=)", lambda v: fitted(check=v), "flag"),
    Argument("training.EarlyStopping(patience=)", lambda v: stopping(patience=v), "positive count"),
    Argument("training.EarlyStopping(change=)", lambda v: stopping(change=v), "number from 0"),
    Argument("training.EarlyStopping(metric=)", lambda v: stopping(metric=v), "text", bad=NONE),
    Argument("training.EarlyStopping(largest=)", lambda v: stopping(largest=v), "flag", takes=("none",), good=NONE),
    Argument("evaluate(net)", lambda v: pcgraph.evaluate(v, BATCHES), "anything",
             bad={"graph": pcgraph.graphs.chain([4, 3]), "none": None, "class": pcgraph.PCNetwork}),
    Argument("evaluate(loader=)", lambda v: pcgraph.evaluate(net(), v), "loader", (ConfigError, ClampError),
             bad={"nothing": [], "numbers": [1, 2], "tensor": X}, good={"list": BATCHES}),
    Argument("evaluate(given=)", lambda v: pcgraph.evaluate(net(), BATCHES, given=v), "node", (ConfigError, ClampError),
             takes=("list",), bad={"predicted": "y", "nothing": ()}, good={"name": "x", "list": ["x"], "none": None}),
    Argument("evaluate(predict=)", lambda v: pcgraph.evaluate(net(), BATCHES, predict=v), "node",
             (ClampError, ConfigError), bad={**NONE, "empty": [], "twice": ["y", "y"]},
             good={"name": "y", "list": ["y"]}),
    Argument("evaluate(metrics=)", lambda v: pcgraph.evaluate(net(), BATCHES, metrics=v), "anything",
             bad={k: v for k, v in NO_OBJECT.items() if k != "dict"} | {
                 "class": {"a": Accuracy}, "number": {"a": 3}, "number for a name": {3: Metric()},
                 "name of ours": {"accuracy": Metric()}, "node": {"y": {"a": Metric()}}},
             good={"one": {"count": Metric()}, "nothing": {}, "none": None}),
    Argument("evaluate(metrics=) of several", lambda v: pcgraph.evaluate(net(), BATCHES, predict=["y"], metrics=v), "anything",
             bad={"without a node": {"count": Metric()}, "unknown": {"nowhere": {"count": Metric()}},
                  "one twice": {"y": dict.fromkeys("ab", Metric())}},
             good={"one": {"y": {"count": Metric()}}, "none": None}),
    Argument("evaluate(init=)", lambda v: pcgraph.evaluate(net(), BATCHES, init=v, steps=1, optimizer=pcgraph.SGD(0.1)),
             "initializer", (InvalidInitializer, ConfigError), bad=NONE),
    Argument("evaluate(steps=)",
             lambda v: pcgraph.evaluate(net(), BATCHES, init=pcgraph.Zero(), steps=v, optimizer=pcgraph.SGD(0.1)),
             "count"),
    Argument("evaluate(optimizer=)",
             lambda v: pcgraph.evaluate(net(), BATCHES, init=pcgraph.Zero(), steps=1, optimizer=v), "anything",
             bad={**NO_OBJECT, **NONE, "class": pcgraph.SGD, "torch's": torch.optim.SGD([torch.ones(1)]),
                  "unknown node": pcgraph.SGD({"hh1": 0.1, None: 0.1})}, good={"sgd": pcgraph.SGD(0.1)}),
    Argument("evaluate(coordinates=)", lambda v: evaluated(coordinates=v), "anything",
             (ConfigError, GraphError, InvalidInitializer, ClampError), bad=NO_COORDINATES, good=COORDINATES),
    Argument("evaluate(tolerance=)", lambda v: evaluated(tolerance=v), "positive number", takes=("none",), good=NONE),
    Argument("evaluate(precision=)", lambda v: evaluated(precision=v), "anything", bad=NO_PRECISION, good=PRECISIONS),
    Argument("evaluate(check=)", lambda v: evaluated(check=v), "flag"),
    Argument("evaluate(group=)", lambda v: evaluated(group=v), "anything",
             bad={"true": True, "number": 2, "name": "gloo", "ranks": [0, 1]}, good={"alone": False, "none": None}),
    Argument("fit(group=)", lambda v: fitted(group=v), "anything",
             bad={"true": True, "number": 2, "name": "gloo", "ranks": [0, 1]}, good={"alone": False, "none": None}),
    Argument("evaluate(capture=)", lambda v: evaluated(capture=v), "flag", bad={"on a CPU": True, "other": "always"},
             only_good=("false", "auto"), good={"auto": "auto"}),
    Argument("evaluate(stop=)", lambda v: pcgraph.evaluate(net(), BATCHES, stop=v), "anything",
             bad={"number": 3, "bool": True, "text": "now"}, good={"function": lambda: False, "none": None}),
]  # fmt: skip
