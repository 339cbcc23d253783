"""List the data sets that pcgraph knows by name, and find their files and check them.

A set's files are looked for in this order, and the first folder that has all that is needed is taken:

1. the folder in the environment variable ``PCGRAPH_DATA``: a folder in it that has the set's name, then itself;
2. ``/usr/share/datasets/<name>``, where operating systems put them (Debian: ``apt install dataset-fashion-mnist``);
3. the user's cache folder for pcgraph;
4. the official mirrors, by pooch, into that cache; a download is kept only if its SHA-256 is right.

MNIST, Fashion-MNIST and KMNIST use the same file names. So a file of labels whose SHA-256 is that of another set
is refused, and a folder that has the name of another set is passed over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pcgraph.data.formats import Bytes, read_cifar10, read_cifar10_archive, read_idx
from pcgraph.data.sampling import stratified
from pcgraph.errors import ConfigError, DataError, unknown_name
from pcgraph.serialization.files import require_writable

__all__ = ["CATALOGUE", "Source", "canonical", "find", "is_here", "raw", "read"]

SYSTEM_FOLDER = Path("/usr/share/datasets")
ARCHIVE = "cifar-10-binary.tar.gz"
NO_POOCH = "downloading needs pooch: pip install 'pcgraph[data]'"
PATIENCE = 5
"""A site that is only asked has so many seconds to answer."""
_IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_CIFAR_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_DIGIT_NAMES = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Source:
    """Says what is known of one data set before it is read.

    Attributes
    ----------
    name : str
        The name to load it by.
    classes : tuple of str
        The names of the classes; label i is the i-th.
    shape : tuple of int
        (channels, height, width) of an image.
    counts : mapping
        Split to number of images.
    scale : float
        The value of a white pixel.
    format : {"idx", "cifar", "scikit-learn"}
        What its files are; the last means that it comes with scikit-learn and has none.
    files : mapping
        Split to the files that hold it (without ``.gz``).
    folders : tuple of str
        Other names that the set's folder may have.
    mirrors : tuple of str
        Addresses that end in a slash, to which a file's name is added.
    sha256 : mapping
        File on the mirrors to its SHA-256, in hexadecimal.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    counts: Mapping[str, int]
    format: Literal["idx", "cifar", "scikit-learn"]
    scale: float = 255.0
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)


def _idx(name: str, classes: tuple[str, ...], folder: str, mirrors: tuple[str, ...], *sha256: str) -> Source:
    """Describe a set of 28 x 28 grey images in four IDX files."""
    files = [f"{stem}.gz" for split in ("train", "test") for stem in _IDX_FILES[split]]
    return Source(
        name=name,
        classes=classes,
        shape=(1, 28, 28),
        counts={"train": 60_000, "test": 10_000},
        format="idx",
        files=_IDX_FILES,
        folders=(folder, f"{folder}/raw"),
        mirrors=mirrors,
        sha256=dict(zip(files, sha256, strict=True)),
    )


