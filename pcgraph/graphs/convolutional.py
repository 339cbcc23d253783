"""Convolutional graphs take images.

A group is what lies between two blocks of the network, *after* activation and pooling, as in the published code of the
field: pooled states are four times smaller, and errors are measured on what the next block sees. A block with pooling
is therefore one edge, a ``sequence`` of convolution, activation and pooling, into a group without activation and bias
of its own; a block without is a ``conv2d`` edge into a group with the activation. Convolutions have their own bias by
channel. All of it is data: names and numbers, no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx

from pcgraph.arguments import require_shape, shown
from pcgraph.errors import GraphError
from pcgraph.graphs.layered import ActivationSpec

__all__ = ["alexnet", "vgg5"]

Shape = tuple[int, int, int]
KERNEL, PADDING, POOL = 3, 1, 2


def _image(input_shape: Shape) -> nx.DiGraph:
    shape = require_shape(input_shape, "input_shape", refuse=GraphError)
    if len(shape) != 3:
        raise GraphError(
            f"images have a shape (channels, height, width) (found {shown(input_shape)})", found=input_shape
        )
    graph = nx.DiGraph()
    graph.add_node("x", shape=shape)
    return graph


def _block(
    graph: nx.DiGraph, name: str, channels: int, activation: ActivationSpec, *, stride: int = 1, pool: bool = False
) -> None:
    """Append a 3 x 3 convolution, with pooling if wanted, to the last group."""
    source = list(graph)[-1]
    before, *size = graph.nodes[source]["shape"]
    size = [(n + 2 * PADDING - KERNEL) // stride + 1 for n in size]
    size = [n // POOL for n in size] if pool else size
    if min(size) < 1:
        raise GraphError(
            f"images of shape {graph.nodes['x']['shape']} are too small for this network: nothing is left of them at "
            f"{name!r}; use input_shape=(channels, 32, 32) or larger",
            found=graph.nodes["x"]["shape"],
        )
    conv: tuple[str, dict[str, Any]] = (
        "conv2d",
        {"in_channels": before, "out_channels": channels, "kernel_size": KERNEL, "stride": stride, "padding": PADDING},
    )
    shape = (channels, *size)
    if pool:
        parts = [conv, ("activate", {"activation": activation}), ("max_pool2d", {"kernel_size": POOL})]
        graph.add_node(name, shape=shape, bias=False)
        graph.add_edge(source, name, transform=("sequence", {"parts": parts}))
    else:
        graph.add_node(name, shape=shape, activation=activation, bias=False)
        graph.add_edge(source, name, transform=conv)


def _head(graph: nx.DiGraph, hidden: Sequence[int], classes: int, activation: ActivationSpec) -> nx.DiGraph:
    for i, size in enumerate(hidden, 1):
        source = list(graph)[-1]
        graph.add_node(f"fc{i}", shape=size, activation=activation)
        graph.add_edge(source, f"fc{i}")
    source = list(graph)[-1]
    graph.add_node("y", shape=classes)
    graph.add_edge(source, "y")
    return graph


def alexnet(
    classes: int = 10, *, input_shape: Shape = (3, 32, 32), activation: ActivationSpec = "gelu", hidden: int = 4096
) -> nx.DiGraph:
    """Declare AlexNet for 32 x 32 images: five convolutions and three dense layers (paper, Section 5.1, CIFAR10).

    The paper does not print its layers; these are those of the AlexNet example of PCX, the library that the paper's
    first author maintains. All kernels are 3 x 3 with padding 1; the first has stride 2; pooling is over 2 x 2.

    ======== ======================== ===========
    group    made by                  shape
    ======== ======================== ===========
    conv1    conv 64, stride 2; pool  64 x 8 x 8
    conv2    conv 192; pool           192 x 4 x 4
    conv3    conv 384                 384 x 4 x 4
    conv4    conv 256                 256 x 4 x 4
    conv5    conv 256; pool           256 x 2 x 2
    fc1, fc2 dense                    4096
    y        dense, linear            classes
    ======== ======================== ===========

    Parameters
    ----------
    classes : int
    input_shape : (channels, height, width)
    activation : str or callable
        Of all groups but ``x`` and ``y``.
    hidden : int
        Neurons of each of the two dense hidden groups.

    References
    ----------
    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012.

    L. Pinchetti et al., "Benchmarking Predictive Coding Networks -- Made Simple", 2024 (PCX).

    Examples
    --------
    >>> graph = alexnet()
    >>> list(graph.nodes(data="shape"))[1:4]
    [('conv1', (64, 8, 8)), ('conv2', (192, 4, 4)), ('conv3', (384, 4, 4))]
    """
    graph = _image(input_shape)
    _block(graph, "conv1", 64, activation, stride=2, pool=True)
    _block(graph, "conv2", 192, activation, pool=True)
    _block(graph, "conv3", 384, activation)
    _block(graph, "conv4", 256, activation)
    _block(graph, "conv5", 256, activation, pool=True)
    graph.name = "AlexNet"
    return _head(graph, [hidden, hidden], classes, activation)


def vgg5(classes: int = 10, *, input_shape: Shape = (3, 32, 32), activation: ActivationSpec = "gelu") -> nx.DiGraph:
    """Declare VGG-5 for 32 x 32 images: pooled convolutions of 128, 256, 512 and 512 channels, and a linear output.

    Parameters
    ----------
    classes : int
    input_shape : (channels, height, width)
    activation : str or callable
        Of all groups but ``x`` and ``y``.

    References
    ----------
    L. Pinchetti et al., "Benchmarking Predictive Coding Networks -- Made Simple", 2024.

    Examples
    --------
    >>> [shape for _, shape in vgg5().nodes(data="shape")]
    [(3, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2), 10]
    """
    graph = _image(input_shape)
    for i, channels in enumerate((128, 256, 512, 512), 1):
        _block(graph, f"conv{i}", channels, activation, pool=True)
    graph.name = "VGG-5"
    return _head(graph, [], classes, activation)
