"""Edges without packed weights are computed here: the identity, modules, and the ties of slots.

A module that defines ``pullback`` is run without a graph and pulled back by it; any other is differentiated by autograd
on its one edge. Its weights, at the end, by its ``weight_grad`` or else by autograd. All read the source's state as it
lies in the buffer: an edge is evaluated anew whenever its source has moved, and pulled back before it moves again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.backends.torch.calls import Send, SendBack, numbers, rows
from pcgraph.backends.torch.edges import EdgeRows, carried, pulled
from pcgraph.backends.torch.sums import adder
from pcgraph.backends.torch.workspace import Step, Workspace, reader, writer
from pcgraph.plan.operations import Index
from pcgraph.transforms.base import vjp

__all__ = [
    "identity_forward", "identity_pull", "module_forward", "module_pull", "module_weights", "tie_forward", "tie_pull",
]  # fmt: skip


def identity_forward(ws: Workspace, call: Send) -> Step:
    """Bind ``A[target] += c phi(H[source])``, c the scale of the edge."""
    edges = EdgeRows(ws, call)
    h, a = ws.h(edges.source_group), ws.a(edges.target_group)
    source, add = _index(ws, edges.source), adder(ws, edges.target)
    states = carried(ws, edges.bucket, lambda: h.index_select(0, source))
    return lambda: add(a, states(), edges.bucket.scale)


def identity_pull(ws: Workspace, call: SendBack) -> Step:
    """Bind ``E[source] -= c phi'(H[source]) * S[target]``."""
    edges = EdgeRows(ws, call)
    h, e, s = ws.h(edges.source_group), ws.e(edges.source_group), ws.s(edges.target_group)
    source, target = _index(ws, edges.source), _index(ws, edges.target)
    back = pulled(ws, edges.bucket, lambda: s.index_select(0, target), lambda: h.index_select(0, source))
    add = adder(ws, edges.source)
    return lambda: add(e, back(), -edges.bucket.scale)


def tie_forward(ws: Workspace, call: Send) -> Step:
    """Bind ``H[slot] = H[node]``."""
    edges = EdgeRows(ws, call)
    h, copy = ws.h(edges.source_group), ws.h(edges.target_group)
    read, write = reader(h, _rows(ws, edges.source)), writer(copy, _rows(ws, edges.target))
    return lambda: write(read())


def tie_pull(ws: Workspace, call: SendBack) -> Step:
    """Bind ``E[node] += E[slot]``: what the slot's own energy has to say of their state."""
    edges = EdgeRows(ws, call)
    e, own = ws.e(edges.source_group), ws.e(edges.target_group)
    source, read = _rows(ws, edges.source), reader(own, _rows(ws, edges.target))
    if isinstance(source, slice):
        nodes = e[source]
        return lambda: nodes.add_(read())
    add = adder(ws, edges.source)
    return lambda: add(e, read(), 1.0)


def _rows(ws: Workspace, places: Index) -> Tensor | slice:
    """Return rows as a slice where they are neighbours and in order."""
    return ws.index(rows(places))


def _index(ws: Workspace, numbers: object) -> Tensor:
    return torch.as_tensor(numbers, device=ws.device)


