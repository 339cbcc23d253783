"""A prepared run is done by a program, or by a recording of one (paper, Eq 3, its sign and transpose corrected).

    h_u <- h_u - lr * ( 1[u in V_E] * dE_u/dh_u  -  sum_{v in ch(u)} J_uv^T s_v )   u free, all at once
    s_v  = sigma_v'(a_v) * (-dE_v/dmu_v)                   for the Gaussian -dE/dmu = precision * e_v

The energy is summed over a sample's neurons and not averaged over the batch, so that a rate means the same for every
batch size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pcgraph.backends import Motion, Program, keep
from pcgraph.clamps import Clamps
from pcgraph.errors import Diverged, OutOfMemory
from pcgraph.inference.capturable import capturing
from pcgraph.inference.capture import Recorder
from pcgraph.inference.descent import Descent, descend
from pcgraph.inference.options import Options
from pcgraph.inference.planner import Planner, Prepared
from pcgraph.inference.relax import relaxed
from pcgraph.initializers import Context, is_ours
from pcgraph.network import require_as_made
from pcgraph.optimizers import Following

__all__ = ["hold", "of_half_precision", "run"]

#: The labels among the inputs of a recording, which otherwise go by the numbers of nodes.
LABELS = -1


class _Running:
    """A program is lent to it while it runs, since an initializer or a module may run the network meanwhile."""


def hold(program: Program) -> None:
    """Leave a program that is read at once, and its buffers, to the recording under way, if there is one.

    Its replays write there. Where a result is kept, that holds them.
    """
    keep(program)
    program.lend(keep(_Running()))


@torch.inference_mode(False)
@torch.no_grad()
def run(planner: Planner, prepared: Prepared, motion: Motion, options: Options) -> tuple[Program, Descent]:
    """Run a plan on a batch.

    Returns
    -------
    Program
        It holds the final states.
    Descent
        What was seen on the way: the trace, and which samples have converged.

    Raises
    ------
    Diverged
        The energy is not finite at the end.
    OutOfMemory
        The device has run out of memory; the message has the plan's estimate.
    GraphError
        A parameter is not the one that was made.
    """
    try:
        return _run(planner, prepared, motion, options)
    except torch.OutOfMemoryError as error:
        batch = prepared.clamps.batch
        estimate = prepared.plan.memory(batch)
        raise OutOfMemory(
            f"the device ran out of memory; this plan needs about {estimate / 2**30:.3g} GiB beside the parameters "
            f"at batch {batch}: take a smaller batch, or smaller groups ({error})",
            estimate=estimate,
        ) from error
    except (RuntimeError, IndexError):
        if planner.net.places is None:
            require_as_made(planner.net)  # whoever put other tensors in the places of parameters is told so
        raise


def _run(planner: Planner, prepared: Prepared, motion: Motion, options: Options) -> tuple[Program, Descent]:
    plan, clamps, context = prepared.plan, prepared.clamps, prepared.context
    found = relaxed(planner, plan, context)
    context = replace(context, relaxed=found) if found else context
    program = planner.program(plan, clamps.batch)
    running = _Running()
    program.lend(running)
    seen = Descent()
    if capturing(planner.backend, planner.net, plan, clamps, motion, options):
        _recorded(program, clamps, context, motion)
    else:
        seen = descend(program, clamps, context, motion, options)
    if options.check and not program.finite():
        raise _diagnose(program, clamps, context, motion)
    return program, seen


# -- recordings -------------------------------------------------------------------------------------------------------


def _recorded(program: Program, clamps: Clamps, context: Context, motion: Motion) -> None:
    """Run by a recording that belongs to the program, and to what Python decides: see :func:`_decided`."""
    names, bare = program.plan.structure.nodes, replace(context, clamps={}, labels=None)

    def now(inputs: Mapping[int, Tensor]) -> None:
        values = {i: value for i, value in inputs.items() if i != LABELS}
        same = replace(bare, clamps={names[i]: value for i, value in values.items()}, labels=inputs.get(LABELS))
        fresh = Motion(motion.optimizer, motion.first_step)
        descend(program, Clamps(program.batch, values, {}), same, fresh, Options(check=False))

    key = _decided(context, motion)
    if program.recording is None or program.recording[0] != key:
        program.recording = (key, Recorder(now))
        program.recorded = True
    recorder: Recorder[None] = program.recording[1]
    recorder.function = now  # until it is recorded, with the optimizer of this call: that of another may have changed
    labels = {} if context.labels is None else {LABELS: context.labels}
    recorder({**clamps.values, **labels})


def _decided(context: Context, motion: Motion) -> tuple[object, ...]:
    """Return what a recording holds beside parameters: the optimizer's settings, and the tensors of initializers.

    A rate that follows the curvature is read where it lies, and so only which one it is counts.
    """
    kept = (
        (name, tensor.data_ptr())
        for initializer in context.sources
        for name, tensor in (*initializer.named_buffers(), *initializer.named_parameters())
    )
    optimizer = motion.optimizer
    rate = getattr(optimizer, "lr", None)
    which = id(rate) if isinstance(rate, Following) else None
    return (type(optimizer), "" if optimizer is None else repr(vars(optimizer)), which, *kept)


# -- what went wrong --------------------------------------------------------------------------------------------------


def _diagnose(program: Program, clamps: Clamps, context: Context, motion: Motion) -> Diverged:
    """Run again, watching every step, and say where it broke."""
    plan = program.plan
    again = Motion(motion.optimizer, motion.first_step, motion.nudges)
    energies = descend(program, clamps, context, again, Options(trace=True, check=False)).trace
    assert energies is not None
    broken = (~torch.isfinite(energies.sum(1))).nonzero().flatten()
    step = motion.first_step + (int(broken[0]) if len(broken) else plan.steps)
    node, largest = _largest(program)
    optimizer = motion.optimizer
    advice = "the weights, the clamps or the initial states are too large; use a smaller learning rate of the weights"
    if optimizer is not None and step:
        advice = f"use a smaller state rate (now {optimizer!r}), fewer steps, or a smaller learning rate of the weights"
    own = [type(source).__name__ for source in context.sources if not is_ours(source)]
    if own and not step:
        advice += f"; or {own[0]}.init leaves some entries of out as they were, and has to write all of them"
    return Diverged(
        f"the energy is no longer finite at inference step {step} of {motion.first_step + plan.steps}: the "
        f"largest state, {largest:.3g}, is in node {node!r}; {advice}{of_half_precision(program.network.dtype)}. This "
        "run changed no parameter.",
        step=step,
        node=node,
        largest=largest,
    )


def of_half_precision(dtype: torch.dtype) -> str:
    """Add to an advice what float16 calls for: a smaller rate does not help where a state is beyond its numbers."""
    if dtype != torch.float16:
        return ""
    return ". In float16 no number above 65504 is finite: use bfloat16 or float32"


def _largest(program: Program) -> tuple[object, float]:
    """Find the node with the largest state of those computed here, and that state; NaN counts as infinite."""
    nodes = program.plan.structure.declared
    here = [i for i in range(len(nodes)) if program.holds(i)]
    found = (float(program.read(i, "state").abs().max()) for i in here)
    sizes = [size if size == size else float("inf") for size in found]
    worst = max(range(len(here)), key=sizes.__getitem__)
    return nodes[here[worst]], sizes[worst]
