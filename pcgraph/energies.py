"""An energy says what the error of a node costs.

The energy of a network is the sum of its nodes' energies (paper, Eq 1, without the misprint in its index):
``F = sum_v E_v(h_v, mu_v)`` over the nodes that have a parent or a prior, per sample. The default is
``E = 1/2 * precision * ||h - mu||^2``.

An energy enters inference by two derivatives: ``dE/dh`` pulls the node's own state, ``-dE/dmu`` is the error
that it sends to its parents. For the Gaussian both are ``precision * (h - mu)``. Each energy here is a negative
log-likelihood of h under a distribution with the parameter mu, up to terms that depend on neither h, mu nor a
parameter.

An energy of your own takes one method:

>>> class Cosh(Energy):
...     def energy(self, h, mu):
...         return torch.log(torch.cosh(h - mu)).flatten(1).sum(1)
>>> Cosh().energy(torch.zeros(3, 2), torch.zeros(3, 2))
tensor([0., 0., 0.])

and is declared as ``graph.add_node("y", shape=10, energy=Cosh())``. With ``zero_at_prediction = True`` in its body
plans may skip nodes that are at their prediction, which is right for this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.arguments import require_number, require_room, require_shape, shown
from pcgraph.errors import GraphError
from pcgraph.registry import Registry, no_arguments

__all__ = [
    "ENERGIES",
    "Bernoulli",
    "CrossEntropy",
    "Energy",
    "Gaussian",
    "Laplace",
    "LearnedPrecision",
    "from_config",
    "get",
    "name_of",
]


class Energy(nn.Module):
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

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as data that JSON can hold.

        Raises
        ------
        GraphError
            The class takes arguments and does not define this method.
        """
        return no_arguments(self)


def positive(value: Any, what: str) -> float:
    """Return `value` as a float.

    Raises
    ------
    GraphError
        It is no positive, finite number; `what` it stands for is named.
    """
    return require_number(value, f"a {what}", above=0, refuse=lambda text: GraphError(text, found=value))


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

    def _logs(self, h: Tensor) -> Tensor:
        if self.shape is not None and h.shape[1:] != self.shape:
            raise GraphError(
                f"a precision by neuron of shape {self.shape} needs a node of that shape (found {tuple(h.shape[1:])})",
                found=tuple(h.shape[1:]),
            )
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


class CrossEntropy(Energy):
    """The output is a softmax: ``-sum_i h_i log softmax(mu)_i``; mu are logits, h is one-hot or holds probabilities.

    The softmax is over all neurons of the node. For clamped nodes, such as labels: in a *free* node h the energy is
    linear and has no minimum, and inference drives the state without bound. What the network predicts for the node are
    the logits.

    References
    ----------
    L. Pinchetti et al., "Predictive Coding beyond Gaussian Distributions", 2022.

    Examples
    --------
    >>> CrossEntropy().energy(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))  # log 2
    tensor([0.6931])
    """

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return -(h.flatten(1) * mu.flatten(1).log_softmax(1)).sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        logs = mu.flatten(1).log_softmax(1).view(mu.shape)
        total = h.flatten(1).sum(1).view(-1, *[1] * (h.dim() - 1))
        return -logs, h - total * logs.exp()


class Bernoulli(Energy):
    """Each neuron is a binary output: ``-sum_i [h_i log s(mu_i) + (1 - h_i) log(1 - s(mu_i))]``.

    s is the logistic function. mu are logits, h lies in [0, 1], as the pixels of an image do. Like
    :class:`CrossEntropy` it is linear in h, and meant for clamped nodes.

    Examples
    --------
    >>> Bernoulli().energy(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))  # 2 log 2
    tensor([1.3863])
    """

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return (torch.logaddexp(mu, torch.zeros_like(mu)) - h * mu).flatten(1).sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        return -mu, h - mu.sigmoid()


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


#: The energies that have a name. Add your own class, with a ``config()`` if it takes arguments, and graphs with it can
#: be saved.
ENERGIES: dict[str, type[Energy]] = {
    "gaussian": Gaussian,
    "learned_precision": LearnedPrecision,
    "cross_entropy": CrossEntropy,
    "bernoulli": Bernoulli,
    "laplace": Laplace,
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


def get(spec: str | Energy | None, precision: float | None = None) -> Energy:
    """Return the energy that `spec` names or is; None is the Gaussian, and ``(name, arguments)`` makes one.

    Raises
    ------
    GraphError
        The name is unknown, `spec` is no energy, or a `precision` stands beside an energy that has its own.
    """
    if spec is None or (isinstance(spec, str) and spec == "gaussian"):
        return Gaussian(1.0 if precision is None else precision)
    if precision is not None:
        raise GraphError(
            f"precision belongs to the Gaussian energy (found precision={shown(precision)} beside "
            f"energy={shown(spec)}); give the precision to the energy itself",
            found=precision,
        )
    return _REGISTRY.get(spec)
