"""State what a verdict shows, in small frozen values that :func:`pcgraph.topology.verify` checks from the graph alone.

Each class below is one claim about a graph and its clamps. A claim says everything that is needed to check it, so
that whoever doubts a verdict need not trust the code which found it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from pcgraph.errors import InvalidInitializer

__all__ = [
    "Clamped",
    "ErrorCoordinates",
    "FreeCycle",
    "FreeRoot",
    "GraphCycle",
    "GraphOrder",
    "Leak",
    "Neuron",
    "NotSupplied",
    "Nothing",
    "Repair",
    "Sweep",
    "SweepOrder",
    "UnclampedRoot",
    "Verdict",
    "name",
]

SHOWN = 12


@dataclass(frozen=True, slots=True)
class Neuron:
    """Name one neuron of a group by its place in the flattened state.

    It equals no node name, not even the tuple ``(node, index)``, so that groups and neurons cannot be confused.
    """

    node: Hashable
    index: int

    def __str__(self) -> str:
        return f"{self.node}[{self.index}]"


def name(node: Hashable) -> str:
    """Write a node as a person does: strings bare, unless that hides something; anything else by its ``str``."""
    if isinstance(node, str) and (not node or node != node.strip()):
        return repr(node)
    return str(node)


def listing(nodes: Sequence[Hashable], separator: str = ", ", shown: int = SHOWN) -> str:
    """Write the nodes one after another, and leave out the middle of a long list.

    After a word that says what they are, this is enough; within a sentence use :func:`told`.
    """
    if len(nodes) <= shown:
        return separator.join(name(v) for v in nodes)
    head = [name(v) for v in nodes[: shown - 2]]
    return separator.join([*head, "…", name(nodes[-1])]) + f" ({len(nodes)} in all)"


def told(*nodes: Hashable) -> str:
    """List nodes within a sentence, with the word "node" before names that could be taken for a count.

    Examples
    --------
    >>> told("x", "y"), told(0), told(2, "h")
    ('x, y', 'node 0', 'nodes 2, h')
    """
    if not any(map(_numeric, nodes)):
        return listing(nodes)
    return f"{'nodes' if len(nodes) > 1 else 'node'} {listing(nodes)}"


def _numeric(node: Hashable) -> bool:
    try:
        float(str(node))
    except ValueError:
        return False
    return True


def _order(nodes: Sequence[Hashable]) -> str:
    return f"order {told(*nodes) if len(nodes) == 1 else listing(nodes)}"


@dataclass(frozen=True)
class GraphOrder:
    """Proposition 3.2 holds: this is a topological order of all nodes, and each root is clamped."""

    nodes: tuple[Hashable, ...]

    def __str__(self) -> str:
        return _order(self.nodes)


@dataclass(frozen=True)
class SweepOrder:
    """Theorem 1 holds: in this order of all free nodes, every edge into one comes from a clamp or from before it."""

    nodes: tuple[Hashable, ...]

    def __str__(self) -> str:
        return _order(self.nodes) if self.nodes else "no free node"


@dataclass(frozen=True)
class GraphCycle:
    """The graph has this directed cycle, whatever is clamped; the last node has an edge to the first."""

    nodes: tuple[Hashable, ...]

    def __str__(self) -> str:
        return f"cycle {listing([*self.nodes, self.nodes[0]], ' → ')}"


@dataclass(frozen=True)
class FreeCycle:
    """These free nodes are on a directed cycle: none of them can be the first to be computed."""

    nodes: tuple[Hashable, ...]

    def __str__(self) -> str:
        return f"free cycle {listing([*self.nodes, self.nodes[0]], ' → ')}"


@dataclass(frozen=True)
class FreeRoot:
    """This free root has no prior and predicts something: nothing says what its value is."""

    node: Hashable

    def __str__(self) -> str:
        return f"root {name(self.node)} without a value"


@dataclass(frozen=True)
class UnclampedRoot:
    """This root is not clamped. (It may have a prior: the printed Proposition 3.2 knows no priors.)"""

    node: Hashable

    def __str__(self) -> str:
        return f"root {name(self.node)} not clamped"


@dataclass(frozen=True)
class NotSupplied:
    """The node asked for reads the parent, which is free, and neither asked for nor supplied by anything else."""

    node: Hashable
    parent: Hashable

    def __str__(self) -> str:
        return f"edge {name(self.parent)} → {name(self.node)}"


@dataclass(frozen=True)
class Clamped:
    """This node is clamped; with ``target=True``, something predicts it too."""

    node: Hashable
    target: bool = False

    def __str__(self) -> str:
        return f"{told(self.node)} is clamped{' and predicted' if self.target else ''}"


@dataclass(frozen=True)
class Nothing:
    """No node is clamped; with ``target=True``: nothing predicts a clamped node."""

    target: bool = False

    def __str__(self) -> str:
        return "no clamped target" if self.target else "no clamp"


@dataclass(frozen=True)
class Leak:
    """The first of these nodes is clamped and predicts itself: edges lead from it through free nodes back to it."""

    nodes: tuple[Hashable, ...]

    def __str__(self) -> str:
        return f"leak {listing([*self.nodes, self.nodes[0]], ' → ')}"


@dataclass(frozen=True)
class ErrorCoordinates:
    """Errors can take the place of the states of all free nodes but those kept.

    Attributes
    ----------
    order : tuple of node
        Nodes whose variable is the error, h = mu + error: every edge into one comes from a clamped, a kept or an
        earlier node, so that mu is known in its turn. None of them is a root.
    kept : frozenset of node
        Nodes whose variable is the state: all other free ones.
    """

    order: tuple[Hashable, ...]
    kept: frozenset[Hashable] = frozenset()

    def __str__(self) -> str:
        errors = _order(self.order) if self.order else "no error"
        return errors + (f"; states of {told(*sorted(self.kept, key=name))}" if self.kept else "")


@dataclass(frozen=True)
class Sweep:
    """This is the unique largest set of free nodes that can be swept, and why no node can be added to it.

    Attributes
    ----------
    order : tuple of node
        The nodes swept; every edge into one comes from a clamped, an initialised or an earlier node.
    blocked : frozenset of node
        Nodes asked for that cannot be swept. Each of them is a root without a known value, or reads one that is
        blocked or was not asked for: that is why no larger set exists.
    initialised : frozenset of node
        Free nodes whose value another initializer supplies.
    among : frozenset of node or None
        The nodes asked for; None: every free one.
    witness : FreeCycle, FreeRoot, NotSupplied or None
        One concrete reason why something is blocked; None where nothing is.
    """

    order: tuple[Hashable, ...]
    blocked: frozenset[Hashable] = frozenset()
    initialised: frozenset[Hashable] = frozenset()
    among: frozenset[Hashable] | None = None
    witness: FreeCycle | FreeRoot | NotSupplied | None = None

    @property
    def complete(self) -> bool:
        """Everything asked for can be swept."""
        return not self.blocked

    def __str__(self) -> str:
        asked = len(self.order) + len(self.blocked)
        return f"sweep of {len(self.order)} of {asked}" + (f": {told(*self.order)}" if self.order else "")


@dataclass(frozen=True)
class Repair:
    """Give these nodes a value, and a sweep of all the other free nodes exists.

    Attributes
    ----------
    nodes : frozenset of node
        The unknown roots, and a set of nodes that meets every free cycle.
    order : tuple of node
        The sweep of the other free nodes that then exists.
    minimal : bool
        True: proved smallest. False: found by the greedy rule within the budget; a smaller one may exist.
    """

    nodes: frozenset[Hashable]
    order: tuple[Hashable, ...]
    minimal: bool

    def __str__(self) -> str:
        return told(*sorted(self.nodes, key=name)) if self.nodes else "nothing to repair"


@dataclass(frozen=True)
class Verdict:
    """Say whether an initializer holds for a graph and its clamps, why, what shows it, and what to do.

    Attributes
    ----------
    valid : bool
    reason : str
        Continues the initializer's name into a sentence.
    witness : object
        A claim that :func:`pcgraph.topology.verify` re-checks, or None where there is nothing to show.
    remedy : str
        A sentence; empty where there is nothing to mend or to note.
    initializer : str
        How the initializer is written.

    Examples
    --------
    >>> print(Verdict(False, "needs a clamped node (found none)", Nothing(), "Clamp one.", "Memory()").message)
    Memory() needs a clamped node (found none). Clamp one.
    """

    valid: bool
    reason: str
    witness: Any = None
    remedy: str = ""
    initializer: str = ""

    def __bool__(self) -> bool:
        return self.valid

    @property
    def message(self) -> str:
        """This is the verdict as one text."""
        sentence = f"{self.initializer} {self.reason}".strip()
        return f"{sentence}. {self.remedy}".strip()

    def require(self) -> Verdict:
        """Return the verdict if it is valid.

        Raises
        ------
        InvalidInitializer
            If it is not; with the verdict and its witness.
        """
        if not self.valid:
            raise InvalidInitializer(self.message, verdict=self)
        return self
