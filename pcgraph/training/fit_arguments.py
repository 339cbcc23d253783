"""The arguments of ``fit`` are read one by one, and what cannot work is refused before the first step.

Each function takes an argument as it was given and returns it in one form, or raises.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pcgraph import learning
from pcgraph.arguments import (
    is_number,
    require_choice,
    require_count,
    require_instance,
    require_number,
    require_path,
    require_taking,
    shown,
)
from pcgraph.coordinates import Errors
from pcgraph.duals import Duals
from pcgraph.errors import ConfigError, InvalidInitializer, nearest
from pcgraph.inference import read_duals, read_precision, require_optimizer
from pcgraph.initializers import Forward, Initializer, require_initializer
from pcgraph.learning.rules import refuse_solver
from pcgraph.model import PCNetwork
from pcgraph.network.packed import ParameterView, whole
from pcgraph.optimizers import StateOptimizer
from pcgraph.solvers import Solver
from pcgraph.topology import check_phase
from pcgraph.training.batches import BatchLayout
from pcgraph.training.early_stopping import EarlyStopping
from pcgraph.training.evaluation import Evaluation, require_loader

__all__ = [
    "Callback", "Descent", "Scheduler", "Validate", "read_callbacks", "read_descent", "read_inference", "read_loader",
    "read_metric", "read_optimizer", "read_path", "read_rule", "read_schedulers", "read_validate", "rule_name",
    "rule_settings",
]  # fmt: skip

Node = Hashable
Scheduler = LRScheduler | ReduceLROnPlateau
Callback = Callable[[Any], Any]
Validate = Callable[[PCNetwork], Evaluation | Mapping[str, float] | float] | Iterable[Any]


def read_path(value: Any, key: str) -> Path | None:
    """Read a path that may be left out; it stays where it is if the process goes to another folder.

    Raises
    ------
    ConfigError
        It is no path, or relative to a folder that is gone.
    """
    try:
        return None if value is None else require_path(value, key).absolute()
    except OSError as error:
        raise ConfigError(
            f"{key}={str(value)!r} is relative to the folder of the process, which is gone ({error.strerror}): give an "
            "absolute path",
            key=key,
        ) from error


def read_loader(loader: Any, epochs: int, key: str = "loader") -> Iterable[Any]:
    """Read what is gone through once an epoch."""
    require_loader(loader, key)
    if epochs > 1 and isinstance(loader, Iterator):
        raise ConfigError(
            f"{epochs} epochs need a loader that can be gone through again (found a "
            f"{type(loader).__name__}, which can be once): give a list or a DataLoader, or epochs=1",
            key=key,
        )
    found: Iterable[Any] = loader
    return found


# -- learning ---------------------------------------------------------------------------------------------------------

#: What is easily given in the place of a rule, and the rule.
_MEANT: dict[Any, str] = {
    learning.incremental: "Incremental", learning.nudged: "Nudged", learning.backprop: "Backprop",
    learning.zero_divergence: "ZIL", learning.fixed_predictions: "FixedPredictions",
    learning.forward_update: "ForwardUpdate",
    "incremental": "Incremental", "nudged": "Nudged", "backprop": "Backprop", "standard": "Standard",
}  # fmt: skip


def read_rule(rule: Any) -> learning.Rule:
    """Read the learning rule; None is the standard one."""
    if rule is None:
        return learning.Standard()
    meant = rule.__name__ if isinstance(rule, type) else _MEANT.get(rule) if isinstance(rule, Hashable) else None
    if meant is not None or not callable(rule) or isinstance(rule, Initializer):
        way = f"give rule=pcgraph.learning.{meant}()" if meant in learning.__all__ else "see pcgraph.learning.fitting"
        found = getattr(rule, "__name__", None) or shown(rule)
        raise ConfigError(
            f"rule= is one of pcgraph.learning's rules, or a function of a TrainingStep (found {found}): {way}",
            key="rule",
        )
    require_taking(rule, "rule", "a TrainingStep alone", 1)
    chosen: learning.Rule = rule
    return chosen


def rule_name(rule: Any) -> str:
    """Name a rule: by its own name if it is a function, else by that of its class."""
    return str(getattr(rule, "__name__", type(rule).__name__))


def rule_settings(rule: Any) -> dict[str, Any]:
    """Give the settings of a rule that cannot change: the plain fields of a frozen dataclass, by name."""
    if not getattr(getattr(rule, "__dataclass_params__", None), "frozen", False):
        return {}
    known = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule) if field.init}
    return {name: value for name, value in known.items() if isinstance(value, bool | int | float | str | None)}


def read_inference(
    net: PCNetwork, rule: learning.Rule, init: Any, steps: Any, state_optimizer: Any
) -> tuple[Initializer | None, int | None, StateOptimizer | Solver | None]:
    """Read what inference needs, of which a rule without inference takes nothing."""
    given = {"init": init, "steps": steps, "state_optimizer": state_optimizer}
    named = [key for key, value in given.items() if value is not None]
    if not getattr(rule, "infers", True):
        if named:
            raise ConfigError(
                f"{rule_name(rule)} has no inference (found {', '.join(f'{key}=' for key in named)}): leave these out",
                key=named[0],
            )
        return None, None, None
    missing = [key for key in ("init", "steps") if given[key] is None]
    if missing:
        raise ConfigError(
            f"{rule_name(rule)} infers: it needs {' and '.join(f'{key}=' for key in missing)}, as in "
            "init=pcgraph.Forward(), steps=5, state_optimizer=pcgraph.SGD(lr=0.1)",
            key=missing[0],
        )
    require_initializer(init)
    count = require_count(steps, "steps")
    moves = require_optimizer(net, count, state_optimizer, "state_optimizer")
    if isinstance(rule, learning.Incremental):
        refuse_solver(moves, "state_optimizer")
    if isinstance(rule, learning.FixedPredictions):
        if isinstance(moves, Solver):
            raise ConfigError(
                f"FixedPredictions moves states by a gradient without an energy, which {moves!r} needs: take a state "
                "optimizer, as in state_optimizer=pcgraph.SGD(lr=1.0)",
                key="state_optimizer",
            )
        if type(init) is not Forward:
            raise ConfigError(
                f"FixedPredictions keeps the predictions of a sweep (found init={type(init).__name__}): give "
                "init=pcgraph.Forward()",
                key="init",
            )
    return init, count, moves


#: Rules whose inference takes none of the axes beside initializer, steps and state optimizer.
_OWN_WAY = (
    learning.Incremental, learning.Nudged, learning.Backprop, learning.ZIL, learning.FixedPredictions,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Descent:
    """What moves, what is minimised, and when a sample's inference ends: as for ``net.infer``."""

    coordinates: Errors | None
    tolerance: float | None
    duals: Duals | None
    precision: Mapping[Node, float | Sequence[float]] | None

    @property
    def settings(self) -> dict[str, Any]:
        """Return them by name."""
        return vars(self).copy()

    @property
    def at_the_start(self) -> dict[str, Any]:
        """Return by name what counts before the first step: the coordinates, and the precisions of that step."""
        first = {v: p[0] if isinstance(p, Sequence) else p for v, p in (self.precision or {}).items()}
        return {"coordinates": self.coordinates, "precision": first or None}


