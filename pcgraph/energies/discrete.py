"""Classes, binary neurons and counts have energies of their own; predictions are logits or logarithms of rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import require_flag
from pcgraph.energies.base import Energy
from pcgraph.errors import GraphError

__all__ = ["KL", "Bernoulli", "CrossEntropy", "Poisson"]


class CrossEntropy(Energy):
    """The output is a softmax: ``-sum_i h_i log softmax(mu)_i``; mu are logits, h is one-hot or holds probabilities.

    The softmax is over all neurons of the node, or `by_row` over the last dimension. For clamped nodes, such as labels:
    in a *free* node h the energy is linear and has no minimum, and inference drives the state without bound. What the
    network predicts for the node are the logits.

    Parameters
    ----------
    by_row : bool
        Whether each row of (..., classes) is a softmax of its own, such as the places of a text.

    References
    ----------
    L. Pinchetti et al., "Predictive Coding beyond Gaussian Distributions", 2022.

    Examples
    --------
    >>> CrossEntropy().energy(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))  # log 2
    tensor([0.6931])
    """

    def __init__(self, by_row: bool = False) -> None:
        super().__init__()
        self.by_row = require_flag(by_row, "by_row", refuse=GraphError)

    def _rows(self, x: Tensor) -> Tensor:
        """View what has one softmax as the last of three dimensions: (batch, rows, classes)."""
        return x.flatten(1).unsqueeze(1) if not self.by_row else x.reshape(x.shape[0], -1, x.shape[-1])

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return -(self._rows(h) * self._rows(mu).log_softmax(2)).sum((1, 2))

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        logs, rows = self._rows(mu).log_softmax(2), self._rows(h)
        sent = rows - rows.sum(2, keepdim=True) * logs.exp()
        return -logs.view(mu.shape), sent.view(h.shape)

    def config(self) -> dict[str, Any]:
        return {"by_row": self.by_row}

    def extra_repr(self) -> str:
        return "by row" if self.by_row else ""


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


class KL(Energy):
    """Both ends are distributions, given by logits: ``KL(softmax(h) || softmax(mu))``, over all neurons of the node.

    It is for *free* nodes that hold a distribution, where :class:`CrossEntropy` has no minimum; an offset of all logits
    changes nothing. A node that is clamped to probabilities p wants :class:`CrossEntropy`, which differs from
    ``KL(p || softmax(mu))`` by what no prediction changes; clamped here are logits, such as ``p.log()``.

    References
    ----------
    L. Pinchetti et al., "Predictive Coding beyond Gaussian Distributions", 2022.

    Examples
    --------
    >>> KL().energy(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))  # log((1 + e) / 2) - 1/2
    tensor([0.1201])
    """

    zero_at_prediction = True

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        p, q = h.flatten(1).log_softmax(1), mu.flatten(1).log_softmax(1)
        return (p.exp() * (p - q)).sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        p, q = h.flatten(1).log_softmax(1), mu.flatten(1).log_softmax(1)
        shares, apart = p.exp(), p - q
        own = shares * (apart - (shares * apart).sum(1, keepdim=True))
        return own.view(h.shape), (shares - q.exp()).view(mu.shape)


class Poisson(Energy):
    """Each neuron is a count: ``sum_i [exp(mu_i) - h_i mu_i]``; mu are logarithms of rates, h the counts.

    The term ``log h!`` of the likelihood is left out, which no prediction changes (as ``torch.nn.PoissonNLLLoss``).
    Like :class:`CrossEntropy` it is linear in h, and meant for clamped nodes.

    Examples
    --------
    >>> Poisson().energy(torch.tensor([[2.0]]), torch.zeros(1, 1))
    tensor([1.])
    """

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        return (mu.exp() - h * mu).flatten(1).sum(1)

    def error(self, h: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
        return -mu, h - mu.exp()
