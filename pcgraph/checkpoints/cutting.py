"""What the ranks of a network hold in parts is written in the names and numbers of the whole one, and read from them.

A checkpoint knows of no partition: a section of several ranks has the state that one process would have, whose tensors
lie in rows in the files of the ranks. So any number of ranks reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pcgraph.errors import ConfigError
from pcgraph.initializers import Initializer
from pcgraph.initializers.remember import Remembering
from pcgraph.model import PCNetwork
from pcgraph.network import ParameterView, Place, whole_parameters
from pcgraph.processes import Group
from pcgraph.serialization import decode, encode

__all__ = [
    "ROWS",
    "Pieces",
    "Share",
    "averaged_section",
    "gathered",
    "local_moved",
    "local_network",
    "moved_section",
    "network_section",
    "unite",
]

#: Behind the name of a cut tensor, in a file: which rows of the whole it has.
ROWS = ":rows"


def gathered(group: Group | None, value: Any) -> list[Any]:
    """Give every rank the plain data of all, or of this process alone."""
    return [value] if group is None else group.gather_data(value)


# -- writing ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Share:
    """A share is what one rank has to write of a section: tensors, and which rows of the whole those of a cut one are.

    Attributes
    ----------
    tensors, rows : dict
        By the name that the state of the whole has for the tensor.
    all : frozenset of str
        The names that all ranks write together.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    all: frozenset[str] = frozenset()

    def add(self, name: str, tensor: Tensor, place: Place) -> None:
        self.tensors[name] = tensor
        if place.rows is not None:
            self.rows[name] = place.rows

    def file(self) -> dict[str, Tensor]:
        """Give the tensors of this rank's file."""
        return {**self.tensors, **{name + ROWS: rows for name, rows in self.rows.items()}}


def network_section(net: PCNetwork, group: Group | None) -> tuple[dict[str, Any], Share]:
    """Make the section of a network: the state without its numbers, and this rank's share of them."""
    places, share = net.places, Share()
    assert places is not None
    for name, tensor in net.state_dict().items():
        if name in places:
            share.add(places[name].name, tensor, places[name])
    everyone = gathered(group, {name: name in share.rows for name in share.tensors})
    for name in [n for n in share.tensors if n not in share.rows]:  # of a tensor that is not cut, the first has it
        if next(rank for rank, theirs in enumerate(everyone) if name in theirs) != _rank(group):
            del share.tensors[name]
    share.all = frozenset(name for theirs in everyone for name in theirs)
    return {"state": {name: torch.empty(0, device="cpu") for name in sorted(share.all)}}, share


def moved_section(
    moved: Any, net: PCNetwork, initializer: Initializer | None, group: Group | None
) -> tuple[dict[str, Any], Share]:
    """Make the section of an optimizer, whose parameters get the numbers that they would have on one process.

    Raises
    ------
    ConfigError
        It holds something else than whole parameters of the network and of the initializer, or keeps something of one
        that is neither a number nor has its shape; or the ranks are not in one step.
    """
    known, state = _known(net, initializer, moved), moved.state_dict()
    kept, own = state["state"], [p for each in moved.param_groups for p in each["params"]]
    told: dict[str, Any] = {
        "groups": [_names(each["params"], known) for each in moved.param_groups], "keeps": {},
        "shapes": [[known[id(p)][0], list(p.shape)] for p in own if id(p) in known and known[id(p)][1].rows is None],
    }  # fmt: skip
    for j, parameter in enumerate(own):
        if id(parameter) in known:
            name, place = known[id(parameter)]
            told["keeps"][name] = {k: _kind(k, v, name, place, parameter) for k, v in kept.get(j, {}).items()}
    everyone = gathered(group, told)
    groups = _whole_groups([each["groups"] for each in everyone], net)
    number = {name: i for i, name in enumerate(name for each in groups for name in each)}
    keeps: dict[str, dict[str, Any]] = {name: {} for name in number}
    for theirs in everyone:
        for name, each in theirs["keeps"].items():
            for key, kind in each.items():
                if keeps[name].setdefault(key, kind) != kind:
                    raise ConfigError(
                        f"the ranks are not in one step: {key} of {name} is {keeps[name][key][-1]} on one, and "
                        f"{kind[-1]} on another",
                        key="optimizer",
                    )
    share = _share_of(own, known, kept, number, keeps, everyone, _rank(group))
    shapes = {f"net.{name}": shape for name, shape in whole_parameters(net.structure).items()}
    for theirs in everyone:
        shapes |= {name: tuple(shape) for name, shape in theirs["shapes"]}
    settings = [{k: v for k, v in each.items() if k not in ("params", "param_names")} for each in state["param_groups"]]
    nothing = torch.empty(0, device="cpu")  # in the place of a tensor that the ranks write
    whole = {
        "state": {
            number[name]: {k: decode(v[1]) if v[0] == "value" else nothing for k, v in each.items()}
            for name, each in keeps.items() if each
        },
        "param_groups": [{**each, "params": [number[n] for n in names]} for each, names in zip(settings, groups)],
    }  # fmt: skip
    parameters = [{"name": n, "shape": list(shapes[n]), "keeps": sorted(keeps[n])} for n in number]
    return {"class": type(moved).__name__, "state": whole, "parameters": parameters}, share


