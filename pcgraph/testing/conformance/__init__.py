"""Does your own class keep what it promises? Three lines in your tests answer.

>>> from pcgraph.testing import conformance
>>> from pcgraph.energies import Laplace
>>> conformance.check_energy(Laplace(), shape=3)

Each check runs in float64 on drawn values, compares derivatives with finite differences, and ends by running the class
in a small network against :mod:`pcgraph.testing.reference`. The first broken promise is raised as
:class:`pcgraph.errors.BrokenPromise`, an ``AssertionError`` that says what was promised, what was found and what to do.
A check that returns has found nothing wrong on the values that it drew; `seed` draws others.
"""

from pcgraph.testing.conformance.backend import check_backend
from pcgraph.testing.conformance.energy import check_energy
from pcgraph.testing.conformance.initializer import check_initializer
from pcgraph.testing.conformance.optimizer import check_state_optimizer
from pcgraph.testing.conformance.transform import check_transform

__all__ = ["check_backend", "check_energy", "check_initializer", "check_state_optimizer", "check_transform"]
