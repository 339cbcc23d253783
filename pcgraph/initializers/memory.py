"""I_mem recalls where to start from what is observed, by modern Hopfield retrieval (paper, Section 4.2).

    h_l,i^(0) = softmax( beta (o_i Q_l + b_l) K_l^T ) V_l                                    (Eq 8; the paper's delta)
    L         = sum_l sum_i || softmax(...) V_l - h_l,i^(T) ||^2                             (Eq 9)

``o_i`` is the concatenation of all observed values of sample i. beta multiplies inside the softmax and there is no
1/sqrt(d). Several heads slice the embedding, and each head's softmax retrieves its slice of V. The loss is over free
nodes, with ``h^(T)`` detached, and averaged over the batch like every gradient of parameters here.

Before training ``V_l`` is fitted so that the memory starts where forward initialization would: the paper writes
``V_l = A_l^+ h_fw,l``; the plain pseudo-inverse explodes, since A is numerically rank-deficient at large beta, so that
the ridge regression ``min ||A V - h||^2 + ridge n ||V||^2`` is solved (n the batch size). A root has no forward value
and is fitted to a standard normal draw.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.arguments import (
    read_names,
    require_count,
    require_instance,
    require_number,
    require_room,
    require_seed,
    shown,
)
from pcgraph.errors import ConfigError
from pcgraph.initializers.base import Block, Context, Given, Initializer, Layout, Swept
from pcgraph.initializers.basic import Normal
from pcgraph.network import Network
from pcgraph.topology import Clamped, Report, Verdict

__all__ = ["Memory"]

Node = Hashable


class Memory(Initializer):
    """Recalls every node, or named ones, from an associative memory that the observed values read.

    Parameters
    ----------
    net : Network
        Its shapes, dtype and device are taken; the memory's parameters must exist before the optimizer does.
    nodes : iterable of nodes, optional
        Those that have a memory; the default is every node that is not observed.
    patterns : int
        Stored patterns a node (the paper's p).
    heads, embed_dim : int
        `embed_dim` must be divisible by `heads`.
    beta : float
        Inverse temperature, the paper's δ.
    observed : iterable of nodes, optional
        Clamped nodes that are read. The default is every root and every leaf of the graph that is not in `nodes`;
        edges that feed slots do not count.
    ridge : float
        Of the first fit, relative to the batch size.
    seed : int
        For Q, b, K; torch's global generator is neither read nor moved.
    """

    products = 3
    across = "nodes"

    def __init__(
        self, net: Network, nodes: Iterable[Node] | None = None, *, patterns: int = 24, heads: int = 16,
        embed_dim: int = 128, beta: float = 200.0, observed: Iterable[Node] | None = None, ridge: float = 1e-4,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        require_instance(net, "net", Network, "pcgraph.PCNetwork(graph)")
        patterns = require_count(patterns, "patterns", least=1)
        heads, embed_dim = require_count(heads, "heads", least=1), require_count(embed_dim, "embed_dim", least=1)
        if embed_dim % heads:
            raise ConfigError(f"embed_dim must be divisible by heads (found {embed_dim} and {heads})", key="embed_dim")
        self.heads = heads
        self.beta = require_number(beta, "beta", least=0)
        self.ridge = require_number(ridge, "ridge", above=0)
        seed = require_seed(seed)
        self._choose(net, nodes, observed)
        self._make(net, patterns, embed_dim, seed)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool, device=net.device))
        self._fitted = False
        self._start = Normal(seed=seed)
        self._pending: dict[str, Tensor] = {}
        self._attention_of: tuple[Any, Tensor] | None = None

    def _choose(self, net: Network, nodes: Iterable[Node] | None, observed: Iterable[Node] | None) -> None:
        graph, s = net.graph, net.structure
        named = None if nodes is None else _names(net, nodes, "nodes")
        if observed is None:
            ends = (v for v in graph if s.is_root[s.number[v]] or not s.feeds_main(s.number[v]))
            self.observed = tuple(v for v in ends if named is None or v not in named)
        else:
            self.observed = _names(net, observed, "observed")
        self.nodes = tuple(v for v in graph if v not in self.observed) if named is None else named
        if not self.nodes or not self.observed:
            raise ConfigError(
                f"Memory needs nodes to fill and nodes to observe (found {list(self.nodes)} and "
                f"{list(self.observed)}): "
                "name them, as in Memory(net, nodes=['h0'], observed=['x'])",
                key="nodes",
            )
        overlap = set(self.nodes) & set(self.observed)
        if overlap:
            raise ConfigError(f"Memory cannot both fill and observe {sorted(map(repr, overlap))}", key="observed")

    def _make(self, net: Network, patterns: int, embed_dim: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        width = sum(math.prod(net.structure.shape(v)) for v in self.observed)
        count = len(self.nodes)
        padded = [self._padded(math.prod(net.structure.shape(v))) for v in self.nodes]
        numbers = count * (width + 1 + patterns) * embed_dim + patterns * sum(padded)
        require_room(numbers * net.dtype.itemsize, f"a Memory of {patterns} patterns", "patterns", net.device)

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            draw = (2 * torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") - 1) * bound
            return nn.Parameter(draw.to(dtype=net.dtype, device=net.device))

        self.query = uniform(1 / math.sqrt(width), count, width, embed_dim)
        self.query_bias = uniform(1 / math.sqrt(width), count, 1, embed_dim)
        self.key = uniform(1 / math.sqrt(embed_dim), count, patterns, embed_dim)
        self.values = nn.ParameterList(nn.Parameter(self.key.new_zeros(patterns, size)) for size in padded)

    def _padded(self, size: int) -> int:
        """Round a size up so that every head's slice is equally wide."""
        return -(-size // self.heads) * self.heads

    # -- what it needs ------------------------------------------------------------------------------------------------

    def requirement(self, report: Report) -> Verdict:
        if report.a_clamp is None:
            return report.verdicts["memory"]
        known = report.clamped - report.partial
        for node in self.observed:
            if node not in known:
                return Verdict(
                    False,
                    f"needs a clamp on all that it observes (found none on {node!r})",
                    None,
                    f"Clamp {node!r}, or name what is observed: Memory(net, observed=[...]).",
                    "Memory(…)",
                )
        return Verdict(True, "holds on any graph with a clamped node", Clamped(self.observed[0]), "", "Memory(…)")

    def ready(self, context: Context | None) -> object:
        return "fitted" if self._fitted else "first"

    def layout(self, report: Report, context: Context | None = None) -> Layout:
        """Recall the nodes that have a memory; the others are swept after them, or drawn where no sweep reaches them.

        The first time, everything is swept before, since that is what the memory is fitted to.
        """
        own = set(self.nodes)
        mine = tuple(v for v in report.free if v in own)
        roots = tuple(report.free_roots)
        unknown = set(roots)
        after = report.sweep(initialised=(*mine, *roots))
        drawn = tuple(v for v in report.free if v not in own and (v in after.blocked or v in unknown))
        recall = (Given(self._start, drawn), Given(self, mine), Swept(after.order))
        if self._fitted:
            return Layout(recall)
        before = report.sweep(initialised=roots)
        begun = tuple(v for v in report.free if v in before.blocked or v in unknown)
        return Layout((Given(self._start, begun), Swept(before.order), *recall))

    # -- recall -------------------------------------------------------------------------------------------------------

    def _observations(self, clamps: Any) -> Tensor:
        observations = torch.cat([clamps[v].flatten(1) for v in self.observed], 1)
        if (observations.dtype, observations.device) != (self.query.dtype, self.query.device):
            raise ConfigError(
                f"Memory is in {self.query.dtype} on {self.query.device}, and the network in {observations.dtype} on "
                f"{observations.device}: move it along, by memory.to(net.device, net.dtype)",
                key="init",
            )
        self._of_this_network(self.observed[0], self.query.shape[1], observations.shape[1])
        return observations

    def _of_this_network(self, node: Node, made: int, found: int) -> None:
        if made != found:
            raise ConfigError(
                f"Memory(net) belongs to another network: the shape of {node!r} was different there; give each network "
                "a Memory of its own",
                key="init",
            )

    def attention(self, observations: Tensor) -> Tensor:
        """Compute the softmax of Eq 8, shape (nodes, batch, heads, patterns)."""
        query = torch.matmul(observations, self.query) + self.query_bias
        query = query.view(*query.shape[:2], self.heads, -1).transpose(1, 2)
        key = self.key.view(*self.key.shape[:2], self.heads, -1).permute(0, 2, 3, 1)
        return torch.softmax(self.beta * torch.matmul(query, key), -1).transpose(1, 2)

    def _read(self, attention: Tensor, values: Tensor, size: int) -> Tensor:
        """Retrieve the states of one node, shape (batch, size), by its attention (batch, heads, patterns)."""
        slices = values.view(values.shape[0], self.heads, -1).transpose(0, 1)
        return torch.matmul(attention.transpose(0, 1), slices).transpose(0, 1).flatten(1)[:, :size]

    @torch.no_grad()
    def init(self, block: Block, out: Tensor, context: Context) -> None:
        if self._attention_of is None or self._attention_of[0] is not context:
            self._attention_of = (context, self.attention(self._observations(context.clamps)))
        attention = self._attention_of[1]
        for k, node in enumerate(block.nodes):
            i = self.nodes.index(node)
            states = out[k].flatten(1)
            values = self.values[i]
            self._of_this_network(node, values.shape[1], self._padded(states.shape[1]))
            if not self._fitted:
                part, rows = context.part, (attention[i], states)
                values = self.fit(*(rows if part is None else map(part.join, rows)))
                values = self._pending[str(i)] = values if part is None else part.group.broadcast(values)
            out[k].copy_(self._read(attention[i], values, states.shape[1]).view(out[k].shape))

    def fit(self, attention: Tensor, states: Tensor) -> Tensor:
        """Fit one node's V to `states` (batch, size) by ridge regression, head by head, solved in float64.

        Parameters
        ----------
        attention : Tensor, shape (batch, heads, patterns)
        states : Tensor, shape (batch, size)

        Returns
        -------
        Tensor, shape (patterns, padded size)
        """
        size = states.shape[1]
        target = torch.zeros(states.shape[0], self._padded(size), dtype=torch.float64, device=states.device)
        target[:, :size] = states
        a = attention.transpose(0, 1).double()
        y = target.view(target.shape[0], self.heads, -1).transpose(0, 1)
        root = math.sqrt(self.ridge * states.shape[0])
        eye = torch.eye(a.shape[2], dtype=a.dtype, device=a.device).expand(self.heads, -1, -1)
        q, r = torch.linalg.qr(torch.cat([a, root * eye], 1))
        right = torch.matmul(q.transpose(1, 2), torch.cat([y, y.new_zeros(self.heads, a.shape[2], y.shape[2])], 1))
        solution: Tensor = torch.linalg.solve_triangular(r, right, upper=True)
        return solution.transpose(0, 1).flatten(1).to(states.dtype)

    # -- learning -----------------------------------------------------------------------------------------------------

    def loss(self, clamps: Any, targets: dict[Node, Tensor]) -> Tensor:
        """Compute Eq 9 over `targets`, averaged over the batch."""
        attention = self.attention(self._observations(clamps))
        total = attention.new_zeros(())
        for node, states in targets.items():
            i = self.nodes.index(node)
            read = self._read(attention[i], self.values[i], states[0].numel())
            total = total + (read - states.flatten(1)).square().sum()
        return total / attention.shape[1]

    def observe(self, result: Any) -> None:
        """Keep the first fit, and add the gradient of Eq 9 to ``.grad`` of the memory's parameters."""
        free = [v for v in self.nodes if v in result.free_nodes]
        if not self._fitted:
            self._keep_fit(result, free)
        targets = result.gathered(free)
        if not targets:
            return
        with torch.enable_grad():
            result.learn_from(self.loss(result.clamped_values, targets), self.parameters())

    @torch.no_grad()
    def _keep_fit(self, result: Any, free: list[Node]) -> None:
        """Take what was fitted to each node, wherever that is computed."""
        indices = {v: self.nodes.index(v) for v in free}
        fitted = {v: self._pending.get(str(i), self.values[i]) for v, i in indices.items()}
        shapes = {v: tuple(self.values[i].shape) for v, i in indices.items()}
        for v, values in result.gather(fitted, shapes).items():
            self.values[indices[v]].copy_(values)
        self._fitted = True
        self.fitted.fill_(True)  # type: ignore[operator]
        self._pending = {}

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._fitted = bool(self.fitted)

    def keeps(self) -> tuple[Hashable, ...]:
        """Name the nodes that have a memory and those that are read, in the order of its parameters."""
        return (self.nodes, self.observed)

    def parts(self) -> tuple[Initializer, ...]:
        return (self._start,)


def _names(net: Network, given: Any, key: str) -> tuple[Node, ...]:
    """Read names of nodes, or one that is a string, each once."""
    names = read_names(given, key)
    for node in names:
        net.structure.require_node(node)
    if len(set(names)) < len(names):
        raise ConfigError(f"{key} must name each node once (found {shown(names)})", key=key)
    return names