def unite(initializer: Initializer, net: PCNetwork) -> dict[str, Tensor]:
    """Give every rank the whole of what an initializer remembers, of which each has the rows of its own nodes.

    Raises
    ------
    ConfigError
        Ranks remember, or have learned, different things.
    """
    group, state = net.group, {name: tensor.detach().clone() for name, tensor in initializer.state_dict().items()}
    if group is None:
        return state
    assert net.partition is not None
    owner, partition = np.array([net.partition[v] for v in net.structure.declared]), {}
    for each in net.structure.groups:
        if not each.slots:
            partition[f"group_{each.name}"] = torch.from_numpy(owner[each.start : each.start + each.count])
    for path, part in initializer.named_modules():
        for name in part._buffers if isinstance(part, Remembering) else ():
            full = f"{path}.{name}" if path else name
            if name in partition and full in state:
                state[full][(partition[name] != group.rank).to(state[full].device)] = 0
                group.sum(state[full])
    group.agree({"what the initializer keeps": {name: tuple(tensor.shape) for name, tensor in state.items()}})
    return state


def _rank(group: Group | None) -> int:
    return 0 if group is None else group.rank


def _known(net: PCNetwork, initializer: Initializer | None, moved: Any) -> dict[int, tuple[str, Place]]:
    """Map the id of each parameter, and of each view of a single weight or bias, to its name and place in the whole."""
    places = net.places or {}
    found = {id(p): (f"net.{places[n].name}", places[n]) for n, p in net.named_parameters() if n in places}
    own = () if initializer is None else initializer.named_parameters()
    found |= {id(p): (f"initializer.{name}", Place(name)) for name, p in own}
    names = {id(p): n for n, p in net.named_parameters()}
    for view in (p for each in moved.param_groups for p in each["params"] if isinstance(p, ParameterView) and p.single):
        place = places[names[id(view.owner)]]
        row = view.rows.start if place.rows is None else int(place.rows[view.rows.start])
        label = f"{place.name.partition('.')[2]}[{row}:{row + 1}]"
        found[id(view)] = (label, Place(label))
    return found


def _names(parameters: Iterable[Tensor], known: Mapping[int, tuple[str, Place]]) -> list[str]:
    if any(id(p) not in known and p.numel() for p in parameters):
        raise ConfigError(
            "the optimizer of a network over several ranks is saved where it holds the tensors of net.parameters(), or "
            "of net.parameter_groups(separate=True), and of the initializer (found another, or several rows of one)",
            key="optimizer",
        )
    return [known[id(p)][0] for p in parameters if id(p) in known]


