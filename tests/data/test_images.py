"""Loading sets by name: where files are found, what is checked, normalization, fractions, splits, downloads.

The files are made here, in the published formats, with small counts; the counts that the catalogue demands are
lowered to match.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcgraph import data
from pcgraph.data import Images, sources
from pcgraph.errors import ConfigError, DataError
from tests.builders import idx

COUNTS = {"train": 40, "test": 20}
STEMS = {"train": "train", "test": "t10k"}


def pixels(split, seed=0, shape=(28, 28)):
    high = {"train": 256, "test": 100}[split]
    return np.random.default_rng([seed, len(split)]).integers(0, high, (COUNTS[split], *shape), dtype=np.uint8)


def labels(split):
    return np.arange(COUNTS[split], dtype=np.uint8) % 10


def write_idx(folder, seed=0, packed=True):
    """Four files as MNIST has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, stem in STEMS.items():
        for name, array in (
            (f"{stem}-images-idx3-ubyte", pixels(split, seed)),
            (f"{stem}-labels-idx1-ubyte", labels(split)),
        ):
            content = idx(array)
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return folder


def cifar_files():
    """Six files as CIFAR-10 has them, eight training images in each."""
    train, test = pixels("train", shape=(3, 32, 32)), pixels("test", shape=(3, 32, 32))
    parts = {
        f"data_batch_{i + 1}.bin": (train[8 * i : 8 * i + 8], labels("train")[8 * i : 8 * i + 8]) for i in range(5)
    }
    parts["test_batch.bin"] = (test, labels("test"))
    return {
        name: b"".join(bytes([label]) + image.tobytes() for image, label in zip(*part, strict=True))
        for name, part in parts.items()
    }


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Small sets; no data of this machine in reach, and no network."""
    for name in ("mnist", "fashion-mnist", "kmnist", "cifar10"):
        small = replace(sources.CATALOGUE[name], counts=COUNTS, mirrors=("http://127.0.0.1:9/",))
        monkeypatch.setitem(sources.CATALOGUE, name, small)
    monkeypatch.delenv("PCGRAPH_DATA", raising=False)
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)


def same(loaded, split, seed=0):
    expected = pixels(split, seed).reshape(COUNTS[split], -1)
    return torch.equal((loaded.images * 255).round().to(torch.uint8), torch.from_numpy(expected))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_idx_sets_load_as_they_were_written(tmp_path, name, packed):
    """If this fails, users train on other images or labels than the files hold."""
    write_idx(tmp_path / name, packed=packed)
    for split in ("train", "test"):
        loaded = data.load(name, split, root=tmp_path, normalize="unit")
        assert same(loaded, split)
        assert loaded.labels.dtype == torch.int64
        assert loaded.labels.tolist() == labels(split).tolist()
        assert (loaded.name, loaded.shape, len(loaded.classes)) == (name, (784,), 10)
        square = data.load(name, split, root=tmp_path, normalize="unit", flatten=False)
        assert square.shape == (1, 28, 28)
        assert torch.equal(square.images.flatten(1), loaded.images)


@pytest.mark.parametrize("how", ["folder", "cifar-10-batches-bin", "archive"])
def test_cifar_loads_from_files_and_from_the_archive(tmp_path, how):
    """If this fails, colours, order or labels of CIFAR-10 are wrong, or depend on how the files lie."""
    files = cifar_files()
    folder = tmp_path / ("cifar-10-batches-bin" if how == "cifar-10-batches-bin" else "cifar10")
    folder.mkdir()
    if how == "archive":
        with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
            for name in reversed(files):
                entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                entry.size = len(files[name])
                tar.addfile(entry, io.BytesIO(files[name]))
    else:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    for split in ("train", "test"):
        loaded = data.load("CIFAR-10", split, root=tmp_path, normalize="unit", dtype=torch.float64)
        expected = torch.from_numpy(pixels(split, shape=(3, 32, 32))).double() / 255
        assert torch.equal(loaded.images, expected)
        assert loaded.labels.tolist() == labels(split).tolist()
        assert loaded.classes[:3] == ("airplane", "automobile", "bird")
    assert data.load("cifar10", root=tmp_path, flatten=True).shape == (3072,)


def test_standard_normalization_is_by_the_training_split_channel_by_channel(tmp_path):
    """If this fails, the test set is normalized by itself (it then leaks), or channels are mixed."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name, content in cifar_files().items():
        (folder / name).write_bytes(content)
    train = pixels("train", shape=(3, 32, 32)) / 255
    mean, std = (stat(axis=(0, 2, 3), keepdims=True) for stat in (train.mean, train.std))
    for split in ("train", "test"):
        expected = (pixels(split, shape=(3, 32, 32)) / 255 - mean) / std
        loaded = data.load("cifar10", split, root=tmp_path, dtype=torch.float64).images.numpy()
        np.testing.assert_allclose(loaded, expected, rtol=1e-12, atol=1e-13)
        part = data.load("cifar10", split, root=tmp_path, dtype=torch.float64, fraction=0.5).images.numpy()
        assert {row.tobytes() for row in part} <= {row.tobytes() for row in loaded}
    chosen = data.load("cifar10", root=tmp_path, dtype=torch.float64, normalize=([0.1, 0.2, 0.3], 2.0)).images.numpy()
    np.testing.assert_allclose(chosen, (train - np.array([0.1, 0.2, 0.3])[:, None, None]) / 2, rtol=1e-12, atol=1e-15)


