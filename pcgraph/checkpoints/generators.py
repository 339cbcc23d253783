"""The global random generators."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["generators_state", "set_generators"]


def generators_state(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state of the global random generators of torch (CPU and, for such a `device`, CUDA), NumPy and Python."""
    legacy: Any = np.random.get_state(legacy=False)
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": {**legacy, "state": {"key": legacy["state"]["key"].tolist(), "pos": int(legacy["state"]["pos"])}},
    }
    if torch.device(device).type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_generators(state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
    """Put the global random generators where :func:`generators_state` found them."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    legacy = state["numpy"]
    np.random.set_state(
        {**legacy, "state": {**legacy["state"], "key": np.array(legacy["state"]["key"], dtype=np.uint32)}}
    )
    if torch.device(device).type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
