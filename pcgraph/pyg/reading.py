"""What a graph of torch_geometric knows is read as clamps: features, classes, and which of them are known."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pcgraph.arguments import (
    count_vertices,
    is_key,
    read_edge_index,
    read_numbers,
    require_choice,
    require_count,
    require_room,
    shown,
)
from pcgraph.energies import Energy
from pcgraph.errors import ClampError, nearest

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data, HeteroData

__all__ = ["KnownRows", "accuracy", "clamps", "is_data", "one_hot", "read_mask", "require_entry"]

Node = Hashable
#: What batches are as a rule.
PLAIN = (tuple, list, dict, Tensor)


class KnownRows(Energy):
    """Half the squared error of the rows that say something; a row of zeros says nothing, and costs nothing.

    For a clamped node of shape (vertices, classes), of which only some vertices have a class: see :func:`clamps`.

    Examples
    --------
    >>> h, mu = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.full((1, 2, 2), 0.5)
    >>> KnownRows().energy(h, mu)
    tensor([0.2500])
    """

    zero_at_prediction = True

    def energy(self, h: Tensor, mu: Tensor) -> Tensor:
        """Add up over the rows of each sample, (batch,)."""
        return 0.5 * ((h - mu) * h.any(-1, keepdim=True)).flatten(1).square().sum(1)


def is_data(value: Any) -> bool:
    """Say whether a value is a graph of torch_geometric, which is not imported for it."""
    kind = type(value)
    return kind not in PLAIN and any(base.__module__.startswith("torch_geometric.data") for base in kind.__mro__)


def clamps(
    data: Data | Batch | HeteroData, *, by: str = "layers", mask: str | Tensor | None = None,
    classes: int | None = None, names: tuple[Any, ...] | None = None,
) -> dict[Node, Tensor]:  # fmt: skip
    """Read features, classes and a mask as clamps.

    Parameters
    ----------
    data : torch_geometric.data.Data, Batch or HeteroData
        Of a ``Batch``, as torch_geometric's loaders make them, each graph is a sample. Its graphs have the same
        vertices and edges, since layers are bound to them when the network is declared.
    by : {"layers", "vertices"}
        ``"layers"``: for a network with a node for each of ``x`` and ``y``, of shape (vertices, features); of
        HeteroData for that of :func:`from_hetero`, ``("x", type)``. ``"vertices"``: for the nodes 0, 1, ... of
        :func:`from_data`, each clamped to its row of ``x``.
    mask : str or Tensor of bool, shape (vertices,), optional
        The vertices that are known, by the name of an entry such as ``"train_mask"`` or as they are. By layers the rows
        of ``y`` that are not known are zero, which :class:`KnownRows` leaves out; by vertices the others are free.
    classes : int, optional
        Of ``y``, where it holds classes: they become one-hot rows. By default as many as occur; name it where not every
        class is there.
    names : tuple, optional
        The entries to be read, instead of ``("x", "y")`` as far as there are such.

    Returns
    -------
    dict
        Node -> Tensor, (graphs, vertices, ...) of what belongs to vertices, and (graphs, ...) of what belongs to a
        whole graph; by vertices (graphs, ...).

    Raises
    ------
    ClampError
        An entry is missing or has no row for each vertex or graph; the graphs of a batch differ in vertices or edges;
        or there is no such mask.

    Examples
    --------
    >>> from torch_geometric.data import Data
    >>> ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
    >>> data = Data(x=torch.ones(3, 4), y=torch.tensor([0, 1, 1]), edge_index=ring)
    >>> known = clamps(data, mask=torch.tensor([True, False, True]))
    >>> known["x"].shape, known["y"].tolist()
    (torch.Size([1, 3, 4]), [[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    >>> list(clamps(data, by="vertices", mask=torch.tensor([True, False, True])))
    [0, 2]
    """
    require_choice(by, "by", ("layers", "vertices"))
    if not isinstance(names, tuple | list | None):
        raise ClampError(f"names= is a tuple of entries, as in ('x', 'y') (found {shown(names)})")
    count = None if classes is None else require_count(classes, "classes", least=1)
    if not is_data(data):
        raise ClampError(f"clamps are read of a graph of torch_geometric, such as Data (found {shown(data)})")
    if hasattr(data, "node_types"):
        if by == "vertices" or mask is not None:
            raise ClampError("of HeteroData features alone are read, by layers: leave by= and mask= out")
        return {("x", kind): _rows(data[kind], "x", 1) for kind in data.node_types if "x" in data[kind]}
    graphs = _graphs(data)
    known = None if mask is None else read_mask(data, mask, graphs)
    if by == "vertices":
        x = _rows(data, "x", graphs)
        every = torch.ones(x.shape[1], dtype=torch.bool, device="cpu") if known is None else known.all(0).cpu()
        return {int(v): x[:, int(v)] for v in every.nonzero().flatten()}
    found: dict[Node, Tensor] = {}
    for name in [n for n in ("x", "y") if getattr(data, n, None) is not None] if names is None else names:
        value = _rows(data, name, graphs)
        if name == "y" and not value.is_floating_point():
            value = one_hot(value, count)
        if name == "y" and known is not None:
            if value.shape[:2] != known.shape:
                raise ClampError("mask= says which vertices are known, and y has no row for each vertex", node="y")
            value = torch.where(known.view(*known.shape, *[1] * (value.dim() - 2)), value, 0.0)  # may be NaN there
        found[name] = value
    return found


def _graphs(data: Any) -> int:
    """Count the graphs of a batch, which have the same vertices and edges; anything else is one graph."""
    if getattr(data, "ptr", None) is None or getattr(data, "batch", None) is None:
        return 1
    count = int(data.num_graphs)
    if not count:
        raise ClampError("the batch holds no graph, and a clamp has at least one sample (found 0)")
    sizes = data.ptr[1:] - data.ptr[:-1]
    vertices = int(sizes[0])
    nothing = torch.zeros(2, 0, dtype=torch.long, device=sizes.device)
    index = nothing if data.edge_index is None else read_edge_index(data.edge_index, refuse=ClampError)
    alike = bool((sizes == vertices).all()) and index.shape[1] % count == 0
    if alike and index.shape[1]:
        order = data.batch[index[0]].argsort(stable=True)
        each = (index[:, order] % vertices).reshape(2, count, -1)
        alike = bool((data.batch[index[0]].bincount(minlength=count) == each.shape[2]).all())
        each = (each[0] * vertices + each[1]).sort(dim=1).values
        alike = alike and bool((each == each[:1]).all())
    if not alike:
        raise ClampError(
            f"the graphs of a batch need the same vertices and edges, since a GraphLayer is bound to them (found "
            f"{count} graphs of {int(sizes.min())} to {int(sizes.max())} vertices, {index.shape[1]} edges in all): "
            "pad them by pcgraph.pyg.padded, for a network with nodes 'adj' and 'mask', or make a network of the union "
            "of all"
        )
    return count


def require_entry(data: Any, name: Any) -> Tensor:
    """Return the entry of this name, which is a tensor with rows.

    Raises
    ------
    ClampError
        There is none.
    """
    value = data[name] if is_key(name) and name in data else None
    if not isinstance(value, Tensor) or value.dim() == 0:
        known = ", ".join(map(str, data.keys()))
        guess = nearest(name, list(map(str, data.keys()))) if isinstance(name, str) else None
        hint = f": did you mean {guess!r}?" if guess else ""
        raise ClampError(f"the graph has no tensor {name!r} (found {known}){hint}", node=name)
    return read_numbers(value, repr(name), refuse=ClampError)


def _rows(data: Any, name: Any, graphs: int) -> Tensor:
    """Read one entry as (graphs, vertices, ...), or as (graphs, ...) where it belongs to whole graphs."""
    value = require_entry(data, name)
    vertices = count_vertices(data, ClampError)
    if value.shape[0] == vertices:
        return value.reshape(graphs, vertices // graphs, *value.shape[1:])
    if value.shape[0] == graphs:
        return value
    raise ClampError(
        f"{name!r} needs a row for each of {vertices} vertices, or for each of {graphs} graphs (found shape "
        f"{tuple(value.shape)})",
        node=name,
    )


def read_mask(data: Any, mask: str | Tensor, graphs: int) -> Tensor:
    value = data[mask] if isinstance(mask, str) and mask in data else mask
    if isinstance(value, str):
        masks = [key for key in data.keys() if str(key).endswith("mask")]  # noqa: SIM118
        raise ClampError(f"the graph has no mask {value!r} (found {', '.join(masks) or 'none'})")
    vertices = count_vertices(data, ClampError)
    if not isinstance(value, Tensor) or value.dtype != torch.bool or value.shape != (vertices,):
        raise ClampError(f"a mask is of bool, shape ({vertices},) (found {shown(value)})")
    return read_numbers(value, "mask", refuse=ClampError).reshape(graphs, -1)


def one_hot(value: Tensor, classes: int | None) -> Tensor:
    least, most = (int(value.min()), int(value.max())) if value.numel() else (0, 0)
    count = most + 1 if classes is None else classes
    if least < 0 or most >= count:
        raise ClampError(
            f"classes are 0 to {count - 1} (found {least if least < 0 else most}): a vertex without one is left out by "
            "mask=, and has any class",
            node="y",
        )
    dtype = torch.get_default_dtype()
    require_room(
        value.numel() * count * dtype.itemsize, f"one-hot rows of {count} classes", "classes", refuse=ClampError
    )
    return (value.unsqueeze(-1) == torch.arange(count, device=value.device)).to(dtype)


def accuracy(answer: Tensor, data: Any, mask: str | Tensor | None = None) -> float:
    """Measure which part of the vertices in a mask has its class in the largest column.

    Parameters
    ----------
    answer : Tensor, shape (graphs, vertices, classes)
        What ``net.predict`` gives.
    data : torch_geometric.data.Data or Batch
        With classes ``y``, (vertices,).
    mask : str or Tensor of bool, optional
        All vertices by default.

    Raises
    ------
    ClampError
        The answer does not fit, the mask is none, or holds no vertex.
    """
    if not is_data(data):
        raise ClampError(f"an accuracy is measured on a graph of torch_geometric (found {shown(data)})")
    graphs = _graphs(data)
    y = _rows(data, "y", graphs)
    if not isinstance(answer, Tensor) or answer.dim() != 3 or answer.shape[:2] != y.shape:
        raise ClampError(f"an answer has shape ({y.shape[0]}, {y.shape[-1]}, classes) (found {shown(answer)})")
    if bool(read_numbers(answer, "answer", refuse=ClampError).isnan().any()):
        raise ClampError("the answer holds NaN, which is no class: look where the network diverged")
    known = torch.ones_like(y, dtype=torch.bool) if mask is None else read_mask(data, mask, graphs)
    if not bool(known.any()):
        raise ClampError("the mask holds no vertex, so that there is nothing to measure")
    right = answer.argmax(-1) == y.to(answer.device)
    return float(right[known.to(right.device)].double().mean())
