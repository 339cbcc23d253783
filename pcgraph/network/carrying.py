"""Weights and biases are carried by name from one network into another, of a graph that has grown, say."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.errors import ConfigError
from pcgraph.network.handles import EdgeHandle, NodeHandle, handles_of
from pcgraph.network.network import Network
from pcgraph.network.packed import ParameterView

__all__ = ["Carried", "carry"]

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Carried:
    """This is what :meth:`pcgraph.PCNetwork.load_from` has carried from another network, and what not.

    Edges and nodes go by their names in the graph: ``(u, v)``, or ``(u, v, key)`` of a multigraph; a slot is
    ``(node, slot)``. Of a network that is cut over ranks, each rank tells of what it holds.

    Attributes
    ----------
    edges, nodes : tuple
        Those whose weights, and biases, were taken over.
    different : dict
        Edge or node -> why it was not taken over although both networks have it.
    new : tuple
        Edges and nodes with something to learn that the other network does not have: they are as they were drawn.
    left : tuple
        Those of the other network for which there is no place here.
    """

    edges: tuple[Any, ...] = ()
    nodes: tuple[Any, ...] = ()
    different: dict[Hashable, str] = field(default_factory=dict)
    new: tuple[Any, ...] = ()
    left: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """Say it in words, a line each."""
        lines = [f"carried: the weights of {len(self.edges)} edges and the biases of {len(self.nodes)} nodes"]
        lines += [f"not carried: {name!r}: {why}" for name, why in self.different.items()]
        lines += [f"new here, left as drawn: {', '.join(map(repr, self.new))}"] if self.new else []
        lines += [f"without a place here: {', '.join(map(repr, self.left))}"] if self.left else []
        return "\n".join(lines)


@torch.no_grad()
def carry(net: Network, other: Network) -> Carried:
    """Copy all that has the same name and shape in both; see :meth:`pcgraph.PCNetwork.load_from`."""
    _require_alike(net, other)
    here, there = dict(_named(net)), dict(_named(other))
    elsewhere = {_key(who) for who in handles_of(net) if not who.here}
    edges: list[Any] = []
    nodes: list[Any] = []
    different: dict[Hashable, str] = {}
    taken: dict[object, tuple[str, Tensor]] = {}
    for key, own in here.items():
        if key not in there:
            continue
        why = _unlike(own, there[key]) or _unshared(own, there[key], taken)
        if why is not None:
            different[_public(key)] = why
            continue
        for mine, its in zip(own.parameters(), there[key].parameters()):
            mine.detach().copy_(its.detach())
        for buffer, its in zip(_buffers(own), _buffers(there[key])):
            buffer.copy_(its)
        (edges if isinstance(own, EdgeHandle) else nodes).append(_public(key))
    new = [_public(key) for key in here if key not in there]
    left = [_public(key) for key in there if key not in here and key not in elsewhere]
    return Carried(tuple(edges), tuple(nodes), different, tuple(new), tuple(left))


def _named(net: Network) -> Iterator[tuple[Key, EdgeHandle | NodeHandle]]:
    """Yield the edges and nodes here that have something to learn, by a name that is the same in every network."""
    for who in handles_of(net):
        if who.here and (who.count or _buffers(who)):
            yield _key(who), who


def _key(who: EdgeHandle | NodeHandle) -> Key:
    return ("edge", *who.where) if isinstance(who, EdgeHandle) else ("node", who.node, who.slot)


def _require_alike(net: Network, other: Network) -> None:
    """Refuse, on all ranks, a network of which other ranks hold what is to be copied here.

    Raises
    ------
    ConfigError
    """
    apart = [who for who in handles_of(other) if who.home in net.graph]
    whole = all(who.here for who in handles_of(other))
    wrong = next((who for who in apart if other.rank_of(who.home) != net.rank_of(who.home)), None)
    if not whole and (wrong is not None or all(who.here for who in handles_of(net))):
        found = "one of one process" if wrong is None else f"{wrong.home!r} on another rank"
        raise ConfigError(
            f"what is copied lies on the rank that copies it (found {found}): cut both networks alike, or save the "
            "other one, and take pcgraph.load(folder).net",
            key="other",
        )


def _public(key: Key) -> Any:
    """Return the name of an edge or node as a user has it."""
    if key[0] == "edge":
        return key[1:]
    return key[1] if key[2] == "main" else key[1:]


def _modules(who: EdgeHandle | NodeHandle) -> list[nn.Module]:
    modules = (who.transform,) if isinstance(who, EdgeHandle) else (who.energy, who.combine)
    return [module for module in modules if module is not None]


def _buffers(who: EdgeHandle | NodeHandle) -> list[Tensor]:
    """Return the buffers that are saved: others, as declared precisions by neuron, are of this declaration."""
    found = [t for module in _modules(who) for t in module.state_dict(keep_vars=True).values()]
    return [t for t in found if isinstance(t, Tensor) and not isinstance(t, nn.Parameter)]


def _unshared(
    one: EdgeHandle | NodeHandle, two: EdgeHandle | NodeHandle, taken: dict[object, tuple[str, Tensor]]
) -> str | None:
    """Say why one gets other values already, from what shares them here and does not there; note what it gets."""
    for mine, its in zip(one.parameters(), two.parameters()):
        turned = isinstance(mine, ParameterView) and mine.transposed
        values = its.detach().mT if turned else its.detach()
        name, first = taken.setdefault(_spot(mine), (one.name, values))
        if not torch.equal(first, values):
            return f"it shares its weight with {name} here, and has another there"
    return None


def _spot(parameter: Tensor) -> object:
    """Return where a parameter lies, equal for those who share it."""
    if isinstance(parameter, ParameterView):
        return id(parameter.packed), parameter.packed_name, parameter.rows.start
    return id(parameter)


def _unlike(one: EdgeHandle | NodeHandle, two: EdgeHandle | NodeHandle) -> str | None:
    """Say why one cannot be copied into the other; None where it can."""
    if isinstance(one, EdgeHandle) and isinstance(two, EdgeHandle):
        kinds = type(one.transform).__name__, type(two.transform).__name__
        if kinds[0] != kinds[1]:
            return f"it is a {kinds[0]} here, and a {kinds[1]} there"
        if one.slot != two.slot:
            return f"it feeds {one.slot!r} here, and {two.slot!r} there"
    elif len(one.parameters()) > bool(one.place):  # what it learns beside a bias is of an energy or a combine
        names = [" and ".join(type(module).__name__ for module in _modules(who)) for who in (one, two)]
        if names[0] != names[1]:
            return f"it has {names[0]} here, and {names[1]} there"
    shapes = [[tuple(t.shape) for t in (*who.parameters(), *_buffers(who))] for who in (one, two)]
    if shapes[0] != shapes[1]:
        return f"its shape is {_listed(shapes[0])} here, and {_listed(shapes[1])} there"
    if isinstance(one, EdgeHandle) and isinstance(two, EdgeHandle):
        stored = [_entries(who) for who in (one, two)]
        if stored[0] is not None and stored[1] is not None and not torch.equal(stored[0], stored[1]):
            return "other entries of the matrix are stored"
    return None


def _entries(edge: EdgeHandle) -> Tensor | None:
    s = edge.net.structure
    found = edge.transform.entries(s.shape(edge.source), s.shape(edge.target))
    return None if found is None else found.cpu()


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "none"
