"""These learning rules send an error back through predictions as a sweep has left them.

* :func:`forward_update`: after any inference, weights learn between the sources as swept and the targets as inferred;
* :func:`zero_divergence`: Z-IL, each node learns in the step in which the error arrives at it;
* :func:`fixed_predictions`: inference moves states, and predictions and their derivatives are those of the sweep.

The last two equal backpropagation: Z-IL exactly, fixed predictions in the limit of many steps, or with the rate 1 after
as many steps as the longest path has edges.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from pcgraph.arguments import require_count, require_flag, require_instance
from pcgraph.clamps import Clamps, Masked
from pcgraph.energies import Energy, Gaussian
from pcgraph.errors import ClampError, ConfigError
from pcgraph.inference import InferenceResult, require_optimizer
from pcgraph.initializers import Forward
from pcgraph.learning.swept import Swept
from pcgraph.model import PCNetwork
from pcgraph.optimizers import Following, StateOptimizer
from pcgraph.topology import check as check_graph

__all__ = ["fixed_predictions", "forward_update", "zero_divergence"]

Node = Hashable
States = Mapping[Node, Tensor]


def forward_update(net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], result: InferenceResult) -> None:
    """Learn from a result at its targets as inferred, and at their sources as a sweep leaves them.

    The gradient of an edge is that of the energy of its target's inferred state under the *swept* prediction, so that
    what inference has done to a source does not blur what the target is to learn (Qi et al. 2025, arXiv 2506.23800).
    In the place of ``result.backward()``.

    Parameters
    ----------
    net : PCNetwork
    clamps : mapping
        Those that the result was inferred from.
    result : InferenceResult
        With whatever coordinates, precisions and duals; the initializer remembers it.

    Raises
    ------
    ConfigError
        The network has learned from the result already.
    InvalidInitializer
        There is no sweep for these clamps.
    """
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
    require_instance(result, "result", InferenceResult, "net.infer(...)")
    if result.learned:
        raise ConfigError("the network has learned from this result already; run net.infer(...) again")
    s, asked = net.structure, dict(result.plan.request.precision)
    swept = dict(net.infer(clamps, init=Forward(), steps=0, check=False).states)
    swept.update(net.spread(swept, s.declared, result.batch))
    inferred = dict(result.states)
    with torch.enable_grad():
        total = torch.zeros(result.batch, dtype=net.dtype, device=net.device)
        for i in np.flatnonzero(s.has_energy).tolist():
            owner, given = s.nodes[int(s.owner[i])], asked.get(i)
            if not net.holds(owner):
                continue
            mu = net.differentiable_prediction(s.nodes[i], swept)
            last = given[-1] if isinstance(given, tuple) else given
            energy: Energy = net.node_energy(i) if last is None else Gaussian(last)
            total = total + energy.energy(inferred[owner], mu)
            if i < len(s.declared) and s.nodes[i] in set(result.duals):
                total = total - (result.duals[s.nodes[i]] * mu).flatten(1).sum(1)
        _backward(net, total.mean())
    result.learned = True
    result.remember()


def zero_divergence(
    net: PCNetwork, inputs: States, targets: States, *, check: bool = True
) -> Tensor:  # fmt: skip
    """Learn by Z-IL: each node's weights learn in the inference step in which the error arrives at it.

    From a forward sweep, with the state rate 1 / precision, the error of a node is in that step what backpropagation
    sends to it, and its parents have not moved yet: the gradients are those of :func:`backprop`. In each step only the
    nodes move at which the error arrives in the next.

    Parameters
    ----------
    net : PCNetwork
    inputs, targets : mapping
        Node -> (batch, *shape).
    check : bool
        Look for values that are not finite.

    Returns
    -------
    Tensor, shape (batch,)
        The loss, which is the energy of the targets given what the sweep predicts.

    Raises
    ------
    InvalidInitializer
        There is no sweep from the inputs.
    ConfigError
        Paths of different length lead from a free node to the targets, so that the error arrives twice; or a free node
        has slots, or an energy that is not Gaussian.

    References
    ----------
    Y. Song, T. Lukasiewicz, Z. Xu, R. Bogacz, "Can the Brain Do Backpropagation? Exact Implementation of
    Backpropagation in Predictive Coding Networks" (NeurIPS 2020).
    """
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
    _, wanted = _given(net, inputs, targets, check)
    s, arrival = net.structure, _arrivals(net, set(inputs), list(targets))
    rates = {v: 1.0 / _precision(net, v) for v in arrival if v not in targets}
    states = dict(net.infer({**inputs, **targets}, init=Forward(), steps=0, check=False).states)
    states.update(net.spread(states, s.declared, wanted.batch))
    loss = torch.zeros(wanted.batch, dtype=net.dtype, device=net.device)
    for t in range(max(arrival.values()) + 1):
        # What has learned need not move on, and what the target does not hear of has no error to send.
        now = [v for v, late in arrival.items() if late == t and s.has_energy[s.number[v]] and net.holds(v)]
        ahead = [v for v, late in arrival.items() if late == t + 1]
        with torch.enable_grad():
            states.update({v: states[v].detach().requires_grad_() for v in ahead if v in states})
            energies = [
                net.node_energy(s.number[v]).energy(states[v].detach(), net.differentiable_prediction(v, states))
                for v in now
            ]
            total = torch.stack(energies).sum(0) if energies else torch.zeros_like(loss)
            _backward(net, total.sum(), scale=1 / len(total))
        if t == 0:
            loss = net.summed(total.detach())
        grads = {v: states[v].grad for v in ahead if v in states}
        back = net.collect({v: g for v, g in grads.items() if g is not None}, ahead, wanted.batch)
        states.update({v: states[v].detach() - rates[v] * g for v, g in back.items()})
        states.update(net.spread(states, ahead, wanted.batch))
    return loss


def fixed_predictions(
    net: PCNetwork, inputs: States, targets: States, *, steps: int, optimizer: StateOptimizer, check: bool = True
) -> Tensor:  # fmt: skip
    """Learn after an inference in which predictions and their derivatives stay those of the sweep.

    Parameters
    ----------
    net : PCNetwork
    inputs, targets : mapping
        Node -> (batch, *shape).
    steps : int
    optimizer : StateOptimizer
        Of the states. With ``SGD(lr=1.0)`` and precisions of 1, as many steps as the longest path has edges give
        backpropagation's gradients; with smaller rates, many do.
    check : bool
        Look for values that are not finite.

    Returns
    -------
    Tensor, shape (batch,)
        The energy of all nodes at the end.

    Raises
    ------
    InvalidInitializer
        There is no sweep from the inputs.
    ConfigError
        A node has slots, whose predictions no sweep follows; or the optimizer is none, or has a rate that follows the
        curvature.

    References
    ----------
    B. Millidge, A. Tschantz, C. L. Buckley, "Predictive Coding Approximates Backprop Along Arbitrary Computation
    Graphs" (Neural Computation 2022).
    """
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
    steps = require_count(steps, "steps")
    require_optimizer(net, steps, optimizer)
    if steps and not isinstance(optimizer, StateOptimizer):
        raise ConfigError(f"fixed predictions take a state optimizer (found {optimizer!r})", key="optimizer")
    if isinstance(getattr(optimizer, "lr", None), Following):
        raise ConfigError(
            f"the curvature that {optimizer.lr!r} follows is that of the energy, and fixed predictions have another: "
            "give a number as the rate",
            key="optimizer",
        )
    known, wanted = _given(net, inputs, targets, check)
    s = net.structure
    inputs, targets = ({s.nodes[i]: h for i, h in given.values.items()} for given in (known, wanted))
    swept = Swept(net, inputs, known.batch)
    mu = swept.mu
    h = {v: targets[v] if v in targets else mu[v].detach().clone() for v in mu}
    free = [v for level in swept.levels for v in level if v not in targets]
    memories: dict[Node, dict[str, object]] = {
        v: {"lr": optimizer.rate(v)} if steps else {} for v in free if net.holds(v)
    }
    energies = {v: net.node_energy(s.number[v]) for v in mu if s.has_energy[s.number[v]]}

    def errors() -> dict[Node, tuple[Tensor, Tensor]]:
        return {v: energy.error(h[v], mu[v].detach()) for v, energy in energies.items()}

    for t in range(steps if free else 0):
        found = errors()
        back = swept.back({v: -sent for v, (_, sent) in found.items()}, free)
        for v, memory in memories.items():
            gradient = back.get(v, torch.zeros_like(h[v]))
            gradient = gradient + found[v][0] if v in found else gradient
            memory["step"] = t
            row = h[v].reshape(1, known.batch, -1).clone()
            optimizer.step(row, gradient.reshape(1, known.batch, -1).clone(), memory)
            h[v] = row.reshape(h[v].shape)
    sent = {v: -sent / known.batch for v, (_, sent) in errors().items() if mu[v].requires_grad}
    parameters = [p for p in net.parameters() if p.requires_grad]
    if sent and parameters:
        torch.autograd.backward([mu[v] for v in sent], list(sent.values()), inputs=parameters)
    total = torch.zeros(known.batch, dtype=net.dtype, device=net.device)
    with torch.enable_grad():
        for v, energy in energies.items():
            total = total + energy.energy(h[v].detach(), mu[v].detach())
        _backward(net, total.mean())
    return net.summed(total.detach())


# -- what they share --------------------------------------------------------------------------------------------------


def _backward(net: PCNetwork, loss: Tensor, scale: float = 1.0) -> None:
    """Add the gradients of a loss to the parameters', `scale` times, and make those that are missing."""
    before = {} if scale == 1.0 else {p: p.grad for p in net.parameters()}
    for parameter in before:
        parameter.grad = None
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    for parameter, gradient in before.items():
        if parameter.grad is not None:
            parameter.grad.mul_(scale)
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)
    for parameter in net.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def _given(net: PCNetwork, inputs: States, targets: States, check: bool) -> tuple[Clamps, Clamps]:
    """Check inputs and targets, that a sweep leads from one to the other, and that no node has slots."""
    check = require_flag(check, "check")
    known, wanted = (Clamps.check(net, values, finite=check) for values in (inputs, targets))
    if known.batch != wanted.batch:
        raise ClampError(f"inputs and targets have one batch size (found {known.batch} and {wanted.batch})")
    for i in known.clamped & wanted.clamped:
        name = net.structure.nodes[i]
        raise ClampError(f"{name!r} is among the inputs and among the targets: give it once", node=name)
    for i in (*known.masked, *wanted.masked):
        name = net.structure.nodes[i]
        raise ClampError(f"this rule takes whole values (found a partial clamp of {name!r})", node=name)
    if net.structure.slots:
        slot = next(iter(net.structure.slots))
        raise ConfigError(
            f"{slot!r} is a slot, whose prediction no sweep follows, so that it starts with an error of its own: use "
            "the rule Standard",
            key="rule",
        )
    check_graph(net.graph, inputs, repair=False).verdicts["forward"].require()
    return known, wanted


