"""Energies are declared and saved by these names."""

from __future__ import annotations

from typing import Any

from pcgraph.arguments import shown
from pcgraph.energies.base import Energy
from pcgraph.energies.continuous import DiagonalGaussian, Gaussian, Huber, Laplace, LearnedPrecision, StudentT, Zero
from pcgraph.energies.discrete import KL, Bernoulli, CrossEntropy, Poisson
from pcgraph.errors import GraphError
from pcgraph.registry import Registry

__all__ = ["ENERGIES", "from_config", "get", "name_of"]

#: The energies that have a name. Add your own class, with a ``config()`` if it takes arguments, and graphs with it can
#: be saved.
ENERGIES: dict[str, type[Energy]] = {
    "gaussian": Gaussian,
    "learned_precision": LearnedPrecision,
    "cross_entropy": CrossEntropy,
    "bernoulli": Bernoulli,
    "laplace": Laplace,
    "diagonal_gaussian": DiagonalGaussian,
    "huber": Huber,
    "student_t": StudentT,
    "kl": KL,
    "poisson": Poisson,
    "zero": Zero,
}
_REGISTRY = Registry("energy", Energy, "pcgraph.energies.ENERGIES", ENERGIES, " or a pcgraph.energies.Energy")


def from_config(name: str, config: dict[str, Any]) -> Energy:
    """Make the energy with this name and these arguments: the inverse of ``name_of(e), e.config()``.

    Raises
    ------
    GraphError
        The name is unknown, or the class does not take these arguments.

    Examples
    --------
    >>> from_config("laplace", {"scale": 2.0})
    Laplace(scale=2)
    """
    return _REGISTRY.make(name, config)


def name_of(energy: Energy) -> str:
    """Return the name under which the energy's class is registered.

    Raises
    ------
    GraphError
        It has none.
    """
    return _REGISTRY.name_of(energy)


def get(spec: str | Energy | None, precision: Any = None) -> Energy:
    """Return the energy that `spec` names or is; None is the Gaussian, and ``(name, arguments)`` makes one.

    A `precision` that is no number, but an array, makes a :class:`DiagonalGaussian`.

    Raises
    ------
    GraphError
        The name is unknown, `spec` is no energy, or a `precision` stands beside an energy that has its own.
    """
    if spec is None or (isinstance(spec, str) and spec == "gaussian"):
        if isinstance(precision, list | tuple) or getattr(precision, "ndim", 0) > 0:
            return DiagonalGaussian(precision)
        return Gaussian(1.0 if precision is None else precision)
    if precision is not None:
        raise GraphError(
            f"precision belongs to the Gaussian energy (found precision={shown(precision)} beside "
            f"energy={shown(spec)}); give the precision to the energy itself",
            found=precision,
        )
    return _REGISTRY.get(spec)
