"""Torch's layers for images are edges here: convolution, pooling, upsampling of (channels, height, width).

A convolution has a bias by channel of its own, as in torch. A node's bias is by neuron, so a node that convolutions
feed is as a rule declared with ``bias=False``.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pcgraph.arguments import require_choice, require_count, require_flag, require_number, require_room, shown
from pcgraph.errors import GraphError, said_by
from pcgraph.transforms.base import Shape, Transform, holds, uniform_, vjp

__all__ = ["AvgPool2d", "Conv2d", "ConvTranspose2d", "MaxPool2d", "Upsample"]

Size = int | tuple[int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES: tuple[PaddingMode, ...] = ("zeros", "reflect", "replicate", "circular")
ENLARGING = ("nearest", "bilinear", "bicubic", "nearest-exact")
DECLARED = 0  # the seed of a transform that no network has drawn yet


class _Image(Transform):
    """The edge leads from one (channels, height, width) to another; torch computes the shape, without data."""

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        try:
            if len(shape) != 3:
                raise ValueError("it needs (channels, height, width)")
            held = (*self.named_parameters(), *self.named_buffers())
            bare = {name: tensor.detach().to("meta") for name, tensor in held}
            like = next(iter(bare.values()), torch.empty((), device="meta"))
            y = torch.func.functional_call(self, bare, (like.new_empty((1, *shape)),))
        except (RuntimeError, ValueError, TypeError) as error:
            raise GraphError(f"{self} takes no state of shape {shape}: {said_by(error)}", found=shape) from error
        return tuple(y.shape[1:])


class _Convolution(_Image):
    """The two convolutions share this: gradients by torch's own backward kernel, and how they are drawn."""

    weight: Tensor
    bias: Tensor | None
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    padding_mode: PaddingMode

    def _own_fan_in(self) -> int:
        return self.weight[0].numel()

    def fan_in(self, input_shape: Shape) -> int:
        return self._own_fan_in()

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        """Draw weight and bias as torch does: U(-1/sqrt(n), 1/sqrt(n)), n the neurons that come in."""
        generator = torch.Generator().manual_seed(DECLARED) if generator is None else generator
        bound = (fan_in or self._own_fan_in()) ** -0.5
        uniform_(self.weight, bound, generator)
        if self.bias is not None:
            uniform_(self.bias, bound, generator)

    def _plain(self) -> bool:
        own = holds(self, "weight") and holds(self, "bias")
        return own and self.padding_mode == "zeros" and not isinstance(self.padding, str)

    def _backward(self, g: Tensor, x: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        bias = None if self.bias is None else [self.bias.shape[0]]
        return cast(
            tuple[Tensor, Tensor, Tensor],
            torch.ops.aten.convolution_backward(
                g.contiguous(), x, self.weight.detach(), bias, self.stride, self.padding, self.dilation,
                self.transposed, self.output_padding, self.groups, wanted,
            ),
        )  # fmt: skip

    @torch.no_grad()
    def pullback(self, g: Tensor, x: Tensor) -> Tensor:
        """Return the vector-Jacobian product with respect to the input, shape as `x`."""
        return self._backward(g, x, [True, False, False])[0] if self._plain() else vjp(self, g, x)[0]

    @torch.no_grad()
    def weight_grad(self, g: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Return the gradients of ``weight`` and, where there is one, ``bias``."""
        if not self._plain():
            return vjp(self, g, x)[1]
        _, weight, bias = self._backward(g, x, [False, True, self.bias is not None])
        return {"weight": weight} if self.bias is None else {"weight": weight, "bias": bias}

    def config(self) -> dict[str, Any]:
        names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"]
        names += ["padding_mode", *(["output_padding"] if self.transposed else [])]
        return {**_listed({name: getattr(self, name) for name in names}), "bias": self.bias is not None}


def _size(value: Any, key: str, least: int = 1) -> Any:
    """Read a size, one number or one for each dimension; a list, as it comes from a file, becomes a tuple."""
    if not isinstance(value, tuple | list):
        return require_count(value, key, least=least, refuse=GraphError)
    if len(value) != 2:
        raise GraphError(f"{key} must be an integer or a pair of them (found {shown(value)})", found=value)
    return tuple(require_count(each, key, least=least, refuse=GraphError) for each in value)


def _factor(value: Any) -> Any:
    """Read a factor of enlargement, one number or one for each dimension."""
    if not isinstance(value, tuple | list):
        return require_number(value, "scale_factor", above=0, refuse=GraphError)
    if len(value) != 2:
        raise GraphError(f"scale_factor must be a number or a pair of them (found {shown(value)})", found=value)
    return tuple(require_number(each, "scale_factor", above=0, refuse=GraphError) for each in value)


def _flag(value: Any, key: str) -> bool:
    return require_flag(value, key, refuse=GraphError)


def _channels(into: Any, out: Any, groups: Any, kernel: Any) -> tuple[int, int, int]:
    """Read what a convolution's weights are between, and see that there is room for them."""
    into, out = (
        require_count(n, k, least=1, refuse=GraphError) for n, k in ((into, "in_channels"), (out, "out_channels"))
    )
    groups = require_count(groups, "groups", least=1, refuse=GraphError)
    if into % groups or out % groups:
        raise GraphError(
            f"groups must divide in_channels and out_channels (found {groups}, {into} and {out})", found=groups
        )
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    size = torch.get_default_dtype().itemsize * into * out // groups * math.prod(sides)
    require_room(size, "the kernel of a convolution", "kernel_size", refuse=GraphError)
    return into, out, groups


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


class Conv2d(nn.Conv2d, _Convolution):
    """The edge is a two-dimensional convolution, as :class:`torch.nn.Conv2d` and with its arguments.

    A network draws its weight and bias from the network's seed. To keep weights of your own, pass an ``nn.Conv2d``, or
    write into ``net.transform(u, v).weight`` afterwards.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or pair of int
        `padding` may also be ``"same"`` or ``"valid"``.
    groups : int
    bias : bool
        One value a channel, beside the bias of the target node, which is by neuron unless it says ``bias="channel"``,
        or False.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}

    Examples
    --------
    >>> Conv2d(3, 64, 3, stride=2, padding=1).output_shape((3, 32, 32))
    (64, 16, 16)
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size | str = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: PaddingMode = "zeros",
    ) -> None:  # fmt: skip
        kernel = _size(kernel_size, "kernel_size")
        into, out, groups = _channels(in_channels, out_channels, groups, kernel)
        if isinstance(padding, str):
            around: Any = require_choice(padding, "padding", ("same", "valid"), refuse=GraphError)
        else:
            around = _size(padding, "padding", 0)
        if around == "same" and _size(stride, "stride") not in (1, (1, 1)):
            raise GraphError(f"padding='same' needs stride 1 (found {shown(stride)})", found=stride)
        super().__init__(
            into, out, kernel, _size(stride, "stride"), around, _size(dilation, "dilation"), groups,
            _flag(bias, "bias"),
            require_choice(padding_mode, "padding_mode", PADDING_MODES, refuse=GraphError),
        )  # fmt: skip

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        _Convolution.reset_parameters(self, generator, fan_in)


class ConvTranspose2d(nn.ConvTranspose2d, _Convolution):
    """The edge is a transposed convolution, as :class:`torch.nn.ConvTranspose2d` and with its arguments.

    Its weights are drawn as those of torch: n is ``out_channels / groups * kernel height * kernel width``.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, output_padding, dilation : int or pair of int
    groups : int
    bias : bool

    Examples
    --------
    >>> ConvTranspose2d(8, 3, 4, stride=2, padding=1).output_shape((8, 16, 16))
    (3, 32, 32)
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0,
        output_padding: Size = 0, groups: int = 1, bias: bool = True, dilation: Size = 1,
        padding_mode: PaddingMode = "zeros",
    ) -> None:  # fmt: skip
        kernel = _size(kernel_size, "kernel_size")
        into, out, groups = _channels(in_channels, out_channels, groups, kernel)
        super().__init__(
            into, out, kernel, _size(stride, "stride"), _size(padding, "padding", 0),
            _size(output_padding, "output_padding", 0), groups, _flag(bias, "bias"), _size(dilation, "dilation"),
            require_choice(padding_mode, "padding_mode", ("zeros",), refuse=GraphError),
        )  # fmt: skip

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        _Convolution.reset_parameters(self, generator, fan_in)


class MaxPool2d(nn.MaxPool2d, _Image):
    """The edge takes the maximum over windows, as :class:`torch.nn.MaxPool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        The kernel size if None.
    padding, dilation : int or pair of int
    ceil_mode : bool

    Examples
    --------
    >>> MaxPool2d(2).output_shape((64, 16, 16))
    (64, 8, 8)
    """

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            _size(kernel_size, "kernel_size"), None if stride is None else _size(stride, "stride"),
            _size(padding, "padding", 0), _size(dilation, "dilation"), ceil_mode=_flag(ceil_mode, "ceil_mode"),
        )  # fmt: skip

    def config(self) -> dict[str, Any]:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return _listed({name: getattr(self, name) for name in names})


