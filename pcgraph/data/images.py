"""Keep whole data sets of images as tensors on one device, and cut batches from them.

The sets are small (at most some hundred MB), so they are preloaded: a batch is two index operations on the
device, without worker processes and without copies from the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pcgraph.arguments import (
    is_integer,
    read_numbers,
    require_flag,
    require_instance,
    require_number,
    require_text,
    shown,
    tensor_of,
)  # fmt: skip
from pcgraph.data.sampling import BatchOrder, Shuffled, StreamAligned, labels_of, stratified
from pcgraph.errors import ConfigError, DataError
from pcgraph.network.machine import TYPES, require_place

__all__ = ["Batches", "Images"]

#: On a GPU so many batches are gathered at once, as far as they need no more bytes than that.
AHEAD, ROOM = 16, 2**25


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Holds images and their labels, all in memory on one device.

    Parameters
    ----------
    images : Tensor or array, shape (N, *shape)
        Floating point.
    labels : Tensor or sequence of int, shape (N,)
        The class of each image, from 0 on.
    classes : sequence of str, optional
        The names of the classes. Default: "0", "1", … up to the largest label.
    name : str
        The name of the set.

    Attributes
    ----------
    images : Tensor, shape (N, *shape)
    labels : Tensor of int64, shape (N,)
        On the device of the images.
    classes : tuple of str
    name : str
    shape : tuple of int
        The shape of one image: what the node that is clamped to it should have.

    Raises
    ------
    DataError
        If there is not one label an image, there are no images, a label is out of range, or the images are no
        tensor of floating-point numbers.

    Examples
    --------
    >>> data = Images(torch.rand(4, 6), [0, 1, 1, 2], classes=["cat", "dog", "eel"], name="pets")
    >>> len(data), data.shape
    (4, (6,))
    >>> image, label = data[3]
    >>> data.classes[label]
    'eel'
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | Sequence[int],
        classes: Sequence[str] | None = None,
        *,
        name: str = "images",
    ) -> None:
        images = tensor_of(images) if isinstance(images, np.ndarray) and images.dtype.kind == "f" else images
        dense = isinstance(images, Tensor) and images.layout == torch.strided
        if not dense or not images.is_floating_point() or images.ndim < 2:
            found = f"{tuple(images.shape)}, {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
            raise DataError(f"images are a floating-point tensor of shape (N, *shape) (found {found}).")
        known = labels_of(labels)
        if len(images) != len(known):
            raise DataError(f"there must be one label an image (found {len(images)} images, {len(known)} labels).")
        names = _names(classes) if classes is not None else tuple(str(c) for c in range(int(known.max()) + 1))
        if int(known.min()) < 0 or int(known.max()) >= len(names):
            bad = int(known.min()) if int(known.min()) < 0 else int(known.max())
            raise DataError(f"label {bad} is out of range: {len(names)} classes have the labels 0 to {len(names) - 1}.")
        self.images = images
        self.labels = known.to(images.device)
        self.classes = names
        self.name = require_text(name, "name")

    @property
    def shape(self) -> tuple[int, ...]:
        """Give the shape of one image."""
        return tuple(self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __repr__(self) -> str:
        return (
            f"Images({self.name!r}, {len(self)} of shape {self.shape}, {len(self.classes)} classes, "
            f"{self.images.dtype}, {self.images.device})"
        )

    def one_hot(self) -> Tensor:
        """Return the labels as rows with one 1.

        Returns
        -------
        Tensor, shape (N, C)
            With the dtype and on the device of the images.

        Examples
        --------
        >>> Images(torch.rand(3, 2), [0, 2, 1]).one_hot()
        tensor([[1., 0., 0.],
                [0., 0., 1.],
                [0., 1., 0.]])
        """
        return self._eye().index_select(0, self.labels)

    def _eye(self) -> Tensor:
        return torch.eye(len(self.classes), dtype=self.images.dtype, device=self.images.device)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Images:
        """Return the same set on another device or with another dtype."""
        dtype = None if dtype is None else require_dtype(dtype)
        images = self.images.to(device=None if device is None else require_device(device), dtype=dtype)
        return Images(images, self.labels, self.classes, name=self.name)

    def take(self, rows: Tensor | Sequence[int]) -> Images:
        """Return a set of some of the images.

        Parameters
        ----------
        rows : Tensor or sequence of int
            Their positions.
        """
        given = read_numbers(rows, "rows")
        whole = given.dim() == 1 and not given.is_floating_point() and given.dtype != torch.bool
        if not whole or not len(given) or int(given.min()) < 0 or int(given.max()) >= len(self):
            raise ConfigError(f"rows are positions from 0 to {len(self) - 1} (found {shown(rows)})", key="rows")
        chosen = given.to(self.images.device, torch.int64)
        return Images(
            self.images.index_select(0, chosen), self.labels.index_select(0, chosen), self.classes, name=self.name
        )

    def split(self, validation: int | float = 0.1, *, seed: int = 0) -> tuple[Images, Images]:
        """Cut it into a training and a validation set, both class-balanced.

        Parameters
        ----------
        validation : float or int
            The size of the validation set: a fraction between 0 and 1, or a number of images.
        seed : int
            Which images. With the same seed, a smaller validation set is a part of a larger one.

        Returns
        -------
        train, validation : Images
            Both in the order in which the images stand here.

        Raises
        ------
        ConfigError
            If either set would lack a class that is here, or `validation` is no such number.

        Examples
        --------
        >>> from pcgraph.data import load
        >>> train, validation = load("digits").split(0.2)
        >>> len(train), len(validation)
        (1150, 287)
        """
        whole = is_integer(validation)
        count = int(validation) if whole else part_of(validation, len(self), "validation")
        labels = self.labels.cpu()
        order = stratified(labels, seed=seed)
        for rows in (order[count:], order[: max(count, 0)]):
            require_all_classes(labels, rows, self.classes, f"validation={shown(validation)}", "validation")
        return self.take(order[count:].sort().values), self.take(order[:count].sort().values)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        stream_aligned: bool = False,
        drop_last: bool = False,
        labels: bool = False,
    ) -> Batches:
        """Cut it into batches of images and one-hot labels, in a new order each epoch.

        Parameters
        ----------
        batch_size : int
            Images in a batch.
        shuffle : bool
            A random order, another each epoch; otherwise as they stand.
        seed : int
            What the orders depend on. torch's global generator plays no part.
        stream_aligned : bool
            As many of each class in each batch, in class order (see :class:`StreamAligned`). No batch is smaller.
        drop_last : bool
            Leave out the last batch of an epoch where it would be smaller.
        labels : bool
            Yield the labels too, as int64.

        Returns
        -------
        Batches

        Examples
        --------
        >>> from pcgraph.data import load
        >>> batches = load("digits").batches(100)
        >>> len(batches)
        15
        >>> x, y = next(iter(batches))
        >>> x.shape, y.shape
        (torch.Size([100, 64]), torch.Size([100, 10]))
        """
        stream_aligned, shuffle = require_flag(stream_aligned, "stream_aligned"), require_flag(shuffle, "shuffle")
        drop_last = require_flag(drop_last, "drop_last")
        order: BatchOrder
        known = self.labels.cpu()
        if not stream_aligned:
            order = Shuffled(known, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)
        elif shuffle:
            order = StreamAligned(known, batch_size, seed=seed, classes=len(self.classes))
        else:
            raise ConfigError(
                "stream-aligned batches are shuffled within each class: drop shuffle=False or stream_aligned=True.",
                key="shuffle",
            )
        return Batches(self, order, labels=labels)


class Batches:
    """Cuts an :class:`Images` into batches, epoch after epoch; :meth:`Images.batches` makes it.

    Every ``iter()`` begins a new epoch, in a new order, also where the one before was left early; after
    :meth:`load_state_dict`, the next ``iter()`` continues where the state was taken, bit for bit.

    Parameters
    ----------
    data : Images
        The set.
    order : BatchOrder
        Which positions come when.
    labels : bool
        Yield the labels too.

    Yields
    ------
    x : Tensor, shape (B, *shape)
        Images: a copy, so changing it does not change the set. On a GPU some batches share memory, but no row of it.
    y : Tensor, shape (B, C)
        One-hot labels, of the images' dtype.
    labels : Tensor of int64, shape (B,)
        Only if asked for.
    """

    def __init__(self, data: Images, order: BatchOrder, *, labels: bool = False) -> None:
        self.data = require_instance(data, "data", Images, "pcgraph.data.Images(images, labels)")
        self.order = _require_order(order)
        self.labels = require_flag(labels, "labels")
        self._eye = data._eye()

    @property
    def batch_size(self) -> int:
        """Give the number of images in a batch."""
        return self.order.batch_size

    @property
    def epoch(self) -> int:
        """Give the number of the epoch that is running, or that comes next."""
        return self.order.epoch

    @property
    def position(self) -> int:
        """Count how many batches of this epoch have been handed out."""
        return self.order.position

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self.order.walk(self._cut, self.data.images.device)

    def _cut(self, rows: Tensor) -> Callable[[int], tuple[Tensor, ...]]:
        return _Gathered(self.data, rows, self.order.batch_size, self.labels, self._eye)

    def state_dict(self) -> dict[str, int | str]:
        """Say where it stands, in whole numbers and text; see :meth:`BatchOrder.state_dict`."""
        return self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. See :meth:`BatchOrder.load_state_dict`."""
        self.order.load_state_dict(state)


