"""A matrix may have few entries: storage and work are then those of the entries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcgraph.arguments import read_numbers, require_number, require_seed
from pcgraph.errors import GraphError
from pcgraph.transforms.base import Shape, Transform

__all__ = ["SparseLinear"]

#: What the numbers of neurons may be.
INDICES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class SparseLinear(Transform):
    """A matrix with stored entries only leads from the neurons of the source to those of the target, ``W h``.

    The values are packed by the network, as a CSR matrix both ways, and learn at the stored entries alone. Give the
    entries in exactly one of three ways.

    Parameters
    ----------
    edge_index : Tensor of int64, shape (2, entries), optional
        (source neuron, target neuron), as in torch_geometric, whose ``EdgeIndex`` may be given; neurons are counted
        in the flattened state. Each pair at most once.
    mask : Tensor of bool, shape (target neurons, source neurons), optional
        An entry where it is true, as the weight of ``nn.Linear`` is laid out.
    density : float, optional
        So large a part of all pairs, drawn at random, at least one.
    seed : int
        Of that draw.

    Raises
    ------
    GraphError
        Not exactly one way is given, there is no entry or one twice, or one lies outside of the two groups.

    Examples
    --------
    >>> import networkx as nx, pcgraph
    >>> graph = nx.DiGraph()
    >>> graph.add_node("h", shape=1000, activation="tanh")
    >>> graph.add_edge("h", "h", transform=SparseLinear(density=0.01))
    >>> pcgraph.PCNetwork(graph).weight("h", "h").shape
    torch.Size([10000])
    """

    def __init__(
        self, edge_index: Tensor | None = None, *, mask: Tensor | None = None, density: float | None = None,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        given = [name for name, value in (("edge_index", edge_index), ("mask", mask), ("density", density))
                 if value is not None]  # fmt: skip
        if len(given) != 1:
            raise GraphError(
                f"SparseLinear needs exactly one of edge_index, mask and density (found {', '.join(given) or 'none'})",
                found=given,
            )
        self.density = (
            None if density is None else require_number(density, "density", above=0, most=1, refuse=GraphError)
        )
        self.seed = require_seed(seed, refuse=GraphError)
        self.mask_shape: tuple[int, int] | None = None
        if mask is not None:
            mask = read_numbers(mask, "a mask", refuse=GraphError)
            if mask.dim() != 2 or mask.dtype != torch.bool:
                raise GraphError(
                    f"a mask is a bool tensor of shape (target neurons, source neurons) (found {mask.dtype}, "
                    f"{tuple(mask.shape)})",
                    found=tuple(mask.shape),
                )
            self.mask_shape = (int(mask.shape[0]), int(mask.shape[1]))
            edge_index = mask.nonzero().t().flip(0)
        self._given = (
            None if edge_index is None else _checked(read_numbers(edge_index, "edge_index", refuse=GraphError))
        )
        self._drawn: dict[tuple[Shape, Shape], Tensor] = {}

    def entries(self, source_shape: Shape, target_shape: Shape) -> Tensor:
        """Return the stored entries as (source neuron, target neuron), by target and then by source, (2, entries)."""
        if self._given is not None:
            return self._given
        key = (tuple(source_shape), tuple(target_shape))
        if key not in self._drawn:
            assert self.density is not None
            self._drawn[key] = _draw(math.prod(source_shape), math.prod(target_shape), self.density, self.seed)
        return self._drawn[key]

    def fits(self, source_shape: Shape, target_shape: Shape) -> Shape | None:
        sizes = (math.prod(target_shape), math.prod(source_shape))
        if self.mask_shape is not None and self.mask_shape != sizes:
            raise GraphError(
                f"the mask needs shape {sizes}, target neurons by source neurons (found {self.mask_shape})",
                found=self.mask_shape,
            )
        entries = self.entries(source_shape, target_shape)
        for side, count, size in zip(("source", "target"), entries, reversed(sizes)):
            if int(count.max()) >= size:
                raise GraphError(
                    f"edge_index names the {side} neuron {int(count.max())}, but the {side} has {size} neurons "
                    f"(0 to {size - 1})",
                    found=int(count.max()),
                )
        return None

    def config(self) -> dict[str, Any]:
        if self.density is not None:
            return {"density": self.density, "seed": self.seed}
        assert self._given is not None
        return {"edge_index": self._given.tolist()}


def _checked(edge_index: Tensor) -> Tensor:
    """Sort entries by target and then by source, and refuse what is no list of distinct pairs."""
    if edge_index.dim() != 2 or edge_index.shape[0] != 2 or edge_index.dtype not in INDICES:
        raise GraphError(
            f"edge_index needs integers of shape (2, entries) (found {edge_index.dtype}, {tuple(edge_index.shape)})",
            found=tuple(edge_index.shape),
        )
    if edge_index.shape[1] == 0:
        raise GraphError("SparseLinear needs at least one entry (found none)", found=0)
    entries = edge_index.cpu().to(torch.int64)
    if int(entries.min()) < 0:
        raise GraphError("edge_index names a negative neuron", found=int(entries.min()))
    entries = _in_order(entries)
    twice = (entries.diff(dim=1) == 0).all(0)
    if twice.any():
        source, target = entries[:, int(twice.nonzero()[0])].tolist()
        raise GraphError(
            f"edge_index has the entry {source} -> {target} twice ({int(twice.sum())} such in all); "
            "give each pair once",
            found=(source, target),
        )
    return entries


def _in_order(entries: Tensor) -> Tensor:
    """Sort entries by target and then by source: as one number each, where that fits, since numbers sort fast."""
    sources, targets = (1 + entries.max(1).values).tolist()
    if sources * targets >= 2**63:
        return entries[:, torch.from_numpy(np.lexsort(entries.numpy()))]
    places = torch.from_numpy(np.sort((entries[1] * sources + entries[0]).numpy()))
    return torch.stack([places % sources, places // sources])


def _draw(sources: int, targets: int, density: float, seed: int) -> Tensor:
    """Draw distinct pairs, uniformly over all of them."""
    total = sources * targets
    wanted = max(1, round(density * total))
    rng = np.random.default_rng(seed % 2**64)
    if wanted > total // 2:
        flat = np.sort(rng.permutation(total)[:wanted])
    else:
        flat = _distinct(rng.integers(0, total, wanted))
        while len(flat) < wanted:
            flat = _distinct(np.concatenate([flat, rng.integers(0, total, wanted - len(flat))]))
    target, source = np.divmod(flat, sources)
    return torch.from_numpy(np.stack([source, target]))


def _distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort the values and drop those that come twice: ``np.unique``, which is many times as slow for millions."""
    values.sort()
    return values[np.r_[True, values[1:] != values[:-1]]]
