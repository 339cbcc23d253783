"""Choose the order in which samples are visited: class-balanced parts, shuffled batches, stream-aligned batches.

An epoch's order is a function of the seed and of the epoch's number alone, by a generator of its own; torch's
global generator is never touched. So where a sampler stands is three whole numbers (seed, epoch, position), and
resuming from them continues exactly.

Stream-aligned batches (paper, section 4.1): a batch of n samples is C sub-batches of n/C samples, one for each
class, in class order, so that slot i of every batch holds a sample of the same class c(i) = ⌊i·C/n⌋. Averaging the
states of a class (Eq 7) is then an average over fixed slots.

References
----------
L. Pinchetti, S. Frieder, T. Lukasiewicz, T. Salvatori, "Faster Predictive Coding Networks via Better
Initialization", section 4.1 and Eq 7.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler, Subset

from pcgraph.arguments import require_count, require_flag
from pcgraph.errors import ConfigError, DataError

__all__ = ["BatchOrder", "Shuffled", "StreamAligned", "labels_of", "stratified"]

T = TypeVar("T")
Index = NDArray[np.int64]


def stratified(labels: Tensor, *, seed: int = 0) -> Tensor:
    """Order all samples so that every beginning is class-balanced.

    Within a class the order is shuffled. Of a class with N_c samples, the j-th (from 0) stands at
    (j + ½) / N_c of the way. So the first k samples are a part of the first k + 1, and contain every class in
    proportion to its size, to within rounding.

    Parameters
    ----------
    labels : Tensor of int64, shape (N,)
        The class of each sample.
    seed : int
        What the shuffling depends on.

    Returns
    -------
    Tensor of int64, shape (N,)
        Positions in `labels`.

    Examples
    --------
    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1])
    >>> labels[stratified(labels)].tolist()
    [0, 1, 0, 0, 1, 0]
    """
    generator = _generator(seed)
    rows, when = [], []
    for members in _members(labels, int(labels.max()) + 1 if len(labels) else 0):
        count = len(members)
        rows.append(members[torch.randperm(count, generator=generator, device="cpu")])
        when.append((torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / max(count, 1))
    if not rows:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    return torch.cat(rows)[torch.argsort(torch.cat(when), stable=True)]


def labels_of(data: object) -> Tensor:
    """Find the labels of a data set, as int64 on the CPU.

    Parameters
    ----------
    data : Tensor, sequence of int, or Dataset
        Labels, or a data set with an attribute ``labels`` or ``targets`` (torch's and torchvision's have one of
        them), or a ``torch.utils.data.Subset`` of such a set.

    Returns
    -------
    Tensor of int64, shape (N,)

    Raises
    ------
    DataError
        If there are none, or if they are not whole numbers from 0 on, one a sample.
    """
    if isinstance(data, Subset):
        return labels_of(data.dataset)[torch.as_tensor(list(data.indices), dtype=torch.int64, device="cpu")]
    found = getattr(data, "labels", getattr(data, "targets", data))
    try:
        if isinstance(found, Dataset):
            raise TypeError("a data set without labels")
        labels = torch.as_tensor(cast(Any, found), device="cpu").detach()
        if labels.layout != torch.strided or labels.is_meta:
            raise TypeError("labels without values one after the other")
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as problem:
        raise DataError(
            "labels are needed: a tensor of them, or a data set with .labels or .targets "
            f"(found {type(found).__name__})."
        ) from problem
    if labels.ndim != 1 or labels.is_complex() or labels.is_floating_point():
        raise DataError(
            f"labels are whole numbers, one a sample (found shape {tuple(labels.shape)}, {labels.dtype}). "
            "For one-hot labels, pass labels.argmax(1)."
        )
    if len(labels) == 0:
        raise DataError("there are no samples: the labels are empty.")
    return labels.to(torch.int64)


class BatchOrder(Sampler[list[int]], ABC):
    """Hands out batches of positions, epoch after epoch, and can be stopped and resumed.

    Every ``iter()`` begins a new epoch, in a new order, also where the one before was left early; after
    :meth:`load_state_dict`, the next ``iter()`` continues where the state was taken.

    Attributes
    ----------
    epoch : int
        The number of the epoch that is running, or that comes next.
    position : int
        The number of its batches that have been handed out.
    """

    def __init__(self, labels: Tensor, batch_size: int, seed: int) -> None:
        self.batch_size = require_count(batch_size, "batch_size", least=1)
        self.seed = _seed(seed)
        self.samples = len(labels)
        self.epoch = 0
        self.position = 0
        self._labels_crc32 = zlib.crc32(labels.numpy().tobytes())
        self._resumed = False
        self._running: object = None

    @abstractmethod
    def __len__(self) -> int:
        """Give the number of batches in an epoch."""

    @abstractmethod
    def rows(self, epoch: int) -> Tensor:
        """Give the positions of all samples of an epoch, in the order in which batches are cut from them."""

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.batches():
            yield rows.tolist()

    def batches(self, device: torch.device | str | None = None) -> Iterator[Tensor]:
        """Go through the rest of the resumed epoch, or a new one, as tensors of positions on `device`."""
        return self.walk(lambda rows: torch.split(rows, self.batch_size).__getitem__, device)

    def walk(
        self, cut: Callable[[Tensor], Callable[[int], T]], device: torch.device | str | None = None
    ) -> Iterator[T]:
        """Go through the rest of the resumed epoch, or a new one, as whatever `cut` makes of its positions.

        Parameters
        ----------
        cut : callable
            Takes the positions of all samples of an epoch, on `device`, and returns what gives the batch of a number.
        device : torch.device or str, optional
        """
        if not self._resumed and self.position:
            self.epoch, self.position = self.epoch + 1, 0
        self._resumed = False
        self._running = running = object()
        return self._walk(cut(self.rows(self.epoch).to(device)), running)

    def _walk(self, batch: Callable[[int], T], running: object) -> Iterator[T]:
        for position in range(self.position, len(self)):
            if self._running is running:
                self.position = position + 1
            yield batch(position)
        if self._running is running:
            self.epoch, self.position, self._running = self.epoch + 1, 0, None

    def state_dict(self) -> dict[str, int | str]:
        """Say where it stands, in whole numbers and text (so also as JSON), and of which batches it is the state.

        A batch counts as done once it has been handed out. A DataLoader with worker processes fetches ahead, so
        take the state between epochs there.
        """
        return {**self._identity(), "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken: the next ``iter()`` yields the batch that came next then.

        Raises
        ------
        ConfigError
            If the state is of other samples, another batch size or another kind of order, or is no such state.
        """
        identity = self._identity()
        missing = sorted({*identity, "seed", "epoch", "position"} - set(state))
        if missing:
            raise ConfigError(f"this is no state of a sampler: it lacks {', '.join(missing)}.", key=missing[0])
        for key, mine in identity.items():
            if state[key] != mine:
                raise ConfigError(
                    f"the state is of other batches: {key} should be {mine} (found {state[key]}). "
                    "Resume with the data and the settings that it was taken with.",
                    key=key,
                )
        seed, epoch = _seed(state["seed"]), require_count(state["epoch"], "epoch")
        position = require_count(state["position"], "position")
        if position > len(self):
            raise ConfigError(f"position should be at most {len(self)} (found {position}).", key="position")
        self.seed, self.epoch, self.position = seed, epoch, position
        self._resumed, self._running = True, None

    def _identity(self) -> dict[str, int | str]:
        """Name what must be the same for a state to mean the same batches."""
        return {
            "kind": type(self).__name__,
            "samples": self.samples,
            "labels_crc32": self._labels_crc32,
            "batch_size": self.batch_size,
            "batches": len(self),
        }


