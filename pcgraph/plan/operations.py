"""Plans are written in these operations, which speak of sets of nodes and edges, and of nothing else.

An operation says *what* is done, in canonical numbers of the structure. Where the numbers lie, how they are multiplied
and what is fused is a backend's to decide. The meaning of each, with h the states, y_e the product that edge e last
sent, a_v = b_v + sum of the y_e of all edges e into v, and g the gradient of the energy for the states:

    Write(source, nodes)      h_v is given by an initializer
    Propagate(edges, nodes)   y_e = f_e(phi_e(h_source)) anew for the edges; a_v of the nodes is then up to date
    Activate(nodes)           h_v = sigma_v(a_v)
    Compare(nodes)            mu_v = sigma_v(a_v), g_v = dE_v/dh_v, s_v = sigma_v'(a_v) * (-dE_v/dmu_v)
    Pull(edges)               g_source -= J_e^T s_target;  a node that was not compared begins with g_v = 0
    Move(nodes)               the state optimizer moves the variable of v along g_v, all nodes at once
    Learn(edges, nodes)       gradients of the weights of the edges and of the biases of the nodes

A slot is a node, and its tie an edge (``structure.is_tie``) on which two of them mean something else, since the slot
has the state of its node:

    Propagate, on a tie       h_slot = h_node; nothing is added to a_slot
    Pull, on a tie            g_node += g_slot

With dual variables (PC-ALM, arXiv 2605.31022) the free nodes that others predict have a lambda_v, zero at first:

    Shift(nodes)              lambda_v += rate * (h_v - mu_v); g_v += lambda_v, s_v += sigma_v'(a_v) * lambda_v

In error coordinates (Goemaere et al., arXiv 2505.20137) the variable of most free nodes is eps_v = h_v - mu_v:

    Measure(nodes)            eps_v = h_v - sigma_v(a_v): the variables begin at the initial states
    Offset(nodes)             h_v = sigma_v(a_v) + eps_v
    Relay(nodes)              s_v -= sigma_v'(a_v) * g_v: what comes back to a node goes on to its parents

Over several ranks (:class:`~pcgraph.network.Cut`) an edge is computed where its target is, so that a node may be read
on another rank than its own, by way of a ghost there:

    Exchange("state", …)      h of each ghost becomes that of its node
    Exchange("signal", …)     g_v gains what the edges of another rank have sent back to its ghost of v
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "NONE", "NOTHING", "Activate", "Compare", "Exchange", "Index", "Learn", "Measure", "Move", "Offset", "Operation",
    "Propagate", "Pull", "Relay", "Shift", "Write",
]  # fmt: skip

Index = NDArray[np.int64]
#: No nodes, or no edges.
NONE: Index = np.zeros(0, dtype=np.int64)
#: The source of a write that no initializer makes: a swept root without a prior, which nothing reads, is zero.
NOTHING = -1


@dataclass(frozen=True, eq=False)
class Write:
    """The states of `nodes` are given by the plan's initializer number `source`, or are zero for ``NOTHING``."""

    source: int
    nodes: Index


@dataclass(frozen=True, eq=False)
class Propagate:
    """The products of `edges` are computed anew; then all that comes into `nodes` is up to date.

    `nodes` holds every target of `edges`, and may hold nodes with a bias or a prior alone. An edge into one of them
    that is left out keeps the product that it has, which is zero if it never had one.
    """

    edges: Index
    nodes: Index


@dataclass(frozen=True, eq=False)
class Activate:
    """The states of `nodes` become their predictions: these nodes are swept."""

    nodes: Index


@dataclass(frozen=True, eq=False)
class Compare:
    """Predictions, errors and signals of `nodes` are computed."""

    nodes: Index


@dataclass(frozen=True, eq=False)
class Pull:
    """Each of `edges` sends the signal of its target back into the gradient of its source."""

    edges: Index


@dataclass(frozen=True, eq=False)
class Move:
    """The states of `nodes` move along their gradients, all at once."""

    nodes: Index


@dataclass(frozen=True, eq=False)
class Learn:
    """The weights of `edges` and the biases of `nodes` get gradients at the present states and signals."""

    edges: Index
    nodes: Index


@dataclass(frozen=True, eq=False)
class Measure:
    """The errors of `nodes`, which are their variables from now on, are taken from their initial states."""

    nodes: Index


@dataclass(frozen=True, eq=False)
class Offset:
    """The states of `nodes` become their predictions plus their errors."""

    nodes: Index


@dataclass(frozen=True, eq=False)
class Relay:
    """The gradients of `nodes`, which are complete, are sent on: they depend on their parents by way of the states."""

    nodes: Index


@dataclass(frozen=True, eq=False)
class Shift:
    """The duals of `nodes` rise by their residuals, and are added to their errors."""

    nodes: Index


@dataclass(frozen=True, eq=False)
class Exchange:
    """What ranks need of each other is sent: states to those that read them, or what has come back to their owners.

    Attributes
    ----------
    kind : {"state", "signal"}
    nodes : ndarray of int64, shape (messages,)
        Sorted; one node goes to several ranks, or comes from several, in as many entries.
    sender, receiver : ndarray of int64, shape (messages,)
        Ranks. Of a state, the owner sends; of a signal, it receives.
    joint : bool
        Whether all ranks take part, though there may be nothing for this one: so it is in the plan of one rank.
    """

    kind: Literal["state", "signal"]
    nodes: Index
    sender: Index
    receiver: Index
    joint: bool = False

    @property
    def idle(self) -> bool:
        """Tell whether nothing is sent anywhere."""
        return not self.joint and not len(self.nodes)


Operation = Write | Propagate | Activate | Compare | Pull | Move | Learn | Measure | Offset | Relay | Shift | Exchange
