"""Every kernel of edges is one record here, and a written rule chooses among them.

    joint               an edge into a node with a combine: the first of them computes it, by autograd
    identity, module    as the edge's transform says
    tie                 the edge from a node to its slot: a copy of the state, and the slot's own gradient back
    entries             SparseLinear: a CSR matrix an edge, both ways
    sparse              scalar edges (1 -> 1), from ``Traits.scalar_edges`` on: one CSR matrix for all, both ways
    dense               one matrix product an edge: a single edge, or one of ``Traits.large_edge`` weights or more
    batched             one batched product for all edges of the bucket: everything else

Transposed edges go by dense, batched or sparse as others do, and read the rows of another bucket's parameter.

The rule looks at shapes and counts, never at a clock, so that a network is computed in the same way each time. A large
product keeps every core of a CPU busy alone, and batching it gains nothing; small ones drown in overhead one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from pcgraph.backends.torch import edges, joint, modules, sparse
from pcgraph.backends.torch.calls import Send, SendBack
from pcgraph.backends.torch.gradients import Gradient, packed
from pcgraph.backends.torch.workspace import Step, Workspace
from pcgraph.backends.traits import Traits
from pcgraph.errors import ConfigError, unknown_name
from pcgraph.network import Bucket, Structure
from pcgraph.plan.products import without_data

__all__ = ["KERNELS", "Kernel", "choose", "chosen"]


@dataclass(frozen=True)
class Kernel:
    """A kernel computes the edges of a bucket: forward, back, and for the weights.

    Attributes
    ----------
    name : str
    forward, pull : callable
        ``(workspace, call) -> step``.
    weights : callable or None
        ``(workspace, bucket, calls) -> gradient``, a function of a scale; None where there is nothing to learn.
    forward_one_by_one, pull_one_by_one : bool
        Whether a call is for one edge; else it is for as many as there are.
    begins : bool
        Whether the first product into a target can be written with its bias, where all targets differ.
    writes : bool
        Whether the first that is pulled into a gradient can be written.
    widens : bool
        Whether edges between those that are needed are computed along, for the sake of a slice.
    choosable : bool
        Whether linear edges can be pinned to it.
    capturable : bool
        Whether it does the same work whatever it computes.
    scratch : float
        How often the states at the two ends of all edges are held besides.
    adds : bool
        Whether what it carries forward is added to what comes into its targets.
    """

    name: str
    forward: Callable[[Workspace, Send], Step]
    pull: Callable[[Workspace, SendBack], Step]
    weights: Callable[[Workspace, Bucket, list[SendBack]], Gradient] | None
    forward_one_by_one: bool = False
    pull_one_by_one: bool = False
    begins: bool = False
    writes: bool = False
    widens: bool = False
    choosable: bool = False
    capturable: bool = True
    scratch: bool = True
    adds: bool = True

    def memory(self, structure: Structure, bucket: Bucket) -> tuple[int, int]:
        """Count the numbers a sample that are kept, and those that are held for a while."""
        groups = structure.groups
        width = groups[bucket.source_group].size + groups[bucket.target_group].size
        if bucket.kind == "module":
            # One evaluation of each edge is kept, and one more exists while it is replaced.
            kept = width + kept_by(bucket.transform, groups[bucket.source_group].shape)
            return kept * bucket.count, kept
        return 0, width * bucket.count if self.scratch else 0


def _module_weights(ws: Workspace, bucket: Bucket, calls: list[SendBack]) -> Gradient:
    parts = [modules.module_weights(ws, call) for call in calls]

    def run(scale: float) -> None:
        for part in parts:
            part(scale)

    return run


_ALL = (
    Kernel(
        "dense", edges.dense_forward, edges.dense_pull, packed(edges.dense_weights), forward_one_by_one=True,
        pull_one_by_one=True, begins=True, writes=True, choosable=True, scratch=False,
    ),
    Kernel(
        "batched", edges.batched_forward, edges.batched_pull, packed(edges.batched_weights), begins=True, widens=True,
        choosable=True,
    ),
    Kernel(
        "sparse", sparse.scalar_forward, sparse.scalar_pull, packed(sparse.scalar_weights), widens=True, choosable=True
    ),
    Kernel(
        "entries", sparse.entries_forward, sparse.entries_pull, packed(sparse.entries_weights), pull_one_by_one=True
    ),
    Kernel("identity", modules.identity_forward, modules.identity_pull, None),
    Kernel("tie", modules.tie_forward, modules.tie_pull, None, scratch=False, adds=False),
    Kernel(
        "joint", joint.joint_forward, joint.joint_pull, joint.joint_weights, forward_one_by_one=True,
        pull_one_by_one=True, capturable=False,
    ),
    Kernel(
        "module", modules.module_forward, modules.module_pull, _module_weights, pull_one_by_one=True, capturable=False
    ),
)  # fmt: skip
#: Name -> kernel.
KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _ALL}


def chosen(structure: Structure, traits: Traits, pins: Mapping[str, str]) -> tuple[Kernel, ...]:
    """Choose the kernel of each bucket.

    Raises
    ------
    ConfigError
        A pin of a bucket that does not exist or has one kernel only, or to a kernel that cannot compute it.
    """
    known = {b.name: b.kind for b in structure.buckets}
    for name in pins:
        if name not in known:
            raise ConfigError(unknown_name("bucket", name, known), key=name)
        if known[name] not in ("linear", "transposed"):
            raise ConfigError(f"the bucket {name!r} holds {known[name]} edges, which have one kernel only", key=name)
    return tuple(choose(structure, bucket, traits, pins.get(bucket.name)) for bucket in structure.buckets)


def choose(structure: Structure, bucket: Bucket, traits: Traits, pin: str | None = None) -> Kernel:
    """Choose the kernel for `bucket` on a device of these traits.

    Raises
    ------
    ConfigError
        A pin that names no kernel, or one that cannot compute this bucket.
    """
    if not bucket.dense:
        return KERNELS["entries" if bucket.kind == "sparse" else bucket.kind]
    a, z = structure.groups[bucket.source_group].size, structure.groups[bucket.target_group].size
    scalar = a == z == 1
    if pin is not None:
        names = [name for name, kernel in KERNELS.items() if kernel.choosable]
        if pin not in names:
            raise ConfigError(unknown_name("kernel", pin, names), key=bucket.name)
        if pin == "sparse" and not scalar:
            raise ConfigError(
                f"the sparse kernel needs edges from one neuron to one neuron ({bucket.name} has {a} -> {z}); "
                "pin it to 'dense' or 'batched'",
                key=bucket.name,
            )
        return KERNELS[pin]
    if scalar and bucket.count >= traits.scalar_edges:
        return KERNELS["sparse"]
    return KERNELS["dense" if bucket.count == 1 or a * z >= traits.large_edge else "batched"]


def kept_by(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the numbers a sample that autograd keeps of one evaluation of `module`, without the parameters.

    0 for a module that cannot run on tensors without data: the estimate is then too low by what it keeps.
    """
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            kept[id(tensor)] = tensor.numel()
            alive.append(tensor)
        return tensor

    alive: list[torch.Tensor] = []
    try:
        bare = without_data(module)
        own = [*bare.parameters(), *bare.buffers()]
        known = {id(tensor) for tensor in own}
        dtype = next((tensor.dtype for tensor in own if tensor.is_floating_point()), torch.float32)
        x = torch.zeros((1, *shape), device="meta", dtype=dtype, requires_grad=True)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            bare(x)
    except Exception:  # whatever a user's module may raise
        return 0
    return sum(kept.values())
