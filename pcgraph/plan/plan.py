"""The plan: everything that will be computed, in order, and nothing that need not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from pcgraph import notebook
from pcgraph.initializers import Initializer
from pcgraph.network import Structure
from pcgraph.plan.compile import Parts, Request, Stage, compile_plan
from pcgraph.plan.flow import Flow
from pcgraph.plan.operations import Activate, Forward, Index, Operation, Pull, Rows, Write, numbers
from pcgraph.plan.products import Products, products_of, without_data
from pcgraph.plan.smm import SMM, count

__all__ = ["Matmuls", "Plan", "make_plan"]

#: Up to so many edges, a plan is explained by their names.
SMALL = 20


@dataclass(frozen=True)
class Matmuls:
    """Products of a weight with a batch of states, counted by edge.

    Attributes
    ----------
    init, forward, backward, weights : int
        In the initialization; on what has moved; of errors back to their sources; of the weight gradients.
    """

    init: int
    forward: int
    backward: int
    weights: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.init + self.forward + self.backward + self.weights


@dataclass(frozen=True, eq=False)
class Plan:
    """What to run for one structure, one set of clamps, one initializer and one number of steps. It never changes.

    It holds names, numbers and steps; no weights and no data. Make one with ``net.plan(...)``.

    Attributes
    ----------
    structure : Structure
    request : Request
        What the plan was asked for.
    flow : Flow
        Which errors may differ from zero, and which states move, at each step.
    initializers : tuple of Initializer
        Those that write states, in the order that the plan numbers them.
    prologue : tuple of operations
        The initialization, and all that comes in before the first step.
    stages : tuple of Stage
        Distinct steps; the last one repeats.
    final : Stage
        After the last step: what moved in it, and the errors.
    weights : tuple of Pull
        The edges whose weight gradients are computed.
    biases : tuple of (group, rows)
        The nodes whose bias gradients are computed.
    bases : dict
        (level, group) -> positions of the nodes for which the contribution of slower edges is kept.
    kernels : tuple of str
        For each bucket.
    """

    structure: Structure
    request: Request
    flow: Flow
    initializers: tuple[Initializer, ...]
    prologue: tuple[Operation, ...]
    stages: tuple[Stage, ...]
    final: Stage
    weights: tuple[Pull, ...]
    biases: tuple[tuple[int, Rows], ...]
    bases: dict[tuple[int, int], Index]
    kernels: tuple[str, ...]
    free: np.ndarray[Any, np.dtype[np.bool_]]
    exact: np.ndarray[Any, np.dtype[np.bool_]]
    waves: int
    sweep_depth: int

    @property
    def steps(self) -> int:
        """Inference steps T."""
        return self.request.steps

    def stage(self, t: int) -> Stage:
        """What step `t` runs."""
        return self.stages[min(t, len(self.stages) - 1)]

    # -- counting -----------------------------------------------------------------------------------------------------

    def _edges(self, call: Forward | Pull) -> int:
        if self.structure.buckets[call.bucket].kind == "identity":
            return 0
        return len(numbers(call.edges))

    def _flop(self, call: Forward | Pull) -> int:
        bucket = self.structure.buckets[call.bucket]
        return 2 * bucket.entries(self.structure.groups) * len(numbers(call.edges))

    def _total(self, count: Any) -> tuple[int, int, int, int]:
        def over(operations: Any, kind: type) -> int:
            return sum(count(o) for o in operations if isinstance(o, kind))

        repeats = Counter(min(t, len(self.stages) - 1) for t in range(self.steps)) if self.stages else Counter()
        forward = sum(over(self.stages[i].forward, Forward) * n for i, n in repeats.items())
        forward += over(self.final.forward, Forward)
        backward = sum(over(self.stages[i].pull, Pull) * n for i, n in repeats.items())
        return over(self.prologue, Forward), forward, backward, over(self.weights, Pull)

    @cached_property
    def matmuls(self) -> Matmuls:
        """How many products the whole run needs, weight gradients included."""
        return Matmuls(*self._total(self._edges))

    @cached_property
    def smm(self) -> SMM:
        """Sequential matrix multiplications of one weight update (paper, Eq 5 and 6)."""
        return count(self)

    def memory(self, batch: int) -> int:
        """Bytes that a run needs on the device beside the parameters: buffers, bases and gradients.

        An estimate from shapes, in float32. What a module on an edge keeps for autograd is counted by running it once
        on tensors without data. The optimizer's own state is not counted.
        """
        s = self.structure
        per_sample = sum(g.size * g.count * 5 for g in s.groups)
        per_sample += sum(s.groups[g].size * len(where) for (_, g), where in self.bases.items())
        widest = parameters = 0
        for bucket, kernel in zip(s.buckets, self.kernels):
            width = s.groups[bucket.source_group].size + s.groups[bucket.target_group].size
            if kernel == "module":
                # One evaluation of each edge is kept, and one more exists while it is replaced.
                kept = width + kept_by(bucket.transform, s.groups[bucket.source_group].shape)
                per_sample += kept * bucket.count
                widest = max(widest, kept)
                parameters += sum(p.numel() for p in bucket.transform.parameters())
            elif kernel != "dense":
                widest = max(widest, width * bucket.count)
        parameters += sum(b.rows * b.entries(s.groups) for b in s.buckets) + sum(
            s.groups[int(s.group_of[v])].size for v in np.flatnonzero(s.has_bias)
        )
        return 4 * (batch * (per_sample + widest) + parameters)

    def flops(self, batch: int) -> int:
        """Floating-point operations in matrix products for one batch, weight gradients included.

        A module on an edge is run once on tensors without data, and counted as torch counts it. What cannot be run so
        is in :attr:`uncounted`, and missing here.
        """
        total = batch * sum(self._total(self._flop))
        for b, products in self._modules(batch):
            if products is not None:
                init, forward, backward, weights = self._total(
                    lambda call, b=b: len(numbers(call.edges)) if call.bucket == b else 0
                )
                total += (init + forward) * products.forward + backward * products.pull + weights * products.weights
        return total

    @cached_property
    def uncounted(self) -> tuple[str, ...]:
        """Buckets of modules whose products :meth:`flops` does not know."""
        return tuple(self.structure.buckets[b].name for b, products in self._modules(1) if products is None)

    def _modules(self, batch: int) -> Iterator[tuple[int, Products | None]]:
        groups = self.structure.groups
        for b, bucket in enumerate(self.structure.buckets):
            if bucket.kind == "module":
                shapes = groups[bucket.source_group].shape, groups[bucket.target_group].shape
                yield b, products_of(bucket.transform, *shapes, batch)

    # -- for people ---------------------------------------------------------------------------------------------------

    def explain(self) -> str:
        """The plan in words: kernels by bucket, initialization, distinct steps, products."""
        s = self.structure
        lines = [
            f"Plan for {len(s.nodes)} nodes and {len(s.source)} edges, {self.steps} inference steps",
            f"  clamped: {self._names(~self.free)}",
            f"  exact after initialization (error 0): {self._names(self.exact)}",
        ]
        lines.append("  buckets:")
        for bucket, kernel in zip(s.buckets, self.kernels):
            lines.append(f"    {bucket.name}: {bucket.count} {'edge' if bucket.count == 1 else 'edges'}, {kernel}")
        lines.append(f"  initialization: {self._initialization()}")
        for span, ahead, back, moved in self._steps():
            products = f"{self._products(ahead)} forward and {self._products(back)} backward products"
            lines.append(f"  {span}: {products}, {_moves(moved)}{self._named(ahead, back)}")
        if self.steps:
            final = _calls(self.final.forward)
            lines.append(f"  after the last step: {self._products(final)} forward products{self._named(final)}")
        m = self.matmuls
        lines.append(f"  weight gradients: {m.weights} products")
        lines.append(f"  sequential matrix multiplications: {self.smm}")
        lines.append(f"  in all: {m.total} products, {self._cost()}")
        return "\n".join(lines)

    def _steps(self) -> Iterator[tuple[str, list[Forward], list[Pull], int]]:
        """Which steps are alike, their products forward and backward, and how many states move in each."""
        repeats = Counter(min(t, len(self.stages) - 1) for t in range(self.steps)) if self.stages else Counter()
        seen = 0
        for i, stage in enumerate(self.stages):
            n = repeats[i]
            span = f"step {seen}" if n == 1 else f"steps {seen} to {seen + n - 1}"
            seen += n
            moved = sum(len(numbers(where)) for _, where in stage.moves)
            moved -= sum(len(numbers(op.rows)) for op in stage.hold)
            yield span, _calls(stage.forward), list(stage.pull), moved

    def _products(self, calls: Iterable[Forward | Pull]) -> int:
        return sum(map(self._edges, calls))

    def _repr_html_(self) -> str:
        """For a notebook: what each step computes, what all of it costs, and the graph."""
        rows = [("initialization", str(self.matmuls.init), "", self._initialization())]
        rows += [
            (span, str(self._products(ahead)), str(self._products(back)), _moves(moved))
            for span, ahead, back, moved in self._steps()
        ]
        if self.steps:
            rows.append(("after the last step", str(self._products(_calls(self.final.forward))), "", ""))
        rows.append(("weight gradients", "", str(self.matmuls.weights), ""))
        title = (
            f"{len(self.structure.nodes)} nodes, {len(self.structure.source)} edges, {self.steps} inference steps; "
            f"clamped: {self._names(~self.free)}; in all {self.matmuls.total} products, "
            f"{self._cost()}; sequential matrix multiplications: {self.smm}"
        )
        columns = ("", "forward products", "backward products", "")
        return notebook.table(title, columns, rows) + notebook.picture(self)

    def _cost(self) -> str:
        missing = f", without the modules of {', '.join(self.uncounted)}" if self.uncounted else ""
        return f"{self.flops(1) / 1e6:.3g} MFLOP a sample{missing}"

    def _initialization(self) -> str:
        writers = sorted({o.initializer for o in self.prologue if isinstance(o, Write) and o.initializer >= 0})
        parts = [f"values from {', '.join(type(self.initializers[i]).__name__ for i in writers)}"] if writers else []
        s = self.structure
        swept = [
            s.nodes[s.groups[s.runs[o.run].group].start + int(i)]
            for o in self.prologue if isinstance(o, Activate) for i in numbers(o.rows)
        ]  # fmt: skip
        if swept:
            shown = ", ".join(map(str, swept[:8])) + (f" and {len(swept) - 8} more" if len(swept) > 8 else "")
            parts.append(f"a sweep of {shown}, in {self.waves} {'wave' if self.waves == 1 else 'waves'}")
        return "; ".join(parts) or "nothing is free"

    def _named(self, forward: list[Any], back: list[Any] | None = None) -> str:
        """The edges by name, on a graph small enough to be read."""
        if len(self.structure.source) > SMALL:
            return ""

        def names(calls: list[Any]) -> str:
            edges = sorted(int(e) for call in calls for e in numbers(call.edges))
            return ", ".join("→".join(map(str, self.structure.edge(e)[:2])) for e in edges) or "none"

        text = f"forward {names(forward)}"
        return f" ({text})" if back is None else f" ({text}; back {names(back)})"

    def _names(self, mask: Any) -> str:
        names = [str(self.structure.nodes[i]) for i in np.flatnonzero(mask)[:8]]
        more = int(mask.sum()) - len(names)
        return (", ".join(names) or "none") + (f" and {more} more" if more > 0 else "")

    def __repr__(self) -> str:
        return f"Plan({len(self.structure.nodes)} nodes, steps={self.steps}, {self.matmuls.total} products)"


def kept_by(module: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Numbers a sample that autograd keeps of one evaluation of `module`, parameters not counted.

    0 for a module that cannot run on tensors without data: the estimate is then too low by what it keeps.
    """
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            kept[id(tensor)] = tensor.numel()
            alive.append(tensor)
        return tensor

    alive: list[torch.Tensor] = []
    try:
        bare = without_data(module)
        own = [*bare.parameters(), *bare.buffers()]
        known = {id(tensor) for tensor in own}
        dtype = next((tensor.dtype for tensor in own if tensor.is_floating_point()), torch.float32)
        x = torch.zeros((1, *shape), device="meta", dtype=dtype, requires_grad=True)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            bare(x)
    except Exception:  # whatever a user's module may raise
        return 0
    return sum(kept.values())


def _moves(states: int) -> str:
    return f"{states} {'state moves' if states == 1 else 'states move'}"


def _calls(operations: tuple[Operation, ...]) -> list[Forward]:
    return [o for o in operations if isinstance(o, Forward)]


def make_plan(structure: Structure, request: Request) -> Plan:
    """Compile a plan.

    Raises
    ------
    InvalidInitializer
        The layout leaves a free node without a value, or sweeps a cycle.
    """
    parts: Parts = compile_plan(structure, request)
    return Plan(
        structure, request, parts.flow, parts.initializers, parts.prologue, parts.stages, parts.final, parts.weights,
        parts.biases, parts.bases, parts.kernels, parts.free, parts.exact, parts.waves,
        parts.sweep_depth,
    )  # fmt: skip
