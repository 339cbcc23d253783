"""The options of a run, read and checked: what is refused before anything is changed or written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pcgraph import learning
from pcgraph.errors import ConfigError, InvalidInitializer
from pcgraph.inference import capturable
from pcgraph.initializers import Forward, Initializer
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.topology import check_phase
from pcgraph.training.batches import BatchLayout
from pcgraph.training.early_stopping import EarlyStopping
from pcgraph.training.evaluation import Evaluation

__all__ = ["Callback", "FitOptions", "Scheduler", "Validate", "doubts", "rule_name", "rule_settings"]

Node = Hashable
Scheduler = LRScheduler | ReduceLROnPlateau
Callback = Callable[[Any], Any]
Validate = Callable[[PCNetwork], Evaluation | Mapping[str, float] | float] | Iterable[Any]


@dataclass(frozen=True)
class FitOptions:
    """Holds the arguments of :func:`pcgraph.fit`, which says what they mean.

    Attributes
    ----------
    layout : BatchLayout
        What ``clamp=`` and ``predict=`` say of a batch.
    schedulers, callbacks : tuple
        Also where one was given.
    checkpoint, resume : Path or None
    """

    layout: BatchLayout
    init: Initializer | None
    steps: int | None
    optimizer: torch.optim.Optimizer
    state_optimizer: StateOptimizer | None
    rule: learning.Rule
    epochs: int
    validate: Validate | None
    schedulers: tuple[Any, ...]
    scheduler_each: str
    early_stopping: EarlyStopping | None
    metric: str | None
    callbacks: tuple[Callback, ...]
    checkpoint: Path | None
    checkpoint_every: int | None
    resume: Path | None
    progress: bool
    log: str | Path | None
    tensorboard: str | Path | None
    measure_every: int
    check: bool
    capture: bool | str

    @classmethod
    def read(
        cls, net: PCNetwork, loader: Iterable[Any], *, clamp: Any, predict: Node | None, rule: learning.Rule | None,
        scheduler: Any, callbacks: Any, checkpoint: str | Path | None, resume: str | Path | None, **given: Any,
    ) -> FitOptions:  # fmt: skip
        """Bring the arguments of ``fit`` into this form, and refuse what cannot work.

        Raises
        ------
        ConfigError, ClampError, InvalidInitializer
        """
        options = cls(
            layout=BatchLayout.read(net, clamp, predict),
            rule=learning.Standard() if rule is None else rule,
            schedulers=_schedulers(scheduler, given["scheduler_each"]),
            callbacks=(callbacks,) if callable(callbacks) else tuple(callbacks),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            resume=None if resume is None else Path(resume),
            **given,
        )
        options._check(net, loader)
        return options

    def _check(self, net: PCNetwork, loader: Iterable[Any]) -> None:
        for key in ("epochs", "measure_every"):
            _positive(key, getattr(self, key))
        _check_optimizer(net, self)
        _check_rule(self)
        capturable.require_mode(self.capture)
        if self.epochs > 1 and iter(loader) is loader:
            raise ConfigError(
                f"{self.epochs} epochs need a loader that can be gone through again (found a "
                f"{type(loader).__name__}, which can be once): give a list or a DataLoader, or epochs=1",
                key="loader",
            )
        if self.validate is not None and not callable(self.validate):
            _check_validation(net, self.layout)
        if self.checkpoint_every is not None:
            _positive("checkpoint_every", self.checkpoint_every)
            if self.checkpoint is None:
                raise ConfigError("checkpoint_every= needs checkpoint=, a folder", key="checkpoint_every")

    @property
    def followed(self) -> str | None:
        """The metric that was asked for, by name or by early stopping."""
        return self.metric or (self.early_stopping.metric if self.early_stopping else None)


def _check_optimizer(net: PCNetwork, options: FitOptions) -> None:
    optimizer, init = options.optimizer, options.init
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer= moves the weights and is one of torch.optim (found {optimizer!r}); the optimizer of "
            "the states goes to state_optimizer=",
            key="optimizer",
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = [*net.parameters(), *(init.parameters() if isinstance(init, Initializer) else ())]
    if not any(id(p) in held for p in own):
        raise ConfigError(
            "the optimizer holds none of the network's parameters: make it of this network's net.parameters()",
            key="optimizer",
        )


#: What is easily given in the place of a rule, and the rule.
_MEANT: dict[Any, str] = {
    learning.incremental: "Incremental", learning.nudged: "Nudged", learning.backprop: "Backprop",
    "incremental": "Incremental", "nudged": "Nudged", "backprop": "Backprop", "standard": "Standard",
}  # fmt: skip


def _check_rule(options: FitOptions) -> None:
    rule = options.rule
    meant = rule.__name__ if isinstance(rule, type) else _MEANT.get(rule) if isinstance(rule, Hashable) else None
    if meant is not None or not callable(rule):
        way = f"give rule=pcgraph.learning.{meant}()" if meant in learning.__all__ else "see pcgraph.learning.fitting"
        raise ConfigError(
            "rule= is one of pcgraph.learning's rules, or a function of a TrainingStep (found "
            f"{getattr(rule, '__name__', repr(rule))}): {way}",
            key="rule",
        )
    given = [key for key in ("init", "steps", "state_optimizer") if getattr(options, key) is not None]
    if getattr(rule, "infers", True):
        missing = [key for key in ("init", "steps") if key not in given]
        if missing:
            raise ConfigError(
                f"{rule_name(rule)} infers: it needs {' and '.join(f'{key}=' for key in missing)}, as in "
                "init=pcgraph.Forward(), steps=5, state_optimizer=pcgraph.SGD(lr=0.1)",
                key=missing[0],
            )
        if options.steps != 0 and not isinstance(options.state_optimizer, StateOptimizer):
            raise ConfigError(
                f"{options.steps!r} inference steps need a state optimizer, as in "
                f"state_optimizer=pcgraph.SGD(lr=0.1) (found {options.state_optimizer!r})",
                key="state_optimizer",
            )
    elif given:
        raise ConfigError(
            f"{rule_name(rule)} has no inference (found {', '.join(f'{key}=' for key in given)}): leave these out",
            key=given[0],
        )


def rule_name(rule: Any) -> str:
    """Name a rule: by its own name if it is a function, else by that of its class."""
    return str(getattr(rule, "__name__", type(rule).__name__))


def rule_settings(rule: Any) -> dict[str, Any]:
    """Give the settings of a rule that cannot change: the plain fields of a frozen dataclass, by name."""
    if not getattr(getattr(rule, "__dataclass_params__", None), "frozen", False):
        return {}
    known = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule) if field.init}
    return {name: value for name, value in known.items() if isinstance(value, bool | int | float | str | None)}


def _check_validation(net: PCNetwork, layout: BatchLayout) -> None:
    """Before an epoch is spent: validation on a loader is by a sweep, which the graph may not have."""
    if layout.target is None:
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


def doubts(options: FitOptions, epoch: int, enough: bool) -> list[str]:
    """Say what a run should be warned of as it begins.

    Parameters
    ----------
    options : FitOptions
    epoch : int
        Epochs that are done.
    enough : bool
        Whether early stopping has ended the run that is resumed.
    """
    said = []
    resume = str(options.resume)
    if options.resume is not None and (enough or epoch >= options.epochs):
        why = "early stopping has ended it" if enough else f"epochs={options.epochs} counts them"
        said.append(
            f"nothing is left to do: the run in {resume} has {epoch} epochs, and {why}. To go on, give "
            + ("another early_stopping=" if enough else f"epochs={epoch + 1} or more")
        )
    elif options.resume is not None and options.checkpoint is None:
        said.append(
            f"the run is resumed from {resume}, and nothing more of it will be saved: give checkpoint={resume!r} too"
        )
    held = {id(p) for group in options.optimizer.param_groups for p in group["params"]}
    init = options.init if isinstance(options.init, Initializer) else None
    lost = [n for n, p in (init.named_parameters() if init else ()) if p.requires_grad and id(p) not in held]
    if lost:
        names = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        said.append(
            f"the optimizer does not hold the parameters of {type(init).__name__} ({names}), which therefore do not "
            "learn: make it of [*net.parameters(), *init.parameters()]"
        )
    return said


def _positive(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key} is a positive integer (found {value!r})", key=key)


def _schedulers(given: Any, each: str) -> tuple[Any, ...]:
    """Read the schedulers as a tuple."""
    alone = isinstance(given, LRScheduler | ReduceLROnPlateau) or not isinstance(given, Iterable)
    found = tuple(s for s in ((given,) if alone else given) if s is not None)
    for scheduler in found:
        if not callable(getattr(scheduler, "step", None)):
            raise ConfigError(
                f"scheduler= is one of torch.optim.lr_scheduler, or several (found {scheduler!r})", key="scheduler"
            )
    if each not in ("epoch", "step"):
        raise ConfigError(f"scheduler_each is 'epoch' or 'step' (found {each!r})", key="scheduler_each")
    if each == "step" and any(isinstance(s, ReduceLROnPlateau) for s in found):
        raise ConfigError("ReduceLROnPlateau follows the epochs: give scheduler_each='epoch'", key="scheduler_each")
    return found