class Shuffled(BatchOrder):
    """Visits every sample once an epoch, in random order or as they stand.

    Parameters
    ----------
    labels : Tensor of int64, shape (N,)
        Only their number, and a checksum of them in the state, matter.
    batch_size : int
        Samples in a batch.
    shuffle : bool
        A new random order each epoch; otherwise as they stand.
    seed : int
        What the orders depend on.
    drop_last : bool
        Leave out the last batch of an epoch where it would be smaller.
    """

    def __init__(
        self, labels: Tensor, batch_size: int, *, shuffle: bool = True, seed: int = 0, drop_last: bool = False
    ) -> None:
        super().__init__(labels, batch_size, seed)
        self.shuffle = require_flag(shuffle, "shuffle")
        self.drop_last = require_flag(drop_last, "drop_last")
        if len(self) == 0:
            raise ConfigError(
                f"no batch is left: batch_size is {batch_size}, there are {self.samples} samples, and drop_last "
                "leaves out the smaller batch. Use a smaller batch_size.",
                key="batch_size",
            )

    def __len__(self) -> int:
        full, rest = divmod(self.samples, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def rows(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.samples, device="cpu")
        return torch.randperm(self.samples, generator=_generator(self.seed, epoch), device="cpu")

    def _identity(self) -> dict[str, int | str]:
        return {**super()._identity(), "shuffle": int(self.shuffle)}


class StreamAligned(BatchOrder):
    """Makes batches in which slot i always holds a sample of the same class (paper, section 4.1).

    Each batch of n has n/C samples of each of the C classes, in class order, in random order within a class. An
    epoch has ⌊N/n⌋ batches, however unbalanced the classes are: a class that runs out within an epoch is shuffled
    and gone through again, and of a class that is larger than the average a random part is left out in each epoch.
    So in balanced data every sample comes at most once an epoch, and exactly once where n divides N.

    Parameters
    ----------
    data : Tensor, sequence of int, or Dataset
        The labels, or a data set with ``.labels`` or ``.targets``.
    batch_size : int
        n, a multiple of the number of classes.
    seed : int
        What the orders depend on.
    classes : int, optional
        C. Default: the length of ``data.classes`` if there is such an attribute, otherwise the largest label + 1.

    Raises
    ------
    ConfigError
        If C does not divide n.
    DataError
        If there are no labels, a label is out of range, a class has no sample, or n is larger than N.

    Examples
    --------
    It is a batch sampler: ``DataLoader(dataset, batch_sampler=StreamAligned(dataset, 200))``.

    >>> labels = torch.tensor([1, 0, 0, 1, 2, 1, 0, 2, 2, 0, 1, 0])
    >>> for batch in StreamAligned(labels, 6):
    ...     print(labels[batch].tolist())
    [0, 0, 1, 1, 2, 2]
    [0, 0, 1, 1, 2, 2]

    References
    ----------
    Paper, section 4.1, Eq 7 and Figure 3.
    """

    def __init__(self, data: object, batch_size: int, *, seed: int = 0, classes: int | None = None) -> None:
        labels = labels_of(data)
        super().__init__(labels, batch_size, seed)
        named = getattr(data, "classes", None)
        if classes is None:
            classes = len(named) if isinstance(named, Sized) else int(labels.max()) + 1
        self.classes = require_count(classes, "classes", least=1)
        self._check(labels)
        self._members = _members(labels, self.classes)
        empty = [c for c, members in enumerate(self._members) if not len(members)]
        if empty:
            raise DataError(
                f"stream-aligned batches need a sample of every class (found none of class "
                f"{', '.join(map(str, empty))} of {self.classes}). Use other batches, or renumber the labels."
            )

    def _check(self, labels: Tensor) -> None:
        bad = torch.nonzero((labels < 0) | (labels >= self.classes))
        if len(bad):
            where = int(bad[0])
            raise DataError(
                f"label {int(labels[where])} at position {where} is out of range: there are {self.classes} classes, "
                f"with the labels 0 to {self.classes - 1}."
            )
        if self.batch_size % self.classes:
            below = self.batch_size // self.classes * self.classes
            near = [str(size) for size in (below, below + self.classes) if size]
            raise ConfigError(
                f"stream-aligned batches have as many samples of each class: batch_size must be a multiple of the "
                f"{self.classes} classes (found {self.batch_size}). Use {' or '.join(near)}.",
                key="batch_size",
            )
        if self.batch_size > self.samples:
            raise DataError(
                f"a batch of {self.batch_size} needs as many samples (found {self.samples}). Use a smaller batch_size."
            )

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def rows(self, epoch: int) -> Tensor:
        generator = _generator(self.seed, epoch)
        each = self.batch_size // self.classes
        streams = np.stack([_cycled(members.numpy(), len(self) * each, generator) for members in self._members])
        return torch.from_numpy(streams.reshape(self.classes, len(self), each).swapaxes(0, 1).reshape(-1))

    def _identity(self) -> dict[str, int | str]:
        return {**super()._identity(), "classes": self.classes}


def _cycled(members: Index, needed: int, generator: torch.Generator) -> Index:
    """Draw `needed` members of a class: all of them in random order, then again, until there are enough.

    They are few, and NumPy wakes no threads for them, which can take a hundred times as long as the work.
    """
    count = len(members)
    orders = [torch.randperm(count, generator=generator, device="cpu").numpy() for _ in range(-(-needed // count))]
    drawn: Index = members[np.concatenate(orders)[:needed]]
    return drawn


def _members(labels: Tensor, classes: int) -> list[Tensor]:
    """Find the positions of each class's samples."""
    return [torch.nonzero(labels == c).flatten() for c in range(classes)]


def _generator(seed: int, *path: int) -> torch.Generator:
    """Make a generator for this seed and epoch; near seeds and epochs give unrelated ones."""
    mixed = np.random.SeedSequence([_seed(seed), *path]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def _seed(value: Any) -> int:
    return require_count(value, "seed", most=2**64 - 1)
