"""Modules that were not written for pcgraph can be edges: any ``nn.Module``, and layers of torch_geometric.

An edge is evaluated in every inference step, for each sample by itself. A module must therefore be a function of its
input and its parameters alone: layers that draw (dropout) or that mix the samples of a batch (batch normalisation) are
refused when the network is declared, not when it has trained for an hour.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from pcgraph.arguments import read_edge_index, require_flag, require_instance
from pcgraph.errors import GraphError, said_by
from pcgraph.transforms.base import Shape, Transform

__all__ = ["GraphLayer", "Module"]

#: Samples in the trial evaluation from which a module's output shape is read.
TRIAL = 2


def _refuse_what_draws_or_mixes(module: nn.Module, called: str, remedy: str) -> None:
    for name, layer in module.named_modules():
        where = f"its layer {name!r} is" if name else "it is"
        if isinstance(layer, _NormBase) and not (isinstance(layer, _InstanceNorm) and not layer.track_running_stats):
            raise GraphError(
                f"{called} must transform each sample by itself, but {where} a "
                f"{type(layer).__name__}, whose statistics mix the samples of a batch and change at every inference "
                f"step; use GroupNorm or LayerNorm{remedy}",
                found=layer,
            )
        dropout = layer.p if isinstance(layer, _DropoutNd) else getattr(layer, "dropout", 0.0)
        if (isinstance(dropout, float | int) and dropout > 0) or isinstance(layer, nn.RReLU):
            raise GraphError(
                f"{called} must give the same result in every inference step, but {where} a "
                f"{type(layer).__name__} that draws at random; remove it{remedy}",
                found=layer,
            )


class Module(Transform):
    """Any ``nn.Module`` can be an edge; its parameters become the network's, with the values they came with.

    ``transform=nn.Tanh()`` in a graph means ``transform=Module(nn.Tanh())``. The graph is copied with its modules when
    a network is made: train ``net.transform(u, v)``, not the module that was declared.

    Parameters
    ----------
    module : nn.Module
        Maps (batch, *input_shape) to (batch, *output_shape), each sample by itself and without drawing.
    evaluation : bool
        Keep the module in evaluation mode whatever the network is in: batch normalisation is then the fixed map of its
        running statistics, and dropout does nothing. Without it modules with such layers are refused.

    Raises
    ------
    GraphError
        The module has a layer that draws or that mixes samples, and `evaluation` is false.

    Examples
    --------
    >>> Module(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))).output_shape((4,))
    (8,)
    """

    #: What else can be done about a layer that draws or mixes.
    remedy = ", or pass Module(module, evaluation=True)"

    def __init__(self, module: nn.Module, evaluation: bool = False) -> None:
        super().__init__()
        require_instance(module, "module", nn.Module, "torch.nn.Tanh()", refuse=GraphError)
        evaluation = require_flag(evaluation, "evaluation", refuse=GraphError)
        if not evaluation:
            _refuse_what_draws_or_mixes(module, self.called(module), self.remedy)
        self.module = module
        self.evaluation = evaluation
        if evaluation:
            self.train(self.training)

    def called(self, module: nn.Module) -> str:
        """Name what is tried, in messages."""
        return f"the module {type(module).__name__}"

    def train(self, mode: bool = True) -> Module:
        """Switch to training or evaluation; a module kept in evaluation mode stays there."""
        super().train(mode)
        if self.evaluation:
            self.module.eval()
        return self

    def output_shape(self, input_shape: Shape) -> Shape:
        name, shape = self.called(self.module), tuple(input_shape)
        like = _like(self.module)
        modes = {layer: layer.training for layer in self.module.modules()}
        try:
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                x = torch.zeros((TRIAL, *shape), dtype=like.dtype, device=like.device, requires_grad=True)
                y: Any = self.module.eval()(x)
        except Exception as error:  # a module of somebody's own may raise what it likes
            if "in-place" in str(error) or "modified inplace" in str(error):
                raise GraphError(
                    f"{name} must leave its input as it is, but changes it in place; use inplace=False",
                    found=self.module,
                ) from error
            hint = ". Layers of torch_geometric go into pcgraph.transforms.GraphLayer(layer, edge_index)"
            raise GraphError(
                f"{name} takes no input of shape {shape}: {said_by(error)}{hint * ('edge_index' in str(error))}",
                found=shape,
            ) from error
        finally:
            for layer, mode in modes.items():
                layer.training = mode
        if not isinstance(y, Tensor):
            raise GraphError(
                f"{name} must return one tensor (found a {type(y).__name__}); wrap it in a module that "
                "picks the part that is the prediction",
                found=type(y),
            )
        if y.dim() < 2 or y.shape[0] != TRIAL:
            raise GraphError(
                f"{name} must map (batch, *shape) to (batch, *shape): from shape {(TRIAL, *shape)} it made "
                f"{tuple(y.shape)}; keep the batch first, and at least one dimension behind it",
                found=tuple(y.shape),
            )
        return tuple(y.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)  # type: ignore[no-any-return]

    def config(self) -> dict[str, Any]:
        """Return the module, which files can hold if it is of ``torch.nn``, and whether it stays in evaluation mode."""
        return {"module": self.module, "evaluation": self.evaluation}


class GraphLayer(Transform):
    """A layer of torch_geometric can be an edge, bound to the graph that it passes messages on.

    The state of the node is the features of all vertices of that graph, shape (vertices, features). The samples of a
    batch are copies of the graph without edges between them, in one call of the layer. A layer that does not keep to
    the edges, such as one with attention over all vertices, would mix these copies; it is called for each sample alone.

    Parameters
    ----------
    layer : nn.Module
        Called as ``layer(x, edge_index, **edge_data)`` with x of shape (vertices, features). It keeps the values
        that it came with.
    edge_index : Tensor of int64, shape (2, edges)
        Also a ``torch_geometric.EdgeIndex``.
    edge_data : Tensor, shape (edges, ...)
        By the name under which the layer takes them, such as ``edge_weight`` or ``edge_attr``.

    References
    ----------
    M. Fey, J. E. Lenssen, "Fast Graph Representation Learning with PyTorch Geometric", 2019.

    Examples
    --------
    >>> from torch_geometric.nn import GCNConv
    >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    >>> GraphLayer(GCNConv(5, 2), ring).output_shape((4, 5))
    (4, 2)
    """

    edge_index: Tensor

    def __init__(self, layer: nn.Module, edge_index: Tensor, **edge_data: Tensor) -> None:
        super().__init__()
        require_instance(layer, "layer", nn.Module, "torch_geometric.nn.GCNConv(8, 8)", refuse=GraphError)
        _refuse_what_draws_or_mixes(layer, f"the graph layer {type(layer).__name__}", " or set it to 0")
        if getattr(layer, "cached", False):
            raise GraphError(
                f"the graph layer {type(layer).__name__} has cached=True, which fixes one batch size; use cached=False",
                found=layer,
            )
        index = read_edge_index(edge_index, refuse=GraphError)
        for name, value in edge_data.items():
            if value.shape[:1] != index.shape[1:]:
                raise GraphError(
                    f"{name} needs one row for each of the {index.shape[1]} edges (found shape {tuple(value.shape)})",
                    found=value,
                )
        self.layer = layer
        self.register_buffer("edge_index", index.clone(), persistent=False)
        self._edge_data = tuple(edge_data)
        for name, value in edge_data.items():
            self.register_buffer(f"edge_data_{name}", value.detach().clone(), persistent=False)
        self._vertices = int(index.max()) + 1 if index.numel() else 0
        self._batched: tuple[Any, Tensor] | None = None
        self._mixes: bool | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if len(shape) < 2 or shape[0] < self._vertices:
            raise GraphError(
                f"a graph layer on {self._vertices} vertices needs a state of shape (vertices, features) "
                f"(found {shape})",
                found=shape,
            )
        like = _like(self)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                x = torch.randn((TRIAL, *shape), dtype=like.dtype, device=like.device)
                y, alone = self._together(x), self._together(x[:1])
                self._mixes = not torch.allclose(y[:1], alone, rtol=1e-3, atol=1e-4, equal_nan=True)
                return tuple(y.shape[1:])
        except Exception as error:  # a layer of somebody's own may raise what it likes
            raise GraphError(
                f"the graph layer {type(self.layer).__name__} takes no state of shape {shape}: {said_by(error)}",
                found=shape,
            ) from error

    def _edges(self, batch: int, vertices: int, device: torch.device) -> Tensor:
        """Return the edges of `batch` copies of the graph, side by side."""
        key = (batch, vertices, device)
        if self._batched is None or self._batched[0] != key:
            first = torch.arange(batch, device=device).mul_(vertices).view(1, batch, 1)
            self._batched = key, (self.edge_index.to(device).unsqueeze(1) + first).flatten(1)
        return self._batched[1]

    def forward(self, x: Tensor) -> Tensor:
        if self._mixes is None:
            self.output_shape(tuple(x.shape[1:]))
        if self._mixes:
            return torch.cat([self._together(x[i : i + 1]) for i in range(len(x))])
        return self._together(x)

    def _together(self, x: Tensor) -> Tensor:
        """Call the layer on all samples at once."""
        batch, vertices = x.shape[:2]
        data = {}
        for name in self._edge_data:
            value = getattr(self, f"edge_data_{name}")
            value = value.to(x.dtype) if value.is_floating_point() else value
            data[name] = value.repeat(batch, *[1] * (value.dim() - 1))
        y = self.layer(x.flatten(0, 1), self._edges(batch, vertices, x.device), **data)
        if not isinstance(y, Tensor):
            raise TypeError(f"it must return one tensor (found a {type(y).__name__})")
        return y.reshape(batch, vertices, *y.shape[1:])

    def config(self) -> dict[str, Any]:
        raise GraphError(
            f"the graph layer {type(self.layer).__name__} cannot be saved with the graph: it is Python code; build the "
            "graph anew in code and load the weights",
            found=self.layer,
        )


def _like(module: nn.Module) -> Tensor:
    """Return a tensor of the type and on the device of a module: torch's defaults, where it has neither."""
    parameter, buffer = next(module.parameters(), None), next(module.buffers(), None)
    if parameter is not None:
        return parameter
    return torch.empty((), device=None if buffer is None else buffer.device)
