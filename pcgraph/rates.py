"""A state rate is found that is safe where inference begins."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from pcgraph.arguments import require_count, require_instance, require_number, require_seed
from pcgraph.clamps import Clamps, Masked
from pcgraph.errors import ConfigError
from pcgraph.inference import InferenceResult
from pcgraph.initializers import Initializer, require_initializer
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD

__all__ = ["safe_rate"]

Node = Hashable


def safe_rate(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], *, init: Initializer, labels: Tensor | None = None,
    iterations: int = 50, margin: float = 0.9, seed: int = 0, ahead: int = 10,
) -> float:  # fmt: skip
    """Find a rate for plain SGD on the states: `margin` times 2 / lambda, lambda the largest curvature at the start.

    Gradient descent on a quadratic energy converges for every rate below ``2 / lambda``. lambda is the largest
    eigenvalue of the Hessian for the free states, found by power iteration, where a Hessian-vector product is a
    central difference of two gradients. On a linear network the energy is quadratic and the bound exact, for all
    states; elsewhere it is a local one, and the curvature may be larger a step away (behind the kink of a relu, say).
    So the rate is tried: it is halved until no sample's energy rises in the first `ahead` steps. For a network in half
    precision, in which such differences are rounding, all this is done on a copy in float32.

    Parameters
    ----------
    net : PCNetwork
    clamps : mapping
        A typical batch; samples do not couple, and lambda is the largest over the batch.
    init : Initializer
        Where the states start.
    labels : Tensor, optional
    iterations : int
        How many steps the power iteration takes, each with two gradients.
    margin : float
        Between 0 and 1.
    seed : int
        The seed of the first direction.
    ahead : int
        How many inference steps are tried; 0 leaves the local bound as it is.

    Returns
    -------
    float
        ``inf`` where no free state feels any force.

    Examples
    --------
    >>> import torch, pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.chain([3, 4, 2]))
    >>> clamps = {"x": torch.zeros(5, 3), "y": torch.zeros(5, 2)}
    >>> 0 < safe_rate(net, clamps, init=pcgraph.Forward()) < 2
    True
    """
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
    iterations, ahead = require_count(iterations, "iterations", least=1), require_count(ahead, "ahead")
    margin, seed = require_number(margin, "margin", above=0, most=1), require_seed(seed)
    if net.dtype in (torch.float16, torch.bfloat16):
        net, clamps, init = _in_single(net, clamps, init)
    curvature = net.curvature(clamps, init=init, labels=labels, iterations=iterations, seed=seed)
    largest = float(curvature.max())
    if largest != largest:
        raise ConfigError("the energy has no finite curvature at these states: smaller weights or states are needed")
    if largest <= 0:
        return float("inf")
    rate = margin * 2 / largest
    while ahead and _rises(net.infer(clamps, init=init, steps=ahead, optimizer=SGD(rate), labels=labels, **LOOK)):
        rate /= 2
    return rate


def _in_single(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked], init: Initializer
) -> tuple[PCNetwork, dict[Node, Tensor | Masked], Initializer]:
    """Return copies in float32 of what fits together as it is."""
    Clamps.check(net, clamps)
    require_initializer(init)

    def single(value: Any) -> Any:
        if isinstance(value, Masked):
            return Masked(single(value.values), value.mask)
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    net, init = copy.deepcopy((net, init))
    return net.float(), {node: single(value) for node, value in clamps.items()}, init.float()


#: How the first steps are looked at.
LOOK: dict[str, Any] = {"trace": True, "check": False}
#: Rises of the energy below this part of it are rounding.
ROUNDING = {torch.float64: 1e-9}


def _rises(result: InferenceResult) -> bool:
    """Tell whether the energy of some sample rises in some step, or leaves the range of numbers."""
    trace = result.trace
    assert trace is not None
    allowed = ROUNDING.get(trace.dtype, 1e-4) * trace[0].abs()
    return not bool((trace[1:] <= trace[:-1] + allowed).all())
