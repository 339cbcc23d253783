"""The edges and nodes of a network can be taken in the hand one at a time, although their parameters lie packed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from pcgraph.arguments import require_count, require_instance
from pcgraph.network.carrying import Carried, carry
from pcgraph.network.groups import parameter_groups
from pcgraph.network.handles import EdgeHandle, NodeHandle
from pcgraph.network.network import Network
from pcgraph.network.summary import Summary, summarize

__all__ = ["HandledNetwork"]

Node = Hashable


class HandledNetwork(Network):
    """A network of which single edges and nodes are asked for, frozen, drawn anew, and learn at rates of their own.

    Parameters
    ----------
    graph, seed, dtype, device
        As for :class:`Network`.
    """

    def edge(self, u: Node, v: Node, key: Hashable | None = None, *, slot: str | None = None) -> EdgeHandle:
        """Return one edge, to read it, to freeze it, to draw it anew, or to give it settings of an optimizer.

        Of a network that is cut over ranks, all of them call for it, to freeze it, say, and the rank does it that holds
        the edge; on the others the handle says what was declared, and asked for a weight, who has it (ConfigError).

        Parameters
        ----------
        u, v, key, slot
            As for :meth:`weight`.

        Raises
        ------
        GraphError
            There is no such edge, or several parallel ones and nothing tells which.

        Examples
        --------
        >>> import pcgraph
        >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3, 2]))
        >>> net.edge("x", "h1").weight.shape, net.edge("x", "h1").count
        (torch.Size([3, 4]), 12)
        """
        return EdgeHandle(self, self.structure.edge_number(u, v, key, slot))

    def node(self, v: Node, *, slot: str | None = None) -> NodeHandle:
        """Return one node, or a slot of it: its bias, and what its energy and its combine learn.

        Parameters
        ----------
        v, slot
            As for :meth:`bias`.

        Raises
        ------
        GraphError
            There is no such node or slot.
        """
        return NodeHandle(self, self.structure.require_prediction(v, slot))

    def edges(self) -> tuple[EdgeHandle, ...]:
        """Return all edges, in the order in which they were declared, those of other ranks too."""
        return tuple(EdgeHandle(self, i) for i in self.structure.declared_edges)

    def nodes(self) -> tuple[NodeHandle, ...]:
        """Return all nodes, in the order in which they were declared, and then their slots."""
        s = self.structure
        return tuple(NodeHandle(self, i) for i in (*(s.number[v] for v in self.graph), *s.slots.values()))

    def parameter_groups(
        self, settings: Mapping[Any, Mapping[str, Any]] | None = None, *, separate: bool = False
    ) -> list[dict[str, Any]]:
        """Return all parameters in groups, for any optimizer of torch: edges and nodes with settings of their own.

        Where a packed tensor has rows of several groups, each group gets views of its rows
        (:class:`~pcgraph.network.ParameterView`), which the optimizer moves as tensors of their own: the rates, decays
        and momenta are exactly those of a network whose parameters lie apart.

        Parameters
        ----------
        settings : mapping, optional
            An edge ``(u, v)`` or ``(u, v, key)``, a node, a slot ``(node, slot)``, or a handle of one -> options of the
            optimizer, such as ``{"lr": 0.01, "weight_decay": 0.0}``. Those of a node are for its bias, and what its
            energy and its combine learn.
            Equal settings make one group; all that is not named comes last, with the optimizer's own. ``{}`` leaves an
            edge or a node there as well, as a piece of its own: of what is frozen and unfrozen on the way an optimizer
            then counts the steps exactly, as it does of what is frozen when the groups are made.
        separate : bool
            Whether every weight is a tensor of its own, (out, in), and every bias, (neurons,), as
            :class:`torch.optim.Muon` asks for, and whatever looks at a tensor as a whole. Then edges and nodes can be
            frozen and unfrozen on the way exactly as in a network whose parameters lie apart.

        Returns
        -------
        list of dict
            They hold all parameters once. Make them after the network was moved to its device. Ranks that share a
            network name the same edges and nodes, and have the same groups, each with the parameters that it holds.

        Raises
        ------
        GraphError
            A name is of no edge or node, or of one with nothing to learn; or two share a weight and differ.
        ConfigError
            The settings are none.

        Examples
        --------
        >>> import pcgraph, torch
        >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 4, 4]))
        >>> groups = net.parameter_groups({("x", "h1"): {"lr": 1e-3}})
        >>> [[tuple(p.shape) for p in group["params"]] for group in groups]
        [[(1, 4, 4)], [(1, 4, 4), (2, 4)]]
        >>> optimizer = torch.optim.AdamW(groups, lr=1e-2)
        """
        return parameter_groups(self, settings, separate)

    def load_from(self, other: Network) -> Carried:
        """Take over the weights and biases of another network, wherever edges and nodes have the same names and shapes.

        The graph may have grown, or lost nodes: what has no counterpart stays as it was drawn, and the report says so.
        Modules of edges and parameters of energies and combines are taken over as well; what is frozen stays frozen.
        Edges that share a weight here take over what those of the other network share, and nothing where they differ.

        Parameters
        ----------
        other : PCNetwork
            Of any dtype, on any device. It is not changed. Where the network is cut over ranks, the other one is whole,
            or cut alike, and each rank takes over what it holds.

        Returns
        -------
        Carried
            What was taken over, and what was not, and why.

        Raises
        ------
        ConfigError
            It is no network; or other ranks hold of it what is to be taken over here. Nothing has been copied then.

        Examples
        --------
        >>> import pcgraph
        >>> small, large = (pcgraph.PCNetwork(pcgraph.graphs.chain(sizes)) for sizes in ([4, 3, 2], [4, 3, 3, 2]))
        >>> print(large.load_from(small))
        carried: the weights of 1 edges and the biases of 2 nodes
        new here, left as drawn: ('h1', 'h2'), ('h2', 'y'), 'h2'
        without a place here: ('h1', 'y')
        """
        return carry(self, require_instance(other, "other", Network, "pcgraph.PCNetwork(graph)"))

    def summary(self, *, most: int = 60) -> Summary:
        """Describe every node and every edge in a line: what it computes, its parameters, and what is frozen.

        Of a network that is cut over ranks, it describes what this rank holds, and asks no other.

        Parameters
        ----------
        most : int
            So many nodes and edges at most; of a graph of single neurons nobody reads all.

        Returns
        -------
        Summary
            Print it.

        Examples
        --------
        >>> import pcgraph
        >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([4, 3, 2], activation="tanh"))
        >>> net.edge("x", "h1").freeze()
        >>> print(net.summary())
        node  shape  activation  energy    parameters
        -----------------------------------------------
        'x'   4
        'h1'  3      tanh        Gaussian  3
        'y'   2      identity    Gaussian  2
        <BLANKLINE>
        edge         transform  activation  weight  parameters
        --------------------------------------------------------------
        'x' -> 'h1'  Linear                 3x4     12          frozen
        'h1' -> 'y'  Linear                 2x3     6
        <BLANKLINE>
        23 parameters, of which 11 learn
        """
        return summarize(self, require_count(most, "most", least=1))
