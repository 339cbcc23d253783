"""What save() writes, load() reads, or save() refuses it: a property over whatever may stand in ``extra``."""

from __future__ import annotations

import math
import warnings
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pcgraph
from pcgraph.errors import ConfigError
from pcgraph.serialization import encode

NET = pcgraph.PCNetwork(pcgraph.graphs.chain([2, 2]))


def same(one: Any, two: Any) -> bool:
    """Equal in value and in kind, NaN to NaN; NumPy's scalars come back as Python's."""
    if isinstance(one, torch.Tensor):
        alike = isinstance(two, torch.Tensor) and one.shape == two.shape and one.dtype == two.dtype
        return alike and encode(one) == encode(two)
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.shape == two.shape and np.array_equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and same(list(one.items()), list(two.items()))
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, float):
        return isinstance(two, float) and repr(one) == repr(two)
    return type(one) is type(two) and one == two


AWKWARD = ["", "__metadata__", "$tuple", "$tensor", "$map", "a.b", "a", "\ud800", "\x00", "ä/ö", "..", "state", "facts"]
texts = st.sampled_from(AWKWARD) | st.text(st.characters(), max_size=4)
keys = texts | st.integers() | st.floats() | st.booleans() | st.none() | st.tuples(st.integers(), texts)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])
tensors = st.builds(lambda shape, dtype: torch.ones(shape).to(dtype), st.lists(st.integers(0, 2), max_size=3), dtypes)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**64, 2**70) | st.floats() | texts | tensors,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(extra=values)
def test_whatever_is_saved_is_read_again(tmp_path_factory: Any, extra: Any) -> None:
    """A file that cannot be read is a run lost, and is found out when it is too late."""
    folder = tmp_path_factory.mktemp("c")
    pcgraph.save(folder, NET, extra=extra)
    assert same(extra, pcgraph.load(folder).extra)


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def deep(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"a": value}
    return value


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    STRANGE: dict[str, Any] = {
        "reserved name": {"__metadata__": torch.ones(2)},
        "reserved name, below": {"a": {"__metadata__": torch.ones(2)}},
        "both": {"__metadata__": torch.ones(1), "__metadata___": torch.zeros(1)},
        "surrogate": {"\ud800": torch.ones(2), "a": "\udfff"},
        "names that become one": {"\ud800": torch.ones(1), "\\ud800": torch.zeros(1)},
        "dots that become one": {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)},
        "huge integer": 10**5000,
        "many digits": 10**4000,
        "circle": circle(),
        "deep": deep(90),
        "deeper": deep(2000),
        "set": {1, 2},
        "bytes": b"x",
        "complex": 1j,
        "object": object(),
        "class": dict,
        "generator": iter([1]),
        "numpy scalars": [np.float32(1.5), np.int8(3), np.bool_(True), np.str_("x"), np.float64("nan")],
        "longdouble": np.longdouble(1),
        "date": np.datetime64("2020-01-01"),
        "arrays": [np.arange(6).reshape(2, 3)[:, ::-1], np.arange(3, dtype=">i4"), np.array(2.5), np.zeros((0, 2))],
        "read-only array": np.broadcast_to(np.arange(3), (2, 3)),
        "texts": np.array(["a"]),
        "objects": np.array([None]),
        "records": np.zeros(2, dtype=[("a", "i4")]),
        "unsigned": np.array([1, 2], dtype=np.uint16),
        "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
        "sparse": torch.eye(2).to_sparse(),
        "csr": torch.eye(2).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
        "meta": torch.ones(2, device="meta"),
        "nested": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "imaginary": torch.tensor([1 + 2j]).conj().imag,
        "requires grad": torch.ones(2, requires_grad=True),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "expanded": torch.ones(1).expand(1000),
        "counter": Counter("aab"),
        "ordered": OrderedDict(a=1),
        "module": torch.nn.Linear(2, 2),
        "module's state": torch.nn.Linear(2, 2).state_dict(),
        **{str(dtype): torch.zeros(2, 2).to(dtype) for dtype in (
            torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2,
            torch.complex64, torch.complex128)},
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", STRANGE)
def test_what_is_strange_is_read_again_or_refused(tmp_path: Path, what: str) -> None:
    """By an error that names the part, with nothing written."""
    extra = STRANGE[what]
    try:
        pcgraph.save(tmp_path / "c", NET, extra=extra)
    except ConfigError as error:
        assert "the extra cannot be saved" in str(error)  # noqa: PT017
        assert error.key == "extra"  # noqa: PT017
        assert not (tmp_path / "c").exists()
    else:
        found = pcgraph.load(tmp_path / "c").extra
        if what == "numpy scalars":
            assert found[:4] == [1.5, 3, True, "x"]
        elif isinstance(extra, torch.Tensor):
            assert torch.equal(found.double(), extra.detach().double())
        else:
            assert same(dict(extra) if isinstance(extra, dict) else extra, found)


@pytest.mark.parametrize("what", ["surrogate", "both", "deep", "arrays", "imaginary", "counter"])
def test_what_can_be_kept_is_kept(tmp_path: Path, what: str) -> None:
    """Refusing everything would hold the property, and serve nobody."""
    pcgraph.save(tmp_path, NET, extra=STRANGE[what])


@pytest.mark.parametrize("key", ["step", "epoch", "keep"])
@pytest.mark.parametrize("value", [math.nan, -1, 1.0, "1", None, True, 10**40, [1], math.inf, torch.ones(2)])
def test_counts_are_counts(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be") as caught:
        pcgraph.save(tmp_path / "c", NET, **{key: value})
    assert caught.value.key == key
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_counts_of_numpy_and_torch_are_taken(tmp_path: Path, value: Any) -> None:
    path = pcgraph.save(tmp_path, NET, step=value, epoch=value, keep=value)
    assert (pcgraph.load(path).step, pcgraph.load(path).epoch) == (3, 3)
    assert type(pcgraph.load(path).step) is int


def test_an_initializer_that_remembers_another_network_is_not_saved(tmp_path: Path) -> None:
    """It was written, and no run could be gone on with from there."""
    small, large = (pcgraph.PCNetwork(pcgraph.graphs.chain([4, size, 3])) for size in (5, 6))
    clamps = {"x": torch.randn(6, 4), "y": torch.eye(3)[torch.arange(6) % 3]}
    for init in (pcgraph.Null(), pcgraph.Average()):
        small.infer(clamps, init=init, steps=1, optimizer=pcgraph.SGD(lr=0.1)).backward()
        with pytest.raises(ConfigError, match="the initializer is not of this network: .* remembers"):
            pcgraph.save(tmp_path, large, initializer=init)
        assert not pcgraph.checkpoints.exists(tmp_path)
        pcgraph.save(tmp_path / type(init).__name__, small, initializer=init)
