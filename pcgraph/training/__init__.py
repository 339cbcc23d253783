"""Training and measuring: fit, evaluate, and what they tell."""

from pcgraph.training.measure import Evaluation, evaluate
from pcgraph.training.records import EpochRecord, History, StepRecord
from pcgraph.training.train import fit
from pcgraph.training.watch import EarlyStopping, Watch

__all__ = ["EarlyStopping", "EpochRecord", "Evaluation", "History", "StepRecord", "Watch", "evaluate", "fit"]
