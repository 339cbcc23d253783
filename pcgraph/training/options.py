"""The options of a run are the arguments of ``fit``, read and checked."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from pcgraph.arguments import require_choice, require_count, require_flag, require_instance
from pcgraph.errors import ConfigError
from pcgraph.inference import capturable
from pcgraph.initializers import Initializer
from pcgraph.learning import Rule
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.processes import Group
from pcgraph.solvers import Solver
from pcgraph.training.batches import BatchLayout
from pcgraph.training.early_stopping import EarlyStopping
from pcgraph.training.fit_arguments import (
    Callback,
    Descent,
    Validate,
    read_callbacks,
    read_descent,
    read_inference,
    read_loader,
    read_metric,
    read_optimizer,
    read_path,
    read_rule,
    read_schedulers,
    read_validate,
    require_in_parts,
)
from pcgraph.training.updates import read_accumulate, read_autocast, read_clip, read_ema

__all__ = ["FitOptions", "doubts"]

Node = Hashable


@dataclass(frozen=True)
class FitOptions:
    """Holds the arguments of :func:`pcgraph.fit`, which says what they mean.

    Attributes
    ----------
    layout : BatchLayout
        What ``clamp=`` and ``predict=`` say of a batch.
    schedulers, callbacks : tuple
        Also where one was given.
    group : Group or None
        The ranks that share every batch; None where one process has all of it.
    everyone : Group or None
        All ranks of the run, those that hold one network together among them; None where there is one.
    """

    layout: BatchLayout
    init: Initializer | None
    steps: int | None
    optimizer: torch.optim.Optimizer
    state_optimizer: StateOptimizer | Solver | None
    descent: Descent
    rule: Rule
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
    on_interrupt: str
    progress: bool
    log: Path | None
    tensorboard: Path | None
    measure_every: int
    curvature_every: int
    check: bool
    capture: bool | str
    group: Group | None
    everyone: Group | None
    clip: float | None
    accumulate: int
    ema: AveragedModel | None
    autocast: torch.dtype | None

    @classmethod
    def read(
        cls, net: PCNetwork, loader: Iterable[Any], *, clamp: Any, init: Any, steps: Any, optimizer: Any,
        state_optimizer: Any, coordinates: Any, tolerance: Any, duals: Any, precision: Any, rule: Any, epochs: Any,
        predict: Any, validate: Any, scheduler: Any, scheduler_each: Any,
        early_stopping: Any, metric: Any, callbacks: Any, checkpoint: Any, checkpoint_every: Any, resume: Any,
        on_interrupt: Any, progress: Any, log: Any, tensorboard: Any, measure_every: Any,
        curvature_every: Any, check: Any, capture: Any, group: Group | None, everyone: Group | None,
        clip: Any, accumulate: Any, ema: Any, autocast: Any,
    ) -> FitOptions:  # fmt: skip
        """Read the arguments of ``fit``, and refuse what cannot work.

        Raises
        ------
        ConfigError, ClampError, InvalidInitializer
        """
        require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
        epochs = require_count(epochs, "epochs", least=1)
        read_loader(loader, epochs)
        layout = BatchLayout.read(net, clamp, predict)
        rule = read_rule(rule)
        init, steps, state_optimizer = read_inference(net, rule, init, steps, state_optimizer)
        descent = read_descent(
            net, rule, steps, state_optimizer, coordinates=coordinates, tolerance=tolerance, duals=duals,
            precision=precision,
        )  # fmt: skip
        optimizer = read_optimizer(net, init, optimizer)
        validate = read_validate(net, validate, layout, epochs)
        metric, early_stopping = read_metric(metric, early_stopping, validate, layout)
        checkpoint = read_path(checkpoint, "checkpoint")
        if checkpoint_every is not None:
            checkpoint_every = require_count(checkpoint_every, "checkpoint_every", least=1)
            if checkpoint is None:
                raise ConfigError("checkpoint_every= needs checkpoint=, a folder", key="checkpoint_every")
        if checkpoint is not None:
            require_in_parts(net, optimizer)
        capturable.require_mode(capture)
        return cls(
            layout=layout, init=init, steps=steps, optimizer=optimizer, state_optimizer=state_optimizer,
            descent=descent, rule=rule, epochs=epochs,
            validate=validate, schedulers=read_schedulers(scheduler, scheduler_each, optimizer),
            scheduler_each=scheduler_each, early_stopping=early_stopping, metric=metric,
            callbacks=read_callbacks(callbacks), checkpoint=checkpoint, checkpoint_every=checkpoint_every,
            resume=read_path(resume, "resume"),
            on_interrupt=require_choice(on_interrupt, "on_interrupt", ("raise", "return")),
            progress=require_flag(progress, "progress"), log=read_path(log, "log"),
            tensorboard=read_path(tensorboard, "tensorboard"),
            measure_every=require_count(measure_every, "measure_every", least=1),
            curvature_every=require_count(curvature_every, "curvature_every"), check=require_flag(check, "check"),
            capture=capture, group=group, everyone=everyone, clip=read_clip(clip),
            accumulate=read_accumulate(accumulate, rule), ema=read_ema(net, ema), autocast=read_autocast(net, autocast),
        )  # fmt: skip

    def judged(self, net: PCNetwork) -> PCNetwork:
        """Return the network that is validated and kept as the best: the averaged one, where there is one."""
        averaged: Any = net if self.ema is None else self.ema.module
        return averaged  # type: ignore[no-any-return]

    def precision_of(self, net: PCNetwork) -> AbstractContextManager[Any]:
        """Return the context in which products have the precision that was asked for."""
        return nullcontext() if self.autocast is None else torch.autocast(net.device.type, dtype=self.autocast)

    @property
    def followed(self) -> str | None:
        """Name the metric that was asked for, by itself or by early stopping."""
        return self.metric or (self.early_stopping.metric if self.early_stopping else None)


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
    own = () if options.init is None else options.init.named_parameters()
    lost = [n for n, p in own if p.requires_grad and id(p) not in held]
    if lost:
        names = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        said.append(
            f"the optimizer does not hold the parameters of {type(options.init).__name__} ({names}), which therefore "
            "do not learn: make it of [*net.parameters(), *init.parameters()]"
        )
    return said
