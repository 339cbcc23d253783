"""Graphs of torch_geometric: what they are read as."""

from __future__ import annotations

from typing import Any

import networkx as nx
import torch
from torch_geometric.data import Batch, Data, HeteroData

import pcgraph
from pcgraph import pyg
from pcgraph.errors import ClampError, ConfigError, GraphError
from tests.bad_calls.graphs import NO_INDEX
from tests.bad_calls.kinds import NO_OBJECT, NONE, Argument

RING = torch.tensor([[0, 1], [1, 0]])
DATA = Data(x=torch.ones(2, 3), y=torch.tensor([0, 1]), edge_index=RING, train_mask=torch.tensor([True, False]))
WHOLE = Data(x=torch.ones(2, 3), y=torch.tensor([1]), edge_index=RING, train_mask=torch.tensor([True, False]))
ANSWER = torch.ones(1, 2, 2)


def hetero() -> HeteroData:
    data = HeteroData()
    data["a"].x, data["b"].x = torch.ones(2, 3), torch.ones(2, 4)
    data["a", "to", "b"].edge_index = RING
    return data


def with_entry(key: str, value: Any) -> Data:
    return Data(**{"x": torch.ones(2, 3), "edge_index": RING, key: value})


def declared(**changed: Any) -> Any:
    return pyg.from_hetero(hetero(), **{"target": "b", "classes": 2, **changed})


def padding(y: Any = 2) -> pcgraph.PCNetwork:
    """What takes graphs of up to three vertices."""
    graph = nx.DiGraph()
    for name, shape in {"x": (3, 3), "adj": (3, 3), "mask": 3, "h": (3, 2), "y": y}.items():
        graph.add_node(name, shape=shape)
    graph.add_edges_from([("x", "h"), ("h", "y")])
    return pcgraph.PCNetwork(graph)


def padded(**changed: Any) -> Any:
    return pyg.padded(**{"data": WHOLE, "net": padding(), **changed})


def relation(**changed: Any) -> Any:
    return pyg.Relation(**{"edge_index": RING, "targets": 2, "inputs": 3, "outputs": 2, **changed})


