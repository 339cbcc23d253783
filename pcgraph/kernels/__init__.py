"""How the operations of a plan are computed. The plan says which kernel; nothing is decided here at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pcgraph.kernels import edges, nodes, others, sparse
from pcgraph.kernels.edges import Learn
from pcgraph.kernels.workspace import Step, Workspace, take
from pcgraph.plan.operations import Activate, Errors, Fill, Forward, Pull, Restore, Save, ZeroGradient

__all__ = ["Learn", "Step", "Workspace", "bind", "bind_weights", "take"]

_FORWARD: dict[str, Callable[[Workspace, Forward], Step]] = {
    "dense": edges.dense_forward,
    "batched": edges.batched_forward,
    "sparse": sparse.scalar_forward,
    "entries": sparse.entries_forward,
    "identity": others.identity_forward,
    "module": others.module_forward,
}
_PULL: dict[str, Callable[[Workspace, Pull], Step]] = {
    "dense": edges.dense_pull,
    "batched": edges.batched_pull,
    "sparse": sparse.scalar_pull,
    "entries": sparse.entries_pull,
    "identity": others.identity_pull,
    "module": others.module_pull,
}
_WEIGHTS: dict[str, Callable[[Workspace, Pull], Learn]] = {
    "dense": edges.dense_weights,
    "batched": edges.batched_weights,
    "sparse": sparse.scalar_weights,
    "entries": sparse.entries_weights,
}
_NODES: dict[type, Callable[[Workspace, Any], Step]] = {
    Fill: nodes.fill,
    Save: nodes.save,
    Restore: nodes.restore,
    Activate: nodes.activate,
    Errors: nodes.errors,
    ZeroGradient: nodes.zero_gradient,
}


def bind(ws: Workspace, operations: Iterable[Any]) -> list[Step]:
    """Operations as functions of no arguments on the workspace's buffers."""
    steps: list[Step] = []
    for op in operations:
        if isinstance(op, Forward):
            steps.append(_FORWARD[op.kernel](ws, op))
        elif isinstance(op, Pull):
            steps.append(_PULL[op.kernel](ws, op))
        else:
            steps.append(_NODES[type(op)](ws, op))
    return steps


def bind_weights(ws: Workspace, call: Pull) -> Learn:
    """The weight gradient of one operation on packed weights."""
    return _WEIGHTS[call.kernel](ws, call)
