"""Batches: stream alignment for any class counts, every sample once, resuming at any position, bad settings."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from pcgraph.data import Images, StreamAligned
from pcgraph.data.sampling import stratified
from pcgraph.errors import ConfigError, DataError

quick = settings(deadline=None, max_examples=60)
class_counts = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@st.composite
def streams(draw):
    """Labels in any order, with any class counts, and a batch size that fits them."""
    counts = draw(class_counts)
    labels = [c for c, count in enumerate(counts) for _ in range(count)]
    labels = torch.tensor(draw(st.permutations(labels)))
    per_class = draw(st.integers(1, max(1, len(labels) // len(counts))))
    return labels, per_class * len(counts)


def make(count=23, classes=4, **kwargs):
    """Images that are all different, so that a batch tells which samples it has."""
    labels = torch.arange(count) % classes
    return Images(torch.arange(count, dtype=torch.float32).view(-1, 1) * torch.tensor([[1.0, 2.0]]), labels, **kwargs)


def ids(batches):
    return [x[:, 0].long().tolist() for x, *_ in batches]


@quick
@given(stream=streams(), seed=st.integers(0, 2**40))
def test_slot_i_always_holds_the_same_class(stream, seed):
    """If this fails, averaging a stream mixes classes, and Average learns nothing (paper, section 4.1)."""
    labels, n = stream
    C = int(labels.max()) + 1
    expected = [c for c in range(C) for _ in range(n // C)]
    sampler = StreamAligned(labels, n, seed=seed)
    batches = list(sampler)
    assert len(batches) == len(sampler) == len(labels) // n
    assert all(labels[batch].tolist() == expected for batch in batches)


@quick
@given(stream=streams(), seed=st.integers(0, 2**40))
def test_a_class_is_gone_through_evenly(stream, seed):
    """If this fails, some images are shown over and over while others of the same class are not shown."""
    labels, n = stream
    used = Counter(row for batch in StreamAligned(labels, n, seed=seed) for row in batch)
    for c in range(int(labels.max()) + 1):
        members = torch.nonzero(labels == c).flatten().tolist()
        times = [used[row] for row in members]
        assert max(times) - min(times) <= 1
        assert sum(times) == len(labels) // n * (n // (int(labels.max()) + 1))


def test_balanced_classes_are_seen_exactly_once_an_epoch():
    """If this fails, an epoch of MNIST is no epoch."""
    labels = torch.arange(60) % 3
    rows = [row for batch in StreamAligned(labels, 12) for row in batch]
    assert sorted(rows) == list(range(60))


@quick
@given(stream=streams(), seed=st.integers(0, 9), epochs=st.integers(0, 2), data=st.data())
def test_resuming_at_any_position_continues_exactly(stream, seed, epochs, data):
    """If this fails, a run that was stopped and resumed sees other batches than one never stopped."""
    labels, n = stream
    whole = StreamAligned(labels, n, seed=seed)
    stop = data.draw(st.integers(0, len(whole)))
    for _ in range(epochs):
        list(whole)
    running = iter(whole)
    list(islice(running, stop))
    state = json.loads(json.dumps(whole.state_dict()))
    resumed = StreamAligned(labels, n, seed=data.draw(st.integers(0, 9)))
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert list(resumed) == list(running)
    assert list(resumed) == list(whole)
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize("settings_", [{}, {"stream_aligned": True}, {"shuffle": False}, {"drop_last": True}])
def test_batches_resume_bit_for_bit_at_every_position(settings_):
    """If this fails, training after a checkpoint is not the training without one."""
    data = make()
    for stop in range(len(data.batches(4, **settings_)) + 1):
        whole = data.batches(4, seed=3, labels=True, **settings_)
        list(whole)
        running = iter(whole)
        list(islice(running, stop))
        resumed = data.batches(4, labels=True, **settings_)
        resumed.load_state_dict(whole.state_dict())
        assert (resumed.epoch, resumed.position) == (1, stop)
        for one, other in zip([*running, *whole], [*resumed, *resumed], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_state_taken_after_the_last_batch_leaves_nothing_of_the_epoch():
    """If this fails, a run killed between the last batch and the end of the epoch repeats or skips an epoch."""
    batches = make().batches(4)
    running = iter(batches)
    list(islice(running, len(batches)))
    resumed = make().batches(4)
    resumed.load_state_dict(batches.state_dict())
    assert list(resumed) == []
    assert resumed.epoch == 1
    assert len(list(resumed)) == len(batches)


@quick
@given(count=st.integers(1, 40), batch_size=st.integers(1, 45), shuffle=st.booleans(), seed=st.integers(0, 99))
def test_every_sample_comes_once_an_epoch(count, batch_size, shuffle, seed):
    """If this fails, an epoch leaves samples out, or evaluation counts some twice."""
    batches = make(count).batches(batch_size, shuffle=shuffle, seed=seed)
    rows = ids(batches)
    assert len(rows) == len(batches)
    assert sorted(chain(*rows)) == list(range(count))
    assert all(len(batch) == batch_size for batch in rows[:-1])
    if not shuffle:
        assert list(chain(*rows)) == list(range(count))


def test_drop_last_leaves_out_only_a_smaller_batch():
    """If this fails, Null meets a batch of another size in the middle of training."""
    assert [len(b) for b in ids(make(23).batches(5, drop_last=True))] == [5, 5, 5, 5]
    assert [len(b) for b in ids(make(20).batches(5, drop_last=True))] == [5, 5, 5, 5]


def test_a_batch_is_images_and_their_one_hot_labels():
    """If this fails, images and labels do not belong together."""
    for x, y, labels in make().batches(5, labels=True):
        assert torch.equal(labels, x[:, 0].long() % 4)
        assert y.dtype == x.dtype == torch.float32
        assert torch.equal(y, torch.nn.functional.one_hot(labels, 4).float())
        assert torch.equal(x[:, 1], 2 * x[:, 0])


def test_changing_a_batch_does_not_change_the_set():
    """If this fails, in-place preprocessing of a batch corrupts the data for later epochs."""
    data = make()
    before = data.images.clone()
    for x, _ in data.batches(4, shuffle=False):
        x.zero_()
    assert torch.equal(data.images, before)


@pytest.mark.parametrize("settings_", [{}, {"stream_aligned": True}])
def test_orders_differ_between_epochs_and_seeds_and_repeat_with_the_seed(settings_):
    """If this fails, runs are not reproducible, or every epoch shows the same batches."""
    data = make(64)
    one, same, other = (data.batches(16, seed=seed, **settings_) for seed in (0, 0, 1))
    epochs = [ids(one) for _ in range(4)]
    assert all(a != b for a, b in pairwise(epochs))
    assert [ids(same) for _ in range(4)] == epochs
    seen = [ids(other) for _ in range(4)]
    assert not any(epoch in seen for epoch in epochs)


def test_an_epoch_that_is_left_early_is_over():
    """If this fails, training on the first batches of each epoch shows the same ones again and again."""
    batches = make(64).batches(16)
    first = next(iter(batches))[0]
    second = next(iter(batches))[0]
    assert not torch.equal(first, second)
    assert batches.epoch == 1
    assert len(list(batches)) == len(batches)


def test_an_older_iterator_does_not_disturb_the_newer_ones_state():
    """If this fails, two loops over one object write each other's position into the checkpoint."""
    batches = make(64).batches(16)
    old = iter(batches)
    next(old)
    new = iter(batches)
    next(new)
    state = batches.state_dict()
    assert len(list(old)) == 3
    assert batches.state_dict() == state
    assert len(list(new)) == 3
    assert (batches.epoch, batches.position) == (2, 0)


