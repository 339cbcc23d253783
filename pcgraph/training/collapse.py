"""A run that falls over is noticed here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ADVICE", "CollapseDetector"]


@dataclass
class CollapseDetector:
    """Notices a run that falls over late.

    Early layers receive errors of the order of the state rate to the power of their distance from the target; Adam
    scales them up to full steps, noise included. Such a run can learn for many epochs and then collapse.

    It has fallen over when the part of wrong answers exceeds ``1.4 * (the lowest so far) + 0.02``, or, without an
    accuracy, when the energy exceeds twice the lowest so far.
    """

    error: float = math.inf
    energy: float = math.inf
    fallen: bool = False

    def see(self, epoch: int, accuracy: float | None, energy: float | None) -> str:
        """Take in one epoch, counted from 1; returns what happened where a run that stood fell over, else nothing.

        `fallen` says whether this epoch is that of a run that has fallen over, told or not.
        """
        said = ""
        if accuracy is not None:
            if 1 - accuracy > 1.4 * self.error + 0.02:
                said = f"the accuracy fell to {accuracy:.2%} in epoch {epoch}, from {1 - self.error:.2%} before"
            self.error = min(self.error, 1 - accuracy)
        elif energy is not None and energy > 2 * self.energy > 0:
            said = f"the energy rose to {energy:.4g} in epoch {epoch}, from {self.energy:.4g} before"
        if energy is not None:
            self.energy = min(self.energy, energy)
        told, self.fallen = self.fallen, bool(said)
        return "" if told else said

    def state_dict(self) -> dict[str, Any]:
        """Give what it has seen as plain data; ``CollapseDetector(**state)`` goes on from there."""
        return asdict(self)


ADVICE = (
    "Runs fall over when the optimizer scales tiny gradients of early layers up to full steps. Use a smaller or a "
    "decaying learning rate (scheduler=), a smaller state rate with a relu-like activation, a larger eps in Adam, or "
    "end before (early_stopping=)."
)
