"""A combine makes one prediction of several parents, where a sum of what each sends will not do.

    mu_v = sigma_v(b_v + combine(role_1=f_1(phi_1(h_1)), role_2=f_2(phi_2(h_2)), ...))

A node declares it as ``combine=``, and each edge into the node says which part it plays by its ``role``, or several of
them: ``graph.add_edge("tokens", "v", role=("key", "value"))``. It may be any ``nn.Module`` that takes its roles by
name, (batch, *shape) each, treats each sample by itself and draws nothing:

>>> class Distance(nn.Module):
...     def forward(self, here, there):
...         return (here - there).square()
>>> Distance()(here=torch.zeros(1, 2), there=torch.ones(1, 2))
tensor([[1., 1.]])

Its parameters are the network's. Those in this room have none: what is learned lies on the edges, as in
``transform=nn.Linear(8, 8, bias=False)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pcgraph.arguments import require_choice, require_count, require_flag, shown
from pcgraph.errors import GraphError
from pcgraph.registry import Named, Registry

__all__ = [
    "COMBINES", "Attention", "Combine", "Gate", "Product", "Readout", "from_config", "get", "name_of", "require_roles",
]  # fmt: skip


class Combine(Named):
    """A combine that has a name, and is saved by it, extends this class; any other ``nn.Module`` will do as well."""


class Product(Combine):
    """All parents are multiplied, neuron by neuron, whatever their roles are called.

    Examples
    --------
    >>> Product()(a=torch.tensor([[2.0, 3.0]]), b=torch.tensor([[5.0, 0.5]]))
    tensor([[10.0000,  1.5000]])
    """

    def forward(self, **factors: Tensor) -> Tensor:
        first, *others = factors.values()
        for factor in others:
            first = first * factor
        return first


class Gate(Combine):
    """One parent lets another through: ``sigmoid(gate) * value``.

    Examples
    --------
    >>> Gate()(gate=torch.zeros(1, 2), value=torch.tensor([[2.0, 4.0]]))
    tensor([[1., 2.]])
    """

    def forward(self, gate: Tensor, value: Tensor) -> Tensor:
        return gate.sigmoid() * value


class Attention(Combine):
    """Rows look up rows: ``softmax(query key^T / sqrt(d)) value``, head by head (Vaswani et al. 2017, Eq 1).

    Query is (batch, rows, features), key and value (batch, other rows, features); the three may come from one parent or
    from three. The features are divided among the heads, and d is what one head has.

    Parameters
    ----------
    heads : int
        It divides the features.
    causal : bool
        Whether row i looks at the rows up to i alone, as a model of text does.

    Examples
    --------
    >>> x = torch.eye(2).unsqueeze(0)
    >>> Attention(causal=True)(query=x, key=x, value=x)[0, 0]  # the first row sees itself alone
    tensor([1., 0.])
    """

    def __init__(self, heads: int = 1, causal: bool = False) -> None:
        super().__init__()
        self.heads = require_count(heads, "heads", least=1, refuse=GraphError)
        self.causal = require_flag(causal, "causal", refuse=GraphError)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        for name, part in (("query", query), ("key", key), ("value", value)):
            if part.dim() != 3 or part.shape[2] % self.heads:
                raise GraphError(
                    f"Attention needs a {name} of shape (rows, features), the features a multiple of its {self.heads} "
                    f"heads (found {tuple(part.shape[1:])})",
                    found=tuple(part.shape[1:]),
                )
        if key.shape[1] != value.shape[1] or query.shape[2] != key.shape[2]:
            raise GraphError(
                "Attention needs as many keys as values, and queries of the keys' features (found query "
                f"{tuple(query.shape[1:])}, key {tuple(key.shape[1:])}, value {tuple(value.shape[1:])})",
                found=tuple(key.shape[1:]),
            )
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (query, key, value))
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        if self.causal:
            seen = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~seen, -torch.inf)
        found: Tensor = scores.softmax(3) @ v
        return found.transpose(1, 2).flatten(2)

    def config(self) -> dict[str, Any]:
        return {"heads": self.heads, "causal": self.causal}

    def extra_repr(self) -> str:
        return f"heads={self.heads}, causal={self.causal}"


class Readout(Combine):
    """The rows that a mask keeps become one: their mean, sum or largest, feature by feature.

    The rows ``x`` are (batch, rows, features), and ``mask``, (batch, rows), is 1 where a row counts and 0 elsewhere. So
    a graph of any number of vertices gets an answer as a whole: see :func:`pcgraph.pyg.padded`. Of no rows at all it is
    zero.

    Parameters
    ----------
    reduce : {"mean", "sum", "max"}

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    >>> Readout()(x=x, mask=torch.tensor([[1.0, 1.0, 0.0]]))
    tensor([[2., 4.]])
    """

    def __init__(self, reduce: str = "mean") -> None:
        super().__init__()
        self.reduce = require_choice(reduce, "reduce", ("mean", "sum", "max"), refuse=GraphError)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if x.dim() != 3 or mask.shape != x.shape[:2]:
            raise GraphError(
                "Readout needs x of shape (rows, features) and a mask of shape (rows,) (found "
                f"{tuple(x.shape[1:])} and {tuple(mask.shape[1:])})",
                found=tuple(x.shape[1:]),
            )
        kept = mask.unsqueeze(2)
        if self.reduce == "max":
            found = x.masked_fill(kept == 0, -torch.inf).amax(1)
            return found.masked_fill((mask == 0).all(1, keepdim=True), 0.0)
        total = (x * kept).sum(1)
        return total / kept.sum(1).clamp(min=1) if self.reduce == "mean" else total

    def config(self) -> dict[str, Any]:
        return {"reduce": self.reduce}

    def extra_repr(self) -> str:
        return f"reduce={self.reduce!r}"


#: The combines that have a name. Add your own class, with a ``config()`` if it takes arguments, and graphs with it can
#: be saved.
COMBINES: dict[str, type[Combine]] = {"product": Product, "gate": Gate, "attention": Attention, "readout": Readout}
_REGISTRY = Registry("combine", Combine, "pcgraph.combines.COMBINES", COMBINES, " or an nn.Module instance")


def from_config(name: str, config: Mapping[str, Any]) -> Combine:
    """Make the combine with this name and these arguments: the inverse of ``name_of(c), c.config()``.

    Raises
    ------
    GraphError
        The name is unknown, or the class does not take these arguments.

    Examples
    --------
    >>> from_config("attention", {"heads": 2})
    Attention(heads=2, causal=False)
    """
    return _REGISTRY.make(name, config)


def name_of(combine: Combine) -> str:
    """Return the name under which the combine's class is registered.

    Raises
    ------
    GraphError
        It has none.
    """
    return _REGISTRY.name_of(combine)


def get(spec: Any) -> nn.Module:
    """Return the combine that `spec` names or is; ``(name, arguments)`` makes one.

    Raises
    ------
    GraphError
        The name is unknown, or `spec` is no ``nn.Module``.

    Examples
    --------
    >>> get("gate")
    Gate()
    """
    return spec if isinstance(spec, nn.Module) else _REGISTRY.get(spec)


def require_roles(combine: nn.Module, roles: tuple[str, ...]) -> None:
    """Refuse roles that the module does not take, and a lack of those that it needs.

    Raises
    ------
    GraphError
    """
    takes = inspect.signature(combine.forward)
    try:
        takes.bind(**dict.fromkeys(roles))
    except TypeError as error:
        raise GraphError(
            f"the combine {type(combine).__name__} takes the roles {takes} (found {shown(list(roles))}: {error}): say "
            "role= on each edge into the node",
            found=roles,
        ) from error
