"""Learning turns results into local weight gradients, by one rule or another."""

from pcgraph.inference import InferenceResult
from pcgraph.learning.fitting import Backprop, Incremental, Nudged, Rule, Standard, TrainingStep
from pcgraph.learning.rules import backprop, incremental, nudged

__all__ = [
    "Backprop",
    "Incremental",
    "InferenceResult",
    "Nudged",
    "Rule",
    "Standard",
    "TrainingStep",
    "backprop",
    "incremental",
    "nudged",
]
