"""What a declaration says: the attributes of nodes and edges, networks, transforms, energies and activations."""

from __future__ import annotations

import math
from typing import Any

import networkx as nx
import numpy as np
import torch

import pcgraph
from pcgraph import activations, combines, energies, scaling, transforms
from pcgraph.errors import ConfigError, GraphError, OutOfMemory
from pcgraph.network import Network
from tests.bad_calls.graphs import NO_INDEX
from tests.bad_calls.kinds import NO_OBJECT, NONE, Argument

RGB = (3, 4, 4)


def declared(node: Any = None, edge: Any = None, source: Any = None) -> pcgraph.PCNetwork:
    """x -> y with further attributes."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=4)
    graph.add_node("y", shape=3)
    graph.add_edge("x", "y")
    graph.nodes["y"].update(node or {})
    graph.nodes["x"].update(source or {})
    graph.edges["x", "y"].update(edge or {})
    return pcgraph.PCNetwork(graph)


def with_slots(slots: Any, fed: Any = "down") -> pcgraph.PCNetwork:
    graph = pcgraph.graphs.chain([4, 5, 3])
    graph.nodes["h1"]["slots"] = slots
    graph.add_edge("y", "h1", slot=fed)
    return pcgraph.PCNetwork(graph)


def tied(transpose: Any) -> pcgraph.PCNetwork:
    """x -> y and back, by one weight."""
    graph = pcgraph.graphs.chain([3, 3])
    graph.edges["x", "y"]["share"] = "a"
    graph.add_edge("y", "x", share="a", transpose=transpose)
    return pcgraph.PCNetwork(graph)


def combined(combine: Any, role: Any = "one") -> pcgraph.PCNetwork:
    """Two parents of y, which it combines."""
    graph = nx.DiGraph()
    for v in ("x", "z"):
        graph.add_node(v, shape=3)
    graph.add_node("y", shape=3, combine=combine)
    graph.add_edge("x", "y", role=role)
    graph.add_edge("z", "y", role="other")
    return pcgraph.PCNetwork(graph)


def on_edge(transform: Any, shape: Any = RGB) -> Any:
    """A transform where it is used: what it takes may depend on the shape before it."""
    graph = nx.DiGraph()
    graph.add_node("x", shape=shape)
    packed = isinstance(transform, transforms.SparseLinear)
    graph.add_node("y", shape=3 if packed else transform.output_shape(shape))
    graph.add_edge("x", "y", transform=transform)
    return pcgraph.PCNetwork(graph)


def conv(**changed: Any) -> Any:
    return on_edge(transforms.Conv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **changed}))


def back(**changed: Any) -> Any:
    return on_edge(transforms.ConvTranspose2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **changed}))


def pooled(kind: Any, **changed: Any) -> Any:
    return on_edge(kind(**{"kernel_size": 2, **changed}))


NO_ACTIVATION = {
    "number": 3, "text": "rleu", "list": [], "dict": {}, "bool": True, "tensor": torch.ones(2), "class": torch.nn.ReLU,
    "object": object(), "module of torch": torch.nn.functional,
}  # fmt: skip
NO_TRANSFORM = {
    "number": 3, "text": "liner", "list": [], "dict": {}, "bool": True, "tensor": torch.ones(2), "object": object(),
    "class": torch.nn.Linear, "function": len, "pair of texts": ("linear", "x"), "needs arguments": "conv2d",
    "other arguments": ("linear", {"size": 3}), "another shape": torch.nn.Linear(3, 3, bias=False),
}  # fmt: skip
NO_ENERGY = {
    "number": 3, "text": "gausian", "list": [], "dict": {}, "bool": True, "tensor": torch.ones(2), "object": object(),
    "class": energies.Laplace, "function": len, "pair of texts": ("laplace", "x"),
    "other arguments": ("laplace", {"size": 3}), "negative scale": ("laplace", {"scale": -1.0}),
}  # fmt: skip
#: A convolution's sizes: a number, or one for each dimension.
PAIRS = {"pair": (1, 1), "list": [1, 1]}

NO_PARTITION = {
    "none": None, "number": 2, "text": "metis", "list": [0, 1], "empty": {}, "unknown": {"x": 0, "y": 0, "z": 0},
    "missing": {"x": 0}, "float": {"x": 0.0, "y": 0}, "bool": {"x": True, "y": False}, "negative": {"x": -1, "y": 0},
    "texts": {"x": "0", "y": "1"}, "gap": {"x": 0, "y": 2}, "object": object(),
}  # fmt: skip
NO_PARTS = {"zero": 0, "negative": -1, "more": 3, "float": 2.0, "text": "2", "bool": True, "huge": 10**30, "list": [2]}
NO_CHOICE = {"none": None, "text": "time", "number": 1, "list": ["flops"], "bool": True, "object": object()}


def a_plan() -> Any:
    net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3]))
    return net.plan({"x", "y"}, init=pcgraph.Zero(), steps=2)


NODES = [
    Argument("node(shape=)", lambda v: declared({"shape": v}), "shape", (GraphError, OutOfMemory)),
    Argument("node(activation=)", lambda v: declared({"activation": v}), "anything", GraphError,
             bad=NO_ACTIVATION, good={"name": "tanh", "function": torch.sin, "module": torch.nn.ELU(), "none": None}),
    Argument("node(bias=)", lambda v: declared({"bias": v}), "flag", GraphError,
             bad={"another shape": (2,), "misspelt": "chanel"}, good={"channel": "channel", "shape": (1,)}),
    Argument("node(energy=)", lambda v: declared({"energy": v}), "anything", GraphError, bad=NO_ENERGY,
             good={"name": "laplace", "pair": ("laplace", {"scale": 2.0}), "one": energies.Bernoulli(), "none": None}),
    Argument("node(precision=)", lambda v: declared({"precision": v}), "positive number", GraphError,
             takes=("none", "list"), bad={"of four": [1.0] * 4, "zero among them": [1.0, 0.0, 1.0]},
             good={**NONE, "by neuron": [1.0, 2.0, 3.0], "array": np.ones(3), "tensor": torch.ones(1)}),
    Argument("node(prior=)", lambda v: declared(source={"prior": v}), "number", GraphError,
             takes=("none", "list", "numpy bool", "bool", "tensor of bool", "text", "date", "sparse"),
             bad={"shape": torch.ones(3), "list of texts": ["a"]},
             good={"none": None, "tensor": torch.ones(4), "array": np.ones(4), "list": [0.0, 1.0, 2.0, 3.0]}),
    Argument("node(combine=)", lambda v: combined(v), "anything", GraphError,
             bad={"number": 3, "text": "prodct", "list": [], "dict": {}, "bool": True, "class": torch.nn.ReLU,
                  "object": object(), "function": len, "tensor": torch.ones(2), "of one": torch.nn.ReLU(),
                  "other arguments": ("attention", {"size": 3}), "none": None},
             good={"name": "product", "pair": ("product", {}), "one": combines.Product()}),
    Argument("edge(role=)", lambda v: combined("product", v), "anything", GraphError,
             bad={"number": 3, "empty": "", "list": [], "dict": {}, "bool": True, "none": None, "object": object(),
                  "of numbers": [1], "twice": ("a", "a"), "no name": "two words", "played already": "other"},
             good={"name": "one", "several": ("one", "two"), "list": ["one"]}),
    Argument("combines.get(spec=)", combines.get, "anything", GraphError,
             bad={"number": 3, "text": "prodct", "list": [], "none": None, "class": torch.nn.ReLU, "function": len},
             good={"name": "gate", "module": torch.nn.ReLU()}),
    Argument("combines.from_config(name=)", lambda v: combines.from_config(v, {}), "text", GraphError,
             bad={"unknown": "prodct", "none": None}, good={"gate": "gate"}, only_good=("gate",)),
    Argument("combines.from_config(config=)", lambda v: combines.from_config("attention", v), "anything", GraphError,
             bad={"number": 3, "text": "x", "list": [1], "unknown": {"size": 1}, "none": None}, good={"empty": {}}),
    Argument("combines.name_of(combine=)", combines.name_of, "anything", GraphError,
             bad={"number": 3, "none": None, "module": torch.nn.ReLU(), "class": combines.Gate}),
    Argument("combines.require_roles(combine=)", lambda v: combines.require_roles(v, ("gate", "value")), "anything",
             GraphError, bad={"of other roles": combines.Attention()}, good={"gate": combines.Gate()}),
    Argument("combines.require_roles(roles=)", lambda v: combines.require_roles(combines.Gate(), v), "anything",
             GraphError, bad={"other": ("key", "value"), "none of them": ()}, good={"all": ("gate", "value")}),
    Argument("combines.Attention(heads=)", combines.Attention, "positive count", GraphError),
    Argument("combines.Attention(causal=)", lambda v: combines.Attention(causal=v), "flag", GraphError),
    Argument("combines.Readout(reduce=)", combines.Readout, "choice", GraphError,
             good={"mean": "mean", "sum": "sum", "max": "max"}),
    Argument("PCNetwork.combine(v=)", lambda v: combined("product", "one").combine(v), "anything", GraphError,
             bad={"unknown": "w", "number": 3, "none": None, "list": ["y"], "of a sum": "x"}, good={"node": "y"}),
    Argument("node(slots=)", with_slots, "anything", GraphError,
             bad={"number": 3, "text": "down", "list": ["down"], "bool": True, "object": object(), "tensor": torch.ones(2),
                  "of number": {"down": 3}, "of unknown": {"down": {"colour": "red"}}, "main": {"main": {}},
                  "of text": {"down": {"precision": "1"}}, "number's": {3: {}}, "none": None, "unfed": {"up": {}},
                  "two of which one is fed": {"down": {}, "up": {}}},
             good={"one": {"down": {}}, "with more": {"down": {"precision": 0.5, "activation": "tanh", "bias": False}}}),
    Argument("edge(slot=)", lambda v: with_slots({"down": {}}, v), "anything", GraphError,
             bad={"unknown": "up", "number": 3, "list": ["down"], "bool": True, "none": None, "main": "main",
                  "object": object()}, good={"name": "down"}),
    Argument("edge(transform=)", lambda v: declared(edge={"transform": v}), "anything", GraphError, bad=NO_TRANSFORM,
             good={"name": "linear", "module": torch.nn.Linear(4, 3, bias=False), "none": None}),
    Argument("edge(activation=)", lambda v: declared(edge={"activation": v}), "anything", GraphError,
             bad=NO_ACTIVATION, good={"name": "tanh", "function": torch.sin, "none": None}),
    Argument("edge(trainable=)", lambda v: declared(edge={"trainable": v}), "flag", GraphError),
    Argument("edge(share=)", lambda v: declared(edge={"share": v}), "anything", GraphError,
             bad={"list": [], "dict": {}, "set": set(), "nan": float("nan")},
             good={"name": "a", "tuple": (1, "a"), "none": None}),
    Argument("edge(transpose=)", lambda v: tied(v), "flag", GraphError),
    Argument("edge(scale=)", lambda v: declared(edge={"scale": v}), "number", GraphError,
             takes=("none",), bad={"zero": 0.0}, good={"none": None}, refuses=("zero",)),
    Argument("edge(init=)", lambda v: declared(edge={"init": v}), "anything", GraphError,
             bad={"text": "kaiming", "number": 3, "list": [], "dict": {}, "bool": True, "class": torch.nn.Linear,
                  "object": object(), "tensor": torch.ones(3, 4)},
             good={"name": "orthogonal", "function": lambda t, generator, fan_in: t.fill_(1.0), "none": None}),
    Argument("PCNetwork(graph=)", lambda v: pcgraph.PCNetwork(v), "graph", GraphError),
    Argument("PCNetwork(partition=)", lambda v: pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3]), partition=v), "anything",
             ConfigError, bad={k: v for k, v in NO_PARTITION.items() if k != "none"} | {"two": {"x": 0, "y": 1}},
             good={"none": None, "one": {"x": 0, "y": 0}}),
    Argument("PCNetwork(group=)", lambda v: pcgraph.PCNetwork(
        pcgraph.graphs.chain([4, 3]), partition={"x": 0, "y": 1}, group=v), "anything", ConfigError,
        bad={"none": None, "alone": False, "number": 3, "text": "all", "list": [0, 1], "object": object()}),
    Argument("Partition(ranks=)", lambda v: pcgraph.Partition(v), "anything", ConfigError,
             bad={k: v for k, v in NO_PARTITION.items() if k not in ("unknown", "missing")},  # which a graph tells
             good={"one": {"x": 0}, "two": {"x": 0, "y": 1}}),
    Argument("Partition(parts=)", lambda v: pcgraph.Partition({"x": 0, "y": 1}, v), "anything", ConfigError,
             bad=NO_PARTS, good={"two": 2, "none": None}),
    Argument("partition(graph=)", lambda v: pcgraph.partition(v, 1), "graph", GraphError),
    Argument("partition(parts=)", lambda v: pcgraph.partition(pcgraph.graphs.chain([4, 3]), v), "anything", ConfigError,
             bad={**NO_PARTS, "none": None}, good={"one": 1, "two": 2}),
    Argument("partition(balance=)", lambda v: pcgraph.partition(pcgraph.graphs.chain([4, 3]), 2, v), "anything",
             ConfigError, bad=NO_CHOICE, good={"flops": "flops", "memory": "memory"}),
    Argument("partition(by=)", lambda v: pcgraph.partition(pcgraph.graphs.chain([4, 3]), 2, by=v), "anything",
             ConfigError, bad=NO_CHOICE, good={"metis": "metis", "layers": "layers"}),
    Argument("Plan.across(partition=)", lambda v: a_plan().across(v), "anything", ConfigError, bad=NO_PARTITION,
             good={"one": {"x": 0, "y": 0}, "two": {"x": 0, "y": 1}}),
    Argument("Plan.explain(partition=)", lambda v: a_plan().explain(v), "anything", ConfigError,
             bad={k: v for k, v in NO_PARTITION.items() if k != "none"}, good={"none": None, "two": {"x": 0, "y": 1}}),
    Argument("Plan.explain(batch=)", lambda v: a_plan().explain({"x": 0, "y": 1}, batch=v), "anything", ConfigError,
             bad={"none": None, "zero": 0, "negative": -1, "float": 2.0, "text": "3", "bool": True}, good={"one": 1}),
    Argument("Plan.explain(machine=)", lambda v: a_plan().explain({"x": 0, "y": 1}, machine=v), "anything", ConfigError,
             bad={"number": 1e9, "text": "laptop", "class": pcgraph.plan.Machine, "dict": {}},
             good={"none": None, "machine": pcgraph.plan.Machine()}),
    *(Argument(f"plan.Machine({key}=)", lambda v, key=key: pcgraph.plan.Machine(**{key: v}), "anything", ConfigError,
               bad={"none": None, "negative": -1.0, "text": "fast", "nan": float("nan"), "bool": True, "list": []},
               good={"float": 1e9})
      for key in ("flops", "bandwidth", "latency")),
    Argument("PCNetwork(seed=)", lambda v: pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3]), seed=v), "seed"),
    Argument("PCNetwork(dtype=)", lambda v: pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3]), dtype=v), "anything",
             bad={"whole": torch.int64, "bool": torch.bool, "complex": torch.complex64, "float8": torch.float8_e4m3fn,
                  "text": "float32", "class": float, "number": 32, "numpy": np.float32, "list": [torch.float32],
                  "quantized": torch.quint8, "object": object()},
             good={"double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16, "none": None}),
    Argument("PCNetwork(device=)", lambda v: pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3]), device=v), "anything",
             bad={"unknown": "gpu", "empty": "", "float": 0.5, "list": ["cpu"], "cuda of many": "cuda:99",
                  "number": 99, "bool": True, "object": object(), "tensor": torch.ones(2)},
             good={"name": "cpu", "device": torch.device("cpu"), "none": None, "meta": "meta"}),
    Argument("PCNetwork(backend=)", lambda v: pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3]), backend=v), "anything",
             bad={"unknown": "torhc", "number": 3, "none": None, "class": pcgraph.backends.TorchBackend, "list": [],
                  "bool": True, "object": object(), "function": len},
             good={"name": "torch", "auto": "auto", "one": pcgraph.backends.TorchBackend()}),
    Argument("network.Network(graph=)", Network, "graph", GraphError),
    Argument("network.Network(seed=)", lambda v: Network(pcgraph.graphs.chain([4, 3]), seed=v), "seed"),
    Argument("scaling.mupc(graph=)", scaling.mupc, "graph", GraphError,
             bad={"cycle": pcgraph.graphs.lateral([3, 4, 2])}),
    Argument("scaling.mupc(gain=)", lambda v: scaling.mupc(pcgraph.graphs.chain([4, 3]), gain=v), "positive number"),
]  # fmt: skip

PARTS = [
    Argument("activations.get(spec=)", activations.get, "anything", GraphError,
             bad={k: v for k, v in NO_ACTIVATION.items() if k != "class"}, good={"name": "tanh", "none": None}),
    Argument("activations.Activation(name=)", lambda v: activations.Activation(v, torch.tanh), "text", GraphError,
             bad=NONE, good={"name": "bent"}),
    Argument("activations.Activation(function=)", lambda v: activations.Activation("mine", v), "anything", GraphError,
             bad={"number": 3, "none": None, "text": "tanh", "list": [], "tensor": torch.ones(2)},
             good={"function": torch.tanh}),
    *(Argument(f"activations.Activation({key}=)", lambda v, key=key: activations.Activation("mine", torch.tanh, **{key: v}),
               "anything", GraphError, bad={"number": 3, "text": "tanh", "list": [], "tensor": torch.ones(2)}, good=NONE)
      for key in ("fused_forward", "fused_pullback")),
    Argument("activations.Activation(at_zero=)",
             lambda v: activations.Activation("mine", torch.cos, at_zero=v), "number", GraphError, takes=("none",),
             good=NONE),
    Argument("energies.Gaussian(precision=)", energies.Gaussian, "positive number", GraphError),
    Argument("energies.Laplace(scale=)", energies.Laplace, "positive number", GraphError),
    Argument("energies.CrossEntropy(by_row=)", energies.CrossEntropy, "flag", GraphError),
    Argument("transforms.Embedding(tokens=)", lambda v: transforms.Embedding(v, 2), "positive count", GraphError,
             bad={"too many": 2**60}),
    Argument("transforms.Embedding(features=)", lambda v: transforms.Embedding(2, v), "positive count", GraphError),
    Argument("transforms.RowLinear(in_features=)", lambda v: on_edge(transforms.RowLinear(v, 2), (1,)), "positive count",
             GraphError, bad={"another size": 2, "too many": 2**60}, only_good=("one",), good={"one": 1}),
    Argument("transforms.RowLinear(out_features=)", lambda v: transforms.RowLinear(2, v), "positive count", GraphError),
    Argument("transforms.RowLinear(normalize=)", lambda v: transforms.RowLinear(2, 2, v), "flag", GraphError),
    *(Argument(f"graphs.transformer({key}=)", lambda v, key=key: pcgraph.graphs.transformer(
          **{"tokens": 3, "length": 2, "width": 4, "heads": 1, key: v}), "positive count", GraphError,
          bad={"no divisor": 3} if key == "heads" else {}, only_good=("one",), good={"one": 1})
      for key in ("tokens", "length", "width", "depth", "heads")),
    Argument("graphs.transformer(causal=)",
             lambda v: pcgraph.graphs.transformer(3, 2, width=4, causal=v), "flag", GraphError),
    Argument("energies.Huber(delta=)", energies.Huber, "positive number", GraphError),
    Argument("energies.StudentT(dof=)", energies.StudentT, "positive number", GraphError),
    Argument("energies.StudentT(scale=)", lambda v: energies.StudentT(scale=v), "positive number", GraphError),
    Argument("energies.DiagonalGaussian(precision=)", energies.DiagonalGaussian, "positive number", GraphError,
             takes=("list", "tensor of two", "array of two", "bool", "numpy bool", "tensor of bool"),
             bad={"zero among them": [1.0, 0.0], "negative": -1.0}),
    Argument("energies.LearnedPrecision(precision=)", energies.LearnedPrecision, "positive number", GraphError),
    Argument("energies.LearnedPrecision(shape=)", lambda v: energies.LearnedPrecision(1.0, v), "shape", GraphError,
             takes=("none",), good=NONE),
    Argument("energies.get(spec=)", energies.get, "anything", GraphError, bad=NO_ENERGY, good=NONE),
    Argument("energies.get(precision=)", lambda v: energies.get(None, v), "positive number", GraphError, takes=("none", "list", "tensor of two", "array of two"),
             good=NONE),
    Argument("energies.from_config(name=)", lambda v: energies.from_config(v, {}), "text", GraphError,
             bad={"unknown": "gausian", "none": None}, good={"name": "laplace"}),
    Argument("energies.from_config(config=)", lambda v: energies.from_config("laplace", v), "anything", GraphError,
             bad={"number": 3, "none": None, "list": [1], "text": "scale", "other": {"size": 3}, "of text": {"scale": "1"},
                  "keys of number": {1: 2}}, good={"empty": {}, "scale": {"scale": 2.0}}),
    Argument("energies.name_of(energy=)", energies.name_of, "anything", GraphError,
             bad={"number": 3, "none": None, "text": "laplace", "class": energies.Laplace},
             good={"one": energies.Laplace()}),
    Argument("transforms.get(spec=)", transforms.get, "anything", GraphError,
             bad={k: v for k, v in NO_TRANSFORM.items() if k != "another shape"}, good=NONE),
    Argument("transforms.from_config(name=)", lambda v: transforms.from_config(v, {}), "text", GraphError,
             bad={"unknown": "liner", "none": None}, good={"name": "linear"}),
    Argument("transforms.from_config(config=)", lambda v: transforms.from_config("reshape", v), "anything", GraphError,
             bad={"number": 3, "none": None, "list": [1], "text": "shape", "other": {"size": 3}, "of text": {"shape": "a"},
                  "keys of number": {1: 2}}, good={"shape": {"shape": (2, 2)}}),
    Argument("transforms.name_of(transform=)", transforms.name_of, "anything", GraphError,
             bad={"number": 3, "none": None, "text": "linear", "class": transforms.Linear},
             good={"one": transforms.Linear()}),
    Argument("transforms.Activate(activation=)", transforms.Activate, "anything", GraphError,
             bad={k: v for k, v in NO_ACTIVATION.items() if k != "class"}, good={"name": "tanh"}),
    *(Argument(f"transforms.{name}({key}=)", lambda v, make=make, key=key: make(**{key: v}), "positive count", GraphError,
               bad={"pair": (1, 1)}, good={k: v for k, v in {"three": 3}.items() if key == "in_channels"},
               only_good=("three",) if key == "in_channels" else None)
      for name, make in (("Conv2d", conv), ("ConvTranspose2d", back)) for key in ("in_channels", "out_channels")),
    *(Argument(f"transforms.{name}({key}=)", lambda v, make=make, key=key: make(**{key: v}), "positive count", GraphError,
               takes=("list",), bad={"three": (1, 1, 1), "of texts": ("1", "1"), "larger than the image": 100}
               if (key, name) == ("kernel_size", "Conv2d") else {"three": (1, 1, 1), "of texts": ("1", "1")},
               good=PAIRS)
      for name, make in (("Conv2d", conv), ("ConvTranspose2d", back)) for key in ("kernel_size", "stride", "dilation")
      if (name, key) != ("Conv2d", "dilation")),
    *(Argument(f"transforms.{name}(groups=)", lambda v, make=make: make(groups=v), "positive count", GraphError,
               bad={"no divisor": 2}, only_good=("one",), good={"one": 1})
      for name, make in (("Conv2d", conv), ("ConvTranspose2d", back))),
    *(Argument(f"transforms.{name}(bias=)", lambda v, make=make: make(bias=v), "flag", GraphError)
      for name, make in (("Conv2d", conv), ("ConvTranspose2d", back))),
    Argument("transforms.Conv2d(padding=)", lambda v: conv(padding=v), "count", GraphError, takes=("list",),
             bad={"text": "smae"}, good={"same": "same", "valid": "valid", **PAIRS}),
    Argument("transforms.Conv2d(dilation=)", lambda v: conv(dilation=v), "positive count", GraphError, takes=("list",),
             bad={"too wide": 3}, only_good=("pair", "list"), good=PAIRS),
    Argument("transforms.Conv2d(padding_mode=)", lambda v: conv(padding_mode=v), "text", GraphError,
             bad={"unknown": "mirror", "none": None}, good={"zeros": "zeros"}),
    Argument("transforms.ConvTranspose2d(padding=)", lambda v: back(padding=v), "count", GraphError, takes=("list",),
             bad={"too much": 9}, good=PAIRS),
    Argument("transforms.ConvTranspose2d(output_padding=)", lambda v: back(stride=3, output_padding=v), "count",
             GraphError, takes=("list",), only_good=("zero", "int", *PAIRS), good=PAIRS),
    Argument("transforms.ConvTranspose2d(padding_mode=)", lambda v: back(padding_mode=v), "text", GraphError,
             bad={"unknown": "mirror", "none": None, "reflect": "reflect"}, good={"zeros": "zeros"}),
    *(Argument(f"transforms.{kind.__name__}({key}=)", lambda v, kind=kind, key=key: pooled(kind, **{key: v}),
               "positive count", GraphError, takes=("list", *(("none",) if key == "stride" else ())),
               bad={"three": (1, 1, 1), "of texts": ("1", "1")},
               good={**PAIRS, **(NONE if key == "stride" else {})})
      for kind in (transforms.MaxPool2d, transforms.AvgPool2d)
      for key in ("kernel_size", "stride", *(("dilation",) if kind is transforms.MaxPool2d else ()))),
    *(Argument(f"transforms.{kind.__name__}(padding=)", lambda v, kind=kind: pooled(kind, padding=v), "count", GraphError,
               takes=("list",), bad={"more than half": 2}, only_good=("pair", "list", "zero"), good=PAIRS)
      for kind in (transforms.MaxPool2d, transforms.AvgPool2d)),
    *(Argument(f"transforms.{kind.__name__}({key}=)", lambda v, kind=kind, key=key: pooled(kind, **{key: v}), "flag",
               GraphError)
      for kind in (transforms.MaxPool2d, transforms.AvgPool2d)
      for key in ("ceil_mode", *(("count_include_pad",) if kind is transforms.AvgPool2d else ()))),
    Argument("transforms.Upsample(size=)", lambda v: on_edge(transforms.Upsample(v)), "positive count", GraphError,
             takes=("list",), bad={"three": (1, 1, 1)}, good=PAIRS),
    Argument("transforms.Upsample(scale_factor=)", lambda v: on_edge(transforms.Upsample(scale_factor=v)),
             "positive number", GraphError, takes=("list",), bad={"three": (1, 1, 1), "too little": 0.01},
             good={"pair": (2.0, 2.0)}),
    Argument("transforms.Upsample(mode=)", lambda v: on_edge(transforms.Upsample(2, mode=v)), "text", GraphError,
             bad={"unknown": "smooth", "none": None, "of lines": "linear", "of volumes": "trilinear"},
             good={"nearest": "nearest", "bilinear": "bilinear"}),
    Argument("transforms.Upsample(align_corners=)",
             lambda v: on_edge(transforms.Upsample(2, mode="bilinear", align_corners=v)), "flag", GraphError,
             takes=("none",), good=NONE),
    Argument("transforms.Reshape(shape=)", lambda v: on_edge(transforms.Reshape(v), (2,)), "shape", GraphError,
             takes=("negative",), bad={"another number": (3,)}, only_good=("pair",), good={"pair": (2, 1)}),
    Argument("transforms.Sequence(parts=)", lambda v: on_edge(transforms.Sequence(v), (4,)), "anything", GraphError,
             bad={"number": 3, "none": None, "text": "linear", "empty": [], "of texts": ["liner"], "of numbers": [1],
                  "dict": {}, "class": transforms.Linear, "of linear": ["linear"], "object": object()},
             good={"one": [transforms.Reshape((2, 2))], "named": [("activate", {"activation": "tanh"})]}),
    Argument("transforms.Module(module=)", lambda v: on_edge(transforms.Module(v), (4,)), "anything", GraphError,
             bad={**{k: v for k, v in NO_OBJECT.items() if k not in ("module", "class of nothing")}, "none": None,
                  "class": torch.nn.Linear, "dropout": torch.nn.Dropout(0.5), "another shape": torch.nn.Linear(3, 3)},
             good={"one": torch.nn.Linear(4, 3, bias=False)}),
    Argument("transforms.Module(evaluation=)",
             lambda v: transforms.Module(torch.nn.Linear(4, 3, bias=False), evaluation=v), "flag", GraphError),
    Argument("transforms.MaskedLinear(mask=)", lambda v: on_edge(transforms.MaskedLinear(v), (4,)), "anything", GraphError,
             bad={"none": None, "number": 3, "text": "mask", "one dimension": torch.ones(4), "another shape": torch.ones(3, 3),
                  "nan": torch.full((3, 4), math.nan), "object": object(), "texts": [["a"]], "dict": {},
                  "complex": torch.ones(3, 4, dtype=torch.cfloat), "empty": torch.ones(0, 4), "meta": torch.ones(3, 4, device="meta")},
             good={"one": torch.ones(3, 4), "array": np.ones((3, 4)), "bools": torch.ones(3, 4) > 0, "list": [[1, 0, 1, 1]] * 3}),
    Argument("transforms.MaskedLinear(output_shape=)",
             lambda v: on_edge(transforms.MaskedLinear(torch.ones(2, 4), v), (4,)), "shape", GraphError, takes=("none",),
             bad={"another number": 5}, good=NONE),
    Argument("transforms.SparseLinear(edge_index=)", lambda v: on_edge(transforms.SparseLinear(v), (4,)), "anything", GraphError,
             bad={"none": None, "number": 3, "text": "edges", "one row": torch.zeros(1, 2, dtype=int), "floats": torch.zeros(2, 2),
                  "beyond": torch.tensor([[9], [0]]), "negative": torch.tensor([[-1], [0]]), "twice": torch.zeros(2, 2, dtype=int),
                  "object": object(), "empty": torch.zeros(2, 0, dtype=int), "bools": torch.zeros(2, 1) > 0, "dict": {},
                  "meta": torch.zeros(2, 1, dtype=int, device="meta")},
             good={"one": torch.tensor([[0, 1], [0, 2]]), "array": np.array([[0, 1], [0, 2]]), "list": [[0, 1], [0, 2]]}),
    Argument("transforms.SparseLinear(mask=)", lambda v: on_edge(transforms.SparseLinear(mask=v), (4,)), "anything", GraphError,
             bad={"none": None, "number": 3, "text": "mask", "one dimension": torch.ones(4) > 0, "object": object(),
                  "texts": [["a"]], "dict": {}, "empty": torch.zeros(3, 4) > 0, "another shape": torch.ones(3, 9) > 0,
                  "meta": torch.ones(3, 4, device="meta") > 0},
             good={"one": torch.ones(3, 4) > 0, "array": np.ones((3, 4)) > 0}),
    Argument("transforms.SparseLinear(density=)", lambda v: on_edge(transforms.SparseLinear(density=v), (4,)), "positive number",
             GraphError, bad={"two": 2.0}, only_good=("float", "float32")),
    Argument("transforms.SparseLinear(seed=)", lambda v: transforms.SparseLinear(density=0.5, seed=v), "seed", GraphError),
    Argument("transforms.GraphLayer(layer=)",
             lambda v: transforms.GraphLayer(v, edge_index=torch.tensor([[0, 1], [1, 0]])), "anything", GraphError,
             bad={"number": 3, "none": None, "text": "gcn", "function": len, "class": torch.nn.Linear, "object": object()}),
    Argument("transforms.GraphLayer(edge_index=)", lambda v: transforms.GraphLayer(torch.nn.Identity(), edge_index=v),
             "anything", GraphError,
             bad={"none": None, "number": 3, "text": "edges", "one row": torch.zeros(1, 2, dtype=int),
                  "floats": torch.zeros(2, 2), "object": object(), "dict": {}, **NO_INDEX},
             good={"one": torch.tensor([[0, 1], [1, 0]]), "array": np.array([[0, 1], [1, 0]])}),
]  # fmt: skip
