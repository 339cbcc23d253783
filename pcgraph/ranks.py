"""A network that is cut over ranks is declared alike on all of them, and each makes its own part of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pcgraph.arguments import shown
from pcgraph.backends import Backend, TorchBackend
from pcgraph.backends import get as get_backend
from pcgraph.clamps import Clamps
from pcgraph.errors import ClampError, ConfigError
from pcgraph.network import (
    Cut,
    Ghosts,
    HandledNetwork,
    Network,
    Partition,
    Piece,
    Place,
    Structure,
    make_part,
    places,
)  # fmt: skip
from pcgraph.processes import Group, Mesh, asked, initialised, is_mesh, read_group

__all__ = ["SharedNetwork", "inner_backend", "read_ranks", "require_apart"]

Node = Hashable
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def read_ranks(
    structure: Structure, partition: Mapping[Node, int], group: Any
) -> tuple[Cut, int, Group | None, Mesh | None]:
    """Read ``partition=`` and ``group=``: who owns what, which rank this is, the others, and the mesh they lie in.

    Raises
    ------
    ConfigError
        The partition is none of this graph, there are more or fewer processes than it has ranks, or none at all; or
        the mesh is none of data and partition.
    """
    cut = Cut.make(structure, partition)
    if is_mesh(group) and group.ndim != 1:
        mesh = Mesh(group)
        if mesh.partition.size != cut.parts:
            raise ConfigError(
                f'a partition over {cut.parts} ranks needs a mesh whose axis "partition" has as many (found '
                f"{Mesh.told(group)}, of which {mesh.partition.size} hold a network together)",
                key="partition",
            )
        return cut, mesh.partition.rank, mesh.partition if cut.parts > 1 else None, mesh
    if cut.parts == 1:
        return cut, 0, None, None
    if group is False or (group is None and not initialised()):
        raise ConfigError(
            f"a partition over {cut.parts} ranks needs as many processes (found no process group): start the script "
            f"with torchrun --nproc-per-node {cut.parts}, and call torch.distributed.init_process_group() first",
            key="partition",
        )
    ranks = read_group(group)
    size = 1 if ranks is None else ranks.size
    if ranks is None or size != cut.parts:
        raise ConfigError(
            f"a partition over {cut.parts} ranks needs as many processes (found {size}): cut the graph into {size} "
            "parts, or start other processes",
            key="partition",
        )
    return cut, ranks.rank, ranks, None


def require_apart(cut: Cut, group: Group, seed: int, like: torch.Tensor) -> None:
    """Refuse, on all ranks, what they have not declared alike.

    Raises
    ------
    ConfigError
        Names of nodes are told apart by their address alone, or the ranks differ in graph, partition, seed or dtype.
    """
    s = cut.structure
    group.require_same_versions()
    names = [repr(node) for node in s.declared]
    nameless = next((name for name in names if ADDRESS.search(name)), None)
    group.agree({"names of nodes": "whole" if nameless is None else f"by value (found {nameless})"})
    if nameless is not None:
        raise ConfigError(
            f"ranks call a node by its name, and {nameless} is another one in each process: name nodes by strings, "
            "numbers or tuples of these",
            key="partition",
        )
    digest = hashlib.sha256()
    for part in (names, s.source.tolist(), s.target.tolist(), [b.name for b in s.buckets], [g.name for g in s.groups]):
        digest.update(repr(part).encode())
    group.agree({
        "graph (its nodes and edges, declared in the same order)": digest.hexdigest(),
        "partition": hashlib.sha256(repr(cut.owner.tolist()).encode()).hexdigest(),
        "seed": seed,
        "dtype": str(like.dtype),
    })  # fmt: skip


def inner_backend(backend: str | Backend) -> Backend:
    """Return what computes one part: torch's own backend, unless another is asked for."""
    return TorchBackend() if backend == "auto" else get_backend(backend)


