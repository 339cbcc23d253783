"""Inference: a plan run on a batch, and what it leaves behind."""

from pcgraph.inference.capture import Recorder
from pcgraph.inference.planner import Planner, prepare
from pcgraph.inference.result import Inference
from pcgraph.inference.run import Program, Settings, run

__all__ = ["Inference", "Planner", "Program", "Recorder", "Settings", "prepare", "run"]
