"""Load data sets of images whole onto one device, and cut batches from them, stream-aligned if wanted.

>>> from pcgraph import data
>>> train, test = data.load("digits"), data.load("digits", "test")
>>> for x, y in train.batches(50, stream_aligned=True):
...     pass  # x: (50, 64), y: (50, 10), five of each class, in class order
"""

from pcgraph.data.formats import read_cifar10, read_idx
from pcgraph.data.images import Batches, Images
from pcgraph.data.loading import load
from pcgraph.data.sampling import StreamAligned
from pcgraph.data.sources import CATALOGUE

__all__ = ["Batches", "Images", "StreamAligned", "load", "names", "read_cifar10", "read_idx"]

names: tuple[str, ...] = tuple(CATALOGUE)
"""The names of the data sets that :func:`load` knows."""
