"""A proof for a plan: run it on symbols, and hold every step against the slow rule.

The states are replaced by version numbers and every sum by the set of (edge, version of its source) that it holds.
What the plan would compute is then known exactly, without a number: each error that is used must rest on the current
state of every parent, and each error or move that is left out must be one that the definition makes zero.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from pcgraph.plan.operations import (
    Activate,
    Errors,
    Fill,
    Forward,
    Operation,
    Pull,
    Restore,
    Rows,
    Save,
    Write,
    ZeroGradient,
    numbers,
)
from pcgraph.plan.plan import Plan

__all__ = ["verify"]

Node = Hashable


class _Wrong(Exception):
    pass


class _Machine:
    """Symbols in the place of buffers."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.s = plan, plan.structure
        count = len(self.s.nodes)
        self.version = [0] * count
        self.zero = [False] * count
        self.total: list[dict[int, int] | None] = [None] * count
        self.base: dict[tuple[tuple[int, int], int], dict[int, int]] = {}
        self.predicted: list[bool] = [False] * count
        #: Nodes with a slope in the place of their sum.
        self.sloped: set[int] = set()
        self.incoming: list[list[int]] = [[] for _ in range(count)]
        self.children: list[list[int]] = [[] for _ in range(count)]
        for e, (u, v) in enumerate(zip(self.s.source.tolist(), self.s.target.tolist())):
            self.incoming[v].append(e)
            self.children[u].append(v)

    def nodes(self, group: int, which: Rows) -> list[int]:
        start = self.s.groups[group].start
        return [start + int(i) for i in numbers(which)]

    def is_zero(self, e: int) -> bool:
        """A zero state through a linear edge contributes nothing, whether its product is computed or not."""
        bucket = self.s.buckets[int(self.s.bucket_of[e])]
        return self.zero[int(self.s.source[e])] and bucket.kind != "module" and bucket.phi.at_zero == 0.0

    def current(self, v: int) -> bool:
        """Whether A[v] is the sum over all parents' present states."""
        total = self.total[v]
        if total is None:
            return False
        for e in self.incoming[v]:
            if total.get(e, -1) != self.version[int(self.s.source[e])] and not (e not in total and self.is_zero(e)):
                return False
        return len(total) <= len(self.incoming[v])

    def add(self, op: Forward) -> None:
        for e in (int(i) for i in numbers(op.edges)):
            v = int(self.s.target[e])
            if op.fresh:
                self.total[v] = {}
            total = self.total[v]
            if total is None:
                raise _Wrong(f"adds edge {self.s.edge(e)} to a sum that was never begun")
            if e in total:
                raise _Wrong(f"adds edge {self.s.edge(e)} twice")
            total[e] = self.version[int(self.s.source[e])]

    def apply(self, op: Operation) -> None:
        for v in self.sloped & self.summed(op):
            raise _Wrong(f"reads or changes the sum of {self.s.nodes[v]!r}, in whose place its slope is")
        if isinstance(op, Write):
            zeros = op.initializer < 0 or self.plan.initializers[op.initializer].writes_zeros
            for v in self.nodes(op.group, op.rows):
                self.touch(v)
                self.zero[v] = zeros and v not in self.plan.request.masked
        elif isinstance(op, Fill):
            for v in self.nodes(op.group, op.rows):
                self.total[v] = {}
        elif isinstance(op, Save):
            for v, at in zip(self.nodes(op.group, op.rows), numbers(op.at)):
                total = self.total[v]
                if total is None:
                    raise _Wrong(f"keeps the sum of {self.s.nodes[v]!r} before it exists")
                self.base[op.base, int(at)] = dict(total)
        elif isinstance(op, Restore):
            for v, at in zip(self.nodes(op.group, op.rows), numbers(op.at)):
                if int(self.plan.bases[op.base][int(at)]) != v - self.s.groups[op.group].start:
                    raise _Wrong(f"restores another node's sum into {self.s.nodes[v]!r}")
                self.total[v] = dict(self.base[op.base, int(at)])
        elif isinstance(op, Forward):
            self.add(op)
        elif isinstance(op, Activate):
            for v in self.nodes(self.s.runs[op.run].group, op.rows):
                if not self.current(v):
                    raise _Wrong(f"sweeps {self.s.nodes[v]!r} before all it reads is known")
                self.touch(v)
                self.predicted[v] = v not in self.plan.request.masked

    def summed(self, op: Operation) -> set[int]:
        """The nodes whose A an operation reads or writes."""
        if isinstance(op, Forward):
            return {int(self.s.target[e]) for e in numbers(op.edges)}
        if isinstance(op, Activate | Errors):
            return set(self.nodes(self.s.runs[op.run].group, op.rows))
        return set() if isinstance(op, Write) else set(self.nodes(op.group, op.rows))

    def touch(self, v: int) -> None:
        """The state of v changes: it no longer equals its prediction, nor do its children theirs."""
        self.version[v] += 1
        self.zero[v] = False
        self.predicted[v] = False
        for child in self.children[v]:
            self.predicted[child] = False


def verify(plan: Plan) -> bool:
    """Prove a plan, or say where it is wrong.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    bool
        True. The work grows with nodes x edges x distinct steps: it is for tests and for doubts, not for every run.

    Raises
    ------
    AssertionError
        With the operation and the node at fault.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 4, 2]))
    >>> verify(net.plan({"x", "y"}, init=pcgraph.Forward(), steps=5))
    True
    """
    try:
        _prove(plan)
    except _Wrong as error:
        raise AssertionError(f"{plan!r}: the plan {error}") from None
    return True


