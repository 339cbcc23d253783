"""A workspace holds the buffers of a network for one batch size, and what is bound to them.

For every group of nodes of one shape: H the states, A what comes in, M the predictions, E the errors (during a step
also the gradient of the states), S the signals that errors send back, each ``(nodes, batch, size)``. A buffer is made
when the first call that uses it is bound; a step allocates nothing. All plans of the network with this batch size work
on the same buffers, one after the other, and calls that they have in common are bound once.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from pcgraph.backends.settings import autocast_of, switches
from pcgraph.backends.torch.calls import Rows, numbers, rows
from pcgraph.backends.traits import Traits, traits_of
from pcgraph.network import Bucket, Network, every_parameter

__all__ = ["Bound", "Step", "Workspace", "reader", "writer"]

Step = Callable[[], object]
T = TypeVar("T")


@dataclass(eq=False)
class Bound(Generic[T]):
    """What is bound is a function on the buffers, what a run that calls it does at its start, and what it rests on."""

    run: T
    refresh: tuple[Step, ...]
    parts: tuple[Bound[Any], ...]


class Workspace:
    """A workspace holds buffers for `net` with a batch of `batch` samples.

    Attributes
    ----------
    traits : Traits
        The thresholds of the device.
    half : torch.dtype or None
        The dtype of the factors of dense products, where ``torch.autocast`` is on and states are float32.
    deterministic : bool
        Whether ``torch.use_deterministic_algorithms`` is on.
    cache : dict
        What kernels keep between their calls.
    recorded : bool
        Whether a recording holds the addresses of all that is bound.
    """

    def __init__(self, net: Network, batch: int) -> None:
        self.net, self.batch = net, batch
        self.structure = net.structure
        self.dtype, self.device = net.dtype, net.device
        self.traits: Traits = traits_of(self.device.type)
        self.half = autocast_of(self.device) if self.dtype == torch.float32 else None
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        #: Whether what is bound next may use :mod:`pcgraph.backends.torch.onednn`.
        self.onednn = False
        self.cache: dict[Any, Any] = {}
        self.recorded = False
        self.reader: weakref.ref[Any] | None = None
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._bound: weakref.WeakValueDictionary[Hashable, Bound[Any]] = weakref.WeakValueDictionary()
        #: Of what is being bound now.
        self._refreshing: list[Step] = []
        self._parts: list[Bound[Any]] = []
        self._scratch: dict[tuple[str, torch.dtype], Tensor] = {}
        #: Scratch that was too small for somebody. What was recorded before still writes there.
        self._outgrown: list[Tensor] = []
        self._bound_to = self._marks()

    def _marks(self) -> tuple[object, ...]:
        net = self.net
        return net.dtype, net.device, *switches(self.device), *(p.data_ptr() for p in every_parameter(net))

    @property
    def stale(self) -> bool:
        """Tell whether what is bound no longer fits the network.

        It was moved, its parameters were replaced, or torch's switches were thrown.
        """
        return self._bound_to != self._marks()

    @property
    def taken(self) -> bool:
        """Tell whether somebody still reads what the last run left in the buffers."""
        return self.reader is not None and self.reader() is not None

    # -- buffers ------------------------------------------------------------------------------------------------------

    def h(self, group: int) -> Tensor:
        """Return the states of a group, (nodes, batch, size)."""
        return self._buffer("h", group)

    def a(self, group: int) -> Tensor:
        """Return what comes into a group, (nodes, batch, size)."""
        return self._buffer("a", group)

    def m(self, group: int) -> Tensor:
        """Return the predictions of a group: the tensor :meth:`a` itself where all its activations are the identity."""
        segments = (s for s in self.structure.segments if s.group == group and s.energy is not None)
        return self._buffer("a" if all(s.activation.is_identity for s in segments) else "m", group)

    def e(self, group: int) -> Tensor:
        """Return the errors of a group, or the gradients of its states, (nodes, batch, size)."""
        return self._buffer("e", group)

    def s(self, group: int) -> Tensor:
        """Return the signals of a group, (nodes, batch, size)."""
        return self._buffer("s", group)

    def x(self, group: int) -> Tensor:
        """Return the errors of a group that are variables, (nodes, batch, size)."""
        return self._buffer("x", group)

    def dual(self, group: int) -> Tensor:
        """Return the duals of a group, (nodes, batch, size)."""
        return self._buffer("l", group)

    def r(self, group: int) -> Tensor:
        """Return how much of an error is added to a dual, (nodes, batch, size): the rate, or 0 where it is held."""
        return self._buffer("r", group)

    def p(self, group: int) -> Tensor:
        """Return the precisions of this step of a group, (nodes, 1, 1)."""
        return self._buffer("p", group)

    def _buffer(self, name: str, group: int) -> Tensor:
        if (name, group) not in self._buffers:
            size = self.structure.groups[group]
            made = self.empty(size.count, *((1, 1) if name == "p" else (self.batch, size.size)))
            # Rows that no call writes may lie between those that one reads as a slice.
            self._buffers[name, group] = made.zero_() if name in "es" else made
        return self._buffers[name, group]

    def base(self, key: tuple[int, int], size: int) -> Tensor:
        """Return a tensor for kept contributions of nodes of one level and group: ``(size, batch, neurons)``."""
        name = ("base", key, size)
        if name not in self.cache:
            self.cache[name] = self.empty(size, self.batch, self.structure.groups[key[1]].size)
        kept: Tensor = self.cache[name]
        return kept

    def empty(self, *shape: int) -> Tensor:
        """Make an uninitialised tensor of the states' dtype and device."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def scratch(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return a tensor whose content lasts until the next call with this name and dtype (else the states')."""
        size, key = math.prod(shape), (name, dtype or self.dtype)
        flat = self._scratch.get(key)
        if flat is None or flat.numel() < size:
            if self.recorded and flat is not None:
                self._outgrown.append(flat)
            flat = self._scratch[key] = torch.empty(size, dtype=key[1], device=self.device)
        return flat[:size].view(shape)

    # -- binding ------------------------------------------------------------------------------------------------------

    def bound(self, key: Hashable, bind: Callable[[], T]) -> Bound[T]:
        """Return what `bind` makes; it is made once for as long as some program holds it."""
        found = self._bound.get(key)
        if found is None:
            outer = self._refreshing, self._parts
            self._refreshing, self._parts = [], []
            try:
                run = bind()
                found = Bound(run, tuple(dict.fromkeys(self._refreshing)), tuple(self._parts))
            finally:
                self._refreshing, self._parts = outer
            self._bound[key] = found
        self._refreshing += found.refresh
        self._parts.append(found)
        return found

    def refreshed(self, step: Step) -> None:
        """Call `step` now, and at the start of every run of what is being bound, since the weights may have changed."""
        self._refreshing.append(step)
        step()

    def weights(self, bucket: Bucket) -> Tensor:
        """Return the packed weights of a bucket times its scale, in the states' dtype.

        It is the parameter itself, or where the scale is not 1 a copy that is refreshed for every run. Transposed edges
        get that of the bucket whose rows they use, not transposed.
        """
        assert bucket.packed is not None
        weight: Tensor = self.net.weights[bucket.packed].detach()
        if bucket.scale == 1.0:
            return weight

        def scaled() -> Tensor:
            copy = torch.empty_like(weight)
            self.refreshed(lambda: torch.mul(weight, bucket.scale, out=copy))
            return copy

        return self.bound(("scaled", bucket.name), scaled).run

    def packed(self, bucket: Bucket) -> Tensor:
        """Return :meth:`weights` as dense products read them: under autocast a copy in its dtype, also refreshed."""
        if self.half is None:
            return self.weights(bucket)

        def cast() -> Tensor:
            weight = self.weights(bucket)
            copy = torch.empty_like(weight, dtype=self.half)
            self.refreshed(lambda: copy.copy_(weight))
            return copy

        return self.bound(("half", bucket.name), cast).run

    def constant(self, key: tuple[Any, ...], make: Callable[[], Tensor]) -> Tensor:
        """Bring a tensor of the host's to the device once and keep it: a run copies nothing from the host."""
        if key not in self.cache:
            self.cache[key] = make().to(self.device)
        kept: Tensor = self.cache[key]
        return kept

    def index(self, which: Rows) -> Tensor | slice:
        """Return rows as something a tensor on this device can be indexed with."""
        if isinstance(which, slice):
            return which
        return torch.from_numpy(np.ascontiguousarray(which)).to(self.device)

    def bias_index(self, nodes: np.ndarray[Any, Any]) -> Tensor | slice:
        """Return the rows of the packed bias that belong to these nodes of one group, each of which has one."""
        return self.index(rows(self.net.bias_row[nodes]))

    def _shared_bias(self, nodes: np.ndarray[Any, Any]) -> Tensor:
        """Return the biases of these nodes, some of which neurons share: a copy that is refreshed for every run."""
        shape = self.structure.groups[int(self.structure.group_of[nodes[0]])].shape
        copy = self.empty(len(nodes), 1, math.prod(shape)).zero_()
        pairs = [
            (copy[k, 0].view(shape), self.net.biases[self.structure.bias_name(i)].detach()[int(self.net.bias_row[i])])
            for k, i in enumerate(nodes.tolist())
            if self.net.bias_row[i] >= 0
        ]

        def spread() -> None:
            for row, bias in pairs:
                row.copy_(bias.expand(shape))

        self.refreshed(spread)
        return copy

    def bias(self, group: int, which: Rows) -> Tensor | None:
        """Return the current biases of these nodes, ``(nodes, 1, size)``, or None if none of them has one.

        It is zero where a node has none; and a view of the parameter, or a copy that is refreshed for every run.
        """
        wanted = self.structure.groups[group].start + numbers(which)
        inside = self.net.bias_row[wanted] >= 0
        if not inside.any():
            return None
        if not self.structure.shared_biases.keys().isdisjoint(wanted.tolist()):
            return self._shared_bias(wanted)
        name = f"bias_{self.structure.groups[group].name}"
        packed: Tensor = self.net.biases[name].detach().flatten(1).unsqueeze(1)
        source = self.bias_index(wanted[inside])
        read = reader(packed, source)
        if inside.all() and isinstance(source, slice):
            return read()
        copy = self.empty(len(wanted), 1, packed.shape[2]).zero_()
        to = torch.from_numpy(np.flatnonzero(inside)).to(self.device)
        self.refreshed(lambda: copy.index_copy_(0, to, read()))
        return copy


def reader(buffer: Tensor, which: Tensor | slice) -> Callable[[], Tensor]:
    """Return a function that returns rows of a buffer: a view for a slice, a copy for an index."""
    if isinstance(which, slice):
        view = buffer[which]
        return lambda: view
    return lambda: buffer.index_select(0, which)


def writer(buffer: Tensor, which: Tensor | slice) -> Callable[[Tensor], object]:
    """Return a function that writes rows of a buffer."""
    if isinstance(which, slice):
        return buffer[which].copy_
    return lambda value: buffer.index_copy_(0, which, value)