def read_descent(
    net: PCNetwork, rule: learning.Rule, steps: int | None, optimizer: StateOptimizer | Solver | None, *,
    coordinates: Any, tolerance: Any, duals: Any, precision: Any,
) -> Descent:  # fmt: skip
    """Read the axes of inference that the rules with runs of their own do not take."""
    axes = {"coordinates": coordinates, "tolerance": tolerance, "duals": duals, "precision": precision}
    given = [key for key, value in axes.items() if value is not None]
    if given and isinstance(rule, _OWN_WAY):
        raise ConfigError(f"{rule_name(rule)} runs inference in a way of its own: leave out {given[0]}=", key=given[0])
    if coordinates is not None:
        require_instance(coordinates, "coordinates", Errors, "pcgraph.Errors()")
    read_duals(duals, optimizer, coordinates)
    read_precision(net.structure, precision, steps, optimizer)
    tolerance = None if tolerance is None else require_number(tolerance, "tolerance", above=0)
    return Descent(coordinates, tolerance, duals, precision)


#: Optimizers that look at a tensor as a whole, where others move each of its numbers by itself.
WHOLE = ("Adafactor", "Muon")


def read_optimizer(net: PCNetwork, init: Initializer | None, optimizer: Any) -> torch.optim.Optimizer:
    """Read the optimizer of the weights: one that ``step()`` alone moves, with numbers for settings."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer= moves the weights and is one of torch.optim (found {shown(optimizer)}); the optimizer of "
            "the states goes to state_optimizer=",
            key="optimizer",
        )
    name = type(optimizer).__name__
    if _needs(type(optimizer).step, "closure"):
        raise ConfigError(
            f"fit calls optimizer.step(), and {name} needs a closure that computes the loss again: take SGD, Adam or "
            "another one of torch.optim that needs none, or write the loop yourself",
            key="optimizer",
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ConfigError("SparseAdam needs sparse gradients, and those here are dense: take Adam", key="optimizer")
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if net.group is not None and name in WHOLE:
        places = net.places or {}
        cut = {id(p) for n, p in net.named_parameters() if n in places and places[n].rows is not None}
        if any(id(p) in cut or (isinstance(p, ParameterView) and not p.single) for p in params):
            raise ConfigError(
                f"{name} looks at a tensor as a whole, of which each of {net.group.size} ranks has a part: make it of "
                "net.parameter_groups(separate=True), where each weight and bias is a tensor of its own, or take AdamW",
                key="optimizer",
            )
    held = {id(whole(p)) for p in params}
    own = [*net.parameters(), *(() if init is None else init.parameters())]
    if not any(id(p) in held for p in own):
        raise ConfigError(
            "the optimizer holds none of the network's parameters: make it of this network's net.parameters()",
            key="optimizer",
        )
    for group in optimizer.param_groups:
        for key, value in group.items():
            parts = value if isinstance(value, tuple | list) else (value,)
            numbers = [float(part) for part in parts if key != "params" and is_number(part)]
            largest = largest_rate(net.dtype) if key == "lr" else math.inf
            if not all(abs(number) <= largest for number in numbers):
                raise ConfigError(
                    f"{key} of {name} must be a number that {net.dtype} has, with room for what an optimizer divides "
                    f"it by (found {shown(value)})",
                    key="optimizer",
                )
    return optimizer


def largest_rate(dtype: torch.dtype) -> float:
    """Find the largest rate of weights of a dtype.

    torch steps in float32 or float64, and Adam divides the rate by ``1 - beta ** t`` before, which is small at first.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return min(torch.finfo(dtype).max, 1e-6 * torch.finfo(wide).max)


