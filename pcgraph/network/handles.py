"""A handle is one edge, or one prediction of a node, of a network whose parameters lie packed with those of others.

Of a network that is cut over ranks, every rank has handles of all edges and nodes, and each answers for what the rank
holds. What all ranks do with a handle, to freeze it, say, the rank does that holds it, and the others leave it to that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.activations import Activation
from pcgraph.arguments import require_seed, shown
from pcgraph.energies import Energy
from pcgraph.errors import GraphError, unknown_name
from pcgraph.network.declaration import show
from pcgraph.network.draws import fill_weight
from pcgraph.network.inits import INITS, Fill, Init, read_init
from pcgraph.network.network import Network
from pcgraph.network.packed import ParameterView
from pcgraph.network.parts import Bucket
from pcgraph.network.slots import MAIN, Slot, called
from pcgraph.transforms import Module, Transform

__all__ = ["EdgeHandle", "NodeHandle", "handles_of"]

#: The ways of drawing that make sense for a vector.
BIAS_INITS = ("kaiming_uniform", "normal", "zeros")


class _Handle(ABC):
    """Edges and nodes have this in common: parameters that are counted, frozen and drawn."""

    net: Network
    number: int

    def __init__(self, net: Network, number: int) -> None:
        self.net, self.number = net, number

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse what would be kept in the handle alone, and change nothing of the network."""
        if name not in ("net", "number"):
            raise AttributeError(
                f"a handle has no {name} to be set: write into its weight or bias, as in handle.weight.copy_(...), "
                "freeze() and unfreeze() it, and give settings of an optimizer by net.parameter_groups({...})"
            )
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, _Handle) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[int, int]:
        return id(self.net), self.number

    @property
    @abstractmethod
    def name(self) -> str:
        """Name it in words, as messages of the library do."""

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """Return all that it learns by, as tensors that an optimizer takes; none if it has nothing to learn."""

    @property
    @abstractmethod
    def home(self) -> Hashable:
        """Return the node where it is computed: an edge at its target, a node and its slots where it is."""

    @property
    def here(self) -> bool:
        """Say whether this process holds it; of a network that is cut over ranks, another may."""
        return self.net.holds(self.home)

    @property
    @abstractmethod
    def _own(self) -> tuple[Network, int]:
        """Return the network that holds its parameters, and its number there."""

    @property
    def _prefix(self) -> str:
        """Return what names of parameters begin with: where another network holds them, its own name in this one."""
        own = self._own[0]
        return next((f"{name}." for name, child in self.net.named_children() if child is own), "")

    @property
    @abstractmethod
    def declared_modules(self) -> list[nn.Module]:
        """Return the modules it learns by as they were declared, which every rank knows."""

    @property
    @abstractmethod
    def packed_count(self) -> int:
        """Count those of its numbers that lie packed."""

    @property
    def count(self) -> int:
        """Count its numbers that can be learned; what it shares with others counts in full."""
        return self.packed_count + sum(p.numel() for module in self.declared_modules for p in module.parameters())

    @property
    def frozen(self) -> bool:
        """Say whether nothing of it learns."""
        return not any(p.requires_grad for p in self.parameters())

    def freeze(self) -> None:
        """Let it learn no more, and leave it exactly as it is.

        It gets no gradient; and an optimizer that holds the packed tensor in which it lies does not move it, by
        momentum or weight decay either, and keeps what it remembers of it. What shares a weight with it is frozen with
        it.
        """
        for parameter in self.parameters() if self.here else ():
            parameter.requires_grad_(False)
            if not isinstance(parameter, ParameterView):
                parameter.grad = None

    def unfreeze(self) -> None:
        """Let it learn again.

        Raises
        ------
        GraphError
            It was declared with ``trainable=False``, or has nothing to learn.
        """
        if not self.count:
            raise GraphError(f"{self.name} has no weights and no bias, so that there is nothing to unfreeze")
        for parameter in self.parameters() if self.here else ():
            parameter.requires_grad_(True)

    def __repr__(self) -> str:
        if not self.here:
            return f"<{self.name}: {self.count:,} parameters, on rank {self.net.rank_of(self.home)}>"
        return f"<{self.name}: {self.count:,} parameters{', frozen' if self.count and self.frozen else ''}>"


