"""A run that falls over is noticed here, and one whose energy falls while it learns nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pcgraph.training.records import EpochRecord

__all__ = ["ADVICE", "AT_CHANCE", "CollapseDetector", "at_chance"]


@dataclass
class CollapseDetector:
    """Notices a run that falls over late.

    Early layers receive errors of the order of the state rate to the power of their distance from the target; Adam
    scales them up to full steps, noise included. Such a run can learn for many epochs and then collapse.

    It has fallen over when the part of wrong answers p exceeds ``1.4 * (the lowest so far) + 0.02``, by more than what
    chance does to n samples, ``3 * sqrt(p * (1 - p) / n)``; or, without an accuracy, when the energy exceeds twice the
    lowest so far.
    """

    error: float = math.inf
    energy: float = math.inf
    fallen: bool = False

    def see(self, epoch: int, accuracy: float | None, energy: float | None, samples: int | None = None) -> str:
        """Take in one epoch, counted from 1; returns what happened where a run that stood fell over, else nothing.

        `samples` is the number of those that the accuracy is of, where it is known. The attribute `fallen` says whether
        this epoch is that of a run that has fallen over, told or not.
        """
        said = ""
        if accuracy is not None:
            chance = 3 * math.sqrt(max(accuracy * (1 - accuracy), 0.0) / samples) if samples else 0.0
            if 1 - accuracy > 1.4 * self.error + 0.02 + chance:
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


AT_CHANCE = "the energy falls, and validation stays at chance"
ENOUGH = 2, 100  # epochs and steps before anything is said
FALLEN = 0.8  # of the energy of the first epoch
NEAR = 0.07  # above one class in so many


def at_chance(epochs: Sequence[EpochRecord], classes: int, leaks: Callable[[], list[str]]) -> list[str]:
    """Say where all epochs so far lowered the energy, and none of them is better than guessing.

    Parameters
    ----------
    epochs : sequence of EpochRecord
        Validation's accuracy counts.
    classes : int
        How many the target has; 0 where it has none.
    leaks : callable
        Tells where the target helps to predict itself; asked where there is something to say.
    """
    accuracies = [record.validation.get("accuracy") for record in epochs]
    energies = [record.energy for record in epochs]
    known = [a for a in accuracies if a is not None]
    first, last = (energies[0], energies[-1]) if energies else (None, None)
    if classes < 2 or len(epochs) < ENOUGH[0] or epochs[-1].step < ENOUGH[1] or len(known) < len(epochs):
        return []
    if first is None or last is None:
        return []
    chance = 1 / classes
    if max(known) > chance + NEAR or not last < FALLEN * first:
        return []
    found = leaks()
    why = (
        f"{'; '.join(found[:3])}: the target helps to predict itself while it is clamped, and no longer does where it "
        "is free. Put its feedback into a slot of its own, or learn with rule=Nudged(); see pcgraph.check"
        if found
        else "what is asked in validation may not be what is trained (another initializer, too few steps), or nothing "
        "that learns carries the input to the target; see pcgraph.check and pcgraph.advise"
    )
    return [
        f"{AT_CHANCE}: in {len(epochs)} epochs the energy went from {first:.4g} to {last:.4g}, and no accuracy was "
        f"above {max(known):.2%}, where guessing gives {chance:.2%}. {why}"
    ]
