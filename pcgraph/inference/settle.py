"""Relaxing a part of a network by itself, for initializers that have phases of their own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

import torch
from torch import Tensor

from pcgraph.clamps import Clamps
from pcgraph.inference.result import state_of
from pcgraph.inference.run import Program, Settings, run_unchecked
from pcgraph.initializers import Block, Context, Given, Initializer, Layout, Swept
from pcgraph.kernels import Workspace, take
from pcgraph.network import Network
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Plan, Request

__all__ = ["settle", "settling"]

Node = Hashable


def settle(
    net: Network, plan: Callable[..., Plan], known: Mapping[Node, Tensor], nodes: Iterable[Node], steps: int,
    optimizer: StateOptimizer | None, tolerance: float, batch: int,
) -> tuple[dict[Node, Tensor], float]:  # fmt: skip
    """Relax some nodes given all that they read, as if nothing read them.

    Parameters
    ----------
    net : Network
    plan : callable
        ``plan(known, nodes, steps, optimizer)``, in canonical numbers: see :func:`settling`.
    known : mapping
        Node -> (batch, *shape), at least all parents of `nodes` outside of `nodes`.
    nodes : iterable of nodes
    steps : int
        0 sweeps them; else at most so many steps from zero.
    optimizer : StateOptimizer or None
    tolerance : float
        Stop when no gradient is larger.
    batch : int

    Returns
    -------
    dict
        Node -> state.
    float
        The largest gradient at the end.
    """
    structure = net.structure
    numbered = {structure.number[v]: h for v, h in known.items()}
    clamps = Clamps(batch, numbered, {})
    wanted = tuple(nodes)
    numbers = frozenset(structure.number[v] for v in wanted)
    ws = Workspace(plan(frozenset(numbered), numbers, steps, optimizer), net, batch)
    residual = [0.0]

    def watch(t: int) -> bool:
        moves = ws.plan.stage(t).moves
        residual[0] = max((float(take(ws.e[g], ws.index(where)).abs().max()) for g, where in moves), default=0.0)
        return residual[0] <= tolerance

    with torch.no_grad():
        context = Context(batch, dict(known), None, net, None)
        ws.program = Program(ws)
        run_unchecked(ws, clamps, optimizer, context, Settings(), watch)
    return {v: state_of(ws, structure.number[v]) for v in wanted}, residual[0]


def settling(
    net: Network, known: frozenset[int], nodes: frozenset[int], steps: int, optimizer: StateOptimizer | None
) -> Request:
    """What :func:`settle` asks a plan for."""
    wanted = tuple(net.structure.nodes[i] for i in sorted(nodes))
    return Request(
        clamped=known,
        masked=frozenset(),
        layout=Layout((Swept(wanted) if steps == 0 else Given(_Zeros(), wanted),)),
        steps=steps,
        fixes_zero=optimizer is None or optimizer.fixes_zero,
        stateless=optimizer is None or optimizer.stateless,
        only=nodes,
        device=net.device.type,
    )


class _Zeros(Initializer):
    writes_zeros = True

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        out.zero_()
