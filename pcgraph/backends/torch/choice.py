"""Which kernel computes a bucket: a written rule over shapes and counts, never a timing at run time.

    identity, module    as the edge's transform says
    entries             SparseLinear: a CSR matrix an edge, both ways
    sparse              scalar edges (1 -> 1), from SCALAR_EDGES of them on: one CSR matrix for all of them, both ways
    dense               one matrix product an edge: a single edge, or out * in >= LARGE on a CPU
    batched             one batched product for all edges of the bucket: everything else

A large product keeps every core busy alone, and on a CPU batching it gains nothing; small ones drown in overhead one
by one. On a GPU equal edges are batched at any size, since one product of 512 x 512 does not fill it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pcgraph.errors import ConfigError, unknown_name
from pcgraph.network import Bucket, Structure

__all__ = ["KERNELS", "LARGE", "SCALAR_EDGES", "choose"]

#: From this many weights on, an edge is one matrix product by itself on a CPU.
LARGE = 128 * 128
#: From this many edges on, a bucket of scalar edges is one CSR matrix.
SCALAR_EDGES = 32
#: The kernels that a bucket of linear edges can be pinned to.
KERNELS = ("dense", "batched", "sparse")


def check_pins(structure: Structure, pins: Mapping[str, str]) -> None:
    """Refuse pins of buckets that do not exist, or that have one kernel only.

    Raises
    ------
    ConfigError
    """
    known = {b.name: b.kind for b in structure.buckets}
    for name in pins:
        if name not in known:
            raise ConfigError(unknown_name("bucket", name, known), key=name)
        if known[name] != "linear":
            raise ConfigError(f"the bucket {name!r} holds {known[name]} edges, which have one kernel only", key=name)


def choose(structure: Structure, bucket: Bucket, device: str, pins: Mapping[str, str]) -> str:
    """The name of the kernel for `bucket` on a `device` type (``"cpu"``, ``"cuda"``).

    Raises
    ------
    ConfigError
        A pin that names no kernel, or one that cannot compute this bucket.
    """
    if bucket.kind != "linear":
        return "entries" if bucket.kind == "sparse" else bucket.kind
    a, z = structure.groups[bucket.source_group].size, structure.groups[bucket.target_group].size
    scalar = a == z == 1
    pin = pins.get(bucket.name)
    if pin is not None:
        if pin not in KERNELS:
            raise ConfigError(unknown_name("kernel", pin, KERNELS), key=bucket.name)
        if pin == "sparse" and not scalar:
            raise ConfigError(
                f"the sparse kernel needs edges from one neuron to one neuron ({bucket.name} has {a} -> {z}); "
                "pin it to 'dense' or 'batched'",
                key=bucket.name,
            )
        return pin
    if scalar and bucket.count >= SCALAR_EDGES:
        return "sparse"
    if bucket.count == 1 or (device == "cpu" and a * z >= LARGE):
        return "dense"
    return "batched"
