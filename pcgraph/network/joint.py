"""Edges into a node with a ``combine`` play roles in one joint prediction, and none of them adds anything by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pcgraph.activations import Activation
from pcgraph.arguments import shown
from pcgraph.combines import require_roles
from pcgraph.errors import GraphError, said_by
from pcgraph.network.trial import Trial
from pcgraph.transforms import Identity, Linear, Module, Shape, SparseLinear, Transform

__all__ = ["Joint", "JointPrediction", "joint_edge", "roles_of", "try_joint"]


class Joint(Transform):
    """An edge of this kind brings ``inner(h)`` into the joint prediction of its target, in some roles.

    Attributes
    ----------
    inner : Transform
        What the edge itself does.
    combine : nn.Module
        The target's; the edges of one node have it in common.
    roles : tuple of str
    """

    inner: Transform
    combine: nn.Module

    def __init__(self, inner: Transform, combine: nn.Module, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.inner, self.combine, self.roles = inner, combine, roles

    def fits(self, source_shape: Shape, target_shape: Shape) -> Shape | None:
        self.inner.output_shape(source_shape)  # what comes of all of them is looked at together
        return None

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.inner.output_shape(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]

    def reset_parameters(self, generator: torch.Generator | None = None, fan_in: int | None = None) -> None:
        self.inner.reset_parameters(generator)


class JointPrediction(nn.Module):
    """All edges into one node make its input together, from the states of their sources side by side.

    Parameters
    ----------
    parts : sequence of (Joint, Activation, float)
        What each edge does, the activation before it and the factor after it.
    shapes : sequence of tuple
        Those of the sources.
    """

    def __init__(self, parts: Sequence[tuple[Joint, Activation, float]], shapes: Sequence[Shape] = ()) -> None:
        super().__init__()
        self.edges = nn.ModuleList(joint for joint, _, _ in parts)
        self.before = [(phi, scale) for _, phi, scale in parts]
        self.shapes = tuple(shapes)

    def of(self, states: Sequence[Tensor]) -> Tensor:
        """Return what comes into the node, (batch, *shape), from the state of each edge's source."""
        inputs: dict[str, Tensor] = {}
        for joint, (phi, scale), h in zip(self.edges, self.before, states, strict=True):
            value = joint(phi(h))
            inputs.update(dict.fromkeys(joint.roles, value if scale == 1.0 else scale * value))  # type: ignore[arg-type]
        return self.edges[0].combine(**inputs)  # type: ignore[no-any-return, operator]

    def forward(self, x: Tensor) -> Tensor:
        """Take all states in one tensor, (batch, neurons of all sources)."""
        parts = torch.split(x, [math.prod(shape) for shape in self.shapes], 1)
        return self.of([part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes)])


class _Together(Module):
    """A combine is tried as one module with all that its edges bring."""

    remedy = ""

    def called(self, module: nn.Module) -> str:
        return f"the combine {type(cast(JointPrediction, module).edges[0].combine).__name__}"


def try_joint(node: Any, shape: Shape, prediction: JointPrediction, trial: Trial) -> None:
    """Look at the roles, the shape and the behaviour of what the edges into a node of `shape` make together.

    Raises
    ------
    GraphError
        A role is missing, strange or played twice; or what comes of them does not fit the node, draws or mixes samples.
    """
    joints = cast(list[Joint], list(prediction.edges))
    roles = [role for joint in joints for role in joint.roles]
    neurons = (sum(math.prod(s) for s in prediction.shapes),)
    try:
        for role in roles:
            if roles.count(role) > 1:
                raise GraphError(f"several edges play the role {role!r}: each role is played by one", found=role)
        require_roles(joints[0].combine, tuple(roles))
        whole = _Together(prediction)
        made = _made(prediction, whole, neurons)
    except GraphError as error:
        raise GraphError(f"node {node!r}: {error}", where=node, found=error.found) from error
    if made != shape:
        raise GraphError(
            f"node {node!r} has shape {shape}, and its combine {type(joints[0].combine).__name__} leads to {made}; "
            "change one of them",
            where=node,
            found=made,
        )
    trial.transform(f"node {node!r}", node, whole, neurons, shape)


def _made(prediction: JointPrediction, whole: Module, neurons: Shape) -> Shape:
    """Return the shape that a combine makes; it is named with what each role brings where it does not take that."""
    try:
        return whole.output_shape(neurons)
    except GraphError as error:
        if error.__cause__ is None or isinstance(error.found, nn.Module):  # which is of what it gives, or does to them
            raise
        joints = cast(list[Joint], list(prediction.edges))
        pairs = list(zip(joints, prediction.shapes))
        brought = ", ".join(f"{role} {joint.output_shape(s)}" for joint, s in pairs for role in joint.roles)
        raise GraphError(
            f"its combine {type(joints[0].combine).__name__} does not take what the edges bring ({brought}): "
            f"{said_by(error.__cause__)}",
            found=error.found,
        ) from error


def roles_of(value: Any, text: str, where: Any) -> tuple[str, ...]:
    """Read the ``role`` of an edge: a name, or several.

    Raises
    ------
    GraphError
    """
    roles = (value,) if isinstance(value, str) else value
    good = isinstance(roles, tuple | list) and roles and all(isinstance(r, str) and r.isidentifier() for r in roles)
    if not good or len(set(roles)) < len(roles):
        raise GraphError(
            f"{text} leads to a node with a combine, and needs a role, or several, by which that knows it, as in "
            f"role='key' or role=('key', 'value') (found {shown(value)})",
            where=where,
            found=value,
        )
    return tuple(roles)


def joint_edge(attributes: Mapping[str, Any], inner: Transform, combine: nn.Module, text: str, where: Any) -> Joint:
    """Return what an edge into a node with a combine is, its own transform being `inner`.

    Raises
    ------
    GraphError
        It has no role, or says what an edge that is no sum of weights cannot.
    """
    roles = roles_of(attributes.get("role"), text, where)
    if attributes.get("transform") is None:
        inner = Identity()
    if isinstance(inner, Linear | SparseLinear):
        raise GraphError(
            f"{text} leads to a node with a combine, where weights are not packed: say transform=torch.nn.Linear(n, m, "
            "bias=False), or nothing to hand the state on as it is",
            where=where,
            found=inner,
        )
    if attributes.get("share") is not None or attributes.get("trainable", True) not in (True, None):
        raise GraphError(
            f"{text} leads to a node with a combine, and has neither share= nor trainable=False: give two edges one "
            "module, or freeze it by requires_grad_(False)",
            where=where,
            found=attributes.get("share"),
        )
    return Joint(inner, combine, roles)
