"""An initializer says what it requires, what it lays out, what it writes, and what it remembers.

An initialization assigns ``h^(0)`` (paper, Section 3). It is a list of actions in order: *given* nodes get values
from an initializer, *swept* nodes get their own prediction, ``h_v = mu_v``, in topological order. The list depends on
the graph and the clamps alone, so that a plan can be made of it before there is any data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcgraph.arguments import shown
from pcgraph.errors import InvalidInitializer
from pcgraph.network import LoadedWhole, Network, Structure
from pcgraph.optimizers import StateOptimizer
from pcgraph.processes import Part
from pcgraph.solvers import Solver
from pcgraph.topology import Report, Verdict

__all__ = [
    "Block", "Context", "Given", "Initializer", "Layout", "Relaxation", "Relaxed", "Swept", "blocks",
    "is_ours", "require", "require_initializer",
]  # fmt: skip

Node = Hashable


@dataclass(frozen=True, eq=False)
class Relaxation:
    """A relaxation is an inference on a part of the graph before an initialization, as if nothing read these nodes.

    Attributes
    ----------
    nodes : tuple
        They are relaxed given all that they read: clamps, and the nodes of earlier relaxations.
    steps : int
        They move so many steps from zero at most; 0 sweeps them.
    optimizer : StateOptimizer, Solver or None
    tolerance : float
        Stop when no neuron's gradient is larger.
    release : frozenset of nodes
        Clamped nodes whose values it does not see.
    """

    nodes: tuple[Node, ...]
    steps: int
    optimizer: StateOptimizer | Solver | None
    tolerance: float
    release: frozenset[Node]


@dataclass(frozen=True)
class Relaxed:
    """What relaxations have found is kept here.

    Attributes
    ----------
    states : mapping
        Node -> (batch, *shape).
    residual : float
        The largest gradient that they have left.
    """

    states: Mapping[Node, Tensor]
    residual: float


@dataclass(frozen=True)
class Given:
    """These nodes get their value from `source`, by ``source.init(block, out, context)``, after its relaxations."""

    source: Initializer
    nodes: tuple[Node, ...]
    after: tuple[Relaxation, ...] = ()


@dataclass(frozen=True)
class Swept:
    """These nodes get their own prediction, in this order."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Layout:
    """A layout is the actions of an initialization, in order. Every free node is written by at least one."""

    actions: tuple[Given | Swept, ...]


@dataclass(frozen=True)
class Block:
    """A block is neighbouring nodes of one shape, which are written together.

    Attributes
    ----------
    nodes : tuple
        Names.
    shape : tuple of int
        The shape of one node's state, without the batch.
    group : str
        Name of the group of all nodes of this shape.
    start, stop : int
        Positions in that group.
    number : int
        The canonical number of the first node.
    """

    nodes: tuple[Node, ...]
    shape: tuple[int, ...]
    group: str
    start: int
    stop: int
    number: int


@dataclass(frozen=True)
class Context:
    """A context holds what an initializer may look at.

    Attributes
    ----------
    batch : int
    clamps : mapping
        Fully clamped node -> (batch, *shape).
    labels : Tensor or None
        Class numbers (batch,), where they were given.
    network : Network
    sources : tuple of Initializer
        The initializers that write states, as the plan numbers them.
    relaxed : mapping
        Initializer -> what the relaxations that its layout asked for have found.
    part : Part or None
        Which rows of a batch these are, where several processes share it: what depends on the batch as a whole is
        drawn for, or gathered from, all of them.
    """

    batch: int
    clamps: Mapping[Node, Tensor]
    labels: Tensor | None
    network: Network
    sources: tuple[Initializer, ...] = ()
    relaxed: Mapping[Initializer, Relaxed] = field(default_factory=dict)
    part: Part | None = None

    @property
    def whole(self) -> int:
        """Count the samples of the whole batch, of which other processes may have some."""
        return self.batch if self.part is None else self.part.total