def _prove(plan: Plan) -> None:
    machine = _Machine(plan)
    for op in plan.prologue:
        machine.apply(op)
    alive = _alive(plan)
    may_move = {v for v in range(len(plan.structure.nodes)) if plan.free[v]}
    pushed: set[int] = set()
    for t in range(plan.steps):
        stage = plan.stage(t)
        if t:
            for op in stage.forward:
                machine.apply(op)
        wrong = _errors(machine, stage.errors, alive, t)
        pushed = _moves(machine, stage, wrong, may_move, pushed, t)
    if plan.steps:
        for op in plan.final.forward:
            machine.apply(op)
    wrong = _errors(machine, plan.final.errors, alive, plan.steps)
    _learning(plan, wrong)


def _alive(plan: Plan) -> set[int]:
    only = plan.request.only
    return {v for v, e in enumerate(plan.structure.has_energy) if e and (only is None or v in only)}


def _errors(machine: _Machine, operations: tuple[Errors, ...], alive: set[int], t: int) -> set[int]:
    """The nodes whose errors are computed; every other one must equal its prediction."""
    s = machine.s
    done: set[int] = set()
    for op in operations:
        nodes = machine.summed(op)
        for v in nodes & machine.sloped if op.slope != "use" else nodes - machine.sloped:
            raise _Wrong(f"takes a sum for a slope, or a slope for a sum, of {s.nodes[v]!r} at step {t}")
        if op.slope == "keep":
            machine.sloped |= nodes
        done |= nodes
    for v in done & alive:
        if not machine.current(v):
            raise _Wrong(f"takes the error of {s.nodes[v]!r} at step {t} from states that are out of date")
    for v in alive - done:
        energy = next(r for r in s.runs if r.group == s.group_of[v] and r.start <= s.position[v] < r.stop).energy
        if not machine.predicted[v] or energy is None or not energy.zero_at_prediction:
            raise _Wrong(f"leaves out the error of {s.nodes[v]!r} at step {t}, which need not be zero")
    return done


def _moves(machine: _Machine, stage: Any, wrong: set[int], may_move: set[int], pushed: set[int], t: int) -> set[int]:
    """Every free node with an error of its own or of a child must get each of those errors, and move."""
    s, plan = machine.s, machine.plan
    pulled: list[int] = []
    written: set[int] = set()
    for op in stage.pull:
        assert isinstance(op, Pull)
        edges = [int(e) for e in numbers(op.edges)]
        if op.fresh:
            sources = {int(s.source[e]) for e in edges}
            for v in sources & {int(s.source[e]) for e in pulled} or sources & wrong:
                raise _Wrong(f"writes over what is in the gradient of {s.nodes[v]!r} at step {t}")
            written |= sources
        pulled += edges
    if len(set(pulled)) != len(pulled):
        raise _Wrong(f"sends an error back twice along one edge at step {t}")
    needed = {e for e in range(len(s.source)) if int(s.target[e]) in wrong and int(s.source[e]) in may_move}
    ever = {v for v, z in enumerate(plan.flow.errors[-1]) if z}
    for e in set(pulled) - needed:
        if int(s.target[e]) in ever - wrong:
            raise _Wrong(f"sends an error that is out of date back along {s.edge(e)} at step {t}")
    for e in needed - set(pulled):
        raise _Wrong(f"does not send the error of {s.edge(e)} back at step {t}")
    held = {v for op in stage.hold for v in machine.nodes(op.group, op.rows)}
    moved = {v for group, where in stage.moves for v in machine.nodes(group, where)} - held
    if held and not plan.request.fixes_zero:
        raise _Wrong("holds states that the state optimizer may move without a gradient")
    reached = pushed | (wrong & may_move) | {int(s.source[e]) for e in needed} | (set(plan.request.nudged) & may_move)
    owed = may_move if not plan.request.fixes_zero else reached
    for v in owed - moved:
        raise _Wrong(f"does not move {s.nodes[v]!r} at step {t}")
    for v in moved - may_move:
        raise _Wrong(f"moves {s.nodes[v]!r}, which is not free")
    zeroed = {v for op in stage.zero if isinstance(op, ZeroGradient) for v in machine.nodes(op.group, op.rows)}
    for v in moved - wrong - zeroed - written:
        raise _Wrong(f"moves {s.nodes[v]!r} at step {t} along a gradient that is out of date")
    for v in zeroed & wrong:
        raise _Wrong(f"forgets the own error of {s.nodes[v]!r} at step {t}")
    for v in owed & moved:
        machine.touch(v)
    return reached


def _learning(plan: Plan, wrong: set[int]) -> None:
    s = plan.structure
    learned = [int(e) for op in plan.weights for e in numbers(op.edges)]
    if len(set(learned)) != len(learned):
        raise _Wrong("learns twice from one edge")
    for e in range(len(s.source)):
        bucket = s.buckets[int(s.bucket_of[e])]
        if bucket.trainable and bucket.kind != "identity" and int(s.target[e]) in wrong and e not in set(learned):
            raise _Wrong(f"does not learn from {s.edge(e)}")
    biased = {s.groups[g].start + int(i) for g, where in plan.biases for i in numbers(where)}
    for v in range(len(s.nodes)):
        if s.has_bias[v] and v in wrong and v not in biased:
            raise _Wrong(f"does not learn the bias of {s.nodes[v]!r}")
