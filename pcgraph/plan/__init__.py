"""Plans: what is computed, in which order, and nothing that is provably zero or unchanged."""

from pcgraph.plan.choice import KERNELS
from pcgraph.plan.compile import Request, Stage, pins_of
from pcgraph.plan.plan import Matmuls, Plan, make_plan
from pcgraph.plan.smm import SMM
from pcgraph.plan.verify import verify

__all__ = ["KERNELS", "SMM", "Matmuls", "Plan", "Request", "Stage", "make_plan", "pins_of", "verify"]