def test_constant_pixels_do_not_become_infinite(tmp_path):
    """If this fails, a blank data set turns into NaN instead of zeros."""
    folder = write_idx(tmp_path / "mnist", packed=False)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.full((40, 28, 28), 7, np.uint8)))
    assert torch.equal(data.load("mnist", root=tmp_path).images, torch.zeros(40, 784))


def test_places_are_searched_in_the_documented_order(tmp_path, monkeypatch):
    """If this fails, a user's own files are passed over for others."""
    places = [tmp_path / "mine" / "mnist", tmp_path / "mine", tmp_path / "system" / "mnist"]
    places.append(tmp_path / "cache" / "pcgraph" / "mnist")
    monkeypatch.setenv("PCGRAPH_DATA", str(tmp_path / "mine"))
    for seed, place in reversed(list(enumerate(places))):
        write_idx(place, seed)
        assert same(data.load("mnist", normalize="unit"), "train", seed), place
    assert same(data.load("mnist", normalize="unit", root=tmp_path / "system"), "train", 2)


@pytest.mark.parametrize("layout", ["FashionMNIST/raw", "FashionMNIST", "fashion-mnist"])
def test_folders_that_other_libraries_made_are_found(tmp_path, layout):
    """If this fails, users must copy files that they have already."""
    write_idx(tmp_path / layout, packed=False)
    assert same(data.load("fashion_mnist", root=tmp_path, normalize="unit"), "train")


def test_files_of_another_set_are_not_taken(tmp_path, monkeypatch):
    """If this fails, MNIST is loaded as KMNIST without a word, since their files have the same names."""
    folder = write_idx(tmp_path / "kmnist")
    with pytest.raises(DataError, match="itself was passed over, since by its name it holds kmnist"):
        data.load("mnist", root=folder)
    digest = hashlib.sha256((folder / "train-labels-idx1-ubyte.gz").read_bytes()).hexdigest()
    kmnist = replace(sources.CATALOGUE["kmnist"], sha256={"train-labels-idx1-ubyte.gz": digest})
    monkeypatch.setitem(sources.CATALOGUE, "kmnist", kmnist)
    folder.rename(tmp_path / "images")
    with pytest.raises(DataError, match="is a file of kmnist, not of mnist"):
        data.load("mnist", root=tmp_path / "images")
    assert len(data.load("kmnist", root=tmp_path / "images")) == 40


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train-images-idx3-ubyte", idx(pixels("train")[:39]), "39 images and .* has 40 labels"),
        ("train-labels-idx1-ubyte", idx(labels("train")[:39]), "40 images and .* has 39 labels"),
        ("train-labels-idx1-ubyte", idx(np.full(40, 10, np.uint8)), "label 10 at position 0 is out of range.* 0 to 9"),
        ("train-images-idx3-ubyte", idx(pixels("train", shape=(28, 27))), r"\(1, 28, 28\).*found \(1, 28, 27\)"),
        ("train-images-idx3-ubyte", idx(labels("train")), "should have 3 dimensions .found 1"),
        ("train-images-idx3-ubyte", gzip.compress(idx(pixels("train")))[:-20], "cut off or damaged"),
        ("train-images-idx3-ubyte", idx(pixels("train"))[:-1], "31360 bytes .found 31359"),
    ],
    ids=["fewer images", "fewer labels", "label", "shape", "labels for images", "cut gzip", "short"],
)
def test_malformed_sets_are_refused_by_name(tmp_path, name, content, says):
    """If this fails, a damaged file is trained on, or the error does not say which file is to be fetched again."""
    folder = write_idx(tmp_path / "mnist", packed=False)
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        data.load("mnist", root=tmp_path)
    assert Path(caught.value.path).parent == folder


