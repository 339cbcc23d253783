"""The slow oracle: a plain loop over edges with autograd, skipping nothing. No engine code imports it, or is imported.

It reads a network's declaration and parameters and nothing else: no plan, no packing, no kernels. Every fast path is
tested against it in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcgraph import activations, energies, transforms
from pcgraph.clamps import Masked
from pcgraph.network import Network

__all__ = ["Reference", "energy", "infer", "predictions", "sweep", "weight_gradients"]

Node = Hashable
States = dict[Node, Tensor]


@dataclass(frozen=True)
class Reference:
    """Final states, energies per sample before each step and at the end, gradients of all parameters."""

    states: States
    trace: list[Tensor]
    gradients: dict[str, Tensor]


def _edges(net: Network) -> list[tuple[Node, Node, Any, Mapping[str, Any]]]:
    graph = net.graph
    if graph.is_multigraph():
        return list(graph.edges(keys=True, data=True))
    return [(u, v, None, data) for u, v, data in graph.edges(data=True)]


def _carry(net: Network, u: Node, v: Node, key: Any, data: Mapping[str, Any], h: Tensor) -> Tensor:
    """``scale_uv * f_uv(phi_uv(h_u))``, shape (batch, *shape of v)."""
    return float(data.get("scale", 1.0)) * _transformed(net, u, v, key, data, h)


def _transformed(net: Network, u: Node, v: Node, key: Any, data: Mapping[str, Any], h: Tensor) -> Tensor:
    x = activations.get(data.get("activation"))(h)
    transform = transforms.get(data.get("transform"))
    shape = net.structure.shape(v)
    if isinstance(transform, transforms.Linear | transforms.SparseLinear):
        i = net.structure.edge_number(u, v, key)
        bucket = net.structure.buckets[int(net.structure.bucket_of[i])]
        row = i - bucket.start if bucket.weight is None else int(bucket.weight[i - bucket.start])
        weight = net.weights[bucket.name][row]
        if isinstance(transform, transforms.SparseLinear):
            source, target = transform.entries(net.structure.shape(u), shape).to(net.device)
            dense = weight.new_zeros(math.prod(shape), x.flatten(1).shape[1])
            weight = dense.index_put((target, source), weight)
        carried: Tensor = x.flatten(1) @ weight.t()
        return carried.reshape(-1, *shape)
    return net.transform(u, v, key)(x)  # type: ignore[no-any-return]


def _bias(net: Network, v: Node) -> Tensor | float:
    place = net.bias_place(v)
    return 0.0 if place is None else net.biases[place[0]][place[1]]


def _mu(net: Network, v: Node, states: Mapping[Node, Tensor], batch: int) -> Tensor:
    incoming = [e for e in _edges(net) if e[1] == v]
    if not incoming:
        prior = torch.as_tensor(net.graph.nodes[v]["prior"], dtype=net.dtype, device=net.device)
        return prior.expand(batch, *net.structure.shape(v))
    total: Any = _bias(net, v)
    for u, _, key, data in incoming:
        total = total + _carry(net, u, v, key, data, states[u])
    mu: Tensor = activations.get(net.graph.nodes[v].get("activation"))(total)
    return mu


def _with_energy(net: Network) -> list[Node]:
    return [v for v in net.graph if net.graph.in_degree(v) or net.graph.nodes[v].get("prior") is not None]


def predictions(net: Network, states: Mapping[Node, Tensor]) -> States:
    """Mu of every node that has an energy, each (batch, *shape)."""
    batch = next(iter(states.values())).shape[0]
    return {v: _mu(net, v, states, batch) for v in _with_energy(net)}


def energy(net: Network, states: Mapping[Node, Tensor]) -> Tensor:
    """F per sample, shape (batch,) (paper, Eq 1)."""
    total = torch.zeros(next(iter(states.values())).shape[0], dtype=net.dtype, device=net.device)
    own = _own_energies(net)
    for v, mu in predictions(net, states).items():
        data = net.graph.nodes[v]
        cost = own.get(v) or energies.get(data.get("energy"), data.get("precision"))
        total = total + cost.to(total).energy(states[v], mu)
    return total


def _own_energies(net: Network) -> dict[Node, energies.Energy]:
    """Node -> the network's own energy module, which may have parameters, where it is not the default one."""
    s = net.structure
    return {
        node: net.energy_of(i)
        for i, run in enumerate(s.segments)
        if run.energy is not None and not run.gaussian
        for node in s.nodes[s.groups[run.group].start + run.start : s.groups[run.group].start + run.stop]
    }


