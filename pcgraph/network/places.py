"""Each tensor of a rank's own network has a place in the whole one: rows of a packed tensor, or one of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcgraph.errors import GraphError
from pcgraph.network.network import Network
from pcgraph.network.own import Piece
from pcgraph.network.structure import Structure

__all__ = ["Place", "places", "require_as_made", "whole_parameters"]


@dataclass(frozen=True, eq=False)
class Place:
    """A place is where a tensor of one rank lies in the network that one process would have.

    Attributes
    ----------
    name : str
        Of the tensor of the whole network, as in ``state_dict()``.
    rows : Tensor of int64 or None, shape (rows,)
        Which rows of that tensor these are; None where it is not cut.
    """

    name: str
    rows: Tensor | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """Take what lies here from a tensor of the whole."""
        return tensor if self.rows is None else tensor[self.rows.to(tensor.device)]


def places(part: Piece, network: Network) -> dict[str, Place]:
    """Give the place of every parameter and buffer of a rank's own network, by its name there.

    Parameters
    ----------
    part : Piece
    network : Network
        The rank's own.
    """
    own, whole = part.structure, part.cut.structure
    found: dict[str, Place] = {}
    for bucket in own.buckets:
        if bucket.name in network.weights:
            there, rows = part.weight_rows(bucket)
            found[f"weights.{bucket.name}"] = Place(f"weights.{there.name}", torch.from_numpy(rows))
        elif bucket.name in network.edge_modules:
            there, _ = part.weight_rows(bucket)
            found |= _of_module("edge_modules", network.edge_modules[bucket.name], bucket.name, there.name)
    for name, nodes in own.bias_packs():
        there_name, rows = part.bias_rows(nodes)
        found[f"biases.{name}"] = Place(f"biases.{there_name}", torch.from_numpy(rows))
    for key, energy in network.energies.items():
        first = part.nodes[own.nodes_of(own.segments[int(key)]).start]
        found |= _of_module("energies", energy, key, str(whole.segment_of[first]))
    return found


def _of_module(kind: str, module: nn.Module, here: str, there: str) -> Mapping[str, Place]:
    names = (name for name, _ in (*module.named_parameters(), *module.named_buffers()))
    return {f"{kind}.{here}.{name}": Place(f"{kind}.{there}.{name}") for name in names}


def whole_parameters(structure: Structure) -> dict[str, tuple[int, ...]]:
    """Give the name and shape of every parameter that one process would have, in the order of its ``parameters()``."""
    found = {f"{kind}.{name}": shape for kind, name, shape in _packed(structure)}
    seen: set[int] = set()
    modules: list[tuple[str, nn.Module]] = [
        (f"edge_modules.{b.name}", b.transform) for b in structure.buckets if b.kind in ("module", "joint")
    ]
    for i, segment in enumerate(structure.segments):
        if segment.energy is not None and not segment.gaussian:
            modules.append((f"energies.{i}", segment.energy))
    for prefix, module in modules:
        for name, parameter in module.named_parameters():
            if id(parameter) not in seen:
                found[f"{prefix}.{name}"] = tuple(parameter.shape)
                seen.add(id(parameter))
    return found


def require_as_made(network: Network) -> None:
    """Refuse a network whose packed parameters are no longer of the shape and type that they were made with.

    Raises
    ------
    GraphError
        Another tensor was put in the place of one.
    """
    for kind, name, shape in _packed(network.structure):
        found: Tensor = getattr(network, kind)[name]
        if found.shape != shape or (found.dtype, found.device) != (network.dtype, network.device):
            raise GraphError(
                f"the parameter {kind}.{name} was made with shape {shape}, and the network is {network.dtype} on "
                f"{network.device} (found shape {tuple(found.shape)}, {found.dtype} on {found.device}): change its "
                "values, or convert and move the network as a whole, as in net.double()",
                found=f"{kind}.{name}",
            )


def _packed(structure: Structure) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield (kind, name, shape) of the packed weights and biases of a structure."""
    for bucket in structure.buckets:
        a, z = structure.groups[bucket.source_group], structure.groups[bucket.target_group]
        if bucket.kind == "linear":
            yield "weights", bucket.name, (bucket.rows, z.size, a.size)
        elif bucket.kind == "sparse":
            yield "weights", bucket.name, (bucket.rows, bucket.entries(structure.groups))
    for name, nodes in structure.bias_packs():
        yield "biases", name, (len(nodes), *structure.bias_shape(int(nodes[0])))