def test_global_generators_are_left_alone():
    """If this fails, loading data changes the user's other random numbers."""
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    data = make(64)
    list(data.batches(16))
    list(data.batches(16, stream_aligned=True))
    data.split(0.25)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    torch.manual_seed(1)
    one = ids(data.batches(16))
    torch.manual_seed(2)
    assert ids(data.batches(16)) == one


def test_it_is_a_batch_sampler_for_a_torch_data_loader():
    """If this fails, users of DataLoader cannot have stream-aligned batches."""
    data = make(24, 3)
    loader = DataLoader(data, batch_sampler=StreamAligned(data, 6, seed=2))
    batches = data.batches(6, seed=2, stream_aligned=True, labels=True)
    assert len(loader) == len(batches) == 4
    for _ in range(2):
        for (x, labels), (mine, _, mine_labels) in zip(loader, batches, strict=True):
            assert torch.equal(x, mine)
            assert torch.equal(labels, mine_labels)


def test_a_data_loader_leaves_the_sampler_where_the_next_batch_comes():
    """If this fails, a checkpoint taken inside a DataLoader loop resumes at another batch."""
    data = make(24, 3)
    sampler = StreamAligned(data, 6)
    loader = iter(DataLoader(data, batch_sampler=sampler))
    next(loader)
    next(loader)
    resumed = StreamAligned(data, 6)
    resumed.load_state_dict(sampler.state_dict())
    rest = [x[:, 0].long().tolist() for x, _ in loader]
    assert rest == list(resumed)


