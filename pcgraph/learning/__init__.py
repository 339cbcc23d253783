"""Learning: local weight gradients, and the rules made of them."""

from pcgraph.learning.result import InferenceResult
from pcgraph.learning.rules import backprop, incremental, nudged

__all__ = ["InferenceResult", "backprop", "incremental", "nudged"]
