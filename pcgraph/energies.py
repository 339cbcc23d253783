"""What the error of a node costs.

The energy of a network is the sum of its nodes' energies (paper, Eq 1, without the misprint in its index):
``F = sum_v E_v(h_v, mu_v)`` over the nodes that have a parent or a prior, per sample. The default is
``E = 1/2 * precision * ||h - mu||^2``.

An energy enters inference by two derivatives: ``dE/dh`` pulls the node's own state, ``-dE/dmu`` is the error
that it sends to its parents. For the Gaussian both are ``precision * (h - mu)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pcgraph.errors import GraphError, unknown_name

__all__ = ["ENERGIES", "Energy", "Gaussian", "get"]


class Energy(torch.nn.Module):
    """Base class of every energy. Write :meth:`energy`; the rest is optional.

    Attributes
    ----------
    zero_at_prediction : bool
        True promises that both derivatives vanish at ``h == mu``. Only then may a plan skip a node whose state
        equals its prediction. False costs speed and never the answer.
    """

    zero_at_prediction: bool = False

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        """The energy per sample.

        Parameters
        ----------
        h, mu : Tensor, shape (batch, *shape)

        Returns
        -------
        Tensor, shape (batch,)
        """
        raise TypeError(f"{type(self).__name__} must define energy(h, mu) -> (batch,)")

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        """``(dE/dh, -dE/dmu)``, each of shape (batch, *shape). The default takes them by autograd."""
        with torch.enable_grad():
            h, mu = h.detach().requires_grad_(), mu.detach().requires_grad_()
            total = self.energy(h, mu).sum()
            dh, dmu = torch.autograd.grad(total, (h, mu), allow_unused=True)
        return (
            torch.zeros_like(h) if dh is None else dh,
            torch.zeros_like(mu) if dmu is None else -dmu,
        )


class Gaussian(Energy):
    """``1/2 * precision * ||h - mu||^2`` (paper, Eq 1, where the precision is 1).

    Parameters
    ----------
    precision : float
        The inverse variance, positive.

    Examples
    --------
    >>> Gaussian().energy(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))
    tensor([2.5000])
    """

    zero_at_prediction = True

    def __init__(self, precision: float = 1.0) -> None:
        super().__init__()
        if not (isinstance(precision, int | float) and 0 < precision < float("inf")):
            raise GraphError(f"a precision is a positive number (found {precision!r})", found=precision)
        self.precision = float(precision)

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return 0.5 * self.precision * (h - mu).flatten(1).square().sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        e = (h - mu) * self.precision
        return e, e

    def extra_repr(self) -> str:
        return f"precision={self.precision:g}"


#: The energies that have a name, each made without arguments.
ENERGIES: dict[str, Callable[[], Energy]] = {"gaussian": Gaussian}


def get(spec: str | Energy | None, precision: float | None = None) -> Energy:
    """The energy that `spec` names or is; None is the Gaussian.

    Raises
    ------
    GraphError
        An unknown name, no energy at all, or a `precision` beside an energy that has its own.
    """
    if spec is None or (isinstance(spec, str) and spec == "gaussian"):
        return Gaussian(1.0 if precision is None else precision)
    if precision is not None:
        raise GraphError(
            f"precision belongs to the Gaussian energy (found precision={precision!r} beside energy={spec!r}); "
            "give the precision to the energy itself",
            found=precision,
        )
    if isinstance(spec, str):
        if spec not in ENERGIES:
            raise GraphError(unknown_name("energy", spec, ENERGIES), found=spec)
        return ENERGIES[spec]()
    if isinstance(spec, Energy):
        return spec
    raise GraphError(f"an energy is a name or a pcgraph.energies.Energy (found {spec!r})", found=spec)
