"""State optimizers and initializers."""

from __future__ import annotations

import math

import numpy as np
import torch

import pcgraph
from pcgraph.errors import ClampError, ConfigError, GraphError, InvalidInitializer
from tests.bad_calls.calls import LABELS, Y, fitted, infer, small_memory
from tests.bad_calls.kinds import NO_OBJECT, NONE, Argument


def amortized(**changed):
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3]))
    return pcgraph.Amortized(net, **{"given": "x", **changed})


STATE_OPTIMIZERS = [
    Argument("SGD(lr=)", lambda v: pcgraph.SGD(lr=v), "positive number", takes=("empty dict",),
             bad={"mapping to text": {"h1": "0.1"}, "mapping to nan": {None: math.nan},
             "mapping to bool": {"h1": True}},
             good={"mapping": {"h1": np.float32(0.1), None: 0.2}}),
    Argument("SGD(momentum=)", lambda v: pcgraph.SGD(lr=0.1, momentum=v), "part"),
    Argument("SGD(nesterov=)", lambda v: pcgraph.SGD(lr=0.1, momentum=0.5, nesterov=v), "flag"),
    Argument("Adam(lr=)", lambda v: pcgraph.Adam(lr=v), "positive number"),
    Argument("Adam(betas=)", lambda v: pcgraph.Adam(betas=v), "anything",
             bad={"one": (0.9,), "number": 0.9, "text": "ab", "too large": (0.9, 1.0), "nan": (math.nan, 0.9),
             "none": None,
                  "bools": (True, False), "three": (0.1, 0.2, 0.3), "texts": ("0.9", "0.9")},
             good={"list": [0.9, 0.99], "numpy": (np.float32(0.9), np.float64(0.99))}),
    Argument("Adam(eps=)", lambda v: pcgraph.Adam(eps=v), "positive number"),
    Argument("PCNetwork.infer(optimizer=SGD(lr={}))", lambda v: fitted(state_optimizer=pcgraph.SGD(lr=v)), "anything",
             bad={"unknown node": {"hh1": 0.1, None: 0.1}, "another unknown": {7: 0.1, None: 0.1}},
             good={"known": {"h1": 0.1, None: 0.1}}),
]  # fmt: skip

