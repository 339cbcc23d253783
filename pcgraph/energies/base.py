"""Every energy is one of these."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import require_number
from pcgraph.errors import GraphError
from pcgraph.registry import Named

__all__ = ["Energy", "positive"]


class Energy(Named):
    """Every energy extends this class. Write :meth:`energy`; the rest is optional.

    Parameters of its own (``nn.Parameter``) are the network's, and learn with the weights.

    Attributes
    ----------
    zero_at_prediction : bool
        True promises that where ``h == mu`` the energy, both of its derivatives and the gradients of its parameters
        are zero. Only then may a plan skip a node whose state equals its prediction. False costs speed and never the
        answer.
    """

    zero_at_prediction: bool = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Let a class promise for itself alone; an energy of its own has derivatives of its own, or autograd's."""
        super().__init_subclass__(**keywords)
        if "zero_at_prediction" not in cls.__dict__:
            cls.zero_at_prediction = False
        if "energy" in cls.__dict__ and "error" not in cls.__dict__:
            cls.error = Energy.error  # type: ignore[method-assign]

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        """Return the energy per sample.

        Parameters
        ----------
        h, mu : Tensor, shape (batch, *shape)

        Returns
        -------
        Tensor, shape (batch,)
        """
        raise TypeError(f"{type(self).__name__} must define energy(h, mu) -> (batch,)")

    def require_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse a node of a shape, without the batch, that the energy is not for; the default takes every one.

        Raises
        ------
        GraphError
        """

    def per_sample(self, h: Tensor, mu: Tensor) -> Tensor:
        """Return :meth:`energy`, after a look at its shape.

        Raises
        ------
        GraphError
            It is not (batch,).
        """
        value = self.energy(h, mu)
        if not isinstance(value, Tensor) or value.shape != h.shape[:1]:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise GraphError(
                f"{type(self).__name__}.energy must return one number for each sample, shape {tuple(h.shape[:1])} "
                f"(found {found}); sum over the neurons and not over the batch, as in x.flatten(1).sum(1)",
                found=found,
            )
        return value

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(dE/dh, -dE/dmu)``, each of shape (batch, *shape). The default takes them by autograd."""
        with torch.enable_grad():
            h, mu = h.detach().requires_grad_(), mu.detach().requires_grad_()
            total = self.per_sample(h, mu).sum()
            grads: Any = (None, None)
            if total.requires_grad:
                grads = torch.autograd.grad(total, (h, mu), allow_unused=True)
        dh, dmu = grads
        return (
            torch.zeros_like(h) if dh is None else dh,
            torch.zeros_like(mu) if dmu is None else -dmu,
        )


def positive(value: Any, what: str) -> float:
    """Return `value` as a float.

    Raises
    ------
    GraphError
        It is no positive, finite number; `what` it stands for is named.
    """
    return require_number(value, f"a {what}", above=0, refuse=lambda text: GraphError(text, found=value))