class EdgeHandle(_Handle):
    """This is one edge of a network, as :meth:`pcgraph.PCNetwork.edge` gives it.

    Attributes
    ----------
    net : PCNetwork
    number : int
        The canonical number of the edge.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 3, 3]))
    >>> edge = net.edge("x", "h1")
    >>> edge, edge.place
    (<edge 'x' -> 'h1': 9 parameters>, ('weights.linear_3_to_3', 0))
    >>> edge.freeze()
    >>> edge.frozen, net.edge("h1", "y").frozen
    (True, False)
    """

    @property
    def where(self) -> tuple[Any, ...]:
        """Return the edge as the graph has it: (source, target), with its key in a multigraph."""
        return self.net.structure.edge(self.number)

    @property
    def source(self) -> Hashable:
        """Return the node that it comes from."""
        found: Hashable = self.where[0]
        return found

    @property
    def target(self) -> Hashable:
        """Return the node that it leads to."""
        found: Hashable = self.where[1]
        return found

    @property
    def home(self) -> Hashable:
        return self.target

    @property
    def _own(self) -> tuple[Network, int]:
        return self.net.edge_here(self.number)

    @property
    def slot(self) -> str:
        """Return which prediction of its target it feeds: a slot, or "main"."""
        return self.net.structure.slot_name(self.number)

    @property
    def name(self) -> str:
        slot = "" if self.slot == MAIN else f" into the slot {self.slot!r}"
        return show(self.where) + slot

    @property
    def _bucket(self) -> Bucket:
        s = self.net.structure
        return s.buckets[int(s.bucket_of[self.number])]

    @property
    def place(self) -> tuple[str, int | None] | None:
        """Return the name of the parameter in which its weight lies, and the row; of a module its name, and None."""
        own, i = self._own
        bucket = own.structure.buckets[int(own.structure.bucket_of[i])]
        if bucket.packed is not None:
            return f"{self._prefix}weights.{bucket.packed}", bucket.row(i)
        return (f"{self._prefix}edge_modules.{bucket.name}", None) if bucket.kind in ("module", "joint") else None

    @property
    def weight(self) -> ParameterView:
        """Return the weight as :meth:`pcgraph.PCNetwork.weight` does: (neurons of the target, of the source)."""
        return self.net.edge_weight(self.number)

    @property
    def grad(self) -> Tensor | None:
        """Return the gradient of the weight as a view, to read and to write; None where there is none."""
        return self.weight.grad

    @property
    def transform(self) -> Transform:
        """Return f of the edge; a module is the network's own, and the combine of its target is the node's."""
        own, i = self._own
        return own.structure.transform(i)

    @property
    def transform_name(self) -> str:
        """Name the class of the transform; of a module of torch, its own."""
        found = self.net.structure.transform(self.number)
        return type(found.module if isinstance(found, Module) else found).__name__

    @property
    def activation(self) -> Activation:
        """Return what the edge does to its source's state first."""
        return self._bucket.phi

    @property
    def scale(self) -> float:
        """Return the fixed factor of what the edge sends."""
        return self._bucket.scale

    def parameters(self) -> list[Tensor]:
        if self._bucket.packed is not None:
            return [self.weight]
        return list(self.transform.parameters()) if self._bucket.kind in ("module", "joint") else []

    @property
    def declared_modules(self) -> list[nn.Module]:
        return [self.net.structure.transform(self.number)] if self._bucket.kind in ("module", "joint") else []

    @property
    def packed_count(self) -> int:
        return self._bucket.entries(self.net.structure.groups)

    def unfreeze(self) -> None:
        if not self._bucket.trainable and self.count:
            raise GraphError(
                f"{self.name} was declared with trainable=False, and no gradient is computed for it: declare it "
                "trainable, and freeze it for as long as it is to stay",
                where=self.where,
            )
        super().unfreeze()

    @torch.no_grad()
    def initialize(self, init: Init | None = None, *, seed: int = 0) -> None:
        """Draw its weights anew; those of all edges with which it shares them.

        Parameters
        ----------
        init : str or callable, optional
            As the attribute ``init`` of an edge; by default what the edge declares, and else Kaiming's.
        seed : int

        Raises
        ------
        GraphError
            The init is none for this edge; or the edge has no weights, or a module that does not say how to draw them.
        """
        s, generator = self.net.structure, torch.Generator().manual_seed(require_seed(seed))
        fan_in, bucket = int(s.fan_in[s.target[self.number]]), self._bucket
        init = read_init(init, bucket.kind, self.where, self.name)
        if bucket.kind == "transposed":
            raise GraphError(
                f"{self.name} has the transpose of another edge's weight: initialize that edge", where=self.where
            )
        if not self.here:
            return
        if bucket.kind in ("linear", "sparse"):
            declared = s.inits.get(self.number, "kaiming_uniform")
            drawn = torch.empty(self.weight.shape, dtype=torch.float32, device="cpu")
            fill_weight(declared if init is None else init, drawn, generator, fan_in, self.where)
            self.weight.copy_(drawn)
        elif (
            bucket.kind in ("module", "joint")
            and type(self.transform).reset_parameters is not Transform.reset_parameters
        ):
            self.transform.reset_parameters(generator, fan_in or None)
        else:
            raise GraphError(
                f"{self.name} has {'a module that does not say' if self.count else 'no weights, and nothing says'} how "
                "to draw them: write into net.transform(u, v).parameters() yourself",
                where=self.where,
            )