class AvgPool2d(nn.AvgPool2d, _Image):
    """The edge takes the mean over windows, as :class:`torch.nn.AvgPool2d`.

    Parameters
    ----------
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        The kernel size if None.
    padding : int or pair of int
    ceil_mode : bool
    count_include_pad : bool

    Examples
    --------
    >>> AvgPool2d(4).output_shape((8, 16, 16))
    (8, 4, 4)
    """

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            _size(kernel_size, "kernel_size"), None if stride is None else _size(stride, "stride"),
            _size(padding, "padding", 0), _flag(ceil_mode, "ceil_mode"),
            _flag(count_include_pad, "count_include_pad"),
        )  # fmt: skip

    def config(self) -> dict[str, Any]:
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
        return _listed({name: getattr(self, name) for name in names})


class Upsample(nn.Upsample, _Image):
    """The edge makes a larger image by interpolation, as :class:`torch.nn.Upsample`.

    Parameters
    ----------
    size : int or pair of int, optional
        Height and width of the result; or
    scale_factor : float or pair of float, optional
        how many times larger it is.
    mode : {"nearest", "bilinear", "bicubic", "nearest-exact"}
    align_corners : bool, optional
        For the modes that interpolate.

    Examples
    --------
    >>> Upsample(scale_factor=2).output_shape((8, 7, 7))
    (8, 14, 14)
    """

    def __init__(
        self, size: Size | None = None, scale_factor: float | tuple[float, float] | None = None, mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:  # fmt: skip
        if (size is None) == (scale_factor is None):
            raise GraphError("Upsample needs a size or a scale_factor, and not both", found=(size, scale_factor))
        align_corners = None if align_corners is None else _flag(align_corners, "align_corners")
        super().__init__(
            None if size is None else _size(size, "size"), None if scale_factor is None else _factor(scale_factor),
            require_choice(mode, "mode", ENLARGING, refuse=GraphError), align_corners,
        )  # fmt: skip

    def config(self) -> dict[str, Any]:
        names = ("size", "scale_factor", "mode", "align_corners")
        return _listed({name: getattr(self, name) for name in names})
