"""Read the two file formats: IDX (MNIST and its relatives) and the binary version of CIFAR-10.

IDX: two zero bytes, a type code (8 for unsigned bytes), the number of dimensions d, then d sizes as big-endian
32-bit integers, then the values, last dimension fastest.
CIFAR-10, binary: records of 3073 bytes, one label and then the red, the green and the blue plane, each 32 x 32.

Both readers take plain files, and gzip is told by its first two bytes and not by the file's name. Nothing here
runs code from a file. Whatever is wrong with a file is a :class:`~pcgraph.errors.DataError` that names it.

References
----------
Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import gzip
import math
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import numpy.typing as npt

from pcgraph.arguments import require_path
from pcgraph.errors import DataError

__all__ = ["read_cifar10", "read_cifar10_archive", "read_idx"]

Bytes = npt.NDArray[np.uint8]

CIFAR_SHAPE = (3, 32, 32)
CIFAR_RECORD = 1 + math.prod(CIFAR_SHAPE)
_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 20


def read_idx(path: str | Path, *, dims: int | None = None) -> Bytes:
    """Read an IDX file of unsigned bytes, plain or gzip.

    Parameters
    ----------
    path : str or Path
        The file.
    dims : int, optional
        The number of dimensions that it must have: 1 for labels, 3 for grey images. Default: any.

    Returns
    -------
    ndarray of uint8
        The values, in the shape that the file's header declares.

    Raises
    ------
    DataError
        If the file cannot be read, is no IDX file of unsigned bytes, has another number of dimensions, or is
        shorter or longer than its header says.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels"
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([7, 2, 1]))
    >>> read_idx(path, dims=1).tolist()
    [7, 2, 1]
    """
    path = require_path(path, "path")
    with _reading(path), _opened(path) as stream:
        magic = _up_to(stream, 4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UNSIGNED_BYTE or magic[3] == 0:
            needed = f"00 00 08 {dims:02x}" if dims else "00 00 08 and the number of dimensions"
            raise DataError(
                f"{path} is no IDX file of unsigned bytes: its first four bytes should be {needed}, in hexadecimal "
                f"(found {magic.hex(' ') or 'an empty file'}). Fetch the file again.",
                path=path,
            )
        if dims is not None and magic[3] != dims:
            raise DataError(
                f"{path} should have {dims} dimension{'s' * (dims > 1)} (found {magic[3]} in its header): "
                "is it the file of labels in the place of the images, or the other way round?",
                path=path,
            )
        header = _up_to(stream, 4 * magic[3])
        if len(header) < 4 * magic[3]:
            raise _size_error(path, "a header", 4 + 4 * magic[3], 4 + len(header))
        shape = tuple(int(size) for size in np.frombuffer(header, dtype=">u4"))
        needed_bytes = math.prod(shape)
        values = _up_to(stream, needed_bytes + 1)
    if len(values) != needed_bytes:
        what = " x ".join(map(str, shape)) + " values as its header says"
        found = f"more than {needed_bytes}" if len(values) > needed_bytes else len(values)
        raise _size_error(path, what, needed_bytes, found)
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def read_cifar10(path: str | Path) -> tuple[Bytes, Bytes]:
    """Read one file of the binary version of CIFAR-10.

    Parameters
    ----------
    path : str or Path
        Such as ``data_batch_1.bin``, plain or gzip.

    Returns
    -------
    images : ndarray of uint8, shape (records, 3, 32, 32)
    labels : ndarray of uint8, shape (records,)

    Raises
    ------
    DataError
        If the file cannot be read, is empty or is not a whole number of records of 3073 bytes.
    """
    path = require_path(path, "path")
    with _reading(path), _opened(path) as stream:
        return _records(_up_to(stream, None), path)


def read_cifar10_archive(path: str | Path, members: Sequence[str]) -> list[tuple[Bytes, Bytes]]:
    """Read some members of ``cifar-10-binary.tar.gz`` without unpacking it to the disk.

    Parameters
    ----------
    path : str or Path
        The archive.
    members : sequence of str
        File names without folders, such as ``["test_batch.bin"]``.

    Returns
    -------
    list of (images, labels)
        As :func:`read_cifar10` returns them, in the order of `members`.

    Raises
    ------
    DataError
        If the archive is damaged, lacks a member, or a member is malformed.
    """
    path = require_path(path, "path")
    wanted = set(members)
    found: dict[str, tuple[Bytes, Bytes]] = {}
    with _reading(path), gzip.open(path, "rb") as packed:
        with tarfile.open(fileobj=packed, mode="r:") as archive:
            for entry in archive:
                name = entry.name.rsplit("/", 1)[-1]
                stream = archive.extractfile(entry) if name in wanted and entry.isfile() else None
                if stream is not None:
                    found[name] = _records(_up_to(stream, None), path / name)
        while packed.read(_CHUNK):  # to its very end, where gzip keeps the checksum
            pass
    missing = [name for name in members if name not in found]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)} (found {', '.join(sorted(found)) or 'none'}).", path=path)
    return [found[name] for name in members]


def _records(content: bytes, path: Path) -> tuple[Bytes, Bytes]:
    """Cut the bytes of a CIFAR-10 file into labels and images."""
    count, rest = divmod(len(content), CIFAR_RECORD)
    if rest or not count:
        needed = f"a whole number of records of {CIFAR_RECORD} bytes, at least one"
        raise _size_error(path, needed, max(count + bool(rest), 1) * CIFAR_RECORD, len(content))
    table = np.frombuffer(content, dtype=np.uint8).reshape(count, CIFAR_RECORD)
    return table[:, 1:].reshape(count, *CIFAR_SHAPE), table[:, 0]


def _size_error(path: Path, what: str, needed: int, found: int | str) -> DataError:
    return DataError(
        f"{path} should hold {what}: {needed} bytes (found {found}). The file is cut off or damaged; fetch it again.",
        path=path,
    )


def _up_to(stream: gzip.GzipFile | IO[bytes], limit: int | None) -> bytes:
    """Read until `limit` bytes or the end, in pieces: a header that lies about its size must not cost its memory."""
    pieces, left = [], math.inf if limit is None else limit
    while left > 0 and (piece := stream.read(int(min(left, _CHUNK)))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _opened(path: Path) -> gzip.GzipFile | BinaryIO:
    """Open a file, through gzip where its first bytes say so."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the operating system, gzip or tar says about a bad file into a DataError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as problem:
        raise DataError(f"{path} is cut off or damaged ({problem}). Fetch it again.", path=path) from problem
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror or problem}).", path=path) from problem
