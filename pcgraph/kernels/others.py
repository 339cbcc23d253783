"""Edges without packed weights: the identity, and modules.

A module that defines ``pullback`` is run without a graph and pulled back by it; any other is differentiated by autograd
on its one edge. Its weights, at the end, by its ``weight_grad`` or else by autograd. All read the source's state as it
lies in the buffer: an edge is evaluated anew whenever its source has moved, and pulled back before it moves again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pcgraph.kernels.edges import Edges
from pcgraph.kernels.sums import adder
from pcgraph.kernels.workspace import Step, Workspace
from pcgraph.plan.operations import Forward, Pull, numbers
from pcgraph.transforms.base import vjp

__all__ = ["identity_forward", "identity_pull", "module_forward", "module_pull", "module_weights"]


def identity_forward(ws: Workspace, call: Forward) -> Step:
    """``A[target] += phi(H[source])``."""
    edges = Edges(ws, call)
    h, a, phi = ws.h[edges.source_group], ws.a[edges.target_group], edges.bucket.phi
    source, add = _index(ws, edges.source), adder(ws, edges.target)
    shape = ws.plan.structure.groups[edges.source_group].shape

    def run() -> None:
        x = h.index_select(0, source)
        add(a, x if phi.is_identity else phi(x.view(-1, *shape)).reshape(x.shape), 1.0)

    return run


def identity_pull(ws: Workspace, call: Pull) -> Step:
    """``E[source] -= phi'(H[source]) * S[target]``."""
    edges = Edges(ws, call)
    h, e, s = ws.h[edges.source_group], ws.e[edges.source_group], ws.s[edges.target_group]
    source, target, phi = _index(ws, edges.source), _index(ws, edges.target), edges.bucket.phi
    add = adder(ws, edges.source)
    shape = ws.plan.structure.groups[edges.source_group].shape

    def run() -> None:
        back = s.index_select(0, target)
        if not phi.is_identity:
            x = h.index_select(0, source)
            back = phi.pullback(back.view(-1, *shape), x.view(-1, *shape)).reshape(x.shape)
        add(e, back, -1.0)

    return run


def _index(ws: Workspace, numbers: object) -> Tensor:
    return torch.as_tensor(numbers, device=ws.device)


class _Modules:
    """The edges of a call on a bucket of one module: (source, target, canonical number), and how they are computed."""

    def __init__(self, ws: Workspace, call: Forward | Pull) -> None:
        edges = Edges(ws, call)
        self.h, self.a = ws.h[edges.source_group], ws.a[edges.target_group]
        self.e, self.s = ws.e[edges.source_group], ws.s[edges.target_group]
        groups = ws.plan.structure.groups
        self.shape, self.out_shape = groups[edges.source_group].shape, groups[edges.target_group].shape
        self.phi = edges.bucket.phi
        self.module: Any = ws.net.edge_modules[edges.bucket.name]
        self.places = list(zip(edges.source.tolist(), edges.target.tolist(), numbers(call.edges).tolist()))
        self.record: dict[int, tuple[Tensor, Tensor]] = ws.cache.setdefault("module", {})
        self.pullback: Callable[[Tensor, Tensor], Tensor] | None = getattr(self.module, "pullback", None)

    def state(self, source: int) -> Tensor:
        return self.h[source].view(-1, *self.shape)

    def carried(self, source: int) -> Tensor:
        """phi(h), what the module sees."""
        x = self.state(source)
        return x if self.phi.is_identity else self.phi(x)

    def signal(self, target: int, like: tuple[int, ...] | torch.Size) -> Tensor:
        return self.s[target].view(-1, *like)


def module_forward(ws: Workspace, call: Forward) -> Step:
    """``A[target] += module(phi(H[source]))``; without a ``pullback`` the graph of that one evaluation is kept."""
    on = _Modules(ws, call)

    def run() -> None:
        for source, target, number in on.places:
            if on.pullback is None:
                with torch.enable_grad():
                    x = on.state(source).clone().requires_grad_()
                    y = on.module(on.phi(x))
                on.record[number] = (x, y)
            else:
                y = on.module(on.carried(source))
            on.a[target].add_(y.detach().reshape(on.a[target].shape))

    return run


def module_pull(ws: Workspace, call: Pull) -> Step:
    """``E[source] -= phi'(H[source]) * pullback(S[target])``."""
    on = _Modules(ws, call)

    def run() -> None:
        for source, target, number in on.places:
            if on.pullback is None:
                back = _pull_recorded(on, target, number)
            else:
                back = on.pullback(on.signal(target, on.out_shape), on.carried(source))
                if not on.phi.is_identity:
                    back = on.phi.pullback(back, on.state(source))
            if back is not None:
                on.e[source].sub_(back.reshape(on.e[source].shape))

    return run


def _pull_recorded(on: _Modules, target: int, number: int) -> Tensor | None:
    x, y = on.record[number]
    if not y.requires_grad:
        return None
    # Under autocast a module may answer in another dtype than that of the states.
    signal = on.signal(target, y.shape[1:]).to(y.dtype)
    (back,) = torch.autograd.grad(y, x, signal, retain_graph=True, allow_unused=True)
    return back


def module_weights(ws: Workspace, call: Pull, scale: float) -> None:
    """Accumulate the gradient of the module's parameters into their ``.grad``."""
    on = _Modules(ws, call)
    trained = {name: p for name, p in on.module.named_parameters() if p.requires_grad}
    if not trained:
        return
    weight_grad = getattr(on.module, "weight_grad", None)
    for source, target, number in on.places:
        if weight_grad is not None:
            grads = weight_grad(on.signal(target, on.out_shape), on.carried(source))
        elif on.pullback is not None:
            grads = vjp(on.module, on.signal(target, on.out_shape), on.carried(source))[1]
        else:
            _, y = on.record[number]
            signal = on.signal(target, y.shape[1:]).to(y.dtype)
            found = torch.autograd.grad(y, list(trained.values()), signal, retain_graph=True, allow_unused=True)
            grads = dict(zip(trained, found))
        for name, parameter in trained.items():
            if grads[name] is not None and parameter.grad is not None:
                parameter.grad.sub_(grads[name], alpha=scale)
