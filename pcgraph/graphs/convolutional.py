"""Convolutional graphs for images.

A group is what lies between two blocks of the network, *after* activation and pooling, as in the published code of the
field: pooled states are four times smaller, and errors are measured on what the next block sees. A block with pooling
is therefore one edge, ``Sequence([Conv2d, Activate, MaxPool2d])``, into a group without activation and bias of its own;
a block without is a ``Conv2d`` edge into a group with the activation. Convolutions have their own bias by channel.
"""

from __future__ import annotations

from collections.abc import Sequence as Several

import networkx as nx

from pcgraph.errors import GraphError
from pcgraph.graphs.layered import ActivationSpec
from pcgraph.transforms import Activate, Conv2d, MaxPool2d, Sequence

__all__ = ["alexnet", "vgg5"]

Shape = tuple[int, int, int]


def _block(graph: nx.DiGraph, name: str, conv: Conv2d, activation: ActivationSpec, pool: int | None) -> None:
    """Append one convolution, with pooling if wanted, to the last group."""
    source = list(graph)[-1]
    shape = graph.nodes[source]["shape"]
    try:
        if pool is None:
            graph.add_node(name, shape=conv.output_shape(shape), activation=activation, bias=False)
            graph.add_edge(source, name, transform=conv)
        else:
            edge = Sequence([conv, Activate(activation), MaxPool2d(pool)])
            graph.add_node(name, shape=edge.output_shape(shape), bias=False)
            graph.add_edge(source, name, transform=edge)
    except GraphError as error:
        raise GraphError(
            f"the images are too small for this network: at {name!r}, {error}; use input_shape=(3, 32, 32) or larger",
            found=shape,
        ) from error


def _head(graph: nx.DiGraph, hidden: Several[int], classes: int, activation: ActivationSpec) -> nx.DiGraph:
    for i, size in enumerate(hidden, 1):
        source = list(graph)[-1]
        graph.add_node(f"fc{i}", shape=size, activation=activation)
        graph.add_edge(source, f"fc{i}")
    source = list(graph)[-1]
    graph.add_node("y", shape=classes)
    graph.add_edge(source, "y")
    return graph


def _image(input_shape: Shape) -> nx.DiGraph:
    if len(tuple(input_shape)) != 3:
        raise GraphError(f"images have a shape (channels, height, width) (found {input_shape!r})", found=input_shape)
    graph = nx.DiGraph()
    graph.add_node("x", shape=tuple(input_shape))
    return graph


def alexnet(
    classes: int = 10, *, input_shape: Shape = (3, 32, 32), activation: ActivationSpec = "gelu", hidden: int = 4096
) -> nx.DiGraph:
    """AlexNet for 32 x 32 images: five convolutions and three dense layers (paper, Section 5.1, CIFAR10).

    The paper does not print its layers; these are those of the AlexNet example of PCX, the library that the paper's
    first author maintains. All kernels are 3 x 3 with padding 1; the first has stride 2.

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
    >>> [(name, shape) for name, shape in graph.nodes(data="shape")][1:4]
    [('conv1', (64, 8, 8)), ('conv2', (192, 4, 4)), ('conv3', (384, 4, 4))]
    """
    graph = _image(input_shape)
    channels = graph.nodes["x"]["shape"][0]
    _block(graph, "conv1", Conv2d(channels, 64, 3, stride=2, padding=1), activation, 2)
    _block(graph, "conv2", Conv2d(64, 192, 3, padding=1), activation, 2)
    _block(graph, "conv3", Conv2d(192, 384, 3, padding=1), activation, None)
    _block(graph, "conv4", Conv2d(384, 256, 3, padding=1), activation, None)
    _block(graph, "conv5", Conv2d(256, 256, 3, padding=1), activation, 2)
    graph.name = "AlexNet"
    return _head(graph, [hidden, hidden], classes, activation)


def vgg5(classes: int = 10, *, input_shape: Shape = (3, 32, 32), activation: ActivationSpec = "gelu") -> nx.DiGraph:
    """VGG-5 for 32 x 32 images: four convolutions of 128, 256, 512 and 512 channels, each pooled, and a linear output.

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
    before = graph.nodes["x"]["shape"][0]
    for i, channels in enumerate((128, 256, 512, 512), 1):
        _block(graph, f"conv{i}", Conv2d(before, channels, 3, padding=1), activation, 2)
        before = channels
    graph.name = "VGG-5"
    return _head(graph, [], classes, activation)
