"""A network that is cut over ranks is declared alike on all of them, and each makes its own part of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import shown
from pcgraph.backends import Backend, TorchBackend
from pcgraph.backends import get as get_backend
from pcgraph.energies import Energy
from pcgraph.errors import ConfigError
from pcgraph.inference import Options
from pcgraph.network import (
    Carried,
    Cut,
    HandledNetwork,
    Network,
    ParameterView,
    Partition,
    Piece,
    Structure,
    Summary,
    make_part,
)  # fmt: skip
from pcgraph.optimizers import SGD, Adam, Following
from pcgraph.processes import Group, initialised, read_group

__all__ = ["SharedNetwork", "inner_backend", "read_ranks", "require_apart", "require_runs"]

Node = Hashable
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def read_ranks(structure: Structure, partition: Mapping[Node, int], group: Any) -> tuple[Cut, int, Group | None]:
    """Read ``partition=`` and ``group=``: who owns what, which rank this is, and the others.

    Raises
    ------
    ConfigError
        The partition is none of this graph, there are more or fewer processes than it has ranks, or none at all.
    """
    cut = Cut.make(structure, partition)
    if cut.parts == 1:
        return cut, 0, None
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
    return cut, ranks.rank, ranks


def require_apart(cut: Cut, group: Group, seed: int, like: torch.Tensor) -> None:
    """Refuse, on all ranks, what they have not declared alike.

    Raises
    ------
    ConfigError
        Names of nodes are told apart by their address alone, or the ranks differ in graph, partition, seed or dtype.
    """
    s = cut.structure
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
        "version of torch": torch.__version__,
    })  # fmt: skip


def inner_backend(backend: str | Backend) -> Backend:
    """Return what computes one part: torch's own backend, unless another is asked for."""
    return TorchBackend() if backend == "auto" else get_backend(backend)


def require_runs(optimizer: object, options: Options, all_move: bool, nudged: bool) -> None:
    """Refuse what does not run over several ranks yet, before anything does.

    Raises
    ------
    ConfigError
    """
    why = None
    if optimizer is not None and type(optimizer) not in (SGD, Adam):
        why = f"optimizer={shown(optimizer)}: take pcgraph.SGD or pcgraph.Adam"
    elif isinstance(getattr(optimizer, "lr", None), Following):
        why = "a rate that follows the curvature: give a number"
    elif options.stop is not None:
        why = "duals that stop: leave out stop="
    elif options.trace == "nodes":
        why = "trace='nodes': trace=True adds up the energies of all ranks"
    elif options.states is not None or options.callback is not None:
        why = "states that are kept or shown on the way: read result.states at the end"
    elif all_move or nudged:
        why = "learning rules that carry on or nudge states: take the standard rule"
    if why is not None:
        raise ConfigError(f"a network over several ranks does not know {why}", key="partition")


class SharedNetwork(HandledNetwork):
    """A network can be cut over ranks: each holds its own nodes and the edges into them, and answers for these."""

    #: Of a network that is cut over ranks: this rank's own network, which nodes it has, and the ranks.
    piece: Network
    _part: Piece | None = None
    group: Group | None = None
    _asked: tuple[Any, Any] = (None, None)

    def _build(self, seed: int) -> None:
        """Make all parameters, or those of this rank."""
        partition, group = self._asked
        if partition is None:
            super()._build(seed)
            return
        cut, rank, self.group = read_ranks(self.structure, partition, group)
        like = torch.empty(0, dtype=self._like.dtype, device="cpu")
        if self.group is not None:
            require_apart(cut, self.group, seed, like)
        self._hold_nothing()
        self.piece, self._part = make_part(self.graph, cut, rank, seed, like)

    @property
    def own(self) -> Network:
        return self.piece if self._part is not None else self

    @property
    def rank(self) -> int:
        """Return the rank of this process among those that share the network; 0 where none do."""
        return 0 if self._part is None else self._part.rank

    @property
    def partition(self) -> Partition | None:
        """Say which rank owns each node, if several do; None otherwise."""
        if self._part is None:
            return None
        owner, names = self._part.cut.owner.tolist(), self.structure.declared
        return Partition(dict(zip(names, owner)), self._part.cut.parts)

    def weight(self, u: Node, v: Node, key: Hashable | None = None, *, slot: str | None = None) -> ParameterView:
        if self._part is None:
            return super().weight(u, v, key, slot=slot)
        self.structure.edge_number(u, v, key, slot)
        self._require_here(v)
        return self.piece.weight(u, v, key, slot=slot)

    def bias(self, v: Node, *, slot: str | None = None) -> ParameterView:
        if self._part is None:
            return super().bias(v, slot=slot)
        self.structure.require_prediction(v, slot)
        self._require_here(v)
        return self.piece.bias(v, slot=slot)

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

    def load_from(self, other: Network) -> Carried:
        self.require_one_process("load_from", "load net.state_dict() of the same rank")
        return super().load_from(other)

    def summary(self, *, most: int = 60) -> Summary:
        self.require_one_process("summary", "plan.explain() says what each rank holds")
        return super().summary(most=most)

    def check_parameters(self) -> None:
        super().check_parameters() if self._part is None else self.piece.check_parameters()

    def differentiable_prediction(self, v: Node, states: Mapping[Node, Tensor]) -> Tensor:
        self.require_one_process("a rule that predicts by autograd", "take the standard rule")
        return super().differentiable_prediction(v, states)

    def node_energy(self, i: int) -> Energy:
        self.require_one_process("node_energy", "result.node_energy has those of this rank's nodes")
        return super().node_energy(i)

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
        rank = int(self._part.cut.owner[self.structure.require_node(v)])
        if rank != self._part.rank:
            raise ConfigError(
                f"what leads into {v!r} is on rank {rank}, and this is rank {self._part.rank}: ask there",
                key="partition",
            )
