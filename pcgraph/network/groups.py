"""Parameters of a network in groups, as every optimizer of torch takes them: single edges and nodes have settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from pcgraph.arguments import is_number, require_flag, require_number, shown
from pcgraph.errors import ConfigError, GraphError, nearest
from pcgraph.network.handles import EdgeHandle, NodeHandle
from pcgraph.network.network import Network
from pcgraph.network.packed import Mask, Packed, ParameterView

__all__ = ["handle_of", "parameter_groups"]

Handle = EdgeHandle | NodeHandle
#: Options of many optimizers. One that is nearly one of them is a slip, which no optimizer would notice.
OPTIONS = ("lr", "weight_decay", "momentum", "betas", "eps", "nesterov", "dampening", "amsgrad", "maximize")
#: What is often written for them.
MEANT = {"learning_rate": "lr", "rate": "lr", "decay": "weight_decay", "wd": "weight_decay"}


def handle_of(net: Network, key: Any) -> Handle:
    """Read what names an edge or a node: a handle, ``(u, v)``, ``(u, v, key)``, a node, or ``(node, slot)``.

    Raises
    ------
    GraphError
        It is of another network, or there is no such edge or node, or it could be both.
    """
    if isinstance(key, EdgeHandle | NodeHandle):
        if key.net is not net:
            raise GraphError(f"{key.name} is of another network: ask this one, by net.edge(u, v) or net.node(v)")
        return key
    try:
        number: int | None = net.structure.number.get(key, net.structure.slots.get(key))
    except TypeError:
        number = None
    ends = isinstance(key, tuple) and len(key) in (2, 3)
    if number is not None and ends and net.graph.has_edge(*key[:2]):
        kind = "node" if key in net.structure.number else "slot"
        raise GraphError(
            f"{key!r} is a {kind}, and an edge as well: write net.node({key!r}) or net.edge(...)", where=key
        )
    if number is None and ends:
        return EdgeHandle(net, net.structure.edge_number(*key))
    return NodeHandle(net, net.structure.require_node(key) if number is None else number)


def parameter_groups(net: Network, settings: Any, separate: Any) -> list[dict[str, Any]]:
    """Make the groups; see :meth:`pcgraph.PCNetwork.parameter_groups`."""
    separate = require_flag(separate, "separate")
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(
            "settings is a mapping, as in {('x', 'h1'): {'lr': 0.01}, net.node('h1'): {'weight_decay': 0.0}} (found "
            f"{shown(settings)})",
            key="settings",
        )
    kinds: list[dict[str, Any]] = [{}]
    shared: dict[tuple[Any, ...], tuple[int, str]] = {}
    chosen: dict[tuple[Any, ...], int] = {}
    alone: set[tuple[Any, ...]] = set()
    for key, value in (settings or {}).items():
        who = handle_of(net, key)
        read = _read(value, who)
        if read not in kinds:
            kinds.append(read)
        for place in _declared_places(who):
            kind, first = shared.setdefault(place, (kinds.index(read), who.name))
            if kind != kinds.index(read):
                raise GraphError(f"{who.name} learns by what it shares with {first}: give both the same settings")
        if who.here:
            alone.update(() if read else _places(who))
            chosen.update((place, kinds.index(read)) for place in _places(who))
    found: list[list[Tensor]] = [[] for _ in kinds]
    own = net.own
    for packed in (own.weights, own.biases):
        for name, parameter in packed.items():
            places = [(id(packed), name, row) for row in range(len(parameter))]
            rows = np.array([chosen.get(place, 0) for place in places])
            apart = np.array([place in alone for place in places]) if alone else None
            for kind, part in _cut(packed, name, rows, apart, separate):
                found[kind].append(part)
    others = {id(p): p for module in (own.edge_modules, own.energies) for p in module.parameters()}
    for number, parameter in others.items():
        found[chosen.get((number,), 0)].append(parameter)
    if own is not net and not any(found):  # optimizers of torch take no empty list
        found[0] += net.parameters()
    order = [*range(1, len(kinds)), 0]
    # Ranks that share a network have the same groups, so that schedulers and checkpoints know them by number.
    return [{"params": found[kind], **kinds[kind]} for kind in order if found[kind] or own is not net]


def _read(value: Any, who: Handle) -> dict[str, Any]:
    """Check the settings of one edge or node."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"the settings of {who.name} are a mapping, as in {{'lr': 0.01}} (found {shown(value)})")
    if not who.count:
        raise GraphError(f"{who.name} has nothing that learns, and takes no settings: leave it out")
    for key, setting in value.items():
        if not isinstance(key, str) or key == "params":
            raise ConfigError(
                f"the settings of {who.name} are options of an optimizer (found {shown(key)})", key="params"
            )
        meant = None if key in OPTIONS else MEANT.get(key) or nearest(key, OPTIONS, cutoff=0.8)
        if meant is not None:
            raise ConfigError(f"the settings of {who.name} have {key!r}: did you mean {meant!r}?", key=key)
        if key in ("lr", "weight_decay") and not (isinstance(setting, Tensor) and is_number(setting)):
            require_number(setting, f"{key} of {who.name}", least=0)
    return dict(value)


def _declared_places(who: Handle) -> Iterator[tuple[Any, ...]]:
    """Yield what tells apart all that an edge or node learns by, on every rank that shares the network."""
    s = who.net.structure
    if isinstance(who, EdgeHandle):
        bucket = s.buckets[int(s.bucket_of[who.number])]
        yield from () if bucket.packed is None else [(bucket.packed, bucket.row(who.number))]
    elif s.has_bias[who.number]:
        yield "bias", who.number
    yield from ((id(parameter),) for module in who.declared_modules for parameter in module.parameters())


def _places(who: Handle) -> Iterator[tuple[Any, ...]]:
    """Yield where all lies that an edge or node learns by, in the tensors of this process."""
    for parameter in who.parameters():
        if isinstance(parameter, ParameterView):
            yield from ((id(parameter.packed), parameter.packed_name, row) for row in parameter.rows)
        else:
            yield (id(parameter),)


def _cut(
    packed: Packed, name: str, kinds: Any, apart: Mask | None, separate: bool
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """Cut a packed parameter where settings change, where what is frozen ends, and around rows that lie apart.

    Or into all of its rows, where `separate` is true.
    """
    whole, frozen = packed[name], packed.frozen_rows.get(name)
    if separate:
        shape = whole.shape[1:] if name.startswith(("linear", "sparse")) else (whole[0].numel(),)
        for row, kind in enumerate(kinds.tolist()):
            yield kind, packed.view(name, slice(row, row + 1), tuple(shape))
        return
    label = kinds if frozen is None else 2 * kinds + frozen
    if apart is not None:
        label = np.where(apart, -1 - np.arange(len(kinds)), label)
    cuts = np.flatnonzero(np.diff(label)) + 1
    if not len(cuts):
        yield int(kinds[0]), whole
        return
    for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(whole)]):
        yield int(kinds[start]), packed.view(name, slice(start, stop))
