"""The table of (public argument) x (bad kind) -> the error that says so, and of what is taken.

A row names an argument and makes the call with a value in its place; its kind (``kinds``) says which values are bad for
any argument of that kind, and which are good. A room has a module with its rows, which join ``ARGUMENTS`` here.
"""

from tests.bad_calls.checkpoints import CHECKPOINTS
from tests.bad_calls.clamps import CLAMPS
from tests.bad_calls.declared import NODES, PARTS
from tests.bad_calls.initializers import INITIALIZERS, STATE_OPTIMIZERS
from tests.bad_calls.kinds import Argument
from tests.bad_calls.training import TRAINING

__all__ = ["ARGUMENTS", "Argument"]

ARGUMENTS: list[Argument] = [
    *NODES, *PARTS, *STATE_OPTIMIZERS, *INITIALIZERS, *CLAMPS, *TRAINING, *CHECKPOINTS,
]  # fmt: skip
