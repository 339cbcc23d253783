"""The paper's grids (Appendix C.1) as frozen objects, and settings drawn from them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = ["ALEXNET", "METHODS", "MLP", "Grid", "Setting"]

METHODS = ("backprop", "Forward", "Average")


@dataclass(frozen=True)
class Setting:
    """What a training of a classifier is made of, but for its data, length and seed.

    Attributes
    ----------
    method : str
        "backprop", or the name of an initializer: "Forward", "Average", "Zero", "Normal", "Null".
    activation : str
        Of the hidden layers.
    lr : float
        AdamW's learning rate for the weights, β in the paper.
    alpha : float
        The rate of the states; 0 for backprop, which has none.
    steps : int
        T; 0 for backprop.
    depth : int
        m: the first layers that Average sweeps forward; 0 for the others.
    """

    method: str
    activation: str
    lr: float
    alpha: float = 0.0
    steps: int = 0
    depth: int = 0


@dataclass(frozen=True)
class Grid:
    """The values that are tried: every combination is a setting.

    Attributes
    ----------
    fractions : tuple of float
        Of the training data.
    epochs, batch : int
    lrs, activations, alphas, steps, depths : tuple
        For the attributes of :class:`Setting`.
    """

    fractions: tuple[float, ...]
    epochs: int
    batch: int
    lrs: tuple[float, ...]
    activations: tuple[str, ...]
    alphas: tuple[float, ...]
    steps: tuple[int, ...]
    depths: tuple[int, ...]

    def settings(self, method: str) -> Iterator[Setting]:
        """All settings of a method, in a fixed order.

        Examples
        --------
        >>> [len(list(MLP.settings(m))) for m in METHODS]
        [30, 1440, 4320]
        """
        plain = method == "backprop"
        alphas, steps = ((0.0,), (0,)) if plain else (self.alphas, self.steps)
        depths = self.depths if method == "Average" else (0,)
        for values in itertools.product(self.activations, self.lrs, alphas, steps, depths):
            yield Setting(method, *values)

    def sample(self, method: str, count: int, seed: int) -> list[Setting]:
        """Different settings at random, the same for the same seed.

        Examples
        --------
        >>> MLP.sample("Forward", 3, seed=1) == MLP.sample("Forward", 5, seed=1)[:3]
        True
        """
        every = list(self.settings(method))
        random.Random(f"{seed} {method}").shuffle(every)
        return every[:count]

    def only(self, **values: tuple) -> Grid:
        """A part of the grid.

        Examples
        --------
        >>> MLP.only(steps=(3,), alphas=(0.01,)).steps
        (3,)
        """
        for name, chosen in values.items():
            if not set(chosen) <= set(getattr(self, name)):
                raise ValueError(f"{name} must be of {getattr(self, name)} (found {chosen})")
        return replace(self, **values)


MLP = Grid(
    fractions=(1.0, 0.5, 0.25), epochs=16, batch=200,
    lrs=(1e-4, 3e-4, 5e-4, 1e-3, 3e-3, 5e-3),
    activations=("gelu", "elu", "tanh", "leaky_relu", "relu"),
    alphas=(0.003, 0.005, 0.01, 0.03, 0.05, 0.1, 0.3, 0.5),
    steps=(2, 3, 4, 5, 6, 7), depths=(1, 2, 3),
)  # fmt: skip
"""784-512x4-10. Figure 2 has T in {5, 10, 25, 50, 100}."""
ALEXNET = Grid(
    fractions=(1.0, 0.5, 0.25), epochs=24, batch=200,
    lrs=(3e-4, 5e-4, 1e-3, 3e-3),
    activations=MLP.activations, alphas=(0.01, 0.03, 0.05, 0.1), steps=(4, 5, 6, 7, 8, 9), depths=(4, 5, 6),
)  # fmt: skip
