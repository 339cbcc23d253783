"""fit trains a network in one call."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim.swa_utils import AveragedModel

from pcgraph.arguments import require_instance
from pcgraph.coordinates import Errors
from pcgraph.duals import Duals
from pcgraph.initializers import Initializer
from pcgraph.learning import Rule
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.processes import Group, at_hand, telling
from pcgraph.solvers import Solver
from pcgraph.training.early_stopping import EarlyStopping
from pcgraph.training.fit_arguments import Callback, Scheduler, Validate
from pcgraph.training.loop import Trainer
from pcgraph.training.options import FitOptions
from pcgraph.training.records import History

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["fit"]

Node = Hashable


def fit(
    net: PCNetwork, loader: Iterable[Any], *, clamp: Node | Sequence[Node | None] | None = None,
    init: Initializer | None = None, steps: int | None = None, optimizer: torch.optim.Optimizer,
    state_optimizer: StateOptimizer | Solver | None = None, coordinates: Errors | None = None,
    tolerance: float | None = None, duals: Duals | None = None,
    precision: Mapping[Node, float | Sequence[float]] | None = None, rule: Rule | None = None, epochs: int = 1,
    predict: Node | list[Node] | None = None, validate: Validate | None = None,
    scheduler: Scheduler | Sequence[Scheduler] = (), scheduler_each: str = "epoch",
    early_stopping: EarlyStopping | None = None, metric: str | None = None,
    callbacks: Callback | Sequence[Callback] = (), checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None, resume: str | Path | None = None,
    on_interrupt: Literal["raise", "return"] = "raise", progress: bool = True, log: str | Path | None = None,
    tensorboard: str | Path | None = None, measure_every: int = 20, curvature_every: int = 500,
    check: bool = True, capture: bool | Literal["auto"] = False, clip: float | None = None, accumulate: int = 1,
    ema: AveragedModel | None = None, autocast: torch.dtype | None = None,
    group: Group | ProcessGroup | DeviceMesh | Literal[False] | None = None,
) -> History:  # fmt: skip
    """Train a network: infer, take the local gradients, step; epoch after epoch. Other rules by `rule`.

    Ctrl-C ends the run after the step at hand, with everything saved, and leaves as KeyboardInterrupt, so that a script
    ends as well (see `on_interrupt`); a second one ends it at once. Any error leaves with the history in its attribute
    ``history``; the parameters are then those before the step that failed (a rule that moves weights several times a
    batch, as Incremental does, may have moved some in it).

    Parameters
    ----------
    net : PCNetwork
    loader : iterable
        Of batches: tuples of tensors in the order of `clamp`, or mappings node -> tensor, as
        :mod:`pcgraph.training.batches` says. Classes, shape (batch,), become one-hot for a node of shape (C,). It is
        gone through once an epoch.
    clamp : node or sequence of nodes, optional
        What the entries of a tuple are; None for one that is not used, ``"labels"`` for the classes. The default is
        ``("x", "y")`` where there are such nodes; mappings need no names.
    init : Initializer
        Of the free states. What it remembers and learns is trained along; give its parameters to `optimizer`, too.
        Needed, as `steps` is, but by a rule without inference.
    steps : int
        T, inference steps a batch. From forward initialization an error needs a step for each edge on its way.
    optimizer : torch.optim.Optimizer
        Of the weights. Gradients are means over the batch. From forward initialization the error that reaches a layer
        scales like the state rate to the power of its distance from the target, and can be below the optimizer's
        ``eps`` (1e-8 by default in Adam), where steps vanish. A warning says so when it happens.
    state_optimizer : StateOptimizer or Solver, optional
        How states move; needed if `steps` is above 0. Its rate does not depend on the batch size.
    coordinates : Errors, optional
        What moves: states, unless :class:`pcgraph.Errors` says otherwise. As `tolerance`, for the rule Standard and
        rules of your own.
    tolerance : float, optional
        A sample moves no more once no gradient of its neurons is larger; `steps` is then the most.
    duals : Duals, optional
    precision : mapping, optional
        As for ``net.infer``.
    rule : Rule, optional
        How to learn from a batch: :class:`~pcgraph.learning.Standard` (the default),
        :class:`~pcgraph.learning.Incremental`, :class:`~pcgraph.learning.Nudged`,
        :class:`~pcgraph.learning.ForwardUpdate`, :class:`~pcgraph.learning.ZIL`,
        :class:`~pcgraph.learning.FixedPredictions`, :class:`~pcgraph.learning.Backprop`,
        or a function of a :class:`~pcgraph.learning.TrainingStep`, see :mod:`pcgraph.learning.fitting`.
    epochs : int
        In all, those before a resumed checkpoint included.
    predict : node or list of nodes, optional
        The target, for the accuracy and for validation; by default the last name of `clamp`, if there are two or more.
        Of several targets the first has its accuracy in the records, and validation by a loader tells of each by its
        name, as in ``"y_accuracy"``. Rules that learn to predict learn all of them.
    validate : callable or iterable, optional
        After each epoch: a function of the network that returns a number, a mapping name -> number or an
        :class:`~pcgraph.training.Evaluation`; or a loader, for :func:`pcgraph.evaluate` by a sweep. Where there is no
        sweep: ``validate=lambda net: pcgraph.evaluate(net, loader, init=..., steps=..., optimizer=...)``.
    scheduler : LRScheduler, or a sequence of them
        Of torch. ``ReduceLROnPlateau`` follows `metric`.
    scheduler_each : {"epoch", "step"}
        When it steps.
    early_stopping : EarlyStopping, optional
    metric : str, optional
        What ``ReduceLROnPlateau`` and the best checkpoint follow: a name of validation's numbers, or training's
        ``"energy"`` or ``"accuracy"``. The default is that of `early_stopping`, else validation's accuracy for the
        checkpoint and the training energy for the scheduler.
    callbacks : callable or sequence of callables
        Each gets a :class:`~pcgraph.training.StepRecord` after every step and an
        :class:`~pcgraph.training.EpochRecord` after every epoch; ``record.kind`` tells them apart. One that returns
        True ends the run.
    checkpoint : str or Path, optional
        A folder for checkpoints: one before the first step, one after each epoch, one at the end, whatever ended it;
        the last two are kept, and that of the best epoch by `metric` in ``best``. See :mod:`pcgraph.checkpoints`.
    checkpoint_every : int, optional
        Also after so many steps.
    resume : str or Path, optional
        Go on from the last checkpoint in this folder. The network, optimizer, initializer, rule, loader and scheduler
        are to be made as they were; the run then ends as one that was never stopped, to the last bit. In a script that
        may be killed: ``resume=folder if pcgraph.checkpoints.exists(folder) else None``.
    on_interrupt : {"raise", "return"}
        Whether Ctrl-C leaves as KeyboardInterrupt, once everything is saved, or the history is returned, with
        ``stopped`` at ``"interrupted"``. Where the program handles SIGINT itself, ``fit`` does neither.
    progress : bool
        A bar an epoch, with energy, accuracy and batches a second.
    log : str or Path, optional
        A ``.csv`` or ``.jsonl`` file of the measured steps and the epochs. An old one is begun anew; in a resumed run
        with all that came before.
    tensorboard : str or Path, optional
        A folder for TensorBoard, which must be installed.
    measure_every : int
        Steps from one measurement of energy and accuracy to the next, counted in each epoch. Where the loader has a
        length, at most a fifth of it, and the last step of each epoch is measured as well. At four of them an epoch or
        more, what may be wrong is looked at, too: a rise of the energy, gradients that do not arrive, a rate too high.
    curvature_every : int
        Steps from one look at the curvature of the energy to the next, by ten power iterations of two gradients
        each, in a measured step that is looked at; see ``record.curvature``. 0 for never. It is for the rule Standard
        and SGD.
    check : bool
        Look in every step whether the energy is finite, which on a GPU waits for the device. False: only in measured
        steps, and a run that diverges may leave damaged parameters.
    capture : bool or "auto"
        On a GPU, record the whole step as one CUDA graph and replay it: initialization, inference, gradients, what the
        initializer remembers, the optimizer's step. With ``check=True`` it is two, and the host looks at the energy
        between them, so that a step that diverges moves nothing; with ``check=False`` the host waits for nothing. It
        takes the rule Standard, no callbacks, an optimizer with ``capturable=True`` or SGD, a learning rate in a tensor
        if it changes in every step, and what ``net.infer(capture=...)`` takes. "auto" else replays inference alone, or
        nothing; True refuses. Predictions, for the accuracy and for validation by a loader, are recorded as well. The
        first step, and batches of another shape than the recorded one, run as they are. The recording keeps state
        buffers of its own until the run ends.
    clip : float, optional
        The largest norm that all gradients have together; longer ones are shortened, by
        :func:`torch.nn.utils.clip_grad_norm_`.
    accumulate : int
        Batches to one update of the weights, by the mean of their gradients, each batch counted by its samples: the
        update is that of one larger batch. The last update of an epoch takes what is left. A step is still one batch;
        a scheduler with ``scheduler_each="step"`` steps with the updates.
    ema : AveragedModel, optional
        An average of the weights that follows each update, made of `net` as
        ``AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.999))`` of :mod:`torch.optim.swa_utils`. Validation
        then measures ``ema.module``, the averaged network, and the best checkpoint holds it; checkpoints keep both.
    autocast : torch.dtype, optional
        ``torch.bfloat16`` or ``torch.float16``: the run stands under :func:`torch.autocast`, so that dense products
        are taken in half precision. Weights, states, errors and energies stay in float32, so that no scaler is needed.
    group : Group, torch.distributed.ProcessGroup, DeviceMesh or False, optional
        The processes that share every batch; the default is all ranks, where torch.distributed is initialised, as
        under torchrun. Each rank calls ``fit`` with the same arguments and a loader of the same, whole batches, takes
        its part of each, and learns what one process would. The first shows progress and writes logs and checkpoints;
        callbacks are called on all ranks, with the result of the rank's own part. False: this process trains alone.
        A network that is cut over ranks knows them, and its mesh, where others share the batches: leave it out.

    Returns
    -------
    History

    Raises
    ------
    Diverged
        The energy stopped being finite.
    InvalidInitializer, ClampError, ConfigError
        The settings or the batches do not fit the network; the loader is empty.
    RankFailed
        Another rank has failed, has died, or has not come in time.
    CheckpointError
        A checkpoint cannot be written or read, or is of another network.

    Warns
    -----
    PCGraphWarning
        The run has fallen over (:class:`pcgraph.training.CollapseDetector`); inference raised the energy; weights get
        no error in so few steps, or gradients below the optimizer's ``eps``; the optimizer lacks the initializer's
        parameters; a resumed run has nothing left to do, or is not saved. They are in the history as well.

    Examples
    --------
    >>> import pcgraph
    >>> net = PCNetwork(pcgraph.graphs.chain([4, 8, 3]), seed=0)
    >>> x, y = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3
    >>> history = fit(
    ...     net, [(x, y)], init=pcgraph.Forward(), steps=2, state_optimizer=pcgraph.SGD(lr=0.1),
    ...     optimizer=torch.optim.AdamW(net.parameters(), lr=0.01), epochs=5, progress=False,
    ... )
    >>> history.stopped, len(history), history.epochs[-1].energy < history.epochs[0].energy
    ('finished', 5, True)
    """
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
    ranks, everyone = net.sharing(group)
    with at_hand(ranks), telling(everyone):
        if everyone is not None:
            everyone.require_same_versions()
        options = FitOptions.read(
            net, loader, clamp=clamp, init=init, steps=steps, optimizer=optimizer, state_optimizer=state_optimizer,
            coordinates=coordinates, tolerance=tolerance, duals=duals, precision=precision, rule=rule, epochs=epochs,
            predict=predict, validate=validate, scheduler=scheduler,
            scheduler_each=scheduler_each, early_stopping=early_stopping, metric=metric, callbacks=callbacks,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume, on_interrupt=on_interrupt,
            progress=progress, log=log, tensorboard=tensorboard, measure_every=measure_every,
            curvature_every=curvature_every, check=check, capture=capture, group=ranks, everyone=everyone, clip=clip,
            accumulate=accumulate, ema=ema, autocast=autocast,
        )  # fmt: skip
        return Trainer(net, loader, options).run()