class _Modules:
    """The edges of a call on one module keep (source, target, canonical number), and how they are computed."""

    def __init__(self, ws: Workspace, call: Send | SendBack) -> None:
        edges = EdgeRows(ws, call)
        groups = ws.structure.groups
        self.h = ws.h(edges.source_group)
        self.shape, self.out_shape = groups[edges.source_group].shape, groups[edges.target_group].shape
        self.phi, self.scale, self.target_group = edges.bucket.phi, edges.bucket.scale, edges.target_group
        #: phi(h) of a source, which is what the module sees.
        self.carried = self.state if self.phi.is_identity else lambda source: self.phi(self.state(source))
        self.module: Any = ws.net.edge_modules[edges.bucket.name]
        self.places = list(zip(edges.source.tolist(), edges.target.tolist(), numbers(call.edges).tolist()))
        self.source_group, self.ws = edges.source_group, ws
        #: Edge -> the source's state, and what the module made of it with a graph.
        self.record: dict[int, tuple[Tensor, Tensor]] = ws.cache.setdefault("module", {})
        self.pullback: Callable[[Tensor, Tensor], Tensor] | None = getattr(self.module, "pullback", None)

    def state(self, source: int) -> Tensor:
        """Return a source's state, (batch, *shape)."""
        return self.h[source].view(-1, *self.shape)

    def signal(self, target: int, like: tuple[int, ...] | torch.Size) -> Tensor:
        """Return what comes back to the module: the target's signal, times the edge's scale."""
        signal = self.ws.s(self.target_group)[target].view(-1, *like)
        return signal if self.scale == 1.0 else signal * self.scale

    def recorded(self, target: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the state, what was made of it, and the signal in its dtype.

        Under autocast a module has a dtype of its own.
        """
        x, y = self.record[number]
        return x, y, self.signal(target, y.shape[1:]).to(y.dtype)


def module_forward(ws: Workspace, call: Send) -> Step:
    """Bind ``A[target] += c module(phi(H[source]))``; without a ``pullback`` the graph of each evaluation is kept."""
    on = _Modules(ws, call)
    a = ws.a(on.target_group)

    def with_graph(source: int, number: int) -> Tensor:
        with torch.enable_grad():
            x = on.state(source).clone().requires_grad_()
            y: Tensor = on.module(on.phi(x))
        on.record[number] = (x, y)
        return y

    def without_graph(source: int, number: int) -> Tensor:
        return on.module(on.carried(source))  # type: ignore[no-any-return]

    evaluate = with_graph if on.pullback is None else without_graph

    def run() -> None:
        for source, target, number in on.places:
            a[target].add_(evaluate(source, number).detach().reshape(a[target].shape), alpha=on.scale)

    return run


def module_pull(ws: Workspace, call: SendBack) -> Step:
    """Bind ``E[source] -= phi'(H[source]) * pullback(c S[target])``."""
    on = _Modules(ws, call)
    e, pullback = ws.e(on.source_group), on.pullback

    def by_autograd(source: int, target: int, number: int) -> None:
        x, y, signal = on.recorded(target, number)
        if y.requires_grad:
            (back,) = torch.autograd.grad(y, x, signal, retain_graph=True, allow_unused=True)
            if back is not None:
                e[source].sub_(back.reshape(e[source].shape))

    def by_pullback(source: int, target: int, number: int) -> None:
        assert pullback is not None
        back = pullback(on.signal(target, on.out_shape), on.carried(source))
        e[source].sub_(through(back, source).reshape(e[source].shape))

    def along_phi(back: Tensor, source: int) -> Tensor:
        return on.phi.pullback(back, on.state(source))

    through = (lambda back, source: back) if on.phi.is_identity else along_phi
    send = by_autograd if pullback is None else by_pullback

    def run() -> None:
        for place in on.places:
            send(*place)

    return run


def module_weights(ws: Workspace, call: SendBack) -> Callable[[float], None]:
    """Bind adding the gradient of the module's parameters, scaled, to their ``.grad``."""
    on = _Modules(ws, call)
    weight_grad = getattr(on.module, "weight_grad", None)

    def by_rule(source: int, target: int, number: int, trained: dict[str, nn.Parameter]) -> Any:
        return weight_grad(on.signal(target, on.out_shape), on.carried(source))  # type: ignore[misc]

    def by_vjp(source: int, target: int, number: int, trained: dict[str, nn.Parameter]) -> Any:
        return vjp(on.module, on.signal(target, on.out_shape), on.carried(source))[1]

    def by_graph(source: int, target: int, number: int, trained: dict[str, nn.Parameter]) -> Any:
        _, y, signal = on.recorded(target, number)
        found = torch.autograd.grad(y, list(trained.values()), signal, retain_graph=True, allow_unused=True)
        return dict(zip(trained, found))

    gradient = by_rule if weight_grad is not None else by_graph if on.pullback is None else by_vjp

    def run(scale: float) -> None:
        trained = {name: p for name, p in on.module.named_parameters() if p.requires_grad}
        for place in on.places if trained else ():
            grads = gradient(*place, trained)
            for name, parameter in trained.items():
                if grads[name] is not None:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    parameter.grad.sub_(grads[name], alpha=scale)

    return run