class Initializer(LoadedWhole):
    """Every initializer derives from this class. Write :meth:`requirement` and :meth:`init`.

    What an initializer remembers is a buffer, what it learns is a parameter.
    """

    #: Whether :meth:`init` writes nothing but zeros, so that products of these states need not be computed.
    writes_zeros: bool = False
    #: Whether :meth:`init` and :meth:`observe` start the same work for every batch, read and write nothing but tensors
    #: that stay where they are, and never wait for the device, so that they can be recorded as a CUDA graph.
    capturable: bool = False
    #: How ranks that share a network let :meth:`init` write: "nodes", each its own, one by one; "blocks", the blocks of
    #: one process, of which each rank keeps its own nodes, so that draws are the same; None, not at all. Either
    #: promises that what a node gets does not depend on the states of others.
    across: Literal["nodes", "blocks"] | None = None
    #: Sequential matrix products that :meth:`init` takes, for the count of :attr:`pcgraph.Plan.smm`.
    products: int = 0

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Let a class promise for itself alone: what it does not declare is not inherited."""
        super().__init_subclass__(**keywords)
        if "writes_zeros" not in cls.__dict__:
            cls.writes_zeros = False
        if "capturable" not in cls.__dict__:
            cls.capturable = False
        if "across" not in cls.__dict__:
            cls.across = None
        if "plan_key" not in cls.__dict__:
            cls.plan_key = Initializer.plan_key  # type: ignore[method-assign]

    def requirement(self, report: Report) -> Verdict:
        """Say whether a graph and its clamps admit this initializer, from a report of :func:`pcgraph.check`."""
        raise TypeError(f"{type(self).__name__} must define requirement(report) -> Verdict")

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        """Write the states of `block` into `out`, shape (nodes, batch, *shape)."""
        raise TypeError(f"{type(self).__name__} must define init(block, out, context)")

    def observe(self, result: Any) -> None:
        """Learn or remember from a finished inference; called by ``result.backward()`` and by nothing else.

        Autograd is on, whatever it is where ``backward()`` is called: ``loss.backward()`` adds to the ``.grad`` of what
        is learned, which the optimizer moves. A parameter that is written in place needs ``torch.no_grad()``.
        """

    def learn(self, result: Any) -> None:
        """Observe `result`, and let all parts do so, each once."""
        for part in self.all_parts():
            part.observe(result)

    def all_parts(self) -> tuple[Initializer, ...]:
        """Return this initializer and all that it hands over to, directly or not, each once."""
        found: list[Initializer] = []
        waiting: list[Initializer] = [self]
        while waiting:
            part = waiting.pop(0)
            if not any(part is other for other in found):
                found.append(part)
                waiting += part.parts()
        return tuple(found)

    def layout(self, report: Report, context: Context | None = None) -> Layout:
        """Return the actions for this graph and these clamps. By default :meth:`init` gives every free node a value."""
        return Layout((Given(self, report.free),))

    def ready(self, context: Context | None) -> Hashable:
        """Return what the layout depends on beyond graph, clamps and settings; equal answers mean equal layouts."""
        return None

    @property
    def plan_key(self) -> Hashable:
        """Return a key that is equal for initializers that lay out the same, so that they can share a plan.

        By default each initializer has its own.
        """
        return (type(self), id(self))

    def parts(self) -> tuple[Initializer, ...]:
        """Return the initializers that this one hands over to; they observe results as well."""
        return ()


def require(initializer: Initializer, report: Report) -> None:
    """Refuse an initializer that does not hold.

    Raises
    ------
    InvalidInitializer
        With the verdict, its witness and its remedy.
    ConfigError
        A user's class answers with something else than a verdict.
    """
    report.verdict(require_initializer(initializer)).require()


def require_initializer(init: Any) -> Initializer:
    """Refuse what is no initializer.

    Raises
    ------
    InvalidInitializer
    """
    if isinstance(init, Initializer):
        return init
    made = f"; write {init.__name__}()" if isinstance(init, type) and issubclass(init, Initializer) else ""
    raise InvalidInitializer(
        f"init= needs a pcgraph initializer, as in init=pcgraph.Forward() (found {shown(init)}{made})"
    )


def noise(salt: tuple[int, ...], like: Tensor, part: Part | None = None) -> Tensor:
    """Draw standard normal values with the shape, dtype and device of `like`; the same `salt` gives the same values.

    It is drawn on the CPU's generator, so that it does not depend on the device.

    Parameters
    ----------
    salt : tuple of int
    like : Tensor, shape (nodes, batch, *shape)
    part : Part, optional
        Which rows of a batch these are: as many are drawn as that has, and these rows taken.
    """
    seed = int.from_bytes(hashlib.blake2b(repr(salt).encode(), digest_size=8).digest(), "little") >> 1
    generator = torch.Generator().manual_seed(seed)
    shape = like.shape if part is None else (like.shape[0], part.total, *like.shape[2:])
    drawn = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return (drawn if part is None else drawn[:, part.rows]).to(like)


def is_ours(initializer: Initializer) -> bool:
    """Say whether a class comes with pcgraph, and so is known to keep its promises."""
    return type(initializer).__module__.partition(".")[0] == __name__.partition(".")[0]


def only(layout: Layout, nodes: Iterable[Node]) -> list[Given | Swept]:
    """Return the actions of `layout` on `nodes` alone."""
    wanted = set(nodes)
    kept: list[Given | Swept] = []
    for action in layout.actions:
        here = tuple(n for n in action.nodes if n in wanted)
        if here:
            kept.append(replace(action, nodes=here))
    return kept


def blocks(structure: Structure, nodes: NDArray[np.int64]) -> Iterator[Block]:
    """Yield canonical node numbers, which are sorted and at least one, as blocks of neighbours of one shape."""
    cuts = np.flatnonzero((np.diff(nodes) > 1) | (np.diff(structure.group_of[nodes]) != 0)) + 1
    for part in np.split(nodes, cuts):
        first, count = int(part[0]), len(part)
        group = structure.groups[int(structure.group_of[first])]
        begin = first - group.start
        yield Block(structure.nodes[first : first + count], group.shape, group.name, begin, begin + count, first)
