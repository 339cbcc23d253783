"""All checks share the error, comparisons, finite differences, and a network against the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from pcgraph.errors import BrokenPromise, PCGraphError
from pcgraph.initializers import Initializer, Normal
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD, StateOptimizer
from pcgraph.testing import reference

__all__ = ["BATCH", "Draws", "agree", "broken", "derivative", "far", "in_network", "unmoved"]

#: Relative to the largest value compared.
CLOSE = 1e-9
#: Finite differences: their step, and how far a derivative may be from them.
STEP, DIFFERENCE = 1e-6, 1e-5
#: Random directions in which a derivative is compared.
DIRECTIONS = 4
BATCH = 3


def broken(who: Any, promised: str, found: str, remedy: str) -> BrokenPromise:
    """Return the error for a promise that was not kept."""
    name = who if isinstance(who, str) else type(who).__name__
    return BrokenPromise(
        f"{name} promises {promised} (found {found}); {remedy}", promised=promised, found=found, remedy=remedy
    )


def far(a: Tensor, b: Tensor, tolerance: float = CLOSE) -> bool:
    """Tell whether two tensors differ by more than rounding."""
    if a.shape != b.shape:
        return True
    scale = max(1.0, float(b.abs().max()) if b.numel() else 0.0)
    return bool(((a - b).abs() > tolerance * scale).any()) or not bool(torch.isfinite(a).all())


class Draws:
    """Draws values from a seed, the same on every device, and makes networks where they lie.

    Parameters
    ----------
    seed : int
    device : torch.device or str, optional
        Torch's default device if None.
    """

    def __init__(self, seed: int, device: torch.device | str | None) -> None:
        self.seed, self.device = seed, torch.empty(0, device=device).device
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normal numbers in float64."""
        return torch.randn(shape, generator=self._generator, dtype=torch.float64, device="cpu").to(self.device)

    def network(self, graph: nx.DiGraph, **settings: Any) -> PCNetwork:
        """Make a network in float64."""
        return PCNetwork(graph, **{"seed": self.seed, "dtype": torch.float64, "device": self.device, **settings})


def unmoved(who: Any, what: str, call: Callable[[], Any]) -> Any:
    """Call, and see that torch's global generators are where they were, that of a GPU too."""
    before = _generators()
    value = call()
    if not all(map(torch.equal, before, _generators())):
        raise broken(
            who, f"that {what} does not draw from torch's global generator", "that it was moved",
            "draw from a torch.Generator of your own, made once",
        )  # fmt: skip
    return value


def _generators() -> list[Tensor]:
    states = [torch.random.get_rng_state()]
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return states + (torch.cuda.get_rng_state_all() if used else [])


def derivative(
    who: Any, what: str, function: Callable[[], Tensor], leaf: Tensor, claimed: Tensor, draw: Draws,
    remedy: str,
) -> None:  # fmt: skip
    """Compare a claimed gradient of the scalar ``function()`` with finite differences in random directions."""
    for _ in range(DIRECTIONS):
        direction = draw(tuple(leaf.shape))
        direction /= direction.norm().clamp(min=1e-12)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                leaf.add_(direction, alpha=sign * STEP)
                values.append(float(function()))
                leaf.sub_(direction, alpha=sign * STEP)
        slope, given = (values[0] - values[1]) / (2 * STEP), float((claimed * direction).sum())
        if not abs(slope - given) <= DIFFERENCE * max(1.0, abs(slope)):
            raise broken(who, f"{what}", f"{given:.6g} where finite differences give {slope:.6g}", remedy)


def in_network(who: Any, graph: nx.DiGraph, draw: Draws) -> None:
    """Run a declaration with clamped ``x`` and ``y`` against the reference."""
    try:
        net = draw.network(graph)
    except PCGraphError as error:
        raise broken(who, "to be declared in a graph", str(error), "see the message") from error
    later = Draws(draw.seed + 1, draw.device)
    clamps = {v: later((BATCH, *net.structure.shape(v))) for v in ("x", "y")}
    agree(who, net, clamps, Normal(std=0.5, seed=draw.seed), SGD(lr=0.01))


def agree(
    who: Any, net: PCNetwork, clamps: Mapping[Any, Tensor], init: Initializer, optimizer: StateOptimizer, steps: int = 3
) -> None:
    """Compare states and gradients of the engine with the reference, which skips nothing and packs nothing."""
    net.zero_grad()
    start = {v: h.clone() for v, h in net.infer(clamps, init=init, steps=0).states.items()}
    result = net.infer(clamps, init=init, steps=steps, optimizer=optimizer)
    memories: dict[Any, dict[str, Any]] = {}

    def step(v: Any, h: Tensor, gradient: Tensor, t: int) -> Tensor:
        memory = memories.setdefault(v, {"lr": optimizer.rate(v)})
        memory["step"] = t
        moved = h.clone().reshape(1, BATCH, -1)
        optimizer.step(moved, gradient.clone().reshape(1, BATCH, -1), memory)
        return moved.reshape(h.shape)

    expected = reference.infer(net, clamps, start, steps, step)
    remedy = "an optional method, or a promise that lets the plan skip work, does not hold: leave them out one by one"
    for v in net.graph:
        if far(result.states[v], expected.states[v]):
            raise broken(who, "the same states in the engine as in the reference", f"others in node {v!r}", remedy)
    result.backward()
    for name, parameter in net.named_parameters():
        if name in expected.gradients and far(parameter.grad, expected.gradients[name]):  # type: ignore[arg-type]
            raise broken(who, "the same gradients in the engine as in the reference", f"others of {name}", remedy)