class SharedNetwork(HandledNetwork):
    """A network can be cut over ranks: each holds its own nodes and the edges into them, and answers for these."""

    #: Of a network that is cut over ranks: this rank's own network, which nodes it has, and the ranks.
    piece: Network
    _part: Piece | None = None
    group: Group | None = None
    #: The ranks in two dimensions, where others hold the same parts and share the batches.
    mesh: Mesh | None = None
    _places: dict[str, Place] | None = None
    _asked: tuple[Any, Any] = (None, None)

    def _build(self, seed: int) -> None:
        """Make all parameters, or those of this rank."""
        partition, group = self._asked
        if partition is None:
            super()._build(seed)
            return
        cut, rank, self.group, self.mesh = read_ranks(self.structure, partition, group)
        like = torch.empty(0, dtype=self._like.dtype, device="cpu")
        everyone = self.group if self.mesh is None else self.mesh.whole
        if everyone is not None:
            require_apart(cut, everyone, seed, like)
        self._hold_nothing()
        self.piece, self._part = make_part(self.graph, cut, rank, seed, like)
        if next(self.piece.parameters(), None) is None:  # optimizers of torch take no empty list, on no rank
            self.nothing = nn.Parameter(torch.empty(0, 0, device="cpu"), requires_grad=False)

    @property
    def own(self) -> Network:
        return self.piece if self._part is not None else self

    @property
    def rank(self) -> int:
        return 0 if self._part is None else self._part.rank

    @property
    def partition(self) -> Partition | None:
        """Say which rank owns each node, if several do; None otherwise."""
        if self._part is None:
            return None
        owner, names = self._part.cut.owner.tolist(), self.structure.declared
        return Partition(dict(zip(names, owner)), self._part.cut.parts)

    @property
    def places(self) -> dict[str, Place] | None:
        """Say where each tensor of ``state_dict()`` lies in the network of one process; None where this is one."""
        if self._part is None:
            return None
        if self._places is None:
            self._places = {f"piece.{name}": place for name, place in places(self._part, self.piece).items()}
        return self._places

    @property
    def whole_edges(self) -> NDArray[np.int64]:
        """Return the number in the whole structure of each edge of :attr:`own`."""
        return np.arange(len(self.structure.source)) if self._part is None else self._part.edges

    def sharing(self, group: Any) -> tuple[Group | None, Group | None]:
        """Read the argument ``group=`` of a run: who shares its batches, and who takes part in it at all.

        Parameters
        ----------
        group : Group, ProcessGroup, DeviceMesh, False or None
            Of a network that is cut over ranks, these are known, and it may be left out; False: nobody shares batches.

        Raises
        ------
        ConfigError
            It is none, or not the group or the mesh of this network.
        """
        if self.group is None and self.mesh is None:
            ranks = read_group(group)
            return ranks, ranks
        group, data = asked(group), None if self.mesh is None else self.mesh.data
        if group is None or (self.mesh is not None and is_mesh(group) and group == self.mesh.device_mesh):
            return data, self.group if self.mesh is None else self.mesh.whole
        given = None if is_mesh(group) and group.ndim != 1 else read_group(group)
        if group is False or (given is not None and self.group is not None and given.ranks == self.group.ranks):
            return None, self.group
        if self.mesh is not None and given is not None and data is not None and given.ranks == data.ranks:
            return data, self.mesh.whole
        found = Mesh.told(group) if is_mesh(group) else shown(group)
        raise ConfigError(
            f"a network that is cut over ranks is trained by these (found group={found}): leave group= out, or make "
            "the network with this mesh, PCNetwork(graph, partition=..., group=mesh)",
            key="group",
        )

    @property
    def frozen_edges(self) -> frozenset[int]:
        if self._part is None:
            return super().frozen_edges
        return frozenset(self._part.edges[sorted(self.piece.frozen_edges)].tolist())

    @property
    def frozen_biases(self) -> frozenset[int]:
        if self._part is None:
            return super().frozen_biases
        return frozenset(self._part.nodes[sorted(self.piece.frozen_biases)].tolist())

    def check_parameters(self) -> None:
        super().check_parameters() if self._part is None else self.piece.check_parameters()

    def edge_here(self, i: int) -> tuple[Network, int]:
        if self._part is None:
            return self, i
        self._require_here(self.structure.edge(i)[1])
        return self.piece, int(self._part.local_edge[i])

    def node_here(self, i: int) -> tuple[Network, int]:
        if self._part is None:
            return self, i
        self._require_here(self.structure.nodes[int(self.structure.owner[i])])
        return self.piece, int(self._part.local[i])

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedNetwork:
        """Copy what this rank holds; the copy is shared by the same ranks."""
        memo.update({id(each): each for each in (self.group, self.mesh, self._asked, self._part) if each is not None})
        return cast(SharedNetwork, super().__deepcopy__(memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.require_one_process("pickle", "pcgraph.save(folder, net) writes it, called on all ranks")
        return super().__reduce_ex__(protocol)

    def _take_part_anew(self) -> None:
        """Let a copy know which part of its own structure its own piece is."""
        if self._part is not None:
            cut = Cut(self.structure, self._part.cut.owner, self._part.cut.parts)
            self._part = Piece(cut, self._part.rank, self.piece.structure)

    # -- what is done on all ranks together ---------------------------------------------------------------------------

    def holds(self, v: Node) -> bool:
        return self.rank_of(v) == self.rank

    def spread(self, values: Mapping[Node, Tensor], nodes: Iterable[Node], batch: int) -> dict[Node, Tensor]:
        return {} if self._ghosts is None else self._ghosts.spread(values, nodes, batch)

    def collect(self, values: Mapping[Node, Tensor], nodes: Iterable[Node], batch: int) -> dict[Node, Tensor]:
        if self._ghosts is None:
            return super().collect(values, nodes, batch)
        return self._ghosts.collect(values, nodes, batch)

    def gather(self, values: Mapping[Node, Tensor], shapes: Mapping[Node, tuple[int, ...]]) -> dict[Node, Tensor]:
        return super().gather(values, shapes) if self._ghosts is None else self._ghosts.gather(values, shapes)

    def summed(self, tensor: Tensor) -> Tensor:
        return tensor if self.group is None else self.group.sum(tensor.clone())

    def alike(self, tensor: Tensor) -> Tensor:
        return tensor if self.group is None else self.group.broadcast(tensor.detach().clone())

    def require_same_batch(self, clamps: Clamps) -> None:
        """Refuse, on all ranks that share the network, batches of which the sizes or the sums differ.

        Raises
        ------
        ClampError
        """
        if self.group is None:
            return
        known = {**clamps.values, **{i: values for i, (values, _) in clamps.masked.items()}}
        mark = sum((i + 1) * float(t.sum(dtype=torch.float64)) for i, t in sorted(known.items()))
        found = self.group.gather_numbers([clamps.batch, mark]).nan_to_num()
        if not (found == found[0]).all():
            sizes = ", ".join(f"{int(size)} samples of sum {total:.6g}" for size, total in found.tolist())
            raise ClampError(
                f"ranks that share a network get the same batch (found {sizes}, by rank): shuffle by the same seed "
                "on each of them"
            )

    @property
    def _ghosts(self) -> Ghosts | None:
        if self._part is None or self.group is None:
            return None
        return Ghosts(self._part, self.group, torch.empty(0, dtype=self.dtype, device=self.device))

    def rank_of(self, v: Node) -> int:
        if self._part is None:
            return 0
        s = self.structure
        return int(self._part.cut.owner[s.slots[v] if v in s.slots else s.require_node(v)])

    def require_one_process(self, what: str, instead: str) -> None:
        """Refuse, for rooms that compute with whole networks, one that is cut over several ranks.

        Raises
        ------
        ConfigError
        """
        if self._part is not None and self._part.cut.parts > 1:
            raise ConfigError(
                f"{what} does not know networks over several ranks yet (found {self._part.cut.parts}): {instead}",
                key="partition",
            )

    def _require_here(self, v: Node) -> None:
        """Refuse what another rank holds."""
        assert self._part is not None
        if not self.holds(v):
            raise ConfigError(
                f"{v!r} and the edges into it are on rank {self.rank_of(v)}, and this is rank {self.rank}: ask there",
                key="partition",
            )
