"""The buffers of one run, and what is bound to them.

For every group of nodes of one shape: H the states, A what comes in, M the predictions, E the errors (during a step
also the gradient of the states), S the signals that errors send back, each ``(nodes, batch, size)``. They are made
once; a step allocates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcgraph.kernels import onednn
from pcgraph.network import Network
from pcgraph.plan import Plan
from pcgraph.plan.operations import Rows, numbers, rows

__all__ = ["Step", "Workspace", "switches", "take"]

Step = Callable[[], object]


class Workspace:
    """Buffers for `plan` on `net` with a batch of `batch` samples.

    Attributes
    ----------
    h, a, m, e, s : list of Tensor
        By group; a group whose nodes are all roots without a prior has only `h`, and `e` if one of them is free.
    base : dict
        (level, group) -> kept contributions.
    refresh : list of callables
        To be run at the start of every run, since the weights may have changed.
    cache : dict
        What kernels keep between their calls.
    onednn : bool
        Whether large work goes to :mod:`pcgraph.kernels.onednn`.
    half : torch.dtype or None
        The dtype of the factors of dense products, where ``torch.autocast`` is on and states are float32.
    deterministic : bool
        Whether ``torch.use_deterministic_algorithms`` is on.
    program : object
        The plan bound to these buffers.
    recording : tuple or None
        What the run was recorded for, and its recorder. The buffers are then read by copying.
    escaped : bool
        Whether somebody outside holds views of the buffers, so that they must not be used again.
    """

    def __init__(self, plan: Plan, net: Network, batch: int) -> None:
        self.plan, self.net, self.batch = plan, net, batch
        self.dtype, self.device = net.dtype, net.device
        s = plan.structure
        self.h: list[Tensor] = []
        self.a: list[Tensor] = []
        self.m: list[Tensor] = []
        self.e: list[Tensor] = []
        self.s: list[Tensor] = []
        for g, group in enumerate(s.groups):
            full, none = (group.count, batch, group.size), (0, batch, group.size)
            self.h.append(self.empty(*full))
            runs = [run for run in s.runs if run.group == g and run.energy is not None]
            shape = full if runs else none
            free = bool(plan.free[group.start : group.start + group.count].any())
            linear = all(run.activation.is_identity for run in runs)
            self.a.append(self.empty(*shape))
            self.m.append(self.a[g] if linear else self.empty(*shape))
            self.e.append(torch.zeros(full if free else shape, dtype=self.dtype, device=self.device))
            self.s.append(torch.zeros(shape, dtype=self.dtype, device=self.device))
        self.base = {
            key: self.empty(len(where), batch, s.groups[key[1]].size) for key, where in plan.bases.items()
        }
        self.refresh: list[Step] = []
        self.masked: list[tuple[Tensor, Tensor, Tensor]] = []
        self.cache: dict[Any, Any] = {}
        self._scratch: dict[tuple[str, torch.dtype], Tensor] = {}
        #: Scratch that was too small for somebody. What was recorded before still writes there.
        self._outgrown: list[Tensor] = []
        self.onednn = plan.request.only is None and onednn.serves(self.device, self.dtype)
        self.half = _autocast(self.device) if self.dtype == torch.float32 else None
        self.deterministic = torch.are_deterministic_algorithms_enabled()
        self.bound_to = self._bound_to()
        self.escaped = False
        self.program: Any = None
        self.recording: Any = None

    def _bound_to(self) -> tuple[object, ...]:
        net = self.net
        return net.dtype, net.device, *switches(self.device), *(p.data_ptr() for p in net.parameters())

    @property
    def stale(self) -> bool:
        """Whether the network was moved, its parameters replaced, or torch's switches thrown since this was made."""
        return self.bound_to != self._bound_to()

    def unbind(self) -> None:
        """Let go of all that is bound to the buffers, so that they end with the last view of them."""
        self.program = self.recording = None
        self._outgrown.clear()
        self.refresh.clear()
        self.cache.clear()

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised tensor of the run's dtype and device."""
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def scratch(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor whose content lasts until the next call with this name and dtype (else the run's)."""
        size, key = math.prod(shape), (name, dtype or self.dtype)
        flat = self._scratch.get(key)
        if flat is None or flat.numel() < size:
            if self.recording is not None and flat is not None:
                self._outgrown.append(flat)
            flat = self._scratch[key] = torch.empty(size, dtype=key[1], device=self.device)
        return flat[:size].view(shape)

    def packed(self, name: str) -> Tensor:
        """The packed weights of a bucket as dense products read them.

        The parameter itself, or under autocast a copy in its dtype that is refreshed for every run.
        """
        weight: Tensor = self.net.weights[name].detach()
        if self.half is None:
            return weight
        if ("half", name) not in self.cache:
            copy = self.cache["half", name] = torch.empty_like(weight, dtype=self.half)
            self.refresh.append(lambda: copy.copy_(weight))
            self.refresh[-1]()
        return self.cache["half", name]  # type: ignore[no-any-return]

    def constant(self, key: tuple[Any, ...], make: Callable[[], Tensor]) -> Tensor:
        """A tensor of the host's, brought to the device once and kept: a run copies nothing from the host."""
        if key not in self.cache:
            self.cache[key] = make().to(self.device)
        return self.cache[key]  # type: ignore[no-any-return]

    def index(self, which: Rows) -> Tensor | slice:
        """Rows as something a tensor on this device can be indexed with."""
        if isinstance(which, slice):
            return which
        key = ("index", id(which))
        if key not in self.cache:
            self.cache[key] = (which, torch.from_numpy(np.ascontiguousarray(which)).to(self.device))
        return self.cache[key][1]  # type: ignore[no-any-return]

    def bias_index(self, group: int, which: Rows) -> Tensor | slice:
        """The rows of the packed bias that belong to these nodes, each of which has one."""
        return self.index(rows(self.net.bias_row[self.plan.structure.groups[group].start + numbers(which)]))

    def bias(self, group: int, which: Rows) -> Tensor | None:
        """Current biases of these nodes, ``(nodes, 1, size)``, zero where a node has none; None if none has one.

        It is a view of the parameter, or a copy that is refreshed for every run.
        """
        name = f"bias_{self.plan.structure.groups[group].name}"
        if name not in self.net.biases:
            return None
        wanted = numbers(which)
        inside = self.net.bias_row[self.plan.structure.groups[group].start + wanted] >= 0
        if not inside.any():
            return None
        packed: Tensor = self.net.biases[name].detach().flatten(1).unsqueeze(1)
        source = self.bias_index(group, wanted[inside])
        if inside.all() and isinstance(source, slice):
            return packed[source]
        copy = self.empty(len(wanted), 1, packed.shape[2]).zero_()
        to = torch.from_numpy(np.flatnonzero(inside)).to(self.device)
        self.refresh.append(lambda: copy.index_copy_(0, to, take(packed, source)))
        self.refresh[-1]()
        return copy


def switches(device: torch.device) -> tuple[object, ...]:
    """What torch has been told about how to compute: what is bound, or recorded, holds for these settings alone."""
    return (
        torch.backends.mkldnn.enabled, torch.are_deterministic_algorithms_enabled(), _autocast(device),
        torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]
    )  # fmt: skip


def _autocast(device: torch.device) -> torch.dtype | None:
    on = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else None


def take(buffer: Tensor, which: Tensor | slice) -> Tensor:
    """Rows of a buffer: a view for a slice, a copy for an index."""
    return buffer[which] if isinstance(which, slice) else buffer.index_select(0, which)
