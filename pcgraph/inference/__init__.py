"""Inference runs a plan on a batch, and leaves a result behind."""

from pcgraph.inference.capture import Recorder
from pcgraph.inference.options import Options
from pcgraph.inference.planner import Planner
from pcgraph.inference.precision import read_precision
from pcgraph.inference.request import read_duals, read_request, require_optimizer
from pcgraph.inference.result import InferenceResult
from pcgraph.inference.run import hold, run
from pcgraph.inference.watching import InferenceStep, Trace, read_callback, read_trace

__all__ = [
    "InferenceResult",
    "InferenceStep",
    "Options",
    "Planner",
    "Recorder",
    "Trace",
    "hold",
    "read_callback",
    "read_duals",
    "read_precision",
    "read_request",
    "read_trace",
    "require_optimizer",
    "run",
]
