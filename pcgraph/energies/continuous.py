"""States that may be any real number cost an energy by how far they lie from their prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.arguments import read_numbers, require_room, require_shape
from pcgraph.energies.base import Energy, positive
from pcgraph.errors import GraphError

__all__ = ["DiagonalGaussian", "Gaussian", "Huber", "Laplace", "LearnedPrecision", "StudentT", "Zero"]


class Gaussian(Energy):
    """The squared error counts: ``1/2 * precision * ||h - mu||^2`` (paper, Eq 1, where the precision is 1).

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
        self.precision = positive(precision, "precision")

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return 0.5 * self.precision * (h - mu).flatten(1).square().sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        e = (h - mu) * self.precision
        return e, e

    def config(self) -> dict[str, Any]:
        return {"precision": self.precision}

    def extra_repr(self) -> str:
        return f"precision={self.precision:g}"


class DiagonalGaussian(Energy):
    """The squared error of each neuron counts by a precision of its own: ``1/2 * sum_i p_i (h_i - mu_i)^2``.

    A node with ``precision=`` an array has this energy.

    Parameters
    ----------
    precision : Tensor, ndarray, list or number
        The inverse variances, positive; they broadcast to the node's shape, so that (C, 1, 1) is one for each channel.

    Attributes
    ----------
    precision : Tensor
        As it was given; a network brings it to its dtype and device.

    Examples
    --------
    >>> DiagonalGaussian([1.0, 4.0]).energy(torch.ones(1, 2), torch.zeros(1, 2))
    tensor([2.5000])
    """

    zero_at_prediction = True
    precision: Tensor

    def __init__(self, precision: Any = 1.0) -> None:
        super().__init__()
        read = read_numbers(
            precision, "a precision by neuron", dtype=torch.float64,
            refuse=lambda text: GraphError(text, found=precision),
        )  # fmt: skip
        read = read.detach().to("cpu", torch.float64).clone()
        if not read.numel() or not bool((torch.isfinite(read) & (read > 0)).all()):
            raise GraphError("a precision by neuron must be positive and finite in every neuron", found=precision)
        self._declared = read
        self.register_buffer("precision", read.clone(), persistent=False)

    def require_shape(self, shape: tuple[int, ...]) -> None:
        own = tuple(self._declared.shape)
        if len(own) > len(shape) or any(n not in (1, m) for n, m in zip(own[::-1], shape[::-1])):
            raise GraphError(
                f"a precision by neuron must broadcast to the node's shape {tuple(shape)} (found shape {own}); one for "
                "each channel has the shape (channels, 1, 1)",
                found=own,
            )

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return 0.5 * (self._error(h, mu) * (h - mu)).flatten(1).sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        e = self._error(h, mu)
        return e, e

    def _error(self, h: Tensor, mu: Tensor) -> Tensor:
        self.require_shape(tuple(h.shape[1:]))
        return (h - mu) * self.precision.to(h)

    def config(self) -> dict[str, Any]:
        return {"precision": self._declared.tolist()}

    def extra_repr(self) -> str:
        return f"by neuron, {tuple(self._declared.shape)}"


class LearnedPrecision(Energy):
    """A Gaussian learns its precision p: ``1/2 * sum_i p_i (h_i - mu_i)^2 - 1/2 * sum_i log p_i``.

    The second term, the log-determinant of the precision, makes it a proper negative log-likelihood: without it the
    precision would shrink to zero, since that lowers the energy. At the minimum over p it is the inverse of the mean
    squared error that inference leaves: states that have moved towards a target explain a part of the error away, and a
    deep network can make p grow beyond the precision of the data. Learned is ``log p``, so that p stays positive.

    A node at its prediction still has an energy and still teaches its precision, so ``zero_at_prediction`` is False.

    Parameters
    ----------
    precision : float
        To start from.
    shape : int or sequence of int, optional
        The node's shape, for a precision by neuron; None for one that all neurons share.

    Attributes
    ----------
    log_precision : Parameter, shape () or `shape`

    References
    ----------
    R. Bogacz, "A tutorial on the free-energy framework for modelling perception and learning", 2017.

    Examples
    --------
    >>> LearnedPrecision(4.0).energy(torch.ones(1, 3), torch.zeros(1, 3)).detach()  # 6 - 3/2 log 4
    tensor([3.9206])
    """

    def __init__(self, precision: float = 1.0, shape: int | Sequence[int] | None = None) -> None:
        super().__init__()
        self._initial = positive(precision, "precision")
        self.shape = None if shape is None else require_shape(shape, "shape", refuse=GraphError)
        require_room(4 * math.prod(self.shape or (1,)), "a precision by neuron", "shape", refuse=GraphError)
        self.log_precision = nn.Parameter(torch.full(self.shape or (), math.log(self._initial), device=None))

    @property
    def precision(self) -> Tensor:
        """The precision p is positive, of shape () or `shape`."""
        return self.log_precision.detach().exp()

    def require_shape(self, shape: tuple[int, ...]) -> None:
        if self.shape is not None and tuple(shape) != self.shape:
            raise GraphError(
                f"a precision by neuron of shape {self.shape} needs a node of that shape (found {tuple(shape)})",
                found=tuple(shape),
            )

    def _logs(self, h: Tensor) -> Tensor:
        self.require_shape(tuple(h.shape[1:]))
        return self.log_precision.expand(h.shape[1:])

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        logs = self._logs(h)
        return 0.5 * (logs.exp() * (h - mu).square() - logs).flatten(1).sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        e = (h - mu) * self._logs(h).detach().exp()
        return e, e

    def config(self) -> dict[str, Any]:
        return {"precision": self._initial, "shape": None if self.shape is None else list(self.shape)}

    def extra_repr(self) -> str:
        return "a scalar" if self.shape is None else f"by neuron, {self.shape}"