PYG = [
    Argument("pyg.clamps(data=)", pyg.clamps, "anything", ClampError,
             bad={**NO_OBJECT, **NONE, "class": Data, "empty mask": Data(x=torch.ones(3), y=torch.ones(2), edge_index=RING)},
             good={"one": DATA, "several kinds": hetero()}),
    *(Argument(f"pyg.clamps(data=) with {key}", lambda v, key=key: pyg.clamps(with_entry(key, v)), "anything", ClampError,
               bad={name: torch.ones(2, 3).to(**how) for name, how in (("meta", {"device": "meta"}), ("complex", {"dtype": torch.cfloat}))}
               | {"sparse": torch.ones(2, 3).to_sparse(), "0-dim": torch.tensor(1.0)} | bad, good=good)
      for key, bad, good in (
          ("x", {}, {"features": torch.ones(2, 3)}),
          ("y", {"rows": torch.ones(3, 3), "beyond memory": torch.tensor([0, 10**12]), "negative": torch.tensor([0, -1])}, {"classes": torch.tensor([0, 1])}))),
    Argument("pyg.clamps(data=) of a batch", lambda v: pyg.clamps(Batch.from_data_list([with_entry("edge_index", v)] * 2)),
             "anything", ClampError, bad={"floats": RING.float(), "meta": RING.to("meta")}, good={"none": None, "ring": RING}),
    Argument("pyg.clamps(by=)", lambda v: pyg.clamps(DATA, by=v), "choice", good={"layers": "layers", "vertices": "vertices"}),
    Argument("pyg.clamps(mask=)", lambda v: pyg.clamps(DATA, mask=v), "anything", ClampError,
             bad={"unknown": "test_mask", "number": 3, "whole numbers": torch.tensor([0, 1]), "of one": torch.ones(1) > 0},
             good={"name": "train_mask", "tensor": torch.ones(2) > 0, "none": None}),
    Argument("pyg.clamps(classes=)", lambda v: pyg.clamps(DATA, classes=v), "optional positive count", (ConfigError, ClampError)),
    Argument("pyg.clamps(names=)", lambda v: pyg.clamps(DATA, names=v), "anything", ClampError,
             bad={"unknown": ("z",), "unknown among them": ("x", "z"), "number": 3, "number among them": (3,), "text": "x"},
             good={"one": ("x",), "none": None}),
    Argument("pyg.padded(data=)", lambda v: padded(data=v), "anything", ClampError,
             bad={**NO_OBJECT, **NONE, "class": Data, "several kinds": hetero(), "empty": Data(),
                  "larger": Data(x=torch.ones(4, 3), edge_index=RING),
                  "of other vertices": Data(x=torch.ones(2, 3), edge_index=RING + 1)}, good={"one": WHOLE}),
    Argument("pyg.padded(net=)", lambda v: padded(net=v), "anything", (ClampError, ConfigError),
             bad={**NO_OBJECT, **NONE, "class": pcgraph.PCNetwork,
                  "without edges": pcgraph.PCNetwork(pcgraph.graphs.chain([3, 2]))}, good={"one": padding()}),
    Argument("pyg.padded(names=)", lambda v: padded(names=v), "anything", ClampError,
             bad={"unknown": ("z",), "unknown among them": ("x", "z"), "number": 3, "number among them": (3,), "text": "x",
                  "no entry": ("h",)},
             good={"one": ("x",), "none": None}),
    Argument("pyg.padded(mask=)", lambda v: padded(data=DATA, net=padding((3, 2)), mask=v), "anything", ClampError,
             bad={"unknown": "test_mask", "number": 3, "whole numbers": torch.tensor([0, 1]), "of one": torch.ones(1) > 0},
             good={"name": "train_mask", "tensor": torch.ones(2) > 0, "none": None}),
    Argument("pyg.padded(still=)", lambda v: padded(still=v), "anything", ClampError,
             bad={"unknown": ("z",), "number": 3, "none": None, "text": "h", "of no rows": ("y",)},
             good={"one": ("h",), "nothing": ()}),
    Argument("pyg.accuracy(answer=)", lambda v: pyg.accuracy(v, DATA), "anything", ClampError,
             bad={**NO_OBJECT, **NONE, "other shape": torch.ones(1, 3, 2), "nan": ANSWER / 0 * 0, "meta": ANSWER.to("meta"),
                  "complex": ANSWER.to(torch.cfloat)}, good={"one": ANSWER}),
    Argument("pyg.accuracy(data=)", lambda v: pyg.accuracy(ANSWER, v), "anything", ClampError, bad={**NO_OBJECT, **NONE},
             good={"one": DATA}),
    Argument("pyg.accuracy(mask=)", lambda v: pyg.accuracy(ANSWER, DATA, v), "anything", ClampError,
             bad={"unknown": "test_mask", "number": 3, "of nothing": torch.zeros(2) > 0}, good={"name": "train_mask", "none": None}),
    Argument("pyg.from_hetero(data=)", lambda v: pyg.from_hetero(v, "b", 2), "anything", GraphError,
             bad={**NO_OBJECT, **NONE, "of one kind": DATA, "empty": HeteroData()}, good={"one": hetero()}),
    Argument("pyg.from_hetero(target=)", lambda v: declared(target=v), "anything", GraphError,
             bad={"unknown": "c", "number": 3, "none": None}, good={"one": "a"}),
    *(Argument(f"pyg.from_hetero({key}=)", lambda v, key=key: declared(**{key: v}), "positive count")
      for key in ("classes", "hidden")),
    Argument("pyg.from_hetero(relations=)", lambda v: declared(relations=v), "choice", GraphError,
             good={"buckets": "buckets", "slots": "slots"}),
    Argument("pyg.Relation(edge_index=)", lambda v: relation(edge_index=v), "anything", GraphError,
             bad={**{k: v for k, v in NO_OBJECT.items() if k != "tensor"}, **NONE, "one row": RING[:1], "of floats": RING.float(),
                  "beyond": RING + 1, **NO_INDEX}, good={"one": RING}),
    *(Argument(f"pyg.Relation({key}=)", lambda v, key=key: relation(**{key: v}), "positive count")
      for key in ("targets", "inputs", "outputs")),
]  # fmt: skip
