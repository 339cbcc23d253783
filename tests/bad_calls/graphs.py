"""Ready-made graphs, the check, and what becomes of graphs elsewhere."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import torch
from torch_geometric.data import Data

import pcgraph
from pcgraph import graphs, pyg, topology
from pcgraph.errors import ClampError, ConfigError, GraphError, OutOfMemory
from tests.bad_calls.calls import net
from tests.bad_calls.kinds import NO_GRAPH, NO_OBJECT, NONE, Argument

REFUSED = (GraphError, ConfigError, OutOfMemory)


def network(make: Any, *given: Any, **changed: Any) -> Any:
    """The graph, and the network of it: a size is refused by one or the other."""
    return pcgraph.PCNetwork(make(*given, **changed))


NO_SIZES = {
    "none": None, "number": 5, "text": "4-3", "float": 0.5, "bool": True, "empty": [], "one": [4], "of texts": ["4", "3"],
    "of floats": [4.0, 3.0], "of zero": [4, 0, 3], "negative": [4, -5, 3], "of bools": [True, True], "of None": [4, None],
    "huge": [2**40, 2**40, 2**40], "dict": {}, "object": object(), "function": len, "tensor": torch.ones(2),
    "nan": [float("nan"), 3], "nested": [[[4]], 3], "number of bits": [10**5000, 3, 3],
}  # fmt: skip
#: Graphs by their sizes, with sizes that all of them take.
BY_SIZES = {"chain": graphs.chain, "decoder": graphs.decoder, "skip": graphs.skip, "lateral": graphs.lateral,
            "fully_connected": graphs.fully_connected, "assemblies": graphs.assemblies,
            "bidirectional": graphs.bidirectional, "cortex": graphs.cortex}  # fmt: skip
SIZES = {"chain": [4, 3], "decoder": [4, 3], "skip": [4, 5, 3], "lateral": [4, 5, 3], "fully_connected": [4, 3],
         "assemblies": [4, 3], "bidirectional": [4, 3], "cortex": [4, 5, 3]}  # fmt: skip
NO_ACTIVATION = {"number": 3, "text": "rleu", "list": [], "dict": {}, "bool": True, "class": torch.nn.ReLU}
ACTIVATED = {
    "chain": ([4, 5, 3],), "decoder": ([4, 5, 3],), "skip": ([4, 5, 3],), "lateral": ([4, 5, 3],), "fully_connected": ([4, 3],),
    "assemblies": ([4, 3],), "bidirectional": ([4, 5, 3],), "cortex": ([4, 5, 3],), "residual": (4, 5, 3), "random_groups": (5, 2, 2), "figure_9": (), "alexnet": (), "vgg5": (),
}  # fmt: skip
SMALL = {"alexnet": {"hidden": 4}}
ENDED = ("chain", "decoder", "skip", "lateral", "residual", "bidirectional")


def made(name: str, **changed: Any) -> Any:
    return network(getattr(graphs, name), *ACTIVATED[name], **{**SMALL.get(name, {}), **changed})


#: What is no edge_index, whoever reads it.
RING = torch.tensor([[0, 1], [1, 0]])
NO_INDEX = {
    "meta": RING.to("meta"), "sparse": RING.to_sparse(), "complex": RING + 0j, "bools": RING > 0, "negative": -RING,
    "texts": [["a"], ["b"]], "one dimension": RING[0], "nan": RING * float("nan"),
}  # fmt: skip
GRAPHS = [
    Argument("graphs.fully_connected(sizes=) by name", lambda v: graphs.fully_connected({v: 3, "b": 3}), "anything", GraphError,
             bad=NONE, good={"number": 1, "tuple": ("a", 1)}),
    Argument("graphs.fully_connected(sizes=) of so many", lambda v: graphs.fully_connected([3] * v), "anything", REFUSED,
             bad={"beyond memory": 10**6}),
    *(Argument(f"graphs.{name}(sizes=)", lambda v, make=make: network(make, v), "anything", REFUSED,
               bad={k: v for k, v in NO_SIZES.items() if not (name == "assemblies" and k == "one")},
               good={"list": SIZES[name], "tuple": tuple(SIZES[name])})
      for name, make in BY_SIZES.items()),
    *(Argument(f"graphs.{name}(activation=)", lambda v, name=name: made(name, activation=v), "anything", REFUSED,
               bad=NO_ACTIVATION, good={"name": "tanh", "function": torch.sin})
      for name in ACTIVATED),
    *(Argument(f"graphs.{name}(output_activation=)", lambda v, name=name: made(name, output_activation=v), "anything",
               REFUSED, bad=NO_ACTIVATION, good={"name": "tanh", "function": torch.sin})
      for name in ENDED),
    *(Argument(f"graphs.bidirectional({key}=)", lambda v, key=key: made("bidirectional", **{key: v}), "positive number", REFUSED)
      for key in ("precision", "feedback")),
    Argument("graphs.bidirectional(inside=)", lambda v: made("bidirectional", inside=v), "flag", REFUSED),
    Argument("graphs.bidirectional(tied=)", lambda v: made("bidirectional", tied=v), "flag", REFUSED),
    *(Argument(f"graphs.cortex({key}=)", lambda v, key=key: made("cortex", **{key: v}), "positive number", REFUSED,
               takes=("none",), good=NONE)
      for key in ("feedback", "lateral")),
    Argument("graphs.skip(span=)", lambda v: graphs.skip([4, 5, 5, 3], span=v), "positive count", REFUSED,
             bad={"one": 1, "too far": 4}),
    Argument("graphs.lateral(feedback=)", lambda v: graphs.lateral([4, 5, 3], feedback=v), "flag", REFUSED),
    Argument("graphs.fully_connected(self_loops=)", lambda v: graphs.fully_connected([4, 3], self_loops=v), "flag", REFUSED),
    Argument("graphs.figure_9(which=)", graphs.figure_9, "choice", REFUSED, good={"top": "top", "bottom": "bottom"}),
    *(Argument(f"graphs.residual({key}=)",
               lambda v, key=key: network(graphs.residual, **{"input_size": 4, "width": 5, "output_size": 3, key: v}),
               "positive count", REFUSED, takes=("list",), bad={"of text": ("2", 2), "empty": ()})
      for key in ("input_size", "width", "output_size")),
    Argument("graphs.residual(blocks=)", lambda v: graphs.residual(4, 5, 3, blocks=v), "positive count", REFUSED),
    Argument("graphs.residual(inner=)", lambda v: network(graphs.residual, 4, 5, 3, inner=v), "count", REFUSED,
             takes=("none",), good=NONE),
    Argument("graphs.random_groups(groups=)", lambda v: graphs.random_groups(v, 2, 1), "positive count", REFUSED,
             takes=("none",), bad={**NONE, "one": 1}),
    Argument("graphs.random_groups(size=)", lambda v: network(graphs.random_groups, 3, v, 1), "positive count", REFUSED, takes=("list",)),
    Argument("graphs.random_groups(degree=)", lambda v: graphs.random_groups(5, 2, v), "positive count", REFUSED,
             bad={"as many": 5}),
    Argument("graphs.random_groups(seed=)", lambda v: graphs.random_groups(5, 2, 2, seed=v), "seed", REFUSED),
    *(Argument(f"graphs.random_groups({key}=)", lambda v, key=key: network(graphs.random_groups, 3, 2, 1, **{key: v}),
               "optional positive count", REFUSED, takes=("list",))
      for key in ("input_size", "output_size")),
    *(Argument(f"graphs.assemblies({key}=)", lambda v, key=key: graphs.assemblies([4, 3], **{key: v}), "number from 0", REFUSED,
               bad={"two": 2.0}, only_good=("zero", "float", "float32"))
      for key in ("within", "between")),
    Argument("graphs.assemblies(seed=)", lambda v: graphs.assemblies([4, 3], seed=v), "seed", REFUSED),
    *(Argument(f"graphs.{name}(classes=)", lambda v, name=name: made(name, classes=v), "positive count", REFUSED, takes=("list",))
      for name in ("alexnet", "vgg5")),
    *(Argument(f"graphs.{name}(input_shape=)", lambda v, name=name: made(name, input_shape=v), "anything", REFUSED,
               bad={"none": None, "number": 32, "text": "rgb", "two": (32, 32), "too small": (3, 4, 4), "of texts": ("3", "32", "32"),
                    "negative": (3, -32, 32), "of floats": (3.0, 32.0, 32.0), "zero": (0, 32, 32), "of bools": (True, 32, 32)},
               good={"grey": (1, 32, 32), "list": [3, 32, 32]})
      for name in ("alexnet", "vgg5")),
    Argument("graphs.alexnet(hidden=)", lambda v: network(graphs.alexnet, hidden=v), "positive count", REFUSED, takes=("list",)),
    Argument("graphs.from_data(data=)", graphs.from_data, "anything", GraphError,
             bad={**NO_OBJECT, "none": None, "empty": Data(), "out of range": Data(edge_index=torch.tensor([[9], [0]]), num_nodes=2),
                  "one row": Data(edge_index=torch.zeros(1, 2, dtype=int)), "floats": Data(edge_index=torch.zeros(2, 2), num_nodes=2),
                  "class": Data, **{name: Data(edge_index=index, num_nodes=2) for name, index in NO_INDEX.items()},
                  **{f"{name} vertices": Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=count)
                     for name, count in (("text", "2"), ("half", 2.5), ("negative", -2), ("beyond memory", 10**12))},
                  "0-dim features": Data(edge_index=torch.tensor([[0, 1], [1, 0]]), x=torch.tensor(1.0))},
             good={"array": Data(edge_index=np.array([[0, 1], [1, 0]]), num_nodes=2), "ring": Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)}),
    *(Argument(f"graphs.from_data({key}=)",
               lambda v, key=key: network(graphs.from_data, Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2), **{key: v}),
               "anything", REFUSED, bad=bad, good=good)
      for key, bad, good in (("shape", {"text": "2", "zero": 0, "float": 0.5, "bool": True}, {"int": 2, "none": None}),
                             ("activation", NO_ACTIVATION, {"name": "tanh", "none": None}))),
    Argument("pyg.to_data(net=)", pyg.to_data, "anything", (GraphError, ConfigError),
             bad={**NO_OBJECT, "none": None, "class": pcgraph.PCNetwork}, good={"one": net()}),
    Argument("pyg.to_data(level=)", lambda v: pyg.to_data(net(), level=v), "choice", (GraphError, ConfigError),
             good={"neurons": "neurons", "groups": "groups"}),
]  # fmt: skip


def said(node: Any = None, edge: Any = None) -> nx.DiGraph:
    """x -> y, of which some attributes say what they like."""
    graph = nx.DiGraph([("x", "y", edge or {})])
    graph.add_node("y", **(node or {}))
    return graph


#: What a network would not read, where it says which prediction an edge feeds.
NO_SLOTS = {
    "slots of number": said({"slots": 3}), "slots of list": said({"slots": ["a"]}), "slot of number": said({"slots": {"a": 3}}),
    "fed slot that is none": said(edge={"slot": "q"}), "another slot fed": said({"slots": {"a": {}}}, {"slot": "q"}),
    "fed slot of number": said(edge={"slot": 3}), "fed slot of list": said(edge={"slot": ["q"]}),
}  # fmt: skip
#: A picture shows these as they are declared; a network refuses them.
HALF_DONE = {
    "role of number": said(edge={"role": 3}), "roles of numbers": said(edge={"role": [1]}), "scale of text": said(edge={"scale": "z"}),
    "shape of text": said({"shape": "x"}), "huge shape": said({"shape": 10**5000}), "energy of number": said({"energy": 3}),
}  # fmt: skip
TWO = nx.DiGraph([("x", "y")])
NO_CLAMPED = {
    "none": None, "text": "x", "bytes": b"x", "number": 3, "unknown": {"z"}, "misspelt": ["X1"], "unhashable": [["x"]],
    "of None": {"x": None}, "bool": True, "object": object(), "function": len, "nan": [float("nan")],
    "mask of another shape": {"x": pcgraph.Masked(torch.ones(2, 9), torch.ones(9) > 0)},
}  # fmt: skip
CHECKING = [
    *(Argument(f"{name}(graph_or_net=)", call, "anything", GraphError,
               bad={**{k: v for k, v in NO_GRAPH.items() if k != "without shapes"}, **NO_SLOTS}, good={"graph": TWO, "net": net()})
      for name, call in (("check", pcgraph.check), ("topology.check_phase", topology.check_phase),
                         ("topology.check_phases", lambda v: topology.check_phases(v, {"a": []})),
                         ("topology.verify", lambda v: topology.verify(v, (), topology.Nothing("y"))))),
    *(Argument(f"{name}(clamped=)", lambda v, call=call: call(net(), v, level="neurons"), "anything", ClampError,
               bad=NO_CLAMPED, good={"set": {"x"}, "list": ["x"], "mapping": {"x": 1.0}, "empty": ()})
      for name, call in (("check", pcgraph.check), ("topology.check_phase", topology.check_phase))),
    Argument("topology.check_phases(phases=)", lambda v: topology.check_phases(TWO, v), "anything", (ClampError, ConfigError),
             bad={"none": None, "list": ["x"], "text": "x", "number": 3, "of text": {"a": "x"}, "of None": {"a": None},
                  "unknown": {"a": ["z"]}},
             good={"one": {"a": ["x"]}, "empty": {}}),
    *(Argument(f"{name}(level=)", lambda v, call=call: call(net(), v), "choice", ConfigError,
               good={"groups": "groups", "neurons": "neurons"})
      for name, call in (("check", lambda g, v: pcgraph.check(g, ["x"], level=v)),
                         ("topology.check_phase", lambda g, v: topology.check_phase(g, ["x"], level=v)),
                         ("topology.check_phases", lambda g, v: topology.check_phases(g, {"a": ["x"]}, level=v)),
                         ("topology.verify", lambda g, v: topology.verify(g, ["x"], pcgraph.check(g, ["x"]).verdicts["forward"].witness, level=v)))),
    *(Argument(f"{name}(repair=)", lambda v, call=call: call(TWO, v), "flag", ConfigError,
               good={"budget": topology.Budget()})
      for name, call in (("check", lambda g, v: pcgraph.check(g, ["x"], repair=v)),
                         ("topology.check_phase", lambda g, v: topology.check_phase(g, ["x"], repair=v)),
                         ("topology.check_phases", lambda g, v: topology.check_phases(g, {"a": ["x"]}, repair=v)))),
    Argument("topology.verify(clamped=)", lambda v: topology.verify(TWO, v, topology.GraphOrder(("x", "y"))), "anything", ClampError,
             bad={k: v for k, v in NO_CLAMPED.items() if not k.startswith("mask")}, good={"set": {"x"}, "empty": ()}),
    Argument("topology.verify(witness=)", lambda v: topology.verify(TWO, ["x"], v), "anything", ConfigError,
             bad={**NO_OBJECT, "none": None, "class": topology.FreeCycle},
             good={"wrong": topology.FreeCycle(("x", "y")), "right": topology.GraphOrder(("x", "y"))}),
    Argument("topology.Budget(seconds=)", lambda v: topology.Budget(seconds=v), "number from 0", ConfigError, takes=("none",), good=NONE),
    Argument("topology.Budget(nodes=)", lambda v: topology.Budget(nodes=v), "count", ConfigError, takes=("none",), good=NONE),
    Argument("Report.verdict(initializer=)", lambda v: pcgraph.check(TWO, ["x"]).verdict(v), "initializer",
             (ConfigError, GraphError, pcgraph.InvalidInitializer), bad={**NONE, "unknown": "frward"}),
    Argument("Report.error_coordinates(keep=)", lambda v: pcgraph.check(TWO, ["x"]).error_coordinates(v), "anything",
             (ConfigError, GraphError, ClampError),
             bad={"none": None, "number": 3, "text": "y", "unknown": ["z"], "unhashable": [["y"]], "bool": True, "object": object()},
             good={"repair": "repair", "one": ["y"], "empty": ()}),
    *(Argument(f"Report.sweep({key}=)", lambda v, key=key: pcgraph.check(TWO, ["x"]).sweep(**{key: v}), "anything",
               (ConfigError, GraphError, ClampError),
               bad={"number": 3, "unknown": ["z"], "unhashable": [["y"]], "bool": True, "object": object()},
               good={"one": ["y"], "empty": ()})
      for key in ("initialised", "among")),
    Argument("Report.ancestors(node=)", lambda v: pcgraph.check(TWO, ["x"]).ancestors(v), "node", (GraphError, ClampError),
             bad=NONE, good={"name": "y"}),
]  # fmt: skip
