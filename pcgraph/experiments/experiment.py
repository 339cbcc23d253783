"""Prepare what ``pcgraph train`` trains: data, network and initializer are made from options and checked first."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
import torch

from pcgraph import data, graphs
from pcgraph.data import Images
from pcgraph.data.loading import class_balanced
from pcgraph.data.sources import CATALOGUE, Source, foresee
from pcgraph.errors import ConfigError, Diverged, InvalidInitializer, PCGraphWarning, unknown_name
from pcgraph.experiments.initializers import make_initializer
from pcgraph.experiments.machine import within_memory
from pcgraph.experiments.options import Options, sizes_of
from pcgraph.experiments.rules import frees_target, infers, make_rule, plans
from pcgraph.experiments.text import node_named
from pcgraph.initializers import Average, Forward, Initializer, Null
from pcgraph.learning import Incremental, Nudged, Rule
from pcgraph.model import PCNetwork
from pcgraph.network.machine import require_bytes
from pcgraph.optimizers import SGD
from pcgraph.plan import Plan
from pcgraph.serialization import read_graph
from pcgraph.topology import PhaseReport, check_phases
from pcgraph.training import evaluate, fit

__all__ = ["Experiment", "Splits", "dry_run", "load_splits", "prepare", "rehearse"]

COPIES = 4
"""Training holds a weight so many times: itself, its gradient, and two running means of AdamW."""
FEW = 2
"""A rehearsal takes no more inference steps than this."""

PRESETS: dict[str, Callable[..., nx.DiGraph]] = {"alexnet": graphs.alexnet, "vgg5": graphs.vgg5}
"""``--graph`` takes these names beside sizes and files."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """Holds everything that a training run needs but the images.

    Attributes
    ----------
    options : Options
    source : Source
        What is known of the data set before it is read.
    input, target : node
    net : PCNetwork
    rule : Rule
    init : Initializer or None
        None where the rule has no inference.
    test_init : Initializer or None
        None: the test is answered by a sweep.
    reports : PhaseReport
        For the clamps of training and of test.
    stand_in : Splits
        As many images, of the same classes, as the data set will have.
    """

    options: Options
    source: Source
    input: Hashable
    target: Hashable
    net: PCNetwork
    rule: Rule
    init: Initializer | None
    test_init: Initializer | None
    reports: PhaseReport
    stand_in: Splits

    @property
    def flat(self) -> bool:
        """Say whether the input takes images as vectors."""
        return len(self.net.structure.shape(self.input)) == 1

    @property
    def state_optimizer(self) -> SGD:
        """Make the optimizer that moves the states."""
        return SGD(lr=self.options.state_lr)

    @property
    def inference(self) -> dict[str, Any]:
        """Say how training infers, as arguments of :func:`pcgraph.fit`; none for a rule without inference."""
        if self.init is None:
            return {}
        return {"init": self.init, "steps": self.options.steps, "state_optimizer": self.state_optimizer}

    @property
    def plans(self) -> list[tuple[int, Plan]]:
        """Count how often a training step runs which plan."""
        if self.init is None:
            return []
        s = self.options
        return plans(self.net, self.rule, self.input, self.target, self.init, s.steps, self.state_optimizer)

    @property
    def remembered(self) -> list[torch.nn.Parameter]:
        """List the parameters of the initializer."""
        return list(self.init.parameters()) if self.init is not None else []

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """List what is trained: parameters of the network and of the initializer."""
        return [p for p in (*self.net.parameters(), *self.remembered) if p.requires_grad]

    @property
    def in_training(self) -> dict[str, Any]:
        """Say how it is trained, as arguments of :func:`pcgraph.fit`."""
        weights = torch.optim.AdamW(self.parameters, lr=self.options.lr, eps=self.options.eps)
        return {
            "clamp": (self.input, self.target), "predict": self.target, "rule": self.rule, **self.inference,
            "optimizer": weights,
        }  # fmt: skip

    @property
    def at_test(self) -> dict[str, Any]:
        """Say how the test is answered, as arguments of :func:`pcgraph.evaluate`."""
        ways: dict[str, Any] = {"given": self.input, "predict": self.target}
        if self.test_init is not None:
            ways |= {"init": self.test_init, "steps": self.options.test_steps, "optimizer": self.state_optimizer}
        return ways


@dataclass(frozen=True, eq=False)
class Splits:
    """Holds the images of a run: those to train on, those on which epochs are judged, and the test set."""

    train: Images
    judge: Images
    test: Images


def prepare(options: Options) -> Experiment:
    """Make network, rule and initializers, and refuse whatever cannot work, before any data is looked for.

    Raises
    ------
    PCGraphError
        Of the kind that says what is wrong: the graph, a setting, an initializer, or more than the memory holds.
    """
    source = CATALOGUE[options.data]
    stand_in = _stand_in(source, options)
    net = _network(options)
    given, target = (node_named(net.graph, text) for text in (options.input, options.target))
    for option, node in (("--input", given), ("--target", target)):
        if node not in net.graph:
            raise ConfigError(f"{option}: {unknown_name('node', node, map(str, net.graph))}", key=option[2:])
    flat = len(net.structure.shape(given)) == 1
    image = (math.prod(source.shape),) if flat else source.shape
    _fits(net, given, image, "--input", f"the images of {options.data}")
    _fits(net, target, (len(source.classes),), "--target", f"the classes of {options.data}")
    rule = make_rule(options.rule)
    if isinstance(rule, Incremental) and not options.steps:
        raise ConfigError("--rule incremental needs at least one of --steps (found 0)", key="steps")
    reports = check_phases(net, {"training": [given] if frees_target(rule) else [given, target], "test": [given]})
    init = None
    if infers(rule):
        init = make_initializer(options.init, net).to(options.device)
        reports["training"].verdict(init).require()
        _fits_batches(init, options, len(stand_in.train))
    else:
        reports["training"].verdict(Forward()).require()
    test_init = _test_init(options, net, reports, init)
    made = Experiment(options, source, given, target, net, rule, init, test_init, reports, stand_in)
    if not made.parameters:
        raise ConfigError("there is nothing to train: no edge of the graph has a trainable weight", key="graph")
    if net.device.type == "cpu":
        count = sum(p.numel() for p in made.parameters)
        require_bytes(COPIES * count * net.dtype.itemsize, f"training {count:.3g} parameters")
    return made


def rehearse(experiment: Experiment) -> None:
    """Train and test on one batch of noise, an image of each class, so that a run is refused before it begins.

    The experiment is used up: its weights have moved.

    Raises
    ------
    PCGraphError
        What the run would raise at its first batch or, hours later, at its first test.
    """
    source, o = experiment.source, experiment.options
    few = replace(o, steps=min(o.steps, FEW), test_steps=min(o.test_steps, FEW))
    tried = replace(experiment, options=few)
    classes = len(source.classes)
    shape = (math.prod(source.shape),) if tried.flat else source.shape
    noise = torch.rand(classes, *shape, generator=torch.Generator().manual_seed(0), device="cpu")
    images = Images(noise, torch.arange(classes, device="cpu"), source.classes).to(o.device)
    # Warnings, and an energy that grows, say nothing here: the images are only noise.
    with warnings.catch_warnings(), within_memory("a batch of training", "init"), suppress(Diverged):
        warnings.simplefilter("ignore", PCGraphWarning)
        fit(tried.net, images.batches(classes), **tried.in_training, epochs=1, progress=False, group=False)
        evaluate(tried.net, images.batches(classes, shuffle=False), **tried.at_test, group=False)
    if experiment.net.device.type == "cpu":
        size = min(o.batch_size, len(experiment.stand_in.train))
        needed = max((plan.memory(size) for _, plan in experiment.plans), default=0)
        require_bytes(needed, f"a training step of a batch of {size}", "take a smaller --batch-size, or smaller groups")


def load_splits(experiment: Experiment) -> Splits:
    """Read the data, or download it.

    Raises
    ------
    DataError
        It cannot be found or is malformed.
    """
    o = experiment.options
    everything = data.load(o.data, fraction=o.fraction, seed=o.seed, flatten=experiment.flat, device=o.device)
    return _splits(everything, data.load(o.data, "test", flatten=experiment.flat, device=o.device), o)


def _splits(everything: Images, test: Images, o: Options) -> Splits:
    """Cut off the part of the training set that judges epochs, if any; otherwise the test set does."""
    return (
        Splits(*everything.split(o.validation, seed=o.seed), test) if o.validation else Splits(everything, test, test)
    )


def _stand_in(source: Source, o: Options) -> Splits:
    """Cut a set of as many empty images as the data set has, and refuse parts and batches that cannot be cut of it."""

    def empty(split: str) -> Images:
        labels = torch.arange(source.counts[split], device="cpu") % len(source.classes)
        return Images(torch.zeros(len(labels), 1, device="cpu"), labels, source.classes)

    everything = empty("train")
    rows = class_balanced(everything.labels, o.fraction, o.seed, source.classes)
    splits = _splits(everything if rows is None else everything.take(rows), empty("test"), o)
    splits.train.batches(o.batch_size, seed=o.seed, stream_aligned=o.stream_aligned)
    return splits


def _network(options: Options) -> PCNetwork:
    with within_memory(f"--graph {options.graph}", "graph"):
        return PCNetwork(_graph(options), seed=options.seed, device=options.device)


def _graph(options: Options) -> nx.DiGraph:
    sizes = sizes_of(options.graph)
    if sizes is not None:
        return graphs.chain(sizes, activation=options.activation)
    if options.graph in PRESETS:
        return PRESETS[options.graph](activation=options.activation)
    path = Path(options.graph)
    if not path.suffix and not os.path.exists(path):
        message = unknown_name("network", options.graph, PRESETS)
        raise ConfigError(f"{message} Otherwise give sizes, such as 784-512x4-10, or a graph file.", key="graph")
    return read_graph(path)


def _fits(net: PCNetwork, node: Hashable, needed: tuple[int, ...], option: str, what: str) -> None:
    found = net.structure.shape(node)
    if found != needed:
        raise ConfigError(
            f"{what} have shape {needed}, but {option} {node!r} has shape {found}: change it, or the data",
            key=option[2:],
        )


def _fits_batches(init: Initializer, s: Options, images: int) -> None:
    """Refuse Null where batches differ in size: it keeps states by slot, and would stop at the last batch."""
    left = images % s.batch_size
    if left and not s.stream_aligned and any(isinstance(part, Null) for part in init.modules()):
        raise ConfigError(
            f"--init {s.init} keeps the states of the batch before, so all batches are of one size (found {left} of "
            f"{images} images left for the last one): give --stream-aligned, or a --batch-size that divides {images}",
            key="batch_size",
        )


def _test_init(
    options: Options, net: PCNetwork, reports: PhaseReport, init: Initializer | None
) -> Initializer | None:  # fmt: skip
    """Make the initializer at test time; None where a sweep answers.

    Named as in training it is the same, with all that it has learned; but for Null, which knows batches by their size.

    Raises
    ------
    InvalidInitializer
        No sweep answers, and none was named.
    """
    if options.test_init:
        learned = init is not None and not any(isinstance(part, Null) for part in init.modules())
        if options.test_init != options.init or not learned:
            init = make_initializer(options.test_init, net)
        assert init is not None
        reports["test"].verdict(init).require()
        return init
    verdict = reports["test"].verdict(Forward())
    if not verdict.valid:
        raise InvalidInitializer(
            f"at test time no sweep answers: {verdict.initializer} {verdict.reason}. Say how to find the answer, "
            "as in --test-init forward:fallback=zero --test-steps 50.",
            verdict=verdict,
        )
    return None


def dry_run(experiment: Experiment) -> list[Any]:
    """Say what a run would do, as things to print: the report, the plan, and what it costs; nothing is downloaded.

    Raises
    ------
    DataError
        The data are here, and malformed; or they are not, and nothing is installed that fetches them.
    """
    source, batch = experiment.source, experiment.options.batch_size
    splits = experiment.stand_in
    train, judge, test = (len(images) for images in (splits.train, splits.judge, splits.test))
    judged = f"{judge} to judge epochs, {test} for the test"
    if splits.judge is splits.test:
        judged = f"{test} for the test, which judge the epochs too (see --validation)"
    obstacles = foresee(source)
    weights, remembered = (
        sum(p.numel() for p in group) for group in (experiment.net.parameters(), experiment.remembered)
    )
    facts = [
        f"data: {source.name}, {train} images for training, {judged}",
        *([] if obstacles is None else [f"{source.name} is not on this machine yet: training downloads it."]),
        *(f"A download would fail now: {problem}" for problem in obstacles or ()),
        f"parameters: {weights:,}" + (f", and {remembered:,} of the initializer" if remembered else ""),
    ]
    parts = experiment.plans
    if not parts:
        depth = experiment.reports["training"].depth[experiment.target]
        return [
            experiment.reports,
            "Backpropagation through the graph: there is no inference, and so no plan.",
            *facts,
            f"sequential matrix multiplications: {2 * depth - 1} by the paper's count",
        ]
    missing = parts[0][1].uncounted
    uncounted = f", without the modules of {', '.join(missing)}" if missing else ""
    flops, memory = sum(n * plan.flops(batch) for n, plan in parts), max(plan.memory(batch) for _, plan in parts)
    return [
        experiment.reports,
        parts[0][1].explain(),
        *_about_plan(experiment),
        *facts,
        f"matrix products of a training step, batch of {batch}: {flops / 1e9:.3g} GFLOP{uncounted}",
        f"memory of a training step, batch of {batch}: {memory / 2**20:,.1f} MiB",
    ]


def _about_plan(experiment: Experiment) -> list[str]:
    """Say what else there is to a training step than the plan that was printed."""
    said = []
    if isinstance(experiment.init, Average):
        said.append("The plan is that of the first batch, before there are means to start from.")
    if isinstance(experiment.rule, Incremental):
        said.append(
            f"It is the first of {experiment.options.steps} inference steps; the others start from the states before "
            "them. The weights move after each."
        )
    if isinstance(experiment.rule, Nudged):
        said.append("It runs twice a batch, once in each phase.")
    return said