INITIALIZERS = [
    Argument("Normal(mean=)", lambda v: pcgraph.Normal(mean=v), "number"),
    Argument("Normal(std=)", lambda v: pcgraph.Normal(std=v), "number from 0"),
    Argument("Normal(seed=)", lambda v: pcgraph.Normal(seed=v), "seed"),
    Argument("Forward(roots=)", lambda v: pcgraph.Forward(roots=v), "initializer", good=NONE),
    Argument("Forward(fallback=)", lambda v: pcgraph.Forward(fallback=v), "initializer", good=NONE),
    Argument("Null(first=)", lambda v: pcgraph.Null(first=v), "initializer", good=NONE),
    Argument("Average(otherwise=)", lambda v: pcgraph.Average(otherwise=v), "initializer", good=NONE),
    Argument("Average(forward_depth=)", lambda v: pcgraph.Average(forward_depth=v), "count"),
    Argument("Average(classes=)", lambda v: pcgraph.Average(classes=v), "optional positive count"),
    Argument("Average(by=)", lambda v: pcgraph.Average(by=v), "anything",
             bad={"list": ["y"], "dict": {}, "none without classes": None}, good={"name": "y", "tuple": ("y", 1)}),
    Argument("Average(by=) in infer", lambda v: infer(init=pcgraph.Average(by=v)), "anything",
             (InvalidInitializer, ClampError), bad={"unknown": "nowhere", "free": "h1", "number": 3},
             good={"name": "y"}),
    Argument("PCNetwork.infer(labels=)", lambda v: infer(init=pcgraph.Average(by=None, classes=3), labels=v), "anything",
             (ConfigError, ClampError, InvalidInitializer),
             bad={"list": [0, 1, 2, 0, 1, 2], "numpy of floats": LABELS.numpy() / 2, "numpy of texts": np.array(["a"] * 6),
             "sparse": LABELS.to_sparse(), "meta": LABELS.to("meta"), "text": "y", "floats": LABELS.float(),
             "few": LABELS[:3],
                  "rows": Y, "too large": LABELS + 1, "negative": LABELS - 1, "bools": LABELS > 0, "none": None,
                  "complex": LABELS.to(torch.complex64)},
             good={"int64": LABELS, "int32": LABELS.int(), "uint8": LABELS.to(torch.uint8), "numpy": LABELS.numpy(),
                   "numpy backwards": LABELS.numpy()[::-1]}),
    Argument("States(states=)", pcgraph.States, "anything",
             bad={"list": [torch.ones(1)], "none": None, "tensor": torch.ones(1), "text": "h1", "number": 3}),
    Argument("States(states=) in infer", lambda v: infer(init=pcgraph.States(v)), "anything",
             (ConfigError, InvalidInitializer),
             bad={"unknown node": {"h1": torch.zeros(6, 5), "hh1": torch.zeros(6, 5)}, "no node": {},
             "list": {"h1": [0.0]},
                  "shape": {"h1": torch.zeros(6, 4)}, "batch": {"h1": torch.zeros(5, 5)},
                  "scalar": {"h1": torch.zeros(())},
                  "sparse": {"h1": torch.zeros(6, 5).to_sparse()}, "complex": {"h1": torch.zeros(6, 5,
                  dtype=torch.cfloat)},
                  "whole numbers": {"h1": torch.zeros(6, 5, dtype=torch.int64)}, "texts": {"h1": np.array([["a"] * 5] * 6)}},
             good={"states": {"h1": torch.zeros(6, 5)}, "double": {"h1": torch.zeros(6, 5).double()},
                   "numpy": {"h1": np.zeros((6, 5))}}),
    Argument("PerNode(nodes=)", lambda v: pcgraph.PerNode(v, default=pcgraph.Zero()), "anything",
             bad={"list": [pcgraph.Zero()], "none": None, "initializer": pcgraph.Zero(), "text": {"h1": "zero"},
                  "class": {"h1": pcgraph.Zero}, "optimizer": {"h1": pcgraph.SGD(0.1)}, "nothing": {"h1": None}}),
    Argument("PerNode(nodes=) in infer",
             lambda v: infer(init=pcgraph.PerNode({v: pcgraph.Zero()}, default=pcgraph.Forward())), "anything",
             GraphError,
             bad={"unknown": "nowhere", "number": 7}, good={"name": "h1"}),
    Argument("PerNode(default=)", lambda v: pcgraph.PerNode({}, default=v), "initializer", bad=NONE),
    Argument("Amortized(net=)", lambda v: pcgraph.Amortized(v, given="x"), "anything", bad=NO_OBJECT),
    Argument("Amortized(given=)", lambda v: amortized(given=v), "anything", GraphError,
             bad={"unknown": "z", "number": 3, "none": None, "list": ["x"]}, good={"node": "y"}),
    Argument("Amortized(modules=)", lambda v: amortized(modules=v), "anything", (ConfigError, GraphError),
             bad={"list": [], "module": torch.nn.Linear(3, 4), "unknown": {"z": torch.nn.Linear(3, 4)},
                  "the given one": {"x": torch.nn.Linear(4, 4)}, "of another shape": {"y": torch.nn.Linear(4, 2)},
                  "that takes another": {"y": torch.nn.Linear(5, 3)}, "of numbers": {"y": 3},
                  "that draws": {"y": torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5))}},
             good={"none": None, "one": {"y": torch.nn.Linear(4, 3)}}),
    Argument("Amortized(activation=)", lambda v: amortized(activation=v), "anything", GraphError,
             bad={"text": "tahn", "number": 3, "list": [], "class": torch.nn.ReLU}, good={"name": "relu", "none": None}),
    Argument("Amortized(seed=)", lambda v: amortized(seed=v), "seed"),
    Argument("Memory(net=)", lambda v: pcgraph.Memory(v), "anything",
             bad={"graph": pcgraph.graphs.chain([4, 3]), "none": None, "text": "net", "module": torch.nn.Linear(2, 2),
                  "class": pcgraph.PCNetwork}),
    Argument("Memory(nodes=)", lambda v: small_memory(nodes=v), "anything", (ConfigError, GraphError),
             bad={"unknown": ["nowhere"], "unknown text": "nowhere", "number": 3, "twice": ["h1", "h1"],
             "none of them": [],
                  "lists": [["h1"]], "all of them": ["h1", "x", "y"], "object": object(), "float": 0.5},
             good={"list": ["h1"], "one": "h1", "tuple": ("h1",), "generator": iter(["h1"]), "none": None}),
    Argument("Memory(observed=)", lambda v: small_memory(observed=v), "anything", (ConfigError, GraphError),
             bad={"unknown": ["nowhere"], "number": 3, "twice": ["x", "x"], "none of them": [], "all": ["x", "h1",
             "y"]},
             good={"list": ["x"], "one": "x"}),
    Argument("Memory(patterns=)", lambda v: small_memory(patterns=v), "positive count", bad={"too many": 2**31 - 1}),
    Argument("Memory(heads=)", lambda v: small_memory(heads=v, embed_dim=4), "positive count", bad={"no divisor": 3}),
    Argument("Memory(embed_dim=)", lambda v: small_memory(embed_dim=v), "positive count", bad={"too many": 2**31 - 1}),
    Argument("Memory(beta=)", lambda v: small_memory(beta=v), "number from 0"),
    Argument("Memory(ridge=)", lambda v: small_memory(ridge=v), "positive number"),
    Argument("Memory(seed=)", lambda v: small_memory(seed=v), "seed"),
]  # fmt: skip
