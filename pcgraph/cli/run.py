"""What ``pcgraph train`` trains: data, network, initializer, made from settings and checked before it starts."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import torch

from pcgraph import data, graphs
from pcgraph.cli.initializers import make_initializer, node_named
from pcgraph.cli.settings import Settings, sizes_of
from pcgraph.data import Images
from pcgraph.errors import ConfigError, InvalidInitializer, unknown_name
from pcgraph.initializers import Average, Forward, Initializer
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD
from pcgraph.plan import Plan
from pcgraph.serialization import read_graph
from pcgraph.topology import PhaseReport, check_phases

__all__ = ["Run", "dry_run", "prepare"]

PRESETS: dict[str, Callable[..., nx.DiGraph]] = {"alexnet": graphs.alexnet, "vgg5": graphs.vgg5}
"""Names that ``--graph`` takes beside sizes and files."""


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that a training run needs.

    Attributes
    ----------
    settings : Settings
    input, target : node
    train, judge, test : Images
        Training images, those on which epochs are judged, and the test set.
    net : PCNetwork
    init : Initializer
    test_init : Initializer or None
        None: the test is answered by a sweep.
    reports : PhaseReport
        For the clamps of training and of test.
    """

    settings: Settings
    input: Hashable
    target: Hashable
    train: Images
    judge: Images
    test: Images
    net: PCNetwork
    init: Initializer
    test_init: Initializer | None
    reports: PhaseReport

    @property
    def plan(self) -> Plan:
        """The plan of a training step."""
        return self.net.plan(
            {self.input, self.target}, init=self.init, steps=self.settings.steps, optimizer=self.state_optimizer
        )

    @property
    def state_optimizer(self) -> SGD:
        """How states move."""
        return SGD(lr=self.settings.state_lr)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Those of the network and of the initializer."""
        return [p for p in (*self.net.parameters(), *self.init.parameters()) if p.requires_grad]

    @property
    def at_test(self) -> dict[str, Any]:
        """How the test is answered: settings of :func:`pcgraph.evaluate`."""
        ways: dict[str, Any] = {"given": self.input, "predict": self.target}
        if self.test_init is not None:
            ways |= {"init": self.test_init, "steps": self.settings.test_steps, "optimizer": self.state_optimizer}
        return ways


def prepare(settings: Settings) -> Run:
    """Read the data, make the network, and refuse whatever cannot work.

    Raises
    ------
    PCGraphError
        Of the kind that says what is wrong: the data, the graph, a setting, or an initializer.
    """
    graph = _graph(settings)
    given, target = (node_named(graph, text) for text in (settings.input, settings.target))
    for option, node in (("--input", given), ("--target", target)):
        if node not in graph:
            raise ConfigError(f"{option}: {unknown_name('node', node, map(str, graph))}", key=option[2:])
    flat = not isinstance(graph.nodes[given].get("shape"), tuple | list) or len(graph.nodes[given]["shape"]) == 1
    everything = data.load(
        settings.data, fraction=settings.fraction, seed=settings.seed, flatten=flat, device=settings.device
    )
    test = data.load(settings.data, "test", flatten=flat, device=settings.device)
    train, judge = everything, test
    if settings.validation:
        train, judge = everything.split(settings.validation, seed=settings.seed)
    net = PCNetwork(graph, seed=settings.seed, device=settings.device)
    _fits(net, given, train.shape, "--input", f"the images of {settings.data}")
    _fits(net, target, (len(train.classes),), "--target", f"the classes of {settings.data}")
    reports = check_phases(net, {"training": [given, target], "test": [given]})
    init = make_initializer(settings.init, net).to(settings.device)
    reports["training"].verdict(init).require()
    return Run(settings, given, target, train, judge, test, net, init, _test_init(settings, net, reports), reports)


def _graph(settings: Settings) -> nx.DiGraph:
    sizes = sizes_of(settings.graph)
    if sizes is not None:
        return graphs.chain(sizes, activation=settings.activation)
    if settings.graph in PRESETS:
        return PRESETS[settings.graph](activation=settings.activation)
    path = Path(settings.graph)
    if not path.suffix and not path.exists():
        message = unknown_name("network", settings.graph, PRESETS)
        raise ConfigError(f"{message} Otherwise give sizes, such as 784-512x4-10, or a graph file.", key="graph")
    return read_graph(path)


def _fits(net: PCNetwork, node: Hashable, needed: tuple[int, ...], option: str, what: str) -> None:
    found = net.structure.shape(node)
    if found != needed:
        raise ConfigError(
            f"{what} have shape {needed}, but {option} {node!r} has shape {found}: change it, or the data",
            key=option[2:],
        )


def _test_init(settings: Settings, net: PCNetwork, reports: PhaseReport) -> Initializer | None:
    """The initializer at test time, or None where a sweep answers.

    Raises
    ------
    InvalidInitializer
        No sweep answers, and none was named.
    """
    if settings.test_init:
        init = make_initializer(settings.test_init, net)
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


def dry_run(run: Run) -> list[Any]:
    """What a run would do, as things to print: the report, the plan, and what it costs."""
    plan, batch = run.plan, run.settings.batch_size
    weights = sum(p.numel() for p in run.net.parameters())
    remembered = sum(p.numel() for p in run.init.parameters())
    judged = (
        f"{len(run.test)} for the test, which judge the epochs too (see --validation)"
        if run.judge is run.test
        else f"{len(run.judge)} to judge epochs, {len(run.test)} for the test"
    )
    first = ["The plan is that of the first batch, before there are means to start from."]
    facts = [
        *(first if isinstance(run.init, Average) else ()),
        f"data: {run.train.name}, {len(run.train)} images for training, {judged}",
        f"parameters: {weights:,}" + (f", and {remembered:,} of the initializer" if remembered else ""),
        f"matrix products of a training step, batch of {batch}: {plan.flops(batch) / 1e9:.3g} GFLOP",
    ]
    facts.append(f"memory of a training step, batch of {batch}: {plan.memory(batch) / 2**20:,.1f} MiB")
    return [run.reports, plan.explain(), *facts]
