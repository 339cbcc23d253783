"""Make a learning rule of a line of text, ``NAME:option=value,…``, and the plans that a batch takes with it.

>>> make_rule("nudged:strength=0.05,sign=positive")
Nudged(strength=0.05, sign='positive')
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

import torch

from pcgraph.experiments.text import class_named, plain_value
from pcgraph.initializers import Initializer, States
from pcgraph.learning import Backprop, Incremental, Nudged, Rule, Standard
from pcgraph.model import PCNetwork
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Plan, make_plan

__all__ = ["RULES", "frees_target", "infers", "make_rule", "plans"]

RULES: dict[str, Callable[..., Rule]] = {
    "standard": Standard,
    "incremental": Incremental,
    "nudged": Nudged,
    "backprop": Backprop,
}
"""The command line knows rules by these names."""


def make_rule(text: str) -> Rule:
    """Make the learning rule that `text` describes.

    Raises
    ------
    ConfigError
        An unknown name or option, with the nearest one, or a value that the rule refuses.
    """
    name, options = class_named(text, "rule", "rule", RULES, plain_value)
    return RULES[name](**options)


def infers(rule: Rule) -> bool:
    """Say whether it takes initializer, steps and state rate."""
    return bool(getattr(rule, "infers", True))


def frees_target(rule: Rule) -> bool:
    """Say whether inference, or the sweep in its place, runs without a clamp on the target."""
    return isinstance(rule, Nudged | Backprop)


def plans(
    net: PCNetwork, rule: Rule, given: Hashable, target: Hashable, init: Initializer, steps: int,
    optimizer: StateOptimizer,
) -> list[tuple[int, Plan]]:  # fmt: skip
    """List how often a batch runs which plan, the first one first; none without inference."""
    if not infers(rule):
        return []
    clamped = {given} if frees_target(rule) else {given, target}
    if isinstance(rule, Incremental):
        known = States({node: torch.empty(0, device=net.device) for node in net.structure.declared})
        first, later = (
            make_plan(net.structure, replace(plan.request, all_move=True), plan.layout, plan.lowering)
            for plan in (net.plan(clamped, init=start, steps=1, optimizer=optimizer) for start in (init, known))
        )
        return [(1, first), (steps - 1, later)]
    plan = net.plan(clamped, init=init, steps=steps, optimizer=optimizer)
    if isinstance(rule, Nudged):
        request = replace(plan.request, nudged=frozenset({net.structure.require_node(target)}))
        return [(2, make_plan(net.structure, request, plan.layout, plan.lowering))]
    return [(1, plan)]
