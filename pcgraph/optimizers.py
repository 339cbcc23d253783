"""State optimizers: how the free states move along the gradient of the energy (paper, Eq 3).

They work in place on slices of the state buffers; all free states move at once, from the same old states. The
gradient is that of the energy summed over the batch, so that a rate means the same for every batch size.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from pcgraph.errors import ConfigError

__all__ = ["SGD", "Adam", "StateOptimizer"]

Rate = float | Mapping[Hashable, float]


def _check_rate(lr: Rate) -> Rate:
    for value in lr.values() if isinstance(lr, Mapping) else (lr,):
        if not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise ConfigError(f"a state rate lr must be a positive number (found {value!r})", key="lr")
    return dict(lr) if isinstance(lr, Mapping) else float(lr)


class StateOptimizer:
    """Base class of every state optimizer. Write :meth:`step`.

    Attributes
    ----------
    lr : float or dict
        The rate, or node -> rate; a node that the dict does not name uses its entry ``None``.
    fixes_zero : bool
        True promises that a state whose gradient has been zero in every step so far does not move. Only then may a
        plan skip states that no error has reached. False costs speed and never the answer.
    """

    fixes_zero: bool = False

    @property
    def stateless(self) -> bool:
        """Whether a step leaves nothing behind for the next one. False is always right."""
        return False

    def __init__(self, lr: Rate) -> None:
        self.lr = _check_rate(lr)

    def __init_subclass__(cls, **keywords: Any) -> None:
        """A class promises for itself alone: what it does not declare is not inherited."""
        super().__init_subclass__(**keywords)
        if "fixes_zero" not in cls.__dict__:
            cls.fixes_zero = False
        if "stateless" not in cls.__dict__:
            cls.stateless = StateOptimizer.stateless  # type: ignore[method-assign]

    def rate(self, node: Hashable) -> float:
        """The rate of one node.

        Raises
        ------
        ConfigError
            The rates are a dict without this node and without the entry ``None``.
        """
        if not isinstance(self.lr, dict):
            return self.lr  # type: ignore[return-value]
        if node in self.lr:
            return float(self.lr[node])
        if None in self.lr:
            return float(self.lr[None])
        raise ConfigError(
            f"lr names no rate for the free node {node!r}: add it, or an entry None for the rest", key="lr"
        )

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> None:
        """Move `state` in place.

        Parameters
        ----------
        state, grad : Tensor, shape (nodes, batch, size)
            Slices of the buffers. `grad` may be overwritten.
        memory : dict
            Kept for this slice from step to step; ``"lr"`` is a float or a tensor that
            broadcasts against `state`, ``"step"`` the number of steps before this one.
        """
        raise TypeError(f"{type(self).__name__} must define step(state, grad, memory)")


class SGD(StateOptimizer):
    """``h <- h - lr * g``, with momentum if wanted: ``m <- momentum * m + g`` and ``h <- h - lr * m``.

    Parameters
    ----------
    lr : float or mapping
        The paper's α; or node -> rate, ``None`` -> the rest.
    momentum : float
    nesterov : bool
        Look ahead: ``h <- h - lr * (g + momentum * m)``.

    Examples
    --------
    >>> h = torch.zeros(1, 1, 2)
    >>> SGD(lr=0.1).step(h, torch.ones(1, 1, 2), {"lr": 0.1})
    >>> h
    tensor([[[-0.1000, -0.1000]]])
    """

    fixes_zero = True

    def __init__(self, lr: Rate, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(lr)
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum must be in [0, 1) (found {momentum!r})", key="momentum")
        if nesterov and momentum == 0:
            raise ConfigError("nesterov needs a momentum above 0", key="nesterov")
        self.momentum = float(momentum)
        self.nesterov = bool(nesterov)

    @property
    def stateless(self) -> bool:
        return self.momentum == 0

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> None:
        if self.momentum:
            if "momentum" not in memory:
                memory["momentum"] = torch.zeros_like(state)
            velocity = memory["momentum"].mul_(self.momentum).add_(grad)
            grad = grad.add_(velocity, alpha=self.momentum) if self.nesterov else velocity
        lr = memory["lr"]
        if isinstance(lr, Tensor):
            state.addcmul_(grad, lr, value=-1)
        else:
            state.sub_(grad, alpha=lr)

    def __repr__(self) -> str:
        extra = f", momentum={self.momentum:g}" if self.momentum else ""
        return f"SGD(lr={self.lr!r}{extra}{', nesterov=True' if self.nesterov else ''})"


class Adam(StateOptimizer):
    """Adam on the states, as ``torch.optim.Adam``, with one step count for all of them.

    A state that an error reaches only at step t has seen zero gradients before: its moments are those of Adam run
    from the start, and a zero gradient moves nothing.
    """

    fixes_zero = True

    def __init__(self, lr: Rate = 0.01, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(lr)
        if not all(0 <= b < 1 for b in betas):
            raise ConfigError(f"betas must be in [0, 1) (found {betas!r})", key="betas")
        if not eps > 0:
            raise ConfigError(f"eps must be positive (found {eps!r})", key="eps")
        self.betas = betas
        self.eps = eps

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> None:
        first, second = self.betas
        if "mean" not in memory:
            memory["mean"], memory["square"] = torch.zeros_like(state), torch.zeros_like(state)
        t = memory["step"] + 1
        mean = memory["mean"].lerp_(grad, 1 - first)
        square = memory["square"].mul_(second).addcmul_(grad, grad, value=1 - second)
        denominator = torch.sqrt(square, out=grad).div_((1 - second**t) ** 0.5).add_(self.eps)
        lr = memory["lr"]
        if isinstance(lr, Tensor):
            state.sub_((mean / denominator).mul_(lr), alpha=1 / (1 - first**t))
        else:
            state.addcdiv_(mean, denominator, value=-lr / (1 - first**t))

    def __repr__(self) -> str:
        return f"Adam(lr={self.lr!r}, betas={self.betas}, eps={self.eps:g})"
