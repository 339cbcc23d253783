"""The seam lies between what is computed and how: a backend lowers a plan to a program, which runs it on a batch.

Inference, learning and everything after them know a :class:`Program` and nothing behind it: no buffer, no kernel, no
layout. A run is

    program.start(clamps, context)              initialize (the plan's prologue), and what comes in before step 0
    program.step(t, motion)   for t < T         propagate what moved, compare, pull errors back, move
    program.finish()                            propagate what moved last, and compare

and then ``program.read``, ``program.energy`` and ``program.gradients`` say what came of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from pcgraph.backends.running import Program
from pcgraph.backends.settings import switches
from pcgraph.errors import ConfigError
from pcgraph.network import Network
from pcgraph.plan import Plan

__all__ = ["Backend"]


class Backend(ABC):
    """A backend lowers plans. Write :meth:`lower`.

    A network that names a backend makes an instance of its own, which may keep what several programs share.

    Attributes
    ----------
    name : str
        ``PCNetwork(graph, backend=name)`` asks for it, once it stands in :data:`pcgraph.backends.BACKENDS`.
    """

    name: str = ""
    #: Whether programs know the operations of error coordinates: Measure, Offset and Relay.
    moves_errors: bool = False
    #: Whether programs know precisions that are others in each step: ``plan.precisions(t)``.
    moves_precisions: bool = False
    #: Whether programs know nodes that combine their parents otherwise than by a sum: ``structure.joint``.
    combines: bool = False
    #: Whether programs know the operation of dual variables: Shift. They then define :meth:`Program.hold`.
    moves_duals: bool = False
    #: Whether programs know the operation of several ranks: Exchange. They then define :meth:`Program.add`.
    exchanges: bool = False
    #: Whether ``kernels=`` chooses among several ways to compute a bucket.
    pins_kernels: bool = False

    @abstractmethod
    def lower(self, plan: Plan, network: Network, batch: int) -> Program:
        """Return a program for `plan` that nobody reads from: a new one, or an old one that is no longer taken.

        It is called for every run; see :attr:`Program.taken`.

        Parameters
        ----------
        plan, network, batch
            What the program is of; see :class:`Program`.

        Raises
        ------
        ConfigError
            The plan asks for something that this backend cannot do; the message names the node or edge.
        """

    def check(self, plan: Plan, network: Network) -> None:
        """Refuse a plan before it is lowered. By default every plan is welcome that pins no kernels.

        Raises
        ------
        ConfigError
            The backend cannot compute the plan; the message says why.
        """
        joint = next(iter(plan.structure.joint), None)
        if joint is not None and not self.combines:
            raise ConfigError(
                f"the backend {self.name!r} adds up what comes into a node, and {plan.structure.nodes[joint]!r} has a "
                "combine: use backend='torch'",
                key="backend",
            )
        if plan.measure is not None and not self.moves_errors:
            raise ConfigError(
                f"the backend {self.name!r} moves states alone: leave out coordinates=", key="coordinates"
            )
        if len(plan.scheduled) and not self.moves_precisions:
            raise ConfigError(
                f"the backend {self.name!r} has one precision a node for a whole run: give numbers in precision=",
                key="precision",
            )
        if plan.request.duals is not None and not self.moves_duals:
            raise ConfigError(f"the backend {self.name!r} has no dual variables: leave out duals=", key="duals")
        if plan.request.pins and not self.pins_kernels:
            raise ConfigError(f"the backend {self.name!r} has one way to compute: leave out kernels=", key="kernels")

    def obstacle(self, plan: Plan, network: Network) -> str | None:
        """Say why runs of this plan cannot be recorded as a CUDA graph; return None where they can."""
        return f"the backend {self.name!r} does not say that what it does can be recorded"

    def settings(self, network: Network) -> tuple[object, ...]:
        """Return what torch is set to, as far as programs compute by it: a recording holds for these settings alone."""
        return switches(network.device)

    def describe(self, plan: Plan, network: Network) -> tuple[str, ...]:
        """Return lines for ``plan.explain()``."""
        return (f"backend: {self.name}",)

    def memory(self, plan: Plan, network: Network, batch: int) -> int:
        """Estimate the bytes of a run beside the parameters: for states, sums, predictions, errors and gradients."""
        s = plan.structure
        neurons = sum(group.size * group.count for group in s.groups)
        weights = sum(bucket.rows * bucket.entries(s.groups) for bucket in s.buckets)
        return 4 * (5 * batch * neurons + weights + neurons)
