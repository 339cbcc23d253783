"""Clamps, whole and in part, and batches of a loader."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch

import pcgraph
from pcgraph.errors import ClampError
from tests.bad_calls.calls import LABELS, X, Y, fitted, infer
from tests.bad_calls.kinds import Argument

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch says of some of these that they are new, or old
    NO_CLAMP: dict[str, Any] = {
        "none": None, "number": 3, "list": X.tolist(), "text": "x", "0-dim": torch.tensor(1.0), "sparse": X.to_sparse(),
        "csr": X.to_sparse_csr(), "mkldnn": X.to_mkldnn(), "nested": torch.nested.nested_tensor([X[0], X[1]]),
        "jagged": torch.nested.nested_tensor([X[0], X[1]], layout=torch.jagged), "complex": X.to(torch.cfloat),
        "float8": X.to(torch.float8_e4m3fn), "bool": X > 0, "whole numbers": X.long(), "one sample": X[0], "shape": X[:,
        :3],
        "no samples": X[:0], "nan": X * math.nan, "infinity": X / 0, "meta": X.to("meta"), "object": object(),
        "quantized": torch.quantize_per_tensor(X, 0.1, 0, torch.quint8), "other batch": X[:5],
        "array of objects": np.array([[None] * 4] * 6), "array of texts": np.array([["a"] * 4] * 6),
        "records": np.zeros((6, 4), dtype=[("a", "f4")]), "dates": np.zeros((6, 4), dtype="datetime64[D]"),
        "longdouble": np.zeros((6, 4), dtype=np.longdouble), "array of whole numbers": np.zeros((6, 4), dtype=int),
        "complex array": np.zeros((6, 4), dtype=complex), "array of bool": np.zeros((6, 4), dtype=bool),
        "array of another shape": np.zeros((6, 3)), "array of nan": np.full((6, 4), math.nan),
        "array beyond float32": np.full((6, 4), 1e300), "masked array": np.ma.masked_array(X.numpy(), X.numpy() > 0),
    }  # fmt: skip


ARRAYS: dict[str, Any] = {
    "array": X.numpy(), "double array": X.double().numpy(), "half array": X.half().numpy(),
    "array backwards": X.numpy()[::-1], "transposed array": np.asfortranarray(X.numpy()),
    "big-endian array": X.numpy().astype(">f8"), "read-only array": np.broadcast_to(X.numpy()[:1], (6, 4)),
}  # fmt: skip


def part_clamped(values: Any, mask: Any) -> Any:
    return infer({"x": pcgraph.Masked(values, mask), "y": Y}, init=pcgraph.Zero())


CLAMPS = [
    Argument("PCNetwork.infer(clamps={x: })", lambda v: infer({"x": v, "y": Y}), "anything", ClampError,
             bad={**NO_CLAMP, "half": X.half(), "double": X.double()}, good={"tensor": X,
             "requires grad": X.clone().requires_grad_(), **ARRAYS}),
    Argument("PCNetwork.infer(clamps=)", infer, "anything", ClampError,
             bad={"list": [X, Y], "tensor": X, "empty": {}, "unknown node": {"xx": X}, "number": 3, "text": "x"}),
    Argument("Masked(values=)", lambda v: part_clamped(v, torch.ones(4, dtype=torch.bool)), "anything", ClampError,
             bad=NO_CLAMP, good={"tensor": X, **ARRAYS}),
    Argument("Masked(mask=)", lambda v: part_clamped(X, v), "anything", ClampError,
             bad={"none": None, "list": [True] * 4, "floats": X, "0-dim": torch.tensor(True), "shape": X[:, :3] > 0,
             "number": 1,
                  "sparse": (X > 0).to_sparse(), "whole numbers": (X > 0).long(), "meta": (X > 0).to("meta"),
                  "text": "all", "array of numbers": X.numpy()},
             good={"bools": X > 0, "of a sample": X[0] > 0, "array": X.numpy() > 0}),
    Argument("fit(loader) with a batch of x", lambda v: fitted([(v, Y)]), "anything", ClampError,
             bad={**{k: v for k, v in NO_CLAMP.items() if k not in ("one sample", "float8")},
             "object array": np.array([None] * 6)},
             good={"tensor": X, "double": X.double(), "half": X.half(), **ARRAYS}),
    Argument("fit(loader) with a batch of y", lambda v: fitted([(X, v)]), "anything", ClampError,
             bad={"few": LABELS[:3], "too large": LABELS + 1, "negative": LABELS - 1, "list": LABELS.tolist(),
             "floats": LABELS.float(),
                  "sparse": LABELS.to_sparse(), "0-dim": torch.tensor(1), "bools": LABELS > 0,
                  "texts": np.array(["a"] * 6)},
             good={"classes": LABELS, "numpy": LABELS.numpy(), "rows": Y, "small": LABELS.to(torch.uint8)}),
    Argument("fit(loader) with masked x", lambda v: fitted([{"x": pcgraph.Masked(X, v), "y": Y}], init=pcgraph.Zero()),
             "anything",
             ClampError,
             bad={"list": [True] * 4, "floats": X, "none": None, "sparse": (X > 0).to_sparse()}, good={"bools": X > 0}),
]  # fmt: skip
