"""How good a network is on a set is measured by accuracy, squared error and energy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from pcgraph.arguments import is_number, require_count, require_instance, shown
from pcgraph.clamps import Masked
from pcgraph.coordinates import Errors
from pcgraph.energies import Gaussian
from pcgraph.errors import ClampError, ConfigError
from pcgraph.inference import require_optimizer
from pcgraph.initializers import Initializer, require_initializer
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.processes import Group, telling
from pcgraph.solvers import Solver
from pcgraph.training.batches import Batch, check_names, check_targets, is_one_hot, read_batch, take
from pcgraph.training.metrics import read_metrics

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Evaluation", "correct", "evaluate", "numbers_of", "require_loader"]

Node = Hashable


@dataclass(frozen=True)
class Evaluation:
    """Holds what :func:`evaluate` found, averaged over all samples.

    Attributes
    ----------
    accuracy : float or None
        Part of the samples whose largest predicted neuron is the class, from 0 to 1. None where the targets are no
        classes: the node has not the shape (C,) with C > 1, or a target is not one-hot.
    squared_error : float
        ``||target - prediction||²``, summed over the node's neurons.
    energy : float
        The energy that the node's error has, ``E(target, prediction)``; half the squared error for the default energy.
    samples : int
    metrics : mapping
        Of ``metrics=``, by name: a number, or whatever else a metric computes.
    """

    accuracy: float | None
    squared_error: float
    energy: float
    samples: int
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, float]:
        """Give the numbers by name, those of metrics among them, without those that are None."""
        own = {k: getattr(self, k) for k in ("accuracy", "squared_error", "energy", "samples")}
        numbers = {k: v for k, v in self.metrics.items() if is_number(v)}
        return {k: v for k, v in (own | numbers).items() if v is not None}

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f"accuracy {self.accuracy:.2%}, "
        more = "".join(f", {k} {v:.4g}" for k, v in self.metrics.items() if is_number(v))
        return (
            f"{accuracy}squared error {self.squared_error:.4g}, energy {self.energy:.4g}{more} ({self.samples} samples)"
        )


@overload
def evaluate(
    net: PCNetwork, loader: Iterable[Any], *, given: Node | Sequence[Node | None] | None = None,
    predict: list[Node], init: Initializer | None = None, steps: int | None = None,
    optimizer: StateOptimizer | Solver | None = None, coordinates: Errors | None = None, tolerance: float | None = None,
    precision: Mapping[Any, float] | None = None, stop: Callable[[], bool] | None = None, check: bool = True,
    capture: bool | Literal["auto"] = False, metrics: Mapping[Any, Any] | None = None,
    group: Group | ProcessGroup | DeviceMesh | Literal[False] | None = None,
) -> dict[Node, Evaluation]: ...  # fmt: skip
@overload
def evaluate(
    net: PCNetwork, loader: Iterable[Any], *, given: Node | Sequence[Node | None] | None = None, predict: Node = "y",
    init: Initializer | None = None, steps: int | None = None, optimizer: StateOptimizer | Solver | None = None,
    coordinates: Errors | None = None, tolerance: float | None = None,
    precision: Mapping[Any, float] | None = None, stop: Callable[[], bool] | None = None, check: bool = True,
    capture: bool | Literal["auto"] = False, metrics: Mapping[Any, Any] | None = None,
    group: Group | ProcessGroup | DeviceMesh | Literal[False] | None = None,
) -> Evaluation: ...  # fmt: skip
def evaluate(
    net: PCNetwork, loader: Iterable[Any], *, given: Node | Sequence[Node | None] | None = None,
    predict: Node | list[Node] = "y", init: Initializer | None = None, steps: int | None = None,
    optimizer: StateOptimizer | Solver | None = None, coordinates: Errors | None = None, tolerance: float | None = None,
    precision: Mapping[Any, float] | None = None, stop: Callable[[], bool] | None = None, check: bool = True,
    capture: bool | Literal["auto"] = False, metrics: Mapping[Any, Any] | None = None,
    group: Group | ProcessGroup | DeviceMesh | Literal[False] | None = None,
) -> Evaluation | dict[Node, Evaluation]:  # fmt: skip
    """Predict `predict` from `given`, and compare.

    The prediction is a sweep where Proposition 3.2 holds for the given nodes; elsewhere `init` and `steps` are
    required (see :meth:`pcgraph.PCNetwork.predict`). Targets are never clamped, no gradient is taken and no
    initializer learns from it. Modules are in evaluation mode meanwhile.

    Parameters
    ----------
    net : PCNetwork
    loader : iterable
        Of tuples (given values in order, target) or mappings node -> tensor; see :mod:`pcgraph.training.batches`.
        Targets may be classes, shape (batch,).
    given : node or sequence of nodes, optional
        What is clamped, in the order of a tuple's entries, where None stands for one that is not used. The default is
        ``"x"`` where there is such a node, and elsewhere all that a mapping names beside `predict`.
    predict : node or list of nodes
        Several are predicted from the same `given`, none of them from another.
    init, steps, optimizer, coordinates, tolerance, precision
        As for :meth:`pcgraph.PCNetwork.predict`: for graphs without a sweep, and where feedback is to have a say.
    stop : callable, optional
        Asked after each batch whether to end early, with what has been seen.
    check, capture
        As for :meth:`pcgraph.PCNetwork.predict`; with ``check=False`` nothing waits for a GPU before the last batch.
    metrics : mapping, optional
        Name -> metric of torchmetrics, or anything with ``update(predictions, targets)``, ``compute()`` and
        ``reset()``; of several targets node -> such a mapping. They are reset first. Predictions have shape
        (batch, *shape); targets are classes, shape (batch,), where they are one-hot, and else the rows themselves.
        They see whole batches, where several processes share each, too: all ranks get the same answer, and what a
        metric of torchmetrics would add up over processes itself is not added up again.
    group : Group, torch.distributed.ProcessGroup, DeviceMesh or False, optional
        The processes that share every batch, as for :func:`pcgraph.fit`; all ranks get the same answer.

    Returns
    -------
    Evaluation, or a dict node -> Evaluation where `predict` is a list

    Raises
    ------
    ClampError
        The batches do not fit the network.
    ConfigError
        The loader is empty.
    InvalidInitializer
        There is no sweep, and neither `init` nor `steps` was given.
    RankFailed
        Another rank has failed, has died, or has not come in time.

    Examples
    --------
    >>> import pcgraph
    >>> net = PCNetwork(pcgraph.graphs.chain([4, 8, 3]), seed=0)
    >>> result = evaluate(net, [(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))])
    >>> result.samples
    5
    """
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
    targets = check_targets(net, predict)
    if given is None and "x" in net.structure.number:
        given = "x"
    names = () if given is None else check_names(net, given, "given")
    for node in targets:
        if node in names:
            raise ConfigError(f"{node!r} cannot be both given and predicted", key="predict")
    require_loader(loader, "loader")
    if init is not None:
        require_initializer(init)
    if steps is not None:
        steps = require_count(steps, "steps")
    if optimizer is not None:
        require_optimizer(net, steps or 0, optimizer)
    if stop is not None and not callable(stop):
        raise ConfigError(f"stop must be a function of no arguments (found {shown(stop)})", key="stop")
    ranks, everyone = net.sharing(group)
    measured = read_metrics(metrics, targets, several=isinstance(predict, list))
    how: dict[str, Any] = {
        "init": init, "steps": steps, "optimizer": optimizer, "coordinates": coordinates, "tolerance": tolerance,
        "precision": precision, "check": check, "capture": capture,
    }  # fmt: skip
    totals: dict[Node, Tensor] = {}
    samples = batches = 0
    was_training = net.training
    net.eval()
    try:
        with telling(everyone):
            if everyone is not None:
                everyone.require_same_versions()
            for item in loader:
                whole = read_batch(net, item, (*names, *targets) if names else (), check=check)
                batch = whole if ranks is None else take(whole, ranks)
                clamps, wanted = _split(net, batch, names, targets)
                with net.computing(batch.part):
                    predictions = _predictions(net, clamps, targets, how)
                for node, prediction in predictions.items():
                    sums = _sums(net, net.structure.number[node], wanted[node], prediction)
                    if batch.part is not None and not batch.part.count:
                        sums = torch.zeros_like(sums)
                    totals[node] = totals[node] + sums if node in totals else sums
                    measured[node].update(prediction, wanted[node], batch.part)
                samples, batches = samples + whole.size, batches + 1
                if stop is not None and _stops(stop, everyone):
                    break
            if everyone is not None:
                _require_alike(samples, batches, everyone)
                totals = {node: _added(total, net.group, ranks) for node, total in totals.items()}
    finally:
        net.train(was_training)
    if not totals:
        raise ConfigError("there is nothing to evaluate: the loader is empty", key="loader")
    found = {
        node: _evaluation(total, samples, measured[node].compute(everyone is not None))
        for node, total in totals.items()
    }
    return found if isinstance(predict, list) else found[targets[0]]


def _evaluation(total: Tensor, samples: int, metrics: Mapping[str, Any]) -> Evaluation:
    """Average the sums of one node over all samples."""
    right, all_classes, error, energy = total.tolist()
    accuracy = right / samples if all_classes == samples else None
    return Evaluation(accuracy, error / samples, energy / samples, samples, metrics)


def _predictions(
    net: PCNetwork, clamps: dict[Node, Tensor | Masked], targets: tuple[Node, ...], how: Mapping[str, Any]
) -> dict[Node, Tensor]:
    """Predict all targets: by one inference where it is by inference, else each by its sweep."""
    if len(targets) > 1 and how["init"] is not None and how["steps"] is not None:
        found = net.infer(clamps, **how)
        return {node: net.told(net.structure.number[node], partial(found.peek, node), found.batch) for node in targets}
    return {node: net.predict(clamps, node, **how) for node in targets}


def _stops(stop: Callable[[], bool], group: Group | None) -> bool:
    return stop() if group is None else group.any(stop())[0]


def _require_alike(samples: int, batches: int, group: Group) -> None:
    """Refuse ranks that have gone through different batches."""
    for rank, (other, several) in enumerate(group.gather_numbers([samples, batches]).tolist()):
        if (other, several) != (samples, batches):
            raise ConfigError(
                f"all ranks evaluate on the same, whole batches, and each takes its part of them (found {samples} "
                f"samples in {batches} batches on rank {group.rank}, and {other:.0f} in {several:.0f} on rank {rank}): "
                "leave out a DistributedSampler",
                key="loader",
            )


def _added(total: Tensor, partition: Group | None, data: Group | None) -> Tensor:
    """Add up what the ranks have counted: the energy by the rank that has the node, and all of it over the samples."""
    if partition is not None:
        energy = partition.gather_numbers([float(total[3])]).sum().to(total.device)
        total = torch.cat([total[:3], energy.view(1)])
    return total if data is None else data.gather_numbers(total.tolist()).sum(0)


def numbers_of(found: Any, name: str) -> tuple[dict[str, float], int | None]:
    """Read what a validation has found: numbers by name, and of how many samples, where that is known.

    Parameters
    ----------
    found : Evaluation, number, or mapping of these
    name : str
        Of a number alone.

    Raises
    ------
    ConfigError
        It is something else.
    """
    if isinstance(found, Evaluation):
        return _measured(found), found.samples
    if not isinstance(found, Mapping):
        return {name: _number(found, found)}, None
    named: dict[str, float] = {}
    for key, part in found.items():  # of evaluate with several targets: node -> Evaluation
        each = {f"_{k}": v for k, v in _measured(part).items()} if isinstance(part, Evaluation) else {"": part}
        named |= {f"{key}{k}": _number(v, found) for k, v in each.items()}
    return named, None


def _measured(found: Evaluation) -> dict[str, float]:
    """Give what an evaluation has measured, without the count of samples."""
    return {k: v for k, v in found.as_dict().items() if k != "samples"}


def _number(value: Any, found: Any) -> float:
    with suppress(TypeError, ValueError, OverflowError, RuntimeError):
        if not isinstance(value, str | bytes):
            return float(value)
    raise ConfigError(
        "validate= is a function of the network that returns a number, a mapping name -> number or what "
        f"pcgraph.evaluate does (found that it returned {shown(found)})",
        key="validate",
    )


def require_loader(loader: Any, key: str) -> None:
    """Refuse what does not yield batches.

    Raises
    ------
    ConfigError
    """
    if isinstance(loader, str | bytes | Mapping) or not (hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")):
        hint = "; of one batch, [batch] is one" if isinstance(loader, Mapping) else ""
        raise ConfigError(f"{key} must be something that yields batches (found {shown(loader)}){hint}", key=key)


def _split(
    net: PCNetwork, batch: Batch, names: tuple[Node | None, ...], targets: tuple[Node, ...]
) -> tuple[dict[Node, Tensor | Masked], dict[Node, Tensor]]:
    """Split a batch into the given clamps and the targets."""
    clamps = {v: value for v, value in batch.clamps.items() if (v in names if names else v not in targets)}
    wanted: dict[Node, Tensor] = {}
    for node in targets:
        y = batch.clamps.get(node)
        if not clamps or not isinstance(y, Tensor):
            given = ", ".join(repr(n) for n in names if n is not None) or "some node"
            raise ClampError(
                f"a batch needs values of {given} and targets of {node!r} (found {', '.join(map(repr, batch.clamps))})",
                node=node,
            )
        shape = net.structure.shape(node)
        if tuple(y.shape) != (batch.size, *shape):
            raise ClampError(
                f"the targets of {node!r} need shape ({', '.join(map(str, ('batch', *shape)))}), or are classes of "
                f"shape (batch,) (found {tuple(y.shape)})" + ("" if y.dim() else "; of a data set: images.batches(50)"),
                node=node,
            )
        wanted[node] = y
    return clamps, wanted


def _sums(net: PCNetwork, node: int, y: Tensor, prediction: Tensor) -> Tensor:
    """Add up (correct, samples with a class, squared error, energy) over a batch, as float64 on the device."""
    y = y.to(prediction.dtype)
    hits, classes = correct(y, prediction)
    error = (y - prediction).square().sum(dtype=torch.float64)
    return torch.stack([hits, classes, error, _energy(net, node, y, prediction)])


def correct(y: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
    """Count the predictions that name the class, and the targets that are classes, as float64 of no dimensions."""
    zero = torch.zeros((), dtype=torch.float64, device=y.device)
    if y.dim() != 2 or y.shape[1] < 2:
        return zero, zero
    hits = (y.argmax(1) == prediction.argmax(1)).sum(dtype=torch.float64)
    return hits, is_one_hot(y).sum(dtype=torch.float64) * len(y)


@torch.no_grad()
def _energy(net: PCNetwork, node: int, y: Tensor, prediction: Tensor) -> Tensor:
    """Add up ``E(y, prediction)`` of a node over the batch; it is 0 where the node has no energy."""
    if not net.structure.has_energy[node] or not net.holds(net.structure.nodes[node]):
        return torch.zeros((), dtype=torch.float64, device=y.device)
    energy = net.node_energy(node)
    if (
        type(energy) is Gaussian
    ):  # added up in float64 throughout, where a sample's sum could overflow in half precision
        return 0.5 * energy.precision * (y - prediction).square().sum(dtype=torch.float64)
    return energy.energy(y, prediction).sum(dtype=torch.float64)
