"""State optimizers move the free states along the gradient of the energy (paper, Eq 3).

They work in place on slices of the state buffers; all free states move at once, from the same old states. The
gradient is that of the energy summed over the batch, so that a rate means the same for every batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import did_you_mean, require_count, require_flag, require_number, shown
from pcgraph.errors import ConfigError

__all__ = ["SGD", "Adam", "Following", "Langevin", "StateOptimizer"]


class Following:
    """Is a state rate that follows the curvature of the energy, so that inference stays stable while weights learn.

    The curvature of the energy grows as the weights learn. Where the rate times the largest curvature passes 2,
    inference no longer descends but swings, and training falls over. This rate is ``min(at_most, cap / curvature)``,
    measured now and then on a few samples, by power iterations that go on from where the last ones ended until they
    have settled.

    Parameters
    ----------
    at_most : float
        The rate while the curvature allows it.
    cap : float
        What the rate times the curvature may be; descent is stable below 2.
    every : int
        The curvature is measured in the first run and in every so many after it.
    iterations : int
        Power iterations of a measurement, at most, each of two gradients: it ends where one more changes it by less
        than a part in a hundred.
    samples : int
        The first so many of a batch are measured, since curvature differs less between samples than it grows in
        training.

    Attributes
    ----------
    rate : float
        The rate in use.
    curvature : float or None
        The largest that was measured last, over the samples that were.

    Examples
    --------
    >>> import torch, pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 4, 2]))
    >>> rate = pcgraph.Following(at_most=10.0)
    >>> clamps = {"x": torch.ones(5, 3), "y": torch.ones(5, 2)}
    >>> result = net.infer(clamps, init=pcgraph.Forward(), steps=3, optimizer=pcgraph.SGD(lr=rate))
    >>> 0 < rate.rate < 10, round(rate.rate * rate.curvature, 3)
    (True, 1.2)
    """

    def __init__(
        self, at_most: float, cap: float = 1.2, *, every: int = 30, iterations: int = 30, samples: int = 16
    ) -> None:
        self.at_most = require_number(at_most, "at_most", above=0)
        self.cap = require_number(cap, "cap", above=0, below=2)
        self.every = require_count(every, "every", least=1)
        self.iterations = require_count(iterations, "iterations", least=1)
        self.samples = require_count(samples, "samples", least=1)
        self.rate: float = self.at_most
        self.curvature: float | None = None
        self._runs, self._held = 0, False
        self._direction: Tensor | None = None
        self._tensors: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    #: A measurement ends where the last iteration has changed it by no more than this part of it.
    settled = 0.01

    @property
    def due(self) -> bool:
        """Say whether a measurement is due before the next run."""
        return not self._held and self._runs % self.every == 0

    def ran(self) -> None:
        """Count a run."""
        self._runs += not self._held

    def see(self, curvature: Tensor, direction: Tensor) -> None:
        """Take note of a measurement: curvature (batch,), and the direction to go on from."""
        largest = float(curvature.max())
        self.curvature, self._direction = largest, direction
        self._take(min(self.at_most, self.cap / largest) if largest > 0 else self.at_most)

    def _take(self, rate: float) -> None:
        self.rate = rate
        for tensor in self._tensors.values():
            tensor.fill_(rate)

    def on(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the rate as a tensor of no dimensions that follows it, so that what was recorded does, too."""
        if (dtype, device) not in self._tensors:
            self._tensors[dtype, device] = torch.tensor(self.rate, dtype=dtype, device=device)
        return self._tensors[dtype, device]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Neither measure nor count runs meanwhile, which a recording makes or repeats."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    @property
    def direction(self) -> Tensor | None:
        """This is the last direction of the power iteration, (batch, variables)."""
        return self._direction

    def state_dict(self) -> dict[str, Any]:
        """Give all that evolves, for checkpoints."""
        direction = None if self._direction is None else self._direction.clone()
        return {"rate": self.rate, "curvature": self.curvature, "runs": self._runs, "direction": direction}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises
        ------
        ConfigError, KeyError, TypeError
            It is malformed.
        """
        rate, curvature = require_number(state["rate"], "rate", above=0), state["curvature"]
        curvature = None if curvature is None else require_number(curvature, "curvature")
        runs, direction = require_count(state["runs"], "runs"), state["direction"]
        if direction is not None and not isinstance(direction, Tensor):
            raise TypeError(f"the direction is no tensor (found {shown(direction)})")
        self.curvature, self._runs, self._direction = curvature, runs, direction
        self._take(rate)

    def __deepcopy__(self, memo: dict[int, Any]) -> Following:
        """Copy it without its tensors, which a recording of the copy finds anew."""
        twin = Following(
            self.at_most, self.cap, every=self.every, iterations=self.iterations, samples=self.samples
        )  # fmt: skip
        memo[id(self)] = twin
        twin.load_state_dict(self.state_dict())
        return twin

    def __repr__(self) -> str:
        return f"Following(at_most={self.at_most:g}, cap={self.cap:g})"


Rate = float | Mapping[Hashable, float] | Following


def _check_rate(lr: Rate) -> Rate:
    if isinstance(lr, Following):
        return lr
    if not isinstance(lr, Mapping):
        return require_number(lr, "lr", above=0)
    if not lr:
        raise ConfigError("lr must be a rate, or name one for some node (found an empty mapping)", key="lr")
    return {node: require_number(rate, f"lr[{node!r}]", above=0) for node, rate in lr.items()}


class StateOptimizer:
    """Is the base class of every state optimizer. Write :meth:`step`.

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
        """Say whether a step leaves nothing behind for the next one; False is always right."""
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
        """Give the rate of one node.

        Raises
        ------
        ConfigError
            The rates are a dict without this node and without the entry ``None``.
        """
        if isinstance(self.lr, Following):
            return self.lr.rate
        if not isinstance(self.lr, dict):
            return self.lr  # type: ignore[return-value]
        if node in self.lr:
            return float(self.lr[node])
        if None in self.lr:
            return float(self.lr[None])
        raise ConfigError(
            f"lr names no rate for the free node {node!r}: add it, or an entry None for the rest", key="lr"
        )

    def require_fit(self, nodes: Collection[Hashable], dtype: torch.dtype) -> None:
        """Refuse rates for nodes that a network does not have, and those that are no numbers in its dtype.

        Parameters
        ----------
        nodes : collection
            Those of the network.
        dtype : torch.dtype
            Of its states.

        Raises
        ------
        ConfigError
            With the nearest name.
        """
        rates: Mapping[Hashable, Any] = self.lr if isinstance(self.lr, dict) else {None: self.lr}
        for node, rate in rates.items():
            rate = rate.at_most if isinstance(rate, Following) else rate
            if rate > torch.finfo(dtype).max:
                raise ConfigError(f"lr must be a number that {dtype} has (found {shown(rate)})", key="lr")
            if node is not None and node not in nodes:
                hint = did_you_mean(node, nodes)
                raise ConfigError(f"lr names the node {node!r}, which the network does not have{hint}", key="lr")

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> None:
        """Move `state` in place.

        Parameters
        ----------
        state, grad : Tensor, shape (nodes, batch, size)
            Slices of the buffers. `grad` may be overwritten.
        memory : dict
            Kept for this slice from step to step; ``"lr"`` is a float or a tensor that
            broadcasts against `state`, ``"step"`` the number of steps before this one, and
            ``memory["noise"](generator, state)`` draws standard normal noise, which is the same whatever nodes and
            samples a process has.
        """
        raise TypeError(f"{type(self).__name__} must define step(state, grad, memory)")


