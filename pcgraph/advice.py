"""Which initializer, coordinates, solver and rate suit a graph is said here, with reasons.

The rules are few, and each rests on runs: the page :doc:`/advice` has them in tables. What they lean on is the report
of :func:`pcgraph.check` for what is known in training and in use, and the curvature of the energy on a batch.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcgraph import notebook
from pcgraph.arguments import require_instance
from pcgraph.clamps import Masked
from pcgraph.coordinates import Errors
from pcgraph.energies import Gaussian
from pcgraph.errors import ClampError
from pcgraph.initializers import Equilibrium, Forward, Initializer, Zero
from pcgraph.learning import Nudged, Rule, Standard
from pcgraph.model import PCNetwork
from pcgraph.optimizers import SGD, Following, StateOptimizer
from pcgraph.solvers import LBFGS, Solver
from pcgraph.topology import Report, check_phase
from pcgraph.topology.witness import told

__all__ = ["Advice", "Choice", "advise"]

Node = Hashable

#: The rate of the states while the curvature allows it.
RATE = 0.05
#: Inference steps: in error coordinates, which one step carries through the whole depth; and at least, for states.
STEPS_OF_ERRORS, STEPS_OF_STATES = 5, 10
#: The most steps of an inference that is to come to rest, and the gradient at which a sample does.
STEPS_TO_REST, REST = 200, 1e-3
#: The most steps in which each cycle of the free phase settles before every batch.
STEPS_TO_SETTLE = 30
#: The precision of feedback in use, where it is to fill in what is not known.
ASKED = 0.1
#: Where a target pulls: how much, and what brings both phases near to rest. It is asked by the same inference.
STRENGTH, PULLED_RATE, MOMENTUM, STEPS_OF_PHASES = 0.1, 0.1, 0.8, 60
WIDTH = 100


class Choice(NamedTuple):
    """Says what was chosen, and why."""

    what: str
    value: str
    reason: str


@dataclass(frozen=True)
class Advice:
    """Holds a choice for one network and what is known of it; print it for the reasons.

    Attributes
    ----------
    init : Initializer
    steps : int
    optimizer : StateOptimizer or Solver
    coordinates : Errors or None
    rule : Rule
    predict : dict
        Keywords for :meth:`pcgraph.PCNetwork.predict` and :func:`pcgraph.evaluate`; empty where a sweep answers.
    choices : tuple of Choice
    warnings : tuple of str
        Those of :func:`pcgraph.check` for what is known in training.
    """

    init: Initializer
    steps: int
    optimizer: StateOptimizer | Solver
    coordinates: Errors | None
    rule: Rule
    predict: Mapping[str, Any]
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def infer(self) -> dict[str, Any]:
        """Return keywords for :meth:`pcgraph.PCNetwork.infer`."""
        return {"init": self.init, "steps": self.steps, "optimizer": self.optimizer, "coordinates": self.coordinates}

    @property
    def fit(self) -> dict[str, Any]:
        """Return keywords for :func:`pcgraph.fit`."""
        how = {key: value for key, value in self.infer.items() if key != "optimizer"}
        return {**how, "state_optimizer": self.optimizer, "rule": self.rule}

    def __str__(self) -> str:
        wide = max(len(choice.what) for choice in self.choices)
        lines = []
        for choice in self.choices:
            lines.append(f"{choice.what:{wide}}  {choice.value}")
            margin = " " * (wide + 4)
            lines += textwrap.wrap(choice.reason, WIDTH, initial_indent=margin, subsequent_indent=margin)
        lines += [line for text in self.warnings for line in textwrap.wrap(f"warning: {text}", WIDTH)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Advice: {', '.join(f'{choice.what} {choice.value}' for choice in self.choices)}>"

    def _repr_html_(self) -> str:
        title = "advice" + "".join(f"; warning: {text}" for text in self.warnings)
        return notebook.table(title, ("", "choice", "why"), self.choices)


def advise(
    net: PCNetwork, clamps: Mapping[Node, Tensor | Masked] | Collection[Node], *, predict: Node | None = None
) -> Advice:
    """Choose initializer, coordinates, solver, rate and rule for a network and what is known of it in training.

    Parameters
    ----------
    net : PCNetwork
    clamps : mapping or collection of nodes
        A typical batch, node -> Tensor or :class:`pcgraph.Masked`; on one of tensors the curvature is measured. Or the
        clamped nodes alone.
    predict : node, optional
        The target, which is free in use; by default the last clamped node that others predict.

    Returns
    -------
    Advice
        ``pcgraph.fit(net, loader, **advice.fit, optimizer=...)`` takes it.

    Raises
    ------
    ClampError
        There is no such node, or the target is not clamped.

    Examples
    --------
    >>> import pcgraph
    >>> net = pcgraph.PCNetwork(pcgraph.graphs.cortex([6, 5, 4, 3]))
    >>> advice = advise(net, {"image", "class"})
    >>> advice
    <Advice: initializer Forward(), coordinates Errors(), solver SGD(lr=Following(at_most=0.05, cap=1.2)), ...>
    >>> sorted(advice.fit)
    ['coordinates', 'init', 'rule', 'state_optimizer', 'steps']
    """
    require_instance(net, "net", PCNetwork, "pcgraph.PCNetwork(graph)")
    report = check_phase(net.graph, clamps, repair=False)
    target = _target(net, clamps, predict, report)
    leaks = [leak for leak in report.leaks if leak.nodes[0] == target]
    rule, ruled = _rule(leaks, _feedback(report, target))
    pulled = isinstance(rule, Nudged)
    init, why_init = _initializer(report, target, pulled)
    coordinates, why_coordinates = _coordinates(report, pulled)
    rate, steps, why_steps = _pace(report, coordinates, pulled)
    optimizer = _phases() if pulled else SGD(lr=Following(rate))
    measured = _measured(net, clamps, init, coordinates, rate, steps)
    predict_how, asked = _ask(net, report, target, steps if pulled else None)
    choices = (
        Choice("initializer", _shown(init), why_init),
        Choice("coordinates", repr(coordinates) if coordinates else "states", why_coordinates),
        Choice("solver", repr(optimizer), f"{rate:g} while the curvature lets it, which grows in training; {measured}"),
        Choice("steps", str(steps), why_steps),
        *ruled,
        asked,
    )
    return Advice(init, steps, optimizer, coordinates, rule, predict_how, choices, report.warnings)


def _target(net: PCNetwork, clamps: Any, predict: Node | None, report: Report) -> Node | None:
    if predict is not None:
        net.structure.require_node(predict, ClampError)
        if predict not in report.clamped:
            raise ClampError(f"the target {predict!r} is not among the clamps: in training it is known", node=predict)
        return predict
    order = [v for v in clamps if v in report.clamped] if not isinstance(clamps, set | frozenset) else list(net.graph)
    entered = {v for _, v in report.main_edges}
    found = [v for v in order if v in report.clamped and v in entered and v not in report.partial]
    return found[-1] if found else None


def _feedback(report: Report, target: Node | None) -> tuple[Node, ...]:
    """Find free nodes that predict each other in sums, and of which some are further than an edge from the target."""
    near = {u for u, v in report.main_edges if v == target}
    loops = [part for part in report.components if len(part) > 1 and not part <= near]
    return tuple(sorted(loops[0], key=str)) if loops and target is not None else ()


def _rule(leaks: list[Any], loop: tuple[Node, ...]) -> tuple[Rule, tuple[Choice, ...]]:
    if not leaks and not loop:
        return Standard(), ()
    reason = (
        f"{told(*loop)} predict each other: with the target fixed they come to agree with it and with each other, and "
        "little error is left for what leads to them, so it pulls. Better, if the graph may change: put what comes "
        "back into slots (slot= on these edges)"
    )
    reason = (
        reason
        if not leaks
        else (
            f"{leaks[0]}: a clamped target would help to predict itself, so it pulls and is not fixed. Better, if the "
            "graph may change: put what comes from the target into slots (slot= on these edges)"
        )
    )
    return Nudged(strength=STRENGTH), (Choice("rule", repr(Nudged(strength=STRENGTH)), reason),)


def _initializer(report: Report, target: Node | None, free_target: bool) -> tuple[Initializer, str]:
    if report.verdict(Forward()).valid and not free_target:
        return Forward(), f"main predictions have an order ({_brief(report)}): inference starts at them, without error"
    rooted = Forward(roots=Zero())
    if report.verdict(rooted).valid and not free_target:
        roots = told(*report.free_roots) or "what is free of a partial clamp"
        return rooted, f"{roots} has no known value and begins at zero; the rest is swept"
    where = "what no sweep reaches"
    if report.cycle:
        where = f"the cycle {' → '.join(map(str, [*report.cycle, report.cycle[0]]))}"
    if target is None or free_target or report.cycle is None:
        return Forward(fallback=Zero()), f"{where} begins at zero, the rest is swept"
    return Equilibrium(release=(target,), steps=STEPS_TO_SETTLE), (
        f"{where} cannot be swept: it begins where it comes to rest with {target!r} free, which is where it is asked"
    )


def _brief(report: Report) -> str:
    order = [str(v) for v in report.order or ()]
    return ", ".join(order if len(order) < 7 else [*order[:3], "…", order[-1]]) or "nothing is free"


def _coordinates(report: Report, nudged: bool) -> tuple[Errors | None, str]:
    if nudged:
        return None, "Nudged moves states"
    keep = report.partial & frozenset(report.free)
    if not report.error_coordinates(keep).valid:
        return None, "errors can be moved where main predictions have no cycle; by states an error moves an edge a step"
    if not set(report.free) - report.partial - set(report.free_roots):
        return None, "no free node is predicted"
    deep = max((d for v, d in report.depth.items() if v not in report.clamped and d != float("inf")), default=0)
    what = f"; the states of {told(*sorted(map(str, keep)))}, which are known in part, are kept" if keep else ""
    return Errors(keep=keep), f"a step carries an error through all {int(deep)} free layers, not over one edge{what}"


def _phases() -> SGD:
    """Make what moves the states where a target pulls, in training and in use."""
    return SGD(lr=Following(PULLED_RATE), momentum=MOMENTUM)


def _pace(report: Report, coordinates: Errors | None, nudged: bool) -> tuple[float, int, str]:
    """Choose the rate of the states while the curvature allows it, and how many steps: what the runs were made by."""
    if coordinates is not None:
        return RATE, STEPS_OF_ERRORS, "few are needed, since each goes through the whole depth"
    finite = [int(d) for d in report.depth.values() if d != float("inf")]
    deep = max(finite, default=0) if report.cycle is None else len(report.free)
    if nudged:
        reason = "both phases are to come near to rest: with a third of the steps, or no momentum, much less is learned"
        return PULLED_RATE, max(STEPS_OF_PHASES, 2 * deep), reason
    return (
        RATE,
        max(STEPS_OF_STATES, 2 * deep) if report.cycle is None else STEPS_OF_STATES,
        (
            "an error that begins at the target is to reach the first layers and come back"
            if report.cycle is None
            else "inference begins at rest, and is to leave it by a little"
        ),
    )


def _measured(
    net: PCNetwork, clamps: Any, init: Initializer, coordinates: Errors | None, rate: float, steps: int
) -> str:  # fmt: skip
    """Say what the curvature is on a batch, where there is one."""
    batch = isinstance(clamps, Mapping) and all(isinstance(c, Tensor | Masked) for c in clamps.values())
    if not batch or net.dtype not in (torch.float32, torch.float64):
        return "give a batch of tensors to have it measured"
    curvature = float(net.curvature(clamps, init=init, coordinates=coordinates, iterations=20).max())
    if not 0 < curvature < float("inf"):
        return f"no force at the start (curvature {curvature:g})"
    rate = min(rate, 1.2 / curvature)
    reach = 1 - (1 - rate * curvature) ** steps
    return (
        f"on this batch it is {curvature:.3g}, the rate {rate:.3g}, and inference goes {reach:.0%} of its stiffest way"
    )


def _ask(net: PCNetwork, report: Report, target: Node | None, phase: int | None) -> tuple[dict[str, Any], Choice]:
    """Choose how the network is asked once the target is free; `phase` is the number of steps of a phase, if any."""
    if target is None:
        return {}, Choice("to ask", "infer", "nothing that is clamped is predicted, so that nothing is asked for")
    given = {v: "some" for v in report.clamped if v != target}
    free = check_phase(net.graph, set(given), repair=False) if given else None
    partial = report.partial - {target}
    if free is not None and not partial and free.sweep(among=free.ancestors(target)).complete:
        return {}, Choice("to ask", f"net.predict(given, {target!r})", "a sweep gives it, exactly")
    init: Initializer = Forward(roots=Zero()) if free is not None and free.cycle is None else Forward(fallback=Zero())
    if phase is not None:
        optimizer = _phases()
        reason = "the inference of its phases, by as many steps: where it comes to rest it need not answer well"
        shown = f"init={_shown(init)}, optimizer={optimizer!r}, steps={phase}"
        return {"init": init, "optimizer": optimizer, "steps": phase}, Choice("to ask", shown, reason)
    how: dict[str, Any] = {"init": init, "optimizer": LBFGS(), "steps": STEPS_TO_REST, "tolerance": REST}
    weak = {s: ASKED for s in _slots(net) if partial and _precision(net, s) < ASKED}
    reason = "there is no sweep: inference is run until each sample is at rest"
    if weak:
        how["precision"] = weak
        reason += f"; feedback, trained with less, is asked with precision {ASKED:g} to fill in what is not known"
    shown = ", ".join(f"{k}={_shown(v)}" for k, v in how.items() if k != "precision")
    return how, Choice("to ask", shown + (", precision={…}" if weak else ""), reason)


def _slots(net: PCNetwork) -> list[tuple[Node, str]]:
    """List the slots that edges feed; those with a prior fill in nothing."""
    every = ((v, name, said) for v, slots in net.graph.nodes(data="slots") for name, said in (slots or {}).items())
    return [(v, name) for v, name, said in every if said.get("prior") is None]


def _precision(net: PCNetwork, slot: tuple[Node, str]) -> float:
    """Return the precision of a slot with a Gaussian energy; of others infinity, which is above all that is asked."""
    energy = net.node_energy(net.structure.slots[slot])
    return energy.precision if isinstance(energy, Gaussian) else float("inf")


def _shown(value: Any) -> str:
    if isinstance(value, Equilibrium):
        return f"Equilibrium(release={', '.join(map(repr, value.release))}, steps={value.steps})"
    if isinstance(value, Forward):
        parts = [f"{key}=Zero()" for key in ("roots", "fallback") if getattr(value, key, None) is not None]
        return f"Forward({', '.join(parts)})"
    return "LBFGS()" if isinstance(value, LBFGS) else repr(value)
