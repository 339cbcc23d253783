"""Inference moves either states or errors.

In error coordinates (Goemaere et al., arXiv 2505.20137) the variables are ``eps_v = h_v - mu_v`` instead of ``h_v``:

    h_v = mu_v(h_pa(v)) + eps_v              along an order of the free nodes
    dE/deps_v = dE_v/dh_v + what comes back to v through all nodes after it, to the first one

The energy is the same function of the states, so that its minima are the same, and so are the weight gradients at a
given state. One step carries an error through the whole depth, where moving states carries it over one edge.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Literal

from pcgraph.arguments import read_names, shown
from pcgraph.errors import ConfigError
from pcgraph.topology import ErrorCoordinates, Report

__all__ = ["Errors"]

Node = Hashable


class Errors:
    """These coordinates let inference move errors instead of states: ``net.infer(..., coordinates=Errors())``.

    Parameters
    ----------
    keep : iterable of nodes, or "repair"
        Nodes of which the state is moved nevertheless. On a graph with cycles of free nodes one of each is needed;
        "repair" takes as few as a search finds (``pcgraph.check(...).repair``).

    Notes
    -----
    Free roots, which have no prediction, are moved by their states in any case. Where no order exists the coordinates
    are refused, with the cycle, before anything runs.

    Examples
    --------
    >>> import torch, pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 4, 2]))
    >>> clamps = {"x": torch.ones(1, 3), "y": torch.ones(1, 2)}
    >>> kw = {"init": pcgraph.Forward(), "steps": 1, "optimizer": pcgraph.SGD(lr=0.1)}
    >>> net.infer(clamps, **kw).errors["h1"].abs().max() > 0
    tensor(False)
    >>> net.infer(clamps, coordinates=pcgraph.Errors(), **kw).errors["h1"].abs().max() > 0
    tensor(True)
    """

    def __init__(self, keep: Iterable[Node] | Literal["repair"] = ()) -> None:
        if isinstance(keep, str):
            if keep != "repair":
                raise ConfigError(f"keep= is a collection of nodes or 'repair', as in keep={{{keep!r}}}", key="keep")
            self.keep: frozenset[Node] | Literal["repair"] = "repair"
        else:
            names = read_names(keep, "keep")
            try:
                self.keep = frozenset(names)
            except TypeError:  # a tuple with a list in it
                raise ConfigError(f"keep= names nodes (found {shown(names)})", key="keep") from None

    def kept(self, report: Report) -> frozenset[Node]:
        """Find the free nodes of which the state is moved.

        Raises
        ------
        InvalidInitializer
            Some free nodes depend on each other in a circle, and none of them is kept.
        ConfigError
            A node whose error would be moved is partly clamped.
        """
        verdict = report.error_coordinates(self.keep)
        verdict.require()
        witness = verdict.witness
        assert isinstance(witness, ErrorCoordinates)
        for node in witness.order:
            if node in report.partial:
                raise ConfigError(
                    f"{self!r} would move the error of {node!r}, some neurons of which are clamped: keep its state, as "
                    f"in Errors(keep={{{node!r}}})",
                    key="coordinates",
                )
        return witness.kept

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Errors) and other.keep == self.keep

    def __hash__(self) -> int:
        return hash((Errors, self.keep))

    def __repr__(self) -> str:
        keep = self.keep if isinstance(self.keep, str) else set(self.keep)
        return f"Errors(keep={keep!r})" if self.keep else "Errors()"
