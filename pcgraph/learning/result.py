"""Learning: local weight gradients at the final states (paper, Eq 4, sign corrected).

    dF/dW_uv = -s_v phi_uv(h_u)^T        dF/db_v = -s_v        averaged over the batch

Each needs what lies at the two ends of its edge and nothing else.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pcgraph.errors import ConfigError, PCGraphWarning
from pcgraph.inference import Inference
from pcgraph.kernels import Learn, Workspace, bind_weights, take
from pcgraph.kernels.others import module_weights
from pcgraph.plan.operations import numbers, rows

__all__ = ["InferenceResult"]


class InferenceResult(Inference):
    """The outcome of an inference, from which the network can learn."""

    #: Whether the network has learned from this result.
    learned = False

    def accumulate(self, factor: float = 1.0) -> None:
        """Add `factor` times the local gradients to the ``.grad`` of the network's parameters, and nothing else."""
        scale = factor / self.batch
        with torch.inference_mode(False), torch.no_grad():  # what is made lazily here serves ordinary runs later on
            _weights(self._ws, scale)
            _biases(self._ws, scale)
            self._energies(scale)

    def backward(self) -> None:
        """Add the local gradients to the ``.grad`` of the network's parameters, and let the initializer remember.

        The energy is averaged over the batch here, as losses are. Edges that no error has reached get exactly zero.

        Raises
        ------
        ConfigError
            It was called before on this result.

        Warns
        -----
        PCGraphWarning
            No error can have arisen: every gradient is zero.
        """
        if self.learned:
            raise ConfigError("backward() was already called on this result; run net.infer(...) again")
        self.learned = True
        if not self.plan.final.errors and self.plan.structure.buckets:
            warnings.warn(
                "there is nothing to learn from: nothing that is predicted is clamped, so that every error is zero "
                f"(clamped: {', '.join(map(repr, self.clamped_values))}); clamp the target as well",
                PCGraphWarning,
                stacklevel=2,
            )
        self.accumulate()
        self.remember()

    @torch.no_grad()
    def remember(self) -> None:
        """Let the initializer observe this result."""
        self.init.learn(self)

    def _energies(self, scale: float) -> None:
        """Gradients of an energy's own parameters (a learned precision, say), by autograd."""
        ws = self._ws
        for op in ws.plan.final.errors:
            run = ws.plan.structure.runs[op.run]
            if run.gaussian:
                continue
            energy = ws.net.energy_of(op.run)
            parameters = [p for p in energy.parameters() if p.requires_grad]
            if parameters:
                index, shape = ws.index(op.rows), ws.plan.structure.groups[run.group].shape
                h, mu = take(ws.h[run.group], index), take(ws.m[run.group], index)
                with torch.enable_grad():
                    total = energy.energy(h.reshape(-1, *shape), mu.reshape(-1, *shape)).sum() * scale
                    grads = torch.autograd.grad(total, parameters, allow_unused=True)
                for parameter, grad in zip(parameters, grads):
                    if grad is not None:
                        _gradient(parameter).add_(grad)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


@dataclass
class _Packed:
    """One packed weight, the operations that write its gradient, and the rows that none of them writes."""

    parameter: nn.Parameter
    learn: list[Learn]
    missed: Tensor | slice
    plain: bool


def _packed(ws: Workspace) -> list[_Packed]:
    result: list[_Packed] = []
    for bucket in ws.plan.structure.buckets:
        parameter = ws.net.weights.get(bucket.name)
        if parameter is None:
            continue
        calls = [call for call in ws.plan.weights if ws.plan.structure.buckets[call.bucket] is bucket]
        written = np.zeros(bucket.rows, dtype=np.int64)
        for call in calls:
            edges = numbers(call.edges) - bucket.start
            np.add.at(written, edges if bucket.weight is None else bucket.weight[edges], 1)
        missed = ws.index(rows(np.flatnonzero(written == 0)))
        plain = bool((written <= 1).all())
        result.append(_Packed(parameter, [bind_weights(ws, call) for call in calls], missed, plain))
    return result


def _weights(ws: Workspace, scale: float) -> None:
    if "learn" not in ws.cache:
        ws.cache["learn"] = _packed(ws)
    for packed in ws.cache["learn"]:
        if not packed.parameter.requires_grad:
            continue
        beta = 1.0
        if packed.parameter.grad is None and packed.plain:
            packed.parameter.grad = torch.empty_like(packed.parameter)
            if isinstance(packed.missed, slice):
                packed.parameter.grad[packed.missed].zero_()
            else:
                packed.parameter.grad.index_fill_(0, packed.missed, 0.0)
            beta = 0.0
        gradient = _gradient(packed.parameter)
        for learn in packed.learn:
            learn(gradient, scale, beta)
    for parameter in ws.net.parameters():
        if parameter.requires_grad:
            _gradient(parameter)
    for call in ws.plan.weights:
        if call.kernel == "module":
            module_weights(ws, call, scale)


def _bias_rows(ws: Workspace) -> list[tuple[nn.Parameter, Tensor, Tensor | slice, Tensor | slice]]:
    """(parameter, signals, rows of the signals, rows of the parameter) for each part of a group that learns."""
    result = []
    for group, where in ws.plan.biases:
        parameter = ws.net.biases[f"bias_{ws.plan.structure.groups[group].name}"]
        result.append((parameter, ws.s[group], ws.index(where), ws.bias_index(group, where)))
    return result


def _biases(ws: Workspace, scale: float) -> None:
    if "biases" not in ws.cache:
        ws.cache["biases"] = _bias_rows(ws)
    for parameter, signals, where, own in ws.cache["biases"]:
        if not parameter.requires_grad:
            continue
        sums = take(signals, where).sum(1)
        gradient = _gradient(parameter).view(parameter.shape[0], -1)
        if isinstance(own, slice):
            gradient[own].sub_(sums, alpha=scale)
        else:
            gradient.index_add_(0, own, sums, alpha=-scale)
