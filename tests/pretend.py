"""A pretend GPU, for where there is none: tensors that say they are on ``cuda:0``, and compute on the CPU.

What is refused is what a real one refuses: operations on tensors of two devices, generators of another device than
what they draw, and numpy. So a test that runs on it passes its device on, and so does what it tests. The network's
device is then a GPU in all that reads it: thresholds and kernels are those of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda:0")

#: Operations that take tensors of two devices: copies, and what is looked up by indices on the host.
ACROSS = ("copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_")


class OnDevice(torch.Tensor):
    """A tensor of the pretend GPU around one on the CPU; to torch's own code it is on meta, where autograd does."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner):
        where = (inner.stride(), inner.storage_offset()) if inner.layout == torch.strided else (None, None)
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=where[0], storage_offset=where[1], dtype=inner.dtype, device="meta"
        )

    def __init__(self, inner):
        self.inner = inner

    device = property(lambda self: DEVICE)
    layout = property(lambda self: self.inner.layout)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, other):
        torch.Tensor.data.__set__(self, other)
        self.inner = other.inner

    def data_ptr(self):
        return self.inner.data_ptr()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def numpy(self, *arguments, **keywords):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def tolist(self):
        return self.inner.tolist()

    def __deepcopy__(self, memo):
        copied = OnDevice(self.inner.detach().clone())
        return copied.requires_grad_(self.requires_grad) if not self.requires_grad else _parameter(copied, self)

    def __repr__(self):
        return f"{self.inner!r} on {DEVICE}"

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        return compute(function, arguments, keywords or {})


def _parameter(copied, original):
    is_parameter = isinstance(original, torch.nn.Parameter)
    return torch.nn.Parameter(copied) if is_parameter else copied.requires_grad_()


class Pretending(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        return compute(function, arguments, keywords or {})


def compute(function, arguments, keywords):
    """Compute on the CPU, and put the result where it would be."""
    name = function._schema.name.split("::")[1]
    leaves = tree_leaves((arguments, keywords))
    given = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    here = [t for t in given if isinstance(t, OnDevice)]
    away = [t for t in given if not isinstance(t, OnDevice)]
    if here and name not in ACROSS and any(t.dim() for t in away):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({function})")
    first_away = bool(given) and not isinstance(given[0], OnDevice)
    if here and first_away and name not in ("copy_", "_to_copy") and (name.startswith("index") or name.endswith("_")):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cpu and cuda:0 ({function})")
    if any(t.is_meta for t in away):
        raise RuntimeError(f"{function} got a tensor without values: index by a tensor, not by a list, on this device")
    asked = keywords.get("device")
    # What is brought to where another tensor is goes to meta, for torch's own code takes that for its device.
    on_device = torch.device(asked).type in ("cuda", "meta") if asked is not None else bool(here)
    if name == "copy_":
        on_device = not first_away
    for generator in (leaf for leaf in leaves if isinstance(leaf, torch.Generator)):
        if (generator.device.type == "cuda") != on_device:
            wanted = "cuda" if on_device else "cpu"
            raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{generator.device.type}'")
    if asked is not None and on_device:
        keywords = {**keywords, "device": torch.device("cpu")}
    plain, known = tree_map(_inner, (arguments, keywords)), {id(_inner(t)): t for t in given}
    with _disable_current_modes():
        found = function(*plain[0], **plain[1])

    def put(value):
        if not isinstance(value, torch.Tensor):
            return value
        return known.get(id(value)) if id(value) in known else OnDevice(value) if on_device else value

    return tree_map(put, found)


def _inner(value):
    return value.inner if isinstance(value, OnDevice) else value


#: What torch's code for the CPU cannot say of a GPU.
SAYS = {
    "_lazy_init": lambda: None,
    "is_current_stream_capturing": lambda: False,
    "get_rng_state": lambda device: torch.random.get_rng_state(),
    "set_rng_state": lambda state, device: None,
    "get_device_properties": lambda device: SimpleNamespace(total_memory=2**36),
}


def csr(make, pointer, columns, values, size, device=None, **keywords):
    """Make a CSR matrix, which torch's own code makes without asking a mode."""
    here = torch.device(device or "cpu").type == "cuda"
    with _disable_current_modes():
        made = make(_inner(pointer), _inner(columns), _inner(values), size, **keywords)
    return OnDevice(made) if here else made


@contextmanager
def device() -> Iterator[torch.device]:
    """There is a GPU as long as this lasts."""
    torch._C._ensureCUDADeviceGuardSet()
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) makes it on the CPU, and brings it over
    try:
        with pytest.MonkeyPatch.context() as patch, Pretending():
            for name, says in SAYS.items():
                patch.setattr(torch.cuda, name, says)
            patch.setattr(torch, "sparse_csr_tensor", partial(csr, torch.sparse_csr_tensor))
            yield DEVICE
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
