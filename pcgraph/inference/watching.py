"""Inference is watched step by step: states are kept on the way, and a function is called after every step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from pcgraph.arguments import read_names, require_choice, require_count, require_taking, shown
from pcgraph.backends import Program
from pcgraph.errors import ConfigError
from pcgraph.inference.reading import NodeTensors, Reader
from pcgraph.network import Structure

__all__ = ["InferenceStep", "Keeper", "Trace", "read_callback", "read_trace"]

Node = Hashable
Traces = tuple[dict[Node, Tensor] | None, dict[Node, Tensor] | None, tuple[int, ...]]
#: What a run has kept that was asked for nothing.
NOTHING_KEPT: Traces = (None, None, ())


class Trace:
    """States and errors are kept on the way: ``net.infer(..., trace=Trace(["h1"], every=5))``.

    ``trace="states"`` keeps those of all nodes after every step. Energies by node are kept of every step in any case,
    as with ``trace="nodes"``.

    Parameters
    ----------
    nodes : iterable of node, optional
        Those that are kept; all if None.
    every : int
        After how many steps again. The beginning and the end are always kept.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3, 2]))
    >>> clamps = {"x": torch.ones(5, 4), "y": torch.ones(5, 2)}
    >>> run = {"init": pcgraph.Forward(), "steps": 7, "optimizer": pcgraph.SGD(lr=0.1)}
    >>> result = net.infer(clamps, **run, trace=Trace(["h1"], every=3))
    >>> result.trace_steps, result.state_trace["h1"].shape
    ((0, 3, 6, 7), torch.Size([4, 5, 3]))
    """

    def __init__(self, nodes: Iterable[Node] | None = None, *, every: int = 1) -> None:
        self.nodes = None if nodes is None else read_names(nodes, "nodes")
        self.every = require_count(every, "every", least=1)
        if self.nodes is not None and len(set(self.nodes)) < len(self.nodes):
            raise ConfigError(f"nodes names each node once (found {shown(nodes)})", key="nodes")

    def __repr__(self) -> str:
        return f"Trace({'' if self.nodes is None else f'{list(self.nodes)}, '}every={self.every})"


class InferenceStep:
    """This is what a callback sees of an inference under way; it is good for as long as the call lasts.

    Attributes
    ----------
    step : int
        How many steps have been taken.
    steps : int
        How many will be, at most.
    states, predictions, errors : mapping
        Node -> (batch, *shape), copied when they are asked for. On a network that is cut over ranks, those of this
        rank's nodes; the function is called on all ranks.
    """

    def __init__(self, program: Program, step: int, t: int | None) -> None:
        self.step, self.steps = step, program.plan.steps
        reader = Reader(program, lend=False)
        self.states, self.predictions, self.errors = (
            NodeTensors(reader, "state"), NodeTensors(reader, "prediction"), NodeTensors(reader, "error"),
        )  # fmt: skip
        self._program, self._t = program, t
        if self.states.elsewhere:  # ranks add it up together, whether or not all of them ask
            self.energy  # noqa: B018

    @cached_property
    def energy(self) -> Tensor:
        """Compute F per sample, shape (batch,)."""
        return self._program.energy(self._t)

    def __repr__(self) -> str:
        return f"InferenceStep({self.step} of {self.steps})"


Callback = Callable[[InferenceStep], Any]


class Keeper:
    """A keeper keeps states and errors of a run, and calls back."""

    def __init__(self, program: Program, trace: Trace | None, callback: Callback | None) -> None:
        self.program, self.trace, self.callback = program, trace, callback
        s = program.plan.structure
        names = () if trace is None else tuple(program.network.graph) if trace.nodes is None else trace.nodes
        names = tuple(v for v in names if program.holds(s.number[v]))
        self.numbers = {v: s.number[v] for v in names}
        self.steps: list[int] = []
        self.states: dict[Node, list[Tensor]] = {v: [] for v in names}
        self.errors: dict[Node, list[Tensor]] = {v: [] for v in names}

    def see(self, step: int, t: int | None) -> None:
        """Look at the program after `step` steps, when stage `t` has been evaluated; None at the end."""
        if self.trace is not None and (t is None or step % self.trace.every == 0):
            if self.steps and self.steps[-1] == step:  # a run that has converged ends where it was seen last
                for kept in (self.steps, *self.states.values(), *self.errors.values()):
                    kept.pop()  # type: ignore[attr-defined]
            self.steps.append(step)
            for v, i in self.numbers.items():
                state = self.program.read(i, "state").clone()
                self.states[v].append(state)
                self.errors[v].append(state - self.program.read(i, "prediction"))
        if self.callback is not None:
            self.callback(InferenceStep(self.program, step, t))

    @property
    def kept(self) -> Traces:
        """Return what was kept: states, errors, and after which steps."""
        if self.trace is None:
            return NOTHING_KEPT
        states, errors = ({v: torch.stack(rows) for v, rows in kind.items()} for kind in (self.states, self.errors))
        return states, errors, tuple(self.steps)


def read_trace(structure: Structure, trace: Any) -> tuple[bool | Literal["nodes"], Trace | None]:
    """Read ``trace=``: which energies are kept, and which states.

    Raises
    ------
    ConfigError
        It is none of those; or a node that is not in the graph.
    """
    if isinstance(trace, str) and trace == "states":
        trace = Trace()
    if not isinstance(trace, Trace):
        if isinstance(trace, type) and issubclass(trace, Trace):
            raise ConfigError("trace is a Trace, and this is its class: write trace=pcgraph.Trace()", key="trace")
        found: Any = require_choice(trace, "trace", (False, True, "nodes", "states"))
        return found, None
    for v in trace.nodes or ():
        structure.require_node(v)
    return "nodes", trace


def read_callback(callback: Any) -> Callback | None:
    """Read ``callback=``.

    Raises
    ------
    ConfigError
    """
    if callback is not None and (not callable(callback) or isinstance(callback, type)):
        raise ConfigError(
            "callback is a function of an InferenceStep, as in callback=lambda step: print(step.step) (found "
            f"{shown(callback)})",
            key="callback",
        )
    if callback is not None:
        require_taking(callback, "callback", "an InferenceStep", 1)
    found: Callback | None = callback
    return found
