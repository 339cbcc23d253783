"""A sweep whose predictions are differentiated one by one, each where its node is computed.

With autograd from the states of a node's parents to its prediction and no further, a rule decides itself what goes back
from node to node; and on a network that is cut over ranks, what goes back to a node is added up where it lies.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import torch
from torch import Tensor

from pcgraph.model import PCNetwork
from pcgraph.topology import check

__all__ = ["Swept"]

Node = Hashable


class Swept:
    """Predictions as a sweep from `inputs` leaves them.

    Parameters
    ----------
    net : PCNetwork
    inputs : mapping
        Node -> (batch, *shape); a sweep leads from them to all others.
    batch : int

    Attributes
    ----------
    levels : list of list of nodes
        All nodes but the inputs: each level reads inputs and earlier levels.
    leaves : dict
        Node -> its state, which asks for a gradient, of the nodes that are computed or read here; of inputs the value.
    mu : dict
        Node -> its prediction, with a graph from the leaves of its parents, of the nodes that are computed here.
    """

    def __init__(self, net: PCNetwork, inputs: Mapping[Node, Tensor], batch: int) -> None:
        self.net, self.batch = net, batch
        report = check(net.graph, inputs, repair=False)
        by_depth: dict[float, list[Node]] = {}
        for v in report.order or ():
            if v not in inputs:
                by_depth.setdefault(report.depth[v], []).append(v)
        self.levels = [by_depth[depth] for depth in sorted(by_depth)]
        self.leaves: dict[Node, Tensor] = dict(inputs)
        self.mu: dict[Node, Tensor] = {}
        with torch.enable_grad():
            for level in self.levels:
                for v in filter(net.holds, level):
                    self.mu[v] = net.differentiable_prediction(v, self.leaves)
                    self.leaves[v] = self.mu[v].detach().requires_grad_()
                read = net.spread(self.leaves, level, batch)
                self.leaves.update({v: state.requires_grad_() for v, state in read.items()})

    def back(self, sent: Mapping[Node, Tensor], nodes: Iterable[Node]) -> dict[Node, Tensor]:
        """Return what comes back to own ones of `nodes`, given what is sent into the predictions of own nodes."""
        wanted = [v for v in nodes if v in self.leaves]
        reached = [v for v in sent if self.mu[v].requires_grad]
        found: dict[Node, Tensor] = {}
        if wanted and reached:
            grads = torch.autograd.grad(
                [self.mu[v] for v in reached], [self.leaves[v] for v in wanted], [sent[v] for v in reached],
                retain_graph=True, allow_unused=True, materialize_grads=True,
            )  # fmt: skip
            found = dict(zip(wanted, grads))
        return self.net.collect(found, nodes, self.batch)

    def backpropagate(self, loss: Tensor) -> None:
        """Add the gradients of a loss of own leaves to those of all parameters that lead to it.

        Parameters
        ----------
        loss : Tensor, scalar
            The loss of the network is the sum of it over the ranks.
        """
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        for level in reversed(self.levels):
            grads = {v: self.leaves[v].grad for v in level if v in self.leaves}
            found = self.net.collect({v: g for v, g in grads.items() if g is not None}, level, self.batch)
            reached = [v for v in found if self.mu[v].requires_grad]
            if reached:
                torch.autograd.backward([self.mu[v] for v in reached], [found[v] for v in reached])
