"""These are learning rules beside the standard one, and the baseline that every paper needs, for a loop of one's own.

* standard: ``net.infer(...).backward()``: gradients at the final states (paper, Eq 4);
* :func:`incremental`: a weight step after every inference step;
* :func:`nudged`: the target pulls at the output instead of fixing it, and the gradient is a difference between phases;
* :func:`backprop`: the gradient of the output's energy through the feed-forward pass of the same graph.

For :func:`pcgraph.fit` they are objects: :mod:`pcgraph.learning.fitting`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from pcgraph.arguments import require_choice, require_count, require_flag, require_instance, require_number
from pcgraph.backends import Motion
from pcgraph.clamps import Clamps, Masked
from pcgraph.errors import ClampError, ConfigError, Diverged
from pcgraph.inference import InferenceResult, Options
from pcgraph.initializers import Forward, Initializer
from pcgraph.learning.swept import Swept
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.solvers import Solver
from pcgraph.topology import check as check_graph

__all__ = ["backprop", "incremental", "nudged", "phases", "refuse_solver", "require_nudge", "walk"]

Node = Hashable


def incremental(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, steps: int,
    optimizer: StateOptimizer, weights: torch.optim.Optimizer, labels: Tensor | None = None, check: bool = True,
) -> InferenceResult:  # fmt: skip
    """Learn by incremental predictive coding: after every inference step, the weights step at the new states.

    Since the weights change, nothing is carried over from one step to the next but the states and what the state
    optimizer keeps: every prediction is computed anew.

    Parameters
    ----------
    net : PCNetwork
    clamps : mapping
        As for ``net.infer``.
    init : Initializer
        Remembers the final states once.
    steps : int
        The number of inference steps, at least one.
    optimizer : StateOptimizer
    weights : torch.optim.Optimizer
        Its gradients are cleared before each of its steps.
    labels : Tensor, optional, shape (batch,)
    check : bool
        As for ``net.infer``.

    Returns
    -------
    InferenceResult
        The result at the final states, from which the weights have learned already.

    References
    ----------
    Salvatori, Song, Yordanov, Millidge, Sha, Emde, Xu, Bogacz, Lukasiewicz: A Stable, Fast, and Fully Automatic
    Learning Algorithm for Predictive Coding Networks (ICLR 2024).
    """
    _require_network(net)
    require_instance(weights, "weights", torch.optim.Optimizer, "torch.optim.SGD(net.parameters(), lr=0.01)")
    return walk(
        net, clamps, init=init, steps=steps, optimizer=optimizer, labels=labels, check=check, trace=False,
        clear=weights.zero_grad, move=weights.step,
    )  # fmt: skip


def walk(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, steps: int,
    optimizer: StateOptimizer | Solver | None, labels: Tensor | None, check: bool, trace: bool,
    clear: Callable[[], Any], move: Callable[[], Any],
) -> InferenceResult:  # fmt: skip
    """Learn as :func:`incremental` does, with functions that clear the gradients and that move the weights by them."""
    steps = require_count(steps, "steps", least=1)
    refuse_solver(optimizer)
    motion, options = Motion(optimizer), Options(check=require_flag(check, "check"), trace=trace)
    start: Initializer = init
    energies: list[Tensor] = []
    try:
        for t in range(steps):
            motion.first_step = t
            result = net.run(
                clamps, init=start, steps=1, labels=labels, motion=motion, options=options, all_move=True
            )  # fmt: skip
            if result.trace is not None:
                energies += result.trace[1:] if energies else result.trace
            clear()
            result.accumulate()
            if t == steps - 1:
                result.init = init
                result.remember()
            move()
            start = net.carry_on(result.states)
    except Diverged as error:
        if t:
            error.add_note(f"It was step {t + 1} of {steps} of incremental learning; those before moved the weights.")
        raise
    result.learned = True
    result.trace = torch.stack(energies) if trace else None
    return result


def nudged(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], targets: Mapping[Node, Tensor], *, strength: float = 0.1,
    sign: Literal["positive", "negative", "centred"] = "centred", init: Initializer | None = None, steps: int,
    optimizer: StateOptimizer | Solver, labels: Tensor | None = None, check: bool = True,
) -> Tensor:  # fmt: skip
    """Nudge the output towards its target, or away from it, and learn from the difference between phases.

    The cost ``b / 2 * ||h_y - target||^2`` joins the energy; the target is not clamped. With ``G(b)`` the gradient of
    the energy for the weights after a phase with b, ``.grad`` gets ``(G(s) - G(0)) / s`` ("positive"),
    ``(G(0) - G(-s)) / s`` ("negative") or ``(G(s) - G(-s)) / 2s`` ("centred"), averaged over the batch. As s goes to
    zero and the phases settle, all of them go to the gradient of the cost at the free equilibrium; the centred one
    with an error of s^2.

    Parameters
    ----------
    net : PCNetwork
    clamps : mapping
        The inputs, without the targets.
    targets : mapping
        Free node -> target (batch, *shape).
    strength : float
        s, positive.
    sign : {"centred", "positive", "negative"}
    init : Initializer, optional
        Where every phase starts; the default is ``Forward()``, whose sweep is the free equilibrium itself.
        It remembers the last phase alone: the free one, and where there is none the one towards the target.
    steps, optimizer
        The inference steps of every phase, and what moves its states.
    labels : Tensor, optional
    check : bool
        As for ``net.infer``.

    Returns
    -------
    Tensor, shape (batch,)
        ``1/2 * ||h_y - target||^2`` at the end of the free phase; for "centred", which has none, the mean of both
        phases, which differs from it by s^2.

    References
    ----------
    Scellier, Ernoult, Kendall, Kumar: Energy-Based Learning Algorithms for Analog Computing (NeurIPS 2023).
    """
    _require_network(net)
    cost, result = phases(
        net, clamps, targets, strength=strength, sign=sign, init=Forward() if init is None else init, steps=steps,
        optimizer=optimizer, labels=labels, check=check,
    )  # fmt: skip
    result.remember()
    return cost


def phases(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], targets: Mapping[Node, Tensor], *, strength: float,
    sign: str, init: Initializer, steps: int, optimizer: StateOptimizer | Solver | None, labels: Tensor | None,
    check: bool,
) -> tuple[Tensor, InferenceResult]:  # fmt: skip
    """Run the phases of :func:`nudged`, before the initializer remembers.

    Returns
    -------
    Tensor, shape (batch,)
        The cost.
    InferenceResult
        That of the last phase.
    """
    require_nudge(strength, sign)
    require_flag(check, "check")
    pulled = _targets(net, clamps, targets, finite=check)
    found: list[Tensor] = []
    for b, factor in PHASES[sign]:
        motion = Motion(optimizer, nudges={i: (target, b * strength) for i, target in pulled.items()})
        result = net.run(
            clamps, init=init, steps=steps, labels=labels, motion=motion, options=Options(check=check)
        )  # fmt: skip
        result.accumulate(factor / strength)
        if b == 0 or sign == "centred":
            found.append(_cost(net, result, pulled))
    return torch.stack(found).mean(0), result


#: For each sign the phases, as (nudge, weight of its gradient): in units of the strength, and of its inverse. The
#: phase that is remembered comes last.
PHASES = {
    "positive": ((1.0, 1.0), (0.0, -1.0)),
    "negative": ((-1.0, -1.0), (0.0, 1.0)),
    "centred": ((-1.0, -0.5), (1.0, 0.5)),
}


def require_nudge(strength: float, sign: str) -> None:
    """Refuse a strength or a sign that is none."""
    require_number(strength, "strength", above=0)
    require_choice(sign, "sign", PHASES)


def _targets(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], targets: Mapping[Node, Tensor], *, finite: bool
) -> dict[int, Tensor]:
    """Map the canonical number of each node to its target, checked as clamps are."""
    checked, inputs = Clamps.check(net, targets, finite=finite), Clamps.check(net, clamps, finite=False)
    _refuse_masked(net, checked, "nudging")
    if inputs.batch != checked.batch:
        raise ClampError(f"inputs and targets have one batch size (found {inputs.batch} and {checked.batch})")
    for i in checked.values:
        if net.structure.nodes[i] in clamps:
            name = net.structure.nodes[i]
            raise ClampError(f"{name!r} is clamped and nudged: give it in targets alone", node=name)
    return checked.values


@torch.no_grad()
def _cost(net: PCNetwork, result: InferenceResult, targets: Mapping[int, Tensor]) -> Tensor:
    names = net.structure.nodes
    cost = torch.zeros(result.batch, dtype=net.dtype, device=net.device)
    for i, target in targets.items():
        if net.holds(names[i]):
            cost += 0.5 * (result.peek(names[i]) - target).flatten(1).square().sum(1)
    return net.summed(cost)


def _require_network(net: object) -> None:
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")


def refuse_solver(optimizer: object, key: str = "optimizer") -> None:
    """Refuse a solver where the weights move after every inference step.

    Raises
    ------
    ConfigError
    """
    if isinstance(optimizer, Solver):
        raise ConfigError(
            f"Incremental learning moves the weights after every inference step, so that what {optimizer!r} remembers "
            f"of the energy does not hold: take a state optimizer, as in {key}=pcgraph.SGD(lr=0.1)",
            key=key,
        )


def _refuse_masked(net: PCNetwork, clamps: Clamps, what: str) -> None:
    for i in clamps.masked:
        node = net.structure.nodes[i]
        raise ClampError(f"{what} takes whole values (found a partial clamp of {node!r})", node=node)


def backprop(
    net: PCNetwork, inputs: Mapping[Node, Tensor], targets: Mapping[Node, Tensor], *, check: bool = True
) -> Tensor:  # fmt: skip
    """Backpropagate through the same declared graph, which is the baseline.

    The loss is the energy of the target nodes, given what the feed-forward pass predicts for them, averaged over the
    batch; its gradient is added to ``.grad``. It exists exactly where Proposition 3.2 holds for the inputs.

    Parameters
    ----------
    net : PCNetwork
    inputs, targets : mapping
        Node -> (batch, *shape).
    check : bool
        Look for values that are not finite. On a GPU that waits for the device.

    Returns
    -------
    Tensor, shape (batch,)
        The loss per sample.

    Raises
    ------
    InvalidInitializer
        The graph has a cycle, or a root that is no input.

    Examples
    --------
    >>> import torch, pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    >>> backprop(net, {"x": torch.zeros(5, 3)}, {"y": torch.zeros(5, 2)}).shape
    torch.Size([5])
    """
    _require_network(net)
    require_flag(check, "check")
    checked, wanted = (Clamps.check(net, values, finite=check) for values in (inputs, targets))
    if checked.batch != wanted.batch:
        raise ClampError(f"inputs and targets have one batch size (found {checked.batch} and {wanted.batch})")
    for given_values in (checked, wanted):
        _refuse_masked(net, given_values, "backpropagation")
    for i in wanted.values:
        name = net.structure.nodes[i]
        if i in checked.values or not net.structure.has_energy[i]:
            why = "an input" if i in checked.values else "predicted by nothing"
            raise ClampError(f"backpropagation has targets that are predicted, and {name!r} is {why}", node=name)
    report = check_graph(net.graph, inputs, repair=False)
    report.verdicts["forward"].require()
    if net.partition is not None:
        loss = _backprop_over_ranks(net, checked, wanted)
    else:
        loss = _backprop(net, checked, wanted, report.order or ())
    for parameter in net.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return loss


def _backprop(net: PCNetwork, checked: Clamps, wanted: Clamps, order: Iterable[Node]) -> Tensor:
    """Backpropagate through one graph of autograd, from the losses to all inputs."""
    with torch.enable_grad():
        states = {**{net.structure.nodes[i]: h for i, h in checked.values.items()}}
        for v in order:
            states[v] = net.differentiable_prediction(v, states)
        loss = torch.zeros(checked.batch, dtype=net.dtype, device=net.device)
        for i, target in wanted.values.items():
            loss = loss + net.node_energy(i).energy(target, states[net.structure.nodes[i]])
        if loss.requires_grad:
            loss.mean().backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _backprop_over_ranks(net: PCNetwork, checked: Clamps, wanted: Clamps) -> Tensor:
    """Backpropagate node by node, since a graph of autograd ends where a process does."""
    names = net.structure.nodes
    swept = Swept(net, {names[i]: h for i, h in checked.values.items()}, checked.batch)
    with torch.enable_grad():
        loss = torch.zeros(checked.batch, dtype=net.dtype, device=net.device)
        for i, target in wanted.values.items():
            if net.holds(names[i]):
                loss = loss + net.node_energy(i).energy(target, swept.leaves[names[i]])
        swept.backpropagate(loss.mean())
    return net.summed(loss.detach())