class Laplace(Energy):
    """``sum_i |h_i - mu_i| / scale``: every error counts by its sign alone, so that a few large ones do not dominate.

    At ``h == mu`` the derivative is taken as 0, the middle of its range, so that ``zero_at_prediction`` holds. A free
    state moved at a fixed rate does not come to rest: within one step of its prediction it goes back and forth.

    Parameters
    ----------
    scale : float
        The distribution's scale b, positive.

    Examples
    --------
    >>> Laplace().energy(torch.tensor([[1.0, -2.0]]), torch.zeros(1, 2))
    tensor([3.])
    """

    zero_at_prediction = True

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = positive(scale, "scale")

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return (h - mu).flatten(1).abs().sum(1) / self.scale

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        e = (h - mu).sign_().div_(self.scale)
        return e, e

    def config(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}"


class Huber(Energy):
    """Small errors count by their square, large ones by their size: ``sum_i huber(h_i - mu_i)``.

    ``huber(e)`` is ``e^2 / 2`` up to `delta`, and ``delta * (|e| - delta / 2)`` beyond it (as ``torch.nn.HuberLoss``):
    an outlier pulls by `delta` at most, and near the prediction it is the Gaussian.

    Parameters
    ----------
    delta : float
        Where the one becomes the other, positive.

    References
    ----------
    P. J. Huber, "Robust estimation of a location parameter", 1964.

    Examples
    --------
    >>> Huber().energy(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2))  # 1/8 + 5/2
    tensor([2.6250])
    """

    zero_at_prediction = True

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = positive(delta, "delta")

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        loss = nn.functional.huber_loss(h, mu, reduction="none", delta=self.delta)
        return loss.flatten(1).sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        e = (h - mu).clamp_(-self.delta, self.delta)
        return e, e

    def config(self) -> dict[str, Any]:
        return {"delta": self.delta}

    def extra_repr(self) -> str:
        return f"delta={self.delta:g}"


class StudentT(Energy):
    """Errors have heavy tails: ``(nu + 1) / 2 * sum_i log(1 + ((h_i - mu_i) / scale)^2 / nu)``.

    The pull of an error grows up to ``|e| = scale * sqrt(nu)`` and falls again beyond it, so that an outlier is let go.
    For a large `dof` it is the Gaussian of precision ``1 / scale^2``.

    Parameters
    ----------
    dof : float
        The degrees of freedom nu, positive.
    scale : float
        The distribution's scale, positive.

    Examples
    --------
    >>> StudentT(dof=1.0).energy(torch.tensor([[1.0]]), torch.zeros(1, 1))  # log 2
    tensor([0.6931])
    """

    zero_at_prediction = True

    def __init__(self, dof: float = 3.0, scale: float = 1.0) -> None:
        super().__init__()
        self.dof = positive(dof, "number of degrees of freedom")
        self.scale = positive(scale, "scale")

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        squares = ((h - mu) / self.scale).square() / self.dof
        return 0.5 * (self.dof + 1) * squares.log1p().flatten(1).sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        e = h - mu
        e = (self.dof + 1) * e / (self.dof * self.scale**2 + e.square())
        return e, e

    def config(self) -> dict[str, Any]:
        return {"dof": self.dof, "scale": self.scale}

    def extra_repr(self) -> str:
        return f"dof={self.dof:g}, scale={self.scale:g}"


class Zero(Energy):
    """The error of the node costs nothing: it is predicted, and neither pulls nor sends anything back.

    For a node that is only to be read, or that its slots alone are to hold.

    Examples
    --------
    >>> Zero().energy(torch.ones(1, 2), torch.zeros(1, 2))
    tensor([0.])
    """

    zero_at_prediction = True

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return h.new_zeros(h.shape[0])

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(h), torch.zeros_like(mu)
