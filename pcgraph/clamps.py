"""Clamps are what is known of a batch, whole or in part; they are checked here before anything runs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pcgraph.errors import ClampError
from pcgraph.network import Network

__all__ = ["Clamps", "Masked", "require_dense"]

#: So many clamps are added up one by one.
FEW = 4


@dataclass(frozen=True, eq=False)
class Masked:
    """Clamps a node in part: the neurons where `mask` is true are fixed to `values`, the others are free.

    Parameters
    ----------
    values : Tensor, shape (batch, *shape)
        What lies where the mask is false is ignored.
    mask : Tensor of bool, shape (batch, *shape) or (*shape)
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
            Node -> Tensor of shape (batch, *shape), or :class:`Masked`.
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
        for node, given in clamps.items():
            i = net.structure.require_node(node, ClampError)
            tensor = given.values if isinstance(given, Masked) else given
            _check_tensor(net, node, tensor)
            if batch is None:
                batch = (node, tensor.shape[0])
            elif tensor.shape[0] != batch[1]:
                raise ClampError(
                    f"all clamps of a run have one batch size (found {batch[1]} for {batch[0]!r} and "
                    f"{tensor.shape[0]} for {node!r})",
                    node=node,
                )
            if isinstance(given, Masked):
                mask = _check_mask(net, node, given)
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


def require_dense(node: Hashable, tensor: Tensor, what: str = "clamp") -> None:
    """Refuse tensors whose values do not lie in memory one after the other.

    Raises
    ------
    ClampError
    """
    if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else str(tensor.layout)
        way = {"nested": "pad it", "quantized": ".dequantize() makes one"}.get(kind, ".to_dense() makes one")
        raise ClampError(f"the {what} of {node!r} must be a dense tensor (found a {kind} one): {way}", node=node)


def _check_tensor(net: Network, node: Hashable, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        ways = {"ndarray": ": use torch.from_numpy(...)", "list": ": use torch.tensor(...)"}
        raise ClampError(
            f"the clamp of {node!r} must be a torch.Tensor or pcgraph.Masked (found {type(tensor).__name__})"
            f"{ways.get(type(tensor).__name__, '')}",
            node=node,
        )
    require_dense(node, tensor)
    shape = net.structure.shape(node)
    if tuple(tensor.shape[1:]) != shape or tensor.dim() == 0:
        wanted = ", ".join(["batch", *map(str, shape)])
        raise ClampError(
            f"the clamp of {node!r} needs shape ({wanted}) (found {tuple(tensor.shape)})" + _hint(tensor, shape),
            node=node,
        )
    if tensor.dtype != net.dtype:
        what = "one_hot(...)" if not tensor.dtype.is_floating_point and len(shape) == 1 else "it"
        raise ClampError(
            f"the clamp of {node!r} needs dtype {net.dtype} (found {tensor.dtype}): convert {what} with "
            f".to({net.dtype}), or the network with net.to(...)",
            node=node,
        )
    if tensor.device != net.device:
        raise ClampError(
            f"the clamp of {node!r} needs to be on {net.device}, where the network is (found {tensor.device}): "
            f"use .to({str(net.device)!r})",
            node=node,
        )


def _hint(tensor: Tensor, shape: tuple[int, ...]) -> str:
    """Say what was probably meant."""
    if tuple(tensor.shape) == shape:
        return "; of one sample: x.unsqueeze(0); of a data set: images.batches(50)"
    if tensor.dim() == 1 and not tensor.dtype.is_floating_point and len(shape) == 1:
        return f"; of classes: torch.nn.functional.one_hot(y, {shape[0]}) in the network's dtype"
    if tensor.dim() > 0 and tensor.shape[0] > 0 and tensor[0].numel() == torch.Size(shape).numel():
        return f"; x.reshape(-1, {', '.join(map(str, shape))}) has it"
    return ""


def _check_mask(net: Network, node: Hashable, given: Masked) -> Tensor:
    mask, shape = given.mask, tuple(given.values.shape)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.device != net.device:
        found = f"{mask.dtype} on {mask.device}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ClampError(f"the mask of {node!r} needs to be a bool tensor on {net.device} (found {found})", node=node)
    require_dense(node, mask, "mask")
    if tuple(mask.shape) not in (shape, shape[1:]):
        raise ClampError(
            f"the mask of {node!r} needs shape {shape} or {shape[1:]} (found {tuple(mask.shape)})", node=node
        )
    return mask.expand(shape)
