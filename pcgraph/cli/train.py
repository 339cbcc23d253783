"""``pcgraph train``."""

from __future__ import annotations

import dataclasses
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from pcgraph import drawing
from pcgraph.checkpoints import exists
from pcgraph.cli.run import Pictures, Run, declare, dry_run, read
from pcgraph.cli.settings import Settings, kept, option, settings
from pcgraph.data import Images
from pcgraph.errors import CheckpointError, ConfigError, PCGraphWarning
from pcgraph.model import PCNetwork
from pcgraph.training import History, evaluate, fit

__all__ = ["train", "wide_console"]

SETTINGS = "settings.toml"
MAY_CHANGE = ("epochs", "device", "test_init", "test_steps")
"""What a resumed run may be given anew; the optimizer, the data and the network go on as they were."""
WIDTH = 120
"""Columns of what is written to a file or a pipe."""


def wide_console() -> Console:
    """The terminal as it is, or a wide page where there is none."""
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

    The network is the paper's 784-512x4-10 for images of 28 x 28, and a smaller one for digits.
    """
    given = {k: v for k, v in locals().items() if k in {f.name for f in dataclasses.fields(Settings)}}
    if resume is not None:
        if config is not None:
            raise ConfigError("--resume takes its settings from the run: leave out --config", key="resume")
        changed = [option(key) for key, value in given.items() if value is not None and key not in MAY_CHANGE]
        if changed:
            raise ConfigError(
                f"--resume goes on with the settings of the run: leave out {', '.join(changed)} (what may change is "
                f"{', '.join(map(option, MAY_CHANGE))})",
                key="resume",
            )
        config, given["out"] = resume / SETTINGS, str(resume)
    chosen = settings(given, config)
    if resume is None and not plan_only:
        _refuse_another_run(chosen)
    run = declare(chosen)
    if plan_only:
        console = wide_console()
        for part in dry_run(run):
            console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))
        return
    pictures = read(run)
    history = _fit(run, pictures, resume is not None)
    _tell(run, pictures, history)


def _refuse_another_run(s: Settings) -> None:
    """Before anything is written: the settings of a run are what --resume goes by."""
    if s.out and exists(Path(s.out) / "checkpoint"):
        raise ConfigError(
            f"--out {s.out} holds another run: go on with it by --resume {s.out}, or give another --out", key="out"
        )


def _fit(run: Run, pictures: Pictures, resumed: bool) -> History:
    s = run.settings
    folder = Path(s.out) if s.out else None
    if folder is not None:
        _write_settings(s, folder)
    loader = pictures.train.batches(s.batch_size, seed=s.seed, stream_aligned=s.stream_aligned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PCGraphWarning)  # they are in the history, and told at the end
        return fit(
            run.net, loader, clamp=(run.input, run.target), predict=run.target, rule=run.rule, **run.inference,
            optimizer=torch.optim.AdamW(run.parameters, lr=s.lr, eps=s.eps), epochs=s.epochs,
            validate=partial(_judge, run, pictures), log=folder / "log.csv" if folder else None,
            checkpoint=folder / "checkpoint" if folder else None,
            resume=folder / "checkpoint" if folder and resumed else None, on_interrupt="return", progress=True,
        )  # fmt: skip


def _judge(run: Run, pictures: Pictures, net: PCNetwork) -> dict[str, float]:
    """Accuracies after an epoch: the one that it is judged by, and that of the test where this is another."""
    found = {"accuracy": _accuracy(run, pictures.judge)}
    return found if pictures.judge is pictures.test else {**found, "test_accuracy": _accuracy(run, pictures.test)}


def _accuracy(run: Run, images: Images) -> float:
    found = evaluate(run.net, images.batches(1000, shuffle=False), **run.at_test).accuracy
    assert found is not None  # targets are one-hot rows
    return found


def _tell(run: Run, pictures: Pictures, history: History) -> None:
    """What came of it, and the picture."""
    s, on_test = run.settings, pictures.judge is pictures.test
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
            drawing.learning_curve(history, Path(s.out) / "learning.png", title=run.source.name, judged=judged)
    if s.out:
        say(f"Settings, checkpoint, log and learning curve: {s.out}", markup=False)
    if history.stopped == "interrupted":
        say("Stopped." + (f" Go on with: pcgraph train --resume {s.out}" if s.out else ""), markup=False)
        raise typer.Exit(130)


def _write_settings(s: Settings, folder: Path) -> None:
    """Keep the settings beside the run, in a form that --config reads."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in kept(s).items())
        (folder / SETTINGS).write_text("".join(lines), encoding="utf-8")
    except OSError as problem:
        raise CheckpointError(f"cannot write to --out {folder}: {problem.strerror}", path=folder) from problem