def test_a_set_with_other_counts_is_refused(tmp_path):
    """If this fails, a part of a set passes for the whole one, and results are compared that cannot be."""
    folder = write_idx(tmp_path / "mnist", packed=False)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(pixels("train")[:30]))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels("train")[:30]))
    with pytest.raises(DataError, match=r"has 40 images \(found 30\)"):
        data.load("mnist", root=tmp_path)


def test_without_files_the_error_says_which_go_where(tmp_path):
    """If this fails, a user without network does not know what to do."""
    with pytest.raises(DataError) as caught:
        data.load("fashion-mnist", "test")
    for part in (
        "t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz",
        "$PCGRAPH_DATA/fashion-mnist",
        str(tmp_path / "system" / "fashion-mnist"),
        "Download failed: http://127.0.0.1:9/t10k-images-idx3-ubyte.gz: ConnectionError",
        "dataset-fashion-mnist",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=f"Put the files into {tmp_path}/cifar10") as caught:
        data.load("cifar10", root=tmp_path)
    assert "cifar-10-binary.tar.gz" in str(caught.value)
    assert "Download" not in str(caught.value)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    """If this fails, a user without the extra gets a bare ImportError."""
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"downloading needs pooch: pip install 'pcgraph\[data\]'"):
        data.load("mnist")
    with pytest.raises(DataError, match=r"scikit-learn: pip install 'pcgraph\[data\]'"):
        data.load("digits")
    write_idx(tmp_path / "system" / "mnist")
    assert len(data.load("mnist")) == 40


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path):
    """A server on this machine that offers the four files."""
    folder = write_idx(tmp_path / "mirror")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_download_is_checked_and_kept(mirror, monkeypatch, tmp_path):
    """If this fails, sets cannot be downloaded, are downloaded each time, or unchecked."""
    folder, address = mirror
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    mnist = replace(sources.CATALOGUE["mnist"], mirrors=("http://127.0.0.1:9/", address), sha256=sums)
    monkeypatch.setitem(sources.CATALOGUE, "mnist", mnist)
    assert same(data.load("mnist", normalize="unit"), "train")
    kept = tmp_path / "cache" / "pcgraph" / "mnist"
    assert sorted(path.name for path in kept.iterdir()) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    monkeypatch.setitem(sources.CATALOGUE, "mnist", replace(mnist, mirrors=()))
    assert same(data.load("mnist", normalize="unit"), "train")


def test_a_download_with_a_wrong_checksum_is_refused(mirror, monkeypatch, tmp_path):
    """If this fails, whatever a mirror sends is trained on."""
    mnist = replace(sources.CATALOGUE["mnist"], mirrors=(mirror[1],))
    monkeypatch.setitem(sources.CATALOGUE, "mnist", mnist)
    with pytest.raises(DataError, match=r"Download failed: .*SHA256 hash"):
        data.load("mnist")
    assert not any((tmp_path / "cache" / "pcgraph" / "mnist").glob("*.gz"))


