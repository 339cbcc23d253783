"""What the fused kernels know and how they are cut is chosen here, from a network's sizes and the traits of a card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pcgraph.activations import Activation
from pcgraph.backends.torch.kernels import Kernel
from pcgraph.backends.traits import Traits
from pcgraph.energies import KL, Bernoulli, CrossEntropy, Energy, Gaussian, Huber, Laplace, Poisson, StudentT, Zero
from pcgraph.network import Bucket, Segment, Structure
from pcgraph.plan.flow import Mask
from pcgraph.plan.operations import Index

__all__ = [
    "ACTIVATIONS", "ENERGIES", "SCATTERED", "Tile", "aside", "division", "early", "known", "learning_tile", "number_of",
    "plain_tile", "power", "precision_of", "priced", "tile_for",
]  # fmt: skip

#: The activations that the kernels know, by their number.
ACTIVATIONS = (
    "identity", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "elu", "silu", "hardtanh", "softplus",
)  # fmt: skip
#: The kernels of torch's backend that have stored entries, from neuron to neuron.
SCATTERED = ("sparse", "entries")
#: The energies that the kernels know, by their number, and what they know of each: two numbers. The last ones are sums
#: over a node, which has to fit one tile.
ENERGIES: dict[type[Energy], Callable[[Any], tuple[float, float]]] = {
    Gaussian: lambda e: (0.0, 0.0),  # its precision stands elsewhere
    Laplace: lambda e: (e.scale, 0.0),
    Huber: lambda e: (e.delta, 0.0),
    StudentT: lambda e: (e.dof + 1, e.dof * e.scale**2),
    Bernoulli: lambda e: (0.0, 0.0),
    Poisson: lambda e: (0.0, 0.0),
    Zero: lambda e: (0.0, 0.0),
    CrossEntropy: lambda e: (0.0, 0.0),
    KL: lambda e: (0.0, 0.0),
}


def priced(segment: Segment, size: int, most: int = 32) -> int:
    """Return the number of the energy of a segment, or -1 where no kernel computes it for nodes of so many neurons."""
    energy = segment.energy
    if energy is None or segment.gaussian:
        return 0
    whole = type(energy) in (CrossEntropy, KL)
    if type(energy) not in ENERGIES or (whole and (size > most or getattr(energy, "by_row", False))):
        return -1
    return list(ENERGIES).index(type(energy))


@dataclass(frozen=True)
class Tile:
    """A program computes so many samples of so many neurons, adding up over so many numbers at a time.

    Where it is `upright` its neurons, and not its samples, are what tensor cores take 64 of.
    """

    samples: int
    neurons: int
    inner: int
    warps: int
    stages: int
    upright: bool = False


def known(segment: Segment) -> int:
    """Return the number of the activation of a segment, or -1 where the kernels do not know it."""
    return number_of(segment.activation)


def number_of(activation: Activation) -> int:
    return ACTIVATIONS.index(activation.name) if activation.named and activation.name in ACTIVATIONS else -1


def aside(bucket: Bucket, kernel: Kernel, structure: Structure, traits: Traits) -> str | None:
    """Say why the fused kernels do not compute the edges of a bucket; return None where they do."""
    if bucket.kind not in ("linear", "identity", "sparse"):
        return f"{bucket.kind} edges"
    if number_of(bucket.phi) < 0:
        return f"the activation {bucket.phi.name!r} is none that they know"
    if bucket.kind == "identity":
        return None if bucket.scale == 1.0 else "a scaled identity"
    if kernel.name in SCATTERED:
        kind = "scalar" if bucket.kind == "linear" else "sparse"
        return None if bucket.phi.is_identity else f"{kind} edges with an activation"
    each = bucket.entries(structure.groups)
    if each >= traits.fused_edge or (each >= traits.heavy_edge and each * bucket.count >= traits.heavy_bucket):
        return "large products are cuBLAS's"
    return None


def division(structure: Structure, kernels: Sequence[Kernel], traits: Traits) -> tuple[Mask, Mask, Mask]:
    """Say which edges the fused kernels compute, which of these neuron by neuron, and which nodes' neurons go so.

    Those are nodes of one neuron, and groups between which there are stored entries alone: of a node that has another
    fused edge as well, such entries are left to torch.

    Returns
    -------
    fused, scalar : ndarray of bool, shape (edges,)
    alone : ndarray of bool, shape (nodes,)
    """
    s = structure
    fused, scalar = np.zeros(len(s.source), dtype=bool), np.zeros(len(s.source), dtype=bool)
    for bucket, kernel in zip(s.buckets, kernels):
        if aside(bucket, kernel, s, traits) is None:
            part = slice(bucket.start, bucket.stop)
            fused[part], scalar[part] = True, kernel.name in SCATTERED
    mixed, alone = np.zeros(len(s.nodes), dtype=bool), np.zeros(len(s.nodes), dtype=bool)
    for ends in (s.source, s.target):
        mixed[ends[fused & ~scalar]] = True
    for bucket in s.buckets:
        part = slice(bucket.start, bucket.stop)
        if scalar[part].any() and (mixed[s.source[part]].any() or mixed[s.target[part]].any()):
            fused[part] = scalar[part] = False
    for ends in (s.source, s.target):
        alone[ends[scalar]] = True
    return fused, scalar, alone


def precision_of(dtype: torch.dtype) -> str:
    """Return how float32 products are taken: in TF32 where torch's switches allow it, else as exactly as in float32.

    That is by three products in TF32, of the upper and lower halves of each number: the plain cores are slower.
    """
    if dtype != torch.float32:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


def tile_for(traits: Traits, sizes: Index, batch: int, exact: bool = False, back: bool = False) -> Tile:
    """Choose how large tiles are, for nodes of these sizes: of what comes in, or of what is pulled `back`.

    Many wait for tiles of their own: few nodes are cut small, so that every part of the card has some. Products that
    are taken in three parts each, `exact` to float32, add up over fewer numbers at a time, and large tiles have more
    warps: what a thread holds then fits its registers, as the compiler tells (tests/backends/compiled.py).
    """
    samples = max(16, min(64, power(batch)))
    if sizes.max(initial=1) <= 32:
        return Tile(samples, 32, 32, 4, 3)
    if -(-sizes // 32).sum() * -(-batch // 32) > traits.many_tiles:
        return Tile(samples, 64, 32, 8, 3) if exact else Tile(samples, 64, 64, 8, 3, True)
    if exact:
        return Tile(min(32, samples), 32, 32, 4, 4)
    return Tile(samples if back else min(32, samples), 64, 64, 8, 3, True)


def plain_tile(sizes: Index) -> Tile:
    """Choose tiles of nodes that no edge is added up for: a thread has a few numbers, side by side."""
    return Tile(16, max(32, min(128, power(int(sizes.max(initial=1))))), 32, 8, 1)


def learning_tile(out: Index, width: Index, exact: bool = False) -> Tile:
    """Choose how large tiles of matrices are that learn: so many rows by so many columns, and samples at a time."""
    if max(out.max(initial=1), width.max(initial=1)) <= 32:
        return Tile(32, 32, 32, 4, 3)
    return Tile(64, 64 if exact or width.max(initial=1) <= 64 else 128, 32, 8, 3)


def early(device: torch.device) -> dict[str, bool]:
    """Return what lets a launch look up its tables while the one before it ends: cards know how from Hopper on."""
    knows = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
    return {"EARLY": True, "launch_pdl": True} if knows else {"EARLY": False}


def power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()
