"""What a network is asked: infer, predict, plan, curvature, and what it answers with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

import pcgraph
from pcgraph.errors import ClampError, ConfigError, GraphError, InvalidInitializer
from pcgraph.inference import Recorder
from tests.bad_calls.calls import BATCH, LABELS, X, Y, infer, net
from tests.bad_calls.clamps import ARRAYS, NO_CLAMP
from tests.bad_calls.kinds import NO_OBJECT, NONE, Argument

ZERO = {"init": pcgraph.Zero(), "steps": 1, "optimizer": pcgraph.SGD(lr=0.1)}
NO_MOVER = {
    **NO_OBJECT, "class": pcgraph.SGD, "torch's": torch.optim.SGD([torch.ones(1)], lr=0.1), "initializer": pcgraph.Zero(),
    "unknown node": pcgraph.SGD({"hh1": 0.1, None: 0.1}), "a slot's rate": pcgraph.SGD({("h1", "down"): 0.1, None: 0.1}),
    "beyond float32": pcgraph.SGD(1e39), "beyond it for a node": pcgraph.Adam({"h1": 1e39, None: 0.1}),
    "no rate for a free node": pcgraph.SGD({"y": 0.1}),
}  # fmt: skip
MOVERS = {
    "sgd": pcgraph.SGD(np.float32(0.1)), "adam": pcgraph.Adam(), "by node": pcgraph.SGD({"h1": 0.1, None: 0.2}),
    "lbfgs": pcgraph.LBFGS(), "following": pcgraph.SGD(pcgraph.Following(0.1)),
}  # fmt: skip
NO_PRECISION = {
    "number": 2.0, "list": ["y"], "text": "y", "bool": True, "unknown": {"yy": 1.0}, "unknown slot": {("y", "down"): 1.0},
    "zero": {"y": 0.0}, "negative": {"y": -1.0}, "nan": {"y": math.nan}, "of text": {"y": "1"}, "of None": {"y": None},
    "a root": {"x": 1.0}, "unhashable within": {("y", ()): 1.0},
}  # fmt: skip
PRECISIONS = {"none": None, "empty": {}, "one": {"y": 2.0}, "numpy": {"y": np.float32(2)}}
NO_DUALS = {**NO_OBJECT, "class": pcgraph.Duals, "errors": pcgraph.Errors()}
DUALS = {"one": pcgraph.Duals(0.1), "that stop": pcgraph.Duals(0.1, stop=0.1), "none": None}
NO_COORDINATES = {
    **dict(NO_OBJECT.items()), "class": pcgraph.Errors, "name": "errors",
    "unknown node": pcgraph.Errors(keep=["hh1"]),
}  # fmt: skip
COORDINATES = {"errors": pcgraph.Errors(), "kept": pcgraph.Errors(keep=["h1"]), "none": None}
NO_KERNELS = {
    "text": "dense", "number": 3, "list": ["dense"], "unknown bucket": {"nowhere": "dense"},
    "unknown kernel": {"linear_4_to_5": "fast"}, "kernel of number": {"linear_4_to_5": 3}, "bool": True,
    "kernel of None": {"linear_4_to_5": None}, "bucket of number": {3: "dense"}, "unfit": {"linear_4_to_5": "identity"},
}  # fmt: skip
KERNELS = {"none": None, "empty": {}, "one": {"linear_4_to_5": "dense"}}
NO_LABELS = {
    "list": [0, 1, 2, 0, 1, 2], "text": "y", "number": 3, "floats": LABELS.float(), "few": LABELS[:3], "rows": Y,
    "bools": LABELS > 0, "numpy of texts": np.array(["a"] * 6), "object": object(), "sparse": LABELS.to_sparse(),
}  # fmt: skip
NO_NAMES = {
    "text": "x", "number": 3, "none": None, "unknown": ["nowhere"], "nested": [["x"]], "bool": True, "object": object(),
    "floats": [0.5], "function": len,
}  # fmt: skip


def planned(clamped: Any = ("x", "y"), **changed: Any) -> Any:
    return net().plan(clamped, **{"init": pcgraph.Forward(), "steps": 2, **changed})


def predicted(clamps: Any = None, node: Any = "y", **changed: Any) -> Any:
    return net().predict({"x": X} if clamps is None else clamps, node, **changed)


def curvature(clamps: Any = BATCH, **changed: Any) -> Any:
    return net().curvature(clamps, **{"init": pcgraph.Forward(), "iterations": 2, **changed})


def safe(clamps: Any = BATCH, network: Any = None, **changed: Any) -> Any:
    own = net() if network is None else network
    return pcgraph.safe_rate(own, clamps, **{"init": pcgraph.Forward(), "iterations": 2, "ahead": 1, **changed})


def inits(name: str, call: Any, **more: Any) -> Argument:
    return Argument(name, call, "initializer", (InvalidInitializer, ConfigError), **{"bad": NONE, **more})


NO_CLAMPS = {"list": [X], "tensor": X, "empty": {}, "unknown node": {"xx": X}, "number": 3, "text": "x", "bool": True}
RUNNING = [
    inits("PCNetwork.infer(init=)", lambda v: infer(init=v)),
    Argument("PCNetwork.infer(steps=)", lambda v: infer(steps=v), "count"),
    Argument("PCNetwork.infer(optimizer=)", lambda v: infer(optimizer=v), "anything", bad={**NO_MOVER, **NONE}, good=MOVERS),
    Argument("PCNetwork.infer(optimizer=) without steps", lambda v: infer(steps=0, optimizer=v), "anything",
             bad={k: v for k, v in NO_MOVER.items() if k != "no rate for a free node"}, good={**MOVERS, **NONE}),
    Argument("PCNetwork.infer(labels=) that nobody asked for", lambda v: infer(labels=v), "anything",
             (ConfigError, ClampError), bad=NO_LABELS, good={"int64": LABELS, "numpy": LABELS.numpy(), "none": None}),
    Argument("PCNetwork.infer(coordinates=)", lambda v: infer(coordinates=v), "anything",
             (ConfigError, GraphError, InvalidInitializer, ClampError), bad=NO_COORDINATES, good=COORDINATES),
    Argument("PCNetwork.infer(tolerance=)", lambda v: infer(tolerance=v), "positive number", takes=("none",), good=NONE),
    Argument("PCNetwork.infer(trace=)", lambda v: infer(trace=v), "flag", bad={"other": "node", "class": pcgraph.Trace, "unknown": pcgraph.Trace(["q"])},
             error=(ConfigError, GraphError), refuses=("numpy",), good={"nodes": "nodes", "states": "states", "some": pcgraph.Trace(["h1"])}),
    Argument("PCNetwork.infer(callback=)", lambda v: infer(callback=v), "anything",
             bad={"number": 3, "text": "f", "list": [], "class": dict, "of nothing": lambda: None,
                  "of two": lambda a, b: None}, good={"function": lambda step: step.energy, "method": [].append, "none": None}),
    Argument("Trace(nodes=)", pcgraph.Trace, "anything", bad={"number": 3, "object": object(), "twice": ["x", "x"]},
             good={"one": "x", "list": ["x"], "none": None}),
    Argument("Trace(every=)", lambda v: pcgraph.Trace(every=v), "positive count"),
    Argument("PCNetwork.infer(check=)", lambda v: infer(check=v), "flag"),
    Argument("PCNetwork.infer(capture=)", lambda v: infer(capture=v), "flag", bad={"on a CPU": True, "other": "always"},
             only_good=("false", "auto"), good={"auto": "auto"}),
    Argument("PCNetwork.infer(kernels=)", lambda v: infer(kernels=v), "anything", (ConfigError, GraphError), bad=NO_KERNELS, good=KERNELS),
    Argument("PCNetwork.infer(precision=)", lambda v: infer(precision=v), "anything", bad=NO_PRECISION, good=PRECISIONS),
    Argument("PCNetwork.infer(duals=)", lambda v: infer(duals=v), "anything", bad=NO_DUALS, good=DUALS),
    Argument("PCNetwork.plan(duals=)", lambda v: planned(duals=v), "anything", bad=NO_DUALS, good=DUALS),
    Argument("PCNetwork.predict(duals=)", lambda v: predicted(**ZERO, duals=v), "anything", bad=NO_DUALS, good=DUALS),
    Argument("PCNetwork.plan(clamped=)", planned, "anything", (ClampError, InvalidInitializer), bad=NO_NAMES,
             good={"set": {"x"}, "array": np.array(["x", "y"]), "mapping": BATCH, "generator": iter(["x"])}),
    Argument("PCNetwork.plan(masked=)", lambda v: planned(["x"], masked=v), "anything", ClampError, bad=NO_NAMES,
             good={"list": ["y"], "empty": ()}),
    inits("PCNetwork.plan(init=)", lambda v: planned(init=v)),
    Argument("PCNetwork.plan(steps=)", lambda v: planned(steps=v), "count"),
    Argument("PCNetwork.plan(optimizer=)", lambda v: planned(optimizer=v), "anything",
             bad={k: v for k, v in NO_MOVER.items() if k != "no rate for a free node"}, good={**MOVERS, **NONE}),
    Argument("PCNetwork.plan(kernels=)", lambda v: planned(kernels=v), "anything", (ConfigError, GraphError), bad=NO_KERNELS, good=KERNELS),
    Argument("PCNetwork.plan(coordinates=)", lambda v: planned(coordinates=v), "anything",
             (ConfigError, GraphError, InvalidInitializer, ClampError), bad=NO_COORDINATES, good=COORDINATES),
    Argument("PCNetwork.plan(precision=)", lambda v: planned(precision=v), "anything", bad=NO_PRECISION, good=PRECISIONS),
    Argument("PCNetwork.predict(clamps=)", predicted, "anything", (ClampError, InvalidInitializer),
             bad=dict(NO_CLAMPS.items()), good={"one": {"x": X}}),
    Argument("PCNetwork.predict(clamps={x: })", lambda v: predicted({"x": v}), "anything", ClampError,
             bad={**{k: v for k, v in NO_CLAMP.items() if k != "other batch"}, "half": X.half(), "double": X.double()},
             good={"tensor": X, **ARRAYS}),
    Argument("PCNetwork.predict(node=)", lambda v: predicted(node=v), "node", ClampError,
             bad={"clamped": "x", "none": None, "object": object()}, good={"name": "y", "hidden": "h1"}),
    Argument("PCNetwork.predict(node=) clamped by an array", lambda v: net().predict({"x": X.numpy(), "y": Y.numpy()}, v),
             "anything", ClampError, bad={"clamped": "y"}),
    inits("PCNetwork.predict(init=)", lambda v: predicted(init=v, steps=1, optimizer=pcgraph.SGD(lr=0.1))),
    Argument("PCNetwork.predict(steps=)",
             lambda v: predicted(init=pcgraph.Zero(), steps=v, optimizer=pcgraph.SGD(lr=0.1)), "count"),
    Argument("PCNetwork.predict(optimizer=)", lambda v: predicted(**{**ZERO, "optimizer": v}), "anything",
             bad={**NO_MOVER, **NONE}, good=MOVERS),
    Argument("PCNetwork.predict(coordinates=)", lambda v: predicted(**ZERO, coordinates=v), "anything",
             (ConfigError, GraphError, InvalidInitializer, ClampError), bad=NO_COORDINATES, good=COORDINATES),
    Argument("PCNetwork.predict(tolerance=)", lambda v: predicted(**ZERO, tolerance=v), "positive number",
             takes=("none",), good=NONE),
    Argument("PCNetwork.predict(precision=)", lambda v: predicted(**ZERO, precision=v), "anything", bad=NO_PRECISION,
             good=PRECISIONS),
    Argument("PCNetwork.predict(check=)", lambda v: predicted(check=v), "flag"),
    Argument("PCNetwork.predict(capture=)", lambda v: predicted(capture=v), "flag", bad={"on a CPU": True, "other": "always"},
             only_good=("false", "auto"), good={"auto": "auto"}),
    Argument("advise(net=)", lambda v: pcgraph.advise(v, BATCH), "anything", (ConfigError, ClampError),
             bad={"graph": pcgraph.graphs.chain([4, 3]), "none": None, "class": pcgraph.PCNetwork}),
    Argument("advise(clamps=)", lambda v: pcgraph.advise(net(), v), "anything", (ClampError, ConfigError), bad={"number": 3, "none": None},
             good={"names": ["x", "y"], "batch": BATCH}),
    Argument("advise(predict=)", lambda v: pcgraph.advise(net(), BATCH, predict=v), "node", (ClampError, ConfigError),
             takes=("none",), good={"name": "y", "none": None}),
    Argument("PCNetwork.predict(of a sweep)", lambda v: predicted(**v), "anything",
             bad={"optimizer": {"optimizer": "adam"}, "tolerance": {"tolerance": "1"}, "coordinates": {"coordinates": 3},
                  "precision": {"precision": 3}, "duals": {"duals": pcgraph.Duals(0.1)}, "init alone": {"init": pcgraph.Zero()}, "steps alone": {"steps": 3}}),
    Argument("PCNetwork.curvature(clamps=)", curvature, "anything", ClampError, bad={**NO_CLAMPS, **NONE},
             good={"arrays": {"x": X.numpy(), "y": Y.numpy()}}),
    inits("PCNetwork.curvature(init=)", lambda v: curvature(init=v)),
    Argument("PCNetwork.curvature(labels=)", lambda v: curvature(labels=v), "anything", bad=NO_LABELS,
             good={"int64": LABELS, "numpy": LABELS.numpy(), "none": None}),
    Argument("PCNetwork.curvature(coordinates=)", lambda v: curvature(coordinates=v), "anything",
             (ConfigError, GraphError, InvalidInitializer, ClampError), bad=NO_COORDINATES, good=COORDINATES),
    Argument("PCNetwork.curvature(iterations=)", lambda v: curvature(iterations=v), "positive count"),
    Argument("PCNetwork.curvature(seed=)", lambda v: curvature(seed=v), "seed"),
    Argument("PCNetwork.curvature(check=)", lambda v: curvature(check=v), "flag"),
    Argument("PCNetwork.curvature(precision=)", lambda v: curvature(precision=v), "anything", bad=NO_PRECISION,
             good=PRECISIONS),
    Argument("safe_rate(net=)", lambda v: safe(network=v), "anything", bad={"text": "net", "number": 3, "list": [],
             "graph": pcgraph.graphs.chain([4, 3]), "class": pcgraph.PCNetwork, "module": torch.nn.Linear(2, 2)}),
    Argument("safe_rate(clamps=)", safe, "anything", ClampError, bad={**NO_CLAMPS, **NONE}),
    inits("safe_rate(init=)", lambda v: safe(init=v)),
    Argument("safe_rate(labels=)", lambda v: safe(labels=v), "anything", bad=NO_LABELS, good={"int64": LABELS}),
    Argument("safe_rate(iterations=)", lambda v: safe(iterations=v), "positive count"),
    Argument("safe_rate(margin=)", lambda v: safe(margin=v), "positive number", bad={"two": 2.0},
             only_good=("float", "float32")),
    Argument("safe_rate(seed=)", lambda v: safe(seed=v), "seed"),
    Argument("safe_rate(ahead=)", lambda v: safe(ahead=v), "count"),
    *(Argument(f"PCNetwork.{name}({end}=)",
               lambda v, name=name, end=end: getattr(net(), name)(*(("x", v) if end == "v" else (v, "h1"))), "node",
               GraphError, bad={"none": None, "object": object(), "the wrong way": "x" if end == "v" else "y"},
               good={"name": "h1" if end == "v" else "x"})
      for name in ("weight", "transform", "edge") for end in "uv"),
    *(Argument(f"PCNetwork.{name}({key}=)", lambda v, name=name, key=key: getattr(net(), name)("x", "h1", **{key: v}),
               "anything", GraphError, bad={"unknown": "down", "number": 3, "list": [], "object": object()}, good=NONE)
      for name in ("weight", "transform", "edge") for key in ("key", "slot")),
    Argument("PCNetwork.node(v=)", lambda v: net().node(v), "node", GraphError, bad={"none": None}, good={"name": "h1"}),
    Argument("PCNetwork.node(slot=)", lambda v: net().node("h1", slot=v), "anything", GraphError,
             bad={"unknown": "down", "number": 3, "list": [], "object": object()}, good={"main": "main", "none": None}),
    Argument("PCNetwork.parameter_groups(settings=)", lambda v: net().parameter_groups(v), "anything",
             (ConfigError, GraphError), bad={"list": [{"lr": 1.0}], "number": 3, "text": "h1", "unknown": {"h9": {"lr": 1.0}},
             "no options": {"h1": 1.0}, "a list for a node": {(): {"lr": 1.0}}}, good={"none": None, "empty": {}, "one": {"h1": {"lr": 1.0}}}),
    Argument("PCNetwork.parameter_groups(separate=)", lambda v: net().parameter_groups(separate=v), "flag"),
    Argument("PCNetwork.summary(most=)", lambda v: net().summary(most=v), "positive count"),
    *(Argument(f"PCNetwork.as_module({key}=)", lambda v, key=key: net().as_module(**{"given": "x", "wanted": "y", key: v}),
               "anything", ClampError, bad={"unknown": "q", "number": 3, "none": None, "empty": [], "twice": ["x", "x"],
               "lists in a list": [["x"]], "object": object()}, good={"one": "x", "list": ["x"], "tuple": ("x",)})
      for key in ("given", "wanted")),
    Argument("PCNetwork.load_from(other=)", lambda v: net().load_from(v), "anything",
             bad={"none": None, "mapping": {}, "path": "net.safetensors", "class": pcgraph.PCNetwork, "list": []}),
    *(Argument(f"{kind}.initialize({key}=)", lambda v, kind=kind, key=key: (net().edge("x", "h1") if kind == "EdgeHandle"
               else net().node("h1")).initialize(**{key: v}), *how)
      for kind in ("EdgeHandle", "NodeHandle")
      for key, how in (("seed", ("seed",)), ("init", ("anything", GraphError, {"number": 3, "unknown": "normall", "class": dict})))),
    Argument("PCNetwork.bias(v=)", lambda v: net().bias(v), "node", GraphError, bad={"none": None, "a root": "x"},
             good={"name": "h1"}),
    Argument("PCNetwork.bias(slot=)", lambda v: net().bias("h1", slot=v), "anything", GraphError,
             bad={"unknown": "down", "number": 3, "list": [], "object": object()}, good={"main": "main", "none": None}),
    Argument("PCNetwork.to_data(level=)", lambda v: net().to_data(v), "choice", (ConfigError, GraphError),
             good={"neurons": "neurons", "groups": "groups"}),
    Argument("PCNetwork.carry_on(states=)", lambda v: net().carry_on(v), "anything",
             bad={"list": [torch.ones(1)], "none": None, "tensor": torch.ones(1), "text": "h1", "number": 3}),
    Argument("Plan.flops(batch=)", lambda v: planned().flops(v), "positive count"),
    Argument("Plan.memory(batch=)", lambda v: planned().memory(v), "positive count"),
    Argument("InferenceResult.accumulate(factor=)", lambda v: infer().accumulate(v), "number"),
    Argument("InferenceResult.accumulate(ready=)", lambda v: infer().accumulate(ready=v), "anything",
             bad={"number": 1, "name": "average"}, good={"function": repr, "none": None}),
    Argument("InferenceResult.backward(ready=)", lambda v: infer().backward(ready=v), "anything",
             bad={"number": 1, "name": "average"}, good={"function": repr, "none": None}),
    Argument("InferenceResult.peek(node=)", lambda v: infer().peek(v), "node", GraphError, bad=NONE, good={"name": "h1"}),
    Argument("inference.Recorder(function=)", Recorder, "anything", bad={"number": 3, "none": None, "text": "f", "list": []},
             good={"function": len}),
    Argument("inference.Recorder(graph=)", lambda v: Recorder(len, v), "anything", bad={"number": 3, "text": "f", "list": []},
             good=NONE),
]  # fmt: skip
