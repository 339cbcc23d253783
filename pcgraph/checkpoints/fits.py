"""A state is refused that no optimizer or scheduler of its kind has: torch's take anything, and fail when they step."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from pcgraph.arguments import is_number, shown

__all__ = ["MALFORMED", "require_fit"]

#: What malformed data makes Python, torch and a user's classes raise.
MALFORMED = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def require_fit(part: Any, state: Any) -> None:
    """Refuse a state that `part` would take, and fail of later.

    Raises
    ------
    ArithmeticError, LookupError, RuntimeError, TypeError, ValueError
    """
    if isinstance(part, LRScheduler):
        own = part.state_dict()
        if own.keys() != state.keys():
            raise ValueError(f"it has other entries: {', '.join(sorted(map(str, own.keys() ^ state.keys())))}")
        for key in own:
            _require_alike(own[key], state[key], key)
            if key in ("base_lrs", "_last_lr") and len(own[key]) != len(state[key]):
                raise ValueError(f"{key} has {len(state[key])} entries for {len(own[key])} groups of parameters")
    elif isinstance(part, torch.optim.Optimizer):
        moved = [group["params"] for group in part.state_dict()["param_groups"]]
        if [group["params"] for group in state["param_groups"]] != moved:
            raise ValueError("it moves other parameters, or as many in other groups")
        if state["state"].keys() - {i for group in moved for i in group}:
            raise ValueError("it has a state of parameters that it does not move")
        for own_group, group in zip(part.param_groups, state["param_groups"]):
            for key in own_group.keys() & group.keys() - {"params", "param_names"}:
                _require_alike(own_group[key], group[key], key)
            if not 0 <= float(group["lr"]) < math.inf:
                raise ValueError(f"lr is a number that is not negative (found {shown(group['lr'])})")
        _try_step(part, state)


def _require_alike(own: Any, saved: Any, where: str) -> None:
    """Refuse a value of another kind than an object's own; what is None may be a flag or a number elsewhere."""
    if isinstance(own, Mapping) and isinstance(saved, Mapping):
        for key in own.keys() & saved.keys():
            _require_alike(own[key], saved[key], f"{where}.{key}")
        alike = all(map(is_number, saved)) or not (own and all(map(is_number, own)))
    elif isinstance(own, list | tuple) and isinstance(saved, list | tuple):
        for one, other in zip(own, saved):
            _require_alike(one, other, where)
        alike = True
    elif own is None or saved is None:
        alike = own is saved or isinstance(own, bool) or (own is None and (isinstance(saved, bool) or is_number(saved)))
    else:
        alike = type(own) is type(saved) or (is_number(own) and is_number(saved))
    if not alike:
        raise TypeError(f"{where} is {shown(own)} here (found {shown(saved)})")


def _try_step(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Load the state into a copy, and let that move its own copies of the parameters: what is malformed shows there."""
    try:
        twin = copy.deepcopy(optimizer)
        _step(twin)
    except MALFORMED:  # it has no copy, or no room for one, or takes no dense gradients: there is no trial
        return
    own = twin.state_dict()["state"]
    for i, saved in state["state"].items():
        for key, value in own.get(i, {}).items():
            kept = saved.get(key)
            if isinstance(value, Tensor) and kept is not None and getattr(kept, "shape", None) != value.shape:
                raise ValueError(f"{key} of parameter {i} has shape {tuple(value.shape)} (found {shown(kept)})")
    twin.load_state_dict(copy.deepcopy(state))  # an optimizer steps in the tensors that it was given
    _step(twin)


def _step(optimizer: torch.optim.Optimizer) -> None:
    """Step with gradients of zero; by the class, since a scheduler binds ``step`` of a copy to the optimizer itself."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    type(optimizer).step(optimizer, closure=_no_loss)


def _no_loss() -> float:
    return 0.0
