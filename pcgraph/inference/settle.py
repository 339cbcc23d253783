"""Relaxing a part of a network by itself, for initializers that have phases of their own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import torch
from torch import Tensor

from pcgraph.clamps import Clamps
from pcgraph.inference.result import state_of
from pcgraph.inference.run import Program, Settings, run_unchecked
from pcgraph.initializers import Block, Context, Given, Initializer, Layout, Swept
from pcgraph.kernels import Workspace, take
from pcgraph.network import Network
from pcgraph.optimizers import StateOptimizer
from pcgraph.plan import Request, make_plan

__all__ = ["settle"]

Node = Hashable


def settle(
    net: Network, known: Mapping[Node, Tensor], nodes: Iterable[Node], steps: int,
    optimizer: StateOptimizer | None, tolerance: float, batch: int,
) -> tuple[dict[Node, Tensor], float]:  # fmt: skip
    """Relax some nodes given all that they read, as if nothing read them.

    Parameters
    ----------
    net : Network
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
    request = Request(
        clamped=frozenset(numbered),
        masked=frozenset(),
        layout=Layout((Swept(wanted) if steps == 0 else Given(_Zeros(), wanted),)),
        steps=steps,
        fixes_zero=optimizer is None or optimizer.fixes_zero,
        stateless=optimizer is None or optimizer.stateless,
        only=frozenset(structure.number[v] for v in wanted),
        device=net.device.type,
    )
    ws = Workspace(make_plan(structure, request), net, batch)
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


class _Zeros(Initializer):
    writes_zeros = True

    def init(self, block: Block, out: Tensor, context: Context) -> None:
        out.zero_()