CATALOGUE: dict[str, Source] = {
    source.name: source
    for source in (
        _idx(
            "mnist",
            _DIGIT_NAMES,
            "MNIST",
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        _idx(
            "fashion-mnist",
            (
                *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
                *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            ),
            "FashionMNIST",
            (
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            ),
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        _idx(
            "kmnist",
            ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
            "KMNIST",
            ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        Source(
            name="cifar10",
            classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            shape=(3, 32, 32),
            counts={"train": 50_000, "test": 10_000},
            format="cifar",
            files=_CIFAR_FILES,
            folders=("cifar-10-batches-bin", "CIFAR10"),
            mirrors=("https://www.cs.toronto.edu/~kriz/",),
            sha256={ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
        ),
        Source("digits", _DIGIT_NAMES, (1, 8, 8), {"train": 1437, "test": 360}, "scikit-learn", scale=16.0),
    )
}


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def canonical(name: str) -> str:
    """Return the catalogue's spelling of a data set's name.

    Examples
    --------
    >>> canonical("FashionMNIST"), canonical("CIFAR-10")
    ('fashion-mnist', 'cifar10')
    >>> canonical("fashion-mnits")
    Traceback (most recent call last):
    pcgraph.errors.ConfigError: unknown data set 'fashion-mnits': did you mean 'fashion-mnist'? ...
    """
    known = {_plain(key): key for key in CATALOGUE}
    found = known.get(_plain(name)) if isinstance(name, str) else None
    if found is None:
        raise ConfigError(unknown_name("data set", name, CATALOGUE), key="name")
    return found


def raw(source: Source, split: str, root: str | Path | None = None) -> tuple[Bytes, Bytes]:
    """Find and read the images and labels of one split of a set, as bytes.

    Parameters
    ----------
    source : Source
        The set.
    split : {"train", "test"}
        Which part.
    root : str or Path, optional
        Look in this folder only, and never download.

    Returns
    -------
    images : ndarray of uint8, shape (N, channels, height, width)
    labels : ndarray of uint8, shape (N,)

    Raises
    ------
    DataError
        As :func:`find` and :func:`read` do, or if scikit-learn is needed and missing.
    """
    if source.format == "scikit-learn":
        return _digits(source, split)
    return read(source, split, find(source, split, root))


def _digits(source: Source, split: str) -> tuple[Bytes, Bytes]:
    """Read scikit-learn's 1797 digits; 360 of them, drawn once and for ever and class-balanced, are the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as problem:
        raise DataError("the digits come with scikit-learn: pip install 'pcgraph[data]'.") from problem
    images, labels = load_digits(return_X_y=True)
    order = stratified(torch.from_numpy(labels.astype(np.int64)), seed=0).numpy()
    tests = source.counts["test"]
    rows = np.sort(order[:tests] if split == "test" else order[tests:])
    return images.astype(np.uint8).reshape(-1, *source.shape)[rows], labels.astype(np.uint8)[rows]


def find(source: Source, split: str, root: str | Path | None = None) -> tuple[Path, ...]:
    """Find the files of one split, or download them.

    Parameters
    ----------
    source : Source
        The set.
    split : {"train", "test"}
        Which part.
    root : str or Path, optional
        Look in this folder only, and never download.

    Returns
    -------
    tuple of Path
        The files in the order of ``source.files[split]``, or CIFAR-10's archive alone.

    Raises
    ------
    DataError
        If they are nowhere and cannot be downloaded. The message says which files to put where.
    """
    folders = _folders(source, root)
    found = _locally(source, split, folders)
    if found is not None:
        return found
    problems: list[str] = []
    if root is None:
        downloaded = _download(source, split, problems)
        if downloaded is not None:
            return downloaded
    raise _not_found(source, split, folders, problems, root)


def is_here(source: Source, split: str) -> bool:
    """Say whether one split can be read without a download; nothing is read."""
    return source.format == "scikit-learn" or _locally(source, split, _folders(source, None)) is not None


def foresee(source: Source) -> list[str] | None:
    """Read what is on this machine, and ask for what is not without fetching it.

    Returns
    -------
    list of str or None
        None where all is here; else what would go wrong with a download now, as far as that can be seen.

    Raises
    ------
    DataError
        A file is malformed, or what reads it or fetches it is not installed.
    """
    away = None
    for split in source.counts:
        if is_here(source, split):
            raw(source, split)
        elif away is None:
            away = _obstacles(source, split)
    return away


def _obstacles(source: Source, split: str) -> list[str]:
    """Say what would go wrong with a download; nothing where a site answers and the cache can be written to."""
    pooch = _pooch()
    if pooch is None:
        raise _not_found(source, split, _folders(source, None), [NO_POOCH], None)
    cache = Path(pooch.os_cache("pcgraph")) / source.name
    try:
        require_writable(cache)
    except OSError as problem:
        return [f"{cache}: {_brief(problem)}"]
    ask, said = pooch.HTTPDownloader(timeout=PATIENCE), []
    for mirror in source.mirrors:
        try:
            if ask(mirror + _wanted(source, split)[0], None, None, check_only=True):
                return []
            said.append(f"{mirror}: it has no such file")
        except (OSError, ValueError) as problem:
            said.append(f"{mirror}: {_brief(problem)}")
    return said


def _locally(source: Source, split: str, folders: list[Path]) -> tuple[Path, ...] | None:
    """Find the files in the first folder that has all of them."""
    return next((found for folder in folders if (found := _in_folder(source, split, folder)) is not None), None)


def read(source: Source, split: str, files: tuple[Path, ...]) -> tuple[Bytes, Bytes]:
    """Read and check one split.

    Parameters
    ----------
    source : Source
        The set.
    split : {"train", "test"}
        Which part.
    files : tuple of Path
        As :func:`find` returns them.

    Returns
    -------
    images : ndarray of uint8, shape (N, channels, height, width)
    labels : ndarray of uint8, shape (N,)

    Raises
    ------
    DataError
        If a file is malformed, is of another data set, or has other counts, shapes or labels than the set has.
    """
    if source.format == "idx":
        _refuse_other_set(source, files[1])
        images, labels = read_idx(files[0], dims=3)[:, None], read_idx(files[1], dims=1)
    else:
        archived = files[0].name == ARCHIVE
        parts = read_cifar10_archive(files[0], source.files[split]) if archived else [read_cifar10(f) for f in files]
        images, labels = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    _check(source, split, files, images, labels)
    return images, labels


def _check(source: Source, split: str, files: tuple[Path, ...], images: Bytes, labels: Bytes) -> None:
    """Compare what was read with what the catalogue says."""
    first, last = files[0], files[-1]
    if len(images) != len(labels):
        raise DataError(
            f"{first} has {len(images)} images and {last} has {len(labels)} labels: there must be one label an image. "
            "Fetch both again.",
            path=last,
        )
    if images.shape[1:] != source.shape:
        raise DataError(
            f"{first}: an image of {source.name} has {source.shape} channels, height and width "
            f"(found {images.shape[1:]}).",
            path=first,
        )
    if len(images) != source.counts[split]:
        raise DataError(
            f"{first}: the {split} split of {source.name} has {source.counts[split]} images (found {len(images)}). "
            "To use a part of it, load it with fraction=; for images of your own, use pcgraph.data.Images.",
            path=first,
        )
    wrong = np.flatnonzero(labels >= len(source.classes))
    if wrong.size:
        raise DataError(
            f"{last}: label {labels[wrong[0]]} at position {wrong[0]} is out of range: {source.name} has the labels "
            f"0 to {len(source.classes) - 1}. The file is damaged or of another set.",
            path=last,
        )


def _refuse_other_set(source: Source, labels: Path) -> None:
    """Refuse a file of labels that is, byte for byte, another set's: the file names do not tell."""
    if labels.suffix != ".gz" or not labels.is_file():
        return
    digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    for other in CATALOGUE.values():
        if other.name != source.name and digest in other.sha256.values():
            raise DataError(
                f"{labels} is a file of {other.name}, not of {source.name} (both use this file name). Put each set "
                f"into a folder of its own name, such as {labels.parent / source.name}.",
                path=labels,
            )


def _folders(source: Source, root: str | Path | None) -> list[Path]:
    """List every folder that may hold the set, the first to be tried first."""
    names = (source.name, *source.folders)
    given = root if root is not None else os.environ.get("PCGRAPH_DATA") or None
    folders: list[Path] = []
    if given is not None:
        base = Path(given).expanduser()
        folders += [base / name for name in names]
        if _named_like(base, source) is None:
            folders.append(base)
    if root is None:
        folders += [SYSTEM_FOLDER / source.name]
        cache = _cache()
        folders += [cache / source.name] if cache is not None else []
    return folders


def _named_like(folder: Path, source: Source) -> str | None:
    """Name the other set whose name a folder has, if any."""
    others = {_plain(n): o.name for o in CATALOGUE.values() if o is not source for n in (o.name, *o.folders)}
    return others.get(_plain(folder.name))


def _in_folder(source: Source, split: str, folder: Path) -> tuple[Path, ...] | None:
    """Find the files of a split in one folder; None unless all are there."""
    if ARCHIVE in source.sha256 and (folder / ARCHIVE).is_file():
        return (folder / ARCHIVE,)
    found = []
    for stem in source.files[split]:
        dotted = stem.replace("-idx", ".idx")
        options = (folder / name for name in (f"{stem}.gz", stem, f"{dotted}.gz", dotted))
        path = next((option for option in options if option.is_file()), None)
        if path is None:
            return None
        found.append(path)
    return tuple(found)


def _pooch() -> Any:
    """Import pooch, or return None: it comes with ``pip install pcgraph[data]``."""
    try:
        import pooch
    except ImportError:
        return None
    return pooch


def _cache() -> Path | None:
    pooch = _pooch()
    return Path(pooch.os_cache("pcgraph")) if pooch is not None else None


def _wanted(source: Source, split: str) -> list[str]:
    """Name what holds a split, as the mirrors call it."""
    return [ARCHIVE] if ARCHIVE in source.sha256 else [f"{stem}.gz" for stem in source.files[split]]


def _download(source: Source, split: str, problems: list[str]) -> tuple[Path, ...] | None:
    """Download a split into the cache; if that fails, return None and add what went wrong to `problems`."""
    pooch = _pooch()
    if pooch is None:
        problems.append(NO_POOCH)
        return None
    found = []
    for name in _wanted(source, split):
        for mirror in source.mirrors:
            try:
                path = pooch.retrieve(
                    mirror + name,
                    known_hash=f"sha256:{source.sha256[name]}",
                    fname=name,
                    path=pooch.os_cache("pcgraph") / source.name,
                )
            except (OSError, ValueError) as problem:  # requests' errors are OSErrors; a wrong checksum is a ValueError
                problems.append(f"{mirror}{name}: {_brief(problem)}")
                continue
            found.append(Path(path))
            break
        else:
            return None
    return tuple(found)


def _brief(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return f"{type(problem).__name__}: {text[:200]}{'…' * (len(text) > 200)}"


def _not_found(
    source: Source, split: str, folders: list[Path], problems: list[str], root: str | Path | None
) -> DataError:
    """Say which files are needed and where to put them."""
    files = ", ".join(_wanted(source, split))
    place = Path(root) / source.name if root is not None else Path(f"$PCGRAPH_DATA/{source.name}")
    lines = [
        f"the {split} split of {source.name} needs {files} (found in none of: {', '.join(map(str, folders))}).",
        *(f"Download failed: {problem}" for problem in problems),
        f"Put the files into {place} (plain or .gz), from {source.mirrors[0]}"
        + (", and set PCGRAPH_DATA to the folder above it." if root is None else "."),
    ]
    other = _named_like(Path(root), source) if root is not None else None
    if other is not None:
        lines.append(f"{root} itself was passed over, since by its name it holds {other}.")
    if source.name == "fashion-mnist":
        lines.append("On Debian and Ubuntu, 'apt install dataset-fashion-mnist' brings them.")
    return DataError("\n".join(lines), path=place)
