"""A plan says what is computed, and in which order; what is provably zero or unchanged is not in it."""

from pcgraph.plan.compile import Stage
from pcgraph.plan.flow import NEVER, Flow, arrivals
from pcgraph.plan.local import local_plan
from pcgraph.plan.operations import Exchange, Operation
from pcgraph.plan.partition import partition
from pcgraph.plan.plan import Lowering, Matmuls, Phase, Plan, make_plan
from pcgraph.plan.ranks import Machine, Ranks
from pcgraph.plan.request import Precision, Request
from pcgraph.plan.smm import SMM
from pcgraph.plan.verify import verify

__all__ = [
    "NEVER",
    "SMM",
    "Exchange",
    "Flow",
    "Lowering",
    "Machine",
    "Matmuls",
    "Operation",
    "Phase",
    "Plan",
    "Precision",
    "Ranks",
    "Request",
    "Stage",
    "arrivals",
    "local_plan",
    "make_plan",
    "partition",
    "verify",
]
