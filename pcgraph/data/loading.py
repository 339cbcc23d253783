"""Load a data set by name, whole, onto a device: read, chosen by class, and normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcgraph.arguments import (
    is_number,
    require_choice,
    require_flag,
    require_path,
    shown,
)  # fmt: skip
from pcgraph.data.formats import Bytes
from pcgraph.data.images import Images, part_of, require_all_classes, require_device, require_dtype
from pcgraph.data.sampling import stratified
from pcgraph.data.sources import CATALOGUE, Source, canonical, raw
from pcgraph.errors import ConfigError, unknown_name

__all__ = ["class_balanced", "load"]

Normalize = str | tuple[float | Sequence[float], float | Sequence[float]]


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
    dtype, device = require_dtype(dtype), None if device is None else require_device(device)
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
    rows = stratified(labels, seed=seed)[: part_of(fraction, len(labels), "fraction")]
    require_all_classes(labels, rows, classes, f"fraction={shown(fraction)}", "fraction")
    return rows.sort().values


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
