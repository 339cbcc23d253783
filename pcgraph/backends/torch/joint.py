"""Nodes that combine their parents are computed here: one evaluation a node with a graph, differentiated by autograd.

The first edge into such a node stands for all of them: it evaluates the combine, and keeps its inputs and what came of
them. Every edge pulls its own part out of that graph, and the gradients of all parameters are taken at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcgraph.backends.torch.calls import Send, SendBack, numbers
from pcgraph.backends.torch.gradients import Gradient
from pcgraph.backends.torch.workspace import Step, Workspace
from pcgraph.network import Bucket

__all__ = ["joint_forward", "joint_pull", "joint_weights"]

#: Node -> the states that its edges read, by edge, and what was made of them, with a graph.
Record = dict[int, tuple[dict[int, Tensor], Tensor]]


def _place(ws: Workspace, call: Send | SendBack) -> tuple[int, int, Record]:
    (e,) = numbers(call.edges).tolist()
    record: Record = ws.cache.setdefault("joint", {})
    return e, int(ws.structure.target[e]), record


def _state(ws: Workspace, e: int, buffer: str) -> Tensor:
    """View H or E of the source of an edge as (batch, *shape)."""
    group, position = ws.structure.place(int(ws.structure.source[e]))
    rows: Tensor = getattr(ws, buffer)(group)[position]
    return rows.view(-1, *ws.structure.groups[group].shape)


def _signal(ws: Workspace, i: int, like: Tensor) -> Tensor:
    group, position = ws.structure.place(i)
    return ws.s(group)[position].view(like.shape).to(like.dtype)


def joint_forward(ws: Workspace, call: Send) -> Step:
    """Bind ``A[target] += combine(...)`` for the first of its edges, and nothing for the others."""
    e, i, record = _place(ws, call)
    edges = ws.structure.joint[i]
    if e != edges[0]:
        return lambda: None
    prediction = ws.structure.joint_prediction(i)
    group, position = ws.structure.place(i)
    a, states = ws.a(group)[position], {k: _state(ws, k, "h") for k in edges}

    def run() -> None:
        with torch.enable_grad():
            inputs = {k: h.clone().requires_grad_() for k, h in states.items()}
            y = prediction.of(list(inputs.values()))
        record[i] = inputs, y
        a.add_(y.detach().reshape(a.shape))

    return run


def joint_pull(ws: Workspace, call: SendBack) -> Step:
    """Bind ``E[source] -= (d combine / d H[source])^T S[target]``, the part of one edge."""
    e, i, record = _place(ws, call)
    into = _state(ws, e, "e")

    def run() -> None:
        inputs, y = record[i]
        if not y.requires_grad:
            return
        (back,) = torch.autograd.grad(y, inputs[e], _signal(ws, i, y), retain_graph=True, allow_unused=True)
        if back is not None:
            into.sub_(back)

    return run


def joint_weights(ws: Workspace, bucket: Bucket, calls: list[SendBack]) -> Gradient:
    """Bind adding the gradients of all parameters of a node's combine and edges, scaled, to their ``.grad``."""
    parts = [_weights(ws, *_place(ws, call)) for call in calls]

    def run(scale: float) -> None:
        for part in parts:
            part(scale)

    return run


def _weights(ws: Workspace, e: int, i: int, record: Record) -> Gradient:
    if e != ws.structure.joint[i][0]:
        return lambda scale: None
    module = ws.structure.joint_prediction(i)

    def run(scale: float) -> None:
        trained: list[nn.Parameter] = [p for p in module.parameters() if p.requires_grad]
        _, y = record[i]
        if not trained or not y.requires_grad:
            return
        grads = torch.autograd.grad(y, trained, _signal(ws, i, y), retain_graph=True, allow_unused=True)
        for parameter, grad in zip(trained, grads):
            if grad is not None:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.sub_(grad, alpha=scale)

    return run
