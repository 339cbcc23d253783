"""What a run leaves, or has reached, is read by node: states, predictions, errors and duals."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property
from typing import Literal

from torch import Tensor

from pcgraph.backends import Kind, Program

__all__ = ["NodeTensors", "Reader"]

Node = Hashable


class Reader:
    """A reader reads what a run left in a program, which runs no other batch for as long as a reader lives.

    Parameters
    ----------
    program : Program
    lend : bool
        False while the program runs, and is lent to the run itself.
    """

    def __init__(self, program: Program, lend: bool = True) -> None:
        self.program = program
        if lend:
            program.lend(self)

    def read(self, i: int, kind: Kind | Literal["error"]) -> Tensor:
        """Copy what the node with canonical number `i` holds, (batch, *shape)."""
        if kind == "error":
            return self.program.read(i, "state") - self.program.read(i, "prediction")
        return self.program.read(i, kind).clone()


class NodeTensors(Mapping[Node, Tensor]):
    """A mapping from nodes to tensors (batch, *shape) reads each of them when it is asked for.

    Predictions and errors of slots are there by (node, slot).
    """

    def __init__(self, reader: Reader, kind: Kind | Literal["error"]) -> None:
        self._reader, self._kind = reader, kind
        self._structure = reader.program.plan.structure

    @cached_property
    def _nodes(self) -> tuple[Node, ...]:
        return tuple(v for v, here in self._known if here)

    @cached_property
    def elsewhere(self) -> frozenset[Node]:
        """Return the nodes that other ranks have, where several share the network."""
        return frozenset(v for v, here in self._known if not here)

    @cached_property
    def _known(self) -> tuple[tuple[Node, bool], ...]:
        own, program = self._structure.declared, self._reader.program
        numbers = program.plan.duals.tolist() if self._kind == "dual" else range(len(own))
        return tuple((own[i], program.holds(i)) for i in numbers)

    def __getitem__(self, node: Node) -> Tensor:
        number, slots = self._structure.number, self._structure.slots
        i = slots.get(node) if node in slots else number.get(node)
        if i is not None and not self._reader.program.holds(i):
            raise KeyError(f"{node!r} is on another rank, which has its {self._kind}; here: {_some(self._nodes)}")
        if node in slots and self._kind not in ("state", "dual"):
            return self._reader.read(slots[node], self._kind)
        if self._kind == "dual" and node not in self._nodes:
            raise KeyError(f"{node!r} has no dual; nodes with one: {_some(self._nodes)}")
        if node not in number:
            hint = f"; the state of {node[0]!r} is that of its slots" if node in slots else ""  # type: ignore[index]
            raise KeyError(f"there is no node {node!r}{hint}; nodes: {', '.join(map(repr, list(number)[:12]))}")
        return self._reader.read(number[node], self._kind)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def _some(nodes: tuple[Node, ...]) -> str:
    return ", ".join(map(repr, nodes[:12])) or "none"
