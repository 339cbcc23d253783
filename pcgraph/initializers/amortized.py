"""Hybrid predictive coding starts from a learned guess: a feed-forward net that inference itself teaches.

    h_v(0) = f_v(h_s(0))                                   s: the node before v on the way from what is given
    L      = sum_v 1/2 ||f_v(h_s(T)) - h_v(T)||^2          averaged over the batch, at the states that inference found

The net goes the other way than a generative network predicts, from the data to their causes. Each map learns from the
two states at its ends and nothing else, as the edges of the network do (Tschantz et al. 2023, Eq 8 and 9); where an end
is clamped its state is the clamp, so that labels teach the map that ends at them. Where the guess is good, few
inference steps are left to do.

A. Tschantz, B. Millidge, A. K. Seth, C. L. Buckley, "Hybrid predictive coding: Inferring, fast and slow", PLOS
Computational Biology, 2023.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from pcgraph import activations, transforms
from pcgraph.arguments import require_instance, require_seed, shown
from pcgraph.errors import ConfigError, GraphError
from pcgraph.initializers.base import Block, Context, Given, Initializer, Layout
from pcgraph.initializers.basic import Zero
from pcgraph.network import Network
from pcgraph.network.trial import Trial
from pcgraph.topology import Report, Verdict
from pcgraph.topology.witness import Clamped
from pcgraph.transforms.base import uniform_

__all__ = ["Amortized"]

Node = Hashable


class Amortized(Initializer):
    """Starts every node at what a feed-forward net, which it trains, makes of one clamped node.

    The way to each node is the shortest one from `given` along edges of main predictions, whichever way they point.
    Nodes to which there is none start at zero. A node on the way that is clamped stands for itself, and is what the map
    to it learns.

    Parameters
    ----------
    net : Network
        Its shapes, dtype and device are taken; the maps' parameters must exist before the optimizer does.
    given : node
        What is known of every sample.
    modules : mapping, optional
        Node -> nn.Module, the map to it from the state of the node before it, (batch, *shape) to (batch, *shape). The
        others are ``W act(h) + b``, where `given` is taken as it is.
    activation : str or callable
        Of these others.
    seed : int
        It draws W and b as ``nn.Linear`` does; torch's global generator is neither read nor moved.

    Attributes
    ----------
    nodes : tuple
        The nodes that have a map, the nearest first.
    source : dict
        Node -> the node before it.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.decoder([2, 4, 6]))
    >>> pcgraph.Amortized(net, given="x").nodes
    ('h1', 'h0')
    """

    across = "nodes"

    def __init__(
        self, net: Network, given: Node, *, modules: Mapping[Node, nn.Module] | None = None,
        activation: str | Callable[[Tensor], Tensor] = "tanh", seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        require_instance(net, "net", Network, "pcgraph.PCNetwork(graph)")
        net.structure.require_node(given)
        self.given = given
        self.source = _ways(net, given)
        self.nodes = tuple(self.source)
        own = _checked(net, self.source, modules)
        sigma, generator = activations.get(activation), torch.Generator().manual_seed(require_seed(seed))
        identity, like = activations.get(None), torch.empty(0, dtype=net.dtype, device=net.device)
        Trial(like).activation("Amortized(activation=)", None, sigma, net.structure.shape(given))
        self._activation = sigma.label
        self.maps = nn.ModuleList()
        for node, source in self.source.items():
            shapes = net.structure.shape(source), net.structure.shape(node)
            made = own.get(node) or _Map(*shapes, identity if source == given else sigma, generator)
            self.maps.append(made.to(dtype=net.dtype, device=net.device))
        #: In a list, since a module assigned to a module becomes a part of it.
        self._rest = [Zero()]

    def extra_repr(self) -> str:
        return f"given={self.given!r}"

    @property
    def products(self) -> int:  # type: ignore[override]
        """The longest way has so many maps."""
        far: dict[Node, int] = {self.given: 0}
        for node, source in self.source.items():
            far[node] = far[source] + 1
        return max(far.values())

    def requirement(self, report: Report) -> Verdict:
        if self.given in report.clamped - report.partial:
            reason = "holds on any graph where what it starts from is clamped"
            return Verdict(True, reason, Clamped(self.given), "", "Amortized(…)")
        return Verdict(
            False, f"needs a clamp on {self.given!r}, from which it starts (found none, or a partial one)", None,
            f"Clamp {self.given!r}, or start from another node: Amortized(net, given=...).", "Amortized(…)",
        )  # fmt: skip

    def layout(self, report: Report, context: Context | None = None) -> Layout:
        mine = tuple(v for v in report.free if v in self.source)
        rest = tuple(v for v in report.free if v not in self.source)
        return Layout((Given(self._rest[0], rest), Given(self, mine)))

    def map_to(self, node: Node) -> nn.Module:
        """Return the map that ends at `node`.

        Raises
        ------
        ConfigError
            It has none.
        """
        if node not in self.source:
            raise ConfigError(f"Amortized has a map to {list(self.nodes)} (found {shown(node)})", key="node")
        return self.maps[self.nodes.index(node)]

    def guess(self, node: Node, known: Mapping[Node, Tensor]) -> Tensor:
        """Return where `node` starts, given `known` values, (batch, *shape); differentiable."""
        waiting: list[Node] = []
        while node not in known:
            waiting.append(node)
            node = self.source[node]
        state = known[node]
        for v in reversed(waiting):
            state = cast(Tensor, self.map_to(v)(state))
        return state

    @torch.no_grad()
    def init(self, block: Block, out: Tensor, context: Context) -> None:
        start = context.clamps[self.given]
        weight = next(self.maps.parameters(), start)
        if (weight.dtype, weight.device) != (start.dtype, start.device):
            raise ConfigError(
                f"Amortized is in {weight.dtype} on {weight.device}, and the network in {start.dtype} on "
                f"{start.device}: move it along, by init.to(net.device, net.dtype)",
                key="init",
            )
        for k, node in enumerate(block.nodes):
            found = self.guess(node, context.clamps)
            if found.shape != out[k].shape:
                raise ConfigError(
                    f"Amortized(net) belongs to another network: the shape of {node!r} was different there; give each "
                    "network one of its own",
                    key="init",
                )
            out[k].copy_(found)

    def loss(self, states: Mapping[Node, Tensor], nodes: tuple[Node, ...]) -> Tensor:
        """Return L over `nodes`, averaged over the batch; `states` holds these nodes and those before them."""
        total: Tensor = states[self.given].new_zeros(())
        for v in nodes:
            apart = self.map_to(v)(states[self.source[v]]) - states[v]
            total = total + 0.5 * apart.square().sum() / len(apart)
        return total

    def observe(self, result: Any) -> None:
        """Add the gradient of L to ``.grad`` of the maps' parameters."""
        known = result.clamped_values
        states = {**known, **result.gathered(v for v in (self.given, *self.nodes) if v not in known)}
        result.learn_from(self.loss(states, self.nodes), self.maps.parameters())

    def keeps(self) -> tuple[Hashable, ...]:
        """Name where each map leads from and to, in the order of the maps, and what is done between two of them."""
        return (self.given, *self.source.items(), self._activation)


