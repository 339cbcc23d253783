"""Check a state optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcgraph import graphs
from pcgraph.initializers import Forward
from pcgraph.optimizers import StateOptimizer
from pcgraph.testing.conformance.promises import BATCH, Draws, agree, broken, far, unmoved

__all__ = ["check_state_optimizer"]


def check_state_optimizer(
    optimizer: StateOptimizer, *, steps: int = 6, seed: int = 0, device: torch.device | str | None = None
) -> None:
    """Test a state optimizer.

    Parameters
    ----------
    optimizer : StateOptimizer
    steps : int
        How many are run.
    seed : int
        Of the values drawn.
    device : torch.device or str, optional
        Where all is computed; torch's default device if None.

    Raises
    ------
    BrokenPromise

    Examples
    --------
    >>> from pcgraph import SGD
    >>> check_state_optimizer(SGD(lr=0.1, momentum=0.9))
    """
    if not isinstance(optimizer, StateOptimizer):
        raise broken(
            optimizer, "to be a StateOptimizer", type(optimizer).__name__,
            "derive it from pcgraph.optimizers.StateOptimizer",
        )  # fmt: skip
    draw = Draws(seed, device)
    state, grads = draw((2, BATCH, 4)), draw((steps, 2, BATCH, 4))
    lr = float(optimizer.lr) if isinstance(optimizer.lr, float) else 0.1
    moved = unmoved(optimizer, "step", lambda: _path(optimizer, state, grads, lr))
    if torch.equal(moved, state):
        raise broken(
            optimizer, "to move the state in place", "that it stands still under a gradient",
            "write into `state`, as in state.sub_(grad, alpha=lr); what step returns is not read",
        )  # fmt: skip
    if not bool(torch.isfinite(moved).all()):
        raise broken(optimizer, "finite states", "others", "look at divisions, and at the first step")
    if not torch.equal(moved, _path(optimizer, state, grads, lr)):
        raise broken(
            optimizer, "the same path from a fresh memory", "another the second time",
            "keep what you remember in `memory`, not on the optimizer",
        )  # fmt: skip
    _optimizer_parts(optimizer, state, grads, lr, moved)
    still = _path(optimizer, state, torch.zeros_like(grads), lr)
    if optimizer.fixes_zero and not torch.equal(still, state):
        raise broken(
            optimizer, "fixes_zero: that a state whose gradients were all zero does not move",
            f"a move of {float((still - state).abs().max()):.3g}",
            "set fixes_zero = False, its default: plans would skip states that must move",
        )  # fmt: skip
    _optimizer_in_network(optimizer, Draws(seed, device))


def _path(optimizer: StateOptimizer, state: Tensor, grads: Tensor, lr: float | Tensor) -> Tensor:
    """Return where the state comes by these gradients, shape (steps, nodes, batch, size), from a fresh memory."""
    moved = state.clone()
    memory: dict[str, Any] = {"lr": lr}
    for t, grad in enumerate(grads):
        memory["step"] = t
        optimizer.step(moved, grad.clone(), memory)
    return moved


def _optimizer_parts(optimizer: StateOptimizer, state: Tensor, grads: Tensor, lr: float, moved: Tensor) -> None:
    """Nodes and samples side by side go where each would go alone, also at rates of their own."""
    if torch.equal(_path(optimizer, state, grads, lr / 2), moved):
        raise broken(
            optimizer, 'to move at the rate memory["lr"]', "the same path at half the rate",
            'read memory["lr"], which may differ by node, and not self.lr',
        )  # fmt: skip
    rates = torch.tensor([lr, lr / 2], dtype=state.dtype, device=state.device).view(2, 1, 1)
    together = _path(optimizer, state, grads, rates)
    for node in range(2):
        one = slice(node, node + 1)
        if far(_path(optimizer, state[one], grads[:, one], lr), moved[one]):
            raise broken(
                optimizer, "that a node goes where it would go alone", f"that node {node} does not",
                "compute with no mean, norm or count over several nodes",
            )  # fmt: skip
        if far(_path(optimizer, state[one], grads[:, one], float(rates[node])), together[one]):
            raise broken(
                optimizer, 'to take memory["lr"] also as a tensor of shape (nodes, 1, 1)', f"another path of {node}",
                'multiply by memory["lr"] in a way that broadcasts',
            )  # fmt: skip
    for i in range(BATCH):
        one = slice(i, i + 1)
        if far(_path(optimizer, state[:, one], grads[:, :, one], lr), moved[:, one]):
            raise broken(
                optimizer, "that a sample goes where it would go alone", f"that sample {i} does not",
                "compute with no mean, norm or count over the batch",
            )  # fmt: skip


def _optimizer_in_network(optimizer: StateOptimizer, draw: Draws) -> None:
    """Begin with a sweep, where a plan skips most, so that a wrong ``fixes_zero`` shows."""
    net = draw.network(graphs.chain([2, 3, 3, 2], activation="tanh"))
    clamps = {v: draw((BATCH, 2)) for v in ("x", "y")}
    if isinstance(optimizer.lr, dict) and None not in optimizer.lr:
        return  # its rates are for the nodes of another graph
    agree(optimizer, net, clamps, Forward(), optimizer, steps=2)