def require_in_parts(net: PCNetwork, optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer of which ranks that share a network cannot write a checkpoint together.

    Raises
    ------
    ConfigError
    """
    views = [p for group in optimizer.param_groups for p in group["params"] if isinstance(p, ParameterView)]
    if net.group is not None and not all(view.single for view in views):
        raise ConfigError(
            "ranks write what an optimizer keeps of whole tensors, or of single weights and biases (found views of "
            "several rows): make it of net.parameter_groups(settings, separate=True), or leave checkpoint= out",
            key="checkpoint",
        )


def _needs(function: Any, name: str) -> bool:
    """Say whether a function has a parameter of this name without a default."""
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):  # it does not say
        return False
    return parameter is not None and parameter.default is inspect.Parameter.empty


def read_schedulers(given: Any, each: Any, optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
    """Read the schedulers as a tuple; each is an object, and one of this optimizer."""
    alone = isinstance(given, LRScheduler | ReduceLROnPlateau) or not isinstance(given, Iterable)
    found = tuple(s for s in ((given,) if alone else given) if s is not None)
    for scheduler in found:
        if isinstance(scheduler, type) or not callable(getattr(scheduler, "step", None)):
            made = f"; write {scheduler.__name__}(optimizer, ...)" if isinstance(scheduler, type) else ""
            raise ConfigError(
                f"scheduler= is one of torch.optim.lr_scheduler, or several (found {shown(scheduler)}{made})",
                key="scheduler",
            )
        if getattr(scheduler, "optimizer", optimizer) is not optimizer:
            raise ConfigError(
                f"the scheduler {type(scheduler).__name__} moves the rate of another optimizer: make it of the one in "
                "optimizer=",
                key="scheduler",
            )
    require_choice(each, "scheduler_each", ("epoch", "step"))
    if each == "step" and any(isinstance(s, ReduceLROnPlateau) for s in found):
        raise ConfigError("ReduceLROnPlateau follows the epochs: give scheduler_each='epoch'", key="scheduler_each")
    return found


# -- measuring --------------------------------------------------------------------------------------------------------


def read_callbacks(given: Any) -> tuple[Callback, ...]:
    """Read the callbacks as a tuple; each takes a record."""
    found = (given,) if callable(given) or not isinstance(given, Iterable) else tuple(given)
    for callback in found:
        if isinstance(callback, type) or not callable(callback):
            made = f"; write {callback.__name__}()" if isinstance(callback, type) else ""
            raise ConfigError(
                f"callbacks= is a function of a record, or several (found {shown(callback)}{made})", key="callbacks"
            )
        require_taking(callback, "callbacks", "a record alone", 1)
    return found


def read_validate(net: PCNetwork, validate: Any, layout: BatchLayout, epochs: int) -> Validate | None:
    """Read a function of the network, or a loader that a sweep can be measured on."""
    if validate is None:
        return None
    if callable(validate) and not isinstance(validate, type):
        require_taking(validate, "validate", "the network alone", 1)
        return validate  # type: ignore[no-any-return]
    if isinstance(validate, type):
        raise ConfigError(
            f"validate= is a function of the network, or a loader (found {shown(validate)}; write "
            f"{validate.__name__}(...))",
            key="validate",
        )
    loader = read_loader(validate, epochs, "validate")
    _check_sweep(net, layout)
    return loader


def _check_sweep(net: PCNetwork, layout: BatchLayout) -> None:
    """Refuse, before an epoch is spent, to validate on a loader by a sweep that the graph does not have."""
    if not layout.targets:
        raise ConfigError(
            "validation on a loader needs to know what to predict: give predict=, or a function of the network",
            key="validate",
        )
    verdict = check_phase(net, layout.given, repair=False).verdict(Forward())
    if layout.given and not verdict.valid:
        given = ", ".join(repr(name) for name in layout.given)
        raise InvalidInitializer(
            f"validation on a loader predicts {layout.target!r} by a sweep from {given}, and there is none: "
            f"{verdict.initializer} {verdict.reason}. Predicting needs init= and steps= there: "
            "validate=lambda net: pcgraph.evaluate(net, loader, init=..., steps=..., optimizer=...)",
            verdict=verdict,
        )


def read_metric(
    metric: Any, early_stopping: Any, validate: Validate | None, layout: BatchLayout
) -> tuple[str | None, EarlyStopping | None]:  # fmt: skip
    """Read what is followed; of a run whose numbers are known beforehand, it is one of them."""
    if metric is not None:
        require_instance(metric, "metric", str, "'accuracy'")
    if early_stopping is not None:
        require_instance(early_stopping, "early_stopping", EarlyStopping, "pcgraph.training.EarlyStopping(patience=5)")
    if not callable(validate):
        known = _measured_of(layout, validate is not None)
        for who, name in (("metric=", metric), ("early stopping", getattr(early_stopping, "metric", None))):
            if name is not None and name not in known:
                guess = nearest(name, known)
                hint = f"did you mean {guess!r}?" if guess else "give validate=, or name another metric"
                raise ConfigError(f"{who} needs the metric {name!r} (found {', '.join(known)}): {hint}", key="metric")
    return metric, early_stopping


def _measured_of(layout: BatchLayout, validated: bool) -> tuple[str, ...]:
    """Name what a run measures, whose validation is none or by a loader: of several targets, each by its name."""
    if not validated:
        return ("accuracy", "energy")
    if len(layout.targets) == 1:
        return ("accuracy", "energy", "squared_error")
    of_each = (f"{node}_{name}" for node in layout.targets for name in ("accuracy", "energy", "squared_error"))
    return ("accuracy", "energy", *of_each)