def test_checksums_are_sha256_and_belong_to_one_file_each():
    """If this fails, a checksum has been mistyped or pasted twice, and that download can never succeed."""
    sums = [digest for source in sources.CATALOGUE.values() for digest in source.sha256.values()]
    assert len(sums) == len(set(sums)) == 13
    assert all(len(digest) == 64 and int(digest, 16) for digest in sums)


def test_digits_are_split_once_and_for_ever_and_class_balanced():
    """If this fails, results on digits cannot be compared, or training images are tested on."""
    from sklearn.datasets import load_digits

    train, test = (data.load("digits", split, normalize="unit") for split in ("train", "test"))
    assert (len(train), len(test), train.shape) == (1437, 360, (64,))
    everything, everyones = load_digits(return_X_y=True)
    pairs = {
        (row.tobytes(), int(label)) for row, label in zip((everything / 16).astype(np.float32), everyones, strict=True)
    }
    parts = [{(x.numpy().tobytes(), int(y)) for x, y in part} for part in (train, test)]
    assert parts[0] | parts[1] == pairs
    assert not parts[0] & parts[1]
    for part in (train, test):
        expected = np.bincount(everyones) * len(part) / 1797
        assert np.abs(torch.bincount(part.labels).numpy() - expected).max() <= 1
    again = data.load("digits", "test", normalize="unit", seed=5)
    assert torch.equal(again.images, test.images)


def test_fractions_are_balanced_nested_and_seeded():
    """If this fails, training on 25 % of the data differs from 50 % by more than its size."""
    parts = [data.load("digits", fraction=f, seed=1) for f in (0.25, 0.5, 1.0)]
    assert [len(part) for part in parts] == [359, 718, 1437]
    rows = [{image.numpy().tobytes() for image in part.images} for part in parts]
    assert rows[0] < rows[1] < rows[2]
    whole = torch.bincount(parts[2].labels)
    for part, fraction in zip(parts, (0.25, 0.5, 1.0), strict=True):
        assert (torch.bincount(part.labels) - fraction * whole).abs().max() <= 1
    assert torch.equal(data.load("digits", fraction=0.25, seed=1).images, parts[0].images)
    assert {i.numpy().tobytes() for i in data.load("digits", fraction=0.25, seed=2).images} != rows[0]


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(6, 20), min_size=1, max_size=4), seed=st.integers(0, 99), share=st.floats(0.3, 0.7))
def test_a_split_has_every_image_once_and_every_class_twice(counts, seed, share):
    """If this fails, validation images are trained on, or a class is never validated."""
    known = torch.tensor([c for c, count in enumerate(counts) for _ in range(count)])
    images = Images(torch.arange(len(known), dtype=torch.float64).view(-1, 1), known)
    train, validation = images.split(share, seed=seed)
    assert len(validation) == round(share * len(known))
    rows = [*train.images.flatten().long().tolist(), *validation.images.flatten().long().tolist()]
    assert sorted(rows) == list(range(len(known)))
    for part in (train, validation):
        assert torch.equal(part.labels, known[part.images.flatten().long()])
        assert part.images.flatten().tolist() == sorted(part.images.flatten().tolist())
        assert len(part.labels.unique()) == len(counts)


def test_a_split_of_even_classes_is_even_and_may_be_given_as_a_count():
    """If this fails, a validation set weighs classes differently from the training set."""
    images = Images(torch.rand(60, 2), torch.arange(60) % 3)
    train, validation = images.split(12)
    assert torch.bincount(validation.labels).tolist() == [4, 4, 4]
    assert torch.bincount(train.labels).tolist() == [16, 16, 16]
    assert torch.equal(images.split(0.2)[1].images, validation.images)


