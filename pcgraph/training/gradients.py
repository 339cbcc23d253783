"""Weights that learn nothing are found: no error reaches them, or gradients vanish under the optimizer's eps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcgraph.arguments import is_number
from pcgraph.model import PCNetwork
from pcgraph.network import MAIN, Bucket, Network
from pcgraph.network.packed import whole
from pcgraph.network.slots import called
from pcgraph.optimizers import Following, StateOptimizer
from pcgraph.plan import NEVER, Plan, arrivals
from pcgraph.plan.flow import mask_of
from pcgraph.processes import Group
from pcgraph.solvers import Solver

__all__ = ["GradientMonitor", "lost_gradients", "small_gradients", "unreached"]

ROWS = 4096  # packed tensors with more rows than this are judged as one
SHOWN = 3
Mask = NDArray[np.bool_]


class GradientMonitor:
    """Looks at the gradients of a run, and says once what is wrong with them.

    Attributes
    ----------
    vanish : bool
        Whether gradients below the optimizer's eps are still looked for.
    miss : bool
        Whether weights without any error are.
    lose : bool
        Whether weights are whose error has arrived, and is exactly zero.
    """

    def __init__(
        self, net: PCNetwork, optimizer: torch.optim.Optimizer, states: StateOptimizer | Solver | None = None
    ) -> None:
        self.net, self.optimizer, self.states = net, optimizer, states
        self.vanish = any(_eps(group) for group in optimizer.param_groups)
        self.miss = self.lose = True
        self._lost: list[tuple[str, str, int]] = []
        self._plan: Plan | None = None
        self._missed: tuple[list[str], int, int] | None = None
        self._small: list[tuple[str, float, float]] = []

    def see_plan(self, plan: Plan) -> None:
        """Ask the plan of an inference which weights no error can reach."""
        if plan is self._plan or plan.request.all_move:
            return
        self._plan = plan
        if self.miss:
            names, needed = unreached(self.net, plan)
            self._missed = (names, plan.steps, needed) if names else None

    def look(self) -> None:
        """Look at the gradients of an update."""
        if self.lose and self._plan is not None and self._plan.measure is None:
            self._lost = lost_gradients(self.net, self._plan)
        if self.vanish:
            self._small = small_gradients(self.net.own, self.optimizer)

    def share(self, group: Group) -> None:
        """Put together what all ranks of a network have found, each in its part."""
        everyone = group.gather_data([self._missed, self._lost, self._small])
        missed = [found for found, _, _ in everyone if found]
        if missed:
            names = [name for each, _, _ in missed for name in each]
            self._missed = names, missed[0][1], max(needed for _, _, needed in missed)
        self._lost = sorted((tuple(one) for _, lost, _ in everyone for one in lost), key=lambda one: -one[2])
        self._small = [tuple(one) for _, _, small in everyone for one in small]

    def said(self, step: int) -> list[str]:
        """Say what is wrong after a training step, each thing once a run."""
        said = []
        if self._missed is not None:
            names, steps, needed = self._missed
            self.miss, self._missed = False, None
            said.append(
                f"{steps} inference {'step brings' if steps == 1 else 'steps bring'} no error to the weights of "
                f"{_listed(names)}, which therefore do not learn: give steps={needed} or more{self._too_far(needed)}"
            )
        if self._lost:
            (where, node, first), count = self._lost[0], len(self._lost)
            more = f" (and of {_listed([name for name, _, _ in self._lost[1:]])})" if count > 1 else ""
            self.lose, self._lost = False, []
            said.append(
                f"{node} gets no signal: by the plan an error is there from step {first} on, and the gradient of "
                f"{where}{more} is exactly zero in {_plain(self.net.dtype)}, which has lost it. An error shrinks by "
                "about the state rate with every edge: move errors instead of states (coordinates=pcgraph.Errors()), "
                "take a larger state rate, or dtype=torch.float64"
            )
        if self._small:
            limit = self._small[0][2]
            names = [f"{name} ({rms:.1e})" for name, rms, _ in self._small]
            self.vanish, self._small = False, []
            said.append(
                f"gradients are below the optimizer's eps={limit:g}, so that these parameters hardly learn: "
                f"{_listed(names)} (root mean square, training step {step}). A larger state rate (as far as "
                "pcgraph.safe_rate allows) or more inference steps bring larger errors there, and dtype=torch.float64 "
                "those that rounding loses. A smaller eps scales up whatever is there, noise included, to full steps, "
                "which can be better or worse: compare on a validation set."
            )
        return said

    def _too_far(self, needed: int) -> str:
        """Add where an error that needs so many steps would be lost on its way, by what is left after each edge."""
        rate = getattr(self.states, "lr", None)
        rate = rate.at_most if isinstance(rate, Following) else rate
        eps = torch.finfo(self.net.dtype).eps
        if not isinstance(self.states, StateOptimizer) or not isinstance(rate, float) or not rate**needed < eps:
            return ""
        return (
            f". There it would be of the order of {rate:g}^{needed} = {rate**needed:.0e}, which "
            f"{_plain(self.net.dtype)} loses beside states of size 1: move errors instead of states, by "
            "coordinates=pcgraph.Errors()"
        )

    def state_dict(self) -> dict[str, bool]:
        """Give what is still looked for, as plain data."""
        return {"vanish": self.vanish, "miss": self.miss, "lose": self.lose}

    def load_state_dict(self, state: Mapping[str, bool]) -> None:
        """Look on for what :meth:`state_dict` gave."""
        self.vanish, self.miss = bool(state["vanish"]) and self.vanish, bool(state["miss"])
        self.lose = bool(state.get("lose", True))


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def unreached(net: PCNetwork, plan: Plan) -> tuple[list[str], int]:
    """Find the edges whose weights get no gradient because inference is too short, and how many steps would do.

    From forward initialization the first error is at the target, and an inference step carries it one edge further.
    Edges that no number of steps would reach, beside a node that nothing is asked of, do not count.
    """
    own, edges = net.own, net.whole_edges
    learns = np.zeros(len(edges), dtype=bool)
    for bucket in own.structure.buckets:
        packed = bucket.packed
        held = list(bucket.transform.parameters()) if packed is None else [own.weights[packed]]
        learns[bucket.start : bucket.stop] = bucket.trainable and any(p.requires_grad for p in held)
    learns &= ~mask_of(len(plan.structure.source), plan.request.frozen_edges)[edges] & ~_learning(plan)[edges]
    if not learns.any():
        return [], plan.steps
    first = _first_errors(plan)[plan.structure.target[edges]]
    learns &= first != NEVER
    if not learns.any():
        return [], plan.steps
    return [_edge(own, int(e)) for e in np.flatnonzero(learns)], int(first[learns].max())


def _first_errors(plan: Plan) -> NDArray[np.int64]:
    """Find the step after which each node can first have an error, however many steps there are."""
    structure, request, count = plan.structure, plan.request, len(plan.structure.nodes)
    pulled = mask_of(count, request.nudged) & plan.free
    alive = structure.has_energy
    if request.only is not None:
        alive = alive & mask_of(count, request.only)
    found: NDArray[np.int64] = arrivals(structure, alive, plan.free, plan.exact, pulled, request.fixes_zero)
    return found


@torch.no_grad()
def lost_gradients(net: PCNetwork, plan: Plan) -> list[tuple[str, str, int]]:
    """Find the weights that an error has reached by the plan, and whose gradients are exactly zero.

    Returns
    -------
    list of (edge, its target, first step with an error there)
    """
    own, numbers, looked, found = net.own, net.whole_edges, [], []
    learning = _learning(plan)[numbers]
    first: NDArray[np.int64] | None = None
    for bucket in own.structure.buckets:
        parameter = own.weights.get(bucket.name, None)
        dense = parameter is not None and parameter.grad is not None and parameter.grad.layout == torch.strided
        if dense and parameter.shape[0] <= ROWS:
            looked.append((_Where(own, f"weights.{bucket.name}", bucket), parameter.grad.flatten(1).any(1)))
    told = iter(torch.cat([rows for _, rows in looked]).tolist() if looked else ())  # all at once, of a GPU
    for what, rows in looked:
        for row in [row for row, alive in zip(range(len(rows)), told) if not alive]:
            edges = what.edges(row)
            if learning[edges].any():
                first = _first_errors(plan) if first is None else first
                target = int(plan.structure.target[numbers[edges[0]]])
                found.append((what(row), called(plan.structure.nodes[target]), int(first[target])))
    return sorted(found, key=lambda lost: -lost[2])


def _learning(plan: Plan) -> Mask:
    """Mark the edges whose weight gradients the plan computes."""
    found = np.zeros(len(plan.structure.source), dtype=bool)
    found[plan.learn.edges] = True
    return found


def _edge(net: Network, number: int) -> str:
    u, v = net.structure.edge(number)[:2]
    slot = net.structure.slot_name(number)
    return f"{u!r} -> {v!r}" + (f" (slot {slot!r})" if slot != MAIN else "")


@torch.no_grad()
def small_gradients(net: Network, optimizer: torch.optim.Optimizer) -> list[tuple[str, float, float]]:
    """Find parameters whose gradients are below the optimizer's eps, so that its steps shrink or vanish.

    Adam divides by ``sqrt(v) + eps``, which is a step of full size only while the gradients' root mean square is well
    above eps. From forward initialization, the error that reaches a layer scales like the state rate to the power of
    its distance from the target, and can drop below the default of 1e-8. Rounding can make it exactly zero: a state
    does not move by less than its last digit.

    Parameters
    ----------
    net : Network
        That holds the parameters.
    optimizer : torch.optim.Optimizer

    Returns
    -------
    list of (where, root mean square of the gradient, eps)
    """
    eps = {id(whole(p)): _eps(group) for group in optimizer.param_groups if _eps(group) for p in group["params"]}
    looked = [(what, _rms(gradient), limit) for what, gradient, limit in _gradients(net, eps)]
    numbers = iter(torch.cat([rms for _, rms, _ in looked]).tolist() if looked else ())  # all at once, of a GPU
    found = []
    for what, rows, limit in looked:
        for row, rms in zip(range(len(rows)), numbers):
            if 0 < rms < limit:
                found.append((what(row), rms, limit))
    return found


def _eps(group: Mapping[str, Any]) -> float:
    """Read the number that Adam and its like add to what they divide by; Adafactor has a pair, and others none: 0."""
    eps: Any = group.get("eps")
    return float(eps) if is_number(eps) else 0.0


def _rms(gradient: Tensor) -> Tensor:
    """Take the root mean square row by row, and of very many rows as one; in float64, for squares of tiny numbers."""
    rows = gradient.shape[0] if gradient.shape[0] <= ROWS else 1
    return gradient.reshape(rows, -1).double().square().mean(1).sqrt()


def _gradients(net: Network, eps: dict[int, float]) -> Iterator[tuple[_Where, Tensor, float]]:
    buckets = {bucket.name: bucket for bucket in net.structure.buckets}
    for name, parameter in net.named_parameters():
        if parameter.grad is None or id(parameter) not in eps or parameter.grad.layout != torch.strided:
            continue
        bucket = buckets.get(name.removeprefix("weights.")) if name.startswith("weights.") else None
        what = _Where(net, name, None if bucket is None or parameter.shape[0] > ROWS else bucket)
        gradient = parameter.grad if bucket is not None else parameter.grad.unsqueeze(0)
        yield what, gradient, eps[id(parameter)]


@dataclass(frozen=True)
class _Where:
    """Names a row of a packed parameter."""

    net: Network
    name: str
    bucket: Bucket | None

    def edges(self, row: int) -> NDArray[np.int64]:
        """Give the edges that use it; there are none where the parameter is judged as one."""
        if self.bucket is None:
            return np.zeros(0, dtype=np.int64)
        used = self.bucket.weight
        return self.bucket.start + (np.array([row]) if used is None else np.flatnonzero(used == row))

    def __call__(self, row: int) -> str:
        edges = self.edges(row)
        return _edge(self.net, int(edges[0])) if len(edges) else self.name
