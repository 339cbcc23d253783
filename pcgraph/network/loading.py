"""A state is loaded into all of a module, or into none of it: torch's own ``load_state_dict`` stops halfway."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LoadedWhole", "kept"]


class LoadedWhole(nn.Module):
    """A module of this kind is as it was wherever ``load_state_dict`` raises an error.

    Examples
    --------
    >>> class Two(LoadedWhole):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> module = Two()
    >>> before, state = module.one.weight.clone(), {**Two().state_dict(), "two.bias": torch.ones(5)}
    >>> try:
    ...     module.load_state_dict(state)
    ... except RuntimeError:
    ...     print(torch.equal(module.one.weight, before))
    True
    """

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state as ``torch.nn.Module`` does, all of it or nothing."""
        put_back = None if self._takes(state_dict) else kept(self)
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except BaseException:
            if put_back is not None:
                put_back()
            raise

    def _takes(self, state: Any) -> bool:
        """Say whether a state can be seen to fit, so that nothing has to be kept for the case that it does not."""
        own = self.state_dict()
        return isinstance(state, Mapping) and own.keys() == state.keys() and all(
            isinstance(tensor, Tensor) and isinstance(state[name], Tensor) and tensor.shape == state[name].shape
            and not name.endswith("_extra_state")  # which a module reads as it likes
            for name, tensor in own.items()
        )  # fmt: skip


def kept(module: nn.Module) -> Callable[[], None]:
    """Keep the attributes of all modules in one, and the values of all its tensors; what is returned puts them back."""
    parts = [(part, {k: copy.copy(v) if isinstance(v, dict) else v for k, v in vars(part).items()})
             for part in module.modules()]  # fmt: skip
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*module.parameters(), *module.buffers())]

    def put_back() -> None:
        for part, attributes in parts:
            vars(part).clear()
            vars(part).update(attributes)
        with torch.no_grad():
            for tensor, value in tensors:
                tensor.copy_(value)

    return put_back