def in_place(method: Callable[..., object], tensor: Tensor, *arguments: Any) -> None:
    """Call a method that works in place on `tensor`, one of its arguments, and returns nothing, or that tensor.

    Raises
    ------
    ConfigError
        It returns something else, which would be dropped without a word.
    """
    found = method(*arguments)
    if found is not None and not (isinstance(found, Tensor) and found.data_ptr() == tensor.data_ptr()):
        name = getattr(method, "__qualname__", type(method).__name__)
        raise ConfigError(
            f"{name} works in place, and what it returns would be dropped (found {shown(found)}): write "
            "into the tensor that it gets, as in tensor.copy_(...), and return nothing",
            key=name,
        )


class SGD(StateOptimizer):
    """Moves states by ``h <- h - lr * g``, or with momentum by ``m <- momentum * m + g`` and ``h <- h - lr * m``.

    Parameters
    ----------
    lr : float, mapping or Following
        The paper's α; or node -> rate, ``None`` -> the rest; or a rate that follows the curvature.
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
        self.momentum = require_number(momentum, "momentum", least=0, below=1)
        self.nesterov = require_flag(nesterov, "nesterov")
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov needs a momentum above 0 (found 0)", key="nesterov")

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


def require_betas(betas: Any) -> tuple[float, float]:
    """Refuse what is not how much is kept of a mean and of a square, two numbers in [0, 1).

    Raises
    ------
    ConfigError
    """
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ConfigError(f"betas must be two numbers in [0, 1) (found {shown(betas)})", key="betas")
    first, second = (require_number(beta, "betas", least=0, below=1) for beta in betas)
    return first, second


class Adam(StateOptimizer):
    """Moves the states as ``torch.optim.Adam`` does parameters, with one step count for all of them.

    A state that an error reaches only at step t has seen zero gradients before: its moments are those of Adam run
    from the start, and a zero gradient moves nothing. Moments of states in half precision are kept in float32, since
    squares and `eps` are zero in float16.
    """

    fixes_zero = True

    def __init__(self, lr: Rate = 0.01, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__(lr)
        self.betas = require_betas(betas)
        self.eps = require_number(eps, "eps", above=0)

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> None:
        first, second = self.betas
        wide = torch.float32 if state.dtype in (torch.float16, torch.bfloat16) else state.dtype
        if "mean" not in memory:
            memory["mean"], memory["square"] = (torch.zeros_like(state, dtype=wide) for _ in range(2))
        t, grad = memory["step"] + 1, grad.to(wide)
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


class Langevin(StateOptimizer):
    """Moves the states downhill and shakes them: ``h <- h - lr * g + sqrt(2 * lr * temperature) * noise``.

    For a small rate and many steps, states are then samples of ``exp(-F / temperature)`` (Monte Carlo predictive
    coding: Oliviers, Bogacz, Meulemans, "Learning probability distributions of sensory inputs with Monte Carlo
    predictive coding", 2024). Every free state moves in every step, so that a plan skips nothing.

    Parameters
    ----------
    lr : float, mapping or Following
        As for :class:`SGD`.
    temperature : float
        Of the noise, which is standard normal times its root; 0 is plain descent.
    generator : torch.Generator, optional
        Where the noise comes from, on the device of the states; None for torch's own, which checkpoints keep.

    Examples
    --------
    >>> h = torch.zeros(1, 1, 2)
    >>> Langevin(lr=0.1, temperature=0).step(h, torch.ones(1, 1, 2), {"lr": 0.1})
    >>> h
    tensor([[[-0.1000, -0.1000]]])
    """

    stateless = True

    def __init__(self, lr: Rate, temperature: float = 1.0, generator: torch.Generator | None = None) -> None:
        super().__init__(lr)
        self.temperature = require_number(temperature, "temperature", least=0)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ConfigError(
                f"generator= is a torch.Generator or None (found {shown(generator)})", key="generator"
            )  # fmt: skip
        self.generator = generator

    def step(self, state: Tensor, grad: Tensor, memory: dict[str, Any]) -> None:
        lr = memory["lr"]
        draw = memory.get("noise", _noise)
        noise = draw(self.generator, state)
        size = (2 * self.temperature * lr) ** 0.5
        state.sub_(grad * lr).add_(noise.mul_(size))

    def __repr__(self) -> str:
        return f"Langevin(lr={self.lr!r}, temperature={self.temperature:g})"


def _noise(generator: torch.Generator | None, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
