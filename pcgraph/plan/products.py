"""Matrix products in modules on edges are counted as torch counts them: each is run once on tensors without data.

So is what the edges into a node with a combine make together.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pcgraph.network.joint import JointPrediction
from pcgraph.transforms.base import vjp

__all__ = ["Products", "joint_products", "products_of", "without_data"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Products:
    """One edge needs so many floating-point operations in matrix products: forward, back, and for its weights."""

    forward: int
    pull: int
    weights: int


def without_data(module: nn.Module) -> nn.Module:
    """Copy a module without the data of its parameters and buffers; what its run leaves behind is the copy's alone."""
    bare: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        empty = tensor.detach().to("meta")
        bare[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, bare)


def products_of(module: nn.Module, shape: Shape, out_shape: Shape, batch: int) -> Products | None:
    """Count what a module does for a batch, as a backend would run it; return None where it needs data to run.

    Parameters
    ----------
    module : nn.Module
    shape, out_shape : tuple of int
        The shapes of the source and the target, without the batch.
    batch : int
    """
    dtype = next((p.dtype for p in module.parameters()), torch.get_default_dtype())
    x, g = (torch.empty(batch, *s, dtype=dtype, device="meta") for s in (shape, out_shape))
    try:
        return _run(without_data(module), x, g)
    except Exception:  # whatever a user's module may raise
        return None


def joint_products(prediction: JointPrediction, shape: Shape, batch: int) -> Sequence[Products] | None:
    """Count what the edges into one node do together, an entry each; None where it needs data to run.

    The evaluation, and the gradients of all parameters, stand with the first edge, as backends run them.

    Parameters
    ----------
    prediction : JointPrediction
        With the shapes of its sources.
    shape : tuple of int
        That of the node.
    batch : int
    """
    dtype = next((p.dtype for p in prediction.parameters()), torch.get_default_dtype())
    try:
        module: Any = without_data(prediction)
        states = [torch.empty(batch, *s, dtype=dtype, device="meta", requires_grad=True) for s in prediction.shapes]
        with torch.enable_grad():
            y, forward = _counted(lambda: module.of(states))
        signal = torch.empty(batch, *shape, dtype=dtype, device="meta").reshape(y.shape)
        pulls = [_backward(y, [h], signal) for h in states]
        weights = _backward(y, [p for p in module.parameters() if p.requires_grad], signal)
    except Exception:  # whatever a user's module may raise
        return None
    return [Products(*((0, pull, 0) if k else (forward, pull, weights))) for k, pull in enumerate(pulls)]


def _backward(y: Tensor, wanted: list[Tensor], signal: Tensor) -> int:
    if not wanted or not y.requires_grad:
        return 0
    return _counted(lambda: torch.autograd.grad(y, wanted, signal, retain_graph=True, allow_unused=True))[1]


def _run(module: Any, x: Tensor, g: Tensor) -> Products:
    pullback, weight_grad = getattr(module, "pullback", None), getattr(module, "weight_grad", None)
    trained = [p for p in module.parameters() if p.requires_grad]
    with torch.enable_grad():
        leaf = x.requires_grad_()
        y, forward = _counted(lambda: module(leaf))

    signal = g.reshape(y.shape)
    with torch.no_grad():
        pull = _backward(y, [leaf], signal) if pullback is None else _counted(lambda: pullback(g, x))[1]
        if not trained:
            weights = 0
        elif weight_grad is not None:
            weights = _counted(lambda: weight_grad(g, x))[1]
        else:
            weights = _backward(y, trained, signal) if pullback is None else _counted(lambda: vjp(module, g, x))[1]
    return Products(forward, pull, weights)


def _counted(work: Callable[[], Any]) -> tuple[Any, int]:
    from torch.utils.flop_counter import flop_registry

    with _Counter(flop_registry) as counter:
        result = work()
    return result, counter.total


class _Counter(TorchDispatchMode):
    """A counter adds up what torch's formulas say of what runs. (torch's own FlopCounterMode forbids autograd.grad.)"""

    def __init__(self, formulas: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.formulas, self.total = formulas, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:

        result = function(*args, **(kwargs or {}))
        kind = function._overloadpacket
        if kind is torch.ops.aten.convolution_backward:
            self.total += _convolution(*args)
        elif kind in self.formulas:
            self.total += int(self.formulas[kind](*args, **(kwargs or {}), out_val=result))
        return result


def _convolution(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, wanted: list[bool],
) -> int:  # fmt: skip
    """Count as many for the input, and for the weight, as forward. (torch's formula forgets that groups are apart.)"""
    places = (x if transposed else grad).shape[2:]
    return 2 * x.shape[0] * math.prod(places) * weight.numel() * sum(wanted[:2])
