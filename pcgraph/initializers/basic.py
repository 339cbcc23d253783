"""These initializers look neither at data nor at weights (Zero and Normal: paper, Section 3, items 1 and 2)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from pcgraph.arguments import did_you_mean, require_count, require_number, require_seed, shown, tensor_of
from pcgraph.errors import ConfigError
from pcgraph.initializers.base import Block, Context, Initializer, noise
from pcgraph.topology import Report, Verdict

__all__ = ["Normal", "States", "Zero"]


class Zero(Initializer):
    """Starts every free state at zero (I_0). Admitted by every graph."""

    across = "nodes"
    writes_zeros = True
    capturable = True

    @property
    def plan_key(self) -> Hashable:
        return (type(self),)

    def requirement(self, report: Report) -> Verdict:
        return report.verdicts["zero"]

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        out.zero_()


class Normal(Initializer):
    """Draws every free state from a normal distribution (I_N). Admitted by every graph.

    Parameters
    ----------
    mean, std : float
        The paper writes N(a, b) with the variance b; here it is the standard deviation.
    seed : int
        The draw depends on the seed and on how many results this initializer has observed: the same batch twice
        without a ``backward()`` in between starts from the same states, and evaluation disturbs nothing.
    """

    across = "blocks"

    def __init__(self, mean: float = 0.0, std: float = 1.0, *, seed: int = 0) -> None:
        super().__init__()
        self.mean = require_number(mean, "mean")
        self.std = require_number(std, "std", least=0)
        self.seed = require_seed(seed)
        self._observed = 0

    def extra_repr(self) -> str:
        return f"mean={self.mean:g}, std={self.std:g}, seed={self.seed}"

    def requirement(self, report: Report) -> Verdict:
        return report.verdicts["normal"]

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        out.copy_(noise((self.seed, self._observed, block.number), out, context.part).mul_(self.std).add_(self.mean))

    def observe(self, result: object) -> None:
        self._observed += 1

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._observed, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        self._observed = require_count(state, "the number of results that Normal has observed", most=2**63 - 1)


class States(Initializer):
    """Starts from given states, to go on where an inference ended.

    Parameters
    ----------
    states : mapping
        Node -> Tensor or array (batch, *shape), for every free node at least; where ranks share a network,
        ``result.states`` of each rank will do, and where they share a batch, the states are of all of it. They are not
        copied and not saved.

    Notes
    -----
    The states are all that is taken over. A momentum, and what Adam keeps of the gradients, begin anew, and so does the
    count of steps: two inferences of T steps, the second from the states of the first, end where one of 2T does with
    plain SGD alone.
    """

    across = "nodes"

    def __init__(self, states: Mapping[Hashable, Tensor]) -> None:
        super().__init__()
        if not isinstance(states, Mapping):
            raise ConfigError(
                f"States takes a mapping node -> state, as in States(result.states) (found {shown(states)})",
                key="states",
            )
        self.states = states
        #: Nodes whose states other ranks have, as a result's of a network that is cut over ranks says.
        self.elsewhere: frozenset[Hashable] = getattr(states, "elsewhere", frozenset())
        #: Where processes share a batch, whether they are of all of it; else of this process's rows alone.
        self.of_whole_batch = True

    @property
    def plan_key(self) -> Hashable:
        return (type(self), self.elsewhere.union(self.states))

    def requirement(self, report: Report) -> Verdict:
        known = set(report.nodes)
        unknown = [v for v in self.states if v not in known]
        if unknown:
            why = f"names the node {unknown[0]!r}, which the graph does not have{did_you_mean(unknown[0], known)}"
            some = ", ".join(map(repr, report.nodes[:8]))
            return Verdict(False, why, None, f"Name nodes of the graph: {some}.", "States(…)")
        missing = [v for v in report.free if v not in self.states and v not in self.elsewhere]
        if missing:
            return Verdict(
                False, f"needs a state for every free node (found none for {missing[0]!r})", None,
                "Add it, or give that node another initializer with PerNode.", "States(…)",
            )  # fmt: skip
        return Verdict(True, "holds on any graph", None, "", "States(…)")

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        for node, rows in zip(block.nodes, out):
            state = self.states[node]
            if isinstance(state, np.ndarray):
                with suppress(TypeError):  # what is no array of numbers is refused below
                    state = tensor_of(state)
            if not isinstance(state, Tensor) or state.layout != torch.strided or not state.is_floating_point():
                raise ConfigError(
                    f"States needs a dense tensor of floating-point numbers for {node!r} (found {shown(state)})",
                    key="states",
                )
            part = context.part if self.of_whole_batch else None
            needed = rows.shape if part is None else (context.whole, *rows.shape[1:])
            if state.shape != needed:
                raise ConfigError(
                    f"States needs shape {tuple(needed)} for {node!r} (found {tuple(state.shape)})", key="states"
                )
            rows.copy_(state if part is None else state[part.rows])
