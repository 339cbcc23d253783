"""A run looks now and then at the curvature of its energy: it says whether inference descends, and how far it goes.

Descent with the rate a multiplies a deviation along an eigenvector of the Hessian by ``1 - a * eigenvalue`` in every
step. So for the largest eigenvalue, the curvature c, it descends while a c is below 2, and after T steps it has gone

    f = 1 - (1 - a c)^T

of the way: near 0 the errors that weights learn from are those of backpropagation, at 1 inference has arrived.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcgraph.errors import PCGraphError
from pcgraph.learning import Standard
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD, Following
from pcgraph.training.batches import Batch
from pcgraph.training.options import FitOptions
from pcgraph.training.records import StepRecord
from pcgraph.training.step_recording import StepRecording

__all__ = ["PASSED", "Seen", "StabilityMonitor"]

#: Power iterations of a measurement, of two gradients each; from below they come near enough to tell 2 from 1.
ITERATIONS = 10
PASSED = "the state rate passes the stability limit"


class Seen(NamedTuple):
    """Holds one measurement.

    Attributes
    ----------
    curvature : float
        The largest of the batch.
    reach : float or None
        f, how far inference goes along that direction; None where that is beyond all numbers.
    product : float
        Rate times curvature.
    limit : float
        What it has to be below, so that inference descends.
    """

    curvature: float
    reach: float | None
    product: float
    limit: float


class StabilityMonitor:
    """Measures the curvature of the energy every few hundred steps, and says where the rate is too large.

    It looks at runs of the rule Standard whose states move by SGD, in single or double precision; a rate that follows
    the curvature has measured it already.

    Attributes
    ----------
    last : Seen or None
        The last measurement.
    """

    def __init__(self, net: PCNetwork, options: FitOptions, recording: StepRecording) -> None:
        self.net, self.options, self.recording = net, options, recording
        self.last: Seen | None = None
        self._looked: int | None = None
        optimizer = options.state_optimizer
        self._sgd = optimizer if isinstance(optimizer, SGD) else None
        followed = self._sgd is not None and isinstance(self._sgd.lr, Following)
        looks = type(options.rule) is Standard and net.dtype in (torch.float32, torch.float64)
        self._every = options.curvature_every if looks and options.steps and self._sgd and not followed else 0

    def look(self, batch: Batch, step: int, records: Sequence[StepRecord]) -> Seen | None:
        """Measure, if it is time, where the inference of this batch begins.

        Parameters
        ----------
        batch : Batch
        step : int
            Steps that are done.
        records : sequence of StepRecord
            Those of the run so far, which tell of the last time.
        """
        if not self._every or torch.is_autocast_enabled(self.net.device.type):
            return None
        if self._looked is None:
            self._looked = max((r.step - 1 for r in records if r.curvature is not None), default=None)
        if self._looked is not None and step - self._looked < self._every:
            return None
        self._looked = step
        try:
            found = self.recording.beside("curvature", partial(self._curvature, check=False), batch)
            if found is None:
                with self.net.computing(batch.part):
                    found = self._curvature(batch.clamps, batch.labels)
        except (PCGraphError, torch.OutOfMemoryError):  # what is wrong the step itself will say
            if batch.part is not None:
                raise
            self._every = 0
            return None
        return self._seen(float(found if batch.part is None else batch.part.largest(found)))

    def _curvature(self, clamps: Mapping[Hashable, Any], labels: Tensor | None, check: bool = True) -> Tensor:
        o = self.options
        return self.net.curvature(
            clamps, init=o.init, labels=labels, iterations=ITERATIONS, coordinates=o.descent.coordinates,  # type: ignore[arg-type]
            precision=o.descent.precision, check=check,
        ).max()  # fmt: skip

    def after(self) -> Seen | None:
        """Read what a rate that follows the curvature has measured."""
        rate = self._sgd.lr if self._sgd is not None else None
        if not isinstance(rate, Following) or rate.curvature is None:
            return None
        return self._seen(rate.curvature)

    def _seen(self, curvature: float) -> Seen | None:
        if not math.isfinite(curvature) or curvature <= 0:
            return None
        sgd = self._sgd
        assert sgd is not None
        rate = max(sgd.lr.values()) if isinstance(sgd.lr, dict) else sgd.rate(None)
        product, steps = rate * curvature, self.options.steps or 0
        ahead = 1 + 2 * sgd.momentum if sgd.nesterov else 1.0
        try:
            reach: float | None = 1 - (1 - product) ** steps
        except OverflowError:
            reach = None
        self.last = Seen(curvature, reach, product, 2 * (1 + sgd.momentum) / ahead)
        return self.last

    @property
    def too_fast(self) -> str:
        """Say what is wrong with the rate by the last measurement; nothing where it is below its limit."""
        seen = self.last
        if seen is None or seen.product <= seen.limit:
            return ""
        sgd = self._sgd
        assert sgd is not None
        rate = max(sgd.lr.values()) if isinstance(sgd.lr, dict) else sgd.rate(None)
        return (
            f"rate × curvature is {seen.product:.3g} (curvature {seen.curvature:.3g}), and inference descends below "
            f"{seen.limit:.3g}: it swings instead, and runs that do fall over. SGD(lr=pcgraph.Following({rate:g})) "
            "holds the rate below what the curvature allows"
        )

    def said(self, step: int) -> list[str]:
        """Say that the rate is too large."""
        return [f"{PASSED} in training step {step}: {self.too_fast}"] if self.too_fast else []
