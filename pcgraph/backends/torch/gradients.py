"""Weights and biases get their local gradients at the final states here (paper, Eq 4, sign corrected).

    dF/dW_uv = -c_uv s_v phi_uv(h_u)^T        dF/db_v = -s_v

Each needs what lies at the two ends of its edge and nothing else. The first gradient into a parameter that has none is
written, and every later one added.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pcgraph.backends.torch.calls import Rows, SendBack, numbers, rows
from pcgraph.backends.torch.products import Learn
from pcgraph.backends.torch.workspace import Workspace, reader
from pcgraph.network import Bucket

__all__ = ["Gradient", "bias_gradient", "packed"]

#: Adds gradients, scaled, to ``.grad``.
Gradient = Callable[[float], None]


def packed(bind: Callable[[Workspace, SendBack], Learn]) -> Callable[[Workspace, Bucket, list[SendBack]], Gradient]:
    """Make the gradient of a packed weight from a kernel's gradient for each call.

    Parameters
    ----------
    bind : callable
        ``(workspace, call) -> learn``; see :data:`~pcgraph.backends.torch.products.Learn`.
    """

    def gradient(ws: Workspace, bucket: Bucket, calls: list[SendBack]) -> Gradient:
        assert bucket.packed is not None
        parameter: nn.Parameter = ws.net.weights[bucket.packed]
        learns = [bind(ws, call) for call in calls]
        written = np.zeros(len(parameter), dtype=np.int64)
        for call in calls:
            edges = numbers(call.edges) - bucket.start
            np.add.at(written, edges if bucket.weight is None else bucket.weight[edges], 1)
        missed = ws.index(rows(np.flatnonzero(written == 0)))
        begin = _written(parameter, missed) if (written <= 1).all() else _zeros(parameter)

        def run(scale: float) -> None:
            if not parameter.requires_grad:
                return
            beta = 1.0
            if parameter.grad is None:
                parameter.grad, beta = begin()
            for learn in learns:
                learn(parameter.grad, scale * bucket.scale, beta)

        return run

    return gradient


def _written(parameter: nn.Parameter, missed: Tensor | slice) -> Callable[[], tuple[Tensor, float]]:
    """Return what makes an empty gradient, every row of which is either written by a call or cleared here."""
    if isinstance(missed, slice):

        def in_slice() -> tuple[Tensor, float]:
            gradient = torch.empty_like(parameter)
            gradient[missed].zero_()
            return gradient, 0.0

        return in_slice
    return lambda: (torch.empty_like(parameter).index_fill_(0, missed, 0.0), 0.0)


def _zeros(parameter: nn.Parameter) -> Callable[[], tuple[Tensor, float]]:
    return lambda: (torch.zeros_like(parameter), 1.0)


def bias_gradient(ws: Workspace, group: int, which: Rows) -> Gradient:
    """Bind the gradient of the biases of some nodes of a group, each of which has one."""
    first = ws.structure.groups[group].start
    shared = [i for i in numbers(which).tolist() if first + i in ws.structure.shared_biases]
    parts = [_shared_bias_gradient(ws, group, i) for i in shared]
    own = np.setdiff1d(numbers(which), shared)
    if len(own):
        parts.append(_own_bias_gradient(ws, group, rows(own)))

    def run(scale: float) -> None:
        for part in parts:
            part(scale)

    return parts[0] if len(parts) == 1 else run


def _shared_bias_gradient(ws: Workspace, group: int, position: int) -> Gradient:
    """Bind that of one node whose neurons share their bias: what comes to them is added up."""
    g = ws.structure.groups[group]
    i, signal = g.start + position, ws.s(group)[position].view(-1, *g.shape)
    parameter: nn.Parameter = ws.net.biases[ws.structure.bias_name(i)]
    row = int(ws.net.bias_row[i])

    def run(scale: float) -> None:
        if not parameter.requires_grad:
            return
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad[row].sub_(signal.sum_to_size(1, *parameter.shape[1:])[0], alpha=scale)

    return run


def _own_bias_gradient(ws: Workspace, group: int, which: Rows) -> Gradient:
    parameter: nn.Parameter = ws.net.biases[f"bias_{ws.structure.groups[group].name}"]
    signals = reader(ws.s(group), ws.index(which))
    own = ws.bias_index(ws.structure.groups[group].start + numbers(which))
    flat = (parameter.shape[0], -1)

    subtract = _subtracting(own)

    def run(scale: float) -> None:
        if not parameter.requires_grad:
            return
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        subtract(parameter.grad.view(flat), signals().sum(1), scale)

    return run


def _subtracting(where: Tensor | slice) -> Callable[[Tensor, Tensor, float], object]:
    """Return a function of (gradient, sums, scale): these rows of the gradient lose `scale` times the sums."""
    if isinstance(where, slice):
        return lambda gradient, sums, scale: gradient[where].sub_(sums, alpha=scale)
    return lambda gradient, sums, scale: gradient.index_add_(0, where, sums, alpha=-scale)
