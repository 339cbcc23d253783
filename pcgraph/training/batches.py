"""What a loader yields is read as clamps and labels.

The rule, the same for training and for evaluation:

* A graph of torch_geometric, or a batch of graphs, is read by :func:`pcgraph.pyg.clamps`: its entries by the names; or
  by :func:`pcgraph.pyg.padded`, where ``"adj"`` is among them.
* A mapping names its nodes itself; an entry ``"labels"`` that is no node holds the classes.
* A tuple or list has as many entries as there are names, in their order. One more entry, of whole numbers with shape
  (batch,), holds the classes. The entry of the name None is not used, that of ``"labels"``, if it is no node, holds the
  classes.
* A tensor alone is a tuple of one.
* Whole numbers of shape (batch,) for a node of shape (C,), C > 1, are classes and become one-hot rows.
* Arrays become tensors; tensors go to the network's device, and floating-point ones take its dtype.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcgraph.clamps import WHOLE, Masked, is_plain, read_tensor
from pcgraph.errors import ClampError, ConfigError
from pcgraph.network import Network
from pcgraph.processes import Group, Part
from pcgraph.pyg import clamps, is_data, padded

__all__ = [
    "LABELS", "Batch", "BatchLayout", "check_names", "check_targets", "is_one_hot", "mark", "one_hot", "read_batch",
    "take",
]  # fmt: skip

Node = Hashable
LABELS = "labels"
PADDED = "adj"
DEFAULT = ("x", "y")


@dataclass(frozen=True, eq=False)
class Batch:
    """Holds one batch as the engine takes it.

    Attributes
    ----------
    clamps : dict
        Node -> Tensor (batch, *shape), or :class:`pcgraph.Masked`.
    labels : Tensor or None, shape (batch,)
        The classes, where the batch has them.
    part : Part or None
        Which rows of a batch these are, where several processes share it.
    """

    clamps: dict[Node, Tensor | Masked]
    labels: Tensor | None
    part: Part | None = None

    @property
    def total(self) -> int:
        """Count the samples of the whole batch, of which other processes may have some."""
        return self.size if self.part is None else self.part.total

    def means(self, *values: Tensor) -> list[float]:
        """Average each of some tensors (batch,) over the whole batch."""
        if self.part is not None:
            return self.part.mean(*values)
        return [float(value) for value in torch.stack([value.mean() for value in values]).tolist()]

    @property
    def size(self) -> int:
        """Count the samples of the batch."""
        first = next(iter(self.clamps.values()))
        values = first.values if isinstance(first, Masked) else first
        return values.shape[0] if values.dim() else 0


def check_names(net: Network, names: Node | Sequence[Node | None], key: str) -> tuple[Node | None, ...]:
    """Give the names of the entries of a tuple, checked against the network.

    A node's own name may stand for a sequence of one.

    Raises
    ------
    ClampError
        One of them is no node.
    ConfigError
        None of them is used, or one comes twice.
    """
    alone = isinstance(names, str) or not isinstance(names, list | tuple) or _is_node(net, names)
    found: tuple[Node | None, ...] = (names,) if alone else tuple(names)  # type: ignore[arg-type]
    used = [name for name in found if name is not None]
    for name in used:
        if name != LABELS or _is_node(net, name):
            net.structure.require_node(name, ClampError)
    if not used or len(set(used)) < len(used):
        raise ConfigError(f"{key}= names one node for each entry of a batch, none twice (found {names!r})", key=key)
    return found


def check_targets(net: Network, predict: Any) -> tuple[Node, ...]:
    """Give the nodes that are to be predicted, one or a list of them, checked against the network.

    Raises
    ------
    ClampError
        One of them is no node.
    ConfigError
        The list is empty, or names a node twice.
    """
    if not isinstance(predict, list):
        if isinstance(predict, tuple) and not _is_node(net, predict) and all(_is_node(net, node) for node in predict):
            raise ConfigError(
                f"predict= takes several nodes as a list, since a tuple may be a node (found {predict!r}): give "
                f"predict={list(predict)!r}",
                key="predict",
            )
        net.structure.require_node(predict, ClampError)
        return (predict,)
    for node in predict:
        net.structure.require_node(node, ClampError)
    if not predict or len(set(predict)) < len(predict):
        raise ConfigError(f"predict= names one node, or a list of them, none twice (found {predict!r})", key="predict")
    return tuple(predict)


@dataclass(frozen=True)
class BatchLayout:
    """Says what the entries of a batch are.

    Attributes
    ----------
    entries : tuple
        A name for each entry, or None; empty where batches are mappings, which name them themselves.
    targets : tuple of nodes
        What is to be predicted.
    given : tuple of nodes
        What they are predicted from.
    """

    entries: tuple[Node | None, ...]
    targets: tuple[Node, ...]
    given: tuple[Node, ...]

    @property
    def target(self) -> Node | None:
        """Return the first target, which training's accuracy tells of."""
        return self.targets[0] if self.targets else None

    @classmethod
    def read(cls, net: Network, clamp: Any, predict: Node | list[Node] | None) -> BatchLayout:
        """Read `clamp` and `predict`, checked against the network.

        Without `clamp` entries are those of ``("x", "y")`` where the network has these nodes, and elsewhere they have
        no names but those of a mapping.
        """
        targets = () if predict is None else check_targets(net, predict)
        if clamp is None:
            clamp = DEFAULT if all(_is_node(net, name) for name in DEFAULT) else None
        names = () if clamp is None else check_names(net, clamp, "clamp")
        nodes = [n for n in names if n is not None and not (n == LABELS and not _is_node(net, LABELS))]
        if predict is None and len(nodes) > 1:
            targets = (nodes[-1],)
        return cls(names, targets, tuple(n for n in nodes if n not in targets))


