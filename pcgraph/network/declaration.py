"""Reading a declaration: the attributes of one node or edge, checked and turned into what they mean."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import torch

from pcgraph import activations, energies, transforms
from pcgraph.activations import Activation
from pcgraph.energies import Energy, Gaussian
from pcgraph.errors import GraphError, nearest
from pcgraph.transforms import Identity, Linear, SparseLinear, Transform

__all__ = ["DEFAULT_EDGE", "EdgeSpec", "NodeSpec", "edge_spec", "node_spec", "show"]

Node = Hashable
Shape = tuple[int, ...]

NODE_ATTRIBUTES = ("shape", "activation", "bias", "energy", "precision", "prior")
EDGE_ATTRIBUTES = ("transform", "activation", "trainable", "share")


def show(where: Any) -> str:
    """An edge as ``'a' -> 'b'``, a node as it is."""
    if isinstance(where, tuple) and len(where) in (2, 3):
        return f"edge {where[0]!r} -> {where[1]!r}" + (f" (key {where[2]!r})" if len(where) == 3 else "")
    return f"node {where!r}"


def _check_attributes(attributes: Mapping[Any, Any], known: tuple[str, ...], where: Any, text: str) -> None:
    for key in attributes:
        if isinstance(key, str) and key not in known:
            meant = nearest(key, known, cutoff=0.8)
            if meant:
                raise GraphError(
                    f"{text} has the attribute {key!r}, which is nearly {meant!r}: write {meant!r} if that was meant, "
                    "or rename it",
                    where=where,
                    found=key,
                )


def _shape(value: Any, node: Node) -> Shape:
    items = value if isinstance(value, tuple | list | torch.Size) else (value,)
    good = len(items) > 0 and all(isinstance(i, int | np.integer) and not isinstance(i, bool) and i > 0 for i in items)
    if not good:
        raise GraphError(
            f"node {node!r} needs a shape that is a positive int or a tuple of them (found {value!r})",
            where=node,
            found=value,
        )
    return tuple(int(i) for i in items)


@dataclass
class NodeSpec:
    shape: Shape
    activation: Activation
    energy: Energy
    precision: float
    bias: bool
    prior: Any


def node_spec(node: Node, attributes: Mapping[str, Any], graph: nx.DiGraph) -> NodeSpec:
    _check_attributes(attributes, NODE_ATTRIBUTES, node, f"node {node!r}")
    if "shape" not in attributes:
        raise GraphError(
            f"node {node!r} needs a shape (found none): graph.add_node({node!r}, shape=...)" + _misspelt(node, graph),
            where=node,
        )
    shape = _shape(attributes["shape"], node)
    try:
        activation = activations.get(attributes.get("activation"))
        energy = energies.get(attributes.get("energy"), attributes.get("precision"))
    except GraphError as error:
        raise GraphError(f"node {node!r}: {error}", where=node, found=error.found) from None
    _try_activation(node, activation, shape)
    bias = attributes.get("bias", True)
    if not isinstance(bias, bool | np.bool_):
        raise GraphError(f"node {node!r} needs bias=True or bias=False (found {bias!r})", where=node, found=bias)
    prior = attributes.get("prior")
    if prior is not None:
        prior = torch.as_tensor(prior, dtype=torch.float64)
        try:
            prior = prior.expand(shape).clone()
        except RuntimeError:
            raise GraphError(
                f"the prior of node {node!r} must broadcast to its shape {shape} (found shape {tuple(prior.shape)})",
                where=node,
                found=attributes["prior"],
            ) from None
        if not torch.isfinite(prior).all():
            raise GraphError(f"the prior of node {node!r} must be finite", where=node, found=attributes["prior"])
    precision = energy.precision if type(energy) is Gaussian else 1.0
    return NodeSpec(shape, activation, energy, precision, bool(bias), prior)


def _misspelt(node: Node, graph: nx.DiGraph) -> str:
    """An edge makes the nodes that it names; one without a shape may be a slip of the pen."""
    if not isinstance(node, str):
        return ""
    guess = nearest(node, [v for v, data in graph.nodes(data=True) if isinstance(v, str) and "shape" in data])
    return f"; or did an edge mean {guess!r}?" if guess and graph.degree(node) else ""


def _try_activation(node: Node, activation: Activation, shape: Shape) -> None:
    """Call a user's activation once, on two samples, so that a slip is named here and not in the midst of a run."""
    if activation.named:
        return
    try:
        with torch.no_grad():
            found = activation.function(torch.zeros(2, *shape))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise GraphError(
            f"node {node!r}: the activation {activation.name!r} does not take a tensor of shape (batch, "
            f"{', '.join(map(str, shape))}): {error}",
            where=node,
            found=activation.function,
        ) from error
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != (2, *shape):
        what = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        hint = f"; a class makes an object: write {activation.name}()" if isinstance(activation.function, type) else ""
        raise GraphError(
            f"node {node!r}: the activation {activation.name!r} must preserve the shape {(2, *shape)} "
            f"(found {what}){hint}",
            where=node,
            found=activation.function,
        )


@dataclass(frozen=True, eq=False)
class EdgeSpec:
    kind: str
    transform: Transform
    phi: Activation
    trainable: bool
    share: Hashable | None

    @property
    def key(self) -> tuple[Any, ...]:
        module = id(self.transform) if self.kind in ("module", "sparse") else None
        phi = self.phi.name if self.phi.named else id(self.phi.function)
        return (self.kind, module, phi, self.trainable)


def _kind(transform: Transform) -> str:
    if type(transform) is Linear:
        return "linear"
    if type(transform) is Identity:
        return "identity"
    if type(transform) is SparseLinear:
        return "sparse"
    return "module"


DEFAULT_EDGE = EdgeSpec("linear", Linear(), activations.get(None), True, None)


def edge_spec(where: tuple[Any, ...], attributes: Mapping[str, Any]) -> EdgeSpec:
    if not attributes:
        return DEFAULT_EDGE
    _check_attributes(attributes, EDGE_ATTRIBUTES, where, show(where))
    try:
        transform = transforms.get(attributes.get("transform"))
        phi = activations.get(attributes.get("activation"))
    except GraphError as error:
        raise GraphError(f"{show(where)}: {error}", where=where, found=error.found) from None
    trainable = attributes.get("trainable", True)
    if not isinstance(trainable, bool | np.bool_):
        raise GraphError(
            f"{show(where)} needs trainable=True or trainable=False (found {trainable!r})", where=where, found=trainable
        )
    share = attributes.get("share")
    try:
        hash(share)
    except TypeError:
        raise GraphError(
            f"{show(where)} needs a hashable share key (found {share!r})", where=where, found=share
        ) from None
    return EdgeSpec(_kind(transform), transform, phi, bool(trainable), share)