def test_images_are_a_torch_data_set():
    """If this fails, torch's loaders and samplers cannot use it."""
    images = Images(torch.rand(5, 3), [0, 1, 1, 2, 0], ["a", "b", "c"], name="mine")
    assert isinstance(images, torch.utils.data.Dataset)
    x, y = images[-1]
    assert torch.equal(x, images.images[4])
    assert y == 0
    assert len(list(images)) == 5
    (batch, known), *_ = torch.utils.data.DataLoader(images, batch_size=5)
    assert torch.equal(batch, images.images)
    assert torch.equal(known, images.labels)
    assert torch.equal(images.one_hot(), torch.nn.functional.one_hot(images.labels, 3).float())
    assert images.to(dtype=torch.float64).one_hot().dtype == torch.float64
    with pytest.raises(IndexError):
        images[5]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((torch.rand(3, 2), [0, 1]), "3 images, 2 labels"),
        ((torch.rand(2, 2), [0, 3], ["a", "b"]), "label 3 is out of range: 2 classes"),
        ((torch.rand(2, 2), [0, -1]), "label -1 is out of range"),
        ((torch.zeros(2, 2, dtype=torch.uint8), [0, 1]), "floating-point tensor .*uint8"),
        ((torch.rand(2), [0, 1]), "shape .N, .shape"),
        (([[1.0]], [0]), "found list"),
        ((torch.rand(0, 2), torch.empty(0, dtype=torch.int64)), "empty"),
    ],
)
def test_images_that_do_not_fit_their_labels_are_refused(arguments, says):
    """If this fails, a wrong data set is found out deep in the training, or never."""
    with pytest.raises(DataError, match=says):
        Images(*arguments)


@pytest.mark.parametrize(
    ("arguments", "key", "says"),
    [
        ({"name": "fashion-mnits"}, "name", "did you mean 'fashion-mnist'"),
        ({"name": 7}, "name", "unknown data set 7"),
        ({"split": "trian"}, "split", "did you mean 'train'"),
        ({"normalize": "standrad"}, "normalize", "did you mean 'standard'"),
        ({"normalize": (0.5, 0.0)}, "normalize", "std > 0"),
        ({"normalize": ([0.5, 0.5], 1.0)}, "normalize", "numbers or 1 of each"),
        ({"normalize": None}, "normalize", "found None"),
        ({"normalize": (float("nan"), 1.0)}, "normalize", "found .nan"),
        ({"fraction": 0}, "fraction", r"fraction must be in \(0, 1\) .found 0"),
        ({"fraction": 1.5}, "fraction", r"fraction must be in \(0, 1\) .found 1.5"),
        ({"fraction": "half"}, "fraction", "found 'half'"),
        ({"fraction": 0.001}, "fraction", "leaves no image of the class"),
        ({"fraction": 0.5, "seed": -1}, "seed", "seed must be an integer that is not negative"),
        ({"dtype": torch.int64}, "dtype", "dtype is one of torch.float64"),
    ],
)
def test_wrong_settings_are_refused(arguments, key, says):
    """If this fails, a misspelt setting loads something else than was asked for."""
    with pytest.raises(ConfigError, match=says) as caught:
        data.load(**{"name": "digits", **arguments})
    assert caught.value.key == key


@pytest.mark.parametrize("validation", [0, -1, 60, 61, 58, 1.0, 0.0, 1])
def test_a_split_that_leaves_a_class_out_is_refused(validation):
    """If this fails, the validation or the training set silently lacks a class."""
    with pytest.raises(ConfigError, match="validation"):
        Images(torch.rand(60, 2), torch.arange(60) % 3).split(validation)


FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.realdata
@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_what_the_literature_says(monkeypatch):
    """If this fails, the paper's experiments run on other data. Facts: Xiao, Rasul, Vollgraf 2017, and the mean and
    standard deviation that the field normalizes by."""
    monkeypatch.undo()
    monkeypatch.delenv("PCGRAPH_DATA", raising=False)
    train, test = (data.load("fashion-mnist", split, normalize="unit") for split in ("train", "test"))
    assert torch.bincount(train.labels).tolist() == [6000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert [train.classes[i] for i in train.labels[:3]] == ["Ankle boot", "T-shirt/top", "T-shirt/top"]
    assert train.images.double().mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert train.images.double().std().item() == pytest.approx(0.3530, abs=5e-5)
    batches = train.batches(200, stream_aligned=True)
    assert len(batches) == 300
    assert all(torch.equal(y.argmax(1), torch.arange(10).repeat_interleave(20)) for _, y in batches)
