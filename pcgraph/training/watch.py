"""Watching a run: when to stop, when it falls over, when gradients vanish under the optimizer's eps."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcgraph.errors import ConfigError
from pcgraph.model import PCNetwork
from pcgraph.network import Bucket
from pcgraph.training.records import EpochRecord, is_larger_better, metric_of

__all__ = ["EarlyStopping", "Watch", "small_gradients"]

Node = Hashable
ROWS = 4096  # packed tensors with more rows than this are judged as one


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a metric has not improved for some epochs.

    Parameters
    ----------
    patience : int
        Epochs without improvement that are borne; at least 1.
    metric : str
        A name of validation's numbers, or training's ``"energy"`` or ``"accuracy"``.
    change : float
        What counts as an improvement: more than this.
    largest : bool, optional
        Whether larger is better; by default for accuracies alone.
    """

    patience: int = 5
    metric: str = "accuracy"
    change: float = 0.0
    largest: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise ConfigError(f"patience is a positive integer (found {self.patience!r})", key="patience")
        if not (self.change >= 0 and math.isfinite(self.change)):
            raise ConfigError(f"change is a number that is not negative (found {self.change!r})", key="change")

    def done(self, epochs: list[EpochRecord]) -> bool:
        """Whether to stop after these epochs.

        Raises
        ------
        ConfigError
            The last of them has no such metric.
        """
        last = epochs[-1]
        if metric_of(last, self.metric) is None:
            known = sorted({*last.validation, *(n for n in ("energy", "accuracy") if metric_of(last, n) is not None)})
            raise ConfigError(
                f"early stopping needs the metric {self.metric!r} (found {', '.join(known) or 'none'}): give "
                "validate=, or name another metric",
                key="metric",
            )
        larger = is_larger_better(self.metric) if self.largest is None else self.largest
        best, since = -math.inf, 0
        for record in epochs:
            value = metric_of(record, self.metric)
            value = -math.inf if value is None or math.isnan(value) else value if larger else -value
            best, since = (value, 0) if value > best + self.change or best == -math.inf else (best, since + 1)
        return since >= self.patience


@dataclass
class Watch:
    """Notice a run that falls over late.

    Early layers receive errors of the order of the state rate to the power of their distance from the target; Adam
    scales them up to full steps, noise included. Such a run can learn for many epochs and then collapse.

    It has fallen over when the part of wrong answers exceeds ``1.4 * (the lowest so far) + 0.02``, or, without an
    accuracy, when the energy exceeds twice the lowest so far.
    """

    error: float = math.inf
    energy: float = math.inf
    fallen: bool = field(default=False)

    def see(self, epoch: int, accuracy: float | None, energy: float | None) -> str:
        """Take in one epoch, counted from 0; returns what happened if the run fell over in it, else an empty string."""
        said = ""
        if accuracy is not None:
            if 1 - accuracy > 1.4 * self.error + 0.02:
                said = f"the accuracy fell to {accuracy:.2%} in epoch {epoch + 1}, from {1 - self.error:.2%} before"
            self.error = min(self.error, 1 - accuracy)
        elif energy is not None and energy > 2 * self.energy > 0:
            said = f"the energy rose to {energy:.4g} in epoch {epoch + 1}, from {self.energy:.4g} before"
        if energy is not None:
            self.energy = min(self.energy, energy)
        self.fallen = bool(said)
        return said

    def state_dict(self) -> dict[str, Any]:
        return {"error": self.error, "energy": self.energy, "fallen": self.fallen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.error, self.energy, self.fallen = state["error"], state["energy"], state["fallen"]


FELL_ADVICE = (
    "Runs fall over when the optimizer scales tiny gradients of early layers up to full steps. Use a smaller or a "
    "decaying learning rate (scheduler=), a smaller state rate with a relu-like activation, a larger eps in Adam, or "
    "end before (early_stopping=)."
)


@torch.no_grad()
def small_gradients(net: PCNetwork, optimizer: torch.optim.Optimizer) -> list[tuple[str, float, float]]:
    """Parameters whose gradients are below the optimizer's eps, so that its steps shrink or vanish.

    Adam divides by ``sqrt(v) + eps``, which is a step of full size only while the gradients' root mean square is well
    above eps. From forward initialization, the error that reaches a layer scales like the state rate to the power of
    its distance from the target, and can drop below the default of 1e-8. Gradients that are exactly zero, because no
    error has arrived, do not count.

    Returns
    -------
    list of (where, root mean square of the gradient, eps)
    """
    eps = {id(p): float(g["eps"]) for g in optimizer.param_groups if g.get("eps") for p in g["params"]}
    found = []
    for what, gradient, limit in _gradients(net, eps):
        rms = _rms(gradient)
        low = (rms > 0) & (rms < limit)
        if bool(low.any()):
            row = int(low.nonzero()[0])
            found.append((what(row), float(rms[row]), limit))
    return found


def _rms(gradient: Tensor) -> Tensor:
    """Row by row; tensors of very many rows as one. In float64, for squares of tiny numbers."""
    rows = gradient.shape[0] if gradient.shape[0] <= ROWS else 1
    return gradient.reshape(rows, -1).double().square().mean(1).sqrt()


def _gradients(net: PCNetwork, eps: dict[int, float]) -> Iterator[tuple[Any, Tensor, float]]:
    buckets = {bucket.name: bucket for bucket in net.structure.buckets}
    for name, parameter in net.named_parameters():
        if parameter.grad is None or id(parameter) not in eps or parameter.grad.layout != torch.strided:
            continue
        bucket = buckets.get(name.removeprefix("weights.")) if name.startswith("weights.") else None
        what = _Where(net, name, bucket if parameter.shape[0] <= ROWS else None)
        gradient = parameter.grad if bucket is not None else parameter.grad.unsqueeze(0)
        yield what, gradient, eps[id(parameter)]


@dataclass(frozen=True)
class _Where:
    """Names a row of a packed parameter."""

    net: PCNetwork
    name: str
    bucket: Bucket | None

    def __call__(self, row: int) -> str:
        if self.bucket is None:
            return self.name
        bucket = self.bucket
        edge = row if bucket.weight is None else int(np.flatnonzero(bucket.weight == row)[0])
        u, v = self.net.structure.edge(bucket.start + edge)[:2]
        return f"{u!r} -> {v!r}"
