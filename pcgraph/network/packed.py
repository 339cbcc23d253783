"""Packed parameters are read and written where they lie: none of them may be computed from others.

One tensor holds the weights of many edges, or the biases of many nodes, a row each. A :class:`ParameterView` is what a
single one of them, or neighbours, look like to torch: a tensor that an optimizer takes, with a gradient. Rows can be
frozen; an optimizer that holds the whole tensor then leaves them where they are, and what it keeps of them too.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pcgraph.arguments import require_flag, shown
from pcgraph.errors import GraphError

__all__ = ["Mask", "Packed", "ParameterView", "every_parameter", "whole"]

Mask = NDArray[np.bool_]


def _refuse(name: str) -> NoReturn:
    raise GraphError(
        f"the parameter {name!r} holds the weights of all edges of a kind, or the biases of all nodes of a shape, and "
        "its gradient is written into it: it cannot be taken away, nor be computed from others, as parametrizations, "
        "weight_norm and pruning ask for. Let the edge have a module of its own instead, as in "
        "transform=nn.utils.parametrizations.weight_norm(nn.Linear(4, 3, bias=False)); for a weight of which only a "
        "part exists there are SparseLinear and MaskedLinear",
        found=name,
    )


class _Kept(dict[str, Any]):
    """A module holds its parameters here, of which none can be taken away."""

    def __delitem__(self, name: str) -> None:
        _refuse(name)


class Packed(nn.ParameterDict):
    """In this ParameterDict every parameter stays what it is, a leaf that an optimizer moves.

    A parameter may be set anew, as in ``net.weights[name] = nn.Parameter(...)``. torch's parametrizations and pruning
    take a parameter away and put a tensor in its place that is computed before each forward call; the network would go
    on with that tensor, and whatever it is computed from would never learn. They are refused when they are asked for.

    Examples
    --------
    >>> import torch
    >>> packed = Packed({"weight": torch.zeros(2, 3)})
    >>> nn.utils.parametrizations.weight_norm(packed, "weight")
    Traceback (most recent call last):
    ...
    pcgraph.errors.GraphError: the parameter 'weight' holds the weights of all edges of a kind, ...
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self.__dict__["_parameters"] = _Kept()
        #: Name -> which rows are frozen, for those of which some are.
        self._frozen: dict[str, Mask] = {}
        #: Names of parameters that were declared not to learn.
        self.fixed: frozenset[str] = frozenset()
        #: Rows of frozen parameters as an index on their device.
        self._places: dict[tuple[str, torch.device], Tensor] = {}
        if parameters is not None:
            self.update(parameters)

    def __delitem__(self, key: str) -> None:
        _refuse(key)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Take a parameter that the dictionary names; pruning and weight_norm bring others, with a suffix."""
        if name not in self._keys:
            _refuse(next((key for key in self._keys if name.startswith(key)), name))
        super().register_parameter(name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Take no buffer."""
        _refuse(name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self._frozen:
            _hold(self)

    # -- rows ---------------------------------------------------------------------------------------------------------

    def view(
        self, name: str, rows: slice, shape: tuple[int, ...] | None = None, transposed: bool = False
    ) -> ParameterView:  # fmt: skip
        """Return neighbouring rows of a parameter as a tensor of their own; of `shape`, or with the rows first.

        A single matrix comes `transposed` if that is asked for; `shape` is then that of the transpose.
        """
        packed: Tensor = self[name].detach()[rows]
        seen = packed if shape is None else _seen(packed, shape, transposed)
        found = seen.as_subclass(ParameterView)
        found.packed, found.packed_name, found._rows, found.transposed = self, name, rows, transposed
        return found

    def frozen(self, name: str) -> Mask | None:
        """Say which rows of a parameter are frozen; None where none is."""
        parameter: nn.Parameter = self[name]
        if not parameter.requires_grad:
            return np.ones(len(parameter), dtype=bool)
        return self._frozen.get(name)

    @property
    def frozen_rows(self) -> dict[str, Mask]:
        """Map the names of parameters with frozen rows to which these are; another object where it has changed."""
        return self._frozen

    def freeze(self, name: str, rows: slice) -> None:
        """Let rows of a parameter learn no more; their gradient is gone."""
        parameter: nn.Parameter = self[name]
        mask = np.zeros(len(parameter), dtype=bool)
        mask |= False if (known := self.frozen(name)) is None else known
        mask[rows] = True
        self._set(name, mask)
        if mask.all():
            parameter.requires_grad_(False)
            parameter.grad = None
        elif parameter.grad is not None:
            parameter.grad[rows].zero_()

    def unfreeze(self, name: str, rows: slice) -> None:
        """Let rows of a parameter learn again, and leave the others as they are."""
        known = self.frozen(name)
        if known is None:
            return
        if name in self.fixed:
            raise GraphError(
                f"the edges of {name!r} were declared with trainable=False, and no gradient is computed for them: "
                "declare them trainable, and freeze them for as long as they are to stay",
                found=name,
            )
        mask = known.copy()
        mask[rows] = False
        self[name].requires_grad_(True)
        self._set(name, mask)

    def _set(self, name: str, mask: Mask) -> None:
        self._places.clear()
        # Another dictionary, by which whoever has read the old one sees that it is no longer so.
        self._frozen = {**{k: v for k, v in self._frozen.items() if k != name}, **({name: mask} if mask.any() else {})}
        if self._frozen:
            _hold(self)

    def _held_in(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
        """Yield (parameter, frozen rows of it, its group) of what an optimizer holds and is frozen in part."""
        whole = {id(self[name]): name for name in self._frozen}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in whole:
                    name, rows = whole[id(parameter)], slice(None)
                elif isinstance(parameter, ParameterView) and parameter.packed is self:
                    name, rows = parameter.packed_name, parameter._rows
                else:
                    continue
                mask = self._frozen.get(name, _NONE)[rows]
                # A view all of which is frozen has no gradient, and is not stepped at all.
                if mask.any() and not (mask.all() and isinstance(parameter, ParameterView)):
                    yield parameter, self._place(name, rows, mask, parameter.device), group

    def _place(self, name: str, rows: slice, mask: Mask, device: torch.device) -> Tensor:
        key = (f"{name}[{rows.start}:{rows.stop}]", device)
        if key not in self._places:
            self._places[key] = torch.from_numpy(np.flatnonzero(mask)).to(device)
        return self._places[key]


def _seen(rows: Tensor, shape: tuple[int, ...] | torch.Size, transposed: bool) -> Tensor:
    return rows.view(*reversed(shape)).mT if transposed else rows.view(shape)


_NONE: Mask = np.zeros(0, dtype=bool)


def every_parameter(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a module, and of all in it, for what looks at them in every step.

    It is ``module.parameters()`` in a fifth of the time, but for order, and one that is held twice comes twice.
    """
    modules = [module]
    for each in modules:
        yield from (parameter for parameter in each._parameters.values() if parameter is not None)
        modules.extend(child for child in each._modules.values() if child is not None)


class ParameterView(Tensor):
    """A weight or bias is seen where it lies in a packed parameter, and can be handed to an optimizer as it is.

    It reads and writes the packed parameter's memory. ``grad`` is the view of the packed gradient; setting it to None,
    as ``optimizer.zero_grad()`` does, clears these rows alone. ``requires_grad_(False)`` freezes them.
    """

    packed: Packed
    packed_name: str
    transposed: bool
    _rows: slice

    # What is computed from it is a tensor like any other.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def owner(self) -> nn.Parameter:
        """Return the packed parameter that it lies in."""
        found: nn.Parameter = self.packed[self.packed_name]
        if found.untyped_storage().data_ptr() != self.untyped_storage().data_ptr():
            raise GraphError(
                f"this view of {self.packed_name!r} is of memory that the network has left: it was moved to another "
                "device or dtype, or the parameter was set anew. Ask the network for the view again, and make the "
                "optimizer of it after the network was moved",
                found=self.packed_name,
            )
        return found

    @property
    def label(self) -> str:
        """Name the packed parameter and the rows of it."""
        return f"{self.packed_name}[{self.rows.start}:{self.rows.stop}]"

    @property
    def single(self) -> bool:
        """Say whether it is one weight or bias, in a shape of its own."""
        return bool(self.dim() < self.packed[self.packed_name].dim())

    @property
    def rows(self) -> range:
        """Return the rows of the packed parameter that it shows."""
        return range(*self._rows.indices(len(self.packed[self.packed_name])))

    @property
    def data(self) -> Tensor:
        """Return the numbers, without the view's own gradient; setting them writes them where it lies."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self.owner  # noqa: B018  # of what the network has left nothing can be set
        if not isinstance(value, Tensor) or value.shape != self.shape:
            raise GraphError(
                f"what {self.label!r} is set to is a tensor of shape {tuple(self.shape)} (found {shown(value)})",
                found=self.packed_name,
            )
        self.detach().copy_(value.detach())

    @property
    def requires_grad(self) -> bool:
        """Say whether any of it learns."""
        mask = self.packed.frozen(self.packed_name)
        return mask is None or not bool(mask[self._rows].all())

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> ParameterView:
        """Freeze it, or let it learn again."""
        self.owner  # noqa: B018  # of what the network has left nothing can be frozen
        if require_flag(requires_grad, "requires_grad"):
            self.packed.unfreeze(self.packed_name, self._rows)
        else:
            self.packed.freeze(self.packed_name, self._rows)
        return self

    @property
    def grad(self) -> Tensor | None:
        """Return the view of the packed gradient; None where there is none, or all of it is frozen."""
        packed = self.owner.grad
        if packed is None or not self.requires_grad:
            return None
        return _seen(packed[self._rows], self.shape, self.transposed)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        owner = self.owner
        if value is None:
            if owner.grad is not None and len(self.rows) == len(owner):
                owner.grad = None
            elif owner.grad is not None:
                owner.grad[self._rows].zero_()
            return
        if owner.grad is None:
            owner.grad = torch.zeros_like(owner)
        _seen(owner.grad[self._rows], self.shape, self.transposed).copy_(value)

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    def __deepcopy__(self, memo: dict[int, Any]) -> ParameterView:
        """Return the same view of a copy of what it lies in: of the network's, where that is copied as well."""
        packed = copy.deepcopy(self.packed, memo)
        return packed.view(self.packed_name, self._rows, tuple(self.shape), self.transposed)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be written as numbers alone, without the network."""
        return self.detach().clone().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(self.detach())


def whole(parameter: nn.Parameter | ParameterView) -> nn.Parameter:
    """Return the packed parameter that one is a view of, and any other as it is."""
    return parameter.owner if isinstance(parameter, ParameterView) else parameter


# -- what is frozen in part, an optimizer's step leaves alone ---------------------------------------------------------

_HOLDING: weakref.WeakSet[Packed] = weakref.WeakSet()
_SAVED: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[_Held]] = weakref.WeakKeyDictionary()
_HOOKS: list[Any] = []


class _Held:
    """This holds frozen rows of one parameter, and of what an optimizer keeps of it, as they were before its step."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameter: Tensor, rows: Tensor, decays: bool) -> None:
        self.parameter, self.rows, self.decays = parameter.detach(), rows, decays
        self.state: Callable[[], dict[str, Any]] = lambda: optimizer.state.get(parameter, {})
        self.values = self.parameter.index_select(0, rows)
        self.kept = {key: value.index_select(0, rows) for key, value in self._alike()}

    def _alike(self) -> list[tuple[str, Tensor]]:
        """Return what the optimizer keeps of each entry of the parameter."""
        shape = self.parameter.shape
        return [(k, v) for k, v in self.state().items() if isinstance(v, Tensor) and v.shape == shape]

    def restore(self) -> None:
        self.parameter.index_copy_(0, self.rows, self.values)
        for key, value in self._alike():
            if key in self.kept:
                value.index_copy_(0, self.rows, self.kept[key])
            elif self.decays:  # it was made in this step, without a gradient: of the decay alone
                value.index_fill_(0, self.rows, 0)


@torch.no_grad()
def _before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    _SAVED[optimizer] = [
        _Held(optimizer, parameter, rows, bool(group.get("weight_decay")))
        for packed in _HOLDING
        for parameter, rows, group in packed._held_in(optimizer)
    ]


@torch.no_grad()
def _after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for held in _SAVED.pop(optimizer, []):
        held.restore()


def _hold(packed: Packed) -> None:
    """Let optimizers leave the frozen rows of `packed` alone, from their next step on."""
    if not _HOOKS:
        _HOOKS.append(register_optimizer_step_pre_hook(_before))
        _HOOKS.append(register_optimizer_step_post_hook(_after))
    _HOLDING.add(packed)
