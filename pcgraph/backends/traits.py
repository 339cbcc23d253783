"""The thresholds of devices stand in one table: where one way to compute becomes faster than another.

They are written down once; nothing is timed at run time, so that a network is computed in the same way each time. For
each threshold [in brackets] stands where it comes from: a section of docs/performance.md with its timings, or "by
hand", a guess that no kept timing supports, and the first to doubt on another machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["CPU", "CUDA", "TRITON", "Traits", "traits_of"]


@dataclass(frozen=True)
class Traits:
    """Traits say what is fast on a device.

    Attributes
    ----------
    large_edge : float
        Weights from which on an edge is one product by itself: it keeps every core busy alone. A GPU is never filled.
        [By hand; a batched product over large equal layers lost to single ones: "What bounds a chain".]
    scalar_edges : int
        Scalar edges from which on a bucket is one CSR matrix; fewer drown in its overhead. [By hand.]
    widen : float
        Rows or edges are widened to the neighbours between them where that adds at most this factor: a slice of all
        is then quicker than gathering some. [By hand.]
    pieces : int
        Rows in more pieces than this are gathered instead of being taken slice by slice. [By hand.]
    lasting_slope : int
        Neurons of a node from which on a prediction that holds still is worth an operation of its own. [By hand, for
        the networks of "What bounds a chain", where it gains.]
    chunk : float
        Bytes of gathered states that a batched product handles at a time, so that they stay in the cache: smaller
        pieces lose more in calls, larger ones in misses. ["What bounds groups", pieces of two to sixteen megabytes.]
    spare_rows : int
        Rows are added to as one slice where that has at most so many rows for each one that gets something. [By hand.]
    sums_by_csr : bool
        Whether a product with a CSR matrix of ones is the quickest sum of rows that keeps their order. ["What bounds
        groups", against ``index_add_`` and bags.]
    onednn_product, onednn_tanh : float
        Multiplications, and values, from which on a call of oneDNN pays, where it is used at all. ["What bounds a
        chain", on an EPYC.]
    onednn_piece : int
        Values of such a tanh at a time: few enough that what is written is still in the cache when it is read. [By
        hand.]
    few_clamps : int
        So many clamped nodes of one shape are copied one by one; more are stacked first. [By hand.]
    small_clamp : int
        Numbers up to which the values of clamped nodes are copied together, by one call: on a card it has one core for
        each 65,536 numbers of each. ["On a GPU".]
    rate_sets : int
        Sets of different rates of the same nodes that stay on the device, the latest. [By hand: a schedule that goes
        back and forth has few.]
    fused_edge : float
        Weights from which on an edge is left to cuBLAS, and the fused kernels do what follows it alone. ["On a GPU".]
    heavy_edge, heavy_bucket : float
        The same for an edge of so many weights where its bucket has so many in all: launches are few then, and cuBLAS
        multiplies three times as fast. ["On a GPU", 32 layers of 512.]
    plain_numbers : int
        States from which on nodes whose products are cuBLAS's have a launch of their own for all else. ["On a GPU", 32
        layers.]
    many_tiles : int
        Tiles of 32 by 32 from which on larger ones are quicker: each core of the card has some of its own. ["On a
        GPU".]
    scalar_rows, scalar_edges_at_once, scalar_warps : int
        A program computes so many scalar neurons of 32 samples, looks at so many edges of each at a time, by so many
        warps; where there are fewer samples, it has as many more neurons, and fewer edges at a time. It waits for
        memory four times, one look-up after the other, so that neurons side by side are what counts. ["On a GPU", six
        choices beside each other; of eight samples, 2, 4, 8 and 16 edges at a time.]
    scalar_learning : int
        A program that learns their weights has so many edges times samples. ["On a GPU", 256, 512 and 1,024.]
    early : bool
        Whether a launch begins while the one before it ends, and looks up its tables meanwhile (on Hopper and later).
        ["On a GPU", with and without.]
    """

    large_edge: float
    scalar_edges: int = 32
    widen: float = 1.25
    pieces: int = 4
    lasting_slope: int = 256
    chunk: float = math.inf
    spare_rows: int = 2
    sums_by_csr: bool = False
    onednn_product: float = math.inf
    onednn_tanh: float = math.inf
    onednn_piece: int = 2**18
    few_clamps: int = 4
    small_clamp: int = 2**14
    rate_sets: int = 8
    fused_edge: float = math.inf
    heavy_edge: float = math.inf
    heavy_bucket: float = math.inf
    plain_numbers: int = 2**20
    many_tiles: int = 4096
    scalar_rows: int = 4
    scalar_edges_at_once: int = 8
    scalar_warps: int = 1
    scalar_learning: int = 1024
    early: bool = True


#: Two to sixteen cores of x86-64.
CPU = Traits(
    large_edge=128 * 128, chunk=8 * 2**20, sums_by_csr=True, onednn_product=2**24, onednn_tanh=2**16
)  # fmt: skip
#: An NVIDIA GPU. Whatever is equal is batched at any size, since one product of 512 x 512 does not fill it.
CUDA = Traits(large_edge=math.inf)
#: The same, with fused kernels: a table may name any rows, so that nothing is widened, gathered or kept for slices.
TRITON = replace(CUDA, widen=1.0, lasting_slope=2**62, fused_edge=1024 * 1024, heavy_edge=256 * 256, heavy_bucket=2**22)


def traits_of(device: str) -> Traits:
    """Return the thresholds for a type of device, as in ``torch.device.type``; a GPU's where nothing is known."""
    return CPU if device == "cpu" else CUDA