def _kind(key: str, value: Any, name: str, place: Place, parameter: Tensor) -> list[Any]:
    """Say how a value that is kept of a parameter is written: inline, by one rank, or in rows."""
    if not isinstance(value, Tensor):
        return ["value", encode(value)]
    if value.dim() == 0:
        return ["one", float(value)]
    if place.rows is None:
        return ["one", list(value.shape)]
    if value.shape != parameter.shape:
        raise ConfigError(
            f"the optimizer cannot be saved in parts: it keeps {key} of {name} in the shape {tuple(value.shape)}, and "
            f"not in that of the parameter, {tuple(parameter.shape)}, so that it looks at the tensor as a whole",
            key="optimizer",
        )
    return ["rows", str(value.dtype).removeprefix("torch.")]


def _whole_groups(everyone: Sequence[list[list[str]]], net: PCNetwork) -> list[list[str]]:
    """Put the parameters of each group together, in the order that they would have on one process."""
    if len({len(groups) for groups in everyone}) > 1:
        raise ConfigError("the optimizers of the ranks have different numbers of groups", key="optimizer")
    tensors = {_unkinded(name): i for i, name in enumerate(whole_parameters(net.structure))}

    def place(name: str) -> tuple[bool, int, int]:
        """Say whether it is the network's, and where it lies: its tensor, and the row of a view."""
        tensor, _, row = name.removeprefix("net.").partition("[")
        own = not name.startswith("initializer.")
        return own, tensors[_unkinded(tensor)] if own else 0, int(row.partition(":")[0] or 0)

    found = []
    for groups in zip(*everyone):
        names = list(dict.fromkeys(name for each in groups for name in each))
        both = (each for each in groups if len({place(name)[0] for name in each}) == 2)  # a rank may have no weights
        first = next((place(each[0])[0] for each in both), True)  # the network's come first, or the initializer's
        found.append(sorted(names, key=lambda n, first=first: (place(n)[0] != first, *place(n)[1:])))  # type: ignore[misc]
    return found


def _unkinded(name: str) -> str:
    """Take off what views of single weights and biases leave out of the name of a packed tensor."""
    return name.removeprefix("weights.").removeprefix("biases.")


def _share_of(
    own: Sequence[Tensor], known: Mapping[int, tuple[str, Place]], kept: Mapping[int, Mapping[str, Any]],
    number: Mapping[str, int], keeps: Mapping[str, Mapping[str, Any]], everyone: Sequence[Mapping[str, Any]], rank: int,
) -> Share:  # fmt: skip
    """Collect what this rank writes of what an optimizer keeps; rows that it has kept nothing of are zero."""
    share = Share()
    for j, parameter in enumerate(own):
        if id(parameter) not in known:
            continue
        name, place = known[id(parameter)]
        for key, kind in keeps[name].items():
            where = f"state.{number[name]}.{key}"
            first = next(r for r, theirs in enumerate(everyone) if key in theirs["keeps"].get(name, {}))
            value = kept.get(j, {}).get(key)
            if kind[0] == "rows":
                empty = torch.zeros(parameter.shape, dtype=getattr(torch, kind[1]), device="cpu")
                share.add(where, empty if value is None else value, place)
            elif kind[0] == "one" and first == rank:
                share.tensors[where] = value  # type: ignore[assignment]
    share.all = frozenset(
        f"state.{number[name]}.{k}" for name, each in keeps.items() for k, kind in each.items() if kind[0] != "value"
    )
    return share


def averaged_section(average: AveragedModel, group: Group | None) -> tuple[dict[str, Any], Share]:
    """Make the section of an average of the weights, which are those of a network of the same ranks."""
    section, share = network_section(average.module, group)  # type: ignore[arg-type]
    return {"class": type(average).__name__, **section}, share


# -- reading ----------------------------------------------------------------------------------------------------------


