"""Learning rules beside the standard one, and the baseline that every paper needs.

* standard: ``net.infer(...).backward()``: gradients at the final states (paper, Eq 4);
* :func:`incremental`: a weight step after every inference step;
* :func:`nudged`: the target pulls at the output instead of fixing it, and the gradient is a difference between phases;
* :func:`backprop`: the gradient of the output's energy through the feed-forward pass of the same graph.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pcgraph.clamps import Clamps, Masked
from pcgraph.errors import ClampError, ConfigError
from pcgraph.inference import Settings
from pcgraph.initializers import Forward, Initializer
from pcgraph.learning.result import InferenceResult
from pcgraph.optimizers import StateOptimizer
from pcgraph.topology import check

if TYPE_CHECKING:
    from pcgraph.model import PCNetwork

__all__ = ["backprop", "incremental", "nudged"]

Node = Hashable


def incremental(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, steps: int,
    optimizer: StateOptimizer, weights: torch.optim.Optimizer, labels: Tensor | None = None,
) -> InferenceResult:  # fmt: skip
    """Incremental predictive coding: after every inference step, a step of the weights at the new states.

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
        At least one.
    optimizer : StateOptimizer
    weights : torch.optim.Optimizer
        Its gradients are cleared before each of its steps.
    labels : Tensor, optional, shape (batch,)

    Returns
    -------
    InferenceResult
        At the final states, from which the weights have learned already.

    References
    ----------
    Salvatori, Song, Yordanov, Millidge, Sha, Emde, Xu, Bogacz, Lukasiewicz: A Stable, Fast, and Fully Automatic
    Learning Algorithm for Predictive Coding Networks (ICLR 2024).
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"incremental learning needs at least one step (found {steps!r})", key="steps")
    settings = Settings(all_move=True)
    start: Initializer = init
    try:
        for t in range(steps):
            settings.first_step = t
            result = net.run(clamps, init=start, steps=1, optimizer=optimizer, labels=labels, settings=settings)
            weights.zero_grad()
            result.accumulate()
            if t == steps - 1:
                result.init = init
                result.remember()
            weights.step()
            start = net.carry_on(result.states)
    finally:
        net.carry_on({})
    result.learned = True
    return result


def nudged(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], targets: Mapping[Node, Tensor], *, strength: float = 0.1,
    sign: Literal["positive", "negative", "centred"] = "centred", init: Initializer | None = None, steps: int,
    optimizer: StateOptimizer, labels: Tensor | None = None,
) -> None:  # fmt: skip
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
        Of every phase; the default is ``Forward()``, whose sweep is the free equilibrium itself.
    steps, optimizer
        Of every phase.
    labels : Tensor, optional

    References
    ----------
    Scellier, Ernoult, Kendall, Kumar: Energy-Based Learning Algorithms for Analog Computing (NeurIPS 2023).
    """
    if not strength > 0:
        raise ConfigError(f"strength must be positive (found {strength!r}); sign= says which way", key="strength")
    phases = {
        "positive": [(strength, 1 / strength), (0.0, -1 / strength)],
        "negative": [(0.0, 1 / strength), (-strength, -1 / strength)],
        "centred": [(strength, 0.5 / strength), (-strength, -0.5 / strength)],
    }
    if sign not in phases:
        raise ConfigError(f"sign is one of {', '.join(phases)} (found {sign!r})", key="sign")
    if not targets:
        raise ClampError("nudging needs at least one target")
    checked = Clamps.check(net, targets)
    pulled = checked.values
    _refuse_masked(net, checked, "nudging")
    for given in clamps.values():
        size = (given.values if isinstance(given, Masked) else given).shape[0]
        if size != checked.batch:
            raise ClampError(f"inputs and targets have one batch size (found {size} and {checked.batch})")
    for i in pulled:
        if net.structure.nodes[i] in clamps:
            name = net.structure.nodes[i]
            raise ClampError(f"{name!r} is clamped and nudged: give it in targets alone", node=name)
    init = Forward() if init is None else init
    for b, factor in phases[sign]:
        settings = Settings(nudges={i: (target, b) for i, target in pulled.items()})
        result = net.run(clamps, init=init, steps=steps, optimizer=optimizer, labels=labels, settings=settings)
        result.accumulate(factor)


def _refuse_masked(net: PCNetwork, clamps: Clamps, what: str) -> None:
    for i in clamps.masked:
        node = net.structure.nodes[i]
        raise ClampError(f"{what} takes whole values (found a partial clamp of {node!r})", node=node)


def backprop(net: PCNetwork, inputs: Mapping[Node, Tensor], targets: Mapping[Node, Tensor]) -> Tensor:
    """Backpropagation through the same declared graph: the baseline.

    The loss is the energy of the target nodes, given what the feed-forward pass predicts for them, averaged over the
    batch; its gradient is added to ``.grad``. It exists exactly where Proposition 3.2 holds for the inputs.

    Parameters
    ----------
    net : PCNetwork
    inputs, targets : mapping
        Node -> (batch, *shape).

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
    checked, wanted = Clamps.check(net, inputs), Clamps.check(net, targets)
    if checked.batch != wanted.batch:
        raise ClampError(f"inputs and targets have one batch size (found {checked.batch} and {wanted.batch})")
    for given_values in (checked, wanted):
        _refuse_masked(net, given_values, "backpropagation")
    report = check(net.graph, inputs, repair=False)
    report.verdicts["forward"].require()
    with torch.enable_grad():
        states = {**{net.structure.nodes[i]: h for i, h in checked.values.items()}}
        for v in report.order or ():
            states[v] = net.differentiable_prediction(v, states)
        loss = torch.zeros(checked.batch, dtype=net.dtype, device=net.device)
        for i, target in wanted.values.items():
            loss = loss + net.node_energy(i).energy(target, states[net.structure.nodes[i]])
        loss.mean().backward()  # type: ignore[no-untyped-call]
    for parameter in net.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return loss.detach()
