"""What is read, written and drawn: graphs, image sets, pictures."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

import pcgraph
from pcgraph import checkpoints, data, drawing, serialization, training
from pcgraph.errors import ClampError, ConfigError, DataError, GraphError
from tests.bad_calls.calls import infer, net
from tests.bad_calls.graphs import HALF_DONE, NO_SLOTS
from tests.bad_calls.kinds import NO_GRAPH, NO_OBJECT, NONE, Argument

mpl.use("Agg")
GRAPH = pcgraph.graphs.chain([4, 3])
IMAGES = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(12) % 3
RECORDS = [training.EpochRecord(i + 1, 10 * i + 10, 500, 1 / (i + 1), 0.9, 1e-3, float(i)) for i in range(3)]


def pets(**changed: Any) -> data.Images:
    return data.Images(**{"images": IMAGES, "labels": CLASSES, **changed})


def written(graph: Any, path: Any = None) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return serialization.write_graph(Path(folder) / "g.json" if path is None else path, graph)


def drawn(make: Any, *given: Any, **changed: Any) -> Any:
    """A picture, written nowhere unless asked."""
    from matplotlib import pyplot

    try:
        return make(*given, **changed)
    finally:
        pyplot.close("all")


def curve(history: Any = training.History(RECORDS), **changed: Any) -> Any:  # noqa: B008  # nobody changes it
    return drawn(drawing.learning_curve, history, **changed)


NO_IMAGE_PATH = {
    "number": 3, "float": 0.5, "bool": True, "list": ["a.png"], "bytes": b"a.png", "empty": "", "nul": "a\0b.png",
    "object": object(), "no suffix": "picture", "another": "picture.txt", "nowhere": "/proc/nowhere/a.png", "pgf": "a.pgf",
}  # fmt: skip
NO_AXES = {
    **{name: Figure().add_subplot(projection=name) for name in ("polar", "3d")}, "number": 3, "text": "ax", "list": [], "bool": True, "class": object,
}  # fmt: skip
NO_TITLE = {"number": 3, "list": ["a"], "bool": True, "class": str, "bytes": b"a"}
NO_FILE = {"nowhere": "/nowhere/at/all.json", "folder": tempfile.gettempdir(), "text": __file__}
TRACED = {"trace": "nodes"}
FILES = [
    Argument("serialization.read_graph(path=)", serialization.read_graph, "path", (ConfigError, DataError), bad={**NO_FILE, **NONE}),
    Argument("serialization.write_graph(path=)", lambda v: written(GRAPH, v), "path", (ConfigError, DataError),
             bad={"nowhere": "/proc/nowhere/g.json", "folder": tempfile.gettempdir()}),
    Argument("serialization.write_graph(graph=)", written, "anything", GraphError,
             bad={k: v for k, v in NO_GRAPH.items() if k not in ("empty", "without shapes")}, good={"one": GRAPH}),
    Argument("serialization.graph_to_data(graph=)", serialization.graph_to_data, "anything", GraphError,
             bad={k: v for k, v in NO_GRAPH.items() if k not in ("empty", "without shapes")}, good={"one": GRAPH}),
    Argument("serialization.graph_from_data(data=)", serialization.graph_from_data, "anything", GraphError,
             bad={"none": None, "number": 3, "text": "{}", "list": [], "empty": {}, "nodes of text": {"nodes": ["x"]},
                  "edges of text": {"nodes": [], "edges": "x"}, "nodes without id": {"nodes": [{}]}, "class": dict,
                  "twice": {"nodes": [{"id": 1}, {"id": 1}]}, "unhashable": {"nodes": [{"id": {}}]}, "graph": GRAPH,
                  "edge to nowhere": {"nodes": [{"id": 1}], "edges": [{"source": 1, "target": 2}]},
                  "newer": {"format": "pcgraph.graph", "version": 99, "nodes": []}},
             good={"one": serialization.graph_to_data(GRAPH), "read": json.loads(json.dumps(serialization.graph_to_data(GRAPH)))}),
    Argument("serialization.read_shape(value=)", serialization.read_shape, "anything", GraphError,
             bad={"text": "big", "empty": "", "float": 0.5, "dict": {}, "object": object(), "bytes": b"3", "list of texts": ["a"]},
             good={"int": 3, "text": "28x28", "list": [1, 2], "none": None}),
    Argument("checkpoints.Checkpoint.state(part=)", lambda v: checkpointed().state(v), "anything", pcgraph.errors.CheckpointError,
             bad={"none": None, "number": 3, "unknown": "loader", "list": [], "object": object()}, good={"one": "network"}),
]  # fmt: skip


def checkpointed() -> checkpoints.Checkpoint:
    with tempfile.TemporaryDirectory() as folder:
        pcgraph.save(folder, net())
        return pcgraph.load(folder)


REFUSED = (ConfigError, DataError)
SETS = [
    Argument("data.load(name=)", data.load, "text", REFUSED, bad={**NONE, "unknown": "mnits"}),
    Argument("data.load(split=)", lambda v: data.load("digits", v), "choice", REFUSED, good={"test": "test"}),
    Argument("data.load(fraction=)", lambda v: data.load("digits", fraction=v), "positive number", REFUSED,
             bad={"two": 2.0, "too small": 1e-9}, only_good=("float", "float32")),
    Argument("data.load(seed=)", lambda v: data.load("digits", fraction=0.5, seed=v), "count", REFUSED, takes=("uint64",)),
    Argument("data.load(normalize=)", lambda v: data.load("digits", normalize=v), "anything", REFUSED,
             bad={"unknown": "standrad", "number": 3, "none": None, "one": (0.5,), "zero": (0.0, 0.0), "nan": (float("nan"), 1.0),
                  "negative": (0.0, -1.0), "of texts": ("a", "b"), "bool": True, "list of many": ([0.0] * 5, [1.0] * 5), "dict": {}},
             good={"unit": "unit", "pair": (0.5, 0.5), "numpy": (np.float32(0.5), np.float32(0.5))}),
    Argument("data.load(flatten=)", lambda v: data.load("digits", flatten=v), "flag", REFUSED, takes=("none",), good=NONE),
    Argument("data.load(device=)", lambda v: data.load("digits", device=v), "anything", REFUSED,
             bad={"unknown": "gpu", "empty": "", "float": 0.5, "list": ["cpu"], "many": "cuda:99", "object": object()},
             good={"cpu": "cpu", "none": None}),
    Argument("data.load(dtype=)", lambda v: data.load("digits", dtype=v), "anything", REFUSED,
             bad={"none": None, "text": "float32", "whole": torch.int64, "class": float, "number": 3, "complex": torch.cfloat,
                  "float8": torch.float8_e4m3fn},
             good={"double": torch.float64, "half": torch.float16}),
    Argument("data.load(root=)", lambda v: data.load("mnist", root=v), "path", REFUSED),
    Argument("data.Images(images=)", lambda v: pets(images=v), "anything", REFUSED,
             bad={"none": None, "list": [[0.5]], "text": "x", "whole": torch.zeros(12, 4, dtype=int), "one dimension": torch.ones(12),
                  "few": torch.ones(11, 4), "sparse": IMAGES.to_sparse(), "none of them": torch.ones(0, 4), "complex": IMAGES.to(torch.cfloat)},
             good={"tensor": IMAGES, "array": IMAGES.numpy()}),
    Argument("data.Images(labels=)", lambda v: pets(labels=v), "anything", REFUSED,
             bad={"none": None, "text": "x", "number": 3, "floats": CLASSES.float(), "few": CLASSES[:5], "negative": CLASSES - 1,
                  "rows": torch.eye(3)[CLASSES], "object": object(), "texts": ["a"] * 12, "sparse": CLASSES.to_sparse()},
             good={"tensor": CLASSES, "list": CLASSES.tolist(), "array": CLASSES.numpy()}),
    Argument("data.Images(classes=)", lambda v: pets(classes=v), "anything", REFUSED,
             bad={"number": 3, "few": ["a"], "of numbers": [1, 2, 3], "text": "abc", "bool": True, "object": object()},
             good={"names": ["a", "b", "c"], "none": None}),
    Argument("data.Images(name=)", lambda v: pets(name=v), "text", REFUSED, bad=NONE, good={"name": "pets"}),
    Argument("data.Images.take(rows=)", lambda v: pets().take(v), "anything", REFUSED,
             bad={"none": None, "text": "x", "beyond": [12], "negative": [-13], "floats": [0.5], "empty": [], "bools": CLASSES > 0,
                  "object": object(), "number": 3, "nested": [[1]]},
             good={"list": [0, 1, 2], "tensor": torch.tensor([2, 1]), "array": np.array([0, 3])}),
    Argument("data.Images.split(validation=)", lambda v: pets().split(v), "positive number", REFUSED,
             bad={"all": 12, "more": 99, "one": 1.0, "too few": 1}, only_good=()),
    Argument("data.Images.split(seed=)", lambda v: pets().split(0.5, seed=v), "count", REFUSED, takes=("uint64",)),
    Argument("data.Images.batches(batch_size=)", lambda v: pets().batches(v), "positive count", REFUSED),
    Argument("data.Images.batches(seed=)", lambda v: pets().batches(3, seed=v), "count", REFUSED, takes=("uint64",)),
    *(Argument(f"data.Images.batches({key}=)", lambda v, key=key: pets().batches(3, **{key: v}), "flag", REFUSED)
      for key in ("shuffle", "stream_aligned", "drop_last", "labels")),
    Argument("data.Images.to(device=)", lambda v: pets().to(v), "anything", REFUSED,
             bad={"unknown": "gpu", "float": 0.5, "list": ["cpu"], "many": "cuda:99"}, good={"cpu": "cpu"}),
    Argument("data.Images.to(dtype=)", lambda v: pets().to(dtype=v), "anything", REFUSED,
             bad={"text": "float32", "whole": torch.int64, "class": float, "number": 3, "complex": torch.cfloat},
             good={"double": torch.float64, "none": None}),
    Argument("data.StreamAligned(data=)", lambda v: data.StreamAligned(v, 3), "anything", REFUSED,
             bad={"none": None, "text": "x", "number": 3, "floats": CLASSES.float(), "empty": [], "object": object()},
             good={"labels": CLASSES, "list": CLASSES.tolist(), "set": pets()}),
    Argument("data.StreamAligned(batch_size=)", lambda v: data.StreamAligned(CLASSES, v), "positive count", REFUSED,
             bad={"no multiple": 4}, only_good=()),
    Argument("data.StreamAligned(seed=)", lambda v: data.StreamAligned(CLASSES, 3, seed=v), "count", REFUSED, takes=("uint64",)),
    Argument("data.StreamAligned(classes=)", lambda v: data.StreamAligned(CLASSES, 3, classes=v), "optional positive count", REFUSED,
             bad={"few": 1}, only_good=("none",)),
    Argument("data.Batches(data=)", lambda v: data.Batches(v, pets().batches(3).order), "anything", REFUSED,
             bad={"none": None, "tensor": IMAGES, "text": "x", "number": 3}, good={"one": pets()}),
    Argument("data.Batches(order=)", lambda v: data.Batches(pets(), v), "anything", REFUSED,
             bad={"none": None, "list": [[0]], "text": "x", "number": 3}, good={"one": data.StreamAligned(CLASSES, 3)}),
    Argument("data.Batches(labels=)", lambda v: data.Batches(pets(), data.StreamAligned(CLASSES, 3), labels=v), "flag", REFUSED),
    Argument("data.read_idx(path=)", data.read_idx, "path", REFUSED, bad={**NO_FILE, **NONE}),
    Argument("data.read_cifar10(path=)", data.read_cifar10, "path", REFUSED, bad={**NO_FILE, **NONE}),
]  # fmt: skip

STATES = infer(trace="states")
NO_NEURON = {
    "text": "h1",
    "number": 3,
    "none": None,
    "a node": ("h1",),
    "no such neuron": ("h1", 10**6),
    "list": ["h1", 0],
    "unknown": ("q", 0),
}
NO_SAMPLE = {"negative": -1, "large": 10**6, "float": 0.5, "text": "0", "bool": True}
#: Argument -> bad and good values, for the pictures of inference on its way.
WATCHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "result": ({**NO_OBJECT, **NONE, "untraced": infer(), "net": net()}, {"one": STATES}),
    "node": ({"unknown": "q", "number": 3, "list": []}, {"one": "h1"}),
    "path": (NO_IMAGE_PATH, {}), "ax": (NO_AXES, NONE), "title": (NO_TITLE, {"text": "$a"}),
    "neurons": ({"number": 3, "text": "0", "none of them": [], "large": [10**6], "negative": [-1]}, {"one": [0], **NONE}),
    "sample": (NO_SAMPLE, {"first": 0}), "kind": ({"other": "state", "number": 3, **NONE}, {"errors": "errors"}),
    "x": (NO_NEURON, {"one": ("h1", 0)}), "y": (NO_NEURON, {"one": ("h1", 0)}),
    "samples": ({"zero": 0, "text": "2", "float": 0.5, **NONE}, {"one": 1}),
    "shape": ({"text": "a", "zero": 0, "too large": (50, 50)}, NONE), "seconds": ({"huge": 1e300, "zero": 0, "text": "1", "nan": float("nan"), **NONE}, {"one": 1.0}),
}  # fmt: skip
WATCHING: dict[str, dict[str, Any]] = {
    "trajectories": {"result": STATES, "node": "h1", "path": None, "neurons": None, "sample": 0, "kind": "states", "ax": None, "title": ""},
    "phase": {"result": STATES, "x": ("h1", 0), "y": ("h1", 1), "path": None, "samples": 3, "ax": None, "title": ""},
    "errors": {"result": STATES, "path": None, "node": None, "sample": None, "ax": None, "title": ""},
    "animate": {"result": STATES, "node": "h1", "kind": "states", "shape": None, "seconds": 1.0, "title": "",
                "path": Path(tempfile.gettempdir()) / "pcgraph_watched.gif"},
}  # fmt: skip


def watched(name: str, **changed: Any) -> Any:
    return drawn(getattr(drawing, name), **{**WATCHING[name], **changed})


PICTURES = [
    Argument("drawing.graph(graph_or_net=)", lambda v: drawn(drawing.graph, v), "anything", GraphError,
             bad={**{k: v for k, v in NO_GRAPH.items() if k != "without shapes"}, **NO_SLOTS}, good={"one": GRAPH, "net": net(), **HALF_DONE}),
    Argument("drawing.graph(clamped=)", lambda v: drawn(drawing.graph, GRAPH, v), "anything", ClampError,
             bad={"text": "x", "number": 3, "unknown": ["z"], "unhashable": [["x"]], "of None": {"x": None}, "bool": True},
             good={"set": {"x"}, "none": None}),
    Argument("drawing.svg(graph_or_net=)", drawing.svg, "anything", GraphError,
             bad={**{k: v for k, v in NO_GRAPH.items() if k != "without shapes"}, **NO_SLOTS}, good={"one": GRAPH, "net": net(), **HALF_DONE}),
    Argument("drawing.svg(clamped=)", lambda v: drawing.svg(GRAPH, v), "anything", ClampError,
             bad={"text": "x", "number": 3, "unknown": ["z"], "unhashable": [["x"]], "of None": {"x": None}, "bool": True},
             good={"set": {"x"}, "none": None}),
    Argument("drawing.svg(path=)", lambda v: drawing.svg(GRAPH, path=v), "anything", REFUSED,
             bad={**NO_IMAGE_PATH, "png": "graph.png"}, good=NONE),
    Argument("drawing.svg(result=)", lambda v: drawing.svg(GRAPH, result=v), "anything", ConfigError,
             bad={"text": "x", "number": 3, "list": [], "bool": True, "class": object}, good=NONE),
    Argument("drawing.svg(title=)", lambda v: drawing.svg(GRAPH, title=v), "anything", ConfigError, bad=NO_TITLE, good={"text": "$a"}),
    *(Argument(f"drawing.{name}(path=)", lambda v, call=call: call(path=v), "anything", REFUSED, bad=NO_IMAGE_PATH, good=NONE)
      for name, call in (
          ("graph", lambda **k: drawn(drawing.graph, GRAPH, **k)), ("energy", lambda **k: drawn(drawing.energy, infer(**TRACED), **k)),
          ("trace", lambda **k: drawn(drawing.trace, infer(**TRACED), **k)), ("images", lambda **k: drawn(drawing.images, IMAGES, **k)),
          ("learning_curve", curve))),
    *(Argument(f"drawing.{name}(ax=)", lambda v, call=call: call(ax=v), "anything", ConfigError, bad=NO_AXES, good=NONE)
      for name, call in (
          ("graph", lambda **k: drawn(drawing.graph, GRAPH, **k)), ("energy", lambda **k: drawn(drawing.energy, infer(**TRACED), **k)),
          ("trace", lambda **k: drawn(drawing.trace, infer(**TRACED), **k)))),
    *(Argument(f"drawing.{name}(title=)", lambda v, call=call: call(title=v), "anything", ConfigError, bad=NO_TITLE, good={"text": "$a"})
      for name, call in (
          ("graph", lambda **k: drawn(drawing.graph, GRAPH, **k)), ("energy", lambda **k: drawn(drawing.energy, infer(**TRACED), **k)),
          ("trace", lambda **k: drawn(drawing.trace, infer(**TRACED), **k)), ("images", lambda **k: drawn(drawing.images, IMAGES, **k)),
          ("learning_curve", curve))),
    *(Argument(f"drawing.{name}(result=)", lambda v, make=make: drawn(make, v), "anything", ConfigError,
               bad={**NO_OBJECT, **NONE, "untraced": infer(), "net": net()}, good={"one": infer(**TRACED)})
      for name, make in (("energy", drawing.energy), ("trace", drawing.trace))),
    *(Argument(f"drawing.{name}({key}=)", lambda v, name=name, key=key: watched(name, **{key: v}), "anything", REFUSED, bad=bad, good=good)
      for name in WATCHING for key, (bad, good) in WATCHED.items() if key in WATCHING[name]),
    Argument("drawing.images(values=)", lambda v: drawn(drawing.images, v), "anything", ConfigError,
             bad={"none": None, "number": 3, "text": "x", "one dimension": torch.ones(4), "none of them": torch.ones(0, 4),
                  "no pixels": torch.ones(2, 0), "no rows of pixels": torch.ones(2, 0, 3), "rows of two lengths": {"a": torch.ones(2, 4), "b": torch.ones(3, 4)}, "empty": {}, "of text": {"a": "b"},
                  "object": object(), "complex": IMAGES.to(torch.cfloat), "sparse": IMAGES.to_sparse(), "meta": IMAGES.to("meta")},
             good={"tensor": IMAGES, "array": IMAGES.numpy(), "rows": {"a": IMAGES, "b": IMAGES}, "half": IMAGES.half()}),
    Argument("drawing.images(shape=)", lambda v: drawn(drawing.images, IMAGES, shape=v), "anything", ConfigError,
             bad={"number": 5, "text": "2x2", "another": (3, 3), "of texts": ("2", "2"), "four": (1, 1, 2, 2), "negative": (-2, -2),
                  "of floats": (2.0, 2.0), "zero": (0, 4), "bool": True},
             good={"pair": (2, 2), "list": [1, 4], "none": None}),
    Argument("drawing.images(limits=)", lambda v: drawn(drawing.images, IMAGES, limits=v), "anything", ConfigError,
             bad={"number": 4, "text": "row", "one": (0.0,), "turned": (1.0, 0.0), "equal": (1.0, 1.0), "nan": (float("nan"), 1.0),
                  "of texts": ("a", "b"), "bool": True, "none of both": (None, None), "set": {0.0, 1.0}, "huge": (0, 10**400), "generator": iter((0, 1))},
             good={"pair": (0.0, 1.0), "array": np.array([0.0, 1.0]), "rows": "rows", "none": None}),
    Argument("drawing.learning_curve(history=)", curve, "anything", ConfigError,
             bad={**NONE, "one of none": {"a": None}, "number": 3, "text": "x", "list": [], "empty": training.History([]), "no runs": {}, "of text": {"a": "b"}, "class": training.History},
             good={"two": {"a": training.History(RECORDS), "b": training.History(RECORDS)}}),
    Argument("drawing.learning_curve(judged=)", lambda v: curve(judged=v), "anything", ConfigError, bad={**NO_TITLE, **NONE}, good={"text": "test"}),
    Argument("drawing.learning_curve(over=)", lambda v: curve(over=v), "choice", ConfigError, good={"seconds": "seconds"}),
    Argument("drawing.learning_curve(smm=)", lambda v: curve(over="smm", smm=v), "positive count", ConfigError),
]  # fmt: skip