class Pieces:
    """One tensor of the whole, as it lies in one file or in rows in several.

    Parameters
    ----------
    parts : sequence of (rows or None, Tensor)

    Raises
    ------
    ValueError
        They do not make one tensor.
    """

    def __init__(self, parts: Sequence[tuple[Tensor | None, Tensor]]) -> None:
        self.parts = parts
        first = parts[0][1]
        if parts[0][0] is None:
            if len(parts) > 1:
                raise ValueError("a tensor that is not cut is in several files")
            self.shape: tuple[int, ...] = tuple(first.shape)
            return
        rows, count = torch.cat([r for r, _ in parts if r is not None]), sum(len(t) for _, t in parts)
        alike = all(t.dim() and t.shape[1:] == first.shape[1:] and t.dtype == first.dtype for _, t in parts)
        if not alike or not torch.equal(rows.sort().values, torch.arange(count, device="cpu")):
            raise ValueError("the rows of its files do not make a whole")
        self.shape = (count, *first.shape[1:])

    def whole(self) -> Tensor:
        """Put all rows together, in a tensor of its own."""
        if self.parts[0][0] is None:
            return self.parts[0][1].clone()
        found = self.parts[0][1].new_empty(self.shape)
        for rows, tensor in self.parts:
            found[rows] = tensor
        return found

    def take(self, rows: Tensor | None) -> Tensor:
        """Take some rows, and read no others."""
        if rows is None:
            return self.whole()
        if len(rows) and int(rows.max()) >= self.shape[0]:
            raise ValueError(f"it has {self.shape[0]} rows (asked for row {int(rows.max())})")
        if self.parts[0][0] is None:
            return self.parts[0][1][rows]
        found = self.parts[0][1].new_empty(len(rows), *self.shape[1:])
        where = torch.full((self.shape[0],), -1, dtype=torch.int64, device="cpu")
        for there, tensor in self.parts:
            where.fill_(-1)[there] = torch.arange(len(tensor), device="cpu")
            at = where[rows]
            found[at >= 0] = tensor[at[at >= 0]]
        return found


def local_network(state: Mapping[str, Any], net: PCNetwork) -> dict[str, Tensor]:
    """Take the state of one rank's part out of that of the whole.

    Parameters
    ----------
    state : mapping
        Name -> Pieces.
    net : PCNetwork

    Raises
    ------
    KeyError, ValueError
        The whole has no such tensor, or not these rows.
    """
    places, found = net.places, {}
    assert places is not None
    for name, own in net.state_dict().items():
        found[name] = state[places[name].name].take(places[name].rows) if name in places else own
    return found


def local_moved(
    state: Mapping[str, Any], parameters: Sequence[Mapping[str, Any]], moved: Any, net: PCNetwork,
    initializer: Initializer | None,
) -> dict[str, Any]:  # fmt: skip
    """Take the state of one rank's optimizer out of that of the whole.

    Parameters
    ----------
    state : mapping
        As an optimizer gives it, with Pieces for tensors.
    parameters : sequence of mapping
        What the whole one moves, with name and shape.

    Raises
    ------
    KeyError, ValueError
        The whole one has moved other parameters, or in other groups.
    """
    known, number = _known(net, initializer, moved), {each["name"]: i for i, each in enumerate(parameters)}
    if len(state["param_groups"]) != len(moved.param_groups):
        raise ValueError(f"it has {len(state['param_groups'])} groups, and this one has {len(moved.param_groups)}")
    kept, groups, j = {}, [], 0
    for saved, own, now in zip(state["param_groups"], moved.param_groups, moved.state_dict()["param_groups"]):
        there = set(saved["params"])
        for parameter in own["params"]:
            if id(parameter) in known:
                name, place = known[id(parameter)]
                i = number.get(name)
                if i is None or i not in there:
                    raise ValueError(f"it has not moved {name}, or in another group")
                shape = tuple(parameters[i]["shape"])
                if i in state["state"]:
                    kept[j] = {k: _taken(v, place, shape) for k, v in state["state"][i].items()}
            j += 1
        settings = {k: _read(v) for k, v in saved.items() if k not in ("params", "param_names")}
        groups.append({**now, **settings})
    return {"state": kept, "param_groups": groups}


def _read(value: Any) -> Any:
    """Read a setting, of which a tensor is whole on every rank."""
    if isinstance(value, tuple | list):
        return type(value)(_read(each) for each in value)
    return value.whole() if isinstance(value, Pieces) else value


def _taken(value: Any, place: Place, shape: tuple[int, ...]) -> Any:
    if not isinstance(value, Pieces):
        return value
    return value.take(place.rows) if value.shape == shape else value.whole()