class NodeHandle(_Handle):
    """This is one prediction of a node, its main one or a slot, as :meth:`pcgraph.PCNetwork.node` gives it.

    What it learns by are its bias, and the parameters of its energy and of its combine, if these have some: they are
    shared with nodes that were declared with the same object.

    Attributes
    ----------
    net : PCNetwork
    number : int
        The canonical number of the node, or of the slot.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 3, 3], activation="tanh"))
    >>> net.node("h1"), net.node("h1").activation.name, net.node("x").count
    (<node 'h1': 3 parameters>, 'tanh', 0)
    """

    @property
    def node(self) -> Hashable:
        """Return the node as the graph has it."""
        return self.net.structure.nodes[int(self.net.structure.owner[self.number])]

    @property
    def home(self) -> Hashable:
        return self.node

    @property
    def _own(self) -> tuple[Network, int]:
        return self.net.node_here(self.number)

    @property
    def slot(self) -> str:
        """Return which prediction of the node it is: a slot, or "main"."""
        found = self.net.structure.nodes[self.number]
        return found.name if isinstance(found, Slot) else MAIN

    @property
    def name(self) -> str:
        found = self.net.structure.nodes[self.number]
        return called(found)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of its state, without the batch."""
        return self.net.structure.shape(self.node)

    @property
    def activation(self) -> Activation:
        """Return what makes the prediction of what comes in."""
        s = self.net.structure
        return s.segments[int(s.segment_of[self.number])].activation

    @property
    def energy(self) -> Energy | None:
        """Return what its error costs; None where nothing predicts it."""
        return self.net.node_energy(self.number) if self.net.structure.has_energy[self.number] else None

    @property
    def combine(self) -> nn.Module | None:
        """Return what makes one prediction of all its parents; None where it is a sum over edges."""
        return self.net.combine(self.node) if self.number in self.net.structure.joint else None

    @property
    def place(self) -> tuple[str, int] | None:
        """Return the name of the parameter in which its bias lies, and the row; None if it has no bias."""
        found = self.net.bias_place(self.node, self.slot)
        return None if found is None else (f"{self._prefix}biases.{found[0]}", found[1])

    @property
    def bias(self) -> ParameterView:
        """Return the bias as :meth:`pcgraph.PCNetwork.bias` does, of the node's shape."""
        return self.net.bias(self.node, slot=self.slot)

    @property
    def grad(self) -> Tensor | None:
        """Return the gradient of the bias as a view, to read and to write; None where there is none."""
        return self.bias.grad

    def parameters(self) -> list[Tensor]:
        bias: list[Tensor] = [] if self.place is None else [self.bias]
        return [*bias, *(p for own in (self.energy, self.combine) if own is not None for p in own.parameters())]

    @property
    def declared_modules(self) -> list[nn.Module]:
        s = self.net.structure
        energy = s.segments[int(s.segment_of[self.number])].energy
        return [*([] if energy is None else [energy]), *([s.combine(self.number)] if self.number in s.joint else [])]

    @property
    def packed_count(self) -> int:
        s = self.net.structure
        return math.prod(s.bias_shape(self.number)) if s.has_bias[self.number] else 0

    @torch.no_grad()
    def initialize(self, init: Init | None = None, *, seed: int = 0) -> None:
        """Draw its bias anew.

        Parameters
        ----------
        init : str or callable, optional
            "kaiming_uniform", as networks are drawn; "normal", "zeros", or a function ``(tensor, generator, fan_in)``
            that fills the tensor in place.
        seed : int

        Raises
        ------
        GraphError
            It has no bias, or the init is none of these.
        """
        generator = torch.Generator().manual_seed(require_seed(seed))
        fan_in = int(self.net.structure.fan_in[self.number])
        chosen = _bias_init(init, self.name)
        if not self.here and self.net.structure.has_bias[self.number]:
            return
        bias = self.bias
        drawn = torch.zeros(bias.shape, dtype=torch.float32, device="cpu")
        if fan_in or chosen != "kaiming_uniform":
            fill_weight(chosen, drawn, generator, fan_in, self.name)
        bias.copy_(drawn)


def _bias_init(init: Any, text: str) -> str | Fill:
    if init is None:
        return "kaiming_uniform"
    if isinstance(init, str) and init not in BIAS_INITS:
        problem = unknown_name("init", init, BIAS_INITS) if init not in INITS else f"{init!r} is of a whole matrix"
        raise GraphError(f"the bias of {text}: {problem}; use one of {', '.join(BIAS_INITS)}", found=init)
    if not isinstance(init, str) and (not callable(init) or isinstance(init, type)):
        raise GraphError(
            f"the bias of {text} needs an init that is one of {', '.join(map(repr, BIAS_INITS))}, or a function "
            f"(tensor, generator, fan_in) that fills the tensor in place (found {shown(init)})",
            found=init,
        )
    found: str | Fill = init
    return found


def handles_of(net: Network) -> Iterator[EdgeHandle | NodeHandle]:
    """Yield all edges as they were declared, but ties; then all nodes; then all slots."""
    yield from (EdgeHandle(net, i) for i in net.structure.declared_edges)
    yield from (NodeHandle(net, net.structure.number[v]) for v in net.graph)
    yield from (NodeHandle(net, i) for i in net.structure.slots.values())
