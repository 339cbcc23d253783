"""Learning turns results into local weight gradients, by one rule or another."""

from pcgraph.inference import InferenceResult
from pcgraph.learning.backward import fixed_predictions, forward_update, zero_divergence
from pcgraph.learning.fitting import (
    ZIL,
    Backprop,
    FixedPredictions,
    ForwardUpdate,
    Incremental,
    Nudged,
    Rule,
    Standard,
    TrainingStep,
)
from pcgraph.learning.rules import backprop, incremental, nudged

__all__ = [
    "ZIL",
    "Backprop",
    "FixedPredictions",
    "ForwardUpdate",
    "Incremental",
    "InferenceResult",
    "Nudged",
    "Rule",
    "Standard",
    "TrainingStep",
    "backprop",
    "fixed_predictions",
    "forward_update",
    "incremental",
    "nudged",
    "zero_divergence",
]
