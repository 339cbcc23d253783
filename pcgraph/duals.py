"""Dual variables beside the states make of predictions constraints (PC-ALM, arXiv 2605.31022).

Inference then looks for states with ``h_v = mu_v`` that make the energies of the clamped nodes small, by descent on
the augmented Lagrangian for the states and ascent for the duals, both local:

    L        = F + sum over v of <lambda_v, h_v - mu_v>       v free and predicted by other nodes
    h_v      moves down dL/dh_v                               as ever, with lambda_v added to the error e_v
    lambda_v <- lambda_v + rate * (h_v - mu_v)                at the new states

The weights learn from dL. Where states and duals have settled, lambda_v is what backpropagation sends to v, and on
cycles what recurrent backpropagation does, so that a signal does not shrink from node to node as an error does.
"""

from __future__ import annotations

from pcgraph.arguments import require_number

__all__ = ["Duals"]


class Duals:
    """Duals let predictions be met and not only approached: ``net.infer(..., duals=Duals(rate=0.3))``.

    Every free node with a main prediction has one, of the shape of its state. Clamped nodes, slots and priors keep
    their energies, as costs; of a partly clamped node the free neurons have a dual. The precision of a node is the
    weight of its penalty, the rho of the augmented Lagrangian.

    Parameters
    ----------
    rate : float
        Of the duals, positive. Deeper networks need a larger one, so that the signal does not underflow on its way:
        where (precision + rate) times the rate of the states is 1, a node sends on in its first step what has arrived.
    stop : float, optional
        A node of a sample stops, state and dual, for the rest of the run once ``||h - mu|| <= stop * ||lambda||``, and
        ``||lambda||`` is above the rounding of the state.
        Products that serve nodes alone that have stopped for every sample are left out. It needs the host in every
        step. None: no node stops.

    Notes
    -----
    On a cycle the constraints need not have a solution: then duals grow without end. ``tolerance=`` counts residuals as
    gradients, so that ``result.converged`` tells. Large duals of strongly curved predictions need a larger precision,
    or states and duals swing. Energies in results are those of F, without the duals.

    Examples
    --------
    >>> import torch, pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 4, 2]), dtype=torch.float64)
    >>> clamps = {"x": torch.ones(1, 3).double(), "y": torch.ones(1, 2).double()}
    >>> kw = {"init": pcgraph.Forward(), "steps": 800, "optimizer": pcgraph.SGD(lr=0.2)}
    >>> result = net.infer(clamps, duals=Duals(rate=0.2), **kw)
    >>> result.backward()
    >>> local = [p.grad.clone() for p in net.parameters()]
    >>> net.zero_grad()
    >>> loss = pcgraph.learning.backprop(net, {"x": clamps["x"]}, {"y": clamps["y"]})
    >>> all(torch.allclose(one, p.grad, atol=1e-6) for one, p in zip(local, net.parameters()))
    True
    """

    def __init__(self, rate: float, stop: float | None = None) -> None:
        self.rate = require_number(rate, "rate", above=0)
        self.stop = None if stop is None else require_number(stop, "stop", above=0)

    def __repr__(self) -> str:
        return f"Duals(rate={self.rate:g}{'' if self.stop is None else f', stop={self.stop:g}'})"