def _is_node(net: Network, name: Any) -> bool:
    try:
        return name in net.structure.number
    except TypeError:
        return False


def read_batch(net: Network, batch: Any, names: tuple[Node | None, ...], *, check: bool = True) -> Batch:
    """Turn what a loader yielded into clamps and labels, by the rule of this module.

    Parameters
    ----------
    net : Network
    batch : mapping, tuple, list, Tensor or ndarray
    names : tuple
        From :func:`check_names`.
    check : bool
        Whether classes that lie on a GPU are looked at, which waits for it; those on the host always are.

    Raises
    ------
    ClampError
        The batch has another number of entries, or labels that are out of range.
    """
    entries = list(_of_graphs(net, batch, names) if is_data(batch) else _entries(batch, names))
    clamps: dict[Node, Tensor | Masked] = {}
    labels: Tensor | None = None
    for name, value in entries:
        if name is None:
            continue
        if name == LABELS and not _is_node(net, LABELS):
            labels = _labels(net, value)
        else:
            net.structure.require_node(name, ClampError)
            clamps[name] = _value(net, name, value, check)
    if not clamps:
        raise ClampError("the batch clamps no node: give at least one a value, as in {'x': x}")
    return Batch(clamps, labels)


def _of_graphs(net: Network, batch: Any, names: tuple[Node | None, ...]) -> Iterable[tuple[Node | None, Any]]:
    read = tuple(name for name in names if name is not None and name != LABELS)
    if PADDED in names and PADDED not in batch:
        return padded(batch, net, names=list(read)).items()
    classes = net.structure.shape("y")[-1] if _is_node(net, "y") else None
    return clamps(batch, names=read or None, classes=classes).items()


def _entries(batch: Any, names: tuple[Node | None, ...]) -> Iterable[tuple[Node | None, Any]]:
    if isinstance(batch, Mapping):
        return batch.items()
    single = isinstance(batch, Tensor | np.ndarray | Masked)
    if single:
        batch = (batch,)
    if not isinstance(batch, tuple | list):
        raise ClampError(f"a batch is a tuple of tensors or a mapping node -> tensor (found {type(batch).__name__})")
    if not names:
        raise ClampError(
            f"nothing says which nodes the entries of a batch are (found a {type(batch).__name__} of {len(batch)}): "
            "name them by clamp=, or by given= of evaluate, or yield mappings node -> tensor"
        )
    if len(batch) == len(names):
        return zip(names, batch)
    if len(batch) == len(names) + 1 and LABELS not in names and _are_classes(batch[-1]):
        return zip((*names, LABELS), batch)
    wanted = ", ".join(repr(name) for name in names)
    if single:
        raise ClampError(
            f"a batch has one entry for each of ({wanted}) (found one {type(batch[0]).__name__}): a loader yields "
            "tuples or mappings; of one batch of tensors, [(x, y)] is a loader"
        )
    raise ClampError(
        f"a batch has one entry for each of ({wanted}), and may have the classes as one more, of whole numbers "
        f"(found {len(batch)} entries): name them all, with None for one that is not to be clamped"
    )


def _are_classes(value: Any) -> bool:
    if not isinstance(value, Tensor | np.ndarray):
        return False
    whole = value.dtype in WHOLE if isinstance(value, Tensor) else np.issubdtype(value.dtype, np.integer)
    return value.ndim == 1 and bool(whole)