def sweep(net: Network, states: Mapping[Node, Tensor], order: Iterable[Node]) -> States:
    """Give each node of `order` in turn its own prediction."""
    states = dict(states)
    with torch.no_grad():
        batch = next(iter(states.values())).shape[0]
        for v in order:
            states[v] = _mu(net, v, states, batch)
    return states


def weight_gradients(net: Network, states: Mapping[Node, Tensor]) -> dict[str, Tensor]:
    """Gradients of the energy, averaged over the batch, for every parameter by name (paper, Eq 4)."""
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        total = energy(net, {v: h.detach() for v, h in states.items()}).mean()
        if not named or not total.requires_grad:
            return {name: torch.zeros_like(p) for name, p in named.items()}
        grads = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), grads)}


def infer(
    net: Network,
    clamps: Mapping[Node, Tensor | Masked],
    initial: Mapping[Node, Tensor],
    steps: int,
    step: Callable[[Node, Tensor, Tensor, int], Tensor],
    order: Iterable[Node] = (),
) -> Reference:
    """Move all free states at once, `steps` times, by autograd on the whole energy (paper, Eq 3).

    In error coordinates the variables of the nodes in `order` are ``h - mu``, and their states follow from these one
    after the other.

    Parameters
    ----------
    net : Network
    clamps : mapping
        Node -> Tensor or Masked.
    initial : mapping
        States of all nodes at t = 0; clamped ones are overwritten.
    steps : int
    step : callable
        ``step(node, variable, gradient, t) -> variable`` for one node.
    order : iterable of node
        Nodes whose error is moved, each after all that it depends on.
    """
    fixed = {v: c for v, c in clamps.items() if isinstance(c, Tensor)}
    masked = {v: c for v, c in clamps.items() if isinstance(c, Masked)}
    states = {v: h.detach().clone() for v, h in {**initial, **fixed}.items()}
    for v, clamp in masked.items():
        states[v] = torch.where(clamp.mask, clamp.values, states[v])
    free, batch = [v for v in net.graph if v not in fixed], next(iter(states.values())).shape[0]
    order = tuple(order)

    def placed(variables: Mapping[Node, Tensor]) -> States:
        found = dict(variables)
        for v in order:
            found[v] = _mu(net, v, found, batch) + variables[v]
        return found

    with torch.no_grad():
        variables = {v: h - _mu(net, v, states, batch) if v in order else h for v, h in states.items()}
    trace = [energy(net, states).detach()]
    for t in range(steps):
        with torch.enable_grad():
            leaves = {v: x.detach().requires_grad_() for v, x in variables.items()}
            total = energy(net, placed(leaves)).sum()
            wanted = [leaves[v] for v in free]
            grads = torch.autograd.grad(total, wanted, allow_unused=True) if free and total.requires_grad else ()
        moved = dict(variables)
        for v, g in zip(free, grads):
            g = torch.zeros_like(states[v]) if g is None else g
            if v in masked:
                g = torch.where(masked[v].mask, torch.zeros_like(g), g)
            moved[v] = step(v, variables[v], g, t)
            if v in masked:
                moved[v] = torch.where(masked[v].mask, variables[v], moved[v])
        variables = moved
        with torch.no_grad():
            states = placed(variables)
        trace.append(energy(net, states).detach())
    return Reference(states, trace, weight_gradients(net, states))
