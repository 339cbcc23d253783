"""The table of (public argument) x (bad kind) -> the error that says so, and of what is taken.

A row names an argument and makes the call with a value in its place; its kind (``kinds``) says which values are bad for
any argument of that kind, and which are good. A room has a module with its rows, which join ``ARGUMENTS`` here.
"""

from tests.bad_calls.checkpoints import CHECKPOINTS
from tests.bad_calls.clamps import CLAMPS
from tests.bad_calls.declared import NODES, PARTS
from tests.bad_calls.estimators import ESTIMATORS
from tests.bad_calls.files import FILES, PICTURES, SETS
from tests.bad_calls.graphs import CHECKING, GRAPHS
from tests.bad_calls.initializers import INITIALIZERS, STATE_OPTIMIZERS
from tests.bad_calls.kinds import Argument
from tests.bad_calls.learning import MOVING, RULES
from tests.bad_calls.pyg import PYG
from tests.bad_calls.running import RUNNING
from tests.bad_calls.training import TRAINING
from tests.bad_calls.tuning import TUNING

__all__ = ["ARGUMENTS", "Argument"]

ARGUMENTS: list[Argument] = [
    *NODES, *PARTS, *GRAPHS, *CHECKING, *RUNNING, *FILES, *SETS, *PICTURES, *MOVING, *RULES, *STATE_OPTIMIZERS, *INITIALIZERS, *CLAMPS, *TRAINING, *TUNING, *PYG, *CHECKPOINTS, *ESTIMATORS,
]  # fmt: skip
