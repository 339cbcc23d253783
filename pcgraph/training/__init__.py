"""Networks are trained and measured by fit and evaluate; this room holds both, and what they tell.

:func:`fit` reads its arguments (``options``) and runs the loop (``loop``), whose step is in ``learner``. No module
leans on a later one: records, early_stopping, collapse, interrupts, loader_position, batches, metrics, evaluation,
gradients, fit_arguments, updates, options, logs, step_recording, stability, state, telling, ranks, learner,
checkpointing, loop, train.
"""

from pcgraph.backends import FusedAdamW
from pcgraph.training.collapse import CollapseDetector
from pcgraph.training.early_stopping import EarlyStopping
from pcgraph.training.evaluation import Evaluation, evaluate
from pcgraph.training.records import EpochRecord, History, StepRecord
from pcgraph.training.train import fit

__all__ = [
    "CollapseDetector", "EarlyStopping", "EpochRecord", "Evaluation", "FusedAdamW", "History", "StepRecord",
    "evaluate", "fit",
]  # fmt: skip
