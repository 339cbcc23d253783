"""Run ``pcgraph train``."""

from __future__ import annotations

import dataclasses
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pcgraph import drawing
from pcgraph.checkpoints import FolderLock, exists, load
from pcgraph.data import Images
from pcgraph.errors import CheckpointError, ConfigError, PCGraphWarning
from pcgraph.experiments.experiment import Experiment, Splits, dry_run, load_splits, prepare, rehearse
from pcgraph.experiments.options import Options, flag, options_from, write_config
from pcgraph.model import PCNetwork
from pcgraph.processes import Group, started, telling
from pcgraph.serialization.files import require_writable
from pcgraph.training import Evaluation, History, evaluate, fit

__all__ = ["require_out", "train", "wide_console"]

SETTINGS, CHECKPOINT = "settings.toml", "checkpoint"
MAY_CHANGE = ("epochs", "device", "test_init", "test_steps")
"""A resumed run may be given these anew; the optimizer, the data and the network go on as they were."""
WIDTH = 120
"""What is written to a file or a pipe has so many columns."""


def wide_console() -> Console:
    """Return the terminal as it is, or a wide page where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def train(
    data: Annotated[str | None, typer.Option(help="digits, mnist, fashion-mnist, kmnist or cifar10. [digits]")] = None,
    fraction: Annotated[float | None, typer.Option(help="Part of the training set to use. [1]")] = None,
    graph: Annotated[
        str | None,
        typer.Option(metavar="SIZES|NAME|FILE", help="784-512x4-10, alexnet, vgg5 or a graph file. [by the data]"),
    ] = None,
    input: Annotated[str | None, typer.Option(metavar="NODE", help="Where the images are clamped. [x]")] = None,
    target: Annotated[str | None, typer.Option(metavar="NODE", help="Where the classes are clamped. [y]")] = None,
    activation: Annotated[str | None, typer.Option(help="Of hidden groups, if the graph is no file. [relu]")] = None,
    rule: Annotated[
        str | None,
        typer.Option(metavar="NAME[:option=value,…]", help="standard, incremental, nudged or backprop. [standard]"),
    ] = None,
    init: Annotated[
        str | None, typer.Option(metavar="NAME[:option=value,…]", help="Where the states start. [forward]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Inference steps a batch. [5]")] = None,
    epochs: Annotated[int | None, typer.Option(help="[10; 5 for images of 28 x 28]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="[50; 200 for images of 28 x 28]")] = None,
    stream_aligned: Annotated[
        bool | None, typer.Option("--stream-aligned", help="As many of each class in each batch, in class order.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Rate of the weights, AdamW. [0.001]")] = None,
    eps: Annotated[float | None, typer.Option(help="AdamW's epsilon. [1e-8]")] = None,
    state_lr: Annotated[float | None, typer.Option(help="Rate of the states, SGD. [0.01]")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Part of the training set to judge epochs by; 0: the test set. [0]")
    ] = None,
    test_init: Annotated[
        str | None, typer.Option(metavar="NAME[:…]", help="Where states start at test time, if no sweep answers.")
    ] = None,
    test_steps: Annotated[
        int | None, typer.Option(help="Inference steps at test time, if no sweep answers. [20]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, batches and draws. [0]")] = None,
    device: Annotated[str | None, typer.Option(help="[cpu]")] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="For settings, checkpoint, log and learning curve.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Go on with the run in this folder.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Settings; options here go over them.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--dry-run", help="Print report, plan and costs, and stop.")] = False,
) -> None:
    """Train a network on images by predictive coding, and print its test accuracy.

    The network is the paper's 784-512x4-10 for images of 28 x 28, and a smaller one for digits. Started by torchrun,
    as in torchrun --nproc-per-node 4 -m pcgraph.cli train, the processes share every batch.
    """
    given = {k: v for k, v in locals().items() if k in {f.name for f in dataclasses.fields(Options)}}
    if resume is not None:
        if config is not None:
            raise ConfigError("--resume takes its settings from the run: leave out --config", key="resume")
        changed = [flag(key) for key, value in given.items() if value is not None and key not in MAY_CHANGE]
        if changed:
            raise ConfigError(
                f"--resume goes on with the settings of the run: leave out {', '.join(changed)} (what may change is "
                f"{', '.join(map(flag, MAY_CHANGE))})",
                key="resume",
            )
        config, given["out"] = resume / SETTINGS, str(resume)
    chosen = options_from(given, config)
    with started(chosen.device) as group, telling(group):
        if group is not None:
            group.agree({flag(name): value for name, value in vars(chosen).items()})
        _train(chosen, group, resumed=resume is not None, plan_only=plan_only)


def _train(chosen: Options, group: Group | None, *, resumed: bool, plan_only: bool) -> None:
    """Train as one of the ranks, the first of which writes and tells."""
    leads = group is None or group.leads
    if leads:
        _require_place(chosen, resumed)
        rehearse(prepare(chosen))
    experiment = prepare(chosen)
    if plan_only:
        console = wide_console()
        for part in dry_run(experiment) if leads else ():
            console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))
        return
    splits = load_splits(experiment) if leads else None  # which may download the data
    if group is not None:
        group.barrier()
    splits = load_splits(experiment) if splits is None else splits
    folder = Path(chosen.out) / CHECKPOINT if chosen.out and leads else None
    with nullcontext() if folder is None else FolderLock(folder):  # it may have been taken while data were read
        if folder is not None and not resumed:
            _require_no_run(chosen.out)
        history = _fit(experiment, splits, resumed, leads)
    if leads:
        _tell(experiment, splits, history)
    elif history.stopped == "interrupted":
        raise typer.Exit(130)


def _require_place(o: Options, resumed: bool) -> None:
    """Refuse a folder that nothing can be written to, that holds another run, or that holds none to go on with.

    Nothing is left there: the settings of a run are what --resume goes by.

    Raises
    ------
    ConfigError, CheckpointError
    """
    if not o.out:
        return
    require_out(Path(o.out))
    if resumed:
        load(Path(o.out) / CHECKPOINT)
    else:
        _require_no_run(o.out)


def require_out(folder: Path) -> None:
    """Refuse a folder that nothing can be written to.

    Raises
    ------
    CheckpointError
    """
    try:
        require_writable(folder)
    except OSError as problem:
        where = folder.absolute()
        raise CheckpointError(f"cannot write to --out {where}: {problem.strerror}", path=where) from problem


def _require_no_run(out: str) -> None:
    if exists(Path(out) / CHECKPOINT):
        raise ConfigError(
            f"--out {out} holds another run: go on with it by --resume {out}, or give another --out", key="out"
        )


def _fit(experiment: Experiment, splits: Splits, resumed: bool, leads: bool) -> History:
    o = experiment.options
    folder = Path(o.out) if o.out else None
    if folder is not None and leads:
        _write_settings(o, folder)
    loader = splits.train.batches(o.batch_size, seed=o.seed, stream_aligned=o.stream_aligned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PCGraphWarning)  # they are in the history, and told at the end
        return fit(
            experiment.net, loader, **experiment.in_training, epochs=o.epochs,
            validate=partial(_judge, experiment, splits), log=folder / "log.csv" if folder else None,
            checkpoint=folder / CHECKPOINT if folder else None,
            resume=folder / CHECKPOINT if folder and resumed else None, on_interrupt="return", progress=True,
        )  # fmt: skip


def _judge(experiment: Experiment, splits: Splits, net: PCNetwork) -> dict[str, float]:
    """Measure accuracy after an epoch: the one that judges it, and that of the test where this is another."""
    found = {"accuracy": _accuracy(experiment, splits.judge)}
    return found if splits.judge is splits.test else {**found, "test_accuracy": _accuracy(experiment, splits.test)}


def _accuracy(experiment: Experiment, images: Images) -> float:
    found: Evaluation = evaluate(experiment.net, images.batches(1000, shuffle=False), **experiment.at_test)
    assert found.accuracy is not None  # targets are one-hot rows
    return found.accuracy


def _tell(experiment: Experiment, splits: Splits, history: History) -> None:
    """Say what came of it, and draw the learning curve."""
    s, on_test = experiment.options, splits.judge is splits.test
    say = Console(highlight=False, soft_wrap=True).print
    for warning in history.warnings:
        say(f"warning: {warning}", style="yellow", markup=False)
    best = history.best("accuracy")
    if best is not None:
        last = history.epochs[-1]
        own = "accuracy" if on_test else "test_accuracy"
        how = "on the test set itself" if on_test else f"by validation, {best.validation['accuracy']:.2%}"
        say(f"Test accuracy after epoch {last.epoch}: {last.validation[own]:.2%}")
        say(f"Test accuracy of the best epoch, {best.epoch} (chosen {how}): {best.validation[own]:.2%}")
        if s.out:
            judged = "test" if on_test else "validation"
            drawing.learning_curve(history, Path(s.out) / "learning.png", title=experiment.source.name, judged=judged)
    if s.out:
        say(f"Settings, checkpoint, log and learning curve: {s.out}", markup=False)
    if history.stopped == "interrupted":
        say("Stopped." + (f" Go on with: pcgraph train --resume {s.out}" if s.out else ""), markup=False)
        raise typer.Exit(130)


def _write_settings(o: Options, folder: Path) -> None:
    """Keep the settings beside the run, in a form that --config reads."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder / SETTINGS, o)
    except OSError as problem:
        raise CheckpointError(f"cannot write to --out {folder}: {problem.strerror}", path=folder) from problem
