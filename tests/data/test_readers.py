"""Readers of data files: on files made here in the exact formats, and on damaged ones.

Oracle: the formats' published layouts, written out below with struct and nothing of pcgraph.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcgraph.data import read_cifar10, read_idx
from pcgraph.data.formats import read_cifar10_archive
from pcgraph.errors import DataError
from tests.builders import idx

on_disk = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
records = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 255)), min_size=1, max_size=3)


def cifar(pairs):
    """One record for each (label, start): the planes count up from start, so every place is told apart."""
    planes = [bytes((start + 7 * i + i // 1024) % 256 for i in range(3072)) for _, start in pairs]
    return b"".join(bytes([label]) + plane for (label, _), plane in zip(pairs, planes, strict=True))


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def outcome(reader, path):
    """What a reader returns, or the DataError that it raises; any other error is the test's failure."""
    try:
        return reader(path)
    except DataError as refused:
        return refused


@on_disk
@given(array=arrays, packed=st.booleans())
def test_idx_round_trip(tmp_path, array, packed):
    """If this fails, users train on other pixels than the file's."""
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    read = read_idx(path, dims=array.ndim)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


@on_disk
@given(array=arrays, packed=st.booleans(), data=st.data())
def test_a_cut_off_idx_file_is_refused(tmp_path, array, packed, data):
    """If this fails, an interrupted copy is read as a smaller or garbled data set."""
    content = gzip.compress(idx(array)) if packed else idx(array)
    path = tmp_path / "file"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)


@on_disk
@given(array=arrays, data=st.data())
def test_a_flipped_byte_in_a_gzip_file_never_changes_the_pixels(tmp_path, array, data):
    """If this fails, a damaged file is trained on as if it were right."""
    content = bytearray(gzip.compress(idx(array)))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "file"
    path.write_bytes(content)
    read = outcome(read_idx, path)
    if isinstance(read, DataError):
        assert read.path == path
    else:
        np.testing.assert_array_equal(read, array)


@on_disk
@given(content=st.binary(max_size=64), magic=st.sampled_from([b"", b"\0\0\x08", b"\x1f\x8b\x08", b"\0\0\x08\x02"]))
def test_any_bytes_give_an_array_or_a_data_error(tmp_path, content, magic):
    """If this fails, some file crashes the reader with an error that names no file."""
    path = tmp_path / "file"
    path.write_bytes(magic + content)
    for reader in (read_idx, read_cifar10, lambda p: read_cifar10_archive(p, ["test_batch.bin"])):
        read = outcome(reader, path)
        assert str(path) in str(read) if isinstance(read, DataError) else read is not None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"\x80\x04\x95\x00", "80 04 95 00"),  # the start of a pickle
        (bytes([0, 0, 0x0D, 1]) + struct.pack(">If", 1, 1.0), "00 00 0d 01"),  # floats
        (idx(np.zeros((2, 3, 3), np.uint8)), "should have 1 dimension .found 3"),
        (bytes([0, 0, 8, 1, 0, 0]), "a header: 8 bytes .found 6."),
        (idx(np.zeros(4, np.uint8))[:-1], "4 bytes .found 3."),
        (idx(np.zeros(4, np.uint8)) + b"x", "4 bytes .found more than 4."),
        (bytes([0, 0, 8, 1, 255, 255, 255, 255]), "4294967295 bytes .found 0."),
    ],
    ids=["empty", "pickle", "floats", "images for labels", "half a header", "short", "long", "huge"],
)
def test_malformed_labels_say_what_is_wrong(tmp_path, content, says):
    """If this fails, a user with a bad file is not told what was needed and what was found."""
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_idx(path, dims=1)


def test_a_header_that_claims_four_dimensions_of_four_billion_costs_no_memory(tmp_path):
    """If this fails, a damaged header makes the program ask for more memory than there is."""
    path = tmp_path / "images"
    path.write_bytes(bytes([0, 0, 8, 4]) + b"\xff" * 16 + b"abc")
    with pytest.raises(DataError, match="found 3"):
        read_idx(path)


@pytest.mark.parametrize("reader", [read_idx, read_cifar10, lambda p: read_cifar10_archive(p, ["test_batch.bin"])])
def test_a_missing_file_and_a_folder_are_data_errors(tmp_path, reader):
    """If this fails, users get the operating system's bare error."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="cannot be read"):
            reader(path)


@settings(on_disk, max_examples=20)
@given(pairs=records, packed=st.booleans())
def test_cifar_round_trip(tmp_path, pairs, packed):
    """If this fails, colours or pixels of CIFAR-10 are mixed up."""
    path = tmp_path / "test_batch.bin"
    path.write_bytes(gzip.compress(cifar(pairs)) if packed else cifar(pairs))
    images, labels = read_cifar10(path)
    assert labels.tolist() == [label for label, _ in pairs]
    assert images.shape == (len(pairs), 3, 32, 32)
    for image, (_, start) in zip(images, pairs, strict=True):
        for channel, row, column in [(0, 0, 0), (0, 0, 31), (0, 31, 0), (1, 0, 0), (1, 5, 9), (2, 31, 31)]:
            place = channel * 1024 + row * 32 + column
            assert image[channel, row, column] == (start + 7 * place + channel) % 256


@settings(on_disk, max_examples=20)
@given(pairs=records, data=st.data())
def test_a_cifar_file_that_is_no_whole_number_of_records_is_refused(tmp_path, pairs, data):
    """If this fails, a cut-off CIFAR file is read with its planes shifted."""
    content = cifar(pairs)
    cut = data.draw(st.integers(0, len(content) - 1).filter(lambda size: size == 0 or size % 3073))
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(content[:cut])
    with pytest.raises(DataError, match=f"records of 3073 bytes.*found {cut}"):
        read_cifar10(path)


def test_an_archive_is_read_like_its_files(tmp_path):
    """If this fails, CIFAR-10 from the archive differs from CIFAR-10 from the unpacked folder."""
    files = {"data_batch_2.bin": cifar([(2, 20)]), "readme.html": b"<html>", "data_batch_1.bin": cifar([(1, 10)])}
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(archive(files))
    names = ["data_batch_1.bin", "data_batch_2.bin"]
    for name, (images, labels) in zip(names, read_cifar10_archive(path, names), strict=True):
        (tmp_path / name).write_bytes(files[name])
        expected = read_cifar10(tmp_path / name)
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


def test_an_archive_without_a_member_says_which(tmp_path):
    """If this fails, a wrong archive (the Python version, say) gives an error that explains nothing."""
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(archive({"data_batch_1.bin": cifar([(1, 10)])}))
    with pytest.raises(DataError, match=r"lacks test_batch.bin \(found none\)"):
        read_cifar10_archive(path, ["test_batch.bin"])


@settings(on_disk, max_examples=60)
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_read_right(tmp_path, data):
    """If this fails, an interrupted download of CIFAR-10 crashes, or is trained on."""
    content = bytearray(archive({"test_batch.bin": cifar([(3, 5), (4, 77)])}))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    read = outcome(lambda p: read_cifar10_archive(p, ["test_batch.bin"]), path)
    if isinstance(read, DataError):
        assert str(path) in str(read)
    else:
        assert read[0][1].tolist() == [3, 4]


def test_a_half_archive_is_refused(tmp_path):
    """If this fails, an archive of which half is there is not recognised."""
    content = archive({"test_batch.bin": np.random.default_rng(0).bytes(3073 * 4)})
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cut off or damaged"):
        read_cifar10_archive(path, ["test_batch.bin"])
