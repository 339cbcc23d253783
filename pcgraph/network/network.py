"""A network is a validated structure with its parameters.

The model, for a node v with parents u (paper, Definition 3.1 with one activation per node):

    a_v  = b_v + sum_u c_uv f_uv(phi_uv(h_u))         c_uv: the edge's scale
    mu_v = sigma_v(a_v)
    e_v  = h_v - mu_v
    F    = sum_{v in V_E} E_v(h_v, mu_v)         V_E: nodes with a parent, and roots with a prior

A node may have further predictions, slots, with an energy each: :mod:`pcgraph.network.slots`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Self, cast

import networkx as nx
import numpy as np
import torch
from torch import Tensor, nn

from pcgraph.arguments import require_seed
from pcgraph.energies import Energy, Gaussian
from pcgraph.errors import GraphError
from pcgraph.network.adjacency import Index
from pcgraph.network.copying import declared_graph, keep_computed, pairs_of
from pcgraph.network.declaration import show
from pcgraph.network.draws import draw_parameters
from pcgraph.network.loading import LoadedWhole
from pcgraph.network.machine import require_bytes, require_place, require_type
from pcgraph.network.packed import Mask, Packed, ParameterView, every_parameter
from pcgraph.network.parts import Bucket, Segment
from pcgraph.network.shareable import Shareable
from pcgraph.network.slots import MAIN, Slot, called
from pcgraph.network.structure import Structure
from pcgraph.transforms import Transform

__all__ = ["Network"]

Node = Hashable


class Network(Shareable, LoadedWhole):
    """A network holds structure and parameters; :class:`pcgraph.PCNetwork` adds how to run it.

    Parameters
    ----------
    graph : nx.DiGraph or nx.MultiDiGraph
        The declaration. It is copied and never changed.
    seed : int
        It draws the weights, on the CPU and in the order in which they lie in memory: the same declaration gets the
        same weights on every device. Nodes or edges *declared in another order* may lie in another order, and get
        other weights from the same seed. torch's global generator is neither read nor moved.
    dtype : torch.dtype, optional
        Parameters and states have it; torch's default dtype if None.
    device : torch.device or str, optional

    Raises
    ------
    GraphError
        The declaration is wrong; the message names the node or edge.
    ConfigError
        The seed is none, networks do not compute in the type, or the device cannot be used.
    OutOfMemory
        The weights alone are larger than the memory.
    """

    def __init__(
        self,
        graph: nx.DiGraph,
        *,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(graph, nx.DiGraph):
            Structure(graph)  # says what is wrong with it
        seed, like = require_seed(seed), require_place(dtype, device)
        pairs = pairs_of(graph)
        self.graph: nx.DiGraph = declared_graph(graph, {}, pairs)
        self.structure = Structure(self.graph, pairs, like)
        self._probe: Tensor
        self.bias_row: Index = np.full(len(self.structure.nodes), -1, dtype=np.int64)
        self._like = like
        with torch.device("cpu"):
            self._build(seed)
        self.to(dtype=like.dtype, device=like.device)

    def _build(self, seed: int) -> None:
        """Make all parameters, on the CPU, where the seed means the same for every device."""
        self._still: dict[str, tuple[dict[str, Mask], frozenset[int]]] = {}
        self.weights = Packed()
        self.biases = Packed()
        self.edge_modules = nn.ModuleDict()
        self.energies = nn.ModuleDict()
        self._require_memory()
        self._make_biases()
        for bucket in self.structure.buckets:
            if bucket.kind in ("linear", "sparse"):
                self._make_weight(bucket)
            elif bucket.kind in ("module", "joint"):
                self.edge_modules[bucket.name] = bucket.transform
        self._freeze_modules()
        for i, segment in enumerate(self.structure.segments):
            if segment.energy is not None and not segment.gaussian:
                self.energies[str(i)] = segment.energy
        self.register_buffer("_probe", torch.zeros((), device="cpu"), persistent=False)
        draw_parameters(self.structure, dict(self.weights.items()), dict(self.biases.items()), seed)

    def _hold_nothing(self) -> None:
        """Leave all parameters to another network, that of one rank's part."""
        self._still = {}
        self.weights, self.biases = Packed(), Packed()
        self.edge_modules, self.energies = nn.ModuleDict(), nn.ModuleDict()
        self.register_buffer("_probe", torch.zeros((), device="cpu"), persistent=False)

    # -- parameters -----------------------------------------------------------------------------------------------

    def _require_memory(self) -> None:
        groups = self.structure.groups
        weights = sum(
            bucket.rows * bucket.entries(groups) for bucket in self.structure.buckets if bucket.kind == "linear"
        )
        require_bytes(weights * torch.get_default_dtype().itemsize, f"{weights:.3g} weights")

    def _make_weight(self, bucket: Bucket) -> None:
        a, z = self.structure.groups[bucket.source_group], self.structure.groups[bucket.target_group]
        shape = (z.size, a.size) if bucket.kind == "linear" else (bucket.entries(self.structure.groups),)
        self.weights[bucket.name] = nn.Parameter(torch.empty(bucket.rows, *shape, device="cpu"), bucket.trainable)
        if not bucket.trainable:
            self.weights.fixed |= {bucket.name}

    def _freeze_modules(self) -> None:
        """Freeze the modules of edges declared ``trainable=False``; one that learns on another edge is refused."""
        modules = [bucket for bucket in self.structure.buckets if bucket.kind == "module"]
        learning = {id(p): bucket for bucket in modules if bucket.trainable for p in bucket.transform.parameters()}
        for bucket in modules:
            if bucket.trainable:
                continue
            other = next((learning[id(p)] for p in bucket.transform.parameters() if id(p) in learning), None)
            if other is not None:
                fixed, free = self.structure.edge(bucket.start), self.structure.edge(other.start)
                raise GraphError(
                    f"{show(fixed)} has trainable=False, but shares its module with {show(free)}, where it learns; "
                    "give each edge a module of its own, as in copy.deepcopy(module), or freeze both",
                    where=fixed,
                    found=bucket.transform,
                )
            bucket.transform.requires_grad_(False)

    def check_parameters(self) -> None:
        """Look whether every parameter that asks for a gradient will get one.

        Raises
        ------
        GraphError
            One was declared with ``trainable=False`` and was unfrozen since; or it has a hook, which only autograd
            would call.
        """
        for bucket in self.structure.buckets:
            if not bucket.learns and bucket.multiplies:
                packed = bucket.packed
                module_or_weight = self.edge_modules[bucket.name] if packed is None else self.weights[packed]
                own = [module_or_weight] if isinstance(module_or_weight, Tensor) else module_or_weight.parameters()
                if any(parameter.requires_grad for parameter in own):
                    where = self.structure.edge(bucket.start)
                    raise GraphError(
                        f"{show(where)} has trainable=False, and no gradient is computed for it, but the parameters of "
                        f"{bucket.name!r} were unfrozen; declare it trainable, and freeze it by requires_grad_(False) "
                        "for as long as it is to stay",
                        where=where,
                        found=bucket.name,
                    )
        for parameter in every_parameter(self):
            if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
                name = next(name for name, other in self.named_parameters() if other is parameter)
                raise GraphError(
                    f"the parameter {name!r} has a gradient hook, which would not be called: gradients here are local, "
                    "and not autograd's; change net.get_parameter(name).grad after backward()",
                    found=name,
                )

    def _make_biases(self) -> None:
        s = self.structure
        for name, nodes in s.bias_packs():
            self.bias_row[nodes] = np.arange(len(nodes))
            self.biases[name] = nn.Parameter(torch.empty(len(nodes), *s.bias_shape(int(nodes[0])), device="cpu"))

    @property
    def frozen_edges(self) -> frozenset[int]:
        """Return the canonical numbers of the edges whose rows of a packed weight are frozen."""
        return self._numbers("weights", self._edges_of)

    @property
    def frozen_biases(self) -> frozenset[int]:
        """Return the canonical numbers of the nodes whose rows of a packed bias are frozen."""
        return self._numbers("biases", self._nodes_of)

    def _numbers(self, which: str, read: Callable[[str, Mask], Index]) -> frozenset[int]:
        """Return the numbers of what is frozen; one object for as long as it is the same, since plans ask for it."""
        rows: dict[str, Mask] = getattr(self, which).frozen_rows
        kept = self._still.get(which)
        if kept is None or kept[0] is not rows:
            found = [read(name, mask) for name, mask in rows.items()]
            self._still[which] = kept = (rows, frozenset(i for numbers in found for i in numbers.tolist()))
        return kept[1]

    def _edges_of(self, name: str, mask: Mask) -> Index:
        found = [
            b.start + np.flatnonzero(mask if b.weight is None else mask[b.weight])
            for b in self.structure.buckets
            if b.packed == name
        ]
        return np.concatenate(found)

    def _nodes_of(self, name: str, mask: Mask) -> Index:
        own = next(nodes for other, nodes in self.structure.bias_packs() if other == name)
        return own[mask[self.bias_row[own]]]

    def energy_of(self, segment: int) -> Energy:
        """Return the energy of the nodes of a segment that is not Gaussian."""
        return self.energies[str(segment)]  # type: ignore[return-value]

    def node_energy(self, i: int) -> Energy:
        """Return the energy of the node with canonical number `i`."""
        own, i = self.node_here(i)
        return own._energy_at(i)

    def _energy_at(self, i: int) -> Energy:
        s = self.structure
        segment = self._segment_at(i)
        if not segment.gaussian:
            return self.energy_of(int(s.segment_of[i]))
        return Gaussian(1.0 if segment.precision is None else float(segment.precision[s.position[i] - segment.start]))

    def _segment_at(self, i: int) -> Segment:
        return self.structure.segments[int(self.structure.segment_of[i])]

    def differentiable_prediction(self, v: Node, states: Mapping[Node, Tensor]) -> Tensor:
        """Compute mu_v from its parents' states, with autograd through states and parameters, (batch, *shape).

        It is the main one of a node, or that of a (node, slot). Inference does not use it; rules and baselines do.
        """
        s = self.structure
        own, i = self.node_here(s.slots[v] if v in s.slots else s.require_node(v))
        if own is not self:
            return own.differentiable_prediction(v, states)
        total = self.constant_input(i).expand(next(iter(states.values())).shape[0], -1)
        if i in s.joint:
            total = total + self.joint_product(i, [states[s.nodes[int(s.source[e])]] for e in s.joint[i]])
        for e in s.by_target.at(i).tolist():
            if not s.is_tie[e] and i not in s.joint:
                total = total + self.edge_product(e, states[s.nodes[int(s.source[e])]])
        mu: Tensor = self._segment_at(i).activation(total.reshape(-1, *s.groups[int(s.group_of[i])].shape))
        return mu

    def constant_input(self, i: int) -> Tensor:
        """Return what comes into the node number `i` whatever its parents do: its bias or its prior, else zero.

        Returns
        -------
        Tensor, shape (neurons,)
            Differentiable for the bias.
        """
        s = self.structure
        if self.bias_row[i] >= 0:
            packed: Tensor = self.biases[s.bias_name(i)]
            bias = packed[int(self.bias_row[i])].expand(s.groups[int(s.group_of[i])].shape).flatten()
            return bias.detach() if i in self.frozen_biases else bias
        if i in s.priors:
            return s.priors[i].to(self._probe).flatten()
        return self._probe.new_zeros(s.groups[int(s.group_of[i])].size)

    def edge_product(self, e: int, x: Tensor) -> Tensor:
        """Compute what the edge number `e` adds to its target, differentiable in `x` and weights: c_e f_e(phi_e(x)).

        It is the definition of an edge, one at a time; backends compute the same for many at once. (A tie adds nothing:
        it hands `x` on as the state of its slot.)

        Parameters
        ----------
        e : int
            Canonical number of the edge.
        x : Tensor, shape (batch, *shape)
            The states of its source.

        Returns
        -------
        Tensor, shape (batch, neurons of the target)
        """
        bucket = self.structure.buckets[int(self.structure.bucket_of[e])]
        if bucket.kind == "joint":
            where = self.structure.edge(e)
            raise GraphError(f"{show(where)} adds nothing alone: its target combines all it gets", where=where)
        product = self._product(bucket, e, bucket.phi(x))
        return product if bucket.scale == 1.0 else bucket.scale * product

    def joint_product(self, i: int, states: Sequence[Tensor]) -> Tensor:
        """Compute what comes into the node number `i`, which has a combine, differentiable in states and parameters.

        Parameters
        ----------
        i : int
            Canonical number of a node in ``structure.joint``.
        states : sequence of Tensor, each (batch, *shape)
            Of the sources of the edges ``structure.joint[i]``, in their order.

        Returns
        -------
        Tensor, shape (batch, neurons of the node)
        """
        return self.structure.joint_prediction(i).of(states).flatten(1)

    def combine(self, v: Node) -> nn.Module:
        """Return the module that makes one prediction of the parents of `v`.

        Raises
        ------
        GraphError
            The node has none.
        """
        i = self.structure.require_node(v)
        if i not in self.structure.joint:
            raise GraphError(f"node {v!r} has no combine: it is predicted by a sum over its edges", where=v)
        own, i = self.node_here(i)
        return own.structure.combine(i)

    def _product(self, bucket: Bucket, e: int, x: Tensor) -> Tensor:
        if bucket.kind in ("identity", "tie", "module"):
            module = self.edge_modules[bucket.name] if bucket.kind == "module" else bucket.transform
            return module(x).flatten(1)  # type: ignore[no-any-return]
        x, weight = x.flatten(1), self.weights[cast(str, bucket.packed)][bucket.row(e)]
        if e in self.frozen_edges:
            weight = weight.detach()
        if bucket.dense:
            return nn.functional.linear(x, weight.t() if bucket.kind == "transposed" else weight)
        source, target = bucket.pattern(self.structure.groups).to(x.device)
        out = x.new_zeros(x.shape[0], self.structure.groups[bucket.target_group].size)
        return out.index_add(1, target, x.index_select(1, source) * weight)

    def weight(
        self, u: Node, v: Node, key: Hashable | None = None, *, slot: str | None = None
    ) -> ParameterView:  # fmt: skip
        """Return the weight of an edge as a view, shape (neurons of v, neurons of u): read it, or write into it.

        An optimizer takes it as well: it has a ``grad``, and ``requires_grad_(False)`` freezes it.

        Of an edge with ``transpose=True`` it is a transposed view of the weight that it shares.
        Of a SparseLinear edge it holds the stored values, shape (entries,), in the order of its ``entries``. What the
        edge sends is its ``scale`` times the product with the weight.

        Parameters
        ----------
        u, v : node names
        key : hashable, optional
            Which of several parallel edges, as in ``nx.MultiDiGraph``.
        slot : str, optional
            Which prediction of `v` the edge feeds, where that tells parallel edges apart; "main" is the main one.

        Raises
        ------
        GraphError
            There is no such edge, or its transform has no single weight; :meth:`transform` gives that.

        Examples
        --------
        >>> import networkx as nx
        >>> import pcgraph
        >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 2]))
        >>> net.weight("x", "y").shape
        torch.Size([2, 3])
        """
        return self.edge_weight(self.structure.edge_number(u, v, key, slot))

    def edge_weight(self, i: int) -> ParameterView:
        """Return the weight of the edge with canonical number `i`, as :meth:`weight` does."""
        own, i = self.edge_here(i)
        bucket = own.structure.buckets[int(own.structure.bucket_of[i])]
        if bucket.packed is None:
            u, v = own.structure.edge(i)[:2]
            raise GraphError(
                f"the edge {u!r} -> {v!r} is a {type(bucket.transform).__name__}, which has no dense weight; "
                "net.transform(u, v) is the transform itself",
                where=(u, v),
            )
        row, shape = bucket.row(i), tuple(own.weights[bucket.packed].shape[1:])
        transposed = bucket.kind == "transposed"
        return own.weights.view(bucket.packed, slice(row, row + 1), shape[::-1] if transposed else shape, transposed)

    def bias(self, v: Node, *, slot: str | None = None) -> ParameterView:
        """Return the bias of node `v`, or of a slot of it, as a view; an optimizer takes it as well.

        It has the node's shape, or the one that was declared by ``bias=``.

        Raises
        ------
        GraphError
            The node is a root, or was declared with ``bias=False``.
        """
        i = self.structure.require_prediction(v, slot)
        if not self.structure.has_bias[i]:
            who = called(v if slot in (None, MAIN) else Slot(v, slot))
            raise GraphError(f"{who} has no bias: it is a root, or was declared with bias=False", where=v)
        own, i = self.node_here(i)
        name, row = own.structure.bias_name(i), int(own.bias_row[i])
        return own.biases.view(name, slice(row, row + 1), tuple(own.biases[name].shape[1:]))

    def bias_place(self, v: Node, slot: str | None = None) -> tuple[str, int] | None:
        """Return name and row of the packed bias of `v` in :attr:`own`, or of a slot of it; None if it has none."""
        i = self.structure.require_prediction(v, slot)
        if not self.structure.has_bias[i]:
            return None
        own, i = self.node_here(i)
        return own.structure.bias_name(i), int(own.bias_row[i])

    def transform(self, u: Node, v: Node, key: Hashable | None = None, *, slot: str | None = None) -> Transform:
        """Return the transform of the edge `u` -> `v`; `key` and `slot` as in :meth:`weight`."""
        own, i = self.edge_here(self.structure.edge_number(u, v, key, slot))
        return own.structure.transform(i)

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    def own(self) -> Network:
        """Hold the parameters: it is the network itself, or of one that is cut over ranks the part of this rank."""
        return self

    def edge_here(self, i: int) -> tuple[Network, int]:
        """Return who holds the parameters of the edge with canonical number `i`, :attr:`own`, and its number there.

        Raises
        ------
        ConfigError
            Another rank holds it.
        """
        return self, i

    def node_here(self, i: int) -> tuple[Network, int]:
        """Do the same for the node, or the slot, with canonical number `i`."""
        return self, i

    @property
    def dtype(self) -> torch.dtype:
        """The states have this type, and so have, as a rule, the parameters."""
        return self._probe.dtype

    @property
    def device(self) -> torch.device:
        """The parameters lie on this device."""
        return self._probe.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert all parameters and buffers, for ``to()`` and its like.

        Raises
        ------
        ConfigError
            Networks do not compute in the new type. Nothing has been converted then.
        """
        require_type(fn(self._probe).dtype)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        """Copy everything, a subclass's own attributes and modules too; arrays of the structure alone are shared.

        The constructor is not called, since a subclass may have another. What is made anew after unpickling is made
        anew here.
        """
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        keep_computed(self, memo)
        memo[id(self.graph)] = declared_graph(self.graph, memo)
        memo[id(self.structure)] = self.structure.with_modules_of(memo)
        state = self.__getstate__()  # type: ignore[no-untyped-call]
        own = {name: copy.deepcopy(value, memo) for name, value in state.items()}
        twin.__setstate__(own)  # type: ignore[no-untyped-call]
        return twin

    def extra_repr(self) -> str:
        s = self.structure
        slots = f", {len(s.slots)} slots" if s.slots else ""
        parameters = sum(p.numel() for p in self.parameters())
        return f"{len(s.declared)} nodes{slots}, {s.edge_count} edges, {parameters:,} parameters"
