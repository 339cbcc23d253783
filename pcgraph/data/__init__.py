"""Data sets of images, whole on one device, and batches of them, stream-aligned if wanted.

>>> from pcgraph import data
>>> train, test = data.load("digits"), data.load("digits", "test")
>>> for x, y in train.batches(50, stream_aligned=True):
...     pass  # x: (50, 64), y: (50, 10), five of each class, in class order
"""

from .formats import read_cifar10, read_idx
from .images import Batches, Images, load
from .order import StreamAligned
from .sources import CATALOGUE

__all__ = ["Batches", "Images", "StreamAligned", "load", "names", "read_cifar10", "read_idx"]

names: tuple[str, ...] = tuple(CATALOGUE)
"""The data sets that :func:`load` knows."""