def _arrivals(net: PCNetwork, inputs: set[Node], targets: Iterable[Node]) -> dict[Node, int]:
    """Give each node that a target hears of the step in which the error arrives: its distance on every path."""
    arrival, waiting = dict.fromkeys(targets, 0), list(targets)
    reach: Callable[[Node], Iterable[Node]] = net.graph.predecessors
    while waiting:
        v = waiting.pop(0)
        for u in reach(v):
            late = arrival[v] + 1
            if u in inputs or arrival.get(u) == late:
                continue
            if u in arrival:
                raise ConfigError(
                    f"Z-IL needs paths of one length from each node to the target (found {u!r} at {arrival[u]} and at "
                    f"{late} edges from it): put identity nodes on the shorter one, or use FixedPredictions",
                    key="rule",
                )
            arrival[u] = late
            waiting.append(u)
    return arrival


def _precision(net: PCNetwork, v: Node) -> float:
    """Return the precision of a free node, by which its rate is divided."""
    i = net.structure.number[v]
    segment = net.structure.segments[int(net.structure.segment_of[i])]
    if segment.energy is None:
        return 1.0
    if not segment.gaussian:
        raise ConfigError(
            f"Z-IL needs Gaussian energies of free nodes, whose error is what has come back to them (found "
            f"{type(segment.energy).__name__} of {v!r}): use FixedPredictions or Standard",
            key="rule",
        )
    first = net.structure.nodes_of(segment).start
    return 1.0 if segment.precision is None else float(segment.precision[i - first])
