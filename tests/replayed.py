"""A stand-in for a CUDA graph, for where there is none: it takes down torch's operations, and repeats them.

As a graph does, a replay knows the tensors that were there when it was recorded and nothing else: it calls no Python of
the function's, and a number that the function had read is what it was. Taking down leaves every tensor as it was.
"""

from __future__ import annotations

from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pcgraph.inference import capturable, capture

#: Operations that bring a value to the host, or one of the host's to the device.
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "lift_fresh", "_to_copy")


def name_of(function):
    return function.name().split("::")[1].split(".")[0]


class Replayed:
    """Counts what happens to it in `log`; all that were made are in `made`."""

    made: list[Replayed] = []  # noqa: RUF012

    def __init__(self):
        self.log = []
        self.made.append(self)

    def warm(self, function):
        self.log.append("warm")
        return function()

    def record(self, function):
        self.log.append("record")
        with Taken() as taken, mock.patch("torch.from_numpy", brought):
            result = function()
        self.calls = taken.calls
        with torch.no_grad():
            for tensor, before in reversed(taken.before):
                tensor.copy_(before)
        return result

    @torch.no_grad()
    def replay(self):
        self.log.append("replay")
        for function, arguments, keywords, made in self.calls:
            found = tensors(function(*arguments, **keywords))
            for i, tensor in made:
                tensor.copy_(found[i])


def stand_in(monkeypatch):
    """From now on every run that the rules admit is recorded, on any device; returns the list of what records."""
    Replayed.made.clear()
    monkeypatch.setattr(capture, "CudaGraph", Replayed)
    monkeypatch.setattr(capturable, "wrong_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)  # torch for the CPU cannot say
    return Replayed.made


def brought(array):
    raise AssertionError(f"numbers of shape {array.shape} would be brought to the device, which no graph records")


class Taken(TorchDispatchMode):
    """Operations as they are called: (function, arguments, keywords, new tensors among what it returns)."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        for spec, given in zip(function._schema.arguments, arguments):
            self._keep(spec, given)
        for spec in function._schema.arguments:
            if spec.name in keywords:
                self._keep(spec, keywords[spec.name])
        found = function(*arguments, **keywords)
        known = {place(t) for t in tensors((arguments, keywords))}
        made = [(i, t) for i, t in enumerate(tensors(found)) if place(t) not in known]
        if not name_of(function).startswith(("empty", "new_empty")):
            self.calls.append((function, arguments, keywords, made))
        return found

    def _keep(self, spec, given):
        if spec.alias_info is not None and spec.alias_info.is_write:
            self.before += [(t, t.detach().clone()) for t in tensors(given)]


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def place(tensor):
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else id(tensor)


class NoWaiting(TorchDispatchMode):
    """Fails at an operation that would make the host wait for a GPU, or copy from it, while it is `on`."""

    on = True

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        assert not self.on or name_of(function) not in WAITS, f"{function.name()} waits for the device"
        return function(*arguments, **(keywords or {}))
