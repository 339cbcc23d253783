"""A structure has parts in which many nodes or edges are treated as one: groups, segments and buckets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pcgraph.activations import Activation
from pcgraph.energies import Energy, Gaussian
from pcgraph.network.adjacency import Index
from pcgraph.network.declaration import Shape
from pcgraph.transforms import Transform

__all__ = ["Bucket", "Group", "Segment", "unused_name"]


@dataclass(frozen=True)
class Group:
    """Nodes of one shape lie side by side: they have the canonical numbers `start` to `start + count - 1`."""

    shape: Shape
    start: int
    count: int
    slots: bool = False

    @cached_property
    def size(self) -> int:
        """One node has so many neurons."""
        return math.prod(self.shape)

    @cached_property
    def name(self) -> str:
        """The shape is written so in a parameter's name, as in ``bias_28x28``; of slots, as in ``bias_28x28_slots``."""
        return "x".join(map(str, self.shape)) + ("_slots" if self.slots else "")


@dataclass(frozen=True, eq=False)
class Segment:
    """For these neighbours in a group the same elementwise work is done.

    `start` and `stop` are positions in the group. `energy` is None for roots without a prior.
    """

    group: int
    start: int
    stop: int
    activation: Activation
    energy: Energy | None
    precision: NDArray[np.float64] | None
    is_root: bool

    @property
    def gaussian(self) -> bool:
        """The energy is the default one, whose precisions are kept in `precision`."""
        return type(self.energy) is Gaussian


@dataclass(frozen=True, eq=False)
class Bucket:
    """Edges that do the same lie side by side: they have the canonical numbers `start` to `stop - 1`.

    Attributes
    ----------
    kind : {"linear", "transposed", "sparse", "identity", "module", "joint", "tie"}
    name : str
        Of its parameter, or of its module, in the network.
    source_group, target_group : int
    phi : Activation
        What the edge does to the source's state first.
    transform : Transform
    trainable : bool
    weight : ndarray or None
        Which row of the parameter each edge uses; None where edge i uses row i.
    rows : int
        Rows of the parameter, if it is the bucket's own.
    scale : float
        The factor of all that the edges send.
    lender : str or None
        The name of the bucket whose parameter transposed edges use.
    """

    kind: str
    name: str
    source_group: int
    target_group: int
    start: int
    stop: int
    phi: Activation
    transform: Transform
    trainable: bool
    weight: Index | None
    rows: int
    scale: float = 1.0
    lender: str | None = None

    @property
    def packed(self) -> str | None:
        """Return the name of the packed parameter in which the weights of the edges lie; None where there is none."""
        return self.name if self.kind in ("linear", "sparse") else self.lender

    @property
    def dense(self) -> bool:
        """Each edge is a product with a matrix."""
        return self.kind in ("linear", "transposed")

    @property
    def count(self) -> int:
        """The bucket holds so many edges."""
        return self.stop - self.start

    def row(self, edge: int) -> int:
        """Return the row of the parameter that the edge with this canonical number uses."""
        return edge - self.start if self.weight is None else int(self.weight[edge - self.start])

    @property
    def keeps_zero(self) -> bool:
        """A source that is zero adds nothing to its targets."""
        return self.kind not in ("module", "joint", "tie") and self.phi.at_zero == 0.0

    @property
    def multiplies(self) -> bool:
        """These edges take a product with a weight, or what stands for one."""
        return self.kind not in ("identity", "tie")

    @property
    def learns(self) -> bool:
        """These edges have weights that are declared trainable."""
        return self.trainable and self.multiplies

    def entries(self, groups: tuple[Group, ...]) -> int:
        """Count the weights of one edge that lie packed."""
        a, z = groups[self.source_group], groups[self.target_group]
        if self.dense:
            return a.size * z.size
        return self.pattern(groups).shape[1] if self.kind == "sparse" else 0

    def pattern(self, groups: tuple[Group, ...]) -> torch.Tensor:
        """Return the stored entries of a sparse edge, shape (2, entries), by target and then by source."""
        stored = self.transform.entries(groups[self.source_group].shape, groups[self.target_group].shape)
        assert stored is not None
        return stored


def unused_name(name: str, names: dict[str, int]) -> str:
    """Number a name that is taken: `names` counts how often each was asked for."""
    count = names.get(name, 0) + 1
    unused = name
    while count > 1 and (unused := f"{name}_{count}") in names:  # "f" for the second time, where one is called "f_2"
        count += 1
    names[name] = count
    names.setdefault(unused, 1)
    return unused
