"""The slow oracle is a plain loop over edges with autograd, skipping nothing; no engine code imports it.

It reads a network's declaration and parameters and nothing else: no plan, no packing, no kernels. Every fast path is
tested against it in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcgraph import activations, energies, transforms
from pcgraph.clamps import Masked
from pcgraph.network import Network
from pcgraph.network.packed import Packed

__all__ = ["Precisions", "Reference", "energy", "infer", "lagrangian", "predictions", "sweep", "weight_gradients"]

Node = Hashable
States = dict[Node, Tensor]
Edge = tuple[Node, Node, Any, Mapping[str, Any]]
Precisions = Mapping[Any, float | Sequence[float]]
"""Node, or (node, slot) -> the precision of its Gaussian energy for one run, in place of the declared one.

Or a sequence of steps + 1 of them: one for each step, and one for the end.
"""


@dataclass(frozen=True)
class Reference:
    """It holds final states, energies per sample before each step and at the end, and gradients of all parameters."""

    states: States
    trace: list[Tensor]
    gradients: dict[str, Tensor]
    duals: States


def _edges(net: Network) -> list[Edge]:
    graph = net.graph
    if graph.is_multigraph():
        return list(graph.edges(keys=True, data=True))
    return [(u, v, None, data) for u, v, data in graph.edges(data=True)]


def _carry(net: Network, u: Node, v: Node, key: Any, data: Mapping[str, Any], h: Tensor) -> Tensor:
    """Return ``scale_uv * f_uv(phi_uv(h_u))``, shape (batch, *shape of v)."""
    return float(data.get("scale", 1.0)) * _transformed(net, u, v, key, data, h)


def _transformed(net: Network, u: Node, v: Node, key: Any, data: Mapping[str, Any], h: Tensor) -> Tensor:
    x = activations.get(data.get("activation"))(h)
    transform = transforms.get(data.get("transform"))
    shape = net.structure.shape(v)
    if data.get("transpose", False):
        carried = x.flatten(1) @ _weight(net, *_shared(net, data["share"]))
        return carried.reshape(-1, *shape)
    if isinstance(transform, transforms.Linear | transforms.SparseLinear):
        weight = _weight(net, u, v, key)
        if isinstance(transform, transforms.SparseLinear):
            source, target = transform.entries(net.structure.shape(u), shape).to(net.device)
            dense = weight.new_zeros(math.prod(shape), x.flatten(1).shape[1])
            weight = dense.index_put((target, source), weight)
        carried = x.flatten(1) @ weight.t()
        return carried.reshape(-1, *shape)
    return net.transform(u, v, key)(x)  # type: ignore[no-any-return]


def _weight(net: Network, u: Node, v: Node, key: Any) -> Tensor:
    i = net.structure.edge_number(u, v, key)
    bucket = net.structure.buckets[int(net.structure.bucket_of[i])]
    row = i - bucket.start if bucket.weight is None else int(bucket.weight[i - bucket.start])
    return _row(net.weights, bucket.name, row)


def _shared(net: Network, share: Any) -> tuple[Node, Node, Any]:
    """Return the edge whose weight goes by this key as it is, and not transposed."""
    found = (e for e in _edges(net) if e[3].get("share") == share and not e[3].get("transpose", False))
    return next(found)[:3]


def _row(packed: Packed, name: str, row: int) -> Tensor:
    """Return one row of a packed parameter, cut off from what learns where it is frozen."""
    found: Tensor = packed[name][row]
    frozen = packed.frozen(name)
    return found if frozen is None or not frozen[row] else found.detach()


def _bias(net: Network, v: Node, slot: str | None) -> Tensor | float:
    place = net.bias_place(v, slot)
    if place is None:
        return 0.0
    return _row(net.biases, *place)


def _declared(net: Network, v: Node, slot: str | None) -> Mapping[str, Any]:
    data: Mapping[str, Any] = net.graph.nodes[v]
    return data if slot is None else data["slots"][slot]


def _fed(net: Network) -> dict[tuple[Node, str | None], list[Edge]]:
    """Return the edges into every prediction that has an energy: (node, None) is the main one, (node, name) a slot."""
    into: dict[tuple[Node, str | None], list[Edge]] = {}
    for edge in _edges(net):
        slot = edge[3].get("slot")
        into.setdefault((edge[1], None if slot == "main" else slot), []).append(edge)
    found: dict[tuple[Node, str | None], list[Edge]] = {}
    for v, data in net.graph.nodes(data=True):
        if (v, None) in into or data.get("prior") is not None:
            found[v, None] = into.get((v, None), [])
        found.update({(v, slot): into.get((v, slot), []) for slot in data.get("slots") or ()})
    return found


def _mu(
    net: Network, v: Node, slot: str | None, incoming: list[Edge], states: Mapping[Node, Tensor]
) -> Tensor:  # fmt: skip
    if not incoming:
        prior = torch.as_tensor(_declared(net, v, slot)["prior"], dtype=net.dtype, device=net.device)
        return prior.expand(next(iter(states.values())).shape[0], *net.structure.shape(v))
    total: Any = _bias(net, v, slot)
    if slot is None and net.graph.nodes[v].get("combine") is not None:
        return _joint(net, v, incoming, states, total)
    for u, _, key, data in incoming:
        total = total + _carry(net, u, v, key, data, states[u])
    mu: Tensor = activations.get(_declared(net, v, slot).get("activation"))(total)
    return mu


def _joint(net: Network, v: Node, incoming: list[Edge], states: Mapping[Node, Tensor], bias: Any) -> Tensor:
    """Return ``sigma_v(b_v + combine(role=scale_uv * f_uv(phi_uv(h_u)), ...))``, the input of each role by name."""
    inputs: dict[str, Tensor] = {}
    for u, _, key, data in incoming:
        x = net.transform(u, v, key)(activations.get(data.get("activation"))(states[u]))
        roles = data["role"]
        for role in (roles,) if isinstance(roles, str) else roles:
            inputs[role] = float(data.get("scale", 1.0)) * x
    mu: Tensor = activations.get(net.graph.nodes[v].get("activation"))(bias + net.combine(v)(**inputs))
    return mu


def predictions(net: Network, states: Mapping[Node, Tensor]) -> States:
    """Mu of every node that has an energy, and by (node, slot) of every slot, each (batch, *shape)."""
    return {
        v if slot is None else (v, slot): _mu(net, v, slot, incoming, states)
        for (v, slot), incoming in _fed(net).items()
    }


def energy(net: Network, states: Mapping[Node, Tensor], precision: Mapping[Any, float] | None = None) -> Tensor:
    """Return F per sample, shape (batch,) (paper, Eq 1): the energy of every prediction of every node."""
    total = torch.zeros(next(iter(states.values())).shape[0], dtype=net.dtype, device=net.device)
    own = _own_energies(net)
    for (v, slot), incoming in _fed(net).items():
        who, data = v if slot is None else (v, slot), _declared(net, v, slot)
        cost = own.get(who) or energies.get(data.get("energy"), data.get("precision"))
        if precision is not None and who in precision:
            cost = energies.Gaussian()
        value = cost.to(total).energy(states[v], _mu(net, v, slot, incoming, states))
        total = total + value * (1.0 if precision is None else precision.get(who, 1.0))
    return total


def _own_energies(net: Network) -> dict[Node, energies.Energy]:
    """Map nodes and slots to the network's own energy modules, where those are not the default."""
    s = net.structure
    return {
        node: net.energy_of(i)
        for i, run in enumerate(s.segments)
        if run.energy is not None and not run.gaussian
        for node in s.nodes[s.groups[run.group].start + run.start : s.groups[run.group].start + run.stop]
    }