def _labels(net: Network, value: Any) -> Tensor:
    if not _are_classes(value):
        found = f"shape {tuple(value.shape)}, {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise ClampError(f"labels are whole numbers of shape (batch,) (found {found})")
    return _as_tensor(LABELS, value).to(net.device, torch.int64, non_blocking=True)


def _value(net: Network, node: Node, value: Any, check: bool) -> Tensor | Masked:
    if is_plain(value, net.dtype, net.device):  # as a rule
        return value
    if isinstance(value, Masked):
        return Masked(_tensor(net, node, value.values), _as_tensor(node, value.mask).to(net.device))
    classes = _are_classes(value)
    shape = net.structure.shape(node)
    if classes and len(shape) == 1 and shape[0] > 1:
        return one_hot(net, node, _as_tensor(node, value), check=check)
    return _tensor(net, node, value)


def _tensor(net: Network, node: Node, value: Any) -> Tensor:
    tensor = _as_tensor(node, value)
    dtype = net.dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(net.device, dtype, non_blocking=True)


def _as_tensor(node: Node, value: Any) -> Tensor:
    """Take a tensor as it is, and an array of numbers as a tensor."""
    if not isinstance(value, Tensor | np.ndarray):
        raise ClampError(
            f"the batch needs a tensor for {node!r} (found {type(value).__name__}): a collate_fn makes one",
            node=node,
        )
    tensor = read_tensor(node, value, "batch's value")
    if tensor.is_meta:
        raise ClampError(f"the batch needs values for {node!r} (found a tensor on meta, which has none)", node=node)
    return tensor


def one_hot(net: Network, node: Node, labels: Tensor, *, check: bool = True) -> Tensor:
    """Write classes as rows with one 1, shape (batch, C), for a node of C neurons.

    They are looked at where they lie, so that nothing waits for the device if they come from the host. Those on a GPU
    are not where `check` is False: a class that is none then has a row of zeros.

    Raises
    ------
    ClampError
        A class is negative, or too large.
    """
    classes, labels = net.structure.shape(node)[0], labels.to(torch.int64)
    if len(labels) and (check or labels.device.type == "cpu"):
        least, most = torch.stack(labels.aminmax()).tolist()
        if least < 0 or most >= classes:
            raise ClampError(
                f"label {least if least < 0 else most} is out of range: {node!r} has {classes} neurons, so classes are "
                f"0 to {classes - 1}",
                node=node,
            )
    known = torch.arange(classes, device=net.device)
    return (labels.to(net.device, non_blocking=True).unsqueeze(1) == known).to(net.dtype)


def is_one_hot(rows: Tensor) -> Tensor:
    """Say whether every row has one 1 and zeros beside it, as a bool tensor, so that nothing waits for the device."""
    return ((rows == 1).sum(1) == 1).all() & ((rows != 0).sum(1) == 1).all()


# -- the parts of a batch ---------------------------------------------------------------------------------------------


def take(batch: Batch, group: Group) -> Batch:
    """Take this rank's rows of a batch that all ranks have; all of it where its entries are not of one length.

    Parameters
    ----------
    batch : Batch
    group : Group

    Returns
    -------
    Batch
        It knows which part it is.
    """
    part = Part(group, batch.size)
    lengths = {len(_values(value)) if _values(value).dim() else -1 for value in batch.clamps.values()}
    lengths |= set() if batch.labels is None else {len(batch.labels)}
    if lengths != {part.total}:
        return batch  # the rule is about to say what is wrong with it, on all ranks
    clamps = {node: _rows(value, part) for node, value in batch.clamps.items()}
    return Batch(clamps, None if batch.labels is None else batch.labels[part.rows], part)


def _values(value: Tensor | Masked) -> Tensor:
    return value.values if isinstance(value, Masked) else value


def _rows(value: Tensor | Masked, part: Part) -> Tensor | Masked:
    if not isinstance(value, Masked):
        return value[part.rows]
    mask = value.mask[part.rows] if value.mask.shape == value.values.shape else value.mask
    return Masked(value.values[part.rows], mask)


def mark(batch: Batch) -> float:
    """Sum a batch up so that other samples, and another order of them, as good as always give another number."""
    total = 0.0
    for value in batch.clamps.values():
        rows = _values(value)
        if rows.dim():
            sums = rows.detach().flatten(1).sum(1, dtype=torch.float64) if rows.dim() > 1 else rows.double()
            total += float(sums @ torch.arange(1.0, len(sums) + 1, dtype=torch.float64, device=sums.device))
    return total
