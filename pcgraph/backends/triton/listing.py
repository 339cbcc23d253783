"""What the launches of a plan are cut into is listed here, for ``plan.explain()``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pcgraph.backends.torch.kernels import Kernel
from pcgraph.backends.traits import Traits
from pcgraph.backends.triton.choices import Tile, division, plain_tile, precision_of, tile_for
from pcgraph.network import Network
from pcgraph.plan import Plan
from pcgraph.plan.operations import Index

__all__ = ["BATCH", "tiles"]

#: Of so many samples tiles are listed; of fewer they are smaller, and of more there are more.
BATCH = 64


def tiles(plan: Plan, network: Network, kernels: Sequence[Kernel], traits: Traits) -> Iterator[str]:
    """Yield lines that say how large tiles are, and how many of them each step has: of predictions, and of moves.

    Nodes for which no edge is added up have tiles of another size, where they are in a launch of their own.
    """
    s, (fused, scalar, alone) = plan.structure, division(plan.structure, kernels, traits)
    size, exact = np.array([group.size for group in s.groups])[s.group_of], precision_of(network.dtype) == "tf32x3"
    ahead, back = (tile_for(traits, size[~alone], BATCH, exact, b) for b in (False, True))
    plain = plain_tile(size)

    def cut(nodes: Index, tile: Tile) -> int:
        return int((-(-size[nodes] // tile.neurons)).sum()) * -(-BATCH // tile.samples)

    def told(nodes: Index, near: Index, tile: Tile, what: str) -> str:
        tiled, single = nodes[~alone[nodes]], int(size[nodes[alone[nodes]]].sum())
        bare = ~np.isin(tiled, near)
        if not bare.all() and size[tiled[bare]].sum() * BATCH < traits.plain_numbers:
            bare[:] = False
        count = cut(tiled[~bare], tile) + cut(tiled[bare], plain)
        return f"{count} of {what}" + (f" and {single} single neurons" if single else "")

    def added(edges: Index, ends: Index) -> Index:
        return ends[edges[fused[edges] & ~scalar[edges]]]

    shapes = (
        f"of {what} {t.neurons} neurons by {t.samples} samples"
        for what, t in zip(("predictions", "moves"), (ahead, back))
    )
    yield f"tiles of a batch of {BATCH}: {', '.join(shapes)}"
    stages = [(plan.span(t), plan.stage(t)) for t in range(min(plan.steps, len(plan.stages)))]
    for name, stage in (*stages, ("at the end", plan.final)):
        come = stage.propagate.edges
        touched = np.union1d(stage.compare.nodes, s.target[come])
        line = f"  {name}: {told(touched, added(come, s.target), ahead, 'predictions')}"
        if stage is not plan.final:
            line += f", {told(stage.move.nodes, added(stage.pull.edges, s.source), back, 'moves')}"
        yield line