def sweep(net: Network, states: Mapping[Node, Tensor], order: Iterable[Node]) -> States:
    """Give each node of `order` in turn its own main prediction."""
    states = dict(states)
    with torch.no_grad():
        fed = _fed(net)
        for v in order:
            states[v] = _mu(net, v, None, fed[v, None], states)
    return states


def lagrangian(
    net: Network, states: Mapping[Node, Tensor], duals: Mapping[Node, Tensor],
    precision: Mapping[Any, float] | None = None,
) -> Tensor:  # fmt: skip
    """L per sample, shape (batch,) (PC-ALM): the energy and, for each dual, ``<lambda_v, h_v - mu_v>``."""
    total, fed = energy(net, states, precision), _fed(net)
    for v, dual in duals.items():
        total = total + (dual * (states[v] - _mu(net, v, None, fed[v, None], states))).flatten(1).sum(1)
    return total


def weight_gradients(
    net: Network, states: Mapping[Node, Tensor], precision: Mapping[Any, float] | None = None,
    duals: Mapping[Node, Tensor] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Gradients of the energy, averaged over the batch, for every parameter by name (paper, Eq 4)."""
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        total = lagrangian(net, {v: h.detach() for v, h in states.items()}, duals or {}, precision).mean()
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
    precision: Precisions | None = None,
    dual_rate: float | None = None,
    stop: float | None = None,
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
    precision : mapping, optional
        Node, or (node, slot) -> the precision of its Gaussian energy in this run, or one for each step and the end.
    dual_rate : float, optional
        PC-ALM: the rate of the dual variables, one for every free node with a main prediction from other nodes.
    stop : float, optional
        A node of a sample, with its dual, stops for good once its residual is so small beside its dual.
    """
    fixed = {v: c for v, c in clamps.items() if isinstance(c, Tensor)}
    masked = {v: c for v, c in clamps.items() if isinstance(c, Masked)}
    states = {v: h.detach().clone() for v, h in {**initial, **fixed}.items()}
    for v, clamp in masked.items():
        states[v] = torch.where(clamp.mask, clamp.values, states[v])
    free, fed = [v for v in net.graph if v not in fixed], _fed(net)
    order = tuple(order)

    def mu(v: Node, found: Mapping[Node, Tensor]) -> Tensor:
        return _mu(net, v, None, fed[v, None], found)

    def placed(variables: Mapping[Node, Tensor]) -> States:
        found = dict(variables)
        for v in order:
            found[v] = mu(v, found) + variables[v]
        return found

    with torch.no_grad():
        variables = {v: h - mu(v, states) if v in order else h for v, h in states.items()}

    def weights(t: int) -> dict[Any, float]:
        return {v: p[t] if isinstance(p, Sequence) else p for v, p in (precision or {}).items()}

    trace = [energy(net, states, weights(0)).detach()]
    dual = [v for v in free if fed.get((v, None))] if dual_rate is not None else []
    duals = {v: torch.zeros_like(states[v]) for v in dual}
    going = {v: torch.ones(len(states[v]), dtype=torch.bool, device=net.device) for v in free}
    for t in range(steps):
        with torch.enable_grad():
            leaves = {v: x.detach().requires_grad_() for v, x in variables.items()}
            total = lagrangian(net, placed(leaves), duals, weights(t)).sum()
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
            moved[v] = torch.where(_wide(going[v], moved[v]), moved[v], variables[v])
        variables = moved
        with torch.no_grad():
            states = placed(variables)
            for v in dual:
                residual = states[v] - mu(v, states)
                if v in masked:
                    residual = torch.where(masked[v].mask, torch.zeros_like(residual), residual)
                duals[v] = duals[v] + float(dual_rate or 0) * residual * _wide(going[v], residual)
                if stop is not None:
                    size, left = duals[v].flatten(1).norm(dim=1), residual.flatten(1).norm(dim=1)
                    rounding = 64 * torch.finfo(size.dtype).eps * states[v].flatten(1).norm(dim=1)
                    going[v] = going[v] & ((left > stop * size) | (size <= rounding))
        trace.append(energy(net, states, weights(t + 1)).detach())
    return Reference(states, trace, weight_gradients(net, states, weights(steps), duals), duals)


def _wide(samples: Tensor, like: Tensor) -> Tensor:
    """View (batch,) so that it goes with a state, (batch, *shape)."""
    return samples.view(-1, *[1] * (like.dim() - 1))
