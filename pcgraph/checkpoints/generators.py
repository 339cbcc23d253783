"""The global random generators are read and set here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["check_generators", "generators_state", "set_generators"]


def generators_state(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Give the state of the global random generators of torch (for a CUDA `device` its own too), NumPy and Python."""
    legacy: Any = np.random.get_state(legacy=False)
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": {**legacy, "state": {"key": legacy["state"]["key"].tolist(), "pos": int(legacy["state"]["pos"])}},
    }
    if torch.device(device).type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def check_generators(state: Any) -> None:
    """Try a state on generators of no use, so that setting the global ones cannot fail halfway.

    Raises
    ------
    ValueError, TypeError, KeyError, RuntimeError
        It is no such state.
    """
    torch.Generator().set_state(state["torch"])
    random.Random().setstate(state["python"])
    np.random.RandomState().set_state(_legacy(state["numpy"]))
    if "cuda" in state and not (isinstance(state["cuda"], torch.Tensor) and state["cuda"].dtype == torch.uint8):
        raise TypeError("the state of a CUDA generator is a tensor of bytes")


def _legacy(state: Mapping[str, Any]) -> dict[str, Any]:
    return {**state, "state": {**state["state"], "key": np.array(state["state"]["key"], dtype=np.uint32)}}


def set_generators(state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
    """Put the global random generators where :func:`generators_state` found them.

    Raises
    ------
    ValueError, TypeError, KeyError, RuntimeError
        It is no such state; none of them has moved then.
    """
    check_generators(state)
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(_legacy(state["numpy"]))
    if torch.device(device).type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
