"""Edges without packed weights: the identity, and modules with autograd on that one edge."""

from __future__ import annotations

import torch
from torch import Tensor

from pcgraph.kernels.edges import Edges
from pcgraph.kernels.workspace import Step, Workspace
from pcgraph.plan.operations import Forward, Pull

__all__ = ["identity_forward", "identity_pull", "module_forward", "module_pull", "module_weights"]


def identity_forward(ws: Workspace, call: Forward) -> Step:
    """``A[target] += phi(H[source])``."""
    edges = Edges(ws, call)
    h, a, phi = ws.h[edges.source_group], ws.a[edges.target_group], edges.bucket.phi
    source, target = _index(ws, edges.source), _index(ws, edges.target)
    shape = ws.plan.structure.groups[edges.source_group].shape

    def run() -> None:
        x = h.index_select(0, source)
        a.index_add_(0, target, x if phi.is_identity else phi(x.view(-1, *shape)).view(x.shape))

    return run


def identity_pull(ws: Workspace, call: Pull) -> Step:
    """``E[source] -= phi'(H[source]) * S[target]``."""
    edges = Edges(ws, call)
    h, e, s = ws.h[edges.source_group], ws.e[edges.source_group], ws.s[edges.target_group]
    source, target, phi = _index(ws, edges.source), _index(ws, edges.target), edges.bucket.phi
    shape = ws.plan.structure.groups[edges.source_group].shape

    def run() -> None:
        back = s.index_select(0, target)
        if not phi.is_identity:
            x = h.index_select(0, source)
            back = phi.pullback(back.view(-1, *shape), x.view(-1, *shape)).view(x.shape)
        e.index_add_(0, source, back, alpha=-1)

    return run


def _index(ws: Workspace, numbers: object) -> Tensor:
    return torch.as_tensor(numbers, device=ws.device)


def module_forward(ws: Workspace, call: Forward) -> Step:
    """Run the module on its edge and keep the graph of that one evaluation."""
    edges = Edges(ws, call)
    h, a = ws.h[edges.source_group], ws.a[edges.target_group]
    shape = ws.plan.structure.groups[edges.source_group].shape
    module, phi = ws.net.edge_modules[edges.bucket.name], edges.bucket.phi
    places = list(zip(edges.source.tolist(), edges.target.tolist(), _numbers(call)))
    record: dict[int, tuple[Tensor, Tensor]] = ws.cache.setdefault("module", {})

    def run() -> None:
        for source, target, number in places:
            with torch.enable_grad():
                x = h[source].clone().view(-1, *shape).requires_grad_()
                y = module(phi(x))
            record[number] = (x, y)
            a[target].add_(y.detach().reshape(a[target].shape))

    return run


def _numbers(call: Forward | Pull) -> list[int]:
    if isinstance(call.edges, slice):
        return list(range(call.edges.start, call.edges.stop))
    return [int(i) for i in call.edges]


def module_pull(ws: Workspace, call: Pull) -> Step:
    """Pull the target's signal back through the kept graph."""
    edges = Edges(ws, call)
    e, s = ws.e[edges.source_group], ws.s[edges.target_group]
    places = list(zip(edges.source.tolist(), edges.target.tolist(), _numbers(call)))
    record: dict[int, tuple[Tensor, Tensor]] = ws.cache.setdefault("module", {})

    def run() -> None:
        for source, target, number in places:
            x, y = record[number]
            if not y.requires_grad:
                continue
            (back,) = torch.autograd.grad(y, x, s[target].view(y.shape), retain_graph=True, allow_unused=True)
            if back is not None:
                e[source].sub_(back.view(e[source].shape))

    return run


def module_weights(ws: Workspace, call: Pull, scale: float) -> None:
    """Accumulate the gradient of the module's parameters into their ``.grad``."""
    edges = Edges(ws, call)
    module, s = ws.net.edge_modules[edges.bucket.name], ws.s[edges.target_group]
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return
    record: dict[int, tuple[Tensor, Tensor]] = ws.cache.setdefault("module", {})
    for target, number in zip(edges.target.tolist(), _numbers(call)):
        _, y = record[number]
        grads = torch.autograd.grad(y, parameters, s[target].view(y.shape), retain_graph=True, allow_unused=True)
        for parameter, grad in zip(parameters, grads):
            if grad is not None and parameter.grad is not None:
                parameter.grad.sub_(grad, alpha=scale)
