"""Clamps are what is known of a batch, whole or in part; they are checked here before anything runs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from pcgraph.arguments import shown, tensor_of
from pcgraph.errors import ClampError, ConfigError
from pcgraph.network import Network

__all__ = ["WHOLE", "Clamps", "Masked", "is_plain", "read_labels", "read_tensor"]

#: So many clamps are added up one by one.
FEW = 4
#: The types that classes have.
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


@dataclass(frozen=True, eq=False)
class Masked:
    """Clamps a node in part: the neurons where `mask` is true are fixed to `values`, the others are free.

    Parameters
    ----------
    values : Tensor or array, shape (batch, *shape)
        What lies where the mask is false is ignored.
    mask : Tensor or array of bool, shape (batch, *shape) or (*shape)
    """

    values: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class Clamps:
    """Holds the validated clamps of one batch, by canonical node number.

    Attributes
    ----------
    batch : int
    values : dict
        Fully clamped node -> (batch, *shape).
    masked : dict
        Partly clamped node -> (values, mask), both (batch, *shape), values zero where the mask is false.
    """

    batch: int
    values: dict[int, Tensor]
    masked: dict[int, tuple[Tensor, Tensor]]

    @property
    def clamped(self) -> frozenset[int]:
        """Give the canonical numbers of the fully clamped nodes."""
        return frozenset(self.values)

    @classmethod
    def check(cls, net: Network, clamps: Mapping[Hashable, Tensor | Masked], *, finite: bool = True) -> Clamps:
        """Validate `clamps` against `net`.

        Parameters
        ----------
        net : Network
        clamps : mapping
            Node -> Tensor of shape (batch, *shape), or :class:`Masked`; an array of NumPy is converted to the
            network's dtype and device.
        finite : bool
            Whether to look for NaN and infinity, which on a GPU waits for the device.

        Raises
        ------
        ClampError
            Nothing clamped, an unknown node, a wrong shape, batch, dtype or device, or a value that is not finite.
        """
        if not isinstance(clamps, Mapping):
            raise ClampError(f"clamps are a mapping node -> tensor, as in {{'x': x}} (found {type(clamps).__name__})")
        if not clamps:
            raise ClampError("nothing is clamped: give at least one node a value, as in net.infer({'x': x}, ...)")
        values: dict[int, Tensor] = {}
        masked: dict[int, tuple[Tensor, Tensor]] = {}
        batch: tuple[Hashable, int] | None = None
        dtype, device = net.dtype, net.device
        for node, given in clamps.items():
            i = net.structure.require_node(node, ClampError)
            tensor = _fitting(net, node, given.values if isinstance(given, Masked) else given, dtype, device)
            if i in net.structure.tokens and finite:
                _check_tokens(node, tensor, net.structure.tokens[i])
            if batch is None:
                batch = (node, tensor.shape[0])
            elif tensor.shape[0] != batch[1]:
                raise ClampError(
                    f"all clamps of a run have one batch size (found {batch[1]} for {batch[0]!r} and "
                    f"{tensor.shape[0]} for {node!r})",
                    node=node,
                )
            if isinstance(given, Masked):
                mask = _read_mask(net, node, given.mask, tuple(tensor.shape))
                tensor = torch.where(mask, tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))
                masked[i] = (tensor, mask)
            else:
                values[i] = tensor.detach()
        assert batch is not None
        if batch[1] == 0:
            raise ClampError("the batch is empty: clamps need at least one sample", node=batch[0])
        if finite:
            _check_finite(net, {**values, **{i: known for i, (known, _) in masked.items()}})
        return cls(batch[1], values, masked)


def is_plain(value: Any, dtype: torch.dtype, device: torch.device) -> TypeGuard[Tensor]:
    """Tell whether a value is a dense tensor of this dtype on this device, and needs no further look."""
    alike = type(value) is Tensor and value.dtype is dtype and value.device == device
    return alike and value.layout is torch.strided and not value.is_nested and not value.is_meta


def _check_tokens(node: Hashable, tensor: Tensor, count: int) -> None:
    """Refuse what is no row of the table that an embedding reads."""
    wrong = (tensor != tensor.round()) | (tensor < 0) | (tensor >= count)
    if bool(wrong.any()):
        found = f"{tensor[wrong][0].item():g}"
        raise ClampError(
            f"the clamp of {node!r} holds tokens, whole numbers from 0 to {count - 1} (found {found})", node=node
        )


def _check_finite(net: Network, values: Mapping[int, Tensor]) -> None:
    """Look at one sum over all clamps, which tells as a rule; only where it does not is each looked at."""
    tensors = list(values.values())
    few = len(tensors) <= FEW
    total = sum(t.sum() for t in tensors) if few else torch.cat([t.reshape(-1) for t in tensors]).sum()
    if math.isfinite(float(total)):
        return
    for i, tensor in values.items():
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            node = net.structure.nodes[i]
            raise ClampError(
                f"the clamp of {node!r} must be finite (found {wrong} values that are NaN or infinite)", node=node
            )


def read_tensor(node: Hashable, value: Any, what: str = "clamp") -> Tensor:
    """Take a dense tensor as it is, and an array of numbers as a tensor.

    Parameters
    ----------
    node : hashable
    value : object
    what : str
        What it is of the node, for messages.

    Raises
    ------
    ClampError
        It is neither, or its values do not lie in memory one after the other.
    """
    if isinstance(value, np.ndarray):
        try:
            return tensor_of(value)
        except TypeError as error:
            raise ClampError(
                f"the {what} of {node!r} must be of numbers (found an array of {value.dtype}): {error}", node=node
            ) from None
    if not isinstance(value, Tensor):
        way = ": torch.tensor(...) makes one" if isinstance(value, list | tuple) else ""
        raise ClampError(
            f"the {what} of {node!r} must be a torch.Tensor or a NumPy array (found {type(value).__name__}){way}",
            node=node,
        )
    if value.is_nested or value.is_quantized or value.layout != torch.strided:
        kind = "nested" if value.is_nested else "quantized" if value.is_quantized else str(value.layout)
        way = {"nested": "pad it", "quantized": ".dequantize() makes one"}.get(kind, ".to_dense() makes one")
        raise ClampError(f"the {what} of {node!r} must be a dense tensor (found a {kind} one): {way}", node=node)
    return value


def read_labels(net: Network, labels: Any, batch: int) -> Tensor | None:
    """Take the classes of a batch, one whole number a sample, to the network's device; None stays None.

    Raises
    ------
    ConfigError
        They are no such numbers.
    """
    if labels is None:
        return None
    array = isinstance(labels, np.ndarray) and labels.dtype.kind in "iu"
    given = tensor_of(labels) if array else labels
    if not isinstance(given, Tensor) or given.shape != (batch,) or given.dtype not in WHOLE or not _is_dense(given):
        found = f"{tuple(given.shape)}, {given.dtype}" if isinstance(given, Tensor | np.ndarray) else shown(given)
        raise ConfigError(f"labels= needs one integer a sample, shape ({batch},) (found {found})", key="labels")
    return given.to(net.device, torch.int64)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta


def _fitting(net: Network, node: Hashable, value: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Read a clamp and see that it is one of this network: an array is made so, a tensor has to be."""
    shape = net.structure.shape(node)
    if is_plain(value, dtype, device) and value.dim() and value.shape[1:] == shape:  # as a rule: nothing is to be said
        return value
    tensor = read_tensor(node, value)
    if net.structure.number[node] in net.structure.tokens and not tensor.is_floating_point():
        whole, tensor = tensor, tensor.to(dtype)
        if not torch.equal(tensor.to(whole.dtype), whole):
            raise ClampError(f"the clamp of {node!r} holds tokens that {dtype} cannot: use float32", node=node)
    if isinstance(value, np.ndarray) and tensor.is_floating_point():
        tensor = tensor.to(device, dtype)
    if tuple(tensor.shape[1:]) != shape or tensor.dim() == 0:
        wanted = ", ".join(["batch", *map(str, shape)])
        raise ClampError(
            f"the clamp of {node!r} needs shape ({wanted}) (found {tuple(tensor.shape)})" + _hint(tensor, shape),
            node=node,
        )
    if tensor.dtype != dtype:
        what = "one_hot(...)" if not tensor.dtype.is_floating_point and len(shape) == 1 else "it"
        raise ClampError(
            f"the clamp of {node!r} needs dtype {dtype} (found {tensor.dtype}): convert {what} with "
            f".to({dtype}), or the network with net.to(...)",
            node=node,
        )
    if tensor.device != device:
        raise ClampError(
            f"the clamp of {node!r} needs to be on {device}, where the network is (found {tensor.device}): "
            f"use .to({str(device)!r})",
            node=node,
        )
    return tensor