class _Gathered:
    """The batches of an epoch: on a GPU some are gathered at once, since to start work there costs as much as to do it.

    Each is a tensor of its own to torch, which may be changed in place.
    """

    def __init__(self, data: Images, rows: Tensor, size: int, labels: bool, eye: Tensor) -> None:
        self.data, self.rows, self.size, self.labels, self.eye = data, rows, size, labels, eye
        each = max(1, size * data.images[0].numel() * data.images.element_size())
        self.ahead = 1 if data.images.device.type == "cpu" else max(1, min(AHEAD, ROOM // each))
        self._first = -1
        self._there: list[tuple[Tensor, ...]] = []

    def __call__(self, number: int) -> tuple[Tensor, ...]:
        first = number - number % self.ahead
        if first != self._first:
            self._there = []  # their memory is free for those that come
            rows = self.rows[first * self.size : (first + self.ahead) * self.size]
            labels = self.data.labels.index_select(0, rows)
            gathered = self.data.images.index_select(0, rows), self.eye.index_select(0, labels)
            whole = (*gathered, labels) if self.labels else gathered
            self._first, self._there = first, list(zip(*(part.unsafe_split(self.size) for part in whole)))
        return self._there[number - first]


def part_of(fraction: float, total: int, key: str) -> int:
    """Round a fraction between 0 and 1 of a number."""
    return round(require_number(fraction, key, above=0, below=1) * total)


def require_dtype(dtype: Any) -> torch.dtype:
    if not isinstance(dtype, torch.dtype) or dtype not in TYPES:
        raise ConfigError(f"dtype is one of {', '.join(map(str, TYPES))} (found {shown(dtype)}).", key="dtype")
    return dtype


def _require_order(order: Any) -> BatchOrder:
    if not isinstance(order, BatchOrder):
        raise ConfigError(
            f"order is a BatchOrder, as in pcgraph.data.StreamAligned(labels, 200) (found {shown(order)})", key="order"
        )
    return order


def require_device(device: Any) -> torch.device:
    return require_place(torch.float32, device).device


def _names(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise DataError(f"classes are a list of names (found {shown(classes)}).")
    names = tuple(classes)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"classes are a list of names (found {shown(classes)}).")
    return names


def require_all_classes(labels: Tensor, rows: Tensor, classes: Sequence[str], setting: str, key: str) -> None:
    """Refuse a part that has nothing of a class of which there is something."""
    gone = sorted(set(labels.tolist()) - set(labels[rows].tolist()))
    if gone:
        raise ConfigError(f"{setting} leaves no image of the class {classes[gone[0]]!r}.", key=key)
