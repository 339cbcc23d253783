"""An energy says what the error of a node costs.

The energy of a network is the sum of its nodes' energies (paper, Eq 1, without the misprint in its index):
``F = sum_v E_v(h_v, mu_v)`` over the nodes that have a parent or a prior, per sample. The default is
``E = 1/2 * precision * ||h - mu||^2``.

An energy enters inference by two derivatives: ``dE/dh`` pulls the node's own state, ``-dE/dmu`` is the error
that it sends to its parents. For the Gaussian both are ``precision * (h - mu)``. Each energy here is a negative
log-likelihood of h under a distribution with the parameter mu, up to terms that depend on neither h, mu nor a
parameter.

An energy of your own takes one method:

>>> import torch
>>> class Cosh(Energy):
...     def energy(self, h, mu):
...         return torch.log(torch.cosh(h - mu)).flatten(1).sum(1)
>>> Cosh().energy(torch.zeros(3, 2), torch.zeros(3, 2))
tensor([0., 0., 0.])

and is declared as ``graph.add_node("y", shape=10, energy=Cosh())``. With ``zero_at_prediction = True`` in its body
plans may skip nodes that are at their prediction, which is right for this one.
"""

from pcgraph.energies.base import Energy
from pcgraph.energies.continuous import DiagonalGaussian, Gaussian, Huber, Laplace, LearnedPrecision, StudentT, Zero
from pcgraph.energies.discrete import KL, Bernoulli, CrossEntropy, Poisson
from pcgraph.energies.registry import ENERGIES, from_config, get, name_of

__all__ = [
    "ENERGIES",
    "KL",
    "Bernoulli",
    "CrossEntropy",
    "DiagonalGaussian",
    "Energy",
    "Gaussian",
    "Huber",
    "Laplace",
    "LearnedPrecision",
    "Poisson",
    "StudentT",
    "Zero",
    "from_config",
    "get",
    "name_of",
]
