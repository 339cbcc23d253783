"""Metrics of torchmetrics, or of anyone who writes ``update``, ``compute`` and ``reset``, are fed by an evaluation."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import shown
from pcgraph.errors import ConfigError, said_by
from pcgraph.processes import Part
from pcgraph.training.batches import is_one_hot

__all__ = ["Metrics", "read_metrics"]

Node = Hashable
METHODS = ("update", "compute", "reset")
TAKEN = ("accuracy", "squared_error", "energy", "samples", "metrics")


class Metrics:
    """Feeds the metrics of one node with its predictions and targets.

    Whether targets are classes is seen in the first batch: one-hot rows are told as classes, shape (batch,), and others
    as they are, shape (batch, *shape). Metrics that are modules are brought to the device of the first prediction.
    """

    def __init__(self, node: Node, metrics: Mapping[str, Any]) -> None:
        self.node, self.metrics = node, metrics
        self._classes: bool | None = None
        for metric in metrics.values():
            metric.reset()

    def update(self, prediction: Tensor, target: Tensor, part: Part | None = None) -> None:
        """Tell every metric of a batch; where these are a part of its rows, of all rows that the ranks have.

        Raises
        ------
        ConfigError
            A metric does not take it, or some batches have classes and others not.
        """
        if not self.metrics:
            return
        if part is not None:
            prediction, target = part.join(prediction), part.join(target)
        if self._classes is None:
            for metric in self.metrics.values():
                if isinstance(metric, torch.nn.Module):
                    metric.to(prediction.device)
        one_hot = target.dim() == 2 and target.shape[1] > 1 and bool(is_one_hot(target))
        if self._classes and not one_hot:
            raise ConfigError(
                f"the targets of {self.node!r} were classes in the first batch, and are not in a later one: metrics "
                "need the one or the other",
                key="metrics",
            )
        self._classes = one_hot if self._classes is None else self._classes
        told = target.argmax(1) if self._classes else target
        for name, metric in self.metrics.items():
            try:
                metric.update(prediction, told)
            except (ValueError, TypeError, RuntimeError, IndexError) as error:
                raise ConfigError(
                    f"the metric {name!r} does not take predictions of shape {tuple(prediction.shape)} with "
                    f"{'classes' if self._classes else 'targets'} of shape {tuple(told.shape)}: "
                    f"{said_by(error)}",
                    key="metrics",
                ) from error

    def compute(self, told_all: bool = False) -> dict[str, Any]:
        """Compute all of them: a number where there is one, else what the metric gives.

        Parameters
        ----------
        told_all : bool
            Whether each of several processes has told its metrics of all samples.
        """
        with ExitStack() as stack:
            for metric in self.metrics.values() if told_all else ():
                stack.enter_context(_by_itself(metric))
            found = {name: metric.compute() for name, metric in self.metrics.items()}
        return {k: float(v) if isinstance(v, Tensor) and v.numel() == 1 else v for k, v in found.items()}


@contextmanager
def _by_itself(metric: Any) -> Iterator[None]:
    """Keep a metric of torchmetrics from adding up over processes, each of which has told it of all samples."""
    parts: list[Any] = list(metric.modules()) if isinstance(metric, torch.nn.Module) else []
    before = [(part, part.distributed_available_fn) for part in parts if hasattr(part, "distributed_available_fn")]
    try:
        for part, _ in before:
            part.distributed_available_fn = _never
        yield
    finally:
        for part, available in before:
            part.distributed_available_fn = available


def _never() -> bool:
    return False


def read_metrics(metrics: Any, predict: tuple[Node, ...], *, several: bool) -> dict[Node, Metrics]:
    """Read the metrics of each target: a mapping name -> metric, and of several targets node -> such a mapping.

    Raises
    ------
    ConfigError
    """
    if metrics is None:
        metrics = {}
    if not isinstance(metrics, Mapping):
        raise ConfigError(
            f"metrics= maps names to metrics, as in {{'f1': torchmetrics.F1Score(...)}} (found {shown(metrics)})",
            key="metrics",
        )
    by_node = dict(metrics) if several else {predict[0]: metrics}
    for node, named in by_node.items():
        if node not in predict or not isinstance(named, Mapping):
            raise ConfigError(
                "metrics= of several targets maps each node to its metrics, as in {'y': {'f1': ...}} (found "
                f"{shown(node)}: {shown(named)})",
                key="metrics",
            )
        for name, metric in named.items():
            missing = [m for m in METHODS if isinstance(metric, type) or not callable(getattr(metric, m, None))]
            if not isinstance(name, str) or name in TAKEN or missing:
                why = f"it has no {missing[0]}()" if missing else "its name is a text that no other number has"
                raise ConfigError(
                    f"a metric has update(predictions, targets), compute() and reset(), as those of torchmetrics "
                    f"(found {shown(name)}: {shown(metric)}): {why}",
                    key="metrics",
                )
    held = [id(metric) for named in by_node.values() for metric in named.values()]
    if len(set(held)) < len(held):
        raise ConfigError("metrics= holds one metric twice, which would count every batch twice", key="metrics")
    return {node: Metrics(node, by_node.get(node, {})) for node in predict}