class Targets(Dataset):
    """A data set in torchvision's manner."""

    def __init__(self, targets, classes=None):
        self.targets = targets
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return torch.zeros(2), self.targets[index]


@pytest.mark.parametrize("wrap", [list, torch.tensor, np.array, lambda t: torch.tensor(t, dtype=torch.uint8)])
def test_labels_may_stand_in_a_data_set_a_tensor_an_array_or_a_list(wrap):
    """If this fails, stream alignment works only with our own data sets."""
    targets = [0, 1, 0, 1, 1, 0]
    expected = list(StreamAligned(torch.tensor(targets), 2))
    assert list(StreamAligned(wrap(targets), 2)) == expected
    assert list(StreamAligned(Targets(wrap(targets)), 2)) == expected


def test_a_subset_is_aligned_by_its_own_labels():
    """If this fails, random_split cannot be used with stream alignment, or aligns by the wrong labels."""
    data = Targets([0, 0, 1, 1, 1, 0, 1, 0])
    subset = Subset(data, [7, 6, 4, 1])
    for batch in StreamAligned(subset, 2):
        assert [subset[row][1] for row in batch] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"data": [0, 1, 2], "batch_size": 4}, ConfigError, "multiple of the 3 classes .found 4.. Use 3 or 6"),
        ({"data": [0, 1, 2], "batch_size": 2}, ConfigError, "Use 3[.]"),
        ({"data": [0, 1, 2], "batch_size": 0}, ConfigError, "batch_size must be a positive integer .found 0"),
        ({"data": [0, 1, 2], "batch_size": 3.0}, ConfigError, "batch_size must be a positive integer"),
        (
            {"data": [0, 1, 2], "batch_size": 3, "seed": -1},
            ConfigError,
            "seed must be an integer that is not negative .found -1",
        ),
        ({"data": [0, 1, 2], "batch_size": 3, "seed": None}, ConfigError, "seed must be an integer"),
        ({"data": [0, 1, 2], "batch_size": 6}, DataError, "a batch of 6 needs as many samples .found 3"),
        ({"data": [0, 2, 2], "batch_size": 3}, DataError, "found none of class 1 of 3"),
        ({"data": [0, 1, 1], "batch_size": 3, "classes": 3}, DataError, "found none of class 2 of 3"),
        (
            {"data": [0, 1, 3], "batch_size": 3, "classes": 3},
            DataError,
            "label 3 at position 2 is out of range: .* 0 to 2",
        ),
        ({"data": [0, -1, 1], "batch_size": 2}, DataError, "label -1 at position 1 is out of range"),
        ({"data": [], "batch_size": 2}, DataError, "whole numbers|empty"),
        ({"data": torch.empty(0, dtype=torch.int64), "batch_size": 2}, DataError, "labels are empty"),
        ({"data": [0.0, 1.0], "batch_size": 2}, DataError, "float32"),
        ({"data": torch.eye(3).long(), "batch_size": 3}, DataError, "argmax"),
        ({"data": ["cat", "dog"], "batch_size": 2}, DataError, "labels are needed"),
        ({"data": None, "batch_size": 2}, DataError, "found NoneType"),
        (
            {"data": TensorDataset(torch.zeros(3, 2)), "batch_size": 2},
            DataError,
            r"\.labels or \.targets .found TensorD",
        ),
        ({"data": Targets([0, 1, 1], ["a", "b", "c"]), "batch_size": 3}, DataError, "found none of class 2 of 3"),
    ],
)
def test_what_cannot_be_aligned_is_refused(arguments, error, says):
    """If this fails, a bad setting gives misaligned batches or an error that does not say what to do."""
    with pytest.raises(error, match=says):
        StreamAligned(**arguments)


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "4"}, "batch_size"),
        ({"batch_size": 24, "drop_last": True}, "no batch is left"),
        ({"batch_size": 4, "stream_aligned": True, "shuffle": False}, "shuffled within each class"),
        ({"batch_size": 6, "stream_aligned": True}, "Use 4 or 8"),
    ],
)
def test_wrong_batch_settings_are_refused(settings_, says):
    """If this fails, a loop over the batches silently does nothing, or not what was asked for."""
    with pytest.raises(ConfigError, match=says):
        make().batches(**settings_)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"batch_size": 5}, "batch_size"),
        ({"kind": "StreamAligned"}, "kind"),
        ({"labels_crc32": 1}, "labels_crc32"),
        ({"samples": 24}, "samples"),
        ({"shuffle": 0}, "shuffle"),
        ({"batches": 5}, "batches"),
        ({"position": 7}, "position"),
        ({"position": -1}, "position"),
        ({"epoch": None}, "epoch"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_state_of_other_batches_is_refused_and_changes_nothing(change, key):
    """If this fails, resuming with other data or settings goes on with wrong batches."""
    batches = make().batches(4)
    list(islice(iter(batches), 2))
    before = batches.state_dict()
    with pytest.raises(ConfigError, match=key) as caught:
        batches.load_state_dict({**before, **change})
    assert caught.value.key == key
    assert batches.state_dict() == before
    with pytest.raises(ConfigError, match="lacks epoch"):
        batches.load_state_dict({k: v for k, v in before.items() if k != "epoch"})


@pytest.mark.parametrize("aligned", [True, False])
def test_a_state_of_other_labels_is_refused(aligned):
    """If this fails, a run resumed with another fraction or split of the same size goes on without a word."""
    one, other = (Images(torch.rand(4, 2), labels) for labels in ([0, 1, 0, 1], [0, 1, 1, 0]))
    state = one.batches(2, stream_aligned=aligned).state_dict()
    with pytest.raises(ConfigError, match="labels_crc32"):
        other.batches(2, stream_aligned=aligned).load_state_dict(state)


def test_a_class_that_is_named_but_empty_is_not_left_out():
    """If this fails, the streams of a set that lost a class are aligned to fewer classes than the network has."""
    images = Images(torch.rand(4, 2), [0, 1, 0, 1], ["a", "b", "c"])
    with pytest.raises(DataError, match="found none of class 2 of 3"):
        images.batches(3, stream_aligned=True)


@quick
@given(counts=class_counts, seed=st.integers(0, 99), data=st.data())
def test_every_beginning_of_a_stratified_order_is_balanced(counts, seed, data):
    """If this fails, a fraction of the training set has too much of one class."""
    labels = torch.tensor([c for c, count in enumerate(counts) for _ in range(count)])
    order = stratified(labels, seed=seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    k = data.draw(st.integers(0, len(labels)))
    got = torch.bincount(labels[order[:k]], minlength=len(counts)).tolist()
    for count, have in zip(counts, got, strict=True):
        # rounding to the nearest within a class, and at most half a sample a class in where the cut falls
        assert abs(have - k * count / len(labels)) <= 1 + count * len(counts) / (2 * len(labels))
    if len(set(counts)) == 1:
        assert max(got) - min(got) <= 1


@pytest.mark.gpu
def test_batches_on_the_gpu_equal_those_on_the_cpu():
    """If this fails, moving a data set to the GPU changes the training."""
    cpu = make(64).batches(16, labels=True, stream_aligned=True)
    gpu = make(64).to("cuda").batches(16, labels=True, stream_aligned=True)
    for one, other in zip(cpu, gpu, strict=True):
        assert all(b.is_cuda for b in other)
        assert all(torch.equal(a, b.cpu()) for a, b in zip(one, other, strict=True))
