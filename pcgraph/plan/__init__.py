"""A plan says what is computed, and in which order; what is provably zero or unchanged is not in it."""

from pcgraph.plan.compile import Stage
from pcgraph.plan.flow import NEVER, Flow, arrivals
from pcgraph.plan.operations import Operation
from pcgraph.plan.plan import Lowering, Matmuls, Phase, Plan, make_plan
from pcgraph.plan.request import Precision, Request
from pcgraph.plan.smm import SMM
from pcgraph.plan.verify import verify

__all__ = [
    "NEVER",
    "SMM",
    "Flow",
    "Lowering",
    "Matmuls",
    "Operation",
    "Phase",
    "Plan",
    "Precision",
    "Request",
    "Stage",
    "arrivals",
    "make_plan",
    "verify",
]
