"""Keep whole data sets of images as tensors on one device, and cut batches from them.

The sets are small (at most some hundred MB), so they are preloaded: a batch is two index operations on the
device, without worker processes and without copies from the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pcgraph.arguments import (
    is_integer,
    is_number,
    read_numbers,
    require_choice,
    require_flag,
    require_instance,
    require_number,
    require_path,
    require_text,
    shown,
    tensor_of,
)  # fmt: skip
from pcgraph.data.formats import Bytes
from pcgraph.data.sampling import BatchOrder, Shuffled, StreamAligned, labels_of, stratified
from pcgraph.data.sources import CATALOGUE, Source, canonical, raw
from pcgraph.errors import ConfigError, DataError, unknown_name
from pcgraph.network.machine import TYPES, require_place

__all__ = ["Batches", "Images", "load"]

Normalize = str | tuple[float | Sequence[float], float | Sequence[float]]


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
        dtype = None if dtype is None else _require_dtype(dtype)
        images = self.images.to(device=None if device is None else _require_device(device), dtype=dtype)
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
        >>> train, validation = load("digits").split(0.2)
        >>> len(train), len(validation)
        (1150, 287)
        """
        whole = is_integer(validation)
        count = int(validation) if whole else _part(validation, len(self), "validation")
        labels = self.labels.cpu()
        order = stratified(labels, seed=seed)
        for rows in (order[count:], order[: max(count, 0)]):
            _all_classes(labels, rows, self.classes, f"validation={shown(validation)}", "validation")
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
        Images: a copy, so changing it does not change the set.
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
        return self._cut(self.order.batches(self.data.images.device))

    def _cut(self, order: Iterator[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        for rows in order:
            labels = self.data.labels.index_select(0, rows)
            batch = self.data.images.index_select(0, rows), self._eye.index_select(0, labels)
            yield (*batch, labels) if self.labels else batch

    def state_dict(self) -> dict[str, int | str]:
        """Say where it stands, in whole numbers and text; see :meth:`BatchOrder.state_dict`."""
        return self.order.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. See :meth:`BatchOrder.load_state_dict`."""
        self.order.load_state_dict(state)


def load(
    name: str,
    split: str = "train",
    *,
    fraction: float = 1.0,
    seed: int = 0,
    normalize: Normalize = "standard",
    flatten: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    root: str | Path | None = None,
) -> Images:
    """Load a data set by name, whole, onto a device.

    Parameters
    ----------
    name : {"mnist", "fashion-mnist", "kmnist", "cifar10", "digits"}
        Which set. Case, hyphens and underscores do not matter. "digits" comes with scikit-learn and needs no
        download: 1437 training and 360 test images, class-balanced and always the same.
    split : {"train", "test"}
        Which part.
    fraction : float
        Load only this part of the split, 0 < fraction <= 1, class-balanced. With the same seed a smaller fraction
        is a part of a larger one.
    seed : int
        Which images the fraction has.
    normalize : {"standard", "unit"} or (mean, std)
        "standard": mean 0 and standard deviation 1 over all pixels of the whole training split, channel by
        channel; the test split is normalized by the training split's statistics, too. "unit": between 0 and 1.
        Otherwise subtract `mean` and divide by `std`, numbers or one a channel, in units of "unit".
    flatten : bool, optional
        Images as vectors. Default: yes for grey images, no for colour ones, which are (3, 32, 32).
    device : torch.device or str, optional
        Where the tensors lie. Default: the CPU.
    dtype : torch.dtype
        The images' floating-point type.
    root : str or Path, optional
        Look for the files in this folder only (in a folder in it that has the set's name, then in itself), and
        never download. Default: ``$PCGRAPH_DATA``, ``/usr/share/datasets``, the cache, then the network.

    Returns
    -------
    Images

    Raises
    ------
    ConfigError
        If the name, the split or a setting is none of those above.
    DataError
        If the files cannot be found (it says which go where) or are malformed.

    Examples
    --------
    >>> data = load("digits")
    >>> data
    Images('digits', 1437 of shape (64,), 10 classes, torch.float32, cpu)
    >>> abs(data.images.mean().item()) < 1e-6
    True
    >>> load("digits", "test", fraction=0.5, normalize="unit", flatten=False).images.shape
    torch.Size([180, 1, 8, 8])
    """
    source = CATALOGUE[canonical(name)]
    require_choice(split, "split", source.counts)
    dtype, device = _require_dtype(dtype), None if device is None else _require_device(device)
    flatten = None if flatten is None else require_flag(flatten, "flatten")
    root = None if root is None else require_path(root, "root")
    _check_normalize(normalize, source)
    pixels, labels = raw(source, split, root)
    known = torch.from_numpy(labels.astype(np.int64))
    rows = class_balanced(known, fraction, seed, source.classes)
    mean, std = _statistics(normalize, source, pixels if split == "train" else None, root)
    chosen = torch.tensor(pixels if rows is None else pixels[rows.numpy()], device=device)
    images = chosen.to(dtype).div_(source.scale)
    if normalize != "unit":
        images.sub_(mean.to(images)).div_(std.to(images))
    if flatten if flatten is not None else source.shape[0] == 1:
        images = images.flatten(1)
    return Images(images, known if rows is None else known[rows], source.classes, name=source.name)


def class_balanced(labels: Tensor, fraction: float, seed: int, classes: Sequence[str]) -> Tensor | None:
    """Return the positions of a class-balanced part, ascending; None means all.

    Raises
    ------
    ConfigError
        The part would lack a class that is here.
    """
    if is_number(fraction) and fraction == 1:
        return None
    rows = stratified(labels, seed=seed)[: _part(fraction, len(labels), "fraction")]
    _all_classes(labels, rows, classes, f"fraction={shown(fraction)}", "fraction")
    return rows.sort().values


def _part(fraction: float, total: int, key: str) -> int:
    """Round a fraction between 0 and 1 of a number."""
    return round(require_number(fraction, key, above=0, below=1) * total)


def _require_dtype(dtype: Any) -> torch.dtype:
    if not isinstance(dtype, torch.dtype) or dtype not in TYPES:
        raise ConfigError(f"dtype is one of {', '.join(map(str, TYPES))} (found {shown(dtype)}).", key="dtype")
    return dtype


def _require_order(order: Any) -> BatchOrder:
    if not isinstance(order, BatchOrder):
        raise ConfigError(
            f"order is a BatchOrder, as in pcgraph.data.StreamAligned(labels, 200) (found {shown(order)})", key="order"
        )
    return order


def _require_device(device: Any) -> torch.device:
    return require_place(torch.float32, device).device


def _names(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise DataError(f"classes are a list of names (found {shown(classes)}).")
    names = tuple(classes)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"classes are a list of names (found {shown(classes)}).")
    return names


def _all_classes(labels: Tensor, rows: Tensor, classes: Sequence[str], setting: str, key: str) -> None:
    """Refuse a part that has nothing of a class of which there is something."""
    gone = sorted(set(labels.tolist()) - set(labels[rows].tolist()))
    if gone:
        raise ConfigError(f"{setting} leaves no image of the class {classes[gone[0]]!r}.", key=key)


def _check_normalize(normalize: Normalize, source: Source) -> None:
    """Refuse a wrong `normalize` before anything is read."""
    if isinstance(normalize, str):
        if normalize not in ("standard", "unit"):
            raise ConfigError(unknown_name("normalization", normalize, ["standard", "unit"]), key="normalize")
        return
    channels = source.shape[0]
    try:
        mean, std = (np.broadcast_to(np.asarray(part, dtype=np.float64), channels) for part in normalize)
        valid = bool(np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all())
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ConfigError(
            f'normalize is "standard", "unit" or (mean, std) with std > 0, numbers or {channels} of each '
            f"(found {shown(normalize)}).",
            key="normalize",
        )


def _statistics(
    normalize: Normalize, source: Source, train: Bytes | None, root: str | Path | None
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, each of shape (channels, 1, 1), in units of a white pixel."""
    if normalize == "unit":
        mean, std = [0.0], [1.0]
    elif normalize == "standard":
        return _measure(raw(source, "train", root)[0] if train is None else train, source.scale)
    else:
        mean, std = (np.broadcast_to(np.asarray(part, float), source.shape[0]).tolist() for part in normalize)
    return _per_channel(mean), _per_channel(std)


def _measure(pixels: Bytes, scale: float) -> tuple[Tensor, Tensor]:
    """Compute the exact mean and standard deviation of every channel, from how often each pixel value occurs."""
    values = np.arange(256) / scale
    means, stds = [], []
    for channel in range(pixels.shape[1]):
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(pixels), 4096):
            counts += np.bincount(pixels[start : start + 4096, channel].ravel(), minlength=256)
        mean = float(counts @ values / counts.sum())
        means.append(mean)
        stds.append(math.sqrt(float(counts @ (values - mean) ** 2 / counts.sum())) or 1.0)
    return _per_channel(means), _per_channel(stds)


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu").view(-1, 1, 1)