class _Map(nn.Module):
    """This map is ``W act(h) + b``."""

    def __init__(
        self, source: tuple[int, ...], target: tuple[int, ...], activation: Any, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.activation, self.shape = activation, target
        size = math.prod(source)
        self.weight = nn.Parameter(torch.empty(math.prod(target), size, device="cpu"))
        self.bias = nn.Parameter(torch.empty(math.prod(target), device="cpu"))
        for parameter in (self.weight, self.bias):
            uniform_(parameter, size**-0.5, generator)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.activation(x).flatten(1), self.weight, self.bias).view(-1, *self.shape)


def _ways(net: Network, given: Node) -> dict[Node, Node]:
    """Find the node before each on the shortest way from `given`, the nearest first."""
    s = net.structure
    found: dict[Node, Node] = {}
    seen, waiting = {given}, deque([given])
    while waiting:
        u = waiting.popleft()
        i = s.number[u]
        near = [*s.source[s.by_target.at(i)].tolist(), *s.target[s.by_source.at(i)].tolist()]
        for v in (s.nodes[k] for k in sorted(near) if k < len(s.declared)):
            if v not in seen:
                seen.add(v)
                found[v] = u
                waiting.append(v)
    return found


def _checked(net: Network, source: Mapping[Node, Node], modules: Any) -> dict[Node, nn.Module]:
    """Look at the maps that are given: each leads from the shape of the node before to that of its node."""
    if modules is None:
        return {}
    if not isinstance(modules, Mapping):
        raise ConfigError(f"modules= is a mapping from a node to a module (found {shown(modules)})", key="modules")
    for node, module in modules.items():
        net.structure.require_node(node)
        if node not in source:
            raise ConfigError(f"modules= names {node!r}, to which no way leads from what is given", key="modules")
        require_instance(module, f"the map to {node!r}", nn.Module, "torch.nn.Linear(4, 3)")
        shape, before = net.structure.shape(node), net.structure.shape(source[node])
        try:
            leads = transforms.get(module).fits(before, shape)
        except GraphError as error:
            raise ConfigError(f"modules= has for {node!r}: {error}", key="modules") from error
        if leads is not None:
            raise ConfigError(
                f"the map to {node!r} must lead from the shape {before} of {source[node]!r} to {shape} (found {leads})",
                key="modules",
            )
    return dict(modules)