def _hint(tensor: Tensor, shape: tuple[int, ...]) -> str:
    """Say what was probably meant."""
    if tuple(tensor.shape) == shape:
        return "; of one sample: x.unsqueeze(0); of a data set: images.batches(50)"
    if tensor.dim() == 1 and not tensor.dtype.is_floating_point and len(shape) == 1:
        return f"; of classes: torch.nn.functional.one_hot(y, {shape[0]}) in the network's dtype"
    if tensor.dim() > 0 and tensor.shape[0] > 0 and tensor[0].numel() == torch.Size(shape).numel():
        return f"; x.reshape(-1, {', '.join(map(str, shape))}) has it"
    return ""


def _read_mask(net: Network, node: Hashable, given: Any, shape: tuple[int, ...]) -> Tensor:
    mask = read_tensor(node, given, "mask")
    mask = mask.to(net.device) if isinstance(given, np.ndarray) else mask
    if mask.dtype != torch.bool or mask.device != net.device:
        raise ClampError(
            f"the mask of {node!r} needs to be of bool on {net.device} (found {mask.dtype} on {mask.device})", node=node
        )
    if tuple(mask.shape) not in (shape, shape[1:]):
        raise ClampError(
            f"the mask of {node!r} needs shape {shape} or {shape[1:]} (found {tuple(mask.shape)})", node=node
        )
    return mask.expand(shape)
